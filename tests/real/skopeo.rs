//! skopeo, which pings first, asks with other headers, and copies images.

use std::fs;

use crate::content::{IMAGE, digest_of, image};
use crate::larder::Larder;
use crate::process::{Folder, command, program, run};
use crate::upstream::{Kind, Upstream};

#[test]
fn simulator_with_skopeo() {
    journey(Kind::Simulator);
}

#[test]
fn basic_authentication_with_skopeo() {
    journey(Kind::Basic);
}

#[test]
fn tokens_of_another_host_with_skopeo() {
    journey(Kind::Tokens);
}

fn journey(kind: Kind) {
    let folder = Folder::new();
    let mut upstream = Upstream::start(kind, &folder);
    let larder = Larder::start(&folder, &upstream.arguments);
    let manifest = upstream.manifests[IMAGE].clone();
    copies(&folder, &larder, "cold", &manifest);
    let fetched = larder.blobs_fetched();
    copies(&folder, &larder, "warm", &manifest);
    assert_eq!(larder.blobs_fetched(), fetched, "nothing is fetched twice");
    upstream.stop();
    copies(&folder, &larder, "stopped", &manifest);
    assert_eq!(upstream.violations(), Vec::<String>::new(), "what ACR would have refused");
}

/// Copies the image into a folder, as `dir:` lays it out: the manifest, and each blob under its hex digits.
fn copies(folder: &Folder, larder: &Larder, when: &str, manifest: &[u8]) {
    let home = folder.sub("skopeo");
    let skopeo = |arguments: &[&str]| {
        let mut command = command(&program("skopeo"), &home);
        command.args(arguments);
        String::from_utf8(run(command, &home).ok()).unwrap()
    };
    let source = format!("docker://{}/{IMAGE}", larder.address());
    let target = folder.sub(when);
    let into = format!("dir:{}", target.display());
    skopeo(&["--insecure-policy", "copy", "--src-tls-verify=false", &source, &into]);
    assert!(fs::read(target.join("manifest.json")).unwrap() == manifest, "{when}: another manifest");
    let image = image();
    for file in [image.config, image.layer] {
        let digest = digest_of(&file.bytes);
        assert!(fs::read(target.join(&digest["sha256:".len()..])).unwrap() == file.bytes, "{when}: {}", file.name);
    }
    let inspected = skopeo(&["inspect", "--tls-verify=false", &source]);
    assert!(inspected.contains(&digest_of(manifest)), "{when}: {inspected}");
    let repository = format!("docker://{}/samples/image", larder.address());
    let tags = skopeo(&["list-tags", "--tls-verify=false", &repository]);
    assert!(tags.contains("\"v1\""), "{when}: {tags}");
}
