//! What a bundle's entries are called here: names of several tools, with the first that is a whole reference taken.

use crate::bundle::{IMAGE_NAME, Named, REF_NAME, REPOSITORY};

/// Annotations with a name, the most telling first.
const NAMES: [&str; 4] = ["hauler.dev/original-ref", IMAGE_NAME, REF_NAME, "org.opencontainers.image.base.name"];

/// A repository, and the tag or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) repository: String,
    pub(super) tag: Option<String>,
}

/// What an entry is called here; `None` if nothing says so and `place` does not either.
pub(super) fn name(entry: &Named, place: Option<&str>) -> Option<Name> {
    let annotation = |key: &str| entry.annotations.as_ref()?.get(key).map(String::as_str);
    if let Some(repository) = annotation(REPOSITORY) {
        return Some(Name { repository: moved(repository, place), tag: None });
    }
    let texts: Vec<&str> = NAMES.iter().filter_map(|key| annotation(key)).collect();
    if let Some(name) = texts.iter().find_map(|text| whole(text)) {
        return Some(Name { repository: moved(&name.repository, place), tag: name.tag });
    }
    // A bare tag, or nothing at all: only with a repository to put it into.
    let place = place.filter(|place| place.contains('/'))?;
    let tag = texts.first().filter(|text| is_tag(text)).map(|text| (*text).to_owned());
    Some(Name { repository: place.to_owned(), tag })
}

/// Reads `host/repository[:tag][@digest]`; `None` without a host.
pub(super) fn whole(text: &str) -> Option<Name> {
    let text = text.strip_prefix("docker://").or_else(|| text.strip_prefix("oci://")).unwrap_or(text);
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (name, tag) = match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((name, tag)) => (name, Some(tag.to_owned())),
        None => (name, None),
    };
    let (host, rest) = name.split_once('/')?;
    if !(host.contains(['.', ':']) || host == "localhost") || rest.is_empty() {
        return None;
    }
    let hub = matches!(host, "index.docker.io" | "registry-1.docker.io" | "docker.io");
    let repository = match (hub, rest.contains('/')) {
        (true, true) => format!("docker.io/{rest}"),
        (true, false) => format!("docker.io/library/{rest}"),
        (false, _) => name.to_owned(),
    };
    (tag.is_some() || digest.is_some()).then_some(Name { repository, tag })
}

/// `--as UPSTREAM` keeps the repository, `--as UPSTREAM/REPO` replaces it.
pub(super) fn moved(repository: &str, place: Option<&str>) -> String {
    match (place, repository.split_once('/')) {
        (None, _) => repository.to_owned(),
        (Some(place), _) if place.contains('/') => place.to_owned(),
        (Some(place), Some((_, name))) => format!("{place}/{name}"),
        (Some(place), None) => format!("{place}/{repository}"),
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an entry with these annotations is called.
    fn called(annotations: &[(&str, &str)], place: Option<&str>) -> Option<Name> {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let entry = serde_json::from_value(serde_json::json!({ "digest": "", "annotations": annotations }));
        super::name(&entry.unwrap(), place)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as what it is compared with")]
    fn name(repository: &str, tag: Option<&str>) -> Option<Name> {
        Some(Name { repository: repository.to_owned(), tag: tag.map(str::to_owned) })
    }

    #[test]
    fn the_most_telling_name_counts() {
        let hauler = [(REF_NAME, "library/nginx:1"), (IMAGE_NAME, "index.docker.io/library/nginx:1")];
        assert_eq!(called(&hauler, None), name("docker.io/library/nginx", Some("1")));
        let hauler = [("hauler.dev/original-ref", "docker.io/nginx:2"), (IMAGE_NAME, "r.io/x:1")];
        assert_eq!(called(&hauler, None), name("docker.io/library/nginx", Some("2")));
        let full = [(REF_NAME, "r.io:5000/a/b:v1")];
        assert_eq!(called(&full, None), name("r.io:5000/a/b", Some("v1")));
        assert_eq!(called(&full, Some("far.io")), name("far.io/a/b", Some("v1")));
        assert_eq!(called(&full, Some("far.io/c")), name("far.io/c", Some("v1")));
    }

    #[test]
    fn a_bare_tag_needs_a_repository() {
        let bare = [(REF_NAME, "v1")];
        assert_eq!(called(&bare, None), None);
        assert_eq!(called(&bare, Some("far.io")), None);
        assert_eq!(called(&bare, Some("far.io/a")), name("far.io/a", Some("v1")));
        assert_eq!(called(&[], Some("far.io/a")), name("far.io/a", None));
        assert_eq!(called(&[(REPOSITORY, "r.io/a")], None), name("r.io/a", None));
    }
}
