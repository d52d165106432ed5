//! What raftbare and noraft got wrong (n1, n4, n6, n7, the lost committed entry), their own scenarios
//! (RB-T) and their acceptance list, as far as they need no snapshot, membership change or read.

use crate::common::{appends, grants, is_refusal, led, refusals, settle, usurp};
use duraft_core::{LogId, Message, Reject, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, Options, Outcome, any, body};

/// n1's log is longer, n2's and n3's end in a later term: only n2 or n3 may lead.
fn longer_but_older() -> Cluster {
    Cluster::build(
        Options::new(3)
            .plain()
            .log(N1, Chain::of_terms(&[1, 1, 1, 1]))
            .log(N2, Chain::of_terms(&[1, 2]))
            .log(N3, Chain::of_terms(&[1, 2]))
            .term(N1, 2),
    )
}

#[test]
pub(crate) fn seed_noraft_n1_a_longer_log_of_an_older_term_does_not_win() {
    // noraft 0.4.0 compared indices only: an entry reported committed was later rejected.
    let mut c = longer_but_older();
    c.campaign(N1);
    c.deliver_all();
    assert_ne!(c.role(N1), RoleKind::Leader);
    c.elect(N2);
    settle(&mut c);
    for id in [N1, N2, N3] {
        assert_eq!(c.log_terms(id)[..2], [1, 2], "the entry of term 2 stays");
    }
}

#[test]
pub(crate) fn seed_raftbare_committed_entry_lost_does_not_happen() {
    // raftbare 0.1.4, the same rule, seen from the client: acknowledged once, acknowledged for ever.
    let mut c = Cluster::build(Options::new(3).plain());
    c.elect(N1);
    c.isolate(N1);
    for i in 0..5 {
        c.propose(N1, &format!("lost {i}"));
    }
    c.elect(N2);
    let x = c.propose(N2, "x");
    c.deliver_all();
    assert!(c.acknowledged(x));
    c.heal();
    c.isolate(N2);
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(
        c.role(N1),
        RoleKind::Follower,
        "n3 told it of the later term"
    );
    assert!(c.issued(N1).last().index() > c.issued(N3).last().index());
    // The longer log asks, again and again.
    for _ in 0..3 {
        c.campaign(N1);
        c.deliver_all();
        assert_ne!(c.role(N1), RoleKind::Leader);
    }
    c.converge();
    assert_eq!(c.commands(N1), ["x"]);
    assert!(c.acknowledged(x));
}

#[test]
pub(crate) fn seed_noraft_n4_a_voter_of_the_loser_follows_the_winner() {
    // noraft: a follower that had voted for a losing candidate ignored the elected leader for the
    // whole term, and a candidate ignored the append of its own term.
    let mut c = Cluster::build(Options::new(5).plain());
    c.campaign(N1);
    c.campaign(N2);
    c.deliver(any().from(N2).to(N3));
    c.deliver(any().from(N1).to(N4));
    c.deliver(any().from(N1).to(N5));
    c.deliver_all();
    assert_eq!(c.leaders(), [N1], "{}", c.story());
    assert_eq!(c.vote(N3), Some(N2));
    settle(&mut c);
    for id in [N2, N3] {
        assert_eq!((c.term(id), c.leader_hint(id)), (1, Some(N1)));
        assert_eq!(c.applied(id), 1);
    }
}

#[test]
pub(crate) fn seed_noraft_n6_a_single_voter_commits_nothing_that_is_still_being_written() {
    // noraft (and 0.7.1): a solo voter reported Committed while the append was queued.
    let mut c = Cluster::new(1);
    c.elect(N1);
    c.hold_disk(N1);
    let x = c.propose(N1, "x");
    c.heartbeat(N1);
    assert_eq!(c.commit(N1), 1);
    assert!(!c.acknowledged(x));
    c.crash(N1);
    c.restart(N1);
    assert_eq!(c.outcome(x), Some(Outcome::Unknown));
    c.free_disk(N1);
    c.elect(N1);
    assert_eq!(c.commands(N1), [""; 0]);
}

