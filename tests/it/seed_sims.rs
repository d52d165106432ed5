//! The random tests of the five systems over the core rig, seeded and checked at every step: RB-T13 to
//! T16 and T20, LR-T2 without snapshots, and isSerge's simulation.

use duraft_core::{NodeId, ProposalId};
use duraft_tests::sim::{Coverage, Sim, World, options, seeds};
use duraft_tests::{N1, N2, N3, Options, Outcome};

/// Runs that each of these tests makes.
const SEEDS: u64 = 1000;

fn timed(options: Options, election: u32, heartbeat: u32) -> Options {
    options.configure(|config| {
        config.election_ticks = election;
        config.heartbeat_ticks = heartbeat;
    })
}

/// Everything up to here is applied everywhere, all logs equal.
fn settle(sim: &mut Sim, limit: u64) {
    sim.calm();
    sim.until(limit, "all nodes agree", Sim::is_settled);
}

/// Keeps up to `window` commands under way until `count` are acknowledged.
fn load(sim: &mut Sim, count: usize, window: usize, gap: u64, limit: u64) -> usize {
    let end = sim.now + limit;
    let (mut asked, mut done) = (0, 0);
    let mut open: Vec<ProposalId> = Vec::new();
    while done < count {
        if open.len() < window && done + open.len() < count {
            asked += 1;
            let proposal = sim.propose(&format!("{asked}"));
            open.extend(proposal);
        }
        sim.pass(gap);
        let before = open.len();
        let c = &sim.c;
        let resolved = |id: &ProposalId| match c.outcome(*id) {
            Some(Outcome::Applied(_) | Outcome::Read(_) | Outcome::Done) => (false, 1),
            Some(Outcome::Overwritten(_) | Outcome::Rejected(..) | Outcome::Unknown) => (false, 0),
            Some(Outcome::Appended(_)) | None => (true, 0),
        };
        done += open.iter().map(|id| resolved(id).1).sum::<usize>();
        open.retain(|id| resolved(id).0);
        // A deposed leader's commands may stay open until its log is overwritten: ask again.
        let leader = sim.leader();
        if before == window && leader.is_some_and(|id| !c.leaders().contains(&id)) {
            open.clear();
        }
        assert!(
            sim.now < end,
            "{done} of {count} in time\n{}",
            sim.c.story()
        );
    }
    asked
}

fn equal_everywhere(sim: &Sim) -> usize {
    let ids = sim.c.ids();
    let commands = sim.c.commands(ids[0]);
    for id in &ids {
        assert_eq!(
            sim.c.commands(*id),
            commands,
            "seed {}",
            sim.c.options().seed
        );
    }
    commands.len()
}

#[test]
fn seed_raftbare_t13_a_hundred_commands_under_light_loss_stay_in_one_term() {
    let mut met = Coverage::default();
    for seed in seeds(SEEDS) {
        let world = World {
            loss: 10,
            ..World::quiet()
        };
        let mut sim = Sim::new(timed(options(3, seed), 20, 3), world);
        sim.until(5_000, "a leader", |sim| sim.leader().is_some());
        let term = sim.leader().map(|id| sim.c.term(id));
        load(&mut sim, 100, 8, 3, 50_000);
        settle(&mut sim, 20_000);
        assert_eq!(equal_everywhere(&sim), 100);
        let now = sim.leader().map(|id| sim.c.term(id));
        assert_eq!(now, term, "seed {seed}: one leader for the whole run");
        met.add(&sim.coverage);
    }
    assert!(met.lost > 0);
}

#[test]
fn seed_raftbare_t14_thirty_percent_loss_and_long_delays() {
    let mut met = Coverage::default();
    for seed in seeds(SEEDS) {
        let world = World {
            loss: 300,
            latency: (1, 1000),
            sync: (1, 200),
            tick: 250,
            ..World::quiet()
        };
        let mut sim = Sim::new(timed(options(3, seed), 24, 3), world);
        load(&mut sim, 100, 20, 100, 2_000_000);
        settle(&mut sim, 200_000);
        assert!(equal_everywhere(&sim) >= 100);
        met.add(&sim.coverage);
    }
    assert!(met.lost > 0 && met.overtaken > 0, "{met:?}");
}

#[test]
fn seed_raftbare_t15_a_node_that_comes_and_goes() {
    let mut met = Coverage::default();
    for seed in seeds(SEEDS) {
        let world = World {
            mortal: vec![N1],
            sync: (1, 60),
            ..World::quiet()
        };
        let mut sim = Sim::new(timed(options(3, seed), 10, 2), world);
        load(&mut sim, 60, 4, 60, 200_000);
        settle(&mut sim, 40_000);
        assert!(equal_everywhere(&sim) >= 60);
        met.add(&sim.coverage);
    }
    assert!(met.crashes > 0 && met.unsynced_lost > 0, "{met:?}");
    assert!(met.leader_ahead_of_disk > 0, "{met:?}");
}

#[test]
fn seed_raftbare_t16_commands_proposed_back_to_back() {
    // 80 % of the proposals follow at once, the others after a pause.
    for seed in seeds(SEEDS) {
        let world = World {
            loss: 10,
            sync: (5, 40),
            ..World::quiet()
        };
        let mut sim = Sim::new(timed(options(3, seed), 20, 3), world);
        sim.until(5_000, "a leader", |sim| sim.leader().is_some());
        let mut asked = 0;
        while asked < 100 {
            asked += usize::from(sim.propose(&format!("{asked}")).is_some());
            if sim.rng.permille(200) {
                let pause = sim.rng.between(1, 100);
                sim.pass(pause);
            }
        }
        settle(&mut sim, 40_000);
        assert_eq!(equal_everywhere(&sim), 100, "seed {seed}");
    }
}

