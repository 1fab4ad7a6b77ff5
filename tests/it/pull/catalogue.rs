//! `/v2/_catalog` without an upstream's name: everything that can be pulled from larder, each as it can be pulled.

use crate::harness::simulator::{OCI_MANIFEST, Options};
use crate::harness::{ALIAS, Acr, Answer, Larder, OTHER, OTHER_ALIAS, Setup, UPSTREAM, until_async};
use larder::config::UpstreamSettings;
use larder::oci::Registry;
use std::time::Duration;

/// Two upstreams whose catalogues larder may read.
async fn two() -> (Acr, Acr, Setup) {
    let (acr, other) = (Acr::start(Options::private("ci", "pw")).await, Acr::start(Options::private("ci", "pw")).await);
    let setup = Setup::of(&acr).and(&other).password("ci", "pw");
    let setup = setup.with(|settings| settings.upstreams[1].credential = settings.upstreams[0].credential.clone());
    (acr, other, setup)
}

fn fill(acr: &Acr, names: &[&str]) {
    for name in names {
        acr.push_manifest(
            name,
            Some("v1"),
            OCI_MANIFEST,
            format!("{{\"layers\":[],\"annotations\":{{\"n\":\"{name}\"}}}}"),
        );
    }
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_value(answer.json()["repositories"].clone()).unwrap()
}

async fn walk(larder: &Larder, first: &str) -> Vec<Vec<String>> {
    let (mut target, mut pages) = (first.to_owned(), Vec::new());
    loop {
        let answer = larder.get(&target).await;
        pages.push(names(&answer));
        let Some(link) = answer.header("link") else { return pages };
        link[1..].split('>').next().unwrap().clone_into(&mut target);
    }
}

