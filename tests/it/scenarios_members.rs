//! The scenarios of the design about membership (S6, S10, S11, L4) and the defects of others in it.

use crate::common::{led, settle, usurp};
use duraft_core::{ChangeError, Leave, Reject, RoleKind};
use duraft_tests::sim::{Sim, World, options, seeds};
use duraft_tests::{
    Cluster, N1, N2, N3, N4, N5, Options, Outcome, add, any, learner, promoted, remove,
};

/// Why the last word on this was no.
fn refused(c: &Cluster, id: duraft_core::ProposalId) -> Option<Reject> {
    match c.outcome(id) {
        Some(Outcome::Rejected(reason, _)) => Some(reason),
        Some(
            Outcome::Appended(_)
            | Outcome::Applied(_)
            | Outcome::Overwritten(_)
            | Outcome::Read(_)
            | Outcome::Done
            | Outcome::Unknown,
        )
        | None => None,
    }
}

#[test]
pub(crate) fn scenario_s06_a_promoted_learner_votes_though_it_has_not_heard_of_it() {
    // Could go wrong: a node refuses its vote because its own log still calls it a learner, and the
    // cluster that counts on it has no leader.
    let mut c = led(Options::new(2).learners(&[N3]));
    c.lose(any());
    c.net.cut(N1, N3);
    c.net.cut(N2, N3);
    let change = c.change(N1, &[add(N3)]);
    settle(&mut c);
    assert!(c.acknowledged(change));
    assert_eq!(c.voters(N2), [N1, N2, N3]);
    assert!(!c.in_use(N2).is_joint(), "and the joint membership is left");
    assert_eq!(c.voters(N3), [N1, N2], "n3 has heard nothing");
    c.crash(N1);
    c.heal();
    c.lose_patience(N3);
    c.elect(N2);
    settle(&mut c);
    assert_eq!(c.voters(N3), [N1, N2, N3]);
    assert_eq!(c.issued(N3).last(), c.issued(N2).last());
    let x = c.propose(N2, "x");
    settle(&mut c);
    assert!(c.acknowledged(x), "n2 and n3 are a quorum");
}

#[test]
pub(crate) fn scenario_s09_two_added_at_once_are_joined_and_left_exactly_once() {
    // Could go wrong: the joint membership is left twice, or never, or proposals in between are lost.
    let mut c = led(Options::new(1));
    for command in ["a", "b", "c"] {
        c.propose(N1, command);
    }
    c.take_snapshot(N1);
    c.join(N2);
    c.join(N3);
    let change = c.change(N1, &[add(N2), add(N3)]);
    assert!(
        c.in_use(N1).is_joint(),
        "in use from the moment it is appended"
    );
    let x = c.propose(N1, "x");
    let y = c.propose(N1, "y");
    assert!(!c.acknowledged(x), "n1 alone does not decide any more");
    settle(&mut c);
    settle(&mut c);
    for id in [change, x, y] {
        assert!(c.acknowledged(id));
    }
    let sets: Vec<String> = c.log(N1).into_iter().filter(|b| b.contains('{')).collect();
    assert_eq!(
        sets.iter()
            .map(|b| b.contains("outgoing"))
            .collect::<Vec<_>>(),
        [true, false],
        "{sets:?}"
    );
    for id in [N1, N2, N3] {
        assert_eq!(c.voters(id), [N1, N2, N3]);
        assert!(!c.in_use(id).is_joint());
        assert_eq!(c.commands(id), ["a", "b", "c", "x", "y"]);
        assert_eq!(c.issued(id).last(), c.issued(N1).last());
    }
}

