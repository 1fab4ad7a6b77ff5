use super::{Site, names_in, near};
use crate::harness::UPSTREAM;
use std::fs;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_here_is_served_there_with_the_link_down() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let there = Site::far().await;
    let report = there.json(&["import", kit.to_str().unwrap(), "--json"]);
    assert_eq!((&report["linked"], &report["incomplete"]), (&2.into(), &serde_json::json!([])), "{report}");
    for repository in ["base/os", "app"] {
        assert_eq!(there.pull(repository, "v1").await, here.pull(repository, "v1").await, "{repository}");
    }
    let again = there.json(&["import", kit.to_str().unwrap(), "--json"]);
    assert_eq!((&again["stored"], &again["linked"]), (&0.into(), &2.into()), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_exports_of_one_scope_are_the_same_bytes_and_name_everything_in_order() {
    let (_acr, here) = near().await;
    let (one, two) = (here.path("one.tar"), here.path("two.tar"));
    for path in [&one, &two] {
        here.run(&["export", "--all", "--output", path.to_str().unwrap()]);
    }
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let names = names_in(&one);
    assert_eq!(names[..3], ["oci-layout", "index.json", "larder.json"]);
    // Three manifests of the index and one of the image; a shared layer, two own ones, two configurations, and the image's layer.
    assert_eq!(names.len(), 3 + 4 + 6, "{names:?}");
    let folder = here.path("folder");
    here.run(&["export", "--all", "--output", folder.to_str().unwrap()]);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let name = |at: usize| index["manifests"][at]["annotations"]["org.opencontainers.image.ref.name"].clone();
    assert_eq!((name(0), name(1)), (format!("{UPSTREAM}/app:v1").into(), format!("{UPSTREAM}/base/os:v1").into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_export_is_continued_and_another_scope_begins_anew() {
    let (_acr, here) = near().await;
    let (whole, cut) = (here.path("whole.tar"), here.path("cut.tar"));
    here.run(&["export", "--all", "--output", whole.to_str().unwrap()]);
    let bytes = fs::read(&whole).unwrap();
    for length in [0, 100, 2000, bytes.len() / 2, bytes.len() - 1] {
        fs::write(here.path("cut.tar.partial"), &bytes[..length]).unwrap();
        here.run(&["export", "--all", "--output", cut.to_str().unwrap()]);
        assert!(fs::read(&cut).unwrap() == bytes, "{length} bytes were there");
    }
    fs::write(here.path("cut.tar.partial"), &bytes[..bytes.len() / 2]).unwrap();
    here.run(&["export", "app:v1", "--output", cut.to_str().unwrap()]);
    assert_eq!(names_in(&cut).len(), 3 + 1 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_the_sizes_and_writes_nothing() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    let plan = here.json(&["export", "--all", "--dry-run", "--json", "--output", kit.to_str().unwrap()]);
    assert!(!kit.exists() && !here.path("kit.tar.partial").exists());
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let real = fs::metadata(&kit).unwrap().len();
    let planned = plan["unique_bytes"].as_u64().unwrap();
    assert!(planned <= real && real - planned < real / 20, "{planned} of {real}");
    assert_eq!(plan["volume_bytes"][0], real);
    assert_eq!(plan["repositories"].as_array().unwrap().len(), 2);
    assert!(plan["free_bytes"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_platforms_one_is_enough() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "base/os:v1", "--platform", "linux/arm64", "--output", kit.to_str().unwrap()]);
    assert_eq!(names_in(&kit).len(), 3 + 3 + 3);
    let there = Site::far().await;
    assert_eq!(there.json(&["import", kit.to_str().unwrap(), "--json"])["linked"], 1);
    assert_eq!(there.get("/v2/base/os/manifests/v1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_larder_lists_what_it_has() {
    let (_acr, here) = near().await;
    let kit = here.path("kit.tar");
    here.run(&["export", "--all", "--output", kit.to_str().unwrap()]);
    let there = Site::far().await;
    there.run(&["import", kit.to_str().unwrap()]);
    assert_eq!(there.get("/v2/app/tags/list").await.text(), r#"{"name":"app","tags":["v1"]}"#);
    let digest = there.get("/v2/app/manifests/v1").await.header("docker-content-digest").unwrap().to_owned();
    let referrers = there.get(&format!("/v2/app/referrers/{digest}")).await;
    assert_eq!(referrers.status, 200);
    assert!(referrers.text().contains(r#""manifests":[]"#), "{}", referrers.text());
    let catalogue = there.get("/v2/_catalog").await;
    assert!(catalogue.text().contains(r#"["app","base/os"]"#), "{}", catalogue.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_writes_a_report_with_every_tag_and_every_blob() {
    let (_acr, mut here) = near().await;
    let (with, without) = (here.path("with.txt"), here.path("without.txt"));
    here.run(&["verify", "--report", with.to_str().unwrap()]);
    let inventory = here.run(&["inventory"]);
    let config = here.path("larder.toml");
    here.process.signal(rustix::process::Signal::TERM);
    here.process.ended(crate::harness::PATIENCE).await.unwrap();
    here.run(&["verify", "--report", without.to_str().unwrap()]);
    assert!(config.exists());
    for path in [&with, &without] {
        let report = fs::read_to_string(path).unwrap();
        assert!(report.starts_with("larder-verification 1\n") && report.contains("\ndamaged 0 blobs\n"), "{report}");
        for line in ["began 2", "ended 2", "checked 10 blobs ", "store /"] {
            assert!(report.lines().any(|it| it.starts_with(line)), "{line}: {report}");
        }
        for line in inventory.lines().skip(1) {
            let words: Vec<&str> = line.split(' ').collect();
            let has = report.lines().any(|it| it.starts_with(&format!("{} ", words.join(" "))));
            assert!(has, "{line}: {report}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_beside_the_store_is_copied_there_and_damage_never_leaves() {
    let (_acr, here) = near().await;
    let (folder, archive) = (here.path("folder"), here.path("kit.tar"));
    here.run(&["export", "--all", "--output", folder.to_str().unwrap()]);
    here.run(&["export", "--all", "--output", archive.to_str().unwrap()]);
    let unpacked = here.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar =
        |arguments: &[&str]| assert!(std::process::Command::new("tar").args(arguments).status().unwrap().success());
    tar(&["-xf", archive.to_str().unwrap(), "-C", unpacked.to_str().unwrap()]);
    let compared = std::process::Command::new("diff").arg("-r").args([&folder, &unpacked]).output().unwrap();
    assert!(compared.status.success(), "{compared:?}");
    // A blob of the store is damaged behind the daemon's back.
    let content = here.get("/v2/app/manifests/v1").await.body;
    let manifest: serde_json::Value = serde_json::from_slice(&content).unwrap();
    let hex = manifest["layers"][0]["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let blob = here.setup.store().join("blobs/sha256").join(&hex);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20_000] ^= 1;
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&blob, writable).unwrap();
    fs::write(&blob, &bytes).unwrap();
    let again = here.path("again");
    let output = here.larder(&["export", "app:v1", "--output", again.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!again.join("blobs/sha256").join(&hex).exists() && !again.join("index.json").exists(), "{output:?}");
}
