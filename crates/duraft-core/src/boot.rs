//! What a new life begins with, and what it refuses to begin with.

use crate::batch::{BatchHeader, BatchKind, check_count};
use crate::config::ConfigProblem;
use crate::damage::Damaged;
use crate::membership::Membership;
use crate::raft::Staged;
use crate::snapshot::Snapshot;
use crate::types::{GroupId, HardState, Incarnation, Index, LogId, Position};
use alloc::vec::Vec;

/// What recovery found on disk: the state a new life begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Boot {
    /// This life's number, larger than every earlier one of this node.
    pub incarnation: Incarnation,
    /// Durable term and vote.
    pub hard_state: HardState,
    /// The boundary before the first stored batch.
    pub start: Position,
    /// Headers of all stored batches, in order, following `start`.
    pub batches: Vec<BatchHeader>,
    /// The membership at `start`.
    pub membership: Membership,
    /// The memberships of the membership batches among `batches` and the damage's survivors, by the
    /// index of their batch.
    pub memberships: Vec<(Index, Membership)>,
    /// The latest durable snapshot.
    pub snapshot: Option<Snapshot>,
    /// Where the state machine keeps its own durable state: the last index in it. `None`: the state
    /// machine begins with the snapshot, or empty.
    ///
    /// Before the first step the host restores `snapshot` wherever the state machine holds less than
    /// it. The core hands over from the later of the two on, beginning with the whole batch that
    /// holds the next entry: entries of it that were applied are skipped by who applies.
    pub applied: Option<Index>,
    /// What of the log is lost, if anything.
    pub damage: Option<Damage>,
}

impl Boot {
    /// A life that begins with this log and nothing else: no snapshot, no damage, no membership
    /// batches.
    pub fn healthy(
        incarnation: Incarnation,
        hard_state: HardState,
        start: Position,
        batches: Vec<BatchHeader>,
        membership: Membership,
    ) -> Boot {
        Boot {
            incarnation,
            hard_state,
            start,
            batches,
            membership,
            memberships: Vec::new(),
            snapshot: None,
            applied: None,
            damage: None,
        }
    }
}

/// What a node has lost of its log, as recovery knows it. Durable state until it is healed
/// (RULES.md 13).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Damage {
    /// Indices that are missing, first and last of each range, in order. The first range follows the
    /// last of [`Boot::batches`].
    pub missing: Vec<(Index, Index)>,
    /// Batches that survive behind the first missing index, in order.
    pub survivors: Vec<BatchHeader>,
    /// Where the log ended, if something that survived says so: a missing range that runs to this end
    /// is filled when its chain joins it.
    pub end: Option<Position>,
    /// Batches after the last known one may be lost too.
    pub lost_suffix: bool,
    /// A later term or vote may be lost.
    pub vote_uncertain: bool,
    /// The greatest LogId this node may have acknowledged, as far as known.
    pub floor: LogId,
    /// Index of the last membership batch known of, 0 for none.
    pub last_membership: Index,
    /// The snapshot that the log begins with cannot be read, and nothing else holds its state.
    pub snapshot_lost: bool,
}

/// Why a core cannot start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootError {
    /// The configuration breaks rules.
    Config(Vec<ConfigProblem>),
    /// Stored batch number `at` does not continue the log before it.
    BrokenChain {
        /// Place in [`Boot::batches`].
        at: usize,
    },
    /// The stored term is older than the last stored entry's.
    TermBehindLog,
    /// [`Boot::memberships`] and the membership batches in the log are not the same ones.
    Memberships {
        /// The first index at which they differ.
        at: Index,
    },
    /// The latest snapshot lies outside of the stored log, or at no boundary of it.
    SnapshotOutsideLog,
    /// The log begins later than the first index, and nothing holds the state before it.
    StateMissing,
    /// The state machine has applied what the log does not hold: it belongs to another log, or the
    /// log was cut.
    AppliedAheadOfLog {
        /// What the state machine reports.
        applied: Index,
        /// Where the log ends.
        last: Index,
    },
    /// What is reported as damage does not hang together with the log.
    BrokenDamage,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BootError::Config(problems) => {
                write!(f, "the configuration cannot be used")?;
                problems.iter().try_for_each(|p| write!(f, "; {p}"))
            }
            BootError::BrokenChain { at } => {
                write!(f, "stored batch {at} does not continue the log before it")
            }
            BootError::TermBehindLog => {
                write!(f, "the stored term is older than the last stored entry's")
            }
            BootError::SnapshotOutsideLog => {
                write!(
                    f,
                    "the latest snapshot stands at no boundary of the stored log"
                )
            }
            BootError::StateMissing => write!(
                f,
                "the log does not begin at the first index and no snapshot holds what came before"
            ),
            BootError::AppliedAheadOfLog { applied, last } => write!(
                f,
                "the state machine has applied up to {applied}, the log ends at {last}"
            ),
            BootError::BrokenDamage => {
                write!(f, "the reported damage does not fit the log around it")
            }
            BootError::Memberships { at } => write!(
                f,
                "the memberships that were read and the log's membership batches differ at {at}"
            ),
        }
    }
}

