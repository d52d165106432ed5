//! Errors, by what the caller can do about them, and the report of damage.

use crate::format::FormatError;
use crate::format::record::{DescriptorError, RecordError};
use crate::options::{ClusterId, OptionProblem};
use duraft_core::{BatchHeader, GroupId, HardState, Index, LogId, NodeId, Position, WriteSeq};
use duraft_disk::{DiskError, DiskOp};
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// Why a store cannot be made or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The options break rules. Change them.
    #[error("{}", list(.0))]
    Options(Vec<OptionProblem>),
    /// Another process, or another handle in this one, has the store open.
    #[error("the store is in use: {source}")]
    Locked {
        /// The disk's answer.
        source: DiskError,
    },
    /// There is no store here: bootstrap one, or look for the right folder.
    #[error("there is no store here")]
    NoStore,
    /// Bootstrap found a store.
    #[error("there is a store here already")]
    StoreExists,
    /// Slots of a store that was in use, but no STORE file: the folder lost it.
    #[error("there are segments of a store here but its STORE file is gone")]
    StoreFileMissing,
    /// The STORE file cannot be believed.
    #[error("the STORE file is damaged: {0}")]
    StoreFile(FormatError),
    /// The store belongs to another cluster.
    #[error("the store belongs to cluster {found}, not to {expected}")]
    ForeignCluster {
        /// The cluster asked for.
        expected: ClusterId,
        /// The cluster of the store.
        found: ClusterId,
    },
    /// The store belongs to another node.
    #[error("the store belongs to node {found}, not to {expected}")]
    ForeignNode {
        /// The node asked for.
        expected: NodeId,
        /// The node of the store.
        found: NodeId,
    },
    /// The cluster's largest batch is another one.
    #[error("the store was made for batches of {found} bytes, not of {expected}")]
    MaxBatch {
        /// The limit asked for.
        expected: u32,
        /// The limit of the store.
        found: u32,
    },
    /// A newer version wrote this. Nothing was touched.
    #[error("{name}: {problem}")]
    Newer {
        /// The file.
        name: String,
        /// What is newer.
        problem: FormatError,
    },
    /// A block that passes every checksum holds a record that cannot be read: a newer writer, or a
    /// fault in one. Nothing was touched.
    #[error("segment {segment}, block {block}: {problem}")]
    Record {
        /// The segment.
        segment: u64,
        /// The block.
        block: u32,
        /// What is wrong.
        problem: RecordError,
    },
    /// Proven data cannot be read. Nothing was touched.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The loss that was accepted is not the one that there is. Nothing was touched. Accept what is
    /// lost, or repair it from peers.
    #[error("the loss of {} to {} in group {group} was accepted, but: {damage}", .range.0, .range.1)]
    LossNotAccepted {
        /// The group named.
        group: GroupId,
        /// The range named.
        range: (Index, Index),
        /// What is lost.
        damage: Box<Damage>,
    },
    /// The disk has no room for the segment that every open begins.
    #[error("no room for a new segment: {source}")]
    DiskFull {
        /// The disk's answer.
        source: DiskError,
    },
    /// All slots are in use and `slots_max` allows no more.
    #[error("all {slots} slots hold live records; raise slots_max")]
    NoSlot {
        /// Slots there are.
        slots: usize,
    },
    /// The store has more groups than a segment can checkpoint, or one group twice.
    #[error("group {0} cannot be added to the store")]
    Group(GroupId),
    /// A counter of the store is at its end, after 2^32 opens or 2^63 commits or segments.
    #[error(
        "the store's counters cannot count further; remove this node from the cluster and let it join \
         again with a new store"
    )]
    CountersExhausted,
    /// More unproven records than a segment can take over: no writer of this version leaves that.
    #[error("{bytes} bytes of records to take over, at most {max} fit a segment")]
    TooMuchToCopy {
        /// Bytes to copy.
        bytes: u64,
        /// Most bytes.
        max: u64,
    },
    /// The disk refused an operation.
    #[error(transparent)]
    Disk(DiskError),
}

