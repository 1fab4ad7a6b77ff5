use super::door::Door;
use super::keeper::Keeper;
use super::login::{Application, Proof};
use super::{About, IdentitySource, Minting};
use crate::upstream::auth::secret::Secret;
use http::Uri;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An application that trusts a service account's token, read from its file for every request: others renew it.
pub(in crate::upstream) struct Workload {
    application: Application,
    file: PathBuf,
}

impl Workload {
    /// A keeper of its tokens.
    pub(in crate::upstream) fn keeper(
        door: &Arc<Door>,
        tenant: &str,
        client: &str,
        file: &Path,
        authority: Uri,
    ) -> Keeper {
        let application = Application {
            door: Arc::clone(door),
            tenant: tenant.to_owned(),
            client: client.to_owned(),
            authority,
            identity: format!("workload identity {client}"),
            proof: format!("token_file {}", file.display()),
        };
        let workload = Self { application, file: file.to_owned() };
        let about = workload.about();
        Keeper::new(workload, about, Arc::clone(door))
    }

    fn about(&self) -> About {
        let Application { identity, tenant, proof, .. } = &self.application;
        About {
            kind: "entra-workload",
            identity: identity.clone(),
            from: format!("Entra, tenant {tenant}, {proof}"),
            tenant: Some(tenant.clone()),
            files: vec![self.file.clone()],
        }
    }
}

impl IdentitySource for Workload {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let token = Secret::read(&self.file).await;
            let token = token.map_err(|problem| self.application.without_proof(&problem))?;
            self.application.redeem(Proof::Assertion(token.expose())).await
        })
    }
}
