//! `[access]`: who is let in, and who may push, delete, or pull what not everybody may.

use super::origin::Origin;
use super::reader::Section;
use super::secret::secret_path;
use super::sections::{base_of, positive, show};
use super::settings::{AccessRule, AccessSettings, Listen, Right, ServerSettings};
use super::upstreams::Places;
use super::users::{Users, read_users};
use super::values::Groups;
use crate::oci::RepositoryPattern;
use ipnet::IpNet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Every caller who is let in, the nameless one too.
const ANYBODY: &str = "*";
/// How the clients' networks are let in.
const OPEN: &str = r#"write the clients' networks, such as open_to = ["10.0.0.0/8"] or --open-to 10.0.0.0/8"#;

pub(super) fn read_access(mut section: Section<'_>, server: &ServerSettings, places: Places<'_>) -> AccessSettings {
    let (users_file, users) = read_users_file(&mut section, places);
    let defaults = AccessSettings::default();
    let ask_upstream = section.or("ask_upstream", false);
    let verdict_ttl = positive(&mut section, "verdict_ttl", defaults.verdict_ttl);
    let verdict_stale = section.or("verdict_stale", defaults.verdict_stale);
    let by_certificate = server.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let with_login = users_file.is_some() || ask_upstream || by_certificate;
    let loopback = vec![
        IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
    ];
    let open_to: Vec<IpNet> = section.or("open_to", if with_login { Vec::new() } else { loopback });
    let groups = read_groups(&mut section);
    // Where others let people in, a rule may name whom no file has.
    let known = users.as_ref().filter(|_| !ask_upstream && !by_certificate);
    let people = People { groups: &groups, known, with_login };
    let tables = section.tables("rules");
    let rules = tables.into_iter().enumerate().map(|(index, (table, origin))| {
        let path = format!("{}.{index}", section.path_of("rules"));
        read_rule(Section::new(section.reader, &path, table, origin), &people)
    });
    let rules = rules.collect();
    if !with_login {
        check_reach(&mut section, server, &open_to);
    } else if !ask_upstream && !by_certificate && users.as_ref().is_some_and(Users::is_empty) && open_to.is_empty() {
        section.error(
            "users_file",
            "the file has no user and nothing else lets anybody in: larder user add NAME adds one",
        );
    }
    warn_of_everybody(&mut section, server, &open_to);
    section.finish();
    AccessSettings { open_to, users_file, ask_upstream, verdict_ttl, verdict_stale, rules }
}

/// The file's path and its users; no users where it cannot be read, which has been reported then.
fn read_users_file(section: &mut Section<'_>, places: Places<'_>) -> (Option<PathBuf>, Option<Users>) {
    let Some(path) = section.optional::<PathBuf>("users_file", "nobody logs in here") else { return (None, None) };
    let path = secret_path(&path, places.environment, &base_of(&section.origin_of("users_file"), places.here));
    section.show_as("users_file", &path);
    let users = match read_users(&path) {
        Ok(users) => Some(users),
        Err(errors) => {
            for error in errors {
                let place = if error.line.is_some() { format!("{}, ", path.display()) } else { String::new() };
                section.error("users_file", format!("{place}{error}"));
            }
            None
        }
    };
    (Some(path), users)
}

fn read_groups(section: &mut Section<'_>) -> Groups {
    let groups = section.or("groups", Groups::default());
    for (name, users) in &groups.0 {
        if users.is_empty() {
            section.error("groups", format!("group '{name}' is empty: write its users, or remove it"));
        }
        if let Some(user) = users.iter().find(|user| user.starts_with('@') || *user == ANYBODY) {
            section.error("groups", format!("group '{name}' has '{user}': a group consists of users' names"));
        }
    }
    groups
}

