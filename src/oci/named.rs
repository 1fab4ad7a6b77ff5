//! Which blobs a manifest vouches for: those that a registry makes sure of before it takes the manifest.
//!
//! A registry looks only at the fields that the manifest's type has, and takes any others unread. So a digest that stands
//! anywhere else in a document says nothing about the repository: anybody who may push can write it there. Nor does a descriptor
//! with `urls`, whose content is elsewhere, or one that has to be another manifest.
//!
//! Registries do not agree on documents with a field that is there twice, or in other letters than the specification's (Go's
//! `encoding/json` takes `Layers` for `layers`, and the last one of two): what could be read in two ways vouches for nothing.

use super::{Digest, MAX_CHILDREN, MediaType};
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The blobs that a manifest, which is served as `media_type`, vouches for. Schema 1 is left out: what its signature covers is not
/// the document as it stands.
#[must_use]
pub fn vouched_blobs(media_type: &MediaType, content: &[u8]) -> Vec<Digest> {
    let kind = media_type.as_str();
    let is_image = matches!(kind, MediaType::OCI_MANIFEST | DOCKER_MANIFEST);
    if !is_image && kind != OCI_ARTIFACT {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_slice::<Document>(content) else { return Vec::new() };
    if document.media_type.is_some_and(|own| own != kind) || document.manifests {
        return Vec::new();
    }
    let blobs = if is_image { document.layers.into_iter().chain(document.config).collect() } else { document.blobs };
    blobs.into_iter().filter_map(|Vouched(digest)| digest).collect()
}

#[derive(Default)]
struct Document {
    media_type: Option<String>,
    config: Option<Vouched>,
    layers: Vec<Vouched>,
    blobs: Vec<Vouched>,
    /// Whether it has the field of an index.
    manifests: bool,
}

/// The digest of a descriptor, if a registry makes sure of it.
struct Vouched(Option<Digest>);

/// Any value that is a text or a list; others are of no use and no error.
struct Text(Option<String>);
struct List(Vec<Vouched>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Document;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a manifest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut document = Document::default();
                let mut once = Once::new(["mediaType", "config", "layers", "blobs", "manifests"]);
                while let Some(name) = map.next_key::<Name<'_>>()? {
                    match once.meet(&name.0)? {
                        Some("mediaType") => document.media_type = map.next_value::<Text>()?.0,
                        Some("config") => document.config = Some(map.next_value()?),
                        Some("layers") => document.layers = map.next_value::<List>()?.0,
                        Some("blobs") => document.blobs = map.next_value::<List>()?.0,
                        Some("manifests") => {
                            map.next_value::<IgnoredAny>()?;
                            document.manifests = true;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Vouched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vouched;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a descriptor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vouched, A::Error> {
                let (mut digest, mut kind, mut elsewhere) = (None, None, false);
                let mut once = Once::new(["mediaType", "digest", "urls"]);
                while let Some(name) = map.next_key::<Name<'_>>()? {
                    match once.meet(&name.0)? {
                        Some("mediaType") => kind = map.next_value::<Text>()?.0,
                        Some("digest") => digest = map.next_value::<Text>()?.0,
                        Some(_) => {
                            map.next_value::<IgnoredAny>()?;
                            elsewhere = true;
                        }
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                let is_made_sure_of = !elsewhere && !kind.is_some_and(|kind| is_of_elsewhere(&kind));
                Ok(Vouched(digest.filter(|_| is_made_sure_of).and_then(|digest| digest.parse().ok())))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Content that clients have from elsewhere, or by `/manifests/`.
fn is_of_elsewhere(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    ["foreign", "nondistributable", ".manifest.", "image.index", "distribution.manifest"]
        .iter()
        .any(|mark| kind.contains(mark))
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Text)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = List;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("descriptors")
            }

            fn visit_unit<E: Error>(self) -> Result<List, E> {
                Ok(List(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element::<Vouched>()? {
                    // A document of 4 MiB can have half a million items: those that vouch for nothing take no room.
                    if item.0.is_some() && list.len() < MAX_CHILDREN {
                        list.push(item);
                    }
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(Items)
    }
}

/// A field's name, borrowed where it stands in the text as it is.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Word;
        impl<'de> Visitor<'de> for Word {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Word)
    }
}

/// Fields of which each may be there once, and in the specification's own letters.
struct Once<const N: usize> {
    fields: [&'static str; N],
    met: [bool; N],
}

impl<const N: usize> Once<N> {
    fn new(fields: [&'static str; N]) -> Self {
        Self { fields, met: [false; N] }
    }

    /// The field, if the name is one of them.
    fn meet<E: Error>(&mut self, name: &str) -> Result<Option<&'static str>, E> {
        let Some(at) = self.fields.iter().position(|field| is_alike(name, field)) else { return Ok(None) };
        if std::mem::replace(&mut self.met[at], true) || name != self.fields[at] {
            return Err(E::custom("a field that can be read in two ways"));
        }
        Ok(Some(self.fields[at]))
    }
}

/// Whether the names are the same to a reader that does not care for case, in Unicode's sense of it.
fn is_alike(name: &str, field: &str) -> bool {
    name == field
        || name
            .chars()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
            .eq(field.chars().flat_map(char::to_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    fn vouched(kind: &str, document: &str) -> Vec<String> {
        let document = document.replace('A', &digest('a')).replace('B', &digest('b')).replace('\'', "\"");
        vouched_blobs(&kind.parse().unwrap(), document.as_bytes()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_more_blobs_are_vouched_for_than_count_and_items_without_a_digest_take_no_room() {
        let item = format!(r#"{{"digest":"sha256:{}"}}"#, "a".repeat(64));
        let layers = vec![item.as_str(); MAX_CHILDREN + 5].join(",");
        let nothing = r#"{"a":0},"#.repeat(1000);
        let text = format!(r#"{{"layers":[{nothing}{layers}]}}"#);
        let kind = MediaType::OCI_MANIFEST.parse().unwrap();
        assert_eq!(vouched_blobs(&kind, text.as_bytes()).len(), MAX_CHILDREN);
    }

    #[test]
    fn a_registry_makes_sure_of_config_and_layers_of_images_and_of_an_artifacts_blobs() {
        let image = format!(
            "{{'schemaVersion':2,'config':{{'digest':'A'}},'layers':[{{'mediaType':'{OCI_LAYER}','digest':'B','size':1}}]}}"
        );
        for kind in [MediaType::OCI_MANIFEST, DOCKER_MANIFEST] {
            assert_eq!(vouched(kind, &image), [digest('b'), digest('a')], "{kind}");
            let own = image.replacen('{', &format!("{{'mediaType':'{kind}',"), 1);
            assert_eq!(vouched(kind, &own).len(), 2, "{kind}");
        }
        assert_eq!(vouched(OCI_ARTIFACT, "{'blobs':[{'digest':'A'}]}"), [digest('a')]);
        assert_eq!(
            vouched(MediaType::OCI_MANIFEST, "{'layers':null,'config':{'mediaType':null,'digest':'A'}}").len(),
            1
        );
    }

    #[test]
    fn nothing_else_is_vouched_for() {
        let image = MediaType::OCI_MANIFEST;
        for (kind, document) in [
            (image, "{'blobs':[{'digest':'A'}]}"),
            (image, "{'manifests':[{'digest':'A'}]}"),
            (image, "{'manifests':[],'layers':[{'digest':'A'}]}"),
            (image, "{'fsLayers':[{'blobSum':'A'}]}"),
            (image, "{'subject':{'digest':'A'}}"),
            (image, "{'annotations':{'digest':'A'},'x':{'layers':[{'digest':'A'}]}}"),
            (image, "{'layers':[{'digest':'A','urls':['https://example.com/x']}]}"),
            (image, "{'layers':[{'digest':'A','urls':[]}]}"),
            (image, "{'config':{'digest':'A','urls':['https://example.com/x']}}"),
            (
                image,
                "{'layers':[{'mediaType':'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip','digest':'A'}]}",
            ),
            (
                image,
                "{'layers':[{'mediaType':'application/vnd.oci.image.layer.nondistributable.v1.tar','digest':'A'}]}",
            ),
            (image, "{'layers':[{'mediaType':'application/vnd.oci.image.manifest.v1+json','digest':'A'}]}"),
            (
                image,
                "{'layers':[{'mediaType':'application/vnd.docker.distribution.manifest.list.v2+json','digest':'A'}]}",
            ),
            (image, "{'mediaType':'application/vnd.oci.image.index.v1+json','layers':[{'digest':'A'}]}"),
            (MediaType::OCI_INDEX, "{'manifests':[{'digest':'A'}],'layers':[{'digest':'A'}],'config':{'digest':'A'}}"),
            (OCI_ARTIFACT, "{'config':{'digest':'A'},'layers':[{'digest':'A'}]}"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", "{'fsLayers':[{'blobSum':'A'}]}"),
            ("application/json", "{'layers':[{'digest':'A'}]}"),
            ("text/plain", "{'config':{'digest':'A'}}"),
            (image, "[]"),
            (image, "no document"),
        ] {
            assert_eq!(vouched(kind, document), Vec::<String>::new(), "{kind} {document}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_vouches_for_nothing() {
        for document in [
            "{'layers':[{'digest':'A'}],'layers':[]}",
            "{'layers':[{'digest':'A'}],'Layers':[]}",
            "{'LAYERS':[{'digest':'A'}]}",
            "{'layers':[{'digest':'A'}],'layer\u{17f}':[]}",
            "{'layers':[{'digest':'A'}],'layer\\u017f':[]}",
            "{'layers':[{'digest':'A','digest':'B'}]}",
            "{'layers':[{'digest':'A','Digest':'B'}]}",
            "{'layers':[{'digest':'A','URLs':['https://example.com/x']}]}",
            "{'config':{'digest':'A'},'config':{'digest':'B'}}",
            "{'layers':[{'digest':'A'}],'MediaType':'application/vnd.oci.image.index.v1+json'}",
        ] {
            assert_eq!(vouched(MediaType::OCI_MANIFEST, document), Vec::<String>::new(), "{document}");
        }
    }
}
