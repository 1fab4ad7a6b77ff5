//! A pull of what nobody has, by tag, against the same pull from the origin itself.

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Result;
use super::client::{Connection, Sink};
use super::content::{Artifact, hex};
use super::origin::Origin;
use super::peers::{Cores, LARDER, REGISTRY, larder, registry_proxy};
use super::report::Figure;

const DIRECT: &str = "direct";
/// A gigabit of network.
const RATE: u64 = 128 << 20;

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let limited = Figure::new("cold pull by tag, 64 MiB, origin at 128 MiB/s", "s");
    let unlimited = Figure::new("cold pull by tag, 64 MiB, origin unlimited", "s");
    Ok(vec![compare(limited, RATE, rounds)?, compare(unlimited, 0, rounds)?])
}

fn compare(mut figure: Figure, rate: u64, rounds: usize) -> Result<Figure> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(rate)?;
    let larder = larder(folder.path(), origin.port, Cores::All)?;
    let registry = registry_proxy(folder.path(), origin.port)?;
    for _ in 0..rounds {
        for (name, port) in [(DIRECT, origin.port), (LARDER, larder.port), (REGISTRY, registry.port)] {
            let artifact = Artifact::fresh("bench/cold", &[64 << 20]);
            origin.add(&artifact);
            figure.add(name, pull(port, &artifact).map_err(|error| format!("{name}: {error}"))?);
        }
    }
    Ok(figure)
}

/// Seconds of a pull whose every part is hashed.
fn pull(port: u16, artifact: &Artifact) -> Result<f64> {
    let began = Instant::now();
    let mut connection = Connection::open(port)?;
    let blobs = artifact.blobs.iter().map(|blob| (artifact.blob_path(blob), &blob.digest));
    for (path, digest) in std::iter::once((artifact.manifest_path(), &artifact.manifest.digest)).chain(blobs) {
        let mut hash = Sha256::new();
        connection.get(&path, Sink::Hash(&mut hash))?;
        if *digest != format!("sha256:{}", hex(&hash.finalize())) {
            return Err(format!("{path}: other bytes than the origin's").into());
        }
    }
    Ok(began.elapsed().as_secs_f64())
}
