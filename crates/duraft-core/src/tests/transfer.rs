//! Giving the leadership up: transfers, stepping down, priority, stalled disks, slow disks.

use super::rig::*;
use crate::*;
use alloc::vec;
use alloc::vec::Vec;

fn cluster(voters: u64) -> Rig {
    let mut rig = Rig::new(voters, 1);
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    rig
}

fn with(config: impl Fn(NodeId, &mut Config)) -> Rig {
    let mut rig = Rig::with(3, &[], |id| {
        let mut own = Config::new(id, GROUP, 1);
        config(id, &mut own);
        own
    });
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    rig
}

fn last_response(rig: &Rig, id: u64) -> &Response {
    rig.node(id).responses.last().expect("an answer")
}

fn refusal(rig: &Rig, id: u64) -> Option<Reject> {
    match rig.node(id).responses.last()? {
        Response::Rejected { reason, .. } => Some(*reason),
        Response::Appended { .. } | Response::Done { .. } => None,
    }
}

fn asked(rig: &Rig) -> Vec<u64> {
    let now = |e: &&Envelope| e.message == Message::TimeoutNow;
    rig.network.iter().filter(now).map(|e| e.to.0).collect()
}

/// A tick and some exchanges, in which the disk of one node does nothing.
fn tick_with_stuck_disk(rig: &mut Rig, stuck: u64) {
    for id in rig.ids() {
        rig.tick(id).unwrap();
    }
    for _ in 0..6 {
        for envelope in core::mem::take(&mut rig.network) {
            rig.deliver(envelope).unwrap();
        }
        for id in rig.ids() {
            if id != stuck {
                rig.flush(id).unwrap();
                rig.answer_load(id).unwrap();
                rig.report_applied(id).unwrap();
            }
        }
    }
}

#[test]
fn s24_a_transfer_waits_for_the_durable_match_and_then_takes_one_election() {
    let mut rig = cluster(3);
    for _ in 0..3 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    rig.transfer(1, 3).unwrap();
    rig.propose(1).unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::TransferInProgress));
    rig.change(1, &[MemberChange::Remove(NodeId(2))], Leave::Automatic)
        .unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::TransferInProgress));
    rig.transfer(1, 2).unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::TransferInProgress));
    // Node 3 takes everything in; its disk does not.
    for _ in 0..6 {
        for id in 1..=3 {
            rig.tick(id).unwrap();
        }
        for _ in 0..3 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            rig.flush(1).unwrap();
            rig.flush(2).unwrap();
            assert!(asked(&rig).is_empty(), "not before it is durable");
        }
    }
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    let term = rig.raft(1).term();
    rig.settle().unwrap();
    assert_eq!(rig.leader(), Some(3));
    assert_eq!(
        rig.raft(3).term(),
        Term(term.0 + 1),
        "one election, no pre-vote"
    );
    assert!(matches!(last_response(&rig, 1), Response::Done { .. }));
    rig.propose(3).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.raft(1).commit(), rig.raft(3).last().index());
}

