//! Tags: served for their time, then asked about once for everybody, and stale rather than not at all.

#![allow(missing_docs, unreachable_pub, reason = "a test target")]
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use crate::harness;

mod outage;
mod restart;
mod tags;
mod withdrawn;

use bytes::Bytes;
use harness::simulator::{Artifact, Options};
use harness::{Acr, Answer, Larder, Setup};
use std::time::Duration;

pub const NEVER: Duration = Duration::ZERO;
pub const LONG: Duration = Duration::from_secs(3600);
pub const TAG: &str = "/v2/app/manifests/v1";

/// A registry with `app:v1`, and larder in front of it that has pulled it.
pub struct Scene {
    pub acr: Acr,
    pub larder: Larder,
    pub artifact: Artifact,
}

impl Scene {
    /// Tags are good for `ttl`.
    pub async fn of(ttl: Duration) -> Self {
        Self::with(ttl, |setup| setup).await
    }

    pub async fn with(ttl: Duration, change: impl FnOnce(Setup) -> Setup) -> Self {
        let acr = Acr::start(Options::public()).await;
        let artifact = push(&acr, "v1", "one");
        // Patient, so that a busy machine is not taken for a slow upstream.
        let setup = Setup::of(&acr).tag_ttl(ttl).upstream(|upstream| upstream.freshness.revalidate_wait = LONG);
        let larder = change(setup).start().await;
        let scene = Self { acr, larder, artifact };
        let answer = scene.tag().await;
        assert_eq!(digest(&answer), scene.artifact.digest);
        scene.acr.clear_log();
        scene
    }

    pub async fn tag(&self) -> Answer {
        self.larder.get(TAG).await
    }

    /// Requests for manifests that larder has sent since.
    pub fn asked(&self) -> (usize, usize) {
        (self.acr.manifest_requests("HEAD"), self.acr.manifest_requests("GET"))
    }
}

pub fn push(acr: &Acr, tag: &str, text: &str) -> Artifact {
    acr.push_artifact("app", tag, &[("file", "text/plain", Bytes::from(text.to_owned()))])
}

/// The digest of a manifest that was answered.
pub fn digest(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.header("docker-content-digest").unwrap().to_owned()
}

/// A stored answer that stands in for upstream's, and says so.
pub fn is_stale(answer: &Answer) -> bool {
    let stale = answer.cache_status().ends_with("detail=stale");
    assert_eq!(stale, answer.header("warning").is_some_and(|warning| warning.starts_with("299 ")), "{answer:?}");
    stale
}
