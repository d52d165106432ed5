//! What a snapshot is to the core: a boundary of the log, the membership there, and the name of a
//! file. What the file holds is the state machine's business.

use crate::membership::Membership;
use crate::types::Position;

/// A snapshot whose file is complete, verified and durable on the node that names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Snapshot {
    /// It covers the log up to here, a batch end.
    pub position: Position,
    /// The membership in force at `position`.
    pub membership: Membership,
    /// Its file.
    pub file: SnapshotFile,
}

/// Identity of a snapshot file: a copy on another node has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SnapshotFile {
    /// Drawn when the file was made, so that two snapshots at one index are told apart.
    pub nonce: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Digest of the file's content, as its footer holds it.
    pub digest: u64,
}
