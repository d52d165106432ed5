//! What a node tells of itself, where operators and hosts rest on it.

use super::rig::*;
use crate::*;
use alloc::vec::Vec;

fn led() -> Rig {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    rig
}

#[test]
fn a_node_tells_who_it_is_and_how_far_its_disk_is() {
    let mut rig = led();
    for id in 1..=3 {
        let raft = rig.raft(id);
        assert_eq!(raft.id(), NodeId(id));
        assert_eq!(raft.last_issued(), raft.last_durable());
        assert_eq!(raft.verified().0, if id == 1 { 0 } else { 1 });
    }
    let before = rig.raft(1).last_issued();
    rig.propose(1).unwrap();
    rig.propose(1).unwrap();
    let raft = rig.raft(1);
    assert_eq!(raft.last_issued(), before.next().next());
    assert_eq!(raft.last_durable(), before);
    assert_eq!(raft.uncommitted_bytes(), Some(2 * 76));
    assert_eq!(rig.raft(2).uncommitted_bytes(), None);
    rig.sync(1, 1);
    rig.report(1).unwrap();
    assert_eq!(rig.raft(1).last_durable(), before.next());
    assert_eq!(rig.raft(1).election_timeout_ticks(), 10);
    let headers = rig.raft(1).headers().len();
    let bytes = (headers * size_of::<BatchHeader>()) as u64;
    assert_eq!(rig.raft(1).shape_bytes(), bytes);
}

#[test]
fn a_node_is_quiet_when_nothing_is_under_way_and_not_before() {
    // A test that stops at a quiet node, or a host that takes its pause there, must miss nothing.
    let mut rig = Rig::with(1, &[], |id| Config {
        cache_bytes_max: 0,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    assert!(rig.raft(1).is_quiet());
    rig.propose(1).unwrap();
    assert!(!rig.raft(1).is_quiet(), "a write is under way");
    rig.flush(1).unwrap();
    assert!(!rig.raft(1).is_quiet(), "a batch is not applied");
    rig.settle().unwrap();
    assert!(rig.raft(1).is_quiet());
    // After a restart the log comes back from disk.
    rig.crash(1, 0);
    rig.time_out(1).unwrap();
    for _ in 0..3 {
        rig.flush(1).unwrap();
    }
    assert_eq!(rig.node(1).loads.len(), 1);
    assert!(!rig.raft(1).is_quiet(), "a load is under way");
    rig.settle().unwrap();
    assert!(rig.raft(1).is_quiet());
}

#[test]
fn a_leader_that_reads_for_a_peer_is_not_quiet() {
    let mut rig = Rig::with(3, &[], |id| Config {
        cache_bytes_max: 0,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    (0..3).for_each(|_| {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    });
    rig.tick(1).unwrap();
    rig.tick(1).unwrap();
    while rig.node(1).loads.is_empty() {
        assert!(rig.raft(1).is_quiet());
        for envelope in core::mem::take(&mut rig.network) {
            rig.deliver(envelope).unwrap();
        }
        rig.flush(3).unwrap();
    }
    assert!(!rig.raft(1).is_quiet());
}

#[test]
fn reads_and_a_transfer_that_are_under_way_are_told_of() {
    let mut rig = led();
    assert_eq!(rig.raft(1).transfer_target(), None);
    for waiting in 1..=3 {
        rig.read(1, ReadBasis::Quorum).unwrap();
        assert_eq!(rig.raft(1).reads_waiting(), waiting);
        rig.read(2, ReadBasis::Quorum).unwrap();
        assert_eq!(rig.raft(2).reads_waiting(), waiting);
    }
    rig.transfer(1, 3).unwrap();
    assert_eq!(rig.raft(1).transfer_target(), Some(NodeId(3)));
    rig.run(4).unwrap();
    assert_eq!(rig.raft(1).transfer_target(), None);
    assert_eq!(rig.raft(1).reads_waiting(), 0);
}

#[test]
fn a_peer_whose_log_stands_still_while_it_answers_heartbeats_is_told_of() {
    // Its connection for bulk data is dead; who is silent altogether is another matter.
    let mut rig = Rig::with(5, &[], |id| Config {
        check_quorum: false,
        ..Config::new(id, GROUP, 1)
    });
    rig.elect(1).unwrap();
    rig.run(2).unwrap();
    let mut since = None;
    rig.propose(1).unwrap();
    for tick in 1..=60 {
        for envelope in core::mem::take(&mut rig.network) {
            let append = matches!(envelope.message, Message::Append { .. });
            let silent = [envelope.from, envelope.to].contains(&NodeId(5));
            let lost = append && envelope.to == NodeId(3);
            if !silent && !lost {
                rig.deliver(envelope).unwrap();
            }
        }
        (1..=5).for_each(|id| rig.flush(id).unwrap());
        let stalled: Vec<NodeId> = rig.raft(1).stalled_peers().collect();
        if stalled.is_empty() {
            assert_eq!(since, None, "{tick}");
        } else {
            assert_eq!(stalled, [NodeId(3)], "{tick}");
            since = since.or(Some(tick));
        }
        rig.tick(1).unwrap();
    }
    assert!(
        since.is_some_and(|since| (39..44).contains(&since)),
        "{since:?}"
    );
    assert_eq!(rig.raft(2).stalled_peers().count(), 0, "it does not lead");
}

#[test]
fn a_snapshot_that_is_on_its_way_counts_for_what_was_given_before_it() {
    let mut rig = Rig::new(3, 1);
    rig.elect(1).unwrap();
    for _ in 0..5 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    let snapshot = rig.make_snapshot(1).unwrap();
    let received = Completion::SnapshotReceived {
        from: NodeId(1),
        term: Term(1),
        snapshot,
    };
    rig.step(3, Input::Completed(received)).unwrap();
    let raft = rig.raft(3);
    assert_eq!((raft.handed(), raft.applied()), (Index(1), Index(1)));
    assert!(!raft.is_quiet());
    rig.flush(3).unwrap();
    let raft = rig.raft(3);
    assert_eq!((raft.handed(), raft.applied()), (Index(6), Index(1)));
    assert!(!raft.is_quiet());
    rig.report_applied(3).unwrap();
    assert!(rig.raft(3).is_quiet());
}

#[test]
fn fingerprints_tell_states_apart() {
    // Two runs are compared by them: one that is always the same would find no difference.
    let mut seen = alloc::collections::BTreeSet::new();
    let mut rig = led();
    for _ in 0..50 {
        rig.tick(1).unwrap();
        assert!(seen.insert(rig.raft(1).fingerprint()));
        rig.propose(1).unwrap();
        assert!(seen.insert(rig.raft(1).fingerprint()));
        rig.settle().unwrap();
    }
}
