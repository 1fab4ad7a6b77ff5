use super::helper;
use crate::config::Environment;
use crate::upstream::auth::jwt;
use crate::upstream::auth::login::{Credential, Grant, Login, Pending, login_again};
use crate::upstream::auth::secret::{self, Secret};
use crate::upstream::error::Failure;
use crate::upstream::transport::origin::Origin;
use base64::Engine as _;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The users that mean "the secret is a refresh token": ACR's, and that of Docker's helpers.
const TOKEN_USERS: [&str; 2] = ["00000000-0000-0000-0000-000000000000", "<token>"];

/// Docker's `config.json`, read at every need.
pub(super) struct DockerConfig {
    file: Option<PathBuf>,
    /// The names under which a login for this upstream may be filed.
    hosts: Vec<String>,
    environment: Environment,
    /// Why the store could not be asked last time, although nothing says that it has a login.
    trouble: Mutex<Option<String>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Document {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, Option<String>>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl DockerConfig {
    pub(super) fn new(file: Option<PathBuf>, name: &str, origin: &Origin, environment: Environment) -> Self {
        let mut hosts = vec![name.to_ascii_lowercase(), origin.authority()];
        if hosts.iter().any(|host| ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host.as_str())) {
            hosts.extend(["index.docker.io", "docker.io", "registry-1.docker.io"].map(str::to_owned));
        }
        hosts.dedup();
        Self { file, hosts, environment, trouble: Mutex::default() }
    }

    /// The file that is read.
    fn path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(|| self.environment.docker_config())
    }

    /// The login for this upstream; `None` if the file or the entry is not there.
    pub(super) async fn lookup(&self) -> Result<Option<Login>, Failure> {
        let Some(path) = self.path() else { return Ok(None) };
        if self.file.is_none() && !tokio::fs::try_exists(&path).await.unwrap_or(true) {
            return Ok(None);
        }
        let broken = |problem: String| {
            let remedy = format!("check {}, or choose another kind of credential", path.display());
            Failure::credential("Docker's login", problem, &remedy)
        };
        let text = secret::read_file(&path).await.map_err(broken)?;
        let document: Document = serde_json::from_str(&text).map_err(|error| {
            // The position only: the message of a wrong type may quote a secret.
            broken(format!("{} is not Docker's config.json (line {})", path.display(), error.line()))
        })?;
        let source = path.display().to_string();
        *self.trouble.lock() = None;
        let helpers = document.helpers.unwrap_or_default();
        let helpers = self.named(&helpers, |helper| helper.as_deref().filter(|helper| !helper.is_empty()));
        if let Some((_, helper)) = helpers {
            let login = self.ask(helper, None).await.map_err(broken)?;
            return Ok(login.map(|(user, secret)| self.filed(user, secret, &format!("{source}, helper {helper}"))));
        }
        let auths = document.auths.unwrap_or_default();
        let entry = self.named(&auths, Some);
        if let Some(store) = document.store.as_deref().filter(|store| !store.is_empty()) {
            match self.ask(store, entry.map(|(key, _)| key)).await {
                Ok(Some((user, secret))) => {
                    return Ok(Some(self.filed(user, secret, &format!("{source}, helper {store}"))));
                }
                Ok(None) => {}
                // Only an entry says that the store was ever given a login for this registry.
                Err(problem) if entry.is_some() => return Err(broken(problem)),
                Err(problem) => {
                    tracing::warn!(upstream.name = self.hosts[0], problem, "no login from Docker's store");
                    *self.trouble.lock() = Some(problem);
                }
            }
        }
        let login = self.named(&auths, |entry| plain(entry.as_ref()?));
        Ok(login.map(|(_, (user, secret))| self.filed(user, secret, &source)))
    }

    /// Why the store could not be asked, to end a sentence with; else nothing.
    pub(super) fn trouble(&self) -> String {
        self.trouble.lock().as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default()
    }

