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

/// One range of a `Range` header, before the length of the content is known (RFC 9110, section 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// `bytes=a-b`, both inclusive; an open end is `u64::MAX`.
    From(u64, u64),
    /// `bytes=-n`: the last n bytes.
    Suffix(u64),
}

/// Ranges that one request may ask for: twice what clients of zstd:chunked images do, whose lists have 1,024.
pub const MAX_RANGES: usize = 2048;

/// What the `Range` of a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// One part.
    One(RangeRequest),
    /// Several parts, in this order: two at least.
    Many(Vec<RangeRequest>),
}

/// More than [`MAX_RANGES`] ranges: 400, after which clients that ask for many ask for fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request asks for more than {MAX_RANGES} ranges: ask for fewer at a time, or for one range that covers them"
)]
pub struct TooManyRanges;

impl Ranges {
    /// Reads all lines of `Range` as one list, in which each line may repeat the unit. `None` for what a server ignores (another
    /// unit, anything malformed), after which the whole content is the answer.
    ///
    /// # Errors
    /// [`TooManyRanges`].
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Option<Self>, TooManyRanges> {
        let mut ranges = Vec::new();
        for (number, line) in lines.into_iter().enumerate() {
            let set = match line.split_once('=') {
                Some((unit, set)) if unit.trim().eq_ignore_ascii_case("bytes") => set,
                None if number > 0 => line,
                _ => return Ok(None),
            };
            // An empty element of a list says nothing (RFC 9110, section 5.6.1).
            for range in set.split(',').map(str::trim).filter(|range| !range.is_empty()) {
                let Some(range) = RangeRequest::read(range) else { return Ok(None) };
                ranges.push(range);
                if ranges.len() > MAX_RANGES {
                    return Err(TooManyRanges);
                }
            }
        }
        Ok(match ranges[..] {
            [] => None,
            [only] => Some(Self::One(only)),
            _ => Some(Self::Many(ranges)),
        })
    }
}

/// The parts that `asked` means in a content of `length` bytes, in the order asked for; those outside it are left out.
///
/// `None`: the whole content is the better answer. That is so when no part is left, since 416 breaks clients of zstd:chunked
/// images, and when the parts together are longer than the content: only overlapping ones are, which RFC 9110 (section 14.2)
/// has servers ignore, so that a small request cannot ask for a multiple of the content.
#[must_use]
pub fn resolve_many(asked: &[RangeRequest], length: u64) -> Option<Vec<ByteRange>> {
    let parts: Vec<ByteRange> = asked.iter().filter_map(|range| range.resolve(length).ok()).collect();
    let total = parts.iter().try_fold(0_u64, |total, part| total.checked_add(part.len()))?;
    (!parts.is_empty() && total <= length).then_some(parts)
}

/// The range lies outside the content: 416, with the content's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsatisfiable;

impl RangeRequest {
    /// Reads `a-b`, `a-` or `-n`.
    ///
    /// `500-0` is syntactically reversed, and RFC 9110 would have it ignored; the OCI conformance program wants 416 there, and
    /// so it is a range that can never be satisfied.
    fn read(range: &str) -> Option<Self> {
        let (first, last) = range.split_once('-')?;
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
        match Ranges::parse([header]).unwrap()? {
            Ranges::One(range) => Some(range.resolve(length).map(|r| (r.start, r.end))),
            Ranges::Many(several) => panic!("{several:?}"),
        }
    }

    fn ask_many(lines: &[&str], length: u64) -> Option<Vec<(u64, u64)>> {
        let Some(Ranges::Many(several)) = Ranges::parse(lines.iter().copied()).unwrap() else { panic!("{lines:?}") };
        resolve_many(&several, length).map(|parts| parts.into_iter().map(|part| (part.start, part.end)).collect())
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
            ["", "bytes", "bytes=", "bytes=-", "items=0-1", "bytes=a-b", "bytes=+1-2", "bytes=0-1,x", "bytes=--1"]
        {
            assert_eq!(ask(ignored, 5), None, "{ignored}");
        }
    }

    #[test]
    fn several_ranges_keep_their_order_and_those_outside_are_left_out() {
        assert_eq!(ask_many(&["bytes=5-6,0-1"], 9), Some(vec![(5, 7), (0, 2)]));
        assert_eq!(ask_many(&["bytes= 0-1 ,, 9-,-2,"], 9), Some(vec![(0, 2), (7, 9)]));
        assert_eq!(ask_many(&["bytes=0-0,0-0"], 2), Some(vec![(0, 1), (0, 1)]));
        assert_eq!(ask_many(&["bytes=3-2,0-0"], 2), Some(vec![(0, 1)]));
        assert_eq!(ask_many(&["bytes=9-,10-11"], 9), None, "none is left");
        assert_eq!(ask_many(&["bytes=0-8,8-8"], 9), None, "longer than the content");
        assert_eq!(ask("bytes=0-1,", 5), Some(Ok((0, 2))));
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(ask_many(&["bytes=0-1", "bytes=3-4"], 9), Some(vec![(0, 2), (3, 5)]));
        assert_eq!(ask_many(&["bytes=0-1", "3-4,6-6"], 9), Some(vec![(0, 2), (3, 5), (6, 7)]));
        assert_eq!(Ranges::parse(["0-1", "bytes=3-4"]), Ok(None), "the first line names the unit");
        assert_eq!(Ranges::parse(["bytes=0-1", "items=3-4"]), Ok(None));
        assert_eq!(Ranges::parse([]), Ok(None));
    }

    #[test]
    fn the_number_of_ranges_is_bounded() {
        let list = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
        let Ok(Some(Ranges::Many(most))) = Ranges::parse([&*list(MAX_RANGES)]) else { panic!() };
        assert_eq!(most.len(), MAX_RANGES);
        assert_eq!(Ranges::parse([&*list(MAX_RANGES + 1)]), Err(TooManyRanges));
    }
}
