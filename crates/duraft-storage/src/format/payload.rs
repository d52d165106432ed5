//! Payloads of records other than batches: group checkpoints, snapshots, damage, group tables.

use super::FormatError;
use byteorder::{ByteOrder, LittleEndian as LE};
use duraft_core::{
    Digest, GroupId, HardState, Index, LogId, MEMBERSHIP_BYTES_MAX, Membership, NodeId, Position,
    Snapshot, SnapshotFile, Term,
};

/// Everything about a group but its batches: what a segment begins with.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct GroupCheckpoint {
    pub(crate) hard_state: HardState,
    /// Everything up to here is compacted away.
    pub(crate) start: Position,
    /// The end of the log that earlier segments hold.
    pub(crate) end: Position,
    /// Index of the last membership batch in the log, 0 where none is.
    pub(crate) last_membership: Index,
    /// The membership at `start`.
    pub(crate) membership: Membership,
    /// The latest snapshot.
    pub(crate) snapshot: Option<Snapshot>,
}

/// What is known of a damaged log beyond its gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LostLog {
    /// Batches after the known end may be lost.
    pub(crate) lost_suffix: bool,
    /// A later term or vote may be lost.
    pub(crate) vote_uncertain: bool,
    /// The greatest LogId this node may have acknowledged.
    pub(crate) floor: LogId,
    /// Missing indices, first and last of each range.
    pub(crate) missing: Vec<(Index, Index)>,
}

/// A group's state in a receipt or mark: proof of what was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupFact {
    pub(crate) group: GroupId,
    pub(crate) end: Position,
    pub(crate) hard_state: HardState,
}

/// Largest encoded checkpoint.
pub(crate) const CHECKPOINT_LEN_MAX: usize =
    CHECKPOINT_LEN + MEMBERSHIP_BYTES_MAX + POSITION_LEN + SNAPSHOT_LEN_MAX;
/// Largest payload of a SNAPSHOT record.
pub(crate) const SNAPSHOT_LEN_MAX: usize = SNAPSHOT_LEN + MEMBERSHIP_BYTES_MAX;
/// Most missing ranges kept apart; more are merged from the end.
pub(crate) const RANGES_MAX: usize = 8;
/// Largest encoded damage.
pub(crate) const LOST_LEN_MAX: usize = LOST_LEN + 16 * RANGES_MAX;
/// Bytes of one group in a table.
pub(crate) const FACT_LEN: usize = 56;

const CHECKPOINT_LEN: usize = 80;
const LOST_LEN: usize = 24;
const POSITION_LEN: usize = 24;
const SNAPSHOT_LEN: usize = 24;
const NO_VOTE: u32 = 0;
const VOTED: u32 = 1;
const HAS_SNAPSHOT: u32 = 2;

fn need(bytes: &[u8], needed: usize) -> Result<(), FormatError> {
    if bytes.len() == needed {
        return Ok(());
    }
    Err(FormatError::Short {
        needed: needed as u64,
        found: bytes.len() as u64,
    })
}

fn put_position(b: &mut [u8], position: &Position) {
    LE::write_u64(&mut b[0..], position.id.index.0);
    LE::write_u64(&mut b[8..], position.id.term.0);
    LE::write_u64(&mut b[16..], position.digest.0);
}

fn position_at(b: &[u8]) -> Position {
    Position {
        id: LogId {
            index: Index(LE::read_u64(b)),
            term: Term(LE::read_u64(&b[8..])),
        },
        digest: Digest(LE::read_u64(&b[16..])),
    }
}

fn vote_at(b: &[u8], voted: bool) -> Option<NodeId> {
    voted.then(|| NodeId(LE::read_u64(b)))
}

/// The membership that these bytes encode. Its codec is the core's: a membership batch's body is the
/// same bytes.
pub(crate) fn decode_membership(b: &[u8]) -> Result<Membership, FormatError> {
    Membership::decode(b).map_err(|_| FormatError::Field {
        field: "membership",
        value: b.len() as u64,
    })
}

