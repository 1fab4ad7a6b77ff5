use super::{Site, near};
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_archive_keeps_what_was_whole_and_is_continued() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let bytes = fs::read(&kit).unwrap();
    let there = Site::far().await;
    for part in [3, 9, 17, 60, 99] {
        let cut = here.path("cut.tar");
        fs::write(&cut, &bytes[..bytes.len() * part / 100]).unwrap();
        let output = there.larder(&["import", cut.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{part} %: {output:?}");
        assert_ne!(there.get("/v2/app/manifests/v1").await.status, 200, "{part} %");
    }
    let report = there.json(&["import", kit.to_str().unwrap(), "--json"]);
    assert!(report["present"].as_u64().unwrap() > 4, "{report}");
    assert_eq!(there.pull("app", "v1").await, here.pull("app", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_stores_nothing_wrong() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "app:v1", "--output", kit.to_str().unwrap()]);
    let bytes = fs::read(&kit).unwrap();
    let last = bytes.len() - 2000;
    for at in [600, 1600, 3000, 4700, last] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let path = here.path("damaged.tar");
        fs::write(&path, &damaged).unwrap();
        let there = Site::far().await;
        there.larder(&["import", path.to_str().unwrap()]);
        let answer = there.get("/v2/app/manifests/v1").await;
        assert!(answer.status != 200 || answer.body == here.get("/v2/app/manifests/v1").await.body, "byte {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_the_index_carries_all_trust() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    let printed = here.run(&["export", "app:v1", "--output", kit.to_str().unwrap()]);
    let hash = printed.lines().find_map(|line| line.strip_prefix("index.json ")).unwrap().to_owned();
    let there = Site::far().await;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let output = there.larder(&["import", kit.to_str().unwrap(), "--expect", &wrong]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&hash), "{output:?}");
    assert_ne!(there.get("/v2/app/manifests/v1").await.status, 200);
    there.run(&["import", kit.to_str().unwrap(), "--expect", &hash]);
    assert_eq!(there.get("/v2/app/manifests/v1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_configured_is_named() {
    let (_acr, here) = near().await;
    let folder = here.path("folder");
    here.run(&["export", "app:v1", "--output", folder.to_str().unwrap()]);
    let index = folder.join("index.json");
    let text = fs::read_to_string(&index).unwrap().replace(crate::harness::UPSTREAM, "unknown.azurecr.io");
    fs::write(&index, text).unwrap();
    let there = Site::far().await;
    let output = there.larder(&["import", folder.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("unknown.azurecr.io") && text.contains("[[upstream]]") && text.contains("--as"), "{text}");
}
