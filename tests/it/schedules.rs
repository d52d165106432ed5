//! The schedules that break other libraries (F1-F4, F6): one crash of one node whose disk had not
//! finished. They must hold here because nothing leaves a node before its disk is done.

use duraft_core::{LogId, Message, Reject, RoleKind};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, Options, Outcome, any};

fn led() -> Cluster {
    let mut c = Cluster::new(3);
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    c
}

#[test]
pub(crate) fn schedule_f1_a_restarted_leader_does_not_lead_its_term_again() {
    // The leader's disk stalls, its followers commit OLD, it dies and comes back at once. Leading on
    // in the same term it would write NEW over OLD under the same (term, index).
    let mut c = led();
    c.hold_disk(N1);
    let old = c.propose(N1, "OLD");
    c.deliver_all();
    assert_eq!(c.commit(N1), 2, "n2 and n3 commit it");
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.commands(N2), ["OLD"]);
    c.crash(N1);
    c.restart(N1);
    assert_eq!(c.outcome(old), Some(Outcome::Unknown));
    assert_eq!(c.role(N1), RoleKind::Follower);
    assert_eq!(c.term(N1), 1, "its term is durable");
    assert_eq!(c.log(N1), ["1@1 noop"], "OLD was not");
    let new = c.propose(N1, "NEW");
    assert_eq!(
        c.outcome(new),
        Some(Outcome::Rejected(Reject::NotLeader, None))
    );
    let life = c.incarnation(N1);
    c.converge();
    let first_life = c.history.leader_of(duraft_core::Term(1));
    assert_ne!(
        first_life,
        Some((N1, life)),
        "term 1 had one leader, in its first life"
    );
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), ["OLD"]);
    }
}

#[test]
pub(crate) fn schedule_f1_the_first_life_s_answers_do_not_speak_for_the_second() {
    // As above, but the followers' answers to the first life arrive in the second, which by then
    // campaigns in the next term.
    let mut c = led();
    c.hold_disk(N1);
    c.propose(N1, "OLD");
    c.deliver(any().kind(Kind::Append));
    c.crash(N1);
    c.restart(N1);
    c.free_disk(N1);
    c.deliver_all();
    assert_eq!(c.commit(N1), 0, "answers of another life commit nothing");
    c.lose_patience(N2);
    c.lose_patience(N3);
    c.campaign(N1);
    c.deliver_all();
    assert_ne!(
        c.role(N1),
        RoleKind::Leader,
        "n2 and n3 hold OLD, n1 does not"
    );
    c.converge();
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), ["OLD"]);
    }
}

#[test]
pub(crate) fn schedule_f2_a_candidate_asks_only_when_term_and_vote_are_durable() {
    // A candidate asks before its vote is durable, wins, dies, forgets, and campaigns for the same
    // term again: two leaders of one term.
    for pre_vote in [true, false] {
        let mut c = Cluster::build(Options::new(3).configure(|config| config.pre_vote = pre_vote));
        c.hold_disk(N1);
        c.campaign(N1);
        c.deliver_all();
        assert_eq!(c.role(N1), RoleKind::Candidate);
        assert_eq!(
            c.sent(any().kind(Kind::Vote)).len(),
            0,
            "the vote is not durable"
        );
        c.crash(N1);
        c.restart(N1);
        assert_eq!(c.term(N1), 0);
        // The second life campaigns for the same term, this time with a disk that works.
        c.free_disk(N1);
        c.elect(N1);
        assert_eq!(c.term(N1), 1);
        let life = c.incarnation(N1);
        assert_eq!(c.history.leader_of(duraft_core::Term(1)), Some((N1, life)));
        // And a leader that dies after replicating from memory takes the next term.
        c.hold_disk(N1);
        c.propose(N1, "OLD");
        c.deliver(any().to(N2));
        c.crash(N1);
        c.restart(N1);
        c.free_disk(N1);
        c.lose(any());
        c.lose_patience(N2);
        c.lose_patience(N3);
        c.campaign(N1);
        c.deliver_all();
        assert!(c.term(N1) == 1 || c.term(N1) == 2);
        c.converge();
        let commands = c.commands(N1);
        assert!(commands.is_empty() || commands == ["OLD"], "{commands:?}");
    }
}

