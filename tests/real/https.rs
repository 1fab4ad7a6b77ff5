//! Over https: larder behind a server that ends TLS, whose certificate is signed by an authority that no system knows. The clients
//! get it as `larder client-config --ca` says, in files or in what is typed; without it they are to refuse.

use std::fs;

use crate::artifacts::{seed_chart, sign};
use crate::containerd::Containerd;
use crate::content::digest_of;
use crate::docker::Docker;
use crate::images::Tool;
use crate::matrix;
use crate::process::Outcome;
use crate::pushing::{layout, there};
use crate::simulator::samples::helm_chart;
use crate::stage::{FRONT, Image, NAME, Stage, front_address};
use crate::world::World;

/// The line of `larder client-config` that begins so, with an image's reference and the authority's file put in.
fn line(stage: &Stage, client: &str, begins: &str, image: &Image) -> String {
    let lines = stage.lines(client);
    let line = lines.iter().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins}: {lines:?}"));
    let line = line.split("     # ").next().unwrap();
    line.replace("REPOSITORY:TAG", &image.reference()).replace("CA.pem", stage.ca().to_str().unwrap())
}

/// It refused because of the certificate, and nothing of what it asked for went through.
fn refused(outcome: &Outcome) {
    let text = outcome.to_string().to_lowercase();
    assert!(!outcome.status.success() && text.contains("certificate"), "{outcome}");
}

/// A world that knows nothing of the authority.
fn ignorant(stage: &Stage) -> World {
    World::new(&stage.folder, &stage.folder.sub("world/ignorant"), &[(front_address(), FRONT)])
}

#[test]
fn matrix_https_oras() {
    let routes = matrix::routes_over_https("oras");
    let stage = Stage::over_https(&routes);
    let world = stage.world("oras", &[]);
    let typed = line(&stage, "oras", "oras pull", &Image::of("https"));
    refused(&world.types(&typed.replace(&format!("--ca-file {} ", stage.ca().display()), "")));
    matrix::run("oras", &stage, &routes, |route, image, when| {
        let line = line(&stage, "oras", "oras pull", image);
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        world.types(&format!("cd {} && {line}", folder.display())).ok();
        assert!(fs::read(folder.join("layer.tar")).unwrap() == image.layer, "{route}, {when:?}");
    });
}

#[test]
fn matrix_https_helm() {
    let routes = matrix::routes_over_https("helm");
    let stage = Stage::over_https(&[]);
    for route in &routes {
        seed_chart(stage.simulator(), route);
    }
    let world = stage.world("helm", &[]);
    let typed = |route: &str| {
        let line = line(&stage, "helm", "helm pull", &Image::of(route));
        line.replace("CHART", &format!("charts/{route}")).replace("VERSION", "0.1.0")
    };
    refused(&world.types(typed("https").split(" --ca-file").next().unwrap()));
    matrix::run("helm", &stage, &routes, |route, _, when| {
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        world.types(&format!("{} --destination {}", typed(route), folder.display())).ok();
        assert!(fs::read(folder.join(format!("{route}-0.1.0.tgz"))).unwrap() == helm_chart(route), "{route}, {when:?}");
    });
}

#[test]
fn matrix_https_crane() {
    let routes = matrix::routes_over_https("crane");
    let stage = Stage::over_https(&routes);
    let world = stage.world("crane", &[]).trusting(stage.ca());
    refused(&ignorant(&stage).types(&line(&stage, "crane", "crane pull", &Image::of("https"))));
    matrix::run("crane", &stage, &routes, |route, image, when| {
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        world.types(&format!("cd {} && {}", folder.display(), line(&stage, "crane", "crane pull", image))).ok();
        let tar = fs::read(folder.join("image.tar")).unwrap();
        let name = image.id();
        assert!(tar.windows(name.len()).any(|found| found == name.as_bytes()), "{route}, {when:?}: another image");
    });
}

#[test]
fn matrix_https_cosign() {
    let routes = matrix::routes_over_https("cosign");
    let stage = Stage::over_https(&routes);
    sign(&stage, &routes);
    let world = stage.world("cosign", &[]).trusting(stage.ca());
    let typed = |image: &Image| {
        let at = format!("{}@{}", image.repository, image.digest());
        let line = line(&stage, "cosign", "cosign verify", image).replace("REPOSITORY@sha256:…", &at);
        // The signature of a moment is in no log.
        format!("cd {} && {line} --insecure-ignore-tlog", stage.folder.sub("cosign").display())
    };
    refused(&ignorant(&stage).types(&typed(&Image::of("https"))));
    matrix::run("cosign", &stage, &routes, |_, image, _| {
        let said = String::from_utf8(world.types(&typed(image)).ok()).unwrap();
        assert!(said.contains(&image.digest()), "{said}");
    });
}