#[test]
pub(crate) fn scenario_s10_an_explicit_joint_membership_waits_for_its_leave() {
    // Could go wrong: a second change slips in, or the joint membership is left without being asked.
    let mut c = led(Options::new(1));
    c.join(N2);
    c.change_by(N1, &[add(N2)], Leave::Explicit);
    settle(&mut c);
    assert!(c.in_use(N1).is_joint() && c.in_use(N2).is_joint());
    let log = c.log(N1);
    let more = c.change(N1, &[add(N3)]);
    assert_eq!(refused(&c, more), Some(Reject::MembershipInFlight));
    assert_eq!(c.log(N1), log, "a refused change leaves no trace");
    let leave = c.leave_joint(N1);
    settle(&mut c);
    assert!(c.acknowledged(leave));
    assert!(!c.in_use(N1).is_joint() && !c.in_use(N2).is_joint());
    assert_eq!(c.voters(N2), [N1, N2]);
    let again = c.leave_joint(N1);
    assert_eq!(refused(&c, again), Some(Reject::NotJoint));
    assert_eq!(
        refused(&c, more),
        Some(Reject::MembershipInFlight),
        "answered once"
    );
}

#[test]
pub(crate) fn scenario_s11_a_leader_that_is_removed_does_not_count_itself_and_stops() {
    // Could go wrong: the removed leader's copy decides, or it leads on, or it comes back.
    let mut c = led(Options::new(3));
    let foo = c.propose(N1, "foo");
    let change = c.change(N1, &[remove(N1)]);
    let bar = c.propose(N1, "bar");
    // Only n2 answers: foo, change and bar need n3 as well, for n2 and n3 are the new majority.
    c.lose(any().to(N3));
    c.deliver_except(any().to(N3));
    c.lose(any().to(N3));
    for id in [foo, change, bar] {
        assert!(!c.acknowledged(id), "n1 and n2 are no quorum any more");
    }
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.heartbeat(N1);
    c.deliver_all();
    c.heartbeat(N1);
    c.deliver_all();
    for id in [foo, change, bar] {
        assert!(c.acknowledged(id), "{}", c.story());
    }
    assert_eq!(
        c.role(N1),
        RoleKind::Follower,
        "it stops once that is committed"
    );
    assert_eq!(c.voters(N1), [N2, N3]);
    let term = c.term(N1);
    assert!(!c.try_campaign(N1), "and never campaigns again");
    assert_eq!(c.term(N1), term);
    for _ in 0..4 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    let leaders = c.leaders();
    assert!(leaders == [N2] || leaders == [N3], "{leaders:?}");
    c.converge();
    assert_eq!(c.commands(N3), ["foo", "bar"]);
}

#[test]
pub(crate) fn seed_noraft_n2_shrinking_to_one_voter_commits() {
    // noraft: whether a node is the only voter was computed once, at the start.
    let mut c = led(Options::new(3));
    c.change(N1, &[remove(N2), remove(N3)]);
    settle(&mut c);
    settle(&mut c);
    assert_eq!(c.voters(N1), [N1]);
    c.crash(N2);
    c.crash(N3);
    let x = c.propose(N1, "x");
    assert!(c.acknowledged(x), "n1 alone decides");
    // Grown again, it does not.
    c.join(N4);
    c.change(N1, &[add(N4)]);
    settle(&mut c);
    settle(&mut c);
    c.isolate(N4);
    let y = c.propose(N1, "y");
    c.deliver_all();
    assert!(!c.acknowledged(y));
    c.heal();
    settle(&mut c);
    assert!(c.acknowledged(y));
    // A single voter that restarts leads by itself.
    c.change(N1, &[remove(N4)]);
    settle(&mut c);
    settle(&mut c);
    c.crash(N1);
    c.restart(N1);
    c.campaign(N1);
    c.deliver_all();
    assert_eq!(c.leaders(), [N1]);
}

