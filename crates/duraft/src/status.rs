//! What a node says of itself.

use crate::outcome::StopReason;
use duraft_core::{Incarnation, Index, LogId, Membership, NodeId, RoleKind, Term};
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
    /// Why the node stopped, if it has.
    pub stopped: Option<StopReason>,
    /// Commands of this node's clients that wait for an outcome.
    pub commands_waiting: usize,
    /// What was done in this life.
    pub counters: Counters,
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
