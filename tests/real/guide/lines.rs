//! The guide's lines, one by one: pushing, listing, pulling, copying, deleting.

use std::fs;

use super::{APP, CHART_TYPE, CONFIG, CONFIG_JSON, Guide, MYACR, MYACR2, README, SBOM_TYPE, Way};
use crate::backend::Backend;
use crate::process::wait_for;

impl Guide {
    pub(super) fn login(&self) {
        match self.way {
            Way::Address => {
                self.oras(&["login", &self.larder.host(), "--username", "anybody", "--password", "anything"]);
            }
            Way::OwnName(_) => {
                for name in [MYACR, MYACR2] {
                    self.fails(&["login", name, "--username", Backend::USER, "--password", "wrong"]);
                    self.logs_in(name, Backend::USER, Backend::PASSWORD);
                }
            }
        }
    }

    pub(super) fn push_one_file(&self) {
        self.write(&[("config.json", CONFIG_JSON)]);
        self.oras(&["push", &self.at(CONFIG), "config.json"]);
        assert!(self.myacr.has(CONFIG), "upstream has it");
        self.pulls(CONFIG, &[("config.json", CONFIG_JSON)]);
        assert_eq!(self.larder.blobs_fetched(), 0, "warm from the push on");
    }

    pub(super) fn push_several_typed(&self) {
        self.write(&[("readme.txt", README)]);
        self.oras(&["push", &self.at(APP), "config.json:application/json", "readme.txt:text/plain"]);
        let manifest = self.oras(&["manifest", "fetch", &self.at(APP)]);
        for kind in ["application/json", "text/plain"] {
            assert!(manifest.contains(&format!("\"mediaType\":\"{kind}\"")), "{manifest}");
        }
        assert_eq!(manifest.as_bytes(), self.myacr.manifest(&self.oras, &self.here(), APP), "byte for byte");
    }

    pub(super) fn push_custom_type(&self) {
        self.write(&[("chart.tgz", b"no chart, which is nobody's business")]);
        self.oras(&["push", &self.at("samples/helm-chart:v1"), &format!("chart.tgz:{CHART_TYPE}")]);
        let manifest = self.oras(&["manifest", "fetch", &self.at("samples/helm-chart:v1")]);
        assert!(manifest.contains(CHART_TYPE), "{manifest}");
    }

    pub(super) fn annotations(&self) {
        let noted = "org.opencontainers.image.source=https://example.com/app";
        self.oras(&["push", "--annotation", noted, &self.at("samples/noted:v1"), "config.json"]);
        let manifest = self.oras(&["manifest", "fetch", &self.at("samples/noted:v1")]);
        assert!(manifest.contains("https://example.com/app"), "{manifest}");
        // Asked for before it is there: what was not must not be remembered.
        assert!(!self.found(CONFIG).contains(SBOM_TYPE));
        self.write(&[("sbom.json", b"{\"components\": []}\n")]);
        let subject = self.at(CONFIG);
        self.oras(&["attach", "--artifact-type", SBOM_TYPE, &subject, "sbom.json:application/json"]);
        assert!(self.found(CONFIG).contains(SBOM_TYPE), "at once");
    }

    pub(super) fn found(&self, reference: &str) -> String {
        String::from_utf8(self.oras.discover(&self.at(reference), &self.here()).ok()).unwrap()
    }

    pub(super) fn list_repositories(&self) {
        let listed = self.oras(&["repo", "ls", &self.host()]);
        for name in ["samples/config", "samples/myapp", "samples/helm-chart", "samples/noted"] {
            assert!(listed.lines().any(|line| line == name), "{name}: {listed}");
        }
        if self.myacr.is_acr() {
            let (status, body) = self.http("GET", "/acr/v1/_catalog");
            assert!(status == 200 && body.contains("\"samples/config\""), "{status} {body}");
        }
    }

    pub(super) fn list_tags(&self) {
        self.oras(&["tag", &self.at(CONFIG), "stable", "v2"]);
        let tags = self.oras(&["repo", "tags", &self.at("samples/config")]);
        for tag in ["v1", "v2", "stable"] {
            assert!(tags.lines().any(|line| line == tag), "{tag}: {tags}");
        }
        if self.myacr.is_acr() {
            let (status, body) = self.http("GET", "/acr/v1/samples/config/_tags");
            assert!(status == 200 && body.contains("\"stable\""), "{status} {body}");
        }
    }

    pub(super) fn pull(&self) {
        self.pulls(CONFIG, &[("config.json", CONFIG_JSON)]);
    }

    pub(super) fn pull_to_folder(&self) {
        self.oras(&["pull", &self.at(APP), "--output", "./artifacts/"]);
        let folder = self.here().join("artifacts");
        assert!(fs::read(folder.join("config.json")).unwrap() == CONFIG_JSON);
        assert!(fs::read(folder.join("readme.txt")).unwrap() == README);
    }

