use super::*;
use crate::config::{CredentialSettings, RefreshTokenFile};
use crate::upstream::testing::{
    ReceivedRequest, Reply, Server, errors, jwt, password, reply, script, settings, upstream, upstream_in,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// A registry that gives out token `t1`, `t2`, … and takes those for which `good` says so.
fn guarded(
    path: &'static str,
    life: u64,
    good: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static {
    guarded_saying("", path, life, good)
}

/// The same, which ends the challenge to a token that it does not take with these words.
fn guarded_saying(
    why: &'static str,
    path: &'static str,
    life: u64,
    good: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> impl Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static {
    let given = AtomicUsize::new(0);
    move |asked: &ReceivedRequest| {
        let host = asked.header("host").unwrap();
        if asked.target.starts_with(path) {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let exp = now.wrapping_add(life);
            let token = jwt(&format!("{{\"exp\":{exp},\"number\":{number}}}"));
            return reply(200, &[("content-type", "application/json")], format!("{{\"access_token\":\"{token}\"}}"));
        }
        let number = asked
            .header("authorization")
            .map(|value| number_of(value.strip_prefix("Bearer ").expect("never anything but Bearer at /v2")));
        if number.is_some_and(&good) {
            return reply(200, &[("content-type", OCI)], MANIFEST);
        }
        let repository = asked.target.trim_start_matches("/v2/").split("/manifests").next().unwrap();
        let realm = format!("http://{host}{path}");
        let why = if number.is_some() { why } else { "" };
        let challenge = challenge(&realm, Some(&format!("repository:{repository}:pull"))) + why;
        reply(401, &[("www-authenticate", &challenge)], errors("UNAUTHORIZED", "authentication required"))
    }
}

fn number_of(token: &str) -> usize {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    usize::try_from(value["number"].as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn acr_gives_an_anonymous_token_by_post_and_it_is_used_again() {
    let server = Server::start(guarded("/oauth2/token", 3600, |_| true)).await;
    let (upstream, metrics) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "a/b").await.unwrap();
    manifest(&upstream, "a/b").await.unwrap();
    manifest(&upstream, "c").await.unwrap();
    let want = [
        "GET /v2/a/b/manifests/v1",
        "POST /oauth2/token",
        "GET /v2/a/b/manifests/v1",
        "GET /v2/a/b/manifests/v1",
        "POST /oauth2/token",
        "GET /v2/c/manifests/v1",
    ];
    assert_eq!(paths(&server), want, "the second repository saves the 401");
    let asked = server.asked();
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(asked[1].body, "grant_type=password&service=test.registry&scope=repository%3Aa%2Fb%3Apull");
    assert_eq!(asked[4].body, "grant_type=password&service=test.registry&scope=repository%3Ac%3Apull");
    let tokens = metrics.token_requests.with_label_values(&["test.registry", "anonymous", "ok"]).get();
    assert_eq!(tokens, 2);
    assert_eq!(metrics.upstream_retries.with_label_values(&["test.registry", "unauthorized"]).get(), 1);
    assert_eq!(metrics.upstream_up.with_label_values(&["test.registry"]).get(), 1);
}

#[tokio::test]
async fn other_services_get_a_get_and_the_other_dialect_if_they_do_not_understand() {
    let server = Server::start(guarded("/token", 3600, |_| true)).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "a").await.unwrap();
    assert_eq!(server.asked()[1].target, "/token?service=test.registry&scope=repository%3Aa%3Apull");

    for status in [400, 404, 405] {
        let inner = guarded("/token", 3600, |_| true);
        let server =
            Server::start(
                move |asked| {
                    if asked.target.starts_with("/token?") { reply(status, &[], "") } else { inner(asked) }
                },
            );
        let server = server.await;
        let (upstream, _) = self::upstream(&settings(&server.url(), CredentialSettings::Anonymous));
        manifest(&upstream, "a").await.unwrap();
        assert_eq!(server.count("POST /token"), 1, "{status}");
        assert!(server.asked()[2].body.contains("client_id=larder"));
    }
}

#[tokio::test]
async fn a_hundred_requests_share_one_token() {
    let inner = Arc::new(guarded("/oauth2/token", 3600, |_| true));
    let server = Server::start_async(move |asked| {
        let inner = Arc::clone(&inner);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            inner(&asked)
        }
    })
    .await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let all: Vec<_> = (0..100)
        .map(|_| {
            let upstream = upstream.clone();
            tokio::spawn(async move { manifest(&upstream, "a").await.map(|_| ()) })
        })
        .collect();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert_eq!(server.count("/oauth2/token"), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let server = Server::start(guarded("/oauth2/token", 3, |_| true)).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "a").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2600)).await;
    manifest(&upstream, "a").await.unwrap();
    assert_eq!(server.count("/oauth2/token"), 2);
    assert_eq!(server.count("/v2/a"), 3, "one 401, and none after the renewal");
}

