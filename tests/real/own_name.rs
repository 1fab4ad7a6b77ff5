//! Under the registry's own name: references and logins stay as they are. The name leads to larder, whose certificate
//! `larder tls init` made; larder is told where the registry really is, and asks it about each caller (`ask_upstream`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use crate::artifacts::seed_chart;
use crate::containerd::Containerd;
use crate::docker::Docker;
use crate::larder::{Larder, secret_file};
use crate::process::{Folder, Outcome, command, run};
use crate::pushing::layout;
use crate::simulator::{Options, Simulator, User};
use crate::stage::{Image, NAME, PASSWORD, USER, front_address};
use crate::world::World;

/// May pull `samples/*` and `charts/*`, and nothing else.
const READER: (&str, &str) = ("reader", "reader-secret");
/// May push there, too.
const WRITER: (&str, &str) = ("writer", "writer-secret");

/// A private registry, larder in front of it, and a machine on which the registry's name leads to larder.
struct OwnName {
    larder: Larder,
    simulator: Simulator,
    world: World,
    folder: Folder,
    // Last, so that what runs on it is gone before it is.
    _runtime: Runtime,
}

impl OwnName {
    /// `address` is one of this machine's that no other test uses.
    fn start(address: IpAddr, images: &[&Image]) -> Self {
        let folder = Folder::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let pull = ["content/read", "metadata/read"];
        let push = ["content/read", "metadata/read", "content/write", "metadata/write"];
        let options = Options { tls: true, tls_names: vec![NAME.to_owned()], ..Options::private(USER, PASSWORD) }
            .user(User::scope_map(READER.0, READER.1, &[("samples/*", &pull), ("charts/*", &pull)]))
            .user(User::scope_map(WRITER.0, WRITER.1, &[("samples/*", &push), ("charts/*", &push)]));
        let simulator = runtime.block_on(Simulator::start(options));
        for image in images {
            image.seed(&simulator);
        }
        let registry = folder.sub("registry").join("ca.pem");
        fs::write(&registry, simulator.ca_pem().unwrap()).unwrap();
        let upstream = format!(
            "[[upstream]]\nname = \"{NAME}\"\nca_file = \"{}\"\nconnect = [\"{}\"]\n\
             [upstream.credential]\nkind = \"password\"\nusername = \"{USER}\"\npassword_file = \"{}\"\n",
            registry.display(),
            simulator.host(),
            secret_file(&folder, PASSWORD)
        );
        let (larder, ca) = start_larder(&folder, address, &[NAME], &upstream);
        let world = World::new(&folder, &folder.sub("world"), &[(address, NAME)]).trusting(&ca);
        Self { larder, simulator, world, folder, _runtime: runtime }
    }
}

/// Starts larder under the names, at an address of this machine: it asks the registries about each caller, and lets those do what the
/// registries let them. The path is that of the authority which `larder tls init` made.
pub(crate) fn start_larder(folder: &Folder, address: IpAddr, names: &[&str], upstreams: &str) -> (Larder, PathBuf) {
    let home = folder.sub("larder");
    let tls = home.join("tls");
    let mut init = command(Path::new(env!("CARGO_BIN_EXE_larder")), &home);
    init.args(["tls", "init", "--dir"]).arg(&tls).args(names);
    run(init, &home).ok();
    let files = tls.display();
    let text = format!(
        "[server.tls]\ncertificate_file = \"{files}/server.pem\"\nkey_file = \"{files}/server.key\"\n\
         [access]\nask_upstream = true\n\
         [[access.rules]]\nusers = [\"*\"]\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\", \"delete\"]\n{upstreams}"
    );
    let config = home.join("larder.toml");
    fs::write(&config, text).unwrap();
    let bound = TcpListener::bind((address, 443));
    bound.unwrap_or_else(|error| {
        panic!("{address} port 443: {error}; be root, or allow it: sysctl net.ipv4.ip_unprivileged_port_start=443")
    });
    let listen = format!("tls://{}", SocketAddr::new(address, 443));
    let arguments = ["--config", config.to_str().unwrap(), "--listen", &listen].map(str::to_owned);
    (Larder::start(folder, &arguments), tls.join("ca.pem"))
}

/// What a person types with one client. `{image}`, `{user}` and `{password}` are put in, `{name}` is the registry's name,
/// `{layout}` an OCI layout with the image.
struct Lines<'a> {
    /// Empty: the login is part of each line.
    login: &'a str,
    pull: &'a str,
    push: &'a str,
}

