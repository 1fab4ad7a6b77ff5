//! `[access]`: who is let in, and who may push, delete, or pull what not everybody may.

use super::choices::{Listen, Right};
use super::declare::settings;
use super::quantities::TimeLimit;
use super::reader::{Reader, Section, Setting as _};
use super::server::ServerSettings;
use super::users::{Users, read_users};
use super::values::{Callers, Groups, List, PrivateFile, RULE_ADVICE, RulePattern};
use crate::oci::RepositoryPattern;
use ipnet::IpNet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Every caller who is let in, the nameless one too.
const ANYBODY: &str = "*";
/// How the clients' networks are let in.
const OPEN: &str = r#"write the clients' networks, such as open_to = ["10.0.0.0/8"], --open-to 10.0.0.0/8 or LARDER_ACCESS__OPEN_TO='["10.0.0.0/8"]'"#;

settings! { "access";
/// Who is let in.
pub struct AccessSettings {
    /// Users who are let in with a password: lines of name and bcrypt hash, as `larder user add` and `htpasswd -B` write them. larder
    /// reads the file again when it changes ([access.md](access.md)).
    users_file: Option<PathBuf> [PrivateFile, unset "nobody logs in here", example "\"/etc/larder/htpasswd\""];
    /// Whether callers are let in with a credential of their own that upstream accepts, for what upstream lets them do
    /// ([access.md](access.md)).
    ask_upstream: bool [= false];
    /// How long upstream's verdict on a caller is kept.
    verdict_ttl: Duration [TimeLimit = Duration::from_secs(60)];
    /// How long a verdict is good while upstream is away, never longer than the caller's own token.
    verdict_stale: Duration [= Duration::from_secs(3 * 3600)];
    /// Networks that are let in without a credential; everybody: `["0.0.0.0/0", "::/0"]`. With `users_file`, `ask_upstream` or
    /// `client_ca_file` the default is that nobody is let in without a credential.
    open_to: Vec<IpNet> [List<IpNet> = loopback()];
    /// Groups of users by their names, for rules.
    groups: Groups [= Groups::new(), example "{ builders = [\"ci\", \"ann\"] }"];
    /// What more than pulling is allowed, to whom, and which pulls not everybody is.
    rules: Vec<AccessRule> [tables];
}}

settings! { "access.rules";
/// What may be done besides pulling, by whom, where; any number of such tables. Rules add up: there is no order and no deny. A
/// repository that some rule names for `pull` is pulled only by those whom rules let; any other by everybody who is let in.
pub struct AccessRule {
    /// Whom the rule is for: users, groups such as `"@builders"`, or `"*"`, every caller who is let in.
    users: Option<Vec<String>> [Callers = None, example "[\"*\"]"];
    /// Where they are.
    networks: Option<Vec<IpNet>> [List<IpNet>, unset "anywhere", example "[\"10.0.0.0/8\"]"];
    /// What the rule is about: `<upstream>/<repository>`; `*` within a component, `**` anything.
    repositories: Vec<RepositoryPattern> [List<RulePattern> = Vec::new(), example "[\"myacr.azurecr.io/samples/**\"]"];
    /// What they may do there: `pull`, `push`, `delete`. `serve --allow push,delete` is such a rule, for everybody and about everything.
    allow: Vec<Right> [List<Right> = Vec::new(), example "[\"push\", \"delete\"]"];
}}

fn loopback() -> Vec<IpNet> {
    vec![IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8), IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128)]
}

impl AccessSettings {
    /// The rules that keep pulls from some. Where upstream is asked about callers, nobody knows who may pull what: nothing is for all.
    #[must_use]
    pub fn restrictions(&self) -> Vec<AccessRule> {
        if !self.ask_upstream {
            return self.rules.clone();
        }
        let repositories = vec![RepositoryPattern::new("**")];
        vec![AccessRule { users: Some(Vec::new()), networks: None, repositories, allow: vec![Right::Pull] }]
    }
}

pub(super) fn read_access(top: &mut Section<'_>, server: &ServerSettings) -> AccessSettings {
    let mut access = top.table::<AccessSettings>("access");
    let reader = &mut *top.reader;
    let users = access.users_file.clone().and_then(|path| known_users(reader, &path));
    let by_certificate = server.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let with_login = access.users_file.is_some() || access.ask_upstream || by_certificate;
    if with_login && !reader.was_written("access", "open_to") {
        access.open_to.clear();
        reader.show_as("access", "open_to", List::<IpNet>::show(&access.open_to));
    }
    check_groups(reader, &access.groups);
    // Where others let people in, a rule may name whom no file has.
    let known = users.as_ref().filter(|_| !access.ask_upstream && !by_certificate);
    let people = People { groups: &access.groups, known, with_login };
    for (index, rule) in access.rules.iter_mut().enumerate() {
        check_rule(reader, &format!("access.rules.{index}"), rule, &people);
    }
    if !with_login {
        check_reach(reader, server, &access.open_to);
    } else if known.is_some_and(Users::is_empty) && access.open_to.is_empty() {
        let message = "the file has no user and nothing else lets anybody in: larder user add NAME adds one";
        reader.error_at("access", "users_file", message);
    }
    warn_of_everybody(reader, server, &access.open_to);
    access
}

