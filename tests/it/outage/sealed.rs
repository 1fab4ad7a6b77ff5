//! `sealed`: what is stored is all there is.

use crate::harness::simulator::Options;
use crate::harness::{Acr, Process, Setup, UPSTREAM};
use bytes::Bytes;
use std::time::Duration;

const REPOSITORY: &str = "samples/config";

#[tokio::test]
async fn a_sealed_upstream_is_never_asked_and_its_store_answers_whatever_its_age() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let content = Bytes::from_static(b"{}");
    let artifact = acr.push_artifact(REPOSITORY, "v1", &[("config.json", "application/json", content.clone())]);
    acr.push_artifact(REPOSITORY, "v2", &[("config.json", "application/json", content)]);
    let unlinked = acr.push_blob("samples/other", Bytes::from(vec![7; 100_000]));
    let open = Setup::of(&acr).password("ci", "pw").tag_ttl(Duration::ZERO).start().await;
    for target in ["manifests/v1", "tags/list"] {
        assert_eq!(open.get(&format!("/v2/{REPOSITORY}/{target}")).await.status, 200);
    }
    assert_eq!(open.get(&format!("/v2/{REPOSITORY}/blobs/{}", artifact.layers[0])).await.status, 200);
    assert_eq!(open.get(&format!("/v2/samples/other/blobs/{unlinked}")).await.status, 200);

    let larder = open.stop().await.upstream(|upstream| upstream.sealed = true).start().await;
    acr.clear_log();
    let tag = larder.call("GET", &format!("/v2/{REPOSITORY}/manifests/v1")).line("Cache-Control", "no-cache");
    let tag = tag.send().await;
    assert_eq!((tag.status.as_u16(), tag.header("warning")), (200, None));
    assert!(tag.cache_status().starts_with("larder; hit"), "{}", tag.cache_status());
    let stored =
        [format!("manifests/{}", artifact.digest), format!("blobs/{}", artifact.layers[0]), "tags/list".to_owned()];
    for target in stored {
        let answer = larder.get(&format!("/v2/{REPOSITORY}/{target}")).await;
        assert_eq!(answer.status, 200, "{target}");
        assert!(answer.cache_status().starts_with("larder; hit"), "{target}: {}", answer.cache_status());
    }

    let lacking = [
        ("manifests/v2".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("blobs/{}", crate::harness::sha256(b"never seen")), "BLOB_UNKNOWN"),
        // The bytes are there, but through another repository: only the upstream could say whether this one has them.
        (format!("blobs/{unlinked}"), "BLOB_UNKNOWN"),
    ];
    for (target, code) in &lacking {
        let (status, said, message) = larder.get(&format!("/v2/{REPOSITORY}/{target}")).await.error();
        assert_eq!((status, said.as_str()), (404, *code), "{target}");
        assert!(message.contains("is sealed here") && message.contains(UPSTREAM), "{message}");
    }
    // Clients ask for what is attached to everything that they copy: nothing is an answer.
    let referrers = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest)).await;
    assert!(referrers.status == 200 && referrers.text().contains(r#""manifests":[]"#), "{}", referrers.text());
    assert_eq!(larder.head(&format!("/v2/{REPOSITORY}/manifests/v2")).await.status, 404);
    assert_eq!(acr.log().len(), 0, "nothing was sent, not even for a token");

    let missing = larder.cache.missing();
    assert_eq!(missing.len(), 3, "{missing:?}");
    assert_eq!((missing[0].reference.to_string().as_str(), missing[0].times), ("v2", 2));
    assert_eq!(missing[0].repository.to_string(), format!("{UPSTREAM}/{REPOSITORY}"));
}

#[tokio::test]
async fn serve_sealed_starts_without_a_network_and_says_so() {
    let acr = Acr::start(Options::public()).await;
    let setup = Setup::of(&acr);
    let url = acr.url();
    let process = Process::start(&setup, &["--upstream", &url, "--sealed"]).await;
    let (status, code, message) = process.client().call("GET", "/v2/a/manifests/v1").send().await.error();
    assert_eq!((status, code.as_str()), (404, "MANIFEST_UNKNOWN"));
    assert!(message.contains("is sealed here"), "{message}");
    crate::harness::until("the log names the seal", || process.stderr().contains("sealed: it is never asked")).await;
    assert_eq!(acr.log().len(), 0);
}
