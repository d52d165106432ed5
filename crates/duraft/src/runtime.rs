//! The threads of a node, and what they share.
//!
//! Each thread runs one loop around one queue. They end when their queue is closed, in the order of
//! [`Runtime::end`]: first the raft thread, which answers the waiting clients, then the transport,
//! then those that served it.

mod applying;
mod loops;
mod snapshots;
mod stages;
mod transfers;

use crate::apply::{Applier, StateMachine};
use crate::clock::{Clock, monotonic};
use crate::driver::{Driver, DriverInput};
use crate::events::{EventRing, NodeEvent};
use crate::node::StartError;
use crate::options::{Network, NodeOptions};
use crate::outcome::{RejectReason, RequestError, StopReason};
use crate::queue::Queue;
use crate::reads::{ReadJob, ReadRequest, ReadWork};
use crate::responder::{Gate, Responder};
use crate::start;
use crate::stats::{Stage, Stages, Stats};
use crate::status::{Counters, SnapshotStatus, Status};
use crate::transfer::{TransferInput, Transfers};
use crate::transport::{Inbox, Local, TcpTransport, Transport};
use applying::{ApplyLoop, ApplyWork};
use duraft_core::{Completion, Incarnation, Index, Membership, NodeId, Raft, ReadBasis, mix64};
use duraft_storage::{Entropy, Pipeline, PipelineEvent, PipelineThread, Recovered, SnapshotStore};
use loops::{LoadLoop, RaftLoop};
use snapshots::{TakeLoop, TakeWork};
use transfers::TransferLoop;

pub use loops::load_error;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// As asked: what was submitted to the log is finished.
    Quiet,
    /// As in a crash: what is not durable yet is forgotten.
    Abrupt,
}

/// A running node.
pub(crate) struct Runtime {
    shared: Arc<Shared>,
    transport: Option<Arc<dyn Transport>>,
    threads: Mutex<Threads>,
    ended: Condvar,
}

struct Threads {
    raft: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    /// Those that end after the log.
    last: Vec<JoinHandle<()>>,
    log: Option<Arc<PipelineThread>>,
    own: Vec<ThreadId>,
    /// An `end` is under way or done.
    ending: bool,
    done: bool,
}

/// What the threads and the handles share.
pub(crate) struct Shared {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) gate: Arc<Gate>,
    pub(crate) inbox: Arc<Queue<DriverInput>>,
    pub(crate) events: Arc<EventRing>,
    pub(crate) propose_timeout: Option<Duration>,
    pub(crate) stages: Arc<Stages>,
    work: Queue<ApplyWork>,
    loads: Queue<duraft_core::Load>,
    taking: Queue<TakeWork>,
    /// Nothing ever comes; closed, it ends the thread that hands metrics over.
    #[cfg(feature = "metrics")]
    exporting: Queue<()>,
    transfers: Arc<Queue<TransferInput>>,
    /// A snapshot is being taken.
    snapshot_busy: AtomicBool,
    /// The node ends: what is queued for the state machine is dropped.
    ending: AtomicBool,
    applied: Applied,
    published: Mutex<Published>,
    changed: Condvar,
}

/// Counts kept by the apply thread.
#[derive(Default)]
struct Applied {
    index: AtomicU64,
    commands: AtomicU64,
    batches: AtomicU64,
}

struct Published {
    status: Status,
    version: u64,
    watchers: usize,
}

impl Shared {
    pub(crate) fn status(&self) -> Status {
        self.complete(self.published.lock().status.clone())
    }

    /// Adds what is not published by turns.
    fn complete(&self, mut status: Status) -> Status {
        status.commands_waiting = self.gate.commands();
        status.command_bytes_waiting = self.gate.bytes();
        status.applied = Index(self.applied.index.load(Ordering::Acquire));
        status.counters.commands_applied = self.applied.commands.load(Ordering::Relaxed);
        status.counters.batches_applied = self.applied.batches.load(Ordering::Relaxed);
        status
    }

