//! The numbered traps of everything that stands between registries and their clients, as far as pulls can fall into them. Numbers
//! 3, 8, 9, 19 to 23, 27 and 29 are held beside what they belong to; 10, 11, 25 and 26 concern pushes.

use crate::harness::simulator::{
    Damage, DamageKind, FaultAnswer, Listener, OCI_MANIFEST, Options, PathClass, Redirect, Seen,
};
use crate::harness::{ALIAS, Acr, Setup, UPSTREAM, until};
use crate::pull::{OCTETS, REPOSITORY, blob, large, manifest, seed};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn trap_01_type_length_and_digest_are_on_head_and_get_cold_and_warm() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let layer = &artifact.layers[0];
    for method in ["HEAD", "GET", "HEAD", "GET"] {
        for (target, kind, length, digest) in [
            (manifest(REPOSITORY, "v1"), OCI_MANIFEST, artifact.manifest.len(), &artifact.digest),
            (manifest(REPOSITORY, &artifact.digest), OCI_MANIFEST, artifact.manifest.len(), &artifact.digest),
            (blob(REPOSITORY, layer), OCTETS, content.len(), layer),
        ] {
            let answer = larder.call(method, &target).send().await;
            assert_eq!(answer.header("content-type"), Some(kind), "{method} {target}");
            assert_eq!(answer.header("content-length"), Some(&*length.to_string()), "{method} {target}");
            assert_eq!(answer.header("docker-content-digest"), Some(&**digest), "{method} {target}");
            assert_eq!(answer.header("transfer-encoding"), None, "{method} {target}");
        }
    }
    let text = larder.get(&blob(REPOSITORY, layer)).await;
    assert!(text.header("content-type").is_some_and(|kind| !kind.contains("charset")));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_02_nothing_is_compressed_on_either_side() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for (target, body) in [
        (manifest(REPOSITORY, "v1"), &artifact.manifest),
        (blob(REPOSITORY, &artifact.layers[0]), &content),
        (blob(REPOSITORY, &artifact.layers[0]), &content),
    ] {
        let call = larder.call("GET", &target).line("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5");
        let answer = call.send().await;
        assert_eq!((answer.header("content-encoding"), answer.header("vary"), &answer.body), (None, None, body));
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()));
    }
    let tags = larder.call("GET", &format!("/v2/{REPOSITORY}/tags/list")).line("Accept-Encoding", "gzip").send().await;
    assert_eq!(tags.header("content-encoding"), None);
    for seen in acr.log() {
        let encodings: Vec<_> = seen.headers.get_all("accept-encoding").iter().collect();
        assert!(encodings.iter().all(|value| *value == "identity"), "{} {encodings:?}", seen.target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_04_no_answer_carries_a_challenge_whatever_upstream_wants() {
    let acr = Acr::start(Options::default()).await;
    seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for target in [
        "/v2/".to_owned(),
        manifest(REPOSITORY, "v1"),
        blob(REPOSITORY, &crate::pull::unknown_digest()),
        format!("/v2/{REPOSITORY}/tags/list"),
        "/v2/_catalog".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = larder.call(method, &target).send().await;
            assert!(answer.status == 200 || answer.status == 403, "{method} {target}: {}", answer.status);
            assert_eq!(answer.header("www-authenticate"), None, "{method} {target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_05_redirects_are_followed_here_without_the_credential_and_clients_never_see_storage() {
    for redirect in [Redirect::Sas, Redirect::DataEndpoint, Redirect::Direct] {
        let acr = Acr::start(Options::private("ci", "pw").redirect(redirect)).await;
        let (artifact, content) = seed(&acr);
        let larder = Setup::of(&acr).password("ci", "pw").start().await;
        let answer = larder.get(&blob(REPOSITORY, &artifact.layers[0])).await;
        assert_eq!((answer.status.as_u16(), &answer.body), (200, &content), "{redirect:?}");
        assert_eq!(answer.header("location"), None);
        let storage: Vec<_> = acr.log().into_iter().filter(|seen| seen.listener == Listener::Storage).collect();
        assert_eq!(storage.is_empty(), redirect == Redirect::Direct, "{redirect:?}");
        assert!(storage.iter().all(|seen| seen.authorization == crate::harness::simulator::Credential::None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_06_a_relative_redirect_is_resolved_against_the_request() {
    let acr = Acr::start(Options::public().redirect(Redirect::Direct)).await;
    let (digest, content) = large(&acr, REPOSITORY, 100_000);
    let location = format!("/v2/{REPOSITORY}/blobs/{digest}?again=1");
    let larder = Setup::of(&acr).start().await;
    // The token is there already: the redirect answers the request that carries it.
    seed(&acr);
    larder.get(&manifest(REPOSITORY, "v1")).await;
    acr.knobs().turn(|k| {
        let fault = FaultAnswer::ForeignRedirect { location };
        k.faults.push(crate::harness::simulator::Fault::times(PathClass::Blobs, fault, 1));
    });
    assert!(larder.get(&blob(REPOSITORY, &digest)).await.body == content);
    assert_eq!(acr.count(|seen| seen.target.ends_with("?again=1") && seen.status == 200), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_07_an_unknown_ns_is_404_and_nobody_is_dialled() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for ns in ["evil.example", "127.0.0.1:1", &*acr.host(), "169.254.169.254", "myacr.azurecr.io.evil.example", "%00"] {
        for tail in ["manifests/v1", "tags/list"] {
            let (status, code, message) = larder.get(&format!("/v2/{REPOSITORY}/{tail}?ns={ns}")).await.error();
            assert_eq!((status, &*code), (404, "NAME_UNKNOWN"), "{ns}: {message}");
            assert!(message.contains(UPSTREAM), "what there is: {message}");
        }
    }
    assert!(acr.log().is_empty());
    let known = larder.get(&format!("/v2/{REPOSITORY}/manifests/v1?x=1&ns=MyAcr.azurecr.io")).await;
    assert_eq!((known.status.as_u16(), known.header("oci-namespace")), (200, Some("MyAcr.azurecr.io")));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_12_a_range_of_an_uncached_blob_is_a_206_that_waits_for_nothing_but_its_own_bytes() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 32 << 20);
    acr.knobs().turn(|k| k.connection_rate = Some(4 << 20));
    let larder = Setup::of(&acr).start().await;
    let began = Instant::now();
    let size = content.len();
    let answer = larder.call("GET", &blob(REPOSITORY, &digest)).range(&format!("bytes={}-", size - 100)).send().await;
    assert!(began.elapsed() < Duration::from_secs(4), "not after the eight seconds of all: {:?}", began.elapsed());
    assert_eq!((answer.status.as_u16(), &*answer.body), (206, &content[size - 100..]));
    assert_eq!(answer.header("content-range"), Some(&*format!("bytes {}-{}/{size}", size - 100, size - 1)));
    let head = larder.call("GET", &blob(REPOSITORY, &digest)).range("bytes=0-1").send().await;
    assert_eq!((head.status.as_u16(), &*head.body), (206, &content[..2]));
    acr.knobs().turn(|k| k.connection_rate = None);
    until("the fill completes behind it", || larder.stores(&digest)).await;
    assert_eq!(acr.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_13_several_ranges_at_once_are_never_416() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 100_000);
    let larder = Setup::of(&acr).start().await;
    for when in ["cold", "warm"] {
        for (range, status) in
            [("bytes=0-1,5-6", 206), ("bytes=0-1,999999-1000000", 206), ("bytes=999999-1000000,1999999-2000000", 200)]
        {
            let answer = larder.call("GET", &blob(REPOSITORY, &digest)).range(range).send().await;
            assert_eq!(answer.status, status, "{when} {range}");
            assert!(status == 206 || answer.body == content, "{when} {range}: the whole is an allowed answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_14_a_range_on_a_manifest_does_no_harm() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for reference in ["v1", &*artifact.digest] {
        let answer = larder.call("GET", &manifest(REPOSITORY, reference)).range("bytes=0-").send().await;
        assert!(answer.status == 200 || answer.status == 206, "{}", answer.status);
        assert_eq!(answer.body, artifact.manifest);
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_15_clients_that_leave_early_cost_nothing_and_the_fill_completes() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 24 << 20);
    acr.knobs().turn(|k| k.total_rate = Some(16 << 20));
    let larder = Setup::of(&acr).start().await;
    for range in [None, Some("bytes=0-"), Some("bytes=1000000-"), Some("bytes=2000000-")] {
        let call = larder.call("GET", &blob(REPOSITORY, &digest));
        let mut leaving = range
            .map_or_else(|| larder.call("GET", &blob(REPOSITORY, &digest)), |range| call.range(range))
            .open()
            .await;
        leaving.at_least(1).await;
        drop(leaving);
    }
    until("the fill completes without a reader", || larder.stores(&digest)).await;
    assert_eq!(acr.downloads(), 1);
    assert!(larder.get(&blob(REPOSITORY, &digest)).await.body == content);
    assert_eq!(acr.downloads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_16_a_transfer_that_upstream_cuts_goes_on_and_the_client_sees_nothing_of_it() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 8 << 20);
    acr.knobs().damage(Damage::times(DamageKind::Cut, 1_000_000, 3));
    acr.knobs().damage(Damage::once(DamageKind::Reset, 500_000));
    let larder = Setup::of(&acr).start().await;
    assert!(larder.get(&blob(REPOSITORY, &digest)).await.body == content);
    assert_eq!(acr.downloads(), 1, "the rest is asked for by range");
    let resumed: Vec<_> = acr.log().into_iter().filter(Seen::is_blob_body).filter_map(|seen| seen.range).collect();
    assert!(
        resumed.len() >= 4 && resumed.iter().all(|range| range.ends_with('-') && range != "bytes=0-"),
        "{resumed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_16_a_transfer_that_cannot_go_on_ends_broken_and_never_short() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 4 << 20);
    // Every attempt, the resuming ones too, ends before its first byte once a part has come.
    acr.knobs().damage(Damage::once(DamageKind::Cut, 1_000_000));
    acr.knobs().damage(Damage::always(DamageKind::Cut, 0));
    let larder = Setup::of(&acr).start().await;
    let broken = larder.call("GET", &blob(REPOSITORY, &digest)).try_send().await.unwrap_err();
    assert_eq!(broken.answer.header("content-length"), Some(&*content.len().to_string()));
    assert!(broken.answer.body.len() < content.len());
    acr.knobs().reset();
    assert!(larder.get(&blob(REPOSITORY, &digest)).await.body == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_17_wrong_bytes_never_end_cleanly_and_are_not_kept() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 4 << 20);
    let larder = Setup::of(&acr).start().await;
    for damage in [DamageKind::Flip, DamageKind::Short, DamageKind::Long] {
        acr.knobs().damage(Damage::once(damage, 3_000_000));
        let broken = larder.call("GET", &blob(REPOSITORY, &digest)).try_send().await;
        let broken = broken.map(|answer| (answer.status, answer.body.len())).expect_err(&format!("{damage:?}"));
        let announced: usize = broken.answer.header("content-length").unwrap().parse().unwrap();
        assert!(broken.answer.body.len() < announced, "{damage:?}: the end is held back");
        assert!(!larder.stores(&digest), "{damage:?}");
    }
    assert!(larder.get(&blob(REPOSITORY, &digest)).await.body == content, "the next one fetches anew");
    assert!(larder.metric("larder_fills_total{result=\"mismatch\"}").await >= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_18_headers_go_out_as_soon_as_upstreams_are_in() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 16 << 20);
    acr.knobs().turn(|k| k.total_rate = Some(64 << 10));
    let larder = Setup::of(&acr).start().await;
    let began = Instant::now();
    let mut answer = larder.call("GET", &blob(REPOSITORY, &digest)).open().await;
    assert_eq!(answer.headers["content-length"], content.len().to_string());
    answer.at_least(1).await;
    assert!(began.elapsed() < Duration::from_secs(3), "of the four minutes that it takes: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_24_an_upstream_without_length_still_gives_an_answer_with_one() {
    let acr = Acr::start(Options::public()).await;
    acr.knobs().turn(|k| k.chunked = true);
    for size in [1000, 3 << 20] {
        let (digest, content) = large(&acr, REPOSITORY, size);
        let larder = Setup::of(&acr).start().await;
        for method in ["GET", "HEAD", "GET"] {
            let answer = larder.call(method, &blob(REPOSITORY, &digest)).send().await;
            assert_eq!(answer.header("content-length"), Some(&*size.to_string()), "{method} {size}");
            assert_eq!(answer.header("transfer-encoding"), None);
            assert!(method == "HEAD" || answer.body == content);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_28_percent_encoding_is_read_in_paths_and_queries() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for colon in ["%3A", "%3a"] {
        let layer = artifact.layers[0].replace(':', colon);
        assert_eq!(larder.get(&blob(REPOSITORY, &layer)).await.body, content);
        assert_eq!(
            larder.get(&manifest(REPOSITORY, &artifact.digest.replace(':', colon))).await.body,
            artifact.manifest
        );
        let referrers =
            larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest.replace(':', colon))).await;
        assert_eq!(referrers.status, 200);
    }
    assert_eq!(larder.get(&manifest("samples%2Fconfig", "v1")).await.body, artifact.manifest);
    let answer = larder.get(&format!("{}?n%73=myacr%2Eazurecr%2Eio", manifest(REPOSITORY, "v1"))).await;
    assert_eq!((answer.status.as_u16(), answer.header("oci-namespace")), (200, Some(UPSTREAM)));
    assert_eq!(larder.get(&manifest(REPOSITORY, "%ff")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_30_a_signature_that_appears_is_seen_within_seconds_in_spite_of_a_long_ttl() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).tag_ttl(Duration::from_secs(3600)).start().await;
    let tag = format!("{}.sig", artifact.digest.replace(':', "-"));
    assert_eq!(larder.get(&manifest(REPOSITORY, &tag)).await.error().1, "MANIFEST_UNKNOWN");
    let signature = "{\"schemaVersion\":2,\"layers\":[]}";
    acr.push_manifest(REPOSITORY, Some(&tag), OCI_MANIFEST, signature);
    let began = Instant::now();
    while larder.get(&manifest(REPOSITORY, &tag)).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(3), "a 404 is believed for too long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = larder.get(&manifest(REPOSITORY, &tag)).await;
    let ttl = answer.cache_status().split("ttl=").nth(1).unwrap().split(';').next().unwrap().parse::<i64>().unwrap();
    assert!((0..=10).contains(&ttl), "what stands beside an image is not trusted for an hour: {ttl}");
    let referrers = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest)).await;
    let ttl = referrers.cache_status().split("ttl=").nth(1).unwrap().split(';').next().unwrap().parse::<i64>().unwrap();
    assert!((0..=10).contains(&ttl), "nor is the list of what refers to it: {ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_31_a_name_of_255_characters_leaves_room_for_larders_own_prefix() {
    let acr = Acr::start(Options::public()).await;
    let name = format!("{}/{}", "a".repeat(127), "b".repeat(127));
    assert_eq!(name.len(), 255);
    let digest = acr.push_manifest(&name, Some("v1"), OCI_MANIFEST, "{\"layers\":[]}");
    let larder = Setup::of(&acr).start().await;
    for prefix in ["", "/acr", "/myacr.azurecr.io"] {
        let answer = larder.get(&format!("/v2{prefix}/{name}/manifests/v1")).await;
        assert_eq!(answer.header("docker-content-digest"), Some(&*digest), "{prefix}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_32_the_ping_is_answered_in_every_spelling_without_asking_upstream() {
    let acr = Acr::start(Options::default()).await;
    let larder = Setup::of(&acr).start().await;
    let alias = format!("/v2/{ALIAS}/");
    let prefix = format!("/{UPSTREAM}/v2");
    for path in
        ["/v2", "/v2/", &*alias, "/v2/acr", "/v2/myacr.azurecr.io/", &*prefix, "/acr/v2/", "/v2/?ns=myacr.azurecr.io"]
    {
        for method in ["GET", "HEAD"] {
            let answer = larder.call(method, path).send().await;
            assert_eq!(answer.status, 200, "{method} {path}");
            assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
        }
        assert_eq!(larder.get(path).await.json(), serde_json::json!({}));
    }
    for path in ["/v2/nobody/", "/nobody/v2/"] {
        assert_eq!(larder.get(path).await.error().0, 404, "{path}");
    }
    assert!(acr.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_33_the_api_version_is_on_every_answer() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    for (method, target) in [
        ("GET", "/v2/".to_owned()),
        ("GET", manifest(REPOSITORY, "v1")),
        ("HEAD", blob(REPOSITORY, &artifact.layers[0])),
        ("GET", manifest(REPOSITORY, "v0")),
        ("GET", "/v2/_catalog".to_owned()),
        ("PUT", manifest(REPOSITORY, "v1")),
        ("GET", "/nothing".to_owned()),
    ] {
        let answer = larder.call(method, &target).send().await;
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"), "{method} {target}");
    }
}

/// Everything that an answer may carry; whatever else appears came from upstream.
const OWN_HEADERS: [&str; 15] = [
    "accept-ranges",
    "cache-status",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "docker-content-digest",
    "docker-distribution-api-version",
    "link",
    "oci-filters-applied",
    "oci-namespace",
    "retry-after",
    "warning",
    "connection",
    "x-content-type-options",
];

#[tokio::test(flavor = "multi_thread")]
async fn trap_34_and_35_header_sets_are_built_anew_in_both_directions() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let mine = [
        ("Cookie", "session=1"),
        ("X-Forwarded-For", "10.1.2.3"),
        ("Via", "1.1 proxy"),
        ("If-None-Match", "\"x\""),
        ("X-Registry-Auth", "secret"),
        ("User-Agent", "client/1"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Te", "trailers"),
        ("Keep-Alive", "timeout=5"),
    ];
    for (target, whole) in [
        (manifest(REPOSITORY, "v1"), true),
        (blob(REPOSITORY, &artifact.layers[0]), true),
        (blob(REPOSITORY, &artifact.layers[0]), true),
        (format!("/v2/{REPOSITORY}/tags/list"), true),
        (format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest), true),
        (manifest(REPOSITORY, "v0"), false),
    ] {
        let call = mine.iter().fold(larder.call("GET", &target), |call, (name, value)| call.line(name, value));
        let answer = call.send().await;
        assert_eq!(answer.status == 200, whole, "{target}");
        for name in answer.headers.keys() {
            assert!(OWN_HEADERS.contains(&name.as_str()), "{target} answers with {name}");
            assert_eq!(answer.lines(name.as_str()).len(), 1, "{name}");
        }
    }
    for seen in acr.log() {
        for (name, value) in mine {
            let sent = seen.headers.get(name).map(|sent| sent.to_str().unwrap());
            assert_ne!(sent, Some(value), "{name} of the client at {}", seen.target);
        }
    }
}
