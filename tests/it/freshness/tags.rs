use super::harness::simulator::{OCI_MANIFEST, Options};
use super::harness::{Acr, Setup, UPSTREAM};
use super::{LONG, NEVER, Scene, TAG, digest, push};
use larder::config::FreshnessRule;
use larder::oci::RepositoryPattern;
use std::time::Duration;

#[tokio::test]
async fn a_tag_is_served_for_its_time_without_asking() {
    let scene = Scene::of(LONG).await;
    push(&scene.acr, "v1", "two");
    for _ in 0..5 {
        let answer = scene.tag().await;
        assert_eq!(digest(&answer), scene.artifact.digest);
        assert!(answer.cache_status().starts_with("larder; hit; ttl="), "{}", answer.cache_status());
    }
    assert_eq!(scene.asked(), (0, 0));
}

#[tokio::test]
async fn an_expired_tag_is_confirmed_by_head_alone() {
    let scene = Scene::of(NEVER).await;
    let answer = scene.tag().await;
    assert_eq!(digest(&answer), scene.artifact.digest);
    assert!(answer.cache_status().ends_with("detail=revalidated"), "{}", answer.cache_status());
    assert_eq!(scene.asked(), (1, 0));
}

#[tokio::test]
async fn a_hundred_requests_are_one_revalidation() {
    let scene = Scene::of(NEVER).await;
    scene.acr.knobs().turn(|knobs| knobs.login.hang = true);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let call = scene.larder.call("GET", TAG);
        clients.spawn(async move { call.send().await });
    }
    let waiting = || scene.larder.metrics.http_inflight.with_label_values(&[] as &[&str]).get();
    super::harness::until("all of them wait", || waiting() == 100).await;
    scene.acr.knobs().turn(|knobs| knobs.login.hang = false);
    while let Some(answer) = clients.join_next().await {
        assert_eq!(digest(&answer.unwrap()), scene.artifact.digest);
    }
    assert_eq!(scene.asked(), (1, 0));
}

#[tokio::test]
async fn a_tag_that_moved_is_followed() {
    let scene = Scene::of(NEVER).await;
    let moved = push(&scene.acr, "v1", "two");
    let answer = scene.tag().await;
    assert_eq!(digest(&answer), moved.digest);
    assert!(answer.body == moved.manifest);
    let old = scene.larder.get(&format!("/v2/app/manifests/{}", scene.artifact.digest)).await;
    assert_eq!(old.cache_status(), "larder; hit", "what it named before stays");
    let head = scene.larder.head(TAG).await;
    assert_eq!(digest(&head), moved.digest);
}

#[tokio::test]
async fn no_cache_asks_at_once() {
    let scene = Scene::of(LONG).await;
    let moved = push(&scene.acr, "v1", "two");
    let answer = scene.larder.call("GET", TAG).line("Cache-Control", "no-cache").send().await;
    assert_eq!(digest(&answer), moved.digest);
    assert_eq!(digest(&scene.tag().await), moved.digest, "and everybody gets it from then on");
}

