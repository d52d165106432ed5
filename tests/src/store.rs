//! What a disk holds once its writes are durable: the meaning of [`Write`], written down a second time.

use crate::Broken;
use crate::wounds::Wounds;
use duraft_core::{
    Batch, BatchKind, HardState, Healed, Index, Membership, Position, Snapshot, SnapshotWrite,
    Write,
};

const B8: &str = "B8 nothing is compacted but what a durable snapshot covers";
const B12: &str = "B12 snapshots never move back";

/// Hard state, log and snapshot as recovery would return them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The boundary before the first stored batch.
    pub start: Position,
    /// The membership there.
    pub membership: Membership,
    /// Term and vote.
    pub hard_state: HardState,
    /// Stored batches in order, up to the first missing one.
    pub batches: Vec<Batch>,
    /// The latest snapshot that the group counts on.
    pub snapshot: Option<Snapshot>,
    /// What is lost, until it is written down that it is not any more.
    pub wounds: Option<Wounds>,
}

impl Store {
    /// A store that holds these batches.
    pub fn new(
        start: Position,
        membership: Membership,
        hard_state: HardState,
        batches: Vec<Batch>,
    ) -> Store {
        let store = Store {
            start,
            membership,
            hard_state,
            batches,
            snapshot: None,
            wounds: None,
        };
        let mut end = start;
        for batch in &store.batches {
            assert!(batch.header.follows(&end), "a log without a gap");
            end = batch.header.position();
        }
        store
    }

