//! The log's shape: where batches begin and end, their terms and their digests.
//!
//! This module owns the headers of batches and the bodies of the recent ones. Old headers may have left
//! memory (`pages.rs`): then their boundaries are not known until they are read back. It does not know
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
//! A boundary names its place for this whole life. Dropping the front ([`Log::compact`]) moves
//! `begin()` and renumbers nothing. Replacing the log by a snapshot ([`Log::reset`]) counts the
//! snapshot as the batch after the old end: the new begin is the old end plus one, so that no
//! boundary of the log that was is one of the log that is, and boundaries only grow. A boundary below
//! `begin()` is a place that this log no longer tells: it can be compared and nothing else.
//! `Boundary::default()` is the place before every log; it is the beginning only where the log holds
//! everything from index 1 on.
//!
//! Invariants:
//! - every batch follows the one before it by index, term and digest ([`BatchHeader::follows`]);
//! - terms never decrease, so terms and indices can both be found by bisection: the runs of equal
//!   terms need no structure of their own;
//! - the cached bodies are those of the last batches, without a gap.

use crate::batch::{Batch, BatchHeader};
use crate::pages::{Pages, Wanted};
use crate::types::{Index, LogId, Position, Term};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;

/// A place between two batches: so many batches of this life's log stand before it, counted from
/// where the life began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Boundary(u64);

impl Boundary {
    /// The boundary after the batch that begins here.
    pub(crate) fn next(self) -> Boundary {
        Boundary(self.0 + 1)
    }

    /// How many batches stand between an earlier boundary and this one.
    pub(crate) fn since(self, earlier: Boundary) -> usize {
        usize::try_from(self.0 - earlier.0).expect("both are of one log in memory")
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
    /// The boundary there.
    begin: Boundary,
    /// Batches whose headers have left memory.
    pages: Pages,
    /// The boundary from which on headers are in memory, and what the log is up to there.
    held: Boundary,
    solid: Position,
    /// All batches from there on.
    headers: VecDeque<BatchHeader>,
    /// Bodies of the last `bodies.len()` batches.
    bodies: VecDeque<Bytes>,
    /// Cost of the batches whose bodies are held.
    cached_bytes: u64,
}

impl Log {
    /// A log of batches whose bodies are on disk only. The caller has checked the chain.
    pub(crate) fn new(start: Position, headers: VecDeque<BatchHeader>) -> Log {
        // What is below 0 nobody can hold; below 1 stands whoever lacks the start.
        let begin = Boundary(u64::from(start != Position::START));
        Log {
            start,
            begin,
            pages: Pages::default(),
            held: begin,
            solid: start,
            headers,
            bodies: VecDeque::new(),
            cached_bytes: 0,
        }
    }

    /// The boundary before the first batch.
    pub(crate) fn begin(&self) -> Boundary {
        self.begin
    }

    /// The boundary after the last batch.
    pub(crate) fn end(&self) -> Boundary {
        self.nth(self.headers.len())
    }

    /// The boundary after the first `count` batches in memory.
    fn nth(&self, count: usize) -> Boundary {
        Boundary(self.held.0 + count as u64)
    }

    /// The boundary from which on everything is in memory. What is before it was applied.
    pub(crate) fn held(&self) -> Boundary {
        self.held
    }

    /// What the log is up to there.
    pub(crate) fn solid(&self) -> Position {
        self.solid
    }

    /// Bytes that the shape of the log takes.
    pub(crate) fn shape_bytes(&self) -> u64 {
        (self.headers.len() * size_of::<BatchHeader>()) as u64 + self.pages.memory()
    }

    /// Drops headers until the shape takes at most `bytes_max`, but none from `keep_from` on, nor one
    /// whose body is held. A page of them costs at most `page.0`, or is one batch; `page.1` begins the one
    /// that is being read.
    pub(crate) fn evict(
        &mut self,
        bytes_max: u64,
        keep_from: Boundary,
        page: (u64, Option<Boundary>),
    ) {
        let keep_from = keep_from.min(self.cached_from());
        while self.held < keep_from && self.shape_bytes() > bytes_max {
            let header = self.headers.pop_front().expect("held is before the end");
            (self.pages).push((self.held, self.solid), header.cost(), page);
            self.held = self.held.next();
            self.solid = header.position();
        }
    }

