//! What upstream refuses reaches the client with its status, its code and its words, changes nothing here, and is not tried again.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::{Fault, FaultAnswer, Limits, PathClass};
use crate::harness::{Setup, until};
use crate::writes::common::{Scene, manifest_of};
use bytes::Bytes;

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";
const TARGET: &str = "/v2/app/manifests/v1";

async fn scene() -> (Scene, Bytes) {
    let scene = Scene::new().await;
    let content = manifest_of(&scene.acr, "app", "one");
    let put = scene.call("PUT", TARGET).line("Content-Type", KIND).body(content.clone()).send().await;
    assert_eq!(put.status, 201);
    scene.acr.clear_log();
    (scene, content)
}

#[tokio::test]
async fn every_refusal_of_upstream_arrives_and_forgets_nothing() {
    let (scene, content) = scene().await;
    let other = manifest_of(&scene.acr, "app", "two");
    for (status, code, message, seen) in [
        (400, "MANIFEST_INVALID", "no good", 400),
        (403, "DENIED", "not you", 403),
        (404, "NAME_UNKNOWN", "no such place", 404),
        (405, "UNSUPPORTED", "locked it is", 405),
        (409, "CONFLICT", "somebody else is at it", 409),
        (413, "SIZE_INVALID", "too much of it", 413),
        (422, "ODD", "cannot be done", 422),
    ] {
        let answer = FaultAnswer::Oci { status, code: code.to_owned(), message: message.to_owned() };
        scene.acr.knobs().turn(|knobs| knobs.faults = vec![Fault::always(PathClass::Manifests, answer).of("PUT")]);
        let put = scene.call("PUT", TARGET).line("Content-Type", KIND).body(other.clone()).send().await;
        let (got, said, text) = put.error();
        assert_eq!((got, &*said), (seen, code), "{text}");
        assert!(text.contains(message), "{status}: {text}");
        assert!(put.cache_status().starts_with("larder; fwd=bypass"), "{}", put.cache_status());
        assert_eq!(scene.acr.count(|seen| seen.method == "PUT"), 1, "{status}: it is sent once");
        scene.acr.clear_log();
        let pulled = scene.larder.get(TARGET).await;
        assert_eq!((&pulled.body, pulled.cache_status().starts_with("larder; hit")), (&content, true), "{status}");
    }
    assert_eq!(scene.acr.log().len(), 0, "nothing was asked for in doubt");
}

