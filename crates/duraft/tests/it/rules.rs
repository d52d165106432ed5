//! Rules that the driver and the runtime keep; those of the core and the log are tested with them.

use crate::common::{DEADLINE, Journal, membership, options, scratch};
use crate::hosts::{Cluster, Host, LEASE, TICK};
use bytes::Bytes;
use duraft::{
    Applier, BusyReason, DriverInput, Index, Membership, Network, Node, NodeId, Outcome, ReadBasis,
    ReadJob, ReadRequest, ReadWork, RejectReason, RequestError, Responder, RoleKind, StopReason,
    TcpOptions,
};
use duraft_core::Position;
use duraft_disk::{DiskOp, Gate, StallDisk};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Heard = Arc<Mutex<Option<Result<u32, RequestError>>>>;

/// A read that counts its runs, and where its answer is heard.
fn counting_read(basis: ReadBasis) -> (ReadRequest, Heard) {
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    let responder = Responder::call(move |answer| {
        *hears.lock().expect("unpoisoned") = Some(answer);
    });
    let runs = AtomicU32::new(0);
    let read = move |_: &Journal| runs.fetch_add(1, Ordering::Relaxed) + 1;
    let request = ReadRequest {
        basis,
        deadline: None,
        job: ReadJob::new(read, responder),
    };
    (request, heard)
}

#[test]
fn lease_read_that_ends_late_is_asked_of_a_quorum() {
    // RULES.md 26: the state machine may take its time, and the lease runs out meanwhile. Who hears
    // the answer then could have heard of a later write from a new leader.
    let members = Membership::new([NodeId(1)], []).expect("valid");
    let mut applier = Applier::new(Box::<Journal>::default(), Position::START, members);
    let end = Duration::from_millis(100);
    let (request, heard) = counting_read(ReadBasis::Lease);
    let mut done = Vec::new();
    let work = |request, lease_until| ReadWork {
        index: Index(0),
        lease_until,
        request,
    };
    applier.read(work(request, Some(end)), &mut done);
    let late = done.remove(0).deliver(end).expect_err("too late");
    assert_eq!(late.basis, ReadBasis::Quorum);
    assert_eq!(
        *heard.lock().expect("unpoisoned"),
        None,
        "nobody hears of it"
    );
    // The quorum has vouched: it is read again, and no end is set.
    applier.read(work(late, None), &mut done);
    assert!(done.remove(0).deliver(end * 1000).is_ok());
    assert_eq!(*heard.lock().expect("unpoisoned"), Some(Ok(2)));

    let (request, heard) = counting_read(ReadBasis::Lease);
    applier.read(work(request, Some(end)), &mut done);
    let in_time = end - Duration::from_nanos(1);
    assert!(done.remove(0).deliver(in_time).is_ok());
    assert_eq!(*heard.lock().expect("unpoisoned"), Some(Ok(1)));
}

#[test]
fn lease_ends_a_fixed_time_after_its_round_was_sent_also_when_the_machine_slept() {
    let (mut cluster, leader) = Cluster::elected();
    for _ in 0..20 {
        cluster.tick();
    }
    let host = &mut cluster.hosts[leader];
    let (request, _) = counting_read(ReadBasis::Lease);
    host.inputs.push_back(DriverInput::Read(request));
    host.run();
    let work = host.reads.pop().expect("the lease vouches at once");
    let until = work.lease_until.expect("by a lease");
    // Rounds go out every two ticks, the last that was answered at most that long ago.
    assert!(until <= host.now() + LEASE, "{until:?}");
    assert!(until + 3 * TICK > host.now() + LEASE, "{until:?}");

    // The machine sleeps: no tick passes, and no heartbeat was sent or answered in that time.
    let slept = Duration::from_secs(3600);
    host.suspended += slept;
    let (request, _) = counting_read(ReadBasis::Lease);
    host.inputs.push_back(DriverInput::Read(request));
    host.run();
    let work = host.reads.pop().expect("the core has seen no tick");
    let until = work.lease_until.expect("by a lease");
    assert!(until < host.now(), "what is read now is late");
}

#[test]
fn read_of_a_quorum_asks_one_though_a_lease_holds() {
    let (mut cluster, leader) = Cluster::elected();
    for _ in 0..20 {
        cluster.tick();
    }
    let host = &mut cluster.hosts[leader];
    for basis in [ReadBasis::Quorum, ReadBasis::Lease] {
        let (request, _) = counting_read(basis);
        host.inputs.push_back(DriverInput::Read(request));
    }
    host.run();
    let by_lease = host.reads.pop().expect("the lease vouches at once");
    assert!(by_lease.lease_until.is_some());
    assert!(host.reads.is_empty(), "the other waits");
    cluster.exchange();
    cluster.exchange();
    let host = &mut cluster.hosts[leader];
    host.run();
    let by_quorum = host.reads.pop().expect("a majority was asked");
    assert_eq!(by_quorum.lease_until, None);
}