#[test]
fn seed_raftbare_t20_a_divergent_tail_is_given_up() {
    // A leader with 20 unsent commands is cut off, 60 commands go to the next one, then it returns.
    let mut met = Coverage::default();
    for seed in seeds(SEEDS) {
        let mut sim = Sim::new(timed(options(3, seed), 10, 2), World::quiet());
        sim.until(5_000, "a leader", |sim| sim.leader().is_some());
        sim.pass(200);
        let old = sim.leader().expect("still");
        sim.c.isolate(old);
        let lost: Vec<ProposalId> = (0..20)
            .filter_map(|i| sim.propose_to(old, &format!("lost {i}")))
            .collect();
        sim.until(20_000, "another leader", |sim| {
            sim.leader().is_some_and(|id| id != old)
        });
        load(&mut sim, 60, 8, 5, 50_000);
        settle(&mut sim, 40_000);
        let kept = equal_everywhere(&sim);
        assert!((60..=80).contains(&kept), "seed {seed}: {kept}");
        assert!(
            lost.iter().all(|id| !sim.c.acknowledged(*id)),
            "seed {seed}"
        );
        met.add(&sim.coverage);
    }
    assert!(met.truncations > 0, "{met:?}");
}

#[test]
fn seed_little_raft_t02_values_agree_under_loss_and_reordering() {
    // 25 % loss, shuffled delivery, a snapshot after every entry; after each operation every node has the
    // same value, some of them by snapshot.
    let mut installed = 0;
    let steps: [(i64, i64); 4] = [(5, 5), (-51, -46), (-511, -557), (3, -554)];
    for seed in seeds(SEEDS) {
        let world = World {
            loss: 250,
            latency: (1, 60),
            ..World::quiet()
        };
        let options = timed(options(3, seed), 20, 2).snapshot_every(1);
        let mut sim = Sim::new(options, world);
        for (operation, value) in steps {
            let mut proposal = None;
            let end = sim.now + 200_000;
            loop {
                match proposal.map(|id| sim.c.outcome(id)) {
                    None | Some(Some(Outcome::Rejected(..) | Outcome::Overwritten(_))) => {
                        proposal = sim.propose(&operation.to_string());
                    }
                    Some(Some(Outcome::Applied(_) | Outcome::Read(_) | Outcome::Done)) => break,
                    // A snapshot has passed it: was it in there?
                    Some(Some(Outcome::Unknown)) => {
                        let done = sim.leader().is_some_and(|id| {
                            let known = sim.c.commands(id);
                            known.contains(&operation.to_string())
                        });
                        if done {
                            break;
                        }
                    }
                    Some(Some(Outcome::Appended(_)) | None) => {}
                }
                sim.pass(10);
                assert!(sim.now < end, "seed {seed}: applied in time");
            }
            let value_of = |sim: &Sim, id: NodeId| {
                let commands = sim.c.commands(id);
                commands
                    .iter()
                    .filter_map(|text| text.parse::<i64>().ok())
                    .sum::<i64>()
            };
            sim.until(100_000, "every node has the value", |sim| {
                [N1, N2, N3].iter().all(|id| value_of(sim, *id) == value)
            });
        }
        let ids = sim.c.ids();
        installed += ids.iter().map(|id| sim.c.times_installed(*id)).sum::<u64>();
    }
    assert!(installed > 0, "nobody got there by snapshot");
}

#[test]
fn seed_isserge_sim_ten_commands_reach_three_and_five_nodes() {
    // isSerge: elect, ten commands 20 ms apart, all applied everywhere within ten seconds; its own run
    // lost all ten. One unit is a millisecond; timeouts 150-300 ms as there, heartbeats 50 ms, since a
    // timeout of less than three heartbeats is refused here.
    for voters in [3, 5] {
        for seed in seeds(SEEDS) {
            let mut sim = Sim::new(timed(options(voters, seed), 15, 5), World::quiet());
            sim.until(10_000, "a leader", |sim| sim.leader().is_some());
            for i in 0..10 {
                let asked = sim.propose(&format!("{i}"));
                assert!(asked.is_some(), "seed {seed}");
                sim.pass(20);
            }
            sim.until(10_000, "ten commands everywhere", |sim| {
                let done = |id: &NodeId| sim.c.commands(*id).len() == 10;
                sim.c.ids().iter().all(done)
            });
            assert_eq!(equal_everywhere(&sim), 10);
        }
    }
}

#[test]
fn seed_raftbare_a18_every_hazard_is_met_and_survived() {
    // Everything at once on five nodes: loss, copies, delays, slow disks, and all nodes mortal.
    let mut met = Coverage::default();
    for seed in seeds(SEEDS) {
        let voters = 3 + 2 * (seed % 2);
        let mortal: Vec<NodeId> = (1..=voters).map(NodeId).collect();
        let world = World {
            loss: 100,
            duplicates: 100,
            latency: (1, 80),
            sync: (1, 150),
            mortal,
            lives: ((300, 3_000), (50, 600)),
            ..World::quiet()
        };
        let mut sim = Sim::new(timed(options(voters, seed), 15, 2), world);
        for i in 0..40 {
            sim.propose(&format!("{i}"));
            sim.pass(60);
        }
        settle(&mut sim, 60_000);
        equal_everywhere(&sim);
        met.add(&sim.coverage);
    }
    let all = [
        met.lost,
        met.duplicated,
        met.overtaken,
        met.crashes,
        met.unsynced_lost,
        met.leader_ahead_of_disk,
        met.truncations,
    ];
    assert!(all.iter().all(|count| *count > 0), "{met:?}");
    assert!(met.terms_led >= seeds(SEEDS).count() as u64, "{met:?}");
}
