//! `[access]`: who is let in, and who may push, delete, or pull what not everybody may.

use super::origin::Origin;
use super::reader::Section;
use super::sections::show;
use super::settings::{AccessRule, AccessSettings, Listen, Right, ServerSettings};
use crate::oci::RepositoryPattern;
use ipnet::IpNet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Every caller who is let in, the nameless one too.
const ANYBODY: &str = "*";

pub(super) fn read_access(mut section: Section<'_>, server: &ServerSettings) -> AccessSettings {
    let loopback = vec![
        IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
    ];
    let open_to: Vec<IpNet> = section.or("open_to", loopback);
    section.unavailable("users_file", None, "; let networks in with open_to");
    section.unavailable("ask_upstream", Some("false"), "; let networks in with open_to");
    let tables = section.tables("rules");
    let rules = tables.into_iter().enumerate().map(|(index, (table, origin))| {
        let path = format!("{}.{index}", section.path_of("rules"));
        read_rule(Section::new(section.reader, &path, table, origin))
    });
    let rules = rules.collect();
    let beyond: Vec<String> = server.listen.iter().filter(|listen| !is_local(listen)).map(show).collect();
    let only_loopback = open_to.iter().all(|network| network.addr().is_loopback());
    let advice = r#"write the clients' networks, such as open_to = ["10.0.0.0/8"] or --open-to 10.0.0.0/8"#;
    if open_to.is_empty() {
        section.error("open_to", format!("nobody is let in: {advice}, or remove the key for loopback"));
    } else if only_loopback && !beyond.is_empty() && beyond.len() == server.listen.len() {
        let beyond = beyond.join(", ");
        let origin = match section.origin_of("open_to") {
            Origin::Default => section.reader.origin_of("server", "listen"),
            own => own,
        };
        section.reader.error(
            origin,
            "access.open_to",
            format!("larder listens on {beyond} but only loopback is let in: {advice}"),
        );
    } else if only_loopback && !beyond.is_empty() {
        let beyond = beyond.join(", ");
        section.reader.warnings.push(format!("larder listens on {beyond} but only loopback is let in: {advice}"));
    } else if !beyond.is_empty() && open_to.iter().any(|network| network.prefix_len() == 0) {
        let warning = "[access] open_to lets everybody in without a credential: whoever reaches larder reads what its login can read";
        section.reader.warnings.push(format!("{warning} (listening on {})", beyond.join(", ")));
    }
    section.finish();
    AccessSettings { open_to, rules }
}

/// One of `[[access.rules]]`.
fn read_rule(mut section: Section<'_>) -> AccessRule {
    let users = section.or("users", vec![ANYBODY.to_owned()]);
    if let Some(user) = users.iter().find(|user| *user != ANYBODY) {
        let message = format!(
            r#"'{user}' cannot be known yet, since users have no way to log in here: write users = ["*"] and name networks"#
        );
        section.error("users", message);
    } else if users.is_empty() {
        section.error("users", r#"the rule is for nobody: write users = ["*"]"#);
    }
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
    AccessRule { networks, repositories, allow }
}

fn is_local(listen: &Listen) -> bool {
    listen.address().is_none_or(|address| address.ip().is_loopback())
}
