use super::CacheStatus;
use prometheus::core::Collector;
use prometheus::{Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

pub use prometheus::IntGauge;

/// Seconds. From a hit in memory to a large blob over a slow link; the registry's own latencies lie in the middle.
const SECONDS: &[f64] =
    &[0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ident = $name:literal [$($label:literal),*];)*) => {
        /// Every metric of the process, declared once. The doc comment is the help text; `docs/metrics.md` lists them all and
        /// a test compares it with this list.
        ///
        /// Names and labels follow Prometheus' practices: base units, one counter with a `result` label instead of two
        /// names, and no label whose values a client can invent.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $type,)*
        }

        impl Metrics {
            /// A fresh set, with its own registry.
            #[must_use]
            pub fn new() -> Self {
                let registry = Registry::new();
                $(let $field = make::$type($name, concat!($($help),+), &[$($label),*], &registry);)*
                Self { registry, $($field,)* }
            }

            /// Name, kind, labels and help of every metric, in the order of declaration.
            #[must_use]
            pub fn catalogue() -> Vec<(&'static str, &'static str, Vec<&'static str>, String)> {
                vec![$(($name, stringify!($type), vec![$($label),*], concat!($($help),+).trim().to_owned()),)*]
            }
        }
    };
}

metrics! {
    /// Requests answered, by method, kind of request and status code.
    http_requests: IntCounterVec = "larder_http_requests_total" ["method", "route", "code"];
    /// Seconds from a request's head to the last byte of its answer.
    http_request_duration: HistogramVec = "larder_http_request_duration_seconds" ["route"];
    /// Requests being answered now.
    http_inflight: IntGaugeVec = "larder_http_inflight_requests" [];
    /// Open client connections.
    http_connections: IntGaugeVec = "larder_http_connections" [];
    /// When the certificate that clients are shown ends, in Unix seconds; absent without TLS.
    tls_certificate_expiry: IntGaugeVec = "larder_tls_certificate_expiry_timestamp_seconds" [];
    /// Requests for content, by what they asked for and where the answer came from.
    cache_requests: IntCounterVec = "larder_cache_requests_total" ["upstream", "kind", "result"];
    /// Body bytes sent to clients, by where they came from: `cache` was stored before the request, `upstream` was not.
    response_bytes: IntCounterVec = "larder_response_bytes_total" ["upstream", "source"];
    /// Seconds from a request's head to the first byte of its answer.
    time_to_first_byte: HistogramVec = "larder_time_to_first_byte_seconds" ["result"];
    /// Requests sent to an upstream, storage hosts behind redirects included. `code` is the status, or `error` for none.
    upstream_requests: IntCounterVec = "larder_upstream_requests_total" ["upstream", "op", "code"];
    /// Seconds from sending a request upstream to the head of its answer.
    upstream_request_duration: HistogramVec = "larder_upstream_request_duration_seconds" ["upstream", "op"];
    /// Body bytes received from an upstream.
    upstream_received_bytes: IntCounterVec = "larder_upstream_received_bytes_total" ["upstream"];
    /// Body bytes of pushes sent to an upstream.
    upstream_sent_bytes: IntCounterVec = "larder_upstream_sent_bytes_total" ["upstream"];
    /// Requests repeated, by reason: `unauthorized`, `redirect`, `resume`, `connection`, `silence`.
    upstream_retries: IntCounterVec = "larder_upstream_retries_total" ["upstream", "reason"];
    /// Answers 429 of an upstream.
    upstream_throttled: IntCounterVec = "larder_upstream_throttled_total" ["upstream"];
    /// Requests not sent, by reason: `throttled` (it wants to be left alone), `budget` (what its tier allows is used up),
    /// `unreachable` (the host does not answer), `sealed`.
    upstream_withheld: IntCounterVec = "larder_upstream_withheld_total" ["upstream", "reason"];
    /// Requests that waited for the budget of their limit category.
    upstream_paced: IntCounterVec = "larder_upstream_paced_total" ["upstream"];
    /// Bytes that did not have to be downloaded again because a cut transfer was resumed.
    upstream_resumed_bytes: IntCounterVec = "larder_upstream_resumed_bytes_total" ["upstream"];
    /// Whether the last request to the upstream was answered (1) or it is in an outage (0).
    upstream_up: IntGaugeVec = "larder_upstream_up" ["upstream"];
    /// Requests to a token service, by grant (`exchange`, `refresh`, `password`, `basic`, `anonymous`) or identity (`entra-secret`,
    /// `entra-certificate`, `entra-workload`, `entra-imds`, `entra-app-service`, `entra-arc`), and result (`ok`, `refused`, `error`).
    token_requests: IntCounterVec = "larder_token_requests_total" ["upstream", "kind", "result"];
    /// Logins of clients that were checked, by what checked them (`users_file`, `upstream`) and result (`ok`, `failed`, `busy`: more
    /// than can be checked in time). One that is known again is not checked and not counted.
    logins: IntCounterVec = "larder_logins_total" ["by", "result"];
    /// When the credential in use expires, in Unix seconds; absent if it does not say.
    token_expiry: IntGaugeVec = "larder_token_expiry_timestamp_seconds" ["upstream"];
    /// Bytes that the store holds on disk: blobs, ingests, quarantine, links and lists.
    store_bytes: IntGaugeVec = "larder_store_bytes" [];
    /// Bytes that the store may hold.
    store_limit_bytes: IntGaugeVec = "larder_store_limit_bytes" [];
    /// Things in the store, by kind: `blob`, `ingest`, `tag`, `manifest`.
    store_objects: IntGaugeVec = "larder_store_objects" ["kind"];
    /// Bytes that are not removed to make room, since every upstream that has them is away or sealed now.
    store_held_bytes: IntGaugeVec = "larder_store_held_bytes" [];
    /// Bytes removed, by whatever reason.
    store_evicted_bytes: IntCounterVec = "larder_store_evicted_bytes_total" [];
    /// Blobs removed, by reason: `space`, `purge`.
    store_evictions: IntCounterVec = "larder_store_evictions_total" ["reason"];
    /// Times the index was found damaged or too large and removed, to be rebuilt from the files.
    store_index_rebuilds: IntCounterVec = "larder_store_index_rebuilds_total" [];
    /// Whether the store's disk takes what it is given (1); 0: pulls go on, what cannot be stored passes through.
    store_writable: IntGaugeVec = "larder_store_writable" [];
    /// Failures of the store's disk, by reason: `full`, `read_only`, `gone` (unmounted or removed), `hung` (no answer), `broken`.
    store_failures: IntCounterVec = "larder_store_failures_total" ["reason"];
    /// Downloads from an upstream into the store that are under way.
    fills_inflight: IntGaugeVec = "larder_fills_inflight" [];
    /// Downloads into the store that have ended, by result: `stored`, `failed`, `mismatch`, `bypassed`.
    fills: IntCounterVec = "larder_fills_total" ["result"];
    /// Blobs that an upstream has taken from clients, by what became of them here: `stored`, `present` (it was), `mounted`,
    /// `unkept`, `mismatch`; `again` was stored, and upstream had lost it.
    uploads: IntCounterVec = "larder_uploads_total" ["upstream", "result"];
    /// Content that did not match its digest, by where it was seen: `fill`, `read`, `scrub`, `push`.
    digest_failures: IntCounterVec = "larder_digest_failures_total" ["where"];
    /// Blobs set aside because their bytes were damaged.
    quarantined: IntGaugeVec = "larder_quarantined_objects" [];
    /// When the scrub last came to the end of all blobs, in Unix seconds; absent if it never has.
    scrub_last_completed: IntGaugeVec = "larder_scrub_last_completed_timestamp_seconds" [];
    /// Always 1; the labels say what is running.
    build_info: IntGaugeVec = "larder_build_info" ["version", "commit", "target", "features"];
    /// Unix time at which the process started.
    process_start_time: IntGaugeVec = "process_start_time_seconds" [];
    /// Resident memory of the process, in bytes.
    process_resident_memory: IntGaugeVec = "process_resident_memory_bytes" [];
    /// Open file descriptors of the process.
    process_open_fds: IntGaugeVec = "process_open_fds" [];
    /// Largest number of open file descriptors.
    process_max_fds: IntGaugeVec = "process_max_fds" [];
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// What a request for content can ask for: the `kind` label.
pub const CACHE_KINDS: [&str; 7] = ["blob", "manifest", "tag", "tags", "referrers", "catalogue", "acr"];

impl Metrics {
    /// Makes the counters of an upstream exist from the start: a rate over a counter that appears with its first event misses it.
    pub fn expect_upstream(&self, upstream: &str) {
        for kind in CACHE_KINDS {
            for status in CacheStatus::ALL {
                self.cache_requests.with_label_values(&[upstream, kind, status.as_str()]);
            }
        }
        for source in ["cache", "upstream"] {
            self.response_bytes.with_label_values(&[upstream, source]);
        }
        self.upstream_received_bytes.with_label_values(&[upstream]);
        self.upstream_sent_bytes.with_label_values(&[upstream]);
        self.upstream_throttled.with_label_values(&[upstream]);
        self.upstream_resumed_bytes.with_label_values(&[upstream]);
    }

    /// All metrics in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// If a family cannot be written; its name is in the text.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// One constructor per kind of metric, named after its type so that the macro above can call it.
#[expect(non_snake_case, reason = "called by type name from the macro")]
#[expect(clippy::expect_used, reason = "names, labels and buckets are literals of this file; a test builds them all")]
mod make {
    use super::{Collector, HistogramOpts, Opts, Registry, SECONDS};

    fn registered<C: Collector + Clone + 'static>(collector: C, registry: &Registry) -> C {
        registry.register(Box::new(collector.clone())).expect("metric names are unique");
        collector
    }

    pub(super) fn IntCounterVec(
        name: &str,
        help: &str,
        labels: &[&str],
        registry: &Registry,
    ) -> prometheus::IntCounterVec {
        let made = prometheus::IntCounterVec::new(Opts::new(name, help.trim()), labels).expect("valid metric");
        registered(made, registry)
    }

    pub(super) fn IntGaugeVec(name: &str, help: &str, labels: &[&str], registry: &Registry) -> prometheus::IntGaugeVec {
        let made = prometheus::IntGaugeVec::new(Opts::new(name, help.trim()), labels).expect("valid metric");
        registered(made, registry)
    }

    pub(super) fn HistogramVec(
        name: &str,
        help: &str,
        labels: &[&str],
        registry: &Registry,
    ) -> prometheus::HistogramVec {
        let options = HistogramOpts::new(name, help.trim()).buckets(SECONDS.to_vec());
        registered(prometheus::HistogramVec::new(options, labels).expect("valid metric"), registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_exist_and_follow_the_naming_practice() {
        let metrics = Metrics::new();
        metrics.store_bytes.with_label_values(&[] as &[&str]).set(7);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(text.contains("larder_store_bytes 7"), "{text}");
        for (name, kind, labels, help) in Metrics::catalogue() {
            assert_eq!(name.ends_with("_total"), kind == "IntCounterVec", "{name}");
            assert!(!help.is_empty(), "{name}");
            for private in ["repository", "tag", "digest", "client"] {
                assert!(!labels.contains(&private), "{name} must not have a label that clients can grow");
            }
        }
    }
}
