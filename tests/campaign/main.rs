//! The fault campaign: larder's own program between clients and registries that fail in every way that can be thought of, while it
//! is killed, its files are damaged and its disk is full. What must hold all along:
//!
//! * no wrong byte: every complete answer has its digest, every broken one is the beginning of the content;
//! * no verified blob is lost, `max_size` is kept, nothing hangs, descriptors and memory do not grow;
//! * when the faults end everything pulls, and `larder verify` finds every blob sound.
//!
//! Each fault is counted where it took effect. `scripts/campaign` runs the long one; docs/testing.md has its last result.
//!
//! `LARDER_CAMPAIGN_SEED`, `LARDER_CAMPAIGN_FAULTS` (how many; each kind at least a fiftieth of it) and `LARDER_CAMPAIGN_MINUTES`
//! (when to give up) change a run.

#![allow(
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test: it fails by panicking, and says what it did"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod clients;
mod health;
mod kinds;
mod lives;
mod saboteur;
mod site;
mod wire;
mod world;

use harness::{Dice, Process};
use health::Rest;
use kinds::{Kind, Tally};
use site::Site;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use world::{REGISTRIES, World};

const SEED: &str = "LARDER_CAMPAIGN_SEED";
/// Clients per registry.
const CLIENTS: usize = 3;
/// Time between two moves of a registry's tags.
const MOVES: Duration = Duration::from_millis(250);
const ROOMY: u64 = 2 << 30;
/// Less than half of what the registries hold at first.
const TIGHT: u64 = 40 << 20;

/// What all tasks of a round share.
pub struct Round {
    pub world: World,
    pub tally: Arc<Tally>,
    number: u64,
    /// Its store has room for everything and a disk that is well: whatever was served once must be served again.
    pub is_roomy: bool,
    until: Mutex<Instant>,
    findings: Mutex<Vec<String>>,
    address: RwLock<Option<SocketAddr>>,
    /// Counts the lives of the process.
    pub life: AtomicU64,
    /// It is being ended, and who gets no answer has no reason to complain.
    pub dying: AtomicBool,
    pub inflight: AtomicU64,
    pub requests: AtomicU64,
    pub bytes: AtomicU64,
}

/// What a round is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    /// Registries fail, one process lives through it, and has room.
    Storm,
    /// The same with a store that is too small.
    Tight,
    /// The process is ended and its files are damaged.
    Lives,
    FullDisk,
}

impl Theme {
    /// Each in turn; after that every other round, or each if no other kinds are left, is one for the rarest of the kinds of which
    /// there are too few.
    fn next(number: u64, lacking: &[Kind], tally: &Tally) -> Self {
        let turns = [Self::Storm, Self::Lives, Self::Tight, Self::FullDisk];
        let turn = if number < 4 { number } else { number / 2 };
        let turn = turns[usize::try_from(turn).unwrap_or(0) % turns.len()];
        let Some(rarest) = lacking.iter().min_by_key(|kind| tally.of(**kind)) else { return turn };
        let only_lives = lacking.iter().all(|kind| Self::of(*kind) == Self::Lives);
        if number >= 4 && (number.is_multiple_of(2) || only_lives) { Self::of(*rarest) } else { turn }
    }

    /// The rounds in which this kind happens most.
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Killed
            | Kind::Terminated
            | Kind::FlippedBlob
            | Kind::DamagedPieces
            | Kind::DamagedLink
            | Kind::DamagedIndex
            | Kind::DeletedFile => Self::Lives,
            Kind::DiskFull => Self::FullDisk,
            _ => Self::Storm,
        }
    }
}

