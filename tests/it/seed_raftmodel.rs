//! What raftmodel got wrong (m1-m10), its own scenarios (RM-T) and its acceptance list.

use crate::common::{appends, grants, is_refusal, led, settle};
use crate::noise;
use duraft_core::{AppendReply, Index, LogId, Message, NodeId, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, N6, N7, Options, any};

const GRANT: Message = Message::VoteReply { granted: true };

/// The paper's figure 6: the leader's log and four followers', entry terms.
const FIGURE_6: [&[u64]; 5] = [
    &[1, 1, 1, 2, 3, 3, 3, 3],
    &[1, 1, 1, 2, 3],
    &[1, 1, 1, 2, 3, 3, 3, 3],
    &[1, 1],
    &[1, 1, 1, 2, 3, 3, 3],
];

/// The paper's figure 7: leader, then followers a to f.
const FIGURE_7: [&[u64]; 7] = [
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6],
    &[1, 1, 1, 4],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    &[1, 1, 1, 4, 4, 4, 4],
    &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
];

const SEVEN: [NodeId; 7] = [N1, N2, N3, N4, N5, N6, N7];

fn figure(logs: &[&[u64]], term: u64) -> Options {
    let mut options = Options::new(logs.len() as u64).plain();
    for (id, terms) in SEVEN.into_iter().zip(logs) {
        options = options.log(id, Chain::of_terms(terms)).term(id, term);
    }
    options
}

fn alone(voters: u64) -> Cluster {
    let options = Options::new(voters).plain();
    let peers = options.voters[1..].to_vec();
    Cluster::build(options.puppets(&peers))
}

#[test]
pub(crate) fn seed_raftmodel_m1_half_of_four_does_not_elect() {
    // raftmodel: (followers + 2) / 2, so two of four elected.
    let mut c = alone(4);
    c.campaign(N1);
    c.inject(says(N2, N1, 1, GRANT));
    assert_eq!(c.role(N1), RoleKind::Candidate);
}

#[test]
pub(crate) fn seed_raftmodel_m1b_a_refusal_does_not_elect() {
    // raftmodel: with two servers a rejection elected, because any answer ran the count.
    let mut c = alone(2);
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: false }));
    assert_ne!(c.role(N1), RoleKind::Leader);
    c.campaign(N1);
    c.inject(says(N2, N1, 2, GRANT));
    assert_eq!(c.role(N1), RoleKind::Leader);
}

#[test]
pub(crate) fn seed_raftmodel_m2_a_refused_append_commits_nothing() {
    // raftmodel: an empty follower took commit 9 from an append it refused.
    let mut c = alone(3);
    let log = Chain::of_terms(&[1; 9]);
    c.inject(says(N2, N1, 1, log.append(8, 9, 9)));
    c.deliver_all();
    assert!(is_refusal(&c.take_mail()[0]));
    assert_eq!((c.commit(N1), c.applied(N1)), (0, 0));
    // Nor from a heartbeat beyond what is shared.
    c.inject(says(
        N2,
        N1,
        1,
        Message::Heartbeat {
            commit: Index(9),
            round: 1,
        },
    ));
    assert_eq!(c.commit(N1), 0);
}

#[test]
pub(crate) fn seed_raftmodel_m3_repeated_refusals_are_harmless() {
    // raftmodel: the next index underflowed on duplicate rejections.
    let mut c = alone(3);
    c.campaign(N1);
    c.inject(says(N2, N1, 1, GRANT));
    let zero = LogId::default();
    let refusal = AppendReply::Rejected {
        prev: zero,
        hint: zero,
    };
    for _ in 0..10 {
        c.inject(says(N3, N1, 1, Message::AppendReply(refusal)));
    }
    assert_eq!(c.role(N1), RoleKind::Leader);
    assert!(c.progress(N1, N3).next >= Index(1));
}

#[test]
pub(crate) fn seed_raftmodel_m4_an_append_answer_to_a_follower_is_ignored() {
    // raftmodel: unwrap on None when an answer reached a node that does not lead.
    let mut c = alone(3);
    let reply = Message::AppendReply(AppendReply::Accepted { matched: Index(3) });
    c.inject(says(N2, N1, 0, reply));
    assert_eq!((c.role(N1), c.commit(N1)), (RoleKind::Follower, 0));
}

#[test]
pub(crate) fn seed_raftmodel_m4b_a_vote_answer_to_a_follower_is_ignored() {
    let mut c = alone(3);
    c.inject(says(N2, N1, 0, GRANT));
    assert_eq!(c.role(N1), RoleKind::Follower);
    c.campaign(N1);
    c.crash(N1);
    c.restart(N1);
    c.inject(says(N2, N1, 1, GRANT));
    c.inject(says(N3, N1, 1, GRANT));
    assert_eq!(c.role(N1), RoleKind::Follower, "asked for by another life");
}