/// What stands behind the position of a snapshot: which file, and the membership there.
pub(crate) fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let mut b = vec![0; SNAPSHOT_LEN];
    LE::write_u64(&mut b[0..], snapshot.file.nonce);
    LE::write_u64(&mut b[8..], snapshot.file.bytes);
    LE::write_u64(&mut b[16..], snapshot.file.digest);
    b.extend(snapshot.membership.encode());
    b
}

pub(crate) fn decode_snapshot(position: Position, b: &[u8]) -> Result<Snapshot, FormatError> {
    let Some((file, membership)) = b.split_at_checked(SNAPSHOT_LEN) else {
        return Err(FormatError::Short {
            needed: SNAPSHOT_LEN as u64,
            found: b.len() as u64,
        });
    };
    Ok(Snapshot {
        position,
        membership: decode_membership(membership)?,
        file: SnapshotFile {
            nonce: LE::read_u64(file),
            bytes: LE::read_u64(&file[8..]),
            digest: LE::read_u64(&file[16..]),
        },
    })
}

pub(crate) fn encode_checkpoint(c: &GroupCheckpoint) -> Vec<u8> {
    let mut b = vec![0; CHECKPOINT_LEN];
    let membership = c.membership.encode();
    let snapshot = c.snapshot.as_ref().map(encode_snapshot);
    LE::write_u64(&mut b[0..], c.hard_state.term.0);
    LE::write_u64(&mut b[8..], c.hard_state.vote.map_or(0, |vote| vote.0));
    put_position(&mut b[16..], &c.start);
    put_position(&mut b[40..], &c.end);
    LE::write_u64(&mut b[64..], c.last_membership.0);
    LE::write_u32(&mut b[72..], super::disk_length(membership.len()));
    let voted = if c.hard_state.vote.is_some() {
        VOTED
    } else {
        NO_VOTE
    };
    let has_snapshot = if snapshot.is_some() { HAS_SNAPSHOT } else { 0 };
    LE::write_u32(&mut b[76..], voted | has_snapshot);
    b.extend(membership);
    if let (Some(snapshot), Some(bytes)) = (&c.snapshot, snapshot) {
        let at = b.len();
        b.resize(at + POSITION_LEN, 0);
        put_position(&mut b[at..], &snapshot.position);
        b.extend(bytes);
    }
    b
}

pub(crate) fn decode_checkpoint(b: &[u8]) -> Result<GroupCheckpoint, FormatError> {
    let short = |needed: usize| FormatError::Short {
        needed: needed as u64,
        found: b.len() as u64,
    };
    if b.len() < CHECKPOINT_LEN {
        return Err(short(CHECKPOINT_LEN));
    }
    let flags = LE::read_u32(&b[76..]);
    if flags & !(VOTED | HAS_SNAPSHOT) != 0 {
        return Err(FormatError::Field {
            field: "checkpoint flags",
            value: flags.into(),
        });
    }
    let (start, end) = (position_at(&b[16..]), position_at(&b[40..]));
    if start.index() > end.index() {
        return Err(FormatError::Field {
            field: "end",
            value: end.index().0,
        });
    }
    let membership_len = LE::read_u32(&b[72..]) as usize;
    let (membership, rest) = b[CHECKPOINT_LEN..]
        .split_at_checked(membership_len)
        .ok_or_else(|| short(CHECKPOINT_LEN.saturating_add(membership_len)))?;
    let snapshot = if flags & HAS_SNAPSHOT != 0 {
        let (position, rest) = rest
            .split_at_checked(POSITION_LEN)
            .ok_or_else(|| short(CHECKPOINT_LEN + membership_len + POSITION_LEN))?;
        Some(decode_snapshot(position_at(position), rest)?)
    } else {
        need(rest, 0)?;
        None
    };
    Ok(GroupCheckpoint {
        hard_state: HardState {
            term: Term(LE::read_u64(b)),
            vote: vote_at(&b[8..], flags & VOTED != 0),
        },
        start,
        end,
        last_membership: Index(LE::read_u64(&b[64..])),
        membership: decode_membership(membership)?,
        snapshot,
    })
}

