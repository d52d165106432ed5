//! The old part of the log's shape: boundaries that are not needed every day (RULES.md 25).
//!
//! Headers of applied batches leave memory beyond `shape_bytes_max`, oldest first. What stays of them is
//! one line for each **page** of consecutive batches: where it begins. A page is short enough to be read
//! by one load, and comes back through one when somebody needs it: its batches must chain from where the
//! page begins to where the next one does, by digest, or they are not taken. A few such pages are held
//! at a time.
//!
//! ```text
//!  begin                                held                 end
//!    | page | page | page | .. | page    | headers in memory  |
//!    ^ position known           ^ read back when asked for
//! ```
//!
//! Invariants: pages are in order and without a gap, the last one ends where the headers in memory begin;
//! no page is empty.

use crate::batch::BatchHeader;
use crate::log::Boundary;
use crate::types::{Index, LogId, Position};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Most batches of a page.
const PAGE_BATCHES: usize = 64;

/// So many pages that were read back are held.
pub(crate) const PAGES_HELD: usize = 32;

/// Consecutive batches of which one knows where they begin.
#[derive(Clone, Debug)]
struct Page {
    begin: Boundary,
    /// What the log is up to there.
    position: Position,
    /// How many batches, and what they cost.
    count: usize,
    bytes: u64,
    /// Its batches, while they are held.
    headers: Option<Vec<BatchHeader>>,
}

/// A page that is to be read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// The boundary it begins with.
    pub(crate) begin: Boundary,
    /// Its first and last index.
    pub(crate) first: Index,
    pub(crate) last: Index,
    /// What all of it costs.
    pub(crate) bytes: u64,
}

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    pages: VecDeque<Page>,
    /// Those that are held, in the order in which they were read.
    held: VecDeque<Boundary>,
}

impl Pages {
    /// Bytes of memory: a line for each page, and the headers that are held.
    pub(crate) fn memory(&self) -> u64 {
        let headers: usize = (self.pages.iter())
            .filter_map(|page| page.headers.as_ref().map(Vec::len))
            .sum();
        let lines = self.pages.len() * size_of::<Page>();
        (lines + headers * size_of::<BatchHeader>()) as u64
    }

    /// The oldest header in memory leaves it; what stood before it was `position`, at `begin`. It joins the
    /// last page, if that costs at most `limits.0` with it and does not begin at `limits.1`, because that
    /// one is being read.
    pub(crate) fn push(
        &mut self,
        (begin, position): (Boundary, Position),
        cost: u64,
        (bytes_max, reading): (u64, Option<Boundary>),
    ) {
        if let Some(last) = self.pages.back_mut()
            && last.headers.is_none()
            && reading != Some(last.begin)
            && last.count < PAGE_BATCHES
            && last.bytes + cost <= bytes_max
        {
            last.count += 1;
            last.bytes += cost;
            return;
        }
        self.pages.push_back(Page {
            begin,
            position,
            count: 1,
            bytes: cost,
            headers: None,
        });
    }

    pub(crate) fn clear(&mut self) {
        *self = Pages::default();
    }

    /// The page that holds the batch after this boundary.
    fn page(&self, at: Boundary) -> Option<&Page> {
        let after = self.pages.partition_point(|page| page.begin <= at);
        self.pages.get(after.checked_sub(1)?)
    }

    /// The batch that begins here, if its page is held.
    pub(crate) fn header(&self, at: Boundary) -> Option<&BatchHeader> {
        let page = self.page(at)?;
        page.headers.as_ref()?.get(at.since(page.begin))
    }

    /// What the log is up to this boundary, if that is known.
    pub(crate) fn position(&self, at: Boundary) -> Option<Position> {
        let page = self.page(at)?;
        if page.begin == at {
            return Some(page.position);
        }
        let before = at.previous()?;
        self.header(before).map(BatchHeader::position)
    }

    /// The last known boundary that is at or before `limit` by index and by term, if there is one.
    pub(crate) fn floor(&self, limit: LogId) -> Option<Boundary> {
        let before = |id: LogId| id.index <= limit.index && id.term <= limit.term;
        let after = self.pages.partition_point(|page| before(page.position.id));
        let page = self.pages.get(after.checked_sub(1)?)?;
        let headers = page.headers.as_deref().unwrap_or_default();
        let count = headers.partition_point(|header| before(header.last_id()));
        Some((0..count).fold(page.begin, |at, _| at.next()))
    }