#[tokio::test]
async fn no_cache_asks_about_what_was_not_there() {
    let scene = Scene::of(LONG).await;
    let target = TAG.replace("v1", "v2");
    assert_eq!(scene.larder.get(&target).await.status, 404);
    push(&scene.acr, "v2", "two");
    assert_eq!(scene.larder.get(&target).await.cache_status(), "larder; hit; detail=negative");
    let answer = scene.larder.call("GET", &target).line("Cache-Control", "no-cache").send().await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn an_immutable_tag_is_never_asked_about() {
    let scene =
        Scene::with(NEVER, |setup| setup.upstream(|upstream| upstream.freshness.immutable_tags = vec!["v*".into()]))
            .await;
    push(&scene.acr, "v1", "two");
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    assert_eq!(scene.asked(), (0, 0));
    let moving = push(&scene.acr, "latest", "one");
    for _ in 0..2 {
        assert_eq!(digest(&scene.larder.get("/v2/app/manifests/latest").await), moving.digest);
    }
    assert_eq!(scene.asked(), (1, 1), "another one is");
}

/// A tag that is deleted is gone once its time is over; what it named stays, and a new one shows within seconds.
#[tokio::test]
async fn a_deleted_tag_is_404_and_its_manifest_stays() {
    let scene = Scene::of(NEVER).await;
    scene.acr.delete_tag("app", "v1");
    for _ in 0..3 {
        assert_eq!(scene.tag().await.error().1, "MANIFEST_UNKNOWN");
    }
    let (_, gets) = scene.asked();
    assert!(gets <= 1, "remembered for seconds: {gets}");
    assert_eq!(scene.larder.get(&format!("/v2/app/manifests/{}", scene.artifact.digest)).await.status, 200);
    push(&scene.acr, "v1", "three");
    let began = tokio::time::Instant::now();
    while scene.tag().await.status != 200 {
        assert!(began.elapsed().as_secs() < 10, "a new tag does not show");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Within its time a tag is not asked about, whatever has become of it.
#[tokio::test]
async fn a_deleted_tag_is_served_for_its_time() {
    let scene = Scene::of(LONG).await;
    scene.acr.delete_manifest("app", &scene.artifact.digest);
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    assert_eq!(scene.asked(), (0, 0));
}

/// A registry that does not say the digest in its headers is asked for the document.
#[tokio::test]
async fn an_upstream_without_digest_headers_is_revalidated_all_the_same() {
    let scene = Scene::of(NEVER).await;
    scene.acr.knobs().turn(|knobs| knobs.manifest_digest = false);
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    let moved = scene.acr.push_manifest("app", Some("v1"), OCI_MANIFEST, r#"{"schemaVersion":2,"layers":[]}"#);
    assert_eq!(digest(&scene.tag().await), moved);
}

#[tokio::test]
async fn a_rule_for_some_repositories_holds_there_and_nowhere_else() {
    let scene = Scene::with(LONG, |setup| {
        setup.upstream(|upstream| {
            upstream.freshness.rules = vec![FreshnessRule {
                repositories: vec![RepositoryPattern::new(&format!("{UPSTREAM}/moving/**"))],
                tag_ttl: Some(NEVER),
                negative_ttl: Some(NEVER),
                ..FreshnessRule::default()
            }];
        })
    })
    .await;
    let push = |repository: &str, text: &'static str| {
        scene.acr.push_artifact(repository, "v1", &[("file", "text/plain", bytes::Bytes::from_static(text.as_bytes()))])
    };
    let target = |repository: &str| format!("/v2/{repository}/manifests/v1");
    for repository in ["moving/a", "other/a"] {
        assert_eq!(scene.larder.get(&target(repository)).await.status, 404);
        push(repository, "one");
    }
    assert_eq!(scene.larder.get(&target("moving/a")).await.status, 200, "nothing is believed absent there");
    assert_eq!(scene.larder.get(&target("other/a")).await.status, 404, "it is here, for negative_ttl");
    let list =
        async |repository: &str| scene.larder.get(&format!("/v2/{repository}/tags/list")).await.text().to_owned();
    list("moving/a").await;
    let moved = push("moving/a", "two");
    assert_eq!(digest(&scene.larder.get(&target("moving/a")).await), moved.digest);
    scene.acr.push_artifact("moving/a", "v2", &[("file", "text/plain", bytes::Bytes::from_static(b"x"))]);
    assert!(list("moving/a").await.contains("v2"), "lists of its tags as well");
    super::push(&scene.acr, "v1", "two");
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest, "the hour of the others goes on");
}

#[tokio::test]
async fn tags_beside_an_image_are_asked_about_soon_whatever_is_set() {
    let beside = format!("sha256-{}", "a".repeat(64));
    let scene =
        Scene::with(LONG, |setup| setup.upstream(|upstream| upstream.freshness.immutable_tags = vec!["*".into()]))
            .await;
    push(&scene.acr, &beside, "one");
    let target = format!("/v2/app/manifests/{beside}");
    let answer = scene.larder.get(&target).await;
    let ttl = scene.larder.get(&target).await.cache_status().to_owned();
    let left: u64 = ttl.strip_prefix("larder; hit; ttl=").unwrap().parse().unwrap();
    assert!(answer.status == 200 && left <= 10, "{ttl}");
    let signed = push(&scene.acr, &beside, "two");
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(digest(&scene.larder.get(&target).await), signed.digest);
}

/// Seconds of HEADs: a minute by hand, `LARDER_HEADS_SECONDS=60 cargo test --release --test it heads -- --nocapture`.
fn heads_seconds() -> u64 {
    std::env::var("LARDER_HEADS_SECONDS").ok().map_or(3, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_heads_as_there_may_be_cost_one_upstream_request_per_ttl() {
    let (rate, ttl) = (1000, Duration::from_secs(1));
    let acr = Acr::start(Options::public()).await;
    let artifact = acr.push_artifact("app", "v1", &[("a.json", "application/json", bytes::Bytes::from_static(b"{}"))]);
    let larder = Setup::of(&acr).tag_ttl(ttl).start().await;
    let began = tokio::time::Instant::now();
    let end = began + Duration::from_secs(heads_seconds());
    let client = larder.client();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let digest = artifact.digest.clone();
        tasks.spawn(async move {
            let mut sent = 0;
            let mut pace = tokio::time::interval(Duration::from_secs(10) / rate);
            while tokio::time::Instant::now() < end {
                pace.tick().await;
                let answer = client.call("HEAD", "/v2/app/manifests/v1").send().await;
                assert_eq!((answer.status.as_u16(), answer.header("docker-content-digest")), (200, Some(&*digest)));
                sent += 1;
            }
            sent
        });
    }
    let sent: usize = tasks.join_all().await.iter().sum();
    let asked = acr.manifest_requests("HEAD") + acr.manifest_requests("GET");
    println!("{sent} HEADs in {:?} cost {asked} upstream requests", began.elapsed());
    // The first one asks twice: what the tag names, and that manifest.
    let due = usize::try_from(began.elapsed().as_secs() / ttl.as_secs()).unwrap() + 2;
    assert!(asked <= due && sent > 10 * asked, "{sent} HEADs cost {asked} upstream requests, {due} at most were due");
}

/// All build hosts ask for one tag within moments: nothing of it is stored, or its time is over.
/// `LARDER_STAMPEDE=3200 cargo test --release --test it stampede -- --nocapture` is a large farm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_for_one_tag_is_one_question() {
    const ABREAST: usize = 64;
    let requests = std::env::var("LARDER_STAMPEDE").map_or(640, |text| text.parse().unwrap());
    let acr = Acr::start(Options::public()).await;
    let artifact = push(&acr, "v1", "one");
    let mut setup = Setup::of(&acr).upstream(|upstream| upstream.freshness.revalidate_wait = LONG);
    for ttl in [LONG, Duration::from_secs(1)] {
        let larder = setup.tag_ttl(ttl).start().await;
        acr.clear_log();
        let began = tokio::time::Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..ABREAST {
            let (client, expected) = (larder.client(), artifact.digest.clone());
            let share = requests / ABREAST + usize::from(number < requests % ABREAST);
            clients.spawn(async move {
                for _ in 0..share {
                    assert_eq!(digest(&client.call("GET", TAG).send().await), expected);
                }
            });
        }
        clients.join_all().await;
        let asked = acr.manifest_requests("HEAD") + acr.manifest_requests("GET");
        println!("{requests} requests in {:?}, tag TTL {ttl:?}, cost {asked} upstream requests", began.elapsed());
        let due = 1 + usize::try_from(began.elapsed().as_secs() / ttl.as_secs()).unwrap();
        // The first one of all may ask twice: what the tag names, and for that manifest.
        let first = usize::from(ttl == LONG);
        assert!((1..=due + first).contains(&asked), "{asked} upstream requests, {due} at most were due");
        setup = larder.stop().await;
        // With the next one's TTL its time is over.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
}