fn list(problems: &[OptionProblem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

impl From<DiskError> for OpenError {
    fn from(source: DiskError) -> OpenError {
        if is_full(&source) {
            OpenError::DiskFull { source }
        } else {
            OpenError::Disk(source)
        }
    }
}

/// Is this the disk's way of saying that there is no room?
pub(crate) fn is_full(error: &DiskError) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// What a store lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Damage {
    /// Commits that were durable and cannot be read.
    pub holes: Vec<Hole>,
    /// What that means for each group that lost something.
    pub groups: BTreeMap<GroupId, GroupDamage>,
    /// Checksummed records that contradict each other.
    pub contradictions: Vec<Contradiction>,
    /// No checkpoint of the groups can be read: nobody knows which groups there were.
    pub no_checkpoint: bool,
}

impl Damage {
    pub(crate) fn is_none(&self) -> bool {
        self.groups.is_empty() && self.contradictions.is_empty() && !self.no_checkpoint
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable records cannot be read")?;
        for hole in &self.holes {
            write!(f, "; {hole}")?;
        }
        for (group, damage) in &self.groups {
            write!(f, "; group {group}: {damage}")?;
        }
        for contradiction in &self.contradictions {
            write!(f, "; {contradiction}")?;
        }
        if self.no_checkpoint {
            write!(f, "; no checkpoint of the groups is left")?;
        }
        Ok(())
    }
}

/// Commits that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// The segment.
    pub segment: u64,
    /// Its slot, where the segment was found.
    pub slot: Option<u32>,
    /// First lost commit.
    pub first: u64,
    /// Last lost commit, where known.
    pub last: Option<u64>,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot {
            Some(slot) => write!(f, "slot {slot:08x} (segment {})", self.segment)?,
            None => write!(f, "segment {}", self.segment)?,
        }
        match self.last {
            Some(last) => write!(f, ", commits {} to {last}", self.first),
            None => write!(f, ", commits from {}", self.first),
        }
    }
}

/// What one group lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDamage {
    /// Indices that are missing, first and last of each range, in order.
    pub missing: Vec<(Index, Index)>,
    /// Batches that survive behind the first missing index.
    pub survivors: Vec<BatchHeader>,
    /// Batches after the last known one may be lost too.
    pub lost_suffix: bool,
    /// A later term or vote may be lost.
    pub vote_uncertain: bool,
    /// The greatest LogId this node may have acknowledged, as far as known: it must not vote for less.
    pub floor: LogId,
    /// Index of the last membership batch known of, 0 for none.
    pub last_membership: Index,
    /// Where the log ended, if something that survived says so exactly: the last missing range runs
    /// to this end, and is filled when its chain joins it.
    pub end: Option<Position>,
    /// The snapshot that the log begins with is not known any more.
    pub snapshot_lost: bool,
    /// What of the log is lost as far as known: the first missing index, and the last one known of.
    /// Where none is known to be missing, the index after the log's end stands for what there may
    /// have been. [`OnDamage::AcceptLoss`](crate::OnDamage::AcceptLoss) must name exactly this.
    pub loss: (Index, Index),
}

impl fmt::Display for GroupDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (first, last) in &self.missing {
            write!(f, "indices {first} to {last} missing, ")?;
        }
        if self.lost_suffix {
            write!(f, "later entries may be lost, ")?;
        }
        if self.vote_uncertain {
            write!(f, "term and vote uncertain, ")?;
        }
        if self.snapshot_lost {
            write!(f, "the snapshot before the log unknown, ")?;
        }
        write!(f, "may have acknowledged up to {}", self.floor)?;
        write!(f, ", loss {} to {}", self.loss.0, self.loss.1)
    }
}

/// A believed record that does not fit what came before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contradiction {
    /// The segment.
    pub segment: u64,
    /// The commit.
    pub commit: u64,
    /// The group.
    pub group: GroupId,
    /// What does not fit.
    pub problem: WriteProblem,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment {}, commit {}, group {}: {}",
            self.segment, self.commit, self.group, self.problem
        )
    }
}

