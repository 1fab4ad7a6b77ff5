//! Who may ask larder, with what, and for what.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod ask;
mod caller;
mod common;
mod own_name;
mod rules;
#[cfg(unix)]
mod user_command;
mod users;
