//! The loops of the raft and load threads.

use super::Shared;
use super::applying::ApplyWork;
use super::stages::Beginnings;
use crate::apply::ApplyBatch;
use crate::clock::boottime;
use crate::driver::{Driver, Effect, Now};
use crate::events::NodeEvent;
use crate::queue::Taken;
use crate::status::SnapshotStatus;
use crate::transfer::TransferInput;
use crate::transport::Transport;
use duraft_core::{Batch, Completion, Event, GroupId, Load, LoadError, LogId, RoleKind};
use duraft_storage::{PipelineThread, ReadError, Submission, SubmitError, WalReader};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The raft thread: turns of the driver, and the effects of each.
pub(super) struct RaftLoop {
    shared: Arc<Shared>,
    driver: Driver,
    log: Arc<PipelineThread>,
    transport: Option<Arc<dyn Transport>>,
    /// Writes that the log's queue had no room for, in order.
    overflow: VecDeque<Submission>,
    group: GroupId,
    open: Beginnings,
    /// When this turn began.
    now: Duration,
}

impl RaftLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        driver: Driver,
        log: Arc<PipelineThread>,
        transport: Option<Arc<dyn Transport>>,
    ) -> RaftLoop {
        RaftLoop {
            group: driver.raft().config().group,
            shared,
            driver,
            log,
            transport,
            overflow: VecDeque::new(),
            open: Beginnings::default(),
            now: Duration::ZERO,
        }
    }

    /// Runs until the inbox is closed and empty.
    pub(super) fn run(mut self) {
        let mut inputs = VecDeque::new();
        let mut effects = Vec::new();
        let mut tick = self.shared.clock.now();
        loop {
            let wake = self.shared.clock.instant_of(tick + 1);
            let taken = self.shared.inbox.take_all(&mut inputs, Some(wake));
            if taken == Taken::Closed {
                return;
            }
            self.now = self.shared.clock.elapsed();
            tick = self.shared.clock.ticks_in(self.now);
            for input in &inputs {
                self.open.received(input, self.now, &self.shared.stages);
            }
            self.driver.measure(&self.shared.stages, self.now);
            let now = Now {
                tick,
                boottime: boottime(),
            };
            self.driver.turn(now, &mut inputs, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.submit_overflow();
            self.publish();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(write) => {
                if self.driver.raft().role() == RoleKind::Leader {
                    self.open.placed(&write.append, self.now);
                }
                self.overflow.push_back(Submission {
                    group: self.group,
                    write,
                });
            }
            Effect::Send(envelope) => {
                self.open.sent(&envelope, self.now);
                // A write that is not even queued must not wait behind many messages.
                self.submit_overflow();
                if let Some(transport) = &self.transport {
                    transport.send(envelope);
                }
            }
            Effect::Apply(batches) => self.hand_over(batches),
            Effect::Load(load) => {
                // Closed only when the node ends.
                let _ = self.shared.loads.push_exempt(load);
            }
            Effect::Read(work) => self.give_work(ApplyWork::Read(work)),
            Effect::SendSnapshot { to, term, snapshot } => {
                let send = TransferInput::Send { to, term, snapshot };
                let _ = self.shared.transfers.push_exempt(send);
            }
            Effect::Redial(peer) => {
                if let Some(transport) = &self.transport {
                    transport.redial(peer);
                }
            }
            Effect::InstallSnapshot(snapshot) => self.give_work(ApplyWork::Install(snapshot)),
            Effect::TakeSnapshot => self.give_work(ApplyWork::Snapshot(None)),
            Effect::Retire(snapshot) => {
                // Said before anything is applied on top of it.
                let status = SnapshotStatus::of(&snapshot);
                self.shared
                    .publish(|published| published.snapshot = Some(status));
                let upto = status.upto;
                self.shared
                    .events
                    .publish(NodeEvent::SnapshotDurable { upto });
                self.give_work(ApplyWork::Retire(snapshot));
            }
            Effect::Fail(responder, error) => responder.answer(Err(error)),
            Effect::FailRead(job, error) => job.fail(error),
            Effect::Answer(responder, result) => responder.answer(result),
            Effect::Event(event) => match event {
                Event::Role { role, term, leader } => {
                    if role != RoleKind::Leader {
                        self.open.forget();
                    }
                    tracing::debug!(
                        node = self.shared.id.0,
                        ?role,
                        term = term.0,
                        leader = leader.map(|id| id.0),
                        "role"
                    );
                    let event = NodeEvent::Role { role, term, leader };
                    self.shared.events.publish(event);
                }
                Event::Membership { at, committed } => {
                    let event = NodeEvent::Membership { at, committed };
                    self.shared.events.publish(event);
                }
                Event::Healed => {
                    tracing::info!(node = self.shared.id.0, "the damage is repaired");
                    self.shared.publish(|status| status.damage = None);
                    self.shared.events.publish(NodeEvent::Healed);
                }
                // Reported once, as the reason of the stop that follows.
                Event::Halted(_) => {}
            },
            Effect::Stopped(reason) => self.shared.stopped(reason),
        }
    }

    fn hand_over(&mut self, batches: Vec<ApplyBatch>) {
        if let Some(last) = batches.last() {
            let upto: LogId = last.batch.header.last_id();
            self.open
                .committed(upto.index, self.now, &self.shared.stages);
            self.shared.events.publish(NodeEvent::Committed { upto });
        }
        let since = self.now;
        self.give_work(ApplyWork::Batches { batches, since });
    }

    /// Queues work for the apply thread. Dropped work answers its clients by itself.
    fn give_work(&self, work: ApplyWork) {
        let _ = self.shared.work.push_exempt(work);
    }

    /// Queues writes at the log, as far as it has room; the log's completions bring the next try.
    fn submit_overflow(&mut self) {
        while let Some(submission) = self.overflow.pop_front() {
            match self.log.submit(submission) {
                Ok(()) => {}
                Err(SubmitError::Full(submission)) => {
                    self.overflow.push_front(submission);
                    return;
                }
                // The log has failed or ended: it has said so, or the node is ending.
                Err(SubmitError::Closed(_)) => self.overflow.clear(),
            }
        }
    }

    fn publish(&self) {
        let raft = self.driver.raft();
        let log = self.log.stats();
        self.shared.publish(|status| {
            status.role = raft.role();
            status.term = raft.term();
            status.leader = raft.leader();
            status.commit = raft.commit();
            status.durable = raft.durable();
            status.last = raft.last().id;
            if *status.membership != *raft.membership() {
                status.membership = Arc::new(raft.membership().clone());
            }
            status.counters.turns += 1;
            status.counters.commits = log.commits;
            status.counters.fsyncs = log.fsyncs;
            status.counters.bytes_written = log.bytes_written;
        });
    }
}