#[tokio::test]
async fn a_login_that_may_only_pull_is_told_so_and_goes_on_pulling() {
    let (scene, content) = scene().await;
    let pull_only = crate::writes::common::pushing(&scene.acr).with(|settings| {
        settings.upstreams[0].credential = larder::config::CredentialSettings::Anonymous;
    });
    // Nobody may do anything: that is a refusal of larder's own login.
    let larder = pull_only.start().await;
    let put = larder.call("PUT", TARGET).line("Content-Type", KIND).body(content.clone()).send().await;
    let (status, code, message) = put.error();
    assert_eq!((status, &*code), (403, "DENIED"));
    assert!(message.contains("anonymous"), "{message}");
    assert_eq!(put.header("www-authenticate"), None);

    let acr = crate::harness::Acr::start(crate::harness::simulator::Options::public()).await;
    let tagged = acr.push_artifact("app", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    let larder = crate::harness::Setup::of(&acr).with(crate::writes::common::allow_everything).start().await;
    assert_eq!(larder.get(TARGET).await.status, 200);
    let put = larder.call("PUT", TARGET).line("Content-Type", KIND).body(tagged.manifest.clone()).send().await;
    let (status, code, message) = put.error();
    assert_eq!((status, &*code), (403, "DENIED"));
    assert!(message.contains("may push to it"), "{message}");
    let deleted = larder.call("DELETE", &format!("/v2/app/manifests/{}", tagged.digest)).send().await;
    let (status, _, message) = deleted.error();
    assert_eq!(status, 403);
    assert!(message.contains("may delete from it"), "{message}");
    assert!(larder.get(TARGET).await.cache_status().starts_with("larder; hit"), "the repository is not withdrawn");
}

#[tokio::test]
async fn locks_refuse_and_their_words_arrive() {
    let (scene, content) = scene().await;
    let lock = r#"{"writeEnabled":false,"deleteEnabled":false}"#;
    let locked = scene.call("PATCH", "/acr/v1/app/_tags/v1").line("Content-Type", "application/json").body(lock);
    assert_eq!(locked.send().await.status, 200);
    let other = manifest_of(&scene.acr, "app", "two");
    let put = scene.call("PUT", TARGET).line("Content-Type", KIND).body(other).send().await;
    let (status, code, _) = put.error();
    assert_eq!((status, &*code), (405, "REGISTRY_DISALLOWED_OPERATION"));
    assert_eq!(scene.call("DELETE", "/acr/v1/app/_tags/v1").send().await.status, 405);
    assert_eq!(scene.call("DELETE", TARGET).send().await.status, 405);
    assert_eq!(scene.larder.get(TARGET).await.body, content);
}

#[tokio::test]
async fn quotas_of_writes_and_deletes_hold_back_what_they_are_about_and_nothing_else() {
    let (scene, content) = scene().await;
    let throttled = FaultAnswer::throttled(30);
    scene.acr.knobs().turn(|knobs| knobs.faults = vec![Fault::always(PathClass::Manifests, throttled).of("DELETE")]);
    for _ in 0..3 {
        let deleted = scene.call("DELETE", TARGET).send().await;
        let (status, code, _) = deleted.error();
        assert_eq!((status, &*code), (429, "TOOMANYREQUESTS"));
        let after: u64 = deleted.header("retry-after").unwrap().parse().unwrap();
        assert!((25..=30).contains(&after), "{after}");
    }
    assert_eq!(scene.acr.count(|seen| seen.method == "DELETE"), 1, "held back here");
    let other = manifest_of(&scene.acr, "app", "two");
    let put = scene.call("PUT", TARGET).line("Content-Type", KIND).body(other.clone()).send().await;
    assert_eq!(put.status, 201, "writes have a quota of their own");
    scene.acr.push_manifest("app", Some("behind"), KIND, content);
    assert_eq!(scene.larder.get("/v2/app/manifests/behind").await.status, 200, "reads too");
    assert_eq!(scene.larder.get(TARGET).await.body, other);
}

#[tokio::test]
async fn blobs_that_upstream_lacks_are_known_to_be_lacking_here_too() {
    let scene = Scene::new().await;
    let kept = Bytes::from_static(b"a layer that upstream loses");
    let layer = scene.acr.push_blob("app", kept.clone());
    let pushed = scene.acr.push_artifact("app", "v1", &[("f", "text/plain", kept)]);
    assert_eq!(scene.larder.get(TARGET).await.status, 200);
    let blob = format!("/v2/app/blobs/{layer}");
    assert_eq!(scene.larder.get(&blob).await.status, 200);
    until("the blob is stored", || scene.larder.stores(&layer)).await;
    scene.acr.delete_blob("app", &layer);
    assert_eq!(scene.larder.head(&blob).await.status, 200, "nobody has told larder");
    // Nor does it take the layer from larder (tests/it/writes/again.rs is about an upstream that does).
    scene.acr.knobs().turn(|knobs| knobs.faults = vec![Fault::always(PathClass::Uploads, FaultAnswer::empty(503))]);
    let put = scene.call("PUT", "/v2/app/manifests/v2").line("Content-Type", KIND).body(pushed.manifest).send().await;
    let (status, code, message) = put.error();
    assert_eq!((status, &*code), (400, "MANIFEST_BLOB_UNKNOWN"), "{message}");
    // A client that pushes again now finds out what it has to send.
    assert_eq!(scene.larder.head(&blob).await.status, 404);
    let again = scene.acr.push_blob("app", Bytes::from_static(b"a layer that upstream loses"));
    assert_eq!(again, layer);
    let soon = crate::harness::until_async("it is there again", async || scene.larder.head(&blob).await.status == 200);
    soon.await;
}

#[tokio::test]
async fn the_registry_s_own_quota_is_met_as_well() {
    let (scene, content) = scene().await;
    scene.acr.knobs().turn(|knobs| {
        knobs.throttle = Some(Limits { write: (1, 1), retry_after_s: 40, ..Limits::STANDARD });
    });
    let put = async || scene.call("PUT", TARGET).line("Content-Type", KIND).body(content.clone()).send().await;
    assert_eq!(put().await.status, 201);
    assert_eq!(put().await.status, 429);
    assert_eq!(scene.larder.get("/v2/app/tags/list").await.status, 200, "reads are not throttled");
}

#[tokio::test]
async fn all_that_upstream_says_arrives_but_what_is_no_client_s_business() {
    let signed = "https://store.example/x?sig=s3cret";
    let errors = format!(
        r#"{{"errors":[{{"code":"QUOTA_EXCEEDED","message":"no room, see {signed}","detail":{{"limit":10,"used":[10]}}}},
        {{"code":"DENIED","message":"and you may not","detail":{{"from":"{signed}"}}}}]}}"#
    );
    let registry = Scripted::start(move |line| {
        let lines = ["Docker-Distribution-Api-Version: registry/2.0", "Content-Type: application/json"];
        match line.split(' ').next() {
            Some("POST" | "DELETE") => answer("403 Forbidden", &lines, &errors),
            _ => answer("200 OK", &lines, "{}"),
        }
    })
    .await;
    let larder = Setup::at(&registry.url()).with(crate::writes::common::allow_everything).start().await;
    let digest = format!("sha256:{}", "0".repeat(64));
    for (method, target) in
        [("POST", "/v2/app/blobs/uploads/".to_owned()), ("DELETE", format!("/v2/app/manifests/{digest}"))]
    {
        let refused = larder.call(method, &target).send().await;
        let errors = refused.json()["errors"].clone();
        assert_eq!((refused.status.as_u16(), &errors[0]["code"]), (403, &"QUOTA_EXCEEDED".into()), "{errors}");
        assert_eq!(errors[0]["detail"], serde_json::json!({"limit": 10, "used": [10]}));
        assert!(errors[0]["message"].as_str().unwrap().contains("no room, see (left out)"), "{errors}");
        assert_eq!(errors[1], serde_json::json!({"code": "DENIED", "message": "and you may not"}));
        assert!(!refused.text().contains("store.example") && !refused.text().contains("s3cret"), "{errors}");
    }
    assert!(!crate::harness::Logs::events().contains("s3cret"));

    let scene = Scene::new().await;
    scene.acr.push_artifact("app", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    let missing = scene.larder.get("/v2/app/manifests/v9").await.json();
    assert_eq!(missing["errors"][0]["detail"], serde_json::json!({"Tag": "v9"}), "of a pull, too: {missing}");
}
