//! The documents that operators read say what the code does.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use larder::config::{Environment, Loaded, Sources, load};
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

/// `upstream.0.freshness` is `upstream.freshness`.
fn without_positions(table: &str) -> String {
    table.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

/// Every (table, key) that any kind of credential makes larder read.
fn all_keys() -> BTreeSet<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s"), "secret").unwrap();
    let (pem, _) = crate::harness::simulator::entra::certificate("larder");
    std::fs::write(folder.path().join("pem"), pem).unwrap();
    let kinds = [
        "kind = \"docker-config\"\nconfig_file = \"s\"",
        "kind = \"password\"\nusername = \"u\"\npassword_file = \"s\"",
        "kind = \"refresh-token\"\ntoken_file = \"s\"",
        "kind = \"managed-identity\"",
        "kind = \"service-principal\"\ntenant_id = \"t\"\nclient_id = \"c\"\ncertificate_file = \"pem\"",
        "kind = \"workload-identity\"\ntenant_id = \"t\"\nclient_id = \"c\"\ntoken_file = \"s\"",
    ];
    let mut keys = BTreeSet::new();
    for kind in kinds {
        let file = folder.path().join("larder.toml");
        let rule = "[[access.rules]]\nrepositories = [\"**\"]\nallow = [\"push\"]\n";
        let upstream = format!("[[upstream]]\nname = \"a.io\"\n[upstream.credential]\n{kind}\n");
        let fresh = "[[upstream.freshness.rules]]\nrepositories = [\"x\"]\ntag_ttl = \"1s\"\n";
        std::fs::write(&file, format!("{rule}{upstream}{fresh}")).unwrap();
        let effective = load_file(&file).effective;
        keys.extend(effective.iter().map(|entry| (without_positions(&entry.table), entry.key.to_owned())));
    }
    keys
}

/// Every (table, key) that the example shows, set or commented out.
fn keys_shown(text: &str) -> BTreeSet<(String, String)> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') {
            line.trim_matches(['[', ']']).clone_into(&mut table);
        }
        if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        {
            keys.insert((table.clone(), key.to_owned()));
        }
    }
    keys
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    assert_eq!(keys_shown(&read("config/larder.toml")), all_keys());
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
fn the_reference_lists_every_key() {
    let text = read("docs/configuration.md");
    for (table, key) in all_keys() {
        let row = format!("| `{table}.{key}` |");
        assert!(text.contains(&row), "docs/configuration.md has no row {row}");
    }
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
