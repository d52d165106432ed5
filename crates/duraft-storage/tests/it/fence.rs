//! What an open writes, and where: a slot is written only when nothing depends on it any more, and what
//! an open counts on is durable before its own segment says so.

use crate::damage::{filled, repairing, roomy, tail_file, zero_block};
use crate::support::*;
use duraft_core::Position;
use duraft_disk::{
    Disk, DiskOp, Effect, Fault, FaultDisk, Subsets, Survival, TraceEntry, for_each_crash_state,
};
use duraft_storage::{OpenError, WalOptions};
use std::ops::ControlFlow;

const BLOCK: u64 = 4096;

/// Writes and syncs of slots, in order: the slot, and where a write begins with its length.
fn steps(disk: &FaultDisk) -> Vec<(String, Option<(u64, u64)>)> {
    let trace = disk.trace().into_iter();
    let slots = trace.filter(|op| op.name.ends_with(".slot"));
    let step = |op: TraceEntry| {
        let written = (op.op == DiskOp::Write).then_some((op.offset, op.len));
        (op.name.to_string(), written)
    };
    slots.map(step).collect()
}

/// Is this the first write of a segment?
fn begins(at: Option<(u64, u64)>) -> bool {
    at.is_some_and(|(at, len)| at == 0 && len > 2 * BLOCK)
}

/// The slot that an open begins its segment in.
fn fence_slot(disk: &FaultDisk) -> String {
    let mut steps = steps(disk).into_iter().filter(|(_, at)| begins(*at));
    let (slot, _) = steps.next().expect("a segment was begun");
    assert_eq!(steps.next(), None, "one segment");
    slot
}

/// An open that is cut short before its mark: nothing proves its segment.
fn open_without_mark(disk: &FaultDisk, options: &WalOptions, seed: u64) -> (FaultDisk, String) {
    let disk = disk.power_loss(Survival::Nothing);
    let writes = Fault::new(Effect::Io).on(DiskOp::Write).forever();
    for nth in 2.. {
        // The last write of an open is its mark: slots that must be made are written before.
        let tried = disk.fork();
        tried.start_trace();
        tried.inject(writes.clone().nth(nth));
        match reopen(&tried, options, seed) {
            Err(OpenError::Disk(_)) if begun(&tried) => {
                tried.heal();
                let slot = fence_slot(&tried);
                return (tried, slot);
            }
            Err(OpenError::Disk(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    unreachable!("some write is the mark")
}

/// Was the first write of a segment synced?
fn begun(disk: &FaultDisk) -> bool {
    let steps = steps(disk);
    steps
        .windows(2)
        .any(|pair| begins(pair[0].1) && pair[1].1.is_none())
}

#[test]
fn an_open_begins_a_segment_and_proves_it() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    disk.start_trace();
    reopen(&disk, &options(), 3).expect("a healthy store");
    let slot = fence_slot(&disk);
    let at = |block: u64, blocks: u64| (slot.clone(), Some((block * BLOCK, blocks * BLOCK)));
    let sync = (slot.clone(), None);
    assert_eq!(steps(&disk), [at(0, 3), sync.clone(), at(3, 1), sync]);
    for mark in [1, 3] {
        let mut header = [0; 48];
        let file = duraft_disk::Disk::open(&disk, &slot).expect("it was written");
        file.read_at(&mut header, mark * BLOCK).expect("a mark");
        assert_eq!(
            header[16..24],
            header[24..32],
            "a mark is its own watermark"
        );
    }
    assert!(
        disk.trace().iter().all(|op| !op.name.starts_with("STORE")),
        "a whole STORE file stays as it is"
    );
}

#[test]
fn a_segment_that_was_cut_short_is_buried_before_its_slot_is_written() {
    // Were this open cut short as well, header and first block of the two could make one segment.
    let (disk, wal) = fresh(&options());
    drop(wal);
    let (disk, slot) = open_without_mark(&disk, &options(), 3);
    let mut disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &slot, 2);
    disk.start_trace();
    reopen(&disk, &options(), 4).expect("nothing was acknowledged");
    assert_eq!(fence_slot(&disk), slot, "there is no other");
    let steps = steps(&disk);
    assert_eq!(
        steps[0],
        (slot.clone(), Some((2 * BLOCK, BLOCK))),
        "{steps:?}"
    );
    assert_eq!(steps[1], (slot.clone(), None), "{steps:?}");
    assert_eq!(steps[2], (slot, Some((0, 3 * BLOCK))), "{steps:?}");
    disk = disk.power_loss(Survival::Nothing);
    let (_, recovered) = reopen(&disk, &options(), 5).expect("a healthy store");
    assert_eq!(recovered.damage, None);
}

#[test]
fn a_slot_that_an_unproven_segment_freed_is_written_only_where_no_other_is_left() {
    // That segment may be in the cache alone. Without it, the log is what the freed slots hold.
    let tight = WalOptions {
        slots_max: 4,
        ..options()
    };
    let (disk, mut wal) = fresh(&tight);
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(5, Some(2))])
        .expect("a working disk");
    drop(wal);
    let before = disk.power_loss(Survival::Nothing);
    let (disk, first) = open_without_mark(&before, &tight, 3);
    let (disk, second) = open_without_mark(&disk, &tight, 4);
    let (_, third) = open_without_mark(&disk, &tight, 5);
    let mut slots = vec![first, second, third];
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), 3, "{slots:?}");
}

