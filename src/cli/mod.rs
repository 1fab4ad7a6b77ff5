//! The command line: one file per subcommand. It turns arguments into sources of configuration, and outcomes into exit codes.
//!
//! Exit codes: 0 done, 1 failed, 2 nothing was begun because the arguments or the configuration are wrong, 3 no daemon runs that
//! could be asked. `verify` says more.

mod arguments;
mod bundle;
mod check;
mod client;
mod client_config;
mod docker;
mod generate;
mod list;
mod pin;
mod progress;
mod purge;
mod serve;
mod status;
mod tls;
mod user;
mod verify;

use crate::config::Sources;
use clap::{CommandFactory as _, Parser, Subcommand};
use std::process::ExitCode;

/// A caching pull-through proxy for OCI registries, first of all Azure Container Registry.
#[derive(Debug, Parser)]
#[command(name = "larder", version = crate::telemetry::build::LONG, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer registry clients, from the store or from an upstream
    #[command(after_help = arguments::EXAMPLES)]
    Serve(arguments::Settings),
    /// Validate the configuration, print the effective settings and where each came from
    Check(check::Arguments),
    /// Print or write the files with which a client (containerd, docker, podman, buildkit, oras, helm, …) pulls through larder
    ClientConfig(client_config::Arguments),
    /// Show what the running daemon is doing and what it has saved
    Status(arguments::Question),
    /// List what is stored by tag, with sizes
    List(list::Arguments),
    /// Keep a reference or whole repositories, whatever room is needed; without arguments, list what is kept
    Pin(pin::Pin),
    /// Keep them no more
    Unpin(pin::Unpin),
    /// Forget tags, manifests, repositories or upstreams, and free their room; they are fetched anew when they are asked for
    Purge(purge::Arguments),
    /// Fetch ahead what lists or references name
    Warm(bundle::warm::Arguments),
    /// Write what is stored as an OCI image layout, to be carried elsewhere
    Export(bundle::export::Arguments),
    /// Store what an image layout has, whoever wrote it
    Import(bundle::import::Arguments),
    /// List what this store holds and was asked for in vain, for the next delta
    Inventory(bundle::inventory::Arguments),
    /// Make the certificates with which larder speaks TLS
    Tls(tls::Arguments),
    /// Hash every blob of the store, and say which are damaged
    #[command(after_help = verify::EXIT_CODES)]
    Verify(verify::Arguments),
    /// Add, remove and list the users who log in with a password
    #[command(subcommand)]
    User(user::User),
    /// Write man pages or shell completions into a folder, for packages
    #[command(hide = true)]
    Generate(generate::Arguments),
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let sources = Sources::of_process();
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments.into_sources(sources)),
        Command::Check(arguments) => check::run(arguments, sources),
        Command::ClientConfig(arguments) => client_config::run(arguments, sources),
        Command::Status(question) => status::run(question, sources),
        Command::List(arguments) => list::run(arguments, sources),
        Command::Pin(arguments) => pin::pin(arguments, sources),
        Command::Unpin(arguments) => pin::unpin(arguments, sources),
        Command::Purge(arguments) => purge::run(arguments, sources),
        Command::Warm(arguments) => bundle::warm::run(arguments, sources),
        Command::Export(arguments) => bundle::export::run(arguments, sources),
        Command::Import(arguments) => bundle::import::run(arguments, sources),
        Command::Inventory(arguments) => bundle::inventory::run(arguments, sources),
        Command::Tls(arguments) => tls::run(arguments, sources),
        Command::Verify(arguments) => verify::run(arguments, sources),
        Command::User(command) => user::run(command, sources),
        Command::Generate(arguments) => generate::run(&arguments, Arguments::command()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_are_consistent() {
        <super::Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
