use crate::config::Environment;
use crate::upstream::auth::jwt::Claims;
use crate::upstream::auth::login::{Credential, Grant, Login, Pending};
use crate::upstream::auth::secret::Secret;
use crate::upstream::error::Failure;
use crate::upstream::transport::process;
use std::path::PathBuf;
use std::time::Duration;

/// `az` is an interpreter with a cold start, and may itself wait for Entra.
const LIMIT: Duration = Duration::from_secs(30);
/// The one audience that ACR accepts whatever its policies, the same in all clouds.
const AUDIENCE: &str = "https://containerregistry.azure.net";
const IDENTITY: &str = "the Azure CLI's login";
const REMEDY: &str = "run `az login`, as the user that larder runs as";

/// The login of the Azure CLI.
pub(super) struct AzureCli {
    pub(super) environment: Environment,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    tenant: Option<String>,
}

impl AzureCli {
    /// Where `az` is, if it is installed.
    pub(super) fn program(environment: &Environment) -> Option<PathBuf> {
        environment.program("az")
    }
}

impl Credential for AzureCli {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            let Some(program) = Self::program(&self.environment) else {
                let remedy = "install the Azure CLI, or choose another kind of credential";
                return Err(Failure::credential(IDENTITY, "the Azure CLI (az) is not on PATH", remedy));
            };
            let arguments = ["account", "get-access-token", "--resource", AUDIENCE, "--output", "json"];
            let output = process::run(&program, &arguments, "", LIMIT, &self.environment).await;
            let output = output.map_err(|problem| Failure::credential(IDENTITY, problem, REMEDY))?;
            if !output.success {
                let problem = format!("az gives no token ({})", output.failure());
                return Err(Failure::credential(IDENTITY, problem, REMEDY));
            }
            let answer: Answer = serde_json::from_slice(&output.stdout)
                .map_err(|_| Failure::credential(IDENTITY, "az answered something that is no token", REMEDY))?;
            let token = Secret::new(answer.access_token);
            let claims = Claims::of(token.expose()).unwrap_or_default();
            Ok(Login {
                identity: claims.subject().map_or_else(|| IDENTITY.to_owned(), str::to_owned),
                // The token's end is not the login's: `az` renews it by itself.
                expires: None,
                grant: Grant::Entra { token, tenant: answer.tenant },
                source: "az (Azure CLI)".to_owned(),
                remedy: format!("{REMEDY}, and give it AcrPull (or Container Registry Repository Reader)"),
            })
        })
    }
}
