//! What a run is made of. All times are steps of virtual time; a tick of the core is
//! [`SimConfig::TICK`] steps, so that messages and disks can be faster than a tick.

use crate::workload::{KeyValue, Workload};
use duraft::transfer::TransferOptions;
use duraft_core::{Config, GroupId, NodeId, Raft};
use duraft_storage::{SnapshotOptions, WalOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Chances are in 1/10,000.
pub(crate) const CERTAIN: u64 = 10_000;

/// How the network treats messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Least delay of a message.
    pub delay_min: u64,
    /// Largest delay of a message. Messages overtake each other within it.
    pub delay_max: u64,
    /// Chance that a message is lost.
    pub loss: u64,
    /// Chance that a message comes twice.
    pub duplicate: u64,
    /// Chance per tick that the network is cut anew or healed.
    pub repartition: u64,
    /// What a slow link may add to a delay; a third of the links are slow. 0: none is.
    pub slow_max: u64,
    /// What everything to one of the nodes may take longer: it is heard at once and hears late. 0: all
    /// hear alike.
    pub late_max: u64,
}

/// How disks behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskFaults {
    /// Least time between a submission and the end of its sync.
    pub sync_min: u64,
    /// Largest such time.
    pub sync_max: u64,
    /// Chance that a sync takes a hundred times as long.
    pub stall: u64,
    /// Largest extra time until the core hears of a sync.
    pub report_max: u64,
    /// Chance per tick and node that the next write or sync fails.
    pub failure: u64,
    /// Chance per tick and node that its disk is full for a while.
    pub no_space: u64,
    /// Longest such while.
    pub no_space_max: u64,
    /// Syncs say that they succeed and do nothing. No protocol survives such disks; tests use them
    /// to show that the checks notice.
    pub lies: bool,
    /// Bytes of a sector.
    pub sector_bytes: usize,
}

/// A trouble that one node keeps when everything else has healed: the one that leads after the first hundred
/// ticks. The cluster must get on without it as a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lasting {
    /// What carries entries or pieces of snapshots does not leave it, and all else does: a path that drops
    /// large packets.
    LosesData,
    /// Its log waits so many steps for a sync.
    SlowDisk {
        /// The steps.
        sync: u64,
    },
}

/// What clients ask for. Rates are chances per tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clients {
    /// A new command, or a few of them.
    pub propose: u64,
    /// Most bytes that a command is padded with.
    pub command_bytes_max: u64,
    /// Clients that send plain commands and read.
    pub plain: u64,
    /// Clients that send numbered commands in sessions and send them again until they know.
    pub sessions: u64,
    /// Entries of the log after which an idle session expires.
    pub session_idle_entries: u64,
    /// A linearizable read.
    pub read: u64,
    /// Part of the reads that a lease may vouch for; the others ask a quorum.
    pub by_lease: u64,
    /// A wish that another node leads, or that this one does not.
    pub handover: u64,
    /// A membership change.
    pub change: u64,
}

/// Limits of the driver that a run may make tiny.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most commands without an outcome.
    pub commands_max: usize,
    /// Most own batches given to the core and not applied.
    pub batches_in_flight_max: usize,
}

/// When promises are held against what recovery makes of the synced bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recover {
    /// At every message, every answer to a client, every commit and every crash.
    AtPromises,
    /// At every crash, every hundred ticks and at the end: everything committed is on a quorum's disks.
    AtCrashes,
    /// Only where a node starts.
    Never,
}

