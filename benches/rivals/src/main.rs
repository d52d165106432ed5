//! Other logs and other Rafts beside duraft, on the same workloads, in one interleaved run.
//!
//! Rounds go over all workloads, and over all rivals within each: everybody meets the disk in the same
//! mood, and ratios are taken within a round. What is measured, and what the figures are not, says
//! docs/rivals.md.

mod clusters;
mod logs;
mod machine;
mod syncs;
mod table;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Other logs and other Rafts beside duraft.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Logs: appends, many appenders, opening after a crash, cutting.
    Logs(Options),
    /// Clusters: three durable nodes in one process, with 1, 64 and 1024 clients.
    Clusters(Options),
    /// Counts the syncs and writes of each log per durable batch; needs strace.
    Syncs(Options),
    /// Appends batches to a log and ends like a crash.
    #[command(hide = true)]
    Fill(FillArgs),
}

/// What is run, and where.
#[derive(Args, Clone)]
pub(crate) struct Options {
    /// How often everything is run.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Length of a slice of load, in seconds; a third of it runs before without being counted.
    #[arg(long, default_value_t = 0.6)]
    pub(crate) seconds: f64,
    /// A folder on the disk to be measured; one is made in it, and removed.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Only these rivals.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Only these workloads.
    #[arg(long, value_delimiter = ',')]
    pub(crate) workload: Vec<String>,
    /// Write every figure of every round to this file.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Is this name among those asked for?
    pub(crate) fn wants(asked: &[String], name: &str) -> bool {
        asked.is_empty() || asked.iter().any(|one| one == name)
    }
}

#[derive(Args)]
pub(crate) struct FillArgs {
    pub(crate) rival: String,
    pub(crate) dir: PathBuf,
    pub(crate) batches: u64,
    pub(crate) batch: usize,
    pub(crate) value_bytes: usize,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Logs(options) => logs::workloads::run(&options),
        Command::Clusters(options) => clusters::run(&options),
        Command::Syncs(options) => syncs::run(&options),
        Command::Fill(args) => logs::workloads::fill(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
