//! What the disk has promised: which part of the present log and which hard state survive a crash.
//!
//! Writes are numbered by [`WriteSeq`]; the host reports the largest number up to which everything
//! is durable. A log position cannot identify a write: it can be written, cut and written again
//! while the first write is still under way, and the completion of the first must not count for the
//! last (the ABA race). So this module keeps, for each write under way, the part of the **present**
//! log that it made. A cut trims these descriptors; a completion takes those off the front whose
//! numbers it covers. What is durable is read off: everything before the first descriptor.
//!
//! Completions may be coalesced, repeated and late without any further rule, because a descriptor
//! that is gone cannot be counted again.
//!
//! Invariants: descriptors are disjoint and ascending in number and place; the first begins at the
//! durable boundary, the last ends at the end of the log; nothing durable is above a cut.

use crate::log::Boundary;
use crate::types::{HardState, WriteSeq};
use alloc::collections::VecDeque;

/// A completion of something that was never asked for: the host is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NeverIssued;

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct Durability {
    /// The last number given out.
    issued: WriteSeq,
    /// The largest number the host has reported.
    completed: WriteSeq,
    /// The log up to here survives a crash.
    log: Boundary,
    /// Appends under way: the write's number and where its batches end now.
    appends: VecDeque<(WriteSeq, Boundary)>,
    /// What each write under way weighs, oldest first, and all of them together. What is cut off while
    /// it is being written is still being written.
    weights: VecDeque<(WriteSeq, u64)>,
    bytes: u64,
    /// The term and vote that survive a crash.
    hard_state: HardState,
    /// Those under way, oldest first. Only the last is the present one; the others matter because the
    /// durable term travels in messages that need no write.
    hard_states: VecDeque<(WriteSeq, HardState)>,
}

impl Durability {
    /// A new life: what recovery returned is durable.
    pub(crate) fn new(log: Boundary, hard_state: HardState) -> Durability {
        Durability {
            issued: WriteSeq(0),
            completed: WriteSeq(0),
            log,
            appends: VecDeque::new(),
            weights: VecDeque::new(),
            bytes: 0,
            hard_state,
            hard_states: VecDeque::new(),
        }
    }

    /// The last number given out.
    pub(crate) fn issued(&self) -> WriteSeq {
        self.issued
    }

    /// The largest number the host has reported.
    pub(crate) fn completed(&self) -> WriteSeq {
        self.completed
    }

    /// The log up to here survives a crash.
    pub(crate) fn log(&self) -> Boundary {
        self.log
    }

    /// The term and vote that survive a crash.
    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Number for the next write, which weighs so many bytes.
    pub(crate) fn issue(&mut self, bytes: u64) -> WriteSeq {
        self.issued = self.issued.next();
        self.weights.push_back((self.issued, bytes));
        self.bytes += bytes;
        self.issued
    }

