//! Checks writes before a byte of them is written: what a commit would do to each group's log, seen
//! as a thin layer over the log as it is.

use crate::encode::Measure;
use crate::errors::{WalError, WriteProblem};
use crate::format::payload::encode_snapshot;
use crate::format::record::check_header;
use crate::index::{GroupIndex, StoreIndex, check_snapshot, membership_in, snapshot_index};
use crate::log::{Headed, Shape};
use crate::options::Ablation;
use crate::wal::Submission;
use duraft_core::{
    Batch, BatchHeader, GroupId, HardState, Healed, Index, MEMBERSHIP_BYTES_MAX, Membership,
    Position, Snapshot, SnapshotWrite, Write, WriteSeq,
};
use std::collections::BTreeMap;

/// What a commit comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planned {
    pub(crate) measure: Measure,
    pub(crate) appends: bool,
    /// The encoded membership at the boundary of each compaction, in order.
    pub(crate) memberships: Vec<Vec<u8>>,
}

/// Most bytes and records of one write: how large the membership of a compaction is depends on the log.
pub(crate) fn measure_max(write: &Write) -> Measure {
    measure(write, MEMBERSHIP_BYTES_MAX)
}

fn measure(write: &Write, membership_len: usize) -> Measure {
    let mut measure = Measure::default();
    if write.hard_state.is_some() {
        measure.add(0);
    }
    if let Some(SnapshotWrite { snapshot, .. }) = &write.snapshot {
        measure.add(encode_snapshot(snapshot).len());
    }
    if write.truncate.is_some() {
        measure.add(0);
    }
    for batch in &write.append {
        measure.add(batch.body.len());
    }
    if write.compact.is_some() {
        measure.add(membership_len);
    }
    if write.healed.is_some() {
        measure.add(0);
    }
    measure
}

/// Checks all writes of a commit in order.
pub(crate) fn check(
    index: &StoreIndex,
    written: &BTreeMap<GroupId, WriteSeq>,
    submissions: &[Submission],
    ablation: Option<Ablation>,
) -> Result<Planned, WalError> {
    let mut layers: Vec<Layer<'_>> = Vec::new();
    let mut planned = Planned::default();
    for submission in submissions {
        let group = submission.group;
        let place = match layers.iter().position(|layer| layer.group == group) {
            Some(place) => place,
            None => {
                let base = index
                    .groups
                    .get(&group)
                    .ok_or(WalError::UnknownGroup(group))?;
                let last = written.get(&group).copied().unwrap_or_default();
                let mut layer = Layer::new(group, base, last);
                layer.compact_uncovered = ablation == Some(Ablation::CompactUncovered);
                layers.push(layer);
                layers.len() - 1
            }
        };
        let write = &submission.write;
        let layer = &mut layers[place];
        layer
            .write(write)
            .map_err(|problem| WalError::Invalid { group, problem })?;
        let mut membership_len = 0;
        if let Some(upto) = &write.compact {
            let membership = layer.membership_at(upto).encode();
            membership_len = membership.len();
            planned.memberships.push(membership);
        }
        planned.measure = planned.measure.plus(measure(write, membership_len));
        planned.appends |= !write.append.is_empty();
    }
    Ok(planned)
}

/// A group's log with the writes checked so far on top.
struct Layer<'a> {
    group: GroupId,
    base: &'a GroupIndex,
    last: WriteSeq,
    hard_state: HardState,
    start: Position,
    end: Position,
    /// The base's boundaries up to here are still part of the log.
    kept: Index,
    added: Vec<BatchHeader>,
    memberships: Vec<(Index, Membership)>,
    snapshot: Option<Snapshot>,
    /// This commit names one already.
    names_snapshot: bool,
    /// A snapshot took the place of the whole log; this is the membership there.
    reset: Option<Membership>,
    /// For tests of the tests.
    compact_uncovered: bool,
    /// A damaged log is rare: it is copied and changed for real.
    gapped: Option<Shape<BatchHeader>>,
}

