//! What little_raft got wrong (l1-l5, l7), its stable cluster test and its acceptance list, as far as
//! they need no snapshot transfer. Where a log that begins after a compacted prefix is enough, the
//! node starts with one.

use crate::common::{led, settle, usurp};
use duraft_core::{Index, LogId, Message, Reject, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, Options, Outcome, any};

/// A log of eight entries of which the first five are compacted away.
fn compacted() -> Chain {
    Chain::of_terms(&[1, 1, 1, 2, 2, 2, 3, 3]).compacted_to(5)
}

#[test]
pub(crate) fn seed_little_raft_l1_a_node_starts_from_a_compacted_log() {
    // little_raft: commit and applied began at 0 behind the log's offset, and subtraction panicked.
    let log = compacted();
    let start = log.start;
    let mut options = Options::new(3).start(start);
    for id in [N1, N2, N3] {
        options = options.log(id, log.clone());
    }
    let mut c = Cluster::build(options);
    for id in [N1, N2, N3] {
        assert_eq!(
            (c.commit(id), c.applied(id)),
            (5, 5),
            "what is compacted was applied"
        );
    }
    c.elect(N1);
    settle(&mut c);
    for id in [N1, N2, N3] {
        assert_eq!(c.applied(id), 9);
    }
    // Snapshot only: nothing after the compacted prefix.
    let empty = Chain {
        start,
        batches: Vec::new(),
    };
    let mut c = Cluster::build(Options::new(1).start(start).log(N1, empty));
    c.elect(N1);
    assert_eq!(c.applied(N1), 6);
}

#[test]
pub(crate) fn seed_little_raft_l2_two_of_four_do_not_elect() {
    // little_raft: votes * 2 > peers, not counting itself.
    let mut c = Cluster::build(Options::new(4).plain().puppets(&[N2, N3, N4]));
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
    assert_eq!(c.role(N1), RoleKind::Candidate);
    c.inject(says(N3, N1, 1, Message::VoteReply { granted: true }));
    assert_eq!(c.role(N1), RoleKind::Leader);
}

#[test]
pub(crate) fn seed_little_raft_l2b_a_grant_of_an_old_term_elects_nobody() {
    // little_raft: led term 9 on a grant of term 1.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]).term(N1, 8));
    c.campaign(N1);
    assert_eq!(c.term(N1), 9);
    for term in [1, 8] {
        c.inject(says(N2, N1, term, Message::VoteReply { granted: true }));
    }
    assert_eq!(c.role(N1), RoleKind::Candidate);
}

#[test]
pub(crate) fn seed_little_raft_l3_a_follower_adopts_the_leaders_term_and_refuses_older_ones() {
    // little_raft: after acknowledging a leader of term 5 it let a leader of term 1 overwrite.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    let new = Chain::empty().and(5, "new");
    c.inject(says(N2, N1, 5, new.append(0, 1, 0)));
    assert_eq!(c.term(N1), 5);
    c.deliver_all();
    c.take_mail();
    let old = Chain::empty().and(1, "old");
    c.inject(says(N3, N1, 1, old.append(0, 1, 1)));
    c.deliver_all();
    assert_eq!(c.log(N1), ["1@5 \"new\""]);
    assert_eq!(c.commit(N1), 0);
    let mail = c.take_mail();
    assert!(mail.iter().all(|e| crate::common::acceptance(e).is_none()));
    assert!(
        mail.iter().any(|e| e.to == N3 && e.term == Term(5)),
        "n3 learns that it is deposed"
    );
}

#[test]
pub(crate) fn seed_little_raft_l4_conflict_after_compaction_is_truncated() {
    // little_raft: the conflict search ignored the log's offset; wrong entries were kept and applied.
    let log = compacted();
    let mut c = Cluster::build(
        Options::new(3)
            .start(log.start)
            .plain()
            .puppets(&[N2, N3])
            .log(N1, log.clone()),
    );
    let theirs = Chain {
        start: log.start,
        batches: log.between(5, 6),
    }
    .and(4, "55")
    .and(4, "66");
    c.inject(says(N2, N1, 4, theirs.append(6, 8, 8)));
    c.deliver_all();
    assert_eq!(c.log(N1), ["6@2 \"6@2\"", "7@4 \"55\"", "8@4 \"66\""]);
    assert_eq!(c.commands(N1), ["6@2", "55", "66"]);
    let mail = c.take_mail();
    assert_eq!(
        mail.iter().filter_map(crate::common::acceptance).max(),
        Some(8)
    );
}