    /// Bytes of all writes under way.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes under way, and how many of them bring a term or vote.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        (self.weights.len(), self.hard_states.len())
    }

    /// The log was cut at `at`; `WriteSeq`s under way keep only what is left of their part.
    pub(crate) fn truncate(&mut self, at: Boundary) {
        self.log = self.log.min(at);
        while let Some((_, end)) = self.appends.back().copied() {
            // Wholly before the cut: it still makes a part of the log.
            if end <= at {
                break;
            }
            let begin = match self.appends.len().checked_sub(2) {
                Some(before) => self.appends[before].1,
                None => self.log,
            };
            // Partly before the cut: it keeps that part. Wholly after it: nothing of it is in the log.
            if begin < at {
                self.appends.back_mut().expect("looked at above").1 = at;
                break;
            }
            self.appends.pop_back();
        }
    }

    /// Write `seq` appends batches up to `end`, the new end of the log.
    pub(crate) fn appended(&mut self, seq: WriteSeq, end: Boundary) {
        assert_eq!(seq, self.issued, "a write is described when it is issued");
        let begin = self.appends.back().map_or(self.log, |(_, end)| *end);
        assert!(begin < end, "an append makes the log longer");
        self.appends.push_back((seq, end));
    }

    /// Write `seq` holds this term and vote.
    pub(crate) fn hard_state_written(&mut self, seq: WriteSeq, hard_state: HardState) {
        assert_eq!(seq, self.issued, "a write is described when it is issued");
        self.hard_states.push_back((seq, hard_state));
    }

    /// Everything up to `upto` survives a crash.
    pub(crate) fn persisted(&mut self, upto: WriteSeq) -> Result<(), NeverIssued> {
        if upto > self.issued {
            return Err(NeverIssued);
        }
        // A late word about an earlier write finds nothing to take off.
        self.completed = self.completed.max(upto);
        while let Some((seq, bytes)) = self.weights.front().copied()
            && seq <= upto
        {
            self.bytes -= bytes;
            self.weights.pop_front();
        }
        while let Some((seq, end)) = self.appends.front().copied()
            && seq <= upto
        {
            assert!(end > self.log, "the durable log grows from write to write");
            self.log = end;
            self.appends.pop_front();
        }
        while let Some((seq, hard_state)) = self.hard_states.front().copied()
            && seq <= upto
        {
            self.hard_state = hard_state;
            self.hard_states.pop_front();
        }
        Ok(())
    }

    /// The term and vote of the last write that brought any.
    pub(crate) fn last_hard_state(&self) -> HardState {
        (self.hard_states.back()).map_or(self.hard_state, |(_, hard_state)| *hard_state)
    }

    /// For a planted fault: takes the log up to here for durable, whatever is still being written.
    #[cfg(any(test, feature = "plant"))]
    pub(crate) fn claim(&mut self, end: Boundary) {
        while let Some((_, next)) = self.appends.front().copied()
            && next <= end
        {
            self.log = next;
            self.appends.pop_front();
        }
        self.log = self.log.max(end);
    }

    /// Where the batches of writes under way end, in order.
    pub(crate) fn appends(&self) -> impl Iterator<Item = (WriteSeq, Boundary)> + '_ {
        self.appends.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::vec::Vec;

    fn at(count: u32) -> Boundary {
        (0..count).fold(Boundary::default(), |at, _| at.next())
    }

    #[test]
    fn what_is_durable_equals_a_disk_that_keeps_every_write() {
        // The model remembers, for each place of the present log, the write that filled it: a place is
        // durable if that write, and those of all places before it, are completed.
        for seed in 0..2_000 {
            let mut rng = Rng::new(seed);
            let mut disk = Durability::new(Boundary::default(), HardState::default());
            let mut writers: Vec<WriteSeq> = Vec::new();
            let mut completed = WriteSeq(0);
            for _ in 0..40 {
                let len = u32::try_from(writers.len()).expect("short");
                match rng.below(3) {
                    0 => {
                        let seq = disk.issue(1);
                        let count = 1 + rng.below(3);
                        (0..count).for_each(|_| writers.push(seq));
                        disk.appended(seq, at(len + count));
                    }
                    1 => {
                        let cut = rng.below(len + 1);
                        disk.truncate(at(cut));
                        writers.truncate(cut as usize);
                    }
                    _ => {
                        // Any word about the past: late, repeated, skipping.
                        let bound = u32::try_from(disk.issued().0 + 1).expect("few");
                        let upto = WriteSeq(u64::from(rng.below(bound)));
                        assert_eq!(disk.persisted(upto), Ok(()));
                        completed = completed.max(upto);
                    }
                }
                let durable = writers.iter().take_while(|seq| **seq <= completed).count();
                let durable = u32::try_from(durable).expect("short");
                assert_eq!(disk.log(), at(durable), "seed {seed}");
                assert_eq!(disk.bytes(), disk.issued().0 - completed.0);
            }
            assert_eq!(disk.completed(), completed);
            assert_eq!(disk.persisted(disk.issued().next()), Err(NeverIssued));
        }
    }

    #[test]
    fn terms_votes_and_weights_leave_with_the_write_that_brought_them() {
        let hard = |term| HardState {
            term: crate::types::Term(term),
            vote: None,
        };
        let mut disk = Durability::new(Boundary::default(), hard(3));
        assert_eq!(
            (disk.hard_state(), disk.last_hard_state()),
            (hard(3), hard(3))
        );
        let first = disk.issue(10);
        disk.hard_state_written(first, hard(4));
        let second = disk.issue(7);
        disk.appended(second, at(2));
        let third = disk.issue(5);
        disk.hard_state_written(third, hard(6));
        disk.appended(third, at(5));
        assert_eq!([first, second, third].map(|seq| seq.0), [1, 2, 3]);
        assert_eq!((disk.under_way(), disk.bytes()), ((3, 2), 22));
        assert_eq!(
            (disk.hard_state(), disk.last_hard_state()),
            (hard(3), hard(6))
        );
        let ends: Vec<_> = disk.appends().collect();
        assert_eq!(ends, [(second, at(2)), (third, at(5))]);
        disk.persisted(second).expect("issued");
        assert_eq!((disk.under_way(), disk.bytes()), ((1, 1), 5));
        assert_eq!(
            (disk.hard_state(), disk.last_hard_state()),
            (hard(4), hard(6))
        );
        assert_eq!((disk.log(), disk.completed()), (at(2), second));
        disk.persisted(third).expect("issued");
        assert_eq!((disk.under_way(), disk.bytes()), ((0, 0), 0));
        assert_eq!(
            (disk.hard_state(), disk.last_hard_state()),
            (hard(6), hard(6))
        );
        assert_eq!((disk.log(), disk.issued()), (at(5), third));
    }

    #[test]
    fn a_cut_at_the_beginning_of_a_write_leaves_nothing_of_it() {
        let mut disk = Durability::new(at(1), HardState::default());
        for end in [3, 5] {
            let seq = disk.issue(1);
            disk.appended(seq, at(end));
        }
        disk.truncate(at(4));
        let ends: Vec<u64> = disk.appends().map(|(seq, _)| seq.0).collect();
        assert_eq!(ends, [1, 2], "half of the second is left");
        disk.truncate(at(3));
        assert_eq!(disk.appends().count(), 1);
        disk.truncate(at(1));
        assert_eq!(disk.appends().count(), 0);
        assert_eq!(disk.log(), at(1));
    }
}
