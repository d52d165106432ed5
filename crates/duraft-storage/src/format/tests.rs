//! Golden bytes of every layout, and what decoders make of bytes that are not right.
//!
//! `docs/wal-format.md` describes these bytes. A change here is a change of the format.

use super::block::{self, BlockHeader, Flags};
use super::checksum::{Seed, body_checksum, commands_body, verify};
use super::header::{SegmentEnd, SegmentHeader, SlotHeader, StoreFile};
use super::payload::*;
use super::record::{DescriptorError, Frame, decode_descriptor, encode_descriptor};
use super::{BLOCK_BYTES, FormatError};
use crate::encode::BlockBuilder;
use crate::repair::{Repair, RepairKind};
use duraft_core::{
    Batch, BatchHeader, BatchKind, Body, Digest, GroupId, HardState, Healed, Index, Leave, LogId,
    MemberChange, Membership, NodeId, Position, Snapshot, SnapshotFile, Term,
};

const STORE: [u8; 16] = *b"sixteen bytes id";

fn seed() -> Seed {
    Seed::of(&STORE)
}

fn hex(bytes: &[u8]) -> String {
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups: Vec<&str> = (0..text.len())
        .step_by(16)
        .map(|i| &text[i..(i + 16).min(text.len())])
        .collect();
    groups.join(" ")
}

fn position(index: u64, term: u64, digest: u64) -> Position {
    let id = LogId {
        index: Index(index),
        term: Term(term),
    };
    Position {
        id,
        digest: Digest(digest),
    }
}

fn header() -> BatchHeader {
    BatchHeader {
        kind: BatchKind::Commands,
        codec: 0x0201,
        count: 3,
        body_len: 0x20,
        body_checksum: 0x0807_0605,
        group: GroupId(0x1817_1615_1413_1211),
        first: Index(0x2827_2625_2423_2221),
        term: Term(0x3837_3635_3433_3231),
        digest: Digest(0x4847_4645_4443_4241),
    }
}

fn membership() -> Membership {
    Membership::new([NodeId(1), NodeId(2)], [NodeId(0x99)]).expect("two voters, a learner")
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        nonce: 0x0403_0201,
        seq: 0x18,
        slot: 5,
        slot_blocks: 16,
        previous: Some(SegmentEnd {
            seq: 0x17,
            nonce: 0x77,
            block: 9,
            commit: 0x66,
            digest: 0x55,
        }),
        generation: 4,
        first_live: 0x10,
        base_commit: 0x67,
        wallclock_ns: 0xAA,
    }
}

fn block_header() -> BlockHeader {
    BlockHeader {
        nonce: 0x0403_0201,
        segment: 0x18,
        commit: 0x68,
        durable: 0x67,
        block: 3,
        payload_len: 0,
        records: 0,
        flags: Flags::RECEIPT,
        generation: 4,
        previous_digest: 0x1122_3344,
        directory_sum: 0,
        payload_sum: 0,
        sum: 0,
    }
}

fn checkpoint() -> GroupCheckpoint {
    GroupCheckpoint {
        hard_state: HardState {
            term: Term(7),
            vote: Some(NodeId(2)),
        },
        start: position(10, 3, 0xD1),
        end: position(20, 6, 0xD2),
        last_membership: Index(4),
        membership: membership(),
        snapshot: None,
    }
}

fn snapshot() -> Snapshot {
    let membership = membership()
        .change(&[MemberChange::Remove(NodeId(2))], Leave::Explicit)
        .expect("one voter less");
    Snapshot {
        position: position(15, 5, 0xD3),
        membership,
        file: SnapshotFile {
            nonce: 0xA1,
            bytes: 0xA2,
            digest: 0xA3,
        },
    }
}

fn covered() -> GroupCheckpoint {
    GroupCheckpoint {
        snapshot: Some(snapshot()),
        ..checkpoint()
    }
}

