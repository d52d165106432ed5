//! Lives, crashes, and lives after crashes.
//!
//! A life opens the store, checks what it finds, and writes until its script ends or its disk dies.
//! [`Search::explore`] lets the power fail within every disk operation of a life, builds the disks
//! that may be left, opens each, and from some of them lives and crashes again, three deep.

use super::engine::{self, Arrival, Setup, Store};
use super::model::{Expected, Shape, State, draw_write};
use duraft_core::{BatchKind, GroupId, SnapshotWrite, Write};
use duraft_disk::{
    CrashState, DiskOp, Effect, Fault, FaultDisk, FaultOptions, SplitMix64, Subsets,
    for_each_crash_state,
};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Crashes in a row, at most.
pub(super) const DEPTH: usize = 3;

/// One workload and how it is searched.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) sector_bytes: usize,
    pub(super) setup: Setup,
    pub(super) shape: Shape,
    /// Writes of the lives that fill the slots with older lives' blocks before the search begins.
    pub(super) history: Vec<usize>,
    pub(super) levels: [Level; DEPTH],
    /// The disk of the first life acknowledges syncs and does nothing.
    pub(super) syncs_lie: bool,
    /// One life in so many finds no room for another slot when it opens the store; 0 for none.
    pub(super) full_every: u64,
    /// Stop after so many violations: more than one is of interest to ablations only.
    pub(super) violations_max: usize,
}

/// One crash of a chain of crashes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    /// Writes of the life that crashes.
    pub(super) writes: usize,
    /// Outcomes drawn where not all are visited.
    pub(super) drawn: usize,
    /// Up to so many pending items all outcomes are visited.
    pub(super) exhaustive_max: usize,
    /// Outcomes drawn besides in which sectors are torn.
    pub(super) torn: usize,
    /// One in so many crash states is where the next life begins; 0 for none.
    pub(super) descend_every: u64,
    /// One in so many crash points also kills the process alone, keeping the cache; 0 for none.
    pub(super) process_every: u64,
}

/// What a life was doing when its disk died.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Doing {
    /// Opening, appending, voting, cutting, proving.
    #[default]
    Plain,
    /// Taking a snapshot: its file, its record, the removal of older files.
    Take,
    /// Putting one in the place of the log.
    Install,
    /// Compacting the log.
    Compact,
    /// Changing the membership.
    Change,
    /// Receiving a snapshot from a peer.
    Transfer,
}

/// The same, and the snapshot that was coming from a peer.
#[derive(Clone, Default)]
pub(super) struct Task {
    doing: Doing,
    arriving: Option<Arrival>,
}

impl Doing {
    fn of(commit: &[(GroupId, Write)]) -> Doing {
        let any = |doing: &dyn Fn(&Write) -> bool| commit.iter().any(|(_, write)| doing(write));
        let changes = |write: &Write| {
            let kinds = write.append.iter().map(|batch| batch.header.kind);
            kinds.into_iter().any(|kind| kind == BatchKind::Membership)
        };
        if any(&|write| write.snapshot.as_ref().is_some_and(|s| s.reset)) {
            Doing::Install
        } else if any(&|write| write.compact.is_some()) {
            Doing::Compact
        } else if any(&|write| write.snapshot.is_some()) {
            Doing::Take
        } else if any(&changes) {
            Doing::Change
        } else {
            Doing::Plain
        }
    }
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    /// Crash states by what was under way: plain, take, install, compact, change, transfer.
    pub(super) paths: [u64; 6],
    /// Crash states that differ from all others of their plan, in what the disk holds.
    pub(super) distinct: u64,
    /// Crash states with torn sectors.
    pub(super) torn: u64,
    /// Transfers that were cut off, taken up and ended.
    pub(super) taken_up: u64,
    /// Crash states recovered from and checked, by the number of crashes before.
    pub(super) states: [u64; DEPTH],
    /// Moments at which the power failed.
    pub(super) points: u64,
    /// Those of them at which every outcome was visited.
    pub(super) exhaustive: u64,
    /// Process crashes, each followed by a life of its own.
    pub(super) process_crashes: u64,
    /// Recoveries run, checks of idempotence included.
    pub(super) recoveries: u64,
    /// Rules found broken.
    pub(super) violations: u64,
}

