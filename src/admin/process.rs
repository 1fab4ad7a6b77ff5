use crate::telemetry::Metrics;

/// Reads what the operating system says of this process into the metrics; what it does not say stays absent.
pub(super) fn observe(metrics: &Metrics) {
    let none: &[&str] = &[];
    if let Some(bytes) = resident_bytes() {
        metrics.process_resident_memory.with_label_values(none).set(bytes);
    }
    if let Some(count) = open_descriptors() {
        metrics.process_open_fds.with_label_values(none).set(count);
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit.and_then(|limit| i64::try_from(limit).ok()) {
        metrics.process_max_fds.with_label_values(none).set(limit);
    }
}

/// The second field of `/proc/self/statm`, in pages (Linux).
fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}

fn open_descriptors() -> Option<i64> {
    i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()
}
