//! What a look at a store shows: plain facts, in the words of `docs/wal-format.md`.

use crate::format::block::{BlockHeader, Flags};
use crate::format::block_offset;
use crate::format::header::{SegmentEnd, SegmentHeader, StoreFile};
use crate::format::record::Record;
use crate::options::ClusterId;
use crate::repair::Repair;
use crate::{GroupDamage, Hole};
use duraft_core::{
    BatchHeader, GroupId, HardState, Healed, Index, LogId, Membership, NodeId, Position, Snapshot,
};

/// The file that says whose store this is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreFacts {
    /// Drawn when the store was made.
    pub store: [u8; 16],
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node it belongs to.
    pub node: NodeId,
    /// Bytes of each slot.
    pub slot_bytes: u64,
    /// Largest batch body of the cluster.
    pub max_batch_bytes: u32,
    /// The wall clock when the store was made.
    pub created_ns: u64,
    /// Both copies in the file can be read and say the same.
    pub whole: bool,
}

impl StoreFacts {
    pub(super) fn of(file: &StoreFile, whole: bool) -> StoreFacts {
        StoreFacts {
            store: file.store,
            cluster: ClusterId(file.cluster),
            node: NodeId(file.node),
            slot_bytes: file.slot_bytes,
            max_batch_bytes: file.max_batch_bytes,
            created_ns: file.wallclock_ns,
            whole,
        }
    }
}

/// What a slot is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotUse {
    /// Filled with zeros and never used.
    Free,
    /// Holds this segment of the log.
    Live(u64),
    /// Holds this segment, which the log needs no more, or which never came to be.
    Spent(u64),
    /// Has no header of this store: it was being made, or its header is lost. If anything durable is
    /// lost with it, the damage says so.
    Unknown,
}

/// One slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotFacts {
    /// Its number.
    pub slot: u32,
    /// What it holds.
    pub state: SlotUse,
}

/// One segment of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFacts {
    /// Its number.
    pub segment: u64,
    /// The slot that it stands in.
    pub slot: u32,
    /// The open of the store that began it.
    pub generation: u32,
    /// The oldest segment that the log needed when this one began.
    pub first_live: u64,
    /// Number of its first commit.
    pub base_commit: u64,
    /// The segment before it.
    pub previous: Option<u64>,
    /// The wall clock at the open that began it.
    pub wallclock_ns: u64,
    /// Its last commit and the block after it, as its successor declares them. `None` for the tail.
    pub sealed_at: Option<(u64, u32)>,
}

impl SegmentFacts {
    pub(super) fn of(header: &SegmentHeader, end: Option<SegmentEnd>) -> SegmentFacts {
        SegmentFacts {
            segment: header.seq,
            slot: header.slot,
            generation: header.generation,
            first_live: header.first_live,
            base_commit: header.base_commit,
            previous: header.previous.map(|previous| previous.seq),
            wallclock_ns: header.wallclock_ns,
            sealed_at: end.map(|end| (end.commit, end.block)),
        }
    }
}

/// One group commit on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockFacts {
    /// Its segment.
    pub segment: u64,
    /// Its slot.
    pub slot: u32,
    /// First byte in the slot.
    pub at: u64,
    /// Bytes on disk, padding included.
    pub bytes: u64,
    /// Number of the commit.
    pub commit: u64,
    /// The last commit whose sync had returned when this one was made.
    pub watermark: u64,
    /// Number of records.
    pub records: u16,
    /// Bytes of the payloads.
    pub payload_bytes: u32,
    /// The open of the store that wrote it.
    pub generation: u32,
    /// It only proves the commit before it.
    pub receipt: bool,
    /// An orderly close wrote it.
    pub close: bool,
    /// The first one of an open: it repeats what was not proven before.
    pub fence: bool,
    /// Something later proves that its sync had returned.
    pub proven: bool,
}

