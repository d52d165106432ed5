//! A progress bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// Shows the rounds of a run on standard error while they pass.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar of `rounds` steps.
    pub(crate) fn start(what: &'static str, rounds: u32) -> Progress {
        let bar = ProgressBar::new(u64::from(rounds));
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {elapsed} {msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        bar.tick();
        Progress(bar)
    }

    /// What is going on now.
    pub(crate) fn say(&self, what: &'static str) {
        self.0.set_message(what);
    }

    /// One round passed at this rate.
    pub(crate) fn round_done(&self, per_second: f64) {
        self.0.set_message(format!("{per_second:.0}/s"));
        self.0.inc(1);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
