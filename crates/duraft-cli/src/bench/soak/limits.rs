//! How much disk and memory the options of a soaked node allow.

use super::machine::STATE_BYTES;
use crate::bench::limits::memory_of;
use duraft::NodeOptions;
use serde::Serialize;

/// What the program takes besides its nodes: code, stacks, the load generator.
const PROGRAM_BYTES: u64 = 64 << 20;
/// Largest write besides its commands: header of a block, and rounding up to one.
const COMMIT_OVERHEAD_BYTES: u64 = 4096 + 128;
const RECORD_BYTES: u64 = 64;
/// Head, footer, membership and sessions of a snapshot's file.
const SNAPSHOT_OVERHEAD_BYTES: u64 = 64 << 10;

/// Most that may be seen, per node but for the memory.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Limits {
    pub(super) slots: u64,
    pub(super) log_bytes: u64,
    pub(super) snapshot_bytes: u64,
    /// Of the whole process.
    pub(super) memory_bytes: u64,
}

impl Limits {
    /// Disk: the log holds what trails the latest snapshot, what is applied until the next one is
    /// due, as much again until it is durable, and what is not applied yet. At worst each command of
    /// that is alone in its commit and takes a block of its own. Slots: what that fills, where the
    /// largest commit may not have fitted the rest of a slot; one partly unneeded at the front, one
    /// being written; two that rest, one being made, and those that are kept ready.
    pub(super) fn of(options: &NodeOptions, nodes: u64, value_bytes: u64) -> Limits {
        let (core, wal) = (&options.core, &options.wal);
        let interval = options.snapshot_log_bytes.unwrap_or(u64::MAX / 1024);
        let held = core.trailing_bytes_max
            + 2 * interval
            + core.uncommitted_bytes_max
            + core.backlog_bytes_max
            + core.unapplied_bytes_max;
        let command = RECORD_BYTES + 4 + value_bytes;
        let alone = (command + COMMIT_OVERHEAD_BYTES).next_multiple_of(4096);
        let on_disk = held.div_ceil(command) * alone;
        let fits = wal.slot_bytes - wal.commit_bytes_max - (64 << 10);
        let slots = on_disk.div_ceil(fits) + 5 + wal.slots_ready_min as u64;
        Limits {
            slots,
            log_bytes: slots * wal.slot_bytes,
            // The latest, the one before, and the one being written.
            snapshot_bytes: 3 * (STATE_BYTES + SNAPSHOT_OVERHEAD_BYTES),
            memory_bytes: PROGRAM_BYTES + nodes * memory_of(options, nodes),
        }
    }
}
