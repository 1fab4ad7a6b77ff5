//! `larder purge`: has the running daemon forget, so that upstream is asked anew, and frees what nothing speaks for any more.

use super::arguments::Question;
use super::client::{self, encode};
use crate::config::Sources;
use bytesize::ByteSize;
use http::Method;
use serde_json::Value;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Arguments {
    /// repository, repository:tag or repository@digest (with all that refers to it), with or without its upstream before it
    #[arg(value_name = "REF", group = "what")]
    references: Vec<String>,
    /// Everything of an upstream
    #[arg(long, value_name = "NAME", group = "what")]
    upstream: Vec<String>,
    /// Everything that is not pinned
    #[arg(long, group = "what")]
    unpinned: bool,
    #[command(flatten)]
    question: Question,
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let references = arguments.references.iter().map(|reference| format!("/v1/purge?reference={}", encode(reference)));
    let upstreams = arguments.upstream.iter().map(|name| format!("/v1/purge/upstream?name={}", encode(name)));
    let unpinned = arguments.unpinned.then(|| "/v1/purge/unpinned".to_owned());
    let paths = references.chain(upstreams).chain(unpinned);
    let requests: Vec<_> = paths.map(|path| (Method::POST, path)).collect();
    client::ask(arguments.question, sources, &requests, show)
}

fn show(purged: &Value) -> String {
    let freed = ByteSize(purged["freed_bytes"].as_u64().unwrap_or_default());
    format!("forgotten: {} tags, {} manifests; {freed} freed\n", purged["tags"], purged["manifests"])
}
