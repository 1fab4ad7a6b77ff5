//! What a manifest refers to, read where it stands: nothing is copied of a document but digests, sizes and types, so that reading
//! costs little more memory than the document has, whatever somebody has put into it.

use super::json::{each, number, object, root, text};
use super::{Digest, MediaType};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Children of one manifest that count; no image has a tenth of it. Of those beyond it upstream is asked, one by one.
pub const MAX_CHILDREN: usize = 10_000;

/// How deep manifests that name manifests are followed. Images with platforms need one step.
pub const MAX_DEPTH: usize = 16;

/// A part of a platform's name that is longer is none.
const LONGEST_PART: usize = 64;
/// What tools write for content that is for no machine, such as attestations.
const UNKNOWN: &str = "unknown";

/// In which field of a document a descriptor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `config` of an image.
    Config,
    /// `layers` of an image.
    Layer,
    /// `blobs` of an artifact manifest.
    Blob,
    /// `fsLayers` of Docker's schema 1, which says no more than the digest.
    FsLayer,
    /// `manifests` of an index.
    Manifest,
}

/// What a descriptor says of other content, as far as a cache needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The content's digest.
    pub digest: Digest,
    /// The content's size in bytes, if the descriptor says one that can be true.
    pub size: Option<u64>,
    /// The content's type, if the descriptor says one.
    pub media_type: Option<MediaType>,
    /// In which field it stands.
    pub role: Role,
    /// Whether it names other places to get the content from (`urls`): a registry need not have it then.
    pub has_urls: bool,
    /// For what platform it is, as `os/architecture` with the variant if there is one.
    pub platform: Option<Box<str>>,
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
/// `encoding/json`).
const FIELDS: [&str; 7] = ["mediaType", "config", "layers", "blobs", "manifests", "subject", "fsLayers"];
const DESCRIPTOR: [&str; 5] = ["digest", "size", "mediaType", "urls", "platform"];

impl Manifest {
    /// Reads `bytes`. `None` if they are no JSON object; a part that makes no sense is left out, and so is what follows the first
    /// [`MAX_CHILDREN`].
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [media_type, config, layers, blobs, manifests, subject, fs_layers] = root(bytes, &FIELDS)?;
        let mut found = Found::default();
        if let Some(config) = config {
            found.add(config, Role::Config);
        }
        for (list, role) in [(layers, Role::Layer), (blobs, Role::Blob), (fs_layers, Role::FsLayer)] {
            found.add_all(list, role);
        }
        let blobs = std::mem::take(&mut found.descriptors);
        found.add_all(manifests, Role::Manifest);
        let subject = subject.and_then(|subject| object(subject, &["digest"]));
        Some(Self {
            blobs,
            manifests: found.descriptors,
            subject: subject.and_then(|[digest]| text(digest?)?.parse().ok()),
            media_type: media_type.and_then(|media_type| text(media_type)?.parse().ok()),
        })
    }

    /// Everything that the manifest refers to, the subject left out.
    pub fn children(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.manifests)
    }
}

#[derive(Default)]
struct Found {
    descriptors: Vec<Descriptor>,
    count: usize,
    /// Most layers are of the same type: it is kept once.
    last_type: Option<MediaType>,
}

impl Found {
    fn add_all(&mut self, list: Option<&RawValue>, role: Role) {
        let Some(list) = list else { return };
        each(list, |item| {
            self.add(item, role);
            self.count < MAX_CHILDREN
        });
    }

    fn add(&mut self, item: &RawValue, role: Role) {
        if self.count < MAX_CHILDREN
            && let Some(descriptor) = self.descriptor(item, role)
        {
            self.count += 1;
            self.descriptors.push(descriptor);
        }
    }

    fn descriptor(&mut self, item: &RawValue, role: Role) -> Option<Descriptor> {
        if role == Role::FsLayer {
            let [digest] = object(item, &["blobSum"])?;
            let digest = text(digest?)?.parse().ok()?;
            return Some(Descriptor { digest, size: None, media_type: None, role, has_urls: false, platform: None });
        }
        let [digest, size, media_type, urls, platform] = object(item, &DESCRIPTOR)?;
        Some(Descriptor {
            digest: text(digest?)?.parse().ok()?,
            size: size.and_then(number),
            media_type: media_type.and_then(|media_type| self.media_type(&text(media_type)?)),
            role,
            has_urls: urls.is_some_and(|urls| !matches!(urls.get(), "null" | "[]")),
            platform: platform.and_then(platform_of),
        })
    }

    fn media_type(&mut self, text: &str) -> Option<MediaType> {
        if self.last_type.as_ref().is_none_or(|last| last.as_str() != text) {
            self.last_type = text.parse().ok();
        }
        self.last_type.clone()
    }
}

