//! larder and the servers that it is measured against, each with a configuration that does it justice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use tokio::time::Instant;

use super::Result;
use super::content::{Artifact, TAG};
use super::process::{Server, free_port, pinned};
use super::tls::Certificate;

pub(super) const LARDER: &str = "larder";
pub(super) const NGINX: &str = "nginx";
pub(super) const REGISTRY: &str = "docker-registry";

const LARDER_PROGRAM: &str = env!("CARGO_BIN_EXE_larder");

/// Where a server runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cores {
    First,
    All,
}

fn program(name: &str, cores: Cores) -> Command {
    if cores == Cores::First { pinned(name) } else { Command::new(name) }
}

/// larder in front of the origin. Its store, which is empty at the first start, is where [`store_of`] says.
pub(super) fn larder(folder: &Path, origin: u16, cores: Cores) -> Result<Server> {
    start_larder(folder, origin, cores, |_| {})
}

/// The same, for clients that push.
pub(super) fn larder_that_pushes(folder: &Path, upstream: u16, cores: Cores) -> Result<Server> {
    start_larder(folder, upstream, cores, |command| {
        command.args(["--allow", "push"]);
    })
}

/// The same on all cores with one setting, as its environment variable and what that says.
pub(super) fn larder_with(folder: &Path, origin: u16, (name, value): (&str, &str)) -> Result<Server> {
    start_larder(folder, origin, Cores::All, |command| {
        command.env(name, value);
    })
}

/// The same on the first core with another listener, which speaks TLS: its port.
pub(super) fn larder_over_tls(folder: &Path, origin: u16, certificate: &Certificate) -> Result<(Server, u16)> {
    let port = free_port()?;
    let server = start_larder(folder, origin, Cores::First, |command| {
        command.args(["--listen", &format!("tls://127.0.0.1:{port}")]);
        command.env("LARDER_SERVER__TLS__CERTIFICATE_FILE", &certificate.file);
        command.env("LARDER_SERVER__TLS__KEY_FILE", &certificate.key);
    })?;
    Ok((server, port))
}

/// The same on the first core, let in by what these variables of its environment say.
pub(super) fn larder_that_lets_in(folder: &Path, origin: u16, variables: &[(&str, &str)]) -> Result<Server> {
    start_larder(folder, origin, Cores::First, |command| {
        command.envs(variables.iter().copied());
    })
}

/// Where larder has its store.
pub(super) fn store_of(folder: &Path) -> PathBuf {
    folder.join(LARDER)
}

