//! Snapshots and compaction: S15, S17, S18, RULES 21, and the defects n3, n5, l6, l6b of others.

use crate::common::{acceptances, appends, led, refusals, settle, usurp};
use duraft_core::{
    AppendReply, Fault, HardState, Index, Message, NodeId, Phase, Position, RoleKind, SendProgress,
    Snapshot, Term,
};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, Options, Outcome, add, any, remove};

/// No log is kept behind a snapshot.
pub(crate) fn tight(voters: u64) -> Options {
    Options::new(voters).configure(|config| config.trailing_bytes_max = 0)
}

/// n1 leads, n3 has missed everything after the first entry, and n1's log begins behind that.
pub(crate) fn behind(options: Options, commands: u64) -> Cluster {
    let mut c = led(options);
    c.isolate(N3);
    for i in 0..commands {
        c.propose(N1, &format!("{i}"));
        c.deliver_all();
    }
    settle(&mut c);
    give_up_on_n3(&mut c);
    c.take_snapshot(N1);
    assert_eq!(c.issued(N1).start.index(), Index(1 + commands));
    c.hold_snapshots();
    c.heal();
    c
}

/// So much time passes that n1 keeps nothing for n3 any more.
fn give_up_on_n3(c: &mut Cluster) {
    for _ in 0..8 * c.options().config.election_ticks {
        c.tick(N1, 1);
        c.deliver_all();
    }
}

/// Words are exchanged until n1 sends n3 a snapshot.
pub(crate) fn offered(c: &mut Cluster) -> Snapshot {
    for _ in 0..4 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    let under_way = c.snapshots_under_way();
    let [(N1, N3, snapshot)] = &under_way[..] else {
        panic!("one snapshot for n3: {under_way:?}\n{}", c.story());
    };
    snapshot.clone()
}

/// n1 without an entry, and its leader n2 that the test speaks for; `log` is known to be committed.
pub(crate) fn puppet_led(log: &Chain) -> Cluster {
    let mut c = Cluster::build(
        Options::new(3)
            .plain()
            .puppets(&[N2, N3])
            .configure(|config| {
                config.trailing_bytes_max = 0;
            }),
    );
    c.know_committed(log);
    c
}

#[test]
pub(crate) fn scenario_s15_a_follower_behind_the_compacted_log_gets_one_snapshot() {
    // Could go wrong: the leader sends what it no longer has, a snapshot per heartbeat, or stays in
    // probing for ever after.
    let options = tight(3).configure(|config| config.inflight_messages_max = 2);
    let mut c = behind(options, 6);
    offered(&mut c);
    let sent = appends(&c, N1, N3);
    for _ in 0..5 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    assert_eq!(
        appends(&c, N1, N3),
        sent,
        "nothing follows a snapshot under way"
    );
    assert_eq!(c.progress(N1, N3).phase, Phase::Snapshot);
    assert!(c.deliver_snapshot(N3));
    c.deliver_all();
    assert_eq!(c.progress(N1, N3).phase, Phase::Replicate);
    assert!(c.snapshots_under_way().is_empty(), "one is enough");
    assert_eq!(c.issued(N3).last(), c.issued(N1).last());
    assert_eq!(c.commands(N3), c.commands(N1));
    let x = c.propose(N1, "x");
    settle(&mut c);
    assert!(c.acknowledged(x));
    assert_eq!(c.commands(N3), c.commands(N1));
    assert!(refusals(&c, N3) <= 1);
}

#[test]
pub(crate) fn scenario_s17_the_acknowledgement_of_a_snapshot_is_enough() {
    // Could go wrong: a follower that stands exactly at the snapshot is asked again before anything is
    // sent ahead.
    let mut c = behind(tight(3), 3);
    offered(&mut c);
    let sent = appends(&c, N1, N3);
    c.deliver_snapshot(N3);
    c.deliver(any().from(N3).to(N1));
    let progress = c.progress(N1, N3);
    assert_eq!(
        (progress.phase, progress.matched),
        (Phase::Replicate, Index(4))
    );
    let with_batches = c.sent(any().from(N1).to(N3).kind(Kind::Append));
    let with_batches = with_batches[sent..]
        .iter()
        .filter(|e| matches!(&e.message, Message::Append { batches, .. } if !batches.is_empty()));
    assert_eq!(with_batches.count(), 0, "there is nothing to send");
}

