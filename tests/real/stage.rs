//! Where the clients of the matrix meet: the ACR simulator with an image for each route, larder in front of it, and the files that
//! `larder client-config` writes for the client.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::content::digest_of;
use crate::larder::{Larder, secret_file};
use crate::process::{Folder, command, run};
use crate::simulator::samples::{incompressible, tar};
use crate::simulator::{OCI_MANIFEST, Options, Simulator};

pub(crate) const USER: &str = "ci";
pub(crate) const PASSWORD: &str = "larder-knows-it-clients-do-not";

/// The registry's own name, as in references that mirrors are for.
pub(crate) const NAME: &str = "myacr.azurecr.io";
pub(crate) const ALIAS: &str = "acr";
/// The same registry under a name with a port and no alias: no path can name it, `ns` can.
pub(crate) const NAME_WITH_PORT: &str = "plain.lan:5000";

/// The same registry as another upstream: for larder nothing in it is in the first one.
pub(crate) const OTHER: &str = "other.azurecr.io";

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A container image that programs unpack and could start, if there were anything in it to run.
pub(crate) struct Image {
    /// `samples/<route>`
    pub(crate) repository: String,
    pub(crate) config: Bytes,
    pub(crate) layer: Bytes,
    pub(crate) manifest: Bytes,
}

impl Image {
    /// The image that is pulled by one route: no other has a byte of it.
    pub(crate) fn of(route: &str) -> Self {
        let seed = route.bytes().fold(11, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let data = incompressible(seed, 300_000);
        let layer = tar([("data.bin", &data[..])]);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"route":"{route}"}}}},"rootfs":{{"type":"layers","diff_ids":["{}"]}},"history":[{{"created_by":"larder's tests"}}]}}"#,
            digest_of(&layer)
        );
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor(CONFIG, config.as_bytes()),
            titled(LAYER, &layer)
        );
        let repository = format!("samples/{route}");
        Self { repository, config: config.into(), layer, manifest: manifest.into() }
    }

    /// `repository:tag`
    pub(crate) fn reference(&self) -> String {
        format!("{}:v1", self.repository)
    }

    pub(crate) fn digest(&self) -> String {
        digest_of(&self.manifest)
    }

    /// What Docker and Podman call the image's id.
    pub(crate) fn id(&self) -> String {
        digest_of(&self.config)
    }

    fn seed(&self, simulator: &Simulator) {
        simulator.push_blob(&self.repository, self.config.clone());
        simulator.push_blob(&self.repository, self.layer.clone());
        simulator.push_manifest(&self.repository, Some("v1"), OCI_MANIFEST, self.manifest.clone());
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, digest_of(bytes), bytes.len())
}

/// ORAS pulls what has a title.
fn titled(media_type: &str, bytes: &[u8]) -> String {
    let plain = descriptor(media_type, bytes);
    plain.replace('}', r#","annotations":{"org.opencontainers.image.title":"layer.tar"}}"#)
}

pub(crate) struct Stage {
    pub(crate) larder: Larder,
    simulator: Simulator,
    config: PathBuf,
    pub(crate) folder: Folder,
    // Last, so that what runs on it is gone before it is.
    _runtime: Runtime,
}

impl Stage {
    /// A stage whose default upstream has the name, with an image for each of the routes.
    pub(crate) fn new(name: &str, routes: &[&str]) -> Self {
        Self::with(name, routes, &[])
    }

    /// The same, with more arguments for larder.
    pub(crate) fn with(name: &str, routes: &[&str], arguments: &[&str]) -> Self {
        let folder = Folder::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::start(Options::private(USER, PASSWORD)));
        for route in routes {
            Image::of(route).seed(&simulator);
        }
        let config = folder.sub("larder").join("larder.toml");
        fs::write(&config, larder_toml(name, &simulator.url(), &secret_file(&folder, PASSWORD))).unwrap();
        let arguments = [&["--config", config.to_str().unwrap()], arguments].concat();
        let larder = Larder::start(&folder, &arguments.into_iter().map(str::to_owned).collect::<Vec<_>>());
        Self { larder, simulator, config, folder, _runtime: runtime }
    }

    pub(crate) fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// What stands before the repository in a reference, by a route that names larder.
    pub(crate) fn base(&self, route: &str) -> String {
        let host = self.larder.host();
        match route {
            "default" => host,
            "prefix" => format!("{host}/{NAME}"),
            "alias" => format!("{host}/{ALIAS}"),
            other => panic!("{other} names the upstream, not larder"),
        }
    }

    /// Writes the files of `larder client-config` below a folder, which it returns.
    pub(crate) fn client_config(&self, arguments: &[&str]) -> PathBuf {
        let root = self.folder.sub("client-config");
        self.run_client_config(&[arguments, &["--write", root.to_str().unwrap(), "--force"]].concat());
        root
    }

    /// The lines to type that `larder client-config` says for the upstream `NAME`.
    pub(crate) fn lines(&self, client: &str) -> Vec<String> {
        let json = self.run_client_config(&[client, "--upstream", NAME, "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let lines = json["lines"].as_array().unwrap().iter().filter_map(|line| line.as_str());
        lines.flat_map(str::lines).map(str::to_owned).collect()
    }

    /// The line that begins with the word, with something put in for its placeholders, as arguments.
    pub(crate) fn line(&self, client: &str, begins: &str, put: &[(&str, &str)]) -> Vec<String> {
        let lines = self.lines(client);
        let line = lines.iter().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins}: {lines:?}"));
        let line = line.split("     # ").next().unwrap();
        let line = put.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
        line.split(' ').skip(1).map(str::to_owned).collect()
    }

    fn run_client_config(&self, arguments: &[&str]) -> Vec<u8> {
        let home = self.folder.sub("larder");
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_larder")), &home);
        command.arg("client-config").args(arguments).arg("--config").arg(&self.config);
        command.args(["--at", &format!("http://{}", self.larder.host())]);
        run(command, &home).ok()
    }

    /// From here on the upstream refuses connections.
    pub(crate) fn lose_upstream(&self) {
        self.simulator.stop_listening();
    }
}

/// Tags expire at once, so that an outage finds none that is fresh.
fn larder_toml(name: &str, url: &str, password_file: &str) -> String {
    let credential = format!(
        "[upstream.credential]\nkind = \"password\"\nusername = \"{USER}\"\npassword_file = \"{password_file}\"\n"
    );
    let freshness = "[upstream.freshness]\ntag_ttl = \"1ms\"\nrevalidate_wait = \"2s\"\n";
    format!(
        "[[upstream]]\nname = \"{name}\"\naliases = [\"{ALIAS}\"]\nurl = \"{url}\"\ndefault = true\n{credential}{freshness}\n\
         [[upstream]]\nname = \"{NAME_WITH_PORT}\"\nurl = \"{url}\"\n{credential}{freshness}\n\
         [[upstream]]\nname = \"{OTHER}\"\nurl = \"{url}\"\n{credential}{freshness}"
    )
}