    pub(super) fn manifest(&self) {
        let bytes = self.oras.bytes(&["manifest", "fetch", &self.at(CONFIG)], &self.here());
        assert_eq!(bytes, self.myacr.manifest(&self.oras, &self.here(), CONFIG));
        self.write(&[("manifest.json", &bytes)]);
        self.oras(&["manifest", "push", &self.at("samples/config:again"), "manifest.json"]);
        assert_eq!(
            self.oras.resolve(&self.at("samples/config:again"), &self.here()),
            self.oras.resolve(&self.at(CONFIG), &self.here())
        );
        let doomed = self.at("samples/doomed:v1");
        self.oras(&["push", &doomed, "readme.txt"]);
        self.oras(&["manifest", "delete", "--force", &doomed]);
        self.fails(&["manifest", "fetch", &doomed]);
        assert!(!self.myacr.has("samples/doomed:v1"));
    }

    pub(super) fn blob(&self) {
        self.write(&[("loose.bin", b"a blob that no manifest names\n")]);
        self.oras(&["blob", "push", &self.at("samples/config"), "loose.bin"]);
        let digest = crate::content::digest_of(b"a blob that no manifest names\n");
        let loose = self.at(&format!("samples/config@{digest}"));
        self.oras(&["blob", "fetch", "--output", "fetched.bin", &loose]);
        assert_eq!(fs::read(self.here().join("fetched.bin")).unwrap(), b"a blob that no manifest names\n");
        let descriptor = self.oras(&["blob", "fetch", "--descriptor", &loose]);
        assert!(descriptor.contains(&digest), "{descriptor}");
        self.oras(&["blob", "delete", "--force", &loose]);
        self.fails(&["blob", "fetch", "--descriptor", &loose]);
    }

    pub(super) fn discover(&self) {
        let found = self.found(CONFIG);
        assert!(found.contains(SBOM_TYPE), "{found}");
        assert_eq!(self.larder.blobs_fetched(), 0, "all that was pulled so far had been pushed");
    }

    pub(super) fn copy(&self) {
        // From larder into a registry that larder has nothing to do with.
        let elsewhere = crate::upstream::open_registry(&self.folder);
        let target = format!("localhost:{}/{CONFIG}", elsewhere.port);
        self.oras(&["copy", &self.at(CONFIG), &target]);
        let digest = self.oras.resolve(&self.at(CONFIG), &self.here());
        assert_eq!(self.oras.resolve(&target, &self.here()), digest);
        // From one upstream to another, with what is attached.
        let target = format!("{MYACR2}/{CONFIG}");
        self.oras(&["copy", "-r", &self.at(CONFIG), &self.at(&target)]);
        assert!(self.myacr2.has(CONFIG), "it is in the other registry");
        assert_eq!(self.oras.resolve(&self.at(&target), &self.here()), digest);
        assert!(self.found(&target).contains(SBOM_TYPE), "with what is attached");
        self.pulls(&target, &[("config.json", CONFIG_JSON)]);
        // Within one.
        self.oras(&["copy", &self.at(APP), &self.at("samples/copied:v1")]);
        assert!(self.myacr.has("samples/copied:v1"));
        assert_eq!(self.larder.blobs_fetched(), 0);
    }

    pub(super) fn delete_tag(&self) {
        if self.myacr.is_acr() {
            assert_eq!(self.http("DELETE", "/acr/v1/samples/config/_tags/stable").0, 202);
            self.fails(&["manifest", "fetch", &self.at("samples/config:stable")]);
            self.pulls(CONFIG, &[("config.json", CONFIG_JSON)]);
        }
        let one = self.at("samples/noted:v1");
        self.pulls("samples/noted:v1", &[("config.json", CONFIG_JSON)]);
        let digest = self.oras.resolve(&one, &self.here());
        self.oras(&["manifest", "delete", "--force", &self.at(&format!("samples/noted@{digest}"))]);
        self.fails(&["pull", &one]);
        let tags = self.oras.run(&["repo", "tags", &self.at("samples/noted")], &self.here());
        assert!(!tags.status.success() || !String::from_utf8_lossy(&tags.stdout).contains("v1"), "{tags}");
        // Behind larder's back: within the tag's TTL.
        self.pulls("samples/copied:v1", &[("readme.txt", README)]);
        self.myacr.delete(&self.oras, &self.here(), "samples/copied:v1");
        wait_for("a deletion that larder was not told of", || {
            !self.oras.run(&["manifest", "fetch", &self.at("samples/copied:v1")], &self.here()).status.success()
        });
    }

    pub(super) fn delete_repository(&self) {
        if !self.myacr.is_acr() {
            // No API of theirs has it.
            assert_eq!(self.http("DELETE", "/acr/v1/samples/helm-chart").0, 404);
            return;
        }
        self.pulls("samples/helm-chart:v1", &[]);
        assert_eq!(self.http("DELETE", "/acr/v1/samples/helm-chart").0, 202);
        self.fails(&["pull", &self.at("samples/helm-chart:v1")]);
        let listed = self.oras(&["repo", "ls", &self.host()]);
        assert!(!listed.contains("samples/helm-chart"), "{listed}");
    }
}
