//! `larder list`: what can be asked for by tag with the link down, with sizes, platforms and last use; or what was asked for in vain.

use super::arguments::Question;
use super::client;
use crate::config::Sources;
use bytesize::ByteSize;
use http::Method;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only what was used within this time, such as 30d or 12h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    used_within: Option<Duration>,
    /// Only what is pinned
    #[arg(long)]
    pinned: bool,
    /// Instead, what sealed upstreams were asked for and is not stored
    #[arg(long, conflicts_with_all = ["used_within", "pinned"])]
    missing: bool,
    #[command(flatten)]
    question: Question,
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    if arguments.missing {
        return client::ask(arguments.question, sources, &[(Method::GET, "/v1/missing".to_owned())], show_missing);
    }
    let within = arguments.used_within.map(|time| format!("used_within={}", time.as_secs()));
    let pinned = arguments.pinned.then(|| "pinned=true".to_owned());
    let query = within.into_iter().chain(pinned).collect::<Vec<_>>().join("&");
    let filtered = !query.is_empty();
    let request = (Method::GET, format!("/v1/references?{query}"));
    client::ask(arguments.question, sources, &[request], |references| show(references, filtered))
}

fn show(references: &Value, filtered: bool) -> String {
    let mut text = String::new();
    for reference in references.as_array().into_iter().flatten() {
        let bytes = ByteSize(reference["bytes"].as_u64().unwrap_or_default()).to_string();
        let platforms: Vec<_> =
            reference["platforms"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let platforms = if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") };
        let used = ago(&reference["last_use_timestamp"]);
        let pinned = if reference["pinned"] == true { "  pinned" } else { "" };
        let missing = match reference["missing"].as_u64() {
            None | Some(0) => String::new(),
            Some(missing) => format!("  {missing} not here"),
        };
        let name = reference["reference"].as_str().unwrap_or("?");
        let _ = writeln!(text, "{bytes:>12}  {used:>8}  {platforms:<12}  {name}{pinned}{missing}");
    }
    match (text.is_empty(), filtered) {
        (false, _) => format!("{:>12}  {:>8}  {:<12}  REFERENCE\n{text}", "SIZE", "USED", "PLATFORMS"),
        (true, false) => "nothing is stored by tag\n".to_owned(),
        (true, true) => "nothing that is stored by tag is so\n".to_owned(),
    }
}

fn show_missing(missing: &Value) -> String {
    let mut text = String::new();
    for entry in missing.as_array().into_iter().flatten() {
        let (times, last) = (entry["times"].as_u64().unwrap_or_default(), ago(&entry["last_timestamp"]));
        let _ = writeln!(text, "{times:>8}  {last:>8}  {}", entry["reference"].as_str().unwrap_or("?"));
    }
    if text.is_empty() {
        return "nothing was asked for in vain of a sealed upstream\n".to_owned();
    }
    format!("{:>8}  {:>8}  REFERENCE\n{text}", "TIMES", "LAST")
}

/// How long ago, in the one unit that says enough.
fn ago(timestamp: &Value) -> String {
    let then = UNIX_EPOCH + Duration::from_secs(timestamp.as_u64().unwrap_or_default());
    let seconds = SystemTime::now().duration_since(then).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
