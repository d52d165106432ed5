//! What must hold under every schedule. A deadlock, a lost wake-up among them, fails by itself.

use crate::group_log::{GroupLog, GroupLogOptions};
use crate::queue::{Queue, Taken};
use crate::responder::Responder;
use crate::thread::{PipelineThread, SubmitError};
use duraft_core::{Batch, GroupId, HardState, Membership, NodeId, Position, Term, Write, WriteSeq};
use duraft_disk::{CacheAfter, Disk, DiskOp, Effect, Fault, FaultDisk, FaultOptions, Survival};
use duraft_storage::{
    ClusterId, Entropy, PipelineEvent, StoreIdentity, Submission, WalOptions, bootstrap,
    commands_body, open,
};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const SEED: u64 = 0x5eed;

/// How many schedules are drawn for each test.
fn schedules() -> usize {
    std::env::var("DURAFT_SCHEDULES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2000)
}

/// Runs `body` under drawn schedules, and under those that need few switches (PCT) where nothing in
/// it waits by looking again and again.
fn under_schedules(fair: bool, body: impl Fn() + Send + Sync + 'static) {
    let config = || {
        let mut config = Config::new();
        config.stack_size = 0x10_0000;
        config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
        config
    };
    let body = Arc::new(body);
    let run = Arc::clone(&body);
    Runner::new(RandomScheduler::new_from_seed(SEED, schedules()), config()).run(move || run());
    if !fair {
        let pct = PctScheduler::new_from_seed(SEED, 3, schedules() / 2);
        Runner::new(pct, config()).run(move || body());
    }
}

pub fn queue_hands_everything_over_once_and_in_order() {
    under_schedules(false, || {
        let queue = Arc::new(Queue::new(2));
        let producers: Vec<_> = (0..3_u64)
            .map(|producer| {
                let queue = Arc::clone(&queue);
                shuttle::thread::spawn(move || {
                    for item in 0..3 {
                        assert_eq!(queue.push_wait(producer * 10 + item, 1), Ok(()));
                    }
                    assert_eq!(queue.push_exempt(producer * 10 + 3), Ok(()));
                })
            })
            .collect();
        let (mut seen, mut taken) = (Vec::new(), VecDeque::new());
        while seen.len() < 12 {
            assert_eq!(queue.take_all(&mut taken, None), Taken::Items);
            seen.extend(taken.drain(..));
        }
        for producer in producers {
            producer.join().expect("producers do not panic");
        }
        for producer in 0..3 {
            let of: Vec<u64> = seen
                .iter()
                .copied()
                .filter(|i| i / 10 == producer)
                .collect();
            assert_eq!(of, (0..4).map(|i| producer * 10 + i).collect::<Vec<_>>());
        }
    });
}

pub fn closed_queue_keeps_nobody_waiting() {
    under_schedules(false, || {
        let queue = Arc::new(Queue::new(1));
        let producers: Vec<_> = (0..3_u64)
            .map(|item| {
                let queue = Arc::clone(&queue);
                shuttle::thread::spawn(move || queue.push_wait(item, 1).is_ok())
            })
            .collect();
        let consumer = {
            let queue = Arc::clone(&queue);
            shuttle::thread::spawn(move || {
                let (mut count, mut taken) = (0, VecDeque::new());
                while queue.take_all(&mut taken, None) == Taken::Items {
                    count += taken.len();
                    taken.clear();
                }
                count
            })
        };
        queue.close();
        let accepted = producers
            .into_iter()
            .map(|producer| producer.join().expect("producers do not panic"))
            .filter(|accepted| *accepted)
            .count();
        let taken = consumer.join().expect("the consumer does not panic");
        assert_eq!(accepted, taken, "what was accepted is taken");
    });
}

pub fn client_hears_exactly_once() {
    under_schedules(false, || {
        let (responder, pending) = Responder::<u64>::future();
        let answers = shuttle::thread::spawn(move || {
            if shuttle::rand::Rng::gen_range(&mut shuttle::rand::thread_rng(), 0..2) == 0 {
                responder.answer(Ok(7));
                true
            } else {
                drop(responder);
                false
            }
        });
        let heard = shuttle::future::block_on(pending);
        let answered = answers.join().expect("no panic");
        assert_eq!(heard.is_ok(), answered, "{heard:?}");
    });
}

const GROUP: GroupId = GroupId(1);

fn identity() -> StoreIdentity {
    StoreIdentity {
        cluster: ClusterId([5; 16]),
        node: NodeId(1),
        max_batch_bytes: 512,
    }
}

fn wal_options() -> WalOptions {
    WalOptions {
        slot_bytes: 16 << 10,
        slots_ready_min: 1,
        slots_max: 12,
        queue_records_max: 2,
        ..WalOptions::default()
    }
}

fn entropy(seed: u64) -> Entropy {
    Entropy {
        seed,
        wallclock_ns: 0,
    }
}

/// A new store, made once per schedule.
fn store() -> FaultDisk {
    let disk = FaultDisk::new(FaultOptions::default());
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let voters = Membership::new([NodeId(1)], []).expect("one voter");
    bootstrap(
        &door,
        &identity(),
        &wal_options(),
        entropy(1),
        &[(GROUP, voters)],
    )
    .expect("an empty disk");
    disk
}

/// The writes 1 to `count`, each of one batch.
fn writes(start: Position, count: u64) -> Vec<Submission> {
    let mut end = start;
    let write = |seq: u64| {
        let body = commands_body([&b"command"[..]].into_iter(), 0).expect("a small body");
        let batch: Batch = body.seal(GROUP, &end, Term(1)).expect("a short log");
        end = batch.header.position();
        let hard_state = (seq == 1).then_some(HardState {
            term: Term(1),
            vote: None,
        });
        let write = Write {
            seq: WriteSeq(seq),
            hard_state,
            snapshot: None,
            truncate: None,
            append: vec![batch],
            compact: None,
            healed: None,
        };
        Submission {
            group: GROUP,
            write,
        }
    };
    (1..=count).map(write).collect()
}

/// What a log's sink was told.
#[derive(Debug, Default)]
struct Told {
    durable: Vec<u64>,
    failed: u64,
    low: bool,
}

struct Rig {
    disk: FaultDisk,
    thread: Arc<PipelineThread>,
    told: Arc<shuttle::sync::Mutex<Told>>,
    writes: Vec<Submission>,
}

/// A log on a thread, five writes for it, and a record of what it said.
fn rig(fault: Option<Fault>) -> Rig {
    let disk = store();
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let (wal, recovered) = open(door, &identity(), wal_options(), entropy(2)).expect("a new store");
    let writes = writes(recovered.groups[&GROUP].start, 5);
    if let Some(fault) = fault {
        disk.inject(fault);
    }
    let told = Arc::new(shuttle::sync::Mutex::new(Told::default()));
    let sink = {
        let told = Arc::clone(&told);
        Box::new(move |event| {
            let mut told = told.lock().expect("no panics");
            match event {
                PipelineEvent::Durable(durable) => {
                    assert_eq!(told.failed, 0, "nothing is durable after a failure");
                    told.durable.push(durable.upto.0);
                }
                PipelineEvent::StorageLow => told.low = true,
                PipelineEvent::Failed { .. } => told.failed += 1,
            }
        })
    };
    // A tick so long that none passes: no receipt is due by the real clock.
    let thread = PipelineThread::spawn(wal.into_pipeline(), Duration::from_secs(86_400), sink)
        .expect("threads start");
    Rig {
        disk,
        thread: Arc::new(thread),
        told,
        writes,
    }
}

/// Submits all writes in order, again where the queue was full, from a thread of its own. Returns how
/// many were taken.
fn submitter(rig: &Rig) -> shuttle::thread::JoinHandle<u64> {
    let thread = Arc::clone(&rig.thread);
    let writes = rig.writes.clone();
    shuttle::thread::spawn(move || {
        let mut taken = 0;
        for mut write in writes {
            loop {
                match thread.submit(write) {
                    Ok(()) => break taken += 1,
                    Err(SubmitError::Closed(_)) => return taken,
                    Err(SubmitError::Full(back)) => {
                        write = back;
                        shuttle::thread::yield_now();
                    }
                }
            }
        }
        taken
    })
}

/// Batches that survive if the power fails now.
fn survivors(disk: &FaultDisk) -> u64 {
    let disk: Arc<dyn Disk> = Arc::new(disk.power_loss(Survival::Nothing));
    let (_, recovered) = open(disk, &identity(), wal_options(), entropy(3)).expect("no damage");
    recovered.groups[&GROUP].batches.len() as u64
}

/// After a shutdown in order all that was taken is durable and was reported, unless the log had said
/// that it lacks room.
fn finished(rig: &Rig, taken: u64) {
    let told = rig.told.lock().expect("no panics");
    assert!(told.durable.is_sorted(), "{:?}", told.durable);
    let promised = told.durable.last().copied().unwrap_or(0);
    assert!(
        promised == taken || told.low,
        "{promised} of {taken}: {told:?}"
    );
    assert_eq!((survivors(&rig.disk), told.failed), (promised, 0));
}

pub fn every_write_that_was_taken_is_reported_once_it_is_durable() {
    under_schedules(true, || {
        let rig = rig(None);
        let taken = submitter(&rig).join().expect("no panic");
        assert_eq!(taken, 5);
        rig.thread.shutdown();
        finished(&rig, taken);
    });
}

pub fn shutdown_in_the_middle_finishes_what_was_taken() {
    under_schedules(true, || {
        let rig = rig(None);
        let submitting = submitter(&rig);
        rig.thread.shutdown();
        let taken = submitting.join().expect("no panic");
        finished(&rig, taken);
    });
}

pub fn abandoned_log_has_reported_nothing_that_is_not_durable() {
    under_schedules(true, || {
        let rig = rig(None);
        let submitting = submitter(&rig);
        rig.thread.abandon();
        let taken = submitting.join().expect("no panic");
        let told = rig.told.lock().expect("no panics");
        let promised = told.durable.last().copied().unwrap_or(0);
        assert!(promised <= taken);
        assert!(survivors(&rig.disk) >= promised);
    });
}

pub fn failed_sync_poisons_the_log_for_everybody() {
    under_schedules(true, || {
        let effect = Effect::SyncFails {
            cache: CacheAfter::NewContent,
            landed: None,
        };
        let rig = rig(Some(Fault::new(effect).on(DiskOp::SyncData).nth(2)));
        let submitting = submitter(&rig);
        let taken = submitting.join().expect("no panic");
        rig.thread.shutdown();
        let told = rig.told.lock().expect("no panics");
        let promised = told.durable.last().copied().unwrap_or(0);
        // All of it may have gone into one commit, before the second sync.
        assert!(told.failed == 1 || promised == taken, "{taken} taken");
        assert!(promised <= survivors(&rig.disk));
    });
}

pub fn log_of_its_own_answers_every_ticket() {
    under_schedules(true, || {
        let disk = FaultDisk::new(FaultOptions::default());
        let options = GroupLogOptions {
            wal: WalOptions {
                receipt_idle_ticks: 2,
                queue_bytes_max: 200,
                ..wal_options()
            },
            max_batch_bytes: 256,
            ..GroupLogOptions::default()
        };
        let log = Arc::new(GroupLog::open_on(Arc::new(disk.clone()), options).expect("opens"));
        let appenders: Vec<_> = (0..3)
            .map(|_| {
                let log = Arc::clone(&log);
                shuttle::thread::spawn(move || {
                    for _ in 0..2 {
                        let ticket = log.append(&[b"command"]).expect("the log is open");
                        ticket.wait().expect("a good disk");
                    }
                })
            })
            .collect();
        for appender in appenders {
            appender.join().expect("no panic");
        }
        let (start, end) = log.bounds();
        assert_eq!(end.index().0 - start.index().0, 6);
        let log = Arc::into_inner(log).expect("the appenders are gone");
        log.close().expect("a good disk");
    });
}
