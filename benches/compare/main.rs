//! larder beside its peers, in one run: `./benches/run` builds and starts this; docs/performance.md says what it measures.
//!
//! Rounds are interleaved and medians reported, since the same server varies by tens of percent between rounds on a busy
//! machine: the ratios are the result. CPU figures are of the server's processes alone, whatever the load generator costs.
#![expect(clippy::print_stdout, reason = "printing is what a benchmark is for")]

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark reads /proc and pins processes to cores: it runs on Linux");
}
