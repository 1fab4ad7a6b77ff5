//! `max_rate`: what an upstream may bring per second, shared between its downloads and never a brake on what is stored.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Setup, until_async};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::Instant;

const MIB: usize = 1 << 20;

/// Bytes that compress to nothing and differ from one `seed` to the next.
fn bytes(seed: u8, length: usize) -> Bytes {
    (0..=250).map(|at: u8| at.wrapping_mul(seed)).cycle().take(length).collect()
}

#[tokio::test]
async fn downloads_share_the_rate_and_stored_bytes_are_not_slowed() {
    let acr = Acr::start(Options::public()).await;
    let blobs = [1, 2].map(|seed| acr.push_blob("a/b", bytes(seed, 2 * MIB)));
    let larder = Setup::of(&acr).upstream(|upstream| upstream.max_rate = Some(2 * MIB as u64)).start().await;
    let begun = Instant::now();
    let [first, second] = blobs.clone().map(|digest| {
        let client = larder.client();
        tokio::spawn(async move {
            let answer = client.call("GET", &format!("/v2/a/b/blobs/{digest}")).send().await;
            assert_eq!(answer.body.len(), 2 * MIB);
            begun.elapsed()
        })
    });
    let ends = [first.await.unwrap(), second.await.unwrap()];
    for end in ends {
        // 4 MiB at 2 MiB/s, by halves: both end near the 2 s, neither after 1 s.
        assert!(end > Duration::from_millis(1600), "{ends:?}");
    }
    // Whoever has the last byte may ask before the blob is in its place.
    until_async("both are stored", async || larder.metric("larder_fills_inflight").await == 0).await;
    let again = Instant::now();
    for digest in &blobs {
        let answer = larder.get(&format!("/v2/a/b/blobs/{digest}")).await;
        assert!(answer.cache_status().starts_with("larder; hit"), "{}", answer.cache_status());
    }
    assert!(again.elapsed() < Duration::from_millis(1600), "stored bytes took {:?}", again.elapsed());
}

#[tokio::test]
async fn a_download_at_a_crawl_keeps_no_manifest_waiting() {
    let acr = Acr::start(Options::public()).await;
    let blob = acr.push_blob("a/b", bytes(3, MIB));
    acr.push_artifact("a/b", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
    // A turn of 64 KiB takes a minute.
    let larder = Setup::of(&acr).upstream(|upstream| upstream.max_rate = Some(1 << 10)).start().await;
    let mut crawling = larder.call("GET", &format!("/v2/a/b/blobs/{blob}")).open().await;
    crawling.at_least(1).await;
    let asked = Instant::now();
    assert_eq!(larder.get("/v2/a/b/manifests/v1").await.status, 200);
    assert!(asked.elapsed() < Duration::from_secs(10), "a manifest waited {:?}", asked.elapsed());
}
