//! `duraft bench disk`: what the folder's disk does, at the sizes a log writes.

use super::args::LoadArgs;
use super::error::BenchError;
use super::folder::Folder;
use super::progress::Progress;
use super::raw::RawDisk;
use super::report::{Measured, Report, Round, Workload};
use super::stages::StageCounts;
use super::summary::Latencies;
use duraft_disk::RealDisk;
use std::process::ExitCode;
use std::time::Duration;

/// Measures pwrite+fdatasync of `--value-bytes` rounded up to whole 4 KiB blocks.
pub(crate) fn run(load: &LoadArgs) -> Result<ExitCode, BenchError> {
    let folder = Folder::prepare(load.dir.as_deref())?;
    let facts = super::facts(folder.path())?;
    let disk = RealDisk::open(folder.path())?;
    let bytes = u64::from(load.value_bytes).div_ceil(4096) * 4096;
    let mut raw = RawDisk::create(&disk, bytes)?;
    let slice = Duration::from_secs(load.seconds) / load.rounds;
    let progress = Progress::start("disk", load.rounds);
    let mut rounds = Vec::new();
    for _ in 0..load.rounds {
        let raw = raw.measure(bytes, slice)?;
        rounds.push(Round {
            commands_per_second: raw.syncs_per_second,
            latency: raw.latency,
            commits_per_second: raw.syncs_per_second,
            commit_bytes_mean: raw.bytes as f64,
            commands_per_sync: 1.0,
            raw,
        });
        progress.round_done(raw.syncs_per_second);
    }
    progress.finish();
    let mut latencies = Latencies::new();
    latencies.merge(&raw.all);
    let measured = Measured {
        rounds,
        latencies,
        raw: raw.all,
        series: None,
        log_io: None,
        stages: StageCounts::default(),
        missed: 0,
    };
    let report = Report::new(facts, workload(load, bytes), measured, None);
    report.publish(load)?;
    Ok(ExitCode::SUCCESS)
}

fn workload(load: &LoadArgs, bytes: u64) -> Workload {
    Workload {
        what: String::from("disk"),
        nodes: 0,
        clients: 1,
        rate: None,
        batch: 1,
        value_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        seconds: load.seconds,
        seed: load.seed,
    }
}
