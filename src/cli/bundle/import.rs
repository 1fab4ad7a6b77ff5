//! `larder import`: an image layout, whoever made it, becomes stored content. Contents are stored as they are read; names are linked
//! at the end, by the daemon, which knows whether all that they need is here.
//!
//! What is no pipe is looked through first: a bundle that is refused is refused before anything of it is stored, and room that is
//! missing is said before the first byte.

use super::report::{self, Report};
use super::sizes::Sizes;
use super::source::{Found, Piece, Slice, Source};
use super::{archive, names};
use crate::bundle::{FORMAT, Index, Notes};
use crate::cli::arguments::Place;
use crate::cli::client::{Daemon, Trouble};
use crate::cli::progress::Progress;
use crate::config::Sources;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// Digests that the daemon is asked about at once.
const ASKED: usize = 100_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
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

pub(crate) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    Trouble::exit_code(import(arguments, sources))
}

fn import(mut arguments: Arguments, sources: Sources) -> Result<ExitCode, Trouble> {
    let place = std::mem::take(&mut arguments.place);
    let daemon = Daemon::of(&place.into_sources(sources))?;
    let parts = Source::of(&arguments.input)?.parts();
    let (begun, _turn) = daemon.hold("/v1/import/begin")?;
    let session = begun["session"].as_u64().unwrap_or_default();
    let mut job =
        Job { daemon: &daemon, session, arguments: &arguments, sizes: Sizes::default(), report: Report::default() };
    let several = parts.len() > 1;
    let mut failed = None;
    for part in &parts {
        match job.part(part) {
            // The other volumes are whole all the same.
            Err(trouble) if several && trouble.code == 1 => {
                trouble.about(&part.name()).tell();
                failed = Some(ExitCode::FAILURE);
            }
            Err(trouble) => return Err(trouble),
            Ok(()) if several && !arguments.json => print(&job.report.of_volume(&part.name()))?,
            Ok(()) => {}
        }
    }
    let report = std::mem::take(&mut job.report);
    let sizes = if arguments.dry_run { Some(job.sizes_of(&report)?) } else { None };
    print(&report::told(&report, sizes.as_ref(), parts.len(), arguments.json))?;
    // A volume that is not the last one is not expected to be whole; of a folder all of them should be there.
    let waits = report.is_incomplete() && (several || report.volumes_missing.is_empty());
    let code =
        if waits || several && !report.volumes_missing.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    Ok(failed.unwrap_or(code))
}

fn print(text: &str) -> Result<(), Trouble> {
    let printed = std::io::stdout().write_all(text.as_bytes());
    printed.map_err(|error| Trouble::failed(format!("cannot print: {error}")))
}

/// An import that is under way.
struct Job<'a> {
    daemon: &'a Daemon,
    session: u64,
    arguments: &'a Arguments,
    sizes: Sizes,
    report: Report,
}

