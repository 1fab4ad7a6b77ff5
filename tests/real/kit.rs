//! Content that moves by disk, with the real programs: what three registries have goes through one larder, is exported, read by every
//! tool that reads image layouts, imported into a sealed larder, and pulled there; and what other tools write comes in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::containerd::Containerd;
use crate::content::digest_of;
use crate::larder::Larder;
use crate::process::{Folder, Server, command, program, run};
use crate::simulator::samples::{helm_chart, incompressible, tar};
use crate::simulator::{OCI_INDEX, OCI_MANIFEST, Options, Simulator};
use crate::stage::descriptor;
use crate::upstream::start_registry;
use tokio::runtime::Runtime;

const NAME: &str = "myacr.azurecr.io";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A larder with its folder, and the commands that are run beside it.
struct Site {
    larder: Larder,
    folder: Folder,
}

impl Site {
    fn start(upstreams: &[(&str, String)], sealed: bool) -> Self {
        let folder = Folder::new();
        let tables = upstreams.iter().enumerate().map(|(number, (name, url))| {
            format!("[[upstream]]\nname = \"{name}\"\nurl = \"{url}\"\nsealed = {sealed}\ndefault = {}\n", number == 0)
        });
        let config = folder.sub("larder").join("larder.toml");
        fs::write(&config, tables.collect::<Vec<_>>().join("\n")).unwrap();
        let larder = Larder::start(&folder, &["--config".to_owned(), config.to_str().unwrap().to_owned()]);
        Self { larder, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.folder.sub("larder");
        let mut command = command(Path::new(env!("CARGO_BIN_EXE_larder")), &home);
        command.args(arguments).arg("--config").arg(home.join("larder.toml")).arg("--store").arg(home.join("store"));
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        String::from_utf8(run(self.command(arguments), &self.folder.sub("work")).ok()).unwrap()
    }

    /// Another tool, with a home of its own here.
    fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let home = self.folder.sub(name);
        let mut command = command(&program(name), &home);
        command.env_remove("DOCKER_CONFIG").env("COSIGN_PASSWORD", "").args(arguments);
        String::from_utf8(run(command, &self.folder.sub("work")).ok()).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.folder.sub("work").join(name).display().to_string()
    }

    /// The digest that a reference has here.
    fn digest(&self, reference: &str) -> String {
        let name = format!("{}/{reference}", self.larder.address());
        self.tool("crane", &["digest", "--insecure", &name]).trim().to_owned()
    }

    /// podman and buildah with a store below this site.
    fn podman(&self, arguments: &[&str]) -> String {
        let place = self.folder.sub("podman-store");
        let (root, runroot) = (place.join("root").display().to_string(), place.join("run").display().to_string());
        let policy = place.join("policy.json");
        fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        let mut all = vec!["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        all.push(arguments[0]);
        let policy = policy.display().to_string();
        if matches!(arguments[0], "pull" | "load") {
            all.extend(["--signature-policy", &policy]);
        }
        all.extend(&arguments[1..]);
        self.tool("podman", &all)
    }
}

/// An image of one layer: its manifest's digest and length.
fn image(
    simulator: &Simulator,
    repository: &str,
    tag: Option<&str>,
    seed: u64,
    types: (&str, &str),
) -> (String, usize) {
    let layer = tar([("data.bin", &*incompressible(seed, 100_000))]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"seed":"{seed}"}}}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest_of(&layer)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        types.0,
        descriptor(types.1, config.as_bytes()),
        descriptor(if types.0 == DOCKER { "application/vnd.docker.image.rootfs.diff.tar" } else { LAYER }, &layer)
    );
    simulator.push_blob(repository, config);
    simulator.push_blob(repository, layer);
    let length = manifest.len();
    (simulator.push_manifest(repository, tag, types.0, manifest), length)
}

