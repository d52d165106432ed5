//! What recovery makes of a disk: the only witness for what a node may promise.

use duraft_core::{BatchHeader, Digest, GroupId, HardState, Index, LogId, Position, Term};
use duraft_disk::FaultDisk;
use duraft_storage::{Entropy, StoreIdentity, WalOptions};
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
}

impl RecoveredState {
    /// Runs recovery on a disk, which it changes.
    pub(crate) fn open(
        disk: FaultDisk,
        identity: &StoreIdentity,
        options: &WalOptions,
        group: GroupId,
    ) -> Result<RecoveredState, String> {
        let entropy = Entropy {
            seed: 0x0BAD_5EED,
            wallclock_ns: 0,
        };
        let (_wal, mut recovered) =
            duraft_storage::open(Arc::new(disk), identity, options.clone(), entropy)
                .map_err(|error| error.to_string())?;
        let found = recovered
            .groups
            .remove(&group)
            .ok_or_else(|| format!("group {group} is not in the store"))?;
        if let Some(damage) = found.damage {
            return Err(format!("damage reported: {damage}"));
        }
        Ok(RecoveredState::of(
            found.hard_state,
            found.start,
            &found.batches,
        ))
    }

    fn of(hard_state: HardState, start: Position, batches: &[BatchHeader]) -> RecoveredState {
        RecoveredState {
            hard_state,
            start,
            last: batches.last().map_or(start, BatchHeader::position),
            ends: batches
                .iter()
                .map(|header| (header.last(), (header.term, header.digest)))
                .collect(),
        }
    }

    /// Does the log hold exactly the content that `position` names? The digest chains over all
    /// batches before it, so one comparison compares the whole prefix.
    pub(crate) fn holds(&self, position: &Position) -> bool {
        *position == self.start
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
