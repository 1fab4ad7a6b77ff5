//! What users may do: by rules, on every route, and without a word on what is there to those who may not.

use super::common::{LAYER, ask, basic, registry, rule, with_users};
use crate::harness::simulator::OCI_MANIFEST;
use crate::harness::{ALIAS, Acr, Larder, sha256};
use bytes::Bytes;
use larder::config::Right::{Delete, Pull, Push};

async fn guarded(acr: &Acr) -> Larder {
    let setup = with_users(acr, &[("ann", "a"), ("bob", "b")]);
    let setup = setup.with(|settings| {
        settings.access.open_to = vec!["127.0.0.0/8".parse().unwrap()];
        settings.access.rules = vec![
            rule(Some(&["ann"]), "myacr.azurecr.io/samples/**", &[Pull, Push, Delete]),
            rule(None, "myacr.azurecr.io/open/**", &[Push]),
        ];
    });
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_gives_to_a_user_others_do_not_get_by_any_route() {
    let acr = registry().await;
    acr.push_artifact("open/x", "v1", &[("g", "text/plain", Bytes::from_static(b"for all"))]);
    let larder = guarded(&acr).await;
    let (ann, bob) = (basic("ann", "a"), basic("bob", "b"));
    let manifest = ask(&larder, "GET", "/v2/samples/config/manifests/v1", Some(&ann)).await;
    assert_eq!(manifest.status, 200);
    let (digest, layer) = (sha256(&manifest.body), sha256(LAYER));
    let content = format!("/v2/samples/config/blobs/{layer}");
    assert_eq!(ask(&larder, "GET", &content, Some(&ann)).await.status, 200);
    let here = |tail: &str| {
        [
            format!("/v2/samples/config/{tail}"),
            format!("/{ALIAS}/v2/samples/config/{tail}"),
            format!("/v2/{ALIAS}/samples/config/{tail}"),
            format!("/v2/samples/config/{tail}?ns=myacr.azurecr.io"),
            format!("/v2/samples%2Fconfig/{tail}"),
        ]
    };
    let ends = [
        "manifests/v1".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{layer}"),
        "tags/list".to_owned(),
        format!("referrers/{digest}"),
    ];
    for target in ends.iter().flat_map(|tail| here(tail)) {
        for method in ["GET", "HEAD"] {
            assert_eq!(ask(&larder, method, &target, Some(&ann)).await.status, 200, "{target}");
            assert_eq!(ask(&larder, method, &target, Some(&bob)).await.status, 403, "{target}");
            let nameless = ask(&larder, method, &target, None).await;
            assert_eq!(nameless.status, 401, "a login would do: {target}");
            assert_eq!(nameless.header("www-authenticate"), Some("Basic realm=\"larder\""));
        }
    }
    let ranged = larder.call("GET", &content).range("bytes=0-3").line("Authorization", &bob).send().await;
    assert_eq!(ranged.status, 403);
    for (method, target) in [
        ("GET", "/acr/v1/samples/config".to_owned()),
        ("GET", "/acr/v1/samples/config/_tags".to_owned()),
        ("DELETE", "/acr/v1/samples/config".to_owned()),
        ("PATCH", "/acr/v1/samples/config/_tags/v1".to_owned()),
        ("DELETE", "/v2/samples/config/manifests/v1".to_owned()),
        ("PUT", "/v2/samples/config/manifests/v2".to_owned()),
        ("POST", "/v2/samples/config/blobs/uploads/".to_owned()),
    ] {
        assert_eq!(ask(&larder, method, &target, Some(&bob)).await.status, 403, "{method} {target}");
    }
    // A blob that ann has brought in, by way of a repository that bob may use.
    let elsewhere = ask(&larder, "GET", &format!("/v2/open/x/blobs/{layer}"), Some(&bob)).await;
    assert_eq!(elsewhere.status, 404);
    let mount = format!("/v2/open/x/blobs/uploads/?mount={layer}&from=samples/config");
    assert_eq!(ask(&larder, "POST", &mount, Some(&bob)).await.status, 202, "a plain upload: he may not read there");
    assert_eq!(ask(&larder, "POST", &mount.replace("&from=samples/config", ""), Some(&bob)).await.status, 202);
    assert_eq!(ask(&larder, "POST", &mount, Some(&ann)).await.status, 201, "she may");
    for target in ["/v2/_catalog", "/acr/v1/_catalog"] {
        assert!(ask(&larder, "GET", target, Some(&ann)).await.text().contains("samples/config"));
        let text = ask(&larder, "GET", target, Some(&bob)).await.text().to_owned();
        assert!(text.contains("open/x") && !text.contains("samples"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_same_for_what_is_there_and_for_what_is_not() {
    let acr = registry().await;
    let larder = guarded(&acr).await;
    let (ann, bob) = (basic("ann", "a"), basic("bob", "b"));
    assert_eq!(ask(&larder, "GET", "/v2/samples/config/manifests/v1", Some(&ann)).await.status, 200);
    let layer = sha256(LAYER);
    assert_eq!(ask(&larder, "GET", &format!("/v2/samples/config/blobs/{layer}"), Some(&ann)).await.status, 200);
    let absent = sha256(b"never seen");
    for (there, not_there) in [
        ("/v2/samples/config/manifests/v1".to_owned(), "/v2/samples/config/manifests/v9".to_owned()),
        (format!("/v2/samples/config/blobs/{layer}"), format!("/v2/samples/config/blobs/{absent}")),
    ] {
        for (method, who) in [("GET", Some(&*bob)), ("HEAD", Some(&*bob)), ("GET", None), ("PUT", Some(&*bob))] {
            let (one, other) = (ask(&larder, method, &there, who).await, ask(&larder, method, &not_there, who).await);
            assert_eq!((one.status, &one.body), (other.status, &other.body), "{method} {there}");
            let names = |answer: &crate::harness::Answer| -> Vec<(String, String)> {
                let pairs = answer.headers.iter().filter(|(name, _)| *name != "date");
                pairs.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
            };
            assert_eq!(names(&one), names(&other), "{method} {there}");
        }
    }
    assert_eq!(
        acr.count(|seen| seen.path().contains("v9") || seen.path().contains(&absent)),
        0,
        "upstream hears nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_pushes_where_a_rule_says_so() {
    let acr = registry().await;
    let larder = guarded(&acr).await;
    let manifest = ask(&larder, "GET", "/v2/samples/config/manifests/v1", Some(&basic("ann", "a"))).await.body;
    let put = async |target: &str, who: Option<&str>| {
        let call = larder.call("PUT", target).line("Content-Type", OCI_MANIFEST).body(manifest.clone());
        match who {
            Some(who) => call.line("Authorization", who).send().await.status.as_u16(),
            None => call.send().await.status.as_u16(),
        }
    };
    assert_eq!(put("/v2/samples/config/manifests/v2", Some(&basic("ann", "a"))).await, 201);
    assert_eq!(put("/v2/samples/config/manifests/v3", Some(&basic("bob", "b"))).await, 403);
    assert_eq!(put("/v2/samples/config/manifests/v3", None).await, 401);
    assert_eq!(put("/v2/else/manifests/v3", None).await, 403, "no login would help");
}
