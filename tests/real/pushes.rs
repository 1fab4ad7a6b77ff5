//! Every write command of the guide, in order, through larder; and that nothing of what was pushed is fetched again.

use std::fs;

use crate::larder::Larder;
use crate::oras::{Oras, Version};
use crate::process::{Folder, command, program, run};
use crate::upstream::{Kind, Upstream};

const SETTINGS: &[u8] = b"feature: on\nlevel: debug\n";
const SBOM: &[u8] = b"{\"spdxVersion\":\"SPDX-2.3\"}\n";
const SBOM_TYPE: &str = "application/vnd.contoso.sbom.v1";

#[test]
fn simulator_with_oras_1_3_3() {
    journey(Kind::Simulator, Version::V1_3_3);
}

#[test]
fn simulator_with_oras_1_1_0() {
    journey(Kind::Simulator, Version::V1_1_0);
}

#[test]
fn basic_authentication_with_oras_1_3_3() {
    journey(Kind::Basic, Version::V1_3_3);
}

#[test]
fn basic_authentication_with_oras_1_1_0() {
    journey(Kind::Basic, Version::V1_1_0);
}

#[test]
fn tokens_of_another_host_with_oras_1_3_3() {
    journey(Kind::Tokens, Version::V1_3_3);
}

#[test]
fn tokens_of_another_host_with_oras_1_1_0() {
    journey(Kind::Tokens, Version::V1_1_0);
}

fn allowing(upstream: &Upstream) -> Vec<String> {
    let allow = ["--allow".to_owned(), "push,delete".to_owned()];
    upstream.arguments.iter().cloned().chain(allow).collect()
}

fn journey(kind: Kind, version: Version) {
    let folder = Folder::new();
    let upstream = Upstream::start(kind, &folder);
    let larder = Larder::start(&folder, &allowing(&upstream));
    let oras = Oras::new(version, &folder);
    let here = folder.sub("push");
    let big: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, bytes) in [("app.yaml", SETTINGS), ("sbom.json", SBOM), ("app-1.0.0.tgz", &big)] {
        fs::write(here.join(name), bytes).unwrap();
    }
    let at = |reference: &str| format!("{}/{reference}", larder.host());
    let pushed = at("samples/pushed:v1");

    oras.ok(&["push", &pushed, "app.yaml"], &here);
    let several = ["app.yaml:application/yaml", "app-1.0.0.tgz:application/gzip"];
    oras.ok(&["push", &at("samples/pushed:several"), several[0], several[1]], &here);
    let typed = ["push", "--artifact-type", "application/vnd.contoso.config.v1"];
    oras.ok(&[&typed[..], &[&at("samples/pushed:typed"), "app.yaml"]].concat(), &here);
    let noted = ["push", "--annotation", "org.opencontainers.image.source=https://example.com/app"];
    oras.ok(&[&noted[..], &[&at("samples/pushed:noted"), "app.yaml"]].concat(), &here);
    let manifest = oras.ok(&["manifest", "fetch", &at("samples/pushed:noted")], &here);
    assert!(manifest.contains("https://example.com/app"), "{manifest}");

    oras.ok(&["attach", "--artifact-type", SBOM_TYPE, &pushed, "sbom.json"], &here);
    let found = String::from_utf8(oras.discover(&pushed, &here).ok()).unwrap();
    assert!(found.contains(SBOM_TYPE), "{found}");

    oras.ok(&["tag", &pushed, "stable"], &here);
    assert_eq!(oras.resolve(&at("samples/pushed:stable"), &here), oras.resolve(&pushed, &here));
    let tags = oras.ok(&["repo", "tags", &at("samples/pushed")], &here);
    assert!(
        ["v1", "several", "typed", "noted", "stable"].iter().all(|tag| tags.lines().any(|it| it == *tag)),
        "{tags}"
    );

    oras.ok(&["cp", &at("samples/pushed:several"), &at("samples/copied:several")], &here);
    for repository in ["samples/pushed", "samples/copied"] {
        let there = folder.sub(&format!("pulled/{repository}"));
        oras.ok(&["pull", &at(&format!("{repository}:several"))], &there);
        assert!(fs::read(there.join("app.yaml")).unwrap() == SETTINGS);
        assert!(fs::read(there.join("app-1.0.0.tgz")).unwrap() == big);
    }
    assert_eq!(larder.blobs_fetched(), 0, "what was pushed is here");
    let copy = [at("samples/pushed:several"), at("samples/copied:several")];
    assert_eq!(oras.resolve(&copy[0], &here), oras.resolve(&copy[1], &here));

    let doomed = at("samples/pushed:typed");
    oras.ok(&["manifest", "delete", "--force", &doomed], &here);
    assert!(!oras.run(&["manifest", "fetch", &doomed], &here).status.success());
    assert_eq!(upstream.violations(), Vec::<String>::new(), "what ACR would have refused");
    assert_eq!(larder.metric("larder_digest_failures_total", ""), 0);
}

#[test]
fn skopeo_pushes_an_image_and_finds_it_there() {
    for kind in [Kind::Simulator, Kind::Basic, Kind::Tokens] {
        let folder = Folder::new();
        let upstream = Upstream::start(kind, &folder);
        let larder = Larder::start(&folder, &allowing(&upstream));
        let home = folder.sub("skopeo");
        let skopeo = |arguments: &[&str]| {
            let mut command = command(&program("skopeo"), &home);
            command.args(arguments);
            run(command, &home).ok()
        };
        // An image that upstream has, copied to another repository of the same larder.
        let source = format!("docker://{}/{}", larder.address(), crate::content::IMAGE);
        let target = format!("docker://{}/samples/pushed-image:v1", larder.address());
        let plain = ["--src-tls-verify=false", "--dest-tls-verify=false"];
        skopeo(&["--insecure-policy", "copy", plain[0], plain[1], &source, &target]);
        // It packs the layer on the way, so that the image is another one by its digest; what it pulls again it checks itself.
        let into = format!("dir:{}", folder.sub("pulled").display());
        skopeo(&["--insecure-policy", "copy", plain[0], &target, &into]);
        assert!(larder.metric("larder_uploads_total", "result=\"stored\"") > 0, "{kind:?}: what it pushed is kept");
        assert_eq!(upstream.violations(), Vec::<String>::new(), "what ACR would have refused");
    }
}
