//! Flags of `duraft bench`.

use super::stuck::Part;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What to measure and how hard.
#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) what: Option<What>,

    #[command(flatten)]
    pub(crate) load: LoadArgs,
}

#[derive(Subcommand)]
pub(crate) enum What {
    /// Three durable nodes over loopback TCP (the default).
    Cluster(ClusterArgs),
    /// The write-ahead log alone, used as a group-commit log.
    Wal(WalArgs),
    /// The disk alone: pwrite and fdatasync on a preallocated file.
    Disk,
    /// Very many commands with snapshots on: do disk and memory stay within their bound?
    ///
    /// The bound follows from the options. The log holds at most what is kept behind a snapshot
    /// (--snapshot-log-bytes), what is applied until the next one is due and as much again until it is
    /// durable, and 12 MiB that are not committed or not applied. In slots of 4 MiB that is as much as
    /// the group commits make of it: a commit is rounded up to a block of 4 KiB, so how many bytes a
    /// byte of commands takes depends on how many share a commit. It is measured, over the worst part
    /// of the run between two lines. Seven slots are beside the log: one partly unneeded at its front,
    /// one being written, two that rest before they are used again, one being made, two ready.
    /// Memory: the sum of all caches, windows and queues, each full at once, and 32 MiB.
    #[command(verbatim_doc_comment)]
    Soak(SoakArgs),
    /// One part of three nodes sticks under load: does the memory of all stay within its bound?
    ///
    /// Three nodes in processes of their own, with small limits; more commands are offered than they
    /// have room for. Then one part sticks: a follower's process is stopped, or what one node writes
    /// to its disk does not return, or its state machine does not. The bound is computed from the
    /// limits: caches, windows, queues and the commands without an answer, each full at once.
    ///
    /// Exit code 1 if a node's memory passed the bound, if a majority that does not stick did not go
    /// on meanwhile, if nothing was refused although the leader's state machine stuck, or if the
    /// cluster did not go on and agree after the part was released.
    #[command(verbatim_doc_comment)]
    Stuck(StuckArgs),
    /// Is one result better than another, or is it noise? Unlike machines are refused.
    ///
    /// Exit codes: 0 nothing is worse beyond the noise; 1 something is; 2 cannot compare.
    #[command(after_help = super::COMPARE_EXAMPLES)]
    Compare(super::compare::CompareArgs),
    /// A large snapshot on its way to another process: how much memory does it take?
    Snapshot(SnapshotArgs),
}

#[derive(Args)]
pub(crate) struct SnapshotArgs {
    /// Bytes of the snapshot's content.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) bytes: u64,
}

#[derive(Args)]
pub(crate) struct SoakArgs {
    /// Commands in all.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) commands: u64,

    /// Nodes, all in this process; several are over loopback TCP.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) nodes: u8,

    /// Bytes of log between snapshots, and as many kept behind a snapshot.
    #[arg(long, default_value_t = 4 << 20, value_parser = clap::value_parser!(u64).range(65_536..=1 << 40))]
    pub(crate) snapshot_log_bytes: u64,

    /// Lines printed on the way.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) lines: u32,
}

#[derive(Args)]
pub(crate) struct StuckArgs {
    /// What sticks.
    #[arg(long, value_enum)]
    pub(crate) part: Part,

    /// Whose disk or state machine.
    #[arg(long, value_enum, default_value_t = Whose::Leader)]
    pub(crate) on: Whose,
}

/// The node that is chosen, as it stands when the part sticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Whose {
    /// The one that leads.
    Leader,
    /// One that follows.
    Follower,
}

#[derive(Args, Default)]
pub(crate) struct ClusterArgs {
    /// Run each node in a process of its own.
    #[arg(long)]
    pub(crate) processes: bool,

    /// Kill the leader with SIGKILL under load, restart it, go on. Needs --processes.
    #[arg(long, requires = "processes")]
    pub(crate) kill: bool,
}

#[derive(Args)]
pub(crate) struct WalArgs {
    /// Commands in one batch; a batch is appended and acknowledged as a whole.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) batch: u32,
}

#[derive(Args, Clone)]
pub(crate) struct LoadArgs {
    /// Clients, each with one command outstanding [default: 64; wal: 1; with --rate: 1024].
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) clients: Option<u32>,

    /// Seconds of load, split into the rounds.
    #[arg(long, global = true, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,

    /// Bytes of one command's value, at least 24.
    #[arg(long, global = true, default_value_t = 256, value_parser = clap::value_parser!(u32).range(24..=1_000_000))]
    pub(crate) value_bytes: u32,

    /// Rounds; every round measures the load and then the raw disk.
    #[arg(long, global = true, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: u32,

    /// Folder for the data. Files of an earlier run in it are an error. Without this flag a new
    /// folder is made under ./duraft-data and removed after a good run.
    #[arg(long, global = true)]
    pub(crate) dir: Option<PathBuf>,

    /// Write the result as JSON to this file.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Open loop: so many commands per second begin, whatever the answers do, at most --clients of them
    /// at a time. Latency counts from when a command was to begin. Without it the loop is closed: each
    /// client begins when it has its answer. For `cluster` and `wal`.
    #[arg(long, global = true, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) rate: Option<u64>,

    /// Write the result as one HTML page with charts to this file. It needs nothing else.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Seed of values, nonces and election timeouts.
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) seed: u64,
}
