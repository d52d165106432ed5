//! `duraft bench`: load, yardstick, result, recovery check.

mod args;
mod cluster;
mod compare;
mod disk;
mod error;
mod facts;
mod folder;
mod html;
mod limits;
mod memory;
mod progress;
mod raw;
mod report;
mod series;
mod snapshot;
mod soak;
mod stages;
mod stuck;
mod summary;
mod timed;
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
pub(crate) use compare::EXAMPLES as COMPARE_EXAMPLES;
use std::path::Path;
use std::process::ExitCode;

/// Runs the benchmark that was asked for.
pub(crate) fn run(args: BenchArgs) -> Result<ExitCode, BenchError> {
    let plain = matches!(
        args.what,
        Some(What::Snapshot(_) | What::Soak(_) | What::Stuck(_))
    );
    for (flag, given) in [
        ("--rate", args.load.rate.is_some()),
        ("--report", args.load.report.is_some()),
    ] {
        if plain && given {
            return Err(BenchError::Flag(flag));
        }
    }
    if matches!(args.what, Some(What::Disk)) && args.load.rate.is_some() {
        return Err(BenchError::Flag("--rate"));
    }
    match args.what {
        Some(What::Compare(compare)) => compare::run(&compare),
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
