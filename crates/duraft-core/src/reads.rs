//! Linearizable reads (thesis 6.4).
//!
//! A read may be answered from a state that holds every write completed before the read came in. The
//! leader's commit index at that moment is such a state, under two conditions:
//! - **an entry of the own term is committed**: only then does the leader know everything that earlier
//!   ones have committed. Before that a read waits for the entry that begins the term;
//! - **it still leads**: a quorum answers a heartbeat round that began **after** the read came in. An
//!   answer to an earlier round proves nothing about now. Or a lease vouches for it (`lease.rs`).
//!
//! Rounds are batched: the first read begins one at once; those that come while it is under way share
//! the next. The round of the timer serves as well, so a lost answer needs nothing of its own.
//!
//! A follower asks its leader. One question is under way at a time and stands for all reads that came
//! before it was sent; it is asked anew, under a new number, after a heartbeat interval. An answer is
//! bound to the asker's life and the question's number, and counts for no read that came later.
//!
//! ```text
//! reads      r1 r2    r3          r1, r2 wait for question 1; r3 came after it was sent: question 2
//! questions       q1      a1  q2
//! ```
//!
//! Whoever waits under a leadership that ends is told so: the next leader may have committed more.

use crate::io::{Output, ReadBasis, Reject};
use crate::message::Message;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Incarnation, Index, NodeId, ProposalId, Term};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Reads that wait. They belong to a leadership, own or followed, but must be answered when it ends:
/// so they stand beside the role, with its name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reads {
    /// The leadership they wait under.
    under: Option<(Term, NodeId)>,
    /// On a leader, oldest first: rounds and indices never decrease.
    led: VecDeque<Led>,
    /// The last round that was begun because of a read.
    begun: u64,
    /// On a follower, oldest first: numbers never decrease.
    forwarded: VecDeque<Forwarded>,
    /// The last question of this life, and the tick it was sent in.
    question: u64,
    asked_at: u64,
}

/// A read that waits for its leader to be confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Led {
    asker: Asker,
    /// The first heartbeat round that began after it came in.
    round: u64,
    /// What must be committed, and what it will be answered with.
    index: Index,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Client(ProposalId),
    Peer {
        peer: NodeId,
        incarnation: Incarnation,
        question: u64,
    },
}

/// A read that waits for the leader's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Forwarded {
    id: ProposalId,
    /// The first question that was sent after it came in.
    question: u64,
}

impl Reads {
    /// How many wait: on this node's leadership, and on another's.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.led.len(), self.forwarded.len())
    }

    /// The last question asked.
    pub(crate) fn question(&self) -> u64 {
        self.question
    }
}

impl Raft {
    /// A client reads.
    pub(crate) fn on_read(&mut self, id: ProposalId, basis: ReadBasis, out: &mut Vec<Output>) {
        let (led, forwarded) = self.reads.waiting();
        let full =
            led + forwarded >= self.config.reads_max && !self.plants.has(Plant::ReadsUnbounded);
        match (&self.role, self.leader()) {
            (_, None) => self.reject(id, Reject::NotLeader, out),
            (Role::Leader(_), Some(_)) => {
                let leased = basis == ReadBasis::Lease && self.has_committed_own_term();
                if leased && let Some(round) = self.lease_round() {
                    out.push(Output::ReadReady {
                        id,
                        index: self.commit(),
                        lease: Some(round),
                    });
                    return;
                }
                if full {
                    self.reject(id, Reject::ReadLimit, out);
                } else {
                    self.lead_read(Asker::Client(id), out);
                }
            }
            (_, Some(_)) if full => self.reject(id, Reject::ReadLimit, out),
            (_, Some(_)) => {
                let question = self.reads.question + 1;
                self.reads.forwarded.push_back(Forwarded { id, question });
                self.ask_leader(out);
            }
        }
    }

    /// Has this leader committed an entry of its own term?
    pub(crate) fn has_committed_own_term(&self) -> bool {
        (self.role.leader()).is_some_and(|leader| self.commit > leader.term_begin)
    }

    /// A read that this leader answers when it is confirmed.
    fn lead_read(&mut self, asker: Asker, out: &mut Vec<Output>) {
        let leader = self.role.leader().expect("only leaders are asked");
        // The entry that begins the term comes after everything that was ever committed before it.
        let known = if self.commit > leader.term_begin || self.plants.has(Plant::ReadBeforeTerm) {
            self.commit()
        } else {
            self.log.first_after(leader.term_begin)
        };
        let round = if self.plants.has(Plant::ReadOldRound) {
            leader.round
        } else {
            leader.round + 1
        };
        self.reads.led.push_back(Led {
            asker,
            round,
            index: known,
        });
        self.confirm_reads(out);
    }

    /// The last heartbeat round that a quorum has answered. This node answers all of its own.
    pub(crate) fn confirmed_round(&self) -> u64 {
        let Role::Leader(leader) = &self.role else {
            return 0;
        };
        self.memberships.active().quorum_value(0, |id| {
            if id == self.me.id {
                u64::MAX
            } else {
                leader.progress.get(&id).map_or(0, |peer| peer.answered)
            }
        })
    }