    /// See [`Node::wait_for`](crate::Node::wait_for).
    pub(crate) fn wait_for(
        &self,
        until: Instant,
        condition: &mut dyn FnMut(&Status) -> bool,
    ) -> Option<Status> {
        loop {
            let (status, version) = {
                let published = self.published.lock();
                (published.status.clone(), published.version)
            };
            let status = self.complete(status);
            if condition(&status) {
                return Some(status);
            }
            let mut published = self.published.lock();
            published.watchers += 1;
            let mut late = false;
            while published.version == version && !late {
                late = self.changed.wait_until(&mut published, until).timed_out();
            }
            published.watchers -= 1;
            if late {
                let status = self.complete(published.status.clone());
                drop(published);
                return condition(&status).then_some(status);
            }
        }
    }

    /// Changes the published status and wakes those who wait for a change.
    fn publish(&self, change: impl FnOnce(&mut Status)) {
        let mut published = self.published.lock();
        change(&mut published.status);
        published.version += 1;
        if published.watchers > 0 {
            self.changed.notify_all();
        }
    }

    /// Wakes those who wait for a change that is not published by turns.
    fn touch(&self) {
        self.publish(|_| {});
    }

    /// The node has stopped for good; the first reason stands.
    fn stopped(&self, reason: StopReason) {
        let mut first = false;
        self.publish(|status| {
            if status.stopped.is_none() {
                status.stopped = Some(reason.clone());
                first = true;
            }
        });
        if first {
            if reason == StopReason::Shutdown {
                tracing::info!(node = self.id.0, "the node stopped: {reason}");
            } else {
                tracing::error!(node = self.id.0, "the node stopped: {reason}");
            }
            self.events.publish(NodeEvent::Stopped(reason));
        }
    }

    /// Lets the apply thread read at once.
    pub(crate) fn read_stale(&self, job: ReadJob) {
        let request = ReadRequest {
            basis: ReadBasis::Quorum,
            deadline: None,
            job,
        };
        let work = ApplyWork::Read(ReadWork {
            index: Index(0),
            lease_until: None,
            request,
        });
        if let Err(ApplyWork::Read(work)) = self.work.push_exempt(work) {
            work.request.job.fail(RequestError::Rejected {
                reason: RejectReason::Stopped,
                leader: None,
            });
        }
    }

    /// Has the apply thread take a snapshot.
    pub(crate) fn take_snapshot(&self, responder: Responder<SnapshotStatus>) {
        // Dropped work answers its client.
        let _ = self.work.push_exempt(ApplyWork::Snapshot(Some(responder)));
    }

    /// Tells the driver; where it is gone already, nobody needs to know.
    pub(crate) fn tell_driver(&self, input: DriverInput) {
        let _ = self.inbox.push_exempt(input);
    }

    fn complete_for(&self, generation: u64, completion: Completion) {
        self.tell_driver(DriverInput::Completed {
            generation,
            completion,
        });
    }
}

