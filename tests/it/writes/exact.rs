//! Whatever document is pushed through larder, every route gives back its very bytes.

use crate::harness::simulator::MAX_MANIFEST;
use crate::harness::{ALIAS, Acr, Answer, Larder, UPSTREAM, sha256};
use crate::writes::common::{Scene, push, pushing};
use crate::writes::documents::{Document, Dress, Node, Written, node, subject};
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeSet;
use std::time::Duration;

const REPOSITORY: &str = "samples/exact";
/// After a restart without upstream.
const GONE: &str = "upstream is gone";

/// One way of naming the upstream: what stands before the repository, what after the reference, and the `Host`.
struct Way(String, String, Option<&'static str>);

fn ways() -> Vec<Way> {
    let way = |before: &str, after: &str, host| Way(before.to_owned(), after.to_owned(), host);
    vec![
        way("/v2", "", None),
        way(&format!("/v2/{UPSTREAM}"), "", None),
        way(&format!("/v2/{ALIAS}"), "", None),
        way("/v2", &format!("?ns={UPSTREAM}"), None),
        way(&format!("/{UPSTREAM}/v2"), "", None),
        way(&format!("/{ALIAS}/v2"), "", None),
        way("/v2", "", Some(UPSTREAM)),
    ]
}

impl Way {
    fn call(&self, larder: &Larder, method: &str, reference: &str) -> crate::harness::Call {
        let Self(before, after, host) = self;
        let call = larder.call(method, &format!("{before}/{REPOSITORY}/manifests/{reference}{after}"));
        match host {
            Some(host) => call.host(host),
            None => call,
        }
    }
}

/// Status and headers are the document's.
fn is_of(answer: &Answer, document: &Document, what: &str) {
    assert_eq!(answer.status, 200, "{what}");
    assert_eq!(answer.header("content-type"), Some(document.kind), "{what}");
    assert_eq!(answer.header("docker-content-digest"), Some(&*document.digest), "{what}");
    assert_eq!(answer.header("content-length"), Some(&*document.content.len().to_string()), "{what}");
}

/// Every route of this larder gives back what was written.
async fn gives_back(larder: &Larder, written: &Written, when: &str) {
    for document in &written.documents {
        for reference in document.tag.into_iter().chain([&*document.digest]) {
            for (number, way) in ways().iter().enumerate() {
                let what = format!("{when}: {reference} by way {number}");
                is_of(&way.call(larder, "HEAD", reference).send().await, document, &what);
                let got = way.call(larder, "GET", reference).send().await;
                is_of(&got, document, &what);
                // Not assert_eq!: the bytes may be millions.
                assert!(got.body == document.content, "{what}: other bytes");
            }
        }
    }
    for blob in &written.blobs {
        let got = larder.get(&format!("/v2/{REPOSITORY}/blobs/{}", sha256(blob))).await;
        assert_eq!((got.status.as_u16(), &got.body), (200, blob), "{when}");
    }
    let attached = attached(written);
    // That nothing is attached to what is not here is kept in memory alone, and upstream can say it no more.
    if when != GONE || !attached.is_empty() {
        assert_eq!(referrers(larder).await, attached, "{when}");
    }
}

/// The digests that are listed as attached to the subject.
async fn referrers(larder: &Larder) -> BTreeSet<String> {
    let list = larder.get(&format!("/v2/{REPOSITORY}/referrers/{}", subject())).await.json();
    let digest = |descriptor: &serde_json::Value| descriptor["digest"].as_str().unwrap().to_owned();
    list["manifests"].as_array().unwrap().iter().map(digest).collect()
}

fn attached(written: &Written) -> BTreeSet<String> {
    written.documents.iter().filter(|document| document.subject).map(|document| document.digest.clone()).collect()
}

/// Pushes everything through larder; upstream then holds the same.
async fn push_all(acr: &Acr, larder: &Larder, written: &Written) {
    for blob in &written.blobs {
        push(larder, REPOSITORY, blob).await;
    }
    for (number, document) in written.documents.iter().enumerate() {
        let reference = document.tag.unwrap_or(&document.digest);
        let way = &ways()[number % ways().len()];
        let put = way.call(larder, "PUT", reference).line("Content-Type", document.kind);
        let answer = put.body(document.content.clone()).send().await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.header("docker-content-digest"), Some(&*document.digest));
        assert_eq!(answer.header("oci-subject").map(str::to_owned), document.subject.then(subject));
        let (kind, content) = acr.manifest(REPOSITORY, reference).expect("upstream has it");
        assert_eq!(kind, document.kind);
        assert!(content == document.content, "upstream has other bytes");
    }
}

/// Pushed, pulled warm, pulled by a larder that knows nothing, and pulled after a restart without upstream.
async fn goes_round(node: &Node) {
    let scene = Scene::with(|setup| setup.tag_ttl(Duration::from_secs(3600))).await;
    let written = Written::of(node);
    assert_eq!(referrers(&scene.larder).await, BTreeSet::new());
    push_all(&scene.acr, &scene.larder, &written).await;
    referrers(&scene.larder).await;
    let asked = scene.acr.log().len();
    gives_back(&scene.larder, &written, "warm").await;
    assert_eq!(scene.acr.log().len(), asked, "upstream was asked for what was pushed");

    let cold = pushing(&scene.acr).start().await;
    gives_back(&cold, &written, "cold").await;
    cold.stop().await;

    let Scene { acr, larder } = scene;
    let setup = larder.stop().await;
    acr.stop_listening();
    let larder = setup.start().await;
    gives_back(&larder, &written, GONE).await;
    larder.stop().await;
}

#[test]
fn whatever_is_pushed_comes_back_byte_for_byte_by_every_route() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 24, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&node(), |node| {
        runtime.block_on(goes_round(&node));
        Ok(())
    });
    result.unwrap();
}

/// As large as ACR takes them, to the byte.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_documents_come_back_byte_for_byte() {
    for under in [0, 1] {
        let mut dress = Dress {
            kind: 3,
            says_type: 2,
            spaces: vec!["\r\n", "", "\t"],
            annotations: vec![(r"\u00e9".to_owned(), "é".to_owned())],
            long: 1,
            unknown: vec![("unknown".to_owned(), "1.0e2")],
            twice: true,
            subject: false,
            data: true,
            sha512: false,
        };
        let node = |dress: &Dress| Node::Leaf(dress.clone(), vec![b"layer".to_vec()]);
        let bare = Written::of(&node(&dress)).documents[0].content.len();
        dress.long += MAX_MANIFEST - under - bare;
        let node = node(&dress);
        assert_eq!(Written::of(&node).documents[0].content.len(), MAX_MANIFEST - under);
        goes_round(&node).await;
    }
}
