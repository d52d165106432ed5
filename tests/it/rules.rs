//! The design's rules on batches, digests, completions and slow disks (RULES.md 1, 2, 6-12, 15, 16, 32), each
//! with a test that fails without it.

use crate::common::{acceptance, led, settle};
use duraft_core::{
    AppendReply, Completion, Envelope, Fault, Incarnation, Index, Input, LoadError, LogId, Message,
    Phase, Reject, RoleKind, Term,
};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, Options, Outcome, any, commands_body};

/// n1 with this log among peers that the test speaks for.
fn follower(log: Chain) -> Cluster {
    Cluster::build(Options::new(3).plain().puppets(&[N2, N3]).log(N1, log))
}

fn three() -> duraft_core::Body {
    commands_body(&["a", "b", "c"])
}

#[test]
pub(crate) fn rule_01_a_batch_is_matched_cut_and_committed_whole() {
    // Could go wrong: half a batch kept, or a boundary inside one taken for a match.
    let log = Chain::of_terms(&[1]).and_body(1, three()).and(1, "d");
    let mut c = follower(log);
    // Another leader's log has a boundary at 3, where this one has the middle of a batch.
    let theirs = Chain::of_terms(&[1]).and(2, "x").and(2, "y").and(2, "z");
    c.inject(says(N2, N1, 2, theirs.append(3, 4, 4)));
    c.deliver_all();
    let mail = c.take_mail();
    let expected = LogId {
        term: Term(1),
        index: Index(1),
    };
    let Message::AppendReply(AppendReply::Rejected { hint, .. }) = mail[0].message else {
        panic!("{:?}", mail[0].message);
    };
    assert_eq!(hint, expected, "the last boundary that can be shared");
    // The whole batch goes when its first entry conflicts.
    c.inject(says(N2, N1, 2, theirs.append(1, 2, 2)));
    assert_eq!(c.log(N1), ["1@1 \"1@1\"", "2@2 \"x\""]);
    assert_eq!((c.commit(N1), c.applied(N1)), (2, 2));
}

#[test]
pub(crate) fn rule_01_commit_inside_a_batch_is_no_commit_of_it() {
    // Could go wrong: a commit index in the middle of a batch commits all or applies half of it.
    let log = Chain::of_terms(&[1]).and_body(1, three());
    let mut c = follower(Chain::empty());
    c.inject(says(N2, N1, 1, log.append(0, 4, 3)));
    assert_eq!((c.commit(N1), c.applied(N1)), (1, 1));
    c.inject(says(N2, N1, 1, log.append(4, 4, 4)));
    assert_eq!((c.commit(N1), c.applied(N1)), (4, 4));
}

#[test]
pub(crate) fn rule_02_an_equal_batch_is_skipped_and_a_conflict_is_cut_at_its_own_first_index() {
    // Could go wrong: a message that overlaps is written again, or cut before the conflict.
    let mut c = follower(Chain::of_terms(&[1, 1, 1, 2, 2]));
    let writes = c.writes(N1).len();
    let theirs = Chain::of_terms(&[1, 1, 1, 3]);
    c.inject(says(N2, N1, 3, theirs.append(0, 3, 0)));
    let added = &c.writes(N1)[writes..];
    assert!(
        added
            .iter()
            .all(|w| w.append.is_empty() && w.truncate.is_none())
    );
    assert_eq!(c.log_terms(N1), [1, 1, 1, 2, 2], "nothing sent conflicts");
    c.inject(says(N2, N1, 3, theirs.append(0, 4, 0)));
    let last = c.writes(N1).last().expect("a write");
    assert_eq!(last.truncate, Some(theirs.at(3)));
    assert_eq!(last.append.len(), 1);
    assert_eq!(c.log_terms(N1), [1, 1, 1, 3]);
}

#[test]
pub(crate) fn rule_02_a_cut_at_or_below_commit_is_a_fault_and_is_not_done() {
    // Could go wrong: a broken leader makes a node give up what it has applied.
    let log = Chain::of_terms(&[1, 1]);
    let mut c = follower(Chain::empty());
    c.inject(says(N2, N1, 1, log.append(0, 2, 2)));
    assert_eq!(c.applied(N1), 2);
    let lost = Chain::of_terms(&[1, 2]);
    c.inject(says(N3, N1, 2, lost.append(1, 2, 0)));
    assert!(
        matches!(c.halted(N1), Some(Fault::CommittedTruncation { .. })),
        "{:?}",
        c.halted(N1)
    );
    assert_eq!(c.log_terms(N1), [1, 1]);
    c.deliver_all();
    assert!(
        c.take_mail()
            .iter()
            .filter_map(acceptance)
            .all(|matched| matched <= 2)
    );
}

