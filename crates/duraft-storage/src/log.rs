//! The shape of one group's log: which batches it holds, what precedes and what ends it.
//!
//! The same rules check a write before it is committed and a record when it is replayed.
//!
//! Invariants:
//! - entries are in ascending order, do not overlap, and lie in `(start, end]`;
//! - neighbours without a gap between them follow each other by digest;
//! - a log is whole when its entries cover `(start, end]`; only damage makes it otherwise.

use crate::errors::WriteProblem;
use duraft_core::{BatchHeader, Index, Position};
use std::collections::VecDeque;

/// Something with a batch header.
pub(crate) trait Headed {
    fn header(&self) -> &BatchHeader;
}

impl Headed for BatchHeader {
    fn header(&self) -> &BatchHeader {
        self
    }
}

/// See the module documentation.
#[derive(Clone, Debug)]
pub(crate) struct Shape<E> {
    start: Position,
    end: Position,
    entries: VecDeque<E>,
    /// Sum of the entries' counts.
    covered: u64,
}

impl<E: Headed> Shape<E> {
    pub(crate) fn new(start: Position, end: Position) -> Shape<E> {
        Shape {
            start,
            end,
            entries: VecDeque::new(),
            covered: 0,
        }
    }

    pub(crate) fn start(&self) -> Position {
        self.start
    }

    pub(crate) fn end(&self) -> Position {
        self.end
    }

    pub(crate) fn entries(&self) -> &VecDeque<E> {
        &self.entries
    }

    pub(crate) fn into_entries(self) -> VecDeque<E> {
        self.entries
    }

    pub(crate) fn entry_mut(&mut self, place: usize) -> Option<&mut E> {
        self.entries.get_mut(place)
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.covered == self.end.index().0.saturating_sub(self.start.index().0)
    }

    /// Missing indices: first and last of each range, in order.
    pub(crate) fn gaps(&self) -> Vec<(Index, Index)> {
        let mut gaps = Vec::new();
        if self.is_whole() {
            return gaps;
        }
        let mut next = self.start.index().next();
        for entry in &self.entries {
            let header = entry.header();
            if header.first > next {
                gaps.push((next, header.first.previous()));
            }
            next = header.last().next();
        }
        if next <= self.end.index() {
            gaps.push((next, self.end.index()));
        }
        gaps
    }

    /// The end of the log, where it is known without the batches before it.
    pub(crate) fn lost_end(&self) -> Option<Position> {
        let last = self.entries.back().map(|entry| entry.header().last());
        let held = last.unwrap_or_default().max(self.start.index());
        (held < self.end.index()).then_some(self.end)
    }

    /// Place of the first entry that ends at or after `index`.
    pub(crate) fn place_of(&self, index: Index) -> usize {
        self.entries
            .partition_point(|entry| entry.header().last() < index)
    }

    /// The boundary at `index`, if the log knows one there.
    pub(crate) fn boundary(&self, index: Index) -> Option<Position> {
        if index == self.start.index() {
            return Some(self.start);
        }
        if index == self.end.index() {
            return Some(self.end);
        }
        let header = self.entries.get(self.place_of(index))?.header();
        (header.last() == index).then(|| header.position())
    }

    /// May the log be cut at this boundary? Inside a gap nothing contradicts it.
    pub(crate) fn agrees_with(&self, at: &Position) -> bool {
        let index = at.index();
        if index < self.start.index() || index > self.end.index() {
            return false;
        }
        match self.boundary(index) {
            Some(known) => known == *at,
            None => {
                let place = self.place_of(index);
                self.entries
                    .get(place)
                    .is_none_or(|entry| entry.header().first > index)
            }
        }
    }

    /// Adds a batch at the end, or in a gap. Live writes fill a gap from its beginning (`strict`).
    pub(crate) fn append(&mut self, entry: E, strict: bool) -> Result<(), WriteProblem> {
        let header = *entry.header();
        if header.first <= self.end.index() {
            return self.fill(entry, strict);
        }
        if !header.follows(&self.end) {
            return Err(WriteProblem::Chain {
                end: self.end,
                first: header.first,
            });
        }
        self.end = header.position();
        self.covered += u64::from(header.count);
        self.entries.push_back(entry);
        Ok(())
    }

