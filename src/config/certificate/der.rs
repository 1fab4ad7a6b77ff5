//! As much DER as a certificate needs. What does not fit is `None`; nothing is allocated and nothing recurses.

/// Tags of the elements that are looked at.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const UTF8: u8 = 0x0C;
pub(super) const PRINTABLE: u8 = 0x13;
pub(super) const IA5: u8 = 0x16;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const BMP: u8 = 0x1E;
pub(super) const SEQUENCE: u8 = 0x30;

/// Tag, content and what follows of the first element.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (bytes.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the first element, which has this tag, and what follows.
pub(super) fn tagged(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// The elements one after another, up to the first that does not fit.
pub(super) fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(der)?;
        der = rest;
        Some((tag, content))
    })
}

/// The Unix time of a `UTCTime` or `GeneralizedTime`, which certificates write in UTC and with seconds.
pub(super) fn unix_time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        digits.get(range).map(|part| part.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        // RFC 5280: 50 to 99 are of the last century.
        (UTC_TIME, 12) => (number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at..at + 2)?, number(at + 2..at + 4)?);
    let (hour, minute, second) = (number(at + 4..at + 6)?, number(at + 6..at + 8)?, number(at + 8..at + 10)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar, counted in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The text of a name: what certificates use for one, and nothing that could hide another.
pub(super) fn text(tag: u8, content: &[u8]) -> Option<String> {
    match tag {
        UTF8 => String::from_utf8(content.to_vec()).ok(),
        PRINTABLE | IA5 => content.is_ascii().then(|| String::from_utf8(content.to_vec()).ok()).flatten(),
        BMP => {
            let (pairs, rest) = content.as_chunks::<2>();
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            rest.is_empty().then(|| char::decode_utf16(units).collect::<Result<_, _>>().ok()).flatten()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (tag, text, want) in [
            (UTC_TIME, "700101000000Z", 0),
            (UTC_TIME, "000301000000Z", 951_868_800),
            (UTC_TIME, "261130201500Z", 1_796_069_700),
            (GENERALIZED_TIME, "20991231235959Z", 4_102_444_799),
            (UTC_TIME, "491231235959Z", 2_524_607_999),
            (UTC_TIME, "500101000000Z", -631_152_000),
        ] {
            assert_eq!(unix_time(tag, text.as_bytes()), Some(want), "{text}");
        }
        for text in ["", "Z", "261130201500", "261330201500Z", "2611302015Z", "26113020150aZ", "261130201500+0100"] {
            assert_eq!(unix_time(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn texts_are_read_in_the_forms_that_names_have() {
        assert_eq!(text(UTF8, "bücher".as_bytes()).unwrap(), "bücher");
        assert_eq!(text(BMP, &[0, b'c', 0, b'i']).unwrap(), "ci");
        assert!(text(BMP, &[0]).is_none() && text(UTF8, &[0xFF]).is_none() && text(PRINTABLE, &[0xFC]).is_none());
        assert!(text(0x04, b"ci").is_none());
    }
}
