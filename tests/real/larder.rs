//! larder itself, the program that people start, and what its metrics say.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::process::{Folder, Server, command, free_port, http, http_with, wait_for};

pub(crate) struct Larder {
    server: Server,
    admin: u16,
}

impl Larder {
    /// Starts `larder serve` with the arguments that lead it to its upstream.
    pub(crate) fn start(folder: &Folder, arguments: &[String]) -> Self {
        let (port, admin, home) = (free_port(), free_port(), folder.sub("larder"));
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_larder")), &home);
        command.arg("serve").args(arguments);
        // `localhost` is one or the other, depending on the machine and the client.
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--listen", &format!("[::1]:{port}")]);
        command.args(["--admin", &format!("127.0.0.1:{admin}")]).arg("--store").arg(home.join("store"));
        let larder = Self { server: Server::start("larder", command, port, &home), admin };
        wait_for("larder's metrics", || TcpStream::connect(("127.0.0.1", admin)).is_ok());
        larder
    }

    /// As clients name it where they are to speak plain HTTP without being told: ORAS does so to `localhost` alone.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.server.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    /// From here on it refuses connections.
    pub(crate) fn stop(&mut self) {
        self.server.stop();
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port)
    }

    /// Bodies of blobs that were asked for upstream so far.
    pub(crate) fn blobs_fetched(&self) -> u64 {
        let of = |op: &str| self.metric("larder_upstream_requests_total", &format!("op=\"{op}\""));
        of("blob_get") + of("blob_storage")
    }

    /// A request that no client at hand sends: its status and body.
    pub(crate) fn http(&self, method: &str, target: &str) -> (u16, String) {
        http(self.server.port, method, target)
    }

    /// The same with these lines in its head.
    pub(crate) fn http_with(&self, lines: &str, method: &str, target: &str) -> (u16, String) {
        http_with(self.server.port, lines, method, target)
    }

    /// The sum of a counter over all series that have the label.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let (_, text) = http(self.admin, "GET", "/metrics");
        assert!(text.contains("larder_build_info"), "no metrics: {text}");
        let series = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }
}

/// A file that only a configured secret can name.
pub(crate) fn secret_file(folder: &Folder, secret: &str) -> String {
    let path = folder.sub("secrets").join("password");
    fs::write(&path, secret).unwrap();
    path.to_str().unwrap().to_owned()
}
