//! Runs one seed and prints everything that happened: `replay SEED TICKS`.
#![allow(clippy::print_stdout)]

use duraft_sim::{Sim, SimConfig};
use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let [seed, ticks] = numbers[..] else {
        println!("usage: replay SEED TICKS");
        return ExitCode::from(2);
    };
    let mut config = SimConfig::from_seed(seed);
    config.trace = true;
    println!("{config:?}");
    match Sim::new(config).run(ticks) {
        Ok(report) => {
            report.trace.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            println!("violated: {}", violation.what);
            ExitCode::FAILURE
        }
    }
}