impl<'a> Layer<'a> {
    fn new(group: GroupId, base: &'a GroupIndex, last: WriteSeq) -> Layer<'a> {
        let log = &base.log;
        let gapped = (!log.is_whole()).then(|| copy_of(log));
        Layer {
            group,
            base,
            last,
            hard_state: base.hard_state,
            start: log.start(),
            end: log.end(),
            kept: log.end().index(),
            added: Vec::new(),
            memberships: Vec::new(),
            snapshot: base.snapshot.clone(),
            names_snapshot: false,
            reset: None,
            compact_uncovered: false,
            gapped,
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), WriteProblem> {
        let expected = self.last.next();
        if write.seq != expected {
            return Err(WriteProblem::Sequence {
                expected,
                found: write.seq,
            });
        }
        self.last = expected;
        if let Some(found) = write.hard_state {
            check_hard_state(self.hard_state, found)?;
            self.hard_state = found;
        }
        if let Some(write) = &write.snapshot {
            self.snapshot(write)?;
        }
        if let Some(keep) = &write.truncate {
            self.truncate(keep)?;
        }
        for batch in &write.append {
            self.append(batch)?;
        }
        if let Some(upto) = &write.compact {
            self.compact(upto)?;
        }
        if write.healed == Some(Healed::All) && !self.is_whole() {
            return Err(WriteProblem::NotHealed);
        }
        check_term(self.end, self.hard_state)
    }

    /// The membership in force at `upto`, a boundary of the log as it would be.
    fn membership_at(&self, upto: &Position) -> &Membership {
        if let Some(snapshot) = &self.snapshot
            && snapshot.position == *upto
        {
            return &snapshot.membership;
        }
        let upto = upto.index();
        let added = self.memberships.iter().rev().find(|(at, _)| *at <= upto);
        if let Some((_, membership)) = added {
            return membership;
        }
        if let Some(membership) = &self.reset {
            return membership;
        }
        let mut held = self.base.memberships.iter().rev();
        let held = held.find(|(at, _)| *at <= upto.min(self.kept));
        held.map_or(&self.base.membership, |(_, membership)| membership)
    }

    fn is_whole(&self) -> bool {
        let covered = self.start.index() <= snapshot_index(self.snapshot.as_ref());
        covered && self.gapped.as_ref().is_none_or(Shape::is_whole)
    }

    fn snapshot(&mut self, write: &SnapshotWrite) -> Result<(), WriteProblem> {
        let SnapshotWrite { snapshot, reset } = write;
        let at = &snapshot.position;
        let fits = if *reset {
            at.index() >= self.start.index()
        } else {
            match &self.gapped {
                Some(shape) => shape.agrees_with(at),
                None => self.has_boundary(at),
            }
        };
        check_snapshot(write, fits, self.snapshot.as_ref())?;
        if std::mem::replace(&mut self.names_snapshot, true) {
            return Err(WriteProblem::SnapshotTwice { at: *at });
        }
        self.snapshot = Some(snapshot.clone());
        if *reset {
            (self.start, self.end) = (*at, *at);
            // Nothing of the base is part of the log any more.
            self.kept = Index(0);
            self.added.clear();
            self.memberships.clear();
            self.reset = Some(snapshot.membership.clone());
            self.gapped = None;
        }
        Ok(())
    }

    fn truncate(&mut self, keep: &Position) -> Result<(), WriteProblem> {
        if keep.index() < snapshot_index(self.snapshot.as_ref()) {
            return Err(WriteProblem::Truncate { keep: *keep });
        }
        self.memberships.retain(|(at, _)| *at <= keep.index());
        self.kept = self.kept.min(keep.index());
        if let Some(shape) = &mut self.gapped {
            shape.truncate(keep)?;
            self.end = shape.end();
            return Ok(());
        }
        if !self.has_boundary(keep) {
            return Err(WriteProblem::Truncate { keep: *keep });
        }
        if keep.index() <= self.kept {
            self.kept = keep.index();
            self.added.clear();
        } else {
            let left = self
                .added
                .partition_point(|header| header.last() <= keep.index());
            self.added.truncate(left);
        }
        self.end = *keep;
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), WriteProblem> {
        let header = &batch.header;
        if header.group != self.group {
            return Err(WriteProblem::Group { at: header.first });
        }
        if batch.body.len() as u64 != u64::from(header.body_len) {
            return Err(WriteProblem::BodyLength { at: header.first });
        }
        check_header(header).map_err(|problem| WriteProblem::Header {
            at: header.first,
            problem,
        })?;
        if let Some(membership) = membership_in(header, &batch.body)? {
            self.memberships.push((header.first, membership));
        }
        if let Some(shape) = &mut self.gapped {
            shape.append(*header, true)?;
            self.end = shape.end();
            return Ok(());
        }
        if !header.follows(&self.end) {
            return Err(WriteProblem::Chain {
                end: self.end,
                first: header.first,
            });
        }
        self.end = header.position();
        self.added.push(*header);
        Ok(())
    }

    fn compact(&mut self, upto: &Position) -> Result<(), WriteProblem> {
        let snapshot = snapshot_index(self.snapshot.as_ref());
        if upto.index() > snapshot && !self.compact_uncovered {
            return Err(WriteProblem::Uncovered {
                upto: upto.index(),
                snapshot,
            });
        }
        if let Some(shape) = &mut self.gapped {
            // A missing range may hold a membership: behind it, only a snapshot knows the one in force.
            let knows = upto.index() == snapshot;
            let gap = shape.gaps().first().map(|(first, _)| *first);
            if !knows && gap.is_some_and(|gap| gap <= upto.index()) {
                return Err(WriteProblem::Compact { upto: *upto });
            }
            shape.compact(upto)?;
            self.start = shape.start();
            return Ok(());
        }
        if !self.has_boundary(upto) {
            return Err(WriteProblem::Compact { upto: *upto });
        }
        self.start = *upto;
        Ok(())
    }

    fn has_boundary(&self, at: &Position) -> bool {
        at.index() >= self.start.index() && self.boundary(at.index()) == Some(*at)
    }

    /// The boundary at `index` in the log as it would be, if there is one.
    fn boundary(&self, index: Index) -> Option<Position> {
        if index == self.start.index() {
            return Some(self.start);
        }
        if index == self.end.index() {
            return Some(self.end);
        }
        if index <= self.kept {
            return self.base.log.boundary(index);
        }
        let place = self.added.partition_point(|header| header.last() < index);
        let header = self.added.get(place)?;
        (header.last() == index).then(|| header.position())
    }
}

fn copy_of<E: Headed>(log: &Shape<E>) -> Shape<BatchHeader> {
    let mut copy = Shape::new(log.start(), log.end());
    for entry in log.entries() {
        copy.append(*entry.header(), false)
            .expect("entries of a log fit the log they are in");
    }
    copy
}

/// Terms never go back, and a vote is never taken back within a term.
pub(crate) fn check_hard_state(before: HardState, found: HardState) -> Result<(), WriteProblem> {
    let kept = found.term > before.term
        || found.term == before.term && (before.vote.is_none() || before.vote == found.vote);
    if kept {
        Ok(())
    } else {
        Err(WriteProblem::HardState { before, found })
    }
}

/// No entry is of a later term than the hard state.
pub(crate) fn check_term(end: Position, state: HardState) -> Result<(), WriteProblem> {
    if end.term() <= state.term {
        Ok(())
    } else {
        Err(WriteProblem::TermBehindLog { end, state })
    }
}
