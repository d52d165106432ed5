//! Nodes that send each other snapshots over a link that loses, repeats and delays, in ticks.

use bytes::Bytes;
use duraft::transfer::{
    TransferFrame, TransferInput, TransferOptions, TransferOutput, TransferRefusal, Transfers,
};
use duraft_core::{
    Completion, Digest, GroupId, Incarnation, Index, LogId, Membership, NodeId, Position,
    SendProgress, Snapshot, Term,
};
use duraft_disk::{Disk, FaultDisk, FaultOptions, SplitMix64, Survival};
use duraft_storage::{ClusterId, SnapshotName, SnapshotOptions, SnapshotStore};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

pub(crate) const CLUSTER: ClusterId = ClusterId(*b"a test's cluster");
pub(crate) const GROUP: GroupId = GroupId(5);
pub(crate) const LEADER: NodeId = NodeId(1);
pub(crate) const FOLLOWER: NodeId = NodeId(2);

pub(crate) fn small() -> TransferOptions {
    TransferOptions {
        piece_bytes: 300,
        window_bytes: 1500,
        burst_bytes_max: 600,
        resend_ticks: 8,
        give_up_ticks: 200,
        ..TransferOptions::default()
    }
}

pub(crate) fn files(chunk_bytes: u32, sync_bytes: u64) -> SnapshotOptions {
    SnapshotOptions {
        chunk_bytes,
        sync_bytes,
        ..SnapshotOptions::default()
    }
}

pub(crate) fn content(len: usize, seed: u64) -> Vec<u8> {
    let words = (0..).flat_map(|n: u64| duraft_core::mix64(n ^ seed << 48).to_le_bytes());
    words.take(len).collect()
}

pub(crate) fn take(store: &SnapshotStore, index: u64, content: &[u8]) -> Snapshot {
    let id = LogId {
        index: Index(index),
        term: Term(2),
    };
    let digest = Digest(index * 7);
    let membership = Membership::new([LEADER, FOLLOWER], []).expect("two voters");
    let mut writer = store
        .create(Position { id, digest }, &membership, index)
        .expect("the disk works");
    writer.write_all(content).expect("the disk works");
    writer.finish().expect("the disk works")
}

pub(crate) fn path(snapshot: &Snapshot) -> String {
    format!("snap/{:016x}/{}", GROUP.0, SnapshotName::of(snapshot))
}

/// One node's disk and its transfers in the present life.
pub(crate) struct Side {
    pub(crate) disk: FaultDisk,
    pub(crate) files: SnapshotOptions,
    pub(crate) options: TransferOptions,
    pub(crate) life: u64,
    pub(crate) transfers: Transfers,
}

impl Side {
    pub(crate) fn new(options: TransferOptions, files: SnapshotOptions) -> Side {
        let disk = FaultDisk::new(FaultOptions {
            sector_bytes: 4096,
            ..FaultOptions::default()
        });
        Side::on(disk, options, files, 1)
    }

    pub(crate) fn on(
        disk: FaultDisk,
        options: TransferOptions,
        files: SnapshotOptions,
        life: u64,
    ) -> Side {
        let store = store_on(&disk, files);
        Side {
            transfers: Transfers::new(options, Incarnation(life), store),
            disk,
            files,
            options,
            life,
        }
    }

    pub(crate) fn store(&self) -> SnapshotStore {
        store_on(&self.disk, self.files)
    }

    /// The next life, on what the power loss or the death of the process has left.
    pub(crate) fn restart(&mut self, survival: Option<Survival<'_>>, keep: &[&Snapshot]) {
        let disk = match survival {
            Some(survival) => self.disk.power_loss(survival),
            None => self.disk.process_crash(),
        };
        *self = Side::on(disk, self.options, self.files, self.life + 1);
        self.store().reconcile(keep).expect("the disk works");
    }
}

pub(crate) fn store_on(disk: &FaultDisk, files: SnapshotOptions) -> SnapshotStore {
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    SnapshotStore::open_with(door, CLUSTER, GROUP, files).expect("the disk works")
}

/// What a link does to frames, in parts of 100.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) delay_ticks_max: u64,
}

pub(crate) const GOOD: Link = Link {
    lost: 0,
    twice: 0,
    delay_ticks_max: 1,
};
pub(crate) const BAD: Link = Link {
    lost: 5,
    twice: 5,
    delay_ticks_max: 6,
};

/// Sides, the frames between them, and what has been observed.
pub(crate) struct World {
    pub(crate) sides: BTreeMap<NodeId, Side>,
    pub(crate) link: Link,
    pub(crate) rng: SplitMix64,
    pub(crate) now: u64,
    /// Frames under way: when, in which order, to whom, from whom.
    pub(crate) under_way: BTreeMap<(u64, u64), (NodeId, NodeId, TransferFrame)>,
    pub(crate) frames: u64,
    pub(crate) seen: Seen,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// Bytes of files in pieces, by the tick they were emitted in.
    pub(crate) sent: BTreeMap<u64, u64>,
    pub(crate) offers: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
    /// Reports of movement, by tick.
    pub(crate) moving: BTreeMap<u64, u64>,
    pub(crate) received: Vec<(NodeId, Term, Snapshot)>,
    pub(crate) refusals: Vec<TransferRefusal>,
    pub(crate) damaged: Vec<Index>,
    pub(crate) in_flight_max: u64,
    pub(crate) held_max: u64,
    /// Bytes under way at once, in pieces.
    pub(crate) link_max: u64,
}

