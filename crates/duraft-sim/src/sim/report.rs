//! What a run did, and how a violation is told.

use super::Sim;
use crate::trace::TraceEvent;
use duraft::RequestErrorKind;
use duraft_core::mix64;
use std::fmt;

/// The counters of a report, each with what it counts.
macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// What a run did, or with [`Report::add`] what several did.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Report {
            /// The run's seed.
            pub seed: u64,
            /// A number that two runs share only if they took the same course.
            pub trace_hash: u64,
            /// Everything that happened, where the configuration asks for it.
            pub trace: Vec<TraceEvent>,
            /// The longest time in ticks from the end of all faults to the first commit.
            pub slowest_commit: u64,
            /// The longest time in ticks from the end of all faults to convergence.
            pub slowest_convergence: u64,
            /// Why damaged nodes were not healed.
            pub unhealed_why: Vec<String>,
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Report {
            /// All counters by name.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                let mut counts = vec![$((stringify!($name), self.$name),)+];
                counts.push(("slowest_commit", self.slowest_commit));
                counts.push(("slowest_convergence", self.slowest_convergence));
                counts
            }

            /// Is this counter, where several runs are added up, the largest of theirs?
            pub fn is_extreme(name: &str) -> bool {
                matches!(name, "slowest_commit" | "slowest_convergence")
            }

            /// One of them by its name.
            pub fn count(&self, name: &str) -> Option<u64> {
                let counts = self.counts();
                counts.iter().find(|(known, _)| *known == name).map(|(_, count)| *count)
            }

            /// Adds another run's counters to these.
            pub fn add(&mut self, other: &Report) {
                $(self.$name += other.$name;)+
                self.slowest_commit = self.slowest_commit.max(other.slowest_commit);
                self.slowest_convergence = self.slowest_convergence.max(other.slowest_convergence);
                self.unhealed_why.extend_from_slice(&other.unhealed_why);
            }
        }
    };
}

