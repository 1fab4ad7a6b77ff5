//! Lays the environment and the flags over the file.
//!
//! Variables go first, in the order of their paths, then flags: what is said later holds. Neither knows whether a value is right;
//! that is found when the whole tree is read, and reported with the variable's or the flag's name.

use super::environment::Environment;
use super::names::{parse_host, parse_url};
use super::origin::{ConfigError, Origin};
use super::tree::{Node, Step, Table, Value, parse_value};

/// Variables that are not settings of the file.
const OTHERS: [&str; 4] = ["LARDER_CONFIG", "LARDER_LOG", "LARDER_LOG_FORMAT", "LARDER_TOOLS"];
const TESTS: &str = "LARDER_TEST_";
const PREFIX: &str = "LARDER_";

/// What flags of the command line say about settings.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--upstream`, a host or a url each; the first becomes the default one.
    pub upstreams: Vec<String>,
    /// The login for the first `--upstream`, or for the default upstream.
    pub login: Option<Login>,
    /// What an identity of Entra needs to be known: belongs to `login`.
    pub identity: IdentityFlags,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--admin`
    pub admin: Option<String>,
    /// `--store`
    pub store: Option<String>,
    /// `--max-size`
    pub max_size: Option<String>,
    /// `--open-to`
    pub open_to: Vec<String>,
    /// `--allow`
    pub allow: Vec<String>,
    /// `--sealed`
    pub sealed: bool,
}

/// `--login`, or `--username` with `--password-file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// `--login auto`
    Auto,
    /// `--login docker`
    Docker,
    /// `--login az`
    AzureCli,
    /// `--login anonymous`
    Anonymous,
    /// `--username` and `--password-file`
    Password { username: String, password_file: String },
    /// `--login managed-identity`
    ManagedIdentity,
    /// `--login workload-identity`
    WorkloadIdentity,
    /// `--login service-principal`
    ServicePrincipal,
}

impl Login {
    fn is_of_entra(&self) -> bool {
        matches!(self, Self::ManagedIdentity | Self::WorkloadIdentity | Self::ServicePrincipal)
    }
}

/// The flags that say which identity of Entra is meant, and where it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityFlags {
    /// `--tenant-id`
    pub tenant_id: Option<String>,
    /// `--client-id`
    pub client_id: Option<String>,
    /// `--object-id`
    pub object_id: Option<String>,
    /// `--resource-id`
    pub resource_id: Option<String>,
    /// `--client-secret-file`
    pub client_secret_file: Option<String>,
    /// `--certificate-file`
    pub certificate_file: Option<String>,
    /// `--token-file`
    pub token_file: Option<String>,
    /// `--authority`
    pub authority: Option<String>,
    /// `--endpoint`
    pub endpoint: Option<String>,
}

impl IdentityFlags {
    /// Key, flag and value of each that is given.
    fn given(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let all = [
            ("tenant_id", "--tenant-id", &self.tenant_id),
            ("client_id", "--client-id", &self.client_id),
            ("object_id", "--object-id", &self.object_id),
            ("resource_id", "--resource-id", &self.resource_id),
            ("client_secret_file", "--client-secret-file", &self.client_secret_file),
            ("certificate_file", "--certificate-file", &self.certificate_file),
            ("token_file", "--token-file", &self.token_file),
            ("authority", "--authority", &self.authority),
            ("endpoint", "--endpoint", &self.endpoint),
        ];
        all.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value.as_deref()?)))
    }
}

pub(super) fn apply_environment(root: &mut Table, environment: &Environment, errors: &mut Vec<ConfigError>) {
    let mut variables: Vec<(Vec<Step>, &str, &str)> = environment
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && !OTHERS.contains(name) && !name.starts_with(TESTS))
        .map(|(name, value)| (steps(&name[PREFIX.len()..]), name, value))
        .collect();
    variables.sort();
    for (path, name, value) in variables {
        let origin = Origin::Environment(name.to_owned());
        let node = parse_value(value, &origin);
        if let Err(message) = root.set_path(&path, node) {
            errors.push(ConfigError { origin, key: String::new(), message: format!("no such setting: {message}") });
        }
    }
}

/// `UPSTREAM__0__URL` is `upstream`, position 0, `url`.
fn steps(path: &str) -> Vec<Step> {
    let step = |part: &str| match part.parse() {
        Ok(position) => Step::Position(position),
        Err(_) => Step::Key(part.to_ascii_lowercase()),
    };
    path.split("__").map(step).collect()
}