#[test]
pub(crate) fn seed_little_raft_l5_an_append_from_before_the_compacted_prefix_does_no_harm() {
    // little_raft: a delayed append below the snapshot killed the replica's thread.
    let whole = Chain::of_terms(&[1, 1, 1, 2, 2, 2, 3, 3]);
    let log = compacted();
    for (prev, last) in [(0, 0), (0, 3), (2, 5), (3, 7), (4, 8), (5, 8)] {
        let mut c = Cluster::build(
            Options::new(3)
                .start(log.start)
                .plain()
                .puppets(&[N2, N3])
                .log(N1, log.clone()),
        );
        let before = c.log(N1);
        c.inject(says(N2, N1, 3, whole.append(prev, last, 8)));
        c.deliver_all();
        assert_eq!(c.log(N1), before, "append {prev}..{last}");
        assert_eq!(c.halted(N1), None);
        assert!(c.commit(N1) >= 5);
    }
}

#[test]
pub(crate) fn seed_little_raft_l7_some_node_can_always_be_elected() {
    // little_raft required both a later term and a longer log: among (t1, 10) and (t2, 5) nobody won.
    for voters in [2, 3] {
        let long = Chain::of_terms(&[1; 10]);
        let late = Chain::of_terms(&[1, 1, 1, 1, 2]);
        let mut c = Cluster::build(
            Options::new(voters)
                .log(N1, long)
                .log(N2, late.clone())
                .log(N3, late)
                .term(N1, 2),
        );
        c.converge();
        assert_eq!(c.log_terms(N1)[..5], [1, 1, 1, 1, 2]);
    }
}

#[test]
pub(crate) fn seed_little_raft_t01_four_operations_are_applied_in_order_everywhere() {
    // LR-T1 in ticks instead of seconds: +5, -51, -511, +3 with idle time between, compaction after
    // every entry.
    let mut c = Cluster::build(Options::new(3).snapshot_every(1));
    let mut noops = 0;
    for operation in ["+5", "-51", "-511", "+3"] {
        for _ in 0..60 {
            c.tick_all(1);
            c.deliver_all();
        }
        let [leader] = c.leaders()[..] else {
            panic!("a stable cluster has one leader");
        };
        if noops == 0 {
            noops = c.applied(leader);
        }
        c.propose(leader, operation);
    }
    settle(&mut c);
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), ["+5", "-51", "-511", "+3"]);
        assert_eq!(c.applied(id), 5, "one no-op, one leader for the whole run");
        assert_eq!(c.snapshot_index(id), Some(5));
    }
}

#[test]
pub(crate) fn seed_little_raft_a04_a_command_that_a_snapshot_has_passed_has_an_unknown_end() {
    // The deposed leader learns from the snapshot that something was committed in the place of its
    // command, or the command itself: it cannot tell which.
    let options = Options::new(3).configure(|config| config.trailing_bytes_max = 0);
    let mut c = led(options);
    c.isolate(N1);
    let open = c.propose(N1, "open");
    c.lose_patience(N3);
    c.elect(N2);
    for i in 0..3 {
        c.propose(N2, &format!("{i}"));
    }
    settle(&mut c);
    for _ in 0..8 * c.options().config.election_ticks {
        c.tick(N2, 1);
        c.deliver_all();
    }
    c.take_snapshot(N2);
    c.heal();
    c.converge();
    assert_eq!(c.outcome(open), Some(Outcome::Unknown));
    assert_eq!(c.commands(N1), ["0", "1", "2"]);
}

#[test]
pub(crate) fn seed_little_raft_a04_every_submitted_command_ends_in_exactly_one_way() {
    // Queued, then one of: applied, lost to another entry, refused, unknown because the node died.
    let mut c = led(Options::new(3));
    let applied = c.propose(N1, "applied");
    settle(&mut c);
    let lost = c.propose(N1, "lost");
    c.lose(any());
    usurp(&mut c, N2);
    settle(&mut c);
    c.propose(N2, "instead");
    settle(&mut c);
    let refused = c.propose(N3, "refused");
    let unknown = c.propose(N2, "unknown");
    c.crash(N2);
    assert!(matches!(c.outcome(applied), Some(Outcome::Applied(_))));
    assert!(matches!(c.outcome(lost), Some(Outcome::Overwritten(_))));
    assert_eq!(
        c.outcome(refused),
        Some(Outcome::Rejected(Reject::NotLeader, Some(N2)))
    );
    assert_eq!(c.outcome(unknown), Some(Outcome::Unknown));
    c.converge();
}

