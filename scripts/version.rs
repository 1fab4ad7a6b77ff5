//! Cargo's build script: what `larder --version` says beyond the version. An archive of the sources has no `.git`, so a packager
//! gives the commit and its date in the environment.

#![expect(clippy::print_stdout, reason = "printing is how a build script speaks to Cargo")]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=scripts/version.rs");
    for name in ["LARDER_COMMIT", "SOURCE_DATE_EPOCH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if let Some(path) = head.filter(|path| std::path::Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    let commit = given("LARDER_COMMIT").or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    let date = given("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse().ok()).map(date_of);
    let date = date.or_else(|| git(&["log", "-1", "--format=%cs"]));
    println!("cargo::rustc-env=LARDER_BUILD_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=LARDER_BUILD_DATE={}", date.as_deref().unwrap_or("unknown"));
    let target = given("TARGET").unwrap_or_else(|| "unknown".to_owned());
    // Releases are tested on Linux; elsewhere the version itself says that they are not.
    let tested = target.contains("linux");
    println!("cargo::rustc-env=LARDER_BUILD_TARGET={target}{}", if tested { "" } else { " (experimental)" });
    println!("cargo::rustc-env=LARDER_BUILD_FEATURES={}", features());
}

/// The crate's optional parts that are compiled in, in the order of the alphabet.
fn features() -> String {
    let names = ["OTLP", "SHARED_STORE"].into_iter();
    let on = names.filter(|name| std::env::var_os(format!("CARGO_FEATURE_{name}")).is_some());
    let on: Vec<_> = on.map(|name| name.to_lowercase().replace('_', "-")).collect();
    if on.is_empty() { "none".to_owned() } else { on.join("+") }
}

fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Seconds since 1970 as a day, by the civil calendar (Howard Hinnant's `civil_from_days`).
fn date_of(seconds: u64) -> String {
    let days = i64::try_from(seconds / 86_400).unwrap_or(0) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