/// An index of three platforms beside an index of one: one of the three is of Docker's type.
fn index(simulator: &Simulator) {
    let repository = "base/os";
    let platforms = [
        ("amd64", (OCI_MANIFEST, CONFIG)),
        ("arm64", (OCI_MANIFEST, CONFIG)),
        ("riscv64", (DOCKER, "application/vnd.docker.container.image.v1+json")),
    ];
    let mut children = Vec::new();
    for ((platform, types), seed) in platforms.into_iter().zip(100..) {
        let (digest, size) = image(simulator, repository, None, seed, types);
        children.push(format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{platform}"}}}}"#,
            types.0
        ));
    }
    let index = |children: &[String]| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, children.join(","))
    };
    simulator.push_manifest(repository, Some("v1"), OCI_INDEX, index(&children));
    let inner = index(&children[..1]);
    let nested = simulator.push_manifest(repository, None, OCI_INDEX, inner.clone());
    children.push(format!(r#"{{"mediaType":"{OCI_INDEX}","digest":"{nested}","size":{}}}"#, inner.len()));
    simulator.push_manifest(repository, Some("nested"), OCI_INDEX, index(&children));
}

/// What one registry has that only a simulator is easily filled with.
fn fill(simulator: &Simulator) {
    index(simulator);
    image(simulator, "team/app", Some("v1"), 7, (OCI_MANIFEST, CONFIG));
    image(simulator, "team/docker", Some("v1"), 8, (DOCKER, "application/vnd.docker.container.image.v1+json"));
    let (metadata, chart) = (r#"{"name":"mychart","version":"0.1.0","apiVersion":"v2"}"#, helm_chart("A chart"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.cncf.helm.config.v1+json", metadata.as_bytes()),
        descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &chart)
    );
    simulator.push_blob("charts/mychart", metadata);
    simulator.push_blob("charts/mychart", chart);
    simulator.push_manifest("charts/mychart", Some("0.1.0"), OCI_MANIFEST, manifest);
    // A layer that is named by sha512.
    let content = incompressible(9, 5000);
    let digest = simulator.push_blob_as("team/long", content.clone(), "sha512");
    simulator.push_blob("team/long", &b"{}"[..]);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{{"mediaType":"{LAYER}","digest":"{digest}","size":{}}}]}}"#,
        descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        content.len()
    );
    simulator.push_manifest("team/long", Some("v1"), OCI_MANIFEST, manifest);
    // Many tiny ones.
    let tiny: Vec<(String, String)> =
        (0..5000).map(|number| (format!("{number}.txt"), format!("tiny {number}\n"))).collect();
    let files: Vec<_> = tiny.iter().map(|(name, text)| (name.as_str(), "text/plain", text.clone().into())).collect();
    simulator.push_artifact("team/tiny", "v1", &files);
}

struct World {
    near: Site,
    basic: Server,
    simulator: Simulator,
    _folder: Folder,
    _runtime: Runtime,
}

const WHOLE: [&str; 7] = [
    "base/os:v1",
    "base/os:nested",
    "team/app:v1",
    "team/docker:v1",
    "charts/mychart:0.1.0",
    "team/long:v1",
    "team/tiny:v1",
];

