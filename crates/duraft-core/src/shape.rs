//! The log's shape in memory, and what of it comes back from disk (RULES.md 25; `pages.rs`).
//!
//! Only what was applied leaves memory, so nothing that decides needs it: votes, commits, cuts and
//! acknowledgements are about what follows. Whoever asks for older boundaries is a peer that is far
//! behind, a damaged one, or a snapshot that took long to write. The page is read, the question is
//! dropped, as any message may be, and asked again; a snapshot waits here.
//!
//! Towards a leader, what a follower has forgotten counts as committed, which it is: the leader is told
//! where this log can be compared again, as it would be of a compacted one.

use crate::batch::{Batch, BatchHeader};
use crate::io::{Load, LoadError, Output};
use crate::log::Boundary;
use crate::pages::Wanted;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::Transition;
use crate::snapshot::Snapshot;
use crate::types::{Index, LoadId};
use alloc::vec::Vec;

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Paging {
    /// The page that is being read: the load, and where the page begins.
    pub(crate) reading: Option<(LoadId, Boundary)>,
    /// A durable snapshot of this node whose boundary is not in memory.
    pub(crate) snapshot: Option<Snapshot>,
}

impl Raft {
    /// The end of a step: what is applied leaves memory where that is short.
    pub(crate) fn trim_shape(&mut self) {
        if self.install.is_some() || self.plants.has(Plant::KeepsShape) {
            return;
        }
        let reading = self.paging.reading.map(|(_, begin)| begin);
        let page = (self.config.append_bytes_max, reading);
        // A follower's log is known from where it was compared with its leader's, if it was. On a leader
        // that means nothing.
        let compared = self.verified > self.log.begin() && self.role.leader().is_none();
        let keep_from = if compared {
            self.applied.min(self.verified)
        } else {
            self.applied
        };
        (self.log).evict(self.config.shape_bytes_max, keep_from, page);
        if self.verified < self.log.held() {
            self.verified = self.log.begin();
        }
    }

    /// Somebody needs to know this boundary. Says whether the page must be read first.
    pub(crate) fn needs_page(&mut self, at: Boundary, out: &mut Vec<Output>) -> bool {
        let wanted = self.log.wanted(at);
        self.read_page(wanted, out)
    }

    /// Somebody needs to know what lies at this index.
    pub(crate) fn needs_page_at(&mut self, index: Index, out: &mut Vec<Output>) -> bool {
        if self.log.boundary_after(index).is_some() {
            return false;
        }
        let wanted = self.log.wanted_at(index);
        self.read_page(wanted, out)
    }

    fn read_page(&mut self, wanted: Option<Wanted>, out: &mut Vec<Output>) -> bool {
        let Some(wanted) = wanted else {
            return false;
        };
        if self.paging.reading.is_none() {
            let load = page_load(self.next_load, &wanted);
            self.next_load.0 += 1;
            self.paging.reading = Some((load.id, wanted.begin));
            out.push(Output::Load(load));
        }
        true
    }

    /// Was this load for a page? Then what waited for it goes on; `None`: it was not.
    pub(crate) fn on_page(
        &mut self,
        load: LoadId,
        result: &Result<Vec<Batch>, LoadError>,
        out: &mut Vec<Output>,
    ) -> Option<Option<Transition>> {
        let (_, begin) = self.paging.reading.filter(|(id, _)| *id == load)?;
        self.paging.reading = None;
        let headers = |batches: &Vec<Batch>| -> Vec<BatchHeader> {
            batches.iter().map(|batch| batch.header).collect()
        };
        let taken = (result.as_ref()).is_ok_and(|read| self.log.take_page(begin, headers(read)));
        // It may have been compacted meanwhile. If not, the disk has lost it, and with it whatever peers
        // could still be told of it: they need a snapshot.
        if !taken && begin >= self.log.begin() {
            self.paging.snapshot = None;
            self.give_snapshots(begin, out);
            return Some(None);
        }
        self.replicate_to_all(out);
        let snapshot = self.paging.snapshot.take();
        Some(snapshot.and_then(|snapshot| self.on_snapshot_taken(snapshot, out)))
    }
}

/// A load of one whole page.
pub(crate) fn page_load(id: LoadId, wanted: &Wanted) -> Load {
    Load {
        id,
        first: wanted.first,
        last: wanted.last,
        bytes_max: wanted.bytes,
    }
}
