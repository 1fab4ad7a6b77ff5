//! Lists as the client asked for them: cut at `n` and `last`, filtered, with a relative link to the next page.

use super::error::Problem;
use super::request::{Naming, parameter};
use crate::cache::Entries;
use crate::oci::{Code, MediaType, Name};
use crate::store::ListKey;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Names on a page when the client sets no number: what oras-go's limit of 4 MiB per page bears, tags of 128 characters included.
const NAMES: usize = 10_000;
/// Bytes that a name takes on a page at most, and those beside its own text: the part that names its upstream, and its marks.
const LONGEST_NAME: usize = 512;
const BESIDE_A_NAME: usize = 64;
/// Bytes of descriptors on a page, under the same limit.
const DESCRIPTORS: usize = 2 << 20;

#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Page {
    pub(in crate::server) body: Vec<u8>,
    /// The `Link` to the next page.
    pub(in crate::server) link: Option<String>,
    /// Whether `artifactType` has been applied.
    pub(in crate::server) filtered: bool,
}

/// What the client's query says.
#[derive(Debug)]
pub(in crate::server) struct Cut<'a> {
    query: &'a str,
    count: Option<usize>,
    last: Option<String>,
}

impl<'a> Cut<'a> {
    pub(in crate::server) fn parse(query: &'a str) -> Result<Self, Problem> {
        let count = match parameter(query, "n").filter(|n| !n.is_empty()) {
            None => None,
            Some(n) => Some(n.parse().map_err(|_| {
                Problem::new(StatusCode::BAD_REQUEST, Code::Unsupported, &format!("n={n} is not a number of entries"))
            })?),
        };
        let last = parameter(query, "last").filter(|last| !last.is_empty()).map(std::borrow::Cow::into_owned);
        Ok(Self { query, count, last })
    }

    /// The same query, for a list that is cut already.
    pub(in crate::server) fn uncut(&self) -> Self {
        Self { query: self.query, count: None, last: None }
    }

    /// Bytes that a page of these entries has at most.
    pub(in crate::server) fn most_bytes(&self, entries: &Entries) -> usize {
        match entries {
            Entries::Names(names) => self.most_bytes_of(names),
            Entries::Descriptors(_) | Entries::Absent { .. } => entries.bytes(),
        }
    }

    /// The same of these names.
    pub(in crate::server) fn most_bytes_of(&self, names: &[String]) -> usize {
        let all = names.iter().map(|name| name.len() + BESIDE_A_NAME).sum();
        self.count.unwrap_or(NAMES).saturating_mul(LONGEST_NAME).min(all)
    }

    /// The query as upstream understands it: without what names the upstream here.
    pub(in crate::server) fn for_upstream(&self, naming: &Naming) -> String {
        let last = self.last.as_deref().map(|last| unprefixed(last, naming).to_owned());
        let kind = parameter(self.query, "artifactType").map(std::borrow::Cow::into_owned);
        let count = self.count.map(|count| count.to_string());
        let parts = [("n", count), ("last", last), ("artifactType", kind)];
        let parts = parts.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?))));
        parts.collect::<Vec<_>>().join("&")
    }

    /// The names behind `last`, as many as are wanted, and whether more follow.
    ///
    /// Upstreams sort lexically or in ASCII order, so the place of `last` is looked up; one that has gone in the meantime is
    /// placed by comparison.
    fn of<'n>(&self, names: &'n [String]) -> (&'n [String], bool) {
        let start = match &self.last {
            None => 0,
            Some(last) => match names.iter().position(|name| name == last) {
                Some(place) => place + 1,
                None => names.iter().position(|name| name > last).unwrap_or(names.len()),
            },
        };
        let rest = &names[start..];
        let count = self.count.unwrap_or(NAMES).min(rest.len());
        (&rest[..count], count < rest.len() && count > 0)
    }

    /// `Link` to the page behind `last`, in the client's way of naming.
    fn link(&self, path: &str, last: &str) -> String {
        let count = self.count.map_or_else(String::new, |count| format!("&n={count}"));
        let kept = ["artifactType", "ns"].map(|name| {
            parameter(self.query, name).map_or_else(String::new, |value| format!("&{name}={}", encode(&value)))
        });
        format!("<{path}?last={}{count}{}>; rel=\"next\"", encode(last), kept.concat())
    }
}

