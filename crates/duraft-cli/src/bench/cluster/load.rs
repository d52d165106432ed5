//! Closed-loop clients over any cluster: each has one command outstanding and proposes the next one
//! when the answer is there. Remembers what was acknowledged.

use super::command::{CommandId, CommandSet};
use crate::bench::error::BenchError;
use crate::bench::summary::Latencies;
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
    pub(crate) acknowledged: CommandSet,
    pub(crate) unknown: u64,
}

/// One slice of load.
pub(crate) struct Slice {
    pub(crate) latencies: Latencies,
    pub(crate) elapsed: Duration,
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
        for client in 0..self.clients {
            self.propose_next(cluster, client);
        }
        cluster.flush();
        while !self.outstanding.is_empty() {
            let loading = start.elapsed() < slice;
            if !loading && start.elapsed() > slice + deadline {
                return Err(BenchError::Deadline {
                    what: "an answer to every outstanding command",
                    seconds: deadline.as_secs(),
                });
            }
            during(cluster, self.target, start.elapsed())?;
            self.retry_due(cluster);
            match self.answers.recv_timeout(RETRY) {
                Ok(first) => {
                    self.take(cluster, first, loading, &mut latencies);
                    while let Ok(answer) = self.answers.try_recv() {
                        self.take(cluster, answer, loading, &mut latencies);
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
        Ok(Slice {
            latencies,
            elapsed: start.elapsed(),
        })
    }

    fn propose_next<C: Cluster>(&mut self, cluster: &mut C, client: u32) {
        let seq = &mut self.next_seq[client as usize];
        let id = CommandId { client, seq: *seq };
        *seq += 1;
        self.outstanding.insert(id, Instant::now());
        cluster.submit(self.target, id);
    }

    fn take<C: Cluster>(
        &mut self,
        cluster: &mut C,
        answer: Answer,
        loading: bool,
        latencies: &mut Latencies,
    ) {
        let Some(begun) = self.outstanding.get(&answer.id).copied() else {
            return;
        };
        match answer.outcome {
            Outcome::Applied => {
                latencies.record(begun.elapsed());
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
        if loading {
            self.propose_next(cluster, answer.id.client);
        }
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
