//! Natural batching: one turn takes what is queued, commits it as one block, reports once per group.
//!
//! Nothing is delayed to make a batch larger. While one commit is on its way to the disk, the next
//! ones queue up; the slower the disk, the larger the commits. The pipeline holds no messages: what
//! must wait for durability waits in the core.

use crate::errors::WalError;
use crate::options::{Ablation, WalOptions};
use crate::pool::PoolStats;
use crate::preparer::Preparer;
use crate::reader::WalReader;
use crate::wal::{Submission, Wal, WalStats};
use duraft_core::{GroupId, WriteSeq};
use std::collections::{BTreeMap, VecDeque};

/// Every write of the group up to `upto` survives power loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable {
    /// The open generation whose writes are meant. Completions of another one are not ours.
    pub generation: u64,
    /// The group.
    pub group: GroupId,
    /// The last durable write.
    pub upto: WriteSeq,
}

/// What a turn has to tell.
#[derive(Clone, PartialEq, Debug)]
pub enum PipelineEvent {
    /// Writes became durable. At most one per group and turn.
    Durable(Durable),
    /// No write after the last `Durable` of its group will become durable in this life.
    Failed {
        /// The open generation.
        generation: u64,
        /// Why.
        error: WalError,
    },
    /// No slot is free for the next segment: queued writes wait. Said once until it changes.
    StorageLow,
}

/// The deterministic persistence pipeline: a log and the rules of when to write to it.
#[derive(Debug)]
pub struct Pipeline {
    wal: Wal,
    options: WalOptions,
    /// When the last commit was made, as the caller counts time.
    last_commit_at: u64,
    low: bool,
    failed: Option<WalError>,
    /// Highest write per group of the commit being made, kept for its memory.
    upto: BTreeMap<GroupId, WriteSeq>,
}

impl Pipeline {
    /// A pipeline into this log.
    pub fn new(wal: Wal, options: WalOptions) -> Pipeline {
        Pipeline {
            wal,
            options,
            last_commit_at: 0,
            low: false,
            failed: None,
            upto: BTreeMap::new(),
        }
    }

    /// One pass: makes one commit of what is queued, as much as fits, and reports it; or, where
    /// nothing is queued and nothing was for a while, writes a receipt. `now` counts ticks.
    ///
    /// After a failure every queued write is reported failed, now and at every later turn.
    pub fn turn(
        &mut self,
        now: u64,
        queue: &mut VecDeque<Submission>,
        events: &mut Vec<PipelineEvent>,
    ) {
        if queue.is_empty() {
            self.idle(now, events);
            return;
        }
        if let Some(error) = self.failed.clone() {
            self.fail(queue, error, events);
            return;
        }
        let admitted = self.wal.admit(queue.iter());
        if self.options.without(Ablation::ReportEarly) {
            self.report(queue.iter().take(admitted), events);
        }
        let (submissions, waiting) = queue.make_contiguous().split_at(admitted);
        match self.wal.commit(submissions) {
            Ok(()) => {
                self.last_commit_at = now;
                self.low = false;
                let also = self.options.without(Ablation::ReportQueued);
                let waiting = waiting.iter().filter(|_| also);
                let generation = self.wal.generation();
                let done = submissions.iter().chain(waiting);
                report(&mut self.upto, generation, done, events);
                queue.drain(..admitted);
            }
            // Nothing was written: the writes stay queued until there is a slot.
            Err(WalError::StorageFull) => {
                if !self.low {
                    events.push(PipelineEvent::StorageLow);
                }
                self.low = true;
            }
            Err(error) => {
                if self.options.without(Ablation::ReportFailed) {
                    self.report(queue.iter().take(admitted), events);
                }
                self.fail(queue, error, events);
            }
        }
    }

    fn report<'a>(
        &mut self,
        done: impl Iterator<Item = &'a Submission>,
        events: &mut Vec<PipelineEvent>,
    ) {
        report(&mut self.upto, self.wal.generation(), done, events);
    }

    /// A write that breaks the log's rules stops the pipeline like a failed disk: whoever sent it does
    /// not know what is durable.
    fn fail(
        &mut self,
        queue: &mut VecDeque<Submission>,
        error: WalError,
        events: &mut Vec<PipelineEvent>,
    ) {
        self.failed = Some(error.clone());
        queue.clear();
        let generation = self.wal.generation();
        events.push(PipelineEvent::Failed { generation, error });
    }

    fn idle(&mut self, now: u64, events: &mut Vec<PipelineEvent>) {
        let idle = now.saturating_sub(self.last_commit_at) >= self.options.receipt_idle_ticks;
        if !idle || self.failed.is_some() || !self.wal.wants_receipt() {
            return;
        }
        if let Err(error) = self.wal.receipt() {
            self.fail(&mut VecDeque::new(), error, events);
        }
    }

    /// When the next turn has something to do although nothing is queued.
    pub fn wants_turn_at(&self) -> Option<u64> {
        let wants = self.failed.is_none() && self.wal.wants_receipt();
        wants.then(|| {
            self.last_commit_at
                .saturating_add(self.options.receipt_idle_ticks)
        })
    }

    /// Writes wait for a slot.
    pub fn is_low(&self) -> bool {
        self.low
    }

    /// The log stopped; open the store again.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// A handle that reads what is durable.
    pub fn reader(&self) -> WalReader {
        self.wal.reader()
    }

    /// The preparer of this log's slots.
    pub fn preparer(&self) -> Preparer {
        self.wal.preparer()
    }

    /// What the log did in this life.
    pub fn stats(&self) -> WalStats {
        self.wal.stats()
    }

    /// What the slot pool holds.
    pub fn pool_stats(&self) -> PoolStats {
        self.wal.pool_stats()
    }

    /// The open generation.
    pub fn generation(&self) -> u64 {
        self.wal.generation()
    }

    /// The log, for what is not part of the pipeline.
    pub fn wal(&mut self) -> &mut Wal {
        &mut self.wal
    }

    /// The options.
    pub fn options(&self) -> &WalOptions {
        &self.options
    }

    /// Ends in order: proves the last commit and lets go of the store.
    pub fn close(self) -> Result<(), WalError> {
        if self.failed.is_some() {
            return Ok(());
        }
        self.wal.close()
    }
}

/// The last of these writes of each group, as events. `upto` is empty before and after.
fn report<'a>(
    upto: &mut BTreeMap<GroupId, WriteSeq>,
    generation: u64,
    done: impl Iterator<Item = &'a Submission>,
    events: &mut Vec<PipelineEvent>,
) {
    for submission in done {
        upto.insert(submission.group, submission.write.seq);
    }
    while let Some((group, upto)) = upto.pop_first() {
        events.push(PipelineEvent::Durable(Durable {
            generation,
            group,
            upto,
        }));
    }
}
