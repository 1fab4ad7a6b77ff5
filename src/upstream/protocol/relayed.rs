//! Other larders on the way. `Via` names those that a request has passed; `Cache-Status` and `Warning` say where the answer of an
//! upstream that is a larder itself came from.
//!
//! Every request upstream carries this upstream's pseudonym, and those of the larders that have lately asked for it here: an
//! answer may be for several of them. A pseudonym that comes back is a circle. It is made anew by each
//! process for each of its upstreams and says nothing about the machine. Registries ignore `Via`. Some servers send nothing
//! compressed to those who send it, which is what larder wants.

use http::header::{VIA, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What the pseudonym of every larder begins with.
const PREFIX: &str = "larder-";
/// Bytes of randomness in it.
const RANDOM: usize = 8;
/// Other larders that are named to an upstream at most …
const PASSERS: usize = 16;
/// … and for how long after their last request.
const PASSED: Duration = Duration::from_secs(60);
/// Longest header of another cache that is kept, in bytes.
const MAX_TEXT: usize = 1024;
/// What a larder's warning about a stale answer begins with.
const STALE: &str = "stored copy, not confirmed by upstream: ";

/// Who asks an upstream, and for whom.
pub(in crate::upstream) struct Passers {
    own: String,
    others: Mutex<VecDeque<(String, Instant)>>,
}

impl Default for Passers {
    fn default() -> Self {
        let mut random = [0; RANDOM];
        // Without random bytes all pseudonyms are alike, and a larder behind a larder is taken for a circle: that is said, at once.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let mut own = PREFIX.to_owned();
        for byte in random {
            let _ = write!(own, "{byte:02x}");
        }
        Self { own, others: Mutex::default() }
    }
}

impl Passers {
    /// Notes the larders that a request for this upstream has passed, and says whether there are new ones. `None`: it has passed this
    /// one, and goes in a circle.
    pub(in crate::upstream) fn note(&self, headers: &HeaderMap) -> Option<bool> {
        let mut news = false;
        let lines = headers.get_all(VIA).iter().filter_map(|line| line.to_str().ok());
        let names = lines.flat_map(|line| line.split(',')).filter_map(|entry| entry.split_ascii_whitespace().nth(1));
        for name in names.filter(|name| is_pseudonym(name)).take(PASSERS) {
            if name == self.own {
                return None;
            }
            let mut others = self.others.lock();
            let known = others.len();
            others.retain(|(other, _)| other != name);
            news |= others.len() == known;
            others.push_back((name.to_owned(), Instant::now()));
            if others.len() > PASSERS {
                others.pop_front();
            }
        }
        Some(news)
    }

    /// `Via` of a request upstream.
    pub(in crate::upstream) fn via(&self) -> Option<HeaderValue> {
        let mut others = self.others.lock();
        others.retain(|(_, last)| last.elapsed() < PASSED);
        let names = others.iter().map(|(name, _)| name).chain([&self.own]);
        let entries: Vec<_> = names.map(|name| format!("1.1 {name}")).collect();
        HeaderValue::try_from(entries.join(", ")).ok()
    }
}

fn is_pseudonym(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX).unwrap_or_default();
    random.len() == 2 * RANDOM && random.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the caches between an upstream and its registry say of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Their `Cache-Status`.
    pub status: Option<Arc<str>>,
    /// That the answer is an old one, which that larder could not confirm.
    pub stale: Option<Unconfirmed>,
}

/// An answer that a larder gave although it was out of date there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Why it could not be confirmed.
    pub why: Arc<str>,
    /// For how long it had been out of date.
    pub late: Duration,
}

impl Relayed {
    /// What the head of an answer says.
    pub(in crate::upstream) fn of(headers: &HeaderMap) -> Self {
        let status = text(headers, &CACHE_STATUS);
        let late = status.as_deref().and_then(|status| status.split(',').find_map(late));
        let stale = late.map(|late| {
            let warning = text(headers, &WARNING).unwrap_or_default();
            let words = warning.split('"').nth(1).unwrap_or("it does not say why");
            Unconfirmed { why: Arc::from(words.strip_prefix(STALE).unwrap_or(words)), late }
        });
        Self { status: status.map(Arc::from), stale }
    }
}

