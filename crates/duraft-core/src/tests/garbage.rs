//! Lies: messages no honest peer would send, completions no honest host would report. Nothing of it
//! may panic, and the node's own invariants hold whatever the others say.

use super::rig::*;
use crate::rng::Rng;
use crate::*;
use alloc::vec::Vec;
use bytes::Bytes;

struct Liar {
    rng: Rng,
    /// Batches and positions that are or were real somewhere.
    batches: Vec<Batch>,
}

impl Liar {
    fn number(&mut self, near: u64) -> u64 {
        match self.rng.below(8) {
            0 => u64::MAX - u64::from(self.rng.below(3)),
            1 => 0,
            2 => near.wrapping_add(u64::from(self.rng.below(3))),
            3 => near.wrapping_sub(u64::from(self.rng.below(3))),
            _ => u64::from(self.rng.below(12)),
        }
    }

    fn log_id(&mut self, raft: &Raft) -> LogId {
        LogId {
            term: Term(self.number(raft.term().0)),
            index: Index(self.number(raft.last().index().0)),
        }
    }

    fn position(&mut self, raft: &Raft) -> Position {
        let known = raft.headers().len() as u32 + 1;
        let i = if self.rng.below(2) == 0 {
            known as usize - 1
        } else {
            self.rng.below(known) as usize
        };
        let real = (i.checked_sub(1))
            .and_then(|i| raft.headers().nth(i))
            .map_or(raft.start(), BatchHeader::position);
        match self.rng.below(60) {
            0 => Position {
                id: self.log_id(raft),
                digest: Digest(self.number(0)),
            },
            1 => Position {
                digest: Digest(1),
                ..real
            },
            _ => real,
        }
    }

    fn batches(&mut self, raft: &Raft, prev: Position) -> Vec<Batch> {
        let mut end = prev;
        let mut batches = Vec::new();
        for _ in 0..self.rng.below(3) {
            if self.rng.below(4) == 0 && !self.batches.is_empty() {
                let i = self.rng.below(self.batches.len() as u32) as usize;
                batches.push(self.batches[i].clone());
                continue;
            }
            let kind = match self.rng.below(400) {
                0..30 => BatchKind::Membership,
                30..100 => BatchKind::Noop,
                _ => BatchKind::Commands,
            };
            let count = if kind == BatchKind::Commands {
                1 + self.rng.below(3)
            } else {
                1
            };
            let body = Body {
                kind,
                codec: 0,
                count,
                checksum: self.rng.below(3),
                bytes: if kind == BatchKind::Membership && self.rng.below(9) > 0 {
                    Bytes::from(self.membership().encode())
                } else {
                    Bytes::from(alloc::vec![0; 4 * count as usize])
                },
            };
            let term = if self.rng.below(3) > 0 {
                raft.term()
            } else {
                Term(self.number(raft.term().0))
            };
            let Ok(mut batch) = body.seal(GROUP, &end, term) else {
                continue;
            };
            end = batch.header.position();
            match self.rng.below(12) {
                0 => batch.header.count = self.number(0) as u32,
                1 => batch.header.first = Index(self.number(0)),
                2 => batch.header.group = GroupId(0),
                3 => batch.header.body_len = 3,
                _ => {}
            }
            self.batches.push(batch.clone());
            batches.push(batch);
        }
        batches
    }

    /// Any membership, often one that this node is no part of.
    fn membership(&mut self) -> Membership {
        let mut side = |odds: u32| -> Vec<NodeId> {
            let ids = (0..6u64).filter(|_| self.rng.below(6) < odds);
            ids.map(NodeId).collect()
        };
        let (voters, learners) = (side(3), side(1));
        let learners = learners.into_iter().filter(|id| !voters.contains(id));
        let Ok(old) = Membership::new(voters.clone(), learners) else {
            return Membership::new([NodeId(1)], []).unwrap();
        };
        let next = self.changes();
        old.change(&next, Leave::Automatic).unwrap_or(old)
    }

    fn changes(&mut self) -> Vec<MemberChange> {
        let count = self.rng.below(3);
        let change = |_| {
            let (id, old) = (NodeId(self.number(3)), NodeId(self.number(3)));
            match self.rng.below(4) {
                0 => MemberChange::AddVoter(id),
                1 => MemberChange::Remove(id),
                2 => MemberChange::AddLearner {
                    id,
                    promotion: Promotion::Never,
                },
                _ => MemberChange::AddLearner {
                    id,
                    promotion: Promotion::WhenCaughtUp {
                        replacing: Some(old),
                    },
                },
            }
        };
        (0..count).map(change).collect()
    }

    /// What a client may ask of any node at any time.
    fn wish(&mut self) -> Input {
        let id = ProposalId(u64::from(self.rng.below(9)));
        match self.rng.below(8) {
            0 => Input::ChangeMembership {
                id,
                changes: self.changes(),
                leave: if self.rng.below(3) == 0 {
                    Leave::Explicit
                } else {
                    Leave::Automatic
                },
            },
            1 => Input::LeaveJoint { id },
            2 => Input::TransferLeadership {
                id,
                to: NodeId(self.number(2)),
            },
            3 if self.rng.below(4) == 0 => Input::StepDown { id },
            4 if self.rng.below(4) == 0 => Input::ForgetLeader,
            5 => Input::Read {
                id,
                basis: ReadBasis::Lease,
            },
            _ => Input::Read {
                id,
                basis: ReadBasis::Quorum,
            },
        }
    }

