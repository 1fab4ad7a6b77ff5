//! Answers that no sound registry gives, byte by byte: what is wrong never reaches a client as if it were right, nothing hangs,
//! nothing panics, and every refusal says what was seen.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::OCI_MANIFEST;
use crate::harness::{Larder, Setup, UPSTREAM, sha256};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const API: &str = "Docker-Distribution-Api-Version: registry/2.0\r\n";
const DOCUMENT: &str = r#"{"schemaVersion":2,"layers":[]}"#;
const JSON: &str = "Content-Type: application/json\r\n";
/// Every wait of the upstream's in these tests.
const WAIT: Duration = Duration::from_secs(1);
/// A request for a manifest waits for a head, and for a body that is held whole at most ten times as long.
const LIMIT: Duration = Duration::from_secs(15);

/// `HTTP/1.1 200 OK`, the lines of a manifest, then `rest`, which ends the head itself.
fn manifest_with(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{API}Content-Type: {OCI_MANIFEST}\r\n{rest}").into_bytes()
}

fn length() -> String {
    format!("Content-Length: {}\r\n", DOCUMENT.len())
}

async fn larder_at(url: &str) -> Larder {
    let setup = Setup::at(url).upstream(|upstream| {
        upstream.connect_timeout = WAIT;
        upstream.first_byte_timeout = WAIT;
        upstream.stall_timeout = WAIT;
        upstream.freshness.negative_ttl = Duration::ZERO;
    });
    setup.start().await
}

