//! Every read command of the guide, in order: cold, warm, and with the upstream stopped.

use std::fs;
use std::path::Path;

use crate::content::{File, Sample, digest_of, samples};
use crate::larder::Larder;
use crate::oras::{Oras, Version};
use crate::process::{Folder, Server};
use crate::upstream::{ALIAS, Kind, Upstream, open_registry};

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

fn journey(kind: Kind, version: Version) {
    let folder = Folder::new();
    let mut upstream = Upstream::start(kind, &folder);
    let larder = Larder::start(&folder, &upstream.arguments);
    let traveller = Traveller { oras: Oras::new(version, &folder), copies: open_registry(&folder), larder, folder };

    traveller.logs_in();
    traveller.sees_everything("cold", &upstream);
    traveller.discovers("cold", &upstream.manifests["referrer"]);
    let fetched = traveller.larder.blobs_fetched();
    assert!(fetched > 0, "a cold pull asks upstream for blobs");
    if kind == Kind::Tokens {
        traveller.pulls("by-alias", &format!("{}/{ALIAS}", traveller.larder.host()), &samples()[0]);
    }
    traveller.sees_everything("warm", &upstream);
    assert_eq!(traveller.larder.blobs_fetched(), fetched, "nothing is fetched twice");
    traveller.discovers("warm", &upstream.manifests["referrer"]);
    upstream.stop();
    traveller.sees_everything("stopped", &upstream);
    if kind == Kind::Simulator || version == Version::V1_1_0 {
        traveller.discovers("stopped", &upstream.manifests["referrer"]);
    } else {
        traveller.is_told_what_nobody_knows();
    }
    assert_eq!(upstream.violations(), Vec::<String>::new(), "what ACR would have refused");
    assert_eq!(traveller.larder.metric("larder_digest_failures_total", ""), 0);
}

/// One person with one client in front of one larder.
struct Traveller {
    oras: Oras,
    larder: Larder,
    /// Where copies go.
    copies: Server,
    folder: Folder,
}

impl Traveller {
    /// In open mode everybody is let in, whatever they say.
    fn logs_in(&self) {
        let login = ["login", &self.larder.host(), "--username", "anybody", "--password", "anything"];
        let outcome = self.oras.run(&login, &self.folder.sub("login"));
        assert!(outcome.status.success(), "{outcome}");
    }

    fn sees_everything(&self, when: &str, upstream: &Upstream) {
        println!("{when}:");
        for sample in samples() {
            let manifest = &upstream.manifests[&sample.reference()];
            self.resolves(when, &sample, manifest);
            self.fetches_the_manifest(when, &sample, manifest);
            self.pulls(when, &self.larder.host(), &sample);
            self.fetches_blobs(when, &sample);
            self.lists_tags(when, &sample);
            self.copies(when, &sample, manifest);
        }
        self.lists_repositories(when);
    }

    fn reference(&self, sample: &Sample) -> String {
        format!("{}/{}", self.larder.host(), sample.reference())
    }

    fn resolves(&self, when: &str, sample: &Sample, manifest: &[u8]) {
        let seen = self.oras.resolve(&self.reference(sample), &self.folder.sub(when));
        assert_eq!(seen, digest_of(manifest), "{when}: {}", sample.reference());
    }

    fn fetches_the_manifest(&self, when: &str, sample: &Sample, manifest: &[u8]) {
        let folder = self.folder.sub(when);
        let by_tag = self.oras.bytes(&["manifest", "fetch", &self.reference(sample)], &folder);
        assert!(by_tag == manifest, "{when}: other bytes: {}", String::from_utf8_lossy(&by_tag));
        let by_digest = format!("{}/{}@{}", self.larder.host(), sample.repository, digest_of(manifest));
        let descriptor = self.oras.ok(&["manifest", "fetch", "--descriptor", &by_digest], &folder);
        assert!(descriptor.contains(&digest_of(manifest)), "{when}: {descriptor}");
    }

    fn pulls(&self, when: &str, base: &str, sample: &Sample) {
        let reference = format!("{base}/{}", sample.reference());
        let here = self.folder.sub(&format!("{when}/here/{}", sample.repository));
        self.oras.ok(&["pull", &reference], &here);
        let there = self.folder.sub(&format!("{when}/there/{}", sample.repository));
        self.oras.ok(&["pull", &reference, "--output", there.to_str().unwrap()], &here);
        for folder in [here, there] {
            sample.files.iter().for_each(|file| same(&folder.join(file.name), file));
        }
    }

    fn fetches_blobs(&self, when: &str, sample: &Sample) {
        let folder = self.folder.sub(&format!("{when}/blobs"));
        for file in &sample.files {
            let reference = format!("{}/{}@{}", self.larder.host(), sample.repository, digest_of(&file.bytes));
            self.oras.ok(&["blob", "fetch", "--output", file.name, &reference], &folder);
            same(&folder.join(file.name), file);
            let descriptor = self.oras.ok(&["blob", "fetch", "--descriptor", &reference], &folder);
            assert!(descriptor.contains(&file.bytes.len().to_string()), "{when}: {descriptor}");
        }
    }

    fn lists_tags(&self, when: &str, sample: &Sample) {
        let repository = format!("{}/{}", self.larder.host(), sample.repository);
        let tags = self.oras.ok(&["repo", "tags", &repository], &self.folder.sub(when));
        assert!(tags.lines().any(|tag| tag == sample.tag), "{when}: {tags}");
    }

    fn lists_repositories(&self, when: &str) {
        let listed = self.oras.ok(&["repo", "ls", &self.larder.host()], &self.folder.sub(when));
        for sample in samples() {
            assert!(listed.lines().any(|name| name == sample.repository), "{when}: {listed}");
        }
    }

    fn discovers(&self, when: &str, referrer: &[u8]) {
        let reference = format!("{}/samples/config:v1", self.larder.host());
        let found = String::from_utf8(self.oras.discover(&reference, &self.folder.sub(when)).ok()).unwrap();
        assert!(found.contains(&digest_of(referrer)), "{when}: {found}");
    }

    /// ORAS 1.3 goes on to the referrers of the referrers, in a tag that upstream did not have: with it stopped, that is no longer known,
    /// and is not made up.
    fn is_told_what_nobody_knows(&self) {
        let reference = format!("{}/samples/config:v1", self.larder.host());
        let outcome = self.oras.discover(&reference, &self.folder.sub("stopped"));
        assert!(
            !outcome.status.success() && outcome.to_string().contains("cannot fetch manifest sha256-"),
            "{outcome}"
        );
    }

    /// From larder into another registry, which has to end up with the same bytes under the same digest.
    fn copies(&self, when: &str, sample: &Sample, manifest: &[u8]) {
        let target = format!("localhost:{}/{when}/{}", self.copies.port, sample.reference());
        let folder = self.folder.sub(when);
        self.oras.ok(&["cp", &self.reference(sample), &target], &folder);
        assert_eq!(self.oras.resolve(&target, &folder), digest_of(manifest), "{when}: {target}");
        let pulled = self.folder.sub(&format!("{when}/copied/{}", sample.repository));
        self.oras.ok(&["pull", &target], &pulled);
        sample.files.iter().for_each(|file| same(&pulled.join(file.name), file));
    }
}

fn same(path: &Path, file: &File) {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(bytes == file.bytes, "{}: other bytes", path.display());
}
