//! What a test destroys of a node's log, and what recovery makes of it (RULES.md 13 to 17): missing
//! ranges, batches that survive behind them, an end that is known or not, a term that is uncertain.

use crate::cluster::Cluster;
use crate::{Broken, Machine, Store};
use duraft_core::{Batch, BatchHeader, Damage, HardState, Index, LogId, NodeId, Position};
use std::collections::BTreeSet;

const JOIN: &str = "R16 what fills a gap joins the batch behind it";

/// The lost part of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wounds {
    /// Batches behind the first gap, in order.
    pub survivors: Vec<Batch>,
    /// Where the log ended, where something that survived says so and the last batch does not.
    pub end: Option<Position>,
    /// More may have followed.
    pub lost_suffix: bool,
    /// A later term or vote may be lost.
    pub vote_uncertain: bool,
    /// The greatest LogId that may have been acknowledged, as far as known.
    pub floor: LogId,
    /// The last membership batch known of.
    pub last_membership: Index,
}

impl Wounds {
    /// Missing ranges of a log whose unbroken part ends at `end`.
    pub fn missing_after(&self, end: Index) -> Vec<(Index, Index)> {
        let mut missing = Vec::new();
        let mut next = end.next();
        for survivor in &self.survivors {
            if survivor.header.first > next {
                missing.push((next, survivor.header.first.previous()));
            }
            next = survivor.header.last().next();
        }
        if let Some(end) = self.end.filter(|end| end.index() >= next) {
            missing.push((next, end.index()));
        }
        missing
    }

    /// The log was cut before the survivors: they are gone, and the end is where it was cut.
    pub(crate) fn cut(&mut self) {
        self.survivors.clear();
        self.end = None;
    }

    /// The log begins at `start` now, and its unbroken part ends at `last`: what survives before the start
    /// is in the snapshot, what follows the unbroken part is part of it.
    pub(crate) fn begin_at(&mut self, start: &Position, mut last: Position) -> Vec<Batch> {
        self.survivors
            .retain(|batch| batch.header.first > start.index());
        self.end = self.end.filter(|end| end.index() > start.index());
        let mut joined: Vec<Batch> = Vec::new();
        while self
            .survivors
            .first()
            .is_some_and(|next| next.header.follows(&last))
        {
            let next = self.survivors.remove(0);
            last = next.header.position();
            joined.push(next);
        }
        joined
    }

    /// A batch was added to the unbroken part: survivors that follow it belong to that part now.
    pub(crate) fn joined(&mut self, added: &BatchHeader) -> Result<Vec<Batch>, Broken> {
        let story = || format!("{added:?}");
        if let Some(end) = self.end.filter(|end| end.index() <= added.last()) {
            Broken::unless(end == added.position(), JOIN, story)?;
            self.end = None;
        }
        let mut joined: Vec<Batch> = Vec::new();
        let mut last = added.position();
        while let Some(next) = self.survivors.first() {
            if next.header.first > last.index().next() {
                break;
            }
            Broken::unless(next.header.follows(&last), JOIN, story)?;
            last = next.header.position();
            joined.push(self.survivors.remove(0));
        }
        Ok(joined)
    }

    /// Does anything keep this node from voting, leading or acknowledging as before?
    pub fn is_open(&self, end: Index) -> bool {
        self.lost_suffix || self.vote_uncertain || !self.missing_after(end).is_empty()
    }
}

impl Store {
    /// What recovery tells the core of the damage.
    pub fn damage(&self) -> Option<Damage> {
        let wounds = self.wounds.as_ref()?;
        Some(Damage {
            missing: wounds.missing_after(self.last().index()),
            survivors: wounds.survivors.iter().map(|batch| batch.header).collect(),
            end: wounds.end,
            lost_suffix: wounds.lost_suffix,
            vote_uncertain: wounds.vote_uncertain,
            floor: wounds.floor,
            last_membership: wounds.last_membership,
            snapshot_lost: false,
        })
    }
}

/// What a test destroys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loss {
    /// Batches that hold one of these indices are unreadable.
    pub indices: BTreeSet<u64>,
    /// Nothing says where the log ended: what is lost at its end is not even known of.
    pub end_unknown: bool,
    /// Term and vote are uncertain; this is what is left of them.
    pub hard_state: Option<HardState>,
}

/// Batches that hold one of these indices are lost.
pub fn loss(indices: impl IntoIterator<Item = u64>) -> Loss {
    Loss {
        indices: indices.into_iter().collect(),
        ..Loss::default()
    }
}

impl Loss {
    /// And nothing says where the log ended.
    pub fn end_unknown(self) -> Loss {
        Loss {
            end_unknown: true,
            ..self
        }
    }

    /// And of term and vote only this is left.
    pub fn hard_state(self, left: HardState) -> Loss {
        Loss {
            hard_state: Some(left),
            ..self
        }
    }
}

