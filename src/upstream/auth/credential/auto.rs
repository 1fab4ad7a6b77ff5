use super::Place;
use super::azure_cli::AzureCli;
use super::docker::DockerConfig;
use super::entra::{Keeper, Surroundings, Workload, authority, managed};
use crate::config::{AssignedIdentity, Environment, parse_authority};
use crate::upstream::auth::login::{Credential, Login, Pending, is_acr};
use crate::upstream::error::{Failure, SetupError};
use http::Uri;
use parking_lot::Mutex;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// For this long, `az` is not asked again after it had no login: its start takes a second.
const WITHOUT_AZ: Duration = Duration::from_secs(300);
/// How long a request waits for a metadata service that has not answered yet; it is asked in the background.
const PROBE: Duration = Duration::from_secs(1);

/// What there is already: for an ACR the identity of the surroundings, else the Azure CLI's login; else Docker's, else none.
///
/// `az` comes before Docker because it renews itself, while a Docker login of ACR dies after three hours. If the registry refuses
/// what it had to give, as it does the login of another tenant, Docker's comes first for a while.
pub(super) struct Auto {
    /// What the environment names; no other login is tried then.
    named: Option<Keeper>,
    /// This machine's identity, if it is one of Azure's machines.
    machine: Option<Keeper>,
    azure: Option<AzureCli>,
    docker: DockerConfig,
    /// Why each of these is not there.
    absent: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The machine's identity has worked: falling back to another login would hide that it has gone.
    used_machine: bool,
    /// The CLI's login has worked, likewise.
    used_azure: bool,
    skip_azure_until: Option<Instant>,
    docker_first_until: Option<Instant>,
    passed_over: Vec<String>,
}

/// Which login it came to, for what is said of the others.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Came {
    Machine,
    Azure,
    Docker,
    Nobody,
}

impl Auto {
    /// `chassis` is the file by which a machine of Azure's is known; its metadata service is at `endpoint`, or where they all are.
    pub(super) fn new(place: Place<'_>, chassis: &Path, endpoint: Option<&Uri>) -> Result<Self, SetupError> {
        let environment = place.environment;
        let docker = DockerConfig::new(None, place.name.as_str(), place.origin, environment.clone());
        let mut auto =
            Self { named: None, machine: None, azure: None, docker, absent: Vec::new(), state: Mutex::default() };
        // By its address: a name is not where an identity's token would go.
        if !is_acr(&place.origin.host) {
            auto.absent.push("an identity of Azure (the registry is no ACR)".to_owned());
            return Ok(auto);
        }
        match workload(environment) {
            Ok((tenant, client, file, host)) => {
                let host = host.unwrap_or_else(|| authority(place.registry()));
                auto.named = Some(Workload::keeper(&place.door()?, tenant, client, Path::new(file), host));
                return Ok(auto);
            }
            Err(why) => auto.absent.push(format!("workload identity ({why})")),
        }
        match Surroundings::of(environment) {
            surroundings @ (Surroundings::AppService { .. } | Surroundings::Arc { .. }) => {
                auto.named = Some(managed(&place.door()?, &AssignedIdentity::System, None, surroundings));
                return Ok(auto);
            }
            _ => auto.absent.push("App Service's or Arc's identity (IDENTITY_ENDPOINT is not set)".to_owned()),
        }
        if Surroundings::is_azure_machine(chassis) {
            let machine = Surroundings::Machine;
            auto.machine = Some(managed(&place.door()?, &AssignedIdentity::System, endpoint, machine));
        } else {
            auto.absent.push("this machine's identity (it is no Azure VM)".to_owned());
        }
        if AzureCli::program(environment).is_some() {
            auto.azure = Some(AzureCli { environment: environment.clone() });
        } else {
            auto.absent.push("the Azure CLI's login (az is not on PATH)".to_owned());
        }
        Ok(auto)
    }

    /// The machine's identity; `None` if it has none, or not yet.
    async fn machine(&self) -> Option<Result<Login, Failure>> {
        let machine = self.machine.as_ref()?;
        if self.state.lock().used_machine {
            return Some(machine.material().await);
        }
        // One request has waited for it before; the attempt continues in the background.
        if machine.is_pending() {
            return None;
        }
        let material = timeout(PROBE, machine.material()).await.ok()?.ok()?;
        self.state.lock().used_machine = true;
        Some(Ok(material))
    }

