//! RULES.md 8: one (term, index), two contents. Who has the odd copy is found out, and nobody else
//! stops.

use super::rig::*;
use crate::rng::Rng;
use crate::*;
use alloc::vec::Vec;
use std::eprintln;

/// `count` batches of term 1; from the `odd`th on, counted from 0, with another content.
pub(super) fn batches(count: u64, odd: u64) -> Vec<Batch> {
    let mut end = Position::START;
    let content = |i| if i < odd { i } else { 1_000 + i };
    let seal = |i| {
        let batch = body(content(i)).seal(GROUP, &end, Term(1)).expect("room");
        end = batch.header.position();
        batch
    };
    (0..count).map(seal).collect()
}

/// Nodes with logs of six batches in term 1; those named have other contents from the third on.
pub(super) fn cluster(nodes: u64, odd: &[u64], plant: Option<Plant>) -> Rig {
    let mut rig = Rig::new(nodes, 1);
    rig.plant = plant;
    for id in 1..=nodes {
        let config = Config {
            append_bytes_max: 200,
            ..rig.node(id).config.clone()
        };
        let mut image = rig.node(id).durable.clone();
        image.batches = batches(6, if odd.contains(&id) { 2 } else { 6 });
        image.end = image.batches[5].header.position();
        image.hard_state.term = Term(1);
        rig.boot(config, image, Incarnation(1));
    }
    rig
}

/// Until the leader has something to read, without answering it.
fn until_load(rig: &mut Rig, id: u64) {
    for _ in 0..100 {
        let messages = core::mem::take(&mut rig.network);
        messages
            .into_iter()
            .for_each(|message| rig.deliver(message).unwrap());
        rig.ids().iter().for_each(|id| rig.flush(*id).unwrap());
        if !rig.node(id).loads.is_empty() {
            return;
        }
    }
    panic!("node {id} never looks at its own log");
}

fn is_halted(rig: &Rig, id: u64) -> bool {
    matches!(rig.raft(id).halted(), Some(Fault::Divergence { .. }))
}

fn lead(rig: &mut Rig, id: u64) {
    rig.time_out(id).unwrap();
}

#[test]
fn rule_08_a_follower_with_the_odd_copy_stops_when_its_leader_has_looked() {
    let mut rig = cluster(3, &[2], None);
    lead(&mut rig, 1);
    // Node 2 is asked first, and node 1 has everything on disk only: it reads four batches, two at a time.
    until_load(&mut rig, 1);
    assert!(!is_halted(&rig, 2), "nobody has looked yet");
    rig.run(10).unwrap();
    let read_back = rig.node(1).loads.len();
    assert_eq!((is_halted(&rig, 2), read_back), (true, 0));
    assert_eq!(rig.leader(), Some(1));
    assert_eq!(
        rig.node(2).durable.batches,
        batches(6, 2),
        "nothing was changed"
    );
    rig.propose(1).unwrap();
    rig.run(5).unwrap();
    assert_eq!(rig.raft(1).commit(), Index(8), "the others go on");
    assert_eq!(rig.raft(3).applied(), Index(8));
    assert!(rig.raft(1).halted().is_none() && rig.raft(3).halted().is_none());
}

#[test]
fn rule_08_a_follower_that_stops_unasked_is_found() {
    let mut rig = cluster(3, &[2], Some(Plant::HaltsUnasked));
    lead(&mut rig, 1);
    until_load(&mut rig, 1);
    assert!(is_halted(&rig, 2), "the planted fault");
}

#[test]
fn rule_08_appends_that_are_on_their_way_and_repeated_do_not_stop_a_follower() {
    let mut rig = cluster(3, &[2], None);
    let chain = batches(6, 6);
    let send = |rig: &mut Rig, message| {
        let envelope = said(1, 2, 1, message);
        rig.deliver(envelope).unwrap();
    };
    let ahead = |at: usize, batches| Message::Append {
        prev: chain[at].header.position(),
        batches,
        commit: Index(0),
    };
    let beat = |round| Message::Heartbeat {
        commit: Index(0),
        round,
    };
    for at in 1..5 {
        send(&mut rig, ahead(at, chain[at + 1..].to_vec()));
        send(&mut rig, beat(at as u64));
    }
    assert!(!is_halted(&rig, 2));
    assert!(rig.raft(2).commit() == Index(0) && rig.node(2).pending.is_empty());
    let told = |m: &&Envelope| {
        matches!(
            m.message,
            Message::AppendReply(AppendReply::Divergence { .. })
        )
    };
    assert_eq!(
        rig.network.iter().filter(told).count(),
        4,
        "each is answered"
    );
    send(&mut rig, ahead(2, Vec::new()));
    let (theirs, ours) = (
        chain[2].header.position(),
        batches(3, 2)[2].header.position(),
    );
    let fault = Fault::Divergence { theirs, ours };
    assert_eq!(rig.raft(2).halted(), Some(fault));
}

