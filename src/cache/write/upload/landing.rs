use super::kept::Kept;
use crate::cache::epochs::{Epochs, Write, WriteScope};
use crate::cache::log::log_and_ignore;
use crate::cache::negative::Object;
use crate::cache::pending_commits::PendingCommit;
use crate::cache::tasks::Tasks;
use crate::cache::vouch::Vouch;
use crate::oci::{Digest, Repository};
use crate::store::VerifyError;
use crate::telemetry::Metrics;
use std::sync::Arc;

/// Stores the blobs that upstream has taken.
#[derive(Debug)]
pub(in crate::cache) struct Landing {
    pub(in crate::cache) vouch: Arc<Vouch>,
    pub(in crate::cache) epochs: Arc<Epochs>,
    pub(in crate::cache) metrics: Arc<Metrics>,
    pub(in crate::cache) tasks: Arc<Tasks>,
}

impl Landing {
    /// A request that may give the repository a blob is about to be forwarded.
    pub(super) fn begin_write(&self, repository: &Repository) -> Write {
        // It sets no tag, and content that it adds harms nothing.
        self.epochs.begin(repository, WriteScope::Tags(Vec::new()))
    }

    /// Upstream has taken the blob from another of its repositories.
    pub(super) async fn mounted(&self, repository: &Repository, digest: &str, write: Write) {
        let Ok(digest) = digest.parse() else { return };
        self.own(repository, &digest, write, true).await;
        count_upload(&self.metrics, repository, "mounted");
    }

    /// Upstream has taken the blob: it is there for this repository, and what is here of it becomes a blob.
    pub(super) async fn accepted(&self, repository: &Repository, digest: &str, kept: Option<Kept>, write: Write) {
        let Ok(digest) = digest.parse::<Digest>() else { return };
        let result = match kept {
            Some(kept) => self.land(repository, digest, kept).await,
            None if self.is_stored(&digest).await => "present",
            None => "unkept",
        };
        self.own(repository, &digest, write, result != "mismatch").await;
        count_upload(&self.metrics, repository, result);
    }

    async fn is_stored(&self, digest: &Digest) -> bool {
        log_and_ignore("open", digest, self.vouch.store.blob(digest).await).flatten().is_some()
    }

    /// Notes that the repository has the blob: it was pushed there. If it is not `sure` that it is this one, upstream is asked when a
    /// client wants it.
    async fn own(&self, repository: &Repository, digest: &Digest, write: Write, sure: bool) {
        let applying = write.apply().await;
        self.vouch.negatives.forget(repository, Object::Blob(*digest));
        if sure && !applying.is_conflicted() && !self.vouch.is_vouched(repository, digest).await {
            log_and_ignore("link", digest, self.vouch.store.link_blob(repository, digest).await);
        }
    }

    /// Verifies the copy and has it put in its place, for which the client need not wait.
    async fn land(&self, repository: &Repository, digest: Digest, kept: Kept) -> &'static str {
        let verified = match kept.upload.verify(&digest).await {
            Ok(verified) => verified,
            Err(error) => {
                tracing::error!(
                    blob.digest = %digest, repo.name = %repository, %error,
                    "upstream took a blob whose copy here is another: nothing was kept"
                );
                return if matches!(error, VerifyError::Digest { .. }) { "mismatch" } else { "unkept" };
            }
        };
        let giver = self.vouch.as_giver(repository);
        if self.is_stored(&digest).await {
            log_and_ignore("note who has", digest, self.vouch.store.given_by(&digest, giver).await);
            return "present";
        }
        let commit = PendingCommit { file: verified.file(), length: verified.received(), giver: giver.clone() };
        let verified = verified.given_by(vec![giver]);
        if !self.vouch.pending.begin(digest, commit) {
            log_and_ignore("store", digest, verified.commit().await);
            return "stored";
        }
        let pending = Arc::clone(&self.vouch.pending);
        self.tasks.spawn(async move {
            log_and_ignore("store", digest, verified.commit().await);
            pending.end(&digest);
        });
        "stored"
    }
}

pub(in crate::cache) fn count_upload(metrics: &Metrics, repository: &Repository, result: &str) {
    metrics.uploads.with_label_values(&[repository.registry.as_str(), result]).inc();
}
