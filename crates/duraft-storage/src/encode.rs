//! Builds blocks in memory: an aligned buffer that is used again for every commit.

use crate::format::block::{self, BlockHeader, HEADER_LEN};
use crate::format::checksum::Seed;
use crate::format::record::{DESCRIPTOR_LEN, Frame};
use crate::format::{BLOCK_BYTES, align8, disk_length};

/// Memory that begins at a multiple of 4 KiB, so that direct I/O can be had one day without a copy.
#[derive(Default)]
pub(crate) struct Buffer {
    storage: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// The first `len` bytes; what stood in them is arbitrary.
    pub(crate) fn reserve(&mut self, len: usize) -> &mut [u8] {
        if self.storage.len() < self.start + len {
            self.storage = vec![0; len.next_power_of_two() + BLOCK_BYTES];
            self.start = match self.storage.as_ptr().align_offset(BLOCK_BYTES) {
                // The platform cannot tell: alignment is a wish here, not a need.
                usize::MAX => 0,
                offset => offset,
            };
        }
        &mut self.storage[self.start..self.start + len]
    }

    pub(crate) fn bytes(&self, len: usize) -> &[u8] {
        &self.storage[self.start..self.start + len]
    }
}

/// How much the records of a block come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Measure {
    pub(crate) records: usize,
    /// Bytes of payloads, each padded to 8 bytes.
    pub(crate) payload: usize,
}

impl Measure {
    pub(crate) fn add(&mut self, payload_len: usize) {
        self.records += 1;
        self.payload += align8(payload_len);
    }

    pub(crate) fn plus(self, other: Measure) -> Measure {
        Measure {
            records: self.records + other.records,
            payload: self.payload + other.payload,
        }
    }

    /// Bytes of records: what limits count.
    pub(crate) fn bytes(&self) -> u64 {
        (self.records * DESCRIPTOR_LEN + self.payload) as u64
    }

    pub(crate) fn blocks(&self) -> u64 {
        crate::format::blocks_of(block::unpadded_len(self.records, self.payload))
    }
}

/// Where a record came to stand, in bytes from the slot's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) descriptor_at: u32,
    pub(crate) body_at: u32,
}

/// Fills one block, record by record. The number of records is known before.
pub(crate) struct BlockBuilder<'a> {
    bytes: &'a mut [u8],
    slot_at: usize,
    records: usize,
    pushed: usize,
    payload_at: usize,
}

impl<'a> BlockBuilder<'a> {
    /// A block that will stand `slot_at` bytes into its slot.
    pub(crate) fn new(bytes: &'a mut [u8], slot_at: usize, records: usize) -> BlockBuilder<'a> {
        let payload_at = HEADER_LEN + records * DESCRIPTOR_LEN;
        BlockBuilder {
            bytes,
            slot_at,
            records,
            pushed: 0,
            payload_at,
        }
    }

    pub(crate) fn push(&mut self, frame: Frame, payload: &[u8]) -> Place {
        assert!(
            self.pushed < self.records,
            "no more records than were measured"
        );
        let end = self.payload_at + payload.len();
        let padded = align8(end);
        let position = (self.slot_at + self.payload_at) / 8;
        self.bytes[self.payload_at..end].copy_from_slice(payload);
        self.bytes[end..padded].fill(0);
        let descriptor_at = HEADER_LEN + self.pushed * DESCRIPTOR_LEN;
        let frame = Frame {
            position: disk_length(position),
            ..frame
        };
        frame.encode(&mut self.bytes[descriptor_at..]);
        let place = Place {
            descriptor_at: disk_length(self.slot_at + descriptor_at),
            body_at: disk_length(self.slot_at + self.payload_at),
        };
        self.pushed += 1;
        self.payload_at = padded;
        place
    }

    /// Completes `header` and writes it. Returns the length in bytes, a multiple of 4 KiB.
    pub(crate) fn finish(self, header: &mut BlockHeader, seed: Seed) -> usize {
        assert_eq!(
            self.pushed, self.records,
            "as many records as were measured"
        );
        header.records =
            u16::try_from(self.records).expect("commits are limited to 2^16 - 1 records");
        header.payload_len = disk_length(self.payload_at - header.payload_at());
        block::seal(header, seed, self.bytes);
        header.blocks() as usize * BLOCK_BYTES
    }
}
