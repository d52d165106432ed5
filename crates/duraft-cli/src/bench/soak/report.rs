//! Lines over time, the bound, the verdict.

use super::limits::Limits;
use crate::bench::args::{LoadArgs, SoakArgs};
use crate::bench::error::BenchError;
use crate::bench::facts::Facts;
use crate::bench::memory::mib;
use crate::output::{say, write_json};
use serde::Serialize;

const SCHEMA: u32 = 1;

/// The run at one moment; of the nodes' figures, the largest.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Sample {
    pub(super) commands: u64,
    pub(super) seconds: f64,
    pub(super) slots: u64,
    pub(super) log_bytes: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) memory_peak_bytes: u64,
    /// Bytes written to the log in this life of the node.
    pub(super) written_bytes: u64,
    /// Entries behind the latest snapshot.
    pub(super) behind_snapshot: u64,
}

/// The whole run.
#[derive(Serialize)]
pub(super) struct Report {
    schema: u32,
    title: &'static str,
    facts: Facts,
    nodes: u8,
    value_bytes: u32,
    snapshot_log_bytes: u64,
    limits: Limits,
    /// Bytes written per byte of commands, over the worst part of the run between two samples.
    stretch: f64,
    /// Most slots that the limits allow at this stretch.
    slots_max: u64,
    samples: Vec<Sample>,
    /// Nodes that did not hold exactly what was acknowledged, at the end.
    pub(super) wrong_before: u64,
    /// And after all were started anew.
    pub(super) wrong_after: u64,
    pub(super) restart_ms: u64,
}

impl Report {
    pub(super) fn new(facts: Facts, args: &SoakArgs, load: &LoadArgs, limits: Limits) -> Report {
        Report {
            schema: SCHEMA,
            title: "duraft bench soak",
            facts,
            nodes: args.nodes,
            value_bytes: load.value_bytes,
            snapshot_log_bytes: args.snapshot_log_bytes,
            limits,
            stretch: 1.0,
            slots_max: limits.slots(1.0),
            samples: Vec::new(),
            wrong_before: 0,
            wrong_after: 0,
            restart_ms: 0,
        }
    }

    pub(super) fn passed(&self) -> bool {
        let within = |sample: &Sample| {
            sample.slots <= self.slots_max
                && sample.log_bytes <= self.slots_max * self.limits.slot_bytes
                && sample.snapshot_bytes <= self.limits.snapshot_bytes
                && sample.memory_peak_bytes <= self.limits.memory_bytes
        };
        self.samples.iter().all(within) && self.wrong_before + self.wrong_after == 0
    }

    pub(super) fn begin(&self) {
        say(&format!(
            "{}\n  machine   {}\n  load      {} nodes, {} byte values, a snapshot every {} of log",
            self.title,
            self.facts,
            self.nodes,
            self.value_bytes,
            mib(self.snapshot_log_bytes)
        ));
        let bound = self.limits;
        say(&format!(
            "  bound     {} of batches in the log, snapshot files {}, per node; memory {}",
            mib(bound.held_bytes),
            mib(bound.snapshot_bytes),
            mib(bound.memory_bytes)
        ));
    }

    /// Takes a sample in and says it.
    pub(super) fn sample(&mut self, sample: Sample) {
        say(&format!(
            "  {:>9} commands  {:>7.1} s  {:>3} slots  log {:>10}  snapshots {:>8}  peak memory {:>9}  \
             written {:>11}  {:>7} entries behind the snapshot",
            sample.commands,
            sample.seconds,
            sample.slots,
            mib(sample.log_bytes),
            mib(sample.snapshot_bytes),
            mib(sample.memory_peak_bytes),
            mib(sample.written_bytes),
            sample.behind_snapshot
        ));
        let before = self.samples.last().copied().unwrap_or_default();
        let commands = sample.commands.saturating_sub(before.commands);
        if commands > 0 {
            // A command's bytes, and its place in the table of its batch.
            let bytes = commands * (u64::from(self.value_bytes) + 4);
            let written = sample.written_bytes.saturating_sub(before.written_bytes);
            self.stretch = self.stretch.max(written as f64 / bytes as f64);
            self.slots_max = self.limits.slots(self.stretch);
        }
        self.samples.push(sample);
    }

    /// Says the verdict and, where asked for, writes the JSON file.
    pub(super) fn publish(&self, load: &LoadArgs) -> Result<(), BenchError> {
        say(&format!(
            "  restart   all nodes serve what was acknowledged after {} ms; nodes that differ: {} \
             before, {} after",
            self.restart_ms, self.wrong_before, self.wrong_after
        ));
        let most = self.samples.iter().map(|sample| sample.slots).max();
        say(&format!(
            "  slots     at most {} of {}; allowed {}, as a byte of commands took up to {:.2} bytes",
            most.unwrap_or_default(),
            mib(self.limits.slot_bytes),
            self.slots_max,
            self.stretch
        ));
        let verdict = if self.passed() {
            "within the bound, and every command is there once"
        } else {
            "FAILED"
        };
        say(&format!("  verdict   {verdict}"));
        let Some(path) = &load.json else {
            return Ok(());
        };
        write_json(path, self).map_err(|source| BenchError::Json {
            path: path.clone(),
            source,
        })
    }
}
