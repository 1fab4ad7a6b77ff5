//! Podman with `enable_partial_images`: of a zstd:chunked layer it fetches the table of contents, and then, in one request for several
//! ranges, the files that no image has yet.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use crate::content::digest_of;
use crate::matrix;
use crate::process::{command, program, run, wait_for};
use crate::pushing::layout;
use crate::simulator::samples::incompressible;
use crate::stage::{Image, NAME, PASSWORD, Stage, USER};

const ROUTE: &str = "zstd-chunked";
const FILE: usize = 200_000;

/// Two versions of five files. The second and the fourth are the same in both, so that what is new lies apart.
fn files(version: u64) -> Vec<(String, Bytes)> {
    let seed = |number: u64| if number.is_multiple_of(2) { number } else { number + 100 * version };
    (1..=5).map(|number| (format!("file-{number}"), incompressible(seed(number), FILE))).collect()
}

/// Puts both versions into the registry, as skopeo packs them.
fn push_to_the_registry(stage: &Stage) {
    let home = stage.folder.sub("skopeo");
    for version in [1, 2] {
        let files = files(version);
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        let source = format!("oci:{}:v1", layout(&stage.folder, &Image::with(ROUTE, &files)).display());
        let target = format!("docker://{}/samples/{ROUTE}:v{version}", stage.simulator().host());
        let mut skopeo = command(&program("skopeo"), &home);
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false", "--dest-creds"]);
        skopeo.arg(format!("{USER}:{PASSWORD}")).args(["--dest-compress-format", "zstd:chunked", &source, &target]);
        run(skopeo, &home).ok();
    }
}

/// The lengths of larder's answers with parts of blobs so far.
fn parts(stage: &Stage) -> Vec<u64> {
    let log = fs::read_to_string(stage.folder.sub("larder").join("larder.log")).unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let parts = lines.filter(|line| line["route"] == "blob" && line["status"] == 206);
    parts.map(|line| line["bytes"].as_u64().unwrap()).collect()
}

/// A new store, which only overlay can fill from parts. It is on a file system of its own that goes away with the command: overlay does
/// not lie on every one.
fn pulls_both(stage: &Stage, place: &str) {
    let home = stage.folder.sub(&format!("podman/{place}"));
    let store = stage.folder.sub(&format!("podman/{place}/store"));
    let at = |name: &str| -> PathBuf { store.join(name) };
    let conf = format!(
        "[storage]\ndriver = \"overlay\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n[storage.options]\n\
         pull_options = {{enable_partial_images = \"true\", use_hard_links = \"false\", ostree_repos = \"\"}}\n",
        at("run").display(),
        at("graph").display()
    );
    fs::write(home.join("storage.conf"), conf).unwrap();
    fs::write(home.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    let mut script = "mount -t tmpfs tmpfs \"$1\"".to_owned();
    for version in [1, 2] {
        let reference = format!("{}/samples/{ROUTE}:v{version}", stage.base("default"));
        write!(
            script,
            " && podman --log-level debug pull --signature-policy policy.json --tls-verify=false {reference} \
             && cd \"$(podman image mount {reference})\" && sha256sum file-* && cd - > /dev/null"
        )
        .unwrap();
    }
    let mut unshare = command(&program("unshare"), &home);
    unshare.args(["--mount", "sh", "-c", &script, "sh"]).arg(&store);
    unshare.env("CONTAINERS_STORAGE_CONF", home.join("storage.conf")).env("XDG_RUNTIME_DIR", &home);
    unshare.env_remove("DOCKER_CONFIG");
    let outcome = run(unshare, &home);
    let words = outcome.to_string();
    let said = String::from_utf8(outcome.ok()).unwrap();
    for (name, bytes) in files(1).into_iter().chain(files(2)) {
        let line = format!("{}  {name}", &digest_of(&bytes)["sha256:".len()..]);
        assert!(said.contains(&line), "{place}: no {line} in {said}");
    }
    assert_eq!(words.matches("Retrieved partial blob").count(), 2, "{place}: {words}");
}

#[test]
fn matrix_podman_with_zstd_chunked() {
    let stage = Stage::new(NAME, &[]);
    push_to_the_registry(&stage);
    matrix::run("podman", &stage, &[ROUTE], |_, _, when| {
        let before = parts(&stage).len();
        pulls_both(&stage, &format!("{when:?}"));
        wait_for("larder's lines", || parts(&stage).len() >= before + 4);
        // Of each version the table of contents and the new files; of the second those are three that lie apart, which only one
        // answer in several parts has without what lies between.
        let parts = parts(&stage).split_off(before);
        assert_eq!(parts.len(), 4, "{when:?}: {parts:?}");
        let whole = |files: usize| (files * FILE) as u64..((files * FILE) + FILE / 2) as u64;
        assert!(whole(5).contains(&parts[1]) && whole(3).contains(&parts[3]), "{when:?}: {parts:?}");
    });
}
