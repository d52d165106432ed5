//! The log under test, behind the few calls that the search needs. The only file that knows its
//! interface.

use super::damage::{GroupReport, Report};
use super::model::{GroupState, State};
use bytes::Bytes;
use duraft_core::{
    GroupId, HardState, Index, MEMBERSHIP_BYTES_MAX, Membership, NodeId, Position, Snapshot,
    SnapshotWrite, Write, WriteSeq,
};
use duraft_disk::{Disk, FaultDisk, FaultOptions};
use duraft_storage::{
    Ablation, ClusterId, Entropy, ForcedVoters, JoinAs, OnDamage, OpenError, Pipeline, ReadError,
    Recovered, RecoveredGroup, SnapshotAblation, SnapshotError, SnapshotOptions, SnapshotStore,
    StoreIdentity, Submission, Wal, WalOptions,
};
use std::collections::BTreeMap;
use std::io::{Read, Write as _};
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
    /// A step of the snapshot files is left out.
    pub(super) files: Option<SnapshotAblation>,
    /// The host does something in the wrong order.
    pub(super) plant: Option<Plant>,
}

/// What a host must not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plant {
    /// The log is reset in one commit, and term and batches that belong to it follow in the next.
    SplitReset,
    /// The log is compacted in one commit, and the snapshot that allows it follows in the next.
    CompactFirst,
    /// The log names a snapshot before its file is written.
    RecordFirst,
    /// The log is emptied in one commit, and the snapshot that takes its place follows in the next.
    EmptyFirst,
    /// A later term is written first, and the vote in it after that.
    SplitVote,
}

