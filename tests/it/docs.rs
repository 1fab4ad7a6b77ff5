//! The documents that operators read say what the code does.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use larder::config::{Environment, KeyDoc, Loaded, Settings, Sources, TableDoc, load};
use larder::telemetry::Metrics;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn environment() -> Environment {
    [("HOME", "/nowhere"), ("USERPROFILE", "/nowhere"), ("LOCALAPPDATA", "/nowhere")].into_iter().collect()
}

fn load_file(file: &Path) -> Loaded {
    let sources = Sources { file: Some(file.to_owned()), environment: environment(), ..Sources::default() };
    load(&sources).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Every (table, key) that is declared.
fn all_keys() -> BTreeSet<(String, String)> {
    let of = |table: TableDoc| table.keys.into_iter().map(move |key| (table.path.to_owned(), key.key.to_owned()));
    Settings::catalogue().into_iter().flat_map(of).collect()
}

/// The tables of which there may be several.
const ARRAYS: [&str; 4] = ["access.rules", "upstream", "upstream.freshness.rules", "warm"];

/// The table of all settings, as `docs/configuration.md` holds it.
fn settings_table() -> String {
    let mut text = String::from("| key | default | meaning |\n|---|---|---|\n");
    for table in Settings::catalogue() {
        for key in &table.keys {
            let kind = table.kind.map(|kind| format!("for `{kind}`: ")).unwrap_or_default();
            let default = match (key.note("shown"), &key.default) {
                (Some(words), _) => words.to_owned(),
                (None, Ok(value)) => format!("`{value}`"),
                (None, Err(words)) if words.starts_with("none:") => "–".to_owned(),
                (None, Err(words)) => (*words).to_owned(),
            };
            writeln!(text, "| `{}.{}` | {default} | {kind}{} |", table.path, key.key, key.help).unwrap();
        }
    }
    text
}

/// Links of a page as the words of a comment: `[a](b.md#c)` is `a (docs/b.md)`.
fn plain(help: &str) -> String {
    let mut text = help.to_owned();
    while let Some((before, rest)) = text.split_once('[')
        && let Some((words, rest)) = rest.split_once("](")
        && let Some((target, rest)) = rest.split_once(')')
    {
        let page = target.split('#').next().unwrap_or(target);
        let page = page.strip_prefix("../").map_or_else(|| format!("docs/{page}"), str::to_owned);
        let words = if before.ends_with('(') { page } else { format!("{words} ({page})") };
        text = format!("{before}{words}{rest}");
    }
    text
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + word.chars().count() > 128 {
            writeln!(text, "{line}").unwrap();
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(text, "{line}").unwrap();
}

/// `config/larder.toml` without its head.
fn example() -> String {
    let mut text = String::new();
    for table in Settings::catalogue() {
        let is_set =
            |key: &KeyDoc| key.note("example").is_none() && (key.default.is_ok() || key.note("write").is_some());
        text.push('\n');
        if let Some(kind) = table.kind {
            comment(&mut text, &format!("kind = \"{kind}\": {}", plain(&table.intro)));
        } else {
            comment(&mut text, &plain(&table.intro));
            let (open, close) = if ARRAYS.contains(&table.path) { ("[[", "]]") } else { ("[", "]") };
            let mark = if table.keys.iter().any(is_set) { "" } else { "# " };
            writeln!(text, "{mark}{open}{}{close}", table.path).unwrap();
        }
        for key in &table.keys {
            let left_out = match (key.note("shown"), &key.default) {
                (Some(words), _) => format!(" Left out: {words}."),
                (None, Err(words)) if !words.starts_with("none:") => format!(" Left out: {words}."),
                _ => String::new(),
            };
            comment(&mut text, &format!("{}{left_out}", plain(&key.help)));
            let value = key.note("write").or(key.note("example")).map(str::to_owned).or(key.default.clone().ok());
            let value = value.unwrap_or_else(|| panic!("{}.{} has neither default nor example", table.path, key.key));
            writeln!(text, "{}{} = {value}", if is_set(key) { "" } else { "# " }, key.key).unwrap();
        }
    }
    text
}

/// Holds a file to what is derived from the code, or writes it where `LARDER_TEST_REGENERATE` is set.
fn holds(path: &str, derived: &str) {
    if std::env::var_os("LARDER_TEST_REGENERATE").is_some() {
        std::fs::write(root().join(path), derived).unwrap();
    }
    let advice = "LARDER_TEST_REGENERATE=1 cargo test --test it docs writes it";
    assert!(read(path) == derived, "{path} is not what the declarations say: {advice}");
}

#[test]
fn the_example_is_that_of_the_declared_settings() {
    let text = read("config/larder.toml");
    let (head, _) = text.split_once("\n\n").unwrap();
    holds("config/larder.toml", &format!("{head}\n{}", example()));
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("larder.toml");
    std::fs::write(&plain, "[[upstream]]\nname = \"myacr.azurecr.io\"\n").unwrap();
    let defaults = load_file(&plain).effective;
    let example = load_file(&root().join("config/larder.toml"));
    assert!(example.warnings.is_empty());
    for (entry, default) in example.effective.iter().zip(&defaults) {
        assert_eq!((&entry.table, entry.key), (&default.table, default.key));
        // What the example's comments say is no default.
        if !["kind", "aliases"].contains(&entry.key) {
            assert_eq!(entry.value, default.value, "{}.{}", entry.table, entry.key);
        }
    }
}

#[test]
fn the_reference_is_that_of_the_declared_settings() {
    let text = read("docs/configuration.md");
    let (before, rest) = text.split_once("| key | default | meaning |\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    holds("docs/configuration.md", &format!("{before}{}\n{after}", settings_table()));
}

/// The table of all metrics, as `docs/metrics.md` holds it.
fn metrics_table() -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, kind, labels, help) in Metrics::catalogue() {
        let kind = match kind {
            "IntCounterVec" => "counter",
            "IntGaugeVec" => "gauge",
            "HistogramVec" => "histogram",
            other => panic!("{name}: what is {other}?"),
        };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(" ") };
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    table
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let text = read("docs/metrics.md");
    let table = metrics_table();
    assert!(text.contains(&table), "docs/metrics.md does not hold this table:\n{table}");
}

#[test]
fn queries_name_metrics_that_exist() {
    let known: Vec<&str> = Metrics::catalogue().into_iter().map(|(name, ..)| name).collect();
    let text = read("docs/metrics.md");
    let words =
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("larder_"));
    let mut seen = 0;
    for word in words {
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        assert!(known.contains(&word) || plain.is_some_and(|plain| known.contains(&plain)), "no metric {word}");
        seen += 1;
    }
    assert!(seen > known.len());
}

