//! The token service that clients find under an upstream's own name: `/oauth2/token` and `/oauth2/exchange`.

use super::error::Problem;
use super::read_body;
use super::reply::{Reply, value};
use super::service::Inner;
use crate::access::{Caller, TokenAsked, TokenRequest, fields};
use crate::oci::Registry;
use crate::server::http::body::Body;
use http::{HeaderValue, Method, Response, StatusCode, header, request};
use hyper::body::Incoming;

/// A form with the largest of Entra's tokens twice.
const MAX_FORM: usize = 128 << 10;

/// Which of the two a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Service {
    Token,
    Exchange,
}

impl Service {
    pub(in crate::server) fn of(path: &str) -> Option<Self> {
        match path {
            "/oauth2/token" => Some(Self::Token),
            "/oauth2/exchange" => Some(Self::Exchange),
            _ => None,
        }
    }

    fn methods(self) -> &'static [Method] {
        match self {
            Self::Token => &[Method::GET, Method::POST],
            Self::Exchange => &[Method::POST],
        }
    }
}

impl Inner {
    pub(in crate::server) async fn token_service(
        &self,
        service: Service,
        registry: &Registry,
        caller: &Caller<'_>,
        head: &request::Parts,
        body: Incoming,
    ) -> Result<Reply, Problem> {
        self.access.recognize(caller)?;
        if !service.methods().contains(&head.method) {
            return Err(Problem::method(&head.method, service.methods()));
        }
        let post = head.method == Method::POST;
        let fields = if post {
            let (stall, documents) = (self.cache.limits().stall_timeout, self.cache.documents());
            let form = read_body::collect(body, "the form", MAX_FORM, stall, documents).await?;
            fields(&String::from_utf8_lossy(&form))
        } else {
            fields(head.uri.query().unwrap_or_default())
        };
        let request = TokenRequest {
            exchange: service == Service::Exchange,
            post,
            fields,
            authorization: caller.authorization.filter(|_| !caller.shows_several).cloned(),
        };
        let granted = self.access.token(TokenAsked { address: caller.address, registry, request }).await?;
        let length = granted.body.len();
        let mut response = Response::new(Body::full(granted.body));
        *response.status_mut() = StatusCode::from_u16(granted.status).unwrap_or(StatusCode::UNAUTHORIZED);
        let headers = response.headers_mut();
        if let Some(kind) = &granted.content_type {
            headers.insert(header::CONTENT_TYPE, value(kind));
        }
        headers.insert(header::CONTENT_LENGTH, length.into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(Reply { response, provenance: None, detail: None })
    }
}
