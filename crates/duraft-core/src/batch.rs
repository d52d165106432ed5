//! Batches: the unit that is replicated, stored, truncated and applied, always as a whole.
//!
//! A batch is a header and a body. The core reads headers only and passes bodies on unread. The
//! body of a commands batch is `count` end offsets (u32, little-endian, relative to the first
//! command) followed by the commands back to back, so a command inside a batch is found in O(1).

use crate::digest::{Digest, Link};
use crate::types::{GroupId, Index, LogId, Position, Term};
use bytes::Bytes;
use core::fmt;

/// What a batch carries. The number is the one on disk and on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BatchKind {
    /// User commands.
    Commands = 1,
    /// A membership of the cluster; always one entry.
    Membership = 2,
    /// The empty entry with which a new leader commits its term; always one entry.
    Noop = 3,
}

impl BatchKind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<BatchKind> {
        match number {
            1 => Some(BatchKind::Commands),
            2 => Some(BatchKind::Membership),
            3 => Some(BatchKind::Noop),
            _ => None,
        }
    }

    /// The number on disk and on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// Everything about a batch but its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchHeader {
    /// What the batch carries.
    pub kind: BatchKind,
    /// Encoding of the commands, chosen by the user; stored, never read.
    pub codec: u16,
    /// Number of entries, at least 1.
    pub count: u32,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// CRC-32/IEEE of the body, made once by the proposer, verified by everyone else.
    pub body_checksum: u32,
    /// Group of the batch.
    pub group: GroupId,
    /// Index of the first entry.
    pub first: Index,
    /// Term of the leader that created the batch.
    pub term: Term,
    /// Chain digest up to and including this batch.
    pub digest: Digest,
}

impl BatchHeader {
    /// Index of the last entry. `first + count - 1` was checked when the batch was sealed or decoded.
    pub fn last(&self) -> Index {
        Index(self.first.0 + u64::from(self.count) - 1)
    }

    /// Identity of the last entry.
    pub fn last_id(&self) -> LogId {
        LogId {
            term: self.term,
            index: self.last(),
        }
    }

    /// The boundary after this batch.
    pub fn position(&self) -> Position {
        Position {
            id: self.last_id(),
            digest: self.digest,
        }
    }

    /// Bytes this batch costs in a message or a queue: descriptor and body.
    pub fn cost(&self) -> u64 {
        DESCRIPTOR_BYTES + u64::from(self.body_len)
    }

    /// What this batch adds to the digest chain.
    pub fn link(&self) -> Link {
        Link {
            group: self.group,
            first: self.first,
            term: self.term,
            kind: self.kind.number(),
            count: self.count,
            body_len: self.body_len,
            body_checksum: self.body_checksum,
        }
    }

    /// Does this batch continue a log that ends at `previous`, by index, term and content?
    pub fn follows(&self, previous: &Position) -> bool {
        self.first == previous.index().next()
            && self.term >= previous.term()
            && self.digest == previous.digest.extend(self.link())
    }
}

/// A header and its body. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The header.
    pub header: BatchHeader,
    /// The encoded commands, unread by the core.
    pub body: Bytes,
}

impl Batch {
    /// Bytes this batch costs in a message or a queue: descriptor and body.
    pub fn cost(&self) -> u64 {
        self.header.cost()
    }
}

/// Size of an encoded batch header on disk and on the wire.
pub const DESCRIPTOR_BYTES: u64 = 64;

/// A body that has no place in the log yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// What it carries.
    pub kind: BatchKind,
    /// Encoding of the commands, chosen by the user.
    pub codec: u16,
    /// Number of entries.
    pub count: u32,
    /// CRC-32/IEEE of `bytes`.
    pub checksum: u32,
    /// The encoded commands.
    pub bytes: Bytes,
}

/// Why a body cannot become a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// A batch holds at least one entry, and a membership or no-op batch exactly one.
    Count {
        /// The count that was found.
        count: u32,
    },
    /// The offset table does not fit the body or does not describe it.
    Offsets,
    /// The body is longer than the limit.
    TooLong {
        /// Length found.
        len: u64,
        /// Largest length allowed.
        max: u64,
    },
    /// The log has no index left for this batch.
    IndexExhausted,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::Count { count } => {
                write!(f, "a batch of this kind cannot hold {count} entries")
            }
            BodyError::Offsets => write!(f, "the offset table does not describe the batch body"),
            BodyError::TooLong { len, max } => {
                write!(
                    f,
                    "a batch body of {len} bytes is over the limit of {max} bytes"
                )
            }
            BodyError::IndexExhausted => write!(f, "the log has no index left for this batch"),
        }
    }
}

impl core::error::Error for BodyError {}

impl Body {
    /// Gives the body its place in the log: after `previous`, in `term`.
    pub fn seal(self, group: GroupId, previous: &Position, term: Term) -> Result<Batch, BodyError> {
        check_count(self.kind, self.count)?;
        let body_len = u32::try_from(self.bytes.len()).map_err(|_| BodyError::TooLong {
            len: self.bytes.len() as u64,
            max: u64::from(u32::MAX),
        })?;
        // The last index must have a successor, so that `Index::next` never saturates on a real log.
        previous
            .index()
            .0
            .checked_add(u64::from(self.count) + 1)
            .ok_or(BodyError::IndexExhausted)?;
        let mut header = BatchHeader {
            kind: self.kind,
            codec: self.codec,
            count: self.count,
            body_len,
            body_checksum: self.checksum,
            group,
            first: previous.index().next(),
            term,
            digest: previous.digest,
        };
        header.digest = previous.digest.extend(header.link());
        Ok(Batch {
            header,
            body: self.bytes,
        })
    }

