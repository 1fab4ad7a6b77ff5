//! The law of the house, read from the sources themselves.
//!
//! Which room may use which is the table at the top of `src/lib.rs`: it is parsed here, so the page that people read and the law
//! that is held cannot drift apart. The rest are borders that a compiler does not guard: one file knows sled, one file maps
//! errors to status codes, only the serving rooms know that there is an HTTP server, one module is trusted with `unsafe`, no file
//! and no function outgrows a reader, and no more than two files of a room need each other.
//!
//! Comments and literals are blanked before anything is looked for, so prose may name whatever it likes.
#![expect(clippy::unwrap_used, reason = "a test program: stopping is reporting")]

mod circles;
mod functions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines a file may have without its tests.
const LONGEST: usize = 500;

struct Source {
    /// Relative to `src`, with `/`.
    path: String,
    text: String,
    code: String,
    /// Whether the compiler sees the file in test builds only.
    test: bool,
}

impl Source {
    /// The room that the file belongs to; none for `lib.rs` and `main.rs`, which only name the rooms.
    fn room(&self) -> Option<&str> {
        self.path.split_once('/').map(|(room, _)| room)
    }

    /// The code up to its unit tests, which end a file here.
    fn code_without_tests(&self) -> &str {
        let tests = self.code.match_indices("#[cfg(test)]").find(|(at, mark)| {
            let next = self.code[at + mark.len()..].trim_start();
            next.strip_prefix("mod ")
                .is_some_and(|module| module.trim_start_matches(is_word).trim_start().starts_with('{'))
        });
        tests.map_or(&self.code, |(at, _)| &self.code[..at])
    }

    /// The files of the modules that this one declares for tests alone, relative to `src`.
    fn test_modules(&self) -> Vec<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let own = match name {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let mut found = Vec::new();
        for (at, mark) in self.text.match_indices("#[cfg(test)]") {
            let declaration: Vec<&str> = self.text[at + mark.len()..].trim_start().splitn(3, '\n').collect();
            if let Some(file) = declaration[0].strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                found.push(format!("{folder}/{file}"));
            } else if let Some(module) = declaration[0].strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                found.extend([format!("{own}/{module}.rs"), format!("{own}/{module}/")]);
            }
        }
        found
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source { path: relative, code: code_of(&text), text, test: false });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let tests: Vec<String> = found.iter().flat_map(Source::test_modules).collect();
    for source in &mut found {
        source.test =
            tests.iter().any(|test| source.path == *test || test.ends_with('/') && source.path.starts_with(test));
    }
    assert!(found.iter().any(|s| s.path == "lib.rs"), "no src/lib.rs: is this run from the package?");
    found
}

/// The text with comments and the insides of literals turned into blanks, line for line.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skipped(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself if none does.
fn skipped(chars: &[char], at: usize) -> usize {
    let here = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let word_before = at > 0 && is_word(chars[at - 1]);
    match here(0) {
        '/' if here(1) == '/' => position(chars, at, |c| c == '\n'),
        '/' if here(1) == '*' => block_comment(chars, at),
        '"' => quoted(chars, at + 1, '"'),
        'r' if !word_before || chars[at - 1] == 'b' => raw_string(chars, at),
        '\'' if here(1) == '\\' || here(2) == '\'' => quoted(chars, at + 1, '\''),
        _ => at,
    }
}

fn position(chars: &[char], from: usize, found: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&i| found(chars[i])).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted(chars: &[char], from: usize, quote: char) -> usize {
    let mut i = from;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string(chars: &[char], at: usize) -> usize {
    let quote = position(chars, at + 1, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return at;
    }
    let hashes = quote - at - 1;
    let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|h| chars.get(i + h) == Some(&'#'));
    (quote + 1..chars.len()).find(|&i| closes(i)).map_or(chars.len(), |i| i + hashes + 1)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether the code uses the identifier.
fn names(code: &str, identifier: &str) -> bool {
    code.split(|c: char| !is_word(c)).any(|word| word == identifier)
}

/// The first components of every path that begins with `root::`, use trees in braces included.
fn paths_from<'a>(code: &'a str, root: &str) -> BTreeSet<&'a str> {
    let root = format!("{root}::");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&root) {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = code[at + root.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(tree) => found.extend(heads_of_tree(tree)),
            None => found.extend(first_word(rest)),
        }
    }
    found
}

fn first_word(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

fn heads_of_tree(tree: &str) -> Vec<&str> {
    let mut heads: Vec<&str> = first_word(tree).into_iter().collect();
    let mut depth = 0;
    for (i, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.extend(first_word(&tree[i + 1..])),
            _ => {}
        }
    }
    heads
}

