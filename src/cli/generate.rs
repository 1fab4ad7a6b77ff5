//! `larder generate man|completions FOLDER`: made from the same declarations that parse the arguments, so that neither can be out
//! of date.

use crate::telemetry::build;
use clap::{Command, ValueEnum};
use clap_complete::Shell;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to write
    what: What,
    /// The folder to write into; it is made if it is missing
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Man,
    Completions,
}

pub(super) fn run(arguments: &Arguments, command: Command) -> ExitCode {
    let result = std::fs::create_dir_all(&arguments.folder).and_then(|()| match arguments.what {
        What::Man => man(command, &arguments.folder),
        What::Completions => completions(command, &arguments.folder),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "larder: cannot write into {}: {error}", arguments.folder.display());
            ExitCode::FAILURE
        }
    }
}

/// A page per command that people call. A page has the version alone: the commit would make two builds of one release differ.
fn man(command: Command, folder: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command.version(build::VERSION).disable_help_subcommand(true), folder)
}

fn completions(mut command: Command, folder: &Path) -> io::Result<()> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
        clap_complete::generate_to(shell, &mut command, "larder", folder)?;
    }
    Ok(())
}
