//! The `larder` command; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    larder::cli::run()
}
