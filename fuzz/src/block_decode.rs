//! Any bytes as a commit block or as block 0 of a slot: an error or a value, never a panic.
//!
//! With an even first byte all checksums are made right first, so that what lies behind them is
//! reached too.

use duraft_storage::fuzzing;

const STORE: [u8; 16] = *b"a store to fuzz!";

/// Takes one input.
pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if choice % 4 < 2 {
        // Blocks are whole multiples of 4 KiB.
        bytes.resize(bytes.len().next_multiple_of(4096).max(4096), 0);
    }
    if choice % 2 == 0 {
        fuzzing::reseal(&STORE, &mut bytes);
    }
    if let Ok(records) = fuzzing::decode_block(&STORE, &bytes) {
        assert!(
            64 + 64 * records <= bytes.len(),
            "every record has a descriptor in the block"
        );
    }
    let _ = fuzzing::decode_slot_header(&STORE, u32::from(*choice), &bytes);
    let _ = fuzzing::store_id(&bytes);
}
