//! Slots made by hand, block by block: how far a segment goes, what proves it, and which segments are
//! the log.

use super::decide::{Layout, decide};
use super::scan::{Item, Lens, Seen, TailScan};
use super::survey::survey;
use crate::errors::Hole;
use crate::format::block::{self, BlockHeader, Flags};
use crate::format::checksum::Seed;
use crate::format::header::{SegmentEnd, SegmentHeader, SlotHeader};
use crate::format::{BLOCK_BYTES, MARK_A, block_offset, memory_index};
use duraft_disk::{Disk, FaultDisk, FaultOptions};

const STORE: [u8; 16] = *b"sixteen bytes id";
/// Header, mark A, five blocks for commits, mark B.
const SLOT_BLOCKS: u32 = 8;
const MARK_B: u32 = SLOT_BLOCKS - 1;

fn lens() -> Lens {
    Lens {
        seed: Seed::of(&STORE),
        slot_blocks: SLOT_BLOCKS,
        ablation: None,
    }
}

/// A segment that begins the log, in the slot of its number, whose first commit is 10 times its number.
fn first(seq: u64) -> SegmentHeader {
    SegmentHeader {
        nonce: 100 + u32::try_from(seq).expect("a small number"),
        seq,
        slot: u32::try_from(seq).expect("a small number"),
        slot_blocks: SLOT_BLOCKS,
        previous: None,
        generation: 3,
        first_live: seq,
        base_commit: 10 * seq,
        wallclock_ns: 0,
    }
}

/// A segment behind this block of the one before.
fn behind(before: &SegmentHeader, last: &BlockHeader) -> SegmentHeader {
    SegmentHeader {
        previous: Some(end(before, last)),
        first_live: before.first_live,
        base_commit: last.commit + 1,
        ..first(before.seq + 1)
    }
}

/// Where a segment ends whose last block is this one.
fn end(segment: &SegmentHeader, last: &BlockHeader) -> SegmentEnd {
    SegmentEnd {
        seq: segment.seq,
        nonce: segment.nonce,
        block: last.block + last.blocks(),
        commit: last.commit,
        digest: last.sum,
    }
}

/// The content of a slot.
#[derive(Clone)]
struct Slot {
    number: u32,
    bytes: Vec<u8>,
}

impl Slot {
    fn of(header: &SegmentHeader) -> Slot {
        let mut bytes = vec![0; memory_index(block_offset(SLOT_BLOCKS))];
        header.encode(&STORE, Seed::of(&STORE), &mut bytes);
        let number = header.slot;
        Slot { number, bytes }
    }

    fn free(number: u32) -> Slot {
        let mut slot = Slot::of(&first(number.into()));
        SlotHeader::encode_free(number, SLOT_BLOCKS, Seed::of(&STORE), &mut slot.bytes);
        slot
    }

    /// Writes a block where it says that it stands.
    fn put(&mut self, header: BlockHeader) -> BlockHeader {
        self.put_at(header.block, header)
    }

    fn put_at(&mut self, place: u32, mut header: BlockHeader) -> BlockHeader {
        let at = memory_index(block_offset(place));
        block::seal(&mut header, Seed::of(&STORE), &mut self.bytes[at..]);
        header
    }

    /// `count` blocks, one after another, from the first one on.
    fn run(&mut self, segment: &SegmentHeader, count: u64) -> Vec<BlockHeader> {
        let mut run: Vec<BlockHeader> = Vec::new();
        for i in 0..count {
            let next = next(segment, run.last(), 0);
            assert_eq!(next.commit, segment.base_commit + i);
            run.push(self.put(next));
        }
        run
    }

    fn zero(&mut self, block: u32) {
        let at = memory_index(block_offset(block));
        self.bytes[at..at + BLOCK_BYTES].fill(0);
    }

    /// The header of the block stays, its content is not what was written.
    fn tear(&mut self, block: &BlockHeader) {
        self.bytes[memory_index(block_offset(block.block)) + block.payload_at()] ^= 1;
    }
}

/// The block after this one, not written yet, with so many bytes of payload.
fn next(segment: &SegmentHeader, last: Option<&BlockHeader>, payload_len: u32) -> BlockHeader {
    let (block, commit, previous_digest) = match last {
        Some(last) => (last.block + last.blocks(), last.commit + 1, last.sum),
        None => {
            let digest = segment.previous.map_or(0, |previous| previous.digest);
            (2, segment.base_commit, digest)
        }
    };
    BlockHeader {
        nonce: segment.nonce,
        segment: segment.seq,
        commit,
        durable: commit - 1,
        block,
        payload_len,
        records: 0,
        flags: Flags::NONE,
        generation: segment.generation,
        previous_digest,
        directory_sum: 0,
        payload_sum: 0,
        sum: 0,
    }
}

/// A mark of this segment that proves a commit.
fn mark(segment: &SegmentHeader, block: u32, proves: u64) -> BlockHeader {
    BlockHeader {
        commit: proves,
        durable: proves,
        flags: Flags::MARK,
        previous_digest: 0,
        block,
        ..next(segment, None, 64)
    }
}

