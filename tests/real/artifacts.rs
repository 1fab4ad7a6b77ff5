//! Clients that are told on their command line: crane, regctl, Helm, and ORAS by each of its routes.

use std::fs;
use std::path::Path;

use crate::content::digest_of;
use crate::matrix;
use crate::oras::{Oras, Version};
use crate::process::{Outcome, command, program, run};
use crate::simulator::samples::helm_chart;
use crate::simulator::{OCI_MANIFEST, Simulator};
use crate::stage::{Image, NAME, Stage, descriptor};

#[test]
fn matrix_oras_1_3_3() {
    oras("oras", Version::V1_3_3);
}

#[test]
fn matrix_oras_1_1_0() {
    oras("oras 1.1", Version::V1_1_0);
}

fn oras(client: &str, version: Version) {
    let routes = matrix::routes(client);
    let stage = Stage::new(NAME, &routes);
    let oras = Oras::new(version, &stage.folder);
    matrix::run(client, &stage, &routes, |route, image, when| {
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        let line = stage.line("oras", "oras pull", &[("REPOSITORY:TAG", &image.reference())]);
        let reference = line.last().unwrap();
        let reference = reference.replace(&stage.base("prefix"), &stage.base(route));
        oras.ok(&["pull", &reference], &folder);
        assert!(fs::read(folder.join("layer.tar")).unwrap() == image.layer, "{route}, {when:?}");
    });
}

/// Runs a program with nothing of the user's settings.
fn ok(stage: &Stage, name: &str, arguments: &[&str]) -> String {
    let outcome = attempt(stage, name, arguments);
    String::from_utf8(outcome.ok()).unwrap()
}

fn attempt(stage: &Stage, name: &str, arguments: &[&str]) -> Outcome {
    let home = stage.folder.sub(name);
    let mut command = command(&program(name), &home);
    command.args(arguments);
    run(command, &home)
}

/// An OCI image layout holds the image's three blobs.
fn holds(layout: &Path, image: &Image) {
    for bytes in [&image.manifest, &image.config, &image.layer] {
        let path = layout.join("blobs/sha256").join(&digest_of(bytes)["sha256:".len()..]);
        let stored = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(stored == **bytes, "{}", path.display());
    }
}

#[test]
fn matrix_crane() {
    let routes = matrix::routes("crane");
    let stage = Stage::new(NAME, &routes);
    matrix::run("crane", &stage, &routes, |route, image, when| {
        let layout = stage.folder.sub(&format!("{route}-{when:?}"));
        let reference = format!("{}/{}", stage.base(route), image.reference());
        ok(&stage, "crane", &["pull", "--format", "oci", &reference, layout.to_str().unwrap()]);
        holds(&layout, image);
        assert_eq!(ok(&stage, "crane", &["digest", &reference]).trim(), image.digest());
        let tags = ok(&stage, "crane", &["ls", &format!("{}/{}", stage.base(route), image.repository)]);
        assert_eq!(tags.trim(), "v1", "{route}, {when:?}");
    });
}

#[test]
fn matrix_regctl() {
    let routes = matrix::routes("regctl");
    let stage = Stage::new(NAME, &routes);
    for line in stage.lines("regctl").iter().filter(|line| line.starts_with("regctl registry set")) {
        ok(&stage, "regctl", &line.split(' ').skip(1).collect::<Vec<_>>());
    }
    matrix::run("regctl", &stage, &routes, |route, image, when| {
        let base = if route == "mirror" { NAME.to_owned() } else { stage.base(route) };
        let layout = stage.folder.sub(&format!("{route}-{when:?}"));
        let target = format!("ocidir://{}:v1", layout.display());
        ok(&stage, "regctl", &["image", "copy", &format!("{base}/{}", image.reference()), &target]);
        holds(&layout, image);
    });
}

