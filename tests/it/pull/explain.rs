//! Every answer says why it came from where it came, with the same word in header, log and metric.

use crate::harness::simulator::{Options, PathClass};
use crate::harness::{Acr, Answer, Larder, Setup, UPSTREAM, raw, until, until_async};
use crate::pull::{REPOSITORY, blob, large, manifest, seed};
use std::time::Duration;

/// The word in `Cache-Status`, as RFC 9211 lets it be read.
fn word(header: &str) -> &'static str {
    let has = |part: &str| header.split("; ").any(|item| item == part);
    match header {
        _ if has("detail=negative") => "negative",
        _ if has("hit") => "hit",
        _ if has("detail=coalesced") && has("collapsed") => "coalesced",
        _ if has("detail=stale") && has("fwd=stale") => "stale",
        _ if has("detail=revalidated") && has("fwd=stale") => "revalidated",
        _ if has("fwd=bypass") => "bypass",
        _ if has("fwd=miss") => "miss",
        _ => panic!("no word in '{header}'"),
    }
}

/// Checks the last answer's word in all three places.
struct Witness<'a> {
    larder: &'a Larder,
    lines: usize,
}

impl Witness<'_> {
    async fn agrees(&mut self, answer: &Answer, kind: &str, expected: &str) {
        let header = answer.cache_status();
        assert!(header.starts_with("larder; "), "{header}");
        assert_eq!(word(header), expected, "{kind}: {header}");
        self.lines += 1;
        let lines = self.larder.requests_when(self.lines).await;
        let line = &lines[self.lines - 1];
        assert_eq!(line["cache_status"], expected, "{kind}: {line}");
        assert_eq!(line["status"], answer.status.as_u16(), "{line}");
        assert_eq!(line["upstream"], UPSTREAM, "{line}");
        let counted = lines.iter().filter(|line| line["cache_status"] == expected && of(line) == kind).count();
        let series =
            format!("larder_cache_requests_total{{kind=\"{kind}\",result=\"{expected}\",upstream=\"{UPSTREAM}\"}}");
        assert_eq!(self.larder.metric(&series).await, counted as u64, "{series}");
    }
}