#[test]
fn matrix_https_regctl() {
    let routes = matrix::routes_over_https("regctl");
    let stage = Stage::over_https(&routes);
    let world = stage.world("regctl", &[]);
    let image = Image::of("https-mirror");
    refused(&world.types(&format!("regctl manifest head {}/{}", stage.base("https"), image.reference())));
    for begins in [format!("regctl registry set {FRONT}"), format!("regctl registry set {NAME}")] {
        world.types(&line(&stage, "regctl", &begins, &image)).ok();
    }
    matrix::run("regctl", &stage, &routes, |route, image, when| {
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        world.types(&format!("cd {} && {}", folder.display(), line(&stage, "regctl", "regctl image", image))).ok();
        let tar = fs::read(folder.join("image.tar")).unwrap();
        assert!(tar.windows(image.layer.len()).any(|found| found == image.layer), "{route}, {when:?}: no layer");
    });
}

#[test]
fn matrix_https_skopeo() {
    reads_certs_d("skopeo");
}

#[test]
fn matrix_https_podman() {
    reads_certs_d("podman");
}

#[test]
fn matrix_https_buildah() {
    reads_certs_d("buildah");
}

fn reads_certs_d(client: &'static str) {
    let routes = matrix::routes_over_https(client);
    let stage = Stage::over_https(&routes);
    let (world, ignorant) = (stage.world("podman", &[]), ignorant(&stage));
    let name = |route: &str| if route == "https" { stage.base(route) } else { NAME.to_owned() };
    let reference = format!("{}/{}", name("https"), Image::of("https").reference());
    refused(&Tool::in_world(client, &stage, "ignorant", &ignorant).pulls(&reference));
    matrix::run(client, &stage, &routes, |route, image, when| {
        // A store of its own each time: what it has from before would not be pulled.
        let tool = Tool::in_world(client, &stage, &format!("{route}-{when:?}"), &world);
        let said = tool.pulls(&format!("{}/{}", name(route), image.reference())).ok();
        if client == "skopeo" {
            assert!(fs::read(tool.home.join("dir/manifest.json")).unwrap() == image.manifest, "{route}, {when:?}");
        } else {
            let said = String::from_utf8(said).unwrap();
            assert_eq!(format!("sha256:{}", said.trim()), image.id(), "{route}, {when:?}");
        }
    });
}

#[test]
fn matrix_https_containerd() {
    let routes = matrix::routes_over_https("containerd");
    let stage = Stage::over_https(&routes);
    let world = stage.world("containerd", &[]);
    let home = stage.folder.sub("ignorant");
    let reference = format!("{}/{}", stage.base("https"), Image::of("https-hosts.toml").reference());
    refused(&Containerd::start(&home).pulls(&ignorant(&stage), &home, &reference));
    matrix::run("containerd", &stage, &routes, |route, image, when| {
        let home = stage.folder.sub(&format!("{route}-{when:?}"));
        let containerd = Containerd::start(&home);
        containerd.pulls(&world, &home, &format!("{NAME}/{}", image.reference())).ok();
        for bytes in [&image.manifest, &image.config, &image.layer] {
            assert!(containerd.ctr(&home, &["content", "get", &digest_of(bytes)]) == **bytes, "{route}, {when:?}");
        }
    });
}

#[test]
fn matrix_https_docker() {
    let routes = matrix::routes_over_https("docker");
    let stage = Stage::over_https(&routes);
    let world = stage.world("docker", &[]);
    let docker = Docker::start_in(&world, &stage.folder.sub("docker"));
    let reference = |image: &Image| format!("{}/{}", stage.base("https"), image.reference());
    // It reads the file at each pull; without IPv6 it would not need it.
    let file = stage.folder.sub("world/docker").join(format!("etc/docker/certs.d/{}/ca.crt", stage.at()));
    let authority = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    if front_address().is_ipv6() {
        refused(&docker.attempt(&["pull", &reference(&Image::of("https"))]));
    }
    fs::write(&file, authority).unwrap();
    matrix::run("docker", &stage, &routes, |_, image, when| docker.pulls(&reference(image), image, when));
}

/// An upload's address is larder's own to say: it must not lead past the server in front.
#[test]
fn matrix_push_over_https() {
    let stage = Stage::over_https_with(&[], &["--allow", "push,delete"]);
    let (world, at) = (stage.world("podman", &[]), stage.at());
    let ca = stage.ca().display();
    let files = stage.folder.sub("files");
    fs::write(files.join("config.json"), "{\"replicas\": 8}\n").unwrap();
    fs::write(files.join("mychart-0.1.0.tgz"), helm_chart("pushed over https")).unwrap();
    let layout = layout(&stage.folder, &Image::of("pushed-over-https")).display().to_string();
    for (client, line, reference) in [
        (
            "oras",
            format!("oras push --ca-file {ca} {at}/pushed/oras:v1 config.json:application/json"),
            "pushed/oras:v1",
        ),
        ("helm", format!("helm push mychart-0.1.0.tgz oci://{at}/pushed --ca-file {ca}"), "pushed/mychart:0.1.0"),
        ("crane", format!("SSL_CERT_FILE={ca} crane push {layout} {at}/pushed/crane:v1"), "pushed/crane:v1"),
        (
            "skopeo",
            format!("skopeo --insecure-policy copy oci:{layout}:v1 docker://{at}/pushed/skopeo:v1"),
            "pushed/skopeo:v1",
        ),
    ] {
        world.types(&format!("cd {} && {line}", files.display())).ok();
        there(&stage, client, reference);
    }
    assert_eq!(stage.larder.metric("larder_digest_failures_total", ""), 0);
}
