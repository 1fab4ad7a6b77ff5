//! `larder pin` and `larder unpin`: what is never removed to make room.

use super::arguments::Question;
use super::client::{self, encode};
use crate::config::Sources;
use http::Method;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

const HELP: &str = "A pinned tag keeps what it names, wherever it moves, and all that belongs to it; a pinned repository or \
                    pattern all that is pulled from there. A pin holds over restarts, for what is not stored yet, too.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Pin {
    /// repository, repository:tag, repository@digest, or a pattern such as myacr.azurecr.io/base/**; none: list the pins
    #[arg(value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    question: Question,
}

#[derive(Debug, clap::Args)]
pub(super) struct Unpin {
    /// As it was pinned
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    question: Question,
}

pub(super) fn pin(arguments: Pin, sources: Sources) -> ExitCode {
    if arguments.references.is_empty() {
        return client::ask(arguments.question, sources, &[(Method::GET, "/v1/pins".to_owned())], show_all);
    }
    client::ask(arguments.question, sources, &requests("add", &arguments.references), show_pinned)
}

pub(super) fn unpin(arguments: Unpin, sources: Sources) -> ExitCode {
    client::ask(arguments.question, sources, &requests("remove", &arguments.references), show_unpinned)
}

fn requests(what: &str, references: &[String]) -> Vec<(Method, String)> {
    let path = |reference: &String| format!("/v1/pins/{what}?reference={}", encode(reference));
    references.iter().map(|reference| (Method::POST, path(reference))).collect()
}

fn show_all(pins: &Value) -> String {
    let mut text = String::new();
    for pin in pins.as_array().into_iter().flatten() {
        let from = if pin["from"] == "configuration" { "  (in the configuration)" } else { "" };
        let _ = writeln!(text, "{}{from}", pin["pin"].as_str().unwrap_or("?"));
    }
    if text.is_empty() { "nothing is pinned\n".to_owned() } else { text }
}

fn show_pinned(answer: &Value) -> String {
    let said = if answer["changed"] == true { "pinned" } else { "is pinned already:" };
    let later =
        if answer["stored"] == true { "" } else { "; nothing of it is stored yet: it is kept once it is pulled" };
    format!("{said} {}{later}\n", answer["pin"].as_str().unwrap_or("?"))
}

fn show_unpinned(answer: &Value) -> String {
    let said = if answer["changed"] == true { "unpinned" } else { "was not pinned:" };
    let still = if answer["configured"] == true { "; [store] pin in the configuration names it" } else { "" };
    format!("{said} {}{still}\n", answer["pin"].as_str().unwrap_or("?"))
}
