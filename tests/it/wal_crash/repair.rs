//! Healing that is cut off: a store with a hole is opened for repair, filled batch by batch with what
//! its peers would send, its vote made certain, and called healed. Within every operation of that the
//! power fails; each disk that may be left is opened again, and healed to the end.
//!
//! What is asked, against the model's log and nothing that the store says of itself:
//! - what is held and what is called missing make up the whole log, and no batch is another one;
//! - what was filled and acknowledged is there, and every batch that survived the damage;
//! - the store is damaged until the commit that heals it, and not after it;
//! - what it may have promised is never less than what it had, as long as it is damaged;
//! - healing again from whatever is left leads to the log as it was.
//!
//! The same for the decisions of people: an accepted loss, a membership by force, a joining store. A
//! crash leaves the state before or the state after.

use super::drive::{self, Base, Plan, Story, mix};
use super::engine::{self, Opened};
use super::model::GroupState;
use duraft_core::{
    BatchHeader, GroupId, HardState, Healed, Index, LogId, NodeId, Position, Snapshot,
    SnapshotFile, SnapshotWrite, Term, Write, WriteSeq,
};
use duraft_disk::{Damage, Disk, FaultDisk, Subsets, for_each_crash_state};
use duraft_storage::{GroupDamage, JoinAs, OnDamage, RecoveredGroup};
use std::ops::ControlFlow;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RepairCounts {
    /// Damaged stores healed.
    pub(super) victims: u64,
    /// Those of them with a gap and survivors behind it.
    pub(super) gaps: u64,
    /// Those whose end is proven by a table or mark alone.
    pub(super) ends: u64,
    /// Those that may have lost later batches.
    pub(super) suffixes: u64,
    /// Those that may have lost a vote.
    pub(super) votes: u64,
    /// Those healed by a snapshot in the place of the log.
    pub(super) installs: u64,
    /// Those where the leader cuts off what should not have come back.
    pub(super) cuts: u64,
    /// Crash states opened and checked.
    pub(super) states: u64,
    /// Of them: healthy again.
    pub(super) healed: u64,
}

impl RepairCounts {
    pub(super) fn add(&mut self, other: &RepairCounts) {
        self.victims += other.victims;
        self.gaps += other.gaps;
        self.ends += other.ends;
        self.suffixes += other.suffixes;
        self.votes += other.votes;
        self.installs += other.installs;
        self.cuts += other.cuts;
        self.states += other.states;
        self.healed += other.healed;
    }
}

pub(super) struct RepairSearch<'a> {
    plan: &'a Plan,
    pub(super) counts: RepairCounts,
}

/// A store with a hole, and the log it must have again.
struct Victim {
    disk: FaultDisk,
    group: GroupId,
    truth: GroupState,
    /// What survived, of any place of the log.
    held: Vec<BatchHeader>,
    damage: GroupDamage,
    /// Some of what survived is not of the true log: the hole took its cut.
    cut: bool,
    /// The peers still have all that is missing, in batches.
    fill: bool,
}

/// How far a healing has come.
#[derive(Clone, Default)]
struct Progress {
    /// The last index before the first missing one that was acknowledged.
    prefix: Index,
    vote_certain: bool,
    /// The commit that heals was handed in, and acknowledged.
    submitted: bool,
    healed: bool,
}