/// So many reads come in at once; what their clients hear.
fn read_at_once(host: &mut Host, reads: usize, deadline: Option<u64>) -> Vec<Heard> {
    let read = |_| {
        let (mut request, heard) = counting_read(ReadBasis::Quorum);
        request.deadline = deadline;
        host.inputs.push_back(DriverInput::Read(request));
        heard
    };
    (0..reads).map(read).collect()
}

fn refused_with(heard: &[Heard], error: &RequestError) -> usize {
    let is_it = |heard: &&Heard| {
        let heard = heard.lock().expect("unpoisoned");
        heard
            .as_ref()
            .is_some_and(|answer| answer.as_ref() == Err(error))
    };
    heard.iter().filter(is_it).count()
}

#[test]
fn reads_that_come_together_share_one_round_and_one_question() {
    // Asked one by one, the first would begin a round, and all others wait for it and for the next.
    let (mut cluster, leader) = Cluster::elected();
    let follower = (leader + 1) % 3;
    let _hear = read_at_once(&mut cluster.hosts[leader], 50, None);
    cluster.exchange();
    cluster.exchange();
    cluster.hosts[leader].run();
    assert_eq!(
        cluster.hosts[leader].reads.len(),
        50,
        "one round has answered all"
    );
    assert!(cluster.hosts[leader].sent.is_empty(), "and no other began");

    let _hear = read_at_once(&mut cluster.hosts[follower], 50, None);
    // The question, the leader's round, its answers, the answer.
    for _ in 0..4 {
        cluster.exchange();
    }
    cluster.hosts[follower].run();
    assert_eq!(cluster.hosts[follower].reads.len(), 50);
    assert!(cluster.hosts.iter().all(|host| host.sent.is_empty()));
}

#[test]
fn reads_that_wait_are_bounded_and_each_ends_with_its_own_deadline() {
    // A leader that has lost its quorum would gather them for ever.
    let (mut cluster, leader) = Cluster::elected();
    let host = &mut cluster.hosts[leader];
    let max = host.driver.raft().config().reads_max;
    let busy = RequestError::Busy {
        why: BusyReason::Reads,
    };
    let soon = read_at_once(host, 10, Some(host.tick + 2));
    let many = read_at_once(host, max, None);
    host.run();
    assert_eq!(
        (refused_with(&soon, &busy), refused_with(&many, &busy)),
        (0, 10)
    );
    let more = read_at_once(host, 5, None);
    host.run();
    assert_eq!(
        (refused_with(&more, &busy), host.driver.waiting_reads()),
        (5, max)
    );
    host.tick += 2;
    host.run();
    let late = RequestError::Rejected {
        reason: RejectReason::Expired,
        leader: None,
    };
    assert_eq!(
        (refused_with(&soon, &late), refused_with(&many, &late)),
        (10, 0)
    );

    // Whoever comes with the end, or after it, hears of it.
    let stopped = RequestError::Rejected {
        reason: RejectReason::Stopped,
        leader: None,
    };
    let mut last = read_at_once(host, 3, None);
    let stop = DriverInput::Stop(StopReason::Shutdown);
    host.inputs.push_back(stop);
    last.extend(read_at_once(host, 3, None));
    host.run();
    last.extend(read_at_once(host, 3, None));
    host.run();
    assert_eq!(refused_with(&last, &stopped), 9);
    assert_eq!(refused_with(&many, &stopped), max - 10);
    assert_eq!(host.driver.waiting_reads(), 0);
}

#[test]
fn black_holed_bulk_connection_is_made_anew() {
    // RULES.md 12: heartbeats come back, appends vanish. Without a new connection the peer would hang
    // there for ever, and the leader with it where it is needed.
    let (mut cluster, leader) = Cluster::elected();
    let peer = (leader + 1) % 3;
    cluster.black_hole = Some(peer);
    for _ in 0..100 {
        cluster.hosts[leader].propose();
        cluster.tick();
    }
    let host = &cluster.hosts[leader];
    assert_eq!(
        host.driver.raft().role(),
        RoleKind::Leader,
        "one peer is enough"
    );
    let expected = NodeId(peer as u64 + 1);
    assert!(
        host.redials.len() >= 2,
        "asked for again: {:?}",
        host.redials
    );
    assert!(host.redials.iter().all(|redialled| *redialled == expected));
    let patience = u64::from(host.driver.raft().config().election_ticks);
    assert!(
        host.redials.len() as u64 <= 100 / patience + 1,
        "not at once"
    );
    cluster.black_hole = None;
    cluster.settle_in(200);
}

