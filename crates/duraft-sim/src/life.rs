//! A running node: the shipped code of one life, and what waits to be done by each of its threads.

use crate::config::SimConfig;
use crate::host::Shared;
use crate::recorder::Entry;
use crate::spec::Judge;
use duraft::transfer::{TransferInput, Transfers};
use duraft::{
    Applier, ApplyBatch, Driver, DriverInput, DriverOptions, Now, ReadWork, SnapshotView,
    StepObserver,
};
use duraft_core::{Index, Membership, Output, Raft, Snapshot, Term, invariants};
use duraft_storage::{Pipeline, Preparer, SnapshotStore, Submission, Wal, WalReader};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// One of the threads that a node of the runtime has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Thread {
    /// Turns of the driver.
    Raft,
    /// Turns of the log.
    Wal,
    /// The state machine.
    Apply,
    /// Writes snapshots and removes old ones.
    Snapshot,
    /// Moves snapshots between nodes.
    Transfer,
}

/// What waits for the state machine.
#[derive(Debug)]
pub(crate) enum Work {
    Batch(ApplyBatch),
    Read(ReadWork),
    Install(Snapshot),
    TakeSnapshot,
    Retire(Snapshot),
}

/// What waits for the thread that writes snapshots.
pub(crate) enum Taking {
    Take(SnapshotView),
    Retire(Snapshot),
}

/// See the module documentation.
pub(crate) struct Life {
    pub(crate) driver: Driver,
    pub(crate) pipeline: Pipeline,
    pub(crate) preparer: Preparer,
    pub(crate) reader: WalReader,
    pub(crate) applier: Applier,
    pub(crate) store: SnapshotStore,
    pub(crate) transfers: Transfers,
    pub(crate) machine: Shared<Vec<Entry>>,
    broken: Shared<Option<String>>,
    counted_in: Shared<Membership>,
    pub(crate) generation: u64,
    pub(crate) inputs: VecDeque<DriverInput>,
    pub(crate) submissions: VecDeque<Submission>,
    pub(crate) work: VecDeque<Work>,
    pub(crate) taking: VecDeque<Taking>,
    /// A snapshot is being taken.
    pub(crate) snapshot_busy: bool,
    /// The last snapshot that is in a file.
    pub(crate) latest: Option<Snapshot>,
    /// It began with a log that may have lost what it had acknowledged at its end.
    pub(crate) lacks_suffix: bool,
    pub(crate) nonce: u64,
    pub(crate) moving: VecDeque<TransferInput>,
    /// Threads whose next turn is planned.
    pub(crate) due: BTreeSet<Thread>,
    /// Commands of the state machine that the history has seen.
    pub(crate) applied_seen: usize,
    /// Committed batches that the history has seen.
    pub(crate) commit_seen: Index,
    /// The driver has stopped; whatever it emitted before came from before.
    pub(crate) stopped: bool,
    /// The end of what the core knew to be durable before its last turn.
    pub(crate) durable_seen: Index,
    /// The disk's mutations when the log failed.
    pub(crate) failed_at: Option<u64>,
    /// The last entry that was given to the state machine.
    pub(crate) handed: Index,
    /// The time of the driver's last turn.
    pub(crate) last_turn: Option<Now>,
    /// The term that was durable when this life began.
    pub(crate) born_in: Term,
    /// Term, role and commit as last traced.
    pub(crate) traced: Option<[u64; 3]>,
}

/// What a life is made of.
pub(crate) struct Born {
    pub(crate) raft: Raft,
    pub(crate) applier: Applier,
    pub(crate) machine: Shared<Vec<Entry>>,
    pub(crate) store: SnapshotStore,
    pub(crate) wal: Wal,
    pub(crate) generation: u64,
}

/// Checks the core's invariants after every step, keeps the first violation, and what a turn may hide.
struct Inspector {
    /// Every so many steps one is checked.
    every: u64,
    steps: u64,
    before: Raft,
    broken: Shared<Option<String>>,
    /// Up to where it has committed, and the membership that this was counted in.
    commit: Index,
    counted_in: Shared<Membership>,
    /// Check the core's own invariants.
    invariants: bool,
    judge: Shared<Judge>,
}

