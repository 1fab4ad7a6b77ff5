//! The first lines after a start: where larder listens, who is let in, which upstreams as whom, which store and how full.

use crate::config::{AccessSettings, Listen, Settings, UpstreamSettings};
use crate::store::Store;
use crate::telemetry::build;
use crate::upstream::{LoginSummary, Upstream};
use bytesize::ByteSize;
use std::time::SystemTime;
use tokio::task::JoinSet;

/// The tasks that ask for the logins are the caller's to keep.
pub(super) fn start(
    settings: &Settings,
    registry: &[Listen],
    admin: &[Listen],
    store: &Store,
    upstreams: &[(UpstreamSettings, Upstream)],
) -> JoinSet<()> {
    tracing::info!(version = build::VERSION, commit = build::COMMIT, target = build::TARGET, "larder starts");
    for listen in registry {
        tracing::info!("registry API on {}", place(listen));
    }
    for listen in admin {
        tracing::info!("health and metrics on {}", place(listen));
    }
    tracing::info!("let in without a credential: {}", who(&settings.access));
    if let Some(file) = &settings.access.users_file {
        tracing::info!("let in with a password: the users of {}", file.display());
    }
    // Logins can ask a helper or the Azure CLI, which take their time: side by side, and never in the way of the first request.
    let mut logins = JoinSet::new();
    for (upstream, connection) in upstreams {
        let (name, url) = (upstream.name.clone(), upstream.url.clone());
        let default = if upstream.default { ", the default" } else { "" };
        let connection = connection.clone();
        logins.spawn(async move {
            let login = connection.describe_login().await;
            tracing::info!("upstream {name} at {url}{default}: {}", as_whom(&login));
        });
    }
    let usage = store.usage();
    let (used, limit) = (ByteSize(usage.bytes), ByteSize(usage.limit));
    let counting = if usage.exact { "" } else { " (still counting)" };
    tracing::info!("store {}: {used} of {limit} used{counting}", settings.store.path.display());
    logins
}

fn place(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => format!("http://{address}"),
        Listen::Tls(address) => format!("https://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn who(access: &AccessSettings) -> String {
    if access.open_to.is_empty() {
        return "nobody".to_owned();
    }
    if access.open_to.iter().all(|network| network.addr().is_loopback()) {
        return "every user of this machine (loopback), nobody else".to_owned();
    }
    access.open_to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn as_whom(login: &LoginSummary) -> String {
    let until = login.expires.and_then(|expires| expires.duration_since(SystemTime::now()).ok());
    let until = until.map(|left| {
        format!(", good for {}", humantime::format_duration(std::time::Duration::from_secs(left.as_secs())))
    });
    format!("as {} ({}){}", login.identity, login.source, until.unwrap_or_default())
}