#[test]
pub(crate) fn scenario_s18_an_older_snapshot_than_wanted_still_helps() {
    // Could go wrong: the leader, which has compacted further meanwhile, ignores the acknowledgement
    // of the older one, and sends another for ever.
    let options = Options::new(3).configure(|config| config.trailing_bytes_max = 1 << 20);
    let mut c = led(options);
    c.isolate(N3);
    for i in 0..3 {
        c.propose(N1, &format!("{i}"));
        c.deliver_all();
    }
    settle(&mut c);
    let old = c.take_snapshot(N1);
    c.propose(N1, "one more");
    settle(&mut c);
    c.take_snapshot(N1);
    c.heal();
    c.hold_snapshots();
    // n3 gets the older one first, from an earlier transfer.
    c.receive_snapshot(N1, Term(1), N3, old);
    c.heartbeat(N1);
    c.deliver_all();
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.progress(N1, N3).phase, Phase::Replicate);
    assert_eq!(c.issued(N3).start.index(), Index(4));
    assert_eq!(
        c.log(N3),
        ["5@1 \"one more\""],
        "the rest follows as entries"
    );
}

#[test]
pub(crate) fn rule_21_an_install_is_decided_when_its_write_is_made() {
    // Three cases, for every length of an equal log, durable or not, and for a log that conflicts.
    let log = Chain::of_terms(&[1, 1, 2, 2, 2, 2]);
    for held in 0..=6 {
        for at in 1..=6 {
            for commit in 0..=held {
                let mut c = puppet_led(&log);
                c.inject(says(N2, N1, 2, log.append(0, held, commit)));
                assert_eq!(c.commit(N1), commit);
                let snapshot = c.snapshot_of(&log, at);
                let writes = c.writes(N1).len();
                c.receive_snapshot(N2, Term(2), N1, snapshot);
                let story = format!("holds {held}, committed {commit}, snapshot {at}");
                let made = &c.writes(N1)[writes..];
                let reset = made
                    .iter()
                    .any(|w| w.snapshot.as_ref().is_some_and(|s| s.reset));
                assert_eq!(reset, at > commit && at > held, "{story}");
                assert_eq!(c.issued(N1).last(), log.at(held.max(at)), "{story}");
                assert_eq!(c.commit(N1), commit.max(at), "{story}");
                assert_eq!(c.applied(N1), commit.max(at), "{story}");
            }
        }
    }
    let other = Chain::of_terms(&[1, 1, 1, 1, 1]);
    let mut c = puppet_led(&log);
    c.inject(says(N2, N1, 1, other.append(0, 5, 2)));
    let snapshot = c.snapshot_of(&log, 4);
    c.receive_snapshot(N2, Term(2), N1, snapshot);
    assert_eq!(
        c.issued(N1).last(),
        log.at(4),
        "a log that conflicts is replaced"
    );
    assert_eq!(c.issued(N1).batches, []);
}

#[test]
pub(crate) fn rule_21_an_install_is_acknowledged_and_restored_only_when_durable() {
    let log = Chain::of_terms(&[1, 1, 2]);
    let mut c = puppet_led(&log);
    c.inject(says(N2, N1, 2, log.append(0, 1, 1)));
    c.deliver_all();
    c.take_mail();
    c.hold_disk(N1);
    let snapshot = c.snapshot_of(&log, 3);
    c.receive_snapshot(N2, Term(2), N1, snapshot.clone());
    c.deliver_all();
    let acknowledged = |c: &mut Cluster| {
        c.take_mail()
            .iter()
            .filter_map(crate::common::acceptance)
            .max()
    };
    assert!(acknowledged(&mut c).is_none_or(|matched| matched <= 1));
    assert_eq!(
        c.applied(N1),
        1,
        "a state machine must not run ahead of the log"
    );
    // Power goes before the record is durable: the node is where it was.
    c.crash(N1);
    c.restart(N1);
    assert_eq!(c.issued(N1).last(), log.at(1));
    c.free_disk(N1);
    c.receive_snapshot(N2, Term(2), N1, snapshot);
    c.inject(says(N2, N1, 2, log.append(3, 3, 3)));
    c.deliver_all();
    assert_eq!(acknowledged(&mut c), Some(3));
    assert_eq!(c.applied(N1), 3);
}

