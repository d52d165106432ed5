//! What clients ask, what they are told, and how it travels: one JSON value per line.

use serde::{Deserialize, Serialize};

/// One attempt of one client; never repeated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(super) struct OpId {
    pub(super) client: u32,
    pub(super) number: u64,
}

/// An operation on one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Op {
    Get,
    Put { value: u64 },
    Swap { from: Option<u64>, to: u64 },
}

/// What an operation saw or did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Seen {
    Value(Option<u64>),
    Written,
    Swapped(bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: OpId,
    pub(super) key: u32,
    pub(super) op: Op,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done(Seen),
    /// Certainly not done.
    Refused {
        leader: Option<u64>,
    },
    Unknown,
}

/// Parent to child.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Do(Request),
    Tell,
}

/// Child to parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Ready,
    Answer(OpId, Answer),
    State(State),
    /// A snapshot of this node is durable, or one of a leader has taken the place of its state.
    Snapshot {
        installed: bool,
    },
}

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) leads: bool,
    pub(super) term: u64,
    pub(super) commit: u64,
    pub(super) applied: u64,
    pub(super) last: u64,
    pub(super) stopped: Option<String>,
}
