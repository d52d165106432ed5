//! Everything drawn: cluster size, learners, limits down to one message and one byte, partitions of
//! every shape, crashes of every set, slow disks, slow state machines, slow reads, commands in batches,
//! four clients that overlap. Afterwards the world is calm and the cluster must agree.

use duraft_core::NodeId;
use duraft_tests::sim::{Coverage, Sim, World, options, seeds};
use duraft_tests::{Options, Outcome, Rng, commands_body};

/// Runs in the ordinary test run; `SEEDS=<n>` makes more.
const SEEDS: u64 = 1000;

fn count() -> u64 {
    let more = std::env::var("SEEDS").ok();
    more.and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// A cluster with drawn shape and limits.
fn drawn(seed: u64, rng: &mut Rng) -> Options {
    let voters = rng.between(1, 5);
    let mut options = options(voters, seed);
    if rng.permille(200) {
        options = options.learners(&[NodeId(voters + 1)]);
    }
    if rng.permille(300) {
        options.check_core_every = 1;
    }
    let pre_vote = rng.permille(700);
    let check_quorum = rng.permille(700);
    let messages = *rng.pick(&[1, 2, 3, 256]);
    let inflight = *rng.pick(&[1, 300, 16 << 20]);
    let append = *rng.pick(&[1, 150, 1 << 20]);
    let uncommitted = *rng.pick(&[1, 600, 64 << 20]);
    let unapplied = *rng.pick(&[1, 300, 64 << 20]);
    let cache = *rng.pick(&[0, 200, 64 << 20]);
    options.configure(|config| {
        config.election_ticks = 12;
        config.heartbeat_ticks = 2;
        config.pre_vote = pre_vote;
        config.check_quorum = check_quorum;
        config.inflight_messages_max = messages;
        config.inflight_bytes_max = inflight;
        config.append_bytes_max = append;
        config.uncommitted_bytes_max = uncommitted;
        config.unapplied_bytes_max = unapplied;
        config.cache_bytes_max = cache;
    })
}

fn world(rng: &mut Rng, nodes: &[NodeId]) -> World {
    let slow = *rng.pick(&[10, 60, 400]);
    World {
        loss: *rng.pick(&[0, 50, 250]),
        duplicates: *rng.pick(&[0, 100, 500]),
        latency: (1, *rng.pick(&[5, 60, 200])),
        sync: (1, slow),
        mortal: if rng.permille(800) {
            nodes
                .iter()
                .copied()
                .filter(|_| rng.permille(700))
                .collect()
        } else {
            Vec::new()
        },
        lives: ((200, 3_000), (20, 500)),
        ..World::quiet()
    }
}

/// Cuts links, one way or both, or heals; holds or frees a state machine or its reads.
fn disturb(sim: &mut Sim, nodes: &[NodeId]) {
    let (a, b) = (*sim.rng.pick(nodes), *sim.rng.pick(nodes));
    match sim.rng.below(12) {
        0 => sim.c.net.cut(a, b),
        1 => {
            sim.c.net.cut(a, b);
            sim.c.net.cut(b, a);
        }
        2 => {
            for other in nodes {
                sim.c.net.cut(a, *other);
                sim.c.net.cut(*other, a);
            }
        }
        3..=5 => sim.c.heal(),
        6 => sim.c.hold_apply(a),
        7 => sim.c.hold_loads(a),
        8 | 9 => sim.free(a),
        _ => {}
    }
}

#[test]
fn seed_rast_a15_four_clients_on_drawn_clusters_in_drawn_worlds() {
    let mut met = Coverage::default();
    let (mut acknowledged, mut loaded, mut batches) = (0, 0, 0);
    for seed in seeds(count()) {
        let mut rng = Rng::new(seed ^ 0xC4A05);
        let options = drawn(seed, &mut rng);
        let nodes: Vec<NodeId> = options
            .voters
            .iter()
            .chain(&options.learners)
            .copied()
            .collect();
        let world = world(&mut rng, &nodes);
        let mut sim = Sim::new(options, world);
        let mut asked: [Vec<_>; 4] = Default::default();
        for round in 0..60 {
            for (client, mine) in asked.iter_mut().enumerate() {
                if !sim.rng.permille(400) {
                    continue;
                }
                let to = sim.leader().unwrap_or(nodes[client % nodes.len()]);
                let size = sim.rng.between(1, 4);
                let commands: Vec<String> =
                    (0..size).map(|i| format!("{client}.{round}.{i}")).collect();
                mine.extend(sim.propose_body_to(to, commands_body(&commands)));
                batches += u64::from(size > 1);
            }
            disturb(&mut sim, &nodes);
            loaded += nodes
                .iter()
                .map(|id| sim.c.waiting_loads(*id).len())
                .sum::<usize>();
            let gap = sim.rng.between(5, 120);
            sim.pass(gap);
        }
        sim.calm();
        for id in &nodes {
            sim.free(*id);
        }
        sim.until(100_000, "all nodes agree", Sim::is_settled);
        let applied = sim.c.commands(nodes[0]);
        for id in &nodes {
            assert_eq!(sim.c.commands(*id), applied, "seed {seed}");
        }
        let distinct: std::collections::BTreeSet<&String> = applied.iter().collect();
        assert_eq!(distinct.len(), applied.len(), "seed {seed}: nothing twice");
        for proposal in asked.iter().flatten() {
            acknowledged += u64::from(sim.c.acknowledged(*proposal));
            let certain = !matches!(sim.c.outcome(*proposal), Some(Outcome::Appended(_)) | None);
            assert!(certain, "seed {seed}: {proposal:?} has an end");
        }
        met.add(&sim.coverage);
    }
    if seeds(2).count() > 1 {
        assert!(acknowledged > 10 * count() && loaded > 0 && batches > 0);
        assert!(met.unsynced_lost > 0 && met.truncations > 0, "{met:?}");
        assert!(met.leader_ahead_of_disk > 0 && met.overtaken > 0, "{met:?}");
    }
}
