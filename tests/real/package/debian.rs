//! The Debian package in a root that has a shell and nothing else: installed, started as the unit starts it, upgraded under a download,
//! removed, purged. `systemctl` there writes down what it was asked for; the test then does it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{VERSION, deb, every_file, output, packaged_again, packages};
use crate::oras::{Oras, Version};
use crate::process::{Folder, Server, command, free_port, program, run};
use crate::upstream::open_registry;

const NEXT: &str = "99.0.0";
const CONFIGURATION: &str = "etc/larder/larder.toml";

struct Root {
    path: PathBuf,
    port: u16,
    admin: u16,
}

impl Root {
    fn new(folder: &Folder) -> Self {
        let root = Self { path: folder.sub("root"), port: free_port(), admin: free_port() };
        for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "run/systemd/system", "tmp", "bin", "dev"] {
            fs::create_dir_all(root.path.join(folder)).unwrap();
        }
        for file in ["var/lib/dpkg/status", "var/lib/dpkg/available", "dev/null"] {
            fs::write(root.path.join(file), "").unwrap();
        }
        for name in ["sh", "rm"] {
            root.copy(&program(name), &root.path.join("bin").join(name), folder);
        }
        let systemctl = root.path.join("bin/systemctl");
        fs::write(&systemctl, "#!/bin/sh\necho \"$@\" >>/systemctl\n").unwrap();
        fs::set_permissions(systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// A program with the libraries that it needs.
    fn copy(&self, from: &Path, to: &Path, folder: &Folder) {
        fs::copy(from, to).unwrap();
        let libraries = output("ldd", &[from.to_str().unwrap()], folder);
        for library in libraries.split_whitespace().filter_map(|word| word.strip_prefix('/')) {
            let to = self.path.join(library);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(Path::new("/").join(library), to).unwrap();
        }
    }

    fn dpkg(&self, arguments: &[&str]) {
        let mut dpkg = command(&program("dpkg"), &self.path);
        dpkg.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["--root", self.path.to_str().unwrap()]);
        dpkg.args(["--force-not-root", "--force-unsafe-io"]).args(arguments);
        run(dpkg, &self.path).ok();
    }

    /// What systemd was asked for since the last time.
    fn systemctl(&self) -> Vec<String> {
        let file = self.path.join("systemctl");
        let said = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        said.lines().map(str::to_owned).collect()
    }

    /// The unit's command line in this root, with the folder that systemd would have made.
    fn start(&self) -> Server {
        let unit = fs::read_to_string(self.path.join("lib/systemd/system/larder.service")).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        assert!(line.starts_with("/usr/bin/larder serve"), "{line}");
        let mut command: Command = command(&program("chroot"), Path::new("/"));
        command.arg(&self.path).args(line.split(' ')).env("STATE_DIRECTORY", "/var/lib/larder");
        Server::start("packaged", command, self.port, &self.path)
    }

    fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }
}

/// A download whose client has read the head of the answer and no more.
fn begin_download(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut byte = [0; 1];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200") || head.starts_with(b"HTTP/1.0 200"), "{head:?}");
    stream
}

#[test]
fn package_debian_installs_upgrades_under_a_download_and_goes() {
    let folder = Folder::new();
    let (root, registry) = (Root::new(&folder), open_registry(&folder));
    let oras = Oras::new(Version::V1_3_3, &folder);
    let files = folder.sub("files");
    // More than the sockets between the two take, so that it still runs when the upgrade begins.
    let big = crate::simulator::samples::incompressible(7, 48 << 20);
    fs::write(files.join("big"), &big).unwrap();
    oras.ok(&["push", "--plain-http", &format!("127.0.0.1:{}/samples/big:v1", registry.port), "big"], &files);

    root.dpkg(&["--install", deb(packages(), VERSION).to_str().unwrap()]);
    assert_eq!(root.systemctl(), ["daemon-reload"], "nothing is started before a registry is named");
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:{}\"]\n[admin]\nlisten = \"127.0.0.1:{}\"\n\
         [[upstream]]\nname = \"registry.test\"\nurl = \"http://127.0.0.1:{}\"\ndefault = true\n",
        root.port, root.admin, registry.port
    );
    fs::write(root.path.join(CONFIGURATION), &text).unwrap();
    let mut larder = root.start();
    let reference = format!("localhost:{}/samples/big:v1", root.port);
    oras.ok(&["pull", "--output", "pulled", &reference], &files);
    assert!(fs::read(files.join("pulled/big")).unwrap() == big);

    let digest = crate::content::digest_of(&big);
    let mut download = begin_download(root.port, &format!("/v2/samples/big/blobs/{digest}"));
    let next = folder.sub("next");
    packaged_again(&next, NEXT);
    root.dpkg(&["--install", deb(&next, NEXT).to_str().unwrap()]);
    assert_eq!(root.systemctl(), ["daemon-reload", "try-restart larder.service"]);
    assert_eq!(fs::read_to_string(root.path.join(CONFIGURATION)).unwrap(), text, "the file is the operator's");
    larder.terminate();
    let mut body = Vec::new();
    download.read_to_end(&mut body).unwrap();
    assert!(body == big, "{} of {} bytes", body.len(), big.len());
    assert!(larder.ended().success());
    let mut larder = root.start();
    drop(registry);
    oras.ok(&["pull", "--output", "again", &reference], &files);
    assert!(fs::read(files.join("again/big")).unwrap() == big, "the store is the same");
    larder.terminate();
    assert!(larder.ended().success());

    root.dpkg(&["--remove", "larder"]);
    assert_eq!(root.systemctl(), ["--quiet disable --now larder.socket larder.service", "daemon-reload"]);
    assert!(!root.has("usr/bin/larder") && !root.has("lib/systemd/system/larder.service"));
    assert!(root.has(CONFIGURATION) && root.has("var/lib/larder/blobs"), "a removal keeps both");
    root.dpkg(&["--purge", "larder"]);
    let left = every_file(&root.path).into_iter().map(|path| path.strip_prefix(&root.path).unwrap().to_owned());
    let left: Vec<_> = left.filter(|path| path.to_str().unwrap().contains("larder")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!root.has("var/lib/larder") && !root.has("etc/larder"));
}
