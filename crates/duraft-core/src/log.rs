//! The log's shape: where batches begin and end, their terms and their digests.
//!
//! This module owns the headers of all batches and the bodies of the recent ones. It does not know
//! what is durable, committed or replicated; callers say what may be dropped. A body is never
//! looked into.
//!
//! Places between batches are named by [`Boundary`], a count of batches. An index in the middle of
//! a batch has no boundary, so code that holds a `Boundary` cannot cut a batch in two (RULES.md 1).
//!
//! ```text
//! index      1 2 3 4 5 6 7         start = 0@0
//! batches   [1 2 3][4][5 6 7]      last  = 7@t
//! boundary  0      1  2      3     begin() = 0, end() = 3
//! ```
//!
//! Invariants:
//! - every batch follows the one before it by index, term and digest ([`BatchHeader::follows`]);
//! - terms never decrease, so terms and indices can both be found by bisection: the runs of equal
//!   terms need no structure of their own;
//! - the cached bodies are those of the last batches, without a gap.

use crate::batch::{Batch, BatchHeader};
use crate::types::{Index, LogId, Position};
use alloc::collections::VecDeque;
use bytes::Bytes;

/// A place between two batches: so many batches of this life's log stand before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Boundary(u64);

impl Boundary {
    /// The boundary after the batch that begins here.
    pub(crate) fn next(self) -> Boundary {
        Boundary(self.0 + 1)
    }

    /// The boundary before the batch that ends here.
    pub(crate) fn previous(self) -> Option<Boundary> {
        self.0.checked_sub(1).map(Boundary)
    }
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// What stood before the first batch: the beginning of all logs, or what a snapshot covers.
    start: Position,
    /// All batches.
    headers: VecDeque<BatchHeader>,
    /// Bodies of the last `bodies.len()` batches.
    bodies: VecDeque<Bytes>,
    /// Cost of the batches whose bodies are held.
    cached_bytes: u64,
}

impl Log {
    /// A log of batches whose bodies are on disk only. The caller has checked the chain.
    pub(crate) fn new(start: Position, headers: VecDeque<BatchHeader>) -> Log {
        Log {
            start,
            headers,
            bodies: VecDeque::new(),
            cached_bytes: 0,
        }
    }

    /// The boundary before the first batch.
    pub(crate) fn begin(&self) -> Boundary {
        Boundary(0)
    }

    /// The boundary after the last batch.
    pub(crate) fn end(&self) -> Boundary {
        Boundary(self.headers.len() as u64)
    }

    /// What stood before the first batch.
    pub(crate) fn start(&self) -> Position {
        self.start
    }

    /// What the log ends with.
    pub(crate) fn last(&self) -> Position {
        self.headers
            .back()
            .map_or(self.start, BatchHeader::position)
    }

    /// All batches in order.
    pub(crate) fn headers(&self) -> &VecDeque<BatchHeader> {
        &self.headers
    }

    /// The batch that begins at this boundary.
    pub(crate) fn header(&self, at: Boundary) -> Option<&BatchHeader> {
        self.headers.get(usize::try_from(at.0).ok()?)
    }

    /// What the log is up to this boundary.
    pub(crate) fn position(&self, at: Boundary) -> Position {
        match at.previous() {
            None => self.start,
            Some(previous) => self
                .header(previous)
                .expect("a boundary in use lies inside the log")
                .position(),
        }
    }

    /// The index of the last entry before this boundary.
    pub(crate) fn index(&self, at: Boundary) -> Index {
        self.position(at).index()
    }

    /// The index of the first entry after this boundary.
    pub(crate) fn first_after(&self, at: Boundary) -> Index {
        self.index(at).next()
    }

    /// The batch that begins here, if its body is in memory.
    pub(crate) fn cached(&self, at: Boundary) -> Option<Batch> {
        let offset = at.0.checked_sub(self.cached_from().0)?;
        let body = self.bodies.get(usize::try_from(offset).ok()?)?;
        Some(Batch {
            header: *self.header(at).expect("a cached body has a header"),
            body: body.clone(),
        })
    }

    /// The first boundary from which on all bodies are in memory.
    pub(crate) fn cached_from(&self) -> Boundary {
        Boundary((self.headers.len() - self.bodies.len()) as u64)
    }

    /// Cost of the batches whose bodies are in memory.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// Appends a batch. The caller has checked that it follows, digest included: once for each batch,
    /// when it is sealed or received.
    pub(crate) fn push(&mut self, batch: &Batch) {
        let last = self.last();
        assert!(
            batch.header.first == last.index().next() && batch.header.term >= last.term(),
            "a batch continues the log by index and term"
        );
        debug_assert!(batch.header.follows(&last), "and by digest");
        self.cached_bytes += batch.cost();
        self.headers.push_back(batch.header);
        self.bodies.push_back(batch.body.clone());
    }

    /// Drops every batch from this boundary on.
    pub(crate) fn truncate(&mut self, at: Boundary) {
        assert!(at <= self.end(), "a cut lies inside the log");
        while self.end() > at {
            let header = self.headers.pop_back().expect("end is past the cut");
            if self.bodies.pop_back().is_some() {
                self.cached_bytes -= header.cost();
            }
        }
    }