    async fn azure(&self) -> Option<Result<Login, Failure>> {
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

    async fn choose(&self) -> Result<Login, Failure> {
        if let Some(named) = &self.named {
            self.came(None);
            return named.material().await;
        }
        let now = Instant::now();
        let docker_first = self.state.lock().docker_first_until.is_some_and(|until| now < until);
        if docker_first && let Some(material) = self.docker.lookup().await? {
            return Ok(material);
        }
        if let Some(login) = self.machine().await {
            self.came(Some(Came::Machine));
            return login;
        }
        let lost = match self.azure().await {
            Some(Ok(material)) => {
                self.came(Some(Came::Azure));
                return Ok(material);
            }
            Some(Err(failure)) => Some(failure),
            None => None,
        };
        if let Some(material) = self.docker.lookup().await? {
            self.came(Some(Came::Docker));
            return Ok(material);
        }
        self.came(Some(Came::Nobody));
        let used_azure = self.state.lock().used_azure;
        match lost {
            Some(failure) if used_azure => Err(failure),
            _ => {
                let trouble = self.docker.trouble();
                Ok(Login::anonymous(
                    &format!("neither the surroundings, the Azure CLI nor Docker have a login for it{trouble}"),
                    &format!("log in with `az login` or `docker login`, or configure a credential{trouble}"),
                ))
            }
        }
    }

    /// Notes what was thought of before the login that it came to.
    fn came(&self, to: Option<Came>) {
        let mut passed = self.absent.clone();
        let beyond = |login| to.is_some_and(|to| to > login);
        if self.machine.is_some() && beyond(Came::Machine) {
            passed.push("this machine's identity (its metadata service has none)".to_owned());
        }
        if self.azure.is_some() && beyond(Came::Azure) {
            passed.push("the Azure CLI's login (az has none)".to_owned());
        }
        if beyond(Came::Docker) {
            passed.push("Docker's login (its configuration has none)".to_owned());
        }
        // What would have been tried later says nothing about the choice.
        if to == Some(Came::Machine) {
            passed.retain(|why| !why.starts_with("the Azure CLI"));
        }
        self.state.lock().passed_over = passed;
    }
}

/// Tenant, client, file and perhaps login host, as AKS's webhook sets them; else which variable is missing or wrong.
fn workload(environment: &Environment) -> Result<(&str, &str, &str, Option<Uri>), String> {
    const HOST: &str = "AZURE_AUTHORITY_HOST";
    let get = |name| environment.get(name).ok_or_else(|| format!("{name} is not set"));
    let file = get("AZURE_FEDERATED_TOKEN_FILE")?;
    let host = environment.get(HOST).map(parse_authority).transpose();
    Ok((get("AZURE_TENANT_ID")?, get("AZURE_CLIENT_ID")?, file, host.map_err(|problem| format!("{HOST}: {problem}"))?))
}

impl Credential for Auto {
    fn material(&self) -> Pending<'_> {
        Box::pin(self.choose())
    }

    fn refused(&self) {
        for keeper in [&self.named, &self.machine].into_iter().flatten() {
            keeper.refused();
        }
        let mut state = self.state.lock();
        state.skip_azure_until = None;
        if state.used_azure {
            state.docker_first_until = Some(Instant::now() + WITHOUT_AZ);
        }
    }

    fn keeps(&self) -> bool {
        self.named.is_some()
    }

