//! `larder verify`: every blob of a store is hashed, while no daemon has it. Damage is told, and with `--repair` set aside.

use super::arguments::Place;
use crate::config::{Sources, load_store};
use crate::oci::Digest;
use crate::store::{RealDisk, Verdict, Verifier};
use bytesize::ByteSize;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Some blob is not what its name says.
const DAMAGED: u8 = 1;
/// Nothing was begun: the arguments or the configuration are wrong.
const MISCONFIGURED: u8 = 2;
/// The store could not be looked at, or not be repaired.
const FAILED: u8 = 3;

pub(super) const EXIT_CODES: &str = "Exit codes: 0 every blob is sound; 1 damage was found, repaired or not; 2 wrong arguments or configuration; 3 the store is in \
     use, or cannot be read or repaired";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Set damaged blobs aside, so that the next pull fetches them again
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A blob that is not as it was stored.
struct Damage {
    digest: Digest,
    problem: String,
    moved_to: Option<PathBuf>,
}

#[derive(Default)]
struct Findings {
    blobs: u64,
    bytes: u64,
    damaged: Vec<Damage>,
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let path = match load_store(&arguments.place.into_sources(sources)) {
        Ok(settings) => settings.path,
        Err(errors) => return refuse(MISCONFIGURED, &format!("the configuration is wrong\n{errors}")),
    };
    let verified = Verifier::open(&path, RealDisk::new(&path))
        .map_err(|error| error.to_string())
        .and_then(|verifier| verify(&verifier, arguments.repair).map_err(|error| error.to_string()));
    let findings = match verified {
        Ok(findings) => findings,
        Err(error) => return refuse(FAILED, &error),
    };
    let text = if arguments.json { as_json(&path, &findings) } else { as_text(&path, &findings, arguments.repair) };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::from(FAILED);
    }
    if findings.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) }
}

fn refuse(code: u8, text: &str) -> ExitCode {
    // Without stderr there is nobody to tell; the exit code remains.
    let _ = writeln!(std::io::stderr(), "larder: {text}");
    ExitCode::from(code)
}

fn verify(verifier: &Verifier, repair: bool) -> Result<Findings, crate::store::StoreError> {
    let mut findings = Findings::default();
    for digest in verifier.blobs()? {
        let (bytes, problem) = match verifier.look_at(&digest) {
            Verdict::Absent => continue,
            Verdict::Sound { bytes } => (bytes, None),
            Verdict::Damaged { bytes } => (bytes, Some(format!("its {bytes} bytes have another digest"))),
            Verdict::Unreadable(error) => (0, Some(format!("it cannot be read: {error}"))),
        };
        findings.blobs += 1;
        findings.bytes += bytes;
        if let Some(problem) = problem {
            let moved_to = if repair { Some(verifier.set_aside(&digest)?) } else { None };
            findings.damaged.push(Damage { digest, problem, moved_to });
        }
    }
    Ok(findings)
}

fn as_text(path: &Path, findings: &Findings, repair: bool) -> String {
    let mut lines = Vec::new();
    for Damage { digest, problem, moved_to } in &findings.damaged {
        let moved = moved_to.as_ref().map_or_else(String::new, |path| format!("; moved to {}", path.display()));
        lines.push(format!("damaged {digest}: {problem}{moved}"));
    }
    let (blobs, size, damaged) = (findings.blobs, ByteSize(findings.bytes), findings.damaged.len());
    lines.push(format!("{}: {blobs} blobs, {size}, {damaged} damaged", path.display()));
    if damaged > 0 && repair {
        lines.push("the next pull fetches what was set aside".to_owned());
    } else if damaged > 0 {
        lines.push("set them aside with --repair: the next pull then fetches them".to_owned());
    }
    lines.join("\n") + "\n"
}

fn as_json(path: &Path, findings: &Findings) -> String {
    let damaged = findings.damaged.iter().map(|damage| {
        json!({
            "digest": damage.digest.to_string(),
            "problem": damage.problem,
            "moved_to": damage.moved_to,
        })
    });
    let damaged: Vec<_> = damaged.collect();
    let value = json!({ "store": path, "blobs": findings.blobs, "bytes": findings.bytes, "damaged": damaged });
    format!("{value:#}\n")
}
