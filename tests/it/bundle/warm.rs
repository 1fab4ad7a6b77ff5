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
    assert!(last["bytes"].as_u64().unwrap() > 50_000, "{text}");
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
