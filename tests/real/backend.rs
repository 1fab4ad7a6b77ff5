//! Empty registries for whoever follows the guide, and what is done to them without larder.

use std::path::Path;

use tokio::runtime::Runtime;

use crate::oras::Oras;
use crate::process::{Folder, Server};
use crate::simulator::{Options, Simulator};

/// A registry that has nothing yet.
pub(crate) enum Backend {
    /// The ACR simulator, with the runtime that it runs on.
    Acr(Simulator, #[expect(dead_code, reason = "held: the simulator runs on it")] Runtime),
    /// A registry that anybody may write to and delete from.
    Plain(Server),
}

impl Backend {
    pub(crate) const USER: &str = "ci";
    pub(crate) const PASSWORD: &str = "larder-knows-it-clients-do-not";

    pub(crate) fn simulator(_: &Folder, _: &str) -> Self {
        Self::of(Options::private(Self::USER, Self::PASSWORD))
    }

    /// One that anybody may pull `repository` from, and nobody push to.
    pub(crate) fn read_only(repository: &str) -> Self {
        let registry = Self::of(Options::public());
        if let Self::Acr(simulator, _) = &registry {
            simulator.push_artifact(repository, "before", &[("file", "text/plain", "x".into())]);
        }
        registry
    }

    fn of(options: Options) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::start(options));
        Self::Acr(simulator, runtime)
    }

    pub(crate) fn registry(program: &'static str, folder: &Folder, name: &str) -> Self {
        Self::Plain(crate::upstream::start_registry(program, &folder.sub(name), ""))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    fn host(&self) -> String {
        match self {
            Self::Acr(simulator, _) => simulator.host(),
            Self::Plain(server) => format!("127.0.0.1:{}", server.port),
        }
    }

    /// A reference that leads to the registry itself.
    pub(crate) fn at(&self, reference: &str) -> String {
        format!("{}/{reference}", self.host())
    }

    /// Whether it has ACR's own API.
    pub(crate) fn is_acr(&self) -> bool {
        matches!(self, Self::Acr(..))
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        match self {
            Self::Acr(simulator, _) => simulator.violations(),
            Self::Plain(_) => Vec::new(),
        }
    }

    /// Whether it has a tag.
    pub(crate) fn has(&self, reference: &str) -> bool {
        let (repository, tag) = reference.rsplit_once(':').unwrap();
        match self {
            Self::Acr(simulator, _) => simulator.manifest(repository, tag).is_some(),
            Self::Plain(server) => {
                crate::process::http(server.port, "GET", &format!("/v2/{repository}/manifests/{tag}")).0 == 200
            }
        }
    }

    /// Runs ORAS against the registry itself: with its login, and plain HTTP.
    pub(crate) fn oras(&self, oras: &Oras, folder: &Path, arguments: &[&str]) -> Vec<u8> {
        let login = ["--plain-http", "--username", Self::USER, "--password", Self::PASSWORD];
        let login = if self.is_acr() { &login[..] } else { &login[..1] };
        oras.bytes(&[arguments, login].concat(), folder)
    }

    /// A manifest as the registry has it.
    pub(crate) fn manifest(&self, oras: &Oras, folder: &Path, reference: &str) -> Vec<u8> {
        self.oras(oras, folder, &["manifest", "fetch", &self.at(reference)])
    }

    /// Deletes a manifest with its tags, behind everybody's back.
    pub(crate) fn delete(&self, oras: &Oras, folder: &Path, reference: &str) {
        self.oras(oras, folder, &["manifest", "delete", "--force", &self.at(reference)]);
    }
}
