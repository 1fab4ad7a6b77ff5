//! `larder export`: an OCI image layout of what is stored, as a folder, a tar, or several tars of at most a given size.

use super::output::{self, Output};
use super::warm::{Extent, Fetching};
use crate::bundle::{Inventory, lists};
use crate::cli::arguments::Place;
use crate::cli::client::{Daemon, Trouble};
use crate::config::{Sources, load_store};
use bytesize::ByteSize;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(group = clap::ArgGroup::new("scope").required(true).multiple(true))]
pub(crate) struct Arguments {
    /// repository, repository:tag or repository@digest, with or without its upstream before it
    #[arg(value_name = "REF", group = "scope")]
    references: Vec<String>,
    /// Everything that was used within this time, such as 30d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, group = "scope")]
    used_within: Option<Duration>,
    /// Everything that is stored by tag
    #[arg(long, group = "scope")]
    all: bool,
    /// What a list names: references, one a line, or any file that `warm` reads
    #[arg(long, value_name = "FILE", group = "scope")]
    list: Vec<PathBuf>,
    /// What the far side was asked for in vain: its inventory
    #[arg(long, value_name = "FILE", group = "scope")]
    missing: Option<PathBuf>,
    /// With --missing: only what is stored here already, nothing is fetched
    #[arg(long, requires = "missing")]
    offline: bool,
    /// One repository, whose tags are written without its name, as `oras restore` wants them
    #[arg(long, value_name = "REPOSITORY", group = "scope")]
    repository: Option<String>,
    /// The far side's inventory: blobs that it has are left out
    #[arg(long, value_name = "INVENTORY")]
    have: Option<PathBuf>,
    /// Of images for several platforms only these, as os/architecture
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<String>,
    /// Without signatures and other things that are attached
    #[arg(long)]
    no_referrers: bool,
    /// Several tars of at most this size, such as 4GiB
    #[arg(long, value_name = "SIZE")]
    split: Option<ByteSize>,
    /// A folder, a file that ends in .tar, or - for standard output
    #[arg(long, value_name = "DIR|FILE.tar|-", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// Say what it would be, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    Trouble::exit_code(export(arguments, sources))
}

