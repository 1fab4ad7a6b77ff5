//! What clients get while an upstream is away, throttles, is sealed or slowed: end to end, against a registry that behaves like
//! ACR and can be made to fail in each way that is known.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod answers;
mod blackhole;
mod crowd;
mod held;
mod hosts;
mod latency;
mod matrix;
mod mirrors;
mod pace;
mod sealed;
mod staleness;
mod swallowed;