/// The disks that an open leaves which is cut short, one for each place. It may have no room for more
/// slots.
fn cut_short(disk: &FaultDisk, room: bool, seed: u64) -> Vec<FaultDisk> {
    let mut left = Vec::new();
    for mutation in 1.. {
        let tried = disk.fork();
        if !room {
            tried.inject(Fault::new(Effect::NoSpace).on(DiskOp::Create).forever());
            tried.inject(Fault::new(Effect::NoSpace).on(DiskOp::FillZero).forever());
        }
        tried.start_trace();
        tried.crash_at(mutation);
        let _ = reopen(&tried, &options(), seed);
        if !tried.crashed() {
            break;
        }
        left.push(tried);
    }
    left
}

#[test]
fn a_segment_that_only_the_cache_holds_is_durable_before_a_slot_that_it_freed_is_written() {
    // An open is killed, the next one finds its segment in the cache and no room for another, and the
    // power fails.
    let (disk, mut wal) = fresh(&options());
    let mut writer = Writer::new(GROUP);
    let mut end = Position::START;
    for term in 1..=6 {
        let next = noop(GROUP, &end, term);
        end = next.header.position();
        let vote = writer.vote(term, None);
        let append = writer.append(vec![next]);
        wal.commit(&[vote, append]).expect("a working disk");
    }
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let view = |disk: &FaultDisk, seed| {
        let (wal, recovered) = reopen(disk, &options(), seed).expect("a healthy store");
        (recovered.groups.clone(), read_all(&wal, GROUP))
    };
    let expected = view(&disk.fork(), 3);
    let (mut states, mut freed_were_written) = (0, 0);
    for killed in cut_short(&disk, true, 4) {
        let killed = killed.process_crash();
        let segments: Vec<String> = killed.list("wal").expect("a folder of slots");
        for cut in cut_short(&killed, false, 5) {
            let of_before = |(slot, at): &(String, Option<(u64, u64)>)| {
                begins(*at) && segments.iter().any(|name| slot.ends_with(name))
            };
            freed_were_written += u64::from(steps(&cut).iter().any(of_before));
            let subsets = Subsets {
                exhaustive_max: 10,
                drawn: 60,
                torn: 10,
                seed: 6,
                dedupe: true,
            };
            let (_, stopped) = for_each_crash_state(&cut, &subsets, |state| {
                states += 1;
                if view(&state.disk.fork(), 7) == expected {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(format!("{state}\n{:?}", steps(&cut)))
                }
            });
            assert_eq!(stopped, ControlFlow::Continue(()));
        }
    }
    assert!(states > 1000, "{states}");
    assert!(freed_were_written > 3, "{freed_were_written}");
}

