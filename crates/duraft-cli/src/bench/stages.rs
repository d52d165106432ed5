//! How long the stages of a command's way took, as a node measured them: counts in the buckets of its own
//! histograms, which tell a latency up to a quarter of itself.

use super::summary::Latencies;
use duraft::{Node, Stage};
use std::collections::BTreeMap;
use std::time::Duration;

/// For a stage's place in [`Stage::ALL`] and the end of a bucket in nanoseconds, how often.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct StageCounts(BTreeMap<(u8, u64), u64>);

impl StageCounts {
    /// What a node has counted in this life.
    pub(crate) fn of(node: &Node) -> StageCounts {
        let stats = node.stats();
        let mut counts = StageCounts::default();
        for (place, stage) in (0..).zip(Stage::ALL) {
            for (end, count) in stats.stage(stage).buckets() {
                let end = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX);
                counts.add(place, end, count);
            }
        }
        counts
    }

    /// So many more values of a stage that end in a bucket.
    pub(crate) fn add(&mut self, place: u8, end_nanos: u64, count: u64) {
        *self.0.entry((place, end_nanos)).or_default() += count;
    }

    /// All counts: a stage's place, the end of a bucket in nanoseconds, and how often.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u8, u64, u64)> + '_ {
        self.0.iter().map(|((place, end), n)| (*place, *end, *n))
    }

    /// Adds what came after an earlier count of the same node. One that has restarted counts anew.
    pub(crate) fn merge_since(&mut self, now: &StageCounts, before: &StageCounts) {
        let earlier = |key: &(u8, u64)| before.0.get(key).copied().unwrap_or(0);
        let same_life = before.0.iter().all(|(key, n)| now.0.get(key) >= Some(n));
        for (key, count) in &now.0 {
            let more = if same_life {
                count - earlier(key)
            } else {
                *count
            };
            self.add(key.0, key.1, more);
        }
    }

    /// Each stage that something went through.
    pub(crate) fn latencies(&self) -> Vec<(&'static str, Latencies)> {
        let mut all = Vec::new();
        for (place, stage) in (0u8..).zip(Stage::ALL) {
            let mut latencies = Latencies::new();
            for ((_, end), count) in self.0.range((place, 0)..=(place, u64::MAX)) {
                latencies.record_many(Duration::from_nanos(*end), *count);
            }
            if latencies.count() > 0 {
                all.push((stage.name(), latencies));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_later_counts_and_a_new_life_counts_whole() {
        let counts = |values: &[(u8, u64, u64)]| {
            let mut counts = StageCounts::default();
            for (place, end, n) in values {
                counts.add(*place, *end, *n);
            }
            counts
        };
        let before = counts(&[(0, 1_000, 5), (3, 64_000, 2)]);
        let later = counts(&[(0, 1_000, 6), (3, 64_000, 2), (3, 80_000, 4)]);
        let mut sum = StageCounts::default();
        sum.merge_since(&later, &before);
        assert!(
            sum.iter()
                .filter(|(.., n)| *n > 0)
                .eq([(0, 1_000, 1), (3, 80_000, 4)])
        );
        let restarted = counts(&[(0, 1_000, 3)]);
        sum.merge_since(&restarted, &later);
        let named: Vec<(&str, u64)> = sum
            .latencies()
            .iter()
            .map(|(name, l)| (*name, l.count()))
            .collect();
        assert_eq!(named, [("queue", 4), ("sync", 4)]);
        let sync = sum.latencies().remove(1).1.percentiles().p50_us;
        assert!((sync - 80.0).abs() < 0.1, "{sync}");
    }
}
