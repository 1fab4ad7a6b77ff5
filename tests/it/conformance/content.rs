//! The kinds of content that are pushed, listed, pulled and deleted.

use crate::harness::simulator::samples::incompressible;
use crate::harness::{sha256, sha512};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const EXAMPLE_1: &str = "application/vnd.example.one+json";
const EXAMPLE_2: &str = "application/vnd.example.two+json";

pub struct Manifest {
    pub digest: String,
    pub bytes: Bytes,
    pub media_type: &'static str,
    pub subject: Option<String>,
}

/// Content that is tried together.
pub struct Set {
    pub name: &'static str,
    algorithm: &'static str,
    pub blobs: BTreeMap<String, Bytes>,
    /// Children first.
    pub manifests: Vec<Manifest>,
    pub tags: BTreeMap<String, usize>,
    /// Subject → its referrers, as the list describes them.
    pub referrers: BTreeMap<String, Vec<Value>>,
    /// The manifest's bytes are not those of its digest.
    pub wrong: bool,
}

pub fn digest(algorithm: &str, bytes: &[u8]) -> String {
    if algorithm == "sha512" { sha512(bytes) } else { sha256(bytes) }
}

impl Set {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            algorithm: "sha256",
            blobs: BTreeMap::new(),
            manifests: Vec::new(),
            tags: BTreeMap::new(),
            referrers: BTreeMap::new(),
            wrong: false,
        }
    }

    fn tag(mut self, tag: &str) -> Self {
        self.tag_last(tag);
        self
    }

    fn tag_last(&mut self, tag: &str) {
        self.tags.insert(tag.to_owned(), self.manifests.len() - 1);
    }

    fn blob(&mut self, media_type: &str, bytes: Bytes) -> Value {
        let digest = digest(self.algorithm, &bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        descriptor
    }

    /// Bytes that no other blob has.
    fn layer(&mut self, media_type: &str) -> Value {
        let seed = self
            .name
            .bytes()
            .fold(self.blobs.len() as u64 + 7, |seed, b| seed.wrapping_mul(131).wrapping_add(b.into()));
        self.blob(media_type, incompressible(seed, 2000))
    }

    fn config(&mut self, architecture: &str) -> Value {
        let config = json!({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "of": self.name});
        self.blob(CONFIG, config.to_string().into())
    }

    /// Adds a manifest of an image, with more fields.
    fn image(&mut self, config: &Value, layers: &[Value], more: Value) -> Value {
        self.manifest(IMAGE, json!({"config": config, "layers": layers}), more)
    }

    fn index(&mut self, children: &[Value], more: Value) -> Value {
        self.manifest(INDEX, json!({"manifests": children}), more)
    }

    fn manifest(&mut self, media_type: &'static str, fields: Value, more: Value) -> Value {
        let mut document = json!({"schemaVersion": 2, "mediaType": media_type});
        for (key, value) in [fields, more].into_iter().filter_map(|fields| fields.as_object().cloned()).flatten() {
            document[key] = value;
        }
        let bytes = Bytes::from(document.to_string());
        let digest = digest(self.algorithm, &bytes);
        let subject = document["subject"]["digest"].as_str().map(str::to_owned);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        if let Some(subject) = &subject {
            let mut referrer = descriptor.clone();
            let kind =
                [&document["artifactType"], &document["config"]["mediaType"]].into_iter().find(|kind| kind.is_string());
            if let Some(kind) = kind {
                referrer["artifactType"] = kind.clone();
            }
            if document["annotations"].is_object() {
                referrer["annotations"] = document["annotations"].clone();
            }
            self.referrers.entry(subject.clone()).or_default().push(referrer);
        }
        self.manifests.push(Manifest { digest, bytes, media_type, subject });
        descriptor
    }

    /// An image with two layers.
    fn plain(&mut self, architecture: &str, more: Value) -> Value {
        let config = self.config(architecture);
        let layers = [self.layer(LAYER), self.layer(LAYER)];
        self.image(&config, &layers, more)
    }

    /// An index of two such images.
    fn platforms(&mut self, more: &Value) -> Value {
        let children = ["amd64", "arm64"].map(|architecture| {
            let mut child = self.plain(architecture, more.clone());
            child["platform"] = json!({"os": "linux", "architecture": architecture});
            child
        });
        self.index(&children, more.clone())
    }

    /// An artifact with one layer and no config.
    fn artifact(&mut self, kind: &str, more: &Value) -> Value {
        let (config, layer) = (self.blob(EMPTY, "{}".into()), self.layer(kind));
        let mut fields = json!({"artifactType": kind});
        for (key, value) in more.as_object().cloned().into_iter().flatten() {
            fields[key] = value;
        }
        self.image(&config, &[layer], fields)
    }
}

fn plain(name: &'static str, more: Value) -> Set {
    let mut set = Set::new(name);
    set.plain("amd64", more);
    set.tag(name)
}

