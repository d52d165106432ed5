//! The chain digest: a 64-bit name for the whole content of a log up to a batch boundary.
//!
//! Raft compares (term, index) and assumes that the pair names one payload. The digest checks the
//! assumption: it chains over every batch, so one comparison of two digests compares two prefixes.
//! It is not a CRC on purpose. A CRC chained over data followed by its own CRC is a constant and
//! would check nothing. It contains no checksum of the descriptor and no disk position, so the same
//! batch has the same digest on every node.

use crate::types::{GroupId, Index, Term};

/// A chain digest. See the module documentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Digest(pub u64);

/// What one batch adds to the chain.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Group of the batch.
    pub group: GroupId,
    /// Index of its first command.
    pub first: Index,
    /// Term of its leader.
    pub term: Term,
    /// Kind as stored on disk.
    pub kind: u8,
    /// Number of commands.
    pub count: u32,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// CRC-32/IEEE of the body.
    pub body_checksum: u32,
}

impl Digest {
    /// Digest of the empty log.
    pub const EMPTY: Digest = Digest(0x6475_7261_6674_3031);

    /// The digest after one more batch. Each word is mixed in before the next is added, so equal
    /// words in exchanged places give different results.
    #[must_use]
    pub fn extend(self, link: Link) -> Digest {
        let words = [
            link.group.0,
            link.first.0,
            link.term.0,
            u64::from(link.kind) << 32 | u64::from(link.count),
            u64::from(link.body_len) << 32 | u64::from(link.body_checksum),
        ];
        Digest(
            words
                .into_iter()
                .fold(self.0, |state, word| mix64(state ^ word)),
        )
    }
}

/// The finaliser of SplitMix64 after one Weyl step: a bijection of 64-bit words in which every input
/// bit flips each output bit with probability near one half (Steele, Lea, Flood 2014).
#[must_use]
pub fn mix64(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
