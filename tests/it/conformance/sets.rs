//! Each kind of content: pushed, listed, looked for, pulled, its referrers, deleted.

use crate::conformance::content::Set;
use crate::conformance::registry::{REPOSITORY, Registry};
use crate::conformance::report::Report;

pub async fn run(registry: &Registry, set: &Set, report: &mut Report) {
    let name = |check: &str| format!("{}/{check}", set.name);
    for (digest, content) in &set.blobs {
        let pushed = registry.blob_post_put(REPOSITORY, digest, content, false).await;
        report.check(&name("push/blob-post-put"), pushed);
    }
    for manifest in &set.manifests {
        let pushed = registry.manifest_put(&manifest.digest, manifest, set.wrong).await;
        report.check(&name("push/manifest-by-digest"), pushed);
    }
    for (tag, manifest) in &set.tags {
        let pushed = registry.manifest_put(tag, &set.manifests[*manifest], false).await;
        report.check(&name("push/manifest-by-tag"), pushed);
    }
    report.check(&name("tag-list"), registry.lists_tags(set.tags.keys()).await);
    for (tag, manifest) in &set.tags {
        let manifest = &set.manifests[*manifest];
        report.check(&name("head/manifest-head-by-tag"), registry.manifest_head(tag, manifest).await);
        report.check(&name("pull/manifest-by-tag"), registry.manifest_get(tag, manifest).await);
    }
    for manifest in set.manifests.iter().filter(|_| !set.wrong) {
        let digest = &manifest.digest;
        report.check(&name("head/manifest-head-by-digest"), registry.manifest_head(digest, manifest).await);
        report.check(&name("pull/manifest-by-digest"), registry.manifest_get(digest, manifest).await);
    }
    for (digest, content) in &set.blobs {
        report.check(&name("head/blob-head"), registry.blob_head(digest, content).await);
        report.check(&name("pull/blob-get"), registry.blob_get(digest, content).await);
    }
    for (number, (subject, referrers)) in set.referrers.iter().enumerate() {
        assert_eq!(number, 0, "{}: one subject each", set.name);
        report.check(&name("referrers"), registry.lists_referrers(subject, referrers).await);
    }
    delete(registry, set, report).await;
}

/// Tags, then manifests from the top, then blobs.
pub async fn delete(registry: &Registry, set: &Set, report: &mut Report) {
    let name = |check: &str| format!("{}/delete/{check}", set.name);
    for tag in set.tags.keys() {
        report.check(&name("tag-delete"), registry.manifest_delete(tag).await);
    }
    for manifest in set.manifests.iter().rev() {
        report.check(&name("manifest-delete"), registry.manifest_delete(&manifest.digest).await);
    }
    for digest in set.blobs.keys() {
        report.check(&name("blob-delete"), registry.blob_delete(REPOSITORY, digest).await);
    }
}
