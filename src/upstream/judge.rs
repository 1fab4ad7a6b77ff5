//! What an upstream lets a caller do, asked with the caller's own credential.
//!
//! What counts is what upstream grants, not what it was asked for: its token service gives a token with fewer rights without a word.
//! So a token that its service has just given for the caller's password is read; where it does not say what it allows, and for
//! a token that the caller brought, the content itself is asked for as the caller. That way nothing is ever written, and a "not
//! found" proves a right only at an ACR, which looks at rights first.

use super::auth::caller::{CallerLogin, Shown, grants};
use super::auth::scope::Scope;
use super::auth::session::{Authorization, Session};
use super::endpoints::Upstream;
use super::error::{ErrorKind, Failure, UpstreamError};
use super::limits::op::Op;
use super::protocol::classify;
use super::protocol::fetch::Ask;
use super::transport::pool::Outgoing;
use crate::oci::{Deed, Grants};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::time::SystemTime;

/// What upstream says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The caller may.
    Allowed,
    /// The caller may not.
    Denied,
    /// There is nothing that the caller may see.
    Absent,
    /// The credential is none.
    Wrong,
}

/// A verdict and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What upstream says.
    pub verdict: Verdict,
    /// When the caller's own token dies, if it says so.
    pub expires: Option<SystemTime>,
    /// Whom upstream takes the caller for; `None` if it has looked at no credential, or this is not known.
    pub name: Option<String>,
}

fn scope(deed: &Deed) -> Scope {
    match deed {
        Deed::Login => Scope::Registry,
        Deed::Catalogue => Scope::Catalogue,
        Deed::Manifest(name, _) | Deed::Blob(name, _) => Scope::Pull(name.clone()),
        Deed::Tags(name) => Scope::Tags(name.clone()),
        Deed::Referrers(name, _) => Scope::Referrers(name.clone()),
        Deed::Push(name) => Scope::Push(name.clone()),
        Deed::Delete(name) => Scope::Delete(name.clone()),
        Deed::Metadata(name) => Scope::Metadata(name.clone()),
        Deed::Locks(name) => Scope::Locks(name.clone()),
    }
}

/// The question that shows it: method, kind, path, and what is accepted. Nothing is written to find out.
fn probe(deed: &Deed) -> Option<(Method, Op, String, &'static str)> {
    let any = "*/*";
    Some(match deed {
        Deed::Login => (Method::GET, Op::Ping, "/v2/".to_owned(), any),
        Deed::Catalogue => (Method::GET, Op::Catalogue, "/v2/_catalog?n=1".to_owned(), any),
        Deed::Manifest(name, reference) => (
            Method::HEAD,
            Op::ManifestHead,
            format!("/v2/{name}/manifests/{reference}"),
            super::protocol::document::MANIFESTS,
        ),
        Deed::Blob(name, digest) => (Method::HEAD, Op::BlobHead, format!("/v2/{name}/blobs/{digest}"), any),
        Deed::Tags(name) => (Method::GET, Op::Tags, format!("/v2/{name}/tags/list?n=1"), any),
        Deed::Referrers(name, digest) => (Method::GET, Op::Referrers, format!("/v2/{name}/referrers/{digest}"), any),
        Deed::Metadata(name) => (Method::GET, Op::AcrRead, format!("/acr/v1/{name}"), any),
        Deed::Push(_) | Deed::Delete(_) | Deed::Locks(_) => return None,
    })
}

impl Upstream {
    /// Asks whether a caller may do something.
    pub async fn judge(&self, login: &CallerLogin, deed: &Deed) -> Result<Judgement, UpstreamError> {
        let verdict = match &login.0 {
            Shown::Password { .. } => self.judge_by_password(login, deed).await,
            Shown::Bearer(token) => match self.judge_by_token(token.expose(), deed).await {
                // What no registry takes for a token of its own may be Entra's.
                Ok((Verdict::Wrong, _)) if self.own().session().has_exchange() => {
                    self.judge_by_password(login, deed).await
                }
                outcome => outcome,
            },
        };
        let verdict = self.own().settled(verdict, || format!("ask {} what a caller may do", self.own().shown()));
        verdict.map(|(verdict, proved)| Judgement {
            verdict,
            expires: login.expires(),
            name: login.name().filter(|_| proved),
        })
    }

