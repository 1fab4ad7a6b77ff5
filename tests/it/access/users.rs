//! The users file: who is in it is let in with a password, who is not is asked for one, and guessing is slow and costs others nothing.

use super::common::{ask, basic, registry, users, with_users};
use crate::harness::{self, Logs, until_async};
use std::time::Duration;
use tokio::time::Instant;

const MANIFEST: &str = "/v2/samples/config/manifests/v1";

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_let_in_and_everybody_else_is_challenged_alike_and_upstream_hears_nothing() {
    let acr = registry().await;
    let larder = with_users(&acr, &[("ann", "correct horse")]).start().await;
    let mut answers = Vec::new();
    for (target, authorization) in [
        (MANIFEST, None),
        ("/v2/", None),
        ("/v2/unknown/manifests/v1", None),
        ("/v2/_catalog", None),
        ("/acr/v1/_catalog", None),
        (MANIFEST, Some(basic("ann", "wrong"))),
        (MANIFEST, Some(basic("ann", ""))),
        (MANIFEST, Some(basic("nobody", "correct horse"))),
        (MANIFEST, Some(basic("", ""))),
        (MANIFEST, Some("Bearer x".to_owned())),
        (MANIFEST, Some("Basic !".to_owned())),
    ] {
        let answer = ask(&larder, "GET", target, authorization.as_deref()).await;
        let (status, code, message) = answer.error();
        assert_eq!((status, &*code), (401, "UNAUTHORIZED"), "{target} {authorization:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"larder\""));
        assert_eq!(message.contains("refuses"), authorization.is_some(), "{message}");
        answers.push(answer.body);
    }
    assert!(answers[..5].iter().all(|body| *body == answers[0]) && answers[5..].iter().all(|body| *body == answers[5]));
    assert!(acr.log().is_empty());
    let ann = basic("ann", "correct horse");
    for target in ["/v2/", MANIFEST, "/v2/_catalog"] {
        assert_eq!(ask(&larder, "GET", target, Some(&ann)).await.status, 200, "{target}");
    }
    assert_eq!(larder.metric("larder_logins_total{by=\"users_file\",result=\"ok\"}").await, 1, "it is known again");
    assert_eq!(larder.metric("larder_logins_total{by=\"users_file\",result=\"failed\"}").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn open_networks_stay_open_and_a_wrong_login_from_there_is_wrong() {
    let acr = registry().await;
    let setup = with_users(&acr, &[("ann", "pw")]);
    let larder = setup.with(|settings| settings.access.open_to = vec!["127.0.0.0/8".parse().unwrap()]).start().await;
    assert_eq!(ask(&larder, "GET", MANIFEST, None).await.status, 200);
    assert_eq!(ask(&larder, "GET", MANIFEST, Some(&basic("ann", "pw"))).await.status, 200);
    assert_eq!(ask(&larder, "GET", "/v2/", Some(&basic("ann", "px"))).await.status, 401, "docker login says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_holds_within_a_second_and_a_broken_one_changes_nothing() {
    let acr = registry().await;
    let setup = with_users(&acr, &[("ann", "old"), ("bob", "pw")]);
    let file = setup.settings.access.users_file.clone().unwrap();
    let larder = setup.start().await;
    let status = async |user: &str, password: &str| {
        ask(&larder, "GET", MANIFEST, Some(&basic(user, password))).await.status.as_u16()
    };
    assert_eq!((status("ann", "old").await, status("bob", "pw").await), (200, 200));
    // bob is removed, ann has a new password, cid is new.
    std::fs::write(&file, users(&[("ann", "new"), ("cid", "pw")])).unwrap();
    let begun = Instant::now();
    until_async("cid is let in", async || status("cid", "pw").await == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((status("bob", "pw").await, status("ann", "old").await, status("ann", "new").await), (401, 401, 200));
    std::fs::write(&file, "ann:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00\n").unwrap();
    let path = file.display().to_string();
    harness::until("the log says so", || {
        Logs::events().contains(&format!("users file {path}: line 1: user 'ann' has an MD5"))
    })
    .await;
    assert_eq!((status("ann", "new").await, status("cid", "pw").await), (200, 200));
    std::fs::remove_file(&file).unwrap();
    harness::until("the log says so", || Logs::events().contains(&format!("users file {path} does not exist"))).await;
    assert_eq!(status("ann", "new").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_slowed_and_said_once_and_a_right_password_gets_in_at_once() {
    let acr = registry().await;
    let larder = with_users(&acr, &[("ann-of-the-slow-test", "right-password")]).start().await;
    let begun = Instant::now();
    for attempt in 0..6 {
        let guess = basic("ann-of-the-slow-test", &format!("guess-{attempt}"));
        assert_eq!(ask(&larder, "GET", "/v2/", Some(&guess)).await.status, 401);
    }
    assert!(begun.elapsed() >= Duration::from_millis(100 + 200 + 400), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let right = basic("ann-of-the-slow-test", "right-password");
    assert_eq!(ask(&larder, "GET", "/v2/", Some(&right)).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let events = Logs::events();
    assert_eq!(events.matches("failed, as user 'ann-of-the-slow-test'").count(), 1);
    assert!(!events.contains("guess-0") && !events.contains("right-password"));
}

/// Each guess is another one, so that each costs a check of 50 ms and more.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_logins_holds_up_no_pull_and_one_who_knows_the_password_gets_in() {
    let acr = registry().await;
    let setup = with_users(&acr, &[("bob", "pw")]);
    let costly = format!("{}ann:{}\n", users(&[("bob", "pw")]), bcrypt::hash("right", 10).unwrap());
    std::fs::write(setup.settings.access.users_file.as_ref().unwrap(), costly).unwrap();
    let larder = setup.start().await;
    let bob = basic("bob", "pw");
    assert_eq!(ask(&larder, "GET", MANIFEST, Some(&bob)).await.status, 200);
    let client = larder.client();
    let storm: Vec<_> = (0..200)
        .map(|guess| {
            let call = client.call("GET", MANIFEST).line("Authorization", &basic("ann", &format!("guess {guess}")));
            tokio::spawn(async move { call.send().await.status.as_u16() })
        })
        .collect();
    let mut pulls = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        assert_eq!(ask(&larder, "GET", MANIFEST, Some(&bob)).await.status, 200);
        pulls.push(begun.elapsed());
    }
    pulls.sort_unstable();
    assert!(pulls[25] < Duration::from_millis(500), "half of the pulls took longer than {:?}", pulls[25]);
    let mut refused = 0;
    for one in storm {
        match one.await.unwrap() {
            401 => refused += 1,
            status => assert_eq!(status, 429),
        }
    }
    assert!(refused > 0);
    let begun = Instant::now();
    until_async("ann gets in", async || ask(&larder, "GET", "/v2/", Some(&basic("ann", "right"))).await.status == 200)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
