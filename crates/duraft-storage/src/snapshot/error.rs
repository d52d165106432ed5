//! What can go wrong with a snapshot file, by what the caller can do about it.

use crate::errors::is_full;
use crate::format::FormatError;
use duraft_disk::DiskError;
use std::fmt;
use std::io;
use std::sync::Arc;

/// A part of a snapshot file, each with a checksum of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SnapshotPart {
    /// The first 4 KiB.
    Header,
    /// The chunk of this number, from 0.
    Chunk(u32),
    /// The last 40 bytes.
    Footer,
}

impl fmt::Display for SnapshotPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotPart::Header => write!(f, "the header"),
            SnapshotPart::Chunk(number) => write!(f, "chunk {number}"),
            SnapshotPart::Footer => write!(f, "the footer"),
        }
    }
}

/// Why a snapshot cannot be written, read or received.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such file.
    #[error("snapshot {name} is missing")]
    Missing {
        /// The file.
        name: String,
    },
    /// The file has another length than it should.
    #[error("snapshot {name} has {found} bytes, not {expected}")]
    Torn {
        /// The file.
        name: String,
        /// The length it should have.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// A part of the file fails its checks: what it holds is not what was written.
    #[error("snapshot {name}: {part} is corrupt: {problem}")]
    Corrupt {
        /// The file.
        name: String,
        /// The part.
        part: SnapshotPart,
        /// What is wrong.
        problem: FormatError,
    },
    /// The file is whole and is another one than was asked for.
    #[error("snapshot {name} is another one: its {field} differs")]
    Foreign {
        /// The file.
        name: String,
        /// What differs.
        field: &'static str,
    },
    /// A newer version wrote this.
    #[error("snapshot {name}: {problem}")]
    Newer {
        /// The file.
        name: String,
        /// What is newer.
        problem: FormatError,
    },
    /// There is a file of this name already.
    #[error("snapshot {name} exists already")]
    Exists {
        /// The file.
        name: String,
    },
    /// The name is not one that this store gives.
    #[error("'{name}' is no name of a snapshot")]
    Name {
        /// The name.
        name: String,
    },
    /// A part that was received fails its checks. Nothing of it was kept: ask for it again.
    #[error("{part} as received is corrupt: {problem}; it begins at byte {resume_at}")]
    Received {
        /// The part.
        part: SnapshotPart,
        /// What is wrong.
        problem: FormatError,
        /// Where the part begins: the next byte wanted.
        resume_at: u64,
    },
    /// Bytes for another place than the next one. Nothing of them was kept.
    #[error("received bytes at {found} where {expected} comes next")]
    Offset {
        /// The next byte wanted.
        expected: u64,
        /// Where the bytes belong.
        found: u64,
    },
    /// The receiver was finished before the last byte had come.
    #[error("received {received} of {bytes} bytes")]
    Unfinished {
        /// Bytes received.
        received: u64,
        /// Bytes of the whole file.
        bytes: u64,
    },
    /// The snapshot is larger than the format can hold.
    #[error("a snapshot can hold no more than 2^32 chunks")]
    TooLarge,
    /// The disk has no room. What was being written is removed.
    #[error("no room for a snapshot: {0}")]
    NoSpace(#[source] Arc<DiskError>),
    /// The disk refused an operation.
    #[error(transparent)]
    Disk(Arc<DiskError>),
}

impl SnapshotError {
    /// Does the file, rather than the disk or the caller, have the fault: is the snapshot lost?
    pub fn is_damage(&self) -> bool {
        match self {
            SnapshotError::Missing { .. }
            | SnapshotError::Torn { .. }
            | SnapshotError::Corrupt { .. } => true,
            SnapshotError::Foreign { .. }
            | SnapshotError::Newer { .. }
            | SnapshotError::Exists { .. }
            | SnapshotError::Name { .. }
            | SnapshotError::Received { .. }
            | SnapshotError::Offset { .. }
            | SnapshotError::Unfinished { .. }
            | SnapshotError::TooLarge
            | SnapshotError::NoSpace(_)
            | SnapshotError::Disk(_) => false,
        }
    }

    /// The nearest kind of I/O error.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            SnapshotError::Missing { .. } => io::ErrorKind::NotFound,
            SnapshotError::Torn { .. }
            | SnapshotError::Corrupt { .. }
            | SnapshotError::Foreign { .. }
            | SnapshotError::Received { .. } => io::ErrorKind::InvalidData,
            SnapshotError::Newer { .. } => io::ErrorKind::Unsupported,
            SnapshotError::Exists { .. } => io::ErrorKind::AlreadyExists,
            SnapshotError::Name { .. }
            | SnapshotError::Offset { .. }
            | SnapshotError::Unfinished { .. } => io::ErrorKind::InvalidInput,
            SnapshotError::TooLarge => io::ErrorKind::FileTooLarge,
            SnapshotError::NoSpace(error) | SnapshotError::Disk(error) => error.kind(),
        }
    }

    /// An error of an operation on an open file or on a folder.
    pub(super) fn disk(error: DiskError) -> SnapshotError {
        if is_full(&error) {
            SnapshotError::NoSpace(Arc::new(error))
        } else {
            SnapshotError::Disk(Arc::new(error))
        }
    }

    /// An error of opening this file.
    pub(super) fn opening(name: &str, error: DiskError) -> SnapshotError {
        if error.kind() == io::ErrorKind::NotFound {
            SnapshotError::Missing { name: name.into() }
        } else {
            SnapshotError::disk(error)
        }
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}
