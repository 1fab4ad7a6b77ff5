//! larder's main job, shown: `./scripts/demo` builds and runs this.
//!
//! It starts an imitation of Azure Container Registry and larder in front of it, on free ports, with everything in a temporary
//! folder, pulls one artifact three times (cold, warm, with the registry stopped) and prints for each what it took and where the
//! bytes came from. Every pull is verified against its digests; a pull that fails, or a warm one that needed the registry, ends
//! the demonstration with an error.
#![expect(clippy::print_stdout, reason = "printing is what a demonstration is for")]

mod processes;
mod pull;

use std::error::Error;
use std::process::ExitCode;

use processes::{Place, Process};
use pull::{Pull, Registry};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const REPOSITORY: &str = "samples/layers";
const TAG: &str = "v1";
/// What the imitation sends per second, so that its distance shows: on loopback nothing is far away.
const RATE: u64 = 32 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => {
            println!("usage: demo [--keep]    --keep leaves both servers running after the pulls, until Ctrl-C");
            return ExitCode::from(2);
        }
    };
    let done = tokio::select! {
        done = demonstrate(keep) => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nthe demonstration failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demonstrate(keep: bool) -> Result<()> {
    let place = Place::new()?;
    let upstream = place.start_upstream(RATE).await?;
    let larder = place.start_larder().await?;
    introduce(&place);

    let registry = Registry::new(place.larder, place.admin);
    let servers = [&larder, &upstream];
    let cold = pulled("cold", &registry, &servers).await?;
    let warm = pulled("warm", &registry, &servers).await?;
    upstream.stop().await?;
    let alone = pulled("with the registry stopped", &registry, &[&larder]).await?;
    if cold.from_upstream < cold.bytes {
        return Err("the cold pull did not come from the registry".into());
    }
    if warm.from_upstream + alone.from_upstream > 0 {
        return Err("a pull of what is stored asked the registry for content".into());
    }

    if !keep {
        println!("\nBoth are stopped. To try it with oras: ./scripts/demo --keep, which names the port, and then");
        try_these("localhost:PORT");
        println!("\nWith a registry of your own: target/release/larder serve --upstream myacr.azurecr.io, and then");
        println!("  oras pull localhost:5000/REPOSITORY:TAG");
        return Ok(());
    }
    let _upstream = place.start_upstream(RATE).await?;
    suggest(&place);
    std::future::pending().await
}

/// Pulls once and prints the row; on failure the servers' last words are part of the error.
async fn pulled(how: &str, registry: &Registry, servers: &[&Process]) -> Result<Pull> {
    let words = || servers.iter().map(|server| server.last_words()).collect::<String>();
    let pull = registry.pull(REPOSITORY, TAG).await.map_err(|error| format!("{error}\n{}", words()))?;
    registry.settles().await?;
    let (seconds, bytes) = (pull.took.as_secs_f64(), mib(pull.from_upstream));
    println!("{how:<27} {seconds:>7.3} s   {bytes:>9}   {:<33} {}", pull.manifest_status, pull.blob_status);
    Ok(pull)
}

fn introduce(place: &Place) {
    println!("registry   127.0.0.1:{}   imitates ACR, sends at most {} a second", place.upstream, mib(RATE));
    println!("larder     localhost:{}   metrics on http://127.0.0.1:{}/metrics", place.larder, place.admin);
    println!("folder     {}\n", place.folder().display());
    println!("Pulls of {REPOSITORY}:{TAG} through larder, each verified against its digests:\n");
    println!("{:<27} {:>9}   {:>9}   {:<33} Cache-Status, blobs", "", "time", "upstream", "Cache-Status, manifest");
}

fn suggest(place: &Place) {
    println!("\nBoth are running until Ctrl-C. Try:\n");
    try_these(&format!("localhost:{}", place.larder));
}

fn try_these(larder: &str) {
    println!("  oras pull {larder}/samples/config:v1");
    println!("  oras pull {larder}/samples/myapp:v1 --output ./artifacts/");
    println!("  oras manifest fetch {larder}/samples/helm-chart:v1");
    println!("  oras discover {larder}/samples/config:v1");
    println!("  oras repo tags {larder}/samples/config");
    println!("  oras repo ls {larder}");
}

fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.1} MiB")
}
