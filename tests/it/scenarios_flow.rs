//! Scenarios of replication and of disks that lag (S14, S16, S19-S23).

use duraft_core::{AppendReply, Envelope, Index, LogId, Message, Phase, Reject, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, N6, N7, Options, Outcome, Rng, any};

/// A cluster of three led by n1, everybody caught up.
fn led(options: Options) -> Cluster {
    let mut c = Cluster::build(options);
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.leaders(), [N1]);
    c
}

fn appends_to(c: &Cluster, id: duraft_core::NodeId) -> usize {
    c.sent(any().from(N1).to(id).kind(Kind::Append)).len()
}

#[test]
pub(crate) fn scenario_s14_a_full_window_stays_silent_until_a_heartbeat_finds_it_alive() {
    // Could go wrong: sending without end into a window nobody answers, or never again.
    let mut c = led(Options::new(3).configure(|config| config.inflight_messages_max = 3));
    for command in ["a", "b", "c"] {
        c.propose(N1, command);
    }
    let full = appends_to(&c, N3);
    assert_eq!(c.progress(N1, N3).inflight_messages, 3);
    c.lose(any().to(N3).kind(Kind::Append));
    c.deliver_all();
    let mut last = None;
    for command in ["d", "e", "f"] {
        last = Some(c.propose(N1, command));
        c.deliver_all();
    }
    assert!(
        c.acknowledged(last.expect("proposed")),
        "n2 is enough to commit"
    );
    assert_eq!(appends_to(&c, N3), full, "a full window gets nothing more");
    c.heartbeat(N1);
    c.deliver_only(any().to(N3).kind(Kind::Heartbeat));
    c.deliver_only(any().from(N3).kind(Kind::HeartbeatReply));
    assert_eq!(
        appends_to(&c, N3),
        full + 1,
        "one question first\n{}",
        c.story()
    );
    c.deliver_all();
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.commands(N3), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(c.progress(N1, N3).phase, Phase::Replicate);
}

#[test]
pub(crate) fn scenario_s14_the_window_is_bounded_in_bytes_too() {
    // Could go wrong: few large appends where many small ones were counted.
    let cost = 64 + 4 + 100;
    let mut c = led(Options::new(3).configure(|config| config.inflight_bytes_max = 3 * cost));
    for _ in 0..8 {
        c.propose(N1, &"x".repeat(100));
    }
    let progress = c.progress(N1, N3);
    assert_eq!(
        (progress.inflight_messages, progress.inflight_bytes),
        (3, 3 * cost)
    );
    c.deliver_all();
    assert_eq!(c.commit(N3), 9);
}

#[test]
pub(crate) fn scenario_s14_refusals_at_what_is_matched_start_no_storm() {
    // Could go wrong: a peer that lost what it acknowledged, or a duplicate, is asked again and again.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    c.campaign(N1);
    c.inject(says(N2, N1, 1, Message::VoteReply { granted: true }));
    c.propose(N1, "x");
    let matched = Index(2);
    c.inject(says(
        N3,
        N1,
        1,
        Message::AppendReply(AppendReply::Accepted { matched }),
    ));
    let before = appends_to(&c, N3);
    let prev = LogId {
        term: Term(1),
        index: matched,
    };
    let refusal = AppendReply::Rejected {
        prev,
        hint: LogId::default(),
    };
    for _ in 0..20 {
        c.deliver_one(says(N3, N1, 1, Message::AppendReply(refusal)));
        assert_eq!(c.progress(N1, N3).matched, matched);
    }
    assert!(appends_to(&c, N3) <= before + 1);
    // A new life of the peer that has lost even that is asked, and not again at each refusal.
    let mut reborn = says(
        N3,
        N1,
        1,
        Message::HeartbeatReply {
            round: 0,
            health: duraft_core::Health::default(),
        },
    );
    reborn.incarnation = duraft_core::Incarnation(2);
    c.deliver_one(reborn.clone());
    assert_eq!(c.progress(N1, N3).phase, Phase::Probe);
    let before = appends_to(&c, N3);
    reborn.message = Message::AppendReply(refusal);
    for _ in 0..20 {
        c.deliver_one(reborn.clone());
    }
    assert!(appends_to(&c, N3) <= before + 1, "no ping-pong");
}