    /// What must be read to know all batches around this boundary; `None` if they are known.
    pub(crate) fn wanted(&self, at: Boundary) -> Option<Wanted> {
        if at >= self.held {
            return None;
        }
        self.pages.wanted(at, self.solid)
    }

    /// What must be read to know whether a boundary lies at this index.
    pub(crate) fn wanted_at(&self, index: Index) -> Option<Wanted> {
        if index >= self.solid.index() || index <= self.start.index() {
            return None;
        }
        self.wanted(self.pages.at_index(index)?)
    }

    /// A page was read back. Says whether it is one of this log.
    pub(crate) fn take_page(&mut self, begin: Boundary, headers: Vec<BatchHeader>) -> bool {
        self.pages.take(begin, self.solid, headers)
    }

    /// Where the page ends that begins here.
    pub(crate) fn page_end(&self, begin: Boundary) -> Boundary {
        self.pages.end_of(begin).unwrap_or(self.held)
    }

    /// The known boundary at or before this one.
    pub(crate) fn known(&self, at: Boundary) -> Boundary {
        if at >= self.held || self.pages.position(at).is_some() {
            return at;
        }
        self.pages.begin_of(at).unwrap_or(self.begin)
    }

    /// The first known boundary behind which, up to `end`, lie at most `bytes` of batches.
    pub(crate) fn back_from(&self, end: Boundary, mut bytes: u64) -> Boundary {
        let mut from = end;
        while from > self.held
            && let Some(before) = from.previous()
            && let Some(header) = self.header(before)
        {
            if header.cost() > bytes {
                return from;
            }
            bytes -= header.cost();
            from = before;
        }
        if from > self.held {
            return from;
        }
        self.pages.back_from(from, bytes)
    }

    /// What stood before the first batch.
    pub(crate) fn start(&self) -> Position {
        self.start
    }

    /// What the log ends with.
    pub(crate) fn last(&self) -> Position {
        self.headers
            .back()
            .map_or(self.solid, BatchHeader::position)
    }

    /// All batches in memory, in order.
    pub(crate) fn headers(&self) -> &VecDeque<BatchHeader> {
        &self.headers
    }

    /// The batch that begins at this boundary.
    pub(crate) fn header(&self, at: Boundary) -> Option<&BatchHeader> {
        let Some(place) = at.0.checked_sub(self.held.0) else {
            return self.pages.header(at);
        };
        self.headers.get(usize::try_from(place).ok()?)
    }

    /// What the log is up to this boundary, which lies in it and is known.
    pub(crate) fn position(&self, at: Boundary) -> Position {
        self.position_in(at)
            .expect("a boundary in use lies inside the log, where that is known")
    }

    /// What the log is up to this boundary, if it lies in it and is known.
    pub(crate) fn position_in(&self, at: Boundary) -> Option<Position> {
        if at == self.held {
            return Some(self.solid);
        }
        if at < self.held {
            return self.pages.position(at);
        }
        let place = usize::try_from(at.0 - self.held.0).ok()?;
        self.headers.get(place - 1).map(BatchHeader::position)
    }

    /// The index of the last entry before this boundary.
    pub(crate) fn index(&self, at: Boundary) -> Index {
        self.position(at).index()
    }