/// For how long the answer has been out of date, if a member of `Cache-Status` is a larder's that could not confirm it.
fn late(member: &str) -> Option<Duration> {
    let mut parts = member.split(';').map(str::trim);
    let is_larder = parts.next() == Some("larder");
    let parts: Vec<_> = parts.collect();
    let ttl = parts.iter().find_map(|part| part.strip_prefix("ttl=-")?.parse().ok()).unwrap_or_default();
    (is_larder && parts.contains(&"detail=stale")).then(|| Duration::from_secs(ttl))
}

/// Whether a larder gave the answer: all of its answers say so.
pub(in crate::upstream) fn is_larder(headers: &HeaderMap) -> bool {
    let member = |member: &str| member.split(';').next().is_some_and(|name| name.trim() == "larder");
    text(headers, &CACHE_STATUS).is_some_and(|status| status.split(',').any(member))
}

/// All lines of a header in one, if that is not too long and can be sent on.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().map(HeaderValue::to_str).collect::<Result<_, _>>().ok()?;
    let text = lines.join(", ");
    (!text.is_empty() && text.len() <= MAX_TEXT).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    fn entries(passers: &Passers) -> Vec<String> {
        passers.via().unwrap().to_str().unwrap().split(", ").map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_passed_a_request_on_is_named_for_a_minute_and_never_twice() {
        let passers = Passers::default();
        let own = entries(&passers);
        assert_eq!(own.len(), 1);
        let other = Passers::default().via().unwrap().to_str().unwrap().to_owned();
        for _ in 0..2 {
            assert!(passers.note(&headers(&[(VIA, "1.1 nginx, 1.0 larder-short"), (VIA, &other)])).is_some());
        }
        assert_eq!(entries(&passers), [other.clone(), own[0].clone()]);
        tokio::time::advance(PASSED).await;
        assert_eq!(entries(&passers), own);
    }

    #[test]
    fn an_own_pseudonym_that_comes_back_is_a_circle() {
        let (first, second) = (Passers::default(), Passers::default());
        let passed = headers(&[(VIA, first.via().unwrap().to_str().unwrap())]);
        assert_eq!([second.note(&passed), second.note(&passed)], [Some(true), Some(false)]);
        assert_eq!(first.note(&headers(&[(VIA, second.via().unwrap().to_str().unwrap())])), None);
        assert_eq!(second.note(&HeaderMap::new()), Some(false));
    }

    #[test]
    fn few_others_are_named() {
        let passers = Passers::default();
        for _ in 0..100 {
            let passed = headers(&[(VIA, Passers::default().via().unwrap().to_str().unwrap())]);
            assert_eq!(passers.note(&passed), Some(true));
        }
        assert_eq!(entries(&passers).len(), PASSERS + 1);
    }

    #[test]
    fn a_larder_that_could_not_confirm_its_answer_is_understood() {
        let said = |status: &str, warning: &str| Relayed::of(&headers(&[(CACHE_STATUS, status), (WARNING, warning)]));
        let stale = said(
            "larder; hit, larder; fwd=stale; ttl=-5; detail=stale",
            "299 - \"stored copy, not confirmed by upstream: no way\"",
        );
        let unconfirmed = stale.stale.unwrap();
        assert_eq!((&*unconfirmed.why, unconfirmed.late.as_secs()), ("no way", 5));
        assert_eq!(stale.status.as_deref(), Some("larder; hit, larder; fwd=stale; ttl=-5; detail=stale"));
        assert_eq!(&*said("larder; fwd=stale; detail=stale", "199 x").stale.unwrap().why, "it does not say why");
        for fresh in ["larder; hit; ttl=5", "other; fwd=stale; detail=stale", "larder; fwd=stale; detail=revalidated"] {
            assert_eq!(said(fresh, "299 - \"deprecated\"").stale, None, "{fresh}");
        }
        assert_eq!(Relayed::of(&HeaderMap::new()), Relayed::default());
        assert_eq!(said(&"x".repeat(2000), "").status, None);
    }
}