#[test]
pub(crate) fn rule_02_a_leader_that_contradicts_its_own_words_is_not_believed() {
    // Could go wrong: within one term a leader's log only grows; who says otherwise is broken, and
    // what was acknowledged to it must stay.
    let mut c = follower(Chain::empty());
    c.inject(says(N2, N1, 3, Chain::of_terms(&[1, 1, 3]).append(0, 3, 0)));
    c.deliver_all();
    assert_eq!(c.take_mail().iter().filter_map(acceptance).max(), Some(3));
    let other = Chain::of_terms(&[1, 2]);
    c.deliver_one(says(N2, N1, 3, other.append(1, 2, 2)));
    c.deliver_all();
    assert_eq!(c.log_terms(N1), [1, 1, 3]);
    assert_eq!(c.durable(N1).last(), c.issued(N1).last());
    assert_eq!(c.commit(N1), 0);
    assert!(c.take_mail().iter().filter_map(acceptance).next().is_none());
}

#[test]
pub(crate) fn rule_06_a_proposal_over_the_clusters_batch_limit_is_too_large() {
    let mut c = led(Options::new(3).configure(|config| config.max_batch_bytes = 64));
    let large = c.propose(N1, &"x".repeat(61));
    assert!(matches!(
        c.outcome(large),
        Some(Outcome::Rejected(Reject::TooLarge, _))
    ));
    let fits = c.propose(N1, &"x".repeat(60));
    settle(&mut c);
    assert!(c.acknowledged(fits));
}

#[test]
pub(crate) fn rule_06_no_byte_limit_refuses_the_first_batch() {
    // Could go wrong: a batch larger than some limit waits for ever.
    let mut c = led(Options::new(3).configure(|config| {
        config.append_bytes_max = 1;
        config.inflight_bytes_max = 1;
        config.uncommitted_bytes_max = 1;
        config.unapplied_bytes_max = 1;
        config.cache_bytes_max = 0;
    }));
    for command in ["a", "b", "c"] {
        let one = c.propose(N1, &command.repeat(1000));
        let refused = c.propose(N1, "more");
        assert!(matches!(
            c.outcome(refused),
            Some(Outcome::Rejected(Reject::UncommittedLimit, _))
        ));
        settle(&mut c);
        assert!(c.acknowledged(one));
    }
    assert_eq!(c.commands(N3).len(), 3);
}

#[test]
pub(crate) fn rule_07_08_two_contents_of_one_place_are_reported_not_repaired() {
    // Could go wrong: equal (term, index) taken for equal content, or the local one overwritten.
    let ours = Chain::of_terms(&[1]).and(1, "ours");
    let theirs = Chain::of_terms(&[1]).and(1, "theirs");
    // As the content of a batch, and as the boundary that an append follows.
    for message in [
        theirs.append(1, 2, 2),
        theirs.clone().and(1, "next").append(2, 3, 3),
    ] {
        let mut c = follower(ours.clone());
        c.inject(says(
            N2,
            N1,
            1,
            Message::Heartbeat {
                commit: Index(0),
                round: 1,
            },
        ));
        c.deliver_all();
        c.take_mail();
        c.deliver_one(says(N2, N1, 1, message));
        c.deliver_all();
        let mail = c.take_mail();
        let expected = AppendReply::Divergence {
            theirs: theirs.at(2),
            ours: ours.at(2),
        };
        assert_eq!(mail.len(), 1);
        assert_eq!(mail[0].message, Message::AppendReply(expected));
        assert_eq!(c.halted(N1), None, "the leader has not looked yet");
        assert_eq!(c.issued(N1).batches, ours.batches, "nothing was changed");
        // It has, and asks again for that very boundary.
        let heartbeat = Message::Heartbeat {
            commit: Index(0),
            round: 2,
        };
        c.inject(says(N2, N1, 1, heartbeat));
        c.deliver_one(says(N2, N1, 1, theirs.append(2, 2, 0)));
        assert!(matches!(c.halted(N1), Some(Fault::Divergence { .. })));
        assert_eq!(c.commit(N1), 0);
    }
}

