use super::*;
use crate::config::{CredentialSettings, DockerLogins, PasswordLogin, RefreshTokenFile};
use crate::upstream::testing::{Reply, Server, bare, errors, jwt, password, reply, settings, upstream};
#[cfg(unix)]
use crate::upstream::testing::{script, upstream_in};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

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
            if let Some(new) = *next.lock() {
                std::fs::write(&at, new).unwrap();
            }
            return bare(401, &[("x-ms-correlation-request-id", "c-1")], "");
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

    *rotated.lock() = Some("new");
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

/// What comes of a token service that gives this answer to a password.
async fn token_verdict(answer: impl Fn() -> Reply + Send + Sync + 'static) -> UpstreamError {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(move |asked| {
        let realm = format!("http://{}/oauth2/token", asked.header("host").unwrap());
        if asked.target.starts_with("/oauth2/") {
            return answer();
        }
        reply(401, &[("www-authenticate", &challenge(&realm, Some("repository:a:pull")))], "")
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "s3cret")));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(error.is_outage() && !error.to_string().contains("s3cret"), "{error}");
    error
}

#[tokio::test]
async fn what_a_token_service_says_is_never_about_content() {
    let firewall =
        token_verdict(|| reply(403, &[], errors("DENIED", "client with IP '1.2.3.4' is not allowed access."))).await;
    assert!(matches!(firewall.kind(), ErrorKind::Firewall { .. }), "{firewall:?}");
    for refused in [
        token_verdict(|| bare(401, &[], "")).await,
        token_verdict(|| reply(403, &[], errors("DENIED", "no"))).await,
        token_verdict(|| bare(400, &[], r#"{"error":"invalid_grant"}"#)).await,
    ] {
        assert!(matches!(refused.kind(), ErrorKind::CredentialRefused { .. }), "{refused:?}");
    }
    let throttled = token_verdict(|| bare(429, &[("retry-after", "7")], "")).await;
    assert_eq!(throttled.kind(), &ErrorKind::Throttled { retry_after: Some(Duration::from_secs(7)) });
    assert_eq!(token_verdict(|| bare(502, &[], "")).await.kind(), &ErrorKind::ServerError(502));
    for foreign in [
        token_verdict(|| bare(200, &[("content-type", "text/html")], "<html>")).await,
        token_verdict(|| bare(200, &[], "{}")).await,
        token_verdict(|| bare(200, &[], "{\"token\":\"a\\nb\"}")).await,
        token_verdict(|| reply(404, &[], errors("UNKNOWN", "x"))).await,
        token_verdict(|| bare(302, &[("location", "http://127.0.0.1:1/")], "")).await,
    ] {
        assert_eq!(foreign.kind(), &ErrorKind::Foreign, "{foreign}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_entra_login_that_the_registry_refuses_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "az", "echo '{\"accessToken\":\"e.n.t\"}'");
    let server = Server::start(|asked| {
        let realm = format!("http://{}/oauth2/token", asked.header("host").unwrap());
        match asked.target.as_str() {
            "/oauth2/exchange" => bare(401, &[], ""),
            _ => reply(401, &[("www-authenticate", &challenge(&realm, Some("repository:a:pull")))], ""),
        }
    })
    .await;
    let environment = crate::upstream::testing::environment().with("PATH", folder.path());
    let (upstream, metrics) = upstream_in(&settings(&server.url(), CredentialSettings::AzureCli), &environment);
    let error = manifest(&upstream, "a").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error.kind(), ErrorKind::CredentialRefused { .. }), "{error:?}");
    assert!(text.contains("az login") && text.contains("az (Azure CLI)"), "{text}");
    assert_eq!(metrics.token_requests.with_label_values(&["test.registry", "exchange", "refused"]).get(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_burst_of_repositories_runs_one_helper() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let body = format!("echo run >> {}; echo '{{\"Username\":\"<token>\",\"Secret\":\"idtoken\"}}'", runs.display());
    script(folder.path(), "docker-credential-test", &body);
    std::fs::write(folder.path().join("config.json"), r#"{"credHelpers":{"test.registry":"test"}}"#).unwrap();
    let server = Server::start(|asked| {
        let realm = format!("http://{}/token", asked.header("host").unwrap());
        if asked.target.starts_with("/token") {
            assert!(asked.body.ends_with("refresh_token=idtoken"), "{}", asked.body);
            return reply(200, &[], r#"{"access_token":"t"}"#);
        }
        match asked.header("authorization") {
            Some(_) => reply(200, &[("content-type", OCI)], MANIFEST),
            None => reply(401, &[("www-authenticate", &challenge(&realm, None))], ""),
        }
    })
    .await;
    let environment =
        crate::upstream::testing::environment().with("PATH", folder.path()).with("DOCKER_CONFIG", folder.path());
    let credential = CredentialSettings::DockerConfig(DockerLogins { config_file: None });
    let (upstream, _) = upstream_in(&settings(&server.url(), credential), &environment);
    let all: Vec<_> = (0..20)
        .map(|number| {
            let upstream = upstream.clone();
            tokio::spawn(async move { manifest(&upstream, &format!("r{number}")).await.map(|_| ()) })
        })
        .collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
}

#[tokio::test]
async fn an_acr_that_asks_for_a_password_itself_does_not_get_it() {
    // A forward proxy stands for the ACR, whose name leads nowhere here.
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| reply(401, &[("www-authenticate", "Basic realm=\"x\"")], "")).await;
    let environment = crate::upstream::testing::environment().with("HTTP_PROXY", server.url());
    let settings = settings("http://myacr.azurecr.io", password(folder.path(), "pw"));
    let (upstream, _) = crate::upstream::testing::upstream_in(&settings, &environment);
    for _ in 0..2 {
        let error = manifest(&upstream, "a").await.unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Foreign, "{error}");
    }
    assert!(server.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn a_missing_secret_is_an_outage_that_names_the_file() {
    let server = registry(None).await;
    let password_file = "/nowhere/password".into();
    let credential = CredentialSettings::Password(PasswordLogin { username: "ci".to_owned(), password_file });
    let (upstream, _) = upstream(&settings(&server.url(), credential));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(error.is_outage() && error.to_string().contains("/nowhere/password"), "{error}");
    let login = upstream.describe_login().await;
    assert!(login.problem.unwrap().contains("/nowhere/password"));
}

#[tokio::test]
async fn a_refresh_token_that_has_expired_says_what_to_do_and_a_new_one_in_its_file_works() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let (old, new) = (jwt(r#"{"exp":1600000000,"sub":"old"}"#), jwt(r#"{"exp":4102444800,"sub":"new"}"#));
    std::fs::write(&token_file, &old).unwrap();
    let good = new.clone();
    let server = Server::start(move |asked| {
        let host = asked.header("host").unwrap();
        if asked.target.starts_with("/oauth2/token") {
            let known = asked.body.contains(&format!("refresh_token={good}"));
            return if known {
                reply(200, &[], r#"{"access_token":"t","expires_in":"3600"}"#)
            } else {
                bare(401, &[], "")
            };
        }
        if asked.header("authorization") == Some("Bearer t") {
            return reply(200, &[("content-type", OCI)], MANIFEST);
        }
        let challenge = challenge(&format!("http://{host}/oauth2/token"), Some("repository:a:pull"));
        reply(401, &[("www-authenticate", &challenge)], "")
    })
    .await;
    let credential = CredentialSettings::RefreshToken(RefreshTokenFile { token_file: token_file.clone() });
    let (upstream, _) = upstream(&settings(&server.url(), credential));
    assert_eq!(upstream.describe_login().await.problem.as_deref(), Some("it has expired"));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CredentialRefused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&token_file.display().to_string()) && !text.contains(&old), "{text}");
    std::fs::write(&token_file, &new).unwrap();
    // The service says its lifetime as a text, as some do.
    manifest(&upstream, "a").await.unwrap();
}

#[tokio::test]
async fn a_login_whose_program_is_not_there_names_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"credHelpers":{"test.registry":"absent"}}"#).unwrap();
    let server = registry(None).await;
    let environment =
        crate::upstream::testing::environment().with("PATH", folder.path()).with("DOCKER_CONFIG", folder.path());
    for (credential, program) in [
        (CredentialSettings::AzureCli, "az"),
        (CredentialSettings::DockerConfig(DockerLogins { config_file: None }), "docker-credential-absent"),
    ] {
        let (upstream, _) = crate::upstream::testing::upstream_in(&settings(&server.url(), credential), &environment);
        let error = manifest(&upstream, "a").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::CredentialRefused { .. }) && error.is_outage(), "{error:?}");
        assert!(error.to_string().contains(program) && error.to_string().contains("not on PATH"), "{error}");
    }
}
