//! What a client gets directly it gets through larder, cold and warm, and what only a broken answer said is kept by nobody: a registry
//! whose answers are mutated at random, asked by a real client (oci-client) on each of the three ways.
//!
//! Each mutation has repositories of its own, so that one larder sees all of them: `cold` has never been asked for, `warm` was pulled
//! while the registry was still honest. `LARDER_DIFFERENTIAL_SEED` repeats a run, `LARDER_DIFFERENTIAL_COUNT` and
//! `LARDER_DIFFERENTIAL_SECONDS` bound it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::explicit_auto_deref, clippy::format_collect, reason = "tables of texts; a head is small")]

mod instances;
mod mutation;
mod world;

use crate::harness::scripted::Scripted;
use crate::harness::{Dice, Larder, Setup};
use mutation::Mutation;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use world::World;

/// How many are under way at once.
const AT_ONCE: usize = 8;

fn bound(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Tag,
    Digest,
    Head,
    Blob,
    Tags,
}

/// One way to a registry. Its client remembers nothing but that nobody asked it to log in.
#[derive(Clone)]
struct Way {
    client: Client,
    at: Arc<str>,
}

impl Way {
    fn to(address: SocketAddr) -> Self {
        let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
        Self { client: Client::new(config), at: address.to_string().into() }
    }
}

/// What it gets, as one text: a digest, or a list.
type Got = Result<String, String>;

async fn ask(at: &Way, repository: &str, deed: Deed, world: &World) -> Got {
    let Way { client, at } = at;
    let auth = RegistryAuth::Anonymous;
    let image = world.image(repository);
    let reference: Reference = match deed {
        Deed::Digest | Deed::Blob => format!("{at}/{repository}@{}", image.digest),
        _ => format!("{at}/{repository}:v1"),
    }
    .parse()
    .unwrap();
    let words = |error: oci_client::errors::OciDistributionError| error.to_string();
    match deed {
        Deed::Tag | Deed::Digest => {
            let (_, digest) = client.pull_manifest(&reference, &auth).await.map_err(words)?;
            Ok(digest)
        }
        Deed::Head => client.fetch_manifest_digest(&reference, &auth).await.map_err(words),
        Deed::Blob => {
            let mut out = Vec::new();
            client.pull_blob(&reference, image.layer_digest.as_str(), &mut out).await.map_err(words)?;
            Ok(crate::harness::sha256(&out))
        }
        Deed::Tags => Ok(client.list_tags(&reference, &auth, None, None).await.map_err(words)?.tags.join(" ")),
    }
}

/// What an honest registry gives.
fn honest(repository: &str, deed: Deed, world: &World) -> String {
    let image = world.image(repository);
    match deed {
        Deed::Tag | Deed::Digest | Deed::Head => image.digest,
        Deed::Blob => image.layer_digest,
        Deed::Tags => "v1 v2".to_owned(),
    }
}

/// What is wrong with one way, if anything is: `directly` is what the client gets without larder.
fn judge(way: &str, directly: &Got, through: &Got, honest: &str) -> Option<String> {
    match (directly, through) {
        (Ok(want), Ok(got)) if want == got => None,
        // What upstream really has, found in spite of it.
        (Err(_), Ok(got)) if got == honest => None,
        (Err(_), Err(_)) => None,
        // A client that looks at nothing but a digest takes what is no manifest; larder gives and keeps none.
        (Ok(taken), Err(_)) if taken != honest => None,
        (Ok(taken), Ok(got)) if taken != honest && got == honest => None,
        _ => Some(format!("{way}: directly {directly:?}, through larder {through:?}, honest {honest}")),
    }
}

/// One mutation, asked for in every way.
async fn trial(number: u64, larder: Way, upstream: Way, world: Arc<World>) -> Vec<String> {
    let mutation = world.mutation(number);
    let (cold, warm) = (format!("cold/m{number}"), format!("warm/m{number}"));
    for deed in mutation.deeds() {
        let got = ask(&larder, &warm, deed, &world).await;
        assert_eq!(got.as_deref(), Ok(&*honest(&warm, deed, &world)), "the honest registry, {deed:?}");
    }
    world.arm(number);
    let mut wrong = Vec::new();
    for deed in mutation.deeds() {
        for repository in [&cold, &warm] {
            let directly = ask(&upstream, repository, deed, &world).await;
            let through = ask(&larder, repository, deed, &world).await;
            let way = format!("{mutation:?}, {deed:?}, {repository}");
            wrong.extend(judge(&way, &directly, &through, &honest(repository, deed, &world)));
        }
    }
    world.disarm(number);
    for deed in mutation.deeds() {
        for repository in [&cold, &warm] {
            let got = ask(&larder, repository, deed, &world).await;
            let want = honest(repository, deed, &world);
            if got.as_ref() != Ok(&want) {
                wrong.push(format!("{mutation:?}, then honest, {deed:?}, {repository}: {got:?} instead of {want}"));
            }
        }
    }
    wrong
}

async fn larder_for(upstream: &Scripted) -> Larder {
    let setup = Setup::at(&upstream.url()).tag_ttl(Duration::ZERO).upstream(|upstream| {
        upstream.freshness.negative_ttl = Duration::ZERO;
        upstream.freshness.revalidate_wait = Duration::from_secs(20);
        upstream.resume_timeout = Duration::from_millis(50);
    });
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_larder_as_directly() {
    let seed = Dice::seed("LARDER_DIFFERENTIAL_SEED");
    let count = bound("LARDER_DIFFERENTIAL_COUNT", 4000);
    let until = Instant::now() + Duration::from_secs(bound("LARDER_DIFFERENTIAL_SECONDS", 20));
    let world = Arc::new(World::new(seed));
    let answering = Arc::clone(&world);
    let upstream = Scripted::start_with_heads(move |head| answering.answer(head)).await;
    let larder = larder_for(&upstream).await;
    let (through, directly) = (Way::to(larder.address), Way::to(upstream.address));
    let (mut trials, mut wrong, mut done) = (JoinSet::new(), Vec::new(), 0);
    for number in 0..count {
        if trials.len() >= AT_ONCE {
            wrong.extend(trials.join_next().await.unwrap().unwrap());
            done += 1;
        }
        if Instant::now() > until {
            break;
        }
        trials.spawn(trial(number, through.clone(), directly.clone(), Arc::clone(&world)));
    }
    while let Some(trial) = trials.join_next().await {
        wrong.extend(trial.unwrap());
        done += 1;
    }
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "LARDER_DIFFERENTIAL_SEED={seed}, {done} mutations, {} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(done >= count.min(20), "only {done} mutations in the time");
}

#[test]
fn a_seed_says_all_of_a_mutation() {
    for number in 0..500 {
        assert_eq!(format!("{:?}", Mutation::of(7, number)), format!("{:?}", Mutation::of(7, number)));
    }
}