fn tail_of(slot: &Slot, segment: &SegmentHeader) -> TailScan {
    lens().scan_tail(&slot.bytes, segment, 0, &mut Seen::default())
}

/// The numbers of the blocks, with the holes between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Commit(u64),
    Lost(u64, u64),
}
use Found::{Commit, Lost};

fn found(items: &[Item]) -> Vec<Found> {
    items
        .iter()
        .map(|item| match item {
            Item::Block(header) => Commit(header.commit),
            Item::Hole { first, last } => Lost(*first, last.unwrap_or(0)),
        })
        .collect()
}

/// The last commit of the unbroken run, the last one proven, and what there is.
fn told(scan: &TailScan) -> (u64, u64, Vec<Found>) {
    (scan.contiguous, scan.watermark, found(&scan.items))
}

#[test]
fn the_last_block_of_a_run_is_read_and_not_proven() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let run = slot.run(&segment, 3);
    let scan = tail_of(&slot, &segment);
    let blocks = vec![Commit(10), Commit(11), Commit(12)];
    assert_eq!(told(&scan), (12, 11, blocks));
    assert_eq!(scan.proven_end, Some(end(&segment, &run[1])));
    assert!(scan.has_blocks(&segment) && scan.marks.is_empty());
}

#[test]
fn a_segment_without_blocks_proves_the_one_before() {
    // Its header was written when that one was durable.
    let before = first(1);
    let last = Slot::of(&before).run(&before, 3)[2];
    let segment = behind(&before, &last);
    let scan = tail_of(&Slot::of(&segment), &segment);
    assert_eq!(told(&scan), (12, 12, vec![]));
    assert_eq!(scan.proven_end, None);
    assert!(!scan.has_blocks(&segment));
}

#[test]
fn a_run_ends_before_the_first_block_that_does_not_continue_it() {
    // Taken for a part of it, a block of another life would be acknowledged for good; a block behind
    // says that something else stood there.
    type Change = fn(&mut BlockHeader);
    let changes: [(&str, Change, Vec<Found>); 5] = [
        ("life", |b| b.nonce += 1, vec![Lost(12, 12)]),
        ("segment", |b| b.segment += 1, vec![Lost(12, 12)]),
        ("number", |b| b.commit += 3, vec![Lost(12, 12)]),
        ("place", |b| b.block -= 1, vec![Lost(12, 12)]),
        // Behind what it says stood before it, it is what it says it is.
        ("block before", |b| b.previous_digest ^= 1, vec![Commit(12)]),
    ];
    for (what, change, instead) in changes {
        let segment = first(1);
        let mut slot = Slot::of(&segment);
        let run = slot.run(&segment, 4);
        let mut other = run[2];
        change(&mut other);
        slot.put_at(run[2].block, other);
        let scan = tail_of(&slot, &segment);
        let mut expected = vec![Commit(10), Commit(11)];
        expected.extend(instead);
        expected.push(Commit(13));
        assert_eq!(told(&scan), (11, 12, expected), "{what}");
    }
}

#[test]
fn a_torn_last_block_goes_without_a_word() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let run = slot.run(&segment, 2);
    let torn = slot.put(next(&segment, run.last(), 100));
    slot.tear(&torn);
    let scan = tail_of(&slot, &segment);
    // Its header proves the one before it.
    assert_eq!(told(&scan), (11, 11, vec![Commit(10), Commit(11)]));
    assert_eq!(scan.proven_end, Some(end(&segment, &run[1])));
}

#[test]
fn a_torn_header_in_the_middle_is_a_hole_with_its_number() {
    for lost in 0..3 {
        let segment = first(1);
        let mut slot = Slot::of(&segment);
        let run = slot.run(&segment, 5);
        slot.zero(run[lost].block);
        let scan = tail_of(&slot, &segment);
        let numbers = 10..15u64;
        let expected = numbers.map(|number| {
            if number == run[lost].commit {
                Lost(number, number)
            } else {
                Commit(number)
            }
        });
        let contiguous = run[lost].commit - 1;
        assert_eq!(told(&scan), (contiguous, 13, expected.collect()), "{lost}");
    }
}

#[test]
fn a_mark_at_either_end_proves_what_cannot_be_read() {
    for place in [MARK_A, MARK_B] {
        for (proves, lost) in [
            (11, None),
            (12, None),
            (13, Some((13, 13))),
            (14, Some((13, 14))),
        ] {
            let segment = first(1);
            let mut slot = Slot::of(&segment);
            slot.run(&segment, 3);
            let mark = slot.put(mark(&segment, place, proves));
            let scan = tail_of(&slot, &segment);
            let mut expected = vec![Commit(10), Commit(11), Commit(12)];
            expected.extend(lost.map(|(first, last)| Lost(first, last)));
            assert_eq!(
                told(&scan),
                (12, proves.max(11), expected),
                "{place} {proves}"
            );
            assert_eq!(scan.marks, [mark]);
        }
    }
}

