//! Everything that is YAML or JSON: Kubernetes, Compose, charts, and the lists of other tools, known by what stands in them.
//!
//! A walk takes what stands at a key that names an image. It goes no deeper than [`DEEPEST`].

use super::{Reading, looks};
use serde::Deserialize as _;
use serde_yaml_ng::{Mapping, Value};

/// No list that people write is deeper.
const DEEPEST: usize = 64;
/// YAML's own reader builds what aliases name as often as they are named; a list needs none.
const LONGEST: usize = super::LONGEST;

type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// `None`: the text is not YAML, or nothing but a text.
pub(super) fn read(text: &str, variable: Variable<'_>) -> Option<Reading> {
    if text.len() > LONGEST || !may_be_yaml(text) {
        return None;
    }
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        documents.push(Value::deserialize(document).ok()?);
    }
    let documents: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    documents.iter().any(|document| document.is_mapping() || document.is_sequence()).then(|| of(&documents, variable))
}

/// JSON, also with comments and commas too many, as devcontainer.json has them.
pub(super) fn read_json(text: &str, variable: Variable<'_>) -> Option<Reading> {
    let value: serde_json::Value =
        serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_comments(text))).ok()?;
    Some(of(&[serde_yaml_ng::to_value(value).ok()?], variable))
}

/// A mapping or a list stands on some line of its own; a plain list of references with ports would be YAML, too.
fn may_be_yaml(text: &str) -> bool {
    // Nested so deep that no person wrote it, it is not read at all.
    let depth = text.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'[' | b'{' => *depth += 1,
            b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    let is_deep = depth.max().unwrap_or_default() > 4 * DEEPEST
        || text.lines().any(|line| line.trim_start().starts_with("- - - - -"));
    let has_key =
        |line: &str| line.trim_end().ends_with(':') || line.contains(": ") || line.trim_start().starts_with("- ");
    !is_deep && text.lines().any(has_key)
}

fn of(documents: &[Value], variable: Variable<'_>) -> Reading {
    let kind = documents.iter().find_map(kind).unwrap_or("YAML");
    let mut reading = Reading::of(kind);
    for document in documents {
        match kind {
            "skopeo sync list" => skopeo(document, &mut reading),
            "Helm chart" => chart(document, &mut reading),
            "Hauler manifest" | "imageset configuration" => {
                walk(document, &["image", "name"], variable, &mut reading, 0);
            }
            "Zarf package" => zarf(document, &mut reading),
            "larder list" => walk(document, &["reference"], variable, &mut reading, 0),
            "devcontainer.json" => {
                walk(document, &["image"], variable, &mut reading, 0);
                keys(document.get("features"), &mut reading);
            }
            _ => walk(document, &["image"], variable, &mut reading, 0),
        }
    }
    reading
}

fn kind(document: &Value) -> Option<&'static str> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let has = |key: &str| document.get(key).is_some();
    Some(match (version, kind) {
        (version, _) if version.starts_with("content.hauler.cattle.io/") => "Hauler manifest",
        (version, _) if version.starts_with("imgpkg.carvel.dev/") => "imgpkg lock",
        (version, _) if version.starts_with("mirror.openshift.io/") => "imageset configuration",
        (_, "ZarfPackageConfig") => "Zarf package",
        ("v1" | "v2", "") if has("name") && has("version") => "Helm chart",
        ("", "") if has("dependencies") && has("digest") => "Helm chart",
        (version, kind) if !version.is_empty() && !kind.is_empty() => "Kubernetes manifests",
        _ if has("services") => "Compose file",
        _ if has("features") || has("customizations") || has("image") => "devcontainer.json",
        _ if document.get(0).and_then(|first| first.get("reference")).is_some() => "larder list",
        _ if is_skopeo(document) => "skopeo sync list",
        _ => return None,
    })
}

fn is_skopeo(document: &Value) -> bool {
    let Value::Mapping(hosts) = document else { return false };
    let known = ["images", "images-by-tag-regex", "images-by-semver"];
    !hosts.is_empty() && hosts.values().all(|host| known.iter().any(|key| host.get(key).is_some()))
}

/// Takes what stands at one of `names`, at any depth.
fn walk(value: &Value, names: &[&str], variable: Variable<'_>, reading: &mut Reading, depth: usize) {
    if depth > DEEPEST {
        return;
    }
    match value {
        Value::Mapping(mapping) => {
            chart_of(mapping, reading);
            for (key, below) in mapping {
                let key = key.as_str().unwrap_or_default();
                match below {
                    Value::String(text) if names.contains(&key) => reading.take(&expand(text, variable)),
                    Value::String(text) if key == "dockerfile" => {
                        reading.left.insert(format!("{text}: a Dockerfile; give it to larder warm, too"));
                    }
                    Value::String(text) => note(text, reading),
                    Value::Mapping(image) if key == "image" => {
                        // A volume of an image, and the habit of charts' values.
                        match image.get("reference").and_then(Value::as_str) {
                            Some(reference) => reading.take(&expand(reference, variable)),
                            None => values(image, reading),
                        }
                    }
                    below => walk(below, names, variable, reading, depth + 1),
                }
            }
        }
        Value::Sequence(list) => list.iter().for_each(|below| match below {
            Value::String(text) => note(text, reading),
            below => walk(below, names, variable, reading, depth + 1),
        }),
        _ => {}
    }
}

/// `{registry, repository, tag}`
fn values(image: &Mapping, reading: &mut Reading) {
    let text = |key: &str| image.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(repository) = text("repository") {
        let registry = text("registry").map(|registry| format!("{registry}/")).unwrap_or_default();
        let version = match (text("digest"), text("tag")) {
            (Some(digest), _) => format!("@{digest}"),
            (None, Some(tag)) => format!(":{tag}"),
            (None, None) => String::new(),
        };
        reading.take(&format!("{registry}{repository}{version}"));
    }
}