/// Room → the rooms it may use, from the table in `src/lib.rs`.
fn law(map: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows: Vec<Vec<&str>> = map
        .lines()
        .filter_map(|line| line.strip_prefix("//! | [`"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let rooms: BTreeSet<String> = rows.iter().map(|row| row[0].trim_end_matches("`]").to_owned()).collect();
    let may_use = |row: &Vec<&str>| {
        let named = row[2].split(|c: char| !is_word(c)).filter(|w| rooms.contains(*w)).map(str::to_owned).collect();
        match row[2] {
            text if text.starts_with("all but") => rooms.difference(&named).cloned().collect(),
            "all" => rooms.clone(),
            "–" => BTreeSet::new(),
            _ => named,
        }
    };
    rows.iter().map(|row| (row[0].trim_end_matches("`]").to_owned(), may_use(row))).collect()
}

fn complain(what: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{what}\n  {}\n", broken.join("\n  "));
}

#[test]
fn rooms_use_only_what_the_map_allows() {
    let sources = sources();
    let map = &sources.iter().find(|s| s.path == "lib.rs").unwrap().text;
    let law = law(map);
    assert!(law.len() >= 10, "the table of rooms in src/lib.rs could not be read: {law:?}");
    let mut broken = Vec::new();
    for source in &sources {
        let Some(room) = source.room() else { continue };
        let Some(allowed) = law.get(room) else {
            broken.push(format!("src/{}: `{room}` is not in the table", source.path));
            continue;
        };
        for used in paths_from(&source.code, "crate").into_iter().filter(|used| *used != room) {
            if !law.contains_key(used) {
                broken.push(format!("src/{}: `crate::{used}` is no room of the table", source.path));
            } else if !allowed.contains(used) {
                broken.push(format!("src/{}: `{room}` may not use `{used}`", source.path));
            }
        }
        let around = paths_from(&source.code, "super::super").into_iter().filter(|used| *used != room);
        broken.extend(around.filter(|used| law.contains_key(*used)).map(|used| {
            format!("src/{}: reaches `{used}` through `super::super`: write `crate::{used}`", source.path)
        }));
    }
    complain("the map in src/lib.rs says who may use whom:", &broken);
}

/// Borders inside rooms: files of this folder, and the parts of their room that they may not use.
const INNER_BORDERS: &[(&str, &[&str])] = &[
    ("server/http/", &["api"]),
    ("server/tls/", &["api"]),
    ("upstream/auth/", &["endpoint", "endpoints", "judge", "relay", "as_caller"]),
    ("upstream/limits/", &["auth", "protocol", "endpoint", "endpoints", "judge", "relay", "as_caller"]),
    ("upstream/transport/", &["auth", "protocol", "endpoint", "endpoints", "judge", "relay", "as_caller"]),
];

#[test]
fn borders_inside_rooms_are_kept() {
    let mut broken = Vec::new();
    let sources = sources();
    for (folder, forbidden) in INNER_BORDERS {
        let room = folder.split('/').next().unwrap();
        let files: Vec<&Source> =
            sources.iter().filter(|source| source.path.starts_with(folder) && !source.test).collect();
        assert!(!files.is_empty(), "no file in src/{folder}");
        for source in files {
            let code = source.code_without_tests();
            let used = paths_from(code, &format!("crate::{room}")).into_iter().chain(paths_from(code, "super::super"));
            let wrong = used.filter(|used| forbidden.contains(used));
            broken.extend(wrong.map(|used| format!("src/{} uses `{room}::{used}`", source.path)));
        }
    }
    complain("these parts of a room do not know each other:", &broken);
}

#[test]
fn the_map_and_the_declared_rooms_are_the_same() {
    let sources = sources();
    let lib = sources.iter().find(|s| s.path == "lib.rs").unwrap();
    let law = law(&lib.text);
    // What only tests and the fuzzer build is no room.
    let shipped = lib.code.replace("#[cfg(any(test, fuzzing))]\npub mod ", "");
    let declared: BTreeSet<&str> =
        shipped.lines().filter_map(|l| l.strip_prefix("pub mod ")).map(|l| l.trim_end_matches(';')).collect();
    let listed: BTreeSet<&str> = law.keys().map(String::as_str).collect();
    assert_eq!(declared, listed, "rooms that src/lib.rs declares, and rooms of its table");
}

#[test]
fn only_one_file_knows_sled() {
    let knowing: Vec<String> =
        sources().iter().filter(|s| names(&s.code, "sled")).map(|s| format!("src/{}", s.path)).collect();
    assert_eq!(knowing.len(), 1, "sled is behind one file, so that it can be replaced in a day: {knowing:?}");
}

#[test]
fn only_the_serving_rooms_know_an_http_server() {
    let serving = ["server", "admin"];
    let knows = |s: &Source| {
        let code = s.code_without_tests();
        ["hyper", "hyper_util"]
            .iter()
            .any(|library| paths_from(code, library).contains("server") || code.contains(&format!("{library}::server")))
    };
    let broken: Vec<String> = sources()
        .iter()
        .filter(|s| !s.test && s.room().is_none_or(|room| !serving.contains(&room)) && knows(s))
        .map(|s| format!("src/{}", s.path))
        .collect();
    complain("only `server` and `admin` know that there is an HTTP server:", &broken);
}

#[test]
fn only_one_file_maps_errors_to_status_codes() {
    let speaking = ["server", "admin", "upstream"];
    let sources = sources();
    let with_codes: Vec<&Source> =
        sources.iter().filter(|s| !s.test && names(s.code_without_tests(), "StatusCode")).collect();
    let elsewhere = with_codes.iter().filter(|s| s.room().is_none_or(|room| !speaking.contains(&room)));
    complain(
        "status codes are no business of these files:",
        &elsewhere.map(|s| format!("src/{}", s.path)).collect::<Vec<_>>(),
    );
    let situation = |pattern: &str| ["Error::", "ErrorKind::", "Refusal::"].iter().any(|of| pattern.contains(of));
    let matches = |line: &str| line.split_once("=>").is_some_and(|(pattern, _)| situation(pattern));
    let maps = |s: &Source| s.room() == Some("server") && s.code_without_tests().lines().any(matches);
    let mapping: Vec<&str> = with_codes.iter().filter(|s| maps(s)).map(|s| s.path.as_str()).collect();
    assert_eq!(mapping, ["server/api/error.rs"], "one file of the server turns errors into status codes");
}

#[test]
fn only_the_sendfile_module_has_unsafe_code() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|s| names(&s.code, "unsafe") && !s.path.starts_with("server/http/sendfile"))
        .map(|s| format!("src/{}", s.path))
        .collect();
    complain("`unsafe` is the sendfile module's alone:", &broken);
}

