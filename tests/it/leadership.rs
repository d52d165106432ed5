//! Who leads: transfer, step-down, forgetting, priority, stalled disks, partial partitions (S12, S13,
//! S24, C9, L1, L2, L5, L6).

use crate::common::{led, settle};
use duraft_core::{Leave, Message, NodeId, Reject, RoleKind};
use duraft_tests::puppet::says;
use duraft_tests::sim::{Sim, World, options, seeds};
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, Options, Outcome, Rng, add, any, remove};

fn timeouts_now(c: &Cluster) -> usize {
    c.sent(any().kind(Kind::TimeoutNow)).len()
}

#[test]
pub(crate) fn scenario_s24_a_transfer_waits_for_the_targets_durable_match() {
    // Could go wrong: the target is told to campaign while it lacks what is committed, and the whole
    // election is for nothing or worse.
    let mut c = led(Options::new(3));
    c.net.cut(N1, N3);
    let x = c.propose(N1, "x");
    settle(&mut c);
    assert!(c.acknowledged(x));
    let transfer = c.transfer(N1, N3);
    let refused = c.propose(N1, "y");
    assert_eq!(
        c.outcome(refused),
        Some(Outcome::Rejected(Reject::TransferInProgress, Some(N1)))
    );
    assert_eq!(timeouts_now(&c), 0, "n3 lags");
    c.heal();
    c.hold_disk(N3);
    c.heartbeat(N1);
    c.deliver_all();
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(
        c.issued(N3).last(),
        c.issued(N1).last(),
        "n3 has received everything"
    );
    assert_eq!(timeouts_now(&c), 0, "and nothing of it is durable");
    c.free_disk(N3);
    c.deliver(any().kind(Kind::AppendReply));
    assert_eq!(timeouts_now(&c), 1);
    c.deliver_all();
    assert_eq!((c.leaders(), c.term(N3)), (vec![N3], 2));
    assert_eq!(c.outcome(transfer), Some(Outcome::Done));
    c.converge();
    assert_eq!(c.commands(N1), ["x"]);
}

#[test]
pub(crate) fn scenario_s24_a_transfer_to_the_dead_ends_after_one_election_timeout() {
    let mut c = led(Options::new(3));
    c.crash(N3);
    let transfer = c.transfer(N1, N3);
    let election = c.options().config.election_ticks;
    for tick in 0..=election {
        assert_eq!(c.outcome(transfer), None, "after {tick} ticks");
        let refused = c.propose(N1, "y");
        assert!(matches!(
            c.outcome(refused),
            Some(Outcome::Rejected(Reject::TransferInProgress, _))
        ));
        if tick < election {
            c.tick(N1, 1);
            c.deliver_all();
        }
        if c.outcome(transfer).is_some() {
            break;
        }
    }
    assert_eq!(
        c.outcome(transfer),
        Some(Outcome::Rejected(Reject::TransferTimedOut, Some(N1)))
    );
    assert_eq!((c.leaders(), c.term(N1)), (vec![N1], 1));
    let x = c.propose(N1, "x");
    settle(&mut c);
    assert!(c.acknowledged(x), "n1 serves again");
}

#[test]
pub(crate) fn rule_transfer_only_to_another_voter_and_one_at_a_time() {
    let mut c = led(Options::new(3).learners(&[N4]));
    for target in [N1, N4, NodeId(9)] {
        let transfer = c.transfer(N1, target);
        assert!(matches!(
            c.outcome(transfer),
            Some(Outcome::Rejected(Reject::TransferTarget, _))
        ));
    }
    let follower = c.transfer(N2, N3);
    assert!(matches!(
        c.outcome(follower),
        Some(Outcome::Rejected(Reject::NotLeader, Some(N1)))
    ));
    c.transfer(N1, N2);
    let second = c.transfer(N1, N3);
    assert!(matches!(
        c.outcome(second),
        Some(Outcome::Rejected(Reject::TransferInProgress, _))
    ));
}

#[test]
pub(crate) fn rule_transfer_a_late_or_foreign_word_to_campaign_moves_nobody() {
    // Could go wrong: a TimeoutNow that was delayed for long unseats the leader of a later term, or one
    // that no leader sent unseats anybody.
    let mut c = Cluster::build(
        Options::new(3)
            .puppets(&[N2, N3])
            .log(N1, Chain::of_terms(&[1])),
    );
    let heartbeat = Message::Heartbeat {
        commit: duraft_core::Index(0),
        round: 1,
    };
    c.inject(says(N2, N1, 3, heartbeat));
    for (from, term) in [(N2, 2), (N3, 3), (N3, 1)] {
        c.deliver_one(says(from, N1, term, Message::TimeoutNow));
        assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Follower, 3));
    }
    c.deliver_one(says(N2, N1, 3, Message::TimeoutNow));
    assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Candidate, 4));
}

