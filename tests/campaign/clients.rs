//! Clients at work, who know what they may be given.

use super::Round;
use super::harness::{Dice, sha256};
use super::kinds::Kind;
use super::wire::{Manner, Outcome, ask};
use super::world::Registry;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

/// What no request may take longer than, a slow client's aside. Larder's own limits are seconds; the rest is for the machine.
const BOUND: Duration = Duration::from_secs(60);
/// What a pull may be answered with while its registry fails.
const EXCUSES: &[u16] = &[403, 429, 502, 503, 504];

/// What is asked for.
struct Wish<'a> {
    registry: &'a Registry,
    target: String,
    /// The digest, if it is asked for by that.
    digest: Option<&'a str>,
    range: Option<(u64, u64)>,
    manner: Manner,
}

/// Pulls from registry `number` until the round's faults are over.
pub async fn run(round: Arc<Round>, number: usize, mut dice: Dice) {
    let registry = &round.world.registries[number];
    let mut last_seen = HashMap::new();
    while !round.is_over() {
        let tag = usize::try_from(dice.below(registry.tag_count() as u64)).unwrap_or(0);
        pull(&round, registry, tag, &mut dice, &mut last_seen).await;
    }
}

async fn pull(
    round: &Round,
    registry: &Registry,
    number: usize,
    dice: &mut Dice,
    last_seen: &mut HashMap<usize, String>,
) {
    let repository = registry.tag(number).repository;
    let by_tag = registry.target(&repository, "manifests", "v1");
    let wish = Wish { registry, target: by_tag, digest: None, range: None, manner: Manner::Greedy };
    let Some(outcome) = round.fulfil(&wish, dice).await else { return };
    let digest = sha256(&outcome.body);
    // Whatever the tag named at some time since the round began.
    let Some(version) = registry.tag(number).versions.into_iter().find(|version| version.manifest == digest) else {
        round.accuse(format!("{} gave what it never named: {digest}", wish.target));
        return;
    };
    if last_seen.insert(number, digest.clone()).is_some_and(|before| before != digest) {
        round.tally.add(Kind::TagMoved, 1);
    }
    for layer in &version.layers {
        if round.is_over() {
            return;
        }
        let length = round.world.content(layer).map_or(0, |content| content.len() as u64);
        let range = dice.one_in(6).then(|| {
            let first = dice.below(length);
            (first, first + dice.below(length - first))
        });
        let manner = match dice.below(12) {
            0 => Manner::Leaves(usize::try_from(dice.below(length)).unwrap_or(0)),
            1 => Manner::Slow,
            _ => Manner::Greedy,
        };
        let target = registry.target(&repository, "blobs", layer);
        round.fulfil(&Wish { registry, target, digest: Some(layer), range, manner }, dice).await;
    }
}