/// `Link` to the page that `query` gets from upstream, in the client's way of naming.
pub(in crate::server) fn passed_link(path: &str, query: &str, naming: &Naming) -> String {
    let ns = naming.ns.as_deref().map_or_else(String::new, |ns| format!("&ns={}", encode(ns)));
    format!("<{path}?{query}{ns}>; rel=\"next\"")
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A client continues after a repository's name, as it saw it or as upstream has it.
fn unprefixed<'a>(last: &'a str, naming: &Naming) -> &'a str {
    let prefix = naming.component.as_deref().and_then(|component| last.strip_prefix(component)?.strip_prefix('/'));
    prefix.unwrap_or(last)
}

#[derive(Serialize)]
struct Tags<'a> {
    name: String,
    tags: &'a [String],
}

#[derive(Serialize)]
struct Catalogue {
    repositories: Vec<String>,
}

/// The page of a list that the client asked for; `path` is where the client found it.
pub(in crate::server) fn page(cut: &Cut<'_>, key: &ListKey, naming: &Naming, path: &str, entries: &Entries) -> Page {
    match (key, entries) {
        (ListKey::Tags(repository), Entries::Names(names)) => tags(cut, naming, &repository.name, names),
        (ListKey::Catalogue(_), Entries::Names(names)) => catalogue(cut, naming, names),
        (_, Entries::Descriptors(descriptors)) => referrers(cut, path, descriptors),
        (_, Entries::Absent { .. }) | (ListKey::Referrers(..), Entries::Names(_)) => Page::default(),
    }
}

/// `tags/list`
fn tags(cut: &Cut<'_>, naming: &Naming, name: &Name, tags: &[String]) -> Page {
    let (page, more) = cut.of(tags);
    let path = naming.path(&format!("{name}/tags/list"));
    let link = page.last().filter(|_| more).map(|last| cut.link(&path, last));
    Page { body: json(&Tags { name: naming.name(name), tags: page }), link, filtered: false }
}

