//! `/acr/v1`: the registry's own view of repositories, tags and manifests. Reads only.

use percent_encoding::utf8_percent_encode;

use super::content::{Manifest, Repository, Tag};
use super::lists::Page;
use super::reply::{self, JSON, NotFound, Reply, quoted};
use super::route::value;
use super::signature::QUERY;
use super::{State, clock};

type Query = [(String, String)];

const ATTRIBUTES: &str = "\"deleteEnabled\":true,\"writeEnabled\":true,\"readEnabled\":true,\"listEnabled\":true";

/// `/acr/v1/NAME`.
pub(super) fn repository(state: &State, name: &str) -> Reply {
    in_repository(state, name, |r| {
        let (created, updated) = (clock::rfc3339(r.created), clock::rfc3339(r.updated));
        let body = format!(
            "{},\"createdTime\":\"{created}\",\"lastUpdateTime\":\"{updated}\",\"manifestCount\":{},\"tagCount\":{},\
             \"changeableAttributes\":{{{ATTRIBUTES}}}}}\n",
            head(state, name),
            r.manifests.len(),
            r.tags.len(),
        );
        reply::text(200, JSON, body)
    })
}

/// `/acr/v1/NAME/_tags`.
pub(super) fn tags(state: &State, name: &str, query: &Query) -> Reply {
    in_repository(state, name, |r| {
        let mut all: Vec<(&String, &Tag)> = r.tags.iter().collect();
        order(&mut all, query, |(_, tag)| tag.updated);
        let page = Page::cut(state, all, |(tag, _)| tag, &path(name, "_tags"), query);
        let entries: Vec<String> = page.entries.iter().map(|(name, tag)| tag_json(name, tag)).collect();
        page.reply(format!("{},\"tags\":[{}]}}", head(state, name), entries.join(",")))
    })
}

/// `/acr/v1/NAME/_tags/TAG`.
pub(super) fn tag(state: &State, name: &str, tag: &str) -> Reply {
    in_repository(state, name, |r| match r.tags.get(tag) {
        Some(found) => reply::text(200, JSON, format!("{},\"tag\":{}}}\n", head(state, name), tag_json(tag, found))),
        None => reply::error(404, "TAG_UNKNOWN", "the specified tag does not exist", None),
    })
}

/// `/acr/v1/NAME/_manifests`.
pub(super) fn manifests(state: &State, name: &str, query: &Query) -> Reply {
    in_repository(state, name, |r| {
        let mut all: Vec<(&String, &Manifest)> = r.manifests.iter().collect();
        order(&mut all, query, |(_, manifest)| manifest.created);
        let page = Page::cut(state, all, |(digest, _)| digest, &path(name, "_manifests"), query);
        let entries: Vec<String> = page.entries.iter().map(|(d, m)| manifest_json(r, d, m)).collect();
        page.reply(format!("{},\"manifests\":[{}]}}", head(state, name), entries.join(",")))
    })
}

/// `/acr/v1/NAME/_manifests/DIGEST`.
pub(super) fn manifest(state: &State, name: &str, digest: &str) -> Reply {
    in_repository(state, name, |r| match r.manifests.get(digest) {
        Some(found) => {
            let body = format!("{},\"manifest\":{}}}\n", head(state, name), manifest_json(r, digest, found));
            reply::text(200, JSON, body)
        }
        None => reply::not_found(&NotFound::Manifest { name, digest }),
    })
}

fn in_repository(state: &State, name: &str, answer: impl FnOnce(&Repository) -> Reply) -> Reply {
    state.content.with(name, answer).unwrap_or_else(|| reply::not_found(&NotFound::Repository(name)))
}

fn head(state: &State, name: &str) -> String {
    format!("{{\"registry\":{},\"imageName\":{}", quoted(&state.registry()), quoted(name))
}

/// The name is one component here, as the service's own links have it.
fn path(name: &str, list: &str) -> String {
    format!("/acr/v1/{}/{list}", utf8_percent_encode(name, QUERY))
}

fn order<T>(all: &mut [T], query: &Query, time: impl Fn(&T) -> u64) {
    match value(query, "orderby") {
        Some("timeasc") => all.sort_by_key(&time),
        Some("timedesc") => all.sort_by_key(|entry| std::cmp::Reverse(time(entry))),
        _ => {}
    }
}

fn tag_json(name: &str, tag: &Tag) -> String {
    let (created, updated) = (clock::rfc3339(tag.created), clock::rfc3339(tag.updated));
    format!(
        "{{\"name\":{},\"digest\":\"{}\",\"createdTime\":\"{created}\",\"lastUpdateTime\":\"{updated}\",\"signed\":false,\
         \"changeableAttributes\":{{{ATTRIBUTES}}}}}",
        quoted(name),
        tag.digest
    )
}

fn manifest_json(repository: &Repository, digest: &str, manifest: &Manifest) -> String {
    let created = clock::rfc3339(manifest.created);
    let tags = repository.tags.iter().filter(|(_, tag)| tag.digest == digest);
    let tags: Vec<String> = tags.map(|(name, _)| quoted(name)).collect();
    format!(
        "{{\"digest\":\"{digest}\",\"imageSize\":{},\"createdTime\":\"{created}\",\"lastUpdateTime\":\"{created}\",\
         \"architecture\":\"amd64\",\"os\":\"linux\",\"mediaType\":{},\"tags\":[{}],\
         \"changeableAttributes\":{{{ATTRIBUTES},\"quarantineState\":\"Passed\"}}}}",
        manifest.image_size(),
        quoted(&manifest.media_type),
        tags.join(",")
    )
}
