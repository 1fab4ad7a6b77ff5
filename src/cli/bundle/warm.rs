//! `larder warm`: fetches ahead what lists and references name, through the running daemon.

use super::io;
use super::sizes::{Roots, Sizes};
use crate::bundle::lists::{self, Reading};
use crate::cli::arguments::Place;
use crate::cli::client::{Daemon, Trouble, encode};
use crate::cli::progress::Progress;
use crate::config::Sources;
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct Arguments {
    /// Lists (any file that names images), references, or - for a list on standard input
    #[arg(value_name = "LIST|REF|-", required = true)]
    what: Vec<String>,
    /// Of images for several platforms only these, as os/architecture
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<String>,
    /// Signatures and other things that are attached, too
    #[arg(long)]
    referrers: bool,
    /// Pin what has come
    #[arg(long)]
    pin: bool,
    /// Fetch manifests alone, and say how large the rest is
    #[arg(long)]
    dry_run: bool,
    /// Print a line of JSON for each step
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What is to be fetched with each reference.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) platforms: Vec<String>,
    pub(super) referrers: bool,
    pub(super) dry_run: bool,
}

pub(crate) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    Trouble::exit_code(warm(arguments, sources))
}

fn warm(arguments: Arguments, sources: Sources) -> Result<ExitCode, Trouble> {
    let references = references(&arguments, &sources)?;
    let Arguments { platform: platforms, referrers, pin, dry_run, json, place, .. } = arguments;
    let daemon = Daemon::of(&place.into_sources(sources))?;
    let mut fetching = Fetching::new(&daemon, &Extent { platforms, referrers, dry_run }, json);
    let mut failed = Vec::new();
    for (number, reference) in references.iter().enumerate() {
        fetching.say(&format!("{} of {}: {reference}", number + 1, references.len()));
        let fetched = match fetching.one(reference)? {
            Ok(()) if pin && !dry_run => pinned(&daemon, reference),
            other => other,
        };
        if let Err(error) = fetched {
            fetching.say(&format!("  failed: {error}"));
            failed.push((reference.as_str(), error));
        }
    }
    let mut summary = json!({ "event": "summary", "references": references.len(), "bytes": fetching.bytes });
    if dry_run {
        fetching.planned(&mut summary)?;
    }
    drop(fetching);
    tell_summary(summary, &failed, dry_run, json)?;
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pinned(daemon: &Daemon, reference: &str) -> Result<(), String> {
    let pinned = daemon.post(&format!("/v1/pins/add?reference={}", encode(reference)), bytes::Bytes::new());
    pinned.map(drop).map_err(|trouble| trouble.text)
}

fn tell_summary(mut summary: Value, failed: &[(&str, String)], dry_run: bool, json: bool) -> Result<(), Trouble> {
    if json {
        summary["failed"] = failed.iter().map(|(it, error)| json!({ "reference": it, "error": error })).collect();
        return print(&summary.to_string());
    }
    let bytes = |key: &str| summary[key].as_u64().unwrap_or_default();
    let (count, failures) = (&summary["references"], failed.len());
    if dry_run {
        let size = ByteSize(bytes("unique_bytes") - bytes("far_bytes"));
        let free = ByteSize(bytes("free_bytes"));
        print(&format!("{count} references, {size} would be fetched, {failures} failed; {free} free here"))?;
    } else {
        print(&format!("{count} references, {} fetched, {failures} failed", ByteSize(bytes("bytes"))))?;
    }
    failed.iter().try_for_each(|(reference, error)| print(&format!("  {reference}: {error}")))
}

fn print(line: &str) -> Result<(), Trouble> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| Trouble::failed(format!("cannot print: {error}")))
}

/// The references of all arguments: a file is a list, anything else a reference. Rubbish in a list is said, and no failure.
fn references(arguments: &Arguments, sources: &Sources) -> Result<BTreeSet<String>, Trouble> {
    let mut references = BTreeSet::new();
    for what in &arguments.what {
        let variable = |name: &str| sources.environment.get(name).map(str::to_owned);
        let (path, is_stdin) = (Path::new(what), what == "-");
        if !is_stdin && !path.is_file() {
            references.insert(what.clone());
            continue;
        }
        let reading = if is_stdin {
            lists::read_stream(std::io::stdin().lock(), &variable).map_err(io("read", Path::new("standard input")))?
        } else {
            lists::read_file(path, &variable).map_err(io("read", path))?
        };
        tell(what, &reading);
        references.extend(reading.references);
    }
    Ok(references)
}

