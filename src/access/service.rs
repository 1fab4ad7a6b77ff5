//! The token service under an upstream's own name: what `az acr login`, `docker login` and others ask, passed to upstream and back.
//!
//! Of what passes larder keeps keyed hashes, what was granted, and how long it is good. While upstream is away, a login that it has
//! taken within `verdict_stale` gets a short token of larder's own, for what was granted before. A user of the users file is checked
//! there and nowhere else, and gets such a token always.

use super::ask::{Asking, Given, Key, Own, Seal, SeenLogin, Shown, TokenRequest, TokenSaid, unix};
use super::basic::Basic;
use super::refusal::{Challenge, Refusal};
use super::{Access, Inner};
use crate::oci::{Grants, Registry};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// How long a token of larder's own is good, at most.
const LIFE: Duration = Duration::from_secs(300);

pub(super) const USER: &str = "user";
pub(super) const ACCESS: &str = "access";
pub(super) const REFRESH: &str = "refresh";

/// What is asked of the token service.
pub struct TokenAsked<'a> {
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The upstream under whose name it came.
    pub registry: &'a Registry,
    pub request: TokenRequest,
}

/// What the token service gives.
pub struct Grant {
    /// 200, or upstream's refusal.
    pub status: u16,
    /// The body's type.
    pub content_type: Option<String>,
    pub body: Bytes,
}

/// Who asks for a token.
struct Who {
    shown: Option<Shown>,
    /// What it asks for.
    scope: Grants,
}

impl TokenRequest {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The credential: in `Authorization`, or in the fields that the grant has.
    fn who(&self) -> Who {
        let text = |name: &str| Zeroizing::new(self.field(name).unwrap_or_default().to_owned());
        let by_field = || match self.field("grant_type")? {
            "password" => {
                let user = self.field("username").filter(|user| !user.is_empty())?;
                Some(Shown::Password { user: user.to_owned(), password: text("password") })
            }
            "access_token" | "access_token_refresh_token" => Some(Shown::Bearer(text("access_token"))),
            "refresh_token" => Some(Shown::Bearer(text("refresh_token"))),
            _ => None,
        };
        let shown = self.authorization.as_ref().and_then(Shown::read).or_else(by_field);
        let scopes: Vec<&str> =
            self.fields.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str()).collect();
        Who { shown: shown.map(as_token), scope: Grants::of_scope(&scopes.join(" ")) }
    }
}

/// A token in a password's place is the same as the token itself: `az acr login` gets it, and Docker shows it as a password.
fn as_token(shown: Shown) -> Shown {
    match shown {
        Shown::Password { user, password } if user == "00000000-0000-0000-0000-000000000000" || user == "<token>" => {
            Shown::Bearer(password)
        }
        other => other,
    }
}

impl Access {
    /// Whether there is a token service under the upstreams' own names.
    #[must_use]
    pub fn has_token_service(&self) -> bool {
        self.0.asking.is_some()
    }

    /// Gives a token, or passes on what upstream says.
    pub async fn token(&self, asked: TokenAsked<'_>) -> Result<Grant, Refusal> {
        let inner = &*self.0;
        let Some(asking) = &inner.asking else { return Err(Refusal::wrong(Challenge::Basic)) };
        let who = asked.request.who();
        if let Some(granted) = inner.of_user(&asked, &who).await? {
            return Ok(granted);
        }
        if let Some(Shown::Bearer(token)) = &who.shown
            && Seal::is_own(token)
        {
            return inner.by_own_refresh(asking, &asked, token, &who.scope).await;
        }
        let (registry, exchange) = (asked.registry, asked.request.exchange);
        match asking.upstreams.pass(registry, asked.request).await {
            TokenSaid::Answered { status, content_type, body, token } => {
                match (&token, &who.shown) {
                    (Some(given), shown) => {
                        inner.metrics.logins.with_label_values(&["upstream", "ok"]).inc();
                        inner.remember(asking, registry, shown.as_ref(), &who.scope, given, exchange);
                    }
                    (None, Some(shown)) => {
                        asking.logins.forget(&inner.seal.credential(registry, shown));
                        inner.metrics.logins.with_label_values(&["upstream", "failed"]).inc();
                        inner.patience.wrong(asked.address, None).await;
                    }
                    (None, None) => {}
                }
                Ok(Grant { status, content_type, body })
            }
            TokenSaid::Away(why) => inner.in_outage(asking, registry, &who, exchange).ok_or(Refusal::Away { why }),
            TokenSaid::Throttled(retry) => Err(Refusal::Busy { retry }),
            TokenSaid::None => Err(Refusal::Absent { about: "a token service" }),
        }
    }
}

