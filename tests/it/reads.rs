//! Linearizable reads: what a leader and a follower may show, and when (thesis 6.4; C8, F5, H7, H11).

use crate::common::{led, settle, usurp};
use duraft_core::{Incarnation, Index, Lease, Message, Reject, RoleKind};
use duraft_tests::puppet::says;
use duraft_tests::{Cluster, Kind, N1, N2, N3, Options, Outcome, any};

fn index_of(c: &Cluster, read: duraft_core::ProposalId) -> Option<u64> {
    match c.outcome(read) {
        Some(Outcome::Read(index)) => Some(index.0),
        Some(
            Outcome::Appended(_)
            | Outcome::Applied(_)
            | Outcome::Overwritten(_)
            | Outcome::Rejected(..)
            | Outcome::Done
            | Outcome::Unknown,
        )
        | None => None,
    }
}

fn refused(c: &Cluster, read: duraft_core::ProposalId) -> Option<Reject> {
    match c.outcome(read) {
        Some(Outcome::Rejected(reason, _)) => Some(reason),
        Some(
            Outcome::Appended(_)
            | Outcome::Applied(_)
            | Outcome::Overwritten(_)
            | Outcome::Read(_)
            | Outcome::Done
            | Outcome::Unknown,
        )
        | None => None,
    }
}

#[test]
pub(crate) fn seed_rast_t05_a_read_sees_the_write_it_was_pipelined_behind() {
    // RA-T5: write and read without waiting in between; the read must not be answered before.
    let mut c = led(Options::new(3));
    let x = c.propose(N1, "x");
    c.deliver_all();
    let read = c.read(N1);
    assert_eq!(
        index_of(&c, read),
        None,
        "a quorum must confirm the leader first"
    );
    c.deliver_all();
    assert!(c.acknowledged(x));
    assert_eq!(index_of(&c, read), Some(2));
}

#[test]
pub(crate) fn seed_rast_a10_a_read_waits_for_a_round_begun_after_it_came_in() {
    // Could go wrong: an answer to an earlier round confirms a leader that was deposed in between.
    let mut c = led(Options::new(3));
    c.heartbeat(N1);
    c.deliver(any().kind(Kind::Heartbeat));
    assert_eq!(c.net.waiting(any().kind(Kind::HeartbeatReply)).len(), 2);
    let read = c.read(N1);
    c.deliver(any().kind(Kind::HeartbeatReply));
    assert_eq!(
        index_of(&c, read),
        None,
        "those answers were sent before the read"
    );
    c.deliver_all();
    assert_eq!(index_of(&c, read), Some(1));
}

#[test]
pub(crate) fn seed_rast_a10_reads_that_wait_together_share_a_round() {
    let mut c = led(Options::new(3));
    let before = c.sent(any().kind(Kind::Heartbeat)).len();
    let reads: Vec<_> = (0..20).map(|_| c.read(N1)).collect();
    c.deliver_all();
    for read in &reads {
        assert_eq!(index_of(&c, *read), Some(1));
    }
    let rounds = (c.sent(any().kind(Kind::Heartbeat)).len() - before) / 2;
    assert!(rounds <= 2, "{rounds} rounds for 20 reads");
}

#[test]
pub(crate) fn seed_rast_a10_a_deposed_leaders_read_is_refused_not_answered() {
    // Could go wrong: the old leader answers from a state that misses acknowledged writes.
    let mut c = led(Options::new(3));
    c.isolate(N1);
    c.lose_patience(N3);
    c.elect(N2);
    let y = c.propose(N2, "y");
    c.deliver_all();
    assert!(c.acknowledged(y));
    let read = c.read(N1);
    c.tick(N1, 1);
    c.deliver_all();
    assert_eq!(index_of(&c, read), None);
    c.heal();
    settle(&mut c);
    settle(&mut c);
    assert_eq!(refused(&c, read), Some(Reject::LostLeadership));
}

