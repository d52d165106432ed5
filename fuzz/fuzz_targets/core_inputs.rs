//! Any sequence of inputs: the core neither panics nor breaks an invariant that one node can see.
//!
//! The bytes are a program: each step takes a few bytes and becomes one input. Numbers are drawn from
//! small ranges, so that messages often name positions that exist, and sometimes from the edges.
#![no_main]

use duraft_core::{
    AppendReply, Batch, Body, Boot, Completion, Config, Digest, Envelope, GroupId, HardState,
    Incarnation, Index, Input, LoadError, LoadId, LogId, Membership, Message, NodeId, Output,
    Position, ProposalId, Raft, Term, WriteSeq, BatchKind, invariants,
};
use libfuzzer_sys::fuzz_target;

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        match self.byte() {
            n @ 0..=250 => u64::from(n % 24),
            251 => u64::MAX,
            252 => u64::MAX - 1,
            253 => 1 << 32,
            254 => u64::from(u32::MAX),
            255 => u64::from(self.byte()) << 8,
        }
    }

    fn node(&mut self) -> NodeId {
        NodeId(u64::from(self.byte() % 5))
    }

    fn id(&mut self) -> LogId {
        LogId { term: Term(self.number()), index: Index(self.number()) }
    }
}

/// What the host knows: enough to give plausible answers and true positions.
#[derive(Default)]
struct Host {
    issued: WriteSeq,
    applied: Index,
    loads: Vec<LoadId>,
}

impl Host {
    fn take(&mut self, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Persist(write) => {
                    assert_eq!(write.seq, self.issued.next(), "I2: writes are dense");
                    self.issued = write.seq;
                }
                Output::Apply(batches) => {
                    for batch in batches {
                        assert_eq!(batch.header.first, self.applied.next(), "applied in order");
                        self.applied = batch.header.last();
                    }
                }
                Output::Load(load) => self.loads.push(load.id),
                Output::Send(_) | Output::Respond(_) | Output::Changed(_) => {}
            }
        }
    }
}

fn position(p: &mut Program<'_>, raft: &Raft) -> Position {
    // A boundary that exists, mostly; a lie, sometimes.
    let known: Vec<Position> = std::iter::once(raft.start())
        .chain(raft.headers().map(|header| header.position()))
        .collect();
    match p.byte() {
        n @ 0..=199 => known[usize::from(n) % known.len()],
        200..=227 => Position { id: p.id(), digest: Digest::EMPTY },
        _ => Position { id: p.id(), digest: Digest(p.number()) },
    }
}

fn batches(p: &mut Program<'_>, prev: Position) -> Vec<Batch> {
    let mut prev = prev;
    let mut list = Vec::new();
    for _ in 0..p.byte() % 4 {
        let count = u32::from(p.byte() % 3) + 1;
        let mut body = vec![0_u8; count as usize * 4];
        let kind = match p.byte() % 16 {
            0 => BatchKind::Membership,
            1 | 2 => BatchKind::Noop,
            _ => BatchKind::Commands,
        };
        body.push(p.byte());
        let body = Body {
            kind,
            codec: 0,
            count: if kind == BatchKind::Commands { count } else { 1 },
            checksum: p.number() as u32,
            bytes: body.into(),
        };
        let term = Term(prev.term().0.max(p.number() % 24));
        let Ok(mut batch) = body.seal(GroupId(1), &prev, term) else { return list };
        if p.byte() == 255 {
            batch.header.count = p.number() as u32;
            batch.header.first = Index(p.number());
        }
        prev = end_of(&batch);
        list.push(batch);
    }
    list
}

/// The boundary after a batch whose header may be a lie, so that its sums may overflow.
fn end_of(batch: &Batch) -> Position {
    let header = &batch.header;
    let last = header.first.0.saturating_add(u64::from(header.count)).saturating_sub(1);
    Position { id: LogId { term: header.term, index: Index(last) }, digest: header.digest }
}