impl BlockFacts {
    pub(super) fn of(header: &BlockHeader, slot: u32, proven: u64) -> BlockFacts {
        BlockFacts {
            segment: header.segment,
            slot,
            at: block_offset(header.block),
            bytes: block_offset(header.blocks()),
            commit: header.commit,
            watermark: header.durable,
            records: header.records,
            payload_bytes: header.payload_len,
            generation: header.generation,
            receipt: header.flags.has(Flags::RECEIPT),
            close: header.flags.has(Flags::CLEAN),
            fence: header.flags.has(Flags::FENCE),
            proven: header.commit <= proven,
        }
    }
}

/// One record of a commit.
#[derive(Clone, PartialEq, Debug)]
pub enum LogRecord {
    /// A batch, and where its body begins in the slot.
    Batch {
        /// What it is.
        header: BatchHeader,
        /// First byte of the body.
        body_at: u64,
    },
    /// Term and vote; `echo` repeats what the commit before changed.
    HardState {
        /// The group.
        group: GroupId,
        /// Term and vote.
        state: HardState,
        /// A repetition.
        echo: bool,
    },
    /// The log was cut: this is the last place kept.
    Truncate {
        /// The group.
        group: GroupId,
        /// The last place kept.
        keep: Position,
    },
    /// The log was compacted up to here.
    Compact {
        /// The group.
        group: GroupId,
        /// The last place dropped.
        upto: Position,
        /// The membership there.
        membership: Membership,
    },
    /// A snapshot is durable.
    Snapshot {
        /// The group.
        group: GroupId,
        /// Which.
        snapshot: Snapshot,
        /// It came from a leader in place of the log, which begins anew there.
        reset: bool,
    },
    /// What a segment begins with: all of a group but its batches.
    Checkpoint {
        /// The group.
        group: GroupId,
        /// Term and vote.
        state: HardState,
        /// The log begins after this.
        start: Position,
        /// The end of what earlier segments hold.
        end: Position,
        /// The membership at the beginning.
        membership: Membership,
        /// The latest snapshot.
        snapshot: Option<Snapshot>,
    },
    /// The checkpoint of all groups ends here, after so many records.
    CheckpointEnd {
        /// Number of records.
        count: u32,
    },
    /// What is lost of a group, until it is healed.
    Damage {
        /// The group.
        group: GroupId,
        /// Later entries may be lost.
        lost_suffix: bool,
        /// A later term or vote may be lost.
        vote_uncertain: bool,
        /// The greatest entry that may have been acknowledged.
        floor: LogId,
        /// First and last missing index of each range.
        missing: Vec<(Index, Index)>,
    },
    /// The group, or only its term and vote, is whole again.
    Healed {
        /// The group.
        group: GroupId,
        /// All of it.
        all: bool,
    },
    /// What people decided.
    Repair {
        /// The group.
        group: GroupId,
        /// The decision.
        note: Repair,
    },
    /// What was durable of groups written since commit `since`.
    Table {
        /// The last commit that an earlier table covers.
        since: u64,
        /// Groups are left out.
        partial: bool,
        /// Per group its end, and its term and vote.
        groups: Vec<(GroupId, Position, HardState)>,
    },
}

impl LogRecord {
    /// The group that the record is about; tables and ends of checkpoints are about all.
    pub fn group(&self) -> Option<GroupId> {
        match self {
            LogRecord::Batch { header, .. } => Some(header.group),
            LogRecord::HardState { group, .. }
            | LogRecord::Truncate { group, .. }
            | LogRecord::Compact { group, .. }
            | LogRecord::Snapshot { group, .. }
            | LogRecord::Checkpoint { group, .. }
            | LogRecord::Damage { group, .. }
            | LogRecord::Healed { group, .. }
            | LogRecord::Repair { group, .. } => Some(*group),
            LogRecord::CheckpointEnd { .. } | LogRecord::Table { .. } => None,
        }
    }

