//! The apply thread: the user's state machine, its reads, and the answers to clients.

use super::Shared;
use super::snapshots::TakeWork;
use crate::apply::{Answer, Applier, ApplyBatch};
use crate::clock::boottime;
use crate::driver::DriverInput;
use crate::events::NodeEvent;
use crate::outcome::{BusyReason, RequestError, StopReason};
use crate::queue::Taken;
use crate::reads::{ReadDone, ReadWork};
use crate::responder::Responder;
use crate::start;
use crate::stats::Stage;
use crate::status::SnapshotStatus;
use duraft_core::{BatchKind, Completion, Snapshot};
use duraft_storage::SnapshotStore;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the apply thread is given to do.
pub(super) enum ApplyWork {
    /// Committed batches.
    Batches {
        /// In order.
        batches: Vec<ApplyBatch>,
        /// When they were handed over.
        since: Duration,
    },
    /// A read.
    Read(ReadWork),
    /// Another state, which a leader sent.
    Install(Snapshot),
    /// The log counts on this snapshot now.
    Retire(Snapshot),
    /// A snapshot is wanted, by a client or by the node itself.
    Snapshot(Option<Responder<SnapshotStatus>>),
}

/// See the module documentation.
pub(super) struct ApplyLoop {
    shared: Arc<Shared>,
    generation: u64,
    applier: Applier,
    answers: Vec<Answer>,
    reads: Vec<ReadDone>,
    snapshots: SnapshotStore,
    /// A snapshot is taken when so many bytes were applied since the last one.
    snapshot_log_bytes: Option<u64>,
}

impl ApplyLoop {
    pub(super) fn new(
        shared: Arc<Shared>,
        generation: u64,
        applier: Applier,
        snapshots: SnapshotStore,
        snapshot_log_bytes: Option<u64>,
    ) -> ApplyLoop {
        ApplyLoop {
            shared,
            generation,
            applier,
            answers: Vec::new(),
            reads: Vec::new(),
            snapshots,
            snapshot_log_bytes,
        }
    }

    /// Runs until the queue is closed or the state machine fails. Work that is not done is dropped,
    /// which answers its clients.
    pub(super) fn run(mut self) {
        let mut taken = VecDeque::new();
        loop {
            // Time matters only to reads that wait for an index.
            let tick = self.shared.clock.now();
            let wake = (self.applier.has_reads()).then(|| self.shared.clock.instant_of(tick + 1));
            match self.shared.work.take_all(&mut taken, wake) {
                Taken::Items | Taken::TimedOut => {}
                Taken::Closed => return,
            }
            self.applier.expire_reads(self.shared.clock.now());
            for work in taken.drain(..) {
                if let Err(reason) = self.perform(work) {
                    if let Some(reason) = reason {
                        self.shared.tell_driver(DriverInput::Stop(reason));
                    }
                    self.shared.work.close();
                    self.shared.work.discard();
                    return;
                }
            }
        }
    }

    /// Does one piece of work. An error ends the thread; without a reason, the node is ending.
    fn perform(&mut self, work: ApplyWork) -> Result<(), Option<StopReason>> {
        match work {
            ApplyWork::Batches { batches, since } => {
                for batch in batches {
                    self.check_ending()?;
                    self.apply(batch)?;
                    let took = self.shared.clock.elapsed().saturating_sub(since);
                    self.shared.stages.record(Stage::Apply, took);
                }
            }
            ApplyWork::Read(work) => {
                self.check_ending()?;
                self.applier.read(work, &mut self.reads);
                self.deliver_reads();
            }
            ApplyWork::Install(snapshot) => {
                self.check_ending()?;
                self.install(&snapshot)?;
            }
            ApplyWork::Retire(snapshot) => {
                let _ = self.shared.taking.push_exempt(TakeWork::Retire(snapshot));
            }
            ApplyWork::Snapshot(responder) => self.take_snapshot(responder)?,
        }
        Ok(())
    }

    /// Replaces the state by a snapshot's. Everything that was handed over before is applied already:
    /// it was committed, so applying it did no harm.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), StopReason> {
        start::restore(&self.snapshots, &mut self.applier, snapshot)?;
        let upto = snapshot.position.index();
        self.shared.applied.index.store(upto.0, Ordering::Release);
        self.shared
            .complete_for(self.generation, Completion::Applied { upto });
        self.shared.events.publish(NodeEvent::SnapshotInstalled {
            upto: snapshot.position.id,
        });
        self.applier.run_reads(&mut self.reads);
        self.deliver_reads();
        self.shared.touch();
        Ok(())
    }

    /// Takes a view of the state and has it written, unless one is being written already.
    fn take_snapshot(
        &mut self,
        responder: Option<Responder<SnapshotStatus>>,
    ) -> Result<(), StopReason> {
        if self.shared.snapshot_busy.swap(true, Ordering::AcqRel) {
            refuse(responder);
            return Ok(());
        }
        let Some(view) = self.applier.snapshot()? else {
            self.shared.snapshot_busy.store(false, Ordering::Release);
            refuse(responder);
            return Ok(());
        };
        let _ = self
            .shared
            .taking
            .push_exempt(TakeWork::Take { view, responder });
        Ok(())
    }

    fn check_ending(&self) -> Result<(), Option<StopReason>> {
        if self.shared.ending.load(Ordering::Relaxed) {
            Err(None)
        } else {
            Ok(())
        }
    }

    /// Applies one batch, answers its clients, tells the driver.
    fn apply(&mut self, batch: ApplyBatch) -> Result<(), StopReason> {
        let commands = match batch.batch.header.kind {
            BatchKind::Commands => u64::from(batch.batch.header.count),
            BatchKind::Noop | BatchKind::Membership => 0,
        };
        let result = self.applier.apply(batch, &mut self.answers);
        let upto = match result {
            Ok(upto) => upto,
            Err(reason) => {
                self.answers.drain(..).for_each(Answer::deliver);
                return Err(reason);
            }
        };
        let applied = &self.shared.applied;
        applied.index.store(upto.0, Ordering::Release);
        applied.commands.fetch_add(commands, Ordering::Relaxed);
        applied.batches.fetch_add(1, Ordering::Relaxed);
        self.shared
            .complete_for(self.generation, Completion::Applied { upto });
        self.answers.drain(..).for_each(Answer::deliver);
        self.applier.run_reads(&mut self.reads);
        self.deliver_reads();
        self.shared.touch();
        let due = self
            .snapshot_log_bytes
            .is_some_and(|bytes| self.applier.bytes_since_snapshot() >= bytes);
        if due {
            self.take_snapshot(None)?;
        }
        Ok(())
    }

    /// Answers the reads that have run, or asks again where a lease has ended in the meantime.
    fn deliver_reads(&mut self) {
        for read in self.reads.drain(..) {
            // Each looks at the clock itself: callbacks of the reads before take time.
            if let Err(late) = read.deliver(boottime()) {
                self.shared.tell_driver(DriverInput::Read(late));
            }
        }
    }
}

/// Tells who asked for a snapshot that one is being taken or restored.
fn refuse(responder: Option<Responder<SnapshotStatus>>) {
    if let Some(responder) = responder {
        let why = BusyReason::Snapshot;
        responder.answer(Err(RequestError::Busy { why }));
    }
}