impl Counts {
    pub(super) fn total(&self) -> u64 {
        self.states.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Counts) {
        for (sum, more) in self.states.iter_mut().zip(other.states) {
            *sum += more;
        }
        for (sum, more) in self.paths.iter_mut().zip(other.paths) {
            *sum += more;
        }
        self.distinct += other.distinct;
        self.torn += other.torn;
        self.taken_up += other.taken_up;
        self.points += other.points;
        self.exhaustive += other.exhaustive;
        self.process_crashes += other.process_crashes;
        self.recoveries += other.recoveries;
        self.violations += other.violations;
    }
}

/// A broken rule and the way there.
#[derive(Clone, Debug)]
pub(super) struct Story(pub(super) String);

/// Why a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Its disk died before the store was open.
    Opening,
    /// Its disk died afterwards.
    Writing,
    /// The script was over.
    Finished,
}

/// What a life leaves behind.
pub(super) struct Lived {
    pub(super) expected: Expected,
    pub(super) end: End,
    task: Task,
}

/// A disk on which older lives have written, and what it must hold.
pub(super) struct Base {
    pub(super) disk: FaultDisk,
    pub(super) expected: Expected,
    /// Every state that the store was ever in.
    pub(super) history: Vec<Arc<State>>,
    /// How often each slot became a segment.
    pub(super) slot_lives: BTreeMap<Arc<str>, u32>,
}

/// Counts the segments that were begun: each is one write of header, mark and first block.
fn count_lives(disk: &FaultDisk, lives: &mut BTreeMap<Arc<str>, u32>) {
    for entry in disk.trace() {
        if entry.op == DiskOp::Write && entry.offset == 0 && entry.len > 8192 {
            *lives.entry(entry.name).or_insert(0) += 1;
        }
    }
}

pub(super) fn blank(plan: &Plan) -> FaultDisk {
    FaultDisk::new(FaultOptions {
        sector_bytes: plan.sector_bytes,
        ..FaultOptions::default()
    })
}

/// Bootstraps a store and lets the lives of the plan's history write and be killed.
pub(super) fn base(plan: &Plan) -> Result<Base, Story> {
    let mut disk = blank(plan);
    engine::bootstrap(&disk, &plan.setup, plan.seed).map_err(|e| Story(format!("{e:?}")))?;
    let mut expected = Expected::exactly(Arc::new(State::empty(plan.shape.groups)));
    let mut history = Vec::new();
    let mut slot_lives = BTreeMap::new();
    for (life, writes) in plan.history.iter().enumerate() {
        let seed = mix(plan.seed, 0x6869_7374 + life as u64);
        let mut watch = |_, expected: &Expected| history.push(expected.newest().clone());
        disk.start_trace();
        expected = live(&disk, plan, seed, *writes, &expected, &mut watch)?.expected;
        count_lives(&disk, &mut slot_lives);
        disk = disk.power_loss(duraft_disk::Survival::Drawn(seed));
    }
    Ok(Base {
        disk,
        expected,
        history,
        slot_lives,
    })
}

/// What a life has just done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// The store is open.
    Opened,
    /// A commit was acknowledged.
    Committed,
    /// The last commit was proven.
    Receipted,
    /// Slots were made ready.
    Prepared,
    /// The store was closed in order.
    Closed,
}

/// Is told of each moment of a life, with what the store must hold then.
pub(super) type Watch<'a> = &'a mut dyn FnMut(Moment, &Expected);

