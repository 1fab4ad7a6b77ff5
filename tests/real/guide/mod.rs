//! The guide that people follow, "Working with OCI Artifacts using Azure Container Registry": its lines in its order and under its names,
//! through larder, in front of two registries. `docs/guide.md` is its table, and a test holds the two together.

mod lines;
mod scenarios;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::backend::Backend;
use crate::larder::{Larder, secret_file};
use crate::oras::{Oras, Version};
use crate::own_name;
use crate::process::{Folder, Outcome, command, program, run};
use crate::world::World;

/// The registry of the guide, and the one that it copies to.
const MYACR: &str = "myacr.azurecr.io";
const MYACR2: &str = "myacr2.azurecr.io";

const CONFIG: &str = "samples/config:v1";
const APP: &str = "samples/myapp:v1";
const CHART_TYPE: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const SBOM_TYPE: &str = "application/vnd.example.sbom.v1";

const CONFIG_JSON: &[u8] = b"{\"replicas\": 3}\n";
const README: &[u8] = b"pushed and pulled through larder\n";

type Step = fn(&Guide);

/// The guide's lines, by the names that they have in `docs/guide.md`.
pub(crate) const STEPS: &[(&str, Step)] = &[
    ("login", Guide::login),
    ("push one file", Guide::push_one_file),
    ("push several, typed", Guide::push_several_typed),
    ("push custom type", Guide::push_custom_type),
    ("annotations", Guide::annotations),
    ("list repositories", Guide::list_repositories),
    ("list tags", Guide::list_tags),
    ("pull", Guide::pull),
    ("pull to folder", Guide::pull_to_folder),
    ("manifest", Guide::manifest),
    ("blob", Guide::blob),
    ("discover", Guide::discover),
    ("copy", Guide::copy),
    ("delete tag", Guide::delete_tag),
    ("delete repository", Guide::delete_repository),
    ("scenario Helm", Guide::scenario_helm),
    ("scenario configuration", Guide::scenario_configuration),
    ("scenario build artifacts", Guide::scenario_build_artifacts),
    ("content trust", Guide::content_trust),
    ("trouble: push unauthorised", Guide::trouble_push_unauthorised),
    ("trouble: artifact not found", Guide::trouble_artifact_not_found),
];

#[test]
fn guide_simulator_with_oras_1_3_3() {
    follow(Backend::simulator, Version::V1_3_3);
}

#[test]
fn guide_simulator_with_oras_1_1_0() {
    follow(Backend::simulator, Version::V1_1_0);
}

#[test]
fn guide_docker_registry_with_oras_1_1_0() {
    follow(|folder, name| Backend::registry("docker-registry", folder, name), Version::V1_1_0);
}

#[test]
fn guide_distribution_with_oras_1_3_3() {
    follow(|folder, name| Backend::registry("registry", folder, name), Version::V1_3_3);
}

#[test]
fn the_page_of_the_guide_has_its_lines_in_their_order() {
    let steps: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
    assert_eq!(steps_on_the_page(), steps);
}

/// The registry's name leads to larder: no line of the guide changes.
#[test]
fn guide_own_name_with_oras_1_3_3() {
    under_the_own_name(Ipv4Addr::new(127, 0, 42, 21), Version::V1_3_3);
}

#[test]
fn guide_own_name_with_oras_1_1_0() {
    under_the_own_name(Ipv4Addr::new(127, 0, 42, 22), Version::V1_1_0);
}

fn follow(start: impl Fn(&Folder, &str) -> Backend, version: Version) {
    let folder = Folder::new();
    let (myacr, myacr2) = (start(&folder, "myacr"), start(&folder, "myacr2"));
    let config = folder.sub("larder").join("larder.toml");
    let text = upstream(&folder, MYACR, &format!("url = \"{}\"\ndefault = true\n", myacr.url()))
        + &upstream(&folder, MYACR2, &format!("url = \"{}\"\n", myacr2.url()));
    fs::write(&config, text).unwrap();
    let arguments = ["--config", config.to_str().unwrap(), "--allow", "push,delete"].map(str::to_owned);
    let larder = Larder::start(&folder, &arguments);
    Guide { oras: Oras::new(version, &folder), larder, myacr, myacr2, folder, way: Way::Address }.is_followed();
}

fn under_the_own_name(address: Ipv4Addr, version: Version) {
    let folder = Folder::new();
    let (myacr, myacr2) = (Backend::named(&folder, MYACR), Backend::named(&folder, MYACR2));
    let entry = |name: &str, registry: &Backend| {
        let ca = folder.sub("registries").join(format!("{name}.pem"));
        upstream(&folder, name, &format!("ca_file = \"{}\"\nconnect = [\"{}\"]\n", ca.display(), registry.host()))
    };
    let text = entry(MYACR, &myacr) + &entry(MYACR2, &myacr2);
    let (larder, ca) = own_name::start_larder(&folder, address.into(), &[MYACR, MYACR2], &text);
    let names = [MYACR, MYACR2].map(|name| (address.into(), name));
    let world = World::new(&folder, &folder.sub("world"), &names).trusting(&ca);
    let oras = Oras::new(version, &folder).in_world(&world, folder.sub("person"));
    Guide { oras, larder, myacr, myacr2, folder, way: Way::OwnName(world) }.is_followed();
}

