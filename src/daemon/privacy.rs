//! What the process keeps from the other users of the machine.

/// Files are made for this user alone, also those that a library makes, and no core is dumped: it would hold logins.
#[cfg(unix)]
pub(super) fn begin() {
    use rustix::fs::Mode;
    use rustix::process::{Resource, Rlimit, setrlimit, umask};
    umask(Mode::RWXG | Mode::RWXO);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "cannot forbid core dumps, which would hold logins");
    }
}

/// Other systems keep a user's folders from the others by themselves.
#[cfg(not(unix))]
pub(super) fn begin() {}