/// A whole run but for its length.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Where all choices come from.
    pub seed: u64,
    /// Number of nodes that the cluster begins with, all of them voters.
    pub nodes: u64,
    /// Number of nodes there can be in all; the others join by membership changes.
    pub pool: u64,
    /// The network.
    pub network: Network,
    /// The disks.
    pub disk: DiskFaults,
    /// Chance per tick and node of a crash: at once, in one of the disk operations that come next, or
    /// with one of the messages that it sends next. Where a node writes, the chance is higher.
    pub crash: u64,
    /// Chance that a crash takes any of the other nodes along.
    pub crash_together: u64,
    /// Chance per tick that all nodes crash at once.
    pub blackout: u64,
    /// Chance per tick and node that its process stands still for a while.
    pub pause: u64,
    /// Longest such while.
    pub pause_max: u64,
    /// Part of the crashes that are power losses; the others end only the process.
    pub power_loss: u64,
    /// Longest time that a crashed node is down.
    pub down_max: u64,
    /// Chance that a node which starts again finds its disk damaged, as long as a quorum without
    /// damaged nodes is left. The rest of the disk's life is what recovery and peers make of it.
    pub damage: u64,
    /// How many places of it are damaged at once. As a term and a vote are in more than one, several are
    /// looked for that lose one of them.
    pub damage_places: u64,
    /// Chance that a node which starts again finds one of its batches with another content, and checksums
    /// and digests that fit it, from there on: no broken disk does that, but a wrong copy does.
    pub forge: u64,
    /// Part of these disks that are lost whole.
    pub wipe: u64,
    /// What one of the nodes keeps.
    pub lasting: Option<Lasting>,
    /// What clients do.
    pub clients: Clients,
    /// What state machine there is, and what clients ask of it.
    pub workload: Arc<dyn Workload>,
    /// A node takes a snapshot when it has applied so many bytes since the last one.
    pub snapshot_bytes: Option<u64>,
    /// How snapshots are written.
    pub snapshot: SnapshotOptions,
    /// How snapshots move.
    pub transfer: TransferOptions,
    /// How much faster or slower than any other node's a node's clock may run, in parts per million.
    pub clock_drift_ppm: u32,
    /// Chance per tick and node that its clock jumps ahead. Not where leases rest on clocks.
    pub clock_jump: u64,
    /// Most ticks of a jump.
    pub clock_jump_max: u64,
    /// Chance that a completion of the disk is repeated, late, or of another life.
    pub stale_completion: u64,
    /// Check the core's invariants.
    pub check_invariants: bool,
    /// Check that every step of a core is an action of the specification.
    pub check_spec: bool,
    /// After one of so many steps; 1: after every step.
    pub invariants_every: u64,
    /// When the real recovery code runs on a copy of the synced bytes, beside every start of a node.
    pub recover: Recover,
    /// Drivers hold no lease against their clock: what is left is the core's own count. For tests.
    pub lease_unchecked: bool,
    /// Check that a read shows what was known before it was asked. (The workload judges in any case.)
    pub check_reads: bool,
    /// The core's configuration but for id and seed.
    pub core: Config,
    /// The log's options.
    pub wal: WalOptions,
    /// The driver's limits.
    pub driver: Limits,
    /// Only these occurrences of trouble happen, of those that would: by their numbers. `None`: all.
    pub only: Option<BTreeSet<u64>>,
    /// Keep a line for every event in the report.
    pub trace: bool,
    /// Called with every core at the beginning of its life. Tests plant faults here.
    pub prepare: Option<fn(&mut Raft)>,
}

impl SimConfig {
    /// Steps of virtual time in one tick.
    pub const TICK: u64 = 10;
    /// What a tick stands for where virtual time is compared with real time: the default tick of a
    /// node.
    pub const TICK_SECONDS: f64 = 0.025;
    /// The rate of a clock that is exact.
    pub(crate) const CLOCK_RATE: u64 = 1_000_000;

    /// Makes this a world of partitions and nothing else, in which one node hears late: while it leads,
    /// answers are nearly as old as a voter's patience, and of a later leader it learns last. Rounds are
    /// rare, so that an election may be over before the next one. What is wrong about reads shows here.
    pub fn one_hears_late(&mut self) {
        (self.core.pre_vote, self.core.check_quorum) = (true, true);
        (self.core.election_ticks, self.core.heartbeat_ticks) = (42, 14);
        (self.clock_drift_ppm, self.clock_jump, self.pause) = (0, 0, 0);
        (self.network.delay_max, self.network.loss) = (4, 0);
        (self.network.slow_max, self.network.late_max) = (0, 450);
        self.network.repartition = 200;
        (self.disk.sync_max, self.disk.stall, self.disk.failure) = (4, 0, 0);
        (self.disk.no_space, self.crash, self.blackout) = (0, 0, 0);
        (self.damage, self.wipe, self.snapshot_bytes) = (0, 0, None);
        // Who asks a node that is cut off waits long: there must be enough others.
        (self.clients.plain, self.clients.sessions) = (200, 0);
        (self.clients.propose, self.clients.change) = (1_000, 0);
    }

