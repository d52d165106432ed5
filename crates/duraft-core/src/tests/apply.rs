//! What the state machine is given, and when: the window of unapplied bytes at its edges.

use super::rig::*;
use crate::*;

/// What a batch of the rig costs, but for the no-op that begins a term.
const COST: u64 = 76;

fn windowed(unapplied_bytes_max: u64) -> impl Fn(NodeId) -> Config {
    move |id| Config {
        unapplied_bytes_max,
        ..Config::new(id, GROUP, 1)
    }
}

/// A lone voter leads and has applied its first entry.
fn lone(unapplied_bytes_max: u64) -> Rig {
    let mut rig = Rig::with(1, &[], windowed(unapplied_bytes_max));
    rig.elect(1).unwrap();
    rig
}

fn applied(rig: &mut Rig, upto: u64) {
    let upto = Index(upto);
    let applied = Input::Completed(Completion::Applied { upto });
    rig.step(1, applied).unwrap();
}

#[test]
fn as_many_batches_are_handed_over_as_the_window_admits_and_one_always() {
    for (window, handed) in [
        (1, 1),
        (COST, 1),
        (2 * COST - 1, 1),
        (2 * COST, 2),
        (3 * COST, 3),
    ] {
        let mut rig = lone(window);
        (0..5).for_each(|_| rig.propose(1).unwrap());
        rig.flush(1).unwrap();
        assert_eq!(rig.raft(1).commit(), Index(6));
        assert_eq!(rig.raft(1).handed(), Index(1 + handed), "{window}");
        // What is reported makes room for as much again.
        applied(&mut rig, 2);
        assert_eq!(rig.raft(1).handed(), Index(2 + handed), "{window}");
    }
}

#[test]
fn after_a_restart_batches_are_read_back_as_far_as_the_window_admits() {
    // A load that the window has no room for holds memory that was to be bounded; none at all where
    // there is room, and the state machine waits for ever.
    for (window, handed) in [
        (1, 1),
        (COST, 1),
        (2 * COST - 1, 1),
        (2 * COST, 2),
        (3 * COST - 1, 2),
        (3 * COST, 3),
    ] {
        let mut rig = Rig::with(1, &[], |id| Config {
            append_bytes_max: COST,
            ..windowed(window)(id)
        });
        rig.seed_log(1, 1, &[1; 6]);
        rig.time_out(1).unwrap();
        for _ in 0..6 {
            rig.flush(1).unwrap();
            rig.answer_load(1).unwrap();
        }
        assert_eq!(rig.raft(1).commit(), Index(7));
        assert_eq!(rig.raft(1).handed(), Index(handed), "{window}");
        assert!(rig.node(1).loads.is_empty(), "no load that has no room");
    }
}

#[test]
fn a_report_of_more_than_was_handed_over_halts_and_an_old_one_says_nothing() {
    // Entries count as applied that are nowhere: a snapshot would be named after them.
    let mut rig = lone(1 << 20);
    (0..4).for_each(|_| rig.propose(1).unwrap());
    rig.settle().unwrap();
    rig.set_trailing(0);
    rig.take_snapshot(1).unwrap();
    rig.settle().unwrap();
    for upto in [0, 1, 4, 5] {
        applied(&mut rig, upto);
        assert_eq!(rig.raft(1).applied(), Index(5));
        assert_eq!(rig.raft(1).halted(), None, "{upto} is old");
    }
    rig.propose(1).unwrap();
    applied(&mut rig, 6);
    assert_eq!(rig.raft(1).halted(), Some(Fault::UnknownCompletion));
    assert_eq!(rig.raft(1).applied(), Index(5));
}

#[test]
fn an_answer_to_a_load_that_nobody_has_asked_for_halts() {
    // Whatever else such a host reports cannot be trusted.
    for load in [LoadId(0), LoadId(1), LoadId(99)] {
        let mut rig = lone(1 << 20);
        let result = Err(LoadError::Io);
        let loaded = Completion::Loaded { load, result };
        rig.step(1, Input::Completed(loaded)).unwrap();
        assert_eq!(rig.raft(1).halted(), Some(Fault::UnknownCompletion));
    }
}

#[test]
fn a_peer_whose_load_the_compaction_has_overtaken_is_sent_the_snapshot() {
    // Reading on would be asking others for what nobody keeps.
    let mut rig = Rig::with(3, &[], |id| Config {
        cache_bytes_max: 0,
        ..Config::new(id, GROUP, 1)
    });
    rig.set_trailing(0);
    rig.elect(1).unwrap();
    (0..6).for_each(|_| {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    });
    // Node 3 says where it is, and the leader reads what follows there.
    rig.run_until_load();
    rig.take_snapshot(1).unwrap();
    rig.flush(1).unwrap();
    assert!(rig.transfers.is_empty());
    rig.answer_load(1).unwrap();
    assert_eq!(rig.transfers.len(), 1);
    rig.settle().unwrap();
    assert_eq!((rig.raft(3).applied(), rig.installed), (Index(7), 1));
}