#[test]
fn rule_08_a_leader_with_the_odd_copy_gives_way_and_stops_nobody_else() {
    // A leader that stops one good follower after the other would leave the odd copy alone.
    let mut rig = cluster(3, &[1], None);
    lead(&mut rig, 1);
    rig.run(200).unwrap();
    assert!(is_halted(&rig, 1));
    assert!([2, 3].iter().all(|id| rig.raft(*id).halted().is_none()));
    let leader = rig.leader().expect("a quorum agrees");
    rig.propose(leader).unwrap();
    rig.run(5).unwrap();
    assert_eq!(rig.raft(2).commit(), rig.raft(leader).last().index());
    assert_eq!(rig.raft(3).last(), rig.raft(2).last());
}

#[test]
fn rule_08_where_nobody_can_tell_nobody_stops_and_nothing_is_committed() {
    let mut rig = cluster(2, &[2], None);
    lead(&mut rig, 1);
    rig.run(200).unwrap();
    assert!([1, 2].iter().all(|id| rig.raft(*id).halted().is_none()));
    assert_eq!(rig.raft(1).commit(), Index(0));
    assert_eq!(rig.node(2).durable.batches[..6], batches(6, 2)[..]);
}

/// The leader's disk holds another content than its memory says, or cannot be read.
fn odd_disk(wrong: bool, plant: Option<Plant>) -> Rig {
    let mut rig = cluster(3, &[2], plant);
    lead(&mut rig, 1);
    until_load(&mut rig, 1);
    if wrong {
        rig.node_mut(1).written.batches[4] = batches(6, 2)[4].clone();
    }
    for _ in 0..20 {
        match (rig.node_mut(1).loads.pop_front(), wrong) {
            (Some(Load { id: load, .. }), false) => {
                let result = Err(LoadError::Corrupt);
                let answer = Completion::Loaded { load, result };
                rig.step(1, Input::Completed(answer)).unwrap();
            }
            (Some(load), true) => {
                rig.node_mut(1).loads.push_front(load);
                rig.answer_load(1).unwrap();
            }
            (None, _) => {}
        }
        let messages = core::mem::take(&mut rig.network);
        messages
            .into_iter()
            .for_each(|message| rig.deliver(message).unwrap());
    }
    rig
}

#[test]
fn rule_08_a_leader_whose_disk_says_otherwise_steps_down() {
    for wrong in [true, false] {
        let rig = odd_disk(wrong, None);
        assert_eq!(rig.raft(1).role(), RoleKind::Follower, "{wrong}");
        assert!(!is_halted(&rig, 2));
        let rig = odd_disk(wrong, Some(Plant::TrustsOwnCopy));
        assert_eq!(
            rig.raft(1).role(),
            RoleKind::Leader,
            "{wrong}: the planted fault"
        );
    }
}

#[test]
fn rule_08_odd_copies_under_random_faults() {
    // One node of three or five has other contents from somewhere on. Messages are lost, repeated and
    // late, and nodes crash: it alone stops, and the others agree and go on.
    let (mut stopped, mut led) = (0, 0);
    for seed in 0..600u64 {
        let mut rng = Rng::new(mix64(seed));
        let nodes = if seed.is_multiple_of(2) { 3 } else { 5 };
        let odd = 1 + u64::from(rng.below(nodes as u32));
        let mut rig = cluster(nodes, &[odd], None);
        for _ in 0..300 {
            let id = 1 + u64::from(rng.below(nodes as u32));
            match rng.below(100) {
                0 => rig.crash(id, rng.below(2) as usize),
                1..25 => rig.tick(id).unwrap(),
                25..50 => rig.flush(id).unwrap(),
                50..60 => rig.answer_load(id).unwrap(),
                60..65 => rig.report_applied(id).unwrap(),
                65..70 => rig.propose(rig.leader().unwrap_or(id)).unwrap(),
                _ if rig.network.is_empty() => {}
                dice => {
                    let at = rng.below((rig.network.len() as u32).min(8)) as usize;
                    let envelope = rig.network[at].clone();
                    if dice > 73 {
                        rig.network.remove(at);
                    }
                    if dice > 70 {
                        rig.deliver(envelope).unwrap();
                    }
                }
            }
            led += u32::from(rig.leader() == Some(odd));
        }
        for _ in 0..400 {
            rig.run(1)
                .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            if is_halted(&rig, odd) {
                break;
            }
        }
        stopped += u32::from(is_halted(&rig, odd));
        rig.run(100).unwrap();
        let leader = rig.leader().unwrap_or_else(|| panic!("seed {seed}"));
        rig.propose(leader).unwrap();
        rig.run(20).unwrap();
        for id in rig.ids().into_iter().filter(|id| *id != odd) {
            let raft = rig.raft(id);
            assert_eq!(raft.halted(), None, "seed {seed}, node {id} of odd {odd}");
            assert_eq!(
                raft.commit(),
                rig.raft(leader).last().index(),
                "seed {seed}"
            );
        }
    }
    eprintln!("600 runs: {stopped} odd copies found, {led} steps under an odd leader");
    assert!(stopped > 500 && led > 1_000);
}
