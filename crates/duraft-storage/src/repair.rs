//! What people decided about a store, against what its records say: written into the log, repeated
//! in every later segment, and told at every open.

use duraft_core::Index;
use std::fmt;

/// Most repairs of a group that are remembered; of more, the latest.
pub(crate) const REPAIRS_MAX: usize = 3;

/// One decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repair {
    /// What was decided.
    pub kind: RepairKind,
    /// First index it is about.
    pub first: Index,
    /// Last index it is about.
    pub last: Index,
    /// The open generation that did it.
    pub generation: u32,
    /// The wall clock then, as that open was told.
    pub wallclock_ns: u64,
}

/// See [`Repair`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RepairKind {
    /// The log from `first` on was given up, `last` being the last index known of; and whatever else
    /// the damage may have taken. See [`OnDamage::AcceptLoss`](crate::OnDamage::AcceptLoss).
    LossAccepted,
    /// The membership batch at `first` was written without any quorum. See
    /// [`force_configuration`](crate::force_configuration).
    ConfigurationForced,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Repair {
            kind,
            first,
            last,
            generation,
            wallclock_ns,
        } = self;
        match kind {
            RepairKind::LossAccepted => write!(f, "loss of indices {first} to {last} accepted")?,
            RepairKind::ConfigurationForced => write!(f, "membership forced at index {first}")?,
        }
        write!(f, " by open {generation}, at {wallclock_ns} ns")
    }
}
