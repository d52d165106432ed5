//! One life of a log: what it does to the disk, what it refuses, how it ends.

use crate::support::*;
use duraft_core::{Batch, GroupId, Index, Position, SnapshotWrite, Term, WriteSeq};
use duraft_disk::{CacheAfter, DiskOp, Effect, Fault, FaultDisk, FaultOptions, Survival};
use duraft_storage::{
    Durable, OpenError, Pipeline, PipelineEvent, ReadError, Submission, Wal, WalError, WalOptions,
    WriteProblem,
};
use std::collections::VecDeque;

fn roomy() -> WalOptions {
    WalOptions {
        slot_bytes: 1 << 20,
        mark_every_commits: 8,
        ..options()
    }
}

fn voted(wal: &mut Wal) -> Writer {
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a working disk");
    writer
}

/// `count` appends of one batch each.
fn appends(writer: &mut Writer, end: &mut Position, count: usize) -> Vec<Submission> {
    (0..count)
        .map(|i| {
            let next = batch(GROUP, end, 1, 2, 30, i as u8);
            *end = next.header.position();
            writer.append(vec![next])
        })
        .collect()
}

/// Writes and syncs of slots since tracing began.
fn calls(disk: &FaultDisk) -> (usize, usize) {
    let count = |op| disk.trace().iter().filter(|entry| entry.op == op).count();
    let all = disk.trace().len();
    let (writes, syncs) = (count(DiskOp::Write), count(DiskOp::SyncData));
    assert_eq!(
        writes + syncs,
        all,
        "nothing but writes and syncs: {:?}",
        disk.trace()
    );
    (writes, syncs)
}

#[test]
pub(crate) fn a_group_commit_is_one_write_and_one_sync_and_marks_ride_along() {
    // More flushes per commit are what makes a log slow; fewer, what makes it lose data.
    let (disk, mut wal) = fresh(&roomy());
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    let commits = 40;
    disk.start_trace();
    let before = wal.stats();
    for _ in 0..commits {
        let submissions = appends(&mut writer, &mut end, 7);
        wal.commit(&submissions).expect("a working disk");
    }
    let marks = (wal.stats().marks - before.marks) as usize;
    assert_eq!(calls(&disk), (commits + marks, commits));
    assert_eq!(marks, commits / 8);
    disk.start_trace();
    wal.receipt().expect("a working disk");
    assert_eq!(calls(&disk), (2, 1), "block and mark in one sync");
    wal.receipt().expect("nothing to do");
    assert_eq!(calls(&disk), (2, 1), "a proven log needs no receipt");
}

#[test]
fn a_rotation_costs_no_call_more_than_a_commit() {
    let (disk, mut wal) = fresh(&options());
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    let mut preparer = wal.preparer();
    while preparer.turn().expect("room") {}
    for _ in 0..20 {
        let submissions = appends(&mut writer, &mut end, 1);
        let slots = wal.stats().slots_made_late;
        disk.start_trace();
        wal.commit(&submissions).expect("a working disk");
        assert_eq!(calls(&disk), (1, 1));
        assert_eq!(wal.stats().slots_made_late, slots);
        let compact = writer.compact(end);
        wal.commit(&[compact]).expect("a working disk");
        while preparer.turn().expect("room") {}
    }
    assert!(
        wal.pool_stats().total < 12,
        "slots are used again: {:?}",
        wal.pool_stats()
    );
}

