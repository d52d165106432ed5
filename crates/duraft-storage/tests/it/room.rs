//! Slots come back: however long a log lives, its disk holds what is live and little more.

use crate::support::*;
use duraft_core::{Batch, HardState, Index, NodeId, Position, Term, Write};
use duraft_disk::{FaultDisk, SplitMix64, Survival};
use duraft_storage::{Wal, WalOptions};

fn small() -> WalOptions {
    WalOptions {
        slot_bytes: 32 << 10,
        slots_ready_min: 2,
        slots_max: 4096,
        ..options()
    }
}

/// Bytes of slots on the disk, in slots.
fn slots(wal: &Wal) -> usize {
    wal.pool_stats().total
}

/// A log that keeps some entries behind its snapshots.
struct Life {
    disk: FaultDisk,
    wal: Wal,
    writer: Writer,
    /// Boundaries of the log, the oldest first.
    ends: Vec<Position>,
    term: u64,
}

impl Life {
    fn begin() -> Life {
        let (disk, wal) = fresh(&small());
        Life {
            disk,
            wal,
            writer: Writer::new(GROUP),
            ends: vec![Position::START],
            term: 0,
        }
    }

    fn end(&self) -> Position {
        *self.ends.last().expect("at least the start")
    }

    fn commit(&mut self, fill: impl FnOnce(Write) -> Write) {
        let write = fill(self.writer.write());
        let submission = self.writer.submit(write);
        self.wal.commit(&[submission]).expect("there is room");
        let mut preparer = self.wal.preparer();
        while preparer.turn().expect("there is room") {}
    }

    fn append(&mut self, len: usize) {
        let next = batch(GROUP, &self.end(), self.term, 1, len, 1);
        self.ends.push(next.header.position());
        self.commit(|write| Write {
            append: vec![next],
            ..write
        });
    }

    fn later_term(&mut self) {
        self.term += 1;
        let hard_state = HardState {
            term: Term(self.term),
            vote: Some(NodeId(1)),
        };
        self.commit(|write| Write {
            hard_state: Some(hard_state),
            ..write
        });
    }

    /// A snapshot of everything, and a log that keeps the last `trailing` batches.
    fn take(&mut self, trailing: usize) {
        let (at, keep) = (self.end(), self.ends.len().saturating_sub(1 + trailing));
        let upto = self.ends[keep];
        self.ends.drain(..keep);
        self.commit(|write| Write {
            snapshot: Some(taken(at)),
            compact: Some(upto),
            ..write
        });
    }

    fn next(&mut self, survival: Survival<'_>, seed: u64) {
        self.disk = self.disk.power_loss(survival);
        let (wal, recovered) = reopen(&self.disk, &small(), seed).expect("healthy");
        assert_eq!(recovered.damage, None);
        (self.wal, self.writer) = (wal, Writer::new(GROUP));
    }
}

#[test]
fn a_log_that_is_compacted_for_ever_stays_as_small_as_it_is() {
    // Slots that never come back fill the disk some day, years after the tests.
    let mut life = Life::begin();
    let mut rng = SplitMix64::new(7);
    life.later_term();
    let (mut most, mut early, mut rotations) = (0, 0, 0);
    for round in 0..600u64 {
        for _ in 0..40 {
            life.append(100 + usize::try_from(rng.below(400)).expect("small"));
        }
        if round % 7 == 0 {
            life.later_term();
        }
        life.take(30);
        most = most.max(slots(&life.wal));
        if round % 50 == 49 {
            rotations += life.wal.stats().rotations;
            life.next(Survival::Drawn(round), round);
        }
        if round == 60 {
            early = most;
        }
    }
    // A commit is a block of 4 KiB, a slot holds five: 70 commits live in 14 slots, and a few more
    // rest, are ready, or were made by the last open.
    assert!(rotations > 4_000, "{rotations}");
    assert!(most <= 24, "{most} slots");
    assert!(most <= early + 2, "{most} slots, {early} after a tenth");
}

#[test]
fn snapshots_in_the_place_of_the_log_free_it() {
    let mut life = Life::begin();
    life.later_term();
    let mut most = 0;
    for round in 0..200u64 {
        for _ in 0..20 {
            life.append(200);
        }
        let mut at = life.end();
        at.id.index = at.id.index.next();
        let mut snapshot = taken(at);
        snapshot.reset = true;
        life.ends = vec![at];
        life.commit(|write| Write {
            snapshot: Some(snapshot),
            ..write
        });
        most = most.max(slots(&life.wal));
        if round % 20 == 19 {
            life.next(Survival::Nothing, round);
        }
    }
    assert!(most <= 12, "{most} slots");
}

#[test]
fn segments_that_only_an_old_batch_keeps_are_absorbed_by_the_next_open() {
    // A node that only votes never compacts: one old batch holds every segment after it.
    let mut life = Life::begin();
    life.later_term();
    life.append(100);
    for _ in 0..200 {
        life.later_term();
    }
    assert!(slots(&life.wal) > 30, "{}", slots(&life.wal));
    life.next(Survival::Nothing, 1);
    assert_eq!(read_all(&life.wal, GROUP).len(), 1);
    let before = slots(&life.wal);
    for _ in 0..100 {
        life.later_term();
    }
    assert_eq!(slots(&life.wal), before, "old slots are used again");
}

#[test]
fn a_read_counts_what_it_returns_and_not_how_that_is_padded_on_disk() {
    // Who asks for batches that cost so much together gets them all: a page of headers is of no use
    // without its last one.
    let (_, mut wal) = fresh(&options());
    let mut writer = Writer::new(GROUP);
    let mut end = Position::START;
    let batches: Vec<Batch> = (1..=5)
        .map(|len| {
            let next = batch(GROUP, &end, 1, 1, len, 3);
            end = next.header.position();
            next
        })
        .collect();
    let cost: u64 = batches.iter().map(Batch::cost).sum();
    assert!(batches.iter().any(|batch| batch.body.len() % 8 != 0));
    let vote = writer.vote(1, Some(1));
    wal.commit(&[vote, writer.append(batches)])
        .expect("a whole disk");
    let read = |bytes_max| {
        let read = wal.reader().read(GROUP, Index(1), Index(5), bytes_max);
        read.expect("stored batches").len()
    };
    assert_eq!((read(cost), read(cost - 1), read(0)), (5, 4, 1));
}
