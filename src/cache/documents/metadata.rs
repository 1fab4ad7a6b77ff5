//! What ACR's own API says to questions: kept as it came, in memory, for seconds, and given out until upstream is back when it is away.
//!
//! It is kept by the whole question, its page and order included, since only upstream can put such lists together. An answer is good
//! under the epoch that it began under: after a write through larder to that repository (or, of a list of repositories, after one
//! that may have changed which there are) it is not given out any more, not even in an outage.

use crate::cache::answer::MetadataAnswer;
use crate::cache::documents::memory::{OVERHEAD, items};
use crate::cache::epochs::Epoch;
use crate::cache::error::CacheError;
use crate::cache::freshness::Age;
use crate::cache::single_flight::SingleFlight;
use crate::cache::stale_on_error::{Aged, is_final};
use crate::cache::{Cache, Inner};
use crate::oci::{Code, Registry, Repository};
use crate::upstream::{AcrAnswer, AcrRequest, Relayed, SHORT};
use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync};
use std::collections::HashSet;
use std::sync::Arc;

/// A question, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    registry: Registry,
    path: String,
    query: String,
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

/// All that is remembered of ACR's own API.
#[derive(Debug)]
pub(in crate::cache) struct Metadata {
    known: sync::Cache<Question, KnownAnswer, ByBytes>,
    flights: SingleFlight<(Question, Epoch), Result<KnownAnswer, CacheError>>,
    /// Upstreams whose list of repositories has been asked for since it last changed here.
    catalogues: Mutex<HashSet<Registry>>,
}

impl Metadata {
    /// Keeps at most `bytes`.
    pub(in crate::cache) fn new(bytes: u64) -> Self {
        let known = sync::Cache::with_weighter(items(bytes), bytes, ByBytes);
        Self { known, flights: SingleFlight::default(), catalogues: Mutex::default() }
    }

    /// Whether the upstream's list of repositories has been asked for since this was last called.
    pub(in crate::cache) fn take_catalogue(&self, registry: &Registry) -> bool {
        self.catalogues.lock().remove(registry)
    }
}

impl Cache {
    /// What ACR's own API of `registry` says to a question.
    pub async fn metadata(
        &self,
        registry: &Registry,
        request: AcrRequest,
        revalidate: bool,
    ) -> Result<MetadataAnswer, CacheError> {
        let upstream = self.0.upstream_of(registry)?;
        if upstream.sealed {
            let (what, registry) = (format!("/acr/v1/{}", request.path), registry.clone());
            return Err(CacheError::Sealed { what, registry, code: Code::NameUnknown });
        }
        let name = request.repository.clone();
        let repository = name.map(|name| Repository { registry: registry.clone(), name });
        if repository.is_none() {
            self.0.metadata.catalogues.lock().insert(registry.clone());
        }
        let epoch = self.0.epochs.current_of(registry, repository.as_ref());
        let question =
            Question { registry: registry.clone(), path: request.path.clone(), query: request.query.clone() };
        let denied = repository.as_ref().is_some_and(|repository| upstream.is_denied(repository));
        let known = self.0.metadata.known.get(&question).filter(|known| known.begun == epoch && !denied);
        let freshness = &upstream.freshness;
        // Seconds, whatever tags are good for: locks and times change without a tag that moves.
        let ttl = repository.as_ref().map_or(&freshness.other, |repository| freshness.of(repository)).brief_ttl();
        let ask = || {
            let (inner, of) = (Arc::clone(&self.0), question.clone());
            let work = || async move { inner.ask_acr(of, &request, repository.as_ref(), epoch).await };
            self.0.metadata.flights.join((question.clone(), epoch), &self.0.tasks, work)
        };
        let (known, provenance) = upstream.current(known, ttl, revalidate, ask).await?;
        Ok(MetadataAnswer { answer: known.answer, provenance })
    }
}

impl Inner {
    /// Asks, and keeps the answer unless there was a write since `begun`.
    async fn ask_acr(
        &self,
        question: Question,
        request: &AcrRequest,
        repository: Option<&Repository>,
        begun: Epoch,
    ) -> Result<KnownAnswer, CacheError> {
        let upstream = self.upstream_of(&question.registry)?;
        // Who may not read metadata may pull all the same: a refusal is about nothing else.
        let answer = upstream.ask(None, upstream.client.acr(request)).await.map_err(CacheError::from);
        let keeping = self.epochs.keep_of(&question.registry, repository, begun).await;
        let kept = &self.metadata.known;
        match answer {
            Ok(answer) => {
                // Seconds are too short a time to count backwards in.
                let age = if answer.relayed.stale.is_some() { Age::unknown() } else { Age::new() };
                let known = KnownAnswer { answer: Arc::new(answer), age, begun };
                if keeping.is_some() {
                    kept.insert(question, known.clone().for_memory());
                }
                Ok(known)
            }
            Err(error) => {
                if is_final(&error) {
                    kept.remove(&question);
                } else if keeping.is_some()
                    && let Some(known) = kept.get(&question)
                {
                    kept.insert(question, KnownAnswer { age: known.age.postponed(), ..known });
                }
                Err(error)
            }
        }
    }
}
