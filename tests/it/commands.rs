//! `status`, `list`, `pin`, `purge` and `verify` against the running program, through its socket.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::harness;

use harness::simulator::{FaultAnswer, Options, PathClass, samples};
use harness::{Acr, Process, Setup, until, until_async};
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
    // A blob is in its place a moment after its last byte went out.
    until("what was pulled is stored", || json(&larder(&setup, &["list", "--json"]))[0]["missing"] == 1).await;
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
async fn status_and_metrics_say_what_is_running() {
    use larder::telemetry::build;
    let acr = Acr::start(Options::public()).await;
    let setup = Setup::of(&acr);
    let process = Process::start(&setup, &["--upstream", &acr.url(), "--login", "anonymous"]).await;
    let status = json(&larder(&setup, &["status", "--json"]));
    for (key, value) in [
        ("version", build::VERSION),
        ("commit", build::COMMIT),
        ("build_date", build::DATE),
        ("target", build::TARGET),
        ("features", build::FEATURES),
    ] {
        assert_eq!(status[key], value, "{status}");
    }
    let (commit, features, target, version) = (build::COMMIT, build::FEATURES, build::TARGET, build::VERSION);
    let labels = format!("commit=\"{commit}\",features=\"{features}\",target=\"{target}\",version=\"{version}\"");
    assert_eq!(process.metric(&format!("larder_build_info{{{labels}}}")).await, 1);
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
    for path in ["/v1/status", "/v1/references", "/v1/purge?reference=samples/config", "/v1/verify", "/v1/pins/add"] {
        assert_eq!(harness::Client::new(process.admin).call("GET", path).send().await.status, 404, "{path}");
        let write = harness::Client::new(process.admin).call("POST", path).send().await;
        assert_eq!(write.status, 405, "{path}");
    }
}

/// A small store and more than it holds: what is pinned stays, what is not goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_is_never_removed_to_make_room_over_a_restart_too() {
    let acr = Acr::start(Options::public()).await;
    let layer = |seed| samples::incompressible(seed, 300_000);
    acr.push_artifact("base/a", "v1", &[("a.bin", "application/octet-stream", layer(1))]);
    for number in 0..8 {
        let file = ("a.bin", "application/octet-stream", layer(100 + number));
        acr.push_artifact("other/b", &format!("v{number}"), &[file]);
    }
    let setup = Setup::of(&acr);
    let url = acr.url();
    let flags = ["--upstream", &url, "--login", "anonymous", "--max-size", "1MiB"];
    let mut process = Process::start(&setup, &flags).await;
    let told = larder(&setup, &["pin", "base/a:v1"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("nothing of it is stored yet"), "{told:?}");
    pull(&process, "base/a", "v1").await;
    for number in 0..4 {
        pull(&process, "other/b", &format!("v{number}")).await;
    }
    process.kill();
    let process = Process::start(&setup, &flags).await;
    for number in 4..8 {
        pull(&process, "other/b", &format!("v{number}")).await;
    }
    let references = json(&larder(&setup, &["list", "--json", "--pinned"]));
    assert_eq!(references.as_array().unwrap().len(), 1, "{references}");
    assert_eq!(references[0]["reference"], format!("{}/base/a:v1", acr.host()));
    assert!(references[0]["bytes"].as_u64().unwrap() > 300_000, "its layer is still here: {references}");
    let others = json(&larder(&setup, &["list", "--json"]));
    let gone = others.as_array().unwrap().iter().filter(|one| one["missing"] != 0 && one["pinned"] == false);
    assert!(gone.count() > 3, "there was no room for all: {others}");
    let pins = String::from_utf8(larder(&setup, &["pin"]).stdout).unwrap();
    assert_eq!(pins, format!("{}/base/a:v1\n", acr.host()));
    let unpinned = json(&larder(&setup, &["unpin", "--json", "base/a:v1"]));
    assert_eq!((&unpinned["changed"], &unpinned["stored"]), (&true.into(), &true.into()));
    assert_eq!(json(&larder(&setup, &["unpin", "--json", "base/a:v1"]))["changed"], false);
    assert_eq!(json(&larder(&setup, &["list", "--json", "--pinned"])), serde_json::json!([]));
}

