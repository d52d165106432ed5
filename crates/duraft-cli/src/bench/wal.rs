//! `duraft bench wal`: the write-ahead log alone, as the group-commit log that a program embeds.
//!
//! Each appender has one batch outstanding. Appenders share a few threads: what is measured is the
//! log, not the scheduler; with one appender there is one thread, and it makes its own commits.

use super::args::{LoadArgs, WalArgs};
use super::error::BenchError;
use super::folder::Folder;
use super::progress::Progress;
use super::raw::RawDisk;
use super::report::{Report, Round, Workload};
use super::summary::Latencies;
use duraft_disk::RealDisk;
use duraft_storage::{GroupLog, GroupLogError, GroupLogOptions, Ticket, WalOptions, WalStats};
use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const THREADS_MAX: u32 = 4;
/// Load before the first round: slots are made ready, memory is touched.
const WARM_UP: Duration = Duration::from_millis(500);
/// The log forgets everything whenever so many slots are full, so that slots come back.
const KEPT_SLOTS: u64 = 4;

/// Runs the benchmark.
pub(crate) fn run(load: &LoadArgs, args: &WalArgs) -> Result<ExitCode, BenchError> {
    let bench = Bench::new(load, args);
    let folder = Folder::prepare(load.dir.as_deref())?;
    let facts = super::facts(folder.path())?;
    let log = GroupLog::open_on(wal_disk(folder.path())?, bench.options()).map_err(failed)?;
    let disk = RealDisk::open(folder.path())?;
    let mut raw = RawDisk::create(&disk, 2 * bench.commit_bytes())?;
    let progress = Progress::start("wal", load.rounds);
    bench.slice(&log, WARM_UP)?;
    let slice = Duration::from_secs(load.seconds) / load.rounds;
    let mut rounds = Vec::new();
    let mut all = Latencies::new();
    for _ in 0..load.rounds {
        let before = log.stats();
        let begun = Instant::now();
        let latencies = bench.slice(&log, slice)?;
        let seconds = begun.elapsed().as_secs_f64();
        let work = since(&before, &log.stats());
        let commits = work.commits.max(1);
        let raw = raw.measure(work.bytes_written / commits, slice)?;
        let commands = latencies.count() as f64 * f64::from(args.batch);
        rounds.push(Round {
            commands_per_second: commands / seconds,
            latency: latencies.percentiles(),
            commits_per_second: work.commits as f64 / seconds,
            commit_bytes_mean: work.bytes_written as f64 / commits as f64,
            commands_per_sync: commands / work.fsyncs.max(1) as f64,
            raw,
        });
        all.merge(&latencies);
        progress.round_done(commands / seconds);
    }
    progress.finish();
    log.close().map_err(failed)?;
    let report = Report::new(facts, bench.workload(load), rounds, all.percentiles(), None);
    report.publish(load)?;
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    appenders: u32,
    batch: u32,
    value: Vec<u8>,
}

impl Bench {
    fn new(load: &LoadArgs, args: &WalArgs) -> Bench {
        let mut word = load.seed;
        let mut value = Vec::new();
        while value.len() < load.value_bytes as usize {
            word = duraft_core::mix64(word);
            value.extend_from_slice(&word.to_le_bytes());
        }
        value.truncate(load.value_bytes as usize);
        Bench {
            appenders: load.clients.unwrap_or(1),
            batch: args.batch,
            value,
        }
    }

    /// Bytes of one batch's body: values and their offsets.
    fn body_bytes(&self) -> u64 {
        u64::from(self.batch) * (self.value.len() as u64 + 4)
    }

    /// Bytes of the largest commit: every appender's batch with its descriptor, within limits.
    fn commit_bytes(&self) -> u64 {
        let one = self.body_bytes() + 256;
        (one * u64::from(self.appenders)).min(one.max(COMMIT_BYTES_MAX)) + (16 << 10)
    }