#[test]
pub(crate) fn scenario_s12_a_leader_is_replaced_through_a_transfer_while_joint() {
    let mut c = led(Options::new(3));
    c.join(N4);
    c.propose(N1, "x");
    c.change_by(N1, &[remove(N1), add(N4)], Leave::Explicit);
    settle(&mut c);
    settle(&mut c);
    assert!(c.in_use(N4).is_joint());
    let transfer = c.transfer(N1, N4);
    c.deliver_all();
    assert_eq!(c.outcome(transfer), Some(Outcome::Done));
    assert_eq!(c.leaders(), [N4]);
    settle(&mut c);
    let leave = c.leave_joint(N4);
    settle(&mut c);
    assert!(c.acknowledged(leave));
    assert_eq!(c.voters(N4), [N2, N3, N4]);
    c.heal();
    settle(&mut c);
    let term = c.term(N1);
    assert!(!c.try_campaign(N1), "n1 is no member any more");
    assert_eq!(c.term(N1), term);
    c.converge();
    assert_eq!(c.commands(N4), ["x"]);
}

#[test]
pub(crate) fn scenario_s13_a_follower_that_forgets_its_leader_helps_the_next() {
    let mut c = led(Options::new(3));
    c.propose(N1, "x");
    c.deliver_except(any().to(N3));
    c.lose(any());
    settle_two(&mut c, N1, N2);
    c.forget_leader(N2);
    assert_eq!((c.leader_hint(N2), c.term(N2)), (None, 1));
    // A stale peer gets no pre-vote, one that is up to date does.
    let ask = |c: &mut Cluster, last| {
        let wanted = duraft_core::Term(2);
        c.deliver_one(says(N3, N2, 1, Message::PreVote { wanted, last }));
        let reply = c.net.take(any().from(N2).kind(Kind::PreVoteReply));
        matches!(
            reply[0].message,
            Message::PreVoteReply { granted: true, .. }
        )
    };
    let (stale, fresh) = (c.issued(N3).last().id, c.issued(N1).last().id);
    assert!(!ask(&mut c, stale));
    assert!(ask(&mut c, fresh));
    // The timer was not reset, and the leader's next word restores what was known.
    c.heartbeat(N1);
    c.deliver(any().to(N2));
    assert_eq!(c.leader_hint(N2), Some(N1));
    assert_eq!(c.term(N2), 1);
    c.converge();
}

/// Heartbeats between these two only.
fn settle_two(c: &mut Cluster, leader: NodeId, follower: NodeId) {
    for _ in 0..2 {
        c.heartbeat(leader);
        c.deliver_only(any().to(follower));
        c.deliver_only(any().from(follower).to(leader));
        c.lose(any());
    }
}

#[test]
pub(crate) fn scenario_s13_forgetting_leaves_the_timer_alone_and_is_refused_with_leases() {
    let mut c = led(Options::new(3));
    c.heartbeat(N1);
    c.deliver_all();
    let mut plain = c.clone();
    c.forget_leader(N2);
    let ticks = |c: &mut Cluster| {
        let mut ticks = 0;
        while c.role(N2) == RoleKind::Follower {
            c.tick(N2, 1);
            ticks += 1;
        }
        ticks
    };
    assert_eq!(ticks(&mut c), ticks(&mut plain), "the same patience");
    let leases = Options::new(3).configure(|config| {
        config.lease = Some(duraft_core::Lease { drift_ppm: 0 });
    });
    let mut c = led(leases);
    c.forget_leader(N2);
    assert_eq!(
        c.leader_hint(N2),
        Some(N1),
        "a promise behind a lease is kept"
    );
}

#[test]
pub(crate) fn rule_stepdown_a_leader_that_steps_down_says_so_and_another_leads() {
    let mut c = led(Options::new(3));
    settle(&mut c);
    let done = c.step_down(N1);
    assert_eq!(c.outcome(done), Some(Outcome::Done));
    assert_eq!(c.role(N1), RoleKind::Follower);
    c.deliver_all();
    let leaders = c.leaders();
    assert!(leaders == [N2] || leaders == [N3], "{leaders:?}");
    c.converge();
    let follower = c.step_down(N1);
    assert!(matches!(
        c.outcome(follower),
        Some(Outcome::Rejected(Reject::NotLeader, _))
    ));
}

