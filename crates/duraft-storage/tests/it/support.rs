//! What the tests share: small stores on simulated disks, and writes that follow each other.

use duraft_core::{
    Batch, BatchKind, Body, GroupId, HardState, Healed, Index, Membership, NodeId, Position,
    Snapshot, SnapshotFile, SnapshotWrite, Term, Write, WriteSeq,
};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::{
    Ablation, ClusterId, Entropy, OpenError, Recovered, StoreIdentity, Submission, Wal, WalOptions,
    body_checksum, bootstrap, commands_body, open,
};
use std::cell::Cell;
use std::sync::Arc;

pub(crate) const GROUP: GroupId = GroupId(7);

pub(crate) fn identity() -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId([3; 16]),
        node: NodeId(1),
        max_batch_bytes: 512,
    }
}

thread_local! {
    static ABLATED: Cell<Option<Ablation>> = const { Cell::new(None) };
}

/// Runs a test with one defence left out, in this thread. Whether it failed.
pub(crate) fn fails_without(ablation: Ablation, test: fn()) -> bool {
    ABLATED.set(Some(ablation));
    let result = std::panic::catch_unwind(test);
    ABLATED.set(None);
    result.is_err()
}

pub(crate) fn options() -> WalOptions {
    WalOptions {
        ablation: ABLATED.get(),
        slot_bytes: 16 << 10,
        slots_ready_min: 2,
        slots_max: 64,
        mark_every_commits: 4,
        cache_bytes_max: 4096,
        ..WalOptions::default()
    }
}

pub(crate) fn entropy(seed: u64) -> Entropy {
    Entropy {
        seed,
        wallclock_ns: 1,
    }
}

pub(crate) fn membership() -> Membership {
    Membership::new([NodeId(1), NodeId(2), NodeId(3)], []).expect("three voters")
}

pub(crate) fn disk() -> FaultDisk {
    FaultDisk::new(FaultOptions::default())
}

pub(crate) fn shared(disk: &FaultDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub(crate) fn make(disk: &FaultDisk, options: &WalOptions, groups: &[GroupId]) {
    let groups: Vec<_> = groups.iter().map(|group| (*group, membership())).collect();
    bootstrap(&shared(disk), &identity(), options, entropy(1), &groups).expect("a fresh store");
}

pub(crate) fn reopen(
    disk: &FaultDisk,
    options: &WalOptions,
    seed: u64,
) -> Result<(Wal, Recovered), OpenError> {
    open(shared(disk), &identity(), options.clone(), entropy(seed))
}

/// A fresh store with one group, opened.
pub(crate) fn fresh(options: &WalOptions) -> (FaultDisk, Wal) {
    let disk = disk();
    make(&disk, options, &[GROUP]);
    let (wal, _) = reopen(&disk, options, 2).expect("a fresh store opens");
    (disk, wal)
}

/// A batch of `count` commands of `len` bytes after `previous`.
pub(crate) fn batch(
    group: GroupId,
    previous: &Position,
    term: u64,
    count: usize,
    len: usize,
    fill: u8,
) -> Batch {
    let command = vec![fill; len];
    let commands = (0..count).map(|_| command.as_slice());
    let body = commands_body(commands, 0).expect("a small body");
    body.seal(group, previous, Term(term))
        .expect("a place in the log")
}

pub(crate) fn noop(group: GroupId, previous: &Position, term: u64) -> Batch {
    Body::noop()
        .seal(group, previous, Term(term))
        .expect("a place in the log")
}

pub(crate) fn membership_batch(
    group: GroupId,
    previous: &Position,
    term: u64,
    membership: &Membership,
) -> Batch {
    let bytes = membership.encode();
    let body = Body {
        kind: BatchKind::Membership,
        codec: 0,
        count: 1,
        checksum: body_checksum(&bytes),
        bytes: bytes.into(),
    };
    body.seal(group, previous, Term(term))
        .expect("a place in the log")
}

/// Writes of one group, numbered.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) group: GroupId,
    pub(crate) seq: WriteSeq,
}

impl Writer {
    pub(crate) fn new(group: GroupId) -> Writer {
        Writer {
            group,
            seq: WriteSeq(0),
        }
    }

    pub(crate) fn write(&mut self) -> Write {
        self.seq = self.seq.next();
        Write {
            seq: self.seq,
            hard_state: None,
            snapshot: None,
            truncate: None,
            append: Vec::new(),
            compact: None,
            healed: None,
        }
    }

    pub(crate) fn submit(&self, write: Write) -> Submission {
        Submission {
            group: self.group,
            write,
        }
    }

    pub(crate) fn append(&mut self, batches: Vec<Batch>) -> Submission {
        let write = Write {
            append: batches,
            ..self.write()
        };
        self.submit(write)
    }

    pub(crate) fn vote(&mut self, term: u64, vote: Option<u64>) -> Submission {
        let hard_state = HardState {
            term: Term(term),
            vote: vote.map(NodeId),
        };
        let write = Write {
            hard_state: Some(hard_state),
            ..self.write()
        };
        self.submit(write)
    }

    pub(crate) fn heal(&mut self, healed: Healed) -> Submission {
        let write = Write {
            healed: Some(healed),
            ..self.write()
        };
        self.submit(write)
    }

    pub(crate) fn truncate(&mut self, keep: Position) -> Submission {
        let write = Write {
            truncate: Some(keep),
            ..self.write()
        };
        self.submit(write)
    }

    /// A snapshot of everything up to here, and the log before it goes.
    pub(crate) fn compact(&mut self, upto: Position) -> Submission {
        let write = Write {
            snapshot: Some(taken(upto)),
            compact: Some(upto),
            ..self.write()
        };
        self.submit(write)
    }
}

/// A snapshot at this boundary, of this node's state machine.
pub(crate) fn taken(position: Position) -> SnapshotWrite {
    SnapshotWrite {
        snapshot: Snapshot {
            position,
            membership: membership(),
            file: SnapshotFile {
                nonce: position.index().0,
                bytes: 1 << 20,
                digest: position.digest.0,
            },
        },
        reset: false,
    }
}

/// Every stored batch of a group, read back from the store.
pub(crate) fn read_all(wal: &Wal, group: GroupId) -> Vec<Batch> {
    let reader = wal.reader();
    let (start, end) = reader.bounds(group).expect("a known group");
    let mut batches: Vec<Batch> = Vec::new();
    let mut next = start.index().next();
    while next <= end.index() {
        let read = reader
            .read(group, next, Index(u64::MAX), 1)
            .expect("stored batches");
        next = read
            .last()
            .expect("at least one batch")
            .header
            .last()
            .next();
        batches.extend(read);
    }
    batches
}
