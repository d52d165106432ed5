//! The result of a benchmark: rounds, medians, spread, ratios, as text and as JSON.

use super::args::LoadArgs;
use super::error::BenchError;
use super::facts::Facts;
use super::raw::RawSlice;
use super::series::{Point, Series};
use super::stages::StageCounts;
use super::summary::{Bin, Latencies, Percentiles, Spread};
use super::timed::LogIo;
use crate::output::write_json;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

/// Version of the JSON layout.
pub(crate) const SCHEMA: u32 = 2;

/// One benchmark run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) title: String,
    pub(crate) facts: Facts,
    pub(crate) workload: Workload,
    pub(crate) rounds: Vec<Round>,
    /// Over the commands of all rounds.
    pub(crate) latency: Percentiles,
    /// Of all rounds: quantile and microseconds.
    pub(crate) latency_curve: Vec<(f64, f64)>,
    pub(crate) summary: Summary,
    pub(crate) series: Option<SeriesReport>,
    pub(crate) histograms: Histograms,
    pub(crate) stages: Vec<Stage>,
    /// Commands of an open loop that were to begin and never did, as too many had no answer: counted
    /// with the latency that they had reached, so the true figures are worse.
    pub(crate) missed: u64,
    pub(crate) verification: Option<Verification>,
}

/// Latency and throughput over the seconds of load.
#[derive(Serialize)]
pub(crate) struct SeriesReport {
    pub(crate) interval_seconds: u64,
    pub(crate) points: Vec<Point>,
}

/// Microseconds and bytes, in bins.
#[derive(Serialize)]
pub(crate) struct Histograms {
    pub(crate) latency_us: Vec<Bin>,
    pub(crate) raw_sync_us: Vec<Bin>,
    /// Of the measured log, where it can be watched: the leader's, in a cluster in this process.
    pub(crate) log_write_us: Option<Vec<Bin>>,
    pub(crate) log_sync_us: Option<Vec<Bin>>,
    pub(crate) commit_bytes: Option<Vec<Bin>>,
}

/// A part of a command's way.
#[derive(Serialize)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) latency: Percentiles,
}

/// What the rounds left.
pub(crate) struct Measured {
    pub(crate) rounds: Vec<Round>,
    pub(crate) latencies: Latencies,
    pub(crate) raw: Latencies,
    pub(crate) series: Option<Series>,
    pub(crate) log_io: Option<LogIo>,
    /// What the nodes measured of a command's way.
    pub(crate) stages: StageCounts,
    pub(crate) missed: u64,
}

impl Measured {
    fn histograms(&self) -> Histograms {
        let io = self.log_io.as_ref();
        Histograms {
            latency_us: self.latencies.bins(1e3),
            raw_sync_us: self.raw.bins(1e3),
            log_write_us: io.map(|io| io.writes.bins(1e3)),
            log_sync_us: io.map(|io| io.syncs.bins(1e3)),
            commit_bytes: io.map(|io| io.commit_bytes.bins(1.0)),
        }
    }

    fn stages(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        let mut add = |name, latencies: &Latencies| {
            if latencies.count() > 0 {
                stages.push(Stage {
                    name,
                    latency: latencies.percentiles(),
                });
            }
        };
        let measured = self.stages.latencies();
        for (name, latencies) in &measured {
            add(*name, latencies);
        }
        if let Some(io) = self.log_io.as_ref().filter(|_| measured.is_empty()) {
            add("write", &io.writes);
            add("sync", &io.syncs);
        }
        add("whole request", &self.latencies);
        stages
    }
}

/// What was asked for.
#[derive(Clone, Serialize)]
pub(crate) struct Workload {
    pub(crate) what: String,
    pub(crate) nodes: u32,
    pub(crate) clients: u32,
    /// Commands per second of an open loop; `None`: closed.
    pub(crate) rate: Option<u64>,
    pub(crate) batch: u32,
    pub(crate) value_bytes: u32,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
}

/// One slice of load and the slice of raw writes that followed it.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) commands_per_second: f64,
    pub(crate) latency: Percentiles,
    /// Group commits per second of the measured log: the leader's, in a cluster.
    pub(crate) commits_per_second: f64,
    pub(crate) commit_bytes_mean: f64,
    pub(crate) commands_per_sync: f64,
    pub(crate) raw: RawSlice,
}

impl Round {
    /// Median latency of one request as a multiple of the raw write's of the same size.
    fn latency_ratio(&self) -> f64 {
        self.latency.p50_us / self.raw.latency.p50_us
    }

    /// Group commits per second as a share of what the raw disk does at the same size.
    fn rate_ratio(&self) -> f64 {
        self.commits_per_second / self.raw.syncs_per_second
    }
}

/// Medians over the rounds, with their range.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) commands_per_second: Spread,
    pub(crate) commands_per_sync: Spread,
    pub(crate) commit_bytes_mean: Spread,
    pub(crate) p50_us: Spread,
    pub(crate) p99_us: Spread,
    pub(crate) raw_p50_us: Spread,
    pub(crate) raw_syncs_per_second: Spread,
    pub(crate) latency_ratio: Spread,
    pub(crate) rate_ratio: Spread,
}

