//! Where faults are looked for. A lab tries one seed at a time; without a fault it finds nothing.

use super::Wrong;
use super::situations::SITUATIONS;
use crate::wal_crash::bank;
use duraft_core::{Lease, NodeId};
use duraft_sim::explore::{self, Explorer};
use duraft_sim::{Lasting, Recover, Sim as Nodes, SimConfig};
use duraft_storage::OnDamage;
use duraft_tests::sim::{Sim, World};
use duraft_tests::swarm::{Rot, Swarm};
use duraft_tests::{N1, N2, Options, planted, quietly, with_plant};
use std::sync::Arc;

/// A searcher of planted faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lab {
    /// Three cores on slow disks, many crashes, much loss.
    Rough,
    /// The same with one voter and a learner.
    RoughAlone,
    /// Whole lives of cores: members, snapshots, reads, handovers.
    Lives,
    /// The same with rotting and lost disks.
    Rot,
    /// Whole nodes on simulated disks.
    Nodes,
    /// The same, and members change all the time.
    NodesChange,
    /// The same with many reads, handovers and partitions.
    NodesRead,
    /// The same with many snapshots and short logs.
    NodesSnapshot,
    /// The same with damaged and lost disks all the time, short lives and slow links.
    NodesDamage,
    /// The same with leases that only the cores count, and a node to which answers come late.
    NodesLease,
    /// Whole nodes on disks that take three election timeouts for a write, and stay so.
    NodesSlow,
    /// Whole nodes, and one of them, once it leads, sends no entries any more.
    NodesLoseData,
    /// Whole nodes, and the disk of one of them, once it leads, takes a hundred and fifty ticks for a write.
    NodesDiskStands,
    /// Leases that only the cores count, and voters that start again at once.
    NodesRestart,
    /// Small logs that rot, and elections all the time on slow links.
    NodesVotes,
    /// Whole nodes that find batches with another content when they start.
    NodesForge,
    /// Situations told step by step, a few of them per seed.
    Situations,
    /// The searches of the log's own bank: crash states, damages, failures, reports, enumerated.
    Storage,
    /// Every state of small clusters of cores, each step held against the specification.
    Model,
    /// The same from logs of which one has later terms and the other more entries.
    ModelLogs,
}

