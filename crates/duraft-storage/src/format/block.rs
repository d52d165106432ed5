//! The commit block: what one group commit writes, and the mark, a commit block outside the chain.
//!
//! ```text
//! 0  header (64)   64  directory: one 64-byte descriptor per record   then payloads, 8-aligned
//! ```
//! A block is believed when its header matches its place (nonce, segment, block number) and its
//! checksum, and its directory and payloads match theirs.

use super::checksum::Seed;
use super::record::{DESCRIPTOR_LEN, descriptor_sums};
use super::{BLOCK_BYTES, FormatError, blocks_of};
use byteorder::{ByteOrder, LittleEndian as LE};

pub(crate) const HEADER_LEN: usize = 64;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"DCB1");
const CHECKSUM_AT: usize = 60;

/// What a commit block is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flags(pub(crate) u16);

impl Flags {
    pub(crate) const NONE: Flags = Flags(0);
    /// Proves the commit before it; carries no user records.
    pub(crate) const RECEIPT: Flags = Flags(1);
    /// A receipt written by an orderly close.
    pub(crate) const CLEAN: Flags = Flags(2);
    /// First block of a new life: its checkpoint replaces what came before.
    pub(crate) const FENCE: Flags = Flags(4);
    /// Outside the chain, overwritten in place, states what is durable.
    pub(crate) const MARK: Flags = Flags(8);
    const KNOWN: u16 = 15;

    pub(crate) fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn with(self, flag: Flags) -> Flags {
        Flags(self.0 | flag.0)
    }
}

/// Header of a commit block or mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHeader {
    pub(crate) nonce: u32,
    pub(crate) segment: u64,
    pub(crate) commit: u64,
    /// The watermark: the last commit known durable when this header was written.
    pub(crate) durable: u64,
    /// Block number inside the slot.
    pub(crate) block: u32,
    pub(crate) payload_len: u32,
    pub(crate) records: u16,
    pub(crate) flags: Flags,
    pub(crate) generation: u32,
    /// Header checksum of the block before this one.
    pub(crate) previous_digest: u32,
    pub(crate) directory_sum: u32,
    pub(crate) payload_sum: u32,
    /// Checksum of this header: its digest in the chain.
    pub(crate) sum: u32,
}

impl BlockHeader {
    /// Writes the header into `b` and returns its checksum.
    pub(crate) fn encode(&self, seed: Seed, b: &mut [u8]) -> u32 {
        let b = &mut b[..HEADER_LEN];
        LE::write_u32(&mut b[0..], BLOCK_MAGIC);
        LE::write_u32(&mut b[4..], self.nonce);
        LE::write_u64(&mut b[8..], self.segment);
        LE::write_u64(&mut b[16..], self.commit);
        LE::write_u64(&mut b[24..], self.durable);
        LE::write_u32(&mut b[32..], self.block);
        LE::write_u32(&mut b[36..], self.payload_len);
        LE::write_u16(&mut b[40..], self.records);
        LE::write_u16(&mut b[42..], self.flags.0);
        LE::write_u32(&mut b[44..], self.generation);
        LE::write_u32(&mut b[48..], self.previous_digest);
        LE::write_u32(&mut b[52..], self.directory_sum);
        LE::write_u32(&mut b[56..], self.payload_sum);
        let sum = seed.sum(&b[..CHECKSUM_AT]);
        LE::write_u32(&mut b[CHECKSUM_AT..], sum);
        sum
    }

    /// Reads a header of this store, whatever its place.
    pub(crate) fn decode(b: &[u8], seed: Seed) -> Result<BlockHeader, FormatError> {
        BlockHeader::decode_with(b, seed, true)
    }

    /// `summed`: compare the header's checksum, as everybody does but tests of the tests.
    pub(crate) fn decode_with(
        b: &[u8],
        seed: Seed,
        summed: bool,
    ) -> Result<BlockHeader, FormatError> {
        if b.len() < HEADER_LEN {
            return Err(FormatError::Short {
                needed: HEADER_LEN as u64,
                found: b.len() as u64,
            });
        }
        let magic = LE::read_u32(b);
        if magic != BLOCK_MAGIC {
            return Err(FormatError::Magic {
                expected: BLOCK_MAGIC,
                found: magic,
            });
        }
        let found = LE::read_u32(&b[CHECKSUM_AT..]);
        let computed = seed.sum(&b[..CHECKSUM_AT]);
        if found != computed && summed {
            return Err(FormatError::Checksum { found, computed });
        }
        let flags = LE::read_u16(&b[42..]);
        if flags & !Flags::KNOWN != 0 {
            return Err(FormatError::Field {
                field: "flags",
                value: flags.into(),
            });
        }
        let (commit, durable) = (LE::read_u64(&b[16..]), LE::read_u64(&b[24..]));
        // A block is written before it is durable; a mark is its own watermark.
        let mark = Flags(flags).has(Flags::MARK);
        if durable > commit || durable == commit && !mark {
            return Err(FormatError::Field {
                field: "watermark",
                value: durable,
            });
        }
        Ok(BlockHeader {
            nonce: LE::read_u32(&b[4..]),
            segment: LE::read_u64(&b[8..]),
            commit,
            durable,
            block: LE::read_u32(&b[32..]),
            payload_len: LE::read_u32(&b[36..]),
            records: LE::read_u16(&b[40..]),
            flags: Flags(flags),
            generation: LE::read_u32(&b[44..]),
            previous_digest: LE::read_u32(&b[48..]),
            directory_sum: LE::read_u32(&b[52..]),
            payload_sum: LE::read_u32(&b[56..]),
            sum: found,
        })
    }

