//! What a log is, without a disk: the state after each submitted write. Written from the design,
//! not from the log's code; the only thing shared with it is the core's types.

use bytes::Bytes;
use duraft_core::{
    Batch, BatchKind, Body, Digest, GroupId, HardState, Index, LogId, Membership, NodeId, Position,
    Snapshot, SnapshotFile, SnapshotWrite, Term, Write, WriteSeq,
};
use duraft_disk::SplitMix64;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one group's log must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct GroupState {
    pub(super) hard: HardState,
    /// Everything up to here is compacted away.
    pub(super) start: Position,
    /// The membership at `start`, as the body of the batch that carried it.
    pub(super) membership: Bytes,
    pub(super) batches: Vec<Batch>,
    /// The latest snapshot, from which the state before `start` comes.
    pub(super) snapshot: Option<Snapshot>,
}

impl GroupState {
    fn empty() -> GroupState {
        GroupState {
            snapshot: None,
            membership: membership_body(None),
            hard: HardState::default(),
            start: Position::START,
            batches: Vec::new(),
        }
    }

    pub(super) fn end(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, |batch| batch.header.position())
    }

    fn boundaries(&self) -> Vec<Position> {
        let ends = self.batches.iter().map(|batch| batch.header.position());
        std::iter::once(self.start).chain(ends).collect()
    }

    /// Index up to which the latest snapshot holds the state.
    fn covered(&self) -> Index {
        let snapshot = self.snapshot.as_ref();
        snapshot.map_or(Index(0), |snapshot| snapshot.position.index())
    }

    /// How many boundaries from the log's start on nothing is ever cut off at or before: those that
    /// the latest snapshot covers, which are committed. At least one.
    fn uncut(&self) -> usize {
        let covered = self.covered();
        let boundaries = self.boundaries();
        boundaries
            .partition_point(|at| at.index() <= covered)
            .max(1)
    }

    /// The membership at a boundary of the log.
    pub(super) fn membership_at(&self, at: Index) -> Membership {
        let batches = self.batches.iter().filter(|batch| batch.header.first <= at);
        let changes = batches.filter(|batch| batch.header.kind == BatchKind::Membership);
        let body = changes.last().map_or(&self.membership, |batch| &batch.body);
        Membership::decode(body).expect("the workload's own")
    }

    /// The parts of a write take effect in the order of its fields.
    fn apply(&mut self, write: &Write) {
        if let Some(hard) = write.hard_state {
            self.hard = hard;
        }
        if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
            if *reset {
                self.start = snapshot.position;
                self.membership = Bytes::from(snapshot.membership.encode());
                self.batches.clear();
            }
            assert!(
                self.boundaries().contains(&snapshot.position),
                "the workload's snapshots are at boundaries"
            );
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(keep) = write.truncate {
            self.batches
                .retain(|batch| batch.header.last() <= keep.index());
            assert_eq!(self.end(), keep, "the workload cuts at boundaries");
        }
        for batch in &write.append {
            assert!(
                batch.header.follows(&self.end()),
                "the workload continues the log"
            );
            self.batches.push(batch.clone());
        }
        if let Some(upto) = write.compact {
            assert!(upto.index() <= self.covered(), "a snapshot holds what goes");
            let gone = self
                .batches
                .iter()
                .filter(|batch| batch.header.first <= upto.index());
            if let Some(last) = gone.rev().find(|b| b.header.kind == BatchKind::Membership) {
                self.membership = last.body.clone();
            }
            self.batches
                .retain(|batch| batch.header.first > upto.index());
            self.start = upto;
        }
    }

    /// Does this hold all of `truth` and at most what a compaction would have dropped? A compaction
    /// that is forgotten loses nothing, nor does a snapshot, as long as the log goes on from the one
    /// before. And what a snapshot holds need not be in the log that begins with it.
    pub(super) fn covers(&self, truth: &GroupState) -> bool {
        if self.start.index() > truth.start.index() {
            let begun = self.snapshot.as_ref().map(|snapshot| snapshot.position);
            let batches = truth.batches.iter();
            let rest = batches.filter(|batch| batch.header.first > self.start.index());
            return self.hard == truth.hard
                && (self.snapshot == truth.snapshot || self.covered() < truth.covered())
                && Some(self.start) == begun
                && self.membership == truth.membership_at(self.start.index()).encode()
                && self.batches.iter().eq(rest);
        }
        let Some(more) = self.batches.len().checked_sub(truth.batches.len()) else {
            return false;
        };
        let (extra, rest) = self.batches.split_at(more);
        let joint = extra
            .last()
            .map_or(self.start, |batch| batch.header.position());
        let memberships = extra
            .iter()
            .filter(|b| b.header.kind == BatchKind::Membership);
        let membership = memberships
            .last()
            .map_or(&self.membership, |batch| &batch.body);
        let covered = self.start.index() <= self.covered() && self.covered() <= truth.covered();
        self.hard == truth.hard
            && (self.snapshot == truth.snapshot || covered)
            && joint == truth.start
            && rest == truth.batches
            && *membership == truth.membership
    }

    pub(super) fn show(&self) -> String {
        let batches: Vec<String> = self
            .batches
            .iter()
            .map(|batch| batch.header.position().to_string())
            .collect();
        let (hard, start) = (self.hard, self.start);
        let snapshot = self.snapshot.as_ref();
        let snapshot = snapshot.map(|s| format!("{} file {:x}", s.position, s.file.nonce));
        format!(
            "{hard:?} after {start} m{:x?} s{snapshot:?} [{}]",
            &self.membership[10..],
            batches.join(" ")
        )
    }
}

