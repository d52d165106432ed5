//! Tests of the tests: a check that has never failed proves nothing. Faults are planted in the core
//! (early promises, a restored leader, commit by counting) and in the rig's disks (lies, lost votes,
//! lost truncations, reordering), and the rules that must notice do notice.

use crate::common::led;
use duraft_core::{HardState, Incarnation, Index, Membership, NodeId, Plant, Term};
use duraft_tests::history::History;
use duraft_tests::sim::{Sim, World};
use duraft_tests::swarm::{Rot, Swarm};
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, Options, Sabotage, Store, any};

/// Seeds tried before a planted fault counts as missed.
const SEEDS: u64 = 2_000;

/// A world in which promises matter: slow disks, crashes, loss.
fn rough(voters: u64) -> World {
    World {
        loss: 50,
        latency: (1, 40),
        sync: (20, 200),
        mortal: (1..=voters).map(NodeId).collect(),
        lives: ((150, 800), (20, 100)),
        ..World::quiet()
    }
}

/// Runs drawn schedules until a rule is broken; says which and by which seed.
fn first_broken(
    make: impl Fn(u64) -> Options,
    prepare: impl Fn(&mut Sim),
) -> Option<(u64, String)> {
    for seed in 0..SEEDS {
        let options = make(seed).configure(|config| {
            config.election_ticks = 6;
            config.heartbeat_ticks = 1;
            config.append_bytes_max = 100;
        });
        let voters = options.voters.len() as u64;
        let mut sim = Sim::new(options, rough(voters));
        prepare(&mut sim);
        for i in 0..60 {
            for id in sim.c.leaders() {
                sim.propose_to(id, &format!("{i}"));
            }
            sim.pass(40);
            if let Some(broken) = sim.c.broken().first() {
                return Some((seed, broken.rule.to_string()));
            }
        }
    }
    None
}

/// The fault is found by one of the rules whose names begin so.
fn found_by(plant: Plant, checks: bool, rules: &[&str]) {
    let make = |seed| {
        Options::new(3)
            .seed(seed)
            .plain()
            .fast()
            .planted(plant, checks)
    };
    let found = first_broken(make, |_| {});
    let (seed, rule) = found.unwrap_or_else(|| panic!("{plant:?} is missed"));
    assert!(
        rules.iter().any(|name| rule.starts_with(name)),
        "{plant:?}: seed {seed} breaks {rule:?}"
    );
}

#[test]
fn checks_without_a_planted_fault_nothing_is_broken() {
    // The same worlds, the same collecting of broken rules: the others find what they planted.
    for seed in 0..300 {
        let make = |_| {
            Options::new(3)
                .seed(seed)
                .plain()
                .fast()
                .only_history(seed % 2 == 0)
        };
        let one = |seed: u64| {
            let options = make(seed).configure(|config| {
                config.election_ticks = 6;
                config.heartbeat_ticks = 1;
                config.append_bytes_max = 100;
            });
            let mut sim = Sim::new(options, rough(3));
            for i in 0..60 {
                for id in sim.c.leaders() {
                    sim.propose_to(id, &format!("{i}"));
                }
                sim.pass(40);
            }
            sim.c.broken().to_vec()
        };
        assert_eq!(one(seed), []);
    }
}

#[test]
fn checks_an_early_vote_is_found() {
    found_by(Plant::EarlyVote, true, &["B2", "I4"]);
    found_by(Plant::EarlyVote, false, &["one vote", "B12", "H1"]);
}

#[test]
fn checks_an_early_acknowledgement_is_found() {
    found_by(Plant::EarlyAck, true, &["B4"]);
    found_by(Plant::EarlyAck, false, &["H6"]);
}

#[test]
fn checks_a_leader_that_counts_its_own_undurable_copy_is_found() {
    found_by(Plant::LeaderEarly, true, &["H6"]);
    found_by(Plant::LeaderEarly, false, &["H6"]);
}

#[test]
fn checks_an_early_request_for_votes_is_found() {
    found_by(Plant::EarlyRequestVote, true, &["B1", "B3"]);
    found_by(Plant::EarlyRequestVote, false, &["H", "one vote", "B12"]);
}

