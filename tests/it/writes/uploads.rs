//! Every way to upload a blob, and what a pull finds afterwards.

use crate::harness::{sha256, sha512, until};
use crate::writes::common::{MIB, Scene, content, created, ending, location, uploads};
use bytes::Bytes;
use tokio::sync::mpsc;

/// The blob is there, from the store, and upstream has not given it.
async fn comes_from_the_store(scene: &Scene, repository: &str, digest: &str, content: &Bytes) {
    let answer = scene.larder.get(&format!("/v2/{repository}/blobs/{digest}")).await;
    assert_eq!((answer.status.as_u16(), &answer.body), (200, content));
    assert_eq!(answer.cache_status(), "larder; hit");
    assert_eq!(scene.downloads(), 0, "upstream gave no byte of it");
    assert_eq!(scene.acr.blob(repository, digest).as_ref(), Some(content), "upstream has it");
}

#[tokio::test]
async fn one_session_and_one_put() {
    let scene = Scene::new().await;
    for size in [0, 1, 70_000, 5 * MIB] {
        let content = content(size as u64, size);
        let missing = scene.larder.head(&format!("/v2/samples/config/blobs/{}", sha256(&content))).await;
        assert_eq!(missing.status, 404, "as clients ask before");
        let digest = scene.push("samples/config", &content).await;
        let there = scene.larder.head(&format!("/v2/samples/config/blobs/{digest}")).await;
        assert_eq!((there.status.as_u16(), there.header("content-length")), (200, Some(size.to_string().as_str())));
        comes_from_the_store(&scene, "samples/config", &digest, &content).await;
        until("it is in its place", || scene.larder.stores(&digest)).await;
        comes_from_the_store(&scene, "samples/config", &digest, &content).await;
    }
    assert_eq!(uploads(&scene.larder, "stored").await, 4);
    let puts = scene.acr.log().iter().filter(|seen| seen.method == "PUT").count();
    assert_eq!(puts, 4);
}

#[tokio::test]
async fn a_patch_without_length_or_range_as_docker_and_podman_stream() {
    let scene = Scene::new().await;
    let content = content(1, 3 * MIB + 5);
    let digest = sha256(&content);
    let (sender, pieces) = mpsc::channel(1);
    let begun = scene.begin("samples/config").await;
    let patch = tokio::spawn(scene.call("PATCH", &begun).pieces(pieces).send());
    for piece in content.chunks(100_000) {
        sender.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
    }
    drop(sender);
    let patched = patch.await.unwrap();
    assert_eq!(patched.status, 202, "{patched:?}");
    assert_eq!(patched.header("range"), Some(format!("0-{}", content.len() - 1).as_str()));
    assert!(patched.header("docker-upload-uuid").is_some());
    assert_ne!(location(&patched), begun, "upstream's address moves");
    let seen = scene.acr.log();
    let upstream = seen.iter().find(|seen| seen.method == "PATCH").unwrap();
    assert_eq!(upstream.headers.get("transfer-encoding").unwrap(), "chunked", "as it came");
    let put = scene.call("PUT", &ending(&location(&patched), &digest)).line("Content-Length", "0").send().await;
    created(&put, "samples/config", &digest);
    comes_from_the_store(&scene, "samples/config", &digest, &content).await;
}

#[tokio::test]
async fn chunks_in_order_with_a_status_between_and_a_last_one_in_the_put() {
    let scene = Scene::new().await;
    let content = content(2, 2 * MIB + 77);
    let digest = sha256(&content);
    let mut at = scene.begin("samples/config").await;
    for (number, piece) in content.chunks(MIB).enumerate() {
        let (first, last) = (number * MIB, number * MIB + piece.len() - 1);
        let body = Bytes::copy_from_slice(piece);
        if piece.len() < MIB {
            let put = scene.call("PUT", &ending(&at, &digest)).line("Content-Range", &format!("{first}-{last}"));
            created(&put.body(body).send().await, "samples/config", &digest);
            break;
        }
        let patch = scene.call("PATCH", &at).line("Content-Range", &format!("{first}-{last}")).body(body).send().await;
        assert_eq!((patch.status.as_u16(), patch.header("range")), (202, Some(format!("0-{last}").as_str())));
        let status = scene.call("GET", &location(&patch)).send().await;
        assert_eq!((status.status.as_u16(), status.header("range")), (204, Some(format!("0-{last}").as_str())));
        at = location(&status);
    }
    comes_from_the_store(&scene, "samples/config", &digest, &content).await;
}

#[tokio::test]
async fn a_chunk_out_of_order_is_refused_as_upstream_refuses_it_and_spoils_nothing() {
    let scene = Scene::new().await;
    let content = content(3, 200_000);
    let digest = sha256(&content);
    let begun = scene.begin("samples/config").await;
    let first =
        scene.call("PATCH", &begun).line("Content-Range", "0-99999").body(content.slice(..100_000)).send().await;
    let at = location(&first);
    let wrong =
        scene.call("PATCH", &at).line("Content-Range", "150000-199999").body(content.slice(150_000..)).send().await;
    let (status, code, _) = wrong.error();
    assert_eq!((status, code.as_str()), (416, "BLOB_UPLOAD_RANGE_INVALID"));
    let now = scene.call("GET", &at).send().await;
    assert_eq!((now.status.as_u16(), now.header("range")), (204, Some("0-99999")));
    let rest = scene.call("PATCH", &location(&now)).line("Content-Range", "100000-199999");
    let rest = rest.body(content.slice(100_000..)).send().await;
    assert_eq!(rest.status, 202, "{rest:?}");
    created(&scene.call("PUT", &ending(&location(&rest), &digest)).send().await, "samples/config", &digest);
    comes_from_the_store(&scene, "samples/config", &digest, &content).await;
}

