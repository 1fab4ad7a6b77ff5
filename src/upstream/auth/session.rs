//! Sends requests to the upstream with the authorization that it wants, and answers its challenges, once per request.

use super::challenge::{self, Challenge};
use super::credential::Memo;
use super::login::{self, Grant, Login};
use super::scope::{Learned, Scope};
use super::secret;
use super::token_client::{Service, TokenClient};
use super::tokens::{Key, Span, Token, Tokens};
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::op::Op;
use crate::upstream::protocol::answer::Answer;
use crate::upstream::protocol::classify;
use crate::upstream::protocol::client::HttpClient;
use crate::upstream::protocol::error_body::ErrorBody;
use crate::upstream::transport::pool::Outgoing;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use std::sync::Arc;

/// How the upstream wants to be asked, once it has said so.
#[derive(Clone, Debug, PartialEq)]
enum Scheme {
    Bearer(Service),
    Basic,
    /// Without any.
    Open,
}

/// What a request was sent with.
pub(in crate::upstream) struct Authorization {
    header: HeaderValue,
    pub(in crate::upstream) identity: String,
    via: Via,
}

enum Via {
    Token { key: Key, token: Arc<Token>, fresh: bool },
    Password(Login),
}

/// A 401, read to its end: nothing that is waited for next may depend on its connection.
pub(in crate::upstream) struct Unauthorized {
    origin: String,
    headers: HeaderMap,
    said: Option<ErrorBody>,
}

impl Unauthorized {
    pub(in crate::upstream) async fn read(answer: Answer) -> Self {
        let (origin, headers) = (answer.origin.to_string(), answer.headers.clone());
        let said = ErrorBody::read(&answer.collect(classify::MAX_ERROR).await.unwrap_or_default());
        Self { origin, headers, said }
    }
}

/// Sends what the upstream is to be asked, and keeps what it has said about how.
pub(in crate::upstream) struct Session {
    pub(in crate::upstream) client: Arc<HttpClient>,
    pub(in crate::upstream) token_client: TokenClient,
    scheme: Arc<Mutex<Option<Scheme>>>,
    learned: Arc<Mutex<Learned>>,
    tokens: Arc<Tokens>,
    /// A token that stands for all others.
    fixed: Option<Arc<Token>>,
}

impl Session {
    pub(in crate::upstream) fn new(client: Arc<HttpClient>, token_client: TokenClient, tokens: usize) -> Self {
        Self {
            client,
            token_client,
            scheme: Arc::default(),
            learned: Arc::default(),
            tokens: Arc::new(Tokens::new(tokens)),
            fixed: None,
        }
    }

    /// The same upstream, asked with a login that is not larder's. What upstream has said about how to ask holds for both.
    pub(in crate::upstream) fn with_login(&self, login: Memo, tokens: Arc<Tokens>, fixed: Option<Token>) -> Self {
        Self {
            client: Arc::clone(&self.client),
            token_client: self.token_client.with_login(login),
            scheme: Arc::clone(&self.scheme),
            learned: Arc::clone(&self.learned),
            tokens,
            fixed: fixed.map(Arc::new),
        }
    }

    /// Whether the upstream is an ACR: it has an exchange for Entra's tokens, and looks at rights before it looks for content.
    pub(in crate::upstream) fn has_exchange(&self) -> bool {
        matches!(&*self.scheme.lock(), Some(Scheme::Bearer(service)) if service.is_acr())
    }

    /// Whether the upstream has asked for the password itself.
    pub(in crate::upstream) fn takes_passwords(&self) -> bool {
        matches!(&*self.scheme.lock(), Some(Scheme::Basic))
    }

    pub(in crate::upstream) fn has_asked_for_login(&self) -> bool {
        matches!(&*self.scheme.lock(), Some(Scheme::Bearer(_) | Scheme::Basic))
    }

