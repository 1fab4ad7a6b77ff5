//! `larder verify`: every blob of a store is hashed, by the daemon that has it, else by this process. Damage is told, and with
//! `--repair` set aside.

use super::arguments::Place;
use super::client::{Daemon, Trouble};
use super::progress::Progress;
use crate::bundle::audit;
use crate::config::{Sources, load_store};
use crate::oci::Digest;
use crate::store::{RealDisk, Store, Verdict, Verifier};
use crate::telemetry::Metrics;
use bytesize::ByteSize;
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Some blob is not what its name says.
const DAMAGED: u8 = 1;
/// Nothing was begun: the arguments or the configuration are wrong.
const MISCONFIGURED: u8 = 2;
/// The store could not be looked at, or not be repaired.
const FAILED: u8 = 3;
/// The code with which a question to the daemon fails if none runs.
const NO_DAEMON: u8 = 3;
/// How often the daemon is asked how far it has come.
const LOOK: Duration = Duration::from_millis(200);

pub(super) const EXIT_CODES: &str = "Exit codes: 0 every blob is sound; 1 damage was found, repaired or not; 2 wrong arguments or configuration; 3 the store is in \
     use, or cannot be read or repaired";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Set damaged blobs aside, so that the next pull fetches them again
    #[arg(long)]
    repair: bool,
    /// Write a report that can be kept: every tag and every blob with digest and size, and when they were checked
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A blob that is not as it was stored.
struct Damage {
    digest: Digest,
    problem: String,
    repaired: bool,
    /// Where it is now, if this process has moved it.
    moved_to: Option<PathBuf>,
}

#[derive(Default)]
struct Findings {
    blobs: u64,
    bytes: u64,
    damaged: Vec<Damage>,
    /// How many are damaged, if more than can be named.
    more: u64,
}

impl Findings {
    fn count(&self) -> u64 {
        self.more.max(self.damaged.len() as u64)
    }
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let sources = arguments.place.into_sources(sources);
    let path = match load_store(&sources) {
        Ok(settings) => settings.path,
        Err(errors) => return refuse(MISCONFIGURED, &format!("the configuration is wrong\n{errors}")),
    };
    let began = SystemTime::now();
    let found = match by_daemon(&sources, arguments.repair) {
        Some(found) => found,
        None => Verifier::open(&path, RealDisk::new(&path))
            .map_err(|error| error.to_string())
            .and_then(|verifier| verify(&verifier, arguments.repair).map_err(|error| error.to_string())),
    };
    let findings = match found {
        Ok(findings) => findings,
        Err(error) => return refuse(FAILED, &error),
    };
    if let Some(file) = &arguments.report
        && let Err(error) = report(file, &path, &findings, began, &sources)
    {
        return refuse(FAILED, &error);
    }
    let text = if arguments.json { as_json(&path, &findings) } else { as_text(&path, &findings, arguments.repair) };
    if std::io::stdout().write_all(text.as_bytes()).is_err() {
        return ExitCode::from(FAILED);
    }
    if findings.count() == 0 { ExitCode::SUCCESS } else { ExitCode::from(DAMAGED) }
}

fn refuse(code: u8, text: &str) -> ExitCode {
    // Without stderr there is nobody to tell; the exit code remains.
    let _ = writeln!(std::io::stderr(), "larder: {}", crate::telemetry::plain_lines(text));
    ExitCode::from(code)
}

/// What an auditor keeps: what was checked when, what was found, and all that is stored.
fn report(file: &Path, store: &Path, findings: &Findings, began: SystemTime, sources: &Sources) -> Result<(), String> {
    let time = humantime::format_rfc3339_seconds;
    let (began, ended) = (time(began), time(SystemTime::now()));
    let (blobs, bytes, damaged) = (findings.blobs, findings.bytes, findings.count());
    let mut text = format!(
        "larder-verification 1\nlarder {}\nstore {}\nbegan {began}\nended {ended}\nchecked {blobs} blobs {bytes} bytes\ndamaged {damaged} blobs\n",
        env!("CARGO_PKG_VERSION"),
        store.display()
    );
    for Damage { digest, problem, .. } in &findings.damaged {
        let _ = writeln!(text, "damage {digest} {problem}");
    }
    text.push_str(&holdings(sources)?);
    let partial = file.with_extension("partial");
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, file));
    written.map_err(|error| format!("cannot write '{}': {error}", file.display()))
}