#[tokio::test]
async fn a_token_refused_early_is_replaced_once() {
    let server = Server::start(guarded("/oauth2/token", 3600, |n| n != 1)).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RepositoryRefused { .. }), "{error:?}");
    assert_eq!(server.count("/v2/a"), 2, "one re-authentication per request");
    manifest(&upstream, "a").await.unwrap();
    assert_eq!(server.count("/oauth2/token"), 2, "the token that was refused is not used again");
}

/// A registry that does not understand a token has not judged the login: larder asks for another one, once, and then it is an
/// outage, in which what is stored is served.
#[tokio::test]
async fn a_fresh_token_that_is_called_invalid_is_no_refusal_of_the_repository() {
    let invalid = ",error=\"invalid_token\"";
    let server = Server::start(guarded_saying(invalid, "/oauth2/token", 3600, |n| n == 1 || n == 3)).await;
    let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    manifest(&upstream, "a").await.unwrap();
    // The second token is fetched before the question, and the third because it is not taken.
    manifest(&upstream, "b").await.unwrap();
    assert_eq!((server.count("/oauth2/token"), server.count("/v2/b")), (3, 2));

    let server = Server::start(guarded_saying(invalid, "/oauth2/token", 3600, |_| false)).await;
    let (upstream, _) = self::upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    for _ in 0..2 {
        let error = manifest(&upstream, "a").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Foreign), "{error:?}");
        assert!(error.is_outage());
        assert!(error.to_string().contains("its clock or its keys are wrong"), "{error}");
    }
    assert_eq!(server.count("/v2/a"), 4, "one re-authentication per request");

    let narrow = ",error=\"insufficient_scope\"";
    let server = Server::start(guarded_saying(narrow, "/oauth2/token", 3600, |_| false)).await;
    let (upstream, _) = self::upstream(&settings(&server.url(), CredentialSettings::Anonymous));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RepositoryRefused { .. }), "{error:?}");
}

#[tokio::test]
async fn got_a_token_is_not_authorised() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(guarded("/oauth2/token", 3600, |_| false)).await;
    let (upstream, _) = upstream(&settings(&server.url(), password(folder.path(), "pw")));
    let error = manifest(&upstream, "a").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::RepositoryRefused { .. }), "{error:?}");
    assert!(!error.is_outage());
    let text = error.to_string();
    assert!(
        text.starts_with("cannot fetch manifest v1 of a from test.registry: ") && text.contains("user ci"),
        "{text}"
    );
    assert_eq!(server.count(""), 3);
}

#[tokio::test]
async fn a_password_goes_to_the_token_service_as_basic_and_never_to_v2() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(guarded("/oauth2/token", 3600, |_| true)).await;
    let (upstream, metrics) = upstream(&settings(&server.url(), password(folder.path(), "p:w\n")));
    manifest(&upstream, "a").await.unwrap();
    let asked = server.asked();
    assert_eq!(asked[1].header("authorization"), Some("Basic Y2k6cDp3"));
    assert_eq!(asked[1].target, "/oauth2/token?service=test.registry&scope=repository%3Aa%3Apull");
    assert_eq!(metrics.token_requests.with_label_values(&["test.registry", "basic", "ok"]).get(), 1);
}

