//! `larder user`: adds, removes and lists the users of the users file. Lines of others, comments among them, stay as they are.

use crate::config::{Sources, check_user_name, find_users_file, read_line, read_users_text};
use clap::{Args, Subcommand};
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Two to this power rounds: some 50 to 100 ms of a processor for each check.
const COST: u32 = 10;
/// bcrypt looks at no more of a password, in bytes.
const MAX_PASSWORD: usize = 72;

const HELP: &str = "The password is asked for on a terminal; otherwise it is the first line of the standard input. A running larder \
                    reads the file again within a second.";

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a user, or give one a new password
    #[command(after_help = HELP)]
    Add(Named),
    /// Remove a user, who is let in no longer within a second
    Remove(Named),
    /// List the users
    List(Place),
}

#[derive(Args, Debug)]
pub(super) struct Named {
    /// The user's name
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Args, Debug)]
pub(super) struct Place {
    /// Take [access] users_file of this file [default: $LARDER_CONFIG, /etc/larder/larder.toml, the user's configuration folder]
    #[arg(long, value_name = "FILE", conflicts_with = "users_file")]
    config: Option<PathBuf>,
    /// Take this users file
    #[arg(long, value_name = "FILE")]
    users_file: Option<PathBuf>,
}

pub(super) fn run(command: User, sources: Sources) -> ExitCode {
    let outcome = match command {
        User::Add(Named { name, place }) => place.find(sources).and_then(|file| add(&file, &name)),
        User::Remove(Named { name, place }) => place.find(sources).and_then(|file| remove(&file, &name)),
        User::List(place) => place.find(sources).and_then(|file| list(&file)),
    };
    match outcome {
        Ok(text) => {
            let written = std::io::stdout().write_all(text.as_bytes());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "larder: {problem}");
            ExitCode::FAILURE
        }
    }
}

impl Place {
    fn find(self, sources: Sources) -> Result<PathBuf, String> {
        if let Some(file) = self.users_file {
            return Ok(file);
        }
        let file = find_users_file(&Sources { file: self.config, ..sources }).map_err(|errors| errors.to_string())?;
        file.ok_or_else(|| {
            "the configuration names no users file: write users_file = \"…\" into [access], or use --users-file FILE"
                .to_owned()
        })
    }
}

fn add(file: &Path, name: &str) -> Result<String, String> {
    check_user_name(name)?;
    let password = read_password(name)?;
    let hash = bcrypt::hash_with_result(&*password, COST).map_err(|error| format!("bcrypt failed: {error}"))?;
    let line = format!("{name}:{}", hash.format_for_version(bcrypt::Version::TwoY));
    let _lock = lock(file)?;
    let mut lines = if file.exists() { lines_of(file)? } else { Vec::new() };
    let said = if let Some(known) = lines.iter_mut().find(|line| is_of(line, name)) {
        *known = line;
        "has a new password in"
    } else {
        lines.push(line);
        "is added to"
    };
    replace(file, &lines)?;
    Ok(format!("user '{name}' {said} {}\n", file.display()))
}

fn remove(file: &Path, name: &str) -> Result<String, String> {
    let _lock = lock(file)?;
    let mut lines = lines_of(file)?;
    let before = lines.len();
    lines.retain(|line| !is_of(line, name));
    if lines.len() == before {
        return Err(format!("there is no user '{name}' in {}: larder user list shows who there is", file.display()));
    }
    replace(file, &lines)?;
    Ok(format!("user '{name}' is removed from {}\n", file.display()))
}

fn list(file: &Path) -> Result<String, String> {
    let lines = lines_of(file)?;
    let mut names: Vec<&str> = lines.iter().filter_map(|line| Some(read_line(line).ok()??.0)).collect();
    names.sort_unstable();
    names.push("");
    Ok(names.join("\n"))
}

fn lines_of(file: &Path) -> Result<Vec<String>, String> {
    let text = read_users_text(file).map_err(|error| error.to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Whether a line is the user's; one whose hash larder does not read is, too.
fn is_of(line: &str, name: &str) -> bool {
    !line.starts_with('#') && line.split_once(':').is_some_and(|(known, _)| known == name)
}

/// The password; from a terminal twice and unseen.
fn read_password(name: &str) -> Result<Zeroizing<String>, String> {
    let password = if std::io::stdin().is_terminal() {
        let first = ask(&format!("password of {name}: "))?;
        if first != ask("again: ")? {
            return Err("the two passwords are not the same: nothing is changed".to_owned());
        }
        first
    } else {
        read_first_line()?
    };
    if password.is_empty() {
        return Err("the password is empty: write it to the standard input, or run this on a terminal".to_owned());
    }
    if password.len() > MAX_PASSWORD || password.contains('\0') {
        return Err(format!("bcrypt takes passwords of up to {MAX_PASSWORD} bytes without NUL: choose another one"));
    }
    Ok(password)
}

fn read_first_line() -> Result<Zeroizing<String>, String> {
    let mut line = Zeroizing::new(String::with_capacity(4096));
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| format!("cannot read the password from the standard input: {error}"))?;
    Ok(Zeroizing::new(line.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(unix)]
fn ask(question: &str) -> Result<Zeroizing<String>, String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let failed = |error: rustix::io::Errno| format!("the terminal cannot be told not to show the password: {error}");
    let stdin = std::io::stdin();
    let _ = write!(std::io::stderr(), "{question}");
    let shown = tcgetattr(&stdin).map_err(failed)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(failed)?;
    let line = read_first_line();
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &shown).map_err(failed);
    let _ = writeln!(std::io::stderr());
    restored.and(line)
}

#[cfg(not(unix))]
fn ask(_: &str) -> Result<Zeroizing<String>, String> {
    Err("give the password on the standard input: echo PASSWORD | larder user add …".to_owned())
}

/// One change at a time. The folder is locked, since the file is replaced.
#[cfg(unix)]
fn lock(file: &Path) -> Result<std::fs::File, String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let open = std::fs::File::open(folder).map_err(|error| format!("cannot open {}: {error}", folder.display()))?;
    rustix::fs::flock(&open, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| format!("cannot lock {}: {error}", folder.display()))?;
    Ok(open)
}

#[cfg(not(unix))]
fn lock(_: &Path) -> Result<(), String> {
    Ok(())
}

/// Puts a new file in the place of the old one, with its permissions: whoever reads meanwhile has the one or the other, whole.
fn replace(file: &Path, lines: &[String]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot write {}: {error}", file.display());
    // A link stays one: what it leads to is replaced.
    let file = &file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let outcome = write_new(&new, file, lines).and_then(|()| std::fs::rename(&new, file));
    if outcome.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    outcome.map_err(failed)
}

fn write_new(new: &Path, old: &Path, lines: &[String]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(new)?;
    if let Ok(known) = std::fs::metadata(old) {
        open.set_permissions(known.permissions())?;
        #[cfg(unix)]
        keep_owner(&open, &known)?;
    }
    for line in lines {
        writeln!(open, "{line}")?;
    }
    open.sync_all()
}

/// The daemon may run as another user than the one who changes the file.
#[cfg(unix)]
fn keep_owner(new: &std::fs::File, known: &std::fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let own = new.metadata()?;
    if (own.uid(), own.gid()) != (known.uid(), known.gid()) {
        std::os::unix::fs::fchown(new, Some(known.uid()), Some(known.gid()))?;
    }
    Ok(())
}
