//! `larder serve`: from sources to a running daemon.

use super::docker;
use crate::config::{ConfigErrors, Sources, load};
use crate::server::Sockets;
use crate::telemetry::log::{self, LogError};
use crate::telemetry::{Log, LogFormat, LogGuard};
use std::io::Write as _;
use std::process::ExitCode;

/// Nothing was begun: the arguments or the configuration are wrong. The systemd unit does not restart on it.
const MISCONFIGURED: u8 = 2;

pub(super) fn run(mut sources: Sources) -> ExitCode {
    let sockets = match Sockets::of_process() {
        Ok(sockets) => sockets,
        Err(error) => return refuse(&error.to_string()),
    };
    sources.handed = sockets.places();
    let loaded = match load(&sources) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(&explain(&errors, &sources)),
    };
    // The guard goes last: what the daemon says while it ends is still written.
    let (log, _guard) = match begin_log(&sources) {
        Ok(log) => log,
        Err(error) => return refuse(&error.to_string()),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    crate::daemon::run(loaded.settings, sockets, log)
}

fn refuse(text: &str) -> ExitCode {
    // Without stderr there is nobody to tell; the exit code remains.
    let _ = writeln!(std::io::stderr(), "larder: {}", crate::telemetry::plain_lines(text));
    ExitCode::from(MISCONFIGURED)
}

fn begin_log(sources: &Sources) -> Result<(Log, LogGuard), LogError> {
    let format = LogFormat::choose(sources.environment.get("LARDER_LOG_FORMAT"))?;
    log::init(format, sources.environment.get("LARDER_LOG"))
}

/// The errors; where nothing is configured at all, the line that would do.
fn explain(errors: &ConfigErrors, sources: &Sources) -> String {
    if !errors.nothing_configured {
        return format!("the configuration is wrong\n{errors}");
    }
    let registries = docker::registries(&sources.environment);
    let mut text = String::from("which registry? There is neither a configuration file nor --upstream.\n");
    if registries.is_empty() {
        text.push_str("Docker's configuration names none. For an Azure Container Registry type:\n");
        text.push_str("  larder serve --upstream myacr.azurecr.io");
        return text;
    }
    text.push_str("Docker's configuration names these; type one of:");
    for registry in registries {
        text.push_str("\n  larder serve --upstream ");
        text.push_str(&registry);
    }
    text
}