impl Job<'_> {
    fn ask(&self, what: &str, body: bytes::Bytes) -> Result<Value, Trouble> {
        let mark = if what.contains('?') { '&' } else { '?' };
        self.daemon.post(&format!("/v1/import/{what}{mark}session={}", self.session), body)
    }

    /// The sizes of all that it would bring, and what is free here.
    fn sizes_of(&self, report: &Report) -> Result<Value, Trouble> {
        let mut sizes = self.sizes.report(&report.roots);
        sizes["free_bytes"] = self.ask("room?bytes=0", bytes::Bytes::new())?["free_bytes"].clone();
        Ok(sizes)
    }

    /// Imports one archive or folder.
    fn part(&mut self, part: &Source) -> Result<(), Trouble> {
        let dry_run = self.arguments.dry_run;
        let mut contents = Vec::new();
        let (mut slices, sizes) = (0, &mut self.sizes);
        let surveyed = part.survey(&mut |piece, length, reader| {
            if dry_run {
                sizes.note(piece.digest, length, reader);
            }
            match piece.slice {
                Some(_) => slices += length,
                None => contents.push((piece.digest.to_owned(), length)),
            }
            Ok(())
        })?;
        let mut wanted = None;
        let mut needed = 0;
        if let Some(surveyed) = &surveyed {
            self.expect(surveyed)?;
            let (set, bytes) = self.wanted(&contents)?;
            needed = bytes + slices;
            if !dry_run && needed > 0 {
                self.ask(&format!("room?bytes={needed}"), bytes::Bytes::new())?;
            }
            wanted = Some(set);
        }
        let found = match surveyed {
            Some(found) if dry_run => {
                let set = wanted.unwrap_or_default();
                self.report.planned(&contents, &set, slices);
                self.sizes.mark(|digest| !set.contains(digest));
                found
            }
            _ => {
                drop(contents);
                let progress = Progress::of(needed);
                part.read(&mut |piece, length, reader| self.store(&mut wanted, &progress, piece, length, reader))?
            }
        };
        self.link(&found)
    }

    /// Which contents are not here, and their bytes.
    fn wanted(&self, contents: &[(String, u64)]) -> Result<(HashSet<String>, u64), Trouble> {
        let mut wanted = HashSet::new();
        for some in contents.chunks(ASKED) {
            let digests: Vec<&str> = some.iter().map(|(digest, _)| digest.as_str()).collect();
            let answer = self.ask("wanted", json!(digests).to_string().into())?;
            let listed = answer["wanted"].as_array().into_iter().flatten();
            wanted.extend(listed.filter_map(Value::as_str).map(str::to_owned));
        }
        let mut counted = HashSet::new();
        let bytes = contents.iter().filter(|(digest, _)| wanted.contains(digest) && counted.insert(digest.as_str()));
        Ok((wanted.clone(), bytes.map(|(_, length)| length).sum()))
    }

    fn store(
        &mut self,
        wanted: &mut Option<HashSet<String>>,
        progress: &Progress,
        piece: Piece<'_>,
        length: u64,
        reader: &mut dyn Read,
    ) -> Result<(), Trouble> {
        let is_wanted = match (piece.slice, wanted) {
            (Some(Slice { offset, .. }), _) => {
                let path = format!("{}?offset={offset}&length={length}&session={}", piece.digest, self.session);
                self.daemon.call(&http::Method::GET, &format!("/v1/import/{path}"))?["present"] == false
            }
            // Twice in a bundle, it is stored once.
            (None, Some(wanted)) => wanted.remove(piece.digest),
            (None, None) => {
                let answer = self.ask("wanted", json!([piece.digest]).to_string().into())?;
                answer["wanted"].as_array().is_some_and(|wanted| !wanted.is_empty())
            }
        };
        if self.arguments.dry_run {
            self.sizes.note(piece.digest, length, reader);
        }
        if !is_wanted {
            self.report.present += 1;
            return Ok(());
        }
        if !self.arguments.dry_run {
            let how = match piece.slice {
                Some(Slice { offset, total }) => format!("offset={offset}&total={total}"),
                None => format!("length={length}"),
            };
            let path = format!("/v1/import/{}?{how}&session={}", piece.digest, self.session);
            self.daemon.upload(&path, &mut progress.reading(reader))?;
        }
        self.report.stored += 1;
        self.report.stored_bytes += length;
        Ok(())
    }

    /// Insists on the hash of the index. A volume without an index says what hash it is that it belongs to.
    fn expect(&mut self, found: &Found) -> Result<(), Trouble> {
        let own = found.index.as_ref().map(|index| super::output::hex(&Sha256::digest(index)));
        let hash = own.or_else(|| found.volume.as_ref().map(|volume| volume.index.clone()));
        let hash = hash.map(|hash| format!("sha256:{hash}"));
        match &self.arguments.expect {
            Some(expected) if Some(expected) != hash.as_ref() => {
                let is = hash.as_deref().unwrap_or("none at all");
                let text =
                    format!("the bundle's index.json has the hash {is}, not {expected}; nothing of it is linked");
                Err(Trouble::failed(text))
            }
            _ => {
                self.report.index = hash.or(self.report.index.take());
                Ok(())
            }
        }
    }

    fn link(&mut self, found: &Found) -> Result<(), Trouble> {
        self.expect(found)?;
        self.report.ignored += found.ignored;
        let (entries, notes) = (self.entries(found)?, notes(found)?);
        for entry in &entries {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            self.report.roots.entry(text("repository")).or_default().insert(text("digest"));
        }
        let naming = json!({
            "entries": entries,
            "platforms": notes.platforms,
            "absent": notes.absent,
            "sparse": found.notes.is_none() && found.volume.is_none(),
            "force": self.arguments.force,
            "dry_run": self.arguments.dry_run,
            "volume": found.volume,
        });
        self.report.linked(&self.ask("link", naming.to_string().into())?);
        // The daemon looks at what is stored, and nothing was.
        if self.arguments.dry_run { self.foresee(&entries, &notes) } else { Ok(()) }
    }

    /// What would be linked, and what not: that of which something is neither here nor in the bundle nor declared to be left out.
    fn foresee(&mut self, entries: &[Value], notes: &Notes) -> Result<(), Trouble> {
        if !notes.platforms.is_empty() {
            // Of other platforms the bundle has manifests alone, and means it.
            self.report.foreseen(entries.len(), Vec::new());
            return Ok(());
        }
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let mut lacking = BTreeMap::new();
        for entry in entries {
            let digest = text(entry, "digest");
            let lacks =
                self.sizes.lacks(&digest).into_iter().filter(|it| !notes.absent.iter().any(|absent| absent == it));
            let name = format!("{}:{}", text(entry, "repository"), entry["tag"].as_str().unwrap_or(&digest));
            lacking.insert(name, lacks.map(|it| (it.to_owned(), 0)).collect::<Vec<_>>());
        }
        let all: Vec<(String, u64)> = lacking.values().flatten().cloned().collect();
        let (wanted, _) = self.wanted(&all)?;
        let mut incomplete = Vec::new();
        for (name, lacks) in lacking {
            let missing: Vec<String> = lacks.into_iter().map(|(it, _)| it).filter(|it| wanted.contains(it)).collect();
            if !missing.is_empty() {
                incomplete.push(
                    json!({ "name": name, "count": missing.len(), "missing": &missing[..missing.len().min(10)] }),
                );
            }
        }
        self.report.foreseen(entries.len() - incomplete.len(), incomplete);
        Ok(())
    }

    /// What the daemon is to link.
    fn entries(&self, found: &Found) -> Result<Vec<Value>, Trouble> {
        let place = self.arguments.place_as.as_deref();
        let index: Index = match &found.index {
            Some(index) => serde_json::from_slice(index).map_err(|error| misread("index.json", &error))?,
            None => Index::default(),
        };
        let notes = notes(found)?;
        let (mut entries, mut nameless) = (Vec::new(), 0_u64);
        for entry in &index.manifests {
            let Some(name) = names::name(entry, place) else {
                nameless += 1;
                continue;
            };
            let original = names::name(entry, None).and_then(|name| Some(format!("{}:{}", name.repository, name.tag?)));
            entries.push(json!({
                "repository": name.repository,
                "tag": name.tag,
                "digest": entry.digest,
                "media_type": entry.media_type,
                "moved": original.and_then(|original| notes.tags.get(&original).copied()),
            }));
        }
        if place.is_none_or(|place| !place.contains('/')) && found.named.iter().any(|named| named.repository == "?") {
            return Err(Trouble::usage(
                "it has an image without a name: say where it belongs with --as UPSTREAM/REPOSITORY".to_owned(),
            ));
        }
        if place.is_none() && found.named.iter().any(|named| named.repository.starts_with("?/")) {
            return Err(Trouble::usage(
                "it does not say which registry it was of: say so with --as UPSTREAM".to_owned(),
            ));
        }
        if found.index.is_none() && found.named.is_empty() && found.volume.is_none() {
            return Err(Trouble::usage(format!(
                "it has no index.json, and nothing else that says names{}",
                archive::OLD_DOCKER
            )));
        }
        entries.extend(found.named.iter().map(|named| {
            let (repository, tag, digest) = (names::moved(&named.repository, place), &named.tag, &named.digest);
            json!({ "repository": repository, "tag": tag, "digest": digest, "media_type": null, "moved": null })
        }));
        if nameless > 0 && entries.is_empty() {
            let text = format!(
                "{nameless} entries have no name with a registry in it: say where they belong with --as UPSTREAM/REPOSITORY"
            );
            return Err(Trouble::usage(text));
        }
        Ok(entries)
    }
}

fn notes(found: &Found) -> Result<Notes, Trouble> {
    let Some(notes) = &found.notes else { return Ok(Notes::default()) };
    let notes: Notes = serde_json::from_slice(notes).map_err(|error| misread("larder.json", &error))?;
    if notes.larder == FORMAT {
        return Ok(notes);
    }
    let text = format!(
        "it was made by a larder with another format ({}); this one reads format {FORMAT}: use the same version on both sides",
        notes.larder
    );
    Err(archive::refused(&text))
}

fn misread(what: &str, error: &serde_json::Error) -> Trouble {
    archive::refused(&format!("its {what} is not understood: {error}"))
}