/// An upstream of larder's file with the registry's login.
fn upstream(folder: &Folder, name: &str, more: &str) -> String {
    format!(
        "[[upstream]]\nname = \"{name}\"\n{more}[upstream.credential]\nkind = \"password\"\n\
         username = \"{}\"\npassword_file = \"{}\"\n[upstream.freshness]\ntag_ttl = \"1s\"\n\
         revalidate_wait = \"20s\"\nimmutable_tags = [\"*.*.*\"]\n\n",
        Backend::USER,
        secret_file(folder, Backend::PASSWORD)
    )
}

/// The steps of `docs/guide.md` that work, in its order.
fn steps_on_the_page() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide.md");
    let page = fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = rows.map(|row| row.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    let steps = cells.filter(|cells| cells.len() == 3 && cells[0] != "step" && cells[2] != "later");
    steps.map(|cells| cells[0].clone()).collect()
}

/// Where the guide's references lead.
enum Way {
    /// larder's address stands in the place of the registry's.
    Address,
    /// The references are the guide's own; in this world the registry's name leads to larder.
    OwnName(World),
}

/// Somebody who follows the guide.
pub(crate) struct Guide {
    way: Way,
    oras: Oras,
    larder: Larder,
    myacr: Backend,
    myacr2: Backend,
    folder: Folder,
}

impl Guide {
    fn is_followed(&self) {
        for (name, step) in STEPS {
            println!("{name}");
            step(self);
        }
        for registry in [&self.myacr, &self.myacr2] {
            assert_eq!(registry.violations(), Vec::<String>::new(), "what ACR would have refused");
        }
        assert_eq!(self.larder.metric("larder_digest_failures_total", ""), 0);
    }

    /// The registry, as the person names it.
    fn host(&self) -> String {
        match self.way {
            Way::Address => self.larder.host(),
            Way::OwnName(_) => MYACR.to_owned(),
        }
    }

    /// A reference; one of the other registry begins with its name.
    fn at(&self, reference: &str) -> String {
        match self.way {
            Way::OwnName(_) if reference.starts_with(MYACR2) => reference.to_owned(),
            _ => format!("{}/{reference}", self.host()),
        }
    }

    fn logs_in(&self, name: &str, user: &str, password: &str) {
        self.oras(&["login", name, "--username", user, "--password", password]);
    }

    /// A request that no client at hand sends, to the registry as the person names it.
    fn http(&self, method: &str, target: &str) -> (u16, String) {
        match self.way {
            Way::Address => self.larder.http(method, target),
            Way::OwnName(_) => {
                let login = STANDARD.encode(format!("{}:{}", Backend::USER, Backend::PASSWORD));
                let lines = format!("Host: {MYACR}\r\nAuthorization: Basic {login}\r\n");
                self.larder.http_with(&lines, method, target)
            }
        }
    }

    /// The folder that the guide's files are in.
    fn here(&self) -> PathBuf {
        self.folder.sub("here")
    }

    fn write(&self, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            fs::write(self.here().join(name), bytes).unwrap();
        }
    }

    /// One line of the guide.
    fn oras(&self, arguments: &[&str]) -> String {
        self.oras.ok(arguments, &self.here())
    }

    fn fails(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.oras.run(arguments, &self.here());
        assert!(!outcome.status.success(), "it is to fail: {outcome}");
        outcome
    }

    fn helm(&self, arguments: &[&str]) -> String {
        self.tool("helm", arguments)
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.attempt(name, arguments).ok()).unwrap()
    }

    /// Runs a program; under the own name it finds the person's logins.
    fn attempt(&self, name: &str, arguments: &[&str]) -> Outcome {
        let mut command = match &self.way {
            Way::Address => command(&program(name), &self.folder.sub(name)),
            Way::OwnName(world) => world.command(&program(name), &self.folder.sub("person")),
        };
        command.env("COSIGN_PASSWORD", "").args(arguments);
        run(command, &self.here())
    }

    /// Pulls into a folder of its own, and compares.
    fn pulls(&self, reference: &str, files: &[(&str, &[u8])]) {
        let folder = self.folder.sub(&format!("pulled/{}", reference.replace(['/', ':'], "-")));
        self.oras.ok(&["pull", &self.at(reference)], &folder);
        for (name, bytes) in files {
            assert!(fs::read(folder.join(name)).unwrap() == *bytes, "{name}");
        }
    }
}
