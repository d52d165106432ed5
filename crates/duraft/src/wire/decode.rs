//! Bytes to messages.

use super::kind::FrameType;
use super::{Accepted, Class, DESCRIPTOR, Hello, PARCEL_BYTES, Parcel, Refusal, WireError};
use crate::transfer::{TransferFrame, TransferKind};
use bytes::Bytes;
use duraft_core::{
    AppendReply, Batch, Digest, Envelope, GroupId, Health, Incarnation, Index, LogId, Message,
    NodeId, Position, Term,
};
use duraft_storage::{decode_descriptor, verify};

/// Decodes an append from its sealed fields and the bytes behind them.
pub(super) fn append(mut fields: Fields<'_>, rest: &Bytes) -> Result<Envelope, WireError> {
    let addresses = fields.addresses()?;
    let prev = fields.position()?;
    let commit = Index(fields.u64()?);
    let batches = fields.batches(addresses.group, rest)?;
    Ok(addresses.envelope(Message::Append {
        prev,
        batches,
        commit,
    }))
}

/// Decodes the answer to a fetch from its sealed fields and the bytes behind them.
pub(super) fn fetched(mut fields: Fields<'_>, rest: &Bytes) -> Result<Envelope, WireError> {
    let addresses = fields.addresses()?;
    let after = fields.position()?;
    let batches = fields.batches(addresses.group, rest)?;
    Ok(addresses.envelope(Message::Fetched { after, batches }))
}

/// Decodes a frame of a transfer from the whole body.
pub(super) fn transfer(kind: TransferKind, mut body: Bytes) -> Result<Parcel, WireError> {
    if body.len() < PARCEL_BYTES {
        return Err(WireError::Short);
    }
    let head = body.split_to(PARCEL_BYTES);
    let mut fields = Fields::new(&head);
    Ok(Parcel {
        group: GroupId(fields.u64()?),
        from: NodeId(fields.u64()?),
        incarnation: Incarnation(fields.u64()?),
        to: NodeId(fields.u64()?),
        frame: TransferFrame::decode(kind, body)?,
    })
}

/// What every message says first.
struct Addresses {
    group: GroupId,
    from: NodeId,
    incarnation: Incarnation,
    to: NodeId,
    term: Term,
}

impl Addresses {
    fn envelope(self, message: Message) -> Envelope {
        Envelope {
            group: self.group,
            from: self.from,
            incarnation: self.incarnation,
            to: self.to,
            term: self.term,
            message,
        }
    }
}

/// Fields that are taken off the front of a slice.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { rest: bytes }
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
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

    pub(super) fn hello(&mut self) -> Result<Hello, WireError> {
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

    pub(super) fn accepted(&mut self) -> Result<Accepted, WireError> {
        let accepted = Accepted {
            node: NodeId(self.u64()?),
            incarnation: Incarnation(self.u64()?),
        };
        self.finish()?;
        Ok(accepted)
    }

    pub(super) fn refusal(&mut self) -> Result<Refusal, WireError> {
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
            6 => Refusal::RolledBack {
                seen: Incarnation(value),
            },
            7 if value == 0 => Refusal::Certificate,
            _ => return Err(WireError::Value("refusal")),
        })
    }

    fn addresses(&mut self) -> Result<Addresses, WireError> {
        Ok(Addresses {
            group: GroupId(self.u64()?),
            from: NodeId(self.u64()?),
            incarnation: Incarnation(self.u64()?),
            to: NodeId(self.u64()?),
            term: Term(self.u64()?),
        })
    }

    fn optional_index(&mut self, field: &'static str) -> Result<Option<Index>, WireError> {
        Ok(if self.flag(field)? {
            Some(Index(self.u64()?))
        } else {
            None
        })
    }

    /// The count, which is the last of the sealed fields, and the batches in the bytes behind them.
    fn batches(mut self, group: GroupId, rest: &Bytes) -> Result<Vec<Batch>, WireError> {
        let count = self.u64()?;
        self.finish()?;
        let count = usize::try_from(count).map_err(|_| WireError::Short)?;
        // The descriptors must be there before anything is allocated for them.
        let table = count.checked_mul(DESCRIPTOR).ok_or(WireError::Short)?;
        let descriptors = rest.get(..table).ok_or(WireError::Short)?;
        let mut at_body = table;
        let mut batches = Vec::with_capacity(count);
        for (at, descriptor) in descriptors.chunks_exact(DESCRIPTOR).enumerate() {
            let descriptor = descriptor.try_into().map_err(|_| WireError::Short)?;
            let (header, position) = decode_descriptor(descriptor)
                .map_err(|error| WireError::Descriptor { at, error })?;
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
        Ok(batches)
    }

    /// A message without batches.
    pub(super) fn envelope(&mut self, frame_type: FrameType) -> Result<Envelope, WireError> {
        let addresses = self.addresses()?;
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
                forced: self.flag("forced")?,
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
                health: Health {
                    priority: self.u8()?,
                    impaired: self.flag("impaired")?,
                },
            },
            FrameType::TimeoutNow => Message::TimeoutNow,
            FrameType::ReadIndex => Message::ReadIndex { id: self.u64()? },
            FrameType::ReadIndexReply => Message::ReadIndexReply {
                id: self.u64()?,
                asker: Incarnation(self.u64()?),
                index: self.optional_index("an index is given")?,
            },
            FrameType::Fetch => Message::Fetch {
                after: self.position()?,
            },
            FrameType::DamageReport => Message::DamageReport {
                lost_suffix: self.flag("lost suffix")?,
                needs_snapshot: self.optional_index("a snapshot is needed")?,
            },
            FrameType::Heal => Message::Heal {
                asker: Incarnation(self.u64()?),
                to: Index(self.u64()?),
            },
            FrameType::TermQuery => Message::TermQuery,
            FrameType::TermReply => Message::TermReply {
                asker: Incarnation(self.u64()?),
                voters: self.node_ids()?,
            },
            FrameType::RolledBack => Message::RolledBack {
                seen: self.log_id()?,
            },
            FrameType::Hello
            | FrameType::Accepted
            | FrameType::Refused
            | FrameType::Append
            | FrameType::Fetched
            | FrameType::Offer
            | FrameType::Piece
            | FrameType::Ack
            | FrameType::TransferRefused => {
                unreachable!("decode_frame has routed these elsewhere")
            }
        };
        self.finish()?;
        Ok(addresses.envelope(message))
    }

    /// A count and as many ids; no membership has more.
    fn node_ids(&mut self) -> Result<Vec<NodeId>, WireError> {
        let count = self.u64()?;
        if count > duraft_core::MEMBERS_MAX as u64 {
            return Err(WireError::Value("number of voters"));
        }
        (0..count).map(|_| Ok(NodeId(self.u64()?))).collect()
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
