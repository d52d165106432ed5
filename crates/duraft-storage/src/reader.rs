//! Reads stored batches: recent ones from memory, older ones from their segments, always checked.

use crate::errors::ReadError;
use crate::format::checksum;
use crate::format::memory_index;
use crate::format::record::{DESCRIPTOR_LEN, decode_descriptor};
use crate::index::StoreIndex;
use crate::segment::Entry;
use bytes::Bytes;
use duraft_core::{Batch, GroupId, Index, Position};
use parking_lot::RwLock;
use std::fmt;
use std::sync::Arc;

/// What writer and readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) index: RwLock<StoreIndex>,
    pub(crate) map_sealed: bool,
}

/// Reads what is durable, from any thread, while the log is written. Clones share the index.
#[derive(Clone, Debug)]
pub struct WalReader {
    shared: Arc<Shared>,
}

impl WalReader {
    pub(crate) fn new(shared: Arc<Shared>) -> WalReader {
        WalReader { shared }
    }

    /// Consecutive whole batches from the one that begins at `first`, up to the one that ends at or
    /// before `last` and up to `bytes_max` bytes of descriptors and bodies, without what pads them on
    /// disk, but at least one. Bodies and descriptors that come from the disk are checked.
    pub fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Batch>, ReadError> {
        // The entries hold their segments: no slot is written anew while it is read.
        let entries = self.entries(group, first, last, bytes_max)?;
        entries
            .iter()
            .map(|entry| load(entry, self.shared.map_sealed))
            .collect()
    }

    fn entries(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, ReadError> {
        let index = self.shared.index.read();
        let log = &index
            .groups
            .get(&group)
            .ok_or(ReadError::UnknownGroup(group))?
            .log;
        if first <= log.start().index() {
            return Err(ReadError::Compacted {
                first,
                start: log.start(),
            });
        }
        if first > log.end().index() {
            return Err(ReadError::PastEnd {
                first,
                end: log.end(),
            });
        }
        let place = log.place_of(first);
        let mut entries = Vec::new();
        let mut bytes = 0u64;
        let mut next = first;
        for entry in log.entries().range(place..) {
            let header = &entry.header;
            if header.first != next {
                break;
            }
            let cost = header.cost();
            let over = header.last() > last || bytes.saturating_add(cost) > bytes_max;
            if !entries.is_empty() && over {
                break;
            }
            bytes += cost;
            next = header.last().next();
            entries.push(entry.clone());
        }
        if entries.is_empty() {
            let inside = log
                .entries()
                .get(place)
                .is_some_and(|entry| entry.header.first < first);
            return Err(if inside {
                ReadError::NotABoundary(first)
            } else {
                ReadError::Missing(first)
            });
        }
        Ok(entries)
    }

    /// The groups of the store.
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.index.read().groups.keys().copied().collect()
    }

    /// First index of the stored batch that holds `index`.
    pub fn batch_holding(&self, group: GroupId, index: Index) -> Option<Index> {
        let shared = self.shared.index.read();
        let log = &shared.groups.get(&group)?.log;
        let header = &log.entries().get(log.place_of(index))?.header;
        (header.first <= index && index > log.start().index()).then_some(header.first)
    }

    /// The last batch boundary at or before `index`, if it is inside the stored log.
    pub fn boundary_upto(&self, group: GroupId, index: Index) -> Option<Position> {
        let shared = self.shared.index.read();
        let log = &shared.groups.get(&group)?.log;
        let after = log.place_of(index.next());
        let header = &log.entries().get(after.checked_sub(1)?)?.header;
        Some(header.position())
    }

    /// The boundaries before the first and after the last durable batch of a group.
    pub fn bounds(&self, group: GroupId) -> Option<(Position, Position)> {
        let index = self.shared.index.read();
        let log = &index.groups.get(&group)?.log;
        Some((log.start(), log.end()))
    }
}

/// The batch of an entry, from memory or from its segment.
pub(crate) fn load(entry: &Entry, map_sealed: bool) -> Result<Batch, ReadError> {
    let body = match &entry.body {
        Some(body) => body.clone(),
        None => read_body(entry, map_sealed)?,
    };
    Ok(Batch {
        header: entry.header,
        body,
    })
}

fn read_body(entry: &Entry, map_sealed: bool) -> Result<Bytes, ReadError> {
    let header = &entry.header;
    let corrupt = |reason: &dyn fmt::Display| ReadError::Corrupt {
        group: header.group,
        first: header.first,
        reason: reason.to_string(),
    };
    let mut descriptor = [0; DESCRIPTOR_LEN];
    let mut body = vec![0; header.body_len as usize];
    let map = if map_sealed {
        entry.segment.map()
    } else {
        None
    };
    let copied = map.is_some_and(|map| {
        copy(map, entry.descriptor_at, &mut descriptor) && copy(map, entry.body_at, &mut body)
    });
    if !copied {
        let file = &entry.segment.file;
        let read = file.read_at(&mut descriptor, entry.descriptor_at.into())?
            + file.read_at(&mut body, entry.body_at.into())?;
        if read != descriptor.len() + body.len() {
            return Err(corrupt(&"the slot file ends inside the batch"));
        }
    }
    match decode_descriptor(&descriptor) {
        Ok((found, _)) if found == *header => {}
        Ok(_) => return Err(corrupt(&"another batch stands in its place")),
        Err(error) => return Err(corrupt(&error)),
    }
    checksum::check_body(header, &body).map_err(|error| corrupt(&error))?;
    Ok(Bytes::from(body))
}

fn copy(map: &[u8], at: u32, out: &mut [u8]) -> bool {
    let at = memory_index(at.into());
    match map.get(at..at + out.len()) {
        Some(bytes) => {
            out.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}
