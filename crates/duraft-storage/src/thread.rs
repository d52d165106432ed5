//! The pipeline's thread, and the preparer's next to it: a bounded queue and two loops.
//!
//! The WAL thread does nothing with files but what [`Pipeline::turn`] does. Whoever submits never
//! waits for the disk, and the sink is called without a lock held.

use crate::pipeline::{Pipeline, PipelineEvent};
use crate::preparer::Preparer;
use crate::reader::WalReader;
use crate::threads::{self as thread, JoinHandle};
use crate::wal::{Submission, WalStats};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why a submission was not taken. It is given back.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full; events say when it moves.
    #[error("the queue of the log is full")]
    Full(Submission),
    /// The log has ended or failed.
    #[error("the log has ended")]
    Closed(Submission),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Finishes what is queued and finds room, then ends.
    Closing,
    /// Ends at once.
    Abandoned,
    /// The log failed, or the thread is gone.
    Ended,
}

struct Queue {
    submissions: VecDeque<Submission>,
    /// What each of them costs.
    costs: VecDeque<u64>,
    /// Bytes of submissions that are queued or in the commit under way.
    bytes: u64,
    /// Number of them.
    records: usize,
    phase: Phase,
    stats: WalStats,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued, or the phase changed.
    changed: Condvar,
    /// Wakes the preparer: a slot was used, or the phase changed.
    prepare: Condvar,
    bytes_max: u64,
    records_max: usize,
}

/// A pipeline on a thread of its own. Dropping it is a crash: what is queued is forgotten.
pub struct PipelineThread {
    shared: Arc<Shared>,
    reader: WalReader,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How long the preparer waits after the disk refused.
const RETRY_TICKS: u32 = 10;

impl PipelineThread {
    /// Starts the threads. A tick, in which receipts are counted, lasts `tick`; `sink` is called on
    /// the WAL thread.
    pub fn spawn(
        pipeline: Pipeline,
        tick: Duration,
        sink: Box<dyn FnMut(PipelineEvent) + Send>,
    ) -> io::Result<PipelineThread> {
        let options = pipeline.options();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                submissions: VecDeque::new(),
                costs: VecDeque::new(),
                bytes: 0,
                records: 0,
                phase: Phase::Open,
                stats: pipeline.stats(),
            }),
            changed: Condvar::new(),
            prepare: Condvar::new(),
            bytes_max: options.queue_bytes_max,
            records_max: options.queue_records_max,
        });
        let tick = tick.max(Duration::from_micros(1));
        let reader = pipeline.reader();
        let preparer = pipeline.preparer();
        let threads = Mutex::new(Vec::new());
        let started = PipelineThread {
            shared: Arc::clone(&shared),
            reader,
            threads,
        };
        // An early return drops `started`, which ends what was started.
        let preparing = Arc::clone(&shared);
        started.start("duraft-prepare", move || {
            prepare(&preparing, preparer, tick)
        })?;
        let turning = Turning {
            shared,
            pipeline,
            tick,
            begun: Instant::now(),
            sink,
            taken: VecDeque::new(),
            costs: VecDeque::new(),
        };
        started.start("duraft-wal", move || turning.run())?;
        Ok(started)
    }

    fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Queues a write. Never waits for the disk.
    #[allow(clippy::result_large_err)] // The submission is given back, not copied to the heap.
    pub fn submit(&self, submission: Submission) -> Result<(), SubmitError> {
        let cost = submission.cost();
        let mut queue = self.shared.queue.lock();
        if queue.phase != Phase::Open {
            return Err(SubmitError::Closed(submission));
        }
        let over = queue.bytes.saturating_add(cost) > self.shared.bytes_max
            || queue.records >= self.shared.records_max;
        if over && queue.records > 0 {
            return Err(SubmitError::Full(submission));
        }
        queue.bytes += cost;
        queue.records += 1;
        queue.submissions.push_back(submission);
        queue.costs.push_back(cost);
        let first = queue.submissions.len() == 1;
        drop(queue);
        if first {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// A handle that reads what is durable.
    pub fn reader(&self) -> WalReader {
        self.reader.clone()
    }

    /// What the log did in this life, as of the last turn.
    pub fn stats(&self) -> WalStats {
        self.shared.queue.lock().stats
    }

    /// Finishes what is queued, proves the last commit, and joins the threads. Where the log has said
    /// [`PipelineEvent::StorageLow`], what waits for a slot is forgotten: nothing was promised for it.
    /// Later calls do nothing.
    pub fn shutdown(&self) {
        self.end(Phase::Closing);
    }

    /// Forgets what is queued and joins the threads: what a crash leaves, without one.
    pub fn abandon(&self) {
        self.end(Phase::Abandoned);
    }

    fn end(&self, phase: Phase) {
        {
            let mut queue = self.shared.queue.lock();
            if queue.phase == Phase::Open || phase == Phase::Abandoned {
                queue.phase = phase;
            }
        }
        self.shared.changed.notify_all();
        self.shared.prepare.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The sink may end its own log; a thread cannot wait for itself. A panic in a thread was
            // reported by it and left the log ended.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for PipelineThread {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl std::fmt::Debug for PipelineThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queue = self.shared.queue.lock();
        f.debug_struct("PipelineThread")
            .field("phase", &queue.phase)
            .field("records", &queue.records)
            .finish_non_exhaustive()
    }
}

/// The WAL thread.
struct Turning {
    shared: Arc<Shared>,
    pipeline: Pipeline,
    tick: Duration,
    begun: Instant,
    sink: Box<dyn FnMut(PipelineEvent) + Send>,
    /// Submissions on their way to the disk, and what each costs.
    taken: VecDeque<Submission>,
    costs: VecDeque<u64>,
}

/// Marks the log as ended however its thread ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.lock().phase = Phase::Ended;
        self.0.prepare.notify_all();
    }
}

