//! Clients over any cluster, each with one command outstanding. In a closed loop a client proposes the
//! next one when the answer is there; in an open one commands begin at a fixed rate, and whichever
//! client is idle proposes them. Remembers what was acknowledged.

use super::command::{CommandId, CommandSet};
use crate::bench::error::BenchError;
use crate::bench::series::{Pace, Series};
use crate::bench::stages::StageCounts;
use crate::bench::summary::Latencies;
use crate::bench::timed::LogIo;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What became of one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Committed and applied.
    Applied,
    /// Certainly not in the log; this node may know better.
    Refused { leader: Option<usize> },
    /// May be there or not.
    Unknown,
}

/// An answer to one command of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) id: CommandId,
    pub(crate) outcome: Outcome,
}

/// A node's counters, monotone within one life.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) leads: bool,
    pub(crate) group_commits: u64,
    pub(crate) commit_bytes: u64,
}

/// Three nodes, wherever they run. Answers come through the channel given to [`Load::new`].
pub(crate) trait Cluster {
    /// Number of nodes.
    fn nodes(&self) -> usize;
    /// Proposes a command on a node; exactly one answer follows.
    fn submit(&mut self, node: usize, id: CommandId);
    /// Sends out what submit has queued.
    fn flush(&mut self);
    /// The node's counters, or `None` where it cannot be asked now.
    fn counters(&mut self, node: usize) -> Option<Counters>;
    /// What the node's log did to its disk since the last time, where that can be watched.
    fn log_io(&mut self, _node: usize) -> Option<LogIo> {
        None
    }
    /// What the node has measured of the stages of commands in this life, where it can be asked.
    fn stages(&mut self, node: usize) -> Option<StageCounts>;
    /// Ends the node without any warning. Its commands are answered with [`Outcome::Unknown`].
    fn kill(&mut self, node: usize) -> Result<(), BenchError>;
    /// Starts a killed node again from its files.
    fn restart(&mut self, node: usize) -> Result<(), BenchError>;
}

/// How long a client waits before it asks again after a refusal without a hint.
const RETRY: Duration = Duration::from_millis(10);

/// The clients and their memory.
pub(crate) struct Load {
    answers: Receiver<Answer>,
    clients: u32,
    next_seq: Vec<u64>,
    outstanding: BTreeMap<CommandId, Instant>,
    retries: Vec<(Instant, CommandId)>,
    /// The target does not lead and knows nobody who does.
    leaderless: bool,
    target: usize,
    /// Commands per second of an open loop.
    pub(crate) rate: Option<u64>,
    /// Where answers are noted by their time, too.
    pub(crate) series: Option<Series>,
    idle: Vec<u32>,
    pub(crate) acknowledged: CommandSet,
    pub(crate) unknown: u64,
}

/// One slice of load.
pub(crate) struct Slice {
    pub(crate) latencies: Latencies,
    pub(crate) elapsed: Duration,
    /// Commands of an open loop that never began. Their latencies, as far as they had come, are among
    /// the others.
    pub(crate) missed: u64,
}

impl Load {
    /// Clients that hear from the cluster through `answers`.
    pub(crate) fn new(clients: u32, answers: Receiver<Answer>) -> Load {
        Load {
            answers,
            clients,
            next_seq: vec![0; clients as usize],
            outstanding: BTreeMap::new(),
            retries: Vec::new(),
            leaderless: false,
            target: 0,
            rate: None,
            series: None,
            idle: Vec::new(),
            acknowledged: CommandSet::default(),
            unknown: 0,
        }
    }

