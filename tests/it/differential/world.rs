//! A registry with an image for each name that anybody makes up, honest until it is told otherwise.

use super::mutation::{Body, Change, Mutation, Target};
use crate::harness::sha256;
use std::collections::HashSet;
use std::sync::Mutex;

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

    /// The answer to a request, mutated if its repository is armed.
    pub(super) fn answer(&self, head: &str) -> Vec<u8> {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let host = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let (path, redirected) = match path.strip_prefix("/alt") {
            Some(rest) => (rest, true),
            None => (path, false),
        };
        let Some((repository, kind, reference)) = parts(path) else {
            return Answer::of("200 OK", &[(API, "registry/2.0")], b"{}").written(method);
        };
        let mut answer = self.honest(&repository, kind, reference);
        let number = repository.rsplit_once('m').and_then(|(_, number)| number.parse().ok()).unwrap_or_default();
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

    fn honest(&self, repository: &str, kind: &str, reference: &str) -> Answer {
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
            "tags" => {
                let tags = format!("{{\"name\":\"{repository}\",\"tags\":[\"v1\",\"v2\"]}}");
                Answer::of("200 OK", &[api, ("Content-Type", "application/json")], tags.as_bytes())
            }
            _ => {
                let body = b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"no\"}]}";
                Answer::of("404 Not Found", &[api, ("Content-Type", "application/json")], body)
            }
        }
    }
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
        let head = format!(
            "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n",
            self.status,
            self.body.len()
        );
        let mut all = head.into_bytes();
        if method != "HEAD" && !self.status.starts_with("204") && !self.status.starts_with("304") {
            all.extend(self.body);
        }
        all
    }
}
