//! Crash scenarios (C1-C7): the schedules with the outcome carried to the end, write errors, torn hard
//! state, and a crash of any set of nodes at every step of S20 with every prefix of what was being
//! written.

use duraft_core::{Completion, Fault, Input, NodeId, Reject, RoleKind, Term};
use duraft_tests::{Cluster, Kind, N1, N2, N3, Options, Outcome, any};

fn led(options: Options) -> Cluster {
    let mut c = Cluster::build(options);
    c.elect(N1);
    c.heartbeat(N1);
    c.deliver_all();
    c
}

#[test]
pub(crate) fn crash_c01_two_campaigns_for_one_term_give_one_leader() {
    // F2 with both campaigns brought to the voters: every message of the first life is kept and
    // delivered in the second, for every point at which the first life dies.
    for completed in 0..=1 {
        for plain in [true, false] {
            let options = Options::new(3);
            let mut c = Cluster::build(if plain { options.plain() } else { options });
            c.hold_disk(N1);
            c.campaign(N1);
            c.deliver_except(any().kind(Kind::Vote));
            c.complete(N1, completed);
            let asked = c.net.waiting(any().kind(Kind::Vote)).len();
            assert_eq!(asked, 2 * completed, "asked when the vote is durable");
            c.crash(N1);
            c.restart(N1);
            assert_eq!(c.term(N1), completed as u64);
            c.free_disk(N1);
            c.campaign(N1);
            c.deliver_all();
            c.converge();
            let lives = c.incarnation(N1);
            let first = c.history.leader_of(Term(1));
            assert!(first.is_none() || completed == 1 || first == Some((N1, lives)));
        }
    }
}

#[test]
pub(crate) fn crash_c02_an_old_grant_does_not_elect_the_next_life() {
    // F3 with the grant of the first life delayed until the second asks; n2's entry is committed by
    // n2 and n3 in between, so a leader n1 without it would lose it.
    let mut c = Cluster::build(Options::new(3).plain());
    c.elect(N2);
    c.heartbeat(N2);
    c.deliver_all();
    c.campaign(N1);
    c.deliver(any().kind(Kind::Vote).to(N3));
    let grant = c.net.take(any().kind(Kind::VoteReply).from(N3));
    assert_eq!(grant.len(), 1, "n3 grants");
    c.crash(N1);
    c.lose(any());
    c.restart(N1);
    assert_eq!((c.term(N1), c.vote(N1)), (2, Some(N1)));
    // n2 learns of term 2 from n3, steps down, and leads again in term 3.
    c.isolate(N1);
    c.heartbeat(N2);
    c.deliver_all();
    assert_eq!((c.role(N2), c.term(N2)), (RoleKind::Follower, 2));
    c.elect(N2);
    let x = c.propose(N2, "x");
    c.deliver_all();
    assert!(c.acknowledged(x));
    c.heal();
    c.campaign(N1);
    for envelope in grant {
        c.deliver_one(envelope);
    }
    assert_ne!(c.role(N1), RoleKind::Leader);
    c.converge();
    for id in [N1, N2, N3] {
        assert_eq!(c.commands(id), ["x"]);
    }
}

#[test]
pub(crate) fn crash_c03_an_entry_committed_by_the_followers_survives_its_leaders_crash() {
    // F1 with a client who insists: whatever n1's two lives were asked, the committed order is one.
    for landed in 0..=2 {
        let mut c = led(Options::new(3));
        c.hold_disk(N1);
        c.propose(N1, "a");
        c.propose(N1, "b");
        c.deliver_all();
        c.heartbeat(N1);
        c.deliver_all();
        assert_eq!(c.commands(N2), ["a", "b"]);
        c.crash_keeping(N1, landed);
        c.restart(N1);
        c.free_disk(N1);
        let again = c.propose(N1, "c");
        assert_eq!(
            c.outcome(again),
            Some(Outcome::Rejected(Reject::NotLeader, None))
        );
        c.converge();
        for id in [N1, N2, N3] {
            assert_eq!(c.commands(id), ["a", "b"], "{landed} writes survived");
        }
    }
}

