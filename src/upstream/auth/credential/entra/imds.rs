use super::answer::{self, IdentityAnswer};
use super::door::Door;
use super::token_request::{request, words};
use super::{IdentitySource, Minted, Minting, at};
use crate::config::AssignedIdentity;
use crate::upstream::error::{ErrorKind, Failure};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Microsoft's guidance for a service that is starting, updating or throttling: this pause, doubling …
const PAUSE: Duration = Duration::from_millis(1340);
/// … for so long altogether.
const PATIENCE: Duration = Duration::from_secs(72);

/// The metadata service of a virtual machine, a scale set or an AKS node.
pub(super) struct Imds {
    pub(super) door: Arc<Door>,
    pub(super) identity: AssignedIdentity,
    pub(super) base: Uri,
}

impl Imds {
    async fn ask(&self) -> Result<Minted, Failure> {
        let who = words(&self.identity);
        let what = format!("no token for {who} from the metadata service");
        let endpoint = at(&self.base, "/metadata/identity/oauth2/token")?;
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("metadata"), HeaderValue::from_static("true"))]);
        let outgoing = request(&endpoint, "2019-08-01", &self.identity, "msi_res_id", headers)?;
        let reply = self.door.ask(outgoing).await.map_err(|failure| absent(failure, &what))?;
        match (reply.status, IdentityAnswer::of(&reply)) {
            (StatusCode::OK, _) => answer::minted(&reply),
            (StatusCode::BAD_REQUEST, Some(said)) => {
                let problem = format!("the metadata service {} has no token for {who} ({})", reply.host, said.words());
                let remedy = match self.identity {
                    AssignedIdentity::System => {
                        "assign an identity to this VM or scale set; if it has several, name one by client_id"
                    }
                    _ => "assign that identity to this VM or scale set, or correct its id",
                };
                Err(Failure::credential(&who, problem, remedy))
            }
            _ => Err(answer::trouble(&reply, &what)),
        }
    }
}

impl IdentitySource for Imds {
    fn mint(&self) -> Minting<'_> {
        Box::pin(patiently(|| self.ask()))
    }
}

/// Asks until the service is well, as far as its patience goes.
async fn patiently<F: Future<Output = Result<Minted, Failure>>>(ask: impl Fn() -> F) -> Result<Minted, Failure> {
    let begun = Instant::now();
    let mut pause = PAUSE;
    loop {
        let failure = match ask().await {
            Err(failure) if is_mood(&failure) => failure,
            outcome => return outcome,
        };
        let wanted = match failure.kind {
            ErrorKind::Throttled { retry_after } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let wait = pause.max(wanted);
        if begun.elapsed() + wait > PATIENCE {
            return Err(failure);
        }
        tokio::time::sleep(wait).await;
        pause *= 2;
    }
}

/// What passes by itself.
fn is_mood(failure: &Failure) -> bool {
    matches!(failure.kind, ErrorKind::ServerError(_) | ErrorKind::Throttled { .. })
}

/// Nobody is there.
fn absent(failure: Failure, what: &str) -> Failure {
    let advice = "a machine outside Azure has none: use a service principal; in a pod, AKS keeps it from pods without hostNetwork: use \
                  workload-identity";
    let reason = format!("{what}: {}; {advice}", failure.reason);
    Failure { reason, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn a_metadata_service_is_asked_again_for_72_seconds() {
        for (failure, least) in [
            (Failure::new(ErrorKind::ServerError(503), "410"), 5),
            (Failure::new(ErrorKind::Throttled { retry_after: Some(Duration::from_secs(20)) }, "429"), 3),
        ] {
            let (begun, asked) = (Instant::now(), Cell::new(0));
            let outcome = patiently(|| {
                asked.set(asked.get() + 1);
                std::future::ready(Err(failure.clone()))
            });
            assert_eq!(outcome.await.err().unwrap().kind, failure.kind);
            assert!(begun.elapsed() <= PATIENCE && begun.elapsed() > PATIENCE / 3, "{:?}", begun.elapsed());
            assert!((least..=7).contains(&asked.get()), "{}", asked.get());
        }
        let refused = patiently(|| std::future::ready(Err(Failure::credential("mi", "no", "assign it"))));
        assert!(refused.await.err().unwrap().is_credential(), "at once");
    }
}