    /// Keeps every client busy for `slice`, then waits for all answers. `during` is called with the
    /// time passed, about every ten milliseconds or more often.
    pub(crate) fn run<C: Cluster>(
        &mut self,
        cluster: &mut C,
        slice: Duration,
        deadline: Duration,
        mut during: impl FnMut(&mut C, usize, Duration) -> Result<(), BenchError>,
    ) -> Result<Slice, BenchError> {
        let start = Instant::now();
        let mut latencies = Latencies::new();
        if let Some(series) = &mut self.series {
            series.begin_round();
        }
        #[allow(clippy::cast_precision_loss)]
        let mut pace = self.rate.map(|rate| Pace::new(rate as f64, slice));
        self.idle = (0..self.clients).collect();
        loop {
            let loading = match &pace {
                None => start.elapsed() < slice,
                Some(pace) => !pace.is_over(Instant::now()),
            };
            if loading {
                self.begin_due(cluster, pace.as_mut());
            }
            if self.outstanding.is_empty() && !loading {
                break;
            }
            if !loading && start.elapsed() > slice + deadline {
                return Err(BenchError::Deadline {
                    what: "an answer to every outstanding command",
                    seconds: deadline.as_secs(),
                });
            }
            during(cluster, self.target, start.elapsed())?;
            self.retry_due(cluster);
            let next = pace.as_ref().filter(|_| loading && !self.idle.is_empty());
            let next = next.map(|pace| pace.next_at().saturating_duration_since(Instant::now()));
            match self.answers.recv_timeout(next.unwrap_or(RETRY).min(RETRY)) {
                Ok(first) => {
                    self.take(cluster, first, &mut latencies);
                    while let Ok(answer) = self.answers.try_recv() {
                        self.take(cluster, answer, &mut latencies);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(BenchError::Cluster(
                        "every node has stopped answering".into(),
                    ));
                }
            }
            cluster.flush();
        }
        let elapsed = start.elapsed();
        let waits = pace.map_or_else(Vec::new, |mut pace| pace.give_up(Instant::now()));
        waits.iter().for_each(|wait| latencies.record(*wait));
        if let Some(series) = &mut self.series {
            series.end_round();
        }
        Ok(Slice {
            latencies,
            elapsed,
            missed: waits.len() as u64,
        })
    }

    /// Idle clients propose what is to begin by now: at once in a closed loop.
    fn begin_due<C: Cluster>(&mut self, cluster: &mut C, mut pace: Option<&mut Pace>) {
        let now = Instant::now();
        while let Some(client) = self.idle.pop() {
            let at = pace.as_mut().map_or(Some(now), |pace| pace.due(now));
            let Some(at) = at else {
                self.idle.push(client);
                break;
            };
            self.propose_next(cluster, client, at);
        }
        cluster.flush();
    }

    fn propose_next<C: Cluster>(&mut self, cluster: &mut C, client: u32, begun: Instant) {
        let seq = &mut self.next_seq[client as usize];
        let id = CommandId { client, seq: *seq };
        *seq += 1;
        self.outstanding.insert(id, begun);
        cluster.submit(self.target, id);
    }

    fn take<C: Cluster>(&mut self, cluster: &mut C, answer: Answer, latencies: &mut Latencies) {
        let Some(begun) = self.outstanding.get(&answer.id).copied() else {
            return;
        };
        match answer.outcome {
            Outcome::Applied => {
                latencies.record(begun.elapsed());
                if let Some(series) = &mut self.series {
                    series.record(begun.elapsed());
                }
                self.acknowledged.insert(answer.id);
            }
            Outcome::Unknown => self.unknown += 1,
            Outcome::Refused { leader } => {
                // Certainly not done, so the same command may be proposed again.
                let named = leader.filter(|node| *node < cluster.nodes() && *node != self.target);
                if let Some(node) = named {
                    self.target = node;
                    cluster.submit(node, answer.id);
                } else {
                    // A leader that refuses is busy: ask it again, a little later.
                    self.leaderless |= leader.is_none();
                    self.retries.push((Instant::now() + RETRY, answer.id));
                }
                return;
            }
        }
        self.outstanding.remove(&answer.id);
        self.idle.push(answer.id.client);
    }

    /// Proposes refused commands again: to the same node if it leads, else to the next in turn.
    fn retry_due<C: Cluster>(&mut self, cluster: &mut C) {
        let now = Instant::now();
        if !self.retries.iter().any(|(due, _)| *due <= now) {
            return;
        }
        if std::mem::take(&mut self.leaderless) {
            self.target = (self.target + 1) % cluster.nodes();
        }
        let (due, later) = std::mem::take(&mut self.retries)
            .into_iter()
            .partition(|r| r.0 <= now);
        self.retries = later;
        let due: Vec<(Instant, CommandId)> = due;
        for (_, id) in due {
            cluster.submit(self.target, id);
        }
    }
}
