use super::{Site, image, names_in, near};
use crate::harness::simulator::samples;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_has_all_manifests_and_only_the_new_blobs() {
    let (acr, here) = near().await;
    let (kit, delta) = (here.path("kit.tar"), here.path("delta.tar"));
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let there = Site::far().await;
    there.run(&["import", kit.to_str().unwrap()]);
    let inventory = there.path("inventory");
    there.run(&["inventory", "--output", inventory.to_str().unwrap()]);

    let (old, new) = (samples::incompressible(3, 50_000), samples::incompressible(4, 60_000));
    image(&acr, "app", Some("v2"), "amd64", &[old, new]);
    here.pull("app", "v2").await;
    let have = inventory.to_str().unwrap();
    here.run(&["export", "--all", "--have", have, "--output", delta.to_str().unwrap()]);
    // One manifest more, and one blob.
    assert_eq!(names_in(&delta).len(), 3 + 5 + 1);
    assert!(fs::metadata(&delta).unwrap().len() < 80_000);
    assert_eq!(there.json(&["import", delta.to_str().unwrap(), "--json"])["linked"], 3);
    assert_eq!(there.pull("app", "v2").await, here.pull("app", "v2").await);

    there.run(&["inventory", "--output", have]);
    let plan = here.json(&["export", "--all", "--have", have, "--dry-run", "--json"]);
    let (bytes, far) = (plan["unique_bytes"].as_u64().unwrap(), plan["far_bytes"].as_u64().unwrap());
    assert!(bytes - far < bytes / 50, "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_whose_assumptions_do_not_hold_links_nothing_and_names_what_is_missing() {
    let (_acr, here) = near().await;
    // An inventory that lies: the far side is said to have everything, and has nothing.
    let inventory = here.path("inventory");
    here.run(&["inventory", "--output", inventory.to_str().unwrap()]);
    let delta = here.path("delta.tar");
    here.run(&["export", "--all", "--have", inventory.to_str().unwrap(), "--output", delta.to_str().unwrap()]);
    let there = Site::far().await;
    let output = there.larder(&["import", delta.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("still missing") && text.contains("sha256:") && text.contains("larder inventory"), "{text}");
    assert_ne!(there.get("/v2/app/manifests/v1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_disk_does_not_put_a_tag_back() {
    let (acr, here) = near().await;
    let (old, new) = (here.path("old.tar"), here.path("new.tar"));
    here.run(&["export", "app:v1", "--output", old.to_str().unwrap()]);
    image(&acr, "app", Some("v2"), "arm64", &[samples::incompressible(9, 1000)]);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    here.pull("app", "v2").await;
    here.run(&["export", "app:v2", "--output", new.to_str().unwrap()]);
    let there = Site::far().await;
    let moved = |path: &std::path::Path, arguments: &[&str]| {
        let mut all = vec!["import", path.to_str().unwrap(), "--json"];
        all.extend(arguments);
        there.json(&all)
    };
    moved(&new, &[]);
    let newest = there.get("/v2/app/manifests/v2").await.body;
    // The same tag, as an older disk has it.
    let folder = here.path("folder");
    here.run(&["export", "app:v1", "--output", folder.to_str().unwrap()]);
    for name in ["index.json", "larder.json"] {
        let text = fs::read_to_string(folder.join(name)).unwrap().replace("app:v1", "app:v2");
        fs::write(folder.join(name), text).unwrap();
    }
    let report = moved(&folder, &[]);
    assert_eq!(report["newer"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(there.get("/v2/app/manifests/v2").await.body, newest);
    moved(&folder, &["--force"]);
    assert_ne!(there.get("/v2/app/manifests/v2").await.body, newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_in_vain_is_known_after_a_crash_and_comes_with_the_next_disk() {
    let (acr, here) = near().await;
    image(&acr, "new/one", Some("v1"), "amd64", &[samples::incompressible(40, 30_000)]);
    let mut there = Site::far().await;
    for _ in 0..3 {
        assert_ne!(there.get("/v2/new/one/manifests/v1").await.status, 200);
    }
    assert_ne!(there.get("/v2/new/none/manifests/v9").await.status, 200);
    let missing = |there: &Site| {
        let list = there.json(&["list", "--missing", "--json"]);
        let entries = list.as_array().unwrap().iter();
        entries
            .map(|it| (it["reference"].as_str().unwrap().to_owned(), it["times"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    let name = |rest: &str| format!("{}/{rest}", crate::harness::UPSTREAM);
    let expected = [(name("new/one:v1"), 3), (name("new/none:v9"), 1)];
    assert_eq!(missing(&there), expected);
    crate::harness::until("it is written down", || there.setup.store().join("missing").exists()).await;
    there.restart().await;
    assert_eq!(missing(&there), expected, "after kill -9");
    let inventory = there.path("inventory");
    there.run(&["inventory", "--output", inventory.to_str().unwrap()]);
    // Nothing of it is here yet: it is fetched first. What nobody has is said, and the rest goes along.
    let (delta, offline) = (here.path("delta.tar"), here.path("offline.tar"));
    let wish = inventory.to_str().unwrap();
    let output = here.larder(&["export", "--missing", wish, "--offline", "--output", offline.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = here.larder(&["export", "--missing", wish, "--have", wish, "--output", delta.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("new/none:v9"), "{said}");
    there.run(&["import", delta.to_str().unwrap()]);
    assert_eq!(there.pull("new/one", "v1").await, here.pull("new/one", "v1").await);
    assert_eq!(missing(&there), [(name("new/none:v9"), 1)], "what has come is not missing any more");
    // With --offline, what is here goes along.
    here.run(&["export", "--missing", wish, "--offline", "--output", offline.to_str().unwrap()]);
}
