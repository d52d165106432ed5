//! Membership changes by situation: joint and back, removal, promotion, roll-back, joining.

use super::rig::*;
use crate::*;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;

fn id(n: u64) -> NodeId {
    NodeId(n)
}

fn voters(raft: &Raft) -> Vec<u64> {
    raft.membership().incoming().map(|id| id.0).collect()
}

fn add(n: u64) -> MemberChange {
    MemberChange::AddVoter(id(n))
}

fn learner(n: u64, promotion: Promotion) -> MemberChange {
    MemberChange::AddLearner {
        id: id(n),
        promotion,
    }
}

/// The reason of the last refusal.
fn refusal(rig: &Rig, id: u64) -> Option<Reject> {
    match rig.node(id).responses.last()? {
        Response::Rejected { reason, .. } => Some(*reason),
        Response::Appended { .. } | Response::Done { .. } => None,
    }
}

/// Membership batches in a log.
fn changes_in(raft: &Raft) -> usize {
    (raft.headers())
        .filter(|header| header.kind == BatchKind::Membership)
        .count()
}

/// `voters` of the nodes lead the cluster from node 1, the others have joined and know nobody.
fn cluster(voters: u64, joining: u64) -> Rig {
    let mut rig = Rig::new(voters, 1);
    for n in voters + 1..=voters + joining {
        rig.join(Config::new(id(n), GROUP, 1));
    }
    rig.elect(1).unwrap();
    rig
}

#[test]
fn s09_adding_two_goes_through_joint_and_leaves_it_once() {
    // Leaving twice, or never, wedges the cluster (etcd 12136, 12582).
    let mut rig = cluster(1, 2);
    rig.change(1, &[add(2), add(3)], Leave::Automatic).unwrap();
    assert!(rig.raft(1).membership().is_joint(), "in use from append on");
    rig.propose(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle().unwrap();
    rig.run(6).unwrap();
    for n in 1..=3 {
        let raft = rig.raft(n);
        assert_eq!(voters(raft), [1, 2, 3], "node {n}");
        assert!(!raft.membership().is_joint());
        assert_eq!(changes_in(raft), 2, "one joint, one that leaves it");
        assert_eq!(raft.applied(), rig.raft(1).last().index());
        assert!(!raft.is_membership_in_flight());
    }
}

#[test]
fn s10_an_explicit_joint_membership_waits_for_its_leave() {
    let mut rig = cluster(1, 1);
    rig.change(1, &[add(2)], Leave::Explicit).unwrap();
    rig.run(6).unwrap();
    assert!(rig.raft(2).membership().is_joint());
    let before = rig.raft(1).last();
    rig.change(1, &[add(9)], Leave::Automatic).unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::MembershipInFlight));
    assert_eq!(rig.raft(1).last(), before, "and leaves no trace");
    let leave = |n| Input::LeaveJoint { id: ProposalId(n) };
    rig.step(1, leave(90)).unwrap();
    rig.settle().unwrap();
    assert_eq!(voters(rig.raft(2)), [1, 2]);
    assert!(!rig.raft(2).membership().is_joint());
    rig.step(1, leave(91)).unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::NotJoint));
}

#[test]
fn s11_a_leader_that_removes_itself_counts_the_others_and_stops() {
    let mut rig = cluster(3, 0);
    rig.run(2).unwrap();
    let remove = [MemberChange::Remove(id(1))];
    rig.change(1, &remove, Leave::Automatic).unwrap();
    // The joint membership commits; then node 3 is away.
    while rig.raft(1).membership().is_joint() {
        for envelope in core::mem::take(&mut rig.network) {
            rig.deliver(envelope).unwrap();
        }
        (1..=3).for_each(|n| rig.flush(n).unwrap());
    }
    assert_eq!(voters(rig.raft(1)), [2, 3]);
    assert!(rig.raft(1).is_membership_in_flight(), "left, not committed");
    rig.propose(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    let raft = rig.raft(1);
    assert_eq!(raft.durable(), raft.last().index());
    assert_eq!(rig.raft(2).last(), raft.last());
    assert!(
        raft.commit() < raft.membership_since(),
        "two copies, one of them the leader's: no quorum of {{2, 3}}"
    );
    assert_eq!(raft.role(), RoleKind::Leader);
    rig.settle().unwrap();
    rig.run(3).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Follower, "its part is done");
    rig.run(60).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Follower, "no voter campaigns");
    let leader = rig.leader().unwrap();
    assert_ne!(leader, 1);
    rig.propose(leader).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.raft(5 - leader).last(), rig.raft(leader).last());
}

