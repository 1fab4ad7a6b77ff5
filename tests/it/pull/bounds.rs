//! Going over the bounds of what is remembered changes no answer: what memory has no room for is read from the files or asked again.

use super::harness::simulator::{Artifact, Options};
use super::harness::{Acr, Setup, sha256, walk};
use bytes::Bytes;
use std::time::Duration;

const REPOSITORY: &str = "samples/many";
const MANY: usize = 60;

fn target(tag: &str) -> String {
    format!("/v2/{REPOSITORY}/manifests/{tag}")
}

fn push(acr: &Acr) -> Vec<(String, Artifact)> {
    let push = |number| {
        let (tag, content) = (format!("v{number}"), Bytes::from(format!("content {number}")));
        let artifact = acr.push_artifact(REPOSITORY, &tag, &[("a.txt", "text/plain", content)]);
        (tag, artifact)
    };
    (0..MANY).map(push).collect()
}

#[tokio::test]
async fn more_tags_and_manifests_than_memory_holds_are_hits_from_the_files() {
    let acr = Acr::start(Options::public()).await;
    let artifacts = push(&acr);
    let setup = Setup::of(&acr).tag_ttl(Duration::from_secs(3600)).with(|settings| {
        settings.server.limits.tag_entries = 4;
        settings.server.limits.manifest_memory = 4096;
    });
    let larder = setup.start().await;
    for (tag, artifact) in &artifacts {
        assert!(larder.get(&target(tag)).await.body == artifact.manifest);
    }
    acr.clear_log();
    for (tag, artifact) in &artifacts {
        for reference in [tag, &artifact.digest] {
            let answer = larder.get(&target(reference)).await;
            assert!(answer.body == artifact.manifest && answer.cache_status().starts_with("larder; hit"), "{answer:?}");
        }
    }
    assert_eq!(acr.log().len(), 0, "nothing was asked again");
}

#[tokio::test]
async fn more_absences_than_are_remembered_are_asked_about_again() {
    let acr = Acr::start(Options::public()).await;
    push(&acr);
    let asked = async |entries: usize| {
        let setup = Setup::of(&acr).upstream(|upstream| upstream.freshness.negative_ttl = Duration::from_secs(3600));
        let larder = setup.with(|settings| settings.server.limits.negative_entries = entries).start().await;
        for _ in 0..2 {
            for number in 0..MANY {
                let (status, code, _) = larder.get(&target(&format!("absent{number}"))).await.error();
                assert_eq!((status, code.as_str()), (404, "MANIFEST_UNKNOWN"));
            }
        }
        let asked = acr.manifest_requests("GET");
        acr.clear_log();
        asked
    };
    assert_eq!(asked(10 * MANY).await, MANY, "all of them are remembered");
    let few = asked(4).await;
    assert!(few > MANY * 3 / 2, "{few}: a few of them are");
}

#[tokio::test]
async fn more_lists_than_memory_holds_are_hits_from_the_files() {
    let acr = Acr::start(Options::public()).await;
    push(&acr);
    let repositories: Vec<String> = (0..20).map(|number| format!("team/app-{number}")).collect();
    for name in &repositories {
        acr.push_artifact(name, "v1", &[("a.txt", "text/plain", Bytes::from_static(b"a"))]);
    }
    let setup = Setup::of(&acr).tag_ttl(Duration::from_secs(3600));
    let larder = setup.with(|settings| settings.server.limits.list_memory = 2048).start().await;
    let targets: Vec<String> = repositories
        .iter()
        .map(String::as_str)
        .chain([REPOSITORY])
        .map(|name| format!("/v2/{name}/tags/list"))
        .collect();
    for target in &targets {
        assert_eq!(larder.get(target).await.status, 200);
    }
    acr.clear_log();
    for target in &targets {
        let answer = larder.get(target).await;
        let count = answer.json()["tags"].as_array().unwrap().len();
        assert_eq!(count, if target.contains(REPOSITORY) { MANY } else { 1 }, "{target}");
        assert!(answer.cache_status().starts_with("larder; hit"), "{answer:?}");
    }
    assert_eq!(acr.log().len(), 0, "nothing was asked again");
}

#[tokio::test]
async fn lists_of_what_clients_make_up_leave_no_files() {
    let acr = Acr::start(Options::public()).await;
    let artifacts = push(&acr);
    let larder = Setup::of(&acr).start().await;
    let referrers = |digest: &str| format!("/v2/{REPOSITORY}/referrers/{digest}");
    let (tag, artifact) = &artifacts[0];
    assert_eq!(larder.get(&target(tag)).await.status, 200);
    let here = referrers(&artifact.digest);
    let made_up: Vec<String> = (0..30_u8).map(|number| referrers(&sha256(&[number]))).collect();
    for target in made_up.iter().chain([&here]) {
        assert_eq!(larder.get(target).await.json()["manifests"], serde_json::json!([]), "{target}");
    }
    let mut files = 0;
    walk(&larder.setup.store().join("lists"), &mut |_| files += 1);
    assert_eq!(files, 1, "that of what is here");
    // It is there for an outage.
    let setup = larder.stop().await;
    acr.stop_listening();
    let larder = setup.start().await;
    assert_eq!(larder.get(&here).await.status, 200);
    assert_eq!(larder.get(&made_up[0]).await.status, 504);
}

#[tokio::test]
async fn more_answers_of_acrs_own_api_than_memory_holds_are_asked_for_again() {
    let acr = Acr::start(Options::public()).await;
    push(&acr);
    let asked = async |bytes: u64| {
        let setup = Setup::of(&acr).tag_ttl(Duration::from_secs(3600));
        let larder = setup.with(|settings| settings.server.limits.metadata_memory = bytes).start().await;
        for _ in 0..2 {
            for number in 1..=30 {
                let answer = larder.get(&format!("/acr/v1/{REPOSITORY}/_tags?n={number}")).await;
                assert_eq!(answer.json()["tags"].as_array().unwrap().len(), number, "{answer:?}");
            }
        }
        let asked = acr.count(|seen| seen.path().starts_with("/acr/v1/") && seen.status == 200);
        acr.clear_log();
        asked
    };
    assert_eq!(asked(64 << 20).await, 30, "all of them are remembered");
    let few = asked(4096).await;
    assert!(few > 45, "{few}: a few of them are");
}