#[test]
pub(crate) fn a_failed_sync_poisons_the_log_for_good_and_reopening_recovers_every_acknowledged_write()
 {
    // A sync that fails once and succeeds when tried again is how databases lost data.
    for cache in [CacheAfter::OldContent, CacheAfter::NewContent] {
        for landed in [None, Some(1), Some(2)] {
            let (disk, mut wal) = fresh(&roomy());
            let mut writer = voted(&mut wal);
            let mut end = Position::START;
            let acked = appends(&mut writer, &mut end, 3);
            wal.commit(&acked).expect("a working disk");
            let effect = Effect::SyncFails { cache, landed };
            disk.inject(Fault::new(effect).on(DiskOp::SyncData));
            let lost = appends(&mut writer, &mut end, 1);
            assert!(matches!(wal.commit(&lost), Err(WalError::Poisoned(_))));
            disk.heal();
            disk.start_trace();
            assert!(matches!(wal.commit(&lost), Err(WalError::Poisoned(_))));
            assert!(matches!(wal.receipt(), Err(WalError::Poisoned(_))));
            assert_eq!(calls(&disk), (0, 0), "a poisoned log touches nothing");
            let bounds = wal.reader().bounds(GROUP).expect("a known group");
            assert_eq!(bounds.1.index(), Index(6), "readers see what is durable");
            drop(wal);
            // Whatever the cache shows of the failed commit, it is either in the log for good or not.
            let killed = disk.process_crash();
            let (wal, recovered) = reopen(&killed, &roomy(), 5).expect("a healthy store");
            let found = recovered.groups[&GROUP].batches.len();
            assert!((3..=4).contains(&found), "{found}");
            drop(wal);
            let cut = killed.power_loss(Survival::Nothing);
            let (_, again) = reopen(&cut, &roomy(), 6).expect("a healthy store");
            assert_eq!(
                again.groups[&GROUP].batches.len(),
                found,
                "{cache:?} {landed:?}"
            );
        }
    }
}

#[test]
fn any_failing_write_poisons() {
    for effect in [
        Effect::Io,
        Effect::NoSpace,
        Effect::ShortWrite { bytes: 100 },
    ] {
        let (disk, mut wal) = fresh(&roomy());
        let mut writer = voted(&mut wal);
        disk.inject(Fault::new(effect).on(DiskOp::Write));
        let commit = wal.commit(&[writer.vote(2, None)]);
        assert!(
            matches!(commit, Err(WalError::Poisoned(_))),
            "{effect:?}: {commit:?}"
        );
        assert_eq!(wal.poisoned().map(|poison| poison.op), Some(DiskOp::Write));
    }
}

#[test]
pub(crate) fn a_pipeline_reports_once_per_group_and_falls_silent_after_a_failure() {
    let groups = [GroupId(1), GroupId(2)];
    let disk = disk();
    make(&disk, &roomy(), &groups);
    let (wal, recovered) = reopen(&disk, &roomy(), 2).expect("a fresh store");
    let mut pipeline = Pipeline::new(wal, roomy());
    let mut writers = groups.map(Writer::new);
    let mut queue: VecDeque<Submission> = VecDeque::new();
    let mut events = Vec::new();
    for term in 1..=3 {
        queue.extend(writers.iter_mut().map(|writer| writer.vote(term, None)));
    }
    pipeline.turn(1, &mut queue, &mut events);
    let generation = recovered.generation;
    let durable = |group| {
        PipelineEvent::Durable(Durable {
            generation,
            group,
            upto: WriteSeq(3),
        })
    };
    assert_eq!(events, groups.map(durable));
    assert!(queue.is_empty());
    events.clear();
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData));
    for term in 4..6 {
        queue.push_back(writers[0].vote(term, None));
        pipeline.turn(2, &mut queue, &mut events);
        let failed = events
            .drain(..)
            .all(|e| matches!(e, PipelineEvent::Failed { .. }));
        assert!(failed && queue.is_empty(), "no Durable after a failure");
    }
    disk.start_trace();
    pipeline.turn(100, &mut queue, &mut events);
    assert_eq!(
        (calls(&disk), events),
        ((0, 0), Vec::new()),
        "not even a receipt"
    );
}

#[test]
fn a_pipeline_writes_a_receipt_after_idle_ticks_and_only_one() {
    let (disk, mut wal) = fresh(&WalOptions {
        receipt_idle_ticks: 3,
        ..roomy()
    });
    let mut writer = voted(&mut wal);
    let mut pipeline = wal.into_pipeline();
    let mut queue = VecDeque::from([writer.vote(2, None)]);
    let mut events = Vec::new();
    pipeline.turn(10, &mut queue, &mut events);
    assert_eq!(pipeline.wants_turn_at(), Some(13));
    for now in 11..20 {
        pipeline.turn(now, &mut queue, &mut events);
        assert_eq!(
            pipeline.stats().receipts,
            u64::from(now >= 13),
            "tick {now}"
        );
    }
    assert_eq!(pipeline.wants_turn_at(), None);
    drop(disk);
}