pub(super) fn apply_flags(root: &mut Table, flags: &Flags, errors: &mut Vec<ConfigError>) {
    let mut set = |table: &str, key: &str, node: Node| {
        let path = [Step::Key(table.to_owned()), Step::Key(key.to_owned())];
        let origin = node.origin.clone();
        if let Err(message) = root.set_path(&path, node) {
            errors.push(ConfigError { origin, key: format!("{table}.{key}"), message });
        }
    };
    let one = |text: &String, flag| Node::string(text, &Origin::Flag(flag));
    if !flags.listen.is_empty() {
        set("server", "listen", Node::strings(&flags.listen, &Origin::Flag("--listen")));
    }
    if !flags.open_to.is_empty() {
        set("access", "open_to", Node::strings(&flags.open_to, &Origin::Flag("--open-to")));
    }
    let single = [
        ("admin", "listen", "--admin", &flags.admin),
        ("store", "path", "--store", &flags.store),
        ("store", "max_size", "--max-size", &flags.max_size),
    ];
    for (table, key, flag, text) in single {
        if let Some(text) = text {
            set(table, key, one(text, flag));
        }
    }
    apply_allow(root, &flags.allow, errors);
    apply_upstreams(root, flags, errors);
    if flags.sealed {
        seal(root);
    }
}

/// One rule more, for every caller who is let in, about every repository.
fn apply_allow(root: &mut Table, allow: &[String], errors: &mut Vec<ConfigError>) {
    let origin = Origin::Flag("--allow");
    if allow.is_empty() {
        return;
    }
    if let Some(word) = allow.iter().find(|word| !["push", "delete"].contains(&word.as_str())) {
        let message = format!("'{word}' is neither push nor delete: write --allow push,delete, or one of them");
        errors.push(ConfigError { origin, key: String::new(), message });
        return;
    }
    let mut rule = Table::default();
    rule.set("repositories", Node::strings(&["**".to_owned()], &origin));
    rule.set("allow", Node::strings(allow, &origin));
    let access = root.0.get("access").and_then(|(_, node)| match &node.value {
        Value::Table(table) => table.0.get("rules"),
        _ => None,
    });
    let rules = access.map_or(0, |(_, node)| match &node.value {
        Value::Array(rules) => rules.len(),
        _ => 0,
    });
    let path = [Step::Key("access".to_owned()), Step::Key("rules".to_owned()), Step::Position(rules)];
    if let Err(message) = root.set_path(&path, Node::table(rule, &origin)) {
        errors.push(ConfigError { origin, key: "access.rules".to_owned(), message });
    }
}

/// Every upstream, whatever the file says of it.
fn seal(root: &mut Table) {
    let Some((_, Node { value: Value::Array(tables), .. })) = root.0.get_mut("upstream") else { return };
    for node in tables {
        if let Value::Table(table) = &mut node.value {
            table.set("sealed", Node { value: Value::Boolean(true), origin: Origin::Flag("--sealed"), text: None });
        }
    }
}

fn apply_upstreams(root: &mut Table, flags: &Flags, errors: &mut Vec<ConfigError>) {
    let is_of_entra = flags.login.as_ref().is_some_and(Login::is_of_entra);
    if let Some((_, flag, _)) = flags.identity.given().next().filter(|_| !is_of_entra) {
        let message =
            "belongs to an identity of Entra: add --login managed-identity, workload-identity or service-principal";
        errors.push(ConfigError { origin: Origin::Flag(flag), key: String::new(), message: message.to_owned() });
    }
    let origin = Origin::Flag("--upstream");
    let empty = (origin.clone(), Node { value: Value::Array(Vec::new()), origin: origin.clone(), text: None });
    if flags.upstreams.is_empty() && flags.login.is_none() {
        return;
    }
    let (_, Node { value: Value::Array(tables), .. }) = root.0.entry("upstream".to_owned()).or_insert(empty) else {
        // Not an array: reading the tree says so.
        return;
    };
    let mut login = flags.login.clone();
    for (index, text) in flags.upstreams.iter().enumerate() {
        match add_upstream(tables, text, &origin) {
            Err(message) => errors.push(ConfigError { origin: origin.clone(), key: String::new(), message }),
            Ok((position, is_new)) if index == 0 => {
                make_default(tables, position, &origin);
                let chosen = login.take().or(is_new.then_some(Login::Auto));
                if let (Some(login), Some(table)) = (chosen, table_at(tables, position)) {
                    table.set("credential", credential(&login, flags, flags.login.is_none()));
                }
            }
            Ok(_) => {}
        }
    }
    if let Some(login) = login.filter(|_| flags.upstreams.is_empty()) {
        let is_default = |node: &Node| match &node.value {
            Value::Table(table) => {
                table.0.get("default").is_some_and(|(_, node)| matches!(node.value, Value::Boolean(true)))
            }
            _ => false,
        };
        let position = if tables.len() == 1 { Some(0) } else { tables.iter().position(is_default) };
        match position.and_then(|position| table_at(tables, position)) {
            Some(table) => table.set("credential", credential(&login, flags, false)),
            None => errors.push(ConfigError {
                origin: login_origin(&login),
                key: String::new(),
                message: "there is no default upstream that the login could belong to: name it with --upstream"
                    .to_owned(),
            }),
        }
    }
}

