//! Elections at their edges: who is asked, whose word counts, and when.

use super::rig::*;
use crate::role::{Ballot, Role};
use crate::*;

/// Node 1 asks whether it could win.
fn asking(rig: &mut Rig) {
    rig.time_out(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::PreCandidate);
    rig.network.clear();
}

fn willing(from: u64) -> Envelope {
    let wanted = Term(1);
    let granted = true;
    said(from, 1, 0, Message::PreVoteReply { wanted, granted })
}

fn vote() -> Message {
    Message::Vote {
        last: LogId::default(),
        forced: false,
    }
}

#[test]
fn a_follower_campaigns_within_one_and_two_election_timeouts() {
    // Earlier, and a leader that works is disturbed; later, and all wait longer than they were told.
    let mut seen = alloc::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut rig = Rig::new(3, seed);
        let mut ticks = 0;
        while rig.raft(1).role() == RoleKind::Follower {
            rig.tick(1).unwrap();
            ticks += 1;
        }
        seen.insert(ticks);
    }
    assert_eq!(seen, (10..20).collect(), "each of them, and no other");
}

#[test]
fn a_pre_vote_is_granted_for_a_later_term_only() {
    // In this node's own term the asker could not win any more: it may have voted there.
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 3, &[]);
    for (wanted, granted) in [(2, false), (3, false), (4, true)] {
        let wanted = Term(wanted);
        let last = LogId::default();
        let question = Message::PreVote { wanted, last };
        rig.deliver(said(2, 1, wanted.0 - 1, question)).unwrap();
        let answer = rig.network.pop().unwrap().message;
        assert_eq!(answer, Message::PreVoteReply { wanted, granted });
    }
}

#[test]
fn a_candidate_that_asks_again_is_granted_the_vote_again() {
    // The first grant was lost on its way. Nobody else gets the vote in this term.
    let mut rig = Rig::new(3, 1);
    for (from, granted) in [(2, true), (3, false), (2, true)] {
        rig.deliver(said(from, 1, 1, vote())).unwrap();
        rig.flush(1).unwrap();
        let answer = rig.network.pop().unwrap();
        assert_eq!(answer.to, NodeId(from));
        assert_eq!(answer.message, Message::VoteReply { granted });
    }
}

#[test]
fn a_grant_that_comes_before_anybody_was_asked_elects_nobody() {
    // The own vote is not durable: a grant in this term is of a request that a dead life has made, with
    // another log.
    let mut rig = Rig::new(3, 1);
    asking(&mut rig);
    rig.deliver(willing(2)).unwrap();
    let granted = Message::VoteReply { granted: true };
    rig.deliver(said(2, 1, 1, granted.clone())).unwrap();
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
    rig.deliver(said(2, 1, 1, granted)).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
}

#[test]
fn the_answers_of_strangers_elect_nobody_and_are_not_kept() {
    // Whoever was removed, or never was a member, may send what it likes and as much.
    let mut rig = Rig::new(3, 1);
    asking(&mut rig);
    (10..20).for_each(|from| rig.deliver(willing(from)).unwrap());
    let Role::PreCandidate(ballot) = &rig.raft(1).role else {
        panic!("strangers do not decide");
    };
    assert_eq!(ballot.granted, [NodeId(1)].into());
    rig.deliver(willing(2)).unwrap();
    rig.flush(1).unwrap();
    let granted = Message::VoteReply { granted: true };
    (10..20).for_each(|from| rig.deliver(said(from, 1, 1, granted.clone())).unwrap());
    let Role::Candidate(candidate) = &rig.raft(1).role else {
        panic!("strangers do not decide");
    };
    assert_eq!(candidate.ballot.granted, [NodeId(1)].into());
}

#[test]
fn the_first_word_of_a_voter_stands() {
    // A late or repeated answer changes no mind: otherwise a campaign could be won and lost.
    let three = Membership::new([1, 2, 3].map(NodeId), []).unwrap();
    let mut ballot = Ballot::default();
    for (from, granted, won, lost) in [
        (2, false, false, false),
        (2, true, false, false),
        (1, true, false, false),
        (1, false, false, false),
        (3, true, true, false),
        (3, false, true, false),
    ] {
        ballot.count(NodeId(from), granted);
        assert_eq!((ballot.is_won(&three), ballot.is_lost(&three)), (won, lost));
    }
    let mut ballot = Ballot::default();
    ballot.count(NodeId(2), false);
    ballot.count(NodeId(3), false);
    assert!(ballot.is_lost(&three));
}

#[test]
fn a_candidate_that_cannot_win_any_more_waits_again() {
    // It would hold its term until the timeout, and believe no leader meanwhile.
    let mut rig = Rig::new(3, 1);
    asking(&mut rig);
    for from in [2, 3] {
        assert_eq!(rig.raft(1).role(), RoleKind::PreCandidate);
        let wanted = Term(1);
        let granted = false;
        let no = Message::PreVoteReply { wanted, granted };
        rig.deliver(said(from, 1, 0, no)).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
    asking(&mut rig);
    rig.deliver(willing(2)).unwrap();
    rig.flush(1).unwrap();
    for from in [2, 3] {
        assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
        let no = Message::VoteReply { granted: false };
        rig.deliver(said(from, 1, 1, no)).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
}
