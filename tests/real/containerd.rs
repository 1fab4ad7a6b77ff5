//! containerd's own daemon and `ctr`, with the `hosts.toml` of `larder client-config`.

use std::fs;
use std::path::Path;

use crate::content::digest_of;
use crate::matrix::{self, When};
use crate::process::{Outcome, command, program, run, wait_for};
use crate::stage::{Image, NAME, NAME_WITH_PORT, Stage};
use crate::world::World;

/// A daemon with nothing in it but what a pull needs.
pub(crate) struct Containerd {
    daemon: std::process::Child,
    socket: String,
}

impl Containerd {
    pub(crate) fn start(home: &Path) -> Self {
        let socket = home.join("containerd.sock").display().to_string();
        let config = home.join("config.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{socket}\"\n[ttrpc]\naddress = \"{socket}.ttrpc\"\n",
            home.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = command(&program("containerd"), home);
        let log = fs::File::create(home.join("containerd.log")).unwrap();
        command.arg("--config").arg(&config).stdout(log.try_clone().unwrap()).stderr(log);
        let daemon = command.spawn().unwrap();
        let made = Self { daemon, socket };
        wait_for("containerd's socket", || std::os::unix::net::UnixStream::connect(&made.socket).is_ok());
        made
    }

    /// How a line begins that a person types.
    pub(crate) fn line(&self) -> String {
        format!("{} --address {}", program("ctr").display(), self.socket)
    }

    pub(crate) fn ctr(&self, home: &Path, arguments: &[&str]) -> Vec<u8> {
        let mut command = command(&program("ctr"), home);
        command.args(["--address", &self.socket]).args(arguments);
        run(command, home).ok()
    }

    /// Pulls in a world, whose `hosts.toml` says where; it is `ctr` that asks, not the daemon.
    pub(crate) fn pulls(&self, world: &World, home: &Path, reference: &str) -> Outcome {
        let mut command = world.command(&program("ctr"), home);
        command.args(["--address", &self.socket, "images", "pull", "--hosts-dir", "/etc/containerd/certs.d"]);
        command.args(["--snapshotter", "native", "--platform", "linux/amd64", reference]);
        run(command, home)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn matrix_containerd() {
    let routes = matrix::routes("containerd");
    let stage = Stage::new(NAME, &routes);
    matrix::run("containerd", &stage, &routes, |route, image, when| pulls(&stage, route, image, when));
}

/// Into a daemon of its own: what it has from before would not be pulled.
fn pulls(stage: &Stage, route: &str, image: &Image, when: When) {
    let home = stage.folder.sub(&format!("{route}-{when:?}"));
    let containerd = Containerd::start(&home);
    let ctr = |arguments: &[&str]| containerd.ctr(&home, arguments);
    let sealed: &[&str] = if route == "exclusive" { &["--sealed"] } else { &[] };
    let root = stage.client_config(&[&["containerd"], sealed].concat());
    let hosts = root.join("etc/containerd/certs.d").display().to_string();
    let by_hand = home.join("certs.d");
    let (way, base) = match route {
        "default" | "prefix" | "alias" => (vec!["--plain-http"], stage.base(route)),
        "url-prefix" => {
            let folder = stage.folder.sub(&format!("{route}-{when:?}/certs.d/{NAME}"));
            let host = format!("[host.\"http://{}/{NAME}\"]\n", stage.larder.host());
            fs::write(folder.join("hosts.toml"), host + "capabilities = [\"pull\", \"resolve\"]\n").unwrap();
            (vec!["--hosts-dir", by_hand.to_str().unwrap()], NAME.to_owned())
        }
        "ns" => (vec!["--hosts-dir", &hosts], NAME_WITH_PORT.to_owned()),
        _ => (vec!["--hosts-dir", &hosts], NAME.to_owned()),
    };
    let reference = format!("{base}/{}", image.reference());
    ctr(&[&["images", "pull", "--snapshotter", "native", "--platform", "linux/amd64"], &way[..], &[&reference]]
        .concat());
    let listed = String::from_utf8(ctr(&["images", "ls"])).unwrap();
    assert!(listed.contains(&image.digest()), "{route}, {when:?}: {listed}");
    for bytes in [&image.manifest, &image.config, &image.layer] {
        assert!(ctr(&["content", "get", &digest_of(bytes)]) == **bytes, "{route}, {when:?}");
    }
}
