//! Pushing as clients push.

use crate::harness::simulator::{Options, samples};
use crate::harness::{Acr, Answer, Call, Larder, Setup};
use bytes::Bytes;
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;

pub const MIB: usize = 1 << 20;

/// A registry with one user, who may do everything, and larder in front, which lets everybody push.
pub struct Scene {
    pub acr: Acr,
    pub larder: Larder,
}

impl Scene {
    pub async fn new() -> Self {
        Self::with(|setup| setup).await
    }

    pub async fn with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let acr = Acr::start(Options::private("ci", "secret")).await;
        let larder = change(pushing(&acr)).start().await;
        Self { acr, larder }
    }

    pub fn call(&self, method: &str, target: &str) -> Call {
        self.larder.call(method, target)
    }

    /// `POST`: a session's `Location`.
    pub async fn begin(&self, repository: &str) -> String {
        begin(&self.larder, repository).await
    }

    /// One session, one `PUT` with everything: as ORAS does.
    pub async fn push(&self, repository: &str, content: &Bytes) -> String {
        push(&self.larder, repository, content).await
    }

    /// GETs of blob bodies that upstream has seen.
    pub fn downloads(&self) -> usize {
        self.acr.downloads()
    }
}

/// Settings with a login that may push, and a rule that lets everybody.
pub fn pushing(acr: &Acr) -> Setup {
    pushing_in(Setup::of(acr))
}

pub fn pushing_in(setup: Setup) -> Setup {
    setup.password("ci", "secret").with(allow_everything)
}

pub async fn begin(larder: &Larder, repository: &str) -> String {
    let begun =
        larder.call("POST", &format!("/v2/{repository}/blobs/uploads/")).line("Content-Length", "0").send().await;
    assert_eq!(begun.status, 202, "{begun:?}");
    location(&begun)
}

pub async fn push(larder: &Larder, repository: &str, content: &Bytes) -> String {
    let location = begin(larder, repository).await;
    let digest = crate::harness::sha256(content);
    let put = larder.call("PUT", &ending(&location, &digest)).body(content.clone()).send().await;
    created(&put, repository, &digest);
    digest
}

/// The `Location`, which is a path of larder's own.
pub fn location(answer: &Answer) -> String {
    let location = answer.header("location").expect("a Location").to_owned();
    assert!(location.starts_with('/') && !location.starts_with("//"), "{location} is relative");
    location
}

/// The address of the `PUT`: with `&` where there is a query already, as every client does.
pub fn ending(location: &str, digest: &str) -> String {
    let joint = if location.contains('?') { '&' } else { '?' };
    format!("{location}{joint}digest={digest}")
}

/// Checks a 201.
pub fn created(answer: &Answer, repository: &str, digest: &str) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("docker-content-digest"), Some(digest));
    assert_eq!(answer.header("location"), Some(format!("/v2/{repository}/blobs/{digest}").as_str()));
    assert_eq!(answer.header("content-length"), Some("0"));
}

pub fn content(seed: u64, size: usize) -> Bytes {
    samples::incompressible(seed, size)
}

/// A metric of the first upstream.
pub async fn uploads(larder: &Larder, result: &str) -> u64 {
    let upstream = crate::harness::UPSTREAM;
    larder.metric(&format!("larder_uploads_total{{result=\"{result}\",upstream=\"{upstream}\"}}")).await
}

/// A manifest with one layer, which upstream has already.
pub fn manifest_of(acr: &Acr, repository: &str, text: &str) -> Bytes {
    let config = acr.push_blob(repository, "{}");
    let layer = acr.push_blob(repository, text.to_owned());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",\"config\":{{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\
         \"digest\":\"{config}\",\"size\":2}},\"layers\":[{{\"mediaType\":\"text/plain\",\"digest\":\"{layer}\",\"size\":{}}}]}}",
        text.len()
    )
    .into()
}

/// A rule that lets everybody do everything but restricts no pull.
pub fn allow_everything(settings: &mut larder::config::Settings) {
    settings.access.rules = vec![AccessRule {
        users: None,
        networks: None,
        repositories: vec![RepositoryPattern::new("**")],
        allow: vec![Right::Push, Right::Delete],
    }];
}
