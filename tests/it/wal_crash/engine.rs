//! The log under test, behind the few calls that the search needs. The only file that knows its
//! interface.

use super::damage::{GroupReport, Report};
use super::model::{GroupState, State};
use bytes::Bytes;
use duraft_core::{
    GroupId, HardState, Index, MEMBERSHIP_BYTES_MAX, Membership, NodeId, Snapshot, Write, WriteSeq,
};
use duraft_disk::{Disk, FaultDisk};
use duraft_storage::{
    Ablation, ClusterId, Entropy, OnDamage, OpenError, ReadError, Recovered, RecoveredGroup,
    StoreIdentity, Submission, Wal, WalOptions,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the store is made.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) slot_bytes: u64,
    pub(super) groups: u64,
    pub(super) slots_ready_min: usize,
    /// A far mark rides along every so many commits.
    pub(super) mark_every_commits: u64,
    pub(super) ablation: Option<Ablation>,
}

/// Why a store did not open. The texts are shown in stories.
#[derive(Debug)]
#[allow(dead_code)]
pub(super) enum Refusal {
    /// It says that there is none.
    NoStore,
    /// It says that something is damaged.
    Damaged(String),
    /// It says something else.
    Other(String),
}

impl From<OpenError> for Refusal {
    #[allow(clippy::wildcard_enum_match_arm)]
    fn from(error: OpenError) -> Refusal {
        let text = format!("{error:?}: {error}");
        match error {
            OpenError::NoStore => Refusal::NoStore,
            OpenError::Damaged(_)
            | OpenError::StoreFile(_)
            | OpenError::StoreFileMissing
            | OpenError::Newer { .. }
            | OpenError::Record { .. } => Refusal::Damaged(text),
            // The enum may grow; what is not known to report damage does not report it.
            _ => Refusal::Other(text),
        }
    }
}

impl From<ReadError> for Refusal {
    #[allow(clippy::wildcard_enum_match_arm)]
    fn from(error: ReadError) -> Refusal {
        let text = format!("{error:?}: {error}");
        match error {
            ReadError::Corrupt { .. } | ReadError::Missing(_) => Refusal::Damaged(text),
            _ => Refusal::Other(text),
        }
    }
}

fn identity() -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId([7; 16]),
        node: NodeId(1),
        max_batch_bytes: 512,
    }
}

fn options(setup: &Setup, policy: OnDamage) -> WalOptions {
    WalOptions {
        slot_bytes: setup.slot_bytes,
        slots_ready_min: setup.slots_ready_min,
        slots_max: 24,
        // Everything is read back from the disk.
        cache_bytes_max: 0,
        mark_every_commits: setup.mark_every_commits,
        policy,
        ablation: setup.ablation,
        ..WalOptions::default()
    }
}

fn entropy(seed: u64) -> Entropy {
    Entropy {
        seed,
        wallclock_ns: 0,
    }
}

/// Makes a store with empty groups 0, 1, ...
pub(super) fn bootstrap(disk: &FaultDisk, setup: &Setup, seed: u64) -> Result<(), Refusal> {
    let membership = Membership::new([NodeId(1)], []).expect("one voter");
    let groups: Vec<(GroupId, Membership)> = (0..setup.groups)
        .map(|group| (GroupId(group), membership.clone()))
        .collect();
    let options = options(setup, OnDamage::Refuse);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    duraft_storage::bootstrap(&disk, &identity(), &options, entropy(seed), &groups)?;
    Ok(())
}

/// An open log.
pub(super) struct Store {
    wal: Option<Wal>,
    /// Hard states and memberships are not read back from an open log: these are what recovery
    /// told.
    told: BTreeMap<GroupId, (HardState, Bytes, Option<Snapshot>)>,
    written: BTreeMap<GroupId, WriteSeq>,
}

/// Opens the store, reads all of it back, and refuses damage.
pub(super) fn open(disk: &FaultDisk, setup: &Setup, seed: u64) -> Result<(Store, State), Refusal> {
    let (store, recovered) = open_with(disk, setup, OnDamage::Refuse, seed)?;
    if let Some(damage) = recovered.damage {
        return Err(Refusal::Damaged(format!("opened with {damage}")));
    }
    let state = store.state()?;
    // What recovery says and what reads show must be the same.
    for (group, told) in &recovered.groups {
        let held = &state.0[group];
        let headers: Vec<_> = held.batches.iter().map(|batch| batch.header).collect();
        let same = told.start == held.start && told.batches == headers;
        if !same || told.damage.is_some() {
            return Err(Refusal::Other(format!(
                "group {group}: recovery told {told:?}"
            )));
        }
    }
    Ok((store, state))
}

