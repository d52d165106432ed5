//! What the two sides of a transfer say to each other, and the bytes of it.
//!
//! All numbers are little-endian. An `attempt` is the sender's life and a number, 8 bytes each; a
//! `file` is nonce, length and digest, 8 bytes each; a `position` is index, term and digest.
//!
//! ```text
//! offer    16 attempt | 24 file | 8 term | 24 position | the membership, as the core encodes it
//! piece    16 attempt | 24 file | 8 offset || bytes of the file
//! ack      16 attempt | 24 file | 8 next wanted offset | 8 durable: 0 or 1
//! refused  16 attempt | 24 file | 8 reason
//! ```
//!
//! The bytes of a piece carry no checksum of the frame. They are parts of a snapshot file, each part
//! has its own checksum of the same polynomial, and none may be laid over data together with a
//! checksum of it. The receiver compares the file's checksums before it writes anything.

use bytes::Bytes;
use duraft_core::{
    Digest, Incarnation, Index, LogId, MEMBERSHIP_BYTES_MAX, Membership, Position, Snapshot,
    SnapshotFile, Term,
};

/// Most bytes of the file in one piece.
pub const PIECE_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a piece's frame before the bytes of the file: the part that a frame's checksum covers.
pub const PIECE_HEAD_BYTES: usize = ID_BYTES + 8;
/// Largest body of a frame other than a piece.
pub const TRANSFER_BODY_BYTES_MAX: usize = OFFER_HEAD_BYTES + MEMBERSHIP_BYTES_MAX;

const ID_BYTES: usize = 16 + 24;
const OFFER_HEAD_BYTES: usize = ID_BYTES + 8 + 24;
const ACK_BYTES: usize = ID_BYTES + 16;
const REFUSED_BYTES: usize = ID_BYTES + 8;

/// Names one try of a sender to move one snapshot. Later tries are greater, also over restarts, so
/// that words of an earlier one are not taken for words of this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt {
    /// The sender's life.
    pub life: Incarnation,
    /// Counts within the life.
    pub number: u64,
}

/// Which transfer a frame belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransferId {
    /// The sender's attempt.
    pub attempt: Attempt,
    /// The snapshot's file.
    pub file: SnapshotFile,
}

/// One frame of a transfer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferFrame {
    /// From the sender: this is what I want to send. Answered by an ack or a refusal.
    Offer {
        /// The attempt; the file is the snapshot's.
        attempt: Attempt,
        /// The term the sender leads.
        term: Term,
        /// What it sends.
        snapshot: Snapshot,
    },
    /// From the sender: some bytes of the file.
    Piece {
        /// The transfer.
        id: TransferId,
        /// Where they stand.
        offset: u64,
        /// The bytes, at least one.
        bytes: Bytes,
    },
    /// From the receiver: everything before `received` has come.
    Ack {
        /// The transfer.
        id: TransferId,
        /// The next byte wanted.
        received: u64,
        /// The whole file stands verified and durable under its name.
        durable: bool,
    },
    /// From the receiver: not like this.
    Refused {
        /// The transfer.
        id: TransferId,
        /// Why.
        reason: TransferRefusal,
    },
}

/// Why a receiver refuses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferRefusal {
    /// It receives another snapshot; ask later.
    Busy,
    /// It knows of a later term than the offer's.
    Stale,
    /// Its disk has no room.
    NoSpace,
    /// Its disk fails.
    Storage,
    /// A part of the file that came is bad. It waits for a new attempt.
    Damaged,
    /// What comes is not what was announced.
    Foreign,
    /// It does not know this attempt: it was restarted, or gave up waiting. It waits for an offer.
    Unknown,
}

impl TransferRefusal {
    const ALL: [TransferRefusal; 7] = [
        TransferRefusal::Busy,
        TransferRefusal::Stale,
        TransferRefusal::NoSpace,
        TransferRefusal::Storage,
        TransferRefusal::Damaged,
        TransferRefusal::Foreign,
        TransferRefusal::Unknown,
    ];

    fn code(self) -> u64 {
        match self {
            TransferRefusal::Busy => 1,
            TransferRefusal::Stale => 2,
            TransferRefusal::NoSpace => 3,
            TransferRefusal::Storage => 4,
            TransferRefusal::Damaged => 5,
            TransferRefusal::Foreign => 6,
            TransferRefusal::Unknown => 7,
        }
    }
}

/// The kind of a frame, without its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TransferKind {
    /// [`TransferFrame::Offer`].
    Offer,
    /// [`TransferFrame::Piece`].
    Piece,
    /// [`TransferFrame::Ack`].
    Ack,
    /// [`TransferFrame::Refused`].
    Refused,
}

/// Why bytes are no frame of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferFrameError {
    /// The body is too short or too long for its kind.
    #[error("a body of this length cannot be a transfer frame of its kind")]
    Length,
    /// A field has a value that no sender writes.
    #[error("field {0} has a value that is not allowed")]
    Value(&'static str),
}

impl TransferFrame {
    /// The frame's kind.
    pub fn kind(&self) -> TransferKind {
        match self {
            TransferFrame::Offer { .. } => TransferKind::Offer,
            TransferFrame::Piece { .. } => TransferKind::Piece,
            TransferFrame::Ack { .. } => TransferKind::Ack,
            TransferFrame::Refused { .. } => TransferKind::Refused,
        }
    }

