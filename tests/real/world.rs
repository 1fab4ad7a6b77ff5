//! A machine of its own for a client, as far as a client looks: its `/etc` has the files that `larder client-config` wrote, where it
//! says that they go, and a hosts file of its own. Nothing of the real `/etc` is changed (a mount namespace,
//! which needs root or leave to make one).

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Folder, Outcome, command, program, run};

#[derive(Clone)]
pub(crate) struct World {
    root: PathBuf,
    home: PathBuf,
    /// What the programs' own certificate authorities are, if not the system's.
    authorities: Option<PathBuf>,
}

impl World {
    /// `names` are what the hosts file has beside localhost; `root` is a folder below which `etc` may stand already.
    pub(crate) fn new(folder: &Folder, root: &Path, names: &[(IpAddr, &str)]) -> Self {
        let (real, etc) = (root.join("real-etc"), root.join("etc"));
        for path in [&real, &etc] {
            fs::create_dir_all(path).unwrap();
        }
        let lines = names.iter().map(|(address, name)| format!("{address} {name}"));
        let lines: Vec<String> = ["127.0.0.1 localhost".to_owned()].into_iter().chain(lines).collect();
        fs::write(etc.join("hosts"), lines.join("\n") + "\n").unwrap();
        for entry in fs::read_dir("/etc").unwrap() {
            let name = entry.unwrap().file_name();
            if !etc.join(&name).exists() {
                let _ = symlink(real.join(&name), etc.join(&name));
            }
        }
        Self { root: root.to_owned(), home: folder.sub("home"), authorities: None }
    }

    /// The same, with `SSL_CERT_FILE`.
    pub(crate) fn trusting(self, authorities: &Path) -> Self {
        Self { authorities: Some(authorities.to_owned()), ..self }
    }

    /// A program of this world; what it keeps goes into `home`.
    pub(crate) fn command(&self, program: &Path, home: &Path) -> Command {
        let mut command = command(Path::new("unshare"), home);
        command.arg("--mount");
        if !rustix::process::getuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = r#"mount --rbind /etc "$1" && mount --bind "$2" /etc && shift 2 && exec "$@""#;
        command.args(["sh", "-c", script, "sh"]).args([self.root.join("real-etc"), self.root.join("etc")]).arg(program);
        if let Some(file) = &self.authorities {
            command.env("SSL_CERT_FILE", file);
        }
        command
    }

    /// Types a line, as a person would.
    pub(crate) fn types(&self, line: &str) -> Outcome {
        let tools = program("oras").parent().unwrap().display().to_string();
        let mut command = self.command(Path::new("sh"), &self.home);
        command.args(["-c", &format!("PATH=\"{tools}:$PATH\"; {line}")]);
        run(command, &self.home)
    }
}
