//! What is pulled: the artifacts of the guide, an artifact of several megabytes, a referrer, and a container image.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::simulator::samples::incompressible;

pub(crate) const SBOM_TYPE: &str = "application/vnd.example.sbom.v1";

pub(crate) struct File {
    pub(crate) name: &'static str,
    pub(crate) media_type: &'static str,
    pub(crate) bytes: Bytes,
}

pub(crate) struct Sample {
    pub(crate) repository: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) files: Vec<File>,
}

impl Sample {
    /// `repository:tag`, as it follows a registry's name and a slash.
    pub(crate) fn reference(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

fn file(name: &'static str, media_type: &'static str, bytes: impl Into<Bytes>) -> File {
    File { name, media_type, bytes: bytes.into() }
}

/// The guide's artifacts. Each has its own content, so that none is warm because of another.
pub(crate) fn samples() -> Vec<Sample> {
    let chart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let sample = |repository, tag, files| Sample { repository, tag, files };
    vec![
        sample("samples/config", "v1", vec![file("config.json", "application/json", "{\"replicas\": 3}\n")]),
        sample(
            "samples/myapp",
            "v1",
            vec![
                file("config.json", "application/json", "{\"replicas\": 4}\n"),
                file("readme.txt", "text/plain", "pulled through larder\n"),
            ],
        ),
        sample("samples/helm-chart", "v1", vec![file("mychart-0.1.0.tgz", chart, incompressible(7, 20_000))]),
        sample(
            "builds/myapp",
            "1.2.3",
            vec![
                file("app.exe", "application/octet-stream", incompressible(8, 9 << 20)),
                file("app.dll", "application/octet-stream", incompressible(9, 3 << 20)),
                file("README.md", "text/markdown", "# myapp\n"),
            ],
        ),
    ]
}

/// A software bill of materials that refers to `samples/config:v1`.
pub(crate) fn sbom() -> File {
    file("sbom.json", "application/json", "{\"components\": []}\n")
}

/// A container image: its configuration and its one layer.
pub(crate) struct Image {
    pub(crate) config: File,
    pub(crate) layer: File,
}

pub(crate) const IMAGE: &str = "samples/image:v1";

pub(crate) fn image() -> Image {
    let layer = incompressible(10, 300_000);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        digest_of(&layer)
    );
    Image {
        config: file("image.json", "application/vnd.oci.image.config.v1+json", config),
        layer: file("layer.tar", "application/vnd.oci.image.layer.v1.tar", layer),
    }
}

/// Reference → the exact bytes of its manifest, as the upstream has them.
pub(crate) type Manifests = BTreeMap<String, Bytes>;

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
