//! Damaged logs (STORAGE.md 3.1, RULES.md 13 to 18; C10, L3, RB-T17, RB-T18, RB-A12): what a node that
//! has lost something may do, and how it becomes whole.

use crate::common::{led, settle};
use duraft_core::{Fault, HardState, Index, Message, NodeId, RoleKind, Term};
use duraft_tests::puppet::says;
use duraft_tests::{Chain, Cluster, Kind, N1, N2, N3, N4, N5, Options, any, loss};

/// Three nodes that hold four acknowledged entries at 2 to 5; everybody is down.
fn all_down() -> Cluster {
    let mut c = led(Options::new(3));
    for command in ["a", "b", "c", "d"] {
        let id = c.propose(N1, command);
        settle(&mut c);
        assert!(c.acknowledged(id));
    }
    for id in [N1, N2, N3] {
        c.crash(id);
    }
    c
}

/// Time passes for everybody.
fn pass(c: &mut Cluster, ticks: u32) {
    for _ in 0..ticks {
        c.tick_all(1);
        c.deliver_all();
    }
}

const WHOLE: [&str; 4] = ["a", "b", "c", "d"];

/// Nobody has applied anything but a beginning of what was acknowledged.
fn nothing_is_lost(c: &Cluster) {
    for id in c.ids() {
        let known = c.commands(id);
        let expected = WHOLE.map(String::from);
        let common = known.len().min(4);
        assert_eq!(known[..common], expected[..common], "n{id}");
    }
}

#[test]
pub(crate) fn crash_c10_a_damaged_follower_repairs_and_loses_nothing() {
    // Could go wrong: the log is cut at the bad record, and what followed it is forgotten or written
    // over (logcabin#200, canonical, PAR).
    for lost in [vec![2], vec![3], vec![2, 4], vec![2, 3, 4], vec![5]] {
        let mut c = led(Options::new(3));
        for command in WHOLE {
            c.propose(N1, command);
        }
        settle(&mut c);
        c.crash(N3);
        c.damage(N3, &loss(lost.clone()));
        c.restart(N3);
        assert!(c.is_damaged(N3));
        c.converge();
        pass(&mut c, 40);
        assert!(!c.is_damaged(N3), "lost {lost:?}\n{}", c.story());
        assert_eq!(c.commands(N3), WHOLE);
        assert_eq!(c.times_healed(N3), 1);
        c.crash(N3);
        c.restart(N3);
        assert!(!c.is_damaged(N3));
    }
}

#[test]
pub(crate) fn rule_13_a_second_start_does_not_look_healthy() {
    // Could go wrong: the damage is forgotten by a crash before it is healed.
    let mut c = all_down();
    c.damage(N3, &loss([3]));
    for _ in 0..3 {
        c.restart(N3);
        pass(&mut c, 60);
        assert!(c.is_damaged(N3));
        assert_eq!(
            c.sent(any().from(N3).kind(Kind::PreVote)).len(),
            0,
            "no candidacy over a gap"
        );
        c.crash(N3);
    }
    // And half-way: what is filled is filled, the rest is still missing.
    c.restart(N3);
    c.hold_disk(N3);
    c.restart(N1);
    c.restart(N2);
    pass(&mut c, 60);
    c.crash(N3);
    c.restart(N3);
    assert!(c.is_damaged(N3), "nothing of the filling was durable");
    c.free_disk(N3);
    c.converge();
    pass(&mut c, 40);
    assert!(!c.is_damaged(N3));
    assert_eq!(c.commands(N3), WHOLE);
}

#[test]
pub(crate) fn rule_16_a_crash_at_every_write_of_healing_leaves_a_node_that_heals() {
    for lost in [vec![3], vec![2, 5], vec![5]] {
        for kept in 0..6 {
            let mut c = led(Options::new(3));
            for command in WHOLE {
                c.propose(N1, command);
            }
            settle(&mut c);
            c.crash(N3);
            c.damage(N3, &loss(lost.clone()).end_unknown());
            c.restart(N3);
            // One write at a time becomes durable, and after `kept` of them the power goes.
            c.hold_disk(N3);
            let mut landed = 0;
            for _ in 0..200 {
                c.tick_all(1);
                c.deliver_all();
                while landed < kept && c.pending(N3) > 0 {
                    c.complete(N3, 1);
                    landed += 1;
                }
            }
            c.crash(N3);
            c.restart(N3);
            c.free_disk(N3);
            c.converge();
            pass(&mut c, 60);
            assert!(!c.is_damaged(N3), "{lost:?}, {kept} writes\n{}", c.story());
            assert_eq!(c.commands(N3), WHOLE);
        }
    }
}

