//! `larder check`: says what would hold and why, or everything that is wrong. Secrets are not in the settings, so that none can
//! be printed; their files are.

use super::arguments::Settings;
use crate::config::{ConfigErrors, Effective, Loaded, Sources, load};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let outcome = load(&arguments.settings.into_sources(sources));
    let text = if arguments.json {
        as_json(&outcome)
    } else {
        match &outcome {
            Ok(loaded) => as_toml(loaded),
            Err(_) => String::new(),
        }
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    if let (Err(errors), false) = (&outcome, arguments.json) {
        let count = errors.errors.len();
        let _ = writeln!(std::io::stderr(), "{errors}\n{count} {}", if count == 1 { "error" } else { "errors" });
    }
    if outcome.is_ok() && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The effective settings as a file that would say the same.
fn as_toml(loaded: &Loaded) -> String {
    let mut text = match &loaded.file {
        Some(file) => format!("# {}: valid\n", file.display()),
        None => "# no file; environment and flags are valid\n".to_owned(),
    };
    for warning in &loaded.warnings {
        let _ = writeln!(text, "# warning: {warning}");
    }
    let mut table = None;
    let width =
        loaded.effective.iter().map(|entry| assignment(entry).chars().count()).filter(|width| *width <= 60).max();
    for entry in grouped(&loaded.effective) {
        if table != Some(&entry.table) {
            // An empty table can mean something else than none.
            let is_set = loaded.effective.iter().any(|other| other.table == entry.table && other.value.is_ok());
            let _ = writeln!(text, "\n{}{}", if is_set { "" } else { "# " }, header(&entry.table));
            table = Some(&entry.table);
        }
        let _ = writeln!(text, "{:<1$}  # {2}", assignment(entry), width.unwrap_or(0), entry.origin);
    }
    text
}

/// TOML wants a table's own keys before its subtables; reading may have met them in another order.
fn grouped(entries: &[Effective]) -> Vec<&Effective> {
    let mut tables: Vec<&str> = Vec::new();
    for entry in entries {
        if !tables.contains(&entry.table.as_str()) {
            tables.push(&entry.table);
        }
    }
    let of = |table| entries.iter().filter(move |entry| entry.table == table);
    tables.into_iter().flat_map(of).collect()
}

fn assignment(entry: &Effective) -> String {
    match &entry.value {
        Ok(value) => format!("{} = {value}", entry.key),
        Err(absent) => format!("# {} is not set: {absent}", entry.key),
    }
}

/// `upstream.0` is `[[upstream]]`, `upstream.0.freshness` is `[upstream.freshness]`.
fn header(table: &str) -> String {
    let parts: Vec<&str> = table.split('.').filter(|part| part.parse::<usize>().is_err()).collect();
    let ends_in_position = table.rsplit('.').next().is_some_and(|last| last.parse::<usize>().is_ok());
    if ends_in_position { format!("[[{}]]", parts.join(".")) } else { format!("[{}]", parts.join(".")) }
}

fn as_json(outcome: &Result<Loaded, ConfigErrors>) -> String {
    let value = match outcome {
        Ok(loaded) => json!({
            "valid": true,
            "file": loaded.file,
            "warnings": loaded.warnings,
            "settings": grouped(&loaded.effective).into_iter().map(|entry| json!({
                "key": format!("{}.{}", entry.table, entry.key),
                "value": entry.value.as_ref().ok(),
                "origin": entry.origin.to_string(),
            })).collect::<Vec<_>>(),
        }),
        Err(errors) => json!({
            "valid": false,
            "errors": errors.errors.iter().map(|error| json!({
                "origin": error.origin.to_string(),
                "key": error.key,
                "message": error.message,
            })).collect::<Vec<_>>(),
        }),
    };
    format!("{value:#}\n")
}
