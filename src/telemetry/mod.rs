//! Logs, metrics, and the one set of words for why an answer came from where it came.

mod access_log;
pub mod build;
mod cache_status;
mod line;
pub mod log;
mod metrics;
mod plain;

pub use access_log::AccessRecord;
pub use cache_status::CacheStatus;
pub use line::LogFormat;
pub use log::{Log, LogError, LogGuard};
pub use metrics::{CACHE_KINDS, IntGauge, Metrics};
pub use plain::{plain, plain_lines};
