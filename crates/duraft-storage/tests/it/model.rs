//! The store against a naive model: vectors of batches, and nothing that could be clever.

use crate::support::*;
use duraft_core::{
    Batch, BatchKind, Digest, GroupId, HardState, Index, Leave, LogId, MemberChange, Membership,
    NodeId, Position, Snapshot, SnapshotFile, SnapshotWrite, Term, Write,
};
use duraft_disk::{FaultDisk, SplitMix64, Survival};
use duraft_storage::{RecoveredGroup, Submission, Wal, WalOptions};
use std::collections::BTreeMap;

/// What a group must hold.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ModelGroup {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    /// The membership at `start`.
    pub(crate) membership: Membership,
    pub(crate) batches: Vec<Batch>,
    pub(crate) snapshot: Option<Snapshot>,
}

impl ModelGroup {
    pub(crate) fn end(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, |batch| batch.header.position())
    }

    pub(crate) fn memberships(&self) -> Vec<(Index, Membership)> {
        let batches = self.batches.iter();
        batches
            .filter(|batch| batch.header.kind == BatchKind::Membership)
            .map(|batch| {
                let membership = Membership::decode(&batch.body).expect("the model's own");
                (batch.header.first, membership)
            })
            .collect()
    }

    fn membership_at(&self, at: Index) -> Membership {
        let held = self.memberships();
        let held = held.into_iter().rfind(|(index, _)| *index <= at);
        held.map_or(self.membership.clone(), |(_, membership)| membership)
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        if let Some(state) = write.hard_state {
            self.hard_state = state;
        }
        if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
            self.snapshot = Some(snapshot.clone());
            if *reset {
                self.start = snapshot.position;
                self.membership = snapshot.membership.clone();
                self.batches.clear();
            }
        }
        if let Some(keep) = write.truncate {
            self.batches
                .retain(|batch| batch.header.last() <= keep.index());
        }
        self.batches.extend(write.append.iter().cloned());
        if let Some(upto) = write.compact {
            self.membership = self.membership_at(upto.index());
            self.batches
                .retain(|batch| batch.header.last() > upto.index());
            self.start = upto;
        }
    }

    /// Is this what was recovered?
    pub(crate) fn is(&self, found: &RecoveredGroup) -> bool {
        let headers: Vec<_> = self.batches.iter().map(|batch| batch.header).collect();
        found.hard_state == self.hard_state
            && found.start == self.start
            && found.membership == self.membership
            && found.batches == headers
            && found.memberships == self.memberships()
            && found.snapshot == self.snapshot
            && found.damage.is_none()
    }
}

pub(crate) type Model = BTreeMap<GroupId, ModelGroup>;

pub(crate) fn fresh_model(groups: &[GroupId]) -> Model {
    let group = ModelGroup {
        hard_state: HardState::default(),
        start: Position::START,
        membership: membership(),
        batches: Vec::new(),
        snapshot: None,
    };
    groups.iter().map(|id| (*id, group.clone())).collect()
}

/// Some write that the group's log allows.
pub(crate) fn draw(rng: &mut SplitMix64, writer: &mut Writer, state: &ModelGroup) -> Submission {
    let mut write = writer.write();
    let mut term = state.hard_state.term.0;
    if rng.below(4) == 0 || term == 0 {
        term += 1;
        let vote = (rng.below(2) == 0).then_some(NodeId(rng.below(3)));
        write.hard_state = Some(HardState {
            term: Term(term),
            vote,
        });
    }
    let mut end = state.end();
    if rng.below(12) == 0 {
        // A snapshot from elsewhere takes the place of the log.
        end = beyond(rng, &end, term);
        let membership = drawn_membership(rng);
        write.snapshot = Some(SnapshotWrite {
            reset: true,
            ..snapshot(rng, end, membership)
        });
    } else if rng.below(6) == 0 && !state.batches.is_empty() {
        let places: Vec<Position> = std::iter::once(state.start)
            .chain(state.batches.iter().map(|batch| batch.header.position()))
            .filter(|at| {
                state
                    .snapshot
                    .as_ref()
                    .is_none_or(|s| s.position.index() <= at.index())
            })
            .collect();
        end = places[usize::try_from(rng.below(places.len() as u64)).expect("a few")];
        write.truncate = Some(end);
    }
    for _ in 0..rng.below(3) {
        let (count, len) = (1 + rng.below(3) as usize, rng.below(120) as usize);
        let batch = match rng.below(10) {
            0 | 1 => noop(writer.group, &end, term),
            2 => membership_batch(writer.group, &end, term, &drawn_membership(rng)),
            _ => batch(writer.group, &end, term, count, len, rng.below(256) as u8),
        };
        end = batch.header.position();
        write.append.push(batch);
    }
    if write.snapshot.is_none() && rng.below(3) == 0 {
        draw_taken(rng, state, &mut write);
    }
    writer.submit(write)
}

/// A snapshot of the log as it was, and perhaps a compaction after it.
fn draw_taken(rng: &mut SplitMix64, state: &ModelGroup, write: &mut Write) {
    // Of what this write leaves of the log.
    let kept = write.truncate.map_or(state.end(), |keep| keep).index();
    let before = state
        .snapshot
        .as_ref()
        .map_or(Index(0), |s| s.position.index());
    // At times one before the latest, as a node takes that cannot read the latest.
    let oldest = if rng.below(6) == 0 { Index(0) } else { before };
    let places: Vec<Position> = std::iter::once(state.start)
        .chain(state.batches.iter().map(|batch| batch.header.position()))
        .filter(|at| at.index() <= kept)
        .collect();
    let newer: Vec<Position> = places
        .iter()
        .copied()
        .filter(|at| at.index() > oldest)
        .collect();
    if newer.is_empty() {
        return;
    }
    let at = newer[usize::try_from(rng.below(newer.len() as u64)).expect("a few")];
    write.snapshot = Some(snapshot(rng, at, state.membership_at(at.index())));
    if rng.below(3) > 0 {
        let covered: Vec<Position> = places
            .into_iter()
            .filter(|place| place.index() <= at.index())
            .collect();
        let upto = covered[usize::try_from(rng.below(covered.len() as u64)).expect("a few")];
        write.compact = Some(upto);
    }
}

