//! Fuzzing targets of this room; see `crate::fuzzing`.

#![allow(clippy::missing_panics_doc, reason = "that is how a target says that a property does not hold")]

use super::request::{AcrResource, Resolved};
use super::request::{Routes, Target, ranges, without_port};
use crate::oci::Registry;
use http::HeaderMap;

fn routes() -> Routes {
    let mut routes = Routes::default();
    routes.add(&Registry::new("myacr.azurecr.io"), ["acr"], true);
    routes.add(&Registry::new("other.azurecr.io"), ["other"], false);
    routes.add(&Registry::new("registry.local:5000"), ["local"], false);
    routes
}

/// A request: path, query, `Host` and `Range`, a line each.
pub fn request(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n').map(|line| line.trim_end_matches('\r'));
    let path = lines.next().unwrap_or_default();
    let query = lines.next().filter(|line| !line.is_empty());
    let host = lines.next().filter(|line| !line.is_empty());
    if let Some(value) = lines.next().and_then(|line| http::HeaderValue::from_str(line).ok()) {
        let mut headers = HeaderMap::new();
        headers.append(http::header::RANGE, value);
        let _ = ranges(&headers);
    }
    if let Some(host) = host {
        assert!(host.starts_with(without_port(host)));
    }
    let routes = routes();
    let Ok(resolved) = routes.resolve(path, query, host) else { return };
    if let Target::Uploads(repository) = &resolved.target {
        // The session that is begun there, as its client is told.
        let session = "AZ09-_az";
        let location = resolved.naming.location(&format!("{}/blobs/uploads/{session}", repository.name));
        let (path, query) = location.split_once('?').map_or((&*location, None), |(path, query)| (path, Some(query)));
        let upload = routes.resolve(path, query, host).map(|resolved| resolved.target);
        assert_eq!(upload, Ok(Target::Upload(repository.clone(), session.to_owned())), "{location} {host:?}");
    }
    // What larder's own answer would call it leads to the same thing again.
    let Some(path) = named(&resolved) else { return };
    let ns = resolved.naming.ns.as_ref().map(|ns| format!("n=1&ns={ns}"));
    let again = routes.resolve(&path, ns.as_deref(), host);
    assert_eq!(again.as_ref().map(|again| &again.target), Ok(&resolved.target), "{path} {ns:?} {host:?}");
}

/// The path to it, as the client that named it so would be told.
fn named(resolved: &Resolved) -> Option<String> {
    let naming = &resolved.naming;
    Some(match &resolved.target {
        Target::Catalogue(_) | Target::Catalogues => naming.path("_catalog"),
        Target::Manifest(repository, reference) => naming.path(&format!("{}/manifests/{reference}", repository.name)),
        Target::Blob(repository, digest) => naming.path(&format!("{}/blobs/{digest}", repository.name)),
        Target::Tags(repository) => naming.path(&format!("{}/tags/list", repository.name)),
        Target::Referrers(repository, digest) => naming.path(&format!("{}/referrers/{digest}", repository.name)),
        Target::Uploads(repository) => naming.path(&format!("{}/blobs/uploads/", repository.name)),
        Target::Acr(AcrResource::Tags(repository)) => naming.acr_path(&format!("{}/_tags", repository.name)),
        // A session is whatever larder wrote into it.
        Target::Ping | Target::Upload(..) | Target::Acr(_) => return None,
    })
}
