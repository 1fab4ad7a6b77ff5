//! Empty registries for whoever follows the guide, and what is done to them without larder.

use std::fs;
use std::path::Path;

use tokio::runtime::Runtime;

use crate::oras::Oras;
use crate::process::{Folder, Server};
use crate::simulator::{Options, Simulator, User};

/// A registry that has nothing yet.
pub(crate) enum Backend {
    /// The ACR simulator, what ORAS has to be told to trust it (nothing: it speaks plain HTTP), and the runtime that it runs on.
    Acr(Simulator, Vec<String>, #[expect(dead_code, reason = "held: the simulator runs on it")] Runtime),
    /// A registry that anybody may write to and delete from.
    Plain(Server),
}

impl Backend {
    pub(crate) const USER: &str = "ci";
    pub(crate) const PASSWORD: &str = "larder-knows-it-clients-do-not";
    /// May pull everything, and push nothing.
    pub(crate) const READER: (&str, &str) = ("reader", "reader-secret");

    pub(crate) fn simulator(_: &Folder, _: &str) -> Self {
        Self::of(Options::private(Self::USER, Self::PASSWORD), |_| Vec::new())
    }

    /// One that speaks TLS under the name, and knows [`Self::READER`] beside its administrator.
    pub(crate) fn named(folder: &Folder, name: &str) -> Self {
        let reader = User::scope_map(Self::READER.0, Self::READER.1, &[("*", &["content/read", "metadata/read"])]);
        let options = Options::private(Self::USER, Self::PASSWORD).user(reader);
        let options = Options { tls: true, tls_names: vec![name.to_owned()], ..options };
        Self::of(options, |simulator| {
            let ca = folder.sub("registries").join(format!("{name}.pem"));
            fs::write(&ca, simulator.ca_pem().unwrap()).unwrap();
            vec!["--ca-file".to_owned(), ca.to_str().unwrap().to_owned()]
        })
    }

    /// One that anybody may pull `repository` from, and nobody push to.
    pub(crate) fn read_only(repository: &str) -> Self {
        let registry = Self::of(Options::public(), |_| Vec::new());
        if let Self::Acr(simulator, ..) = &registry {
            simulator.push_artifact(repository, "before", &[("file", "text/plain", "x".into())]);
        }
        registry
    }

    fn of(options: Options, trust: impl FnOnce(&Simulator) -> Vec<String>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::start(options));
        let trust = trust(&simulator);
        Self::Acr(simulator, trust, runtime)
    }

    pub(crate) fn registry(program: &'static str, folder: &Folder, name: &str) -> Self {
        Self::Plain(crate::upstream::start_registry(program, &folder.sub(name), ""))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.host())
    }

    pub(crate) fn host(&self) -> String {
        match self {
            Self::Acr(simulator, ..) => simulator.host(),
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
            Self::Acr(simulator, ..) => simulator.violations(),
            Self::Plain(_) => Vec::new(),
        }
    }

    /// Whether it has a tag.
    pub(crate) fn has(&self, reference: &str) -> bool {
        let (repository, tag) = reference.rsplit_once(':').unwrap();
        match self {
            Self::Acr(simulator, ..) => simulator.manifest(repository, tag).is_some(),
            Self::Plain(server) => {
                crate::process::http(server.port, "GET", &format!("/v2/{repository}/manifests/{tag}")).0 == 200
            }
        }
    }

    /// Runs ORAS against the registry itself, with its login.
    pub(crate) fn oras(&self, oras: &Oras, folder: &Path, arguments: &[&str]) -> Vec<u8> {
        let login = ["--username", Self::USER, "--password", Self::PASSWORD];
        let way: Vec<&str> = match self {
            Self::Acr(_, trust, _) if !trust.is_empty() => trust.iter().map(String::as_str).chain(login).collect(),
            Self::Acr(..) => ["--plain-http"].into_iter().chain(login).collect(),
            Self::Plain(_) => vec!["--plain-http"],
        };
        oras.bytes(&[arguments, &way].concat(), folder)
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
