//! What a leader makes of its peers' answers: what is asked again, what goes out, and where the log has
//! to give way to a snapshot.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// What a batch of the rig costs, but for the no-op that begins a term.
const COST: u64 = 76;

fn led() -> Rig {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    rig
}

/// Appends on their way to a node: how many batches are in each.
fn appends(rig: &Rig, to: u64) -> Vec<usize> {
    let to = NodeId(to);
    let mut sizes = Vec::new();
    for envelope in rig.network.iter().filter(|envelope| envelope.to == to) {
        if let Message::Append { batches, .. } = &envelope.message {
            sizes.push(batches.len());
        }
    }
    sizes
}

/// Delivers what is on its way, but for what is from or to nodes in `cut`, and flushes.
fn deliver_without(rig: &mut Rig, cut: &[u64]) {
    for envelope in core::mem::take(&mut rig.network) {
        if !cut.contains(&envelope.from.0) && !cut.contains(&envelope.to.0) {
            rig.deliver(envelope).unwrap();
        }
    }
    (1..=3).for_each(|id| rig.flush(id).unwrap());
}

/// A heartbeat interval passes, and node 3 answers.
fn heartbeat_answer(rig: &mut Rig) -> Envelope {
    rig.network.clear();
    rig.tick(1).unwrap();
    rig.tick(1).unwrap();
    deliver_without(rig, &[2]);
    let reply = |e: &Envelope| matches!(e.message, Message::HeartbeatReply { .. });
    let at = rig.network.iter().position(reply).expect("it answers");
    rig.network.remove(at)
}

#[test]
fn an_answer_that_comes_some_heartbeats_late_still_shows_what_was_lost() {
    // On a long way every answer is late; an append that was lost there would be lost for ever.
    let mut rig = led();
    rig.propose(1).unwrap();
    let late = heartbeat_answer(&mut rig);
    (0..6).for_each(|_| rig.tick(1).unwrap());
    rig.network.clear();
    rig.deliver(late).unwrap();
    assert_eq!(appends(&rig, 3), [0], "one empty question");
    rig.settle().unwrap();
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
}

#[test]
fn a_question_is_not_repeated_for_an_answer_that_was_sent_before_it() {
    let mut rig = led();
    let answer = heartbeat_answer(&mut rig);
    let peer = NodeId(3);
    rig.step(1, Input::Unreachable { peer }).unwrap();
    assert_eq!(rig.raft(1).progress(peer).unwrap().phase, Phase::Probe);
    rig.network.clear();
    rig.propose(1).unwrap();
    assert_eq!(appends(&rig, 3), [0], "it asks before it sends on");
    rig.network.clear();
    rig.deliver(answer).unwrap();
    assert_eq!(appends(&rig, 3), [0usize; 0]);
    let next = heartbeat_answer(&mut rig);
    rig.network.clear();
    rig.deliver(next).unwrap();
    assert_eq!(appends(&rig, 3), [0], "the next heartbeat shows the loss");
}

#[test]
fn an_answer_to_a_round_that_has_not_begun_confirms_no_read() {
    // It is of another leadership, or a lie: the read would be answered by whoever has been deposed.
    let mut rig = led();
    rig.network.clear();
    rig.read(1, ReadBasis::Quorum).unwrap();
    rig.network.clear();
    let health = Health::default();
    for round in [1_000, u64::MAX] {
        let reply = said(2, 1, 1, Message::HeartbeatReply { round, health });
        rig.deliver(reply).unwrap();
        assert!(rig.node(1).reads.is_empty());
    }
    rig.run(2).unwrap();
    assert_eq!(rig.node(1).reads.len(), 1);
}