impl Turning {
    fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut events = Vec::new();
        loop {
            let phase = self.wait();
            let done = self.taken.is_empty() || self.pipeline.is_low();
            if phase == Phase::Closing && done {
                self.close();
                return;
            }
            if phase == Phase::Abandoned {
                return;
            }
            let before = self.taken.len();
            let rotations = self.pipeline.stats().rotations;
            let now = self.now();
            self.pipeline.turn(now, &mut self.taken, &mut events);
            self.account(before - self.taken.len(), rotations);
            events.drain(..).for_each(&mut self.sink);
            if self.pipeline.has_failed() {
                return;
            }
        }
    }

    /// Ticks since the thread began.
    fn now(&self) -> u64 {
        let ticks = self.begun.elapsed().as_nanos() / self.tick.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn instant_of(&self, tick: u64) -> Option<Instant> {
        let ticks = u32::try_from(tick).ok()?;
        self.begun.checked_add(self.tick.checked_mul(ticks)?)
    }

    /// Takes what is queued; waits while nothing is, until a receipt is due.
    fn wait(&mut self) -> Phase {
        // Writes that wait for a slot are tried again a tick later.
        let retry = self.pipeline.is_low().then(|| Instant::now() + self.tick);
        let receipt = self
            .pipeline
            .wants_turn_at()
            .and_then(|tick| self.instant_of(tick));
        let mut queue = self.shared.queue.lock();
        let mut timed_out = false;
        loop {
            // After a time-out too: what was queued meanwhile must not be left behind by a close.
            self.taken.append(&mut queue.submissions);
            self.costs.append(&mut queue.costs);
            let ready = !self.taken.is_empty() && retry.is_none();
            if queue.phase != Phase::Open || ready || timed_out {
                return queue.phase;
            }
            let changed = &self.shared.changed;
            match retry.or(receipt) {
                Some(until) => timed_out = changed.wait_until(&mut queue, until).timed_out(),
                None => changed.wait(&mut queue),
            }
        }
    }

    /// Frees the room of what is done, publishes the counters, wakes the preparer where a slot went.
    fn account(&mut self, done: usize, rotations: u64) {
        let freed: u64 = self.costs.drain(..done).sum();
        let stats = self.pipeline.stats();
        let mut queue = self.shared.queue.lock();
        queue.stats = stats;
        queue.records -= done;
        queue.bytes -= freed;
        drop(queue);
        if stats.rotations != rotations || self.pipeline.is_low() {
            self.shared.prepare.notify_one();
        }
    }

    fn close(mut self) {
        let generation = self.pipeline.generation();
        if let Err(error) = self.pipeline.close() {
            (self.sink)(PipelineEvent::Failed { generation, error });
        }
    }
}

/// The preparer's thread.
fn prepare(shared: &Shared, mut preparer: Preparer, tick: Duration) {
    loop {
        let refused = loop {
            match preparer.turn() {
                Ok(true) => {}
                Ok(false) => break false,
                Err(_) => break true,
            }
            if shared.queue.lock().phase != Phase::Open {
                return;
            }
        };
        let mut queue = shared.queue.lock();
        if queue.phase != Phase::Open {
            return;
        }
        if refused {
            let _ = shared.prepare.wait_for(&mut queue, tick * RETRY_TICKS);
        } else {
            shared.prepare.wait(&mut queue);
        }
        if queue.phase != Phase::Open {
            return;
        }
    }
}
