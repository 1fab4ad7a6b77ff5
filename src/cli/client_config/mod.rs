//! `larder client-config CLIENT`: the files and commands with which a registry client pulls through larder, for every configured
//! upstream. The tests with real clients use exactly these files.

mod artifacts;
mod builders;
mod containerd;
mod containers;
mod docker;
mod guide;
mod lazy;
mod site;

use crate::config::{Flags, Sources, load};
use guide::Guide;
use site::{At, Site};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// A client's names, and what makes its guide.
struct Client {
    names: &'static [&'static str],
    guide: fn(&Site) -> Result<Guide, String>,
}

/// Every client that larder knows how to point at itself. The first name is the one that messages use.
const CLIENTS: &[Client] = &[
    Client { names: &["containerd", "ctr", "nerdctl", "cri", "kubelet"], guide: |site| Ok(containerd::guide(site)) },
    Client { names: &["docker", "dockerd"], guide: |site| Ok(docker::guide(site)) },
    Client { names: &["podman", "skopeo", "buildah", "cri-o"], guide: containers::guide },
    Client { names: &["k3s", "rke2"], guide: |site| Ok(containerd::k3s(site)) },
    Client { names: &["buildkit", "buildx"], guide: builders::buildkit },
    Client { names: &["github-actions"], guide: builders::github_actions },
    Client { names: &["kaniko"], guide: builders::kaniko },
    Client { names: &["rules_oci", "bazel"], guide: builders::rules_oci },
    Client { names: &["oras"], guide: artifacts::oras },
    Client { names: &["helm"], guide: artifacts::helm },
    Client { names: &["crane", "gcrane", "ko"], guide: artifacts::crane },
    Client { names: &["cosign"], guide: artifacts::cosign },
    Client { names: &["notation"], guide: artifacts::notation },
    Client { names: &["regctl", "regsync"], guide: |site| Ok(artifacts::regctl(site)) },
    Client { names: &["oras-py"], guide: artifacts::oras_py },
    Client { names: &["oci-client"], guide: |site| Ok(artifacts::oci_client(site)) },
    Client { names: &["stargz"], guide: |site| Ok(lazy::stargz(site)) },
    Client { names: &["soci"], guide: |site| Ok(lazy::soci(site)) },
    Client { names: &["nydus"], guide: lazy::nydus },
    Client { names: &["overlaybd"], guide: lazy::overlaybd },
];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The client, such as containerd, docker, podman, buildkit, oras, helm; an unknown one lists them all
    client: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

/// Where larder is, seen from the client.
#[derive(Debug, clap::Args)]
struct Place {
    /// Read this file [default: $LARDER_CONFIG, /etc/larder/larder.toml, the user's configuration folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How this client reaches larder [default: from the file's listeners, else http://localhost:5000]
    #[arg(long, value_name = "URL")]
    at: Option<String>,
    /// Only this upstream, by name or alias; without a configuration, the upstream to write for [default: all]
    #[arg(long, value_name = "NAME")]
    upstream: Vec<String>,
    /// The certificate authority of larder's https, where the system does not know it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client runs in a container on the desktop that larder runs on: it reaches it as host.docker.internal
    #[arg(long)]
    in_container: bool,
    /// Larder is the only way: never fall back to the real registry
    #[arg(long)]
    sealed: bool,
}

/// Where the guide goes.
#[derive(Debug, clap::Args)]
struct Output {
    /// Write the files below this folder instead of printing them; / writes them where the client looks
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// Replace files that are there with another content
    #[arg(long, requires = "write")]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let (site, guide) = match make(&arguments.client, arguments.place, sources) {
        Ok(made) => made,
        Err(problem) => return refuse(&problem),
    };
    let files = match arguments.output.write.map(|folder| guide.write(&folder, arguments.output.force)) {
        Some(Ok(said)) => said,
        Some(Err(problem)) => {
            let _ = writeln!(std::io::stderr(), "error: {problem}");
            return ExitCode::FAILURE;
        }
        None => guide.show_files(),
    };
    let text = if arguments.output.json { guide.to_json(&site) } else { format!("{files}{}", guide.advice()) };
    let printed = std::io::stdout().write_all(text.as_bytes());
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refuse(problem: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {problem}");
    ExitCode::from(2)
}

fn make(client: &str, place: Place, sources: Sources) -> Result<(Site, Guide), String> {
    let client = find(client)?;
    let site = site(place, sources)?;
    let guide = (client.guide)(&site)?;
    Ok((site, guide))
}

fn find(name: &str) -> Result<&'static Client, String> {
    let wanted = name.to_ascii_lowercase();
    let found = CLIENTS.iter().find(|client| client.names.contains(&wanted.as_str()));
    found.ok_or_else(|| {
        let known: Vec<String> = CLIENTS.iter().map(|client| client.names.join(", ")).collect();
        format!("client '{name}' is unknown; known are:\n  {}", known.join("\n  "))
    })
}

/// What the configuration and the arguments say about larder, as clients see it.
fn site(place: Place, sources: Sources) -> Result<Site, String> {
    let mut sources = Sources { file: place.config, ..sources };
    let mut only = place.upstream;
    if sources.find_file().is_none() && sources.environment.iter().all(|(name, _)| !name.starts_with("LARDER_UPSTREAM"))
    {
        if only.is_empty() {
            return Err("no upstream is configured: say which with --upstream myacr.azurecr.io, or name larder's \
                        configuration with --config FILE"
                .to_owned());
        }
        sources.flags = Flags { upstreams: std::mem::take(&mut only), ..Flags::default() };
    }
    let loaded = load(&sources).map_err(|errors| format!("the configuration is not valid:\n{errors}"))?;
    let at = match place.at {
        Some(url) => At::parse(&url)?,
        None => At::of_listeners(&loaded.settings.server),
    };
    let at = if place.in_container { at.in_container() } else { at };
    let ca = place.ca.map(|file| {
        let read = std::fs::read_to_string(&file);
        read.map_err(|error| format!("cannot read {}: {error}: correct the path after --ca", file.display()))
    });
    let ca = ca.transpose()?;
    if ca.is_some() && !at.is_https() {
        return Err(format!("--ca is for https, and larder is at {at}: write --at https://… or leave --ca out"));
    }
    Site::new(at, ca, place.sealed, place.in_container, &loaded.settings.upstreams, &only)
}
