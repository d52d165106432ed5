//! One node of the simulated cluster: its disk, and the shipped code of its current life.

use crate::config::{Recover, SimConfig};
use crate::life::{Born, Life};
use crate::recorder::Recorder;
use crate::recovered::RecoveredState;
use crate::spec::Judge;
use duraft::start::Parts;
use duraft_core::{
    BatchKind, Body, GroupId, Incarnation, Index, Membership, NodeId, Position, Raft, RoleKind,
    Snapshot, Term, Write, WriteSeq,
};
use duraft_disk::{Damage, Disk, DiskOp, FaultDisk, SplitMix64};
use duraft_storage::{Entropy, Pipeline, PipelineEvent, SnapshotStore, StoreIdentity, Submission};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module documentation.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) identity: StoreIdentity,
    pub(crate) disk: FaultDisk,
    /// Lives so far; events of an earlier life are not for this one.
    pub(crate) lives: u64,
    pub(crate) life: Option<Life>,
    /// Stores of this node before the present one; their disks are lost.
    births: u64,
    /// The last opening number that an open returned.
    pub(crate) generation: u64,
    /// The process stands still until then; the world goes on.
    pub(crate) paused_until: u64,
    /// The disk has a failure in store for its present life.
    pub(crate) armed: bool,
    /// A lost write may be reported late, also to the process that comes after.
    pub(crate) late_error: bool,
    /// The node crashes when it has sent so many more messages.
    pub(crate) sends_left: Option<u64>,
    /// The membership that the node used when its last life ended.
    pub(crate) membership: Option<Membership>,
    /// There is a store on the disk.
    pub(crate) exists: bool,
    /// The disk was damaged in some earlier life.
    pub(crate) scarred: bool,
    /// It lacks something of what it held, as recovery reports it.
    pub(crate) damaged: bool,
    /// A batch on the disk has a content that nobody wrote. An operator declares the disk lost once the
    /// node has stopped over it.
    pub(crate) forged: bool,
    /// The furthest that the node has ever acknowledged, of each term an entry is of.
    pub(crate) acked: BTreeMap<Term, Position>,
    /// The disk was damaged and not opened since; what was on it before.
    pub(crate) rotten: Option<RecoveredState>,
    recovered: Option<(DiskVersion, RecoveredState)>,
    /// The snapshot whose file was last read through on the synced bytes.
    pub(crate) verified: Option<Snapshot>,
    /// How fast the node's clock runs, of [`SimConfig::CLOCK_RATE`].
    pub(crate) clock_rate: u64,
    /// What it shows at the beginning.
    pub(crate) clock_phase: u64,
    /// Follows the cluster as the specification sees it.
    pub(crate) judge: Shared<Judge>,
}

/// Most batches of a log that are written anew to give one of them another content.
const FORGED_MAX: usize = 8;

/// What distinguishes two contents of the synced bytes: the disk's life and its syncs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DiskVersion {
    life: u64,
    syncs: u64,
}

