//! The modelled disk: what is durable, and what a storage reads back from it.

use super::*;

/// What survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    pub(crate) batches: Vec<Batch>,
    /// The membership at `start`.
    pub(crate) membership: Membership,
    pub(crate) snapshot: Option<Snapshot>,
}

impl Image {
    /// A disk on which nothing was ever written.
    pub(crate) fn fresh(membership: Membership) -> Image {
        Image {
            hard_state: HardState::default(),
            start: Position::START,
            batches: Vec::new(),
            membership,
            snapshot: None,
        }
    }

    pub(super) fn membership_at(&self, index: Index) -> Membership {
        let memberships = self.memberships();
        let last = memberships.iter().rev().find(|(at, _)| *at <= index);
        last.map_or(&self.membership, |(_, membership)| membership)
            .clone()
    }

    pub(crate) fn last(&self) -> Position {
        (self.batches.last()).map_or(self.start, |batch| batch.header.position())
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

    pub(super) fn apply(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
            if *reset {
                self.start = snapshot.position;
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
            while self.last() != cut {
                self.batches.pop().expect("a cut lies in the stored log");
            }
        }
        for batch in &write.append {
            assert!(batch.header.follows(&self.last()), "writes fit the disk");
            self.batches.push(batch.clone());
        }
        if let Some(start) = write.compact {
            let covered = (self.snapshot.as_ref()).map(|snapshot| snapshot.position.index());
            assert!(
                covered >= Some(start.index()) && self.holds(start.index(), start.digest),
                "B8 what is dropped is covered by a snapshot"
            );
            self.membership = self.membership_at(start.index());
            self.batches
                .retain(|batch| batch.header.first > start.index());
            self.start = start;
        }
    }

    /// Is this log, up to the batch end `index`, equal to one that ends there with `digest`?
    pub(crate) fn holds(&self, index: Index, digest: Digest) -> bool {
        let place = (self.batches).binary_search_by_key(&index, |batch| batch.header.last());
        match place {
            Ok(i) => self.batches[i].header.digest == digest,
            Err(_) if index == self.start.index() => digest == self.start.digest,
            // In the snapshot: committed, and compared when it was.
            Err(_) => index < self.start.index(),
        }
    }
}