impl<'a> RepairSearch<'a> {
    pub(super) fn new(plan: &'a Plan) -> RepairSearch<'a> {
        RepairSearch {
            plan,
            counts: RepairCounts::default(),
        }
    }

    /// Heals up to `most` stores with one block gone, cut off everywhere.
    pub(super) fn heal_all(&mut self, most: usize) -> Result<(), Story> {
        let base = drive::base(self.plan)?;
        for victim in self.victims(&base, most) {
            self.counts.victims += 1;
            let damage = &victim.damage;
            self.counts.gaps += u64::from(!damage.survivors.is_empty());
            self.counts.ends += u64::from(damage.end.is_some());
            self.counts.suffixes += u64::from(damage.lost_suffix);
            self.counts.votes += u64::from(damage.vote_uncertain);
            self.counts.installs += u64::from(!victim.can_be_filled());
            self.counts.cuts += u64::from(victim.cut);
            self.cut_everywhere(&victim)
                .map_err(|why| Story(format!("{why}\nplan {:?}", self.plan)))?;
        }
        Ok(())
    }

    /// Stores with one or two blocks gone that say of a group that something is missing.
    fn victims(&self, base: &Base, most: usize) -> Vec<Victim> {
        let mut victims = Vec::new();
        let mut kinds: Vec<(bool, bool, bool, bool)> = Vec::new();
        let slots = base.disk.list("wal").expect("the slots");
        let blocks = self.plan.setup.slot_bytes / BLOCK;
        for width in [1, 2] {
            for slot in &slots {
                for block in 0..blocks {
                    let disk = base.disk.fork();
                    for gone in block..(block + width).min(blocks) {
                        zero(&disk, &format!("wal/{slot}"), gone, self.plan.sector_bytes);
                    }
                    let Some(victim) = self.victim(base, &disk) else {
                        continue;
                    };
                    let d = &victim.damage;
                    let kind = (
                        d.survivors.is_empty(),
                        d.end.is_some(),
                        d.lost_suffix,
                        d.vote_uncertain,
                    );
                    let seen = kinds.iter().filter(|seen| **seen == kind).count();
                    if seen < 2 && victims.len() < most {
                        kinds.push(kind);
                        victims.push(victim);
                    }
                }
            }
        }
        victims
    }

    fn victim(&self, base: &Base, disk: &FaultDisk) -> Option<Victim> {
        let opened = self.open(&disk.fork(), OnDamage::RepairFromPeers, 1).ok()?;
        let damaged = |(_, told): &(&GroupId, &RecoveredGroup)| told.damage.is_some();
        let mut groups = opened.recovered.groups.iter().filter(damaged);
        let (group, told) = groups.next()?;
        // One damaged group at a time: the others are healed the same way.
        if groups.next().is_some() {
            return None;
        }
        let damage = told.damage.clone()?;
        if damage.snapshot_lost {
            return None;
        }
        let truth = base.expected.oldest().0[group].clone();
        // The last commit, which nothing proves, may go with the blocks: `damage` asks about that.
        if damage.floor < truth.end().id && !damage.lost_suffix {
            return None;
        }
        let held = [told.batches.clone(), damage.survivors.clone()].concat();
        let mut victim = Victim {
            disk: disk.clone(),
            group: *group,
            truth,
            held,
            damage,
            cut: false,
            fill: false,
        };
        let start = victim.truth.start;
        let joins = told.batches.iter().any(|header| header.position() == start);
        let begins = told.start == start || joins;
        victim.fill = begins && victim.damage.loss.0 > start.index();
        victim.cut = victim.common_upto(told).is_some();
        Some(victim)
    }

    fn open(&self, disk: &FaultDisk, policy: OnDamage, seed: u64) -> Result<Opened, String> {
        engine::open_policy(disk, &self.plan.setup, policy, mix(self.plan.seed, seed))
            .map_err(|refusal| format!("{refusal:?}"))
    }

    fn cut_everywhere(&mut self, victim: &Victim) -> Result<(), String> {
        for mutation in 1.. {
            let disk = victim.disk.fork();
            disk.crash_at(mutation);
            let mut progress = Progress::default();
            let done = self.heal(&disk, victim, &mut progress);
            if let Err(why) = &done
                && !disk.crashed()
            {
                return Err(format!("a healthy disk, and yet: {why}"));
            }
            self.check_states(&disk, victim, &progress, mutation)?;
            if !disk.crashed() {
                break;
            }
        }
        Ok(())
    }

    fn check_states(
        &mut self,
        disk: &FaultDisk,
        victim: &Victim,
        progress: &Progress,
        mutation: u64,
    ) -> Result<(), String> {
        let subsets = few(mix(self.plan.seed, mutation));
        let mut first = None;
        let (_, _) = for_each_crash_state(disk, &subsets, |state| {
            self.counts.states += 1;
            let result = self.after_crash(&state.disk, victim, progress);
            match result {
                Ok(()) => ControlFlow::Continue(()),
                Err(why) => {
                    first = Some(format!("{why}\n  after mutation {mutation}, {state}"));
                    ControlFlow::Break(())
                }
            }
        });
        first.map_or(Ok(()), Err)
    }

    /// Is this state one that this progress may leave, and can it be healed?
    fn after_crash(
        &mut self,
        disk: &FaultDisk,
        victim: &Victim,
        progress: &Progress,
    ) -> Result<(), String> {
        let opened = self.open(&disk.fork(), OnDamage::RepairFromPeers, 2)?;
        let told = &opened.recovered.groups[&victim.group];
        let refused = self.open(&disk.fork(), OnDamage::Refuse, 2).is_err();
        match &told.damage {
            None if !progress.submitted => return Err("healthy before it was healed".into()),
            Some(damage) if progress.healed => return Err(format!("healed, and yet {damage}")),
            None if refused => return Err("whole, and refused".into()),
            Some(_) if !refused => return Err("damaged, and not refused".into()),
            None => self.counts.healed += 1,
            Some(damage) => victim.check_damage(damage, progress)?,
        }
        victim.check_log(told, progress)?;
        drop(opened);
        let disk = disk.fork();
        self.heal(&disk, victim, &mut Progress::default())?;
        let healthy = self.open(&disk.durable_view(), OnDamage::Refuse, 3)?;
        victim.check_whole(&healthy.recovered.groups[&victim.group])
    }

    /// Does what the core and the peers do about this damage, from wherever it stands.
    fn heal(
        &self,
        disk: &FaultDisk,
        victim: &Victim,
        progress: &mut Progress,
    ) -> Result<(), String> {
        let mut opened = self.open(disk, OnDamage::RepairFromPeers, 4)?;
        let told = opened.recovered.groups[&victim.group].clone();
        progress.prefix = told
            .batches
            .last()
            .map_or(told.start.index(), BatchHeader::last);
        let Some(damage) = &told.damage else {
            return Ok(());
        };
        let mut writer = Healer {
            opened: &mut opened,
            group: victim.group,
            seq: WriteSeq(0),
        };
        if damage.vote_uncertain {
            // Every other voter has said which term it has: none is later than the truth's.
            let term = Term(victim.truth.hard.term.0.max(told.hard_state.term.0) + 1);
            writer.commit(|write| Write {
                hard_state: Some(HardState {
                    term,
                    vote: Some(NodeId(1)),
                }),
                healed: Some(Healed::Vote),
                ..write
            })?;
            progress.vote_certain = true;
        }
        let survivors = match victim.common_upto(&told) {
            Some(keep) if victim.can_be_filled() => {
                // The hole took a cut, and what was cut off looks like part of the log again. The
                // leader cuts it off once more, and what survives behind it.
                progress.prefix = keep.index();
                writer.commit(|write| Write {
                    truncate: Some(keep),
                    ..write
                })?;
                &[][..]
            }
            _ => &damage.survivors,
        };
        if victim.can_be_filled() {
            for batch in &victim.truth.batches {
                let missing = batch.header.first > progress.prefix;
                let survives = survivors.contains(&batch.header);
                if missing && !survives {
                    let append = vec![batch.clone()];
                    writer.commit(|write| Write { append, ..write })?;
                }
                if missing {
                    progress.prefix = batch.header.last();
                }
            }
        } else if told.start != victim.installed() {
            // Where the log alone was damaged, the snapshot heals it by itself.
            progress.submitted = true;
            writer.install(victim)?;
            progress.prefix = victim.installed().index();
        }
        // From here on nothing is missing.
        progress.submitted = true;
        writer.commit(|write| Write {
            healed: Some(Healed::All),
            ..write
        })?;
        progress.healed = true;
        Ok(())
    }
}

impl Victim {
    /// Can the log be filled, or must a snapshot take its place?
    fn can_be_filled(&self) -> bool {
        self.fill
    }

