//! What the store holds, in memory: every group's log shape, hard state and membership, and the
//! bodies of recent batches. The writer changes it after a sync, readers look things up in it.

use crate::errors::WriteProblem;
use crate::format::payload::{self, GroupCheckpoint, LostLog};
use crate::log::Shape;
use crate::repair::{REPAIRS_MAX, Repair};
use crate::segment::Entry;
use duraft_core::{
    BatchHeader, BatchKind, GroupId, HardState, Healed, Index, LogId, Membership, Position,
    Snapshot, SnapshotWrite,
};
use std::collections::{BTreeMap, VecDeque};

/// What is known of a damaged group beyond its gaps. Kept until the group is healed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lost {
    pub(crate) suffix: bool,
    pub(crate) vote: bool,
    pub(crate) floor: LogId,
}

/// One group.
#[derive(Clone, Debug)]
pub(crate) struct GroupIndex {
    pub(crate) hard_state: HardState,
    pub(crate) log: Shape<Entry>,
    /// The membership at the log's start.
    pub(crate) membership: Membership,
    /// Memberships in the log, by index.
    pub(crate) memberships: VecDeque<(Index, Membership)>,
    /// Index of the last membership batch that a record told of.
    pub(crate) membership_hint: Index,
    /// The latest snapshot: everything up to the log's start is in it.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) lost: Option<Lost>,
    /// What people decided, the latest last.
    pub(crate) repairs: Vec<Repair>,
}

/// The parts of the log that a change dropped, for whoever counts live batches per segment.
pub(crate) type Dropped = VecDeque<Entry>;

impl GroupIndex {
    pub(crate) fn from_checkpoint(checkpoint: &GroupCheckpoint) -> GroupIndex {
        GroupIndex {
            hard_state: checkpoint.hard_state,
            log: Shape::new(checkpoint.start, checkpoint.end),
            membership: checkpoint.membership.clone(),
            memberships: VecDeque::new(),
            membership_hint: checkpoint.last_membership,
            snapshot: checkpoint.snapshot.clone(),
            lost: None,
            repairs: Vec::new(),
        }
    }

    /// The checkpoint of this group, with `end` as the end of what earlier segments hold.
    pub(crate) fn checkpoint(&self, end: Position) -> GroupCheckpoint {
        GroupCheckpoint {
            hard_state: self.hard_state,
            start: self.log.start(),
            end,
            last_membership: self.last_membership(),
            membership: self.membership.clone(),
            snapshot: self.snapshot.clone(),
        }
    }

    /// Does the log begin behind what the latest snapshot holds? Only damage makes it so.
    pub(crate) fn is_uncovered(&self) -> bool {
        self.log.start().index() > snapshot_index(self.snapshot.as_ref())
    }

    /// What a DAMAGE record must say of this group, if anything.
    pub(crate) fn lost_log(&self) -> Option<LostLog> {
        let lost = self.lost?;
        Some(LostLog {
            lost_suffix: lost.suffix,
            vote_uncertain: lost.vote,
            floor: lost.floor,
            missing: self.log.gaps(),
        })
    }

    pub(crate) fn last_membership(&self) -> Index {
        let held = self.memberships.back().map_or(Index(0), |(at, _)| *at);
        held.max(self.membership_hint)
    }

    pub(crate) fn append(
        &mut self,
        entry: Entry,
        membership: Option<Membership>,
        strict: bool,
    ) -> Result<(), WriteProblem> {
        let at = entry.header.first;
        self.log.append(entry, strict)?;
        self.note_membership(at, membership);
        Ok(())
    }

    pub(crate) fn note_membership(&mut self, at: Index, membership: Option<Membership>) {
        if let Some(membership) = membership {
            let place = self.memberships.partition_point(|(index, _)| *index < at);
            match self.memberships.get_mut(place) {
                Some((held, found)) if *held == at => *found = membership,
                _ => self.memberships.insert(place, (at, membership)),
            }
            self.membership_hint = self.membership_hint.max(at);
        }
    }

