//! The frames that nodes exchange: pure functions between bytes and messages.
//!
//! All numbers are little-endian. A frame is a 16-byte header and a body:
//!
//! ```text
//! 0 magic "DRF1" | 4 u8 version | 5 u8 type | 6 u16 zero | 8 u32 body length | 12 u32 checksum
//! ```
//!
//! The checksum is CRC-32/IEEE over bytes 0..12 and the *sealed part* of the body. The sealed part is
//! the whole body, except where batches are carried: there it ends before them, because each batch
//! carries its own two checksums and no CRC may cover data together with a CRC of the same polynomial
//! over that data. The bodies of an append and of the answer to a fetch are
//!
//! ```text
//! 40 envelope | 24 prev  | 8 commit | 8 count || count x 64 descriptor | bodies, in order
//! 40 envelope | 24 after |            8 count || count x 64 descriptor | bodies, in order
//! ```
//!
//! A frame of a transfer is `32 group, sender, its life, receiver | the transfer's own part`; a piece's
//! sealed part ends before the bytes of the file, which carry the file's checksums.
//!
//! An index that may be missing is a byte 0, or a byte 1 and the index.
//!
//! `decode` never panics, allocates nothing that the input does not pay for byte by byte, and
//! returns only messages whose every checksum holds. Bodies are slices of the frame they came in.

mod decode;
mod encode;
mod kind;

use crate::transfer::{PIECE_HEAD_BYTES, TransferFrame, TransferFrameError, TransferKind};
use bytes::Bytes;
use decode::Fields;
use duraft_core::{Batch, DESCRIPTOR_BYTES, Envelope, GroupId, Incarnation, Message, NodeId};
use duraft_storage::{BatchDamage, DescriptorError, encode_descriptor};
use encode::encode_sealed;
use kind::FrameType;
use std::io::{self, IoSlice, Write};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"DRF1";
/// Version of the framing.
pub const FRAME_VERSION: u8 = 1;
/// Version of the messages, exchanged in the hello.
pub const PROTOCOL_VERSION: u16 = 2;
/// Bytes before the body of a frame.
pub const HEADER_BYTES: usize = 16;
/// Bytes of an append frame before its first descriptor.
pub const APPEND_OVERHEAD_BYTES: u64 = (HEADER_BYTES + APPEND_SEALED_BYTES) as u64;

const ENVELOPE_BYTES: usize = 40;
const APPEND_SEALED_BYTES: usize = ENVELOPE_BYTES + 24 + 8 + 8;
/// Bytes of the addresses of a transfer's frame.
const PARCEL_BYTES: usize = 32;
/// Bytes of the frame of a piece before the bytes of the file.
pub const PIECE_OVERHEAD_BYTES: u64 = (HEADER_BYTES + PARCEL_BYTES + PIECE_HEAD_BYTES) as u64;
const FETCHED_SEALED_BYTES: usize = ENVELOPE_BYTES + 24 + 8;
const DESCRIPTOR: usize = 64;
const _: () = assert!(DESCRIPTOR as u64 == DESCRIPTOR_BYTES);
/// Bodies from this size on are written from where they lie instead of being copied.
const BORROWED_BODY_BYTES: usize = 8 << 10;

/// One decoded frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// The first frame of a connection, from the node that opened it.
    Hello(Hello),
    /// The hello was accepted.
    Accepted(Accepted),
    /// The hello was refused; the connection ends.
    Refused(Refusal),
    /// A message between cores.
    Message(Envelope),
    /// A word between those who move snapshots.
    Transfer(Parcel),
}

/// A frame of a transfer and its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parcel {
    /// The group whose snapshot moves.
    pub group: GroupId,
    /// Sender.
    pub from: NodeId,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// Receiver.
    pub to: NodeId,
    /// What it says.
    pub frame: TransferFrame,
}

