//! Samples to medians, ratios and verdicts; a table for people and JSON for programs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Result;
use super::peers::LARDER;

/// One quantity, sampled of several servers in the same rounds.
pub(super) struct Figure {
    name: &'static str,
    unit: &'static str,
    samples: Vec<(&'static str, Vec<f64>)>,
    bars: Vec<Bar>,
}

/// What a server's median has to be no more than.
struct Bar {
    server: &'static str,
    factor: f64,
    anchor: Option<&'static str>,
    margin: f64,
}

impl Figure {
    pub(super) fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit, samples: Vec::new(), bars: Vec::new() }
    }

    pub(super) fn at_most(self, server: &'static str, most: f64) -> Self {
        self.bar(Bar { server, factor: 0.0, anchor: None, margin: most })
    }

    pub(super) fn at_most_times(self, server: &'static str, anchor: &'static str, factor: f64) -> Self {
        self.bar(Bar { server, factor, anchor: Some(anchor), margin: 0.0 })
    }

    pub(super) fn at_most_above(self, server: &'static str, anchor: &'static str, margin: f64) -> Self {
        self.bar(Bar { server, factor: 1.0, anchor: Some(anchor), margin })
    }

    fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    pub(super) fn add(&mut self, server: &'static str, sample: f64) {
        match self.samples.iter_mut().find(|(name, _)| *name == server) {
            Some((_, samples)) => samples.push(sample),
            None => self.samples.push((server, vec![sample])),
        }
    }

    fn of(&self, server: &str) -> f64 {
        self.samples.iter().find(|(name, _)| *name == server).map_or(f64::NAN, |(_, samples)| median(samples))
    }

    pub(super) fn holds(&self) -> bool {
        self.bars.iter().all(|bar| self.meets(bar))
    }

    fn meets(&self, bar: &Bar) -> bool {
        // A figure that is missing meets nothing: no comparison with it is true.
        self.of(bar.server) <= bar.margin + bar.anchor.map_or(0.0, |anchor| bar.factor * self.of(anchor))
    }

    fn json(&self) -> Value {
        let servers = self.samples.iter().map(|(name, samples)| {
            let ratio = self.of(LARDER) / median(samples);
            ((*name).to_owned(), json!({"median": median(samples), "samples": samples, "larder_ratio": ratio}))
        });
        let bars = self.bars.iter().map(|bar| json!({"bar": bar.to_string(), "met": self.meets(bar)}));
        json!({
            "name": self.name,
            "unit": self.unit,
            "servers": servers.collect::<serde_json::Map<_, _>>(),
            "bars": bars.collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, factor, anchor, margin } = self;
        match anchor {
            None => write!(f, "{server} ≤ {margin}"),
            Some(anchor) if *margin > 0.0 => write!(f, "{server} ≤ {anchor} + {margin}"),
            Some(anchor) => write!(f, "{server} ≤ {factor}x {anchor}"),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{}{}", self.name, if self.unit.is_empty() { "" } else { ", " }, self.unit)?;
        for (name, samples) in &self.samples {
            let (least, most) = samples.iter().fold((f64::MAX, f64::MIN), |(l, m), s| (l.min(*s), m.max(*s)));
            write!(f, "  {name:<16} {:>10.3}   ({least:.3} to {most:.3})", median(samples))?;
            let ratio = self.of(LARDER) / median(samples);
            if *name != LARDER && ratio.is_finite() {
                write!(f, "   larder is {ratio:.3}x")?;
            }
            writeln!(f)?;
        }
        for bar in &self.bars {
            writeln!(f, "  {} {bar}", if self.meets(bar) { "holds: " } else { "MISSED:" })?;
        }
        Ok(())
    }
}

pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Everything that one run has measured.
pub(super) struct Report {
    rounds: usize,
    /// Processes that wanted to run when this began; they were in everybody's way.
    load_before: f64,
    pub(super) figures: Vec<Figure>,
}

impl Report {
    pub(super) fn new(rounds: usize) -> Self {
        Self { rounds, load_before: load(), figures: Vec::new() }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join("compare.json");
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        let machine = json!({"cpu": cpu_model(), "cores": std::thread::available_parallelism()?.get(), "load_before": self.load_before});
        let report = json!({"rounds": self.rounds, "machine": machine, "figures": figures});
        fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
        Ok(path)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Medians of {} interleaved rounds (least to most), {}", self.rounds, cpu_model())?;
        writeln!(
            f,
            "Load of the machine before: {}{}\n",
            self.load_before,
            if self.load_before > 1.0 { ": BUSY" } else { "" }
        )?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unnamed processor");
    model.trim_start_matches(['\t', ' ', ':']).to_owned()
}
