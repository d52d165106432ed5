//! The log on its own: many appenders, one at a time, reopened, compacted, failed.

use crate::support::{disk, shared};
use duraft_core::Index;
use duraft_disk::{DiskOp, Effect, Fault, FaultDisk};
use duraft_storage::{
    GroupLog, GroupLogError, GroupLogOptions, OpenError, ReadError, WalError, WalOptions,
};
use std::thread;

fn options() -> GroupLogOptions {
    let wal = WalOptions {
        slot_bytes: 64 << 10,
        slots_max: 1024,
        ..WalOptions::default()
    };
    GroupLogOptions {
        wal,
        max_batch_bytes: 4096,
        ..GroupLogOptions::default()
    }
}

fn open(disk: &FaultDisk) -> GroupLog {
    GroupLog::open_on(shared(disk), options()).expect("a working disk")
}

#[test]
fn what_many_threads_append_is_all_there_and_each_threads_in_its_order() {
    let disk = disk();
    let log = open(&disk);
    let (threads, each) = (16u8, 100u8);
    thread::scope(|scope| {
        for name in 0..threads {
            let log = &log;
            scope.spawn(move || {
                for number in 0..each {
                    let ticket = log.append(&[&[name, number], b"second"]).expect("open");
                    let end = ticket.wait().expect("a working disk");
                    let read = log.read(end.index().previous(), 1).expect("durable");
                    assert_eq!(
                        read[0].1[..],
                        [name, number],
                        "what was acknowledged is readable"
                    );
                }
            });
        }
    });
    let stats = log.stats();
    assert!(
        stats.commits <= u64::from(threads) * u64::from(each),
        "{stats:?}"
    );
    log.close().expect("a working disk");
    let log = open(&disk.process_crash());
    let commands = log.read(log.first(), u64::MAX).expect("durable");
    assert_eq!(commands.len(), 2 * usize::from(threads) * usize::from(each));
    for name in 0..threads {
        let own = commands
            .iter()
            .step_by(2)
            .filter(|(_, command)| command[0] == name);
        let numbers: Vec<u8> = own.map(|(_, command)| command[1]).collect();
        assert_eq!(numbers, (0..each).collect::<Vec<u8>>());
    }
    let indices: Vec<u64> = commands.iter().map(|(index, _)| index.0).collect();
    assert_eq!(indices, (1..=indices.len() as u64).collect::<Vec<u64>>());
}

#[test]
fn one_appender_makes_one_commit_per_append() {
    let disk = disk();
    let log = open(&disk);
    let before = log.stats();
    for number in 0..50u8 {
        log.append(&[&[number]])
            .expect("open")
            .wait()
            .expect("a working disk");
    }
    assert_eq!(log.stats().commits - before.commits, 50);
}

#[test]
fn appends_nobody_waits_for_become_durable_by_a_close() {
    let disk = disk();
    let log = open(&disk);
    for number in 0..100u8 {
        drop(log.append(&[&[number]]).expect("open"));
    }
    log.close().expect("a working disk");
    let log = open(&disk.process_crash());
    assert_eq!(log.bounds().1.index(), Index(100));
}

#[test]
fn compaction_drops_whole_batches_for_good() {
    let disk = disk();
    let log = open(&disk);
    for _ in 0..4 {
        log.append(&[b"a", b"b", b"c"])
            .expect("open")
            .wait()
            .expect("a working disk");
    }
    log.compact(Index(8)).expect("a working disk");
    assert_eq!(log.first(), Index(7), "the batch of 7 to 9 is needed for 9");
    let gone = log.read(Index(2), u64::MAX);
    let compacted = matches!(&gone, Ok(found) if found.is_empty())
        || matches!(gone, Err(GroupLogError::Read(ReadError::Compacted { .. })));
    assert!(compacted, "{gone:?}");
    drop(log);
    let log = open(&disk.process_crash());
    assert_eq!(log.first(), Index(7));
    assert_eq!(
        log.read(Index(8), 1).expect("durable").len(),
        2,
        "from inside a batch"
    );
}

#[test]
fn a_failed_sync_fails_every_append_from_then_on() {
    let disk = disk();
    let log = open(&disk);
    let good = log
        .append(&[b"good"])
        .expect("open")
        .wait()
        .expect("a working disk");
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData));
    for _ in 0..3 {
        let failed = log.append(&[b"lost"]).expect("open").wait();
        assert!(
            matches!(failed, Err(GroupLogError::Wal(WalError::Poisoned(_)))),
            "{failed:?}"
        );
    }
    assert_eq!(log.bounds().1, good);
}

#[test]
fn batches_that_cannot_be_stored_are_refused_alone() {
    let disk = disk();
    let log = open(&disk);
    assert!(matches!(log.append(&[]), Err(GroupLogError::Batch(_))));
    let large = vec![0; 5000];
    let refused = log.append(&[&large]).map(|_| ());
    assert!(
        matches!(refused, Err(GroupLogError::Batch(_))),
        "{refused:?}"
    );
    log.append(&[b"good"])
        .expect("open")
        .wait()
        .expect("a working disk");
    let second = GroupLog::open_on(shared(&disk), options()).map(|_| ());
    assert!(
        matches!(second, Err(GroupLogError::Open(OpenError::Locked { .. }))),
        "{second:?}"
    );
}
