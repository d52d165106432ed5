//! Damage at rest: at each quiet moment of a life, every sector of the durable image is damaged in
//! turn, and the store is opened.
//!
//! What may come of it: the same state (the damage is harmless); a typed report; or the loss of
//! commits at the very end that nothing durable proved any more. The last kind is decided here from
//! the trace of the disk, not from the store's own fields:
//! - whatever is written after a commit was acknowledged proves that commit, by the watermark in
//!   the first sector of each such write, and a segment's beginning proves it three times over;
//! - the segment that an open begins proves nothing of what was unproven before: it holds a copy. Nor
//!   does what an open writes again where it stands;
//! - so a commit may vanish in silence only if the damage hit it, hit the first sector of every
//!   later write, and hit the copy if the store was opened since.
//!
//! Two lives are traced: one that nobody damages, so that there are commits from before the last
//! open, and one that is damaged at each quiet moment.

use super::drive::{self, Base, End, Lived, Moment, Plan, Story, mix};
use super::engine::{self, Refusal};
use super::model::{Expected, State};
use duraft_disk::{
    CrashState, Damage, Disk, DiskOp, FaultDisk, PendingKind, SplitMix64, Subsets, Survival,
    TraceEntry, for_each_crash_state,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What came of the damages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct DamageCounts {
    /// Damages done that changed at least one bit.
    pub(super) done: u64,
    /// The store showed the same state, or the same with a compaction forgotten.
    pub(super) harmless: u64,
    /// The store refused, or a read did, and said why.
    pub(super) reported: u64,
    /// The store dropped commits at the end that nothing proved.
    pub(super) unproven: u64,
    /// Reported damages after which the store was opened for repair, twice.
    pub(super) repaired: u64,
    /// Reports on what a receipt stands behind, which told exactly what is lost.
    pub(super) exact: u64,
    /// Damages of two places after which nothing could be opened.
    pub(super) closed: u64,
    /// Rules found broken.
    pub(super) violations: u64,
}

impl DamageCounts {
    pub(super) fn add(&mut self, other: &DamageCounts) {
        self.done += other.done;
        self.harmless += other.harmless;
        self.reported += other.reported;
        self.unproven += other.unproven;
        self.repaired += other.repaired;
        self.exact += other.exact;
        self.closed += other.closed;
        self.violations += other.violations;
    }
}

/// A damage done.
struct Strike<'a> {
    file: &'a str,
    damage: Damage,
    /// To one sector only.
    alone: bool,
}

/// Why a damaged store could not be opened for repair as it should be.
enum Unrepaired {
    /// It says that too much is lost.
    Closed(String),
    /// It says something wrong.
    Wrong(String),
}

/// A commit of the lives under test.
struct Commit {
    /// The state before it.
    before: Arc<State>,
    /// Places in the trace: where the commit began, and where it was acknowledged.
    trace: std::ops::Range<usize>,
}

/// Unit of everything in a slot. A single block at the beginning says 'free' and proves nothing.
const BLOCK: u64 = 4096;

type Sector = (String, u64);

pub(super) struct DamageSearch<'a> {
    plan: &'a Plan,
    pub(super) counts: DamageCounts,
    pub(super) stories: Vec<Story>,
    commits: Vec<Commit>,
    /// What earlier traced lives did to the disk.
    trace: Vec<TraceEntry>,
    /// Where in the trace opens began and ended.
    opens: Vec<std::ops::Range<usize>>,
    /// Where in the trace receipts were durable.
    receipts: Vec<usize>,
    /// States that were ever acknowledged, for what a repaired store may still show.
    history: Vec<Arc<State>>,
}

