//! One node: its life, its ends, its limits, and what it refuses.

use crate::common::{CLUSTER, DEADLINE, Journal, membership, options, scratch, single, submit};
use bytes::Bytes;
use duraft::{
    ApplyContext, BusyReason, ClusterId, Network, Node, NodeId, NodeOptions, OpenError,
    RejectReason, RequestError, RequestErrorKind, Responder, RoleKind, SnapshotWork, StartError,
    StateMachine, StopReason, TcpOptions, UnknownReason,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The smallest executor: park the thread until woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn handles_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Node>();
}

#[test]
fn single_node_applies_and_remembers() {
    let dir = scratch();
    let settings = single(&dir);
    let node = Node::start(settings.clone(), Box::new(Journal::default())).expect("started");
    let first = block_on(node.propose(Bytes::from("one"))).expect("applied");
    assert_eq!(first.response, "0");
    let second = node
        .propose_wait(Bytes::from("two"), DEADLINE)
        .expect("applied");
    assert_eq!(second.response, "1");
    assert!(second.log_id > first.log_id);
    drop(node);
    let journal = Journal::default();
    let node = Node::start(settings, Box::new(journal.clone())).expect("started again");
    let third = node
        .propose_wait(Bytes::from("three"), DEADLINE)
        .expect("applied");
    assert_eq!(
        third.response, "2",
        "the earlier ones were applied again first"
    );
    assert_eq!(journal.commands(), ["one", "two", "three"]);
}

#[test]
fn dropped_future_does_not_cancel() {
    let dir = scratch();
    let node = Node::start(single(&dir), Box::new(Journal::default())).expect("started");
    drop(node.propose(Bytes::from("forgotten")));
    let second = node
        .propose_wait(Bytes::from("second"), DEADLINE)
        .expect("applied");
    assert_eq!(second.response, "1");
}

#[test]
fn callback_may_submit_the_next_command() {
    // Callbacks run without locks held, so a closed loop needs no thread of its own.
    fn next(node: &Node, left: u64, done: mpsc::Sender<u64>) {
        let again = node.clone();
        let responder = Responder::call(move |outcome| {
            outcome.expect("applied");
            if left == 0 {
                done.send(0).expect("the test waits");
            } else {
                next(&again, left - 1, done);
            }
        });
        node.submit(Bytes::from("again"), responder);
    }
    let dir = scratch();
    let journal = Journal::default();
    let mut options = single(&dir);
    options.commands_max = 1;
    let node = Node::start(options, Box::new(journal.clone())).expect("started");
    let (done, finished) = mpsc::channel();
    next(&node, 20, done);
    finished.recv_timeout(DEADLINE).expect("the chain ends");
    assert_eq!(journal.commands().len(), 21);
}

#[test]
fn shutdown_is_idempotent_and_says_why() {
    let dir = scratch();
    let settings = single(&dir);
    let node = Node::start(settings.clone(), Box::new(Journal::default())).expect("started");
    node.propose_wait(Bytes::from("x"), DEADLINE)
        .expect("applied");
    let others: Vec<_> = (0..3)
        .map(|_| {
            let node = node.clone();
            std::thread::spawn(move || node.shutdown())
        })
        .collect();
    assert_eq!(node.shutdown(), StopReason::Shutdown);
    assert_eq!(node.shutdown(), StopReason::Shutdown);
    for other in others {
        assert_eq!(other.join().expect("no panic"), StopReason::Shutdown);
    }
    assert_eq!(node.status().stopped, Some(StopReason::Shutdown));
    assert_eq!(
        node.propose_wait(Bytes::from("late"), DEADLINE),
        Err(RequestError::Rejected {
            reason: RejectReason::Stopped,
            leader: None
        })
    );
    // The folder is free although a handle is still there.
    let again = Node::start(settings, Box::new(Journal::default())).expect("unlocked");
    again.shutdown();
}