/// The platform that an image's configuration is for, as `os/architecture` with the variant if there is one.
#[must_use]
pub fn platform(config: &[u8]) -> Option<Box<str>> {
    named(root(config, &PLATFORM)?)
}

const PLATFORM: [&str; 3] = ["os", "architecture", "variant"];

fn platform_of(value: &RawValue) -> Option<Box<str>> {
    named(object(value, &PLATFORM)?)
}

fn named([os, architecture, variant]: [Option<&RawValue>; 3]) -> Option<Box<str>> {
    let (os, architecture) = (part(os?).filter(|os| os != UNKNOWN)?, part(architecture?)?);
    let variant = variant.and_then(part).map(|variant| format!("/{variant}")).unwrap_or_default();
    Some(format!("{os}/{architecture}{variant}").into())
}

/// A part of a platform's name, if a person can read it.
fn part(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = text(value)?;
    let is_name = (1..=LONGEST_PART).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte));
    is_name.then_some(text)
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
        assert_eq!((image.blobs[0].size, image.blobs[1].size), (Some(2), Some(7)));
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

    #[test]
    fn each_child_says_what_it_is() {
        let a = digest('a');
        let image = format!(
            r#"{{"config":{{"mediaType":"a/config","digest":"{a}","size":1}},
                "layers":[{{"mediaType":"a/layer","digest":"{a}","urls":["https://x"]}},{{"mediaType":"a/layer","digest":"{a}","urls":[]}}],
                "blobs":[{{"digest":"{a}"}}],"fsLayers":[{{"blobSum":"{a}"}}],
                "manifests":[{{"digest":"{a}","platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},
                    {{"digest":"{a}","platform":{{"os":"unknown","architecture":"unknown"}}}},
                    {{"digest":"{a}","platform":{{"os":"a\u001b[2J","architecture":"arm"}}}}]}}"#
        );
        let image = Manifest::parse(image.as_bytes()).unwrap();
        let roles: Vec<Role> = image.children().map(|child| child.role).collect();
        let nested = [Role::Manifest; 3];
        assert_eq!(roles[..5], [Role::Config, Role::Layer, Role::Layer, Role::Blob, Role::FsLayer]);
        assert_eq!(roles[5..], nested);
        assert_eq!(image.children().map(|child| child.has_urls).filter(|has| *has).count(), 1);
        assert_eq!(image.blobs[2].media_type.as_ref().unwrap().as_str(), "a/layer");
        let platforms: Vec<Option<&str>> = image.manifests.iter().map(|child| child.platform.as_deref()).collect();
        assert_eq!(platforms, [Some("linux/arm/v7"), None, None]);
    }

    #[test]
    fn no_more_children_count_than_the_bound_and_the_first_ones_do() {
        let item = format!(r#"{{"digest":"{}"}}"#, digest('a'));
        for (layers, manifests, counted) in [(MAX_CHILDREN - 1, 5, 1), (2 * MAX_CHILDREN, 5, 0)] {
            let list = |count: usize| vec![item.as_str(); count].join(",");
            let text = format!(r#"{{"layers":[{}],"manifests":[{}]}}"#, list(layers), list(manifests));
            let manifest = Manifest::parse(text.as_bytes()).unwrap();
            assert_eq!(manifest.children().count(), MAX_CHILDREN);
            assert_eq!(manifest.manifests.len(), counted);
        }
    }

    #[test]
    fn depth_costs_nothing_wherever_it_is() {
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(20_000), close.repeat(20_000));
        let good = format!(r#""blobs":[{{"digest":"{}"}}]"#, digest('a'));
        for nested in [deep("[", "]"), deep("{\"a\":", "}")] {
            for field in ["x", "config", "layers", "manifests", "subject", "mediaType", "fsLayers"] {
                let text = format!(r#"{{"{field}":{nested},{good}}}"#);
                assert_eq!(Manifest::parse(text.as_bytes()).unwrap().children().count(), 1, "{field}");
                let text = format!(r#"{{"{field}":[{nested},{{"digest":{nested},"platform":{nested}}}],{good}}}"#);
                assert_eq!(Manifest::parse(text.as_bytes()).unwrap().children().count(), 1, "{field}");
            }
        }
    }

    #[test]
    fn the_platform_of_a_configuration() {
        let of = |text: &str| platform(text.as_bytes()).map(String::from);
        assert_eq!(of(r#"{"os":"linux","architecture":"amd64","x":[1]}"#).as_deref(), Some("linux/amd64"));
        assert_eq!(of(r#"{"os":"linux","architecture":"arm","variant":""}"#).as_deref(), Some("linux/arm"));
        for none in ["", "[]", r#"{"os":"linux"}"#, r#"{"os":"unknown","architecture":"unknown"}"#] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(of(&format!(r#"{{"os":"{}","architecture":"a"}}"#, "l".repeat(LONGEST_PART + 1))), None);
    }
}
