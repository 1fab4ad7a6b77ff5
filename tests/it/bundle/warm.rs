use super::{Site, image, platforms};
use crate::harness::simulator::{Options, samples};
use crate::harness::{Acr, UPSTREAM};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_names_is_fetched_ahead_and_what_it_does_not_name_is_said() {
    let acr = Acr::start(Options::public()).await;
    platforms(&acr, "base/os", "v1", 100);
    image(&acr, "app", Some("v1"), "amd64", &[samples::incompressible(3, 50_000)]);
    let site = Site::near(&acr).await;
    let list = site.path("deployment.txt");
    let text = format!(
        "spec:\n  containers:\n  - image: {UPSTREAM}/app:v1\n  - image: {UPSTREAM}/base/os:v1\n  - image: 'rubbish {{{{ x }}}}'\n"
    );
    std::fs::write(&list, text).unwrap();
    let output = site.larder(&["warm", list.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("not taken: rubbish"), "{output:?}");
    let before = acr.downloads();
    site.pull("app", "v1").await;
    site.pull("base/os", "v1").await;
    assert_eq!(acr.downloads(), before, "everything was here");
    let again = site.larder(&["warm", list.to_str().unwrap(), "--json"]);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.lines().last().unwrap().contains(r#""bytes":0"#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_the_end_is_named_and_fails() {
    let acr = Acr::start(Options::public()).await;
    image(&acr, "app", Some("v1"), "amd64", &[samples::incompressible(3, 50_000)]);
    let site = Site::near(&acr).await;
    let output = site.larder(&["warm", "app:v1", "app:none"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("2 references") && text.contains("app:none"), "{text}");
    assert_eq!(site.json(&["list", "--json"]).as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_the_bytes_and_fetches_no_blob() {
    let acr = Acr::start(Options::public()).await;
    image(&acr, "app", Some("v1"), "amd64", &[samples::incompressible(3, 50_000)]);
    let site = Site::near(&acr).await;
    let text = site.run(&["warm", "app:v1", "--dry-run", "--json"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(last["unique_bytes"].as_u64().unwrap() > 50_000 && last["far_bytes"] == 0, "{text}");
    assert!(last["free_bytes"].as_u64().is_some() && last["repositories"][0]["bytes"] == last["bytes"], "{text}");
    assert_eq!(acr.downloads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_is_fetched_and_pinned() {
    let acr = Acr::start(Options::public()).await;
    platforms(&acr, "base/os", "v1", 100);
    let site = Site::near(&acr).await;
    site.run(&["warm", "base/os:v1", "--platform", "linux/amd64", "--pin"]);
    let reference = site.json(&["list", "--json"])[0].clone();
    assert_eq!(
        (&reference["platforms"], &reference["pinned"]),
        (&serde_json::json!(["linux/amd64"]), &true.into()),
        "{reference}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_names_is_kept_warm_and_pinned_without_anybody_asking() {
    let acr = Acr::start(Options::public()).await;
    image(&acr, "base/os", Some("v1"), "amd64", &[samples::incompressible(3, 50_000)]);
    image(&acr, "app", Some("v1"), "amd64", &[samples::incompressible(7, 50_000)]);
    image(&acr, "lib", Some("v1"), "amd64", &[samples::incompressible(5, 50_000)]);
    let setup = crate::harness::Setup::of(&acr);
    let list = setup.file("base.txt", &format!("{UPSTREAM}/app:v1\n"));
    let more = "tag_ttl = \"100ms\"\n[[warm]]\nlist = \"base.txt\"\nevery = \"500ms\"\n\
                [[warm]]\nrepositories = [\"myacr.azurecr.io/base/os\"]\nreferences = [\"lib:v1\"]\nevery = \"500ms\"\npin = false\n";
    let site = Site::start(setup, &format!("[upstream.freshness]\n{more}")).await;
    let stored = |name: &str, site: &Site| {
        let list = site.json(&["list", "--json"]);
        let found = list.as_array().unwrap().iter().find(|it| it["reference"] == format!("{UPSTREAM}/{name}"));
        found.cloned().filter(|it| it["missing"] == 0)
    };
    crate::harness::until("all is here", || {
        ["app:v1", "base/os:v1", "lib:v1"].iter().all(|it| stored(it, &site).is_some())
    })
    .await;
    assert_eq!(stored("app:v1", &site).unwrap()["pinned"], true);
    assert_eq!(stored("base/os:v1", &site).unwrap()["pinned"], false);
    // A tag that is new there, a line that is new in the list, another line that is gone.
    image(&acr, "base/os", Some("v2"), "amd64", &[samples::incompressible(9, 50_000)]);
    std::fs::write(&list, format!("{UPSTREAM}/lib:v1\n")).unwrap();
    crate::harness::until("the new ones are here", || {
        stored("base/os:v2", &site).is_some()
            && stored("lib:v1", &site).is_some_and(|it| it["pinned"] == true)
            && stored("app:v1", &site).is_some_and(|it| it["pinned"] == false)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_that_was_killed_with_its_daemon_fetches_only_the_rest() {
    let acr = Acr::start(Options::public()).await;
    let layers: Vec<_> = (0..8).map(|seed| samples::incompressible(101 + 2 * seed, 400_000)).collect();
    image(&acr, "big", Some("v1"), "amd64", &layers);
    let blobs = |site: &Site| site.run(&["inventory"]).lines().filter(|line| line.starts_with("blob ")).count();
    let mut site = Site::start(crate::harness::Setup::of(&acr), "max_rate = \"1MB\"\n").await;
    let mut first = site.command(&["warm", "big:v1"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::harness::until("some of it is here", || blobs(&site) > 3).await;
    site.process.kill();
    assert_ne!(first.wait().unwrap().code(), Some(0));
    site.restart().await;
    let text = site.run(&["warm", "big:v1", "--json"]);
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(last["bytes"].as_u64().unwrap() < 3_200_000, "{last}");
    assert_eq!(blobs(&site), 10, "{text}");
}