/// Shared within one thread; the driver wants its parts to be `Send`.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        Shared(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Shared<T> {
        Shared(Arc::new(Mutex::new(value)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            births: 0,
            generation: 0,
            paused_until: 0,
            armed: false,
            late_error: false,
            sends_left: None,
            membership: None,
            exists: false,
            scarred: false,
            damaged: false,
            forged: false,
            acked: BTreeMap::new(),
            rotten: None,
            recovered: None,
            verified: None,
            clock_rate: SimConfig::CLOCK_RATE,
            clock_phase: 0,
            judge: Shared::default(),
        }
    }

    /// Opens the store and begins a life. On an error the node stays down.
    pub(crate) fn start(&mut self, config: &SimConfig, entropy: Entropy) -> Result<(), String> {
        if self.scarred && config.recover != Recover::Never {
            self.check_opened_again(config, entropy)?;
        }
        let disk = Arc::new(self.disk.clone());
        let group = config.core.group;
        let (wal, mut recovered) =
            duraft_storage::open(disk.clone(), &self.identity, config.wal.clone(), entropy)
                .map_err(|error| format!("node {} cannot open its store: {error}", self.id))?;
        let found = recovered
            .groups
            .remove(&group)
            .ok_or_else(|| format!("node {} has lost its group", self.id))?;
        if let Some(damage) = &found.damage
            && !self.scarred
        {
            return Err(format!("node {} reports damage: {damage}", self.id));
        }
        let generation = recovered.generation;
        if generation <= self.generation {
            return Err(format!(
                "node {} was opened as number {generation} after {}",
                self.id, self.generation
            ));
        }
        let cluster = self.identity.cluster;
        let store = SnapshotStore::open_with(disk, cluster, group, config.snapshot)
            .map_err(|error| format!("node {} cannot open its snapshots: {error}", self.id))?;
        let machine = Shared::default();
        let recorder = Recorder::new(machine.clone(), config.workload.machine());
        let recorder = Box::new(recorder);
        let parts = Parts {
            group,
            // As the runtime numbers lives: by the store's birth, then by its openings. A store that takes
            // the place of a lost one is younger.
            incarnation: Incarnation(self.births << 32 | generation),
            found,
            policy: config.wal.policy,
            reader: &wal.reader(),
            snapshots: &store,
        };
        let start = duraft::start::begin(parts, recorder)
            .map_err(|error| format!("node {} cannot begin: {error}", self.id))?;
        let damage = start.boot.damage.clone();
        if damage.is_some() && !self.scarred {
            return Err(format!("node {} has lost its state: {damage:?}", self.id));
        }
        self.damaged = damage.is_some() || self.forged;
        let mut core = config.core.clone();
        core.id = self.id;
        let mut raft = Raft::new(core, start.boot)
            .map_err(|error| format!("node {} cannot boot: {error}", self.id))?;
        if raft.role() != RoleKind::Follower {
            return Err(format!("B10: node {} begins as {:?}", self.id, raft.role()));
        }
        if let Some(prepare) = config.prepare {
            prepare(&mut raft);
        }
        self.generation = generation;
        self.lives += 1;
        let born = Born {
            raft,
            applier: start.applier,
            machine,
            store,
            wal,
            generation,
        };
        if self.scarred {
            self.judge.lock().retire();
        }
        self.life = Some(Life::new(config, born, &self.judge));
        Ok(())
    }

    /// C2: who opens a damaged disk a second time finds what the first open has found.
    fn check_opened_again(&self, config: &SimConfig, entropy: Entropy) -> Result<(), String> {
        let mut disk = self.disk.fork();
        let mut views = Vec::new();
        for _ in 0..2 {
            let shared = Arc::new(disk.clone());
            let opened = duraft_storage::open(shared, &self.identity, config.wal.clone(), entropy);
            let Ok((_wal, mut recovered)) = opened else {
                return Ok(());
            };
            let found = recovered.groups.remove(&config.core.group);
            views.push(found.map(|group| {
                let damage = group
                    .damage
                    .map(|damage| (damage.missing, damage.survivors));
                (group.start, group.batches, damage.unwrap_or_default())
            }));
            disk = disk.process_crash();
        }
        if views[0] == views[1] {
            return Ok(());
        }
        Err(format!(
            "C2: node {} opened twice has {:?} and then {:?}",
            self.id, views[0], views[1]
        ))
    }

    /// What this node's clock shows.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        now * self.clock_rate / SimConfig::CLOCK_RATE + self.clock_phase
    }

    /// Steps from now until this node's clock shows the next tick.
    pub(crate) fn until_tick(&self, now: u64) -> u64 {
        let next = (self.clock(now) / SimConfig::TICK + 1) * SimConfig::TICK;
        let at = ((next - self.clock_phase) * SimConfig::CLOCK_RATE).div_ceil(self.clock_rate);
        at.saturating_sub(now).max(1)
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
            let state = self.recover(config, view)?;
            if let Some((_, before)) = &self.recovered
                && !before.damaged
                && !state.damaged
            {
                check_monotone(self.id, before, &state)?;
            }
            self.recovered = Some((version, state));
            fresh = true;
        }
        let (_, state) = self.recovered.as_ref().expect("set above if it was not");
        Ok((state, fresh))
    }

    /// What recovery makes of a copy of the disk.
    fn recover(&mut self, config: &SimConfig, view: FaultDisk) -> Result<RecoveredState, String> {
        RecoveredState::open(view, self, config)
            .map_err(|error| format!("{error}, in recovery of node {}", self.id))
    }

    /// Has the disk been found whole since it was damaged? Then its promises count again.
    pub(crate) fn is_healed(&mut self, config: &SimConfig) -> Result<bool, String> {
        if self.damaged && self.life.is_some() {
            self.damaged = self.recovered(config)?.0.damaged;
            return Ok(!self.damaged);
        }
        Ok(false)
    }

    /// Damages the disk of a node that is down. Before, whatever was acknowledged is proven by one
    /// more life, as a single copy of the last write cannot be told from one that was torn.
    pub(crate) fn rot(
        &mut self,
        config: &SimConfig,
        entropy: Entropy,
        rng: &mut SplitMix64,
    ) -> Result<(), String> {
        let disk = Arc::new(self.disk.clone());
        let opened = duraft_storage::open(disk, &self.identity, config.wal.clone(), entropy);
        let generation = opened.map(|(_, recovered)| recovered.generation);
        let disk = self.disk.process_crash();
        self.replace_disk(disk);
        self.generation = generation.map_err(|error| format!("node {}: {error}", self.id))?;
        let view = self.disk.durable_view();
        let before = self.recover(config, view)?;
        // Mostly something that counts; the rest must do no harm.
        let tries = if rng.below(4) == 0 {
            1
        } else {
            20 * config.damage_places
        };
        let counts = |state: RecoveredState| {
            state.damaged && (config.damage_places == 1 || state.hard_state != before.hard_state)
        };
        self.scarred = true;
        self.recovered = None;
        self.verified = None;
        for left in (0..tries).rev() {
            let copy = self.disk.fork();
            let places = (0..config.damage_places)
                .filter(|_| rot_somewhere(&copy, config, rng))
                .count();
            if places == 0 {
                continue;
            }
            let seen = self.recover(config, copy.durable_view());
            if left == 0 || seen.map_or(true, counts) {
                self.disk = copy;
                break;
            }
        }
        self.verified = None;
        self.damaged = true;
        self.rotten = Some(before);
        Ok(())
    }

    /// Replaces the last command before `end`, on the disk of a node that is down, by nothing, with all
    /// checksums and digests as they have to be. False where there is none, or much behind it.
    pub(crate) fn forge(
        &mut self,
        config: &SimConfig,
        entropy: Entropy,
        end: Index,
    ) -> Result<bool, String> {
        let disk = Arc::new(self.disk.clone());
        let (wal, mut recovered) =
            duraft_storage::open(disk, &self.identity, config.wal.clone(), entropy)
                .map_err(|error| format!("node {}: {error}", self.id))?;
        self.generation = recovered.generation;
        let group = config.core.group;
        let found = recovered.groups.remove(&group);
        let (start, headers) = found.map_or((Position::START, Vec::new()), |found| {
            (found.start, found.batches)
        });
        let single = headers.iter().rposition(|header| {
            header.kind == BatchKind::Commands && header.count == 1 && header.last() < end
        });
        let Some(at) = single.filter(|at| headers.len() - at <= FORGED_MAX) else {
            return Ok(false);
        };
        let (first, last) = (headers[at].first, headers[headers.len() - 1].last());
        let stored = wal.reader().read(group, first, last, u64::MAX);
        let mut stored = stored.map_err(|error| format!("node {}: {error}", self.id))?;
        let before = at.checked_sub(1).map_or(start, |at| headers[at].position());
        let mut position = before;
        for (nth, batch) in stored.iter_mut().enumerate() {
            let header = batch.header;
            let body = if nth == 0 {
                Body::noop()
            } else {
                Body {
                    kind: header.kind,
                    codec: header.codec,
                    count: header.count,
                    checksum: header.body_checksum,
                    bytes: batch.body.clone(),
                }
            };
            let sealed = body.seal(group, &position, header.term);
            *batch = sealed.map_err(|error| error.to_string())?;
            position = batch.header.position();
        }
        let write = Write {
            seq: WriteSeq(1),
            hard_state: None,
            snapshot: None,
            truncate: Some(before),
            append: stored,
            compact: None,
            healed: None,
        };
        let (mut pipeline, mut events) = (Pipeline::new(wal, config.wal.clone()), Vec::new());
        pipeline.turn(0, &mut [Submission { group, write }].into(), &mut events);
        drop(pipeline);
        let disk = self.disk.process_crash();
        self.replace_disk(disk);
        self.recovered = None;
        (self.scarred, self.damaged, self.forged) = (true, true, true);
        let durable = (events.iter()).any(|event| matches!(event, PipelineEvent::Durable(_)));
        (durable.then_some(true)).ok_or_else(|| format!("node {}: {events:?}", self.id))
    }

    /// The node has told the leader of a term that it holds the log up to here.
    pub(crate) fn has_acknowledged(&mut self, matched: Index, term: Term) {
        let Some(life) = &self.life else { return };
        let raft = life.driver.raft();
        // Where nothing is known of the batch any more, the log was compacted: it is committed and applied.
        // One of a later term was taken from a later leader in the same turn, instead of what is meant.
        let header = raft.header_ending_at(matched);
        if let Some(header) = header.filter(|header| header.term <= term) {
            let at = header.position();
            let furthest = self.acked.entry(at.term()).or_insert(at);
            if furthest.index() < at.index() {
                *furthest = at;
            }
        }
    }

    /// The disk is gone; a store that says so is on the one in its place.
    pub(crate) fn replaced_by_empty(&mut self, disk: FaultDisk) {
        self.late_error = false;
        self.forged = false;
        self.replace_disk(disk);
        self.scarred = true;
        self.damaged = true;
        self.rotten = None;
        self.recovered = None;
        self.births += 1;
        self.generation = 0;
    }

    /// Another disk took the place of the old one: what was recovered from that says nothing.
    pub(crate) fn replace_disk(&mut self, disk: FaultDisk) {
        self.disk = disk;
        self.armed = self.late_error;
        self.lives += 1;
        self.verified = None;
    }
}

