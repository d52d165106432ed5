//! What isSerge/raft got wrong (s1-s6) and the unit scenarios of its 80 tests that are right, asked of
//! the core through its inputs and outputs. Tests that encoded an error are asked the right way round.

use crate::common::{acceptances, appends, grants, led, refusals, settle};
use duraft_core::{AppendReply, Index, LogId, Message, Phase, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, Options, Outcome, any};

const GRANT: Message = Message::VoteReply { granted: true };
const REFUSAL: Message = Message::VoteReply { granted: false };

/// n1 among peers that the test speaks for.
fn alone(voters: u64) -> Cluster {
    let options = Options::new(voters).plain();
    let peers = options.voters[1..].to_vec();
    Cluster::build(options.puppets(&peers))
}

/// n1 leads term 1 among peers that the test speaks for.
fn leading(voters: u64) -> Cluster {
    let mut c = alone(voters);
    c.campaign(N1);
    for id in [N2, N3, N4, N5]
        .into_iter()
        .take(usize::try_from(voters / 2).expect("small"))
    {
        c.inject(says(id, N1, 1, GRANT));
    }
    assert_eq!(c.role(N1), RoleKind::Leader);
    c
}

fn accept(matched: u64) -> Message {
    Message::AppendReply(AppendReply::Accepted {
        matched: Index(matched),
    })
}

#[test]
pub(crate) fn seed_isserge_s1_one_voter_counts_once() {
    // isSerge: no set of voters, so the same grant twice elected with 2 of 5.
    let mut c = alone(5);
    c.campaign(N1);
    for _ in 0..5 {
        c.inject(says(N2, N1, 1, GRANT));
    }
    assert_eq!(c.role(N1), RoleKind::Candidate);
}

#[test]
pub(crate) fn seed_isserge_s2_an_answer_is_credited_with_what_it_answers() {
    // isSerge: one pending batch per follower, so the answer to the first append was credited with
    // the second and an index committed that no follower had.
    let mut c = led(Options::new(3));
    c.isolate(N3);
    let a = c.propose(N1, "a");
    let first = c.net.take(any().to(N2).kind(Kind::Append));
    let b = c.propose(N1, "b");
    for envelope in first {
        c.deliver_one(envelope);
    }
    c.deliver_only(any().from(N2));
    assert_eq!(c.progress(N1, N2).matched, Index(2));
    assert_eq!(c.commit(N1), 2);
    assert!(c.acknowledged(a) && !c.acknowledged(b));
    c.deliver_all();
    assert!(c.acknowledged(b));
}

#[test]
pub(crate) fn seed_isserge_s3_an_up_to_date_follower_refuses_nothing() {
    // isSerge: the term before the sent entries was off by one, so each heartbeat was refused.
    let mut c = led(Options::new(3));
    for i in 0..5 {
        c.propose(N1, &format!("{i}"));
        settle(&mut c);
    }
    for id in [N2, N3] {
        assert_eq!(refusals(&c, id), 0);
        assert_eq!(c.progress(N1, id).phase, Phase::Replicate);
    }
}

#[test]
pub(crate) fn seed_isserge_s4_a_request_of_the_same_term_unseats_nobody() {
    // isSerge: a same-term RequestVote deposed leaders and candidates; its own simulation lost all
    // commands that way.
    let last = LogId {
        term: Term(0),
        index: Index(0),
    };
    let mut c = leading(3);
    c.inject(says(
        N3,
        N1,
        1,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Leader, 1));
    let mut c = alone(3);
    c.campaign(N1);
    c.inject(says(
        N3,
        N1,
        1,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.role(N1), c.vote(N1)), (RoleKind::Candidate, Some(N1)));
}

#[test]
pub(crate) fn seed_isserge_s5_a_cluster_of_one_elects_and_commits() {
    // isSerge: the default configuration never elected.
    let mut c = led(Options::new(1));
    let x = c.propose(N1, "x");
    assert!(c.acknowledged(x));
}

