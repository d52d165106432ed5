//! The bytes of a transfer's frames.

use bytes::Bytes;
use duraft::transfer::{
    Attempt, PIECE_HEAD_BYTES, TRANSFER_BODY_BYTES_MAX, TransferFrame, TransferFrameError,
    TransferId, TransferKind, TransferRefusal,
};
use duraft_core::{
    Digest, Incarnation, Index, LogId, Membership, NodeId, Position, Snapshot, SnapshotFile, Term,
};

fn frames() -> Vec<TransferFrame> {
    let attempt = Attempt {
        life: Incarnation(0x0102),
        number: 3,
    };
    let file = SnapshotFile {
        nonce: 0x1111,
        bytes: 0x2222,
        digest: 0x3333,
    };
    let id = TransferId { attempt, file };
    vec![
        TransferFrame::Offer {
            attempt,
            term: Term(9),
            snapshot: Snapshot {
                position: Position {
                    id: LogId {
                        term: Term(2),
                        index: Index(100),
                    },
                    digest: Digest(700),
                },
                membership: Membership::new([NodeId(1), NodeId(2)], []).expect("two voters"),
                file,
            },
        },
        TransferFrame::Piece {
            id,
            offset: 0x2221,
            bytes: Bytes::from_static(b"x"),
        },
        TransferFrame::Ack {
            id,
            received: 0x2222,
            durable: true,
        },
        TransferFrame::Refused {
            id,
            reason: TransferRefusal::NoSpace,
        },
    ]
}

fn body(frame: &TransferFrame) -> Vec<u8> {
    let mut body = Vec::new();
    frame.encode_head(&mut body);
    body.extend_from_slice(frame.payload().map_or(&[], |bytes| bytes));
    body
}

#[test]
fn golden_bytes_of_frames() {
    let id = "0201000000000000 0300000000000000 \
              1111000000000000 2222000000000000 3333000000000000";
    let tails = [
        "0900000000000000 6400000000000000 0200000000000000 bc02000000000000 \
         0100020000000000 0000010000000000 0000020000000000 0000",
        "2122000000000000 78",
        "2222000000000000 0100000000000000",
        "0300000000000000",
    ];
    for (frame, tail) in frames().iter().zip(tails) {
        let bytes = body(frame);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected: String = format!("{id} {tail}").split(' ').collect();
        assert_eq!(hex, expected, "{frame:?}");
    }
}

#[test]
fn no_other_bytes_are_frames() {
    // Whatever decodes is what its encoding says, and encodes back to the same bytes.
    let kinds = [
        TransferKind::Offer,
        TransferKind::Piece,
        TransferKind::Ack,
        TransferKind::Refused,
    ];
    let decode = |kind, bytes: &[u8]| TransferFrame::decode(kind, Bytes::copy_from_slice(bytes));
    for frame in frames() {
        let bytes = body(&frame);
        assert_eq!(decode(frame.kind(), &bytes).as_ref(), Ok(&frame));
        for len in 0..bytes.len() {
            let cut = decode(frame.kind(), &bytes[..len]);
            assert!(cut.is_err(), "{frame:?} cut to {len}");
        }
        for kind in kinds {
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut changed = bytes.clone();
                    changed[at] ^= 1 << bit;
                    if let Ok(decoded) = decode(kind, &changed) {
                        assert_eq!(body(&decoded), changed);
                    }
                }
            }
        }
        let mut long = bytes;
        long.resize(long.len() + TRANSFER_BODY_BYTES_MAX, 0);
        if frame.kind() != TransferKind::Piece {
            assert_eq!(decode(frame.kind(), &long), Err(TransferFrameError::Length));
        }
    }
    // Beyond the file, and no bytes at all.
    let mut piece = body(&frames()[1]);
    piece[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(decode(TransferKind::Piece, &piece).is_err());
    piece[40..48].copy_from_slice(&0x2222_u64.to_le_bytes());
    assert!(decode(TransferKind::Piece, &piece).is_err());
    assert!(decode(TransferKind::Piece, &piece[..PIECE_HEAD_BYTES]).is_err());
}