    /// The boundary after the last stored batch.
    pub fn last(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, |batch| batch.header.position())
    }

    /// Boundaries behind the first gap that the snapshot of a damaged log makes good: its own, and those of
    /// the survivors that follow it.
    fn made_good(&self) -> Vec<Position> {
        let snapshot = self.snapshot.as_ref().map(|taken| taken.position);
        let beyond = snapshot.filter(|at| at.index() > self.last().index());
        let (Some(wounds), Some(mut end)) = (&self.wounds, beyond) else {
            return Vec::new();
        };
        let mut good = vec![end];
        for survivor in &wounds.survivors {
            if survivor.header.follows(&end) {
                end = survivor.header.position();
                good.push(end);
            }
        }
        good
    }

    /// Where what a new life begins with ends: at the last batch before a gap, or behind it where the
    /// snapshot makes it good.
    pub fn proven(&self) -> Position {
        let good = self.made_good();
        good.last().copied().unwrap_or(self.last())
    }

    /// The boundary at `index`, if a batch ends there or the log starts there.
    pub fn boundary(&self, index: Index) -> Option<Position> {
        if index == self.start.index() {
            return Some(self.start);
        }
        self.batches
            .binary_search_by_key(&index, |batch| batch.header.last())
            .ok()
            .map(|at| self.batches[at].header.position())
            .or_else(|| self.made_good().into_iter().find(|at| at.index() == index))
    }

    /// Does this log hold exactly this prefix?
    pub fn holds(&self, position: &Position) -> bool {
        self.boundary(position.index()) == Some(*position)
    }

    /// Does this log hold exactly this prefix, or stand for it by its snapshot?
    pub fn covers(&self, position: &Position) -> bool {
        self.holds(position) || position.index() < self.start.index()
    }

    /// The batch that begins at `first`.
    pub fn batch_at(&self, first: Index) -> Option<&Batch> {
        self.batches
            .binary_search_by_key(&first, |batch| batch.header.first)
            .ok()
            .map(|at| &self.batches[at])
    }

    /// All batches that can be read, those behind a gap too.
    pub fn readable(&self) -> impl Iterator<Item = &Batch> + '_ {
        let survivors = self.wounds.iter().flat_map(|wounds| &wounds.survivors);
        self.batches.iter().chain(survivors)
    }

    /// The memberships that batches of the log set, in order, by the index of their batch.
    pub fn memberships(&self) -> impl DoubleEndedIterator<Item = (Index, Membership)> + '_ {
        self.batches.iter().filter_map(set_by)
    }

    /// As [`Store::memberships`], and those among the survivors of a damage.
    pub fn memberships_left(&self) -> Vec<(Index, Membership)> {
        self.readable().filter_map(set_by).collect()
    }

    /// The membership that the log up to `index` sets.
    pub fn membership_at(&self, index: Index) -> Membership {
        let set = self.memberships().rfind(|(at, _)| *at <= index);
        set.map_or_else(|| self.membership.clone(), |(_, membership)| membership)
    }

    /// The membership in use: the latest of the log, committed or not.
    pub fn in_use(&self) -> Membership {
        self.membership_at(Index(u64::MAX))
    }

    /// Performs a write, checking that it can be performed (I2, I7): the hard state never goes back,
    /// a vote never changes within its term, truncation names a boundary that is there, appended
    /// batches follow the log without a gap and have a term that this node has adopted, and what is
    /// compacted is covered by a snapshot.
    pub fn apply(&mut self, write: &Write) -> Result<(), Broken> {
        if let Some(new) = write.hard_state {
            self.set_hard_state(write, new)?;
        }
        if let Some(taken) = &write.snapshot {
            self.take_snapshot(write, taken)?;
        }
        if let Some(cut) = write.truncate {
            Broken::unless(self.holds(&cut), "I2 truncation at a held boundary", || {
                format!(
                    "write {} truncates to {cut}, last {}",
                    write.seq,
                    self.last()
                )
            })?;
            self.batches
                .retain(|batch| batch.header.last() <= cut.index());
            if let Some(wounds) = &mut self.wounds {
                wounds.cut();
            }
        }
        for batch in &write.append {
            let end = self.last();
            Broken::unless(batch.header.follows(&end), "I2 no gap", || {
                format!("write {} appends {:?} after {end}", write.seq, batch.header)
            })?;
            let adopted = batch.header.term <= self.hard_state.term;
            Broken::unless(
                adopted,
                "I2 no entry of a term above the hard state",
                || format!("write {} appends {:?}", write.seq, batch.header),
            )?;
            self.batches.push(batch.clone());
            if let Some(wounds) = &mut self.wounds {
                let joined = wounds.joined(&batch.header)?;
                self.batches.extend(joined);
            }
        }
        if let Some(upto) = write.compact {
            self.compact(write, upto)?;
        }
        match write.healed {
            Some(healed) => self.heal(write, healed),
            None => Ok(()),
        }
    }

    fn heal(&mut self, write: &Write, healed: Healed) -> Result<(), Broken> {
        let story = || format!("write {} heals {healed:?}", write.seq);
        let end = self.last().index();
        let Some(wounds) = &mut self.wounds else {
            // A snapshot that replaced the log may have healed it already.
            return Ok(());
        };
        match healed {
            Healed::Vote => {
                wounds.vote_uncertain = false;
                Ok(())
            }
            Healed::All => {
                let whole = wounds.missing_after(end).is_empty();
                self.wounds = None;
                Broken::unless(whole, "R13 a log with a gap is not healed", story)
            }
        }
    }

    fn set_hard_state(&mut self, write: &Write, new: HardState) -> Result<(), Broken> {
        let old = self.hard_state;
        Broken::unless(new.term >= old.term, "I7 term never decreases", || {
            format!("write {} sets {new:?} over {old:?}", write.seq)
        })?;
        let vote_kept = new.term > old.term || old.vote.is_none() || new.vote == old.vote;
        Broken::unless(vote_kept, "I7 vote never changes within a term", || {
            format!("write {} sets {new:?} over {old:?}", write.seq)
        })?;
        self.hard_state = new;
        Ok(())
    }

    fn take_snapshot(&mut self, write: &Write, taken: &SnapshotWrite) -> Result<(), Broken> {
        let position = taken.snapshot.position;
        let before = self.snapshot.as_ref().map(|known| known.position.index());
        Broken::unless(before <= Some(position.index()), B12, || {
            format!("write {} takes {position} after {before:?}", write.seq)
        })?;
        if taken.reset {
            Broken::unless(
                !self.holds(&position),
                "R21 a suffix that fits is kept",
                || format!("write {} resets to {position}", write.seq),
            )?;
            self.start = position;
            self.membership = taken.snapshot.membership.clone();
            self.batches.clear();
            if let Some(wounds) = &mut self.wounds {
                wounds.cut();
            }
            let id = position.id;
            let over = |w: &mut Wounds| !w.lost_suffix && !w.vote_uncertain && w.floor <= id;
            self.wounds.take_if(over);
        } else {
            Broken::unless(self.holds(&position), "a snapshot is of this log", || {
                format!("write {} takes {position}, last {}", write.seq, self.last())
            })?;
            let held = self.membership_at(position.index());
            Broken::unless(
                taken.snapshot.membership == held,
                "a snapshot carries the membership of its place",
                || format!("write {} {:?}, log {held:?}", write.seq, taken.snapshot),
            )?;
        }
        self.snapshot = Some(taken.snapshot.clone());
        Ok(())
    }

    fn compact(&mut self, write: &Write, upto: Position) -> Result<(), Broken> {
        let covered = self.snapshot.as_ref().map(|known| known.position.index());
        Broken::unless(covered >= Some(upto.index()), B8, || {
            format!(
                "write {} compacts to {upto}, snapshot {covered:?}",
                write.seq
            )
        })?;
        let snapshot = self
            .snapshot
            .as_ref()
            .filter(|known| known.position == upto);
        let gone = self.wounds.is_some() && self.last().index() < upto.index();
        Broken::unless(
            self.holds(&upto) || gone && snapshot.is_some(),
            "I2 compaction at a held boundary, or at the snapshot that covers a gap",
            || format!("write {} compacts to {upto}", write.seq),
        )?;
        self.membership = match snapshot.filter(|_| gone) {
            Some(snapshot) => snapshot.membership.clone(),
            None => self.membership_at(upto.index()),
        };
        self.start = upto;
        self.batches
            .retain(|batch| batch.header.first > upto.index());
        let last = self.last();
        if let Some(wounds) = &mut self.wounds {
            // What the snapshot covers is not missing any more.
            let joined = wounds.begin_at(&upto, last);
            self.batches.extend(joined);
        }
        Ok(())
    }
}

fn set_by(batch: &Batch) -> Option<(Index, Membership)> {
    if batch.header.kind != BatchKind::Membership {
        return None;
    }
    let decoded = Membership::decode(&batch.body);
    let decoded = decoded.expect("membership batches are well-formed");
    Some((batch.header.last(), decoded))
}