impl Runtime {
    /// Opens the store and starts all threads.
    pub(crate) fn start(
        options: NodeOptions,
        machine: Box<dyn StateMachine>,
        entropy: Entropy,
    ) -> Result<Runtime, StartError> {
        let driver_options = options.driver();
        let group = options.core.group;
        let (wal, mut recovered) = duraft_storage::open(
            Arc::clone(&options.disk),
            &options.identity(),
            options.wal.clone(),
            entropy,
        )?;
        let reader = wal.reader();
        let generation = recovered.generation;
        let found = recovered.groups.remove(&group);
        let snapshots = SnapshotStore::open_with(
            Arc::clone(&options.disk),
            options.cluster,
            group,
            options.snapshots,
        )?;
        let parts = start::Parts {
            group,
            incarnation: incarnation(&recovered),
            found: found.ok_or(StartError::NoGroup(group))?,
            policy: options.wal.policy,
            reader: &reader,
            snapshots: &snapshots,
        };
        let begun = start::begin(parts, machine)?;
        let incarnation = begun.boot.incarnation;
        let damage = begun.boot.damage.clone();
        let snapshot = begun.boot.snapshot.clone();
        let members = start::latest_membership(&begun.boot).clone();
        let raft = Raft::new(options.core.clone(), begun.boot).map_err(StartError::Boot)?;
        let transport = make_transport(&options, &members)?;
        let driver = Driver::new(raft, generation, driver_options);
        let shared = Arc::new(Shared::new(&options, &driver, &begun.applier));
        let mut runtime = Runtime {
            shared: Arc::clone(&shared),
            transport,
            threads: Mutex::new(Threads {
                raft: None,
                workers: Vec::new(),
                last: Vec::new(),
                log: None,
                own: Vec::new(),
                ending: false,
                done: false,
            }),
            ended: Condvar::new(),
        };
        // From here on an early return drops `runtime`, which ends what was started.
        let log = runtime.start_log(wal, &options)?;
        if damage.is_some() {
            shared.events.publish(NodeEvent::Damaged);
        }
        shared.publish(|status| {
            status.snapshot = snapshot.as_ref().map(SnapshotStatus::of);
            status.damage = damage.map(Arc::new);
        });
        let applier = ApplyLoop::new(
            Arc::clone(&shared),
            generation,
            begun.applier,
            snapshots.clone(),
            options.snapshot_log_bytes,
        );
        runtime.start_worker("duraft-apply", "apply", move || applier.run())?;
        let seed = mix64(entropy.seed ^ generation);
        let taker = TakeLoop::new(
            Arc::clone(&shared),
            generation,
            snapshots.clone(),
            seed,
            snapshot,
        );
        runtime.start_worker("duraft-snap", "snapshot", move || taker.run())?;
        let loader = LoadLoop::new(Arc::clone(&shared), generation, options.core.group, reader);
        runtime.start_worker("duraft-load", "load", move || loader.run())?;
        if let Some(transport) = runtime.transport.clone() {
            let local = Local {
                cluster: options.cluster.0,
                node: options.core.id,
                incarnation,
                max_batch_bytes: options.core.max_batch_bytes,
                append_bytes_max: options.largest_append(),
            };
            let mover = TransferLoop::new(
                Arc::clone(&shared),
                generation,
                group,
                local,
                Transfers::new(options.transfer, incarnation, snapshots.clone()),
                Arc::clone(&transport),
            );
            runtime.start_worker("duraft-move", "transfer", move || mover.run())?;
            let inbox = Inbox::new(Arc::clone(&shared.inbox), Arc::clone(&shared.transfers));
            transport
                .start(local, inbox)
                .map_err(|source| io_error("start the transport", source))?;
        }
        #[cfg(feature = "metrics")]
        if let Some(every) = options.metrics_interval {
            runtime.start_exporter(every)?;
        }
        let raft_loop = RaftLoop::new(shared, driver, log, runtime.transport.clone());
        runtime.start_raft(raft_loop)?;
        Ok(runtime)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// See [`Node::stats`](crate::Node::stats).
    pub(crate) fn stats(&self) -> Stats {
        stats(&self.shared, self.transport.as_deref())
    }

    /// Starts the thread that hands what is measured to the `metrics` facade, a last time when it
    /// ends.
    #[cfg(feature = "metrics")]
    fn start_exporter(&mut self, every: Duration) -> Result<(), StartError> {
        let (shared, transport) = (Arc::clone(&self.shared), self.transport.clone());
        let mut exporter = crate::metrics::Exporter::new(self.shared.id.to_string());
        self.start_worker("duraft-metrics", "metrics", move || {
            let mut nothing = std::collections::VecDeque::new();
            loop {
                let until = Instant::now() + every;
                let ended = shared.exporting.take_all(&mut nothing, Some(until));
                exporter.export(&shared.status(), stats(&shared, transport.as_deref()));
                if ended == crate::queue::Taken::Closed {
                    return;
                }
            }
        })?;
        let threads = self.threads.get_mut();
        threads.last.extend(threads.workers.pop());
        Ok(())
    }

    /// See [`Node::set_peer_address`](crate::Node::set_peer_address).
    pub(crate) fn set_peer_address(
        &self,
        peer: NodeId,
        address: Option<String>,
    ) -> Result<(), RequestError> {
        match &self.transport {
            Some(transport) if transport.set_peer(peer, address) => Ok(()),
            Some(_) | None => Err(RequestError::Rejected {
                reason: RejectReason::NoAddresses,
                leader: None,
            }),
        }
    }

    fn start_log(
        &self,
        wal: duraft_storage::Wal,
        options: &NodeOptions,
    ) -> Result<Arc<PipelineThread>, StartError> {
        let shared = Arc::clone(&self.shared);
        let report = move |event: PipelineEvent| match event {
            PipelineEvent::Durable(durable) => shared.complete_for(
                durable.generation,
                Completion::Persisted { upto: durable.upto },
            ),
            PipelineEvent::Failed {
                generation, error, ..
            } => {
                tracing::error!(node = shared.id.0, "the log failed: {error}");
                shared.complete_for(generation, Completion::WriteFailed);
            }
            PipelineEvent::StorageLow => shared.events.publish(NodeEvent::StorageLow),
        };
        let mut pipeline = Pipeline::new(wal, options.wal.clone());
        let stages = Arc::clone(&self.shared.stages);
        pipeline.wal().watch_commits(monotonic, move |times| {
            stages.record(Stage::Encode, times.encode);
            stages.record(Stage::Write, times.write);
            stages.record(Stage::Sync, times.sync);
        });
        let log = PipelineThread::spawn(pipeline, options.tick, Box::new(report))
            .map_err(|source| io_error("start the log thread", source))?;
        let log = Arc::new(log);
        self.threads.lock().log = Some(Arc::clone(&log));
        Ok(log)
    }

    fn start_raft(&mut self, raft_loop: RaftLoop) -> Result<(), StartError> {
        let thread = self.spawn("duraft-raft", "raft", move || raft_loop.run())?;
        let threads = self.threads.get_mut();
        threads.own.push(thread.thread().id());
        threads.raft = Some(thread);
        Ok(())
    }

    fn start_worker(
        &mut self,
        name: &str,
        what: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = self.spawn(name, what, body)?;
        let threads = self.threads.get_mut();
        threads.own.push(thread.thread().id());
        threads.workers.push(thread);
        Ok(())
    }

    /// A thread whose panic, a bug of ours, stops the node instead of leaving it half alive.
    fn spawn(
        &self,
        name: &str,
        what: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        let shared = Arc::clone(&self.shared);
        let guarded = move || {
            // What is logged on the thread says whose it is.
            let _span = tracing::info_span!("duraft", node = shared.id.0, thread = what).entered();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                let reason = StopReason::ThreadPanicked {
                    thread: what,
                    message: crate::apply::panic_message(panic.as_ref()),
                };
                shared.stopped(reason.clone());
                shared.tell_driver(DriverInput::Stop(reason));
                if what == "raft" {
                    shared.inbox.close();
                    shared.inbox.discard();
                }
            }
        };
        std::thread::Builder::new()
            .name(format!("{name}-{}", self.shared.id))
            .spawn(guarded)
            .map_err(|source| io_error("start a thread", source))
    }

