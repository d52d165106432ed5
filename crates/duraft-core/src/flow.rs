//! When to take no more: every buffer of this node ends somewhere (I8), and whoever fills it is told.
//!
//! | what piles up | because of | who is told |
//! |---|---|---|
//! | batches that are not committed | slow or dead followers | the proposer: `UncommittedLimit` |
//! | writes under way | a slow or dead disk | the proposer: `StorageSaturated`; a leader by silence |
//! | committed batches that are not applied | a slow or dead state machine | the proposer: `UnappliedLimit`; a leader by silence |
//! | appends under way to a peer | that peer | nobody: they wait in the log |
//! | reads | a quorum that does not answer | the reader: `ReadLimit` |
//! | terms on their way to the disk | a dead disk, among nodes that go on electing | their sender, by silence |
//!
//! Each limit in bytes admits one whole batch where there is nothing else: none can refuse for ever
//! (RULES.md 6). A follower that has no room takes what fits and answers nothing to what does not: its
//! leader's window stays full, and one empty question a heartbeat asks whether there is room again.
//! Nobody waits for what only such a leader could bring: disks and state machines catch up by themselves.

use crate::batch::{Batch, DESCRIPTOR_BYTES};
use crate::io::Reject;
use crate::plant::Plant;
use crate::raft::{Raft, TERMS_UNDER_WAY_MAX};

impl Raft {
    /// Why a batch of `cost` bytes is not taken by this leader, if it is not.
    pub(crate) fn refuses_bytes(&self, uncommitted: u64, cost: u64) -> Option<Reject> {
        let over = |held: u64, max: u64| held > 0 && held + cost > max;
        if self.plants.has(Plant::TakesEverything) {
            return None;
        }
        if over(uncommitted, self.config.uncommitted_bytes_max) {
            return Some(Reject::UncommittedLimit);
        }
        if over(self.disk.bytes(), self.config.unpersisted_bytes_max) {
            return Some(Reject::StorageSaturated);
        }
        if over(self.backlog_bytes(), self.config.backlog_bytes_max) {
            return Some(Reject::UnappliedLimit);
        }
        None
    }

    /// Bytes of committed batches that the state machine has not reported applied.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.unapplied_bytes + self.unhanded_bytes
    }

    /// May a largest batch be written, and anything be committed that is to be handed over?
    pub(crate) fn has_room(&self) -> bool {
        let backlog = self.backlog_bytes();
        let applied = backlog == 0 || backlog < self.config.backlog_bytes_max;
        self.disk_has_room() && (applied || self.plants.has(Plant::TakesEverything))
    }

    /// May a largest batch be written? Who takes the one that still fits and refuses the next would be
    /// asked for it again and again.
    pub(crate) fn disk_has_room(&self) -> bool {
        let disk = self.disk.bytes();
        let one = DESCRIPTOR_BYTES + u64::from(self.config.max_batch_bytes);
        let fits = disk == 0 || disk + one <= self.config.unpersisted_bytes_max;
        fits || self.plants.has(Plant::TakesEverything)
    }

    /// How many of these batches a follower takes: as many as fit, and one where nothing else is held.
    pub(crate) fn room_for(&self, batches: &[Batch]) -> usize {
        if self.has_room() {
            self.fits_one_write(batches)
        } else {
            0
        }
    }

    /// How many of these batches are written at once: as many as this node's own appends hold, which its
    /// log has room for whatever the leader's limit is, and as the limit of writes under way admits.
    pub(crate) fn fits_one_write(&self, batches: &[Batch]) -> usize {
        if self.plants.has(Plant::TakesEverything) {
            return batches.len();
        }
        let held = self.disk.bytes();
        let mut bytes = 0;
        let fits = |batch: &&Batch| {
            let first = bytes == 0;
            bytes += batch.cost();
            let fits_disk = held + bytes <= self.config.unpersisted_bytes_max;
            let fits_write = bytes <= self.config.append_bytes_max;
            (fits_disk || (first && held == 0)) && (fits_write || first)
        };
        batches.iter().take_while(fits).count()
    }

    /// Are so many terms on their way to the disk that another one is not heard of?
    pub(crate) fn is_flooded(&self) -> bool {
        let (_, terms) = self.disk.under_way();
        terms >= TERMS_UNDER_WAY_MAX && !self.plants.has(Plant::TakesEverything)
    }
}
