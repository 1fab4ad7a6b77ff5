//! Manifests that are not there, and digests that are none.

use crate::conformance::content::small;
use crate::conformance::registry::{REPOSITORY, Registry};
use crate::conformance::report::Report;
use crate::conformance::sets::delete;
use crate::harness::sha256;

pub async fn run(registry: &Registry, report: &mut Report) {
    report
        .check("missing-manifest/by-digest", registry.manifest_get_fails(&sha256(b"nobody pushed this"), &[404]).await);
    report.check("missing-manifest/by-tag", registry.manifest_get_fails("missing-tag", &[404]).await);
    let set = small();
    for (digest, content) in &set.blobs {
        let pushed = registry.blob_post_put(REPOSITORY, digest, content, false).await;
        report.check("invalid-digest-format/blob-post-put", pushed);
    }
    let none = "sha256:baddigeststring";
    report.check("invalid-digest-format/manifest-put", registry.manifest_put(none, &set.manifests[0], true).await);
    report.check("invalid-digest-format/manifest-get", registry.manifest_get_fails(none, &[404, 400]).await);
    delete(registry, &set, report).await;
}
