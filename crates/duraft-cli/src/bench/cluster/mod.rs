//! `duraft bench cluster`: three durable nodes under load, a crash, and the proof that nothing that
//! was acknowledged is missing.

mod child;
mod command;
mod load;
mod local;
mod processes;
mod protocol;
mod setup;
mod verify;

pub(crate) use child::ChildArgs;

use super::args::{ClusterArgs, LoadArgs};
use super::error::BenchError;
use super::folder::Folder;
use super::progress::Progress;
use super::raw::{RawDisk, RawSlice};
use super::report::{Measured, Report, Round, Workload};
use super::series::Series;
use super::stages::StageCounts;
use super::summary::Latencies;
use super::timed::LogIo;
use crate::ports::ReservedPorts;
use duraft_disk::RealDisk;
use load::{Cluster, Counters, Load, Slice};
use local::Local;
use processes::Processes;
use setup::{NODES, Setup};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::Duration;

const CLIENTS: u32 = 64;
/// Most commands without an answer in an open loop.
const CLIENTS_OPEN: u32 = 1024;
/// Longest wait for answers after a slice of load: elections and restarts fit in.
const DRAIN: Duration = Duration::from_secs(60);
/// Load before the first round: the first election, connections, caches.
const WARM_UP: Duration = Duration::from_millis(500);
/// Length of the last slice, in which the leader crashes.
const CRASH: Duration = Duration::from_millis(1500);
/// Raw slices are this share of the load's.
const RAW_SHARE: u32 = 5;

/// Runs the benchmark; exit code 1 if an acknowledged command is missing.
pub(crate) fn run(load: &LoadArgs, args: &ClusterArgs) -> Result<ExitCode, BenchError> {
    let folder = Folder::prepare(load.dir.as_deref())?;
    let ports = ReservedPorts::new(NODES).map_err(BenchError::cluster)?;
    let setup = Setup::new(
        folder.path(),
        ports.addresses(),
        load.seed,
        load.value_bytes,
    );
    let (answers_to, answers) = channel();
    let mut clients = Load::new(clients_of(load), answers);
    clients.rate = load.rate;
    let run = Run {
        load,
        args,
        folder: &folder,
        setup: &setup,
    };
    let report = if args.processes {
        run.measure(Processes::start(setup.clone(), answers_to)?, clients)?
    } else {
        run.measure(Local::start(setup.clone(), answers_to)?, clients)?
    };
    report.publish(load)?;
    if report.verification.is_some_and(|v| v.passed()) {
        return Ok(ExitCode::SUCCESS);
    }
    folder.keep();
    Ok(ExitCode::from(1))
}

/// Runs one node of a process cluster.
pub(crate) fn run_child(args: ChildArgs) -> Result<ExitCode, BenchError> {
    child::run(args)
}

struct Run<'a> {
    load: &'a LoadArgs,
    args: &'a ClusterArgs,
    folder: &'a Folder,
    setup: &'a Setup,
}

impl Run<'_> {
    fn measure<C: Cluster>(&self, mut cluster: C, mut clients: Load) -> Result<Report, BenchError> {
        let facts = super::facts(self.folder.path())?;
        let disk = RealDisk::open(self.folder.path())?;
        let mut raw = RawDisk::create(&disk, 0)?;
        let progress = Progress::start("cluster", self.load.rounds);
        clients.run(&mut cluster, WARM_UP, DRAIN, |_, _, _| Ok(()))?;
        let slice = Duration::from_secs(self.load.seconds) / self.load.rounds;
        let mut rounds = Vec::new();
        let mut all = Latencies::new();
        let mut leaders_killed = 0;
        clients.series = Some(Series::new(self.load.seconds));
        let (mut log_io, mut stages, mut missed) = (LogIo::new(), StageCounts::default(), 0);
        log_ios(&mut cluster);
        for _ in 0..self.load.rounds {
            let before = counters(&mut cluster);
            let stages_before = stages_of(&mut cluster);
            let mut crash = Crash::new(slice, self.args.kill);
            let done = clients.run(&mut cluster, slice, DRAIN, |cluster, target, passed| {
                crash.go_on(cluster, target, passed)
            })?;
            crash.finish(&mut cluster)?;
            leaders_killed += crash.kills;
            let (leader, work) = busiest(&before, &counters(&mut cluster));
            if let Some(io) = log_ios(&mut cluster).get(leader).and_then(Option::as_ref) {
                log_io.merge(io);
            }
            let now = cluster.stages(leader).unwrap_or_default();
            stages.merge_since(&now, &stages_before[leader]);
            missed += done.missed;
            let commits = work.group_commits.max(1);
            // What the disk does alone, at the size that the leader wrote.
            let raw = raw.measure(work.commit_bytes / commits, slice / RAW_SHARE)?;
            let round = round_of(&done, work, raw);
            rounds.push(round);
            all.merge(&done.latencies);
            progress.round_done(round.commands_per_second);
        }
        let series = clients.series.take();
        clients.rate = None;
        progress.say("crash and recovery check");
        if !self.args.kill {
            leaders_killed += self.crash_once(&mut cluster, &mut clients)?;
        }
        for node in 0..cluster.nodes() {
            cluster.kill(node)?;
        }
        drop(cluster);
        let mut verification = verify::verify(self.setup, &clients.acknowledged)?;
        verification.unknown = clients.unknown;
        verification.leaders_killed = leaders_killed;
        progress.finish();
        let measured = Measured {
            rounds,
            latencies: all,
            raw: raw.all,
            series,
            log_io: (log_io.syncs.count() > 0).then_some(log_io),
            stages,
            missed,
        };
        Ok(Report::new(
            facts,
            self.workload(),
            measured,
            Some(verification),
        ))
    }

    /// One crash of the leader under load; how many were killed.
    fn crash_once<C: Cluster>(
        &self,
        cluster: &mut C,
        clients: &mut Load,
    ) -> Result<u32, BenchError> {
        let mut crash = Crash::new(CRASH, true);
        clients.run(cluster, CRASH, DRAIN, |cluster, target, passed| {
            crash.go_on(cluster, target, passed)
        })?;
        crash.finish(cluster)?;
        Ok(crash.kills)
    }

    fn workload(&self) -> Workload {
        let places = if self.args.processes {
            " --processes"
        } else {
            ""
        };
        let kills = if self.args.kill { " --kill" } else { "" };
        Workload {
            what: format!("cluster{places}{kills}"),
            nodes: 3,
            clients: clients_of(self.load),
            rate: self.load.rate,
            batch: 1,
            value_bytes: self.load.value_bytes,
            seconds: self.load.seconds,
            seed: self.load.seed,
        }
    }
}

