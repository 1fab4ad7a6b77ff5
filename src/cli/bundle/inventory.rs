//! `larder inventory`: what this store holds and what it was asked for in vain, for the side that exports the next delta.

use super::io;
use crate::cli::arguments::Place;
use crate::cli::client::{Daemon, Trouble};
use crate::config::Sources;
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(arguments: Arguments, sources: Sources) -> ExitCode {
    let Arguments { output, place } = arguments;
    let written = Daemon::of(&place.into_sources(sources)).and_then(|daemon| write(&daemon, output));
    Trouble::exit_code(written.map(|()| ExitCode::SUCCESS))
}

fn write(daemon: &Daemon, output: Option<PathBuf>) -> Result<(), Trouble> {
    let Some(path) = output else { return daemon.download("/v1/inventory", &mut std::io::stdout().lock()) };
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(io("write", &partial))?;
    daemon.download("/v1/inventory", &mut file)?;
    std::fs::rename(&partial, &path).map_err(io("rename to its place", &path))
}