#[test]
pub(crate) fn scenario_s16_a_heartbeat_round_ends_probing_without_a_new_proposal() {
    // Could go wrong: a peer that lost one append stays behind until the next proposal.
    let mut c = led(Options::new(3));
    c.propose(N1, "x");
    c.lose(any().to(N2).kind(Kind::Append));
    c.propose(N1, "y");
    // n2 refuses the append with a gap: the leader probes. The probe is lost too.
    c.deliver_only(any().to(N2));
    c.deliver(any().from(N2));
    assert_eq!(c.progress(N1, N2).phase, Phase::Probe);
    c.lose(any().to(N2).kind(Kind::Append));
    c.deliver_all();
    for _ in 0..2 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    assert_eq!(c.progress(N1, N2).phase, Phase::Replicate);
    assert_eq!(c.commands(N2), ["x", "y"]);
    let before = appends_to(&c, N2);
    c.propose(N1, "z");
    c.propose(N1, "w");
    assert_eq!(appends_to(&c, N2), before + 2, "sending ahead again");
}

#[test]
pub(crate) fn scenario_s19_idle_followers_hear_of_a_commit_at_once() {
    // Could go wrong: followers apply a heartbeat interval late although nothing else is under way.
    let mut c = led(Options::new(3));
    c.propose(N1, "x");
    c.deliver_all();
    assert_eq!([N1, N2, N3].map(|id| c.applied(id)), [2; 3]);
}

#[test]
pub(crate) fn scenario_s19_one_heartbeat_and_one_append_exchange_bring_a_lost_commit() {
    // Could go wrong: entries stored, the answer and the commit lost, and the follower lags for ever.
    let mut c = led(Options::new(3));
    c.propose(N1, "x");
    c.deliver(any().to(N3).kind(Kind::Append));
    assert_eq!(c.lose(any().from(N3).kind(Kind::AppendReply)), 1);
    c.deliver_except(any().to(N3));
    c.lose(any().to(N3));
    assert_eq!(c.commit(N1), 2);
    assert_eq!(c.commit(N3), 1, "the commit was lost");
    let before = appends_to(&c, N3);
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.commit(N3), 2, "{}", c.story());
    assert_eq!(c.commands(N3), ["x"]);
    assert!(
        appends_to(&c, N3) <= before + 2,
        "one question, at most one commit"
    );
}

/// The commit index that durable copies on a quorum of three allow.
fn quorum_durable(c: &Cluster) -> u64 {
    let mut durable: Vec<u64> = [N1, N2, N3]
        .into_iter()
        .map(|id| c.durable(id).last().index().0)
        .collect();
    durable.sort_unstable();
    durable[1]
}

/// Four proposals are under way while no disk has finished any of them.
fn four_in_flight() -> Cluster {
    let mut c = led(Options::new(3));
    for id in [N1, N2, N3] {
        c.hold_disk(id);
    }
    for command in ["a", "b", "c", "d"] {
        c.propose(N1, command);
    }
    c
}