#[test]
pub(crate) fn rule_21_appends_race_an_install_in_every_order() {
    // canonical#203 and others: appends before, at and behind the snapshot's index arrive before and
    // after it, while it is being written and afterwards.
    let log = Chain::of_terms(&[1, 1, 1, 2, 2, 2]);
    let ranges = [
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 3),
        (3, 5),
        (0, 6),
        (4, 6),
        (5, 6),
    ];
    for (first, last) in ranges {
        for order in 0..4 {
            let mut c = puppet_led(&log);
            c.inject(says(N2, N1, 2, log.append(0, 1, 1)));
            let snapshot = c.snapshot_of(&log, 4);
            c.hold_disk(N1);
            let append = log.append(first, last, 4);
            match order {
                0 => {
                    c.inject(says(N2, N1, 2, append));
                    c.receive_snapshot(N2, Term(2), N1, snapshot);
                }
                1 => {
                    c.receive_snapshot(N2, Term(2), N1, snapshot);
                    c.inject(says(N2, N1, 2, append));
                }
                2 => {
                    c.inject(says(N2, N1, 2, append.clone()));
                    c.receive_snapshot(N2, Term(2), N1, snapshot);
                    c.inject(says(N2, N1, 2, append));
                }
                _ => {
                    c.receive_snapshot(N2, Term(2), N1, snapshot.clone());
                    c.inject(says(N2, N1, 2, append));
                    c.receive_snapshot(N2, Term(2), N1, snapshot);
                }
            }
            // Every number of writes survives a crash in the middle.
            for kept in 0..=c.pending(N1) {
                let mut crashed = c.clone();
                crashed.crash_keeping(N1, kept);
                crashed.restart(N1);
                crashed.free_disk(N1);
                crashed.receive_snapshot(N2, Term(2), N1, c.snapshot_of(&log, 4));
                crashed.inject(says(N2, N1, 2, log.append(4, 6, 6)));
                assert_eq!(crashed.applied(N1), 6, "{first}..{last} order {order}");
            }
            c.complete_all(N1);
            c.free_disk(N1);
            assert!(c.halted(N1).is_none());
            assert_eq!(
                c.applied(N1).max(4),
                c.applied(N1),
                "{first}..{last} order {order}"
            );
            c.inject(says(N2, N1, 2, log.append(4, 6, 6)));
            assert_eq!(
                c.applied(N1),
                6,
                "{first}..{last} order {order}\n{}",
                c.story()
            );
            assert_eq!(c.issued(N1).last(), log.last());
        }
    }
}

#[test]
pub(crate) fn rule_21_loads_and_applies_of_before_an_install_are_void() {
    // Could go wrong: a read that was under way when the log was replaced is applied behind it.
    let log = Chain::of_terms(&[1, 1, 1, 2, 2]);
    let options = Options::new(3).plain().puppets(&[N2, N3]).log(
        N1,
        Chain {
            start: Position::START,
            batches: log.between(0, 3),
        },
    );
    let mut c = Cluster::build(options);
    c.know_committed(&log);
    c.hold_loads(N1);
    c.inject(says(N2, N1, 2, log.append(3, 3, 3)));
    assert_eq!(
        c.waiting_loads(N1).len(),
        1,
        "1 to 3 are read back to be applied"
    );
    let snapshot = c.snapshot_of(&log, 5);
    c.receive_snapshot(N2, Term(2), N1, snapshot);
    assert_eq!(c.applied(N1), 5);
    c.free_loads(N1);
    assert_eq!((c.applied(N1), c.halted(N1)), (5, None));
    assert_eq!(c.commands(N1).len(), 5);
}

