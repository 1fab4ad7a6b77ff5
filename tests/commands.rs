//! `status`, `list` and `purge` against the running program, through its socket.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "harness/mod.rs"]
mod harness;

use harness::simulator::{Options, samples};
use harness::{Acr, Process, Setup};
use std::process::{Command, Output};

/// Runs a command with the store that `setup` has.
fn larder(setup: &Setup, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", setup.folder.path()).args(arguments).arg("--store").arg(setup.store());
    command.output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A registry with one artifact, and larder before it, which has pulled it.
async fn pulled() -> (Acr, Setup, Process, String) {
    let acr = Acr::start(Options::public()).await;
    let layer = samples::incompressible(3, 100_000);
    let artifact = acr.push_artifact("samples/config", "v1", &[("a.bin", "application/octet-stream", layer)]);
    let setup = Setup::of(&acr);
    let process = Process::start(&setup, &["--upstream", &acr.url(), "--login", "anonymous"]).await;
    let answer = process.client().call("GET", "/v2/samples/config/manifests/v1").line("accept", "*/*").send().await;
    assert_eq!(answer.status, 200);
    for layer in answer.json()["layers"].as_array().unwrap() {
        let path = format!("/v2/samples/config/blobs/{}", layer["digest"].as_str().unwrap());
        assert_eq!(process.client().call("GET", &path).send().await.status, 200);
    }
    (acr, setup, process, artifact.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_was_saved() {
    let (acr, setup, _process, _) = pulled().await;
    let status = json(&larder(&setup, &["status", "--json"]));
    let upstream = &status["upstreams"][0];
    assert_eq!(upstream["name"], acr.host().as_str());
    assert_eq!(upstream["up"], true);
    assert_eq!(upstream["requests"]["miss"], 2);
    assert!(status["store"]["bytes"].as_u64().unwrap() > 100_000, "{status}");
    let text = String::from_utf8(larder(&setup, &["status"]).stdout).unwrap();
    assert!(text.contains("2 miss") && text.contains("saved"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn list_names_what_is_here_and_what_is_missing() {
    let (acr, setup, _process, digest) = pulled().await;
    let references = json(&larder(&setup, &["list", "--json"]));
    let only = &references[0];
    assert_eq!(only["reference"], format!("{}/samples/config:v1", acr.host()).as_str());
    assert_eq!(only["digest"], digest.as_str());
    assert!(only["bytes"].as_u64().unwrap() > 100_000, "{only}");
    // Nobody has asked for the config.
    assert_eq!(only["missing"], 1, "{only}");
    assert_eq!(references.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_is_asked_for_anew() {
    let (acr, setup, process, digest) = pulled().await;
    let ask = async |reference: &str| {
        let path = format!("/v2/samples/config/manifests/{reference}");
        process.client().call("GET", &path).line("accept", "*/*").send().await.cache_status().to_owned()
    };
    assert!(ask("v1").await.contains("hit"));
    assert_eq!(json(&larder(&setup, &["purge", "--json", "samples/config:v1"]))["tags"], 1);
    assert!(ask("v1").await.contains("fwd=miss"));
    let by_digest = format!("{}/samples/config@{digest}", acr.host());
    let purged = json(&larder(&setup, &["purge", "--json", &by_digest]));
    assert_eq!((&purged["tags"], &purged["manifests"]), (&1.into(), &1.into()));
    assert!(ask(&digest).await.contains("fwd=miss"));
    assert_eq!(json(&larder(&setup, &["purge", "--json", "samples/config"]))["manifests"], 1);
    assert_eq!(json(&larder(&setup, &["list", "--json"])), serde_json::json!([]));
    assert_eq!(json(&larder(&setup, &["purge", "--json", "samples/config"]))["manifests"], 0);
    let wrong = larder(&setup, &["purge", "NO/such"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_commands_say_so() {
    let (_acr, setup, mut process, _) = pulled().await;
    process.kill();
    let output = larder(&setup, &["status"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no larder answers at") && text.contains("--store"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_are_not_on_the_network() {
    let (_acr, _setup, process, _) = pulled().await;
    for path in ["/v1/status", "/v1/references", "/v1/purge?reference=samples/config"] {
        assert_eq!(harness::Client::new(process.admin).call("GET", path).send().await.status, 404, "{path}");
        let write = harness::Client::new(process.admin).call("POST", path).send().await;
        assert_eq!(write.status, 405, "{path}");
    }
}