    /// Where the log must be cut because something in it is not of the true log.
    fn common_upto(&self, told: &RecoveredGroup) -> Option<Position> {
        let own = |header: &&BatchHeader| {
            let truth = self.truth.batches.iter();
            header.first <= self.truth.start.index()
                || truth
                    .map(|batch| batch.header)
                    .any(|batch| batch == **header)
        };
        let survivors = told.damage.iter().flat_map(|damage| &damage.survivors);
        if told
            .batches
            .iter()
            .chain(survivors)
            .all(|header| own(&header))
        {
            return None;
        }
        let common = told.batches.iter().take_while(own).last();
        Some(common.map_or(told.start, |header| header.position()))
    }

    /// Where the leader's snapshot ends: where the log did.
    fn installed(&self) -> Position {
        self.truth.end()
    }

    fn check_damage(&self, damage: &GroupDamage, progress: &Progress) -> Result<(), String> {
        let end = self.truth.end().id;
        if damage.floor < end && !damage.lost_suffix {
            return Err(format!("promised {end}, remembers {}", damage.floor));
        }
        if damage.vote_uncertain && progress.vote_certain {
            return Err("the vote was certain, and is not any more".into());
        }
        let vote_known = self.damage.vote_uncertain && !damage.vote_uncertain;
        if vote_known && !progress.vote_certain && !progress.submitted {
            // The commit that makes it certain may have been the last one.
            return Ok(());
        }
        if self.damage.lost_suffix != damage.lost_suffix {
            return Err("later batches were in doubt, and are not any more, or the reverse".into());
        }
        Ok(())
    }