/// What became of the commands after the crash that ends every cluster run.
#[derive(Clone, Copy, Default, Serialize)]
pub(crate) struct Verification {
    pub(crate) nodes_checked: u32,
    pub(crate) leaders_killed: u32,
    pub(crate) acknowledged: u64,
    /// Acknowledged, and missing on some node.
    pub(crate) lost: u64,
    /// Applied with bytes that were never proposed, or twice.
    pub(crate) wrong: u64,
    /// Neither acknowledged nor refused: may be there or not.
    pub(crate) unknown: u64,
    pub(crate) recovery_ms: u64,
}

impl Verification {
    /// Is every acknowledged command where it must be?
    pub(crate) fn passed(&self) -> bool {
        self.lost == 0 && self.wrong == 0
    }
}

impl Report {
    /// A report of these rounds.
    pub(crate) fn new(
        facts: Facts,
        workload: Workload,
        measured: Measured,
        verification: Option<Verification>,
    ) -> Report {
        let histograms = measured.histograms();
        let stages = measured.stages();
        let series = measured.series.as_ref().map(|series| SeriesReport {
            interval_seconds: series.interval_seconds(),
            points: series.points(),
        });
        let rounds = measured.rounds;
        let over = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let summary = Summary {
            commands_per_second: over(|r| r.commands_per_second),
            commands_per_sync: over(|r| r.commands_per_sync),
            commit_bytes_mean: over(|r| r.commit_bytes_mean),
            p50_us: over(|r| r.latency.p50_us),
            p99_us: over(|r| r.latency.p99_us),
            raw_p50_us: over(|r| r.raw.latency.p50_us),
            raw_syncs_per_second: over(|r| r.raw.syncs_per_second),
            latency_ratio: over(Round::latency_ratio),
            rate_ratio: over(Round::rate_ratio),
        };
        let warning = if facts.durable {
            ""
        } else {
            "NOT DURABLE (folder is in memory): "
        };
        let title = format!("{warning}duraft bench {}", workload.what);
        Report {
            schema: SCHEMA,
            title,
            facts,
            workload,
            rounds,
            latency: measured.latencies.percentiles(),
            latency_curve: measured.latencies.curve(),
            summary,
            series,
            histograms,
            stages,
            missed: measured.missed,
            verification,
        }
    }

    /// Prints the result and, where asked for, writes the JSON file.
    pub(crate) fn publish(&self, load: &LoadArgs) -> Result<(), BenchError> {
        print(&self.to_string());
        if let Some(path) = &load.report {
            super::html::write(path, self)?;
        }
        match &load.json {
            Some(path) => self.write_json(path),
            None => Ok(()),
        }
    }

    fn write_json(&self, path: &Path) -> Result<(), BenchError> {
        write_json(path, self).map_err(|source| BenchError::Json {
            path: path.to_path_buf(),
            source,
        })
    }
}

/// Results go to standard output.
#[allow(clippy::print_stdout)]
fn print(text: &str) {
    print!("{text}");
}

impl std::fmt::Display for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "  recovery check   {} nodes reopened in {} ms, {} leaders killed under load",
            self.nodes_checked, self.recovery_ms, self.leaders_killed
        )?;
        writeln!(
            f,
            "  acknowledged {}   lost {}   wrong {}   unknown {}",
            self.acknowledged, self.lost, self.wrong, self.unknown
        )?;
        let verdict = if self.passed() {
            "every acknowledged command is there"
        } else {
            "FAILED"
        };
        writeln!(f, "  verdict          {verdict}")
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let w = &self.workload;
        let s = &self.summary;
        let mut text = String::new();
        writeln!(text, "{}", self.title)?;
        writeln!(text, "  machine          {}", self.facts)?;
        if w.what != "disk" {
            writeln!(
                text,
                "  load             {}{} clients, batch {}, {} byte values, {} s in {} rounds, seed {}",
                w.rate.map_or(String::from("closed loop, "), |rate| format!(
                    "open loop at {rate} commands/s, at most "
                )),
                w.clients,
                w.batch,
                w.value_bytes,
                w.seconds,
                self.rounds.len(),
                w.seed
            )?;
            writeln!(text, "  commands/s       {}", s.commands_per_second)?;
            writeln!(text, "  latency          {}", self.latency)?;
            if self.missed > 0 {
                writeln!(
                    text,
                    "  NOT KEPT         {} commands never began: the rate is more than this can do, and the \
                     latencies are at least as long",
                    self.missed
                )?;
            }
            for stage in &self.stages {
                writeln!(text, "    {:<14} {}", stage.name, stage.latency)?;
            }
            writeln!(
                text,
                "  commands/fsync   {}   bytes/fsync {}",
                s.commands_per_sync, s.commit_bytes_mean
            )?;
        }
        if let Some(last) = self.rounds.last() {
            writeln!(
                text,
                "  raw disk         {} bytes pwrite+fdatasync: {}",
                last.raw.bytes, last.raw.latency
            )?;
        }
        writeln!(text, "  raw syncs/s      {}", s.raw_syncs_per_second)?;
        if w.what != "disk" {
            writeln!(
                text,
                "  latency / raw    {}   (p50 over raw p50, same run)",
                s.latency_ratio
            )?;
            writeln!(
                text,
                "  rate / raw       {}   (group commits over raw syncs)",
                s.rate_ratio
            )?;
        }
        if let Some(verification) = &self.verification {
            write!(text, "{verification}")?;
        }
        f.write_str(&text)
    }
}