impl Cluster {
    /// Destroys parts of the disk of `id`, which is down. Its next life is told what recovery knows.
    pub fn damage(&mut self, id: NodeId, loss: &Loss) {
        assert!(!self.alive(id), "damage is found when a node starts");
        self.note(|| {
            let lost: Vec<String> = loss.indices.iter().map(u64::to_string).collect();
            format!(
                "n{id} loses {}",
                if lost.is_empty() {
                    "its term".into()
                } else {
                    lost.join(" ")
                }
            )
        });
        self.remember(id);
        let node = self.node_mut(id);
        let store = &mut node.disk.durable;
        let known = store.wounds.take();
        let end = store.last();
        let last_membership = store.memberships().next_back().map(|(at, _)| at);
        let mut all = std::mem::take(&mut store.batches);
        let mut old_end = end;
        if let Some(known) = &known {
            all.extend(known.survivors.iter().cloned());
            old_end = known
                .end
                .unwrap_or(all.last().map_or(end, |b| b.header.position()));
        }
        let lost = |batch: &Batch| {
            let mut range = loss
                .indices
                .range(batch.header.first.0..=batch.header.last().0);
            range.next().is_some()
        };
        let mut left: Vec<Batch> = all.into_iter().filter(|batch| !lost(batch)).collect();
        let mut end = store.start;
        let unbroken = left
            .iter()
            .take_while(|batch| {
                let next = batch.header.follows(&end);
                end = batch.header.position();
                next
            })
            .count();
        let survivors = left.split_off(unbroken);
        store.batches = left;
        let found = survivors
            .last()
            .map_or(store.last(), |b| b.header.position());
        let missing_end = found != old_end;
        let lost_suffix = missing_end && loss.end_unknown;
        let end = (missing_end && !loss.end_unknown).then_some(old_end);
        let floor = end.unwrap_or(found).id;
        store.wounds = Some(Wounds {
            end,
            lost_suffix: lost_suffix || known.as_ref().is_some_and(|known| known.lost_suffix),
            vote_uncertain: loss.hard_state.is_some()
                || known.as_ref().is_some_and(|known| known.vote_uncertain),
            floor: known.as_ref().map_or(floor, |known| known.floor.max(floor)),
            last_membership: last_membership.unwrap_or_default(),
            survivors,
        });
        if let Some(left) = loss.hard_state {
            store.hard_state = left;
        }
        let term = &mut store.hard_state.term;
        *term = (*term).max(found.term());
        node.disk.issued = node.disk.durable.clone();
    }

    fn remember(&mut self, id: NodeId) {
        let node = self.nodes.get(&id).expect("a node of this cluster");
        self.history.damages(id, &node.disk.durable);
    }

    /// `id`, which is down and was a member, comes back with an empty disk (RULES.md 18).
    pub fn wipe(&mut self, id: NodeId) {
        assert!(!self.alive(id), "the disk of a dead node is replaced");
        self.note(|| format!("n{id} loses its disk"));
        self.remember(id);
        let unknown = duraft_core::Membership::unknown();
        let machine = Machine::new(self.options.start, unknown.clone());
        let node = self.node_mut(id);
        let start = Position::START;
        let mut store = Store::new(start, unknown, HardState::default(), Vec::new());
        store.wounds = Some(Wounds {
            survivors: Vec::new(),
            end: None,
            lost_suffix: true,
            vote_uncertain: true,
            floor: LogId::default(),
            last_membership: Index(0),
        });
        node.disk.durable = store.clone();
        node.disk.issued = store;
        node.files.clear();
        node.machine = machine;
    }

    /// An older copy of the disk of `id`, which is down, is put in its place, and nobody is told.
    pub fn put_back(&mut self, id: NodeId, old: Store) {
        assert!(!self.alive(id), "the disk of a dead node is replaced");
        let node = self.node_mut(id);
        node.disk.durable = old.clone();
        node.disk.issued = old;
    }

    /// As [`Cluster::put_back`], with the disk of a node that has never been a member.
    pub fn put_back_empty(&mut self, id: NodeId) {
        let unknown = duraft_core::Membership::unknown();
        let empty = Store::new(Position::START, unknown, HardState::default(), Vec::new());
        self.put_back(id, empty);
    }

    /// Is the log of `id` still known to be damaged, on its disk?
    pub fn is_damaged(&self, id: NodeId) -> bool {
        self.node(id).disk.durable.wounds.is_some()
    }

    /// Did `id` hold a batch before the test destroyed it that nobody holds now?
    pub fn has_lost_for_good(&self, id: NodeId) -> bool {
        let mut before = self.history.before_damage(id);
        before.any(|old| {
            old.readable().any(|batch| {
                let position = batch.header.position();
                let mut stores = self.nodes.values().map(|node| &node.disk.durable);
                let held = |store: &Store| {
                    store.covers(&position) || store.readable().any(|own| own == batch)
                };
                !stores.any(held)
            })
        })
    }

    /// How often `id` has said that it is healed.
    pub fn times_healed(&self, id: NodeId) -> u64 {
        self.node(id).healed
    }
}