impl Seen {
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent.values().sum()
    }
}

impl World {
    pub(crate) fn new(
        seed: u64,
        link: Link,
        sides: impl IntoIterator<Item = (NodeId, Side)>,
    ) -> World {
        World {
            sides: sides.into_iter().collect(),
            link,
            rng: SplitMix64::new(seed),
            now: 0,
            under_way: BTreeMap::new(),
            frames: 0,
            seen: Seen::default(),
        }
    }

    /// A leader and a follower on a link, and a snapshot of the leader.
    pub(crate) fn pair(
        seed: u64,
        link: Link,
        options: TransferOptions,
        files: SnapshotOptions,
        len: usize,
    ) -> (World, Snapshot) {
        let leader = Side::new(options, files);
        let snapshot = take(&leader.store(), 100, &content(len, seed));
        let follower = Side::new(options, files);
        let world = World::new(seed, link, [(LEADER, leader), (FOLLOWER, follower)]);
        (world, snapshot)
    }

    pub(crate) fn side(&mut self, node: NodeId) -> &mut Side {
        self.sides.get_mut(&node).expect("a side of this world")
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, term: u64, snapshot: &Snapshot) {
        let input = TransferInput::Send {
            to,
            term: Term(term),
            snapshot: snapshot.clone(),
        };
        self.step(from, input);
    }

    pub(crate) fn step(&mut self, node: NodeId, input: TransferInput) {
        let mut out = Vec::new();
        self.side(node).transfers.step(input, &mut out);
        for output in out {
            self.on_output(node, output);
        }
        let side = &self.sides[&node];
        let seen = &mut self.seen;
        seen.in_flight_max = seen.in_flight_max.max(side.transfers.in_flight_bytes());
        seen.held_max = seen.held_max.max(side.transfers.receiver().held_bytes());
    }

    pub(crate) fn on_output(&mut self, node: NodeId, output: TransferOutput) {
        match output {
            TransferOutput::Frame { to, frame } => self.carry(node, to, frame),
            TransferOutput::Completed(Completion::SnapshotReceived {
                from,
                term,
                snapshot,
            }) => {
                // The promise: it survives the worst power loss at this moment.
                let side = &self.sides[&node];
                let durable = store_on(&side.disk.durable_view(), side.files);
                durable
                    .verify(&snapshot)
                    .expect("what is reported is durable");
                self.seen.received.push((from, term, snapshot));
            }
            TransferOutput::Completed(Completion::SnapshotSending { progress, .. }) => {
                match progress {
                    SendProgress::Moving => *self.seen.moving.entry(self.now).or_default() += 1,
                    SendProgress::Delivered => self.seen.delivered += 1,
                    SendProgress::Failed => self.seen.failed += 1,
                }
            }
            TransferOutput::Completed(other) => panic!("{other:?}"),
            TransferOutput::Damaged { at, error } => {
                assert!(error.is_damage(), "{error}");
                self.seen.damaged.push(at);
            }
        }
    }

    pub(crate) fn carry(&mut self, from: NodeId, to: NodeId, frame: TransferFrame) {
        match &frame {
            TransferFrame::Offer { .. } => self.seen.offers += 1,
            TransferFrame::Piece { bytes, .. } => {
                *self.seen.sent.entry(self.now).or_default() += bytes.len() as u64;
            }
            TransferFrame::Ack { .. } => {}
            TransferFrame::Refused { reason, .. } => self.seen.refusals.push(*reason),
        }
        if self.rng.below(100) < self.link.lost {
            return;
        }
        let copies = if self.rng.below(100) < self.link.twice {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let at = self.now + 1 + self.rng.below(self.link.delay_ticks_max);
            self.frames += 1;
            let place = (at, self.frames);
            self.under_way.insert(place, (to, from, frame.clone()));
        }
        let pieces = self
            .under_way
            .values()
            .filter_map(|(.., frame)| frame.payload());
        let bytes: u64 = pieces.map(|bytes| bytes.len() as u64).sum();
        self.seen.link_max = self.seen.link_max.max(bytes);
    }

    pub(crate) fn tick(&mut self) {
        self.now += 1;
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, from, frame) = entry.remove();
            // Everything goes through its bytes.
            let frame = through_bytes(&frame);
            self.step(to, TransferInput::Frame { from, frame });
        }
        let nodes: Vec<NodeId> = self.sides.keys().copied().collect();
        for node in nodes {
            self.step(node, TransferInput::Tick);
        }
    }

    /// Ticks until this holds; fails after many.
    pub(crate) fn until(&mut self, ticks_max: u64, what: &str, done: impl Fn(&World) -> bool) {
        let end = self.now + ticks_max;
        while !done(self) {
            assert!(self.now < end, "{what} within {ticks_max} ticks");
            self.tick();
        }
    }

    pub(crate) fn received_bytes(&self, node: NodeId) -> u64 {
        let progress = self.sides[&node].transfers.receiver().progress();
        progress.map_or(0, |(_, received)| received)
    }
}

pub(crate) fn through_bytes(frame: &TransferFrame) -> TransferFrame {
    let mut body = Vec::new();
    frame.encode_head(&mut body);
    body.extend_from_slice(frame.payload().map_or(&[], |bytes| bytes));
    let decoded = TransferFrame::decode(frame.kind(), Bytes::from(body)).expect("its own bytes");
    assert_eq!(decoded, *frame);
    decoded
}