#[test]
pub(crate) fn rule_08_a_leader_told_so_by_a_quorum_steps_down() {
    // Could go wrong: the one wrong log leads on.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
    assert_eq!(c.role(N1), RoleKind::Leader);
    let theirs = c.issued(N1).last();
    let mut ours = theirs;
    ours.digest.0 ^= 1;
    let divergence = Message::AppendReply(AppendReply::Divergence { theirs, ours });
    for _ in 0..3 {
        c.deliver_one(says(N2, N1, 1, divergence.clone()));
        assert_eq!(
            c.role(N1),
            RoleKind::Leader,
            "one of three is the one that is wrong"
        );
    }
    c.deliver_one(says(N3, N1, 1, divergence));
    assert_ne!(c.role(N1), RoleKind::Leader);
}

#[test]
pub(crate) fn rule_08_a_leader_whose_own_copy_cannot_be_read_steps_down() {
    // Could go wrong: a leader that is contradicted believes its memory, whatever its disk says.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    c.hold_loads(N1);
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
    assert_eq!(c.role(N1), RoleKind::Leader);
    let theirs = c.issued(N1).last();
    let mut ours = theirs;
    ours.digest.0 ^= 1;
    let divergence = Message::AppendReply(AppendReply::Divergence { theirs, ours });
    c.deliver_one(says(N2, N1, 1, divergence));
    assert!(
        c.fail_load(N1, LoadError::Corrupt),
        "it looks at its own copy"
    );
    assert_eq!(c.role(N1), RoleKind::Follower);
}

#[test]
pub(crate) fn rule_10_only_a_pre_vote_leaves_without_a_durable_term() {
    // Could go wrong: an envelope that carries a term the node may forget.
    let mut c = Cluster::build(Options::new(3).puppets(&[N2, N3]));
    c.hold_disk(N1);
    c.inject(says(
        N2,
        N1,
        3,
        Message::Heartbeat {
            commit: Index(0),
            round: 1,
        },
    ));
    assert_eq!(c.term(N1), 3);
    let last = LogId::default();
    c.lose_patience(N1);
    c.inject(says(
        N3,
        N1,
        0,
        Message::PreVote {
            wanted: Term(9),
            last,
        },
    ));
    c.tick(N1, 200);
    c.deliver_all();
    for envelope in c.take_mail() {
        let kind = Kind::of(&envelope.message);
        assert!(
            matches!(kind, Kind::PreVote | Kind::PreVoteReply),
            "{kind:?}"
        );
        assert_eq!(envelope.term, Term(0), "the durable term");
    }
}

#[test]
pub(crate) fn rule_10_a_restarted_leader_never_leads_its_term_again() {
    // Whatever it hears in that term.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.crash(N1);
    c.restart(N1);
    assert_eq!(
        (c.role(N1), c.term(N1), c.vote(N1)),
        (RoleKind::Follower, 1, Some(N1))
    );
    let accepted = AppendReply::Accepted { matched: Index(1) };
    for message in [
        Message::VoteReply { granted: true },
        Message::AppendReply(accepted),
        Message::HeartbeatReply {
            round: 1,
            health: duraft_core::Health::default(),
        },
        Message::PreVoteReply {
            wanted: Term(1),
            granted: true,
        },
    ] {
        for from in [N2, N3] {
            c.inject(says(from, N1, 1, message.clone()));
        }
        assert_eq!(c.role(N1), RoleKind::Follower);
    }
}

#[test]
pub(crate) fn rule_11_no_second_campaign_while_the_first_is_being_written() {
    // Could go wrong: a slow disk turns one election into one per timeout.
    for pre_vote in [true, false] {
        let mut c = Cluster::build(Options::new(3).configure(|config| config.pre_vote = pre_vote));
        c.hold_disk(N1);
        c.campaign(N1);
        c.deliver_except(any().kind(Kind::Vote));
        assert_eq!((c.term(N1), c.pending(N1)), (1, 1));
        c.tick(N1, 50 * c.options().config.election_ticks);
        assert_eq!(
            (c.term(N1), c.pending(N1)),
            (1, 1),
            "at most one undurable term of its own"
        );
        // The campaign's time starts when it is asked for.
        c.complete(N1, 1);
        assert_eq!(c.sent(any().kind(Kind::Vote)).len(), 2);
        c.tick(N1, c.options().config.election_ticks - 1);
        assert_eq!(c.term(N1), 1);
        c.deliver_all();
        assert_eq!(c.role(N1), RoleKind::Leader);
    }
}