    /// Where the payloads begin, counted from the block's first byte.
    pub(crate) fn payload_at(&self) -> usize {
        HEADER_LEN + usize::from(self.records) * DESCRIPTOR_LEN
    }

    /// Blocks of 4 KiB this commit block fills.
    pub(crate) fn blocks(&self) -> u32 {
        let bytes = self.payload_at() as u64 + u64::from(self.payload_len);
        // At most 2^32 + 2^22 bytes, so at most 2^20 + 2^10 + 1 blocks.
        u32::try_from(blocks_of(bytes)).expect("a block count below 2^21")
    }

    /// The open generation and segment number, as in a segment header.
    pub(crate) fn age(&self) -> (u32, u64) {
        (self.generation, self.segment)
    }
}

/// Size in bytes of a commit block before padding.
pub(crate) fn unpadded_len(records: usize, payload_len: usize) -> u64 {
    (HEADER_LEN + records * DESCRIPTOR_LEN + payload_len) as u64
}

/// Writes header, directory checksum and payload checksum of a block whose directory and payloads
/// stand in `b` already, and zeroes the padding. Returns the header's checksum.
pub(crate) fn seal(header: &mut BlockHeader, seed: Seed, b: &mut [u8]) -> u32 {
    let payload_at = header.payload_at();
    let payload_end = payload_at + header.payload_len as usize;
    let padded = header.blocks() as usize * BLOCK_BYTES;
    b[payload_end..padded].fill(0);
    header.directory_sum = directory_sum(seed, &b[HEADER_LEN..payload_at]);
    header.payload_sum = seed.sum(&b[payload_at..payload_end]);
    header.sum = header.encode(seed, b);
    header.sum
}

/// Checks directory and payloads against a header that was believed. `b` begins at the block.
pub(crate) fn check_content(
    header: &BlockHeader,
    seed: Seed,
    b: &[u8],
    payloads: bool,
) -> Result<(), FormatError> {
    let payload_at = header.payload_at();
    let payload_end = payload_at + header.payload_len as usize;
    if b.len() < payload_end {
        return Err(FormatError::Short {
            needed: payload_end as u64,
            found: b.len() as u64,
        });
    }
    let directory = &b[HEADER_LEN..payload_at];
    let computed = directory_sum(seed, directory);
    if computed != header.directory_sum {
        return Err(FormatError::Checksum {
            found: header.directory_sum,
            computed,
        });
    }
    // The directory's checksum leaves these out.
    directory
        .chunks_exact(DESCRIPTOR_LEN)
        .try_for_each(check_descriptor)?;
    if payloads {
        let computed = seed.sum(&b[payload_at..payload_end]);
        if computed != header.payload_sum {
            return Err(FormatError::Checksum {
                found: header.payload_sum,
                computed,
            });
        }
    }
    Ok(())
}

fn check_descriptor(descriptor: &[u8]) -> Result<(), FormatError> {
    let (found, computed) = descriptor_sums(descriptor);
    if found == computed {
        Ok(())
    } else {
        Err(FormatError::Checksum { found, computed })
    }
}

/// Checksum of a directory: every descriptor without its own checksum.
fn directory_sum(seed: Seed, directory: &[u8]) -> u32 {
    seed.sum_pieces(directory, DESCRIPTOR_LEN, DESCRIPTOR_LEN - 4)
}

/// Does a block seem to begin here, with room for a header?
pub(crate) fn has_magic(b: &[u8]) -> bool {
    b.len() >= HEADER_LEN && LE::read_u32(b) == BLOCK_MAGIC
}

/// Makes the checksums of a block right that has this many records and bytes of payloads.
pub(crate) fn reseal(b: &mut [u8], seed: Seed, records: usize, payload_len: usize) {
    let payload_at = HEADER_LEN + records * DESCRIPTOR_LEN;
    let records = u16::try_from(records).unwrap_or(u16::MAX);
    LE::write_u16(&mut b[40..], records);
    LE::write_u32(&mut b[36..], super::disk_length(payload_len));
    let directory = directory_sum(seed, &b[HEADER_LEN..payload_at]);
    LE::write_u32(&mut b[52..], directory);
    let payload = seed.sum(&b[payload_at..payload_at + payload_len]);
    LE::write_u32(&mut b[56..], payload);
    let sum = seed.sum(&b[..CHECKSUM_AT]);
    LE::write_u32(&mut b[CHECKSUM_AT..HEADER_LEN], sum);
}