/// All groups of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State(pub(super) BTreeMap<GroupId, GroupState>);

impl State {
    pub(super) fn empty(groups: u64) -> State {
        let groups = (0..groups).map(|group| (GroupId(group), GroupState::empty()));
        State(groups.collect())
    }

    /// Are the logs the same, whatever the hard states and memberships?
    pub(super) fn same_logs(&self, other: &State) -> bool {
        let log = |state: &GroupState| (state.start, state.batches.clone());
        let logs = |state: &State| state.0.values().map(log).collect::<Vec<_>>();
        logs(self) == logs(other)
    }

    /// [`GroupState::covers`] for every group.
    pub(super) fn covers(&self, truth: &State) -> bool {
        self.0.len() == truth.0.len()
            && truth
                .0
                .iter()
                .all(|(group, truth)| self.0.get(group).is_some_and(|held| held.covers(truth)))
    }

    pub(super) fn show(&self) -> String {
        let groups: Vec<String> = self
            .0
            .iter()
            .map(|(group, state)| format!("group {group}: {}", state.show()))
            .collect();
        groups.join(", ")
    }
}

/// What recovery may return: the state after any prefix of what was submitted that holds all that
/// was acknowledged.
#[derive(Clone)]
pub(super) struct Expected {
    /// The states after each write; the first one holds all that was acknowledged.
    states: Vec<Arc<State>>,
}

impl Expected {
    pub(super) fn exactly(state: Arc<State>) -> Expected {
        Expected {
            states: vec![state],
        }
    }

    pub(super) fn newest(&self) -> &Arc<State> {
        self.states.last().expect("there is always one state")
    }

    pub(super) fn oldest(&self) -> &Arc<State> {
        &self.states[0]
    }

    pub(super) fn states(&self) -> impl Iterator<Item = &Arc<State>> {
        self.states.iter()
    }

    /// A write was handed in: from now on its effect may be found.
    pub(super) fn submit(&mut self, group: GroupId, write: &Write) {
        let mut state = State::clone(self.newest());
        state
            .0
            .get_mut(&group)
            .expect("the workload knows its groups")
            .apply(write);
        self.states.push(Arc::new(state));
    }

    /// Everything submitted was acknowledged: nothing else may be found.
    pub(super) fn acknowledge(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    /// The state that was found, if it may be found.
    pub(super) fn find(&self, found: &State) -> Option<Arc<State>> {
        self.states.iter().find(|state| ***state == *found).cloned()
    }

    pub(super) fn show(&self) -> String {
        let states: Vec<String> = self.states.iter().map(|state| state.show()).collect();
        states.join("\n    or ")
    }
}

/// How large and how varied the writes are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) groups: u64,
    /// Longest command, in bytes.
    pub(super) command_max: u64,
    /// Every second command is about as long as can be, instead of few.
    pub(super) heavy: bool,
    /// A group holds at most so many batches before it compacts.
    pub(super) batches_max: usize,
    /// Every second write is about snapshots or members, and snapshots of peers come in pieces.
    pub(super) busy: bool,
}

/// What [`draw_write`] chooses from, beside others: a snapshot is taken, one is installed, members
/// change. The last is drawn of busy shapes only; elsewhere a body may happen to be a membership.
const TAKE: u64 = 5;
const INSTALL: u64 = 8;
const CHANGE: u64 = 16;

