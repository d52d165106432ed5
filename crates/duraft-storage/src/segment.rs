//! One life of a slot: a segment, and the place of a batch inside it.

use crate::log::Headed;
use bytes::Bytes;
use duraft_core::BatchHeader;
use duraft_disk::{DiskFile, Map};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A segment in use. Whoever holds the `Arc` keeps the slot from being written anew.
pub(crate) struct Segment {
    pub(crate) seq: u64,
    pub(crate) slot: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    sealed: AtomicBool,
    map: OnceLock<Option<Map>>,
}

impl Segment {
    pub(crate) fn new(seq: u64, slot: u32, file: Arc<dyn DiskFile>) -> Arc<Segment> {
        Arc::new(Segment {
            seq,
            slot,
            file,
            sealed: AtomicBool::new(false),
            map: OnceLock::new(),
        })
    }

    /// Nothing writes to the slot any more as long as this value lives.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// A read-only view, once the segment is sealed and where the disk offers one.
    pub(crate) fn map(&self) -> Option<&Map> {
        if !self.sealed.load(Ordering::Acquire) {
            return None;
        }
        self.map
            .get_or_init(|| self.file.map().ok().flatten())
            .as_ref()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("seq", &self.seq)
            .field("slot", &self.slot)
            .finish()
    }
}

/// A stored batch: what it is and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) header: BatchHeader,
    pub(crate) segment: Arc<Segment>,
    pub(crate) commit: u64,
    /// Bytes from the slot's beginning to the descriptor.
    pub(crate) descriptor_at: u32,
    /// Bytes from the slot's beginning to the body.
    pub(crate) body_at: u32,
    /// The body, while it is kept in memory.
    pub(crate) body: Option<Bytes>,
}

impl Headed for Entry {
    fn header(&self) -> &BatchHeader {
        &self.header
    }
}

impl Entry {
    /// Bytes that keeping the batch costs in a segment.
    pub(crate) fn stored_bytes(&self) -> u64 {
        duraft_core::DESCRIPTOR_BYTES + u64::from(self.header.body_len).next_multiple_of(8)
    }
}