#[test]
pub(crate) fn seed_isserge_s6_logs_of_mixed_terms_are_not_sent_again_from_the_start() {
    // isSerge: with the wrong previous term, mixed logs fell back to index 1 at every heartbeat.
    let mut c = Cluster::build(
        Options::new(3)
            .log(N1, Chain::of_terms(&[1, 1, 2, 3, 3, 5]))
            .log(N2, Chain::of_terms(&[1, 1, 2, 3, 3, 5]))
            .log(N3, Chain::of_terms(&[1, 1, 2, 3])),
    );
    c.elect(N1);
    settle(&mut c);
    let resent = |c: &Cluster, id| {
        c.sent(any().from(N1).to(id).kind(Kind::Append))
            .into_iter()
            .map(|e| {
                let Message::Append { batches, .. } = &e.message else {
                    return None;
                };
                batches.iter().map(|b| b.header.first.0).min()
            })
            .filter(|first| first.is_some_and(|first| first < 5))
            .count()
    };
    assert_eq!(resent(&c, N2), 0);
    assert_eq!(resent(&c, N3), 0);
    assert!(refusals(&c, N3) <= 1);
    settle(&mut c);
    assert_eq!(c.issued(N3).last(), c.issued(N1).last());
}

// Roles.

#[test]
pub(crate) fn seed_isserge_u01_a_candidate_votes_for_itself_in_the_next_term() {
    let mut c = alone(3);
    c.campaign(N1);
    assert_eq!(
        (c.role(N1), c.term(N1), c.vote(N1)),
        (RoleKind::Candidate, 1, Some(N1))
    );
    c.campaign(N1);
    assert_eq!((c.term(N1), c.vote(N1)), (2, Some(N1)));
}

#[test]
pub(crate) fn seed_isserge_u02_a_leader_never_becomes_a_candidate() {
    let mut c = leading(3);
    c.tick(N1, 10 * c.options().config.election_ticks);
    assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Leader, 1));
}

#[test]
pub(crate) fn seed_isserge_u03_a_later_term_clears_the_vote_and_the_same_term_keeps_it() {
    let mut c = alone(3);
    let last = LogId::default();
    c.inject(says(
        N2,
        N1,
        3,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.term(N1), c.vote(N1)), (3, Some(N2)));
    c.inject(says(N2, N1, 3, Chain::empty().append(0, 0, 0)));
    assert_eq!((c.term(N1), c.vote(N1)), (3, Some(N2)));
    c.inject(says(N3, N1, 4, Chain::empty().append(0, 0, 0)));
    assert_eq!((c.term(N1), c.vote(N1)), (4, None));
}

#[test]
pub(crate) fn seed_isserge_u04_a_new_leader_knows_nothing_of_its_peers_and_asks_after_its_end() {
    let mut c = alone(3);
    c.inject(says(N2, N1, 1, Chain::of_terms(&[1, 1]).append(0, 2, 0)));
    c.campaign(N1);
    c.inject(says(N2, N1, 2, GRANT));
    assert_eq!(c.role(N1), RoleKind::Leader);
    for id in [N2, N3] {
        let progress = c.progress(N1, id);
        assert_eq!(progress.matched, Index(0));
        assert_eq!(progress.phase, Phase::Probe);
        assert_eq!(
            progress.next,
            Index(3),
            "asks whether the log before its no-op is there"
        );
    }
}

#[test]
pub(crate) fn seed_isserge_u05_a_follower_does_not_become_leader_by_grants() {
    let mut c = alone(3);
    c.inject(says(N2, N1, 0, GRANT));
    c.inject(says(N3, N1, 0, GRANT));
    assert_eq!(c.role(N1), RoleKind::Follower);
}

// Votes.