#[test]
pub(crate) fn rule_16_two_damaged_nodes_heal_each_other_without_a_leader() {
    // n1 lacks 3, n2 lacks 4, n3 is down: neither may lead, and each has what the other lacks.
    for (one, two) in [(3, 4), (2, 5), (5, 2), (4, 3)] {
        let mut c = all_down();
        c.damage(N1, &loss([one]));
        c.damage(N2, &loss([two]));
        c.restart(N1);
        c.restart(N2);
        pass(&mut c, 300);
        let leaders = c.leaders();
        assert_eq!(leaders.len(), 1, "lost {one} and {two}\n{}", c.story());
        for id in [N1, N2] {
            assert!(!c.is_damaged(id), "n{id}\n{}", c.story());
            assert_eq!(c.commands(id), WHOLE);
        }
        c.converge();
        assert_eq!(c.commands(N3), WHOLE);
    }
}

#[test]
pub(crate) fn rule_16_what_nobody_has_is_not_made_up() {
    // Both copies at 3 that are up are lost: nobody leads over that hole, until the third comes back.
    let mut c = all_down();
    c.damage(N1, &loss([3]));
    c.damage(N2, &loss([3]));
    c.restart(N1);
    c.restart(N2);
    pass(&mut c, 400);
    assert_eq!(c.leaders(), []);
    nothing_is_lost(&c);
    c.restart(N3);
    c.converge();
    pass(&mut c, 40);
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), WHOLE);
        assert!(!c.is_damaged(id));
    }
}

#[test]
pub(crate) fn rule_16_what_does_not_join_fills_no_gap() {
    // A peer sends another command for the missing place: its digest does not lead to what survives.
    let log = Chain::of_terms(&[1, 1]).and(1, "ours").and(1, "d");
    let other = Chain::of_terms(&[1, 1]).and(1, "theirs").and(1, "d");
    let mut c = Cluster::build(Options::new(3).puppets(&[N1, N2]).log(N3, log.clone()));
    c.crash(N3);
    c.damage(N3, &loss([3]));
    c.restart(N3);
    for chain in [&other, &other, &log] {
        c.tick(N3, 20);
        c.deliver_all();
        let asked = c.take_mail();
        let fetch = asked
            .iter()
            .rev()
            .find(|e| Kind::of(&e.message) == Kind::Fetch);
        let whom = fetch.expect("it asks again").to;
        assert_eq!(c.issued(N3).last(), log.at(2), "nothing was written");
        let answer = Message::Fetched {
            after: log.at(2),
            batches: chain.between(2, 4),
        };
        c.deliver_one(says(whom, N3, 1, answer));
    }
    assert_eq!(c.issued(N3).last(), log.last(), "{}", c.story());
    assert!(
        c.durable(N3)
            .damage()
            .is_none_or(|damage| damage.missing.is_empty())
    );
}

#[test]
pub(crate) fn rule_14_a_node_that_lost_its_vote_asks_every_other_voter_first() {
    // Could go wrong: it votes, acknowledges or counts before it knows in which term it spent its vote.
    let mut c = all_down();
    let left = HardState {
        term: Term(0),
        vote: None,
    };
    c.damage(N3, &loss([]).hard_state(left));
    c.restart(N3);
    c.restart(N1);
    pass(&mut c, 200);
    // n1 and n3 are up: n3 may not help n1 to an election, for n2 may have its lost vote.
    assert_eq!(c.leaders(), []);
    let votes = c.sent(any().from(N3).kind(Kind::VoteReply));
    let life = c.incarnation(N3);
    let granted = votes
        .iter()
        .filter(|e| e.incarnation == life && e.message == Message::VoteReply { granted: true });
    assert_eq!(granted.count(), 0);
    c.restart(N2);
    pass(&mut c, 300);
    assert!(!c.is_damaged(N3), "{}", c.story());
    assert_eq!(c.leaders().len(), 1);
    c.converge();
}

