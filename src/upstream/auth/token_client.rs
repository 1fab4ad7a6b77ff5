//! Gets tokens from a token service: Docker's protocol, OAuth2's, and ACR's exchange, whichever the login needs.

use super::challenge::Challenge;
use super::credential::Memo;
use super::jwt;
use super::login::{Grant, Login};
use super::secret::{self, Secret};
use super::tokens::{Key, Token, Tokens};
use crate::oci::Registry;
use crate::telemetry::Metrics;
use crate::upstream::error::{ErrorKind, Failure};
use crate::upstream::limits::op::Op;
use crate::upstream::protocol::answer::Answer;
use crate::upstream::protocol::classify;
use crate::upstream::protocol::client::HttpClient;
use crate::upstream::transport::origin::Origin;
use crate::upstream::transport::pool::Outgoing;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A token that does not say how long it lives is used for this long, the least that Docker's protocol allows.
const LIFETIME: Duration = Duration::from_secs(60);
/// No token that fits into a request's head is as long as this.
const MAX_ANSWER: usize = 128 << 10;
/// What is left as it is in a query or form.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A token service as a challenge names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) struct Service {
    realm: Uri,
    pub(in crate::upstream) origin: Origin,
    /// The name that it goes by in its own protocol.
    audience: String,
}

impl Service {
    /// Reads a `Bearer` challenge of the upstream at `own`. A realm that is http where the upstream is https is not asked.
    pub(in crate::upstream) fn of(challenge: &Challenge, own: &Origin) -> Result<Self, Failure> {
        let realm = challenge.get("realm").and_then(|realm| realm.parse::<Uri>().ok());
        let Some((realm, origin)) = realm.and_then(|realm| Origin::of(&realm).map(|origin| (realm, origin))) else {
            return Err(Failure::foreign(format!("{own} names a token service that has no address")));
        };
        if own.https && !origin.https {
            let reason = format!("{own} names a token service without TLS ({origin}), which is not asked after https");
            return Err(Failure::foreign(reason));
        }
        Ok(Self { realm, origin, audience: challenge.get("service").unwrap_or_default().to_owned() })
    }

    pub(in crate::upstream) fn key(&self, scope: &str) -> Key {
        Key { realm: self.realm.to_string(), service: self.audience.clone(), scope: scope.to_owned() }
    }

    /// ACR's service, which wants POST where Docker's protocol has GET.
    pub(in crate::upstream) fn is_acr(&self) -> bool {
        self.realm.path() == "/oauth2/token"
    }

    /// The name that it goes by.
    pub(in crate::upstream) fn audience(&self) -> &str {
        &self.audience
    }

    /// A request to it, or to the exchange beside it, of which there may be none.
    pub(in crate::upstream) fn outgoing(
        &self,
        exchange: bool,
        method: &Method,
        fields: Vec<(&str, &str)>,
        authorization: Option<HeaderValue>,
    ) -> Option<Outgoing> {
        let url = if exchange { self.is_acr().then(|| self.exchange())?? } else { self.realm.clone() };
        Some(outgoing(&url, &Request { kind: "caller", method: method.clone(), fields, authorization }))
    }

    /// ACR's exchange stands beside its token service.
    fn exchange(&self) -> Option<Uri> {
        format!("{:?}/oauth2/exchange", self.origin).parse().ok()
    }
}

/// Asks token services, with the login of one upstream.
pub(in crate::upstream) struct TokenClient {
    pub(in crate::upstream) name: Registry,
    pub(in crate::upstream) origin: Origin,
    pub(in crate::upstream) token_realms: Vec<String>,
    pub(in crate::upstream) login: Memo,
    pub(in crate::upstream) client: Arc<HttpClient>,
    pub(in crate::upstream) metrics: Arc<Metrics>,
    /// ACR refresh tokens that an Entra token was exchanged for.
    pub(in crate::upstream) exchanged: Tokens,
    /// Where that Entra token came from, and what to do when its refresh token is refused.
    pub(in crate::upstream) exchanged_for: Mutex<(String, String)>,
    /// Whether the login is a caller's, which is to be judged: nothing else stands in for it.
    pub(in crate::upstream) strict: bool,
}

/// One way to ask.
struct Request<'a> {
    kind: &'static str,
    method: Method,
    fields: Vec<(&'a str, &'a str)>,
    authorization: Option<HeaderValue>,
}

