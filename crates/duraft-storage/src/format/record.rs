//! Record descriptors: 64 bytes per record, in a commit block's directory and, for batches, on the
//! wire. All types share one frame, so that a reader can check a descriptor before it knows its type.

use super::FormatError;
use super::payload::{self, GroupCheckpoint, GroupFact, LostLog};
use crate::repair::{Repair, RepairKind};
use byteorder::{ByteOrder, LittleEndian as LE};
use duraft_core::{
    BatchHeader, BatchKind, Digest, GroupId, HardState, Healed, Index, LogId, Membership, NodeId,
    Position, Snapshot, Term,
};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_LEN: usize = 64;
const CHECKSUM_AT: usize = 60;
/// The descriptor checksum covers the bytes before the position: a batch keeps it wherever it moves.
const CHECKED_LEN: usize = 56;

/// Record types. Numbers are never reused; 7 (GROUP_DESTROY) is reserved.
mod number {
    pub(super) const BATCH: u8 = 1;
    pub(super) const HARD_STATE: u8 = 2;
    pub(super) const TRUNCATE: u8 = 3;
    pub(super) const COMPACT: u8 = 4;
    pub(super) const SNAPSHOT: u8 = 5;
    pub(super) const GROUP_STATE: u8 = 6;
    pub(super) const CHECKPOINT_END: u8 = 8;
    pub(super) const ECHO: u8 = 9;
    pub(super) const REPAIR: u8 = 10;
    pub(super) const DAMAGE: u8 = 11;
    pub(super) const TABLE: u8 = 12;
}

/// Flag of HARD_STATE and ECHO: the vote field holds a vote.
const VOTED: u16 = 1;
/// Flag of TABLE: groups were left out for want of room.
const PARTIAL: u16 = 1;
/// Flag of SNAPSHOT: the log begins and ends there, whatever it held.
const RESET_LOG: u16 = 1;

/// Kinds of REPAIR.
mod repair {
    /// The group is whole again.
    pub(super) const HEALED: u8 = 1;
    /// Term and vote are certain again.
    pub(super) const VOTE_CERTAIN: u8 = 2;
    /// Somebody accepted the loss of a part of the log.
    pub(super) const LOSS_ACCEPTED: u8 = 3;
    /// Somebody replaced the membership by force.
    pub(super) const FORCED: u8 = 4;
}

/// Why a descriptor cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DescriptorError {
    /// It does not match its own checksum.
    #[error("descriptor checksum {found:#010x}, its bytes have {computed:#010x}")]
    Checksum {
        /// The stored checksum.
        found: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// It is of a type this version does not read here.
    #[error("record type {0} is not one this version reads here")]
    Type(u8),
    /// It is of a batch kind this version does not know.
    #[error("batch kind {0} is unknown")]
    Kind(u8),
    /// Count and body length cannot belong to a batch of that kind.
    #[error("{count} entries in a body of {body_len} bytes")]
    Count {
        /// The count.
        count: u32,
        /// The body length.
        body_len: u32,
    },
    /// The last index of the batch is past the end of the range.
    #[error("first index {first} and count {count} leave no index after the batch")]
    Index {
        /// First index.
        first: u64,
        /// The count.
        count: u32,
    },
    /// A field that must be zero is not.
    #[error("a reserved field holds {0}")]
    Reserved(u64),
}

/// The fields all record types share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) sub: u8,
    pub(crate) codec: u16,
    pub(crate) flags: u16,
    pub(crate) count: u32,
    pub(crate) payload_len: u32,
    pub(crate) group: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) digest: u64,
    pub(crate) payload_sum: u32,
    pub(crate) position: u32,
}

