//! The frames that nodes exchange: pure functions between bytes and messages.
//!
//! All numbers are little-endian. A frame is a 16-byte header and a body:
//!
//! ```text
//! 0 magic "DRF1" | 4 u8 version | 5 u8 type | 6 u16 zero | 8 u32 body length | 12 u32 checksum
//! ```
//!
//! The checksum is CRC-32/IEEE over bytes 0..12 and the *sealed part* of the body. The sealed part is
//! the whole body, except in an append: there it ends before the batches, because each batch carries
//! its own two checksums and no CRC may cover data together with a CRC of the same polynomial over
//! that data. An append's body is
//!
//! ```text
//! 40 envelope | 24 prev | 8 commit | 8 count || count x 64 descriptor | bodies, in order
//! ```
//!
//! [`decode`] never panics, allocates nothing that the input does not pay for byte by byte, and
//! returns only messages whose every checksum holds. Bodies are slices of the frame they came in.

use bytes::Bytes;
use duraft_core::{
    AppendReply, Batch, DESCRIPTOR_BYTES, Digest, Envelope, GroupId, Incarnation, Index, LogId,
    Message, NodeId, Position, Term,
};
use duraft_storage::{BatchDamage, DescriptorError, decode_descriptor, encode_descriptor, verify};
use std::io::{self, IoSlice, Write};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"DRF1";
/// Version of the framing.
pub const FRAME_VERSION: u8 = 1;
/// Version of the messages, exchanged in the hello.
pub const PROTOCOL_VERSION: u16 = 1;
/// Bytes before the body of a frame.
pub const HEADER_BYTES: usize = 16;
/// Bytes of an append frame before its first descriptor.
pub const APPEND_OVERHEAD_BYTES: u64 = (HEADER_BYTES + APPEND_SEALED_BYTES) as u64;

const ENVELOPE_BYTES: usize = 40;
const APPEND_SEALED_BYTES: usize = ENVELOPE_BYTES + 24 + 8 + 8;
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
    /// Votes and heartbeats and their answers: small, urgent.
    Control = 1,
    /// Appends and their answers.
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
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::Heal { .. }
            | Message::TermQuery
            | Message::TermReply { .. }
            | Message::RolledBack { .. } => Class::Control,
            Message::Append { .. } | Message::AppendReply(_) => Class::Bulk,
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
    let sealed_end = if frame_type == FrameType::Append {
        HEADER_BYTES + APPEND_SEALED_BYTES
    } else {
        frame.len()
    };
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
        FrameType::Append => Frame::Message(decode_append(fields, frame.slice(sealed_end..))?),
        FrameType::PreVote
        | FrameType::PreVoteReply
        | FrameType::Vote
        | FrameType::VoteReply
        | FrameType::AppendReply
        | FrameType::Heartbeat
        | FrameType::HeartbeatReply => Frame::Message(fields.envelope(frame_type)?),
    };
    Ok(decoded)
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
        let len = match frame {
            Frame::Message(Envelope {
                message: Message::Append { batches, .. },
                ..
            }) => APPEND_OVERHEAD_BYTES + batches.iter().map(Batch::cost).sum::<u64>(),
            Frame::Hello(_) | Frame::Accepted(_) | Frame::Refused(_) | Frame::Message(_) => 0,
        };
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
        if let Frame::Message(Envelope {
            message: Message::Append { batches, .. },
            ..
        }) = frame
        {
            self.push_batches(batches);
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
            if batch.body.len() >= BORROWED_BODY_BYTES {
                self.borrowed_bytes += batch.body.len();
                self.borrowed.push((self.bytes.len(), batch.body.clone()));
            } else {
                self.bytes.extend_from_slice(&batch.body);
            }
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

/// The type of a frame as it stands in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum FrameType {
    Hello = 1,
    Accepted = 2,
    Refused = 3,
    PreVote = 16,
    PreVoteReply = 17,
    Vote = 18,
    VoteReply = 19,
    Append = 20,
    AppendReply = 21,
    Heartbeat = 22,
    HeartbeatReply = 23,
}

impl FrameType {
    fn from_number(number: u8) -> Result<FrameType, WireError> {
        Ok(match number {
            1 => FrameType::Hello,
            2 => FrameType::Accepted,
            3 => FrameType::Refused,
            16 => FrameType::PreVote,
            17 => FrameType::PreVoteReply,
            18 => FrameType::Vote,
            19 => FrameType::VoteReply,
            20 => FrameType::Append,
            21 => FrameType::AppendReply,
            22 => FrameType::Heartbeat,
            23 => FrameType::HeartbeatReply,
            _ => return Err(WireError::Type(number)),
        })
    }