    /// What is filed under one of this upstream's names and is of use: in Docker's order, the key as it is first and then however it is
    /// spelled, in the order of the alphabet.
    fn named<'a, V, T>(
        &self,
        map: &'a BTreeMap<String, V>,
        of_use: impl Fn(&'a V) -> Option<T>,
    ) -> Option<(&'a str, T)> {
        let exact = self.hosts.iter().filter_map(|host| map.get_key_value(host));
        let spelled =
            self.hosts.iter().flat_map(|host| map.iter().filter(move |(key, _)| bare(key).as_ref() == Some(host)));
        exact.chain(spelled).find_map(|(key, value)| Some((key.as_str(), of_use(value)?)))
    }

    async fn ask(&self, helper: &str, key: Option<&str>) -> Result<Option<(String, Secret)>, String> {
        let hub = self.hosts.iter().any(|host| host == "index.docker.io");
        let server = key.unwrap_or(if hub { "https://index.docker.io/v1/" } else { &self.hosts[0] });
        helper::get(&self.environment, helper, server).await
    }

    fn filed(&self, user: String, secret: Secret, source: &str) -> Login {
        let is_token = user.is_empty() || TOKEN_USERS.contains(&user.as_str());
        let expires = jwt::expires(secret.expose());
        let (grant, identity) = if is_token {
            let subject = jwt::Claims::of(secret.expose());
            let subject = subject.as_ref().and_then(jwt::Claims::subject).unwrap_or("Docker's login");
            (Grant::Refresh(secret.clone()), subject.to_owned())
        } else {
            let identity = format!("user {user}");
            (Grant::Password { username: user, password: secret }, identity)
        };
        let remedy = login_again(&self.hosts[0]);
        Login { grant, identity, source: source.to_owned(), remedy, expires: expires.filter(|_| is_token) }
    }
}

impl Credential for DockerConfig {
    fn material(&self) -> Pending<'_> {
        Box::pin(async {
            if let Some(material) = self.lookup().await? {
                return Ok(material);
            }
            let path = self.path().map_or_else(|| "Docker's config.json".to_owned(), |path| path.display().to_string());
            let problem = format!("{path} has no login for {}{}", self.hosts[0], self.trouble());
            Err(Failure::credential("Docker's login", problem, &login_again(&self.hosts[0])))
        })
    }
}

/// A key without scheme and without the path of the registry API; `None` for one that names a repository.
fn bare(key: &str) -> Option<String> {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    ["", "v1", "v1/", "v2", "v2/"].contains(&path).then(|| host.to_ascii_lowercase())
}

