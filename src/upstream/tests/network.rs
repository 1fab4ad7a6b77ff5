use super::*;
use crate::config::{CredentialSettings, Limits};
use crate::telemetry::Metrics;
use crate::upstream::testing::{Server, environment, reply, settings, upstream, upstream_in};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server made of raw connections; `serve` gets each with its number.
async fn raw<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, number));
        }
    });
    (address, task)
}

/// Reads one request's head.
async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn answer(stream: &mut (impl tokio::io::AsyncWrite + Unpin)) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: {OCI}\r\nContent-Length: {}\r\n\r\n{MANIFEST}",
        MANIFEST.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn connections_are_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let (address, _server) = raw(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            while !head(&mut stream).await.is_empty() {
                answer(&mut stream).await;
            }
        }
    })
    .await;
    let (upstream, _) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    for _ in 0..5 {
        manifest(&upstream, "a").await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_that_has_died_is_replaced_once() {
    // The first connection answers once and dies on the second request, as a server does whose idle limit has just passed.
    let (address, _server) = raw(|mut stream, number| async move {
        head(&mut stream).await;
        answer(&mut stream).await;
        if number == 0 {
            head(&mut stream).await;
        } else {
            while !head(&mut stream).await.is_empty() {
                answer(&mut stream).await;
            }
        }
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    manifest(&upstream, "a").await.unwrap();
    manifest(&upstream, "a").await.unwrap();
    assert_eq!(metrics.upstream_retries.with_label_values(&["test.registry", "connection"]).get(), 1);
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_no_reason_to_ask_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let (address, _server) = raw(move |mut stream, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { drop(head(&mut stream).await) }
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unreachable, "{error}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(metrics.upstream_requests.with_label_values(&["test.registry", "manifest_get", "error"]).get(), 1);
    assert_eq!(metrics.upstream_up.with_label_values(&["test.registry"]).get(), 0);
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_names_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (gone, _) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    let error = manifest(&gone, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unreachable);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let (unnamed, _) = upstream(&settings("http://registry.invalid", CredentialSettings::Anonymous));
    let error = unnamed.ping().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unreachable);
    assert!(error.to_string().contains("registry.invalid"), "{error}");
}

#[tokio::test]
async fn an_address_with_a_user_is_refused_without_showing_the_password() {
    let wrong = settings("https://us:s3cret@registry.invalid", CredentialSettings::Anonymous);
    let refused = Upstream::with_environment(&wrong, &Limits::default(), Arc::new(Metrics::new()), &environment());
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("registry.invalid") && !text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn another_protocol_is_foreign() {
    let (address, _server) =
        raw(|mut stream, _| async move { stream.write_all(b"SSH-2.0-x\r\n\r\n").await.unwrap() }).await;
    let (upstream, _) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Foreign, "{error}");
}

#[tokio::test]
async fn every_wait_has_its_limit() {
    let (address, _server) = raw(|mut stream, _| async move {
        let request = head(&mut stream).await;
        if request.contains("/blobs/") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123").await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let mut silent = settings(&format!("http://{address}"), CredentialSettings::Anonymous);
    silent.first_byte_timeout = Duration::from_millis(200);
    silent.stall_timeout = Duration::from_millis(200);
    let (ours, _) = upstream(&silent);
    let error = manifest(&ours, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    assert!(error.to_string().contains("did not begin to answer within 0.2 s"), "{error}");
    let stalled = ours.get_blob(&name("a"), &blob(b"x"), None).await.unwrap();
    let error = read(stalled).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Interrupted);
    assert!(error.to_string().contains("sent nothing for 0.2 s"), "{error}");

    // TLS belongs to connecting: this server takes the connection and says nothing.
    let mut mute = settings(&format!("https://{address}"), CredentialSettings::Anonymous);
    mute.connect_timeout = Duration::from_millis(200);
    let (ours, _) = upstream(&mute);
    let error = manifest(&ours, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Timeout);
    assert!(error.to_string().contains("no connection to"), "{error}");
}

#[tokio::test]
async fn a_body_that_is_cut_never_ends_cleanly() {
    let (address, _server) = raw(|mut stream, _| async move {
        let request = head(&mut stream).await;
        let framing = if request.contains("/blobs/") {
            "Content-Length: 10\r\n\r\n0123"
        } else {
            "Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n"
        };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await.unwrap();
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&format!("http://{address}"), CredentialSettings::Anonymous));
    let mut cut = upstream.get_blob(&name("a"), &blob(b"x"), None).await.unwrap();
    assert_eq!(cut.length, Some(10));
    assert_eq!(cut.body.chunk().await.unwrap().unwrap(), "0123");
    let error = cut.body.chunk().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Interrupted);
    assert!(error.is_outage() && error.to_string().starts_with("cannot fetch blob sha256:"), "{error}");
    assert_eq!(metrics.upstream_received_bytes.with_label_values(&["test.registry"]).get(), 4);
    assert_eq!(manifest(&upstream, "a").await.unwrap_err().kind(), &ErrorKind::Interrupted);
}

#[tokio::test]
async fn connections_to_a_host_are_bounded_and_downloads_leave_room_for_questions() {
    let open = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (Arc::clone(&open), Arc::clone(&most));
    let (address, _server) = raw(move |mut stream, _| {
        let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            loop {
                let request = head(&mut stream).await;
                if request.is_empty() {
                    break;
                }
                if request.contains("/blobs/") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n01").await.unwrap();
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    stream.write_all(b"23").await.unwrap();
                } else {
                    answer(&mut stream).await;
                }
            }
            now.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let limits = Limits { upstream_connections: 3, ..Limits::default() };
    let settings = settings(&format!("http://{address}"), CredentialSettings::Anonymous);
    let upstream = Upstream::with_environment(&settings, &limits, Arc::new(Metrics::new()), &environment()).unwrap();
    let downloads: Vec<_> = (0..6)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { read(upstream.get_blob(&name("a"), &blob(b"x"), None).await?).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = tokio::time::Instant::now();
    manifest(&upstream, "a").await.unwrap();
    assert!(asked.elapsed() < Duration::from_millis(200), "a question waited for downloads");
    for download in downloads {
        assert_eq!(download.await.unwrap().unwrap(), "0123");
    }
    assert!(most.load(Ordering::SeqCst) <= 3);
}

/// Takes TLS connections with a certificate of its own for 127.0.0.1; `folder` gets the certificate as `root.pem`.
async fn tls_server(folder: &std::path::Path) -> (SocketAddr, JoinHandle<()>) {
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "Contoso Inspection Root");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    std::fs::write(folder.join("root.pem"), certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    raw(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            loop {
                let request = head(&mut stream).await;
                if request.is_empty() {
                    return;
                }
                if request.contains("/blobs/") {
                    let leave = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n";
                    stream.write_all(leave).await.unwrap();
                } else {
                    answer(&mut stream).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_untrusted_certificate_names_its_issuer_and_ca_file_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _server) = tls_server(folder.path()).await;
    let mut settings = settings(&format!("https://{address}"), CredentialSettings::Anonymous);
    let (untrusting, _) = upstream(&settings);
    let error = manifest(&untrusting, "a").await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Tls);
    let text = error.to_string();
    for part in ["CN=Contoso Inspection Root", "ca_file", "SSL_CERT_FILE", &address.to_string()] {
        assert!(text.contains(part), "{text}");
    }
    let by_environment = environment().with("SSL_CERT_FILE", folder.path().join("root.pem"));
    manifest(&upstream_in(&settings, &by_environment).0, "a").await.unwrap();
    settings.ca_file = Some(folder.path().join("root.pem"));
    let (trusting, _) = upstream(&settings);
    manifest(&trusting, "a").await.unwrap();
    let error = trusting.get_blob(&name("a"), &blob(b"x"), None).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Foreign);
    assert!(error.to_string().contains("from https to http"), "{error}");
}

#[tokio::test]
async fn a_plain_server_behind_https_is_said_to_be_one() {
    let server = Server::start(|_| reply(200, &[], "")).await;
    let (upstream, _) = upstream(&settings(&format!("https://{}", server.address), CredentialSettings::Anonymous));
    let error = upstream.ping().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Tls);
    assert!(error.to_string().contains("not TLS"), "{error}");
}

#[tokio::test]
async fn https_goes_through_the_proxy_tunnel_with_its_credential() {
    let folder = tempfile::tempdir().unwrap();
    let (target, _server) = tls_server(folder.path()).await;
    let heads: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let (proxy, _proxy) = raw(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let connect = head(&mut stream).await;
            seen.lock().unwrap().push(connect);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut onward = TcpStream::connect(target).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut stream, &mut onward).await);
        }
    })
    .await;
    let environment = environment().with("https_proxy", format!("http://us:pw@{proxy}"));
    let mut settings = settings(&format!("https://{target}"), CredentialSettings::Anonymous);
    settings.ca_file = Some(folder.path().join("root.pem"));
    manifest(&upstream_in(&settings, &environment).0, "a").await.unwrap();
    let connect = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(connect.starts_with(&format!("connect {target} http/1.1\r\n")), "{connect}");
    assert!(connect.contains("proxy-authorization: basic dxm6chc=\r\n"), "{connect}");

    let direct = environment.clone().with("NO_PROXY", "127.0.0.0/8");
    manifest(&upstream_in(&settings, &direct).0, "a").await.unwrap();
    assert_eq!(heads.lock().unwrap().len(), 1, "NO_PROXY holds");
    assert!(!format!("{environment:?}").contains("pw"), "{environment:?}");
}

#[tokio::test]
async fn http_goes_to_the_proxy_as_a_whole_url() {
    let proxy = Server::start(|_| reply(200, &[("content-type", OCI)], MANIFEST)).await;
    let environment = environment().with("HTTP_PROXY", format!("http://us:pw@{}", proxy.address));
    let settings = settings("http://registry.invalid:5000", CredentialSettings::Anonymous);
    manifest(&upstream_in(&settings, &environment).0, "a").await.unwrap();
    let asked = &proxy.asked()[0];
    assert_eq!(asked.target, "http://registry.invalid:5000/v2/a/manifests/v1");
    assert_eq!(asked.header("host"), Some("registry.invalid:5000"));
    assert_eq!(asked.header("proxy-authorization"), Some("Basic dXM6cHc="));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_credential() {
    let (proxy, _proxy) = raw(|mut stream, _| async move {
        head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
    })
    .await;
    let environment = environment().with("HTTPS_PROXY", format!("http://us:s3cret@{proxy}"));
    let settings = settings("https://registry.invalid", CredentialSettings::Anonymous);
    let error = upstream_in(&settings, &environment).0.ping().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unreachable);
    let text = error.to_string();
    assert!(text.contains(&proxy.to_string()) && !text.contains("s3cret"), "{text}");

    let socks = environment.with("HTTPS_PROXY", "socks5://us:s3cret@127.0.0.1:1080");
    let refused = Upstream::with_environment(&settings, &Limits::default(), Arc::new(Metrics::new()), &socks);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("socks5://127.0.0.1:1080") && !text.contains("s3cret"), "{text}");
}