    fn of(frame: &Frame) -> FrameType {
        match frame {
            Frame::Hello(_) => FrameType::Hello,
            Frame::Accepted(_) => FrameType::Accepted,
            Frame::Refused(_) => FrameType::Refused,
            Frame::Message(envelope) => match envelope.message {
                Message::PreVote { .. } => FrameType::PreVote,
                Message::PreVoteReply { .. } => FrameType::PreVoteReply,
                Message::Vote { .. } => FrameType::Vote,
                Message::VoteReply { .. } => FrameType::VoteReply,
                Message::Append { .. } => FrameType::Append,
                Message::AppendReply(_) => FrameType::AppendReply,
                Message::Heartbeat { .. } => FrameType::Heartbeat,
                Message::HeartbeatReply { .. } => FrameType::HeartbeatReply,
                Message::TimeoutNow
                | Message::ReadIndex { .. }
                | Message::ReadIndexReply { .. }
                | Message::Fetch { .. }
                | Message::Fetched { .. }
                | Message::DamageReport { .. }
                | Message::Heal { .. }
                | Message::TermQuery
                | Message::TermReply { .. }
                | Message::RolledBack { .. } => unreachable!("the core does not send this yet"),
            },
        }
    }
}

fn checksum(header: &[u8], sealed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(sealed);
    hasher.finalize()
}

/// Appends the sealed part of the frame's body and returns its length.
fn encode_sealed(frame: &Frame, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    match frame {
        Frame::Hello(hello) => {
            out.extend_from_slice(&hello.protocol.to_le_bytes());
            out.push(hello.class as u8);
            out.push(0);
            out.extend_from_slice(&hello.max_batch_bytes.to_le_bytes());
            out.extend_from_slice(&hello.cluster);
            put(out, &[hello.node.0, hello.incarnation.0, hello.to.0]);
        }
        Frame::Accepted(accepted) => put(out, &[accepted.node.0, accepted.incarnation.0]),
        Frame::Refused(refusal) => {
            let (code, value) = match *refusal {
                Refusal::Protocol { ours } => (1, u64::from(ours)),
                Refusal::Cluster => (2, 0),
                Refusal::WrongNode { actual } => (3, actual.0),
                Refusal::UnknownPeer => (4, 0),
                Refusal::MaxBatch { ours } => (5, u64::from(ours)),
            };
            put(out, &[code, value]);
        }
        Frame::Message(envelope) => encode_envelope(envelope, out),
    }
    out.len() - start
}