#[test]
pub(crate) fn crash_c04_a_single_voters_lost_entries_are_never_applied_by_its_learner() {
    // F4 at every point: the voter dies with 0..=n of its writes durable, and leads again.
    for landed in 0..=3 {
        let mut c = Cluster::build(Options::new(1).learners(&[N2]));
        c.elect(N1);
        c.hold_disk(N1);
        for command in ["a", "b", "c"] {
            c.propose(N1, command);
        }
        c.deliver_all();
        c.heartbeat(N1);
        c.deliver_all();
        assert_eq!(c.commands(N2), [""; 0]);
        c.land(N1, landed);
        c.crash(N1);
        c.restart(N1);
        c.free_disk(N1);
        c.elect(N1);
        c.propose(N1, "d");
        c.converge();
        let expected = [&["a", "b", "c"][..landed], &["d"]].concat();
        assert_eq!(c.commands(N1), expected);
        assert_eq!(c.commands(N2), expected);
    }
}

#[test]
pub(crate) fn crash_c05_a_leader_whose_write_failed_says_nothing_more() {
    // The leader's append fails after its followers have it. Were it to go on and reuse the index,
    // one (term, index) would have two contents.
    let mut c = led(Options::new(3));
    c.hold_disk(N1);
    let old = c.propose(N1, "OLD");
    c.deliver(any().to(N2));
    c.fail_disk(N1);
    assert_eq!(c.halted(N1), Some(Fault::WriteFailed));
    let (sent, writes) = (c.sent(any().from(N1)).len(), c.writes(N1).len());
    let new = c.propose(N1, "NEW");
    assert!(matches!(
        c.outcome(new),
        Some(Outcome::Rejected(Reject::Halted, _))
    ));
    c.deliver_all();
    c.tick(N1, 5 * c.options().config.election_ticks);
    let last = c.last_seq(N1).expect("it has written");
    c.step(N1, Input::Completed(Completion::Persisted { upto: last }));
    assert_eq!(
        c.sent(any().from(N1)).len(),
        sent,
        "no promise from a failed disk"
    );
    assert_eq!(c.writes(N1).len(), writes, "no write after a failed one");
    assert!(!c.acknowledged(old));
    assert_eq!(c.applied(N1), 1);
    c.lose(any().from(N1));
    c.converge();
    assert_eq!(c.commands(N1), c.commands(N2));
    assert_eq!(c.commands(N1), c.commands(N3));
    assert!(!c.commands(N1).contains(&"NEW".to_string()));
}

#[test]
pub(crate) fn crash_c05_a_follower_whose_write_failed_neither_acknowledges_nor_votes() {
    // Could go wrong: a poisoned follower that still counts for commit, or elects somebody.
    let mut c = led(Options::new(3));
    c.hold_disk(N2);
    let x = c.propose(N1, "x");
    c.isolate(N3);
    c.deliver_all();
    c.fail_disk(N2);
    let sent = c.sent(any().from(N2)).len();
    c.heartbeat(N1);
    c.deliver_all();
    assert!(!c.acknowledged(x), "one disk of three");
    c.heal();
    c.lose_patience(N3);
    c.campaign(N3);
    c.deliver_all();
    c.tick(N2, 5 * c.options().config.election_ticks);
    c.deliver_all();
    assert_eq!(c.sent(any().from(N2)).len(), sent, "not a word");
    c.converge();
    // n1 still holds x durably; whether it leads again decides, and all agree.
    assert_eq!(c.commands(N1), c.commands(N3));
    let expected: &[&str] = if c.acknowledged(x) { &["x"] } else { &[] };
    assert!(c.commands(N1) == expected || c.commands(N1) == ["x"]);
}