fn open_with(
    disk: &FaultDisk,
    setup: &Setup,
    policy: OnDamage,
    seed: u64,
) -> Result<(Store, Recovered), Refusal> {
    let disk = Arc::new(disk.clone());
    let options = options(setup, policy);
    let (wal, recovered) = duraft_storage::open(disk, &identity(), options, entropy(seed))?;
    let store = Store {
        wal: Some(wal),
        told: recovered
            .groups
            .iter()
            .map(|(id, group)| (*id, told(group)))
            .collect(),
        written: BTreeMap::new(),
    };
    Ok((store, recovered))
}

/// Opens a damaged store as a node does that wants to be repaired by its peers.
pub(super) fn open_for_repair(
    disk: &FaultDisk,
    setup: &Setup,
    seed: u64,
) -> Result<(Store, Report), Refusal> {
    let (store, recovered) = open_with(disk, setup, OnDamage::RepairFromPeers, seed)?;
    let mut damaged = Vec::new();
    let mut readable = BTreeMap::new();
    for (group, told) in &recovered.groups {
        readable.insert(*group, store.group(*group, true)?);
        if let Some(damage) = &told.damage {
            damaged.push(GroupReport {
                group: *group,
                vote_uncertain: damage.vote_uncertain,
                lost_suffix: damage.lost_suffix,
                missing: !damage.missing.is_empty(),
                floor: damage.floor,
            });
        }
    }
    Ok((
        store,
        Report {
            readable: State(readable),
            damaged,
        },
    ))
}

fn told(group: &RecoveredGroup) -> (HardState, Bytes, Option<Snapshot>) {
    (
        group.hard_state,
        Bytes::from(group.membership.encode()),
        group.snapshot.clone(),
    )
}

/// Bytes that a write takes in a commit. The log counts a compaction with the largest membership there
/// can be; here none has more than two members.
pub(super) fn cost(group: GroupId, write: &Write) -> u64 {
    let most = Submission {
        group,
        write: write.clone(),
    };
    let spared = write
        .compact
        .map_or(0, |_| MEMBERSHIP_BYTES_MAX as u64 - 32);
    most.cost() - spared
}

impl Store {
    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("open until it is closed")
    }

    fn wal_mut(&mut self) -> &mut Wal {
        self.wal.as_mut().expect("open until it is closed")
    }

    pub(super) fn commit_bytes_max(&self) -> u64 {
        self.wal().commit_bytes_fit()
    }

    /// One group commit of these writes.
    pub(super) fn commit(&mut self, writes: Vec<(GroupId, Write)>) -> Result<(), String> {
        let mut written = self.written.clone();
        let mut submissions = Vec::new();
        for (group, mut write) in writes {
            let seq = written.entry(group).or_insert(WriteSeq(0));
            *seq = seq.next();
            write.seq = *seq;
            submissions.push(Submission { group, write });
        }
        self.wal_mut()
            .commit(&submissions)
            .map_err(|e| format!("commit: {e:?}"))?;
        self.written = written;
        Ok(())
    }

    pub(super) fn receipt(&mut self) -> Result<(), String> {
        self.wal_mut()
            .receipt()
            .map_err(|e| format!("receipt: {e:?}"))
    }

    /// Makes slots ready until enough are.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        let mut preparer = self.wal().preparer();
        while preparer.turn().map_err(|e| format!("prepare: {e:?}"))? {}
        Ok(())
    }

    pub(super) fn close(&mut self) -> Result<(), String> {
        match self.wal.take() {
            Some(wal) => wal.close().map_err(|e| format!("close: {e:?}")),
            None => Ok(()),
        }
    }

    pub(super) fn poisoned(&self) -> bool {
        self.wal().poisoned().is_some()
    }

    /// Everything the store holds, bodies included; hard states and memberships are those of the
    /// open.
    pub(super) fn state(&self) -> Result<State, Refusal> {
        let groups = self.wal().reader().groups();
        let states = groups
            .into_iter()
            .map(|group| Ok((group, self.group(group, false)?)));
        Ok(State(states.collect::<Result<_, Refusal>>()?))
    }

    /// One group; with `partial`, what of it can be read before the first missing batch.
    fn group(&self, group: GroupId, partial: bool) -> Result<GroupState, Refusal> {
        let reader = self.wal().reader();
        let other = || Refusal::Other(format!("group {group} is not there"));
        let (start, end) = reader.bounds(group).ok_or_else(other)?;
        let (hard, membership, snapshot) = self.told.get(&group).cloned().ok_or_else(other)?;
        let mut state = GroupState {
            hard,
            start,
            membership,
            snapshot,
            batches: Vec::new(),
        };
        while state.end().index() < end.index() {
            let next = state.end().index().next();
            // Small steps: reads that begin inside the log are of interest too.
            match reader.read(group, next, Index(u64::MAX), 1) {
                Ok(batches) => state.batches.extend(batches),
                Err(ReadError::Missing(_) | ReadError::Corrupt { .. }) if partial => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(state)
    }
}
