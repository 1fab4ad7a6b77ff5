//! A login as it is presented, and the trait of its sources.

use super::secret::Secret;
use crate::upstream::error::Failure;
use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

/// As whom larder asks an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSummary {
    /// Whom the login names.
    pub identity: String,
    /// Where it comes from.
    pub source: String,
    /// When it dies, if it says so.
    pub expires: Option<SystemTime>,
    /// Why there is none, and what to do.
    pub problem: Option<String>,
}

/// What is presented to a token service, or to a registry that wants a password itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Grant {
    Anonymous,
    Password {
        username: String,
        password: Secret,
    },
    /// A refresh or identity token.
    Refresh(Secret),
    /// An Entra access token, which ACR exchanges for a refresh token.
    Entra {
        token: Secret,
        tenant: Option<String>,
    },
}

/// A login as it is now.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Login {
    pub(in crate::upstream) grant: Grant,
    /// Whom it names.
    pub(in crate::upstream) identity: String,
    /// Where it came from.
    pub(in crate::upstream) source: String,
    /// What to do when it is refused.
    pub(in crate::upstream) remedy: String,
    pub(in crate::upstream) expires: Option<SystemTime>,
}

impl Login {
    pub(in crate::upstream) fn anonymous(source: &str, remedy: &str) -> Self {
        Self {
            grant: Grant::Anonymous,
            identity: "anonymous".to_owned(),
            source: source.to_owned(),
            remedy: remedy.to_owned(),
            expires: None,
        }
    }

    /// The failure that says that this login was refused.
    pub(in crate::upstream) fn refused(&self, by: &str) -> Failure {
        let Self { identity, source, .. } = self;
        let problem = match self.grant {
            Grant::Anonymous => format!("{by} gives nothing to anonymous callers"),
            _ => format!("{by} refuses the login of {identity} (from {source})"),
        };
        Failure::credential(identity, problem, &self.remedy)
    }
}

pub(in crate::upstream) type Pending<'a> = Pin<Box<dyn Future<Output = Result<Login, Failure>> + Send + 'a>>;

/// A source of logins.
pub(in crate::upstream) trait Credential: Send + Sync {
    /// The login as it is now.
    fn material(&self) -> Pending<'_>;

    /// The login last given out was refused: whatever was remembered is not to be given again.
    fn refused(&self) {}

    /// Whether it keeps its login itself, so that nothing else is to remember it.
    fn keeps(&self) -> bool {
        false
    }

    /// Which logins were thought of before the one last given out, each with why it was not that.
    fn passed_over(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Whether a host is an Azure Container Registry.
pub(in crate::upstream) fn is_acr(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|suffix| host.ends_with(suffix))
}

/// What to do about a dead login made by `az acr login` or `docker login`.
pub(in crate::upstream) fn login_again(registry: &str) -> String {
    match registry.split_once('.') {
        Some((name, _)) if is_acr(registry) => {
            format!("run `az acr login --name {name}` again (such a login dies after three hours)")
        }
        _ => format!("run `docker login {registry}` again"),
    }
}
