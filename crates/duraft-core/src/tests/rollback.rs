//! When a leader suspects that a peer's disk was rolled back, and who believes it.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

fn id(index: u64) -> LogId {
    LogId {
        term: Term(1),
        index: Index(index),
    }
}

/// Node 1 leads, and node 3 has acknowledged five entries in its second life.
fn acknowledged() -> Rig {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.crash(3, 0);
    (0..4).for_each(|_| rig.propose(1).unwrap());
    rig.run(4).unwrap();
    assert_eq!(rig.raft(1).progress(NodeId(3)).unwrap().matched, Index(5));
    rig.network.clear();
    rig
}

fn accusations(rig: &Rig) -> Vec<(NodeId, LogId)> {
    let mut seen = Vec::new();
    for envelope in &rig.network {
        if let Message::RolledBack { seen: entry } = envelope.message {
            seen.push((envelope.to, entry));
        }
    }
    seen
}

#[test]
fn a_rejection_below_what_was_acknowledged_is_suspicious_and_one_of_an_old_question_is_not() {
    // A disk that was rolled back has forgotten what made an entry committed.
    for (prev, hint, suspicious) in [(5, 3, true), (9, 4, true), (5, 5, false), (4, 3, false)] {
        let mut rig = acknowledged();
        let (prev, hint) = (id(prev), id(hint));
        let rejected = Message::AppendReply(AppendReply::Rejected { prev, hint });
        rig.deliver(of_life(Incarnation(2), 3, 1, 1, rejected))
            .unwrap();
        let expected: &[_] = if suspicious {
            &[(NodeId(3), id(5))]
        } else {
            &[]
        };
        assert_eq!(accusations(&rig), expected, "{prev} {hint}");
    }
}

#[test]
fn a_word_of_an_earlier_life_is_suspicious_in_this_term_where_something_was_acknowledged() {
    let reply = |round| {
        let health = Health::default();
        Message::HeartbeatReply { round, health }
    };
    for (term, incarnation, suspicious) in
        [(1, 1, true), (1, 2, false), (1, 3, false), (0, 1, false)]
    {
        let mut rig = acknowledged();
        rig.deliver(of_life(Incarnation(incarnation), 3, 1, term, reply(1)))
            .unwrap();
        assert_eq!(accusations(&rig).is_empty(), !suspicious, "{incarnation}");
    }
    // Nothing was acknowledged: nothing can have been forgotten.
    let mut rig = Rig::new(3, 1);
    rig.time_out(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    for incarnation in [2, 1] {
        rig.deliver(of_life(Incarnation(incarnation), 3, 1, 1, reply(0)))
            .unwrap();
    }
    assert_eq!(accusations(&rig), []);
}

#[test]
fn only_the_leader_of_the_term_is_believed_and_only_by_who_lacks_the_entry() {
    // Anybody else could stop the cluster with a word.
    for (from, term, seen, halts) in [
        (1, 1, id(9), true),
        (2, 1, id(9), false),
        (1, 0, id(9), false),
        (1, 1, id(5), false),
        (1, 1, id(1), false),
    ] {
        let mut rig = acknowledged();
        let message = Message::RolledBack { seen };
        rig.deliver(said(from, 3, term, message)).unwrap();
        let halted = halts.then_some(Fault::RolledBack { seen });
        assert_eq!(rig.raft(3).halted(), halted, "{from} {term} {seen}");
    }
    // Who knows of its damage has told so already.
    let mut rig = acknowledged();
    rig.crash_with(3, |disk| disk.lose_end(2));
    rig.run(1).unwrap();
    let message = Message::RolledBack { seen: id(9) };
    rig.run_without(&[2], 2).unwrap();
    rig.crash_with(3, |disk| disk.lose_end(2));
    let commit = Index(0);
    let heartbeat = Message::Heartbeat { commit, round: 99 };
    rig.deliver(said(1, 3, 1, heartbeat)).unwrap();
    rig.deliver(said(1, 3, 1, message)).unwrap();
    assert_eq!(rig.raft(3).halted(), None);
}