#[test]
fn checks_a_restored_leader_is_found() {
    found_by(Plant::LeaderRestore, true, &["H1", "H2", "H3"]);
    found_by(Plant::LeaderRestore, false, &["H1", "H2", "H3"]);
}

#[test]
fn checks_commit_by_counting_older_terms_is_found() {
    found_by(Plant::CommitOldTerm, true, &["commit by counting"]);
}

#[test]
fn checks_schedule_f1_fails_on_a_core_that_restores_its_leader() {
    // The schedule itself, not only drawn ones: OLD and NEW under one (term, index).
    let mut c = led(Options::new(3).planted(Plant::LeaderRestore, false));
    c.hold_disk(N1);
    c.propose(N1, "OLD");
    c.deliver_all();
    c.crash(N1);
    c.restart(N1);
    c.propose(N1, "NEW");
    c.deliver_all();
    let rules: Vec<&str> = c.broken().iter().map(|broken| broken.rule).collect();
    assert!(rules.iter().any(|rule| rule.starts_with("H1")), "{rules:?}");
    assert!(rules.iter().any(|rule| rule.starts_with("H2")), "{rules:?}");
}

#[test]
fn checks_schedule_f2_fails_on_a_core_that_asks_early() {
    // n1 wins term 1 before its vote is durable, dies, and wins term 1 again.
    let options = Options::new(3)
        .plain()
        .planted(Plant::EarlyRequestVote, false);
    let mut c = Cluster::build(options);
    c.hold_disk(N1);
    c.win(N1);
    c.propose(N1, "OLD");
    c.deliver(any().to(N2));
    c.crash(N1);
    c.lose(any());
    c.restart(N1);
    c.free_disk(N1);
    c.win(N1);
    c.propose(N1, "NEW");
    c.deliver_all();
    let rules: Vec<&str> = c.broken().iter().map(|broken| broken.rule).collect();
    assert!(rules.iter().any(|rule| rule.starts_with("H1")), "{rules:?}");
}

/// A lying or losing disk at n1 is found by one of these rules.
fn disk_found_by(sabotage: Sabotage, only_history: bool, rules: &[&str]) {
    let make = |seed| {
        Options::new(3)
            .seed(seed)
            .plain()
            .fast()
            .only_history(only_history)
    };
    let found = first_broken(make, |sim| sim.c.sabotage(N1, sabotage));
    let (seed, rule) = found.unwrap_or_else(|| panic!("{sabotage:?} is missed"));
    assert!(
        rules.iter().any(|name| rule.starts_with(name)),
        "{sabotage:?}: seed {seed} breaks {rule:?}"
    );
}

#[test]
fn checks_a_lying_disk_is_found() {
    disk_found_by(Sabotage::LyingDisk, false, &["B1", "B2", "B3", "B4"]);
    disk_found_by(Sabotage::LyingDisk, true, &["H", "one vote", "B12"]);
}

#[test]
fn checks_a_disk_that_loses_votes_is_found() {
    disk_found_by(Sabotage::LosesVotes, false, &["B2", "B3"]);
    disk_found_by(Sabotage::LosesVotes, true, &["H1", "one vote", "B12"]);
}

#[test]
fn checks_a_disk_that_loses_truncations_is_found() {
    // n1's tail is given up while n3 is cut off: what n1 then acknowledges is not on its disk.
    for only_history in [false, true] {
        let mut c = led(Options::new(3).plain().only_history(only_history));
        c.sabotage(N1, Sabotage::LosesTruncations);
        c.isolate(N1);
        c.propose(N1, "lost");
        c.elect(N2);
        c.heal();
        c.isolate(N3);
        c.heartbeat(N2);
        c.deliver_all();
        assert!(
            !c.log(N1).contains(&"2@1 \"lost\"".to_string()),
            "n1 believes it cut"
        );
        let kept = c.propose(N2, "kept");
        c.deliver_all();
        assert!(c.acknowledged(kept));
        let rules: Vec<&str> = c.broken().iter().map(|broken| broken.rule).collect();
        let expected = if only_history { "H6" } else { "B4" };
        assert!(
            rules.iter().any(|rule| rule.starts_with(expected)),
            "{rules:?} {}",
            c.story()
        );
    }
}