    /// Answers the reads that are confirmed, and begins a round for those that came since the last.
    pub(crate) fn confirm_reads(&mut self, out: &mut Vec<Output>) {
        if self.reads.led.is_empty() {
            return;
        }
        let (confirmed, commit) = (self.confirmed_round(), self.commit());
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let latest = leader.round;
        while let Some(read) = self.reads.led.front().copied()
            && read.round <= confirmed
            && read.index <= commit
        {
            self.reads.led.pop_front();
            match read.asker {
                Asker::Client(id) => out.push(Output::ReadReady {
                    id,
                    index: read.index,
                    lease: None,
                }),
                Asker::Peer {
                    peer,
                    incarnation,
                    question,
                } => {
                    let message = Message::ReadIndexReply {
                        id: question,
                        asker: incarnation,
                        index: Some(read.index),
                    };
                    out.push(self.me.send(peer, self.hard.term, message));
                }
            }
        }
        let waits = (self.reads.led.back()).is_some_and(|read| read.round > latest);
        // One round of reads at a time, or a burst of reads would be a burst of heartbeats.
        if waits && self.reads.begun <= confirmed && !self.is_removed() {
            self.begin_round(out);
            self.reads.begun = latest + 1;
        }
    }

    /// A follower asks for the read index of its leader. A question says nothing about this node, but
    /// it carries a term.
    pub(crate) fn on_read_index(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        question: u64,
        out: &mut Vec<Output>,
    ) {
        if term != self.hard.term || self.role.leader().is_none() {
            return;
        }
        let asker = Asker::Peer {
            peer: from,
            incarnation,
            question,
        };
        if self.reads.led.iter().any(|read| read.asker == asker) {
            return;
        }
        let (led, _) = self.reads.waiting();
        if led < self.config.reads_max {
            self.lead_read(asker, out);
        } else {
            let message = Message::ReadIndexReply {
                id: question,
                asker: incarnation,
                index: None,
            };
            out.push(self.me.send(from, term, message));
        }
    }

    /// The leader has answered a question. It answers every read that came before that question was
    /// sent, and none that came later.
    pub(crate) fn on_read_index_reply(
        &mut self,
        from: NodeId,
        term: Term,
        asker: Incarnation,
        answer: (u64, Option<Index>),
        out: &mut Vec<Output>,
    ) {
        let (question, index) = answer;
        let ours = asker == self.me.incarnation || self.plants.has(Plant::ReadsOfEarlierLives);
        let asked = ours && question <= self.reads.question;
        if term != self.hard.term || !self.follows(from) || !asked {
            return;
        }
        // It cannot say now: the next question goes out with the ticks.
        let Some(index) = index else {
            return;
        };
        while let Some(read) = self.reads.forwarded.front().copied()
            && read.question <= question
        {
            self.reads.forwarded.pop_front();
            out.push(Output::ReadReady {
                id: read.id,
                index,
                lease: None,
            });
        }
        self.ask_leader(out);
    }

    /// Sends the question of the reads that came since the last one, if that one is answered.
    fn ask_leader(&mut self, out: &mut Vec<Output>) {
        let waits =
            (self.reads.forwarded.front()).is_some_and(|read| read.question > self.reads.question);
        if waits {
            self.send_question(out);
        }
    }

    /// A tick of a follower: a question without an answer is asked anew.
    pub(crate) fn ask_again(&mut self, out: &mut Vec<Output>) {
        let waited = self.now - self.reads.asked_at >= u64::from(self.config.heartbeat_ticks);
        if waited && !self.reads.forwarded.is_empty() {
            self.send_question(out);
        }
    }

    fn send_question(&mut self, out: &mut Vec<Output>) {
        let Some(leader) = self.leader() else {
            return;
        };
        // While the term is on its way to the disk nothing may carry it; a tick later perhaps.
        if !self.is_term_durable() {
            return;
        }
        self.reads.question += 1;
        self.reads.asked_at = self.now;
        let id = self.reads.question;
        out.push(
            self.me
                .send(leader, self.hard.term, Message::ReadIndex { id }),
        );
    }

    /// The end of a step: reads that wait under another leadership than the present one wait in vain.
    pub(crate) fn end_reads(&mut self, out: &mut Vec<Output>) {
        let under = self.leader().map(|leader| (self.hard.term, leader));
        if under == self.reads.under {
            return;
        }
        self.reads.under = under;
        self.reads.begun = 0;
        let led = core::mem::take(&mut self.reads.led);
        let forwarded = core::mem::take(&mut self.reads.forwarded);
        for read in led {
            if let Asker::Client(id) = read.asker {
                self.reject(id, Reject::LostLeadership, out);
            }
        }
        for read in forwarded {
            self.reject(read.id, Reject::LostLeadership, out);
        }
    }
}
