//! What a client gets directly it gets through larder, cold and warm, and what only a broken answer said is kept by nobody: a registry
//! whose answers are mutated at random, asked by a real client (oci-client) on each of the three ways.
//!
//! Each mutation has repositories of its own, so that one larder sees all of them: `cold` has never been asked for, `warm` was pulled
//! while the registry was still honest. `LARDER_DIFFERENTIAL_SEED` repeats a run, `LARDER_DIFFERENTIAL_COUNT` and
//! `LARDER_DIFFERENTIAL_SECONDS` bound it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::explicit_auto_deref,
    clippy::format_collect,
    clippy::print_stdout,
    reason = "tables of texts; a head is small"
)]

mod instances;
mod mutation;
mod world;

use crate::harness::scripted::Scripted;
use crate::harness::{Dice, Larder, Setup, sha256};
use larder::config::UpstreamSettings;
use larder::oci::Registry;
use mutation::{Deed, Mutation, WIDE};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use world::World;

/// How many are under way at once: most of the time of some is a pause.
const AT_ONCE: usize = 48;
/// Mutations that concern an upstream as a whole: each has one of its own.
const UPSTREAMS: u64 = 16;
/// How long an upstream that has throttled larder may be left alone, beyond what it asked for.
const RECOVERY: Duration = Duration::from_secs(15);
/// Pages that a client follows.
const PAGES: usize = 10;

fn bound(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One way to a registry. Its client remembers nothing but that nobody asked it to log in.
#[derive(Clone)]
struct Way {
    client: Client,
    address: SocketAddr,
    /// What stands before the names of its repositories.
    prefix: Arc<str>,
}

impl Way {
    fn to(address: SocketAddr, prefix: &str) -> Self {
        let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
        Self { client: Client::new(config), address, prefix: prefix.into() }
    }

    fn below(&self, prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..self.clone() }
    }
}

/// What it gets, as one text: a digest, or a list.
type Got = Result<String, String>;

async fn ask(at: &Way, repository: &str, deed: Deed, world: &World) -> Got {
    let Way { client, address, prefix } = at;
    let auth = RegistryAuth::Anonymous;
    let image = world.image(repository);
    let reference: Reference = match deed {
        Deed::Digest | Deed::Blob | Deed::Referrers => format!("{address}/{prefix}{repository}@{}", image.digest),
        _ => format!("{address}/{prefix}{repository}:v1"),
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
            Ok(sha256(&out))
        }
        Deed::Tags => Ok(client.list_tags(&reference, &auth, Some(3), None).await.map_err(words)?.tags.join(" ")),
        Deed::Referrers => {
            let index = client.pull_referrers(&reference, None).await.map_err(words)?;
            Ok(index.manifests.into_iter().map(|one| one.digest).collect::<Vec<_>>().join(" "))
        }
        Deed::Pages => pages(*address, &format!("/v2/{prefix}{repository}/tags/list"), "tags").await,
        Deed::Catalogue => {
            let names = pages(*address, &format!("/v2/{prefix}_catalog"), "repositories").await?;
            let own = |name: &str| name.strip_prefix(&**prefix).unwrap_or(name).to_owned();
            Ok(names.split(' ').map(own).collect::<Vec<_>>().join(" "))
        }
    }
}

