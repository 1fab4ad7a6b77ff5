//! Joins what `access` asks to the upstreams that answer it.

use crate::access::{AskUpstream, Given, Pending, Said, Shown, TokenRequest, TokenSaid};
use crate::config::UpstreamSettings;
use crate::oci::{Deed, Registry};
use crate::upstream::{self, CallerLogin, ErrorKind, Upstream, UpstreamError, Verdict};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a caller is asked to wait when upstream throttles and does not say for how long.
const RETRY: Duration = Duration::from_secs(10);

struct Upstreams(HashMap<Registry, Upstream>);

/// The upstreams as `access` asks them.
#[must_use]
pub(super) fn asking(upstreams: &[(UpstreamSettings, Upstream)]) -> Arc<dyn AskUpstream> {
    let named = upstreams.iter().map(|(settings, upstream)| (settings.name.clone(), upstream.clone()));
    Arc::new(Upstreams(named.collect()))
}

fn login(shown: &Shown) -> CallerLogin {
    match shown {
        Shown::Password { user, password } => CallerLogin::password(user, password),
        Shown::Bearer(token) => CallerLogin::bearer(token),
    }
}

impl Upstreams {
    async fn ask(&self, registry: &Registry, shown: &Shown, deed: &Deed) -> Said {
        let Some(upstream) = self.0.get(registry) else { return Said::Absent };
        match upstream.judge(&login(shown), deed).await {
            Ok(judgement) => match judgement.verdict {
                Verdict::Allowed => Said::Allowed { name: judgement.name, expires: judgement.expires },
                Verdict::Denied => Said::Denied,
                Verdict::Absent => Said::Absent,
                Verdict::Wrong => Said::Wrong,
            },
            Err(error) => match error.kind() {
                ErrorKind::Throttled { retry_after } => Said::Throttled(retry_after.unwrap_or(RETRY)),
                _ => Said::Away(why(&error)),
            },
        }
    }

    async fn hand_on(&self, registry: &Registry, request: TokenRequest) -> TokenSaid {
        let Some(upstream) = self.0.get(registry) else { return TokenSaid::None };
        let TokenRequest { exchange, post, fields, authorization } = request;
        match upstream.pass_token_request(upstream::TokenRequest { exchange, post, fields, authorization }).await {
            Ok(answer) => TokenSaid::Answered {
                status: answer.status,
                content_type: answer.content_type,
                body: answer.body,
                token: answer.token.map(|token| Given {
                    text: token.text,
                    grants: token.grants,
                    expires: token.expires,
                }),
            },
            Err(error) => match error.kind() {
                ErrorKind::NotFound { .. } => TokenSaid::None,
                ErrorKind::Throttled { retry_after } => TokenSaid::Throttled(retry_after.unwrap_or(RETRY)),
                _ => TokenSaid::Away(why(&error)),
            },
        }
    }
}

/// The log has the whole error; an unknown caller learns only its kind.
fn why(error: &UpstreamError) -> String {
    tracing::warn!(%error, "a caller's credential could not be checked");
    let word = match error.kind() {
        ErrorKind::Unreachable | ErrorKind::Timeout => "it does not answer",
        ErrorKind::Firewall { .. } => "its firewall does not let larder in",
        _ => "it does not answer as a registry does",
    };
    word.to_owned()
}

impl AskUpstream for Upstreams {
    fn judge<'a>(&'a self, registry: &'a Registry, shown: &'a Shown, deed: &'a Deed) -> Pending<'a, Said> {
        Box::pin(self.ask(registry, shown, deed))
    }

    fn pass<'a>(&'a self, registry: &'a Registry, request: TokenRequest) -> Pending<'a, TokenSaid> {
        Box::pin(self.hand_on(registry, request))
    }

    fn is_asked_as_callers(&self, registry: &Registry) -> bool {
        self.0.get(registry).is_some_and(Upstream::is_asked_as_callers)
    }

    fn is_there<'a>(&'a self, registry: &'a Registry) -> Pending<'a, bool> {
        Box::pin(async {
            match self.0.get(registry) {
                Some(upstream) => upstream.is_there().await,
                None => false,
            }
        })
    }
}