#[test]
pub(crate) fn a_turn_takes_as_much_as_a_commit_may_hold_and_at_least_one_write() {
    let options = WalOptions {
        commit_bytes_max: 500,
        ..roomy()
    };
    let (_disk, mut wal) = fresh(&options);
    let mut writer = voted(&mut wal);
    let mut pipeline = wal.into_pipeline();
    let mut end = Position::START;
    let mut queue: VecDeque<Submission> = appends(&mut writer, &mut end, 10).into();
    let cost = queue[0].cost();
    let per_turn = (500 / cost) as usize;
    let mut events = Vec::new();
    pipeline.turn(0, &mut queue, &mut events);
    assert_eq!(queue.len(), 10 - per_turn);
    queue.clear();
    let (_disk, mut wal) = fresh(&options);
    let mut writer = voted(&mut wal);
    let mut pipeline = wal.into_pipeline();
    let large = batch(GROUP, &Position::START, 1, 1, 900, 0);
    queue.push_back(writer.append(vec![large]));
    pipeline.turn(0, &mut queue, &mut events);
    assert!(queue.is_empty(), "a limit never refuses the first");
}

#[test]
fn a_full_disk_stops_appends_but_not_votes_and_compaction_makes_room() {
    // A node that cannot vote or compact because its disk is full never gets out of it.
    let options = WalOptions {
        slots_max: 8,
        ..options()
    };
    let (disk, mut wal) = fresh(&options);
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    let refused = loop {
        let mut next = writer.clone();
        let submissions = appends(&mut next, &mut end.clone(), 1);
        match wal.commit(&submissions) {
            Ok(()) => {
                writer = next;
                end = submissions[0].write.append[0].header.position();
            }
            Err(error) => break error,
        }
    };
    assert_eq!(refused, WalError::StorageFull);
    assert_eq!(wal.poisoned(), None);
    wal.commit(&[writer.vote(2, Some(1))])
        .expect("votes have a slot");
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let (mut wal, recovered) = reopen(&disk, &options, 4).expect("opens have a slot");
    assert_eq!(recovered.groups[&GROUP].hard_state.term, Term(2));
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.compact(end)])
        .expect("compaction has a slot");
    for _ in 0..20 {
        let submissions = appends(&mut writer, &mut end, 1);
        wal.commit(&submissions).expect("room again");
        wal.commit(&[writer.compact(end)]).expect("room again");
    }
}

#[test]
fn no_space_for_new_slots_is_no_failure_while_ready_ones_last() {
    let (disk, mut wal) = fresh(&options());
    let mut writer = voted(&mut wal);
    let mut preparer = wal.preparer();
    while preparer.turn().expect("room") {}
    disk.inject(Fault::new(Effect::NoSpace).on(DiskOp::FillZero).forever());
    let mut pipeline = wal.into_pipeline();
    let mut end = Position::START;
    let mut events = Vec::new();
    let mut queue: VecDeque<Submission> = appends(&mut writer, &mut end, 12).into();
    let mut turns = 0;
    while !queue.is_empty() && turns < 30 {
        // One write per turn, and a preparer that tries and fails.
        let mut one: VecDeque<Submission> = queue.pop_front().into_iter().collect();
        pipeline.turn(turns, &mut one, &mut events);
        one.into_iter()
            .rev()
            .for_each(|left| queue.push_front(left));
        let _ = preparer.turn();
        turns += 1;
    }
    assert!(!queue.is_empty(), "slots ran out");
    let low = events
        .iter()
        .filter(|e| matches!(e, PipelineEvent::StorageLow))
        .count();
    assert_eq!(low, 1, "said once");
    assert!(!pipeline.has_failed());
    disk.heal();
    while !queue.is_empty() {
        pipeline.turn(turns, &mut queue, &mut events);
    }
}