/// Who opens a connection, to whom, for what. The layout is the same in all protocol versions, so that
/// each can tell any other why it is refused; later versions say more in frames that follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Version of the messages the sender speaks.
    pub protocol: u16,
    /// What the connection is for.
    pub class: Class,
    /// The sender's `max_batch_bytes`, a constant of the cluster.
    pub max_batch_bytes: u32,
    /// The sender's cluster.
    pub cluster: [u8; 16],
    /// The sender.
    pub node: NodeId,
    /// The sender's life.
    pub incarnation: Incarnation,
    /// The node that the sender means to reach.
    pub to: NodeId,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Class {
    /// Votes, heartbeats, questions about reads and terms, and their answers: small, urgent.
    Control = 1,
    /// Appends, fetches, reports of damage, snapshots, and their answers.
    Bulk = 2,
}

impl Class {
    /// The connection a message travels on.
    pub fn of(message: &Message) -> Class {
        match message {
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::Heartbeat { .. }
            | Message::HeartbeatReply { .. }
            | Message::TimeoutNow
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::TermQuery
            | Message::TermReply { .. } => Class::Control,
            Message::Append { .. }
            | Message::AppendReply(_)
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::Heal { .. }
            | Message::RolledBack { .. } => Class::Bulk,
        }
    }
}

/// Answer to an accepted hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// The node that answers.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
}

/// Why a hello is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// The node speaks another protocol version.
    #[error("it speaks protocol version {ours}")]
    Protocol {
        /// The version of the node that refuses.
        ours: u16,
    },
    /// The node belongs to another cluster.
    #[error("it belongs to another cluster")]
    Cluster,
    /// Another node listens at this address.
    #[error("the address belongs to node {actual}")]
    WrongNode {
        /// The node that refuses.
        actual: NodeId,
    },
    /// The node does not know the sender as a peer.
    #[error("it does not know this node as a peer")]
    UnknownPeer,
    /// The clusters' largest batches differ.
    #[error("its max_batch_bytes is {ours}")]
    MaxBatch {
        /// The value of the node that refuses.
        ours: u32,
    },
    /// A later life of the sender has greeted before: its disk was rolled back (RULES.md 18).
    #[error("it has seen this node's life {seen}: this node's disk was rolled back")]
    RolledBack {
        /// The latest life that was seen.
        seen: Incarnation,
    },
    /// The sender's certificate is not for the node of the cluster that its hello names.
    #[error("this node's certificate is not for the node that it says it is")]
    Certificate,
}