const LOST_SUFFIX: u32 = 1;
const VOTE_UNCERTAIN: u32 = 2;

pub(crate) fn encode_lost(lost: &LostLog) -> Vec<u8> {
    let ranges = merged(&lost.missing);
    let mut b = vec![0; LOST_LEN + 16 * ranges.len()];
    let flag = |set: bool, bit: u32| if set { bit } else { 0 };
    let flags = flag(lost.lost_suffix, LOST_SUFFIX) | flag(lost.vote_uncertain, VOTE_UNCERTAIN);
    LE::write_u32(&mut b[0..], flags);
    LE::write_u32(&mut b[4..], super::disk_length(ranges.len()));
    LE::write_u64(&mut b[8..], lost.floor.index.0);
    LE::write_u64(&mut b[16..], lost.floor.term.0);
    for (i, (first, last)) in ranges.iter().enumerate() {
        LE::write_u64(&mut b[LOST_LEN + 16 * i..], first.0);
        LE::write_u64(&mut b[LOST_LEN + 16 * i + 8..], last.0);
    }
    b
}

/// At most [`RANGES_MAX`] ranges: the last one covers everything from its beginning on.
fn merged(ranges: &[(Index, Index)]) -> Vec<(Index, Index)> {
    let mut kept: Vec<_> = ranges.iter().copied().take(RANGES_MAX).collect();
    if let (Some(tail), Some(last)) = (kept.last_mut(), ranges.last()) {
        tail.1 = last.1;
    }
    kept
}

pub(crate) fn decode_lost(b: &[u8]) -> Result<LostLog, FormatError> {
    if b.len() < LOST_LEN {
        return Err(FormatError::Short {
            needed: LOST_LEN as u64,
            found: b.len() as u64,
        });
    }
    let flags = LE::read_u32(b);
    let ranges = LE::read_u32(&b[4..]) as usize;
    if ranges > RANGES_MAX {
        return Err(FormatError::Field {
            field: "missing ranges",
            value: ranges as u64,
        });
    }
    need(&b[LOST_LEN..], 16 * ranges)?;
    let range = |i: usize| {
        let at = LOST_LEN + 16 * i;
        (
            Index(LE::read_u64(&b[at..])),
            Index(LE::read_u64(&b[at + 8..])),
        )
    };
    Ok(LostLog {
        lost_suffix: flags & LOST_SUFFIX != 0,
        vote_uncertain: flags & VOTE_UNCERTAIN != 0,
        floor: LogId {
            index: Index(LE::read_u64(&b[8..])),
            term: Term(LE::read_u64(&b[16..])),
        },
        missing: (0..ranges).map(range).collect(),
    })
}

pub(crate) fn encode_fact(fact: &GroupFact, b: &mut [u8]) {
    LE::write_u64(&mut b[0..], fact.group.0);
    put_position(&mut b[8..], &fact.end);
    LE::write_u64(&mut b[32..], fact.hard_state.term.0);
    LE::write_u64(&mut b[40..], fact.hard_state.vote.map_or(0, |vote| vote.0));
    let voted = if fact.hard_state.vote.is_some() {
        VOTED
    } else {
        NO_VOTE
    };
    LE::write_u64(&mut b[48..], voted.into());
}

pub(crate) fn decode_facts(b: &[u8], count: u32) -> Result<Vec<GroupFact>, FormatError> {
    let count = count as usize;
    if b.len() / FACT_LEN != count || !b.len().is_multiple_of(FACT_LEN) {
        return Err(FormatError::Field {
            field: "table entries",
            value: count as u64,
        });
    }
    Ok(b.chunks_exact(FACT_LEN)
        .map(|b| GroupFact {
            group: GroupId(LE::read_u64(b)),
            end: position_at(&b[8..]),
            hard_state: HardState {
                term: Term(LE::read_u64(&b[32..])),
                vote: vote_at(&b[40..], LE::read_u64(&b[48..]) & u64::from(VOTED) != 0),
            },
        })
        .collect())
}
