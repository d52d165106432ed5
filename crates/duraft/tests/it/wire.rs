//! The frame codec: what is written is read back, and nothing else is read at all.

use bytes::Bytes;
use duraft::wire::{
    APPEND_OVERHEAD_BYTES, Accepted, Class, Frame, FrameBuffer, HEADER_BYTES, Hello,
    PROTOCOL_VERSION, Refusal, WireError, decode, decode_frame, frame_bytes,
};
use duraft_core::{
    AppendReply, Batch, BatchKind, Body, Digest, Envelope, GroupId, Health, Incarnation, Index,
    LogId, Message, NodeId, Position, Term,
};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 24;
/// Bytes of an append without batches.
const OVERHEAD: usize = 96;
/// Bytes of the answer to a fetch without batches.
const FETCHED_OVERHEAD: usize = 88;

/// Where the part of a frame ends that its own checksum covers.
fn sealed_end(frame: &[u8]) -> usize {
    match frame[5] {
        20 => frame.len().min(OVERHEAD),
        28 => frame.len().min(FETCHED_OVERHEAD),
        _ => frame.len(),
    }
}

fn encode(frame: &Frame) -> Vec<u8> {
    let mut buffer = FrameBuffer::default();
    buffer
        .push(frame, LIMIT)
        .expect("the frame is within the limit");
    let bytes = buffer.to_bytes();
    assert_eq!(bytes.len(), buffer.len());
    bytes
}

