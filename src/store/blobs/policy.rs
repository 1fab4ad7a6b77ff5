//! Which blobs go first when room is needed: segmented LRU, by bytes. Pure.
//!
//! A blob that was used again, some time after it came, is *protected*; all others go before any of these, the longest unused
//! first. So one pass over a huge repository pushes out what was used once, and not what the build farm uses every day. The
//! protected part is bounded: where it holds more than its share, its longest unused blobs stand with the others. The bytes of
//! manifests, small and needed to find anything, go last.

use std::cmp::Reverse;

/// The part of all bytes that can be protected.
const PROTECTED_PERCENT: u64 = 80;
/// Uses within this time of the first one are part of it: one pull asks several times.
pub(crate) const ONE_USE_MILLIS: u64 = 60_000;

/// What counts of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) len: u64,
    /// Milliseconds since 1970.
    pub(crate) last_use: u64,
    pub(crate) used_again: bool,
    pub(crate) manifest: bool,
}

/// Sorts: the first to go first.
pub(crate) fn sort<T>(all: &mut [T], standing: impl Fn(&T) -> Standing) {
    let mut total = 0_u64;
    let mut again: Vec<(Reverse<u64>, u64)> = Vec::new();
    for item in &*all {
        let standing = standing(item);
        total = total.saturating_add(standing.len);
        if standing.used_again {
            again.push((Reverse(standing.last_use), standing.len));
        }
    }
    again.sort_unstable();
    let mut room = total.saturating_mul(PROTECTED_PERCENT) / 100;
    let mut since = 0;
    for (Reverse(last_use), len) in again {
        let Some(left) = room.checked_sub(len) else {
            since = last_use + 1;
            break;
        };
        room = left;
    }
    all.sort_by_cached_key(|item| {
        let standing = standing(item);
        let protected = standing.used_again && standing.last_use >= since;
        (standing.manifest, protected, standing.last_use)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn blob(len: u64, last_use: u64, used_again: bool) -> Standing {
        Standing { len, last_use, used_again, manifest: false }
    }

    fn order(mut all: Vec<Standing>) -> Vec<u64> {
        sort(&mut all, |standing| *standing);
        all.iter().map(|standing| standing.last_use).collect()
    }

    #[test]
    fn used_once_goes_before_used_again_and_manifests_go_last() {
        let manifest = Standing { manifest: true, ..blob(1, 0, false) };
        let all = vec![manifest, blob(10, 1, true), blob(10, 3, false), blob(10, 2, false), blob(10, 9, true)];
        assert_eq!(order(all), [2, 3, 1, 9, 0]);
    }

    #[test]
    fn what_was_loved_long_ago_is_not_protected_beyond_the_share() {
        let all = vec![blob(1000, 1, true), blob(1000, 2, true), blob(1000, 3, true), blob(100, 7, false)];
        assert_eq!(order(all), [1, 7, 2, 3], "the oldest of 3000 protected bytes of 3100 stands with the others");
    }

    /// How a simulated cache chooses what goes.
    type Policy = fn(&mut Vec<(u64, Kept)>);

    #[derive(Clone, Copy)]
    struct Kept {
        standing: Standing,
        came: u64,
        uses: u64,
    }

    /// Bytes found of bytes asked for. Every request takes a second.
    fn hit_ratio(policy: Policy, trace: &[(u64, u64)], capacity: u64) -> f64 {
        let mut kept: HashMap<u64, Kept> = HashMap::new();
        let (mut used, mut asked, mut found) = (0, 0, 0);
        for (second, (name, len)) in trace.iter().enumerate() {
            let now = second as u64 * 1000;
            asked += len;
            if let Some(hit) = kept.get_mut(name) {
                hit.standing.last_use = now;
                hit.standing.used_again |= now > hit.came + ONE_USE_MILLIS;
                hit.uses += 1;
                found += len;
                continue;
            }
            used += len;
            kept.insert(*name, Kept { standing: blob(*len, now, false), came: now, uses: 1 });
            if used > capacity {
                let mut all: Vec<(u64, Kept)> = kept.iter().map(|(name, kept)| (*name, *kept)).collect();
                all.sort_unstable_by_key(|(name, _)| *name);
                policy(&mut all);
                for (name, gone) in all {
                    if used <= capacity / 100 * 90 {
                        break;
                    }
                    kept.remove(&name);
                    used -= gone.standing.len;
                }
            }
        }
        f64::from(u32::try_from(found * 10_000 / asked).unwrap()) / 100.0
    }

    /// Requests for 2,000 blobs by Zipf's law, whose ranks drift, and in between passes over repositories never seen again.
    fn trace(with_passes: bool) -> Vec<(u64, u64)> {
        let mut state = 7_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
        };
        let len = |name: u64| 1 + name.wrapping_mul(2_654_435_761) % 40;
        let weights: Vec<f64> = (1..=2000_u32).map(|rank| 1.0 / f64::from(rank)).collect();
        let total: f64 = weights.iter().sum();
        let mut trace = Vec::new();
        for request in 0..30_000_u64 {
            let mut at = random() * total;
            let rank = weights.iter().position(|weight| {
                at -= weight;
                at <= 0.0
            });
            let name = (rank.unwrap_or_default() as u64 + request / 3000 * 20) % 2000;
            trace.push((name, len(name)));
            if with_passes && request % 5000 == 4999 {
                trace.extend((0..1500).map(|n| 1_000_000 + request * 10_000 + n).map(|name| (name, len(name))));
            }
        }
        trace
    }

    const POLICIES: [(&str, Policy); 4] = [
        ("FIFO", |all| all.sort_by_key(|(_, kept)| kept.came)),
        ("LRU", |all| all.sort_by_key(|(_, kept)| kept.standing.last_use)),
        ("LFU", |all| all.sort_by_key(|(_, kept)| (kept.uses, kept.standing.last_use))),
        ("segmented LRU", |all| sort(all, |(_, kept)| kept.standing)),
    ];

    /// Prints the table of `docs/disk.md`.
    #[test]
    fn keeps_more_of_what_is_used_than_other_policies() {
        let capacity = 8000;
        let traces = [trace(false), trace(true)];
        let ratio = |policy: Policy| traces.each_ref().map(|trace| hit_ratio(policy, trace, capacity));
        let results = POLICIES.map(|(name, policy)| (name, ratio(policy)));
        for (name, [plain, passes]) in &results {
            println!("| {name} | {plain:.1} % | {passes:.1} % |");
        }
        let [_, (_, lru), _, (_, ours)] = results;
        assert!(ours[0] > lru[0] - 0.5, "without passes it is no worse than LRU");
        assert!(ours[1] > lru[1] + 2.0, "with passes it is better");
    }

    #[test]
    fn one_pass_over_a_huge_repository_does_not_flush_what_was_used_twice() {
        let hot = |start: u64| (0..10).map(move |name| (name + start, 10));
        let pass = (1000..5000).map(|name| (name, 10));
        let mut trace: Vec<(u64, u64)> = hot(0).collect();
        trace.extend((100..200).map(|name| (name, 1)));
        trace.extend(hot(0).chain(pass));
        let before = trace.len();
        trace.extend(hot(0));
        let ratio = |policy| {
            let hits = |trace: &[(u64, u64)]| {
                let asked: u64 = trace.iter().map(|(_, len)| *len).sum();
                hit_ratio(policy, trace, 400) * f64::from(u32::try_from(asked).unwrap())
            };
            (hits(&trace) - hits(&trace[..before])) / 10_000.0
        };
        assert!(ratio(POLICIES[3].1) > 0.9, "all ten are still there");
        assert!(ratio(POLICIES[1].1) < 0.1, "LRU has lost them");
    }
}
