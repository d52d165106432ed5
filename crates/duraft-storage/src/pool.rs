//! The pool of slot files: fixed size, fully written, never truncated, never renamed.
//!
//! A slot is *ready* (nothing in it is needed, all of it was written once), *in use* (a segment of the
//! chain), or *resting*: its records are not needed any more, but a reader may still look at it, or
//! the segment that made it unneeded is not proven yet. Were a resting slot written anew too early,
//! one damaged block could take the only copy of what it held.

use crate::errors::is_full;
use crate::format::checksum::Seed;
use crate::format::header::SlotHeader;
use crate::format::{BLOCK_BYTES, block_offset};
use crate::segment::Segment;
use duraft_disk::{Disk, DiskError, DiskFile};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Folder of the slots.
pub(crate) const SLOT_DIR: &str = "wal";

/// Name of a slot file.
pub(crate) fn slot_name(slot: u32) -> String {
    format!("{SLOT_DIR}/{slot:08x}.slot")
}

/// The number of the slot with this name in the slots' folder.
pub(crate) fn slot_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".slot")?;
    let canonical = digits.len() == 8
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    canonical
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A slot that may be written.
pub(crate) struct Slot {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// What a segment is wanted for: how deep it may dig into the slots left for opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// New entries: leaves two slots.
    Append,
    /// Records that let the node vote or free room: leaves one slot.
    Control,
    /// An open, or a segment whose header frees others.
    Open,
}

/// The slots that are left are left for more pressing needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoSlot;

impl Need {
    fn slots_left(self) -> usize {
        match self {
            Need::Append => 2,
            Need::Control => 1,
            Need::Open => 0,
        }
    }
}

/// See the module documentation.
pub(crate) struct Pool {
    disk: Arc<dyn Disk>,
    seed: Seed,
    slot_bytes: u64,
    slots_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Slot>,
    resting: Vec<Resting>,
    /// Slot files that must be filled before use.
    unfilled: VecDeque<u32>,
    next: u32,
    /// Slot files there are or are being made.
    total: usize,
    /// The last attempt to make a slot found no room.
    full: bool,
}

struct Resting {
    segment: Arc<Segment>,
    /// Ready when this commit is proven.
    until: u64,
}

/// What the pool holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolStats {
    /// Slots ready for the next segments.
    pub ready: usize,
    /// Slots that wait for a reader or for proof.
    pub resting: usize,
    /// Slot files in all.
    pub total: usize,
    /// The last attempt to make a slot found no room on the disk.
    pub full: bool,
}

impl Pool {
    pub(crate) fn new(disk: Arc<dyn Disk>, seed: Seed, slot_bytes: u64, slots_max: usize) -> Pool {
        Pool {
            disk,
            seed,
            slot_bytes,
            slots_max,
            state: Mutex::default(),
        }
    }

    /// Takes in the slots recovery found: those that are ready, those that must be filled first, and
    /// the number of files in all.
    pub(crate) fn adopt(&self, ready: Vec<Slot>, unfilled: Vec<u32>, next: u32, total: usize) {
        let mut state = self.state.lock();
        state.ready = ready.into();
        state.unfilled = unfilled.into();
        state.next = next;
        state.total = total;
    }

    /// Are there hardly more slots left than opens need?
    pub(crate) fn is_low(&self) -> bool {
        let state = self.state.lock();
        let can_be_made = self.slots_max.saturating_sub(state.total) + state.unfilled.len();
        state.ready.len() + state.resting.len() + can_be_made <= Need::Append.slots_left() + 1
    }

    /// A ready slot. `Ok(None)`: the need may take one, but none is ready yet.
    pub(crate) fn take(&self, need: Need) -> Result<Option<Slot>, NoSlot> {
        let mut state = self.state.lock();
        let can_be_made = if state.full {
            0
        } else {
            self.slots_max.saturating_sub(state.total) + state.unfilled.len()
        };
        // An open finds resting slots free, so they count as left for it.
        if state.ready.len() + state.resting.len() + can_be_made <= need.slots_left() {
            return Err(NoSlot);
        }
        Ok(state.ready.pop_front())
    }

    /// A segment is no longer needed once commit `until` is proven and nobody reads it.
    pub(crate) fn release(&self, segment: Arc<Segment>, until: u64) {
        self.state.lock().resting.push(Resting { segment, until });
    }