/// Draws the next write of a group in this state. Every batch has content of its own, so what comes
/// back without leave, or from another place, is seen.
pub(super) fn draw_write(
    rng: &mut SplitMix64,
    shape: &Shape,
    group: GroupId,
    state: &GroupState,
) -> Write {
    let mut write = Write {
        seq: WriteSeq(0),
        hard_state: None,
        snapshot: None,
        truncate: None,
        append: Vec::new(),
        compact: None,
        healed: None,
    };
    let mut end = state.end();
    let mut hard = state.hard;
    let full = state.batches.len() >= shape.batches_max;
    let choice = match shape.busy && rng.below(2) == 0 {
        true => [TAKE, INSTALL, INSTALL, CHANGE][usize::try_from(rng.below(4)).expect("below 4")],
        false => rng.below(CHANGE),
    };
    match choice {
        // A new term or a new vote and nothing else.
        0..=1 => {
            hard = later_term(rng, hard);
            write.hard_state = Some(hard);
            return write;
        }
        // A suffix is replaced by batches of a new term, or in a new term by nothing yet.
        2..=4 if state.boundaries().len() > state.uncut() => {
            hard = later_term(rng, hard);
            write.hard_state = Some(hard);
            let boundaries = state.boundaries();
            let first = state.uncut() as u64 - 1;
            let keep = first + rng.below(boundaries.len() as u64 - 1 - first);
            end = boundaries[usize::try_from(keep).expect("a few boundaries")];
            write.truncate = Some(end);
            if rng.below(3) == 0 {
                return write;
            }
        }
        // A snapshot is taken, and perhaps the log compacted.
        TAKE if !state.batches.is_empty() => {
            take(rng, state, &mut write, false);
            return write;
        }
        // A snapshot from elsewhere takes the place of the log.
        INSTALL => {
            hard = later_term(rng, hard);
            write.hard_state = Some(hard);
            end = install(rng, state, hard.term, &mut write);
            if rng.below(2) == 0 {
                return write;
            }
        }
        6..=7 => {
            hard = later_term(rng, hard);
            write.hard_state = Some(hard);
        }
        _ => {}
    }
    if hard.term == Term(0) {
        hard = later_term(rng, hard);
        write.hard_state = Some(hard);
    }
    for n in 0..1 + rng.below(3) {
        let body = match choice == CHANGE && n == 0 {
            true => draw_membership(rng),
            false => draw_body(rng, shape),
        };
        let batch = body
            .seal(group, &end, hard.term)
            .expect("small batches have a place");
        end = batch.header.position();
        write.append.push(batch);
    }
    if full && write.truncate.is_none() && write.snapshot.is_none() {
        take(rng, state, &mut write, true);
    }
    write
}

/// A snapshot at a boundary of the log, newer than the one before where there is a newer boundary; and
/// a compaction up to it, or to some boundary before, or none.
fn take(rng: &mut SplitMix64, state: &GroupState, write: &mut Write, compact: bool) {
    let boundaries = state.boundaries();
    let first = state.uncut();
    if first < boundaries.len() {
        let at = pick(rng, &boundaries[first..]);
        let membership = state.membership_at(at.index());
        write.snapshot = Some(snapshot(rng, at, membership, false));
    }
    if compact || rng.below(3) > 0 {
        let covered = write.snapshot.as_ref();
        let covered = covered.map_or(state.covered(), |write| write.snapshot.position.index());
        let end = boundaries.partition_point(|at| at.index() <= covered);
        // Where there is too much, at least half of what may go.
        let first = if compact { end / 2 } else { 0 };
        write.compact = Some(pick(rng, &boundaries[first..end]));
    }
}

/// A snapshot at a boundary that this log never had.
fn install(rng: &mut SplitMix64, state: &GroupState, term: Term, write: &mut Write) -> Position {
    let before = state.end().id;
    let at = Position {
        id: LogId {
            index: Index(before.index.0.max(state.covered().0) + 1 + rng.below(4)),
            term: Term(before.term.0.max(rng.below(term.0 + 1))),
        },
        digest: Digest(rng.next()),
    };
    let body = membership_body(Some(rng.next()));
    let membership = Membership::decode(&body).expect("one or two voters");
    write.snapshot = Some(snapshot(rng, at, membership, true));
    at
}