impl core::error::Error for BootError {}

/// Checks that the stored batches continue one another from the start, and returns where they end.
pub(crate) fn check_chain(group: GroupId, boot: &Boot) -> Result<Position, BootError> {
    let mut end = boot.start;
    for (at, header) in boot.batches.iter().enumerate() {
        let fits = end
            .index()
            .0
            .checked_add(u64::from(header.count) + 1)
            .is_some();
        if !fits
            || header.group != group
            || check_count(header.kind, header.count).is_err()
            || !header.follows(&end)
        {
            return Err(BootError::BrokenChain { at });
        }
        end = header.position();
    }
    Ok(end)
}

/// Checks that the memberships up to `last` are those of the stored membership batches, and returns
/// them. Those behind it belong to the damage's survivors.
pub(crate) fn check_memberships(
    boot: &Boot,
    last: Position,
) -> Result<Vec<(Index, Membership)>, BootError> {
    let mut stored = (boot.batches.iter())
        .filter(|header| header.kind == BatchKind::Membership)
        .map(|header| header.first);
    let known: Vec<(Index, Membership)> = (boot.memberships.iter())
        .filter(|(at, _)| *at <= last.index())
        .cloned()
        .collect();
    for (at, membership) in &known {
        let expected = stored.next();
        if expected != Some(*at) || membership.is_unknown() {
            return Err(BootError::Memberships {
                at: expected.map_or(*at, |expected| expected.min(*at)),
            });
        }
    }
    match stored.next() {
        Some(at) => Err(BootError::Memberships { at }),
        None => Ok(known),
    }
}

/// Checks that the state machine can begin where the log allows, and returns the last index that is
/// in it or in the snapshot that it begins with.
pub(crate) fn check_state(
    boot: &Boot,
    last: Position,
    damage: Option<&Damaged>,
) -> Result<Index, BootError> {
    let start = boot.start;
    let covered = match &boot.snapshot {
        None => Index(0),
        Some(snapshot) => {
            let position = snapshot.position;
            let ends = (boot.batches.iter()).map(BatchHeader::position);
            if !core::iter::once(start)
                .chain(ends)
                .any(|end| end == position)
            {
                return Err(BootError::SnapshotOutsideLog);
            }
            position.index()
        }
    };
    let mut applied = boot.applied.unwrap_or_default().max(covered);
    if let Some(damaged) = damage {
        // What was applied was in the log once, and will be again.
        applied = applied.min(last.index());
        if damaged.snapshot_lost {
            applied = applied.max(start.index());
        }
    }
    if applied > last.index() {
        let last = last.index();
        return Err(BootError::AppliedAheadOfLog { applied, last });
    }
    if applied < start.index() {
        return Err(BootError::StateMissing);
    }
    Ok(applied)
}

/// Checks that the stored term is at least that of every stored entry, and returns what a life begins
/// with: its hard state, and what it has to write first. Where a later term may be lost, that of the
/// last entry is one this node has had. Where a snapshot covers the log's first gap, the log begins
/// behind it from now on.
pub(crate) fn check_term(
    boot: &Boot,
    last: Position,
    damage: Option<&Damaged>,
    stored_start: Position,
) -> Result<(HardState, Staged), BootError> {
    let mut staged = Staged::default();
    let mut hard = boot.hard_state;
    let newest = damage.map_or(last.term(), |damaged| damaged.floor.term.max(last.term()));
    if hard.term < newest {
        if damage.is_none_or(|damaged| !damaged.vote_uncertain) {
            return Err(BootError::TermBehindLog);
        }
        hard = HardState {
            term: newest,
            vote: None,
        };
        staged.hard_state = true;
    }
    staged.compact = (boot.start != stored_start).then_some(boot.start);
    Ok((hard, staged))
}