#[test]
fn a_removed_follower_hears_of_it_and_falls_silent() {
    // Removed and never told, it would ask for pre-votes for ever.
    let mut rig = cluster(3, 0);
    rig.run(2).unwrap();
    let remove = [MemberChange::Remove(id(3))];
    rig.change(1, &remove, Leave::Automatic).unwrap();
    rig.run(4).unwrap();
    assert!(!rig.raft(3).membership().contains(id(3)));
    assert_eq!(rig.raft(1).progress(id(3)), None, "the farewell is over");
    for _ in 0..200 {
        rig.tick(3).unwrap();
    }
    assert!(rig.network.is_empty());
}

#[test]
fn a_removed_follower_that_is_away_is_not_waited_for() {
    let mut rig = cluster(3, 0);
    rig.run(2).unwrap();
    let remove = [MemberChange::Remove(id(3))];
    rig.change(1, &remove, Leave::Automatic).unwrap();
    rig.run_without(&[3], 20).unwrap();
    assert!(rig.raft(1).progress(id(3)).is_some());
    rig.run_without(&[3], 30).unwrap();
    assert_eq!(rig.raft(1).progress(id(3)), None);
    assert!(!rig.raft(1).is_membership_in_flight());
}

#[test]
fn a_change_needs_an_entry_of_the_leaders_own_term_committed() {
    // Ongaro 2015: the batch of an earlier leader's change could still come back.
    for plant in [None, Some(Plant::ChangeBeforeTerm)] {
        let mut rig = cluster(3, 1);
        for n in 1..=4 {
            if let Some(plant) = plant {
                rig.node_mut(n).raft.plant(plant);
            }
        }
        rig.settle().unwrap();
        for n in 1..=3 {
            rig.flush(n).unwrap();
        }
        // Node 2 takes over; its no-op is not committed.
        rig.time_out(2).unwrap();
        for n in [1, 3] {
            for _ in 0..10 {
                rig.tick(n).unwrap();
            }
        }
        rig.network.clear();
        while rig.raft(2).role() != RoleKind::Leader {
            rig.tick(2).unwrap();
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            for n in 1..=3 {
                rig.flush(n).unwrap();
            }
        }
        rig.change(2, &[add(4)], Leave::Automatic).unwrap();
        let expected = plant.is_none().then_some(Reject::NotYetCommittedInTerm);
        assert_eq!(refusal(&rig, 2), expected);
    }
}

#[test]
fn a_second_change_waits_for_the_first() {
    // Two changes under way could have quorums without a common voter.
    for plant in [None, Some(Plant::ChangesOverlap)] {
        let mut rig = cluster(3, 0);
        rig.settle().unwrap();
        if let Some(plant) = plant {
            rig.node_mut(1).raft.plant(plant);
        }
        let change = learner(7, Promotion::Never);
        rig.change(1, &[change], Leave::Automatic).unwrap();
        let other = learner(8, Promotion::Never);
        let second = rig.change(1, &[other], Leave::Automatic);
        if plant.is_some() {
            assert!(second.unwrap_err().starts_with("H10"), "and it is found");
            continue;
        }
        second.unwrap();
        assert_eq!(refusal(&rig, 1), Some(Reject::MembershipInFlight));
        rig.settle().unwrap();
        rig.change(1, &[other], Leave::Automatic).unwrap();
        rig.settle().unwrap();
        let learners: Vec<NodeId> = rig.raft(2).membership().learners().collect();
        assert_eq!(learners, [id(7), id(8)]);
    }
}