#[test]
pub(crate) fn rule_reads_a_new_leader_answers_only_after_an_entry_of_its_own_term() {
    // etcd#7331: the new leader's commit index may lag behind what the old one acknowledged.
    let mut c = led(Options::new(3));
    let x = c.propose(N1, "x");
    c.deliver(any().kind(Kind::Append));
    c.deliver(any().kind(Kind::AppendReply));
    assert!(c.acknowledged(x));
    c.lose(any());
    assert_eq!(c.commit(N2), 1, "n2 has not heard of that commit");
    c.isolate(N1);
    c.lose_patience(N3);
    c.win(N2);
    let read = c.read(N2);
    c.deliver(any().kind(Kind::Heartbeat));
    c.deliver(any().kind(Kind::HeartbeatReply));
    assert_eq!(
        index_of(&c, read),
        None,
        "it leads, but cannot know what is committed"
    );
    settle(&mut c);
    let shown = index_of(&c, read).expect("answered by now");
    assert!(shown >= 2, "{shown}");
}

#[test]
pub(crate) fn rule_reads_a_follower_asks_its_leader_and_waits_for_its_state_machine() {
    let mut c = led(Options::new(3));
    let x = c.propose(N1, "x");
    c.deliver_except(any().to(N3));
    c.lose(any().to(N3));
    assert!(c.acknowledged(x));
    let read = c.read(N3);
    assert_eq!(c.applied(N3), 1);
    c.deliver_only(any().kind(Kind::ReadIndex));
    c.deliver_only(any().kind(Kind::Heartbeat));
    c.deliver_only(any().kind(Kind::HeartbeatReply));
    c.deliver_only(any().kind(Kind::ReadIndexReply));
    assert_eq!(index_of(&c, read), None, "n3 has not applied x");
    settle(&mut c);
    assert_eq!(index_of(&c, read), Some(2));
}

#[test]
pub(crate) fn rule_26_read_answers_are_bound_to_the_askers_life() {
    // etcd#20418: an answer to a question of an earlier life answers a question of this one.
    let mut c = led(Options::new(3));
    let x = c.propose(N1, "x");
    settle(&mut c);
    let old = c.read(N3);
    c.deliver_only(any().kind(Kind::ReadIndex));
    c.deliver_only(any().kind(Kind::Heartbeat));
    c.deliver_only(any().kind(Kind::HeartbeatReply));
    assert_eq!(c.net.waiting(any().kind(Kind::ReadIndexReply)).len(), 1);
    c.crash(N3);
    c.restart(N3);
    assert_eq!(c.outcome(old), Some(Outcome::Unknown));
    c.heartbeat(N1);
    c.deliver_except(any().kind(Kind::ReadIndexReply));
    c.propose(N1, "y");
    settle_but_read_answers(&mut c);
    let read = c.read(N3);
    c.deliver(any().kind(Kind::ReadIndexReply));
    assert_eq!(index_of(&c, read), None, "that answer was for another life");
    settle(&mut c);
    assert!(index_of(&c, read).expect("answered") >= 3);
    assert!(c.acknowledged(x));
}

fn settle_but_read_answers(c: &mut Cluster) {
    for _ in 0..3 {
        c.heartbeat(N1);
        c.deliver_except(any().kind(Kind::ReadIndexReply));
    }
}

#[test]
pub(crate) fn rule_26_read_answers_of_nobodys_question_change_nothing() {
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    let heartbeat = Message::Heartbeat {
        commit: Index(0),
        round: 1,
    };
    c.inject(says(N2, N1, 1, heartbeat));
    let read = c.read(N1);
    c.deliver_all();
    let asked = c.take_mail();
    let question = asked.iter().find_map(|e| {
        let Message::ReadIndex { id } = e.message else {
            return None;
        };
        Some(id)
    });
    let id = question.expect("n1 asks its leader");
    for (id, asker, from) in [(id + 1, Incarnation(1), N2), (id, Incarnation(7), N2)] {
        let index = Some(Index(0));
        c.inject(says(
            from,
            N1,
            1,
            Message::ReadIndexReply { id, asker, index },
        ));
        assert_eq!(c.outcome(read), None);
    }
    let reply = Message::ReadIndexReply {
        id,
        asker: Incarnation(1),
        index: Some(Index(0)),
    };
    c.inject(says(N2, N1, 1, reply));
    assert_eq!(index_of(&c, read), Some(0));
}

