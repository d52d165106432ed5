//! Inputs and outputs of the core.
//!
//! The host's whole duty: perform writes in the order of their [`WriteSeq`]; report `Persisted` only
//! when everything up to it survives power loss; perform every other output whenever it likes, in
//! order per kind. A [`Output::Send`] may be sent, dropped, delayed or duplicated the moment it is
//! emitted: what must wait for the disk has waited inside the core.

use crate::batch::{Batch, Body};
use crate::membership::Membership;
use crate::message::Envelope;
use crate::types::{HardState, Index, LoadId, LogId, NodeId, Position, ProposalId, Term, WriteSeq};
use alloc::vec::Vec;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The clock moved on by one tick.
    Tick,
    /// A message arrived. Bodies and descriptors have passed their checksums.
    Received(Envelope),
    /// A client wants this body in the log.
    Propose {
        /// The caller's name for it, returned in the response.
        id: ProposalId,
        /// One batch of commands.
        body: Body,
    },
    /// A linearizable read. Answered with [`Reject::Unsupported`] in this version.
    ReadIndex {
        /// The caller's name for the read.
        id: ProposalId,
    },
    /// A membership change. Answered with [`Reject::Unsupported`] in this version.
    ChangeMembership {
        /// The caller's name for the change.
        id: ProposalId,
        /// The membership to reach.
        target: Membership,
    },
    /// Leadership transfer. Answered with [`Reject::Unsupported`] in this version.
    TransferLeadership {
        /// The caller's name for the transfer.
        id: ProposalId,
        /// The node that shall lead.
        to: NodeId,
    },
    /// Something the host was asked to do is done.
    Completed(Completion),
}

/// The host's answers to outputs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Every write up to and including `upto` survives power loss. Cumulative; may skip, repeat and
    /// come late.
    Persisted {
        /// The last durable write.
        upto: WriteSeq,
    },
    /// A write or sync failed; nothing after the last `Persisted` will become durable in this life.
    WriteFailed,
    /// The state machine has applied everything up to and including `upto`, a batch end.
    Applied {
        /// Last applied index.
        upto: Index,
    },
    /// Answer to [`Output::Load`].
    Loaded {
        /// The load that is answered.
        load: LoadId,
        /// Consecutive whole batches from the first one asked for, at least one, or why not.
        result: Result<Vec<Batch>, LoadError>,
    },
}

/// Why stored batches could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// The range is no longer stored.
    Compacted,
    /// The stored bytes fail their checksum.
    Corrupt,
    /// The disk refused the read.
    Io,
}

/// One thing the host shall do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Make this durable, after all earlier writes, then report [`Completion::Persisted`].
    Persist(Write),
    /// Send this; it may be lost.
    Send(Envelope),
    /// Committed batches for the state machine: in order, without a gap, once per life. No-op and
    /// membership batches are included so that indices stay contiguous.
    Apply(Vec<Batch>),
    /// Read stored batches, answer with [`Completion::Loaded`].
    Load(Load),
    /// Answer to a client.
    Respond(Response),
    /// Something observers want to know.
    Changed(Event),
}

/// One atomic change of the durable state. Parts take effect in the order of the fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Identity; the previous write's plus one.
    pub seq: WriteSeq,
    /// New term and vote.
    pub hard_state: Option<HardState>,
    /// Keep the log up to this boundary and drop everything after it.
    pub truncate: Option<Position>,
    /// Batches that follow the end of the log.
    pub append: Vec<Batch>,
    /// The log up to this boundary is covered by a durable snapshot and may be dropped.
    pub compact: Option<Position>,
}

/// Request to read stored batches back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Identity of the request.
    pub id: LoadId,
    /// First index of the first batch wanted.
    pub first: Index,
    /// Last index of the last batch wanted.
    pub last: Index,
    /// Stop after this many bytes, but not before one whole batch.
    pub bytes_max: u64,
}

/// Answer to a client's input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// The body has a place in this leader's log. It is not committed: the outcome is known when
    /// `first.index` is applied, by comparing terms.
    Appended {
        /// The proposal.
        id: ProposalId,
        /// Identity of the batch's first entry.
        first: LogId,
        /// Number of entries.
        count: u32,
    },
    /// Certainly not done.
    Rejected {
        /// The proposal, read, change or transfer.
        id: ProposalId,
        /// Why.
        reason: Reject,
        /// Who may do it, where known.
        leader: Option<NodeId>,
    },
}

/// Why an input was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reject {
    /// This node does not lead.
    NotLeader,
    /// Too many bytes are proposed and not committed; try again later.
    UncommittedLimit,
    /// The body is larger than the cluster's `max_batch`.
    TooLarge,
    /// The body is empty, miscounted or of a kind that callers cannot propose.
    Malformed,
    /// The log has no index left.
    IndexExhausted,
    /// This node has stopped for good in this life; see [`Event::Halted`].
    Halted,
    /// This version does not offer the operation.
    Unsupported,
}

/// The part a node plays.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RoleKind {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks whether a campaign could win.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// What observers are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Role, term or known leader changed.
    Role {
        /// The role now.
        role: RoleKind,
        /// The term now.
        term: Term,
        /// The leader of the term, where known.
        leader: Option<NodeId>,
    },
    /// The node has stopped for good in this life. Last output but for rejections.
    Halted(Fault),
}

/// Why a core stopped. Only a new life, made from what is on disk, goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A write or sync failed.
    WriteFailed,
    /// A completion names a write or load that was never issued.
    UnknownCompletion,
    /// The same (term, index) has two contents.
    Divergence {
        /// The boundary as the leader sent it.
        theirs: Position,
        /// The boundary as this node holds it.
        ours: Position,
    },
    /// A leader asked to drop committed entries.
    CommittedTruncation {
        /// This node's commit index.
        commit: Index,
        /// First index that would have been dropped.
        cut: Index,
    },
    /// Entries this node needs cannot be read back.
    Unreadable {
        /// First index wanted.
        first: Index,
        /// Why.
        error: LoadError,
    },
    /// A leader sent a membership batch, which this version cannot follow. Nothing of it was kept.
    UnsupportedMembershipBatch {
        /// Index of the batch.
        at: Index,
    },
}
