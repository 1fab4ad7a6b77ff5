//! `larder tls init`: a certificate authority of one's own for the names that larder stands under, and what to do with it.

use crate::config::{ServerNames, Sources, configured_names};
use crate::server::{Authority, AuthorityError, server_key};
use clap::Subcommand;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Where the files go unless something else is said.
const FOLDER: &str = "larder-tls";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a local certificate authority and a certificate, and say how clients come to trust it
    Init(Init),
}

#[derive(clap::Args, Debug)]
struct Init {
    /// The names and addresses that clients use for larder [default: the upstreams' names and `[server] names` of the configuration]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Where ca.pem, ca.key, server.pem and server.key are written
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    dir: PathBuf,
    /// Replace what is there: clients must trust the new authority anew
    #[arg(long)]
    force: bool,
    /// Read this file [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is written, and for whom it is.
const FILES: [(&str, bool); 4] = [("ca.pem", false), ("ca.key", true), ("server.pem", false), ("server.key", true)];

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let Command::Init(init) = arguments.command;
    let complain = |code: u8, text: &str| {
        let _ = writeln!(io::stderr(), "larder: {text}");
        ExitCode::from(code)
    };
    let sources = Sources { file: init.config.clone(), ..sources };
    let names = match names(&init, &sources) {
        Ok(names) => names,
        Err(problem) => return complain(2, &problem),
    };
    let dir = sources.current_folder.join(&init.dir);
    let present: Vec<_> = FILES.iter().map(|(name, _)| dir.join(name)).filter(|path| path.exists()).collect();
    if let (Some(path), false) = (present.first(), init.force) {
        let text = format!(
            "{} exists: use --force to replace it (clients must then trust the new authority anew), or --dir for another folder",
            path.display()
        );
        return complain(2, &text);
    }
    let contents = match make(&names) {
        Ok(contents) => contents,
        Err(error) => return complain(1, &error.to_string()),
    };
    for ((name, secret), content) in FILES.iter().zip(&contents) {
        let path = dir.join(name);
        if let Err(error) = fs::create_dir_all(&dir).and_then(|()| write(&path, content, *secret)) {
            return complain(1, &format!("cannot write {}: {error}", path.display()));
        }
    }
    let dir = fs::canonicalize(&dir).unwrap_or(dir);
    let written = io::stdout().write_all(guide(&dir, &names).as_bytes());
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn names(init: &Init, sources: &Sources) -> Result<ServerNames, String> {
    let texts = if init.names.is_empty() {
        configured_names(sources).map_err(|errors| format!("the configuration is wrong\n{errors}"))?
    } else {
        init.names.clone()
    };
    if texts.is_empty() {
        return Err("for which names? Write them, such as `larder tls init myacr.azurecr.io larder.lan`, or configure upstreams".to_owned());
    }
    ServerNames::parse(texts)
}

/// The contents of the files, in their order.
fn make(names: &ServerNames) -> Result<[String; 4], AuthorityError> {
    let now = SystemTime::now();
    let (authority, key) = (Authority::create(names, now)?, server_key()?);
    let certificate = authority.issue(names, &key, now)?;
    Ok([authority.pem().to_owned(), authority.key_pem(), certificate, key.serialize_pem()])
}

/// Written beside its place and renamed, so that at no moment somebody else can read a key.
fn write(path: &Path, content: &str, secret: bool) -> io::Result<()> {
    let next = path.with_extension("new");
    let _ = fs::remove_file(&next);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    #[cfg(not(unix))]
    let _ = secret;
    let mut file = options.open(&next)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, path)
}

/// What to do next.
fn guide(dir: &Path, names: &ServerNames) -> String {
    let (ca, first) = (dir.join("ca.pem"), names.first());
    let all: Vec<String> =
        names.dns().iter().cloned().chain(names.addresses().iter().map(ToString::to_string)).collect();
    GUIDE
        .replace("{dir}", &dir.display().to_string())
        .replace("{ca}", &ca.display().to_string())
        .replace("{names}", &all.join(", "))
        .replace("{name}", first)
}

const GUIDE: &str = include_str!("tls.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_every_place_where_an_authority_is_trusted() {
        let names = ServerNames::parse(["myacr.azurecr.io".to_owned()]).unwrap();
        let text = guide(Path::new("/etc/larder/tls"), &names);
        for word in [
            "Debian",
            "Fedora",
            "Windows",
            "macOS",
            "containerd",
            "Docker",
            "Podman",
            "Java",
            "Node",
            "/etc/hosts",
            "--resolve",
            "connect =",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains('{') && text.contains("certificate_file = \"/etc/larder/tls/server.pem\""), "{text}");
    }
}
