//! Which segments are the log, and what the other slots show.

use super::*;
use crate::errors::Hole;
use crate::recovery::decide::{Layout, decide};
use crate::recovery::survey::survey;
use duraft_disk::{Disk, FaultDisk, FaultOptions};

/// What an open makes of these slots.
fn decided(slots: &[Slot]) -> Layout {
    decided_around(slots, None)
}

/// What an open makes of these slots, of which the disk refuses to read one block, as file and number.
fn decided_around(slots: &[Slot], refused: Option<(&str, u32)>) -> Layout {
    let disk = FaultDisk::new(FaultOptions::default());
    disk.create_dir("wal").expect("a working disk");
    for slot in slots {
        let name = format!("wal/{:08x}.slot", slot.number);
        let file = disk.create(&name).expect("a working disk");
        file.write_at(&slot.bytes, 0).expect("a working disk");
    }
    if let Some((name, block)) = refused {
        disk.make_unreadable(name, block_offset(block)..block_offset(block + 1));
    }
    let slot_bytes = block_offset(SLOT_BLOCKS);
    let mut images = survey(&disk, Seed::of(&STORE), slot_bytes, true).expect("slots");
    let layout = decide(&lens(), &mut images, true).expect("a working disk");
    layout.expect("there is a tail")
}

/// The numbers of the segments that are the log, oldest first.
fn chain(layout: &Layout) -> Vec<u64> {
    layout.parts.iter().map(|part| part.header.seq).collect()
}

/// Segments 1 and 2 of one log: three blocks and two.
fn two() -> [(SegmentHeader, Slot, Vec<BlockHeader>); 2] {
    let older = first(1);
    let mut slot = Slot::of(&older);
    let run = slot.run(&older, 3);
    let newer = behind(&older, &run[2]);
    let mut second = Slot::of(&newer);
    let blocks = second.run(&newer, 2);
    [(older, slot, run), (newer, second, blocks)]
}

#[test]
fn the_newest_segment_with_a_first_block_is_the_tail() {
    let [(older, slot, _), (newer, second, _)] = two();
    let layout = decided(&[slot, second, Slot::free(3)]);
    assert_eq!(chain(&layout), [older.seq, newer.seq]);
    assert_eq!(layout.parts[0].declared, newer.previous);
    assert_eq!((layout.abandoned, layout.tail.contiguous), (0, 14));
    assert!(layout.parts.iter().all(|part| part.lost_before.is_none()));
    assert!(layout.lost_after.is_none());
    assert_eq!(layout.filled, [true; 3]);
    assert_eq!(layout.evidence, []);
}

#[test]
fn what_is_proven_needs_no_way_back() {
    // A tail that nothing proves may be gone after a power failure: then the log is found without it.
    let [(_, slot, _), (newer, mut second, _)] = two();
    second.zero(3);
    let layout = decided(&[slot.clone(), second.clone()]);
    assert_eq!((layout.tail.contiguous, layout.tail.watermark), (13, 12));
    assert_eq!(layout.fallback, [0]);
    second.put(mark(&newer, MARK_B, 13));
    assert_eq!(decided(&[slot, second]).fallback, []);
}

#[test]
fn the_way_back_goes_on_to_the_first_proven_segment() {
    // Three opens in a row whose segments nothing proves, each in the place of the one before.
    let [(older, slot, run), _] = two();
    let mut slots = vec![Slot::free(0), slot];
    for seq in 2..5 {
        let header = SegmentHeader {
            seq,
            nonce: 50,
            slot: u32::try_from(seq).expect("a small number"),
            generation: 3 + u32::try_from(seq).expect("a small number"),
            ..behind(&older, &run[1])
        };
        let mut fence = Slot::of(&header);
        fence.run(&header, 1);
        slots.push(fence);
    }
    let layout = decided(&slots);
    assert_eq!(chain(&layout), [1, 4]);
    let mut needed = layout.fallback.clone();
    needed.sort_unstable();
    needed.dedup();
    assert_eq!(needed, [1, 2, 3]);
}

#[test]
fn a_header_without_a_first_block_never_came_to_be() {
    let [(_, slot, _), (newer, second, blocks)] = two();
    let third = behind(&newer, &blocks[1]);
    let fourth = SegmentHeader {
        seq: 4,
        slot: 4,
        ..third
    };
    let layout = decided(&[slot, second, Slot::of(&third), Slot::of(&fourth)]);
    assert_eq!(chain(&layout), [1, 2]);
    assert_eq!(layout.abandoned, 2);
    // Its header says that everything before it was durable.
    assert_eq!(layout.tail.watermark, 14);
    assert_eq!(layout.tail.proven_end, third.previous);
    // What says more than the log shows is all there is of it, should the log have lost something.
    assert_eq!(layout.evidence, [2, 3]);
    assert_eq!(layout.seen.segment, 4);
    assert!(layout.lost_after.is_none());
}