/// What a client gets for the tag's manifest: `Ok` for the document itself, else the status and what the message says.
type Wanted = Result<(), (u16, &'static str)>;

async fn manifest_case(name: &str, bytes: Vec<u8>, wanted: Wanted) {
    // A HEAD is answered with upstream's own, where that names a digest: nobody has seen the body.
    let named = bytes.starts_with(b"HTTP/1.1 200") && String::from_utf8_lossy(&bytes).contains("Docker-Content-Digest");
    let upstream = Scripted::start(move |_| bytes.clone()).await;
    let larder = larder_at(&upstream.url()).await;
    for method in ["GET", "HEAD"] {
        let begun = Instant::now();
        let got = larder.call(method, "/v2/a/b/manifests/v1").send().await;
        assert!(begun.elapsed() < LIMIT, "{name}: {method} took {:?}", begun.elapsed());
        match wanted {
            Ok(()) => {
                assert_eq!(got.status, 200, "{name}: {method} {got:?}");
                assert!(method == "HEAD" || got.body == DOCUMENT, "{name}: {got:?}");
                assert_eq!(got.header("docker-content-digest"), Some(&*sha256(DOCUMENT.as_bytes())), "{name}");
            }
            Err(_) if method == "HEAD" && named => assert_eq!(got.status, 200, "{name}: HEAD"),
            Err((status, _)) if method == "HEAD" => assert_eq!(got.status, status, "{name}: HEAD"),
            Err((status, words)) => {
                let (said, _, message) = got.error();
                assert_eq!(said, status, "{name}: {message}");
                assert!(message.contains(words) && message.contains(UPSTREAM), "{name}: {message}");
            }
        }
    }
    // The process is well, and has kept nothing that it should not have.
    assert_eq!(larder.admin_get("/readyz").await.status, 200, "{name}");
    let upstreams_own = larder.metric_lines("larder_upstream_requests_total").await;
    assert!(!upstreams_own.is_empty(), "{name}: what was asked is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn framing_of_every_kind_is_read_as_the_protocol_says_or_refused() {
    let digest = format!("Docker-Content-Digest: {}\r\n", sha256(DOCUMENT.as_bytes()));
    let length = length();
    let chunked = format!(
        "Transfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n{:x};ext=1\r\n{DOCUMENT}\r\n0\r\nX-Checksum: 1\r\n\r\n",
        DOCUMENT.len()
    );
    let flood = "X-Flood: 0123456789\r\n".repeat(5000);
    let long_line = format!("X-Long: {}\r\n", "x".repeat(2 << 20));
    let whole = |lines: &str| manifest_with(&format!("{lines}\r\n{DOCUMENT}"));
    let cases: Vec<(&str, Vec<u8>, Wanted)> = vec![
        ("no length, the end of the connection ends the body", whole("Connection: close\r\n"), Ok(())),
        ("chunked with an extension and trailers", manifest_with(&chunked), Ok(())),
        ("HTTP/1.0", [b"HTTP/1.0".as_slice(), &whole(&length)[8..]].concat(), Ok(())),
        ("the same length twice", whole(&format!("{length}{length}")), Ok(())),
        ("a folded reason", [b"HTTP/1.1 200\r\n".as_slice(), &whole(&length)[17..]].concat(), Ok(())),
        (
            "informational answers first",
            [
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".as_slice(),
                &whole(&length),
            ]
            .concat(),
            Ok(()),
        ),
        (
            "something behind the end",
            manifest_with(&format!("{length}\r\n{DOCUMENT}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")),
            Ok(()),
        ),
        ("two lengths that differ", whole(&format!("{length}Content-Length: 3\r\n")), Err((502, "HTTP/1.1"))),
        ("a length below nothing", whole("Content-Length: -1\r\n"), Err((502, "HTTP/1.1"))),
        ("a length beyond all", whole("Content-Length: 99999999999999999999999\r\n"), Err((502, "HTTP/1.1"))),
        ("a length of a tebibyte", whole("Content-Length: 1099511627776\r\n"), Err((502, "more than"))),
        (
            "a length that is not reached",
            manifest_with(&format!("Content-Length: 4000\r\n\r\n{DOCUMENT}")),
            Err((502, "mid-answer")),
        ),
        (
            "a length that ends too early",
            manifest_with(&format!("Content-Length: 9\r\n\r\n{DOCUMENT}")),
            Err((502, "no manifest")),
        ),
        (
            "a length that ends too early, with the digest",
            manifest_with(&format!("{digest}Content-Length: 9\r\n\r\n{DOCUMENT}")),
            Err((502, "digest")),
        ),
        (
            "a chunk without its end",
            manifest_with("Transfer-Encoding: chunked\r\n\r\n5\r\n{}"),
            Err((502, "mid-answer")),
        ),
        ("a chunk size that is none", manifest_with("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"), Err((502, ""))),
        ("more header lines than anybody needs", whole(&format!("{flood}{length}")), Err((502, "HTTP/1.1"))),
        ("a header line of 2 MiB", whole(&format!("{long_line}{length}")), Err((502, "HTTP/1.1"))),
        ("a header without a colon", whole(&format!("nonsense\r\n{length}")), Err((502, "HTTP/1.1"))),
        ("a byte that no header has", whole(&format!("X: \0\r\n{length}")), Err((502, "HTTP/1.1"))),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec(), Err((502, "HTTP/1.1"))),
        ("nothing", Vec::new(), Err((504, "without an answer"))),
        ("half a status line", b"HTTP/1.1 20".to_vec(), Err((504, "without an answer"))),
        ("half a head", manifest_with("Content-Le"), Err((504, "without an answer"))),
    ];
    for (name, bytes, wanted) in cases {
        manifest_case(name, bytes, wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_not_asked_for_is_refused() {
    let with = |status: &str, lines: &str| {
        let head = format!("HTTP/1.1 {status}\r\n{API}Content-Type: {OCI_MANIFEST}\r\n{}{lines}\r\n", length());
        [head.as_bytes(), DOCUMENT.as_bytes()].concat()
    };
    let other = sha256(b"something else");
    let to = |address: &str| answer("307 Temporary Redirect", &[&format!("Location: {address}")], "");
    let cases: Vec<(&str, Vec<u8>, (u16, &str))> = vec![
        ("204", format!("HTTP/1.1 204 No Content\r\n{API}\r\n").into_bytes(), (502, "204")),
        ("206", with("206 Partial Content", "Content-Range: bytes 0-30/31\r\n"), (502, "206")),
        ("205", with("205 Reset Content", ""), (502, "")),
        ("304", format!("HTTP/1.1 304 Not Modified\r\n{API}\r\n").into_bytes(), (502, "304")),
        ("300", with("300 Multiple Choices", ""), (502, "300")),
        ("999", with("999 Odd", ""), (502, "")),
        ("416", with("416 Range Not Satisfiable", ""), (416, "416")),
        ("compressed", with("200 OK", "Content-Encoding: gzip\r\n"), (502, "gzip")),
        ("compressed twice", with("200 OK", "Content-Encoding: identity, br\r\n"), (502, "br")),
        ("another digest", with("200 OK", &format!("Docker-Content-Digest: {other}\r\n")), (502, "digest")),
        (
            "a page",
            answer("200 OK", &["Content-Type: TEXT/HTML; charset=utf-8"], "<html>login</html>"),
            (502, "web page"),
        ),
        (
            "JSON that is no manifest",
            answer("200 OK", &["Content-Type: application/json"], "[1,2]"),
            (502, "no manifest"),
        ),
        ("no type at all", answer("200 OK", &[API.trim()], DOCUMENT), (502, "without saying its type")),
        ("a redirect to nowhere", answer("307 Temporary Redirect", &[], ""), (502, "no address")),
        ("a redirect with a user", to("http://user:secret@127.0.0.1/x"), (502, "no address")),
        ("a redirect to a file", to("file:///etc/passwd"), (502, "no address")),
        ("a redirect to nonsense", to("http://[::1/"), (502, "no address")),
        ("a redirect to itself, for ever", to("/v2/a/b/manifests/v1#top"), (502, "redirects")),
    ];
    for (name, bytes, wanted) in cases {
        manifest_case(name, bytes, Err(wanted)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_goes_on_for_ever_is_waited_for_beyond_its_limit() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    let cases: [(&str, &[u8], &[u8], u16); 4] = [
        ("informational answers without end", b"", b"HTTP/1.1 100 Continue\r\n\r\n", 504),
        ("a head by the byte", b"HTTP/1.1 200 OK\r\nX: ", b"x", 504),
        (
            "a body by the byte",
            b"HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: 4000\r\n\r\n",
            b" ",
            502,
        ),
        ("chunks by the byte", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", 502),
    ];
    let mut running = JoinSet::new();
    for (name, begin, again, status) in cases {
        running.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                while let Ok((mut socket, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut head = [0; 4096];
                        let _ = socket.read(&mut head).await;
                        let _ = socket.write_all(begin).await;
                        while socket.write_all(again).await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    });
                }
            });
            let larder = larder_at(&format!("http://{address}")).await;
            let begun = Instant::now();
            let (said, _, message) = larder.get("/v2/a/b/manifests/v1").await.error();
            assert_eq!(said, status, "{name}: {message}");
            assert!(begun.elapsed() < LIMIT, "{name}: {:?}", begun.elapsed());
            server.abort();
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_leads_in_a_circle_ends() {
    let upstream = Scripted::start(|line| {
        let page = if line.contains("last=b") { "c" } else { "a" };
        let next = if page == "a" { "b" } else { "d" };
        let link = format!("Link: </v2/a/b/tags/list?last={next}>; rel=\"next\"");
        answer("200 OK", &[API.trim(), JSON.trim(), &link], format!(r#"{{"name":"a/b","tags":["{page}"]}}"#))
    })
    .await;
    let larder = larder_at(&upstream.url()).await;
    // It is never whole: each client gets the pages that it asks for, as it would without larder.
    let first = larder.get("/v2/a/b/tags/list").await;
    assert_eq!((first.status.as_u16(), first.json()["tags"].clone()), (200, serde_json::json!(["a"])));
    assert!(first.header("link").unwrap().contains("last=b"), "{first:?}");
    assert!(upstream.asked().len() < 10, "{} pages were asked for", upstream.asked().len());
}

/// A blob's bytes, longer than what is verified before an answer begins.
fn content() -> Vec<u8> {
    (0..300_000_u32).map(|at| (at % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_arrives_whole_and_right_or_its_answer_does_not_end_cleanly() {
    let content = content();
    let digest = sha256(&content);
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes();
    let size = content.len();
    let with = |lines: &str, body: &[u8]| [head(lines).as_slice(), body].concat();
    let mut wrong = content.clone();
    wrong[size - 1] ^= 1;
    let chunked = [
        head("Transfer-Encoding: chunked\r\n").as_slice(),
        format!("{size:x}\r\n").as_bytes(),
        &content,
        b"\r\n0\r\nX: y\r\n\r\n",
    ]
    .concat();
    let length = format!("Content-Length: {size}\r\n");
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("as it should be", with(&length, &content), true),
        ("until the end of the connection", with("Connection: close\r\n", &content), true),
        ("chunked, with trailers", chunked, true),
        (
            "labelled as compressed, as some storage does",
            with(&format!("{length}Content-Encoding: gzip\r\n"), &content),
            true,
        ),
        ("with the lines of a page", with(&format!("{length}Set-Cookie: a=b\r\nETag: \"x\"\r\n"), &content), true),
        ("a length too long", with(&format!("Content-Length: {}\r\n", size + 9), &content), false),
        ("a length too short", with(&format!("Content-Length: {}\r\n", size - 9), &content), false),
        ("a wrong last byte", with(&length, &wrong), false),
        ("more than it is", with("Connection: close\r\n", &[content.as_slice(), b"more"].concat()), false),
        ("nothing", with("Content-Length: 0\r\n", b""), false),
        (
            "a part that nobody asked for",
            [
                format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-8/{size}\r\nContent-Length: 9\r\n\r\n")
                    .as_bytes(),
                &content[..9],
            ]
            .concat(),
            false,
        ),
        ("no content", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), false),
    ];
    let mut running = JoinSet::new();
    for (name, bytes, right) in cases {
        let (content, digest) = (content.clone(), digest.clone());
        running.spawn(async move {
            let upstream = Scripted::start(move |_| bytes.clone()).await;
            let larder = larder_at(&upstream.url()).await;
            let got = larder.call("GET", &format!("/v2/a/b/blobs/{digest}")).try_send().await;
            match got {
                Ok(answer) if right => assert_eq!((answer.status.as_u16(), &*answer.body), (200, &*content), "{name}"),
                Ok(answer) => assert!(answer.status.is_server_error(), "{name}: {}", answer.status),
                Err(broken) => assert!(!right, "{name}: {broken:?}"),
            }
            if right {
                crate::harness::until("it is stored", || larder.stores(&digest)).await;
            } else {
                assert!(!larder.stores(&digest), "{name} is kept");
            }
            assert_eq!(larder.admin_get("/readyz").await.status, 200, "{name}");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