/// The login that stands in the file itself.
fn plain(entry: &Entry) -> Option<(String, Secret)> {
    if let Some(token) = entry.identitytoken.as_deref().filter(|token| !token.is_empty()) {
        return Some(("<token>".to_owned(), Secret::new(token)));
    }
    if let Some(auth) = entry.auth.as_deref().filter(|auth| !auth.is_empty()) {
        let decoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?);
        let text = std::str::from_utf8(&decoded).ok()?.trim_end_matches('\0');
        let (user, password) = text.split_once(':')?;
        return Some((user.to_owned(), Secret::new(password)));
    }
    let username = entry.username.clone().filter(|username| !username.is_empty())?;
    Some((username, Secret::new(entry.password.as_deref()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::upstream::testing::script;

    fn config(folder: &std::path::Path, text: &str) -> DockerConfig {
        std::fs::write(folder.join("config.json"), text).unwrap();
        let environment = Environment::default().with("DOCKER_CONFIG", folder).with("PATH", folder);
        let origin = Origin::of(&"https://myacr.azurecr.io".parse().unwrap()).unwrap();
        DockerConfig::new(None, "myacr.azurecr.io", &origin, environment)
    }

    #[tokio::test]
    async fn reads_every_form_of_login() {
        let folder = tempfile::tempdir().unwrap();
        for key in ["myacr.azurecr.io", "https://myacr.azurecr.io", "https://MyAcr.azurecr.io/v2/"] {
            let login = format!(r#"{{"auths":{{"other.io":{{}},"{key}":{{"auth":"Y2k6YTpi"}}}}}}"#);
            let material = config(folder.path(), &login).material().await.unwrap();
            let want = Grant::Password { username: "ci".into(), password: Secret::new("a:b") };
            assert_eq!((material.grant, material.identity.as_str()), (want, "user ci"), "{key}");
        }
        for token in [
            r#"{"identitytoken":"tok"}"#,
            // user 00000000-0000-0000-0000-000000000000
            r#"{"auth":"MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOnRvaw=="}"#,
            r#"{"username":"<token>","password":"tok"}"#,
        ] {
            let text = format!(r#"{{"auths":{{"myacr.azurecr.io":{token}}}}}"#);
            let material = config(folder.path(), &text).material().await.unwrap();
            assert_eq!(material.grant, Grant::Refresh(Secret::new("tok")), "{token}");
            assert!(material.remedy.contains("az acr login --name myacr"), "{}", material.remedy);
        }
    }

    #[tokio::test]
    async fn of_several_entries_the_exact_one_counts_and_empty_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        // ci:a:b is right, old:x is of an earlier login.
        let (right, old) = (r#"{"auth":"Y2k6YTpi"}"#, r#"{"auth":"b2xkOng="}"#);
        for auths in [
            format!(
                r#"{{"http://myacr.azurecr.io/v2/":{old},"myacr.azurecr.io":{right},"https://myacr.azurecr.io":{old}}}"#
            ),
            format!(r#"{{"myacr.azurecr.io":{{}},"https://myacr.azurecr.io":{right}}}"#),
            format!(
                r#"{{"myacr.azurecr.io":null,"https://myacr.azurecr.io":{right},"https://myacr.azurecr.io/v1/":{old}}}"#
            ),
            format!(r#"{{"myacr.azurecr.io":{{"auth":""}},"https://myacr.azurecr.io/v2/":{right}}}"#),
        ] {
            let text = format!(r#"{{"auths":{auths},"credHelpers":null,"credsStore":null}}"#);
            let material = config(folder.path(), &text).material().await.unwrap();
            assert_eq!(material.identity, "user ci", "{auths}");
        }
        assert!(config(folder.path(), r#"{"auths":null}"#).lookup().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_login_that_is_not_there_says_where_it_was_sought() {
        let folder = tempfile::tempdir().unwrap();
        let error = config(folder.path(), r#"{"auths":{"myacr.azurecr.io/team":{"auth":"Y2k6YTpi"}}}"#);
        let error = error.material().await.unwrap_err();
        assert!(error.reason.contains("config.json has no login for myacr.azurecr.io"), "{}", error.reason);
        let error = config(folder.path(), r#"{"auths":{"x":{"auth":["s3cret"]}}}"#).material().await.unwrap_err();
        assert!(error.reason.contains("line 1") && !error.reason.contains("s3cret"), "{}", error.reason);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let answer = r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"ci\",\"Secret\":\"of $s\"}""#;
        script(folder.path(), "docker-credential-good", answer);
        script(folder.path(), "docker-credential-none", "echo credentials not found in native keychain; exit 1");
        let by_host = r#"{"credHelpers":{"myacr.azurecr.io":"good"},"credsStore":"absent"}"#;
        let material = config(folder.path(), by_host).material().await.unwrap();
        let want = Grant::Password { username: "ci".into(), password: Secret::new("of myacr.azurecr.io") };
        assert_eq!(material.grant, want);
        let by_store = r#"{"credsStore":"good","auths":{"https://myacr.azurecr.io":{}}}"#;
        let material = config(folder.path(), by_store).material().await.unwrap();
        let want = Grant::Password { username: "ci".into(), password: Secret::new("of https://myacr.azurecr.io") };
        assert_eq!(material.grant, want);
        assert!(config(folder.path(), r#"{"credsStore":"none"}"#).lookup().await.unwrap().is_none());
        assert!(config(folder.path(), r#"{"credsStore":"absent"}"#).lookup().await.unwrap().is_none());
        let named = config(folder.path(), r#"{"credsStore":"absent","auths":{"myacr.azurecr.io":{}}}"#);
        let error = named.lookup().await.unwrap_err();
        assert!(error.reason.contains("docker-credential-absent is not on PATH"), "{}", error.reason);
    }
}
