//! The users file: `name:hash` lines as `htpasswd -B` writes them. Only bcrypt is read; every other hash is an error that says
//! what to do. The hashes are secrets too: nothing here shows one.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A users file is no larger: about ten thousand users.
const MAX_FILE: u64 = 1 << 20;
/// A name is no longer, in bytes.
const MAX_NAME: usize = 255;
/// bcrypt's length of a hash with its cost and salt.
const HASH: usize = 60;
/// A higher cost would take seconds of a processor for each login.
const MAX_COST: u32 = 15;

/// The users and the hashes of their passwords.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Users(HashMap<String, Arc<str>>);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.0.len())
    }
}

/// What is wrong with a users file; no text holds a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsersError {
    /// The line, from 1; none if it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl std::error::Error for UsersError {}

fn whole(problem: impl Into<String>) -> UsersError {
    UsersError { line: None, problem: problem.into() }
}

impl Users {
    /// Reads the text of a users file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<UsersError>> {
        let (mut users, mut errors) = (HashMap::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let entry = match read_line(line) {
                Ok(Some((name, hash))) if users.insert(name.to_owned(), Arc::from(hash)).is_some() => {
                    Err(format!("user '{name}' stands here a second time: remove one of the lines"))
                }
                Ok(_) => Ok(()),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = entry {
                errors.push(UsersError { line: Some(index + 1), problem });
            }
        }
        if errors.is_empty() { Ok(Self(users)) } else { Err(errors) }
    }

    /// The bcrypt hash of a user's password.
    #[must_use]
    pub fn hash(&self, name: &str) -> Option<&Arc<str>> {
        self.0.get(name)
    }

    /// Whether there is such a user.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether there is no user.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some user's hash: what an unknown name's password is checked against, so that it takes as long.
    #[must_use]
    pub fn any_hash(&self) -> Option<&Arc<str>> {
        self.0.values().next()
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// Reads the bytes of a users file, which must be text of a sensible size.
///
/// # Errors
/// [`UsersError`] that names the file.
pub fn read_users_text(path: &Path) -> Result<Zeroizing<String>, UsersError> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => whole(format!(
            "users file {0} does not exist: larder user add NAME --users-file {0} makes it",
            path.display()
        )),
        _ => whole(format!(
            "users file {} cannot be read: {error}: let the user that larder runs as read it",
            path.display()
        )),
    };
    // Before it is opened: opening a pipe may wait for ever.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(whole(format!("users file {} is no regular file: write the users into a file", path.display())));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path).map_err(failed)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(whole(format!("users file {} is larger than 1 MiB: it is no users file", path.display())));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| whole(format!("users file {} is no text: write it as UTF-8", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads and parses a users file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_users(path: &Path) -> Result<Users, Vec<UsersError>> {
    Users::parse(&read_users_text(path).map_err(|error| vec![error])?)
}

/// The user of a line; none for a comment or an empty one.
///
/// # Errors
/// What is wrong with the line.
pub fn read_line(line: &str) -> Result<Option<(&str, &str)>, String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((name, hash)) = line.split_once(':') else {
        return Err("there is no colon between name and hash: larder user add NAME writes such a line".to_owned());
    };
    check_user_name(name)?;
    check_hash(name, hash)?;
    Ok(Some((name, hash)))
}

/// Whether a user can have this name.
///
/// # Errors
/// Why not.
pub fn check_user_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the user has no name: write one before the colon".to_owned());
    }
    if name.len() > MAX_NAME {
        return Err(format!("the user's name is longer than {MAX_NAME} bytes: choose a shorter one"));
    }
    // Basic authentication separates user and password with the first colon (RFC 7617).
    if name.contains(':') || name.chars().any(char::is_control) || name.trim() != name {
        return Err("a user's name has no colon, no control character and no blank at its ends".to_owned());
    }
    if name.starts_with(['#', '@', '*']) {
        return Err(format!(
            "'{name}' cannot be a user's name: #, @ and * at its beginning have a meaning of their own"
        ));
    }
    Ok(())
}

