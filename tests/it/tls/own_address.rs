use super::harness::simulator::Options;
use super::harness::{Acr, Setup, free_address};
use super::{TAG, seed};
use larder::config::Listen;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn connect_says_what_is_dialled_whatever_the_name_resolves_to() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 100);
    let real: SocketAddr = acr.url().trim_start_matches("http://").parse().unwrap();
    // The first one takes no connection: the next is tried.
    let setup =
        Setup::at("http://registry.invalid:5000").upstream(|upstream| upstream.connect = vec![free_address(), real]);
    acr.forgive();
    let larder = setup.start().await;
    assert_eq!(larder.get(TAG).await.body, artifact.manifest);
    let nowhere =
        Setup::at("http://registry.invalid:5000").upstream(|upstream| upstream.connect = vec![free_address()]);
    let nowhere = nowhere.start().await;
    let (status, _, message) = nowhere.get("/v2/samples/other/manifests/v1").await.error();
    assert!(status >= 502 && message.contains("registry.invalid"), "{status} {message}");
}

/// A name server that knows one name.
fn name_server(name: &'static str, address: [u8; 4]) -> SocketAddr {
    name_server_after(Duration::ZERO, name, address)
}

/// The same, whose first answer takes so long.
fn name_server_after(mut delay: Duration, name: &'static str, address: [u8; 4]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            std::thread::sleep(std::mem::take(&mut delay));
            let mut answer = buffer[..length].to_vec();
            let asked: Vec<u8> = name
                .split('.')
                .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
                .collect();
            let (known, is_v4) = (answer[12..].starts_with(&asked), answer[length - 3] == 1);
            answer[2..4].copy_from_slice(&[0x81, if known { 0x80 } else { 0x83 }]);
            if known && is_v4 {
                answer[7] = 1;
                answer.extend_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend_from_slice(&address);
            }
            let _ = socket.send_to(&answer, client);
        }
    });
    local
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_upstreams_are_asked_of_the_servers_in_the_file_alone() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 100);
    acr.forgive();
    let real: SocketAddr = acr.url().trim_start_matches("http://").parse().unwrap();
    let server = name_server("registry.invalid", [127, 0, 0, 1]);
    let at = |host: &str| {
        Setup::at(&format!("http://{host}:{}", real.port())).with(|settings| settings.network.dns = vec![server])
    };
    let larder = at("registry.invalid").start().await;
    assert_eq!(larder.get(TAG).await.body, artifact.manifest);
    // The system knows this one, the server does not.
    let other = at("localhost").start().await;
    let (_, _, message) = other.get(TAG).await.error();
    assert!(message.contains("there is no localhost") && message.contains(&server.to_string()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_leads_back_to_larder_is_502_with_that_word() {
    let own = free_address();
    // Longer than a start waits for it: what the name leads to is found with the first request.
    let server = name_server_after(Duration::from_millis(1500), "registry.invalid", [127, 0, 0, 1]);
    let setup = Setup::at(&format!("http://registry.invalid:{}", own.port())).with(|settings| {
        settings.server.listen = vec![Listen::Tcp(own)];
        settings.network.dns = vec![server];
    });
    let larder = setup.start().await;
    let (status, _, message) = larder.get(TAG).await.error();
    assert!(status == 502 && message.contains("larder itself"), "{status} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_leads_back_to_larder_is_an_error_at_start() {
    let own = free_address();
    let setup = Setup::at("http://unused.invalid");
    // A name, since an address would be found in the file already.
    let server = name_server("registry.invalid", [127, 0, 0, 1]);
    let file = setup.file("larder.toml", &format!("[[upstream]]\nname = \"registry.invalid\"\nurl = \"http://registry.invalid:{}\"\n[network]\ndns = [\"{server}\"]\n", own.port()));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .env_clear()
        .env("HOME", setup.folder.path())
        .args(["serve", "--listen", &own.to_string(), "--config"])
        .arg(&file);
    command.args(["--admin", &free_address().to_string(), "--store"]).arg(setup.store());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("larder itself") && text.contains("connect"), "{text}");
}
