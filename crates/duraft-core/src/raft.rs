//! The Raft state machine.

use crate::batch::BatchHeader;
use crate::config::{Config, ConfigProblem};
use crate::io::{Input, Output};
use crate::membership::Membership;
use crate::types::{HardState, Incarnation, Position};
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

/// One node's part of one Raft group.
#[derive(Clone, Debug)]
pub struct Raft {
    config: Config,
}

impl Raft {
    /// A node as recovery found it: a follower.
    pub fn new(config: Config, _boot: Boot) -> Result<Raft, BootError> {
        Ok(Raft { config })
    }

    /// Takes in what happened and appends what to do to `out`.
    pub fn step(&mut self, _input: Input, _out: &mut Vec<Output>) {
        let _ = &self.config;
    }
}