/// The clients that are replayed are named with the test that does it.
#[test]
fn the_page_of_clients_names_tests_that_exist() {
    let (page, tests) = (read("docs/clients.md"), read("tests/it/pull/replayed.rs"));
    let functions: BTreeSet<&str> =
        tests.lines().filter_map(|line| line.strip_prefix("async fn ")?.strip_suffix("() {")).collect();
    let (_, replayed) = page.split_once("## What is replayed").unwrap();
    let (replayed, _) = replayed.split_once("## What is not run").unwrap();
    let named: BTreeSet<&str> =
        replayed.lines().filter_map(|line| line.split('`').nth(1).filter(|_| line.starts_with("| "))).collect();
    assert_eq!(named, functions);
}

/// Every Rust file below a folder of the project, with its path from there.
fn sources(folder: &str) -> Vec<(String, String)> {
    let (start, mut found, mut folders) = (root().join(folder), Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&start).unwrap().to_string_lossy().replace('\\', "/");
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// What stands in backticks in a cell.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Bounds and times each name tests that exist; every limit of the configuration and every time in the sources has its row.
#[test]
fn the_page_of_bounds_is_that_of_the_code() {
    let (page, own) = (read("docs/bounds.md"), sources("src"));
    let functions: BTreeSet<String> = own
        .iter()
        .chain(&sources("tests"))
        .flat_map(|(_, text)| text.split("fn ").skip(1))
        .filter_map(|rest| Some(rest.split_once('(')?.0.to_owned()))
        .collect();
    let (mut limits, mut times) = (BTreeSet::new(), BTreeSet::new());
    let mut tested = false;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        if cells[0] == "what" {
            tested = cells.last() == Some(&"tests");
            continue;
        }
        let tests = if tested { quoted(cells[cells.len() - 1]) } else { Vec::new() };
        assert!(!tested || !tests.is_empty(), "no test: {line}");
        for test in tests {
            assert!(functions.contains(test), "there is no test {test}: {line}");
        }
        let mut file = "";
        for word in quoted(cells[2]).into_iter().chain(quoted(cells[1])) {
            if word.strip_suffix(".rs").is_some() {
                file = word;
            } else if word.contains('.') {
                limits.insert(word.to_owned());
            } else {
                times.insert(format!("{file} {word}"));
            }
        }
    }
    for (table, key) in all_keys() {
        let key = format!("{table}.{key}");
        let limit =
            table == "server.limits" || ["drain", "_timeout", "_ttl", "_wait"].iter().any(|end| key.ends_with(end));
        assert!(!limit || key.contains(".rules.") || limits.contains(&key), "docs/bounds.md has no row for {key}");
    }
    let mut seen = 0;
    for (file, text) in &own {
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if file.contains("tests") || file.contains("testing") {
            continue;
        }
        for constant in text.split("const ").skip(1).filter_map(|rest| rest.split_once(": Duration =")) {
            let time = format!("{file} {}", constant.0);
            assert!(times.contains(&time), "docs/bounds.md has no row for {time}");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

/// The directives of the unit's `[Service]`.
fn service() -> Vec<(String, String)> {
    let text = read("systemd/larder.service");
    let (_, service) = text.split_once("[Service]\nType").expect("a [Service] section that begins with Type");
    let (service, _) = service.split_once("\n[Install]").expect("an [Install] section");
    let lines = service.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once('=').expect("key=value")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn the_unit_is_hardened_and_fits_the_defaults() {
    let service = service();
    let has = |key: &str, value: &str| service.iter().any(|(k, v)| k == key && v == value);
    for (key, value) in [
        ("DynamicUser", "yes"),
        ("User", "larder"),
        ("StateDirectory", "larder"),
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("LimitCORE", "0"),
        ("UMask", "0077"),
        ("StateDirectoryMode", "0700"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("RestartPreventExitStatus", "2"),
    ] {
        assert!(has(key, value), "{key}={value}");
    }
    let stop = service.iter().find(|(key, _)| key == "TimeoutStopSec").expect("TimeoutStopSec");
    let stop = humantime::parse_duration(&stop.1).unwrap();
    let drain = load_file(&root().join("config/larder.toml")).settings.server.drain;
    assert!(stop >= drain + std::time::Duration::from_secs(10));
}

#[test]
#[cfg(target_os = "linux")]
fn systemd_accepts_the_unit() {
    // Its verdict on the unit as it is would be that larder is not installed.
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("larder.service");
    let text = read("systemd/larder.service").replace("/usr/local/bin/larder", env!("CARGO_BIN_EXE_larder"));
    std::fs::write(&unit, text).unwrap();
    let output = match std::process::Command::new("systemd-analyze").arg("verify").arg(&unit).output() {
        Ok(output) => output,
        // A machine without systemd cannot run the unit either; its content is checked above.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("systemd-analyze: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("larder.service"), "{said}");
}

/// Each alert that ships has a test for promtool and a paragraph for the person whom it wakes, and asks for metrics that exist.
#[test]
fn every_alert_has_its_paragraph_its_test_and_its_metrics() {
    let (rules, page) = (read("config/prometheus/larder.rules.yml"), read("docs/operations.md"));
    let tests = read("config/prometheus/larder.rules.test.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(page.contains(&format!("### {alert}\n")), "docs/operations.md has no paragraph for {alert}");
        assert!(rules.contains(&format!("docs/operations.md#{}\n", alert.to_lowercase())), "no runbook: {alert}");
        let of_it = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(of_it >= 3, "{alert} is not shown to fire, not to fire and to resolve: {of_it}");
    }
    let known: BTreeSet<&str> = Metrics::catalogue().into_iter().map(|(name, ..)| name).collect();
    for text in [rules, read("config/grafana/larder.json")] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in words.filter(|word| word.starts_with("larder_") || word.starts_with("process_")) {
            let family = name.trim_end_matches("_bucket");
            assert!(known.contains(family), "there is no metric {name}");
        }
    }
}
