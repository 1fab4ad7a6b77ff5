//! The text of a `Location`, as clients read it: what no address may have is percent-encoded, dots in a path lead where they lead.
//!
//! Everything else stays byte for byte as it was written: `//` and percent-encoding are part of what storage has signed.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A header's value as an address; `None` for an empty one.
pub(in crate::upstream) fn of(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'!' | b'#'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => text.push(char::from(*byte)),
            // Writing to a text cannot fail.
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The path and query without `.` and `..` (RFC 3986, 5.2.4).
pub(in crate::upstream) fn without_dots(path_and_query: &str) -> Cow<'_, str> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    if !path.split('/').any(|part| part == "." || part == "..") {
        return Cow::Borrowed(path_and_query);
    }
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let mut kept: Vec<&str> = Vec::with_capacity(parts.len());
    for (place, part) in parts.iter().enumerate() {
        let last = place + 1 == parts.len();
        match *part {
            ".." => drop(kept.pop()),
            "." => {}
            part => {
                kept.push(part);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Cow::Owned(format!("/{}{query}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_address_may_have_is_encoded_and_the_rest_kept() {
        for (value, want) in [
            (&b" http://h/a b?x=1 2 "[..], "http://h/a%20b?x=1%202"),
            (b"/d/\xc3\xa4\"<>\\^`{|}", "/d/%C3%A4%22%3C%3E%5C%5E%60%7B%7C%7D"),
            (b"https://s.net/id//x%3Ay?sig=a%2Bb&se=1:2#f", "https://s.net/id//x%3Ay?sig=a%2Bb&se=1:2#f"),
            (b"http://[::1]:5/~a_b", "http://[::1]:5/~a_b"),
        ] {
            assert_eq!(of(value).as_deref(), Some(want));
        }
        assert_eq!(of(b"  "), None);
    }

    #[test]
    fn dots_lead_where_they_lead() {
        for (path, want) in [
            ("/a/./b", "/a/b"),
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/../../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a//b/../c", "/a//c"),
            ("/a...b/..c?d", "/a...b/..c?d"),
            ("", ""),
        ] {
            assert_eq!(without_dots(path), want, "{path}");
        }
    }
}