/// Ten seconds, well below what the head of its answer may take.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_keeps_the_others_repositories_waiting_for_ten_seconds() {
    let (acr, other, setup) = two().await;
    fill(&acr, &["a"]);
    fill(&other, &["b"]);
    let larder = setup.start().await;
    other.knobs().turn(|knobs| knobs.login.hang = true);
    let begun = tokio::time::Instant::now();
    let answer = larder.get("/v2/_catalog").await;
    let waited = begun.elapsed();
    assert_eq!(names(&answer), ["a"]);
    assert!(answer.header("warning").is_some_and(|warning| warning.contains(OTHER)), "{answer:?}");
    assert!(waited > Duration::from_secs(9) && waited < Duration::from_secs(25), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_every_upstream_is_listed_as_it_can_be_pulled() {
    let (acr, other, setup) = two().await;
    // Some of them look like another upstream's, or begin with an alias of their own.
    fill(&acr, &["samples/config", "other", "other/a", "acr/b", "other.azurecr.io/a"]);
    fill(&other, &["a", "samples/config", "acr/c"]);
    let larder = setup.start().await;
    let answer = larder.get("/v2/_catalog").await;
    let all = [
        "myacr.azurecr.io/acr/b",
        "myacr.azurecr.io/other.azurecr.io/a",
        "myacr.azurecr.io/other/a",
        "other",
        "other.azurecr.io/a",
        "other.azurecr.io/acr/c",
        "other.azurecr.io/samples/config",
        "samples/config",
    ];
    assert_eq!(names(&answer), all);
    assert_eq!((answer.header("content-type"), answer.header("warning")), (Some("application/json"), None));
    for (name, whose, real) in [
        (all[0], &acr, "acr/b"),
        (all[1], &acr, "other.azurecr.io/a"),
        (all[2], &acr, "other/a"),
        (all[3], &acr, "other"),
        (all[4], &other, "a"),
        (all[5], &other, "acr/c"),
        (all[6], &other, "samples/config"),
        (all[7], &acr, "samples/config"),
    ] {
        let before = whose.count(|seen| seen.path() == format!("/v2/{real}/manifests/v1") && seen.status == 200);
        let answer = larder.get(&format!("/v2/{name}/manifests/v1")).await;
        assert!(answer.status == 200 && answer.text().contains(real), "{name}: {answer:?}");
        let after = whose.count(|seen| seen.path() == format!("/v2/{real}/manifests/v1") && seen.status == 200);
        assert!(after > before, "{name} is {real} of the right upstream");
    }
    for n in 1..=9 {
        let pages = walk(&larder, &format!("/v2/_catalog?n={n}")).await;
        assert_eq!((pages.len(), pages.concat()), (all.len().div_ceil(n), all.map(str::to_owned).into()), "n={n}");
    }
    let behind = larder.get("/v2/_catalog?last=other.azurecr.io%2Faa&n=1").await;
    assert_eq!(names(&behind), ["other.azurecr.io/acr/c"], "a last that is not there is placed by comparison");
    let head = larder.head("/v2/_catalog").await;
    assert_eq!(head.header("content-length"), Some(&*answer.body.len().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_an_upstream_gets_that_one_alone() {
    let (acr, other, setup) = two().await;
    fill(&acr, &["a"]);
    fill(&other, &["b"]);
    let larder = setup.start().await;
    for (target, host, expected) in [
        (format!("/v2/{OTHER}/_catalog"), None, format!("{OTHER}/b")),
        (format!("/v2/{OTHER_ALIAS}/_catalog"), None, format!("{OTHER_ALIAS}/b")),
        (format!("/{OTHER_ALIAS}/v2/_catalog"), None, "b".to_owned()),
        (format!("/v2/_catalog?ns={OTHER}"), None, "b".to_owned()),
        ("/v2/_catalog".to_owned(), Some(OTHER), "b".to_owned()),
        ("/v2/_catalog".to_owned(), Some(UPSTREAM), "a".to_owned()),
        (format!("/v2/{ALIAS}/_catalog"), None, format!("{ALIAS}/a")),
    ] {
        let call = larder.call("GET", &target);
        let call = if let Some(host) = host { call.host(host) } else { call };
        assert_eq!(names(&call.send().await), [expected], "{target} {host:?}");
    }
}

/// An upstream that is away is answered for by what was seen of it; one that lists nothing to us is left out. Both are said.
#[tokio::test(flavor = "multi_thread")]
async fn one_upstream_that_fails_does_not_fail_the_list() {
    let (acr, other, setup) = two().await;
    fill(&acr, &["a"]);
    fill(&other, &["b"]);
    let third = Acr::start(Options::public()).await;
    fill(&third, &["c"]);
    let url = third.url();
    let setup = setup.tag_ttl(Duration::ZERO).with(|settings| {
        settings.upstreams[1].freshness.tag_ttl = Duration::ZERO;
        settings.upstreams.push(UpstreamSettings {
            aliases: vec!["third".to_owned()],
            ..UpstreamSettings::new(Registry::new("registry.local:5000"), url.parse().unwrap())
        });
    });
    let larder = setup.start().await;
    let answer = larder.get("/v2/_catalog").await;
    assert_eq!(names(&answer), ["a", "other.azurecr.io/b"]);
    let warning = answer.header("warning").unwrap();
    assert!(warning.starts_with("299 - \"") && warning.contains("registry.local:5000"), "{warning}");
    other.stop_listening();
    let mut last = None;
    until_async("the stored list stands in", async || {
        let answer = larder.get("/v2/_catalog").await;
        assert_eq!(names(&answer), ["a", "other.azurecr.io/b"]);
        last = answer.header("warning").map(str::to_owned);
        last.as_ref().is_some_and(|warning| warning.contains("other.azurecr.io as it was last seen"))
    })
    .await;
    // Nobody has ever listed this one, and nobody can.
    drop(larder);
    let mut fresh = Setup::of(&acr).and(&other).password("ci", "pw");
    fresh.settings.upstreams[1].credential = fresh.settings.upstreams[0].credential.clone();
    let larder = fresh.start().await;
    let answer = larder.get("/v2/_catalog").await;
    assert_eq!(names(&answer), ["a"]);
    assert!(answer.header("warning").unwrap().contains("other.azurecr.io left out"), "{:?}", answer.header("warning"));
}

/// With every upstream away and nothing stored there is nothing to list, and that is an error with its reason.
#[tokio::test(flavor = "multi_thread")]
async fn no_list_at_all_is_an_error() {
    let (acr, other, setup) = two().await;
    acr.stop_listening();
    other.stop_listening();
    let larder = setup.start().await;
    let (status, _, message) = larder.get("/v2/_catalog").await.error();
    assert_eq!(status, 504, "{message}");
    assert!(message.contains(UPSTREAM), "{message}");
}

/// An upstream whose name has a port goes by its alias; without one there is no path to its repositories.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_a_port_is_listed_by_its_alias() {
    let (acr, other, setup) = two().await;
    fill(&acr, &["a"]);
    fill(&other, &["b"]);
    let rename = |aliases: Vec<String>| {
        setup.clone().with(|settings| {
            settings.upstreams[1].name = Registry::new("registry.local:5000");
            settings.upstreams[1].aliases = aliases;
        })
    };
    let larder = rename(vec!["local".to_owned()]).start().await;
    assert_eq!(names(&larder.get("/v2/_catalog").await), ["a", "local/b"]);
    assert_eq!(larder.get("/v2/local/b/manifests/v1").await.status, 200);
    larder.stop().await;
    let larder = rename(Vec::new()).start().await;
    let answer = larder.get("/v2/_catalog").await;
    assert_eq!(names(&answer), ["a"]);
    assert!(answer.header("warning").unwrap().contains("alias"), "{:?}", answer.header("warning"));
}
