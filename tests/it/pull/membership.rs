//! Who may answer: bytes that came through one repository do not answer for another that upstream would refuse.

use crate::harness::simulator::{Options, User};
use crate::harness::{Acr, OTHER_ALIAS, Setup, until};
use crate::pull::{REPOSITORY, blob, large, manifest, seed};
use bytes::Bytes;

/// A scope-map token that may read two repositories of three.
async fn scoped() -> (Acr, Setup) {
    let read: &[&str] = &["content/read", "metadata/read"];
    let user = User::scope_map("token1", "pw", &[("team/open", read), ("team/also", read)]);
    let acr = Acr::start(Options::default().user(user)).await;
    let setup = Setup::of(&acr).password("token1", "pw");
    (acr, setup)
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_09_a_stored_blob_answers_for_a_repository_only_after_upstream_has_said_that_it_is_there() {
    let (acr, setup) = scoped().await;
    let content = Bytes::from_static(b"seen through one door");
    let digest = acr.push_blob("team/open", content.clone());
    acr.push_blob("team/secret", content.clone());
    acr.push_blob("team/also", "something else");
    let larder = setup.start().await;
    assert_eq!(larder.get(&blob("team/open", &digest)).await.body, content);
    until("the blob is stored", || larder.stores(&digest)).await;

    for method in ["HEAD", "GET"] {
        // Upstream has it there and would refuse it.
        let refused = larder.call(method, &blob("team/secret", &digest)).send().await;
        assert_eq!(refused.status, 403, "{method}");
        // Upstream would let us in, and has no such blob there.
        let absent = larder.call(method, &blob("team/also", &digest)).send().await;
        assert_eq!(absent.status, 404, "{method}");
    }
    assert_eq!(larder.get(&blob("team/secret", &digest)).await.error().1, "DENIED");
    assert_eq!(larder.get(&blob("team/also", &digest)).await.error().1, "BLOB_UNKNOWN");
    assert_eq!(acr.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_head_is_all_that_a_blob_known_elsewhere_costs() {
    let acr = Acr::start(Options::public()).await;
    let content = Bytes::from_static(b"shared by two");
    let digest = acr.push_blob("one", content.clone());
    acr.push_blob("two", content.clone());
    let larder = Setup::of(&acr).start().await;
    assert_eq!(larder.get(&blob("one", &digest)).await.body, content);
    until("the blob is stored", || larder.stores(&digest)).await;
    acr.clear_log();
    let first = larder.get(&blob("two", &digest)).await;
    assert_eq!((first.body.clone(), first.cache_status()), (content.clone(), "larder; fwd=stale; detail=revalidated"));
    let asked: Vec<_> = acr.log().into_iter().filter(|seen| seen.path().contains("/blobs/")).collect();
    assert!(asked.iter().all(|seen| seen.method == "HEAD"), "{asked:?}");
    let heads = asked.len();
    let second = larder.get(&blob("two", &digest)).await;
    assert_eq!((second.body.clone(), second.cache_status()), (content, "larder; hit"));
    assert_eq!(acr.count(|seen| seen.path().contains("/blobs/")), heads, "its link now vouches for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_link_and_with_upstream_away_the_answer_is_504_and_never_404() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    acr.push_blob("other", content.clone());
    let larder = Setup::of(&acr).start().await;
    larder.get(&manifest(REPOSITORY, "v1")).await;
    larder.get(&blob(REPOSITORY, &artifact.layers[0])).await;
    until("the blob is stored", || larder.stores(&artifact.layers[0])).await;
    acr.stop_listening();
    let larder = larder.stop().await.start().await;
    for method in ["GET", "HEAD"] {
        for target in [blob("other", &artifact.layers[0]), manifest("other", &artifact.digest), manifest("other", "v1")]
        {
            let answer = larder.call(method, &target).send().await;
            assert_eq!(answer.status, 504, "{method} {target}");
        }
        for target in [blob(REPOSITORY, &artifact.layers[0]), manifest(REPOSITORY, &artifact.digest)] {
            assert_eq!(larder.call(method, &target).send().await.status, 200, "{method} {target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_answered_only_through_a_link_of_its_repository() {
    let (acr, setup) = scoped().await;
    let document = "{\"schemaVersion\":2,\"layers\":[]}";
    let kind = crate::harness::simulator::OCI_MANIFEST;
    let digest = acr.push_manifest("team/open", Some("v1"), kind, document);
    acr.push_manifest("team/secret", Some("v1"), kind, document);
    acr.push_blob("team/also", "something else");
    let larder = setup.start().await;
    assert_eq!(larder.get(&manifest("team/open", "v1")).await.status, 200);
    for reference in [&*digest, "v1"] {
        assert_eq!(larder.get(&manifest("team/secret", reference)).await.error().1, "DENIED", "{reference}");
        assert_eq!(larder.get(&manifest("team/also", reference)).await.error().1, "MANIFEST_UNKNOWN", "{reference}");
        assert_eq!(larder.head(&manifest("team/secret", reference)).await.status, 403, "{reference}");
    }
    assert_eq!(larder.get("/v2/team/secret/tags/list").await.error().1, "DENIED");
    assert_eq!(larder.get(&format!("/v2/team/secret/referrers/{digest}")).await.error().1, "DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_upstream_is_another_door() {
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).and(&other).start().await;
    larder.get(&manifest(REPOSITORY, "v1")).await;
    larder.get(&blob(REPOSITORY, &artifact.layers[0])).await;
    until("the blob is stored", || larder.stores(&artifact.layers[0])).await;
    let elsewhere = format!("{OTHER_ALIAS}/{REPOSITORY}");
    assert_eq!(larder.get(&manifest(&elsewhere, &artifact.digest)).await.status, 404);
    assert_eq!(larder.get(&blob(&elsewhere, &artifact.layers[0])).await.status, 404);
    assert!(other.count(|seen| seen.path().contains("/blobs/")) > 0, "the other one was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_under_way_is_joined_only_by_those_whom_upstream_lets_in() {
    let (acr, setup) = scoped().await;
    let (digest, content) = large(&acr, "team/open", 6 << 20);
    acr.push_blob("team/secret", content.clone());
    acr.push_blob("team/also", content.clone());
    acr.knobs().turn(|k| k.total_rate = Some(3 << 20));
    let larder = setup.start().await;
    let mut first = larder.call("GET", &blob("team/open", &digest)).open().await;
    first.at_least(1).await;
    let refused = larder.get(&blob("team/secret", &digest)).await;
    assert_eq!(refused.error().1, "DENIED");
    let (rest, also) = tokio::join!(first.rest(), larder.call("GET", &blob("team/also", &digest)).send());
    rest.unwrap();
    assert!(also.body == content);
    assert_eq!(acr.downloads(), 1);
}
