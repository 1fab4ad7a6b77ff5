//! What single clients insist on, request by request as they send it.

use crate::harness::simulator::{OCI_INDEX, OCI_MANIFEST, Options};
use crate::harness::{Acr, Setup, until};
use crate::pull::{DOCKER_LIST, DOCKER_MANIFEST, REPOSITORY, blob, large, manifest, seed, unknown_digest};

const ORAS_ACCEPT: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.oci.artifact.manifest.v1+json";

#[tokio::test(flavor = "multi_thread")]
async fn oras_resolves_pulls_by_descriptor_and_discovers() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    // resolve: HEAD without digest or length is a hard error.
    let head = larder.call("HEAD", &manifest(REPOSITORY, "v1")).line("Accept", ORAS_ACCEPT).send().await;
    assert_eq!(head.header("docker-content-digest"), Some(&*artifact.digest));
    assert_eq!(head.header("content-length"), Some(&*artifact.manifest.len().to_string()));
    // pull: by descriptor, type, size and digest must equal it.
    let call = larder.call("GET", &manifest(REPOSITORY, &artifact.digest)).line("Accept", OCI_MANIFEST);
    let got = call.line("Accept-Encoding", "gzip").line("Authorization", "Bearer unasked").send().await;
    assert_eq!(got.header("content-type"), Some(OCI_MANIFEST));
    assert_eq!(got.body, artifact.manifest);
    let layer = larder.call("GET", &blob(REPOSITORY, &artifact.layers[0])).line("Accept-Encoding", "gzip").send().await;
    assert_eq!((layer.body.clone(), layer.header("content-length")), (content, Some(&*layer.body.len().to_string())));
    // discover: exactly the index type; a page of at most 4 MiB.
    let referrers = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest)).await;
    assert_eq!(referrers.header("content-type"), Some(OCI_INDEX));
    assert_eq!(acr.manifest_requests("GET"), 1, "the HEAD has brought the document");
}

