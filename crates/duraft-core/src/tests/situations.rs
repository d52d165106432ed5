//! Named situations of elections and replication on the rig.

use super::rig::*;
use crate::*;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;

#[test]
fn three_nodes_elect_replicate_and_commit() {
    // The happy path: nothing that follows means anything if this fails.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    for _ in 0..10 {
        rig.propose(1).unwrap();
    }
    rig.settle().unwrap();
    for id in 1..=3 {
        assert_eq!(rig.raft(id).commit(), Index(11), "node {id}");
        assert_eq!(rig.raft(id).applied(), Index(11), "node {id}");
        assert!(rig.raft(id).is_quiet());
    }
}

#[test]
fn a_single_voter_leads_and_commits_only_what_is_durable() {
    // A lone voter needs nobody's word, so nothing but its own gate keeps it from acting early (F4).
    let mut rig = Rig::new(1, 1);
    for _ in 0..20 {
        rig.tick(1).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
    rig.sync(1, 1);
    rig.report(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    rig.propose(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(0));
    rig.sync(1, 1);
    rig.report(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(1));
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(2));
}

fn commands(count: u32, len: usize) -> Body {
    Body {
        kind: BatchKind::Commands,
        codec: 0,
        count,
        checksum: 0,
        bytes: Bytes::from(alloc::vec![0; len]),
    }
}

/// The reason of the last refusal.
fn refusal(rig: &Rig, id: u64) -> Option<Reject> {
    match rig.node(id).responses.last()? {
        Response::Rejected { reason, .. } => Some(*reason),
        Response::Appended { .. } | Response::Done { .. } => None,
    }
}

#[test]
fn figure_7_every_divergent_log_is_repaired() {
    // S8: a repair that steps back entry by entry, or stops early, leaves logs unequal.
    let logs: [&[u64]; 7] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let mut rig = Rig::new(7, 3);
    for (i, terms) in logs.iter().enumerate() {
        rig.seed_log(i as u64 + 1, 7, terms);
    }
    rig.time_out(1).unwrap();
    let mut refused = BTreeSet::new();
    let mut probes = BTreeMap::new();
    for _ in 0..100 {
        for id in rig.ids() {
            rig.flush(id).unwrap();
            rig.answer_load(id).unwrap();
        }
        for envelope in core::mem::take(&mut rig.network) {
            match &envelope.message {
                Message::VoteReply { granted: false } => {
                    refused.insert(envelope.from.0);
                }
                Message::AppendReply(AppendReply::Rejected { .. }) => {
                    *probes.entry(envelope.from.0).or_insert(0) += 1;
                }
                _ => {}
            }
            rig.deliver(envelope).unwrap();
        }
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    assert!(refused.is_subset(&[4, 5].into()), "{refused:?}");
    for id in 2..=7 {
        assert_eq!(rig.raft(id).last(), rig.raft(1).last(), "node {id}");
        assert_eq!(rig.raft(id).commit(), Index(11), "node {id}");
    }
    // Conflicting terms: none for 2 to 5 (a missing or longer tail), {4} on 6, {2, 3} on 7.
    for (id, terms) in [(2, 0), (3, 0), (4, 0), (5, 0), (6, 1), (7, 2)] {
        let rejected = probes.get(&id).copied().unwrap_or(0);
        assert!(
            rejected <= terms + 1,
            "node {id} was probed in vain {rejected} times"
        );
    }
}

#[test]
fn figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    // Five nodes; the entry of term 2 reaches three of them and can still be overwritten by term 3.
    let mut rig = Rig::new(5, 1);
    rig.seed_log(1, 4, &[1, 2]);
    rig.seed_log(2, 4, &[1, 2]);
    rig.seed_log(3, 4, &[1]);
    rig.seed_log(4, 4, &[1]);
    rig.seed_log(5, 4, &[1, 3]);
    // Node 1 leads term 5: the old entry gets through, the no-op of term 5 never.
    rig.time_out(1).unwrap();
    for _ in 0..8 {
        for id in rig.ids() {
            rig.flush(id).unwrap();
            rig.answer_load(id).unwrap();
        }
        for mut envelope in core::mem::take(&mut rig.network) {
            if let Message::Append { batches, .. } = &mut envelope.message {
                batches.retain(|batch| batch.header.term < Term(5));
            }
            if envelope.from != NodeId(5) && envelope.to != NodeId(5) {
                rig.deliver(envelope).unwrap();
            }
        }
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    let copies = (1..=5)
        .filter(|id| rig.raft(*id).durable() >= Index(2))
        .count();
    assert!(copies >= 3, "the entry of term 2 is on a majority");
    assert_eq!(rig.raft(1).commit(), Index(0), "and not committed");
    rig.settle().unwrap();
    for _ in 0..8 {
        rig.tick(1).unwrap();
        rig.settle().unwrap();
    }
    assert_eq!(
        rig.raft(1).commit(),
        Index(3),
        "until an entry of term 5 is"
    );
}

#[test]
fn an_old_duplicate_truncates_nothing() {
    // Defect r9: a delayed append of the log's beginning cut an acknowledged tail.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    let old: Vec<Envelope> = rig.network.clone();
    for _ in 0..5 {
        rig.propose(1).unwrap();
    }
    rig.settle().unwrap();
    let last = rig.raft(2).last();
    let issued = rig.raft(2).last_issued();
    for envelope in old {
        rig.deliver(envelope).unwrap();
    }
    assert_eq!(rig.raft(2).last(), last);
    assert_eq!(
        rig.raft(2).last_issued(),
        issued,
        "and nothing is rewritten"
    );
}

#[test]
fn a_cut_at_or_below_commit_is_a_fault() {
    // A leader that lacks committed entries is broken; obeying it would undo what was applied.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle().unwrap();
    let other = Body::noop().seal(GROUP, &Position::START, Term(9)).unwrap();
    let message = Message::Append {
        prev: Position::START,
        batches: [other].into(),
        commit: Index(0),
    };
    rig.deliver(said(3, 2, 9, message)).unwrap();
    let fault = Fault::CommittedTruncation {
        commit: Index(2),
        cut: Index(1),
    };
    assert_eq!(rig.raft(2).halted(), Some(fault));
    assert_eq!(rig.raft(2).last().index(), Index(2));
}

#[test]
fn a_leader_that_a_quorum_contradicts_steps_down() {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    let theirs = rig.raft(1).last();
    let ours = Position {
        digest: Digest(1),
        ..theirs
    };
    let told = || Message::AppendReply(AppendReply::Divergence { theirs, ours });
    rig.deliver(said(2, 1, 1, told())).unwrap();
    rig.deliver(said(2, 1, 1, told())).unwrap();
    assert_eq!(
        rig.raft(1).role(),
        RoleKind::Leader,
        "one voice counts once"
    );
    rig.deliver(said(3, 1, 1, told())).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
}

#[test]
fn a_boot_that_does_not_hang_together_is_refused() {
    let rig = Rig::new(1, 1);
    let one = body(1).seal(GROUP, &Position::START, Term(2)).unwrap();
    let two = body(2)
        .seal(GROUP, &one.header.position(), Term(2))
        .unwrap();
    let boot = |term, batches: &[&Batch]| Boot {
        incarnation: Incarnation(1),
        hard_state: HardState {
            term: Term(term),
            vote: None,
        },
        start: Position::START,
        batches: batches.iter().map(|batch| batch.header).collect(),
        membership: rig.node(1).durable.membership.clone(),
        memberships: Vec::new(),
        snapshot: None,
        applied: None,
        damage: None,
    };
    let config = || Config::new(NodeId(1), GROUP, 1);
    let error = |boot| Raft::new(config(), boot).unwrap_err();
    assert!(Raft::new(config(), boot(2, &[&one, &two])).is_ok());
    assert_eq!(
        error(boot(2, &[&two, &one])),
        BootError::BrokenChain { at: 0 }
    );
    assert_eq!(
        error(boot(2, &[&one, &one])),
        BootError::BrokenChain { at: 1 }
    );
    assert_eq!(error(boot(1, &[&one])), BootError::TermBehindLog);
    let bad = Config {
        heartbeat_ticks: 0,
        ..config()
    };
    assert!(matches!(
        Raft::new(bad, boot(2, &[])),
        Err(BootError::Config(problems)) if problems.len() == 1
    ));
}

#[test]
fn proposals_are_refused_with_the_reason() {
    let mut rig = Rig::with(3, &[], |id| Config {
        max_batch_bytes: 64,
        uncommitted_bytes_max: 400,
        ..Config::new(id, GROUP, 1)
    });
    rig.propose(2).unwrap();
    assert_eq!(refusal(&rig, 2), Some(Reject::NotLeader));
    rig.elect(1).unwrap();
    let mut refused = |body: Body| {
        let id = ProposalId(0);
        rig.step(1, Input::Propose { id, body }).unwrap();
        refusal(&rig, 1)
    };
    assert_eq!(refused(commands(0, 8)), Some(Reject::Malformed));
    assert_eq!(refused(commands(3, 8)), Some(Reject::Malformed));
    assert_eq!(refused(commands(1, 65)), Some(Reject::TooLarge));
    assert_eq!(refused(Body::noop()), Some(Reject::Malformed));
    assert_eq!(refused(commands(1, 64)), None);
    assert_eq!(refused(commands(1, 64)), None);
    assert_eq!(refused(commands(1, 64)), None);
    // S25: three times 128 bytes are within 400, a fourth is not; after the commit it is.
    assert_eq!(refused(commands(1, 64)), Some(Reject::UncommittedLimit));
    rig.settle().unwrap();
    assert_eq!(rig.raft(1).uncommitted_bytes(), Some(0));
    rig.propose(1).unwrap();
    assert_eq!(refusal(&rig, 1), None);
}

#[test]
fn an_uncommitted_limit_below_one_batch_admits_one() {
    // A limit that refuses the first batch would refuse for ever (RULES.md 6).
    let mut rig = Rig::with(3, &[], |id| Config {
        uncommitted_bytes_max: 0,
        inflight_bytes_max: 0,
        append_bytes_max: 0,
        unapplied_bytes_max: 0,
        cache_bytes_max: 0,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    for i in 2..6 {
        rig.propose(1).unwrap();
        assert_eq!(refusal(&rig, 1), None);
        rig.settle().unwrap();
        assert_eq!(rig.raft(3).applied(), Index(i));
    }
}

#[test]
fn a_full_window_waits_for_a_heartbeat_round_and_asks_once() {
    // S14: a peer that takes nothing in must not be flooded, and must be found again.
    let mut rig = Rig::with(3, &[], |id| Config {
        inflight_messages_max: 3,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    let to_3 = |rig: &Rig| {
        (rig.network.iter())
            .filter(|e| e.to == NodeId(3) && matches!(e.message, Message::Append { .. }))
            .count()
    };
    for _ in 0..3 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    for _ in 0..3 {
        rig.propose(1).unwrap();
        assert_eq!(to_3(&rig), 0, "the window is full");
        rig.settle_without(&[3]).unwrap();
    }
    assert_eq!(rig.raft(1).commit(), Index(7), "node 2 suffices");
    let progress = rig.raft(1).progress(NodeId(3)).unwrap();
    assert_eq!(progress.inflight_messages, 3);
    // One heartbeat round reaches node 3: one question, one rejection with a hint, then everything.
    rig.tick(1).unwrap();
    rig.tick(1).unwrap();
    rig.settle().unwrap();
    let progress = rig.raft(1).progress(NodeId(3)).unwrap();
    assert_eq!(progress.phase, Phase::Replicate);
    assert_eq!(progress.matched, Index(7));
    assert_eq!(rig.raft(3).commit(), Index(7));
}

#[test]
fn a_restarted_follower_learns_the_commit_without_new_entries() {
    // Its commit index died with it, and nothing it could ask would be an entry.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle().unwrap();
    rig.crash(3, 0);
    assert_eq!(rig.raft(3).commit(), Index(0));
    for _ in 0..4 {
        rig.tick(1).unwrap();
        rig.settle().unwrap();
    }
    assert_eq!(rig.raft(3).applied(), Index(2));
}

#[test]
fn a_learner_follows_and_never_decides() {
    let mut rig = Rig::with(2, &[3], |id| Config::new(id, GROUP, 1));
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle_without(&[2]).unwrap();
    assert_eq!(rig.raft(3).durable(), Index(2));
    assert_eq!(
        rig.raft(1).commit(),
        Index(1),
        "a learner's copy is no vote"
    );
    for _ in 0..50 {
        rig.tick(3).unwrap();
    }
    assert_eq!(rig.raft(3).role(), RoleKind::Follower);
    // S6: asked, it answers: its own membership may be behind.
    let last = rig.raft(3).last().id;
    rig.deliver(said(
        2,
        3,
        5,
        Message::Vote {
            last,
            forced: false,
        },
    ))
    .unwrap();
    rig.network.clear();
    rig.flush(3).unwrap();
    assert_eq!(rig.network[0].message, Message::VoteReply { granted: true });
}

#[test]
fn a_leader_without_contact_steps_down_in_its_term() {
    // S7. And who hears from a leader refuses a vote, at the old term.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    let last = rig.raft(2).last().id;
    rig.deliver(said(
        3,
        2,
        9,
        Message::Vote {
            last,
            forced: false,
        },
    ))
    .unwrap();
    assert_eq!(rig.raft(2).term(), Term(1), "a live leader is not deposed");
    for _ in 0..10 {
        rig.tick(1).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
    assert_eq!(rig.raft(1).term(), Term(1));
}

#[test]
fn heartbeats_do_not_hide_a_dead_data_path() {
    // RULES.md 12: both followers answer heartbeats, but no append ever arrives.
    for planted in [None, Some(Plant::HeartbeatsHideStall)] {
        let mut rig = Rig::new(3, 1);
        if let Some(planted) = planted {
            rig.node_mut(1).raft.plant(planted);
        }
        rig.elect(1).unwrap();
        rig.propose(1).unwrap();
        let mut ticks = 0;
        while rig.raft(1).role() == RoleKind::Leader && ticks < 200 {
            rig.tick(1).unwrap();
            ticks += 1;
            for envelope in core::mem::take(&mut rig.network) {
                if !matches!(envelope.message, Message::Append { .. }) {
                    rig.deliver(envelope).unwrap();
                }
            }
        }
        // A slow disk is given four election timeouts; then the leader must notice.
        assert_eq!((40..60).contains(&ticks), planted.is_none(), "{ticks}");
    }
}

#[test]
fn a_failed_read_for_a_peer_ends_leadership_and_for_the_state_machine_the_life() {
    // Nobody else has it either: they are out of reach.
    let small = |id| Config {
        cache_bytes_max: 0,
        check_quorum: false,
        ..Config::new(id, GROUP, 1)
    };
    let mut rig = Rig::with(3, &[], small);
    rig.elect(1).unwrap();
    for _ in 0..3 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    rig.run_until_load();
    let load = rig.node_mut(1).loads.pop_front().unwrap().id;
    let result = Err(LoadError::Corrupt);
    rig.step(1, Input::Completed(Completion::Loaded { load, result }))
        .unwrap();
    for _ in 0..2 * rig.raft(1).config().election_ticks - 2 {
        rig.tick(1).unwrap();
        assert_eq!(rig.raft(1).role(), RoleKind::Leader);
    }
    for _ in 0..6 {
        rig.tick(1).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Follower);
    assert_eq!(rig.raft(1).halted(), None);
}

#[test]
fn what_the_state_machine_needs_and_cannot_be_read_halts() {
    let mut rig = Rig::new(1, 1);
    rig.seed_log(1, 1, &[1, 1]);
    rig.time_out(1).unwrap();
    rig.flush(1).unwrap();
    rig.flush(1).unwrap();
    let load = rig.node_mut(1).loads.pop_front().unwrap();
    assert_eq!((load.first, load.last), (Index(1), Index(2)));
    let wrong = Completion::Loaded {
        load: load.id,
        result: Ok([body(5).seal(GROUP, &Position::START, Term(1)).unwrap()].into()),
    };
    rig.step(1, Input::Completed(wrong)).unwrap();
    let fault = Fault::Unreadable {
        first: Index(1),
        error: LoadError::Corrupt,
    };
    assert_eq!(rig.raft(1).halted(), Some(fault));
}

#[test]
fn a_peer_that_restarts_after_a_long_rest_counts_as_moving() {
    // The question it is asked after its restart is young, however long the log had rested before.
    let mut rig = Rig::new(2, 1);
    rig.elect(1).unwrap();
    for _ in 0..100 {
        rig.tick(1).unwrap();
        rig.settle().unwrap();
    }
    rig.crash(2, 0);
    for _ in 0..2 {
        rig.tick(1).unwrap();
    }
    // The answer to the heartbeat arrives, the probe does not yet.
    for envelope in core::mem::take(&mut rig.network) {
        rig.deliver(envelope).unwrap();
    }
    for envelope in core::mem::take(&mut rig.network) {
        rig.deliver(envelope).unwrap();
    }
    rig.tick(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
}

#[test]
fn a_stale_log_gets_no_pre_votes_and_disturbs_nobody() {
    // S3: without the question the stale node would depose a leader it can never replace.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    for id in [1, 2] {
        // Nobody refuses because of a live leader: the log alone decides.
        while rig.raft(id).role() == RoleKind::Leader || rig.raft(id).leader().is_some() {
            rig.tick(id).unwrap();
        }
    }
    rig.network.clear();
    rig.time_out(3).unwrap();
    rig.settle().unwrap();
    assert_ne!(rig.raft(3).role(), RoleKind::Leader);
    for id in 1..=3 {
        assert_eq!(rig.raft(id).term(), Term(1), "node {id}");
    }
    while rig.raft(2).role() != RoleKind::Leader {
        rig.tick(2).unwrap();
        rig.settle().unwrap();
    }
    assert_eq!(rig.raft(2).term(), Term(2));
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
}

#[test]
fn a_quorum_that_has_lost_the_leader_replaces_it_though_it_lives() {
    // S5: both campaign, so neither hears a leader, and the third does not matter.
    let mut rig = Rig::new(3, 1);
    rig.elect(3).unwrap();
    rig.time_out(2).unwrap();
    rig.network.clear();
    rig.time_out(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    assert_eq!(
        rig.leader()
            .filter(|id| *id != 3)
            .map(|id| rig.raft(id).term()),
        Some(Term(2))
    );
    rig.settle().unwrap();
    for _ in 0..4 {
        for id in [1, 2] {
            rig.tick(id).unwrap();
        }
        rig.settle().unwrap();
    }
    assert_eq!(rig.raft(3).role(), RoleKind::Follower);
    assert_eq!(rig.raft(3).last().term(), Term(2));
}

#[test]
fn a_grant_of_an_earlier_term_elects_nobody() {
    // Defects l2b, r10: a leader of term 9 on a grant of term 1. And a repeated grant counts once.
    let mut rig = Rig::new(5, 1);
    rig.seed_log(1, 6, &[]);
    rig.time_out(1).unwrap();
    for from in [2, 3] {
        let yes = Message::PreVoteReply {
            wanted: Term(7),
            granted: true,
        };
        rig.deliver(said(from, 1, 6, yes)).unwrap();
    }
    rig.flush(1).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
    let grant = || Message::VoteReply { granted: true };
    for from in 2..=5 {
        rig.deliver(said(from, 1, 6, grant())).unwrap();
        rig.deliver(said(2, 1, 7, grant())).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::Candidate);
    rig.deliver(said(3, 1, 7, grant())).unwrap();
    assert_eq!(rig.raft(1).role(), RoleKind::Leader);
}

#[test]
fn an_answer_to_another_pre_campaign_counts_for_nothing() {
    let mut rig = Rig::new(3, 1);
    rig.seed_log(1, 6, &[]);
    rig.time_out(1).unwrap();
    for wanted in [6, 8] {
        let yes = Message::PreVoteReply {
            wanted: Term(wanted),
            granted: true,
        };
        rig.deliver(said(2, 1, 6, yes)).unwrap();
    }
    assert_eq!(rig.raft(1).role(), RoleKind::PreCandidate);
}

#[test]
fn a_refused_candidate_does_not_put_off_others() {
    // Defects LR 13, IS 10: a candidate that cannot win kept everybody's timer from running out.
    let mut rig = Rig::with(3, &[], |id| Config {
        pre_vote: false,
        ..Config::new(id, GROUP, 1)
    });
    rig.seed_log(1, 1, &[1]);
    for term in 2..40 {
        let last = LogId::default();
        rig.deliver(said(
            2,
            1,
            term,
            Message::Vote {
                last,
                forced: false,
            },
        ))
        .unwrap();
        rig.flush(1).unwrap();
        rig.tick(1).unwrap();
        if rig.raft(1).role() == RoleKind::Candidate {
            return;
        }
    }
    panic!("node 1 never campaigns");
}

#[test]
fn a_probe_for_an_id_of_another_content_is_divergence() {
    // Equal (term, index), another history: acknowledging the probe would join two logs.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    let ours = rig.raft(2).last();
    let theirs = Position {
        digest: Digest(1),
        ..ours
    };
    let probe = Message::Append {
        prev: theirs,
        batches: Vec::new(),
        commit: Index(0),
    };
    rig.deliver(said(1, 2, 1, probe)).unwrap();
    let told = Message::AppendReply(AppendReply::Divergence { theirs, ours });
    assert_eq!(rig.network[0].message, told);
}
