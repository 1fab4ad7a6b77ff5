//! `larder status`: what the running daemon is doing and what it has saved, for a person or as JSON.

use super::arguments::Question;
use super::client;
use crate::config::Sources;
use bytesize::ByteSize;
use http::Method;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn run(question: Question, sources: Sources) -> ExitCode {
    let request = (Method::GET, "/v1/status".to_owned());
    client::ask(question, sources, &[request], show)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn size(value: &Value) -> String {
    ByteSize(number(value)).to_string()
}

fn day(timestamp: u64) -> impl std::fmt::Display {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(timestamp))
}

fn show(status: &Value) -> String {
    let up = humantime::format_duration(Duration::from_secs(number(&status["uptime_s"])));
    let mut text = format!("larder {} up {up}\n", status["version"].as_str().unwrap_or("?"));
    show_store(&mut text, &status["store"]);
    show_tls(&mut text, &status["tls"]);
    let (requests, fills) = (number(&status["requests_inflight"]), number(&status["fills_inflight"]));
    let _ = writeln!(text, "now       {requests} requests, {fills} downloads from upstream");
    for upstream in status["upstreams"].as_array().into_iter().flatten() {
        show_upstream(&mut text, upstream);
    }
    text
}

fn show_store(text: &mut String, store: &Value) {
    let _ = writeln!(
        text,
        "store     {} of {}, {} blobs, {} partial downloads",
        size(&store["bytes"]),
        size(&store["limit_bytes"]),
        number(&store["blobs"]),
        number(&store["ingests"]),
    );
    if number(&store["held_bytes"]) > 0 {
        let held = size(&store["held_bytes"]);
        let _ =
            writeln!(text, "  held    {held} stay whatever room is needed: their upstream cannot give them again now");
    }
    if let Some(problem) = store["trouble"]["problem"].as_str() {
        let since = day(number(&store["trouble"]["since_timestamp"]));
        let _ = writeln!(text, "          NOTHING IS STORED since {since}, pulls pass through: {problem}");
    }
}

fn show_tls(text: &mut String, tls: &Value) {
    let Some(expires) = tls["expires_timestamp"].as_u64() else { return };
    let names = tls["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let _ = writeln!(text, "tls       {} until {}", names.collect::<Vec<_>>().join(", "), day(expires));
    if let Some(problem) = tls["problem"].as_str() {
        let _ = writeln!(text, "          THE NEW CERTIFICATE IS NOT USED: {problem}");
    }
}

fn show_upstream(text: &mut String, upstream: &Value) {
    let troubles = upstream["troubles"].as_array().map_or(&[][..], Vec::as_slice);
    let state = if upstream["sealed"] == true {
        "  (sealed)"
    } else if upstream["up"] != true && troubles.is_empty() {
        "  (not asked yet)"
    } else {
        ""
    };
    let _ = writeln!(text, "upstream  {}{state}", upstream["name"].as_str().unwrap_or("?"));
    for trouble in troubles {
        let kind = trouble["kind"].as_str().unwrap_or("?").to_uppercase();
        let _ = writeln!(text, "  {kind}: {}", trouble["message"].as_str().unwrap_or("?"));
    }
    let (sent, received, saved) = (&upstream["sent_bytes"], &upstream["received_bytes"], &upstream["saved_bytes"]);
    let _ = writeln!(text, "  bytes   {} served, {} fetched, {} saved", size(sent), size(received), size(saved));
    let results = upstream["requests"].as_object().into_iter().flatten();
    let results = results.filter(|(_, count)| number(count) > 0).map(|(result, count)| format!("{count} {result}"));
    let results = results.collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "  answers {}", if results.is_empty() { "none yet" } else { &results });
}
