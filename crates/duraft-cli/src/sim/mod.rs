//! `duraft sim`: whole clusters in virtual time, from seeds.
//!
//! Exit codes: 0 nothing was found; 1 a check was violated, a seed did not take the same course twice,
//! or a swarm met too few of its hazards; 2 the command could not run.

mod args;
mod error;
mod result;
mod swarm;

pub(crate) use args::SimArgs;

use args::{Format, ReplayArgs, RunArgs, ShowArgs, ShrinkArgs, What};
use duraft_sim::show::{Picture, html, perfetto, shiviz};
use duraft_sim::{Scenario, Violation};
use error::SimError;
use result::{RunResult, Stopwatch, write_json};
use std::process::ExitCode;

/// Does what was asked for.
pub(crate) fn run(args: &SimArgs) -> Result<ExitCode, SimError> {
    match &args.what {
        What::Run(args) => run_one(args),
        What::Swarm(args) => swarm::run(args),
        What::Replay(args) => replay(args),
        What::Shrink(args) => shrink(args),
        What::Tally(args) => swarm::tally(args),
        What::Show(args) => show(args),
    }
}

fn run_one(args: &RunArgs) -> Result<ExitCode, SimError> {
    let scenario = checked(args.which.scenario())?;
    let watch = Stopwatch::start();
    let outcome = scenario.run();
    let took = watch.read();
    let violation = outcome.as_ref().err();
    if let Some(violation) = violation {
        print(&found(&scenario, violation));
    }
    let result = RunResult::new(&scenario, outcome.as_ref().map_err(|v| &**v), took)?;
    if violation.is_none() {
        print(&result.to_string());
    }
    if let Some(path) = &args.json {
        write_json(path, &result)?;
    }
    Ok(code(violation.is_some()))
}

fn replay(args: &ReplayArgs) -> Result<ExitCode, SimError> {
    let scenario = checked(args.which.scenario())?;
    let outcome = scenario.run_traced();
    let trace = match &outcome {
        Ok(report) => &report.trace,
        Err(violation) => &violation.trace,
    };
    if !args.quiet {
        for event in trace {
            print(&event.to_string());
        }
    }
    match &outcome {
        Ok(report) => {
            let hash = report.trace_hash;
            print(&format!(
                "seed {}: no violation; trace {hash:016x}",
                report.seed
            ));
        }
        Err(violation) => print(&found(&scenario, violation)),
    }
    Ok(code(outcome.is_err()))
}

fn shrink(args: &ShrinkArgs) -> Result<ExitCode, SimError> {
    let scenario = checked(args.which.scenario())?;
    let run = |scenario: &Scenario| {
        let possible = scenario.config().problems().is_empty();
        let violation = possible.then(|| scenario.run().err()).flatten()?;
        print(&format!("{} ticks: {}", scenario.ticks, violation.what));
        Some(*violation)
    };
    let Some(shrunk) = duraft_sim::shrink(&scenario, args.runs_max, run) else {
        print(&format!("seed {}: no violation", scenario.seed));
        return Ok(ExitCode::SUCCESS);
    };
    let config = shrunk.scenario.config();
    let occurrences = shrunk.scenario.only.as_ref().map_or(0, |only| only.len());
    print(&format!(
        "after {} runs: {} nodes, {} ticks, {} kinds of trouble left out, {occurrences} occurrences left",
        shrunk.runs,
        config.nodes,
        shrunk.scenario.ticks,
        shrunk.scenario.without.len(),
    ));
    print(&found(&shrunk.scenario, &shrunk.violation));
    Ok(ExitCode::FAILURE)
}

fn show(args: &ShowArgs) -> Result<ExitCode, SimError> {
    let scenario = checked(args.which.scenario())?;
    let outcome = scenario.run_traced();
    let (trace, verdict) = match &outcome {
        Ok(report) => (&report.trace, "no violation".to_string()),
        Err(violation) => (&violation.trace, format!("VIOLATION: {violation}")),
    };
    let picture = Picture {
        trace,
        title: &format!("duraft sim show {scenario}"),
        verdict: &verdict,
        nodes: scenario.config().pool,
    };
    let text = match args.format {
        Format::Html => html(&picture),
        Format::Shiviz => shiviz(&picture),
        Format::Perfetto => perfetto(&picture),
    };
    std::fs::write(&args.out, &text).map_err(|source| SimError::Write {
        path: args.out.clone(),
        source,
    })?;
    let (path, events) = (args.out.display(), trace.len());
    print(&format!(
        "{verdict}\n{events} events, {} bytes in '{path}'",
        text.len()
    ));
    Ok(ExitCode::SUCCESS)
}

/// A scenario that can be run at all.
fn checked(scenario: Scenario) -> Result<Scenario, SimError> {
    let problems = scenario.config().problems();
    if problems.is_empty() {
        Ok(scenario)
    } else {
        Err(SimError::Scenario(problems.join("; ")))
    }
}

/// What was found, and the one command that shows it again.
fn found(scenario: &Scenario, violation: &Violation) -> String {
    format!("VIOLATION: {violation}\n  again: duraft sim replay {scenario}")
}

fn code(found: bool) -> ExitCode {
    ExitCode::from(u8::from(found))
}

/// Results go to standard output.
#[allow(clippy::print_stdout)]
fn print(text: &str) {
    println!("{}", text.trim_end());
}
