use super::*;
use crate::config::CredentialSettings;
use crate::upstream::testing::{Server, errors, password, reply, settings, upstream};
use std::sync::{Arc, Mutex};

/// A registry whose token service is at `realm`, its own if none is given; it takes any Bearer token but `nobody`.
async fn registry(realm: Option<String>) -> Server {
    Server::start(move |asked| {
        let host = asked.header("host").unwrap();
        if asked.header("authorization").is_some_and(|value| value.starts_with("Bearer ") && value != "Bearer nobody") {
            return reply(200, &[("content-type", OCI)], MANIFEST);
        }
        let realm = realm.clone().unwrap_or_else(|| format!("http://{host}/token"));
        let challenge = challenge(&realm, Some("repository:a:pull"));
        reply(401, &[("www-authenticate", &challenge)], errors("UNAUTHORIZED", "authentication required"))
    })
    .await
}

async fn foreign_realm(anonymous: &'static str) -> Server {
    Server::start(move |asked| match asked.header("authorization") {
        Some(_) => reply(200, &[], r#"{"token":"known"}"#),
        None => reply(200, &[], format!("{{\"token\":\"{anonymous}\"}}")),
    })
    .await
}

#[tokio::test]
async fn a_foreign_realm_gets_no_credential_and_the_error_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let realm = foreign_realm("nobody").await;
    let server = registry(Some(format!("{}/token", realm.url()))).await;
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CredentialRefused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("token_realms") && text.contains(&realm.address.to_string()), "{text}");
    assert_eq!(realm.asked().len(), 1);
    assert!(realm.asked().iter().all(|asked| asked.header("authorization").is_none() && asked.body.is_empty()));
    assert!(server.asked().iter().all(|asked| !asked.header("authorization").is_some_and(|a| a.starts_with("Basic"))));
}

#[tokio::test]
async fn a_foreign_realm_may_still_serve_anonymous_callers() {
    let folder = tempfile::tempdir().unwrap();
    let realm = foreign_realm("public").await;
    let server = registry(Some(format!("{}/token", realm.url()))).await;
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    manifest(&upstream, "a").await.unwrap();
    assert!(realm.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn a_named_realm_gets_the_credential() {
    let folder = tempfile::tempdir().unwrap();
    let realm = foreign_realm("nobody").await;
    let server = registry(Some(format!("{}/token", realm.url()))).await;
    let mut settings = settings(&server.url(), password(folder.path(), "pw"));
    settings.token_realms = vec![realm.address.to_string()];
    manifest(&upstream(&settings).0, "a").await.unwrap();
    assert_eq!(realm.asked()[0].header("authorization"), Some("Basic Y2k6cHc="));
}

#[tokio::test]
async fn a_refused_secret_is_read_again_once_and_then_named() {
    let folder = tempfile::tempdir().unwrap();
    let credential = password(folder.path(), "old");
    let file = folder.path().join("password");
    let rotated: Arc<Mutex<Option<&str>>> = Arc::default();
    let (next, at) = (Arc::clone(&rotated), file.clone());
    let server = Server::start(move |asked| {
        let host = asked.header("host").unwrap();
        if asked.target.starts_with("/token") {
            if asked.header("authorization") == Some("Basic Y2k6bmV3") {
                return reply(200, &[], r#"{"token":"t"}"#);
            }
            if let Some(new) = *next.lock().unwrap() {
                std::fs::write(&at, new).unwrap();
            }
            return crate::upstream::testing::bare(401, &[("x-ms-correlation-request-id", "c-1")], "");
        }
        if asked.header("authorization") == Some("Bearer t") {
            return reply(200, &[("content-type", OCI)], MANIFEST);
        }
        let challenge = challenge(&format!("http://{host}/token"), Some("repository:a:pull"));
        reply(401, &[("www-authenticate", &challenge)], "")
    })
    .await;
    let (upstream, metrics) = upstream(&settings(&server.url(), credential));
    let error = manifest(&upstream, "a").await.unwrap_err();
    let ErrorKind::CredentialRefused { identity, remedy } = error.kind() else { panic!("{error:?}") };
    assert_eq!(identity, "user ci");
    assert!(remedy.contains("password_file") && error.is_outage());
    let text = error.to_string();
    assert!(text.contains("c-1") && text.contains(&file.display().to_string()), "{text}");
    assert!(!text.contains("old") && !format!("{error:?}{upstream:?}").contains("Y2k6"), "{text}");
    assert_eq!(server.count("/token"), 1, "an unchanged secret is not sent twice");
    assert_eq!(metrics.token_requests.with_label_values(&["test.registry", "basic", "refused"]).get(), 1);
    assert_eq!(metrics.upstream_up.with_label_values(&["test.registry"]).get(), 0);

    *rotated.lock().unwrap() = Some("new");
    manifest(&upstream, "a").await.unwrap();
}

#[tokio::test]
async fn a_plain_registry_gets_the_password_itself_after_it_has_asked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|asked| {
        if asked.header("authorization") == Some("Basic Y2k6cHc=") {
            return reply(200, &[("content-type", OCI)], MANIFEST);
        }
        reply(
            401,
            &[("www-authenticate", "Basic realm=\"Registry Realm\"")],
            errors("UNAUTHORIZED", "authentication required"),
        )
    })
    .await;
    let (ours, _) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    manifest(&ours, "a").await.unwrap();
    manifest(&ours, "a").await.unwrap();
    let sent: Vec<_> = server.asked().iter().map(|asked| asked.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true, true]);

    let (wrong, _) = upstream(&settings(&server.url(), password(folder.path(), "wrong")));
    for _ in 0..2 {
        let error = manifest(&wrong, "a").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::CredentialRefused { .. }), "{error:?}");
    }
    let (nobody, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let error = manifest(&nobody, "a").await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::CredentialRefused { identity, .. } if identity == "anonymous"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_registry_that_has_asked_for_tokens_never_gets_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let first = std::sync::atomic::AtomicBool::new(true);
    let server = Server::start(move |asked| {
        let host = asked.header("host").unwrap();
        if asked.target.starts_with("/token") {
            return reply(200, &[], r#"{"token":"t"}"#);
        }
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            let challenge = challenge(&format!("http://{host}/token"), Some("repository:a:pull"));
            return reply(401, &[("www-authenticate", &challenge)], "");
        }
        reply(401, &[("www-authenticate", "Basic realm=\"Azure Container Registry\"")], "")
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    for _ in 0..2 {
        manifest(&upstream, "a").await.unwrap_err();
    }
    let at_v2 = server.asked().into_iter().filter(|asked| asked.target.starts_with("/v2"));
    for asked in at_v2 {
        assert!(!asked.header("authorization").is_some_and(|value| value.starts_with("Basic")), "{asked:?}");
    }
}

#[tokio::test]
async fn a_missing_secret_is_an_outage_that_names_the_file() {
    let server = registry(None).await;
    let password_file = "/nowhere/password".into();
    let credential = CredentialSettings::Password { username: "ci".to_owned(), password_file };
    let (upstream, _) = upstream(&settings(&server.url(), credential));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(error.is_outage() && error.to_string().contains("/nowhere/password"), "{error}");
    let login = upstream.describe_login().await;
    assert!(login.problem.unwrap().contains("/nowhere/password"));
}