#[test]
pub(crate) fn seed_isserge_u06_vote_requests_by_term_and_by_vote() {
    // (term of the request, who asks) one after another at one node in term 2, and the answers.
    let mut c = Cluster::build(Options::new(4).plain().puppets(&[N2, N3, N4]).term(N1, 2));
    let last = LogId::default();
    let table = [
        (1, N2, false, 2),
        (2, N2, true, 2),
        (2, N2, true, 2),
        (2, N3, false, 2),
        (1, N3, false, 2),
        (3, N3, true, 3),
        (3, N2, false, 3),
        (3, N3, true, 3),
    ];
    for (term, from, granted, now) in table {
        c.inject(says(
            from,
            N1,
            term,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        c.deliver_all();
        let mail = c.take_mail();
        assert_eq!(mail.len(), 1, "term {term} from {from}");
        assert_eq!(mail[0].message, Message::VoteReply { granted });
        assert_eq!((mail[0].to, mail[0].term), (from, Term(now)));
    }
}

#[test]
pub(crate) fn seed_isserge_u07_vote_answers_by_role_and_term() {
    // Refused, of an old term, of a later term, to a node that is no candidate.
    let mut c = alone(5);
    c.campaign(N1);
    c.campaign(N1);
    c.inject(says(N2, N1, 2, REFUSAL));
    assert_eq!(c.role(N1), RoleKind::Candidate);
    c.inject(says(N3, N1, 1, GRANT));
    assert_eq!(c.role(N1), RoleKind::Candidate);
    c.inject(says(N4, N1, 2, GRANT));
    c.inject(says(N5, N1, 2, GRANT));
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.inject(says(N3, N1, 2, GRANT));
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.inject(says(N3, N1, 7, REFUSAL));
    assert_eq!(
        (c.role(N1), c.term(N1), c.vote(N1)),
        (RoleKind::Follower, 7, None)
    );
    c.inject(says(N3, N1, 7, GRANT));
    assert_eq!(c.role(N1), RoleKind::Follower);
}

#[test]
pub(crate) fn seed_isserge_u08_a_win_is_announced_to_everybody_in_the_same_step() {
    let mut c = alone(3);
    c.campaign(N1);
    c.lose(any());
    c.inject(says(N2, N1, 1, GRANT));
    for id in [N2, N3] {
        let announced = c.net.waiting(any().to(id));
        assert!(announced.iter().any(|e| Kind::of(&e.message).is_leaders()));
    }
}

#[test]
pub(crate) fn seed_isserge_u09_requests_go_to_all_peers_and_only_from_a_candidate() {
    let mut c = alone(5);
    c.campaign(N1);
    let asked: Vec<_> = c
        .sent(any().kind(Kind::Vote))
        .iter()
        .map(|e| e.to)
        .collect();
    assert_eq!(asked, [N2, N3, N4, N5]);
    let mut c = leading(5);
    let asked = c.sent(any().kind(Kind::Vote)).len();
    c.tick(N1, 10);
    assert_eq!(c.sent(any().kind(Kind::Vote)).len(), asked);
}

// Log.

#[test]
pub(crate) fn seed_isserge_u10_what_an_append_does_to_a_log() {
    // (own log, sent after, what is sent, own log then, matched or refused)
    type Case = (
        &'static [u64],
        u64,
        &'static [u64],
        &'static [u64],
        Option<u64>,
    );
    let table: [Case; 9] = [
        (&[], 0, &[1, 1], &[1, 1], Some(2)),
        (&[1, 1], 0, &[1, 1], &[1, 1], Some(2)),
        (&[1, 1], 2, &[1, 1, 1, 1], &[1, 1, 1, 1], Some(4)),
        (&[1, 1, 1], 1, &[1, 2], &[1, 2], Some(2)),
        (&[1, 1, 1], 1, &[1, 2, 2, 2], &[1, 2, 2, 2], Some(4)),
        (&[1, 1, 1], 1, &[1, 1], &[1, 1, 1], Some(2)),
        (&[1, 1], 2, &[1, 1], &[1, 1], Some(2)),
        (&[1], 3, &[1, 1, 1, 1], &[1], None),
        (&[1, 1], 2, &[1, 2, 2], &[1, 1], None),
    ];
    for (own, after, sent, then, matched) in table {
        let log = Chain::of_terms(own);
        let options = Options::new(3).plain().puppets(&[N2, N3]).log(N1, log);
        let mut c = Cluster::build(options);
        let sent = Chain::of_terms(sent);
        let last = sent.batches.len() as u64;
        c.inject(says(N2, N1, 3, sent.append(after, last, 0)));
        c.deliver_all();
        assert_eq!(c.log_terms(N1), then, "{own:?} gets {sent:?} after {after}");
        assert_eq!(c.durable(N1).last(), c.issued(N1).last());
        let mail = c.take_mail();
        assert_eq!(mail.len(), 1);
        assert_eq!(crate::common::acceptance(&mail[0]), matched);
    }
}

#[test]
pub(crate) fn seed_isserge_u11_appends_by_term() {
    // Of an older term refused, of the same and of a later term taken; the leader is learned.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]).term(N1, 2));
    let log = Chain::of_terms(&[1, 1, 1]);
    c.inject(says(N2, N1, 1, log.append(0, 1, 0)));
    assert_eq!((c.log_terms(N1), c.leader_hint(N1)), (vec![], None));
    c.inject(says(N3, N1, 2, log.append(0, 2, 0)));
    assert_eq!((c.log_terms(N1), c.leader_hint(N1)), (vec![1, 1], Some(N3)));
    c.inject(says(N2, N1, 5, log.append(2, 3, 0)));
    assert_eq!((c.log_terms(N1).len(), c.leader_hint(N1)), (3, Some(N2)));
    assert_eq!(c.term(N1), 5);
}

#[test]
pub(crate) fn seed_isserge_u12_a_follower_commits_no_further_than_the_message_proved() {
    // isSerge used the log's length, or nothing. (commit said, prev, sent up to, own log, commit then)
    type Case = (u64, u64, u64, &'static [u64], u64);
    let table: [Case; 6] = [
        (0, 0, 2, &[], 0),
        (1, 0, 2, &[], 1),
        (2, 0, 2, &[], 2),
        (9, 0, 2, &[], 2),
        (9, 1, 1, &[1, 1, 1], 1),
        (2, 3, 3, &[1, 1, 1], 2),
    ];
    for (commit, prev, last, own, then) in table {
        let options = Options::new(3).plain().puppets(&[N2, N3]);
        let mut c = Cluster::build(options.log(N1, Chain::of_terms(own)));
        let log = Chain::of_terms(&[1, 1, 1]);
        c.inject(says(N2, N1, 1, log.append(prev, last, commit)));
        assert_eq!(
            c.commit(N1),
            then,
            "commit {commit} with {prev}..{last} over {own:?}"
        );
    }
}

// Commit.

#[test]
pub(crate) fn seed_isserge_u13_commit_needs_a_majority_for_every_size() {
    for voters in 1..=5 {
        let mut c = leading(voters);
        c.propose(N1, "x");
        let needed = usize::try_from(voters / 2).expect("small");
        for (answers, id) in [N2, N3, N4, N5].into_iter().take(needed).enumerate() {
            assert_eq!(c.commit(N1), 0, "{answers} answers of {voters}");
            c.inject(says(id, N1, 1, accept(2)));
        }
        assert_eq!(c.commit(N1), 2, "{voters} voters");
    }
}

#[test]
pub(crate) fn seed_isserge_u14_commit_advances_to_the_majoritys_index_with_three() {
    // One of the two tests isSerge left unimplemented.
    let mut c = leading(3);
    for i in 0..3 {
        c.propose(N1, &format!("{i}"));
    }
    c.inject(says(N2, N1, 1, accept(3)));
    assert_eq!(c.commit(N1), 3);
    c.inject(says(N3, N1, 1, accept(2)));
    assert_eq!(c.commit(N1), 3);
    c.inject(says(N3, N1, 1, accept(4)));
    assert_eq!(c.commit(N1), 4);
    assert_eq!(c.applied(N1), 4);
}

#[test]
pub(crate) fn seed_isserge_u15_earlier_terms_commit_only_through_the_present_one() {
    // isSerge's test named so used one term throughout and tested nothing.
    let mut c = alone(3);
    c.inject(says(N2, N1, 1, Chain::of_terms(&[1, 1]).append(0, 2, 0)));
    c.campaign(N1);
    c.inject(says(N2, N1, 2, GRANT));
    c.inject(says(N2, N1, 2, accept(2)));
    assert_eq!(c.commit(N1), 0, "a majority holds two entries of term 1");
    c.inject(says(N2, N1, 2, accept(3)));
    assert_eq!(c.commit(N1), 3);
}

// Answers to appends.

#[test]
pub(crate) fn seed_isserge_u16_answers_to_appends_by_role_term_and_age() {
    let mut c = leading(3);
    for i in 0..4 {
        c.propose(N1, &format!("{i}"));
    }
    c.inject(says(N2, N1, 1, accept(4)));
    assert_eq!(c.progress(N1, N2).matched, Index(4));
    // Older than what is known.
    c.inject(says(N2, N1, 1, accept(2)));
    assert_eq!(c.progress(N1, N2).matched, Index(4));
    // Of an older term, and nobody's: no peer of the cluster.
    c.deliver_one(says(N3, N1, 0, accept(5)));
    assert_eq!(c.progress(N1, N3).matched, Index(0));
    c.deliver_one(says(duraft_core::NodeId(99), N1, 1, accept(5)));
    assert_eq!(c.commit(N1), 4);
    // To a node that does not lead.
    c.inject(says(N3, N1, 6, REFUSAL));
    c.inject(says(N2, N1, 6, accept(5)));
    assert_eq!((c.role(N1), c.commit(N1)), (RoleKind::Follower, 4));
}

#[test]
pub(crate) fn seed_isserge_u17_a_refusal_moves_the_question_back_and_never_before_the_start() {
    // The other test isSerge left unimplemented. Repeated refusals, later ones and ones from beyond.
    let mut c = alone(3);
    c.inject(says(
        N2,
        N1,
        1,
        Chain::of_terms(&[1, 1, 1, 1]).append(0, 4, 0),
    ));
    c.campaign(N1);
    c.inject(says(N2, N1, 2, GRANT));
    let asked = c.progress(N1, N3).next;
    let refuse = |prev: u64, hint: u64| {
        let prev = LogId {
            term: Term(u64::from(prev > 0)),
            index: Index(prev),
        };
        let hint = LogId {
            term: Term(u64::from(hint > 0)),
            index: Index(hint),
        };
        Message::AppendReply(AppendReply::Rejected { prev, hint })
    };
    c.inject(says(N3, N1, 2, refuse(asked.0 - 1, 1)));
    assert_eq!(c.progress(N1, N3).next, Index(2));
    for _ in 0..5 {
        c.inject(says(N3, N1, 2, refuse(asked.0 - 1, 1)));
        assert_eq!(
            c.progress(N1, N3).next,
            Index(2),
            "a repeated refusal says nothing new"
        );
    }
    // A late answer to the first question, more pessimistic, does not answer the present one.
    c.inject(says(N3, N1, 2, refuse(asked.0 - 1, 0)));
    assert_eq!(c.progress(N1, N3).next, Index(2));
    for _ in 0..5 {
        c.inject(says(N3, N1, 2, refuse(1, 0)));
        c.inject(says(N3, N1, 2, refuse(0, 0)));
    }
    assert_eq!(c.progress(N1, N3).next, Index(1));
    c.inject(says(N3, N1, 2, accept(5)));
    assert_eq!(c.progress(N1, N3).matched, Index(5));
}

// Timers.

#[test]
pub(crate) fn seed_isserge_u18_timeouts_are_drawn_between_the_bounds_for_every_node_and_seed() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let mut c = Cluster::build(Options::new(3).plain().seed(seed));
        let least = c.options().config.election_ticks;
        for id in [N1, N2, N3] {
            let mut ticks = 0;
            while c.role(id) == RoleKind::Follower {
                c.tick(id, 1);
                ticks += 1;
            }
            assert!((least..2 * least).contains(&ticks), "{ticks} ticks");
            seen.insert(ticks);
        }
    }
    assert!(seen.len() > 5, "timeouts differ: {seen:?}");
}

#[test]
pub(crate) fn seed_isserge_u19_a_grant_and_a_valid_append_reset_the_timer() {
    let mut c = alone(3);
    let least = c.options().config.election_ticks;
    let last = LogId::default();
    for term in 1..=4 {
        c.tick(N1, least - 1);
        c.inject(says(
            N2,
            N1,
            term,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        assert_eq!(c.role(N1), RoleKind::Follower);
    }
    for _ in 0..4 {
        c.tick(N1, least - 1);
        c.inject(says(N2, N1, 4, Chain::empty().append(0, 0, 0)));
        assert_eq!(c.role(N1), RoleKind::Follower);
    }
    for round in 0..4 {
        c.tick(N1, least - 1);
        c.inject(says(
            N2,
            N1,
            4,
            Message::Heartbeat {
                commit: Index(0),
                round,
            },
        ));
        assert_eq!(c.role(N1), RoleKind::Follower);
    }
}

#[test]
pub(crate) fn seed_isserge_u20_heartbeats_come_at_their_interval_and_only_from_a_leader() {
    let mut c = leading(3);
    c.lose(any());
    let every = c.options().config.heartbeat_ticks;
    let beats = |c: &Cluster| c.sent(any().to(N2).kind(Kind::Heartbeat)).len();
    let before = beats(&c);
    c.tick(N1, 10 * every);
    assert_eq!(beats(&c), before + 10);
    c.inject(says(N2, N1, 9, REFUSAL));
    c.tick(N1, 2 * every);
    assert_eq!(beats(&c), before + 10);
}

// Commands.

#[test]
pub(crate) fn seed_isserge_u21_a_leader_appends_and_sends_a_command_at_once() {
    // isSerge replicated on heartbeats only.
    let mut c = led(Options::new(3));
    let before = appends(&c, N1, N2);
    c.propose(N1, "x");
    assert_eq!(appends(&c, N1, N2), before + 1);
    c.deliver_all();
    assert!(acceptances(&c, N2).contains(&2));
}

#[test]
pub(crate) fn seed_isserge_a05_commands_never_vanish() {
    // isSerge answered Ok to commands it dropped. Submitted equals resolved.
    let mut c = led(Options::new(3));
    let mut all = Vec::new();
    for i in 0..30 {
        for id in [N1, N2, N3] {
            if c.alive(id) {
                all.push(c.propose(id, &format!("{i}")));
            }
        }
        if i == 10 {
            c.crash(N1);
            c.lose(any());
            c.lose_patience(N3);
            c.elect(N2);
        }
        settle(&mut c);
    }
    c.restart(N1);
    c.converge();
    for id in all {
        let certain = matches!(
            c.outcome(id),
            Some(Outcome::Applied(_) | Outcome::Rejected(..) | Outcome::Unknown)
        );
        assert!(certain, "{:?}", c.outcome(id));
    }
}

#[test]
pub(crate) fn seed_isserge_a07_a_dead_peer_stops_nobody() {
    // isSerge: one failed send ended the leader's task.
    let mut c = led(Options::new(3));
    c.crash(N3);
    for i in 0..100 {
        c.propose(N1, &format!("{i}"));
        c.deliver_all();
    }
    assert_eq!(c.commands(N1).len(), 100);
    assert!(appends(&c, N1, N3) <= 1 + c.options().config.inflight_messages_max);
    assert!(grants(c.sent(any().kind(Kind::VoteReply))).len() >= 2);
    c.restart(N3);
    settle(&mut c);
    settle(&mut c);
    assert_eq!(c.commands(N3).len(), 100);
}
