//! How a command can end, and why a node stops.
//!
//! Every submitted command gets exactly one [`Outcome`]. The three ways to end are never mixed:
//! *applied* is certain, *rejected* is certain (the command has no effect, now or later), and
//! *outcome unknown* says that nobody here can tell.

use bytes::Bytes;
use duraft_core::{Fault, Index, LogId, NodeId};

/// How one command ended.
pub type Outcome = Result<Applied, ProposeError>;

/// A command that was committed and applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The command's place in the log.
    pub log_id: LogId,
    /// What the state machine answered.
    pub response: Bytes,
}

/// Why a command was not answered with [`Applied`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Too many commands wait already. The command has no effect; try again a little later.
    #[error("too many commands are waiting; the command was not taken")]
    Busy,
    /// The command has no effect and never will.
    #[error("rejected: {reason}")]
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Who leads, where known: try there.
        leader: Option<NodeId>,
    },
    /// The command may have taken effect or may still take effect.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// Why nobody can tell.
        why: UnknownReason,
    },
}

impl ProposeError {
    /// The kind, for callers that only decide what to do next.
    pub fn kind(&self) -> ProposeErrorKind {
        match self {
            ProposeError::Busy => ProposeErrorKind::Busy,
            ProposeError::Rejected { .. } => ProposeErrorKind::Rejected,
            ProposeError::OutcomeUnknown { .. } => ProposeErrorKind::OutcomeUnknown,
        }
    }

    /// May the same command be sent again without any risk of taking effect twice, and with hope of
    /// another answer?
    pub fn is_retryable(&self) -> bool {
        match self {
            ProposeError::Busy => true,
            ProposeError::Rejected { reason, .. } => match reason {
                RejectReason::NotLeader
                | RejectReason::Superseded
                | RejectReason::Expired
                | RejectReason::Stopped => true,
                RejectReason::TooLarge { .. }
                | RejectReason::IndexExhausted
                | RejectReason::Unsupported => false,
            },
            ProposeError::OutcomeUnknown { .. } => false,
        }
    }

    /// The node that leads, where this error names one.
    pub fn leader(&self) -> Option<NodeId> {
        match self {
            ProposeError::Rejected { leader, .. } => *leader,
            ProposeError::Busy | ProposeError::OutcomeUnknown { .. } => None,
        }
    }
}

/// What a caller can conclude from a [`ProposeError`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProposeErrorKind {
    /// Not taken; the node is saturated.
    Busy,
    /// Certainly without effect.
    Rejected,
    /// May have an effect.
    OutcomeUnknown,
}

/// Why a command certainly has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// A later leader's entry was committed in the command's place.
    #[error("a later leader's entry took the command's place")]
    Superseded,
    /// The command's time ran out before it was given a place in the log.
    #[error("the command's time ran out before it was given a place in the log")]
    Expired,
    /// The command does not fit a batch.
    #[error("the command of {len} bytes is over the limit of {max} bytes")]
    TooLarge {
        /// Length of the command.
        len: u64,
        /// Largest length that fits.
        max: u64,
    },
    /// The log has no index left.
    #[error("the log has no index left")]
    IndexExhausted,
    /// This version does not offer the operation.
    #[error("this version does not offer the operation")]
    Unsupported,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why the outcome of a command is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownReason {
    /// The time the caller gave ran out.
    #[error("the time for an answer ran out")]
    Deadline,
    /// The node stopped before the answer was known.
    #[error("the node stopped before the answer was known")]
    Stopped,
}

/// Why a node stopped working. Opening its directory again begins a new life.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// [`Node::shutdown`](crate::Node::shutdown) was called, or the last handle was dropped.
    #[error("the node was shut down")]
    Shutdown,
    /// The core stopped.
    #[error("the node halted: {0:?}")]
    Halted(Fault),
    /// The state machine panicked. The log is unharmed.
    #[error("the state machine panicked at index {index}: {message}")]
    StateMachinePanicked {
        /// The command that was being applied.
        index: Index,
        /// The panic's message.
        message: String,
    },
    /// A committed batch cannot be taken apart or fails its checksum in memory.
    #[error("the committed batch at index {first} is damaged: {message}")]
    BatchDamaged {
        /// First index of the batch.
        first: Index,
        /// What is wrong.
        message: String,
    },
    /// A thread of the node ended by a panic: a bug in this library.
    #[error("the {thread} thread panicked: {message}")]
    ThreadPanicked {
        /// The thread.
        thread: &'static str,
        /// The panic's message.
        message: String,
    },
}