#[test]
pub(crate) fn rule_14_the_vote_of_the_greatest_term_heard_is_spent() {
    // In the term it comes back with it votes for nobody else: it may have voted already.
    let log = Chain::of_terms(&[1, 1]);
    let options = Options::new(3)
        .plain()
        .puppets(&[N2, N3])
        .log(N1, log.clone());
    let mut c = Cluster::build(options);
    c.crash(N1);
    let left = HardState {
        term: Term(1),
        vote: None,
    };
    c.damage(N1, &loss([]).hard_state(left));
    c.restart(N1);
    c.tick(N1, 10);
    c.deliver_all();
    let asked = c.take_mail();
    let queries = asked
        .iter()
        .filter(|e| e.message == Message::TermQuery)
        .count();
    assert!(queries >= 2, "both others are asked");
    let asker = c.incarnation(N1);
    let last = log.last().id;
    for (from, term) in [(N2, 4), (N3, 7)] {
        // Until both have answered nothing counts, and a request for a vote least of all.
        c.deliver_one(says(
            from,
            N1,
            9,
            Message::Vote {
                last,
                forced: false,
            },
        ));
        let granted = c.vote(N1);
        assert!(granted.is_none() || granted == Some(N1), "{granted:?}");
        let voters = c.in_use(N1).voters().collect();
        c.deliver_one(says(from, N1, term, Message::TermReply { asker, voters }));
    }
    assert!(c.term(N1) >= 9, "the greatest term it has heard of");
    let term = c.term(N1);
    assert_eq!(c.vote(N1), Some(N1), "spent");
    c.deliver_one(says(
        N2,
        N1,
        term,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!(c.vote(N1), Some(N1));
    c.deliver_one(says(
        N2,
        N1,
        term + 1,
        Message::Vote {
            last,
            forced: false,
        },
    ));
    assert_eq!(c.vote(N1), Some(N2), "in the next term it votes as before");
}

#[test]
pub(crate) fn rule_14_the_terms_of_a_majority_are_not_enough_with_five_voters() {
    // n5 grants n4 its vote in term 2 and forgets it; the grant is slow. n1 leads term 1 and has its
    // first entry on n2. n5 hears terms from all but n4, and then what n1 has to say. At last the grant
    // arrives, and n3, which lacks the entry, grants too.
    let mut c = Cluster::build(Options::new(5).plain().term(N4, 1));
    c.campaign(N4);
    let requests = c.net.take(any().from(N4));
    let request = |to: NodeId| {
        let asked = |e: &&duraft_core::Envelope| e.to == to && Kind::of(&e.message) == Kind::Vote;
        requests
            .iter()
            .find(asked)
            .cloned()
            .expect("everybody is asked")
    };
    c.deliver_one(request(N5));
    let grants = c.net.take(any().from(N5));
    assert_eq!(c.vote(N5), Some(N4));
    c.crash(N5);
    let left = HardState {
        term: Term(0),
        vote: None,
    };
    c.damage(N5, &loss([]).hard_state(left));
    c.isolate(N4);
    c.restart(N5);
    c.win(N1);
    c.net.cut(N1, N3);
    c.lose(any().to(N3));
    for _ in 0..6 {
        for id in [N1, N5] {
            c.heartbeat(id);
            c.deliver_all();
        }
    }
    let counted = c.commit(N1);
    for grant in grants {
        c.deliver_one(grant);
    }
    c.net.join(N3, N4);
    c.deliver_one(request(N3));
    c.deliver_all();
    assert!(c.is_damaged(N5), "n4 has not told its term");
    assert_eq!(
        counted, 0,
        "n5 acknowledges nothing before n4 has told its term"
    );
}

#[test]
pub(crate) fn rule_15_a_node_with_an_unknown_end_abstains_until_a_leader_has_made_it_whole() {
    // n3 acknowledged 5 and does not know. Its vote would let n2, which lacks 5, lead without it.
    let mut c = led(Options::new(3));
    for command in ["a", "b", "c"] {
        c.propose(N1, command);
    }
    settle(&mut c);
    let d = c.propose(N1, "d");
    c.lose(any().to(N2));
    c.deliver_except(any().to(N2));
    c.lose(any());
    assert!(c.acknowledged(d), "by n1 and n3");
    assert_eq!(c.log(N2).len(), 4);
    c.crash(N1);
    c.crash(N3);
    c.damage(N3, &loss([5]).end_unknown());
    c.restart(N3);
    pass(&mut c, 300);
    assert_eq!(
        c.leaders(),
        [],
        "n2 must not be elected by n3\n{}",
        c.story()
    );
    assert!(c.is_damaged(N3));
    c.restart(N1);
    c.converge();
    pass(&mut c, 60);
    assert!(!c.is_damaged(N3), "{}", c.story());
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), WHOLE);
    }
}