#[test]
pub(crate) fn rule_membership_no_change_before_the_first_commit_of_the_term() {
    // The single-server change bug: without an own-term entry, a change of an earlier leader may come
    // back, and two leaders decide by memberships that do not follow one another.
    let mut c = Cluster::build(Options::new(4));
    c.win(N1);
    let early = c.change(N1, &[add(N5)]);
    assert_eq!(refused(&c, early), Some(Reject::NotYetCommittedInTerm));
    settle(&mut c);
    let late = c.change(N1, &[learner(N5)]);
    assert_eq!(refused(&c, late), None);
    let second = c.change(N1, &[remove(N2)]);
    assert_eq!(refused(&c, second), Some(Reject::MembershipInFlight));
    settle(&mut c);
    assert!(c.acknowledged(late));
}

#[test]
pub(crate) fn rule_membership_what_leads_nowhere_is_refused_with_its_reason() {
    let mut c = led(Options::new(3).learners(&[N4]));
    for (changes, reason) in [
        (vec![add(N1)], ChangeError::Nothing),
        (vec![remove(N5)], ChangeError::NotMember(N5)),
        (vec![add(N5), remove(N5)], ChangeError::NamedTwice(N5)),
        (vec![promoted(N4, Some(N5))], ChangeError::NotVoter(N5)),
        (
            vec![remove(N1), remove(N2), remove(N3)],
            ChangeError::NoVoters,
        ),
    ] {
        let log = c.log(N1);
        let change = c.change(N1, &changes);
        assert_eq!(refused(&c, change), Some(Reject::Change(reason)));
        assert_eq!(c.log(N1), log);
    }
    let follower = c.change(N2, &[remove(N4)]);
    assert_eq!(refused(&c, follower), Some(Reject::NotLeader));
}

#[test]
pub(crate) fn rule_membership_a_change_that_is_cut_off_is_rolled_back() {
    // canonical/raft#250: a change that was truncated stays in use.
    let mut c = led(Options::new(3));
    c.isolate(N1);
    let change = c.change(N1, &[remove(N3), learner(N2)]);
    assert_eq!(c.voters(N1), [N1], "in use, and not committed");
    assert!(c.in_use(N1).is_joint());
    let x = c.propose(N1, "x");
    assert!(!c.acknowledged(x));
    c.lose_patience(N3);
    c.elect(N2);
    c.heal();
    settle(&mut c);
    settle(&mut c);
    assert_eq!(c.voters(N1), [N1, N2, N3]);
    assert!(!c.in_use(N1).is_joint());
    for id in [change, x] {
        assert!(matches!(c.outcome(id), Some(Outcome::Overwritten(_))));
    }
    // And again through a crash, with the cut on disk only.
    c.crash(N1);
    c.restart(N1);
    assert_eq!(c.voters(N1), [N1, N2, N3]);
    c.converge();
}

#[test]
pub(crate) fn rule_membership_a_change_survives_the_crash_of_everybody() {
    // Could go wrong: a restarted node decides by the membership it was first started with.
    let mut c = led(Options::new(3));
    c.join(N4);
    c.change(N1, &[remove(N3), add(N4)]);
    settle(&mut c);
    settle(&mut c);
    for id in [N1, N2, N3, N4] {
        c.crash(id);
        c.restart(id);
    }
    for id in [N1, N2, N4] {
        assert_eq!(c.voters(id), [N1, N2, N4]);
    }
    c.converge();
    let leader = c.leaders()[0];
    assert_ne!(leader, N3);
}

#[test]
pub(crate) fn liveness_l4_a_joint_membership_is_left_by_whoever_leads() {
    // Could go wrong: the leader that began the change dies, and nobody ends it. Over every number of
    // deliveries before the crash.
    for crash_after in 0..60 {
        let mut c = led(Options::new(3));
        c.join(N4);
        c.change(N1, &[add(N4), remove(N2)]);
        for _ in 0..crash_after {
            match c.net.take_first(any()) {
                Some(envelope) => c.deliver_one(envelope),
                None => c.heartbeat(N1),
            }
        }
        c.crash(N1);
        c.lose(any());
        for _ in 0..30 * c.options().config.election_ticks {
            c.tick_all(1);
            c.deliver_all();
        }
        let [leader] = c.leaders()[..] else {
            panic!("after {crash_after}: one leader\n{}", c.story());
        };
        assert!(!c.in_use(leader).is_joint(), "after {crash_after}");
        c.converge();
        let voters = c.voters(c.leaders()[0]);
        assert!(
            voters == [N1, N2, N3] || voters == [N1, N3, N4],
            "{voters:?}"
        );
    }
}

