//! Docker's daemon, without a network and with folders of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::matrix::{self, When};
use crate::process::{command, program, run, wait_for};
use crate::stage::{Image, NAME, Stage};
use crate::world::World;

pub(crate) struct Docker {
    daemon: std::process::Child,
    home: PathBuf,
    socket: String,
}

impl Docker {
    /// `daemon.json` is that of `larder client-config`, if the route has one, and what a test needs of a daemon.
    pub(crate) fn start(home: &Path, from_larder: Option<&Path>) -> Self {
        Self::start_as(command(&program("dockerd"), home), home, from_larder)
    }

    /// The same in a world: it is the daemon that asks.
    pub(crate) fn start_in(world: &World, home: &Path) -> Self {
        Self::start_as(world.command(&program("dockerd"), home), home, None)
    }

    fn start_as(mut command: std::process::Command, home: &Path, from_larder: Option<&Path>) -> Self {
        let socket = format!("unix://{}", home.join("docker.sock").display());
        let mut settings: serde_json::Map<String, serde_json::Value> = from_larder
            .map_or_else(serde_json::Map::new, |file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap());
        for (key, value) in [
            ("storage-driver", "vfs".into()),
            ("bridge", "none".into()),
            ("iptables", false.into()),
            ("ip6tables", false.into()),
            ("ip-forward", false.into()),
            ("hosts", [socket.clone()].to_vec().into()),
            ("data-root", home.join("data").display().to_string().into()),
            ("exec-root", home.join("exec").display().to_string().into()),
            ("pidfile", home.join("docker.pid").display().to_string().into()),
        ] {
            settings.insert(key.to_owned(), value);
        }
        let file = home.join("daemon.json");
        fs::write(&file, serde_json::Value::Object(settings).to_string()).unwrap();
        let log = fs::File::create(home.join("dockerd.log")).unwrap();
        command.arg("--config-file").arg(&file).stdout(log.try_clone().unwrap()).stderr(log);
        let docker = Self { daemon: command.spawn().unwrap(), home: home.to_owned(), socket };
        wait_for("dockerd answers", || docker.attempt(&["version"]).status.success());
        docker
    }

    /// The package's, not something of that name that a machine has put before it.
    fn client() -> PathBuf {
        let package = Path::new("/usr/bin/docker");
        if package.is_file() { package.to_owned() } else { program("docker") }
    }

    /// How a line begins that a person types.
    pub(crate) fn line(&self) -> String {
        format!("{} --host {}", Self::client().display(), self.socket)
    }

    pub(crate) fn attempt(&self, arguments: &[&str]) -> crate::process::Outcome {
        let mut command = command(&Self::client(), &self.home);
        command.args(["--host", &self.socket]).args(arguments);
        run(command, &self.home)
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.attempt(arguments).ok()).unwrap()
    }

    /// Pulls the image, and forgets it again so that the next pull is one.
    pub(crate) fn pulls(&self, reference: &str, image: &Image, when: When) {
        self.ok(&["pull", reference]);
        let id = self.ok(&["image", "inspect", "--format", "{{.Id}}", reference]);
        assert_eq!(id.trim(), image.id(), "{reference}, {when:?}");
        self.ok(&["image", "rm", reference]);
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // SIGTERM, so that it ends the containerd that it has started.
        let _ = std::process::Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
        if std::thread::panicking() {
            let text = fs::read_to_string(self.home.join("dockerd.log")).unwrap_or_default();
            println!("--- dockerd:\n{text}");
        }
    }
}

#[test]
fn matrix_docker() {
    let routes: Vec<_> = matrix::routes("docker").into_iter().filter(|route| *route != "registry-mirrors").collect();
    let stage = Stage::new(NAME, &routes);
    let docker = Docker::start(&stage.folder.sub("docker"), None);
    matrix::run("docker", &stage, &routes, |route, image, when| {
        docker.pulls(&format!("{}/{}", stage.base(route), image.reference()), image, when);
    });
}

#[test]
fn matrix_docker_with_registry_mirrors() {
    let stage = Stage::new("docker.io", &["registry-mirrors"]);
    let root = stage.client_config(&["docker", "--upstream", "docker.io"]);
    let docker = Docker::start(&stage.folder.sub("docker"), Some(&root.join("etc/docker/daemon.json")));
    matrix::run("docker", &stage, &["registry-mirrors"], |_, image, when| {
        docker.pulls(&image.reference(), image, when);
    });
}
