//! A caller without rights, who knows every name and digest, and wants the bytes or a word on whether they are here.

use crate::harness::simulator::{OCI_INDEX, OCI_MANIFEST, Options, User};
use crate::harness::{ALIAS, Acr, Answer, Larder, OTHER, OTHER_ALIAS, Setup, UPSTREAM, raw, sha256};
use base64::Engine as _;
use bytes::Bytes;
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;
use std::time::Duration;
use tokio::time::Instant;

const LAYER: &[u8] = b"the layer that the attacker wants";
const READ: &[&str] = &["content/read", "metadata/read"];

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn everything() -> AccessRule {
    AccessRule {
        users: None,
        networks: None,
        repositories: vec![RepositoryPattern::new("**")],
        allow: vec![Right::Pull, Right::Push, Right::Delete],
    }
}

/// What the attacker knows of.
struct Loot {
    digest: String,
    layer: String,
}

/// A registry whose `secret/app` the owner may read and the attacker may not, who may do everything in `attacker/x`; and larder
/// before it, which has pulled the secret for its owner.
async fn scene() -> (Acr, Acr, Larder, Loot) {
    let all: &[&str] = &["content/read", "content/write", "content/delete", "metadata/read", "metadata/write"];
    let options = Options::private("ci", "secret-of-larder")
        .user(User::scope_map("owner", "owner-secret", &[("secret/*", READ)]))
        .user(User::scope_map("attacker", "attacker-secret", &[("attacker/*", all)]));
    let acr = Acr::start(options).await;
    let other = Acr::start(Options::private("ci", "secret-of-larder").user(User::scope_map(
        "attacker",
        "attacker-secret",
        &[("secret/*", all)],
    )))
    .await;
    for registry in [&acr, &other] {
        registry.forgive();
    }
    let artifact = acr.push_artifact("secret/app", "v1", &[("f", "text/plain", Bytes::from_static(LAYER))]);
    acr.push_artifact("attacker/x", "v1", &[("g", "text/plain", Bytes::from_static(b"mine"))]);
    other.push_artifact("secret/other", "v1", &[("g", "text/plain", Bytes::from_static(b"mine"))]);
    let setup = Setup::of(&acr).and(&other).password("ci", "secret-of-larder").with(|settings| {
        settings.upstreams[1].credential = settings.upstreams[0].credential.clone();
        settings.access.open_to.clear();
        settings.access.ask_upstream = true;
        settings.access.rules = vec![everything()];
    });
    let larder = setup.start().await;
    let owner = basic("owner", "owner-secret");
    let layer = sha256(LAYER);
    for target in [
        "/v2/secret/app/manifests/v1".to_owned(),
        format!("/v2/secret/app/blobs/{layer}"),
        "/v2/secret/app/tags/list".to_owned(),
        format!("/v2/secret/app/referrers/{}", artifact.digest),
    ] {
        let answer = larder.call("GET", &target).line("Authorization", &owner).send().await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }
    (acr, other, larder, Loot { digest: artifact.digest, layer })
}

