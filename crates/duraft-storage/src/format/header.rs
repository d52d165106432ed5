//! Block-sized headers: the STORE file, a segment's header, a free slot's header.

use super::checksum::Seed;
use super::{
    BLOCK_BYTES, BLOCK_SHIFT, CHECKSUM_KIND, FEATURES_KNOWN, FORMAT_MAJOR, FORMAT_MINOR,
    FormatError,
};
use byteorder::{ByteOrder, LittleEndian as LE};

/// Where the checksum of a block-sized header stands. It is the same in every version.
const CHECKSUM_AT: usize = BLOCK_BYTES - 4;

const STORE_MAGIC: u32 = u32::from_le_bytes(*b"DRS1");
const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"DSG1");
const FREE_MAGIC: u32 = u32::from_le_bytes(*b"DSF1");

/// The STORE file: who this store is. Written once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreFile {
    pub(crate) store: [u8; 16],
    pub(crate) cluster: [u8; 16],
    pub(crate) node: u64,
    pub(crate) slot_bytes: u64,
    pub(crate) max_batch_bytes: u32,
    pub(crate) wallclock_ns: u64,
}

/// A segment's header: block 0 of a slot in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    /// Tells this life of the slot from every other one; never 0.
    pub(crate) nonce: u32,
    pub(crate) seq: u64,
    pub(crate) slot: u32,
    pub(crate) slot_blocks: u32,
    /// The segment before this one, and where this header declares its end to be.
    pub(crate) previous: Option<SegmentEnd>,
    /// Counts the opens of the store.
    pub(crate) generation: u32,
    /// No live record stands in a segment before this one.
    pub(crate) first_live: u64,
    /// Number of the first commit in this segment.
    pub(crate) base_commit: u64,
    /// Informational.
    pub(crate) wallclock_ns: u64,
}

/// A segment and the end that its successor declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentEnd {
    pub(crate) seq: u64,
    pub(crate) nonce: u32,
    /// The block after the last one that counts.
    pub(crate) block: u32,
    /// The last commit that counts.
    pub(crate) commit: u64,
    /// Header checksum of the last block that counts.
    pub(crate) digest: u32,
}

/// Block 0 of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotHeader {
    /// Prepared and never used.
    Free,
    /// In use, or used before.
    Segment(SegmentHeader),
}

fn check_block(bytes: &[u8], magic: u32) -> Result<(), FormatError> {
    if bytes.len() < BLOCK_BYTES {
        return Err(FormatError::Short {
            needed: BLOCK_BYTES as u64,
            found: bytes.len() as u64,
        });
    }
    let found = LE::read_u32(bytes);
    if found != magic {
        return Err(FormatError::Magic {
            expected: magic,
            found,
        });
    }
    Ok(())
}

fn check_sum(bytes: &[u8], computed: u32) -> Result<(), FormatError> {
    let found = LE::read_u32(&bytes[CHECKSUM_AT..]);
    if found == computed {
        Ok(())
    } else {
        Err(FormatError::Checksum { found, computed })
    }
}

fn check_version(major: u16, minor: u16, features: u32) -> Result<(), FormatError> {
    if major > FORMAT_MAJOR || features & !FEATURES_KNOWN != 0 {
        return Err(FormatError::Newer {
            major,
            minor,
            features,
        });
    }
    Ok(())
}

fn check_field(field: &'static str, value: u64, expected: u64) -> Result<(), FormatError> {
    if value == expected {
        Ok(())
    } else {
        Err(FormatError::Field { field, value })
    }
}

/// Copies of the same block in the STORE file: one bad sector must not take the store's name.
pub(crate) const STORE_COPIES: usize = 2;

