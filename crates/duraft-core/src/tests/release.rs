//! The release table, row by row: what the disk has not promised does not leave the node.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

/// Messages a node has sent since the network was last emptied.
fn sent(rig: &Rig, from: u64) -> Vec<&Message> {
    (rig.network.iter())
        .filter(|envelope| envelope.from == NodeId(from))
        .map(|envelope| &envelope.message)
        .collect()
}

fn vote_request(term: u64, last: LogId) -> Envelope {
    said(
        2,
        1,
        term,
        Message::Vote {
            last,
            forced: false,
        },
    )
}

fn append(term: u64, prev: Position, batches: Vec<Batch>, commit: u64) -> Envelope {
    let commit = Index(commit);
    said(
        2,
        1,
        term,
        Message::Append {
            prev,
            batches,
            commit,
        },
    )
}

fn noop_after(prev: &Position, term: u64) -> Batch {
    Body::noop().seal(GROUP, prev, Term(term)).unwrap()
}

#[test]
fn request_vote_waits_for_term_and_vote() {
    // A candidate that asks, crashes and forgets could ask again in the same term (F2).
    let mut rig = Rig::new(3, 1);
    rig.time_out(1).unwrap();
    rig.network.clear();
    let yes = Message::PreVoteReply {
        wanted: Term(1),
        granted: true,
    };
    rig.deliver(said(2, 1, 0, yes)).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
    assert_eq!(sent(&rig, 1), Vec::<&Message>::new());
    for _ in 0..50 {
        rig.tick(1).unwrap();
    }
    assert_eq!(
        sent(&rig, 1),
        Vec::<&Message>::new(),
        "its timer stands still"
    );
    rig.flush(1).unwrap();
    assert_eq!(sent(&rig, 1).len(), 2);
    assert!(matches!(sent(&rig, 1)[0], Message::Vote { .. }));
}

#[test]
fn a_grant_waits_for_the_vote_and_restarts_the_timer() {
    // A grant that is forgotten in a crash lets the node vote twice in a term.
    let mut rig = Rig::new(3, 1);
    for _ in 0..9 {
        rig.tick(1).unwrap();
    }
    rig.deliver(vote_request(1, LogId::default())).unwrap();
    assert_eq!(rig.raft(1).vote(), Some(NodeId(2)));
    assert!(sent(&rig, 1).is_empty());
    for _ in 0..50 {
        rig.tick(1).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower, "RULES.md 11");
    rig.flush(1).unwrap();
    assert_eq!(sent(&rig, 1), [&Message::VoteReply { granted: true }]);
    for _ in 0..9 {
        rig.tick(1).unwrap();
    }
    assert_eq!(
        rig.raft(1).role(),
        RoleKind::Follower,
        "the timer restarted"
    );
}

#[test]
fn a_grant_is_gone_with_its_term() {
    // S22: a later leader speaks while the grant waits for the disk.
    let mut rig = Rig::new(3, 1);
    rig.deliver(vote_request(1, LogId::default())).unwrap();
    let heartbeat = Message::Heartbeat {
        commit: Index(0),
        round: 1,
    };
    rig.deliver(said(3, 1, 2, heartbeat)).unwrap();
    rig.flush(1).unwrap();
    assert_eq!(
        sent(&rig, 1),
        [&Message::HeartbeatReply {
            round: 1,
            health: crate::Health::default()
        }]
    );
}

#[test]
fn a_refusal_waits_for_the_term() {
    // The refusal carries the new term; a term that is forgotten must not have been told.
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 1, &[1]);
    rig.deliver(vote_request(2, LogId::default())).unwrap();
    assert!(sent(&rig, 1).is_empty());
    rig.flush(1).unwrap();
    assert_eq!(sent(&rig, 1), [&Message::VoteReply { granted: false }]);
}

#[test]
fn a_heartbeat_reply_waits_for_the_term() {
    // Several heartbeats while the disk is slow are answered once, with the last round.
    let mut rig = Rig::new(3, 1);
    for round in 1..=3 {
        let heartbeat = Message::Heartbeat {
            commit: Index(0),
            round,
        };
        rig.deliver(said(2, 1, 1, heartbeat)).unwrap();
    }
    assert!(sent(&rig, 1).is_empty());
    rig.flush(1).unwrap();
    assert_eq!(
        sent(&rig, 1),
        [&Message::HeartbeatReply {
            round: 3,
            health: crate::Health::default()
        }]
    );
}

