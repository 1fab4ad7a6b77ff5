//! Manifests that are put: byte for byte upstream, and served from here from then on.

use crate::harness::simulator::Options;
use crate::harness::{Acr, OTHER_ALIAS, sha256, sha512};
use crate::writes::common::{MIB, Scene, manifest_of};
use bytes::Bytes;
use std::time::Duration;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// Manifests of an index whose parts are all there already.
async fn put(scene: &Scene, target: &str, kind: &str, content: impl Into<Bytes>) -> crate::harness::Answer {
    scene.call("PUT", target).line("Content-Type", kind).body(content).send().await
}

#[tokio::test]
async fn a_manifest_that_was_put_is_pulled_without_asking_upstream_for_it() {
    let scene = Scene::new().await;
    let config = scene.acr.push_blob("app", "{}");
    // Odd on purpose: what is parsed and written again would lose it.
    let content = format!(
        " {{\"schemaVersion\": 2,\n\t\"config\":{{\"digest\":\"{config}\",\"size\":2}},\"z\":1.0e2, \"layers\":[] }}\n"
    );
    let digest = sha256(content.as_bytes());
    let answer = put(&scene, "/v2/app/manifests/v1", KIND, content.clone()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("location"), Some(&*format!("/v2/app/manifests/{digest}")));
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
    assert_eq!(answer.header("content-length"), Some("0"));
    assert_eq!(answer.cache_status(), "larder; fwd=bypass; stored");
    let sent = scene.acr.log().into_iter().find(|seen| seen.method == "PUT" && seen.status == 201).unwrap();
    assert_eq!(sent.target, "/v2/app/manifests/v1");

    let asked = scene.acr.log().len();
    for target in ["/v2/app/manifests/v1".to_owned(), format!("/v2/app/manifests/{digest}")] {
        let pulled = scene.larder.get(&target).await;
        assert_eq!((pulled.status.as_u16(), pulled.text()), (200, &*content));
        assert_eq!(pulled.header("content-type"), Some(KIND));
        assert!(pulled.cache_status().starts_with("larder; hit"), "{}", pulled.cache_status());
    }
    assert_eq!(scene.acr.log().len(), asked, "nothing was asked upstream");
    // Upstream has the very bytes, as another larder sees it.
    let other = crate::writes::common::pushing(&scene.acr).start().await;
    assert_eq!(other.get("/v2/app/manifests/v1").await.text(), content);
}

#[tokio::test]
async fn a_pushed_tag_moves_at_once_and_survives_a_restart_with_the_link_down() {
    let scene = Scene::with(|setup| setup.tag_ttl(Duration::from_secs(3600))).await;
    for (number, text) in ["one", "two"].iter().enumerate() {
        let content = manifest_of(&scene.acr, "app", text);
        assert_eq!(put(&scene, "/v2/app/manifests/v1", KIND, content.clone()).await.status, 201);
        assert_eq!(scene.larder.get("/v2/app/manifests/v1").await.body, content, "push {number}");
    }
    let content = manifest_of(&scene.acr, "app", "two");
    let Scene { acr, larder } = scene;
    let setup = larder.stop().await;
    acr.stop_listening();
    let larder = setup.start().await;
    assert_eq!(larder.get("/v2/app/manifests/v1").await.body, content);
}

