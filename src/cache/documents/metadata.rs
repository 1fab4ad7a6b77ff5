//! What ACR's own API says to questions: kept as it came, in memory, for seconds, and given out until upstream is back when it is away.
//!
//! It is kept by the whole question, its page and order included, since only upstream can put such lists together. An answer is good
//! in the epoch that it began under: after a write through larder to that repository (or, of a list of repositories, after one
//! that may have changed which there are) it is no longer given out, not even in an outage.

use super::answer::MetadataAnswer;
use super::memory::{OVERHEAD, items};
use crate::cache::epochs::{Epoch, Scope};
use crate::cache::error::CacheError;
use crate::cache::freshness::Age;
use crate::cache::single_flight::SingleFlight;
use crate::cache::stale_on_error::{Aged, is_final, serve};
use crate::cache::tasks::Tasks;
use crate::cache::view::{Scoped, View};
use crate::oci::{Code, Registry, Repository};
use crate::upstream::{AcrAnswer, AcrRequest, Relayed, SHORT};
use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync};
use std::collections::HashSet;
use std::sync::Arc;

/// A question, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::cache) struct Question {
    registry: Registry,
    /// What it is about; none: the repositories that there are.
    repository: Option<Repository>,
    path: String,
    query: String,
}

impl Question {
    pub(in crate::cache) fn new(registry: &Registry, request: &AcrRequest) -> Self {
        let registry = registry.clone();
        let repository = request.repository.clone().map(|name| Repository { registry: registry.clone(), name });
        Self { registry, repository, path: request.path.clone(), query: request.query.clone() }
    }
}

impl Scoped for Question {
    fn scope(&self) -> Scope<'_> {
        self.repository.as_ref().map_or(Scope::Catalogue(&self.registry), Scope::Repository)
    }
}

/// An answer as it is remembered.
#[derive(Clone, Debug)]
struct KnownAnswer {
    answer: Arc<AcrAnswer>,
    age: Age,
    begun: Epoch,
}

impl Aged for KnownAnswer {
    fn age(&self) -> Age {
        self.age
    }

    fn relayed(&self) -> &Relayed {
        &self.answer.relayed
    }
}

impl KnownAnswer {
    /// The same without the room that a large answer has while it is in work: what is remembered is bounded by itself.
    fn for_memory(self) -> Self {
        if self.answer.content.len() <= SHORT {
            return self;
        }
        let content = Bytes::copy_from_slice(&self.answer.content);
        Self { answer: Arc::new(AcrAnswer { content, ..AcrAnswer::clone(&self.answer) }), ..self }
    }
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Question, KnownAnswer> for ByBytes {
    fn weight(&self, question: &Question, known: &KnownAnswer) -> u64 {
        let words = question.path.len() + question.query.len();
        (known.answer.content.len() + words) as u64 + OVERHEAD
    }
}

type Known = sync::Cache<Question, KnownAnswer, ByBytes>;

/// All that is remembered of ACR's own API.
#[derive(Debug)]
pub(in crate::cache) struct Metadata {
    known: Arc<Known>,
    flights: SingleFlight<(Question, Epoch), Result<KnownAnswer, CacheError>>,
    /// Upstreams whose list of repositories has been asked for since it last changed here.
    catalogues: Mutex<HashSet<Registry>>,
    tasks: Arc<Tasks>,
}

impl Metadata {
    /// Keeps at most `bytes`.
    pub(in crate::cache) fn new(bytes: u64, tasks: Arc<Tasks>) -> Self {
        let known = Arc::new(sync::Cache::with_weighter(items(bytes), bytes, ByBytes));
        Self { known, flights: SingleFlight::default(), catalogues: Mutex::default(), tasks }
    }

    /// Whether the upstream's list of repositories has been asked for since this was last called.
    pub(in crate::cache) fn take_catalogue(&self, registry: &Registry) -> bool {
        self.catalogues.lock().remove(registry)
    }

    /// What ACR's own API says to a question.
    pub(in crate::cache) async fn get(
        &self,
        view: &View<Question>,
        request: AcrRequest,
        revalidate: bool,
    ) -> Result<MetadataAnswer, CacheError> {
        let (question, upstream) = (view.subject(), &view.upstream);
        if upstream.sealed {
            let (what, registry) = (format!("/acr/v1/{}", request.path), question.registry.clone());
            return Err(CacheError::Sealed { what, registry, code: Code::NameUnknown });
        }
        if question.repository.is_none() {
            self.catalogues.lock().insert(question.registry.clone());
        }
        let known = self.known.get(question).filter(|known| known.begun == view.epoch && !view.is_denied());
        let rules = &upstream.freshness;
        // Seconds, whatever tags are good for: locks and times change without a tag that moves.
        let ttl = view.repository_of().map_or(&rules.other, |repository| rules.of(repository)).brief_ttl();
        let fetch = || {
            let (kept, begun) = (Arc::clone(&self.known), view.clone());
            self.flights.join(view.key(), &self.tasks, || async move { ask(&kept, &begun, &request).await })
        };
        let (known, provenance) = serve(upstream, known, ttl, revalidate, fetch).await?;
        Ok(MetadataAnswer { answer: known.answer, provenance })
    }
}

/// Asks, and keeps the answer unless there was a write since the view was taken.
async fn ask(kept: &Known, view: &View<Question>, request: &AcrRequest) -> Result<KnownAnswer, CacheError> {
    let answer = view.upstream.acr(request).await.map_err(CacheError::from);
    let permit = view.store_permit().await;
    let question = view.subject();
    match answer {
        Ok(answer) => {
            // Seconds are too short a time to count backwards in.
            let age = if answer.relayed.stale.is_some() { Age::unknown() } else { Age::new() };
            let known = KnownAnswer { answer: Arc::new(answer), age, begun: view.epoch };
            if permit.is_some() {
                kept.insert(question.clone(), known.clone().for_memory());
            }
            Ok(known)
        }
        Err(error) => {
            if is_final(&error) {
                kept.remove(question);
            } else if permit.is_some()
                && let Some(known) = kept.get(question)
            {
                kept.insert(question.clone(), KnownAnswer { age: known.age.postponed(), ..known });
            }
            Err(error)
        }
    }
}