#[test]
fn checks_a_disk_that_reorders_writes_is_found() {
    disk_found_by(Sabotage::ReordersWrites, false, &["B", "H6"]);
    disk_found_by(Sabotage::ReordersWrites, true, &["H", "B12", "one vote"]);
}

#[test]
fn checks_a_leader_without_a_committed_entry_is_found() {
    // Leader completeness by itself: a later leader's log lacks what term 1 committed; a late winner
    // of an earlier term need not hold what a later one committed.
    let membership = Membership::new([N1, N2, N3], []).expect("usable");
    let store = |log: &Chain| {
        let term = log.last().term();
        Store::new(
            log.start,
            Membership::new([N1, N2, N3], []).expect("usable"),
            HardState { term, vote: None },
            log.batches.clone(),
        )
    };
    let (full, short) = (Chain::of_terms(&[1, 2]), Chain::of_terms(&[1]));
    let mut history = History::new(membership, full.start);
    let committed = history.leader_committed(N1, Term(2), &store(&full), Index(2));
    assert_eq!(committed, Ok(()));
    assert_eq!(
        history.leads(Term(3), (N2, Incarnation(1)), &store(&full)),
        Ok(())
    );
    assert_eq!(
        history.leads(Term(1), (N3, Incarnation(1)), &store(&short)),
        Ok(())
    );
    let broken = history.leads(Term(4), (N3, Incarnation(1)), &store(&short));
    assert_eq!(
        broken.map_err(|broken| broken.rule),
        Err("H4 leader completeness")
    );
}

/// The fault is found in whole lives of clusters; by which seed and rule.
fn swarm_finds(plant: Plant) -> Option<(u64, String)> {
    for seed in 0..SEEDS {
        let make = |voters, seed| Options::new(voters).seed(seed).fast().planted(plant, true);
        let life = || Swarm::new(seed, Rot::Never, make).first_broken(200);
        // A core that is broken on purpose may stop at an assertion of its own: that is a find too.
        match std::panic::catch_unwind(life) {
            Ok(None) => {}
            Ok(Some(rule)) => return Some((seed, rule)),
            Err(_) => return Some((seed, "an assertion of the core".into())),
        }
    }
    None
}

#[test]
fn checks_faults_of_membership_reads_and_leases_are_found_by_the_swarm() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let plants = [
        Plant::NoRollback,
        Plant::ChangeBeforeTerm,
        Plant::ChangesOverlap,
        Plant::ReadBeforeTerm,
        Plant::TransferEarly,
        Plant::EarlyAck,
        Plant::LeaderEarly,
        Plant::CommitOldTerm,
    ];
    let found: Vec<_> = plants
        .iter()
        .map(|plant| (plant, swarm_finds(*plant)))
        .collect();
    std::panic::set_hook(quiet);
    for (plant, by) in &found {
        println!("{plant:?}: {by:?}");
    }
    for (plant, by) in found {
        assert!(by.is_some(), "{plant:?} is missed");
    }
}

#[test]
fn checks_a_read_confirmed_by_an_old_round_is_found_stale() {
    // The schedule that the swarm does not meet: answers to a round from before the next election are
    // still under way when the deposed leader is asked.
    let options = Options::new(3).planted(Plant::ReadOldRound, true);
    let mut c = led(options);
    c.heartbeat(N1);
    c.deliver(any().kind(Kind::Heartbeat));
    let answers = c.net.take(any().kind(Kind::HeartbeatReply));
    assert_eq!(answers.len(), 2);
    c.isolate(N1);
    c.lose_patience(N3);
    c.elect(N2);
    let y = c.propose(N2, "y");
    c.deliver_all();
    assert!(c.acknowledged(y));
    c.read(N1);
    for answer in answers {
        c.deliver_one(answer);
    }
    let rules: Vec<&str> = c.broken().iter().map(|broken| broken.rule).collect();
    assert!(rules.iter().any(|rule| rule.starts_with("D4")), "{rules:?}");
}