#[test]
fn a_target_that_is_asked_too_early_cannot_win() {
    // The wait for the match is no courtesy: without it the election fails and nobody leads for a while.
    let mut rig = cluster(3);
    rig.propose(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    rig.local_checks = false;
    rig.node_mut(1).raft.plant(Plant::TransferEarly);
    rig.transfer(1, 3).unwrap();
    assert_eq!(asked(&rig), [3]);
    rig.network.retain(|e| e.message == Message::TimeoutNow);
    rig.settle().unwrap();
    assert_eq!(rig.leader(), None);
}

#[test]
fn s24_a_transfer_to_a_dead_target_ends_after_one_election_timeout() {
    let mut rig = cluster(3);
    rig.transfer(1, 3).unwrap();
    for _ in 0..10 {
        assert_eq!(rig.raft(1).role(), RoleKind::Leader);
        rig.run_without(&[3], 1).unwrap();
    }
    assert_eq!(refusal(&rig, 1), Some(Reject::TransferTimedOut));
    rig.propose(1).unwrap();
    assert_eq!(refusal(&rig, 1), None, "it serves again");
    rig.settle_without(&[3]).unwrap();
    assert_eq!(rig.raft(1).commit(), rig.raft(1).last().index());
}

#[test]
fn a_lost_request_is_repeated_with_the_heartbeats() {
    let mut rig = cluster(3);
    rig.transfer(1, 3).unwrap();
    assert_eq!(asked(&rig), [3]);
    rig.network.clear();
    rig.run(3).unwrap();
    assert_eq!(rig.leader(), Some(3));
}

#[test]
fn transfers_go_to_other_voters_and_from_leaders_only() {
    let mut rig = Rig::with(3, &[4], |id| Config::new(id, GROUP, 1));
    rig.elect(1).unwrap();
    for to in [1, 4, 9] {
        rig.transfer(1, to).unwrap();
        assert_eq!(refusal(&rig, 1), Some(Reject::TransferTarget), "{to}");
    }
    rig.transfer(2, 3).unwrap();
    assert_eq!(refusal(&rig, 2), Some(Reject::NotLeader));
}

#[test]
fn a_transfer_that_somebody_else_ends_is_not_done() {
    let mut rig = cluster(3);
    rig.transfer(1, 3).unwrap();
    rig.network.clear();
    let heartbeat = said(
        2,
        1,
        9,
        Message::Heartbeat {
            commit: Index(0),
            round: 1,
        },
    );
    rig.deliver(heartbeat).unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::LostLeadership));
}

#[test]
fn a_request_to_campaign_counts_from_the_leader_of_the_term_only() {
    // A late one, or one from a stranger, must not depose a leader that works.
    let mut rig = cluster(3);
    let term = rig.raft(1).term().0;
    for (from, term) in [(3, term), (1, term - 1), (3, term + 1)] {
        let envelope = said(from, 2, term, Message::TimeoutNow);
        rig.deliver(envelope).unwrap();
        assert_eq!(rig.raft(2).role(), RoleKind::Follower);
    }
}