#[test]
pub(crate) fn rule_reads_a_single_voter_answers_at_once() {
    let mut c = led(Options::new(1));
    let x = c.propose(N1, "x");
    let read = c.read(N1);
    assert!(c.acknowledged(x));
    assert_eq!(index_of(&c, read), Some(2));
}

#[test]
pub(crate) fn rule_reads_waiting_reads_are_bounded_and_say_so() {
    let mut c = led(Options::new(3).configure(|config| config.reads_max = 5));
    let reads: Vec<_> = (0..7).map(|_| c.read(N1)).collect();
    for read in &reads[5..] {
        assert_eq!(refused(&c, *read), Some(Reject::ReadLimit));
    }
    c.deliver_all();
    for read in &reads[..5] {
        assert_eq!(index_of(&c, *read), Some(1));
    }
}

#[test]
pub(crate) fn rule_reads_during_a_joint_membership_both_halves_confirm() {
    // dragonboat#106: a read confirmed by the wrong quorum. n1 and n2 are a majority of the old half,
    // not of the new one.
    let mut c = led(Options::new(3));
    c.join(duraft_tests::N4);
    c.join(duraft_tests::N5);
    let changes = [
        duraft_tests::add(duraft_tests::N4),
        duraft_tests::add(duraft_tests::N5),
        duraft_tests::remove(N2),
        duraft_tests::remove(N3),
    ];
    c.change_by(N1, &changes, duraft_core::Leave::Explicit);
    settle(&mut c);
    c.isolate(duraft_tests::N4);
    c.isolate(duraft_tests::N5);
    let read = c.read(N1);
    c.deliver_all();
    assert_eq!(
        index_of(&c, read),
        None,
        "nobody of the new half has confirmed"
    );
    c.heal();
    settle(&mut c);
    assert!(index_of(&c, read).is_some());
}

/// Lease reads, with clocks that may run apart by a tenth.
fn leased(voters: u64) -> Options {
    Options::new(voters).configure(|config| {
        config.lease = Some(Lease { drift_ppm: 100_000 });
    })
}

#[test]
pub(crate) fn rule_26_a_lease_answers_without_asking_and_runs_from_the_send_time() {
    let mut c = led(leased(3));
    let x = c.propose(N1, "x");
    settle(&mut c);
    assert!(c.acknowledged(x));
    let read = c.read_by_lease(N1);
    assert_eq!(index_of(&c, read), Some(2), "at once");
    // A round that is answered late gives a lease from when it was sent, not from when it was heard.
    c.heartbeat(N1);
    c.deliver(any().kind(Kind::Heartbeat));
    c.isolate_from_now(N1);
    c.tick(N1, c.options().config.election_ticks - 1);
    c.deliver(any().kind(Kind::HeartbeatReply));
    let late = c.read_by_lease(N1);
    assert_eq!(
        index_of(&c, late),
        None,
        "the lease has run out: a quorum is asked"
    );
}

#[test]
pub(crate) fn rule_26_a_read_whose_lease_ends_before_the_answer_asks_a_quorum() {
    // A pause between the check and the answer: the deadline is looked at again at the end.
    let mut c = led(leased(3));
    c.hold_apply(N1);
    settle(&mut c);
    let read = c.read_by_lease(N1);
    assert_eq!(index_of(&c, read), None);
    c.suspend(N1, 1_000);
    c.free_apply(N1);
    assert_eq!(index_of(&c, read), None, "not on a lease that may be over");
    settle(&mut c);
    assert!(index_of(&c, read).is_some());
}

