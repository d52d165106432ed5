//! What one commit may hold, what it proves of others, and what the log says of itself.

use crate::damage::{filled, lost, roomy, tail_file, zero_block};
use crate::support::*;
use duraft_core::{GroupId, Index, Position};
use duraft_disk::{Disk, DiskOp, Effect, Fault, FaultDisk, Survival};
use duraft_storage::{
    CommitTimes, PipelineEvent, Submission, Wal, WalError, WalOptions, WriteProblem,
};
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// A store with so many groups, opened, and a writer for each.
fn with_groups(count: u64, options: &WalOptions) -> (FaultDisk, Wal, Vec<Writer>) {
    let groups: Vec<GroupId> = (1..=count).map(GroupId).collect();
    let disk = disk();
    make(&disk, options, &groups);
    let (wal, _) = reopen(&disk, options, 2).expect("a fresh store opens");
    (disk, wal, groups.into_iter().map(Writer::new).collect())
}

#[test]
fn a_close_proves_the_last_commit() {
    let (disk, wal, _, _) = filled(5, &roomy());
    wal.close().expect("a working disk");
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 8);
    let damage = lost(&disk, &roomy());
    assert_eq!(damage.groups[&GROUP].missing, [(Index(5), Index(5))]);
}

/// Of so many groups that have each lost one entry: those whose loss is told exactly, and the others.
fn told_by_a_table(count: u64) -> (usize, usize) {
    let options = WalOptions {
        slot_bytes: 1 << 20,
        ..roomy()
    };
    let (disk, mut wal, mut writers) = with_groups(count, &options);
    disk.start_trace();
    let votes: Vec<_> = writers.iter_mut().map(|w| w.vote(1, None)).collect();
    wal.commit(&votes).expect("a working disk");
    wal.receipt().expect("a working disk");
    let appends = writers.iter_mut().map(|writer| {
        let next = batch(writer.group, &Position::START, 1, 1, 9, 0);
        writer.append(vec![next])
    });
    let appends: Vec<_> = appends.collect();
    wal.commit(&appends).expect("a working disk");
    let written = disk.trace();
    let lost_at = written.iter().rev().find(|op| op.op == DiskOp::Write);
    let lost_at = lost_at.expect("the commit").offset / 4096;
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, lost_at);
    let damage = lost(&disk, &options);
    let (exact, open): (Vec<_>, Vec<_>) = damage.groups.values().partition(|g| !g.lost_suffix);
    assert!(
        exact
            .iter()
            .all(|group| group.missing == [(Index(1), Index(1))])
    );
    (exact.len(), open.len())
}

#[test]
fn a_table_that_cannot_name_all_groups_says_so_and_clears_nobody() {
    // Taken for whole, it would say that whoever is not in it has lost nothing.
    assert_eq!(told_by_a_table(75), (70, 5));
}

#[test]
fn a_table_names_as_many_groups_as_a_block_holds() {
    assert_eq!(told_by_a_table(70), (70, 0));
}

#[test]
fn a_table_clears_the_groups_that_were_not_written() {
    let (disk, mut wal, mut writers) = with_groups(2, &roomy());
    disk.start_trace();
    let votes: Vec<_> = writers.iter_mut().map(|w| w.vote(1, None)).collect();
    wal.commit(&votes).expect("a working disk");
    wal.receipt().expect("a working disk");
    let next = batch(GroupId(1), &Position::START, 1, 1, 9, 0);
    wal.commit(&[writers[0].append(vec![next])])
        .expect("a working disk");
    wal.receipt().expect("a working disk");
    drop(wal);
    let file = tail_file(&disk);
    let disk = disk.power_loss(Survival::Nothing);
    zero_block(&disk, &file, 5);
    let damage = lost(&disk, &roomy());
    assert_eq!(damage.groups.keys().collect::<Vec<_>>(), [&GroupId(1)]);
}

