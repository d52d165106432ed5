//! What a run is made of. All times are steps of virtual time; a tick of the core is
//! [`SimConfig::TICK`] steps, so that messages and disks can be faster than a tick.

use duraft::transfer::TransferOptions;
use duraft_core::{Config, GroupId, Lease, NodeId, Raft, mix64};
use duraft_disk::SplitMix64;
use duraft_storage::{OnDamage, SnapshotOptions, WalOptions};

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

/// What clients ask for. Rates are chances per tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clients {
    /// A new command, or a few of them.
    pub propose: u64,
    /// Largest command in bytes.
    pub command_bytes_max: u64,
    /// Clients that send numbered commands in sessions and send them again until they know.
    pub sessions: u64,
    /// Entries of the log after which an idle session expires.
    pub session_idle_entries: u64,
    /// A linearizable read.
    pub read: u64,
    /// A wish that another node leads, or that this one does not.
    pub handover: u64,
    /// A membership change.
    pub change: u64,
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
    /// Chance that a node which starts again finds its disk damaged, as long as a quorum without
    /// damaged nodes is left. The rest of the disk's life is what recovery and peers make of it.
    pub damage: u64,
    /// Part of these disks that are lost whole.
    pub wipe: u64,
    /// What clients do.
    pub clients: Clients,
    /// A node takes a snapshot when it has applied so many bytes since the last one.
    pub snapshot_bytes: Option<u64>,
    /// How snapshots are written.
    pub snapshot: SnapshotOptions,
    /// How snapshots move.
    pub transfer: TransferOptions,
    /// How much faster or slower than any other node's a node's clock may run, in parts per million.
    pub clock_drift_ppm: u32,
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
    /// The rate of a clock that is exact.
    pub(crate) const CLOCK_RATE: u64 = 1_000_000;

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
            damage: 0,
            wipe: 0,
            clients: Clients {
                propose: CERTAIN / 2,
                command_bytes_max: 200,
                sessions: 0,
                session_idle_entries: 1_000_000,
                read: 0,
                handover: 0,
                change: 0,
            },
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
        config.clients.propose = 500 + rate(9_000);
        config.down_max = 50 + rate(1_500);
        let mut pick = |of: &[u64]| of[usize::try_from(rng.below(of.len() as u64)).unwrap_or(0)];
        config.disk.sector_bytes = if pick(&[0, 1]) == 0 { 512 } else { 4096 };
        let clients = &mut config.clients;
        clients.command_bytes_max = pick(&[16, 200, 1_500]);
        // Each check runs recovery on the log: keep it short.
        clients.propose = clients
            .propose
            .min(600_000 / (100 + clients.command_bytes_max));
        config.wal.slot_bytes = pick(&[16 << 10, 32 << 10, 128 << 10]);
        if config.wal.slot_bytes < 32 << 10 {
            config.core.max_batch_bytes = 744;
            config.core.append_bytes_max = 744;
            clients.command_bytes_max = clients.command_bytes_max.min(600);
        }
        config.wal.mark_every_commits = pick(&[1, 8, 64]);
        config.core.cache_bytes_max = pick(&[0, 2 << 10, 64 << 10]);
        config.core.pre_vote = pick(&[0, 1, 1, 1]) == 1;
        config.core.check_quorum = pick(&[0, 1, 1, 1]) == 1;
        config.draw_snapshots();
        config.draw_clients();
        config.draw_clocks();
        config.draw_members();
        config.draw_damage();
        config
    }

    /// Choices for one subject, so that a new subject does not change what others draw.
    fn draws(&self, subject: u64) -> SplitMix64 {
        SplitMix64::new(mix64(self.seed ^ mix64(subject)))
    }

    /// Sessions that are short of memory or of time, reads, and changes of leadership.
    fn draw_clients(&mut self) {
        let mut rng = self.draws(0x434C_4945);
        let clients = &mut self.clients;
        clients.sessions = rng.below(4);
        clients.session_idle_entries = [5, 40, 1_000_000][below(&mut rng, 3)];
        clients.read = [0, 1_000, 5_000][below(&mut rng, 3)];
        clients.handover = [0, 0, 50, 300][below(&mut rng, 4)];
    }

    /// From three to five nodes, and in half of the runs others that take their places.
    fn draw_members(&mut self) {
        let mut rng = self.draws(0x4D45_4D42);
        self.nodes = [3, 3, 3, 4, 5][below(&mut rng, 5)];
        self.pool = self.nodes;
        if rng.below(2) == 0 {
            self.pool = 6;
            self.clients.change = [50, 300, 1_000][below(&mut rng, 3)];
            // A node that was removed and does not know it asks before it campaigns; otherwise it
            // could disturb for ever.
            self.core.pre_vote = true;
        }
    }

    /// Disks that rot while their node is down, in half of the runs, and are lost in a quarter of these.
    fn draw_damage(&mut self) {
        let mut rng = self.draws(0x4441_4D41);
        if rng.below(2) == 0 {
            return;
        }
        self.damage = [1_000, 5_000][below(&mut rng, 2)];
        self.wipe = [0, 0, 0, 3_000][below(&mut rng, 4)];
        self.wal.policy = OnDamage::RepairFromPeers;
    }

    /// Clocks that run at different rates, and leases that rest on how different they can be.
    fn draw_clocks(&mut self) {
        let mut rng = self.draws(0x434C_4F43);
        self.clock_drift_ppm = [0, 10_000, 100_000, 300_000][below(&mut rng, 4)];
        if self.core.check_quorum && rng.below(2) == 0 {
            let drift_ppm = self.clock_drift_ppm;
            self.core.lease = Some(Lease { drift_ppm });
        }
        self.core.election_ticks = [10, 10, 20][below(&mut rng, 3)];
    }

    /// Three runs of four take snapshots, often, and keep little of the log behind them.
    fn draw_snapshots(&mut self) {
        let mut rng = self.draws(0x534E_4150);
        if rng.below(4) == 0 {
            return;
        }
        self.snapshot_bytes = Some(1_000 << rng.below(5));
        self.core.trailing_bytes_max = [0, 500, 4_000][below(&mut rng, 3)];
        self.snapshot.chunk_bytes = [512, 1024, 4096][below(&mut rng, 3)];
        self.snapshot.sync_bytes = [1, 4096, 1 << 20][below(&mut rng, 3)];
        self.transfer.piece_bytes = [200, 700, 4096][below(&mut rng, 3)];
        self.transfer.window_bytes = [4 << 10, 16 << 10][below(&mut rng, 2)];
        self.transfer.burst_bytes_max = 4 << 10;
        self.transfer.resend_ticks = [3, 10, 30][below(&mut rng, 3)];
        self.transfer.give_up_ticks = [40, 100, 400][below(&mut rng, 3)];
        if rng.below(4) == 0 {
            self.transfer.bytes_per_tick_max = Some(2_000);
        }
    }
}

/// A choice of `n` places.
fn below(rng: &mut SplitMix64, n: u64) -> usize {
    usize::try_from(rng.below(n)).expect("few choices")
}
