use super::*;
use crate::config::CredentialSettings;
use crate::upstream::testing::{Server, bare, environment, settings, upstream_in};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A proxy that answers every `CONNECT` with these bytes, and then goes or stays.
async fn proxy(answer: &'static [u8], stays: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                drop(stream.read(&mut head).await);
                drop(stream.write_all(answer).await);
                while stays && stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

async fn through(proxy: &str, url: &str) -> UpstreamError {
    let environment = environment()
        .with("HTTPS_PROXY", format!("http://us:s3cret@{proxy}"))
        .with("HTTP_PROXY", format!("http://{proxy}"));
    let mut settings = settings(url, CredentialSettings::Anonymous);
    settings.connect_timeout = Duration::from_millis(500);
    let error = manifest(&upstream_in(&settings, &environment).0, "a").await.unwrap_err();
    assert!(error.is_outage() && !error.to_string().contains("s3cret"), "{error}");
    error
}

#[tokio::test]
async fn a_tunnel_that_is_not_opened_is_an_outage_that_names_the_proxy() {
    let page: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>please log in</html>";
    for (answer, stays, kind, words) in [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".as_slice(),
            false,
            ErrorKind::Unreachable,
            "wants a login",
        ),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false, ErrorKind::Unreachable, "refuses the tunnel"),
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>",
            false,
            ErrorKind::Unreachable,
            "refuses the tunnel",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://portal.invalid/\r\n\r\n",
            false,
            ErrorKind::Unreachable,
            "refuses the tunnel",
        ),
        (b"nonsense\r\n\r\n", false, ErrorKind::Unreachable, "through proxy"),
        (b"", false, ErrorKind::Unreachable, "through proxy"),
        (page, false, ErrorKind::Tls, "through proxy"),
        (b"", true, ErrorKind::Timeout, "proxy"),
    ] {
        let proxy = proxy(answer, stays).await.to_string();
        let error = through(&proxy, "https://registry.invalid").await;
        let said = String::from_utf8_lossy(answer);
        assert_eq!(error.kind(), &kind, "{said}: {error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("registry.invalid"), "{said}: {text}");
        assert!(kind != ErrorKind::Unreachable || text.contains(&proxy), "{said}: {text}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let error = through(&nobody, "https://registry.invalid").await;
    assert_eq!(error.kind(), &ErrorKind::Unreachable);
    assert!(error.to_string().contains(&nobody), "{error}");
}

#[tokio::test]
async fn what_a_forward_proxy_says_for_itself_is_an_outage() {
    let page = ("content-type", "text/html");
    for (status, kind, words) in [
        (407, ErrorKind::Unreachable, "wants a login"),
        (403, ErrorKind::Foreign, "403"),
        (404, ErrorKind::Foreign, "404"),
        (502, ErrorKind::ServerError(502), "502"),
        (503, ErrorKind::ServerError(503), "503"),
        (200, ErrorKind::Foreign, "web page"),
    ] {
        let proxy = Server::start(move |_| bare(status, &[page], "<html>proxy</html>")).await;
        let error = through(&proxy.address.to_string(), "http://registry.invalid").await;
        assert_eq!(error.kind(), &kind, "{status}: {error}");
        assert!(error.to_string().contains(words), "{status}: {error}");
    }
}
