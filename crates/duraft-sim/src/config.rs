//! What a run is made of. All times are steps of virtual time; a tick of the core is
//! [`SimConfig::TICK`] steps, so that messages and disks can be faster than a tick.

use duraft_core::{Config, GroupId, NodeId, Raft, mix64};
use duraft_disk::SplitMix64;
use duraft_storage::WalOptions;

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
    /// Syncs say that they succeed and do nothing. No protocol survives such disks; tests use them
    /// to show that the checks notice.
    pub lies: bool,
    /// Bytes of a sector.
    pub sector_bytes: usize,
}

/// A whole run but for its length.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Where all choices come from.
    pub seed: u64,
    /// Number of nodes, all of them voters.
    pub nodes: u64,
    /// The network.
    pub network: Network,
    /// The disks.
    pub disk: DiskFaults,
    /// Chance per tick and node of a crash.
    pub crash: u64,
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
    /// Chance per tick of a new command.
    pub propose: u64,
    /// Largest command in bytes.
    pub command_bytes_max: u64,
    /// Chance that a completion of the disk is repeated, late, or of another life.
    pub stale_completion: u64,
    /// Check the core's invariants after every step.
    pub check_invariants: bool,
    /// Check every promise against recovery of the synced bytes.
    pub check_promises: bool,
    /// The core's configuration but for id and seed.
    pub core: Config,
    /// The log's options.
    pub wal: WalOptions,
    /// Keep a line for every event in the report.
    pub trace: bool,
    /// Called with every core at the beginning of its life. Tests plant faults here.
    pub prepare: Option<fn(&mut Raft)>,
}

impl SimConfig {
    /// Steps of virtual time in one tick.
    pub const TICK: u64 = 10;

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
            network: Network {
                delay_min: 1,
                delay_max: 5,
                loss: 0,
                duplicate: 0,
                repartition: 0,
            },
            disk: DiskFaults {
                sync_min: 1,
                sync_max: 10,
                stall: 0,
                report_max: 0,
                failure: 0,
                lies: false,
                sector_bytes: 512,
            },
            crash: 0,
            blackout: 0,
            pause: 0,
            pause_max: 1_000,
            power_loss: CERTAIN / 2,
            down_max: 500,
            propose: CERTAIN / 2,
            command_bytes_max: 200,
            stale_completion: 0,
            check_invariants: true,
            check_promises: true,
            core,
            wal: WalOptions {
                slot_bytes: 32 << 10,
                slots_ready_min: 1,
                slots_max: 1024,
                commit_bytes_max: 8 << 10,
                cache_bytes_max: 4 << 10,
                ..WalOptions::default()
            },
            trace: false,
            prepare: None,
        }
    }

    /// A cluster whose every fault rate is drawn from the seed: some runs see one kind of fault
    /// often, others all of them, a few none.
    pub fn from_seed(seed: u64) -> SimConfig {
        let mut rng = SplitMix64::new(mix64(seed ^ 0x5357_4152_4D00));
        // Half of the time a rate is zero, so that other faults are seen alone.
        let mut rate = |max: u64| {
            if rng.below(2) == 0 {
                0
            } else {
                rng.below(max + 1)
            }
        };
        let mut config = SimConfig::calm(seed);
        config.network.loss = rate(2_000);
        config.network.duplicate = rate(2_000);
        config.network.repartition = rate(300);
        config.network.delay_max = 2 + rate(60);
        config.disk.sync_max = 2 + rate(60);
        config.disk.stall = rate(200);
        config.disk.report_max = rate(100);
        config.disk.failure = rate(40);
        config.crash = rate(120);
        config.blackout = rate(15);
        config.pause = rate(60);
        config.pause_max = 10 + rate(2_000);
        config.power_loss = 2_500 + rate(7_500);
        config.stale_completion = rate(2_000);
        config.propose = 500 + rate(9_000);
        config.down_max = 50 + rate(1_500);
        let mut pick = |of: &[u64]| of[usize::try_from(rng.below(of.len() as u64)).unwrap_or(0)];
        config.disk.sector_bytes = if pick(&[0, 1]) == 0 { 512 } else { 4096 };
        config.command_bytes_max = pick(&[16, 200, 1_500]);
        // The log is kept whole, and recovery reads all of it at each check: keep it short.
        config.propose = config
            .propose
            .min(600_000 / (100 + config.command_bytes_max));
        config.wal.slot_bytes = pick(&[16 << 10, 32 << 10, 128 << 10]);
        if config.wal.slot_bytes < 32 << 10 {
            config.core.max_batch_bytes = 1024;
            config.core.append_bytes_max = 2048;
            config.command_bytes_max = config.command_bytes_max.min(900);
        }
        config.wal.mark_every_commits = pick(&[1, 8, 64]);
        config.core.cache_bytes_max = pick(&[0, 2 << 10, 64 << 10]);
        config.core.pre_vote = pick(&[0, 1, 1, 1]) == 1;
        config.core.check_quorum = pick(&[0, 1, 1, 1]) == 1;
        config
    }
}