fn message(p: &mut Program<'_>, raft: &Raft) -> Message {
    match p.byte() % 10 {
        0 => Message::PreVote { wanted: Term(p.number()), last: p.id() },
        1 => Message::PreVoteReply { wanted: Term(p.number()), granted: p.byte() % 2 == 0 },
        2 => Message::Vote { last: p.id() },
        3 => Message::VoteReply { granted: p.byte() % 4 != 0 },
        4 | 5 => {
            let prev = position(p, raft);
            Message::Append { prev, batches: batches(p, prev), commit: Index(p.number()) }
        }
        6 => Message::Heartbeat { commit: Index(p.number()), round: p.number() },
        7 => Message::HeartbeatReply { round: p.number() },
        8 => Message::AppendReply(AppendReply::Accepted { matched: Index(p.number()) }),
        _ => Message::AppendReply(if p.byte() % 2 == 0 {
            AppendReply::Rejected { prev: p.id(), hint: p.id() }
        } else {
            AppendReply::Divergence { theirs: position(p, raft), ours: position(p, raft) }
        }),
    }
}

fn input(p: &mut Program<'_>, raft: &Raft, host: &mut Host) -> Input {
    match p.byte() % 16 {
        0..=2 => Input::Tick,
        3..=8 => {
            let term = match p.byte() {
                n @ 0..=229 => Term(raft.term().0.saturating_add(u64::from(n % 3)).saturating_sub(1)),
                _ => Term(p.number()),
            };
            Input::Received(Envelope {
                group: GroupId(u64::from(p.byte() != 255)),
                from: p.node(),
                incarnation: Incarnation(p.number()),
                to: if p.byte() < 250 { raft.id() } else { p.node() },
                term,
                message: message(p, raft),
            })
        }
        9 => Input::Propose {
            id: ProposalId(p.number()),
            body: Body {
                kind: if p.byte() < 240 { BatchKind::Commands } else { BatchKind::Noop },
                codec: 0,
                count: u32::from(p.byte() % 3),
                checksum: 1,
                bytes: vec![0; usize::from(p.byte())].into(),
            },
        },
        10 => Input::Read { id: ProposalId(p.number()), basis: duraft_core::ReadBasis::Quorum },
        11..=13 => Input::Completed(Completion::Persisted {
            upto: match p.byte() {
                0..=219 => host.issued,
                n @ 220..=250 => WriteSeq(host.issued.0.saturating_sub(u64::from(n % 4))),
                _ => WriteSeq(p.number()),
            },
        }),
        14 => Input::Completed(Completion::Applied {
            upto: if p.byte() < 240 { host.applied } else { Index(p.number()) },
        }),
        _ => match p.byte() {
            255 => Input::Completed(Completion::WriteFailed),
            n => Input::Completed(Completion::Loaded {
                load: host.loads.pop().unwrap_or(LoadId(u64::from(n))),
                result: if n < 64 {
                    Err(LoadError::Io)
                } else {
                    let prev = position(p, raft);
                    Ok(batches(p, prev))
                },
            }),
        },
    }
}

fuzz_target!(|data: &[u8]| {
    let mut p = Program(data);
    let voters = 1 + u64::from(p.byte() % 4);
    let membership = Membership::new((0..voters).map(NodeId), [NodeId(4)]);
    let Ok(membership) = membership else { return };
    let mut config = Config::new(NodeId(u64::from(p.byte() % 5)), GroupId(1), u64::from(p.byte()));
    config.pre_vote = p.byte() % 2 == 0;
    config.check_quorum = p.byte() % 2 == 0;
    config.cache_bytes_max = u64::from(p.byte());
    config.max_batch_bytes = 128;
    let boot = Boot {
        incarnation: Incarnation(1),
        hard_state: HardState::default(),
        start: Position::START,
        batches: Vec::new(),
        membership,
        memberships: Vec::new(),
        snapshot: None,
        applied: None,
        damage: None,
    };
    let Ok(mut raft) = Raft::new(config, boot) else { return };
    let mut host = Host::default();
    let mut outputs = Vec::new();
    while !p.0.is_empty() {
        let input = input(&mut p, &raft, &mut host);
        let before = raft.clone();
        outputs.clear();
        raft.step(input, &mut outputs);
        if let Err(violation) = invariants::check(&raft) {
            panic!("{violation}");
        }
        if let Err(violation) = invariants::check_delta(&before, &raft, &outputs) {
            panic!("{violation}");
        }
        host.take(&outputs);
    }
});
