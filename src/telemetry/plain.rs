//! Text as a terminal may show it: what registries and clients say can neither move the cursor, nor colour, nor reverse what stands
//! beside it.

use std::fmt::Write as _;

/// C0, DEL and C1, line and paragraph separators, and what changes the direction of text.
pub(super) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many bytes of UTF-8 the control character takes that these begin with; 0: they begin with none.
pub(super) fn length_of_control(bytes: &[u8]) -> usize {
    match bytes {
        [0x00..=0x1f | 0x7f, ..] => 1,
        [0xc2, 0x80..=0x9f, ..] | [0xd8, 0x9c, ..] => 2,
        [0xe2, 0x80, 0x8e | 0x8f | 0xa8..=0xae, ..] | [0xe2, 0x81, 0xa6..=0xa9, ..] => 3,
        _ => 0,
    }
}

/// The text with its control characters written out.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The same for what larder itself has laid out in lines.
#[must_use]
pub fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_control_character_is_found_in_both_ways() {
        for c in (0..=0x2fff_u32).filter_map(char::from_u32) {
            let mut bytes = [0; 4];
            let text = c.encode_utf8(&mut bytes);
            let want = if is_control(c) { text.len() } else { 0 };
            assert_eq!(length_of_control(text.as_bytes()), want, "{:04x}", u32::from(c));
        }
        assert_eq!(plain("a\x1b[31m\u{202e}b\u{e9}\n"), "a\\u001b[31m\\u202eb\u{e9}\\u000a");
        assert_eq!(plain_lines("a\n\x07b"), "a\n\\u0007b");
    }
}