#[test]
fn a_peer_gets_a_snapshot_exactly_where_it_needs_what_the_log_does_not_hold_any_more() {
    // The leader's log begins behind 6@2. A snapshot too many is a file that moves for nothing; one too
    // few, and the peer is asked the same question for ever.
    let logs: [(&[u64], u32); 6] = [
        (&[1, 1, 1, 1, 2, 2], 0),
        (&[1, 1, 1, 1, 2, 2, 2], 0),
        (&[1, 1, 1, 1, 2], 1),
        (&[1, 1, 1], 1),
        (&[1, 1, 1, 1, 1, 1, 1, 1, 1], 1),
        (&[], 1),
    ];
    for (terms, installed) in logs {
        let mut rig = Rig::new(3, 1);
        rig.set_trailing(COST + 64);
        rig.seed_log(1, 2, &[1, 1, 1, 1, 2, 2, 2]);
        rig.seed_log(2, 2, &[1, 1, 1, 1, 2, 2, 2]);
        rig.seed_log(3, 2, terms);
        rig.time_out(1).unwrap();
        rig.settle_without(&[3]).unwrap();
        rig.take_snapshot(1).unwrap();
        rig.flush(1).unwrap();
        assert_eq!(rig.raft(1).log.start().index(), Index(6));
        let mut asked = 0;
        for _ in 0..60 {
            let rejected = |e: &&Envelope| {
                matches!(
                    e.message,
                    Message::AppendReply(AppendReply::Rejected { .. })
                )
            };
            asked += rig.network.iter().filter(rejected).count();
            deliver_without(&mut rig, &[]);
            (1..=3).for_each(|id| {
                rig.answer_load(id).unwrap();
                rig.report_applied(id).unwrap();
            });
            while !rig.transfers.is_empty() {
                rig.finish_transfer(0).unwrap();
            }
            if rig.network.is_empty() {
                rig.tick(1).unwrap();
            }
        }
        assert_eq!(rig.raft(3).last(), rig.raft(1).last(), "{terms:?}");
        assert_eq!(rig.installed, installed, "{terms:?}");
        assert!(asked <= 3, "{terms:?}: {asked} questions in vain");
    }
}

#[test]
fn a_peer_whose_log_begins_behind_what_it_has_acknowledged_is_asked_for_that() {
    // Its acknowledgements were lost and it has dropped its log since: it cannot go back, and must be
    // followed forwards.
    let mut rig = led();
    rig.set_trailing(0);
    let matched = rig.raft(1).progress(NodeId(3)).unwrap().matched;
    for _ in 0..4 {
        rig.propose(1).unwrap();
        for _ in 0..4 {
            rig.network.retain(|envelope| envelope.from != NodeId(3));
            deliver_without(&mut rig, &[]);
        }
    }
    rig.network.clear();
    rig.report_applied(3).unwrap();
    rig.take_snapshot(3).unwrap();
    rig.flush(3).unwrap();
    assert!(rig.raft(3).log.start().index() > matched);
    let view = rig.raft(1).progress(NodeId(3)).unwrap();
    assert_eq!(view.matched, matched);
    let peer = NodeId(3);
    rig.step(1, Input::Unreachable { peer }).unwrap();
    rig.propose(1).unwrap();
    rig.run(4).unwrap();
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    assert_eq!(
        (rig.raft(3).commit(), rig.installed),
        (rig.raft(1).commit(), 0)
    );
}

#[test]
fn an_append_holds_as_many_batches_as_fit_it() {
    for (bytes, sizes) in [
        (COST - 1, &[1, 1, 1, 1, 1, 1][..]),
        (2 * COST - 1, &[1, 1, 1, 1, 1, 1]),
        (2 * COST, &[2, 2, 2]),
        (4 * COST + 1, &[4, 2]),
        (6 * COST, &[6]),
    ] {
        let mut rig = Rig::with(3, &[], |id| Config {
            append_bytes_max: bytes,
            ..Config::new(id, GROUP, 1)
        });
        rig.elect(1).unwrap();
        rig.run(2).unwrap();
        let peer = NodeId(3);
        rig.step(1, Input::Unreachable { peer }).unwrap();
        for _ in 0..6 {
            rig.propose(1).unwrap();
            rig.settle_without(&[3]).unwrap();
        }
        let mut sent = Vec::new();
        for _ in 0..3 {
            rig.tick(1).unwrap();
            for _ in 0..8 {
                deliver_without(&mut rig, &[2]);
                sent.extend(appends(&rig, 3).into_iter().filter(|size| *size > 0));
            }
        }
        assert_eq!(sent, sizes, "{bytes}");
        assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    }
}

#[test]
fn what_was_read_back_for_a_peer_fills_its_window_like_anything_else() {
    // A peer that takes nothing in would be sent the whole log, load by load.
    let mut rig = Rig::with(3, &[], |id| Config {
        cache_bytes_max: 0,
        append_bytes_max: COST,
        inflight_bytes_max: 3 * COST,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    let peer = NodeId(3);
    rig.step(1, Input::Unreachable { peer }).unwrap();
    for _ in 0..6 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    // Node 3 says where it is, and nothing more.
    rig.tick(1).unwrap();
    rig.tick(1).unwrap();
    for _ in 0..4 {
        deliver_without(&mut rig, &[2]);
    }
    rig.network.clear();
    (0..6).for_each(|_| rig.answer_load(1).unwrap());
    let view = rig.raft(1).progress(peer).unwrap();
    assert_eq!((view.inflight_messages, view.inflight_bytes), (3, 3 * COST));
    assert_eq!(appends(&rig, 3), [1, 1, 1]);
}
