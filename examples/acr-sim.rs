//! The ACR simulator of the tests, by hand: `cargo run --example acr-sim -- --seed-demo --anonymous`.

#[path = "../tests/simulator/mod.rs"]
mod simulator;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use simulator::{Credential, Options, Redirect, Seen, Simulator, User, samples};

/// Imitates an Azure Container Registry on loopback.
#[derive(Parser)]
struct Arguments {
    /// The login server's port; 0: any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The storage account's port; 0: any free one
    #[arg(long, default_value_t = 0)]
    storage_port: u16,
    /// The port where scripts turn knobs (POST /_sim/knobs); 0: any free one
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// An admin user, repeatable
    #[arg(long = "user", value_name = "NAME:PASSWORD", value_parser = parse_user)]
    users: Vec<User>,
    /// A refresh token that is good from the start, repeatable
    #[arg(long = "refresh-token", value_name = "TOKEN")]
    refresh_tokens: Vec<String>,
    /// An Entra token that the exchange accepts, repeatable
    #[arg(long = "aad-token", value_name = "TOKEN")]
    aad_tokens: Vec<String>,
    /// Anybody may pull
    #[arg(long)]
    anonymous: bool,
    /// How a blob GET is answered
    #[arg(long, value_enum, default_value_t = Style::Sas)]
    redirect: Style,
    /// The rate of all blob bodies together
    #[arg(long, value_name = "BYTES/s")]
    rate: Option<u64>,
    /// Turns knobs from the start, as POST /_sim/knobs does
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    knobs: Option<serde_json::Value>,
    /// Puts in the sample artifacts, one of them with a layer of 64 MiB
    #[arg(long)]
    seed_demo: bool,
    /// Puts in an artifact with one layer of so many bytes, repeatable
    #[arg(long = "seed-blob", value_name = "REPOSITORY:TAG:SIZE", value_parser = parse_seed)]
    seeds: Vec<(String, String, usize)>,
    /// Speaks TLS, and writes the certificate to trust to DIR/ca.pem
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Writes the certificate for `auth.token.rootcertbundle` of a Distribution registry
    #[arg(long, value_name = "FILE")]
    token_certificate: Option<PathBuf>,
    /// One line per request
    #[arg(long)]
    log: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Style {
    Sas,
    Data,
    Direct,
}

/// Left alone, the text itself would be the value: a JSON string.
fn parse_json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn parse_user(text: &str) -> Result<User, String> {
    let (name, password) = text.split_once(':').ok_or("a user is NAME:PASSWORD")?;
    Ok(User::admin(name, password))
}

fn parse_seed(text: &str) -> Result<(String, String, usize), String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [repository, tag, size] = parts[..] else { return Err("a seed is REPOSITORY:TAG:SIZE".to_owned()) };
    let size = size.parse().map_err(|_| format!("{size:?} is not a number of bytes"))?;
    Ok((repository.to_owned(), tag.to_owned(), size))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("acr-sim: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let simulator = Simulator::try_start(options(&arguments)).await?;
    if let Some(knobs) = &arguments.knobs {
        simulator.knobs().turn_json(knobs)?;
    }
    // Whoever waits for the port finds everything there.
    simulator.stop_listening();
    if arguments.seed_demo {
        samples::seed_demo(&simulator);
    }
    for (repository, tag, size) in &arguments.seeds {
        samples::seed_blob(&simulator, repository, tag, *size);
    }
    if let (Some(dir), Some(pem)) = (&arguments.tls_dir, simulator.ca_pem()) {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("ca.pem"), pem)?;
    }
    if let Some(path) = &arguments.token_certificate {
        simulator.write_token_certificate(path)?;
    }
    simulator.resume_listening();
    announce(&simulator);
    tokio::select! {
        () = print_requests(&simulator), if arguments.log => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Options {
    let mut options = Options {
        users: arguments.users.clone(),
        refresh_tokens: arguments.refresh_tokens.clone(),
        aad_tokens: arguments.aad_tokens.clone(),
        anonymous: arguments.anonymous,
        tls: arguments.tls_dir.is_some(),
        port: arguments.port,
        storage_port: arguments.storage_port,
        control_port: Some(arguments.control_port),
        ..Options::default()
    };
    options.knobs.total_rate = arguments.rate;
    options.knobs.redirect = match arguments.redirect {
        Style::Sas => Redirect::Sas,
        Style::Data => Redirect::DataEndpoint,
        Style::Direct => Redirect::Direct,
    };
    options
}

#[expect(clippy::print_stdout, reason = "a command line program speaks on its standard output")]
fn announce(simulator: &Simulator) {
    println!("login server  {}", simulator.url());
    println!("storage       {}", simulator.storage_host());
    println!("knobs         {}/_sim/knobs", simulator.control_url().unwrap_or_default());
    for (repository, tags) in simulator.contents() {
        println!("holds         {}/{repository} ({})", simulator.host(), tags.join(", "));
    }
    println!("ready");
}

#[expect(clippy::print_stdout, reason = "a command line program speaks on its standard output")]
async fn print_requests(simulator: &Simulator) {
    let mut printed = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let log = simulator.log();
        // A cleared log starts anew.
        printed = printed.min(log.len());
        for seen in &log[printed..] {
            println!("{}", line(seen));
        }
        printed = log.len();
    }
}

fn line(seen: &Seen) -> String {
    let credential = match &seen.authorization {
        Credential::None => "-".to_owned(),
        Credential::Basic { user } => format!("basic:{user}"),
        Credential::Bearer => "bearer".to_owned(),
        Credential::Other => "other".to_owned(),
    };
    let range = seen.range.as_deref().unwrap_or("-");
    // A signed URL is a secret while it lives; its path says enough.
    format!("{:?} {} {} {} {credential} {range}", seen.listener, seen.method, seen.path(), seen.status).to_lowercase()
}
