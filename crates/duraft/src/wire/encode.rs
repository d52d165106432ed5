//! Messages to bytes: the sealed part of each frame's body.

use super::{Frame, Refusal};
use duraft_core::{AppendReply, Envelope, Index, Message, Position};

/// Appends the sealed part of the frame's body and returns its length.
pub(super) fn encode_sealed(frame: &Frame, out: &mut Vec<u8>) -> usize {
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
                Refusal::RolledBack { seen } => (6, seen.0),
                Refusal::Certificate => (7, 0),
            };
            put(out, &[code, value]);
        }
        Frame::Message(envelope) => encode_envelope(envelope, out),
        Frame::Transfer(parcel) => {
            let life = parcel.incarnation;
            put(out, &[parcel.group.0, parcel.from.0, life.0, parcel.to.0]);
            parcel.frame.encode_head(out);
        }
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
        Message::PreVote { wanted, last } => put(out, &[wanted.0, last.term.0, last.index.0]),
        Message::PreVoteReply { wanted, granted } => {
            put(out, &[wanted.0]);
            out.push(u8::from(*granted));
        }
        Message::Vote { last, forced } => {
            put(out, &[last.term.0, last.index.0]);
            out.push(u8::from(*forced));
        }
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
        Message::HeartbeatReply { round, health } => {
            put(out, &[*round]);
            out.extend_from_slice(&[health.priority, u8::from(health.impaired)]);
        }
        Message::TimeoutNow | Message::TermQuery => {}
        Message::ReadIndex { id } => put(out, &[*id]),
        Message::ReadIndexReply { id, asker, index } => {
            put(out, &[*id, asker.0]);
            put_optional(out, *index);
        }
        Message::Fetch { after } => put_position(out, after),
        Message::Fetched { after, batches } => {
            put_position(out, after);
            put(out, &[batches.len() as u64]);
        }
        Message::DamageReport {
            lost_suffix,
            needs_snapshot,
        } => {
            out.push(u8::from(*lost_suffix));
            put_optional(out, *needs_snapshot);
        }
        Message::Heal { asker, to } => put(out, &[asker.0, to.0]),
        Message::TermReply { asker, voters } => {
            put(out, &[asker.0, voters.len() as u64]);
            voters.iter().for_each(|voter| put(out, &[voter.0]));
        }
        Message::RolledBack { seen } => put(out, &[seen.term.0, seen.index.0]),
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

/// A flag, and the index where there is one.
fn put_optional(out: &mut Vec<u8>, index: Option<Index>) {
    out.push(u8::from(index.is_some()));
    put(out, index.map(|index| index.0).as_slice());
}