fn check_hash(name: &str, hash: &str) -> Result<(), String> {
    let again = format!("write a new one with `larder user add {name}` or `htpasswd -B`");
    if !["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
        return Err(format!("user '{name}' has {}, and larder reads bcrypt alone: {again}", kind_of(hash)));
    }
    let cost = hash.get(4..6).and_then(|cost| cost.parse::<u32>().ok()).filter(|cost| (4..=31).contains(cost));
    let rest = hash.get(7..).unwrap_or_default();
    let letters = rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/');
    match cost {
        Some(cost) if hash.len() == HASH && hash.as_bytes().get(6) == Some(&b'$') && letters => {
            if cost > MAX_COST {
                return Err(format!(
                    "the hash of user '{name}' has cost {cost}, which would take seconds for each login; at most {MAX_COST}: {again}"
                ));
            }
            Ok(())
        }
        _ => Err(format!("the bcrypt hash of user '{name}' is not whole: {again}")),
    }
}

/// What kind of hash it is that is not bcrypt, without showing it: it may be a password in clear.
fn kind_of(hash: &str) -> &'static str {
    match hash {
        "" => "no hash",
        _ if hash.starts_with("$apr1$") || hash.starts_with("$1$") => "an MD5 hash",
        _ if hash.starts_with("{SHA}") || hash.starts_with("{SSHA}") => "a SHA-1 hash",
        _ if hash.starts_with("$5$") || hash.starts_with("$6$") => "a SHA-2 crypt hash",
        _ if hash.starts_with("$argon2") => "an Argon2 hash",
        _ => "a hash of another kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

    fn problems(text: &str) -> String {
        Users::parse(text).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn users_are_read_and_comments_and_empty_lines_passed_over() {
        let users = Users::parse(&format!("# ours\n\nann:{HASH}\r\nbob:{HASH}\n")).unwrap();
        assert_eq!(users.names(), ["ann", "bob"]);
        assert_eq!(users.hash("ann").map(AsRef::as_ref), Some(HASH));
        assert!(users.has("bob") && !users.has("# ours") && !users.is_empty());
        assert_eq!(format!("{users:?}"), "2 users", "no hash is shown");
    }

    #[test]
    fn other_hashes_are_named_by_line_and_kind_and_never_shown() {
        for (hash, kind) in [
            ("$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", "an MD5 hash"),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "a SHA-1 hash"),
            ("$6$rounds=5000$x$y", "a SHA-2 crypt hash"),
            ("in-clear-text", "a hash of another kind"),
            ("", "no hash"),
        ] {
            let problem = problems(&format!("# x\nann:{hash}\n"));
            assert!(problem.starts_with(&format!("line 2: user 'ann' has {kind}")), "{problem}");
            assert!(problem.contains("larder user add ann"), "{problem}");
            assert!(hash.is_empty() || !problem.contains(hash), "{problem}");
        }
    }

    #[test]
    fn a_users_file_is_of_a_sensible_size() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        std::fs::write(&file, format!("ann:{HASH}\n")).unwrap();
        assert!(read_users(&file).is_ok());
        std::fs::write(&file, "#".repeat((1 << 20) + 1)).unwrap();
        assert!(read_users(&file).unwrap_err()[0].to_string().contains("larger than 1 MiB"));
        std::fs::write(&file, b"\xff").unwrap();
        assert!(read_users(&file).unwrap_err()[0].to_string().contains("no text"));
        assert!(read_users(folder.path()).unwrap_err()[0].to_string().contains("no regular file"));
    }

    #[test]
    fn lines_that_are_no_users_are_errors_each() {
        let costly = HASH.replace("$05$", "$31$");
        let found =
            problems(&format!("ann\nbob:{}\n:{HASH}\ncid:{HASH}\ncid:{HASH}\ndan:{costly}\n@x:{HASH}\n", &HASH[..50]));
        let lines: Vec<&str> = found.lines().collect();
        for (line, part) in
            lines.iter().zip(["no colon", "not whole", "no name", "second time", "cost 31", "cannot be"])
        {
            assert!(line.contains(part), "{line}: {part}");
        }
        assert_eq!(lines.len(), 6);
    }
}