    /// Makes resting slots ready whose time has come.
    pub(crate) fn settle(&self, proven: u64) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.resting.is_empty() {
            return;
        }
        let done = |r: &Resting| r.until <= proven && Arc::strong_count(&r.segment) == 1;
        for resting in state.resting.extract_if(.., |r| done(r)) {
            state.ready.push_back(Slot {
                number: resting.segment.slot,
                file: Arc::clone(&resting.segment.file),
            });
        }
    }

    /// Makes one more slot ready. `Ok(false)`: there may be no more slot files.
    pub(crate) fn prepare(&self) -> Result<bool, DiskError> {
        let (number, is_new) = {
            let mut state = self.state.lock();
            if let Some(number) = state.unfilled.pop_front() {
                (number, false)
            } else if state.total < self.slots_max {
                let number = state.next;
                let Some(next) = number.checked_add(1) else {
                    return Ok(false);
                };
                state.next = next;
                state.total += 1;
                (number, true)
            } else {
                return Ok(false);
            }
        };
        let made = self.fill(number);
        let mut state = self.state.lock();
        match made {
            Ok(file) => {
                state.full = false;
                state.ready.push_back(Slot { number, file });
                Ok(true)
            }
            Err(error) => {
                state.full = is_full(&error);
                if is_new {
                    // The file may be there in part; opening again decides about it.
                    state.total -= 1;
                } else {
                    state.unfilled.push_back(number);
                }
                Err(error)
            }
        }
    }

    /// Writes a slot file once from end to end. The free header comes last, so a slot that has one
    /// is filled.
    fn fill(&self, number: u32) -> Result<Arc<dyn DiskFile>, DiskError> {
        let name = slot_name(number);
        let file = match self.disk.create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&name)?,
            made => made?,
        };
        let filled = self.fill_file(number, &*file);
        if let Err(error) = filled {
            // Give the room back; a file that cannot be removed is filled again later.
            drop(file);
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        self.disk.sync_dir(SLOT_DIR)?;
        Ok(file)
    }

    fn fill_file(&self, number: u32, file: &dyn DiskFile) -> Result<(), DiskError> {
        file.fill_zero(self.slot_bytes)?;
        file.sync_all()?;
        let mut header = vec![0; BLOCK_BYTES];
        SlotHeader::encode_free(number, self.slot_blocks(), self.seed, &mut header);
        file.write_at(&header, block_offset(0))?;
        file.sync_all()
    }

    pub(crate) fn slot_blocks(&self) -> u32 {
        // At most 1 GiB of 4 KiB blocks.
        u32::try_from(self.slot_bytes / BLOCK_BYTES as u64).expect("at most 2^18 blocks")
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let state = self.state.lock();
        PoolStats {
            ready: state.ready.len(),
            resting: state.resting.len(),
            total: state.total,
            full: state.full,
        }
    }

    pub(crate) fn slots_max(&self) -> usize {
        self.slots_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duraft_disk::{DiskOp, Effect, Fault, FaultDisk, FaultOptions};

    fn pool(slots_max: usize) -> (FaultDisk, Pool) {
        let disk = FaultDisk::new(FaultOptions::default());
        disk.create_dir(SLOT_DIR).expect("a working disk");
        let seed = Seed::of(&[1; 16]);
        let pool = Pool::new(Arc::new(disk.clone()), seed, 16 << 10, slots_max);
        (disk, pool)
    }

    /// Ready, resting and unfilled slots, and how many files there are in all.
    fn with(slots_max: usize, ready: u32, resting: u32, unfilled: u32, total: usize) -> Pool {
        let (disk, pool) = pool(slots_max);
        let file = |number: u32| {
            let file = disk.create(&slot_name(number));
            file.expect("a working disk")
        };
        let slots = (0..ready).map(|number| Slot {
            number,
            file: file(number),
        });
        pool.adopt(slots.collect(), (100..100 + unfilled).collect(), 200, total);
        for slot in ready..ready + resting {
            pool.release(Segment::new(1, slot, file(slot)), 9);
        }
        pool
    }

    #[test]
    fn only_names_that_a_slot_is_given_are_slots() {
        assert_eq!(slot_of("0000001f.slot"), Some(31));
        for name in [
            "1f.slot",
            "00000001f.slot",
            "0000001F.slot",
            "+000001f.slot",
            "0000001f",
        ] {
            assert_eq!(slot_of(name), None, "{name}");
        }
    }

    #[test]
    fn what_can_be_had_without_waiting_for_room_is_what_counts_for_scarcity() {
        // Slots that are ready, that rest, that are to be filled, and that may still be made.
        for (ready, resting, unfilled, made, low) in [
            (3, 0, 0, 0, true),
            (4, 0, 0, 0, false),
            (0, 4, 0, 0, false),
            (0, 0, 4, 0, false),
            (0, 0, 0, 4, false),
            (1, 1, 1, 0, true),
            (1, 1, 1, 1, false),
        ] {
            let pool = with(20, ready, resting, unfilled, 20 - made);
            assert_eq!(pool.is_low(), low, "{ready} {resting} {unfilled} {made}");
            let sum = ready as usize + resting as usize + unfilled as usize + made;
            let needs = [Need::Append, Need::Control, Need::Open];
            let may = needs.map(|need| {
                with(20, ready, resting, unfilled, 20 - made)
                    .take(need)
                    .is_ok()
            });
            assert_eq!(may, [sum > 2, sum > 1, sum > 0]);
        }
        for left in 0..4 {
            let needs = [Need::Append, Need::Control, Need::Open];
            let may = needs.map(|need| with(20, 0, 0, left, 20).take(need).is_ok());
            assert_eq!(may, [left > 2, left > 1, left > 0]);
        }
    }

    #[test]
    fn no_more_slots_are_made_than_may_be_and_a_failure_makes_none() {
        let (disk, pool) = pool(2);
        disk.inject(Fault::new(Effect::NoSpace).on(DiskOp::FillZero));
        assert!(pool.prepare().is_err());
        assert_eq!((pool.stats().total, pool.stats().full), (0, true));
        for made in [true, true, false, false] {
            assert_eq!(pool.prepare().expect("a working disk"), made);
        }
        let stats = pool.stats();
        assert_eq!((stats.ready, stats.total, stats.full), (2, 2, false));
        assert_eq!(pool.slots_max(), 2);
    }

    #[test]
    fn a_slot_rests_until_it_is_proven_and_nobody_reads_it() {
        let (disk, pool) = pool(2);
        let file = disk.create(&slot_name(0)).expect("a working disk");
        let segment = Segment::new(1, 0, file);
        pool.release(Arc::clone(&segment), 9);
        pool.settle(9);
        assert_eq!(pool.stats().ready, 0, "somebody reads it");
        drop(segment);
        pool.settle(8);
        assert_eq!(pool.stats().ready, 0, "nothing proves it");
        pool.settle(9);
        assert_eq!((pool.stats().ready, pool.stats().resting), (1, 0));
    }
}