    /// The body of a no-op batch: one entry, no bytes. The checksum of no bytes is 0.
    pub fn noop() -> Body {
        Body {
            kind: BatchKind::Noop,
            codec: 0,
            count: 1,
            checksum: 0,
            bytes: Bytes::new(),
        }
    }
}

/// The number of entries a batch of `kind` may hold.
pub fn check_count(kind: BatchKind, count: u32) -> Result<(), BodyError> {
    let allowed = match kind {
        BatchKind::Commands => count >= 1,
        BatchKind::Membership | BatchKind::Noop => count == 1,
    };
    if allowed {
        Ok(())
    } else {
        Err(BodyError::Count { count })
    }
}

/// The commands of a commands body, checked once as a whole.
#[derive(Clone, Debug)]
pub struct Commands {
    body: Bytes,
    count: usize,
}

impl Commands {
    /// Checks the offset table of a commands body: `4 * count` bytes of ends that never decrease and
    /// whose last one is the end of the body.
    pub fn parse(body: Bytes, count: u32) -> Result<Commands, BodyError> {
        check_count(BatchKind::Commands, count)?;
        let count = usize::try_from(count).map_err(|_| BodyError::Offsets)?;
        let table = count.checked_mul(4).ok_or(BodyError::Offsets)?;
        let data = body.len().checked_sub(table).ok_or(BodyError::Offsets)?;
        let commands = Commands { body, count };
        let mut previous = 0;
        for i in 0..count {
            let end = commands.end(i);
            if end < previous || end > data {
                return Err(BodyError::Offsets);
            }
            previous = end;
        }
        if previous != data {
            return Err(BodyError::Offsets);
        }
        Ok(commands)
    }

    /// Number of commands, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Command `i`, counted from 0; `None` past the end.
    pub fn get(&self, i: usize) -> Option<Bytes> {
        if i >= self.count {
            return None;
        }
        let start = if i == 0 { 0 } else { self.end(i - 1) };
        let base = self.count * 4;
        Some(self.body.slice(base + start..base + self.end(i)))
    }

    /// The commands in order.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        (0..self.count).filter_map(|i| self.get(i))
    }

    fn end(&self, i: usize) -> usize {
        let at = i * 4;
        let bytes = [
            self.body[at],
            self.body[at + 1],
            self.body[at + 2],
            self.body[at + 3],
        ];
        u32::from_le_bytes(bytes) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn encode(ends: &[u32], data: usize) -> Bytes {
        let mut bytes: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        bytes.extend((0..data).map(|i| u8::try_from(i % 251).expect("below 251")));
        Bytes::from(bytes)
    }

    #[test]
    fn commands_are_found_by_their_number() {
        let commands = Commands::parse(encode(&[2, 2, 5], 5), 3).expect("a valid body");
        let all: Vec<Bytes> = commands.iter().collect();
        assert_eq!(all, [&[0, 1][..], &[], &[2, 3, 4]]);
        assert_eq!((commands.len(), commands.get(3)), (3, None));
    }

    #[test]
    fn offset_tables_that_do_not_describe_their_body_are_refused() {
        // These bytes come from disks and peers: a wrong table must not read outside of the body.
        let refused: &[(&[u32], usize, u32)] = &[
            (&[], 0, 0),
            (&[], 0, 1),
            (&[1], 0, 1),
            (&[1], 2, 1),
            (&[2, 1], 2, 2),
            (&[1, 3], 2, 2),
            (&[1, 1], 2, 2),
            (&[u32::MAX], 1, 1),
            (&[0, 0], 0, u32::MAX),
            (&[0], 0, u32::MAX / 4 + 1),
        ];
        for (ends, data, count) in refused {
            let parsed = Commands::parse(encode(ends, *data), *count);
            assert!(parsed.is_err(), "{ends:?} over {data} bytes");
        }
        assert!(Commands::parse(Bytes::from_static(&[1, 0, 0]), 1).is_err());
        assert!(Commands::parse(encode(&[0, 0], 0), 2).is_ok());
    }

    #[test]
    fn a_body_without_a_place_is_refused() {
        let at = |index| Position {
            id: LogId {
                term: Term(1),
                index: Index(index),
            },
            digest: Digest::EMPTY,
        };
        let seal = |body: Body, index| body.seal(GroupId(1), &at(index), Term(1));
        assert_eq!(
            seal(Body::noop(), u64::MAX - 1).map(|batch| batch.header),
            Err(BodyError::IndexExhausted)
        );
        assert!(seal(Body::noop(), u64::MAX - 2).is_ok());
        let two = Body {
            count: 2,
            ..Body::noop()
        };
        assert_eq!(
            seal(two, 1).map(|batch| batch.header),
            Err(BodyError::Count { count: 2 })
        );
    }

    #[test]
    fn a_sealed_batch_follows_its_boundary_and_no_other() {
        let one = Body::noop()
            .seal(GroupId(1), &Position::START, Term(1))
            .expect("room");
        let two = Body::noop()
            .seal(GroupId(1), &one.header.position(), Term(2))
            .expect("room");
        assert!(one.header.follows(&Position::START));
        assert!(two.header.follows(&one.header.position()));
        assert!(!two.header.follows(&Position::START));
        let other = Position {
            digest: Digest(1),
            ..one.header.position()
        };
        assert!(!two.header.follows(&other));
        let back = BatchHeader {
            term: Term(0),
            ..two.header
        };
        assert!(!back.follows(&one.header.position()));
    }
}
