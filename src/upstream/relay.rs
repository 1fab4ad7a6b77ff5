//! A caller's request to the token service, passed on as it came but for the service's name, and the answer back.

use super::auth::caller::grants;
use super::auth::jwt;
use super::auth::token_client::Service;
use super::endpoints::Upstream;
use super::error::{ErrorKind, Failure, UpstreamError};
use super::limits::op::Op;
use super::protocol::classify;
use crate::oci::Grants;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use std::time::SystemTime;

/// An answer of a token service is no larger.
const MAX_ANSWER: usize = 256 << 10;

/// What a caller asks the token service for.
#[derive(Clone)]
pub struct TokenRequest {
    /// Whether it is for ACR's exchange of Entra's tokens.
    pub exchange: bool,
    /// Whether the fields stand in the body.
    pub post: bool,
    /// Names and values, in their order.
    pub fields: Vec<(String, String)>,
    /// `Authorization`, as it came.
    pub authorization: Option<HeaderValue>,
}

/// What the token service answers.
pub struct TokenAnswer {
    /// The status: 200, or a refusal.
    pub status: u16,
    /// The body's type.
    pub content_type: Option<String>,
    /// The body, which may hold a token.
    pub body: Bytes,
    /// The token that was given.
    pub token: Option<GivenToken>,
}

/// A token that a token service has given.
pub struct GivenToken {
    /// The token.
    pub text: zeroize::Zeroizing<String>,
    /// What it allows, if it says so.
    pub grants: Option<Grants>,
    /// When it dies, if it says so.
    pub expires: Option<SystemTime>,
}

#[derive(serde::Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
}

impl Upstream {
    /// Passes the request to the upstream's own token service. An answer that says no is an answer.
    pub async fn pass_token_request(&self, request: TokenRequest) -> Result<TokenAnswer, UpstreamError> {
        let answered = self.pass(request).await;
        self.own().settled(answered, || format!("ask the token service of {} for a caller", self.own().shown()))
    }

    /// Whether it answers now, as a registry does.
    pub async fn is_there(&self) -> bool {
        self.own().session().is_guarded().await.is_ok()
    }

    async fn pass(&self, mut request: TokenRequest) -> Result<TokenAnswer, Failure> {
        let Some(service) = self.own().session().service().await? else {
            let kind =
                ErrorKind::NotFound { code: "UNSUPPORTED".to_owned(), message: "there is no token service".to_owned() };
            return Err(Failure::new(kind, format!("{} has no token service", self.own().origin())));
        };
        if !self.own().session().token_client.trusts(&service) {
            let reason =
                format!("a caller's login was not sent to {}, which is not {}", service.origin, self.own().origin());
            return Err(Failure::foreign(reason));
        }
        for (name, value) in &mut request.fields {
            if name == "service" {
                service.audience().clone_into(value);
            }
        }
        let (op, exchange) = if request.exchange { (Op::Exchange, true) } else { (Op::Token, false) };
        let method = if request.post { Method::POST } else { Method::GET };
        let outgoing = self.outgoing_to(&service, exchange, &method, &request)?;
        let answer = self.own().client().send(op, outgoing).await?;
        let status = answer.status;
        let page = classify::is_page(&answer.headers);
        if page || !(status.is_success() || status.is_client_error()) || matches!(status.as_u16(), 403 | 407 | 429) {
            return Err(classify::failure(op, answer, Some("a caller")).await);
        }
        let content_type = answer.header(CONTENT_TYPE).map(str::to_owned);
        let body = answer.collect(MAX_ANSWER).await?;
        let token = if status.is_success() { given(&body, exchange) } else { None };
        if status.is_success() && token.is_none() {
            return Err(Failure::foreign(format!(
                "the token service {} answered {status} without a token",
                service.origin
            )));
        }
        Ok(TokenAnswer { status: status.as_u16(), content_type, body, token })
    }

    fn outgoing_to(
        &self,
        service: &Service,
        exchange: bool,
        method: &Method,
        request: &TokenRequest,
    ) -> Result<super::transport::pool::Outgoing, Failure> {
        let fields: Vec<(&str, &str)> =
            request.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let outgoing = service.outgoing(exchange, method, fields, request.authorization.clone());
        outgoing.ok_or_else(|| Failure::foreign(format!("{} has no exchange", self.own().origin())))
    }
}

fn given(body: &[u8], exchange: bool) -> Option<GivenToken> {
    let given: Given = serde_json::from_slice(body).ok()?;
    let access = [given.access_token, given.token].into_iter().flatten().find(|text| !text.is_empty());
    let text =
        zeroize::Zeroizing::new(if exchange { given.refresh_token.filter(|text| !text.is_empty()) } else { access }?);
    Some(GivenToken { grants: grants(&text), expires: jwt::expires(&text), text })
}
