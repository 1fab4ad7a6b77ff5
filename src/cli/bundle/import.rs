//! `larder import`: an image layout, whoever made it, becomes stored content. Contents are stored as they are read; names are linked
//! at the end, by the daemon, which knows whether all that they need is here.

use super::names::Index;
use super::source::{Found, Piece, Source};
use crate::cli::arguments::Place;
use crate::cli::client::{Daemon, Trouble};
use crate::config::Sources;
use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// The version of `larder.json` that is understood.
const VERSION: u32 = 1;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// An image layout as a folder or a tar, a folder of volumes, a registry's folder, or - for a tar on standard input
    #[arg(value_name = "DIR|FILE.tar|FOLDER-OF-VOLUMES|-")]
    input: PathBuf,
    /// Names lead to this upstream, or to this repository, whatever the bundle says
    #[arg(long = "as", value_name = "UPSTREAM[/REPO]")]
    place_as: Option<String>,
    /// Refuse the bundle unless its index.json has this hash
    #[arg(long, value_name = "sha256:…")]
    expect: Option<String>,
    /// Tags that are newer here give way
    #[arg(long)]
    force: bool,
    /// Say what it would bring, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// `larder.json`.
#[derive(Debug, Default, Deserialize)]
struct Notes {
    larder: u32,
    #[serde(default)]
    platforms: Vec<String>,
    #[serde(default)]
    absent: Vec<String>,
    #[serde(default)]
    tags: BTreeMap<String, u64>,
}

/// What has been read of the input.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) stored: u64,
    pub(super) stored_bytes: u64,
    pub(super) present: u64,
    /// Files that belong to no layout.
    pub(super) ignored: u64,
}

pub(in crate::cli) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    match import(arguments, sources) {
        Ok(code) => code,
        Err(trouble) => trouble.tell(),
    }
}