#[test]
pub(crate) fn crash_c06_term_and_vote_survive_together_or_not_at_all() {
    // A torn hard state: every write that changes it carries both, and whichever prefix of the
    // writes survives, the vote given is the vote kept.
    for kept in 0..=2 {
        let mut c = Cluster::build(Options::new(3).plain());
        c.hold_disk(N3);
        c.campaign(N1);
        c.deliver(any().kind(Kind::Vote).to(N3));
        c.campaign(N2);
        c.campaign(N2);
        c.deliver(any().kind(Kind::Vote).to(N3));
        let pending = c.pending_writes(N3);
        assert!(pending.len() <= 2 && !pending.is_empty());
        let states: Vec<_> = pending
            .iter()
            .filter_map(|write| write.hard_state)
            .collect();
        assert_eq!(
            states.len(),
            pending.len(),
            "term and vote in one write each"
        );
        c.crash_keeping(N3, kept);
        let recovered = c.durable(N3).hard_state;
        let expected = match kept.min(states.len()) {
            0 => duraft_core::HardState::default(),
            n => states[n - 1],
        };
        assert_eq!(recovered, expected);
        c.restart(N3);
        c.converge();
    }
}

/// The steps of S20: four proposals, all disks held, then completions one at a time.
const NODES: [NodeId; 3] = [N1, N2, N3];

#[derive(Clone, Copy, Debug)]
enum Act {
    Propose(&'static str),
    Deliver(NodeId),
    Complete(NodeId),
    Beat,
}

const S20: [Act; 24] = [
    Act::Propose("a"),
    Act::Propose("b"),
    Act::Deliver(N2),
    Act::Propose("c"),
    Act::Deliver(N3),
    Act::Complete(N2),
    Act::Propose("d"),
    Act::Deliver(N1),
    Act::Complete(N3),
    Act::Deliver(N1),
    Act::Deliver(N2),
    Act::Complete(N1),
    Act::Complete(N2),
    Act::Deliver(N1),
    Act::Beat,
    Act::Deliver(N3),
    Act::Complete(N3),
    Act::Deliver(N1),
    Act::Complete(N1),
    Act::Deliver(N2),
    Act::Complete(N2),
    Act::Deliver(N1),
    Act::Complete(N1),
    Act::Deliver(N3),
];

fn perform(c: &mut Cluster, act: Act) {
    match act {
        Act::Propose(command) => {
            c.propose(N1, command);
        }
        Act::Deliver(to) => {
            c.deliver(any().to(to));
        }
        Act::Complete(id) => c.complete(id, 1),
        Act::Beat => c.heartbeat(N1),
    }
}

/// Every number of surviving writes for each crashed node.
fn survivors(c: &Cluster, crashed: &[NodeId]) -> Vec<Vec<usize>> {
    crashed.iter().fold(vec![Vec::new()], |all, id| {
        let kept = 0..=c.pending(*id);
        let extend = |begun: Vec<usize>| {
            kept.clone().map(move |k| {
                let mut next = begun.clone();
                next.push(k);
                next
            })
        };
        all.into_iter().flat_map(extend).collect()
    })
}

#[test]
pub(crate) fn crash_c07_every_crash_set_and_every_surviving_prefix_at_every_step_of_s20() {
    // Could go wrong: any acknowledged or applied command lost, any order applied twice or
    // differently. The rig's history checks decide; each world is then healed and must converge.
    let mut options = Options::new(3);
    options.record = false;
    options.check_replay = false;
    let mut c = led(options);
    for id in NODES {
        c.hold_disk(id);
    }
    let (mut worlds, mut unsynced) = (0, 0);
    for act in S20 {
        perform(&mut c, act);
        for set in 1..8_u32 {
            let crashed: Vec<NodeId> = (0..3)
                .filter(|bit| set & (1 << bit) != 0)
                .map(|bit| NODES[bit])
                .collect();
            for kept in survivors(&c, &crashed) {
                let mut world = c.clone();
                for (id, kept) in crashed.iter().zip(kept) {
                    unsynced += usize::from(world.pending(*id) > kept);
                    world.crash_keeping(*id, kept);
                }
                let before: Vec<String> = NODES.iter().flat_map(|id| world.commands(*id)).collect();
                world.converge();
                let after = world.commands(N1);
                assert!(before.iter().all(|command| after.contains(command)));
                let order: Vec<&str> = after.iter().map(String::as_str).collect();
                assert_eq!(order, ["a", "b", "c", "d"][..order.len()]);
                worlds += 1;
            }
        }
    }
    assert!(worlds > 1_000, "{worlds} worlds were explored");
    assert!(unsynced > 1_000, "{unsynced} crashes lost writes under way");
}
