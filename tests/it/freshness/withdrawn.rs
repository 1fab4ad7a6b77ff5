use super::harness::simulator::{FaultAnswer, PathClass};
use super::harness::{Setup, until, until_async};
use super::{NEVER, Scene, TAG, digest};
use bytes::Bytes;

/// A working token that is refused for one repository: that repository is withheld, tags, digests, blobs and lists, until it works
/// again. Another one is not touched.
#[tokio::test]
async fn a_repository_that_is_refused_is_withheld_until_it_works_again() {
    let scene = Scene::of(NEVER).await;
    scene.acr.push_artifact("other", "v1", &[("file", "text/plain", Bytes::from_static(b"x"))]);
    let other = "/v2/other/manifests/v1";
    assert_eq!(scene.larder.get(other).await.status, 200);
    let layer = &scene.artifact.layers[0];
    let of_it = [
        TAG.to_owned(),
        format!("/v2/app/manifests/{}", scene.artifact.digest),
        format!("/v2/app/blobs/{layer}"),
        "/v2/app/tags/list".to_owned(),
    ];
    for target in &of_it {
        assert_eq!(scene.larder.get(target).await.status, 200, "{target}");
    }
    until("the blob is stored", || scene.larder.stores(layer)).await;
    let refused = FaultAnswer::Oci { status: 403, code: "DENIED".into(), message: "requested access is denied".into() };
    for class in [PathClass::Manifests, PathClass::Blobs, PathClass::Tags] {
        scene.acr.knobs().fail(class, refused.clone());
    }
    for target in of_it.iter().chain(&of_it) {
        let (status, code, _) = scene.larder.get(target).await.error();
        assert_eq!((status, &*code), (403, "DENIED"), "{target}");
        assert_eq!(scene.larder.head(target).await.status, 403, "{target}");
    }
    scene.acr.knobs().reset();
    for target in of_it.iter().rev() {
        assert_eq!(scene.larder.get(target).await.status, 200, "{target}");
    }
    assert_eq!(digest(&scene.tag().await), scene.artifact.digest);
    assert_eq!(scene.larder.get(other).await.status, 200);
}

/// More refused repositories than are remembered: nothing stored is given out on a guess, and what upstream allows again is served, also
/// when it is away.
#[tokio::test]
async fn more_refused_repositories_than_are_remembered_let_nothing_out() {
    let change = |setup: Setup| setup.with(|settings| settings.server.limits.negative_entries = 2);
    let scene = Scene::with(NEVER, change).await;
    let names = ["one", "two", "three", "allowed", "unasked"];
    let by_digest: Vec<String> = names
        .iter()
        .map(|name| {
            let content = Bytes::from((*name).to_owned());
            let artifact = scene.acr.push_artifact(name, "v1", &[("file", "text/plain", content)]);
            format!("/v2/{name}/manifests/{}", artifact.digest)
        })
        .collect();
    for (name, target) in names.iter().zip(&by_digest) {
        assert_eq!(scene.larder.get(&format!("/v2/{name}/manifests/v1")).await.status, 200);
        assert_eq!(scene.larder.get(target).await.status, 200);
    }
    let refused = FaultAnswer::Oci { status: 403, code: "DENIED".into(), message: "requested access is denied".into() };
    scene.acr.knobs().fail(PathClass::Manifests, refused);
    for name in &names[..3] {
        assert_eq!(scene.larder.get(&format!("/v2/{name}/manifests/v1")).await.status, 403, "{name}");
    }
    for target in &by_digest {
        assert_eq!(scene.larder.get(target).await.status, 403, "{target}");
    }
    scene.acr.knobs().reset();
    scene.acr.clear_log();
    for _ in 0..2 {
        assert_eq!(scene.larder.get(&by_digest[3]).await.status, 200);
    }
    assert_eq!(scene.asked(), (1, 0), "asked about once, and served");
    scene.acr.stop_listening();
    assert_eq!(scene.larder.get(&by_digest[3]).await.status, 200);
    for target in [&by_digest[0], &by_digest[4]] {
        assert_eq!(scene.larder.get(target).await.status, 504, "{target}");
    }
    scene.acr.resume_listening();
    until_async("it is there again", async || scene.larder.get(&by_digest[0]).await.status == 200).await;
}
