//! What a build farm asks, and whether it was answered.

use super::harness::{Dice, sha256};
use super::site::{Repository, Site, TAGS};
use super::wire::{Connection, Reply};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

const ACCEPT: &str = "Accept: application/vnd.oci.image.manifest.v1+json\r\n";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A manifest by a tag, which expires every two seconds.
    Tag,
    HeadTag,
    Manifest,
    Small,
    Large,
    HeadBlob,
    Range,
    Referrers,
    /// Of a subject that nobody has asked about.
    NewReferrers,
    Tags,
    Ping,
    /// A tag that there is not, each one twice.
    NewTag,
    NewBlob,
    NewRepository,
    /// A blob and a manifest with a tag, one of [`PUSHED`].
    Push,
}

/// What is stored costs memory, and small manifests are removed last: with ever new ones the process would grow with its store.
const PUSHED: u64 = 100;

pub const KINDS: [Kind; 15] = [
    Kind::Tag,
    Kind::HeadTag,
    Kind::Manifest,
    Kind::Small,
    Kind::Large,
    Kind::HeadBlob,
    Kind::Range,
    Kind::Referrers,
    Kind::NewReferrers,
    Kind::Tags,
    Kind::Ping,
    Kind::NewTag,
    Kind::NewBlob,
    Kind::NewRepository,
    Kind::Push,
];
/// Of a thousand requests, in that order.
const SHARES: [u64; 15] = [281, 150, 100, 230, 15, 20, 60, 40, 5, 35, 10, 25, 15, 10, 4];

pub struct Load {
    address: SocketAddr,
    left: AtomicU64,
    /// Requests that have been answered.
    pub done: AtomicU64,
    pub counts: [AtomicU64; KINDS.len()],
    /// For names that nobody has used.
    fresh: AtomicU64,
}

impl Load {
    pub fn new(address: SocketAddr, requests: u64) -> Self {
        assert_eq!(SHARES.iter().sum::<u64>(), 1000);
        let (done, counts) = (AtomicU64::new(0), std::array::from_fn(|_| AtomicU64::new(0)));
        Self { address, left: AtomicU64::new(requests), done, counts, fresh: AtomicU64::new(0) }
    }