/// One life: open, check, write.
pub(super) fn live(
    disk: &FaultDisk,
    plan: &Plan,
    seed: u64,
    writes: usize,
    expected: &Expected,
    watch: Watch<'_>,
) -> Result<Lived, Story> {
    let mut expected = expected.clone();
    let every = plan.full_every;
    let opened = if every > 0 && mix(seed, 0x6675_6c6c).is_multiple_of(every) {
        open_on_full_disk(disk, plan, seed, &expected)
    } else {
        open(disk, plan, seed, &expected)
    };
    let (store, found) = match opened {
        Ok(opened) => opened,
        Err(_) if disk.crashed() => {
            return Ok(Lived {
                expected,
                end: End::Opening,
                task: Task::default(),
            });
        }
        Err(story) => return Err(story),
    };
    // What the store has shown must stay.
    expected = Expected::exactly(found);
    watch(Moment::Opened, &expected);
    let mut task = Task::default();
    let script = (seed, writes);
    match write(store, plan, script, &mut expected, &mut task, watch) {
        Ok(()) => Ok(Lived {
            expected,
            end: End::Finished,
            task,
        }),
        Err(_) if disk.crashed() => Ok(Lived {
            expected,
            end: End::Writing,
            task,
        }),
        Err(error) => {
            let state = expected.newest().show();
            Err(Story(format!(
                "a healthy disk, and yet: {error}\n  in {state}"
            )))
        }
    }
}

/// Writes until the script is over or the store refuses.
fn write(
    mut store: Store,
    plan: &Plan,
    (seed, writes): (u64, usize),
    expected: &mut Expected,
    task: &mut Task,
    watch: Watch<'_>,
) -> Result<(), String> {
    let mut rng = SplitMix64::new(seed);
    let mut left = writes;
    while left > 0 {
        let commit = draw_commit(&store, plan, &mut rng, &mut left, expected, task)?;
        let named = naming(&commit);
        task.doing = Doing::of(&commit);
        store.commit(commit)?;
        expected.acknowledge();
        watch(Moment::Committed, expected);
        store.after_commit(&named)?;
        task.doing = Doing::Plain;
        if rng.below(4) == 0 {
            store.receipt()?;
            watch(Moment::Receipted, expected);
        }
        store.prepare()?;
        watch(Moment::Prepared, expected);
    }
    let held = store.state().map_err(|refusal| format!("{refusal:?}"))?;
    if !held.same_logs(expected.newest()) {
        return Err(format!("reads show {}", held.show()));
    }
    if rng.below(3) == 0 {
        store.close()?;
        watch(Moment::Closed, expected);
    }
    Ok(())
}

/// The writes that name snapshots.
pub(super) fn naming(commit: &[(GroupId, Write)]) -> Vec<(GroupId, Write)> {
    let naming = commit.iter().filter(|(_, write)| write.snapshot.is_some());
    naming.cloned().collect()
}

/// The next group commit: one to three writes, as long as they fit. The files of snapshots in them are
/// durable when this returns.
pub(super) fn draw_commit(
    store: &Store,
    plan: &Plan,
    rng: &mut SplitMix64,
    left: &mut usize,
    expected: &mut Expected,
    task: &mut Task,
) -> Result<Vec<(GroupId, Write)>, String> {
    // The one thing on the disk before the commit are the files of snapshots.
    task.arriving = None;
    let mut commit = Vec::new();
    let mut room = store.commit_bytes_max();
    let wanted = (1 + rng.below(3)).min(*left as u64);
    while (commit.len() as u64) < wanted {
        let group = GroupId(rng.below(plan.shape.groups));
        let mut write = draw_write(rng, &plan.shape, group, &expected.newest().0[&group]);
        let names = |of: &Write| of.snapshot.is_some();
        if names(&write) && commit.iter().any(|(id, held)| *id == group && names(held)) {
            // A commit names one snapshot of a group at most, as the pipeline sees to.
            break;
        }
        let Some(rest) = room.checked_sub(engine::cost(group, &write)) else {
            assert!(
                !commit.is_empty(),
                "the plan's largest write fits an empty commit"
            );
            break;
        };
        room = rest;
        if let Some(SnapshotWrite { snapshot, reset }) = &mut write.snapshot {
            if plan.shape.busy && *reset {
                let arrival = Arrival::of(group, snapshot);
                *snapshot = arrival.snapshot.clone();
                task.doing = Doing::Transfer;
                store.receive_file(task.arriving.insert(arrival))?;
            } else {
                task.doing = Doing::Take;
                store.write_file(group, snapshot)?;
            }
        }
        expected.submit(group, &write);
        commit.push((group, write));
    }
    *left -= commit.len();
    Ok(commit)
}