impl World {
    /// Three registries, and a larder through which all that they have has been pulled.
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let simulator = runtime.block_on(Simulator::start(Options::public()));
        fill(&simulator);
        let folder = Folder::new();
        let (basic, other) = (
            start_registry("docker-registry", &folder.sub("basic"), ""),
            start_registry("registry", &folder.sub("other"), ""),
        );
        let at = |server: &Server| format!("http://127.0.0.1:{}", server.port);
        let near =
            Site::start(&[(NAME, simulator.url()), ("basic.test", at(&basic)), ("other.test", at(&other))], false);
        let file = near.folder.sub("work").join("hello.txt");
        fs::write(file, "hello\n").unwrap();
        for (server, repository) in [(&basic, "samples/config"), (&other, "samples/more")] {
            let reference = format!("localhost:{}/{repository}:v1", server.port);
            near.tool("oras", &["push", &reference, "hello.txt:text/plain"]);
            near.tool(
                "oras",
                &["attach", "--artifact-type", "application/vnd.example.sbom", &reference, "hello.txt:text/sbom"],
            );
        }
        let near = Self { near, basic, simulator, _folder: folder, _runtime: runtime };
        near.sign();
        let mut all = vec!["warm", "--referrers", "basic.test/samples/config:v1", "other.test/samples/more:v1"];
        all.extend(WHOLE);
        near.near.run(&all);
        drop(other);
        near
    }

    /// A signature by a tag, as cosign makes it where a registry has no other way.
    fn sign(&self) {
        let (near, host) = (&self.near, format!("localhost:{}", self.basic.port));
        near.tool("cosign", &["generate-key-pair"]);
        let source = format!("docker://{}/team/app:v1", self.simulator.host());
        near.tool(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                &source,
                &format!("docker://{host}/team/signed:v1"),
            ],
        );
        let digest = near.tool("crane", &["digest", "--insecure", &format!("{host}/team/signed:v1")]);
        let reference = format!("{host}/team/signed@{}", digest.trim());
        near.tool(
            "cosign",
            &[
                "sign",
                "--key",
                "cosign.key",
                "--tlog-upload=false",
                "--use-signing-config=false",
                "--allow-http-registry",
                "--yes",
                &reference,
            ],
        );
        near.run(&["warm", "--referrers", "basic.test/team/signed:v1"]);
    }

    fn export(&self, arguments: &[&str]) -> String {
        self.near.run(&[&["export"], arguments].concat())
    }
}

fn far() -> Site {
    let nowhere = || "http://127.0.0.1:9".to_owned();
    Site::start(&[(NAME, nowhere()), ("basic.test", nowhere()), ("other.test", nowhere())], true)
}