    /// The transfer it belongs to.
    pub fn id(&self) -> TransferId {
        match self {
            TransferFrame::Offer {
                attempt, snapshot, ..
            } => TransferId {
                attempt: *attempt,
                file: snapshot.file,
            },
            TransferFrame::Piece { id, .. }
            | TransferFrame::Ack { id, .. }
            | TransferFrame::Refused { id, .. } => *id,
        }
    }

    /// Bytes of the file that the frame carries; they follow what [`TransferFrame::encode_head`]
    /// writes.
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            TransferFrame::Piece { bytes, .. } => Some(bytes),
            TransferFrame::Offer { .. }
            | TransferFrame::Ack { .. }
            | TransferFrame::Refused { .. } => None,
        }
    }

    /// Bytes that the frame weighs in a queue.
    pub fn cost(&self) -> u64 {
        let payload = self.payload().map_or(0, |bytes| bytes.len() as u64);
        payload + TRANSFER_BODY_BYTES_MAX as u64
    }

    /// Appends the body but for the payload: the part that the frame's checksum covers.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        put_id(out, &self.id());
        match self {
            TransferFrame::Offer { term, snapshot, .. } => {
                put(out, term.0);
                put(out, snapshot.position.index().0);
                put(out, snapshot.position.term().0);
                put(out, snapshot.position.digest.0);
                out.extend_from_slice(&snapshot.membership.encode());
            }
            TransferFrame::Piece { offset, .. } => put(out, *offset),
            TransferFrame::Ack {
                received, durable, ..
            } => {
                put(out, *received);
                put(out, u64::from(*durable));
            }
            TransferFrame::Refused { reason, .. } => put(out, reason.code()),
        }
    }

    /// Reads a body of this kind. The payload of a piece is a slice of it.
    pub fn decode(kind: TransferKind, body: Bytes) -> Result<TransferFrame, TransferFrameError> {
        match kind {
            TransferKind::Offer => decode_offer(&body),
            TransferKind::Piece => decode_piece(body),
            TransferKind::Ack => {
                let mut fields = Fields::exactly(&body, ACK_BYTES)?;
                let id = fields.id();
                Ok(TransferFrame::Ack {
                    id,
                    received: within(fields.u64(), &id.file)?,
                    durable: match fields.u64() {
                        0 => false,
                        1 => true,
                        _ => return Err(TransferFrameError::Value("durable")),
                    },
                })
            }
            TransferKind::Refused => {
                let mut fields = Fields::exactly(&body, REFUSED_BYTES)?;
                let id = fields.id();
                let code = fields.u64();
                let reason = TransferRefusal::ALL.into_iter().find(|r| r.code() == code);
                let reason = reason.ok_or(TransferFrameError::Value("reason"))?;
                Ok(TransferFrame::Refused { id, reason })
            }
        }
    }
}

fn decode_offer(body: &[u8]) -> Result<TransferFrame, TransferFrameError> {
    let (head, membership) = body
        .split_at_checked(OFFER_HEAD_BYTES)
        .filter(|(_, membership)| membership.len() <= MEMBERSHIP_BYTES_MAX)
        .ok_or(TransferFrameError::Length)?;
    let mut fields = Fields(head);
    let TransferId { attempt, file } = fields.id();
    let term = Term(fields.u64());
    let id = LogId {
        index: Index(fields.u64()),
        term: Term(fields.u64()),
    };
    let position = Position {
        id,
        digest: Digest(fields.u64()),
    };
    let membership =
        Membership::decode(membership).map_err(|_| TransferFrameError::Value("membership"))?;
    let snapshot = Snapshot {
        position,
        membership,
        file,
    };
    Ok(TransferFrame::Offer {
        attempt,
        term,
        snapshot,
    })
}

fn decode_piece(mut body: Bytes) -> Result<TransferFrame, TransferFrameError> {
    if body.len() <= PIECE_HEAD_BYTES || body.len() > PIECE_HEAD_BYTES + PIECE_BYTES_MAX as usize {
        return Err(TransferFrameError::Length);
    }
    let bytes = body.split_off(PIECE_HEAD_BYTES);
    let mut fields = Fields(&body);
    let id = fields.id();
    let offset = fields.u64();
    let end = offset
        .checked_add(bytes.len() as u64)
        .ok_or(TransferFrameError::Value("offset"))?;
    within(end, &id.file)?;
    Ok(TransferFrame::Piece { id, offset, bytes })
}

fn within(offset: u64, file: &SnapshotFile) -> Result<u64, TransferFrameError> {
    if offset <= file.bytes {
        Ok(offset)
    } else {
        Err(TransferFrameError::Value("offset"))
    }
}

fn put(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_le_bytes());
}

fn put_id(out: &mut Vec<u8>, id: &TransferId) {
    put(out, id.attempt.life.0);
    put(out, id.attempt.number);
    put(out, id.file.nonce);
    put(out, id.file.bytes);
    put(out, id.file.digest);
}

/// Words of a body whose length was checked.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn exactly(body: &'a [u8], len: usize) -> Result<Fields<'a>, TransferFrameError> {
        if body.len() == len {
            Ok(Fields(body))
        } else {
            Err(TransferFrameError::Length)
        }
    }

    fn u64(&mut self) -> u64 {
        let (word, rest) = self
            .0
            .split_first_chunk::<8>()
            .expect("the length of the body was checked for all its fields");
        self.0 = rest;
        u64::from_le_bytes(*word)
    }

    fn id(&mut self) -> TransferId {
        TransferId {
            attempt: Attempt {
                life: Incarnation(self.u64()),
                number: self.u64(),
            },
            file: SnapshotFile {
                nonce: self.u64(),
                bytes: self.u64(),
                digest: self.u64(),
            },
        }
    }
}
