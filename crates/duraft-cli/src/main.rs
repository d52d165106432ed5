//! The command line of duraft.
#![forbid(unsafe_code)]

mod bench;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A durable Raft: benchmarks and tools.
#[derive(Parser)]
#[command(name = "duraft", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a cluster, the log alone or the disk below it, next to raw fdatasync figures.
    Bench(bench::BenchArgs),
    /// One node of `bench cluster --processes`, spoken to over standard input and output.
    #[command(hide = true)]
    BenchNode(bench::ChildArgs),
}

/// Exit codes: 0 done and nothing lost, 1 an acknowledged command is missing, 2 could not run.
fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::BenchNode(args) => bench::run_child(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // The one place where the program speaks of failure; results go to standard output.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("duraft: {error}");
            }
            ExitCode::from(2)
        }
    }
}
