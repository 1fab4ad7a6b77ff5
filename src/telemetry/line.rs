//! One log line in either form, written into bytes without allocation. Control characters never leave as they are: what a client
//! sends can neither begin a line nor colour a terminal.

use super::plain;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For a person.
    Text,
}

/// How fields are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format(LogFormat);

impl Format {
    pub(super) fn new(format: LogFormat) -> Self {
        Self(format)
    }

    /// Time, level and message; `target` may be empty.
    pub(super) fn head(self, line: &mut Vec<u8>, level: Level, target: &str, message: &str) {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        // Writing to a Vec cannot fail; neither can the formatting of a time after 1970.
        match self.0 {
            LogFormat::Json => {
                let _ = write!(line, "{{\"ts\":\"{now}\",\"level\":\"{}\"", name(level));
                if !target.is_empty() {
                    self.str(line, "target", target);
                }
                self.str(line, "message", message);
            }
            LogFormat::Text => {
                let _ = write!(line, "{now} {:>5} ", name(level));
                escape(line, message, false);
            }
        }
    }

    /// A field that holds a text.
    pub(super) fn str(self, line: &mut Vec<u8>, key: &str, value: &str) {
        self.key(line, key);
        let quoted = self.0 == LogFormat::Json || value.is_empty() || value.contains([' ', '"', '=', '\\']);
        if quoted {
            line.push(b'"');
        }
        escape(line, value, quoted);
        if quoted {
            line.push(b'"');
        }
    }

    /// A field that is a number.
    pub(super) fn number(self, line: &mut Vec<u8>, key: &str, value: u64) {
        self.key(line, key);
        push_number(line, value);
    }

    /// A duration in milliseconds with three decimals.
    pub(super) fn millis(self, line: &mut Vec<u8>, key: &str, value: std::time::Duration) {
        self.key(line, key);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        push_number(line, micros / 1000);
        let rest = micros % 1000;
        line.push(b'.');
        for digit in [rest / 100, rest / 10 % 10, rest % 10] {
            line.push(b'0' + u8::try_from(digit).unwrap_or(0));
        }
    }

    /// An address, which never needs escaping.
    pub(super) fn address(self, line: &mut Vec<u8>, key: &str, value: std::net::IpAddr) {
        let quote = if self.0 == LogFormat::Json { "\"" } else { "" };
        self.raw(line, key, format_args!("{quote}{value}{quote}"));
    }

    fn raw(self, line: &mut Vec<u8>, key: &str, value: fmt::Arguments<'_>) {
        self.key(line, key);
        let _ = line.write_fmt(value);
    }

    fn key(self, line: &mut Vec<u8>, key: &str) {
        match self.0 {
            LogFormat::Json => {
                line.extend_from_slice(b",\"");
                line.extend_from_slice(key.as_bytes());
                line.extend_from_slice(b"\":");
            }
            LogFormat::Text => {
                line.push(b' ');
                line.extend_from_slice(key.as_bytes());
                line.push(b'=');
            }
        }
    }

    pub(super) fn end(self, line: &mut Vec<u8>) {
        line.extend_from_slice(if self.0 == LogFormat::Json { b"}\n" } else { b"\n" });
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn push_number(line: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[start..]);
}

/// `quoted` text has its quotes and backslashes escaped too.
fn escape(line: &mut Vec<u8>, text: &str, quoted: bool) {
    let bytes = text.as_bytes();
    let mut done = 0;
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let quote = quoted && (*byte == b'"' || *byte == b'\\');
        let length = if quote { 1 } else { plain::length_of_control(&bytes[index..]) };
        if length == 0 {
            index += 1;
            continue;
        }
        line.extend_from_slice(&bytes[done..index]);
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', *byte]),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\t' => line.extend_from_slice(b"\\t"),
            _ => {
                let control = text[index..].chars().next().map_or(0, u32::from);
                let _ = write!(line, "\\u{control:04x}");
            }
        }
        index += length;
        done = index;
    }
    line.extend_from_slice(&bytes[done..]);
}

/// A line that no event stands behind.
pub(super) fn note(
    line: &mut Vec<u8>,
    format: Format,
    level: Level,
    target: &str,
    message: &str,
    fields: &[(&str, u64)],
) {
    format.head(line, level, target, message);
    for (key, value) in fields {
        format.number(line, key, *value);
    }
    format.end(line);
}

pub(super) fn event(line: &mut Vec<u8>, format: Format, event: &Event<'_>) {
    let mut fields = Fields { format, message: String::new(), rest: Vec::new(), text: String::new() };
    event.record(&mut fields);
    format.head(line, *event.metadata().level(), event.metadata().target(), &fields.message);
    line.extend_from_slice(&fields.rest);
    format.end(line);
}

struct Fields {
    format: Format,
    message: String,
    rest: Vec<u8>,
    text: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text.clear();
        // A value whose formatting fails is printed as far as it got.
        let _ = write!(self.text, "{value:?}");
        if field.name() == "message" {
            std::mem::swap(&mut self.message, &mut self.text);
        } else {
            self.format.str(&mut self.rest, field.name(), &self.text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.format.str(&mut self.rest, field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.format.number(&mut self.rest, field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.format.raw(&mut self.rest, field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.format.raw(&mut self.rest, field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for infinity.
        if value.is_finite() {
            self.format.raw(&mut self.rest, field.name(), format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_exact() {
        let mut line = Vec::new();
        let format = Format::new(LogFormat::Text);
        format.number(&mut line, "a", 0);
        format.number(&mut line, "b", u64::MAX);
        format.millis(&mut line, "c", std::time::Duration::from_micros(12_034));
        assert_eq!(line, b" a=0 b=18446744073709551615 c=12.034");
    }

    #[test]
    fn hostile_text_stays_one_valid_line() {
        let hostile = "a\"b\\c\n\x1b[31m\u{9b}\u{7f}\u{e9}\t\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}";
        let mut json = Vec::new();
        let format = Format::new(LogFormat::Json);
        format.head(&mut json, Level::INFO, "t", "m");
        format.str(&mut json, "k", hostile);
        format.end(&mut json);
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["k"], hostile);
        let mut text = Vec::new();
        Format::new(LogFormat::Text).str(&mut text, "k", hostile);
        let text = String::from_utf8(text).unwrap();
        assert!(!text.chars().any(|c| c.is_control() || plain::is_control(c)) && text.contains('\u{e9}'), "{text}");
    }
}