#[test]
pub(crate) fn seed_raftmodel_m5_nobody_leads_without_a_quorum_of_votes() {
    // raftmodel: a public message made a leader of anybody.
    let mut c = alone(5);
    c.campaign(N1);
    for (id, term) in [(N2, 0), (N3, 0), (N2, 1), (N2, 1)] {
        c.inject(says(id, N1, term, GRANT));
        assert_eq!(c.role(N1), RoleKind::Candidate);
    }
    // Strangers do not vote.
    for stranger in [0, 77, u64::MAX] {
        c.deliver_one(says(NodeId(stranger), N1, 1, GRANT));
    }
    assert_eq!(c.role(N1), RoleKind::Candidate);
}

#[test]
pub(crate) fn seed_raftmodel_m6_a_candidate_steps_down_and_answers_in_one_step() {
    // raftmodel: the candidate swallowed the append of its own term.
    let mut c = alone(3);
    c.campaign(N1);
    let log = Chain::of_terms(&[1]);
    c.inject(says(N2, N1, 1, log.append(0, 1, 0)));
    assert_eq!(
        (c.role(N1), c.leader_hint(N1)),
        (RoleKind::Follower, Some(N2))
    );
    c.deliver_all();
    let mail = c.take_mail();
    assert_eq!(
        mail.iter().filter_map(crate::common::acceptance).max(),
        Some(1)
    );
}

#[test]
pub(crate) fn seed_raftmodel_m7_a_win_sends_appends_in_the_same_step() {
    // raftmodel: the appends were built and thrown away, and late votes reset what was learned.
    let mut c = alone(5);
    c.campaign(N1);
    c.inject(says(N2, N1, 1, GRANT));
    assert!(c.sent(any().kind(Kind::Append)).is_empty());
    c.inject(says(N3, N1, 1, GRANT));
    assert_eq!(c.role(N1), RoleKind::Leader);
    for id in [N2, N3, N4, N5] {
        assert_eq!(appends(&c, N1, id), 1);
    }
    let reply = Message::AppendReply(AppendReply::Accepted { matched: Index(1) });
    c.inject(says(N2, N1, 1, reply));
    let writes = c.writes(N1).len();
    c.inject(says(N4, N1, 1, GRANT));
    c.inject(says(N5, N1, 1, GRANT));
    assert_eq!(c.progress(N1, N2).matched, Index(1));
    assert_eq!(c.writes(N1).len(), writes, "late votes change nothing");
}

