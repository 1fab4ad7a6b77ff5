//! Every client that can push does so through larder: upstream has what was pushed, and pulling it again costs no byte of upstream.

use std::fs;
use std::path::{Path, PathBuf};

use crate::content::digest_of;
use crate::matrix::{PUSHES, passed};
use crate::oras::{Oras, Version};
use crate::process::{Folder, command, program, run};
use crate::simulator::samples::helm_chart;
use crate::stage::{Image, NAME, OTHER, Stage};

/// larder with leave to push, and what the clients push from.
pub(crate) fn stage() -> Stage {
    Stage::with(NAME, &["source"], &["--allow", "push,delete"])
}

/// Runs a program with nothing of the user's settings.
fn ok(stage: &Stage, name: &str, arguments: &[&str]) -> String {
    let home = stage.folder.sub(name);
    let mut command = command(&program(name), &home);
    command.env("COSIGN_PASSWORD", "").args(arguments);
    String::from_utf8(run(command, &home).ok()).unwrap()
}

/// An OCI image layout with the image, tagged `v1`.
pub(crate) fn layout(folder: &Folder, image: &Image) -> PathBuf {
    let (folder, blobs) = (folder.sub("layout"), folder.sub("layout/blobs/sha256"));
    for bytes in [&image.manifest, &image.config, &image.layer] {
        fs::write(blobs.join(&digest_of(bytes)["sha256:".len()..]), bytes).unwrap();
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"v1"}}}}]}}"#,
        image.digest(),
        image.manifest.len()
    );
    fs::write(folder.join("index.json"), index).unwrap();
    folder
}

/// What was pushed is upstream, comes back without a byte from there, and counts as that client's.
pub(crate) fn there(stage: &Stage, client: &str, reference: &str) {
    let (repository, tag) = reference.rsplit_once(':').unwrap();
    let repository = repository.trim_start_matches(&format!("{OTHER}/"));
    let contents = stage.simulator().contents();
    let tags = contents.iter().find(|(name, _)| *name == repository).map(|(_, tags)| tags.clone());
    assert!(
        tags.is_some_and(|tags| tags.iter().any(|known| known == tag)),
        "{client}: {reference} is not in {contents:?}"
    );
    let before = stage.larder.blobs_fetched();
    let folder = stage.folder.sub(&format!("back/{client}"));
    let source = format!("{}/{reference}", stage.larder.host());
    ok(stage, "crane", &["pull", "--format", "oci", &source, folder.to_str().unwrap()]);
    assert_eq!(stage.larder.blobs_fetched(), before, "{client}: what was pushed is here");
    assert_eq!(stage.simulator().violations(), Vec::<String>::new(), "{client}: what ACR would have refused");
}

pub(crate) fn pushed(client: &str) {
    assert!(PUSHES.iter().any(|(known, _)| *known == client), "{client} is not on the page");
    fs::write(passed(client, "push"), "").unwrap();
}

#[test]
fn matrix_push_oras() {
    let stage = stage();
    let oras = Oras::new(Version::V1_3_3, &stage.folder);
    let folder = stage.folder.sub("files");
    fs::write(folder.join("config.json"), "{\"replicas\": 7}\n").unwrap();
    fs::write(folder.join("sbom.json"), "{\"components\": []}\n").unwrap();
    let reference = format!("{}/pushed/oras:v1", stage.base("default"));
    oras.ok(&["push", &reference, "config.json:application/json"], &folder);
    there(&stage, "oras", "pushed/oras:v1");
    oras.ok(
        &["attach", "--artifact-type", "application/vnd.example.sbom", &reference, "sbom.json:application/json"],
        &folder,
    );
    let found = String::from_utf8(oras.discover(&reference, &folder).ok()).unwrap();
    assert!(found.contains("application/vnd.example.sbom"), "{found}");
    // Within the registry, by mount; to another upstream of the same larder, by upload.
    oras.ok(&["cp", &reference, &format!("{}/pushed/copied:v1", stage.base("default"))], &folder);
    there(&stage, "oras-copy", "pushed/copied:v1");
    oras.ok(&["cp", "-r", &reference, &format!("{}/{OTHER}/pushed/across:v1", stage.base("default"))], &folder);
    there(&stage, "oras-across", &format!("{OTHER}/pushed/across:v1"));
    mounts_stay_within_an_upstream(&stage);
    oras.ok(&["tag", &reference, "v2"], &folder);
    there(&stage, "oras-tag", "pushed/oras:v2");
    oras.ok(&["manifest", "delete", "--force", &reference], &folder);
    assert!(!oras.run(&["resolve", &reference], &folder).status.success(), "gone at once");
    pushed("oras");
}

