//! Pins: what the repositories that match `[store] pin` have here is never removed to make room.
//!
//! A manifest pins all that it refers to. What links say at the start is found by a walk, before which nothing is removed at all;
//! what is linked later is pinned at once. What is unlinked stays pinned until the next start.

use super::files::lock;
use crate::oci::{Digest, Repository};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The patterns and what they have pinned so far.
pub(super) struct Pins {
    patterns: Vec<Vec<Token>>,
    digests: Mutex<HashSet<Digest>>,
    ready: AtomicBool,
}

/// A part of a pattern.
enum Token {
    Byte(u8),
    /// `*`: anything within one component.
    Component,
    /// `**`: anything.
    Anything,
}

impl Pins {
    pub(super) fn new(patterns: &[String]) -> Self {
        let ready = AtomicBool::new(patterns.is_empty());
        Self { patterns: patterns.iter().map(|pattern| parse(pattern)).collect(), digests: Mutex::default(), ready }
    }

    /// Whether all that is pinned is known.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn concern(&self, repository: &Repository) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let name = format!("{}/{}", repository.registry, repository.name);
        self.patterns.iter().any(|pattern| matches(pattern, &name))
    }

    /// Content that a repository has.
    pub(super) fn add(&self, repository: &Repository, digests: impl IntoIterator<Item = Digest>) {
        if self.concern(repository) {
            lock(&self.digests).extend(digests);
        }
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        !self.patterns.is_empty() && lock(&self.digests).contains(digest)
    }
}

fn parse(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut bytes = pattern.bytes().peekable();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'*' if bytes.next_if_eq(&b'*').is_some() => Token::Anything,
            b'*' => Token::Component,
            other => Token::Byte(other),
        });
    }
    tokens
}

/// Keeps the set of places in the pattern that the text so far leads to, so that no pattern takes long.
fn matches(pattern: &[Token], text: &str) -> bool {
    let skip = |places: &mut [bool]| {
        for (at, token) in pattern.iter().enumerate() {
            places[at + 1] |= places[at] && !matches!(token, Token::Byte(_));
        }
    };
    let mut places = vec![false; pattern.len() + 1];
    places[0] = true;
    skip(&mut places);
    for byte in text.bytes() {
        let mut next = vec![false; pattern.len() + 1];
        for (at, token) in pattern.iter().enumerate().filter(|(at, _)| places[*at]) {
            match token {
                Token::Byte(expected) => next[at + 1] |= *expected == byte,
                Token::Component => next[at] |= byte != b'/',
                Token::Anything => next[at] = true,
            }
        }
        skip(&mut next);
        places = next;
    }
    places[pattern.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("a.io/base/**", "a.io/base/x", true),
            ("a.io/base/**", "a.io/base/x/y", true),
            ("a.io/base/**", "a.io/basement", false),
            ("a.io/base/*", "a.io/base/x/y", false),
            ("a.io/*/x", "a.io/base/x", true),
            ("a.io/b*e", "a.io/base", true),
            ("**", "a.io/anything/at/all", true),
            ("**/x", "a.io/y/x", true),
            ("a.io/base", "a.io/base", true),
            ("a.io/base", "a.io/base2", false),
            ("", "a.io/base", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(&parse(pattern), name), expected, "{pattern} {name}");
        }
        assert!(!matches(&parse(&"**a".repeat(200)), &"a".repeat(199)));
    }
}