    /// The token service, if there is one; the upstream is asked, if it has not said so yet.
    pub(in crate::upstream) async fn service(&self) -> Result<Option<Service>, Failure> {
        if self.scheme.lock().is_none() {
            self.is_guarded().await?;
        }
        match &*self.scheme.lock() {
            Some(Scheme::Bearer(service)) => Ok(Some(service.clone())),
            _ => Ok(None),
        }
    }

    /// Whether the upstream demands a login now.
    pub(in crate::upstream) async fn is_guarded(&self) -> Result<bool, Failure> {
        let answer = self.client.send(Op::Ping, self.ping()?).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            let open = answer.status.is_success() && classify::is_speaker(&answer.headers);
            if !open {
                return Err(classify::failure(Op::Ping, answer, None).await);
            }
            answer.body.drain().await;
            return Ok(false);
        }
        let refusal = Unauthorized::read(answer).await;
        let found = challenge::challenges(&refusal.headers);
        if let Some(bearer) = found.iter().find(|one| one.scheme == "bearer") {
            *self.scheme.lock() = Some(Scheme::Bearer(Service::of(bearer, &self.token_client.origin)?));
        }
        Ok(true)
    }

    fn ping(&self) -> Result<Outgoing, Failure> {
        let origin = &self.token_client.origin;
        let url = format!("{}://{}/v2/", origin.scheme(), origin.authority());
        let url = url.parse().map_err(|_| Failure::foreign(format!("'{url}' is no address")))?;
        Ok(Outgoing { method: Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() })
    }

    /// Sends a request to the upstream, and once more if that answers with a challenge. Any status but 401 comes back.
    pub(in crate::upstream) async fn send(
        &self,
        op: Op,
        outgoing: &Outgoing,
        scope: &Scope,
    ) -> Result<(Answer, Option<Authorization>), Failure> {
        self.client.admit(op)?;
        let authorization = self.anticipate(scope, Span::Short).await?;
        let answer = self.client.send(op, with(outgoing, authorization.as_ref())).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            self.forget_forbidden(&answer, authorization.as_ref());
            return Ok((answer, authorization));
        }
        let authorization = self.respond(op, &Unauthorized::read(answer).await, scope, authorization).await?;
        self.client.retried("unauthorized");
        let answer = self.client.send(op, with(outgoing, Some(&authorization))).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(self.refused(op, &Unauthorized::read(answer).await, Some(authorization)));
        }
        self.forget_forbidden(&answer, Some(&authorization));
        Ok((answer, Some(authorization)))
    }

    /// The authorization that the upstream will want, if it has said before how; that saves a 401.
    async fn anticipate(&self, scope: &Scope, span: Span) -> Result<Option<Authorization>, Failure> {
        let scheme = self.scheme.lock().clone();
        match scheme {
            None | Some(Scheme::Open) => Ok(None),
            Some(Scheme::Basic) => Ok(password(self.token_client.login.material().await?)),
            Some(Scheme::Bearer(service)) => {
                let wanted = scope.expected(&self.learned.lock());
                let Some(wanted) = wanted else { return Ok(None) };
                let authorization = self.token(&service, &wanted, span).await;
                if authorization.as_ref().is_err_and(may_have_moved) {
                    // The next challenge says where to.
                    *self.scheme.lock() = None;
                }
                authorization.map(Some)
            }
        }
    }

    /// The authorization for a request whose body can only be sent once: an upstream that has not yet said how it wants to be
    /// asked is asked for that first.
    pub(in crate::upstream) async fn prepare(&self, op: Op, scope: &Scope) -> Result<Option<Authorization>, Failure> {
        self.client.admit(op)?;
        if self.scheme.lock().is_none() {
            let answer = self.client.send(Op::Ping, self.ping()?).await?;
            if answer.status != StatusCode::UNAUTHORIZED {
                if answer.status.is_success() && classify::is_speaker(&answer.headers) {
                    *self.scheme.lock() = Some(Scheme::Open);
                }
                answer.body.drain().await;
                return Ok(None);
            }
            return self.respond(op, &Unauthorized::read(answer).await, scope, None).await.map(Some);
        }
        self.anticipate(scope, Span::Long).await
    }

    /// What to send after a 401.
    pub(in crate::upstream) async fn respond(
        &self,
        op: Op,
        answer: &Unauthorized,
        scope: &Scope,
        authorization: Option<Authorization>,
    ) -> Result<Authorization, Failure> {
        let found = challenge::challenges(&answer.headers);
        if let Some(bearer) = found.iter().find(|challenge| challenge.scheme == "bearer") {
            return self.respond_to_bearer(op, answer, bearer, scope, authorization).await;
        }
        // An ACR always has tokens: a Basic challenge in its name comes from an intermediary.
        let has_tokens =
            matches!(*self.scheme.lock(), Some(Scheme::Bearer(_))) || login::is_acr(&self.token_client.origin.host);
        let wants_password = found.iter().any(|challenge| challenge.scheme == "basic");
        if wants_password && has_tokens {
            let reason = format!(
                "{} asks for a password although it has tokens, and was not given it; {}",
                answer.origin,
                classify::LOOK
            );
            return Err(Failure::foreign(reason));
        }
        if wants_password {
            return self.respond_to_basic(answer, authorization).await;
        }
        Err(self.refused(op, answer, authorization))
    }

    async fn respond_to_bearer(
        &self,
        op: Op,
        answer: &Unauthorized,
        bearer: &Challenge,
        scope: &Scope,
        authorization: Option<Authorization>,
    ) -> Result<Authorization, Failure> {
        let service = Service::of(bearer, &self.token_client.origin)?;
        let wanted = scope.challenged(bearer.get("scope"));
        scope.learn(&wanted, &mut self.learned.lock());
        *self.scheme.lock() = Some(Scheme::Bearer(service.clone()));
        if let Some(Authorization { via: Via::Token { key, token, fresh }, .. }) = &authorization {
            // A token that is not understood is no verdict on a right: another one may be.
            if *fresh && *key == service.key(&wanted) && !is_invalid_token(bearer) {
                return Err(self.refused(op, answer, authorization));
            }
            self.tokens.discard(key, token);
        }
        self.token(&service, &wanted, Span::Short).await
    }

    async fn respond_to_basic(
        &self,
        answer: &Unauthorized,
        authorization: Option<Authorization>,
    ) -> Result<Authorization, Failure> {
        *self.scheme.lock() = Some(Scheme::Basic);
        let sent = match &authorization {
            Some(Authorization { via: Via::Password(material), .. }) => Some(material.grant.clone()),
            _ => None,
        };
        if sent.is_some() {
            self.token_client.login.refused();
        }
        let material = self.token_client.login.material().await?;
        if sent.as_ref() == Some(&material.grant) {
            return Err(material.refused(&answer.origin));
        }
        if matches!(material.grant, Grant::Refresh(_) | Grant::Entra { .. }) {
            let problem = format!("{} wants a user and a password, and {} has none", answer.origin, material.source);
            return Err(Failure::credential(&material.identity, problem, &material.remedy));
        }
        let refused = material.refused(&answer.origin);
        password(material).ok_or(refused)
    }

    async fn token(&self, service: &Service, scope: &str, span: Span) -> Result<Authorization, Failure> {
        let key = service.key(scope);
        if let Some(token) = self.fixed.clone() {
            let header = token.secret.bearer();
            let header = header.ok_or_else(|| Failure::foreign("a caller's token that no header can carry"))?;
            return Ok(Authorization {
                header,
                identity: token.identity.clone(),
                via: Via::Token { key, token, fresh: true },
            });
        }
        let (token, fresh) =
            self.tokens.get_for(span, &key, || Box::pin(self.token_client.fetch(service, scope))).await?;
        let Some(header) = token.secret.bearer() else {
            let reason = format!("the token service {} gave a token that no header can carry", service.origin);
            return Err(Failure::foreign(reason));
        };
        Ok(Authorization { header, identity: token.identity.clone(), via: Via::Token { key, token, fresh } })
    }

    /// The upstream has refused what it was sent for good.
    pub(in crate::upstream) fn refused(
        &self,
        op: Op,
        answer: &Unauthorized,
        authorization: Option<Authorization>,
    ) -> Failure {
        let Unauthorized { origin, headers, said } = answer;
        let correlation = classify::correlation(headers);
        if said.is_none() && !classify::is_speaker(headers) && challenge::challenges(headers).is_empty() {
            let reason = format!("{origin} answered 401, but not as a registry does; {}", classify::LOOK);
            return Failure::foreign(reason);
        }
        let words = said.as_ref().map(|said| format!(" ({}: {})", said.code, said.message)).unwrap_or_default();
        let Some(authorization) = authorization else {
            let remedy = "configure a login ([upstream.credential], or --login)";
            return Failure::credential("anonymous", format!("{origin} wants a login"), remedy);
        };
        match authorization.via {
            Via::Password(material) => material.refused(origin),
            Via::Token { key, token, .. } => {
                // Rights may be granted later: the next request asks for a token that knows of them.
                self.tokens.discard(&key, &token);
                if challenge::challenges(headers).iter().any(is_invalid_token) {
                    let reason = format!(
                        "{origin} does not accept the token that its token service has just given to {}{words}{correlation}; if \
                         this stays, its clock or its keys are wrong",
                        token.identity
                    );
                    return Failure::foreign(reason);
                }
                if let Some(withheld) = &token.withheld {
                    return Failure::credential("anonymous", format!("{origin} wants a login"), withheld);
                }
                let reason = classify::refusal(op, origin, &token.identity, &format!("{words}{correlation}"));
                let ErrorBody { code, message, errors, .. } =
                    said.clone().unwrap_or_else(|| ErrorBody::nothing_but("UNAUTHORIZED"));
                Failure::new(ErrorKind::RepositoryRefused { code, message }, reason).saying(errors)
            }
        }
    }

    /// A token that was good for a 403 would be good for nothing but the same until it expires.
    pub(in crate::upstream) fn forget_forbidden(&self, answer: &Answer, authorization: Option<&Authorization>) {
        if answer.status == StatusCode::FORBIDDEN
            && let Some(Authorization { via: Via::Token { key, token, .. }, .. }) = authorization
        {
            self.tokens.discard(key, token);
        }
    }
}