fn export(mut arguments: Arguments, sources: Sources) -> Result<ExitCode, Trouble> {
    let output = arguments.output.as_deref().map(|path| Output::of(path, arguments.split.is_some())).transpose()?;
    let sources = std::mem::take(&mut arguments.place).into_sources(sources);
    let daemon = Daemon::of(&sources)?;
    let store = load_store(&sources).ok().map(|store| store.path);
    let wishes = wishes(&arguments, &daemon)?;
    let request = request(&arguments, &wishes)?;
    let plan = daemon.post("/v1/export", request.to_string().into())?;
    let id = plan["id"].as_u64().unwrap_or_default();
    let done = match &output {
        Some(output) if !arguments.dry_run => output::write(&daemon, store.as_deref(), id, &plan, output),
        _ => Ok(()),
    };
    // The daemon forgets the plan by itself, only later.
    let _ = daemon.post(&format!("/v1/export/{id}/end"), bytes::Bytes::new());
    done?;
    let free = output.as_ref().and_then(Output::free);
    let report =
        if arguments.json { format!("{:#}\n", as_json(&plan, free)) } else { as_text(&plan, free, arguments.dry_run) };
    // Standard output may be the archive.
    let to_stdout = !matches!(output, Some(Output::Stdout)) || arguments.dry_run;
    let written = if to_stdout {
        std::io::stdout().write_all(report.as_bytes())
    } else {
        std::io::stderr().write_all(report.as_bytes())
    };
    written.map_err(|error| Trouble::failed(format!("cannot print: {error}")))?;
    let unmet: Vec<&str> = plan["unmet"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for reference in &unmet {
        let _ = writeln!(std::io::stderr(), "not in it: {reference} is not stored here");
    }
    Ok(if unmet.is_empty() || arguments.offline { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the far side was asked for in vain. Unless it is to be done without, what is not here is fetched first, by normal fills.
fn wishes(arguments: &Arguments, daemon: &Daemon) -> Result<Vec<String>, Trouble> {
    let Some(path) = &arguments.missing else { return Ok(Vec::new()) };
    let wishes: Vec<String> = inventory(path)?.missing.into_keys().collect();
    if !arguments.offline {
        let (platforms, referrers) = (arguments.platform.clone(), !arguments.no_referrers);
        let extent = Extent { platforms, referrers, dry_run: arguments.dry_run };
        let mut fetching = Fetching::new(daemon, &extent, false);
        for reference in &wishes {
            if let Err(error) = fetching.one(reference)? {
                let _ = writeln!(std::io::stderr(), "{reference} could not be fetched: {error}");
            }
        }
    }
    Ok(wishes)
}

fn request(arguments: &Arguments, wishes: &[String]) -> Result<Value, Trouble> {
    let mut references = arguments.references.clone();
    references.extend(arguments.repository.clone());
    let mut optional = wishes.to_vec();
    for file in &arguments.list {
        let reading = lists::read_file(file, &|_| None).map_err(super::io("read", file))?;
        if reading.kind == lists::PLAIN {
            // As they stand there: a repository without a tag is all of it.
            references.extend(lines_of(&read(file)?));
        } else {
            optional.extend(reading.references);
        }
    }
    let far = match &arguments.have {
        Some(path) => inventory(path)?.digests.iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    Ok(json!({
        "scope": {
            "references": references,
            "wished": optional,
            "used_within_s": arguments.used_within.map(|within| within.as_secs()),
            "all": arguments.all,
            "platforms": arguments.platform,
            "referrers": !arguments.no_referrers,
            "bare_tags": arguments.repository.is_some(),
        },
        "far": far,
        "volume_bytes": arguments.split.map(|size| size.as_u64()),
    }))
}

fn read(path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(super::io("read", path))
}

fn inventory(path: &Path) -> Result<Inventory, Trouble> {
    Inventory::parse(&read(path)?).map_err(|error| Trouble::usage(format!("{}: {error}", path.display())))
}

fn lines_of(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn as_json(plan: &Value, free: Option<u64>) -> Value {
    let volumes = plan["volumes"].as_array().map_or(0, Vec::len);
    json!({
        "bytes": plan["bytes"],
        "unique_bytes": plan["unique_bytes"],
        "far_bytes": plan["far_bytes"],
        "volumes": volumes,
        "volume_bytes": plan["volumes"],
        "free_bytes": free,
        "repositories": plan["repositories"],
        "index_sha256": plan["index_sha256"],
        "unmet": plan["unmet"],
        "absent": plan["absent"],
        "absent_count": plan["absent_count"],
    })
}

fn as_text(plan: &Value, free: Option<u64>, dry: bool) -> String {
    let size = |value: &Value| ByteSize(value.as_u64().unwrap_or_default()).to_string();
    let mut text = format!("{:>12}  {:>12}  {:>12}  REPOSITORY\n", "ALL", "ONCE", "FAR SIDE HAS");
    let line = |of: &Value, name: &str| {
        format!(
            "{:>12}  {:>12}  {:>12}  {name}\n",
            size(&of["bytes"]),
            size(&of["unique_bytes"]),
            size(&of["far_bytes"])
        )
    };
    for repository in plan["repositories"].as_array().into_iter().flatten() {
        text.push_str(&line(repository, repository["repository"].as_str().unwrap_or("?")));
    }
    text.push_str(&line(plan, "in all"));
    let volumes: Vec<u64> = plan["volumes"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let written: u64 = volumes.iter().sum();
    let verb = if dry { "would be" } else { "are" };
    let _ = writeln!(text, "{} archive(s), {} {verb} written", volumes.len(), ByteSize(written));
    if let Some(free) = free {
        let _ = writeln!(text, "{} free there", ByteSize(free));
    }
    let absent = plan["absent_count"].as_u64().unwrap_or_default();
    if absent > 0 {
        let first = plan["absent"][0].as_str().unwrap_or("?");
        let _ = writeln!(
            text,
            "{absent} contents are not stored here and were left out, the first is {first}; `larder warm` brings them in"
        );
    }
    let _ = writeln!(text, "index.json sha256:{}", plan["index_sha256"].as_str().unwrap_or("?"));
    text
}