#[test]
pub(crate) fn rule_membership_a_learner_is_promoted_when_it_has_caught_up_and_replaces() {
    // `replace` as one operation: the new node takes the old one's place once it can, not before.
    let mut c = led(Options::new(3));
    for i in 0..20 {
        c.propose(N1, &format!("{i}"));
    }
    settle(&mut c);
    c.join(N4);
    c.net.cut(N1, N4);
    let change = c.change(N1, &[promoted(N4, Some(N3))]);
    settle(&mut c);
    assert!(c.acknowledged(change));
    for _ in 0..10 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    assert_eq!(c.voters(N1), [N1, N2, N3], "n4 has heard nothing yet");
    c.heal();
    c.converge();
    for _ in 0..10 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    assert_eq!(c.voters(N1), [N1, N2, N4]);
    assert!(!c.in_use(N1).is_joint());
    assert!(!c.in_use(N1).contains(N3), "n3 was replaced");
    assert_eq!(c.commands(N4).len(), 20);
    assert_eq!(c.leaders(), [N1], "and nobody was disturbed");
}

#[test]
pub(crate) fn rule_membership_a_promotion_outlives_its_leader() {
    let mut c = led(Options::new(3));
    c.join(N4);
    c.isolate(N4);
    c.change(N1, &[promoted(N4, Some(N1))]);
    settle(&mut c);
    usurp(&mut c, N2);
    c.heal();
    c.converge();
    for _ in 0..20 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    let leader = c.leaders()[0];
    assert_eq!(c.voters(leader), [N2, N3, N4]);
    c.converge();
}

#[test]
pub(crate) fn rule_membership_removed_nodes_disturb_nobody() {
    // etcd and others: a removed node that did not hear of it campaigns for ever and unseats leaders.
    let mut c = led(Options::new(4));
    c.net.cut(N1, N4);
    c.net.cut(N2, N4);
    c.net.cut(N3, N4);
    c.change(N1, &[remove(N4)]);
    settle(&mut c);
    settle(&mut c);
    assert_eq!(c.voters(N4), [N1, N2, N3, N4], "n4 does not know");
    c.heal();
    let term = c.term(N1);
    for _ in 0..40 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
        assert_eq!((c.leaders(), c.term(N1)), (vec![N1], term));
    }
}

#[test]
pub(crate) fn liveness_l4_drawn_changes_under_loss_and_crashes_end() {
    for seed in seeds(40) {
        let world = World {
            loss: 100,
            latency: (1, 30),
            sync: (1, 60),
            mortal: vec![N1, N2, N3],
            lives: ((300, 2_000), (50, 400)),
            ..World::quiet()
        };
        let mut sim = Sim::new(options(3, seed), world);
        sim.join(N4);
        sim.join(N5);
        let steps = [
            vec![add(N4), remove(N1)],
            vec![add(N5), add(N1)],
            vec![remove(N2), remove(N3)],
            vec![learner(N4), add(N2)],
        ];
        for changes in steps {
            for _ in 0..2_000 {
                sim.pass(50);
                let Some(leader) = sim.leader() else { continue };
                if sim.c.in_use(leader).is_joint() {
                    continue;
                }
                let name = sim.change(leader, &changes);
                if matches!(refused(&sim.c, name), Some(Reject::Change(_))) {
                    break;
                }
            }
        }
        sim.calm();
        sim.until(200_000, "the last change ends", Sim::is_settled);
        let leader = sim.leader().expect("settled");
        assert!(!sim.c.in_use(leader).is_joint());
    }
}