#[test]
fn a_snapshot_may_be_older_than_the_one_before_while_the_log_stays() {
    // The latest one could not be read, so the node started from the log and takes the next one early.
    let (disk, mut wal) = fresh(&roomy());
    let mut writer = voted(&mut wal);
    let first = batch(GROUP, &Position::START, 1, 3, 10, 1);
    let second = batch(GROUP, &first.header.position(), 1, 3, 10, 2);
    let (early, late) = (first.header.position(), second.header.position());
    let take = |wal: &mut Wal, writer: &mut Writer, snapshot: SnapshotWrite| {
        let mut submission = writer.append(Vec::new());
        submission.write.snapshot = Some(snapshot);
        wal.commit(&[submission])
    };
    let added = writer.append(vec![first, second]);
    wal.commit(&[added]).expect("a working disk");
    take(&mut wal, &mut writer, taken(late)).expect("of the end");
    let replaced = SnapshotWrite {
        reset: true,
        ..taken(early)
    };
    let refused = take(&mut wal, &mut writer.clone(), replaced);
    let at = early;
    let problem = WriteProblem::Snapshot { at };
    assert_eq!(
        refused,
        Err(WalError::Invalid {
            group: GROUP,
            problem
        })
    );
    take(&mut wal, &mut writer, taken(early)).expect("of what the log still follows on");
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let (_, recovered) = reopen(&disk, &roomy(), 1).expect("healthy");
    let found = &recovered.groups[&GROUP];
    assert_eq!(recovered.damage, None);
    assert_eq!(found.snapshot, Some(taken(early).snapshot));
    assert_eq!(found.batches.len(), 2);
}