impl Lines<'_> {
    /// The client is refused what the registry would refuse it, and does the rest: pulling as the reader, pushing as the writer.
    fn follow(&self, own: &OwnName, image: &Image, theirs: &Image, layout: &Path) {
        let type_line = |line: &str, (user, password): (&str, &str), reference: &str| {
            let put = [
                ("{name}", NAME),
                ("{image}", &*format!("{NAME}/{reference}")),
                ("{source}", &*format!("{NAME}/{}", image.reference())),
                ("{user}", user),
                ("{password}", password),
                ("{layout}", layout.to_str().unwrap()),
            ];
            let line = put.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
            own.world.types(&format!("cd {} && {line}", own.folder.sub("here").display()))
        };
        let login = |who| {
            if !self.login.is_empty() {
                type_line(self.login, who, "").ok();
            }
        };
        let (reference, wrong) = (image.reference(), ("reader", "wrong"));
        if self.login.is_empty() {
            refused(&type_line(self.pull, wrong, &reference));
        } else {
            refused(&type_line(self.pull, ("", ""), &reference));
            refused(&type_line(self.login, wrong, ""));
        }
        login(READER);
        type_line(self.pull, READER, &reference).ok();
        let fetched = own.larder.blobs_fetched();
        assert!(fetched > 0);
        type_line(self.pull, READER, &reference).ok();
        assert_eq!(own.larder.blobs_fetched(), fetched, "the second pull fetches no blob");
        // Stored here since the first pull, and still not for this caller.
        refused(&type_line(self.pull, READER, &theirs.reference()));
        let tag_of = |name: &str| own.simulator.manifest(name, "v2");
        refused(&type_line(self.push, READER, "samples/refused:v2"));
        assert!(tag_of("samples/refused").is_none());
        login(WRITER);
        type_line(self.push, WRITER, "samples/pushed:v2").ok();
        assert!(tag_of("samples/pushed").is_some(), "upstream has it");
        refused(&type_line(self.push, WRITER, "others/pushed:v2"));
        assert!(tag_of("others/pushed").is_none());
        assert_eq!(own.simulator.violations(), Vec::<String>::new(), "what ACR would have refused");
        assert_eq!(own.larder.metric("larder_digest_failures_total", ""), 0);
    }
}

/// Not for want of a certificate or of a name that leads here.
fn refused(outcome: &Outcome) {
    let text = outcome.to_string().to_lowercase();
    assert!(!outcome.status.success(), "it is to be refused: {outcome}");
    assert!(!text.contains("certificate") && !text.contains("no such host"), "{outcome}");
    let words = [
        "unauthorized",
        "401",
        "denied",
        "403",
        "forbidden",
        "authorization failed",
        "authentication required",
        "invalid username",
    ];
    assert!(words.iter().any(|word| text.contains(word)), "{outcome}");
}

/// One of the image's bytes is in the other, which the reader may not have: whose repository it is decides.
fn images(client: &str) -> (Image, Image) {
    let image = Image::of(&format!("own-name-{client}"));
    let theirs = Image { repository: format!("theirs/{client}"), ..Image::of(&format!("own-name-{client}")) };
    (image, theirs)
}

fn types(host: u8, client: &str, lines: &Lines<'_>) {
    let (image, theirs) = images(client);
    let own = OwnName::start(Ipv4Addr::new(127, 0, 42, host).into(), &[&image, &theirs]);
    let layout = layout(&own.folder, &image);
    lines.follow(&own, &image, &theirs, &layout);
}

#[test]
fn own_name_oras() {
    types(
        1,
        "oras",
        &Lines {
            login: "oras login {name} --username '{user}' --password '{password}'",
            pull: "oras pull {image}",
            push: "oras cp --from-oci-layout {layout}:v1 {image}",
        },
    );
}

#[test]
fn own_name_oras_1_1_0() {
    types(
        2,
        "oras-1.1",
        &Lines {
            login: "oras-1.1.0 login {name} --username '{user}' --password '{password}'",
            pull: "oras-1.1.0 pull {image}",
            push: "oras-1.1.0 cp --from-oci-layout {layout}:v1 {image}",
        },
    );
}

#[test]
fn own_name_crane() {
    types(
        3,
        "crane",
        &Lines {
            login: "crane auth login {name} -u '{user}' -p '{password}' && crane digest {source}",
            pull: "crane pull {image} image.tar",
            push: "crane push {layout} {image}",
        },
    );
}

#[test]
fn own_name_regctl() {
    types(
        4,
        "regctl",
        &Lines {
            login: "regctl registry login {name} -u '{user}' -p '{password}'",
            pull: "regctl image export {image} image.tar",
            push: "regctl image copy ocidir://{layout}:v1 {image}",
        },
    );
}

#[test]
fn own_name_skopeo() {
    types(
        5,
        "skopeo",
        &Lines {
            login: "skopeo login --authfile auth.json -u '{user}' -p '{password}' {name}",
            pull: "rm -rf dir && skopeo --insecure-policy copy --src-authfile auth.json docker://{image} dir:dir",
            push: "skopeo --insecure-policy copy --dest-authfile auth.json oci:{layout}:v1 docker://{image}",
        },
    );
}

#[test]
fn own_name_podman() {
    reads_storage_conf(6, "podman");
}

#[test]
fn own_name_buildah() {
    reads_storage_conf(7, "buildah");
}