/// No mount names a repository of another upstream, nor larder's way of naming one.
fn mounts_stay_within_an_upstream(stage: &Stage) {
    let log = stage.simulator().log();
    let mounts = log.iter().filter(|seen| seen.target.contains("mount="));
    for seen in mounts {
        assert!(!seen.target.contains("azurecr.io") && !seen.target.contains("origin="), "{}", seen.target);
    }
}

#[test]
fn matrix_push_crane() {
    let stage = stage();
    let image = Image::of("pushed-by-crane");
    let layout = layout(&stage.folder, &image);
    let base = stage.base("prefix");
    ok(&stage, "crane", &["push", layout.to_str().unwrap(), &format!("{base}/pushed/crane:v1")]);
    there(&stage, "crane", "pushed/crane:v1");
    ok(&stage, "crane", &["copy", &format!("{base}/pushed/crane:v1"), &format!("{base}/pushed/crane-copy:v1")]);
    there(&stage, "crane-copy", "pushed/crane-copy:v1");
    let across = format!("{}/{OTHER}/pushed/crane-across:v1", stage.base("default"));
    ok(&stage, "crane", &["copy", &format!("{base}/pushed/crane:v1"), &across]);
    there(&stage, "crane-across", &format!("{OTHER}/pushed/crane-across:v1"));
    mounts_stay_within_an_upstream(&stage);
    ok(&stage, "crane", &["delete", &format!("{base}/pushed/crane@{}", image.digest())]);
    pushed("crane");
}

#[test]
fn matrix_push_regctl() {
    let stage = stage();
    let layout = layout(&stage.folder, &Image::of("pushed-by-regctl"));
    let host = stage.larder.host();
    ok(&stage, "regctl", &["registry", "set", &host, "--tls", "disabled", "--skip-check"]);
    let target = format!("{}/pushed/regctl:v1", stage.base("alias"));
    ok(&stage, "regctl", &["image", "copy", &format!("ocidir://{}:v1", layout.display()), &target]);
    there(&stage, "regctl", "pushed/regctl:v1");
    pushed("regctl");
}

#[test]
fn matrix_push_helm() {
    let stage = stage();
    let home = stage.folder.sub("helm");
    let chart = helm_chart("pushed through larder");
    fs::write(home.join("mychart-0.1.0.tgz"), &chart).unwrap();
    let registry = format!("oci://{}/pushed", stage.base("default"));
    ok(&stage, "helm", &["push", "mychart-0.1.0.tgz", &registry, "--plain-http"]);
    there(&stage, "helm", "pushed/mychart:0.1.0");
    let back = stage.folder.sub("back/chart");
    let chart_reference = format!("{registry}/mychart");
    ok(
        &stage,
        "helm",
        &["pull", &chart_reference, "--version", "0.1.0", "--plain-http", "--destination", back.to_str().unwrap()],
    );
    assert!(fs::read(back.join("mychart-0.1.0.tgz")).unwrap() == chart);
    pushed("helm");
}

#[test]
fn matrix_push_cosign() {
    let stage = stage();
    let image = Image::of("source");
    let reference = format!("{}/{}@{}", stage.base("prefix"), image.repository, image.digest());
    ok(&stage, "cosign", &["generate-key-pair"]);
    ok(
        &stage,
        "cosign",
        &["sign", "--key", "cosign.key", "--tlog-upload=false", "--use-signing-config=false", "--yes", &reference],
    );
    let verify = ["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", &reference];
    assert!(ok(&stage, "cosign", &verify).contains(&image.digest()));
    stage.lose_upstream();
    assert!(ok(&stage, "cosign", &verify).contains(&image.digest()), "with upstream gone");
    pushed("cosign");
}

