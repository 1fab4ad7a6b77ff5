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
