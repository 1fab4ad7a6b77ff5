//! What is stored, asked for again and again: the server's CPU for a GiB of blobs and for one manifest.

use super::Result;
use super::client::{Connection, Sink, load};
use super::content::Artifact;
use super::origin::Origin;
use super::peers::{Cores, LARDER, NGINX, REGISTRY, larder, nginx, registry};
use super::process::Server;
use super::report::Figure;

const MIB: usize = 1 << 20;

pub(super) fn measure(rounds: usize) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(0)?;
    let artifact = Artifact::fresh("bench/hits", &[64 * MIB, MIB]);
    origin.add(&artifact);
    let servers = [
        (LARDER, larder(folder.path(), origin.port, Cores::First)?),
        (NGINX, nginx(folder.path(), &artifact)?),
        (REGISTRY, registry(folder.path(), &artifact)?),
    ];
    for (name, server) in &servers {
        check(server, &artifact).map_err(|error| format!("{name}: {error}\n{}", server.last_words()))?;
    }

    let (large, small) = (artifact.blob_path(&artifact.blobs[1]), artifact.blob_path(&artifact.blobs[2]));
    let manifest = artifact.manifest_path();
    let mut of_large = Figure::new("blob hit, 64 MiB", "CPU s/GiB").at_most_times(LARDER, NGINX, 1.8);
    let mut of_small = Figure::new("blob hit, 1 MiB", "CPU s/GiB");
    let mut of_manifest =
        Figure::new("manifest GET", "CPU µs").at_most_times(LARDER, NGINX, 1.3).at_most_times(LARDER, REGISTRY, 0.05);
    // The first round only warms: caches, connections, the processor.
    for round in 0..=rounds {
        for (name, server) in &servers {
            // The registry takes a hundred times longer over small things; fewer of them are as exact.
            let (blobs, manifests) = if *name == REGISTRY { (256, 1_024) } else { (1_024, 32_768) };
            let failed = |error| format!("{name}: {error}\n{}", server.last_words());
            let samples = [
                (&mut of_large, per_gib(server, &large, 24).map_err(failed)?),
                (&mut of_small, per_gib(server, &small, blobs).map_err(failed)?),
                (&mut of_manifest, per_request(server, &manifest, manifests).map_err(failed)?),
            ];
            for (figure, sample) in samples.into_iter().filter(|_| round > 0) {
                figure.add(name, sample);
            }
        }
    }
    Ok(vec![of_large, of_small, of_manifest])
}

/// Pulls everything once, which stores it in larder, and sees that the bytes are the artifact's.
fn check(server: &Server, artifact: &Artifact) -> Result<()> {
    let mut connection = Connection::open(server.port)?;
    let paths = artifact.blobs.iter().map(|blob| (artifact.blob_path(blob), blob));
    for (path, content) in std::iter::once((artifact.manifest_path(), &artifact.manifest)).chain(paths) {
        let mut kept = Vec::new();
        connection.get(&path, Sink::Keep(&mut kept))?;
        if kept != content.bytes {
            return Err(format!("{path}: other bytes than the origin's").into());
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "gigabytes")]
fn per_gib(server: &Server, path: &str, requests: usize) -> Result<f64> {
    let before = server.cpu()?;
    let bytes = load(server.port, path, 4, requests)?;
    Ok((server.cpu()? - before) / (bytes as f64 / f64::from(1 << 30)))
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn per_request(server: &Server, path: &str, requests: usize) -> Result<f64> {
    let before = server.cpu()?;
    load(server.port, path, 32, requests)?;
    Ok((server.cpu()? - before) * 1e6 / requests as f64)
}
