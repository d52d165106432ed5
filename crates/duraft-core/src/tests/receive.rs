//! Messages that are not acted on, whatever they say.

use super::rig::*;
use crate::*;

fn heartbeat(from: u64, to: u64, term: u64) -> Envelope {
    let commit = Index(0);
    said(from, to, term, Message::Heartbeat { commit, round: 1 })
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        term: Term(term),
        index: Index(index),
    }
}

#[test]
fn only_what_another_node_says_to_this_one_in_this_group_is_heard() {
    // Connections are shared by groups, and addresses change hands.
    let mut rig = Rig::new(3, 1);
    let foreign = Envelope {
        group: GroupId(GROUP.0 + 1),
        ..heartbeat(2, 1, 5)
    };
    for envelope in [foreign, heartbeat(2, 3, 5), heartbeat(1, 1, 5)] {
        rig.step(1, Input::Received(envelope)).unwrap();
        assert_eq!((rig.raft(1).term(), rig.raft(1).leader()), (Term(0), None));
    }
    rig.deliver(heartbeat(2, 1, 5)).unwrap();
    assert_eq!(rig.raft(1).leader(), Some(NodeId(2)));
}

#[test]
fn nobody_is_believed_who_has_entries_of_the_term_it_asks_votes_for() {
    // Only the leader of a term makes them, and it is not elected yet.
    let mut rig = Rig::new(3, 1);
    for (term, believed) in [(3, false), (4, false), (2, true)] {
        let (wanted, last) = (Term(3), id(term, 9));
        rig.deliver(said(2, 1, 0, Message::PreVote { wanted, last }))
            .unwrap();
        assert_eq!(rig.network.pop().is_some(), believed, "{term}");
        let forced = false;
        rig.deliver(said(2, 1, 3, Message::Vote { last, forced }))
            .unwrap();
        assert_eq!(rig.raft(1).vote().is_some(), believed, "{term}");
    }
}

#[test]
fn batches_that_leave_no_index_behind_them_are_not_heard() {
    let mut rig = Rig::new(3, 1);
    for (index, answered) in [(u64::MAX - 2, true), (u64::MAX - 1, false)] {
        let prev = Position {
            id: id(1, index),
            digest: Digest(1),
        };
        let low = Position {
            id: id(1, 7),
            digest: Digest(1),
        };
        let mut batch = body(1).seal(GROUP, &low, Term(1)).unwrap();
        batch.header.first = Index(index + 1);
        batch.header.digest = prev.digest.extend(batch.header.link());
        let append = Message::Append {
            prev,
            batches: [batch].into(),
            commit: Index(0),
        };
        rig.deliver(said(2, 1, 1, append)).unwrap();
        rig.flush(1).unwrap();
        assert_eq!(rig.network.pop().is_some(), answered, "{index}");
    }
}

#[test]
fn a_vote_in_the_present_term_is_refused_aloud_while_a_leader_is_heard() {
    // A later one is not: answering would take its term. Here the candidate can learn that it has lost.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    let last = id(0, 0);
    for (term, answers) in [(1, 1), (2, 0)] {
        let vote = Message::Vote {
            last,
            forced: false,
        };
        rig.deliver(said(3, 2, term, vote)).unwrap();
        assert_eq!(rig.network.len(), answers, "{term}");
        rig.network.clear();
        assert_eq!(rig.raft(2).term(), Term(1));
    }
}

#[test]
fn a_node_that_hears_of_no_more_terms_still_hears_the_leader_of_its_own() {
    // Its disk stands still and eight terms wait for it. The ninth is not taken; the eighth has a leader.
    let mut rig = Rig::new(3, 1);
    for term in 1..=9 {
        let refused = Message::VoteReply { granted: false };
        rig.deliver(said(2, 1, term, refused)).unwrap();
    }
    assert_eq!(rig.raft(1).term(), Term(8));
    rig.deliver(heartbeat(3, 1, 9)).unwrap();
    assert_eq!((rig.raft(1).term(), rig.raft(1).leader()), (Term(8), None));
    rig.deliver(heartbeat(3, 1, 8)).unwrap();
    assert_eq!(rig.raft(1).leader(), Some(NodeId(3)));
}
