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
