//! Tags, catalogue, referrers: fetched whole, cut here, kept for an outage.

use crate::harness::simulator::{FaultAnswer, OCI_INDEX, OCI_MANIFEST, Options, PathClass};
use crate::harness::{ALIAS, Acr, Answer, Larder, Setup, UPSTREAM, sha256};
use crate::pull::{REPOSITORY, seed, unknown_digest};
use std::time::Duration;

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.cncf.notary.signature";

/// A registry with an admin user: catalogues are for those who log in.
async fn private() -> (Acr, Setup) {
    let acr = Acr::start(Options::private("ci", "pw")).await;
    let setup = Setup::of(&acr).password("ci", "pw");
    (acr, setup)
}

fn tags(acr: &Acr, count: usize) -> Vec<String> {
    let tags: Vec<String> = (0..count).map(|number| format!("v{number:04}")).collect();
    for tag in &tags {
        acr.push_manifest(REPOSITORY, Some(tag), OCI_MANIFEST, "{\"layers\":[]}");
    }
    tags
}

fn refer(acr: &Acr, subject: &str, artifact_type: Option<&str>, number: usize) -> String {
    let own = artifact_type.map(|kind| format!("\"artifactType\":\"{kind}\",")).unwrap_or_default();
    let content = format!(
        "{{\"schemaVersion\":2,{own}\"layers\":[],\"annotations\":{{\"number\":\"{number}\"}},\"subject\":{{\"digest\":\"{subject}\"}}}}"
    );
    acr.push_manifest(REPOSITORY, None, OCI_MANIFEST, content)
}

