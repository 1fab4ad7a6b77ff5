//! What an import has done, for a person or as JSON.

use super::sizes::Roots;
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::Write as _;

/// What has been read, stored and linked.
#[derive(Default)]
pub(super) struct Report {
    pub(super) stored: u64,
    pub(super) stored_bytes: u64,
    pub(super) present: u64,
    /// Files that belong to no layout.
    pub(super) ignored: u64,
    pub(super) linked: u64,
    pub(super) newer: Vec<Value>,
    pub(super) incomplete: Vec<Value>,
    /// How many volumes the bundle has, if it says so.
    pub(super) volumes: Option<u64>,
    pub(super) volumes_missing: Vec<u64>,
    pub(super) index: Option<String>,
    pub(super) roots: Roots,
}

impl Report {
    /// What would be stored of these contents.
    pub(super) fn planned(&mut self, contents: &[(String, u64)], wanted: &HashSet<String>, slices: u64) {
        let mut counted = HashSet::new();
        self.stored_bytes += slices;
        for (digest, length) in contents {
            if wanted.contains(digest) && counted.insert(digest) {
                self.stored += 1;
                self.stored_bytes += length;
            } else {
                self.present += 1;
            }
        }
    }

    /// What the daemon says of the names; the last volume's word is the one that counts.
    pub(super) fn linked(&mut self, result: &Value) {
        let list = |key: &str| result[key].as_array().cloned().unwrap_or_default();
        self.linked = result["linked"].as_u64().unwrap_or_default();
        self.newer = list("newer");
        self.incomplete = list("incomplete");
        self.volumes = result["volumes"].as_u64();
        self.volumes_missing = list("volumes_missing").iter().filter_map(Value::as_u64).collect();
    }

    /// What would be linked, where nothing is.
    pub(super) fn foreseen(&mut self, whole: usize, incomplete: Vec<Value>) {
        self.linked = (whole as u64).saturating_sub(self.newer.len() as u64);
        self.incomplete = incomplete;
    }

    pub(super) fn is_incomplete(&self) -> bool {
        !self.incomplete.is_empty()
    }

    /// A line for a volume of several.
    pub(super) fn of_volume(&self, name: &str) -> String {
        format!("{name}: read; {} names are linked so far{}\n", self.linked, self.missing_volumes())
    }

    fn missing_volumes(&self) -> String {
        match (self.volumes, self.volumes_missing.as_slice()) {
            (Some(of), missing @ [_, ..]) => {
                let named: Vec<String> = missing.iter().take(20).map(ToString::to_string).collect();
                let more = if missing.len() > named.len() { ", …" } else { "" };
                format!("; still missing of {of} volumes: {}{more}", named.join(", "))
            }
            _ => String::new(),
        }
    }
}

/// The whole of it. `sizes`: nothing was stored, this is what would be.
pub(super) fn told(report: &Report, sizes: Option<&Value>, parts: usize, json: bool) -> String {
    if json { as_json(report, sizes, parts) } else { as_text(report, sizes) }
}

fn as_json(report: &Report, sizes: Option<&Value>, parts: usize) -> String {
    let mut value = json!({
        "stored": report.stored, "stored_bytes": report.stored_bytes, "present": report.present,
        "ignored": report.ignored, "linked": report.linked, "newer": report.newer, "incomplete": report.incomplete,
        "volumes_missing": report.volumes_missing, "index": report.index,
    });
    if let Some(Value::Object(sizes)) = sizes {
        for (key, size) in sizes {
            value[key] = size.clone();
        }
        value["volumes"] = parts.into();
    }
    format!("{value:#}\n")
}

fn as_text(report: &Report, sizes: Option<&Value>) -> String {
    let (would, size) = (if sizes.is_some() { "would be " } else { "" }, ByteSize(report.stored_bytes));
    let mut text = format!("{} contents {would}stored ({size}), {} were here already\n", report.stored, report.present);
    if let Some(sizes) = sizes {
        let line = |of: &Value, name: &str| {
            let bytes = |key: &str| ByteSize(of[key].as_u64().unwrap_or_default()).to_string();
            format!("{:>12}  {:>12}  {:>12}  {name}\n", bytes("bytes"), bytes("unique_bytes"), bytes("far_bytes"))
        };
        let _ = writeln!(text, "{:>12}  {:>12}  {:>12}  REPOSITORY", "ALL", "ONCE", "HERE ALREADY");
        for repository in sizes["repositories"].as_array().into_iter().flatten() {
            text.push_str(&line(repository, repository["repository"].as_str().unwrap_or("?")));
        }
        text.push_str(&line(sizes, "in all"));
        let _ = writeln!(text, "{} free here", ByteSize(sizes["free_bytes"].as_u64().unwrap_or_default()));
    }
    if report.ignored > 0 {
        let _ = writeln!(text, "{} files belong to no image layout and were left out", report.ignored);
    }
    let _ = writeln!(text, "{} names {would}linked{}", report.linked, report.missing_volumes());
    for newer in report.newer.iter().filter_map(Value::as_str) {
        let _ = writeln!(text, "left alone: {newer} is newer here; --force puts the bundle's in its place");
    }
    for incomplete in &report.incomplete {
        let (name, count) = (incomplete["name"].as_str().unwrap_or("?"), &incomplete["count"]);
        let first = incomplete["missing"][0].as_str().unwrap_or("?");
        let _ = writeln!(text, "still missing: {name} needs {count} contents, the first is {first}");
    }
    if report.is_incomplete() {
        text.push_str(
            "bring the other volumes, or send the output of `larder inventory` to the exporting side for a new delta\n",
        );
    }
    if let Some(hash) = &report.index {
        let _ = writeln!(text, "index.json {hash}");
    }
    text
}