    /// A quiet cluster of three: no faults, short delays.
    pub fn calm(seed: u64) -> SimConfig {
        let mut core = Config::new(NodeId(0), GroupId(1), seed);
        core.max_batch_bytes = 2048;
        core.append_bytes_max = 4096;
        core.inflight_bytes_max = 16 << 10;
        core.uncommitted_bytes_max = 32 << 10;
        core.unapplied_bytes_max = 8 << 10;
        core.cache_bytes_max = 8 << 10;
        SimConfig {
            seed,
            nodes: 3,
            pool: 3,
            network: Network {
                delay_min: 1,
                delay_max: 5,
                loss: 0,
                duplicate: 0,
                repartition: 0,
                slow_max: 0,
                late_max: 0,
            },
            disk: DiskFaults {
                sync_min: 1,
                sync_max: 10,
                stall: 0,
                report_max: 0,
                failure: 0,
                no_space: 0,
                no_space_max: 1_000,
                lies: false,
                sector_bytes: 512,
            },
            crash: 0,
            crash_together: 0,
            blackout: 0,
            pause: 0,
            pause_max: 1_000,
            power_loss: CERTAIN / 2,
            down_max: 500,
            damage: 0,
            damage_places: 1,
            forge: 0,
            wipe: 0,
            lasting: None,
            clients: Clients {
                propose: CERTAIN / 2,
                command_bytes_max: 200,
                plain: 12,
                sessions: 0,
                session_idle_entries: 1_000_000,
                read: 0,
                by_lease: CERTAIN / 2,
                handover: 0,
                change: 0,
            },
            workload: Arc::new(KeyValue { keys: 3 }),
            snapshot_bytes: None,
            snapshot: SnapshotOptions {
                chunk_bytes: 1024,
                sync_bytes: 4096,
                ..SnapshotOptions::default()
            },
            transfer: TransferOptions {
                piece_bytes: 700,
                window_bytes: 4 << 10,
                burst_bytes_max: 4 << 10,
                resend_ticks: 10,
                give_up_ticks: 100,
                ..TransferOptions::default()
            },
            clock_drift_ppm: 0,
            clock_jump: 0,
            clock_jump_max: 100,
            stale_completion: 0,
            check_invariants: true,
            check_spec: true,
            invariants_every: 1,
            recover: Recover::AtPromises,
            lease_unchecked: false,
            check_reads: true,
            core,
            wal: WalOptions {
                slot_bytes: 32 << 10,
                slots_ready_min: 1,
                slots_max: 1024,
                commit_bytes_max: 8 << 10,
                cache_bytes_max: 4 << 10,
                ..WalOptions::default()
            },
            driver: Limits {
                commands_max: 256,
                batches_in_flight_max: 8,
            },
            only: None,
            trace: false,
            prepare: None,
        }
    }

    /// Everything that keeps this run from being one.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = Vec::new();
        let core = self.core.validate();
        problems.extend(core.iter().map(|problem| format!("core.{problem}")));
        problems.extend(
            self.transfer
                .validate()
                .iter()
                .map(|(field, rule)| format!("transfer.{field} must be {rule}")),
        );
        let wal = self.wal.validate();
        problems.extend(wal.iter().map(|problem| format!("wal.{problem:?}")));
        let append = self
            .core
            .append_bytes_max
            .max(u64::from(self.core.max_batch_bytes) + 64);
        let mut check = |holds: bool, rule: &str| {
            if !holds {
                problems.push(rule.to_string());
            }
        };
        check(
            self.wal.write_bytes_max(1) >= append + append / 8 + 256,
            "a segment takes the write of any append",
        );
        check(
            (1..=7).contains(&self.nodes),
            "there are one to seven nodes",
        );
        check(self.pool >= self.nodes, "the pool has all nodes");
        problems
    }
}