#[test]
fn commands_that_wait_for_the_disk_share_its_next_sync() {
    // RULES.md 22: nothing but the disk paces group commits. While one sync is under way all that
    // comes gathers, and the next sync makes it durable at once.
    let dir = scratch();
    let mut settings = options(1, &dir);
    // The sync that waits at the gate must be that of the first command, not of a receipt.
    settings.wal.receipt_idle_ticks = 1 << 40;
    Node::bootstrap(&settings, &membership(1)).expect("bootstrapped");
    let gate = Gate::default();
    settings.disk = Arc::new(StallDisk::new(Arc::clone(&settings.disk), gate.clone()));
    let node = Node::start(settings, Box::<Journal>::default()).expect("started");
    let quiet = node.wait_for(DEADLINE, |status| {
        status.role == RoleKind::Leader && status.applied == status.last.index
    });
    quiet.expect("it leads");
    gate.close(&[DiskOp::SyncData]);
    let (answered, answers) = std::sync::mpsc::channel::<Outcome>();
    let submit = |i: u64| {
        let answered = answered.clone();
        let responder = Responder::call(move |outcome| {
            let _ = answered.send(outcome);
        });
        node.submit(Bytes::copy_from_slice(&i.to_le_bytes()), responder);
    };
    submit(0);
    gate.wait_until_waiting(1);
    let first = node.wait_for(DEADLINE, |status| status.last.index >= Index(2));
    let first = first.expect("in the log");
    // As of the turn that appended it; its own commit is under way.
    let before = first.counters.commits;
    let first = first.last.index.0;
    // One after the other, so that each is a write of its own; fewer than may be under way.
    for i in 1..=8 {
        submit(i);
        let there = node.wait_for(DEADLINE, |status| status.last.index.0 >= first + i);
        there.expect("in the log");
    }
    assert!(answers.try_recv().is_err(), "nothing is durable yet");
    gate.open();
    for _ in 0..=8 {
        let outcome = answers.recv_timeout(DEADLINE).expect("answered");
        outcome.expect("applied");
    }
    let done = node.wait_for(DEADLINE, |status| status.counters.commits >= before + 2);
    done.expect("two commits");
    submit(9);
    let outcome = answers.recv_timeout(DEADLINE).expect("answered");
    outcome.expect("applied");
    let after = node.wait_for(DEADLINE, |status| status.counters.commits > before + 2);
    let after = after.expect("one more").counters.commits;
    assert_eq!(
        after,
        before + 3,
        "one for the first, one for eight, one for the last"
    );
    node.shutdown();
}

#[test]
fn every_bound_is_compared_with_the_largest_batch_at_start() {
    // RULES.md 6: a batch that fits the cluster's constant must fit slots, frames and queues.
    let dir = scratch();
    let mut settings = options(1, &dir);
    let peers = BTreeMap::from([(NodeId(2), String::from("127.0.0.1:1"))]);
    let tcp = TcpOptions::new(peers);
    settings.network = Network::Tcp {
        listen: "127.0.0.1:0".into(),
        options: tcp.clone(),
    };
    settings.wal.slot_bytes = 16 << 20;
    settings.core.max_batch_bytes = 1 << 20;
    assert_eq!(settings.validate(), []);
    let fields = |settings: &duraft::NodeOptions| -> Vec<String> {
        settings.validate().into_iter().map(|p| p.field).collect()
    };
    let with = |change: &dyn Fn(&mut duraft::NodeOptions, &mut TcpOptions)| {
        let (mut settings, mut tcp) = (settings.clone(), tcp.clone());
        change(&mut settings, &mut tcp);
        settings.network = Network::Tcp {
            listen: "127.0.0.1:0".into(),
            options: tcp,
        };
        fields(&settings)
    };
    let slot = with(&|settings, _| settings.wal.slot_bytes = 1 << 20);
    assert!(
        slot.iter().any(|field| field == "wal.slot_bytes"),
        "{slot:?}"
    );
    // Several batches go into one write: the slot must hold the largest append, too.
    let append = with(&|settings, tcp| {
        settings.wal.slot_bytes = 4 << 20;
        settings.core.append_bytes_max = 8 << 20;
        tcp.frame_bytes_max = 16 << 20;
    });
    assert_eq!(append, ["wal.slot_bytes"]);
    let frame = with(&|_, tcp| tcp.frame_bytes_max = 1 << 20);
    assert_eq!(
        frame, ["network.options.frame_bytes_max"; 1],
        "one batch and its header"
    );
    let queue = with(&|_, tcp| tcp.bulk_queue_bytes_max = 1 << 20);
    assert_eq!(queue, ["network.options.bulk_queue_bytes_max"]);
    let larger = with(&|settings, _| settings.core.max_batch_bytes = 8 << 20);
    let named = |name: &str| larger.iter().any(|field| field == name);
    assert!(named("network.options.frame_bytes_max"), "{larger:?}");
}
