//! What parent and child say to each other, one JSON value per line.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What can stick inside a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ValueEnum)]
pub(crate) enum Part {
    /// A follower's whole process is stopped: it reads nothing and answers nothing.
    Follower,
    /// Writes and syncs of one node's disk do not return.
    Disk,
    /// `apply` of one node's state machine does not return.
    StateMachine,
}

/// Parent to child.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Keep so many commands on their way.
    Load { outstanding: u32 },
    /// Propose nothing more.
    Quiet,
    /// Let this part stick.
    Stick(Part),
    /// Let everything go on.
    Release,
    /// Tell how you are; with the state machine's digest, which is not to be had while it sticks.
    Tell { digest: bool },
}

/// Child to parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The node has started.
    Ready,
    /// Answer to [`Order::Tell`].
    State(Box<State>),
}

/// A node at one moment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) leads: bool,
    pub(super) leader: Option<u64>,
    pub(super) term: u64,
    pub(super) commit: u64,
    pub(super) applied: u64,
    pub(super) durable: u64,
    pub(super) last: u64,
    /// Commands and bytes of them that this node's clients wait for.
    pub(super) commands_waiting: usize,
    pub(super) command_bytes_waiting: usize,
    /// Answers to this node's clients so far, by what they said.
    pub(super) answers: BTreeMap<String, u64>,
    /// Disk operations that do not return at this moment.
    pub(super) stuck_operations: usize,
    /// Commands applied, and a digest of them in their order.
    pub(super) digest: Option<(u64, u64)>,
    /// Why the node has stopped, if it has.
    pub(super) stopped: Option<String>,
}

/// The name of an acknowledgement among the answers.
pub(super) const DONE: &str = "done";
