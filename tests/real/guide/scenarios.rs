//! What the guide does with its lines: charts, configuration, builds, signatures; and its troubles.

use std::fs;

use super::{APP, CHART_TYPE, CONFIG, CONFIG_JSON, Guide, MYACR, README, Way};
use crate::backend::Backend;
use crate::larder::Larder;
use crate::process::{Folder, wait_for};

impl Guide {
    pub(super) fn scenario_helm(&self) {
        self.helm(&["create", "mychart"]);
        self.helm(&["package", "mychart"]);
        let chart = fs::read(self.here().join("mychart-0.1.0.tgz")).unwrap();
        // As a file of an artifact.
        let stored = self.at("helm/files:0.1.0");
        self.oras(&["push", &stored, &format!("mychart-0.1.0.tgz:{CHART_TYPE}")]);
        let folder = self.folder.sub("charts");
        self.oras.ok(&["pull", &stored], &folder);
        assert!(fs::read(folder.join("mychart-0.1.0.tgz")).unwrap() == chart);
        let installed = self.helm(&["template", "release", folder.join("mychart-0.1.0.tgz").to_str().unwrap()]);
        assert!(installed.contains("kind: Deployment"), "{installed}");
        // As Helm itself stores it.
        let registry = format!("oci://{}/helm", self.host());
        let plain: &[&str] = if matches!(self.way, Way::Address) { &["--plain-http"] } else { &[] };
        self.helm(&[&["push", "mychart-0.1.0.tgz", &registry], plain].concat());
        let chart_at = format!("{registry}/mychart");
        let into = [&["--destination", folder.to_str().unwrap()], plain].concat();
        fs::remove_file(folder.join("mychart-0.1.0.tgz")).unwrap();
        self.helm(&[&["pull", &*chart_at, "--version", "0.1.0"], &into[..]].concat());
        assert!(fs::read(folder.join("mychart-0.1.0.tgz")).unwrap() == chart);
        let installed = self.helm(&[&["template", "release", &*chart_at, "--version", "0.1.0"], plain].concat());
        assert!(installed.contains("kind: Deployment"), "{installed}");
    }

    pub(super) fn scenario_configuration(&self) {
        let push = |at: &str, settings: &[u8]| {
            self.write(&[("appsettings.json", settings), ("database.config", b"<configuration/>\n")]);
            let files = ["appsettings.json:application/json", "database.config:application/xml"];
            [&["push", at][..], &files].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let pulled = || {
            let target = self.folder.sub("app/config");
            self.oras.ok(&["pull", &self.at("configs/app:prod"), "--output", target.to_str().unwrap()], &self.here());
            assert_eq!(fs::read(target.join("database.config")).unwrap(), b"<configuration/>\n");
            fs::read(target.join("appsettings.json")).unwrap()
        };
        for settings in [&b"{\"level\": 1}\n"[..], b"{\"level\": 2}\n"] {
            let line = push(&self.at("configs/app:prod"), settings);
            self.oras(&line.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(pulled(), settings, "a push through larder is seen at once");
        }
        let line = push(&self.myacr.at("configs/app:prod"), b"{\"level\": 3}\n");
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        self.myacr.oras(&self.oras, &self.here(), &line);
        wait_for("a push that larder was not told of", || pulled() == b"{\"level\": 3}\n");
    }

    pub(super) fn scenario_build_artifacts(&self) {
        let big = |seed: u64| crate::simulator::samples::incompressible(seed, 2 << 20);
        let (exe, dll) = (big(1), big(2));
        let files: [(&str, &[u8]); 3] = [("app.exe", &exe), ("app.dll", &dll), ("README.md", README)];
        self.write(&files);
        let build = self.at("builds/myapp:1.2.3");
        self.oras(&["push", &build, "app.exe", "app.dll", "README.md"]);
        let asked = || {
            let of = |op: &str| self.larder.metric("larder_upstream_requests_total", &format!("op=\"{op}\""));
            of("manifest_head") + of("manifest_get") + self.larder.blobs_fetched()
        };
        let before = asked();
        // Older than its TTL, and good all the same: its pattern says that it never moves.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        self.oras(&["pull", &build, "--output", "./deploy/"]);
        for (name, bytes) in files {
            assert!(fs::read(self.here().join("deploy").join(name)).unwrap() == bytes, "{name}");
        }
        assert_eq!(asked(), before, "upstream is not asked for a build");
    }

    pub(super) fn content_trust(&self) {
        let digest = self.oras.resolve(&self.at(APP), &self.here());
        let signed = self.at(&format!("samples/myapp@{digest}"));
        self.tool("cosign", &["generate-key-pair"]);
        let verify = ["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", &signed];
        // Not signed yet, and that is not remembered.
        assert!(!self.attempt("cosign", &verify).status.success());
        let offline = ["--tlog-upload=false", "--use-signing-config=false", "--yes"];
        self.tool("cosign", &[&["sign", "--key", "cosign.key"], &offline[..], &[&signed]].concat());
        assert!(self.tool("cosign", &verify).contains(&digest));
    }

    pub(super) fn trouble_push_unauthorised(&self) {
        if matches!(self.way, Way::OwnName(_)) {
            let (user, password) = Backend::READER;
            self.logs_in(MYACR, user, password);
            let said = self.fails(&["push", &self.at(CONFIG), "config.json"]).to_string().to_lowercase();
            assert!(["denied", "unauthorized"].iter().any(|word| said.contains(word)), "{said}");
            self.pulls(CONFIG, &[("config.json", CONFIG_JSON)]);
            self.logs_in(MYACR, Backend::USER, Backend::PASSWORD);
            return;
        }
        // larder's own word …
        let folder = Folder::new();
        let config = self.folder.sub("larder").join("larder.toml");
        let closed = Larder::start(&folder, &["--config".to_owned(), config.to_str().unwrap().to_owned()]);
        let said = self.fails(&["push", &format!("{}/{CONFIG}", closed.host()), "config.json"]).to_string();
        assert!(said.contains("--allow push"), "{said}");
        // … and the registry's, of a login that may pull and not push.
        if self.myacr.is_acr() {
            let (folder, registry) = (Folder::new(), Backend::read_only("samples/config"));
            let arguments =
                ["--upstream", &registry.url(), "--login", "anonymous", "--allow", "push"].map(str::to_owned);
            let open = Larder::start(&folder, &arguments);
            let said = self.fails(&["push", &format!("{}/{CONFIG}", open.host()), "config.json"]).to_string();
            assert!(said.contains("denied") && said.contains("may push to it"), "{said}");
        }
    }

    pub(super) fn trouble_artifact_not_found(&self) {
        let said = self.fails(&["pull", &self.at("samples/config:nonesuch")]).to_string();
        assert!(said.contains("not found"), "{said}");
        let (status, body) = self.http("GET", "/v2/samples/config/manifests/nonesuch");
        assert!(status == 404 && body.contains("MANIFEST_UNKNOWN"), "{status} {body}");
        self.oras(&["push", &self.at("samples/config:nonesuch"), "readme.txt"]);
        self.pulls("samples/config:nonesuch", &[("readme.txt", README)]);
    }
}