fn holds_loot(answer: &Answer) -> bool {
    answer.body.windows(LAYER.len()).any(|window| window == LAYER)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_digest_comes_out_by_no_route_for_who_may_not_read_it() {
    let (_acr, _other, larder, Loot { digest, layer }) = scene().await;
    let attacker = basic("attacker", "attacker-secret");
    let tails = [
        "manifests/v1".to_owned(),
        format!("manifests/{digest}"),
        format!("blobs/{layer}"),
        "tags/list".to_owned(),
        format!("referrers/{digest}"),
    ];
    let bases = [
        "/v2/secret/app".to_owned(),
        format!("/v2/{ALIAS}/secret/app"),
        format!("/v2/{UPSTREAM}/secret/app"),
        format!("/{ALIAS}/v2/secret/app"),
        format!("/{UPSTREAM}/v2/secret/app"),
    ];
    for (base, tail) in bases.iter().flat_map(|base| tails.iter().map(move |tail| (base, tail))) {
        for query in ["", "?ns=myacr.azurecr.io", "?ns=acr"] {
            for method in ["GET", "HEAD"] {
                let target = format!("{base}/{tail}{query}");
                let answer = larder.call(method, &target).line("Authorization", &attacker).send().await;
                assert_eq!(answer.status, 403, "{method} {target}");
                assert!(!holds_loot(&answer));
                for tell in ["docker-content-digest", "etag", "accept-ranges", "content-range", "warning"] {
                    assert!(answer.header(tell).is_none(), "{method} {target} tells {tell}");
                }
            }
        }
    }
    // Where the attacker may read and write, and where the same name is another upstream's.
    for (target, status) in [
        (format!("/v2/attacker/x/blobs/{layer}"), 404),
        (format!("/v2/attacker/x/manifests/{digest}"), 404),
        (format!("/v2/{OTHER_ALIAS}/secret/app/blobs/{layer}"), 404),
        (format!("/v2/secret/app/blobs/{layer}?ns={OTHER}"), 404),
        (format!("/{OTHER_ALIAS}/v2/secret/app/blobs/{layer}"), 404),
    ] {
        let answer = larder.call("GET", &target).line("Authorization", &attacker).send().await;
        assert_eq!(answer.status.as_u16(), status, "{target}: {}", answer.text());
        assert!(!holds_loot(&answer));
    }
    for range in ["bytes=0-3", "bytes=-4", "bytes=0-1,4-5"] {
        let call = larder.call("GET", &format!("/v2/secret/app/blobs/{layer}")).range(range);
        assert_eq!(call.line("Authorization", &attacker).send().await.status, 403, "{range}");
    }
    for target in [
        "/acr/v1/secret/app",
        "/acr/v1/secret/app/_tags",
        "/acr/v1/secret/app/_tags/v1",
        "/acr/v1/secret/app/_manifests",
    ] {
        assert_eq!(larder.call("GET", target).line("Authorization", &attacker).send().await.status, 403, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mount_and_no_upload_brings_it_within_reach() {
    let (_acr, _other, larder, Loot { layer, .. }) = scene().await;
    let attacker = basic("attacker", "attacker-secret");
    for from in ["secret/app", "acr/secret/app", "myacr.azurecr.io/secret/app", "secret%2Fapp", "../secret/app", ""] {
        let target = format!("/v2/attacker/x/blobs/uploads/?mount={layer}&from={from}");
        let answer = larder.call("POST", &target).line("Authorization", &attacker).send().await;
        assert_ne!(answer.status, 201, "mounted from '{from}'");
    }
    let without = format!("/v2/attacker/x/blobs/uploads/?mount={layer}");
    assert_ne!(larder.call("POST", &without).line("Authorization", &attacker).send().await.status, 201);
    let read = larder.call("GET", &format!("/v2/attacker/x/blobs/{layer}")).line("Authorization", &attacker);
    assert_eq!(read.send().await.status, 404);
    // An upload's address is good for its repository alone, and for who may push there.
    let begun = larder.call("POST", "/v2/attacker/x/blobs/uploads/").line("Authorization", &attacker).send().await;
    assert_eq!(begun.status, 202);
    let session = begun.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    for (method, name, who, status) in [
        ("PUT", "secret/app", &attacker, 403),
        ("PATCH", "secret/app", &attacker, 403),
        ("GET", "attacker/x", &basic("owner", "owner-secret"), 403),
        ("DELETE", "attacker/x", &basic("owner", "owner-secret"), 403),
    ] {
        let target = format!("/v2/{name}/blobs/uploads/{session}?digest={layer}");
        let answer = larder.call(method, &target).line("Authorization", who).body("x").send().await;
        assert_eq!(answer.status.as_u16(), status, "{method} {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_and_what_is_not_look_and_take_the_same() {
    let (_acr, _other, larder, Loot { digest, layer }) = scene().await;
    let attacker = basic("attacker", "attacker-secret");
    let absent = sha256(b"nobody has this");
    let pairs = [
        (format!("/v2/secret/app/blobs/{layer}"), format!("/v2/secret/app/blobs/{absent}")),
        (format!("/v2/secret/app/manifests/{digest}"), format!("/v2/secret/app/manifests/{absent}")),
        ("/v2/secret/app/manifests/v1".to_owned(), "/v2/secret/app/manifests/v2".to_owned()),
        ("/v2/secret/app/manifests/v1".to_owned(), "/v2/secret/app/manifests/v1?x=1".to_owned()),
    ];
    let seen = |answer: &Answer| {
        let mut lines: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        lines.sort();
        (answer.status, lines, answer.body.clone())
    };
    for (there, not_there) in &pairs {
        for method in ["GET", "HEAD"] {
            for who in [Some(&attacker), None] {
                let call = async |target: &str| {
                    let call = larder.call(method, target);
                    match who {
                        Some(who) => call.line("Authorization", who).send().await,
                        None => call.send().await,
                    }
                };
                assert_eq!(seen(&call(there).await), seen(&call(not_there).await), "{method} {there} {not_there}");
            }
        }
    }
    // A repository that exists and one that does not.
    let call = async |target: &str| larder.call("GET", target).line("Authorization", &attacker).send().await;
    let (one, other) = (call("/v2/secret/app/manifests/v1").await, call("/v2/secret/none/manifests/v1").await);
    assert_eq!((one.status, one.body), (other.status, other.body));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..150 {
        for (kind, target) in [&pairs[0].0, &pairs[0].1].into_iter().enumerate() {
            let begun = Instant::now();
            call(target).await;
            times[kind].push(begun.elapsed());
        }
    }
    let [there, not_there] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let slack = Duration::from_millis(1);
    assert!(there < 2 * not_there + slack && not_there < 2 * there + slack, "{there:?} {not_there:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_around_the_decision() {
    let (_acr, _other, larder, Loot { layer, .. }) = scene().await;
    let attacker = basic("attacker", "attacker-secret");
    for path in [
        "/v2/attacker/x/../../secret/app/blobs/LAYER",
        "/v2/attacker/x/..%2f..%2fsecret/app/blobs/LAYER",
        "/v2/attacker/x/%2e%2e/%2e%2e/secret/app/blobs/LAYER",
        "//v2/secret/app/blobs/LAYER",
        "/v2//secret/app/blobs/LAYER",
        "/v2/secret//app/blobs/LAYER",
        "/v2/secret/app/blobs//LAYER",
        "/./v2/secret/app/blobs/LAYER",
        "/v2/secret/app/blobs/LAYER/",
        "/v2/secret/app/blobs/LAYER%00",
        "/v2/secret/app/blobs/LAYER;x=1",
        "/v2/SECRET/app/blobs/LAYER",
        "/v2/secret%252fapp/blobs/LAYER",
        "/v2/attacker/x/blobs/uploads/../../../secret/app/blobs/LAYER",
        "/oauth2/token/../../v2/secret/app/blobs/LAYER",
        "/acr/v1/../../v2/secret/app/blobs/LAYER",
        "/v2/secret/app\\blobs/LAYER",
        "http://myacr.azurecr.io/v2/secret/app/blobs/LAYER",
    ] {
        let target = path.replace("LAYER", &layer);
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {attacker}\r\nConnection: close\r\n\r\n"
        );
        let answer = raw::talk(larder.address, request).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("the layer that"), "{target}: {text}");
        assert!(!text.starts_with("HTTP/1.1 2"), "{target}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_header_becomes_another_one_and_two_logins_are_none() {
    let (acr, _other, larder, Loot { layer, .. }) = scene().await;
    let owner = basic("owner", "owner-secret");
    let attacker = basic("attacker", "attacker-secret");
    let two = larder.call("GET", &format!("/v2/secret/app/blobs/{layer}")).line("Authorization", &attacker);
    assert_eq!(two.line("Authorization", &owner).send().await.status, 401);
    for head in [
        "GET /v2/ HTTP/1.1\r\nHost: myacr.azurecr.io\",error=\"x\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: myacr.azurecr.io:80\",x=\"y\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: evil.example\r\n",
        "GET /v2/secret/app/manifests/v1%0d%0aX-Injected:%20yes HTTP/1.1\r\nHost: myacr.azurecr.io\r\n",
        "GET /v2/x%22,error=%22y/manifests/v1 HTTP/1.1\r\nHost: myacr.azurecr.io\r\n",
        "GET /oauth2/token?service=x&scope=a%0d%0aX-Injected:%20yes HTTP/1.1\r\nHost: myacr.azurecr.io\r\n",
        "GET /v2/?ns=evil%0d%0aX-Injected:%20yes HTTP/1.1\r\nHost: localhost\r\n",
    ] {
        let answer = raw::talk(larder.address, format!("{head}Connection: close\r\n\r\n")).await;
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        assert!(!head.contains("\r\nx-injected"), "{head}");
        assert!(!head.contains("error=\"x") && !head.contains("evil.example"), "{head}");
    }
    assert!(acr.log().iter().all(|seen| !seen.headers.contains_key("x-injected")));
}

/// A token that upstream has given to the owner is the owner's: changed, cut or shown to another upstream it is nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_where_it_was_given_and_as_it_was_given() {
    let (_acr, _other, larder, Loot { layer, .. }) = scene().await;
    let target = format!("/oauth2/token?service={UPSTREAM}&scope=repository:secret/app:pull");
    let given =
        larder.call("GET", &target).host(UPSTREAM).line("Authorization", &basic("owner", "owner-secret")).send().await;
    let token = given.json()["access_token"].as_str().unwrap().to_owned();
    let blob = format!("/v2/secret/app/blobs/{layer}");
    let read = async |host: &str, target: &str, token: &str| {
        larder
            .call("GET", target)
            .host(host)
            .line("Authorization", &format!("Bearer {token}"))
            .send()
            .await
            .status
            .as_u16()
    };
    assert_eq!(read(UPSTREAM, &blob, &token).await, 200);
    assert_eq!(read(OTHER, &blob, &token).await, 401, "another upstream's");
    for changed in
        [token[1..].to_owned(), format!("{token}A"), token[..token.len() - 3].to_owned(), token.to_uppercase()]
    {
        assert_eq!(read(UPSTREAM, &blob, &changed).await, 401);
    }
}

/// Who may push somewhere names the secret in a manifest there: larder, which holds the bytes, must not bring them there for it.
#[tokio::test(flavor = "multi_thread")]
async fn naming_a_secret_in_a_manifest_of_ones_own_brings_it_nowhere() {
    let (acr, _other, larder, Loot { digest, layer }) = scene().await;
    let attacker = basic("attacker", "attacker-secret");
    let config = acr.push_blob("attacker/x", "{}");
    let content = |layers: &str| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{{\"mediaType\":\"application/json\",\"digest\":\"{config}\",\
             \"size\":2}},\"layers\":[{layers}]}}"
        )
    };
    let naming = content(&format!("{{\"mediaType\":\"text/plain\",\"digest\":\"{layer}\",\"size\":{}}}", LAYER.len()));
    let index = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{{\"mediaType\":\"{OCI_MANIFEST}\",\"digest\":\"{digest}\",\
         \"size\":1}}]}}"
    );
    for (kind, content) in [(OCI_MANIFEST, naming), (OCI_INDEX, index)] {
        let put = larder.call("PUT", "/v2/attacker/x/manifests/steal").line("Content-Type", kind);
        let answer = put.line("Authorization", &attacker).body(content).send().await;
        assert_ne!(answer.status, 201, "{kind}: {}", answer.text());
    }
    for target in [format!("/v2/attacker/x/blobs/{layer}"), format!("/v2/attacker/x/manifests/{digest}")] {
        let answer = larder.call("GET", &target).line("Authorization", &attacker).send().await;
        assert_eq!(answer.status, 404, "{target}");
    }
    assert!(acr.blob("attacker/x", &layer).is_none(), "larder has brought it there");
}
