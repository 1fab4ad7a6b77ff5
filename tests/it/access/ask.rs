//! `ask_upstream`: whatever a caller shows is judged by upstream, for that repository and for what is to be done there.

use super::common::{LAYER, ask, basic};
use crate::harness::simulator::{FaultAnswer, NULL_GUID, OCI_MANIFEST, Options, PathClass, User};
use crate::harness::{Acr, Larder, Setup, UPSTREAM, sha256};
use bytes::Bytes;
use larder::config::Right::{Delete, Pull, Push};
use std::time::Duration;

const MANIFEST: &str = "/v2/samples/config/manifests/v1";
const READ: &[&str] = &["content/read", "metadata/read"];
const WRITE: &[&str] = &["content/read", "content/write", "metadata/read"];

/// A registry with users of several rights, and content in two repositories.
pub(super) async fn registry() -> Acr {
    let options = Options::private("ci", "secret-of-larder")
        .user(User::scope_map("reader", "reader-secret", &[("samples/*", READ)]))
        .user(User::scope_map("writer", "writer-secret", &[("samples/*", WRITE)]))
        .user(User::scope_map("content-only", "content-secret", &[("samples/*", &["content/read"])]))
        .user(User::scope_map("stranger", "stranger-secret", &[("other/*", READ)]));
    let options = Options { aad_tokens: vec!["an-entra-token".to_owned()], ..options };
    let acr = Acr::start(options).await;
    acr.push_artifact("samples/config", "v1", &[("f", "text/plain", Bytes::from_static(LAYER))]);
    acr.push_artifact("other/x", "v1", &[("g", "text/plain", Bytes::from_static(b"other"))]);
    acr
}

/// larder before it, which lets in whom it lets in.
pub(super) fn asking(acr: &Acr) -> Setup {
    Setup::of(acr).password("ci", "secret-of-larder").tag_ttl(Duration::from_secs(3600)).with(|settings| {
        settings.access.open_to.clear();
        settings.access.ask_upstream = true;
        settings.access.rules = vec![super::common::rule(None, "**", &[Pull, Push, Delete])];
    })
}

/// A refresh token of upstream's.
pub(super) async fn refresh_token(larder: &Larder) -> String {
    let form = format!("grant_type=access_token&service={UPSTREAM}&access_token=an-entra-token");
    let answer = larder.call("POST", "/oauth2/exchange").host(UPSTREAM).body(form).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["refresh_token"].as_str().unwrap().to_owned()
}