    /// What is held is of the true log, and holds all that was acknowledged or survived.
    fn check_log(&self, told: &RecoveredGroup, progress: &Progress) -> Result<(), String> {
        let damage = told.damage.as_ref();
        let survivors = damage.map_or(&[][..], |damage| &damage.survivors);
        let held: Vec<BatchHeader> = told.batches.iter().chain(survivors).copied().collect();
        let truth: Vec<BatchHeader> = self.truth.batches.iter().map(|b| b.header).collect();
        let end = held.last().map_or(told.start.index(), BatchHeader::last);
        // The hole may have taken a cut: then what the leader's snapshot replaces reached further.
        let replaced = told.start == self.installed() && !self.can_be_filled();
        if end < progress.prefix && !replaced {
            return Err(format!(
                "acknowledged up to {}, holds up to {end}",
                progress.prefix
            ));
        }
        let cut = self.cut && damage.is_none_or(|damage| damage.missing.is_empty());
        if replaced || cut {
            return Ok(());
        }
        if let Some(gone) = self.held.iter().find(|header| !held.contains(header)) {
            return Err(format!("the survivor at {} is gone", gone.first));
        }
        for header in &held {
            if !truth.contains(header) && !self.held.contains(header) {
                return Err(format!("nobody wrote the batch at {}", header.first));
            }
        }
        let mut next = told.start.index().next();
        let mut gaps = Vec::new();
        for header in &held {
            if header.first > next {
                gaps.push((next, header.first.previous()));
            }
            next = header.last().next();
        }
        if let Some(end) = damage.and_then(|damage| damage.end)
            && next <= end.index()
        {
            gaps.push((next, end.index()));
        }
        let missing = damage.map_or(Vec::new(), |damage| damage.missing.clone());
        if gaps == missing {
            Ok(())
        } else {
            Err(format!("held {held:?}, called missing {missing:?}"))
        }
    }

