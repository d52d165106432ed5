//! How much disk and memory the options of a soaked node allow.

use super::machine::STATE_BYTES;
use crate::bench::limits::memory_of;
use duraft::NodeOptions;
use serde::Serialize;

/// What the program takes besides its nodes: code, stacks, the load generator.
const PROGRAM_BYTES: u64 = 32 << 20;
/// Head, footer, membership and sessions of a snapshot's file.
const SNAPSHOT_OVERHEAD_BYTES: u64 = 64 << 10;
/// Checkpoint and marks of a segment.
const SEGMENT_OVERHEAD_BYTES: u64 = 64 << 10;

/// Most that may be seen, per node but for the memory.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Limits {
    /// Bytes of batches that the log holds.
    pub(super) held_bytes: u64,
    /// Bytes of a slot that are always filled before the next one is begun.
    filled_bytes: u64,
    /// Slots besides those that hold the log.
    spare_slots: u64,
    pub(super) slot_bytes: u64,
    pub(super) snapshot_bytes: u64,
    /// Of the whole process.
    pub(super) memory_bytes: u64,
}

impl Limits {
    /// Disk: the log holds what trails the latest snapshot, what is applied until the next one is
    /// due, as much again until it is durable, and what is not applied yet. Spare: one slot partly
    /// unneeded at the front, one being written; two that rest, one being made, and those that are
    /// kept ready.
    pub(super) fn of(options: &NodeOptions, nodes: u64) -> Limits {
        let (core, wal) = (&options.core, &options.wal);
        let interval = options.snapshot_log_bytes.unwrap_or(u64::MAX / 1024);
        let held_bytes = core.trailing_bytes_max
            + 2 * interval
            + core.uncommitted_bytes_max
            + core.backlog_bytes_max
            + core.unapplied_bytes_max;
        Limits {
            held_bytes,
            filled_bytes: wal.slot_bytes - wal.commit_bytes_max - SEGMENT_OVERHEAD_BYTES,
            spare_slots: 5 + wal.slots_ready_min as u64,
            slot_bytes: wal.slot_bytes,
            // The latest, the one before, and the one being written.
            snapshot_bytes: 3 * (STATE_BYTES + SNAPSHOT_OVERHEAD_BYTES),
            memory_bytes: PROGRAM_BYTES + nodes * memory_of(options, nodes),
        }
    }

    /// Most slots, where a byte of batches takes so many bytes in its group commits: small commits
    /// are rounded up to a block.
    pub(super) fn slots(&self, stretch: f64) -> u64 {
        let written = self.held_bytes as f64 * stretch.max(1.0);
        let slots = (written / self.filled_bytes as f64).ceil();
        // A few thousand at most, and not negative.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let slots = slots as u64;
        slots + self.spare_slots
    }
}