/// Why bytes are not a frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes do not begin with the magic number.
    #[error("the frame does not begin with the magic number")]
    Magic,
    /// The framing has another version.
    #[error("frame version {0} is not supported")]
    Version(u8),
    /// The frame type is unknown.
    #[error("frame type {0} is unknown")]
    Type(u8),
    /// A field that must be zero is not.
    #[error("a reserved field is not zero")]
    Reserved,
    /// The frame is over the limit.
    #[error("a frame of {len} bytes is over the limit of {max} bytes")]
    TooLong {
        /// Length of the whole frame.
        len: u64,
        /// Largest length allowed.
        max: u64,
    },
    /// The bytes end before the frame does, or the body before its fields do.
    #[error("the frame is cut short")]
    Short,
    /// The frame goes on after its last field.
    #[error("the frame has bytes after its last field")]
    Trailing,
    /// The frame's checksum does not match.
    #[error("the frame fails its checksum")]
    Checksum,
    /// A field has a value that no sender writes.
    #[error("field {0} has a value that is not allowed")]
    Value(&'static str),
    /// The body is not a frame of a transfer.
    #[error(transparent)]
    Transfer(#[from] TransferFrameError),
    /// The descriptor of a batch in an append is not valid.
    #[error("batch {at} of the append: {error}")]
    Descriptor {
        /// Place in the append, from 0.
        at: usize,
        /// What is wrong.
        error: DescriptorError,
    },
    /// The body of a batch in an append is not valid.
    #[error("batch {at} of the append: {error}")]
    Batch {
        /// Place in the append, from 0.
        at: usize,
        /// What is wrong.
        error: BatchDamage,
    },
}

/// Reads the length of the whole frame from its first bytes, checking all that can be checked
/// before anything is allocated for it. `None` while fewer than [`HEADER_BYTES`] bytes are there.
pub fn frame_bytes(start: &[u8], frame_bytes_max: u64) -> Result<Option<usize>, WireError> {
    let Some(header) = start.get(..HEADER_BYTES) else {
        return Ok(None);
    };
    let mut fields = Fields::new(header);
    if fields.take::<4>()? != MAGIC {
        return Err(WireError::Magic);
    }
    let version = fields.u8()?;
    if version != FRAME_VERSION {
        return Err(WireError::Version(version));
    }
    FrameType::from_number(fields.u8()?)?;
    if fields.u16()? != 0 {
        return Err(WireError::Reserved);
    }
    let len = HEADER_BYTES as u64 + u64::from(fields.u32()?);
    if len > frame_bytes_max {
        return Err(WireError::TooLong {
            len,
            max: frame_bytes_max,
        });
    }
    usize::try_from(len)
        .map(Some)
        .map_err(|_| WireError::TooLong {
            len,
            max: frame_bytes_max,
        })
}

/// Decodes one whole frame, copying it first. For tests and tools; connections use
/// [`decode_frame`].
pub fn decode(frame: &[u8]) -> Result<Frame, WireError> {
    decode_frame(Bytes::copy_from_slice(frame))
}

/// Decodes one whole frame. Bodies of batches are slices of it.
pub fn decode_frame(frame: Bytes) -> Result<Frame, WireError> {
    let len = frame_bytes(&frame, u64::MAX)?.ok_or(WireError::Short)?;
    match frame.len() {
        n if n < len => return Err(WireError::Short),
        n if n > len => return Err(WireError::Trailing),
        _ => {}
    }
    let frame_type = FrameType::from_number(frame[5])?;
    let sealed_end = HEADER_BYTES + frame_type.sealed_len(frame.len() - HEADER_BYTES);
    let sealed = frame
        .get(HEADER_BYTES..sealed_end)
        .ok_or(WireError::Short)?;
    if checksum(&frame[..12], sealed).to_le_bytes() != frame[12..16] {
        return Err(WireError::Checksum);
    }
    let mut fields = Fields::new(sealed);
    let decoded = match frame_type {
        FrameType::Hello => Frame::Hello(fields.hello()?),
        FrameType::Accepted => Frame::Accepted(fields.accepted()?),
        FrameType::Refused => Frame::Refused(fields.refusal()?),
        FrameType::Append => Frame::Message(decode::append(fields, &frame.slice(sealed_end..))?),
        FrameType::Fetched => Frame::Message(decode::fetched(fields, &frame.slice(sealed_end..))?),
        FrameType::Offer => transfer(TransferKind::Offer, &frame)?,
        FrameType::Piece => transfer(TransferKind::Piece, &frame)?,
        FrameType::Ack => transfer(TransferKind::Ack, &frame)?,
        FrameType::TransferRefused => transfer(TransferKind::Refused, &frame)?,
        FrameType::PreVote
        | FrameType::PreVoteReply
        | FrameType::Vote
        | FrameType::VoteReply
        | FrameType::AppendReply
        | FrameType::Heartbeat
        | FrameType::HeartbeatReply
        | FrameType::TimeoutNow
        | FrameType::ReadIndex
        | FrameType::ReadIndexReply
        | FrameType::Fetch
        | FrameType::DamageReport
        | FrameType::Heal
        | FrameType::TermQuery
        | FrameType::TermReply
        | FrameType::RolledBack => Frame::Message(fields.envelope(frame_type)?),
    };
    Ok(decoded)
}

fn transfer(kind: TransferKind, frame: &Bytes) -> Result<Frame, WireError> {
    decode::transfer(kind, frame.slice(HEADER_BYTES..)).map(Frame::Transfer)
}

/// Frames that wait to be written together. Large bodies are referred to, not copied.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Bodies and the places in `bytes` before which they belong, ascending.
    borrowed: Vec<(usize, Bytes)>,
    borrowed_bytes: usize,
}