#[test]
fn no_two_lives_of_slots_have_the_same_nonce() {
    // A block of an earlier life would be taken for one of this.
    let (mut disk, mut wal) = fresh(&options());
    let mut nonces = BTreeSet::new();
    for life in 0..6 {
        for name in disk.list("wal").expect("slots") {
            let mut bytes = [0; 16];
            let file = disk.open(&format!("wal/{name}")).expect("listed");
            file.read_at(&mut bytes, 0).expect("a working disk");
            if bytes.starts_with(b"DSG1") {
                let [_, _, _, _, a, b, c, d, seq @ ..] = bytes;
                nonces.insert((u64::from_le_bytes(seq), [a, b, c, d]));
            }
        }
        drop(wal);
        disk = disk.power_loss(Survival::Nothing);
        (wal, _) = reopen(&disk, &options(), 50 + life).expect("a healthy store");
    }
    let distinct: BTreeSet<_> = nonces.iter().map(|(_, nonce)| nonce).collect();
    assert!(
        nonces.len() > 5 && distinct.len() == nonces.len(),
        "{nonces:?}"
    );
}

#[test]
fn a_commit_is_refused_above_what_fits_beside_the_checkpoint_of_every_group() {
    // It would have no place in a new segment.
    let (_disk, mut wal, mut writers) = with_groups(3, &roomy());
    let fit = wal.commit_bytes_fit();
    assert_eq!(fit, roomy().write_bytes_max(3));
    let votes: Vec<_> = writers.iter_mut().map(|w| w.vote(1, None)).collect();
    wal.commit(&votes).expect("a working disk");
    let mut end = Position::START;
    let mut commit = |bytes: u64| {
        // A descriptor, and the offset of the only command.
        let len = usize::try_from(bytes - 64 - 4).expect("a small batch");
        let next = batch(GroupId(1), &end, 1, 1, len, 0);
        let position = next.header.position();
        let mut writer = writers[0].clone();
        let done = wal.commit(&[writer.append(vec![next])]);
        if done.is_ok() {
            (writers[0], end) = (writer, position);
        }
        done
    };
    let most = fit / 8 * 8;
    commit(most).expect("as much as fits");
    commit(most).expect("in a segment of its own");
    let refused = commit(most + 8);
    let (bytes, max) = (most + 8, fit);
    assert_eq!(refused, Err(WalError::TooLarge { bytes, max }));
}

/// So many empty batches in one write.
fn noops(writer: &mut Writer, end: &mut Position, count: usize) -> Submission {
    let batches = (0..count).map(|_| {
        let next = noop(writer.group, end, 1);
        *end = next.header.position();
        next
    });
    let batches = batches.collect();
    writer.append(batches)
}

#[test]
fn a_commit_has_as_many_records_as_a_block_can_count() {
    let options = WalOptions {
        slot_bytes: 16 << 20,
        commit_bytes_max: 8 << 20,
        ..options()
    };
    let (_disk, mut wal) = fresh(&options);
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a working disk");
    // A new segment needs a checkpoint's records beside them, and the next block an echo.
    let most = usize::from(u16::MAX) - 4;
    let over = noops(&mut writer.clone(), &mut Position::START.clone(), most + 1);
    let refused = wal.commit(&[over]);
    assert!(
        matches!(refused, Err(WalError::TooLarge { .. })),
        "{refused:?}"
    );
    let mut end = Position::START;
    let mut queue = VecDeque::from([
        noops(&mut writer, &mut end, most - 2),
        noops(&mut writer, &mut end, 2),
        noops(&mut writer, &mut end, 1),
        noops(&mut writer, &mut end, 2),
    ]);
    let mut pipeline = wal.into_pipeline();
    let mut events = Vec::new();
    pipeline.turn(0, &mut queue, &mut events);
    assert_eq!(queue.len(), 2, "{events:?}");
    pipeline.turn(1, &mut queue, &mut events);
    assert_eq!(queue.len(), 0);
    assert_eq!(pipeline.stats().writes, 5);
}

#[test]
fn a_turn_takes_exactly_what_a_commit_may_hold() {
    let mut measured = Writer::new(GROUP);
    let cost = measured.vote(1, None).cost();
    for (max, taken) in [(3 * cost, 3), (3 * cost - 1, 2), (1, 1)] {
        let options = WalOptions {
            commit_bytes_max: max,
            ..roomy()
        };
        let (_disk, wal) = fresh(&options);
        let mut pipeline = wal.into_pipeline();
        let mut writer = Writer::new(GROUP);
        let mut queue: VecDeque<_> = (1..=5).map(|term| writer.vote(term, None)).collect();
        let mut events = Vec::new();
        pipeline.turn(0, &mut queue, &mut events);
        assert_eq!(queue.len(), 5 - taken, "{max}");
    }
}

