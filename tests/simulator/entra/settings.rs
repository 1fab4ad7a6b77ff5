//! What is registered, and what goes wrong on purpose.

use std::path::PathBuf;

use super::super::reply::{self, Reply};

/// The directory's knobs; they hold from the next request on.
#[derive(Clone)]
pub struct EntraSettings {
    pub tenant: String,
    /// The tenant of the registries that trust this directory.
    pub registry_tenant: String,
    pub applications: Vec<Application>,
    /// What a machine or an app may log in as.
    pub identities: Vec<AssignedIdentity>,
    /// Set: the metadata path is Arc's agent.
    pub arc: Option<ArcServer>,
    /// How long tokens live.
    pub life_s: u64,
    /// How far the directory's clock is ahead of this machine's; negative: behind.
    pub clock_s: i64,
    /// `expires_on` is all that is said of a token's life by managed identities.
    pub only_expires_on: bool,
    /// Answers instead of the real ones: one a request, from the first on.
    pub moods: Vec<Mood>,
    /// The same for every request, when `moods` has run out.
    pub lasting: Option<Mood>,
}

impl Default for EntraSettings {
    fn default() -> Self {
        Self {
            tenant: "contoso".into(),
            registry_tenant: "contoso".into(),
            applications: Vec::new(),
            identities: Vec::new(),
            arc: None,
            life_s: 3599,
            clock_s: 0,
            only_expires_on: false,
            moods: Vec::new(),
            lasting: None,
        }
    }
}

impl EntraSettings {
    pub(super) fn take_mood(&mut self) -> Option<Mood> {
        if self.moods.is_empty() { self.lasting.clone() } else { Some(self.moods.remove(0)) }
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Mood {
    /// The right answer after so many milliseconds.
    Slow(u64),
    /// This status with an empty body (IMDS says 410 while it is updated, and 429 while it throttles).
    Status(u16),
    /// 429 with `Retry-After`.
    RetryAfter(u64),
    /// The page of a network that wants a person to sign in, with this status.
    Portal(u16),
    /// An error in Entra's form: status, number and text.
    Error(u16, u64, &'static str),
}

impl Mood {
    pub(super) fn answer(self) -> Reply {
        match self {
            Self::Slow(_) => reply::empty(500),
            Self::Status(status) => reply::empty(status),
            Self::RetryAfter(seconds) => {
                let mut reply = reply::empty(429);
                reply::set(&mut reply, "retry-after", &seconds.to_string());
                reply
            }
            Self::Portal(status) => reply::text(status, "text/html", "<!DOCTYPE html><title>Sign in</title>"),
            Self::Error(status, code, text) => super::login::error(status, "invalid_grant", code, text),
        }
    }
}

/// An application with whatever it may prove itself with.
#[derive(Clone, Default)]
pub struct Application {
    pub client_id: String,
    pub secrets: Vec<String>,
    pub certificates: Vec<RegisteredCertificate>,
    /// Subjects of federated credentials.
    pub subjects: Vec<String>,
}

impl Application {
    pub fn with_secret(client_id: &str, secret: &str) -> Self {
        Self { client_id: client_id.into(), secrets: vec![secret.into()], ..Self::default() }
    }

    pub fn with_certificate(client_id: &str, certificate: RegisteredCertificate) -> Self {
        Self { client_id: client_id.into(), certificates: vec![certificate], ..Self::default() }
    }

    pub fn with_subject(client_id: &str, subject: &str) -> Self {
        Self { client_id: client_id.into(), subjects: vec![subject.into()], ..Self::default() }
    }
}

/// A certificate as the directory keeps it.
#[derive(Clone)]
pub struct RegisteredCertificate {
    pub der: Vec<u8>,
    /// The RSA public key (PKCS#1).
    pub public_key: Vec<u8>,
}

/// A managed identity that a machine or an app has.
#[derive(Clone, Default)]
pub struct AssignedIdentity {
    pub client_id: String,
    pub object_id: String,
    pub resource_id: String,
    /// The one that is given out when none is named.
    pub system: bool,
}

/// Azure Arc's agent.
#[derive(Clone)]
pub struct ArcServer {
    /// Where its challenges are.
    pub folder: PathBuf,
    /// Names this file in its challenge instead of one of its own, as somebody would who wants a secret read.
    pub lies: Option<String>,
}