impl<'a> DamageSearch<'a> {
    fn new(plan: &'a Plan) -> DamageSearch<'a> {
        DamageSearch {
            plan,
            counts: DamageCounts::default(),
            stories: Vec::new(),
            commits: Vec::new(),
            trace: Vec::new(),
            opens: Vec::new(),
            receipts: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Damages the disk at each quiet moment of a life after the plan's history.
    pub(super) fn run(plan: &'a Plan) -> DamageSearch<'a> {
        let mut search = DamageSearch::new(plan);
        if let Err(story) = search.lives() {
            search.tell(story.0);
        }
        search
    }

    /// The same after power losses: within each operation of that life the power fails, and of what
    /// may be left a few disks are damaged in a few places, most of them among the latest writes.
    pub(super) fn run_torn(plan: &'a Plan) -> DamageSearch<'a> {
        let mut search = DamageSearch::new(plan);
        if let Err(story) = search.torn_lives() {
            search.tell(story.0);
        }
        search
    }

    /// The life before the one that is damaged.
    fn first_life(&mut self) -> Result<(FaultDisk, Expected), Story> {
        let Base {
            disk,
            expected,
            history,
            ..
        } = drive::base(self.plan)?;
        self.history = history;
        let lived = self.life(&disk, &expected, 1, false)?;
        Ok((disk.power_loss(Survival::Nothing), lived.expected))
    }

    fn lives(&mut self) -> Result<(), Story> {
        let (disk, expected) = self.first_life()?;
        self.life(&disk, &expected, 2, true)?;
        Ok(())
    }

    fn torn_lives(&mut self) -> Result<(), Story> {
        let (start, expected) = self.first_life()?;
        let (commits, trace) = (self.commits.len(), self.trace.len());
        let (opens, history) = (self.opens.len(), self.history.len());
        let receipts = self.receipts.len();
        for mutation in 1.. {
            self.commits.truncate(commits);
            self.trace.truncate(trace);
            self.opens.truncate(opens);
            self.receipts.truncate(receipts);
            self.history.truncate(history);
            let disk = start.fork();
            disk.crash_at(mutation);
            let lived = self.life(&disk, &expected, 2, false)?;
            if lived.end == End::Opening {
                // The open did not end: what it wrote is its all the same.
                self.opens.push(trace..self.trace.len());
            }
            self.history.extend(lived.expected.states().cloned());
            self.damage_torn(&disk, &lived.expected, mutation);
            if lived.end == End::Finished || self.enough() {
                break;
            }
        }
        Ok(())
    }

    fn damage_torn(&mut self, disk: &FaultDisk, expected: &Expected, mutation: u64) {
        let seed = mix(self.plan.seed, mutation);
        let subsets = Subsets {
            exhaustive_max: 3,
            drawn: 4,
            seed,
            torn: 0,
            dedupe: true,
        };
        let mut rng = SplitMix64::new(seed);
        let recent: Vec<Sector> = self
            .trace
            .iter()
            .rev()
            .filter(|entry| is_proof(entry))
            .take(3)
            .flat_map(|entry| sectors_of(entry, self.plan.sector_bytes))
            .collect();
        let (_, _) = for_each_crash_state(disk, &subsets, |state| {
            let lost: BTreeSet<Sector> = lost_sectors(&state).collect();
            let sectors = all_sectors(&state.disk);
            for _ in 0..6 {
                let drawn = rng.next();
                let recent = (drawn & 3 > 0).then(|| pick(&recent, drawn)).flatten();
                let place = recent.and_then(|wanted| sectors.iter().position(|s| s == wanted));
                let any = usize::try_from(drawn >> 32).expect("32 bits") % sectors.len();
                let place = place.unwrap_or(any);
                self.damage_sector(&state.disk, expected, &sectors, place, &lost, &mut rng);
            }
            if self.enough() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    fn life(
        &mut self,
        disk: &FaultDisk,
        expected: &Expected,
        seed: u64,
        damaged: bool,
    ) -> Result<Lived, Story> {
        disk.start_trace();
        let plan = self.plan;
        let seed = mix(plan.seed, seed);
        let earlier = std::mem::take(&mut self.trace);
        let mut before = expected.newest().clone();
        let mut begun = earlier.len();
        let mut watch = |moment: Moment, expected: &Expected| {
            let next = earlier.len() + disk.trace().len();
            let now = expected.newest().clone();
            match moment {
                Moment::Opened => self.opens.push(begun..next),
                Moment::Committed => {
                    self.commits.push(Commit {
                        before: before.clone(),
                        trace: begun..next,
                    });
                }
                Moment::Receipted => self.receipts.push(next),
                Moment::Prepared | Moment::Closed => {}
            }
            self.history.push(now.clone());
            if damaged && moment != Moment::Prepared {
                self.trace = [earlier.clone(), disk.trace()].concat();
                self.damage_everything(disk, expected);
            }
            before = now;
            begun = next;
        };
        let writes = plan.levels[0].writes;
        let lived = drive::live(disk, plan, seed, writes, expected, &mut watch)?;
        self.trace = [earlier, disk.trace()].concat();
        Ok(lived)
    }

    fn enough(&self) -> bool {
        self.stories.len() >= self.plan.violations_max
    }

    fn tell(&mut self, text: String) {
        self.counts.violations += 1;
        if !self.enough() {
            self.stories
                .push(Story(format!("{text}\nplan {:?}", self.plan)));
        }
    }

    fn damage_everything(&mut self, disk: &FaultDisk, expected: &Expected) {
        let image = disk.durable_view();
        let sectors = all_sectors(&image);
        for place in 0..sectors.len() {
            let seed = mix(self.plan.seed, place as u64 ^ disk.mutations() << 20);
            let mut rng = SplitMix64::new(seed);
            self.damage_sector(
                &image,
                expected,
                &sectors,
                place,
                &BTreeSet::new(),
                &mut rng,
            );
        }
    }

    /// Each kind of damage to one sector. `lost` are sectors that a power loss has taken before.
    fn damage_sector(
        &mut self,
        image: &FaultDisk,
        expected: &Expected,
        sectors: &[Sector],
        place: usize,
        lost: &BTreeSet<Sector>,
        rng: &mut SplitMix64,
    ) {
        for (damage, mut hit) in damages(self.plan.sector_bytes, sectors, place, rng) {
            if self.enough() {
                return;
            }
            let victim = image.fork();
            let file = &sectors[place].0;
            if victim.damage(file, &damage).expect("the sector was listed") {
                self.counts.done += 1;
                let alone = hit.len() == 1;
                hit.extend(lost.iter().cloned());
                let strike = Strike {
                    file,
                    damage,
                    alone,
                };
                self.judge(&victim, expected, &strike, &hit);
            }
        }
    }

    fn judge(
        &mut self,
        victim: &FaultDisk,
        expected: &Expected,
        strike: &Strike<'_>,
        hit: &BTreeSet<Sector>,
    ) {
        let disk = victim.fork();
        let seed = mix(self.plan.seed, victim.fingerprint());
        let problem = match engine::open(&disk, &self.plan.setup, seed) {
            Ok((_, found)) if expected.states().any(|state| found.covers(state)) => {
                self.counts.harmless += 1;
                return;
            }
            Ok((_, found)) => match self.may_vanish(&found, hit) {
                Ok(()) => {
                    self.counts.unproven += 1;
                    return;
                }
                Err(why) => format!("silent: {why}\n  found {}", found.show()),
            },
            Err(Refusal::Damaged(_)) => {
                self.counts.reported += 1;
                match self.repair(victim, expected, hit, seed) {
                    Ok(()) => return,
                    // Two places may take both copies of what says who the store is, or which groups
                    // there are. One may not.
                    Err(Unrepaired::Closed(_)) if !strike.alone => {
                        self.counts.closed += 1;
                        return;
                    }
                    Err(Unrepaired::Closed(why) | Unrepaired::Wrong(why)) => why,
                }
            }
            // Two places at once may take the records of two snapshots and each other's proof. Then the
            // log falls back to one whose file is not kept any more, and whoever opens it sees that.
            Err(Refusal::NoFile(_)) if hit.len() > 1 => {
                self.counts.reported += 1;
                return;
            }
            Err(other) => format!("no report of damage: {other:?}"),
        };
        let trace: Vec<String> = self
            .trace
            .iter()
            .map(|entry| format!("  {entry}"))
            .collect();
        let Strike { file, damage, .. } = strike;
        self.tell(format!(
            "{problem}\n  instead of {}\n{}\n  then '{file}' suffered {damage:?}; gone: {hit:?}",
            expected.show(),
            trace.join("\n"),
        ));
    }

    /// May the store have come back with this state and said nothing?
    fn may_vanish(&self, found: &State, hit: &BTreeSet<Sector>) -> Result<(), String> {
        // The latest commit before which the store was as it is now: all from it on are gone.
        let first_lost = self
            .commits
            .iter()
            .rposition(|commit| found.covers(&commit.before));
        let Some(first_lost) = first_lost else {
            return Err("this state was never acknowledged in these lives".into());
        };
        let Commit { trace: own, .. } = &self.commits[first_lost];
        if !self.trace[own.clone()]
            .iter()
            .any(|entry| self.is_hit(entry, hit))
        {
            return Err(format!("commit {first_lost} was not damaged and is gone"));
        }
        for place in own.end..self.trace.len() {
            let entry = &self.trace[place];
            let gone = if !is_proof(entry) {
                true
            } else if self.opens.iter().any(|open| open.contains(&place)) {
                self.is_hit(entry, hit) || self.writes_again(entry, own)
            } else {
                self.proves_nothing(entry, hit)
            };
            if !gone {
                return Err(format!(
                    "commit {first_lost} is gone, though proven by {entry}"
                ));
            }
        }
        Ok(())
    }

    /// Does this write nothing but sectors that the commit itself had written?
    fn writes_again(&self, entry: &TraceEntry, own: &std::ops::Range<usize>) -> bool {
        let size = self.plan.sector_bytes;
        let own: BTreeSet<Sector> = (self.trace[own.clone()].iter())
            .flat_map(|entry| sectors_of(entry, size))
            .collect();
        (sectors_of(entry, size).iter()).all(|sector| own.contains(sector))
    }

    /// Is every header gone that this write put on the disk?
    fn proves_nothing(&self, entry: &TraceEntry, hit: &BTreeSet<Sector>) -> bool {
        let size = self.plan.sector_bytes as u64;
        let gone = |offset: u64| hit.contains(&(entry.name.to_string(), offset / size));
        if entry.offset > 0 {
            return gone(entry.offset);
        }
        // The segment's header is checked as a whole block; a mark and a block begin with theirs.
        (0..BLOCK).step_by(self.plan.sector_bytes).any(gone) && gone(BLOCK) && gone(2 * BLOCK)
    }

    fn is_hit(&self, entry: &TraceEntry, hit: &BTreeSet<Sector>) -> bool {
        sectors_of(entry, self.plan.sector_bytes)
            .iter()
            .any(|sector| hit.contains(sector))
    }

    /// Opens the damaged store for repair, and once more: it must not look healthy, show nothing
    /// that was never written, and know what it may have promised.
    fn repair(
        &mut self,
        victim: &FaultDisk,
        expected: &Expected,
        hit: &BTreeSet<Sector>,
        seed: u64,
    ) -> Result<(), Unrepaired> {
        let mut disk = victim.fork();
        for life in 0..2 {
            let opened = engine::open_for_repair(&disk, &self.plan.setup, mix(seed, life));
            let (store, report) = match opened {
                Ok(opened) => opened,
                Err(other) => {
                    let why = format!("repair, life {life}: {other:?}");
                    return Err(match other {
                        Refusal::Damaged(_) => Unrepaired::Closed(why),
                        Refusal::NoStore | Refusal::NoFile(_) | Refusal::Other(_) => {
                            Unrepaired::Wrong(why)
                        }
                    });
                }
            };
            let exact = self
                .check_report(&report, expected, hit)
                .and_then(|()| self.check_exact(&report, expected, hit))
                .map_err(|why| Unrepaired::Wrong(format!("repair, life {life}: {why}")))?;
            self.counts.exact += u64::from(exact);
            drop(store);
            disk = disk.power_loss(Survival::Drawn(mix(seed, life)));
        }
        self.counts.repaired += 1;
        Ok(())
    }
}

impl DamageSearch<'_> {
    /// The report must fit what was acknowledged, less what may vanish in silence, or more.
    fn check_report(
        &self,
        report: &Report,
        expected: &Expected,
        hit: &BTreeSet<Sector>,
    ) -> Result<(), String> {
        let why = match report.check(expected.oldest(), &self.history) {
            Ok(()) => return Ok(()),
            Err(why) => why,
        };
        let fits = |state: &Arc<State>| report.check(state, &self.history).is_ok();
        let fits_less = self
            .commits
            .iter()
            .rev()
            .any(|commit| self.may_vanish(&commit.before, hit).is_ok() && fits(&commit.before));
        if fits_less || expected.states().any(fits) {
            Ok(())
        } else {
            Err(why)
        }
    }

    /// RULES.md 17: what is lost in front of a receipt is known exactly. A segment's own beginning is
    /// RULES.md 20.
    fn check_exact(
        &self,
        report: &Report,
        expected: &Expected,
        hit: &BTreeSet<Sector>,
    ) -> Result<bool, String> {
        let in_segment = |sector: &Sector| sector.1 * self.plan.sector_bytes as u64 >= 2 * BLOCK;
        let told = |sector: &Sector| in_segment(sector) && self.has_receipt(sector);
        if hit.len() != 1 || !hit.iter().all(told) {
            return Ok(false);
        }
        for said in &report.damaged {
            let group = said.group;
            if said.lost_suffix || said.vote_uncertain {
                let why = "a receipt tells what is lost, called unknown";
                return Err(format!("group {group}: {why}"));
            }
            let ends = |state: &Arc<State>| Some(state.0.get(&group)?.end().id);
            if !expected
                .states()
                .any(|state| ends(state) == Some(said.floor))
            {
                let (end, floor) = (ends(expected.newest()), said.floor);
                return Err(format!("group {group}: {end:?}, remembers {floor}"));
            }
        }
        Ok(true)
    }

    /// Was this sector written last by a commit, and a receipt after it?
    fn has_receipt(&self, sector: &Sector) -> bool {
        let writes =
            |entry: &TraceEntry| sectors_of(entry, self.plan.sector_bytes).contains(sector);
        let Some(last) = self.trace.iter().rposition(writes) else {
            return false;
        };
        let commit = self
            .commits
            .iter()
            .find(|commit| commit.trace.contains(&last));
        commit.is_some_and(|commit| self.receipts.iter().any(|at| *at > commit.trace.end))
    }
}

/// Does what this operation wrote prove what was acknowledged before it?
fn is_proof(entry: &TraceEntry) -> bool {
    let free_header = entry.offset == 0 && entry.len <= BLOCK;
    entry.op == DiskOp::Write && entry.name.ends_with(".slot") && !free_header
}

fn sectors_of(entry: &TraceEntry, sector_bytes: usize) -> Vec<Sector> {
    if entry.op != DiskOp::Write {
        return Vec::new();
    }
    let size = sector_bytes as u64;
    let sectors = entry.offset / size..(entry.offset + entry.len).div_ceil(size);
    sectors
        .map(|sector| (entry.name.to_string(), sector))
        .collect()
}

/// The pending sectors of which the power loss left nothing, or an older version.
fn lost_sectors<'a>(state: &CrashState<'a>) -> impl Iterator<Item = Sector> + use<'a> {
    let fates = state.fates;
    state
        .point
        .items()
        .iter()
        .enumerate()
        .filter_map(move |(number, item)| match &item.kind {
            PendingKind::Sector { file, sector }
                if usize::from(fates[number]) < item.versions.len() =>
            {
                Some((file.to_string(), *sector))
            }
            PendingKind::Sector { .. } | PendingKind::Length { .. } | PendingKind::Names { .. } => {
                None
            }
        })
}

fn pick(sectors: &[Sector], drawn: u64) -> Option<&Sector> {
    let place = usize::try_from(drawn >> 8 & 0xffff).expect("16 bits");
    sectors.get(place % sectors.len().max(1))
}

/// Every sector of every file of the log. (Snapshot files check themselves, and have their own tests.)
fn all_sectors(disk: &FaultDisk) -> Vec<Sector> {
    let mut sectors = Vec::new();
    for file in files(disk) {
        if file.starts_with("snap/") {
            continue;
        }
        let count = disk.sectors(&file).expect("the file was listed");
        sectors.extend((0..count).map(|sector| (file.clone(), sector)));
    }
    sectors
}

fn files(disk: &FaultDisk) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for name in disk.list(&folder).expect("the folder was listed") {
            let path = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            if disk.list(&path).is_ok() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.sort();
    files
}

/// The damages of one sector, each with the sectors whose content is no longer what was written.
fn damages(
    sector_bytes: usize,
    sectors: &[Sector],
    place: usize,
    rng: &mut SplitMix64,
) -> Vec<(Damage, BTreeSet<Sector>)> {
    let own = &sectors[place];
    let sector = own.1;
    let bit = rng.below(sector_bytes as u64 * 8);
    let drawn = rng.below(sectors.len() as u64);
    let far = sectors[usize::try_from(drawn).expect("a few thousand sectors")].clone();
    let near = sectors[(place + 1) % sectors.len()].clone();
    let alone = || BTreeSet::from([own.clone()]);
    let both = |other: &Sector| BTreeSet::from([own.clone(), other.clone()]);
    let swap = |other: &Sector| Damage::SwapSectors {
        sector,
        other_file: other.0.clone(),
        other: other.1,
    };
    vec![
        (
            Damage::FlipBit {
                offset: sector * sector_bytes as u64 + bit / 8,
                bit: u8::try_from(bit % 8).expect("below 8"),
            },
            alone(),
        ),
        (Damage::ZeroSector { sector }, alone()),
        (Damage::StaleSector { sector }, alone()),
        (
            Damage::GarbageSector {
                sector,
                seed: rng.next(),
            },
            alone(),
        ),
        (swap(&near), both(&near)),
        (swap(&far), both(&far)),
        (
            Damage::Misdirect {
                sector,
                other_file: far.0.clone(),
                other: far.1,
            },
            both(&far),
        ),
    ]
}

/// What a store opened for repair says of itself.
pub(super) struct Report {
    /// What of the log can be read.
    pub(super) readable: State,
    /// What is said of each damaged group.
    pub(super) damaged: Vec<GroupReport>,
}

/// What is said of one damaged group.
pub(super) struct GroupReport {
    pub(super) group: duraft_core::GroupId,
    pub(super) vote_uncertain: bool,
    pub(super) lost_suffix: bool,
    /// Of the log, or the snapshot that it begins with.
    pub(super) missing: bool,
    pub(super) floor: duraft_core::LogId,
}

impl Report {
    fn check(&self, now: &State, history: &[Arc<State>]) -> Result<(), String> {
        if self.damaged.is_empty() {
            return Err("a damaged store looks healthy".into());
        }
        for (group, held) in &self.readable.0 {
            let written = |batch| {
                let of = |state: &Arc<State>| {
                    state
                        .0
                        .get(group)
                        .is_some_and(|s| s.batches.contains(batch))
                };
                history.iter().any(of)
            };
            if let Some(batch) = held.batches.iter().find(|batch| !written(batch)) {
                return Err(format!(
                    "nobody wrote the batch that ends at {}",
                    batch.header.position()
                ));
            }
            let Some(truth) = now.0.get(group) else {
                continue;
            };
            if held.covers(truth) {
                continue;
            }
            let Some(report) = self.damaged.iter().find(|report| report.group == *group) else {
                let held = held.show();
                return Err(format!("group {group} is not reported, and shows {held}"));
            };
            if held.hard != truth.hard && !report.vote_uncertain {
                let (held, truth) = (held.hard, truth.hard);
                return Err(format!(
                    "group {group}: {held:?} for {truth:?}, called certain"
                ));
            }
            // The log may begin at the latest snapshot, whatever became of the vote.
            let mut log = held.clone();
            log.hard = truth.hard;
            if !log.covers(truth) && !report.missing && !report.lost_suffix {
                let (held, truth) = (held.show(), truth.show());
                return Err(format!(
                    "group {group}: batches are gone, nothing is called missing: {held}, not {truth}"
                ));
            }
            if report.floor < truth.end().id && !report.lost_suffix {
                let (floor, end) = (report.floor, truth.end().id);
                return Err(format!("group {group}: promised {end}, remembers {floor}"));
            }
        }
        Ok(())
    }
}
