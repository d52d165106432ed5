//! Checksums: one polynomial (CRC-32/IEEE), two families.
//!
//! Unseeded: body and descriptor checksums, because the same bytes live on every node and travel on
//! the wire. Seeded with the store's identity: block, directory and header checksums, so that bytes
//! of another store left in a reused file are not taken for ours.
//!
//! A CRC over data followed by its own CRC of the same polynomial is a constant and checks nothing.
//! So a checksum over a region leaves out the checksums of the parts of that region.

use bytes::Bytes;
use crc32fast::Hasher;
use duraft_core::{Batch, BatchHeader, BatchKind, Body, BodyError, Commands};

/// CRC-32/IEEE of `bytes`: the body checksum of a batch.
#[must_use]
pub fn body_checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// A checksum family of one store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seed(u32);

impl Seed {
    /// The family of the store with this identity.
    pub(crate) fn of(store: &[u8; 16]) -> Seed {
        Seed(crc32fast::hash(store))
    }

    /// The family of every store: for tests of the tests.
    pub(crate) fn of_any() -> Seed {
        Seed(0)
    }

    /// Checksum of one region.
    pub(crate) fn sum(self, bytes: &[u8]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize()
    }

    /// Checksum of the first `len` bytes of each piece of `size` bytes: a directory without the
    /// checksums of its descriptors.
    pub(crate) fn sum_pieces(self, bytes: &[u8], size: usize, len: usize) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.0);
        for piece in bytes.chunks_exact(size) {
            hasher.update(&piece[..len]);
        }
        hasher.finalize()
    }
}

/// Encodes commands as the body of a batch, with its checksum: end offsets, then the commands back to
/// back. The bytes are copied once.
pub fn commands_body<'a>(
    commands: impl Iterator<Item = &'a [u8]>,
    codec: u16,
) -> Result<Body, BodyError> {
    let commands: Vec<&[u8]> = commands.collect();
    let count = u32::try_from(commands.len()).map_err(|_| BodyError::Count { count: u32::MAX })?;
    duraft_core::check_count(BatchKind::Commands, count)?;
    let data: u64 = commands.iter().map(|command| command.len() as u64).sum();
    let len = 4 * u64::from(count) + data;
    let too_long = BodyError::TooLong {
        len,
        max: u64::from(u32::MAX),
    };
    if len > u64::from(u32::MAX) {
        return Err(too_long);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).map_err(|_| too_long)?);
    let mut end = 0u32;
    for command in &commands {
        // Cannot overflow: the sum of all lengths fits 32 bits.
        end += u32::try_from(command.len()).map_err(|_| too_long)?;
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    for command in &commands {
        bytes.extend_from_slice(command);
    }
    Ok(Body {
        kind: BatchKind::Commands,
        codec,
        count,
        checksum: body_checksum(&bytes),
        bytes: Bytes::from(bytes),
    })
}

/// Why a batch cannot be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchDamage {
    /// The body has another length than the header says.
    #[error("a body of {found} bytes under a header that says {expected}")]
    Length {
        /// Length in the header.
        expected: u32,
        /// Length of the body.
        found: u64,
    },
    /// The body does not match its checksum.
    #[error("a body with checksum {found:#010x} under a header that says {expected:#010x}")]
    Checksum {
        /// Checksum in the header.
        expected: u32,
        /// Checksum of the body.
        found: u32,
    },
    /// The count or the offset table cannot be right.
    #[error("{0}")]
    Body(BodyError),
}

/// Checks that these bytes are the body of this header: length and checksum.
pub(crate) fn check_body(header: &BatchHeader, body: &[u8]) -> Result<(), BatchDamage> {
    if body.len() as u64 != u64::from(header.body_len) {
        return Err(BatchDamage::Length {
            expected: header.body_len,
            found: body.len() as u64,
        });
    }
    let found = body_checksum(body);
    if found != header.body_checksum {
        return Err(BatchDamage::Checksum {
            expected: header.body_checksum,
            found,
        });
    }
    Ok(())
}

/// Checks a batch's body against its header: length, checksum, count and offset table.
pub fn verify(batch: &Batch) -> Result<(), BatchDamage> {
    let header = &batch.header;
    check_body(header, &batch.body)?;
    match header.kind {
        BatchKind::Commands => Commands::parse(batch.body.clone(), header.count)
            .map(|_| ())
            .map_err(BatchDamage::Body),
        BatchKind::Membership | BatchKind::Noop => {
            duraft_core::check_count(header.kind, header.count).map_err(BatchDamage::Body)
        }
    }
}
