//! `duraft bench wal`: the write-ahead log alone, as the group-commit log that a program embeds.
//!
//! Each appender has one batch outstanding. Appenders share a few threads: what is measured is the
//! log, not the scheduler; with one appender there is one thread, and it makes its own commits.

use super::args::{LoadArgs, WalArgs};
use super::error::BenchError;
use super::folder::Folder;
use super::progress::Progress;
use super::raw::RawDisk;
use super::report::{Measured, Report, Round, Workload};
use super::series::{Pace, Series};
use super::stages::StageCounts;
use super::summary::Latencies;
use super::timed::{LogIo, TimedDisk, Watch};
use duraft_disk::RealDisk;
use duraft_storage::{GroupLog, GroupLogError, GroupLogOptions, Ticket, WalOptions, WalStats};
use std::collections::VecDeque;
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
    let watch = Watch::new();
    let below = Arc::new(RealDisk::create(folder.path().join("log"))?);
    let timed = Arc::new(TimedDisk::new(below, watch.clone()));
    let log = GroupLog::open_on(timed, bench.options()).map_err(failed)?;
    let disk = RealDisk::open(folder.path())?;
    let mut raw = RawDisk::create(&disk, 2 * bench.commit_bytes())?;
    let progress = Progress::start("wal", load.rounds);
    bench.slice(&log, WARM_UP, &Series::new(1))?;
    watch.take();
    let mut series = Series::new(load.seconds);
    let (mut log_io, mut missed) = (LogIo::new(), 0);
    let slice = Duration::from_secs(load.seconds) / load.rounds;
    let mut rounds = Vec::new();
    let mut all = Latencies::new();
    for _ in 0..load.rounds {
        let before = log.stats();
        let begun = Instant::now();
        series.begin_round();
        let done = bench.slice(&log, slice, &series)?;
        series.merge(&done.series);
        series.end_round();
        missed += done.missed;
        let latencies = done.latencies;
        let seconds = begun.elapsed().as_secs_f64();
        let work = since(&before, &log.stats());
        let commits = work.commits.max(1);
        log_io.merge(&watch.take());
        let raw = raw.measure(work.bytes_written / commits, slice)?;
        let missed_batches = (done.missed / u64::from(args.batch)) as f64;
        let commands = (latencies.count() as f64 - missed_batches) * f64::from(args.batch);
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
    let measured = Measured {
        rounds,
        latencies: all,
        raw: raw.all,
        series: Some(series),
        log_io: Some(log_io),
        stages: StageCounts::default(),
        missed,
    };
    let report = Report::new(facts, bench.workload(load), measured, None);
    report.publish(load)?;
    Ok(ExitCode::SUCCESS)
}

/// What one thread, or all, measured in a slice.
struct Done {
    latencies: Latencies,
    series: Series,
    missed: u64,
}

struct Bench {
    appenders: u32,
    /// Batches per second of an open loop.
    rate: Option<f64>,
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
            appenders: load
                .clients
                .unwrap_or(if load.rate.is_some() { 1024 } else { 1 }),
            #[allow(clippy::cast_precision_loss)]
            rate: load.rate.map(|rate| rate as f64 / f64::from(args.batch)),
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
            rate: load.rate,
            batch: self.batch,
            value_bytes: load.value_bytes,
            seconds: load.seconds,
            seed: load.seed,
        }
    }

    /// Keeps all appenders busy for a while; returns how long each append took to be durable.
    fn slice(&self, log: &GroupLog, slice: Duration, series: &Series) -> Result<Done, BenchError> {
        let threads = self.appenders.min(THREADS_MAX);
        let stop = AtomicBool::new(false);
        let results: Vec<Result<Done, BenchError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|thread| {
                    let share = (self.appenders + thread) / threads;
                    let stop = &stop;
                    let part = Part {
                        share,
                        leads: thread == 0,
                        series: series.alike(),
                    };
                    scope.spawn(move || self.append(log, part, slice, stop))
                })
                .collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            joined
                .map(|result| result.unwrap_or(Err(panicked())))
                .collect()
        });
        let mut all = Done {
            latencies: Latencies::new(),
            series: series.alike(),
            missed: 0,
        };
        for result in results {
            let done = result?;
            all.latencies.merge(&done.latencies);
            all.series.merge(&done.series);
            all.missed += done.missed;
        }
        Ok(all)
    }

    /// One thread with its share of the appenders.
    fn append(
        &self,
        log: &GroupLog,
        mut part: Part,
        slice: Duration,
        stop: &AtomicBool,
    ) -> Result<Done, BenchError> {
        let begun = Instant::now();
        let mut latencies = Latencies::new();
        let mut outstanding: VecDeque<(Instant, Ticket)> = VecDeque::new();
        let commands: Vec<&[u8]> = vec![&self.value; self.batch as usize];
        let share = part.share.max(1);
        let mut pace = self
            .rate
            .map(|rate| Pace::new(rate * f64::from(share) / f64::from(self.appenders), slice));
        let mut kept_bytes = 0;
        loop {
            if part.leads && begun.elapsed() >= slice {
                stop.store(true, Ordering::Relaxed);
            }
            let loading = match &pace {
                None => !stop.load(Ordering::Relaxed),
                Some(pace) => !pace.is_over(Instant::now()),
            };
            while loading && outstanding.len() < share as usize {
                let now = Instant::now();
                let Some(at) = pace.as_mut().map_or(Some(now), |pace| pace.due(now)) else {
                    break;
                };
                outstanding.push_back((at, log.append(&commands).map_err(failed)?));
            }
            let Some((appended, ticket)) = outstanding.pop_front() else {
                if !loading {
                    break;
                }
                let next = pace.as_ref().map(|pace| pace.next_at());
                let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
                std::thread::park_timeout(wait.unwrap_or_default().min(IDLE_MAX));
                continue;
            };
            let end = ticket.wait().map_err(failed)?;
            latencies.record(appended.elapsed());
            part.series.record(appended.elapsed());
            kept_bytes += self.body_bytes() * u64::from(self.appenders / share);
            if part.leads && kept_bytes > KEPT_SLOTS * self.slot_bytes() {
                log.compact(end.index()).map_err(failed)?;
                kept_bytes = 0;
            }
        }
        let waits = pace.map_or_else(Vec::new, |mut pace| pace.give_up(Instant::now()));
        waits.iter().for_each(|wait| latencies.record(*wait));
        let missed = waits.len() as u64 * u64::from(self.batch);
        Ok(Done {
            latencies,
            series: part.series,
            missed,
        })
    }
}

/// What one thread does. The first one keeps the time and the log short.
struct Part {
    share: u32,
    leads: bool,
    series: Series,
}

/// Longest sleep of a thread that waits for its next append: it must see the end of the slice.
const IDLE_MAX: Duration = Duration::from_millis(5);

/// Group commits of many small batches stop growing here.
const COMMIT_BYTES_MAX: u64 = 4 << 20;

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