#[test]
fn a_change_that_is_cut_off_is_out_of_use() {
    // canonical/raft 250, 323, 354: a node that goes on with a membership its log does not have any
    // more elects or commits with quorums that nobody else knows.
    for plant in [None, Some(Plant::NoRollback)] {
        let mut rig = cluster(3, 0);
        rig.run(2).unwrap();
        if let Some(plant) = plant {
            rig.node_mut(1).raft.plant(plant);
        }
        let remove = [MemberChange::Remove(id(2)), MemberChange::Remove(id(3))];
        rig.change(1, &remove, Leave::Automatic).unwrap();
        rig.network.clear();
        rig.flush(1).unwrap();
        assert!(rig.raft(1).membership().is_joint());
        // Nobody has heard of it; node 2 leads and cuts it off.
        let healed = rig.run_without(&[1], 40).and_then(|()| rig.run(10));
        if plant.is_some() {
            let why = healed.unwrap_err();
            assert!(why.contains("H10"), "{why}");
            continue;
        }
        healed.unwrap();
        assert_eq!(voters(rig.raft(1)), [1, 2, 3]);
        assert_eq!(rig.raft(1).membership_since(), Index(0));
        rig.elect(1).unwrap();
    }
}

#[test]
fn a_restart_brings_the_membership_of_the_log_back() {
    // In use is the last one in the log, committed or not, applied or not (etcd 7280, 7625, 12359).
    let mut rig = cluster(3, 1);
    rig.run(2).unwrap();
    rig.change(1, &[add(4)], Leave::Explicit).unwrap();
    rig.flush(1).unwrap();
    rig.network.clear();
    rig.crash(1, 0);
    let raft = rig.raft(1);
    assert!(raft.membership().is_joint());
    assert_eq!(raft.membership_since(), raft.last().index());
    assert_eq!(raft.membership_at(Index(1)).members().count(), 3);
    // Both majorities are asked: without node 4 three of four, with it too, but never two of three.
    rig.time_out(1).unwrap();
    let asked: Vec<u64> = rig.network.iter().map(|envelope| envelope.to.0).collect();
    assert_eq!(asked, [2, 3, 4]);
}

#[test]
fn s06_a_promoted_learner_votes_though_it_does_not_know() {
    // etcd 10998: waiting for its own promotion before it votes leaves the cluster without a leader.
    let mut rig = Rig::with(2, &[3], |id| Config::new(id, GROUP, 1));
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    rig.change(1, &[add(3)], Leave::Automatic).unwrap();
    rig.settle_without(&[3]).unwrap();
    assert_eq!(voters(rig.raft(2)), [1, 2, 3]);
    assert!(!rig.raft(3).membership().is_voter(id(3)));
    // Node 1 dies.
    rig.run_without(&[1], 60).unwrap();
    assert_eq!(rig.leader(), Some(2));
    assert!(rig.raft(3).membership().is_voter(id(3)));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
}

#[test]
fn a_node_that_joins_follows_whoever_leads_and_never_campaigns_by_itself() {
    let mut rig = cluster(3, 1);
    for _ in 0..200 {
        rig.tick(4).unwrap();
    }
    assert_eq!(rig.raft(4).role(), RoleKind::Follower);
    assert!(rig.network.iter().all(|envelope| envelope.from != id(4)));
    rig.settle().unwrap();
    let change = learner(4, Promotion::Never);
    rig.change(1, &[change], Leave::Automatic).unwrap();
    rig.run(4).unwrap();
    assert_eq!(rig.raft(4).last(), rig.raft(1).last());
    assert_eq!(rig.raft(4).membership(), rig.raft(1).membership());
    assert!(rig.raft(4).membership_at(Index(1)).is_unknown());
    rig.run_without(&[4], 200).unwrap();
    assert_eq!(rig.raft(4).role(), RoleKind::Follower, "a learner waits");
}

