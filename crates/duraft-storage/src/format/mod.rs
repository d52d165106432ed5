//! The bytes on disk: layouts, checksums, encoders and decoders. No I/O.
//!
//! Every layout is written down once more in `docs/wal-format.md`; tests hold the two together by
//! golden bytes. Little-endian throughout. Nothing here believes a length it has not checked.

pub(crate) mod block;
pub(crate) mod checksum;
pub(crate) mod header;
pub(crate) mod payload;
pub(crate) mod record;

#[cfg(test)]
mod tests;

/// Unit of alignment of everything in a slot.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// `log2(BLOCK_BYTES)`, as stored.
pub(crate) const BLOCK_SHIFT: u16 = 12;
/// Major version: a reader refuses a larger one.
pub(crate) const FORMAT_MAJOR: u16 = 1;
/// Minor version: informational.
pub(crate) const FORMAT_MINOR: u16 = 0;
/// Incompatible features this version understands.
pub(crate) const FEATURES_KNOWN: u32 = 0;
/// Checksum kind 1: CRC-32/IEEE.
pub(crate) const CHECKSUM_KIND: u16 = 1;
/// Block 1 of a slot: the first mark.
pub(crate) const MARK_A: u32 = 1;
/// First block of a slot that may hold a commit block.
pub(crate) const FIRST_COMMIT_BLOCK: u32 = 2;
/// Blocks of a slot that never hold commit blocks: header, mark A, mark B.
pub(crate) const FIXED_BLOCKS: u32 = 3;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure needs.
    #[error("{found} bytes where {needed} are needed")]
    Short {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        found: u64,
    },
    /// Another structure, or none, stands here.
    #[error("magic number {found:#010x} where {expected:#010x} belongs")]
    Magic {
        /// What belongs here.
        expected: u32,
        /// What stands here.
        found: u32,
    },
    /// The bytes do not match their checksum.
    #[error("checksum {found:#010x} over bytes whose checksum is {computed:#010x}")]
    Checksum {
        /// The stored checksum.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The bytes were written by a version with features this one lacks.
    #[error("format {major}.{minor} with features {features:#x} is newer than this version")]
    Newer {
        /// Major version found.
        major: u16,
        /// Minor version found.
        minor: u16,
        /// Incompatible features found.
        features: u32,
    },
    /// A field has a value that no writer writes.
    #[error("field '{field}' cannot have the value {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Bytes of a slot before `block`.
pub(crate) fn block_offset(block: u32) -> u64 {
    u64::from(block) << BLOCK_SHIFT
}

/// Blocks that `bytes` bytes fill, the last one padded.
pub(crate) fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES as u64)
}

/// The next multiple of 8.
pub(crate) fn align8(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// An offset inside a slot as an index into memory. Slots are at most 1 GiB.
pub(crate) fn memory_index(offset: u64) -> usize {
    usize::try_from(offset).expect("offsets inside a slot of at most 1 GiB fit a usize")
}

/// A length that was bounded by the slot size, in the width it has on disk.
pub(crate) fn disk_length(length: usize) -> u32 {
    u32::try_from(length).expect("lengths inside a slot of at most 1 GiB fit 32 bits")
}
