//! Upstream says no, either side leaves, either side waits.

use crate::harness::simulator::{Fault, FaultAnswer, PathClass};
use crate::harness::{PATIENCE, Setup, raw, sha256, until_async};
use crate::writes::common::{MIB, Scene, content, created, ending, location};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

#[tokio::test]
async fn an_early_refusal_reaches_the_client_with_its_code_and_text() {
    for (status, code, text) in [(413, "SIZE_INVALID", "the blob is too large"), (403, "DENIED", "quota exceeded")] {
        let scene = Scene::new().await;
        let begun = scene.begin("samples/config").await;
        let answer = FaultAnswer::Oci { status, code: code.to_owned(), message: text.to_owned() };
        scene.acr.knobs().turn(|knobs| {
            knobs.refuse_early = true;
            knobs.faults.push(Fault::always(PathClass::Uploads, answer).of("PATCH"));
        });
        let (sender, pieces) = mpsc::channel(1);
        let patch = tokio::spawn(scene.call("PATCH", &begun).pieces(pieces).send());
        let piece = content(61, MIB);
        for _ in 0..64 {
            if sender.send(Ok(piece.clone())).await.is_err() {
                break;
            }
        }
        drop(sender);
        let (seen, said, message) = patch.await.unwrap().error();
        assert_eq!((seen, said.as_str()), (status, code), "{message}");
        assert!(message.contains(text), "{message}");
    }
}

#[tokio::test]
async fn a_cut_upload_is_an_error_that_can_be_gone_on_from() {
    let scene = Scene::new().await;
    let content = content(62, 4 * MIB);
    let digest = sha256(&content);
    let begun = scene.begin("samples/config").await;
    scene.acr.knobs().turn(|knobs| knobs.upload_cut_at = Some(MIB as u64));
    let cut = scene.call("PATCH", &begun).body(content.clone()).send().await;
    assert_eq!(cut.status, 504, "{cut:?}");
    let status = scene.call("GET", &begun).send().await;
    assert_eq!(status.status, 204, "{status:?}");
    let last: usize = status.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
    let rest = content.slice(last + 1..);
    created(
        &scene.call("PUT", &ending(&location(&status), &digest)).body(rest).send().await,
        "samples/config",
        &digest,
    );
    assert_eq!(scene.acr.blob("samples/config", &digest), Some(content));
}

#[tokio::test]
async fn throttled_or_failing_it_can_be_tried_again_and_is_still_kept() {
    let scene = Scene::new().await;
    let content = content(64, 100_000);
    let digest = sha256(&content);
    let begun = scene.begin("samples/config").await;
    let at = location(&scene.call("PATCH", &begun).body(content.clone()).send().await);
    let fault = Fault::times(PathClass::Uploads, FaultAnswer::empty(503), 1).of("PUT");
    scene.acr.knobs().turn(|knobs| knobs.faults.push(fault));
    assert_eq!(scene.call("PUT", &ending(&at, &digest)).send().await.status, 502);
    created(&scene.call("PUT", &ending(&at, &digest)).send().await, "samples/config", &digest);
    assert_eq!(crate::writes::common::uploads(&scene.larder, "stored").await, 1);
}

#[tokio::test]
async fn a_caller_without_the_right_is_refused_before_the_body() {
    let scene = Scene::with(|setup| setup.with(|settings| settings.access.rules.clear())).await;
    let before = scene.acr.log().len();
    let head = "POST /v2/samples/config/blobs/uploads/?digest=sha256:0 HTTP/1.1\r\nHost: localhost\r\n\
                Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    let answer = raw::talk(scene.larder.address, head).await;
    let heads = raw::heads(&answer);
    assert_eq!(heads.len(), 1, "no 100: {heads:?}");
    assert!(heads[0].starts_with("HTTP/1.1 403"), "{heads:?}");
    assert_eq!(scene.acr.log().len(), before);
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_and_goes_on() {
    let scene = Scene::new().await;
    let begun = scene.begin("samples/config").await;
    let head = format!(
        "PATCH {begun} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    let mut socket = raw::send(scene.larder.address, head).await;
    let mut first = [0; 12];
    tokio::time::timeout(PATIENCE, socket.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    socket.write_all(b"hello").await.unwrap();
    let rest = raw::read_all(&mut socket).await;
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 202"), "{:?}", String::from_utf8_lossy(&rest));
}

/// An upstream that begins an upload and then does with the body what `then` does.
async fn bodies_go_to<F: Future<Output = ()> + Send + 'static>(
    then: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            if head.starts_with(b"PATCH") {
                then(socket).await;
                continue;
            }
            let status =
                if head.starts_with(b"POST") { "202 Accepted\r\nLocation: /v2/a/blobs/uploads/1" } else { "200 OK" };
            let answer = format!(
                "HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    address
}

async fn in_front_of(address: std::net::SocketAddr, stall: Duration) -> crate::harness::Larder {
    let setup = crate::writes::common::pushing_in(Setup::at(&format!("http://{address}")));
    setup.upstream(|upstream| upstream.stall_timeout = stall).start().await
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_upstream() {
    let (ended, end) = oneshot::channel::<usize>();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(Some(ended)));
    let address = bodies_go_to(move |mut socket| {
        let ended = ended.lock().unwrap().take();
        async move {
            let mut bytes = Vec::new();
            let _ = socket.read_to_end(&mut bytes).await;
            let _ = ended.unwrap().send(bytes.len());
        }
    })
    .await;
    let larder = in_front_of(address, Duration::from_secs(30)).await;
    let begun = crate::writes::common::begin(&larder, "a").await;
    let (sender, pieces) = mpsc::channel(1);
    let patch = tokio::spawn(larder.call("PATCH", &begun).pieces(pieces).try_send());
    sender.send(Ok(Bytes::from_static(b"the beginning"))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    patch.abort();
    let bytes = tokio::time::timeout(PATIENCE, end).await.expect("the request upstream ends").unwrap();
    assert!(bytes < 100, "and no clean end was made up: {bytes}");
    until_async("the request is over here, too", async || larder.metric("larder_http_inflight_requests").await == 0)
        .await;
}

#[tokio::test]
async fn an_upstream_that_takes_nothing_more_is_given_up_and_the_client_was_not_read_ahead() {
    let address = bodies_go_to(|socket| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(socket);
    })
    .await;
    let larder = in_front_of(address, Duration::from_secs(1)).await;
    let begun = crate::writes::common::begin(&larder, "a").await;
    let (sender, pieces) = mpsc::channel(1);
    let patch = tokio::spawn(larder.call("PATCH", &begun).pieces(pieces).send());
    let (piece, mut sent) = (content(66, MIB), 0);
    while sent < 256 && sender.send(Ok(piece.clone())).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB went into nowhere");
    drop(sender);
    let (status, _, message) = patch.await.unwrap().error();
    assert_eq!(status, 504);
    assert!(message.contains("took nothing for 1 s"), "{message}");
}
