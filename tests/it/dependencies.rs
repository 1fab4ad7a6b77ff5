//! What `Cargo.toml` names is used: a dependency that nothing needs costs every build, every audit and every reader.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code below `folders`, without comments: a crate that is only spoken of is not used.
fn code(folders: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in folders {
        let folder = root.join(folder);
        if folder.exists() {
            sources(&folder, &mut files);
        }
    }
    assert!(files.len() > 10, "the sources are elsewhere: {folders:?}");
    let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    uncommented(&texts.join("\n"))
}

fn uncommented(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether a path in `code` begins with the crate.
fn names(code: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
    }) || code.contains(&format!("use {name};"))
        || code.contains(&format!("use {name} as "))
}

fn unused(manifest: &toml::Table, section: &str, code: &str) -> Vec<String> {
    let listed: BTreeMap<_, _> = manifest[section].as_table().unwrap().iter().collect();
    assert!(!listed.is_empty());
    listed.keys().filter(|name| !names(code, name)).map(|name| (*name).clone()).collect()
}

#[test]
fn every_dependency_is_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    assert_eq!(unused(&manifest, "dependencies", &code(&["src"])), [""; 0], "remove them from Cargo.toml");
    let development = code(&["src", "tests", "benches", "examples"]);
    assert_eq!(unused(&manifest, "dev-dependencies", &development), [""; 0], "remove them from Cargo.toml");
}

#[test]
fn a_dependency_that_is_only_spoken_of_counts_as_unused() {
    let code = "let far = my_rustls::get(); // arc_swap::ArcSwap\nuse crate::sled::x;\nuse serde_json::Value;";
    let code = uncommented(code);
    for (name, used) in [("rustls", false), ("arc-swap", false), ("sled", false), ("serde-json", true)] {
        assert_eq!(names(&code, name), used, "{name}");
    }
}