#[test]
pub(crate) fn schedule_f5_a_lease_never_outlives_the_voters_patience() {
    // F5: check-quorum looks once per election timeout, so a leader could trust itself for two of
    // them while others elect after one. All clocks tick together; n1 is cut off at every moment.
    for cut_after in 0..3 * leased(3).config.election_ticks {
        for seed in 0..4 {
            let mut c = led(leased(3).seed(seed));
            for _ in 0..cut_after {
                c.tick_all(1);
                c.deliver_all();
            }
            c.isolate(N1);
            let mut number = 0;
            for _ in 0..8 * c.options().config.election_ticks {
                c.tick_all(1);
                c.deliver_all();
                for id in [N2, N3] {
                    if c.role(id) == RoleKind::Leader {
                        number += 1;
                        c.propose(id, &format!("{number}"));
                        c.deliver_all();
                    }
                }
                // The rig compares the answer with everything acknowledged by now.
                let read = c.read_by_lease(N1);
                let leads = c.role(N1) == RoleKind::Leader;
                assert!(
                    leads || index_of(&c, read).is_none(),
                    "a node that leads nothing answers nothing"
                );
            }
            assert!(number > 0, "the others went on without n1");
        }
    }
}

#[test]
pub(crate) fn crash_c08_a_restarted_voter_grants_nothing_within_a_lease() {
    // A voter forgets in a crash whom it heard from: while a lease may run, it must not elect another.
    for forced in [false, true] {
        let options = leased(3).configure(|config| {
            config.pre_vote = false;
            config.check_quorum = true;
        });
        let mut c = led(options);
        c.heartbeat(N1);
        c.deliver_all();
        // n1 has a lease from this round on; n2 forgets that it answered it.
        c.crash(N2);
        c.restart(N2);
        let last = c.issued(N2).last().id;
        let term = c.term(N2) + 1;
        c.deliver_one(says(N3, N2, term, Message::Vote { last, forced }));
        c.deliver_all();
        assert_eq!(
            c.vote(N2).filter(|_| c.term(N2) == term),
            None,
            "forced {forced}"
        );
        let read = c.read_by_lease(N1);
        assert!(c.leaders() == [N1] && index_of(&c, read).is_some());
        // When the longest lease is over it votes as before.
        c.lose(any());
        c.isolate(N1);
        let mut ticks = 0;
        while !c.leaders().iter().any(|id| *id != N1) {
            c.tick(N2, 1);
            c.tick(N3, 1);
            c.deliver_all();
            ticks += 1;
            assert!(ticks < 400, "forced {forced}\n{}", c.story());
        }
    }
}

#[test]
pub(crate) fn rule_26_a_leader_gives_its_lease_up_before_it_hands_over() {
    // A forced election ignores that voters hear from a leader: no lease may rest on their patience.
    let mut c = led(leased(3));
    settle(&mut c);
    let before = c.read_by_lease(N1);
    assert!(index_of(&c, before).is_some());
    c.transfer(N1, N2);
    assert_eq!(c.sent(any().kind(Kind::TimeoutNow)).len(), 1);
    let after = c.read_by_lease(N1);
    assert_eq!(index_of(&c, after), None, "asked of a quorum, or refused");
    c.lose(any().to(N1));
    c.deliver_except(any().to(N1));
    assert_eq!(c.role(N2), RoleKind::Leader);
    let y = c.propose(N2, "y");
    c.deliver_except(any().to(N1));
    assert!(c.acknowledged(y));
    let stale = c.read_by_lease(N1);
    assert_eq!(index_of(&c, stale), None);
}

#[test]
pub(crate) fn rule_reads_stale_questions_do_not_outlive_a_leader() {
    // A follower's question dies with its leader's term and is refused, not left open.
    let mut c = led(Options::new(3));
    let read = c.read(N3);
    c.lose(any());
    usurp(&mut c, N2);
    settle(&mut c);
    for _ in 0..4 * c.options().config.election_ticks {
        c.tick_all(1);
        c.deliver_all();
    }
    assert!(c.outcome(read).is_some(), "answered in some way");
}
