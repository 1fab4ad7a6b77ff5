use crate::config::{FreshnessRule, FreshnessSettings};
use crate::oci::{Digest, Repository, RepositoryPattern, Tag};
use crate::store::TagLink;
use crate::upstream::Unconfirmed;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How long a failed revalidation of one tag or list keeps the next from being tried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long lists of referrers and the tags that stand in for them are good, at most.
const BRIEF_TTL: Duration = Duration::from_secs(10);

/// How long what an upstream has said is good, by repository.
#[derive(Clone, Debug)]
pub(super) struct FreshnessRules {
    rules: Vec<(Vec<RepositoryPattern>, Freshness)>,
    /// Where no rule says otherwise.
    pub(super) other: Freshness,
}

impl FreshnessRules {
    pub(super) fn new(settings: &FreshnessSettings) -> Self {
        let other = Freshness::new(settings);
        let rules = settings.rules.iter().map(|rule| (rule.repositories.clone(), other.with(rule)));
        Self { rules: rules.collect(), other: other.clone() }
    }

    /// What holds for a repository: the first rule that names it.
    pub(super) fn of(&self, repository: &Repository) -> &Freshness {
        let names = |patterns: &[RepositoryPattern]| patterns.iter().any(|pattern| pattern.matches(repository));
        self.rules.iter().find(|(patterns, _)| names(patterns)).map_or(&self.other, |(_, freshness)| freshness)
    }
}

/// Which tags may be served for how long without asking upstream.
#[derive(Clone, Debug)]
pub(super) struct Freshness {
    /// Time for which a stored tag is good.
    pub(super) ttl: Duration,
    /// How long a request waits for news of an expired one.
    pub(super) revalidate_wait: Duration,
    /// How old a stored tag may be to stand in for upstream.
    pub(super) max_stale: Option<Duration>,
    /// How long upstream's "not found" is believed.
    pub(super) negative_ttl: Duration,
    immutable: Vec<String>,
}

/// What is known of when a stored answer was last true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Age {
    /// When upstream last said so, on this process's clock; `None` if that lies beyond what the clock can say.
    checked: Option<Instant>,
    /// Not to be asked again before.
    retry: Option<Instant>,
}

impl Age {
    /// Upstream has just said so.
    pub(super) fn new() -> Self {
        Self { checked: Some(Instant::now()), retry: None }
    }

    /// Nobody knows whether it is still so.
    pub(super) fn unknown() -> Self {
        Self { checked: None, retry: None }
    }

    /// Upstream said so at `seen`, before this process perhaps. A time in the future (the clock was set back) proves nothing and
    /// counts as long ago.
    pub(super) fn since(seen: SystemTime) -> Self {
        let age = SystemTime::now().duration_since(seen).ok();
        Self { checked: age.and_then(|age| Instant::now().checked_sub(age)), retry: None }
    }

    /// The same age; upstream has just failed to say more, and is left alone for a moment.
    pub(super) fn postponed(self) -> Self {
        Self { retry: Some(Instant::now() + RETRY_PAUSE), ..self }
    }

    /// Seconds for which the answer is still good; negative once it is not.
    pub(super) fn ttl(&self, ttl: Duration) -> i64 {
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        match self.checked {
            Some(checked) => seconds(ttl).saturating_sub(seconds(checked.elapsed())),
            None => i64::MIN,
        }
    }

    pub(super) fn is_fresh(&self, ttl: Duration) -> bool {
        self.checked.is_some_and(|checked| checked.elapsed() < ttl)
    }

    /// Whether upstream last said so longer ago than `limit`.
    pub(super) fn exceeds(&self, limit: Duration) -> bool {
        self.checked.is_none_or(|checked| checked.elapsed() > limit)
    }

