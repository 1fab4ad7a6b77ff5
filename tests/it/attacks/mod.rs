//! larder attacked: each test plays somebody who wants what is not theirs, against a whole larder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod access;
#[cfg(target_os = "linux")]
mod idle;
#[cfg(unix)]
mod local;
#[cfg(unix)]
mod secrets;
