//! Clients that the tests cannot run, request by request as they send it; `docs/clients.md` names these tests.

use crate::harness::simulator::{OCI_INDEX, OCI_MANIFEST, Options};
use crate::harness::{Acr, Larder, Setup, until};
use crate::pull::{DOCKER_LIST, DOCKER_MANIFEST, REPOSITORY, blob, large, manifest, seed};
use bytes::Bytes;

const MIB: usize = 1 << 20;

/// A manifest with one layer of so many bytes.
async fn image(size: usize) -> (Acr, Larder, String, String, Bytes) {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let (layer, content) = large(&acr, REPOSITORY, size);
    let document =
        format!("{{\"schemaVersion\":2,\"layers\":[{{\"digest\":\"{layer}\",\"size\":{}}}]}}", content.len());
    let digest = acr.push_manifest(REPOSITORY, Some("v1"), OCI_MANIFEST, document);
    let larder = Setup::of(&acr).password("ci", "pw").start().await;
    (acr, larder, digest, layer, content)
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkit_names_path_and_ns_and_reads_chunks_side_by_side() {
    let (acr, larder, digest, layer, content) = image(12 * MIB).await;
    let target = |tail: &str| format!("/v2/myacr.azurecr.io/{REPOSITORY}/{tail}?ns=myacr.azurecr.io");
    let accept = format!("{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*");
    let head = larder.call("HEAD", &target("manifests/v1")).line("Accept", &accept).send().await;
    assert_eq!((head.status.as_u16(), head.header("docker-content-digest")), (200, Some(&*digest)));
    let got = larder.call("GET", &target(&format!("manifests/{digest}"))).line("Accept", &accept).send().await;
    assert_eq!((got.status.as_u16(), got.header("oci-namespace")), (200, Some("myacr.azurecr.io")));
    let part = async |offset: usize| {
        let call = larder.call("GET", &target(&format!("blobs/{layer}"))).range(&format!("bytes={offset}-"));
        let mut answer = call.open().await;
        assert_eq!(answer.status, 206, "{offset}");
        assert!(answer.at_least(MIB).await[..MIB] == content[offset..offset + MIB], "{offset}");
    };
    tokio::join!(part(0), part(4 * MIB), part(8 * MIB));
    until("the fill completes though everybody has left", || larder.stores(&layer)).await;
    assert_eq!(acr.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_28_reads_hosts_toml_as_containerd_does() {
    let (acr, larder, digest, layer, content) = image(2 * MIB).await;
    // The daemon pings nothing; with and without override_path.
    for start in ["/v2/acr", "/myacr.azurecr.io/v2", "/v2"] {
        let target = |tail: &str| format!("{start}/{REPOSITORY}/{tail}?ns=myacr.azurecr.io");
        let head = larder.call("HEAD", &target("manifests/v1")).line("Accept", "*/*").send().await;
        assert_eq!(head.header("docker-content-digest"), Some(&*digest), "{start}");
        let call = larder.call("GET", &target(&format!("blobs/{layer}")));
        let answer = call.line("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5").send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (200, None), "{start}");
        assert!(answer.body == content, "{start}");
    }
    assert_eq!(acr.downloads(), 1);
    // A registry that larder does not know is an error at once, so that the daemon goes to the next host.
    let unknown = larder.call("HEAD", &format!("/v2/{REPOSITORY}/manifests/v1?ns=quay.io")).send().await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn kaniko_pings_and_asks_by_the_alias_without_a_dot() {
    let (_acr, larder, digest, layer, content) = image(MIB).await;
    assert_eq!(larder.get("/v2/").await.status, 200);
    let repository = format!("acr/{REPOSITORY}");
    let accept = [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST].join(",");
    let got = larder.call("GET", &manifest(&repository, "v1")).line("Accept", &accept).send().await;
    assert_eq!((got.status.as_u16(), got.header("docker-content-digest")), (200, Some(&*digest)));
    assert_eq!(larder.head(&blob(&repository, &layer)).await.status, 200);
    assert!(larder.get(&blob(&repository, &layer)).await.body == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn stargz_probes_by_ns_and_reads_several_ranges_at_once() {
    let (acr, larder, _, layer, content) = image(10 * MIB).await;
    let target = format!("{}?ns=myacr.azurecr.io", blob(REPOSITORY, &layer));
    let probe = larder.call("GET", &target).range("bytes=0-1").send().await;
    assert_eq!((probe.status.as_u16(), &probe.body[..]), (206, &content[..2]));
    assert_eq!(probe.header("content-range"), Some(&*format!("bytes 0-1/{}", content.len())));
    let head = larder.head(&target).await;
    assert_eq!(head.header("content-length"), Some(&*content.len().to_string()));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    for when in ["cold", "warm"] {
        let call = larder.call("GET", &target).range("bytes=100-199,9000000-9000099");
        let answer = call.line("Accept-Encoding", "identity").send().await;
        match answer.status.as_u16() {
            // The parts, or a word that makes it ask for one range at a time.
            206 => {
                let kind = answer.header("content-type").unwrap();
                assert!(kind.starts_with("multipart/byteranges; boundary="), "{when}: {kind}");
                for range in [100..200, 9_000_000..9_000_100] {
                    let part = &content[range.clone()];
                    assert!(answer.body.windows(part.len()).any(|window| window == part), "{when}: {range:?}");
                }
            }
            200 => assert!(answer.body == content, "{when}"),
            status => assert_eq!((status, when), (400, "cold")),
        }
        until("the fill completes", || larder.stores(&layer)).await;
    }
    assert_eq!(acr.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nydus_pings_asks_the_size_and_reads_ranges_of_the_default_upstream() {
    let (_acr, larder, _, layer, content) = image(4 * MIB).await;
    assert_eq!(larder.get("/v2/").await.status, 200);
    let target = blob(REPOSITORY, &layer);
    let head = larder.head(&target).await;
    assert_eq!(head.header("content-length"), Some(&*content.len().to_string()));
    assert_eq!(head.header("content-type"), Some("application/octet-stream"));
    for (first, last) in [(0, 4095), (1_048_576, 2_097_151), (content.len() - 10, content.len() - 1)] {
        let answer = larder.call("GET", &target).range(&format!("bytes={first}-{last}")).send().await;
        assert_eq!(answer.status, 206);
        assert!(answer.body == content[first..=last], "{first}-{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notation_asks_for_its_own_kind_of_referrer() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let (artifact, _) = seed(&acr);
    let kind = "application/vnd.cncf.notary.signature";
    let signature = |kind: &str| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"artifactType\":\"{kind}\",\"config\":{{\"mediaType\":\
             \"application/vnd.oci.empty.v1+json\",\"digest\":\"{}\",\"size\":2}},\"layers\":[],\"subject\":{{\"mediaType\":\
             \"{OCI_MANIFEST}\",\"digest\":\"{}\",\"size\":{}}}}}",
            crate::harness::sha256(b"{}"),
            artifact.digest,
            artifact.manifest.len()
        )
    };
    let wanted = acr.push_manifest(REPOSITORY, None, OCI_MANIFEST, signature(kind));
    acr.push_manifest(REPOSITORY, None, OCI_MANIFEST, signature("application/x.other"));
    let larder = Setup::of(&acr).password("ci", "pw").start().await;
    assert_eq!(larder.head(&manifest(REPOSITORY, "v1")).await.header("docker-content-digest"), Some(&*artifact.digest));
    let target = format!("/v2/{REPOSITORY}/referrers/{}?artifactType={}", artifact.digest, kind.replace('/', "%2F"));
    let answer = larder.get(&target).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some(OCI_INDEX)));
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    let list = answer.json();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["manifests"][0]["digest"], wanted.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn oras_py_asks_once_with_all_types_on_one_line() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).password("ci", "pw").start().await;
    let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
    let call = larder.call("GET", &manifest(REPOSITORY, "v1")).line("Accept", &accept);
    let got = call.line("Accept-Encoding", "gzip, deflate").line("Connection", "keep-alive").send().await;
    assert_eq!((got.body.clone(), got.header("content-encoding")), (artifact.manifest.clone(), None));
    assert_eq!(larder.get(&blob(REPOSITORY, &artifact.layers[0])).await.body, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_oci_downloads_by_digest_without_asking_for_a_challenge() {
    let (_acr, larder, digest, layer, content) = image(MIB).await;
    let repository = format!("myacr.azurecr.io/{REPOSITORY}");
    let accept = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(",");
    let got = larder.call("GET", &manifest(&repository, &digest)).line("Accept", &accept).send().await;
    assert_eq!((got.status.as_u16(), got.header("content-type")), (200, Some(OCI_MANIFEST)));
    assert!(larder.get(&blob(&repository, &layer)).await.body == content);
}
