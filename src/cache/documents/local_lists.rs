//! Lists of a sealed upstream: what is stored here, since there is nothing else to ask. An empty list is an answer, too: clients ask for
//! what is attached to everything that they copy.

use super::entries::Entries;
use crate::cache::error::CacheError;
use crate::oci::{Digest, Manifest, Repository};
use crate::store::{ListKey, Store};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// The list as this store can tell it.
pub(super) async fn local_list(store: &Store, key: &ListKey) -> Result<Entries, CacheError> {
    match key {
        ListKey::Tags(repository) => {
            let tags = store.links(repository).await?.tags;
            Ok(names(tags.into_iter().map(|(tag, _)| tag.to_string())))
        }
        ListKey::Catalogue(registry) => {
            let repositories = store.repositories().await?.into_iter().filter(|it| it.registry == *registry);
            Ok(names(repositories.map(|repository| repository.name.to_string())))
        }
        ListKey::Referrers(repository, subject) => local_referrers(store, repository, subject).await,
    }
}

/// In order, each once.
fn names(names: impl Iterator<Item = String>) -> Entries {
    let names: BTreeSet<String> = names.collect();
    Entries::Names(names.into_iter().collect())
}

async fn local_referrers(store: &Store, repository: &Repository, subject: &Digest) -> Result<Entries, CacheError> {
    let mut found = BTreeMap::new();
    for digest in store.links(repository).await?.manifests {
        let Some(content) = store.peek_small(&digest).await? else { continue };
        if Manifest::parse(&content).and_then(|manifest| manifest.subject) != Some(*subject) {
            continue;
        }
        let media_type = store.manifest_type(repository, &digest).await?;
        let media_type = media_type.map(|media_type| media_type.to_string()).unwrap_or_default();
        if let Some(descriptor) = descriptor(&digest, &media_type, &content) {
            found.insert(digest.to_string(), descriptor);
        }
    }
    Ok(Entries::Descriptors(found.into_values().collect()))
}

/// What the referrers API says of a manifest (distribution specification, "Listing referrers"): the artifact type is that of the
/// manifest or, without one, its configuration's media type; annotations are the manifest's own.
fn descriptor(digest: &Digest, media_type: &str, content: &[u8]) -> Option<Box<RawValue>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Attached<'a> {
        #[serde(default)]
        artifact_type: Option<String>,
        #[serde(default, borrow)]
        config: Option<&'a RawValue>,
        #[serde(default, borrow)]
        annotations: Option<&'a RawValue>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        media_type: Option<String>,
    }
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Descriptor<'a> {
        media_type: &'a str,
        digest: String,
        size: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        artifact_type: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        annotations: Option<&'a RawValue>,
    }
    let attached: Attached<'_> = serde_json::from_slice(content).ok()?;
    let of_config = || serde_json::from_str::<Config>(attached.config?.get()).ok()?.media_type;
    let artifact_type = attached.artifact_type.clone().filter(|kind| !kind.is_empty()).or_else(of_config);
    let annotations = attached.annotations.filter(|annotations| annotations.get() != "null");
    let digest = digest.to_string();
    let descriptor = Descriptor { media_type, digest, size: content.len(), artifact_type, annotations };
    serde_json::value::to_raw_value(&descriptor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[test]
    fn a_descriptor_says_what_the_specification_wants() {
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let content = br#"{"config":{"mediaType":"a/config"},"annotations":{"b":"c"}}"#;
        let text = descriptor(&digest, "m/t", content).unwrap().to_string();
        assert_eq!(
            text,
            format!(
                r#"{{"mediaType":"m/t","digest":"{digest}","size":{},"artifactType":"a/config","annotations":{{"b":"c"}}}}"#,
                content.len()
            )
        );
        let own = descriptor(&digest, "m/t", br#"{"artifactType":"own","config":{"mediaType":"a/config"}}"#).unwrap();
        assert!(own.get().contains(r#""artifactType":"own""#) && !own.get().contains("annotations"), "{own}");
        assert!(descriptor(&digest, "m/t", b"no").is_none());
    }
}
