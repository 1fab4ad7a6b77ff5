//! Lists: catalogue, tags, referrers. In lexical order, in pages joined by a relative `Link` that echoes an empty
//! `orderby`.

use percent_encoding::utf8_percent_encode;

use super::manifest::OCI_INDEX;
use super::reply::{self, JSON, NotFound, Reply, quoted};
use super::route::value;
use super::signature::QUERY;
use super::{Region, State};

type Query = [(String, String)];

/// One page of something, and where the next one is.
pub(super) struct Page<T> {
    pub(super) entries: Vec<T>,
    link: Option<String>,
}

impl<T> Page<T> {
    /// Cuts the page that `last` and `n` ask for out of all entries; `key` is what `last` speaks of, `path` what `Link`
    /// names.
    pub(super) fn cut(state: &State, all: Vec<T>, key: impl Fn(&T) -> &str, path: &str, query: &Query) -> Self {
        let (page, cap) = state.knobs.read(|k| (k.list_page, k.list_cap));
        let n = value(query, "n").and_then(|n| n.parse::<usize>().ok()).unwrap_or(page).min(cap);
        let start = match value(query, "last").filter(|last| !last.is_empty()) {
            // A list ordered by time continues after its own last entry, a lexical one after any text.
            Some(last) => all
                .iter()
                .position(|entry| key(entry) == last)
                .map_or_else(|| all.iter().take_while(|entry| key(entry) <= last).count(), |at| at + 1),
            None => 0,
        };
        let more = n > 0 && all.len() > start + n;
        let entries: Vec<T> = all.into_iter().skip(start).take(n).collect();
        let last = entries.last().filter(|_| more).map(key);
        let link = last.map(|last| {
            let last = utf8_percent_encode(last, QUERY);
            let order = value(query, "orderby").unwrap_or_default();
            format!("<{path}?last={last}&n={n}&orderby={order}>; rel=\"next\"")
        });
        Self { entries, link }
    }

    /// The page as an answer with this body.
    pub(super) fn reply(&self, body: String) -> Reply {
        let mut answer = reply::text(200, JSON, body + "\n");
        if let Some(link) = &self.link {
            reply::set(&mut answer, "link", link);
        }
        answer
    }
}

/// `/v2/_catalog` and `/acr/v1/_catalog`.
pub(super) fn catalog(state: &Region<'_>, path: &str, query: &Query) -> Reply {
    let page = Page::cut(state, state.content.names(), |name| name, path, query);
    page.reply(format!("{{\"repositories\":{}}}", strings(&page.entries)))
}

/// `/v2/NAME/tags/list`.
pub(super) fn tags(state: &Region<'_>, name: &str, query: &Query) -> Reply {
    let Some(tags) = state.content.with(name, |r| r.listed_tags().map(|(name, _)| name.clone()).collect::<Vec<_>>())
    else {
        return reply::not_found(&NotFound::Repository(name));
    };
    let page = Page::cut(state, tags, |tag| tag, &format!("/v2/{name}/tags/list"), query);
    page.reply(format!("{{\"name\":{},\"tags\":{}}}", quoted(name), strings(&page.entries)))
}

/// `/v2/NAME/referrers/DIGEST`: an index, empty where nothing refers; not there at all when the knob is off.
pub(super) fn referrers(state: &Region<'_>, name: &str, digest: &str, query: &Query) -> Reply {
    let knobs = state.knobs.get();
    if !knobs.referrers {
        return reply::route_not_found();
    }
    let mut all = state.content.with(name, |r| r.referrers(digest)).unwrap_or_default();
    let filter = value(query, "artifactType").filter(|_| knobs.referrers_filter);
    if let Some(artifact_type) = filter {
        all.retain(|(_, descriptor)| descriptor["artifactType"].as_str() == Some(artifact_type));
    }
    let start =
        value(query, "last").map_or(0, |last| all.iter().take_while(|(digest, _)| digest.as_str() <= last).count());
    let n = value(query, "n").and_then(|n| n.parse().ok()).or(knobs.referrers_page).unwrap_or(usize::MAX);
    let more = n > 0 && all.len().saturating_sub(start) > n;
    let entries: Vec<_> = all.into_iter().skip(start).take(n).collect();
    let manifests: Vec<String> = entries.iter().map(|(_, descriptor)| descriptor.to_string()).collect();
    let body = format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{}]}}", manifests.join(","));
    let mut answer = reply::text(200, OCI_INDEX, body);
    if filter.is_some() {
        reply::set(&mut answer, "oci-filters-applied", "artifactType");
    }
    if let Some((last, _)) = entries.last().filter(|_| more) {
        let kept = value(query, "artifactType")
            .map(|t| format!("artifactType={}&", utf8_percent_encode(t, QUERY)))
            .unwrap_or_default();
        let last = utf8_percent_encode(last, QUERY);
        let link = format!("</v2/{name}/referrers/{digest}?{kept}last={last}&n={n}>; rel=\"next\"");
        reply::set(&mut answer, "link", &link);
    }
    answer
}

fn strings(entries: &[String]) -> String {
    format!("[{}]", entries.iter().map(|e| quoted(e)).collect::<Vec<_>>().join(","))
}
