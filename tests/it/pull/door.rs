//! The door: who is let in under which name, what is refused, and what a connection may do.

use crate::harness::simulator::Options;
use crate::harness::{Acr, OTHER_ALIAS, Setup, UPSTREAM, raw};
use crate::pull::{REPOSITORY, manifest, seed};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test(flavor = "multi_thread")]
async fn only_open_networks_are_let_in_and_the_refusal_names_the_setting() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let setup = Setup::of(&acr).with(|settings| settings.access.open_to = vec!["10.0.0.0/8".parse().unwrap()]);
    let larder = setup.start().await;
    for target in ["/v2/", &*manifest(REPOSITORY, "v1"), "/v2/_catalog"] {
        let answer = larder.get(target).await;
        let (status, code, message) = answer.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{target}");
        assert!(message.contains("open_to") && message.contains("127.0.0.1"), "{message}");
        assert_eq!(answer.header("www-authenticate"), None, "there is nothing to log in to");
    }
    assert!(acr.log().is_empty(), "upstream hears nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loopback_listener_answers_to_its_own_names_only() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).with(|settings| settings.server.names = vec!["build.example".into()]).start().await;
    let target = manifest(REPOSITORY, "v1");
    for own in ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "build.example:5000", UPSTREAM] {
        assert_eq!(larder.call("GET", &target).host(own).send().await.status, 200, "{own}");
    }
    for foreign in ["evil.example", "localhost.evil.example:5000", "10.0.0.1", "myacr.azurecr.io.evil.example"] {
        for path in ["/v2/", &*target] {
            let (status, code, message) = larder.call("GET", path).host(foreign).send().await.error();
            assert_eq!((status, &*code), (421, "DENIED"), "{foreign}");
            assert!(
                message.contains("[server] names") && message.contains(foreign.split(':').next().unwrap()),
                "{message}"
            );
        }
    }
    let old = raw::talk(larder.address, format!("GET {target} HTTP/1.0\r\n\r\n")).await;
    assert!(raw::heads(&old)[0].starts_with("HTTP/1.0 200"), "HTTP/1.0 has no Host: {:?}", raw::heads(&old));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_denied_with_a_word_on_what_to_do_and_never_reach_upstream() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let larder = Setup::of(&acr).password("ci", "pw").start().await;
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", crate::pull::unknown_digest());
    for (method, target) in [
        ("POST", format!("/v2/{REPOSITORY}/blobs/uploads/")),
        ("POST", format!("/v2/{REPOSITORY}/blobs/uploads/?mount=sha256%3A0&from=x")),
        ("PATCH", format!("/v2/{REPOSITORY}/blobs/uploads/1")),
        ("PUT", format!("/v2/{REPOSITORY}/blobs/uploads/1?digest=sha256%3A0")),
        ("PUT", manifest(REPOSITORY, "v1")),
        ("DELETE", manifest(REPOSITORY, "v1")),
        ("DELETE", blob.clone()),
        ("DELETE", format!("/v2/{OTHER_ALIAS}/x/manifests/v1")),
    ] {
        let answer = larder.call(method, &target).send().await;
        let (status, code, message) = answer.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{method} {target}");
        let right = if method == "DELETE" { "delete" } else { "push" };
        assert!(message.contains(&format!("--allow {right}")), "{message}");
    }
    for (method, target, allow) in [
        ("OPTIONS", "/v2/".to_owned(), "GET, HEAD"),
        ("POST", manifest(REPOSITORY, "v1"), "GET, HEAD, PUT, DELETE"),
        ("GET", format!("/v2/{REPOSITORY}/blobs/uploads/"), "POST"),
    ] {
        let answer = larder.call(method, &target).send().await;
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}");
        let (status, code, _) = answer.error();
        assert_eq!((status, &*code), (405, "UNSUPPORTED"));
    }
    assert!(acr.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_told_so_whatever_is_still_being_sent() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    // 64 MiB that nobody reads: the answer must arrive all the same, not be lost in a reset.
    let mut socket = raw::send(
        larder.address,
        format!(
            "PATCH /v2/{REPOSITORY}/blobs/uploads/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 67108864\r\n\r\n"
        ),
    )
    .await;
    let (mut read, mut write) = socket.split();
    let sending = async {
        let piece = vec![0; 64 << 10];
        for _ in 0..1024 {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut head = Vec::new();
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let count = read.read(&mut piece).await.expect("an answer, not a reset");
            assert!(count > 0, "closed without an answer: {:?}", String::from_utf8_lossy(&head));
            head.extend_from_slice(&piece[..count]);
        }
        assert!(head.starts_with(b"HTTP/1.1 403"), "{:?}", String::from_utf8_lossy(&head));
    };
    tokio::select! {
        () = sending => {}
        result = tokio::time::timeout(crate::harness::PATIENCE, reading) => result.unwrap(),
    }
    let expecting = raw::talk(
        larder.address,
        format!(
            "PUT {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
            manifest(REPOSITORY, "v1")
        ),
    )
    .await;
    assert!(
        raw::heads(&expecting)[0].starts_with("HTTP/1.1 403"),
        "no body is asked for that nobody wants: {:?}",
        raw::heads(&expecting)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_23_large_headers_are_borne_and_larger_ones_refused_without_harm() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let target = crate::pull::blob(REPOSITORY, &artifact.layers[0]);
    // containers/image asks for up to 1024 ranges at once; what there is of them is the answer, 416 is none that it takes.
    let ranges: Vec<String> =
        (0..1024_u64).map(|number| format!("{}-{}", number * 1_000_000_000, number * 1_000_000_000 + 9)).collect();
    let ranges = format!("bytes={}", ranges.join(","));
    assert!(ranges.len() > 18_000, "{}", ranges.len());
    let answer = larder.call("GET", &target).range(&ranges).send().await;
    assert_eq!((answer.status.as_u16(), answer.body), (206, content.slice(..10)));
    let answer = larder.call("GET", &target).line("Cookie", &"c".repeat(40 << 10)).send().await;
    assert_eq!(answer.status, 200, "a cookie jar's worth");
    let (ninety, many) = ((0..90).fold(larder.call("GET", &target), |call, n| call.line(&format!("x-{n}"), "y")), 120);
    assert_eq!(ninety.send().await.status, 200);
    let lines = (0..many).map(|n| format!("x-{n}: y\r\n")).collect::<Vec<_>>().concat();
    let heads = raw::heads(
        &raw::talk(larder.address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")).await,
    );
    assert!(heads[0].starts_with("HTTP/1.1 431"), "{heads:?}");
    let huge = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n", "c".repeat(1 << 20));
    let mut socket = tokio::net::TcpStream::connect(larder.address).await.unwrap();
    // The answer comes before all of that is taken.
    let _ = socket.write_all(huge.as_bytes()).await;
    let heads = raw::heads(&raw::read_all(&mut socket).await);
    assert!(heads.is_empty() || heads[0].starts_with("HTTP/1.1 431"), "{heads:?}");
    let long =
        raw::talk(larder.address, format!("GET /v2/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000))).await;
    let heads = raw::heads(&long);
    assert!(heads[0].starts_with("HTTP/1.1 414") || heads[0].starts_with("HTTP/1.1 431"), "{heads:?}");
    assert_eq!(larder.get(&target).await.body, content, "and everybody else is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_its_head_too_slowly_is_hung_up_on() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).with(|s| s.server.limits.header_timeout = Duration::from_millis(300)).start().await;
    let began = tokio::time::Instant::now();
    let mut socket = raw::send(larder.address, "GET /v2/ HTTP/1.1\r\nHost: loc").await;
    raw::read_all(&mut socket).await;
    assert!(began.elapsed() >= Duration::from_millis(250), "not at once: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait_instead_of_failing() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).with(|settings| settings.server.limits.connections = 2).start().await;
    let target = manifest(REPOSITORY, "v1");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = raw::send(larder.address, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut answered = [0; 12];
        socket.read_exact(&mut answered).await.unwrap();
        assert_eq!(&answered, b"HTTP/1.1 200");
        held.push(socket);
    }
    let waiting = tokio::spawn(larder.call("GET", &target).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    drop(held);
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_27_a_tls_hello_is_answered_at_once_by_something_that_is_not_tls() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    let mut hello = vec![0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03];
    hello.resize(205, 0x41);
    let began = tokio::time::Instant::now();
    let answer = raw::talk(larder.address, hello).await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&answer));
    assert!(began.elapsed() < Duration::from_secs(2), "the fallback to plain HTTP waits for it: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order_and_a_connection_is_used_again() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let (tag, digest) = (manifest(REPOSITORY, "v1"), crate::pull::blob(REPOSITORY, &artifact.layers[0]));
    let line = |method: &str, target: &str, close: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n")
    };
    let requests = [
        line("GET", "/v2/", ""),
        line("HEAD", &tag, ""),
        line("GET", &tag, ""),
        line("GET", &crate::pull::blob(REPOSITORY, "sha256:x"), ""),
        line("GET", &digest, "Connection: close\r\n"),
    ];
    let bytes = raw::talk(larder.address, requests.concat()).await;
    let statuses: Vec<String> = raw::heads(&bytes).iter().map(|head| head[9..12].to_owned()).collect();
    assert_eq!(statuses, ["200", "200", "200", "400", "200"]);
    assert!(bytes.ends_with(&content));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_is_spoken_too() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let socket = tokio::net::TcpStream::connect(larder.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    for (authority, status) in [("localhost:5000", 200), (UPSTREAM, 200), ("evil.example", 421)] {
        let uri = format!("http://{authority}{}", manifest(REPOSITORY, "v1"));
        let request = http::Request::get(uri).body(Empty::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{authority}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body == artifact.manifest, status == 200);
    }
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_listener_says_whether_it_lives_and_serves_whatever_upstream_does() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    acr.stop_listening();
    assert_eq!(larder.get("/v2/").await.status, 200);
    larder.requests_when(1).await;
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = larder.admin_get(path).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, text));
    }
    let metrics = larder.admin_get("/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().contains("# TYPE larder_http_requests_total counter"));
    assert_eq!(larder.admin_get("/v2/").await.status, 404, "content is not served there");
    let client = crate::harness::Client::new(larder.admin);
    assert_eq!(client.call("POST", "/metrics").send().await.status, 405);
    assert_eq!(larder.get("/metrics").await.status, 404, "and metrics not here");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_beyond_the_limit_are_told_when_to_come_back() {
    let acr = Acr::start(Options::public()).await;
    let (first, content) = crate::pull::large(&acr, REPOSITORY, 4 << 20);
    let second = acr.push_blob(REPOSITORY, "another");
    acr.knobs().turn(|k| k.total_rate = Some(512 << 10));
    let larder = Setup::of(&acr).with(|settings| settings.server.limits.fills = 1).start().await;
    let mut running = larder.call("GET", &crate::pull::blob(REPOSITORY, &first)).open().await;
    running.at_least(1).await;
    let busy = larder.get(&crate::pull::blob(REPOSITORY, &second)).await;
    assert_eq!((busy.error().0, &*busy.error().1), (429, "TOOMANYREQUESTS"));
    let seconds: u64 = busy.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    acr.knobs().turn(|k| k.total_rate = None);
    assert!(running.rest().await.unwrap().body == content);
    crate::harness::until("the download has ended", || larder.stores(&first)).await;
    assert_eq!(larder.get(&crate::pull::blob(REPOSITORY, &second)).await.text(), "another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_accepts_nothing_is_hung_up_on_after_its_time() {
    let acr = Acr::start(Options::public()).await;
    let (digest, _) = crate::pull::large(&acr, REPOSITORY, 32 << 20);
    let limits =
        |settings: &mut larder::config::Settings| settings.server.limits.stall_timeout = Duration::from_millis(400);
    let larder = Setup::of(&acr).with(limits).start().await;
    larder.get(&crate::pull::blob(REPOSITORY, &digest)).await;
    crate::harness::until("the blob is stored", || larder.stores(&digest)).await;
    let target = crate::pull::blob(REPOSITORY, &digest);
    let socket = raw::send(larder.address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let lines = larder.requests_when(2).await;
    assert!(lines[1]["bytes"].as_u64().unwrap() < 32 << 20, "{}", lines[1]);
    drop(socket);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_the_wire_ends_its_own_connection_and_nothing_else() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for nonsense in [
        &b"\x00\x00\x00\x00\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v2/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let answered = raw::talk(larder.address, nonsense).await;
        assert!(!raw::heads(&answered).iter().any(|head| head.contains(" 200 ")), "{:?}", String::from_utf8_lossy(nonsense));
    }
    assert_eq!(larder.get(&manifest(REPOSITORY, "v1")).await.status, 200);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_door_too_and_its_file_permissions_are_who_may_use_it() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let setup = Setup::of(&acr);
    let path = setup.folder.path().join("larder.sock");
    let listen = larder::config::Listen::Unix(path.clone());
    let larder = setup
        .with(|settings| {
            settings.server.listen.push(listen);
            settings.access.open_to = Vec::new();
        })
        .start()
        .await;
    assert_eq!(larder.get("/v2/").await.error().0, 403, "no network is let in");
    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = format!("GET {} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n", manifest(REPOSITORY, "v1"));
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert!(raw::heads(&answer)[0].starts_with("HTTP/1.1 200") && answer.ends_with(&artifact.manifest));
}
