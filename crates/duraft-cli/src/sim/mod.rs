//! `duraft sim`: whole clusters in virtual time, from seeds.
//!
//! Exit codes: 0 nothing was found; 1 a check was violated, a seed did not take the same course twice,
//! or a swarm met too few of its hazards; 2 the command could not run.

mod args;
mod error;
mod result;
mod swarm;

pub(crate) use args::SimArgs;

use args::{ReplayArgs, RunArgs, What};
use duraft_sim::{Scenario, Violation};
use error::SimError;
use result::{RunResult, write_json};
use std::process::ExitCode;
use std::time::Instant;

/// Does what was asked for.
pub(crate) fn run(args: &SimArgs) -> Result<ExitCode, SimError> {
    match &args.what {
        What::Run(args) => run_one(args),
        What::Swarm(args) => swarm::run(args),
        What::Replay(args) => replay(args),
    }
}

fn run_one(args: &RunArgs) -> Result<ExitCode, SimError> {
    let scenario = checked(args.which.scenario())?;
    let begin = Instant::now();
    let outcome = scenario.run();
    let seconds = begin.elapsed().as_secs_f64();
    let violation = outcome.as_ref().err();
    if let Some(violation) = violation {
        print(&found(&scenario, violation));
    }
    let result = RunResult::new(&scenario, outcome.as_ref().map_err(|v| &**v), seconds)?;
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
