//! `kill -9` under load, again and again: what is left is verified, nothing that was stored is lost, and the next start serves.
//!
//! The program runs as it is shipped, its store on a real disk. Each round fills an empty store with new content through a slow
//! link; within a round every life of the process begins with what the last one left, now and then with a damaged index.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test: it fails by panicking, says its seed, and casts small numbers"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod audit;
mod load;

use audit::Audit;
use harness::simulator::{Options, Seen, samples};
use harness::{Acr, Dice, Process, Setup, UPSTREAM, sha256};
use load::{Item, Load, fetch};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const KILLS: usize = 200;
const CLIENTS: usize = 4;
/// What the link gives, in bytes per second: so that most moments lie inside a download.
const LINK: u64 = 12 << 20;
/// "At once", on a machine that is busy with other things as well.
const AT_ONCE: Duration = Duration::from_secs(10);

/// What the registry holds in this round.
struct Round {
    items: Arc<Vec<Item>>,
    /// Blobs and manifests by the hex digits of their digest.
    content: BTreeMap<String, bytes::Bytes>,
}

impl Round {
    fn new(number: usize, acr: &Acr, dice: &mut Dice) -> Self {
        let (mut items, mut content) = (Vec::new(), BTreeMap::new());
        let shared = samples::incompressible(dice.next(), 1 << 20);
        for app in 0..6 {
            let repository = format!("round-{number}/app-{app}");
            let own = samples::incompressible(dice.next(), (1 << 20) + dice.below(15 << 20) as usize);
            // One layer is in every repository: one file, many links.
            let layers =
                [("own", "application/octet-stream", own), ("shared", "application/octet-stream", shared.clone())];
            let artifact = acr.push_artifact(&repository, "v1", &layers);
            let mut add = |target: String, digest: &str, bytes: bytes::Bytes| {
                content.insert(digest["sha256:".len()..].to_owned(), bytes);
                items.push(Item { target, digest: digest.to_owned() });
            };
            add(format!("/v2/{repository}/manifests/v1"), &artifact.digest, artifact.manifest.clone());
            for (digest, (_, _, bytes)) in artifact.layers.iter().zip(&layers) {
                add(format!("/v2/{repository}/blobs/{digest}"), digest, bytes.clone());
            }
        }
        Self { items: Arc::new(items), content }
    }

    fn is_stored(&self, stored: &BTreeSet<String>) -> bool {
        self.content.keys().all(|hex| stored.contains(hex))
    }

    /// The items that are not stored yet.
    fn missing(&self, stored: &BTreeSet<String>) -> Vec<usize> {
        let is_missing = |item: &Item| !stored.contains(&item.digest["sha256:".len()..]);
        self.items.iter().enumerate().filter(|(_, item)| is_missing(item)).map(|(at, _)| at).collect()
    }

    /// Everything, with the right digest.
    async fn pull_all(&self, larder: &Process) {
        for item in self.items.iter() {
            let body =
                fetch(larder.address, &item.target).await.unwrap_or_else(|error| panic!("{}: {error}", item.target));
            assert_eq!(sha256(&body), item.digest, "{}", item.target);
        }
    }
}

fn setup(acr: &Acr) -> Setup {
    let setup = Setup::of(acr);
    let text = format!(
        "[store]\nsync = \"commit\"\nmin_free = \"0B\"\n[[upstream]]\nname = \"{UPSTREAM}\"\ndefault = true\nurl = \"{}\"\n\
         [upstream.freshness]\ntag_ttl = \"50ms\"\n",
        acr.url()
    );
    setup.file("larder.toml", &text);
    setup
}

async fn start(setup: &Setup) -> Process {
    let file = setup.folder.path().join("larder.toml");
    Process::start(setup, &["--config", file.to_str().unwrap(), "--max-size", "4GiB"]).await
}

/// Does to `index/` what a failing disk or a careless hand might.
fn damage_index(store: &Path, dice: &mut Dice) -> &'static str {
    let index = store.join("index");
    let mut files = Vec::new();
    audit::walk(&index, &mut |path| files.push(path.to_owned()));
    let how = dice.below(4);
    if files.is_empty() || how == 0 {
        let _ = fs::remove_dir_all(&index);
        return "removed";
    }
    for file in &files {
        let mut bytes = fs::read(file).unwrap();
        match how {
            1 => bytes.iter_mut().for_each(|byte| *byte = dice.next() as u8),
            2 => bytes.truncate(bytes.len() / 2),
            _ => bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x5a),
        }
        fs::write(file, bytes).unwrap();
    }
    ["", "filled with noise", "cut in half", "altered here and there"][how as usize]
}

