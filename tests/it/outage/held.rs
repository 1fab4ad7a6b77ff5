//! What an upstream that is away or sealed has given is not removed to make room for others.

use crate::harness::simulator::{Artifact, Options, samples};
use crate::harness::{Acr, Larder, OTHER, OTHER_ALIAS, Setup, UPSTREAM, until_async};
use std::time::Duration;

const MIB: usize = 1 << 20;
const HELD: &str = "larder_store_held_bytes";

/// Images of one layer of 1 MiB each, `from..to`.
fn push(acr: &Acr, images: std::ops::Range<u64>) -> Vec<Artifact> {
    images
        .map(|number| {
            let layer = samples::incompressible(2 * number, MIB);
            acr.push_artifact("app", &format!("v{number}"), &[("layer", "application/octet-stream", layer)])
        })
        .collect()
}

/// Pulls each image: its manifest, then its layer. Gives back how the layers' answers came about.
async fn pull(larder: &Larder, upstream: &str, images: &[Artifact]) -> Vec<String> {
    let mut statuses = Vec::new();
    for image in images {
        let manifest = larder.get(&format!("/v2/{upstream}/app/manifests/{}", image.digest)).await;
        assert_eq!(manifest.status, 200, "{manifest:?}");
        let layer = larder.get(&format!("/v2/{upstream}/app/blobs/{}", image.layers[0])).await;
        assert_eq!((layer.status.as_u16(), layer.body.len()), (200, MIB), "{layer:?}");
        statuses.push(layer.cache_status().to_owned());
        let digest = image.layers[0].clone();
        if !layer.cache_status().contains("bypass") {
            until_async("the layer is stored", async || larder.stores(&digest)).await;
        }
    }
    statuses
}

fn stored(larder: &Larder, images: &[Artifact]) -> usize {
    images.iter().filter(|image| larder.stores(&image.layers[0])).count()
}

async fn two(change: impl FnOnce(Setup) -> Setup) -> (Acr, Acr, Setup) {
    let (a, b) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let setup = Setup::of(&a).and(&b).with(|settings| settings.store.max_size = Some(10 * MIB as u64));
    let setup = change(setup);
    (a, b, setup)
}

#[tokio::test]
async fn what_an_upstream_has_given_stays_while_it_is_away_and_goes_when_it_is_back() {
    let (a, b, setup) = two(|setup| setup).await;
    let (first, others) = (push(&a, 0..5), push(&b, 100..120));
    let larder = setup.start().await;
    pull(&larder, "acr", &first).await;
    // Nobody has asked it since: that it is away is found out before anything goes.
    a.stop_listening();
    tokio::time::sleep(Duration::from_millis(300)).await;
    pull(&larder, OTHER_ALIAS, &others).await;
    assert_eq!(stored(&larder, &first), 5, "their upstream cannot give them again now");
    assert!(larder.cache.condition(&larder.setup.settings.upstreams[0].name).away);
    assert!(!larder.cache.condition(&larder.setup.settings.upstreams[1].name).away);
    for image in &first {
        let layer = larder.get(&format!("/v2/acr/app/blobs/{}", image.layers[0])).await;
        assert!(layer.cache_status().starts_with("larder; hit"), "{}", layer.cache_status());
    }
    assert!(stored(&larder, &others) >= 2, "the others take turns");
    until_async("the metric says so", async || larder.metric(HELD).await >= 5 * MIB as u64).await;

    a.resume_listening();
    until_async("it is known to be back", async || {
        let _ = larder.get("/v2/acr/app/manifests/v0").await;
        !larder.cache.condition(&larder.setup.settings.upstreams[0].name).away
    })
    .await;
    pull(&larder, OTHER_ALIAS, &push(&b, 200..212)).await;
    assert!(stored(&larder, &first) < 5, "it can give them again");
    until_async("nothing is held any more", async || larder.metric(HELD).await == 0).await;
}

#[tokio::test]
async fn what_a_sealed_upstream_has_given_survives_a_restart_and_a_flood_and_nobodys_pull_fails() {
    let (a, b, setup) = two(|setup| setup).await;
    let (first, others) = (push(&a, 0..7), push(&b, 100..106));
    let larder = setup.start().await;
    pull(&larder, "acr", &first).await;
    let setup = larder.stop().await.upstream(|upstream| upstream.sealed = true);
    let larder = setup.with(|settings| settings.store.max_size = Some(8 * MIB as u64)).start().await;
    let statuses = pull(&larder, OTHER_ALIAS, &others).await;
    assert!(statuses.iter().all(|status| status.contains("bypass")), "{statuses:?}");
    assert_eq!(stored(&larder, &first), 7);
    for image in &first {
        let layer = larder.get(&format!("/v2/acr/app/blobs/{}", image.layers[0])).await;
        assert!(layer.cache_status().starts_with("larder; hit"), "{}", layer.cache_status());
    }
}

#[tokio::test]
async fn what_another_upstream_that_is_there_has_too_may_go() {
    let (a, b, setup) = two(|setup| setup).await;
    let (shared, others) = (push(&a, 0..5), push(&b, 100..115));
    push(&b, 0..5);
    let larder = setup.start().await;
    pull(&larder, "acr", &shared).await;
    pull(&larder, OTHER_ALIAS, &shared).await;
    a.stop_listening();
    // Nothing goes before the links are read, for a moment.
    until_async(&format!("{OTHER} can give them, though {UPSTREAM} cannot"), async || {
        pull(&larder, OTHER_ALIAS, &others).await;
        stored(&larder, &shared) < 5
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_hangs_is_found_out_and_delays_one_download_at_most() {
    let (a, b, setup) = two(|setup| setup).await;
    let (first, others) = (push(&a, 0..5), push(&b, 100..115));
    let larder = setup.start().await;
    pull(&larder, "acr", &first).await;
    a.knobs().turn(|knobs| knobs.login.hang = true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    pull(&larder, OTHER_ALIAS, &others).await;
    assert_eq!(stored(&larder, &first), 5);
    a.knobs().reset();
}
