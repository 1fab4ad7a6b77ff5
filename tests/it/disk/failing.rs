//! A simulated disk under a whole larder.

use super::harness::{Larder, Setup, until, until_async};
use super::{MIB, Registry};
use larder::store::disk::sim::{Fault, SimDisk};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an operation may take on the disks here.
const PATIENCE: Duration = Duration::from_millis(500);
/// "At once", on a machine that is busy with other things as well.
const AT_ONCE: Duration = Duration::from_secs(3);

async fn start(registry: &Registry, disk: &SimDisk) -> Larder {
    disk.set_patience(PATIENCE);
    let setup = Setup::of(&registry.acr).tag_ttl(Duration::from_secs(3600));
    let larder = Larder::start_on(setup, Arc::new(disk.clone())).await;
    registry.warm_up(larder.client()).await;
    until("the layer is stored", || !disk.files_below(Path::new("pieces")).is_empty()).await;
    larder
}

fn stores(disk: &SimDisk, digest: &str) -> bool {
    let path = Path::new("blobs/sha256").join(&digest["sha256:".len()..]);
    disk.files_below(Path::new("blobs")).iter().any(|(other, _)| *other == path)
}

async fn says(larder: &Larder, kind: &str) {
    until_async("the trouble is shown", async || larder.metric("larder_store_writable").await == 0).await;
    assert!(larder.metric(&format!("larder_store_failures_total{{reason=\"{kind}\"}}")).await > 0);
    let ready = larder.admin_get("/readyz").await;
    assert_eq!(ready.status, 200, "a failing disk fails no pull, so nobody is to be sent elsewhere");
    assert!(ready.text().starts_with(&format!("ready, but nothing is stored ({kind}): ")), "{}", ready.text());
}

async fn works_again(registry: &Registry, larder: &Larder, disk: &SimDisk) {
    until_async("the trouble is over", async || larder.metric("larder_store_writable").await == 1).await;
    assert_eq!(larder.admin_get("/readyz").await.text(), "ready\n");
    until_async("what is pulled is stored again", async || {
        registry.passes_through(larder.client()).await;
        stores(disk, registry.cold_layer())
    })
    .await;
    // Manifests and tags, too.
    registry.acr.stop_listening();
    registry.passes_through(larder.client()).await;
    registry.acr.resume_listening();
}

/// The disk begins to fail in the middle of a download, fails for a while, and works again.
async fn pulls_go_on(fault: Fault, kind: &str) {
    let registry = Registry::start().await;
    let disk = SimDisk::new();
    let larder = start(&registry, &disk).await;
    registry.in_the_middle(larder.client(), async || disk.set_fault(Some(fault))).await;
    says(&larder, kind).await;
    registry.serves_what_it_has(larder.client()).await;
    for _ in 0..3 {
        let slowest = registry.passes_through(larder.client()).await;
        assert!(slowest < AT_ONCE, "{slowest:?} to the head of an answer");
    }
    assert!(!stores(&disk, registry.cold_layer()));
    disk.set_fault(None);
    works_again(&registry, &larder, &disk).await;
}

#[tokio::test]
async fn a_full_disk_fails_no_pull() {
    pulls_go_on(Fault::Full, "full").await;
}

#[tokio::test]
async fn a_used_up_quota_fails_no_pull() {
    pulls_go_on(Fault::Quota, "full").await;
}