fn note(kind: RepairKind) -> Repair {
    Repair {
        kind,
        first: Index(0x21),
        last: Index(0x22),
        generation: 4,
        wallclock_ns: 0xAA,
    }
}

fn lost() -> LostLog {
    LostLog {
        lost_suffix: true,
        vote_uncertain: true,
        floor: LogId {
            index: Index(20),
            term: Term(6),
        },
        missing: vec![(Index(12), Index(13)), (Index(18), Index(20))],
    }
}

fn fact() -> GroupFact {
    GroupFact {
        group: GroupId(3),
        end: position(20, 6, 0xD2),
        hard_state: HardState {
            term: Term(7),
            vote: None,
        },
    }
}

fn encoded(frame: Frame) -> [u8; 64] {
    let mut bytes = [0; 64];
    frame.encode(&mut bytes);
    bytes
}

/// A block with one batch and one checkpoint, as the writer makes it.
fn written_block() -> (BlockHeader, Vec<u8>) {
    let mut bytes = vec![0xEE; 2 * BLOCK_BYTES];
    let body = commands_body([&b"ab"[..], b"", b"cde"].into_iter(), 9).expect("small");
    let batch = body
        .seal(GroupId(1), &Position::START, Term(1))
        .expect("first");
    let payload = encode_checkpoint(&checkpoint());
    let mut builder = BlockBuilder::new(&mut bytes, 3 * BLOCK_BYTES, 2);
    builder.push(Frame::of_group_state(GroupId(1), &payload), &payload);
    builder.push(Frame::of_batch(&batch.header), &batch.body);
    let mut header = block_header();
    let len = builder.finish(&mut header, seed());
    bytes.truncate(len);
    (header, bytes)
}

#[test]
fn store_file_bytes() {
    let file = StoreFile {
        store: STORE,
        cluster: *b"cluster identity",
        node: 0x0102,
        slot_bytes: 16 << 20,
        max_batch_bytes: 1 << 20,
        wallclock_ns: 0xAA,
    };
    let bytes = file.encode();
    assert_eq!(bytes.len(), 2 * BLOCK_BYTES);
    assert_eq!(hex(&bytes[..80]), STORE_BYTES);
    assert!(bytes[80..4092].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&bytes[4092..4096]), "ea699750");
    let (first, second) = bytes.split_at(BLOCK_BYTES);
    assert_eq!(first, second, "the same block twice");
    assert_eq!(StoreFile::decode(&bytes), Ok((file, true)));
    assert_eq!(StoreFile::decode(first), Ok((file, false)));
}

const STORE_BYTES: &str = "4452533101000000 0000000000000000 7369787465656e20 6279746573206964 636c757374657220 6964656e74697479 0201000000000000 0000000100000000 000010000c000100 aa00000000000000";

#[test]
fn segment_header_bytes() {
    let mut bytes = vec![0xEE; BLOCK_BYTES];
    segment().encode(&STORE, seed(), &mut bytes);
    assert_eq!(
        hex(&bytes[..112]),
        "4453473101020304 1800000000000000 0100000000000000 0000000005000000 7369787465656e20 6279746573206964 100000000c000100 1700000000000000 7700000009000000 6600000000000000 5500000004000000 1000000000000000 6700000000000000 aa00000000000000"
    );
    assert!(bytes[112..4092].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&bytes[4092..]), "4c05236b");
    assert_eq!(
        SlotHeader::decode(&bytes, 5, seed()),
        Ok(SlotHeader::Segment(segment()))
    );
    let misdirected = SlotHeader::decode(&bytes, 6, seed());
    assert_eq!(
        misdirected,
        Err(FormatError::Field {
            field: "slot",
            value: 5
        })
    );
    let foreign = SlotHeader::decode(&bytes, 5, Seed::of(b"another store id"));
    assert!(matches!(foreign, Err(FormatError::Checksum { .. })));
    SlotHeader::encode_free(5, 16, seed(), &mut bytes);
    assert_eq!(
        hex(&bytes[..56]),
        "4453463100000000 0000000000000000 0000000000000000 0000000005000000 0000000000000000 0000000000000000 1000000000000000"
    );
    assert_eq!(SlotHeader::decode(&bytes, 5, seed()), Ok(SlotHeader::Free));
}