impl Frame {
    pub(crate) fn encode(&self, b: &mut [u8]) {
        let b = &mut b[..DESCRIPTOR_LEN];
        b[0] = self.kind;
        b[1] = self.sub;
        LE::write_u16(&mut b[2..], self.codec);
        LE::write_u16(&mut b[4..], self.flags);
        LE::write_u16(&mut b[6..], 0);
        LE::write_u32(&mut b[8..], self.count);
        LE::write_u32(&mut b[12..], self.payload_len);
        LE::write_u64(&mut b[16..], self.group);
        LE::write_u64(&mut b[24..], self.index);
        LE::write_u64(&mut b[32..], self.term);
        LE::write_u64(&mut b[40..], self.digest);
        LE::write_u32(&mut b[48..], self.payload_sum);
        LE::write_u32(&mut b[52..], 0);
        LE::write_u32(&mut b[56..], self.position);
        let sum = crc32fast::hash(&b[..CHECKED_LEN]);
        LE::write_u32(&mut b[CHECKSUM_AT..], sum);
    }

    /// Reads a frame; the type may be unknown, the checksum is right. `b` holds 64 bytes.
    pub(crate) fn decode(b: &[u8]) -> Result<Frame, DescriptorError> {
        let b = &b[..DESCRIPTOR_LEN];
        let found = LE::read_u32(&b[CHECKSUM_AT..]);
        let computed = crc32fast::hash(&b[..CHECKED_LEN]);
        if found != computed {
            return Err(DescriptorError::Checksum { found, computed });
        }
        let reserved = u64::from(LE::read_u16(&b[6..])) | u64::from(LE::read_u32(&b[52..])) << 16;
        if reserved != 0 {
            return Err(DescriptorError::Reserved(reserved));
        }
        Ok(Frame {
            kind: b[0],
            sub: b[1],
            codec: LE::read_u16(&b[2..]),
            flags: LE::read_u16(&b[4..]),
            count: LE::read_u32(&b[8..]),
            payload_len: LE::read_u32(&b[12..]),
            group: LE::read_u64(&b[16..]),
            index: LE::read_u64(&b[24..]),
            term: LE::read_u64(&b[32..]),
            digest: LE::read_u64(&b[40..]),
            payload_sum: LE::read_u32(&b[48..]),
            position: LE::read_u32(&b[56..]),
        })
    }

    pub(crate) fn of_batch(header: &BatchHeader) -> Frame {
        Frame {
            kind: number::BATCH,
            sub: header.kind.number(),
            codec: header.codec,
            count: header.count,
            payload_len: header.body_len,
            group: header.group.0,
            index: header.first.0,
            term: header.term.0,
            digest: header.digest.0,
            payload_sum: header.body_checksum,
            ..Frame::default()
        }
    }

    fn with_hard_state(kind: u8, group: GroupId, state: HardState, membership: Index) -> Frame {
        Frame {
            kind,
            flags: if state.vote.is_some() { VOTED } else { 0 },
            group: group.0,
            index: state.vote.map_or(0, |vote| vote.0),
            term: state.term.0,
            digest: membership.0,
            ..Frame::default()
        }
    }

    pub(crate) fn of_hard_state(group: GroupId, state: HardState, membership: Index) -> Frame {
        Frame::with_hard_state(number::HARD_STATE, group, state, membership)
    }

    pub(crate) fn of_echo(group: GroupId, state: HardState, membership: Index) -> Frame {
        Frame::with_hard_state(number::ECHO, group, state, membership)
    }

    fn with_position(kind: u8, group: GroupId, position: &Position) -> Frame {
        Frame {
            kind,
            group: group.0,
            index: position.id.index.0,
            term: position.id.term.0,
            digest: position.digest.0,
            ..Frame::default()
        }
    }

    pub(crate) fn of_truncate(group: GroupId, keep: &Position) -> Frame {
        Frame::with_position(number::TRUNCATE, group, keep)
    }

    /// `membership` is the encoded membership at `upto`: the batch that set it may be lost.
    pub(crate) fn of_compact(group: GroupId, upto: &Position, membership: &[u8]) -> Frame {
        Frame {
            payload_len: super::disk_length(membership.len()),
            payload_sum: crc32fast::hash(membership),
            ..Frame::with_position(number::COMPACT, group, upto)
        }
    }

    fn with_payload(kind: u8, group: GroupId, payload: &[u8]) -> Frame {
        Frame {
            kind,
            group: group.0,
            payload_len: super::disk_length(payload.len()),
            payload_sum: crc32fast::hash(payload),
            ..Frame::default()
        }
    }