/// A quota that `max_size` does not know, and that free space does not show: what was not used for long makes room all the same.
#[tokio::test]
async fn a_quota_below_the_limit_keeps_nothing_out_for_ever() {
    let registry = Registry::start().await;
    let disk = SimDisk::new();
    disk.set_quota(7 * MIB as u64);
    let larder = start(&registry, &disk).await;
    // With a part of this the quota is used up: it is the first to go, then the warm layer.
    let answer = larder.get(&registry.large_target).await;
    assert!(answer.body == registry.large);
    for seed in 0..8 {
        let content = super::samples::incompressible(200 + seed, MIB + MIB / 2);
        let digest = registry.acr.push_blob("app", content.clone());
        assert!(larder.get(&format!("/v2/app/blobs/{digest}")).await.body == content);
        until("it is stored", || stores(&disk, &digest)).await;
    }
    registry.passes_through(larder.client()).await;
    until("so are a manifest and its layer", || stores(&disk, registry.cold_layer())).await;
    assert_eq!(larder.metric("larder_store_writable").await, 1);
    registry.acr.stop_listening();
    registry.passes_through(larder.client()).await;
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_fails_no_pull() {
    pulls_go_on(Fault::ReadOnly, "read_only").await;
}

#[tokio::test]
async fn a_disk_that_is_unmounted_fails_no_pull() {
    pulls_go_on(Fault::Unmounted, "gone").await;
}

/// A disk of which nothing can be read either: only what is in memory is there, the rest comes from upstream.
#[tokio::test]
async fn a_broken_disk_fails_no_new_pull() {
    let registry = Registry::start().await;
    let disk = SimDisk::new();
    let larder = start(&registry, &disk).await;
    disk.set_fault(Some(Fault::Broken));
    registry.passes_through(larder.client()).await;
    says(&larder, "broken").await;
    disk.set_fault(None);
    works_again(&registry, &larder, &disk).await;
}

/// The disk stops answering in the middle of a download: its readers go on with downloads of their own, what is there is served,
/// nobody waits for the disk more than once, and the end does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_does_not_answer_fails_no_pull() {
    let registry = Registry::start().await;
    let disk = SimDisk::new();
    let larder = start(&registry, &disk).await;
    registry.in_the_middle(larder.client(), async || disk.set_stuck(true)).await;
    says(&larder, "hung").await;
    let slowest = registry.serves_what_it_has(larder.client()).await;
    assert!(slowest < AT_ONCE, "{slowest:?} to the head of a hit");
    for _ in 0..5 {
        let slowest = registry.passes_through(larder.client()).await;
        assert!(slowest < AT_ONCE, "{slowest:?} to the head of an answer");
    }
    assert_eq!(larder.metric("larder_fills_inflight").await, 0, "no download waits for the disk");
    disk.set_stuck(false);
    works_again(&registry, &larder, &disk).await;
    let answer = larder.get(&registry.large_target).await;
    assert!(answer.body == registry.large);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_not_held_up_by_a_disk_that_does_not_answer() {
    let registry = Registry::start().await;
    let disk = SimDisk::new();
    let larder = start(&registry, &disk).await;
    disk.set_stuck(true);
    registry.passes_through(larder.client()).await;
    says(&larder, "hung").await;
    let began = Instant::now();
    larder.stop().await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    disk.set_stuck(false);
}

/// The trouble begins under many downloads at once; none of their readers is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_downloads_survive_their_disk() {
    for stuck in [true, false] {
        let registry = Registry::start().await;
        let disk = SimDisk::new();
        let larder = start(&registry, &disk).await;
        registry.acr.knobs().turn(|knobs| knobs.total_rate = Some(16 * MIB as u64));
        let mut readers = tokio::task::JoinSet::new();
        for seed in 0..12 {
            let content = super::samples::incompressible(100 + seed, MIB);
            let digest = registry.acr.push_blob("app", content);
            let call = larder.call("GET", &format!("/v2/app/blobs/{digest}"));
            readers.spawn(async move { (digest, call.open().await.hashed().await) });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        if stuck {
            disk.set_stuck(true);
        } else {
            disk.set_fault(Some(Fault::Full));
        }
        while let Some(reader) = readers.join_next().await {
            let (digest, (count, got, end)) = reader.unwrap();
            assert_eq!((got, end), (digest, Ok(())), "stuck: {stuck}, after {count} bytes");
        }
        disk.set_stuck(false);
    }
}