fn import(arguments: Arguments, sources: Sources) -> Result<ExitCode, Trouble> {
    let Arguments { input, place_as, expect, force, dry_run, json, place } = arguments;
    let daemon = Daemon::of(&place.into_sources(sources))?;
    let source = Source::of(&input)?;
    let mut done = Taken::default();
    let found = source.read(&mut |piece, length, reader| store(&daemon, dry_run, &mut done, piece, length, reader))?;
    done.ignored = found.ignored;
    let hash = found.index.as_ref().map(|index| format!("sha256:{}", super::output::hex(&Sha256::digest(index))));
    if let Some(expected) = &expect {
        let is = hash.as_deref().unwrap_or("none at all");
        if Some(expected.as_str()) != hash.as_deref() {
            let text = format!("the bundle's index.json has the hash {is}, not {expected}; nothing of it is linked");
            return Err(Trouble::failed(text));
        }
    }
    let naming = naming(&found, place_as.as_deref(), force, dry_run)?;
    let result = daemon.post("/v1/import/link", naming.to_string().into())?;
    let report =
        if json { as_json(&done, &result, hash.as_deref()) } else { as_text(&done, &result, hash.as_deref(), dry_run) };
    std::io::stdout()
        .write_all(report.as_bytes())
        .map_err(|error| Trouble::failed(format!("cannot print: {error}")))?;
    let waits = result["incomplete"].as_array().is_some_and(|list| !list.is_empty());
    // A volume that is not the last one is not expected to be whole.
    Ok(if waits && !found.is_volume { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn store(
    daemon: &Daemon,
    dry_run: bool,
    done: &mut Taken,
    piece: Piece<'_>,
    length: u64,
    reader: &mut dyn Read,
) -> Result<(), Trouble> {
    let wanted = daemon.post("/v1/import/wanted", json!([piece.digest]).to_string().into())?;
    if wanted["wanted"].as_array().is_none_or(Vec::is_empty) {
        done.present += 1;
        return Ok(());
    }
    done.stored += 1;
    done.stored_bytes += length;
    if dry_run {
        return Ok(());
    }
    let from = match piece.offset {
        Some(offset) => format!("offset={offset}"),
        None => format!("length={length}"),
    };
    daemon.upload(&format!("/v1/import/{}?{from}", piece.digest), reader).map(drop)
}

/// What the daemon is to link.
fn naming(found: &Found, place: Option<&str>, force: bool, dry_run: bool) -> Result<Value, Trouble> {
    let wrong = |what: &str, error: serde_json::Error| {
        super::archive::refused(&format!("its {what} is not understood: {error}"))
    };
    let index: Index = match &found.index {
        Some(index) => serde_json::from_slice(index).map_err(|error| wrong("index.json", error))?,
        None => Index::default(),
    };
    let notes: Notes = match &found.notes {
        Some(notes) => serde_json::from_slice(notes).map_err(|error| wrong("larder.json", error))?,
        None => Notes { larder: VERSION, ..Notes::default() },
    };
    if notes.larder != VERSION {
        let text =
            format!("it was made by a larder with another format ({}); this one reads format {VERSION}", notes.larder);
        return Err(super::archive::refused(&text));
    }
    let (mut entries, mut nameless) = (Vec::new(), 0_u64);
    for descriptor in &index.manifests {
        let Some(name) = descriptor.name(place) else {
            nameless += 1;
            continue;
        };
        let original = descriptor.name(None).and_then(|name| Some(format!("{}:{}", name.repository, name.tag?)));
        entries.push(json!({
            "repository": name.repository,
            "tag": name.tag,
            "digest": descriptor.digest,
            "media_type": descriptor.media_type,
            "moved": original.and_then(|original| notes.tags.get(&original).copied()),
        }));
    }
    entries.extend(found.named.iter().map(|named| {
        let repository = super::names::moved(&named.repository, place);
        json!({ "repository": repository, "tag": named.tag, "digest": named.digest, "media_type": null, "moved": null })
    }));
    if nameless > 0 && entries.is_empty() {
        let text = format!(
            "{nameless} entries have no name with a registry in it: say where they belong with --as UPSTREAM/REPOSITORY"
        );
        return Err(Trouble::usage(text));
    }
    Ok(json!({
        "entries": entries,
        "platforms": notes.platforms,
        "absent": notes.absent,
        "force": force,
        "dry_run": dry_run,
    }))
}

fn as_json(done: &Taken, result: &Value, hash: Option<&str>) -> String {
    let value = json!({
        "stored": done.stored, "stored_bytes": done.stored_bytes, "present": done.present, "ignored": done.ignored,
        "linked": result["linked"], "newer": result["newer"], "incomplete": result["incomplete"], "index": hash,
    });
    format!("{value:#}\n")
}

fn as_text(done: &Taken, result: &Value, hash: Option<&str>, dry: bool) -> String {
    let (would, size) = (if dry { "would be " } else { "" }, ByteSize(done.stored_bytes));
    let mut text = format!("{} contents {would}stored ({size}), {} were here already\n", done.stored, done.present);
    if done.ignored > 0 {
        let _ = writeln!(text, "{} files belong to no image layout and were left out", done.ignored);
    }
    let _ = writeln!(text, "{} names {would}linked", result["linked"]);
    for newer in result["newer"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = writeln!(text, "left alone: {newer} is newer here; --force puts the bundle's in its place");
    }
    for incomplete in result["incomplete"].as_array().into_iter().flatten() {
        let (name, count) = (incomplete["name"].as_str().unwrap_or("?"), &incomplete["count"]);
        let first = incomplete["missing"][0].as_str().unwrap_or("?");
        let _ = writeln!(text, "still missing: {name} needs {count} contents, the first is {first}");
    }
    if result["incomplete"].as_array().is_some_and(|list| !list.is_empty()) {
        text.push_str(
            "bring the other volumes, or send the output of `larder inventory` to the exporting side for a new delta\n",
        );
    }
    if let Some(hash) = hash {
        let _ = writeln!(text, "index.json {hash}");
    }
    text
}