#[test]
fn a_learner_is_promoted_when_it_has_caught_up_and_replaces_who_it_shall() {
    // Replace as one operation: it survives the leader that was asked for it.
    let mut rig = cluster(3, 1);
    rig.run(2).unwrap();
    let promotion = Promotion::WhenCaughtUp {
        replacing: Some(id(2)),
    };
    rig.change(1, &[learner(4, promotion)], Leave::Automatic)
        .unwrap();
    rig.run_without(&[4], 20).unwrap();
    assert_eq!(voters(rig.raft(1)), [1, 2, 3], "not while it is away");
    let view = rig.raft(1).progress(id(4)).unwrap();
    assert!(!view.caught_up);
    assert!(view.lag > 0);
    // Another leader than the one that was asked.
    rig.run_without(&[1, 4], 60).unwrap();
    let leader = rig.leader().unwrap();
    assert_ne!(leader, 1);
    rig.run(30).unwrap();
    for n in [1, 3, 4] {
        assert_eq!(voters(rig.raft(n)), [1, 3, 4], "node {n}");
        assert!(!rig.raft(n).membership().is_joint());
    }
    assert_eq!(rig.raft(1).membership().promotions().count(), 0);
}

#[test]
fn a_learner_that_always_lags_is_not_promoted() {
    // Promoted too early it would stop commits for as long as it takes to catch up (thesis 4.2.1).
    let mut rig = cluster(1, 1);
    let promotion = Promotion::WhenCaughtUp { replacing: None };
    rig.change(1, &[learner(2, promotion)], Leave::Automatic)
        .unwrap();
    rig.settle_without(&[2]).unwrap();
    // Its disk takes longer than an election timeout for each write, and commands keep coming.
    for _ in 0..20 {
        for _ in 0..12 {
            rig.propose(1).unwrap();
            rig.tick(1).unwrap();
            rig.flush(1).unwrap();
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
        }
        rig.sync(2, 1);
        rig.report(2).unwrap();
    }
    assert_eq!(voters(rig.raft(1)), [1]);
    assert!(!rig.raft(1).progress(id(2)).unwrap().caught_up);
    rig.run(4).unwrap();
    assert_eq!(voters(rig.raft(1)), [1, 2]);
}

#[test]
fn a_demoted_voter_votes_until_the_joint_membership_is_left() {
    let mut rig = cluster(3, 0);
    rig.run(2).unwrap();
    let change = learner(3, Promotion::Never);
    rig.change(1, &[change], Leave::Explicit).unwrap();
    rig.settle().unwrap();
    let raft = rig.raft(1);
    assert_eq!(voters(raft), [1, 2]);
    assert!(raft.membership().is_voter(id(3)));
    rig.step(1, Input::LeaveJoint { id: ProposalId(99) })
        .unwrap();
    rig.settle().unwrap();
    assert!(!rig.raft(3).membership().is_voter(id(3)));
    assert!(rig.raft(1).progress(id(3)).is_some(), "it still receives");
}

#[test]
fn a_joint_membership_is_left_by_a_later_leader_too() {
    // L4; openraft leaves it half-done: the leader that began the change is gone.
    let mut rig = cluster(3, 1);
    rig.run(2).unwrap();
    rig.change(1, &[add(4)], Leave::Automatic).unwrap();
    // The joint batch reaches everybody, its acknowledgements do not reach node 1.
    for _ in 0..4 {
        rig.flush(1).unwrap();
        for envelope in core::mem::take(&mut rig.network) {
            if envelope.to != id(1) {
                rig.deliver(envelope).unwrap();
            }
        }
        for n in 2..=4 {
            rig.flush(n).unwrap();
        }
    }
    rig.run_without(&[1], 80).unwrap();
    let leader = rig.leader().unwrap();
    let raft = rig.raft(leader);
    assert_ne!(leader, 1);
    assert_eq!(
        (voters(raft), raft.membership().is_joint()),
        (vec![1, 2, 3, 4], false)
    );
    assert_eq!(changes_in(raft), 2);
}