/// Changes some sector of a durable file. False where nothing was changed: there is nothing to damage
/// where nothing was written.
fn rot_somewhere(disk: &FaultDisk, config: &SimConfig, rng: &mut SplitMix64) -> bool {
    let files = files_of(disk, config.core.group);
    let Some(file) = pick(rng, &files) else {
        return false;
    };
    let sector = rng.below(disk.sectors(file).unwrap_or(0).max(1));
    let size = config.disk.sector_bytes as u64;
    let damage = match rng.below(4) {
        0 => Damage::FlipBit {
            offset: sector * size + rng.below(size),
            bit: u8::try_from(rng.below(8)).expect("below 8"),
        },
        1 => Damage::ZeroSector { sector },
        2 => Damage::StaleSector { sector },
        _ => Damage::GarbageSector {
            sector,
            seed: rng.next(),
        },
    };
    disk.damage(file, &damage).unwrap_or(false)
}

/// The files of the log and the snapshots, by name; those of the log twice, as they matter more.
fn files_of(disk: &FaultDisk, group: GroupId) -> Vec<String> {
    let snapshots = format!("snap/{:016x}", group.0);
    let list = |folder: &str| {
        let names = disk.list(folder).unwrap_or_default();
        let names = names.into_iter().map(|name| format!("{folder}/{name}"));
        names.collect::<Vec<String>>()
    };
    [list("wal"), list("wal"), list(&snapshots)].concat()
}

fn pick<'a>(rng: &mut SplitMix64, of: &'a [String]) -> Option<&'a str> {
    let at = usize::try_from(rng.below(of.len().max(1) as u64)).ok()?;
    of.get(at).map(String::as_str)
}

/// B12: over all lives the durable term never decreases, a vote never changes within it, and the log
/// never begins earlier than it did.
fn check_monotone(
    id: NodeId,
    before: &RecoveredState,
    after: &RecoveredState,
) -> Result<(), String> {
    let (old, new) = (before.hard_state, after.hard_state);
    let kept = old.vote.is_none() || old.vote == new.vote;
    if !(new.term > old.term || (new.term == old.term && kept)) {
        return Err(format!(
            "B12: node {id} had {old:?} on disk and now has {new:?}"
        ));
    }
    if after.start.index() < before.start.index() {
        return Err(format!(
            "B12: the log of node {id} began at {} and now begins at {}",
            before.start, after.start
        ));
    }
    Ok(())
}
