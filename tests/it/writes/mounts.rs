//! Mounts: between repositories of one upstream, and nowhere else.

use crate::harness::simulator::{Mount, Options};
use crate::writes::common::{Scene, content, created, ending, location, pushing_in, uploads};

use crate::harness::{Acr, Setup, sha256};
use larder::config::{AccessRule, Right};
use larder::oci::RepositoryPattern;

fn mounts_seen(acr: &Acr) -> Vec<String> {
    let posts = acr.log().into_iter().filter(|seen| seen.method == "POST" && seen.path().contains("/uploads/"));
    posts.filter(|seen| seen.target.contains("mount=") && seen.status != 401).map(|seen| seen.target).collect()
}

#[tokio::test]
async fn a_mounted_blob_is_there_without_a_byte_or_a_question() {
    let scene = Scene::new().await;
    let content = content(31, 200_000);
    let digest = scene.push("samples/config", &content).await;
    for (to, at, from) in [
        ("samples/a", "/v2/samples/a", "samples/config"),
        ("samples/b", "/v2/acr/samples/b", "acr/samples/config"),
        ("samples/c", "/acr/v2/samples/c", "samples/config"),
    ] {
        let query = format!("mount={}&from={from}&origin=docker.io", digest.replace(':', "%3A"));
        let mounted = scene.call("POST", &format!("{at}/blobs/uploads/?{query}")).send().await;
        assert_eq!(mounted.status, 201, "{mounted:?}");
        assert_eq!(mounted.header("location"), Some(format!("{at}/blobs/{digest}").as_str()));
        assert_eq!(mounted.header("docker-content-digest"), Some(digest.as_str()));
        let asked = scene.acr.log().len();
        let pulled = scene.larder.get(&format!("/v2/{to}/blobs/{digest}")).await;
        assert_eq!((pulled.status.as_u16(), pulled.cache_status(), &pulled.body), (200, "larder; hit", &content));
        assert_eq!(scene.acr.log().len(), asked, "the mount vouches for it");
    }
    for seen in mounts_seen(&scene.acr) {
        assert!(seen.contains("from=samples/config") && !seen.contains("origin"), "{seen}");
    }
    assert_eq!(uploads(&scene.larder, "mounted").await, 3);
}

#[tokio::test]
async fn a_mount_that_upstream_does_not_do_is_an_upload() {
    let scene = Scene::new().await;
    scene.acr.knobs().turn(|knobs| knobs.mount = Mount::Never);
    let content = content(32, 1000);
    let digest = scene.push("samples/config", &content).await;
    let begun = scene.call("POST", &format!("/v2/samples/a/blobs/uploads/?mount={digest}&from=samples/config"));
    let begun = begun.send().await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let put = scene.call("PUT", &ending(&location(&begun), &digest)).body(content).send().await;
    created(&put, "samples/a", &digest);
}

#[tokio::test]
async fn between_upstreams_it_is_an_upload_from_the_start() {
    let acr = Acr::start(Options::private("ci", "secret")).await;
    let other = Acr::start(Options::public()).await;
    let larder = pushing_in(Setup::of(&acr).and(&other)).start().await;
    let content = content(33, 1000);
    let digest = other.push_blob("samples/config", content.clone());
    for from in ["other/samples/config", "other.azurecr.io/samples/config", "Not/A/Name"] {
        let begun =
            larder.call("POST", &format!("/v2/samples/a/blobs/uploads/?mount={digest}&from={from}")).send().await;
        assert_eq!(begun.status, 202, "{begun:?}");
    }
    assert_eq!(mounts_seen(&acr), Vec::<String>::new());
    assert_eq!(sha256(&content), digest);
}

#[tokio::test]
async fn a_mount_from_anywhere_is_upstreams_to_grant_unless_somebody_may_not_read_everything() {
    let scene = Scene::new().await;
    let digest = scene.push("samples/config", &content(34, 1000)).await;
    let target = format!("/v2/samples/a/blobs/uploads/?mount={digest}");
    created(&scene.call("POST", &target).send().await, "samples/a", &digest);

    let secret = |allow: Vec<Right>, networks| AccessRule {
        users: None,
        networks,
        repositories: vec![RepositoryPattern::new("myacr.azurecr.io/secret/**")],
        allow,
    };
    let scene = Scene::with(|setup| {
        setup.with(|settings| {
            let nobody = Some(vec!["10.99.0.0/16".parse().unwrap()]);
            settings.access.rules.push(secret(vec![Right::Pull], nobody));
        })
    })
    .await;
    let digest = scene.acr.push_blob("secret/config", content(35, 1000));
    for query in [format!("mount={digest}"), format!("mount={digest}&from=secret/config")] {
        let begun = scene.call("POST", &format!("/v2/samples/a/blobs/uploads/?{query}")).send().await;
        assert_eq!(begun.status, 202, "{begun:?}");
    }
    assert_eq!(mounts_seen(&scene.acr), Vec::<String>::new(), "nobody mounts what they may not read");
}
