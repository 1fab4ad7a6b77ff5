//! Generated documents, written as nobody who parses and writes again would write them.

use crate::harness::simulator::{OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST};
use crate::harness::{sha256, sha512};
use bytes::Bytes;
use proptest::prelude::*;

const TYPES: [&str; 5] = [
    OCI_MANIFEST,
    OCI_ARTIFACT,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.example.thing.v7+json",
    "application/vnd.example_2.a-b.c+d+json",
];

const INDEX_TYPES: [&str; 3] =
    [OCI_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.example.set.v1+json"];

/// What may stand between two tokens of JSON.
const SPACES: [&str; 7] = ["", "", " ", "\n", "\r\n\t", "    ", "\t \n\n"];

/// Pieces of strings, as they are written: what is parsed and written again would come out otherwise.
const PIECES: [&str; 14] = [
    "plain",
    "é",
    "😀",
    r"\u00e9",
    r"\u00E9",
    r"\ud83d\ude00",
    r"\/",
    r"\n",
    r"\u0000",
    "\\\"",
    "<&>",
    "\u{2028}",
    "\u{7f}",
    r"\u003c",
];

/// Values of fields that nobody knows.
const VALUES: [&str; 10] = [
    "null",
    "1.0e2",
    "-0",
    "0.1000000000000000055511151231257827",
    "18446744073709551615",
    "[]",
    "[ [ ] , { } ]",
    r#"{"a":1,"a":2}"#,
    r#"{"digest":"sha256:no","size":-1}"#,
    "\"\\u005c\"",
];

/// What a document is dressed in.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Dress {
    pub kind: usize,
    /// Whether it says its own type: not at all, plainly, or with its slashes escaped.
    pub says_type: usize,
    pub spaces: Vec<&'static str>,
    pub annotations: Vec<(String, String)>,
    /// Bytes of one more annotation.
    pub long: usize,
    pub unknown: Vec<(String, &'static str)>,
    /// Known fields are there twice, of which the last holds.
    pub twice: bool,
    pub subject: bool,
    pub data: bool,
    pub sha512: bool,
}

/// A document with its parts.
#[derive(Clone, Debug)]
pub enum Node {
    /// Its layers.
    Leaf(Dress, Vec<Vec<u8>>),
    Index(Dress, Vec<Node>),
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PIECES), 0..6).prop_map(|pieces| pieces.concat())
}

fn dress() -> impl Strategy<Value = Dress> {
    let words = (
        prop::collection::vec(prop::sample::select(&SPACES), 1..12),
        prop::collection::vec((text(), text()), 0..5),
        prop_oneof![4 => Just(0), 1 => 1_000..200_000_usize],
        prop::collection::vec((text(), prop::sample::select(&VALUES)), 0..6),
    );
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (0..15_usize, 0..3_usize, words, switches).prop_map(|(kind, says_type, words, switches)| {
        let (spaces, annotations, long, unknown) = words;
        let (twice, subject, data, sha512) = switches;
        Dress { kind, says_type, spaces, annotations, long, unknown, twice, subject, data, sha512 }
    })
}

/// An artifact, an index, or an index of both.
pub fn node() -> impl Strategy<Value = Node> {
    let leaf = || {
        let layers = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..3);
        (dress(), layers).prop_map(|(dress, layers)| Node::Leaf(dress, layers))
    };
    let index = || (dress(), prop::collection::vec(leaf(), 0..3)).prop_map(|(dress, nodes)| Node::Index(dress, nodes));
    let parts = prop_oneof![index(), leaf()];
    let nested = (dress(), prop::collection::vec(parts, 1..3)).prop_map(|(dress, nodes)| Node::Index(dress, nodes));
    prop_oneof![2 => leaf(), 1 => index(), 2 => nested]
}

/// A document as it is pushed.
pub struct Document {
    pub content: Bytes,
    pub kind: &'static str,
    pub digest: String,
    /// The last one only.
    pub tag: Option<&'static str>,
    pub subject: bool,
}

/// Everything that is pushed for one node, what is referred to before what refers to it.
#[derive(Default)]
pub struct Written {
    pub blobs: Vec<Bytes>,
    pub documents: Vec<Document>,
}

/// Writes JSON with spaces that take turns.
struct Pen<'a> {
    spaces: std::iter::Cycle<std::slice::Iter<'a, &'static str>>,
}

