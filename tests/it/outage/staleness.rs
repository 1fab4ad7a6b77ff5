//! `max_stale` and `negative_ttl`.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Setup};
use bytes::Bytes;
use std::time::Duration;

const TAG: &str = "/v2/samples/config/manifests/v1";

fn push(acr: &Acr) {
    acr.push_artifact("samples/config", "v1", &[("config.json", "application/json", Bytes::from_static(b"{}"))]);
}

#[tokio::test]
async fn a_tag_stands_in_for_an_upstream_that_is_away_until_it_is_too_old() {
    let acr = Acr::start(Options::public()).await;
    push(&acr);
    let setup = Setup::of(&acr).upstream(|upstream| {
        upstream.freshness.tag_ttl = Duration::from_millis(100);
        upstream.freshness.max_stale = Some(Duration::from_secs(2));
    });
    let larder = setup.start().await;
    assert_eq!(larder.get(TAG).await.status, 200);
    acr.stop_listening();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stale = larder.get(TAG).await;
    assert_eq!(stale.status, 200);
    assert!(stale.cache_status().ends_with("detail=stale"), "{}", stale.cache_status());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for _ in 0..2 {
        let (status, code, message) = larder.get(TAG).await.error();
        assert_eq!((status, code.as_str()), (504, "UNKNOWN"), "{message}");
        assert!(message.contains("last confirmed") && message.contains("max_stale (2s)"), "{message}");
        assert!(message.contains("refused"), "the cause is named: {message}");
    }
    acr.resume_listening();
    crate::harness::until_async("the tag is served again", async || larder.get(TAG).await.status == 200).await;
}

#[tokio::test]
async fn not_found_is_believed_for_negative_ttl() {
    let acr = Acr::start(Options::public()).await;
    let larder =
        Setup::of(&acr).upstream(|upstream| upstream.freshness.negative_ttl = Duration::from_secs(1)).start().await;
    assert_eq!(larder.get(TAG).await.status, 404);
    push(&acr);
    let remembered = larder.get(TAG).await;
    assert_eq!(remembered.status, 404);
    assert!(remembered.cache_status().contains("negative"), "{}", remembered.cache_status());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(larder.get(TAG).await.status, 200);

    let larder = Setup::of(&acr).upstream(|upstream| upstream.freshness.negative_ttl = Duration::ZERO).start().await;
    let later = "/v2/samples/config/manifests/later";
    assert_eq!(larder.get(later).await.status, 404);
    acr.push_artifact("samples/config", "later", &[("a", "text/plain", Bytes::from_static(b"a"))]);
    assert_eq!(larder.get(later).await.status, 200);
}
