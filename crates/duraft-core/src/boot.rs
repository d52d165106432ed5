//! What a new life begins with, and what it refuses to begin with.

use crate::batch::{BatchHeader, BatchKind, check_count};
use crate::config::ConfigProblem;
use crate::membership::Membership;
use crate::types::{GroupId, HardState, Incarnation, Position};
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

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BootError::Config(problems) => {
                write!(f, "the configuration cannot be used")?;
                problems.iter().try_for_each(|p| write!(f, "; {p}"))
            }
            BootError::BrokenChain { at } => {
                write!(f, "stored batch {at} does not continue the log before it")
            }
            BootError::TermBehindLog => {
                write!(f, "the stored term is older than the last stored entry's")
            }
            BootError::UnsupportedMembershipBatch => write!(
                f,
                "the log holds a membership batch, which this version cannot start from"
            ),
        }
    }
}

impl core::error::Error for BootError {}

/// Checks that the stored batches continue one another from the start, and returns where they end.
pub(crate) fn check_chain(group: GroupId, boot: &Boot) -> Result<Position, BootError> {
    let mut end = boot.start;
    for (at, header) in boot.batches.iter().enumerate() {
        let fits = end
            .index()
            .0
            .checked_add(u64::from(header.count) + 1)
            .is_some();
        if !fits
            || header.group != group
            || check_count(header.kind, header.count).is_err()
            || !header.follows(&end)
        {
            return Err(BootError::BrokenChain { at });
        }
        if header.kind == BatchKind::Membership {
            return Err(BootError::UnsupportedMembershipBatch);
        }
        end = header.position();
    }
    Ok(end)
}
