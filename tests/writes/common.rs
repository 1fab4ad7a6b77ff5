//! Pushing as clients push.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Call, Larder, Setup};
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
}

/// Settings with a login that may push, and a rule that lets everybody.
pub fn pushing(acr: &Acr) -> Setup {
    pushing_in(Setup::of(acr))
}

pub fn pushing_in(setup: Setup) -> Setup {
    setup.password("ci", "secret").with(allow_everything)
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
        networks: None,
        repositories: vec![RepositoryPattern::new("**")],
        allow: vec![Right::Push, Right::Delete],
    }];
}
