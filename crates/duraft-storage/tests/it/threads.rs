//! The pipeline's thread. Nothing here waits for time: every wait is for an event.

use crate::support::*;
use duraft_core::WriteSeq;
use duraft_disk::{Disk, DiskOp, Effect, Fault};
use duraft_storage::{PipelineEvent, PipelineThread, SubmitError, WalOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

fn spawn(wal: duraft_storage::Wal) -> (PipelineThread, mpsc::Receiver<PipelineEvent>) {
    let (events, told) = mpsc::channel();
    let sink = move |event| drop(events.send(event));
    let tick = Duration::from_millis(1);
    let thread = PipelineThread::spawn(wal.into_pipeline(), tick, Box::new(sink));
    (thread.expect("threads can be started"), told)
}

#[test]
fn everything_submitted_before_a_shutdown_is_durable_after_it() {
    let (disk, wal) = fresh(&options());
    let (thread, told) = spawn(wal);
    let mut writer = Writer::new(GROUP);
    for term in 1..=200 {
        thread
            .submit(writer.vote(term, None))
            .expect("the queue has room");
    }
    thread.shutdown();
    thread.shutdown();
    let closed = thread.submit(writer.vote(300, None));
    assert!(matches!(closed, Err(SubmitError::Closed(_))));
    let last = told.try_iter().filter_map(|event| match event {
        PipelineEvent::Durable(durable) => Some(durable.upto),
        PipelineEvent::Failed { .. } | PipelineEvent::StorageLow => None,
    });
    assert_eq!(last.last(), Some(WriteSeq(200)));
    assert_eq!(thread.stats().writes, 200);
    drop(thread);
    let (_, recovered) = reopen(&disk, &options(), 3).expect("the lock is free");
    assert_eq!(recovered.groups[&GROUP].hard_state.term.0, 200);
    assert_eq!(
        recovered.report.contiguous_commit,
        recovered
            .report
            .proven_commit
            .max(recovered.report.contiguous_commit)
    );
}

#[test]
fn a_full_queue_gives_the_write_back() {
    let options = WalOptions {
        queue_records_max: 1,
        ..options()
    };
    let (disk, wal) = fresh(&options);
    // The first write is held up by nothing, so hold it up: no slot can be made.
    disk.inject(Fault::new(Effect::NoSpace).on(DiskOp::FillZero).forever());
    let (thread, told) = spawn(wal);
    let mut writer = Writer::new(GROUP);
    let mut full = 0;
    let mut term = 0;
    while full == 0 {
        term += 1;
        let mut next = writer.clone();
        match thread.submit(next.vote(term, None)) {
            Ok(()) => writer = next,
            Err(SubmitError::Full(back)) => {
                assert_eq!(back.write.seq, next.seq);
                full += 1;
            }
            Err(SubmitError::Closed(_)) => panic!("a full disk closes nothing"),
        }
    }
    disk.heal();
    drop(told);
    thread.shutdown();
}

#[test]
fn a_dropped_thread_is_a_crash_and_keeps_what_was_reported() {
    let (disk, wal) = fresh(&options());
    let (thread, told) = spawn(wal);
    let mut writer = Writer::new(GROUP);
    for term in 1..=50 {
        thread
            .submit(writer.vote(term, None))
            .expect("the queue has room");
    }
    let first = told.recv().expect("something becomes durable");
    drop(thread);
    let PipelineEvent::Durable(durable) = first else {
        panic!("{first:?}")
    };
    let (_, recovered) = reopen(&disk, &options(), 3).expect("the lock is free");
    assert!(recovered.groups[&GROUP].hard_state.term.0 >= durable.upto.0);
}

#[test]
fn a_failed_log_says_so_and_closes() {
    let (disk, wal) = fresh(&options());
    let (thread, told) = spawn(wal);
    let mut writer = Writer::new(GROUP);
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData).forever());
    thread
        .submit(writer.vote(1, None))
        .expect("the queue has room");
    let failed = told
        .iter()
        .find(|e| matches!(e, PipelineEvent::Failed { .. }));
    assert!(failed.is_some());
    thread.shutdown();
    assert!(matches!(
        thread.submit(writer.vote(2, None)),
        Err(SubmitError::Closed(_))
    ));
}

/// A log whose sink waits after each event until it is let go on; ticks are hours.
fn held(
    options: &WalOptions,
) -> (
    duraft_disk::FaultDisk,
    PipelineThread,
    mpsc::Receiver<PipelineEvent>,
    mpsc::Sender<()>,
) {
    let (disk, wal) = fresh(options);
    let (events, told) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let sink = move |event| {
        drop(events.send(event));
        let _ = wait.recv();
    };
    let hour = Duration::from_secs(3600);
    let thread = PipelineThread::spawn(wal.into_pipeline(), hour, Box::new(sink));
    (disk, thread.expect("threads can be started"), told, go)
}