#[test]
pub(crate) fn rule_15_healing_counts_under_one_leader_and_term_only() {
    // The leader that said how far dies before n3 is there: the next one says it anew.
    let mut c = led(Options::new(3));
    for command in WHOLE {
        c.propose(N1, command);
    }
    settle(&mut c);
    c.crash(N3);
    c.damage(N3, &loss([4, 5]).end_unknown());
    c.hold_disk(N3);
    c.restart(N3);
    pass(&mut c, 20);
    assert!(
        !c.sent(any().from(N1).kind(Kind::Heal)).is_empty(),
        "{}",
        c.story()
    );
    assert!(c.is_damaged(N3));
    usurp_without(&mut c, N2, N3);
    // n3 hears of the next term before anything of what n1 sent is durable.
    c.heartbeat(N2);
    c.deliver_all();
    c.free_disk(N3);
    assert!(c.is_damaged(N3), "what n1 said is void");
    assert_eq!(c.sent(any().from(N2).kind(Kind::Heal)).len(), 0);
    pass(&mut c, 60);
    assert!(!c.sent(any().from(N2).kind(Kind::Heal)).is_empty());
    c.converge();
    pass(&mut c, 60);
    assert!(!c.is_damaged(N3));
}

/// `id` leads, while `but` hears nothing.
fn usurp_without(c: &mut Cluster, id: NodeId, but: NodeId) {
    let old = c.leaders()[0];
    c.isolate(but);
    let transfer = c.transfer(old, id);
    c.deliver_all();
    assert!(c.leaders().contains(&id), "{transfer:?}\n{}", c.story());
    c.heal();
}

#[test]
pub(crate) fn rule_15_a_damaged_node_votes_for_no_less_than_it_may_have_acknowledged() {
    // n3 holds 1 to 5 with a hole at 3: it knows that it has acknowledged 5. n2 ends at 4.
    let mut c = led(Options::new(3));
    for command in ["a", "b", "c"] {
        c.propose(N1, command);
    }
    settle(&mut c);
    let d = c.propose(N1, "d");
    c.lose(any().to(N2));
    c.deliver_except(any().to(N2));
    c.lose(any());
    assert!(c.acknowledged(d));
    c.crash(N1);
    c.crash(N3);
    c.damage(N3, &loss([3]));
    c.restart(N3);
    // n2 asks for its vote before it has had a word with it.
    c.lose_patience(N3);
    c.campaign(N2);
    for kind in [
        Kind::PreVote,
        Kind::PreVoteReply,
        Kind::Vote,
        Kind::VoteReply,
    ] {
        c.deliver_only(any().kind(kind));
    }
    assert_eq!(
        c.leaders(),
        [],
        "n2 lacks what n3 knows it has acknowledged"
    );
    pass(&mut c, 300);
    // n2 fills n3's gap, and n3, whole again, is the one that can lead.
    assert_eq!(c.leaders(), [N3], "{}", c.story());
    assert_eq!(c.commands(N2), WHOLE);
    nothing_is_lost(&c);
}