#[tokio::test]
async fn types_and_digests_of_every_kind_are_kept_as_they_came() {
    let scene = Scene::new().await;
    scene.acr.knobs().turn(|knobs| knobs.sparse = true);
    for (kind, text) in [
        ("application/vnd.example.thing.v7+json", r#"{"mediaType":"application/vnd.example.thing.v7+json","a":[]}"#),
        ("application/vnd.oci.image.index.v1+json", r#"{"schemaVersion":2,"manifests":[]}"#),
        ("application/vnd.docker.distribution.manifest.v2+json", r#"{"schemaVersion":2,"layers":[],"config":{}}"#),
    ] {
        for digest in [sha256(text.as_bytes()), sha512(text.as_bytes())] {
            let target = format!("/v2/kinds/manifests/{digest}");
            let answer = put(&scene, &target, kind, text).await;
            assert_eq!(answer.status, 201, "{kind} {digest}: {answer:?}");
            assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
            let pulled = scene.larder.get(&target).await;
            assert_eq!((pulled.text(), pulled.header("content-type")), (text, Some(kind)));
            assert_eq!(pulled.header("docker-content-digest"), Some(&*digest));
            assert!(pulled.cache_status().starts_with("larder; hit"), "{}", pulled.cache_status());
            let head = scene.larder.head(&target).await;
            assert_eq!(head.header("content-length"), Some(&*text.len().to_string()));
        }
    }
}

#[tokio::test]
async fn bytes_that_their_digest_does_not_name_are_refused_before_upstream_is_asked() {
    let scene = Scene::new().await;
    let target = format!("/v2/app/manifests/{}", sha256(b"something else"));
    let answer = put(&scene, &target, KIND, "{}").await;
    let (status, code, message) = answer.error();
    assert_eq!((status, &*code), (400, "DIGEST_INVALID"));
    assert!(message.contains(&sha256(b"{}")), "{message}");
    assert_eq!(scene.acr.count(|seen| seen.method == "PUT"), 0);
    assert_eq!(scene.larder.metric("larder_digest_failures_total{where=\"push\"}").await, 1);
}

#[tokio::test]
async fn a_manifest_has_a_size_and_a_time() {
    let scene =
        Scene::with(|setup| setup.with(|settings| settings.server.limits.stall_timeout = Duration::from_millis(300)))
            .await;
    let (status, code, _) = put(&scene, "/v2/app/manifests/big", KIND, vec![b' '; 5 * MIB]).await.error();
    assert_eq!((status, &*code), (413, "SIZE_INVALID"));
    let (sender, pieces) = tokio::sync::mpsc::channel(1);
    sender.send(Ok(Bytes::from_static(b"{\"layers\":"))).await.unwrap();
    let call = scene.call("PUT", "/v2/app/manifests/slow").line("Content-Type", KIND).pieces(pieces);
    let (status, _, message) = call.send().await.error();
    assert_eq!(status, 408, "{message}");
    drop(sender);
    assert_eq!(scene.acr.count(|seen| seen.method == "PUT"), 0);
    // As large as ACR takes them.
    scene.acr.knobs().turn(|knobs| knobs.sparse = true);
    let largest = format!("{{\"x\":\"{}\"}}", "y".repeat(4 * MIB - 8));
    assert_eq!(put(&scene, "/v2/app/manifests/large", KIND, largest.clone()).await.status, 201);
    assert_eq!(scene.larder.get("/v2/app/manifests/large").await.text(), largest);
}

#[tokio::test]
async fn what_is_attached_is_listed_at_once_and_the_subject_confirmed_as_upstream_does() {
    let scene = Scene::new().await;
    let subject = scene.acr.push_artifact("app", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]).digest;
    let list = format!("/v2/app/referrers/{subject}");
    assert_eq!(scene.larder.get(&list).await.json()["manifests"].as_array().unwrap().len(), 0);
    let attach = |number: u32| {
        let scene = &scene;
        let content = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{KIND}\",\"artifactType\":\"sbom\",\"n\":{number},\"layers\":[],\
             \"subject\":{{\"mediaType\":\"{KIND}\",\"digest\":\"{subject}\",\"size\":1}}}}"
        );
        async move {
            let target = format!("/v2/app/manifests/{}", sha256(content.as_bytes()));
            put(scene, &target, KIND, content).await
        }
    };
    let answer = attach(1).await;
    assert_eq!((answer.status.as_u16(), answer.header("oci-subject")), (201, Some(&*subject)));
    assert_eq!(scene.larder.get(&list).await.json()["manifests"].as_array().unwrap().len(), 1);
    // A registry without the referrers API confirms nothing, and larder invents nothing.
    scene.acr.knobs().turn(|knobs| knobs.oci_subject = false);
    assert_eq!(attach(2).await.header("oci-subject"), None);
    assert_eq!(scene.larder.get(&list).await.json()["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn answers_speak_in_the_way_of_naming_of_the_request() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let other = Acr::start(Options::public()).await;
    let larder = crate::writes::common::pushing(&acr).and(&other).start().await;
    let content = manifest_of(&acr, "app", "x");
    let digest = sha256(&content);
    for (target, location) in [
        ("/v2/acr/app/manifests/v1", format!("/v2/acr/app/manifests/{digest}")),
        ("/acr/v2/app/manifests/v1", format!("/acr/v2/app/manifests/{digest}")),
        ("/v2/app/manifests/v1?ns=myacr.azurecr.io", format!("/v2/app/manifests/{digest}?ns=myacr%2Eazurecr%2Eio")),
    ] {
        let call = larder.call("PUT", target).line("Content-Type", KIND).body(content.clone());
        let answer = call.send().await;
        assert_eq!(answer.header("location"), Some(&*location), "{target}: {answer:?}");
        assert_eq!(larder.get(&location).await.body, content);
    }
    let sent = acr.log();
    assert!(sent.iter().filter(|seen| seen.method == "PUT").all(|seen| seen.target == "/v2/app/manifests/v1"));
    // The other upstream lets nobody push: its refusal arrives, and its words.
    let call = larder.call("PUT", &format!("/v2/{OTHER_ALIAS}/app/manifests/v1")).line("Content-Type", KIND);
    let (status, code, message) = call.body(content).send().await.error();
    assert_eq!((status, &*code), (403, "DENIED"), "{message}");
}

#[tokio::test]
async fn a_push_costs_one_request_and_shows_in_log_and_metrics_but_not_among_the_cache_s_answers() {
    let scene = Scene::new().await;
    let content = manifest_of(&scene.acr, "app", "x");
    put(&scene, "/v2/app/manifests/v1", KIND, content.clone()).await;
    scene.acr.clear_log();
    let again = manifest_of(&scene.acr, "app", "y");
    assert_eq!(put(&scene, "/v2/app/manifests/v1", KIND, again).await.status, 201);
    assert_eq!(scene.acr.log().len(), 1, "{:?}", scene.acr.log());
    let lines = scene.larder.requests_when(2).await;
    let line = &lines[1];
    assert_eq!((&line["method"], &line["cache_status"]), (&"PUT".into(), &"bypass".into()), "{line}");
    let puts = "larder_upstream_requests_total{code=\"201\",op=\"manifest_put\",upstream=\"myacr.azurecr.io\"}";
    assert_eq!(scene.larder.metric(puts).await, 2);
    let counted = "larder_cache_requests_total{kind=\"tag\",result=\"bypass\",upstream=\"myacr.azurecr.io\"}";
    assert_eq!(scene.larder.metric(counted).await, 0);
}