#[test]
fn matrix_push_skopeo() {
    let stage = stage();
    let layout = layout(&stage.folder, &Image::of("pushed-by-skopeo"));
    let target = format!("docker://{}/pushed/skopeo:v1", stage.base("default"));
    let source = format!("oci:{}:v1", layout.display());
    ok(&stage, "skopeo", &["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &target]);
    there(&stage, "skopeo", "pushed/skopeo:v1");
    pushed("skopeo");
}

#[test]
fn matrix_push_podman() {
    from_its_store("podman");
}

#[test]
fn matrix_push_buildah() {
    from_its_store("buildah");
}

fn from_its_store(client: &'static str) {
    let stage = stage();
    let tool = crate::images::Tool::new(client, &stage, "home");
    let source = format!("{}/{}", stage.base("default"), Image::of("source").reference());
    let policy = tool.home.join("policy.json");
    let policy = ["--signature-policy", policy.to_str().unwrap(), "--tls-verify=false"];
    tool.ok("default", &[&["pull", "--quiet"], &policy[..], &[&source]].concat());
    // To the upstream that it came from, which may mount, and to another one, which may not.
    for reference in [format!("pushed/{client}:v1"), format!("{OTHER}/pushed/{client}-across:v1")] {
        let target = format!("docker://{}/{reference}", stage.base("default"));
        tool.ok("default", &["push", "--tls-verify=false", &source, &target]);
        there(&stage, client, &reference);
    }
    mounts_stay_within_an_upstream(&stage);
    pushed(client);
}

#[test]
fn matrix_push_containerd() {
    let stage = stage();
    let home = stage.folder.sub("containerd");
    let containerd = crate::containerd::Containerd::start(&home);
    let ctr = |arguments: &[&str]| containerd.ctr(&home, arguments);
    let source = format!("{}/{}", stage.base("default"), Image::of("source").reference());
    ctr(&["images", "pull", "--snapshotter", "native", "--plain-http", "--platform", "linux/amd64", &source]);
    let target = format!("{}/pushed/containerd:v1", stage.base("prefix"));
    ctr(&["images", "push", "--plain-http", "--platform", "linux/amd64", &target, &source]);
    there(&stage, "containerd", "pushed/containerd:v1");
    pushed("containerd");
}

#[test]
fn matrix_push_docker() {
    let stage = stage();
    let docker = crate::docker::Docker::start(&stage.folder.sub("docker"), None);
    let source = format!("{}/{}", stage.base("prefix"), Image::of("source").reference());
    docker.ok(&["pull", &source]);
    for (base, reference) in [
        (stage.base("prefix"), "pushed/docker:v1".to_owned()),
        (stage.base("default"), format!("{OTHER}/pushed/docker-across:v1")),
    ] {
        let target = format!("{base}/{reference}");
        docker.ok(&["tag", &source, &target]);
        docker.ok(&["push", &target]);
        there(&stage, "docker", &reference);
    }
    mounts_stay_within_an_upstream(&stage);
    pushed("docker");
}

#[test]
fn without_leave_a_push_is_refused_with_what_would_allow_it() {
    let stage = Stage::new(NAME, &[]);
    let oras = Oras::new(Version::V1_3_3, &stage.folder);
    let folder = stage.folder.sub("files");
    fs::write(folder.join("config.json"), "{}\n").unwrap();
    let outcome = oras.run(&["push", &format!("{}/pushed/oras:v1", stage.base("default")), "config.json"], &folder);
    assert!(!outcome.status.success() && outcome.to_string().contains("--allow push"), "{outcome}");
    assert!(Path::new(&folder).is_dir() && stage.simulator().contents().is_empty());
}