    /// Ends the node, once; later calls wait for the first, unless they come from a thread of the
    /// node. Returns why the node stopped.
    pub(crate) fn end(&self, how: End) -> StopReason {
        let current = std::thread::current().id();
        let (raft, workers, log, last) = {
            let mut threads = self.threads.lock();
            if threads.ending {
                while !threads.done && !threads.own.contains(&current) {
                    self.ended.wait(&mut threads);
                }
                return self.reason();
            }
            threads.ending = true;
            (
                threads.raft.take(),
                std::mem::take(&mut threads.workers),
                threads.log.take(),
                std::mem::take(&mut threads.last),
            )
        };
        let join = |thread: JoinHandle<()>| {
            if thread.thread().id() != current {
                // Its panic, if any, was caught and reported inside.
                let _ = thread.join();
            }
        };
        self.shared.ending.store(true, Ordering::SeqCst);
        self.shared
            .tell_driver(DriverInput::Stop(StopReason::Shutdown));
        self.shared.inbox.close();
        raft.into_iter().for_each(join);
        self.shared.inbox.discard();
        if let Some(transport) = &self.transport {
            transport.stop();
        }
        self.shared.work.close();
        self.shared.loads.close();
        self.shared.taking.close();
        self.shared.transfers.close();
        workers.into_iter().for_each(join);
        if let Some(log) = log {
            match how {
                End::Quiet => log.shutdown(),
                End::Abrupt => log.abandon(),
            }
        }
        self.shared.stopped(StopReason::Shutdown);
        #[cfg(feature = "metrics")]
        self.shared.exporting.close();
        last.into_iter().for_each(join);
        self.shared.events.close();
        self.threads.lock().done = true;
        self.ended.notify_all();
        self.reason()
    }

