//! Arbitrary inputs: messages that no honest peer would send, completions out of place, numbers at
//! both ends of their range. The core must take them all without a panic. What it answers is not
//! judged here: peers that lie about their disks can break Raft.

use duraft_core::{
    AppendReply, Boot, Completion, Config, Envelope, HardState, Health, Incarnation, Index, Input,
    Leave, LoadError, LoadId, LogId, MemberChange, Membership, Message, NodeId, Output, Position,
    Promotion, ProposalId, Raft, ReadBasis, SendProgress, Snapshot, SnapshotFile, Term, WriteSeq,
};
use duraft_tests::puppet::GROUP;
use duraft_tests::{Chain, Rng, command_body};

/// Node numbers that messages name: members, strangers, both ends.
const IDS: [u64; 7] = [1, 2, 3, 4, 0, 77, u64::MAX];
const NUMBERS: [u64; 10] = [0, 1, 2, 3, 4, 5, 8, 1 << 40, u64::MAX - 1, u64::MAX];

struct Storm {
    rng: Rng,
    chain: Chain,
    issued: u64,
    loads: Vec<LoadId>,
    applied: u64,
}

impl Storm {
    fn number(&mut self) -> u64 {
        if self.rng.permille(30) {
            *self.rng.pick(&NUMBERS)
        } else {
            self.rng.below(12)
        }
    }

    fn id(&mut self) -> NodeId {
        NodeId(*self.rng.pick(&IDS))
    }

    fn log_id(&mut self) -> LogId {
        let position = self.position();
        if self.rng.permille(700) {
            return position.id;
        }
        LogId {
            term: Term(self.number()),
            index: Index(self.number()),
        }
    }

    fn position(&mut self) -> Position {
        let last = self.chain.batches.len() as u64;
        let at = self.rng.below(last + 1);
        let mut position = self.chain.at(at);
        if self.rng.permille(100) {
            position.id.term = Term(self.number());
        }
        if self.rng.permille(30) {
            position.digest.0 ^= 1;
        }
        position
    }

    /// A new log of the others, sometimes: terms only grow, so that most messages are plausible.
    fn rewrite(&mut self) {
        let keep = self.rng.below(self.chain.batches.len() as u64 + 1);
        let mut chain = Chain {
            start: self.chain.start,
            batches: self.chain.between(0, keep),
        };
        let mut term = chain.last().term().0.max(1) + self.rng.below(3);
        for _ in 0..self.rng.below(4) {
            term += self.rng.below(2);
            if self.rng.permille(60) {
                let voters = self.rng.between(1, 4);
                let members = Membership::new((1..=voters).map(NodeId), []).expect("usable");
                chain = chain.and_membership(term, &members);
                continue;
            }
            let command = format!("{}@{term}", chain.batches.len());
            chain = chain.and(term, &command);
        }
        self.chain = chain;
    }

    fn message(&mut self) -> Message {
        let wanted = Term(self.number());
        let granted = self.rng.permille(600);
        match self.rng.below(17) {
            0 => Message::PreVote {
                wanted,
                last: self.log_id(),
            },
            1 => Message::PreVoteReply { wanted, granted },
            2 => Message::Vote {
                last: self.log_id(),
                forced: self.rng.permille(300),
            },
            3 => Message::VoteReply { granted },
            4..=6 => self.append(),
            7 => Message::Heartbeat {
                commit: Index(self.number()),
                round: self.number(),
            },
            8 => Message::HeartbeatReply {
                round: self.number(),
                health: Health {
                    priority: u8::try_from(self.rng.below(3)).expect("small"),
                    impaired: self.rng.permille(200),
                },
            },
            9..=12 => self.late_message(),
            _ => Message::AppendReply(self.reply()),
        }
    }