counters! {
    /// Ticks of virtual time.
    ticks,
    /// Events.
    events,
    /// Turns of drivers.
    turns,
    /// Steps of cores that were found to be actions of the specification, or none.
    spec_steps,
    /// Actions among them.
    spec_actions,
    /// Turns of logs.
    commits,
    /// Messages sent.
    messages,
    /// Messages and answers whose promise was checked against recovery.
    promises,
    /// Times recovery was run on synced bytes.
    recoveries,
    /// Times a node became leader.
    elections,
    /// Terms in which two candidates or more got a vote and nobody led.
    votes_split,
    /// Cuts of a log below what was durable of it.
    cuts_of_durable,
    /// Lives begun.
    starts,
    /// Lives ended by a crash.
    crashes,
    /// Times that others crashed along with a node.
    crashes_together,
    /// Crashes just before or after a message.
    crashes_at_messages,
    /// Crashes in the midst of a commit.
    crashes_in_commits,
    /// Crashes in the midst of the first write of a new segment, or of its sync.
    crashes_in_rotations,
    /// Crashes in the midst of recovery.
    crashes_in_recovery,
    /// Crashes that were power losses.
    power_losses,
    /// Times all nodes crashed at once.
    blackouts,
    /// Times a process stood still.
    pauses,
    /// Lives ended by a failed write or sync.
    poisoned,
    /// Times the network was cut or joined.
    partitions,
    /// Times that no link was cut any more.
    partitions_healed,
    /// Cuts in one direction only.
    one_way_partitions,
    /// Clocks that jumped ahead.
    clock_jumps,
    /// Disks that were full for a while.
    disks_full,
    /// Times that a log had no slot to go on in.
    storage_low,
    /// Reads of stored batches.
    loads,
    /// Commands submitted.
    submitted,
    /// Commands acknowledged.
    acknowledged,
    /// Commands certainly without effect.
    rejected,
    /// Commands whose outcome is unknown.
    unknown,
    /// Commands applied.
    applied,
    /// Calls of clients that the workload judged.
    calls_judged,
    /// Commands of sessions sent once more.
    retries,
    /// Sessions opened.
    sessions,
    /// Sessions that a client found expired.
    sessions_expired,
    /// Reads answered after a quorum was asked.
    reads,
    /// Reads answered on a wish for a lease.
    lease_reads,
    /// Reads whose lease ended before the answer.
    late_leases,
    /// Reads not answered.
    reads_failed,
    /// Transfers of leadership and steps down that were done.
    handovers,
    /// Membership changes that clients were told to be done.
    changes,
    /// Nodes that joined.
    joined,
    /// Memberships committed.
    memberships,
    /// Snapshots taken.
    snapshots,
    /// Snapshots taken because a peer needs a newer one.
    snapshots_wanted,
    /// Snapshot files removed after a later one.
    retired,
    /// Times a snapshot was to be sent.
    snapshots_sent,
    /// Snapshots received whole.
    received,
    /// Snapshots of leaders restored.
    installs,
    /// Frames of transfers sent.
    frames,
    /// Crashes in the midst of writing or removing snapshots.
    crashes_in_snapshots,
    /// Crashes in the midst of receiving snapshots.
    crashes_in_transfers,
    /// Disks damaged while their node was down.
    damages,
    /// Damages that the node noticed; the others hit nothing that counts.
    damages_reported,
    /// Disks lost whole.
    wipes,
    /// Damaged nodes that became whole.
    healed,
    /// Nodes that were damaged still when everything else had converged.
    unhealed,
    /// Lives ended by a node itself because of what its disk lacks.
    halted_damaged,
    /// Messages with entries or pieces of snapshots that the one node which loses them has lost.
    data_lost,
    /// Batches that were given another content.
    forged,
    /// Damaged disks that no store could be opened on: wiped by hand.
    unopenable,
    /// Completions of the disk that came again, late or in another life, and changed nothing.
    stale_completions,
    /// Clusters at rest whose disks and states were compared.
    rests_checked,
    /// Connections that a node wanted made anew.
    redials,
    /// Syncs that took a hundred times as long.
    stalls,
    /// Ticks from the end of all faults to convergence.
    healed_in_ticks,
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
            let outcomes = self.history.outcomes.values().flatten();
            outcomes
                .filter(|o| o.as_ref().err().map(|e| e.kind()) == wanted)
                .count() as u64
        };
        let busy = kinds(Some(RequestErrorKind::Busy));
        self.report.acknowledged = kinds(None);
        self.report.rejected = busy + kinds(Some(RequestErrorKind::Rejected));
        self.report.unknown = kinds(Some(RequestErrorKind::OutcomeUnknown));
        self.report.submitted = self.history.submitted;
        (self.report.spec_steps, self.report.spec_actions) = self.judge.lock().counts();
        self.report.votes_split = self.history.votes_split();
        self.report.memberships = self.history.changes();
        self.report.applied = self.history.applied_len() as u64;
    }

    /// The state of all nodes, for people.
    pub(super) fn describe(&self) -> String {
        let mut text = format!(
            "committed up to {}; {:?}",
            self.history.committed_end(),
            self.history.latest_membership()
        );
        if !self.is_quiet() {
            text.push_str(&format!("; clients wait: {}", self.waiting()));
        }
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
                    if host.damaged {
                        text.push_str(&format!(", damaged: {:?}", raft.damage_status()));
                    }
                    for peer in raft.membership().members() {
                        if let Some(progress) = raft.progress(peer) {
                            text.push_str(&format!(", {peer}: {progress:?}"));
                        }
                    }
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
    /// Occurrences of trouble up to then.
    pub troubles: u64,
    /// What is wrong.
    pub what: String,
    /// What happened before, where the configuration asks for it.
    pub trace: Vec<TraceEvent>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, tick {}, event {}: {}",
            self.seed, self.tick, self.event, self.what
        )
    }
}

impl std::error::Error for Violation {}