#[test]
fn where_the_next_segment_is_lost_the_one_before_it_is_written_again_before_it_counts() {
    // What nothing proved there was copied by an open, and the copy is lost. The original may be in the
    // cache alone.
    let (disk, wal, _, _) = filled(4, &options());
    let begun: Vec<String> = steps(&disk)
        .into_iter()
        .filter_map(|(slot, at)| at.filter(|(at, _)| *at == 0).map(|_| slot))
        .collect();
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let [.., kept, lost, _, _] = &begun[..] else {
        panic!("{begun:?}");
    };
    zero_block(&disk, lost, 0);
    zero_block(&disk, lost, 2);
    disk.start_trace();
    reopen(&disk, &repairing(&options()), 5).expect("for repair");
    let fence = fence_slot(&disk);
    let steps = steps(&disk);
    let of = |slot: &str, at: Option<(u64, u64)>| {
        let found = steps.iter().position(|step| *step == (slot.to_owned(), at));
        found.unwrap_or_else(|| panic!("{slot} {at:?}: {steps:?}"))
    };
    let header = of(kept, Some((0, BLOCK)));
    let block = of(kept, Some((2 * BLOCK, BLOCK)));
    let synced = of(kept, None);
    let begun = steps.iter().position(|(slot, _)| *slot == fence);
    assert!(
        header < block && block < synced && Some(synced) < begun,
        "{steps:?}"
    );
    let others = steps
        .iter()
        .filter(|(slot, _)| *slot != fence && slot != kept);
    assert_eq!(others.count(), 0, "{steps:?}");
}

#[test]
fn either_copy_of_the_store_file_is_enough_and_an_open_writes_both_again() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    for bad in [0, 1] {
        let mut disk = disk.fork();
        for copy in [bad, 1 - bad] {
            zero_block(&disk, "STORE", copy);
            reopen(&disk, &options(), 3).expect("the other copy is whole");
            disk = disk.power_loss(Survival::Nothing);
        }
    }
}

#[test]
fn a_lost_checkpoint_of_a_young_store_leaves_another_that_says_which_groups_there_are() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let mut disk = disk.power_loss(Survival::Nothing);
    for life in 0..4 {
        disk.start_trace();
        let (mut wal, _) = reopen(&disk, &options(), 3 + life).expect("a healthy store");
        let mut writer = Writer::new(GROUP);
        wal.commit(&[writer.vote(5 + life, Some(2))])
            .expect("a working disk");
        drop(wal);
        let slot = fence_slot_of_life(&disk);
        disk = disk.power_loss(Survival::Nothing);
        let rotten = disk.fork();
        zero_block(&rotten, &slot, 2);
        let (_, recovered) = reopen(&rotten, &repairing(&options()), 20).expect("for repair");
        assert!(recovered.groups.contains_key(&GROUP), "life {life}");
    }
}

/// The slot of the first segment that was begun.
fn fence_slot_of_life(disk: &FaultDisk) -> String {
    let mut begun = steps(disk).into_iter();
    let found = begun.find(|(_, at)| at.is_some_and(|(at, len)| at == 0 && len > 2 * BLOCK));
    found.expect("an open begins one").0
}

#[test]
fn an_open_goes_on_with_the_slots_that_the_store_has() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let other = WalOptions {
        slot_bytes: 1 << 20,
        ..options()
    };
    let (mut wal, _) = reopen(&disk, &other, 3).expect("a healthy store");
    assert_eq!(wal.options().slot_bytes, options().slot_bytes);
    assert_eq!(wal.commit_bytes_fit(), options().write_bytes_max(1));
    let mut writer = Writer::new(GROUP);
    for term in 1..9 {
        wal.commit(&[writer.vote(term, None)])
            .expect("a working disk");
    }
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    reopen(&disk, &options(), 4).expect("a healthy store");
}

#[test]
fn a_store_without_any_header_has_lost_everything() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    for name in duraft_disk::Disk::list(&disk, "wal").expect("slots") {
        zero_block(&disk, &format!("wal/{name}"), 0);
    }
    match reopen(&disk, &repairing(&options()), 3) {
        Err(OpenError::Damaged(damage)) => assert!(damage.no_checkpoint),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_open_says_what_it_read() {
    let (disk, wal, _, _) = filled(5, &roomy());
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 6);
    let (_, recovered) = reopen(&disk, &repairing(&roomy()), 3).expect("for repair");
    let report = recovered.report;
    // Bootstrap's segment with a checkpoint and its end, and the open's; a vote, and what echoes it; and
    // four batches of five.
    assert_eq!((report.segments, report.blocks), (2, 7));
    assert_eq!(report.records, 2 + 2 + 2 + 2 + 3);
    assert_eq!(report.contiguous_commit + 3, report.proven_commit + 1);
    let [hole] = &report.holes[..] else {
        panic!("{:?}", report.holes);
    };
    assert_eq!(
        (hole.first, hole.last),
        (report.contiguous_commit + 1, Some(hole.first))
    );
}