#[test]
fn s12_a_leader_is_replaced_through_a_transfer_while_joint() {
    let mut rig = cluster(3);
    rig.join(Config::new(NodeId(4), GROUP, 1));
    let changes = [
        MemberChange::Remove(NodeId(1)),
        MemberChange::AddVoter(NodeId(4)),
    ];
    rig.change(1, &changes, Leave::Explicit).unwrap();
    rig.run(3).unwrap();
    rig.transfer(1, 4).unwrap();
    rig.settle().unwrap();
    assert_eq!(rig.leader(), Some(4));
    assert!(rig.raft(4).membership().is_joint());
    rig.step(4, Input::LeaveJoint { id: ProposalId(99) })
        .unwrap();
    rig.run(3).unwrap();
    let voters: Vec<NodeId> = rig.raft(4).membership().voters().collect();
    assert_eq!(voters, [NodeId(2), NodeId(3), NodeId(4)]);
    rig.run_without(&[1], 3).unwrap();
    for _ in 0..60 {
        rig.tick(1).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
}

#[test]
fn stepping_down_asks_whoever_holds_everything() {
    let mut rig = cluster(3);
    rig.propose(1).unwrap();
    rig.settle_without(&[2]).unwrap();
    let id = ProposalId(77);
    rig.step(1, Input::StepDown { id }).unwrap();
    assert!(rig.node(1).responses.contains(&Response::Done { id }));
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
    assert_eq!(asked(&rig), [3], "node 2 lacks an entry");
    rig.settle().unwrap();
    assert_eq!(rig.leader(), Some(3));
    rig.step(1, Input::StepDown { id }).unwrap();
    assert_eq!(refusal(&rig, 1), Some(Reject::NotLeader));
}

#[test]
fn s13_a_follower_that_forgets_its_leader_helps_whoever_is_up_to_date() {
    for leased in [false, true] {
        let mut rig = Rig::with(3, &[], |id| Config {
            lease: leased.then_some(Lease { drift_ppm: 0 }),
            ..Config::new(id, GROUP, 1)
        });
        rig.run(60).unwrap();
        let leader = rig.leader().unwrap();
        let (two, three) = (1 + leader % 3, 1 + (leader + 1) % 3);
        let term = rig.raft(two).term();
        rig.step(two, Input::ForgetLeader).unwrap();
        assert_eq!(rig.raft(two).term(), term);
        assert_eq!(
            rig.raft(two).leader().is_none(),
            !leased,
            "refused with leases"
        );
        let pre_vote = |last| Envelope {
            group: GROUP,
            from: NodeId(three),
            incarnation: Incarnation(1),
            to: NodeId(two),
            term,
            message: Message::PreVote {
                wanted: Term(term.0 + 1),
                last,
            },
        };
        let last = rig.raft(two).last().id;
        for (last, fresh) in [(last, true), (LogId::default(), false)] {
            rig.deliver(pre_vote(last)).unwrap();
            let wanted = Term(term.0 + 1);
            let granted = fresh && !leased;
            let answer = Message::PreVoteReply { wanted, granted };
            assert_eq!(rig.network.pop().unwrap().message, answer);
        }
        rig.run(3).unwrap();
        assert_eq!(
            rig.raft(two).leader(),
            Some(NodeId(leader)),
            "a heartbeat restores it"
        );
        assert_eq!(rig.raft(two).term(), term);
    }
}

#[test]
fn the_leadership_goes_to_the_highest_priority_that_can_take_it() {
    let mut rig = with(|id, config| config.priority = [0, 1, 9, 5][id.0 as usize]);
    assert_eq!(rig.leader(), Some(1));
    rig.run(6).unwrap();
    assert_eq!(rig.leader(), Some(1), "not before it has led for a while");
    rig.run_without(&[2], 60).unwrap();
    assert_eq!(rig.leader(), Some(3), "node 2 is away");
    rig.run(60).unwrap();
    assert_eq!(rig.leader(), Some(2), "and comes back");
    let term = rig.raft(2).term();
    rig.run(200).unwrap();
    assert_eq!(rig.raft(2).term(), term, "and stays");
}

#[test]
fn a_preferred_node_that_does_not_keep_the_leadership_is_left_alone_longer_and_longer() {
    // Handing over again and again to a node that cannot lead would stop proposals for good.
    let mut rig = with(|id, config| config.priority = u8::from(id.0 == 3));
    let mut handed = Vec::new();
    for now in 0..2_000u64 {
        for id in 1..=3 {
            rig.tick(id).unwrap();
        }
        for _ in 0..6 {
            for envelope in core::mem::take(&mut rig.network) {
                match envelope.message {
                    Message::TimeoutNow => handed.push(now),
                    _ => rig.deliver(envelope).unwrap(),
                }
            }
            (1..=3).for_each(|id| rig.flush(id).unwrap());
        }
    }
    handed.dedup_by(|b, a| *b - *a < 12);
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    assert!((3..10).contains(&handed.len()), "{handed:?}");
    let pauses: Vec<u64> = handed.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses.is_sorted() && pauses[0] < pauses[2], "{pauses:?}");
}

#[test]
fn crash_c09_a_leader_whose_disk_stalls_hands_over() {
    // L5, etcd 13527: heartbeats go on, so nobody else would ever notice.
    for policy in [true, false] {
        let mut rig = with(|_, config| config.stall_ticks = policy.then_some(30));
        rig.propose(1).unwrap();
        let mut handed_over = None;
        for tick in 0..200 {
            tick_with_stuck_disk(&mut rig, 1);
            if rig.leader() != Some(1) && handed_over.is_none() {
                handed_over = Some(tick);
            }
        }
        assert_eq!(handed_over.is_some(), policy);
        let Some(tick) = handed_over else {
            continue;
        };
        assert!(tick <= 30 + 2 * 10, "{tick}");
        let leader = rig.leader().unwrap();
        let term = rig.raft(leader).term();
        assert_eq!(rig.raft(1).term(), term, "one election");
        rig.propose(leader).unwrap();
        for _ in 0..200 {
            tick_with_stuck_disk(&mut rig, 1);
        }
        assert_eq!(rig.raft(leader).commit(), rig.raft(leader).last().index());
        assert_eq!(rig.raft(leader).term(), term, "and nobody disturbs it");
    }
}

