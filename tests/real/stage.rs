//! Where the clients of the matrix meet: the ACR simulator with an image for each route, larder in front of it, and the files that
//! `larder client-config` writes for the client.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::content::digest_of;
use crate::larder::{Larder, secret_file};
use crate::process::{Folder, command, run};
use crate::relay::Relay;
use crate::simulator::samples::{incompressible, tar};
use crate::simulator::{OCI_MANIFEST, Options, Simulator, tls};
use crate::world::World;

pub(crate) const USER: &str = "ci";
pub(crate) const PASSWORD: &str = "larder-knows-it-clients-do-not";

/// The registry's own name, as in references that mirrors are for.
pub(crate) const NAME: &str = "myacr.azurecr.io";
pub(crate) const ALIAS: &str = "acr";
/// The same registry under a name with a port and no alias: no path can name it, `ns` can.
pub(crate) const NAME_WITH_PORT: &str = "plain.lan:5000";

/// The same registry as another upstream: for larder nothing in it is in the first one.
pub(crate) const OTHER: &str = "other.azurecr.io";

/// The name by which clients reach larder over https.
pub(crate) const FRONT: &str = "larder.lan";
/// The name of a registry that can be reached without larder; a port belongs to it.
const OPEN: &str = "registry.test";

pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Where [`FRONT`] is: Docker verifies no certificate on 127.0.0.0/8.
pub(crate) fn front_address() -> IpAddr {
    let usable = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if usable { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() }
}

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
        Self::with(route, &[("data.bin", &incompressible(seed, 300_000))])
    }

    /// An image with such files.
    pub(crate) fn with(route: &str, files: &[(&str, &[u8])]) -> Self {
        let layer = tar(files.iter().copied());
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

    pub(crate) fn seed(&self, simulator: &Simulator) {
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
    /// What ends TLS in front of larder, if anything does, and the authority that signed for it.
    front: Option<(Relay, PathBuf)>,
    /// The way to the registry itself, where it can be reached by its name, and the authority that signed for it.
    registry: Option<(Relay, PathBuf)>,
    pub(crate) folder: Folder,
    // Last, so that what runs on it is gone before it is.
    runtime: Runtime,
}

impl Stage {
    /// A stage whose default upstream has the name, with an image for each of the routes.
    pub(crate) fn new(name: &str, routes: &[&str]) -> Self {
        Self::with(name, routes, &[])
    }

    /// The same, with more arguments for larder.
    pub(crate) fn with(name: &str, routes: &[&str], arguments: &[&str]) -> Self {
        Self::start(Options::private(USER, PASSWORD), routes, arguments, |simulator, folder, _| {
            (larder_toml(name, &simulator.url(), &secret_file(folder, PASSWORD)), None)
        })
    }

    /// A stage whose larder is reached as `https://larder.lan`, by a server in front of it.
    pub(crate) fn over_https(routes: &[&str]) -> Self {
        Self::over_https_with(routes, &[])
    }

    /// The same, with more arguments for larder.
    pub(crate) fn over_https_with(routes: &[&str], arguments: &[&str]) -> Self {
        let mut stage = Self::with(NAME, routes, arguments);
        let (authority, acceptor) = tls::acceptor(&[FRONT.to_owned()]).unwrap();
        let ca = stage.folder.sub("larder").join("ca.pem");
        fs::write(&ca, authority).unwrap();
        stage.front = Some((Relay::start(&stage.runtime, front_address(), stage.larder.port(), Some(&acceptor)), ca));
        stage
    }

    /// A stage whose registry anybody reaches by its own name, [`Stage::registry_name`], and pulls from without a login.
    pub(crate) fn in_the_open(routes: &[&str], arguments: &[&str]) -> Self {
        let options = Options { tls: true, tls_names: vec![OPEN.to_owned()], ..Options::public() };
        Self::start(options, routes, arguments, |simulator, folder, runtime| {
            let ca = folder.sub("registry").join("ca.pem");
            fs::write(&ca, simulator.ca_pem().unwrap()).unwrap();
            let port = simulator.host().rsplit_once(':').unwrap().1.parse().unwrap();
            let registry = Relay::start(runtime, Ipv4Addr::LOCALHOST.into(), port, None);
            let text = format!(
                "[[upstream]]\nname = \"{OPEN}:{}\"\naliases = [\"{ALIAS}\"]\nurl = \"{}\"\nca_file = \"{}\"\ndefault = true\n",
                registry.port,
                simulator.url(),
                ca.display()
            );
            (text, Some((registry, ca)))
        })
    }

    /// `toml` makes larder's file once the registry runs.
    fn start(
        options: Options,
        routes: &[&str],
        arguments: &[&str],
        toml: impl FnOnce(&Simulator, &Folder, &Runtime) -> (String, Option<(Relay, PathBuf)>),
    ) -> Self {
        let folder = Folder::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::start(options));
        for route in routes {
            Image::of(route).seed(&simulator);
        }
        let config = folder.sub("larder").join("larder.toml");
        let (text, registry) = toml(&simulator, &folder, &runtime);
        fs::write(&config, text).unwrap();
        let arguments = [&["--config", config.to_str().unwrap()], arguments].concat();
        let larder = Larder::start(&folder, &arguments.into_iter().map(str::to_owned).collect::<Vec<_>>());
        Self { larder, simulator, config, front: None, registry, folder, runtime }
    }

    /// larder's address, as clients name it.
    pub(crate) fn at(&self) -> String {
        self.front.as_ref().map_or_else(|| self.larder.host(), |(front, _)| format!("{FRONT}:{}", front.port))
    }

    /// The authority that signed for what stands in front of larder.
    pub(crate) fn ca(&self) -> &Path {
        &self.front.as_ref().unwrap().1
    }

    /// How the registry itself is called, with its port.
    pub(crate) fn registry_name(&self) -> String {
        format!("{OPEN}:{}", self.registry.as_ref().unwrap().0.port)
    }

    /// How often somebody came to the registry by its own name; larder has another way.
    pub(crate) fn came_to_the_registry(&self) -> usize {
        self.registry.as_ref().unwrap().0.connections()
    }

    /// A machine with the files that `larder client-config` writes for the client, and the names of this stage.
    pub(crate) fn world(&self, client: &str, arguments: &[&str]) -> World {
        let root = self.folder.sub(&format!("world/{client}{}", arguments.concat()));
        let write = ["--upstream", ALIAS, "--write", root.to_str().unwrap(), "--force"];
        self.run_client_config(&[&[client], arguments, &write].concat());
        let world = World::new(&self.folder, &root, &[(front_address(), FRONT), (Ipv4Addr::LOCALHOST.into(), OPEN)]);
        match &self.registry {
            Some((_, ca)) => world.trusting(ca),
            None => world,
        }
    }

    pub(crate) fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    /// What stands before the repository in a reference, by a route that names larder.
    pub(crate) fn base(&self, route: &str) -> String {
        let host = self.at();
        match route {
            "default" => host,
            "prefix" | "https" => format!("{host}/{NAME}"),
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

    /// The lines to type that `larder client-config` says for the first upstream.
    pub(crate) fn lines(&self, client: &str) -> Vec<String> {
        let json = self.guide(client, &[]);
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

    /// All that `larder client-config` says for the first upstream.
    pub(crate) fn guide(&self, client: &str, arguments: &[&str]) -> serde_json::Value {
        let json = self.run_client_config(&[&[client, "--upstream", ALIAS, "--json"], arguments].concat());
        serde_json::from_slice(&json).unwrap()
    }

    fn run_client_config(&self, arguments: &[&str]) -> Vec<u8> {
        let home = self.folder.sub("larder");
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_larder")), &home);
        command.arg("client-config").args(arguments).arg("--config").arg(&self.config);
        let scheme = if self.front.is_some() { "https" } else { "http" };
        command.args(["--at", &format!("{scheme}://{}", self.at())]);
        if let Some((_, ca)) = &self.front {
            command.arg("--ca").arg(ca);
        }
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
        "[server]\nnames = [\"{FRONT}\"]\n\n[[upstream]]\nname = \"{name}\"\naliases = [\"{ALIAS}\"]\nurl = \"{url}\"\ndefault = true\n{credential}{freshness}\n\
         [[upstream]]\nname = \"{NAME_WITH_PORT}\"\nurl = \"{url}\"\n{credential}{freshness}\n\
         [[upstream]]\nname = \"{OTHER}\"\nurl = \"{url}\"\n{credential}{freshness}"
    )
}
