//! Many seeds, one after the other, in parts where there are several cores.

use super::args::{Shard, SwarmArgs, TallyArgs};
use super::error::SimError;
use super::result::{Found, Rate, Stopwatch, Took, facts, write_json};
use super::{checked, code, found, print};
use duraft_core::mix64;
use duraft_sim::{Report, Scenario, Shortfall, shortfalls};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Reasons for nodes that were not healed which a result keeps in words.
const REASONS_MAX: usize = 10;

/// What two parts of one swarm have in common.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Plan {
    from: u64,
    seeds: u64,
    ticks: u64,
    /// One of so many seeds runs recovery at every promise.
    recover_every: u64,
    /// The other flags.
    flags: String,
    /// Everything is drawn and checked, so hazards must be met.
    whole: bool,
}

/// The result of a swarm, or of one part of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SwarmResult {
    schema: u32,
    title: String,
    facts: serde_json::Value,
    machine: String,
    #[serde(flatten)]
    plan: Plan,
    shard: String,
    seeds_run: u64,
    /// Seeds with recovery at every promise.
    seeds_recovering: u64,
    seeds_run_twice: u64,
    /// Seeds whose second run took another course.
    not_repeatable: Vec<u64>,
    rate: Rate,
    violations: Vec<Found>,
    /// Hazards that were met too rarely for these seeds to say anything.
    too_rare: Vec<String>,
    unhealed_why: Vec<String>,
    counts: BTreeMap<String, u64>,
}

/// Runs all seeds of the part that was asked for.
pub(super) fn run(args: &SwarmArgs) -> Result<ExitCode, SimError> {
    let mut swarm = Swarm::default();
    let watch = Stopwatch::start();
    let mut told = Instant::now();
    let Shard { part, of } = args.shard;
    let mine = (part - 1..args.seeds).step_by(usize::try_from(of).unwrap_or(usize::MAX));
    let all = mine.clone().count();
    for at in mine {
        let seed = args.from.saturating_add(at);
        let mut scenario = args.how.scenario(seed);
        // Drawn, so that it does not depend on how the swarm is cut into parts.
        scenario.sparse |= !mix64(seed).is_multiple_of(args.recover_every);
        swarm.run(&checked(scenario)?, args.twice_every);
        if told.elapsed() >= Duration::from_secs(30) {
            told = Instant::now();
            say_progress(&swarm.progress(all));
        }
        if swarm.violations.len() as u64 >= args.violations_max {
            break;
        }
    }
    let result = swarm.result(args, watch.read())?;
    finish(&result, args.json.as_deref())
}

/// Adds the parts of a swarm up.
pub(super) fn tally(args: &TallyArgs) -> Result<ExitCode, SimError> {
    let mut parts = Vec::new();
    for path in &args.parts {
        let bytes = std::fs::read(path).map_err(|source| SimError::Read {
            path: path.clone(),
            source,
        })?;
        let part: SwarmResult =
            serde_json::from_slice(&bytes).map_err(|source| SimError::NoResult {
                path: path.clone(),
                source,
            })?;
        parts.push(part);
    }
    finish(&whole(parts)?, args.json.as_deref())
}

fn finish(result: &SwarmResult, json: Option<&Path>) -> Result<ExitCode, SimError> {
    print(&result.to_string());
    if let Some(path) = json {
        write_json(path, result)?;
    }
    Ok(code(result.is_bad()))
}

/// What the seeds have shown so far.
#[derive(Default)]
struct Swarm {
    seeds: u64,
    recovering: u64,
    twice: u64,
    not_repeatable: Vec<u64>,
    violations: Vec<Found>,
    sum: Report,
    /// Ticks and events, those of second runs included.
    done: (u64, u64),
}

impl Swarm {
    fn run(&mut self, scenario: &Scenario, twice_every: u64) {
        let outcome = scenario.run();
        let again = twice_every > 0 && self.seeds.is_multiple_of(twice_every);
        self.seeds += 1;
        self.recovering += u64::from(!scenario.sparse && !scenario.cheap);
        if again {
            self.twice += 1;
            let second = scenario.run();
            self.count(second.as_ref().ok());
            if second != outcome {
                self.not_repeatable.push(scenario.seed);
                print(&format!("seed {} took two courses", scenario.seed));
            }
        }
        self.count(outcome.as_ref().ok());
        match outcome {
            Ok(report) => {
                self.sum.add(&report);
                self.sum.unhealed_why.truncate(REASONS_MAX);
            }
            Err(violation) => {
                print(&found(scenario, &violation));
                self.violations.push(Found::new(scenario, &violation));
            }
        }
    }