    /// Where something before the latest snapshot is missing, or is not what led to it, the log begins
    /// at the snapshot: it holds all of that, and what is left of the log before it cannot be trusted.
    pub(crate) fn begin_at_snapshot(&mut self) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        let at = snapshot.position;
        let gap = self.log.gaps().first().map(|(first, _)| *first);
        let broken = gap.is_some_and(|gap| gap <= at.index()) || !self.log.agrees_with(&at);
        if self.is_uncovered() || !broken {
            return;
        }
        let end = self.log.end();
        let end = if end.index() > at.index() { end } else { at };
        self.membership = snapshot.membership.clone();
        self.log.settle(at, end);
    }

    /// Forgets memberships whose batches were dropped as contradicted by what came later.
    pub(crate) fn match_memberships(&mut self) {
        let log = &self.log;
        self.memberships.retain(|(at, _)| {
            let entry = log.entries().get(log.place_of(*at));
            entry.is_some_and(|entry| {
                entry.header.first == *at && entry.header.kind == BatchKind::Membership
            })
        });
    }

    pub(crate) fn truncate(&mut self, keep: &Position) -> Result<Dropped, WriteProblem> {
        let dropped = self.log.truncate(keep)?;
        self.forget_memberships_after(keep.index());
        Ok(dropped)
    }

    pub(crate) fn forget_memberships_after(&mut self, last: Index) {
        while self.memberships.back().is_some_and(|(at, _)| *at > last) {
            self.memberships.pop_back();
        }
        // Rolled back with the batches: what is left is the last one in the log, or the start's.
        if self.membership_hint > last {
            self.membership_hint = self.memberships.back().map_or(Index(0), |(at, _)| *at);
        }
    }

    /// Takes a snapshot on. A reset drops the log with everything known of it: what a damaged one
    /// lacked is not missing any more.
    pub(crate) fn snapshot(&mut self, write: &SnapshotWrite) -> Result<Dropped, WriteProblem> {
        let SnapshotWrite { snapshot, reset } = write;
        let at = &snapshot.position;
        let fits = *reset && at.index() >= self.log.start().index() || self.log.agrees_with(at);
        check_snapshot(write, fits, self.snapshot.as_ref())?;
        self.snapshot = Some(snapshot.clone());
        if !reset {
            return Ok(Dropped::new());
        }
        let empty = Shape::new(snapshot.position, snapshot.position);
        let dropped = std::mem::replace(&mut self.log, empty);
        self.membership = snapshot.membership.clone();
        self.memberships.clear();
        self.membership_hint = Index(0);
        // What this node has promised stays promised until the log reaches it again.
        let over = |lost: Lost| !lost.suffix && !lost.vote && lost.floor <= snapshot.position.id;
        if self.lost.is_some_and(over) {
            self.lost = None;
        }
        Ok(dropped.into_entries())
    }

    pub(crate) fn compact(&mut self, upto: &Position) -> Result<Dropped, WriteProblem> {
        let dropped = self.log.compact(upto)?;
        self.take_memberships_upto(upto.index());
        if let Some(snapshot) = &self.snapshot
            && snapshot.position == *upto
        {
            // The batch that set it may be among the missing ones.
            self.membership = snapshot.membership.clone();
        }
        Ok(dropped)
    }

    pub(crate) fn healed(&mut self, healed: Healed) {
        match (healed, &mut self.lost) {
            (Healed::All, lost) => *lost = None,
            (Healed::Vote, Some(lost)) => lost.vote = false,
            (Healed::Vote, None) => {}
        }
    }

    pub(crate) fn repaired(&mut self, note: Repair) {
        if self.repairs.len() == REPAIRS_MAX {
            self.repairs.remove(0);
        }
        self.repairs.push(note);
    }

    pub(crate) fn take_memberships_upto(&mut self, upto: Index) {
        while self.memberships.front().is_some_and(|(at, _)| *at <= upto) {
            if let Some((_, membership)) = self.memberships.pop_front() {
                self.membership = membership;
            }
        }
    }
}

/// Where a snapshot ends; 0 where there is none.
pub(crate) fn snapshot_index(snapshot: Option<&Snapshot>) -> Index {
    snapshot.map_or(Index(0), |snapshot| snapshot.position.index())
}

/// May a snapshot follow on that one, and does it fit the log?
///
/// One that leaves the log as it is may be older than the one before: a node whose latest snapshot
/// cannot be read starts from what lies before it, and its next one is of there. Nothing is lost with
/// the later one, as the log holds all that follows. One that replaces the log may not.
pub(crate) fn check_snapshot(
    write: &SnapshotWrite,
    fits: bool,
    before: Option<&Snapshot>,
) -> Result<(), WriteProblem> {
    let at = &write.snapshot.position;
    let contradicts = before.is_some_and(|before| {
        before.position.index() > at.index() && write.reset
            || before.position.index() == at.index() && before.position != *at
    });
    if fits && !contradicts {
        Ok(())
    } else {
        Err(WriteProblem::Snapshot { at: *at })
    }
}

/// The membership that a batch carries, if it is one that must.
pub(crate) fn membership_in(
    header: &BatchHeader,
    body: &[u8],
) -> Result<Option<Membership>, WriteProblem> {
    match header.kind {
        BatchKind::Membership => payload::decode_membership(body)
            .map(Some)
            .map_err(|_| WriteProblem::Membership { at: header.first }),
        BatchKind::Commands | BatchKind::Noop => Ok(None),
    }
}

/// All groups and the cache of recent bodies.
#[derive(Debug)]
pub(crate) struct StoreIndex {
    pub(crate) groups: BTreeMap<GroupId, GroupIndex>,
    cache: VecDeque<Cached>,
    cache_bytes: u64,
    cache_bytes_max: u64,
}

#[derive(Debug)]
struct Cached {
    group: GroupId,
    first: Index,
    commit: u64,
    bytes: u64,
}

impl StoreIndex {
    pub(crate) fn new(groups: BTreeMap<GroupId, GroupIndex>, cache_bytes_max: u64) -> StoreIndex {
        StoreIndex {
            groups,
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_bytes_max,
        }
    }

    /// Notes that a batch with its body in memory was added, and lets go of the oldest bodies beyond
    /// the limit. A body whose batch was dropped meanwhile is gone already.
    pub(crate) fn cached(&mut self, group: GroupId, first: Index, commit: u64, bytes: u64) {
        self.cache.push_back(Cached {
            group,
            first,
            commit,
            bytes,
        });
        self.cache_bytes += bytes;
        while self.cache_bytes > self.cache_bytes_max {
            let Some(oldest) = self.cache.pop_front() else {
                break;
            };
            self.cache_bytes -= oldest.bytes;
            self.evict(&oldest);
        }
    }

    fn evict(&mut self, cached: &Cached) {
        let Some(group) = self.groups.get_mut(&cached.group) else {
            return;
        };
        let place = group.log.place_of(cached.first);
        if let Some(entry) = group.log.entry_mut(place)
            && entry.header.first == cached.first
            && entry.commit == cached.commit
        {
            entry.body = None;
        }
    }
}