#[test]
fn a_membership_batch_that_holds_none_is_not_taken_over() {
    // Skipping it would leave this node with other quorums than its leader.
    let mut rig = Rig::new(3, 1);
    let bodies = [
        Bytes::new(),
        Bytes::from(vec![0; 40]),
        Bytes::from(Membership::unknown().encode()),
    ];
    for bytes in bodies {
        let body = Body {
            kind: BatchKind::Membership,
            codec: 0,
            count: 1,
            checksum: 0,
            bytes,
        };
        let batch = body.seal(GROUP, &Position::START, Term(1)).unwrap();
        let envelope = Envelope {
            group: GROUP,
            from: id(2),
            incarnation: Incarnation(1),
            to: id(1),
            term: Term(1),
            message: Message::Append {
                prev: Position::START,
                batches: vec![batch],
                commit: Index(0),
            },
        };
        rig.deliver(envelope).unwrap();
        assert_eq!(rig.raft(1).last(), Position::START);
    }
}

#[test]
fn a_boot_whose_memberships_are_not_those_of_its_log_is_refused() {
    let rig = cluster(1, 0);
    let membership = rig.raft(1).membership().clone();
    let bytes = Bytes::from(membership.encode());
    let body = Body {
        kind: BatchKind::Membership,
        codec: 0,
        count: 1,
        checksum: 0,
        bytes,
    };
    let batch = body.seal(GROUP, &Position::START, Term(1)).unwrap();
    let boot = |memberships| {
        let hard_state = HardState {
            term: Term(1),
            vote: None,
        };
        let mut boot = Boot::healthy(
            Incarnation(1),
            hard_state,
            Position::START,
            vec![batch.header],
            membership.clone(),
        );
        boot.memberships = memberships;
        Raft::new(Config::new(id(1), GROUP, 1), boot)
    };
    let known = |at| (Index(at), membership.clone());
    assert!(boot(vec![known(1)]).is_ok());
    let unknown = (Index(1), Membership::unknown());
    let wrong = [
        (vec![], 1),
        (vec![known(0)], 0),
        (vec![known(0), known(1)], 0),
        (vec![known(1), known(1)], 1),
        (vec![unknown], 1),
    ];
    for (memberships, at) in wrong {
        let error = boot(memberships).unwrap_err();
        assert_eq!(error, BootError::Memberships { at: Index(at) });
    }
}

#[test]
fn a_leader_that_leaves_itself_out_can_still_be_elected_until_that_is_committed() {
    // Thesis 4.2.2. Only its log holds the batch that leaves it out, and more: nobody else can win.
    for planted in [None, Some(Plant::OnlyVotersStand)] {
        let mut rig = cluster(2, 0);
        rig.run(2).unwrap();
        let demote = learner(1, Promotion::Never);
        rig.change(1, &[demote], Leave::Automatic).unwrap();
        while rig.raft(1).membership().is_joint() {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            (1..=2).for_each(|n| rig.flush(n).unwrap());
        }
        rig.network.clear();
        rig.flush(1).unwrap();
        assert!(!rig.raft(1).membership().is_voter(id(1)));
        assert!(rig.raft(2).membership().is_joint());
        rig.crash(1, 0);
        if let Some(planted) = planted {
            rig.node_mut(1).raft.plant(planted);
        }
        rig.run(200).unwrap();
        let over = rig.raft(2).role() == RoleKind::Leader && !rig.raft(2).is_membership_in_flight();
        assert_eq!(over, planted.is_none());
    }
}