#[test]
fn block_header_bytes() {
    let (header, bytes) = written_block();
    assert_eq!(
        hex(&bytes[..64]),
        "4443423101020304 1800000000000000 6800000000000000 6700000000000000 0300000090000000 0200010004000000 443322117e60ac46 8d102d2b325dd5a9"
    );
    assert_eq!(BlockHeader::decode(&bytes, seed()), Ok(header));
    assert_eq!(block::check_content(&header, seed(), &bytes, true), Ok(()));
    assert_eq!(header.blocks(), 1);
    // Directory, then payloads, each at a multiple of 8.
    assert_eq!(
        hex(&bytes[64..192]),
        "0600000000000000 0000000072000000 0100000000000000 0000000000000000 0000000000000000 0000000000000000 f3f2cde600000000 180600001e84a5ed 0101090000000000 0300000011000000 0100000000000000 0100000000000000 0100000000000000 ff62fee2d1bca657 06bebd7400000000 2706000017a4d22b"
    );
    assert_eq!(
        hex(&bytes[192..336]),
        "0700000000000000 0200000000000000 0a00000000000000 0300000000000000 d100000000000000 1400000000000000 0600000000000000 d200000000000000 0400000000000000 2200000001000000 0100020000000100 0000010000000000 0000020000000000 0000990000000000 0000000000000000 0200000002000000 0500000061626364 6500000000000000"
    );
    assert!(bytes[336..].iter().all(|byte| *byte == 0));
}

#[test]
fn batch_descriptor_bytes() {
    let mut bytes = [0; 64];
    encode_descriptor(&header(), 0x1234, &mut bytes);
    assert_eq!(
        hex(&bytes),
        "0101010200000000 0300000020000000 1112131415161718 2122232425262728 3132333435363738 4142434445464748 0506070800000000 34120000a1bd2f9a"
    );
    assert_eq!(decode_descriptor(&bytes), Ok((header(), 0x1234)));
    // The checksum does not cover the position: a batch keeps it wherever it moves.
    let mut moved = [0; 64];
    encode_descriptor(&header(), 0, &mut moved);
    assert_eq!(moved[60..], bytes[60..]);
}