#[test]
fn kit_is_read_by_every_tool_that_reads_layouts() {
    let world = World::new();
    let (near, copies) = (&world.near, format!("localhost:{}/copies", world.basic.port));
    let (kit, archive, one, bare) = (near.path("kit"), near.path("kit.tar"), near.path("one"), near.path("bare"));
    world.export(&["--all", "--output", &kit]);
    world.export(&["--all", "--output", &archive]);
    world.export(&["team/app:v1", "--no-referrers", "--output", &one]);
    world.export(&["team/app:v1", "--no-referrers", "--output", &format!("{one}.tar")]);
    world.export(&["--repository", "basic.test/samples/config", "--output", &bare]);
    let name = |repository: &str| format!("{NAME}/{repository}");
    let (os, app) = (near.digest("base/os:v1"), near.digest("team/app:v1"));
    let digest_there = |repository: &str| {
        near.tool("crane", &["digest", "--insecure", &format!("{copies}/{repository}")]).trim().to_owned()
    };

    let skopeo = |source: &str, target: &str, all: &[&str]| {
        let head = ["--insecure-policy", "copy", "--dest-tls-verify=false", "--preserve-digests"];
        near.tool("skopeo", &[&head, all, &[source, target]].concat());
    };
    skopeo(&format!("oci:{kit}:{}", name("base/os:v1")), &format!("docker://{copies}/skopeo:v1"), &["--all"]);
    assert_eq!(digest_there("skopeo:v1"), os, "skopeo oci:");
    skopeo(&format!("oci-archive:{archive}:{}", name("team/app:v1")), &format!("docker://{copies}/skopeo:v2"), &[]);
    assert_eq!(digest_there("skopeo:v2"), app, "skopeo oci-archive:");

    for (number, layout) in [&kit, &archive].into_iter().enumerate() {
        let target = format!("{copies}/oras:v{number}");
        near.tool("oras", &["cp", "--from-oci-layout-path", layout, &name("base/os:v1"), &target]);
        assert_eq!(digest_there(&format!("oras:v{number}")), os, "oras cp --from-oci-layout-path");
    }
    near.tool("oras", &["cp", "-r", "--from-oci-layout", &format!("{bare}:v1"), &format!("{copies}/bare:v1")]);
    assert_eq!(digest_there("bare:v1"), near.digest("basic.test/samples/config:v1"), "oras cp --from-oci-layout");
    let discovered = near.tool("oras", &["discover", "--oci-layout", &format!("{bare}:v1"), "--format", "json"]);
    assert!(discovered.contains("application/vnd.example.sbom"), "{discovered}");
    near.tool("oras", &["restore", "--input", &bare, &format!("{copies}/restored")]);
    assert_eq!(digest_there("restored:v1"), near.digest("basic.test/samples/config:v1"), "oras restore");
    let restored = near.tool("oras", &["discover", &format!("{copies}/restored:v1"), "--format", "json"]);
    assert!(restored.contains("application/vnd.example.sbom"), "{restored}");
    let tags = near.tool("oras", &["repo", "tags", "--oci-layout", &bare]);
    assert!(tags.lines().any(|tag| tag == "v1"), "{tags}");

    near.tool("crane", &["push", "--insecure", &one, &format!("{copies}/crane:v1")]);
    assert_eq!(digest_there("crane:v1"), app, "crane push");
    near.tool("regctl", &["registry", "set", "--tls", "disabled", copies.split('/').next().unwrap()]);
    near.tool("regctl", &["image", "import", &format!("{copies}/regctl:v1"), &format!("{one}.tar")]);
    near.tool("regctl", &["image", "copy", &format!("ocidir://{bare}:v1"), &format!("{copies}/regctl:v2")]);
    assert_eq!(
        (digest_there("regctl:v1"), digest_there("regctl:v2")),
        (app.clone(), digest_there("bare:v1")),
        "regctl"
    );

    let loaded = near.podman(&["load", "--quiet", "--input", &format!("{one}.tar")]);
    assert!(loaded.contains(&name("team/app:v1")), "podman load: {loaded}");
    near.podman(&["pull", "--quiet", &format!("oci-archive:{archive}:{}", name("base/os:v1"))]);
    let home = near.folder.sub("containerd");
    let containerd = Containerd::start(&home);
    containerd.ctr(&home, &["images", "import", "--no-unpack", "--all-platforms", &archive]);
    let listed = String::from_utf8(containerd.ctr(&home, &["images", "ls"])).unwrap();
    for (reference, digest) in
        [("base/os:v1", &os), ("team/app:v1", &app), ("team/docker:v1", &near.digest("team/docker:v1"))]
    {
        let line = listed.lines().find(|line| line.starts_with(&format!("{} ", name(reference))));
        assert!(line.is_some_and(|line| line.contains(digest.as_str())), "ctr import: {reference}: {listed}");
    }
    let mut umoci = command(&program("umoci"), &near.folder.sub("umoci"));
    umoci.args(["ls", "--layout", &kit]);
    let listed = String::from_utf8(run(umoci, &near.folder.sub("work")).ok()).unwrap();
    assert!(listed.lines().any(|line| line == name("base/os:v1")), "{listed}");
}

