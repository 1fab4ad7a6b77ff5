//! How many files and connections the process may have open.

/// Enough for every bound of the default settings, and what the systemd unit sets.
#[cfg(unix)]
const ENOUGH: u64 = 65_536;

/// Raises the limit to what the system allows this user, up to [`ENOUGH`]. Shells and containers start programs with 1,024, and beyond
/// that neither a client is accepted nor an upstream dialled nor a blob opened.
#[cfg(unix)]
pub(super) fn raise() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(%error, ?current, wanted, "cannot raise the limit on open files");
    }
}

/// Other systems have no such limit, or none that matters.
#[cfg(not(unix))]
pub(super) fn raise() {}