/// Opens the store and checks what it shows.
pub(super) fn open(
    disk: &FaultDisk,
    plan: &Plan,
    seed: u64,
    expected: &Expected,
) -> Result<(Store, Arc<State>), Story> {
    match engine::open(disk, &plan.setup, mix(seed, 0x6f70_656e)) {
        Ok((store, found)) => match expected.find(&found) {
            Some(state) => Ok((store, state)),
            None => Err(Story(format!(
                "wrong state:\n  found {}\n  not {}",
                found.show(),
                expected.show()
            ))),
        },
        // No byte was damaged, so whatever the store complains of is a false alarm.
        Err(refusal) => Err(Story(format!(
            "{refusal:?}\n  should be {}",
            expected.show()
        ))),
    }
}

/// The same, while no file can be made or grow. Where the store says so, once more with room.
fn open_on_full_disk(
    disk: &FaultDisk,
    plan: &Plan,
    seed: u64,
    expected: &Expected,
) -> Result<(Store, Arc<State>), Story> {
    for op in [DiskOp::Create, DiskOp::FillZero] {
        disk.inject(Fault::new(Effect::NoSpace).on(op).forever());
    }
    let opened = open(disk, plan, seed, expected);
    disk.heal();
    match opened {
        Err(story) if story.0.contains("StorageFull") && !disk.crashed() => {
            open(disk, plan, seed, expected)
        }
        opened => opened,
    }
}

/// A search under way.
pub(super) struct Search<'a> {
    pub(super) plan: &'a Plan,
    pub(super) counts: Counts,
    pub(super) stories: Vec<Story>,
    /// Fingerprints of the crash states so far.
    seen: HashSet<u64>,
}

