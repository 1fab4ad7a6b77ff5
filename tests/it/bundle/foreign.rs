use super::{Site, near};
use std::fs;
use std::process::Command;

/// `skopeo` and the like are run in `tests/real`; here are the forms that they write, made by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_with_bare_tags_needs_a_place() {
    let (_acr, here) = near().await;
    let folder = here.path("backup");
    here.run(&["export", "--repository", "app", "--output", folder.to_str().unwrap()]);
    let index = fs::read_to_string(folder.join("index.json")).unwrap();
    assert!(index.contains(r#""org.opencontainers.image.ref.name":"v1""#) && !index.contains("containerd"), "{index}");
    let there = Site::far().await;
    let output = there.larder(&["import", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--as UPSTREAM/REPOSITORY"), "{output:?}");
    let place = format!("{}/other", crate::harness::UPSTREAM);
    there.run(&["import", folder.to_str().unwrap(), "--as", &place]);
    assert_eq!(there.pull("other", "v1").await, here.pull("app", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrys_own_folder_comes_in() {
    let (_acr, here) = near().await;
    let layout = here.path("layout");
    here.run(&["export", "app:v1", "--output", layout.to_str().unwrap()]);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let root = here.path("registry/docker/registry/v2");
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let hex = blob.file_name().into_string().unwrap();
        let place = root.join("blobs/sha256").join(&hex[..2]).join(&hex);
        fs::create_dir_all(&place).unwrap();
        fs::copy(blob.path(), place.join("data")).unwrap();
    }
    let tag = root.join("repositories/team/app/_manifests/tags/v1/current");
    fs::create_dir_all(&tag).unwrap();
    fs::write(tag.join("link"), digest).unwrap();
    let there = Site::far().await;
    let folder = here.path("registry");
    there.run(&["import", folder.to_str().unwrap(), "--as", crate::harness::UPSTREAM]);
    assert_eq!(there.pull("team/app", "v1").await, here.pull("app", "v1").await);
    // The same inside an archive, as oc-mirror writes it.
    let archive = here.path("mirror_000001.tar");
    assert!(
        Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).arg("docker").status().unwrap().success()
    );
    let there = Site::far().await;
    there.run(&["import", archive.to_str().unwrap(), "--as", crate::harness::UPSTREAM]);
    assert_eq!(there.pull("team/app", "v1").await, here.pull("app", "v1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_tool_that_has_one_platform_of_two_is_served_for_that_one() {
    let (_acr, here) = near().await;
    let folder = here.path("sparse");
    here.run(&["export", "base/os:v1", "--output", folder.to_str().unwrap()]);
    fs::remove_file(folder.join("larder.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let path =
        |digest: &serde_json::Value| folder.join("blobs/sha256").join(&digest.as_str().unwrap()["sha256:".len()..]);
    let read = |digest: &serde_json::Value| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path(digest)).unwrap()).unwrap()
    };
    let platforms = read(&index["manifests"][0]["digest"])["manifests"].clone();
    fs::remove_file(path(&platforms[1]["digest"])).unwrap();
    let there = Site::far().await;
    let report = there.json(&["import", folder.to_str().unwrap(), "--json"]);
    assert_eq!((&report["linked"], &report["incomplete"]), (&1.into(), &serde_json::json!([])), "{report}");
    let target = |platform: usize| format!("/v2/base/os/manifests/{}", platforms[platform]["digest"].as_str().unwrap());
    assert_eq!(there.get(&target(0)).await.status, 200);
    assert_ne!(there.get(&target(1)).await.status, 200);
    // A platform whose manifest came is to be whole.
    let layer = read(&platforms[0]["digest"])["layers"][1]["digest"].clone();
    fs::remove_file(path(&layer)).unwrap();
    let output = Site::far().await.larder(&["import", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // Of larder's own bundles nothing may be missing without a word.
    let own = here.path("own");
    here.run(&["export", "base/os:v1", "--output", own.to_str().unwrap()]);
    fs::remove_file(own.join("blobs/sha256").join(path(&platforms[1]["digest"]).file_name().unwrap())).unwrap();
    let output = Site::far().await.larder(&["import", own.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_nothing_is_refused_with_what_helps() {
    let there = Site::far().await;
    let (folder, archive) = (there.path("docker"), there.path("docker.tar"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("manifest.json"), "[]").unwrap();
    assert!(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).arg(".").status().unwrap().success());
    let output = there.larder(&["import", archive.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("skopeo copy docker-archive:"), "{output:?}");
}