impl Round {
    fn new(number: u64, theme: Theme, world: World, tally: &Arc<Tally>) -> Self {
        Self {
            world,
            is_roomy: theme == Theme::Storm,
            tally: Arc::clone(tally),
            number,
            until: Mutex::new(Instant::now()),
            findings: Mutex::default(),
            address: RwLock::default(),
            life: AtomicU64::new(0),
            dying: AtomicBool::new(true),
            inflight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether its faults are over, or something was found.
    pub fn is_over(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        Instant::now() >= until || !self.findings().is_empty()
    }

    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must not be.
    pub fn accuse(&self, finding: String) {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    pub fn judge(&self, violations: &[String]) {
        for violation in violations {
            self.accuse(format!("ACR would have refused this: {violation}"));
        }
    }

    /// A process that has ended must not have said this.
    pub fn judge_words(&self, process: &Process) {
        let said = process.stderr();
        said.lines().filter(|line| line.contains("panicked at")).for_each(|line| self.accuse(line.to_owned()));
    }

    fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn say(&self, what: &str) {
        println!("round {}: {what}", self.number);
    }

    pub fn begin_life(&self, process: &Process) {
        *self.address.write().unwrap_or_else(PoisonError::into_inner) = Some(process.address);
        self.life.fetch_add(1, Ordering::AcqRel);
        self.dying.store(false, Ordering::Release);
    }

    fn last_for(&self, time: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
    }
}

/// Clients, registries that fail, tags that move: until the round's faults are over.
fn attack(round: &Arc<Round>, theme: Theme, dice: &mut Dice) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for registry in 0..REGISTRIES {
        for _ in 0..if theme == Theme::Lives { 1 } else { CLIENTS } {
            tasks.spawn(clients::run(Arc::clone(round), registry, dice.fork()));
        }
        if theme != Theme::Lives || registry >= lives::WELL {
            tasks.spawn(saboteur::run(Arc::clone(round), registry, dice.fork()));
            tasks.spawn(move_tags(Arc::clone(round), registry, dice.fork()));
        }
    }
    tasks
}

async fn move_tags(round: Arc<Round>, registry: usize, mut dice: Dice) {
    while !round.is_over() {
        sleep(MOVES).await;
        let tags = round.world.registries[registry].tag_count() as u64;
        round.world.publish(registry, usize::try_from(dice.below(tags)).unwrap_or(0), &mut dice);
    }
}

async fn finish(round: &Round, mut tasks: JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result {
            round.accuse(format!("a task of the campaign itself: {error}"));
        }
    }
}

/// One round; what was found in it.
async fn run_round(theme: Theme, round: &Arc<Round>, length: Duration, dice: &mut Dice) -> Vec<String> {
    let site = Site::new(&round.world, if theme == Theme::Tight { TIGHT } else { ROOMY });
    let site = if theme == Theme::FullDisk { site.on_a_full_disk() } else { site };
    let mut process = site.start().await;
    round.begin_life(&process);
    let mut rest: Option<Rest> = None;
    let parts = if theme == Theme::Lives { 1 } else { 3 };
    for _ in 0..parts {
        round.last_for(length / parts);
        let mut tasks = attack(round, theme, dice);
        if theme == Theme::Lives {
            process = lives::run(round, &site, process, dice).await;
        } else {
            let pid = rustix::process::Pid::from_child(&process.child);
            tasks.spawn(health::watch_size(Arc::clone(round), site.store.clone(), site.limit, pid));
        }
        finish(round, tasks).await;
        match Rest::of(&process).await {
            Ok(now) => {
                if let Some(finding) = rest.and_then(|before| before.grown(now)) {
                    round.accuse(finding);
                }
                round.say(&format!("at rest {now:?}"));
                rest = Some(now);
            }
            Err(error) => round.accuse(error),
        }
    }
    if theme == Theme::FullDisk {
        round.tally.add(Kind::DiskFull, process.metric("larder_fills_total{result=\"bypassed\"}").await);
    }
    everything_pulls(round).await;
    round.dying.store(true, Ordering::Release);
    process.signal(rustix::process::Signal::TERM);
    if process.ended(Duration::from_secs(40)).await.is_none_or(|status| !status.success()) {
        round.accuse("it does not end in order".to_owned());
    }
    round.judge_words(&process);
    if let Err(said) = site.verify() {
        round.accuse(format!("larder verify: {said}"));
    }
    let findings = round.findings();
    if !findings.is_empty() {
        let said = process.stderr();
        let log = std::env::temp_dir().join(format!("larder-campaign-{}.log", round.number));
        if std::fs::write(&log, &said).is_ok() {
            round.say(&format!("all that the last process said: {}", log.display()));
        }
        let lines: Vec<&str> = said.lines().filter(|line| !line.contains("larder::access")).collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        println!("larder's last words:\n{}", last.join("\n"));
    }
    findings
}

/// The registries are well: within seconds, the longest that a breaker or a `Retry-After` holds anything back, all is there.
async fn everything_pulls(round: &Arc<Round>) {
    let deadline = Instant::now() + Duration::from_secs(45);
    let mut pulls = JoinSet::new();
    for registry in 0..REGISTRIES {
        let round = Arc::clone(round);
        pulls.spawn(async move {
            let registry = &round.world.registries[registry];
            for tag in 0..registry.tag_count() {
                while let Err(error) = round.pull_newest(registry, tag).await {
                    if Instant::now() > deadline {
                        return round.accuse(format!("the faults are over, and this is not served: {error}"));
                    }
                    sleep(Duration::from_millis(200)).await;
                }
            }
        });
    }
    finish(round, pulls).await;
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_wrong_is_served_and_nothing_is_lost_whatever_fails() {
    let seed = Dice::seed(SEED);
    let faults = number("LARDER_CAMPAIGN_FAULTS", 250);
    let each = faults / 50;
    let minutes = number("LARDER_CAMPAIGN_MINUTES", 6);
    let began = Instant::now();
    let tally = Arc::new(Tally::default());
    let (mut requests, mut bytes) = (0, 0);
    for number in 0.. {
        let mut dice = Dice::new(seed ^ (number << 32));
        let theme = Theme::next(number, &tally.lacking(each), &tally);
        let long = faults >= 2000;
        let length = Duration::from_secs(match theme {
            Theme::Lives if long => 90,
            _ if long => 24,
            _ => 9,
        });
        let well = if theme == Theme::Lives { lives::WELL } else { 0 };
        let round = Arc::new(Round::new(number, theme, World::new(well, &mut dice).await, &tally));
        round.say(&format!("{theme:?}"));
        let findings = run_round(theme, &round, length, &mut dice).await;
        requests += round.requests.load(Ordering::Relaxed);
        bytes += round.bytes.load(Ordering::Relaxed);
        let lacking = tally.lacking(each);
        round.say(&format!("{} faults, {requests} requests; too few of {lacking:?}", tally.total()));
        if !findings.is_empty() {
            println!("{}", tally.table());
            panic!(
                "round {number} ({theme:?}) of {SEED}={seed}, {} findings; again with `scripts/campaign --seed {seed} --faults {faults}`\n{}",
                findings.len(),
                findings[..findings.len().min(5)].join("\n")
            );
        }
        if tally.total() >= faults && lacking.is_empty() {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60 * minutes),
            "too few faults took effect in {minutes} minutes: {lacking:?}\n{}",
            tally.table()
        );
    }
    println!("{}", tally.table());
    println!(
        "seed {seed}: {requests} requests, {} MiB, {} s; nothing was found",
        bytes >> 20,
        began.elapsed().as_secs()
    );
}
