//! How this node's disk keeps up, in ticks.
//!
//! Two things hang on it. A write that is under way for too long means that the disk **stalls**: such a
//! node does not campaign, and does not lead while somebody else can. And a node whose writes are slow
//! campaigns less eagerly: an election waits for writes, so a timeout of the order of one write would
//! begin the next before the last could be decided (RULES.md 11).
//!
//! Writes of one tick count as one. The window of past writes is small and forgets what is old, so a
//! disk that was slow an hour ago does not make elections slow now.

use crate::types::WriteSeq;
use alloc::collections::VecDeque;

/// Ticks with completed writes that are remembered.
const WINDOW: usize = 64;

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pace {
    /// For each tick with a write under way: its last write and the tick.
    under_way: VecDeque<(WriteSeq, u64)>,
    /// When the last ones were completed, and how long they took.
    past: VecDeque<(u64, u64)>,
}

impl Pace {
    /// A write goes to the disk.
    pub(crate) fn issued(&mut self, seq: WriteSeq, now: u64) {
        match self.under_way.back_mut() {
            Some((last, tick)) if *tick == now => *last = seq,
            Some(_) | None => self.under_way.push_back((seq, now)),
        }
    }

    /// All writes up to `upto` are durable.
    pub(crate) fn persisted(&mut self, upto: WriteSeq, now: u64) {
        while let Some((seq, tick)) = self.under_way.front().copied()
            && seq <= upto
        {
            self.under_way.pop_front();
            if self.past.len() == WINDOW {
                self.past.pop_front();
            }
            self.past.push_back((now, now - tick));
        }
    }

    /// For how many ticks the oldest write is under way.
    pub(crate) fn oldest(&self, now: u64) -> u64 {
        self.under_way.front().map_or(0, |(_, tick)| now - tick)
    }

    /// The 99th percentile of what writes took that were completed in the last `span` ticks: the
    /// largest but one in a hundred.
    pub(crate) fn p99(&self, now: u64, span: u64) -> u64 {
        let mut sorted = [0; WINDOW];
        let mut count = 0;
        for (at, took) in &self.past {
            if now - at <= span {
                sorted[count] = *took;
                count += 1;
            }
        }
        let sorted = &mut sorted[..count];
        sorted.sort_unstable();
        match count {
            0 => 0,
            _ => sorted[(count * 99).div_ceil(100) - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_write_is_the_first_that_is_not_durable() {
        let mut pace = Pace::default();
        assert_eq!(pace.oldest(9), 0);
        for (seq, tick) in [(1, 3), (2, 3), (3, 5)] {
            pace.issued(WriteSeq(seq), tick);
        }
        assert_eq!(pace.oldest(9), 6);
        pace.persisted(WriteSeq(1), 9);
        assert_eq!(pace.oldest(9), 6, "write 2 is of the same tick");
        pace.persisted(WriteSeq(2), 9);
        assert_eq!(pace.oldest(9), 4);
        pace.persisted(WriteSeq(3), 9);
        assert_eq!((pace.oldest(9), pace.p99(9, 100)), (0, 6));
    }

    #[test]
    fn the_percentile_equals_its_definition_and_forgets() {
        let mut pace = Pace::default();
        for i in 0..200u64 {
            pace.issued(WriteSeq(i), i);
            pace.persisted(WriteSeq(i), i + i % 7);
            let mut window: [u64; 64] = [0; 64];
            let n = usize::try_from(i + 1).map_or(64, |n| n.min(64));
            for (slot, j) in window.iter_mut().zip((0..=i).rev()) {
                *slot = j % 7;
            }
            let window = &mut window[..n];
            window.sort_unstable();
            let below = |v: u64| window.iter().filter(|w| **w <= v).count() * 100 >= 99 * n;
            assert_eq!(Some(pace.p99(i + 6, 1000)), (0..7).find(|v| below(*v)));
        }
        assert_eq!(pace.p99(10_000, 100), 0);
    }
}
