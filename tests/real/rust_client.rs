//! The Rust oci-client, a library: the lines of `larder client-config oci-client` are the ones below.

use std::fs;

use oci_client::client::{
    BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol, Config, ImageData, ImageLayer,
};
use oci_client::errors::Result;
use oci_client::manifest::OciImageManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use tokio::runtime::{Builder, Runtime};

use crate::content::digest_of;
use crate::matrix;
use crate::pushing::{pushed, stage as stage_for_pushes, there};
use crate::stage::{FRONT, Image, LAYER, NAME, Stage};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Each pull has a client of its own: one that is kept would remember what it was told.
fn plain(stage: &Stage) -> Client {
    let at = stage.larder.host();
    let line = format!(
        r#"let client = Client::new(ClientConfig {{ protocol: ClientProtocol::HttpsExcept(vec!["{at}".into()]), ..Default::default() }});"#
    );
    assert!(stage.lines("oci-client").contains(&line), "{line}");
    Client::new(ClientConfig { protocol: ClientProtocol::HttpsExcept(vec![at]), ..Default::default() })
}

/// What is named, by a route.
fn reference(stage: &Stage, route: &str, image: &Image) -> Reference {
    let at = stage.larder.host();
    if route != "mirror" {
        return format!("{}/{}", stage.base(route), image.reference()).parse().unwrap();
    }
    let lines = stage.lines("oci-client");
    assert!(
        lines.contains(&format!(r#"let mut reference: Reference = "{NAME}/REPOSITORY:TAG".parse()?;"#)),
        "{lines:?}"
    );
    assert!(lines.contains(&format!(r#"reference.set_mirror_registry("{at}".into());"#)), "{lines:?}");
    let mut reference: Reference = format!("{NAME}/{}", image.reference()).parse().unwrap();
    reference.set_mirror_registry(at);
    reference
}

/// It verifies every digest by itself.
fn pull(client: &Client, reference: &Reference) -> Result<ImageData> {
    runtime().block_on(client.pull(reference, &RegistryAuth::Anonymous, vec![LAYER]))
}

fn holds(pulled: &ImageData, image: &Image) -> bool {
    pulled.digest.as_ref() == Some(&image.digest())
        && pulled.config.data == image.config
        && pulled.layers[0].data == image.layer
}

#[test]
fn matrix_oci_client() {
    let routes = matrix::routes("oci-client");
    let stage = Stage::new(NAME, &routes);
    matrix::run("oci-client", &stage, &routes, |route, image, when| {
        let (client, reference) = (plain(&stage), reference(&stage, route, image));
        assert!(holds(&pull(&client, &reference).unwrap(), image), "{route}, {when:?}");
        // As it goes on with a download that was cut.
        let layer = digest_of(&image.layer);
        let part = client.pull_blob_stream_partial(&reference, layer.as_str(), 1000, Some(500));
        let BlobResponse::Partial(part) = runtime().block_on(part).unwrap() else { panic!("{route}: no part") };
        assert_eq!(part.content_length, Some(500), "{route}, {when:?}");
        let tags = client.list_tags(&reference, &RegistryAuth::Anonymous, None, None);
        assert_eq!(runtime().block_on(tags).unwrap().tags, ["v1"], "{route}, {when:?}");
    });
}

#[test]
fn matrix_https_oci_client() {
    let routes = matrix::routes_over_https("oci-client");
    let stage = Stage::over_https(&routes);
    let lines = stage.lines("oci-client").join("\n");
    for line in [
        r#"let ca = Certificate { encoding: CertificateEncoding::Pem, data: std::fs::read("CA.pem")? };"#,
        "protocol: ClientProtocol::Https, extra_root_certificates: vec![ca],",
    ] {
        assert!(lines.contains(line), "{lines}");
    }
    // This process has no hosts file of its own; the certificate is good for localhost, too.
    let named = |image: &Image| -> Reference {
        format!("{}/{}", stage.base("https").replace(FRONT, "localhost"), image.reference()).parse().unwrap()
    };
    let ignorant = Client::new(ClientConfig { protocol: ClientProtocol::Https, ..Default::default() });
    let refused = pull(&ignorant, &named(&Image::of("https"))).err().unwrap();
    assert!(format!("{refused:?}").contains("ertificate"), "{refused:?}");
    matrix::run("oci-client", &stage, &routes, |route, image, when| {
        let ca = Certificate { encoding: CertificateEncoding::Pem, data: fs::read(stage.ca()).unwrap() };
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::Https,
            extra_root_certificates: vec![ca],
            ..Default::default()
        });
        assert!(holds(&pull(&client, &named(image)).unwrap(), image), "{route}, {when:?}");
    });
}

#[test]
fn matrix_push_oci_client() {
    let stage = stage_for_pushes();
    let image = Image::of("pushed-by-oci-client");
    // In chunks, as it does unless told, and each blob in one piece.
    for (tag, whole) in [("v1", false), ("v2", true)] {
        let protocol = ClientProtocol::HttpsExcept(vec![stage.larder.host()]);
        let client = Client::new(ClientConfig { protocol, use_monolithic_push: whole, ..Default::default() });
        let reference: Reference = format!("{}/pushed/oci-client:{tag}", stage.base("prefix")).parse().unwrap();
        let layers = [ImageLayer::oci_v1(image.layer.clone(), None)];
        let config = Config::oci_v1(image.config.clone(), None);
        let manifest = OciImageManifest::build(&layers, &config, None);
        let push = client.push(&reference, &layers, config, &RegistryAuth::Anonymous, Some(manifest));
        runtime().block_on(push).unwrap();
        there(&stage, "oci-client", &format!("pushed/oci-client:{tag}"));
    }
    pushed("oci-client");
}
