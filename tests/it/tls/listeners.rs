use super::harness::simulator::Options;
use super::harness::tls::{Authority, Dialer, get};
use super::harness::{Acr, Client, OTHER, Setup, UPSTREAM, raw};
use super::{TAG, blob, seed};
use http::Version;
use larder::config::Listen;
use larder::server::{BindError, Server};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_served_over_tls_in_both_versions_of_both_protocols() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr, 3_000_000);
    let authority = Authority::new("test");
    let larder = Setup::of(&acr).tls(&authority.issue(&["localhost"])).start().await;
    let dialer = Dialer::trusting(&authority);
    for version in rustls::ALL_VERSIONS {
        for (alpn, spoken) in
            [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)]
        {
            let dialer = dialer.clone().version(version).alpn(alpn);
            let answer = dialer.get(larder.address, "localhost", TAG).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, spoken));
            assert_eq!(answer.body(), &artifact.manifest);
            let answer = dialer.get(larder.address, "localhost", &blob(&artifact.layers[0])).await.unwrap();
            assert!(answer.body() == &content, "{version:?} {spoken:?}");
        }
    }
    let line = larder.metric("larder_tls_certificate_expiry_timestamp_seconds").await;
    assert!(line > 4_000_000_000, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_be_plain_while_another_speaks_tls() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 100);
    let authority = Authority::new("test");
    let setup = Setup::of(&acr).tls(&authority.issue(&["localhost"]));
    let plain = super::harness::free_address();
    let larder = setup.with(|settings| settings.server.listen.push(Listen::Tcp(plain))).start().await;
    assert_eq!(Client::new(plain).call("GET", TAG).send().await.body, artifact.manifest);
    let answer = Dialer::trusting(&authority).get(larder.address, "localhost", TAG).await.unwrap();
    assert_eq!(answer.body(), &artifact.manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_request_to_a_tls_port_is_answered_in_plain_at_once() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).tls(&Authority::new("test").issue(&["localhost"])).start().await;
    let began = tokio::time::Instant::now();
    let answer = larder.get("/v2/").await;
    let (status, code, message) = answer.error();
    assert_eq!((status, code.as_str()), (400, "UNSUPPORTED"));
    assert!(message.contains("https://"), "{message}");
    let upload = format!(
        "POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{}",
        "x".repeat(70_000)
    );
    assert!(raw::talk(larder.address, upload).await.starts_with(b"HTTP/1.1 400 "));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert!(raw::talk(larder.address, preface).await.starts_with(b"HTTP/1.1 400 "));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_the_handshake_is_a_route_like_host_which_comes_first() {
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let (artifact, _) = seed(&acr, 100);
    let elsewhere =
        other.push_artifact("samples/config", "v1", &[("x", "text/plain", bytes::Bytes::from_static(b"other"))]);
    let authority = Authority::new("test");
    let certificate = authority.issue(&["localhost", UPSTREAM, OTHER]);
    let larder = Setup::of(&acr)
        .and(&other)
        .tls(&certificate)
        .with(|settings| settings.server.names.push("larder.lan".into()))
        .start()
        .await;
    let dialer = Dialer::trusting(&authority);
    for (name, host, manifest) in [
        ("localhost", "localhost", &artifact.manifest),
        (OTHER, "localhost", &elsewhere.manifest),
        (OTHER, "larder.lan", &elsewhere.manifest),
        (OTHER, OTHER, &elsewhere.manifest),
        (OTHER, UPSTREAM, &artifact.manifest),
        (UPSTREAM, OTHER, &elsewhere.manifest),
    ] {
        let answer = dialer.request(larder.address, name, get(host, TAG)).await.unwrap();
        assert_eq!(answer.body(), manifest, "{name} {host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_another_authority_is_refused_by_itself_and_disturbs_nobody() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr, 100);
    let authority = Authority::new("test");
    let larder = Setup::of(&acr).tls(&authority.issue(&["localhost"])).start().await;
    let foreign = Dialer::trusting(&Authority::new("another"));
    assert!(foreign.get(larder.address, "localhost", TAG).await.is_err());
    for garbage in [&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0][..], &[0x16], &[0x16, 3, 1, 0xFF, 0xFF], b"\x00"] {
        let mut socket = raw::send(larder.address, garbage).await;
        tokio::io::AsyncWriteExt::shutdown(&mut socket).await.unwrap();
        raw::read_all(&mut socket).await;
    }
    let answer = Dialer::trusting(&authority).get(larder.address, "localhost", TAG).await.unwrap();
    assert_eq!(answer.body(), &artifact.manifest);
}

#[tokio::test]
async fn without_a_certificate_a_tls_listener_is_refused() {
    let listen = [Listen::Tls("127.0.0.1:0".parse().unwrap())];
    let error = Server::bind(&listen, &larder::config::Limits::default()).await.err().unwrap();
    assert!(matches!(error, BindError::NoCertificate(_)) && error.to_string().contains("[server.tls]"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_no_handshake() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).tls(&Authority::new("test").issue(&["localhost"])).start().await;
    let _silent = raw::send(larder.address, [0x16]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = tokio::time::Instant::now();
    larder.drain(Duration::from_secs(30)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
