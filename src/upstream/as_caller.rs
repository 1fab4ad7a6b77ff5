//! As whom an upstream is asked: as larder, or with its callers' own credentials, each request as the caller for whom it is sent.

use super::auth::caller::{CallerLogin, Meanings, current_caller, grants};
use super::auth::credential::Memo;
use super::auth::login::{Login, LoginSummary};
use super::auth::session::Session;
use super::auth::tokens::Token;
use super::endpoint::Endpoint;
use super::endpoints::Upstream;
use super::error::{ErrorKind, Failure};
use std::sync::Arc;
use std::time::SystemTime;

impl Endpoint {
    /// How it is asked now: as larder, or as the caller for whom that is done.
    pub(super) fn session(&self) -> Arc<Session> {
        match (self.own_session().1, current_caller()) {
            (Some(_), Some(login)) => Arc::new(self.session_as(&login, self.token_of(&login))),
            _ => Arc::clone(self.own_session().0),
        }
    }

    /// How it is asked as a caller; the tokens that the caller has been given are kept for the next time, if anywhere.
    fn session_as(&self, login: &CallerLogin, token: Option<Token>) -> Session {
        let tokens = self.own_session().1.map(|callers| callers.tokens(login)).unwrap_or_default();
        self.own_session().0.with_login(Memo::new(Box::new(Meanings::of(login))), tokens, token)
    }

    /// The same for a question about the caller's rights.
    pub(super) fn judging_session(&self, login: &CallerLogin) -> Session {
        self.own_session().0.with_login(Memo::new(Box::new(Meanings::of(login))), Arc::default(), None)
    }

    /// The token that a caller has brought, which is shown as it is; at an ACR, one that says nothing of rights is Entra's.
    fn token_of(&self, login: &CallerLogin) -> Option<Token> {
        login.token().filter(|token| grants(token.secret.expose()).is_some() || !self.own_session().0.has_exchange())
    }

    /// Whether it is asked as its callers, and never as larder.
    pub(super) fn is_asked_as_callers(&self) -> bool {
        self.own_session().1.is_some()
    }

    /// That one caller is refused says nothing about the repository: others may have it.
    pub(super) fn of_caller(&self, failure: Failure) -> Failure {
        if !self.is_asked_as_callers() || !matches!(failure.kind, ErrorKind::RepositoryRefused { .. }) {
            return failure;
        }
        let (identity, remedy) = ("the caller".to_owned(), "the caller's login lacks that right".to_owned());
        Failure { kind: ErrorKind::CredentialRefused { identity, remedy }, ..failure }
    }
}

impl Upstream {
    /// Whether it is asked as its callers, and never as larder.
    #[must_use]
    pub fn is_asked_as_callers(&self) -> bool {
        self.own().is_asked_as_callers()
    }

    /// As whom larder asks, for the lines at start. Files are read and programs run, within limits; of other hosts only an identity
    /// service is asked.
    pub async fn describe_login(&self) -> LoginSummary {
        if self.own().is_sealed() {
            let (identity, source) = ("nobody".to_owned(), "sealed: it is never asked".to_owned());
            return LoginSummary { identity, source, expires: None, problem: None };
        }
        if self.is_asked_as_callers() {
            let (identity, source) = ("each caller".to_owned(), "the caller's own credential".to_owned());
            return LoginSummary { identity, source, expires: None, problem: None };
        }
        let login = &self.own().own_session().0.token_client.login;
        match login.material().await {
            Ok(Login { identity, source, expires, .. }) => {
                let source = login.passed_over().into_iter().fold(source, |source, why| format!("{source}; not {why}"));
                let dead = expires.is_some_and(|at| at <= SystemTime::now());
                let problem = dead.then(|| "it has expired".to_owned());
                LoginSummary { identity, source, expires, problem }
            }
            Err(Failure { kind, reason, .. }) => {
                let identity = match kind {
                    ErrorKind::CredentialRefused { identity, .. } => identity,
                    _ => "unknown".to_owned(),
                };
                LoginSummary { identity, source: "none".to_owned(), expires: None, problem: Some(reason) }
            }
        }
    }
}
