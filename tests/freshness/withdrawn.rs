use super::harness::simulator::{FaultAnswer, PathClass};
use super::harness::until;
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
