//! `duraft bench`: load, yardstick, result, recovery check.

mod args;
mod cluster;
mod disk;
mod error;
mod facts;
mod folder;
mod limits;
mod memory;
mod progress;
mod raw;
mod report;
mod snapshot;
mod soak;
mod stuck;
mod summary;
mod wal;

pub(crate) use args::BenchArgs;
pub(crate) use cluster::ChildArgs;
pub(crate) use error::BenchError;
pub(crate) use facts::Facts;
pub(crate) use folder::Folder;
pub(crate) use snapshot::{SnapshotChildArgs, run_child as run_snapshot_child};
pub(crate) use stuck::{StuckChildArgs, run_child as run_stuck_child};
pub(crate) use summary::{Latencies, Percentiles};

use args::What;
use std::path::Path;
use std::process::ExitCode;

/// Runs the benchmark that was asked for.
pub(crate) fn run(args: BenchArgs) -> Result<ExitCode, BenchError> {
    match args.what {
        None => cluster::run(&args.load, &args::ClusterArgs::default()),
        Some(What::Cluster(cluster)) => cluster::run(&args.load, &cluster),
        Some(What::Wal(wal)) => wal::run(&args.load, &wal),
        Some(What::Disk) => disk::run(&args.load),
        Some(What::Snapshot(snapshot)) => snapshot::run(&args.load, &snapshot),
        Some(What::Soak(soak)) => soak::run(&args.load, &soak),
        Some(What::Stuck(stuck)) => stuck::run(&args.load, &stuck),
    }
}

/// Runs one node of a process cluster until its standard input ends.
pub(crate) fn run_child(args: ChildArgs) -> Result<ExitCode, BenchError> {
    cluster::run_child(args)
}

fn facts(folder: &Path) -> Result<Facts, BenchError> {
    Facts::read(folder).map_err(|source| BenchError::Folder {
        path: folder.to_path_buf(),
        source,
    })
}
