//! The memberships of a log: which one is in use, since when, and which one was before.
//!
//! A membership is in use from the index of its batch on, committed or not, until the next one; cut
//! the batch off and the one before is in use again (thesis 4.1). So this follows the log and nothing
//! else: what is appended is adopted, what is cut is forgotten, what is compacted moves into the base.
//!
//! ```text
//! index   10      11  12  13  14
//! log     start   .   M   .   M     base = (10, that of the start), later = [(12, ..), (14, ..)]
//! ```
//!
//! It does not know what is committed. Invariant: the indices ascend, and there is one membership for
//! each membership batch of the log.

use crate::membership::Membership;
use crate::types::Index;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Memberships {
    /// The one at the start of the log.
    base: (Index, Arc<Membership>),
    /// Those of the membership batches in the log, by index. Copies of a core share them.
    later: Vec<(Index, Arc<Membership>)>,
}

impl Memberships {
    /// The memberships of a log that starts at `start` with `base` in use.
    pub(crate) fn new(start: Index, base: Membership, later: Vec<(Index, Membership)>) -> Self {
        let mut memberships = Memberships {
            base: (start, Arc::new(base)),
            later: Vec::with_capacity(later.len()),
        };
        for (at, membership) in later {
            memberships.adopt(at, membership);
        }
        memberships
    }

    /// The one in use now.
    pub(crate) fn active(&self) -> &Membership {
        &self.last().1
    }

    /// The index of its batch, or the start of the log.
    pub(crate) fn since(&self) -> Index {
        self.last().0
    }

    fn last(&self) -> &(Index, Arc<Membership>) {
        self.later.last().unwrap_or(&self.base)
    }

    /// The one that is in use at an index of the log.
    pub(crate) fn at(&self, index: Index) -> &Membership {
        self.shared_at(index)
    }

    fn shared_at(&self, index: Index) -> &Arc<Membership> {
        let before = self.later.partition_point(|(at, _)| *at <= index);
        match before.checked_sub(1) {
            Some(last) => &self.later[last].1,
            None => &self.base.1,
        }
    }

    /// Those of the log's batches, in order.
    pub(crate) fn later(&self) -> &[(Index, Arc<Membership>)] {
        &self.later
    }

    /// A membership batch was appended at `at`.
    pub(crate) fn adopt(&mut self, at: Index, membership: Membership) {
        assert!(at > self.since(), "a membership follows the one before it");
        self.later.push((at, Arc::new(membership)));
    }

    /// The log was cut and ends at `last` now.
    pub(crate) fn truncate(&mut self, last: Index) {
        let kept = self.later.partition_point(|(at, _)| *at <= last);
        self.later.truncate(kept);
    }

    /// The log starts at `start` now; what was in use there is the base.
    pub(crate) fn compact(&mut self, start: Index) {
        let base = Arc::clone(self.shared_at(start));
        self.later.retain(|(at, _)| *at > start);
        self.base = (start, base);
    }

    /// The log begins and ends at `start` now, with this membership.
    pub(crate) fn reset(&mut self, start: Index, membership: Membership) {
        *self = Memberships::new(start, membership, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;
    use alloc::vec;

    fn of(voters: u64) -> Membership {
        Membership::new((1..=voters).map(NodeId), []).expect("usable")
    }

    #[test]
    fn the_last_one_in_the_log_is_in_use_and_a_cut_brings_the_one_before_back() {
        // Defects of others: a change that is cut off stays in use (canonical/raft 250, 323, 354).
        let later = vec![(Index(12), of(2)), (Index(14), of(3))];
        let mut memberships = Memberships::new(Index(10), of(1), later);
        let known = [(10, 1), (11, 1), (12, 2), (13, 2), (14, 3), (99, 3)];
        for (index, voters) in known {
            assert_eq!(*memberships.at(Index(index)), of(voters), "at {index}");
        }
        assert_eq!(
            (memberships.since(), memberships.active()),
            (Index(14), &of(3))
        );
        memberships.truncate(Index(13));
        assert_eq!(
            (memberships.since(), memberships.active()),
            (Index(12), &of(2))
        );
        memberships.truncate(Index(11));
        assert_eq!(
            (memberships.since(), memberships.active()),
            (Index(10), &of(1))
        );
    }

    #[test]
    fn compaction_forgets_nothing_that_is_in_use_later() {
        let later = vec![(Index(12), of(2)), (Index(14), of(3))];
        let all = Memberships::new(Index(10), of(1), later);
        for start in 10..=16 {
            let mut rest = all.clone();
            rest.compact(Index(start));
            for index in start..=16 {
                assert_eq!(
                    rest.at(Index(index)),
                    all.at(Index(index)),
                    "{start}, {index}"
                );
            }
            // Each is kept once: as the base, or in its place.
            let later: Vec<u64> = rest.later().iter().map(|(at, _)| at.0).collect();
            let behind = [12, 14].into_iter().filter(|at| *at > start);
            assert_eq!(later, behind.collect::<Vec<u64>>(), "{start}");
        }
        let mut fresh = all;
        fresh.reset(Index(20), of(5));
        assert_eq!((fresh.since(), fresh.active()), (Index(20), &of(5)));
    }
}