/// Tags and blobs with their sizes, from the daemon or, without one, from the store itself.
fn holdings(sources: &Sources) -> Result<String, String> {
    let mut listed = Vec::new();
    let asked = Daemon::of(sources).and_then(|daemon| daemon.download("/v1/verify/holdings", &mut listed));
    match asked {
        Ok(()) => return Ok(String::from_utf8_lossy(&listed).into_owned()),
        Err(Trouble { code: NO_DAEMON, .. }) => {}
        Err(trouble) => return Err(trouble.text),
    }
    let settings = load_store(sources).map_err(|errors| errors.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let disk = Arc::new(RealDisk::new(&settings.path));
        let store = Store::open(&settings, disk, Arc::new(Metrics::new())).await.map_err(|error| error.to_string())?;
        let text = audit(&store).await.map_err(|error| error.to_string());
        store.close().await;
        text
    })
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
            findings.damaged.push(Damage { digest, problem, repaired: repair, moved_to });
        }
    }
    Ok(findings)
}

/// Has the running daemon do it, and waits for the end; `None` if none runs.
fn by_daemon(sources: &Sources, repair: bool) -> Option<Result<Findings, String>> {
    let daemon = Daemon::of(sources).ok()?;
    let begun = match daemon.call(&Method::POST, &format!("/v1/verify?repair={repair}")) {
        Err(Trouble { code: NO_DAEMON, .. }) => return None,
        Err(trouble) => return Some(Err(trouble.text)),
        Ok(begun) => begun["begun"] == true,
    };
    if !begun {
        return Some(Err("another verify goes on; try again when it is done".to_owned()));
    }
    let progress = Progress::of(0);
    loop {
        std::thread::sleep(LOOK);
        let state = match daemon.call(&Method::GET, "/v1/verify") {
            Ok(state) => state,
            Err(trouble) => return Some(Err(format!("the daemon has gone meanwhile: {}", trouble.text))),
        };
        let bytes = |key: &str| state[key].as_u64().unwrap_or_default();
        progress.set(bytes("bytes"), bytes("of_bytes"));
        if state["done"] == true {
            return Some(Ok(findings_of(&state)));
        }
    }
}

fn findings_of(state: &Value) -> Findings {
    let damaged = state["damaged"].as_array().into_iter().flatten().filter_map(|blob| {
        Some(Damage {
            digest: blob["digest"].as_str()?.parse().ok()?,
            problem: blob["problem"].as_str()?.to_owned(),
            repaired: blob["set_aside"] == true,
            moved_to: None,
        })
    });
    Findings {
        blobs: state["blobs"].as_u64().unwrap_or_default(),
        bytes: state["bytes"].as_u64().unwrap_or_default(),
        damaged: damaged.collect(),
        more: state["damaged_blobs"].as_u64().unwrap_or_default(),
    }
}

fn as_text(path: &Path, findings: &Findings, repair: bool) -> String {
    let mut lines = Vec::new();
    for Damage { digest, problem, repaired, moved_to } in &findings.damaged {
        let moved = match moved_to {
            Some(path) => format!("; moved to {}", path.display()),
            None if *repaired => "; set aside".to_owned(),
            None => String::new(),
        };
        lines.push(format!("damaged {digest}: {problem}{moved}"));
    }
    let (blobs, size, damaged) = (findings.blobs, ByteSize(findings.bytes), findings.count());
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
            "repaired": damage.repaired,
            "moved_to": damage.moved_to,
        })
    });
    let damaged: Vec<_> = damaged.collect();
    let value = json!({ "store": path, "blobs": findings.blobs, "bytes": findings.bytes, "damaged": damaged });
    format!("{value:#}\n")
}
