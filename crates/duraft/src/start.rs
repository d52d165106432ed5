//! From what recovery found to a core and a state machine: what a life begins with.
//!
//! The order: the latest snapshot is restored wherever the state machine holds less than it; a state
//! machine with its own disk is told nothing twice, but the table of sessions catches up with it from
//! the log. Then the core starts, and hands over from there.
//!
//! A snapshot whose file cannot be read is no end: an older one serves as long as the log still
//! reaches from there on, and so does the whole log. Only where neither is left, the state is lost:
//! damage, which peers repair with a snapshot of theirs where the policy allows it.

use crate::apply::{Applier, StateMachine};
use crate::node::StartError;
use crate::outcome::StopReason;
use duraft_core::{Boot, Damage, GroupId, Incarnation, Index, Membership, Position, Snapshot};
use duraft_storage::{
    OnDamage, RecoveredGroup, SnapshotError, SnapshotFileKind, SnapshotReader, SnapshotStore,
    WalReader,
};
use std::io::{self, Read};

/// Most bytes of batches read at once while the table of sessions catches up.
const READ_BYTES: u64 = 4 << 20;

/// Where a life begins.
pub struct Start {
    /// For the core.
    pub boot: Boot,
    /// The state machine, which holds all that the boot says it does.
    pub applier: Applier,
    /// Snapshots that could not be used, and why.
    pub unreadable: Vec<(Snapshot, SnapshotError)>,
}

/// What a life is made of.
pub struct Parts<'a> {
    /// The group.
    pub group: GroupId,
    /// The number of this life.
    pub incarnation: Incarnation,
    /// What recovery found of the group.
    pub found: RecoveredGroup,
    /// What to do where the state is lost.
    pub policy: OnDamage,
    /// Reads the log.
    pub reader: &'a WalReader,
    /// The snapshot files.
    pub snapshots: &'a SnapshotStore,
}

/// See the module documentation.
pub fn begin(parts: Parts<'_>, machine: Box<dyn StateMachine>) -> Result<Start, StartError> {
    let found = &parts.found;
    let keep: Vec<&Snapshot> = found.snapshot.iter().collect();
    let reconciled = parts.snapshots.reconcile(&keep)?;
    for name in reconciled.strange {
        tracing::warn!(name, "a file of unknown name lies among the snapshots");
    }
    let mut applier = Applier::new(machine, found.start, found.membership.clone());
    let applied = applier.machine_has();
    let mut unreadable = Vec::new();
    let mut damage = found.boot_damage();
    let snapshot = restore_first(&parts, &mut applier, &mut unreadable)?;
    if snapshot.is_none() && found.start != Position::START {
        // Nothing readable holds what came before the log.
        match parts.policy {
            OnDamage::Refuse | OnDamage::AcceptLoss { .. } => {
                return Err(StartError::StateLost {
                    before: found.start.index(),
                    unreadable,
                });
            }
            OnDamage::RepairFromPeers => {
                let damage = damage.get_or_insert_with(|| intact(found));
                damage.snapshot_lost = true;
            }
        }
    }
    let lost = damage.as_ref().is_some_and(|damage| damage.snapshot_lost);
    if lost {
        applier.lose_state();
    } else if let Some(has) = applied {
        catch_up(&parts, &mut applier, has)?;
    }
    let found = parts.found;
    let boot = Boot {
        incarnation: parts.incarnation,
        hard_state: found.hard_state,
        start: found.start,
        batches: found.batches,
        membership: found.membership,
        memberships: found.memberships,
        snapshot,
        applied: applied.filter(|_| !lost),
        damage,
    };
    Ok(Start {
        boot,
        applier,
        unreadable,
    })
}

/// A group that has lost nothing but its snapshot.
fn intact(found: &RecoveredGroup) -> Damage {
    let last = found.batches.last().map_or(found.start, |b| b.position());
    Damage {
        floor: last.id,
        last_membership: found.memberships.last().map_or(Index(0), |(at, _)| *at),
        ..Damage::default()
    }
}

