//! What a reference looks like, as people write it.

use crate::oci::{Digest, Name, Tag};

/// The reference with its registry and a tag: `nginx` is `docker.io/library/nginx:latest`. `None` if it is none.
pub(super) fn reference(text: &str) -> Option<String> {
    let text = text.strip_prefix("docker://").or_else(|| text.strip_prefix("oci://")).unwrap_or(text);
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse::<Digest>().ok()?)),
        None => (text, None),
    };
    let (name, tag) = match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((name, tag)) => (name, Some(tag.parse::<Tag>().ok()?)),
        None => (name, None),
    };
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let path: Name = path.parse().ok().filter(|_| is_host)?;
    Some(match (tag, digest) {
        (_, Some(digest)) => format!("{host}/{path}@{digest}"),
        (Some(tag), None) => format!("{host}/{path}:{tag}"),
        (None, None) => format!("{host}/{path}:latest"),
    })
}

/// Whether a text names a registry, and a tag or a digest: in prose it is an image then.
pub(super) fn is_full(text: &str) -> bool {
    let has_host = text.split_once('/').is_some_and(|(host, _)| host.contains('.') || host.starts_with("localhost"));
    let has_version = text.rsplit('/').next().is_some_and(|last| last.contains(':')) || text.contains("@sha256:");
    has_host && has_version && reference(text).is_some()
}

/// Whether a Bicep file names modules of a registry.
pub(super) fn has_bicep(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        (line.starts_with("module ") || line.starts_with("using ") || line.starts_with("import "))
            && line.contains("'br")
    })
}