#[test]
pub(crate) fn rule_21_a_snapshot_that_contradicts_what_is_committed_is_no_snapshot_of_this_log() {
    // Could go wrong: digests differ at a committed boundary, and the log is replaced all the same.
    let ours = Chain::of_terms(&[1, 1, 1]);
    let theirs = Chain::of_terms(&[1]).and(1, "other").and(1, "content");
    let mut c = puppet_led(&ours);
    c.inject(says(N2, N1, 1, ours.append(0, 3, 3)));
    let snapshot = c.snapshot_of(&theirs, 2);
    c.receive_snapshot(N2, Term(1), N1, snapshot);
    assert_eq!(c.issued(N1).last(), ours.last());
    assert_eq!(c.applied(N1), 3);
    assert!(
        matches!(c.halted(N1), None | Some(Fault::Divergence { .. })),
        "{:?}",
        c.halted(N1)
    );
}

#[test]
pub(crate) fn rule_snapshots_a_failed_transfer_is_tried_again_and_a_lost_one_too() {
    // hashicorp#697: a transfer that fails at the wrong moment leaves the peer without log for ever.
    for lost_silently in [false, true] {
        let mut c = behind(tight(3), 4);
        offered(&mut c);
        if lost_silently {
            c.lose_snapshot(N3);
        } else {
            assert!(c.fail_snapshot(N3));
        }
        for _ in 0..40 * c.options().config.election_ticks {
            c.tick_all(1);
            c.deliver_all();
            if !c.snapshots_under_way().is_empty() {
                break;
            }
        }
        assert!(
            !c.snapshots_under_way().is_empty(),
            "lost {lost_silently}\n{}",
            c.story()
        );
        c.free_snapshots();
        c.converge();
        assert_eq!(c.commands(N3), c.commands(N1));
    }
}

#[test]
pub(crate) fn rule_12_a_snapshot_that_moves_keeps_its_leader_and_one_that_stands_does_not() {
    // n2 is down; n3 gets a snapshot. While it moves, n3 counts for check-quorum.
    let mut c = behind(tight(3), 4);
    let snapshot = offered(&mut c);
    c.crash(N2);
    let patience = 10 * c.options().config.election_ticks;
    for tick in 0..patience {
        c.tick(N1, 1);
        c.tick(N3, 1);
        if tick % 5 == 0 {
            c.report_sending(N1, N3, &snapshot, SendProgress::Moving);
        }
        c.deliver_all();
        assert_eq!(c.role(N1), RoleKind::Leader, "after {tick} ticks");
    }
    let mut ticks = 0;
    while c.role(N1) == RoleKind::Leader {
        c.tick(N1, 1);
        c.tick(N3, 1);
        c.deliver_all();
        ticks += 1;
        assert!(ticks < 10 * patience, "nothing moves, and it leads on");
    }
}

#[test]
pub(crate) fn rule_snapshots_a_trailing_budget_spares_slow_followers_a_snapshot() {
    let options = Options::new(3).configure(|config| config.trailing_bytes_max = 10_000);
    let mut c = led(options);
    c.isolate(N3);
    for i in 0..20 {
        c.propose(N1, &format!("{i}"));
        c.deliver_all();
    }
    settle(&mut c);
    c.take_snapshot(N1);
    assert_eq!(
        c.issued(N1).start,
        Position::START,
        "all of it is within the budget"
    );
    for i in 0..400 {
        c.propose(N1, &format!("{i}"));
        c.deliver_all();
    }
    settle(&mut c);
    give_up_on_n3(&mut c);
    c.take_snapshot(N1);
    let start = c.issued(N1).start.index().0;
    let bytes: u64 = c
        .issued(N1)
        .batches
        .iter()
        .map(duraft_core::Batch::cost)
        .sum();
    assert!(start > 1 && bytes <= 10_000, "{start}, {bytes} bytes kept");
    assert!(bytes > 9_000, "and not much less: {bytes}");
    c.heal();
    c.converge();
    assert_eq!(c.commands(N3), c.commands(N1));
}

