//! What leases rest on, tick by tick: how long a promise holds, and that a lease that was given up stays
//! given up.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

const E: u32 = 10;

fn leased(id: NodeId) -> Config {
    Config {
        election_ticks: E,
        heartbeat_ticks: 2,
        lease: Some(Lease { drift_ppm: 0 }),
        ..Config::new(id, GROUP, 1)
    }
}

/// Node 1 leads three nodes with leases.
fn led() -> Rig {
    let mut rig = Rig::with(3, &[], leased);
    for id in 1..=3 {
        (1..E).for_each(|_| rig.tick(id).unwrap());
    }
    rig.elect(1).unwrap();
    rig.run(2 * E).unwrap();
    rig
}

/// What node 3 says to node 2 in a term.
fn said(term: Term, message: Message) -> Input {
    Input::Received(Envelope {
        group: GROUP,
        from: NodeId(3),
        incarnation: Incarnation(1),
        to: NodeId(2),
        term,
        message,
    })
}

/// Does this voter give node 3 its vote in `term`?
fn votes(raft: &Raft, term: Term, forced: bool) -> bool {
    let mut raft = raft.clone();
    let last = LogId {
        term: Term(term.0 - 1),
        index: Index(1_000),
    };
    raft.step(said(term, Message::Vote { last, forced }), &mut Vec::new());
    (raft.term(), raft.vote()) == (term, Some(NodeId(3)))
}

#[test]
fn a_promise_outlasts_a_term_and_holds_for_one_least_election_timeout() {
    for planted in [None, Some(Plant::PromiseEndsWithTerm)] {
        let mut rig = led();
        if let Some(planted) = planted {
            rig.node_mut(2).raft.plant(planted);
        }
        // A heartbeat arrives and is answered; then node 2 hears of a later term, and follows nobody.
        let term = rig.raft(1).term();
        while rig.network.is_empty() {
            rig.tick(1).unwrap();
        }
        rig.settle().unwrap();
        let mut raft = rig.raft(2).clone();
        let later = term.next().unwrap();
        let mut out = Vec::new();
        raft.step(said(later, Message::VoteReply { granted: false }), &mut out);
        assert_eq!((raft.term(), raft.leader()), (later, None));
        for tick in 0..2 * E {
            let (vote, forced) = (votes(&raft, later, false), votes(&raft, later, true));
            assert_eq!(vote, tick >= E || planted.is_some(), "tick {tick}");
            assert!(forced, "tick {tick}: the leader itself asks for it");
            // A campaign of its own would be a promise broken too.
            if planted.is_none() && tick < E {
                assert_eq!(raft.role(), RoleKind::Follower, "tick {tick}");
            }
            if raft.role() != RoleKind::Follower {
                break;
            }
            raft.step(Input::Tick, &mut out);
        }
    }
}

#[test]
fn a_new_life_grants_nothing_for_one_least_election_timeout_whoever_asks() {
    let rig = Rig::with(3, &[], leased);
    let mut raft = rig.raft(2).clone();
    for tick in 0..=E {
        for forced in [false, true] {
            let vote = votes(&raft, Term(5), forced);
            assert_eq!(vote, tick >= E, "tick {tick}, {forced}");
        }
        raft.step(Input::Tick, &mut Vec::new());
    }
}

#[test]
fn a_lease_that_was_given_up_does_not_come_back_in_its_term() {
    for transferred in [false, true] {
        let mut rig = led();
        let term = rig.raft(1).term();
        if transferred {
            rig.transfer(1, 2).unwrap();
            let asked = |e: &Envelope| e.message == Message::TimeoutNow;
            assert!(rig.network.iter().any(asked), "node 2 holds everything");
            // It may still act on that when the transfer has long been given up.
            rig.network.clear();
        }
        rig.run_without(&[2], 3 * E).unwrap();
        assert_eq!(rig.raft(1).transfer_target(), None);
        assert_eq!(rig.raft(1).term(), term);
        rig.node_mut(1).reads.clear();
        rig.read(1, ReadBasis::Lease).unwrap();
        rig.settle().unwrap();
        let (_, _, lease) = rig.node(1).reads[0];
        assert_eq!(lease.is_none(), transferred);
    }
}
