//! Logs on stderr: JSON lines for machines, text on a terminal.
//!
//! Writing never blocks a request and never costs a system call of its own: lines go into a bounded buffer in memory, which a
//! thread writes out after at most 200 ms, when 64 KiB have gathered, at once after a warning or error, and at the end. While
//! stderr takes nothing and the buffer is full, lines are dropped, counted, and the count is said as soon as there is room.
//!
//! The line per request has a type and a formatter of its own ([`AccessRecord`]), since each request pays for it: 0.7 µs, where
//! `tracing-appender`'s non-blocking writer with the JSON format of `tracing-subscriber` takes 3 µs (`cargo bench --bench log`). Spans
//! are not printed: an event's message and fields stand for themselves.

use super::access_log::{self, AccessRecord};
use super::line::{self, Format, LogFormat};
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, registry};

const FLUSH_AFTER: Duration = Duration::from_millis(200);
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
const FLUSH_BYTES: usize = 64 << 10;
/// About 2000 request lines: what a stuck terminal or pipe may hold back.
const MAX_BYTES: usize = 1 << 20;

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `LARDER_LOG_FORMAT` is neither of the two.
    #[error("LARDER_LOG_FORMAT is '{0}': write json or text")]
    Format(String),
    /// `LARDER_LOG` is not a filter.
    #[error(
        "LARDER_LOG is '{filter}', which is no filter ({problem}): write a level such as debug, or larder::upstream=debug,info"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The process logs already.
    #[error("cannot begin to log: another logger is in place")]
    Twice,
    /// The operating system gives no thread.
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

impl LogFormat {
    /// The format that was asked for (`json` or `text`); unasked, text on a terminal and JSON elsewhere.
    pub fn choose(asked: Option<&str>) -> Result<Self, LogError> {
        match asked {
            Some("json") => Ok(Self::Json),
            Some("text") => Ok(Self::Text),
            Some(other) => Err(LogError::Format(other.to_owned())),
            None => Ok(if io::stderr().is_terminal() { Self::Text } else { Self::Json }),
        }
    }
}

/// A handle on the log. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
    format: LogFormat,
}

/// Keeps the log's thread; dropping it writes out what is left.
#[derive(Debug)]
pub struct LogGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    flush_after: Duration,
    buffer: Mutex<Buffer>,
    /// Told when the thread has something to do earlier than at its next look.
    wake: Condvar,
    /// Told when the thread has written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
    urgent: bool,
    writing: bool,
    closed: bool,
}

/// Begins to log for the whole process. `filter` is `LARDER_LOG`'s syntax, that of `RUST_LOG`; `info` if there is none.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(Log, LogGuard), LogError> {
    let text = filter.unwrap_or("info");
    let filter = EnvFilter::try_new(text)
        .map_err(|error| LogError::Filter { filter: text.to_owned(), problem: error.to_string() })?;
    let (log, guard) = Log::to(format, io::stderr())?;
    tracing::subscriber::set_global_default(subscriber(&log, filter)).map_err(|_| LogError::Twice)?;
    Ok((log, guard))
}

/// The filter stands before the whole, not before the layer: what passes [`Log::access`] leaves no trace in a layer's filter.
fn subscriber(log: &Log, filter: EnvFilter) -> impl Subscriber + Send + Sync + use<> {
    registry().with(filter).with(EventLayer(log.clone()))
}

impl Log {
    /// A log that is written to `output`.
    pub fn to(format: LogFormat, output: impl Write + Send + 'static) -> Result<(Self, LogGuard), LogError> {
        Self::flushed_after(FLUSH_AFTER, format, output)
    }