fn reads_storage_conf(host: u8, client: &'static str) {
    let set = "printf '[storage]\\ndriver = \"vfs\"\\nrunroot = \"%s/run\"\\ngraphroot = \"%s/graph\"\\n' \"$PWD\" \"$PWD\" >storage.conf; \
               printf '{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}' >policy.json; \
               [ -e auth.json ] || echo '{}' >auth.json; unset DOCKER_CONFIG; export CONTAINERS_STORAGE_CONF=$PWD/storage.conf XDG_RUNTIME_DIR=$PWD REGISTRY_AUTH_FILE=$PWD/auth.json;";
    let policy = "--signature-policy policy.json";
    types(
        host,
        client,
        &Lines {
            login: &format!("{set} {client} login -u '{{user}}' -p '{{password}}' {{name}}"),
            pull: &format!("{set} {client} rmi --force {{image}}; {client} pull {policy} {{image}}"),
            push: &format!("{set} {client} push {policy} {{source}} docker://{{image}}"),
        },
    );
}

#[test]
fn own_name_docker() {
    let (image, theirs) = images("docker");
    // Docker verifies no certificate on 127.0.0.0/8.
    let own = OwnName::start(front_address(), &[&image, &theirs]);
    let docker = Docker::start_in(&own.world, &own.folder.sub("docker"));
    let cli = docker.line();
    let lines = Lines {
        login: &format!("{cli} login -u '{{user}}' -p '{{password}}' {{name}}"),
        pull: &format!("{cli} image rm --force {{image}}; {cli} pull {{image}}"),
        push: &format!("{cli} tag {{source}} {{image}} && {cli} push {{image}}"),
    };
    lines.follow(&own, &image, &theirs, Path::new(""));
}

#[test]
fn own_name_containerd() {
    let (image, theirs) = images("containerd");
    let own = OwnName::start(Ipv4Addr::new(127, 0, 42, 8).into(), &[&image, &theirs]);
    let containerd = Containerd::start(&own.folder.sub("containerd"));
    let ctr = containerd.line();
    let (login, platform) = ("--user '{user}:{password}'", "--platform linux/amd64");
    let lines = Lines {
        login: "",
        // What is in its content store would not be pulled again.
        pull: &format!(
            "{ctr} images rm --sync {{image}}; {ctr} images pull {login} --snapshotter native {platform} {{image}}"
        ),
        push: &format!("{ctr} images push {login} {platform} {{image}} {{source}}"),
    };
    lines.follow(&own, &image, &theirs, Path::new(""));
}

#[test]
fn own_name_helm() {
    let own = OwnName::start(Ipv4Addr::new(127, 0, 42, 9).into(), &[]);
    seed_chart(&own.simulator, "own-name");
    let types = |line: &str| own.world.types(&format!("cd {} && {line}", own.folder.sub("here").display()));
    let login = |(user, password): (&str, &str)| {
        types(&format!("helm registry login {NAME} --username {user} --password {password}"))
    };
    let pull = format!("helm pull oci://{NAME}/charts/own-name --version 0.1.0");
    refused(&types(&pull));
    refused(&login(("reader", "wrong")));
    login(READER).ok();
    types(&pull).ok();
    let fetched = own.larder.blobs_fetched();
    types(&format!("helm show chart oci://{NAME}/charts/own-name --version '>0.0.1'")).ok();
    assert_eq!(own.larder.blobs_fetched(), fetched, "the second pull fetches no blob");
    types("helm create mychart && helm package mychart").ok();
    let push = format!("helm push mychart-0.1.0.tgz oci://{NAME}/charts");
    refused(&types(&push));
    login(WRITER).ok();
    types(&push).ok();
    assert!(own.simulator.manifest("charts/mychart", "0.1.0").is_some(), "upstream has it");
    assert_eq!(own.simulator.violations(), Vec::<String>::new(), "what ACR would have refused");
}

#[test]
fn own_name_cosign() {
    let image = Image::of("own-name-cosign");
    let own = OwnName::start(Ipv4Addr::new(127, 0, 42, 10).into(), &[&image]);
    let types = |line: &str| {
        own.world.types(&format!("cd {} && export COSIGN_PASSWORD=; {line}", own.folder.sub("here").display()))
    };
    let login = |(user, password): (&str, &str)| types(&format!("cosign login {NAME} -u {user} -p {password}")).ok();
    let reference = format!("{NAME}/{}@{}", image.repository, image.digest());
    let sign = format!("cosign sign --key cosign.key --tlog-upload=false --use-signing-config=false --yes {reference}");
    let verify = format!("cosign verify --key cosign.pub --insecure-ignore-tlog {reference}");
    types("cosign generate-key-pair").ok();
    refused(&types(&verify));
    login(READER);
    refused(&types(&sign));
    login(WRITER);
    types(&sign).ok();
    login(READER);
    let said = String::from_utf8(types(&verify).ok()).unwrap();
    assert!(said.contains(&image.digest()), "{said}");
    assert_eq!(own.simulator.violations(), Vec::<String>::new(), "what ACR would have refused");
}