#[test]
fn descriptors_of_the_other_records() {
    let state = HardState {
        term: Term(7),
        vote: Some(NodeId(2)),
    };
    let group = GroupId(3);
    let at = position(20, 6, 0xD2);
    let rows = [
        (
            Frame::of_hard_state(group, state, Index(4)),
            "0200000001000000 0000000000000000 0300000000000000 0200000000000000 0700000000000000 0400000000000000 0000000000000000 0000000087b87e76",
        ),
        (
            Frame::of_echo(
                group,
                HardState {
                    vote: None,
                    ..state
                },
                Index(4),
            ),
            "0900000000000000 0000000000000000 0300000000000000 0000000000000000 0700000000000000 0400000000000000 0000000000000000 000000005ee360ed",
        ),
        (
            Frame::of_truncate(group, &at),
            "0300000000000000 0000000000000000 0300000000000000 1400000000000000 0600000000000000 d200000000000000 0000000000000000 00000000d8072110",
        ),
        (
            Frame::of_compact(group, &at, &membership().encode()),
            "0400000000000000 0000000022000000 0300000000000000 1400000000000000 0600000000000000 d200000000000000 8a22c96a00000000 000000008982762e",
        ),
        (
            Frame::of_group_state(group, &encode_checkpoint(&checkpoint())),
            "0600000000000000 0000000072000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000 f3f2cde600000000 00000000d1a65d68",
        ),
        (
            Frame::of_checkpoint_end(2),
            "0800000000000000 0200000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000049e20344",
        ),
        (
            Frame::of_snapshot(group, &at, true, &encode_snapshot(&snapshot())),
            "0500000001000000 0000000042000000 0300000000000000 1400000000000000 0600000000000000 d200000000000000 d24b21df00000000 0000000014b2022f",
        ),
        (
            Frame::of_healed(group, Healed::Vote),
            "0a02000000000000 0000000000000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 00000000f7caf16a",
        ),
        (
            Frame::of_repair(group, &note(RepairKind::LossAccepted)),
            "0a03000000000000 0400000000000000 0300000000000000 2100000000000000 aa00000000000000 2200000000000000 0000000000000000 0000000050b79b5d",
        ),
        (
            Frame::of_repair(group, &note(RepairKind::ConfigurationForced)),
            "0a04000000000000 0400000000000000 0300000000000000 2100000000000000 aa00000000000000 2200000000000000 0000000000000000 0000000020ae91b3",
        ),
        (
            Frame::of_healed(group, Healed::All),
            "0a01000000000000 0000000000000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 00000000c71ff50c",
        ),
        (
            Frame::of_damage(group, &encode_lost(&lost())),
            "0b00000000000000 0000000038000000 0300000000000000 0000000000000000 0000000000000000 0000000000000000 9cb76ad900000000 00000000b1086483",
        ),
        (
            Frame::of_table(0x66, true, 1, &[0; 56]),
            "0c00000001000000 0100000038000000 0000000000000000 6600000000000000 0000000000000000 0000000000000000 49a5c8d300000000 000000005fff0e0b",
        ),
    ];
    for (frame, expected) in rows {
        assert_eq!(hex(&encoded(frame)), expected, "{frame:?}");
        assert_eq!(Frame::decode(&encoded(frame)), Ok(frame));
    }
}

