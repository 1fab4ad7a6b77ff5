//! Logs, metrics, and the one set of words for why an answer came from where it came.

mod cache_status;
mod metrics;

pub use cache_status::CacheStatus;
pub use metrics::{Histogram, Metrics};