#[test]
pub(crate) fn seed_raftbare_t17_followers_that_lost_their_disks_vote_and_acknowledge_nothing() {
    // RB-T17 wiped both followers in mid-run and wanted commits to go on: unsafe. Here they say nothing
    // that counts, and a cluster without a quorum of healthy disks does not serve.
    let mut c = led(Options::new(3));
    for command in WHOLE {
        c.propose(N1, command);
    }
    settle(&mut c);
    for id in [N2, N3] {
        c.crash(id);
        c.wipe(id);
        c.restart(id);
    }
    let x = c.propose(N1, "x");
    pass(&mut c, 100);
    assert!(
        !c.acknowledged(x),
        "n1's is the only copy that counts\n{}",
        c.story()
    );
    for id in [N2, N3] {
        let life = c.incarnation(id);
        let spoke = |e: &&duraft_core::Envelope| e.incarnation == life;
        for kind in [Kind::Vote, Kind::PreVote] {
            assert_eq!(
                c.sent(any().from(id).kind(kind))
                    .into_iter()
                    .filter(spoke)
                    .count(),
                0
            );
        }
    }
    nothing_is_lost(&c);
}

#[test]
pub(crate) fn seed_raftbare_t18_a_wiped_node_comes_back_by_snapshot() {
    // RB-T18 with a snapshot: one follower loses its disk after the leader has compacted its log.
    let mut c = led(Options::new(3).configure(|config| config.trailing_bytes_max = 0));
    for command in WHOLE {
        c.propose(N1, command);
    }
    settle(&mut c);
    c.crash(N3);
    c.wipe(N3);
    c.take_snapshot(N1);
    c.take_snapshot(N2);
    c.restart(N3);
    c.converge();
    pass(&mut c, 100);
    assert!(!c.is_damaged(N3), "{}", c.story());
    assert_eq!(c.commands(N3), WHOLE);
    // It takes part in full again.
    c.crash(N2);
    pass(&mut c, 100);
    let leader = c.leaders()[0];
    let x = c.propose(leader, "x");
    pass(&mut c, 20);
    assert!(c.acknowledged(x));
}

#[test]
pub(crate) fn seed_raftbare_a12_a_wiped_voter_rejoins_and_never_votes_as_new() {
    // RB-A12, RULES 18. The wiped voter had acknowledged d; only n1 holds it besides.
    let mut c = led(Options::new(3));
    for command in ["a", "b", "c"] {
        c.propose(N1, command);
    }
    settle(&mut c);
    let d = c.propose(N1, "d");
    c.lose(any().to(N2));
    c.deliver_except(any().to(N2));
    c.lose(any());
    assert!(c.acknowledged(d));
    c.crash(N1);
    c.crash(N3);
    c.wipe(N3);
    c.restart(N3);
    pass(&mut c, 400);
    assert_eq!(c.leaders(), [], "n2 and an empty n3 elect nobody");
    c.restart(N1);
    c.converge();
    pass(&mut c, 100);
    assert!(!c.is_damaged(N3), "{}", c.story());
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), WHOLE);
    }
}

#[test]
pub(crate) fn rule_18_a_wiped_node_is_whole_only_with_members_that_are_committed() {
    // Could go wrong: the batch that says who votes is lost again, with the leader that has written it,
    // and a node that counts as whole is never told again.
    let mut c = Cluster::build(Options::new(3).plain().puppets(&[N2, N3]));
    let members = c.first_membership().clone();
    c.crash(N1);
    c.wipe(N1);
    c.restart(N1);
    let asker = c.incarnation(N1);
    let begun = Chain::of_terms(&[1]);
    let lost = begun.clone().and_membership(2, &members);
    let kept = begun.and_noop(3).and_membership(3, &members);
    let heal = |to| Message::Heal {
        asker,
        to: Index(to),
    };
    c.inject(says(N2, N1, 2, lost.append(0, 2, 1)));
    for from in [N2, N3] {
        let voters = members.voters().collect();
        c.deliver_one(says(from, N1, 2, Message::TermReply { asker, voters }));
    }
    c.deliver_one(says(N2, N1, 2, heal(2)));
    c.deliver_all();
    assert_eq!(c.in_use(N1), members, "as far as it knows");
    assert!(c.is_damaged(N1), "{}", c.story());
    c.inject(says(N3, N1, 3, kept.append(0, 2, 1)));
    c.deliver_all();
    assert!(c.in_use(N1).is_unknown(), "{}", c.story());
    assert!(c.is_damaged(N1));
    c.inject(says(N3, N1, 3, kept.append(2, 3, 2)));
    c.deliver_one(says(N3, N1, 3, heal(3)));
    c.deliver_all();
    assert!(c.is_damaged(N1), "{}", c.story());
    c.inject(says(N3, N1, 3, kept.append(3, 3, 3)));
    c.deliver_all();
    assert!(!c.is_damaged(N1), "{}", c.story());
    assert_eq!(c.in_use(N1), members);
}