fn commands(commands: &[&[u8]]) -> Body {
    let mut bytes = Vec::new();
    let mut end = 0;
    for command in commands {
        end += u32::try_from(command.len()).expect("small");
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    for command in commands {
        bytes.extend_from_slice(command);
    }
    Body {
        kind: BatchKind::Commands,
        codec: 7,
        count: u32::try_from(commands.len()).expect("few"),
        checksum: crc32fast::hash(&bytes),
        bytes: Bytes::from(bytes),
    }
}

fn message(message: Message) -> Frame {
    Frame::Message(Envelope {
        group: GroupId(5),
        from: NodeId(1),
        incarnation: Incarnation(3),
        to: NodeId(u64::MAX),
        term: Term(9),
        message,
    })
}

fn append(bodies: Vec<Body>) -> Frame {
    let (prev, batches) = sealed(bodies);
    message(Message::Append {
        prev,
        batches,
        commit: Index(40),
    })
}

fn fetched(bodies: Vec<Body>) -> Frame {
    let (after, batches) = sealed(bodies);
    message(Message::Fetched { after, batches })
}

fn sealed(bodies: Vec<Body>) -> (Position, Vec<Batch>) {
    let prev = Position {
        id: LogId {
            term: Term(2),
            index: Index(41),
        },
        digest: Digest(0xABCD),
    };
    let mut at = prev;
    let batches = bodies
        .into_iter()
        .map(|body| {
            let batch = body.seal(GroupId(5), &at, Term(9)).expect("a sound body");
            at = batch.header.position();
            batch
        })
        .collect();
    (prev, batches)
}

/// One frame of every type and variant.
fn examples() -> Vec<Frame> {
    let last = LogId {
        term: Term(4),
        index: Index(17),
    };
    let place = Position {
        id: last,
        digest: Digest(1),
    };
    let hello = |class| {
        Frame::Hello(Hello {
            protocol: PROTOCOL_VERSION,
            class,
            max_batch_bytes: 1 << 20,
            cluster: *b"0123456789abcdef",
            node: NodeId(1),
            incarnation: Incarnation(2),
            to: NodeId(3),
        })
    };
    let large = vec![0x5A; 100_000];
    let wanted = Term(10);
    vec![
        hello(Class::Control),
        hello(Class::Bulk),
        Frame::Accepted(Accepted {
            node: NodeId(3),
            incarnation: Incarnation(8),
        }),
        Frame::Refused(Refusal::Protocol { ours: 2 }),
        Frame::Refused(Refusal::Cluster),
        Frame::Refused(Refusal::WrongNode { actual: NodeId(4) }),
        Frame::Refused(Refusal::UnknownPeer),
        Frame::Refused(Refusal::MaxBatch { ours: 77 }),
        message(Message::PreVote { wanted, last }),
        message(Message::PreVoteReply {
            wanted,
            granted: true,
        }),
        message(Message::Vote {
            last,
            forced: false,
        }),
        message(Message::Vote { last, forced: true }),
        message(Message::VoteReply { granted: false }),
        message(Message::Heartbeat {
            commit: Index(3),
            round: 12,
        }),
        message(Message::HeartbeatReply {
            round: 12,
            health: Health::default(),
        }),
        message(Message::HeartbeatReply {
            round: 13,
            health: Health {
                priority: 200,
                impaired: true,
            },
        }),
        message(Message::AppendReply(AppendReply::Accepted {
            matched: Index(u64::MAX),
        })),
        message(Message::AppendReply(AppendReply::Rejected {
            prev: last,
            hint: LogId::default(),
        })),
        message(Message::AppendReply(AppendReply::Divergence {
            theirs: place,
            ours: Position::START,
        })),
        append(vec![]),
        append(vec![Body::noop()]),
        append(vec![commands(&[b"a", b"", b"ccc"]), commands(&[b"dd"])]),
        append(vec![
            commands(&[b"small"]),
            commands(&[&large, b"x"]),
            Body::noop(),
            commands(&[&large]),
        ]),
    ]
    .into_iter()
    .chain(later_examples(last, place))
    .collect()
}

/// The frames of reads, transfer and damage.
fn later_examples(last: LogId, place: Position) -> Vec<Frame> {
    let asker = Incarnation(7);
    let answer = |index| {
        message(Message::ReadIndexReply {
            id: 5,
            asker,
            index,
        })
    };
    let report = |needs_snapshot| {
        message(Message::DamageReport {
            lost_suffix: true,
            needs_snapshot,
        })
    };
    vec![
        Frame::Refused(Refusal::RolledBack {
            seen: Incarnation(9),
        }),
        message(Message::TimeoutNow),
        message(Message::ReadIndex { id: u64::MAX }),
        answer(Some(Index(0))),
        answer(None),
        message(Message::Fetch { after: place }),
        fetched(vec![]),
        fetched(vec![Body::noop(), commands(&[&[9; 10_000], b"b"])]),
        report(Some(Index(44))),
        report(None),
        message(Message::Heal {
            asker,
            to: Index(91),
        }),
        message(Message::TermQuery),
        message(Message::TermReply {
            asker,
            voters: vec![],
        }),
        message(Message::TermReply {
            asker,
            voters: (0..32).map(NodeId).collect(),
        }),
        message(Message::RolledBack { seen: last }),
    ]
}

#[test]
fn heartbeats_and_votes_do_not_queue_behind_bulk_data() {
    // Whatever can be large, or answers something large, must not stand before a heartbeat.
    let bulk = [20, 21, 27, 28, 29, 30, 33];
    for frame in examples() {
        let Frame::Message(envelope) = &frame else {
            continue;
        };
        let kind = encode(&frame)[5];
        let expected = if bulk.contains(&kind) {
            Class::Bulk
        } else {
            Class::Control
        };
        assert_eq!(Class::of(&envelope.message), expected, "{frame:?}");
    }
}

#[test]
fn every_frame_is_read_back() {
    for frame in examples() {
        let bytes = encode(&frame);
        assert_eq!(
            frame_bytes(&bytes, LIMIT),
            Ok(Some(bytes.len())),
            "{frame:?}"
        );
        assert_eq!(decode(&bytes).as_ref(), Ok(&frame));
    }
}

#[test]
fn frames_share_a_buffer() {
    // Large bodies are spliced in by reference; a wrong place would mix frames up.
    let mut buffer = FrameBuffer::default();
    for frame in examples() {
        buffer.push(&frame, LIMIT).expect("within the limit");
    }
    let bytes = Bytes::from(buffer.to_bytes());
    let mut at = 0;
    for frame in examples() {
        let len = frame_bytes(&bytes[at..], LIMIT)
            .expect("a header")
            .expect("16 bytes");
        assert_eq!(decode_frame(bytes.slice(at..at + len)), Ok(frame));
        at += len;
    }
    assert_eq!(at, bytes.len());
}

#[test]
fn bodies_are_slices_of_the_frame() {
    let frame = Bytes::from(encode(&append(vec![commands(&[b"zero copy"])])));
    let range = frame.as_ptr_range();
    let Ok(Frame::Message(Envelope {
        message: Message::Append { batches, .. },
        ..
    })) = decode_frame(frame.clone())
    else {
        panic!("an append");
    };
    assert!(
        range.contains(&batches[0].body.as_ptr()),
        "the body was copied"
    );
}

#[test]
fn every_cut_is_an_error() {
    for frame in examples() {
        let bytes = encode(&frame);
        // Every cut near both ends, samples between.
        let cuts = (0..bytes.len()).filter(|n| *n < 300 || n % 997 == 0 || bytes.len() - n < 50);
        for n in cuts {
            assert_eq!(
                decode(&bytes[..n]),
                Err(WireError::Short),
                "{n} of {frame:?}"
            );
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode(&longer), Err(WireError::Trailing));
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    // Each byte is under the frame's checksum, a descriptor's, a body's, or is the position field of
    // a descriptor, which is no part of the message.
    for frame in examples() {
        let bytes = encode(&frame);
        let step = if bytes.len() > 10_000 { 391 } else { 1 };
        for at in (0..bytes.len()).step_by(step) {
            for flip in [0x01, 0x80, 0xFF] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                match decode(&bad) {
                    Err(_) => {}
                    Ok(read) => assert_eq!(read, frame, "byte {at} changed the message"),
                }
            }
        }
    }
}

#[test]
fn limits_hold_before_allocation() {
    let bytes = encode(&append(vec![commands(&[b"abc"])]));
    let len = bytes.len() as u64;
    assert_eq!(
        frame_bytes(&bytes, len - 1),
        Err(WireError::TooLong { len, max: len - 1 })
    );
    assert_eq!(frame_bytes(&bytes[..HEADER_BYTES - 1], LIMIT), Ok(None));
    let mut buffer = FrameBuffer::default();
    let frame = append(vec![commands(&[&[0; 1000]])]);
    assert!(matches!(
        buffer.push(&frame, 1000),
        Err(WireError::TooLong { .. })
    ));
    assert!(buffer.is_empty(), "a refused frame leaves nothing behind");
    assert_eq!(encode(&append(vec![])).len(), OVERHEAD);
    assert_eq!(APPEND_OVERHEAD_BYTES, OVERHEAD as u64);
}

/// Replaces the frame's checksum by the right one for its bytes, as a hostile or broken sender would.
fn reseal(bytes: &mut [u8]) {
    let sealed_end = sealed_end(bytes);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[HEADER_BYTES..sealed_end]);
    let sum = hasher.finalize();
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn well_sealed_nonsense_is_refused() {
    // Checksums prove nothing about the sender's sense: behind them, every value is checked.
    let hello = examples().remove(0);
    let cases = [
        ("magic", hello.clone(), 0, b'X', WireError::Magic),
        ("version", hello.clone(), 4, 9, WireError::Version(9)),
        ("type", hello.clone(), 5, 200, WireError::Type(200)),
        ("flags", hello.clone(), 6, 1, WireError::Reserved),
        (
            "class",
            hello.clone(),
            18,
            3,
            WireError::Value("connection class"),
        ),
        ("reserved", hello.clone(), 19, 1, WireError::Reserved),
        (
            "granted",
            message(Message::VoteReply { granted: true }),
            HEADER_BYTES + 40,
            2,
            WireError::Value("granted"),
        ),
        (
            "reply kind",
            message(Message::AppendReply(AppendReply::Accepted {
                matched: Index(1),
            })),
            HEADER_BYTES + 40,
            9,
            WireError::Value("kind of append reply"),
        ),
        (
            "refusal",
            Frame::Refused(Refusal::Cluster),
            HEADER_BYTES,
            99,
            WireError::Value("refusal"),
        ),
        // A value where the reason has none; found by fuzzing.
        (
            "refusal without value",
            Frame::Refused(Refusal::UnknownPeer),
            HEADER_BYTES + 8,
            1,
            WireError::Value("refusal"),
        ),
        // A count that would need more descriptors than the frame has bytes.
        (
            "batch count",
            append(vec![]),
            HEADER_BYTES + 72 + 6,
            0xFF,
            WireError::Short,
        ),
        (
            "one batch too many",
            append(vec![]),
            HEADER_BYTES + 72,
            1,
            WireError::Short,
        ),
        (
            "fetched group",
            fetched(vec![Body::noop()]),
            HEADER_BYTES,
            6,
            WireError::Value("group of a batch"),
        ),
        (
            "optional index",
            message(Message::DamageReport {
                lost_suffix: false,
                needs_snapshot: None,
            }),
            HEADER_BYTES + 41,
            2,
            WireError::Value("a snapshot is needed"),
        ),
        // An index that is said to be there and is not.
        (
            "missing index",
            message(Message::ReadIndexReply {
                id: 1,
                asker: Incarnation(1),
                index: None,
            }),
            HEADER_BYTES + 56,
            1,
            WireError::Short,
        ),
        (
            "group",
            append(vec![Body::noop()]),
            HEADER_BYTES,
            6,
            WireError::Value("group of a batch"),
        ),
    ];
    for (name, frame, at, value, expected) in cases {
        let mut bytes = encode(&frame);
        bytes[at] = value;
        reseal(&mut bytes);
        assert_eq!(decode(&bytes), Err(expected), "{name}");
    }
}

#[test]
fn bytes_after_the_last_field_are_refused_under_a_good_checksum() {
    // Found by fuzzing: a hello of another protocol version could carry anything behind its fields.
    let other = Frame::Hello(Hello {
        protocol: 9,
        class: Class::Bulk,
        max_batch_bytes: 1,
        cluster: [7; 16],
        node: NodeId(1),
        incarnation: Incarnation(1),
        to: NodeId(2),
    });
    for frame in examples().into_iter().chain([other]) {
        let mut bytes = encode(&frame);
        bytes.extend_from_slice(b"and more");
        let len = u32::try_from(bytes.len() - HEADER_BYTES).expect("short");
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        reseal(&mut bytes);
        assert_eq!(decode(&bytes), Err(WireError::Trailing), "{frame:?}");
    }
}

#[test]
fn swapped_descriptors_do_not_pass_as_the_same_append() {
    // Two valid descriptors in exchanged places keep all their checksums. Either the bodies no longer
    // fit, or, with equal bodies, the message is another one, whose digests do not follow `prev`.
    let frame = append(vec![commands(&[b"same"]), commands(&[b"same"])]);
    let mut bytes = encode(&frame);
    let start = OVERHEAD;
    let (first, second) = bytes[start..start + 128].split_at_mut(64);
    first.swap_with_slice(second);
    let Ok(Frame::Message(Envelope {
        message: Message::Append { prev, batches, .. },
        ..
    })) = decode(&bytes)
    else {
        panic!("every checksum holds");
    };
    assert!(
        !batches[0].header.follows(&prev),
        "the digest chain notices the swap"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn decoding_any_bytes_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u8..40, seal in any::<bool>()) {
        if bytes.len() >= HEADER_BYTES {
            // Random bytes alone never get past the header: make them look like a frame.
            bytes[..5].copy_from_slice(b"DRF1\x01");
            bytes[5] = kind;
            bytes[6..8].fill(0);
            let len = u32::try_from(bytes.len() - HEADER_BYTES).expect("short");
            bytes[8..12].copy_from_slice(&len.to_le_bytes());
            if seal {
                reseal(&mut bytes);
            }
        }
        let _ = decode(&bytes);
    }
}
