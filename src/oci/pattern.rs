use super::name::Repository;
use std::fmt;

/// A pattern for repositories, as `<upstream>/<repository>`: `*` stands for anything within one component, `**` for anything.
#[derive(Clone, PartialEq, Eq)]
pub struct RepositoryPattern {
    text: String,
    tokens: Vec<Token>,
}

/// A part of a pattern.
#[derive(Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `*`
    Component,
    /// `**`
    Anything,
}

impl RepositoryPattern {
    /// Reads a pattern; every text is one, though it may match no repository.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut bytes = text.bytes().peekable();
        while let Some(byte) = bytes.next() {
            tokens.push(match byte {
                b'*' if bytes.next_if_eq(&b'*').is_some() => Token::Anything,
                b'*' => Token::Component,
                other => Token::Byte(other),
            });
        }
        Self { text: text.to_owned(), tokens }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern stands for this repository.
    #[must_use]
    pub fn matches(&self, repository: &Repository) -> bool {
        self.matches_text(&format!("{}/{}", repository.registry, repository.name))
    }

    /// Keeps the set of places in the pattern that the text so far leads to, so that no pattern takes long.
    fn matches_text(&self, text: &str) -> bool {
        let skip = |places: &mut [bool]| {
            for (at, token) in self.tokens.iter().enumerate() {
                places[at + 1] |= places[at] && !matches!(token, Token::Byte(_));
            }
        };
        let mut places = vec![false; self.tokens.len() + 1];
        places[0] = true;
        skip(&mut places);
        for byte in text.bytes() {
            let mut next = vec![false; self.tokens.len() + 1];
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| places[*at]) {
                match token {
                    Token::Byte(expected) => next[at + 1] |= *expected == byte,
                    Token::Component => next[at] |= byte != b'/',
                    Token::Anything => next[at] = true,
                }
            }
            skip(&mut next);
            places = next;
        }
        places[self.tokens.len()]
    }
}

impl fmt::Debug for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
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
            assert_eq!(RepositoryPattern::new(pattern).matches_text(name), expected, "{pattern} {name}");
        }
        assert!(!RepositoryPattern::new(&"**a".repeat(200)).matches_text(&"a".repeat(199)));
    }
}