#[test]
fn payload_bytes() {
    let bytes = membership().encode();
    assert_eq!(
        hex(&bytes),
        "0100020000000100 0000010000000000 0000020000000000 0000990000000000 0000"
    );
    assert_eq!(decode_membership(&bytes), Ok(membership()));
    let bytes = encode_checkpoint(&checkpoint());
    assert_eq!(
        hex(&bytes),
        "0700000000000000 0200000000000000 0a00000000000000 0300000000000000 d100000000000000 1400000000000000 0600000000000000 d200000000000000 0400000000000000 2200000001000000 0100020000000100 0000010000000000 0000020000000000 0000990000000000 0000"
    );
    assert_eq!(decode_checkpoint(&bytes), Ok(checkpoint()));
    let bytes = encode_checkpoint(&covered());
    assert_eq!(
        hex(&bytes[80 + 34..]),
        "0f00000000000000 0500000000000000 d300000000000000 a100000000000000 a200000000000000 a300000000000000 0102010002000100 0000010000000000 0000010000000000 0000020000000000 0000990000000000 0000"
    );
    assert_eq!(bytes[72..80], [34, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(decode_checkpoint(&bytes), Ok(covered()));
    let bytes = encode_snapshot(&snapshot());
    assert_eq!(
        hex(&bytes),
        "a100000000000000 a200000000000000 a300000000000000 0102010002000100 0000010000000000 0000010000000000 0000020000000000 0000990000000000 0000"
    );
    assert_eq!(decode_snapshot(snapshot().position, &bytes), Ok(snapshot()));
    let bytes = encode_lost(&lost());
    assert_eq!(
        hex(&bytes),
        "0300000002000000 1400000000000000 0600000000000000 0c00000000000000 0d00000000000000 1200000000000000 1400000000000000"
    );
    assert_eq!(decode_lost(&bytes), Ok(lost()));
    let mut bytes = [0; FACT_LEN];
    encode_fact(&fact(), &mut bytes);
    assert_eq!(
        hex(&bytes),
        "0300000000000000 1400000000000000 0600000000000000 d200000000000000 0700000000000000 0000000000000000 0000000000000000"
    );
    assert_eq!(decode_facts(&bytes, 1), Ok(vec![fact()]));
}

#[test]
fn body_bytes() {
    let body = commands_body([&b"ab"[..], b"", b"cde"].into_iter(), 9).expect("small");
    assert_eq!(hex(&body.bytes), "0200000002000000 0500000061626364 65");
    assert_eq!(body.checksum, body_checksum(&body.bytes));
    assert_eq!((body.count, body.codec), (3, 9));
    assert_eq!(
        body_checksum(b"123456789"),
        0xCBF4_3926,
        "CRC-32/IEEE by its check value"
    );
}

#[test]
fn no_flipped_bit_of_a_header_or_descriptor_is_believed() {
    let (header, bytes) = written_block();
    let mut segment_bytes = vec![0; BLOCK_BYTES];
    segment().encode(&STORE, seed(), &mut segment_bytes);
    for bit in 0..8 * BLOCK_BYTES {
        let mut bent = segment_bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(SlotHeader::decode(&bent, 5, seed()).is_err(), "bit {bit}");
    }
    for bit in 0..8 * 64 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(BlockHeader::decode(&bent, seed()).is_err(), "bit {bit}");
    }
    // Every byte of directory and payloads is covered. A block that one of its own records contradicts
    // is no block: were it believed, the store could not be opened at all.
    let payload_end = header.payload_at() + header.payload_len as usize;
    for bit in 8 * 64..8 * payload_end {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        let content = block::check_content(&header, seed(), &bent, true);
        assert!(content.is_err(), "bit {bit}");
    }
}

#[test]
fn two_exchanged_descriptors_are_noticed() {
    // Each is right by itself; a checksum that did not know their places would believe both.
    let (header, mut bytes) = written_block();
    let (first, second) = bytes[64..192].split_at_mut(64);
    first.swap_with_slice(second);
    assert!(block::check_content(&header, seed(), &bytes, true).is_err());
}

#[test]
fn descriptors_that_cannot_be_are_refused_before_anything_is_allocated() {
    let reseal = |change: &dyn Fn(&mut [u8; 64])| {
        let mut bytes = [0; 64];
        encode_descriptor(&header(), 0, &mut bytes);
        change(&mut bytes);
        let sum = super::record::descriptor_checksum(&bytes);
        bytes[60..].copy_from_slice(&sum.to_le_bytes());
        decode_descriptor(&bytes).map(|_| ())
    };
    assert_eq!(reseal(&|_| ()), Ok(()));
    assert_eq!(reseal(&|b| b[0] = 2), Err(DescriptorError::Type(2)));
    assert_eq!(reseal(&|b| b[0] = 200), Err(DescriptorError::Type(200)));
    assert_eq!(reseal(&|b| b[1] = 9), Err(DescriptorError::Kind(9)));
    assert_eq!(reseal(&|b| b[4] = 1), Err(DescriptorError::Reserved(1)));
    assert_eq!(reseal(&|b| b[7] = 1), Err(DescriptorError::Reserved(256)));
    let count = |count, body_len| Err(DescriptorError::Count { count, body_len });
    assert_eq!(reseal(&|b| b[8] = 0), count(0, 0x20));
    assert_eq!(
        reseal(&|b| b[8] = 9),
        count(9, 0x20),
        "offsets longer than the body"
    );
    assert_eq!(
        reseal(&|b| b[11] = 0xFF),
        count(0xFF00_0003, 0x20),
        "no overflow"
    );
    assert_eq!(
        reseal(&|b| b[1] = 3),
        count(3, 0x20),
        "a no-op is one entry"
    );
    let index = |first, count| Err(DescriptorError::Index { first, count });
    assert_eq!(reseal(&|b| b[24..32].fill(0)), index(0, 3));
    assert_eq!(reseal(&|b| b[24..32].fill(0xFF)), index(u64::MAX, 3));
}

#[test]
fn payloads_of_other_lengths_are_refused() {
    for len in 0..200 {
        let bytes = vec![0; len];
        assert!(
            decode_checkpoint(&bytes).is_err(),
            "no voters in zeros, length {len}"
        );
        assert!(decode_membership(&bytes).is_err(), "length {len}");
        assert_eq!(decode_lost(&bytes).is_ok(), len == 24, "length {len}");
        assert_eq!(decode_facts(&bytes, 2).is_ok(), len == 112, "length {len}");
    }
    let mut many = encode_lost(&lost());
    many[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode_lost(&many), Err(FormatError::Field { .. })));
}