#[test]
fn a_mark_counts_by_its_header_and_its_table_only_whole() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    slot.run(&segment, 3);
    let torn = slot.put(mark(&segment, MARK_B, 14));
    slot.tear(&torn);
    // One of another life says nothing.
    let stale = SegmentHeader {
        nonce: 7,
        ..segment
    };
    slot.put(mark(&stale, MARK_A, 40));
    let scan = tail_of(&slot, &segment);
    assert_eq!(scan.watermark, 14);
    assert_eq!(scan.marks, []);
}

#[test]
fn what_newer_segments_prove_counts_too() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    slot.run(&segment, 3);
    for (proven, watermark, holes) in [
        (9, 11, vec![]),
        (12, 12, vec![]),
        (15, 15, vec![Lost(13, 15)]),
    ] {
        let scan = lens().scan_tail(&slot.bytes, &segment, proven, &mut Seen::default());
        let expected = [&[Commit(10), Commit(11), Commit(12)][..], &holes].concat();
        assert_eq!(told(&scan), (12, watermark, expected));
    }
}

#[test]
fn a_block_takes_as_much_room_as_it_says() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let long = slot.put(next(&segment, None, 5000));
    let short = slot.put(next(&segment, Some(&long), 0));
    assert_eq!((long.blocks(), short.block), (2, 4));
    assert_eq!(tail_of(&slot, &segment).contiguous, 11);
    // Up to the last block but one; there a mark stands.
    let rest = slot.put(next(&segment, Some(&short), 5000));
    assert_eq!(rest.block + rest.blocks(), MARK_B);
    assert_eq!(tail_of(&slot, &segment).contiguous, 12);
    let mut slot = Slot::of(&segment);
    let run = slot.run(&segment, 4);
    let over = slot.put(next(&segment, run.last(), 5000));
    assert_eq!(over.block + over.blocks(), SLOT_BLOCKS);
    assert_eq!(tail_of(&slot, &segment).contiguous, 13);
}

#[test]
fn a_sealed_segment_reaches_the_end_its_successor_declares() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let run = slot.run(&segment, 4);
    let sealed =
        |slot: &Slot, end: &SegmentEnd| found(&lens().scan_sealed(&slot.bytes, &segment, end));
    // What stands behind the end was never in the log.
    let third = end(&segment, &run[2]);
    let all = vec![Commit(10), Commit(11), Commit(12)];
    assert_eq!(sealed(&slot, &third), all);
    // The last block is another one than the successor knew: it may stay, and it is all there is.
    let other = SegmentEnd {
        digest: third.digest ^ 1,
        ..third
    };
    assert_eq!(sealed(&slot, &other), all);
    // More was there.
    let more = SegmentEnd {
        commit: 14,
        block: 7,
        ..third
    };
    let expected = vec![Commit(10), Commit(11), Commit(12), Commit(13), Lost(14, 14)];
    assert_eq!(sealed(&slot, &more), expected);
    // A forged end does not lead into the mark.
    let far = SegmentEnd {
        commit: 13,
        block: 99,
        digest: run[3].sum,
        ..third
    };
    assert_eq!(sealed(&slot, &far), expected[..4]);
    slot.zero(run[1].block);
    assert_eq!(
        sealed(&slot, &third),
        [Commit(10), Lost(11, 11), Commit(12)]
    );
    slot.zero(run[2].block);
    assert_eq!(sealed(&slot, &third), [Commit(10), Lost(11, 12)]);
    slot.zero(run[0].block);
    assert_eq!(sealed(&slot, &third), [Lost(10, 12)]);
}

#[test]
fn no_number_is_used_again_that_stands_anywhere() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    slot.run(&segment, 2);
    let mut far = mark(&segment, MARK_B, 77);
    far.generation = 9;
    slot.put(far);
    let mut seen = Seen::default();
    lens().scan_tail(&slot.bytes, &segment, 0, &mut seen);
    assert_eq!((seen.generation, seen.segment, seen.commit), (9, 1, 77));
    seen.segment_header(&SegmentHeader {
        generation: 12,
        ..first(30)
    });
    assert_eq!((seen.generation, seen.segment, seen.commit), (12, 30, 299));
    seen.segment_header(&first(2));
    assert_eq!((seen.generation, seen.segment, seen.commit), (12, 30, 299));
}

/// What an open makes of these slots.
fn decided(slots: &[Slot]) -> Layout {
    let disk = FaultDisk::new(FaultOptions::default());
    disk.create_dir("wal").expect("a working disk");
    for slot in slots {
        let name = format!("wal/{:08x}.slot", slot.number);
        let file = disk.create(&name).expect("a working disk");
        file.write_at(&slot.bytes, 0).expect("a working disk");
    }
    let slot_bytes = block_offset(SLOT_BLOCKS);
    let mut images = survey(&disk, Seed::of(&STORE), slot_bytes, false).expect("slots");
    let layout = decide(&lens(), &mut images, false).expect("a working disk");
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
