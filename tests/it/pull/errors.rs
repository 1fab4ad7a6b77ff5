//! What a client is told when there is no answer: status, code, and a text with a way out.

use crate::harness::simulator::{FaultAnswer, Options, PathClass};
use crate::harness::{Acr, Larder, Setup, UPSTREAM, until_async};
use crate::pull::{REPOSITORY, blob, manifest, seed, unknown_digest};
use std::time::Duration;

/// The same for GET and HEAD, never a challenge, always the form that docker parses.
async fn refused(larder: &Larder, target: &str) -> (u16, String, String) {
    let answer = larder.get(target).await;
    let head = larder.head(target).await;
    assert_eq!(head.status, answer.status, "HEAD {target}");
    assert_eq!(head.header("content-type"), Some("application/json"), "HEAD {target}");
    for answer in [&answer, &head] {
        assert_eq!(answer.header("www-authenticate"), None, "{target}");
        assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"), "{target}");
        assert!(answer.header("cache-status").is_some(), "{target}");
    }
    let (status, code, message) = answer.error();
    assert!(![401, 503].contains(&status), "{target}: {status} sends clients the wrong way");
    assert!(!message.is_empty(), "{target}: {code} without a word");
    (status, code, message)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_or_is_not_there_has_the_code_that_clients_act_on() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let larder = Setup::of(&acr).start().await;
    let unknown = unknown_digest();
    let long = "a".repeat(256);
    for (target, status, code) in [
        (manifest(REPOSITORY, "v0"), 404, "MANIFEST_UNKNOWN"),
        (manifest(REPOSITORY, &unknown), 404, "MANIFEST_UNKNOWN"),
        (manifest("no/such", "v1"), 404, "MANIFEST_UNKNOWN"),
        (blob(REPOSITORY, &unknown), 404, "BLOB_UNKNOWN"),
        (blob(REPOSITORY, "sha256:abc"), 400, "DIGEST_INVALID"),
        (blob(REPOSITORY, &unknown.to_uppercase()), 400, "DIGEST_INVALID"),
        (blob(REPOSITORY, &format!("sha256:{}", "g".repeat(64))), 400, "DIGEST_INVALID"),
        (blob(REPOSITORY, &format!("md5:{}", "0".repeat(32))), 400, "UNSUPPORTED"),
        (format!("/v2/{REPOSITORY}/referrers/sha256:abc"), 400, "DIGEST_INVALID"),
        (manifest("Samples/Config", "v1"), 400, "NAME_INVALID"),
        (manifest("samples//config", "v1"), 400, "NAME_INVALID"),
        (manifest(&long, "v1"), 400, "NAME_INVALID"),
        (manifest("../../etc", "v1"), 400, "NAME_INVALID"),
        (manifest("samples/..%2f..%2fetc", "v1"), 400, "NAME_INVALID"),
        (manifest(REPOSITORY, "-v1"), 404, "MANIFEST_UNKNOWN"),
        (manifest(REPOSITORY, &"v".repeat(129)), 404, "MANIFEST_UNKNOWN"),
        ("/v1/_ping".to_owned(), 404, "UNSUPPORTED"),
        ("/".to_owned(), 404, "UNSUPPORTED"),
        (format!("/v2/{REPOSITORY}/other/x"), 404, "UNSUPPORTED"),
        (format!("{}?ns=unknown.example", manifest(REPOSITORY, "v1")), 404, "NAME_UNKNOWN"),
        (format!("/unknown.example{}", manifest(REPOSITORY, "v1")), 404, "NAME_UNKNOWN"),
    ] {
        let (got, said, message) = refused(&larder, &target).await;
        assert_eq!((got, &*said), (status, code), "{target}: {message}");
    }
    // A HEAD upstream has no words; what is remembered of it has.
    let target = blob(REPOSITORY, &format!("sha256:{}", "1".repeat(64)));
    assert_eq!(larder.head(&target).await.status, 404);
    let (_, code, message) = larder.get(&target).await.error();
    assert!(code == "BLOB_UNKNOWN" && message.contains(UPSTREAM), "{code}: {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_is_no_blob_may_still_be_a_manifest() {
    let acr = Acr::start(Options::public()).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    assert_eq!(larder.head(&blob(REPOSITORY, &artifact.digest)).await.status, 404);
    assert_eq!(larder.get(&manifest(REPOSITORY, &artifact.digest)).await.body, artifact.manifest);
    assert_eq!(larder.get(&manifest(REPOSITORY, &artifact.layers[0])).await.status, 404);
    assert_eq!(larder.get(&blob(REPOSITORY, &artifact.layers[0])).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_default_the_names_to_choose_from_are_told() {
    let acr = Acr::start(Options::public()).await;
    let larder = Setup::of(&acr).upstream(|upstream| upstream.default = false).start().await;
    let (status, code, message) = refused(&larder, &manifest(REPOSITORY, "v1")).await;
    assert_eq!((status, &*code), (404, "NAME_UNKNOWN"));
    assert!(message.contains(UPSTREAM), "{message}");
    assert_eq!(larder.get("/v2/").await.status, 200, "a ping names nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_19_every_kind_of_trouble_upstream_has_its_status_and_says_with_whom() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    let setup = Setup::of(&acr).upstream(|upstream| upstream.first_byte_timeout = Duration::from_millis(400));
    let oci = |status, code: &str| FaultAnswer::Oci { status, code: code.into(), message: "on purpose".into() };
    let status = |status| FaultAnswer::Status { status, body: "<html>gateway</html>".into() };
    for (fault, expected, code) in [
        (status(500), 502, "UNKNOWN"),
        (status(502), 502, "UNKNOWN"),
        (status(503), 502, "UNKNOWN"),
        (status(504), 502, "UNKNOWN"),
        (oci(500, "UNKNOWN"), 502, "UNKNOWN"),
        (oci(403, "DENIED"), 403, "DENIED"),
        (oci(401, "UNAUTHORIZED"), 403, "DENIED"),
        (oci(424, "SOME_CODE"), 424, "SOME_CODE"),
        (oci(429, "TOOMANYREQUESTS"), 429, "TOOMANYREQUESTS"),
        (FaultAnswer::Firewall, 403, "DENIED"),
        (FaultAnswer::Portal { status: 200 }, 502, "UNKNOWN"),
        (FaultAnswer::Portal { status: 404 }, 502, "UNKNOWN"),
        (FaultAnswer::ForeignRedirect { location: "http://127.0.0.1:1/login".into() }, 504, "UNKNOWN"),
        (FaultAnswer::ForeignRedirect { location: "http://[::1".into() }, 502, "UNKNOWN"),
    ] {
        // Each kind meets a larder that has not heard of the others: a 429 holds back what would come after it.
        let larder = setup.start().await;
        for (number, class) in [PathClass::Manifests, PathClass::Blobs, PathClass::Tags].into_iter().enumerate() {
            acr.knobs().turn(|k| k.faults.clear());
            acr.knobs().fail(class, fault.clone());
            // A repository of its own: what one answer taught about it must not decide the next.
            let name = format!("samples/{expected}{number}");
            let target = match class {
                PathClass::Manifests => manifest(&name, "v1"),
                PathClass::Blobs => blob(&name, &unknown_digest()),
                _ => format!("/v2/{name}/tags/list"),
            };
            let (got, said, message) = refused(&larder, &target).await;
            assert_eq!((got, &*said), (expected, code), "{fault:?} {target}: {message}");
            assert!(message.contains(UPSTREAM) || message.contains(&acr.host()), "{target}: with whom? {message}");
        }
        larder.stop().await;
    }
    acr.knobs().reset();
    let larder = setup.start().await;
    for (side, status) in [("silent", 504), ("reset", 504), ("gone", 504)] {
        match side {
            "silent" => acr.knobs().turn(|k| k.login.hang = true),
            "reset" => acr.knobs().turn(|k| k.login.reset = true),
            _ => acr.stop_listening(),
        }
        for target in
            [manifest(REPOSITORY, "v1"), blob(REPOSITORY, &unknown_digest()), format!("/v2/{REPOSITORY}/tags/list")]
        {
            let (got, _, message) = refused(&larder, &target).await;
            assert_eq!(got, status, "{side} {target}: {message}");
        }
        acr.knobs().reset();
    }
    acr.resume_listening();
    let target = manifest(REPOSITORY, "v1");
    until_async("back to normal without a restart", async || larder.get(&target).await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_client_is_told_for_how_long() {
    let acr = Acr::start(Options::public()).await;
    seed(&acr);
    acr.knobs().fail(PathClass::Manifests, FaultAnswer::throttled(37));
    let larder = Setup::of(&acr).start().await;
    let answer = larder.get(&manifest(REPOSITORY, "v1")).await;
    assert_eq!((answer.error().0, &*answer.error().1), (429, "TOOMANYREQUESTS"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=37).contains(&seconds), "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_or_small_blob_that_does_not_match_is_a_clean_502_and_the_next_request_fetches_anew() {
    use crate::harness::simulator::{Damage, DamageKind};
    let acr = Acr::start(Options::public()).await;
    let (artifact, content) = seed(&acr);
    let larder = Setup::of(&acr).start().await;
    acr.knobs().damage(Damage::once(DamageKind::Flip, 5));
    let (status, _, message) = larder.get(&blob(REPOSITORY, &artifact.layers[0])).await.error();
    assert_eq!(status, 502);
    assert!(message.contains(UPSTREAM) && message.contains(&artifact.layers[0]), "{message}");
    assert!(!larder.stores(&artifact.layers[0]), "nothing of it is kept");
    assert_eq!(larder.get(&blob(REPOSITORY, &artifact.layers[0])).await.body, content);
}
