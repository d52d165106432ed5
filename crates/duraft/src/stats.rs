//! What a node measures of itself: how long each stage takes that a command goes through, and the
//! counters of its transport.
//!
//! Always on, and cheap: a client's thread reads the clock once per command, the raft thread once per
//! turn (which it did before), the WAL thread four times per group commit, the apply thread once per
//! batch. What is measured goes into counters of buckets, without locks.

use crate::transport::TcpStats;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A stage on a command's way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// From the client's call to the place in the log: waiting to be packed into a batch. Per command.
    Queue,
    /// Laying a group commit out in memory, checksums included. Per group commit.
    Encode,
    /// Handing it to the system. Per group commit.
    Write,
    /// Making it durable. Per group commit.
    Sync,
    /// From sending an append to the peer's word that it is durable there. Per append and peer, at
    /// the leader.
    Replicate,
    /// From the place in the log to the commitment by a quorum. Per batch, at the leader.
    Commit,
    /// From the commitment to the state machine's answer, waiting for its turn included. Per batch.
    Apply,
}

impl Stage {
    /// All of them, in the order of a command's way.
    pub const ALL: [Stage; 7] = [
        Stage::Queue,
        Stage::Encode,
        Stage::Write,
        Stage::Sync,
        Stage::Replicate,
        Stage::Commit,
        Stage::Apply,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Encode => "encode",
            Stage::Write => "write",
            Stage::Sync => "sync",
            Stage::Replicate => "replicate",
            Stage::Commit => "commit",
            Stage::Apply => "apply",
        }
    }
}

/// What a node has measured of itself in this life, as an owned copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// How long the stages took, in the order of [`Stage::ALL`].
    pub stages: [Histogram; Stage::ALL.len()],
    /// The transport between nodes.
    pub transport: TcpStats,
}

impl Stats {
    /// How long a stage took.
    pub fn stage(&self, stage: Stage) -> &Histogram {
        &self.stages[stage as usize]
    }
}

/// Each power of two is divided into so many buckets: a value is known to an eighth of itself.
const PARTS: usize = 4;
/// Enough for all durations in nanoseconds.
const BUCKETS: usize = 63 * PARTS;

/// How often something took how long: counts in buckets, four to each power of two of nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// Empty, or one count for each bucket.
    counts: Vec<u64>,
    sum_nanos: u64,
    max_nanos: u64,
}

/// The bucket of a value.
fn bucket_of(nanos: u64) -> usize {
    let parts = PARTS as u64;
    if nanos < parts {
        return usize::try_from(nanos).unwrap_or_default();
    }
    let exponent = nanos.ilog2();
    let part = (nanos >> (exponent - 2)) % parts;
    (exponent as usize - 1) * PARTS + usize::try_from(part).unwrap_or_default()
}

/// The least value of the next bucket.
fn end_of(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next < PARTS {
        return next as u64;
    }
    let (exponent, part) = (next / PARTS + 1, next % PARTS);
    let base = 1u64.checked_shl(u32::try_from(exponent).unwrap_or(u32::MAX));
    base.map_or(u64::MAX, |base| base + base / PARTS as u64 * part as u64)
}

impl Histogram {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// The largest value, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// The mean; zero where there is nothing.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos.checked_div(self.count()).unwrap_or(0))
    }

    /// The value that this share of all values, from 0 to 1, does not pass: the end of its bucket, at
    /// most a quarter above. Zero where there is nothing.
    pub fn quantile(&self, share: f64) -> Duration {
        let count = self.count();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a count is a count"
        )]
        let rank = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (end, count) in self.buckets() {
            seen += count;
            if seen >= rank {
                return end.min(self.max());
            }
        }
        self.max()
    }

    /// The buckets that are not empty: the end of each, which its values stay below, and how many
    /// there are.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, n)| **n > 0);
        filled.map(|(bucket, count)| (Duration::from_nanos(end_of(bucket)), *count))
    }

    /// What was added since an earlier copy of the same histogram. The largest value is that of both.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let before = |bucket| earlier.counts.get(bucket).copied().unwrap_or(0);
        let counts = self.counts.iter().enumerate();
        Histogram {
            counts: counts.map(|(b, n)| n.saturating_sub(before(b))).collect(),
            sum_nanos: self.sum_nanos.saturating_sub(earlier.sum_nanos),
            max_nanos: self.max_nanos,
        }
    }
}