/// Why a store did not open. The texts are shown in stories.
#[derive(Debug)]
#[allow(dead_code)]
pub(super) enum Refusal {
    /// It says that there is none.
    NoStore,
    /// It says that something is damaged.
    Damaged(String),
    /// The snapshot that the log counts on has no whole file.
    NoFile(String),
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

impl From<SnapshotError> for Refusal {
    fn from(error: SnapshotError) -> Refusal {
        Refusal::Other(format!("{error:?}: {error}"))
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

/// A pipeline into a store of this setup, whose commits hold so many bytes of records.
pub(super) fn pipeline(
    disk: &FaultDisk,
    setup: &Setup,
    commit_bytes_max: u64,
    seed: u64,
) -> Result<Pipeline, Refusal> {
    let options = WalOptions {
        commit_bytes_max,
        ..options(setup, OnDamage::Refuse)
    };
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let (wal, _) = duraft_storage::open(door, &identity(), options, entropy(seed))?;
    Ok(wal.into_pipeline())
}

/// An open log.
pub(super) struct Store {
    wal: Option<Wal>,
    /// Hard states and memberships are not read back from an open log: these are what recovery
    /// told.
    told: BTreeMap<GroupId, (HardState, Bytes, Option<Snapshot>)>,
    written: BTreeMap<GroupId, WriteSeq>,
    files: BTreeMap<GroupId, SnapshotStore>,
    plant: Option<Plant>,
}

/// Opens the store, reads all of it back, and refuses damage.
pub(super) fn open(disk: &FaultDisk, setup: &Setup, seed: u64) -> Result<(Store, State), Refusal> {
    let durable = disk.durable_view();
    let (store, recovered) = open_with(disk, setup, OnDamage::Refuse, seed)?;
    for (group, told) in &recovered.groups {
        check_file(&durable, setup, *group, told)?;
    }
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
    let options = options(setup, policy);
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let (wal, recovered) = duraft_storage::open(door, &identity(), options, entropy(seed))?;
    let mut files = BTreeMap::new();
    for (group, told) in &recovered.groups {
        let store = snapshots(disk, setup.files, *group)?;
        let kept: Vec<&Snapshot> = told.snapshot.iter().collect();
        store.reconcile(&kept)?;
        files.insert(*group, store);
    }
    let store = Store {
        files,
        plant: setup.plant,
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

fn snapshots(
    disk: &FaultDisk,
    ablation: Option<SnapshotAblation>,
    group: GroupId,
) -> Result<SnapshotStore, SnapshotError> {
    let options = SnapshotOptions {
        chunk_bytes: 512,
        ablation,
        ..SnapshotOptions::default()
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    SnapshotStore::open_with(disk, identity().cluster, group, options)
}

/// The snapshot that a group counts on must stand in a whole file, whatever happens next: on the disk,
/// not in the cache.
fn check_file(
    durable: &FaultDisk,
    setup: &Setup,
    group: GroupId,
    told: &RecoveredGroup,
) -> Result<(), Refusal> {
    let Some(snapshot) = &told.snapshot else {
        let begins = told.start == Position::START;
        return begins.then_some(()).ok_or_else(|| {
            let start = told.start;
            Refusal::Other(format!(
                "group {group}: nothing holds what was before {start}"
            ))
        });
    };
    if told.start.index() > snapshot.position.index() {
        let (start, at) = (told.start, snapshot.position);
        let why = format!("group {group} begins at {start}, its snapshot is of {at}");
        return Err(Refusal::Other(why));
    }
    let lost = |error: &dyn std::fmt::Display| {
        let at = snapshot.position;
        Refusal::NoFile(format!(
            "group {group}: the file of the snapshot at {at}: {error}"
        ))
    };
    let files = snapshots(durable, setup.files, group).map_err(|error| lost(&error))?;
    let mut reader = files.read(snapshot).map_err(|error| lost(&error))?;
    let mut content = Vec::new();
    reader
        .read_to_end(&mut content)
        .map_err(|error| lost(&error))?;
    if content == content_of(snapshot.file.nonce) {
        Ok(())
    } else {
        Err(lost(&"holds something else"))
    }
}

fn make_file(files: &SnapshotStore, drawn: &Snapshot) -> Result<Snapshot, String> {
    let nonce = drawn.file.nonce;
    let told = |error: &dyn std::fmt::Display| format!("snapshot file: {error}");
    let writer = files.create(drawn.position, &drawn.membership, nonce);
    let mut writer = writer.map_err(|error| told(&error))?;
    let written = writer.write_all(&content_of(nonce));
    written.map_err(|error| told(&error))?;
    writer.finish().map_err(|error| told(&error))
}

/// A snapshot of a peer on its way here.
#[derive(Clone)]
pub(super) struct Arrival {
    group: GroupId,
    pub(super) snapshot: Snapshot,
    bytes: Bytes,
}

/// What comes at once: less than any part of a file that is checked by itself.
const PIECE_BYTES: usize = 300;

impl Arrival {
    /// What the workload drew stands on a peer's disk.
    pub(super) fn of(group: GroupId, drawn: &Snapshot) -> Arrival {
        let elsewhere = FaultDisk::new(FaultOptions::default());
        let files = snapshots(&elsewhere, None, group).expect("an empty disk");
        let snapshot = make_file(&files, drawn).expect("the disk works");
        let source = files.source(&snapshot).expect("it was just made");
        let bytes = source.read(0, u32::MAX).expect("the disk works");
        Arrival {
            group,
            snapshot,
            bytes,
        }
    }

    /// Its bytes come, as far as they have not come before.
    fn receive(&self, files: &SnapshotStore) -> Result<(), SnapshotError> {
        let mut receiver = files.receive(&self.snapshot)?;
        while !receiver.is_complete() {
            let at = receiver.received();
            let from = usize::try_from(at).expect("small files");
            let upto = self.bytes.len().min(from + PIECE_BYTES);
            receiver.write(at, &self.bytes[from..upto])?;
        }
        receiver.finish().map(drop)
    }

    /// After a crash, on a recovered store: the peer goes on sending, and all of it is there.
    pub(super) fn taken_up(&self, disk: &FaultDisk, setup: &Setup) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| format!("a transfer taken up: {error}");
        let files = snapshots(disk, setup.files, self.group).map_err(|error| told(&error))?;
        self.receive(&files).map_err(|error| told(&error))?;
        let mut reader = files.read(&self.snapshot).map_err(|error| told(&error))?;
        let mut content = Vec::new();
        reader
            .read_to_end(&mut content)
            .map_err(|error| told(&error))?;
        if content == content_of(self.snapshot.file.nonce) {
            Ok(())
        } else {
            Err(told(&"holds something else"))
        }
    }
}

/// What the workload's snapshots hold: up to two chunks.
pub(super) fn content_of(nonce: u64) -> Vec<u8> {
    let len = usize::try_from(nonce % 900).expect("below 900");
    nonce.to_le_bytes().into_iter().cycle().take(len).collect()
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
                missing: !damage.missing.is_empty() || damage.snapshot_lost,
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

/// A store opened under any policy, and what recovery told of it.
pub(super) struct Opened {
    store: Store,
    pub(super) recovered: Recovered,
}

/// Opens under this policy. Files are looked after, but not read.
pub(super) fn open_policy(
    disk: &FaultDisk,
    setup: &Setup,
    policy: OnDamage,
    seed: u64,
) -> Result<Opened, Refusal> {
    let (store, recovered) = open_with(disk, setup, policy, seed)?;
    Ok(Opened { store, recovered })
}

impl Opened {
    pub(super) fn commit(&mut self, group: GroupId, write: Write) -> Result<(), String> {
        self.store
            .wal_mut()
            .commit(&[Submission { group, write }])
            .map_err(|error| format!("commit: {error:?}"))
    }

    /// Makes the file of this snapshot, unless it is there already.
    pub(super) fn write_file(
        &self,
        group: GroupId,
        mut drawn: Snapshot,
    ) -> Result<Snapshot, String> {
        self.store.write_file(group, &mut drawn)?;
        Ok(drawn)
    }
}

/// Makes this node the only voter of group 0.
pub(super) fn force(disk: &FaultDisk, setup: &Setup, seed: u64) -> Result<(), String> {
    let wanted = ForcedVoters {
        group: GroupId(0),
        voters: vec![NodeId(1)],
    };
    let options = options(setup, OnDamage::Refuse);
    let disk = Arc::new(disk.clone());
    duraft_storage::force_configuration(disk, &identity(), options, entropy(seed), &wanted)
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Makes a store of a node that joins.
pub(super) fn join(disk: &FaultDisk, setup: &Setup, join: JoinAs, seed: u64) -> Result<(), String> {
    let groups: Vec<GroupId> = (0..setup.groups).map(GroupId).collect();
    let options = options(setup, OnDamage::Refuse);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    duraft_storage::bootstrap_joining(&disk, &identity(), &options, entropy(seed), &groups, join)
        .map_err(|error| error.to_string())
}

/// What the log under test was last told of a group.
#[derive(Clone, Default)]
struct Known {
    hard: HardState,
    snapshot: Option<Snapshot>,
    /// Boundaries of the log.
    ends: Vec<Position>,
}

/// One write in two, as the plant says.
fn parts(plant: Plant, known: &Known, write: Write) -> Vec<Write> {
    let blank = Write {
        hard_state: None,
        snapshot: None,
        truncate: None,
        append: Vec::new(),
        compact: None,
        ..write.clone()
    };
    let reset = write.snapshot.as_ref().is_some_and(|write| write.reset);
    match plant {
        Plant::SplitReset if reset => {
            let first = Write {
                hard_state: None,
                append: Vec::new(),
                ..write.clone()
            };
            let rest = Write {
                snapshot: None,
                ..write
            };
            // The term must not fall behind the snapshot's: it goes first, by itself.
            let term = Write {
                hard_state: rest.hard_state,
                snapshot: None,
                ..first.clone()
            };
            let rest = Write {
                hard_state: None,
                ..rest
            };
            vec![term, first, rest]
        }
        Plant::CompactFirst if write.snapshot.is_some() && write.compact.is_some() => {
            let first = Write {
                snapshot: None,
                ..write.clone()
            };
            let rest = Write {
                hard_state: None,
                append: Vec::new(),
                compact: None,
                ..write
            };
            vec![first, rest]
        }
        Plant::EmptyFirst if reset => {
            let covered = known
                .snapshot
                .as_ref()
                .map_or(Index(0), |s| s.position.index());
            let keep = known.ends.iter().find(|end| end.index() >= covered);
            let first = Write {
                truncate: keep.copied(),
                ..blank
            };
            vec![first, write]
        }
        Plant::SplitVote => match write.hard_state {
            Some(HardState { term, vote }) if vote.is_some() && term > known.hard.term => {
                let first = Write {
                    hard_state: Some(HardState { term, vote: None }),
                    ..blank
                };
                vec![first, write]
            }
            Some(_) | None => vec![write],
        },
        Plant::SplitReset | Plant::CompactFirst | Plant::RecordFirst | Plant::EmptyFirst => {
            vec![write]
        }
    }
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

    /// Makes the file of a snapshot that the workload drew, and writes down which it is.
    pub(super) fn write_file(&self, group: GroupId, drawn: &mut Snapshot) -> Result<(), String> {
        *drawn = if self.plant == Some(Plant::RecordFirst) {
            // Its identity is known, for its content is; the file itself comes later.
            let elsewhere = FaultDisk::new(FaultOptions::default());
            let files = snapshots(&elsewhere, None, group).expect("an empty disk");
            make_file(&files, drawn)?
        } else {
            make_file(&self.files[&group], drawn)?
        };
        Ok(())
    }

    /// Receives a snapshot of a peer.
    pub(super) fn receive_file(&self, arrival: &Arrival) -> Result<(), String> {
        let received = arrival.receive(&self.files[&arrival.group]);
        received.map_err(|error| format!("snapshot file: {error}"))
    }

    /// What comes after the commit that names snapshots.
    pub(super) fn after_commit(&self, writes: &[(GroupId, Write)]) -> Result<(), String> {
        for (group, write) in writes {
            let Some(SnapshotWrite { snapshot, .. }) = &write.snapshot else {
                continue;
            };
            let files = &self.files[group];
            if self.plant == Some(Plant::RecordFirst) {
                make_file(files, snapshot)?;
            }
            let retired = files.retire(snapshot);
            retired.map_err(|error| format!("snapshot file: {error}"))?;
        }
        Ok(())
    }

    /// One group commit of these writes.
    pub(super) fn commit(&mut self, writes: Vec<(GroupId, Write)>) -> Result<(), String> {
        match self.plant {
            None | Some(Plant::RecordFirst) => self.commit_once(writes),
            Some(plant) => {
                for (group, write) in writes {
                    let known = self.known(group)?;
                    for part in parts(plant, &known, write) {
                        self.commit_once(vec![(group, part)])?;
                    }
                }
                Ok(())
            }
        }
    }

    fn commit_once(&mut self, writes: Vec<(GroupId, Write)>) -> Result<(), String> {
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
        for Submission { group, write } in submissions {
            let told = self.told.get_mut(&group).expect("a known group");
            if let Some(hard) = write.hard_state {
                told.0 = hard;
            }
            if let Some(SnapshotWrite { snapshot, .. }) = write.snapshot {
                told.2 = Some(snapshot);
            }
        }
        Ok(())
    }

    fn known(&self, group: GroupId) -> Result<Known, String> {
        let held = self.group(group, false).map_err(|why| format!("{why:?}"))?;
        let ends = held.batches.iter().map(|batch| batch.header.position());
        Ok(Known {
            hard: held.hard,
            snapshot: held.snapshot.clone(),
            ends: std::iter::once(held.start).chain(ends).collect(),
        })
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
