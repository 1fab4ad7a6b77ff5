//! The process is ended, by `kill -9` or SIGTERM, its files are damaged, and it is started again.

use super::Round;
use super::harness::{Dice, Process, walk};
use super::kinds::Kind;
use super::site::Site;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Registries that nobody sabotages while the process dies: after each damage everything must be right at once.
pub const WELL: usize = 3;

/// Something done to a file, and the tag whose content must be right in spite of it.
struct Damage {
    kind: Kind,
    registry: usize,
    tag: usize,
}

/// Lives and deaths until the round's faults are over; the last one lives.
pub async fn run(round: &Arc<Round>, site: &Site, mut process: Process, dice: &mut Dice) -> Process {
    let mut before = BTreeSet::new();
    while !round.is_over() {
        sleep(Duration::from_millis(50 + dice.below(250))).await;
        end(round, &mut process, dice).await;
        let stored = blobs(&site.store);
        let lost: Vec<_> = before.difference(&stored).collect();
        if !lost.is_empty() {
            round.accuse(format!("verified blobs are gone: {lost:?}\n{}", process.stderr()));
        }
        let damages = damage_all(round, &site.store, dice);
        before = blobs(&site.store);
        let began = Instant::now();
        process = site.start().await;
        round.begin_life(&process);
        // What was altered is set aside and fetched again.
        let mut pulls = JoinSet::new();
        for damage in damages {
            let round = Arc::clone(round);
            pulls.spawn(async move {
                match round.pull_newest(&round.world.registries[damage.registry], damage.tag).await {
                    Ok(()) => round.tally.add(damage.kind, 1),
                    Err(error) => round.accuse(format!("after {:?}: {error}", damage.kind)),
                }
            });
        }
        pulls.join_all().await;
        if began.elapsed() > Duration::from_secs(60) {
            round.accuse(format!("a start and its first pulls took {:?}", began.elapsed()));
        }
        before = &before & &blobs(&site.store);
    }
    process
}

async fn end(round: &Round, process: &mut Process, dice: &mut Dice) {
    // Under load, or it shows nothing.
    let deadline = Instant::now() + Duration::from_secs(2);
    while round.inflight.load(Ordering::Acquire) == 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(1)).await;
    }
    let busy = round.inflight.load(Ordering::Acquire) > 0;
    round.dying.store(true, Ordering::Release);
    let kind = round.tally.rare(&[Kind::Killed, Kind::Terminated], dice);
    if kind == Kind::Killed {
        process.kill();
    } else {
        process.signal(rustix::process::Signal::TERM);
        let ended = process.ended(Duration::from_secs(40)).await;
        if ended.is_none_or(|status| !status.success()) {
            round.accuse(format!("SIGTERM: {ended:?}\n{}", process.stderr()));
            process.kill();
        }
    }
    round.tally.add(kind, u64::from(busy));
    round.judge_words(process);
}

/// The digests in `blobs/`, as hex digits.
fn blobs(store: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(&store.join("blobs"), &mut |path| {
        found.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    });
    found
}

/// Does something to most of the well registries' tags.
fn damage_all(round: &Round, store: &Path, dice: &mut Dice) -> Vec<Damage> {
    let mut damages = Vec::new();
    let kinds = [Kind::FlippedBlob, Kind::DamagedPieces, Kind::DamagedLink, Kind::DeletedFile];
    for registry in 0..WELL {
        for tag in 0..round.world.registries[registry].tag_count() {
            let kind = round.tally.rare(&kinds, dice);
            if damage(round, store, (registry, tag), kind, dice) {
                damages.push(Damage { kind, registry, tag });
            }
        }
    }
    if !dice.one_in(4) && alter_index(store, dice) {
        damages.push(Damage { kind: Kind::DamagedIndex, registry: 0, tag: 0 });
    }
    damages
}

/// Whether there was something to be damaged.
fn damage(round: &Round, store: &Path, (registry, number): (usize, usize), kind: Kind, dice: &mut Dice) -> bool {
    let registry = &round.world.registries[registry];
    let tag = registry.tag(number);
    let Some(version) = tag.versions.last() else { return false };
    let place = store.join("repositories").join(format!("{}.azurecr.io", registry.alias)).join(&tag.repository);
    let named = |folder: &Path, digest: &str| folder.join(digest.replace(':', "/"));
    let mut blobs: Vec<PathBuf> =
        version.layers.iter().chain([&version.manifest]).map(|digest| named(&store.join("blobs"), digest)).collect();
    let mut links = vec![place.join("_tags/v1"), named(&place.join("_manifests"), &version.manifest)];
    links.extend(version.layers.iter().map(|layer| named(&place.join("_blobs"), layer)));
    blobs.retain(|path| path.is_file());
    links.retain(|path| path.is_file());
    match kind {
        Kind::FlippedBlob => !blobs.is_empty() && flip(&dice.pick(&blobs[..]).clone(), dice),
        Kind::DamagedPieces => {
            let pieces = named(&store.join("pieces"), &version.layers[0]);
            if dice.one_in(2) { flip(&pieces, dice) } else { fs::remove_file(pieces).is_ok() }
        }
        Kind::DamagedLink => !links.is_empty() && flip(&dice.pick(&links[..]).clone(), dice),
        _ => {
            let all = [blobs, links].concat();
            !all.is_empty() && fs::remove_file(dice.pick(&all[..])).is_ok()
        }
    }
}

/// One bit of a file.
fn flip(path: &Path, dice: &mut Dice) -> bool {
    let Ok(mut bytes) = fs::read(path) else { return false };
    if bytes.is_empty() {
        return false;
    }
    let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap_or(0);
    bytes[at] ^= 1 << dice.below(8);
    let Ok(permissions) = fs::metadata(path).map(|metadata| metadata.permissions()) else { return false };
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o644));
    let written = fs::write(path, bytes).is_ok();
    let _ = fs::set_permissions(path, permissions);
    written
}

fn alter_index(store: &Path, dice: &mut Dice) -> bool {
    let index = store.join("index");
    let mut files = Vec::new();
    walk(&index, &mut |path| files.push(path.to_owned()));
    if files.is_empty() {
        return false;
    }
    match dice.below(3) {
        0 => fs::remove_dir_all(&index).is_ok(),
        1 => {
            files.iter().all(|file| fs::read(file).and_then(|bytes| fs::write(file, &bytes[..bytes.len() / 2])).is_ok())
        }
        _ => files.iter().filter(|file| flip(file, dice)).count() > 0,
    }
}