    pub(crate) fn of_group_state(group: GroupId, payload: &[u8]) -> Frame {
        Frame::with_payload(number::GROUP_STATE, group, payload)
    }

    pub(crate) fn of_damage(group: GroupId, payload: &[u8]) -> Frame {
        Frame::with_payload(number::DAMAGE, group, payload)
    }

    /// `payload` holds the file and the membership.
    pub(crate) fn of_snapshot(
        group: GroupId,
        position: &Position,
        reset: bool,
        payload: &[u8],
    ) -> Frame {
        Frame {
            flags: if reset { RESET_LOG } else { 0 },
            payload_len: super::disk_length(payload.len()),
            payload_sum: crc32fast::hash(payload),
            ..Frame::with_position(number::SNAPSHOT, group, position)
        }
    }

    pub(crate) fn of_healed(group: GroupId, healed: Healed) -> Frame {
        Frame {
            kind: number::REPAIR,
            sub: match healed {
                Healed::Vote => repair::VOTE_CERTAIN,
                Healed::All => repair::HEALED,
            },
            group: group.0,
            ..Frame::default()
        }
    }

    pub(crate) fn of_repair(group: GroupId, note: &Repair) -> Frame {
        Frame {
            kind: number::REPAIR,
            sub: match note.kind {
                RepairKind::LossAccepted => repair::LOSS_ACCEPTED,
                RepairKind::ConfigurationForced => repair::FORCED,
            },
            group: group.0,
            count: note.generation,
            index: note.first.0,
            term: note.wallclock_ns,
            digest: note.last.0,
            ..Frame::default()
        }
    }

    pub(crate) fn is_damage(&self) -> bool {
        self.kind == number::DAMAGE
    }

    pub(crate) fn of_checkpoint_end(count: u32) -> Frame {
        Frame {
            kind: number::CHECKPOINT_END,
            count,
            ..Frame::default()
        }
    }

    pub(crate) fn of_table(since: u64, partial: bool, count: u32, payload: &[u8]) -> Frame {
        Frame {
            flags: if partial { PARTIAL } else { 0 },
            count,
            index: since,
            ..Frame::with_payload(number::TABLE, GroupId(0), payload)
        }
    }

    fn place(&self) -> Position {
        Position {
            id: LogId {
                term: Term(self.term),
                index: Index(self.index),
            },
            digest: Digest(self.digest),
        }
    }

    fn hard_state(&self) -> HardState {
        HardState {
            term: Term(self.term),
            vote: (self.flags & VOTED != 0).then_some(NodeId(self.index)),
        }
    }

    fn repaired(&self, group: GroupId) -> Result<Record, DescriptorError> {
        let note = |kind| Record::Repair {
            group,
            note: Repair {
                kind,
                first: Index(self.index),
                last: Index(self.digest),
                generation: self.count,
                wallclock_ns: self.term,
            },
        };
        match self.sub {
            repair::HEALED => Ok(Record::Healed {
                group,
                healed: Healed::All,
            }),
            repair::VOTE_CERTAIN => Ok(Record::Healed {
                group,
                healed: Healed::Vote,
            }),
            repair::LOSS_ACCEPTED => Ok(note(RepairKind::LossAccepted)),
            repair::FORCED => Ok(note(RepairKind::ConfigurationForced)),
            other => Err(DescriptorError::Kind(other)),
        }
    }