#[test]
pub(crate) fn seed_little_raft_a05_observers_hear_of_every_leader_and_of_none() {
    // The leader hook across election, partition and step-down; a redirect follows the hint.
    let mut c = led(Options::new(3));
    assert_eq!([N1, N2, N3].map(|id| c.leader_hint(id)), [Some(N1); 3]);
    c.isolate(N1);
    while c.role(N1) == RoleKind::Leader {
        c.tick(N1, 1);
    }
    assert_eq!((c.role(N1), c.leader_hint(N1)), (RoleKind::Follower, None));
    c.heal();
    usurp(&mut c, N2);
    settle(&mut c);
    assert_eq!([N1, N2, N3].map(|id| c.leader_hint(id)), [Some(N2); 3]);
    let x = c.propose(N1, "x");
    let Some(Outcome::Rejected(Reject::NotLeader, Some(leader))) = c.outcome(x) else {
        panic!("{:?}", c.outcome(x));
    };
    let x = c.propose(leader, "x");
    settle(&mut c);
    assert!(c.acknowledged(x));
}

#[test]
pub(crate) fn seed_little_raft_a06_a_node_that_does_not_lead_refuses_commands() {
    let mut c = led(Options::new(3));
    for id in [N2, N3] {
        let x = c.propose(id, "x");
        assert_eq!(
            c.outcome(x),
            Some(Outcome::Rejected(Reject::NotLeader, Some(N1)))
        );
    }
}

#[test]
pub(crate) fn seed_little_raft_a07_one_vote_per_term_survives_crashes() {
    // little_raft forgot its vote on restart, on becoming leader and on stepping down.
    let mut c = Cluster::build(Options::new(5).plain().puppets(&[N2, N3, N4, N5]));
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
    for other in [N3, N4, N5] {
        c.crash(N1);
        c.restart(N1);
        c.inject(says(
            other,
            N1,
            3,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        assert_eq!((c.term(N1), c.vote(N1)), (3, Some(N2)));
    }
    c.deliver_all();
    assert_eq!(crate::common::grants(&c.take_mail()).len(), 1);
    // A candidate that becomes leader, or steps down in its term, has voted for itself.
    c.campaign(N1);
    let log = Chain::empty();
    c.inject(says(N2, N1, 4, log.append(0, 0, 0)));
    assert_eq!(c.role(N1), RoleKind::Follower);
    c.inject(says(
        N3,
        N1,
        4,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.term(N1), c.vote(N1)), (4, Some(N1)));
}

#[test]
pub(crate) fn seed_little_raft_a09_a_leader_is_deposed_by_any_message_of_a_later_term() {
    // little_raft: only answers deposed a leader, not requests.
    let log = Chain::empty().and_noop(9);
    let messages = [
        Message::Vote {
            last: LogId {
                term: Term(8),
                index: Index(9),
            },
            forced: false,
        },
        log.append(0, 1, 0),
        Message::Heartbeat {
            commit: Index(0),
            round: 1,
        },
        Message::VoteReply { granted: false },
    ];
    for message in messages {
        let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
        c.campaign(N1);
        c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
        assert_eq!(c.role(N1), RoleKind::Leader);
        c.inject(says(N3, N1, 9, message));
        assert_eq!((c.role(N1), c.term(N1)), (RoleKind::Follower, 9));
    }
}

#[test]
pub(crate) fn seed_little_raft_a13_refused_votes_do_not_postpone_elections() {
    // little_raft: any message, a refused vote request too, reset the election deadline. n3's stale
    // requests keep coming; n2 must still campaign in time.
    let mut c = Cluster::build(
        Options::new(3)
            .plain()
            .puppets(&[N1, N3])
            .log(N2, Chain::of_terms(&[1, 1])),
    );
    let last = LogId {
        term: Term(1),
        index: Index(1),
    };
    let limit = 2 * c.options().config.election_ticks + 1;
    let mut ticks = 0;
    while c.role(N2) == RoleKind::Follower {
        let term = c.term(N2);
        c.inject(says(
            N3,
            N2,
            term,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        c.tick(N2, 1);
        ticks += 1;
        assert!(ticks <= limit, "refused requests keep n2 from its election");
    }
    assert!(c.sent(any().from(N2).kind(Kind::Vote)).len() == 2);
}

#[test]
pub(crate) fn seed_little_raft_a10_a_cluster_of_one_works() {
    let mut c = led(Options::new(1));
    let x = c.propose(N1, "x");
    assert!(c.acknowledged(x));
    assert_eq!(c.sent(any()).len(), 0);
}
