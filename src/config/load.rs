//! From the sources to validated settings.

use super::access::read_access;
use super::across::check_across;
use super::environment::Environment;
use super::handed::Handed;
use super::origin::{ConfigError, ConfigErrors, Origin};
use super::overlay::{Flags, apply_environment, apply_flags};
use super::reader::{Effective, Places, Reader, Section};
use super::server::{StoreSettings, read_admin, read_network, read_server, read_store};
use super::settings::Settings;
use super::tree::{Table, parse_file};
use super::upstreams::read_upstreams;
use super::warming::check_warm;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything that settings can come from, as values.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`
    pub file: Option<PathBuf>,
    pub environment: Environment,
    /// The other flags.
    pub flags: Flags,
    /// What relative paths outside the file are relative to.
    pub current_folder: PathBuf,
    /// Where to look for a file that nobody named: `/etc/larder/larder.toml`, save in tests.
    pub system_file: PathBuf,
    /// The sockets that the process was given.
    pub handed: Handed,
}

/// Validated settings and what is worth knowing about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the rooms are built from.
    pub settings: Settings,
    /// Every value with its origin, in the order of the file.
    pub effective: Vec<Effective>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// The sources of this process, without flags.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            environment: Environment::of_process(),
            current_folder: std::env::current_dir().unwrap_or_default(),
            system_file: PathBuf::from("/etc/larder/larder.toml"),
            ..Self::default()
        }
    }

    /// The file to read: the one that was named, else the first one that exists.
    #[must_use]
    pub fn find_file(&self) -> Option<PathBuf> {
        if let Some(named) = self.file.clone().or_else(|| self.environment.path("LARDER_CONFIG")) {
            return Some(named);
        }
        let user = self.environment.config_folder().map(|folder| folder.join("larder").join("larder.toml"));
        [Some(self.system_file.clone()), user].into_iter().flatten().find(|path| path.is_file())
    }
}

/// Reads, overlays and validates.
///
/// # Errors
/// Everything that is wrong and can be found in one go.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    load_for(sources, true)
}

/// The socket through which the daemon of these sources can be asked. An upstream need not be named for that.
///
/// # Errors
/// Everything that is wrong and can be found in one go.
pub fn find_socket(sources: &Sources) -> Result<Option<PathBuf>, ConfigErrors> {
    load_for(sources, false).map(|loaded| loaded.settings.admin.socket)
}

/// The store's settings, for commands that need no upstream.
///
/// # Errors
/// Everything that is wrong and can be found in one go, but for the want of an upstream.
pub fn load_store(sources: &Sources) -> Result<StoreSettings, ConfigErrors> {
    load_for(sources, false).map(|loaded| loaded.settings.store)
}

/// The users file, for the commands that change it: it may not be there yet, nor the users whom rules name.
///
/// # Errors
/// Everything else that is wrong and can be found in one go.
pub fn find_users_file(sources: &Sources) -> Result<Option<PathBuf>, ConfigErrors> {
    load_but(sources, false, |error| error.key == "access.users_file" || is_of_rule_users(&error.key))
        .map(|loaded| loaded.settings.access.users_file)
}

fn is_of_rule_users(key: &str) -> bool {
    key.strip_prefix("access.rules.").and_then(|rule| rule.split_once('.')).is_some_and(|(_, key)| key == "users")
}

/// The names that clients may use for larder: the upstreams' and its own.
///
/// # Errors
/// Everything that is wrong and can be found in one go.
pub fn configured_names(sources: &Sources) -> Result<Vec<String>, ConfigErrors> {
    let settings = load_for(sources, false)?.settings;
    let upstreams = settings.upstreams.iter().map(|upstream| upstream.name.to_string());
    Ok(upstreams.chain(settings.server.names).collect())
}

fn load_for(sources: &Sources, needs_upstream: bool) -> Result<Loaded, ConfigErrors> {
    load_but(sources, needs_upstream, |_| false)
}

/// As [`load_for`]; errors that are `passed_over` are none.
fn load_but(
    sources: &Sources,
    needs_upstream: bool,
    passed_over: impl Fn(&ConfigError) -> bool,
) -> Result<Loaded, ConfigErrors> {
    let file = sources.find_file();
    let places = Places { environment: sources.environment.clone(), here: sources.current_folder.clone() };
    let mut reader = Reader::new(places);
    let mut root = match &file {
        Some(file) => read_file(file, sources).map_err(|errors| ConfigErrors { errors, nothing_configured: false })?,
        None => Table::default(),
    };
    apply_environment(&mut root, &sources.environment, &mut reader.errors);
    apply_flags(&mut root, &sources.flags, &mut reader.errors);
    let nothing_configured = file.is_none() && !root.0.contains_key("upstream");
    let whole = match &file {
        Some(file) => Origin::File { file: Arc::from(file.as_path()), line: 1, column: 1 },
        None => Origin::Default,
    };
    let settings = read_tree(&mut reader, root, &whole, &sources.handed, needs_upstream);
    reader.errors.retain(|error| !passed_over(error));
    if !needs_upstream {
        // Who asks about a daemon may want to know just that: why its certificate is not used.
        reader.errors.retain(|error| !error.key.starts_with("server.tls"));
    }
    if reader.errors.is_empty() {
        let Reader { warnings, effective, .. } = reader;
        return Ok(Loaded { settings, effective, warnings, file });
    }
    reader.errors.sort_by_key(|error| match error.origin {
        Origin::File { line, column, .. } => (1, line, column),
        _ => (0, 0, 0),
    });
    Err(ConfigErrors { errors: reader.errors, nothing_configured })
}

/// Settings from the text of a file alone.
#[cfg(any(test, fuzzing))]
pub(super) fn load_text(text: &str) -> Result<Loaded, ConfigErrors> {
    let file = Arc::<Path>::from(Path::new("larder.toml"));
    let root = parse_file(text, &file).map_err(|errors| ConfigErrors { errors, nothing_configured: false })?;
    let mut reader = Reader::new(Places { here: PathBuf::from("/nowhere"), ..Places::default() });
    let whole = Origin::File { file, line: 1, column: 1 };
    let settings = read_tree(&mut reader, root, &whole, &Handed::default(), true);
    let Reader { warnings, effective, errors, .. } = reader;
    if errors.is_empty() {
        return Ok(Loaded { settings, effective, warnings, file: None });
    }
    Err(ConfigErrors { errors, nothing_configured: false })
}

fn read_file(file: &Path, sources: &Sources) -> Result<Table, Vec<ConfigError>> {
    let origin = Arc::<Path>::from(file);
    let text = std::fs::read(sources.current_folder.join(file)).map_err(|error| error.to_string()).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()))
    });
    match text {
        Ok(text) => parse_file(&text, &origin),
        Err(problem) => {
            let message = format!("cannot read the configuration: {problem}: correct the path or the file");
            let origin = Origin::File { file: origin, line: 1, column: 1 };
            Err(vec![ConfigError { origin, key: String::new(), message }])
        }
    }
}

fn read_tree(reader: &mut Reader, root: Table, whole: &Origin, handed: &Handed, needs_upstream: bool) -> Settings {
    let mut top = Section::new(reader, "", root, whole.clone());
    let server = read_server(&mut top, handed);
    let mut admin = read_admin(&mut top, &server, handed);
    let store = read_store(&mut top);
    if cfg!(unix) {
        admin.socket.get_or_insert_with(|| store.path.join("admin.sock"));
    }
    top.reader.warnings.extend(open_to_others(&store.path));
    let network = read_network(&mut top);
    let access = read_access(&mut top, &server);
    let upstreams = read_upstreams(&mut top, needs_upstream.then_some(whole));
    let warm = top.tables("warm");
    check_warm(top.reader, &warm);
    let settings = Settings { server, admin, store, access, network, upstreams, warm };
    check_across(top.reader, &settings);
    top.finish();
    settings
}

/// A store that another user can read shows content that this user may not pull.
#[cfg(unix)]
fn open_to_others(store: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(store).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let path = store.display();
        format!("the store {path} is open to other users of this machine (mode {mode:04o}): chmod 700 {path}")
    })
}

/// Other systems keep a user's folders from the others by themselves.
#[cfg(not(unix))]
fn open_to_others(_: &Path) -> Option<String> {
    None
}
