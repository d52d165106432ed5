//! The Raft state machine.

use crate::batch::BatchHeader;
use crate::config::{Config, ConfigProblem};
use crate::io::{Fault, Input, Output, RoleKind};
use crate::membership::Membership;
use crate::types::{HardState, Incarnation, Index, NodeId, Position, Term, WriteSeq};
use alloc::vec::Vec;

/// What recovery found on disk: the state a new life begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Boot {
    /// This life's number, larger than every earlier one of this node.
    pub incarnation: Incarnation,
    /// Durable term and vote.
    pub hard_state: HardState,
    /// The boundary before the first stored batch.
    pub start: Position,
    /// Headers of all stored batches, in order, following `start`.
    pub batches: Vec<BatchHeader>,
    /// The membership at `start`.
    pub membership: Membership,
}

/// Why a core cannot start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootError {
    /// The configuration breaks rules.
    Config(Vec<ConfigProblem>),
    /// Stored batch number `at` does not continue the log before it.
    BrokenChain {
        /// Place in [`Boot::batches`].
        at: usize,
    },
    /// The stored term is older than the last stored entry's.
    TermBehindLog,
    /// This version cannot start from a log that holds a membership batch.
    UnsupportedMembershipBatch,
}

/// How a leader replicates to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Looking for the last common boundary, one question at a time.
    Probe,
    /// Sending ahead within the in-flight window.
    Replicate,
}

/// What a leader knows of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgressView {
    /// How the leader replicates to the peer.
    pub phase: Phase,
    /// Everything up to this batch end is durable on the peer.
    pub matched: Index,
    /// First index of the next batch to send.
    pub next: Index,
    /// Appends sent and not answered.
    pub inflight_messages: usize,
    /// Bytes of batches in them.
    pub inflight_bytes: u64,
}

/// One node's part of one Raft group.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
    boot: Boot,
}

impl Raft {
    /// A node as recovery found it: a follower.
    pub fn new(config: Config, boot: Boot) -> Result<Raft, BootError> {
        Ok(Raft { config, boot })
    }

    /// Takes in what happened and appends what to do to `out`.
    pub fn step(&mut self, _input: Input, _out: &mut Vec<Output>) {}

    /// This node.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The configuration this core was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This life's number.
    pub fn incarnation(&self) -> Incarnation {
        self.boot.incarnation
    }

    /// The part this node plays now.
    pub fn role(&self) -> RoleKind {
        RoleKind::Follower
    }

    /// The current term, durable or not.
    pub fn term(&self) -> Term {
        self.boot.hard_state.term
    }

    /// The vote in the current term, durable or not.
    pub fn vote(&self) -> Option<NodeId> {
        self.boot.hard_state.vote
    }

    /// The term and vote that survive a crash now.
    pub fn durable_hard_state(&self) -> HardState {
        self.boot.hard_state
    }

    /// Everything up to this batch end is committed.
    pub fn commit(&self) -> Index {
        self.boot.start.index()
    }

    /// Everything up to this batch end has been reported applied.
    pub fn applied(&self) -> Index {
        self.boot.start.index()
    }

    /// Everything up to this batch end was given to the state machine.
    pub fn handed(&self) -> Index {
        self.boot.start.index()
    }

    /// Everything of the current log up to this batch end survives a crash.
    pub fn durable(&self) -> Index {
        self.last().index()
    }

    /// The end of the log.
    pub fn last(&self) -> Position {
        self.boot
            .batches
            .last()
            .map_or(self.boot.start, BatchHeader::position)
    }

    /// The boundary before the first batch of the log.
    pub fn start(&self) -> Position {
        self.boot.start
    }

    /// The leader of the current term, where known; this node if it leads.
    pub fn leader(&self) -> Option<NodeId> {
        None
    }

    /// The membership in force.
    pub fn membership(&self) -> &Membership {
        &self.boot.membership
    }

    /// Headers of all batches in the log, in order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = &BatchHeader> + '_ {
        self.boot.batches.iter()
    }

    /// What this leader knows of a peer; `None` on other roles and for strangers.
    pub fn progress(&self, _peer: NodeId) -> Option<ProgressView> {
        None
    }

    /// Why this node has stopped for good, if it has.
    pub fn halted(&self) -> Option<Fault> {
        None
    }

    /// The last write that was issued; 0 if none was.
    pub fn last_issued(&self) -> WriteSeq {
        WriteSeq(0)
    }

    /// The last write that is known to be durable; 0 if none is.
    pub fn last_durable(&self) -> WriteSeq {
        WriteSeq(0)
    }

    /// Is every issued write durable, every committed batch applied and no load outstanding?
    pub fn is_quiet(&self) -> bool {
        true
    }

    /// A number that changes with the state: equal states have equal fingerprints.
    pub fn fingerprint(&self) -> u64 {
        0
    }
}