impl Authorization {
    /// The token, and the scope that it was asked for; a password is none.
    pub(in crate::upstream) fn token(&self) -> Option<(&str, &str)> {
        match &self.via {
            Via::Token { key, token, .. } => Some((token.secret.expose(), &key.scope)),
            Via::Password(_) => None,
        }
    }

    /// Adds the authorization to a request for the upstream itself.
    pub(in crate::upstream) fn sign(&self, outgoing: &mut Outgoing) {
        outgoing.headers.insert(AUTHORIZATION, self.header.clone());
    }
}

/// Whether it was the token itself that was refused (RFC 6750, 3.1), and not what was asked with it: a registry that has lost its
/// keys, whose clock is wrong, or whose replicas do not know each other's tokens yet.
fn is_invalid_token(challenge: &Challenge) -> bool {
    challenge.scheme == "bearer" && challenge.get("error") == Some("invalid_token")
}

/// Whether a failure to get a token may mean that the service is no longer there, or no longer the one to ask.
fn may_have_moved(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        ErrorKind::Unreachable | ErrorKind::Tls | ErrorKind::Foreign | ErrorKind::CredentialRefused { .. }
    )
}

fn with(outgoing: &Outgoing, authorization: Option<&Authorization>) -> Outgoing {
    let mut outgoing = outgoing.clone();
    if let Some(authorization) = authorization {
        authorization.sign(&mut outgoing);
    }
    outgoing
}

fn password(material: Login) -> Option<Authorization> {
    let Grant::Password { username, password } = &material.grant else { return None };
    let header = secret::basic(username, password)?;
    Some(Authorization { header, identity: material.identity.clone(), via: Via::Password(material) })
}