#[test]
fn a_rejection_waits_for_the_term() {
    // "I do not have this boundary" is said in a term, and that term is durable first.
    let mut rig = Rig::new(3, 1);
    let far = noop_after(&noop_after(&Position::START, 1).header.position(), 1);
    rig.deliver(append(1, far.header.position(), Vec::new(), 0))
        .unwrap();
    assert!(sent(&rig, 1).is_empty());
    rig.flush(1).unwrap();
    let prev = far.header.last_id();
    let hint = LogId::default();
    assert_eq!(
        sent(&rig, 1),
        [&Message::AppendReply(AppendReply::Rejected { prev, hint })]
    );
}

#[test]
fn an_acknowledgement_waits_for_its_batches_and_comes_in_parts() {
    // An early acknowledgement loses a committed entry in a crash. What is durable is told at once.
    let mut rig = Rig::new(3, 1);
    let one = noop_after(&Position::START, 1);
    let two = noop_after(&one.header.position(), 1);
    rig.deliver(append(1, Position::START, [one.clone()].into(), 0))
        .unwrap();
    rig.deliver(append(1, one.header.position(), [two].into(), 0))
        .unwrap();
    assert!(sent(&rig, 1).is_empty());
    rig.sync(1, 1);
    rig.report(1).unwrap();
    let accepted = |matched| Message::AppendReply(AppendReply::Accepted { matched });
    assert_eq!(sent(&rig, 1), [&accepted(Index(1))]);
    rig.flush(1).unwrap();
    assert_eq!(sent(&rig, 1), [&accepted(Index(1)), &accepted(Index(2))]);
}

#[test]
fn a_duplicate_of_what_is_being_written_is_not_acknowledged() {
    // A request that brings nothing new must not be answered past the disk either (DupAckEarly).
    let mut rig = Rig::new(3, 1);
    let one = noop_after(&Position::START, 1);
    for _ in 0..3 {
        rig.deliver(append(1, Position::START, [one.clone()].into(), 0))
            .unwrap();
    }
    assert!(sent(&rig, 1).is_empty());
    assert_eq!(rig.node(1).pending.len(), 1, "and it is written once");
}

#[test]
fn an_acknowledgement_names_what_was_compared_not_the_own_tail() {
    // A follower's own tail may be of a dead leader (CCF: inaccurate acknowledgement).
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 1, &[1, 1, 1]);
    rig.seed_log(2, 1, &[1]);
    let first = *rig.raft(1).headers().next().unwrap();
    rig.deliver(append(2, first.position(), Vec::new(), 9))
        .unwrap();
    rig.flush(1).unwrap();
    let accepted = AppendReply::Accepted { matched: Index(1) };
    assert_eq!(sent(&rig, 1), [&Message::AppendReply(accepted)]);
    assert_eq!(rig.raft(1).commit(), Index(1), "and commit goes no further");
}

#[test]
fn a_heartbeat_commits_nothing_that_was_not_compared() {
    // A divergent tail below the leader's commit index would be applied (copycat, scylladb).
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 1, &[1, 1, 1]);
    let heartbeat = Message::Heartbeat {
        commit: Index(3),
        round: 1,
    };
    rig.deliver(said(2, 1, 2, heartbeat)).unwrap();
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(0));
}

#[test]
fn a_leaders_own_copy_counts_when_it_is_durable() {
    // Two voters: the other's copy plus an own one that is only in memory is not a quorum.
    let mut rig = Rig::new(2, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    let messages: Vec<Envelope> = rig.network.drain(..).collect();
    for envelope in messages {
        rig.deliver(envelope).unwrap();
    }
    rig.flush(2).unwrap();
    let messages: Vec<Envelope> = rig.network.drain(..).collect();
    for envelope in messages {
        rig.deliver(envelope).unwrap();
    }
    assert_eq!(rig.raft(1).commit(), Index(1));
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(2));
}