    fn reason(&self) -> StopReason {
        let stopped = self.shared.published.lock().status.stopped.clone();
        stopped.unwrap_or(StopReason::Shutdown)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end(End::Abrupt);
    }
}

impl Shared {
    fn new(options: &NodeOptions, driver: &Driver, applier: &Applier) -> Shared {
        let raft = driver.raft();
        let status = Status {
            id: raft.id(),
            incarnation: raft.incarnation(),
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            commit: raft.commit(),
            applied: applier.position().index(),
            durable: raft.durable(),
            last: raft.last().id,
            membership: Arc::new(raft.membership().clone()),
            snapshot: None,
            damage: None,
            stopped: None,
            commands_waiting: 0,
            command_bytes_waiting: 0,
            counters: Counters::default(),
        };
        Shared {
            id: options.core.id,
            clock: Clock::new(options.tick),
            gate: Gate::new(options.commands_max, options.command_bytes_max),
            inbox: Arc::new(Queue::new(options.inbox_bytes_max)),
            events: EventRing::new(options.events_max),
            propose_timeout: options.propose_timeout,
            stages: Arc::default(),
            // Bounded by core.unapplied_bytes_max and by the few loads that the core has under way.
            work: Queue::new(u64::MAX),
            loads: Queue::new(u64::MAX),
            taking: Queue::new(u64::MAX),
            #[cfg(feature = "metrics")]
            exporting: Queue::new(0),
            // What a sender may have on its way, and what it repeats of it.
            transfers: Arc::new(Queue::new(2 * options.transfer.window_bytes)),
            snapshot_busy: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            applied: Applied {
                index: AtomicU64::new(status.applied.0),
                ..Applied::default()
            },
            published: Mutex::new(Published {
                status,
                version: 0,
                watchers: 0,
            }),
            changed: Condvar::new(),
        }
    }
}

/// The number of this life, greater than those of all lives before it, also where the node's store was
/// made anew: peers do not listen to a life after they have heard a later one. The store's birth in
/// seconds, then its openings.
fn incarnation(recovered: &Recovered) -> Incarnation {
    let born = recovered.created_ns / 1_000_000_000;
    let opened = recovered.generation & u64::from(u32::MAX);
    Incarnation(born << 32 | opened)
}

fn make_transport(
    options: &NodeOptions,
    members: &Membership,
) -> Result<Option<Arc<dyn Transport>>, StartError> {
    let others = members.members().filter(|id| *id != options.core.id);
    match &options.network {
        Network::None => {
            let unknown: Vec<NodeId> = others.collect();
            if unknown.is_empty() {
                Ok(None)
            } else {
                Err(StartError::UnknownPeers(unknown))
            }
        }
        Network::Tcp {
            listen,
            options: tcp,
        } => {
            let unknown: Vec<NodeId> = others.filter(|id| !tcp.peers.contains_key(id)).collect();
            if !unknown.is_empty() {
                return Err(StartError::UnknownPeers(unknown));
            }
            let failed = |source| io_error(&format!("listen on {listen}"), source);
            let listener = TcpListener::bind(listen).map_err(failed)?;
            let transport = TcpTransport::new(listener, tcp.clone()).map_err(failed)?;
            Ok(Some(Arc::new(transport)))
        }
        Network::Custom(transport) => Ok(Some(Arc::clone(transport))),
    }
}

fn stats(shared: &Shared, transport: Option<&dyn Transport>) -> Stats {
    Stats {
        stages: shared.stages.read(),
        transport: transport
            .map(|transport| transport.stats())
            .unwrap_or_default(),
    }
}

fn io_error(what: &str, source: io::Error) -> StartError {
    StartError::Io {
        what: what.to_string(),
        source,
    }
}
