use super::*;
use crate::harness::simulator::entra::{Mood, certificate, replace};
use crate::harness::{until, until_async};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_at_four_fifths_of_its_life() {
    let world = World::start().await;
    world.entra.turn(|k| k.life_s = 5);
    world.acr.knobs().turn(|k| k.refresh_life_s = 2);
    let larder = world.by_secret().0.tag_ttl(Duration::ZERO).start().await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        assert_eq!(larder.get(&tag(1)).await.status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = world.entra.log().len();
    assert!((2..=4).contains(&asked), "asked {asked} times in 9 s for tokens of 5 s");
    assert!(world.entra.log().iter().all(|asked| asked.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_start_costs_one_request_for_an_identity() {
    let world = World::start().await;
    world.entra.turn(|k| k.moods = vec![Mood::Slow(300)]);
    let larder = world.by_secret().0.start().await;
    let asking: Vec<_> = (0..60).map(|n| tokio::spawn(larder.call("GET", &tag(n % 9 + 1)).send())).collect();
    for answer in asking {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(world.entra.log().len(), 1);
    assert_eq!(world.acr.count(|seen| seen.path() == "/oauth2/exchange"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_of_entra_the_old_token_serves_until_it_expires() {
    let world = World::start().await;
    world.entra.turn(|k| k.life_s = 10);
    world.acr.knobs().turn(|k| {
        k.refresh_life_s = 1;
        k.access_life_s = 1;
    });
    let larder = world.by_secret().0.start().await;
    assert_eq!(larder.get(&tag(1)).await.status, 200);
    let begun = Instant::now();
    world.entra.turn(|k| k.lasting = Some(Mood::Status(503)));
    let asked = world.entra.log().len();
    while begun.elapsed() < Duration::from_secs(8) {
        let answer = something_new(&world, &larder).await;
        assert_eq!(answer.status, 200, "after {:?}: {}", begun.elapsed(), answer.text());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    until_async("the token has died", async || something_new(&world, &larder).await.status != 200).await;
    let answer = something_new(&world, &larder).await;
    assert!(matches!(answer.status.as_u16(), 502..=504), "{}", answer.status);
    let tries = world.entra.log().len() - asked;
    assert!((1..=6).contains(&tries), "{tries} tries in some ten seconds");
    let stored = larder.get(&tag(1)).await;
    assert_eq!(stored.status, 200);
    world.entra.turn(|k| k.lasting = None);
    until_async("it works again", async || something_new(&world, &larder).await.status == 200).await;
}

/// A pull for which upstream has to be asked.
async fn something_new(world: &World, larder: &Larder) -> crate::harness::Answer {
    let name = format!("new{}", world.acr.log().len());
    world.acr.push_artifact("samples/new", &name, &[("a", "text/plain", Bytes::from(name.clone()))]);
    larder.get(&format!("/v2/samples/new/manifests/{name}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_never_waits_for_an_identity() {
    let world = World::start().await;
    let (setup, _) = world.by_secret();
    let larder = setup.start().await;
    pulls(&world, &larder).await;
    until("the blob is stored", || larder.stores(&world.artifact.layers[0])).await;
    let setup = larder.stop().await;
    world.entra.turn(|k| k.lasting = Some(Mood::Slow(60_000)));
    let larder = setup.tag_ttl(Duration::from_secs(60)).start().await;
    for target in [tag(9), format!("/v2/samples/config/blobs/{}", world.artifact.layers[0])] {
        let begun = Instant::now();
        assert_eq!(larder.get(&target).await.status, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "{target} took {:?}", begun.elapsed());
    }
    let setup = larder.stop().await;
    let larder = setup.tag_ttl(Duration::ZERO).start().await;
    let begun = Instant::now();
    let stale = larder.get(&tag(9)).await;
    assert_eq!(stale.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(4), "revalidate_wait is 1 s: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_without_a_restart() {
    let world = World::start().await;
    let (setup, file) = world.by_secret();
    replace(&file, "not-yet");
    let larder = setup.start().await;
    assert_eq!(refusal(&larder).await.0, 403);
    assert_eq!(refusal(&larder).await.0, 403, "the same secret is not tried at every request");
    assert_eq!(world.entra.log().len(), 1);
    replace(&file, "s3cret");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    pulls(&world, &larder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_a_new_certificate_and_a_renewed_token_file_are_read_for_the_next_request() {
    let world = World::start().await;
    let ((old, first), (new, second)) = (certificate("old"), certificate("new"));
    let setup = Setup::of(&world.acr);
    let pem = setup.file("app.pem", &old);
    let setup = setup.credential(world.principal(PrincipalProof::Certificate(pem.clone())));
    world.entra.turn(|k| {
        k.life_s = 2;
        k.applications = vec![Application::with_certificate(APP, first)];
    });
    world.acr.knobs().turn(|k| k.refresh_life_s = 1);
    let larder = setup.start().await;
    assert_eq!(larder.get(&tag(1)).await.status, 200);
    replace(&pem, &new);
    world.entra.turn(|k| k.applications = vec![Application::with_certificate(APP, second)]);
    let (asked, rotated) = (world.entra.log().len(), Instant::now());
    until("renewed with the new certificate", || world.entra.log().len() > asked + 1).await;
    assert!(world.entra.log().iter().skip(asked + 1).all(|asked| asked.status == 200), "{:?}", rotated.elapsed());
    assert_eq!(larder.get(&tag(2)).await.status, 200);

    let (setup, file) = world.by_workload();
    let larder = setup.start().await;
    let used = || world.entra.log().pop().and_then(|asked| Some(asked.field("client_assertion")?.to_owned()));
    assert_eq!(larder.get(&tag(3)).await.status, 200);
    let token = world.entra.federated_token(SUBJECT, 3600);
    replace(&file, &token);
    until("renewed with the new token", || used() == Some(token.clone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_shorten_and_lengthen_no_life() {
    let world = World::start().await;
    for clock_s in [-7200, 7200] {
        world.entra.turn(|k| {
            k.clock_s = clock_s;
            k.life_s = 5;
            k.only_expires_on = true;
        });
        let larder = world.setup(world.managed(AssignedIdentity::System)).start().await;
        let before = world.entra.log().len();
        assert_eq!(larder.get(&tag(1)).await.status, 200);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(world.entra.log().len(), before + 1, "{clock_s}: renewed too early");
        until("renewed in time", || world.entra.log().len() == before + 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_an_identity_is_in_any_log_line() {
    use crate::harness::Process;
    let world = World::start().await;
    world.entra.turn(|k| k.applications = vec![Application::with_secret(APP, "s3cret")]);
    let setup = Setup::of(&world.acr);
    let file = setup.file("secret", "s3cret\n").display().to_string();
    let (registry, authority) = (world.acr.url(), world.entra.url());
    let arguments = [
        ["--upstream", &registry],
        ["--login", "service-principal"],
        ["--tenant-id", "contoso"],
        ["--client-id", APP],
        ["--client-secret-file", &file],
        ["--authority", &authority],
    ];
    let process = Process::start_with(&setup, arguments.as_flattened(), |command| {
        command.env("LARDER_LOG", "trace");
    })
    .await;
    let answer = process.client().call("GET", &tag(9)).send().await;
    assert_eq!(answer.body, world.artifact.manifest);
    until("the start line names it", || process.stderr().contains(&format!("as service principal {APP}"))).await;
    for secret in ["s3cret", "eyJ"] {
        assert!(!process.stderr().contains(secret), "{secret} in the log of trace level");
    }
}