    fn flushed_after(
        flush_after: Duration,
        format: LogFormat,
        output: impl Write + Send + 'static,
    ) -> Result<(Self, LogGuard), LogError> {
        let (wake, written) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { flush_after, buffer: Mutex::default(), wake, written });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".to_owned());
        let thread = thread.spawn(move || write_out(&theirs, format, output))?;
        Ok((Self { shared: Arc::clone(&shared), format }, LogGuard { shared, thread: Some(thread) }))
    }

    /// One line for a request that has been answered, if the filter lets `larder::access` through at info.
    pub fn access(&self, record: &AccessRecord<'_>) {
        if tracing::enabled!(target: "larder::access", Level::INFO) {
            self.put(Level::INFO, |line| access_log::write(line, self.format, record));
        }
    }

    /// Waits, for at most a second, until all lines so far are written: before the process ends without dropping its guard.
    pub fn flush(&self) {
        let mut buffer = self.shared.lock();
        buffer.urgent = true;
        self.shared.wake.notify_one();
        let pending = |buffer: &mut Buffer| buffer.writing || !buffer.lines.is_empty();
        // If stderr takes nothing there is nothing left to do.
        let _ = self.shared.written.wait_timeout_while(buffer, FLUSH_LIMIT, pending);
    }

    /// Adds a line, or counts it as dropped.
    fn put(&self, level: Level, write: impl FnOnce(&mut Vec<u8>)) {
        let mut buffer = self.shared.lock();
        if buffer.lines.len() >= MAX_BYTES {
            buffer.dropped += 1;
            return;
        }
        let before = buffer.lines.len();
        write(&mut buffer.lines);
        let urgent = level <= Level::WARN;
        buffer.urgent |= urgent;
        let full = before < FLUSH_BYTES && buffer.lines.len() >= FLUSH_BYTES;
        drop(buffer);
        if before == 0 || urgent || full {
            self.shared.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to write and it is time; swaps it for the empty `lines`. The flag is the end.
    fn next(&self, lines: &mut Vec<u8>) -> (u64, bool) {
        let idle = |buffer: &mut Buffer| buffer.lines.is_empty() && buffer.dropped == 0 && !buffer.closed;
        let early = |buffer: &mut Buffer| !buffer.urgent && !buffer.closed && buffer.lines.len() < FLUSH_BYTES;
        let buffer = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(buffer, self.flush_after, early);
        let (mut buffer, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.lines, lines);
        buffer.urgent = false;
        buffer.writing = true;
        (std::mem::take(&mut buffer.dropped), buffer.closed)
    }
}

fn write_out(shared: &Shared, format: LogFormat, mut output: impl Write) {
    let mut lines = Vec::with_capacity(FLUSH_BYTES);
    loop {
        let (dropped, end) = shared.next(&mut lines);
        if dropped > 0 {
            let fields = [("log.dropped", dropped)];
            line::note(
                &mut lines,
                Format::new(format),
                Level::WARN,
                "larder::telemetry",
                "log lines were dropped",
                &fields,
            );
        }
        // There is nowhere to report that the log cannot be written.
        let _ = output.write_all(&lines).and_then(|()| output.flush());
        lines.clear();
        shared.lock().writing = false;
        shared.written.notify_all();
        if end {
            return;
        }
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // The thread ends by itself; if it panicked, there is no log to say so in.
            let _ = thread.join();
        }
    }
}