#[test]
pub(crate) fn seed_raftmodel_m8_a_vote_survives_a_restart() {
    // raftmodel: term and vote could not even be read, so a restarted server voted twice.
    let mut c = alone(3);
    let last = LogId::default();
    c.inject(says(
        N2,
        N1,
        5,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    c.deliver_all();
    assert_eq!(grants(&c.take_mail()), [N1]);
    c.crash(N1);
    c.restart(N1);
    c.inject(says(
        N3,
        N1,
        5,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    c.deliver_all();
    assert!(grants(&c.take_mail()).is_empty());
    assert_eq!((c.term(N1), c.vote(N1)), (5, Some(N2)));
}

#[test]
pub(crate) fn seed_raftmodel_m9_any_numbers_name_nodes() {
    // raftmodel: ids had to be 1..n without a gap, 0 was reserved.
    let ids = [NodeId(0), NodeId(500), NodeId(u64::MAX)];
    let mut c = Cluster::build(Options::new(3).voters(&ids));
    c.elect(NodeId(u64::MAX));
    let x = c.propose(NodeId(u64::MAX), "x");
    settle(&mut c);
    assert!(c.acknowledged(x));
    assert_eq!(c.commands(NodeId(0)), ["x"]);
    c.converge();
}

#[test]
pub(crate) fn seed_raftmodel_m10_a_single_server_elects_and_commits() {
    // raftmodel: its own match index stayed 0, so a single server never committed.
    let mut c = Cluster::new(1);
    c.elect(N1);
    let x = c.propose(N1, "x");
    assert!(c.acknowledged(x));
}

#[test]
pub(crate) fn seed_raftmodel_t1_five_servers_elect_append_and_agree() {
    // RM-T1, the quick start.
    let mut c = led(Options::new(5));
    c.propose(N1, "value");
    settle(&mut c);
    for id in c.ids() {
        assert_eq!(c.log(id), ["1@1 noop", "2@1 \"value\""]);
        assert_eq!(c.commands(id), ["value"]);
    }
}

#[test]
pub(crate) fn seed_raftmodel_t2_seven_rules_of_appending() {
    // RM-T2: first entry; a hole; at the end; the same entry keeps the tail; another term drops the
    // tail; nothing sent with a match; nothing sent without one. Memory and disk agree.
    type Case = (&'static [u64], u64, &'static [u64], &'static [u64], bool);
    let table: [Case; 7] = [
        (&[], 0, &[1], &[1], true),
        (&[], 2, &[1, 1, 1], &[], false),
        (&[1, 1], 2, &[1, 1, 1], &[1, 1, 1], true),
        (&[1, 1, 1], 1, &[1, 1], &[1, 1, 1], true),
        (&[1, 1, 1], 1, &[1, 3], &[1, 3], true),
        (&[1, 1], 2, &[1, 1], &[1, 1], true),
        (&[1, 1], 2, &[1, 3], &[1, 1], false),
    ];
    for (own, after, sent, then, accepted) in table {
        let options = Options::new(3).plain().puppets(&[N2, N3]);
        let mut c = Cluster::build(options.log(N1, Chain::of_terms(own)));
        let sent = Chain::of_terms(sent);
        let last = (sent.batches.len() as u64).max(after);
        c.inject(says(N2, N1, 3, sent.append(after, last, 0)));
        c.deliver_all();
        assert_eq!(c.log_terms(N1), then);
        assert_eq!(c.durable(N1).last(), c.issued(N1).last());
        assert_eq!(is_refusal(&c.take_mail()[0]), !accepted);
        c.crash(N1);
        c.restart(N1);
        assert_eq!(c.log_terms(N1), then, "after reopening");
    }
}

#[test]
pub(crate) fn seed_raftmodel_t3_figure_7_which_followers_take_the_entry_at_once() {
    // RM-T3: an entry of term 8 after 10: a, b, e, f refuse, c and d take it and equal the leader.
    let leader = Chain::of_terms(FIGURE_7[0]).and(8, "new");
    for (name, terms) in "abcdef".chars().zip(&FIGURE_7[1..]) {
        let options = Options::new(3).plain().puppets(&[N2, N3]).term(N1, 7);
        let mut c = Cluster::build(options.log(N1, Chain::of_terms(terms)));
        let before = c.log_terms(N1);
        c.inject(says(N2, N1, 8, leader.append(10, 11, 0)));
        c.deliver_all();
        if matches!(name, 'c' | 'd') {
            assert_eq!(c.issued(N1).last(), leader.last(), "{name}");
        } else {
            assert!(is_refusal(&c.take_mail()[0]), "{name}");
            assert_eq!(c.log_terms(N1), before, "a refused append changes no log");
        }
    }
}

#[test]
pub(crate) fn seed_raftmodel_t4_a_leaders_log_reaches_empty_followers() {
    // RM-T4.
    let mut c = Cluster::build(Options::new(3).log(N1, Chain::empty().and(1, "x")));
    c.elect(N1);
    settle(&mut c);
    assert_eq!(c.commands(N2), ["x"]);
    assert_eq!(c.log(N2), c.log(N1));
}

#[test]
pub(crate) fn seed_raftmodel_t5_figure_6_logs_become_one() {
    // RM-T5. There the leader's commit was 8; here its own no-op follows and commits all eight.
    let mut c = Cluster::build(figure(&FIGURE_6, 3));
    c.elect(N1);
    settle(&mut c);
    for id in c.ids() {
        assert_eq!(c.issued(id).last(), c.issued(N1).last());
        assert_eq!(c.commit(id), 9);
    }
}

#[test]
pub(crate) fn seed_raftmodel_t6_figure_7_six_divergent_logs_are_repaired_together() {
    // RM-T6: leader and followers a to f; a value proposed in term 8.
    let mut c = Cluster::build(figure(&FIGURE_7, 7));
    c.elect(N1);
    assert_eq!(c.term(N1), 8);
    c.propose(N1, "value");
    settle(&mut c);
    for id in SEVEN {
        assert_eq!(c.issued(id).batches, c.issued(N1).batches, "byte for byte");
        assert_eq!(c.durable(id).batches, c.issued(N1).batches);
        assert_eq!(c.commit(id), 12, "ten old entries, the no-op, the value");
    }
}

#[test]
pub(crate) fn seed_raftmodel_t7_followers_learn_of_a_commit_with_the_next_word_of_the_leader() {
    // RM-T7: after the first round the leader has committed, its followers have not heard of it.
    let mut options = Options::new(3).plain();
    for id in [N1, N2, N3] {
        options = options
            .log(id, Chain::of_terms(&[1, 1, 1, 2, 2]))
            .term(id, 2);
    }
    let mut c = led_from(options);
    c.propose(N1, "x");
    c.deliver(any().kind(Kind::Append));
    assert_eq!(c.commit(N1), 6);
    c.deliver(any().kind(Kind::AppendReply));
    assert_eq!(c.commit(N1), 7);
    assert_eq!((c.commit(N2), c.commit(N3)), (6, 6));
    settle(&mut c);
    assert_eq!((c.commit(N2), c.commit(N3)), (7, 7));
    assert_eq!((c.applied(N1), c.applied(N2)), (7, 7));
}

fn led_from(options: Options) -> Cluster {
    let mut c = Cluster::build(options);
    c.elect(N1);
    settle(&mut c);
    c
}

#[test]
pub(crate) fn seed_raftmodel_t8_figure_6_exact_sets_of_votes() {
    // RM-T8: n1 is granted by all, n2 by n4 alone, n5 by n2 and n4 (and each by itself).
    let table = [
        (N1, vec![N2, N3, N4, N5], true),
        (N2, vec![N4], false),
        (N5, vec![N2, N4], true),
    ];
    for (candidate, expected, wins) in table {
        let mut c = Cluster::build(figure(&FIGURE_6, 3));
        c.campaign(candidate);
        c.deliver_only(any().kind(Kind::Vote));
        assert_eq!(grants(c.net.waiting(any().kind(Kind::VoteReply))), expected);
        c.deliver_only(any().kind(Kind::VoteReply));
        assert_eq!(c.role(candidate) == RoleKind::Leader, wins, "n{candidate}");
    }
}

#[test]
pub(crate) fn seed_raftmodel_a07_a_refused_append_changes_nothing_but_the_term() {
    // Property over drawn logs and appends that do not match.
    for seed in 0..400 {
        let mut rng = duraft_tests::Rng::new(seed);
        let mut terms = vec![1];
        for _ in 0..rng.below(6) {
            let last = *terms.last().expect("not empty");
            terms.push(last + rng.below(3));
        }
        let own = Chain::of_terms(&terms);
        let options = Options::new(3).plain().puppets(&[N2, N3]);
        let mut c = Cluster::build(options.log(N1, own.clone()));
        // The leader's log is one term ahead everywhere.
        let theirs: Vec<u64> = terms.iter().map(|term| term + 20).collect();
        let theirs = Chain::of_terms(&[theirs, vec![60]].concat());
        let prev = rng.between(1, terms.len() as u64);
        let before = c.issued(N1).batches.clone();
        c.inject(says(N2, N1, 70, theirs.append(prev, prev + 1, prev)));
        c.deliver_all();
        assert!(is_refusal(&c.take_mail()[0]), "seed {seed}");
        assert_eq!(c.issued(N1).batches, before);
        assert_eq!((c.commit(N1), c.term(N1)), (0, 70));
    }
}

#[test]
pub(crate) fn seed_raftmodel_a08_a_million_arbitrary_inputs_cause_no_panic() {
    // Stale, repeated, forged; ids and terms at both ends of their range.
    for seed in 1_000..1_500 {
        noise::storm(seed, 2_000);
    }
}

#[test]
pub(crate) fn seed_raftmodel_a09_restart_keeps_term_and_vote_at_every_point() {
    // Crash a voter before and after its write is durable, with every candidate pair.
    for completed in [false, true] {
        let mut c = alone(3);
        let last = LogId::default();
        c.hold_disk(N1);
        c.inject(says(
            N2,
            N1,
            1,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        if completed {
            c.complete_all(N1);
        }
        c.deliver_all();
        assert_eq!(grants(&c.take_mail()).len(), usize::from(completed));
        c.crash(N1);
        c.restart(N1);
        c.free_disk(N1);
        c.inject(says(
            N3,
            N1,
            1,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        c.deliver_all();
        assert_eq!(grants(&c.take_mail()).len(), usize::from(!completed));
    }
}

#[test]
pub(crate) fn seed_raftmodel_a11_a_single_server_acknowledges_after_its_own_disk() {
    let mut c = Cluster::new(1);
    c.elect(N1);
    c.hold_disk(N1);
    let x = c.propose(N1, "x");
    c.tick(N1, 100);
    assert!(!c.acknowledged(x));
    c.complete(N1, 1);
    assert!(c.acknowledged(x));
    assert_eq!(c.durable(N1).last().term(), Term(1));
}