#[test]
fn a_stalled_leader_steps_down_if_its_target_does_not_come() {
    let mut rig = with(|_, config| config.stall_ticks = Some(30));
    rig.propose(1).unwrap();
    let mut left = None;
    for tick in 0..60 {
        rig.network.retain(|e| e.message != Message::TimeoutNow);
        for id in rig.ids() {
            rig.tick(id).unwrap();
        }
        for _ in 0..6 {
            for envelope in core::mem::take(&mut rig.network) {
                if envelope.message != Message::TimeoutNow {
                    rig.deliver(envelope).unwrap();
                }
            }
            rig.flush(2).unwrap();
            rig.flush(3).unwrap();
        }
        if rig.raft(1).role() != RoleKind::Leader && left.is_none() {
            left = Some(tick);
        }
    }
    assert!(left.is_some_and(|tick| tick <= 30 + 10 + 2), "{left:?}");
    assert!(matches!(rig.leader(), Some(2 | 3)));
}

#[test]
fn a_stalled_leader_stays_where_nobody_could_take_over() {
    // The other two are stalled as well, and say so.
    let mut rig = with(|_, config| config.stall_ticks = Some(30));
    rig.propose(1).unwrap();
    rig.flush(1).unwrap();
    for _ in 0..100 {
        for id in rig.ids() {
            rig.tick(id).unwrap();
        }
        for _ in 0..4 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
        }
        // So that check-quorum does not end it for another reason.
        if rig.raft(1).role() != RoleKind::Leader {
            break;
        }
        let view = rig.raft(1).progress(NodeId(2)).unwrap();
        if view.health.impaired {
            assert!(asked(&rig).is_empty());
            return;
        }
    }
    panic!("node 2 never says that its disk stalls");
}

#[test]
fn a_node_with_a_stalled_disk_does_not_campaign() {
    for policy in [true, false] {
        let mut rig = with(|_, config| config.stall_ticks = policy.then_some(30));
        rig.propose(1).unwrap();
        // Node 2 takes the entry in and its disk stalls; its term and vote are durable.
        for _ in 0..40 {
            tick_with_stuck_disk(&mut rig, 2);
        }
        rig.network.clear();
        for _ in 0..100 {
            rig.tick(2).unwrap();
        }
        let quiet = rig.raft(2).role() == RoleKind::Follower && rig.network.is_empty();
        assert_eq!(quiet, policy);
    }
}

/// Three nodes; writes of node 2 took 8 ticks each, and it has just given its leader up.
fn slow_follower(planted: Option<Plant>) -> Rig {
    let mut rig = cluster(3);
    if let Some(planted) = planted {
        rig.node_mut(2).raft.plant(planted);
    }
    let mut due = vec![];
    for now in 0..100u64 {
        if now % 10 == 0 {
            rig.propose(1).unwrap();
            due.push(now + 8);
        }
        for id in rig.ids() {
            rig.tick(id).unwrap();
        }
        for _ in 0..4 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            rig.flush(1).unwrap();
            rig.flush(3).unwrap();
            if due.first().is_some_and(|at| *at <= now) {
                due.remove(0);
                rig.flush(2).unwrap();
            }
        }
    }
    rig.settle().unwrap();
    rig.step(2, Input::ForgetLeader).unwrap();
    rig
}

/// The ticks, of so many in which nobody hears it, in which node 2 asks for votes.
fn asks_in(rig: &mut Rig, ticks: u64) -> Vec<u64> {
    let mut asked = Vec::new();
    for now in 0..ticks {
        rig.tick(2).unwrap();
        let ask = |e: &Envelope| matches!(e.message, Message::PreVote { .. });
        if rig.network.iter().any(ask) {
            asked.push(now);
        }
        rig.network.clear();
    }
    asked
}

#[test]
fn rule_11_a_slow_disk_makes_election_timeouts_long() {
    // With timeouts of the order of a write, the next election begins before the last is decided.
    for planted in [None, Some(Plant::TimeoutIgnoresDisk)] {
        let mut rig = slow_follower(planted);
        // It asks in vain; each new wait is drawn from what its writes have taken lately.
        let asked = asks_in(&mut rig, 150);
        let least = asked.windows(2).map(|two| two[1] - two[0]).min().unwrap();
        assert_eq!(least >= 4 * 8, planted.is_none(), "{asked:?}");
    }
}

