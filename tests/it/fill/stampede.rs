use super::harness::simulator::{Options, Seen, samples};
use super::harness::{Acr, PATIENCE, Setup, until};
use super::{MIB, Scene};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::time::timeout;

const CLIENTS: usize = 100;

/// By three tags of each of four repositories, all at once; the first leaves, one stands still, the others just read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_clients_by_tags_and_repositories_are_one_download() {
    let acr = Acr::start(Options::public()).await;
    let layer = samples::incompressible(3, 32 * MIB);
    let mut targets = Vec::new();
    let mut digest = String::new();
    for repository in ["app", "team/app", "team/other", "mirror"] {
        for tag in ["v1", "v2", "latest"] {
            let own = bytes::Bytes::from(format!("{repository}:{tag}"));
            let files = [("layer", "application/octet-stream", layer.clone()), ("own", "text/plain", own)];
            digest = acr.push_artifact(repository, tag, &files).layers.swap_remove(0);
            targets.push((format!("/v2/{repository}/manifests/{tag}"), format!("/v2/{repository}/blobs/{digest}")));
        }
    }
    acr.knobs().turn(|knobs| knobs.total_rate = Some(8 * MIB as u64));
    let larder = Setup::of(&acr).start().await;
    let (begun, first_byte) = (Arc::new(Barrier::new(CLIENTS)), Arc::new(Barrier::new(CLIENTS)));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (manifest, blob) = targets[number % targets.len()].clone();
        let (client, digest, metrics) = (larder.client(), digest.clone(), Arc::clone(&larder.metrics));
        let (begun, first_byte) = (Arc::clone(&begun), Arc::clone(&first_byte));
        clients.spawn(async move {
            let accept = "application/vnd.oci.image.manifest.v1+json";
            assert_eq!(client.call("GET", &manifest).line("Accept", accept).send().await.status, 200);
            begun.wait().await;
            let mut answer = client.call("GET", &blob).open().await;
            assert_eq!(answer.status, 200);
            answer.at_least(1).await;
            // Everybody has begun, and the download still runs: nobody waited for its end.
            timeout(PATIENCE, first_byte.wait()).await.expect("everybody starts at once");
            assert_eq!(metrics.fills_inflight.with_label_values(&[] as &[&str]).get(), 1);
            match number {
                0 => return drop(answer),
                1 => until("the blob is stored", || metrics.fills.with_label_values(&["stored"]).get() > 0).await,
                _ => {}
            }
            let (count, found, end) = answer.hashed().await;
            assert_eq!((count, found, end), (32 * MIB as u64, digest, Ok(())));
        });
    }
    while let Some(result) = clients.join_next().await {
        if let Err(error) = result {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let large = |seen: &Seen| seen.is_blob_body() && seen.target.contains(&digest["sha256:".len()..]);
    assert_eq!(acr.count(large), 1, "GETs of the blob, ranged or not");
    until("the blob is stored", || larder.stores(&digest)).await;
    let result = |word: &str| {
        format!("larder_cache_requests_total{{kind=\"blob\",result=\"{word}\",upstream=\"myacr.azurecr.io\"}}")
    };
    assert_eq!(larder.metric(&result("miss")).await, 1);
    assert_eq!(larder.metric(&result("coalesced")).await, CLIENTS as u64 - 1);
}

#[tokio::test]
async fn a_fill_completes_when_its_only_reader_leaves() {
    let scene = Scene::of(4 * MIB).await;
    scene.rate(Some(4 * MIB));
    let mut reader = scene.larder.call("GET", &scene.target).open().await;
    reader.at_least(1).await;
    drop(reader);
    scene.stored().await;
    // From the moment at which the file is in its place: its link may still be on the way.
    scene.acr.stop_listening();
    assert_eq!(scene.serves().await.cache_status(), "larder; hit");
    assert_eq!(scene.bodies().len(), 1);
}

#[tokio::test]
async fn a_reader_that_stands_still_holds_up_neither_the_fill_nor_the_others() {
    let scene = Scene::of(24 * MIB).await;
    let mut still = scene.larder.call("GET", &scene.target).open().await;
    still.at_least(1).await;
    let other = scene.larder.call("GET", &scene.target).open().await;
    let (_, digest, end) = timeout(Duration::from_secs(10), other.hashed()).await.expect("the other one goes on");
    assert_eq!((digest, end), (scene.digest.clone(), Ok(())));
    scene.stored().await;
    let (_, digest, end) = still.hashed().await;
    assert_eq!((digest, end), (scene.digest.clone(), Ok(())), "and so does the one that stood still, afterwards");
    assert_eq!(scene.bodies().len(), 1);
}

#[tokio::test]
async fn whoever_comes_late_reads_from_the_first_byte() {
    let scene = Scene::of(4 * MIB).await;
    scene.rate(Some(2 * MIB));
    let mut first = scene.larder.call("GET", &scene.target).open().await;
    first.at_least(2 * MIB).await;
    let late = scene.serves();
    let (late, first) = tokio::join!(late, first.rest());
    assert!(first.unwrap().body == scene.content);
    assert!(late.cache_status().contains("collapsed"), "{}", late.cache_status());
    assert_eq!(scene.bodies().len(), 1);
}

/// HEAD is answered from a fill under way, and begins none.
#[tokio::test]
async fn head_downloads_nothing() {
    let scene = Scene::of(4 * MIB).await;
    let head = scene.larder.head(&scene.target).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some("4194304")));
    assert_eq!(scene.bodies().len(), 0);
}