    fn check_whole(&self, told: &RecoveredGroup) -> Result<(), String> {
        if told.damage.is_some() {
            return Err("healed in vain".into());
        }
        let end = told
            .batches
            .last()
            .map_or(told.start, |header| header.position());
        let truth = self.truth.batches.iter().map(|batch| batch.header);
        let whole = truth.filter(|header| header.first > told.start.index());
        let holds = whole.clone().all(|header| told.batches.contains(&header));
        if end == self.truth.end() && holds {
            Ok(())
        } else {
            Err(format!("healed to {told:?}, not to {}", self.truth.show()))
        }
    }
}

/// One group's writes of a life.
struct Healer<'a> {
    opened: &'a mut Opened,
    group: GroupId,
    seq: WriteSeq,
}

impl Healer<'_> {
    fn commit(&mut self, fill: impl FnOnce(Write) -> Write) -> Result<(), String> {
        self.seq = self.seq.next();
        let write = fill(Write {
            seq: self.seq,
            hard_state: None,
            snapshot: None,
            truncate: None,
            append: Vec::new(),
            compact: None,
            healed: None,
        });
        self.opened.commit(self.group, write)
    }

    fn install(&mut self, victim: &Victim) -> Result<(), String> {
        let position = victim.installed();
        let file = SnapshotFile {
            nonce: position.digest.0,
            ..SnapshotFile::default()
        };
        let snapshot = Snapshot {
            position,
            membership: victim.truth.membership_at(position.index()),
            file,
        };
        let snapshot = self.opened.write_file(self.group, snapshot)?;
        // What is newer already needs no other.
        let held = self.opened.recovered.groups[&self.group].snapshot.as_ref();
        if held.is_some_and(|held| held.position.index() > position.index()) {
            return Err("the truth is older than the snapshot".into());
        }
        let term = victim.truth.hard.term;
        let hard = self.opened.recovered.groups[&self.group].hard_state;
        // Where the vote was uncertain, the term is a later one already.
        let later = victim.damage.vote_uncertain || hard.term >= term;
        let hard_state = (!later).then_some(HardState { term, vote: None });
        self.commit(|write| Write {
            hard_state,
            snapshot: Some(SnapshotWrite {
                snapshot,
                reset: true,
            }),
            ..write
        })
    }
}

const BLOCK: u64 = 4096;

fn few(seed: u64) -> Subsets {
    Subsets {
        exhaustive_max: 6,
        drawn: 24,
        seed,
        torn: 2,
        dedupe: true,
    }
}

fn zero(disk: &FaultDisk, file: &str, block: u64, sector_bytes: usize) {
    let size = sector_bytes as u64;
    for sector in block * BLOCK / size..(block + 1) * BLOCK / size {
        let _ = disk.damage(file, &Damage::ZeroSector { sector });
    }
}