impl TokenClient {
    /// Whether a login of the upstream may be sent to a token service.
    pub(in crate::upstream) fn trusts(&self, service: &Service) -> bool {
        self.origin.trusts(&service.origin, &self.token_realms)
    }

    /// The same services, with a caller's login.
    pub(in crate::upstream) fn with_login(&self, login: Memo) -> Self {
        Self {
            name: self.name.clone(),
            origin: self.origin.clone(),
            token_realms: self.token_realms.clone(),
            login,
            client: Arc::clone(&self.client),
            metrics: Arc::clone(&self.metrics),
            exchanged: Tokens::new(1),
            exchanged_for: Mutex::default(),
            strict: true,
        }
    }

    /// A token for `scope`. A login that is refused is read once more, in case it has changed.
    pub(in crate::upstream) async fn fetch(&self, service: &Service, scope: &str) -> Result<Token, Failure> {
        let key = service.key("");
        if self.exchanged.has(&key) {
            match self.with_exchanged(service, scope, None).await {
                Err(failure) if failure.is_credential() => self.exchanged.forget(&key),
                outcome => return outcome,
            }
        }
        let material = self.login.material().await?;
        if material.grant != Grant::Anonymous && !self.origin.trusts(&service.origin, &self.token_realms) {
            if self.strict {
                let realm = &service.origin;
                let remedy = format!("if {realm} may have it, add it to token_realms of upstream {}", self.name);
                return Err(Failure::foreign(format!("a caller's login was not sent to {realm}; {remedy}")));
            }
            return self.without_login(service, scope, &material).await;
        }
        match self.redeem(service, scope, &material).await {
            Err(failure) if failure.is_credential() => {
                self.login.refused();
                let again = self.login.material().await?;
                if again.grant == material.grant { Err(failure) } else { self.redeem(service, scope, &again).await }
            }
            outcome => outcome,
        }
    }

