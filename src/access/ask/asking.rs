use super::issued::{Issued, Logins, Token};
use super::seal::Seal;
use super::verdicts::{Outcome, Verdicts};
use super::{AskUpstream, Shown};
use crate::access::rules::Act;
use crate::config::AccessSettings;
use crate::oci::{Deed, Grants};
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// Whom upstream lets do what.
pub(in crate::access) struct Asking {
    pub(in crate::access) upstreams: Arc<dyn AskUpstream>,
    pub(in crate::access) issued: Issued,
    pub(in crate::access) logins: Logins,
    pub(in crate::access) stale: Duration,
    verdicts: Verdicts,
    ttl: Duration,
}

pub(in crate::access) type Decided = Outcome;

impl Asking {
    pub(in crate::access) fn new(
        settings: &AccessSettings,
        upstreams: Arc<dyn AskUpstream>,
        metrics: &Metrics,
    ) -> Self {
        for result in ["ok", "failed"] {
            metrics.logins.with_label_values(&["upstream", result]);
        }
        Self {
            upstreams,
            issued: Issued::new(),
            logins: Logins::new(),
            stale: settings.verdict_stale,
            verdicts: Verdicts::new(settings.verdict_ttl, settings.verdict_stale),
            ttl: settings.verdict_ttl,
        }
    }

    /// Whether upstream lets a caller do this. A token that upstream has just given through larder needs no question: what it allows
    /// is known.
    pub(in crate::access) async fn decide(&self, seal: &Seal, shown: &Shown, act: &Act<'_>) -> Decided {
        let token = match shown {
            Shown::Bearer(_) => self.issued.get(&seal.credential(act.registry, shown)),
            Shown::Password { .. } => None,
        };
        if let Some(token) = token.as_ref().filter(|token| token.is_younger(self.ttl))
            && let Some(decided) = by_token(token, act.deed)
        {
            return decided;
        }
        let key = seal.verdict(act.registry, shown, act.deed);
        let decided = self.verdicts.get(key, || self.upstreams.judge(act.registry, shown, act.deed)).await;
        match (decided, token) {
            (Decided::Away(why), Some(token)) if token.is_younger(self.stale) => {
                by_token(&token, act.deed).unwrap_or(Decided::Away(why))
            }
            (Decided::Wrong, Some(_)) => {
                self.issued.forget(&seal.credential(act.registry, shown));
                Decided::Wrong
            }
            (Decided::Allowed(None), Some(token)) => Decided::Allowed(token.name),
            (decided, _) => decided,
        }
    }
}

/// What a token of which all is known allows; `None` for lists, whose right is upstream's choice.
fn by_token(token: &Token, deed: &Deed) -> Option<Decided> {
    if !deed.is_read_from_scope() {
        return None;
    }
    Some(if cover(&token.grants, deed) { Decided::Allowed(token.name.clone()) } else { Decided::Denied })
}

/// Whether grants suffice for a deed.
pub(in crate::access) fn cover(grants: &Grants, deed: &Deed) -> bool {
    deed.scope().is_none_or(|scope| grants.cover(&Grants::of_scope(&scope)))
}
