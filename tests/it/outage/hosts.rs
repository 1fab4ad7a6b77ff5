//! Each host fails by itself, recovers by itself, and a throttled one is left alone.

use crate::harness::simulator::{FaultAnswer, Options, PathClass};
use crate::harness::{Acr, Setup, UPSTREAM, until_async};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

const AT_ONCE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn storage_that_hangs_costs_three_waits_and_keeps_nobody_from_manifests() {
    let acr = Acr::start(Options::public()).await;
    let stored = acr.push_blob("a/b", Bytes::from_static(b"stored"));
    let wanted: Vec<String> = (0..8).map(|number| acr.push_blob("a/b", format!("blob {number}"))).collect();
    acr.push_artifact("a/b", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
    let setup = Setup::of(&acr).tag_ttl(Duration::ZERO);
    let larder = setup.upstream(|upstream| upstream.first_byte_timeout = Duration::from_millis(400)).start().await;
    let blob = |digest: &str| format!("/v2/a/b/blobs/{digest}");
    assert_eq!(larder.get(&blob(&stored)).await.status, 200);
    acr.knobs().turn(|knobs| knobs.storage.hang = true);
    for digest in &wanted[..3] {
        let (status, _, message) = larder.get(&blob(digest)).await.error();
        assert_eq!(status, 504, "{message}");
    }
    let begun = Instant::now();
    for digest in &wanted[3..] {
        let (status, _, message) = larder.get(&blob(digest)).await.error();
        assert_eq!(status, 504, "{message}");
        assert!(message.contains("has not answered since") && message.contains(&acr.storage_host()), "{message}");
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // The registry itself is well, and what is stored needs nobody.
    let manifest = larder.get("/v2/a/b/manifests/v1").await;
    assert_eq!((manifest.status.as_u16(), manifest.header("warning")), (200, None));
    assert!(larder.get(&blob(&stored)).await.cache_status().starts_with("larder; hit"));
    acr.knobs().reset();
    until_async("blobs come again", async || larder.get(&blob(&wanted[4])).await.status == 200).await;
}

#[tokio::test]
async fn reads_that_are_held_back_are_not_sent_and_go_on_by_themselves() {
    let acr = Acr::start(Options::public()).await;
    acr.push_artifact("a/b", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
    acr.push_artifact("a/b", "v2", &[("y", "text/plain", Bytes::from_static(b"y"))]);
    let larder = Setup::of(&acr).tag_ttl(Duration::ZERO).start().await;
    assert_eq!(larder.get("/v2/a/b/manifests/v1").await.status, 200);
    acr.clear_log();
    acr.knobs().fail(PathClass::Manifests, FaultAnswer::throttled(3));
    for _ in 0..20 {
        let stale = larder.get("/v2/a/b/manifests/v1").await;
        assert_eq!(stale.status, 200);
        assert!(stale.cache_status().ends_with("detail=stale"), "{}", stale.cache_status());
        assert!(stale.header("warning").unwrap().contains("throttles"), "{:?}", stale.header("warning"));
        let refused = larder.get("/v2/a/b/manifests/v2").await;
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3).contains(&after), "{after}");
        assert_eq!(refused.error().1, "TOOMANYREQUESTS");
    }
    assert_eq!(acr.count(|seen| seen.path().contains("/manifests/")), 1, "{:?}", acr.log());
    assert_eq!(larder.metric(&format!("larder_upstream_throttled_total{{upstream=\"{UPSTREAM}\"}}")).await, 1);
    let withheld = format!("larder_upstream_withheld_total{{reason=\"throttled\",upstream=\"{UPSTREAM}\"}}");
    assert!(larder.metric(&withheld).await >= 20);
    until_async("reads go on", async || larder.get("/v2/a/b/manifests/v2").await.status == 200).await;
}

#[tokio::test]
async fn a_download_that_is_cut_while_its_registry_throttles_waits_and_ends_well() {
    use crate::harness::simulator::{Damage, DamageKind, Fault};
    let acr = Acr::start(Options::public()).await;
    let content = Bytes::from(vec![42; 1 << 20]);
    let digest = acr.push_blob("a/b", content.clone());
    let patient = Setup::of(&acr).upstream(|upstream| upstream.resume_timeout = Duration::from_secs(30));
    let larder = patient.start().await;
    acr.knobs().damage(Damage::once(DamageKind::Cut, 300_000));
    acr.knobs().turn(|knobs| knobs.connection_rate = Some(512 << 10));
    let answer = larder.call("GET", &format!("/v2/a/b/blobs/{digest}")).open().await;
    acr.knobs().turn(|knobs| knobs.faults.push(Fault::times(PathClass::Blobs, FaultAnswer::throttled(5), 1)));
    assert_eq!(answer.rest().await.unwrap().body, content);
    assert_eq!(larder.metric(&format!("larder_upstream_throttled_total{{upstream=\"{UPSTREAM}\"}}")).await, 1);
    assert!(larder.get(&format!("/v2/a/b/blobs/{digest}")).await.cache_status().starts_with("larder; hit"));
}
