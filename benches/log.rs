//! What one line of the log costs the request that writes it: larder's own writer beside `tracing-appender`'s non-blocking one with
//! the JSON format of `tracing-subscriber`. Both write to `/dev/null` by a thread of their own.
//!
//! ```text
//! cargo bench --bench log
//! ```
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark: stopping is reporting")]

use larder::telemetry::{AccessRecord, CacheStatus, Log, LogFormat};
use std::fs::OpenOptions;
use std::hint::black_box;
use std::thread;
use std::time::Duration;
use tokio::time::Instant;
use tracing_subscriber::prelude::*;

/// Lines of one thread in one round. A pause between two bursts lets the writing thread keep up, so that neither drops lines.
const LINES: u32 = 200_000;
const BURST: u32 = 500;
const ROUNDS: usize = 5;

fn record() -> AccessRecord<'static> {
    AccessRecord {
        method: "GET",
        route: "blob",
        repository: Some("samples/config"),
        upstream: Some("myacr.azurecr.io"),
        reference: None,
        digest: Some("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
        status: 200,
        cache_status: Some(CacheStatus::Hit),
        bytes: 4096,
        duration: Duration::from_micros(180),
        ttfb: Some(Duration::from_micros(90)),
        client: Some([10, 0, 0, 7].into()),
        user_agent: Some("oras/1.2.0"),
        request_id: Some("0123456789abcdef"),
        detail: None,
    }
}

/// The median of the rounds, in nanoseconds of a line, with so many threads.
fn median(threads: usize, line: impl Fn() + Sync) -> u128 {
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let spent: Vec<Duration> = thread::scope(|scope| {
                let begun: Vec<_> = (0..threads).map(|_| scope.spawn(|| burst(&line))).collect();
                begun.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            spent.iter().sum::<Duration>().as_nanos() / (threads as u128 * u128::from(LINES))
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn burst(line: &impl Fn()) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..LINES / BURST {
        let begun = Instant::now();
        (0..BURST).for_each(|_| line());
        spent += begun.elapsed();
        thread::sleep(Duration::from_millis(1));
    }
    spent
}

fn main() {
    let nowhere = || OpenOptions::new().write(true).open("/dev/null").unwrap();
    println!("nanoseconds of a request's thread for one line, median of {ROUNDS} rounds");
    for threads in [1, 2] {
        let (log, _guard) = Log::to(LogFormat::Json, nowhere()).unwrap();
        let filter = tracing_subscriber::EnvFilter::new("info");
        let own = tracing::subscriber::with_default(tracing_subscriber::registry().with(filter), || {
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            median(threads, || {
                tracing::dispatcher::with_default(&dispatch, || log.access(black_box(&record())));
            })
        });
        let (writer, _worker) = tracing_appender::non_blocking(nowhere());
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer);
        let filter = tracing_subscriber::EnvFilter::new("info");
        let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(filter).with(layer));
        let library = median(threads, || {
            tracing::dispatcher::with_default(&dispatch, || event(black_box(&record())));
        });
        println!("{threads} threads: larder {own}, tracing-appender {library}");
    }
}

fn event(record: &AccessRecord<'_>) {
    tracing::info!(
        target: "larder::access",
        method = record.method,
        route = record.route,
        repo.name = record.repository,
        upstream = record.upstream,
        digest = record.digest,
        status = record.status,
        cache_status = record.cache_status.map(CacheStatus::as_str),
        bytes = record.bytes,
        duration_ms = u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
        ttfb_ms = record.ttfb.map(|ttfb| u64::try_from(ttfb.as_millis()).unwrap_or(u64::MAX)),
        client.address = record.client.map(tracing::field::display),
        user_agent = record.user_agent,
        request_id = record.request_id,
        "request"
    );
}
