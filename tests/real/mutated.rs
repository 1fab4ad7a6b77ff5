//! A sample of what `tests/it/differential` asks thousands of times, with the ORAS CLI: what it gets directly it gets through larder,
//! cold and warm, from a registry whose answers are mutated.

#![allow(
    unreachable_pub,
    clippy::explicit_auto_deref,
    clippy::format_collect,
    reason = "tables and helpers of another test"
)]

#[path = "../harness/dice.rs"]
mod dice;
#[path = "../it/differential/mutation.rs"]
mod mutation;
#[path = "../it/differential/world.rs"]
mod world;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::content::digest_of as sha256;
use crate::larder::Larder;
use crate::oras::{Oras, Version};
use crate::process::Folder;
use dice::Dice;
use mutation::{Deed, Mutation};
use world::World;

/// How many mutations: each costs half a dozen runs of a program.
const SAMPLE: u64 = 40;

/// Serves the world from threads of its own, which end with the process.
fn serve(world: &Arc<World>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("localhost:{}", listener.local_addr().unwrap().port());
    let world = Arc::clone(world);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let world = Arc::clone(&world);
            thread::spawn(move || converse(socket, &world));
        }
    });
    host
}

fn converse(mut socket: TcpStream, world: &World) {
    let mut bytes = Vec::new();
    let mut more = [0; 4096];
    while let Ok(read @ 1..) = socket.read(&mut more) {
        bytes.extend_from_slice(&more[..read]);
        if bytes.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&std::mem::take(&mut bytes)).into_owned();
            if socket.write_all(&world.answer(0, &head)).is_err() {
                return;
            }
        }
    }
}

/// What ORAS gets, or nothing.
fn ask(oras: &Oras, host: &str, repository: &str, deed: Deed, world: &World, folder: &Path) -> Option<String> {
    let (at, image) = (format!("{host}/{repository}"), world.image(repository));
    let arguments = match deed {
        Deed::Head => vec!["resolve".to_owned(), format!("{at}:v1")],
        Deed::Tag => vec!["manifest".to_owned(), "fetch".to_owned(), format!("{at}:v1")],
        Deed::Digest => vec!["manifest".to_owned(), "fetch".to_owned(), format!("{at}@{}", image.digest)],
        Deed::Blob => {
            let layer = format!("{at}@{}", image.layer_digest);
            vec!["blob".to_owned(), "fetch".to_owned(), "--output".to_owned(), "-".to_owned(), layer]
        }
        _ => vec!["repo".to_owned(), "tags".to_owned(), at],
    };
    let outcome = oras.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), folder);
    let got = || String::from_utf8_lossy(&outcome.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    outcome.status.success().then(got)
}

fn honest(repository: &str, deed: Deed, world: &World) -> String {
    let image = world.image(repository);
    let text = match deed {
        Deed::Head => image.digest,
        Deed::Tag | Deed::Digest => image.document,
        Deed::Blob => String::from_utf8(image.layer).unwrap(),
        _ => World::tags().join(" "),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn mutated_answers_reach_oras_as_they_do_directly() {
    let seed = Dice::seed("LARDER_DIFFERENTIAL_SEED");
    let (folder, world) = (Folder::new(), Arc::new(World::new(seed)));
    let (oras, scratch) = (Oras::new(Version::V1_3_3, &folder), folder.sub("scratch"));
    let upstream = serve(&world);
    let config = folder.sub("config").join("larder.toml");
    let text = format!(
        "[[upstream]]\nname = \"registry.example\"\nurl = \"http://{upstream}\"\ndefault = true\nresume_timeout = \"100ms\"\n\
         [upstream.freshness]\ntag_ttl = \"0s\"\nnegative_ttl = \"0s\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let larder = Larder::start(&folder, &["--config".to_owned(), config.to_str().unwrap().to_owned()]);
    let mut wrong = Vec::new();
    for number in 0..SAMPLE {
        let (mutation, warm, cold) = (Mutation::of(seed, number), format!("warm/m{number}"), format!("cold/m{number}"));
        let deed = mutation.deed;
        let through = |repository: &str| ask(&oras, &larder.host(), repository, deed, &world, &scratch);
        if through(&warm) != Some(honest(&warm, deed, &world)) {
            wrong.push(format!("the honest registry, {deed:?}"));
        }
        world.arm(number);
        for repository in [&cold, &warm] {
            let directly = ask(&oras, &upstream, repository, deed, &world, &scratch);
            let (got, want) = (through(repository), honest(repository, deed, &world));
            let is_right =
                got == directly || got.as_ref() == Some(&want) || got.is_none() && directly.as_ref() != Some(&want);
            if !is_right {
                wrong.push(format!("{mutation:?}, {repository}: directly {directly:?}, through larder {got:?}"));
            }
        }
        world.disarm(number);
        for repository in [&cold, &warm] {
            if through(repository) != Some(honest(repository, deed, &world)) {
                wrong.push(format!("{mutation:?}, then honest, {repository}"));
            }
        }
    }
    assert!(wrong.is_empty(), "LARDER_DIFFERENTIAL_SEED={seed}\n{}", wrong.join("\n"));
}
