//! What a run did, and how a violation is told.

use super::Sim;
use duraft::RequestErrorKind;
use duraft_core::mix64;
use std::fmt;

/// What a run did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// A number that two runs share only if they took the same course.
    pub trace_hash: u64,
    /// Events.
    pub events: u64,
    /// Turns of drivers.
    pub turns: u64,
    /// Turns of logs.
    pub commits: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages and answers whose promise was checked against recovery.
    pub promises: u64,
    /// Times recovery was run on synced bytes.
    pub recoveries: u64,
    /// Times a node became leader.
    pub elections: u64,
    /// Lives begun.
    pub starts: u64,
    /// Lives ended by a crash.
    pub crashes: u64,
    /// Crashes in the midst of a commit.
    pub crashes_in_commits: u64,
    /// Crashes in the midst of recovery.
    pub crashes_in_recovery: u64,
    /// Crashes that were power losses.
    pub power_losses: u64,
    /// Times all nodes crashed at once.
    pub blackouts: u64,
    /// Times a process stood still.
    pub pauses: u64,
    /// Lives ended by a failed write or sync.
    pub poisoned: u64,
    /// Times the network was cut or joined.
    pub partitions: u64,
    /// Reads of stored batches.
    pub loads: u64,
    /// Commands submitted.
    pub submitted: u64,
    /// Commands acknowledged.
    pub acknowledged: u64,
    /// Commands certainly without effect.
    pub rejected: u64,
    /// Commands whose outcome is unknown.
    pub unknown: u64,
    /// Commands applied.
    pub applied: u64,
    /// Ticks from the end of all faults to convergence.
    pub healed_in_ticks: u64,
    /// Everything that happened, where the configuration asks for it.
    pub trace: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Report {
        Report {
            seed,
            ..Report::default()
        }
    }

    pub(super) fn fold(&mut self, words: &[u64]) {
        for word in words {
            self.trace_hash = mix64(self.trace_hash ^ word);
        }
    }
}

impl Sim {
    pub(super) fn finish_report(&mut self) {
        let kinds = |wanted: Option<RequestErrorKind>| {
            let outcomes = self.history.outcomes.values();
            outcomes
                .filter(|o| o.as_ref().err().map(|e| e.kind()) == wanted)
                .count() as u64
        };
        let busy = kinds(Some(RequestErrorKind::Busy));
        self.report.acknowledged = kinds(None);
        self.report.rejected = busy + kinds(Some(RequestErrorKind::Rejected));
        self.report.unknown = kinds(Some(RequestErrorKind::OutcomeUnknown));
        self.report.submitted = self.history.submitted;
        self.report.applied = self.history.applied_len() as u64;
    }

    /// The state of all nodes, for people.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("committed up to {}", self.history.committed_end());
        for host in &self.hosts {
            match &host.life {
                None => text.push_str(&format!("; node {} is down", host.id)),
                Some(life) => {
                    let raft = life.driver.raft();
                    text.push_str(&format!(
                        "; node {} is {:?} of term {} with last {}, durable {}, commit {}, applied {}, {} submissions",
                        host.id,
                        raft.role(),
                        raft.term(),
                        raft.last(),
                        raft.durable(),
                        raft.commit(),
                        raft.applied(),
                        life.submissions.len(),
                    ));
                }
            }
        }
        text
    }
}

/// Something that must never happen, and how to see it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The run's seed.
    pub seed: u64,
    /// Tick at which it was found.
    pub tick: u64,
    /// Number of the event that showed it.
    pub event: u64,
    /// What is wrong.
    pub what: String,
    /// What happened before, where the configuration asks for it.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, tick {}, event {}: {} (replay: the same SimConfig with seed {}, trace on)",
            self.seed, self.tick, self.event, self.what, self.seed
        )?;
        self.trace.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl std::error::Error for Violation {}
