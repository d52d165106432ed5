//! The stores of all nodes, read from their files after all processes are gone: every acknowledged
//! write must be in the committed prefix of a quorum, that is in the log or in the snapshot before it.

use super::TortureArgs;
use super::child::{CLUSTER, folder, max_batch_bytes, node_id};
use super::machine::{Registers, decode};
use super::words::OpId;
use crate::bench::BenchError;
use crate::offline::{entropy, rehearsal};
use crate::snapshot::skip_sessions;
use duraft_core::{Batch, BatchKind, Commands, GroupId, Index, Position, Snapshot};
use duraft_disk::{Disk, RealDisk};
use duraft_storage::{SnapshotStore, StoreIdentity, WalOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// What the files say.
#[derive(Default)]
pub(super) struct Found {
    /// Acknowledged writes that fewer than a quorum of logs hold up to the commit index.
    pub(super) missing: Vec<OpId>,
    /// Attempts that stand in a log more than once.
    pub(super) repeated: u64,
    /// The logs contradict each other at or before the commit index.
    pub(super) diverged: bool,
    /// Nodes whose log reaches the commit index.
    pub(super) complete: u64,
}

struct Log {
    ids: BTreeSet<OpId>,
    repeated: u64,
    end: Option<Position>,
}

const READ_BYTES: u64 = 4 << 20;

/// Reads the logs of all nodes up to `commit`.
pub(super) fn check(
    dir: &Path,
    args: &TortureArgs,
    commit: Index,
    acknowledged: &BTreeSet<OpId>,
) -> Result<Found, BenchError> {
    let mut found = Found::default();
    let mut holders: BTreeMap<OpId, usize> = acknowledged.iter().map(|id| (*id, 0)).collect();
    let mut ends = Vec::new();
    let nodes = usize::from(args.nodes);
    for place in 0..nodes {
        let log = read(dir, place, args.snapshots, commit)?;
        found.repeated += log.repeated;
        for id in &log.ids {
            if let Some(count) = holders.get_mut(id) {
                *count += 1;
            }
        }
        ends.extend(log.end);
    }
    found.complete = ends.len() as u64;
    found.diverged = ends.windows(2).any(|pair| pair[0] != pair[1]);
    let quorum = nodes / 2 + 1;
    let few = holders.into_iter().filter(|(_, count)| *count < quorum);
    found.missing = few.map(|(id, _)| id).collect();
    Ok(found)
}

fn read(dir: &Path, place: usize, snapshots: bool, commit: Index) -> Result<Log, BenchError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(folder(dir, place))?);
    let identity = StoreIdentity {
        cluster: CLUSTER,
        node: node_id(place),
        max_batch_bytes: max_batch_bytes(snapshots),
    };
    // Nothing is changed: a damaged log is refused, and says so.
    let (wal, recovered) = duraft_storage::open(
        rehearsal(&disk),
        &identity,
        WalOptions::default(),
        entropy(),
    )
    .map_err(|error| BenchError::Storage(format!("node {}: {error}", place + 1)))?;
    let group = GroupId(1);
    let found = recovered.groups.get(&group);
    let mut log = Log {
        ids: BTreeSet::new(),
        repeated: 0,
        end: None,
    };
    let (reader, mut next) = (wal.reader(), Index(1));
    if let Some(snapshot) = found.and_then(|found| found.snapshot.as_ref()) {
        log.begin(disk, group, snapshot)?;
        next = snapshot.position.index().next();
        log.end = Some(snapshot.position).filter(|at| at.index() == commit);
    }
    let last = found.and_then(|found| found.batches.last());
    let last = last.map_or(Index(0), |header| header.last()).min(commit);
    while next <= last {
        let read = reader.read(group, next, last, READ_BYTES);
        for batch in read.map_err(|error| BenchError::Storage(error.to_string()))? {
            next = batch.header.last().next();
            log.take(&batch)?;
            if batch.header.last() == commit {
                log.end = Some(batch.header.position());
            }
        }
    }
    Ok(log)
}

impl Log {
    /// What the snapshot says was applied before the log goes on.
    fn begin(
        &mut self,
        disk: Arc<dyn Disk>,
        group: GroupId,
        snapshot: &Snapshot,
    ) -> Result<(), BenchError> {
        let wrong = |error: &dyn Display| BenchError::Storage(error.to_string());
        let store = SnapshotStore::open(disk, CLUSTER, group).map_err(|e| wrong(&e))?;
        let mut source = store.read(snapshot).map_err(|e| wrong(&e))?;
        skip_sessions(&mut source).map_err(|e| wrong(&e))?;
        let state: Registers = serde_json::from_reader(source).map_err(|e| wrong(&e))?;
        self.ids.extend(state.applied());
        self.repeated += state.repeated();
        Ok(())
    }

    fn take(&mut self, batch: &Batch) -> Result<(), BenchError> {
        if batch.header.kind != BatchKind::Commands {
            return Ok(());
        }
        let commands = Commands::parse(batch.body.clone(), batch.header.count)
            .map_err(|error| BenchError::Storage(error.to_string()))?;
        for command in commands.iter() {
            let request = decode(&command);
            let request = request.ok_or_else(|| {
                let at = batch.header.first;
                BenchError::Storage(format!("the batch at {at} holds what nobody proposed"))
            })?;
            self.repeated += u64::from(!self.ids.insert(request.id));
        }
        Ok(())
    }
}
