//! How far a command is: one line that is redrawn, on a terminal alone.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Read, Write};

/// A bar of bytes, which draws nothing where nobody looks.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of so many bytes; 0: nobody knows yet.
    pub(super) fn of(bytes: u64) -> Self {
        // The standard error is no terminal under a script, in a log or in CI.
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(5));
        let known = "{bytes} of {total_bytes} [{wide_bar}] {bytes_per_sec}, {eta} left {msg}";
        let style = ProgressStyle::with_template(if bytes > 0 { known } else { "{bytes}, {bytes_per_sec} {msg}" });
        Self(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// As far as somebody else says.
    pub(super) fn set(&self, bytes: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(bytes);
    }

    /// A line that stays, above the bar.
    pub(super) fn say(&self, text: &str) {
        let print = || drop(writeln!(std::io::stderr(), "{text}"));
        if self.0.is_hidden() { print() } else { self.0.suspend(print) }
    }

    /// Counts what is read.
    pub(super) fn reading<R: Read>(&self, reader: R) -> impl Read {
        self.0.wrap_read(reader)
    }

    /// Counts what is written.
    pub(super) fn writing<W: Write>(&self, writer: W) -> impl Write {
        self.0.wrap_write(writer)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
