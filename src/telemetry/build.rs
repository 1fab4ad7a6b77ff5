//! What is running: the same words in `--version`, `status --json`, `larder_build_info` and the first line of the log.

/// The crate's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, or `unknown` where neither git nor the packager said it.
pub const COMMIT: &str = env!("LARDER_BUILD_COMMIT");
/// The commit's day, `YYYY-MM-DD`.
pub const DATE: &str = env!("LARDER_BUILD_DATE");
/// The target triple.
pub const TARGET: &str = env!("LARDER_BUILD_TARGET");
/// Optional parts that are compiled in, joined by `+`, or `none`.
pub const FEATURES: &str = env!("LARDER_BUILD_FEATURES");
/// `0.1.0 (commit 0123456789ab, 2026-11-30, x86_64-unknown-linux-gnu, features: none)`
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("LARDER_BUILD_COMMIT"),
    ", ",
    env!("LARDER_BUILD_DATE"),
    ", ",
    env!("LARDER_BUILD_TARGET"),
    ", features: ",
    env!("LARDER_BUILD_FEATURES"),
    ")"
);
