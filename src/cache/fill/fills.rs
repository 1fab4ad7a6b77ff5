use super::candidates::{Candidate, Candidates};
use super::run::{FillContext, run};
use super::shared::{End, Fill, Watermark};
use crate::cache::error::CacheError;
use crate::cache::single_flight::{Joined, Running};
use crate::cache::tasks::Tasks;
use crate::oci::{Digest, Registry};
use crate::upstream::Shares;
use std::sync::Arc;
use std::time::Duration;

/// The fills under way.
#[derive(Debug)]
pub(in crate::cache) struct Fills {
    running: Running<(Registry, Digest), Fill>,
    places: Shares,
    context: Arc<FillContext>,
    tasks: Arc<Tasks>,
}

impl Fills {
    /// Runs at most `limit` at once.
    pub(in crate::cache) fn new(limit: usize, context: FillContext, tasks: Arc<Tasks>) -> Self {
        Self { running: Running::default(), places: Shares::new(limit), context: Arc::new(context), tasks }
    }

    /// The fill of `digest` from `registry` that is under way.
    pub(in crate::cache) fn running(&self, registry: &Registry, digest: &Digest) -> Option<Arc<Fill>> {
        self.running.get_with(|| (registry.clone(), *digest))
    }

    /// Joins the fill of `digest` from the candidate's registry, or begins it. The flag says that it was begun.
    pub(in crate::cache) fn join(
        &self,
        digest: &Digest,
        candidate: Candidate,
    ) -> Result<(Arc<Fill>, bool), CacheError> {
        let registry = candidate.view.repository().registry.clone();
        let mut begun = None;
        let joined = self.running.join((registry.clone(), *digest), Arc::clone, || {
            let Some(place) = self.places.take() else {
                return Err(CacheError::Busy { what: "downloads", retry: Duration::from_secs(5) });
            };
            // A task that is cut short drops its writer, and its readers hear of it.
            let (writer, progress) = Watermark::new(End::Failed(CacheError::Aborted));
            begun = Some((writer, place));
            Ok(Arc::new(Fill::new(registry, *digest, Candidates::of(candidate), progress)))
        })?;
        let (entry, (writer, place)) = match (joined, begun) {
            (Joined::Running(fill), _) => return Ok((fill, false)),
            (Joined::Begun(entry), Some(begun)) => (entry, begun),
            (Joined::Begun(_), None) => return Err(CacheError::Aborted),
        };
        let (context, fill) = (Arc::clone(&self.context), Arc::clone(entry.value()));
        self.tasks.spawn(async move {
            run(&context, entry, writer).await;
            drop(place);
        });
        Ok((fill, true))
    }
}