    /// The batch header this frame holds, checked before anything is allocated for it.
    fn batch(&self) -> Result<BatchHeader, DescriptorError> {
        if self.kind != number::BATCH {
            return Err(DescriptorError::Type(self.kind));
        }
        if self.flags != 0 {
            return Err(DescriptorError::Reserved(self.flags.into()));
        }
        let kind = BatchKind::from_number(self.sub).ok_or(DescriptorError::Kind(self.sub))?;
        let count = self.count;
        let fits = match kind {
            BatchKind::Commands => 4 * u64::from(count) <= u64::from(self.payload_len),
            BatchKind::Membership | BatchKind::Noop => true,
        };
        if duraft_core::check_count(kind, count).is_err() || !fits {
            return Err(DescriptorError::Count {
                count,
                body_len: self.payload_len,
            });
        }
        if self.index == 0 || self.index.checked_add(u64::from(count)).is_none() {
            return Err(DescriptorError::Index {
                first: self.index,
                count,
            });
        }
        Ok(BatchHeader {
            kind,
            codec: self.codec,
            count,
            body_len: self.payload_len,
            body_checksum: self.payload_sum,
            group: GroupId(self.group),
            first: Index(self.index),
            term: Term(self.term),
            digest: Digest(self.digest),
        })
    }
}

/// Writes a batch's descriptor. `position` is where the body stands, in units of 8 bytes; 0 on the
/// wire. The descriptor's checksum does not cover it.
pub fn encode_descriptor(header: &BatchHeader, position: u32, out: &mut [u8; 64]) {
    Frame {
        position,
        ..Frame::of_batch(header)
    }
    .encode(out);
}

/// Reads a batch's descriptor: the header and the position. Checks the checksum, and that kind, count,
/// length and index can belong together, before anything is allocated for the body.
pub fn decode_descriptor(bytes: &[u8; 64]) -> Result<(BatchHeader, u32), DescriptorError> {
    let frame = Frame::decode(bytes)?;
    Ok((frame.batch()?, frame.position))
}

/// The checksum that belongs into the last 4 bytes of a descriptor with these bytes before it.
#[must_use]
pub fn descriptor_checksum(bytes: &[u8; 64]) -> u32 {
    crc32fast::hash(&bytes[..CHECKED_LEN])
}

/// The checksum that a descriptor of a block bears, and the one that its bytes have.
pub(crate) fn descriptor_sums(b: &[u8]) -> (u32, u32) {
    let found = LE::read_u32(&b[CHECKSUM_AT..DESCRIPTOR_LEN]);
    (found, crc32fast::hash(&b[..CHECKED_LEN]))
}

/// Makes a descriptor's checksums right, that of its payload too where it points at one.
pub(crate) fn reseal_descriptor(b: &mut [u8], payloads: &[u8], payloads_at: usize) {
    let len = LE::read_u32(&b[12..]) as usize;
    let at = (LE::read_u32(&b[56..]) as usize * 8).checked_sub(payloads_at);
    let payload = at.and_then(|at| payloads.get(at..at.checked_add(len)?));
    if let Some(payload) = payload
        && len > 0
    {
        LE::write_u32(&mut b[48..], crc32fast::hash(payload));
    }
    let sum = crc32fast::hash(&b[..CHECKED_LEN]);
    LE::write_u32(&mut b[CHECKSUM_AT..DESCRIPTOR_LEN], sum);
}

/// Could a batch with this header be read back? The same checks as [`decode_descriptor`].
pub(crate) fn check_header(header: &BatchHeader) -> Result<(), DescriptorError> {
    Frame::of_batch(header).batch().map(|_| ())
}

/// One record of a believed block.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Record {
    /// A batch and where its body begins, counted from the slot's first byte.
    Batch {
        header: BatchHeader,
        body_at: u64,
    },
    HardState {
        group: GroupId,
        state: HardState,
        membership: Index,
    },
    Echo {
        group: GroupId,
        state: HardState,
        membership: Index,
    },
    Truncate {
        group: GroupId,
        keep: Position,
    },
    Compact {
        group: GroupId,
        upto: Position,
        membership: Membership,
    },
    Snapshot {
        group: GroupId,
        snapshot: Snapshot,
        reset: bool,
    },
    GroupState {
        group: GroupId,
        checkpoint: GroupCheckpoint,
    },
    CheckpointEnd {
        count: u32,
    },
    Damage {
        group: GroupId,
        lost: LostLog,
    },
    Healed {
        group: GroupId,
        healed: Healed,
    },
    Repair {
        group: GroupId,
        note: Repair,
    },
    Table {
        since: u64,
        partial: bool,
        facts: Vec<GroupFact>,
    },
}

