//! `/acr/v1`: the registry's own view of repositories, tags and manifests, and the locks on them.

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde_json::Value;

use super::content::{Attributes, Manifest, Repository, Tag};
use super::lists::{self, Page};
use super::reply::{self, JSON, NotFound, Reply, quoted};
use super::route::{Route, value};
use super::signature::QUERY;
use super::{Region, State, clock};

type Query = [(String, String)];

/// What `PATCH` changes; whatever else is in it is left alone.
#[derive(Clone, Copy, Deserialize)]
struct Changes {
    #[serde(rename = "deleteEnabled")]
    delete: Option<bool>,
    #[serde(rename = "writeEnabled")]
    write: Option<bool>,
    #[serde(rename = "readEnabled")]
    read: Option<bool>,
    #[serde(rename = "listEnabled")]
    list: Option<bool>,
}

impl Changes {
    fn apply(self, to: &mut Attributes) {
        to.delete = self.delete.unwrap_or(to.delete);
        to.write = self.write.unwrap_or(to.write);
        to.read = self.read.unwrap_or(to.read);
        to.list = self.list.unwrap_or(to.list);
    }
}

/// `PATCH` of a repository, a tag or a manifest: answered with what it is from now on.
pub(super) fn patch(region: &Region<'_>, route: &Route, body: &[u8]) -> Reply {
    let changes: Changes = match serde_json::from_slice(body) {
        Ok(changes) => changes,
        Err(why) => return reply::error(400, "UNSUPPORTED", &format!("the attributes cannot be read: {why}"), None),
    };
    let before = get(region, route, &[]);
    if !before.status().is_success() {
        return before;
    }
    match route.clone() {
        Route::AcrRepository { name } => region.content.change(&name, move |r, _| changes.apply(&mut r.attributes)),
        Route::AcrTag { name, tag } => region.content.change(&name, move |r, _| {
            if let Some(tag) = r.tags.get_mut(&tag) {
                changes.apply(&mut tag.attributes);
            }
        }),
        Route::AcrManifest { name, digest } => region.content.change(&name, move |r, _| {
            if let Some(manifest) = r.manifests.get_mut(&digest) {
                changes.apply(&mut manifest.attributes);
            }
        }),
        _ => return reply::unsupported(),
    }
    get(region, route, &[])
}

/// `GET` of everything under `/acr/v1`.
pub(super) fn get(region: &Region<'_>, route: &Route, query: &Query) -> Reply {
    match route {
        Route::AcrCatalog => lists::catalog(region, "/acr/v1/_catalog", query),
        Route::AcrRepository { name } => repository(region, name),
        Route::AcrTags { name } => tags(region, name, query),
        Route::AcrTag { name, tag: of } => tag(region, name, of),
        Route::AcrManifests { name } => manifests(region, name, query),
        Route::AcrManifest { name, digest } => manifest(region, name, digest),
        _ => reply::route_not_found(),
    }
}

/// `/acr/v1/NAME`.
fn repository(state: &Region<'_>, name: &str) -> Reply {
    in_repository(state, name, |r| {
        let (created, updated) = (clock::rfc3339(r.created), clock::rfc3339(r.updated));
        let body = format!(
            "{},\"createdTime\":\"{created}\",\"lastUpdateTime\":\"{updated}\",\"manifestCount\":{},\"tagCount\":{},\
             \"changeableAttributes\":{{{}}}}}\n",
            head(state, name),
            r.manifests.len(),
            r.tags.len(),
            attributes(r.attributes),
        );
        reply::text(200, JSON, body)
    })
}

/// `/acr/v1/NAME/_tags`.
fn tags(state: &Region<'_>, name: &str, query: &Query) -> Reply {
    in_repository(state, name, |r| {
        let mut all: Vec<(&String, &Tag)> = r.listed_tags().collect();
        order(&mut all, query, |(_, tag)| tag.updated);
        let page = Page::cut(state, all, |(tag, _)| tag, &path(name, "_tags"), query);
        let entries: Vec<String> = page.entries.iter().map(|(name, tag)| tag_json(name, tag)).collect();
        page.reply(format!("{},\"tags\":[{}]}}", head(state, name), entries.join(",")))
    })
}

/// `/acr/v1/NAME/_tags/TAG`.
fn tag(state: &Region<'_>, name: &str, tag: &str) -> Reply {
    in_repository(state, name, |r| match r.tags.get(tag) {
        Some(found) => reply::text(200, JSON, format!("{},\"tag\":{}}}\n", head(state, name), tag_json(tag, found))),
        None => reply::not_found(&NotFound::AcrTag),
    })
}

/// `/acr/v1/NAME/_manifests`.
fn manifests(state: &Region<'_>, name: &str, query: &Query) -> Reply {
    in_repository(state, name, |r| {
        let mut all: Vec<(&String, &Manifest)> = r.manifests.iter().filter(|(_, m)| m.attributes.list).collect();
        order(&mut all, query, |(_, manifest)| manifest.created);
        let page = Page::cut(state, all, |(digest, _)| digest, &path(name, "_manifests"), query);
        let entries: Vec<String> = page.entries.iter().map(|(d, m)| manifest_json(r, d, m)).collect();
        page.reply(format!("{},\"manifests\":[{}]}}", head(state, name), entries.join(",")))
    })
}

/// `/acr/v1/NAME/_manifests/DIGEST`.
fn manifest(state: &Region<'_>, name: &str, digest: &str) -> Reply {
    in_repository(state, name, |r| match r.manifests.get(digest) {
        Some(found) => {
            let body = format!("{},\"manifest\":{}}}\n", head(state, name), manifest_json(r, digest, found));
            reply::text(200, JSON, body)
        }
        None => reply::not_found(&NotFound::Manifest { name, digest }),
    })
}

fn in_repository(state: &Region<'_>, name: &str, answer: impl FnOnce(&Repository) -> Reply) -> Reply {
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
         \"changeableAttributes\":{{{}}}}}",
        quoted(name),
        tag.digest,
        attributes(tag.attributes)
    )
}

fn manifest_json(repository: &Repository, digest: &str, manifest: &Manifest) -> String {
    let created = clock::rfc3339(manifest.created);
    let tags = repository.tags.iter().filter(|(_, tag)| tag.digest == digest);
    let tags: Vec<String> = tags.map(|(name, _)| quoted(name)).collect();
    format!(
        "{{\"digest\":\"{digest}\",\"imageSize\":{},\"createdTime\":\"{created}\",\"lastUpdateTime\":\"{created}\",\
         \"architecture\":\"amd64\",\"os\":\"linux\",\"mediaType\":{},\"tags\":[{}],\
         \"changeableAttributes\":{{{},\"quarantineState\":\"Passed\"}}{}}}",
        manifest.image_size(),
        quoted(&manifest.media_type),
        tags.join(","),
        attributes(manifest.attributes),
        references(manifest)
    )
}

fn attributes(has: Attributes) -> String {
    format!(
        "\"deleteEnabled\":{},\"writeEnabled\":{},\"readEnabled\":{},\"listEnabled\":{}",
        has.delete, has.write, has.read, has.list
    )
}

/// The children of an index, with their platforms.
fn references(manifest: &Manifest) -> String {
    let Some(children) = manifest.json["manifests"].as_array() else { return String::new() };
    let child = |child: &Value| {
        let platform = &child["platform"];
        format!(
            "{{\"digest\":{},\"architecture\":{},\"os\":{}}}",
            child["digest"], platform["architecture"], platform["os"]
        )
    };
    format!(",\"references\":[{}]", children.iter().map(child).collect::<Vec<_>>().join(","))
}
