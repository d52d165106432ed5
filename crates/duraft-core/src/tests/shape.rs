//! RULES.md 25: the log's shape is bounded in memory, and what has left it comes back through loads.

use super::rig::*;
use crate::pages::PAGES_HELD;
use crate::*;
use std::eprintln;

/// Bytes of headers that may be held, and what a page of them may cost.
const SHAPE: u64 = 2_000;
const PAGE: u64 = 800;

fn small(id: NodeId) -> Config {
    Config {
        shape_bytes_max: SHAPE,
        cache_bytes_max: 500,
        append_bytes_max: PAGE,
        ..Config::new(id, GROUP, 1)
    }
}

/// Node 1 leads and has `entries` entries, applied and durable. Node 3 was away all the time.
fn grown(entries: u32, plant: Option<Plant>) -> (Rig, u64) {
    let mut rig = Rig::with(3, &[], small);
    rig.plant = plant;
    if let Some(plant) = plant {
        (1..=3).for_each(|id| rig.node_mut(id).raft.plant(plant));
        rig.local_checks = false;
    }
    rig.elect(1).unwrap();
    let mut peak = 0;
    for i in 0..entries {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
        if i % 20 == 0 {
            rig.run_without(&[3], 1).unwrap();
        }
        peak = peak.max(rig.raft(1).shape_bytes());
    }
    rig.run_without(&[3], 3).unwrap();
    assert_eq!(rig.raft(1).applied(), rig.raft(1).last().index());
    (rig, peak)
}

#[test]
fn rule_25_the_shape_is_bounded_and_a_peer_that_needs_the_old_log_gets_it() {
    let (mut rig, peak) = grown(2_000, None);
    // A line for each page of some ten batches, and the headers of the last ones.
    let all = 2_000 * size_of::<BatchHeader>() as u64;
    let lines = 2_000 / 10 * 72;
    eprintln!("2000 batches: the shape took {peak} bytes at most, all headers would take {all}");
    assert!(peak < SHAPE + 2 * lines && peak < all / 3, "{peak}");
    let (held, begin) = (rig.raft(1).shape_start(), rig.raft(1).start());
    assert!(held.index() > Index(1_900) && begin == Position::START);
    let mut most = 0;
    for _ in 0..400 {
        rig.run(1).unwrap();
        most = most.max(rig.raft(1).shape_bytes());
        if rig.raft(3).applied() == rig.raft(1).last().index() {
            break;
        }
    }
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
    assert_eq!(rig.installed, 0, "from the log, not by a snapshot");
    eprintln!("{} pages read back, {most} bytes at most", rig.pages);
    assert!(rig.pages > 100);
    let pages = PAGES_HELD as u64 * 11 * size_of::<BatchHeader>() as u64;
    assert!(most < peak + pages, "{most}");
}

#[test]
fn rule_25_a_shape_that_only_grows_is_found() {
    let (_, peak) = grown(500, Some(Plant::KeepsShape));
    assert!(peak > 400 * size_of::<BatchHeader>() as u64, "{peak}");
}

#[test]
fn rule_25_a_snapshot_that_took_long_is_counted_where_it_stands() {
    let (mut rig, _) = grown(100, None);
    let snapshot = rig.make_snapshot(1).expect("something is applied");
    for _ in 0..300 {
        rig.propose(1).unwrap();
        rig.settle_without(&[3]).unwrap();
    }
    let held = rig.raft(1).shape_start().index();
    assert!(snapshot.position.index() < held, "it has left memory");
    let position = snapshot.position;
    rig.step(1, Input::Completed(Completion::SnapshotTaken { snapshot }))
        .unwrap();
    assert_eq!(rig.raft(1).snapshot(), None, "it is looked for");
    rig.settle_without(&[3]).unwrap();
    assert_eq!(rig.raft(1).snapshot().map(|s| s.position), Some(position));
    rig.run(100).unwrap();
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
}

#[test]
fn rule_25_a_hole_in_the_old_log_is_filled_by_who_has_it_on_disk_only() {
    let (mut rig, _) = grown(300, None);
    rig.run(200).unwrap();
    rig.crash_with(3, |disk| disk.lose(50..=60));
    for _ in 0..100 {
        rig.run(1).unwrap();
    }
    assert_eq!(rig.raft(3).damage_status(), None);
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
}

#[test]
fn rule_25_where_the_old_log_cannot_be_read_a_snapshot_is_given() {
    let (mut rig, _) = grown(200, None);
    for _ in 0..200 {
        for id in 1..=3 {
            rig.tick(id).unwrap();
        }
        for envelope in core::mem::take(&mut rig.network) {
            rig.deliver(envelope).unwrap();
        }
        for id in 1..=3 {
            rig.flush(id).unwrap();
            rig.report_applied(id).unwrap();
        }
        let reading = rig.raft(1).paging.reading;
        for load in core::mem::take(&mut rig.node_mut(1).loads) {
            let page = reading.is_some_and(|(page, _)| page == load.id);
            let (load, result) = (load.id, Err(LoadError::Corrupt));
            assert!(page, "nothing else is read");
            rig.step(1, Input::Completed(Completion::Loaded { load, result }))
                .unwrap();
        }
        if core::mem::take(&mut rig.node_mut(1).snapshot_wanted) {
            rig.take_snapshot(1).unwrap();
        }
        while !rig.transfers.is_empty() {
            rig.finish_transfer(0).unwrap();
        }
    }
    assert_eq!(rig.installed, 1);
    assert_eq!(rig.raft(3).last(), rig.raft(1).last());
}

#[test]
fn rule_25_an_old_append_that_comes_again_changes_nothing() {
    let (mut rig, _) = grown(300, None);
    rig.run(200).unwrap();
    let batches = rig.node(1).durable.batches.clone();
    let term = rig.raft(1).term();
    for (from, upto) in [(3, 9), (100, 110), (280, 300), (295, 301)] {
        let before = (rig.raft(2).last(), rig.raft(2).commit());
        let message = Message::Append {
            prev: batches[from - 1].header.position(),
            batches: batches[from..upto].to_vec(),
            commit: Index(5),
        };
        rig.deliver(Envelope {
            group: GROUP,
            from: NodeId(1),
            incarnation: Incarnation(1),
            to: NodeId(2),
            term,
            message,
        })
        .unwrap();
        assert!(rig.node(2).pending.is_empty());
        assert_eq!((rig.raft(2).last(), rig.raft(2).commit()), before);
        rig.run(5).unwrap();
        let progress = rig.raft(1).progress(NodeId(2)).expect("a member");
        assert_eq!(progress.matched, rig.raft(1).last().index());
    }
}
