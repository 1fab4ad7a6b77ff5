use crate::harness::simulator::Options;
use crate::harness::{Acr, Answer, Larder, Setup};
use base64::Engine as _;
use bytes::Bytes;
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;
use std::fmt::Write as _;

pub(super) const LAYER: &[u8] = b"what not everybody may read";

/// The value of `Authorization` for a user and a password.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// The text of a users file; bcrypt at its lowest cost, so that tests take no time.
pub(super) fn users(pairs: &[(&str, &str)]) -> String {
    let mut text = String::from("# users of the test\n");
    for (name, password) in pairs {
        writeln!(text, "{name}:{}", bcrypt::hash(password, 4).unwrap()).unwrap();
    }
    text
}

/// A private registry with `samples/config:v1`, which larder reads as its admin.
pub(super) async fn registry() -> Acr {
    let acr = Acr::start(Options::private("ci", "secret-of-larder")).await;
    acr.push_artifact("samples/config", "v1", &[("f", "text/plain", Bytes::from_static(LAYER))]);
    acr
}

/// larder before it, which lets in nobody but the users of its file.
pub(super) fn with_users(acr: &Acr, pairs: &[(&str, &str)]) -> Setup {
    let setup = Setup::of(acr).password("ci", "secret-of-larder");
    let file = setup.file("htpasswd", &users(pairs));
    setup.with(|settings| {
        settings.access.open_to.clear();
        settings.access.users_file = Some(file);
    })
}

/// A rule for users, or for everybody.
pub(super) fn rule(users: Option<&[&str]>, repositories: &str, allow: &[Right]) -> AccessRule {
    AccessRule {
        users: users.map(|users| users.iter().map(ToString::to_string).collect()),
        networks: None,
        repositories: vec![RepositoryPattern::new(repositories)],
        allow: allow.to_vec(),
    }
}

/// A request with this authorization, or none.
pub(super) async fn ask(larder: &Larder, method: &str, target: &str, authorization: Option<&str>) -> Answer {
    let call = larder.call(method, target);
    match authorization {
        Some(line) => call.line("Authorization", line).send().await,
        None => call.send().await,
    }
}
