//! Runs many seeds: `swarm FIRST COUNT TICKS`. Prints the violations and one line per hundred seeds;
//! exits with 1 if there was a violation. Shards are ranges of seeds.
#![allow(clippy::print_stdout)]

use duraft_sim::{Report, Sim, SimConfig};
use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let [first, count, ticks] = numbers[..] else {
        println!("usage: swarm FIRST COUNT TICKS");
        return ExitCode::from(2);
    };
    let mut violations = 0;
    let mut sum = Report::default();
    for seed in first..first.saturating_add(count) {
        match Sim::new(SimConfig::from_seed(seed)).run(ticks) {
            Ok(report) => sum.add(&report),
            Err(violation) => {
                violations += 1;
                println!("{violation}");
            }
        }
        if (seed - first) % 100 == 99 {
            println!(
                "seeds {first} to {seed}: {violations} violations, {} events, {} crashes, \
                 {} promises checked",
                sum.events, sum.crashes, sum.promises
            );
        }
    }
    for why in &sum.unhealed_why {
        println!("not healed: {why}");
    }
    for (what, count) in sum.counts() {
        println!("{count:>12} {what}");
    }
    ExitCode::from(u8::from(violations > 0))
}