/// What people decide.
impl RepairSearch<'_> {
    /// Accepts the loss of up to `most` damaged stores, cut off everywhere.
    pub(super) fn accept_all(&mut self, most: usize) -> Result<(), Story> {
        let base = drive::base(self.plan)?;
        for victim in self.victims(&base, most) {
            self.counts.victims += 1;
            self.accept(&victim)
                .map_err(|why| Story(format!("{why}\nplan {:?}", self.plan)))?;
        }
        Ok(())
    }

    fn accept(&mut self, victim: &Victim) -> Result<(), String> {
        let policy = OnDamage::AcceptLoss {
            group: victim.group,
            range: victim.damage.loss,
        };
        let after = self.open(&victim.disk.fork(), policy, 5)?;
        let told = &after.recovered.groups[&victim.group];
        victim.check_accepted(told)?;
        for mutation in 1.. {
            let disk = victim.disk.fork();
            disk.crash_at(mutation);
            let done = self.open(&disk, policy, 5).is_ok();
            let mut first = None;
            let subsets = few(mix(self.plan.seed, mutation));
            let (_, _) = for_each_crash_state(&disk, &subsets, |state| {
                self.counts.states += 1;
                match self.after_accepting(&state.disk, policy, told, victim.group, done) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(why) => {
                        first = Some(format!("{why}\n  after mutation {mutation}, {state}"));
                        ControlFlow::Break(())
                    }
                }
            });
            first.map_or(Ok(()), Err)?;
            if !disk.crashed() {
                break;
            }
        }
        Ok(())
    }

    fn after_accepting(
        &mut self,
        disk: &FaultDisk,
        policy: OnDamage,
        after: &RecoveredGroup,
        group: GroupId,
        done: bool,
    ) -> Result<(), String> {
        let same = |told: &RecoveredGroup| {
            let mut told = told.clone();
            let mut after = after.clone();
            // The note says which open it was.
            for note in told.repairs.iter_mut().chain(&mut after.repairs) {
                note.generation = 0;
            }
            told == after
        };
        match self.open(&disk.fork(), OnDamage::Refuse, 6) {
            Ok(opened) if !same(&opened.recovered.groups[&group]) => {
                let told = &opened.recovered.groups[&group];
                return Err(format!("neither before nor after: {told:?}"));
            }
            Ok(_) => self.counts.healed += 1,
            Err(why) if done => return Err(format!("accepted, and yet {why}")),
            Err(_) => {}
        }
        let disk = disk.fork();
        let again = self.open(&disk, policy, 7)?;
        if !same(&again.recovered.groups[&group]) {
            return Err("accepting again leads elsewhere".into());
        }
        let stays = self.open(&disk.durable_view(), OnDamage::Refuse, 8)?;
        if same(&stays.recovered.groups[&group]) {
            Ok(())
        } else {
            Err("what was accepted does not stay".into())
        }
    }

    /// Forces a membership on a healthy store, cut off everywhere.
    pub(super) fn force(&mut self) -> Result<(), Story> {
        let base = drive::base(self.plan)?;
        let plan = self.plan;
        let told = |why: String| Story(format!("{why}\nplan {plan:?}"));
        let healthy = |search: &Self, disk: &FaultDisk, seed| {
            let opened = search.open(disk, OnDamage::Refuse, seed)?;
            Ok::<_, String>(opened.recovered.groups[&GroupId(0)].clone())
        };
        let before = healthy(self, &base.disk.fork(), 1).map_err(told)?;
        let forced = base.disk.fork();
        engine::force(&forced, &self.plan.setup, 9).map_err(told)?;
        let after = healthy(self, &forced.durable_view(), 2).map_err(told)?;
        check_forced(&before, &after).map_err(told)?;
        for mutation in 1.. {
            let disk = base.disk.fork();
            disk.crash_at(mutation);
            let done = engine::force(&disk, &self.plan.setup, 9).is_ok();
            let mut first = None;
            let subsets = few(mix(self.plan.seed, mutation));
            let (_, _) = for_each_crash_state(&disk, &subsets, |state| {
                self.counts.states += 1;
                let found = healthy(self, &state.disk.fork(), 3);
                let fits = match &found {
                    Ok(found) if *found == after => {
                        self.counts.healed += 1;
                        true
                    }
                    Ok(found) => *found == before && !done,
                    Err(_) => false,
                };
                if fits {
                    return ControlFlow::Continue(());
                }
                first = Some(format!("{found:?}\n  after mutation {mutation}, {state}"));
                ControlFlow::Break(())
            });
            first.map_or(Ok(()), Err).map_err(told)?;
            if !disk.crashed() {
                break;
            }
        }
        Ok(())
    }

    /// Makes a store of a node that joins, cut off everywhere.
    pub(super) fn join(&mut self, join: JoinAs) -> Result<(), Story> {
        let plan = self.plan;
        let told = |why: String| Story(format!("{why}\nplan {plan:?}"));
        for mutation in 1.. {
            let disk = drive::blank(self.plan);
            disk.crash_at(mutation);
            let done = engine::join(&disk, &self.plan.setup, join, 1).is_ok();
            let mut first = None;
            let subsets = few(mix(self.plan.seed, mutation));
            let (_, _) = for_each_crash_state(&disk, &subsets, |state| {
                self.counts.states += 1;
                match self.joined(&state.disk.fork(), join, done) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(why) => {
                        first = Some(format!("{why}\n  after mutation {mutation}, {state}"));
                        ControlFlow::Break(())
                    }
                }
            });
            first.map_or(Ok(()), Err).map_err(told)?;
            if !disk.crashed() {
                break;
            }
        }
        Ok(())
    }

    fn joined(&mut self, disk: &FaultDisk, join: JoinAs, done: bool) -> Result<(), String> {
        let setup = &self.plan.setup;
        if matches!(
            engine::open(&disk.fork(), setup, 2),
            Err(engine::Refusal::NoStore)
        ) {
            if done {
                return Err("made, and not there".into());
            }
            engine::join(disk, setup, join, 3).map_err(|why| format!("again: {why}"))?;
        }
        let refused = self.open(&disk.fork(), OnDamage::Refuse, 4).is_err();
        if refused != (join == JoinAs::Wiped) {
            return Err(format!("{join:?}, refused: {refused}"));
        }
        let opened = self.open(disk, OnDamage::RepairFromPeers, 5)?;
        for (group, told) in &opened.recovered.groups {
            let wiped = told.damage.as_ref();
            let wiped = wiped.is_some_and(|damage| damage.lost_suffix && damage.vote_uncertain);
            if !told.membership.is_unknown() || wiped != (join == JoinAs::Wiped) {
                return Err(format!("group {group}: {told:?}"));
            }
        }
        self.counts.healed += 1;
        Ok(())
    }
}