#[test]
fn a_header_that_is_proven_is_no_write_that_was_cut_short() {
    let [(_, slot, _), (newer, mut second, _)] = two();
    second.zero(2);
    second.zero(3);
    for (proves, tail) in [(12, 1), (13, 2), (14, 2)] {
        let mut second = second.clone();
        second.put(mark(&newer, MARK_B, proves));
        let layout = decided(&[slot.clone(), second]);
        assert_eq!(
            layout.parts.last().expect("a tail").header.seq,
            tail,
            "{proves}"
        );
        let holes = found(&layout.tail.items).into_iter();
        let holes: Vec<_> = holes.filter(|item| matches!(item, Lost(..))).collect();
        let expected = (tail == 2).then_some(Lost(13, proves));
        assert_eq!(holes, Vec::from_iter(expected), "{proves}");
    }
}

#[test]
fn blocks_under_a_lost_header_are_damage_where_they_prove_something() {
    let [(_, slot, _), (newer, second, blocks)] = two();
    // The last of them says that the one before it was durable: 13, of the lost segment.
    let mut headless = second.clone();
    headless.zero(0);
    let layout = decided(&[slot.clone(), headless.clone()]);
    assert_eq!(chain(&layout), [1]);
    let lost = Hole {
        segment: 2,
        slot: Some(2),
        first: 13,
        last: None,
    };
    assert_eq!(layout.lost_after, Some(lost));
    assert_eq!(
        (layout.evidence, layout.filled),
        (vec![1], vec![true, true])
    );
    // The first one alone says nothing that the log does not show.
    headless.zero(3);
    let layout = decided(&[slot.clone(), headless.clone()]);
    assert_eq!((layout.lost_after, layout.evidence), (None, vec![1]));
    assert_eq!(layout.seen.commit, 13);
    // A mark alone is enough, under the header of an older life too.
    let stale = SegmentHeader {
        slot: 2,
        generation: 1,
        nonce: 9,
        ..first(0)
    };
    for header in [None, Some(stale)] {
        for (proves, damaged) in [(12, false), (13, true)] {
            let mut reused = header.as_ref().map_or_else(|| headless.clone(), Slot::of);
            reused.zero(2);
            reused.put(mark(&newer, MARK_A, proves));
            let layout = decided(&[slot.clone(), reused]);
            assert_eq!(layout.lost_after.is_some(), damaged, "{header:?} {proves}");
            assert_eq!(layout.filled, [true, true]);
        }
    }
    assert_eq!(blocks.len(), 2);
}

#[test]
fn blocks_of_an_older_life_under_a_newer_header_mean_nothing() {
    let [(_, slot, _), (newer, mut second, blocks)] = two();
    // A slot that is used again keeps what stood behind its new blocks.
    let old = SegmentHeader {
        generation: 1,
        nonce: 9,
        ..first(0)
    };
    second.put(BlockHeader {
        durable: 98,
        ..next(
            &SegmentHeader {
                base_commit: 99,
                ..old
            },
            None,
            0,
        )
    });
    second.put(blocks[0]);
    let stale = next(
        &SegmentHeader {
            base_commit: 99,
            ..old
        },
        Some(&blocks[1]),
        0,
    );
    second.put(BlockHeader {
        durable: 14,
        ..stale
    });
    let layout = decided(&[slot, second]);
    assert_eq!(chain(&layout), [1, newer.seq]);
    assert_eq!((layout.tail.contiguous, layout.tail.watermark), (14, 13));
    assert!(layout.lost_after.is_none());
    assert_eq!(layout.evidence, []);
}

#[test]
fn a_slot_that_shows_nothing_is_filled_before_it_is_used() {
    let [(_, slot, _), (_, second, _)] = two();
    let mut zeros = Slot::free(3);
    zeros.zero(0);
    let mut short = Slot::free(4);
    short.bytes.truncate(BLOCK_BYTES);
    let layout = decided(&[slot, second, zeros, short, Slot::free(5)]);
    assert_eq!(layout.filled, [true, true, false, false, true]);
    assert_eq!(
        layout.evidence,
        [],
        "nor does it show that anything is lost"
    );
}

#[test]
fn a_block_behind_the_run_that_cannot_be_read_is_not_torn() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let one = slot.put(next(&segment, None, 0));
    let two = slot.put(next(&segment, Some(&one), 5000));
    slot.put(mark(&segment, MARK_A, 11));
    assert_eq!((two.block, two.blocks()), (3, 2));
    for (block, lost) in [(MARK_A, false), (5, true), (6, true)] {
        let layout = decided_around(&[slot.clone()], Some(("wal/00000001.slot", block)));
        let blocks = [Commit(10), Commit(11), Lost(12, 0)];
        let expected = if lost { &blocks[..] } else { &blocks[..2] };
        assert_eq!(found(&layout.tail.items), expected, "{block}");
    }
}