#[test]
fn kit_of_other_tools_comes_in() {
    let world = World::new();
    let (near, there, from) = (&world.near, far(), format!("localhost:{}", world.basic.port));
    let (source, digest) = (format!("docker://{from}/team/signed:v1"), near.digest("basic.test/team/signed:v1"));
    let comes = |input: &str, arguments: &[&str], reference: &str| {
        there.run(&[&["import", input], arguments].concat());
        assert_eq!(there.digest(reference), digest, "{input}");
        let target = there.path("pulled");
        let _ = fs::remove_dir_all(&target);
        let source = format!("docker://{}/{reference}", there.larder.address());
        there.tool(
            "skopeo",
            &["--insecure-policy", "copy", "--src-tls-verify=false", &source, &format!("dir:{target}")],
        );
    };
    let skopeo =
        |target: &str| near.tool("skopeo", &["--insecure-policy", "copy", "--src-tls-verify=false", &source, target]);
    let path = |name: &str| near.path(name);
    skopeo(&format!("oci:{}:v1", path("oci")));
    comes(&path("oci"), &["--as", &format!("{NAME}/from/oci")], "from/oci:v1");
    skopeo(&format!("oci-archive:{}:far.test/x/archive:v1", path("archive.tar")));
    comes(&path("archive.tar"), &["--as", NAME], "x/archive:v1");
    fs::create_dir(path("sync")).unwrap();
    near.tool(
        "skopeo",
        &[
            "--insecure-policy",
            "sync",
            "--scoped",
            "--src",
            "docker",
            "--dest",
            "dir",
            "--src-tls-verify=false",
            &format!("{from}/team/signed"),
            &path("sync"),
        ],
    );
    comes(&path("sync"), &["--as", NAME], "team/signed:v1");
    near.tool("oras", &["backup", "--output", &path("backup"), &format!("{from}/team/signed:v1")]);
    comes(&path("backup"), &["--as", &format!("{NAME}/from/oras")], "from/oras:v1");
    near.tool("oras", &["backup", "--output", &path("backup.tar"), &format!("{from}/team/signed:v1")]);
    comes(&path("backup.tar"), &["--as", &format!("{NAME}/from/orastar")], "from/orastar:v1");
    near.tool(
        "crane",
        &["pull", "--insecure", "--format=oci", "--annotate-ref", &format!("{from}/team/signed:v1"), &path("crane")],
    );
    comes(&path("crane"), &["--as", &format!("{NAME}/from/crane")], "from/crane:v1");
    near.tool("regctl", &["registry", "set", "--tls", "disabled", &from]);
    near.tool("regctl", &["image", "export", &format!("{from}/team/signed:v1"), &path("regctl.tar")]);
    comes(&path("regctl.tar"), &["--as", &format!("{NAME}/from/regctl")], "from/regctl:v1");
    near.podman(&["pull", "--quiet", "--tls-verify=false", &format!("{from}/team/signed:v1")]);
    near.podman(&[
        "save",
        "--quiet",
        "--format",
        "oci-archive",
        "--output",
        &path("podman.tar"),
        &format!("{from}/team/signed:v1"),
    ]);
    // podman writes a manifest of its own.
    there.run(&["import", &path("podman.tar"), "--as", &format!("{NAME}/from/podman")]);
    assert!(there.digest("from/podman:v1").starts_with("sha256:"));
    let home = near.folder.sub("containerd");
    let containerd = Containerd::start(&home);
    let name = format!("{from}/team/signed:v1");
    containerd.ctr(&home, &["images", "pull", "--plain-http", "--snapshotter", "native", &name]);
    containerd.ctr(&home, &["images", "export", &path("ctr.tar"), &name]);
    comes(&path("ctr.tar"), &["--as", &format!("{NAME}/from/ctr")], "from/ctr:v1");
    // The folder of the registry itself.
    comes(&storage(&world.basic).display().to_string(), &["--as", "basic.test"], "basic.test/team/signed:v1");
    // What is no image layout says what makes one of it.
    near.podman(&[
        "save",
        "--quiet",
        "--format",
        "docker-archive",
        "--output",
        &path("docker.tar"),
        &format!("{from}/team/signed:v1"),
    ]);
    let refused = run(there.command(&["import", &path("docker.tar")]), &there.folder.sub("work"));
    assert!(!refused.status.success() && refused.to_string().contains("skopeo copy docker-archive:"), "{refused}");
}

/// Where the registry keeps its content.
fn storage(server: &Server) -> PathBuf {
    server.home().join("storage")
}

