//! What a snapshot leaves of the log, and which snapshots count.

use super::rig::*;
use crate::*;

/// What a batch of the rig costs, but for the no-op that begins a term.
const COST: u64 = 76;

/// A lone voter that has applied the entries 1 to 11.
fn eleven(trailing: u64) -> Rig {
    let mut rig = Rig::new(1, 1);
    rig.set_trailing(trailing);
    rig.elect(1).unwrap();
    (0..10).for_each(|_| rig.propose(1).unwrap());
    rig.settle().unwrap();
    assert_eq!(rig.raft(1).applied(), Index(11));
    rig
}

fn start(rig: &Rig, id: u64) -> Index {
    rig.raft(id).log.start().index()
}

fn taken(rig: &mut Rig, snapshot: &Snapshot) {
    let snapshot = snapshot.clone();
    let taken = Input::Completed(Completion::SnapshotTaken { snapshot });
    rig.step(1, taken).unwrap();
}

#[test]
fn a_snapshot_leaves_as_many_batches_as_fit_the_trailing_bytes() {
    // Less, and every peer that is a little late needs a snapshot; more, and the disk fills.
    for (trailing, first) in [
        (0, 11),
        (COST - 1, 11),
        (COST, 10),
        (3 * COST - 1, 9),
        (3 * COST, 8),
        (10 * COST + 63, 1),
        (10 * COST + 64, 0),
        (u64::MAX, 0),
    ] {
        let mut rig = eleven(trailing);
        rig.take_snapshot(1).unwrap();
        assert_eq!(start(&rig, 1), Index(first), "{trailing}");
        let write = &rig.node(1).pending[0];
        assert!(write.snapshot.is_some());
        // A front that stays is not written down anew.
        let dropped = write.compact.map(|start| start.index());
        assert_eq!(dropped, (first > 0).then_some(Index(first)), "{trailing}");
    }
}

#[test]
fn of_two_snapshots_the_later_one_counts_whichever_comes_first() {
    // The log behind the later one is gone by then: the older one could be restored and not continued.
    let mut rig = eleven(10_000);
    let older = rig.make_snapshot(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle().unwrap();
    let later = rig.make_snapshot(1).unwrap();
    taken(&mut rig, &later);
    rig.flush(1).unwrap();
    for late in [&older, &later] {
        taken(&mut rig, late);
        assert!(rig.node(1).pending.is_empty(), "{late:?}");
        assert_eq!(rig.raft(1).snapshot.as_ref(), Some(&later));
    }
    rig.propose(1).unwrap();
    rig.settle().unwrap();
    rig.take_snapshot(1).unwrap();
    let newest = rig.raft(1).snapshot.as_ref().unwrap();
    assert_eq!(newest.position.index(), Index(13));
}

#[test]
fn a_snapshot_that_cannot_be_of_this_state_halts() {
    // Whoever restores it would hold what was never committed, or would miss what was.
    let unapplied = |rig: &mut Rig| {
        rig.propose(1).unwrap();
        rig.flush(1).unwrap();
        rig.raft(1).last()
    };
    let beyond = |rig: &mut Rig| {
        let last = rig.raft(1).last();
        let far = body(1).seal(GROUP, &last, last.term()).unwrap();
        far.header.position()
    };
    let another = |rig: &mut Rig| Position {
        digest: Digest(1),
        ..rig.raft(1).last()
    };
    let kinds: [&dyn Fn(&mut Rig) -> Position; 3] = [&unapplied, &beyond, &another];
    for kind in kinds {
        let mut rig = eleven(0);
        let mut snapshot = rig.make_snapshot(1).unwrap();
        snapshot.position = kind(&mut rig);
        taken(&mut rig, &snapshot);
        assert_eq!(
            rig.raft(1).halted(),
            Some(Fault::UnknownCompletion),
            "{snapshot:?}"
        );
        assert_eq!(rig.raft(1).snapshot, None);
    }
}

#[test]
fn a_snapshot_of_a_state_machine_that_holds_more_than_is_left_of_the_log_is_no_fault() {
    // The disk has lost the end of the log; the state machine keeps its own and has not.
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    (0..10).for_each(|_| rig.propose(1).unwrap());
    rig.settle().unwrap();
    for (more, halts) in [(0, false), (1, true)] {
        rig.node_mut(3).machine_survives = true;
        let mut snapshot = rig.make_snapshot(3).unwrap();
        snapshot.position.id.index.0 += more;
        rig.crash_with(3, |disk| disk.lose_end(5));
        let taken = Completion::SnapshotTaken { snapshot };
        rig.step(3, Input::Completed(taken)).unwrap();
        assert_eq!(rig.raft(3).halted().is_some(), halts, "{more} more");
        assert_eq!(rig.raft(3).snapshot, None);
        rig.run(60).unwrap();
    }
}

#[test]
fn a_leader_keeps_what_a_late_peer_needs_up_to_twice_the_snapshot() {
    // Without it a slow peer needs one snapshot after the other; without a bound it fills the disk.
    for (behind, kept) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
        let mut rig = Rig::new(3, 1);
        rig.set_trailing(0);
        rig.elect(1).unwrap();
        (0..4).for_each(|_| rig.propose(1).unwrap());
        rig.settle().unwrap();
        for _ in 0..behind {
            rig.propose(1).unwrap();
            rig.settle_without(&[3]).unwrap();
        }
        // A snapshot of 100 bytes: two batches of 76 fit twice that.
        let last = rig.raft(1).applied().0;
        rig.take_snapshot(1).unwrap();
        assert_eq!(start(&rig, 1), Index(last - kept), "{behind} behind");
    }
    // Exactly twice the snapshot's size.
    let mut rig = Rig::new(3, 1);
    rig.set_trailing(0);
    rig.elect(1).unwrap();
    rig.propose(1).unwrap();
    rig.settle_without(&[3]).unwrap();
    let mut snapshot = rig.make_snapshot(1).unwrap();
    snapshot.file.bytes = COST / 2;
    taken(&mut rig, &snapshot);
    assert_eq!(start(&rig, 1), Index(1));
}

#[test]
fn a_leader_keeps_nothing_for_a_peer_that_does_not_move() {
    // It has been away for four election timeouts: a snapshot is what it needs.
    for (ticks, kept) in [(39, 1), (40, 0)] {
        let mut rig = Rig::new(3, 1);
        rig.set_trailing(0);
        rig.elect(1).unwrap();
        rig.run(2).unwrap();
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
        rig.run_without(&[3], ticks).unwrap();
        let last = rig.raft(1).applied().0;
        rig.take_snapshot(1).unwrap();
        assert_eq!(start(&rig, 1), Index(last - kept), "{ticks}");
    }
}
