//! Several addresses of one upstream: its own is believed in everything, a mirror in what it has.

use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::{Damage, DamageKind, FaultAnswer, Options, PathClass, Seen, samples};
use crate::harness::{Acr, Setup, sha256, until};
use bytes::Bytes;
use http::Uri;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Two registries with the same content, as geo-replicas are.
async fn pair(size: usize) -> (Acr, Acr, Setup, Bytes, String) {
    let (acr, mirror) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let content = samples::incompressible(7, size);
    let digest = acr.push_blob("app", content.clone());
    assert_eq!(mirror.push_blob("app", content.clone()), digest);
    for registry in [&acr, &mirror] {
        registry.push_artifact("app", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
    }
    let url: Uri = mirror.url().parse().unwrap();
    let setup = Setup::of(&acr).upstream(|upstream| upstream.mirrors = vec![url]);
    (acr, mirror, setup, content, digest)
}

#[tokio::test]
async fn a_cold_pull_while_its_own_address_is_away_comes_from_the_mirror() {
    let (acr, mirror, setup, content, digest) = pair(MIB).await;
    acr.stop_listening();
    let larder = setup.start().await;
    let manifest = larder.get("/v2/app/manifests/v1").await;
    assert_eq!((manifest.status.as_u16(), manifest.header("warning")), (200, None), "{manifest:?}");
    let blob = larder.get(&format!("/v2/app/blobs/{digest}")).await;
    assert!(blob.status == 200 && blob.body == content);
    assert_eq!(larder.get("/v2/app/tags/list").await.json()["tags"], serde_json::json!(["v1"]));
    assert_eq!(mirror.downloads(), 1);
}

#[tokio::test]
async fn an_upstream_that_answers_is_the_only_one_that_is_asked() {
    let (acr, mirror, setup, _, digest) = pair(MIB).await;
    let only_there = mirror.push_blob("app", Bytes::from_static(b"only the mirror has this"));
    let larder = setup.start().await;
    assert_eq!(larder.get("/v2/app/manifests/v1").await.status, 200);
    assert_eq!(larder.get(&format!("/v2/app/blobs/{digest}")).await.status, 200);
    assert_eq!(larder.get(&format!("/v2/app/blobs/{only_there}")).await.status, 404, "its 404 is believed");
    assert_eq!(larder.get("/v2/app/manifests/v9").await.status, 404);
    assert!(acr.log().len() > 4 && mirror.log().is_empty(), "{:?}", mirror.log());
}

/// A mirror may lag: what it does not have may be there all the same.
#[tokio::test]
async fn a_mirrors_404_is_an_outage_not_an_absence() {
    let (acr, mirror, setup, _, _) = pair(MIB).await;
    let second = Acr::start(Options::public()).await;
    let only_there = second.push_blob("app", Bytes::from_static(b"the second mirror has this"));
    let lacking = sha256(b"nobody has this");
    let more: Uri = second.url().parse().unwrap();
    acr.stop_listening();
    let larder = setup.upstream(|upstream| upstream.mirrors.push(more)).start().await;
    let (status, _, message) = larder.get(&format!("/v2/app/blobs/{lacking}")).await.error();
    assert_eq!(status, 504, "{message}");
    assert_eq!(larder.get(&format!("/v2/app/blobs/{only_there}")).await.status, 200, "each is asked in its turn");
    assert!(!mirror.log().is_empty() && !second.log().is_empty());
    acr.resume_listening();
    crate::harness::until_async("its own word counts again", async || {
        larder.get(&format!("/v2/app/blobs/{lacking}")).await.status == 404
    })
    .await;
}

#[tokio::test]
async fn a_download_that_loses_its_address_goes_on_at_the_mirror_where_it_was() {
    let (acr, mirror, setup, content, digest) = pair(8 * MIB).await;
    acr.knobs().turn(|knobs| knobs.total_rate = Some(4 * MIB as u64));
    let larder = setup.start().await;
    let mut reader = larder.call("GET", &format!("/v2/app/blobs/{digest}")).open().await;
    reader.at_least(MIB).await;
    acr.stop_listening();
    let answer = reader.rest().await.unwrap();
    assert!(answer.body == content, "{} bytes", answer.body.len());
    let resumed: Vec<_> = mirror.log().into_iter().filter(Seen::is_blob_body).collect();
    let from = resumed.last().unwrap().range.clone().unwrap();
    let offset: usize = from.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    assert!((MIB..8 * MIB).contains(&offset), "{from}");
    until("the blob is stored", || larder.stores(&digest)).await;
}

/// It opens well and then brings nothing: its own address, or a mirror while that is away.
#[tokio::test]
async fn an_address_that_cuts_every_body_is_left_for_the_next_one() {
    for own_is_away in [false, true] {
        let (acr, mirror, setup, content, digest) = pair(2 * MIB).await;
        let second = Acr::start(Options::public()).await;
        second.push_blob("app", content.clone());
        let more: Uri = second.url().parse().unwrap();
        let (cutting, next) = if own_is_away { (&mirror, &second) } else { (&acr, &mirror) };
        cutting.knobs().damage(Damage::once(DamageKind::Cut, MIB as u64));
        cutting.knobs().damage(Damage::always(DamageKind::Cut, 0));
        if own_is_away {
            acr.stop_listening();
        }
        let larder = setup.upstream(|upstream| upstream.mirrors.push(more)).start().await;
        let blob = larder.get(&format!("/v2/app/blobs/{digest}")).await;
        assert!(blob.status == 200 && blob.body == content, "own is away: {own_is_away}");
        assert!(cutting.downloads() <= 4, "{} bodies that brought nothing", cutting.downloads());
        let went_on = next.log().into_iter().filter(Seen::is_blob_body).any(|seen| seen.range.is_some());
        assert!(went_on, "it goes on where it was: {:?}", next.log());
    }
}

/// Its last word counts until it says another.
#[tokio::test]
async fn what_its_own_address_has_refused_or_lost_does_not_come_back_by_a_mirror() {
    let refused = FaultAnswer::Oci { status: 403, code: "DENIED".into(), message: "requested access is denied".into() };
    for withdrawn in [true, false] {
        let (acr, mirror, setup, _, digest) = pair(MIB).await;
        let larder = setup.upstream(|upstream| upstream.freshness.negative_ttl = Duration::ZERO).start().await;
        let (tag, blob) = ("/v2/app/manifests/v1", format!("/v2/app/blobs/{digest}"));
        if withdrawn {
            assert_eq!(larder.get(tag).await.status, 200);
            acr.knobs().fail(PathClass::Manifests, refused.clone());
            let no_cache = larder.call("GET", tag).line("Cache-Control", "no-cache");
            assert_eq!(no_cache.send().await.status, 403);
        } else {
            acr.delete_tag("app", "v1");
            acr.delete_blob("app", &digest);
            assert_eq!(
                (larder.get(tag).await.status, larder.head(&blob).await.status),
                (404.try_into().unwrap(), 404.try_into().unwrap())
            );
        }
        acr.stop_listening();
        for target in [tag, &blob] {
            assert_eq!(larder.get(target).await.status, 504, "{target}, withdrawn: {withdrawn}");
        }
        assert!(mirror.log().is_empty(), "{:?}", mirror.log());
        acr.knobs().reset();
        acr.resume_listening();
        acr.push_blob("app", samples::incompressible(7, MIB));
        acr.push_artifact("app", "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]);
        crate::harness::until_async("it is allowed and there again", async || larder.get(tag).await.status == 200)
            .await;
        assert_eq!(larder.head(&blob).await.status, 200);
        acr.stop_listening();
        assert_eq!(larder.get("/v2/app/tags/list").await.status, 200, "and mirrors may help again");
    }
}

/// What was deleted through larder is gone, however far a mirror lags.
#[tokio::test]
async fn what_was_deleted_through_larder_does_not_come_back_by_a_mirror() {
    let (acr, mirror) = (Acr::start(Options::private("ci", "secret")).await, Acr::start(Options::public()).await);
    let of = |registry: &Acr, name: &str| {
        registry.push_artifact(name, "v1", &[("x", "text/plain", Bytes::from_static(b"x"))]).digest
    };
    for name in ["tagged", "manifest", "whole"] {
        assert_eq!(of(&acr, name), of(&mirror, name));
    }
    let digest = of(&acr, "manifest");
    let url: Uri = mirror.url().parse().unwrap();
    let setup = Setup::of(&acr).password("ci", "secret").with(|settings| {
        settings.access.rules = vec![larder::config::AccessRule {
            users: None,
            networks: None,
            repositories: vec![larder::oci::RepositoryPattern::new("**")],
            allow: vec![larder::config::Right::Delete],
        }];
    });
    let setup = setup.upstream(|upstream| {
        upstream.mirrors = vec![url];
        upstream.freshness.negative_ttl = Duration::ZERO;
    });
    let larder = setup.start().await;
    for name in ["tagged", "manifest", "whole"] {
        assert_eq!(larder.get(&format!("/v2/{name}/manifests/v1")).await.status, 200);
    }
    for target in
        ["/acr/v1/tagged/_tags/v1".to_owned(), format!("/v2/manifest/manifests/{digest}"), "/acr/v1/whole".to_owned()]
    {
        assert_eq!(larder.call("DELETE", &target).send().await.status, 202, "{target}");
    }
    acr.stop_listening();
    for name in ["tagged", "manifest", "whole"] {
        assert_eq!(larder.get(&format!("/v2/{name}/manifests/v1")).await.status, 504, "{name}");
    }
    assert!(mirror.log().is_empty(), "{:?}", mirror.log());
}

/// A mirror may be anybody's.
#[tokio::test]
async fn a_mirror_is_sent_the_login_only_if_it_is_named_for_that() {
    for named in [false, true] {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&heads);
        let mirror = Scripted::start_with_heads(move |head| {
            log.lock().unwrap().push(head.to_ascii_lowercase());
            let line = "Www-Authenticate: Basic realm=\"mirror\"";
            let api = "Docker-Distribution-Api-Version: registry/2.0";
            answer(
                "401 Unauthorized",
                &[api, line, "Content-Type: application/json"],
                "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}",
            )
        })
        .await;
        let acr = Acr::start(Options::private("ci", "hunter2")).await;
        acr.stop_listening();
        let (url, host): (Uri, _) = (mirror.url().parse().unwrap(), mirror.address.to_string());
        let setup = Setup::of(&acr).password("ci", "hunter2").upstream(|upstream| {
            upstream.mirrors = vec![url];
            upstream.connect_timeout = Duration::from_secs(2);
            if named {
                upstream.token_realms = vec![host];
            }
        });
        let larder = setup.start().await;
        assert_eq!(larder.get("/v2/app/manifests/v1").await.status, 504);
        let heads = heads.lock().unwrap().clone();
        assert!(!heads.is_empty());
        assert_eq!(heads.iter().any(|head| head.contains("authorization:")), named, "{heads:?}");
    }
}

/// Wrong bytes from one address, and another that stands by with the right ones: a small blob comes from there at once; of a larger
/// one the answer that has begun is broken, and the next pull comes from there.
#[tokio::test]
async fn after_wrong_bytes_another_address_is_asked_first() {
    for own_is_wrong in [false, true] {
        let (acr, mirror, setup, _, _) = pair(1).await;
        let last = Acr::start(Options::public()).await;
        let more: Uri = last.url().parse().unwrap();
        let larder = setup.upstream(|upstream| upstream.mirrors.push(more)).start().await;
        let contents = [50_000, MIB].map(|size| samples::incompressible(21, size));
        for content in &contents {
            for registry in [&acr, &mirror, &last] {
                registry.push_blob("app", content.clone());
            }
        }
        let wrong = if own_is_wrong {
            &acr
        } else {
            acr.stop_listening();
            &mirror
        };
        wrong.knobs().damage(Damage::always(DamageKind::Flip, 49_000));
        let failures = async || larder.metric("larder_digest_failures_total{where=\"fill\"}").await;

        let small = larder.get(&format!("/v2/app/blobs/{}", sha256(&contents[0]))).await;
        assert!(small.status == 200 && small.body == contents[0], "{own_is_wrong}: {}", small.status);
        assert_eq!(failures().await, 1);

        let target = format!("/v2/app/blobs/{}", sha256(&contents[1]));
        let broken = larder.call("GET", &target).try_send().await.unwrap_err();
        assert!(broken.answer.body.len() < MIB, "wrong bytes never end cleanly");
        assert_eq!(failures().await, 2);
        let large = larder.get(&target).await;
        assert!(large.status == 200 && large.body == contents[1], "{own_is_wrong}: {}", large.status);
        assert_eq!((failures().await, wrong.downloads()), (2, 2), "each wrong one was met once");
        until("it is stored", || larder.stores(&sha256(&contents[1]))).await;
    }
}

/// All addresses have given wrong bytes: that is said, after each was asked once, and when one is right again it is found.
#[tokio::test]
async fn wrong_bytes_from_everywhere_are_a_clean_502() {
    let (acr, mirror, setup, _, _) = pair(1).await;
    let content = samples::incompressible(22, 50_000);
    let target = format!("/v2/app/blobs/{}", sha256(&content));
    for registry in [&acr, &mirror] {
        registry.push_blob("app", content.clone());
        registry.knobs().damage(Damage::always(DamageKind::Flip, 49_000));
    }
    let larder = setup.start().await;
    let (status, _, message) = larder.get(&target).await.error();
    assert_eq!(status, 502, "{message}");
    assert_eq!((acr.downloads(), mirror.downloads()), (1, 1));
    acr.knobs().reset();
    let answer = larder.get(&target).await;
    assert!(answer.status == 200 && answer.body == content);
}