/// All entries of a list, along its links, as clients that are written in Go follow them.
async fn pages(address: SocketAddr, path: &str, field: &str) -> Got {
    let (mut target, mut all) = (path.to_owned(), Vec::new());
    for _ in 0..PAGES {
        let page = crate::harness::Client::new(address).call("GET", &target).open().await;
        if page.status != 200 {
            return Err(format!("{} for {target}", page.status));
        }
        let page = page.rest().await.map_err(|broken| broken.error)?;
        let json: serde_json::Value = serde_json::from_slice(&page.body).map_err(|error| error.to_string())?;
        let names = json.get(field).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        all.extend(names.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        let next = page.headers.get("link").and_then(|link| link.to_str().ok()).filter(|link| !link.is_empty());
        let Some(next) = next else { return Ok(all.join(" ")) };
        if !next.contains("rel=\"next\"") && next.contains("rel=") {
            return Ok(all.join(" "));
        }
        let next = next.strip_prefix('<').and_then(|link| Some(link.split_once('>')?.0));
        let own = format!("http://{address}");
        match next.map(|next| next.strip_prefix(&own).unwrap_or(next)) {
            Some(next) if next.starts_with('/') => next.clone_into(&mut target),
            _ => return Err("the link leads nowhere".to_owned()),
        }
    }
    Err("pages without an end".to_owned())
}

/// What an honest registry gives.
fn honest(repository: &str, deed: Deed, world: &World) -> String {
    let image = world.image(repository);
    match deed {
        Deed::Tag | Deed::Digest | Deed::Head => image.digest,
        Deed::Blob => image.layer_digest,
        Deed::Tags => World::tags()[..3].join(" "),
        Deed::Pages => World::tags().join(" "),
        Deed::Referrers => world.attached(repository),
        Deed::Catalogue => World::repositories().join(" "),
    }
}

/// What is wrong with one way, if anything is: `directly` is what the client gets without larder.
fn judge(way: &str, mutation: &Mutation, directly: &Got, through: &Got, honest: &str) -> Option<String> {
    match (directly, through) {
        (Ok(want), Ok(got)) if want == got => None,
        // What upstream really has, found in spite of it.
        (Err(_), Ok(got)) if got == honest => None,
        (Err(_), Err(_)) => None,
        // A client that looks at nothing but a digest takes what is no manifest; larder gives and keeps none.
        (Ok(taken), Err(_)) if taken != honest => None,
        (Ok(taken), Ok(got)) if taken != honest && got == honest => None,
        // A registry that has told larder to come back later is left alone, for other questions of the kind as well.
        (Ok(_), Err(_)) if mutation.throttles() => None,
        // A registry that refuses the question has no list of referrers, and clients look for the tag.
        (Err(_), Ok(got)) if mutation.deed == Deed::Referrers && got.is_empty() => None,
        // Pages that are asked for here are not followed to another address.
        (Err(_), Ok(got)) if mutation.redirects() && honest.starts_with(got) => None,
        _ => Some(format!("{way}: directly {directly:?}, through larder {through:?}, honest {honest}")),
    }
}

/// One mutation, asked for in every way.
async fn trial(number: u64, larder: Way, upstream: Way, world: Arc<World>) -> Vec<String> {
    let mutation = world.mutation(number);
    let deed = mutation.deed;
    let (cold, warm) = (format!("cold/m{number}"), format!("warm/m{number}"));
    // There is one list of repositories, which cannot be both.
    let repositories =
        if deed == Deed::Catalogue && number.is_multiple_of(2) { vec![&cold] } else { vec![&cold, &warm] };
    let mut wrong = Vec::new();
    if repositories.contains(&&warm) {
        let got = ask(&larder, &warm, deed, &world).await;
        if got.as_deref() != Ok(&*honest(&warm, deed, &world)) {
            wrong.push(format!("the honest registry, {deed:?}: {got:?}"));
        }
    }
    world.arm(number);
    for repository in &repositories {
        let directly = ask(&upstream, repository, deed, &world).await;
        let through = ask(&larder, repository, deed, &world).await;
        let way = format!("{mutation:?}, {repository}");
        wrong.extend(judge(&way, &mutation, &directly, &through, &honest(repository, deed, &world)));
    }
    world.disarm(number);
    for repository in &repositories {
        let want = honest(repository, deed, &world);
        let until = Instant::now() + if mutation.throttles() { RECOVERY } else { Duration::ZERO };
        let mut got = ask(&larder, repository, deed, &world).await;
        while got.as_ref() != Ok(&want) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(250)).await;
            got = ask(&larder, repository, deed, &world).await;
        }
        if got.as_ref() != Ok(&want) {
            wrong.push(format!("{mutation:?}, then honest, {repository}: {got:?} instead of {want}"));
        }
    }
    wrong
}

/// A larder in front of all of them, each with an alias of its own but the first, which is the default.
async fn larder_for(upstreams: &[Scripted]) -> Larder {
    let setup = Setup::at(&upstreams[0].url()).tag_ttl(Duration::ZERO).upstream(|upstream| {
        upstream.freshness.negative_ttl = Duration::ZERO;
        upstream.freshness.revalidate_wait = Duration::from_secs(20);
        upstream.resume_timeout = Duration::from_millis(50);
    });
    let setup = setup.with(|settings| {
        let first = settings.upstreams[0].clone();
        settings.upstreams.extend(upstreams.iter().enumerate().skip(1).map(|(number, upstream)| UpstreamSettings {
            name: Registry::new(&format!("r{number}.example")),
            aliases: vec![format!("u{number}")],
            default: false,
            url: upstream.url().parse().unwrap(),
            ..first.clone()
        }));
    });
    setup.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_larder_as_directly() {
    let seed = Dice::seed("LARDER_DIFFERENTIAL_SEED");
    let count = bound("LARDER_DIFFERENTIAL_COUNT", 4000);
    let until = Instant::now() + Duration::from_secs(bound("LARDER_DIFFERENTIAL_SECONDS", 20));
    let world = Arc::new(World::new(seed));
    let mut upstreams = Vec::new();
    for number in 0..=UPSTREAMS {
        let answering = Arc::clone(&world);
        upstreams.push(Scripted::start_with_heads(move |head| answering.answer(number, head)).await);
    }
    let larder = larder_for(&upstreams).await;
    let (through, directly) = (Way::to(larder.address, ""), Way::to(upstreams[0].address, ""));
    let (mut trials, mut wrong, mut done) = (JoinSet::new(), Vec::new(), 0);
    for (number, upstream) in upstreams.iter().enumerate().skip(1) {
        let way = through.below(&format!("u{number}/"));
        let directly = Way { address: upstream.address, ..directly.clone() };
        trials.spawn(trial(WIDE + number as u64, way, directly, Arc::clone(&world)));
    }
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
    println!("{done} mutations");
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "LARDER_DIFFERENTIAL_SEED={seed}, {done} mutations, {} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(done >= count.min(20) + UPSTREAMS, "only {done} mutations in the time");
}

#[test]
fn a_seed_says_all_of_a_mutation() {
    for number in (0..500).chain(WIDE..WIDE + 50) {
        assert_eq!(format!("{:?}", Mutation::of(7, number)), format!("{:?}", Mutation::of(7, number)));
    }
}
