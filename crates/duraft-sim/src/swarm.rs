//! The swarm: a run whose every fault rate and option is drawn from its seed.
//!
//! Each subject draws from a sequence of its own, so that a new subject does not change what others
//! draw, and half of the rates are zero, so that each kind of trouble is also seen alone.

use crate::config::SimConfig;
use crate::fault::place;
use crate::workload::KeyValue;
use duraft_core::{Lease, mix64};
use duraft_disk::SplitMix64;
use duraft_storage::OnDamage;
use std::sync::Arc;

impl SimConfig {
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
        config.draw_links();
        config.draw_more_crashes();
        config.draw_limits();
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
        clients.plain = [4, 8, 12][place(&mut rng, 3)];
        self.workload = Arc::new(KeyValue {
            keys: [2, 3, 5][place(&mut rng, 3)],
        });
        clients.session_idle_entries = [5, 40, 1_000_000][place(&mut rng, 3)];
        clients.read = [0, 1_000, 5_000][place(&mut rng, 3)];
        clients.handover = [0, 0, 50, 300][place(&mut rng, 4)];
    }

    /// From one to seven nodes, mostly three, and in half of the runs others that take their places.
    fn draw_members(&mut self) {
        let mut rng = self.draws(0x4D45_4D42);
        self.nodes = [3, 3, 3, 3, 4, 5, 5, 1, 2, 3, 6, 7][place(&mut rng, 12)];
        self.pool = self.nodes;
        if rng.below(2) == 0 {
            self.pool = self.nodes.max(6);
            self.clients.change = [50, 300, 1_000][place(&mut rng, 3)];
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
        self.damage = [1_000, 5_000][place(&mut rng, 2)];
        self.wipe = [0, 0, 0, 3_000][place(&mut rng, 4)];
        self.wal.policy = OnDamage::RepairFromPeers;
    }

    /// Clocks that run at different rates, and leases that rest on how different they can be.
    fn draw_clocks(&mut self) {
        let mut rng = self.draws(0x434C_4F43);
        self.clock_drift_ppm = [0, 10_000, 100_000, 300_000, 500_000][place(&mut rng, 5)];
        let may_lease = self.core.check_quorum && self.clock_drift_ppm <= 300_000;
        if rng.below(2) == 0 && may_lease {
            let drift_ppm = self.clock_drift_ppm;
            self.core.lease = Some(Lease { drift_ppm });
        }
        self.core.election_ticks = [10, 10, 20][place(&mut rng, 3)];
    }

    /// Three runs of four take snapshots, often, and keep little of the log behind them.
    fn draw_snapshots(&mut self) {
        let mut rng = self.draws(0x534E_4150);
        if rng.below(4) == 0 {
            return;
        }
        self.snapshot_bytes = Some(1_000 << rng.below(5));
        self.core.trailing_bytes_max = [0, 500, 4_000][place(&mut rng, 3)];
        self.snapshot.chunk_bytes = [512, 1024, 4096][place(&mut rng, 3)];
        self.snapshot.sync_bytes = [1, 4096, 1 << 20][place(&mut rng, 3)];
        self.transfer.piece_bytes = [200, 700, 4096][place(&mut rng, 3)];
        self.transfer.window_bytes = [4 << 10, 16 << 10][place(&mut rng, 2)];
        self.transfer.burst_bytes_max = 4 << 10;
        self.transfer.resend_ticks = [3, 10, 30][place(&mut rng, 3)];
        self.transfer.give_up_ticks = [40, 100, 400][place(&mut rng, 3)];
        if rng.below(4) == 0 {
            self.transfer.bytes_per_tick_max = Some(2_000);
        }
    }

    /// Slow links in a third of the runs.
    fn draw_links(&mut self) {
        let mut rng = self.draws(0x4C49_4E4B);
        self.network.slow_max = [0, 0, 20, 100, 400, 0][place(&mut rng, 6)];
    }

    /// Crashes that take others along, full disks, clocks that jump.
    fn draw_more_crashes(&mut self) {
        let mut rng = self.draws(0x4352_4153);
        self.crash_together = [0, 0, 1_000, 5_000][place(&mut rng, 4)];
        self.disk.no_space = [0, 0, 20, 100][place(&mut rng, 4)];
        self.disk.no_space_max = [50, 500, 3_000][place(&mut rng, 3)];
        // A lease is proven under a bound on how clocks differ; a jump breaks any such bound.
        if self.core.lease.is_none() {
            self.clock_jump = [0, 0, 20, 100][place(&mut rng, 4)];
            self.clock_jump_max = [10, 100, 1_000][place(&mut rng, 3)];
        }
    }

    /// Limits so small that they are met all the time, each in a quarter of half of the runs.
    fn draw_limits(&mut self) {
        let mut rng = self.draws(0x4C49_4D49);
        if rng.below(2) == 0 {
            return;
        }
        let mut tiny = |limit: &mut u64, values: [u64; 2]| {
            if rng.below(4) == 0 {
                *limit = values[place(&mut rng, 2)];
            }
        };
        let core = &mut self.core;
        tiny(&mut core.append_bytes_max, [0, 300]);
        tiny(&mut core.inflight_bytes_max, [0, 500]);
        tiny(&mut core.uncommitted_bytes_max, [0, 1_000]);
        tiny(&mut core.unapplied_bytes_max, [0, 500]);
        tiny(&mut core.cache_bytes_max, [0, 300]);
        tiny(&mut core.backlog_bytes_max, [500, 2_000]);
        tiny(&mut core.unpersisted_bytes_max, [500, 2_000]);
        tiny(&mut core.shape_bytes_max, [0, 500]);
        tiny(&mut core.fetch_bytes_max, [0, 500]);
        tiny(&mut self.wal.commit_bytes_max, [1, 4 << 10]);
        tiny(&mut self.wal.cache_bytes_max, [0, 200]);
        tiny(&mut self.wal.receipt_idle_ticks, [1, 3]);
        let mut few = |limit: &mut usize, values: [usize; 2]| {
            if rng.below(4) == 0 {
                *limit = values[place(&mut rng, 2)];
            }
        };
        few(&mut self.core.inflight_messages_max, [1, 2]);
        few(&mut self.core.reads_max, [1, 3]);
        few(&mut self.driver.commands_max, [1, 4]);
        few(&mut self.driver.batches_in_flight_max, [1, 2]);
    }
}