/// A crash of the leader in the course of a slice: killed after a third, restarted after two.
struct Crash {
    kill_at: Duration,
    restart_at: Duration,
    wanted: bool,
    down: Option<usize>,
    kills: u32,
}

impl Crash {
    fn new(slice: Duration, wanted: bool) -> Crash {
        let third = slice / 3;
        Crash {
            kill_at: third,
            restart_at: third * 2,
            wanted,
            down: None,
            kills: 0,
        }
    }

    fn go_on<C: Cluster>(
        &mut self,
        cluster: &mut C,
        target: usize,
        passed: Duration,
    ) -> Result<(), BenchError> {
        if self.wanted && passed >= self.kill_at {
            // The node that clients talk to leads, or is believed to.
            cluster.kill(target)?;
            self.down = Some(target);
            self.kills += 1;
            self.wanted = false;
        }
        if passed >= self.restart_at {
            self.finish(cluster)?;
        }
        Ok(())
    }

    fn finish<C: Cluster>(&mut self, cluster: &mut C) -> Result<(), BenchError> {
        match self.down.take() {
            Some(node) => cluster.restart(node),
            None => Ok(()),
        }
    }
}

fn counters<C: Cluster>(cluster: &mut C) -> Vec<Counters> {
    (0..cluster.nodes())
        .map(|node| cluster.counters(node).unwrap_or_default())
        .collect()
}

/// What each node's log did to its disk since the last time, where it can be watched.
fn log_ios<C: Cluster>(cluster: &mut C) -> Vec<Option<LogIo>> {
    (0..cluster.nodes())
        .map(|node| cluster.log_io(node))
        .collect()
}

/// A slice of load, what the leader's log did in it, and the raw writes that followed.
fn round_of(done: &Slice, work: Counters, raw: RawSlice) -> Round {
    let seconds = done.elapsed.as_secs_f64();
    let commands = (done.latencies.count() - done.missed) as f64;
    let commits = work.group_commits.max(1) as f64;
    Round {
        commands_per_second: commands / seconds,
        latency: done.latencies.percentiles(),
        commits_per_second: work.group_commits as f64 / seconds,
        commit_bytes_mean: work.commit_bytes as f64 / commits,
        commands_per_sync: commands / commits,
        raw,
    }
}

/// What each node has measured of the stages of commands.
fn stages_of<C: Cluster>(cluster: &mut C) -> Vec<StageCounts> {
    (0..cluster.nodes())
        .map(|node| cluster.stages(node).unwrap_or_default())
        .collect()
}

fn clients_of(load: &LoadArgs) -> u32 {
    let clients = if load.rate.is_some() {
        CLIENTS_OPEN
    } else {
        CLIENTS
    };
    load.clients.unwrap_or(clients)
}

/// The leader and its work between two counts; after a crash, the node that worked most.
fn busiest(before: &[Counters], after: &[Counters]) -> (usize, Counters) {
    let work = before.iter().zip(after).map(|(before, after)| Counters {
        leads: after.leads,
        // A restarted node counts from 0 again, and may not have come far.
        group_commits: after.group_commits.saturating_sub(before.group_commits),
        commit_bytes: after.commit_bytes.saturating_sub(before.commit_bytes),
    });
    work.enumerate()
        .max_by_key(|(_, work)| (work.leads && work.group_commits > 0, work.group_commits))
        .unwrap_or_default()
}