fn snapshot(rng: &mut SplitMix64, position: Position, membership: Membership) -> SnapshotWrite {
    let file = SnapshotFile {
        nonce: rng.next(),
        bytes: rng.below(1000),
        digest: rng.next(),
    };
    SnapshotWrite {
        snapshot: Snapshot {
            position,
            membership,
            file,
        },
        reset: false,
    }
}

/// A boundary that this log does not hold.
fn beyond(rng: &mut SplitMix64, end: &Position, term: u64) -> Position {
    Position {
        id: LogId {
            index: Index(end.index().0 + 1 + rng.below(5)),
            term: Term(end.term().0 + rng.below(term - end.term().0 + 1)),
        },
        digest: Digest(rng.next()),
    }
}

fn drawn_membership(rng: &mut SplitMix64) -> Membership {
    let voters = (0..1 + rng.below(4)).map(NodeId);
    let membership = Membership::new(voters, [NodeId(9)]).expect("voters and a learner");
    if rng.below(2) == 0 {
        return membership;
    }
    let change = [MemberChange::AddVoter(NodeId(20 + rng.below(5)))];
    membership
        .change(&change, Leave::Automatic)
        .expect("one more voter")
}

pub(crate) fn check(wal: &Wal, model: &Model, context: &str) {
    for (id, group) in model {
        let (start, end) = wal.reader().bounds(*id).expect("a known group");
        assert_eq!(
            (start, end),
            (group.start, group.end()),
            "{context}, group {id}"
        );
        assert_eq!(read_all(wal, *id), group.batches, "{context}, group {id}");
    }
}

fn check_recovered(recovered: &duraft_storage::Recovered, model: &Model, context: &str) {
    assert_eq!(recovered.damage, None, "{context}");
    for (id, group) in model {
        let found = &recovered.groups[id];
        assert!(
            group.is(found),
            "{context}, group {id}: {found:#?}\n{group:#?}"
        );
    }
}

/// Some writes that fit a commit together.
pub(crate) fn draw_commit(
    rng: &mut SplitMix64,
    wal: &Wal,
    writers: &mut [Writer],
    model: &Model,
) -> (Vec<Submission>, Model) {
    let mut after = model.clone();
    let mut submissions = Vec::new();
    let mut room = wal.commit_bytes_fit();
    for _ in 0..1 + rng.below(3) {
        let writer = &mut writers[rng.below(model.len() as u64) as usize];
        let mut next = writer.clone();
        let submission = draw(rng, &mut next, &after[&writer.group]);
        let cost = submission.cost();
        let names =
            |other: &Submission| other.group == submission.group && other.write.snapshot.is_some();
        let twice = submission.write.snapshot.is_some() && submissions.iter().any(names);
        if cost > room && !submissions.is_empty() || twice {
            break;
        }
        room = room.saturating_sub(cost);
        *writer = next;
        after
            .get_mut(&submission.group)
            .expect("a group of the model")
            .apply(&submission.write);
        submissions.push(submission);
    }
    (submissions, after)
}

/// A run of one seed: random commits, receipts and reopens, each compared with the model.
pub(crate) fn run(seed: u64, options: &WalOptions, groups: &[GroupId], steps: usize) {
    let mut rng = SplitMix64::new(seed);
    let mut disk = disk();
    make(&disk, options, groups);
    let (mut wal, mut recovered) = reopen(&disk, options, seed).expect("a fresh store");
    let mut model = fresh_model(groups);
    let mut writers: Vec<Writer> = groups.iter().map(|group| Writer::new(*group)).collect();
    let mut generation = recovered.generation;
    for step in 0..steps {
        let context = format!("seed {seed}, step {step}");
        match rng.below(12) {
            0 => wal.receipt().expect("a working disk"),
            1 | 2 => {
                // Reopen after a kill, after a power loss that keeps only what was synced, or in order.
                let next: FaultDisk = match rng.below(3) {
                    0 => disk.process_crash(),
                    1 => disk.power_loss(Survival::Nothing),
                    _ => {
                        wal.close().expect("a working disk");
                        disk.process_crash()
                    }
                };
                disk = next;
                (wal, recovered) = reopen(&disk, options, rng.next())
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                assert!(recovered.generation > generation, "{context}");
                generation = recovered.generation;
                check_recovered(&recovered, &model, &context);
                writers = groups.iter().map(|group| Writer::new(*group)).collect();
            }
            _ => {
                let (submissions, after) = draw_commit(&mut rng, &wal, &mut writers, &model);
                wal.commit(&submissions)
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                model = after;
            }
        }
        check(&wal, &model, &context);
    }
}

#[test]
fn one_group_in_slots_of_one_block_equals_the_model() {
    // Every commit rotates: checkpoints, first-live bookkeeping and recycling carry everything.
    for seed in 0..60 {
        run(seed, &options(), &[GROUP], 120);
    }
}

#[test]
fn three_groups_in_small_slots_equal_the_model() {
    // Records of several groups share blocks; one group's compaction must not drop another's batches.
    let options = WalOptions {
        slot_bytes: 64 << 10,
        ..options()
    };
    for seed in 0..40 {
        run(
            seed,
            &options,
            &[GroupId(1), GroupId(2), GroupId(u64::MAX)],
            150,
        );
    }
}
