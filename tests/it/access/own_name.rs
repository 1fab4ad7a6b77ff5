//! Under an upstream's own name: the challenge and the token service are larder's, and clients' logins work unchanged.

use super::ask::{asking, refresh_token, registry};
use super::common::{LAYER, basic};
use crate::harness::simulator::NULL_GUID;
use crate::harness::{Answer, Larder, UPSTREAM, sha256};
use std::time::Duration;

const MANIFEST: &str = "/v2/samples/config/manifests/v1";

async fn get(larder: &Larder, target: &str, who: Option<&str>) -> Answer {
    let call = larder.call("GET", target).host(UPSTREAM);
    match who {
        Some(who) => call.line("Authorization", who).send().await,
        None => call.send().await,
    }
}

async fn token(larder: &Larder, scope: &str, who: &str) -> Answer {
    let scope = scope.replace(' ', "%20");
    get(larder, &format!("/oauth2/token?service={UPSTREAM}&scope={scope}"), Some(who)).await
}

fn bearer(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    format!("Bearer {}", answer.json()["access_token"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_is_the_one_that_clients_know() {
    let acr = registry().await;
    let larder = asking(&acr).start().await;
    let realm = format!("Bearer realm=\"http://{UPSTREAM}/oauth2/token\",service=\"{UPSTREAM}\"");
    let layer = sha256(LAYER);
    for (method, target, scope) in [
        ("GET", "/v2/".to_owned(), ""),
        ("GET", MANIFEST.to_owned(), ",scope=\"repository:samples/config:pull\""),
        ("HEAD", format!("/v2/samples/config/blobs/{layer}"), ",scope=\"repository:samples/config:pull\""),
        ("POST", "/v2/samples/config/blobs/uploads/".to_owned(), ",scope=\"repository:samples/config:pull,push\""),
        ("DELETE", MANIFEST.to_owned(), ",scope=\"repository:samples/config:delete\""),
        ("GET", "/v2/_catalog".to_owned(), ",scope=\"registry:catalog:*\""),
        ("GET", "/acr/v1/samples/config".to_owned(), ",scope=\"repository:samples/config:metadata_read\""),
    ] {
        let answer = larder.call(method, &target).host(UPSTREAM).send().await;
        assert_eq!(answer.status, 401, "{method} {target}");
        assert_eq!(answer.header("www-authenticate"), Some(&*format!("{realm}{scope}")), "{method} {target}");
    }
    assert!(acr.log().is_empty());
    // At larder's own address there is no token service, and a password is asked for.
    let plain = larder.get(MANIFEST).await;
    assert_eq!((plain.status.as_u16(), plain.header("www-authenticate")), (401, Some("Basic realm=\"larder\"")));
    let there = larder.call("GET", "/oauth2/token?scope=x").line("Authorization", &basic("reader", "reader-secret"));
    assert_eq!(there.send().await.status, 404);
}

/// What `az acr login` and Docker after it send.
#[tokio::test(flavor = "multi_thread")]
async fn the_azure_clis_login_and_dockers_pull_go_through() {
    let acr = registry().await;
    let larder = asking(&acr).start().await;
    let challenge = get(&larder, "/v2/", None).await;
    let line = challenge.header("www-authenticate").unwrap();
    let (scheme, rest) = line.split_once(' ').unwrap();
    assert!(scheme == "Bearer" && !rest.contains(' '), "the CLI splits it at blanks: {line}");
    let refresh = refresh_token(&larder).await;
    let login = basic(NULL_GUID, &refresh);
    let of_login = bearer(&token(&larder, "", &login).await);
    assert_eq!(get(&larder, "/v2/", Some(&of_login)).await.status, 200);
    let pull = bearer(&token(&larder, "repository:samples/config:pull", &login).await);
    assert_eq!(get(&larder, MANIFEST, Some(&pull)).await.status, 200);
    // As oras and the CLI ask: with a form.
    let form = format!(
        "grant_type=refresh_token&service={UPSTREAM}&scope=repository%3Asamples%2Fconfig%3Apull&refresh_token={refresh}"
    );
    let by_form = larder.call("POST", "/oauth2/token").host(UPSTREAM).body(form).send().await;
    assert_eq!(get(&larder, MANIFEST, Some(&bearer(&by_form))).await.status, 200);
    let form = format!(
        "grant_type=password&service={UPSTREAM}&scope=repository:samples/config:pull&username=reader&password=reader-secret"
    );
    let by_password = larder.call("POST", "/oauth2/token").host(UPSTREAM).body(form).send().await;
    assert_eq!(get(&larder, MANIFEST, Some(&bearer(&by_password))).await.status, 200);
    let wrong = token(&larder, "repository:samples/config:pull", &basic("reader", "wrong")).await;
    assert_eq!((wrong.status.as_u16(), wrong.body.len()), (401, 0), "as upstream says it");
    let wrong = larder
        .call("POST", "/oauth2/exchange")
        .host(UPSTREAM)
        .body("grant_type=access_token&access_token=x")
        .send()
        .await;
    assert_eq!(wrong.status, 401);
    assert_eq!(larder.call("GET", "/oauth2/exchange").host(UPSTREAM).send().await.status, 405);
    assert!(acr.violations().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_what_was_granted_and_a_client_hears_what_to_ask_for() {
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).start().await;
    let reader = basic("reader", "reader-secret");
    // More is asked for than is granted.
    let pull =
        bearer(&token(&larder, "repository:samples/config:pull,push,delete repository:other/x:pull", &reader).await);
    let asked = acr.log().len();
    assert_eq!(get(&larder, MANIFEST, Some(&pull)).await.status, 200);
    for (method, target, scope) in [
        ("GET", "/v2/other/x/manifests/v1", "repository:other/x:pull"),
        ("PUT", "/v2/samples/config/manifests/v2", "repository:samples/config:pull,push"),
        ("DELETE", MANIFEST, "repository:samples/config:delete"),
        ("GET", "/v2/samples/config2/manifests/v1", "repository:samples/config2:pull"),
    ] {
        let answer = larder.call(method, target).host(UPSTREAM).line("Authorization", &pull).send().await;
        assert_eq!(answer.status, 401, "{method} {target}");
        let line = answer.header("www-authenticate").unwrap();
        assert!(line.ends_with(&format!(",scope=\"{scope}\",error=\"insufficient_scope\"")), "{line}");
    }
    let others = ["other/x", "config2"];
    let questions =
        acr.log().iter().skip(asked).filter(|seen| others.iter().any(|name| seen.target.contains(name))).count();
    assert_eq!(questions, 0, "what such a token allows is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_locks_out_no_login_that_was_taken_and_gives_no_more_than_was_granted() {
    let acr = registry().await;
    acr.forgive();
    let larder = asking(&acr).with(|settings| settings.access.verdict_ttl = Duration::from_millis(100)).start().await;
    let (reader, writer) = (basic("reader", "reader-secret"), basic("writer", "writer-secret"));
    let refresh = refresh_token(&larder).await;
    let entra = basic(NULL_GUID, &refresh);
    let before = bearer(&token(&larder, "repository:samples/config:pull,push", &reader).await);
    assert_eq!(get(&larder, MANIFEST, Some(&before)).await.status, 200);
    bearer(&token(&larder, "repository:samples/config:pull", &entra).await);
    acr.stop_listening();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(get(&larder, MANIFEST, Some(&before)).await.status, 200, "the token that it has");
    for login in [&reader, &entra] {
        let own = bearer(&token(&larder, "repository:samples/config:pull,push repository:other/x:pull", login).await);
        assert_eq!(get(&larder, MANIFEST, Some(&own)).await.status, 200, "a new one");
        assert_eq!(get(&larder, "/v2/", Some(&own)).await.status, 200);
        assert_eq!(get(&larder, "/v2/other/x/manifests/v1", Some(&own)).await.status, 401);
        let put = larder.call("PUT", "/v2/samples/config/manifests/v2").host(UPSTREAM).line("Authorization", &own);
        assert_eq!(put.send().await.status, 401, "that was not granted");
    }
    // The Azure CLI logs in anew, and Docker goes on with what it gets.
    let own_refresh = refresh_token(&larder).await;
    assert_ne!(own_refresh, refresh);
    let again = basic(NULL_GUID, &own_refresh);
    let own = bearer(&token(&larder, "repository:samples/config:pull", &again).await);
    assert_eq!(get(&larder, MANIFEST, Some(&own)).await.status, 200);
    for unknown in [&writer, &basic("reader", "wrong")] {
        assert_eq!(token(&larder, "repository:samples/config:pull", unknown).await.status, 503);
    }
    acr.resume_listening();
    crate::harness::until_async("upstream is there again", async || {
        token(&larder, "repository:samples/config:pull", &writer).await.status == 200
    })
    .await;
    assert_eq!(token(&larder, "repository:samples/config:pull", &again).await.status, 401, "it was for the outage");
    assert_eq!(token(&larder, "repository:samples/config:pull", &basic("reader", "wrong")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_file_logs_in_there_too_and_is_gone_when_removed() {
    let acr = registry().await;
    let setup = asking(&acr);
    let file = setup.file("htpasswd", &super::common::users(&[("ann", "local"), ("bob", "local")]));
    let path = file.clone();
    let larder = setup.with(|settings| settings.access.users_file = Some(file)).start().await;
    let ann = bearer(&token(&larder, "repository:samples/config:pull", &basic("ann", "local")).await);
    assert_eq!(get(&larder, MANIFEST, Some(&ann)).await.status, 200);
    assert_eq!(token(&larder, "repository:samples/config:pull", &basic("ann", "wrong")).await.status, 401);
    assert_eq!(
        acr.count(|seen| seen.path().contains("oauth2") && seen.status == 401),
        0,
        "upstream is not asked about her"
    );
    std::fs::write(path, super::common::users(&[("bob", "local")])).unwrap();
    crate::harness::until_async("ann is gone", async || get(&larder, MANIFEST, Some(&ann)).await.status == 401).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_bounded() {
    let acr = registry().await;
    let larder = asking(&acr).start().await;
    let large = format!("grant_type=password&username=reader&password={}", "x".repeat(200_000));
    assert_eq!(larder.call("POST", "/oauth2/token").host(UPSTREAM).body(large).send().await.status, 413);
    let many = format!("{}grant_type=password&username=reader&password=reader-secret", "a=b&".repeat(64));
    assert_eq!(larder.call("POST", "/oauth2/token").host(UPSTREAM).body(many).send().await.status, 401);
    assert_eq!(acr.log().len(), 2, "a challenge, and the question without the rest");
}
