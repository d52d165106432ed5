//! One node of the simulated cluster: its disk, and the shipped code of its current life.

use crate::config::SimConfig;
use crate::recovered::RecoveredState;
use bytes::Bytes;
use duraft::{
    Applier, ApplyBatch, ApplyContext, Driver, DriverInput, DriverOptions, SnapshotWork,
    StateMachine, StepObserver,
};
use duraft_core::{
    Boot, HardState, Incarnation, Index, LogId, NodeId, Output, Raft, Term, invariants,
};
use duraft_disk::{DiskOp, FaultDisk};
use duraft_storage::{Entropy, Pipeline, Preparer, StoreIdentity, Submission, WalReader};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module documentation.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) identity: StoreIdentity,
    pub(crate) disk: FaultDisk,
    /// Lives so far; events of an earlier life are not for this one.
    pub(crate) lives: u64,
    pub(crate) life: Option<Life>,
    /// The last opening number that an open returned.
    pub(crate) generation: u64,
    /// The process stands still until then; the world goes on.
    pub(crate) paused_until: u64,
    /// The disk has a failure in store for its present life.
    pub(crate) armed: bool,
    recovered: Option<(DiskVersion, RecoveredState)>,
}

/// What distinguishes two contents of the synced bytes: the disk's life and its syncs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DiskVersion {
    life: u64,
    syncs: u64,
}

/// A running node.
pub(crate) struct Life {
    pub(crate) driver: Driver,
    pub(crate) pipeline: Pipeline,
    pub(crate) preparer: Preparer,
    pub(crate) reader: WalReader,
    pub(crate) applier: Applier,
    machine: Shared<Vec<(LogId, u64)>>,
    broken: Shared<Option<String>>,
    pub(crate) generation: u64,
    pub(crate) inputs: VecDeque<DriverInput>,
    pub(crate) submissions: VecDeque<Submission>,
    pub(crate) work: VecDeque<ApplyBatch>,
    pub(crate) turn_due: bool,
    pub(crate) pipeline_due: bool,
    pub(crate) apply_due: bool,
    /// Commands of the state machine that the history has seen.
    pub(crate) applied_seen: usize,
    /// Committed batches that the history has seen.
    pub(crate) commit_seen: Index,
    /// The driver has stopped; whatever it emitted before came from before.
    pub(crate) stopped: bool,
    /// The disk's mutations when the log failed.
    pub(crate) failed_at: Option<u64>,
}

/// Shared within one thread; the driver wants its parts to be `Send`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Remembers commands by the number in their first eight bytes.
struct Recorder(Shared<Vec<(LogId, u64)>>);

impl StateMachine for Recorder {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        let number = command
            .first_chunk::<8>()
            .map_or(u64::MAX, |b| u64::from_le_bytes(*b));
        self.0.lock().push((context.log_id, number));
        Bytes::copy_from_slice(&number.to_le_bytes())
    }

    fn snapshot(&self) -> SnapshotWork {
        let applied = self.0.lock().clone();
        Box::new(move |out| {
            for (log_id, number) in applied {
                for word in [log_id.term.0, log_id.index.0, number] {
                    out.write_all(&word.to_le_bytes())?;
                }
            }
            Ok(())
        })
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        let word = |b: &[u8]| {
            b.first_chunk::<8>()
                .map_or(u64::MAX, |b| u64::from_le_bytes(*b))
        };
        let entry = |b: &[u8]| {
            let log_id = LogId {
                term: Term(word(b)),
                index: Index(word(&b[8..])),
            };
            (log_id, word(&b[16..]))
        };
        *self.0.lock() = bytes.chunks_exact(24).map(entry).collect();
        Ok(())
    }
}

/// Checks the core's invariants after every step and keeps the first violation.
struct Inspector {
    before: Raft,
    broken: Shared<Option<String>>,
}

impl StepObserver for Inspector {
    fn stepped(&mut self, raft: &Raft, outputs: &[Output]) {
        let verdict = invariants::check(raft)
            .and_then(|()| invariants::check_delta(&self.before, raft, outputs));
        if let Err(violation) = verdict {
            self.broken
                .lock()
                .get_or_insert_with(|| violation.to_string());
        }
        self.before.clone_from(raft);
    }
}

impl Host {
    pub(crate) fn new(id: NodeId, identity: StoreIdentity, disk: FaultDisk) -> Host {
        Host {
            id,
            identity,
            disk,
            lives: 0,
            life: None,
            generation: 0,
            paused_until: 0,
            armed: false,
            recovered: None,
        }
    }

