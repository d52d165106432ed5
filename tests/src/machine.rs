//! The modelled state machine: it remembers everything it was given, in order. Its snapshot is its
//! whole memory, so that what a snapshot brings can be compared with what was committed.

use crate::{Broken, commands_of};
use duraft_core::{Batch, BatchKind, Membership, Position};

/// A state machine, or what a snapshot file holds of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Everything applied since the cluster's beginning, in order.
    pub applied: Vec<Batch>,
    /// Where it stands.
    pub to: Position,
    /// The membership there, as the batches it was given say.
    pub membership: Membership,
}

impl Machine {
    /// The state at the beginning of the cluster's log.
    pub fn new(start: Position, membership: Membership) -> Machine {
        Machine {
            applied: Vec::new(),
            to: start,
            membership,
        }
    }

    /// Applies one batch.
    pub fn apply(&mut self, batch: Batch) -> Result<(), Broken> {
        Broken::unless(
            batch.header.follows(&self.to),
            "H5 applied in order",
            || format!("{:?} is applied after {}", batch.header, self.to),
        )?;
        if batch.header.kind == BatchKind::Membership {
            let decoded = Membership::decode(&batch.body);
            self.membership = decoded.expect("membership batches are well-formed");
        }
        self.to = batch.header.position();
        self.applied.push(batch);
        Ok(())
    }

    /// User commands it remembers.
    pub fn commands(&self) -> Vec<String> {
        self.applied.iter().flat_map(commands_of).collect()
    }
}