    fn passed_over(&self) -> Vec<String> {
        self.state.lock().passed_over.clone()
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::oci::Registry;
    use crate::telemetry::Metrics;
    use crate::upstream::auth::login::Grant;
    use crate::upstream::testing::{Server, bare, environment, jwt, script};
    use crate::upstream::transport::origin::Origin;
    use crate::upstream::transport::resolve::Resolver;
    use std::sync::Arc;

    fn auto_at(registry: &str, environment: &Environment, machine: Option<(&Path, &str)>) -> Auto {
        let origin = Origin::of(&format!("https://{registry}").parse().unwrap()).unwrap();
        let (name, resolver, metrics) = (Registry::new(registry), Resolver::of_system(), Arc::new(Metrics::new()));
        let place =
            Place { name: &name, origin: &origin, ca_file: None, environment, resolver: &resolver, metrics: &metrics };
        let (chassis, endpoint) = machine.unwrap_or((Path::new("/nowhere"), "http://127.0.0.1:1"));
        Auto::new(place, chassis, Some(&endpoint.parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn the_cli_then_docker_then_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let environment = environment().with("PATH", folder.path()).with("DOCKER_CONFIG", folder.path());
        let auto = || auto_at("myacr.azurecr.io", &environment, None);

        let nobody = auto();
        assert_eq!(nobody.material().await.unwrap().grant, Grant::Anonymous);
        let passed = nobody.passed_over().join("; ");
        for part in
            ["AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "no Azure VM", "az is not on PATH", "Docker's login"]
        {
            assert!(passed.contains(part), "{part} is missing: {passed}");
        }
        let docker = r#"{"auths":{"myacr.azurecr.io":{"auth":"Y2k6cHc="}}}"#;
        std::fs::write(folder.path().join("config.json"), docker).unwrap();
        assert_eq!(auto().material().await.unwrap().identity, "user ci");
        script(folder.path(), "az", "echo \"Please run 'az login' to setup account.\" >&2; exit 1");
        let by_docker = auto();
        assert_eq!(by_docker.material().await.unwrap().identity, "user ci");
        assert!(by_docker.passed_over().last().unwrap().contains("az has none"));

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
        assert_eq!(auto.passed_over().len(), 3, "nothing is said of what comes later");
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert_eq!(asked, "account get-access-token --resource https://containerregistry.azure.net --output json\n");

        auto.refused();
        assert_eq!(auto.material().await.unwrap().identity, "user ci", "another tenant's login is no dead end");

        std::fs::remove_file(folder.path().join("config.json")).unwrap();
        script(folder.path(), "az", "echo \"Please run 'az login' to setup account.\" >&2; exit 1");
        let error = auto.material().await.unwrap_err();
        assert!(error.is_credential() && error.reason.contains("az login"), "{}", error.reason);
    }

    #[tokio::test]
    async fn a_machines_identity_comes_before_the_clis_and_its_want_is_no_dead_end() {
        let folder = tempfile::tempdir().unwrap();
        let chassis = folder.path().join("tag");
        std::fs::write(&chassis, "7783-7084-3265-9085-8269-3286-77\n").unwrap();
        let docker = r#"{"auths":{"myacr.azurecr.io":{"auth":"Y2k6cHc="}}}"#;
        std::fs::write(folder.path().join("config.json"), docker).unwrap();
        let environment = environment().with("DOCKER_CONFIG", folder.path());
        let body = r#"{"access_token":"t","expires_in":"3600"}"#;
        let server = Server::start(move |_| bare(200, &[], body)).await;
        let auto = auto_at("myacr.azurecr.io", &environment, Some((&chassis, &server.url())));
        assert_eq!(auto.material().await.unwrap().identity, "the managed identity");
        assert_eq!(auto.passed_over().len(), 2);

        let none = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        let server = Server::start(move |_| bare(400, &[], none)).await;
        let auto = auto_at("myacr.azurecr.io", &environment, Some((&chassis, &server.url())));
        assert_eq!(auto.material().await.unwrap().identity, "user ci");
        assert!(auto.passed_over().iter().any(|why| why.contains("metadata service has none")));
        // The registry is no ACR: an identity of Azure would be shown to a third party.
        let auto = auto_at("registry.example.com", &environment, Some((&chassis, &server.url())));
        auto.material().await.unwrap();
        assert_eq!(server.asked().len(), 1);
    }

    #[tokio::test]
    async fn a_machines_metadata_service_that_says_nothing_costs_one_second_once() {
        let folder = tempfile::tempdir().unwrap();
        let chassis = folder.path().join("tag");
        std::fs::write(&chassis, "7783-7084-3265-9085-8269-3286-77\n").unwrap();
        let server = Server::start_async(|_| std::future::pending()).await;
        let auto = auto_at("myacr.azurecr.io", &environment(), Some((&chassis, &server.url())));
        let begun = Instant::now();
        assert_eq!(auto.material().await.unwrap().grant, Grant::Anonymous);
        assert!(begun.elapsed() >= PROBE && begun.elapsed() < PROBE * 4, "{:?}", begun.elapsed());
        let again = Instant::now();
        auto.material().await.unwrap();
        assert!(again.elapsed() < PROBE, "{:?}", again.elapsed());
    }

    #[tokio::test]
    async fn what_the_environment_names_is_taken_and_hidden_by_no_other_login() {
        let folder = tempfile::tempdir().unwrap();
        let docker = r#"{"auths":{"myacr.azurecr.io":{"auth":"Y2k6cHc="}}}"#;
        std::fs::write(folder.path().join("config.json"), docker).unwrap();
        let environment = environment()
            .with("DOCKER_CONFIG", folder.path())
            .with("AZURE_TENANT_ID", "t1")
            .with("AZURE_CLIENT_ID", "app")
            .with("AZURE_FEDERATED_TOKEN_FILE", folder.path().join("token"));
        let auto = auto_at("myacr.azurecr.io", &environment, None);
        let error = auto.material().await.unwrap_err();
        assert!(error.is_credential() && error.reason.contains("does not exist"), "{}", error.reason);

        let body = r#"{"access_token":"t","expires_in":"3600"}"#;
        let server = Server::start(move |_| bare(200, &[], body)).await;
        std::fs::write(folder.path().join("token"), "jwt").unwrap();
        let environment = environment.with("AZURE_AUTHORITY_HOST", server.url());
        let auto = auto_at("myacr.azurecr.io", &environment, None);
        assert_eq!(auto.material().await.unwrap().identity, "workload identity app");
        assert!(auto.passed_over().is_empty() && auto.keeps());
        let auto =
            auto_at("myacr.azurecr.io", &environment.with("AZURE_AUTHORITY_HOST", "http://login.example.com"), None);
        auto.material().await.unwrap();
        assert!(auto.passed_over()[0].contains("loopback addresses only"), "{:?}", auto.passed_over());
        assert_eq!(server.asked()[0].target, "/t1/oauth2/v2.0/token");
    }
}