#[test]
fn a_disk_that_was_slow_does_not_delay_elections_for_ever() {
    // The wait that it drew then stands as long as it hears a leader, which may be days.
    let mut rig = slow_follower(None);
    asks_in(&mut rig, 80);
    for _ in 0..400 {
        for id in rig.ids() {
            rig.tick(id).unwrap();
        }
        rig.settle().unwrap();
    }
    assert_eq!(rig.raft(2).leader(), Some(NodeId(1)));
    let asked = asks_in(&mut rig, 40);
    assert!(asked.first().is_some_and(|at| *at < 20), "{asked:?}");
}

#[test]
fn a_target_is_asked_once_in_a_heartbeat_interval() {
    // Each time it campaigns in another term: asked at every answer, it would never get to lead.
    let mut rig = cluster(3);
    rig.network.clear();
    rig.transfer(1, 3).unwrap();
    let mut ticks = vec![];
    for tick in 0..10 {
        for _ in 0..4 {
            ticks.extend(asked(&rig).into_iter().map(|_| tick));
            for envelope in core::mem::take(&mut rig.network) {
                if envelope.message != Message::TimeoutNow {
                    rig.deliver(envelope).unwrap();
                }
            }
        }
        rig.tick(1).unwrap();
    }
    assert_eq!(ticks, [0, 2, 4, 6, 8]);
}

#[test]
fn a_transfer_ends_with_the_leadership_whatever_ends_it() {
    // Its client would wait for ever.
    let mut rig = cluster(3);
    rig.propose(1).unwrap();
    rig.network.clear();
    rig.transfer(1, 3).unwrap();
    assert_eq!(rig.raft(1).transfer_target(), Some(NodeId(3)));
    let id = ProposalId(99);
    rig.step(1, Input::StepDown { id }).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
    assert_eq!(rig.raft(1).transfer_target(), None);
    assert_eq!(refusal(&rig, 1), Some(Reject::LostLeadership));
}

/// A leader whose disk stalls asks node 2, and the request is lost. `lost` is what else does not arrive;
/// where `recovers`, the disk comes back meanwhile. Does it lead on?
fn stalls(lost: impl Fn(&Envelope) -> bool, impaired: bool, recovers: bool) -> bool {
    let mut rig = with(|_, config| {
        config.stall_ticks = Some(30);
        config.uncommitted_bytes_max = 1 << 20;
    });
    rig.propose(1).unwrap();
    let mut first = None;
    for tick in 0..60 {
        rig.tick(1).unwrap();
        for _ in 0..4 {
            for mut envelope in core::mem::take(&mut rig.network) {
                if envelope.message == Message::TimeoutNow {
                    first = first.or(Some(tick));
                } else if !lost(&envelope) {
                    if let Message::HeartbeatReply { health, .. } = &mut envelope.message {
                        health.impaired = impaired && envelope.from == NodeId(3);
                    }
                    rig.deliver(envelope).unwrap();
                }
            }
            [2, 3].iter().for_each(|id| rig.flush(*id).unwrap());
        }
        if recovers && first.is_some_and(|first| tick == first + 5) {
            rig.flush(1).unwrap();
        }
        if first.is_some_and(|first| tick == first + 12) {
            break;
        }
    }
    assert!(first.is_some(), "somebody was asked");
    rig.raft(1).role() == RoleKind::Leader
}

#[test]
fn a_stalled_leader_goes_only_where_a_quorum_of_the_others_could_lead() {
    // Otherwise nobody would lead: a slow leader is better than none.
    let nothing = |_: &Envelope| false;
    let third = |e: &Envelope| [e.from, e.to].contains(&NodeId(3));
    assert!(!stalls(nothing, false, false));
    assert!(stalls(third, false, false), "node 3 is away");
    assert!(stalls(nothing, true, false), "node 3 stalls too");
    assert!(stalls(nothing, false, true), "the disk is back");
}

#[test]
fn a_disk_stalls_when_a_write_takes_longer_than_the_bound() {
    let mut rig = with(|_, config| config.stall_ticks = Some(30));
    rig.propose(1).unwrap();
    let mut raft = rig.raft(1).clone();
    raft.config.check_quorum = false;
    for tick in 1..40 {
        raft.step(Input::Tick, &mut Vec::new());
        assert_eq!(raft.health().impaired, tick > 30, "{tick}");
    }
}