impl StoreFile {
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_copy().repeat(STORE_COPIES)
    }

    /// What the file says, and whether every copy says so.
    pub(crate) fn decode(b: &[u8]) -> Result<(StoreFile, bool), FormatError> {
        let mut copies = b.chunks(BLOCK_BYTES).take(STORE_COPIES);
        let first = StoreFile::decode_copy(copies.next().unwrap_or_default());
        let second = StoreFile::decode_copy(copies.next().unwrap_or_default());
        match (first, second) {
            (Ok(first), second) => Ok((first, second == Ok(first))),
            (Err(newer @ FormatError::Newer { .. }), _) => Err(newer),
            (Err(_), Ok(second)) => Ok((second, false)),
            (Err(_), Err(newer @ FormatError::Newer { .. })) => Err(newer),
            (Err(problem), Err(_)) => Err(problem),
        }
    }

    fn encode_copy(&self) -> Vec<u8> {
        let mut b = vec![0; BLOCK_BYTES];
        LE::write_u32(&mut b[0..], STORE_MAGIC);
        LE::write_u16(&mut b[4..], FORMAT_MAJOR);
        LE::write_u16(&mut b[6..], FORMAT_MINOR);
        LE::write_u32(&mut b[8..], FEATURES_KNOWN);
        b[16..32].copy_from_slice(&self.store);
        b[32..48].copy_from_slice(&self.cluster);
        LE::write_u64(&mut b[48..], self.node);
        LE::write_u64(&mut b[56..], self.slot_bytes);
        LE::write_u32(&mut b[64..], self.max_batch_bytes);
        LE::write_u16(&mut b[68..], BLOCK_SHIFT);
        LE::write_u16(&mut b[70..], CHECKSUM_KIND);
        LE::write_u64(&mut b[72..], self.wallclock_ns);
        let sum = crc32fast::hash(&b[..CHECKSUM_AT]);
        LE::write_u32(&mut b[CHECKSUM_AT..], sum);
        b
    }

    fn decode_copy(b: &[u8]) -> Result<StoreFile, FormatError> {
        check_block(b, STORE_MAGIC)?;
        check_sum(b, crc32fast::hash(&b[..CHECKSUM_AT]))?;
        check_version(
            LE::read_u16(&b[4..]),
            LE::read_u16(&b[6..]),
            LE::read_u32(&b[8..]),
        )?;
        check_field(
            "block_shift",
            LE::read_u16(&b[68..]).into(),
            BLOCK_SHIFT.into(),
        )?;
        check_field(
            "checksum_kind",
            LE::read_u16(&b[70..]).into(),
            CHECKSUM_KIND.into(),
        )?;
        Ok(StoreFile {
            store: array16(&b[16..]),
            cluster: array16(&b[32..]),
            node: LE::read_u64(&b[48..]),
            slot_bytes: LE::read_u64(&b[56..]),
            max_batch_bytes: LE::read_u32(&b[64..]),
            wallclock_ns: LE::read_u64(&b[72..]),
        })
    }
}

impl SegmentHeader {
    /// Writes the header into block 0 of `b`.
    pub(crate) fn encode(&self, store: &[u8; 16], seed: Seed, b: &mut [u8]) {
        assert!(self.nonce != 0, "nonce 0 means no segment");
        let b = &mut b[..BLOCK_BYTES];
        b.fill(0);
        LE::write_u32(&mut b[0..], SEGMENT_MAGIC);
        LE::write_u32(&mut b[4..], self.nonce);
        LE::write_u64(&mut b[8..], self.seq);
        LE::write_u16(&mut b[16..], FORMAT_MAJOR);
        LE::write_u16(&mut b[18..], FORMAT_MINOR);
        LE::write_u32(&mut b[20..], FEATURES_KNOWN);
        LE::write_u32(&mut b[28..], self.slot);
        b[32..48].copy_from_slice(store);
        LE::write_u32(&mut b[48..], self.slot_blocks);
        LE::write_u16(&mut b[52..], BLOCK_SHIFT);
        LE::write_u16(&mut b[54..], CHECKSUM_KIND);
        if let Some(previous) = self.previous {
            assert!(previous.nonce != 0, "a previous segment has a nonce");
            LE::write_u64(&mut b[56..], previous.seq);
            LE::write_u32(&mut b[64..], previous.nonce);
            LE::write_u32(&mut b[68..], previous.block);
            LE::write_u64(&mut b[72..], previous.commit);
            LE::write_u32(&mut b[80..], previous.digest);
        }
        LE::write_u32(&mut b[84..], self.generation);
        LE::write_u64(&mut b[88..], self.first_live);
        LE::write_u64(&mut b[96..], self.base_commit);
        LE::write_u64(&mut b[104..], self.wallclock_ns);
        let sum = seed.sum(&b[..CHECKSUM_AT]);
        LE::write_u32(&mut b[CHECKSUM_AT..], sum);
    }