    /// Cost of the batches between two boundaries, as far as they are in memory.
    pub(crate) fn cost(&self, from: Boundary, to: Boundary) -> u64 {
        let mut at = from;
        let mut cost = 0;
        while at < to {
            cost += self.header(at).map_or(0, BatchHeader::cost);
            at = at.next();
        }
        cost
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
        self.nth(self.headers.len() - self.bodies.len())
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

    /// Appends a batch that stands on disk already. No body is in memory after that: those of the last
    /// batches are held without a gap, or none.
    pub(crate) fn push_stored(&mut self, header: BatchHeader) {
        assert!(
            header.follows(&self.last()),
            "a batch that survives joins the log"
        );
        self.bodies.clear();
        self.cached_bytes = 0;
        self.headers.push_back(header);
    }

    /// Drops every batch from this boundary on.
    pub(crate) fn truncate(&mut self, at: Boundary) {
        assert!(
            self.held <= at && at <= self.end(),
            "a cut lies inside the log, behind what was applied"
        );
        while self.end() > at {
            let header = self.headers.pop_back().expect("end is past the cut");
            if self.bodies.pop_back().is_some() {
                self.cached_bytes -= header.cost();
            }
        }
    }

    /// Drops every batch before this boundary: the log begins there from now on.
    pub(crate) fn compact(&mut self, at: Boundary) {
        assert!(
            self.begin <= at && at <= self.end(),
            "what is dropped lies inside the log"
        );
        if at < self.held {
            self.start = self.pages.compact(at);
            self.begin = at;
            return;
        }
        self.pages.clear();
        self.start = self.position(at);
        while self.held < at {
            if self.bodies.len() == self.headers.len() {
                self.bodies.pop_front();
                self.cached_bytes -= self.headers[0].cost();
            }
            self.headers.pop_front();
            self.held = self.held.next();
        }
        (self.begin, self.solid) = (at, self.start);
    }

    /// Drops every batch: the log begins and ends at `start` from now on, which counts as the batch
    /// after the old end.
    pub(crate) fn reset(&mut self, start: Position) {
        self.begin = self.end().next();
        self.start = start;
        (self.held, self.solid) = (self.begin, start);
        self.pages.clear();
        self.headers.clear();
        self.bodies.clear();
        self.cached_bytes = 0;
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
        let guessed = self.position_in(guess);
        if guessed.is_some_and(|position| position.index() == index) {
            Some(guess)
        } else {
            self.boundary_after(index)
        }
    }

    /// The last known boundary at or before `index`; the start if the log begins later.
    pub(crate) fn floor(&self, index: Index) -> Boundary {
        let any = LogId {
            term: Term(u64::MAX),
            index,
        };
        self.floor_id(any)
    }

    /// The last known boundary that is at or before `limit` both by index and by term: what a log that
    /// holds `limit` may have in common with this one.
    pub(crate) fn floor_id(&self, limit: LogId) -> Boundary {
        let before = |id: LogId| id.index <= limit.index && id.term <= limit.term;
        if !before(self.solid.id) {
            return self.pages.floor(limit).unwrap_or(self.begin);
        }
        self.count_from_end(|header| before(header.last_id()))
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
        self.nth(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::{Body, GroupId};

    /// The questions of the log, answered by looking at everything.
    fn compare(log: &Log, start: Position, model: &[Batch]) {
        let ends: Vec<Position> = (core::iter::once(start))
            .chain(model.iter().map(|batch| batch.header.position()))
            .collect();
        assert_eq!(log.start(), start);
        if let Some(before) = log.begin().previous() {
            assert_eq!((log.header(before), log.position_in(before)), (None, None));
            assert_eq!(log.cached(before), None);
        }
        assert_eq!(log.position_in(log.end().next()), None);
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
            assert_eq!(log.floor(index), boundaries[floor.unwrap_or(0)]);
            let exact = (0..ends.len()).find(|i| ends[*i].index() == index);
            assert_eq!(log.boundary_after(index), exact.map(|i| boundaries[i]));
            for guess in boundaries.iter().chain([&at]) {
                let near = log.boundary_near(index, *guess);
                assert_eq!(near, exact.map(|i| boundaries[i]));
            }
            for term in (0..log.last().term().0 + 2).map(Term) {
                let floor = (0..ends.len())
                    .rfind(|i| ends[*i].index() <= index && ends[*i].term() <= term)
                    .unwrap_or(0);
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
            let mut start = Position::START;
            for round in 0..30 {
                let (begin, end) = (log.begin(), log.end());
                match rng.below(11) {
                    2 => {
                        let gone = rng.below(u32::try_from(model.len()).expect("short") + 1);
                        let cut = (0..gone).fold(log.begin(), |at, _| at.next());
                        if let Some(last) = model.drain(..gone as usize).next_back() {
                            start = last.header.position();
                        }
                        log.compact(cut);
                        assert_eq!((log.begin(), log.end()), (cut, end));
                    }
                    3 if round % 4 == 0 => {
                        let far = Body::noop().seal(GroupId(9), &log.last(), log.last().term());
                        start = far.expect("room").header.position();
                        model.clear();
                        log.reset(start);
                        assert_eq!(log.begin(), end.next(), "boundaries only grow");
                        assert!(log.begin() > begin);
                    }
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
                compare(&log, start, &model);
            }
        }
    }
}
