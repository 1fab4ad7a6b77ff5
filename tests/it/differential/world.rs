//! A registry with an image for each name that anybody makes up, honest until it is told otherwise.

use super::mutation::{Body, Change, Mutation, Target, WIDE};
use super::sha256;
use std::collections::HashSet;
use std::sync::Mutex;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Entries of a page, whatever a client asks for.
const PAGE: usize = 3;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const API: &str = "Docker-Distribution-Api-Version";

pub(super) struct World {
    seed: u64,
    armed: Mutex<HashSet<u64>>,
}

/// The one image of a repository.
pub(super) struct Image {
    pub(super) document: String,
    pub(super) digest: String,
    pub(super) layer: Vec<u8>,
    pub(super) layer_digest: String,
}

/// An answer before it is written.
struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, armed: Mutex::default() }
    }

    pub(super) fn mutation(&self, number: u64) -> Mutation {
        Mutation::of(self.seed, number)
    }

    pub(super) fn arm(&self, number: u64) {
        self.armed.lock().unwrap().insert(number);
    }

    pub(super) fn disarm(&self, number: u64) {
        self.armed.lock().unwrap().remove(&number);
    }

    pub(super) fn image(&self, repository: &str) -> Image {
        let layer = format!("layer of {repository} {}", self.seed).repeat(1 + repository.len() % 7).into_bytes();
        let layer_digest = sha256(&layer);
        let document = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\
             \"digest\":\"{layer_digest}\",\"size\":{0}}},\"layers\":[{{\"mediaType\":\"application/octet-stream\",\
             \"digest\":\"{layer_digest}\",\"size\":{0}}}]}}",
            layer.len()
        );
        Image { digest: sha256(document.as_bytes()), document, layer, layer_digest }
    }

    /// The tags of every repository, and all repositories.
    pub(super) fn tags() -> Vec<String> {
        (1..=7).map(|number| format!("v{number}")).collect()
    }

    pub(super) fn repositories() -> Vec<String> {
        (1..=7).map(|number| format!("team/app-{number}")).collect()
    }

    /// What is attached to the image of a repository.
    pub(super) fn attached(&self, repository: &str) -> String {
        sha256(format!("attached to {repository} {}", self.seed).as_bytes())
    }

    /// The answer of the upstream with this number to a request, mutated if it, or the request's repository, is armed.
    pub(super) fn answer(&self, upstream: u64, head: &str) -> Vec<u8> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let host = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let (path, redirected) = match path.strip_prefix("/alt") {
            Some(rest) => (rest, true),
            None => (path, false),
        };
        let (mut answer, kind, number) = if let Some((repository, kind, reference)) = parts(path) {
            let number = repository.rsplit_once('m').and_then(|(_, number)| number.parse().ok());
            (self.honest(&repository, kind, reference, query), kind, number.unwrap_or_default())
        } else if path == "/v2/_catalog" {
            (page(path, "repositories", &Self::repositories(), query), "_catalog", WIDE + upstream)
        } else {
            return Answer::of("200 OK", &[(API, "registry/2.0")], b"{}").written(method);
        };
        if self.armed.lock().unwrap().contains(&number) {
            let mutation = self.mutation(number);
            if is_target(mutation.target, method, kind) {
                for change in &mutation.changes {
                    answer.change(change, redirected.then_some(""), host.as_deref().unwrap_or_default(), path);
                }
            }
            return answer.written(method);
        }
        answer.written(method)
    }

    fn honest(&self, repository: &str, kind: &str, reference: &str, query: &str) -> Answer {
        let image = self.image(repository);
        let (api, digest) = ((API, "registry/2.0"), &*image.digest);
        match kind {
            "manifests" if reference == "v1" || reference == digest => Answer::of(
                "200 OK",
                &[api, ("Content-Type", MANIFEST), ("Docker-Content-Digest", digest)],
                image.document.as_bytes(),
            ),
            "blobs" if reference == image.layer_digest => Answer::of(
                "200 OK",
                &[api, ("Content-Type", "application/octet-stream"), ("Docker-Content-Digest", &image.layer_digest)],
                &image.layer,
            ),
            "tags" => page(&format!("/v2/{repository}/tags/list"), "tags", &Self::tags(), query),
            "referrers" if reference == digest => {
                let descriptor =
                    format!("{{\"mediaType\":\"{MANIFEST}\",\"digest\":\"{}\",\"size\":7}}", self.attached(repository));
                let index = format!("{{\"schemaVersion\":2,\"mediaType\":\"{INDEX}\",\"manifests\":[{descriptor}]}}");
                Answer::of("200 OK", &[api, ("Content-Type", INDEX)], index.as_bytes())
            }
            _ => {
                let body = b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"no\"}]}";
                Answer::of("404 Not Found", &[api, ("Content-Type", "application/json")], body)
            }
        }
    }
}

