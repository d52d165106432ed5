//! Messages between nodes. Fields that mean something only sometimes live in variants.

use crate::LogId;
use crate::batch::Batch;
use crate::types::{GroupId, Incarnation, Index, NodeId, Position, Term};
use alloc::vec::Vec;

/// A message and its addresses.
///
/// `term` is the sender's durable term, with one exception that needs no promise from the disk: a
/// pre-vote asks about a term in a field of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Group the message belongs to.
    pub group: GroupId,
    /// Sender.
    pub from: NodeId,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Receiver.
    pub to: NodeId,
    /// The sender's term.
    pub term: Term,
    /// What it says.
    pub message: Message,
}

/// What a node says to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Would you vote for me in term `wanted`? Promises nothing, changes no term (thesis 9.6).
    PreVote {
        /// The term the sender would campaign in.
        wanted: Term,
        /// The sender's last entry.
        last: LogId,
    },
    /// Answer to a pre-vote.
    PreVoteReply {
        /// The term that was asked about.
        wanted: Term,
        /// Would this node vote for the sender?
        granted: bool,
    },
    /// RequestVote (paper, section 5.2). Leaves only when term, own vote and `last` are durable.
    Vote {
        /// The candidate's last durable entry.
        last: LogId,
        /// A leader asked for this campaign: voters that hear from it answer all the same.
        forced: bool,
    },
    /// Answer to RequestVote; a grant leaves only when the vote is durable.
    VoteReply {
        /// Was the vote granted?
        granted: bool,
    },
    /// AppendEntries with content, or a probe when `batches` is empty.
    Append {
        /// The boundary the batches follow.
        prev: Position,
        /// Batches that follow `prev`, in order, without a gap.
        batches: Vec<Batch>,
        /// The leader's commit index.
        commit: Index,
    },
    /// Answer to an append.
    AppendReply(AppendReply),
    /// "I lead": resets election timers, carries a commit index, asks for an answer that proves
    /// contact. Never acknowledges log content.
    Heartbeat {
        /// Commit index, not above what the receiver is known to hold durably.
        commit: Index,
        /// Number of the heartbeat round, returned in the reply.
        round: u64,
    },
    /// Answer to a heartbeat.
    HeartbeatReply {
        /// The round that is answered.
        round: u64,
        /// How the sender is.
        health: Health,
    },
    /// From a leader: campaign now, without asking first (thesis 3.10).
    TimeoutNow,
    /// From a follower to the leader: up to which index must I have applied to answer a read?
    ReadIndex {
        /// Number of the question, unique in the asker's life.
        id: u64,
    },
    /// Answer to a read question.
    ReadIndexReply {
        /// The question.
        id: u64,
        /// The asker's life, which the question was bound to.
        asker: Incarnation,
        /// The index; `None`: this node cannot say, ask again later.
        index: Option<Index>,
    },
    /// Give me the batches after this boundary: mine are damaged. Any node that has it may answer.
    Fetch {
        /// The boundary the wanted batches follow.
        after: Position,
    },
    /// Answer to a fetch. Believed only as far as digests prove it.
    Fetched {
        /// The boundary the batches follow.
        after: Position,
        /// Consecutive batches, durable at the sender.
        batches: Vec<Batch>,
    },
    /// From a follower whose log is damaged to its leader (RULES.md 15).
    DamageReport {
        /// It may have acknowledged entries it does not know of.
        lost_suffix: bool,
        /// Its snapshot is lost: it needs one that covers at least this index.
        needs_snapshot: Option<Index>,
    },
    /// Answer to a damage report: whole when durable through here, under this leader and term.
    Heal {
        /// The reporter's life, which the answer is for.
        asker: Incarnation,
        /// The leader's last index when the report came in.
        to: Index,
    },
    /// From a node that does not know its own term and vote: which term has the receiver durable?
    /// The answer is the envelope's term (RULES.md 14).
    TermQuery,
    /// Answer to a term query.
    TermReply {
        /// The asker's life, which the question was bound to.
        asker: Incarnation,
        /// All voters the sender knows of, those of both sides while its membership is joint: the
        /// asker's own membership may be older, and it must hear from these too.
        voters: Vec<NodeId>,
    },
    /// From a leader: you have acknowledged this entry in an earlier life and do not hold it any more.
    /// Your disk was rolled back (RULES.md 18).
    RolledBack {
        /// The entry.
        seen: LogId,
    },
}

/// What a follower tells its leader of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Health {
    /// How much this node wants to lead; the highest among the healthy should.
    pub priority: u8,
    /// Its oldest write has been under way for too long, or its log is damaged: it cannot lead now.
    pub impaired: bool,
}

/// A follower's answer to an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendReply {
    /// Everything up to `matched` is the leader's log and is durable here.
    Accepted {
        /// A batch boundary of the leader's log.
        matched: Index,
    },
    /// The boundary `prev` is not in this log.
    Rejected {
        /// The boundary that was asked for.
        prev: LogId,
        /// The largest entry of this log that can still agree with the leader's: the last boundary
        /// at or before `prev` whose term is at most `prev`'s.
        hint: LogId,
    },
    /// The same (term, index) stands here with other content. Nothing was changed.
    Divergence {
        /// The boundary as the leader sent it.
        theirs: Position,
        /// The boundary as this node holds it.
        ours: Position,
    },
}
