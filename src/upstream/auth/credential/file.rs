use crate::upstream::auth::jwt;
use crate::upstream::auth::login::{Credential, Grant, Login, Pending, is_acr};
use crate::upstream::auth::secret::Secret;
use crate::upstream::error::Failure;
use std::path::PathBuf;

/// A user and a password from a file.
pub(super) struct Password {
    pub(super) username: String,
    pub(super) file: PathBuf,
}

impl Credential for Password {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            let identity = format!("user {}", self.username);
            let file = self.file.display();
            let remedy = format!("check username and password_file {file}");
            let password = Secret::read(&self.file).await;
            let password = password.map_err(|problem| Failure::credential(&identity, problem, &remedy))?;
            Ok(Login {
                grant: Grant::Password { username: self.username.clone(), password },
                identity,
                source: format!("password_file {file}"),
                remedy,
                expires: None,
            })
        })
    }
}

/// A refresh token from a file.
pub(super) struct RefreshToken {
    pub(super) file: PathBuf,
    pub(super) registry: String,
}

impl Credential for RefreshToken {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            let file = self.file.display();
            let remedy = match self.registry.split_once('.') {
                Some((name, _)) if is_acr(&self.registry) => {
                    format!("write a new one to token_file {file}: az acr login --name {name} --expose-token")
                }
                _ => format!("write a new one to token_file {file}"),
            };
            let token = Secret::read(&self.file).await;
            let token = token.map_err(|problem| Failure::credential("a refresh token", problem, &remedy))?;
            let claims = jwt::Claims::of(token.expose()).unwrap_or_default();
            let identity = claims.subject().map_or_else(|| "a refresh token".to_owned(), str::to_owned);
            let source = format!("token_file {file}");
            Ok(Login { grant: Grant::Refresh(token), identity, source, remedy, expires: claims.expires() })
        })
    }
}