#[test]
pub(crate) fn rule_11_a_voters_timer_starts_when_its_grant_leaves() {
    // Could go wrong: a voter with a slow disk grants, and campaigns against its own candidate.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    c.hold_disk(N1);
    c.inject(says(
        N2,
        N1,
        1,
        Message::Vote {
            last: LogId::default(),
            forced: false,
        },
    ));
    c.tick(N1, 20 * c.options().config.election_ticks);
    assert_eq!(
        (c.role(N1), c.term(N1)),
        (RoleKind::Follower, 1),
        "its grant is being written"
    );
    c.complete_all(N1);
    c.tick(N1, c.options().config.election_ticks - 1);
    assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Follower, 1));
}

#[test]
pub(crate) fn rule_12_heartbeats_do_not_hide_a_dead_connection_for_data() {
    // Could go wrong: bulk data goes nowhere, heartbeats do, and the leader leads for ever.
    let mut c = led(Options::new(3));
    let x = c.propose(N1, "x");
    let mut ticks = 0;
    while c.role(N1) == RoleKind::Leader {
        c.deliver_except(any().kind(Kind::Append));
        c.lose(any().kind(Kind::Append));
        c.tick(N1, 1);
        ticks += 1;
        assert!(
            ticks < 10 * c.options().config.election_ticks,
            "it must give up"
        );
    }
    assert!(!c.acknowledged(x));
    assert_eq!(c.role(N1), RoleKind::Follower);
    c.converge();
}

#[test]
pub(crate) fn rule_12_an_idle_leader_keeps_its_quorum_by_heartbeats() {
    // The other side: with nothing outstanding, heartbeats are contact enough.
    let mut c = led(Options::new(3));
    for _ in 0..20 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
        assert_eq!(c.leaders(), [N1]);
    }
    assert_eq!(c.term(N1), 1);
}

#[test]
pub(crate) fn rule_15_answers_of_a_dead_life_do_not_count_once_the_next_has_spoken() {
    // Could go wrong: an acknowledgement from before a restart speaks for a disk that lost it.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
    c.propose(N1, "x");
    let mut second = says(
        N2,
        N1,
        1,
        Message::HeartbeatReply {
            round: 0,
            health: duraft_core::Health::default(),
        },
    );
    second.incarnation = Incarnation(2);
    c.deliver_one(second);
    let accepted = Message::AppendReply(AppendReply::Accepted { matched: Index(2) });
    let first = says(N2, N1, 1, accepted);
    c.deliver_one(first.clone());
    assert_eq!((c.commit(N1), c.progress(N1, N2).matched), (0, Index(0)));
    let again = Envelope {
        incarnation: Incarnation(2),
        ..first
    };
    c.deliver_one(again);
    assert_eq!(c.commit(N1), 2);
    // The next life has lost what was not durable: it is asked before anything is sent ahead.
    assert_eq!(c.progress(N1, N2).phase, Phase::Replicate);
    let mut third = says(
        N2,
        N1,
        1,
        Message::HeartbeatReply {
            round: 0,
            health: duraft_core::Health::default(),
        },
    );
    third.incarnation = Incarnation(3);
    c.deliver_one(third);
    assert_eq!(c.progress(N1, N2).phase, Phase::Probe);
    assert_eq!(
        c.progress(N1, N2).matched,
        Index(2),
        "what was acknowledged is durable there"
    );
}

/// n1 leads with a log that is on disk only; n3 lacks it, and the reads for it wait.
fn leader_that_must_read() -> Cluster {
    let log = Chain::of_terms(&[1, 1, 1, 1]);
    let options = Options::new(3).log(N1, log.clone()).log(N2, log);
    let mut c = Cluster::build(options);
    c.isolate(N3);
    c.elect(N1);
    settle(&mut c);
    assert_eq!(c.applied(N1), 5);
    c.heal();
    c.hold_loads(N1);
    for _ in 0..3 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    assert_eq!(c.waiting_loads(N1).len(), 1, "{}", c.story());
    c
}

#[test]
pub(crate) fn rule_16_a_leader_that_cannot_read_its_log_fetches_it() {
    // Could go wrong: a leader whose disk has lost one sector is of no use any more.
    for error in [LoadError::Corrupt, LoadError::Io, LoadError::Compacted] {
        let mut c = leader_that_must_read();
        assert!(c.fail_load(N1, error));
        c.free_loads(N1);
        c.deliver_all();
        assert_eq!(c.role(N1), RoleKind::Leader);
        c.converge();
        assert_eq!((c.role(N1), c.commands(N3).len()), (RoleKind::Leader, 4));
    }
}

