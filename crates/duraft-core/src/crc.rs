//! CRC-32/IEEE, bit by bit.
//!
//! The core makes one kind of body that has bytes: memberships. They are small and rare, so eight
//! steps a byte are of no account, and the core keeps its one dependency. Every other checksum is made
//! and verified outside (RULES.md 5).

/// The checksum of `bytes`, as in a batch header.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1 == 1;
            crc >>= 1;
            if carry {
                // The polynomial 0x04C11DB7 with its bits in reverse.
                crc ^= 0xEDB8_8320;
            }
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_the_one_every_other_crate_computes() {
        // Another polynomial or bit order would make every membership batch look damaged.
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(
            crc32(b"The quick brown fox jumps over the lazy dog"),
            0x414F_A339
        );
    }
}