fn names(answer: &Answer, key: &str) -> Vec<String> {
    answer.json()[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// Follows `Link` as clients do, and checks that it stays with larder.
async fn walk(larder: &Larder, first: &str, key: &str) -> Vec<Vec<String>> {
    let (mut target, mut pages) = (first.to_owned(), Vec::new());
    loop {
        let answer = larder.get(&target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        pages.push(names(&answer, key));
        let Some(link) = answer.header("link") else { return pages };
        let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap();
        assert!(next.starts_with('/') && !next.starts_with("//"), "relative: {link}");
        next.clone_into(&mut target);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_08_tags_come_whole_over_all_of_upstreams_pages_and_are_cut_here() {
    let (acr, setup) = private().await;
    acr.knobs().turn(|k| k.list_cap = 40);
    let all = tags(&acr, 250);
    let larder = setup.start().await;
    let whole = larder.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    assert_eq!(whole.json(), serde_json::json!({"name": REPOSITORY, "tags": all}));
    assert_eq!(whole.header("link"), None);
    let fetched = acr.count(|seen| seen.path().ends_with("/tags/list") && seen.status == 200);
    assert_eq!(fetched, 7, "all of upstream's pages");

    let pages = walk(&larder, &format!("/v2/{REPOSITORY}/tags/list?n=100"), "tags").await;
    assert_eq!((pages.iter().map(Vec::len).collect::<Vec<_>>(), pages.concat()), (vec![100, 100, 50], all.clone()));
    let answer = larder.get(&format!("/v2/{REPOSITORY}/tags/list?n=2&last=v0100")).await;
    assert_eq!(names(&answer, "tags"), ["v0101", "v0102"]);
    let answer = larder.get(&format!("/v2/{REPOSITORY}/tags/list?last=v0247x")).await;
    assert_eq!(names(&answer, "tags"), ["v0248", "v0249"]);
    let none = larder.get(&format!("/v2/{REPOSITORY}/tags/list?n=0")).await;
    assert_eq!((names(&none, "tags").len(), none.header("link")), (0, None));
    assert_eq!(larder.get(&format!("/v2/{REPOSITORY}/tags/list?n=some")).await.status, 400);
    assert_eq!(acr.count(|seen| seen.path().ends_with("/tags/list") && seen.status == 200), fetched, "fetched once");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_03_links_are_relative_and_speak_in_the_way_of_naming_that_the_request_came_in() {
    let (acr, setup) = private().await;
    acr.knobs().turn(|k| k.list_cap = 2);
    let all = tags(&acr, 5);
    for name in ["a/b", "c", "d/e"] {
        acr.push_blob(name, "x");
    }
    let artifact = acr.push_artifact(REPOSITORY, "v0000", &[]);
    let referrers: Vec<String> = (0..3).map(|number| refer(&acr, &artifact.digest, Some(SBOM), number)).collect();
    let larder = setup.start().await;
    let component = format!("/v2/{ALIAS}");
    for (start, rest, link) in [
        ("/v2", "", "/v2"),
        (&*component, "", &*component),
        ("/myacr.azurecr.io/v2", "", "/myacr.azurecr.io/v2"),
        ("/v2", "&ns=myacr.azurecr.io", "/v2"),
    ] {
        let target = format!("{start}/{REPOSITORY}/tags/list?n=3{rest}");
        let answer = larder.get(&target).await;
        let next = answer.header("link").unwrap();
        assert!(next.starts_with(&format!("<{link}/{REPOSITORY}/tags/list?")), "{target}: {next}");
        assert_eq!(next.contains("ns=myacr"), !rest.is_empty(), "{target}: {next}");
        assert_eq!(walk(&larder, &target, "tags").await.concat(), all, "{target}");

        let target = format!("{start}/_catalog?n=1{rest}");
        let prefix = if start == component { format!("{ALIAS}/") } else { String::new() };
        let expected: Vec<String> = ["a/b", "c", "d/e", REPOSITORY].map(|name| format!("{prefix}{name}")).into();
        assert_eq!(walk(&larder, &target, "repositories").await.concat(), expected, "{target}");

        let target = format!("{start}/{REPOSITORY}/referrers/{}?n=1{rest}", artifact.digest);
        let answer = larder.get(&target).await;
        let next = answer.header("link").unwrap();
        assert!(next.starts_with(&format!("<{link}/{REPOSITORY}/referrers/{}?", artifact.digest)), "{next}");
        let mut found = Vec::new();
        let mut next = Some(target);
        while let Some(target) = next {
            let answer = larder.get(&target).await;
            assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
            for descriptor in answer.json()["manifests"].as_array().unwrap() {
                found.push(descriptor["digest"].as_str().unwrap().to_owned());
            }
            next = answer.header("link").map(|link| link[1..].split('>').next().unwrap().to_owned());
        }
        found.sort();
        let mut expected = referrers.clone();
        expected.sort();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_who_ask_for_one_list_cost_one_fetch() {
    let (acr, setup) = private().await;
    let all = tags(&acr, 3);
    acr.knobs().turn(|k| k.login.delay_ms = 100);
    let larder = setup.start().await;
    let target = format!("/v2/{REPOSITORY}/tags/list");
    let asking: Vec<_> = (0..100).map(|_| tokio::spawn(larder.call("GET", &target).send())).collect();
    let mut words = Vec::new();
    for answer in asking {
        let answer = answer.await.unwrap();
        assert_eq!(names(&answer, "tags"), all);
        words.push(answer.cache_status().contains("collapsed"));
    }
    assert_eq!(acr.count(|seen| seen.path().ends_with("/tags/list") && seen.status == 200), 1);
    assert!(words.iter().filter(|collapsed| !**collapsed).count() >= 1, "one of them made the fetch");
    assert!(words.iter().any(|collapsed| *collapsed), "and others joined it");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_go_out_stale_with_a_warning_in_an_outage_also_after_a_restart() {
    let (acr, setup) = private().await;
    let all = tags(&acr, 3);
    let artifact = acr.push_artifact(REPOSITORY, "v0000", &[]);
    let referrer = refer(&acr, &artifact.digest, Some(SBOM), 1);
    let larder = setup.tag_ttl(Duration::ZERO).start().await;
    let targets = [
        format!("/v2/{REPOSITORY}/tags/list"),
        "/v2/_catalog".to_owned(),
        format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest),
    ];
    let check = async |larder: &Larder, stale: bool| {
        for target in &targets {
            let answer = larder.get(target).await;
            assert_eq!(answer.status, 200, "{target}");
            assert_eq!(answer.cache_status().contains("detail=stale"), stale, "{target}: {}", answer.cache_status());
            let warning = answer.header("warning");
            assert_eq!(warning.is_some_and(|warning| warning.starts_with("299 - \"")), stale, "{target}: {warning:?}");
            let text = answer.text();
            let content = if target.contains("tags") {
                &all[2]
            } else if target.contains("catalog") {
                REPOSITORY
            } else {
                &*referrer
            };
            assert!(text.contains(content), "{target}: {text}");
        }
    };
    check(&larder, false).await;
    acr.stop_listening();
    check(&larder, true).await;
    let setup = larder.stop().await;
    let larder = setup.start().await;
    check(&larder, true).await;
    for cold in ["/v2/never/asked/tags/list".to_owned(), format!("/v2/{REPOSITORY}/referrers/{}", unknown_digest())] {
        assert_eq!(larder.get(&cold).await.status, 504, "{cold}: nothing is stored of it");
    }
    acr.resume_listening();
    crate::harness::until("upstream is asked again", || {
        acr.count(|seen| seen.path().ends_with("/tags/list") && seen.status == 200) > 1 || {
            let client = larder.client();
            let target = targets[0].clone();
            tokio::spawn(async move { client.call("GET", &target).send().await });
            false
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_filtered_here_and_the_answer_says_so() {
    let (acr, setup) = private().await;
    acr.knobs().turn(|k| k.referrers_page = Some(2));
    let (artifact, _) = seed(&acr);
    let sboms: Vec<String> = (0..3).map(|number| refer(&acr, &artifact.digest, Some(SBOM), number)).collect();
    let signature = refer(&acr, &artifact.digest, Some(SIGNATURE), 9);
    let larder = setup.start().await;
    let target = format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest);
    let all = larder.get(&target).await;
    assert_eq!(all.header("content-type"), Some(OCI_INDEX), "exactly: oras takes no parameter");
    assert_eq!(all.header("oci-filters-applied"), None);
    assert_eq!((all.json()["schemaVersion"].as_u64(), all.json()["mediaType"].as_str()), (Some(2), Some(OCI_INDEX)));
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 4, "all of upstream's pages");

    let filtered = larder.get(&format!("{target}?artifactType={}", SIGNATURE.replace('/', "%2F"))).await;
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let found = filtered.json()["manifests"].clone();
    assert_eq!((found.as_array().unwrap().len(), found[0]["digest"].as_str()), (1, Some(&*signature)));
    // Descriptors are handed on as they are, annotations included.
    assert_eq!(found[0]["annotations"]["number"], "9");
    let filtered = larder.get(&format!("{target}?artifactType={}", SBOM.replace('+', "%2B"))).await;
    assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), sboms.len());
    let nothing = larder.get(&format!("{target}?artifactType=application/none")).await;
    assert_eq!((nothing.status.as_u16(), nothing.json()["manifests"].as_array().unwrap().len()), (200, 0));
    assert_eq!(acr.count(|seen| seen.path().contains("/referrers/") && seen.status == 200), 2, "two pages, once");

    // A descriptor that does not say its type can only be judged by a client.
    refer(&acr, &sboms[0], None, 1);
    let unfiltered = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}?artifactType={SIGNATURE}", sboms[0])).await;
    assert_eq!(unfiltered.header("oci-filters-applied"), None);
    assert_eq!(unfiltered.json()["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_21_referrers_of_something_unknown_are_an_empty_index_and_never_name_unknown() {
    let (acr, setup) = private().await;
    seed(&acr);
    let larder = setup.start().await;
    for name in [REPOSITORY, "no/such/repository"] {
        let answer = larder.get(&format!("/v2/{name}/referrers/{}", unknown_digest())).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some(OCI_INDEX)));
        assert_eq!(answer.json()["manifests"], serde_json::json!([]));
    }
    let unknown = FaultAnswer::Oci { status: 404, code: "NAME_UNKNOWN".into(), message: "no such name".into() };
    acr.knobs().fail(PathClass::Referrers, unknown);
    let (status, code, _) = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", sha256(b"x"))).await.error();
    assert_eq!(status, 404);
    assert_ne!(code, "NAME_UNKNOWN", "oras takes that for an error instead of falling back to the tag");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_22_where_upstream_has_no_referrers_the_client_is_told_404_and_finds_the_fallback_tag() {
    let (acr, setup) = private().await;
    let (artifact, _) = seed(&acr);
    acr.knobs().turn(|k| k.referrers = false);
    let tag = artifact.digest.replace(':', "-");
    let index = format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[]}}");
    let digest = acr.push_manifest(REPOSITORY, Some(&tag), OCI_INDEX, index.clone());
    let larder = setup.start().await;
    let (status, code, _) = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest)).await.error();
    assert_eq!(status, 404);
    assert_ne!(code, "NAME_UNKNOWN");
    let fallback = larder.get(&format!("/v2/{REPOSITORY}/manifests/{tag}")).await;
    assert_eq!((fallback.text(), fallback.header("docker-content-digest")), (&*index, Some(&*digest)));
    // Also after a restart with the link down: the tag is here, and nothing keeps a client from looking for it.
    let setup = larder.stop().await;
    acr.stop_listening();
    let larder = setup.start().await;
    let (status, code, _) = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", artifact.digest)).await.error();
    assert_eq!(status, 404, "{code}");
    assert_eq!(larder.get(&format!("/v2/{REPOSITORY}/manifests/{tag}")).await.text(), &*index);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_longer_than_is_kept_passes_through_page_by_page_and_still_speaks_the_clients_way() {
    let (acr, other) = (private().await, Acr::start(Options::private("ci", "pw")).await);
    let (setup, acr) = (acr.1.and(&other), acr.0);
    let setup = setup.with(|settings| {
        settings.upstreams[1].credential = settings.upstreams[0].credential.clone();
        settings.server.limits.list_entries = 3;
    });
    acr.push_blob("unwanted", "x");
    let all = tags(&other, 20);
    for name in ["a/b", "c", "d/e"] {
        other.push_blob(name, "x");
    }
    let (artifact, _) = seed(&other);
    let mut referrers: Vec<String> = (0..5).map(|number| refer(&other, &artifact.digest, Some(SBOM), number)).collect();
    referrers.sort();
    other.knobs().turn(|k| k.referrers_page = Some(2));
    let larder = setup.start().await;
    for (start, ns, named) in
        [("/v2/other", "", true), ("/v2", "&ns=other.azurecr.io", false), ("/other.azurecr.io/v2", "", false)]
    {
        let name = |name: &str| if named { format!("other/{name}") } else { name.to_owned() };
        let target = format!("{start}/{REPOSITORY}/tags/list?n=8{ns}");
        let answer = larder.get(&target).await;
        assert!(answer.cache_status().contains("fwd=bypass"), "{}", answer.cache_status());
        assert_eq!(answer.json()["name"], name(REPOSITORY), "{target}");
        let pages = walk(&larder, &target, "tags").await;
        let mut expected = vec!["v1".to_owned()];
        expected.splice(0..0, all.clone());
        assert_eq!((pages.len(), pages.concat()), (3, expected), "{target}");

        let target = format!("{start}/_catalog?n=3{ns}");
        let pages = walk(&larder, &target, "repositories").await;
        assert_eq!((pages.len(), pages.concat()), (2, ["a/b", "c", "d/e", REPOSITORY].map(name).into()), "{target}");
        let last = name("c").replace('/', "%2F");
        let answer = larder.get(&format!("{start}/_catalog?last={last}{ns}")).await;
        assert_eq!(names(&answer, "repositories"), ["d/e", REPOSITORY].map(name), "{last}");

        let mut found = Vec::new();
        let mut next =
            Some(format!("{start}/{REPOSITORY}/referrers/{}?{}", artifact.digest, ns.trim_start_matches('&')));
        while let Some(target) = next {
            let answer = larder.get(&target).await;
            assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
            found.extend(
                answer.json()["manifests"].as_array().unwrap().iter().map(|d| d["digest"].as_str().unwrap().to_owned()),
            );
            next = answer.header("link").map(|link| link[1..].split('>').next().unwrap().to_owned());
        }
        assert_eq!(found, referrers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_nothing_known_is_upstreams_404_and_a_refused_catalogue_is_denied() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let (status, code, _) = larder.get("/v2/no/such/tags/list").await.error();
    assert_eq!((status, &*code), (404, "NAME_UNKNOWN"));
    let (status, code, message) = larder.get("/v2/_catalog").await.error();
    assert_eq!((status, &*code), (403, "DENIED"), "{message}");
    assert!(message.contains(UPSTREAM) && message.contains("anonymous"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_not_there_is_asked_for_once_in_a_while_and_at_once_on_demand() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).start().await;
    let target = format!("/v2/{REPOSITORY}/tags/list");
    let asked = |acr: &Acr| acr.count(|seen| seen.path().ends_with("/tags/list") && seen.status != 401);
    for word in ["larder; fwd=miss", "larder; hit; detail=negative", "larder; hit; detail=negative"] {
        let answer = larder.get(&target).await;
        assert_eq!((answer.status.as_u16(), answer.cache_status()), (404, word));
    }
    assert_eq!(asked(&acr), 1);
    let all = tags(&acr, 2);
    assert_eq!(larder.get(&target).await.status, 404, "for negative_ttl");
    let now = larder.call("GET", &target).line("Cache-Control", "no-cache").send().await;
    assert_eq!(names(&now, "tags"), all);
    assert_eq!(names(&larder.get(&target).await, "tags"), all, "and everybody gets it from then on");
}
