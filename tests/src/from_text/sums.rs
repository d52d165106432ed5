//! CRC-32/IEEE and mix64, as the text states them.

/// CRC-32/IEEE of these pieces, one after the other.
#[must_use]
pub fn crc32(pieces: &[&[u8]]) -> u32 {
    let mut state = u32::MAX;
    for byte in pieces.iter().copied().flatten() {
        let at = (state ^ u32::from(*byte)) & 0xff;
        state = (state >> 8) ^ TABLE[at as usize];
    }
    !state
}

/// What eight zero bits make of each byte.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut state = byte;
        let mut bit = 0;
        while bit < 8 {
            state = if state & 1 == 1 {
                (state >> 1) ^ 0xEDB8_8320
            } else {
                state >> 1
            };
            bit += 1;
        }
        table[byte as usize] = state;
        byte += 1;
    }
    table
}

/// The chain digest's function of a word.
#[must_use]
pub fn mix64(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
