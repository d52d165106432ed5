//! Results as text and as JSON: what was run, on what machine, how fast, and what happened in it.

use super::error::SimError;
use crate::bench::Facts;
use duraft_sim::{Report, Scenario, SimConfig, Violation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Instant;

/// Version of the JSON layout.
const SCHEMA: u32 = 1;

/// How fast virtual time went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// Seconds on the clock of this machine.
    pub(crate) seconds: f64,
    /// Seconds of one core that this thread was given.
    pub(crate) cpu_seconds: f64,
    /// Seconds of virtual time, with the default tick.
    pub(crate) simulated_seconds: f64,
    /// Virtual over processor time.
    pub(crate) times_real_time: f64,
    /// Events, each checked, per second of processor time.
    pub(crate) steps_per_second: f64,
    /// Which checks were made.
    pub(crate) checks: String,
}

impl Rate {
    pub(crate) fn new((ticks, events): (u64, u64), took: Took, checks: String) -> Rate {
        let cpu_seconds = took.cpu_seconds.max(1e-9);
        let count = |n: u64| n as f64;
        let simulated = count(ticks) * SimConfig::TICK_SECONDS;
        Rate {
            seconds: took.seconds,
            cpu_seconds,
            simulated_seconds: simulated,
            times_real_time: simulated / cpu_seconds,
            steps_per_second: count(events) / cpu_seconds,
            checks,
        }
    }

    /// Another part of the same, done at the same time.
    pub(crate) fn add(&mut self, other: &Rate) {
        let steps = |rate: &Rate| rate.steps_per_second * rate.cpu_seconds;
        let steps = steps(self) + steps(other);
        self.seconds = self.seconds.max(other.seconds);
        self.cpu_seconds += other.cpu_seconds;
        self.simulated_seconds += other.simulated_seconds;
        self.times_real_time = self.simulated_seconds / self.cpu_seconds;
        self.steps_per_second = steps / self.cpu_seconds;
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} simulated seconds in {:.1} s, {:.1} s of one core: {:.0} times real time, \
             {:.0} checked steps/s ({})",
            self.simulated_seconds,
            self.seconds,
            self.cpu_seconds,
            self.times_real_time,
            self.steps_per_second,
            self.checks
        )
    }
}

/// A clock of this machine and one of the processor time of this thread.
pub(crate) struct Stopwatch {
    begin: Instant,
    cpu: f64,
}

/// What a [`Stopwatch`] shows.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    seconds: f64,
    cpu_seconds: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch {
            begin: Instant::now(),
            cpu: thread_cpu_seconds(),
        }
    }

    pub(crate) fn read(&self) -> Took {
        Took {
            seconds: self.begin.elapsed().as_secs_f64(),
            cpu_seconds: thread_cpu_seconds() - self.cpu,
        }
    }
}

fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A violation in a result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) seed: u64,
    pub(crate) tick: u64,
    pub(crate) what: String,
    pub(crate) replay: String,
}

impl Found {
    pub(crate) fn new(scenario: &Scenario, violation: &Violation) -> Found {
        Found {
            seed: violation.seed,
            tick: violation.tick,
            what: violation.what.clone(),
            replay: format!("duraft sim replay {scenario}"),
        }
    }
}

/// The result of one run.
#[derive(Serialize)]
pub(crate) struct RunResult {
    schema: u32,
    title: &'static str,
    facts: Facts,
    scenario: String,
    rate: Option<Rate>,
    trace_hash: Option<String>,
    violation: Option<Found>,
    counts: BTreeMap<&'static str, u64>,
}

impl RunResult {
    pub(crate) fn new(
        scenario: &Scenario,
        outcome: Result<&Report, &Violation>,
        took: Took,
    ) -> Result<RunResult, SimError> {
        let report = outcome.ok();
        Ok(RunResult {
            schema: SCHEMA,
            title: "duraft sim run",
            facts: facts()?,
            scenario: scenario.to_string(),
            rate: report.map(|report| {
                let checks = match (scenario.cheap, scenario.sparse) {
                    (true, _) => "cheap checks",
                    (false, true) => "recovery at crashes",
                    (false, false) => "recovery at every promise",
                };
                Rate::new((report.ticks, report.events), took, checks.into())
            }),
            trace_hash: report.map(|report| format!("{:016x}", report.trace_hash)),
            violation: outcome.err().map(|v| Found::new(scenario, v)),
            counts: report.map_or_else(BTreeMap::new, |r| r.counts().into_iter().collect()),
        })
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.title, self.scenario)?;
        writeln!(f, "  machine          {}", self.facts)?;
        if let Some(rate) = &self.rate {
            writeln!(f, "  rate             {rate}")?;
        }
        if let Some(hash) = &self.trace_hash {
            writeln!(f, "  trace            {hash}")?;
        }
        for (what, count) in &self.counts {
            writeln!(f, "{count:>12} {what}")?;
        }
        Ok(())
    }
}

pub(crate) fn facts() -> Result<Facts, SimError> {
    Facts::read(Path::new(".")).map_err(SimError::Facts)
}

pub(crate) fn write_json(path: &Path, result: &impl Serialize) -> Result<(), SimError> {
    crate::output::write_json(path, result).map_err(|source| SimError::Write {
        path: path.to_path_buf(),
        source,
    })
}
