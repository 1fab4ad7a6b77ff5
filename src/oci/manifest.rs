use super::{Digest, MediaType};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::fmt;

/// What a descriptor says of other content, as far as a cache needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes, if the descriptor says one that can be true.
    pub size: Option<u64>,
}

/// The parts of a manifest or an index that a cache needs: what it refers to.
///
/// Reading is tolerant: artifacts of unknown type, Docker schema 2 and OCI indexes are all "JSON with descriptors". The
/// stored bytes stay the only truth; nothing is ever written back from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Config, layers and blobs: content that is fetched from `/blobs/`.
    pub blobs: Vec<Descriptor>,
    /// Manifests of an index: content that is fetched from `/manifests/`.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is attached to.
    pub subject: Option<Digest>,
    /// The type that the document itself claims.
    pub media_type: Option<MediaType>,
}

/// The fields that are read. One that is there twice counts as it is there last, as it does to the registries and clients (Go's
/// `encoding/json`): a derived reader would refuse the whole document.
#[derive(Default)]
struct Document {
    media_type: Value,
    config: Value,
    layers: Value,
    blobs: Value,
    manifests: Value,
    subject: Value,
    /// Docker schema 1, whose layers have no size.
    fs_layers: Value,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(name) = map.next_key::<String>()? {
            let field = match name.as_str() {
                "mediaType" => &mut document.media_type,
                "config" => &mut document.config,
                "layers" => &mut document.layers,
                "blobs" => &mut document.blobs,
                "manifests" => &mut document.manifests,
                "subject" => &mut document.subject,
                "fsLayers" => &mut document.fs_layers,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = map.next_value()?;
        }
        Ok(document)
    }
}

impl Manifest {
    /// Reads `bytes`. `None` if they are no JSON object; a part that makes no sense is left out.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(bytes).ok()?;
        let many = |value: &Value| -> Vec<Descriptor> {
            value.as_array().into_iter().flatten().filter_map(descriptor).collect()
        };
        let mut blobs = many(&document.layers);
        blobs.extend(descriptor(&document.config));
        blobs.extend(many(&document.blobs));
        if let Some(layers) = document.fs_layers.as_array() {
            let digests = layers.iter().filter_map(|layer| layer.get("blobSum")?.as_str()?.parse().ok());
            blobs.extend(digests.map(|digest| Descriptor { digest, size: None }));
        }
        Some(Self {
            blobs,
            manifests: many(&document.manifests),
            subject: descriptor(&document.subject).map(|d| d.digest),
            media_type: document.media_type.as_str().and_then(|text| text.parse().ok()),
        })
    }

    /// Everything that the manifest refers to, the subject left out.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.manifests)
    }
}

fn descriptor(value: &Value) -> Option<Descriptor> {
    Some(Descriptor {
        digest: value.get("digest")?.as_str()?.parse().ok()?,
        size: value.get("size").and_then(Value::as_u64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    #[test]
    fn finds_the_children_of_every_kind() {
        let image = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"digest":"{}","size":2}},
                "layers":[{{"digest":"{}","size":7}},{{"digest":"nonsense"}}],"subject":{{"digest":"{}"}}}}"#,
            MediaType::OCI_MANIFEST,
            digest('a'),
            digest('b'),
            digest('c')
        );
        let image = Manifest::parse(image.as_bytes()).unwrap();
        assert_eq!(image.blobs.len(), 2);
        assert_eq!(image.blobs[0].size, Some(7));
        assert_eq!(image.subject.unwrap().to_string(), digest('c'));
        assert_eq!(image.media_type.unwrap().as_str(), MediaType::OCI_MANIFEST);

        let index = format!(r#"{{"manifests":[{{"digest":"{}","size":-1}}]}}"#, digest('d'));
        let index = Manifest::parse(index.as_bytes()).unwrap();
        assert_eq!(index.manifests[0].size, None);
        assert_eq!(index.children().count(), 1);

        let old = format!(r#"{{"fsLayers":[{{"blobSum":"{}"}}]}}"#, digest('e'));
        assert_eq!(Manifest::parse(old.as_bytes()).unwrap().blobs.len(), 1);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_one_counts() {
        let (first, last) = (digest('a'), digest('b'));
        let twice = format!(
            r#"{{"mediaType":"a/b","layers":[{{"digest":"{first}"}}],"subject":null,"x":1,
                "x":2,"layers":[{{"digest":"{last}"}}],"subject":{{"digest":"{last}"}},"mediaType":"c\/d"}}"#
        );
        let twice = Manifest::parse(twice.as_bytes()).unwrap();
        assert_eq!(twice.blobs.iter().map(|blob| blob.digest.to_string()).collect::<Vec<_>>(), [&*last]);
        assert_eq!(twice.subject.unwrap().to_string(), last);
        assert_eq!(twice.media_type.unwrap().as_str(), "c/d");
    }

    #[test]
    fn other_content_is_no_manifest_and_never_a_panic() {
        assert_eq!(Manifest::parse(b"\xff\xfe"), None);
        assert_eq!(Manifest::parse(b"[]").map(|m| m.blobs.len()).unwrap_or_default(), 0);
        let odd = br#"{"layers":{"digest":7},"config":[],"manifests":"x","mediaType":3}"#;
        assert_eq!(Manifest::parse(odd), Some(Manifest::default()));
    }
}
