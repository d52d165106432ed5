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

impl Preparer {
    pub(crate) fn new(pool: Arc<Pool>, ready_min: usize) -> Preparer {
        Preparer { pool, ready_min }
    }

    /// Makes at most one slot. `Ok(true)`: it did, and another turn may find more to do. On an error
    /// the log goes on with the slots that are ready.
    pub fn turn(&mut self) -> Result<bool, DiskError> {
        if self.is_done() {
            return Ok(false);
        }
        self.pool.prepare()
    }

    /// Are enough slots ready?
    pub fn is_done(&self) -> bool {
        self.pool.stats().ready >= self.ready_min
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
