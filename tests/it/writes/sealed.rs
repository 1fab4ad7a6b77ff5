//! The session that a client holds: good for larder's own, wherever they run, and for nobody else.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Larder, Setup, sha256};
use crate::writes::common::{Scene, begin, content, created, ending, location, push, pushing, pushing_in, uploads};

/// One chunk; the address of the next.
async fn patch(larder: &Larder, at: &str, chunk: bytes::Bytes) -> String {
    let patched = larder.call("PATCH", at).body(chunk).send().await;
    assert_eq!(patched.status, 202, "{patched:?}");
    location(&patched)
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_no_upload() {
    let Scene { acr, larder } = Scene::new().await;
    let content = content(21, 300_000);
    let digest = sha256(&content);
    let begun = begin(&larder, "samples/config").await;
    let larder = larder.stop().await.start().await;
    let at = patch(&larder, &begun, content.slice(..100_000)).await;
    let larder = larder.stop().await.start().await;
    let at = patch(&larder, &at, content.slice(100_000..200_000)).await;
    let status = larder.call("GET", &at).send().await;
    assert_eq!((status.status.as_u16(), status.header("range")), (204, Some("0-199999")));
    let put = larder.call("PUT", &ending(&location(&status), &digest)).body(content.slice(200_000..)).send().await;
    created(&put, "samples/config", &digest);
    assert_eq!(acr.blob("samples/config", &digest), Some(content.clone()));
    assert_eq!(uploads(&larder, "unkept").await, 1, "the first part was with the process before");
    assert!(!larder.stores(&digest));
    let pulled = larder.get(&format!("/v2/samples/config/blobs/{digest}")).await;
    assert_eq!((pulled.status.as_u16(), pulled.body), (200, content));
    // One that had not come further than its beginning is kept by whoever gets all of it.
    let begun = begin(&larder, "samples/config").await;
    let larder = larder.stop().await.start().await;
    let whole = crate::writes::common::content(22, 50_000);
    let put = larder.call("PUT", &ending(&begun, &sha256(&whole))).body(whole.clone()).send().await;
    created(&put, "samples/config", &sha256(&whole));
    assert_eq!(uploads(&larder, "stored").await, 1);
}

#[tokio::test]
async fn a_second_larder_with_the_same_key_goes_on() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let first = pushing(&acr).start().await;
    begin(&first, "samples/config").await;
    let other = pushing(&acr);
    std::fs::create_dir_all(other.store()).unwrap();
    std::fs::copy(first.setup.store().join("upload-key"), other.store().join("upload-key")).unwrap();
    let second = other.start().await;
    let content = content(23, 400_000);
    let digest = sha256(&content);
    let mut at = begin(&first, "samples/config").await;
    for (number, larder) in [&first, &second, &first].into_iter().enumerate() {
        at = patch(larder, &at, content.slice(number * 100_000..(number + 1) * 100_000)).await;
    }
    let put = second.call("PUT", &ending(&at, &digest)).body(content.slice(300_000..)).send().await;
    created(&put, "samples/config", &digest);
    assert_eq!(acr.blob("samples/config", &digest), Some(content.clone()));
    for larder in [&first, &second] {
        assert!(!larder.stores(&digest), "neither has all of it");
        let pulled = larder.get(&format!("/v2/samples/config/blobs/{digest}")).await;
        assert_eq!((pulled.status.as_u16(), &pulled.body), (200, &content));
    }
}

#[tokio::test]
async fn a_session_is_good_for_its_own_repository_and_upstream_and_shows_nothing() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let larder = pushing_in(Setup::of(&acr).and(&acr)).start().await;
    let at = begin(&larder, "samples/config").await;
    let session = at.rsplit('/').next().unwrap();
    assert!(!at.contains("_state") && !at.contains(&acr.host()), "{at}");
    let other = if session.ends_with('A') { 'Q' } else { 'A' };
    let elsewhere = [
        format!("/v2/samples/other/blobs/uploads/{session}"),
        format!("/v2/other/samples/config/blobs/uploads/{session}"),
        format!("/v2/samples/config/blobs/uploads/{}{other}", &session[..session.len() - 1]),
        "/v2/samples/config/blobs/uploads/4ac5f7f0-6f3a-4ba5-8f4d-6d2b1f7f6e21".to_owned(),
        format!("/v2/samples/config/blobs/uploads/{}", "x".repeat(5000)),
    ];
    let before = acr.log().len();
    let digest = sha256(b"x");
    for target in elsewhere {
        for (method, target) in
            [("PATCH", target.clone()), ("PUT", ending(&target, &digest)), ("GET", target.clone()), ("DELETE", target)]
        {
            let (status, code, message) = larder.call(method, &target).send().await.error();
            assert_eq!((status, code.as_str()), (404, "BLOB_UPLOAD_UNKNOWN"), "{method} {target:.100}: {message}");
        }
    }
    assert_eq!(acr.log().len(), before, "upstream hears nothing of it");
    // It is good all the same.
    let put = larder.call("PUT", &ending(&at, &digest)).body("x").send().await;
    created(&put, "samples/config", &digest);
}

#[tokio::test]
async fn another_larders_session_is_unknown() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let (first, second) = (pushing(&acr).start().await, pushing(&acr).start().await);
    let at = begin(&first, "samples/config").await;
    let (status, code, _) = second.call("GET", &at).send().await.error();
    assert_eq!((status, code.as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
}

#[tokio::test]
async fn a_store_without_a_usable_key_keeps_nobody_from_pushing() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let setup = pushing(&acr);
    std::fs::create_dir_all(setup.store()).unwrap();
    std::fs::write(setup.store().join("upload-key"), "no key\n").unwrap();
    let larder = setup.start().await;
    push(&larder, "samples/config", &content(24, 1000)).await;
}