impl Lab {
    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Lab::Rough => "rig: rough world",
            Lab::RoughAlone => "rig: one voter and a learner",
            Lab::Lives => "rig: whole lives",
            Lab::Rot => "rig: rotting disks",
            Lab::Nodes => "simulator",
            Lab::NodesChange => "simulator: members change",
            Lab::NodesRead => "simulator: reads",
            Lab::NodesSnapshot => "simulator: snapshots",
            Lab::NodesDamage => "simulator: damage",
            Lab::NodesLease => "simulator: leases",
            Lab::NodesSlow => "simulator: slow disks",
            Lab::NodesLoseData => "simulator: no data",
            Lab::NodesDiskStands => "simulator: a disk stands",
            Lab::NodesRestart => "simulator: leases and restarts",
            Lab::NodesVotes => "simulator: lost votes",
            Lab::NodesForge => "simulator: forged batches",
            Lab::Situations => "rig: situations",
            Lab::Storage => "enumeration",
            Lab::Model => "model",
            Lab::ModelLogs => "model: uneven logs",
        }
    }

    /// Is it part of what users have, not of these tests?
    pub(super) fn is_shipped(self) -> bool {
        match self {
            Lab::Rough | Lab::RoughAlone | Lab::Lives | Lab::Rot | Lab::Situations => false,
            Lab::Nodes
            | Lab::NodesChange
            | Lab::NodesRead
            | Lab::NodesDamage
            | Lab::NodesLease
            | Lab::NodesSlow
            | Lab::NodesLoseData
            | Lab::NodesDiskStands
            | Lab::NodesRestart
            | Lab::NodesVotes
            | Lab::NodesForge
            | Lab::NodesSnapshot
            | Lab::Storage
            | Lab::Model
            | Lab::ModelLogs => true,
        }
    }

    /// Says what this seed finds.
    pub(super) fn tries(self, seed: u64, wrong: Wrong) -> Option<String> {
        let act = || match self {
            Lab::Rough => rough(options(seed), wrong),
            Lab::RoughAlone => rough(options(seed).voters(&[N1]).learners(&[N2]), wrong),
            Lab::Lives => lives(seed, Rot::Never),
            Lab::Rot => lives(seed, Rot::Any),
            Lab::Nodes => nodes(seed, wrong, |_| {}),
            Lab::NodesChange => nodes(seed, wrong, |config| {
                config.pool = config.nodes.max(6);
                config.core.pre_vote = true;
                config.clients.change = 2_000;
            }),
            Lab::NodesRead => nodes(seed, wrong, |config| {
                config.clients.read = 9_000;
                config.clients.handover = 300;
                config.network.repartition = 300;
            }),
            Lab::NodesSnapshot => nodes(seed, wrong, |config| {
                config.snapshot_bytes = Some(1_000);
                config.core.trailing_bytes_max = 0;
            }),
            Lab::NodesDamage => nodes(seed, wrong, |config| {
                config.wal.policy = OnDamage::RepairFromPeers;
                (config.nodes, config.pool, config.clients.change) = (3, 3, 0);
                config.damage = 9_000;
                config.wipe = 0;
                config.crash = 300;
                config.down_max = 30;
                config.network.slow_max = 400;
                config.network.loss = 0;
            }),
            Lab::NodesLease => nodes(seed, wrong, leases),
            Lab::NodesSlow => nodes(seed, wrong, slow_disks),
            Lab::NodesLoseData => nodes(seed, wrong, |config| lasting(config, Lasting::LosesData)),
            Lab::NodesDiskStands => nodes(seed, wrong, |config| {
                lasting(config, Lasting::SlowDisk { sync: 1_500 });
            }),
            Lab::NodesRestart => nodes(seed, wrong, |config| {
                leases(config);
                (config.network.late_max, config.network.loss) = (0, 1_000);
                config.network.repartition = 60;
                // Who is cut off is to have as good a log as the others.
                config.clients.propose = 20;
                (config.crash, config.crash_together, config.down_max) = (100, 0, 10);
            }),
            Lab::NodesVotes => nodes(seed, wrong, lost_votes),
            Lab::NodesForge => nodes(seed, wrong, |config| {
                *config = SimConfig::calm(seed);
                (config.wal.policy, config.forge) = (OnDamage::RepairFromPeers, 9_000);
                (config.crash, config.down_max) = (100, 30);
                (config.network.duplicate, config.network.delay_max) = (5_000, 30);
                config.recover = Recover::AtCrashes;
            }),
            Lab::Situations => situations(seed),
            Lab::Storage => match wrong {
                Wrong::Store(fault) => bank::tries(fault, seed, true),
                Wrong::Sound(fault) => bank::tries(fault, seed, false),
                Wrong::Core(_)
                | Wrong::Files(_)
                | Wrong::Disk(_)
                | Wrong::Lies
                | Wrong::Nothing => None,
            },
            Lab::Model => model(seed),
            Lab::ModelLogs => (seed == 0).then(uneven_logs).flatten(),
        };
        // A part that is broken on purpose may stop at an assertion: that is a find too.
        let result = match wrong {
            Wrong::Core(plant) => quietly(|| with_plant(plant, act)),
            Wrong::Files(_)
            | Wrong::Disk(_)
            | Wrong::Lies
            | Wrong::Store(_)
            | Wrong::Sound(_)
            | Wrong::Nothing => quietly(act),
        };
        result.unwrap_or_else(|why| Some(format!("stops: {why}")))
    }
}

fn options(seed: u64) -> Options {
    // Half of the seeds with pre-vote and check-quorum, half without.
    let options = Options::new(3).seed(seed).fast().tolerant();
    let options = if seed.is_multiple_of(2) {
        options.plain()
    } else {
        options
    };
    options.configure(|config| {
        config.election_ticks = 6;
        config.heartbeat_ticks = 1;
        config.append_bytes_max = 100;
    })
}

/// A world in which promises matter: slow disks, crashes, loss.
fn rough(options: Options, wrong: Wrong) -> Option<String> {
    let mut mortal: Vec<NodeId> = options.voters.clone();
    mortal.extend(&options.learners);
    let world = World {
        loss: 50,
        duplicates: 50,
        latency: (1, 40),
        sync: (20, 200),
        mortal,
        lives: ((150, 800), (20, 100)),
        ..World::quiet()
    };
    let mut sim = Sim::new(options, world);
    if let Wrong::Disk(sabotage) = wrong {
        sim.c.sabotage(N1, sabotage);
    }
    for i in 0..60 {
        for id in sim.c.leaders() {
            sim.propose_to(id, &format!("{i}"));
        }
        sim.pass(40);
        if let Some(broken) = sim.c.broken().first() {
            return Some(broken.rule.to_string());
        }
    }
    None
}

fn lives(seed: u64, rot: Rot) -> Option<String> {
    let make = |voters, seed| Options::new(voters).seed(seed).fast().tolerant();
    Swarm::new(seed, rot, make).first_broken(200)
}