#[test]
fn a_queue_takes_exactly_as_much_as_it_may_and_has_room_again_for_what_is_done() {
    let cost = Writer::new(GROUP).vote(1, None).cost();
    for (bytes, records, room) in [
        (2 * cost, 9, 2),
        (2 * cost - 1, 9, 1),
        (9 * cost, 2, 2),
        // One is always taken.
        (1, 9, 1),
    ] {
        let options = WalOptions {
            queue_bytes_max: bytes,
            queue_records_max: records,
            ..options()
        };
        let (_disk, thread, told, go) = held(&options);
        let mut writer = Writer::new(GROUP);
        let first = thread.submit(writer.vote(1, None));
        first.expect("the queue is empty");
        for round in 0..3 {
            // What was queued is done, and the log waits for its sink.
            told.recv().expect("a durable write");
            let mut taken = 0;
            while let Ok(()) = thread.submit(writer.clone().vote(2, None)) {
                writer.write();
                taken += 1;
                assert!(taken < 9);
            }
            assert_eq!(taken, room, "{bytes} {records}, round {round}");
            go.send(()).expect("the log waits");
        }
        drop(go);
        thread.shutdown();
    }
}

#[test]
fn a_write_wakes_a_log_that_waits_and_a_shutdown_proves_it() {
    let (disk, thread, told, go) = held(&options());
    drop(go);
    disk.start_trace();
    let mut writer = Writer::new(GROUP);
    for term in 1..4 {
        let queued = thread.submit(writer.vote(term, None));
        queued.expect("the queue has room");
        // No tick will come to its help.
        let event = told.recv_timeout(Duration::from_secs(20));
        assert!(matches!(event, Ok(PipelineEvent::Durable(_))), "{event:?}");
    }
    thread.shutdown();
    let marks = disk.trace();
    let marks = marks.iter().rev().find(|op| op.op == DiskOp::Write);
    assert_eq!(
        marks.map(|op| op.len),
        Some(4096),
        "a mark is the last thing written"
    );
    let left = told.try_recv();
    assert_eq!(
        left,
        Err(mpsc::TryRecvError::Disconnected),
        "the thread has ended"
    );
}

#[test]
fn an_idle_log_proves_its_last_commit_and_keeps_slots_ready_by_itself() {
    // Both happen some time: a log of which this is not true is waited for in vain.
    let (disk, wal) = fresh(&options());
    let slots = || Disk::list(&disk, "wal").expect("slots").len();
    let before = slots();
    let (thread, told) = spawn(wal);
    while slots() == before {
        std::thread::yield_now();
    }
    let mut writer = Writer::new(GROUP);
    let queued = thread.submit(writer.vote(1, None));
    queued.expect("the queue has room");
    told.recv().expect("a durable write");
    while thread.stats().receipts == 0 {
        std::thread::yield_now();
    }
    thread.shutdown();
    assert_eq!(thread.stats().receipts, 1);
}

#[test]
fn a_failed_log_takes_nothing_more_before_anybody_ends_it() {
    let (disk, wal) = fresh(&options());
    let (thread, told) = spawn(wal);
    let mut writer = Writer::new(GROUP);
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData).forever());
    let queued = thread.submit(writer.vote(1, None));
    queued.expect("the queue has room");
    // The thread ends, and with it what would tell.
    while told.recv().is_ok() {}
    while !matches!(
        thread.submit(writer.clone().vote(2, None)),
        Err(SubmitError::Closed(_))
    ) {
        std::thread::yield_now();
    }
}

#[test]
fn a_shutdown_returns_when_the_report_under_way_is_told_to_the_end() {
    let (_disk, wal) = fresh(&options());
    let mut writer = Writer::new(GROUP);
    let (first, second) = (writer.vote(1, None), writer.vote(2, None));
    let shared: Arc<OnceLock<PipelineThread>> = Arc::default();
    let told = Arc::new(AtomicBool::new(false));
    let (thread, done) = (Arc::clone(&shared), Arc::clone(&told));
    let sink = move |_| {
        // Until the shutdown has begun, and for a while longer.
        let begun = || {
            matches!(
                thread.wait().submit(second.clone()),
                Err(SubmitError::Closed(_))
            )
        };
        while !begun() {
            std::thread::yield_now();
        }
        (0..1000).for_each(|_| std::thread::yield_now());
        done.store(true, Ordering::SeqCst);
    };
    let hour = Duration::from_secs(3600);
    let started = PipelineThread::spawn(wal.into_pipeline(), hour, Box::new(sink));
    let thread = shared.get_or_init(|| started.expect("threads can be started"));
    thread.submit(first).expect("the queue has room");
    thread.shutdown();
    assert!(told.load(Ordering::SeqCst));
}