/// What was understood, and what looked like an image and was not taken.
fn tell(what: &str, reading: &Reading) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "{what}: {}, {} references", reading.kind, reading.references.len());
    for left in &reading.left {
        let _ = writeln!(stderr, "  not taken: {left}");
    }
}

/// References that are being fetched, one after another, and how far that is.
pub(super) struct Fetching<'a> {
    daemon: &'a Daemon,
    query: String,
    json: bool,
    progress: Progress,
    /// Bytes that have come.
    bytes: u64,
    /// Bytes that are known to be needed, those that have come included.
    expected: u64,
    sizes: Sizes,
    roots: Roots,
}

impl<'a> Fetching<'a> {
    pub(super) fn new(daemon: &'a Daemon, extent: &Extent, json: bool) -> Self {
        let Extent { platforms, referrers, dry_run } = extent;
        let query = format!("platforms={}&referrers={referrers}&dry_run={dry_run}", encode(&platforms.join(",")));
        let (sizes, roots, progress) = (Sizes::default(), Roots::default(), Progress::of(0));
        Self { daemon, query, json, progress, bytes: 0, expected: 0, sizes, roots }
    }

    /// Fetches one reference; the inner error is what kept it from coming.
    pub(super) fn one(&mut self, reference: &str) -> Result<Result<(), String>, Trouble> {
        let path = format!("/v1/warm?reference={}&{}", encode(reference), self.query);
        let daemon = self.daemon;
        let mut lines = Lines { fetching: self, reference, buffer: Vec::new(), ended: None };
        let sent = daemon.download(&path, &mut lines);
        let ended = lines.ended.take();
        match (sent, ended) {
            // No daemon is no matter of this reference.
            (Err(trouble), _) if trouble.code == 3 => Err(trouble),
            (Err(trouble), _) => Ok(Err(trouble.text)),
            (Ok(()), Some(ended)) => Ok(ended),
            (Ok(()), None) => Ok(Err("the daemon ended before it was done".to_owned())),
        }
    }

    /// Adds to a summary what all of it would be.
    fn planned(&self, summary: &mut Value) -> Result<(), Trouble> {
        if let Value::Object(sizes) = self.sizes.report(&self.roots) {
            sizes.into_iter().for_each(|(key, value)| summary[key] = value);
        }
        let store = &self.daemon.call(&http::Method::GET, "/v1/status")?["store"];
        let number = |key: &str| store[key].as_u64().unwrap_or_default();
        summary["free_bytes"] = number("limit_bytes").saturating_sub(number("bytes")).into();
        summary["volumes"] = 0.into();
        Ok(())
    }

    fn step(&mut self, reference: &str, line: &str, step: &Value) {
        let number = |key: &str| step[key].as_u64().unwrap_or_default();
        match step["event"].as_str() {
            Some("manifest") => {
                self.expected += number("missing_bytes");
                let repository = step["repository"].as_str().unwrap_or_default().to_owned();
                self.roots.entry(repository).or_default().insert(reference.to_owned());
                for blob in step["blobs"].as_array().into_iter().flatten() {
                    let digest = blob["digest"].as_str().unwrap_or_default();
                    let bytes = blob["bytes"].as_u64().unwrap_or_default();
                    self.sizes.plan(reference, digest, bytes, blob["present"] == true);
                }
            }
            Some("blob") if step["present"] == false => self.bytes += number("bytes"),
            _ => {}
        }
        if self.json {
            let _ = writeln!(std::io::stdout(), "{line}");
        }
        self.progress.set(self.bytes, self.expected);
    }

    fn say(&self, text: &str) {
        if !self.json {
            self.progress.say(text);
        }
    }
}

/// The daemon's lines, as they come.
struct Lines<'a, 'b> {
    fetching: &'a mut Fetching<'b>,
    reference: &'a str,
    buffer: Vec<u8>,
    ended: Option<Result<(), String>>,
}

impl Write for Lines<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let Ok(step) = serde_json::from_slice::<Value>(&line) else { continue };
            match step["event"].as_str() {
                Some("done") => self.ended = Some(Ok(())),
                Some("failed") => self.ended = Some(Err(step["error"].as_str().unwrap_or("it failed").to_owned())),
                _ => {}
            }
            self.fetching.step(self.reference, String::from_utf8_lossy(&line).trim_end(), &step);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