#[test]
pub(crate) fn liveness_l3_every_follower_converges_from_wherever_it_was() {
    // From a lagging log, a divergent one, a compacted one, a damaged one, a wiped disk.
    let mut c = led(Options::new(5).configure(|config| config.trailing_bytes_max = 0));
    for command in WHOLE {
        c.propose(N1, command);
    }
    settle(&mut c);
    c.isolate(N2);
    c.propose(N1, "e");
    settle(&mut c);
    c.crash(N3);
    c.damage(N3, &loss([2, 5]).end_unknown());
    c.crash(N4);
    c.wipe(N4);
    c.restart(N3);
    c.restart(N4);
    c.heal();
    c.converge();
    pass(&mut c, 100);
    for id in [N1, N2, N3, N4, N5] {
        assert_eq!(c.commands(id), ["a", "b", "c", "d", "e"], "n{id}");
        assert!(!c.is_damaged(id), "n{id}\n{}", c.story());
    }
}

#[test]
pub(crate) fn rule_16_a_leader_that_cannot_read_a_batch_of_its_own_asks_its_followers() {
    let log = Chain::of_terms(&[1, 1, 1, 1]);
    let options = Options::new(3).log(N1, log.clone()).log(N2, log);
    let mut c = Cluster::build(options);
    c.isolate(N3);
    c.elect(N1);
    settle(&mut c);
    c.heal();
    c.hold_loads(N1);
    for _ in 0..3 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    assert!(c.fail_load(N1, duraft_core::LoadError::Corrupt));
    c.deliver_all();
    for _ in 0..4 {
        c.heartbeat(N1);
        c.deliver_all();
        c.fail_load(N1, duraft_core::LoadError::Corrupt);
        c.deliver_all();
    }
    assert_eq!(
        (c.leaders(), c.term(N1)),
        (vec![N1], 2),
        "it need not step down\n{}",
        c.story()
    );
    assert_eq!(
        c.issued(N3).last(),
        c.issued(N1).last(),
        "n3 was served from n2's copy"
    );
}

#[test]
pub(crate) fn rule_18_a_disk_that_was_rolled_back_is_found_by_its_leader_and_stops() {
    // An older copy of the disk is put back, and nobody was told. What n3 acknowledged since is gone.
    let mut c = led(Options::new(3).tolerant());
    c.propose(N1, "a");
    settle(&mut c);
    let old = c.durable(N3).clone();
    c.propose(N1, "b");
    settle(&mut c);
    c.crash(N3);
    c.put_back(N3, old);
    c.restart(N3);
    for _ in 0..4 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    assert!(
        matches!(c.halted(N3), Some(Fault::RolledBack { .. })),
        "{:?}\n{}",
        c.halted(N3),
        c.story()
    );
    assert_eq!(c.role(N1), RoleKind::Leader);
}

#[test]
pub(crate) fn rule_18_a_member_that_pretends_to_be_new_is_found_too() {
    let mut c = led(Options::new(3).tolerant());
    c.propose(N1, "a");
    settle(&mut c);
    c.crash(N3);
    c.put_back_empty(N3);
    c.restart(N3);
    for _ in 0..4 {
        c.heartbeat(N1);
        c.deliver_all();
    }
    assert!(
        matches!(c.halted(N3), Some(Fault::RolledBack { .. })),
        "{}",
        c.story()
    );
}
