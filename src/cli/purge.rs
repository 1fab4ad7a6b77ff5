//! `larder purge`: has the running daemon forget tags, manifests or whole repositories, so that upstream is asked anew.

use super::arguments::Question;
use super::client;
use crate::config::Sources;
use http::Method;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// repository, repository:tag or repository@digest, with or without its upstream before it
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    question: Question,
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let requests: Vec<_> = arguments
        .references
        .iter()
        .map(|reference| (Method::POST, format!("/v1/purge?reference={reference}")))
        .collect();
    client::ask(arguments.question, sources, &requests, show)
}

fn show(purged: &Value) -> String {
    format!("forgotten: {} tags, {} manifests\n", purged["tags"], purged["manifests"])
}