#[test]
fn no_file_outgrows_a_reader() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|s| !s.test && s.code_without_tests().lines().count() > LONGEST)
        .map(|s| format!("src/{}: {} lines, {LONGEST} at most", s.path, s.code_without_tests().lines().count()))
        .collect();
    complain("split by subject what is longer without its tests:", &broken);
}

mod reading {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let code = code_of(
            "a // crate::b\n/* crate::c /* d */ */ e \"crate::\\\"f\" r#\"crate::\"g\"# 'h' '\\'' <'i> br\"j\" for_r\"k\"",
        );
        let words: Vec<&str> = code.split(|c: char| !is_word(c)).filter(|w| !w.is_empty()).collect();
        assert_eq!(words, ["a", "e", "i", "b", "for_r"]);
    }

    #[test]
    fn every_way_to_name_a_room_is_seen() {
        let code = "use crate::oci::Digest;\nuse crate::{\n  store::{Store, Ingest}, cache,\n};\nlet x = $crate::admin::f();\n\
                    pub(in crate::server) fn g() {}\nuse other_crate::access; use upstream::crate_x;";
        let found: Vec<&str> = paths_from(code, "crate").into_iter().collect();
        assert_eq!(found, ["admin", "cache", "oci", "server", "store"]);
    }

    #[test]
    fn tests_are_told_from_what_they_test() {
        let text = "a\n#[cfg(test)]\nmod testing;\n#[cfg(test)]\n#[path = \"b_tests.rs\"]\nmod tests;\nc\n\
                    #[cfg(test)]\nmod tests {\n  d\n}\n";
        let source = Source { path: "room/b.rs".into(), text: text.into(), code: code_of(text), test: false };
        assert_eq!(source.test_modules(), ["room/b/testing.rs", "room/b/testing/", "room/b_tests.rs"]);
        assert_eq!(source.code_without_tests().lines().count(), 7);
    }

    #[test]
    fn the_table_is_read_as_people_read_it() {
        let law =
            law("//! | room | is for | may use |\n//! |---|---|---|\n//! | [`a`] | x | – |\n//! | [`b`] | y | `a` |\n\
                       //! | [`c`] | z | all but `b` |\n//! | [`d`] | z | all |\n");
        let of = |room: &str| law[room].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!((of("a"), of("b")), (vec![], vec!["a"]));
        assert_eq!((of("c"), of("d")), (vec!["a", "c", "d"], vec!["a", "b", "c", "d"]));
    }
}
