//! Walks every state of a small cluster of real cores.
//!
//! ```text
//! explore NODES TERMS COMMANDS CRASHES [BEATS [WORLDS_MAX]] [pre-vote] [deep] [logs=1,2,2/1,1,1,1]
//! ```
//!
//! `logs` are the terms of the entries that the nodes begin with.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use duraft_sim::explore::{Explorer, Options};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let small = |at: usize| numbers.get(at).and_then(|n| u8::try_from(*n).ok());
    let (Some(nodes), Some(terms)) = (numbers.first(), numbers.get(1)) else {
        eprintln!(
            "usage: explore NODES TERMS COMMANDS CRASHES [BEATS [WORLDS_MAX]] [pre-vote] [deep] [logs=1,2,2/1,1,1,1]"
        );
        return ExitCode::from(2);
    };
    let mut options = Options::new(*nodes, *terms, small(2).unwrap_or(0), small(3).unwrap_or(0));
    options.beats = small(4).unwrap_or(0);
    options.pre_vote = words.iter().any(|word| word == "pre-vote");
    options.deep = words.iter().any(|word| word == "deep");
    let logs = words.iter().find_map(|word| word.strip_prefix("logs="));
    let terms = |log: &str| {
        log.split(',')
            .filter_map(|term| term.parse().ok())
            .collect()
    };
    options.logs = logs.map_or(Vec::new(), |logs| logs.split('/').map(terms).collect());
    if let Some(most) = numbers.get(5) {
        options.worlds_max = usize::try_from(*most).unwrap_or(usize::MAX);
    }
    println!("{options:?}");
    let begun = Instant::now();
    let found = Explorer::new(options).map(|mut explorer| explorer.run());
    let seconds = begun.elapsed().as_secs_f64();
    match found {
        Ok(Ok(found)) => {
            println!("{found:#?}\n{seconds:.1} s");
            ExitCode::SUCCESS
        }
        Ok(Err(stop)) => {
            println!("{stop}\n{seconds:.1} s");
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("{}", failure.what);
            ExitCode::FAILURE
        }
    }
}