fn nodes(seed: u64, wrong: Wrong, shape: impl FnOnce(&mut SimConfig)) -> Option<String> {
    let mut config = SimConfig::from_seed(seed);
    shape(&mut config);
    config.prepare = Some(|raft| {
        if let Some(plant) = planted() {
            raft.plant(plant);
        }
    });
    match wrong {
        Wrong::Files(ablation) => config.snapshot.ablation = Some(ablation),
        Wrong::Lies => config.disk.lies = true,
        Wrong::Core(_) | Wrong::Disk(_) | Wrong::Store(_) | Wrong::Sound(_) | Wrong::Nothing => {}
    }
    let found = Nodes::new(config).run(700).err();
    found.map(|violation| violation.what)
}

/// Leases that nothing but the core counts.
fn leases(config: &mut SimConfig) {
    config.one_hears_late();
    (config.nodes, config.pool) = (3, 3);
    config.core.lease = Some(Lease { drift_ppm: 0 });
    config.lease_unchecked = true;
    (config.clients.read, config.clients.by_lease) = (10_000, 10_000);
    config.clients.handover = 0;
    config.recover = Recover::AtCrashes;
}

/// Nothing goes wrong but that a write takes three election timeouts, also after healing.
fn slow_disks(config: &mut SimConfig) {
    (config.nodes, config.pool, config.clients.change) = (3, 3, 0);
    (config.core.pre_vote, config.core.check_quorum) = (true, true);
    (config.core.lease, config.core.election_ticks) = (None, 10);
    (config.disk.sync_min, config.disk.sync_max) = (350, 350);
    (config.disk.stall, config.disk.failure, config.disk.no_space) = (0, 0, 0);
    (config.clock_drift_ppm, config.clock_jump, config.pause) = (0, 0, 0);
    (config.crash, config.blackout, config.damage, config.wipe) = (0, 0, 0, 0);
    (
        config.network.delay_max,
        config.network.loss,
        config.network.slow_max,
    ) = (4, 0, 0);
    (config.network.repartition, config.clients.handover) = (0, 0);
}

/// Nothing goes wrong but what one node keeps.
fn lasting(config: &mut SimConfig, trouble: Lasting) {
    let seed = config.seed;
    *config = SimConfig::calm(seed);
    (config.core.pre_vote, config.core.check_quorum) = (true, true);
    // What one node lacks it is to get within the time there is for healing.
    config.clients.propose = 500;
    config.lasting = Some(trouble);
}

/// Elections and rotting disks with little in them but terms and votes.
fn lost_votes(config: &mut SimConfig) {
    let seed = config.seed;
    *config = SimConfig::calm(seed);
    config.wal.policy = OnDamage::RepairFromPeers;
    (config.core.pre_vote, config.core.check_quorum) = (false, false);
    config.nodes = if seed.is_multiple_of(2) { 3 } else { 5 };
    config.pool = config.nodes;
    config.clients.propose = 100;
    (config.damage, config.damage_places) = (9_000, 12);
    (config.crash, config.down_max, config.power_loss) = (300, 10, 10_000);
    // A request that was refused comes once more, later.
    (config.network.duplicate, config.network.delay_max) = (10_000, 100);
    config.network.slow_max = 150;
    config.recover = Recover::AtCrashes;
}

/// Walks through the worlds of a scope; there are a few scopes.
fn model(seed: u64) -> Option<String> {
    let scopes = [(3, 2, 0, 1), (2, 2, 1, 1)];
    let scope = usize::try_from(seed).ok()?;
    let (nodes, terms, commands, crashes) = *scopes.get(scope)?;
    explored(explore::Options::new(nodes, terms, commands, crashes))
}

fn uneven_logs() -> Option<String> {
    let mut options = explore::Options::new(2, 3, 0, 1);
    options.logs = vec![vec![1, 2, 2, 2], vec![1, 1, 1, 1, 1]];
    explored(options)
}

fn explored(mut options: explore::Options) -> Option<String> {
    options.own_checks = false;
    options.worlds_max = 400_000;
    options.prepare = Arc::new(|raft| {
        if let Some(plant) = planted() {
            raft.plant(plant);
        }
    });
    let mut explorer = Explorer::new(options).ok()?;
    let stop = explorer.run().err()?;
    stop.to_string().lines().next().map(String::from)
}

/// Situations of a seed.
const AT_ONCE: usize = 8;

fn situations(seed: u64) -> Option<String> {
    let chosen = usize::try_from(seed).ok()?;
    let some = SITUATIONS.chunks(AT_ONCE).nth(chosen)?;
    some.iter().find_map(|(name, act)| {
        let said = quietly(act).err()?;
        Some(format!("{name}: {said}"))
    })
}
