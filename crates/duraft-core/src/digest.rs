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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Position};

    fn link(first: u64) -> Link {
        Link {
            group: GroupId(1),
            first: Index(first),
            term: Term(2),
            kind: 1,
            count: 3,
            body_len: 40,
            body_checksum: 0xDEAD_BEEF,
        }
    }

    #[test]
    fn golden_vectors() {
        // The digest is on every disk and every wire: a change of one bit is another format.
        assert_eq!(mix64(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix64(1), 0x910A_2DEC_8902_5CC1);
        assert_eq!(Digest::EMPTY.0, u64::from_be_bytes(*b"duraft01"));
        assert_eq!(Digest::EMPTY.extend(link(1)), Digest(0xCC80_97B8_F0B0_3005));
        assert_eq!(
            Digest::EMPTY.extend(link(1)).extend(link(4)),
            Digest(0x161F_3E42_1696_C41C)
        );
        let noop = Body::noop().seal(GroupId(0), &Position::START, Term(1));
        assert_eq!(
            noop.map(|batch| batch.header.digest),
            Ok(Digest(0x97EB_333A_22CC_72E8))
        );
    }

    #[test]
    fn every_field_counts() {
        // A field outside of the digest could differ between two logs that are called equal.
        let base = link(1);
        let variants = [
            Link {
                group: GroupId(2),
                ..base
            },
            Link {
                first: Index(2),
                ..base
            },
            Link {
                term: Term(3),
                ..base
            },
            Link { kind: 2, ..base },
            Link { count: 4, ..base },
            Link {
                body_len: 41,
                ..base
            },
            Link {
                body_checksum: 0,
                ..base
            },
        ];
        for variant in variants {
            assert_ne!(
                Digest::EMPTY.extend(variant),
                Digest::EMPTY.extend(base),
                "{variant:?}"
            );
        }
    }

    #[test]
    fn two_batches_in_exchanged_places_are_caught() {
        // Both descriptors are valid by themselves; only the chain knows their order.
        let (a, b) = (
            Link {
                body_checksum: 1,
                ..link(1)
            },
            Link {
                body_checksum: 2,
                ..link(1)
            },
        );
        let order = |x: Link, y: Link| {
            Digest::EMPTY.extend(x).extend(Link {
                first: Index(4),
                ..y
            })
        };
        assert_ne!(order(a, b), order(b, a));
        // Nor does the exchange of two words within one descriptor go unseen.
        let swapped = Link {
            count: 40,
            body_len: 3,
            ..link(1)
        };
        assert_ne!(Digest::EMPTY.extend(swapped), Digest::EMPTY.extend(link(1)));
    }
}
