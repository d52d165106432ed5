//! Keeps slots ready for the segments to come, away from the commit path.

use crate::pool::{Pool, PoolStats};
use duraft_disk::DiskError;
use std::sync::Arc;

/// Makes slots ahead of need. [`Preparer::turn`] is deterministic; a thread may call it.
#[derive(Clone)]
pub struct Preparer {
    pool: Arc<Pool>,
    ready_min: usize,
}

/// What a turn of the preparer came to.
#[derive(Debug)]
pub enum Prepared {
    /// One more slot is ready; another turn may find more to do.
    Made,
    /// Enough slots are ready, or there may be no more.
    Nothing,
    /// The disk refused. The log goes on with the slots that are ready.
    Refused(DiskError),
}

impl Preparer {
    pub(crate) fn new(pool: Arc<Pool>, ready_min: usize) -> Preparer {
        Preparer { pool, ready_min }
    }

    /// Makes at most one slot.
    pub fn turn(&mut self) -> Prepared {
        if self.pool.stats().ready >= self.ready_min {
            return Prepared::Nothing;
        }
        match self.pool.prepare() {
            Ok(true) => Prepared::Made,
            Ok(false) => Prepared::Nothing,
            Err(error) => Prepared::Refused(error),
        }
    }

    /// What the pool holds.
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }
}

impl std::fmt::Debug for Preparer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preparer")
            .field("ready_min", &self.ready_min)
            .field("stats", &self.stats())
            .finish()
    }
}