    /// Messages of reads, transfer and damage.
    fn late_message(&mut self) -> Message {
        match self.rng.below(10) {
            0 => Message::TimeoutNow,
            1 => Message::ReadIndex { id: self.number() },
            2 => Message::ReadIndexReply {
                id: self.number(),
                asker: Incarnation(self.number()),
                index: self.rng.permille(700).then(|| Index(self.number())),
            },
            3 => Message::Fetch {
                after: self.position(),
            },
            4 | 5 => {
                let after = self.position();
                let last = self.rng.below(self.chain.batches.len() as u64 + 1);
                let batches = self.chain.between(after.index().0, last);
                Message::Fetched { after, batches }
            }
            6 => Message::DamageReport {
                lost_suffix: self.rng.permille(500),
                needs_snapshot: self.rng.permille(300).then(|| Index(self.number())),
            },
            7 => Message::Heal {
                asker: Incarnation(self.number()),
                to: Index(self.number()),
            },
            8 => match self.rng.below(2) {
                0 => Message::TermQuery,
                _ => Message::TermReply {
                    voters: Vec::new(),
                    asker: Incarnation(self.number()),
                },
            },
            _ => Message::RolledBack {
                seen: self.log_id(),
            },
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let voters = self.rng.between(1, 4);
        Snapshot {
            position: self.position(),
            membership: Membership::new((1..=voters).map(NodeId), []).expect("usable"),
            file: SnapshotFile::default(),
        }
    }

    fn snapshot_completion(&mut self) -> Completion {
        match self.rng.below(3) {
            0 => Completion::SnapshotTaken {
                snapshot: self.snapshot(),
            },
            1 => Completion::SnapshotReceived {
                from: self.id(),
                term: Term(self.number()),
                snapshot: self.snapshot(),
            },
            _ => Completion::SnapshotSending {
                to: self.id(),
                at: Index(self.number()),
                progress: *self.rng.pick(&[
                    SendProgress::Moving,
                    SendProgress::Delivered,
                    SendProgress::Failed,
                ]),
            },
        }
    }

    /// What clients and operators ask for.
    fn wish(&mut self) -> Input {
        let id = ProposalId(self.number());
        match self.rng.below(8) {
            0 => Input::Read {
                id,
                basis: ReadBasis::Quorum,
            },
            1 => Input::Read {
                id,
                basis: ReadBasis::Lease,
            },
            2 => Input::TransferLeadership { id, to: self.id() },
            3 => Input::StepDown { id },
            4 => Input::ForgetLeader,
            5 => Input::Unreachable { peer: self.id() },
            6 => Input::LeaveJoint { id },
            _ => {
                let replacing = self.rng.permille(500).then(|| self.id());
                let promotion = Promotion::WhenCaughtUp { replacing };
                let change = match self.rng.below(3) {
                    0 => MemberChange::AddVoter(self.id()),
                    1 => MemberChange::Remove(self.id()),
                    _ => MemberChange::AddLearner {
                        id: self.id(),
                        promotion,
                    },
                };
                let leave = *self.rng.pick(&[Leave::Automatic, Leave::Explicit]);
                Input::ChangeMembership {
                    id,
                    changes: vec![change],
                    leave,
                }
            }
        }
    }

    fn append(&mut self) -> Message {
        let prev = self.position();
        let last = self.rng.below(self.chain.batches.len() as u64 + 1);
        let mut batches = self.chain.between(prev.index().0, last);
        if self.rng.permille(50) {
            self.rng.shuffle(&mut batches);
        }
        if self.rng.permille(20)
            && let Some(batch) = batches.last_mut()
        {
            batch.header.count = u32::MAX;
        }
        Message::Append {
            prev,
            batches,
            commit: Index(self.number()),
        }
    }

    fn reply(&mut self) -> AppendReply {
        match self.rng.below(5) {
            0 | 1 => AppendReply::Accepted {
                matched: Index(self.number()),
            },
            2 | 3 => AppendReply::Rejected {
                prev: self.log_id(),
                hint: self.log_id(),
            },
            _ => AppendReply::Divergence {
                theirs: self.position(),
                ours: self.position(),
            },
        }
    }

    fn completion(&mut self) -> Completion {
        match self.rng.below(46) {
            40.. => self.snapshot_completion(),
            0 => Completion::WriteFailed,
            1 => Completion::Persisted {
                upto: WriteSeq(self.number()),
            },
            2 => Completion::Applied {
                upto: Index(self.number()),
            },
            3..=6 => {
                let load = self.loads.pop().unwrap_or(LoadId(1));
                let errors = [LoadError::Compacted, LoadError::Corrupt, LoadError::Io];
                let first = self.rng.below(self.chain.batches.len() as u64 + 1);
                let result = if self.rng.permille(800) {
                    Ok(self.chain.between(first, u64::MAX))
                } else {
                    Err(*self.rng.pick(&errors))
                };
                Completion::Loaded { load, result }
            }
            7..=12 => Completion::Applied {
                upto: Index(self.applied),
            },
            _ => Completion::Persisted {
                upto: WriteSeq(self.rng.between(0, self.issued)),
            },
        }
    }

    fn input(&mut self) -> Input {
        let id = ProposalId(self.number());
        match self.rng.below(20) {
            0..=4 => Input::Tick,
            5..=12 => Input::Received(Envelope {
                group: GROUP,
                from: self.id(),
                incarnation: Incarnation(self.number()),
                to: NodeId(1),
                term: Term(self.number()),
                message: self.message(),
            }),
            13 => {
                let mut body = command_body("x");
                if self.rng.permille(200) {
                    body.count = u32::try_from(self.rng.below(3)).expect("small");
                }
                Input::Propose { id, body }
            }
            14 => self.wish(),
            _ => Input::Completed(self.completion()),
        }
    }

    fn take_in(&mut self, out: &[Output]) {
        for output in out {
            match output {
                Output::Persist(write) => self.issued = write.seq.0,
                Output::Load(load) => self.loads.push(load.id),
                Output::Apply(batches) => {
                    self.applied = batches.last().map_or(0, |batch| batch.header.last().0);
                }
                Output::InstallSnapshot(snapshot) => {
                    self.applied = snapshot.position.index().0;
                }
                Output::Send(_)
                | Output::TakeSnapshot
                | Output::Respond(_)
                | Output::Changed(_)
                | Output::ReadReady { .. }
                | Output::SendSnapshot { .. } => {}
            }
        }
    }
}

/// Feeds `steps` arbitrary inputs to a core, with new lives and other cluster sizes on the way.
pub(crate) fn storm(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let voters = rng.between(1, 4);
    let chain = Chain::of_terms(&[1, 1, 2, 3]);
    let mut storm = Storm {
        rng,
        chain: chain.clone(),
        issued: 0,
        loads: Vec::new(),
        applied: 0,
    };
    let mut raft = begin(voters, seed, &chain, 1);
    for life in 2..u64::MAX {
        for _ in 0..steps / 4 {
            if storm.rng.permille(20) {
                storm.rewrite();
            }
            let mut out = Vec::new();
            let input = storm.input();
            raft.step(input, &mut out);
            storm.take_in(&out);
        }
        if life > 4 {
            return;
        }
        storm.issued = 0;
        storm.loads.clear();
        storm.applied = 0;
        raft = begin(voters, seed ^ life, &storm.chain.clone(), life);
    }
}

fn begin(voters: u64, seed: u64, chain: &Chain, life: u64) -> Raft {
    let mut config = Config::new(NodeId(1), GROUP, seed);
    config.pre_vote = seed.is_multiple_of(2);
    config.check_quorum = seed.is_multiple_of(3);
    config.inflight_messages_max = 3;
    config.append_bytes_max = 100;
    config.cache_bytes_max = 200;
    config.uncommitted_bytes_max = 300;
    config.unapplied_bytes_max = 200;
    let boot = Boot {
        incarnation: Incarnation(life),
        hard_state: HardState {
            term: Term(chain.last().term().0 + seed % 3),
            vote: None,
        },
        start: chain.start,
        batches: chain.batches.iter().map(|batch| batch.header).collect(),
        membership: Membership::new((1..=voters).map(NodeId), []).expect("usable"),
        memberships: chain.memberships(),
        snapshot: None,
        applied: None,
        damage: None,
    };
    Raft::new(config, boot).expect("a sound state")
}
