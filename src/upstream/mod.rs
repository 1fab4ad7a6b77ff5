//! Speaking to a registry: connections, challenges and tokens, ACR's exchange, redirects, and what an answer means.
//!
//! [`Upstream`] asks one configured registry, one question per call, and either has the answer or an [`UpstreamError`] whose
//! [`ErrorKind`] says which situation it is. It keeps connections and tokens, and remembers what says how to ask: the hosts that
//! do not answer, what a 429 holds back and what the registry's tier leaves, the addresses that gave wrong bytes, and what the
//! registry's own address has denied where there are mirrors. It keeps no content, and does not know what is fresh. Bytes are
//! handed on as they come, either way, and are not verified here.
//!
//! What it guarantees: a credential reaches only the upstream itself and its own token service, never a redirect's target;
//! `Basic` never goes to a registry that asks for tokens; every wait has a limit; a "not found" is believed only from a speaker
//! of the protocol. `docs/upstream.md` tells it to operators.

mod answers;
mod as_caller;
mod auth;
mod blamed;
mod blocked;
mod denials;
mod endpoint;
mod endpoints;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod judge;
mod limits;
mod parse;
mod protocol;
mod relay;
mod transport;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use answers::{BlobHead, FetchedBlob, FetchedManifest, ManifestHead};
pub use auth::caller::{CallerLogin, current_caller, for_caller};
pub use auth::login::LoginSummary;
pub use blocked::BlockedReason;
pub use denials::Denied;
pub use endpoints::Upstream;
pub use error::{ErrorKind, SetupError, UpstreamError};
pub use judge::{Judgement, Verdict};
pub use limits::budget::in_background;
pub use limits::documents::{Documents, NoRoom, READING, Room, SHORT};
pub use limits::shares::{Client, Interest, Place, Shares, Standing, while_wanted};
pub use parse::parse;
pub use protocol::list::{FetchedList, ListRequest, Page};
pub use protocol::relayed::{Relayed, Unconfirmed};
pub use protocol::upload::{
    BodyHeaders, UploadAnswer, UploadError, UploadSession, UploadSource, UploadStart, UploadStep,
};
pub use protocol::write::{AcrAnswer, AcrMethod, AcrRequest, PutManifest};
pub use relay::{GivenToken, TokenAnswer, TokenRequest};
pub use transport::body::UpstreamBody;
pub use transport::network::Network;