#[test]
pub(crate) fn crash_c09_a_leader_whose_disk_stalls_hands_over_and_does_not_come_back() {
    // etcd#13527: a leader with a stalled disk keeps its lease for ever.
    for seed in 0..8 {
        let mut c = led(Options::new(3).seed(seed));
        let x = c.propose(N1, "before");
        settle(&mut c);
        assert!(c.acknowledged(x));
        c.hold_disk(N1);
        c.propose(N1, "stalls");
        let config = c.options().config.clone();
        let bound = config.stall_ticks.expect("a policy") + 4 * 2 * config.election_ticks;
        let mut ticks = 0;
        while c.leaders() == [N1] || c.leaders().is_empty() {
            c.tick_all(1);
            c.deliver_all();
            ticks += 1;
            assert!(ticks <= bound, "seed {seed}: {ticks} ticks\n{}", c.story());
        }
        let leader = c.leaders()[0];
        assert_ne!(leader, N1);
        let y = c.propose(leader, "y");
        for _ in 0..20 * config.election_ticks {
            c.tick_all(1);
            c.deliver_all();
            assert_ne!(c.role(N1), RoleKind::Leader, "n1's disk still stands");
            assert_ne!(c.role(N1), RoleKind::Candidate);
        }
        assert!(c.acknowledged(y));
        c.converge();
    }
}

#[test]
pub(crate) fn liveness_l5_a_stalled_leader_stays_while_nobody_else_can_lead() {
    // Could go wrong: the last node that can lead gives up for nothing.
    let mut c = led(Options::new(3));
    c.crash(N2);
    c.hold_disk(N1);
    c.hold_disk(N3);
    c.propose(N1, "x");
    let config = c.options().config.clone();
    for _ in 0..config.stall_ticks.expect("a policy") * 3 {
        c.tick_all(1);
        c.deliver_all();
    }
    c.free_disk(N1);
    c.free_disk(N3);
    c.converge();
}

#[test]
pub(crate) fn rule_priority_leadership_goes_to_the_healthy_node_that_wants_it_most() {
    let mut options = Options::new(3);
    options.priorities.insert(N3, 7);
    let mut c = led(options);
    for _ in 0..20 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
        if c.leaders() == [N3] {
            break;
        }
    }
    assert_eq!(c.leaders(), [N3]);
    // Unhealthy, it is left alone, and n1 or n2 leads in peace.
    c.hold_disk(N3);
    c.propose(N3, "stalls");
    for _ in 0..60 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    let leaders = c.leaders();
    assert!(leaders == [N1] || leaders == [N2], "{leaders:?}");
    c.converge();
}

/// Can this node talk both ways with a quorum?
fn is_centre(c: &Cluster, a: NodeId) -> bool {
    let voters = c.ids();
    let linked = |b: NodeId| a == b || (!c.net.is_cut(a, b) && !c.net.is_cut(b, a));
    let count = voters.iter().filter(|b| linked(**b)).count();
    2 * count > voters.len()
}

/// Ticks until a new command is acknowledged, with these links cut. Clients stay away from a leader that
/// is no centre: its last entries may reach a single node that only it can talk to, and no election can
/// go past a voter whose log is longer.
fn ticks_to_commit(c: &mut Cluster, limit: u32) -> Option<u32> {
    let mut asked = Vec::new();
    for tick in 0..limit {
        c.tick_all(1);
        c.deliver_all();
        for leader in c.leaders() {
            if is_centre(c, leader) {
                asked.push(c.propose(leader, "new"));
            }
        }
        c.deliver_all();
        if asked.iter().any(|id| c.acknowledged(*id)) {
            return Some(tick);
        }
    }
    None
}

fn cluster_for_links(voters: u64, seed: u64) -> Cluster {
    let mut c = Cluster::build(Options::new(voters).seed(seed).fast());
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    c
}

