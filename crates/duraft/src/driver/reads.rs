//! The driver's reads: asked of the core, handed to the state machine's thread.

use super::{Driver, Effect, rejected};
use crate::outcome::{RejectReason, RequestError};
use crate::reads::{ReadRequest, ReadWork};
use duraft_core::{Envelope, Index, Input, Message, ProposalId, ReadBasis, Reject, Term};
use std::collections::VecDeque;
use std::time::Duration;

/// Rounds remembered. One that was forgotten costs a read a round to a quorum.
const ROUNDS_MAX: usize = 1024;

/// When this leader sent its heartbeat rounds, oldest first, all of one term.
#[derive(Debug, Default)]
pub(super) struct SentRounds {
    term: Term,
    rounds: VecDeque<(u64, Duration)>,
}

impl SentRounds {
    /// A message goes out. What counts for a round is its first message.
    pub(super) fn note(&mut self, envelope: &Envelope, now: Duration) {
        let Message::Heartbeat { round, .. } = envelope.message else {
            return;
        };
        if envelope.term != self.term {
            self.term = envelope.term;
            self.rounds.clear();
        }
        if self.rounds.back().is_none_or(|(last, _)| *last < round) {
            if self.rounds.len() == ROUNDS_MAX {
                self.rounds.pop_front();
            }
            self.rounds.push_back((round, now));
        }
    }

    /// When the first message of `round` went out in `term`. Earlier rounds are forgotten: no later
    /// read can count on them.
    fn sent(&mut self, term: Term, round: u64) -> Option<Duration> {
        if term != self.term {
            return None;
        }
        while self.rounds.front().is_some_and(|(first, _)| *first < round) {
            self.rounds.pop_front();
        }
        let (first, sent) = self.rounds.front()?;
        (*first == round).then_some(*sent)
    }
}

impl Driver {
    /// Asks the core from which index on the reads of this turn may be answered: once for all of one
    /// basis, so that they share a round to a quorum. Asked one by one, the first would begin a round
    /// and the others wait for it to end and for one more.
    pub(super) fn ask_gathered(&mut self, effects: &mut Vec<Effect>) {
        if self.gathered.is_empty() {
            return;
        }
        let by_lease = |request: &ReadRequest| request.basis == ReadBasis::Lease;
        let (leased, others) = self.gathered.drain(..).partition(by_lease);
        self.ask(ReadBasis::Quorum, others, effects);
        self.ask(ReadBasis::Lease, leased, effects);
    }

    fn ask(&mut self, basis: ReadBasis, requests: Vec<ReadRequest>, effects: &mut Vec<Effect>) {
        if requests.is_empty() {
            return;
        }
        // By the question before this one, perhaps.
        if self.stopped.is_some() {
            fail_reads(requests, &rejected(RejectReason::Stopped, None), effects);
            return;
        }
        let id = self.take_id();
        for request in &requests {
            self.note_deadline(request.deadline);
        }
        self.reads.insert(id, requests);
        self.step(Input::Read { id, basis }, effects);
        // The core counts questions. Those that wait are bounded here; what a lease answers has gone.
        let over = self
            .waiting_reads()
            .saturating_sub(self.raft.config().reads_max);
        if over > 0
            && let Some(requests) = self.reads.get_mut(&id)
        {
            let kept = requests.len().saturating_sub(over);
            let error = RequestError::refused(Reject::ReadLimit, self.raft.leader());
            fail_reads(requests.drain(kept..), &error, effects);
        }
    }

    /// The core has named the index. Where a lease vouches for it, the lease ends a fixed time after
    /// its round was sent; a round whose sending is not known vouches for nothing.
    pub(super) fn ready(
        &mut self,
        id: ProposalId,
        index: Index,
        lease: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(requests) = self.reads.remove(&id) else {
            return;
        };
        let lease_until = match lease {
            None => None,
            Some(round) => {
                let sent = self.rounds.sent(self.raft.term(), round);
                match sent.zip(self.options.lease) {
                    Some((sent, lease)) => Some(sent + lease),
                    None => {
                        self.ask(ReadBasis::Quorum, requests, effects);
                        return;
                    }
                }
            }
        };
        effects.extend(requests.into_iter().map(|request| {
            Effect::Read(ReadWork {
                index,
                lease_until,
                request,
            })
        }));
    }

    /// Ends the reads whose deadline has come; returns the earliest deadline that is left.
    pub(super) fn end_expired_reads(&mut self, effects: &mut Vec<Effect>) -> Option<u64> {
        let now = self.now.tick;
        let expired = |request: &mut ReadRequest| request.deadline.is_some_and(|at| at <= now);
        let error = rejected(RejectReason::Expired, None);
        for requests in self.reads.values_mut() {
            fail_reads(requests.extract_if(.., expired), &error, effects);
        }
        self.reads.retain(|_, requests| !requests.is_empty());
        let waiting = self.reads.values().flatten();
        waiting.filter_map(|request| request.deadline).min()
    }
}

/// Tells clients that nothing was read.
pub(super) fn fail_reads(
    requests: impl IntoIterator<Item = ReadRequest>,
    error: &RequestError,
    effects: &mut Vec<Effect>,
) {
    let fail = |request: ReadRequest| Effect::FailRead(request.job, error.clone());
    effects.extend(requests.into_iter().map(fail));
}

#[cfg(test)]
mod tests {
    use super::*;
    use duraft_core::{GroupId, Incarnation, NodeId};

    fn heartbeat(term: u64, round: u64) -> Envelope {
        Envelope {
            group: GroupId(1),
            from: NodeId(1),
            incarnation: Incarnation(1),
            to: NodeId(2),
            term: Term(term),
            message: Message::Heartbeat {
                commit: Index(0),
                round,
            },
        }
    }

    #[test]
    fn round_counts_from_its_first_message() {
        // Counting from a repetition would make the lease outlive the voters' patience.
        let mut rounds = SentRounds::default();
        rounds.note(&heartbeat(3, 1), Duration::from_secs(10));
        rounds.note(&heartbeat(3, 2), Duration::from_secs(20));
        rounds.note(&heartbeat(3, 2), Duration::from_secs(30));
        rounds.note(&heartbeat(3, 1), Duration::from_secs(40));
        assert_eq!(rounds.sent(Term(3), 1), Some(Duration::from_secs(10)));
        assert_eq!(rounds.sent(Term(3), 2), Some(Duration::from_secs(20)));
        assert_eq!(rounds.sent(Term(3), 3), None, "never sent");
    }

    #[test]
    fn rounds_of_another_term_vouch_for_nothing() {
        let mut rounds = SentRounds::default();
        rounds.note(&heartbeat(3, 1), Duration::from_secs(10));
        assert_eq!(rounds.sent(Term(4), 1), None);
        rounds.note(&heartbeat(4, 7), Duration::from_secs(20));
        assert_eq!(rounds.sent(Term(3), 1), None);
        assert_eq!(rounds.sent(Term(4), 7), Some(Duration::from_secs(20)));
    }

    #[test]
    fn memory_of_rounds_is_bounded() {
        let mut rounds = SentRounds::default();
        for round in 1..=3000 {
            rounds.note(&heartbeat(1, round), Duration::from_secs(round));
        }
        assert_eq!(rounds.rounds.len(), ROUNDS_MAX);
        assert_eq!(rounds.sent(Term(1), 3000), Some(Duration::from_secs(3000)));
    }
}