    fn count(&mut self, report: Option<&Report>) {
        let (ticks, events) = self.done;
        let (more, others) = report.map_or((0, 0), |report| (report.ticks, report.events));
        self.done = (ticks + more, events + others);
    }

    fn progress(&self, of: usize) -> String {
        let sum = &self.sum;
        format!(
            "{} of {of} seeds: {} violations, {} events, {} crashes, {} promises checked",
            self.seeds,
            self.violations.len(),
            sum.events,
            sum.crashes,
            sum.promises
        )
    }

    fn result(self, args: &SwarmArgs, took: Took) -> Result<SwarmResult, SimError> {
        let facts = facts()?;
        let counts = self.sum.counts().into_iter();
        let checks = match (self.recovering, args.how.cheap) {
            (_, true) => "cheap checks".into(),
            (all, _) if all == self.seeds => "recovery at every promise".into(),
            (some, _) => format!(
                "recovery at every promise in {some} seeds of {}",
                self.seeds
            ),
        };
        let mut result = SwarmResult {
            schema: 2,
            title: "duraft sim swarm".into(),
            machine: facts.to_string(),
            facts: serde_json::to_value(&facts).map_err(SimError::Json)?,
            plan: Plan {
                from: args.from,
                seeds: args.seeds,
                ticks: args.how.ticks,
                recover_every: args.recover_every,
                flags: args.how.flags(),
                whole: args.how.is_whole(),
            },
            shard: args.shard.to_string(),
            seeds_run: self.seeds,
            seeds_recovering: self.recovering,
            seeds_run_twice: self.twice,
            not_repeatable: self.not_repeatable,
            rate: Rate::new(self.done, took, checks),
            violations: self.violations,
            too_rare: Vec::new(),
            unhealed_why: self.sum.unhealed_why.clone(),
            counts: counts.map(|(name, n)| (name.to_string(), n)).collect(),
        };
        result.judge_hazards();
        Ok(result)
    }
}

/// All parts of one swarm as one. Times of the clock are those of the part that took longest.
fn whole(parts: Vec<SwarmResult>) -> Result<SwarmResult, SimError> {
    let unlike = |why: &str| SimError::Parts(why.to_string());
    let mut parts = parts.into_iter();
    let mut sum = parts.next().ok_or_else(|| unlike("there is none"))?;
    let shard = |of: &SwarmResult| of.shard.parse::<Shard>().map_err(unlike);
    let of = shard(&sum)?.of;
    let mut seen = BTreeSet::from([shard(&sum)?.part]);
    for part in parts {
        if part.plan != sum.plan || shard(&part)?.of != of {
            return Err(unlike("they are of different swarms"));
        }
        if !seen.insert(shard(&part)?.part) {
            return Err(SimError::Parts(format!("{} is there twice", part.shard)));
        }
        sum.seeds_run += part.seeds_run;
        sum.seeds_recovering += part.seeds_recovering;
        sum.seeds_run_twice += part.seeds_run_twice;
        sum.not_repeatable.extend(part.not_repeatable);
        sum.violations.extend(part.violations);
        sum.unhealed_why.extend(part.unhealed_why);
        sum.unhealed_why.truncate(REASONS_MAX);
        sum.rate.add(&part.rate);
        for (name, count) in part.counts {
            let extreme = Report::is_extreme(&name);
            let total = sum.counts.entry(name).or_default();
            *total = match extreme {
                true => (*total).max(count),
                false => *total + count,
            };
        }
    }
    if let Some(missing) = (1..=of).find(|part| !seen.contains(part)) {
        return Err(SimError::Parts(format!("{missing}/{of} is missing")));
    }
    sum.shard = "1/1".into();
    sum.rate.checks = format!(
        "recovery at every promise in {} seeds of {}",
        sum.seeds_recovering, sum.seeds_run
    );
    sum.judge_hazards();
    Ok(sum)
}

impl SwarmResult {
    fn judge_hazards(&mut self) {
        let rare = match self.plan.whole {
            true => shortfalls(self.seeds_run, self.seeds_recovering, |name| {
                self.counts.get(name).copied()
            }),
            false => Vec::new(),
        };
        self.too_rare = rare.iter().map(Shortfall::to_string).collect();
    }

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
            "{}{}: {} of {} seeds from {}, shard {}, {} ticks each; {} run twice",
            self.title,
            self.plan.flags,
            self.seeds_run,
            self.plan.seeds,
            self.plan.from,
            self.shard,
            self.plan.ticks,
            self.seeds_run_twice
        )?;
        writeln!(f, "  machine          {}", self.machine)?;
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

/// What goes on is said beside the result.
#[allow(clippy::print_stderr)]
fn say_progress(text: &str) {
    eprintln!("{text}");
}
