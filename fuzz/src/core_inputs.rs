//! Any sequence of inputs: the core neither panics nor breaks an invariant that one node can see.
//!
//! The bytes are a program: each step takes a few bytes and becomes one input. Numbers are drawn from
//! small ranges, so that messages often name positions that exist, and sometimes from the edges.
//!
//! Peers may say anything. The host is honest: writes complete in order, snapshots are of what was
//! applied, and what recovery reports hangs together, or the core refuses it.

use duraft_core::{
    AppendReply, Batch, BatchHeader, BatchKind, Body, Boot, Completion, Config, Damage, Digest,
    Envelope, GroupId, HardState, Health, Incarnation, Index, Input, Lease, Leave, LoadError,
    LoadId, LogId, MemberChange, Membership, Message, NodeId, Output, Position, Promotion,
    ProposalId, Raft, ReadBasis, SendProgress, Snapshot, SnapshotFile, Term, WriteSeq, invariants,
};

struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
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
        LogId {
            term: Term(self.number()),
            index: Index(self.number()),
        }
    }
}

/// What the host knows: enough to give plausible answers and true positions.
#[derive(Default)]
struct Host {
    issued: WriteSeq,
    /// The last index handed over.
    applied: Index,
    /// The last index reported as applied.
    reported: Index,
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
                Output::InstallSnapshot(snapshot) => self.applied = snapshot.position.index(),
                Output::Send(_)
                | Output::Respond(_)
                | Output::Changed(_)
                | Output::ReadReady { .. }
                | Output::SendSnapshot { .. }
                | Output::TakeSnapshot => {}
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
        200..=227 => Position {
            id: p.id(),
            digest: Digest::EMPTY,
        },
        _ => Position {
            id: p.id(),
            digest: Digest(p.number()),
        },
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
            count: if kind == BatchKind::Commands {
                count
            } else {
                1
            },
            checksum: p.number() as u32,
            bytes: body.into(),
        };
        let term = Term(prev.term().0.max(p.number() % 24));
        let Ok(mut batch) = body.seal(GroupId(1), &prev, term) else {
            return list;
        };
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
    let last = header
        .first
        .0
        .saturating_add(u64::from(header.count))
        .saturating_sub(1);
    Position {
        id: LogId {
            term: header.term,
            index: Index(last),
        },
        digest: header.digest,
    }
}

fn incarnation(p: &mut Program<'_>, raft: &Raft) -> Incarnation {
    match p.byte() {
        0..=219 => raft.incarnation(),
        _ => Incarnation(p.number()),
    }
}

fn message(p: &mut Program<'_>, raft: &Raft) -> Message {
    match p.byte() % 24 {
        0 => Message::PreVote {
            wanted: Term(p.number()),
            last: p.id(),
        },
        1 => Message::PreVoteReply {
            wanted: Term(p.number()),
            granted: p.byte().is_multiple_of(2),
        },
        2 => Message::Vote {
            last: p.id(),
            forced: p.byte().is_multiple_of(4),
        },
        3 => Message::VoteReply {
            granted: !p.byte().is_multiple_of(4),
        },
        4..=7 => {
            let prev = position(p, raft);
            Message::Append {
                prev,
                batches: batches(p, prev),
                commit: Index(p.number()),
            }
        }
        8 => Message::Heartbeat {
            commit: Index(p.number()),
            round: p.number(),
        },
        9 => Message::HeartbeatReply {
            round: p.number(),
            health: Health {
                priority: p.byte() % 3,
                impaired: p.byte().is_multiple_of(4),
            },
        },
        10 | 11 => Message::AppendReply(AppendReply::Accepted {
            matched: Index(p.number()),
        }),
        12 => Message::TimeoutNow,
        13 => Message::ReadIndex { id: p.number() },
        14 => Message::ReadIndexReply {
            id: p.number(),
            asker: incarnation(p, raft),
            index: (p.byte().is_multiple_of(2)).then(|| Index(p.number())),
        },
        15 => Message::Fetch {
            after: position(p, raft),
        },
        16 | 17 => {
            let after = position(p, raft);
            Message::Fetched {
                after,
                batches: batches(p, after),
            }
        }
        18 => Message::DamageReport {
            lost_suffix: p.byte().is_multiple_of(2),
            needs_snapshot: (p.byte().is_multiple_of(2)).then(|| Index(p.number())),
        },
        19 => Message::Heal {
            asker: incarnation(p, raft),
            to: Index(p.number()),
        },
        20 => Message::TermQuery,
        21 => Message::TermReply {
            asker: incarnation(p, raft),
            voters: (0..p.byte() % 5).map(|_| p.node()).collect(),
        },
        22 => Message::RolledBack { seen: p.id() },
        _ => Message::AppendReply(if p.byte().is_multiple_of(2) {
            AppendReply::Rejected {
                prev: p.id(),
                hint: p.id(),
            }
        } else {
            AppendReply::Divergence {
                theirs: position(p, raft),
                ours: position(p, raft),
            }
        }),
    }
}