#[test]
pub(crate) fn scenario_s20_commit_follows_the_quorums_durable_index_step_by_step() {
    // Could go wrong: waiting for one write before the next is sent, acknowledging ahead of the
    // disk, committing on what is only in memory.
    for seed in 0..40 {
        let mut c = four_in_flight();
        for id in [N2, N3] {
            assert_eq!(c.net.waiting(any().to(id).kind(Kind::Append)).len(), 4);
        }
        c.deliver_all();
        assert_eq!(c.commit(N1), 1, "nothing is durable yet");
        for id in [N1, N2, N3] {
            assert!(c.pending(id) >= 1);
        }
        let mut rng = Rng::new(seed);
        while [N1, N2, N3].iter().any(|id| c.pending(*id) > 0) {
            let id = *rng.pick(&[N1, N2, N3]);
            c.complete(id, 1);
            c.deliver_all();
            assert_eq!(
                c.commit(N1),
                quorum_durable(&c),
                "seed {seed}\n{}",
                c.story()
            );
            for id in [N1, N2, N3] {
                assert!(c.applied(id) <= c.durable(id).last().index().0);
            }
        }
        assert_eq!(c.commit(N1), 5);
        c.converge();
        for id in [N1, N2, N3] {
            assert_eq!(c.commands(id), ["a", "b", "c", "d"]);
        }
    }
}

