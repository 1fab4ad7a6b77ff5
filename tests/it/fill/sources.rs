//! A fill has every way to its content through which an allowed reader came, and fails only when all of them do.

use super::harness::simulator::{Damage, DamageKind, Options, samples};
use super::harness::{Acr, OTHER_ALIAS, Setup};
use super::{MIB, Scene};
use std::time::Duration;

/// Two readers of one blob, by two repositories; in the middle the first repository loses it.
#[tokio::test]
async fn a_repository_that_loses_the_blob_in_the_middle_is_replaced_by_another() {
    let scene = Scene::of(4 * MIB).await;
    scene.acr.push_blob("mirror", scene.content.clone());
    scene.acr.knobs().damage(Damage::once(DamageKind::Cut, 2 * MIB as u64));
    scene.rate(Some(4 * MIB));
    let mut first = scene.larder.call("GET", &scene.target).open().await;
    first.at_least(1).await;
    let mut second = scene.larder.call("GET", &scene.target.replace("/app/", "/mirror/")).open().await;
    second.at_least(1).await;
    scene.acr.delete_blob("app", &scene.digest);
    let (first, second) = tokio::join!(first.rest(), second.rest());
    assert!(first.unwrap().body == scene.content && second.unwrap().body == scene.content);
    assert_eq!(scene.acr.downloads(), 1, "the other one goes on at the same offset: {:?}", scene.ranges());
}

/// A registry answers for its own clients alone: what it does not bring holds up nobody who came by another, nor is it brought by one.
#[tokio::test]
async fn an_upstream_that_goes_away_in_the_middle_holds_up_nobody_who_came_by_another() {
    let (near, far) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let content = samples::incompressible(9, 4 * MIB);
    let digest = near.push_blob("app", content.clone());
    far.push_blob("copy", content.clone());
    near.knobs().turn(|knobs| knobs.total_rate = Some(4 * MIB as u64));
    let larder = Setup::of(&near).and(&far).upstream(|it| it.resume_timeout = Duration::from_millis(200)).start().await;
    let mut first = larder.call("GET", &format!("/v2/app/blobs/{digest}")).open().await;
    first.at_least(1).await;
    near.stop_listening();
    let second = larder.get(&format!("/v2/{OTHER_ALIAS}/copy/blobs/{digest}")).await;
    assert!(second.body == content);
    assert_eq!(far.downloads(), 1, "its own download, from the first byte");
    assert!(first.rest().await.is_err(), "no other registry's bytes complete it");
}

/// A refusal is one repository's own, and a fill under way does not go around it.
#[tokio::test]
async fn a_repository_that_upstream_refuses_does_not_ride_along() {
    let scene = Scene::of(4 * MIB).await;
    scene.rate(Some(2 * MIB));
    let mut first = scene.larder.call("GET", &scene.target).open().await;
    first.at_least(1).await;
    let stranger = scene.larder.get(&scene.target.replace("/app/", "/stranger/")).await;
    assert_eq!((stranger.status.as_u16(), &*stranger.error().1), (404, "BLOB_UNKNOWN"));
    assert!(first.rest().await.unwrap().body == scene.content);
}

/// As many downloads as the limit allows; the next one is told when to come again, and joining one costs none.
#[tokio::test]
async fn a_full_house_says_when_to_come_again() {
    let scene =
        Scene::with(4 * MIB, super::Redirect::Sas, |setup| setup.with(|settings| settings.server.limits.fills = 1))
            .await;
    let other = scene.acr.push_blob("app", samples::incompressible(99, MIB));
    scene.rate(Some(2 * MIB));
    let mut first = scene.larder.call("GET", &scene.target).open().await;
    first.at_least(1).await;
    let late = scene.larder.get(&format!("/v2/app/blobs/{other}")).await;
    let (status, code, message) = late.error();
    assert_eq!((status, &*code), (429, "TOOMANYREQUESTS"), "{message}");
    let after: u64 = late.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&after), "{after}");
    let (first, joined) = tokio::join!(first.rest(), scene.serves());
    assert!(first.unwrap().body == joined.body);
    scene.settled().await;
    assert_eq!(scene.larder.get(&format!("/v2/app/blobs/{other}")).await.status, 200);
}