impl Inner {
    /// A token for a user of the users file; `None` if it is nobody of it.
    async fn of_user(&self, asked: &TokenAsked<'_>, who: &Who) -> Result<Option<Grant>, Refusal> {
        let (Some(logins), Some(Shown::Password { user, password })) = (&self.logins, &who.shown) else {
            return Ok(None);
        };
        if asked.request.exchange || !logins.has(user) {
            return Ok(None);
        }
        let login = Basic::of(user, password);
        let name = logins.check(asked.address, Some(&login), &self.patience).await?;
        let Some(of) = logins.fingerprint(&self.seal, &name) else { return Err(Refusal::wrong(Challenge::Basic)) };
        let own = own_token(USER, asked.registry, Some(&name), &who.scope, of, LIFE);
        Ok(Some(token_reply(&self.seal.sign(&own), "access_token", LIFE)))
    }

    /// Keeps what upstream has given, without any secret.
    fn remember(
        &self,
        asking: &Asking,
        registry: &Registry,
        shown: Option<&Shown>,
        asked: &Grants,
        given: &Given,
        exchange: bool,
    ) {
        let name = match shown {
            Some(Shown::Password { user, .. }) => Some(Arc::from(user.as_str())),
            _ => None,
        };
        let as_shown = Shown::Bearer(given.text.clone());
        let key = self.seal.credential(registry, &as_shown);
        let login = |expires| SeenLogin {
            grants: Grants::default(),
            name: name.clone(),
            taken: Instant::now(),
            expires,
            stands_for: None,
        };
        if exchange {
            // The token that was got is a login itself, and the one it was got with stands for it.
            asking.logins.taken(key, asked, None, login(given.expires));
            if let Some(shown) = shown {
                let first = SeenLogin { stands_for: Some(key), ..login(expires_of(shown)) };
                asking.logins.taken(self.seal.credential(registry, shown), asked, None, first);
            }
            return;
        }
        asking.issued.put(key, given, name.clone());
        if let Some(shown) = shown {
            let key = self.seal.credential(registry, shown);
            asking.logins.taken(key, asked, given.grants.as_ref(), login(expires_of(shown)));
        }
    }

    /// A token of larder's own for a login that upstream has taken.
    fn in_outage(&self, asking: &Asking, registry: &Registry, who: &Who, exchange: bool) -> Option<Grant> {
        let key = self.seal.credential(registry, who.shown.as_ref()?);
        let seen = asking.logins.get(&key)?;
        let left = seen.left(asking.stale)?;
        if exchange {
            let of = hex(&seen.stands_for?);
            let own = own_token(REFRESH, registry, None, &Grants::default(), of, left);
            return Some(token_reply(&self.seal.sign(&own), "refresh_token", left));
        }
        let granted = seen.grants.part_of(&who.scope);
        let life = left.min(LIFE);
        let own = own_token(ACCESS, registry, seen.name.as_ref(), &granted, String::new(), life);
        Some(token_reply(&self.seal.sign(&own), "access_token", life))
    }

    /// A refresh token that larder has given in an outage is good as long as that lasts.
    async fn by_own_refresh(
        &self,
        asking: &Asking,
        asked: &TokenAsked<'_>,
        token: &str,
        scope: &Grants,
    ) -> Result<Grant, Refusal> {
        let refused = || Grant { status: 401, content_type: None, body: Bytes::new() };
        let own = self.seal.open(token, asked.registry).filter(|own| own.kind == REFRESH);
        let key = own.as_ref().and_then(|own| of_hex(&own.of));
        let Some(seen) = key.and_then(|key| asking.logins.get(&key)) else { return Ok(refused()) };
        if asking.upstreams.is_there(asked.registry).await {
            return Ok(refused());
        }
        let Some(left) = seen.left(asking.stale) else { return Ok(refused()) };
        let life = left.min(LIFE);
        let own =
            own_token(ACCESS, asked.registry, seen.name.as_ref(), &seen.grants.part_of(scope), String::new(), life);
        Ok(token_reply(&self.seal.sign(&own), "access_token", life))
    }
}

/// A key as text, for a token to name.
pub(super) fn hex(key: &Key) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

fn of_hex(text: &str) -> Option<Key> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// What a token of larder's own says.
fn own_token(
    kind: &str,
    registry: &Registry,
    name: Option<&Arc<str>>,
    grants: &Grants,
    of: String,
    life: Duration,
) -> Own {
    Own {
        kind: kind.to_owned(),
        aud: registry.to_string(),
        exp: unix(SystemTime::now() + life),
        sub: name.map(ToString::to_string),
        access: grants.to_claim(),
        of,
    }
}

/// The one claim that is looked at.
#[derive(serde::Deserialize)]
struct Claims {
    exp: f64,
}

/// When a token dies, as it says itself: upstream has taken it.
fn expires_of(shown: &Shown) -> Option<SystemTime> {
    let text = match shown {
        Shown::Bearer(token) => token,
        Shown::Password { password, .. } => password,
    };
    let payload = text.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(claims.exp).ok()?)
}

fn token_reply(token: &str, field: &str, life: Duration) -> Grant {
    let body = serde_json::json!({ field: token, "expires_in": life.as_secs() }).to_string();
    Grant { status: 200, content_type: Some("application/json; charset=utf-8".to_owned()), body: body.into() }
}

/// The fields of a form or a query.
#[must_use]
pub fn fields(text: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(64);
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}