fn noted(subject: &Value, number: usize) -> Value {
    json!({"subject": subject, "annotations": {"org.opencontainers.conformance": "hello", "number": number.to_string()}})
}

/// Every set, in the program's order.
#[expect(clippy::too_many_lines, reason = "a list")]
pub fn all() -> Vec<Set> {
    let annotations: serde_json::Map<String, Value> =
        (0..390).map(|number| (format!("large-annotation-{number}"), "A".repeat(10_000).into())).collect();
    let mut all = vec![
        plain("image", json!({})),
        plain("image-uncompressed", json!({"annotations": {"layers": "not compressed"}})),
        plain("large-manifest", json!({"annotations": annotations})),
    ];
    let mut add = |name, fill: &dyn Fn(&mut Set)| {
        let mut set = Set::new(name);
        fill(&mut set);
        all.push(set);
    };
    add("index", &|set| {
        set.platforms(&json!({}));
        set.tag_last("index");
    });
    add("nested-index", &|set| {
        let children = [set.platforms(&json!({})), set.platforms(&json!({}))];
        set.index(&children, json!({}));
        set.tag_last("index-of-index");
    });
    add("empty-index", &|set| {
        set.index(&[], json!({}));
        set.tag_last("index");
    });
    add("artifact", &|set| {
        set.artifact(EXAMPLE_1, &json!({}));
        set.tag_last("artifact");
    });
    add("artifact-index", &|set| {
        let children = [set.artifact(EXAMPLE_1, &json!({})), set.artifact(EXAMPLE_1, &json!({}))];
        set.index(&children, json!({"artifactType": EXAMPLE_1}));
        set.tag_last("artifact-index");
    });
    add("artifact-without-layers", &|set| {
        let empty = set.blob(EMPTY, "{}".into());
        set.image(&empty, std::slice::from_ref(&empty), json!({"artifactType": EXAMPLE_1}));
        set.tag_last("artifact-without-layers");
    });
    add("artifacts-with-subject", &|set| {
        let subject = set.plain("amd64", json!({}));
        set.tag_last("image");
        set.plain("amd64", json!({"subject": subject}));
        for (kind, tag, number) in [(EXAMPLE_1, "tagged-artifact1", 1), (EXAMPLE_2, "tagged-artifact2", 2)] {
            set.artifact(kind, &noted(&subject, number));
            set.tag_last(tag);
        }
    });
    add("index-with-subject", &|set| {
        let subject = set.platforms(&json!({}));
        set.tag_last("index");
        let children = [set.artifact(EXAMPLE_1, &json!({})), set.artifact(EXAMPLE_1, &json!({}))];
        let mut more = noted(&subject, 1);
        more["artifactType"] = EXAMPLE_1.into();
        set.index(&children, more);
        set.tag_last("tagged-artifact");
    });
    add("missing-subject", &|set| {
        let subject = json!({"mediaType": IMAGE, "digest": sha256(b"missing content"), "size": 123});
        set.artifact(EXAMPLE_1, &noted(&subject, 1));
        set.tag_last("tagged-artifact");
    });
    add("data-field", &|set| {
        use base64::Engine as _;
        let mut config = set.config("amd64");
        let bytes = set.blobs[config["digest"].as_str().unwrap()].clone();
        config["data"] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
        let layers = [set.layer(LAYER), set.layer(LAYER)];
        set.image(&config, &layers, json!({}));
        set.tag_last("data-field");
    });
    add("non-distributable-layers", &|set| {
        let elsewhere = ["nondistributable.v1.tar+gzip", "nondistributable.v1.tar"].map(|kind| {
            let digest = sha256(kind.as_bytes());
            json!({"mediaType": format!("application/vnd.oci.image.layer.{kind}"), "digest": digest, "size": 12_345,
                   "urls": [format!("https://store.example.com/blobs/{digest}")]})
        });
        let (config, here) = (set.config("amd64"), set.layer(LAYER));
        let [first, second] = elsewhere;
        set.image(&config, &[first, second, here], json!({}));
        set.tag_last("non-distributable-image");
    });
    add("custom-fields", &|set| {
        set.platforms(&json!({"org.example.extra": "7f3a"}));
        set.tag_last("custom-fields");
    });
    add("no-layers", &|set| {
        let config = set.config("amd64");
        set.image(&config, &[], json!({}));
        set.tag_last("no-layers");
    });
    add("sha512", &|set| {
        set.algorithm = "sha512";
        set.platforms(&json!({}));
    });
    add("bad-digest-image", &|set| {
        set.plain("amd64", json!({}));
        let bytes = [&set.manifests[0].bytes[..], b"  "].concat();
        set.manifests[0].bytes = bytes.into();
        set.wrong = true;
    });
    all
}

/// An image with one layer, for what is wrong with addresses.
pub fn small() -> Set {
    let mut set = Set::new("invalid-digest-format");
    let (config, layer) = (set.config("amd64"), set.layer(LAYER));
    set.image(&config, &[layer], json!({}));
    set
}
