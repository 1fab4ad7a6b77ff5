//! The types that stand in the file: each says how it is read, how it is written, and what to write instead when it is wrong.

use super::origin::Origin;
use super::reader::Setting;
use super::settings::{Durability, Listen, Tier};
use super::tree::{Node, Value};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

type Wrong = Vec<(Origin, String)>;

/// Bytes, written with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// Bytes per second; `None`, written "0": no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub(super) Option<u64>);

/// Groups of users, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Groups(pub(super) BTreeMap<String, Vec<String>>);

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

/// A text as TOML.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The string of a node, or the complaint that there is none.
fn string(node: &Node, expected: &str, wrong: &mut Wrong) -> Option<String> {
    match (&node.value, &node.text) {
        (Value::String(text), _) => Some(text.clone()),
        (Value::Array(_) | Value::Table(_), _) | (_, None) => {
            wrong.push((node.origin.clone(), format!("found {}: {expected}", node.found())));
            None
        }
        (_, Some(text)) => Some(text.clone()),
    }
}

fn parsed<T>(node: &Node, expected: &str, wrong: &mut Wrong, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let text = string(node, expected, wrong)?;
    parse(&text).map_err(|message| wrong.push((node.origin.clone(), message))).ok()
}

impl Setting for Size {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        let bare = matches!(node.value, Value::Integer(_)).then(|| node.found());
        if let (Some(number), None) = (bare, &node.text) {
            wrong.push((
                node.origin.clone(),
                format!("size {number} has no unit: write \"{number}B\" or \"{number}GiB\""),
            ));
            return None;
        }
        parsed(node, r#"write a size such as "10GiB""#, wrong, parse_size).map(Self)
    }
    fn show(&self) -> String {
        quote(&show_size(self.0))
    }
}

impl Setting for Rate {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        match &node.value {
            Value::Integer(0) => return Some(Self(None)),
            Value::String(text) if text == "0" => return Some(Self(None)),
            _ => {}
        }
        let bytes = Size::read(node, wrong)?.0;
        Some(Self((bytes > 0).then_some(bytes)))
    }
    fn show(&self) -> String {
        self.0.map_or_else(|| quote("0"), |bytes| quote(&show_size(bytes)))
    }
}

impl Setting for Duration {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        let bare = matches!(node.value, Value::Integer(_)).then(|| node.found());
        if let (Some(number), None) = (bare, &node.text) {
            wrong.push((
                node.origin.clone(),
                format!("duration {number} has no unit: write \"{number}s\" or \"{number}m\""),
            ));
            return None;
        }
        parsed(node, r#"write a duration such as "30s""#, wrong, parse_duration)
    }
    fn show(&self) -> String {
        quote(&humantime::format_duration(*self).to_string())
    }
}

impl Setting for bool {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        if let Value::Boolean(value) = node.value {
            return Some(value);
        }
        wrong.push((node.origin.clone(), format!("found {}: write true or false, without quotes", node.found())));
        None
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        if let Value::Integer(number) = node.value
            && (1..=1_000_000_000).contains(&number)
        {
            return Self::try_from(number).ok();
        }
        let message = format!("found {}: write a whole number from 1 to 1000000000, without quotes", node.found());
        wrong.push((node.origin.clone(), message));
        None
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        string(node, "write a text in double quotes", wrong)
    }
    fn show(&self) -> String {
        quote(self)
    }
}

impl Setting for PathBuf {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        parsed(node, "write a path in double quotes", wrong, |text| match text {
            "" => Err("the path is empty: write one, or remove the key".to_owned()),
            _ => Ok(Self::from(text)),
        })
    }
    fn show(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        let Value::Array(items) = &node.value else {
            let found = node.found();
            let example = if found.starts_with('"') { found.clone() } else { format!("\"{found}\"") };
            wrong.push((node.origin.clone(), format!("found {found}: write a list in square brackets, [{example}]")));
            return None;
        };
        let before = wrong.len();
        let values: Vec<T> = items.iter().filter_map(|item| T::read(item, wrong)).collect();
        (wrong.len() == before).then_some(values)
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(T::show).collect::<Vec<_>>().join(", "))
    }
}

