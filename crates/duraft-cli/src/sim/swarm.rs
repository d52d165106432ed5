//! Many seeds, one after the other.

use super::args::SwarmArgs;
use super::error::SimError;
use super::result::{Found, Rate, Stopwatch, Took, facts, write_json};
use super::{checked, code, found, print};
use crate::bench::Facts;
use duraft_sim::{Report, Scenario, Shortfall, shortfalls};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The result of a swarm, or of one part of it.
#[derive(Serialize)]
struct SwarmResult {
    schema: u32,
    title: &'static str,
    facts: Facts,
    from: u64,
    seeds: u64,
    shard: String,
    ticks: u64,
    seeds_run: u64,
    seeds_run_twice: u64,
    /// Seeds whose second run took another course.
    not_repeatable: Vec<u64>,
    rate: Rate,
    violations: Vec<Found>,
    /// Hazards that were met too rarely for these seeds to say anything.
    too_rare: Vec<String>,
    unhealed_why: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// Runs all seeds of the part that was asked for.
pub(super) fn run(args: &SwarmArgs) -> Result<ExitCode, SimError> {
    let mut swarm = Swarm::default();
    let watch = Stopwatch::start();
    let mut told = Instant::now();
    let shard = args.shard;
    for at in (shard.part - 1..args.seeds).step_by(usize::try_from(shard.of).unwrap_or(usize::MAX))
    {
        let scenario = checked(args.how.scenario(args.from.saturating_add(at)))?;
        swarm.run(&scenario, args.twice_every);
        if told.elapsed() >= Duration::from_secs(30) {
            told = Instant::now();
            print(&swarm.progress());
        }
        if swarm.violations.len() as u64 >= args.violations_max {
            break;
        }
    }
    let rare = if args.how.is_whole() {
        shortfalls(&swarm.sum, swarm.seeds)
    } else {
        Vec::new()
    };
    let result = swarm.result(args, watch.read(), &rare)?;
    print(&result.to_string());
    if let Some(path) = &args.json {
        write_json(path, &result)?;
    }
    Ok(code(result.is_bad()))
}

/// What the seeds have shown so far.
#[derive(Default)]
struct Swarm {
    seeds: u64,
    twice: u64,
    not_repeatable: Vec<u64>,
    violations: Vec<Found>,
    sum: Report,
}

impl Swarm {
    fn run(&mut self, scenario: &Scenario, twice_every: u64) {
        let outcome = scenario.run();
        let again = twice_every > 0 && self.seeds.is_multiple_of(twice_every);
        self.seeds += 1;
        if again {
            self.twice += 1;
            if scenario.run() != outcome {
                self.not_repeatable.push(scenario.seed);
                print(&format!("seed {} took two courses", scenario.seed));
            }
        }
        match outcome {
            Ok(report) => self.sum.add(&report),
            Err(violation) => {
                print(&found(scenario, &violation));
                self.violations.push(Found::new(scenario, &violation));
            }
        }
    }

    fn progress(&self) -> String {
        let sum = &self.sum;
        format!(
            "{} seeds: {} violations, {} events, {} crashes, {} promises checked",
            self.seeds,
            self.violations.len(),
            sum.events,
            sum.crashes,
            sum.promises
        )
    }

    fn result(
        self,
        args: &SwarmArgs,
        took: Took,
        rare: &[Shortfall],
    ) -> Result<SwarmResult, SimError> {
        Ok(SwarmResult {
            schema: 1,
            title: "duraft sim swarm",
            facts: facts()?,
            from: args.from,
            seeds: args.seeds,
            shard: args.shard.to_string(),
            ticks: args.how.ticks,
            seeds_run: self.seeds,
            seeds_run_twice: self.twice,
            not_repeatable: self.not_repeatable,
            rate: Rate::new(&self.sum, took, args.how.cheap),
            violations: self.violations,
            too_rare: rare.iter().map(Shortfall::to_string).collect(),
            unhealed_why: self.sum.unhealed_why.clone(),
            counts: self.sum.counts().into_iter().collect(),
        })
    }
}

impl SwarmResult {
    fn is_bad(&self) -> bool {
        !(self.violations.is_empty() && self.not_repeatable.is_empty() && self.too_rare.is_empty())
    }
}

impl fmt::Display for SwarmResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:>12} {what}")?;
        }
        for why in &self.unhealed_why {
            writeln!(f, "not healed: {why}")?;
        }
        for rare in &self.too_rare {
            writeln!(f, "VOID: {rare}")?;
        }
        writeln!(
            f,
            "{}: {} of {} seeds from {}, shard {}, {} ticks each; {} run twice",
            self.title,
            self.seeds_run,
            self.seeds,
            self.from,
            self.shard,
            self.ticks,
            self.seeds_run_twice
        )?;
        writeln!(f, "  machine          {}", self.facts)?;
        writeln!(f, "  rate             {}", self.rate)?;
        writeln!(
            f,
            "  verdict          {} violations, {} seeds with two courses, {} hazards met too rarely",
            self.violations.len(),
            self.not_repeatable.len(),
            self.too_rare.len()
        )
    }
}