fn change(p: &mut Program<'_>) -> MemberChange {
    let id = p.node();
    match p.byte() % 4 {
        0 => MemberChange::AddVoter(id),
        1 => MemberChange::AddLearner {
            id,
            promotion: Promotion::Never,
        },
        2 => MemberChange::AddLearner {
            id,
            promotion: Promotion::WhenCaughtUp {
                replacing: (p.byte().is_multiple_of(2)).then(|| p.node()),
            },
        },
        _ => MemberChange::Remove(id),
    }
}

fn file(p: &mut Program<'_>) -> SnapshotFile {
    SnapshotFile {
        nonce: p.number(),
        bytes: p.number(),
        digest: p.number(),
    }
}

/// A snapshot as a peer sends it: anywhere.
fn sent(p: &mut Program<'_>, raft: &Raft) -> Option<Snapshot> {
    let voters = 1 + u64::from(p.byte() % 4);
    Some(Snapshot {
        position: position(p, raft),
        membership: Membership::new((0..voters).map(NodeId), []).ok()?,
        file: file(p),
    })
}

/// A snapshot as this node takes it: at a boundary that was applied.
fn taken(p: &mut Program<'_>, raft: &Raft, host: &Host) -> Option<Snapshot> {
    let at: Vec<Position> = raft
        .headers()
        .map(|header| header.position())
        .filter(|position| position.index() <= host.reported)
        .collect();
    let position = *at.get(usize::from(p.byte()) % at.len().max(1))?;
    Some(Snapshot {
        position,
        membership: raft.membership_at(position.index()).clone(),
        file: file(p),
    })
}