#[tokio::test]
async fn a_refresh_token_is_posted_and_its_expiry_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, jwt(r#"{"exp":4000000000}"#)).unwrap();
    let server = Server::start(guarded("/oauth2/token", 3600, |_| true)).await;
    let credential = CredentialSettings::RefreshToken(RefreshTokenFile { token_file });
    let (upstream, metrics) = upstream(&settings(&server.url(), credential));
    manifest(&upstream, "a").await.unwrap();
    let body = &server.asked()[1].body;
    let want = "grant_type=refresh_token&service=test.registry&scope=repository%3Aa%3Apull&refresh_token=";
    assert!(body.starts_with(want), "{body}");
    assert_eq!(metrics.token_expiry.with_label_values(&["test.registry"]).get(), 4_000_000_000);
    let login = upstream.describe_login().await;
    assert_eq!(login.expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)));
    assert_eq!(login.problem, None);
}

#[cfg(unix)]
#[tokio::test]
async fn the_cli_login_is_exchanged_once_for_all_scopes() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let entra = jwt(r#"{"upn":"ann@contoso.com","exp":4000000000}"#);
    let body = format!(
        "echo run >> {}; echo '{{\"accessToken\":\"{entra}\",\"tenant\":\"11-22\",\"expires_on\":4000000000}}'",
        runs.display()
    );
    script(folder.path(), "az", &body);
    let refresh = jwt(r#"{"exp":3900000000}"#);
    let inner = guarded("/oauth2/token", 3600, |_| true);
    let answer = format!("{{\"refresh_token\":\"{refresh}\"}}");
    let server =
        Server::start(
            move |asked| {
                if asked.target == "/oauth2/exchange" { reply(200, &[], answer.clone()) } else { inner(asked) }
            },
        )
        .await;
    let environment = crate::upstream::testing::environment().with("PATH", folder.path());
    let (upstream, metrics) = upstream_in(&settings(&server.url(), CredentialSettings::AzureCli), &environment);
    manifest(&upstream, "a").await.unwrap();
    manifest(&upstream, "b").await.unwrap();
    let exchange = &server.asked()[1];
    assert_eq!(
        exchange.body,
        format!("grant_type=access_token&service=test.registry&tenant=11-22&access_token={entra}")
    );
    assert_eq!((server.count("/oauth2/exchange"), server.count("/oauth2/token")), (1, 2));
    assert!(server.asked()[2].body.ends_with(&format!("&refresh_token={refresh}")));
    assert_eq!(std::fs::read_to_string(&runs).unwrap(), "run\n");
    assert_eq!(metrics.token_requests.with_label_values(&["test.registry", "exchange", "ok"]).get(), 1);
    assert_eq!(metrics.token_expiry.with_label_values(&["test.registry"]).get(), 3_900_000_000);
    let login = upstream.describe_login().await;
    assert_eq!((login.identity.as_str(), login.source.as_str()), ("ann@contoso.com", "az (Azure CLI)"));
}

/// The wall clock was set by an hour, here or at the registry: a token that seems to be dead on arrival is used all the same, and one
/// that seems to live for long is replaced as soon as it is refused. Neither costs more than one token for many requests.
#[tokio::test]
async fn a_wall_clock_that_is_wrong_by_an_hour_costs_no_storm_of_tokens() {
    for (hours, dead) in [(-1, usize::MAX), (1, 1)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        // The first token dies, whatever it says, after ten requests.
        let good = move |number: usize| number != dead || count.fetch_add(1, Ordering::SeqCst) < 10;
        let life = 3000_u64.wrapping_add_signed(hours * 3600);
        let server = Server::start(guarded("/oauth2/token", life, good)).await;
        let (upstream, _) = upstream(&settings(&server.url(), CredentialSettings::Anonymous));
        for _ in 0..30 {
            manifest(&upstream, "a").await.unwrap();
        }
        let expected = if dead == usize::MAX { 1 } else { 2 };
        assert_eq!(server.count("/oauth2/token"), expected, "{hours} h");
        assert_eq!(server.count("/v2/a"), 30 + expected, "{hours} h: one 401 per token");
    }
}
