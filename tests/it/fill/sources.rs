//! A fill has every way to its content through which an allowed reader came, and fails only when all of them do.

use super::harness::simulator::{Damage, DamageKind, Options, Seen, samples};
use super::harness::{Acr, OTHER_ALIAS, Setup};
use super::{MIB, Scene};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

/// What a registry has given of a blob is gone on with for that registry alone: another one's is its own from the first byte.
#[tokio::test]
async fn a_partial_download_never_crosses_registries() {
    let (near, far) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let content = samples::incompressible(13, 4 * MIB);
    let digest = near.push_blob("app", content.clone());
    far.push_blob("app", content.clone());
    near.knobs().turn(|knobs| knobs.total_rate = Some(4 * MIB as u64));
    let setup = Setup::of(&near).and(&far).upstream(|it| it.resume_timeout = Duration::from_millis(200));
    let larder = setup.start().await;
    let mut first = larder.call("GET", &format!("/v2/app/blobs/{digest}")).open().await;
    first.at_least(MIB).await;
    near.stop_listening();
    assert!(first.rest().await.is_err());
    let setup = larder.stop().await;
    let larder = setup.start().await;
    assert!(larder.get(&format!("/v2/{OTHER_ALIAS}/app/blobs/{digest}")).await.body == content);
    let ranges: Vec<_> = far.log().into_iter().filter(Seen::is_blob_body).map(|seen| seen.range).collect();
    assert_eq!(ranges, [None], "all of it from the registry that it is asked for");
}

/// A byte now and then is no download: the next address is asked.
#[tokio::test]
async fn a_download_that_trickles_goes_on_from_the_next_address() {
    let good = Acr::start(Options::public()).await;
    let content = samples::incompressible(14, MIB);
    let digest = good.push_blob("app", content.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (trickle, sent) = (content.clone(), content.len());
    let slow = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let trickle = trickle.clone();
            tokio::spawn(async move {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Length: {sent}\r\n\r\n"
                );
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(head.as_bytes()).await;
                for byte in trickle {
                    if socket.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    });
    let mirror: http::Uri = good.url().parse().unwrap();
    let larder = Setup::at(&url)
        .upstream(|upstream| {
            upstream.mirrors = vec![mirror];
            upstream.stall_timeout = Duration::from_secs(1);
        })
        .start()
        .await;
    let got = larder.get(&format!("/v2/app/blobs/{digest}")).await;
    slow.abort();
    assert!(got.body == content, "{}", got.status);
    let range = good.log().into_iter().filter(Seen::is_blob_body).find_map(|seen| seen.range);
    assert!(range.is_some_and(|range| range != "bytes=0-"), "it goes on where the first one was");
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