impl FrameBuffer {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.borrowed_bytes
    }

    /// Does nothing wait?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.borrowed.clear();
        self.borrowed_bytes = 0;
    }

    /// Adds a frame. A frame over the limit is refused and nothing is added.
    pub fn push(&mut self, frame: &Frame, frame_bytes_max: u64) -> Result<(), WireError> {
        let batches = match frame {
            Frame::Message(envelope) => batches_of(envelope),
            Frame::Hello(_) | Frame::Accepted(_) | Frame::Refused(_) | Frame::Transfer(_) => &[],
        };
        let payload = match frame {
            Frame::Transfer(parcel) => parcel.frame.payload(),
            Frame::Hello(_) | Frame::Accepted(_) | Frame::Refused(_) | Frame::Message(_) => None,
        };
        let len = APPEND_OVERHEAD_BYTES
            + batches.iter().map(Batch::cost).sum::<u64>()
            + payload.map_or(0, |bytes| bytes.len() as u64);
        let too_long = WireError::TooLong {
            len,
            max: frame_bytes_max,
        };
        if len > frame_bytes_max || len > u64::from(u32::MAX) {
            return Err(too_long);
        }
        let start = self.bytes.len();
        let borrowed_before = self.borrowed_bytes;
        self.bytes.extend_from_slice(&MAGIC);
        self.bytes.push(FRAME_VERSION);
        self.bytes.push(FrameType::of(frame) as u8);
        self.bytes.extend_from_slice(&[0; 10]);
        let sealed_len = encode_sealed(frame, &mut self.bytes);
        self.push_batches(batches);
        if let Some(payload) = payload {
            self.push_body(payload);
        }
        let body_len =
            self.bytes.len() - start - HEADER_BYTES + self.borrowed_bytes - borrowed_before;
        // Cannot be cut: lengths over u32::MAX were refused above, other frames have fixed sizes.
        let body_len = u32::try_from(body_len).map_err(|_| too_long)?;
        self.bytes[start + 8..start + 12].copy_from_slice(&body_len.to_le_bytes());
        let sealed = start + HEADER_BYTES..start + HEADER_BYTES + sealed_len;
        let sum = checksum(&self.bytes[start..start + 12], &self.bytes[sealed]);
        self.bytes[start + 12..start + 16].copy_from_slice(&sum.to_le_bytes());
        Ok(())
    }

    fn push_batches(&mut self, batches: &[Batch]) {
        for batch in batches {
            let mut descriptor = [0; DESCRIPTOR];
            encode_descriptor(&batch.header, 0, &mut descriptor);
            self.bytes.extend_from_slice(&descriptor);
        }
        for batch in batches {
            self.push_body(&batch.body);
        }
    }

    fn push_body(&mut self, body: &Bytes) {
        if body.len() >= BORROWED_BODY_BYTES {
            self.borrowed_bytes += body.len();
            self.borrowed.push((self.bytes.len(), body.clone()));
        } else {
            self.bytes.extend_from_slice(body);
        }
    }

    /// Writes everything, in as few calls as the system allows.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let mut slices = Vec::with_capacity(self.borrowed.len() * 2 + 1);
        let mut from = 0;
        for (at, body) in &self.borrowed {
            slices.push(IoSlice::new(&self.bytes[from..*at]));
            slices.push(IoSlice::new(body));
            from = *at;
        }
        slices.push(IoSlice::new(&self.bytes[from..]));
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match out.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Everything as one piece; for tests and tools.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len());
        self.write_to(&mut out)
            .expect("writing to memory does not fail");
        out
    }
}

/// The batches that a message carries, which stand behind the sealed part of its frame.
pub(crate) fn batches_of(envelope: &Envelope) -> &[Batch] {
    match &envelope.message {
        Message::Append { batches, .. } | Message::Fetched { batches, .. } => batches,
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Vote { .. }
        | Message::VoteReply { .. }
        | Message::AppendReply(_)
        | Message::Heartbeat { .. }
        | Message::HeartbeatReply { .. }
        | Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => &[],
    }
}

fn checksum(header: &[u8], sealed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(sealed);
    hasher.finalize()
}
