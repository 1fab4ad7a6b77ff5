use larder::telemetry::{Log, LogFormat, LogGuard};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What was logged: the request lines of one larder, and the events of every larder in the process.
#[derive(Clone, Default)]
pub struct Logs(Sink);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// A log for the request lines of one larder.
    pub fn begin() -> (Self, Log, LogGuard) {
        events();
        let logs = Self::default();
        let (log, guard) = Log::to(LogFormat::Json, logs.0.clone()).unwrap();
        (logs, log, guard)
    }

    /// The request lines so far, as JSON; [`super::Larder::requests`] flushes first.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.0.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every event of the process so far, whatever its level. Tests run side by side: look for what is yours.
    pub fn events() -> String {
        events().text()
    }
}

/// Events go through tracing's global subscriber, of which there is one per process.
fn events() -> &'static Sink {
    static EVENTS: OnceLock<Sink> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let sink = Sink::default();
        // What libraries trace is looked for by nobody, and costs most of the time of a request.
        let own = Targets::new().with_target("larder", tracing::Level::TRACE).with_default(tracing::Level::WARN);
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(sink.clone());
        tracing_subscriber::registry().with(lines.with_filter(own)).init();
        sink
    })
}

impl Sink {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
