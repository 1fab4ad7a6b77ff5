//! What is served is what upstream has: bytes, types, digests, parts.

use crate::harness::scripted::Scripted;
use crate::harness::simulator::{OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, Options};
use crate::harness::{Acr, Setup, sha256, sha512};
use crate::pull::{DOCKER_LIST, DOCKER_MANIFEST, OCTETS, REPOSITORY, blob, large, manifest, seed};
use bytes::Bytes;
use std::time::Duration;

/// Documents that a careless proxy would change: types, contents.
fn documents() -> Vec<(&'static str, Bytes)> {
    let four_mib = {
        let head =
            format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[],\"annotations\":{{\"x\":\"");
        let tail = "\"}}";
        let filler = "y".repeat((4 << 20) - head.len() - tail.len());
        Bytes::from(format!("{head}{filler}{tail}"))
    };
    assert_eq!(four_mib.len(), 4 << 20);
    vec![
        (OCI_MANIFEST, Bytes::from_static(b"\n\t {\r\n  \"schemaVersion\" : 2 ,\n\"layers\":[ ] }\r\n\n  ")),
        (
            OCI_MANIFEST,
            Bytes::from_static(b"{\"schemaVersion\":2,\"layers\":[],\"a\":\"\\u00e9\xc3\xa9\",\"a\":1.0e2}"),
        ),
        (OCI_INDEX, four_mib),
        (
            OCI_ARTIFACT,
            Bytes::from_static(b"{\"mediaType\":\"application/vnd.oci.artifact.manifest.v1+json\",\"blobs\":[]}"),
        ),
        (DOCKER_MANIFEST, Bytes::from_static(b"{\n   \"schemaVersion\": 2,\n   \"layers\": []\n}")),
        (DOCKER_LIST, Bytes::from_static(b"{\n   \"schemaVersion\": 2,\n   \"manifests\": []\n}")),
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            Bytes::from_static(b"{\n   \"schemaVersion\": 1\n}"),
        ),
        ("application/vnd.example.of.nobody.v7+json", Bytes::from_static(b"{\"anything\":[1,2,3]}")),
        ("application/vnd.example.no-json", Bytes::from_static(b"\xef\xbb\xbfnot json at all \x00\xff")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_served_byte_for_byte_with_their_exact_type_also_from_disk_with_upstream_gone() {
    let acr = Acr::start(Options::public()).await;
    let documents = documents();
    let mut digests = Vec::new();
    for (number, (kind, content)) in documents.iter().enumerate() {
        digests.push(acr.push_manifest(REPOSITORY, Some(&format!("v{number}")), kind, content.clone()));
    }
    let larder = Setup::of(&acr).start().await;
    let check = async |larder: &crate::harness::Larder, when: &str| {
        for (number, (kind, content)) in documents.iter().enumerate() {
            for reference in [format!("v{number}"), digests[number].clone()] {
                for method in ["GET", "HEAD", "GET"] {
                    let answer = larder.call(method, &manifest(REPOSITORY, &reference)).send().await;
                    let what = format!("{when}: {method} {reference} ({kind})");
                    assert_eq!(answer.status, 200, "{what}");
                    assert_eq!(answer.header("content-type"), Some(*kind), "{what}");
                    assert_eq!(answer.header("content-length"), Some(&*content.len().to_string()), "{what}");
                    assert_eq!(answer.header("docker-content-digest"), Some(&*digests[number]), "{what}");
                    if method == "GET" {
                        assert!(answer.body == *content, "{what}: the bytes differ");
                    }
                }
            }
        }
    };
    check(&larder, "first").await;
    assert_eq!(acr.manifest_requests("GET"), documents.len(), "each document crosses the link once");
    let setup = larder.stop().await;
    acr.stop_listening();
    check(&setup.start().await, "after a restart without upstream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_with_a_parameter_and_a_manifest_without_digest_header_are_served_as_clients_need_them() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    acr.knobs().turn(|k| {
        k.manifest_charset = true;
        k.manifest_digest = false;
        k.manifest_etag = false;
    });
    let larder = Setup::of(&acr).start().await;
    for method in ["HEAD", "GET"] {
        let answer = larder.call(method, &manifest(REPOSITORY, "v1")).send().await;
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(answer.header("docker-content-digest"), Some(&*artifact.digest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sha512_names_blobs_and_manifests_and_the_answer_speaks_of_the_digest_that_was_asked_for() {
    let acr = Acr::start(Options::public()).await;
    let content = Bytes::from_static(b"named by sha512");
    let document = Bytes::from_static(b"{\"schemaVersion\":2,\"layers\":[]}");
    let digest = acr.push_blob_as(REPOSITORY, content.clone(), "sha512");
    let named = acr.push_manifest_as(REPOSITORY, Some("v512"), OCI_MANIFEST, document.clone(), "sha512");
    assert_eq!((digest.clone(), named.clone()), (sha512(&content), sha512(&document)));
    let larder = Setup::of(&acr).start().await;
    for _ in ["cold", "warm"] {
        let answer = larder.get(&blob(REPOSITORY, &digest)).await;
        assert_eq!((answer.header("docker-content-digest"), &answer.body), (Some(&*digest), &content));
        for reference in [&*named, "v512"] {
            let answer = larder.get(&manifest(REPOSITORY, reference)).await;
            assert_eq!((answer.header("docker-content-digest"), &answer.body), (Some(&*named), &document));
        }
    }
    crate::harness::until("the blob is stored", || larder.stores(&digest)).await;
    // The same bytes under their sha256 name are another blob, which upstream does not have here.
    let other = larder.get(&blob(REPOSITORY, &sha256(&content))).await;
    assert_eq!(other.error().1, "BLOB_UNKNOWN");
}

/// `Range`, and the status, `Content-Range` and bytes that it gets of a blob of 2000 bytes.
const RANGES: [(&str, u16, &str, std::ops::Range<usize>); 14] = [
    ("bytes=500-1499", 206, "bytes 500-1499/2000", 500..1500),
    ("bytes=500-", 206, "bytes 500-1999/2000", 500..2000),
    ("bytes=-500", 206, "bytes 1500-1999/2000", 1500..2000),
    ("bytes=-5000", 206, "bytes 0-1999/2000", 0..2000),
    ("bytes=1000-5000", 206, "bytes 1000-1999/2000", 1000..2000),
    ("bytes=1999-2000", 206, "bytes 1999-1999/2000", 1999..2000),
    ("bytes=0-0", 206, "bytes 0-0/2000", 0..1),
    ("bytes=0-", 206, "bytes 0-1999/2000", 0..2000),
    ("bytes=500-0", 416, "bytes */2000", 0..0),
    ("bytes=2000-", 416, "bytes */2000", 0..0),
    ("bytes=5000-10000", 416, "bytes */2000", 0..0),
    ("bytes=-0", 416, "bytes */2000", 0..0),
    ("bytes=x-y", 200, "", 0..2000),
    ("items=0-1", 200, "", 0..2000),
];

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_answered_alike_of_cached_and_of_uncached_blobs() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    for (number, (range, status, content_range, bytes)) in RANGES.iter().enumerate() {
        // A repository of its own keeps the blob uncached until here.
        let mut content = format!("{number:04}").repeat(500).into_bytes();
        content[1999] = b'!';
        let digest = acr.push_blob(REPOSITORY, content.clone());
        for when in ["uncached", "cached"] {
            let answer = larder.call("GET", &blob(REPOSITORY, &digest)).range(range).send().await;
            let what = format!("{range} of an {when} blob");
            assert_eq!(answer.status, *status, "{what}: {answer:?}");
            assert_eq!(answer.header("content-range").unwrap_or_default(), *content_range, "{what}");
            if *status == 416 {
                answer.error();
                continue;
            }
            assert_eq!(answer.body, content[bytes.clone()], "{what}");
            assert_eq!(answer.header("content-length"), Some(&*bytes.len().to_string()), "{what}");
            assert_eq!(answer.header("content-type"), Some(OCTETS), "{what}");
            assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{what}");
        }
        assert_eq!(larder.get(&blob(REPOSITORY, &digest)).await.body, content, "and all of it");
    }
    assert_eq!(acr.downloads(), RANGES.len());
    assert_eq!(acr.count(|seen| seen.range.is_some()), 0, "a small blob is fetched whole, whatever part is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_a_blob() {
    let acr = Acr::start(Options::public()).await;
    let digest = acr.push_blob(REPOSITORY, Bytes::new());
    let larder = Setup::of(&acr).start().await;
    for _ in ["cold", "warm"] {
        let answer = larder.get(&blob(REPOSITORY, &digest)).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-length")), (200, Some("0")));
        let answer = larder.call("GET", &blob(REPOSITORY, &digest)).range("bytes=0-").send().await;
        assert_eq!((answer.status.as_u16(), answer.header("content-range")), (416, Some("bytes */0")));
    }
    assert_eq!(larder.head(&blob(REPOSITORY, &digest)).await.header("content-length"), Some("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_on_a_range_gets_the_whole_since_no_validator_was_ever_given() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let call =
        larder.call("GET", &blob(REPOSITORY, &artifact.layers[0])).range("bytes=0-3").line("If-Range", "\"etag\"");
    let answer = call.send().await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, content));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_read_the_stored_type_gets_upstreams_own_answer_and_the_stored_one_in_an_outage() {
    let acr = Acr::start(Options::public()).await;
    // ACR refuses what Accept does not list; that this is asked is the point here.
    acr.forgive();
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let ask = |accept: &'static str| larder.call("GET", &manifest(REPOSITORY, "v1")).line("Accept", accept).send();
    assert_eq!(ask(OCI_MANIFEST).await.status, 200);
    let refused = ask(DOCKER_MANIFEST).await;
    let (status, code, message) = refused.error();
    assert_eq!((status, &*code), (404, "MANIFEST_UNKNOWN"), "{message}");
    assert!(message.contains("accept header does not support OCI manifests"), "upstream's own words: {message}");
    let asked = acr.log().into_iter().rfind(|seen| seen.path().contains("/manifests/")).unwrap();
    assert_eq!(asked.accept, [DOCKER_MANIFEST], "upstream sees what this client can read");
    assert_eq!(ask(OCI_MANIFEST).await.cache_status(), larder.get(&manifest(REPOSITORY, "v1")).await.cache_status());
    acr.knobs().turn(|knobs| knobs.login.hang = true);
    let begun = tokio::time::Instant::now();
    let stored = ask(DOCKER_MANIFEST).await;
    assert_eq!((stored.status.as_u16(), &stored.body), (200, &artifact.manifest));
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(4900) && waited < Duration::from_secs(20), "{waited:?}");
    acr.knobs().turn(|knobs| knobs.login.hang = false);
    acr.stop_listening();
    let stored = ask(DOCKER_MANIFEST).await;
    assert_eq!((stored.status.as_u16(), stored.body), (200, artifact.manifest));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_tags_of_every_length_are_kept_and_found_again() {
    let acr = Acr::start(Options::public()).await;
    let long = "a".repeat(255);
    let deep = ["x"; 128].join("/");
    let names = [long.as_str(), deep.as_str(), "con/aux", "blobs/manifests", "a/tags/list/b", "a__b/c--d.e"];
    let tags = ["V1".to_owned(), "v1".to_owned(), "T".repeat(128), "_.-".to_owned()];
    for name in names {
        for tag in &tags {
            let content = Bytes::from(format!("{{\"name\":\"{name}\",\"tag\":\"{tag}\",\"layers\":[]}}"));
            acr.push_manifest(name, Some(tag), OCI_MANIFEST, content);
        }
    }
    let larder = Setup::of(&acr).start().await;
    let check = async |larder: &crate::harness::Larder| {
        for name in names {
            for tag in &tags {
                let answer = larder.get(&manifest(name, tag)).await;
                assert_eq!(answer.status, 200, "{name}:{tag}");
                assert_eq!((&answer.json()["name"], &answer.json()["tag"]), (&name.into(), &tag.as_str().into()));
            }
        }
    };
    check(&larder).await;
    let setup = larder.stop().await;
    acr.stop_listening();
    check(&setup.start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_is_the_same_cold_and_warm_and_crosses_the_link_once() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 20 << 20);
    let larder = Setup::of(&acr).start().await;
    for _ in ["cold", "warm"] {
        let answer = larder.get(&blob(REPOSITORY, &digest)).await;
        assert!(answer.body == content);
        crate::harness::until("the blob is stored", || larder.stores(&digest)).await;
    }
    assert_eq!(acr.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_who_ask_for_one_new_tag_cost_one_fetch() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    acr.knobs().turn(|k| k.login.delay_ms = 100);
    let larder = Setup::of(&acr).start().await;
    let target = manifest(REPOSITORY, "v1");
    let method = |number: usize| if number.is_multiple_of(2) { "GET" } else { "HEAD" };
    let asking: Vec<_> = (0..100).map(|number| tokio::spawn(larder.call(method(number), &target).send())).collect();
    for answer in asking {
        let answer = answer.await.unwrap();
        assert_eq!(answer.header("docker-content-digest"), Some(&*artifact.digest));
    }
    assert_eq!(acr.manifest_requests("GET"), 1);
    assert!(acr.manifest_requests("HEAD") <= 1);
}

/// Chunked transfer coding has no length, and some registries send it to HEAD too: a client that asks directly gets a 200 without.
#[tokio::test]
async fn a_blob_whose_length_upstream_does_not_say_is_there_all_the_same() {
    let upstream = Scripted::start(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n".to_vec()
    })
    .await;
    let larder = Setup::at(&upstream.url()).start().await;
    let head = larder.call("HEAD", &format!("/v2/a/blobs/sha256:{}", "a".repeat(64))).send().await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, None));
    assert_eq!(head.header("docker-content-digest"), Some(&*format!("sha256:{}", "a".repeat(64))));
}