    pub(super) fn of(record: Record) -> LogRecord {
        match record {
            Record::Batch { header, body_at } => LogRecord::Batch { header, body_at },
            Record::HardState { group, state, .. } => LogRecord::HardState {
                group,
                state,
                echo: false,
            },
            Record::Echo { group, state, .. } => LogRecord::HardState {
                group,
                state,
                echo: true,
            },
            Record::Truncate { group, keep } => LogRecord::Truncate { group, keep },
            Record::Compact {
                group,
                upto,
                membership,
            } => LogRecord::Compact {
                group,
                upto,
                membership,
            },
            Record::Snapshot {
                group,
                snapshot,
                reset,
            } => LogRecord::Snapshot {
                group,
                snapshot,
                reset,
            },
            Record::GroupState { group, checkpoint } => LogRecord::Checkpoint {
                group,
                state: checkpoint.hard_state,
                start: checkpoint.start,
                end: checkpoint.end,
                membership: checkpoint.membership,
                snapshot: checkpoint.snapshot,
            },
            Record::CheckpointEnd { count } => LogRecord::CheckpointEnd { count },
            Record::Damage { group, lost } => LogRecord::Damage {
                group,
                lost_suffix: lost.lost_suffix,
                vote_uncertain: lost.vote_uncertain,
                floor: lost.floor,
                missing: lost.missing,
            },
            Record::Healed { group, healed } => LogRecord::Healed {
                group,
                all: healed == Healed::All,
            },
            Record::Repair { group, note } => LogRecord::Repair { group, note },
            Record::Table {
                since,
                partial,
                facts,
            } => LogRecord::Table {
                since,
                partial,
                groups: facts
                    .iter()
                    .map(|fact| (fact.group, fact.end, fact.hard_state))
                    .collect(),
            },
        }
    }
}

/// What comes by on a walk along the log, oldest first.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// A segment begins.
    Segment(&'a SegmentFacts),
    /// A commit that can be read as a whole.
    Block(&'a BlockFacts),
    /// A record of the commit before it, with its payload: of a batch, the body.
    Record(&'a BlockFacts, &'a LogRecord, &'a [u8]),
    /// Durable commits that cannot be read, and the bytes of the slot they stood in.
    Hole(Hole, Option<(u64, u64)>),
    /// Since the look, a node has begun to use the slot of this segment anew: what it held is not
    /// needed by the log any more. That is no damage.
    Reused(&'a SegmentFacts),
}

/// One group as its log tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupFacts {
    /// Term and vote.
    pub hard_state: HardState,
    /// The log begins after this.
    pub start: Position,
    /// The end of the log.
    pub end: Position,
    /// All batches of the log, in order, those behind missing ones too.
    pub batches: Vec<StoredBatch>,
    /// The membership at the beginning of the log.
    pub membership: Membership,
    /// The memberships in the log.
    pub memberships: Vec<(Index, Membership)>,
    /// The latest snapshot.
    pub snapshot: Option<Snapshot>,
    /// What is lost.
    pub damage: Option<GroupDamage>,
    /// What people decided.
    pub repairs: Vec<Repair>,
}

/// A batch of the log and its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredBatch {
    /// What it is.
    pub header: BatchHeader,
    /// The segment it stands in.
    pub segment: u64,
    /// Its slot.
    pub slot: u32,
    /// The commit that wrote it.
    pub commit: u64,
    /// First byte of the body in the slot.
    pub body_at: u64,
}

/// The end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailFacts {
    /// The newest segment.
    pub segment: u64,
    /// Its slot.
    pub slot: u32,
    /// The last commit of the unbroken run.
    pub last: u64,
    /// The last commit that something later proves durable.
    pub proven: u64,
    /// A write that did not get to its end, behind the last commit: its number and its first byte in
    /// the slot. It was never acknowledged. The next open drops it.
    pub torn: Option<(u64, u64)>,
    /// Segments whose first write was cut short. They were never acknowledged either.
    pub abandoned: u64,
}