    /// The first boundary behind which lie at most `bytes` of these batches. Only where a page begins,
    /// as any boundary must be known that a log begins with.
    pub(crate) fn back_from(&self, end: Boundary, mut bytes: u64) -> Boundary {
        let mut from = end;
        for page in self.pages.iter().rev().skip_while(|page| page.begin >= end) {
            if page.bytes > bytes {
                break;
            }
            bytes -= page.bytes;
            from = page.begin;
        }
        from
    }

    /// Where the page begins that holds the batch after this boundary.
    pub(crate) fn begin_of(&self, at: Boundary) -> Option<Boundary> {
        self.page(at).map(|page| page.begin)
    }

    /// The log begins at this boundary from now on, which lies in these pages and is known. Returns what
    /// the log is up to there.
    pub(crate) fn compact(&mut self, at: Boundary) -> Position {
        let position = (self.position(at)).expect("a log begins where it is known");
        while let (Some(front), Some(next)) = (self.pages.front(), self.pages.get(1))
            && next.begin <= at
        {
            let gone = front.begin;
            self.forget(gone);
            self.pages.pop_front();
        }
        if let Some(page) = self.pages.front_mut()
            && page.begin < at
        {
            let gone = at.since(page.begin);
            let mut headers = page.headers.take().expect("known inside, so it is held");
            headers.drain(..gone);
            page.count = headers.len();
            page.bytes = headers.iter().map(BatchHeader::cost).sum();
            page.headers = Some(headers);
            let old = core::mem::replace(&mut page.begin, at);
            page.position = position;
            let held = self.held.iter_mut().filter(|held| **held == old);
            held.for_each(|held| *held = at);
        }
        position
    }

    /// Where the page after this one begins, if there is one.
    pub(crate) fn end_of(&self, begin: Boundary) -> Option<Boundary> {
        let after = self.pages.partition_point(|page| page.begin <= begin);
        self.pages.get(after).map(|next| next.begin)
    }

    /// What must be read to know everything around this boundary; `None` if it is known already. The
    /// headers in memory begin with `end`.
    pub(crate) fn wanted(&self, at: Boundary, end: Position) -> Option<Wanted> {
        let after = self.pages.partition_point(|page| page.begin <= at);
        let place = after.checked_sub(1)?;
        let page = &self.pages[place];
        let past = at.since(page.begin) >= page.count;
        if page.headers.is_some() || past {
            return None;
        }
        let end = self.pages.get(after).map_or(end, |next| next.position);
        Some(Wanted {
            begin: page.begin,
            first: page.position.index().next(),
            last: end.index(),
            bytes: page.bytes,
        })
    }

    /// The boundary from which on the page lies that holds this index.
    pub(crate) fn at_index(&self, index: Index) -> Option<Boundary> {
        let after = (self.pages).partition_point(|page| page.position.index() <= index);
        Some(self.pages[after.checked_sub(1)?].begin)
    }

    /// Batches were read back. Says whether they are those of the page that begins here.
    pub(crate) fn take(
        &mut self,
        begin: Boundary,
        end: Position,
        headers: Vec<BatchHeader>,
    ) -> bool {
        let after = self.pages.partition_point(|page| page.begin <= begin);
        let Some(place) = after.checked_sub(1) else {
            return false;
        };
        let end = self.pages.get(after).map_or(end, |next| next.position);
        let page = &mut self.pages[place];
        let mut last = page.position;
        for header in &headers {
            if !header.follows(&last) {
                return false;
            }
            last = header.position();
        }
        if page.begin != begin || last != end || headers.len() != page.count {
            return false;
        }
        page.headers = Some(headers);
        self.held.push_back(begin);
        if self.held.len() > PAGES_HELD
            && let Some(oldest) = self.held.pop_front()
        {
            self.forget(oldest);
        }
        true
    }

    /// The headers of the page that begins here leave memory.
    fn forget(&mut self, begin: Boundary) {
        let after = self.pages.partition_point(|page| page.begin <= begin);
        if let Some(page) = after
            .checked_sub(1)
            .and_then(|place| self.pages.get_mut(place))
        {
            page.headers = None;
        }
        self.held.retain(|held| *held != begin);
    }
}
