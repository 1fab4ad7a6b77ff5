//! Speaking to a registry: connections, challenges and tokens, ACR's exchange, redirects, and what an answer means.
//!
//! [`Upstream`] asks one configured registry, one question per call, and either has the answer or an [`UpstreamError`] whose
//! [`ErrorKind`] says which situation it is. It keeps connections and tokens, nothing else: no content, no freshness, no
//! memory of failures. Bytes are handed on as they come, either way, and are not verified here.
//!
//! What it guarantees: a credential reaches only the upstream itself and its own token service, never a redirect's target;
//! `Basic` never goes to a registry that asks for tokens; every wait has a limit; a "not found" is believed only from a speaker
//! of the protocol. `docs/upstream.md` tells it to operators.

mod auth;
mod body;
mod breaker;
mod budget;
mod certificate;
mod challenge;
mod classify;
mod connect;
mod credential;
mod error;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod grant;
mod hindrance;
mod jwt;
mod link;
mod list;
mod listening;
mod mirrors;
mod op;
mod origin;
mod payload;
mod pool;
mod process;
mod rate;
mod registry;
mod resolve;
mod said;
mod scope;
mod secret;
mod throttle;
mod tls;
mod tokens;
mod upload;
mod verdicts;
mod wire;
mod write;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use body::UpstreamBody;
pub use budget::in_background;
pub use error::{ErrorKind, SetupError, UpstreamError};
pub use hindrance::Hindrance;
pub use list::{FetchedList, ListRequest, Page};
pub use registry::{FetchedBlob, FetchedManifest, Login, ManifestHead, Upstream};
pub use upload::{BodyHeaders, Source, UploadAnswer, UploadError, UploadSession, UploadStart, UploadStep};
pub use verdicts::Denied;
pub use write::{AcrAnswer, AcrMethod, AcrRequest, PutManifest};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder panicked guards nothing that could be half written: every change below one is a single assignment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