#[test]
pub(crate) fn rule_snapshots_a_node_starts_from_its_snapshot_the_log_or_both() {
    // LR-A8: restart from snapshot and log, snapshot only, log only, neither.
    for (entries, snapshot_at, more) in
        [(0, None, 0), (5, None, 0), (5, Some(5), 0), (5, Some(5), 4)]
    {
        let mut c = led(tight(3));
        for i in 0..entries {
            c.propose(N1, &format!("{i}"));
        }
        settle(&mut c);
        if snapshot_at.is_some() {
            for id in [N1, N2, N3] {
                c.take_snapshot(id);
            }
        }
        for i in 0..more {
            c.propose(N1, &format!("more {i}"));
        }
        settle(&mut c);
        let commands = c.commands(N2);
        for id in [N1, N2, N3] {
            c.crash(id);
        }
        for id in [N1, N2, N3] {
            c.restart(id);
            let known = snapshot_at.map_or(0, |_| 1 + entries);
            assert_eq!(c.applied(id), known, "state up to the snapshot");
            assert_eq!(c.commit(id), known);
        }
        c.converge();
        assert_eq!(c.commands(N3), commands);
    }
}

#[test]
pub(crate) fn rule_snapshots_a_durable_state_machine_gets_nothing_twice_and_misses_nothing() {
    // A state machine with its own disk: whatever it has applied stays applied over any crash.
    for reported in [false, true] {
        let mut c = led(tight(3).durable_machine());
        if !reported {
            c.hold_apply(N2);
        }
        for i in 0..5 {
            c.propose(N1, &format!("{i}"));
        }
        settle(&mut c);
        assert_eq!(c.applied(N2), 6);
        c.crash(N2);
        c.restart(N2);
        assert_eq!(c.applied(N2), 6);
        c.free_apply(N2);
        c.propose(N1, "after");
        c.converge();
        assert_eq!(c.commands(N2), ["0", "1", "2", "3", "4", "after"]);
    }
}

#[test]
pub(crate) fn rule_snapshots_a_snapshot_carries_the_membership_and_a_newcomer_learns_it() {
    // matrixone#23383: a snapshot without the change that it covers.
    let mut c = led(tight(3));
    c.change(N1, &[remove(N3)]);
    settle(&mut c);
    settle(&mut c);
    for id in [N1, N2] {
        c.take_snapshot(id);
    }
    assert_eq!(c.issued(N1).batches, []);
    c.join(N4);
    c.change(N1, &[add(N4)]);
    c.converge();
    for id in [N1, N2, N4] {
        assert_eq!(c.voters(id), [N1, N2, N4]);
    }
    for id in [N1, N2, N4] {
        c.crash(id);
        c.restart(id);
        assert_eq!(c.voters(id), [N1, N2, N4]);
    }
    c.converge();
}

#[test]
pub(crate) fn rule_snapshots_a_deposed_leaders_snapshot_is_still_of_the_committed_log() {
    // A transfer outlives the leader that began it.
    let mut c = behind(tight(3), 4);
    let snapshot = offered(&mut c);
    c.lose_snapshot(N3);
    c.isolate(N1);
    usurp(&mut c, N2);
    c.receive_snapshot(N1, Term(1), N3, snapshot);
    // n2 has brought n3 further already: nothing is rolled back.
    assert_eq!((c.applied(N3), c.term(N3)), (6, 2));
    c.converge();
    assert_eq!(c.commands(N3), c.commands(N2));
}

#[test]
pub(crate) fn rule_snapshots_compaction_never_passes_what_a_quorum_could_need() {
    // Could go wrong: the uncommitted or undurable tail is compacted away with the snapshot.
    let mut c = led(tight(3));
    c.propose(N1, "a");
    settle(&mut c);
    c.isolate(N2);
    c.isolate(N3);
    let b = c.propose(N1, "b");
    c.take_snapshot(N1);
    assert_eq!(c.log(N1), ["3@1 \"b\""], "what is not applied stays");
    assert!(!c.acknowledged(b));
    c.converge();
    assert!(matches!(
        c.outcome(b),
        Some(Outcome::Applied(_) | Outcome::Overwritten(_))
    ));
}