#[test]
fn writes_that_break_the_rules_are_refused_with_nothing_written() {
    let (disk, mut wal) = fresh(&roomy());
    let mut writer = voted(&mut wal);
    let first = batch(GROUP, &Position::START, 1, 3, 10, 1);
    wal.commit(&[writer.append(vec![first.clone()])])
        .expect("a working disk");
    let end = first.header.position();
    let start = Position::START;
    let inside = Position {
        id: duraft_core::LogId {
            term: Term(1),
            index: Index(2),
        },
        ..end
    };
    let other = Position {
        digest: duraft_core::Digest(7),
        ..end
    };
    let mut bent = batch(GROUP, &end, 1, 1, 10, 2);
    bent.body = bent.body.slice(1..);
    let mut empty = batch(GROUP, &end, 1, 1, 10, 2);
    empty.header.count = 0;
    type Refusal<'a> = (&'a str, Submission, fn(&WriteProblem) -> bool);
    let refusals: Vec<Refusal<'_>> = vec![
        (
            "gap in numbers",
            {
                let mut w = writer.clone();
                w.write();
                w.vote(2, None)
            },
            |p| matches!(p, WriteProblem::Sequence { .. }),
        ),
        ("term back", writer.clone().vote(0, None), |p| {
            matches!(p, WriteProblem::HardState { .. })
        }),
        ("other vote", writer.clone().vote(1, Some(2)), |p| {
            matches!(p, WriteProblem::HardState { .. })
        }),
        ("vote withdrawn", writer.clone().vote(1, None), |p| {
            matches!(p, WriteProblem::HardState { .. })
        }),
        ("cut inside a batch", writer.clone().truncate(inside), |p| {
            matches!(p, WriteProblem::Truncate { .. })
        }),
        (
            "cut at other content",
            writer.clone().truncate(other),
            |p| matches!(p, WriteProblem::Truncate { .. }),
        ),
        (
            "compact inside a batch",
            {
                let mut submission = writer.clone().compact(end);
                submission.write.compact = Some(inside);
                submission
            },
            |p| matches!(p, WriteProblem::Compact { .. }),
        ),
        (
            "snapshot inside a batch",
            writer.clone().compact(inside),
            |p| matches!(p, WriteProblem::Snapshot { .. }),
        ),
        (
            "compact without a snapshot",
            {
                let mut submission = writer.clone().compact(end);
                submission.write.snapshot = None;
                submission
            },
            |p| matches!(p, WriteProblem::Uncovered { .. }),
        ),
        (
            "compact past the snapshot",
            {
                let mut submission = writer.clone().compact(end);
                submission.write.snapshot = Some(taken(start));
                submission
            },
            |p| matches!(p, WriteProblem::Uncovered { .. }),
        ),
        (
            "cut behind the snapshot",
            {
                let mut submission = writer.clone().truncate(start);
                submission.write.snapshot = Some(taken(end));
                submission
            },
            |p| matches!(p, WriteProblem::Truncate { .. }),
        ),
        (
            "batch does not follow",
            writer
                .clone()
                .append(vec![batch(GROUP, &start, 1, 1, 1, 0)]),
            |p| matches!(p, WriteProblem::Chain { .. }),
        ),
        (
            "term of the future",
            writer.clone().append(vec![batch(GROUP, &end, 9, 1, 1, 0)]),
            |p| matches!(p, WriteProblem::TermBehindLog { .. }),
        ),
        (
            "other group",
            writer
                .clone()
                .append(vec![batch(GroupId(9), &end, 1, 1, 1, 0)]),
            |p| matches!(p, WriteProblem::Group { .. }),
        ),
        ("short body", writer.clone().append(vec![bent]), |p| {
            matches!(p, WriteProblem::BodyLength { .. })
        }),
        ("no entries", writer.clone().append(vec![empty]), |p| {
            matches!(p, WriteProblem::Header { .. })
        }),
    ];
    disk.start_trace();
    for (name, submission, expected) in refusals {
        match wal.commit(&[submission]) {
            Err(WalError::Invalid {
                group: GROUP,
                problem,
            }) if expected(&problem) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    let stranger = Writer::new(GroupId(99)).vote(1, None);
    assert_eq!(
        wal.commit(&[stranger]),
        Err(WalError::UnknownGroup(GroupId(99)))
    );
    let large = batch(GROUP, &end, 1, 1, 2 << 20, 0);
    let too_large = wal.commit(&[writer.clone().append(vec![large])]);
    assert!(
        matches!(too_large, Err(WalError::TooLarge { .. })),
        "{too_large:?}"
    );
    assert_eq!(calls(&disk), (0, 0));
    let next: Batch = batch(GROUP, &end, 1, 1, 10, 2);
    wal.commit(&[writer.append(vec![next])])
        .expect("the log goes on");
}

#[test]
fn a_second_open_is_refused_while_the_first_lives() {
    let (disk, wal) = fresh(&options());
    assert!(matches!(
        reopen(&disk, &options(), 3),
        Err(OpenError::Locked { .. })
    ));
    drop(wal);
    reopen(&disk, &options(), 3).expect("the lock is free again");
}

#[test]
pub(crate) fn what_a_zombie_writes_after_the_next_open_is_invisible() {
    // A process that was believed dead, on a file system whose locks do not reach far enough.
    let options = roomy();
    let (disk, mut zombie) = fresh(&options);
    let mut writer = voted(&mut zombie);
    let mut end = Position::START;
    let acked = appends(&mut writer, &mut end, 2);
    zombie.commit(&acked).expect("a working disk");
    // The zombie's writes after the fork are replayed onto the new owner's disk, as it would do them.
    let owner_disk = disk.fork();
    let (mut owner, recovered) = reopen(&owner_disk, &options, 9).expect("a healthy store");
    let mut owner_writer = Writer::new(GROUP);
    let own = batch(GROUP, &end, 1, 1, 10, 77);
    owner
        .commit(&[owner_writer.append(vec![own.clone()])])
        .expect("a working disk");
    drop(owner);
    disk.start_trace();
    let ghost = appends(&mut writer, &mut end.clone(), 1);
    zombie.commit(&ghost).expect("its disk still works");
    copy_writes(&disk, &owner_disk);
    let (owner, again) = reopen(&owner_disk, &options, 10).expect("a healthy store");
    let batches = &again.groups[&GROUP].batches;
    assert_eq!(batches.len(), recovered.groups[&GROUP].batches.len() + 1);
    assert_eq!(batches.last(), Some(&own.header));
    assert_eq!(read_all(&owner, GROUP).last(), Some(&own));
}

/// Repeats on `to` what the trace of `from` shows was written.
fn copy_writes(from: &FaultDisk, to: &FaultDisk) {
    use duraft_disk::Disk;
    for entry in from
        .trace()
        .iter()
        .filter(|entry| entry.op == DiskOp::Write)
    {
        let mut bytes = vec![0; entry.len as usize];
        from.open(&entry.name)
            .unwrap()
            .read_at(&mut bytes, entry.offset)
            .unwrap();
        let file = to.open(&entry.name).unwrap();
        file.write_at(&bytes, entry.offset).unwrap();
        file.sync_data().unwrap();
    }
}

#[test]
fn crash_loops_do_not_eat_slots() {
    let (mut disk, mut wal) = fresh(&options());
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    let acked = appends(&mut writer, &mut end, 3);
    wal.commit(&acked).expect("a working disk");
    drop(wal);
    let mut totals = Vec::new();
    for seed in 0..20 {
        disk = disk.power_loss(Survival::Nothing);
        let (wal, recovered) = reopen(&disk, &options(), seed).expect("a healthy store");
        assert_eq!(recovered.groups[&GROUP].batches.len(), 3);
        totals.push(wal.pool_stats().total);
    }
    assert!(totals.iter().all(|total| *total <= 5), "{totals:?}");
}

#[test]
fn reads_are_bounded_whole_and_say_why_not() {
    let (_disk, mut wal) = fresh(&WalOptions {
        cache_bytes_max: 300,
        ..roomy()
    });
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    let submissions = appends(&mut writer, &mut end, 10);
    wal.commit(&submissions).expect("a working disk");
    let third = submissions[2].write.append[0].header.position();
    wal.commit(&[writer.compact(third)])
        .expect("a working disk");
    let reader = wal.reader();
    let all = reader
        .read(GROUP, Index(7), Index(20), u64::MAX)
        .expect("stored");
    assert_eq!(all.len(), 7);
    assert_eq!(
        reader
            .read(GROUP, Index(7), Index(20), 1)
            .expect("stored")
            .len(),
        1
    );
    assert_eq!(
        reader
            .read(GROUP, Index(7), Index(11), u64::MAX)
            .expect("stored")
            .len(),
        2
    );
    let cost = all[0].cost() + 16;
    assert_eq!(
        reader
            .read(GROUP, Index(7), Index(20), 2 * cost)
            .expect("stored")
            .len(),
        2
    );
    let errors = [1, 6, 8, 21].map(|first| reader.read(GROUP, Index(first), Index(30), 1));
    assert!(
        matches!(errors[0], Err(ReadError::Compacted { .. })),
        "{:?}",
        errors[0]
    );
    assert!(
        matches!(errors[1], Err(ReadError::Compacted { .. })),
        "{:?}",
        errors[1]
    );
    assert!(
        matches!(errors[2], Err(ReadError::NotABoundary(Index(8)))),
        "{:?}",
        errors[2]
    );
    assert!(
        matches!(errors[3], Err(ReadError::PastEnd { .. })),
        "{:?}",
        errors[3]
    );
    let stranger = reader.read(GroupId(1), Index(1), Index(1), 1);
    assert!(matches!(stranger, Err(ReadError::UnknownGroup(_))));
}

#[test]
fn sectors_as_large_as_blocks_change_nothing() {
    let disk = FaultDisk::new(FaultOptions {
        sector_bytes: 4096,
        ..FaultOptions::default()
    });
    make(&disk, &roomy(), &[GROUP]);
    let (mut wal, _) = reopen(&disk, &roomy(), 2).expect("a fresh store");
    voted(&mut wal);
    drop(wal);
    let (_, recovered) = reopen(&disk, &roomy(), 3).expect("a healthy store");
    assert_eq!(recovered.groups[&GROUP].hard_state.term, Term(1));
}

#[test]
fn marks_go_to_the_far_end_of_the_slot() {
    // Next to the tail, one scratch would take a commit and its proof.
    let options = WalOptions {
        slot_bytes: 128 << 10,
        mark_every_commits: 1,
        ..options()
    };
    let (disk, mut wal) = fresh(&options);
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    disk.start_trace();
    for _ in 0..20 {
        let submissions = appends(&mut writer, &mut end, 1);
        wal.commit(&submissions).expect("a working disk");
    }
    let last = 31 * 4096;
    let mut tail = 0;
    let mut marks = 0;
    for write in disk
        .trace()
        .iter()
        .filter(|entry| entry.op == DiskOp::Write)
    {
        if write.offset == 4096 || write.offset == last {
            let far = if tail - 4096 > last - tail {
                4096
            } else {
                last
            };
            assert_eq!(write.offset, far, "the tail is at {tail}");
            marks += 1;
        } else {
            tail = write.offset;
        }
    }
    assert_eq!(marks, 20);
}

#[test]
pub(crate) fn a_slot_rests_until_what_freed_it_is_proven() {
    // The segment that compacted it away is durable but not proven: were its slot written anew at
    // once, one damaged block would take what the log was before the compaction, too.
    let (disk, mut wal) = fresh(&options());
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    disk.start_trace();
    for _ in 0..12 {
        let next = batch(GROUP, &end, 1, 1, 30, 0);
        let before = end;
        end = next.header.position();
        let write = writer.write();
        let compact = (before.index() > Index(0)).then_some(before);
        let submission = writer.submit(duraft_core::Write {
            append: vec![next],
            snapshot: compact.map(taken),
            compact,
            ..write
        });
        wal.commit(&[submission]).expect("a working disk");
    }
    let begun = disk.trace().into_iter();
    let begun = begun.filter(|entry| entry.op == DiskOp::Write && entry.len > 4096);
    let slots: Vec<String> = begun.map(|entry| entry.name.to_string()).collect();
    assert_eq!(slots.len(), 12, "every commit begins a segment");
    for window in slots.windows(3) {
        let mut names = window.to_vec();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3, "{slots:?}");
    }
    assert!(wal.pool_stats().total <= 6, "{:?}", wal.pool_stats());
}