    /// Asks until all requests have been answered.
    pub fn work(&self, site: &Site, mut dice: Dice) {
        let mut connection = Connection::new(self.address);
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            if dice.one_in(100) {
                connection.close();
            }
            let mut at = dice.below(1000);
            let kind = SHARES.iter().position(|share| {
                let here = at < *share;
                at = at.saturating_sub(*share);
                here
            });
            let kind = kind.unwrap_or(0);
            let repository = dice.pick(&site.repositories);
            self.step(KINDS[kind], repository, &mut connection, &mut dice);
            self.counts[kind].fetch_add(1, Ordering::Relaxed);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn step(&self, kind: Kind, repository: &Repository, connection: &mut Connection, dice: &mut Dice) {
        let at = |tail: &str| format!("/v2/{}/{tail}", repository.name);
        let fresh = || self.fresh.fetch_add(1, Ordering::Relaxed);
        let tag = format!("v{}", dice.below(TAGS as u64));
        let (digest, content) = match kind {
            Kind::Large => dice.pick(&repository.large),
            Kind::Range if dice.one_in(4) => dice.pick(&repository.large),
            _ => popular(&repository.small, dice),
        };
        // One in a hundred leaves no connection behind.
        let lines = if dice.one_in(100) { format!("{ACCEPT}Connection: close\r\n") } else { ACCEPT.to_owned() };
        let mut ask = |method: &str, target: &str, expected: u16| {
            let reply = connection.ask(method, target, &lines, None);
            let reply = reply.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
            let body = || String::from_utf8_lossy(&reply.body).into_owned();
            assert_eq!(reply.status, expected, "{method} {target}: {}", body());
            reply
        };
        match kind {
            Kind::Tag => sound(&ask("GET", &at(&format!("manifests/{tag}")), 200)),
            Kind::HeadTag => assert!(!ask("HEAD", &at(&format!("manifests/{tag}")), 200).digest.is_empty()),
            Kind::Manifest => {
                let digest = dice.pick(&repository.manifests);
                let reply = ask("GET", &at(&format!("manifests/{digest}")), 200);
                assert_eq!(&reply.digest, digest);
                sound(&reply);
            }
            Kind::Small | Kind::Large => {
                let reply = ask("GET", &at(&format!("blobs/{digest}")), 200);
                assert!(reply.body == *content, "{digest} is another");
            }
            Kind::HeadBlob => assert_eq!(&ask("HEAD", &at(&format!("blobs/{digest}")), 200).digest, digest),
            Kind::Range => ranged(connection, &at(&format!("blobs/{digest}")), content, dice),
            Kind::Referrers => {
                let subject = dice.pick(&repository.manifests);
                assert!(ask("GET", &at(&format!("referrers/{subject}")), 200).body.starts_with(b"{"));
            }
            Kind::NewReferrers => {
                let subject = sha256(&fresh().to_le_bytes());
                assert!(ask("GET", &at(&format!("referrers/{subject}")), 200).body.starts_with(b"{"));
            }
            Kind::Tags => assert!(ask("GET", &at("tags/list"), 200).body.starts_with(b"{")),
            Kind::Ping => drop(ask("GET", "/v2/", 200)),
            Kind::NewTag => {
                let target = at(&format!("manifests/none-{}", fresh()));
                ask("GET", &target, 404);
                ask("GET", &target, 404);
            }
            Kind::NewBlob => drop(ask("GET", &at(&format!("blobs/{}", sha256(&fresh().to_le_bytes()))), 404)),
            Kind::NewRepository => drop(ask("GET", &format!("/v2/nowhere/app-{}/manifests/v1", fresh()), 404)),
            Kind::Push => push(connection, repository, fresh() % PUSHED, &tag),
        }
    }
}

/// The first ones far more often than the last ones.
fn popular<'a>(blobs: &'a [(String, Bytes)], dice: &mut Dice) -> &'a (String, Bytes) {
    let end = 1 + dice.below(blobs.len() as u64);
    &blobs[usize::try_from(dice.below(end)).unwrap_or(0)]
}

/// The body has its digest.
fn sound(reply: &Reply) {
    assert_eq!(sha256(&reply.body), reply.digest);
}

fn ranged(connection: &mut Connection, target: &str, content: &[u8], dice: &mut Dice) {
    let first = usize::try_from(dice.below(content.len() as u64)).unwrap_or(0);
    let last = first + usize::try_from(dice.below((content.len() - first) as u64)).unwrap_or(0);
    let reply = connection.ask("GET", target, &format!("Range: bytes={first}-{last}\r\n"), None);
    let reply = reply.unwrap_or_else(|error| panic!("{target}: {error}"));
    assert_eq!(reply.status, 206, "{target}: {}", String::from_utf8_lossy(&reply.body));
    assert!(reply.body == content[first..=last], "{target}: bytes {first} to {last} are others");
}

fn push(connection: &mut Connection, repository: &Repository, number: u64, tag: &str) {
    let blob = format!("pushed {number}");
    let digest = sha256(blob.as_bytes());
    let name = &repository.name;
    let mut send = |method: &str, target: &str, media_type: &str, body: &[u8], expected: u16| {
        let reply = connection.ask(method, target, &format!("Content-Type: {media_type}\r\n"), Some(body));
        let reply = reply.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        assert_eq!(reply.status, expected, "{method} {target}: {}", String::from_utf8_lossy(&reply.body));
        reply
    };
    let octets = "application/octet-stream";
    let session = send("POST", &format!("/v2/{name}/blobs/uploads/"), octets, b"", 202).location;
    send("PUT", &format!("{session}?digest={digest}"), octets, blob.as_bytes(), 201);
    let descriptor = format!("{{\"mediaType\":\"{octets}\",\"digest\":\"{digest}\",\"size\":{}}}", blob.len());
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"config\":{descriptor},\"layers\":[{descriptor}]}}"
    );
    send("PUT", &format!("/v2/{name}/manifests/pushed-{tag}"), MANIFEST, manifest.as_bytes(), 201);
}