#[test]
pub(crate) fn seed_noraft_n7_a_long_divergent_tail_is_repaired_by_terms_not_entries() {
    // noraft: 1000 divergent entries took 1001 appends. Here k conflicting terms take at most k + 2.
    let tail = 10_000;
    for runs in [1_u64, 5, 20] {
        let mut terms = vec![1, 1, 1];
        for run in 0..runs {
            terms.extend(std::iter::repeat_n(
                2 + run,
                usize::try_from(tail / runs).expect("small"),
            ));
        }
        let top = *terms.last().expect("not empty");
        let mut options = Options::new(3).fast();
        options.record = true;
        options.check_core_every = 0;
        let mut c = Cluster::build(
            options
                .log(N1, Chain::of_terms(&[1, 1, 1, top + 1]))
                .log(N2, Chain::of_terms(&[1, 1, 1, top + 1]))
                .log(N3, Chain::of_terms(&terms)),
        );
        c.elect(N1);
        settle(&mut c);
        assert_eq!(c.issued(N3).last(), c.issued(N1).last());
        let asked = refusals(&c, N3);
        let bound = usize::try_from(runs).expect("small") + 2;
        assert!(asked <= bound, "{asked} refusals for {runs} terms");
    }
}

#[test]
pub(crate) fn seed_noraft_a10_a_divergent_leader_tail_of_many_terms_costs_few_questions() {
    // The other side: the follower's tail is one old term, the leader's log has many terms.
    let leader: Vec<u64> = [1, 1]
        .into_iter()
        .chain((3..40).flat_map(|t| [t, t, t]))
        .collect();
    let mut c = Cluster::build(
        Options::new(3)
            .log(N1, Chain::of_terms(&leader))
            .log(N2, Chain::of_terms(&leader))
            .log(
                N3,
                Chain::of_terms(&[1, 1].into_iter().chain([2; 100]).collect::<Vec<u64>>()),
            ),
    );
    c.elect(N1);
    settle(&mut c);
    assert_eq!(c.issued(N3).last(), c.issued(N1).last());
    assert!(refusals(&c, N3) <= 3, "{} refusals", refusals(&c, N3));
}

#[test]
pub(crate) fn seed_raftbare_t01_a_new_single_node_writes_its_vote_then_its_entry() {
    // RB-T1.
    let mut c = Cluster::new(1);
    c.elect(N1);
    let writes = c.writes(N1);
    assert_eq!(writes.len(), 2);
    let hard_state = writes[0].hard_state.expect("term and vote first");
    assert_eq!((hard_state.term, hard_state.vote), (Term(1), Some(N1)));
    assert_eq!(writes[1].append.len(), 1);
}

#[test]
pub(crate) fn seed_raftbare_t02_t03_new_clusters_of_two_and_three_agree() {
    // RB-T2, RB-T3: the membership is given at start, so nothing is refused on the way.
    for voters in [2, 3] {
        let mut c = led(Options::new(voters));
        let x = c.propose(N1, "x");
        settle(&mut c);
        assert!(c.acknowledged(x));
        for id in c.ids() {
            assert_eq!(c.issued(id).last(), c.issued(N1).last());
            assert_eq!(refusals(&c, id), 0);
        }
    }
}

#[test]
pub(crate) fn seed_raftbare_t04_a_message_from_oneself_is_ignored() {
    // RB-T4.
    let mut c = Cluster::build(Options::new(3).plain());
    c.campaign(N1);
    let own: Vec<_> = c.net.take(any().from(N1)).into_iter().take(1).collect();
    let writes = c.writes(N1).len();
    for mut envelope in own {
        envelope.to = N1;
        c.deliver_one(envelope);
    }
    c.deliver_one(says(N1, N1, 9, Message::VoteReply { granted: true }));
    assert_eq!(c.role(N1), RoleKind::Candidate);
    assert_eq!(c.term(N1), 1);
    assert_eq!(c.writes(N1).len(), writes);
}

#[test]
pub(crate) fn seed_raftbare_t05_a_disruptive_request_is_ignored_while_a_leader_is_heard() {
    // RB-T5: a follower that hears its leader gets RequestVote of a later term from another node.
    let mut c = led(Options::new(3));
    let last = c.issued(N3).last().id;
    c.deliver_one(says(
        N3,
        N2,
        2,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.term(N2), c.vote(N2)), (1, Some(N1)));
    assert!(grants(c.net.waiting(any().from(N2))).is_empty());
    assert_eq!(c.leader_hint(N2), Some(N1));
}

#[test]
pub(crate) fn seed_raftbare_t06_t07_an_open_node_takes_the_request() {
    // RB-T6, RB-T7: without a leader to defend, or for other kinds of message, nothing is ignored.
    let mut c = led(Options::new(3));
    c.lose_patience(N2);
    let last = c.issued(N3).last().id;
    c.inject(says(
        N3,
        N2,
        2,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.term(N2), c.vote(N2)), (2, Some(N3)));
    assert_eq!(grants(c.net.waiting(any().from(N2).to(N3))), [N2]);
}