#[test]
fn a_copy_of_the_tail_in_another_slot_proves_nothing() {
    let [(_, slot, _), (_, second, _)] = two();
    let copy = Slot {
        number: 5,
        ..second.clone()
    };
    let layout = decided(&[slot, second, copy]);
    assert_eq!(chain(&layout), [1, 2]);
    assert_eq!((layout.lost_after, layout.evidence), (None, vec![]));
}

#[test]
fn a_segment_before_the_first_live_one_is_no_part_of_the_log_though_it_is_named() {
    let [(_, slot, run), _] = two();
    let newest = SegmentHeader {
        seq: 3,
        slot: 3,
        first_live: 2,
        ..behind(&first(1), &run[2])
    };
    let mut third = Slot::of(&newest);
    third.run(&newest, 2);
    let layout = decided(&[slot, third]);
    assert_eq!(chain(&layout), [3]);
    let before = layout.parts[0].lost_before.expect("a segment is gone");
    assert_eq!((before.seq, before.last_commit), (2, None));
}

#[test]
fn counters_leave_room_for_another_life() {
    let [(_, slot, _), (_, second, _)] = two();
    let slots = [slot, second];
    let generation = |change: fn(&mut Seen)| {
        let mut layout = decided(&slots);
        change(&mut layout.seen);
        crate::recovery::fence::next_generation(&layout).ok()
    };
    assert_eq!(generation(|_| ()), Some(4));
    assert_eq!(generation(|seen| seen.segment = u64::MAX / 2), Some(4));
    assert_eq!(generation(|seen| seen.segment = u64::MAX / 2 + 1), None);
    assert_eq!(generation(|seen| seen.commit = u64::MAX / 2), Some(4));
    assert_eq!(generation(|seen| seen.commit = u64::MAX / 2 + 1), None);
    assert_eq!(generation(|seen| seen.generation = u32::MAX), None);
}

#[test]
fn blocks_that_stand_side_by_side_are_one_run() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let long = slot.put(next(&segment, None, 5000));
    let short = slot.put(next(&segment, Some(&long), 0));
    let last = BlockHeader {
        block: 6,
        ..next(&segment, Some(&short), 0)
    };
    let hole = Item::Hole {
        first: 12,
        last: None,
    };
    let items = [long, short].map(Item::Block);
    // The header of the segment stands before them, and the mark between is rewritten all the time.
    assert_eq!(crate::recovery::runs(&items), [(0, 1), (2, 5)]);
    let items = [items[0], items[1], hole, Item::Block(last)];
    assert_eq!(crate::recovery::runs(&items), [(0, 1), (2, 5), (6, 7)]);
    assert_eq!(crate::recovery::runs(&[]), [(0, 1)]);
}

#[test]
fn a_segment_that_is_named_and_gone_is_lost_and_the_one_before_it_stays() {
    let [(older, slot, _), (newer, second, blocks)] = two();
    let mut newest = behind(&newer, &blocks[1]);
    let layout = |newest: &SegmentHeader, slots: &[&Slot]| {
        let mut third = Slot::of(newest);
        third.run(newest, 2);
        let slots = slots.iter().copied().cloned().chain([third]);
        decided(&slots.collect::<Vec<_>>())
    };
    let whole = layout(&newest, &[&slot, &second]);
    assert_eq!(chain(&whole), [1, 2, 3]);
    let lost = layout(&newest, &[&slot]);
    assert_eq!(chain(&lost), [older.seq, 3]);
    let before = lost.parts[1].lost_before.expect("a segment is gone");
    assert_eq!((before.seq, before.last_commit), (2, Some(14)));
    assert_eq!(lost.parts[0].declared, None);
    // Another life of the same number is not the one that is meant.
    let mut other = Slot::of(&SegmentHeader { nonce: 1, ..newer });
    other.run(&SegmentHeader { nonce: 1, ..newer }, 2);
    let lost = layout(&newest, &[&slot, &other]);
    assert_eq!(chain(&lost), [older.seq, 3]);
    // What is older than the first live segment is no part of the log, whatever is lost.
    newest.first_live = 2;
    let lost = layout(&newest, &[&slot]);
    assert_eq!(chain(&lost), [3]);
    assert!(lost.parts[0].lost_before.is_some());
    newest.first_live = 3;
    let alone = layout(&newest, &[&slot, &second]);
    assert_eq!(chain(&alone), [3]);
    assert!(alone.parts[0].lost_before.is_none());
}
