//! `[[warm]]`: what the file names is fetched at the start and again and again, behind what people pull, and pinned. What fails is
//! said, and comes with the next round.

use super::Admin;
use super::warms::unkept;
use crate::bundle::{self, Extent, Platforms, lists};
use crate::cache::Purge;
use crate::config::{Environment, WarmSettings};
use crate::oci::{Reference, Repository, RepositoryPattern};
use crate::store::Pin;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

/// Failures of a round that are logged one by one.
const NAMED: usize = 20;
/// References of one round.
const MOST: usize = 200_000;

/// What a round has done.
#[derive(Default)]
struct Round {
    references: usize,
    bytes: u64,
    failed: usize,
}

impl Admin {
    /// Fetches what one `[[warm]]` names, again and again.
    pub async fn keep_warm(self, settings: WarmSettings, environment: Environment) {
        let mut pinned = BTreeSet::new();
        let mut rounds = rounds(settings.every);
        loop {
            rounds.tick().await;
            let Round { references, bytes, failed } = self.round(&settings, &environment, &mut pinned).await;
            tracing::info!(references, size_bytes = bytes, failed, "fetched ahead what [[warm]] names");
        }
    }

    async fn round(&self, settings: &WarmSettings, environment: &Environment, pinned: &mut BTreeSet<String>) -> Round {
        let mut round = Round::default();
        let mut names = BTreeSet::new();
        names.extend(settings.references.iter().cloned());
        if let Some(list) = &settings.list {
            match read(list.clone(), environment.clone()).await {
                Ok(listed) => names.extend(listed),
                Err(error) => round.fails(&list.display().to_string(), &error),
            }
        }
        for pattern in &settings.repositories {
            match self.tags_of(pattern).await {
                Ok(tags) => names.extend(tags),
                Err(error) => round.fails(pattern.as_str(), &error),
            }
        }
        let extent =
            Extent { platforms: Platforms::of(&settings.platforms), referrers: settings.referrers, dry_run: false };
        let mut kept = BTreeSet::new();
        for name in names.iter().take(MOST) {
            round.references += 1;
            match self.fetch(name, &extent).await {
                Ok((pin, bytes)) => {
                    round.bytes += bytes;
                    let text = pin.to_string();
                    // What an operator has pinned stays so, whatever is named here.
                    if settings.pin && (self.keep(pin, &mut round).await || pinned.contains(&text)) {
                        kept.insert(text);
                    }
                }
                Err(error) => {
                    round.fails(name, &error);
                    // It was named all the same.
                    let target = self.target(name).ok();
                    let pin = target.map(|(repository, reference)| pin_of(repository, reference).to_string());
                    kept.extend(pin.filter(|pin| pinned.contains(pin)));
                }
            }
        }
        // What is not named any more need not be kept.
        for gone in pinned.difference(&kept).filter_map(|pin| pin.parse::<Pin>().ok()) {
            if let Err(error) = self.store.unpin(gone).await {
                round.fails("a pin", &error.to_string());
            }
        }
        *pinned = kept;
        round
    }

    async fn fetch(&self, name: &str, extent: &Extent) -> Result<(Pin, u64), String> {
        let (repository, reference) = self.target(name)?;
        let (progress, _) = mpsc::channel(1);
        let warmed = bundle::warm(&self.cache, &self.store, &repository, &reference, extent, &progress).await;
        let warmed = warmed.map_err(|error| error.to_string())?;
        if warmed.unkept > 0 {
            return Err(unkept(warmed.unkept));
        }
        Ok((pin_of(repository, reference), warmed.missing))
    }

    fn target(&self, name: &str) -> Result<(Repository, Reference), String> {
        match self.find(name).map_err(|(_, message)| message)? {
            Purge::Tag(repository, tag) => Ok((repository, Reference::Tag(tag))),
            Purge::Manifest(repository, digest) => Ok((repository, Reference::Digest(digest))),
            _ => Err("it names no tag and no digest".to_owned()),
        }
    }

    /// Pins it; whether it was not pinned before.
    async fn keep(&self, pin: Pin, round: &mut Round) -> bool {
        let (configured, asked) = self.store.pins();
        if configured.contains(&pin) || asked.contains(&pin) {
            return false;
        }
        let name = pin.to_string();
        self.store.pin(pin).await.unwrap_or_else(|error| {
            round.fails(&name, &error.to_string());
            false
        })
    }

    /// Every tag of the repositories that a pattern means.
    async fn tags_of(&self, pattern: &RepositoryPattern) -> Result<Vec<String>, String> {
        let mut repositories = Vec::new();
        if pattern.as_str().contains('*') {
            let stored = self.store.repositories().await.map_err(|error| error.to_string())?;
            repositories.extend(stored.into_iter().filter(|repository| pattern.matches(repository)));
        } else if let Purge::Repository(repository) = self.find(pattern.as_str()).map_err(|(_, message)| message)? {
            repositories.push(repository);
        }
        let mut names = Vec::new();
        for repository in repositories {
            let tags = bundle::tags_of(&self.cache, &repository).await.map_err(|error| error.to_string())?;
            names.extend(tags.iter().map(|tag| format!("{repository}:{tag}")));
        }
        Ok(names)
    }
}

impl Round {
    fn fails(&mut self, name: &str, error: &str) {
        self.failed += 1;
        if self.failed <= NAMED {
            tracing::warn!(name, error, "[[warm]] could not fetch this; it is tried again in the next round");
        }
    }
}

fn pin_of(repository: Repository, reference: Reference) -> Pin {
    match reference {
        Reference::Tag(tag) => Pin::Tag(repository, tag),
        Reference::Digest(digest) => Pin::Manifest(repository, digest),
    }
}

/// Now, and then each time `every` has passed since the last one began; one that takes longer is followed by the next at once.
fn rounds(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The references of a list, read beside the runtime: it may be long, or on a disk that is slow.
async fn read(path: PathBuf, environment: Environment) -> Result<BTreeSet<String>, String> {
    let read = move || lists::read_file(&path, &|name| environment.get(name).map(str::to_owned));
    let reading = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    reading.map(|reading| reading.references).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_round_begins_at_the_start_and_each_time_its_time_has_passed_however_long_it_takes() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let (began, mut times, mut rounds) = (Instant::now(), Vec::new(), rounds(hours(6)));
        // The second round takes eight hours, the others one.
        for takes in [1, 8, 1, 1, 1] {
            rounds.tick().await;
            times.push(began.elapsed());
            tokio::time::sleep(hours(takes)).await;
        }
        assert_eq!(times, [0, 6, 14, 20, 26].map(hours));
    }
}