#[test]
fn bodies_are_checked_as_a_whole() {
    let body = commands_body([&b"ab"[..], b"c"].into_iter(), 0).expect("small");
    let good = body
        .seal(GroupId(1), &Position::START, Term(1))
        .expect("first");
    assert_eq!(verify(&good), Ok(()));
    for bit in 0..8 * good.body.len() {
        let mut bytes = good.body.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let bent = Batch {
            header: good.header,
            body: bytes.into(),
        };
        assert!(verify(&bent).is_err(), "bit {bit}");
    }
    let short = Batch {
        header: good.header,
        body: good.body.slice(1..),
    };
    assert!(verify(&short).is_err());
    // A checksum made over a table that describes nothing.
    let bytes = vec![0xFF; 12];
    let body = Body {
        kind: BatchKind::Commands,
        codec: 0,
        count: 2,
        checksum: body_checksum(&bytes),
        bytes: bytes.into(),
    };
    let liar = body
        .seal(GroupId(1), &Position::START, Term(1))
        .expect("first");
    assert!(verify(&liar).is_err());
}

#[test]
fn newer_headers_are_told_from_damaged_ones() {
    let mut bytes = vec![0; BLOCK_BYTES];
    segment().encode(&STORE, seed(), &mut bytes);
    bytes[20] = 4;
    assert!(matches!(
        SlotHeader::decode(&bytes, 5, seed()),
        Err(FormatError::Checksum { .. })
    ));
    let sum = seed().sum(&bytes[..4092]);
    bytes[4092..].copy_from_slice(&sum.to_le_bytes());
    let newer = FormatError::Newer {
        major: 1,
        minor: 0,
        features: 4,
    };
    assert_eq!(SlotHeader::decode(&bytes, 5, seed()), Err(newer));
}

#[test]
fn headers_that_point_forward_are_refused() {
    // Found by fuzzing: a header that named itself as its predecessor led recovery in a circle, and
    // one that declared an end in the far future had it proven by the next open.
    let wrong = |change: &dyn Fn(&mut SegmentHeader)| {
        let mut header = segment();
        change(&mut header);
        let mut bytes = vec![0; BLOCK_BYTES];
        header.encode(&STORE, seed(), &mut bytes);
        match SlotHeader::decode(&bytes, 5, seed()) {
            Err(FormatError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    };
    let previous = segment().previous.expect("it has one");
    assert_eq!(
        wrong(&|h| h.previous = Some(SegmentEnd {
            seq: 0x18,
            ..previous
        })),
        "previous segment"
    );
    assert_eq!(
        wrong(&|h| h.previous = Some(SegmentEnd {
            commit: 0x67,
            ..previous
        })),
        "previous commit"
    );
    assert_eq!(wrong(&|h| h.first_live = 0x19), "first_live");
    let watermark = |commit, durable, flags| {
        let mut bytes = [0; 64];
        BlockHeader {
            commit,
            durable,
            flags,
            ..block_header()
        }
        .encode(seed(), &mut bytes);
        BlockHeader::decode(&bytes, seed()).is_ok()
    };
    assert!(watermark(5, 4, Flags::NONE) && watermark(5, 5, Flags::MARK));
    assert!(!watermark(5, 5, Flags::NONE) && !watermark(5, 6, Flags::MARK));
}