/// A listener on which nobody could get in, as far as networks alone let anybody in.
fn check_reach(section: &mut Section<'_>, server: &ServerSettings, open_to: &[IpNet]) {
    let beyond: Vec<String> = server.listen.iter().filter(|listen| !is_local(listen)).map(show).collect();
    if open_to.is_empty() {
        section.error("open_to", format!("nobody is let in: {OPEN}, or remove the key for loopback"));
    } else if open_to.iter().all(|network| network.addr().is_loopback()) && !beyond.is_empty() {
        let message = format!("larder listens on {} but only loopback is let in: {OPEN}", beyond.join(", "));
        // An address of this machine's own reaches a listener on all addresses also by loopback.
        let all_addresses = |listen: &Listen| listen.address().is_some_and(|address| address.ip().is_unspecified());
        let in_vain = server.listen.iter().any(|listen| !is_local(listen) && !all_addresses(listen));
        if beyond.len() < server.listen.len() && !in_vain {
            section.reader.warnings.push(message);
            return;
        }
        let origin = match section.origin_of("open_to") {
            Origin::Default => section.reader.origin_of("server", "listen"),
            own => own,
        };
        section.reader.error(origin, "access.open_to", message);
    }
}

fn warn_of_everybody(section: &mut Section<'_>, server: &ServerSettings, open_to: &[IpNet]) {
    let beyond: Vec<String> = server.listen.iter().filter(|listen| !is_local(listen)).map(show).collect();
    if !beyond.is_empty() && open_to.iter().any(|network| network.prefix_len() == 0) {
        let warning = "[access] open_to lets everybody in without a credential: whoever reaches larder reads what its login can read";
        section.reader.warnings.push(format!("{warning} (listening on {})", beyond.join(", ")));
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
            Some(group) => self.groups.0.get(group).cloned().ok_or_else(|| {
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

/// One of `[[access.rules]]`.
fn read_rule(mut section: Section<'_>, people: &People<'_>) -> AccessRule {
    let users = read_rule_users(&mut section, people);
    let networks = section.optional::<Vec<IpNet>>("networks", "any");
    if networks.as_ref().is_some_and(Vec::is_empty) {
        section.error("networks", "the rule is for nobody: write networks, or remove the key for any");
    }
    let repositories = section.optional::<Vec<String>>("repositories", "none").unwrap_or_default();
    let advice = r#"write upstream and repository, such as "myacr.azurecr.io/samples/**", or "**" for all"#;
    if repositories.is_empty() {
        section.error("repositories", format!("the rule is about no repository: {advice}"));
    }
    for pattern in &repositories {
        if !pattern.contains('/') && !pattern.contains("**") {
            section.error("repositories", format!("'{pattern}' matches no repository: {advice}"));
        }
    }
    let allow = section.optional::<Vec<String>>("allow", "nothing").unwrap_or_default();
    if allow.is_empty() {
        section.error("allow", r#"the rule allows nothing: write allow = ["pull", "push", "delete"], or some of them"#);
    }
    let rights = allow.iter().filter_map(|word| {
        let right = Right::parse(word);
        if right.is_none() {
            section.error("allow", format!(r#"'{word}' is no right: write "pull", "push" or "delete""#));
        }
        right
    });
    let allow = rights.collect();
    section.finish();
    let repositories = repositories.iter().map(|pattern| RepositoryPattern::new(pattern)).collect();
    AccessRule { users, networks, repositories, allow }
}

/// `None`: everybody who is let in.
fn read_rule_users(section: &mut Section<'_>, people: &People<'_>) -> Option<Vec<String>> {
    let words = section.or("users", vec![ANYBODY.to_owned()]);
    if words.is_empty() {
        section.error("users", r#"the rule is for nobody: write users = ["*"]"#);
    }
    let mut users = Vec::new();
    for word in words.iter().filter(|word| *word != ANYBODY) {
        match people.resolve(word) {
            Ok(found) => users.extend(found),
            Err(message) => section.error("users", message),
        }
    }
    (!words.iter().any(|word| word == ANYBODY)).then_some(users)
}

fn is_local(listen: &Listen) -> bool {
    listen.address().is_none_or(|address| address.ip().is_loopback())
}