/// The users of the file; `None` where it cannot be read, which has been reported then.
fn known_users(reader: &mut Reader, path: &std::path::Path) -> Option<Users> {
    let errors = match read_users(path) {
        Ok(users) => return Some(users),
        Err(errors) => errors,
    };
    for error in errors {
        let place = if error.line.is_some() { format!("{}, ", path.display()) } else { String::new() };
        reader.error_at("access", "users_file", format!("{place}{error}"));
    }
    None
}

fn check_groups(reader: &mut Reader, groups: &Groups) {
    for (name, users) in groups {
        if users.is_empty() {
            let message = format!("group '{name}' is empty: write its users, or remove it");
            reader.error_at("access", "groups", message);
        }
        if let Some(user) = users.iter().find(|user| user.starts_with('@') || *user == ANYBODY) {
            let message = format!("group '{name}' has '{user}': a group consists of users' names");
            reader.error_at("access", "groups", message);
        }
    }
}

fn beyond_this_machine(server: &ServerSettings) -> Vec<String> {
    server.listen.iter().filter(|listen| !listen.is_local()).map(Listen::shown).collect()
}

/// Reports a listener that lets no caller in, where only networks decide.
fn check_reach(reader: &mut Reader, server: &ServerSettings, open_to: &[IpNet]) {
    let beyond = beyond_this_machine(server);
    if open_to.is_empty() {
        let message = format!("nobody is let in: {OPEN}, or remove the key for loopback");
        reader.error_at("access", "open_to", message);
    } else if open_to.iter().all(|network| network.addr().is_loopback()) && !beyond.is_empty() {
        let message = format!("larder listens on {} but only loopback is let in: {OPEN}", beyond.join(", "));
        // An address of this machine's own reaches a listener on all addresses also by loopback.
        let all_addresses = |listen: &Listen| listen.address().is_some_and(|address| address.ip().is_unspecified());
        let in_vain = server.listen.iter().any(|listen| !listen.is_local() && !all_addresses(listen));
        if beyond.len() < server.listen.len() && !in_vain {
            reader.warnings.push(message);
            return;
        }
        let at = if reader.was_written("access", "open_to") { ("access", "open_to") } else { ("server", "listen") };
        reader.error(reader.origin_of(at.0, at.1), "access.open_to", message);
    }
}

fn warn_of_everybody(reader: &mut Reader, server: &ServerSettings, open_to: &[IpNet]) {
    let beyond = beyond_this_machine(server);
    if !beyond.is_empty() && open_to.iter().any(|network| network.prefix_len() == 0) {
        let warning = "[access] open_to lets everybody in without a credential: whoever reaches larder reads what its login can read";
        reader.warnings.push(format!("{warning} (listening on {})", beyond.join(", ")));
    }
}

/// Whom a rule can name.
struct People<'a> {
    groups: &'a Groups,
    /// The only users there are, if that is known.
    known: Option<&'a Users>,
    /// Whether anybody can say who they are.
    with_login: bool,
}

impl People<'_> {
    /// The users that a word of a rule means.
    fn resolve(&self, word: &str) -> Result<Vec<String>, String> {
        let users = match word.strip_prefix('@') {
            None => vec![word.to_owned()],
            Some(group) => self.groups.get(group).cloned().ok_or_else(|| {
                format!("there is no group '{group}': write it into [access.groups], {group} = [\"NAME\"]")
            })?,
        };
        if !self.with_login {
            return Err(format!(
                "'{word}' cannot be known, since nobody can log in here: set users_file, ask_upstream or [server.tls] client_ca_file, or write users = [\"*\"] and networks"
            ));
        }
        match (self.known, users.iter().find(|user| self.known.is_some_and(|known| !known.has(user)))) {
            (Some(_), Some(user)) => {
                Err(format!("there is no user '{user}' in users_file: larder user add {user}, or correct the name"))
            }
            _ => Ok(users),
        }
    }
}

/// Checks one of `[[access.rules]]`, and puts users in the place of groups.
fn check_rule(reader: &mut Reader, path: &str, rule: &mut AccessRule, people: &People<'_>) {
    rule.users = rule.users.take().and_then(|words| users_of(reader, path, &words, people));
    if rule.networks.as_ref().is_some_and(Vec::is_empty) {
        let message = "the rule is for nobody: write networks, or remove the key for any";
        reader.error_at(path, "networks", message);
    }
    if rule.repositories.is_empty() {
        reader.error_at(path, "repositories", format!("the rule is about no repository: {RULE_ADVICE}"));
    }
    if rule.allow.is_empty() {
        let message = r#"the rule allows nothing: write allow = ["pull", "push", "delete"], or some of them"#;
        reader.error_at(path, "allow", message);
    }
}

/// `None`: every caller who is let in.
fn users_of(reader: &mut Reader, path: &str, words: &[String], people: &People<'_>) -> Option<Vec<String>> {
    if words.is_empty() {
        reader.error_at(path, "users", r#"the rule is for nobody: write users = ["*"]"#);
    }
    let mut users = Vec::new();
    for word in words.iter().filter(|word| *word != ANYBODY) {
        match people.resolve(word) {
            Ok(found) => users.extend(found),
            Err(message) => reader.error_at(path, "users", message),
        }
    }
    (!words.iter().any(|word| word == ANYBODY)).then_some(users)
}