    /// Whether upstream said so after it said that.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        self.checked > other.checked
    }

    /// When upstream last said so, in words.
    pub(super) fn words(&self) -> String {
        self.checked.map_or_else(
            || "at a time that the clock cannot tell".to_owned(),
            |checked| format!("{} ago", humantime::format_duration(Duration::from_secs(checked.elapsed().as_secs()))),
        )
    }

    /// Whether upstream may be asked again already.
    pub(super) fn may_ask(&self) -> bool {
        self.retry.is_none_or(|retry| retry <= Instant::now())
    }
}

/// A tag as it is known here.
#[derive(Clone, Copy, Debug)]
pub(super) struct TagState {
    /// The manifest it named when it was last seen.
    pub(super) digest: Digest,
    /// When that was.
    pub(super) age: Age,
}

impl From<TagLink> for TagState {
    fn from(link: TagLink) -> Self {
        Self { digest: link.digest, age: Age::since(link.seen) }
    }
}

impl Freshness {
    pub(super) fn new(settings: &FreshnessSettings) -> Self {
        Self {
            ttl: settings.tag_ttl,
            revalidate_wait: settings.revalidate_wait,
            max_stale: settings.max_stale,
            negative_ttl: settings.negative_ttl,
            immutable: settings.immutable_tags.clone(),
        }
    }

    /// The same, but for what a rule says.
    fn with(&self, rule: &FreshnessRule) -> Self {
        Self {
            ttl: rule.tag_ttl.unwrap_or(self.ttl),
            revalidate_wait: self.revalidate_wait,
            max_stale: rule.max_stale.or(self.max_stale),
            negative_ttl: rule.negative_ttl.unwrap_or(self.negative_ttl),
            immutable: rule.immutable_tags.clone().unwrap_or_else(|| self.immutable.clone()),
        }
    }

    /// Time for which `tag` is good: a shorter one for the tags beside an image, where a missing signature is a failed deployment.
    pub(super) fn ttl_of(&self, tag: &Tag) -> Duration {
        if is_fallback_tag(tag.as_str()) { self.brief_ttl() } else { self.ttl }
    }

    /// Time for which a list of referrers is good.
    pub(super) fn brief_ttl(&self) -> Duration {
        self.ttl.min(BRIEF_TTL)
    }

    /// Whether `tag` is one that never moves. Those beside an image do, with each signature, whatever the pattern.
    pub(super) fn is_immutable(&self, tag: &Tag) -> bool {
        !is_fallback_tag(tag.as_str())
            && self.immutable.iter().any(|pattern| matches(pattern.as_bytes(), tag.as_str().as_bytes()))
    }

    /// Seconds for which `tag`, last seen at `age`, is still good; `None` for one that never moves.
    pub(super) fn left(&self, tag: &Tag, age: &Age) -> Option<i64> {
        (!self.is_immutable(tag)).then(|| age.ttl(self.ttl_of(tag)))
    }

    /// Whether a tag in `state` may be served without asking.
    pub(super) fn is_fresh(&self, tag: &Tag, state: &TagState) -> bool {
        state.age.is_fresh(self.ttl_of(tag)) || self.is_immutable(tag)
    }
}