#[test]
fn one_commit_names_one_snapshot_of_a_group() {
    // A lost block sets a group back by one snapshot only: the file before the latest one is kept.
    let (_disk, mut wal, mut writer, batches) = filled(3, &roomy());
    let at = |index: usize| batches[index].header.position();
    let twice = [writer.clone().compact(at(0)), {
        let mut next = writer.clone();
        next.compact(at(0));
        next.compact(at(1))
    }];
    assert!(matches!(
        wal.commit(&twice),
        Err(WalError::Invalid {
            problem: WriteProblem::SnapshotTwice { .. },
            ..
        })
    ));
    let mut queue = VecDeque::from([
        writer.compact(at(0)),
        writer.vote(2, None),
        writer.compact(at(1)),
    ]);
    let mut pipeline = wal.into_pipeline();
    let mut events = Vec::new();
    pipeline.turn(0, &mut queue, &mut events);
    assert_eq!(queue.len(), 1, "{events:?}");
    pipeline.turn(0, &mut queue, &mut events);
    assert_eq!((queue.len(), pipeline.has_failed()), (0, false));
}

#[test]
fn a_full_log_is_left_by_the_compaction_that_frees_it() {
    // Even where votes have taken what was left for them: the segment that frees others may have the
    // last slot.
    let options = WalOptions {
        slots_max: 8,
        ..options()
    };
    for reset in [false, true] {
        let (_disk, mut wal) = fresh(&options);
        let mut writer = Writer::new(GROUP);
        wal.commit(&[writer.vote(1, Some(1))])
            .expect("a working disk");
        let mut end = Position::START;
        loop {
            let next = batch(GROUP, &end, 1, 1, 400, 1);
            let position = next.header.position();
            let mut tried = writer.clone();
            match wal.commit(&[tried.append(vec![next])]) {
                Ok(()) => (writer, end) = (tried, position),
                Err(error) => break assert_eq!(error, WalError::StorageFull),
            }
        }
        loop {
            let mut tried = writer.clone();
            let term = u64::from(u32::MAX) + writer.seq.0;
            match wal.commit(&[tried.vote(term, None)]) {
                Ok(()) => writer = tried,
                Err(error) => break assert_eq!(error, WalError::StorageFull),
            }
        }
        let mut freeing = writer.compact(end);
        if reset {
            freeing.write.compact = None;
            let snapshot = freeing.write.snapshot.as_mut().expect("a snapshot");
            snapshot.reset = true;
        }
        wal.commit(&[freeing]).expect("it frees more than it takes");
        for _ in 0..20 {
            let before = end;
            let next = batch(GROUP, &before, 1, 1, 400, 1);
            end = next.header.position();
            let mut both = writer.append(vec![next]);
            both.write.snapshot = Some(taken(before));
            both.write.compact = Some(before);
            wal.commit(&[both]).expect("each frees the one before");
        }
    }
}

#[test]
fn the_smallest_pool_goes_round() {
    // What the last commit freed rests until that is proven: where nothing else is left, it is proven.
    let options = WalOptions {
        slots_max: 4,
        ..options()
    };
    let (_disk, mut wal) = fresh(&options);
    let mut writer = Writer::new(GROUP);
    let mut end = Position::START;
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a working disk");
    for round in 0..30 {
        let before = end;
        let next = batch(GROUP, &before, 1, 1, 400, 1);
        end = next.header.position();
        let mut both = writer.append(vec![next]);
        if round > 0 {
            both.write.snapshot = Some(taken(before));
            both.write.compact = Some(before);
        }
        wal.commit(&[both])
            .unwrap_or_else(|error| panic!("{round}: {error}: {:?}", wal.pool_stats()));
    }
    assert_eq!(wal.pool_stats().total, 4);
}

static TICKS: AtomicU64 = AtomicU64::new(0);

