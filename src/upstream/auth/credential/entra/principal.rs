use super::assertion;
use super::door::Door;
use super::keeper::Keeper;
use super::login::{Application, Proof};
use super::{About, IdentitySource, Minting};
use crate::config::{PrincipalProof, SigningCertificate};
use crate::upstream::auth::secret::Secret;
use http::Uri;
use std::path::Path;
use std::sync::Arc;

/// An application with a secret or a certificate, read from its file for every request.
pub(in crate::upstream) struct Principal {
    application: Application,
    proof: PrincipalProof,
}

impl Principal {
    /// A keeper of its tokens.
    pub(in crate::upstream) fn keeper(
        door: &Arc<Door>,
        tenant: &str,
        client: &str,
        proof: &PrincipalProof,
        authority: Uri,
    ) -> Keeper {
        let words = match proof {
            PrincipalProof::Secret(file) => format!("client_secret_file {}", file.display()),
            PrincipalProof::Certificate(file) => format!("certificate_file {}", file.display()),
        };
        let application = Application {
            door: Arc::clone(door),
            tenant: tenant.to_owned(),
            client: client.to_owned(),
            authority,
            identity: format!("service principal {client}"),
            proof: words,
        };
        let principal = Self { application, proof: proof.clone() };
        let about = principal.about();
        Keeper::new(principal, about, Arc::clone(door))
    }

    fn about(&self) -> About {
        let (kind, file) = match &self.proof {
            PrincipalProof::Secret(file) => ("entra-secret", file),
            PrincipalProof::Certificate(file) => ("entra-certificate", file),
        };
        let Application { identity, tenant, proof, .. } = &self.application;
        About {
            kind,
            identity: identity.clone(),
            from: format!("Entra, tenant {tenant}, {proof}"),
            tenant: Some(tenant.clone()),
            files: vec![file.clone()],
        }
    }

    async fn signed(&self, file: &Path) -> Result<String, String> {
        let file = file.to_owned();
        let endpoint = self.application.endpoint().map_err(|failure| failure.reason)?.to_string();
        let client = self.application.client.clone();
        let signed = tokio::task::spawn_blocking(move || {
            assertion::signed(&SigningCertificate::read(&file)?, &endpoint, &client)
        });
        signed.await.map_err(|_| "signing was cut short".to_owned())?
    }
}

impl IdentitySource for Principal {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let application = &self.application;
            match &self.proof {
                PrincipalProof::Secret(file) => {
                    let secret = Secret::read(file).await;
                    let secret = secret.map_err(|problem| application.without_proof(&problem))?;
                    application.redeem(Proof::Secret(secret.expose())).await
                }
                PrincipalProof::Certificate(file) => {
                    let jwt = self.signed(file).await;
                    let jwt = jwt.map_err(|problem| application.without_proof(&problem))?;
                    application.redeem(Proof::Assertion(&jwt)).await
                }
            }
        })
    }
}
