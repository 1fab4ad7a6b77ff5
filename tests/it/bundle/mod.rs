//! Content that moves by disk: exported here, carried, imported there, served by a larder that never dials out.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod deltas;
mod foreign;
mod kit;
mod refused;
mod sealed;
mod volumes;
mod warm;

use crate::harness::simulator::{OCI_INDEX, OCI_MANIFEST, Options, samples};
use crate::harness::{Acr, Process, Setup, UPSTREAM, sha256, until};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A larder's own program with its store.
pub(crate) struct Site {
    pub(crate) setup: Setup,
    pub(crate) process: Process,
}

impl Site {
    /// One that pulls from `acr`.
    pub(crate) async fn near(acr: &Acr) -> Self {
        Self::start(Setup::of(acr), "").await
    }

    /// One that never dials out.
    pub(crate) async fn far() -> Self {
        Self::start(Setup::at("http://127.0.0.1:9"), "sealed = true\n").await
    }

    /// One that never dials out, with more in its file.
    pub(crate) async fn far_with(more: &str) -> Self {
        Self::start(Setup::at("http://127.0.0.1:9"), &format!("sealed = true\n{more}")).await
    }

    /// `more` follows what the file says of the upstream.
    pub(crate) async fn start(setup: Setup, more: &str) -> Self {
        let url = setup.settings.upstreams[0].url.clone();
        let upstream = format!("[[upstream]]\nname = \"{UPSTREAM}\"\ndefault = true\nurl = \"{url}\"\n{more}");
        let config = setup.file("larder.toml", &upstream);
        let process = Process::start(&setup, &["--config", config.to_str().unwrap()]).await;
        Self { setup, process }
    }

    /// `kill -9`, and begun again.
    pub(crate) async fn restart(&mut self) {
        self.process.kill();
        let config = self.path("larder.toml");
        self.process = Process::start(&self.setup, &["--config", config.to_str().unwrap()]).await;
    }

    /// A command of larder, to be run beside the daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.env_clear().env("HOME", self.setup.folder.path()).args(arguments);
        command.arg("--config").arg(self.path("larder.toml")).arg("--store").arg(self.setup.store());
        command
    }

    /// Runs a command of larder beside the daemon.
    pub(crate) fn larder(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The same, which must succeed; what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.larder(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.run(arguments)).unwrap()
    }

    /// A path that the operator chose.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.setup.folder.path().join(name)
    }

    pub(crate) async fn get(&self, target: &str) -> crate::harness::Answer {
        self.process.client().call("GET", target).send().await
    }

    /// Asks for a manifest by tag and for everything that it names, as a client does; the bytes of all.
    pub(crate) async fn pull(&self, repository: &str, tag: &str) -> Vec<Bytes> {
        let mut pulled = Vec::new();
        let mut targets = vec![format!("/v2/{repository}/manifests/{tag}")];
        while let Some(target) = targets.pop() {
            let answer = self.get(&target).await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            if target.contains("/manifests/") {
                let manifest: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                for (field, kind) in [("manifests", "manifests"), ("layers", "blobs")] {
                    for child in manifest[field].as_array().into_iter().flatten() {
                        targets.push(format!("/v2/{repository}/{kind}/{}", child["digest"].as_str().unwrap()));
                    }
                }
                if let Some(config) = manifest["config"]["digest"].as_str() {
                    targets.push(format!("/v2/{repository}/blobs/{config}"));
                }
            }
            pulled.push(answer.body.clone());
        }
        // A blob is in its place a moment after its last byte went out.
        until("what was pulled is stored", || self.json(&["status", "--json"])["fills_inflight"] == 0).await;
        pulled.sort();
        pulled
    }
}

/// Pushes an image with these layers; its digest.
pub(crate) fn image(acr: &Acr, repository: &str, tag: Option<&str>, name: &str, layers: &[Bytes]) -> String {
    let config = Bytes::from(format!("{{\"os\":\"linux\",\"architecture\":\"{name}\"}}"));
    let descriptor = |kind: &str, content: &Bytes| {
        format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{}\",\"size\":{}}}", sha256(content), content.len())
    };
    acr.push_blob(repository, config.clone());
    let listed: Vec<String> = layers
        .iter()
        .map(|layer| {
            acr.push_blob(repository, layer.clone());
            descriptor("application/vnd.oci.image.layer.v1.tar", layer)
        })
        .collect();
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{},\"layers\":[{}]}}",
        descriptor("application/vnd.oci.image.config.v1+json", &config),
        listed.join(",")
    );
    let digest = sha256(manifest.as_bytes());
    acr.push_manifest(repository, tag, OCI_MANIFEST, manifest);
    digest
}

/// Pushes an index of two platforms, each with a layer of its own and one that both have; the shared layer.
pub(crate) fn platforms(acr: &Acr, repository: &str, tag: &str, seed: u64) -> Bytes {
    let shared = samples::incompressible(7, 200_000);
    let children: Vec<String> = ["amd64", "arm64"]
        .iter()
        .zip((seed..).step_by(2))
        .map(|(platform, seed)| {
            let own = samples::incompressible(seed, 100_000);
            let digest = image(acr, repository, None, platform, &[shared.clone(), own]);
            let size = acr.manifest(repository, &digest).unwrap().1.len();
            format!(
                "{{\"mediaType\":\"{OCI_MANIFEST}\",\"digest\":\"{digest}\",\"size\":{size},\
                 \"platform\":{{\"os\":\"linux\",\"architecture\":\"{platform}\"}}}}"
            )
        })
        .collect();
    let index = format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{}]}}", children.join(","));
    acr.push_manifest(repository, Some(tag), OCI_INDEX, index);
    shared
}

/// A registry with an index, an image and something attached, all pulled through a larder.
pub(crate) async fn near() -> (Acr, Site) {
    let acr = Acr::start(Options::public()).await;
    platforms(&acr, "base/os", "v1", 100);
    let layer = samples::incompressible(3, 50_000);
    image(&acr, "app", Some("v1"), "amd64", &[layer]);
    let site = Site::near(&acr).await;
    site.pull("base/os", "v1").await;
    site.pull("app", "v1").await;
    (acr, site)
}

/// Names of the files of a tar, by the system's tar.
pub(crate) fn names_in(tar: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("-tf").arg(tar).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