fn table_at(tables: &mut [Node], position: usize) -> Option<&mut Table> {
    match &mut tables.get_mut(position)?.value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

/// The position of the upstream that the flag names, and whether the flag made it.
fn add_upstream(tables: &mut Vec<Node>, text: &str, origin: &Origin) -> Result<(usize, bool), String> {
    let url = text.contains("://").then(|| parse_url(text)).transpose()?;
    let name = match &url {
        Some(url) => url.authority().map(ToString::to_string).unwrap_or_default(),
        None => text.to_owned(),
    };
    let found = tables.iter().position(|node| matches!(&node.value, Value::Table(table) if is_named(table, &name)));
    let position = found.unwrap_or(tables.len());
    if found.is_none() {
        let mut table = Table::default();
        table.set("name", Node::string(&parse_host(&name)?, origin));
        tables.push(Node::table(table, origin));
    }
    if let (Some(_), Some(table)) = (url, table_at(tables, position)) {
        table.set("url", Node::string(text, origin));
    }
    Ok((position, found.is_none()))
}

fn is_named(table: &Table, name: &str) -> bool {
    let of_url = || Some(parse_url(table.str("url")?).ok()?.authority()?.to_string());
    let own = table.str("name").map(ToOwned::to_owned).or_else(of_url);
    let is_alias = table.0.get("aliases").is_some_and(|(_, node)| match &node.value {
        Value::Array(items) => items.iter().any(|item| matches!(&item.value, Value::String(alias) if alias == name)),
        _ => false,
    });
    own.is_some_and(|own| own.eq_ignore_ascii_case(name)) || is_alias
}

fn make_default(tables: &mut [Node], chosen: usize, origin: &Origin) {
    for (position, node) in tables.iter_mut().enumerate() {
        let Value::Table(table) = &mut node.value else { continue };
        if position == chosen || table.0.contains_key("default") {
            table
                .set("default", Node { value: Value::Boolean(position == chosen), origin: origin.clone(), text: None });
        }
    }
}

fn login_origin(login: &Login) -> Origin {
    Origin::Flag(if matches!(login, Login::Password { .. }) { "--username" } else { "--login" })
}

fn credential(login: &Login, flags: &Flags, implied: bool) -> Node {
    let origin = if implied { Origin::Default } else { login_origin(login) };
    let kind = match login {
        Login::Auto => "auto",
        Login::Docker => "docker-config",
        Login::AzureCli => "azure-cli",
        Login::Anonymous => "anonymous",
        Login::Password { .. } => "password",
        Login::ManagedIdentity => "managed-identity",
        Login::WorkloadIdentity => "workload-identity",
        Login::ServicePrincipal => "service-principal",
    };
    let mut table = Table::default();
    table.set("kind", Node::string(kind, &origin));
    if let Login::Password { username, password_file } = login {
        table.set("username", Node::string(username, &origin));
        table.set("password_file", Node::string(password_file, &Origin::Flag("--password-file")));
    }
    for (key, flag, value) in flags.identity.given().filter(|_| login.is_of_entra()) {
        table.set(key, Node::string(value, &Origin::Flag(flag)));
    }
    Node::table(table, &origin)
}