/// Formats events into the log.
struct EventLayer(Log);

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Not straight into the shared buffer: a field's own formatting may log.
        let mut text = Vec::with_capacity(512);
        line::event(&mut text, Format::new(self.0.format), event);
        self.0.put(*event.metadata().level(), |lines| lines.extend_from_slice(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Hands every write to the test; stands still while the test holds the gate.
    struct Output {
        writes: mpsc::Sender<Vec<u8>>,
        gate: Arc<Mutex<()>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            self.writes.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(flush_after: Duration) -> (Log, LogGuard, mpsc::Receiver<Vec<u8>>, Arc<Mutex<()>>) {
        let (writes, received) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let output = Output { writes, gate: Arc::clone(&gate) };
        let (log, guard) = Log::flushed_after(flush_after, LogFormat::Json, output).unwrap();
        (log, guard, received, gate)
    }

    /// Nothing that a test waits for takes so long.
    const NEVER: Duration = Duration::from_secs(3600);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_are_gathered_until_it_is_time() {
        let (log, _guard, received, _) = log(Duration::from_millis(300));
        log.put(Level::INFO, |line| line.extend_from_slice(b"one\n"));
        log.put(Level::INFO, |line| line.extend_from_slice(b"two\n"));
        assert_eq!(received.recv_timeout(LONG).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn warnings_and_a_full_buffer_go_out_before_their_time() {
        let (log, _guard, received, _) = log(NEVER);
        log.put(Level::INFO, |line| line.extend_from_slice(b"three\n"));
        log.put(Level::WARN, |line| line.extend_from_slice(b"four\n"));
        assert_eq!(received.recv_timeout(LONG).unwrap(), b"three\nfour\n");
        log.put(Level::INFO, |line| line.extend_from_slice(b"five\n"));
        log.put(Level::INFO, |line| line.resize(FLUSH_BYTES, b'.'));
        assert_eq!(received.recv_timeout(LONG).unwrap().len(), FLUSH_BYTES);
    }

    #[test]
    fn a_flush_returns_when_all_is_written() {
        let (log, _guard, received, _) = log(NEVER);
        log.put(Level::INFO, |line| line.extend_from_slice(b"line\n"));
        log.flush();
        assert_eq!(received.try_recv().unwrap(), b"line\n");
        log.flush();
    }

    #[test]
    fn the_filter_holds_for_events_and_for_requests() {
        let record = AccessRecord {
            method: "GET",
            route: "ping",
            repository: None,
            upstream: None,
            reference: None,
            digest: None,
            status: 200,
            cache_status: None,
            bytes: 2,
            duration: Duration::ZERO,
            ttfb: None,
            client: None,
            user_agent: None,
            request_id: None,
            detail: None,
        };
        for (filter, requests) in [("info", 1), ("larder::access=warn,info", 0)] {
            let (log, guard, received, _) = log(NEVER);
            let filter = EnvFilter::try_new(filter).unwrap();
            tracing::subscriber::with_default(subscriber(&log, filter), || {
                log.access(&record);
                tracing::info!(size = 5, name = %"a b", "seen");
                tracing::debug!("unseen");
            });
            drop(guard);
            let text = String::from_utf8(received.try_iter().flatten().collect()).unwrap();
            assert_eq!(text.matches("larder::access").count(), requests, "{text}");
            assert!(text.contains(r#""message":"seen","size":5,"name":"a b"}"#) && !text.contains("unseen"), "{text}");
        }
    }

    #[test]
    fn the_format_is_asked_for_by_name() {
        assert_eq!(LogFormat::choose(Some("json")).unwrap(), LogFormat::Json);
        assert_eq!(LogFormat::choose(Some("text")).unwrap(), LogFormat::Text);
        assert!(LogFormat::choose(Some("xml")).unwrap_err().to_string().contains("write json or text"));
    }

    #[test]
    fn the_end_writes_what_is_left() {
        let (log, guard, received, _) = log(NEVER);
        log.put(Level::INFO, |line| line.extend_from_slice(b"last\n"));
        drop(guard);
        assert_eq!(received.try_recv().unwrap(), b"last\n");
    }

    #[test]
    fn a_stuck_output_drops_lines_and_says_how_many() {
        let (log, guard, received, gate) = log(NEVER);
        let stuck = gate.lock().unwrap();
        log.put(Level::ERROR, |line| line.extend_from_slice(b"first\n"));
        while !log.shared.lock().lines.is_empty() {
            std::thread::yield_now();
        }
        log.put(Level::INFO, |line| line.resize(MAX_BYTES, b'.'));
        for _ in 0..3 {
            log.put(Level::INFO, |line| line.extend_from_slice(b"lost\n"));
        }
        drop(stuck);
        drop(guard);
        let all: Vec<u8> = received.try_iter().flatten().collect();
        let text = String::from_utf8(all).unwrap();
        assert!(text.contains(r#""log.dropped":3"#) && !text.contains("lost"), "{}", &text[text.len() - 200..]);
    }
}