    /// Drops the oldest bodies until at most `bytes_max` are held, but none from `keep_from` on.
    pub(crate) fn trim_cache(&mut self, bytes_max: u64, keep_from: Boundary) {
        while self.cached_bytes > bytes_max && self.cached_from() < keep_from {
            let header = self
                .header(self.cached_from())
                .expect("a cached body has a header");
            self.cached_bytes -= header.cost();
            self.bodies.pop_front();
        }
    }

    /// The boundary that lies exactly after `index`; `None` inside a batch and outside the log.
    pub(crate) fn boundary_after(&self, index: Index) -> Option<Boundary> {
        let at = self.floor(index);
        (self.index(at) == index).then_some(at)
    }

    /// The same, where the caller can guess the answer: nearly always the next boundary in some order.
    pub(crate) fn boundary_near(&self, index: Index, guess: Boundary) -> Option<Boundary> {
        if guess <= self.end() && self.index(guess) == index {
            Some(guess)
        } else {
            self.boundary_after(index)
        }
    }

    /// The last boundary at or before `index`; the start if the log begins later.
    pub(crate) fn floor(&self, index: Index) -> Boundary {
        self.count_from_end(|header| header.last() <= index)
    }

    /// The last boundary that is at or before `limit` both by index and by term: what a log that
    /// holds `limit` may have in common with this one.
    pub(crate) fn floor_id(&self, limit: LogId) -> Boundary {
        self.count_from_end(|header| header.last() <= limit.index && header.term <= limit.term)
    }

    /// Number of leading batches for which `before` holds; it must hold for a prefix of the log.
    ///
    /// Nearly every question is about the last few batches, so the search doubles its step from the
    /// end backwards and bisects only the last step: O(log of the distance from the end).
    fn count_from_end(&self, before: impl Fn(&BatchHeader) -> bool) -> Boundary {
        let mut high = self.headers.len();
        let mut step = 1;
        let mut low = high;
        while low > 0 {
            low = high.saturating_sub(step);
            if before(&self.headers[low]) {
                low += 1;
                break;
            }
            high = low;
            step *= 2;
        }
        // Before `low` it holds, from `high` on it does not.
        while low < high {
            let middle = low + (high - low) / 2;
            if before(&self.headers[middle]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Boundary(low as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::{Body, GroupId, Term};
    use alloc::vec::Vec;

    /// The questions of the log, answered by looking at everything.
    fn compare(log: &Log, model: &[Batch]) {
        let ends: Vec<Position> = (core::iter::once(Position::START))
            .chain(model.iter().map(|batch| batch.header.position()))
            .collect();
        let mut boundaries = Vec::new();
        let mut at = log.begin();
        for end in &ends {
            assert_eq!(log.position(at), *end);
            boundaries.push(at);
            at = at.next();
        }
        assert_eq!(Some(&log.end()), boundaries.last());
        assert_eq!(Some(&log.last()), ends.last());
        for index in (0..log.last().index().0 + 3).map(Index) {
            let floor = (0..ends.len()).rfind(|i| ends[*i].index() <= index);
            assert_eq!(log.floor(index), boundaries[floor.expect("the start")]);
            let exact = (0..ends.len()).find(|i| ends[*i].index() == index);
            assert_eq!(log.boundary_after(index), exact.map(|i| boundaries[i]));
            for guess in boundaries.iter().chain([&at]) {
                let near = log.boundary_near(index, *guess);
                assert_eq!(near, exact.map(|i| boundaries[i]));
            }
            for term in (0..log.last().term().0 + 2).map(Term) {
                let floor = (0..ends.len())
                    .rfind(|i| ends[*i].index() <= index && ends[*i].term() <= term)
                    .expect("the start");
                assert_eq!(log.floor_id(LogId { term, index }), boundaries[floor]);
            }
        }
        let held: u64 = (0..model.len())
            .filter(|i| boundaries[*i] >= log.cached_from())
            .map(|i| model[i].cost())
            .sum();
        assert_eq!(held, log.cached_bytes());
        for (i, batch) in model.iter().enumerate() {
            assert_eq!(log.header(boundaries[i]), Some(&batch.header));
            let cached = boundaries[i] >= log.cached_from();
            assert_eq!(log.cached(boundaries[i]), cached.then(|| batch.clone()));
        }
    }

    #[test]
    fn the_log_answers_as_a_list_of_batches_would() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut log = Log::new(Position::START, VecDeque::new());
            let mut model: Vec<Batch> = Vec::new();
            for round in 0..30 {
                match rng.below(8) {
                    0 => {
                        let keep = rng.below(u32::try_from(model.len()).expect("short") + 1);
                        model.truncate(keep as usize);
                        let cut = (0..keep).fold(log.begin(), |at, _| at.next());
                        log.truncate(cut);
                    }
                    1 => {
                        let max = u64::from(rng.below(400));
                        let keep_from = log.floor(Index(u64::from(rng.below(30))));
                        log.trim_cache(max, keep_from);
                        assert!(log.cached_bytes() <= max || log.cached_from() >= keep_from);
                    }
                    _ => {
                        let count = 1 + rng.below(3);
                        let body = Body {
                            kind: crate::BatchKind::Commands,
                            codec: 0,
                            count,
                            checksum: round,
                            bytes: Bytes::from(alloc::vec![0; 4 * count as usize]),
                        };
                        let term = Term(log.last().term().0 + u64::from(rng.below(2)));
                        let batch = body.seal(GroupId(1), &log.last(), term).expect("room");
                        log.push(&batch);
                        model.push(batch);
                    }
                }
                compare(&log, &model);
            }
        }
    }
}
