use super::azure_cli::AzureCli;
use super::docker::DockerConfig;
use super::{Credential, Material, Pending, is_acr};
use crate::config::Environment;
use crate::upstream::error::Failure;
use crate::upstream::transport::origin::Origin;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// For this long, `az` is not asked again after it had no login: its start takes a second.
const WITHOUT_AZ: Duration = Duration::from_secs(300);

/// What a developer already has: the Azure CLI's login for an ACR, else Docker's, else none.
///
/// `az` comes first because it renews itself, while a Docker login of ACR dies after three hours. If the registry refuses what
/// it had to give, as it does the login of another tenant, Docker's comes first for a while.
pub(super) struct Auto {
    azure: Option<AzureCli>,
    docker: DockerConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The CLI's login has worked: falling back to nobody would hide that it has gone.
    used_azure: bool,
    skip_azure_until: Option<Instant>,
    docker_first_until: Option<Instant>,
}

impl Auto {
    pub(super) fn new(name: &str, origin: &Origin, environment: &Environment) -> Self {
        let azure = is_acr(&origin.host) && AzureCli::program(environment).is_some();
        Self {
            azure: azure.then(|| AzureCli { environment: environment.clone() }),
            docker: DockerConfig::new(None, name, origin, environment.clone()),
            state: Mutex::default(),
        }
    }

    async fn azure(&self) -> Option<Result<Material, Failure>> {
        let azure = self.azure.as_ref()?;
        let skipped = self.state.lock().skip_azure_until.is_some_and(|until| Instant::now() < until);
        if skipped {
            return None;
        }
        let login = azure.material().await;
        let mut state = self.state.lock();
        match &login {
            Ok(_) => state.used_azure = true,
            Err(_) if !state.used_azure => state.skip_azure_until = Some(Instant::now() + WITHOUT_AZ),
            Err(_) => {}
        }
        Some(login)
    }
}

impl Credential for Auto {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            let now = Instant::now();
            let docker_first = self.state.lock().docker_first_until.is_some_and(|until| now < until);
            if docker_first && let Some(material) = self.docker.lookup().await? {
                return Ok(material);
            }
            let lost = match self.azure().await {
                Some(Ok(material)) => return Ok(material),
                Some(Err(failure)) => Some(failure),
                None => None,
            };
            if let Some(material) = self.docker.lookup().await? {
                return Ok(material);
            }
            let used_azure = self.state.lock().used_azure;
            match lost {
                Some(failure) if used_azure => Err(failure),
                _ => Ok(Material::anonymous(
                    &format!("neither the Azure CLI nor Docker has a login for it{}", self.docker.trouble()),
                    &format!(
                        "log in with `az login` or `docker login`, or configure a credential{}",
                        self.docker.trouble()
                    ),
                )),
            }
        })
    }

    fn refused(&self) {
        let mut state = self.state.lock();
        state.skip_azure_until = None;
        if state.used_azure {
            state.docker_first_until = Some(Instant::now() + WITHOUT_AZ);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::upstream::auth::credential::Grant;
    use crate::upstream::testing::{jwt, script};

    #[tokio::test]
    async fn the_cli_then_docker_then_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::default().with("PATH", folder.path()).with("DOCKER_CONFIG", folder.path());
        let origin = Origin::of(&"https://myacr.azurecr.io".parse().unwrap()).unwrap();
        let auto = || Auto::new("myacr.azurecr.io", &origin, &environment);

        assert_eq!(auto().material().await.unwrap().grant, Grant::Anonymous);
        let docker = r#"{"auths":{"myacr.azurecr.io":{"auth":"Y2k6cHc="}}}"#;
        std::fs::write(folder.path().join("config.json"), docker).unwrap();
        assert_eq!(auto().material().await.unwrap().identity, "user ci");
        script(folder.path(), "az", "echo \"Please run 'az login' to setup account.\" >&2; exit 1");
        assert_eq!(auto().material().await.unwrap().identity, "user ci");

        let token = jwt(r#"{"upn":"ann@contoso.com","exp":4000000000}"#);
        let answer = format!(
            "echo '{{\"accessToken\":\"{token}\",\"tenant\":\"t1\"}}'; echo \"$*\" > {}/asked",
            folder.path().display()
        );
        script(folder.path(), "az", &answer);
        let auto = auto();
        let material = auto.material().await.unwrap();
        assert_eq!(material.identity, "ann@contoso.com");
        assert!(matches!(material.grant, Grant::Entra { tenant: Some(tenant), .. } if tenant == "t1"));
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked, "account get-access-token --resource https://containerregistry.azure.net --output json\n");

        auto.refused();
        assert_eq!(auto.material().await.unwrap().identity, "user ci", "another tenant's login is no dead end");

        std::fs::remove_file(folder.path().join("config.json")).unwrap();
        script(folder.path(), "az", "echo \"Please run 'az login' to setup account.\" >&2; exit 1");
        let error = auto.material().await.unwrap_err();
        assert!(error.is_credential() && error.reason.contains("az login"), "{}", error.reason);
    }
}
