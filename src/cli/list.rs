//! `larder list`: what can be asked for by tag with the link down, with sizes, for a person or as JSON.

use super::arguments::Question;
use super::client;
use crate::config::Sources;
use bytesize::ByteSize;
use http::Method;
use serde_json::Value;
use std::fmt::Write as _;
use std::process::ExitCode;

pub(super) fn run(question: Question, sources: Sources) -> ExitCode {
    let request = (Method::GET, "/v1/references".to_owned());
    client::ask(question, sources, &[request], show)
}

fn show(references: &Value) -> String {
    let mut text = String::new();
    for reference in references.as_array().into_iter().flatten() {
        let bytes = ByteSize(reference["bytes"].as_u64().unwrap_or_default()).to_string();
        let missing = match reference["missing"].as_u64() {
            None | Some(0) => String::new(),
            Some(missing) => format!("  {missing} not here"),
        };
        let _ = writeln!(text, "{bytes:>12}  {}{missing}", reference["reference"].as_str().unwrap_or("?"));
    }
    if text.is_empty() { "nothing is stored by tag\n".to_owned() } else { text }
}