    async fn redeem(&self, service: &Service, scope: &str, material: &Login) -> Result<Token, Failure> {
        let (name, service_name) = (self.name.as_str(), service.audience.as_str());
        let common = |mut fields: Vec<(&'static str, String)>| {
            if !service_name.is_empty() {
                fields.push(("service", service_name.to_owned()));
            }
            if !scope.is_empty() {
                fields.push(("scope", scope.to_owned()));
            }
            fields
        };
        let form = |grant: &str| {
            let mut fields = common(vec![("grant_type", grant.to_owned())]);
            if !service.is_acr() {
                fields.push(("client_id", "larder".to_owned()));
            }
            fields
        };
        let (query, refresh, by_password) = (common(Vec::new()), form("refresh_token"), form("password"));
        let requests = match &material.grant {
            Grant::Entra { .. } => return self.with_exchanged(service, scope, Some(material)).await,
            Grant::Refresh(token) => {
                let fields = pairs(&refresh, &[("refresh_token", token.expose())]);
                vec![Request { kind: "refresh", method: Method::POST, fields, authorization: None }]
            }
            Grant::Password { username, password } => {
                let authorization = secret::basic(username, password);
                let Some(authorization) = authorization else {
                    return Err(Failure::credential(&material.identity, "the login cannot be sent", &material.remedy));
                };
                let fields = pairs(&by_password, &[("username", username), ("password", password.expose())]);
                let get = Request {
                    kind: "basic",
                    method: Method::GET,
                    fields: pairs(&query, &[]),
                    authorization: Some(authorization),
                };
                vec![get, Request { kind: "password", method: Method::POST, fields, authorization: None }]
            }
            Grant::Anonymous => {
                let get =
                    Request { kind: "anonymous", method: Method::GET, fields: pairs(&query, &[]), authorization: None };
                let fields = pairs(&by_password, &[]);
                let post = Request { kind: "anonymous", method: Method::POST, fields, authorization: None };
                if service.is_acr() { vec![post, get] } else { vec![get, post] }
            }
        };
        let token = self.ask(service, requests, material).await?;
        if let Some(expires) = material.expires.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            let expires = i64::try_from(expires.as_secs()).unwrap_or(i64::MAX);
            self.metrics.token_expiry.with_label_values(&[name]).set(expires);
        }
        Ok(token)
    }

    /// The service is not the upstream's own: it gets no login, and the token remembers why.
    async fn without_login(&self, service: &Service, scope: &str, held: &Login) -> Result<Token, Failure> {
        let realm = &service.origin;
        let remedy = format!("if {realm} may have that login, add it to token_realms of upstream {}", self.name);
        let withheld =
            format!("the login of {} was not sent to {realm}, which is not {}; {remedy}", held.identity, self.origin);
        let nobody = Login {
            grant: Grant::Anonymous,
            identity: "anonymous".to_owned(),
            source: String::new(),
            remedy: withheld.clone(),
            expires: None,
        };
        let mut token = self.redeem(service, scope, &nobody).await?;
        token.withheld = Some(withheld);
        Ok(token)
    }

    /// A token by way of ACR's exchange; `material` is the Entra login if it is at hand.
    async fn with_exchanged(&self, service: &Service, scope: &str, material: Option<&Login>) -> Result<Token, Failure> {
        let exchange = || async {
            match material {
                Some(material) => self.exchange(service, material).await,
                None => self.exchange(service, &self.login.material().await?).await,
            }
        };
        let (refresh, _) = self.exchanged.get(&service.key(""), exchange).await?;
        let (source, remedy) = self.exchanged_for.lock().clone();
        let login = Login {
            grant: Grant::Refresh(refresh.secret.clone()),
            identity: refresh.identity.clone(),
            source,
            remedy,
            expires: refresh.expires,
        };
        Box::pin(self.redeem(service, scope, &login)).await
    }

    async fn exchange(&self, service: &Service, material: &Login) -> Result<Token, Failure> {
        let (Grant::Entra { token, tenant }, Some(url)) = (&material.grant, service.exchange()) else {
            return Err(material.refused(&service.origin.to_string()));
        };
        let mut fields = vec![("grant_type", "access_token"), ("service", service.audience.as_str())];
        fields.extend(tenant.as_deref().map(|tenant| ("tenant", tenant)));
        fields.push(("access_token", token.expose()));
        let request = Request { kind: "exchange", method: Method::POST, fields, authorization: None };
        let answer = self.client.send(Op::Exchange, outgoing(&url, &request)).await;
        let outcome = match answer {
            Ok(answer) => self.read(answer, Op::Exchange, material).await,
            Err(failure) => Err(failure),
        };
        self.count(request.kind, &outcome);
        if outcome.is_ok() {
            *self.exchanged_for.lock() = (material.source.clone(), material.remedy.clone());
        }
        outcome
    }

    /// Asks in each way until one is understood.
    async fn ask(&self, service: &Service, requests: Vec<Request<'_>>, material: &Login) -> Result<Token, Failure> {
        let last = requests.len().saturating_sub(1);
        for (at, request) in requests.into_iter().enumerate() {
            let outcome = match self.client.send(Op::Token, outgoing(&service.realm, &request)).await {
                Ok(answer) if at < last && is_other_dialect(answer.status) => {
                    answer.body.drain().await;
                    self.metrics.token_requests.with_label_values(&[self.name.as_str(), request.kind, "error"]).inc();
                    continue;
                }
                Ok(answer) => self.read(answer, Op::Token, material).await,
                Err(failure) => Err(failure),
            };
            self.count(request.kind, &outcome);
            return outcome;
        }
        Err(Failure::foreign(format!("the token service {} understands no request", service.origin)))
    }

    async fn read(&self, answer: Answer, op: Op, material: &Login) -> Result<Token, Failure> {
        let by = format!("the token service {}", answer.origin);
        match answer.status {
            StatusCode::OK if !classify::is_page(&answer.headers) => {
                let body = answer.collect(MAX_ANSWER).await?;
                let read =
                    serde_json::from_slice(&body).ok().and_then(|reply: Reply| reply.token(op, &material.identity));
                read.ok_or_else(|| Failure::foreign(format!("{by} answered 200, but without a token")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST => {
                let mut failure = material.refused(&by);
                failure.reason.push_str(&classify::correlation(&answer.headers));
                answer.body.drain().await;
                Err(failure)
            }
            StatusCode::FORBIDDEN => {
                let failure = classify::failure(op, answer, Some(&material.identity)).await;
                let refused = matches!(failure.kind, ErrorKind::RepositoryRefused { .. } | ErrorKind::Rejected { .. });
                Err(if refused { material.refused(&by) } else { failure })
            }
            _ => {
                let failure = classify::failure(op, answer, Some(&material.identity)).await;
                let about_content = !failure.is_outage();
                Err(if about_content { Failure::foreign(failure.reason) } else { failure })
            }
        }
    }

    fn count(&self, kind: &str, outcome: &Result<Token, Failure>) {
        let result = match outcome {
            Ok(_) => "ok",
            Err(failure) if failure.is_credential() => "refused",
            Err(_) => "error",
        };
        self.metrics.token_requests.with_label_values(&[self.name.as_str(), kind, result]).inc();
    }
}

/// What a token service answers: ACR says `access_token` alone, Docker's protocol `token` or both.
#[derive(serde::Deserialize)]
struct Reply {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    /// A number of seconds; some services write a text, a fraction or less than nothing, which is no reason to have no token.
    expires_in: Option<Box<RawValue>>,
}

impl Reply {
    fn token(self, op: Op, identity: &str) -> Option<Token> {
        let access = [self.token, self.access_token].into_iter().flatten().find(|text| !text.is_empty());
        let text = if op == Op::Exchange { self.refresh_token.filter(|text| !text.is_empty()) } else { access }?;
        let seconds = self.expires_in.and_then(|said| said.get().trim_matches('"').trim().parse().ok());
        let lifetime = seconds.map_or(LIFETIME, |seconds| Duration::from_secs(seconds).max(LIFETIME));
        let expires = jwt::expires(&text);
        Some(Token::new(Secret::new(text), identity, expires, lifetime))
    }
}

/// A service that speaks the other dialect says one of these.
fn is_other_dialect(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

fn pairs<'a>(common: &'a [(&'static str, String)], own: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    common.iter().map(|(name, value)| (*name, value.as_str())).chain(own.iter().copied()).collect()
}

fn field(name: &str, value: &str) -> String {
    format!("{name}={}", utf8_percent_encode(value, ENCODED))
}

/// A form or query of these fields.
pub(in crate::upstream) fn encode_form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| field(name, value)).collect::<Vec<_>>().join("&")
}

fn outgoing(realm: &Uri, request: &Request<'_>) -> Outgoing {
    // Several scopes are one value in a form (OAuth 2) and several parameters in a query (Docker's protocol).
    let in_query = request.method != Method::POST;
    let fields = request.fields.iter().flat_map(|(name, value)| match *name {
        "scope" if in_query => value.split(' ').map(|scope| field(name, scope)).collect(),
        _ => vec![field(name, value)],
    });
    let fields = fields.collect::<Vec<_>>().join("&");
    let mut headers = HeaderMap::new();
    if let Some(authorization) = &request.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if request.method == Method::POST {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        return Outgoing { method: Method::POST, url: realm.clone(), headers, body: Bytes::from(fields) };
    }
    let joint = if realm.query().is_some() { '&' } else { '?' };
    // Both parts have been parsed or encoded: this cannot fail to be an address.
    let url = format!("{realm}{joint}{fields}").parse().unwrap_or_else(|_| realm.clone());
    Outgoing { method: Method::GET, url, headers, body: Bytes::new() }
}

#[cfg(test)]
mod realm_tests {
    use super::*;
    use crate::upstream::auth::challenge;

    #[test]
    fn a_token_service_without_tls_is_not_asked_after_https() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap()).unwrap();
        let of = |realm: &str, own: &str| {
            let line = format!("Bearer realm=\"{realm}\",service=\"x\"");
            let headers = HeaderMap::from_iter([(http::header::WWW_AUTHENTICATE, line.parse().unwrap())]);
            Service::of(&challenge::challenges(&headers)[0], &origin(own))
        };
        let refused = of("http://r.example/token", "https://r.example").unwrap_err().reason;
        assert!(refused.contains("without TLS") && refused.contains("r.example"), "{refused}");
        for (realm, own) in [
            ("https://r.example/token", "https://r.example"),
            ("https://r.example/token", "http://r.example"),
            ("http://r.example/token", "http://r.example"),
        ] {
            assert!(of(realm, own).is_ok(), "{realm} of {own}");
        }
        assert!(of("/token", "https://r.example").is_err(), "no address");
    }
}