    /// Opens the store and begins a life. On an error the node stays down.
    pub(crate) fn start(&mut self, config: &SimConfig, entropy: Entropy) -> Result<(), String> {
        let disk = Arc::new(self.disk.clone());
        let (wal, mut recovered) =
            duraft_storage::open(disk, &self.identity, config.wal.clone(), entropy)
                .map_err(|error| format!("node {} cannot open its store: {error}", self.id))?;
        let group = config.core.group;
        let found = recovered
            .groups
            .remove(&group)
            .ok_or_else(|| format!("node {} has lost its group", self.id))?;
        if let Some(damage) = found.damage {
            return Err(format!("node {} reports damage: {damage}", self.id));
        }
        let generation = recovered.generation;
        if generation <= self.generation {
            return Err(format!(
                "node {} was opened as number {generation} after {}",
                self.id, self.generation
            ));
        }
        let mut core = config.core.clone();
        core.id = self.id;
        let boot = Boot {
            incarnation: Incarnation(generation),
            hard_state: found.hard_state,
            start: found.start,
            batches: found.batches,
            membership: found.membership,
            memberships: Vec::new(),
            snapshot: None,
            applied: None,
            damage: None,
        };
        let mut raft = Raft::new(core, boot)
            .map_err(|error| format!("node {} cannot boot: {error}", self.id))?;
        if let Some(prepare) = config.prepare {
            prepare(&mut raft);
        }
        self.generation = generation;
        self.lives += 1;
        self.life = Some(Life::new(config, raft, generation, wal));
        Ok(())
    }

    /// The state that recovery finds in the synced bytes.
    pub(crate) fn recovered(
        &mut self,
        config: &SimConfig,
    ) -> Result<(&RecoveredState, bool), String> {
        let version = DiskVersion {
            life: self.lives,
            syncs: self.disk.ops(DiskOp::SyncData)
                + self.disk.ops(DiskOp::SyncAll)
                + self.disk.ops(DiskOp::SyncDir),
        };
        let mut fresh = false;
        if self
            .recovered
            .as_ref()
            .is_none_or(|(known, _)| *known != version)
        {
            let view = self.disk.durable_view();
            let state = RecoveredState::open(view, &self.identity, &config.wal, config.core.group)
                .map_err(|error| format!("recovery of node {}: {error}", self.id))?;
            if let Some((_, before)) = &self.recovered {
                check_monotone(self.id, before.hard_state, state.hard_state)?;
            }
            self.recovered = Some((version, state));
            fresh = true;
        }
        let (_, state) = self.recovered.as_ref().expect("set above if it was not");
        Ok((state, fresh))
    }

    /// Another disk took the place of the old one: what was recovered from that says nothing.
    pub(crate) fn replace_disk(&mut self, disk: FaultDisk) {
        self.disk = disk;
        self.armed = false;
        self.lives += 1;
    }
}

/// B12: over all lives the durable term never decreases and a vote never changes within it.
fn check_monotone(id: NodeId, before: HardState, after: HardState) -> Result<(), String> {
    let kept = before.vote.is_none() || before.vote == after.vote;
    if after.term > before.term || (after.term == before.term && kept) {
        Ok(())
    } else {
        Err(format!(
            "B12: node {id} had {before:?} on disk and now has {after:?}"
        ))
    }
}

impl Life {
    fn new(config: &SimConfig, raft: Raft, generation: u64, wal: duraft_storage::Wal) -> Life {
        let machine = Shared::default();
        let broken = Shared::default();
        let inspector = Inspector {
            before: raft.clone(),
            broken: broken.clone(),
        };
        let options = DriverOptions {
            max_batch_bytes: config.core.max_batch_bytes,
            commands_max: 256,
            batches_in_flight_max: 8,
            ticks_per_turn_max: u64::from(config.core.heartbeat_ticks),
            ..DriverOptions::default()
        };
        let commit_seen = raft.commit();
        let (start, membership) = (raft.start(), raft.membership().clone());
        let mut driver = Driver::new(raft, generation, options);
        if config.check_invariants {
            driver.observe_steps(Box::new(inspector));
        }
        Life {
            driver,
            reader: wal.reader(),
            preparer: wal.preparer(),
            pipeline: Pipeline::new(wal, config.wal.clone()),
            applier: Applier::new(Box::new(Recorder(machine.clone())), start, membership),
            machine,
            broken,
            generation,
            inputs: VecDeque::new(),
            submissions: VecDeque::new(),
            work: VecDeque::new(),
            turn_due: false,
            pipeline_due: false,
            apply_due: false,
            applied_seen: 0,
            commit_seen,
            stopped: false,
            failed_at: None,
        }
    }

    /// The first broken invariant of the core, if any.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// What the state machine applied that the history has not seen.
    pub(crate) fn newly_applied(&self) -> Vec<(LogId, u64)> {
        self.machine.lock()[self.applied_seen..].to_vec()
    }
}