#[tokio::test(flavor = "multi_thread")]
async fn oras_reads_no_page_of_more_than_4_mib() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let digest = unknown_digest();
    let note = "n".repeat(60_000);
    for number in 0..100 {
        let content = format!(
            "{{\"schemaVersion\":2,\"artifactType\":\"application/x\",\"annotations\":{{\"n\":\"{number}{note}\"}},\"subject\":{{\"digest\":\"{digest}\"}}}}"
        );
        acr.push_manifest(REPOSITORY, None, OCI_MANIFEST, content);
    }
    acr.knobs().turn(|k| k.referrers_page = Some(50));
    let larder = Setup::of(&acr).password("ci", "pw").start().await;
    let (mut target, mut found) = (format!("/v2/{REPOSITORY}/referrers/{digest}"), 0);
    loop {
        let answer = larder.get(&target).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body.len() <= 4 << 20, "{}", answer.body.len());
        found += answer.json()["manifests"].as_array().unwrap().len();
        let Some(link) = answer.header("link") else { break };
        target = link[1..].split('>').next().unwrap().to_owned();
    }
    assert_eq!(found, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_resolves_with_head_and_fetches_the_digest_with_open_ranges_that_it_closes_early() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 12 << 20);
    let document =
        format!("{{\"schemaVersion\":2,\"layers\":[{{\"digest\":\"{digest}\",\"size\":{}}}]}}", content.len());
    let manifest_digest = acr.push_manifest(REPOSITORY, Some("v1"), OCI_MANIFEST, document.clone());
    let larder = Setup::of(&acr).start().await;
    let accept = format!("{DOCKER_MANIFEST}, {DOCKER_LIST}, {OCI_MANIFEST}, {OCI_INDEX}, */*");
    // hosts.toml with override_path, without it, and for all registries.
    for (start, end) in [("/v2/myacr.azurecr.io", ""), ("/myacr.azurecr.io/v2", ""), ("/v2", "")] {
        let target = |tail: &str| format!("{start}/{REPOSITORY}/{tail}?ns=myacr.azurecr.io{end}");
        let head = larder.call("HEAD", &target("manifests/v1")).line("Accept", &accept).send().await;
        assert_eq!(head.header("docker-content-digest"), Some(&*manifest_digest));
        assert_eq!(head.header("oci-namespace"), Some("myacr.azurecr.io"));
        let call = larder.call("GET", &target(&format!("manifests/{manifest_digest}")));
        let got = call.line("Accept", &format!("{OCI_MANIFEST}, */*")).line("Range", "bytes=0-").send().await;
        assert_eq!(got.text(), document);
        // Parallel chunks: each asks to the end and leaves when it has its part.
        let mut parts = Vec::new();
        for offset in [0, 4 << 20, 8 << 20] {
            let call = larder.call("GET", &target(&format!("blobs/{digest}"))).range(&format!("bytes={offset}-"));
            let mut answer = call.open().await;
            assert_eq!(answer.status, 206);
            assert_eq!(
                answer.headers["content-range"],
                format!("bytes {offset}-{}/{}", content.len() - 1, content.len())
            );
            let part = answer.at_least(1 << 20).await;
            assert!(part[..1 << 20] == content[offset..offset + (1 << 20)]);
            parts.push(answer);
        }
        drop(parts);
    }
    until("the fill completes", || larder.stores(&digest)).await;
    assert_eq!((acr.manifest_requests("GET"), acr.downloads()), (1, 1));
    // After a cut of its own it goes on without If-Range.
    let rest = larder.call("GET", &blob(REPOSITORY, &digest)).range("bytes=7339961-").send().await;
    assert_eq!((rest.status.as_u16(), rest.header("content-range")), (206, Some("bytes 7339961-12582911/12582912")));
    assert!(rest.body == content[7_339_961..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_sends_accept_on_lines_of_its_own_in_an_order_of_chance() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    assert_eq!(larder.get("/v2/").await.status, 200);
    let mut types = [DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, "application/json"];
    for turn in 0..types.len() {
        types.rotate_left(1);
        for (method, reference) in [("HEAD", "v1"), ("GET", &*artifact.digest)] {
            let call = types
                .iter()
                .fold(larder.call(method, &manifest(REPOSITORY, reference)), |call, kind| call.line("Accept", kind));
            let answer = call.send().await;
            assert_eq!(answer.status, 200, "turn {turn}: {method}");
            assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        }
    }
    assert_eq!(acr.manifest_requests("GET"), 1, "no order of lines is a key of its own");
    assert_eq!(acr.manifest_requests("HEAD"), 1, "the tag is kept with its manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_pings_once_and_takes_challenges_from_that_answer_only() {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).password("ci", "pw").start().await;
    let ping = larder.call("GET", "/v2/").line("Docker-Distribution-Api-Version", "registry/2.0").send().await;
    assert_eq!((ping.status.as_u16(), ping.header("www-authenticate")), (200, None));
    assert_eq!(ping.header("x-registry-supports-signatures"), None);
    let call = [OCI_MANIFEST, DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX].iter();
    let call =
        call.fold(larder.call("GET", &manifest("acr/samples/config", "v1")), |call, kind| call.line("Accept", kind));
    assert_eq!(call.send().await.body, artifact.manifest);
    let target = blob("acr/samples/config", &artifact.layers[0]);
    assert_eq!(larder.head(&target).await.header("content-length"), Some(&*content.len().to_string()));
    assert_eq!(larder.get(&target).await.body, content);
}

#[tokio::test(flavor = "multi_thread")]
async fn regctl_names_prefix_and_ns_pings_under_the_prefix_and_asks_for_one_byte_past_the_end() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 1 << 20);
    let larder = Setup::of(&acr).start().await;
    assert_eq!(larder.get("/v2/acr/").await.status, 200);
    let target = format!("/v2/acr/{REPOSITORY}/blobs/{digest}?ns=myacr.azurecr.io");
    for when in ["cold", "warm"] {
        let range = format!("bytes=753664-{}", content.len());
        let answer = larder.call("GET", &target).range(&range).send().await;
        assert_eq!(answer.status, 206, "{when}");
        assert_eq!(
            answer.header("content-range"),
            Some(&*format!("bytes 753664-{}/{}", content.len() - 1, content.len()))
        );
        assert!(answer.body == content[753_664..], "{when}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_program_finds_what_it_checks_of_pulls() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    // Two lines of Accept.
    let call = larder.call("GET", &manifest(REPOSITORY, "v1")).line("Accept", OCI_INDEX).line("Accept", OCI_MANIFEST);
    assert_eq!(call.send().await.body, artifact.manifest);
    // Missing, and there a moment after it was pushed.
    let content = "pushed behind larder's back";
    let digest = crate::harness::sha256(content.as_bytes());
    assert_eq!(larder.head(&blob(REPOSITORY, &digest)).await.status, 404);
    acr.push_blob(REPOSITORY, content);
    let began = tokio::time::Instant::now();
    while larder.head(&blob(REPOSITORY, &digest)).await.status != 200 {
        assert!(began.elapsed() < std::time::Duration::from_secs(8), "a 404 is remembered for seconds only");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    // The digest header speaks in the algorithm that was asked for, and no answer has a challenge to parse.
    let named = acr.push_blob_as(REPOSITORY, "by sha512", "sha512");
    for method in ["HEAD", "GET"] {
        let answer = larder.call(method, &blob(REPOSITORY, &named)).send().await;
        assert_eq!(answer.header("docker-content-digest"), Some(&*named));
        assert_eq!(answer.header("www-authenticate"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lazy_pullers_probe_with_two_bytes_ask_the_size_and_read_parts_of_a_cold_blob() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 10 << 20);
    let larder = Setup::of(&acr).start().await;
    let head = larder.head(&blob(REPOSITORY, &digest)).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, Some(&*content.len().to_string())));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    for (first, last) in [(0, 1), (0, 0), (10_000_000, 10_000_099), (5_000_000, 6_000_000)] {
        let call = larder.call("GET", &blob(REPOSITORY, &digest)).range(&format!("bytes={first}-{last}"));
        let answer = call.line("Accept-Encoding", "identity").send().await;
        assert_eq!(answer.status, 206, "{first}-{last}");
        assert!(answer.body == content[first..=last], "{first}-{last}");
    }
    until("the fill completes", || larder.stores(&digest)).await;
    assert_eq!(acr.downloads(), 1, "one shared download, whatever the probes");
}
