//! Who may ask larder, with what, and for what.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;
mod rules;
#[cfg(unix)]
mod user_command;
mod users;