impl<'a> Search<'a> {
    pub(super) fn new(plan: &'a Plan) -> Search<'a> {
        Search {
            plan,
            counts: Counts::default(),
            stories: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// All of it: the base, and every crash of the plan's lives after it.
    pub(super) fn run(plan: &'a Plan) -> Search<'a> {
        let mut search = Search::new(plan);
        match base(plan) {
            Ok(base) => search.explore(0, &base.disk, &base.expected, plan.seed, ""),
            Err(story) => search.tell(story, "in the history"),
        }
        search
    }

    fn enough(&self) -> bool {
        self.stories.len() >= self.plan.violations_max
    }

    fn tell(&mut self, story: Story, path: &str) {
        self.counts.violations += 1;
        if !self.enough() {
            let mut text = story.0;
            let _ = write!(text, "\n{path}\nplan {:?}", self.plan);
            self.stories.push(Story(text));
        }
    }

    /// Lets the power fail within each operation of a life on this disk, and after the last.
    pub(super) fn explore(
        &mut self,
        level: usize,
        start: &FaultDisk,
        expected: &Expected,
        seed: u64,
        path: &str,
    ) {
        let plan = self.plan;
        for mutation in 1.. {
            if self.enough() {
                return;
            }
            let disk = start.fork();
            disk.start_trace();
            disk.crash_at(mutation);
            if plan.syncs_lie && level == 0 {
                disk.inject(Fault::new(Effect::SyncLies).on(DiskOp::SyncData).forever());
            }
            let writes = plan.levels[level].writes;
            let lived = match live(&disk, plan, seed, writes, expected, &mut |_, _| {}) {
                Ok(lived) => lived,
                Err(story) => return self.tell(story, path),
            };
            self.crash_here(level, &disk, &lived, mix(seed, mutation), path);
            if lived.end == End::Finished {
                return;
            }
        }
    }

    /// Checks what the power failing now may leave.
    fn crash_here(&mut self, level: usize, disk: &FaultDisk, lived: &Lived, seed: u64, path: &str) {
        let Level {
            drawn,
            exhaustive_max,
            torn,
            process_every,
            ..
        } = self.plan.levels[level];
        let subsets = Subsets {
            exhaustive_max,
            drawn,
            seed,
            torn,
            dedupe: true,
        };
        let (tally, _) = for_each_crash_state(disk, &subsets, |state| {
            self.check_state(level, disk, lived, &state, seed, path);
            if self.enough() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        self.counts.points += tally.points;
        self.counts.exhaustive += tally.exhaustive;
        let process = process_every > 0 && mix(seed, 0x7072_6f63).is_multiple_of(process_every);
        if process && level + 1 < DEPTH {
            self.counts.process_crashes += 1;
            let path = format!(
                "{path}\n{}\n  then the process was killed",
                show_trace(disk)
            );
            let next = disk.process_crash();
            self.explore(level + 1, &next, &lived.expected, mix(seed, 1), &path);
        }
    }

    fn check_state(
        &mut self,
        level: usize,
        disk: &FaultDisk,
        lived: &Lived,
        state: &CrashState<'_>,
        seed: u64,
        path: &str,
    ) {
        self.counts.states[level] += 1;
        self.counts.paths[lived.task.doing as usize] += 1;
        self.counts.torn += u64::from(!state.tears.is_empty());
        let fingerprint = state.disk.fingerprint();
        self.counts.distinct += u64::from(self.seen.insert(fingerprint));
        let seed = mix(seed, fingerprint);
        let path = || {
            let (trace, fates) = (show_trace(disk), state.fates);
            format!("{path}\n{trace}\n  power lost, {state}\n  fates {fates:?}, next seed {seed}")
        };
        let found = match self.recover_twice(&state.disk, lived, seed) {
            Ok(found) => found,
            Err(story) => return self.tell(story, &path()),
        };
        let every = self.plan.levels[level].descend_every;
        if level + 1 < DEPTH && every > 0 && mix(seed, 0x6465_6570).is_multiple_of(every) {
            // Recovery that is cut off and begun again must come to the same result.
            let expected = Expected::exactly(found);
            self.explore(level + 1, &state.disk, &expected, mix(seed, 2), &path());
        }
    }

    /// Recovers, and of a part of the states recovers once more from what the first one made
    /// durable, and lets a transfer that was cut off go on.
    fn recover_twice(
        &mut self,
        disk: &FaultDisk,
        lived: &Lived,
        seed: u64,
    ) -> Result<Arc<State>, Story> {
        let disk = disk.fork();
        self.counts.recoveries += 1;
        let (store, found) = open(&disk, self.plan, seed, &lived.expected)?;
        drop(store);
        if seed.is_multiple_of(4) {
            self.counts.recoveries += 1;
            let again = disk.power_loss(duraft_disk::Survival::Nothing);
            let exact = Expected::exactly(found.clone());
            open(&again, self.plan, mix(seed, 3), &exact)
                .map_err(|story| Story(format!("recovered twice: {}", story.0)))?;
        }
        if let Some(arrival) = lived.task.arriving.as_ref().filter(|_| seed % 4 == 1) {
            self.counts.taken_up += 1;
            arrival.taken_up(&disk, &self.plan.setup).map_err(Story)?;
        }
        Ok(found)
    }
}

fn show_trace(disk: &FaultDisk) -> String {
    let trace: Vec<String> = disk
        .trace()
        .iter()
        .map(|entry| format!("  {entry}"))
        .collect();
    trace.join("\n")
}

pub(super) fn mix(seed: u64, word: u64) -> u64 {
    SplitMix64::new(seed ^ SplitMix64::new(word).next()).next()
}
