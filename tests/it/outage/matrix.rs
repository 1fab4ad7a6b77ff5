//! Every way in which an upstream is known to fail, and what a client gets in each: the table of `docs/upstream.md`, row by row.

use super::blackhole::Blackhole;
use crate::harness::simulator::{FaultAnswer, Options, PathClass};
use crate::harness::{Acr, Answer, Larder, OTHER, PATIENCE, Setup, until};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// What a request that waits for nobody may take on a machine that runs all the others too.
const AT_ONCE: Duration = Duration::from_millis(700);
/// What upstreams get in this test.
const REVALIDATE_WAIT: Duration = Duration::from_millis(400);
const FIRST_BYTE: Duration = Duration::from_millis(1500);
/// Nothing is waited for longer than for a token and an answer, one after the other.
const LIMIT: Duration = Duration::from_secs(4);

/// One row.
struct Class {
    /// How the row begins.
    name: &'static str,
    tls: bool,
    fault: Fault,
    /// For a stored tag whose time is over: the row's word, the status.
    expired: (&'static str, u16),
    /// For what is not stored: status, code, and what the message has to say.
    cold: (u16, &'static str, &'static str),
    /// Whether the upstream counts as away.
    outage: bool,
    /// A metric's name, and a label, that count the class.
    metric: (&'static str, &'static str),
}

enum Fault {
    Knobs(fn(&Acr)),
    Answer(PathClass, FaultAnswer),
    /// No connection.
    Gone,
    /// Somebody else at the registry's address, who does not speak TLS.
    Impostor,
    /// Packets vanish.
    Blackhole,
}

const STALE: (&str, u16) = ("200 `stale`", 200);
const ERROR: (&str, &str) = ("larder_upstream_requests_total", "code=\"error\"");

fn class(name: &'static str, fault: Fault, cold: (u16, &'static str, &'static str)) -> Class {
    Class { name, tls: false, fault, expired: STALE, cold, outage: true, metric: ERROR }
}

fn status(status: u16, body: &str) -> Fault {
    Fault::Answer(PathClass::Login, FaultAnswer::Status { status, body: body.to_owned() })
}

fn oci(status: u16, code: &str) -> Fault {
    let (code, message) = (code.to_owned(), "the registry's own words".to_owned());
    Fault::Answer(PathClass::Manifests, FaultAnswer::Oci { status, code, message })
}

fn throttled(retry_after_s: Option<u64>, front_door: bool) -> Fault {
    Fault::Answer(PathClass::Manifests, FaultAnswer::TooManyRequests { retry_after_s, counts_down: false, front_door })
}

fn counted(class: Class, name: &'static str, label: &'static str) -> Class {
    Class { metric: (name, label), ..class }
}

fn classes() -> Vec<Class> {
    let requests = "larder_upstream_requests_total";
    let throttles = "larder_upstream_throttled_total";
    let portal = |status| Fault::Answer(PathClass::Login, FaultAnswer::Portal { status });
    vec![
        class("connection refused", Fault::Gone, (504, "UNKNOWN", "refused")),
        class("connection reset", Fault::Knobs(|acr| acr.knobs().turn(|k| k.login.reset = true)), (504, "UNKNOWN", "")),
        class("packets vanish (no RST)", Fault::Blackhole, (504, "UNKNOWN", "no connection to")),
        class(
            "accepts and never answers",
            Fault::Knobs(|acr| acr.knobs().turn(|k| k.login.hang = true)),
            (504, "UNKNOWN", "did not begin to answer within"),
        ),
        class(
            "headers later than `first_byte_timeout`",
            Fault::Knobs(|acr| acr.knobs().turn(|k| k.login.delay_ms = 60_000)),
            (504, "UNKNOWN", "did not begin to answer within"),
        ),
        Class { tls: true, ..class("TLS broken", Fault::Impostor, (502, "UNKNOWN", "TLS with")) },
        counted(class("503 without a body", status(503, ""), (502, "UNKNOWN", "503")), requests, "code=\"503\""),
        counted(
            class("502 with a page", status(502, "<html>bad gateway</html>"), (502, "UNKNOWN", "502")),
            requests,
            "code=\"502\"",
        ),
        counted(
            class("429 with `Retry-After`", throttled(Some(3), false), (429, "TOOMANYREQUESTS", "throttles")),
            throttles,
            "upstream",
        ),
        counted(
            class(
                "429 without `Retry-After`, body no JSON",
                throttled(None, true),
                (429, "TOOMANYREQUESTS", "throttles"),
            ),
            throttles,
            "upstream",
        ),
        counted(
            class(
                "403 of the firewall",
                Fault::Knobs(|acr| acr.knobs().turn(|k| k.firewall = true)),
                (403, "DENIED", "the firewall of"),
            ),
            requests,
            "code=\"403\"",
        ),
        counted(
            class(
                "401 to larder's own login",
                Fault::Knobs(|acr| {
                    acr.revoke_tokens();
                    acr.knobs().fail(PathClass::Token, FaultAnswer::empty(401));
                }),
                (403, "DENIED", "user ci"),
            ),
            "larder_token_requests_total",
            "result=\"refused\"",
        ),
        counted(
            Class {
                expired: ("403 `DENIED`", 403),
                outage: false,
                ..class("403 for the repository", oci(403, "DENIED"), (403, "DENIED", "refuses it to user ci"))
            },
            requests,
            "code=\"403\"",
        ),
        counted(
            Class {
                expired: ("404 `MANIFEST_UNKNOWN`", 404),
                outage: false,
                ..class("404 of the registry", oci(404, "MANIFEST_UNKNOWN"), (404, "MANIFEST_UNKNOWN", "own words"))
            },
            requests,
            "code=\"404\"",
        ),
        counted(
            class("404 of a portal", portal(404), (502, "UNKNOWN", "not as a registry does")),
            requests,
            "code=\"404\"",
        ),
        counted(class("200 with a web page", portal(200), (502, "UNKNOWN", "web page")), requests, "code=\"200\""),
        counted(
            class(
                "redirect to somebody else",
                Fault::Knobs(|acr| {
                    let location = format!("http://{}/portal", acr.storage_host());
                    acr.knobs().fail(PathClass::Login, FaultAnswer::ForeignRedirect { location });
                }),
                (502, "UNKNOWN", ""),
            ),
            requests,
            "code=\"302\"",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_has_its_answer_its_limit_and_its_metric_and_recovers() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/upstream.md")).unwrap();
    // A few at a time: more would measure the machine.
    let mut waiting = classes().into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < 4
            && let Some(class) = waiting.next()
        {
            let row =
                format!("| {} | 200 `hit` | {} | {} `{}` |", class.name, class.expired.0, class.cold.0, class.cold.1);
            assert!(document.contains(&row), "docs/upstream.md lacks the row\n{row}");
            running.spawn(hold(class));
        }
        match running.join_next().await {
            Some(ended) => ended.unwrap(),
            None => return,
        }
    }
}

async fn hold(class: Class) {
    let acr = Acr::start(Options { tls: class.tls, ..Options::private("ci", "pw") }).await;
    acr.forgive();
    let artifact = acr.push_artifact("a/b", "v1", &[("x", "text/plain", Bytes::from_static(b"content"))]);
    acr.push_artifact("a/b", "cold", &[("y", "text/plain", Bytes::from_static(b"other"))]);
    let larder = start(&acr).await;
    let blob = format!("/v2/a/b/blobs/{}", artifact.layers[0]);
    for target in ["/v2/a/b/manifests/v1", "/v2/other/a/b/manifests/v1", &blob] {
        assert_eq!(larder.get(target).await.status, 200, "{}: {target}", class.name);
    }
    // An answer may end before its blob is in its place, and the next one then comes from the download.
    until("the layer is in its place", || larder.stores(&artifact.layers[0])).await;
    let impostor = begin(&class.fault, &acr).await;
    within_ttl(&class, &larder, &blob).await;
    expired(&class, &larder).await;
    cold(&class, &larder).await;
    metrics(&class, &larder).await;
    if let Some(impostor) = impostor {
        impostor.abort();
        let _ = impostor.await;
    }
    acr.knobs().reset();
    acr.resume_listening();
    let deadline = Instant::now() + PATIENCE;
    while !recovered(&larder).await {
        assert!(Instant::now() < deadline, "{}: no recovery without a restart", class.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn recovered(larder: &Larder) -> bool {
    let tag = larder.get("/v2/other/a/b/manifests/v1").await;
    let cold = larder.get("/v2/other/a/b/manifests/cold").await;
    tag.status == 200 && tag.header("warning").is_none() && cold.status == 200
}

/// Two upstreams at one registry: tags of the first are good for an hour, those of the second never.
async fn start(acr: &Acr) -> Larder {
    let mut setup = Setup::of(acr).and(acr).password("ci", "pw").tag_ttl(Duration::from_secs(3600));
    let ca_file = acr.ca_pem().map(|pem| setup.file("ca.pem", &pem));
    setup = setup.with(|settings| {
        settings.upstreams[1].credential = settings.upstreams[0].credential.clone();
        settings.upstreams[1].freshness.tag_ttl = Duration::ZERO;
        for upstream in &mut settings.upstreams {
            upstream.freshness.revalidate_wait = REVALIDATE_WAIT;
            upstream.freshness.negative_ttl = Duration::from_millis(500);
            upstream.first_byte_timeout = FIRST_BYTE;
            upstream.connect_timeout = FIRST_BYTE;
            upstream.ca_file.clone_from(&ca_file);
        }
    });
    setup.start().await
}

/// Gives the task that plays the impostor, if there is one.
async fn begin(fault: &Fault, acr: &Acr) -> Option<JoinHandle<()>> {
    match fault {
        Fault::Knobs(turn) => turn(acr),
        Fault::Answer(on, answer) => acr.knobs().fail(*on, answer.clone()),
        Fault::Gone => acr.stop_listening(),
        Fault::Blackhole => {
            acr.stop_listening();
            let hole = Blackhole::at(&acr.host()).await;
            return Some(tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(hole);
            }));
        }
        Fault::Impostor => {
            acr.stop_listening();
            let host = acr.host();
            let listener = loop {
                match TcpListener::bind(&host).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            };
            return Some(tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
                }
            }));
        }
    }
    None
}