#[test]
fn kit_goes_the_whole_way_and_back() {
    let world = World::new();
    let (near, there) = (&world.near, far());
    let disk = near.folder.sub("disk");
    let kit = disk.join("kit.tar").display().to_string();
    let printed = world.export(&["--all", "--split", "4MiB", "--output", &kit]);
    let hash = printed.lines().find_map(|line| line.strip_prefix("index.json ")).unwrap();
    let mut sums = Command::new("sha256sum");
    sums.args(["-c", "--quiet", "SHA256SUMS"]);
    run(sums, &disk).ok();
    let mut volumes: Vec<PathBuf> = fs::read_dir(&disk).unwrap().map(|entry| entry.unwrap().path()).collect();
    volumes.retain(|path| path.extension().is_some_and(|kind| kind == "tar"));
    volumes.sort();
    assert!(volumes.len() > 1, "{volumes:?}");
    for volume in volumes.iter().rev() {
        there.run(&["import", volume.to_str().unwrap(), "--expect", hash]);
    }
    let references = ["basic.test/samples/config:v1", "other.test/samples/more:v1", "basic.test/team/signed:v1"];
    for reference in WHOLE.into_iter().chain(references) {
        assert_eq!(there.digest(reference), near.digest(reference), "{reference}");
    }
    pulled_by_all(&there, near);

    // What it has and was asked for in vain goes back; the next disk brings that and nothing else.
    image(&world.simulator, "team/next", Some("v1"), 77, (OCI_MANIFEST, CONFIG));
    let asked = run(
        {
            let mut command = command(&program("crane"), &there.folder.sub("crane"));
            command.args(["digest", "--insecure", &format!("{}/team/next:v1", there.larder.address())]);
            command
        },
        &there.folder.sub("work"),
    );
    assert!(!asked.status.success());
    let (inventory, delta) = (there.path("inventory"), near.path("delta.tar"));
    there.run(&["inventory", "--output", &inventory]);
    world.export(&["--all", "--missing", &inventory, "--have", &inventory, "--output", &delta]);
    there.run(&["import", &delta]);
    assert_eq!(there.digest("team/next:v1"), near.digest("team/next:v1"));
    let bytes = |path: &str| fs::metadata(path).unwrap().len();
    assert!(bytes(&delta) < 7_000_000, "{}", bytes(&delta));
    there.run(&["inventory", "--output", &inventory]);
    let plan: Value =
        serde_json::from_str(&near.run(&["export", "--all", "--have", &inventory, "--dry-run", "--json"])).unwrap();
    assert_eq!(plan["absent_count"], 0, "{plan}");
}

/// The clients of a site that has no way out.
fn pulled_by_all(there: &Site, near: &Site) {
    let host = format!("localhost:{}", there.larder.port());
    there.tool("oras", &["pull", "--output", "pulled", &format!("{host}/basic.test/samples/config:v1")]);
    assert_eq!(fs::read(there.folder.sub("work").join("pulled/hello.txt")).unwrap(), b"hello\n");
    there.tool("oras", &["pull", "--output", "tiny", &format!("{host}/team/tiny:v1")]);
    assert_eq!(fs::read_dir(there.folder.sub("work").join("tiny")).unwrap().count(), 5000);
    let found = there.tool("oras", &["discover", "--format", "json", &format!("{host}/other.test/samples/more:v1")]);
    assert!(found.contains("application/vnd.example.sbom"), "{found}");
    there.tool("oras", &["pull", "--output", "long", &format!("{host}/team/long:v1")]);
    there.tool("helm", &["pull", &format!("oci://{host}/charts/mychart"), "--version", ">=0.0.1", "--plain-http"]);
    let target = there.path("skopeo-os");
    there.tool(
        "skopeo",
        &[
            "--insecure-policy",
            "copy",
            "--all",
            "--src-tls-verify=false",
            &format!("docker://{host}/base/os:v1"),
            &format!("dir:{target}"),
        ],
    );
    there.podman(&["pull", "--quiet", "--tls-verify=false", &format!("{host}/team/docker:v1")]);
    let home = there.folder.sub("containerd");
    let containerd = Containerd::start(&home);
    containerd
        .ctr(&home, &["images", "pull", "--plain-http", "--snapshotter", "native", &format!("{host}/team/app:v1")]);
    there.tool(
        "crane",
        &["pull", "--insecure", "--format=oci", &format!("{host}/base/os:nested"), &there.path("crane-os")],
    );
    let key = near.folder.sub("work").join("cosign.pub").display().to_string();
    let digest = there.digest("basic.test/team/signed:v1");
    let reference = format!("{host}/basic.test/team/signed@{digest}");
    there.tool("cosign", &["verify", "--key", &key, "--insecure-ignore-tlog", "--allow-http-registry", &reference]);
}
