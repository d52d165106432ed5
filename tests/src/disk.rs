//! The disk of one node: what is durable, what is being written, and faults planted in it.

use crate::{Broken, Store};
use duraft_core::{Index, Write, WriteSeq};
use std::collections::VecDeque;

/// A fault planted in the rig, to see the checks fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// Reports every write as durable at once and writes nothing.
    LyingDisk,
    /// Writes everything but the vote.
    LosesVotes,
    /// Writes everything but truncations and what follows them.
    LosesTruncations,
    /// Makes the newest pending write durable first and reports it.
    ReordersWrites,
}

/// Durable content and writes under way.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What survives a crash.
    pub durable: Store,
    /// What the disk would hold if every write issued so far were durable: the node's own view.
    pub issued: Store,
    /// Writes issued and not durable, in order.
    pub pending: VecDeque<Write>,
    /// Writes wait for the test. Otherwise they are durable as soon as the step is over.
    pub hold: bool,
    /// The planted fault, if any.
    pub sabotage: Option<Sabotage>,
    last_seq: Option<WriteSeq>,
}

impl Disk {
    /// A disk that holds this.
    pub fn new(store: Store) -> Disk {
        Disk {
            durable: store.clone(),
            issued: store,
            pending: VecDeque::new(),
            hold: false,
            sabotage: None,
            last_seq: None,
        }
    }

    /// Takes a write. Sequence numbers are dense within a life (I2).
    pub fn issue(&mut self, write: Write) -> Result<(), Broken> {
        let dense = match self.last_seq {
            Some(last) => write.seq == last.next(),
            None => write.seq == WriteSeq(1),
        };
        Broken::unless(dense, "I2 dense write numbers", || {
            format!("write {} after {:?}", write.seq, self.last_seq)
        })?;
        self.last_seq = Some(write.seq);
        self.issued.apply(&write)?;
        self.pending.push_back(write);
        Ok(())
    }

    /// Makes the first `count` pending writes durable and returns the last one's number.
    pub fn land(&mut self, count: usize) -> Result<Option<WriteSeq>, Broken> {
        let mut upto = None;
        for _ in 0..count.min(self.pending.len()) {
            let reordered = self.sabotage == Some(Sabotage::ReordersWrites);
            let write = if reordered {
                self.pending.pop_back()
            } else {
                self.pending.pop_front()
            }
            .expect("counted above");
            upto = upto.max(Some(write.seq));
            self.land_one(&write)?;
        }
        Ok(upto)
    }

    fn land_one(&mut self, write: &Write) -> Result<(), Broken> {
        match self.sabotage {
            None => self.durable.apply(write),
            Some(Sabotage::LyingDisk) => Ok(()),
            Some(Sabotage::LosesVotes) => {
                let mut write = write.clone();
                if let Some(hard_state) = &mut write.hard_state {
                    hard_state.vote = None;
                }
                let _ = self.durable.apply(&write);
                Ok(())
            }
            Some(Sabotage::LosesTruncations) => {
                let mut write = write.clone();
                if write.truncate.take().is_some() {
                    write.append.clear();
                }
                let _ = self.durable.apply(&write);
                Ok(())
            }
            Some(Sabotage::ReordersWrites) => {
                let _ = self.durable.apply(write);
                Ok(())
            }
        }
    }

    /// Number of the newest write issued in this life.
    pub fn last_seq(&self) -> Option<WriteSeq> {
        self.last_seq
    }

    /// The node dies: the first `kept` pending writes survive, the others never happened.
    pub fn crash(&mut self, kept: usize) -> Result<(), Broken> {
        self.land(kept)?;
        self.pending.clear();
        self.issued = self.durable.clone();
        self.last_seq = None;
        Ok(())
    }

    /// Everything up to here stays durable whatever subset of the pending writes a crash keeps: no
    /// pending truncation or reset cuts below it.
    pub fn safe_up_to(&self) -> Index {
        self.pending
            .iter()
            .flat_map(|write| {
                let cut = write.truncate.map(|cut| cut.index());
                let reset = write.snapshot.as_ref().filter(|taken| taken.reset);
                cut.into_iter()
                    .chain(reset.map(|taken| taken.snapshot.position.index()))
            })
            .fold(self.durable.proven().index(), Index::min)
    }
}
