//! The registries that larder stands in front of, filled with the same content.

use std::fs;
use std::path::Path;

use tokio::runtime::Runtime;

use crate::content::{IMAGE, Manifests, SBOM_TYPE, image, samples, sbom};
use crate::larder::secret_file;
use crate::oras::{Oras, Version};
use crate::process::{Folder, Server, command, free_port, program, run};
use crate::simulator::{OCI_MANIFEST, Options, Simulator};

const USER: &str = "ci";
const PASSWORD: &str = "larder-knows-it-clients-do-not";
/// How the registry with tokens is called, since its address cannot be part of a path.
pub(crate) const ALIAS: &str = "tokens";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The ACR simulator: its own token flow, redirects to its storage host.
    Simulator,
    /// Debian's docker-registry, which takes the password with each request.
    Basic,
    /// Distribution 3.1.1; its tokens come from another host, the simulator's.
    Tokens,
}

pub(crate) struct Upstream {
    pub(crate) manifests: Manifests,
    /// The arguments of `larder serve` that lead to it.
    pub(crate) arguments: Vec<String>,
    simulator: Option<Simulator>,
    server: Option<Server>,
    // Last, so that what runs on it is gone before it is.
    _runtime: Runtime,
}

impl Upstream {
    pub(crate) fn start(kind: Kind, folder: &Folder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let start = || runtime.block_on(Simulator::start(Options::private(USER, PASSWORD)));
        let (simulator, server, manifests, arguments) = match kind {
            Kind::Simulator => {
                let simulator = start();
                let (manifests, arguments) = (fill_simulator(&simulator), by_flags(&simulator.url(), folder));
                (Some(simulator), None, manifests, arguments)
            }
            Kind::Basic => {
                let manifests = fill_registry("docker-registry", folder);
                let server = start_registry("docker-registry", &folder.sub("upstream"), &basic(folder));
                let arguments = by_flags(&format!("http://127.0.0.1:{}", server.port), folder);
                (None, Some(server), manifests, arguments)
            }
            Kind::Tokens => {
                let simulator = start();
                let manifests = fill_registry("registry", folder);
                let server = start_registry("registry", &folder.sub("upstream"), &tokens(&simulator, folder));
                let arguments = by_file(server.port, &simulator.host(), folder);
                (Some(simulator), Some(server), manifests, arguments)
            }
        };
        Self { manifests, arguments, simulator, server, _runtime: runtime }
    }

    /// The simulator, where there is one.
    pub(crate) fn simulator(&self) -> &Simulator {
        self.simulator.as_ref().unwrap()
    }

    /// What the simulator saw that ACR would have refused.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.simulator.as_ref().map(Simulator::violations).unwrap_or_default()
    }

    /// From here on connections are refused.
    pub(crate) fn stop(&mut self) {
        self.server = None;
        if let Some(simulator) = &self.simulator {
            simulator.stop_listening();
        }
    }
}

/// A plain registry of its own that anybody may write to.
pub(crate) fn open_registry(folder: &Folder) -> Server {
    start_registry("docker-registry", &folder.sub("copies"), "")
}

fn by_flags(url: &str, folder: &Folder) -> Vec<String> {
    let password = secret_file(folder, PASSWORD);
    ["--upstream", url, "--username", USER, "--password-file", &password].map(str::to_owned).to_vec()
}

/// Tokens from another host need a word in the file. Its tags expire at once, so that an outage finds none that is fresh.
fn by_file(port: u16, realm: &str, folder: &Folder) -> Vec<String> {
    let text = format!(
        "[[upstream]]\nname = \"registry.test\"\naliases = [\"{ALIAS}\"]\nurl = \"http://127.0.0.1:{port}\"\n\
         token_realms = [\"{realm}\"]\ndefault = true\n\n[upstream.credential]\nkind = \"password\"\nusername = \"{USER}\"\n\
         password_file = \"{}\"\n\n[upstream.freshness]\ntag_ttl = \"1ms\"\nrevalidate_wait = \"2s\"\n",
        secret_file(folder, PASSWORD)
    );
    let path = folder.sub("larder").join("larder.toml");
    fs::write(&path, text).unwrap();
    vec!["--config".to_owned(), path.to_str().unwrap().to_owned()]
}