    fn slot_bytes(&self) -> u64 {
        let least = (4 * self.commit_bytes()).next_power_of_two();
        least.clamp(16 << 20, 1 << 30)
    }

    fn options(&self) -> GroupLogOptions {
        GroupLogOptions {
            wal: WalOptions {
                slot_bytes: self.slot_bytes(),
                slots_ready_min: 4,
                commit_bytes_max: self.commit_bytes(),
                queue_bytes_max: 2 * self.commit_bytes(),
                cache_bytes_max: 1 << 20,
                ..GroupLogOptions::default().wal
            },
            max_batch_bytes: u32::try_from(self.body_bytes().max(1 << 20)).unwrap_or(u32::MAX),
            ..GroupLogOptions::default()
        }
    }

    fn workload(&self, load: &LoadArgs) -> Workload {
        Workload {
            what: String::from("wal"),
            nodes: 1,
            clients: self.appenders,
            batch: self.batch,
            value_bytes: load.value_bytes,
            seconds: load.seconds,
            seed: load.seed,
        }
    }

    /// Keeps all appenders busy for a while; returns how long each append took to be durable.
    fn slice(&self, log: &GroupLog, slice: Duration) -> Result<Latencies, BenchError> {
        let threads = self.appenders.min(THREADS_MAX);
        let stop = AtomicBool::new(false);
        let results: Vec<Result<Latencies, BenchError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let share = (self.appenders + thread) / threads;
                    let stop = &stop;
                    scope.spawn(move || self.append(log, share, thread == 0, slice, stop))
                })
                .collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            joined
                .map(|result| result.unwrap_or(Err(panicked())))
                .collect()
        });
        let mut all = Latencies::new();
        for result in results {
            all.merge(&result?);
        }
        Ok(all)
    }

    /// One thread with `share` appenders. The first thread keeps the time and the log short.
    fn append(
        &self,
        log: &GroupLog,
        share: u32,
        leads: bool,
        slice: Duration,
        stop: &AtomicBool,
    ) -> Result<Latencies, BenchError> {
        let begun = Instant::now();
        let mut latencies = Latencies::new();
        let mut outstanding: VecDeque<(Instant, Ticket)> = VecDeque::new();
        let commands: Vec<&[u8]> = vec![&self.value; self.batch as usize];
        let mut kept_bytes = 0;
        for _ in 0..share {
            outstanding.push_back((Instant::now(), log.append(&commands).map_err(failed)?));
        }
        while let Some((appended, ticket)) = outstanding.pop_front() {
            let end = ticket.wait().map_err(failed)?;
            latencies.record(appended.elapsed());
            kept_bytes += self.body_bytes() * u64::from(self.appenders / share.max(1));
            if leads && kept_bytes > KEPT_SLOTS * self.slot_bytes() {
                log.compact(end.index()).map_err(failed)?;
                kept_bytes = 0;
            }
            if leads && begun.elapsed() >= slice {
                stop.store(true, Ordering::Relaxed);
            }
            if !stop.load(Ordering::Relaxed) {
                outstanding.push_back((Instant::now(), log.append(&commands).map_err(failed)?));
            }
        }
        Ok(latencies)
    }
}

/// Group commits of many small batches stop growing here.
const COMMIT_BYTES_MAX: u64 = 4 << 20;

fn wal_disk(folder: &Path) -> Result<Arc<RealDisk>, BenchError> {
    Ok(Arc::new(RealDisk::create(folder.join("log"))?))
}

fn since(before: &WalStats, after: &WalStats) -> WalStats {
    WalStats {
        commits: after.commits - before.commits,
        fsyncs: after.fsyncs - before.fsyncs,
        bytes_written: after.bytes_written - before.bytes_written,
        ..WalStats::default()
    }
}

fn failed(error: GroupLogError) -> BenchError {
    BenchError::Storage(error.to_string())
}

fn panicked() -> BenchError {
    BenchError::Storage(String::from("an appender's thread panicked"))
}
