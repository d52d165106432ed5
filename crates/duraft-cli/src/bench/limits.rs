//! Small limits for a node, and the memory that they allow.

use duraft::NodeOptions;

/// What a node keeps of a command besides its bytes: its client, its place in the queues.
const COMMAND_OVERHEAD_BYTES: u64 = 512;

/// Makes a node's limits small, so that what they bound is small.
pub(crate) fn restrict(options: &mut NodeOptions, snapshot_log_bytes: u64) {
    options.snapshot_log_bytes = Some(snapshot_log_bytes);
    options.commands_max = 8192;
    options.command_bytes_max = 8 << 20;
    options.inbox_bytes_max = 8 << 20;
    let core = &mut options.core;
    core.max_batch_bytes = 64 << 10;
    core.append_bytes_max = 256 << 10;
    core.inflight_bytes_max = 4 << 20;
    core.uncommitted_bytes_max = 4 << 20;
    core.unapplied_bytes_max = 4 << 20;
    core.backlog_bytes_max = 4 << 20;
    core.unpersisted_bytes_max = 4 << 20;
    core.cache_bytes_max = 8 << 20;
    core.shape_bytes_max = 8 << 20;
    core.trailing_bytes_max = snapshot_log_bytes;
    let wal = &mut options.wal;
    wal.slot_bytes = 4 << 20;
    wal.slots_ready_min = 2;
    wal.commit_bytes_max = 256 << 10;
    wal.cache_bytes_max = 8 << 20;
    wal.queue_bytes_max = 4 << 20;
}

/// Most memory that the queues, windows and caches of one node of so many may take.
pub(crate) fn memory_of(options: &NodeOptions, nodes: u64) -> u64 {
    let (core, wal) = (&options.core, &options.wal);
    core.cache_bytes_max
        + wal.cache_bytes_max
        + wal.queue_bytes_max
        + core.uncommitted_bytes_max
        + core.unapplied_bytes_max
        + core.backlog_bytes_max
        + core.unpersisted_bytes_max
        + core.shape_bytes_max
        + (nodes - 1) * 2 * core.inflight_bytes_max
        + options.inbox_bytes_max
        + options.command_bytes_max as u64
        + options.commands_max as u64 * COMMAND_OVERHEAD_BYTES
}