fn fill_simulator(simulator: &Simulator) -> Manifests {
    let mut manifests = Manifests::new();
    for sample in samples() {
        let files: Vec<_> = sample.files.iter().map(|file| (file.name, file.media_type, file.bytes.clone())).collect();
        let artifact = simulator.push_artifact(sample.repository, sample.tag, &files);
        manifests.insert(sample.reference(), artifact.manifest);
    }
    let config = &manifests["samples/config:v1"];
    let sbom = sbom();
    let referrer = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","artifactType":"{SBOM_TYPE}","config":{},"layers":[{}],"subject":{}}}"#,
        pushed(simulator, "samples/config", "application/vnd.oci.empty.v1+json", b"{}"),
        pushed(simulator, "samples/config", sbom.media_type, &sbom.bytes),
        descriptor(OCI_MANIFEST, config),
    );
    simulator.push_manifest("samples/config", None, OCI_MANIFEST, referrer.clone());
    manifests.insert("referrer".to_owned(), referrer.into());
    let image = image();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
        pushed(simulator, "samples/image", image.config.media_type, &image.config.bytes),
        pushed(simulator, "samples/image", image.layer.media_type, &image.layer.bytes),
    );
    simulator.push_manifest("samples/image", Some("v1"), OCI_MANIFEST, manifest.clone());
    manifests.insert(IMAGE.to_owned(), manifest.into());
    manifests
}

fn pushed(simulator: &Simulator, repository: &str, media_type: &str, bytes: &[u8]) -> String {
    simulator.push_blob(repository, bytes.to_vec());
    descriptor(media_type, bytes)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    let digest = crate::content::digest_of(bytes);
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
}

/// Fills a registry's storage while nobody has to log in; it is started again with its authentication afterwards.
fn fill_registry(kind: &'static str, folder: &Folder) -> Manifests {
    let server = start_registry(kind, &folder.sub("upstream"), "");
    let oras = Oras::new(Version::V1_3_3, folder);
    let files = folder.sub("to-push");
    let base = format!("localhost:{}", server.port);
    let mut manifests = Manifests::new();
    for sample in samples() {
        let reference = format!("{base}/{}", sample.reference());
        let typed: Vec<String> = sample.files.iter().map(|file| written(&files, file)).collect();
        let arguments: Vec<&str> = ["push", &reference].into_iter().chain(typed.iter().map(String::as_str)).collect();
        oras.ok(&arguments, &files);
        manifests.insert(sample.reference(), oras.bytes(&["manifest", "fetch", &reference], &files).into());
    }
    let subject = format!("{base}/samples/config:v1");
    oras.ok(&["attach", "--artifact-type", SBOM_TYPE, &subject, &written(&files, &sbom())], &files);
    let found = serde_json::from_slice::<serde_json::Value>(&oras.discover(&subject, &files).ok()).unwrap();
    let digest = found["referrers"][0]["digest"].as_str().unwrap_or_else(|| panic!("no referrer in {found}"));
    let referrer = oras.bytes(&["manifest", "fetch", &format!("{base}/samples/config@{digest}")], &files);
    manifests.insert("referrer".to_owned(), referrer.into());
    let (image, reference) = (image(), format!("{base}/{IMAGE}"));
    let config = written(&files, &image.config);
    oras.ok(&["push", "--config", &config, &reference, &written(&files, &image.layer)], &files);
    manifests.insert(IMAGE.to_owned(), oras.bytes(&["manifest", "fetch", &reference], &files).into());
    manifests
}

/// Writes the file and returns it as ORAS takes it, `name:type`.
fn written(folder: &Path, file: &crate::content::File) -> String {
    fs::write(folder.join(file.name), &file.bytes).unwrap();
    format!("{}:{}", file.name, file.media_type)
}

/// A registry whose content may be deleted.
pub(crate) fn start_registry(kind: &'static str, home: &Path, authentication: &str) -> Server {
    let port = free_port();
    let text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n\
         {authentication}",
        home.join("storage").display()
    );
    let configuration = home.join("config.yml");
    fs::write(&configuration, text).unwrap();
    let mut command = command(&program(kind), home);
    // Without a collector of traces it would wait for one when it stops.
    command.env("OTEL_TRACES_EXPORTER", "none").arg("serve").arg(&configuration);
    Server::start(kind, command, port, home)
}

fn basic(folder: &Folder) -> String {
    let home = folder.sub("secrets");
    let mut htpasswd = command(&program("htpasswd"), &home);
    htpasswd.args(["-Bbn", USER, PASSWORD]);
    let users = home.join("htpasswd");
    fs::write(&users, run(htpasswd, &home).ok()).unwrap();
    format!("auth:\n  htpasswd:\n    realm: basic-realm\n    path: {}\n", users.display())
}

fn tokens(simulator: &Simulator, folder: &Folder) -> String {
    let certificate = folder.sub("secrets").join("token.pem");
    simulator.write_token_certificate(&certificate).unwrap();
    format!(
        "auth:\n  token:\n    realm: {}\n    service: registry.test\n    issuer: {}\n    rootcertbundle: {}\n",
        simulator.distribution_realm(),
        crate::simulator::DISTRIBUTION_ISSUER,
        certificate.display()
    )
}
