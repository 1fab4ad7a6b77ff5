//! What the commands ask the running daemon, through its Unix socket alone: who may open the socket may ask.

use super::Admin;
use crate::cache::{Purge, Purged};
use crate::oci::Reference;
use crate::server::{Body, Target};
use crate::telemetry::CacheStatus;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

impl Admin {
    /// The answer to a command; `None`: there is no such command.
    pub(super) async fn command(&self, method: &Method, path: &str, query: Option<&str>) -> Option<Response<Body>> {
        let result = match (method, path) {
            (&Method::GET, "/v1/status") => Ok(self.status()),
            (&Method::GET, "/v1/references") => self.references().await,
            (&Method::POST, "/v1/purge") => self.purge(query.unwrap_or_default()).await,
            _ => return None,
        };
        Some(match result {
            Ok(value) => reply(StatusCode::OK, &value),
            Err((status, message)) => reply(status, &json!({ "error": message })),
        })
    }

    fn status(&self) -> Value {
        let usage = self.store.usage();
        let none: &[&str] = &[];
        let upstreams = self.routes.registries().iter().map(|registry| self.upstream(registry.as_str()));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.started.elapsed().as_secs(),
            "store": {
                "bytes": usage.bytes, "limit_bytes": usage.limit, "counted": usage.exact,
                "blobs": usage.blobs, "ingests": usage.ingests,
            },
            "fills_inflight": self.metrics.fills_inflight.with_label_values(none).get(),
            "requests_inflight": self.metrics.http_inflight.with_label_values(none).get(),
            "upstreams": upstreams.collect::<Vec<_>>(),
        })
    }

    fn upstream(&self, name: &str) -> Value {
        let results = CacheStatus::ALL.map(|status| {
            let counters = crate::telemetry::CACHE_KINDS
                .map(|kind| self.metrics.cache_requests.with_label_values(&[name, kind, status.as_str()]).get());
            (status.as_str().to_owned(), Value::from(counters.iter().sum::<u64>()))
        });
        let sent = |source| self.metrics.response_bytes.with_label_values(&[name, source]).get();
        let received = self.metrics.upstream_received_bytes.with_label_values(&[name]).get();
        json!({
            "name": name,
            "up": self.metrics.upstream_up.with_label_values(&[name]).get() == 1,
            "requests": Value::Object(results.into_iter().collect()),
            "sent_bytes": sent("cache") + sent("upstream"),
            "received_bytes": received,
            "saved_bytes": (sent("cache") + sent("upstream")).saturating_sub(received),
        })
    }

    async fn references(&self) -> Result<Value, (StatusCode, String)> {
        let references = self.store.references().await.map_err(failed)?;
        let entries = references.into_iter().map(|reference| {
            let seen = reference.seen.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            json!({
                "reference": format!("{}:{}", reference.repository, reference.tag),
                "digest": reference.digest.to_string(),
                "media_type": reference.media_type.map(|kind| kind.to_string()),
                "bytes": reference.bytes,
                "missing": reference.missing,
                "seen_timestamp": seen,
            })
        });
        Ok(Value::Array(entries.collect()))
    }

    async fn purge(&self, query: &str) -> Result<Value, (StatusCode, String)> {
        let what = query.strip_prefix("reference=").unwrap_or_default();
        let Purged { tags, manifests } = self.cache.purge(&self.find(what)?).await.map_err(failed)?;
        Ok(json!({ "tags": tags, "manifests": manifests }))
    }

    /// A reference as a person writes it, resolved as a request would be.
    fn find(&self, reference: &str) -> Result<Purge, (StatusCode, String)> {
        let wrong = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, format!("'{reference}': {error}"));
        let (name, kind) = split(reference);
        let path = match kind {
            Some(kind) => format!("/v2/{name}/manifests/{kind}"),
            None => format!("/v2/{name}/tags/list"),
        };
        match self.routes.resolve(&path, None, None).map_err(|error| wrong(&error))?.target {
            Target::Manifest(repository, Reference::Tag(tag)) => Ok(Purge::Tag(repository, tag)),
            Target::Manifest(repository, Reference::Digest(digest)) => Ok(Purge::Manifest(repository, digest)),
            Target::Tags(repository) => Ok(Purge::Repository(repository)),
            _ => Err(wrong(&"not a reference: write repository, repository:tag or repository@digest")),
        }
    }
}

/// Name, and tag or digest. A colon before the last slash belongs to a host with a port.
fn split(reference: &str) -> (&str, Option<&str>) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name, Some(digest));
    }
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (reference, None),
    }
}

fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(format!("{value}\n").into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split("a.b:5000/c/d"), ("a.b:5000/c/d", None));
        assert_eq!(split("a.b:5000/c/d:v1"), ("a.b:5000/c/d", Some("v1")));
        assert_eq!(split("c/d@sha256:ab"), ("c/d", Some("sha256:ab")));
        assert_eq!(split("c/d"), ("c/d", None));
    }
}
