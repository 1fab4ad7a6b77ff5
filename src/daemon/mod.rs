//! Runs the daemon: assembles the rooms, serves, and stops at a signal.

mod announce;
mod asking;
mod descriptors;
mod privacy;
mod rooms;
mod signals;
mod watchdog;

pub use rooms::Rooms;

use crate::admin::Admin;
use crate::config::{Environment, Settings};
use crate::server::{Drain, DrainTrigger, Sockets, Tls};
use crate::store::{RealDisk, Store};
use crate::telemetry::{Log, Metrics, build};
use rooms::Failure;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// Tasks that a worker runs before it looks for what has arrived on its sockets. A large download takes a worker for some 0.1 ms at a
/// time, so that tokio's 61 would keep a small request waiting for several milliseconds behind a few of them; at 4 a small request
/// costs a quarter more processor time than at 61, at 16 a tenth.
const EVENT_INTERVAL: u32 = 16;
/// How long the store may take to write what it holds in memory, at the end.
const CLOSE: Duration = Duration::from_secs(10);

/// Runs until a signal ends it.
#[must_use]
pub fn run(settings: Settings, sockets: Sockets, log: Log) -> ExitCode {
    descriptors::raise();
    privacy::begin();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().event_interval(EVENT_INTERVAL).thread_name("larder").build();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        let result = runtime.block_on(serve(settings, sockets, log));
        // What still runs has had its time to end.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("larder stops: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings, sockets: Sockets, log: Log) -> Result<(), Failure> {
    let signals = signals::Signals::listen()?;
    let metrics = Arc::new(Metrics::new());
    note_process(&metrics);
    let disk = Arc::new(RealDisk::new(&settings.store.path));
    let environment = Environment::of_process();
    let rooms = Rooms::assemble(&settings, &environment, sockets, disk, &metrics, log).await?;
    let Rooms { server, registry, admin_server, admin, tls, store, cache, upstreams } = rooms;
    let _logins = announce::start(&settings, &server.addresses(), &admin_server.addresses(), &store, &upstreams);
    let _background = background(tls, &store);
    let mut keeping = JoinSet::new();
    keeping.spawn(cache.clone().follow_missing(store.clone()));
    for warm in settings.warm {
        keeping.spawn(admin.clone().keep_warm(warm, environment.clone()));
    }

    let (trigger, drain) = Drain::new();
    // The admin listener still answers while the registry drains, so that an operator can see what still runs.
    let (admin_trigger, admin_drain) = Drain::new();
    let admin_task = tokio::spawn(admin_server.serve(admin.clone(), admin_drain));
    admin.set_ready(true);
    notify(&[sd_notify::NotifyState::Ready]);
    tokio::join!(server.serve(registry, drain), stop(signals, &trigger, settings.server.drain, &admin));
    keeping.shutdown().await;
    admin_trigger.cut();
    let _ = admin_task.await;
    let closing = async {
        cache.keep_missing(&store).await;
        store.close().await;
    };
    if tokio::time::timeout(CLOSE, closing).await.is_err() {
        tracing::warn!(
            "the store took too long to write its last use of blobs; the next start reads it from the files"
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// What runs beside the listeners, until the end.
fn background(tls: Option<Tls>, store: &Store) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(tls) = tls {
        tasks.spawn(tls.follow());
    }
    tasks.spawn(watchdog::run(store.clone()));
    tasks
}

/// The first signal drains, the second ends everything at once.
async fn stop(mut signals: signals::Signals, trigger: &DrainTrigger, within: Duration, admin: &Admin) {
    let name = signals.next().await;
    tracing::info!(
        drain_s = within.as_secs(),
        "{name}: no new connections; running downloads may finish, a second signal stops at once"
    );
    admin.set_ready(false);
    notify(&[sd_notify::NotifyState::Stopping]);
    trigger.begin(within);
    tokio::select! {
        name = signals.next() => {
            tracing::warn!("{name} again: stopping at once");
            trigger.cut();
        }
        () = trigger.finished() => {}
    }
}

fn note_process(metrics: &Metrics) {
    metrics.build_info.with_label_values(&[build::VERSION, build::COMMIT, build::TARGET, build::FEATURES]).set(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    metrics.process_start_time.with_label_values(&[] as &[&str]).set(i64::try_from(now).unwrap_or(i64::MAX));
}

/// Tells systemd, where it asked to be told (`Type=notify`).
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
