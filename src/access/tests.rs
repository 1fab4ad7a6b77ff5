use super::*;
use crate::config::AccessRule;
use crate::oci::RepositoryPattern;
use std::future::Future as _;

/// No upstream is asked here.
struct Nobody;

impl AskUpstream for Nobody {
    fn judge<'a>(&'a self, _: &'a Registry, _: &'a Shown, _: &'a crate::oci::Deed) -> Pending<'a, Said> {
        Box::pin(async { Said::Denied })
    }

    fn pass<'a>(&'a self, _: &'a Registry, _: TokenRequest) -> Pending<'a, TokenSaid> {
        Box::pin(async { TokenSaid::None })
    }

    fn is_asked_as_callers(&self, _: &Registry) -> bool {
        false
    }

    fn is_there<'a>(&'a self, _: &'a Registry) -> Pending<'a, bool> {
        Box::pin(async { false })
    }
}

fn access() -> Access {
    let open_to = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let settings = AccessSettings { open_to, ..AccessSettings::default() };
    Access::new(
        &settings,
        ["build.example".to_owned(), "myacr.azurecr.io".to_owned()],
        Arc::new(Nobody),
        &Arc::default(),
    )
}

fn admitted(access: &Access, caller: &Caller<'_>) -> Result<Guest, Refusal> {
    // Without users nothing is waited for.
    let mut admission = std::pin::pin!(access.admit(caller));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match admission.as_mut().poll(&mut context) {
        std::task::Poll::Ready(outcome) => outcome,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn admit(address: &str, local: &str, host: Option<&str>) -> Result<(), Refusal> {
    let (address, local) = (address.parse().ok(), local.parse().ok());
    admitted(&access(), &Caller { address, local, host, ..Caller::default() }).map(|_| ())
}

#[test]
fn only_open_networks_are_let_in() {
    assert_eq!(admit("10.1.2.3", "10.0.0.1", Some("whatever")), Ok(()));
    assert_eq!(admit("::ffff:10.1.2.3", "::ffff:10.0.0.1", None), Ok(()));
    assert!(matches!(admit("192.168.0.1", "10.0.0.1", None), Err(Refusal::Network(_))));
    let socket = Caller { host: Some("x"), ..Caller::default() };
    assert!(admitted(&access(), &socket).is_ok(), "a Unix socket");
}

fn rule(networks: Option<&[&str]>, pattern: &str, allow: &[Right]) -> AccessRule {
    let networks = networks.map(|networks| networks.iter().map(|network| network.parse().unwrap()).collect());
    AccessRule { users: None, networks, repositories: vec![RepositoryPattern::new(pattern)], allow: allow.to_vec() }
}

fn permit(rules: &[AccessRule], address: Option<&str>, right: Right, name: &str) -> bool {
    permit_as(rules, address, None, right, name)
}

fn permit_as(rules: &[AccessRule], address: Option<&str>, user: Option<&str>, right: Right, name: &str) -> bool {
    let settings = AccessSettings { rules: rules.to_vec(), ..AccessSettings::default() };
    let address = address.map(|address| address.parse::<IpAddr>().unwrap().to_canonical());
    let repository = Repository { registry: Registry::new("a.io"), name: name.parse().unwrap() };
    Rules::new(settings.rules).allow(address, user, right, &repository)
}

#[test]
fn pushes_and_deletes_need_a_rule_and_pulls_only_where_one_names_the_repository() {
    use Right::{Delete, Pull, Push};
    let here = Some("10.0.0.1");
    assert!(permit(&[], here, Pull, "x"));
    assert!(!permit(&[], here, Push, "x") && !permit(&[], here, Delete, "x"));
    let all = [rule(None, "**", &[Push])];
    assert!(permit(&all, here, Push, "x") && permit(&all, None, Push, "x"), "a Unix socket is anywhere");
    assert!(!permit(&all, here, Delete, "x"));
    assert!(permit(&all, here, Pull, "x"), "a rule that allows more restricts no pull");
    let some = [rule(Some(&["10.0.0.0/8"]), "a.io/secret/**", &[Pull, Push]), rule(None, "a.io/secret/open", &[Pull])];
    let elsewhere = Some("192.168.0.1");
    assert!(permit(&some, here, Pull, "secret/x") && permit(&some, Some("::ffff:10.9.9.9"), Push, "secret/x"));
    assert!(!permit(&some, elsewhere, Pull, "secret/x") && !permit(&some, None, Pull, "secret/x"));
    assert!(permit(&some, elsewhere, Pull, "secret/open"), "rules add up");
    assert!(permit(&some, elsewhere, Pull, "public"), "no rule names it");
    assert!(!permit(&some, here, Push, "public"));
}

#[test]
fn a_refusal_says_how_to_allow_it() {
    let repository = Repository { registry: Registry::new("a.io"), name: "x/y".parse().unwrap() };
    let push = Refusal::Right { right: Right::Push, repository: repository.clone() }.to_string();
    assert!(push.contains("--allow push") && push.contains("repositories = [\"a.io/x/y\"]"), "{push}");
    let pull = Refusal::Right { right: Right::Pull, repository }.to_string();
    assert!(!pull.contains("--allow") && pull.contains("allow = [\"pull\"]"), "{pull}");
}

#[test]
fn a_page_in_a_browser_cannot_reach_a_loopback_listener() {
    for own in [
        "localhost",
        "LOCALHOST",
        "127.0.0.1",
        "[::1]",
        "127.9.9.9",
        "a.localhost",
        "build.example",
        "myacr.azurecr.io",
    ] {
        assert_eq!(admit("127.0.0.1", "127.0.0.1", Some(own)), Ok(()), "{own}");
    }
    assert_eq!(admit("127.0.0.1", "127.0.0.1", None), Ok(()), "HTTP/1.0 has no Host");
    for foreign in ["evil.example", "localhost.evil.example", "10.0.0.1", "notlocalhost"] {
        assert!(matches!(admit("127.0.0.1", "127.0.0.1", Some(foreign)), Err(Refusal::Host(_))), "{foreign}");
    }
}

#[test]
fn a_rule_for_users_is_for_nobody_else_and_rules_add_up() {
    use Right::{Pull, Push};
    let of = |users: &[&str], pattern: &str, allow: &[Right]| AccessRule {
        users: Some(users.iter().map(ToString::to_string).collect()),
        ..rule(None, pattern, allow)
    };
    let rules = [of(&["ann"], "a.io/x/**", &[Pull, Push]), of(&["bob"], "a.io/x/open", &[Pull])];
    let may = |user, right, name| permit_as(&rules, Some("10.0.0.1"), user, right, name);
    assert!(may(Some("ann"), Pull, "x/y") && may(Some("ann"), Push, "x/y") && may(Some("bob"), Pull, "x/open"));
    for (user, right, name) in [
        (Some("bob"), Pull, "x/y"),
        (Some("bob"), Push, "x/open"),
        (Some("Ann"), Pull, "x/y"),
        (Some("annx"), Pull, "x/y"),
        (None, Pull, "x/y"),
        (Some("ann"), Push, "y"),
    ] {
        assert!(!may(user, right, name), "{user:?} {right:?} {name}");
    }
    assert!(may(None, Pull, "other"), "no rule names it");
    let here = [AccessRule { networks: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..of(&["ann"], "**", &[Push]) }];
    assert!(permit_as(&here, Some("10.0.0.1"), Some("ann"), Push, "x"));
    assert!(!permit_as(&here, Some("192.168.0.1"), Some("ann"), Push, "x"), "there, and she");
}
