//! Sizes, rates and durations: numbers that need a unit.

use super::reader::{Reading, Setting};
use super::tree::{Node, Value};
use super::values::{parsed, quote};
use std::time::Duration;

/// Longest unit first, so that `GiB` is not read as `B`.
const UNITS: [(&str, u64); 10] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let advice = r#"write a number with a unit, such as "10GiB" or "500MB""#;
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(0);
    }
    let unit = UNITS.iter().find(|(unit, _)| {
        trimmed.len() > unit.len()
            && trimmed.get(trimmed.len() - unit.len()..).is_some_and(|end| end.eq_ignore_ascii_case(unit))
    });
    let Some((unit, factor)) = unit else {
        let bare = trimmed.bytes().all(|b| b.is_ascii_digit()) && !trimmed.is_empty();
        return Err(format!("size '{text}' {}: {advice}", if bare { "has no unit" } else { "is not understood" }));
    };
    let number = trimmed[..trimmed.len() - unit.len()].trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(format!("size '{text}' is not understood: {advice}"));
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(18));
    let parsed = whole.parse::<u128>().ok().zip(fraction.parse::<u128>().ok());
    let bytes = parsed.map(|(whole, fraction)| (whole * scale + fraction) * u128::from(*factor) / scale);
    // The bound is what signed file offsets can hold.
    bytes
        .and_then(|bytes| u64::try_from(bytes).ok())
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| format!("size '{text}' is too large: {advice}"))
}

pub(super) fn show_size(bytes: u64) -> String {
    let unit = UNITS[..5].iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

const DAY: u64 = 24 * 3600;
/// Longer than anybody waits: what is added to a time, or multiplied, must not overflow.
const LONGEST: Duration = Duration::from_secs(36_500 * DAY);

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let advice = r#"write a number with a unit, such as "500ms", "30s", "5m" or "1h""#;
    if !text.trim().is_empty() && text.trim().bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("duration '{text}' has no unit: {advice}"));
    }
    let duration = humantime::parse_duration(text.trim());
    let duration = duration.map_err(|_| format!("duration '{text}' is not understood: {advice}"))?;
    if duration > LONGEST {
        return Err(format!("duration '{text}' is longer than {} days: {advice}", LONGEST.as_secs() / DAY));
    }
    Ok(duration)
}

/// As [`parsed`], for what is written with a unit and looks like a number without.
fn with_unit<T>(
    node: &Node,
    (what, expected, example): (&str, &str, [&str; 2]),
    at: &mut Reading<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    if let (Value::Integer(number), None) = (&node.value, &node.text) {
        let [one, other] = example;
        at.wrong(node, format!("{what} {number} has no unit: write \"{number}{one}\" or \"{number}{other}\""));
        return None;
    }
    parsed(node, expected, at, parse)
}

fn bytes(node: &Node, at: &mut Reading<'_>, parse: impl Fn(u64) -> Result<u64, String>) -> Option<u64> {
    let words = ("size", r#"write a size such as "10GiB""#, ["B", "GiB"]);
    with_unit(node, words, at, |text| parse_size(text).and_then(&parse))
}

fn duration(node: &Node, at: &mut Reading<'_>) -> Option<Duration> {
    with_unit(node, ("duration", r#"write a duration such as "30s""#, ["s", "m"]), at, parse_duration)
}

/// Bytes, written with a unit.
pub(super) struct Size;

impl Setting for Size {
    type Value = u64;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<u64> {
        bytes(node, at, Ok)
    }
    fn show(value: &u64) -> String {
        quote(&show_size(*value))
    }
}

/// The memory for large documents: a long list has to fit, with the page that is being read.
pub(super) struct DocumentMemory;

impl Setting for DocumentMemory {
    type Value = u64;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<u64> {
        bytes(node, at, |size| match size {
            size if size >= 32 << 20 => Ok(size),
            _ => Err(r#"too small: write a size of "32MiB" or more"#.to_owned()),
        })
    }
    fn show(value: &u64) -> String {
        Size::show(value)
    }
}

/// The size of a store, which cannot be nothing.
pub(super) struct StoreSize;

impl Setting for StoreSize {
    type Value = u64;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<u64> {
        bytes(node, at, |size| match size {
            0 => Err(r#"a store of no size keeps nothing: write a size such as "100GiB""#.to_owned()),
            size => Ok(size),
        })
    }
    fn show(value: &u64) -> String {
        Size::show(value)
    }
}

/// The size of a buffer for a request's head.
pub(super) struct HeaderSize;

impl Setting for HeaderSize {
    type Value = usize;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<usize> {
        // hyper takes no smaller buffer than 8 KiB.
        let size = bytes(node, at, |size| match size {
            size if (8 << 10..=16 << 20).contains(&size) => Ok(size),
            _ => Err(r#"out of range: write a size from "8KiB" to "16MiB""#.to_owned()),
        });
        usize::try_from(size?).ok()
    }
    fn show(value: &usize) -> String {
        Size::show(&(*value as u64))
    }
}

/// Bytes per second; `None`, written "0": no limit.
pub(super) struct Rate;

impl Setting for Rate {
    type Value = Option<u64>;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Option<u64>> {
        if matches!(node.value, Value::Integer(0)) {
            return Some(None);
        }
        let bytes = Size::read(node, at)?;
        Some((bytes > 0).then_some(bytes))
    }
    fn show(value: &Option<u64>) -> String {
        value.as_ref().map_or_else(|| quote("0"), Size::show)
    }
}

impl Setting for Duration {
    type Value = Self;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self> {
        duration(node, at)
    }
    fn show(value: &Self) -> String {
        quote(&humantime::format_duration(*value).to_string())
    }
}

/// A time limit, which cannot be zero.
pub(super) struct TimeLimit;

impl Setting for TimeLimit {
    type Value = Duration;
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Duration> {
        let value = duration(node, at)?;
        if value.is_zero() {
            let message = r#"a time limit of zero would end everything at once: write a duration such as "30s""#;
            at.wrong(node, message.to_owned());
        }
        Some(value)
    }
    fn show(value: &Duration) -> String {
        Duration::show(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_print_as_they_parse() {
        for (text, bytes) in [
            ("10GiB", 10 << 30),
            ("500MB", 500_000_000),
            ("1.5KiB", 1536),
            ("0B", 0),
            ("2 tib", 2 << 40),
            ("1kB", 1000),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes), "{text}");
        }
        assert!(parse_size("100").unwrap_err().contains("has no unit"));
        for text in ["", "GiB", "-1GiB", "1e3MB", "10Gi", "x", "99999999999PiB", "1..5GB", "ä", "8388608PiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("36500d"), Ok(LONGEST));
        for text in ["36501d", "99999999999d", "9999999999999s", "101years"] {
            assert!(parse_duration(text).unwrap_err().contains("is longer than 36500 days"), "{text}");
        }
        for text in ["0", "30"] {
            assert!(parse_duration(text).unwrap_err().contains("has no unit"), "{text}");
        }
        assert!(parse_duration("").is_err() && parse_duration("5 parsecs").is_err());
    }
}
