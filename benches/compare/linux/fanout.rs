//! Many clients, one blob that nobody has: how often it is fetched, and how long the last client waits.

use std::time::Duration;

use super::Result;
use super::client::{Client, Connection, Sink, stampede};
use super::content::Artifact;
use super::origin::Origin;
use super::peers::{Cores, LARDER, REGISTRY, larder, registry_proxy};
use super::report::Figure;

const CLIENTS: usize = 32;
/// The origin's bytes per second and answer. On two cores 32 clients that hash cannot follow a much faster one.
const RATE: u64 = 32 << 20;
const DIRECT: &str = "direct";

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(RATE)?;
    let servers = [
        (LARDER, larder(folder.path(), origin.port, Cores::All)?),
        (REGISTRY, registry_proxy(folder.path(), origin.port)?),
    ];
    let mut fetches = Figure::new("32 clients, 1 blob: fetches", "").at_most(LARDER, 1.0);
    let mut last = Figure::new("32 clients, 1 blob: last one done", "s").at_most_times(LARDER, DIRECT, 1.1);
    let mut first = Figure::new("32 clients, 1 blob: slowest first byte", "ms").at_most_above(LARDER, DIRECT, 40.0);
    for _ in 0..rounds {
        let artifact = Artifact::fresh("bench/fanout", &[64 << 20]);
        origin.add(&artifact);
        let layer = &artifact.blobs[1];
        let path = artifact.blob_path(layer);
        let ports = std::iter::once((DIRECT, origin.port, 1))
            .chain(servers.iter().map(|(name, server)| (*name, server.port, CLIENTS)));
        for (name, port, clients) in ports {
            // A client has the manifest before it asks for what it names.
            Connection::open(port)?.get(&artifact.manifest_path(), Sink::Discard)?;
            origin.take_fetches();
            let seen = stampede(port, &path, &layer.digest, clients).map_err(|error| format!("{name}: {error}"))?;
            #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
            fetches.add(name, origin.take_fetches() as f64);
            last.add(name, longest(&seen, |client| client.took).as_secs_f64());
            first.add(name, longest(&seen, |client| client.first_byte).as_secs_f64() * 1e3);
        }
    }
    Ok(vec![fetches, last, first])
}

fn longest(clients: &[Client], of: impl Fn(&Client) -> Duration) -> Duration {
    clients.iter().map(of).max().unwrap_or_default()
}
