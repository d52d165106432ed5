//! What a server counts, and a little history for people who look.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A time in whole microseconds.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Samples of history: one a second.
const HISTORY_MAX: usize = 300;

/// A number that only grows, or a gauge.
#[derive(Default, Debug)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module documentation.
#[derive(Default, Debug)]
pub(crate) struct Stats {
    pub(crate) connections: Count,
    pub(crate) accepted: Count,
    pub(crate) refused_connections: Count,
    pub(crate) commands: Count,
    pub(crate) writes: Count,
    pub(crate) reads: Count,
    pub(crate) stale_reads: Count,
    pub(crate) entries: Count,
    pub(crate) passed_on: Count,
    pub(crate) redirected: Count,
    pub(crate) refused: Count,
    pub(crate) unknown: Count,
    pub(crate) bad_requests: Count,
    pub(crate) slow_clients: Count,
    pub(crate) partial_requests: Count,
    pub(crate) out_of_memory: Count,
    pub(crate) http_requests: Count,
    history: Mutex<VecDeque<Sample>>,
}

/// One second of a node's life.
#[derive(Clone, Copy, Serialize, Deserialize, Debug, Default)]
pub(crate) struct Sample {
    /// Seconds since the epoch.
    pub(crate) at: u64,
    pub(crate) term: u64,
    pub(crate) commit: u64,
    pub(crate) applied: u64,
    pub(crate) syncs: u64,
    pub(crate) sync_p50_us: u64,
    pub(crate) sync_p99_us: u64,
    pub(crate) sync_max_us: u64,
    pub(crate) commands: u64,
}

impl Stats {
    pub(crate) fn remember(&self, sample: Sample) {
        let mut history = self.history.lock();
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(sample);
    }

    pub(crate) fn history(&self) -> Vec<Sample> {
        self.history.lock().iter().copied().collect()
    }
}