fn input(p: &mut Program<'_>, raft: &Raft, host: &mut Host) -> Input {
    match p.byte() % 28 {
        0..=2 => Input::Tick,
        3..=8 => {
            let term = match p.byte() {
                n @ 0..=229 => Term(
                    raft.term()
                        .0
                        .saturating_add(u64::from(n % 3))
                        .saturating_sub(1),
                ),
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
                kind: if p.byte() < 240 {
                    BatchKind::Commands
                } else {
                    BatchKind::Noop
                },
                codec: 0,
                count: u32::from(p.byte() % 3),
                checksum: 1,
                bytes: vec![0; usize::from(p.byte())].into(),
            },
        },
        10 => Input::Read {
            id: ProposalId(p.number()),
            basis: if p.byte().is_multiple_of(2) {
                ReadBasis::Quorum
            } else {
                ReadBasis::Lease
            },
        },
        16 | 17 => Input::ChangeMembership {
            id: ProposalId(p.number()),
            changes: (0..p.byte() % 4).map(|_| change(p)).collect(),
            leave: if p.byte().is_multiple_of(3) {
                Leave::Explicit
            } else {
                Leave::Automatic
            },
        },
        18 => Input::LeaveJoint {
            id: ProposalId(p.number()),
        },
        19 => Input::TransferLeadership {
            id: ProposalId(p.number()),
            to: p.node(),
        },
        20 => Input::StepDown {
            id: ProposalId(p.number()),
        },
        21 => Input::ForgetLeader,
        22 => Input::Unreachable { peer: p.node() },
        23 => match taken(p, raft, host) {
            Some(snapshot) => Input::Completed(Completion::SnapshotTaken { snapshot }),
            None => Input::Tick,
        },
        24 | 25 => match sent(p, raft) {
            Some(snapshot) => Input::Completed(Completion::SnapshotReceived {
                from: p.node(),
                term: Term(raft.term().0.saturating_sub(u64::from(p.byte() % 2))),
                snapshot,
            }),
            None => Input::Tick,
        },
        26 => Input::Completed(Completion::SnapshotSending {
            to: p.node(),
            at: Index(p.number()),
            progress: match p.byte() % 3 {
                0 => SendProgress::Moving,
                1 => SendProgress::Delivered,
                _ => SendProgress::Failed,
            },
        }),
        11..=13 => Input::Completed(Completion::Persisted {
            upto: match p.byte() {
                0..=219 => host.issued,
                n @ 220..=250 => WriteSeq(host.issued.0.saturating_sub(u64::from(n % 4))),
                _ => WriteSeq(p.number()),
            },
        }),
        14 | 15 => {
            host.reported = host.applied;
            Input::Completed(Completion::Applied { upto: host.applied })
        }
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

/// What recovery reports: a log of a few batches, perhaps behind a snapshot, perhaps with gaps.
fn boot(p: &mut Program<'_>, membership: Membership) -> Boot {
    let start = if p.byte().is_multiple_of(3) {
        Position {
            id: LogId {
                term: Term(2),
                index: Index(4),
            },
            digest: Digest(77),
        }
    } else {
        Position::START
    };
    let mut headers: Vec<BatchHeader> = Vec::new();
    for _ in 0..p.byte() % 8 {
        let prev = headers.last().map_or(start, BatchHeader::position);
        let count = u32::from(p.byte() % 3) + 1;
        let body = Body {
            kind: BatchKind::Commands,
            codec: 0,
            count,
            checksum: 0,
            bytes: vec![0; count as usize * 4].into(),
        };
        let term = Term(prev.term().0 + u64::from(p.byte().is_multiple_of(3)));
        let Ok(batch) = body.seal(GroupId(1), &prev, term) else {
            break;
        };
        headers.push(batch.header);
    }
    let last = headers.last().map_or(start, BatchHeader::position);
    let snapshot = (start != Position::START).then(|| Snapshot {
        position: start,
        membership: membership.clone(),
        file: file(p),
    });
    let damage = (p.byte().is_multiple_of(2)).then(|| damage(p, &mut headers, last));
    Boot {
        incarnation: Incarnation(1),
        hard_state: HardState {
            term: Term(last.term().0 + u64::from(p.byte() % 3)),
            vote: (p.byte().is_multiple_of(2)).then(|| p.node()),
        },
        start,
        batches: headers,
        membership,
        memberships: Vec::new(),
        snapshot,
        applied: None,
        damage,
    }
}

/// Takes batches out of the log and says so.
fn damage(p: &mut Program<'_>, headers: &mut Vec<BatchHeader>, last: Position) -> Damage {
    let mut missing: Vec<(Index, Index)> = Vec::new();
    let mut survivors = Vec::new();
    let lost = p.byte();
    let all = std::mem::take(headers);
    for (place, header) in all.into_iter().enumerate() {
        if lost & (1 << place) > 0 {
            match missing.last_mut() {
                Some((_, end)) if end.next() == header.first => *end = header.last(),
                Some(_) | None => missing.push((header.first, header.last())),
            }
        } else if missing.is_empty() {
            headers.push(header);
        } else {
            survivors.push(header);
        }
    }
    let lost_suffix = p.byte().is_multiple_of(3);
    Damage {
        missing,
        survivors,
        end: (!lost_suffix || p.byte().is_multiple_of(2)).then_some(last),
        lost_suffix,
        vote_uncertain: p.byte().is_multiple_of(3),
        floor: last.id,
        last_membership: Index(0),
        snapshot_lost: p.byte().is_multiple_of(8),
    }
}

/// Any configuration. One that breaks a rule is named by `validate` and refused by the core.
fn config(p: &mut Program<'_>) -> Config {
    let mut config = Config::new(
        NodeId(u64::from(p.byte() % 5)),
        GroupId(1),
        u64::from(p.byte()),
    );
    config.pre_vote = !p.byte().is_multiple_of(4);
    config.check_quorum = !p.byte().is_multiple_of(4);
    config.cache_bytes_max = u64::from(p.byte());
    config.max_batch_bytes = 128;
    config.priority = p.byte() % 3;
    config.lease = (p.byte().is_multiple_of(3)).then(|| Lease {
        drift_ppm: u32::from(p.byte()) * 1000,
    });
    config.stall_ticks = (p.byte().is_multiple_of(2)).then(|| u32::from(p.byte()));
    if p.byte().is_multiple_of(2) {
        // From the edges as well.
        config.heartbeat_ticks = p.number() as u32;
        config.election_ticks = p.number() as u32;
        config.max_batch_bytes = p.number() as u32;
        config.append_bytes_max = p.number();
        config.inflight_messages_max = usize::from(p.byte());
        config.inflight_bytes_max = p.number().saturating_mul(100);
        config.uncommitted_bytes_max = p.number().saturating_mul(100);
        config.unapplied_bytes_max = p.number().saturating_mul(100);
        config.backlog_bytes_max = p.number().saturating_mul(100);
        config.unpersisted_bytes_max = p.number().saturating_mul(100);
        config.trailing_bytes_max = p.number().saturating_mul(100);
        config.shape_bytes_max = p.number().saturating_mul(100);
        config.reads_max = usize::from(p.byte());
        config.fetch_bytes_max = p.number().saturating_mul(10);
    }
    config
}

/// Takes one input.
pub fn run(data: &[u8]) {
    let mut p = Program(data);
    let voters = 1 + u64::from(p.byte() % 4);
    let membership = Membership::new((0..voters).map(NodeId), [NodeId(4)]);
    let Ok(membership) = membership else { return };
    let config = config(&mut p);
    let boot = boot(&mut p, membership);
    let problems = config.validate();
    let begin = boot
        .snapshot
        .as_ref()
        .map_or(Index(0), |snapshot| snapshot.position.index());
    let Ok(mut raft) = Raft::new(config, boot) else {
        return;
    };
    assert!(
        problems.is_empty(),
        "a configuration that breaks rules is refused: {problems:?}"
    );
    let mut host = Host {
        applied: begin,
        reported: begin,
        ..Host::default()
    };
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
}