#[test]
pub(crate) fn a_commit_that_only_the_cache_shows_is_copied_before_anyone_is_told() {
    // Killed before its sync returned, then the power fails after the next open.
    let options = WalOptions {
        slot_bytes: 48 << 10,
        ..options()
    };
    let (disk, mut wal) = fresh(&options);
    let mut writer = voted(&mut wal);
    let mut end = Position::START;
    for _ in 0..3 {
        // Too much to be absorbed by the next segment.
        let large = batch(GROUP, &end, 1, 1, 3600, 1);
        end = large.header.position();
        wal.commit(&[writer.append(vec![large])])
            .expect("a working disk");
    }
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData));
    let cut = appends(&mut writer, &mut end, 1);
    assert!(wal.commit(&cut).is_err());
    drop(wal);
    let killed = disk.process_crash();
    let (wal, recovered) = reopen(&killed, &options, 5).expect("a healthy store");
    assert_eq!(
        recovered.groups[&GROUP].batches.len(),
        4,
        "the cache shows it"
    );
    assert_eq!(recovered.report.copied_batches, 1, "{:?}", recovered.report);
    assert_eq!(
        recovered.report.absorbed_segments, 0,
        "{:?}",
        recovered.report
    );
    let told = read_all(&wal, GROUP);
    drop(wal);
    let (wal, again) = reopen(&killed.power_loss(Survival::Nothing), &options, 6).expect("healthy");
    assert_eq!(again.groups, recovered.groups);
    assert_eq!(read_all(&wal, GROUP), told);
}

#[test]
fn a_slot_whose_name_a_killed_preparer_left_undurable_is_safe_to_use() {
    // Everything in the file is synced and read back, and the power failure takes its name.
    let (disk, wal) = fresh(&options());
    disk.inject(Fault::new(Effect::SyncLies).on(DiskOp::SyncDir));
    wal.preparer().turn().expect("room");
    drop(wal);
    let killed = disk.process_crash();
    let (mut wal, _) = reopen(&killed, &options(), 3).expect("a healthy store");
    // The open used the one slot that was ready before, this commit the undurable one.
    voted(&mut wal);
    assert_eq!(wal.stats().slots_made_late, 0);
    drop(wal);
    let cut = killed.power_loss(Survival::Nothing);
    let (_, recovered) = reopen(&cut, &options(), 4).expect("a healthy store");
    assert_eq!(recovered.groups[&GROUP].hard_state.term, Term(1));
}