/// Why a record inside a believed block cannot be read: the writer was newer, or wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The descriptor.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] FormatError),
}

impl Record {
    /// Reads the record whose descriptor is `descriptor`. `payloads` is the payload region of the
    /// block, which begins at byte `payloads_at` of the slot. With `check_bodies`, a batch's body is
    /// checked against its own checksum too.
    pub(crate) fn decode(
        descriptor: &[u8],
        payloads: &[u8],
        payloads_at: u64,
        check_bodies: bool,
    ) -> Result<Record, RecordError> {
        let frame = Frame::decode(descriptor)?;
        let group = GroupId(frame.group);
        let membership = Index(frame.digest);
        Ok(match frame.kind {
            number::BATCH => {
                let header = frame.batch()?;
                let body = payload_of(&frame, payloads, payloads_at)?;
                if check_bodies {
                    check_payload(&frame, body)?;
                }
                Record::Batch {
                    header,
                    body_at: u64::from(frame.position) * 8,
                }
            }
            number::HARD_STATE => Record::HardState {
                group,
                state: frame.hard_state(),
                membership,
            },
            number::ECHO => Record::Echo {
                group,
                state: frame.hard_state(),
                membership,
            },
            number::TRUNCATE => Record::Truncate {
                group,
                keep: frame.place(),
            },
            number::COMPACT => {
                let payload = checked_payload(&frame, payloads, payloads_at)?;
                Record::Compact {
                    group,
                    upto: frame.place(),
                    membership: payload::decode_membership(payload)?,
                }
            }
            number::SNAPSHOT => {
                let payload = checked_payload(&frame, payloads, payloads_at)?;
                Record::Snapshot {
                    group,
                    snapshot: payload::decode_snapshot(frame.place(), payload)?,
                    reset: frame.flags & RESET_LOG != 0,
                }
            }
            number::GROUP_STATE => {
                let payload = checked_payload(&frame, payloads, payloads_at)?;
                Record::GroupState {
                    group,
                    checkpoint: payload::decode_checkpoint(payload)?,
                }
            }
            number::CHECKPOINT_END => Record::CheckpointEnd { count: frame.count },
            number::DAMAGE => {
                let payload = checked_payload(&frame, payloads, payloads_at)?;
                Record::Damage {
                    group,
                    lost: payload::decode_lost(payload)?,
                }
            }
            number::REPAIR => frame.repaired(group)?,
            number::TABLE => {
                let payload = checked_payload(&frame, payloads, payloads_at)?;
                Record::Table {
                    since: frame.index,
                    partial: frame.flags & PARTIAL != 0,
                    facts: payload::decode_facts(payload, frame.count)?,
                }
            }
            other => return Err(DescriptorError::Type(other).into()),
        })
    }
}

/// The payload a frame points at, inside the payload region.
fn payload_of<'a>(
    frame: &Frame,
    payloads: &'a [u8],
    payloads_at: u64,
) -> Result<&'a [u8], FormatError> {
    let wrong = FormatError::Field {
        field: "position",
        value: frame.position.into(),
    };
    let begin = (u64::from(frame.position) * 8)
        .checked_sub(payloads_at)
        .ok_or(wrong)?;
    let end = begin + u64::from(frame.payload_len);
    let begin = usize::try_from(begin).map_err(|_| wrong)?;
    let end = usize::try_from(end).map_err(|_| wrong)?;
    payloads.get(begin..end).ok_or(wrong)
}

fn check_payload(frame: &Frame, payload: &[u8]) -> Result<(), FormatError> {
    let computed = crc32fast::hash(payload);
    if computed == frame.payload_sum {
        Ok(())
    } else {
        Err(FormatError::Checksum {
            found: frame.payload_sum,
            computed,
        })
    }
}

fn checked_payload<'a>(
    frame: &Frame,
    payloads: &'a [u8],
    payloads_at: u64,
) -> Result<&'a [u8], FormatError> {
    let payload = payload_of(frame, payloads, payloads_at)?;
    check_payload(frame, payload)?;
    Ok(payload)
}
