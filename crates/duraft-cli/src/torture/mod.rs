//! `duraft torture`: node processes over TCP that are killed, stopped and cut off while clients use
//! them, and the proof from the clients' history and the nodes' files that nothing was lost, made up
//! or shown too late.

mod child;
mod clients;
mod cluster;
mod faults;
mod history;
mod links;
mod logs;
mod machine;
mod report;
mod sweep;
mod words;

pub(crate) use child::{TortureChildArgs, run as run_child};
pub(crate) use sweep::{SweepArgs, run as run_sweep};

use crate::bench::{BenchError, Facts, Folder};
use child::Plant;
use clap::Args;
use clients::Clients;
use cluster::Cluster;
use duraft_core::Index;
use faults::{Faults, rest};
use history::Event;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use words::{Answer, Op, OpId, Request, State};

/// Longest wait for the nodes to agree, and for one register's check.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time without faults at the end, in which everybody goes on.
const CALM: Duration = Duration::from_secs(1);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Flags of `duraft torture`.
#[derive(Args)]
pub(crate) struct TortureArgs {
    /// Nodes, each in a process of its own.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    pub(crate) nodes: u8,

    /// Seconds of faults.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,

    /// Seed of faults, operations and election timeouts. The same seed draws the same faults, but
    /// processes run as they like.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// Clients, each with one operation under way.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) clients: u32,

    /// Registers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) keys: u32,

    /// Small logs, and a snapshot whenever 8 KiB were applied: nodes that were away get a snapshot, and
    /// a run in which none did is void. Without this flag the whole log is kept and read in the end.
    #[arg(long)]
    pub(crate) snapshots: bool,

    /// Break the service on purpose, to see that it is noticed.
    #[arg(long, value_enum)]
    pub(crate) plant: Option<Plant>,

    /// Folder for the stores, new or empty. Without this flag a new folder is made under ./duraft-data
    /// and removed after a good run.
    #[arg(long)]
    dir: Option<PathBuf>,

    /// Write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Exit codes: 0 nothing wrong; 1 a violation; 2 could not run; 3 void: too few operations, or the
/// search for an explanation did not end.
pub(crate) fn run(args: &TortureArgs) -> Result<ExitCode, BenchError> {
    let folder = Folder::prepare(args.dir.as_deref())?;
    let facts = Facts::read(folder.path()).map_err(BenchError::cluster)?;
    let cluster = Cluster::start(folder.path(), args)?;
    let cluster = Arc::new(cluster);
    let begun = Instant::now();
    let clients = Clients::start(&cluster, args.clients, args.keys, args.seed, begun);
    let mut faults = Faults::new(&cluster, args.seed);
    faults.run(begun + Duration::from_secs(args.seconds))?;
    let counts = faults.counts;
    rest(CALM);
    let outcome = clients.finish();
    let mut events = outcome.events;
    let (agreed, commit) = agree(&cluster)?;
    if agreed {
        read_everything(&cluster, args, begun, &mut events);
    }
    cluster.kill_all()?;
    let found = logs::check(folder.path(), args, commit, &history::acknowledged(&events))?;
    let verdict = history::check(&events, PATIENCE);
    let mut report = Report::new(facts, args, &events, outcome.refused, counts);
    report.agreed = agreed;
    report.snapshots = cluster.snapshots();
    report.judge(&found, verdict);
    report.publish(args)?;
    if report.exit_code() == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    folder.keep();
    Ok(ExitCode::from(report.exit_code()))
}

/// Waits until all nodes have applied the whole log of one leader; tells how far it is committed.
fn agree(cluster: &Cluster) -> Result<(bool, Index), BenchError> {
    let begun = Instant::now();
    let mut commit = 0;
    while begun.elapsed() < PATIENCE {
        let mut states: Vec<State> = Vec::new();
        for place in 0..cluster.len() {
            states.extend(cluster.state(place)?);
        }
        commit = states.iter().map(|state| state.commit).max().unwrap_or(0);
        let leader = states.iter().filter(|state| state.leads);
        let leader = leader.max_by_key(|state| state.term);
        let agreed = leader.is_some_and(|leader| {
            let same = |state: &State| state.applied == leader.last && state.stopped.is_none();
            states.len() == cluster.len() && states.iter().all(same)
        });
        if agreed {
            return Ok((true, Index(commit)));
        }
        rest(LOOK);
    }
    Ok((false, Index(commit)))
}

/// One more read of each register at each node.
fn read_everything(cluster: &Cluster, args: &TortureArgs, begun: Instant, events: &mut Vec<Event>) {
    let now = || i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
    let mut number = 0;
    for place in 0..cluster.len() {
        for key in 0..args.keys {
            number += 1;
            let id = OpId {
                client: args.clients,
                number,
            };
            let (op, called) = (Op::Get, now());
            let asked = cluster.ask(place, Request { id, key, op });
            let answer = asked.and_then(|answer| answer.recv_timeout(PATIENCE).ok());
            let Some(Answer::Done(seen)) = answer else {
                continue;
            };
            events.push(Event {
                id,
                key,
                op,
                called,
                heard: Some((now(), seen)),
            });
        }
    }
}