/// The load thread: reads old batches, so that the raft thread never waits for a disk.
pub(super) struct LoadLoop {
    shared: Arc<Shared>,
    generation: u64,
    group: GroupId,
    reader: WalReader,
}

impl LoadLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        generation: u64,
        group: GroupId,
        reader: WalReader,
    ) -> LoadLoop {
        LoadLoop {
            shared,
            generation,
            group,
            reader,
        }
    }

    pub(super) fn run(self) {
        let mut taken = VecDeque::new();
        while self.shared.loads.take_all(&mut taken, None) == Taken::Items {
            for load in taken.drain(..) {
                if self.shared.ending.load(Ordering::Relaxed) {
                    return;
                }
                let completion = Completion::Loaded {
                    load: load.id,
                    result: self.read(&load),
                };
                self.shared.complete_for(self.generation, completion);
            }
        }
    }

    fn read(&self, load: &Load) -> Result<Vec<Batch>, LoadError> {
        let read = self
            .reader
            .read(self.group, load.first, load.last, load.bytes_max);
        read.map_err(|error| {
            tracing::warn!(node = self.shared.id.0, "cannot read batches: {error}");
            load_error(&error)
        })
    }
}

/// What a failed read means to the core.
pub fn load_error(error: &ReadError) -> LoadError {
    match error {
        ReadError::Compacted { .. } => LoadError::Compacted,
        ReadError::Disk(_) => LoadError::Io,
        // A range that the index does not hold as the core believes is no better than lost.
        ReadError::Corrupt { .. }
        | ReadError::UnknownGroup(_)
        | ReadError::PastEnd { .. }
        | ReadError::NotABoundary(_)
        | ReadError::Missing(_)
        | _ => LoadError::Corrupt,
    }
}