fn snapshot(
    rng: &mut SplitMix64,
    position: Position,
    membership: Membership,
    reset: bool,
) -> SnapshotWrite {
    let file = SnapshotFile {
        nonce: rng.next(),
        bytes: 1 + rng.below(700),
        digest: rng.next(),
    };
    let snapshot = Snapshot {
        position,
        membership,
        file,
    };
    SnapshotWrite { snapshot, reset }
}

fn pick(rng: &mut SplitMix64, places: &[Position]) -> Position {
    places[usize::try_from(rng.below(places.len() as u64)).expect("a few boundaries")]
}

fn later_term(rng: &mut SplitMix64, hard: HardState) -> HardState {
    // A vote may be spent in a term that is known already; else the term moves on.
    let vote = (rng.below(3) > 0).then(|| NodeId(rng.below(5)));
    if hard.vote.is_none() && vote.is_some() && rng.below(3) == 0 && hard.term > Term(0) {
        return HardState {
            term: hard.term,
            vote,
        };
    }
    HardState {
        term: Term(hard.term.0 + 1 + rng.below(2)),
        vote,
    }
}

fn draw_body(rng: &mut SplitMix64, shape: &Shape) -> Body {
    match rng.below(24) {
        0 => return Body::noop(),
        1 => return draw_membership(rng),
        _ => {}
    }
    let count = 1 + rng.below(4);
    let mut commands: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let len = match rng.below(4) {
            _ if shape.heavy && rng.below(2) == 0 => shape.command_max - rng.below(64),
            0 => rng.below(8),
            1 | 2 => rng.below(shape.command_max / 4 + 1),
            _ => rng.below(shape.command_max + 1),
        };
        commands.push((0..len).map(|_| (rng.next() & 0xff) as u8).collect());
    }
    let mut bytes = Vec::new();
    let mut end = 0_u32;
    for command in &commands {
        end += u32::try_from(command.len()).expect("commands are short");
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    bytes.extend(commands.concat());
    Body {
        kind: BatchKind::Commands,
        codec: 0,
        count: u32::try_from(count).expect("a few commands"),
        checksum: crc32(&bytes),
        bytes: Bytes::from(bytes),
    }
}

fn draw_membership(rng: &mut SplitMix64) -> Body {
    let bytes = membership_body(Some(rng.next()));
    Body {
        kind: BatchKind::Membership,
        codec: 0,
        count: 1,
        checksum: crc32(&bytes),
        bytes,
    }
}

/// The body of a membership batch: node 1, and another voter; version and counts first.
pub(super) fn membership_body(other: Option<u64>) -> Bytes {
    let voters = BTreeSet::from_iter([1].into_iter().chain(other));
    let count = u8::try_from(voters.len()).expect("one or two");
    let mut bytes = vec![1, 0, count, 0, 0, 0, 0, 0, 0, 0];
    voters
        .iter()
        .for_each(|voter| bytes.extend_from_slice(&voter.to_le_bytes()));
    Bytes::from(bytes)
}

/// CRC-32/IEEE bit by bit: the oracle does not borrow the log's checksum code.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (0xedb8_8320 * low);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn drawn_workloads_do_everything_a_log_can_be_asked() {
        // A workload without truncations would never see a resurrected suffix.
        let shape = Shape {
            groups: 1,
            command_max: 2000,
            heavy: false,
            batches_max: 6,
            busy: false,
        };
        let mut rng = SplitMix64::new(1);
        let mut expected = Expected::exactly(Arc::new(State::empty(1)));
        let group = GroupId(0);
        let (mut cuts, mut compactions, mut votes, mut both) = (0, 0, 0, 0);
        let (mut taken, mut installed) = (0, 0);
        for _ in 0..1000 {
            let write = draw_write(&mut rng, &shape, group, &expected.newest().0[&group]);
            cuts += u32::from(write.truncate.is_some());
            compactions += u32::from(write.compact.is_some());
            votes += u32::from(write.append.is_empty() && write.hard_state.is_some());
            both += u32::from(write.truncate.is_some() && !write.append.is_empty());
            let reset = write.snapshot.as_ref().map(|snapshot| snapshot.reset);
            taken += u32::from(reset == Some(false));
            installed += u32::from(reset == Some(true));
            expected.submit(group, &write);
            assert!(expected.newest().0[&group].batches.len() <= 12);
            expected.acknowledge();
        }
        assert!(cuts > 50 && compactions > 50 && votes > 50 && both > 30);
        assert!(taken > 50 && installed > 30);
    }
}