#[test]
pub(crate) fn rule_snapshots_votes_compare_with_a_log_that_is_only_a_snapshot() {
    // NuRaft#668: freshness goes wrong when everything is compacted.
    let log = Chain::of_terms(&[1, 1, 3, 3]).compacted_to(4);
    let mut c = Cluster::build(
        Options::new(3)
            .plain()
            .puppets(&[N2, N3])
            .log(N1, log.clone()),
    );
    let last = |term, index| duraft_core::LogId {
        term: Term(term),
        index: Index(index),
    };
    for (term, id, granted) in [
        (4, last(2, 9), false),
        (5, last(3, 3), false),
        (6, last(3, 4), true),
    ] {
        c.inject(says(
            N2,
            N1,
            term,
            Message::Vote {
                last: id,
                forced: false,
            },
        ));
        assert_eq!(c.vote(N1) == Some(N2), granted, "{id:?}");
    }
    assert_eq!(
        c.durable(N1).hard_state,
        HardState {
            term: Term(6),
            vote: Some(N2)
        }
    );
}

#[test]
pub(crate) fn rule_07_an_append_that_follows_a_snapshot_is_compared_by_digest() {
    let log = Chain::of_terms(&[1, 1]);
    let compacted = log.clone().compacted_to(2);
    let mut c = Cluster::build(
        Options::new(3)
            .plain()
            .puppets(&[N2, N3])
            .log(N1, compacted),
    );
    let other = Chain::of_terms(&[1]).and(1, "other").and(2, "next");
    let heartbeat = Message::Heartbeat {
        commit: Index(0),
        round: 1,
    };
    c.inject(says(N2, N1, 2, heartbeat));
    c.deliver_one(says(N2, N1, 2, other.append(2, 3, 3)));
    c.deliver_all();
    let diverges = |e: &duraft_core::Envelope| {
        matches!(
            e.message,
            Message::AppendReply(AppendReply::Divergence { .. })
        )
    };
    assert!(c.take_mail().iter().any(diverges));
    assert_eq!(c.issued(N1).batches, []);
}

#[test]
pub(crate) fn rule_snapshots_followers_are_acknowledged_behind_their_own_compaction() {
    // A follower that has compacted further than its leader's question lies.
    let mut c = led(tight(3));
    for i in 0..5 {
        c.propose(N1, &format!("{i}"));
    }
    settle(&mut c);
    c.take_snapshot(N3);
    c.crash(N3);
    c.restart(N3);
    usurp(&mut c, N2);
    let x = c.propose(N2, "x");
    settle(&mut c);
    assert!(c.acknowledged(x));
    assert_eq!(acceptances(&c, N3).last(), Some(&8));
    assert_eq!(c.commands(N3), c.commands(N2));
}

#[test]
pub(crate) fn scenario_s09_with_a_compacted_log_newcomers_get_a_snapshot_of_the_change() {
    // S9 with snapshots: n2 and n3 are brought up by one that carries the joint or the final membership.
    let mut c = led(tight(1));
    for i in 0..4 {
        c.propose(N1, &format!("{i}"));
    }
    c.take_snapshot(N1);
    c.join(N2);
    c.join(N3);
    c.change(N1, &[add(N2), add(N3)]);
    c.propose(N1, "x");
    c.propose(N1, "y");
    c.converge();
    for id in [N1, N2, N3] {
        assert_eq!(c.voters(id), [N1, N2, N3]);
        assert_eq!(c.commands(id), ["0", "1", "2", "3", "x", "y"]);
    }
    assert!(c.snapshot_index(N2).is_some(), "by snapshot");
    // And a later joiner, when the whole change is behind the snapshot.
    for id in [N1, N2, N3] {
        c.take_snapshot(id);
    }
    c.join(N4);
    let leader: NodeId = c.leaders()[0];
    c.change(leader, &[add(N4)]);
    c.converge();
    assert_eq!(c.voters(N4), [N1, N2, N3, N4]);
}