#[test]
fn a_learner_gives_a_silent_leader_up_though_it_cannot_take_over() {
    // Reads that it has forwarded would wait for ever, and clients be sent to a node that is gone.
    let mut rig = Rig::with(1, &[2], |id| Config::new(id, GROUP, 1));
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    rig.network.clear();
    rig.read(2, ReadBasis::Quorum).unwrap();
    for _ in 0..25 {
        rig.tick(2).unwrap();
        rig.network.clear();
    }
    assert_eq!(rig.raft(2).leader(), None);
    assert_eq!(refusal(&rig, 2), Some(Reject::LostLeadership));
    rig.run(3).unwrap();
    assert_eq!(
        rig.raft(2).leader(),
        Some(id(1)),
        "a heartbeat brings it back"
    );
}

#[test]
fn a_full_uncommitted_window_does_not_stop_a_change() {
    // S25: the change may be what brings the quorum back that the window waits for.
    let mut rig = Rig::with(3, &[], |id| Config {
        uncommitted_bytes_max: 200,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    for _ in 0..4 {
        rig.propose(1).unwrap();
    }
    assert_eq!(refusal(&rig, 1), Some(Reject::UncommittedLimit));
    rig.change(1, &[MemberChange::Remove(id(3))], Leave::Automatic)
        .unwrap();
    assert_eq!(refusal(&rig, 1), None);
    rig.settle().unwrap();
    assert_eq!(
        voters(rig.raft(2)),
        [1, 2],
        "and the joint membership is left as well"
    );
    assert_eq!(rig.raft(1).uncommitted_bytes(), Some(0));
}

#[test]
fn the_largest_membership_is_exactly_as_long_as_the_limit() {
    // 32 outgoing voters, 31 of them learners, 16 of those to be promoted again: 10 + 8 + 256 + 248 + 256.
    let before = Membership::new((1..=32).map(NodeId), []).unwrap();
    let demoted = |promoted: u64| {
        let promotion = |n| match n <= 1 + promoted {
            true => Promotion::WhenCaughtUp { replacing: None },
            false => Promotion::Never,
        };
        let changes: Vec<MemberChange> = (2..=32).map(|n| learner(n, promotion(n))).collect();
        before.change(&changes, Leave::Explicit)
    };
    let largest = demoted(16).unwrap();
    let bytes = largest.encode();
    assert_eq!((bytes.len(), MEMBERSHIP_BYTES_MAX), (778, 778));
    assert_eq!(Membership::decode(&bytes), Ok(largest));
    assert_eq!(demoted(17), Err(ChangeError::TooLarge(794)));
}

#[test]
fn one_member_more_than_the_most_is_refused() {
    // Quorums are counted in room for the most; a larger membership could be read by nobody.
    let many = Membership::new((1..=32).map(id), []).unwrap();
    for change in [add(33), learner(33, Promotion::Never)] {
        let refused = many.change(&[change], Leave::Automatic);
        assert_eq!(refused, Err(ChangeError::TooMany(33)));
    }
    let replaced = [MemberChange::Remove(id(1)), add(33)];
    let refused = many.change(&replaced, Leave::Automatic);
    let outgoing = "who leaves counts until the joint membership is left";
    assert_eq!(refused, Err(ChangeError::TooMany(33)), "{outgoing}");
    let few = Membership::new((1..=31).map(id), []).unwrap();
    assert!(few.change(&[add(33)], Leave::Automatic).is_ok());
}

#[test]
fn a_learner_is_not_promoted_before_the_change_before_it_is_committed() {
    // Two changes that are both under way can have quorums that share no voter.
    let mut rig = cluster(3, 1);
    rig.run(2).unwrap();
    let promotion = Promotion::WhenCaughtUp { replacing: None };
    rig.change(1, &[learner(4, promotion)], Leave::Automatic)
        .unwrap();
    let at = rig.raft(1).last().index();
    // Appends reach the learner alone; heartbeats go through.
    for _ in 0..20 {
        rig.tick(1).unwrap();
        for _ in 0..4 {
            for envelope in core::mem::take(&mut rig.network) {
                let append = matches!(envelope.message, Message::Append { .. });
                if !append || envelope.to == id(4) {
                    rig.deliver(envelope).unwrap();
                }
            }
            (1..=4).for_each(|n| rig.flush(n).unwrap());
        }
    }
    let raft = rig.raft(1);
    assert_eq!(raft.role(), RoleKind::Leader);
    assert!(raft.progress(id(4)).unwrap().caught_up);
    assert_eq!(raft.last().index(), at, "nothing was appended");
    rig.run(6).unwrap();
    assert_eq!(voters(rig.raft(1)), [1, 2, 3, 4]);
}

#[test]
fn whoever_has_left_is_told_so_for_four_election_timeouts() {
    let mut rig = cluster(3, 0);
    rig.run(2).unwrap();
    rig.change(1, &[MemberChange::Remove(id(3))], Leave::Explicit)
        .unwrap();
    rig.settle_without(&[3]).unwrap();
    rig.step(1, Input::LeaveJoint { id: ProposalId(99) })
        .unwrap();
    rig.settle_without(&[3]).unwrap();
    for tick in 1..=40 {
        assert!(rig.raft(1).progress(id(3)).is_some(), "{tick}");
        rig.run_without(&[3], 1).unwrap();
    }
    assert!(rig.raft(1).progress(id(3)).is_none());
}

#[test]
fn a_membership_longer_than_the_largest_batch_is_refused() {
    // Every receiver refuses a batch above the limit: the cluster would stand still behind it.
    for (short, refused) in [(0, None), (1, Some(Reject::TooLarge))] {
        let members = Membership::new((1..=3).map(id), [id(4)]).unwrap();
        let len = members.encode().len() as u32;
        let mut rig = Rig::with(3, &[], |id| Config {
            max_batch_bytes: len - short,
            ..Config::new(id, GROUP, 1)
        });
        rig.elect(1).unwrap();
        rig.change(1, &[learner(4, Promotion::Never)], Leave::Automatic)
            .unwrap();
        assert_eq!(refusal(&rig, 1), refused);
    }
}

#[test]
fn bytes_that_hold_no_usable_membership_are_refused() {
    // They come from disks and peers, and every quorum is asked of what they say.
    let head = |joint: u8, counts: [u16; 4]| {
        let counts = counts.into_iter().flat_map(u16::to_le_bytes);
        [1, joint].into_iter().chain(counts).collect::<Vec<u8>>()
    };
    let ids = |ids: &[u64]| {
        ids.iter()
            .flat_map(|id| id.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let decode = |head: Vec<u8>, ids: Vec<u8>| Membership::decode(&[head, ids].concat());
    assert_eq!(
        decode(head(0, [0, 0, 0, 0]), ids(&[])),
        Ok(Membership::unknown())
    );
    // Learners and nobody who votes.
    assert!(decode(head(0, [0, 0, 1, 0]), ids(&[4])).is_err());
    assert!(decode(head(0, [1, 0, 1, 1]), ids(&[1, 4, 4, 4])).is_ok());
    // Whoever is to be promoted is no learner.
    assert!(decode(head(0, [1, 0, 1, 1]), ids(&[1, 4, 5, 5])).is_err());
    // Joint, and nobody on the side that is left.
    assert!(decode(head(1, [1, 1, 0, 0]), ids(&[1, 2])).is_ok());
    assert!(decode(head(1, [1, 0, 0, 0]), ids(&[1])).is_err());
}

#[test]
fn a_quorum_of_many_voters_holds_what_more_than_half_of_them_hold() {
    for (count, holds) in [(6, 3), (7, 4), (8, 4), (9, 5), (31, 16), (32, 16)] {
        let many = Membership::new((1..=count).map(id), []).unwrap();
        assert_eq!(many.quorum_value(0, |id| id.0), holds, "{count} voters");
        assert_eq!(many.quorum_value(0, |id| count + 1 - id.0), holds);
    }
}