#[test]
pub(crate) fn seed_raftbare_t08_without_the_defence_the_request_is_granted() {
    // RB-T8: check-quorum off, the plain paper rule.
    let mut c = led(Options::new(3).plain());
    let last = c.issued(N3).last().id;
    c.inject(says(
        N3,
        N2,
        2,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!((c.term(N2), c.vote(N2)), (2, Some(N3)));
}

#[test]
pub(crate) fn seed_raftbare_t09_a_stale_candidate_loses_and_the_fresh_one_leads() {
    // RB-T9: nodes 1 and 2 time out, 2 is stale, 1 asks again and leads.
    let mut c = Cluster::build(
        Options::new(3)
            .plain()
            .log(N1, Chain::of_terms(&[1, 1]))
            .log(N2, Chain::of_terms(&[1]))
            .log(N3, Chain::of_terms(&[1, 1])),
    );
    c.campaign(N1);
    c.campaign(N2);
    c.deliver(any().from(N2));
    c.lose(any());
    assert!(c.leaders().is_empty());
    c.campaign(N1);
    c.deliver_all();
    assert_eq!(c.leaders(), [N1]);
    settle(&mut c);
    assert_eq!(c.issued(N2).last(), c.issued(N1).last());
}

#[test]
pub(crate) fn seed_raftbare_t10_a_restarted_follower_takes_part_again() {
    // RB-T10.
    let mut c = led(Options::new(3));
    c.propose(N1, "a");
    settle(&mut c);
    c.crash(N2);
    c.restart(N2);
    c.isolate(N3);
    let b = c.propose(N1, "b");
    settle(&mut c);
    assert!(c.acknowledged(b));
    assert_eq!(c.commands(N2), ["a", "b"], "applied again from the start");
}

#[test]
pub(crate) fn seed_raftbare_t11_an_unsent_command_is_truncated_and_reported_lost() {
    // RB-T11.
    let mut c = led(Options::new(3));
    let x = c.propose(N1, "x");
    c.lose(any());
    usurp(&mut c, N3);
    settle(&mut c);
    assert!(matches!(c.outcome(x), Some(Outcome::Overwritten(_))));
    assert_eq!(c.log(N1), c.log(N3));
}

#[test]
pub(crate) fn seed_raftbare_a02_no_network_output_precedes_the_completion_it_depends_on() {
    // noraft 0.2-0.4 broadcast before the append; here the votes and acknowledgements wait, and the
    // appends of a leader, which promise nothing about its own disk, do not.
    let mut c = Cluster::new(3);
    for id in [N1, N2, N3] {
        c.hold_disk(id);
    }
    c.campaign(N1);
    c.deliver_all();
    assert!(c.sent(any().kind(Kind::Vote)).is_empty());
    c.complete(N1, 1);
    c.deliver_all();
    assert!(c.sent(any().kind(Kind::VoteReply)).is_empty());
    c.complete(N2, 1);
    c.deliver_all();
    assert_eq!(c.role(N1), RoleKind::Leader);
    c.deliver_all();
    assert!(appends(&c, N1, N2) >= 1, "sent beside its own write");
    assert!(
        c.sent(any().kind(Kind::AppendReply))
            .iter()
            .all(|e| is_refusal(e) || crate::common::acceptance(e) == Some(0))
    );
}

#[test]
pub(crate) fn seed_raftbare_a06_the_up_to_date_rule_over_a_table_of_logs() {
    // Paper 5.4.1: the later last term wins, then the longer log; every pair of small ends.
    let ends: Vec<Vec<u64>> = vec![
        vec![],
        vec![1],
        vec![1, 1],
        vec![1, 1, 1],
        vec![2],
        vec![1, 2],
        vec![1, 1, 2],
        vec![2, 2],
        vec![3],
    ];
    for mine in &ends {
        for theirs in &ends {
            let log = Chain::of_terms(mine);
            let mut c = Cluster::build(Options::new(3).plain().puppets(&[N1, N3]).log(N2, log));
            let last = LogId {
                term: Term(theirs.last().copied().unwrap_or(0)),
                index: duraft_core::Index(theirs.len() as u64),
            };
            c.inject(says(
                N1,
                N2,
                5,
                Message::Vote {
                    last,
                    forced: false,
                },
            ));
            c.deliver_all();
            let mail = c.take_mail();
            assert_eq!(mail.len(), 1);
            let my_last = (mine.last().copied().unwrap_or(0), mine.len());
            let expected = (theirs.last().copied().unwrap_or(0), theirs.len()) >= my_last;
            let granted = mail[0].message == Message::VoteReply { granted: true };
            assert_eq!(granted, expected, "{theirs:?} asks {mine:?}");
        }
    }
}

#[test]
pub(crate) fn seed_raftbare_a11_term_vote_and_log_come_back_from_the_disk() {
    // No number that the user must keep: what is durable is enough, whichever node restarts.
    let mut c = led(Options::new(3));
    for i in 0..5 {
        c.propose(N1, &format!("{i}"));
    }
    settle(&mut c);
    for id in [N1, N2, N3] {
        let (term, vote, log) = (c.term(id), c.vote(id), c.log(id));
        c.crash(id);
        c.restart(id);
        assert_eq!((c.term(id), c.vote(id), c.log(id)), (term, vote, log));
        assert_eq!(c.role(id), RoleKind::Follower);
        assert_eq!(c.commit(id), 0, "commit is learned again");
    }
    c.converge();
    assert_eq!(c.commands(N2).len(), 5);
}

#[test]
pub(crate) fn seed_raftbare_a14_commands_of_one_proposal_travel_as_one_batch() {
    // Batching is the caller's: k commands in one proposal are one write, one message per peer.
    let mut c = led(Options::new(3));
    let (writes, sent) = (c.writes(N1).len(), appends(&c, N1, N2));
    let commands: Vec<String> = (0..64).map(|i| format!("{i}")).collect();
    let x = c.propose_body(N1, body::commands_body(&commands));
    assert_eq!(c.writes(N1).len(), writes + 1);
    assert_eq!(appends(&c, N1, N2), sent + 1);
    settle(&mut c);
    assert!(c.acknowledged(x));
    assert_eq!(c.applied(N1), 65);
    assert_eq!(c.commands(N3), commands);
}

#[test]
pub(crate) fn seed_raftbare_a15_every_hard_state_change_is_one_record_and_keeps_its_vote() {
    // noraft saved term and vote apart and cleared the vote within a term. The disk model refuses
    // both; here it is asked across elections, refusals and step-downs.
    let mut c = Cluster::build(Options::new(5).plain());
    for id in [N1, N2, N3, N4, N5, N1, N2] {
        c.campaign(id);
        c.deliver(any().kind(Kind::Vote));
        c.lose(any());
    }
    c.converge();
    for id in c.ids() {
        let states: Vec<_> = c
            .writes(id)
            .iter()
            .filter_map(|write| write.hard_state)
            .collect();
        for pair in states.windows(2) {
            assert!(pair[0].term <= pair[1].term);
            assert!(pair[0].term < pair[1].term || pair[0].vote.is_none());
        }
    }
}

#[test]
pub(crate) fn seed_raftbare_a16_a_node_back_from_a_partition_does_not_unseat_the_leader() {
    // Pre-vote: its term did not grow while nobody heard it.
    let mut c = led(Options::new(5));
    c.isolate(N5);
    for _ in 0..5 {
        c.campaign(N5);
    }
    assert_eq!(c.term(N5), 1);
    c.heal();
    c.propose(N1, "x");
    settle(&mut c);
    c.campaign(N5);
    c.deliver_all();
    settle(&mut c);
    assert_eq!(c.leaders(), [N1]);
    assert_eq!(c.term(N1), 1);
    assert_eq!(c.commands(N5), ["x"]);
}

#[test]
pub(crate) fn seed_raftbare_a07_commit_status_never_changes_once_certain() {
    // An outcome that was Applied or Overwritten stays so, over elections and crashes.
    let mut c = led(Options::new(3));
    let mut all = Vec::new();
    let mut certain = std::collections::BTreeMap::new();
    for round in 0..12 {
        let leader = c.leaders()[0];
        all.push(c.propose(leader, &format!("{round}")));
        if round % 3 == 2 {
            c.lose(any());
            let next = [N1, N2, N3][(round / 3) % 3];
            if next != leader {
                usurp(&mut c, next);
            }
        }
        settle(&mut c);
        for id in &all {
            let outcome = c.outcome(*id);
            if matches!(outcome, Some(Outcome::Applied(_) | Outcome::Overwritten(_))) {
                assert_eq!(*certain.entry(*id).or_insert(outcome), outcome);
            }
        }
    }
    assert!(certain.len() >= 8);
    let refused = c.propose(c.ids()[1], "?");
    assert!(!matches!(
        c.outcome(refused),
        Some(Outcome::Rejected(Reject::Unsupported, _))
    ));
}