fn encode_envelope(envelope: &Envelope, out: &mut Vec<u8>) {
    put(
        out,
        &[
            envelope.group.0,
            envelope.from.0,
            envelope.incarnation.0,
            envelope.to.0,
            envelope.term.0,
        ],
    );
    match &envelope.message {
        Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::Fetched { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => unreachable!("the core does not send this yet"),
        Message::PreVote { wanted, last } => put(out, &[wanted.0, last.term.0, last.index.0]),
        Message::PreVoteReply { wanted, granted } => {
            put(out, &[wanted.0]);
            out.push(u8::from(*granted));
        }
        Message::Vote { last, .. } => put(out, &[last.term.0, last.index.0]),
        Message::VoteReply { granted } => out.push(u8::from(*granted)),
        Message::Append {
            prev,
            batches,
            commit,
        } => {
            put_position(out, prev);
            // push() has refused appends of more than u32::MAX bytes, so the count fits.
            put(out, &[commit.0, batches.len() as u64]);
        }
        Message::AppendReply(reply) => match reply {
            AppendReply::Accepted { matched } => {
                out.push(1);
                put(out, &[matched.0]);
            }
            AppendReply::Rejected { prev, hint } => {
                out.push(2);
                put(out, &[prev.term.0, prev.index.0, hint.term.0, hint.index.0]);
            }
            AppendReply::Divergence { theirs, ours } => {
                out.push(3);
                put_position(out, theirs);
                put_position(out, ours);
            }
        },
        Message::Heartbeat { commit, round } => put(out, &[commit.0, *round]),
        Message::HeartbeatReply { round, .. } => put(out, &[*round]),
    }
}

fn put(out: &mut Vec<u8>, words: &[u64]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn put_position(out: &mut Vec<u8>, position: &Position) {
    put(
        out,
        &[position.id.term.0, position.id.index.0, position.digest.0],
    );
}

/// Decodes an append from its sealed fields and the bytes behind them.
fn decode_append(mut fields: Fields<'_>, rest: Bytes) -> Result<Envelope, WireError> {
    let (group, from, incarnation, to, term) = fields.addresses()?;
    let prev = fields.position()?;
    let commit = Index(fields.u64()?);
    let count = fields.u64()?;
    fields.finish()?;
    let count = usize::try_from(count).map_err(|_| WireError::Short)?;
    // The descriptors must be there before anything is allocated for them.
    let table = count.checked_mul(DESCRIPTOR).ok_or(WireError::Short)?;
    let descriptors = rest.get(..table).ok_or(WireError::Short)?;
    let mut at_body = table;
    let mut batches = Vec::with_capacity(count);
    for (at, descriptor) in descriptors.chunks_exact(DESCRIPTOR).enumerate() {
        let descriptor = descriptor.try_into().map_err(|_| WireError::Short)?;
        let (header, position) =
            decode_descriptor(descriptor).map_err(|error| WireError::Descriptor { at, error })?;
        // A position names a place on a disk and says nothing here.
        if position != 0 {
            return Err(WireError::Reserved);
        }
        if header.group != group {
            return Err(WireError::Value("group of a batch"));
        }
        let body_len = usize::try_from(header.body_len).map_err(|_| WireError::Short)?;
        let end = at_body.checked_add(body_len).ok_or(WireError::Short)?;
        if end > rest.len() {
            return Err(WireError::Short);
        }
        let batch = Batch {
            header,
            body: rest.slice(at_body..end),
        };
        verify(&batch).map_err(|error| WireError::Batch { at, error })?;
        batches.push(batch);
        at_body = end;
    }
    if at_body != rest.len() {
        return Err(WireError::Trailing);
    }
    Ok(Envelope {
        group,
        from,
        incarnation,
        to,
        term,
        message: Message::Append {
            prev,
            batches,
            commit,
        },
    })
}

/// Fields that are taken off the front of a slice.
struct Fields<'a> {
    rest: &'a [u8],
}

type Addresses = (GroupId, NodeId, Incarnation, NodeId, Term);

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Value(field)),
        }
    }

    fn log_id(&mut self) -> Result<LogId, WireError> {
        Ok(LogId {
            term: Term(self.u64()?),
            index: Index(self.u64()?),
        })
    }

    fn position(&mut self) -> Result<Position, WireError> {
        Ok(Position {
            id: self.log_id()?,
            digest: Digest(self.u64()?),
        })
    }

    fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }

    fn hello(&mut self) -> Result<Hello, WireError> {
        let protocol = self.u16()?;
        let class = match self.u8()? {
            1 => Class::Control,
            2 => Class::Bulk,
            _ => return Err(WireError::Value("connection class")),
        };
        if self.u8()? != 0 {
            return Err(WireError::Reserved);
        }
        let hello = Hello {
            protocol,
            class,
            max_batch_bytes: self.u32()?,
            cluster: self.take()?,
            node: NodeId(self.u64()?),
            incarnation: Incarnation(self.u64()?),
            to: NodeId(self.u64()?),
        };
        self.finish()?;
        Ok(hello)
    }

    fn accepted(&mut self) -> Result<Accepted, WireError> {
        let accepted = Accepted {
            node: NodeId(self.u64()?),
            incarnation: Incarnation(self.u64()?),
        };
        self.finish()?;
        Ok(accepted)
    }

    fn refusal(&mut self) -> Result<Refusal, WireError> {
        let (code, value) = (self.u64()?, self.u64()?);
        self.finish()?;
        let narrow = |_| WireError::Value("refusal");
        Ok(match code {
            1 => Refusal::Protocol {
                ours: u16::try_from(value).map_err(narrow)?,
            },
            2 if value == 0 => Refusal::Cluster,
            3 => Refusal::WrongNode {
                actual: NodeId(value),
            },
            4 if value == 0 => Refusal::UnknownPeer,
            5 => Refusal::MaxBatch {
                ours: u32::try_from(value).map_err(narrow)?,
            },
            _ => return Err(WireError::Value("refusal")),
        })
    }

    fn addresses(&mut self) -> Result<Addresses, WireError> {
        Ok((
            GroupId(self.u64()?),
            NodeId(self.u64()?),
            Incarnation(self.u64()?),
            NodeId(self.u64()?),
            Term(self.u64()?),
        ))
    }

    /// A message without batches.
    fn envelope(&mut self, frame_type: FrameType) -> Result<Envelope, WireError> {
        let (group, from, incarnation, to, term) = self.addresses()?;
        let message = match frame_type {
            FrameType::PreVote => Message::PreVote {
                wanted: Term(self.u64()?),
                last: self.log_id()?,
            },
            FrameType::PreVoteReply => Message::PreVoteReply {
                wanted: Term(self.u64()?),
                granted: self.flag("granted")?,
            },
            FrameType::Vote => Message::Vote {
                last: self.log_id()?,
                forced: false,
            },
            FrameType::VoteReply => Message::VoteReply {
                granted: self.flag("granted")?,
            },
            FrameType::AppendReply => Message::AppendReply(self.append_reply()?),
            FrameType::Heartbeat => Message::Heartbeat {
                commit: Index(self.u64()?),
                round: self.u64()?,
            },
            FrameType::HeartbeatReply => Message::HeartbeatReply {
                round: self.u64()?,
                health: duraft_core::Health::default(),
            },
            FrameType::Hello | FrameType::Accepted | FrameType::Refused | FrameType::Append => {
                unreachable!("decode_frame has routed these elsewhere")
            }
        };
        self.finish()?;
        Ok(Envelope {
            group,
            from,
            incarnation,
            to,
            term,
            message,
        })
    }

    fn append_reply(&mut self) -> Result<AppendReply, WireError> {
        Ok(match self.u8()? {
            1 => AppendReply::Accepted {
                matched: Index(self.u64()?),
            },
            2 => AppendReply::Rejected {
                prev: self.log_id()?,
                hint: self.log_id()?,
            },
            3 => AppendReply::Divergence {
                theirs: self.position()?,
                ours: self.position()?,
            },
            _ => return Err(WireError::Value("kind of append reply")),
        })
    }
}
