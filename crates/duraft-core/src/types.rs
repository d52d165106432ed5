//! Identifiers and positions: one type per meaning, only the arithmetic that means something.

use crate::digest::Digest;
use core::fmt;

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

numeric_id! {
    /// A member of the cluster. Any value is allowed, 0 and `u64::MAX` included.
    NodeId
}
numeric_id! {
    /// A Raft group. Every record on disk and every message names its group.
    GroupId
}
numeric_id! {
    /// A Raft term (Raft paper, section 5.1). Term 0 is the term before the first election.
    Term
}
numeric_id! {
    /// Position of one command in the log. The first command has index 1; index 0 is the place
    /// before it.
    Index
}
numeric_id! {
    /// Identity of one [`Write`](crate::Write): dense, increasing by one, given by the core. A log
    /// position cannot identify a write: it can be written, overwritten and written again.
    WriteSeq
}
numeric_id! {
    /// One life of a node's process, larger at every start. Told apart in messages so that words of
    /// a dead life are not taken for words of the living one.
    Incarnation
}
numeric_id! {
    /// The caller's name for one proposed batch; the core returns it unread.
    ProposalId
}
numeric_id! {
    /// Identity of one [`Output::Load`](crate::Output::Load).
    LoadId
}

impl Term {
    /// The term after this one; `None` at the end of the range, where no election can be held.
    pub fn next(self) -> Option<Term> {
        self.0.checked_add(1).map(Term)
    }
}

impl Index {
    /// The index after this one. Saturates: [`Batch`](crate::Batch) sealing refuses a batch that
    /// would reach the end of the range, so the saturated value never names a command.
    pub fn next(self) -> Index {
        Index(self.0.saturating_add(1))
    }

    /// The index before this one; 0 stays 0.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl WriteSeq {
    /// The sequence number of the next write.
    pub fn next(self) -> WriteSeq {
        WriteSeq(self.0.saturating_add(1))
    }
}

/// Identity of a log entry: the ordering is Raft's "more up to date" (section 5.4.1), term first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LogId {
    /// Term of the leader that created the entry.
    pub term: Term,
    /// Place in the log.
    pub index: Index,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A batch boundary: the log up to and including `id`, named by content. Two logs that agree on a
/// `Position` hold the same bytes up to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// The last entry before the boundary.
    pub id: LogId,
    /// Chain digest over every batch up to the boundary.
    pub digest: Digest,
}

impl Position {
    /// The beginning of every log: before index 1, in term 0.
    pub const START: Position = Position {
        id: LogId {
            term: Term(0),
            index: Index(0),
        },
        digest: Digest::EMPTY,
    };

    /// The index of the last entry before the boundary.
    pub fn index(&self) -> Index {
        self.id.index
    }

    /// The term of the last entry before the boundary.
    pub fn term(&self) -> Term {
        self.id.term
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:016x}", self.id, self.digest.0)
    }
}

/// What a node must remember of elections: one atomic value, always written as one record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HardState {
    /// The latest term this node has seen.
    pub term: Term,
    /// The candidate this node voted for in `term`.
    pub vote: Option<NodeId>,
}