#[test]
fn shutdown_from_a_callback_does_not_deadlock() {
    let dir = scratch();
    let node = Node::start(single(&dir), Box::new(Journal::default())).expect("started");
    let (sender, receiver) = mpsc::channel();
    let inner = node.clone();
    let responder = Responder::call(move |_| {
        sender.send(inner.shutdown()).expect("the test waits");
    });
    node.submit(Bytes::from("x"), responder);
    assert_eq!(receiver.recv_timeout(DEADLINE), Ok(StopReason::Shutdown));
    assert_eq!(node.shutdown(), StopReason::Shutdown);
}

/// Waits for a permission before each command.
struct Slow(mpsc::Receiver<()>);

impl StateMachine for Slow {
    fn apply(&mut self, _context: ApplyContext, _command: &[u8]) -> Bytes {
        // An error means that the test is over.
        let _ = self.0.recv();
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotWork {
        Box::new(|_| Ok(()))
    }

    fn restore(&mut self, _source: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn saturated_node_is_busy_and_recovers() {
    let dir = scratch();
    let mut options = single(&dir);
    options.commands_max = 2;
    let (permit, permits) = mpsc::channel();
    let node = Node::start(options, Box::new(Slow(permits))).expect("started");
    let first = submit(&node, b"one");
    let second = submit(&node, b"two");
    let third = submit(&node, b"three").recv().expect("at once");
    assert_eq!(
        third,
        Err(RequestError::Busy {
            why: BusyReason::Requests
        })
    );
    assert_eq!(node.status().commands_waiting, 2);
    permit.send(()).expect("the machine waits");
    permit.send(()).expect("the machine waits");
    first
        .recv_timeout(DEADLINE)
        .expect("an outcome")
        .expect("applied");
    second
        .recv_timeout(DEADLINE)
        .expect("an outcome")
        .expect("applied");
    permit.send(()).expect("the machine waits");
    submit(&node, b"four")
        .recv_timeout(DEADLINE)
        .expect("an outcome")
        .expect("room is back");
}

#[test]
fn slow_state_machine_does_not_stop_elections_or_the_end() {
    // The raft thread never waits for the state machine, and neither does a client's deadline.
    let dir = scratch();
    let (permit, permits) = mpsc::channel::<()>();
    let node = Node::start(single(&dir), Box::new(Slow(permits))).expect("started");
    // Once it leads, the command is in the log before its time is over.
    node.wait_for(DEADLINE, |s| s.role == RoleKind::Leader)
        .expect("it leads");
    let outcome = node.propose_wait(Bytes::from("x"), Duration::from_millis(50));
    assert_eq!(
        outcome,
        Err(RequestError::OutcomeUnknown {
            why: UnknownReason::Deadline
        })
    );
    let status = node.status();
    node.wait_for(DEADLINE, |s| s.counters.turns > status.counters.turns + 3)
        .expect("turns go on");
    drop(permit);
    node.shutdown();
}

/// Panics at one command.
struct Fragile {
    journal: Journal,
    unbearable: &'static [u8],
}

impl StateMachine for Fragile {
    fn apply(&mut self, context: ApplyContext, command: &[u8]) -> Bytes {
        assert_ne!(command, self.unbearable, "unbearable");
        self.journal.apply(context, command)
    }

    fn snapshot(&self) -> SnapshotWork {
        self.journal.snapshot()
    }

    fn restore(&mut self, source: &mut dyn Read) -> io::Result<()> {
        self.journal.restore(source)
    }
}

#[test]
fn panic_of_the_state_machine_stops_the_node_and_spares_the_log() {
    let dir = scratch();
    let settings = single(&dir);
    let journal = Journal::default();
    let machine = Fragile {
        journal: journal.clone(),
        unbearable: b"boom",
    };
    let node = Node::start(settings.clone(), Box::new(machine)).expect("started");
    node.propose_wait(Bytes::from("fine"), DEADLINE)
        .expect("applied");
    let error = node
        .propose_wait(Bytes::from("boom"), DEADLINE)
        .expect_err("no answer");
    assert_eq!(error.kind(), RequestErrorKind::OutcomeUnknown);
    let status = node
        .wait_for(DEADLINE, |s| s.stopped.is_some())
        .expect("it stops");
    let Some(StopReason::StateMachinePanicked { message, .. }) = status.stopped else {
        panic!("{status:?}");
    };
    assert!(message.contains("unbearable"), "{message}");
    assert!(matches!(
        node.shutdown(),
        StopReason::StateMachinePanicked { .. }
    ));
    drop(node);
    let journal = Journal::default();
    let node = Node::start(settings, Box::new(journal.clone())).expect("the log is unharmed");
    node.propose_wait(Bytes::from("after"), DEADLINE)
        .expect("applied");
    assert_eq!(journal.commands(), ["fine", "boom", "after"]);
}

#[test]
fn folder_in_use_is_refused() {
    let dir = scratch();
    let settings = single(&dir);
    let _running = Node::start(settings.clone(), Box::new(Journal::default())).expect("started");
    let second = Node::start(settings, Box::new(Journal::default()));
    assert!(
        matches!(second, Err(StartError::Open(OpenError::Locked { .. }))),
        "{second:?}"
    );
}

#[test]
fn stores_are_not_taken_for_others() {
    let dir = scratch();
    let settings = single(&dir);
    let start = |settings| Node::start(settings, Box::new(Journal::default())).map(|_| ());

    let mut foreign = settings.clone();
    foreign.cluster = ClusterId(*b"another cluster.");
    let error = start(foreign).expect_err("another cluster's");
    assert!(
        matches!(error, StartError::Open(OpenError::ForeignCluster { .. })),
        "{error}"
    );

    let mut other = settings.clone();
    other.core.id = NodeId(2);
    let error = start(other).expect_err("another node's");
    assert!(
        matches!(error, StartError::Open(OpenError::ForeignNode { .. })),
        "{error}"
    );

    let mut batch = settings.clone();
    batch.core.max_batch_bytes /= 2;
    let error = start(batch).expect_err("made for other batches");
    assert!(
        matches!(error, StartError::Open(OpenError::MaxBatch { .. })),
        "{error}"
    );

    let error = Node::bootstrap(&settings, &membership(1)).expect_err("there is one");
    assert!(
        matches!(error, StartError::Open(OpenError::StoreExists)),
        "{error}"
    );

    // A node whose folder is empty must not begin anew by itself: it may have voted.
    let error = start(options(3, &dir)).expect_err("no store");
    assert!(
        matches!(error, StartError::Open(OpenError::NoStore)),
        "{error}"
    );
}

#[test]
fn members_without_address_are_refused() {
    let dir = scratch();
    let mut settings = options(1, &dir);
    Node::bootstrap(&settings, &membership(3)).expect("bootstrapped");
    let start = |settings| Node::start(settings, Box::new(Journal::default())).map(|_| ());
    let error = start(settings.clone()).expect_err("no network");
    assert!(matches!(&error, StartError::UnknownPeers(ids) if ids == &[NodeId(2), NodeId(3)]));
    settings.network = Network::Tcp {
        listen: "127.0.0.1:0".into(),
        options: TcpOptions::new(BTreeMap::from([(NodeId(2), "127.0.0.1:1".into())])),
    };
    let error = start(settings).expect_err("one is missing");
    assert!(matches!(&error, StartError::UnknownPeers(ids) if ids == &[NodeId(3)]));
}

#[test]
fn all_option_problems_are_told_at_once() {
    let dir = scratch();
    let mut settings = options(1, &dir);
    settings.core.heartbeat_ticks = 0;
    settings.wal.slot_bytes = 5000;
    settings.tick = Duration::ZERO;
    settings.commands_max = 0;
    let mut tcp = TcpOptions::new(BTreeMap::new());
    tcp.frame_bytes_max = 1000;
    tcp.bulk_queue_bytes_max = 10;
    settings.network = Network::Tcp {
        listen: "127.0.0.1:0".into(),
        options: tcp,
    };
    let fields: Vec<String> = settings.validate().into_iter().map(|p| p.field).collect();
    for expected in [
        "core.heartbeat_ticks",
        "wal.slot_bytes",
        "tick",
        "commands_max",
        "network.options.frame_bytes_max",
        "network.options.bulk_queue_bytes_max",
    ] {
        assert!(
            fields.iter().any(|f| f == expected),
            "{expected} in {fields:?}"
        );
    }
    let start = Node::start(settings, Box::new(Journal::default()));
    assert!(matches!(start, Err(StartError::Options(problems)) if problems.len() >= 6));
}

#[test]
fn default_options_are_sound() {
    let dir = scratch();
    let mut settings = duraft::NodeOptions::in_dir(NodeId(1), CLUSTER, dir.path()).expect("open");
    assert_eq!(settings.validate(), []);
    settings.network = Network::Tcp {
        listen: "127.0.0.1:0".into(),
        options: TcpOptions::new(BTreeMap::new()),
    };
    assert_eq!(settings.validate(), []);
}

#[test]
fn every_command_ends_when_the_node_is_dropped_under_load() {
    let dir = scratch();
    let settings = single(&dir);
    let node = Node::start(settings.clone(), Box::new(Journal::default())).expect("started");
    node.propose_wait(Bytes::from("ready"), DEADLINE)
        .expect("applied");
    let ended = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for i in 0..2000u64 {
        let (ended, acknowledged) = (Arc::clone(&ended), Arc::clone(&acknowledged));
        let responder = Responder::call(move |outcome| {
            ended.fetch_add(1, Ordering::SeqCst);
            if outcome.is_ok() {
                acknowledged.lock().expect("unpoisoned").push(i);
            }
        });
        node.submit(Bytes::copy_from_slice(&i.to_le_bytes()), responder);
    }
    drop(node);
    assert_eq!(
        ended.load(Ordering::SeqCst),
        2000,
        "each exactly once, before drop returns"
    );
    let journal = Journal::default();
    let node = Node::start(settings, Box::new(journal.clone())).expect("started again");
    node.propose_wait(Bytes::from("last"), DEADLINE)
        .expect("applied");
    let commands = journal.commands();
    for i in acknowledged.lock().expect("unpoisoned").iter() {
        assert!(
            commands.iter().any(|c| c[..] == i.to_le_bytes()),
            "{i} was acknowledged"
        );
    }
}

#[test]
fn failed_sync_ends_the_life_and_only_reopening_begins_another() {
    // The first failed sync poisons the log; what was acknowledged before survives a power loss.
    use duraft_disk::{CacheAfter, DiskOp, Effect, Fault, FaultDisk, FaultOptions, Survival};
    let disk = FaultDisk::new(FaultOptions::default());
    let settings = |disk: &FaultDisk| {
        let mut settings = NodeOptions::new(NodeId(1), CLUSTER, Arc::new(disk.clone()));
        settings.wal.slot_bytes = 4 << 20;
        // No receipt may meet the failure before the command does.
        settings.wal.receipt_idle_ticks = 1 << 40;
        settings
    };
    Node::bootstrap(&settings(&disk), &membership(1)).expect("bootstrapped");
    let node = Node::start(settings(&disk), Box::new(Journal::default())).expect("started");
    node.propose_wait(Bytes::from("kept"), DEADLINE)
        .expect("applied");
    let failure = Effect::SyncFails {
        cache: CacheAfter::NewContent,
        landed: None,
    };
    disk.inject(Fault::new(failure).on(DiskOp::SyncData).forever());
    let error = node
        .propose_wait(Bytes::from("in doubt"), DEADLINE)
        .expect_err("nothing is acknowledged without a sync");
    assert_eq!(error.kind(), RequestErrorKind::OutcomeUnknown);
    let status = node
        .wait_for(DEADLINE, |s| s.stopped.is_some())
        .expect("it stops");
    assert_eq!(
        status.stopped,
        Some(StopReason::Halted(duraft::Fault::WriteFailed))
    );
    disk.heal();
    let error = node
        .propose_wait(Bytes::from("too late"), DEADLINE)
        .expect_err("a healthy disk does not heal the life");
    assert_eq!(error.kind(), RequestErrorKind::Rejected);
    drop(node);
    let disk = disk.power_loss(Survival::Nothing);
    let journal = Journal::default();
    let node = Node::start(settings(&disk), Box::new(journal.clone())).expect("reopened");
    node.propose_wait(Bytes::from("after"), DEADLINE)
        .expect("applied");
    assert_eq!(journal.commands(), ["kept", "after"]);
}
