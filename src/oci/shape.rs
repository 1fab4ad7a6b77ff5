//! What a document is by its own word, and by how it is built: registries and storage label manifests with types of no use.

use super::MediaType;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de::value::MapAccessDeserializer};
use std::borrow::Cow;
use std::fmt;

/// Docker schema 1, signed: its digest is that of the payload.
const SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
const UNSIGNED: &str = "application/vnd.docker.distribution.manifest.v1+json";

/// The outline of a manifest or an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field that is there or not")]
pub struct Shape {
    own: Option<MediaType>,
    version: Option<u64>,
    config: bool,
    layers: bool,
    blobs: bool,
    manifests: bool,
    fs_layers: bool,
    signatures: bool,
}

impl Shape {
    /// Reads the outline. `None` if `bytes` are no JSON object.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether the document says that it is a manifest or an index, or is built as one.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        let by_word = self.own.as_ref().is_some_and(|own| own.is_specific() || self.blobs || self.config);
        by_word || self.layers || self.manifests || self.fs_layers
    }

    /// Whether it is a signed manifest of Docker's schema 1.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.version == Some(1) && self.signatures
    }

    /// The type: the document's own, else the one that its parts show.
    #[must_use]
    pub fn media_type(&self) -> Option<MediaType> {
        let by_parts = match self {
            Self { version: Some(1), fs_layers: true, signatures, .. } => {
                if *signatures {
                    SIGNED
                } else {
                    UNSIGNED
                }
            }
            Self { manifests: true, .. } => MediaType::OCI_INDEX,
            Self { config: true, layers: true, .. } => MediaType::OCI_MANIFEST,
            _ => return self.own.clone(),
        };
        self.own.clone().or_else(|| by_parts.parse().ok())
    }
}

/// Whether a field has a value of the kind that it must have.
#[derive(Default)]
struct Kind {
    text: Option<String>,
    number: Option<u64>,
    list: bool,
    object: bool,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Shape;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut shape = Shape::default();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            let kind = map.next_value::<Kind>()?;
            match &*name {
                "mediaType" => shape.own = kind.text.and_then(|text| text.parse().ok()),
                "schemaVersion" => shape.version = kind.number,
                "config" => shape.config = kind.object,
                "layers" => shape.layers = kind.list,
                "blobs" => shape.blobs = kind.list,
                "manifests" => shape.manifests = kind.list,
                "fsLayers" => shape.fs_layers = kind.list,
                "signatures" => shape.signatures = kind.list,
                _ => {}
            }
        }
        Ok(shape)
    }
}

/// A field's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }
}

struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = Kind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        // No media type is longer, and nothing else is read.
        let text = (text.len() <= 255).then(|| text.to_owned());
        Ok(Kind { text, ..Kind::default() })
    }

    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind { number: Some(number), ..Kind::default() })
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::default())
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Kind { list: true, ..Kind::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Kind, A::Error> {
        IgnoredAny::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Kind { object: true, ..Kind::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<String> {
        Shape::of(text.as_bytes()).and_then(|shape| shape.media_type()).map(|kind| kind.to_string())
    }

    #[test]
    fn a_document_s_own_word_counts_and_then_its_parts() {
        assert_eq!(kind(r#"{"mediaType":"a/b","manifests":[]}"#).as_deref(), Some("a/b"));
        assert_eq!(kind(r#"{"schemaVersion":2,"manifests":[{}]}"#).as_deref(), Some(MediaType::OCI_INDEX));
        assert_eq!(kind(r#"{"config":{"x":[1]},"layers":[],"y":-1.5}"#).as_deref(), Some(MediaType::OCI_MANIFEST));
        assert_eq!(kind(r#"{"schemaVersion":1,"fsLayers":[],"signatures":[{}]}"#).as_deref(), Some(SIGNED));
        assert_eq!(kind(r#"{"schemaVersion":1,"fsLayers":[]}"#).as_deref(), Some(UNSIGNED));
        for other in [r#"{"mediaType":"no type"}"#, "{}", r#"{"layers":{},"manifests":7}"#, "[]", "<html>", ""] {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn errors_and_other_json_are_no_manifests() {
        let is = |text: &str| Shape::of(text.as_bytes()).is_some_and(|shape| shape.is_manifest());
        assert!(is(r#"{"schemaVersion":2,"layers":[]}"#) && is(r#"{"mediaType":"a/b","blobs":[]}"#));
        assert!(is(r#"{"manifests":[],"manifests":[]}"#), "of a field that is there twice the last one counts");
        for other in [r#"{"errors":[{"code":"X"}]}"#, "{}", r#"{"config":{}}"#, r#"{"error":"login","layers":null}"#] {
            assert!(!is(other), "{other}");
        }
    }
}