/// When another larder could last confirm what it calls stale, if content is fresh there for as long as here.
pub(super) fn last_confirmed(stale: &Unconfirmed, ttl: Duration) -> SystemTime {
    SystemTime::now().checked_sub(ttl.saturating_add(stale.late)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `sha256-<hex>`, with or without `.sig` and the like: written by clients beside an image (distribution specification,
/// "Referrers Tag Schema"; cosign).
pub(super) fn is_fallback_tag(tag: &str) -> bool {
    tag.starts_with("sha256-") || tag.starts_with("sha512-")
}

/// `*` stands for any characters. The pattern is the operator's; the work is bounded by the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut resume = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            resume = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, from)) = resume {
            // Let the last star swallow one character more.
            resume = Some((star, from + 1));
            (p, t) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("v*", "v1.2", true),
            ("v*", "nightly", false),
            ("*", "x", true),
            ("v1", "v1", true),
            ("v1", "v12", false),
            ("*-rc*", "v1-rc3", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_names_a_repository_holds_for_it() {
        let [one, two, three] = [1, 2, 3].map(Duration::from_secs);
        let rule = |pattern: &str, tag_ttl| FreshnessRule {
            repositories: vec![RepositoryPattern::new("r.io/nothing"), RepositoryPattern::new(pattern)],
            tag_ttl: Some(tag_ttl),
            ..FreshnessRule::default()
        };
        let first =
            FreshnessRule { immutable_tags: Some(vec!["*".into()]), max_stale: Some(two), ..rule("r.io/a/**", one) };
        let rules = FreshnessRules::new(&FreshnessSettings {
            tag_ttl: three,
            max_stale: Some(three),
            rules: vec![first, FreshnessRule { negative_ttl: Some(one), ..rule("**", two) }],
            ..FreshnessSettings::default()
        });
        let of = |name: &str| {
            let registry = crate::oci::Registry::new("r.io");
            rules.of(&Repository { registry, name: name.parse().unwrap() })
        };
        let (a, b) = (of("a/b"), of("b"));
        assert_eq!((a.ttl, a.max_stale, a.negative_ttl), (one, Some(two), FreshnessSettings::default().negative_ttl));
        assert_eq!((b.ttl, b.max_stale, b.negative_ttl), (two, Some(three), one));
        let (tag, beside) = ("v1".parse().unwrap(), format!("sha256-{}", "a".repeat(64)).parse().unwrap());
        assert!(a.is_immutable(&tag) && !b.is_immutable(&tag));
        assert!(!a.is_immutable(&beside), "a signature may come at any time");
        assert_eq!(rules.other.ttl, three);
    }

    /// Whatever wrote the time, and whatever the clock says now: never fresh for longer than the TTL, and no panic.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_makes_nothing_fresh_for_ever() {
        const TTL: Duration = Duration::from_secs(60);
        let year = Duration::from_secs(365 * 24 * 3600);
        let now = SystemTime::now();
        let times = [now + 100 * year, now + year, now + TTL * 2, now - TTL, now - year, SystemTime::UNIX_EPOCH];
        for seen in times {
            let age = Age::since(seen);
            assert!(!age.is_fresh(TTL), "{seen:?}");
            assert!(age.exceeds(TTL / 2) && age.ttl(TTL) <= 0 && !age.words().is_empty(), "{seen:?}");
        }
        let age = Age::since(now);
        assert!(age.is_fresh(TTL));
        // From here on the process's own clock counts.
        tokio::time::advance(TTL).await;
        assert!(!age.is_fresh(TTL));
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_confirmed_is_left_alone_for_a_second() {
        let age = Age::new();
        assert!(age.may_ask());
        let postponed = age.postponed();
        tokio::time::advance(RETRY_PAUSE.saturating_sub(Duration::from_millis(1))).await;
        assert!(!postponed.may_ask());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(postponed.may_ask());
        assert_eq!(postponed.checked, age.checked, "it is as old as before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tag_is_fresh_for_its_ttl_and_a_clock_set_back_makes_it_old() {
        let freshness = Freshness::new(&FreshnessSettings {
            tag_ttl: Duration::from_secs(60),
            immutable_tags: vec!["v*".into()],
            ..FreshnessSettings::default()
        });
        let digest = Digest::of(crate::oci::Algorithm::Sha256, b"");
        let (moving, fixed): (Tag, Tag) = ("latest".parse().unwrap(), "v1".parse().unwrap());
        let state = TagState { digest, age: Age::new() };
        assert!(freshness.is_fresh(&moving, &state));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!freshness.is_fresh(&moving, &state));
        assert!(freshness.is_fresh(&fixed, &state));
        assert!(state.age.ttl(freshness.ttl) < 0);
        let future = TagState::from(TagLink { digest, seen: SystemTime::now() + Duration::from_secs(3600) });
        assert!(!freshness.is_fresh(&moving, &future));
    }
}
