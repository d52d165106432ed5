//! The store against a naive model: vectors of batches, and nothing that could be clever.

use crate::support::*;
use duraft_core::{Batch, GroupId, HardState, Position, Term, Write};
use duraft_disk::{FaultDisk, SplitMix64, Survival};
use duraft_storage::{Submission, Wal, WalOptions};
use std::collections::BTreeMap;

/// What a group must hold.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct ModelGroup {
    pub(crate) hard_state: HardState,
    pub(crate) start: Position,
    pub(crate) batches: Vec<Batch>,
}

impl ModelGroup {
    pub(crate) fn end(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, |batch| batch.header.position())
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        if let Some(state) = write.hard_state {
            self.hard_state = state;
        }
        if let Some(keep) = write.truncate {
            self.batches
                .retain(|batch| batch.header.last() <= keep.index());
        }
        self.batches.extend(write.append.iter().cloned());
        if let Some(upto) = write.compact {
            self.batches
                .retain(|batch| batch.header.last() > upto.index());
            self.start = upto;
        }
    }
}

pub(crate) type Model = BTreeMap<GroupId, ModelGroup>;

pub(crate) fn fresh_model(groups: &[GroupId]) -> Model {
    let group = ModelGroup {
        hard_state: HardState::default(),
        start: Position::START,
        batches: Vec::new(),
    };
    groups.iter().map(|id| (*id, group.clone())).collect()
}

/// Some write that the group's log allows.
pub(crate) fn draw(rng: &mut SplitMix64, writer: &mut Writer, state: &ModelGroup) -> Submission {
    let mut write = writer.write();
    let mut term = state.hard_state.term.0;
    if rng.below(4) == 0 || term == 0 {
        term += 1;
        let vote = (rng.below(2) == 0).then_some(duraft_core::NodeId(rng.below(3)));
        write.hard_state = Some(HardState {
            term: Term(term),
            vote,
        });
    }
    let mut end = state.end();
    if rng.below(6) == 0 && !state.batches.is_empty() {
        let keep = rng.below(state.batches.len() as u64 + 1) as usize;
        end = match keep.checked_sub(1) {
            Some(last) => state.batches[last].header.position(),
            None => state.start,
        };
        write.truncate = Some(end);
    }
    for _ in 0..rng.below(3) {
        let (count, len) = (1 + rng.below(3) as usize, rng.below(120) as usize);
        let batch = if rng.below(5) == 0 {
            noop(writer.group, &end, term)
        } else {
            batch(writer.group, &end, term, count, len, rng.below(256) as u8)
        };
        end = batch.header.position();
        write.append.push(batch);
    }
    if rng.below(4) == 0 {
        let mut after = state.clone();
        after.apply(&write);
        if !after.batches.is_empty() {
            let upto = rng.below(after.batches.len() as u64) as usize;
            write.compact = Some(after.batches[upto].header.position());
        }
    }
    writer.submit(write)
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
        assert_eq!(found.hard_state, group.hard_state, "{context}, group {id}");
        assert_eq!(found.start, group.start, "{context}, group {id}");
        let headers: Vec<_> = group.batches.iter().map(|batch| batch.header).collect();
        assert_eq!(found.batches, headers, "{context}, group {id}");
    }
}

/// A run of one seed: random commits, receipts and reopens, each compared with the model.
fn run(seed: u64, options: &WalOptions, groups: &[GroupId], steps: usize) {
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
                let mut after = model.clone();
                let mut submissions = Vec::new();
                for _ in 0..1 + rng.below(3) {
                    let writer = &mut writers[rng.below(groups.len() as u64) as usize];
                    let submission = draw(&mut rng, writer, &after[&writer.group]);
                    after
                        .get_mut(&submission.group)
                        .unwrap()
                        .apply(&submission.write);
                    submissions.push(submission);
                }
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
