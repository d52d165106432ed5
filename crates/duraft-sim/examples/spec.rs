//! Walks the executable specification: all states of a scope, or all states and edges in words for the
//! comparison with TLC.
//!
//! ```text
//! spec states NODES TERMS LEN CRASHES [coarse]    every state, up to the names of nodes, checked
//! spec graph  NODES TERMS LEN CRASHES [coarse]    prints "S state" and "E state action state"
//! spec states|graph NODES TERMS LEN CRASHES snapshots    the same of the specification with snapshots
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use duraft_sim::spec::enumerate::{Bounds, Space};
use duraft_sim::spec::snapshots::Snapshots;
use duraft_sim::spec::walk::Walk;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Option<Vec<u64>> = words
        .iter()
        .skip(1)
        .take(4)
        .map(|w| w.parse().ok())
        .collect();
    let Some([nodes, terms, len, crashes]) = numbers.as_deref() else {
        eprintln!("usage: spec states|graph NODES TERMS LEN CRASHES [coarse]");
        return ExitCode::from(2);
    };
    let bounds = Bounds {
        nodes: *nodes,
        terms: *terms,
        len: *len,
        crashes: *crashes,
        coarse: words.get(5).is_some_and(|word| word == "coarse"),
    };
    let snapshots = words.get(5).is_some_and(|word| word == "snapshots");
    let mut space = Space::new(bounds);
    let mut files = Snapshots::new(bounds);
    if words[0] == "graph" {
        let (states, edges) = if snapshots {
            files.graph()
        } else {
            space.graph()
        };
        let mut out = std::io::stdout().lock();
        for (kind, lines) in [("S", states), ("E", edges)] {
            for line in lines {
                if writeln!(out, "{kind} {line}").is_err() {
                    return ExitCode::FAILURE;
                }
            }
        }
        return ExitCode::SUCCESS;
    }
    let begun = Instant::now();
    let states = if snapshots {
        files.exhaust()
    } else {
        space.exhaust()
    };
    match states {
        Ok(states) => {
            println!(
                "{states} states, no violation, {:.1} s",
                begun.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("{broken}");
            ExitCode::FAILURE
        }
    }
}