    /// Whether upstream was shown the credential stands beside the verdict.
    async fn judge_by_password(&self, login: &CallerLogin, deed: &Deed) -> Result<(Verdict, bool), Failure> {
        // Not with a token that the caller brought: what that says of itself is no verdict.
        // Nor with one that was given before: rights may have been taken since.
        let session = self.own().judging_session(login);
        self.judge_with(&session, deed).await.or_else(|failure| self.read(failure))
    }

    async fn judge_with(&self, session: &Session, deed: &Deed) -> Result<(Verdict, bool), Failure> {
        let wanted = scope(deed);
        let op = probe(deed).map_or(Op::AcrRead, |(_, op, ..)| op);
        let authorization = session.prepare(op, &wanted).await?;
        if let Some((token, scope)) = authorization.as_ref().and_then(Authorization::token) {
            if *deed == Deed::Login {
                return Ok((Verdict::Allowed, true));
            }
            if let Some(held) = grants(token) {
                let covered = held.cover(&Grants::of_scope(scope));
                return Ok((if covered { Verdict::Allowed } else { Verdict::Denied }, true));
            }
        }
        let Some((method, op, path, accept)) = probe(deed) else {
            // Nobody says whether the caller may write: then they may not.
            return Ok((Verdict::Denied, authorization.is_some()));
        };
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let ask = Ask { op, method: method.clone(), url: self.own().url(&path)?, headers, scope: wanted };
        if method == Method::HEAD {
            session.fetch_head(ask).await?.0.body.drain().await;
        } else {
            session.fetch(&ask).await?.body.drain().await;
        }
        Ok((Verdict::Allowed, session.has_asked_for_login()))
    }

    fn read(&self, failure: Failure) -> Result<(Verdict, bool), Failure> {
        match failure.kind {
            ErrorKind::CredentialRefused { .. } => Ok((Verdict::Wrong, true)),
            ErrorKind::RepositoryRefused { .. } => Ok((Verdict::Denied, true)),
            ErrorKind::NotFound { .. } if self.own().session().has_exchange() => Ok((Verdict::Allowed, true)),
            ErrorKind::NotFound { .. } => Ok((Verdict::Absent, false)),
            _ => Err(failure),
        }
    }

    /// A token that the caller brought says nothing itself: anybody can write one. Upstream has to take it.
    async fn judge_by_token(&self, token: &str, deed: &Deed) -> Result<(Verdict, bool), Failure> {
        if let Some((method, op, path, accept)) = probe(deed) {
            return self.ask_with(token, method, op, &path, accept).await.map(|verdict| (verdict, false));
        }
        // That the upstream lets the login in proves it only if it lets no request in without one.
        let guarded = self.own().session().is_guarded().await?;
        if !guarded || !self.own().session().has_exchange() {
            return Ok((Verdict::Denied, false));
        }
        let answer = self.ask_with(token, Method::GET, Op::Ping, "/v2/", "*/*").await?;
        if answer != Verdict::Allowed {
            return Ok((answer, false));
        }
        let wanted = scope(deed).challenged(None);
        let covered = grants(token).is_some_and(|held| held.cover(&Grants::of_scope(&wanted)));
        Ok((if covered { Verdict::Allowed } else { Verdict::Denied }, false))
    }

    /// What upstream says to a question with a token.
    async fn ask_with(
        &self,
        token: &str,
        method: Method,
        op: Op,
        path: &str,
        accept: &'static str,
    ) -> Result<Verdict, Failure> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::foreign("a token that no header can carry"))?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (ACCEPT, HeaderValue::from_static(accept))]);
        let outgoing = Outgoing { method, url: self.own().url(path)?, headers, body: Bytes::new() };
        let client = self.own().client();
        let answer = client.send(op, outgoing).await?;
        let speaker = classify::is_speaker(&answer.headers);
        // A blob's answer leads to storage: upstream has decided by then.
        let led = op == Op::BlobHead && answer.status.is_redirection() && speaker;
        if led || answer.status.is_success() && !classify::is_page(&answer.headers) {
            answer.body.drain().await;
            return Ok(Verdict::Allowed);
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            let few = super::auth::challenge::challenges(&answer.headers)
                .iter()
                .any(|challenge| challenge.get("error") == Some("insufficient_scope"));
            answer.body.drain().await;
            return Ok(if few { Verdict::Denied } else { Verdict::Wrong });
        }
        let failure = classify::failure(op, answer, Some("a caller")).await;
        self.read(failure).map(|(verdict, _)| verdict)
    }
}