#[test]
pub(crate) fn schedule_f3_a_candidate_advertises_only_what_is_durable() {
    // n1 campaigns on the strength of an entry that only its memory holds; a grant is delayed; n1
    // dies, loses the entry and its vote, campaigns again, and the old grant makes it leader without
    // an entry that was committed meanwhile.
    for durable in 0..=2 {
        let mut c = Cluster::build(Options::new(3).plain());
        c.elect(N2);
        c.heartbeat(N2);
        c.deliver_all();
        c.hold_disk(N1);
        c.propose(N2, "x");
        c.deliver(any().to(N1).kind(Kind::Append));
        c.isolate(N3);
        assert_eq!(c.pending(N1), 1, "x is being written");
        c.campaign(N1);
        c.heal();
        assert_eq!(c.pending(N1), 2, "then term and vote");
        c.complete(N1, durable);
        let asked = c.sent(any().from(N1).kind(Kind::Vote)).len();
        assert_eq!(
            asked > 0,
            durable == 2,
            "asked only when all of it is durable"
        );
        // The grants, if any, are under way when n1 dies.
        c.deliver(any().kind(Kind::Vote));
        c.crash(N1);
        c.restart(N1);
        c.free_disk(N1);
        c.campaign(N1);
        let own_term = c.term(N1);
        c.deliver(any().kind(Kind::VoteReply));
        assert_ne!(
            c.role(N1),
            RoleKind::Leader,
            "grants of another life or term do not count"
        );
        assert_eq!(own_term, if durable == 2 { 3 } else { 2 });
        c.converge();
        assert_eq!(c.commands(N1), c.commands(N2));
        assert_eq!(c.commands(N1), c.commands(N3));
    }
}

#[test]
pub(crate) fn schedule_f4_a_single_voter_with_a_learner_says_nothing_before_its_vote_is_durable() {
    // The only voter needs nobody's vote, so it leads inside its campaign; what it tells its learner
    // before term and vote are durable, it may contradict after a crash.
    let mut c = Cluster::build(Options::new(1).learners(&[N2]));
    c.hold_disk(N1);
    c.campaign(N1);
    assert_ne!(c.role(N1), RoleKind::Leader);
    assert!(
        c.sent(any()).is_empty(),
        "not a word before the vote is durable"
    );
    c.complete(N1, 1);
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.propose(N1, "OLD");
    c.deliver_all();
    assert_eq!(c.applied(N2), 0, "a learner's copy commits nothing");
    c.crash(N1);
    c.restart(N1);
    c.free_disk(N1);
    c.elect(N1);
    assert_eq!(c.term(N1), 2, "term 1 was led once");
    c.propose(N1, "NEW");
    c.deliver_all();
    c.converge();
    for id in [N1, N2] {
        assert_eq!(c.commands(id), ["NEW"]);
    }
}

#[test]
pub(crate) fn schedule_f6_term_and_vote_are_one_write_and_every_request_is_checked() {
    // Term and candidate written apart: a crash between them leaves the new term with an old vote,
    // and the 'asked again' path grants before it looks at the log.
    for kept in 0..=1 {
        let log = Chain::of_terms(&[1, 1]);
        let mut c = Cluster::build(
            Options::new(3)
                .plain()
                .puppets(&[N1, N3])
                .log(N2, log.clone()),
        );
        let fresh = Message::Vote {
            last: log.last().id,
            forced: false,
        };
        let stale = Message::Vote {
            last: log.at(1).id,
            forced: false,
        };
        // Term 2: the vote goes to n1, whose log is fresh.
        c.inject(says(N1, N2, 2, fresh.clone()));
        assert_eq!(c.vote(N2), Some(N1));
        // Term 3: n3's request is being written when the power goes.
        c.hold_disk(N2);
        c.inject(says(N3, N2, 3, fresh));
        assert_eq!(c.pending(N2), 1, "term and vote in one write");
        let hard_state = c.pending_writes(N2)[0].hard_state.expect("a hard state");
        assert_eq!((hard_state.term.0, hard_state.vote), (3, Some(N3)));
        c.crash_keeping(N2, kept);
        c.restart(N2);
        c.free_disk(N2);
        c.deliver_all();
        c.take_mail();
        let expected = if kept == 1 {
            (3, Some(N3))
        } else {
            (2, Some(N1))
        };
        assert_eq!((c.term(N2), c.vote(N2)), expected);
        // n1, the candidate of the older term, asks in term 3 with a stale log.
        c.inject(says(N1, N2, 3, stale.clone()));
        c.deliver_all();
        for envelope in c.take_mail() {
            assert_eq!(envelope.message, Message::VoteReply { granted: false });
        }
        assert_ne!(
            c.vote(N2),
            Some(N1),
            "a stale log gets no vote, asked again or not"
        );
    }
}

#[test]
pub(crate) fn schedule_f6_a_vote_asked_for_again_is_the_same_vote() {
    // The lost answer of a grant is repeated, across a crash too, and only for the same candidate.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N1, N3]));
    let last = LogId::default();
    for round in 0..3 {
        c.inject(says(
            N1,
            N2,
            1,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        c.deliver_all();
        let mail = c.take_mail();
        assert_eq!(mail.len(), 1, "round {round}");
        assert_eq!(mail[0].message, Message::VoteReply { granted: true });
        c.inject(says(
            N3,
            N2,
            1,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        c.deliver_all();
        let mail = c.take_mail();
        assert_eq!(mail.len(), 1, "round {round}");
        assert_eq!(mail[0].message, Message::VoteReply { granted: false });
        c.crash(N2);
        c.restart(N2);
    }
}
