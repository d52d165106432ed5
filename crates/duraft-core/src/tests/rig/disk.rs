//! The modelled disk: what is durable, what a write changes, what a fault destroys, and what recovery
//! then finds.

use super::*;
use crate::rng::Rng;

/// What recovery cannot be sure of, until it is healed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) suffix: bool,
    pub(crate) vote: bool,
    pub(crate) snapshot: bool,
    pub(crate) floor: LogId,
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    /// In order; with gaps where something was destroyed.
    pub(crate) batches: Vec<Batch>,
    /// Where the log ends. Nothing but damage makes this another place than the end of the last batch.
    pub(crate) end: Position,
    /// The membership at `start`.
    pub(crate) membership: Membership,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) lost: Option<Lost>,
}

impl Image {
    /// A disk on which nothing was ever written.
    pub(crate) fn fresh(membership: Membership) -> Image {
        Image {
            hard_state: HardState::default(),
            start: Position::START,
            batches: Vec::new(),
            end: Position::START,
            membership,
            snapshot: None,
            lost: None,
        }
    }

    /// A fresh disk in the place of one that was in use.
    pub(crate) fn wiped() -> Image {
        let lost = Lost {
            suffix: true,
            vote: true,
            ..Lost::default()
        };
        Image {
            lost: Some(lost),
            ..Image::fresh(Membership::unknown())
        }
    }

    fn membership_at(&self, index: Index) -> Membership {
        let memberships = self.memberships();
        let last = memberships.iter().rev().find(|(at, _)| *at <= index);
        last.map_or(&self.membership, |(_, membership)| membership)
            .clone()
    }

    pub(crate) fn last(&self) -> Position {
        self.end
    }

    /// Batches before the first gap.
    fn front(&self) -> usize {
        let mut end = self.start;
        let follows = |batch: &&Batch| {
            let follows = batch.header.follows(&end);
            end = batch.header.position();
            follows
        };
        self.batches.iter().take_while(follows).count()
    }

    /// Where the first gap begins, or the log ends.
    pub(crate) fn front_end(&self) -> Position {
        let front = self.front();
        (front.checked_sub(1)).map_or(self.start, |last| self.batches[last].header.position())
    }

    /// Does everything up to here survive, in the unbroken log or in the snapshot?
    pub(crate) fn stands(&self, index: Index) -> bool {
        let mut end = self.front_end();
        if let Some(snapshot) = &self.snapshot
            && snapshot.position.index() > end.index()
        {
            end = snapshot.position;
            for batch in &self.batches {
                if batch.header.follows(&end) {
                    end = batch.header.position();
                }
            }
        }
        index <= end.index()
    }