impl Victim {
    /// What is left when the loss is accepted: a prefix of the true log, or a snapshot of it.
    fn check_accepted(&self, told: &RecoveredGroup) -> Result<(), String> {
        let first = self.damage.loss.0;
        let snapshot = told.snapshot.as_ref();
        let covered = snapshot.map_or(Index(0), |snapshot| snapshot.position.index());
        let kept = self
            .held
            .iter()
            .filter(|header| header.last() < first && header.first > told.start.index());
        let kept: Vec<BatchHeader> = kept.copied().collect();
        let ends = told
            .batches
            .last()
            .map_or(told.start.index(), BatchHeader::last);
        let right = if covered < first {
            told.batches == kept && ends < first
        } else {
            told.start.index() == covered && ends >= covered
        };
        let noted = told.repairs.last().map(|note| (note.first, note.last));
        if told.damage.is_none() && right && noted == Some(self.damage.loss) {
            Ok(())
        } else {
            Err(format!("accepted {:?}: {told:?}", self.damage.loss))
        }
    }
}

fn check_forced(before: &RecoveredGroup, after: &RecoveredGroup) -> Result<(), String> {
    let term = Term(before.hard_state.term.0 + 1);
    let last = |told: &RecoveredGroup| {
        told.batches
            .last()
            .map_or(told.start, |header| header.position())
    };
    let forced = LogId {
        term,
        index: last(before).index().next(),
    };
    let same = after
        .batches
        .split_last()
        .is_some_and(|(_, rest)| rest == before.batches);
    let right = after.hard_state == HardState { term, vote: None }
        && last(after).id == forced
        && after.start == before.start
        && same
        && after.repairs.len() == before.repairs.len() + 1;
    if right {
        Ok(())
    } else {
        Err(format!("forced {before:?} to {after:?}"))
    }
}