#[test]
fn matrix_helm() {
    let routes = matrix::routes("helm");
    let stage = Stage::new(NAME, &[]);
    for route in &routes {
        seed_chart(stage.simulator(), route);
    }
    matrix::run("helm", &stage, &routes, |route, _, when| {
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        let chart = format!("charts/{route}");
        let mut line = stage.line("helm", "helm pull", &[("CHART", &chart), ("VERSION", "0.1.0")]);
        line[1] = line[1].replace(&stage.base("prefix"), &stage.base(route));
        line.extend(["--destination".to_owned(), folder.to_str().unwrap().to_owned()]);
        ok(&stage, "helm", &line.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(fs::read(folder.join(format!("{route}-0.1.0.tgz"))).unwrap() == helm_chart(route), "{route}, {when:?}");
        // A range of versions reads the tags first.
        let reference = format!("oci://{}/{chart}", stage.base(route));
        let shown = ok(&stage, "helm", &["show", "chart", &reference, "--version", ">0.0.1", "--plain-http"]);
        assert!(shown.contains(&format!("description: {route}")), "{route}, {when:?}: {shown}");
    });
}

/// Pushes a chart for the route, `charts/<route>:0.1.0`, to the registry.
pub(crate) fn seed_chart(simulator: &Simulator, route: &str) {
    let (repository, chart) = (format!("charts/{route}"), helm_chart(route));
    let config = format!(r#"{{"name":"mychart","version":"0.1.0","description":"{route}","apiVersion":"v2"}}"#);
    simulator.push_blob(&repository, chart.clone());
    simulator.push_blob(&repository, config.clone());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.cncf.helm.config.v1+json", config.as_bytes()),
        descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart)
    );
    simulator.push_manifest(&repository, Some("0.1.0"), OCI_MANIFEST, manifest);
}

#[test]
fn matrix_cosign() {
    let routes = matrix::routes("cosign");
    let stage = Stage::new(NAME, &routes);
    sign(&stage, &routes);
    matrix::run("cosign", &stage, &routes, |route, image, _| {
        let line = stage.line("cosign", "cosign verify", &[("REPOSITORY@sha256:…", ""), ("--key cosign.pub", "")]);
        assert_eq!(line[0], "verify", "{line:?}");
        let reference = format!("{}/{}@{}", stage.base(route), image.repository, image.digest());
        let said = ok(&stage, "cosign", &["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", &reference]);
        assert!(said.contains(&image.digest()), "{said}");
    });
    let unsigned = Image::of("unsigned");
    let reference = format!("{}/{}@{}", stage.base("default"), unsigned.repository, unsigned.digest());
    let outcome = attempt(&stage, "cosign", &["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", &reference]);
    assert!(!outcome.status.success(), "{outcome}");
}

/// Signs the images at the registry itself, with a key of the moment and no transparency log.
pub(crate) fn sign(stage: &Stage, routes: &[&str]) {
    use base64::Engine as _;
    let (home, host) = (stage.folder.sub("cosign"), stage.simulator().host());
    let login = format!("{}:{}", crate::stage::USER, crate::stage::PASSWORD);
    let login = base64::engine::general_purpose::STANDARD.encode(login);
    fs::create_dir_all(home.join(".docker")).unwrap();
    let json = format!(r#"{{"auths":{{"{host}":{{"auth":"{login}"}}}}}}"#);
    fs::write(home.join(".docker/config.json"), json).unwrap();
    let cosign = |arguments: &[&str]| {
        let mut command = command(&program("cosign"), &home);
        command.env("COSIGN_PASSWORD", "").args(arguments);
        run(command, &home).ok();
    };
    cosign(&["generate-key-pair"]);
    for route in routes {
        let image = Image::of(route);
        let reference = format!("{host}/{}@{}", image.repository, image.digest());
        cosign(&[
            "sign",
            "--key",
            "cosign.key",
            "--tlog-upload=false",
            "--use-signing-config=false",
            "--yes",
            &reference,
        ]);
    }
    // Verifying needs no login.
    fs::remove_file(home.join(".docker/config.json")).unwrap();
}
