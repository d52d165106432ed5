//! What recovery makes of a disk: the only witness for what a node may promise.

use crate::config::SimConfig;
use crate::host::Host;
use duraft_core::{BatchHeader, Digest, HardState, Index, LogId, Position, Snapshot, Term};
use duraft_disk::FaultDisk;
use duraft_storage::{Entropy, RecoveredGroup, SnapshotFileKind, SnapshotName, SnapshotStore};
use std::collections::BTreeMap;
use std::sync::Arc;

/// State of one node as recovery returns it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecoveredState {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    pub(crate) last: Position,
    /// Batch ends after `start`.
    ends: BTreeMap<Index, (Term, Digest)>,
    /// Something of what was there is lost.
    pub(crate) damaged: bool,
}

impl RecoveredState {
    /// Runs recovery on a copy of a node's disk, which it changes. Damage is an error where the disk
    /// never was damaged.
    pub(crate) fn open(
        disk: FaultDisk,
        host: &mut Host,
        config: &SimConfig,
    ) -> Result<RecoveredState, String> {
        let identity = &host.identity;
        let entropy = Entropy {
            seed: 0x0BAD_5EED,
            wallclock_ns: 0,
        };
        let disk = Arc::new(disk);
        let group = config.core.group;
        let (_wal, mut recovered) =
            duraft_storage::open(disk.clone(), identity, config.wal.clone(), entropy)
                .map_err(|error| error.to_string())?;
        let found = recovered
            .groups
            .remove(&group)
            .ok_or_else(|| format!("group {group} is not in the store"))?;
        if let Some(damage) = &found.damage
            && !host.scarred
        {
            return Err(format!("damage reported: {damage}"));
        }
        let store = SnapshotStore::open_with(disk, identity.cluster, group, config.snapshot)
            .map_err(|error| error.to_string())?;
        let covered = check_covered(&found, &store, &mut host.verified);
        let lost = match covered {
            Ok(()) => false,
            Err(_) if host.scarred => !has_older(&found, &store),
            Err(error) => return Err(error),
        };
        let damaged = lost || found.damage.is_some() || host.forged;
        Ok(RecoveredState::of(&found, damaged))
    }

    fn of(found: &RecoveredGroup, damaged: bool) -> RecoveredState {
        let ends = found.batches.iter();
        RecoveredState {
            hard_state: found.hard_state,
            start: found.start,
            last: found
                .batches
                .last()
                .map_or(found.start, BatchHeader::position),
            ends: ends
                .map(|header| (header.last(), (header.term, header.digest)))
                .collect(),
            damaged,
        }
    }

    /// Does the log hold exactly the content that `position` names? The digest chains over all
    /// batches before it, so one comparison compares the whole prefix. What was committed and lies
    /// before the start is in the snapshot.
    pub(crate) fn holds(&self, position: &Position) -> bool {
        position.index() <= self.start.index()
            || self.ends.get(&position.index()) == Some(&(position.term(), position.digest))
    }

    /// The digest of the log at a batch end.
    pub(crate) fn digest_at(&self, at: Index) -> Option<Digest> {
        if at == self.start.index() {
            return Some(self.start.digest);
        }
        self.ends.get(&at).map(|(_, digest)| *digest)
    }

    pub(crate) fn last_id(&self) -> LogId {
        self.last.id
    }
}

/// B8: whatever is not in the log any more is in a snapshot that stands whole on the disk.
fn check_covered(
    found: &RecoveredGroup,
    store: &SnapshotStore,
    verified: &mut Option<Snapshot>,
) -> Result<(), String> {
    let Some(snapshot) = &found.snapshot else {
        let whole = found.start == Position::START;
        return if whole {
            Ok(())
        } else {
            Err(format!(
                "B8: the log begins at {} and no snapshot is named",
                found.start
            ))
        };
    };
    if snapshot.position.index() < found.start.index() {
        return Err(format!(
            "B8: the log begins at {}, the snapshot ends at {}",
            found.start, snapshot.position
        ));
    }
    let names = store.list().map_err(|error| error.to_string())?;
    if !names.contains(&SnapshotName::of(snapshot)) {
        return Err(format!(
            "B8: the snapshot at {} has no file",
            snapshot.position
        ));
    }
    if verified.as_ref() != Some(snapshot) {
        let at = snapshot.position;
        store
            .verify(snapshot)
            .map_err(|error| format!("B8: the snapshot at {at} cannot be read: {error}"))?;
        *verified = Some(snapshot.clone());
    }
    Ok(())
}

/// Does an older snapshot than the recorded one, or the log alone, still hold the state?
fn has_older(found: &RecoveredGroup, store: &SnapshotStore) -> bool {
    let recorded = found.snapshot.as_ref().map(|s| s.position.index());
    let reaches = |name: &&SnapshotName| {
        name.kind == SnapshotFileKind::Whole
            && name.index >= found.start.index()
            && recorded.is_some_and(|recorded| name.index < recorded)
    };
    let readable = |name: &SnapshotName| {
        let info = store.inspect(&name.to_string());
        info.is_ok_and(|info| store.verify(&info.snapshot).is_ok())
    };
    let names = store.list().unwrap_or_default();
    found.start == Position::START || names.iter().filter(reaches).any(readable)
}
