//! What a follower makes of its leader's words, where its log begins and ends.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// What node 1 answers to appends, once its disk is done.
fn answer(rig: &mut Rig) -> Option<AppendReply> {
    rig.flush(1).unwrap();
    let mut replies = rig.network.drain(..).filter_map(|e| match e.message {
        Message::AppendReply(reply) => Some(reply),
        _ => None,
    });
    let reply = replies.next();
    assert_eq!(replies.next(), None);
    reply
}

fn accepted(matched: u64) -> Option<AppendReply> {
    let matched = Index(matched);
    Some(AppendReply::Accepted { matched })
}

fn after(batches: &[Batch], count: usize) -> Position {
    (count.checked_sub(1)).map_or(Position::START, |last| batches[last].header.position())
}

/// Node 1 follows node 2, has applied five batches and holds a log that begins behind them.
fn behind_five() -> (Rig, Vec<Batch>) {
    let mut rig = Rig::new(3, 1);
    rig.set_trailing(0);
    let batches = chain(GROUP, Position::START, 9);
    // The others hold them all, so that what node 2 says is committed is.
    for id in [2, 3] {
        let config = rig.node(id).config.clone();
        let mut image = rig.node(id).durable.clone();
        (image.end, image.batches) = (after(&batches, 9), batches.clone());
        image.hard_state.term = Term(1);
        rig.boot(config, image, Incarnation(1));
    }
    rig.append(1, Position::START, &batches[..5], 5);
    assert_eq!(answer(&mut rig), accepted(5));
    rig.report_applied(1).unwrap();
    rig.take_snapshot(1).unwrap();
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).log.start(), after(&batches, 5));
    (rig, batches)
}

#[test]
fn an_append_that_spans_the_beginning_of_the_log_is_taken_from_there_on() {
    // What lies before is committed and equal; counted wrongly, batches would be left out or doubled.
    for from in 0..6 {
        for upto in 5..9 {
            let (mut rig, batches) = behind_five();
            let prev = after(&batches, from);
            rig.append(1, prev, &batches[from..upto], 0);
            assert_eq!(answer(&mut rig), accepted(upto as u64), "{from} {upto}");
            assert_eq!(rig.raft(1).last(), after(&batches, upto));
            // Again, and nothing changes.
            rig.append(1, prev, &batches[from..upto], 0);
            assert_eq!(answer(&mut rig), accepted(upto as u64));
            assert_eq!(rig.raft(1).last(), after(&batches, upto));
        }
    }
}

#[test]
fn an_append_that_ends_before_the_log_begins_is_answered_with_where_it_begins() {
    let (mut rig, batches) = behind_five();
    for upto in 1..5 {
        rig.append(1, Position::START, &batches[..upto], 0);
        let rejected = AppendReply::Rejected {
            prev: LogId::default(),
            hint: after(&batches, 5).id,
        };
        assert_eq!(answer(&mut rig), Some(rejected));
    }
}

#[test]
fn an_append_with_another_content_where_the_log_begins_is_divergence() {
    // The same term and index with other bytes: one of the two was committed.
    let (mut rig, batches) = behind_five();
    let other = body(99).seal(GROUP, &after(&batches, 4), Term(1)).unwrap();
    rig.append(1, after(&batches, 4), core::slice::from_ref(&other), 0);
    let diverges = AppendReply::Divergence {
        theirs: other.header.position(),
        ours: after(&batches, 5),
    };
    assert_eq!(answer(&mut rig), Some(diverges));
    assert_eq!(rig.raft(1).last(), after(&batches, 5));
}

#[test]
fn a_leader_of_an_earlier_term_is_told_the_term_and_where_the_logs_part() {
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 3, &[1, 1, 3]);
    let batches = chain(GROUP, Position::START, 4);
    rig.append(2, after(&batches, 4), &[], 4);
    let reply = rig.network.pop().unwrap();
    assert_eq!(reply.term, Term(3));
    let rejected = AppendReply::Rejected {
        prev: after(&batches, 4).id,
        hint: rig.raft(1).headers().nth(1).unwrap().last_id(),
    };
    assert_eq!(reply.message, Message::AppendReply(rejected));
    assert_eq!(
        (rig.raft(1).leader(), rig.raft(1).commit()),
        (None, Index(0))
    );
}

#[test]
fn a_leader_that_contradicts_its_own_words_cuts_nothing() {
    // Within its term a leader's log only grows: the second word is of another's, or of a broken disk.
    let mut rig = Rig::new(3, 1);
    let batches = chain(GROUP, Position::START, 3);
    rig.append(3, Position::START, &batches, 0);
    assert_eq!(answer(&mut rig), accepted(3));
    let prev = after(&batches, 1);
    let other = body(9).seal(GROUP, &prev, Term(2)).unwrap();
    rig.append(3, prev, &[other], 0);
    assert_eq!(answer(&mut rig), None);
    assert_eq!(rig.raft(1).last(), after(&batches, 3));
}

#[test]
fn what_only_adds_to_the_log_cuts_nothing_from_the_disk() {
    let mut rig = Rig::new(3, 1);
    let batches = chain(GROUP, Position::START, 3);
    for (from, upto) in [(0, 1), (0, 2), (2, 3)] {
        rig.append(1, after(&batches, from), &batches[from..upto], 0);
        let write = rig.node(1).pending.back().unwrap();
        assert_eq!((write.truncate, write.append.len()), (None, 1));
        rig.flush(1).unwrap();
    }
}

#[test]
fn a_follower_without_room_does_not_ask_for_more() {
    // An answer would make its leader send what cannot be taken.
    let mut rig = Rig::with(3, &[], |id| Config {
        backlog_bytes_max: 76,
        ..Config::new(id, GROUP, 1)
    });
    rig.disk_checks = false;
    let batches = chain(GROUP, Position::START, 4);
    rig.append(1, Position::START, &batches[..2], 2);
    assert_eq!(answer(&mut rig), accepted(2));
    rig.append(1, after(&batches, 4), &[], 2);
    assert_eq!(answer(&mut rig), None);
    rig.report_applied(1).unwrap();
    rig.append(1, after(&batches, 4), &[], 2);
    let rejected = AppendReply::Rejected {
        prev: after(&batches, 4).id,
        hint: after(&batches, 2).id,
    };
    assert_eq!(answer(&mut rig), Some(rejected));
}

#[test]
fn behind_a_gap_only_what_is_equal_counts_as_compared() {
    // Index 3 is lost, 4 to 6 survive. The leader's batches fill the gap and go on: as far as they are
    // those that survive, they are acknowledged.
    for (equal, matched) in [(1, 3), (2, 4), (4, 6)] {
        let mut rig = Rig::new(3, 1);
        rig.seed_log(1, 1, &[1; 6]);
        let stored = rig.node(1).durable.batches.clone();
        rig.crash_with(1, |disk| disk.lose(3..=3));
        let mut sent: Vec<Batch> = stored[2..2 + equal].to_vec();
        if equal < 4 {
            let prev = after(&stored, 2 + equal);
            sent.push(body(99).seal(GROUP, &prev, Term(2)).unwrap());
        }
        rig.append(2, after(&stored, 2), &sent, 0);
        assert_eq!(answer(&mut rig), accepted(matched), "{equal}");
        assert_eq!(rig.raft(1).last(), after(&stored, 6));
    }
}
