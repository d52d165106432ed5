//! What a node says of itself.

use crate::outcome::StopReason;
use duraft_core::{
    Damage, Incarnation, Index, LogId, Membership, NodeId, RoleKind, Snapshot, Term,
};
use std::sync::Arc;

/// A node as it was after a turn.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The node.
    pub id: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The part it plays.
    pub role: RoleKind,
    /// The latest term it knows.
    pub term: Term,
    /// The leader of that term, where known.
    pub leader: Option<NodeId>,
    /// Last index known to be committed.
    pub commit: Index,
    /// Last index applied to the state machine.
    pub applied: Index,
    /// Last index that survives power loss on this node.
    pub durable: Index,
    /// Last entry of the log.
    pub last: LogId,
    /// The membership in use, committed or not.
    pub membership: Arc<Membership>,
    /// The latest snapshot that the log counts on.
    pub snapshot: Option<SnapshotStatus>,
    /// What the node had lost when this life began, until peers have repaired it.
    pub damage: Option<Arc<Damage>>,
    /// Why the node stopped, if it has.
    pub stopped: Option<StopReason>,
    /// Commands of this node's clients that wait for an outcome.
    pub commands_waiting: usize,
    /// Bytes of them.
    pub command_bytes_waiting: usize,
    /// What was done in this life.
    pub counters: Counters,
}

/// A snapshot of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotStatus {
    /// It covers the log up to here.
    pub upto: LogId,
    /// Bytes of its file.
    pub bytes: u64,
}

impl SnapshotStatus {
    pub(crate) fn of(snapshot: &Snapshot) -> SnapshotStatus {
        SnapshotStatus {
            upto: snapshot.position.id,
            bytes: snapshot.file.bytes,
        }
    }
}

/// What a node did in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Turns of the driver.
    pub turns: u64,
    /// Commands applied to the state machine.
    pub commands_applied: u64,
    /// Batches applied, no-ops included.
    pub batches_applied: u64,
    /// Group commits of the log.
    pub commits: u64,
    /// Flushes of the log.
    pub fsyncs: u64,
    /// Bytes written to the log.
    pub bytes_written: u64,
}
