//! What the two logs on their own have in common: a store that is made where there is none, whose only
//! member is nobody, and whose snapshots are somebody else's.

use crate::bootstrap::bootstrap;
use crate::errors::OpenError;
use crate::options::{Entropy, StoreIdentity, WalOptions};
use crate::recovery::{Recovered, RecoveredGroup, open};
use crate::wal::Wal;
use duraft_core::{GroupId, Membership, NodeId, Position, Snapshot, SnapshotFile, SnapshotWrite};
use duraft_disk::Disk;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::SystemTime;

/// The node of such a store, and the only member of its groups.
pub(crate) const NODE: NodeId = NodeId(0);

/// Opens the store on a disk; makes one with these groups where there is none.
pub(crate) fn open_or_make(
    disk: Arc<dyn Disk>,
    identity: &StoreIdentity,
    options: &WalOptions,
    groups: &[GroupId],
) -> Result<(Wal, Recovered), OpenError> {
    match open(Arc::clone(&disk), identity, options.clone(), ambient()) {
        Err(OpenError::NoStore) => {
            let groups: Vec<_> = groups.iter().map(|group| (*group, alone())).collect();
            bootstrap(&disk, identity, options, ambient(), &groups)?;
            open(disk, identity, options.clone(), ambient())
        }
        opened => opened,
    }
}

/// Where the stored log of a group ends.
pub(crate) fn end_of(group: &RecoveredGroup) -> Position {
    let last = group.batches.last();
    last.map_or(group.start, |header| header.position())
}

/// Says that everything up to here is not needed, or is held elsewhere: the snapshot that a compaction or
/// a reset must have names no file.
pub(crate) fn covering(position: Position, reset: bool) -> SnapshotWrite {
    SnapshotWrite {
        snapshot: Snapshot {
            position,
            membership: alone(),
            file: SnapshotFile::default(),
        },
        reset,
    }
}

fn alone() -> Membership {
    Membership::new([NODE], []).expect("one voter is a membership")
}

/// Randomness and time of the process: this is the edge of the library.
fn ambient() -> Entropy {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Entropy {
        seed: RandomState::new().build_hasher().finish(),
        wallclock_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
    }
}