/// A histogram that is being filled. Any thread may add and look.
pub(crate) struct Live {
    counts: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl Default for Live {
    fn default() -> Live {
        Live {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum_nanos: AtomicU64::new(0),
            max_nanos: AtomicU64::new(0),
        }
    }
}

impl Live {
    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) & (u64::MAX >> 1);
        self.counts[bucket_of(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        if nanos > self.max_nanos.load(Ordering::Relaxed) {
            self.max_nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Histogram {
        Histogram {
            counts: self
                .counts
                .iter()
                .map(|n| n.load(Ordering::Relaxed))
                .collect(),
            sum_nanos: self.sum_nanos.load(Ordering::Relaxed),
            max_nanos: self.max_nanos.load(Ordering::Relaxed),
        }
    }
}

/// The stages of one node.
#[derive(Default)]
pub(crate) struct Stages([Live; Stage::ALL.len()]);

impl Stages {
    pub(crate) fn record(&self, stage: Stage, took: Duration) {
        self.0[stage as usize].record(took);
    }

    pub(crate) fn read(&self) -> [Histogram; Stage::ALL.len()] {
        self.0.each_ref().map(Live::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_have_no_gaps() {
        let near = |exponent: u32| {
            let base = 1u64 << exponent;
            [
                base - 1,
                base,
                base + 1,
                base + base / 4,
                base + base / 2 + base / 4,
            ]
        };
        for nanos in (0..63).flat_map(near) {
            let bucket = bucket_of(nanos);
            assert!(bucket < BUCKETS, "{nanos}");
            assert!(nanos < end_of(bucket), "{nanos} in {bucket}");
            assert!(
                bucket == 0 || nanos >= end_of(bucket - 1),
                "{nanos} in {bucket}"
            );
        }
        for bucket in 1..BUCKETS {
            assert!(end_of(bucket) > end_of(bucket - 1), "{bucket}");
        }
    }

    #[test]
    fn quantiles_are_at_most_a_quarter_too_large() {
        let live = Live::default();
        assert_eq!(live.read().quantile(0.5), Duration::ZERO);
        assert_eq!(live.read().mean(), Duration::ZERO);
        (1..=1000).for_each(|micros| live.record(Duration::from_micros(micros)));
        let histogram = live.read();
        assert_eq!(histogram.count(), 1000);
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        for (share, exact) in [(0.5, 500), (0.99, 990), (0.001, 1), (1.0, 1000)] {
            let found = histogram.quantile(share);
            let exact = Duration::from_micros(exact);
            assert!(
                found >= exact && found <= exact * 5 / 4,
                "{share}: {found:?}"
            );
        }
        live.record(Duration::from_secs(9));
        let new = live.read().since(&histogram);
        assert_eq!((new.count(), new.sum()), (1, Duration::from_secs(9)));
        live.record(Duration::MAX);
        assert_eq!(live.read().count(), 1002, "no value is too large");
    }

    #[test]
    fn stages_are_numbered_as_they_are_listed() {
        for (number, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, number);
        }
        let stages = Stages::default();
        stages.record(Stage::Sync, Duration::from_millis(1));
        let stages = stages.read();
        let stats = Stats {
            stages,
            transport: TcpStats::default(),
        };
        let counts = Stage::ALL.map(|stage| stats.stage(stage).count());
        assert_eq!(counts, [0, 0, 0, 1, 0, 0, 0]);
    }
}
