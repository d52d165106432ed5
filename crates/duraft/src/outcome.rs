//! How a command can end, and why a node stops.
//!
//! Every submitted command gets exactly one [`Outcome`]. The three ways to end are never mixed:
//! *applied* is certain, *rejected* is certain (the command has no effect, now or later), and
//! *outcome unknown* says that nobody here can tell.

use bytes::Bytes;
use duraft_core::{ChangeError, Fault, Index, LogId, NodeId, Reject};

/// How one command ended.
pub type Outcome = Result<Applied, RequestError>;

/// A command that was committed and applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The command's place in the log.
    pub log_id: LogId,
    /// What the state machine answered; empty for what is none of its business.
    pub response: Bytes,
}

/// Why a request was not answered as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too much waits already. The request has no effect; try again a little later.
    #[error("busy: {why}")]
    Busy {
        /// What is full.
        why: BusyReason,
    },
    /// The request has no effect and never will.
    #[error("rejected: {reason}{}", hint(.leader))]
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Who leads, where known: try there.
        leader: Option<NodeId>,
    },
    /// The request may have taken effect or may still take effect.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// Why nobody can tell.
        why: UnknownReason,
    },
}

impl RequestError {
    /// The kind, for callers that only decide what to do next.
    pub fn kind(&self) -> RequestErrorKind {
        match self {
            RequestError::Busy { .. } => RequestErrorKind::Busy,
            RequestError::Rejected { .. } => RequestErrorKind::Rejected,
            RequestError::OutcomeUnknown { .. } => RequestErrorKind::OutcomeUnknown,
        }
    }

    /// May the same request be made again without any risk of taking effect twice, and with hope of
    /// another answer?
    pub fn is_retryable(&self) -> bool {
        match self {
            RequestError::Busy { .. } => true,
            RequestError::Rejected { reason, .. } => reason.is_passing(),
            RequestError::OutcomeUnknown { .. } => false,
        }
    }

    /// The node to try next, where this error names one: the leader.
    pub fn leader_hint(&self) -> Option<NodeId> {
        self.leader()
    }

    /// The node that leads, where this error names one.
    pub fn leader(&self) -> Option<NodeId> {
        match self {
            RequestError::Rejected { leader, .. } => *leader,
            RequestError::Busy { .. } | RequestError::OutcomeUnknown { .. } => None,
        }
    }

    /// What the core's refusal means to the caller.
    pub(crate) fn refused(reason: Reject, leader: Option<NodeId>) -> RequestError {
        let busy = |why| RequestError::Busy { why };
        let rejected = |reason| RequestError::Rejected { reason, leader };
        match reason {
            Reject::UncommittedLimit => busy(BusyReason::Uncommitted),
            Reject::UnappliedLimit => busy(BusyReason::Unapplied),
            Reject::StorageSaturated => busy(BusyReason::Storage),
            Reject::ReadLimit => busy(BusyReason::Reads),
            Reject::NotLeader => rejected(RejectReason::NotLeader),
            Reject::IndexExhausted => rejected(RejectReason::IndexExhausted),
            Reject::Halted => rejected(RejectReason::Stopped),
            Reject::TransferInProgress => rejected(RejectReason::TransferInProgress),
            Reject::TransferTimedOut => rejected(RejectReason::TransferTimedOut),
            Reject::TransferTarget => rejected(RejectReason::TransferTarget),
            Reject::LostLeadership => rejected(RejectReason::LostLeadership),
            Reject::MembershipInFlight => rejected(RejectReason::MembershipInFlight),
            Reject::NotYetCommittedInTerm => rejected(RejectReason::NotYetCommittedInTerm),
            Reject::Change(error) => rejected(RejectReason::Change(error)),
            Reject::NotJoint => rejected(RejectReason::NotJoint),
            Reject::TooLarge | Reject::Malformed | Reject::Unsupported => {
                rejected(RejectReason::Unsupported)
            }
        }
    }
}

fn hint(leader: &Option<NodeId>) -> String {
    leader.map_or_else(String::new, |id| format!("; node {id} leads"))
}

/// What a caller can conclude from a [`RequestError`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestErrorKind {
    /// Not taken; the node is saturated.
    Busy,
    /// Certainly without effect.
    Rejected,
    /// May have an effect.
    OutcomeUnknown,
}