/// The metric's `kind` of a request line.
fn of(line: &serde_json::Value) -> &str {
    match line["route"].as_str().unwrap() {
        "manifest" if line["reference"].is_string() => "tag",
        route => route,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_log_line_and_metric_use_the_same_word() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let layer = &artifact.layers[0];
    acr.push_blob("second", "{\"environment\":\"production\"}");
    let larder = Setup::of(&acr).start().await;
    let mut witness = Witness { larder: &larder, lines: 0 };
    witness.agrees(&larder.get(&manifest(REPOSITORY, "v1")).await, "tag", "miss").await;
    witness.agrees(&larder.get(&manifest(REPOSITORY, "v1")).await, "tag", "hit").await;
    witness.agrees(&larder.head(&manifest(REPOSITORY, "v1")).await, "tag", "hit").await;
    witness.agrees(&larder.get(&manifest(REPOSITORY, &artifact.digest)).await, "manifest", "hit").await;
    let fresh = larder.call("GET", &manifest(REPOSITORY, "v1")).line("Cache-Control", "max-age=0, no-cache");
    witness.agrees(&fresh.send().await, "tag", "revalidated").await;
    witness.agrees(&larder.get(&blob(REPOSITORY, layer)).await, "blob", "miss").await;
    until("the blob is stored", || larder.stores(layer)).await;
    witness.agrees(&larder.get(&blob(REPOSITORY, layer)).await, "blob", "hit").await;
    witness.agrees(&larder.call("GET", &blob(REPOSITORY, layer)).range("bytes=1-2").send().await, "blob", "hit").await;
    witness.agrees(&larder.get(&blob("second", layer)).await, "blob", "revalidated").await;
    let absent = larder.get(&manifest(REPOSITORY, "v0")).await;
    assert_eq!((absent.status.as_u16(), absent.cache_status()), (404, "larder; fwd=miss"));
    witness.agrees(&absent, "tag", "miss").await;
    witness.agrees(&larder.get(&manifest(REPOSITORY, "v0")).await, "tag", "negative").await;
    let tags = format!("/v2/{REPOSITORY}/tags/list");
    witness.agrees(&larder.get(&tags).await, "tags", "miss").await;
    witness.agrees(&larder.get(&tags).await, "tags", "hit").await;
    acr.stop_listening();
    let fresh = larder.call("GET", &manifest(REPOSITORY, "v1")).line("Cache-Control", "no-cache");
    witness.agrees(&fresh.send().await, "tag", "stale").await;
    let away = larder.get(&blob(REPOSITORY, &crate::pull::unknown_digest())).await;
    assert_eq!(away.status, 504);
    witness.agrees(&away, "blob", "miss").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joined_download_is_coalesced_and_a_part_ahead_of_it_a_marked_bypass() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 12 << 20);
    acr.knobs().turn(|k| k.connection_rate = Some(6 << 20));
    let larder = Setup::of(&acr).start().await;
    let first = larder.call("GET", &blob(REPOSITORY, &digest)).open().await;
    assert_eq!(word(first.headers["cache-status"].to_str().unwrap()), "miss");
    let second = larder.call("GET", &blob(REPOSITORY, &digest)).open().await;
    assert_eq!(word(second.headers["cache-status"].to_str().unwrap()), "coalesced");
    let part = larder.call("GET", &blob(REPOSITORY, &digest)).range("bytes=12000000-12000009").send().await;
    assert_eq!(word(part.cache_status()), "bypass");
    assert!(part.cache_status().ends_with("detail=unverified"), "{}", part.cache_status());
    assert_eq!(part.body, content[12_000_000..12_000_010]);
    let (first, second) = tokio::join!(first.rest(), second.rest());
    assert!(first.unwrap().body == content && second.unwrap().body == content);
    let lines = larder.requests_when(3).await;
    let mut words: Vec<&str> = lines.iter().map(|line| line["cache_status"].as_str().unwrap()).collect();
    words.sort_unstable();
    assert_eq!(words, ["bypass", "coalesced", "miss"]);
    for result in words {
        let series =
            format!("larder_cache_requests_total{{kind=\"blob\",result=\"{result}\",upstream=\"{UPSTREAM}\"}}");
        assert_eq!(larder.metric(&series).await, 1, "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_counted_by_where_they_came_from() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 1 << 20);
    let larder = Setup::of(&acr).start().await;
    larder.get(&blob(REPOSITORY, &digest)).await;
    until("the blob is stored", || larder.stores(&digest)).await;
    for _ in 0..3 {
        larder.get(&blob(REPOSITORY, &digest)).await;
    }
    larder.requests_when(4).await;
    let size = content.len() as u64;
    let from = |source| format!("larder_response_bytes_total{{source=\"{source}\",upstream=\"{UPSTREAM}\"}}");
    assert_eq!(larder.metric(&from("upstream")).await, size);
    assert_eq!(larder.metric(&from("cache")).await, 3 * size);
    let received = larder.metric(&format!("larder_upstream_received_bytes_total{{upstream=\"{UPSTREAM}\"}}")).await;
    assert!((size..size + 4096).contains(&received), "{received}");
    assert_eq!(larder.metric("larder_fills_total{result=\"stored\"}").await, 1);
    assert_eq!(larder.metric("larder_fills_inflight").await, 0);
    assert_eq!(larder.metric("larder_http_inflight_requests").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_29_a_stale_answer_carries_a_warning_that_clients_print_and_says_since_when() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).tag_ttl(Duration::ZERO).start().await;
    let answer = larder.get(&manifest(REPOSITORY, "v1")).await;
    assert_eq!((answer.header("warning"), word(answer.cache_status())), (None, "miss"));
    let again = larder.get(&manifest(REPOSITORY, "v1")).await;
    assert_eq!((again.header("warning"), word(again.cache_status())), (None, "revalidated"));
    assert_eq!(acr.manifest_requests("GET"), 1, "asked again with HEAD, not fetched again");
    acr.stop_listening();
    for method in ["GET", "HEAD"] {
        let stale = larder.call(method, &manifest(REPOSITORY, "v1")).send().await;
        assert_eq!((stale.status.as_u16(), word(stale.cache_status())), (200, "stale"));
        let warning = stale.header("warning").unwrap();
        assert!(warning.starts_with("299 - \"") && warning.ends_with('"') && warning.len() < 4096, "{warning}");
        assert_eq!(stale.header("docker-content-digest"), Some(&*artifact.digest));
    }
    // Upstream is left alone for a moment after a failure: the reason is still told.
    let again = larder.get(&manifest(REPOSITORY, "v1")).await;
    assert!(again.header("warning").unwrap().contains("cannot ask for manifest v1"), "{:?}", again.header("warning"));
    let by_digest = larder.get(&manifest(REPOSITORY, &artifact.digest)).await;
    assert_eq!((by_digest.header("warning"), word(by_digest.cache_status())), (None, "hit"), "a digest is never stale");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_far_side_can_be_found_in_the_log_by_the_number_that_the_client_was_told() {
    let acr = Acr::start(Options::public()).await;
    acr.knobs().fail(PathClass::Manifests, crate::harness::simulator::FaultAnswer::empty(500));
    let larder = Setup::of(&acr).start().await;
    let answer = larder.get(&manifest(REPOSITORY, "v1")).await;
    let number = answer.json()["errors"][0]["detail"].as_str().unwrap().to_owned();
    let lines = larder.requests_when(1).await;
    assert_eq!((&lines[0]["request_id"], &lines[0]["status"]), (&number.into(), &502.into()));
    assert!(lines[0]["detail"].as_str().unwrap().contains(UPSTREAM), "{}", lines[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_says_who_asked_for_what_and_how_it_ended() {
    let acr = Acr::start(Options::public()).await;
    let (digest, content) = large(&acr, REPOSITORY, 8 << 20);
    let larder = Setup::of(&acr).start().await;
    let call = larder.call("GET", &blob(REPOSITORY, &digest)).line("User-Agent", "oras/1.3.3 \"quoted\"\\");
    call.send().await;
    until("the blob is stored", || larder.stores(&digest)).await;
    let mut leaving = larder.call("GET", &blob(REPOSITORY, &digest)).open().await;
    leaving.at_least(1).await;
    drop(leaving);
    let lines = larder.requests_when(2).await;
    let line = &lines[0];
    for (key, value) in [
        ("method", "GET"),
        ("route", "blob"),
        ("repo.name", REPOSITORY),
        ("upstream", UPSTREAM),
        ("digest", &*digest),
        ("client", "127.0.0.1"),
        ("user_agent", "oras/1.3.3 \"quoted\"\\"),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!((&line["bytes"], &line["status"]), (&content.len().into(), &200.into()));
    assert!(lines[1]["detail"].as_str().is_some_and(|detail| detail.contains("went away")), "{}", lines[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_for_how_long_it_is_good_unless_it_is_good_for_ever() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    acr.push_manifest(REPOSITORY, Some("latest"), crate::harness::simulator::OCI_MANIFEST, artifact.manifest.clone());
    let setup = Setup::of(&acr).tag_ttl(Duration::from_secs(100));
    let larder = setup.upstream(|upstream| upstream.freshness.immutable_tags = vec!["v*".into()]).start().await;
    for (reference, cold, warm) in [
        ("latest", "larder; fwd=miss; stored; ttl=", "larder; hit; ttl="),
        ("v1", "larder; fwd=miss; stored", "larder; hit"),
        (&artifact.digest, "larder; hit", "larder; hit"),
    ] {
        for expected in [cold, warm] {
            let answer = larder.get(&manifest(REPOSITORY, reference)).await;
            let rest =
                answer.cache_status().strip_prefix(expected).unwrap_or_else(|| panic!("{reference}: {answer:?}"));
            let seconds = rest.parse::<u64>().ok();
            assert_eq!(
                seconds.is_some_and(|left| (90..=100).contains(&left)),
                expected.ends_with("ttl="),
                "{reference}: {rest}"
            );
            assert!(expected.ends_with("ttl=") || rest.is_empty(), "{reference}: {rest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_connections_are_counted_until_they_end() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    assert_eq!(larder.metric("larder_http_connections").await, 0);
    let sockets = [raw::send(larder.address, "").await, raw::send(larder.address, "").await];
    until_async("both are counted", async || larder.metric("larder_http_connections").await == 2).await;
    drop(sockets);
    until_async("both are gone", async || larder.metric("larder_http_connections").await == 0).await;
}