/// Every matrix drawn by `cut`: a quorum around one node makes progress, and goes on doing so.
fn partitions(
    voters: u64,
    matrices: u64,
    cut: impl Fn(&mut Cluster, &[NodeId], u64),
) -> (u64, u32) {
    let ids: Vec<NodeId> = (1..=voters).map(NodeId).collect();
    let (mut tried, mut longest) = (0, 0);
    for matrix in 0..matrices {
        let mut c = cluster_for_links(voters, matrix);
        cut(&mut c, &ids, matrix);
        if !ids.iter().any(|id| is_centre(&c, *id)) {
            continue;
        }
        tried += 1;
        let limit = 40 * c.options().config.election_ticks;
        for round in 0..2 {
            let took = ticks_to_commit(&mut c, limit);
            let took = took.unwrap_or_else(|| panic!("matrix {matrix} of {voters}, {round}"));
            longest = longest.max(took);
        }
    }
    (tried, longest)
}

#[test]
pub(crate) fn liveness_l2_every_symmetric_partition_with_a_centre_makes_progress() {
    for (voters, pairs) in [(3, 3), (5, 10)] {
        let (tried, longest) = partitions(voters, 1 << pairs, |c, ids, matrix| {
            let mut bit = 0;
            for a in 0..ids.len() {
                for b in a + 1..ids.len() {
                    if matrix >> bit & 1 == 1 {
                        c.net.cut(ids[a], ids[b]);
                        c.net.cut(ids[b], ids[a]);
                    }
                    bit += 1;
                }
            }
        });
        assert!(tried > 1 << (pairs - 2), "{tried} matrices");
        assert!(longest <= 200, "{voters} nodes took up to {longest} ticks");
        println!("{voters} nodes: {tried} partitions, at most {longest} ticks to a new commit");
    }
}

#[test]
pub(crate) fn liveness_l2_one_way_links_do_not_stop_a_centre() {
    let (tried, longest) = partitions(3, 1 << 6, |c, ids, matrix| {
        let mut bit = 0;
        for a in ids {
            for b in ids {
                if a != b {
                    if matrix >> bit & 1 == 1 {
                        c.net.cut(*a, *b);
                    }
                    bit += 1;
                }
            }
        }
    });
    println!("3 nodes: {tried} one-way partitions, at most {longest} ticks to a new commit");
    let (tried, longest) = partitions(5, 400, |c, ids, matrix| {
        let mut rng = Rng::new(matrix);
        for a in ids {
            for b in ids {
                if a != b && rng.permille(250) {
                    c.net.cut(*a, *b);
                }
            }
        }
    });
    assert!(tried > 100);
    println!("5 nodes: {tried} one-way partitions, at most {longest} ticks to a new commit");
}

#[test]
pub(crate) fn liveness_l1_everything_under_way_drains_when_faults_end() {
    for seed in seeds(20) {
        let world = World {
            loss: 200,
            latency: (1, 60),
            sync: (1, 100),
            mortal: vec![N1, N2, N3],
            lives: ((300, 1_500), (50, 300)),
            ..World::quiet()
        };
        let mut sim = Sim::new(options(3, seed), world);
        for i in 0..100 {
            sim.propose(&format!("{i}"));
            sim.pass(30);
        }
        sim.calm();
        sim.until(100_000, "settles", Sim::is_settled);
        sim.until(10_000, "every node is quiet", |sim| {
            sim.c.ids().iter().all(|id| {
                let raft = sim.c.raft(*id);
                raft.is_some_and(duraft_core::Raft::is_quiet) && sim.c.pending(*id) == 0
            })
        });
    }
}

#[test]
pub(crate) fn liveness_l6_an_idle_or_throttled_follower_gets_few_messages() {
    // Could go wrong: storms of probes to a peer that cannot answer, or chatter in an idle cluster.
    let mut c = led(Options::new(3));
    let election = c.options().config.election_ticks;
    let rounds = u64::from(10 * election / c.options().config.heartbeat_ticks);
    let count = |c: &Cluster| c.sent(any().to(N3)).len() as u64;
    let before = count(&c);
    for _ in 0..10 * election {
        c.tick_all(1);
        c.deliver_all();
    }
    let idle = count(&c) - before;
    assert!(
        idle <= rounds + 1,
        "{idle} messages in {rounds} rounds, idle"
    );
    // n3 answers nothing while there is much to send.
    c.net.cut(N3, N1);
    c.net.cut(N3, N2);
    let before = count(&c);
    for i in 0..10 * election {
        c.propose(N1, &format!("{i}"));
        c.tick(N1, 1);
        c.tick(N2, 1);
        c.deliver_all();
    }
    let window = c.options().config.inflight_messages_max as u64;
    let mute = count(&c) - before;
    let most = 2 * rounds + window + 2;
    assert!(
        mute <= most,
        "{mute} messages in {rounds} rounds to a mute node, at most {most}"
    );
}