impl Setting for Groups {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        let Value::Table(table) = &node.value else {
            let message = format!(
                "found {}: write [access.groups] and below it lines such as builders = [\"ann\"]",
                node.found()
            );
            wrong.push((node.origin.clone(), message));
            return None;
        };
        let groups = table.0.iter().filter_map(|(name, (_, users))| Some((name.clone(), Vec::read(users, wrong)?)));
        Some(Self(groups.collect()))
    }
    fn show(&self) -> String {
        let group = |(name, users): (&String, &Vec<String>)| format!("{} = {}", quote(name), users.show());
        format!("{{ {} }}", self.0.iter().map(group).collect::<Vec<_>>().join(", ")).replace("{  }", "{}")
    }
}

impl Setting for SocketAddr {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        parsed(node, r#"write an address such as "127.0.0.1:5001""#, wrong, parse_address)
    }
    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric.parse().map_err(|_| {
        let advice = match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("the port is missing, write \"[{ip}]:5000\""),
            Ok(ip) => format!("the port is missing, write \"{ip}:5000\""),
            Err(_) => r#"write an IP address and a port, such as "127.0.0.1:5000" or "[::1]:5000""#.to_owned(),
        };
        format!("'{text}' is not a listen address: {advice}")
    })
}

impl Setting for Listen {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        parsed(node, r#"write an address such as "127.0.0.1:5000""#, wrong, |text| match text.strip_prefix("unix:") {
            Some(_) if cfg!(not(unix)) => Err(format!("'{text}': this platform has no Unix sockets: listen on TCP")),
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(format!("'{text}' needs an absolute path: write \"unix:/run/larder/larder.sock\"")),
            None => match text.strip_prefix("tls://") {
                Some(address) => parse_address(address).map(Self::Tls),
                None => parse_address(text).map(Self::Tcp),
            },
        })
    }
    fn show(&self) -> String {
        match self {
            Self::Tcp(address) => quote(&address.to_string()),
            Self::Tls(address) => quote(&format!("tls://{address}")),
            Self::Unix(path) => quote(&format!("unix:{}", path.display())),
        }
    }
}

impl Setting for IpNet {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        parsed(node, r#"write a network such as "10.0.0.0/8""#, wrong, |text| {
            if let Ok(address) = text.parse::<IpAddr>() {
                return Ok(Self::from(address));
            }
            let network: Self = text.parse().map_err(|_| {
                format!(r#"'{text}' is not a network: write one such as "10.0.0.0/8", or "0.0.0.0/0" and "::/0" for everybody"#)
            })?;
            if network == network.trunc() {
                return Ok(network);
            }
            Err(format!("network '{text}' has bits behind its prefix: write \"{}\"", network.trunc()))
        })
    }
    fn show(&self) -> String {
        quote(&self.to_string())
    }
}

impl Setting for Durability {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        let advice = r#"write "commit" or "none""#;
        parsed(node, advice, wrong, |text| match text {
            "commit" => Ok(Self::Commit),
            "none" => Ok(Self::None),
            _ => Err(format!("'{text}' is no way to sync: {advice}")),
        })
    }
    fn show(&self) -> String {
        quote(match self {
            Self::Commit => "commit",
            Self::None => "none",
        })
    }
}

impl Setting for Tier {
    fn read(node: &Node, wrong: &mut Wrong) -> Option<Self> {
        let advice = r#"write "basic", "standard", "premium", or "unknown" where it is no Azure Container Registry"#;
        parsed(node, advice, wrong, |text| match text {
            "unknown" => Ok(Self::Unknown),
            "basic" => Ok(Self::Basic),
            "standard" => Ok(Self::Standard),
            "premium" => Ok(Self::Premium),
            _ => Err(format!("'{text}' is no service tier: {advice}")),
        })
    }
    fn show(&self) -> String {
        quote(match self {
            Self::Unknown => "unknown",
            Self::Basic => "basic",
            Self::Standard => "standard",
            Self::Premium => "premium",
        })
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

    #[test]
    fn addresses_say_what_is_missing() {
        assert_eq!(parse_address("localhost:5000"), Ok("127.0.0.1:5000".parse().unwrap()));
        assert!(parse_address("127.0.0.1").unwrap_err().contains("\"127.0.0.1:5000\""));
        assert!(parse_address("::1").unwrap_err().contains("\"[::1]:5000\""));
        assert!(parse_address("example.com:80").is_err());
    }
}
