//! Leases: when a leader may answer reads without asking (RULES.md 26).
//!
//! A voter that answers a heartbeat promises, by answering, to help nobody else into office for one
//! least election timeout `E` of its own clock. A leader whose round `r` was answered by a quorum can
//! count on that from the moment it **sent** `r`, which is before any of these promises began: not from
//! the answers, which may have travelled for long (F5).
//!
//! The bound, in ticks. Let `p` be the length of the leader's tick and let no voter's tick be shorter
//! than `p (1 - d)`. The leader sends in its tick `s` and reads in its tick `n`: between the two lies
//! less than `(n - s + 1) p`. A voter refuses until it has ticked `E` times more, and the first of these
//! may come at once: that is more than `(E - 1) p (1 - d)`. So `n - s + 1 <= (E - 1)(1 - d)`, which is
//! [`Config::lease_ticks`] rounded down, is on the safe side.
//!
//! What the promise must outlast:
//! - **a later term.** A voter may learn of one from anybody and follow nobody then; the promise is kept
//!   apart from the role and the term, and holds all the same.
//! - **a restart.** The promise is not on disk, so a new life keeps quiet for one whole `E`, whoever
//!   asks: it grants nothing and does not campaign.
//! - **a transfer.** Its election must not wait, so voters answer it in spite of their promise. The
//!   leader who asks for it gives its lease up first, for the rest of its term.
//! - **a membership change.** Two consecutive memberships share a voter in any two quorums, and only the
//!   leader itself can bring about the next.
//!
//! The host has the last word: ticks stop while a process is suspended, so it holds the round's send
//! time against a clock that counts that, after the state machine has answered.

use crate::config::Config;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::Role;
use alloc::collections::VecDeque;

/// The rounds a lease may count from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lease {
    /// The first round of each tick in which one began, with that tick; those of the last `E` ticks.
    rounds: VecDeque<(u64, u64)>,
    /// This leader has asked another node to take over: no more leases in this term.
    pub(crate) given_up: bool,
}

impl Lease {
    /// A heartbeat round goes out.
    pub(crate) fn sent(&mut self, round: u64, now: u64, keep: u32) {
        if self.rounds.back().is_none_or(|(_, tick)| *tick < now) {
            self.rounds.push_back((round, now));
        }
        while (self.rounds.front()).is_some_and(|(_, tick)| now - *tick > u64::from(keep)) {
            self.rounds.pop_front();
        }
    }

    /// The last known round that `confirmed` proves answered, and when it went out.
    fn latest(&self, confirmed: u64) -> Option<(u64, u64)> {
        if confirmed == u64::MAX {
            return None;
        }
        let answered = self
            .rounds
            .partition_point(|(round, _)| *round <= confirmed);
        self.rounds.get(answered.checked_sub(1)?).copied()
    }

    /// How many rounds are remembered.
    pub(crate) fn len(&self) -> usize {
        self.rounds.len()
    }
}

impl Config {
    /// How long a lease lasts from the tick its round was sent in: a read in a tick fewer than this
    /// many later may be answered. `None` where leases are off.
    ///
    /// A host's deadline is the send time of the round plus this many ticks.
    pub fn lease_ticks(&self) -> Option<u32> {
        const MILLION: u64 = 1_000_000;
        let drift = u64::from(self.lease?.drift_ppm).min(MILLION);
        let span = u64::from(self.election_ticks.saturating_sub(1)) * (MILLION - drift) / MILLION;
        u32::try_from(span).ok()
    }
}

impl Raft {
    /// The round this leader's lease counts from, if it holds one.
    pub(crate) fn lease_round(&self) -> Option<u64> {
        let lasts = u64::from(self.config.lease_ticks()?);
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        if leader.lease.given_up && !self.plants.has(Plant::TransferKeepsLease) {
            return None;
        }
        // Where nobody else votes no round is ever answered, and none is needed: the read asks nobody.
        let (round, sent) = leader.lease.latest(self.confirmed_round())?;
        let began = if self.plants.has(Plant::LeaseFromReceipt) {
            leader.confirmed_at
        } else {
            sent
        };
        (self.now - began < lasts).then_some(round)
    }

    /// A leader was heard, and is answered: nobody else is helped into office for a while.
    pub(crate) fn promise(&mut self) {
        if self.config.lease.is_some() {
            self.promised = self.now + u64::from(self.config.election_ticks);
        }
    }

    /// Must this node help nobody into office now? `forced`: the leader it may have promised itself to
    /// has asked for this election.
    pub(crate) fn is_bound(&self, forced: bool) -> bool {
        if self.config.lease.is_none() {
            return false;
        }
        // Of the life before this one nobody knows what it has promised.
        let forgotten = self.now < u64::from(self.config.election_ticks)
            && !self.plants.has(Plant::RestartedVoterGrants);
        forgotten || (!forced && self.now < self.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{GroupId, NodeId};

    #[test]
    fn a_lease_is_strictly_shorter_than_any_voters_promise() {
        // The bound of the module documentation, in real time, over clocks that drift as stated.
        for election_ticks in [6, 10, 100, 1000] {
            for drift_ppm in [0, 1, 500, 50_000, 100_000] {
                let config = Config {
                    election_ticks,
                    lease: Some(crate::Lease { drift_ppm }),
                    ..Config::new(NodeId(1), GroupId(1), 1)
                };
                let lasts = f64::from(config.lease_ticks().expect("leases are on"));
                let voter = 1.0 - f64::from(drift_ppm) / 1e6;
                let promise = f64::from(election_ticks - 1) * voter;
                // The last tick in which it may be used ends `lasts` ticks after the send tick began.
                assert!(lasts <= promise, "{election_ticks}, {drift_ppm}");
                assert!(lasts < f64::from(election_ticks) * voter);
            }
        }
    }

    #[test]
    fn rounds_are_found_by_what_was_answered_and_forgotten_with_age() {
        let mut lease = Lease::default();
        lease.sent(1, 10, 10);
        lease.sent(2, 10, 10);
        lease.sent(3, 12, 10);
        assert_eq!(lease.latest(0), None);
        assert_eq!(lease.latest(1), Some((1, 10)));
        assert_eq!(
            lease.latest(2),
            Some((1, 10)),
            "the same tick, counted early"
        );
        assert_eq!(lease.latest(9), Some((3, 12)));
        lease.sent(4, 22, 10);
        assert_eq!(lease.latest(2), None);
        assert_eq!(lease.len(), 2);
    }
}
