//! Options, the order of the measurements, and the gate.

mod access;
mod client;
mod cold;
mod content;
mod evict;
mod fanout;
mod hits;
mod integrity;
mod origin;
mod peers;
mod process;
mod push;
mod report;
mod tls;
mod writes;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use report::{Figure, Report};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str =
    "usage: benches/run [--gate] [--rounds N] [--only hits|access|tls|writes|fanout|cold|push|evict|integrity]...
  --gate       exit with an error if a bar is missed; a measurement that misses one is repeated once before it counts
  --rounds N   interleaved rounds per measurement (5)
  --only WHAT  one kind of measurement";

struct Options {
    gate: bool,
    rounds: usize,
    only: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self { gate: false, rounds: 5, only: Vec::new() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--gate" => options.gate = true,
                "--rounds" => {
                    options.rounds = value()?.parse().map_err(|_| format!("--rounds: not a number\n{USAGE}"))?;
                }
                "--only" => options.only.push(value()?),
                // cargo says this to every benchmark.
                "--bench" => {}
                _ => return Err(format!("unknown option {argument}\n{USAGE}").into()),
            }
        }
        if options.rounds == 0 {
            return Err("--rounds: at least one".into());
        }
        Ok(options)
    }
}

type Measurement = fn(usize) -> Result<Vec<Figure>>;
const MEASUREMENTS: [(&str, Measurement); 9] = [
    ("hits", hits::measure),
    ("access", access::measure),
    ("tls", tls::measure),
    ("writes", writes::measure),
    ("fanout", fanout::measure),
    ("cold", cold::measure),
    ("push", push::measure),
    ("evict", evict::measure),
    ("integrity", integrity::measure),
];

pub(super) fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether the run is a good one: without a gate, every completed one is.
fn run(options: &Options) -> Result<bool> {
    let unknown = options.only.iter().find(|name| MEASUREMENTS.iter().all(|(known, _)| known != name));
    if let Some(name) = unknown {
        return Err(format!("--only {name}: no such measurement\n{USAGE}").into());
    }
    let mut report = Report::new(options.rounds);
    for (name, measure) in MEASUREMENTS {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        println!("measuring {name} …");
        let mut figures = measure(options.rounds).map_err(|error| format!("{name}: {error}"))?;
        if options.gate && !figures.iter().all(Figure::holds) {
            println!("a bar was missed: once more, since the machine may have been busy …");
            figures = measure(options.rounds).map_err(|error| format!("{name}: {error}"))?;
        }
        report.figures.extend(figures);
    }
    println!("\n{report}");
    let written = report.write(&target_folder())?;
    println!("written to {}", written.display());
    Ok(!options.gate || report.figures.iter().all(Figure::holds))
}

fn target_folder() -> PathBuf {
    // The temporary folder of a target lies in the build folder, wherever the user has put that.
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}