impl Round {
    /// Asks, and judges what comes. A whole answer of 200 is given back.
    async fn fulfil(&self, wish: &Wish<'_>, dice: &mut Dice) -> Option<Outcome> {
        let life = self.life.load(Ordering::Acquire);
        let address = self.address()?;
        let was_served = self.is_roomy && wish.registry.has_served(&wish.target);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inflight.fetch_add(1, Ordering::AcqRel);
        let method = if wish.digest.is_none() && dice.one_in(3) { "HEAD" } else { "GET" };
        let outcome = ask(address, method, &wish.target, wish.range, wish.manner, BOUND).await;
        self.inflight.fetch_sub(1, Ordering::AcqRel);
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.accuse(format!("{method} {} {:?} {:?}: {error}", wish.target, wish.range, wish.manner));
                return None;
            }
            // A body that turns out to be wrong while its head waits to be sent takes the head with it; and whoever is killed says
            // nothing more. Nothing else excuses an answer that has no head.
            Err(error) => {
                let cut = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
                let spoiled = wish.digest.is_some_and(|digest| wish.registry.acr.has_spoiled(digest));
                if !(self.has_died_since(life) || cut && spoiled) {
                    self.accuse(format!("{method} {} {:?}: no answer: {error}", wish.target, wish.range));
                }
                sleep(Duration::from_millis(20)).await;
                return None;
            }
        };
        self.count_refused(&outcome);
        let broken = !matches!(outcome.status, 200 | 206) || !outcome.complete && !outcome.left;
        if broken && (was_served || wish.registry.is_well) && !self.has_died_since(life) {
            let why = if was_served { "it was served before" } else { "its registry is well" };
            let came = outcome.body.len();
            let body = String::from_utf8_lossy(&outcome.body[..came.min(300)]);
            self.accuse(format!(
                "{method} {} {:?}: {why}, and now {came} bytes: {}{body}",
                wish.target, wish.range, outcome.head
            ));
        }
        if method == "GET" && outcome.status == 200 && outcome.complete {
            wish.registry.note_served(&wish.target);
        }
        if wish.manner != Manner::Greedy && (200..300).contains(&outcome.status) {
            let kind = if outcome.left { Kind::ClientLeft } else { Kind::SlowClient };
            if outcome.left || wish.manner == Manner::Slow {
                self.tally.add(kind, 1);
            }
        }
        if method == "HEAD" { self.judge_head(wish, &outcome) } else { self.judge_answer(wish, outcome) }
    }

    fn has_died_since(&self, life: u64) -> bool {
        self.life.load(Ordering::Acquire) != life || self.dying.load(Ordering::Acquire)
    }

    /// An upstream that refuses connections cannot count them; larder says why it answers as it does.
    fn count_refused(&self, outcome: &Outcome) {
        let said = "connection refused";
        let body = if outcome.status >= 500 {
            String::from_utf8_lossy(&outcome.body).to_ascii_lowercase()
        } else {
            String::new()
        };
        if outcome.header("warning").is_some_and(|warning| warning.contains(said)) || body.contains(said) {
            self.tally.add(Kind::Refused, 1);
        }
    }

    fn judge_head(&self, wish: &Wish<'_>, outcome: &Outcome) -> Option<Outcome> {
        if outcome.status != 200 {
            self.judge_refusal(wish, outcome);
            return None;
        }
        let digest = outcome.header("docker-content-digest").unwrap_or_default();
        let length = self.world.content(digest).map(|content| content.len().to_string());
        if length.is_none() || outcome.header("content-length") != length.as_deref() {
            self.accuse(format!("HEAD {}: {}", wish.target, outcome.head));
        }
        None
    }

    fn judge_answer(&self, wish: &Wish<'_>, outcome: Outcome) -> Option<Outcome> {
        if !matches!(outcome.status, 200 | 206) {
            self.judge_refusal(wish, &outcome);
            return None;
        }
        let named =
            wish.digest.map(str::to_owned).or_else(|| outcome.header("docker-content-digest").map(str::to_owned));
        let Some(content) = named.as_deref().and_then(|digest| self.world.content(digest)) else {
            self.accuse(format!("{}: {}", wish.target, outcome.head));
            return None;
        };
        // Wrong bytes that came from upstream, or a wrong length, may have passed before the digest was known, but then the end is
        // no clean one; a range that nobody has verified says so.
        let marked = outcome.status == 206 && outcome.head.contains("detail=unverified");
        let excused =
            named.is_some_and(|digest| wish.registry.acr.has_spoiled(&digest)) && (!outcome.complete || marked);
        let part = match (outcome.status, wish.range) {
            (206, Some((first, last))) => {
                let expected = format!("bytes {first}-{last}/{}", content.len());
                if outcome.header("content-range") != Some(&expected) && !excused {
                    self.accuse(format!("{}: not {expected}: {}", wish.target, outcome.head));
                }
                &content[usize::try_from(first).unwrap_or(0)..=usize::try_from(last).unwrap_or(0)]
            }
            _ => &content[..],
        };
        if outcome.header("content-length") != Some(&part.len().to_string()) && !excused {
            self.accuse(format!("{}: {} bytes expected: {}", wish.target, part.len(), outcome.head));
        }
        if !part.starts_with(&outcome.body) && !excused {
            let at = part.iter().zip(&outcome.body).position(|(a, b)| a != b);
            let (came, complete) = (outcome.body.len(), outcome.complete);
            self.accuse(format!(
                "{}: wrong from {at:?} of {came} (complete: {complete}): {}",
                wish.target, outcome.head
            ));
        }
        self.bytes.fetch_add(outcome.body.len() as u64, Ordering::Relaxed);
        (outcome.complete && outcome.status == 200).then_some(outcome)
    }

    fn judge_refusal(&self, wish: &Wish<'_>, outcome: &Outcome) {
        if !EXCUSES.contains(&outcome.status) {
            let body = String::from_utf8_lossy(&outcome.body);
            self.accuse(format!("{} {:?}: {}{body}", wish.target, wish.range, outcome.head));
        }
    }

    /// A pull as it must succeed once nothing fails any more: the newest manifest and everything that it names.
    pub async fn pull_newest(&self, registry: &Registry, number: usize) -> Result<(), String> {
        let address = self.address().ok_or("larder is not running")?;
        let tag = registry.tag(number);
        let newest = tag.versions.last().ok_or("a tag without a version")?;
        let mut wishes = vec![(registry.target(&tag.repository, "manifests", "v1"), &newest.manifest)];
        wishes.extend(newest.layers.iter().map(|layer| (registry.target(&tag.repository, "blobs", layer), layer)));
        for (target, digest) in wishes {
            let outcome = ask(address, "GET", &target, None, Manner::Greedy, BOUND).await;
            let outcome = outcome.map_err(|error| format!("{target}: {error}"))?;
            if outcome.status != 200 || !outcome.complete || sha256(&outcome.body) != **digest {
                let body = String::from_utf8_lossy(&outcome.body[..outcome.body.len().min(500)]);
                return Err(format!("{target}: not {digest}: {}{body}", outcome.head));
            }
        }
        Ok(())
    }
}
