//! The image under podman: read-only, without a capability, as a user without a name.

use std::fs;

use super::{VERSION, output, packages};
use crate::images;
use crate::oras::{Oras, Version};
use crate::process::{Folder, Outcome, Server, command, free_port, program, run};
use crate::upstream::open_registry;

struct Podman {
    home: std::path::PathBuf,
}

impl Podman {
    fn new(folder: &Folder) -> Self {
        let home = folder.sub("podman");
        fs::write(home.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        fs::write(home.join("storage.conf"), images::storage(&home)).unwrap();
        // Events and logs go to files: there is no journal in a build's container.
        fs::write(
            home.join("containers.conf"),
            "[engine]\nevents_logger = \"file\"\n[containers]\nlog_driver = \"k8s-file\"\n",
        )
        .unwrap();
        Self { home }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = command(&program("podman"), &self.home);
        command.env_remove("DOCKER_CONFIG").env("XDG_RUNTIME_DIR", &self.home);
        command.env("CONTAINERS_STORAGE_CONF", self.home.join("storage.conf"));
        command.env("CONTAINERS_CONF", self.home.join("containers.conf"));
        // crun refuses the mixture of both kinds of cgroups that some build machines have.
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", program("runc").to_str().unwrap()]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        run(self.command(arguments), &self.home)
    }

    fn ok(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.run(arguments).ok()).unwrap().trim().to_owned()
    }
}

/// Removes the container, whatever became of the test.
struct Container<'a>(&'a Podman, String);

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.0.run(&["rm", "--force", "--volumes", "--time", "0", &self.1]);
    }
}

const HARD: [&str; 9] = [
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=host",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
    "--pull=never",
    "--rm",
];

#[test]
fn package_image_runs_read_only_and_passes_through_itself() {
    let (folder, layout) = (Folder::new(), packages().join("image"));
    let (podman, registry) = (Podman::new(&folder), open_registry(&folder));
    let oras = Oras::new(Version::V1_3_3, &folder);
    let files = folder.sub("files");
    let (port, admin) = (free_port(), free_port());
    let policy = podman.home.join("policy.json");
    let id = podman.ok(&[
        "pull",
        "--quiet",
        "--signature-policy",
        policy.to_str().unwrap(),
        &format!("oci:{}:{VERSION}", layout.display()),
    ]);

    // Without a word on who may come it does not start, and names the variable to set.
    let refused = podman.run(&[&["run"], &HARD[..], &[&id, "serve", "--upstream", "registry.test"]].concat());
    let said = refused.to_string();
    assert!(!refused.status.success() && said.contains("LARDER_SERVER__LISTEN"), "{said}");
    assert!(said.contains("LARDER_ACCESS__OPEN_TO='"), "{said}");

    let name = format!("larder-{port}");
    let container = Container(&podman, name.clone());
    let settings = [
        format!("--env=LARDER_SERVER__LISTEN=[\"127.0.0.1:{port}\"]"),
        format!("--env=LARDER_ADMIN__LISTEN=\"127.0.0.1:{admin}\""),
        "--env=LARDER_ACCESS__OPEN_TO=[\"127.0.0.0/8\"]".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let upstream = format!("http://127.0.0.1:{}", registry.port);
    let serve = [&*id, "serve", "--upstream", &upstream, "--allow", "push"];
    let command = podman.command(&[&["run", "--name", &name], &HARD[..], &settings, &serve].concat());
    let server = Server::start("container", command, port, &podman.home);

    fs::write(files.join("app.yaml"), "answer: 42\n").unwrap();
    oras.ok(&["push", "--plain-http", &format!("127.0.0.1:{}/samples/config:v1", registry.port), "app.yaml"], &files);
    let larder = format!("localhost:{port}");
    for _ in 0..2 {
        oras.ok(&["pull", "--output", "pulled", &format!("{larder}/samples/config:v1")], &files);
        assert_eq!(fs::read_to_string(files.join("pulled/app.yaml")).unwrap(), "answer: 42\n");
    }
    let status = podman.ok(&["exec", &name, "/larder", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["version"], &status["upstreams"][0]["up"]), (&VERSION.into(), &true.into()), "{status}");

    let source = format!("{}:{VERSION}", layout.display());
    let reference = format!("{larder}/tools/larder:{VERSION}");
    oras.ok(&["copy", "--from-oci-layout", &source, &reference], &files);
    let back = files.join("back");
    oras.ok(&["copy", "--to-oci-layout", &reference, &format!("{}:{VERSION}", back.display())], &files);
    let blobs = super::every_file(&layout.join("blobs"));
    assert_eq!(blobs.len(), 3, "manifest, configuration and one layer");
    for blob in blobs {
        let name = blob.strip_prefix(&layout).unwrap();
        assert!(fs::read(&blob).unwrap() == fs::read(back.join(name)).unwrap(), "{}", name.display());
    }
    podman.ok(&["stop", "--time", "40", &name]);
    drop((server, container));

    let inspected = output("skopeo", &["inspect", "--config", &format!("oci:{source}")], &folder);
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["config"]["User"], "65532:65532");
    assert_eq!(inspected["config"]["Labels"]["org.opencontainers.image.version"], VERSION);
}
