//! Every way of naming an upstream, for everything that can be asked of it.

use crate::harness::simulator::{OCI_INDEX, OCI_MANIFEST, Options};
use crate::harness::{ALIAS, Acr, Larder, OTHER, OTHER_ALIAS, Setup, UPSTREAM};
use bytes::Bytes;

const REPOSITORY: &str = "samples/config";

/// One way of writing a request: a path before and after `/v2`, a query, a `Host`.
struct Way {
    name: &'static str,
    prefix: String,
    component: String,
    ns: Option<&'static str>,
    host: Option<&'static str>,
}

impl Way {
    fn target(&self, tail: &str) -> String {
        let ns = self.ns.map(|ns| format!("{}ns={ns}", if tail.contains('?') { '&' } else { '?' }));
        format!("{}/v2{}/{tail}{}", self.prefix, self.component, ns.unwrap_or_default())
    }
}

/// All ways to an upstream; the one without a name only to the default.
fn ways(upstream: &'static str, alias: &'static str, default: bool) -> Vec<Way> {
    let way = |name, prefix: &str, component: &str, ns, host| Way {
        name,
        prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
        component: if component.is_empty() { String::new() } else { format!("/{component}") },
        ns,
        host,
    };
    let mut all = vec![
        way("P", "", upstream, None, None),
        way("A", "", alias, None, None),
        way("N", "", "", Some(upstream), None),
        way("N by alias", "", "", Some(alias), None),
        way("P and N (override_path)", "", upstream, Some(upstream), None),
        way("A and N (regctl)", "", alias, Some(upstream), None),
        way("U", upstream, "", None, None),
        way("U by alias", alias, "", None, None),
        way("U and N (containerd)", upstream, "", Some(upstream), None),
        way("H", "", "", None, Some(upstream)),
        way("H and P", "", upstream, None, Some(upstream)),
    ];
    if default {
        all.push(way("D", "", "", None, None));
    }
    all
}

async fn ask(larder: &Larder, method: &str, way: &Way, tail: &str) -> crate::harness::Answer {
    let call = larder.call(method, &way.target(tail));
    match way.host {
        Some(host) => call.host(host).send().await,
        None => call.send().await,
    }
}

