//! Membership in the seed systems: RB-T19, RB-A4, RB-A5, and logs that stay bounded (IS-A4).

use crate::common::{led, settle};
use duraft_core::{NodeId, RoleKind};
use duraft_tests::sim::{Sim, World, options, seeds};
use duraft_tests::{
    Cluster, N1, N2, N3, N4, N5, Options, Outcome, add, any, learner, promoted, remove,
};

/// Seeds of the long simulation.
const SEEDS: u64 = 1_000;

#[test]
pub(crate) fn seed_raftbare_t19_members_come_and_go_under_heavy_loss() {
    // RB-T19: ten rounds that add a voter or learner or remove a node, 30 % loss, long delays, ten
    // commands each. raftbare asked for four of ten to commit in a round; here every round goes on until
    // its change and four commands are done.
    let (mut changes, mut commands) = (0, 0);
    for seed in seeds(SEEDS) {
        let world = World {
            loss: 300,
            latency: (1, 100),
            ..World::quiet()
        };
        let options = options(3, seed).configure(|config| {
            config.election_ticks = 60;
            config.heartbeat_ticks = 8;
        });
        let mut sim = Sim::new(options, world);
        for id in 4..=6 {
            sim.join(NodeId(id));
        }
        for round in 0..10 {
            let (change, done) = one_round(&mut sim, seed, round);
            changes += change;
            commands += done;
            let c = &sim.c;
            for id in c.ids() {
                let voter = c.in_use(id).is_voter(id);
                let idle = c.role(id) == RoleKind::Follower;
                assert!(
                    voter || idle || !c.in_use(id).contains(id),
                    "seed {seed}: a learner campaigns"
                );
            }
        }
        sim.calm();
        sim.until(500_000, "the members agree", Sim::is_settled);
    }
    println!("{changes} changes and {commands} commands were committed");
}

/// One change, and at least four of ten commands.
fn one_round(sim: &mut Sim, seed: u64, round: u64) -> (u64, u64) {
    let (mut change, mut asked) = (None, Vec::new());
    let end = sim.now + 3_000_000;
    loop {
        sim.pass(50);
        assert!(
            sim.now < end,
            "seed {seed}, round {round}\n{}",
            sim.c.story()
        );
        let Some(leader) = sim.leader() else { continue };
        let settled = change.map(|name| sim.c.outcome(name));
        match settled {
            None | Some(Some(Outcome::Rejected(..) | Outcome::Overwritten(_))) => {
                let members = sim.c.in_use(leader);
                if members.is_joint() || members.is_unknown() {
                    continue;
                }
                let id = NodeId(sim.rng.between(1, 6));
                let few = members.voters().count() < 3;
                let one = match (members.contains(id), sim.rng.below(2)) {
                    (true, _) if few && members.is_voter(id) => continue,
                    (true, _) => remove(id),
                    (false, 0) => add(id),
                    (false, _) => learner(id),
                };
                change = Some(sim.change(leader, &[one]));
            }
            Some(_) => {}
        }
        if asked.len() < 10 {
            asked.extend(sim.propose(&format!("{round}")));
        }
        let done = asked.iter().filter(|id| sim.c.acknowledged(**id)).count() as u64;
        if asked.len() >= 10 && done < 4 {
            // Whoever was asked may be gone: ask again.
            asked.retain(|id| sim.c.acknowledged(*id));
        }
        let over = change.is_some_and(|name| {
            matches!(
                sim.c.outcome(name),
                Some(Outcome::Applied(_) | Outcome::Unknown)
            )
        });
        if over && done >= 4 {
            return (1, done);
        }
    }
}

#[test]
pub(crate) fn seed_raftbare_a05_shrinking_growing_and_exchanging_every_size() {
    // 1, 2, 3, 5 and back, the leader among the leaving, several at once.
    let mut c = led(Options::new(1));
    for id in [N2, N3, N4, N5] {
        c.join(id);
    }
    let steps: [(&[_], &[NodeId]); 7] = [
        (&[add(N2)], &[N1, N2]),
        (&[add(N3)], &[N1, N2, N3]),
        (&[add(N4), add(N5)], &[N1, N2, N3, N4, N5]),
        (&[remove(N1), remove(N2)], &[N3, N4, N5]),
        (&[add(N1), remove(N3)], &[N1, N4, N5]),
        (&[remove(N4)], &[N1, N5]),
        (&[remove(N5), add(N2), add(N3)], &[N1, N2, N3]),
    ];
    for (number, (changes, voters)) in steps.into_iter().enumerate() {
        let leader = c.leaders()[0];
        let change = c.change(leader, changes);
        assert!(matches!(c.outcome(change), Some(Outcome::Appended(_))));
        c.converge();
        let leader = c.leaders()[0];
        assert_eq!(c.voters(leader), voters, "step {number}");
        let x = c.propose(leader, &format!("{number}"));
        settle(&mut c);
        assert!(c.acknowledged(x));
    }
    assert_eq!(c.commands(N1), ["0", "1", "2", "3", "4", "5", "6"]);
}

#[test]
pub(crate) fn seed_raftbare_a05_a_replacement_is_one_operation() {
    let mut c = led(Options::new(3));
    c.join(N4);
    c.crash(N3);
    c.change(N1, &[promoted(N4, Some(N3))]);
    for _ in 0..20 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    let leader = c.leaders()[0];
    assert_eq!(c.voters(leader), [N1, N2, N4], "though n3 is down");
    c.lose(any());
    c.converge();
}

#[test]
pub(crate) fn seed_isserge_a04_the_log_stays_bounded_over_many_commands() {
    // IS-A4: the log in memory and on disk keeps its trailing budget and what came since the last
    // snapshot, however many commands there were.
    let options = Options::new(3).fast().snapshot_every(100);
    let mut c: Cluster = led(options);
    let mut longest = 0;
    for i in 0..20_000 {
        c.propose(N1, &format!("{i}"));
        c.deliver_all();
        if i % 50 == 0 {
            c.heartbeat(N1);
            c.deliver_all();
        }
        for id in [N1, N2, N3] {
            longest = longest.max(c.issued(id).batches.len());
        }
    }
    assert!(longest <= 300, "{longest} batches");
    assert_eq!(c.commands(N3).len(), 20_000);
}
