//! Binding: what is reported, what is healed, what is refused with a way out.

use super::connection_tests::Fun;
use crate::config::{Limits, Listen};
use crate::server::{BindError, Body, Drain, Server};
use http::Response;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

fn tcp(address: &str) -> Listen {
    Listen::Tcp(address.parse().unwrap())
}

async fn fails(listen: &[Listen]) -> BindError {
    Server::bind(listen, &Limits::default()).await.err().expect("it cannot be bound")
}

#[tokio::test]
async fn a_port_in_use_names_its_holder_and_a_free_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = fails(&[tcp("127.0.0.1:0"), Listen::Tcp(address)]).await.to_string();
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(text.contains("--listen 127.0.0.1:"), "{text}");
    if cfg!(target_os = "linux") {
        assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_and_nowhere_are_errors() {
    assert!(matches!(fails(&[tcp("192.0.2.1:0")]).await, BindError::NotHere(_)));
    assert!(matches!(fails(&[]).await, BindError::Nowhere));
}

#[tokio::test]
async fn ipv4_and_ipv6_share_a_port() {
    let v4 = Server::bind(&[tcp("0.0.0.0:0")], &Limits::default()).await.unwrap();
    let Listen::Tcp(address) = v4.addresses()[0].clone() else { panic!("TCP was bound") };
    drop(v4);
    if std::net::TcpListener::bind("[::]:0").is_ok() {
        let both = [Listen::Tcp(address), tcp(&format!("[::]:{}", address.port()))];
        assert_eq!(Server::bind(&both, &Limits::default()).await.unwrap().addresses(), both);
    }
}

#[tokio::test]
async fn ipv6_loopback_is_left_out_only_where_there_is_none() {
    let server = Server::bind(&[tcp("127.0.0.1:0"), tcp("[::1]:0")], &Limits::default()).await.unwrap();
    let expected = if std::net::TcpListener::bind("[::1]:0").is_ok() { 2 } else { 1 };
    assert_eq!(server.addresses().len(), expected);
}

#[tokio::test]
async fn a_unix_socket_replaces_a_stale_one_is_for_its_group_and_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("larder.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listen = [Listen::Unix(path.clone())];
    let server = Server::bind(&listen, &Limits::default()).await.unwrap();
    assert_eq!(server.addresses(), listen);
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert!(matches!(fails(&listen).await, BindError::InUse { .. }), "one that answers is not stale");

    let (trigger, drain) = Drain::new();
    let handler = Fun(|_| -> super::connection_tests::Answer {
        Box::pin(async { Response::new(Body::full(bytes::Bytes::from_static(b"hello"))) })
    });
    let task = tokio::spawn(server.serve(handler, drain));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.ends_with(b"hello"));
    trigger.begin(Duration::from_secs(5));
    task.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_at_the_path_of_a_unix_socket_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "keep").unwrap();
    assert!(matches!(fails(&[Listen::Unix(path.clone())]).await, BindError::NotASocket(_)));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "keep");
}

/// The limit on open files is the process's own, so the test runs itself again in a process of its own.
#[tokio::test]
async fn accepting_goes_on_after_the_process_ran_out_of_files() {
    const NAME: &str = "accepting_goes_on_after_the_process_ran_out_of_files";
    if std::env::var_os("LARDER_TEST_FEW_FILES").is_none() {
        let itself = std::env::current_exe().unwrap();
        let mut command = tokio::process::Command::new(itself);
        command.arg(NAME).arg("--nocapture").env("LARDER_TEST_FEW_FILES", "1");
        let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let (server, _trigger) = few_files().await;
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect(server).await {
        crowd.push(stream);
    }
    assert!(crowd.len() > 10, "the process ran out of files");
    tokio::time::sleep(Duration::from_millis(300)).await;
    crowd.clear();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200 "));
}

async fn few_files() -> (std::net::SocketAddr, crate::server::DrainTrigger) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(80), maximum }).unwrap();
    let running =
        super::connection_tests::start(Limits::default(), |_| Box::pin(async { Response::new(Body::empty()) })).await;
    (running.address, running.trigger)
}
