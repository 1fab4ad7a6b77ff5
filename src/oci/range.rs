/// Bytes `start..end` of a content, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    #[must_use]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// The value of `Content-Range` for this part of `length` bytes.
    #[must_use]
    pub fn content_range(self, length: u64) -> String {
        format!("bytes {}-{}/{length}", self.start, self.end - 1)
    }
}

/// A `Range` header that asks for one range, before the length of the content is known (RFC 9110, section 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// `bytes=a-b`, both inclusive; an open end is `u64::MAX`.
    From(u64, u64),
    /// `bytes=-n`: the last n bytes.
    Suffix(u64),
}

/// The range lies outside the content: 416, with the content's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsatisfiable;

impl RangeRequest {
    /// Reads a `Range` header. `None` for what a server ignores (another unit, a malformed or reversed range, several ranges),
    /// after which the whole content is the answer.
    ///
    /// `500-0` is syntactically reversed, and RFC 9110 would have it ignored; the OCI conformance program wants 416 there, and
    /// so it is a range that can never be satisfied.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.trim().split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        let (first, last) = (first.trim(), last.trim());
        if first.is_empty() {
            return Some(Self::Suffix(number(last)?));
        }
        let last = if last.is_empty() { u64::MAX } else { number(last)? };
        Some(Self::From(number(first)?, last))
    }

    /// The bytes that are meant in a content of `length` bytes, cut at its end (regctl asks for one past it).
    ///
    /// # Errors
    /// [`Unsatisfiable`] if not one byte of the content is asked for.
    pub fn resolve(self, length: u64) -> Result<ByteRange, Unsatisfiable> {
        let (start, end) = match self {
            Self::From(first, last) => (first, last.saturating_add(1).min(length)),
            Self::Suffix(count) => (length.saturating_sub(count), length),
        };
        if start < end { Ok(ByteRange { start, end }) } else { Err(Unsatisfiable) }
    }
}

/// Digits only: `+5` parses as a number in Rust and is none in HTTP. More digits than fit mean "to the end".
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(header: &str, length: u64) -> Option<Result<(u64, u64), Unsatisfiable>> {
        RangeRequest::parse(header).map(|r| r.resolve(length).map(|r| (r.start, r.end)))
    }

    #[test]
    fn ranges_of_the_conformance_program() {
        assert_eq!(ask("bytes=500-1499", 2000), Some(Ok((500, 1500))));
        assert_eq!(ask("bytes=500-", 2000), Some(Ok((500, 2000))));
        assert_eq!(ask("bytes=-500", 2000), Some(Ok((1500, 2000))));
        assert_eq!(ask("bytes=1000-5000", 2000), Some(Ok((1000, 2000))));
        assert_eq!(ask("bytes=500-0", 2000), Some(Err(Unsatisfiable)));
        assert_eq!(ask("bytes=5000-10000", 2000), Some(Err(Unsatisfiable)));
    }

    #[test]
    fn edges() {
        assert_eq!(ask("bytes=733996-2400574", 2_400_574), Some(Ok((733_996, 2_400_574))), "regctl: one past the end");
        assert_eq!(ask("bytes=0-0", 1), Some(Ok((0, 1))));
        assert_eq!(ask("bytes=-0", 5), Some(Err(Unsatisfiable)));
        assert_eq!(ask("bytes=-9", 5), Some(Ok((0, 5))));
        assert_eq!(ask("bytes=0-", 0), Some(Err(Unsatisfiable)));
        assert_eq!(ask("bytes=0-99999999999999999999999", 5), Some(Ok((0, 5))));
        assert_eq!(ask("BYTES = 1 - 2", 5), Some(Ok((1, 3))));
        for ignored in
            ["", "bytes", "bytes=", "bytes=-", "items=0-1", "bytes=a-b", "bytes=+1-2", "bytes=0-1,3-4", "bytes=--1"]
        {
            assert_eq!(ask(ignored, 5), None, "{ignored}");
        }
    }
}