/// A clock that goes on by one second whenever somebody looks.
fn clock() -> Duration {
    Duration::from_secs(TICKS.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn who_watches_is_told_how_long_each_commit_took_and_nothing_of_receipts() {
    // In slots of one block every commit begins a segment, in larger ones it goes behind the last.
    watched(&options());
    watched(&roomy());
}

fn watched(options: &WalOptions) {
    let (_disk, mut wal) = fresh(options);
    let (tell, told) = mpsc::channel();
    wal.watch_commits(clock, move |times| tell.send(times).expect("heard"));
    let mut writer = Writer::new(GROUP);
    let second = Duration::from_secs(1);
    let times = CommitTimes {
        encode: second,
        write: second,
        sync: second,
    };
    for term in 1..6 {
        wal.commit(&[writer.vote(term, None)])
            .expect("a working disk");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [times]);
        wal.receipt().expect("a working disk");
        assert_eq!(told.try_iter().count(), 0);
    }
    assert_eq!(wal.stats().rotations > 0, options.slot_bytes == 16 << 10);
}

#[test]
fn a_log_says_what_it_did() {
    let (disk, wal) = fresh(&roomy());
    drop(wal);
    let (mut wal, _) = reopen(&disk, &roomy(), 3).expect("a healthy store");
    assert_eq!(wal.options().slot_bytes, roomy().slot_bytes);
    let (before, pool) = (wal.stats(), wal.pool_stats());
    assert!(pool.total > 2);
    let mut writer = Writer::new(GROUP);
    disk.start_trace();
    let first = writer.vote(1, None);
    let cost = first.cost();
    wal.commit(&[first, writer.vote(2, None)])
        .expect("a working disk");
    wal.commit(&[writer.vote(3, None)]).expect("a working disk");
    wal.receipt().expect("a working disk");
    let written: u64 = disk.trace().iter().map(|op| op.len).sum();
    let stats = wal.stats();
    assert_eq!(stats.commits - before.commits, 2);
    assert_eq!(stats.writes - before.writes, 3);
    assert_eq!(stats.record_bytes - before.record_bytes, 3 * cost);
    assert_eq!(stats.fsyncs - before.fsyncs, 3);
    assert_eq!(stats.bytes_written - before.bytes_written, written);
    assert_eq!(stats.receipts - before.receipts, 1);
    let generation = wal.generation();
    let mut pipeline = wal.into_pipeline();
    assert_eq!(pipeline.generation(), generation);
    assert_eq!(pipeline.pool_stats().total, pool.total);
    assert_eq!(pipeline.stats(), stats);
    assert!(!pipeline.is_low() && !pipeline.has_failed());
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData));
    let mut events = Vec::new();
    pipeline.turn(9, &mut VecDeque::from([writer.vote(4, None)]), &mut events);
    assert!(matches!(&events[..], [PipelineEvent::Failed { .. }]));
    assert!(pipeline.has_failed());
}

#[test]
fn a_log_that_has_failed_wants_and_writes_no_receipt() {
    let (_disk, mut wal) = fresh(&options());
    let mut writer = Writer::new(GROUP);
    let first = wal.commit(&[writer.vote(1, Some(1))]);
    first.expect("a working disk");
    let mut pipeline = wal.into_pipeline();
    assert!(pipeline.wants_turn_at().is_some());
    // A write is missing before this one, so it is refused. The disk is well.
    writer.vote(2, None);
    let mut queue = VecDeque::from([writer.vote(3, None)]);
    let mut events = Vec::new();
    pipeline.turn(1, &mut queue, &mut events);
    assert!(pipeline.has_failed());
    let before = pipeline.stats();
    assert_eq!(pipeline.wants_turn_at(), None);
    pipeline.turn(u64::MAX, &mut queue, &mut events);
    assert_eq!(pipeline.stats(), before);
}

#[test]
fn a_pipeline_without_a_slot_is_low_until_it_has_one() {
    let (disk, wal) = fresh(&options());
    disk.inject(Fault::new(Effect::NoSpace).on(DiskOp::FillZero).forever());
    let mut pipeline = wal.into_pipeline();
    let mut writer = Writer::new(GROUP);
    let mut events = Vec::new();
    let mut queue = VecDeque::new();
    let mut end = Position::START;
    queue.push_back(writer.vote(1, None));
    for turn in 1..20 {
        let next = batch(GROUP, &end, 1, 1, 400, 1);
        end = next.header.position();
        queue.push_back(writer.append(vec![next]));
        pipeline.turn(turn, &mut queue, &mut events);
        if !queue.is_empty() {
            break;
        }
        assert!(!pipeline.is_low());
    }
    assert!(pipeline.is_low());
    assert_eq!(events.pop(), Some(PipelineEvent::StorageLow));
    disk.heal();
    pipeline.turn(99, &mut queue, &mut events);
    assert!(queue.is_empty() && !pipeline.is_low());
}