    fn fill(&mut self, entry: E, strict: bool) -> Result<(), WriteProblem> {
        let header = *entry.header();
        let misfit = WriteProblem::Gap {
            first: header.first,
            last: header.last(),
        };
        let place = self.place_of(header.first);
        let before = match place
            .checked_sub(1)
            .and_then(|place| self.entries.get(place))
        {
            Some(entry) => entry.header().position(),
            None => self.start,
        };
        let next = self.entries.get(place).map(|entry| *entry.header());
        let gap_last = next.map_or(self.end.index(), |next| next.first.previous());
        if header.first <= before.index() || header.last() > gap_last {
            return Err(misfit);
        }
        if header.first == before.index().next() {
            if !header.follows(&before) {
                return Err(WriteProblem::Chain {
                    end: before,
                    first: header.first,
                });
            }
        } else if strict {
            return Err(misfit);
        }
        let joins = match next {
            Some(next) => next.follows(&header.position()),
            None => header.position() == self.end,
        };
        if header.last() == gap_last && !joins {
            return Err(misfit);
        }
        self.covered += u64::from(header.count);
        self.entries.insert(place, entry);
        Ok(())
    }

    /// Keeps the log up to `keep` and returns what was dropped.
    pub(crate) fn truncate(&mut self, keep: &Position) -> Result<VecDeque<E>, WriteProblem> {
        if !self.agrees_with(keep) {
            return Err(WriteProblem::Truncate { keep: *keep });
        }
        let kept = self
            .entries
            .partition_point(|entry| entry.header().last() <= keep.index());
        let dropped = self.entries.split_off(kept);
        self.end = *keep;
        self.uncover(&dropped);
        Ok(dropped)
    }

    /// Drops the log up to `upto` and returns what was dropped.
    pub(crate) fn compact(&mut self, upto: &Position) -> Result<VecDeque<E>, WriteProblem> {
        if !self.agrees_with(upto) {
            return Err(WriteProblem::Compact { upto: *upto });
        }
        let gone = self
            .entries
            .partition_point(|entry| entry.header().last() <= upto.index());
        let dropped: VecDeque<E> = self.entries.drain(..gone).collect();
        self.start = *upto;
        self.uncover(&dropped);
        Ok(dropped)
    }

    fn uncover(&mut self, dropped: &VecDeque<E>) {
        self.covered -= dropped
            .iter()
            .map(|entry| u64::from(entry.header().count))
            .sum::<u64>();
    }

    /// Takes on a start and an end that are known for certain, and drops every entry that they
    /// contradict: those outside, and where the end differs, those that may belong to another log.
    pub(crate) fn settle(&mut self, start: Position, end: Position) {
        self.start = start;
        self.end = end;
        self.entries.retain(|entry| {
            let header = entry.header();
            header.first > start.index() && header.last() <= end.index()
        });
        let stale = |header: &BatchHeader| {
            header.last() == end.index() && header.position() != end
                || header.first == start.index().next() && !header.follows(&start)
        };
        if self.entries.iter().any(|entry| stale(entry.header())) {
            self.entries.clear();
        }
        self.recount();
    }

    /// Drops the entries that touch a range.
    pub(crate) fn drop_range(&mut self, first: Index, last: Index) {
        self.entries
            .retain(|entry| entry.header().last() < first || entry.header().first > last);
        self.recount();
    }

    /// Drops the entries that begin at or before an index.
    pub(crate) fn drop_upto(&mut self, last: Index) {
        self.entries.retain(|entry| entry.header().first > last);
        self.recount();
    }

    /// Drops the entries that contradict a batch which is known to be part of the log: those in its place,
    /// and neighbours that do not join it.
    pub(crate) fn make_way(&mut self, batch: &BatchHeader) {
        self.entries.retain(|entry| {
            let held = entry.header();
            let apart = held.last() < batch.first || held.first > batch.last();
            let before = held.last().next() == batch.first && !batch.follows(&held.position());
            let behind = batch.last().next() == held.first && !held.follows(&batch.position());
            apart && !before && !behind
        });
        self.recount();
    }

    /// Drops everything before the last pair of neighbours that do not follow each other: it belongs
    /// to a log that was cut in records that are lost.
    pub(crate) fn drop_contradicted(&mut self) {
        let mut keep_from = 0;
        let mut before = self.start;
        for (place, entry) in self.entries.iter().enumerate() {
            let header = entry.header();
            if header.first == before.index().next() && !header.follows(&before) {
                keep_from = place;
            }
            before = header.position();
        }
        self.entries.drain(..keep_from);
        self.recount();
    }

    /// Adds an entry behind a gap: what lies between was lost. An entry that begins inside the log
    /// shows that a truncation was lost, and cuts it.
    pub(crate) fn append_after_loss(&mut self, entry: E) {
        let header = *entry.header();
        self.entries
            .retain(|entry| entry.header().last() < header.first);
        self.end = header.position();
        self.entries.push_back(entry);
        self.drop_contradicted();
    }

    fn recount(&mut self) {
        self.covered = self
            .entries
            .iter()
            .map(|entry| u64::from(entry.header().count))
            .sum();
    }
}