impl Pen<'_> {
    fn space(&mut self) -> &'static str {
        self.spaces.next().unwrap()
    }

    fn list(&mut self, open: char, items: &[String], close: char) -> String {
        let mut text = format!("{open}{}", self.space());
        for (number, item) in items.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            text += &[comma, self.space(), item, self.space()].concat();
        }
        text.push(close);
        text
    }

    fn object(&mut self, fields: &[(String, String)]) -> String {
        let field =
            |(name, value): &(String, String)| [&*quoted(name), self.space(), ":", self.space(), value].concat();
        let fields: Vec<String> = fields.iter().map(field).collect();
        self.list('{', &fields, '}')
    }

    fn descriptor(&mut self, kind: &str, digest: &str, size: usize, data: Option<&str>) -> String {
        let mut fields = vec![
            ("size".to_owned(), size.to_string()),
            ("digest".to_owned(), quoted(digest)),
            ("mediaType".to_owned(), quoted(kind)),
        ];
        fields.extend(data.map(|data| ("data".to_owned(), quoted(data))));
        self.object(&fields)
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// What they are attached to, if to anything; upstream need not have it.
pub fn subject() -> String {
    sha256(b"what these are attached to")
}

impl Written {
    pub fn of(node: &Node) -> Self {
        let mut written = Self::default();
        written.write(node, Some("v1"));
        written
    }

    /// Adds a node after its parts.
    fn write(&mut self, node: &Node, tag: Option<&'static str>) {
        let (Node::Leaf(dress, _) | Node::Index(dress, _)) = node;
        let mut pen = Pen { spaces: dress.spaces.iter().cycle() };
        let (kind, lists) = match node {
            Node::Leaf(_, layers) => {
                let layers: Vec<String> = layers.iter().map(|layer| self.layer(&mut pen, layer)).collect();
                let layers = pen.list('[', &layers, ']');
                let empty = Bytes::from_static(b"{}");
                let data = dress.data.then_some("e30=");
                let config = pen.descriptor("application/vnd.oci.empty.v1+json", &sha256(&empty), 2, data);
                self.blobs.push(empty);
                let kind = TYPES[dress.kind % TYPES.len()];
                let name = if kind == OCI_ARTIFACT { "blobs" } else { "layers" };
                (kind, vec![(name.to_owned(), layers), ("config".to_owned(), config)])
            }
            Node::Index(_, nodes) => {
                let mut parts = Vec::new();
                for node in nodes {
                    self.write(node, None);
                    let part = self.documents.last().unwrap();
                    parts.push(pen.descriptor(part.kind, &part.digest, part.content.len(), None));
                }
                let kind = INDEX_TYPES[dress.kind % INDEX_TYPES.len()];
                (kind, vec![("manifests".to_owned(), pen.list('[', &parts, ']'))])
            }
        };
        let fields = self.fields(&mut pen, dress, kind, lists);
        let content = [pen.space(), &pen.object(&fields), pen.space()].concat();
        // A tag stands for a sha256.
        let digest =
            if dress.sha512 && tag.is_none() { sha512(content.as_bytes()) } else { sha256(content.as_bytes()) };
        self.documents.push(Document { content: content.into(), kind, digest, tag, subject: dress.subject });
    }

    fn layer(&mut self, pen: &mut Pen<'_>, layer: &[u8]) -> String {
        let layer = Bytes::copy_from_slice(layer);
        let descriptor = pen.descriptor("application/octet-stream", &sha256(&layer), layer.len(), None);
        self.blobs.push(layer);
        descriptor
    }

    fn fields(
        &self,
        pen: &mut Pen<'_>,
        dress: &Dress,
        kind: &str,
        lists: Vec<(String, String)>,
    ) -> Vec<(String, String)> {
        // The number keeps apart what is otherwise the same in two types.
        let mut fields = vec![("n".to_owned(), self.documents.len().to_string())];
        if dress.twice {
            fields.extend(lists.iter().map(|(name, _)| (name.clone(), "[]".to_owned())));
            fields.push(("annotations".to_owned(), "{}".to_owned()));
            fields.push(("subject".to_owned(), "null".to_owned()));
        }
        fields.extend(lists);
        // Nothing that somebody knows begins so.
        fields.extend(dress.unknown.iter().map(|(name, value)| (format!("x-{name}"), (*value).to_owned())));
        match dress.says_type {
            0 => {}
            1 => fields.push(("mediaType".to_owned(), quoted(kind))),
            _ => fields.push(("mediaType".to_owned(), quoted(&kind.replace('/', r"\/")))),
        }
        if dress.subject {
            fields.push(("subject".to_owned(), pen.descriptor(OCI_MANIFEST, &subject(), 7, None)));
        }
        let note = |(name, value): &(String, String)| (name.clone(), quoted(value));
        let mut notes: Vec<_> = dress.annotations.iter().map(note).collect();
        if dress.long > 0 {
            notes.push(("long".to_owned(), quoted(&"l".repeat(dress.long))));
        }
        fields.push(("annotations".to_owned(), pen.object(&notes)));
        fields
    }
}
