//! What a manifest may not open: bytes that came through another repository, another registry, or past a rule.

use super::{blob, manifest};
use crate::harness::scripted::{Scripted, answer};
use crate::harness::simulator::{OCI_MANIFEST, Options};
use crate::harness::{Acr, Larder, OTHER_ALIAS, Setup, sha256, until};
use bytes::Bytes;
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;
use std::fs;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const API: &str = "Docker-Distribution-Api-Version: registry/2.0";

/// Documents that name `DIGEST`, by the type that they are pushed as, none of which makes a registry look for it.
fn documents(digest: &str) -> Vec<(&'static str, String)> {
    let urls = r#"[{"digest":"DIGEST","size":9,"urls":["https://example.com/x"]}]"#;
    let of = |kind: &'static str, fields: String| {
        let document = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}",{fields}}}"#);
        (kind, document.replace("DIGEST", digest))
    };
    let plain = r#"[{"digest":"DIGEST","size":9}]"#;
    vec![
        of(OCI_MANIFEST, format!(r#""blobs":{plain}"#)),
        of(OCI_MANIFEST, format!(r#""manifests":{plain}"#)),
        of(OCI_MANIFEST, r#""fsLayers":[{"blobSum":"DIGEST"}]"#.to_owned()),
        of(OCI_MANIFEST, format!(r#""layers":{urls}"#)),
        of(OCI_MANIFEST, r#""config":{"digest":"DIGEST","size":9,"urls":["https://example.com/x"]}"#.to_owned()),
        of(OCI_MANIFEST, r#""subject":{"digest":"DIGEST","size":9}"#.to_owned()),
        of(OCI_MANIFEST, format!(r#""layers":{plain},"Layers":[]"#)),
        of(super::DOCKER_MANIFEST, format!(r#""layers":{urls}"#)),
        of(INDEX, format!(r#""manifests":[],"layers":{plain}"#)),
        of(INDEX, format!(r#""manifests":{plain}"#)),
        of(ARTIFACT, format!(r#""layers":{plain}"#)),
        of(SCHEMA1, r#""fsLayers":[{"blobSum":"DIGEST"}]"#.to_owned()),
    ]
}

async fn store_through(larder: &Larder, target: &str, digest: &str) {
    assert_eq!(larder.get(target).await.status, 200);
    until("the blob is stored", || larder.stores(digest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_a_blob_where_no_registry_looks_does_not_open_it() {
    let acr = Acr::start(Options::public()).await;
    let secret = acr.push_blob("secret", "another repository's");
    let larder = Setup::of(&acr).start().await;
    store_through(&larder, &blob("secret", &secret), &secret).await;
    for (number, (kind, document)) in documents(&secret).into_iter().enumerate() {
        let name = format!("attacker{number}");
        acr.push_manifest(&name, Some("v1"), kind, document.clone());
        assert_eq!(larder.get(&manifest(&name, "v1")).await.status, 200, "{document}");
        for method in ["HEAD", "GET"] {
            let refused = larder.call(method, &blob(&name, &secret)).send().await;
            assert_eq!(refused.status, 404, "{method} {document}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_the_same_registry_need_no_question_and_others_one_for_each_repository_and_blob() {
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let files = || [("a", "text/plain", Bytes::from_static(b"a layer of both"))];
    let artifact = acr.push_artifact("team/one", "v1", &files());
    acr.push_artifact("team/two", "v1", &files());
    other.push_artifact("team/far", "v1", &files());
    let layer = &artifact.layers[0];
    let larder = Setup::of(&acr).and(&other).start().await;
    store_through(&larder, &blob("team/one", layer), layer).await;
    let near = larder.get(&manifest("team/two", "v1")).await;
    assert_eq!(near.status, 200);
    acr.clear_log();
    assert_eq!(larder.get(&blob("team/two", layer)).await.cache_status(), "larder; hit");
    assert_eq!(acr.count(|seen| seen.path().contains("/blobs/")), 0);

    let far = format!("{OTHER_ALIAS}/team/far");
    assert_eq!(larder.get(&manifest(&far, "v1")).await.status, 200);
    let asked = |method: &str| other.count(|seen| seen.method == method && seen.path().contains("/blobs/"));
    for status in ["larder; fwd=stale; detail=revalidated", "larder; hit"] {
        assert_eq!(larder.get(&blob(&far, layer)).await.cache_status(), status);
        assert_eq!((asked("HEAD"), asked("GET")), (1, 0));
    }
    // Who gave what is known after a restart, too, with nobody there to ask.
    let larder = larder.stop().await;
    acr.stop_listening();
    other.stop_listening();
    let larder = larder.start().await;
    for repository in ["team/one", "team/two", &far] {
        assert_eq!(larder.get(&blob(repository, layer)).await.cache_status(), "larder; hit", "{repository}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_a_restricted_repository_answers_elsewhere_only_after_a_question() {
    let acr = Acr::start(Options::public()).await;
    let files = [("a", "text/plain", Bytes::from_static(b"behind a rule"))];
    let artifact = acr.push_artifact("secret/app", "v1", &files);
    acr.push_artifact("open/app", "v1", &files);
    // A registry that does not look for the layers of what is pushed.
    let layer = artifact.layers[0].clone();
    let (kind, document) = acr.manifest("secret/app", "v1").unwrap();
    acr.push_manifest("attacker/app", Some("v1"), &kind, document);
    let rule = AccessRule {
        users: None,
        networks: Some(vec!["127.0.0.0/8".parse().unwrap()]),
        repositories: vec![RepositoryPattern::new("*/secret/**")],
        allow: vec![Right::Pull],
    };
    let larder = Setup::of(&acr).with(|settings| settings.access.rules.push(rule)).start().await;
    store_through(&larder, &blob("secret/app", &layer), &layer).await;
    for name in ["attacker/app", "open/app"] {
        assert_eq!(larder.get(&manifest(name, "v1")).await.status, 200);
    }
    assert_eq!(larder.get(&blob("attacker/app", &layer)).await.status, 404);
    let open = larder.get(&blob("open/app", &layer)).await;
    assert_eq!(open.cache_status(), "larder; fwd=stale; detail=revalidated");
    // Now it came through a repository that everybody may pull only by upstream's word: that is no other's.
    assert_eq!(larder.get(&blob("attacker/app", &layer)).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_manifest_is_no_blob_of_a_repository_that_has_it_as_a_manifest() {
    let acr = Acr::start(Options::public()).await;
    let artifact = acr.push_artifact("team/app", "v1", &[]);
    let child = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":9}}]}}"#, artifact.digest);
    let index = acr.push_manifest("team/app", Some("all"), INDEX, child);
    let larder = Setup::of(&acr).start().await;
    for reference in ["all", "v1"] {
        assert_eq!(larder.get(&manifest("team/app", reference)).await.status, 200);
    }
    for digest in [&artifact.digest, &index] {
        assert_eq!(larder.get(&blob("team/app", digest)).await.status, 404);
        assert_eq!(larder.get(&blob("team/other", digest)).await.status, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_vouches_only_in_a_registrys_words_and_for_these_bytes() {
    let content = "what another upstream gave";
    let acr = Acr::start(Options::public()).await;
    let digest = acr.push_blob("team/app", content);
    let length = content.len();
    let (own, named, other) = (
        format!("Content-Length: {length}"),
        format!("Docker-Content-Digest: {digest}"),
        format!("Docker-Content-Digest: {}", sha256(b"other")),
    );
    let honest = [vec![API, &own], vec![&*named, &own], vec![API, &named, &own]];
    let lies = [
        vec![&*own],
        vec![API],
        vec![API, "Content-Length: 5"],
        vec![API, &other, &own],
        vec!["Content-Type: text/html", &own],
    ];
    for (lines, vouches) in honest.iter().map(|lines| (lines, true)).chain(lies.iter().map(|lines| (lines, false))) {
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{}\r\n\r\n", lines.join("\r\n")).into_bytes();
        let liar = Scripted::start(move |first| match first.split(' ').next() {
            Some("HEAD") => head.clone(),
            _ => answer("404 Not Found", &[API], r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
        })
        .await;
        let mut setup = Setup::of(&acr).and(&acr);
        setup.settings.upstreams[1].url = liar.url().parse().unwrap();
        let larder = setup.start().await;
        store_through(&larder, &blob("team/app", &digest), &digest).await;
        let got = larder.get(&blob(&format!("{OTHER_ALIAS}/x"), &digest)).await;
        assert_eq!(got.status == 200, vouches, "{lines:?} {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_upstream_shares_no_bytes_in_either_direction() {
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let (first, second) = (acr.push_blob("a", "one content"), other.push_blob("b", "another content"));
    acr.push_blob("a", "another content");
    other.push_blob("b", "one content");
    let setup = Setup::of(&acr).and(&other).with(|settings| settings.upstreams[1].isolate = true);
    let larder = setup.start().await;
    let theirs = |digest: &str| blob(&format!("{OTHER_ALIAS}/b"), digest);
    store_through(&larder, &blob("a", &first), &first).await;
    store_through(&larder, &theirs(&second), &second).await;
    assert_eq!((acr.downloads(), other.downloads()), (1, 1));
    assert_eq!(larder.get(&theirs(&first)).await.cache_status().split("; ").nth(1), Some("fwd=miss"));
    assert_eq!(larder.get(&blob("a", &second)).await.cache_status().split("; ").nth(1), Some("fwd=miss"));
    assert_eq!((acr.downloads(), other.downloads()), (2, 2));
    // Each has given both by now.
    for target in [blob("a", &second), blob("a", &first), theirs(&first), theirs(&second)] {
        assert_eq!(larder.get(&target).await.cache_status(), "larder; hit", "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_records_of_givers_vouches_for_no_more_than_its_only_registry_gave() {
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let files = [("a", "text/plain", Bytes::from_static(b"stored by an earlier larder"))];
    let artifact = acr.push_artifact("team/app", "v1", &files);
    acr.push_artifact("team/too", "v1", &files);
    let layer = artifact.layers[0].clone();
    let setup = Setup::of(&acr).and(&other);
    let larder = setup.start().await;
    assert_eq!(larder.get(&manifest("team/app", "v1")).await.status, 200);
    store_through(&larder, &blob("team/app", &layer), &layer).await;
    assert_eq!(larder.get(&manifest("team/too", "v1")).await.status, 200);
    let setup = larder.stop().await;
    let earlier = |setup: &Setup| {
        fs::remove_dir_all(setup.store().join("givers")).unwrap();
        let _ = fs::remove_file(setup.store().join("earlier-giver"));
    };
    earlier(&setup);
    let larder = setup.start().await;
    acr.clear_log();
    for name in ["team/app", "team/too"] {
        assert_eq!(larder.get(&blob(name, &layer)).await.cache_status(), "larder; hit", "{name}");
    }
    // The same store with links of another registry, too: nobody knows any more whose bytes these are.
    let (kind, document) = acr.manifest("team/app", "v1").unwrap();
    other.push_manifest("x", Some("v1"), &kind, document);
    let theirs = format!("{OTHER_ALIAS}/x");
    assert_eq!(larder.get(&manifest(&theirs, "v1")).await.status, 200);
    assert_eq!(larder.get(&blob(&theirs, &layer)).await.status, 404);
    let setup = larder.stop().await;
    earlier(&setup);
    let larder = setup.start().await;
    let revalidated = larder.get(&blob("team/too", &layer)).await;
    assert_eq!(revalidated.cache_status(), "larder; fwd=stale; detail=revalidated");
    assert_eq!(larder.get(&blob(&theirs, &layer)).await.status, 404);
}

/// A farm: machines that pull images which share base layers, half of them from a second registry that has the same base.
#[tokio::test(flavor = "multi_thread")]
async fn the_narrower_sharing_costs_a_farm_one_head_for_each_blob_and_repository_of_another_registry() {
    const IMAGES: usize = 8;
    const BASE: usize = 5;
    const MACHINES: usize = 10;
    let (acr, other) = (Acr::start(Options::public()).await, Acr::start(Options::public()).await);
    let base: Vec<_> = (0..BASE).map(|layer| format!("layer {layer} of the base")).collect();
    let mut images = Vec::new();
    for image in 0..2 * IMAGES {
        let own = format!("the layer of image {image}");
        let files = base.iter().chain([&own]).map(|text| ("f", "text/plain", Bytes::from(text.clone())));
        let files: Vec<_> = files.collect();
        let (upstream, prefix) = if image < IMAGES { (&acr, "") } else { (&other, "other/") };
        let name = format!("team/app{image}");
        images.push((format!("{prefix}{name}"), upstream.push_artifact(&name, "v1", &files)));
    }
    let larder = Setup::of(&acr).and(&other).start().await;
    for _ in 0..MACHINES {
        for (name, artifact) in &images {
            assert_eq!(larder.get(&manifest(name, "v1")).await.status, 200);
            for layer in &artifact.layers {
                assert_eq!(larder.get(&blob(name, layer)).await.status, 200);
                until("the blob is stored", || larder.stores(layer)).await;
            }
        }
    }
    let heads =
        |acr: &Acr| acr.count(|seen| seen.method == "HEAD" && seen.path().contains("/blobs/") && seen.status == 200);
    let gets = |acr: &Acr| acr.downloads();
    assert_eq!((heads(&acr), gets(&acr)), (0, BASE + IMAGES), "its own layers are vouched for");
    assert_eq!((heads(&other), gets(&other)), (IMAGES * BASE, IMAGES));
}

/// An upstream that says yes to everything that is written, and has nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_upstream_opens_nothing_by_a_mount_a_push_or_a_head() {
    let acr = Acr::start(Options::public()).await;
    let secret = acr.push_blob("secret", "what the first registry has");
    let named = secret.clone();
    let liar = Scripted::start(move |line| {
        let (api, digest) =
            ("Docker-Distribution-Api-Version: registry/2.0", format!("Docker-Content-Digest: {named}"));
        match line.split(' ').next().unwrap() {
            "POST" | "PUT" => answer("201 Created", &[api, &digest, "Location: /v2/x/blobs/x"], ""),
            "HEAD" => answer("200 OK", &[api, &digest], "what the first registry has"),
            _ => answer(
                "404 Not Found",
                &[api, "Content-Type: application/json"],
                r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#,
            ),
        }
    })
    .await;
    let setup = Setup::of(&acr).and(&acr).with(|settings| {
        settings.upstreams[1].url = liar.url().parse().unwrap();
        settings.upstreams[1].isolate = true;
        let (repositories, allow) = (vec![RepositoryPattern::new("**")], vec![Right::Push]);
        settings.access.rules = vec![AccessRule { users: None, networks: None, repositories, allow }];
    });
    let larder = setup.start().await;
    store_through(&larder, &blob("secret", &secret), &secret).await;
    let theirs = format!("{OTHER_ALIAS}/x");
    let mount = format!("/v2/{theirs}/blobs/uploads/?mount={secret}&from={OTHER_ALIAS}/y");
    assert_eq!(larder.call("POST", &mount).send().await.status, 201);
    let document = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"application/json","digest":"{secret}","size":27}},"layers":[]}}"#
    );
    let put = larder.call("PUT", &manifest(&theirs, "v1")).line("Content-Type", OCI_MANIFEST).body(document);
    assert_eq!(put.send().await.status, 201);
    larder.head(&blob(&theirs, &secret)).await;
    for _ in 0..2 {
        let got = larder.get(&blob(&theirs, &secret)).await;
        assert_eq!(got.status, 404, "{got:?}");
    }
    assert_eq!(larder.get(&blob("secret", &secret)).await.cache_status(), "larder; hit");
}
