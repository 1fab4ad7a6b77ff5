//! Deletion: manifests with all their tags, tags alone, blobs, and whole repositories.

use super::Region;
use super::content::Repository;
use super::reply::{self, JSON, NotFound, Reply, quoted};
use super::route::Route;

pub(super) fn answer(region: &Region<'_>, route: &Route) -> Reply {
    let mut answer = match route {
        Route::Manifest { name, reference } if reference.contains(':') => manifest(region, name, reference),
        Route::Manifest { name, reference } if region.knobs.read(|k| k.delete_by_tag) => tag(region, name, reference),
        Route::AcrTag { name, tag: reference } => tag(region, name, reference),
        Route::Blob { name, digest } => blob(region, name, digest),
        Route::AcrRepository { name } => repository(region, name),
        _ => return reply::unsupported(),
    };
    reply::set(&mut answer, "x-ms-ratelimit-remaining-calls-per-second", "8.000000");
    answer
}

fn manifest(region: &Region<'_>, name: &str, digest: &str) -> Reply {
    let found = |r: &Repository| r.manifests.contains_key(digest).then(|| r.attributes_of(digest));
    match region.content.with(name, found).flatten() {
        None => reply::error(404, "MANIFEST_UNKNOWN", &format!("manifest {digest} is not found"), None),
        Some(attributes) if !attributes.may_delete() => reply::disallowed(),
        Some(_) => {
            region.content.delete_manifest(name, digest);
            reply::empty(202)
        }
    }
}

/// The tag goes, its manifest stays.
fn tag(region: &Region<'_>, name: &str, tag: &str) -> Reply {
    let found = |r: &Repository| r.tags.contains_key(tag).then(|| r.attributes_of(tag));
    match region.content.with(name, found).flatten() {
        None => reply::not_found(&NotFound::AcrTag),
        Some(attributes) if !attributes.may_delete() => reply::disallowed(),
        Some(_) => {
            region.content.delete_tag(name, tag);
            reply::empty(202)
        }
    }
}

fn blob(region: &Region<'_>, name: &str, digest: &str) -> Reply {
    if region.content.blob(name, digest).is_none() {
        return reply::not_found(&NotFound::Blob(digest));
    }
    region.content.delete_blob(name, digest);
    reply::empty(202)
}

fn repository(region: &Region<'_>, name: &str) -> Reply {
    let found = region.content.with(name, |r| {
        let locked = r.manifests.keys().chain(r.tags.keys()).any(|one| !r.attributes_of(one).may_delete());
        let list = |names: Vec<&String>| names.into_iter().map(|n| quoted(n)).collect::<Vec<_>>().join(",");
        let manifests = list(r.manifests.keys().collect());
        let tags = list(r.tags.keys().collect());
        (
            locked || !r.attributes.may_delete(),
            format!("{{\"manifestsDeleted\":[{manifests}],\"tagsDeleted\":[{tags}]}}\n"),
        )
    });
    match found {
        None => reply::not_found(&NotFound::Repository(name)),
        Some((true, _)) => reply::disallowed(),
        Some((false, body)) => {
            region.content.delete_repository(name);
            reply::text(202, JSON, body)
        }
    }
}
