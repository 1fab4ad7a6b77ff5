use super::{Acr, Larder};
use larder::config::{
    AccessSettings, AdminSettings, CredentialSettings, Environment, Limits, Listen, NetworkSettings, PasswordLogin,
    ServerSettings, Settings, StoreSettings, UpstreamSettings,
};
use larder::oci::Registry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The canonical name of the default upstream.
pub const UPSTREAM: &str = "myacr.azurecr.io";
pub const ALIAS: &str = "acr";
/// The canonical name of the second one.
pub const OTHER: &str = "other.azurecr.io";
pub const OTHER_ALIAS: &str = "other";

/// Everything that a larder is started with.
#[derive(Clone)]
pub struct Setup {
    pub settings: Settings,
    /// What connections and logins see of the process's environment.
    pub environment: Environment,
    /// The store's folder and whatever else a test writes (secrets); gone with the last clone.
    pub folder: Arc<TempDir>,
}

impl Setup {
    /// One upstream, [`UPSTREAM`], alias [`ALIAS`], the default, anonymous.
    pub fn of(acr: &Acr) -> Self {
        Self::at(&acr.url())
    }

    /// The same, for an upstream at this address.
    pub fn at(url: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            server: ServerSettings {
                listen: vec![Listen::Tcp(loopback)],
                tls: None,
                names: Vec::new(),
                drain: Duration::from_secs(30),
                limits: Limits::default(),
            },
            admin: AdminSettings { listen: loopback, socket: None },
            store: StoreSettings::small(folder.path().join("store"), 4 << 30),
            access: AccessSettings {
                open_to: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
                ..AccessSettings::default()
            },
            network: NetworkSettings::default(),
            upstreams: vec![upstream(UPSTREAM, ALIAS, url, true)],
            warm: Vec::new(),
        };
        Self { settings, environment: Environment::default(), folder }
    }

    /// Adds a second upstream, [`OTHER`], alias [`OTHER_ALIAS`].
    #[must_use]
    pub fn and(mut self, acr: &Acr) -> Self {
        self.settings.upstreams.push(upstream(OTHER, OTHER_ALIAS, &acr.url(), false));
        self
    }

    /// Changes any setting.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Changes the first upstream.
    #[must_use]
    pub fn upstream(self, change: impl FnOnce(&mut UpstreamSettings)) -> Self {
        self.with(|settings| change(&mut settings.upstreams[0]))
    }

    #[must_use]
    pub fn tag_ttl(self, ttl: Duration) -> Self {
        self.upstream(|upstream| upstream.freshness.tag_ttl = ttl)
    }

    #[must_use]
    pub fn credential(self, credential: CredentialSettings) -> Self {
        self.upstream(|upstream| upstream.credential = credential)
    }

    /// A user whose password is in a file, as an editor writes it.
    #[must_use]
    pub fn password(self, username: &str, password: &str) -> Self {
        let password_file = self.file("password", &format!("{password}\n"));
        self.credential(CredentialSettings::Password(PasswordLogin { username: username.to_owned(), password_file }))
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<std::ffi::OsString>) -> Self {
        self.environment = self.environment.with(name, value);
        self
    }

    /// Writes a file beside the store.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Writes a program beside the store.
    #[cfg(unix)]
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.file(name, script);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn store(&self) -> &Path {
        &self.settings.store.path
    }

    pub async fn start(&self) -> Larder {
        Larder::start(self.clone()).await
    }
}

fn upstream(name: &str, alias: &str, url: &str, default: bool) -> UpstreamSettings {
    UpstreamSettings {
        aliases: vec![alias.to_owned()],
        default,
        connect_timeout: Duration::from_secs(5),
        first_byte_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        resume_timeout: Duration::from_secs(3),
        ..UpstreamSettings::new(Registry::new(name), url.parse().unwrap())
    }
}