/// Waits until a larder that was just started has counted what it found in its store.
pub(super) fn counted(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        let mut status = Command::new(LARDER_PROGRAM);
        let output = status.args(["status", "--json", "--store"]).arg(store_of(folder)).output()?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if status["store"]["counted"] == true {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    Err("larder does not come to the end of counting its store".into())
}

fn start_larder(folder: &Path, origin: u16, cores: Cores, further: impl FnOnce(&mut Command)) -> Result<Server> {
    let (port, admin) = (free_port()?, free_port()?);
    let mut command = program(LARDER_PROGRAM, cores);
    command.args(["serve", "--login", "anonymous", "--upstream", &format!("http://127.0.0.1:{origin}")]);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{admin}")]);
    command.arg("--store").arg(store_of(folder));
    further(&mut command);
    Server::start(command, port, &folder.join("larder.log"))
}

/// One worker that sends files; `tcp_nopush off` is its cheaper setting here, and its log is buffered as larder's is.
pub(super) fn nginx(folder: &Path, artifact: &Artifact) -> Result<Server> {
    start_nginx(folder, artifact, "")
}

/// The same with a port that speaks TLS, by the OpenSSL that it is linked with.
pub(super) fn nginx_over_tls(folder: &Path, artifact: &Artifact, certificate: &Certificate) -> Result<(Server, u16)> {
    let port = free_port()?;
    let (file, key) = (certificate.file.display(), certificate.key.display());
    let further = format!(
        "listen 127.0.0.1:{port} ssl; ssl_certificate {file}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    ssl_buffer_size 16k; ssl_session_tickets off;"
    );
    Ok((start_nginx(folder, artifact, &further)?, port))
}

fn start_nginx(folder: &Path, artifact: &Artifact, further: &str) -> Result<Server> {
    let (port, place) = (free_port()?, folder.join("nginx"));
    let root = place.join("root");
    write_file(&root.join(&artifact.manifest_path()[1..]), &artifact.manifest.bytes)?;
    for blob in &artifact.blobs {
        write_file(&root.join(&artifact.blob_path(blob)[1..]), &blob.bytes)?;
    }
    let p = place.display();
    // As root, the worker would give up its rights and with them the way into a private folder.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let text = format!(
        "{user} daemon off; worker_processes 1; pid {p}/pid; error_log stderr;
events {{ worker_connections 1024; }}
http {{
  sendfile on; tcp_nopush off; keepalive_requests 1000000000; open_file_cache max=1000;
  access_log {p}/access.log combined buffer=64k flush=1s; default_type application/octet-stream;
  client_body_temp_path {p}/t1; proxy_temp_path {p}/t2; fastcgi_temp_path {p}/t3; uwsgi_temp_path {p}/t4; scgi_temp_path {p}/t5;
  server {{ listen 127.0.0.1:{port}; root {p}/root; {further} }}
}}
"
    );
    let configuration = place.join("nginx.conf");
    write_file(&configuration, text.as_bytes())?;
    let mut command = pinned("nginx");
    command.arg("-p").arg(&place).arg("-e").arg("stderr").arg("-c").arg(&configuration);
    Server::start(command, port, &folder.join("nginx.log"))
}

/// A registry that has the artifact in its file system storage.
pub(super) fn registry(folder: &Path, artifact: &Artifact) -> Result<Server> {
    let storage = folder.join("registry");
    let v2 = storage.join("docker/registry/v2");
    let repository = v2.join("repositories").join(&artifact.repository);
    for blob in artifact.blobs.iter().chain([&artifact.manifest]) {
        let hex = &blob.digest["sha256:".len()..];
        write_file(&v2.join("blobs/sha256").join(&hex[..2]).join(hex).join("data"), &blob.bytes)?;
        write_file(&repository.join("_layers/sha256").join(hex).join("link"), blob.digest.as_bytes())?;
    }
    let (digest, hex) = (artifact.manifest.digest.as_bytes(), &artifact.manifest.digest["sha256:".len()..]);
    let manifests = repository.join("_manifests");
    write_file(&manifests.join("revisions/sha256").join(hex).join("link"), digest)?;
    write_file(&manifests.join("tags").join(TAG).join("current/link"), digest)?;
    write_file(&manifests.join("tags").join(TAG).join("index/sha256").join(hex).join("link"), digest)?;
    start_registry(folder, "", Cores::First)
}

/// A registry with an empty storage that fetches from the origin.
pub(super) fn registry_proxy(folder: &Path, origin: u16) -> Result<Server> {
    start_registry(folder, &format!("proxy:\n  remoteurl: http://127.0.0.1:{origin}\n"), Cores::All)
}

/// A registry with an empty storage that takes pushes.
pub(super) fn empty_registry(folder: &Path) -> Result<Server> {
    start_registry(folder, "", Cores::All)
}

fn start_registry(folder: &Path, proxy: &str, cores: Cores) -> Result<Server> {
    let port = free_port()?;
    let text = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  cache:\n    \
         blobdescriptor: inmemory\nhttp:\n  addr: 127.0.0.1:{port}\n{proxy}",
        folder.join("registry").display()
    );
    let configuration = folder.join("registry.yml");
    write_file(&configuration, text.as_bytes())?;
    let mut command = program("docker-registry", cores);
    command.arg("serve").arg(&configuration);
    Server::start(command, port, &folder.join("registry.log"))
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().ok_or("a file has a folder")?;
    fs::create_dir_all(folder)?;
    Ok(fs::write(path, content).map_err(|error| format!("writing {}: {error}", path.display()))?)
}
