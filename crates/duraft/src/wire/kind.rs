//! The types of frames, as they stand in a header.

use super::{APPEND_SEALED_BYTES, FETCHED_SEALED_BYTES, Frame, PARCEL_BYTES, WireError};
use crate::transfer::{PIECE_HEAD_BYTES, TransferKind};
use duraft_core::Message;

/// The type of a frame as it stands in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum FrameType {
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
    TimeoutNow = 24,
    ReadIndex = 25,
    ReadIndexReply = 26,
    Fetch = 27,
    Fetched = 28,
    DamageReport = 29,
    Heal = 30,
    TermQuery = 31,
    TermReply = 32,
    RolledBack = 33,
    Offer = 40,
    Piece = 41,
    Ack = 42,
    TransferRefused = 43,
}

impl FrameType {
    pub(super) fn from_number(number: u8) -> Result<FrameType, WireError> {
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
            24 => FrameType::TimeoutNow,
            25 => FrameType::ReadIndex,
            26 => FrameType::ReadIndexReply,
            27 => FrameType::Fetch,
            28 => FrameType::Fetched,
            29 => FrameType::DamageReport,
            30 => FrameType::Heal,
            31 => FrameType::TermQuery,
            32 => FrameType::TermReply,
            33 => FrameType::RolledBack,
            40 => FrameType::Offer,
            41 => FrameType::Piece,
            42 => FrameType::Ack,
            43 => FrameType::TransferRefused,
            _ => return Err(WireError::Type(number)),
        })
    }

    pub(super) fn of(frame: &Frame) -> FrameType {
        match frame {
            Frame::Hello(_) => FrameType::Hello,
            Frame::Accepted(_) => FrameType::Accepted,
            Frame::Refused(_) => FrameType::Refused,
            Frame::Transfer(parcel) => match parcel.frame.kind() {
                TransferKind::Offer => FrameType::Offer,
                TransferKind::Piece => FrameType::Piece,
                TransferKind::Ack => FrameType::Ack,
                TransferKind::Refused => FrameType::TransferRefused,
            },
            Frame::Message(envelope) => match envelope.message {
                Message::PreVote { .. } => FrameType::PreVote,
                Message::PreVoteReply { .. } => FrameType::PreVoteReply,
                Message::Vote { .. } => FrameType::Vote,
                Message::VoteReply { .. } => FrameType::VoteReply,
                Message::Append { .. } => FrameType::Append,
                Message::AppendReply(_) => FrameType::AppendReply,
                Message::Heartbeat { .. } => FrameType::Heartbeat,
                Message::HeartbeatReply { .. } => FrameType::HeartbeatReply,
                Message::TimeoutNow => FrameType::TimeoutNow,
                Message::ReadIndex { .. } => FrameType::ReadIndex,
                Message::ReadIndexReply { .. } => FrameType::ReadIndexReply,
                Message::Fetch { .. } => FrameType::Fetch,
                Message::Fetched { .. } => FrameType::Fetched,
                Message::DamageReport { .. } => FrameType::DamageReport,
                Message::Heal { .. } => FrameType::Heal,
                Message::TermQuery => FrameType::TermQuery,
                Message::TermReply { .. } => FrameType::TermReply,
                Message::RolledBack { .. } => FrameType::RolledBack,
            },
        }
    }

    /// Length of the sealed part of a frame's body: the whole body, but for the frames that carry
    /// batches or bytes of a snapshot file.
    pub(super) fn sealed_len(self, body_len: usize) -> usize {
        match self {
            FrameType::Append => APPEND_SEALED_BYTES,
            FrameType::Fetched => FETCHED_SEALED_BYTES,
            FrameType::Piece => PARCEL_BYTES + PIECE_HEAD_BYTES,
            FrameType::Hello
            | FrameType::Accepted
            | FrameType::Refused
            | FrameType::PreVote
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
            | FrameType::RolledBack
            | FrameType::Offer
            | FrameType::Ack
            | FrameType::TransferRefused => body_len,
        }
    }
}
