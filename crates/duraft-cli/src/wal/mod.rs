//! `duraft wal`: what stands in a store's log, whether all of it can be read, what it costs, and what
//! is left of it when something is lost.
//!
//! Everything but `repair --to` only reads, through handles that cannot write, and takes no lock: a
//! node may be running on the store. See `duraft_storage::inspect` for how damage is told from a
//! write that happens at the same time.

pub(crate) mod decoder;
mod dump;
pub(crate) mod folder;
mod repair;
mod stats;
pub(crate) mod text;
mod verify;

use clap::{Args, Subcommand};
use duraft_disk::DiskError;
use duraft_storage::OpenError;
use duraft_storage::inspect::{Settled, View};
use folder::ReadFolder;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Most looks at a store that changes while it is read.
const LOOKS: usize = 12;

/// Flags of `duraft wal`.
#[derive(Args)]
pub(crate) struct WalArgs {
    #[command(subcommand)]
    command: WalCommand,
}

#[derive(Subcommand)]
enum WalCommand {
    /// Show what stands in the log: a line per batch, or with --raw per record as it stands on disk.
    ///
    /// Reads only and takes no lock: a node may be running on the store. Exit codes: 0 all of the
    /// log was shown; 1 parts of it are missing; 2 it cannot be read, or wrong usage.
    #[command(after_help = dump::EXAMPLES)]
    Dump(dump::DumpArgs),
    /// Check everything that can be checked, and say what, where, what it means and what to do.
    ///
    /// Checksums of every block, descriptor and body; the chain of commits, segments and digests;
    /// checkpoints and tables against what led to them; commands inside their batches; the proof of how
    /// far the log must reach; and that the snapshot is there which the log counts on. A last write that
    /// did not get to its end is no damage: it was never acknowledged.
    ///
    /// Reads only and takes no lock: a node may be running on the store. Exit codes: 0 clean; 1
    /// damaged; 2 cannot tell, or wrong usage.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::VerifyArgs),
    /// Show what the log costs: segments, slots, bytes per entry, sizes of batches and of commits.
    ///
    /// Reads only and takes no lock: a node may be running on the store. Exit codes: 0 done; 1 parts
    /// of the log cannot be read and are not counted; 2 cannot tell, or wrong usage.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// Make a copy of a damaged store that can be opened without what is lost. The store stays as it is.
    ///
    /// The last resort, where no peer has what is missing. ENTRIES THAT WERE ACKNOWLEDGED MAY BE GONE
    /// in the copy: it says which. Without --to nothing is written and only the report is given. No
    /// node may be running on the store, as a copy of something that changes would be torn.
    ///
    /// Exit codes: 0 there is nothing to repair, or the copy was made and opens; 1 the store is
    /// damaged and this was only the report, or nothing can be made of it; 2 cannot tell, or wrong
    /// usage.
    #[command(after_help = repair::EXAMPLES)]
    Repair(repair::RepairArgs),
}

/// Why a command could not do what it is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot open the folder '{}': {source}", path.display())]
    Folder { path: PathBuf, source: DiskError },
    #[error("'{}': {source}{}", path.display(), advice(source))]
    Store { path: PathBuf, source: OpenError },
    #[error("the store has no group {group}; it has {}", text::list(.known))]
    NoGroup { group: u64, known: Vec<u64> },
    #[error("the decoder '{command}' {problem}")]
    Decoder { command: String, problem: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error(
        "the store '{}' is in use: stop the node first, as a copy of a log that changes would be torn",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("'{}' is there already; a copy is made in a folder that is empty or not there", path.display())]
    Exists { path: PathBuf },
    #[error("cannot copy '{}': {source}", path.display())]
    Copy { path: PathBuf, source: io::Error },
}

impl Problem {
    /// Did whoever reads the output go away?
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Problem::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What to do where a store cannot even be looked at.
fn advice(error: &OpenError) -> &'static str {
    if matches!(error, OpenError::NoStore) {
        ". Name the folder that holds the file STORE"
    } else if matches!(error, OpenError::Newer { .. }) {
        ". Use the version that wrote it, or a later one"
    } else {
        ""
    }
}

/// Exit codes as the help of each command says.
pub(crate) fn run(args: &WalArgs) -> Result<ExitCode, Problem> {
    let outcome = match &args.command {
        WalCommand::Dump(args) => dump::run(args),
        WalCommand::Verify(args) => verify::run(args),
        WalCommand::Stats(args) => stats::run(args),
        WalCommand::Repair(args) => repair::run(args),
    };
    match outcome {
        // `duraft wal dump ... | head` is no failure.
        Err(problem) if problem.is_closed_pipe() => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

/// Opens the folder for reading.
pub(crate) fn folder(path: &Path) -> Result<ReadFolder, Problem> {
    ReadFolder::open(path).map_err(|source| Problem::Folder {
        path: path.to_path_buf(),
        source,
    })
}

/// Looks at the store until it is clear what it is.
pub(crate) fn look(path: &Path) -> Result<(View, Settled), Problem> {
    View::settled(&folder(path)?, LOOKS).map_err(|source| Problem::Store {
        path: path.to_path_buf(),
        source,
    })
}

/// The name of a slot's file in the store's folder.
pub(crate) fn slot_file(slot: u32) -> String {
    format!("wal/{slot:08x}.slot")
}