async fn pull(process: &Process, repository: &str, reference: &str) {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let manifest = process.client().call("GET", &path).line("accept", "*/*").send().await;
    assert_eq!(manifest.status, 200, "{path}");
    for layer in manifest.json()["layers"].as_array().unwrap() {
        let path = format!("/v2/{repository}/blobs/{}", layer["digest"].as_str().unwrap());
        assert_eq!(process.client().call("GET", &path).send().await.status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_can_match_nothing_is_refused() {
    let (acr, setup, _process, _) = pulled().await;
    let wrong = larder(&setup, &["pin", "base/**"]);
    assert_eq!(wrong.status.code(), Some(2));
    let text = String::from_utf8(wrong.stderr).unwrap();
    assert!(text.contains(&format!("write {}/base/**", acr.host())), "{text}");
    let right = format!("{}/base/**", acr.host());
    assert_eq!(json(&larder(&setup, &["pin", "--json", &right]))["changed"], true);
    assert_eq!(json(&larder(&setup, &["pin", "--json", &right]))["changed"], false, "once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn list_says_what_was_used_lately_and_for_what_platform() {
    let (acr, setup, process, _) = pulled().await;
    let content = "{\"os\":\"linux\",\"architecture\":\"arm64\",\"variant\":\"v8\"}";
    let config = acr.push_blob("samples/image", content);
    let kind = "application/vnd.oci.image.config.v1+json";
    let manifest = format!(
        "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"{kind}\",\"digest\":\"{config}\",\"size\":{}}},\"layers\":[]}}",
        content.len()
    );
    let image = acr.push_manifest("samples/image", Some("v1"), "application/vnd.oci.image.manifest.v1+json", manifest);
    pull(&process, "samples/image", "v1").await;
    process.client().call("GET", &format!("/v2/samples/image/blobs/{config}")).send().await;
    // A blob is in its place a moment after its last byte went out.
    let stored = || json(&larder(&setup, &["list", "--json"])).to_string().contains("linux/arm64/v8");
    until("the configuration is stored", stored).await;
    let references = json(&larder(&setup, &["list", "--json", "--used-within", "1h"]));
    let image = references.as_array().unwrap().iter().find(|one| one["digest"] == image.as_str()).unwrap();
    assert_eq!(image["platforms"], serde_json::json!(["linux/arm64/v8"]), "{image}");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(json(&larder(&setup, &["list", "--json", "--used-within", "1s"])), serde_json::json!([]));
    let wrong = larder(&setup, &["list", "--used-within", "soon"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn list_missing_names_what_a_sealed_upstream_was_asked_for() {
    let acr = Acr::start(Options::public()).await;
    let setup = Setup::of(&acr);
    let url = acr.url();
    let process = Process::start(&setup, &["--upstream", &url, "--login", "anonymous", "--sealed"]).await;
    for _ in 0..2 {
        let answer = process.client().call("GET", "/v2/samples/config/manifests/v9").send().await;
        assert_eq!(answer.status, 404);
    }
    let missing = json(&larder(&setup, &["list", "--missing", "--json"]));
    assert_eq!(missing[0]["reference"], format!("{}/samples/config:v9", acr.host()));
    assert_eq!(missing[0]["times"], 2);
    let text = String::from_utf8(larder(&setup, &["list", "--missing"]).stdout).unwrap();
    assert!(text.contains("samples/config:v9"), "{text}");
    assert!(acr.log().is_empty());
}

/// The blob files of a store.
fn blobs(setup: &Setup) -> Vec<std::path::PathBuf> {
    let folder = setup.store().join("blobs/sha256");
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn purging_frees_what_nothing_else_speaks_for() {
    let (acr, setup, process, digest) = pulled().await;
    let layer = samples::incompressible(3, 100_000);
    // The same layer in another repository.
    acr.push_artifact("samples/copy", "v1", &[("b.bin", "application/octet-stream", layer)]);
    pull(&process, "samples/copy", "v1").await;
    harness::until("all is stored", || blobs(&setup).len() == 3).await;
    let before = blobs(&setup).len();
    let purged = json(&larder(&setup, &["purge", "--json", &format!("samples/config@{digest}")]));
    assert_eq!((&purged["tags"], &purged["manifests"]), (&1.into(), &1.into()));
    let freed = purged["freed_bytes"].as_u64().unwrap();
    assert!(freed > 0 && freed < 100_000, "the other repository has the layer: {purged}");
    assert_eq!(blobs(&setup).len(), before - 1);
    let purged = json(&larder(&setup, &["purge", "--json", "--upstream", &acr.host()]));
    assert!(purged["freed_bytes"].as_u64().unwrap() > 100_000, "{purged}");
    assert!(blobs(&setup).is_empty());
    let wrong = larder(&setup, &["purge", "--upstream", "other.io"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains(&acr.host()), "{wrong:?}");
    assert_eq!(larder(&setup, &["purge"]).status.code(), Some(2), "nothing to purge is a mistake");
}

#[tokio::test(flavor = "multi_thread")]
async fn purging_what_is_not_pinned_leaves_what_is() {
    let (acr, setup, process, _) = pulled().await;
    let layer = samples::incompressible(5, 50_000);
    acr.push_artifact("samples/kept", "v1", &[("a.bin", "application/octet-stream", layer)]);
    pull(&process, "samples/kept", "v1").await;
    assert!(larder(&setup, &["pin", "samples/kept:v1"]).status.success());
    let purged = json(&larder(&setup, &["purge", "--json", "--unpinned"]));
    assert_eq!((&purged["tags"], &purged["manifests"]), (&1.into(), &1.into()));
    assert!(purged["freed_bytes"].as_u64().unwrap() > 100_000, "{purged}");
    let left = json(&larder(&setup, &["list", "--json"]));
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert!(left[0]["bytes"].as_u64().unwrap() > 50_000);
    let again = process.client().call("GET", "/v2/samples/kept/manifests/v1").line("accept", "*/*").send().await;
    assert!(again.cache_status().contains("hit"), "{}", again.cache_status());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_asks_the_running_daemon_which_repairs_without_a_pause() {
    let (_acr, setup, process, _) = pulled().await;
    harness::until("the layer is stored", || blobs(&setup).len() == 2).await;
    let sound = json(&larder(&setup, &["verify", "--json"]));
    assert_eq!((&sound["blobs"], &sound["damaged"]), (&2.into(), &serde_json::json!([])));
    let large = blobs(&setup).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&large).unwrap();
    bytes[50_000] ^= 1;
    let mut permissions = large.metadata().unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of a temporary folder")]
    permissions.set_readonly(false);
    std::fs::set_permissions(&large, permissions).unwrap();
    std::fs::write(&large, bytes).unwrap();
    let told = larder(&setup, &["verify"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stdout).contains("--repair"), "{told:?}");
    assert!(large.exists(), "nobody asked for a repair");
    let repaired = larder(&setup, &["verify", "--repair", "--json"]);
    assert_eq!(repaired.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&repaired.stdout).unwrap();
    assert_eq!(value["damaged"][0]["repaired"], true, "{value}");
    assert!(!large.exists());
    pull(&process, "samples/config", "v1").await;
    assert!(larder(&setup, &["verify"]).status.success(), "healed by the next pull");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_follows_its_tag() {
    let acr = Acr::start(Options::public()).await;
    let push = |repository: &str, tag: &str, seed| {
        let file = ("a.bin", "application/octet-stream", samples::incompressible(seed, 300_000));
        acr.push_artifact(repository, tag, &[file]);
    };
    push("base/a", "v1", 2);
    let setup = Setup::of(&acr);
    let url = acr.url();
    let process = Process::start(&setup, &["--upstream", &url, "--login", "anonymous", "--max-size", "1MiB"]).await;
    assert!(larder(&setup, &["pin", "base/a:v1"]).status.success());
    pull(&process, "base/a", "v1").await;
    push("base/a", "v1", 4);
    let path = "/v2/base/a/manifests/v1";
    let moved = process.client().call("GET", path).line("accept", "*/*").line("cache-control", "no-cache").send().await;
    assert_eq!(moved.status, 200);
    pull(&process, "base/a", "v1").await;
    for number in 0..6 {
        push("other/b", &format!("v{number}"), 100 + 2 * number);
        pull(&process, "other/b", &format!("v{number}")).await;
    }
    let pinned = json(&larder(&setup, &["list", "--json", "--pinned"]));
    assert_eq!(pinned[0]["digest"], moved.header("docker-content-digest").unwrap(), "{pinned}");
    assert!(pinned[0]["bytes"].as_u64().unwrap() > 300_000, "its new layer is still here: {pinned}");
}

/// What is wrong with an upstream stands in `status`, for a person and for a script, for as long as it lasts.
#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_is_wrong_with_an_upstream() {
    let (acr, setup, process, _) = pulled().await;
    let troubles = || json(&larder(&setup, &["status", "--json"]))["upstreams"][0]["troubles"].clone();
    let text = || String::from_utf8(larder(&setup, &["status"]).stdout).unwrap();
    let ask = async |tag: &str| {
        let path = format!("/v2/samples/config/manifests/{tag}");
        process.client().call("GET", &path).line("accept", "*/*").send().await.status
    };
    assert_eq!(troubles(), serde_json::json!([]));

    acr.stop_listening();
    for number in 0..3 {
        assert_eq!(ask(&format!("gone{number}")).await, 504);
    }
    let only = &troubles()[0];
    assert_eq!(
        (&only["kind"], &only["of"]),
        (&"unreachable".into(), &acr.url().replace("http://", "").into()),
        "{only}"
    );
    assert!(only["since_timestamp"].as_u64().unwrap() > 1_700_000_000, "{only}");
    let said = text();
    assert!(
        said.contains("  UNREACHABLE: ") && said.contains("has not answered since") && said.contains("try"),
        "{said}"
    );
    acr.resume_listening();
    until_async("the registry answers again", async || ask("none").await == 404).await;
    assert_eq!(troubles(), serde_json::json!([]));

    let refused = FaultAnswer::Oci { status: 403, code: "DENIED".into(), message: "requested access is denied".into() };
    acr.knobs().fail(PathClass::Manifests, refused);
    assert_eq!(ask("secret").await, 403);
    let only = &troubles()[0];
    assert_eq!((&only["kind"], &only["count"]), (&"withheld".into(), &1.into()), "{only}");
    assert!(
        text().contains("  WITHHELD: ") && text().contains(&format!("{}/samples/config", acr.host())),
        "{}",
        text()
    );

    acr.knobs().reset();
    acr.knobs().fail(PathClass::Manifests, FaultAnswer::Portal { status: 200 });
    assert_eq!(ask("page").await, 502);
    assert!(text().contains("  FAILING: ") && text().contains("web page"), "{}", text());

    acr.knobs().reset();
    let (retry_after_s, counts_down, front_door) = (Some(40), false, false);
    acr.knobs().fail(PathClass::Manifests, FaultAnswer::TooManyRequests { retry_after_s, counts_down, front_door });
    assert_eq!(ask("busy").await, 429);
    let held = troubles();
    let held = held.as_array().unwrap().iter().find(|trouble| trouble["kind"] == "throttled").unwrap();
    assert_eq!(held["of"], "reads", "{held}");
    assert!((20..=40).contains(&held["left_s"].as_u64().unwrap()), "{held}");
    assert!(text().contains("  THROTTLED: it throttles reads, and wants to be left alone for another "), "{}", text());
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_since_when_nothing_is_stored() {
    let acr = Acr::start(Options::public()).await;
    let layer = |seed| ("a.bin", "application/octet-stream", samples::incompressible(seed, 100_000));
    let artifacts = [1, 2].map(|seed| acr.push_artifact("app", &format!("v{seed}"), &[layer(seed)]));
    let setup = Setup::of(&acr);
    let socket = setup.folder.path().join("admin.sock");
    let url = acr.url();
    let process = Process::start_with(&setup, &["--upstream", &url, "--login", "anonymous"], |command| {
        command.env("LARDER_ADMIN__SOCKET", &socket);
    })
    .await;
    let status = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.env_clear().env("HOME", setup.folder.path()).env("LARDER_ADMIN__SOCKET", &socket);
        command.arg("status").args(flags).arg("--store").arg(setup.store()).output().unwrap()
    };
    let pull = async |number: usize| {
        let path = format!("/v2/app/blobs/{}", artifacts[number].layers[0]);
        process.client().call("GET", &path).send().await.status
    };
    assert_eq!(pull(0).await, 200);
    assert_eq!(json(&status(&["--json"]))["store"]["trouble"], serde_json::Value::Null);
    std::fs::rename(setup.store(), setup.folder.path().join("elsewhere")).unwrap();
    assert_eq!(pull(1).await, 200, "a disk in trouble fails no pull");
    until("the trouble is known", || json(&status(&["--json"]))["store"]["trouble"]["kind"] == "gone").await;
    let text = String::from_utf8(status(&[]).stdout).unwrap();
    assert!(text.contains("NOTHING IS STORED since 20") && text.contains("pulls pass through"), "{text}");
}
