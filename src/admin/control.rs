//! What the commands ask the running daemon, through its Unix socket alone: who may open the socket may ask.

use super::Admin;
use crate::bundle::{Inventory, audit};
use crate::cache::{Condition, Purge, Purged};
use crate::oci::{Reference, Registry, Repository, RepositoryPattern};
use crate::server::{Body, Target};
use crate::store::Pin;
use crate::telemetry::{CacheStatus, build};
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

impl Admin {
    /// The answer to a command; `None`: there is no such command.
    pub(super) async fn command(&self, method: &Method, path: &str, query: Option<&str>) -> Option<Response<Body>> {
        let result = match (method, path) {
            (&Method::GET, "/v1/status") => Ok(self.status()),
            (&Method::GET, "/v1/references") => {
                let within = argument(query, "used_within").parse().ok();
                self.references(within, argument(query, "pinned") == "true").await
            }
            (&Method::POST, "/v1/purge") => self.purge(&argument(query, "reference")).await,
            (&Method::POST, "/v1/purge/upstream") => self.purge_upstream(&argument(query, "name")).await,
            (&Method::POST, "/v1/purge/unpinned") => self.forget(&Purge::Unpinned).await,
            (&Method::GET, "/v1/missing") => Ok(self.missing()),
            (&Method::GET, "/v1/inventory") => return Some(self.inventory().await),
            (&Method::GET, "/v1/pins") => Ok(self.pins()),
            (&Method::POST, "/v1/pins/add") => self.pin(&argument(query, "reference"), true).await,
            (&Method::POST, "/v1/pins/remove") => self.pin(&argument(query, "reference"), false).await,
            (&Method::GET, "/v1/verify/holdings") => return Some(self.holdings().await),
            (&Method::GET, "/v1/verify") => Ok(self.inspection()),
            (&Method::POST, "/v1/verify") => self.inspect(argument(query, "repair") == "true"),
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
        let trouble = self.store.trouble().map(|trouble| {
            json!({
                "kind": trouble.kind.as_str(),
                "since_timestamp": seconds(trouble.since),
                "problem": trouble.problem,
            })
        });
        let tls = self.tls.as_ref().map(|tls| {
            let state = tls.state();
            json!({
                "names": state.names, "expires_timestamp": seconds(state.not_after), "problem": state.problem,
            })
        });
        let upstreams = self.routes.registries().iter().map(|registry| self.upstream(registry));
        json!({
            "version": build::VERSION,
            "commit": build::COMMIT,
            "build_date": build::DATE,
            "target": build::TARGET,
            "features": build::FEATURES,
            "uptime_s": self.started.elapsed().as_secs(),
            "store": {
                "bytes": usage.bytes, "limit_bytes": usage.limit, "counted": usage.exact,
                "blobs": usage.blobs, "ingests": usage.ingests, "held_bytes": usage.held, "trouble": trouble,
            },
            "fills_inflight": self.metrics.fills_inflight.with_label_values(none).get(),
            "requests_inflight": self.metrics.http_inflight.with_label_values(none).get(),
            "tls": tls,
            "upstreams": upstreams.collect::<Vec<_>>(),
        })
    }

    fn upstream(&self, registry: &Registry) -> Value {
        let name = registry.as_str();
        let results = CacheStatus::ALL.map(|status| {
            let counters = crate::telemetry::CACHE_KINDS
                .map(|kind| self.metrics.cache_requests.with_label_values(&[name, kind, status.as_str()]).get());
            (status.as_str().to_owned(), Value::from(counters.iter().sum::<u64>()))
        });
        let sent = |source| self.metrics.response_bytes.with_label_values(&[name, source]).get();
        let received = self.metrics.upstream_received_bytes.with_label_values(&[name]).get();
        let condition = self.cache.condition(registry);
        json!({
            "name": name,
            "up": self.metrics.upstream_up.with_label_values(&[name]).get() == 1,
            "sealed": condition.sealed,
            "held": condition.away,
            "troubles": troubles(&condition),
            "requests": Value::Object(results.into_iter().collect()),
            "sent_bytes": sent("cache") + sent("upstream"),
            "received_bytes": received,
            "saved_bytes": (sent("cache") + sent("upstream")).saturating_sub(received),
        })
    }

    /// What is stored by tag: all of it, or what was used within so many seconds, or is pinned.
    async fn references(&self, within: Option<u64>, pinned: bool) -> Result<Value, (StatusCode, String)> {
        let mut references = self.store.references().await.map_err(failed)?;
        let since = within.map_or(0, |within| seconds(SystemTime::now()).saturating_sub(within));
        references.retain(|reference| seconds(reference.last_use) >= since && (reference.pinned || !pinned));
        let entries = references.into_iter().map(|reference| {
            json!({
                "reference": format!("{}:{}", reference.repository, reference.tag),
                "digest": reference.digest.to_string(),
                "media_type": reference.media_type.map(|kind| kind.to_string()),
                "bytes": reference.bytes,
                "missing": reference.missing,
                "platforms": reference.platforms,
                "pinned": reference.pinned,
                "seen_timestamp": seconds(reference.seen),
                "last_use_timestamp": seconds(reference.last_use),
            })
        });
        Ok(Value::Array(entries.collect()))
    }

    fn missing(&self) -> Value {
        let entries = self.cache.missing().into_iter().map(|missing| {
            json!({
                "reference": missing.full_name(),
                "times": missing.times,
                "last_timestamp": seconds(missing.last),
            })
        });
        Value::Array(entries.collect())
    }

    /// What the store holds, as lines of text.
    async fn inventory(&self) -> Response<Body> {
        let references = match self.store.references().await {
            Ok(references) => references,
            Err(error) => return reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() })),
        };
        let tags = references.into_iter().map(|it| (format!("{}:{}", it.repository, it.tag), it.digest));
        let missing = self.cache.missing().into_iter().map(|it| (it.full_name(), it.times));
        let digests = self.store.digests().into_iter().collect();
        let inventory = Inventory { digests, tags: tags.collect(), missing: missing.collect() };
        Response::new(Body::full(inventory.to_text().into()))
    }

    /// What the store holds, for the report of `verify`.
    async fn holdings(&self) -> Response<Body> {
        match audit(&self.store).await {
            Ok(text) => Response::new(Body::full(text.into())),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() })),
        }
    }

    async fn purge(&self, reference: &str) -> Result<Value, (StatusCode, String)> {
        self.forget(&self.find(reference)?).await
    }

    async fn purge_upstream(&self, name: &str) -> Result<Value, (StatusCode, String)> {
        let registries = self.routes.registries();
        let Some(registry) = registries.iter().find(|registry| registry.as_str().eq_ignore_ascii_case(name)) else {
            let known = registries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err((StatusCode::BAD_REQUEST, format!("no upstream is named '{name}'; there are: {known}")));
        };
        self.forget(&Purge::Upstream(registry.clone())).await
    }

    async fn forget(&self, what: &Purge) -> Result<Value, (StatusCode, String)> {
        let Purged { tags, manifests, bytes } = self.cache.purge(what).await.map_err(failed)?;
        Ok(json!({ "tags": tags, "manifests": manifests, "freed_bytes": bytes }))
    }

    fn pins(&self) -> Value {
        let (configured, asked) = self.store.pins();
        let entry = |pin: Pin, origin| json!({ "pin": pin.to_string(), "from": origin });
        let configured = configured.into_iter().map(|pin| entry(pin, "configuration"));
        configured.chain(asked.into_iter().map(|pin| entry(pin, "command"))).collect()
    }

    async fn pin(&self, reference: &str, add: bool) -> Result<Value, (StatusCode, String)> {
        let pin = self.find_pin(reference)?;
        let stored = self.is_stored(&pin).await?;
        let changed = if add { self.store.pin(pin.clone()).await } else { self.store.unpin(pin.clone()).await };
        let changed = changed.map_err(failed)?;
        let in_file = self.store.pins().0.contains(&pin);
        Ok(json!({ "pin": pin.to_string(), "changed": changed, "stored": stored, "configured": in_file }))
    }

    /// A pattern as it stands in the file; a reference as a person writes it.
    fn find_pin(&self, reference: &str) -> Result<Pin, (StatusCode, String)> {
        if !reference.contains('*') {
            return Ok(match self.find(reference)? {
                Purge::Tag(repository, tag) => Pin::Tag(repository, tag),
                Purge::Manifest(repository, digest) => Pin::Manifest(repository, digest),
                Purge::Repository(Repository { registry, name }) => {
                    Pin::Repositories(RepositoryPattern::new(&format!("{registry}/{name}")))
                }
                Purge::Upstream(_) | Purge::Unpinned => return Err(failed("no reference leads here")),
            });
        }
        let first = reference.split('/').next().unwrap_or_default();
        if !first.contains('*') && !self.routes.registries().iter().any(|registry| registry.as_str() == first) {
            let message = format!(
                "'{reference}': a pattern begins with an upstream's name: write {}/{reference}",
                self.routes.registries().first().map_or("<upstream>", crate::oci::Registry::as_str)
            );
            return Err((StatusCode::BAD_REQUEST, message));
        }
        reference.parse().map_err(|error| (StatusCode::BAD_REQUEST, format!("'{reference}': {error}")))
    }

    /// Whether there is anything yet that a pin keeps.
    async fn is_stored(&self, pin: &Pin) -> Result<bool, (StatusCode, String)> {
        Ok(match pin {
            Pin::Repositories(pattern) => {
                self.store.repositories().await.map_err(failed)?.iter().any(|it| pattern.matches(it))
            }
            Pin::Tag(repository, tag) => self.store.tag(repository, tag).await.map_err(failed)?.is_some(),
            Pin::Manifest(repository, digest) => {
                self.store.manifest_type(repository, digest).await.map_err(failed)?.is_some()
            }
        })
    }

    fn inspect(&self, repair: bool) -> Result<Value, (StatusCode, String)> {
        let begun = self.store.inspect(repair).map_err(failed)?;
        Ok(json!({ "begun": begun }))
    }

    fn inspection(&self) -> Value {
        let Some(inspection) = self.store.inspection() else { return Value::Null };
        let named = inspection.named.iter().map(
            |blob| json!({ "digest": blob.digest.to_string(), "problem": blob.problem, "set_aside": blob.set_aside }),
        );
        json!({
            "done": inspection.done,
            "blobs": inspection.blobs,
            "bytes": inspection.bytes,
            "of_bytes": inspection.of_bytes,
            "damaged_blobs": inspection.damaged,
            "damaged": named.collect::<Vec<_>>(),
        })
    }

    /// A reference as a person writes it, resolved as a request would be.
    pub(super) fn find(&self, reference: &str) -> Result<Purge, (StatusCode, String)> {
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

/// A parameter of the query, decoded; empty if it is not there.
pub(super) fn argument(query: Option<&str>, name: &str) -> String {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}

/// Repositories that are named in a status, of those that are withheld.
const NAMED: usize = 20;

/// What is wrong with an upstream, each with the sentence for a person.
fn troubles(condition: &Condition) -> Vec<Value> {
    let mut troubles = Vec::new();
    for it in &condition.blocked {
        troubles.push(json!({
            "kind": it.reason,
            "of": it.of,
            "since_timestamp": it.since.map(seconds),
            "left_s": it.left.map(|left| left.as_secs()),
            "message": it.message,
        }));
    }
    if let Some(problem) = condition.problem.as_ref().filter(|_| troubles.is_empty()) {
        troubles.push(json!({ "kind": "failing", "message": &**problem }));
    }
    if !condition.withheld.is_empty() {
        let count = condition.withheld.len();
        let named: Vec<_> = condition.withheld.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if count > named.len() { ", …" } else { "" };
        let message = format!(
            "its login is refused {count} repositories, of which nothing is served until it is allowed again: {}{more}",
            named.join(", ")
        );
        troubles.push(json!({ "kind": "withheld", "count": count, "repositories": named, "message": message }));
    }
    troubles
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(super) fn failed(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

pub(super) fn reply(status: StatusCode, value: &Value) -> Response<Body> {
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