async fn status(larder: &Larder, method: &str, target: &str, who: &str) -> u16 {
    ask(larder, method, target, Some(who)).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_what_upstream_would_give_by_every_route_and_no_more() {
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).start().await;
    let (reader, stranger) = (basic("reader", "reader-secret"), basic("stranger", "stranger-secret"));
    let manifest = ask(&larder, "GET", MANIFEST, Some(&reader)).await;
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    let (digest, layer) = (sha256(&manifest.body), sha256(LAYER));
    let blob = format!("/v2/samples/config/blobs/{layer}");
    assert_eq!(status(&larder, "GET", &blob, &reader).await, 200);
    for target in [
        MANIFEST.to_owned(),
        format!("/v2/samples/config/manifests/{digest}"),
        blob.clone(),
        "/v2/samples/config/tags/list".to_owned(),
        format!("/v2/samples/config/referrers/{digest}"),
        "/acr/v1/samples/config/_tags".to_owned(),
    ] {
        let methods: &[&str] = if target.starts_with("/acr") { &["GET"] } else { &["GET", "HEAD"] };
        for method in methods {
            assert_eq!(status(&larder, method, &target, &reader).await, 200, "{method} {target}");
            assert_eq!(status(&larder, method, &target, &stranger).await, 403, "{method} {target}");
            assert_eq!(ask(&larder, method, &target, None).await.status, 401, "{method} {target}");
        }
    }
    let ranged = larder.call("GET", &blob).range("bytes=0-3").line("Authorization", &stranger).send().await;
    assert_eq!(ranged.status, 403);
    // The bytes are here; another repository does not have them.
    assert_eq!(status(&larder, "GET", &format!("/v2/other/x/blobs/{layer}"), &stranger).await, 404);
    assert_eq!(status(&larder, "GET", &format!("/v2/other/x/blobs/{layer}"), &reader).await, 403);
    // Who may read may not write, and a list of everything is for those who may read everything.
    for (method, target) in [
        ("PUT", "/v2/samples/config/manifests/v2"),
        ("POST", "/v2/samples/config/blobs/uploads/"),
        ("DELETE", MANIFEST),
        ("DELETE", "/acr/v1/samples/config"),
        ("PATCH", "/acr/v1/samples/config"),
        ("GET", "/v2/_catalog"),
        ("GET", "/acr/v1/_catalog"),
    ] {
        assert_eq!(status(&larder, method, target, &reader).await, 403, "{method} {target}");
    }
    let ci = basic("ci", "secret-of-larder");
    for target in ["/v2/_catalog", "/acr/v1/_catalog"] {
        assert_eq!(status(&larder, "GET", target, &ci).await, 200, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_on_one_thing_is_none_on_another() {
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).start().await;
    let content = basic("content-only", "content-secret");
    assert_eq!(status(&larder, "GET", MANIFEST, &content).await, 200);
    assert_eq!(status(&larder, "GET", "/v2/samples/config/tags/list", &content).await, 403, "it may not read metadata");
    assert_eq!(status(&larder, "GET", "/acr/v1/samples/config/_tags", &content).await, 403);
    let writer = basic("writer", "writer-secret");
    let manifest = ask(&larder, "GET", MANIFEST, Some(&writer)).await.body;
    let put = |name: &str| {
        larder
            .call("PUT", &format!("/v2/{name}/manifests/v2"))
            .line("Content-Type", OCI_MANIFEST)
            .line("Authorization", &writer)
            .body(manifest.clone())
    };
    assert_eq!(put("samples/config").send().await.status, 201);
    assert_eq!(put("other/x").send().await.status, 403);
    assert_eq!(status(&larder, "DELETE", "/v2/samples/config/manifests/v2", &writer).await, 403, "push is not delete");
    let mount = format!("/v2/samples/new/blobs/uploads/?mount={}&from=other/x", sha256(b"other"));
    assert_eq!(status(&larder, "POST", &mount, &writer).await, 202, "a plain upload: it may not read there");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_credential_is_taken_and_each_wrong_one_is_not() {
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).start().await;
    let refresh = refresh_token(&larder).await;
    let token = |scope: &str| {
        let target = format!("/oauth2/token?service={UPSTREAM}&scope={scope}");
        larder.call("GET", &target).host(UPSTREAM).line("Authorization", &basic(NULL_GUID, &refresh))
    };
    let access =
        token("repository:samples/config:pull").send().await.json()["access_token"].as_str().unwrap().to_owned();
    for credential in [
        basic("ci", "secret-of-larder"),
        basic("reader", "reader-secret"),
        basic(NULL_GUID, &refresh),
        basic(NULL_GUID, "an-entra-token"),
        format!("Bearer {access}"),
        "Bearer an-entra-token".to_owned(),
    ] {
        assert_eq!(status(&larder, "GET", "/v2/", &credential).await, 200, "{credential}");
        assert_eq!(status(&larder, "GET", MANIFEST, &credential).await, 200, "{credential}");
    }
    for credential in [
        basic("ci", "wrong"),
        basic("nobody", "secret-of-larder"),
        basic(NULL_GUID, "no-token"),
        "Bearer no-token".to_owned(),
        format!("Bearer {access}x"),
    ] {
        assert_eq!(status(&larder, "GET", "/v2/", &credential).await, 401, "{credential}");
        assert_eq!(status(&larder, "GET", MANIFEST, &credential).await, 401, "{credential}");
    }
}

/// Anybody can write a token that says that it allows everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_says_much_of_itself_is_asked_about() {
    use base64::Engine as _;
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).start().await;
    assert_eq!(status(&larder, "GET", MANIFEST, &basic("ci", "secret-of-larder")).await, 200);
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = r#"{"exp":99999999999,"access":[{"type":"repository","name":"samples/config","actions":["pull","push","delete","*"]},{"type":"registry","name":"catalog","actions":["*"]}]}"#;
    for head in [r#"{"alg":"none"}"#, r#"{"alg":"RS256","typ":"JWT"}"#, r#"{"alg":"HS256","typ":"JWT","kid":"larder"}"#]
    {
        let forged = format!("Bearer {}.{}.{}", encode(head), encode(claims), encode("x"));
        for (method, target) in [
            ("GET", MANIFEST),
            ("DELETE", MANIFEST),
            ("PUT", "/v2/samples/config/manifests/v2"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/"),
        ] {
            let found = status(&larder, method, target, &forged).await;
            assert!(matches!(found, 401 | 403), "{method} {target}: {found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_costs_upstream_nothing_while_its_verdict_lasts() {
    let acr = registry().await;
    let larder = asking(&acr).with(|settings| settings.access.verdict_ttl = Duration::from_secs(2)).start().await;
    let reader = basic("reader", "reader-secret");
    let blob = format!("/v2/samples/config/blobs/{}", sha256(LAYER));
    for target in [MANIFEST, &blob] {
        assert_eq!(status(&larder, "GET", target, &reader).await, 200);
    }
    let asked = acr.log().len();
    for _ in 0..50 {
        assert_eq!(status(&larder, "GET", MANIFEST, &reader).await, 200);
        assert_eq!(status(&larder, "GET", &blob, &reader).await, 200);
    }
    assert_eq!(acr.log().len(), asked);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(status(&larder, "GET", MANIFEST, &reader).await, 200);
    assert!(acr.log().len() > asked, "a verdict is not kept for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_locks_nobody_out_who_was_let_in_and_lets_in_nobody_else() {
    let acr = registry().await;
    let short = |settings: &mut larder::config::Settings| {
        settings.access.verdict_ttl = Duration::from_millis(100);
        settings.access.verdict_stale = Duration::from_secs(4);
    };
    let larder = asking(&acr).with(short).start().await;
    let (reader, writer) = (basic("reader", "reader-secret"), basic("writer", "writer-secret"));
    assert_eq!(status(&larder, "GET", MANIFEST, &reader).await, 200);
    acr.stop_listening();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(status(&larder, "GET", MANIFEST, &reader).await, 200, "its verdict lives on");
    let unknown = ask(&larder, "GET", MANIFEST, Some(&writer)).await;
    assert_eq!(unknown.status, 503, "never seen: {}", unknown.text());
    assert!(unknown.header("www-authenticate").is_none() && unknown.header("retry-after").is_some());
    assert_eq!(status(&larder, "GET", "/v2/other/x/manifests/v1", &reader).await, 503);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let late = ask(&larder, "GET", MANIFEST, Some(&reader)).await;
    assert_eq!(late.status, 503, "no longer than that");
    acr.resume_listening();
    crate::harness::until_async("upstream is there again", async || {
        status(&larder, "GET", MANIFEST, &writer).await == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_upstream_takes_is_gone_with_the_verdict() {
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).with(|settings| settings.access.verdict_ttl = Duration::from_millis(200)).start().await;
    let refresh = refresh_token(&larder).await;
    let caller = basic(NULL_GUID, &refresh);
    assert_eq!(status(&larder, "GET", MANIFEST, &caller).await, 200);
    acr.revoke_tokens();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(status(&larder, "GET", MANIFEST, &caller).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_users_file_is_checked_there_and_nowhere_else() {
    let acr = registry().await;
    let setup = asking(&acr);
    let file = setup.file("htpasswd", &super::common::users(&[("reader", "local"), ("ann", "local")]));
    let larder = setup.with(|settings| settings.access.users_file = Some(file)).start().await;
    assert_eq!(status(&larder, "GET", MANIFEST, &basic("ann", "local")).await, 200);
    assert_eq!(status(&larder, "GET", MANIFEST, &basic("reader", "local")).await, 200);
    acr.clear_log();
    assert_eq!(
        status(&larder, "GET", MANIFEST, &basic("reader", "reader-secret")).await,
        401,
        "that is upstream's reader"
    );
    assert_eq!(acr.log().len(), 0);
    assert_eq!(status(&larder, "GET", MANIFEST, &basic("writer", "writer-secret")).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_hold_besides_and_know_callers_by_the_name_that_upstream_has_taken() {
    let acr = registry().await;
    acr.forgive();
    let setup = asking(&acr).with(|settings| {
        settings.access.rules = vec![super::common::rule(Some(&["writer"]), "myacr.azurecr.io/samples/**", &[Push])];
    });
    let larder = setup.start().await;
    let writer = basic("writer", "writer-secret");
    let manifest = ask(&larder, "GET", MANIFEST, Some(&writer)).await.body;
    let put = async |who: &str| {
        let call = larder.call("PUT", "/v2/samples/config/manifests/v2").line("Content-Type", OCI_MANIFEST);
        call.line("Authorization", who).body(manifest.clone()).send().await.status.as_u16()
    };
    assert_eq!(put(&writer).await, 201);
    assert_eq!(put(&basic("ci", "secret-of-larder")).await, 403, "upstream would let it, no rule does");
    assert_eq!(put(&basic("writer", "secret-of-larder")).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_token_service_is_said_and_no_login_is_thrown_away() {
    let acr = registry().await;
    let larder = asking(&acr).start().await;
    let busy = FaultAnswer::TooManyRequests { retry_after_s: Some(7), counts_down: false, front_door: false };
    acr.knobs().fail(PathClass::Token, busy);
    let answer = ask(&larder, "GET", MANIFEST, Some(&basic("reader", "reader-secret"))).await;
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some());
}