async fn timed(larder: &Larder, target: &str) -> (Answer, Duration) {
    let begun = Instant::now();
    let answer = larder.get(target).await;
    (answer, begun.elapsed())
}

async fn within_ttl(class: &Class, larder: &Larder, blob: &str) {
    for target in ["/v2/a/b/manifests/v1", blob] {
        for _ in 0..5 {
            let (answer, took) = timed(larder, target).await;
            assert_eq!(answer.status, 200, "{}: {target}", class.name);
            assert!(answer.cache_status().starts_with("larder; hit"), "{}: {}", class.name, answer.cache_status());
            assert!(took < AT_ONCE, "{}: a hit took {took:?}", class.name);
        }
    }
}

async fn expired(class: &Class, larder: &Larder) {
    for attempt in 0..5 {
        let (answer, took) = timed(larder, "/v2/other/a/b/manifests/v1").await;
        assert_eq!(answer.status, class.expired.1, "{}: expired", class.name);
        if class.expired == STALE {
            assert!(answer.cache_status().ends_with("detail=stale"), "{}: {}", class.name, answer.cache_status());
            assert!(answer.header("warning").unwrap().contains("stored copy"), "{}", class.name);
            let limit = AT_ONCE + if attempt == 0 { REVALIDATE_WAIT } else { Duration::ZERO };
            assert!(took < limit, "{}: attempt {attempt} for an expired tag took {took:?}", class.name);
        }
    }
}

