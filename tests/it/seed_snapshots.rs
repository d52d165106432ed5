//! Snapshots in the seed systems: the defects n3, n5, l6 and l6b, RB-T12 and RB-A8.

use crate::common::{acceptance, led, refusals, settle};
use crate::snapshots::{behind, offered, puppet_led, tight};
use duraft_core::{Message, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Kind, N1, N2, N3, N4, add, any, remove};

#[test]
pub(crate) fn seed_noraft_n3_an_install_keeps_the_suffix_that_is_still_being_written() {
    // noraft: entries after the snapshot that had not reached the disk were dropped, their
    // acknowledgement was not.
    let log = Chain::of_terms(&[1, 1, 1, 1, 1]);
    let mut c = puppet_led(&log);
    c.hold_disk(N1);
    c.inject(says(N2, N1, 1, log.append(0, 5, 0)));
    assert_eq!(c.pending(N1), 1, "term and entries");
    let snapshot = c.snapshot_of(&log, 3);
    c.receive_snapshot(N2, Term(1), N1, snapshot);
    assert_eq!(c.issued(N1).last(), log.last(), "entries 4 and 5 are kept");
    c.complete_all(N1);
    c.deliver_all();
    let mail: Vec<u64> = c.take_mail().iter().filter_map(acceptance).collect();
    assert_eq!(mail.iter().max(), Some(&5));
    assert_eq!(
        c.durable(N1).last(),
        log.last(),
        "and what was acknowledged is durable"
    );
    c.crash(N1);
    c.restart(N1);
    assert_eq!(c.issued(N1).last(), log.last());
    assert!(c.commit(N1) >= 3);
}

#[test]
pub(crate) fn seed_noraft_n5_an_install_leaves_answers_and_commit_in_their_places() {
    // noraft: a vote reply that waited was rewritten to another term, and the commit index stayed
    // below the snapshot.
    let log = Chain::of_terms(&[1, 1, 2, 4, 4]);
    let mut c = puppet_led(&log);
    c.hold_disk(N1);
    // A grant in term 3 waits for the disk when the leader of term 5 has delivered a snapshot.
    let last = log.at(3).id;
    c.inject(says(
        N2,
        N1,
        3,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    let snapshot = c.snapshot_of(&log, 5);
    c.receive_snapshot(N3, Term(5), N1, snapshot);
    c.complete_all(N1);
    let granted = c.sent(any().from(N1).kind(Kind::VoteReply));
    assert_eq!(
        granted.len(),
        0,
        "it died with its term, and is none of term 5"
    );
    assert_eq!((c.term(N1), c.vote(N1)), (5, None));
    assert_eq!((c.commit(N1), c.applied(N1)), (5, 5));
    c.crash(N1);
    c.restart(N1);
    assert_eq!((c.commit(N1), c.applied(N1), c.term(N1)), (5, 5, 5));
}

#[test]
pub(crate) fn seed_little_raft_l6_an_old_snapshot_rolls_nothing_back() {
    // little_raft: a late or repeated snapshot put the state machine back. It is acknowledged with
    // what is committed here, for its sender waits for an answer.
    let log = Chain::of_terms(&[1, 1, 1, 1]);
    let mut c = puppet_led(&log);
    c.inject(says(N2, N1, 1, log.append(0, 4, 4)));
    assert_eq!((c.commit(N1), c.applied(N1)), (4, 4));
    c.deliver_all();
    c.take_mail();
    let writes = c.writes(N1).len();
    for at in [2, 4, 2] {
        let snapshot = c.snapshot_of(&log, at);
        c.receive_snapshot(N2, Term(1), N1, snapshot);
        assert_eq!((c.commit(N1), c.applied(N1)), (4, 4));
        assert_eq!(c.issued(N1).last(), log.last());
        c.deliver_all();
        let matched = c.take_mail().iter().filter_map(acceptance).max();
        assert_eq!(matched, Some(4), "acknowledged with what is committed here");
    }
    assert!(
        c.writes(N1)[writes..]
            .iter()
            .all(|write| write.truncate.is_none())
    );
}

#[test]
pub(crate) fn seed_little_raft_l6b_an_install_never_lowers_the_term() {
    // little_raft: the term fell to the snapshot's, and the node voted twice in one term.
    let log = Chain::of_terms(&[1, 1, 2]);
    let mut c = puppet_led(&log);
    let last = log.last().id;
    c.inject(says(
        N2,
        N1,
        6,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.term(N1), c.vote(N1)), (6, Some(N2)));
    let snapshot = c.snapshot_of(&log, 3);
    c.receive_snapshot(N2, Term(6), N1, snapshot);
    assert_eq!((c.term(N1), c.vote(N1), c.applied(N1)), (6, Some(N2), 3));
    for _ in 0..2 {
        c.inject(says(
            N3,
            N1,
            6,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        assert_eq!(c.vote(N1), Some(N2), "one vote per term");
        c.crash(N1);
        c.restart(N1);
    }
    assert_eq!(c.term(N1), 6);
}

#[test]
pub(crate) fn seed_raftbare_t12_snapshots_everywhere_then_a_joint_change_to_a_new_node() {
    // RB-T12: all three snapshot at their last position; {1,2,3} becomes {1,4}; n4 is refused, gets a
    // snapshot, follows, and the final membership is proposed by itself.
    let mut c = led(tight(3));
    for i in 0..3 {
        c.propose(N1, &format!("{i}"));
    }
    settle(&mut c);
    for id in [N1, N2, N3] {
        c.take_snapshot(id);
        assert_eq!(c.issued(id).batches, []);
    }
    c.join(N4);
    let change = c.change(N1, &[add(N4), remove(N2), remove(N3)]);
    c.deliver_all();
    settle(&mut c);
    settle(&mut c);
    assert!(c.acknowledged(change));
    assert_eq!(c.voters(N1), [N1, N4]);
    assert!(!c.in_use(N4).is_joint());
    assert_eq!(c.commands(N4), ["0", "1", "2"]);
    assert!(refusals(&c, N4) >= 1);
    c.crash(N2);
    c.crash(N3);
    let x = c.propose(N1, "x");
    settle(&mut c);
    assert!(c.acknowledged(x), "n1 and n4 decide");
}

#[test]
pub(crate) fn seed_raftbare_a08_a_crash_at_every_write_of_an_install_leaves_a_consistent_node() {
    // RB-A8: whatever prefix of the writes under way survives, the node comes back on one side or the
    // other, with commit at its snapshot, and catches up.
    for kept in 0..4 {
        let mut c = behind(tight(3), 5);
        offered(&mut c);
        c.hold_disk(N3);
        c.deliver_snapshot(N3);
        c.deliver_all();
        c.propose(N1, "x");
        c.deliver_all();
        let kept = kept.min(c.pending(N3));
        c.crash_keeping(N3, kept);
        c.restart(N3);
        let store = c.durable(N3);
        let at = store
            .snapshot
            .as_ref()
            .map_or(0, |taken| taken.position.index().0);
        assert_eq!(c.commit(N3), at, "commit is the snapshot");
        assert_eq!(c.applied(N3), at);
        c.free_disk(N3);
        c.free_snapshots();
        c.converge();
        assert_eq!(c.commands(N3), c.commands(N1));
    }
}
