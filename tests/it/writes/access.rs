//! Who may write: nobody without a rule, and then only what, where and from where the rule says.

use crate::harness::simulator::Options;
use crate::harness::{ALIAS, Acr, Larder};
use crate::writes::common::pushing;
use bytes::Bytes;
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

fn rule(networks: Option<&str>, repositories: &str, allow: &[Right]) -> AccessRule {
    AccessRule {
        users: None,
        networks: networks.map(|network| vec![network.parse().unwrap()]),
        repositories: vec![RepositoryPattern::new(repositories)],
        allow: allow.to_vec(),
    }
}

async fn status(larder: &Larder, method: &str, target: &str, body: &Bytes) -> u16 {
    let call = larder.call(method, target).line("Content-Type", KIND).body(body.clone());
    call.send().await.status.as_u16()
}

#[tokio::test]
async fn a_rule_lets_in_just_what_it_names_on_every_route() {
    use Right::{Delete, Pull, Push};
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let it = acr.push_artifact("in/x", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    acr.push_artifact("out/x", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    let everywhere = |name: &str| {
        [
            format!("/v2/{name}"),
            format!("/{ALIAS}/v2/{name}"),
            format!("/v2/{ALIAS}/{name}"),
            format!("/v2/myacr.azurecr.io/{name}"),
        ]
    };
    for (rules, push, delete) in [
        (vec![], 403, 403),
        (vec![rule(None, "myacr.azurecr.io/in/**", &[Pull])], 403, 403),
        (vec![rule(None, "myacr.azurecr.io/in/**", &[Push])], 201, 403),
        (vec![rule(None, "myacr.azurecr.io/in/*", &[Delete])], 403, 202),
        (vec![rule(Some("10.0.0.0/8"), "**", &[Push, Delete])], 403, 403),
        (vec![rule(Some("10.0.0.0/8"), "**", &[Push]), rule(Some("127.0.0.0/8"), "*/in/x", &[Push, Delete])], 201, 202),
        (vec![rule(None, "other.azurecr.io/**", &[Push, Delete])], 403, 403),
    ] {
        let words = format!("{rules:?}");
        let larder = pushing(&acr).with(|settings| settings.access.rules = rules).start().await;
        for base in everywhere("in/x") {
            assert_eq!(
                status(&larder, "PUT", &format!("{base}/manifests/t"), &it.manifest).await,
                push,
                "{words} {base}"
            );
            acr.push_manifest("in/x", Some("t"), KIND, it.manifest.clone());
            assert_eq!(
                status(&larder, "DELETE", &format!("{base}/manifests/t"), &Bytes::new()).await,
                delete,
                "{words} {base}"
            );
        }
        for base in everywhere("out/x") {
            assert_eq!(
                status(&larder, "PUT", &format!("{base}/manifests/t"), &it.manifest).await,
                403,
                "{words} {base}"
            );
            assert_eq!(status(&larder, "DELETE", &format!("{base}/manifests/v1"), &Bytes::new()).await, 403, "{words}");
        }
    }
}

#[tokio::test]
async fn a_refusal_is_no_challenge_says_what_to_write_and_upstream_hears_nothing() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let larder = pushing(&acr).with(|settings| settings.access.rules.clear()).start().await;
    for (method, target, flag) in [
        ("PUT", "/v2/a/manifests/v1", "--allow push"),
        ("DELETE", "/v2/a/manifests/v1", "--allow delete"),
        ("DELETE", "/acr/v1/a/_tags/v1", "--allow delete"),
        ("PATCH", "/acr/v1/a", "--allow push"),
        ("POST", "/v2/a/blobs/uploads/", "--allow push"),
    ] {
        let answer = larder.call(method, target).send().await;
        let (status, code, message) = answer.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{method} {target}");
        assert!(message.contains(flag) && message.contains("myacr.azurecr.io/a"), "{message}");
        assert_eq!(answer.header("www-authenticate"), None);
    }
    assert_eq!(acr.log().len(), 0);
}

#[tokio::test]
async fn methods_that_a_path_does_not_know_are_named_405_with_those_that_it_does() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let larder = pushing(&acr).start().await;
    for (method, target, allow) in [
        ("POST", "/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/v2/a/tags/list", "GET, HEAD"),
        ("DELETE", "/v2/_catalog", "GET, HEAD"),
        ("DELETE", "/acr/v1/a/_tags", "GET"),
    ] {
        let answer = larder.call(method, target).send().await;
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}: {answer:?}");
        let (status, code, _) = answer.error();
        assert_eq!((status, &*code), (405, "UNSUPPORTED"));
    }
}
