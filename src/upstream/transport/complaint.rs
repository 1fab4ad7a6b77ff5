//! What a program says about its failure, fit to be shown: one line, cut, without what may be a secret.
//!
//! Nobody can know what is a secret in the words of a program. So the words that are shown are those that look like none: plain
//! words, paths, hosts, known codes. In a line that speaks of a secret only words from a list are shown, since a password may look
//! like any word.

/// Characters of a line that are shown.
const LONGEST: usize = 300;
/// Stands for what is not shown.
const HIDDEN: &str = "…";
/// A line with one of these may hold a secret.
const SUSPECT: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "bearer",
    "authorization",
    "key",
    "login=",
];
/// What is no secret even in such a line.
const HARMLESS: [&str; 128] = [
    "a",
    "access",
    "account",
    "again",
    "all",
    "an",
    "and",
    "any",
    "are",
    "as",
    "at",
    "auth",
    "authentication",
    "authorization",
    "az",
    "be",
    "bearer",
    "been",
    "by",
    "can",
    "cannot",
    "cli",
    "code",
    "command",
    "config",
    "configuration",
    "configured",
    "connect",
    "connection",
    "could",
    "credential",
    "credentials",
    "decrypt",
    "denied",
    "did",
    "disabled",
    "docker",
    "does",
    "due",
    "empty",
    "error",
    "exist",
    "exists",
    "exit",
    "expired",
    "failed",
    "failure",
    "fetch",
    "file",
    "find",
    "for",
    "forbidden",
    "from",
    "get",
    "getting",
    "grant",
    "has",
    "have",
    "helper",
    "host",
    "in",
    "inactivity",
    "incorrect",
    "interactive",
    "invalid",
    "is",
    "it",
    "item",
    "keychain",
    "keyring",
    "key",
    "line",
    "load",
    "locked",
    "log",
    "login",
    "logged",
    "missing",
    "must",
    "name",
    "native",
    "no",
    "none",
    "not",
    "obtain",
    "of",
    "on",
    "open",
    "or",
    "parse",
    "passphrase",
    "password",
    "permission",
    "please",
    "provided",
    "read",
    "refresh",
    "refused",
    "registry",
    "rejected",
    "renew",
    "request",
    "required",
    "revoked",
    "run",
    "secret",
    "server",
    "service",
    "session",
    "setup",
    "status",
    "store",
    "stored",
    "tenant",
    "that",
    "the",
    "timeout",
    "to",
    "token",
    "unauthorized",
    "unknown",
    "unlock",
    "user",
    "username",
    "wanted",
    "was",
    "with",
    "wrong",
];
/// Words with letters and digits that mean something.
const NAMES: [&str; 12] =
    ["x509", "ipv4", "ipv6", "oauth2", "http2", "h2", "base64", "sha256", "utf-8", "utf8", "python3", "k8s"];

/// The first line of `stderr` that is not empty; no word of `stdout`, where the secret stands, is repeated.
pub(in crate::upstream) fn of(stderr: &str, stdout: &str) -> String {
    let Some(line) = stderr.lines().map(str::trim).find(|line| !line.is_empty()) else { return String::new() };
    let line: String = line.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    let lower = line.to_ascii_lowercase();
    let suspect = SUSPECT.iter().any(|word| lower.contains(word));
    let mut shown: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let secret = bare.len() >= 4 && stdout.contains(bare)
            || if suspect { !is_harmless(bare) } else { !is_plain(word, bare) };
        let word = if secret { HIDDEN } else { word };
        if !(secret && shown.last() == Some(&HIDDEN)) {
            shown.push(word);
        }
    }
    shown.join(" ")
}

fn is_harmless(bare: &str) -> bool {
    bare.is_empty() || HARMLESS.contains(&bare.to_ascii_lowercase().as_str()) || is_code(bare) || NAMES.contains(&bare)
}

/// A code of errors: `AADSTS700082`, or a number of up to five digits.
fn is_code(bare: &str) -> bool {
    let digits = bare.trim_start_matches(|c: char| c.is_ascii_uppercase());
    let letters = bare.len() - digits.len();
    digits.bytes().all(|b| b.is_ascii_digit())
        && (letters >= 2 && (1..=8).contains(&digits.len()) || letters == 0 && digits.len() <= 5)
}

/// A word of a sentence, a path, a host or an address; no user or query of an address.
fn is_plain(word: &str, bare: &str) -> bool {
    if word.contains(['@', '?', '&', '=']) || bare.len() > 100 {
        return false;
    }
    let is_word = |part: &str| {
        part.len() <= 24 && (part.chars().all(char::is_alphabetic) || part.bytes().all(|b| b.is_ascii_digit()))
            || is_code(part)
            || NAMES.contains(&part.to_ascii_lowercase().as_str())
    };
    bare.split(|c: char| !c.is_alphanumeric()).all(is_word)
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn reasons_stay_and_secrets_go() {
        for (said, shown) in [
            ("\n  Please run 'az login' to setup account.\nmore", "Please run 'az login' to setup account."),
            ("dial tcp 10.0.0.1:443: connection refused", "dial tcp 10.0.0.1:443: connection refused"),
            ("x509: certificate signed by unknown authority", "x509: certificate signed by unknown authority"),
            ("/usr/bin/pass: no such file", "/usr/bin/pass: no such file"),
            (
                "AADSTS700082: The refresh token has expired due to inactivity.",
                "AADSTS700082: The refresh token has expired due to inactivity.",
            ),
            ("error for user: password hunter2", "error for user: password …"),
            ("hunter2 is not the password", "… is not the password"),
            ("Secret: correct horse battery", "Secret: …"),
            ("{\"Username\":\"u\",\"Secret\":\"hunter2\"}", "…"),
            ("hunter2", "…"),
            ("GET https://u:hunter2@reg.example/x?sig=abc failed", "GET … failed"),
            ("got eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln", "got …"),
            ("\x07red \x1b", "red"),
            ("", ""),
        ] {
            assert_eq!(of(said, "unrelated"), shown, "{said}");
        }
        assert_eq!(of("cannot use swordfish here", "{\"Secret\":\"swordfish\"}"), "cannot use … here");
    }
}