/// Whether this body did not end before its process did: the download was under way.
fn was_cut(seen: &Seen, round: &Round) -> bool {
    let Some(content) = round.content.iter().find(|(hex, _)| seen.target.contains(*hex)).map(|(_, content)| content)
    else {
        return false;
    };
    let start = seen.range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    seen.is_blob_body() && seen.sent < content.len() as u64 - start.unwrap_or(0)
}

#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    during_a_fill: usize,
    resumed: usize,
    damaged: usize,
    rounds: usize,
    slowest_start: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_two_hundred_times_under_load_it_serves_only_what_is_right_and_loses_nothing() {
    let mut dice = Dice::new(Dice::seed("LARDER_CRASH_SEED"));
    let acr = Acr::start(Options::public()).await;
    acr.knobs().turn(|knobs| knobs.total_rate = Some(LINK));
    let mut tally = Tally::default();
    while tally.kills < KILLS {
        tally.rounds += 1;
        run_round(&acr, &mut dice, &mut tally).await;
    }
    println!("{tally:?}");
    assert!(tally.during_a_fill * 2 >= tally.kills, "too few of the kills hit a running download: {tally:?}");
    assert!(tally.resumed > 0 && tally.damaged > 0, "the test has not tried what it is for: {tally:?}");
}

/// Lives and deaths over one store, until it holds everything or has been killed often enough.
async fn run_round(acr: &Acr, dice: &mut Dice, tally: &mut Tally) {
    let round = Round::new(tally.rounds, acr, dice);
    let setup = setup(acr);
    let mut audit = Audit::new(setup.store());
    while tally.kills < KILLS && !round.is_stored(audit.stored()) {
        if dice.below(4) == 0 && setup.store().exists() {
            damage_index(setup.store(), dice);
            tally.damaged += 1;
        }
        acr.clear_log();
        let began = Instant::now();
        let mut larder = start(&setup).await;
        serves_what_it_has(&larder, &round, &audit).await;
        tally.slowest_start = tally.slowest_start.max(began.elapsed());
        let load = Load::begin(CLIENTS, larder.address, &round.items, &round.missing(audit.stored()), dice);
        sleep(Duration::from_millis(30 + dice.below(220))).await;
        larder.kill();
        tally.kills += 1;
        load.end().await;
        audit.check(&round.content);
        assert_eq!(acr.violations(), Vec::<String>::new());
        let log = acr.log();
        tally.during_a_fill += usize::from(log.iter().any(|seen| was_cut(seen, &round)));
        tally.resumed += log.iter().filter(|seen| seen.is_blob_body() && seen.range.is_some()).count();
        for seen in log.iter().filter(|seen| seen.is_blob_body()) {
            let known = audit.before().iter().find(|hex| seen.target.contains(*hex));
            assert_eq!(known, None, "what was stored is downloaded again: {seen:?}\n{}", larder.stderr());
        }
    }
    finish_round(acr, &setup, &round, dice).await;
}

/// A file that survived is served, whatever became of the links and the index.
async fn serves_what_it_has(larder: &Process, round: &Round, audit: &Audit) {
    let has = |item: &&Item| audit.stored().contains(&item.digest["sha256:".len()..]);
    let served = async {
        for item in round.items.iter().filter(has).take(2) {
            let body =
                fetch(larder.address, &item.target).await.unwrap_or_else(|error| panic!("{}: {error}", item.target));
            assert_eq!(sha256(&body), item.digest, "{}", item.target);
        }
    };
    tokio::time::timeout(AT_ONCE, served).await.unwrap_or_else(|_| panic!("not served in time: {}", larder.stderr()));
}

/// In the end everything is there, first with the registry's help, then without it and without an index.
async fn finish_round(acr: &Acr, setup: &Setup, round: &Round, dice: &mut Dice) {
    acr.knobs().turn(|knobs| knobs.total_rate = None);
    let mut larder = start(setup).await;
    round.pull_all(&larder).await;
    let stored = || round.content.keys().all(|hex| setup.store().join("blobs/sha256").join(hex).exists());
    harness::until("everything is stored", stored).await;
    larder.kill();
    Audit::new(setup.store()).check(&round.content);
    acr.stop_listening();
    let how = damage_index(setup.store(), dice);
    let mut larder = start(setup).await;
    println!("the link is down, the index {how}");
    round.pull_all(&larder).await;
    larder.kill();
    acr.resume_listening();
    acr.knobs().turn(|knobs| knobs.total_rate = Some(LINK));
}