#[tokio::test]
async fn one_post_with_everything_and_where_upstream_wants_a_session_for_it() {
    let scene = Scene::new().await;
    for single_post in [true, false] {
        scene.acr.knobs().turn(|knobs| knobs.single_post = single_post);
        let content = content(10 + 10 * u64::from(single_post), 300_000);
        let digest = sha256(&content);
        let post = scene.call("POST", &format!("/v2/samples/config/blobs/uploads/?digest={digest}"));
        let posted = post.line("Content-Type", "application/octet-stream").body(content.clone()).send().await;
        if single_post {
            created(&posted, "samples/config", &digest);
        } else {
            assert_eq!(posted.status, 202, "{posted:?}");
            let put = scene.call("PUT", &ending(&location(&posted), &digest)).body(content.clone()).send().await;
            created(&put, "samples/config", &digest);
        }
        comes_from_the_store(&scene, "samples/config", &digest, &content).await;
    }
    assert_eq!(uploads(&scene.larder, "stored").await, 2);
}

#[tokio::test]
async fn sha512_in_one_put_and_in_parts() {
    let scene = Scene::new().await;
    for parts in [1, 3] {
        let content = content(100 * parts as u64, 400_001);
        let digest = sha512(&content);
        let begun = scene.call("POST", "/v2/samples/config/blobs/uploads/?digest-algorithm=sha512").send().await;
        assert_eq!(begun.status, 202);
        let mut at = location(&begun);
        for piece in content.chunks(content.len().div_ceil(parts)).take(parts - 1) {
            at = location(&scene.call("PATCH", &at).body(Bytes::copy_from_slice(piece)).send().await);
        }
        let last = content.chunks(content.len().div_ceil(parts)).last().unwrap();
        let put = scene.call("PUT", &ending(&at, &digest)).body(Bytes::copy_from_slice(last)).send().await;
        created(&put, "samples/config", &digest);
        comes_from_the_store(&scene, "samples/config", &digest, &content).await;
    }
    let seen = scene.acr.log();
    assert!(seen.iter().any(|seen| seen.target.contains("digest-algorithm=sha512")), "upstream hears of it");
}

#[tokio::test]
async fn a_cancelled_upload_is_over() {
    let scene = Scene::new().await;
    let begun = scene.begin("samples/config").await;
    let patch = scene.call("PATCH", &begun).body(content(9, 100_000)).send().await;
    let at = location(&patch);
    let cancelled = scene.call("DELETE", &at).send().await;
    assert_eq!(cancelled.status, 204, "{cancelled:?}");
    assert_eq!(scene.acr.open_uploads(), 0);
    assert_eq!(scene.call("GET", &at).send().await.status, 404);
    let temporary = scene.larder.setup.store().join("ingest/tmp");
    until("nothing is kept of it", || std::fs::read_dir(&temporary).unwrap().count() == 0).await;
}

#[tokio::test]
async fn answers_speak_as_the_request_did() {
    let scene = Scene::new().await;
    for (begin, prefix, query) in [
        ("/v2/acr/samples/config/blobs/uploads/", "/v2/acr/samples/config/blobs/", ""),
        ("/acr/v2/samples/config/blobs/uploads/", "/acr/v2/samples/config/blobs/", ""),
        (
            "/v2/samples/config/blobs/uploads/?ns=myacr.azurecr.io",
            "/v2/samples/config/blobs/",
            "?ns=myacr%2Eazurecr%2Eio",
        ),
    ] {
        let content = content(begin.len() as u64, 1000);
        let digest = sha256(&content);
        let begun = scene.call("POST", begin).send().await;
        let at = location(&begun);
        assert!(at.starts_with(&format!("{prefix}uploads/")) && at.ends_with(query), "{at}");
        let patched = location(&scene.call("PATCH", &at).body(content).send().await);
        assert!(patched.starts_with(&format!("{prefix}uploads/")) && patched.ends_with(query), "{patched}");
        let put = scene.call("PUT", &ending(&patched, &digest)).send().await;
        assert_eq!((put.status.as_u16(), put.header("location")), (201, Some(format!("{prefix}{digest}").as_str())));
    }
}

#[tokio::test]
async fn upstreams_wishes_about_chunks_reach_the_client() {
    let scene = Scene::new().await;
    scene.acr.knobs().turn(|knobs| knobs.chunk_min_length = Some(12345));
    let begun = scene.call("POST", "/v2/samples/config/blobs/uploads/").send().await;
    assert_eq!(begun.header("oci-chunk-min-length"), Some("12345"));
    assert!(begun.header("docker-upload-uuid").is_some());
}
