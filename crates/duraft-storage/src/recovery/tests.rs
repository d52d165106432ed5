//! Slots made by hand, block by block: how far a segment goes, and what proves it.

use super::scan::{Item, Lens, Seen, TailScan};
use crate::format::block::{self, BlockHeader, Flags};
use crate::format::checksum::Seed;
use crate::format::header::{SegmentEnd, SegmentHeader, SlotHeader};
use crate::format::{BLOCK_BYTES, MARK_A, block_offset, memory_index};

mod chain;

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
fn a_last_block_that_does_not_continue_the_run_is_dropped() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let run = slot.run(&segment, 2);
    let mut other = next(&segment, run.last(), 0);
    other.previous_digest ^= 1;
    slot.put(other);
    let scan = tail_of(&slot, &segment);
    assert_eq!(told(&scan), (11, 11, vec![Commit(10), Commit(11)]));
}

#[test]
fn what_stands_behind_a_hole_and_is_the_last_thing_proven_ends_the_log() {
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let run = slot.run(&segment, 3);
    slot.zero(run[1].block);
    slot.put(mark(&segment, MARK_B, 12));
    let scan = tail_of(&slot, &segment);
    let blocks = vec![Commit(10), Lost(11, 11), Commit(12)];
    assert_eq!(told(&scan), (10, 12, blocks));
    assert_eq!(scan.proven_end, Some(end(&segment, &run[2])));
}

#[test]
fn a_payload_that_looks_like_a_block_is_none() {
    // What users write may be the bytes of a log.
    let segment = first(1);
    let mut slot = Slot::of(&segment);
    let lost = slot.put(next(&segment, None, 0));
    let outer = next(&segment, Some(&lost), 5000);
    let inner = BlockHeader {
        block: 4,
        commit: outer.commit + 1,
        durable: outer.commit,
        ..outer
    };
    slot.put(BlockHeader {
        payload_len: 0,
        ..inner
    });
    let outer = slot.put(outer);
    let last = slot.put(next(&segment, Some(&outer), 0));
    assert_eq!((outer.block, last.block), (3, 5));
    slot.zero(lost.block);
    let scan = tail_of(&slot, &segment);
    let blocks = vec![Lost(10, 10), Commit(11), Commit(12)];
    assert_eq!(found(&scan.items), blocks);
    assert_eq!(scan.items.last(), Some(&Item::Block(last)));
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
    // The last block is another one than the successor knew: the one it knew is lost.
    let other = SegmentEnd {
        digest: third.digest ^ 1,
        ..third
    };
    assert_eq!(
        sealed(&slot, &other),
        [Commit(10), Commit(11), Lost(12, 12)]
    );
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