fn seed(acr: &Acr, word: &str) -> crate::harness::simulator::Artifact {
    let files = [("config.json", "application/json", Bytes::from(format!("{{\"registry\":\"{word}\"}}")))];
    let artifact = acr.push_artifact(REPOSITORY, "v1", &files);
    let referrer = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"artifactType\":\"application/x.{word}\",\"config\":{{\"mediaType\":\
         \"application/vnd.oci.empty.v1+json\",\"digest\":\"{}\",\"size\":2}},\"layers\":[],\"subject\":{{\"mediaType\":\"{OCI_MANIFEST}\",\
         \"digest\":\"{}\",\"size\":{}}}}}",
        crate::harness::sha256(b"{}"),
        artifact.digest,
        artifact.manifest.len()
    );
    acr.push_manifest(REPOSITORY, None, OCI_MANIFEST, referrer);
    artifact
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_naming_answers_every_kind_of_request_with_get_and_head() {
    let (acr, other) = (Acr::start(Options::private("ci", "pw")).await, Acr::start(Options::private("ci", "pw")).await);
    let setup = Setup::of(&acr).and(&other).password("ci", "pw");
    let setup = setup.with(|settings| settings.upstreams[1].credential = settings.upstreams[0].credential.clone());
    let larder = setup.start().await;
    let seeded = [(seed(&acr, "first"), "first"), (seed(&other, "second"), "second")];
    for ((artifact, word), upstream, alias) in seeded
        .into_iter()
        .zip([UPSTREAM, OTHER])
        .zip([ALIAS, OTHER_ALIAS])
        .map(|((one, upstream), alias)| (one, upstream, alias))
    {
        let blob = format!("{{\"registry\":\"{word}\"}}");
        for way in ways(upstream, alias, upstream == UPSTREAM) {
            let expected = [
                (format!("{REPOSITORY}/manifests/v1"), OCI_MANIFEST, Some(artifact.manifest.clone())),
                (format!("{REPOSITORY}/manifests/{}", artifact.digest), OCI_MANIFEST, Some(artifact.manifest.clone())),
                (
                    format!("{REPOSITORY}/blobs/{}", artifact.layers[0]),
                    "application/octet-stream",
                    Some(blob.clone().into()),
                ),
                (format!("{REPOSITORY}/tags/list"), "application/json", None),
                (format!("{REPOSITORY}/referrers/{}", artifact.digest), OCI_INDEX, None),
                ("_catalog".to_owned(), "application/json", None),
            ];
            for (tail, kind, body) in expected {
                let what = format!("{word} {} {tail}", way.name);
                let got = ask(&larder, "GET", &way, &tail).await;
                assert_eq!(got.status, 200, "{what}: {got:?}");
                assert_eq!(got.header("content-type"), Some(kind), "{what}");
                assert_eq!(got.header("oci-namespace"), way.ns, "{what}");
                if let Some(body) = body {
                    assert_eq!(got.body, body, "{what}");
                    assert!(got.header("docker-content-digest").is_some(), "{what}");
                }
                let head = ask(&larder, "HEAD", &way, &tail).await;
                assert_eq!(head.status, 200, "{what}");
                for header in
                    ["content-type", "content-length", "docker-content-digest", "oci-namespace", "accept-ranges"]
                {
                    assert_eq!(head.header(header), got.header(header), "{what}: {header} of HEAD and GET");
                }
            }
            let absent = ask(&larder, "GET", &way, &format!("{REPOSITORY}/manifests/v0")).await;
            assert_eq!((absent.status.as_u16(), absent.header("oci-namespace")), (404, way.ns), "{word} {}", way.name);
            // Lists speak in the names that the client used.
            let name = format!("{}/{REPOSITORY}", way.component).trim_start_matches('/').to_owned();
            let tags = ask(&larder, "GET", &way, &format!("{REPOSITORY}/tags/list")).await.json();
            assert_eq!(tags, serde_json::json!({"name": name, "tags": ["v1"]}), "{word} {}", way.name);
            let catalogue = ask(&larder, "GET", &way, "_catalog").await.json();
            let mut names = vec![name];
            if way.name == "D" {
                // Who names no upstream is told of all of them.
                names.insert(0, format!("{OTHER}/{REPOSITORY}"));
            }
            assert_eq!(catalogue, serde_json::json!({"repositories": names}), "{word} {}", way.name);
            let referrers =
                ask(&larder, "GET", &way, &format!("{REPOSITORY}/referrers/{}", artifact.digest)).await.json();
            assert_eq!(referrers["manifests"][0]["artifactType"], format!("application/x.{word}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clash_of_names_is_settled_the_same_way_each_time() {
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let kind = OCI_MANIFEST;
    acr.push_manifest("other", Some("v1"), kind, "{\"is\":\"a repository called other\"}");
    acr.push_manifest("other/app", Some("v1"), kind, "{\"is\":\"other/app of the default\"}");
    other.push_manifest("app", Some("v1"), kind, "{\"is\":\"app of the other\"}");
    other.push_manifest("acr/app", Some("v1"), kind, "{\"is\":\"acr/app of the other\"}");
    let larder = Setup::of(&acr).and(&other).start().await;
    for (target, host, is) in [
        ("/v2/other/manifests/v1", None, "a repository called other"),
        ("/v2/other/app/manifests/v1", None, "app of the other"),
        ("/v2/other/app/manifests/v1?ns=myacr.azurecr.io", None, "other/app of the default"),
        ("/v2/acr/other/app/manifests/v1", None, "other/app of the default"),
        ("/v2/other/app/manifests/v1", Some(UPSTREAM), "other/app of the default"),
        ("/acr/v2/other/app/manifests/v1", None, "other/app of the default"),
        ("/v2/acr/app/manifests/v1?ns=other.azurecr.io", None, "acr/app of the other"),
        ("/v2/app/manifests/v1?ns=other.azurecr.io", Some(UPSTREAM), "app of the other"),
        ("/v2/app/manifests/v1", Some("OTHER.azurecr.io:5000"), "app of the other"),
        ("/v2/OTHER.azurecr.io/app/manifests/v1", None, "app of the other"),
    ] {
        let call = larder.call("GET", target);
        let answer = match host {
            Some(host) => call.host(host).send().await,
            None => call.send().await,
        };
        assert_eq!(answer.status, 200, "{target} {host:?}: {}", answer.text());
        assert_eq!(answer.json()["is"], is, "{target} {host:?}");
    }
    let (status, _, message) = larder.get("/other/v2/app/manifests/v1?ns=myacr.azurecr.io").await.error();
    assert_eq!(status, 404, "two that contradict each other: {message}");
    assert!(message.contains("names two upstreams"), "{message}");
}