#[test]
pub(crate) fn rule_16_a_leader_that_cannot_read_its_log_anywhere_steps_down() {
    // Could go wrong: a failed or short read is sent on as a shorter or other log.
    for error in [LoadError::Corrupt, LoadError::Io, LoadError::Compacted] {
        let mut c = leader_that_must_read();
        c.isolate(N2);
        assert!(c.fail_load(N1, error));
        for _ in 0..100 {
            if c.role(N1) == RoleKind::Leader {
                c.tick(N1, 1);
                c.deliver_all();
            }
        }
        assert_eq!(c.role(N1), RoleKind::Follower);
        assert_eq!(c.log_terms(N3), [0; 0], "nothing was made up for n3");
        c.heal();
        c.free_loads(N1);
        c.converge();
        assert_eq!(c.commands(N3).len(), 4);
    }
}

#[test]
pub(crate) fn rule_16_a_read_that_brings_other_batches_is_not_sent_on() {
    // Could go wrong: a disk that answers with another log's bytes.
    let mut c = leader_that_must_read();
    c.isolate(N2);
    let load = c.waiting_loads(N1)[0];
    let wrong = Chain::empty().and(1, "not this").batches;
    let answer = Completion::Loaded {
        load: load.id,
        result: Ok(wrong),
    };
    c.step(N1, Input::Completed(answer));
    c.deliver_all();
    assert_eq!(c.log_terms(N3), [0; 0]);
    c.heal();
    c.free_loads(N1);
    c.converge();
}

#[test]
pub(crate) fn rule_16_a_short_read_is_carried_on() {
    // A read may bring fewer batches than asked for, at least one.
    let mut c = leader_that_must_read();
    let whole = c.issued(N1).batches.clone();
    while let Some(load) = c.waiting_loads(N1).first().copied() {
        let at = usize::try_from(load.first.0).expect("small") - 1;
        c.take_load(N1);
        let result = Ok(whole[at..=at].to_vec());
        c.step(
            N1,
            Input::Completed(Completion::Loaded {
                load: load.id,
                result,
            }),
        );
        c.deliver_all();
    }
    settle(&mut c);
    assert_eq!(c.issued(N3).last(), c.issued(N1).last());
}

#[test]
pub(crate) fn rule_09_an_answer_to_a_read_of_another_life_or_none_is_not_believed() {
    // Could go wrong: late reads of before a truncation; here the host invents one.
    let mut c = leader_that_must_read();
    let mut load = c.waiting_loads(N1)[0].id;
    load.0 += 1;
    let result = Ok(c.issued(N1).batches.clone());
    c.step(N1, Input::Completed(Completion::Loaded { load, result }));
    assert_eq!(c.halted(N1), Some(Fault::UnknownCompletion));
}

#[test]
pub(crate) fn rule_16_a_node_that_cannot_read_what_is_committed_halts() {
    // Could go wrong: an entry is skipped by the state machine.
    let log = Chain::of_terms(&[1, 1, 1]);
    let mut c = follower(log.clone());
    c.hold_loads(N1);
    c.inject(says(N2, N1, 1, log.append(3, 3, 3)));
    assert_eq!((c.commit(N1), c.applied(N1)), (3, 0));
    assert!(c.fail_load(N1, LoadError::Corrupt));
    assert_eq!(c.halted(N1), None, "somebody else may have it");
    for _ in 0..100 {
        c.tick(N1, 1);
    }
    let fault = Fault::Unreadable {
        first: Index(1),
        error: LoadError::Corrupt,
    };
    assert_eq!(c.halted(N1), Some(fault));
    assert_eq!(c.applied(N1), 0);
}

#[test]
pub(crate) fn rule_32_learners_receive_and_decide_nothing() {
    // Could go wrong: a learner that campaigns, or counts for commit or election.
    let mut c = Cluster::build(Options::new(3).learners(&[duraft_tests::N4, duraft_tests::N5]));
    c.elect(N1);
    c.isolate(N2);
    c.isolate(N3);
    let x = c.propose(N1, "x");
    c.deliver_all();
    assert!(!c.acknowledged(x), "one voter and two learners");
    assert!(!c.try_campaign(duraft_tests::N4), "learners never campaign");
    c.heal();
    settle(&mut c);
    settle(&mut c);
    assert!(c.acknowledged(x));
    assert_eq!(c.commands(duraft_tests::N5), ["x"]);
}