async fn cold(class: &Class, larder: &Larder) {
    let (status, code, words) = class.cold;
    for target in ["/v2/other/a/b/manifests/cold", "/v2/other/a/b/manifests/none"] {
        let (answer, took) = timed(larder, target).await;
        let (said, said_code, message) = answer.error();
        assert_eq!((said, said_code.as_str()), (status, code), "{}: {message}", class.name);
        assert!(message.contains(words), "{}: {message}", class.name);
        assert!(took < LIMIT, "{}: {took:?}", class.name);
        if status == 429 {
            let after: u64 = answer.header("retry-after").expect("the seconds left").parse().unwrap();
            assert!((1..=60).contains(&after), "{}: {after}", class.name);
        }
    }
}

async fn metrics(class: &Class, larder: &Larder) {
    let upstream = format!("upstream=\"{OTHER}\"");
    let (name, label) = class.metric;
    let lines = larder.metric_lines(name).await;
    let counts = |line: &&String| line.contains(&upstream) && line.contains(label) && !line.ends_with(" 0");
    assert!(lines.iter().any(|line| counts(&line)), "{}: {name} {label}: {lines:?}", class.name);
    let up = larder.metric(&format!("larder_upstream_up{{{upstream}}}")).await;
    assert_eq!(up == 0, class.outage, "{}: larder_upstream_up", class.name);
}