/// Acceptances sent to `to` so far.
fn acceptances(mail: &[Envelope], to: duraft_core::NodeId) -> Vec<u64> {
    let accepted = |e: &Envelope| match e.message {
        Message::AppendReply(AppendReply::Accepted { matched }) if e.to == to => Some(matched.0),
        Message::AppendReply(_)
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. }
        | Message::Append { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::Fetched { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => None,
    };
    mail.iter().filter_map(accepted).collect()
}

/// n1 with a held disk among six peers that the test speaks for.
fn one_among_six() -> Cluster {
    let mut c = Cluster::build(Options::new(7).puppets(&[N2, N3, N4, N5, N6, N7]));
    c.hold_disk(N1);
    c
}

#[test]
pub(crate) fn scenario_s21_a_completion_of_an_overwritten_write_counts_for_nothing() {
    // Could go wrong (ABA): X is written, cut, and written again; the first completion is taken for
    // the last and X is acknowledged though the cut is still under way.
    let mut c = one_among_six();
    let x = Chain::empty().and(1, "x");
    let y = Chain::empty().and(2, "y");
    c.inject(says(N2, N1, 1, x.append(0, 1, 0)));
    c.inject(says(N3, N1, 2, y.append(0, 1, 0)));
    // n4 leads term 3 with n2's entry.
    c.inject(says(N4, N1, 3, x.append(0, 1, 0)));
    assert_eq!(c.issued(N1).last(), x.last());
    assert_eq!(c.pending(N1), 3);
    for _ in 0..2 {
        c.complete(N1, 1);
        c.deliver_all();
        let mail = c.take_mail();
        assert!(
            acceptances(&mail, N4).is_empty(),
            "the present x is not durable"
        );
        assert!(acceptances(&mail, N2).is_empty(), "its term has passed");
    }
    // What is read back for the state machine or a peer is the newest content.
    assert_eq!(c.log(N1), ["1@1 \"x\""]);
    c.complete(N1, 1);
    c.deliver_all();
    assert_eq!(acceptances(&c.take_mail(), N4), [1]);
    assert_eq!(c.durable(N1).last(), x.last());
}

#[test]
pub(crate) fn scenario_s21_a_third_content_in_one_place_waits_for_its_own_completion() {
    // Could go wrong: as above, with another content each time.
    let mut c = one_among_six();
    let third = Chain::empty().and(3, "x'");
    c.inject(says(N2, N1, 1, Chain::empty().and(1, "x").append(0, 1, 0)));
    c.inject(says(N3, N1, 2, Chain::empty().and(2, "y").append(0, 1, 0)));
    c.inject(says(N4, N1, 3, third.append(0, 1, 0)));
    c.complete(N1, 1);
    c.deliver_all();
    assert!(acceptances(&c.take_mail(), N4).is_empty());
    assert_eq!(c.log(N1), ["1@3 \"x'\""]);
    c.complete_all(N1);
    c.deliver_all();
    assert_eq!(acceptances(&c.take_mail(), N4), [1]);
}

#[test]
pub(crate) fn scenario_s22_a_grant_held_by_the_disk_dies_with_its_term() {
    // Could go wrong: a vote that was given up is sent after all when the disk gets there.
    let mut c = Cluster::build(Options::new(3).puppets(&[N1, N3]));
    c.hold_disk(N2);
    let last = duraft_core::LogId::default();
    c.inject(says(
        N1,
        N2,
        1,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!(c.vote(N2), Some(N1));
    c.deliver_all();
    assert!(c.take_mail().is_empty(), "the vote is not durable");
    let commit = duraft_core::Index(0);
    c.inject(says(N3, N2, 2, Message::Heartbeat { commit, round: 1 }));
    assert_eq!(c.term(N2), 2);
    c.complete_all(N2);
    c.deliver_all();
    let mail = c.take_mail();
    assert!(!mail.is_empty(), "the heartbeat is answered");
    for envelope in mail {
        assert_eq!(envelope.term.0, 2);
        assert_ne!(Kind::of(&envelope.message), Kind::VoteReply);
    }
}

#[test]
pub(crate) fn scenario_s23_a_quorum_commits_without_the_leaders_disk() {
    // Could go wrong: the cluster is as slow as the leader's disk, or the leader counts itself.
    let mut c = led(Options::new(3));
    c.hold_disk(N1);
    let x = c.propose(N1, "x");
    c.deliver_all();
    assert_eq!(c.commit(N1), 2, "n2 and n3 hold it durably");
    assert_eq!(c.durable(N1).last().index().0, 1);
    assert_eq!(c.applied(N1), 1, "applied here when durable here");
    assert!(!c.acknowledged(x));
    c.heartbeat(N1);
    c.deliver_all();
    assert_eq!(c.applied(N2), 2);
    c.free_disk(N1);
    assert_eq!(c.applied(N1), 2);
    assert!(c.acknowledged(x));
}

#[test]
pub(crate) fn scenario_s23_a_leader_does_not_count_its_own_undurable_copy() {
    // Could go wrong: leader's memory plus one follower's disk taken for a quorum.
    let mut c = led(Options::new(3));
    c.hold_disk(N1);
    c.hold_disk(N3);
    c.propose(N1, "x");
    c.deliver_all();
    assert_eq!(c.commit(N1), 1, "durable on n2 alone");
    c.complete_all(N1);
    c.deliver_all();
    assert_eq!(c.commit(N1), 2);
    assert_eq!(c.role(N1), RoleKind::Leader);
}

#[test]
pub(crate) fn scenario_s25_the_uncommitted_limit_refuses_loudly_and_is_given_back() {
    // Could go wrong: memory without bound while the quorum is away, a silent refusal, a no-op that
    // cannot be appended, or a counter that never comes down.
    let cost = 64 + 4 + 1;
    let mut c = led(Options::new(3).configure(|config| config.uncommitted_bytes_max = 3 * cost));
    c.net.cut(N1, N2);
    c.net.cut(N1, N3);
    let taken: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|x| c.propose(N1, x))
        .collect();
    for _ in 0..3 {
        let refused = c.propose(N1, "d");
        assert_eq!(
            c.outcome(refused),
            Some(Outcome::Rejected(Reject::UncommittedLimit, Some(N1)))
        );
    }
    // A new leader's no-op is not held up by what it inherits.
    c.crash(N1);
    c.restart(N1);
    c.heal();
    c.lose_patience(N2);
    c.lose_patience(N3);
    c.elect(N1);
    assert_eq!(c.commands(N1), ["a", "b", "c"]);
    assert!(
        taken
            .iter()
            .all(|id| c.outcome(*id) == Some(Outcome::Unknown))
    );
    for command in ["d", "e", "f"] {
        let again = c.propose(N1, command);
        assert!(matches!(c.outcome(again), Some(Outcome::Appended(_))));
    }
    c.deliver_all();
    assert_eq!(c.commands(N1), ["a", "b", "c", "d", "e", "f"]);
}