/// A write that breaks the rules of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteProblem {
    /// Writes of a group are numbered without a gap.
    #[error("write {found} where {expected} is next")]
    Sequence {
        /// The next number.
        expected: WriteSeq,
        /// The number found.
        found: WriteSeq,
    },
    /// A batch does not continue the log by index, term or digest.
    #[error("a batch that begins at {first} does not continue a log that ends at {end}")]
    Chain {
        /// End of the log.
        end: Position,
        /// First index of the batch.
        first: Index,
    },
    /// A batch does not fit between its neighbours.
    #[error("a batch of indices {first} to {last} does not fit a gap of the log")]
    Gap {
        /// First index of the batch.
        first: Index,
        /// Last index of the batch.
        last: Index,
    },
    /// A truncation names no boundary of the log.
    #[error("the log has no boundary {keep} to be cut at")]
    Truncate {
        /// The boundary named.
        keep: Position,
    },
    /// A compaction names no boundary of the log.
    #[error("the log has no boundary {upto} to be compacted at")]
    Compact {
        /// The boundary named.
        upto: Position,
    },
    /// A snapshot is at no boundary of the log, contradicts the one before, or is older and replaces the
    /// log.
    #[error("a snapshot at {at} fits neither the log nor the snapshot before")]
    Snapshot {
        /// Its position.
        at: Position,
    },
    /// A commit names a second snapshot of the group. Were its block lost, the log would fall back by
    /// two snapshots, and only the file of the one before is kept.
    #[error("a second snapshot of the group in one commit, at {at}")]
    SnapshotTwice {
        /// Its position.
        at: Position,
    },
    /// A compaction goes past the newest snapshot: what it drops would be nowhere.
    #[error("compaction up to {upto}, the newest snapshot is at {snapshot}")]
    Uncovered {
        /// The boundary named.
        upto: Index,
        /// Index of the newest snapshot, 0 where there is none.
        snapshot: Index,
    },
    /// Terms never go back, and a vote is never taken back within a term.
    #[error("hard state {found:?} after {before:?}")]
    HardState {
        /// The state before.
        before: HardState,
        /// The state found.
        found: HardState,
    },
    /// The log holds an entry of a term that the hard state has not reached.
    #[error("a log that ends at {end} under hard state {state:?}")]
    TermBehindLog {
        /// End of the log.
        end: Position,
        /// The hard state.
        state: HardState,
    },
    /// A checkpoint does not describe the log that led to it.
    #[error("a checkpoint that ends at {checkpoint} after a log that ends at {log}")]
    Checkpoint {
        /// End of the log in the checkpoint.
        checkpoint: Position,
        /// End of the log replayed.
        log: Position,
    },
    /// A membership batch whose body is no membership.
    #[error("the membership batch at {at} holds no membership")]
    Membership {
        /// Its index.
        at: Index,
    },
    /// A batch whose body has another length than its header says.
    #[error("the batch at {at} has a body of another length than its header says")]
    BodyLength {
        /// Its first index.
        at: Index,
    },
    /// A batch whose header could not be read back.
    #[error("the batch at {at} cannot be stored: {problem}")]
    Header {
        /// Its first index.
        at: Index,
        /// What is wrong with it.
        problem: DescriptorError,
    },
    /// A batch of another group.
    #[error("the batch at {at} belongs to another group")]
    Group {
        /// Its first index.
        at: Index,
    },
    /// Indices are missing still.
    #[error("the group is not ready to be called healed")]
    NotHealed,
}

/// Why a commit was not made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// A write or sync failed in this life: nothing is acknowledged any more. Open the store again.
    #[error("the log stopped: {0}")]
    Poisoned(Poison),
    /// A write breaks the rules of its log. Nothing was written.
    #[error("group {group}: {problem}")]
    Invalid {
        /// The group.
        group: GroupId,
        /// The rule.
        problem: WriteProblem,
    },
    /// The store has no such group. Nothing was written.
    #[error("the store has no group {0}")]
    UnknownGroup(GroupId),
    /// More than a segment can hold at once. Nothing was written.
    #[error("{bytes} bytes of records in one commit, at most {max} fit a segment")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Most bytes.
        max: u64,
    },
    /// No slot is free for the next segment. Nothing was written; compact, make room, try again.
    #[error("no slot is free for the next segment")]
    StorageFull,
}

/// The failure that stopped a log for good.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{op:?} on '{name}' failed: {message}")]
pub struct Poison {
    /// What was tried.
    pub op: DiskOp,
    /// The file.
    pub name: String,
    /// The kind of the system's reason.
    pub kind: io::ErrorKind,
    /// The system's reason.
    pub message: String,
}

impl Poison {
    pub(crate) fn from_disk(error: &DiskError) -> Poison {
        Poison {
            op: error.op,
            name: error.name.clone(),
            kind: error.kind(),
            message: error.source.to_string(),
        }
    }
}

/// Why batches cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store has no such group.
    #[error("the store has no group {0}")]
    UnknownGroup(GroupId),
    /// The range is compacted away.
    #[error("index {first} is compacted, the log begins after {start}")]
    Compacted {
        /// First index asked for.
        first: Index,
        /// The boundary before the log.
        start: Position,
    },
    /// The log does not reach the range.
    #[error("index {first} is after the end {end}")]
    PastEnd {
        /// First index asked for.
        first: Index,
        /// The end of the log.
        end: Position,
    },
    /// No batch begins there.
    #[error("no batch begins at index {0}")]
    NotABoundary(Index),
    /// The range is missing in a damaged log.
    #[error("index {0} is missing")]
    Missing(Index),
    /// The stored bytes fail a checksum.
    #[error("the batch at index {first} of group {group} is corrupt on disk: {reason}")]
    Corrupt {
        /// The group.
        group: GroupId,
        /// First index of the batch.
        first: Index,
        /// What is wrong.
        reason: String,
    },
    /// The disk refused the read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
