//! `kind = "caller"`: larder holds no login of its own, each caller's credential asks upstream, and none reads by another one's.

use super::ask::{asking, registry};
use super::common::{LAYER, ask, basic, users};
use crate::harness::simulator::{Credential, OCI_MANIFEST, samples};
use crate::harness::{Acr, Setup, sha256};
use larder::config::CredentialSettings;
use std::collections::BTreeSet;
use std::time::Duration;

const MANIFEST: &str = "/v2/samples/config/manifests/v1";

fn paid_by_callers(acr: &Acr) -> Setup {
    asking(acr).credential(CredentialSettings::Caller)
}

/// Whose passwords upstream has seen.
fn users_of(acr: &Acr) -> BTreeSet<String> {
    let user = |seen: crate::harness::simulator::Seen| match seen.authorization {
        Credential::Basic { user } => Some(user),
        _ => None,
    };
    acr.log().into_iter().filter_map(user).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_the_callers_own_and_what_one_brought_in_others_read_by_their_own_right() {
    let acr = registry().await;
    acr.forgive();
    let setup = paid_by_callers(&acr);
    let file = setup.file("htpasswd", &users(&[("ann", "local")]));
    let larder = setup.with(|settings| settings.access.users_file = Some(file)).start().await;
    let blob = format!("/v2/samples/config/blobs/{}", sha256(LAYER));
    let (reader, writer, stranger) =
        (basic("reader", "reader-secret"), basic("writer", "writer-secret"), basic("stranger", "stranger-secret"));
    for target in [MANIFEST, &blob, "/v2/samples/config/tags/list"] {
        assert_eq!(ask(&larder, "GET", target, Some(&reader)).await.status, 200, "{target}");
    }
    assert_eq!(users_of(&acr), BTreeSet::from(["reader".to_owned()]), "nobody else has asked");
    let downloads = acr.downloads();
    for target in [MANIFEST, &blob] {
        assert_eq!(ask(&larder, "GET", target, Some(&writer)).await.status, 200, "{target}");
        assert_eq!(ask(&larder, "GET", target, Some(&stranger)).await.status, 403, "{target}");
        assert_eq!(ask(&larder, "GET", target, None).await.status, 401, "{target}");
        let local = ask(&larder, "GET", target, Some(&basic("ann", "local"))).await;
        assert_eq!(local.status, 401, "a user of larder's has no right upstream: {target}");
    }
    assert_eq!(acr.downloads(), downloads, "the bytes are here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_up_as_the_caller() {
    let acr = registry().await;
    acr.forgive();
    let larder = paid_by_callers(&acr).start().await;
    let writer = basic("writer", "writer-secret");
    let manifest = ask(&larder, "GET", MANIFEST, Some(&writer)).await.body;
    acr.clear_log();
    let put = async |who: &str| {
        let call = larder.call("PUT", "/v2/samples/config/manifests/v2").line("Content-Type", OCI_MANIFEST);
        call.line("Authorization", who).body(manifest.clone()).send().await.status.as_u16()
    };
    assert_eq!(put(&writer).await, 201);
    assert_eq!(users_of(&acr), BTreeSet::from(["writer".to_owned()]));
    assert_eq!(put(&basic("reader", "reader-secret")).await, 403);
    let content = b"pushed by a caller";
    let begun = ask(&larder, "POST", "/v2/samples/config/blobs/uploads/", Some(&writer)).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let location = format!("{}?digest={}", begun.header("location").unwrap(), sha256(content));
    let end = larder.call("PUT", &location).line("Authorization", &writer).body(&content[..]).send().await;
    assert_eq!(end.status, 201, "{}", end.text());
    assert_eq!(ask(&larder, "DELETE", MANIFEST, Some(&writer)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_for_others_when_the_one_who_began_it_leaves() {
    let acr = registry().await;
    acr.forgive();
    let content = samples::incompressible(7, 3_000_000);
    let digest = acr.push_blob("samples/config", content.clone());
    acr.knobs().turn(|knobs| knobs.total_rate = Some(1_500_000));
    let larder = paid_by_callers(&acr).start().await;
    let target = format!("/v2/samples/config/blobs/{digest}");
    let open = |who: &str| larder.call("GET", &target).line("Authorization", who);
    let mut first = open(&basic("reader", "reader-secret")).open().await;
    first.at_least(1000).await;
    let second = open(&basic("writer", "writer-secret")).open().await;
    drop(first);
    let answer = second.rest().await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, content.len()));
    assert_eq!(acr.downloads(), 1);
    assert_eq!(open(&basic("stranger", "stranger-secret")).send().await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_outage_those_are_served_whose_verdict_lives() {
    let acr = registry().await;
    let setup = paid_by_callers(&acr).tag_ttl(Duration::from_millis(50));
    let larder = setup.with(|settings| settings.access.verdict_ttl = Duration::from_millis(100)).start().await;
    let reader = basic("reader", "reader-secret");
    assert_eq!(ask(&larder, "GET", MANIFEST, Some(&reader)).await.status, 200);
    acr.stop_listening();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let answer = ask(&larder, "GET", MANIFEST, Some(&reader)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(ask(&larder, "GET", MANIFEST, Some(&basic("writer", "writer-secret"))).await.status, 503);
}

/// One caller's refusal is no reason to keep the repository from those who may read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_has_lost_a_right_takes_it_from_nobody_else() {
    let acr = registry().await;
    acr.forgive();
    let larder = paid_by_callers(&acr).tag_ttl(Duration::from_millis(10)).start().await;
    let (reader, writer) = (basic("reader", "reader-secret"), basic("writer", "writer-secret"));
    for who in [&reader, &writer] {
        assert_eq!(ask(&larder, "GET", MANIFEST, Some(who)).await.status, 200);
    }
    acr.revoke_tokens();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for who in [&reader, &writer] {
        assert_eq!(ask(&larder, "GET", MANIFEST, Some(who)).await.status, 200);
    }
}
