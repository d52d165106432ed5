//! Doors for fuzz targets: decode as recovery does, and make checksums right so that a fuzzer reaches
//! what lies behind them. Not part of the interface.

use crate::format::block::{self, BlockHeader, HEADER_LEN};
use crate::format::checksum::Seed;
use crate::format::header::{SlotHeader, StoreFile, reseal_header};
use crate::format::record::{DESCRIPTOR_LEN, Record, reseal_descriptor};
use crate::format::{BLOCK_BYTES, block_offset};
pub use crate::snapshot::reseal_snapshot;
use byteorder::{ByteOrder, LittleEndian as LE};

/// The identity in a STORE file.
pub fn store_id(store_file: &[u8]) -> Option<[u8; 16]> {
    StoreFile::decode(store_file)
        .ok()
        .map(|(file, _)| file.store)
}

/// Decodes a commit block with everything in it, as recovery does. Returns the number of records.
pub fn decode_block(store: &[u8; 16], bytes: &[u8]) -> Result<usize, String> {
    let seed = Seed::of(store);
    let header = BlockHeader::decode(bytes, seed).map_err(|error| error.to_string())?;
    block::check_content(&header, seed, bytes, true).map_err(|error| error.to_string())?;
    let payload_at = header.payload_at();
    let payloads = &bytes[payload_at..payload_at + header.payload_len as usize];
    let position = block_offset(header.block) + payload_at as u64;
    let mut records = 0;
    for descriptor in bytes[HEADER_LEN..payload_at].chunks_exact(DESCRIPTOR_LEN) {
        Record::decode(descriptor, payloads, position, true).map_err(|error| error.to_string())?;
        records += 1;
    }
    Ok(records)
}

/// Decodes block 0 of a slot.
pub fn decode_slot_header(store: &[u8; 16], slot: u32, bytes: &[u8]) -> Result<(), String> {
    let header = SlotHeader::decode(bytes, slot, Seed::of(store));
    header.map(|_| ()).map_err(|error| error.to_string())
}

/// Makes every checksum of a slot image right: headers, blocks and marks at every 4 KiB that begin
/// with a known magic. Lengths are clipped to the image.
pub fn reseal(store: &[u8; 16], slot: &mut [u8]) {
    let seed = Seed::of(store);
    for at in (0..slot.len()).step_by(BLOCK_BYTES) {
        let rest = &mut slot[at..];
        if !reseal_header(rest, seed) {
            reseal_block(rest, seed, at);
        }
    }
}

fn reseal_block(block: &mut [u8], seed: Seed, slot_at: usize) {
    if !block::has_magic(block) {
        return;
    }
    let room = block.len() - HEADER_LEN;
    let records = usize::from(LE::read_u16(&block[40..])).min(room / DESCRIPTOR_LEN);
    let payload_at = HEADER_LEN + records * DESCRIPTOR_LEN;
    let payload_len = (LE::read_u32(&block[36..]) as usize).min(block.len() - payload_at);
    let (front, payloads) = block.split_at_mut(payload_at);
    for descriptor in front[HEADER_LEN..].chunks_exact_mut(DESCRIPTOR_LEN) {
        reseal_descriptor(descriptor, &payloads[..payload_len], slot_at + payload_at);
    }
    block::reseal(block, seed, records, payload_len);
}
