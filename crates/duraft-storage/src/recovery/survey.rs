//! Looks at every slot: its header, and as much of its content as is asked for.

use crate::errors::OpenError;
use crate::format::checksum::Seed;
use crate::format::header::{SegmentHeader, SlotHeader};
use crate::format::{BLOCK_BYTES, FormatError, block_offset};
use crate::pool::{SLOT_DIR, slot_name, slot_of};
use duraft_disk::{Disk, DiskError, DiskFile};
use std::sync::Arc;

/// Bytes read of every slot: header, mark A and the beginning of the first block.
const PROBE_BYTES: usize = 4 * BLOCK_BYTES;

/// A slot as it was read.
pub(crate) struct SlotImage {
    pub(crate) slot: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Has the length that slots of this store have.
    pub(crate) full_length: bool,
    pub(crate) header: Result<SlotHeader, FormatError>,
    /// The slot from its beginning, as far as it was loaded.
    pub(crate) bytes: Vec<u8>,
    /// First bytes of blocks that the disk refused to read.
    pub(crate) unreadable: Vec<u64>,
    slot_bytes: usize,
}

impl SlotImage {
    /// The segment header, if a believable one stands in block 0.
    pub(crate) fn segment(&self) -> Option<&SegmentHeader> {
        match &self.header {
            Ok(SlotHeader::Segment(header)) => Some(header),
            Ok(SlotHeader::Free) | Err(_) => None,
        }
    }

    /// Reads the whole slot. With `tolerate`, blocks that the disk refuses to read are zeros and are
    /// noted; without, the first one is an error.
    pub(crate) fn load(&mut self, tolerate: bool) -> Result<(), DiskError> {
        self.load_upto(self.slot_bytes, tolerate)
    }

    /// Gives back the memory of the content.
    pub(crate) fn unload(&mut self) {
        self.bytes = Vec::new();
    }

    fn load_upto(&mut self, upto: usize, tolerate: bool) -> Result<(), DiskError> {
        let from = self.bytes.len();
        if upto <= from {
            return Ok(());
        }
        self.bytes.resize(upto, 0);
        match self.file.read_at(&mut self.bytes[from..], from as u64) {
            Ok(_) => Ok(()),
            Err(error) if !tolerate => {
                self.bytes.truncate(from);
                Err(error)
            }
            Err(_) => {
                self.load_blocks(from);
                Ok(())
            }
        }
    }

    /// Reads block by block around those that cannot be read.
    fn load_blocks(&mut self, from: usize) {
        for (i, block) in self.bytes[from..].chunks_mut(BLOCK_BYTES).enumerate() {
            let at = (from + i * BLOCK_BYTES) as u64;
            if self.file.read_at(block, at).is_err() {
                block.fill(0);
                self.unreadable.push(at);
            }
        }
    }
}

/// Every slot of the store, in order of their numbers.
pub(crate) fn survey(
    disk: &dyn Disk,
    seed: Seed,
    slot_bytes: u64,
    tolerate: bool,
) -> Result<Vec<SlotImage>, OpenError> {
    let mut images = Vec::new();
    let whole = crate::format::memory_index(slot_bytes);
    for name in disk.list(SLOT_DIR)? {
        let Some(slot) = slot_of(&name) else { continue };
        let file = disk.open(&slot_name(slot))?;
        let full_length = file.len()? == slot_bytes;
        let mut image = SlotImage {
            slot,
            file,
            full_length,
            header: Ok(SlotHeader::Free),
            bytes: Vec::new(),
            unreadable: Vec::new(),
            slot_bytes: whole,
        };
        image.load_upto(PROBE_BYTES.min(whole), tolerate)?;
        image.header = SlotHeader::decode(&image.bytes, slot, seed);
        if let Err(problem @ FormatError::Newer { .. }) = image.header {
            return Err(OpenError::Newer {
                name: slot_name(slot),
                problem,
            });
        }
        if image
            .segment()
            .is_some_and(|h| u64::from(h.slot_blocks) * BLOCK_BYTES as u64 != slot_bytes)
        {
            image.header = Err(FormatError::Field {
                field: "slot_blocks",
                value: slot_bytes,
            });
        }
        images.push(image);
    }
    Ok(images)
}

/// Was any of these blocks refused by the disk, from `block` on?
pub(crate) fn unreadable_from(image: &SlotImage, block: u32) -> bool {
    image.unreadable.iter().any(|at| *at >= block_offset(block))
}
