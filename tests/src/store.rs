//! What a disk holds once its writes are durable: the meaning of [`Write`], written down a second time.

use crate::Broken;
use duraft_core::{Batch, HardState, Index, Position, Write};

/// Hard state and log as recovery would return them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The boundary before the first stored batch.
    pub start: Position,
    /// Term and vote.
    pub hard_state: HardState,
    /// Stored batches in order.
    pub batches: Vec<Batch>,
}

impl Store {
    /// A store that holds these batches.
    pub fn new(start: Position, hard_state: HardState, batches: Vec<Batch>) -> Store {
        let store = Store {
            start,
            hard_state,
            batches,
        };
        let mut end = start;
        for batch in &store.batches {
            assert!(batch.header.follows(&end), "a log without a gap");
            end = batch.header.position();
        }
        store
    }

    /// The boundary after the last stored batch.
    pub fn last(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, |batch| batch.header.position())
    }

    /// The boundary at `index`, if a batch ends there or the log starts there.
    pub fn boundary(&self, index: Index) -> Option<Position> {
        if index == self.start.index() {
            return Some(self.start);
        }
        self.batches
            .binary_search_by_key(&index, |batch| batch.header.last())
            .ok()
            .map(|at| self.batches[at].header.position())
    }

    /// Does this log hold exactly this prefix?
    pub fn holds(&self, position: &Position) -> bool {
        self.boundary(position.index()) == Some(*position)
    }

    /// The batch that begins at `first`.
    pub fn batch_at(&self, first: Index) -> Option<&Batch> {
        self.batches
            .binary_search_by_key(&first, |batch| batch.header.first)
            .ok()
            .map(|at| &self.batches[at])
    }

    /// Performs a write, checking that it can be performed (I2, I7): the hard state never goes back,
    /// a vote never changes within its term, truncation names a boundary that is there, appended
    /// batches follow the log without a gap and have a term that this node has adopted.
    pub fn apply(&mut self, write: &Write) -> Result<(), Broken> {
        if let Some(new) = write.hard_state {
            let old = self.hard_state;
            Broken::unless(new.term >= old.term, "I7 term never decreases", || {
                format!("write {} sets {new:?} over {old:?}", write.seq)
            })?;
            let vote_kept = new.term > old.term || old.vote.is_none() || new.vote == old.vote;
            Broken::unless(vote_kept, "I7 vote never changes within a term", || {
                format!("write {} sets {new:?} over {old:?}", write.seq)
            })?;
            self.hard_state = new;
        }
        if let Some(cut) = write.truncate {
            Broken::unless(self.holds(&cut), "I2 truncation at a held boundary", || {
                format!(
                    "write {} truncates to {cut}, last {}",
                    write.seq,
                    self.last()
                )
            })?;
            self.batches
                .retain(|batch| batch.header.last() <= cut.index());
        }
        for batch in &write.append {
            let end = self.last();
            Broken::unless(batch.header.follows(&end), "I2 no gap", || {
                format!("write {} appends {:?} after {end}", write.seq, batch.header)
            })?;
            let adopted = batch.header.term <= self.hard_state.term;
            Broken::unless(
                adopted,
                "I2 no entry of a term above the hard state",
                || format!("write {} appends {:?}", write.seq, batch.header),
            )?;
            self.batches.push(batch.clone());
        }
        Broken::unless(write.compact.is_none(), "no compaction yet", || {
            format!("write {} compacts", write.seq)
        })
    }
}