    fn message(&mut self, raft: &Raft) -> Message {
        match self.rng.below(13) {
            10 if self.rng.below(9) == 0 => Message::TimeoutNow,
            11 => Message::ReadIndex { id: self.number(3) },
            12 => Message::ReadIndexReply {
                id: self.number(raft.reads.question()),
                asker: Incarnation(1 + u64::from(self.rng.below(2))),
                index: (self.rng.below(4) > 0).then(|| Index(self.number(raft.last().index().0))),
            },
            0 => Message::PreVote {
                wanted: Term(self.number(raft.term().0)),
                last: self.log_id(raft),
            },
            1 => Message::PreVoteReply {
                wanted: Term(self.number(raft.term().0.saturating_add(1))),
                granted: self.rng.below(2) == 0,
            },
            2 => Message::Vote {
                last: self.log_id(raft),
                forced: self.rng.below(4) == 0,
            },
            3 => Message::VoteReply {
                granted: self.rng.below(2) == 0,
            },
            4 => Message::Heartbeat {
                commit: Index(self.number(raft.last().index().0)),
                round: self.number(3),
            },
            5 => Message::HeartbeatReply {
                round: self.number(3),
                health: crate::Health {
                    priority: self.rng.below(3) as u8,
                    impaired: self.rng.below(4) == 0,
                },
            },
            6 => Message::AppendReply(AppendReply::Accepted {
                matched: Index(self.number(raft.last().index().0)),
            }),
            7 => {
                let prev = self.position(raft).id;
                let hint = self.log_id(raft);
                Message::AppendReply(AppendReply::Rejected { prev, hint })
            }
            8 if self.rng.below(20) == 0 => {
                let (theirs, ours) = (self.position(raft), self.position(raft));
                Message::AppendReply(AppendReply::Divergence { theirs, ours })
            }
            _ => {
                let prev = self.position(raft);
                Message::Append {
                    prev,
                    batches: self.batches(raft, prev),
                    commit: Index(self.number(raft.last().index().0)),
                }
            }
        }
    }

    fn envelope(&mut self, raft: &Raft) -> Envelope {
        // Terms creep up, or every run would end at once in a term that nobody can follow.
        let term = match self.rng.below(200) {
            0 => self.number(0),
            1..4 => raft.term().0.saturating_add(1),
            10..20 => raft.term().0.saturating_sub(1),
            _ => raft.term().0,
        };
        Envelope {
            group: GroupId(GROUP.0 + u64::from(self.rng.below(30) == 0)),
            from: NodeId(u64::from(self.rng.below(5))),
            incarnation: Incarnation(1 + u64::from(self.rng.below(2))),
            to: NodeId(1 + u64::from(self.rng.below(30) == 0)),
            term: Term(term),
            message: self.message(raft),
        }
    }

    fn completion(&mut self, raft: &Raft) -> Completion {
        // Mostly true, sometimes of what was never asked for: that must halt, not panic.
        let wild = self.rng.below(200) == 0;
        let asked = raft.next_load.0 - 1;
        match self.rng.below(4) {
            0 if wild => Completion::WriteFailed,
            0 | 1 => Completion::Persisted {
                upto: if wild {
                    WriteSeq(self.number(raft.last_issued().0))
                } else {
                    let issued = raft.last_issued().0 as u32;
                    WriteSeq(u64::from(self.rng.below(issued + 1)))
                },
            },
            2 => Completion::Applied {
                upto: if wild {
                    Index(self.number(raft.handed().0))
                } else {
                    raft.handed()
                },
            },
            _ if asked == 0 && !wild => Completion::Persisted { upto: WriteSeq(0) },
            _ => {
                let prev = self.position(raft);
                Completion::Loaded {
                    load: LoadId(if wild { self.number(1) } else { asked }),
                    result: if self.rng.below(9) == 0 {
                        Err(LoadError::Corrupt)
                    } else {
                        Ok(self.batches(raft, prev))
                    },
                }
            }
        }
    }
}

/// How often the node led, was halted and had a log worth the name, under so many liars.
pub(super) fn lies(seeds: core::ops::Range<u64>) -> (u32, u32, u32) {
    let (mut led, mut halted, mut long) = (0, 0, 0);
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let mut raft = {
            let mut rig = Rig::with(1 + seed % 4, &[], |id| Config {
                inflight_messages_max: 2,
                cache_bytes_max: 150,
                reads_max: 6,
                stall_ticks: Some(15),
                lease: (seed % 3 == 0).then_some(Lease { drift_ppm: 0 }),
                ..Config::new(id, GROUP, seed)
            });
            let terms: Vec<u64> = (0..u64::from(rng.below(5))).map(|i| 1 + i / 2).collect();
            rig.seed_log(1, 3, &terms);
            rig.node(1).raft.clone()
        };
        let mut liar = Liar {
            rng,
            batches: Vec::new(),
        };
        let mut out = Vec::new();
        for _ in 0..200 {
            let input = match liar.rng.below(11) {
                10 => liar.wish(),
                0..3 => Input::Tick,
                3..6 => Input::Completed(liar.completion(&raft)),
                6 => Input::Propose {
                    id: ProposalId(0),
                    body: body(u64::from(liar.rng.below(9))),
                },
                _ => Input::Received(liar.envelope(&raft)),
            };
            let before = raft.clone();
            let told = alloc::format!("{input:?}");
            out.clear();
            raft.step(input, &mut out);
            invariants::check(&raft)
                .and_then(|()| invariants::check_delta(&before, &raft, &out))
                .unwrap_or_else(|violation| panic!("seed {seed}: {violation} after {told}"));
            led += u32::from(raft.role() == RoleKind::Leader);
        }
        halted += u32::from(raft.halted().is_some());
        long += u32::from(raft.headers().len() > 5);
    }
    (led, halted, long)
}

#[test]
fn lies_never_panic_and_never_break_a_nodes_own_invariants() {
    let (led, halted, long) = lies(0..3_000);
    assert!(
        led > 10_000 && halted > 100 && long > 100,
        "{led} {halted} {long}"
    );
}