#[test]
fn a_leader_commits_on_the_others_word_and_applies_on_its_own() {
    // S23: the leader's disk is slower than a quorum.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    for _ in 0..4 {
        let messages: Vec<Envelope> = rig.network.drain(..).collect();
        for envelope in messages {
            rig.deliver(envelope).unwrap();
        }
        rig.flush(2).unwrap();
        rig.flush(3).unwrap();
    }
    let raft = rig.raft(1);
    assert_eq!((raft.commit(), raft.durable()), (Index(2), Index(1)));
    assert_eq!(raft.handed(), Index(1));
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).handed(), Index(2));
}

#[test]
fn a_pre_vote_and_its_answer_need_no_write() {
    // They promise nothing: no term changes, nothing is written, the durable term travels.
    let mut rig = Rig::new(3, 1);
    rig.time_out(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::PreCandidate);
    let question = rig.network.remove(0);
    rig.network.clear();
    let to = question.to.0;
    rig.deliver(question).unwrap();
    let answers: Vec<Envelope> = rig.network.drain(..).collect();
    assert_eq!(
        answers[0].message,
        Message::PreVoteReply {
            wanted: Term(1),
            granted: true
        }
    );
    assert_eq!(answers[0].term, Term(0));
    for id in [1, to] {
        assert_eq!(rig.raft(id).term(), Term(0));
        assert!(rig.node(id).pending.is_empty());
    }
}

#[test]
fn nothing_leaves_after_a_failed_write() {
    // I6: a promise after a failed write would rest on a disk that has lost it.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    rig.network.clear();
    let failed = Input::Completed(Completion::WriteFailed);
    rig.step(1, failed).unwrap();
    assert_eq!(rig.raft(1).halted(), Some(Fault::WriteFailed));
    rig.propose(1).unwrap();
    let last = rig.node(1).responses.last().cloned().unwrap();
    let Response::Rejected { reason, .. } = last else {
        panic!("{last:?}");
    };
    assert_eq!(reason, Reject::Halted);
    let upto = rig.raft(1).last_issued();
    rig.step(1, Input::Completed(Completion::Persisted { upto }))
        .unwrap();
    for _ in 0..50 {
        rig.tick(1).unwrap();
    }
    rig.deliver(said(
        2,
        1,
        9,
        Message::Vote {
            last: LogId::default(),
            forced: false,
        },
    ))
    .unwrap();
    assert!(rig.network.is_empty());
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
}

#[test]
fn a_completion_of_a_write_that_was_never_issued_halts() {
    // I5: counting it would promise what nobody has written.
    let mut rig = Rig::new(3, 1);
    let upto = WriteSeq(1);
    rig.step(1, Input::Completed(Completion::Persisted { upto }))
        .unwrap();
    assert_eq!(rig.raft(1).halted(), Some(Fault::UnknownCompletion));
}

#[test]
fn aba_a_completion_of_an_overwritten_batch_counts_for_nothing() {
    // S21: X is written at 1, then Y, then Z; the first completion must not make Z durable.
    let mut rig = Rig::new(7, 1);
    let batches: Vec<Batch> = (1..=3)
        .map(|term| noop_after(&Position::START, term))
        .collect();
    for (i, batch) in batches.iter().enumerate() {
        let mut envelope = append(i as u64 + 1, Position::START, [batch.clone()].into(), 0);
        envelope.from = NodeId(i as u64 + 2);
        rig.deliver(envelope).unwrap();
    }
    assert_eq!(rig.raft(1).last(), batches[2].header.position());
    for _ in 0..2 {
        rig.sync(1, 1);
        rig.report(1).unwrap();
        assert_eq!(rig.raft(1).durable(), Index(0));
        assert!(sent(&rig, 1).is_empty());
    }
    rig.sync(1, 1);
    rig.report(1).unwrap();
    assert_eq!(rig.raft(1).durable(), Index(1));
    let accepted = AppendReply::Accepted { matched: Index(1) };
    assert_eq!(sent(&rig, 1), [&Message::AppendReply(accepted)]);
    assert_eq!(rig.network[0].to, NodeId(4));
}