/// `_catalog`, each repository named as the client would ask for it.
pub(in crate::server) fn catalogue(cut: &Cut<'_>, naming: &Naming, repositories: &[String]) -> Page {
    let prefix = naming.component.as_ref().map_or_else(String::new, |component| format!("{component}/"));
    let last = cut.last.as_deref().map(|last| unprefixed(last, naming).to_owned());
    let (page, more) = Cut { last, ..*cut }.of(repositories);
    let named: Vec<String> = page.iter().map(|name| format!("{prefix}{name}")).collect();
    let link = named.last().filter(|_| more).map(|last| cut.link(&naming.path("_catalog"), last));
    Page { body: json(&Catalogue { repositories: named }), link, filtered: false }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u8,
    media_type: &'static str,
    manifests: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Referrer {
    #[serde(default)]
    digest: String,
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

/// `referrers`, filtered by `artifactType` if every descriptor says its own: ACR leaves it out of some, and only the client, who
/// can fetch the manifest, can judge those.
fn referrers(cut: &Cut<'_>, path: &str, descriptors: &[Box<RawValue>]) -> Page {
    let wanted = parameter(cut.query, "artifactType").filter(|wanted| !wanted.is_empty());
    let entries: Vec<(&RawValue, Referrer)> =
        descriptors.iter().filter_map(|raw| Some((&**raw, serde_json::from_str(raw.get()).ok()?))).collect();
    let filtered = wanted.is_some() && entries.iter().all(|(_, referrer)| referrer.artifact_type.is_some());
    let keep = |referrer: &Referrer| !filtered || referrer.artifact_type.as_deref() == wanted.as_deref();
    let start = cut.last.as_ref().and_then(|last| entries.iter().position(|(_, referrer)| referrer.digest == *last));
    let mut rest =
        entries.iter().skip(start.map_or(0, |place| place + 1)).filter(|(_, referrer)| keep(referrer)).peekable();
    let (mut manifests, mut bytes, mut link) = (Vec::new(), 0, None);
    while let Some((raw, referrer)) = rest.next() {
        manifests.push(*raw);
        bytes += raw.get().len();
        if rest.peek().is_some() && (bytes >= DESCRIPTORS || cut.count.is_some_and(|n| n > 0 && manifests.len() >= n)) {
            link = Some(cut.link(path, &referrer.digest));
            break;
        }
    }
    let index = Index { schema_version: 2, media_type: MediaType::OCI_INDEX, manifests };
    Page { body: json(&index), link, filtered }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn page(query: &str, all: &[&str]) -> (String, Option<String>) {
        let cut = Cut::parse(query).unwrap();
        let naming = Naming { component: Some("acr".into()), ..Naming::default() };
        let page = tags(&cut, &naming, &"samples/config".parse().unwrap(), &names(all));
        (String::from_utf8(page.body).unwrap(), page.link)
    }

    #[test]
    fn tags_are_cut_and_linked_relatively() {
        let all = ["v1", "v2", "v3"];
        assert_eq!(page("", &all), (r#"{"name":"acr/samples/config","tags":["v1","v2","v3"]}"#.into(), None));
        let (body, link) = page("n=2&ns=a.b", &all);
        assert_eq!(body, r#"{"name":"acr/samples/config","tags":["v1","v2"]}"#);
        assert_eq!(link.unwrap(), "</v2/acr/samples/config/tags/list?last=v2&n=2&ns=a%2Eb>; rel=\"next\"");
        let (body, link) = page("n=2&last=v2", &all);
        assert!(body.contains(r#"["v3"]"#) && link.is_none());
        let (body, _) = page("last=v1a", &all);
        assert!(body.contains(r#"["v2","v3"]"#), "a last that is gone is placed by comparison");
        assert_eq!(page("n=0", &all), (r#"{"name":"acr/samples/config","tags":[]}"#.into(), None));
        assert!(Cut::parse("n=many").is_err());
    }

    #[test]
    fn upstream_is_asked_in_its_own_words() {
        let naming = Naming { component: Some("acr".into()), ns: Some("a.b".into()), ..Naming::default() };
        let of = |query: &str| Cut::parse(query).unwrap().for_upstream(&naming);
        assert_eq!(of("ns=a.b"), "");
        assert_eq!(of("last=acr%2Fa%2Fb&ns=a.b&n=5"), "n=5&last=a%2Fb");
        assert_eq!(of("last=c&artifactType=x/y&orderby="), "last=c&artifactType=x%2Fy");
        let link = passed_link("/v2/acr/_catalog", "last=c&n=5&orderby=", &naming);
        assert_eq!(link, "</v2/acr/_catalog?last=c&n=5&orderby=&ns=a%2Eb>; rel=\"next\"");
    }

    #[test]
    fn repositories_are_named_as_the_client_would_ask_for_them_and_it_may_go_on_after_such_a_name() {
        let naming = Naming { component: Some("acr".into()), ..Naming::default() };
        let all = names(&["a/b", "c", "d"]);
        let page = |query: &str| {
            let page = catalogue(&Cut::parse(query).unwrap(), &naming, &all);
            (String::from_utf8(page.body).unwrap(), page.link)
        };
        let (body, link) = page("n=1");
        assert_eq!(body, r#"{"repositories":["acr/a/b"]}"#);
        assert_eq!(link.unwrap(), "</v2/acr/_catalog?last=acr%2Fa%2Fb&n=1>; rel=\"next\"");
        for last in ["acr%2Fa%2Fb", "acr/a/b", "a/b"] {
            assert_eq!(page(&format!("last={last}")).0, r#"{"repositories":["acr/c","acr/d"]}"#, "{last}");
        }
    }

    #[test]
    fn referrers_are_filtered_only_when_all_say_their_type() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let all = [
            raw(r#"{"digest":"sha256:a","artifactType":"sbom","x": 1}"#),
            raw(r#"{"digest":"sha256:b","artifactType":"signature"}"#),
        ];
        let cut = Cut::parse("artifactType=sbom").unwrap();
        let page = referrers(&cut, "/v2/a/referrers/sha256:c", &all);
        assert!(page.filtered);
        let body = String::from_utf8(page.body).unwrap();
        assert!(body.contains(r#"{"digest":"sha256:a","artifactType":"sbom","x": 1}"#), "byte for byte: {body}");
        assert!(!body.contains("signature"));
        let silent = [raw(r#"{"digest":"sha256:a"}"#), raw(r#"{"digest":"sha256:b","artifactType":"signature"}"#)];
        let page = referrers(&cut, "/p", &silent);
        assert!(!page.filtered && String::from_utf8(page.body).unwrap().contains("signature"));
        let cut = Cut::parse("n=1").unwrap();
        let page = referrers(&cut, "/p", &silent);
        assert_eq!(page.link.unwrap(), "</p?last=sha256%3Aa&n=1>; rel=\"next\"");
        let cut = Cut::parse("n=1&last=sha256%3Aa").unwrap();
        let page = referrers(&cut, "/p", &silent);
        assert!(page.link.is_none() && String::from_utf8(page.body).unwrap().contains("sha256:b"));
    }
}