/// Which limit pushes back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusyReason {
    /// This node has accepted as many requests, or bytes of them, as it may without answering.
    #[error("too many requests of this node's clients wait for an answer")]
    Requests,
    /// Too many bytes are in the log and not committed.
    #[error("too many bytes wait to be committed")]
    Uncommitted,
    /// Too many bytes are committed and not applied.
    #[error("the state machine is too far behind")]
    Unapplied,
    /// Too many bytes are on their way to the disk.
    #[error("the disk is too far behind")]
    Storage,
    /// Too many reads wait for a quorum.
    #[error("too many reads wait for a quorum")]
    Reads,
    /// A snapshot is being taken or restored.
    #[error("a snapshot is under way")]
    Snapshot,
}

/// Why a request certainly has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// A later leader's entry was committed in the command's place.
    #[error("a later leader's entry took the command's place")]
    Superseded,
    /// The time ran out before the command was given a place in the log, or the read was answered.
    #[error("the time ran out before it was given a place in the log, or read")]
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
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    TransferInProgress,
    /// The transfer's target did not take over in time; this node leads on.
    #[error("the target did not take over in time")]
    TransferTimedOut,
    /// The transfer's target is not another voter.
    #[error("the target is not another voter")]
    TransferTarget,
    /// Leadership was lost before the read was confirmed, or before the transfer's target was known to have
    /// it: look who leads now.
    #[error("leadership was lost before this was confirmed; look who leads now")]
    LostLeadership,
    /// Another membership change has not been completed.
    #[error("another membership change is under way")]
    MembershipInFlight,
    /// The leader has not committed an entry of its own term yet.
    #[error("the leader has not committed an entry of its own term yet")]
    NotYetCommittedInTerm,
    /// The change leads to no usable membership.
    #[error("the membership cannot be changed so: {0}")]
    Change(ChangeError),
    /// There is no joint membership to leave.
    #[error("there is no joint membership to leave")]
    NotJoint,
    /// The cluster does not know the session any more: it was closed, idle for too long, or pushed
    /// out by others.
    #[error("the session has expired")]
    SessionExpired,
    /// The session has said that it knows the answer to this number, so it is not kept any more.
    #[error("the session has acknowledged the answer to this number")]
    SessionAcknowledged,
    /// The number is too far ahead of the session's oldest unacknowledged one.
    #[error("too many numbers of the session are not acknowledged")]
    SessionWindow,
    /// The read asks for another type of state machine than the node runs.
    #[error("the node runs another type of state machine than the read asks for")]
    OtherStateMachine,
    /// The closure that was to read panicked.
    #[error("the closure that was to read panicked")]
    ReadPanicked,
    /// The snapshot could not be written.
    #[error("the snapshot could not be written")]
    SnapshotFailed,
    /// The transport has its peers from elsewhere.
    #[error("the transport does not take addresses")]
    NoAddresses,
}

impl RejectReason {
    /// May the same request have another answer later or elsewhere?
    fn is_passing(self) -> bool {
        match self {
            RejectReason::NotLeader
            | RejectReason::Superseded
            | RejectReason::Expired
            | RejectReason::Stopped
            | RejectReason::TransferInProgress
            | RejectReason::TransferTimedOut
            | RejectReason::LostLeadership
            | RejectReason::MembershipInFlight
            | RejectReason::NotYetCommittedInTerm
            | RejectReason::SessionWindow
            | RejectReason::SnapshotFailed => true,
            RejectReason::TooLarge { .. }
            | RejectReason::IndexExhausted
            | RejectReason::Unsupported
            | RejectReason::TransferTarget
            | RejectReason::Change(_)
            | RejectReason::NotJoint
            | RejectReason::SessionExpired
            | RejectReason::SessionAcknowledged
            | RejectReason::OtherStateMachine
            | RejectReason::ReadPanicked
            | RejectReason::NoAddresses => false,
        }
    }
}

/// Why the outcome of a request is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownReason {
    /// The time the caller gave ran out.
    #[error("the time for an answer ran out")]
    Deadline,
    /// The node stopped before the answer was known.
    #[error("the node stopped before the answer was known")]
    Stopped,
    /// A leader's snapshot brought this node past the command's place in the log.
    #[error("a snapshot took the node past the command's place in the log")]
    PassedBySnapshot,
    /// The session expired after the command was sent once without an answer.
    #[error("the session expired before the answer was known")]
    SessionExpired,
    /// The command took effect, exactly once, and its answer is not known any more.
    #[error("the command took effect once, and its answer is lost")]
    AnswerLost,
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
    /// A snapshot cannot be restored. The log and the file are unharmed.
    #[error("the snapshot at index {index} cannot be restored: {message}")]
    RestoreFailed {
        /// The index it covers the log up to.
        index: Index,
        /// What went wrong.
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
