//! `larder warm`: fetches ahead what lists and references name, through the running daemon.

use super::io;
use crate::bundle::lists::{self, Reading};
use crate::cli::arguments::Place;
use crate::cli::client::{Daemon, Trouble, encode};
use crate::config::Sources;
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;
use tokio::time::Instant;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(in crate::cli) struct Arguments {
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

/// What is to be warmed, and how far that is.
struct Job<'a> {
    daemon: &'a Daemon,
    query: String,
    pin: bool,
    json: bool,
    began: Instant,
    bytes: u64,
    expected: u64,
}

pub(in crate::cli) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    match warm(arguments, sources) {
        Ok(code) => code,
        Err(trouble) => trouble.tell(),
    }
}

fn warm(arguments: Arguments, sources: Sources) -> Result<ExitCode, Trouble> {
    let references = references(&arguments, &sources)?;
    let Arguments { platform, referrers, pin, dry_run, json, place, .. } = arguments;
    let query = format!("platforms={}&referrers={referrers}&dry_run={dry_run}", encode(&platform.join(",")));
    let daemon = Daemon::of(&place.into_sources(sources))?;
    let mut job =
        Job { daemon: &daemon, query, pin: pin && !dry_run, json, began: Instant::now(), bytes: 0, expected: 0 };
    let mut failed = Vec::new();
    for (number, reference) in references.iter().enumerate() {
        job.say(&format!("{} of {}: {reference}", number + 1, references.len()));
        if let Err(error) = job.one(reference)? {
            job.say(&format!("  failed: {error}"));
            failed.push((reference, error));
        }
    }
    let verb = if dry_run { "would be fetched" } else { "fetched" };
    let (count, bytes) = (references.len(), if dry_run { job.expected } else { job.bytes });
    if json {
        let failed: Vec<Value> = failed.iter().map(|(it, error)| json!({ "reference": it, "error": error })).collect();
        print(&json!({ "event": "summary", "references": count, "bytes": bytes, "failed": failed }).to_string())?;
    } else {
        print(&format!("{count} references, {} {verb}, {} failed", ByteSize(bytes), failed.len()))?;
        for (reference, error) in &failed {
            print(&format!("  {reference}: {error}"))?;
        }
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(line: &str) -> Result<(), Trouble> {
    writeln!(std::io::stdout(), "{line}").map_err(|error| Trouble::failed(format!("cannot print: {error}")))
}

/// The references of all arguments: a file is a list, anything else a reference. Rubbish in a list is said, and no failure.
fn references(arguments: &Arguments, sources: &Sources) -> Result<BTreeSet<String>, Trouble> {
    let mut references = BTreeSet::new();
    for what in &arguments.what {
        let text = if what == "-" {
            read(std::io::stdin().lock(), Path::new("standard input"))?
        } else if Path::new(what).is_file() {
            read(File::open(what).map_err(io("read", Path::new(what)))?, Path::new(what))?
        } else {
            references.insert(what.clone());
            continue;
        };
        let variable = |name: &str| sources.environment.get(name).map(str::to_owned);
        let reading = lists::read(&text, &variable);
        tell(what, &reading);
        references.extend(reading.references);
    }
    Ok(references)
}

fn read(reader: impl std::io::Read, path: &Path) -> Result<String, Trouble> {
    let mut bytes = Vec::new();
    reader.take(lists::LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(io("read", path))?;
    if bytes.len() > lists::LONGEST {
        return Err(Trouble::usage(format!("'{}' is longer than 64 MiB: that is no list", path.display())));
    }
    String::from_utf8(bytes).map_err(|_| Trouble::usage(format!("'{}' is no text in UTF-8", path.display())))
}

/// What was understood, and what looked like an image and was not taken.
fn tell(what: &str, reading: &Reading) {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "{what}: {}, {} references", reading.kind, reading.references.len());
    for left in &reading.left {
        let _ = writeln!(stderr, "  not taken: {left}");
    }
}

impl Job<'_> {
    /// Fetches one reference; the inner error is what kept it from coming.
    fn one(&mut self, reference: &str) -> Result<Result<(), String>, Trouble> {
        let path = format!("/v1/warm?reference={}&{}", encode(reference), self.query);
        let daemon = self.daemon;
        let mut lines = Lines { job: self, buffer: Vec::new(), ended: None };
        let sent = daemon.download(&path, &mut lines);
        let ended = lines.ended.take();
        if let Err(trouble) = sent {
            // No daemon is no matter of this reference.
            return if trouble.code == 3 { Err(trouble) } else { Ok(Err(trouble.text)) };
        }
        if let Some(Err(error)) = ended {
            return Ok(Err(error));
        }
        if ended.is_none() {
            return Ok(Err("the daemon ended before it was done".to_owned()));
        }
        if self.pin {
            let pinned = daemon.post(&format!("/v1/pins/add?reference={}", encode(reference)), bytes::Bytes::new());
            return Ok(pinned.map(drop).map_err(|trouble| trouble.text));
        }
        Ok(Ok(()))
    }

    fn step(&mut self, line: &str, step: &Value) {
        let number = |key: &str| step[key].as_u64().unwrap_or_default();
        match step["event"].as_str() {
            Some("manifest") => self.expected += number("missing_bytes"),
            Some("blob") if step["present"] == false => self.bytes += number("bytes"),
            _ => {}
        }
        if self.json {
            let _ = writeln!(std::io::stdout(), "{line}");
        } else if std::io::stderr().is_terminal() {
            let rate = u128::from(self.bytes) * 1000 / self.began.elapsed().as_millis().max(1);
            let left = u128::from(self.expected.saturating_sub(self.bytes)) / rate.max(1);
            let (bytes, expected) = (ByteSize(self.bytes), ByteSize(self.expected));
            let _ = write!(std::io::stderr(), "\r{bytes} of {expected}, {left} s left   ");
        }
    }

    fn say(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// The daemon's lines, as they come.
struct Lines<'a, 'b> {
    job: &'a mut Job<'b>,
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
            self.job.step(String::from_utf8_lossy(&line).trim_end(), &step);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
