//! What an earlier process left of a download.

use super::harness::simulator::{Options, Seen, samples};
use super::harness::{Acr, Process, Setup, until};
use super::{MIB, Scene};
use bytes::Bytes;
use std::fs;

/// Larder over a store in which an earlier process has left `kept` of the blob.
async fn begun(content: &Bytes, kept: &[u8]) -> Scene {
    let acr = Acr::start(Options::public()).await;
    let digest = acr.push_blob("app", content.clone());
    let setup = Setup::of(&acr).start().await.stop().await;
    fs::write(setup.store().join("ingest/sha256").join(&digest["sha256:".len()..]), kept).unwrap();
    let larder = setup.start().await;
    let target = format!("/v2/app/blobs/{digest}");
    Scene { acr, larder, content: content.clone(), digest, target }
}

#[tokio::test]
async fn a_part_is_gone_on_with() {
    let content = samples::incompressible(1, 4 * MIB);
    let scene = begun(&content, &content[..3 * MIB + 7]).await;
    scene.serves().await;
    scene.stored().await;
    assert_eq!(scene.ranges(), [Some(format!("bytes={}-", 3 * MIB + 7))]);
}

/// The process ended between the last byte and the commit.
#[tokio::test]
async fn a_whole_one_is_not_downloaded_again() {
    let content = samples::incompressible(1, 4 * MIB);
    let scene = begun(&content, &content).await;
    scene.serves().await;
    scene.stored().await;
    assert_eq!(scene.bodies().len(), 0);
    assert_eq!(
        scene.acr.count(|seen| seen.method == "HEAD" && seen.status == 200),
        1,
        "upstream decides who may have it"
    );
    let refused = scene.larder.get(&scene.target.replace("/app/", "/other/")).await;
    assert_eq!(refused.status, 404);
}

/// As long as the content, and not the content: storage answers the request for the rest with 416.
#[tokio::test]
async fn a_wrong_one_of_the_right_length_is_fetched_anew() {
    let content = samples::incompressible(1, 4 * MIB);
    let scene = begun(&content, &samples::incompressible(2, 4 * MIB)).await;
    scene.serves().await;
    scene.stored().await;
    assert_eq!(scene.acr.downloads(), 1);
}

#[tokio::test]
async fn one_that_is_too_long_is_fetched_anew() {
    let content = samples::incompressible(1, MIB);
    let scene = begun(&content, &samples::incompressible(2, 4 * MIB)).await;
    scene.serves().await;
    scene.stored().await;
}

/// Damage in what was kept shows at the end; nobody gets it, and the next request begins from nothing.
#[tokio::test]
async fn a_damaged_part_is_never_served() {
    let content = samples::incompressible(1, 4 * MIB);
    let mut kept = content[..2 * MIB].to_vec();
    kept[5] ^= 1;
    let scene = begun(&content, &kept).await;
    let (_, _, end) = scene.larder.call("GET", &scene.target).open().await.hashed().await;
    assert!(end.is_err());
    scene.settled().await;
    scene.serves().await;
    assert_eq!(scene.bodies().last().unwrap().range, None);
}

/// Killed at nine tenths: at most 11 % of it is fetched again. `LARDER_TEST_RESUME_MIB=5120` is the same with 5 GiB.
#[tokio::test]
async fn a_download_killed_at_nine_tenths_fetches_a_tenth_again() {
    let mib = std::env::var("LARDER_TEST_RESUME_MIB").map_or(64, |mib| mib.parse().expect("a number of MiB"));
    let size = mib * MIB;
    let acr = Acr::start(Options::public()).await;
    let digest = acr.push_blob("app", samples::incompressible(3, size));
    let target = format!("/v2/app/blobs/{digest}");
    let setup = Setup::of(&acr);
    let limit = format!("{}MiB", mib + 1024);
    let arguments = ["--upstream", &acr.url(), "--login", "anonymous", "--max-size", &limit];
    acr.knobs().turn(|knobs| knobs.total_rate = Some((size / 4) as u64));
    let mut larder = Process::start(&setup, &arguments).await;
    let mut reader = larder.client().call("GET", &target).open().await;
    reader.at_least(1).await;
    let folder = setup.store().join("ingest/sha256");
    let written = || {
        let partial = fs::read_dir(&folder).ok().and_then(|mut entries| entries.next()?.ok()?.metadata().ok());
        partial.map_or(0, |metadata| metadata.len())
    };
    // However long all of it takes on a busy machine, it goes on.
    for tenth in 1..=9 {
        until(&format!("{tenth} tenths are written"), || written() >= size as u64 / 10 * tenth).await;
    }
    larder.kill();
    acr.knobs().turn(|knobs| knobs.total_rate = None);
    let before = acr.log().iter().filter(|seen| seen.is_blob_body()).count();

    let larder = Process::start(&setup, &arguments).await;
    let (count, got, end) = larder.client().call("GET", &target).open().await.hashed().await;
    assert_eq!((count, got, end), (size as u64, digest, Ok(())));
    let again: u64 = acr.log().iter().filter(|seen| seen.is_blob_body()).skip(before).map(|seen| seen.sent).sum();
    println!("{again} of {size} bytes were fetched again");
    assert!(again * 100 <= size as u64 * 11, "{again} of {size} bytes were fetched again");
}

/// Twenty readers that stand still cost no memory: measured at the real program.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn readers_that_stand_still_cost_no_memory() {
    let acr = Acr::start(Options::public()).await;
    let digest = acr.push_blob("app", samples::incompressible(1, 128 * MIB));
    let setup = Setup::of(&acr);
    let larder =
        Process::start(&setup, &["--upstream", &acr.url(), "--login", "anonymous", "--max-size", "1GiB"]).await;
    let anonymous = || {
        let status = fs::read_to_string(format!("/proc/{}/status", larder.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    };
    let before = anonymous();
    let mut still = Vec::new();
    for _ in 0..20 {
        let mut reader = larder.client().call("GET", &format!("/v2/app/blobs/{digest}")).open().await;
        reader.at_least(1).await;
        still.push(reader);
    }
    let blob = setup.store().join("blobs/sha256").join(&digest["sha256:".len()..]);
    let mut most = 0;
    until("the blob is stored", || {
        most = most.max(anonymous());
        blob.exists()
    })
    .await;
    assert_eq!(acr.count(Seen::is_blob_body), 1);
    let grown = most.saturating_sub(before);
    assert!(grown < 48 * MIB, "{} MiB for twenty readers that take nothing of 128 MiB", grown / MIB);
}