    /// The memberships of the membership batches, as a storage reads them back.
    pub(crate) fn memberships(&self) -> Vec<(Index, Membership)> {
        let batches = self.batches.iter();
        batches
            .filter(|batch| batch.header.kind == BatchKind::Membership)
            .map(|batch| {
                let membership = Membership::decode(&batch.body).expect("an honest membership");
                (batch.header.first, membership)
            })
            .collect()
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            let old = self.hard_state;
            assert!(
                hard_state.term > old.term
                    || hard_state.term == old.term
                        && (old.vote.is_none() || old.vote == hard_state.vote),
                "hard states go forward"
            );
            self.hard_state = hard_state;
        }
        if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
            if *reset {
                self.start = snapshot.position;
                self.end = self.start;
                self.membership = snapshot.membership.clone();
                self.batches.clear();
            } else {
                assert!(
                    self.holds(snapshot.position.index(), snapshot.position.digest),
                    "a snapshot stands in the log"
                );
            }
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(cut) = write.truncate {
            let held =
                self.holds(cut.index(), cut.digest) && cut.index() <= self.front_end().index();
            assert!(held, "a cut lies in the unbroken log");
            self.batches
                .retain(|batch| batch.header.last() <= cut.index());
            self.end = cut;
        }
        for batch in &write.append {
            self.append(batch);
        }
        if let Some(start) = write.compact {
            self.compact(start);
        }
        match write.healed {
            None => {}
            Some(Healed::Vote) => self.lost.as_mut().expect("something is lost").vote = false,
            Some(Healed::All) => {
                assert_eq!(self.front_end(), self.end, "no index is missing");
                self.lost = None;
            }
        }
    }

    fn append(&mut self, batch: &Batch) {
        let front = self.front();
        let end = self.front_end();
        assert!(batch.header.follows(&end), "writes fit the disk");
        let last = batch.header.position();
        if end == self.end {
            self.end = last;
        } else {
            let next = self.batches.get(front).map(|next| next.header);
            let behind = next.map_or(self.end.index().next(), |next| next.first);
            let joins = next.map_or(last == self.end, |next| next.follows(&last));
            assert!(
                last.index().next() < behind || last.index().next() == behind && joins,
                "what fills a gap joins the batch behind it"
            );
        }
        self.batches.insert(front, batch.clone());
    }

    fn compact(&mut self, start: Position) {
        let covered = self.snapshot.as_ref().map(|snapshot| snapshot.position);
        let own = covered == Some(start);
        assert!(
            covered.is_some_and(|covered| covered.index() >= start.index())
                && (own || self.holds(start.index(), start.digest)),
            "B8 what is dropped is covered by a snapshot"
        );
        self.membership = match &self.snapshot {
            Some(snapshot) if own => snapshot.membership.clone(),
            Some(_) | None => self.membership_at(start.index()),
        };
        self.batches
            .retain(|batch| batch.header.first > start.index());
        self.start = start;
        if self.end.index() < start.index() {
            self.end = start;
        }
    }

    /// Is this log, up to the batch end `index`, equal to one that ends there with `digest`?
    pub(crate) fn holds(&self, index: Index, digest: Digest) -> bool {
        let place = (self.batches).binary_search_by_key(&index, |batch| batch.header.last());
        match place {
            Ok(i) => self.batches[i].header.digest == digest,
            Err(_) if index == self.start.index() => digest == self.start.digest,
            // In the snapshot: committed, and compared when it was.
            Err(_) => match &self.snapshot {
                Some(snapshot) if index == snapshot.position.index() => {
                    digest == snapshot.position.digest
                }
                Some(snapshot) => index < snapshot.position.index(),
                None => index < self.start.index(),
            },
        }
    }

    /// What recovery finds.
    pub(crate) fn boot(&self, incarnation: Incarnation, applied: Option<Index>) -> Boot {
        let front = self.front();
        let headers = |batches: &[Batch]| batches.iter().map(|batch| batch.header).collect();
        let damage = self.lost.as_ref().map(|lost| {
            let mut missing = Vec::new();
            let mut next = self.front_end().index().next();
            for batch in &self.batches[front..] {
                if batch.header.first > next {
                    missing.push((next, batch.header.first.previous()));
                }
                next = batch.header.last().next();
            }
            if self.end.index() >= next {
                missing.push((next, self.end.index()));
            }
            Damage {
                missing,
                survivors: headers(&self.batches[front..]),
                end: Some(self.end),
                lost_suffix: lost.suffix,
                vote_uncertain: lost.vote,
                floor: lost.floor.max(self.end.id),
                last_membership: Index(0),
                snapshot_lost: lost.snapshot,
            }
        });
        Boot {
            incarnation,
            hard_state: self.hard_state,
            start: self.start,
            batches: headers(&self.batches[..front]),
            membership: self.membership.clone(),
            memberships: self.memberships(),
            snapshot: self.snapshot.clone(),
            applied,
            damage,
        }
    }

    /// Destroys something of what is durable, and returns the batches that are gone. `older` is a hard
    /// state that was durable before the present one.
    pub(crate) fn destroy(&mut self, rng: &mut Rng, older: HardState) -> Vec<Batch> {
        let mut lost = self.lost.take().unwrap_or_default();
        lost.floor = lost.floor.max(self.end.id);
        let count = self.batches.len() as u32;
        let mut gone = Vec::new();
        let kind = rng.below(8);
        if count > 0 && kind < 6 {
            let first = rng.below(count) as usize;
            let len = 1 + rng.below(count - first as u32) as usize;
            match kind {
                // A range in the middle, or up to an end that is known.
                0..3 => gone.extend(self.batches.drain(first..first + len)),
                // A few places here and there.
                3 => {
                    let all = core::mem::take(&mut self.batches);
                    for batch in all {
                        if rng.below(3) == 0 {
                            gone.push(batch);
                        } else {
                            self.batches.push(batch);
                        }
                    }
                }
                // The end, and nobody knows how much.
                _ => {
                    gone.extend(self.batches.drain(first..));
                    self.end =
                        (self.batches.last()).map_or(self.start, |batch| batch.header.position());
                    lost.floor = self.end.id;
                    lost.suffix = true;
                }
            }
        }
        if kind == 7 && self.start != Position::START {
            lost.snapshot = self.snapshot.take().is_some() || lost.snapshot;
        }
        self.lost = Some(lost);
        if kind == 5 || kind == 6 {
            self.lose_vote(older);
        }
        gone
    }

    /// These indices are unreadable; where the log ended is known.
    pub(crate) fn lose(&mut self, indices: core::ops::RangeInclusive<u64>) {
        let mut lost = self.lost.take().unwrap_or_default();
        lost.floor = lost.floor.max(self.end.id);
        self.lost = Some(lost);
        self.batches.retain(|batch| {
            batch.header.last().0 < *indices.start() || batch.header.first.0 > *indices.end()
        });
    }

    /// Everything behind this index is unreadable, and nobody knows what there was.
    pub(crate) fn lose_end(&mut self, after: u64) {
        self.batches.retain(|batch| batch.header.last().0 <= after);
        self.end = self
            .batches
            .last()
            .map_or(self.start, |b| b.header.position());
        self.lost = Some(Lost {
            suffix: true,
            floor: self.end.id,
            ..Lost::default()
        });
    }

    /// The last record of term and vote is unreadable; the one before it is `older`.
    pub(crate) fn lose_vote(&mut self, older: HardState) {
        let mut lost = self.lost.take().unwrap_or_default();
        lost.floor = lost.floor.max(self.end.id);
        lost.vote = true;
        self.hard_state = older;
        let newest = self.end.term().max(lost.floor.term);
        if self.hard_state.term < newest {
            self.hard_state = HardState {
                term: newest,
                vote: None,
            };
        }
        self.lost = Some(lost);
    }
}