impl StepObserver for Inspector {
    fn stepped(&mut self, raft: &Raft, outputs: &[Output]) {
        self.steps += 1;
        let place = self.steps % self.every;
        let verdict = || {
            invariants::check(raft)?;
            invariants::check_delta(&self.before, raft, outputs)
        };
        if self.invariants
            && place == 0
            && let Err(violation) = verdict()
        {
            self.broken
                .lock()
                .get_or_insert_with(|| violation.to_string());
        }
        if let Err(violation) = self.judge.lock().stepped(raft, outputs) {
            self.broken.lock().get_or_insert(violation);
        }
        if raft.commit() > self.commit {
            self.commit = raft.commit();
            let mut counted_in = self.counted_in.lock();
            if *counted_in != *raft.membership() {
                counted_in.clone_from(raft.membership());
            }
        }
        if self.invariants && place + 1 == self.every {
            // The next step is one of those that are checked.
            self.before.clone_from(raft);
        }
    }
}

impl Life {
    pub(crate) fn new(config: &SimConfig, born: Born, judge: &Shared<Judge>) -> Life {
        let Born {
            raft,
            applier,
            machine,
            store,
            wal,
            generation,
        } = born;
        let broken: Shared<Option<String>> = Shared::default();
        *broken.lock() = judge.lock().boots(&raft).err();
        let counted_in = Shared::new(raft.membership().clone());
        let inspector = Inspector {
            commit: raft.commit(),
            counted_in: counted_in.clone(),
            every: config.invariants_every.max(1),
            steps: 0,
            before: raft.clone(),
            broken: broken.clone(),
            invariants: config.check_invariants,
            judge: judge.clone(),
        };
        let lease = config.core.lease.map(|lease| {
            // As the runtime counts it.
            if config.lease_unchecked {
                return Duration::from_secs(1 << 30);
            }
            let lost = config.core.heartbeat_ticks + 1;
            let ticks = u64::from(config.core.election_ticks.saturating_sub(lost));
            let sure = 1_000_000u64.saturating_sub(u64::from(lease.drift_ppm));
            Duration::from_nanos(ticks * SimConfig::TICK * sure / 1_000_000)
        });
        let options = DriverOptions {
            max_batch_bytes: config.core.max_batch_bytes,
            commands_max: config.driver.commands_max,
            batches_in_flight_max: config.driver.batches_in_flight_max,
            ticks_per_turn_max: u64::from(config.core.heartbeat_ticks),
            lease,
            ..DriverOptions::default()
        };
        let transfers = Transfers::new(config.transfer, raft.incarnation(), store.clone());
        let commit_seen = raft.commit();
        let latest = raft.snapshot().cloned();
        let lacks_suffix = raft.damage_status().is_some_and(|of| of.lost_suffix);
        let (handed, born_in) = (raft.handed(), raft.durable_hard_state().term);
        let mut driver = Driver::new(raft, generation, options);
        driver.observe_steps(Box::new(inspector));
        Life {
            driver,
            reader: wal.reader(),
            preparer: wal.preparer(),
            pipeline: Pipeline::new(wal, config.wal.clone()),
            applier,
            store,
            transfers,
            machine,
            broken,
            counted_in,
            generation,
            inputs: VecDeque::new(),
            submissions: VecDeque::new(),
            work: VecDeque::new(),
            taking: VecDeque::new(),
            snapshot_busy: false,
            latest,
            lacks_suffix,
            nonce: generation,
            moving: VecDeque::new(),
            due: BTreeSet::new(),
            applied_seen: 0,
            commit_seen,
            stopped: false,
            durable_seen: Index(0),
            failed_at: None,
            handed,
            last_turn: None,
            born_in,
            traced: None,
        }
    }

    /// The first broken invariant of the core, if any.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.lock().clone()
    }

    /// The membership in which the core has counted what it committed last. What one turn does after that
    /// may have changed it.
    pub(crate) fn counted_in(&self) -> Membership {
        self.counted_in.lock().clone()
    }

    /// What the state machine applied that the history has not seen.
    pub(crate) fn newly_applied(&self) -> Vec<Entry> {
        self.machine
            .lock()
            .get(self.applied_seen..)
            .unwrap_or_default()
            .to_vec()
    }
}