/// Restores the latest snapshot that can be read and from which the log goes on.
fn restore_first(
    parts: &Parts<'_>,
    applier: &mut Applier,
    unreadable: &mut Vec<(Snapshot, SnapshotError)>,
) -> Result<Option<Snapshot>, StartError> {
    for snapshot in candidates(parts)? {
        // Read to its end before a byte goes to the state machine: what that has taken in of a file that
        // breaks off could not be taken out of it again.
        if let Err(error) = parts.snapshots.verify(&snapshot) {
            unreadable.push((snapshot, error));
            continue;
        }
        restore(parts.snapshots, applier, &snapshot).map_err(StartError::Restore)?;
        return Ok(Some(snapshot));
    }
    Ok(None)
}

/// The snapshots that the log can go on from, the latest first.
fn candidates(parts: &Parts<'_>) -> Result<Vec<Snapshot>, StartError> {
    let found = &parts.found;
    let Some(latest) = &found.snapshot else {
        return Ok(Vec::new());
    };
    let mut candidates = vec![latest.clone()];
    let names = parts.snapshots.list()?;
    for name in names.iter().rev() {
        let older = name.kind == SnapshotFileKind::Whole && name.index < latest.position.index();
        if !older || name.index < found.start.index() {
            continue;
        }
        // Whatever cannot even be inspected is not worth a word: the latest one was the one to have.
        if let Ok(info) = parts.snapshots.inspect(&name.to_string())
            && is_boundary(found, &info.snapshot.position)
        {
            candidates.push(info.snapshot);
        }
    }
    Ok(candidates)
}

fn is_boundary(found: &RecoveredGroup, position: &Position) -> bool {
    *position == found.start || found.batches.iter().any(|b| b.position() == *position)
}

/// Shows the applier the batches that the state machine has on its own disk.
fn catch_up(parts: &Parts<'_>, applier: &mut Applier, has: Index) -> Result<(), StartError> {
    let from = applier.position().index();
    let whole = |b: &&duraft_core::BatchHeader| b.first > from && b.last() <= has;
    for header in parts.found.batches.iter().filter(whole) {
        if !Applier::has_to_catch_up(header) {
            applier.pass(header);
            continue;
        }
        let read = parts
            .reader
            .read(parts.group, header.first, header.last(), READ_BYTES)?;
        for batch in &read {
            applier.catch_up(batch).map_err(StartError::Restore)?;
        }
    }
    Ok(())
}

/// The membership in use when this life begins: the last one in the log.
pub fn latest_membership(boot: &Boot) -> &Membership {
    boot.memberships.last().map_or(&boot.membership, |(_, m)| m)
}

/// Replaces the replicated state by a snapshot's.
pub fn restore(
    store: &SnapshotStore,
    applier: &mut Applier,
    snapshot: &Snapshot,
) -> Result<(), StopReason> {
    let unreadable = |error: SnapshotError| StopReason::RestoreFailed {
        index: snapshot.position.index(),
        message: error.to_string(),
    };
    let reader = store.read(snapshot).map_err(unreadable)?;
    let mut source = Watched {
        reader,
        failed: None,
    };
    let membership = snapshot.membership.clone();
    let restored = applier.restore(snapshot.position, membership, &mut source);
    // What nobody wanted is read all the same: with the last byte the whole file is proven.
    let rest = io::copy(&mut source, &mut io::sink());
    match (source.failed, restored, rest) {
        // Whatever the state machine made of it.
        (Some(error), _, _) => Err(unreadable(error)),
        (None, restored, _) => restored,
    }
}

/// Remembers why the file could not be read, which who reads it may have put in other words.
struct Watched {
    reader: SnapshotReader,
    failed: Option<SnapshotError>,
}

impl Read for Watched {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.reader.read(out).inspect_err(|error| {
            let source = error.get_ref();
            let cause = source.and_then(|source| source.downcast_ref::<SnapshotError>());
            self.failed = self.failed.take().or_else(|| cause.cloned());
        })
    }
}