/// What looks like an image and stands elsewhere: an argument, an annotation.
fn note(text: &str, reading: &mut Reading) {
    if looks::is_full(text) && looks::reference(text).is_some_and(|reference| !reading.references.contains(&reference))
    {
        reading.left.insert(format!("{text}: it does not stand at a key that names an image"));
    }
}

/// Flux's and Argo's charts: `url: oci://…` with a tag or a version beside it.
fn chart_of(mapping: &Mapping, reading: &mut Reading) {
    let text = |key: &str| mapping.get(key).and_then(Value::as_str);
    let url = text("url").or_else(|| text("repoURL")).filter(|url| url.starts_with("oci://"));
    let tag = mapping.get("ref").and_then(|it| it.get("tag")).and_then(Value::as_str);
    if let (Some(url), Some(version)) = (url, tag.or_else(|| text("version")).or_else(|| text("targetRevision"))) {
        reading.take(&format!("{}:{}", url.trim_end_matches('/'), version.replace('+', "_")));
    }
}

fn chart(document: &Value, reading: &mut Reading) {
    for name in ["artifacthub.io/images", "helm.sh/images", "images"] {
        let text = document.get("annotations").and_then(|annotations| annotations.get(name)).and_then(Value::as_str);
        let list: Option<Value> = text.and_then(|text| serde_yaml_ng::from_str(text).ok());
        for entry in list.iter().filter_map(Value::as_sequence).flatten() {
            let image = entry.as_str().or_else(|| entry.get("image").and_then(Value::as_str));
            if let Some(image) = image {
                reading.take(image);
            }
        }
    }
    for chart in document.get("dependencies").and_then(Value::as_sequence).into_iter().flatten() {
        let text = |key: &str| chart.get(key).and_then(Value::as_str).unwrap_or_default();
        let (url, name, version) = (text("repository"), text("name"), text("version"));
        if url.starts_with("oci://") {
            let full = format!("{}/{name}:{version}", url.trim_end_matches('/'));
            match looks::reference(&full).filter(|_| version.bytes().all(|byte| !b"*^~<>=x ".contains(&byte))) {
                Some(_) => reading.take(&full),
                None => {
                    reading.left.insert(format!("{full}: a range of versions; Chart.lock has the one"));
                }
            }
        }
    }
}

fn zarf(document: &Value, reading: &mut Reading) {
    for component in document.get("components").and_then(Value::as_sequence).into_iter().flatten() {
        for image in component.get("images").and_then(Value::as_sequence).into_iter().flatten() {
            reading.take(image.as_str().unwrap_or_default());
        }
        for chart in component.get("charts").and_then(Value::as_sequence).into_iter().flatten() {
            if let Value::Mapping(chart) = chart {
                chart_of(chart, reading);
            }
        }
    }
}

fn skopeo(document: &Value, reading: &mut Reading) {
    let Value::Mapping(hosts) = document else { return };
    for (host, what) in hosts {
        let host = host.as_str().unwrap_or_default();
        for (repository, tags) in what.get("images").and_then(Value::as_mapping).into_iter().flatten() {
            let repository = repository.as_str().unwrap_or_default();
            let tags = tags.as_sequence().map(Vec::as_slice).unwrap_or_default();
            if tags.is_empty() {
                reading.left.insert(format!("{host}/{repository}: all tags; name them"));
            }
            for tag in tags.iter().filter_map(Value::as_str) {
                let mark = if tag.contains(':') { '@' } else { ':' };
                reading.take(&format!("{host}/{repository}{mark}{tag}"));
            }
        }
        for pattern in ["images-by-tag-regex", "images-by-semver"] {
            for (repository, _) in what.get(pattern).and_then(Value::as_mapping).into_iter().flatten() {
                let repository = repository.as_str().unwrap_or_default();
                reading.left.insert(format!("{host}/{repository}: {pattern}; name the tags"));
            }
        }
    }
}

fn keys(value: Option<&Value>, reading: &mut Reading) {
    for key in value.and_then(Value::as_mapping).into_iter().flat_map(Mapping::keys).filter_map(Value::as_str) {
        if !key.starts_with('.') {
            reading.take(key);
        }
    }
}

/// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`. What has no value stays.
pub(super) fn expand(text: &str, variable: Variable<'_>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, default, used) = if let Some(inner) = after.strip_prefix('{') {
            let Some(end) = inner.find('}') else { break };
            let (name, default) = match inner[..end].split_once('-') {
                Some((name, default)) => (name.trim_end_matches(':'), Some(default)),
                None => (&inner[..end], None),
            };
            (name, default, end + 2)
        } else {
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            (&after[..end], None, end)
        };
        match variable(name).or_else(|| default.map(str::to_owned)) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[at..at + 1 + used]),
        }
        rest = &after[used..];
    }
    expanded.push_str(rest);
    expanded
}

/// JSON with `//` and `/* */` comments and commas before a closing bracket, without them.
pub(super) fn without_comments(text: &str) -> String {
    let (mut out, mut chars, mut in_string) = (String::with_capacity(text.len()), text.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                out.push(c);
                out.extend(chars.next());
            }
            '"' => {
                in_string = !in_string;
                out.push(c);
            }
            '/' if !in_string && chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            '/' if !in_string && chars.peek() == Some(&'*') => {
                let mut last = ' ';
                for c in chars.by_ref().skip(1) {
                    if last == '*' && c == '/' {
                        break;
                    }
                    last = c;
                }
            }
            '}' | ']' if !in_string => {
                let end = out.trim_end().len();
                if out[..end].ends_with(',') {
                    out.truncate(end - 1);
                }
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}