    fn decode(b: &[u8], seed: Seed) -> Result<SegmentHeader, FormatError> {
        check_block(b, SEGMENT_MAGIC)?;
        check_sum(b, seed.sum(&b[..CHECKSUM_AT]))?;
        check_version(
            LE::read_u16(&b[16..]),
            LE::read_u16(&b[18..]),
            LE::read_u32(&b[20..]),
        )?;
        check_field(
            "block_shift",
            LE::read_u16(&b[52..]).into(),
            BLOCK_SHIFT.into(),
        )?;
        check_field(
            "checksum_kind",
            LE::read_u16(&b[54..]).into(),
            CHECKSUM_KIND.into(),
        )?;
        let nonce = LE::read_u32(&b[4..]);
        if nonce == 0 {
            return Err(FormatError::Field {
                field: "nonce",
                value: 0,
            });
        }
        let previous_nonce = LE::read_u32(&b[64..]);
        let header = SegmentHeader {
            nonce,
            seq: LE::read_u64(&b[8..]),
            slot: LE::read_u32(&b[28..]),
            slot_blocks: LE::read_u32(&b[48..]),
            previous: (previous_nonce != 0).then(|| SegmentEnd {
                seq: LE::read_u64(&b[56..]),
                nonce: previous_nonce,
                block: LE::read_u32(&b[68..]),
                commit: LE::read_u64(&b[72..]),
                digest: LE::read_u32(&b[80..]),
            }),
            generation: LE::read_u32(&b[84..]),
            first_live: LE::read_u64(&b[88..]),
            base_commit: LE::read_u64(&b[96..]),
            wallclock_ns: LE::read_u64(&b[104..]),
        };
        header.check_order()?;
        Ok(header)
    }

    /// Numbers only grow: what a header says of others lies before itself.
    fn check_order(&self) -> Result<(), FormatError> {
        let wrong = |field, value| Err(FormatError::Field { field, value });
        if self.first_live > self.seq {
            return wrong("first_live", self.first_live);
        }
        match self.previous {
            Some(previous) if previous.seq >= self.seq => wrong("previous segment", previous.seq),
            Some(previous) if previous.commit >= self.base_commit => {
                wrong("previous commit", previous.commit)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The open generation and segment number: newer lives compare greater, zombies of older lives
    /// less, whatever numbers they use.
    pub(crate) fn age(&self) -> (u32, u64) {
        (self.generation, self.seq)
    }
}

impl SlotHeader {
    /// Writes the header of a prepared slot into block 0 of `b`.
    pub(crate) fn encode_free(slot: u32, slot_blocks: u32, seed: Seed, b: &mut [u8]) {
        let b = &mut b[..BLOCK_BYTES];
        b.fill(0);
        LE::write_u32(&mut b[0..], FREE_MAGIC);
        LE::write_u32(&mut b[28..], slot);
        LE::write_u32(&mut b[48..], slot_blocks);
        let sum = seed.sum(&b[..CHECKSUM_AT]);
        LE::write_u32(&mut b[CHECKSUM_AT..], sum);
    }

    /// Reads block 0 of slot `slot`. A header of another slot (a misdirected write) is refused.
    pub(crate) fn decode(b: &[u8], slot: u32, seed: Seed) -> Result<SlotHeader, FormatError> {
        match check_block(b, FREE_MAGIC) {
            Ok(()) => {
                check_sum(b, seed.sum(&b[..CHECKSUM_AT]))?;
                check_field("slot", LE::read_u32(&b[28..]).into(), slot.into())?;
                Ok(SlotHeader::Free)
            }
            Err(_) => {
                let header = SegmentHeader::decode(b, seed)?;
                check_field("slot", header.slot.into(), slot.into())?;
                Ok(SlotHeader::Segment(header))
            }
        }
    }

    /// The open generation a segment header of any store states: what bootstrap asks of slots whose
    /// STORE file is missing.
    pub(crate) fn generation_of_any_store(b: &[u8]) -> Option<u32> {
        check_block(b, SEGMENT_MAGIC).ok()?;
        let header = SegmentHeader::decode(b, Seed::of(&array16(&b[32..]))).ok()?;
        Some(header.generation)
    }
}

/// Makes the checksum of a segment or free header right. `false`: this is neither.
pub(crate) fn reseal_header(b: &mut [u8], seed: Seed) -> bool {
    if check_block(b, SEGMENT_MAGIC).is_err() && check_block(b, FREE_MAGIC).is_err() {
        return false;
    }
    let sum = seed.sum(&b[..CHECKSUM_AT]);
    LE::write_u32(&mut b[CHECKSUM_AT..BLOCK_BYTES], sum);
    true
}

fn array16(bytes: &[u8]) -> [u8; 16] {
    let mut array = [0; 16];
    array.copy_from_slice(&bytes[..16]);
    array
}