/// The names behind `last`, a few at a time, with a link to the next ones.
fn page(path: &str, field: &str, names: &[String], query: &str) -> Answer {
    let parameter = |name: &str| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let last = parameter("last").map(|last| last.replace("%2F", "/").replace("%2D", "-"));
    let behind = last.and_then(|last| names.iter().position(|name| *name == last)).map_or(0, |at| at + 1);
    let most = parameter("n").and_then(|n| n.parse().ok()).unwrap_or(PAGE).clamp(1, PAGE);
    let some = &names[behind..names.len().min(behind + most)];
    let json = format!(
        "{{\"name\":\"x\",\"{field}\":[{}]}}",
        some.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",")
    );
    let link = format!("<{path}?last={}&n={most}>; rel=\"next\"", some.last().map_or("", String::as_str));
    let mut headers = vec![(API, "registry/2.0"), ("Content-Type", "application/json")];
    if behind + most < names.len() {
        headers.push(("Link", &*link));
    }
    Answer::of("200 OK", &headers, json.as_bytes())
}

/// Repository, kind and reference of a path.
fn parts(path: &str) -> Option<(String, &str, &str)> {
    let mut parts = path.strip_prefix("/v2/")?.splitn(4, '/');
    let (first, second, kind, reference) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((format!("{first}/{second}"), kind, reference))
}

fn is_target(target: Target, method: &str, kind: &str) -> bool {
    match target {
        Target::ManifestHead => kind == "manifests" && method == "HEAD",
        Target::ManifestGet => kind == "manifests" && method == "GET",
        Target::Manifest => kind == "manifests",
        Target::Blob => kind == "blobs",
        Target::Tags => kind == "tags",
        Target::Referrers => kind == "referrers",
        Target::Catalogue => kind == "_catalog",
    }
}

impl Answer {
    fn of(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status: status.to_owned(), headers, body: body.to_vec() }
    }

    fn change(&mut self, change: &Change, redirected: Option<&str>, host: &str, path: &str) {
        match change {
            Change::Status(status, body) => {
                (*status).clone_into(&mut self.status);
                self.become_body(*body);
            }
            Change::Throttle(after) => {
                "429 Too Many Requests".clone_into(&mut self.status);
                self.headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
                self.headers.extend(after.map(|after| ("Retry-After".to_owned(), after.to_owned())));
                self.body = b"{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"slowly\"}]}".to_vec();
            }
            Change::Without(name) => self.headers.retain(|(have, _)| have != name),
            Change::Header(name, value) => {
                self.headers.retain(|(have, _)| have != name);
                self.headers.push(((*name).to_owned(), (*value).to_owned()));
            }
            Change::Besides(name, value) => self.headers.push(((*name).to_owned(), (*value).to_owned())),
            Change::Body(body) => self.become_body(*body),
            Change::Redirect(..) if redirected.is_some() => {}
            Change::Redirect(status, location) => {
                (*status).clone_into(&mut self.status);
                self.headers.push(("Location".to_owned(), location.replace("{host}", host).replacen("{}", path, 1)));
                self.body.clear();
            }
        }
    }

    fn become_body(&mut self, body: Body) {
        match body {
            Body::Same => {}
            Body::Empty => self.body.clear(),
            Body::Page => self.body = b"<!DOCTYPE html><html><body>Sign in</body></html>".to_vec(),
            Body::Json => self.body = b"{\"status\":\"ok\"}".to_vec(),
            Body::Errors => self.body = b"{\"errors\":[{\"code\":\"UNKNOWN\",\"message\":\"no\"}]}".to_vec(),
            Body::Cut => self.body.truncate(self.body.len() / 2),
        }
    }

    fn written(self, method: &str) -> Vec<u8> {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n{lines}\r\n", self.status, self.body.len());
        let mut all = head.into_bytes();
        if method != "HEAD" && !self.status.starts_with("204") && !self.status.starts_with("304") {
            all.extend(self.body);
        }
        all
    }
}
