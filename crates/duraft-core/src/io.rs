//! Inputs and outputs of the core.
//!
//! The host's whole duty: perform writes in the order of their [`WriteSeq`]; report `Persisted` only
//! when everything up to it survives power loss; perform every other output whenever it likes, in
//! order per kind. A [`Output::Send`] may be sent, dropped, delayed or duplicated the moment it is
//! emitted: what must wait for the disk has waited inside the core.

use crate::batch::{Batch, Body};
use crate::membership::{ChangeError, Leave, MemberChange};
use crate::message::Envelope;
use crate::snapshot::Snapshot;
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
    /// A linearizable read. Answered with [`Output::ReadReady`] or [`Response::Rejected`].
    Read {
        /// The caller's name for the read.
        id: ProposalId,
        /// What makes the answer linearizable.
        basis: ReadBasis,
    },
    /// A membership change (thesis 4.3). Answered like a proposal.
    ChangeMembership {
        /// The caller's name for the change.
        id: ProposalId,
        /// What to change in the membership as the leader has it now, all of it at once.
        changes: Vec<MemberChange>,
        /// How a joint membership that this leads to is left.
        leave: Leave,
    },
    /// Leaves a joint membership whose change asked for [`Leave::Explicit`]. Answered like a proposal.
    LeaveJoint {
        /// The caller's name for it.
        id: ProposalId,
    },
    /// Leadership transfer (thesis 3.10). Answered with [`Response::Done`] when this node has given
    /// the leadership up to `to`, or [`Response::Rejected`].
    TransferLeadership {
        /// The caller's name for the transfer.
        id: ProposalId,
        /// The node that shall lead.
        to: NodeId,
    },
    /// A leader gives its leadership up, whoever comes next. Answered with [`Response::Done`].
    StepDown {
        /// The caller's name for it.
        id: ProposalId,
    },
    /// A follower forgets who leads, keeps its term, and grants pre-votes to who is up to date.
    ForgetLeader,
    /// The host has lost its connection to a peer: what was sent ahead may not have arrived.
    Unreachable {
        /// The peer.
        peer: NodeId,
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
    /// A snapshot of this node's state machine stands in a durable file.
    SnapshotTaken {
        /// The snapshot; its position has been applied here.
        snapshot: Snapshot,
    },
    /// A snapshot sent by `from` stands whole, verified and durable in a file of this node.
    SnapshotReceived {
        /// The node that sent it.
        from: NodeId,
        /// The term the sender led when it was asked to, as [`Output::SendSnapshot`] said: a transfer
        /// speaks for its leader as an append does.
        term: Term,
        /// The snapshot.
        snapshot: Snapshot,
    },
    /// Answer to [`Output::SendSnapshot`], once or more.
    SnapshotSending {
        /// The peer.
        to: NodeId,
        /// The index of the snapshot that is being sent.
        at: Index,
        /// How it goes.
        progress: SendProgress,
    },
}

/// What makes a read linearizable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReadBasis {
    /// A quorum confirms the leader after the read has come in (thesis 6.4).
    Quorum,
    /// The leader's lease, where leases are configured and one is held; otherwise as `Quorum`.
    Lease,
}

/// What becomes of a snapshot on its way to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendProgress {
    /// The peer has acknowledged more of it.
    Moving,
    /// The peer holds all of it durably; its own acknowledgement of the install follows.
    Delivered,
    /// It was given up; the core may ask again.
    Failed,
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
    /// A read may be answered by a state machine that has applied `index`.
    ReadReady {
        /// The read.
        id: ProposalId,
        /// The least index whose state may be shown.
        index: Index,
        /// Where a lease vouches for the read: the heartbeat round whose send time the lease counts
        /// from. The host checks the deadline after the state machine has answered, on a clock that
        /// counts suspend (RULES.md 26). `None`: nothing to check.
        lease: Option<u64>,
    },
    /// Send this snapshot to a peer, answer with [`Completion::SnapshotSending`]. A later one for the
    /// same peer replaces it.
    SendSnapshot {
        /// The peer.
        to: NodeId,
        /// The term the sender leads.
        term: Term,
        /// What to send.
        snapshot: Snapshot,
    },
    /// Replace the state machine's state by this snapshot, which is durable here and the start of the
    /// log, then report [`Completion::Applied`] up to its position. Everything handed over before is
    /// void; what follows continues from here.
    InstallSnapshot(Snapshot),
    /// Somebody needs a snapshot that is newer than this node's latest: take one as soon as the state
    /// machine allows. Asked again if it is still needed; a host that is taking one need do nothing.
    TakeSnapshot,
    /// Answer to a client.
    Respond(Response),
    /// Something observers want to know.
    Changed(Event),
}

/// One atomic change of the durable state. Parts take effect in the order of the fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Write {
    /// Identity; the previous write's plus one.
    pub seq: WriteSeq,
    /// New term and vote.
    pub hard_state: Option<HardState>,
    /// A durable snapshot file that the group counts on from here on.
    pub snapshot: Option<SnapshotWrite>,
    /// Keep the log up to this boundary and drop everything after it.
    pub truncate: Option<Position>,
    /// Batches that follow the end of the log.
    pub append: Vec<Batch>,
    /// The log up to this boundary is covered by a durable snapshot and may be dropped.
    pub compact: Option<Position>,
    /// What of the group's damage is over from here on (RULES.md 13). Until then every new life finds
    /// it again.
    pub healed: Option<Healed>,
}

/// What of a damage is over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Healed {
    /// Term and vote are certain again; the log may still lack entries (RULES.md 14).
    Vote,
    /// Everything: no index is missing, nothing else is lost.
    All,
}

/// The commit point of a snapshot: its file was durable before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotWrite {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Drop the whole log, which now begins and ends at the snapshot. Otherwise the log stays.
    pub reset: bool,
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
    /// A transfer or step-down is done.
    Done {
        /// The transfer or step-down.
        id: ProposalId,
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
    /// Leadership is being handed over; try the next leader.
    TransferInProgress,
    /// The transfer's target did not take over in time; this node leads on.
    TransferTimedOut,
    /// The target is not a voter, or this node itself.
    TransferTarget,
    /// Leadership was lost before the read was confirmed, or before the transfer's target was known to have
    /// it; look who leads now.
    LostLeadership,
    /// Another membership change has not been completed.
    MembershipInFlight,
    /// The leader has not committed an entry of its own term yet; try again soon.
    NotYetCommittedInTerm,
    /// The change leads to no usable membership.
    Change(ChangeError),
    /// There is no joint membership to leave.
    NotJoint,
    /// The node's own disk is too far behind; try again later.
    StorageSaturated,
    /// The state machine is too far behind; try again later.
    UnappliedLimit,
    /// Too many reads wait; try again later.
    ReadLimit,
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
    /// The membership in use changed, or the one in use was committed.
    Membership {
        /// Index of the batch that set it, or of the snapshot or start it was taken from.
        at: Index,
        /// It can no longer be rolled back.
        committed: bool,
    },
    /// A damaged log is whole again, or found an open question answered.
    Healed,
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
    /// A leader has seen this node acknowledge an entry that it does not hold any more, though its
    /// disk reports no damage: the disk was rolled back or replaced (RULES.md 18).
    RolledBack {
        /// The entry.
        seen: LogId,
    },
}
