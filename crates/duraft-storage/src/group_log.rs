//! The write-ahead log on its own: a durable log that many threads append to, without Raft.
//!
//! There is one place where commits are made, the *engine*, behind a lock. Whoever waits for its
//! ticket and finds the engine free makes the commit itself, on its own thread, for everyone whose
//! records are queued by then: one appender pays no hand-off. Whoever finds the engine busy sleeps.
//! Where records are left when a commit is done, the *keeper* takes over, a thread that commits back
//! to back as long as there is something, and otherwise writes receipts and sees to tickets that
//! nobody waits for.
//!
//! No record is forgotten: it is queued before the engine is looked at, and whoever lets go of the
//! engine looks at the queue afterwards and calls the keeper.
//!
//! # Example
//!
//! ```
//! use duraft_storage::GroupLog;
//!
//! let dir = tempfile::tempdir()?;
//! let log = GroupLog::open(dir.path())?;
//! // Many threads may append at once; what waits at the same time shares one sync.
//! let first = log.append(&[b"hello", b"world"])?;
//! let second = log.append(&[b"again"])?;
//! assert_eq!(first.wait()?.index().0, 2);
//! let end = second.wait()?; // durable from here on
//! log.close()?;
//!
//! let log = GroupLog::open(dir.path())?;
//! let commands = log.read(log.first(), u64::MAX)?;
//! let words: Vec<&[u8]> = commands.iter().map(|(_, command)| &command[..]).collect();
//! assert_eq!(words, [&b"hello"[..], b"world", b"again"]);
//! log.compact(end.index())?;
//! # log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::errors::{OpenError, ReadError, WalError};
use crate::format::checksum::commands_body;
use crate::options::{ClusterId, StoreIdentity, WalOptions};
use crate::preparer::Preparer;
use crate::reader::WalReader;
use crate::standalone::{NODE, covering, end_of, open_or_make};
use crate::threads::{self as thread, JoinHandle};
use crate::wal::{Submission, Wal, WalStats};
use bytes::Bytes;
use duraft_core::{
    Batch, BatchKind, Body, BodyError, Commands, DESCRIPTOR_BYTES, GroupId, Index, Position, Term,
    Write, WriteSeq,
};
use duraft_disk::{Disk, DiskError, RealDisk};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The only group of the store, and the only term of its log.
const GROUP: GroupId = GroupId(0);
const TERM: Term = Term(0);
const CLUSTER: ClusterId = ClusterId(*b"duraft group log");

/// How a log on its own behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupLogOptions {
    /// The log's own options. `queue_bytes_max` bounds what is queued.
    pub wal: WalOptions,
    /// Largest batch, in bytes. Fixed when the log is made.
    pub max_batch_bytes: u32,
    /// How often the keeper looks for tickets that nobody waits for, and the unit of
    /// `receipt_idle_ticks`.
    pub tick: Duration,
}

impl Default for GroupLogOptions {
    fn default() -> GroupLogOptions {
        GroupLogOptions {
            wal: WalOptions {
                receipt_idle_ticks: 20,
                ..WalOptions::default()
            },
            max_batch_bytes: 1 << 20,
            tick: Duration::from_millis(1),
        }
    }
}

/// Why a log on its own did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupLogError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The commands cannot be one batch.
    #[error(transparent)]
    Batch(#[from] BodyError),
    /// The commit was not made.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The commands cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The folder cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// See the module documentation. Dropping it without [`GroupLog::close`] is a crash, and safe.
pub struct GroupLog {
    core: Arc<Core>,
    reader: WalReader,
    threads: Vec<JoinHandle<()>>,
    max_batch_bytes: u32,
}

/// A promise of durability for one append.
#[must_use = "nothing is durable before `wait` returned"]
pub struct Ticket {
    core: Arc<Core>,
    state: Arc<TicketState>,
}

#[derive(Default)]
struct TicketState {
    outcome: Mutex<Option<Result<Position, Failed>>>,
    told: Condvar,
}

/// Why a queued batch was not committed.
#[derive(Clone)]
enum Failed {
    Wal(WalError),
    Batch(BodyError),
    Closed,
}

impl From<Failed> for GroupLogError {
    fn from(failed: Failed) -> GroupLogError {
        match failed {
            Failed::Wal(error) => GroupLogError::Wal(error),
            Failed::Batch(error) => GroupLogError::Batch(error),
            Failed::Closed => GroupLogError::Closed,
        }
    }
}

struct Core {
    inbox: Mutex<Inbox>,
    engine: Mutex<Engine>,
    keeper: Mutex<Keeper>,
    called: Condvar,
    bytes_max: u64,
    tick: Duration,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Waiting>,
    bytes: u64,
    closed: bool,
}

struct Waiting {
    body: Body,
    cost: u64,
    ticket: Arc<TicketState>,
}

struct Engine {
    /// `None` once the log is closed.
    wal: Option<Wal>,
    end: Position,
    seq: WriteSeq,
    taken: Vec<Waiting>,
    commit_bytes_max: u64,
}

#[derive(Default)]
struct Keeper {
    /// Records are left and nobody commits.
    called: bool,
    /// It sleeps without a timer: nothing is queued and nothing is unproven.
    asleep: bool,
    ended: bool,
}

impl GroupLog {
    /// Opens the log in a folder of the file system, with the default options; makes one where there
    /// is none.
    pub fn open(dir: impl AsRef<Path>) -> Result<GroupLog, GroupLogError> {
        let disk = RealDisk::create(dir.as_ref())?;
        GroupLog::open_on(Arc::new(disk), GroupLogOptions::default())
    }

    /// Opens the log on a disk; makes one where there is none.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: GroupLogOptions,
    ) -> Result<GroupLog, GroupLogError> {
        let identity = StoreIdentity {
            cluster: CLUSTER,
            node: NODE,
            max_batch_bytes: options.max_batch_bytes,
        };
        let (wal, recovered) = open_or_make(disk, &identity, &options.wal, &[GROUP])?;
        let end = end_of(&recovered.groups[&GROUP]);
        GroupLog::start(wal, end, options)
    }

    fn start(wal: Wal, end: Position, options: GroupLogOptions) -> Result<GroupLog, GroupLogError> {
        let reader = wal.reader();
        let preparer = wal.preparer();
        let commit_bytes_max = options.wal.commit_bytes_max.min(wal.commit_bytes_fit());
        let core = Arc::new(Core {
            inbox: Mutex::default(),
            engine: Mutex::new(Engine {
                wal: Some(wal),
                end,
                seq: WriteSeq(0),
                taken: Vec::new(),
                commit_bytes_max,
            }),
            keeper: Mutex::default(),
            called: Condvar::new(),
            bytes_max: options.wal.queue_bytes_max,
            tick: options.tick.max(Duration::from_micros(10)),
        });
        let mut log = GroupLog {
            core: Arc::clone(&core),
            reader,
            threads: Vec::new(),
            max_batch_bytes: options.max_batch_bytes,
        };
        let idle_ticks = options.wal.receipt_idle_ticks;
        let keeper = Arc::clone(&core);
        log.spawn("duraft-keeper", move || keeper.keep(idle_ticks))?;
        log.spawn("duraft-prepare", move || core.prepare(preparer))?;
        Ok(log)
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), GroupLogError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
        self.threads.push(thread.map_err(GroupLogError::Thread)?);
        Ok(())
    }

    /// Queues commands as one batch: all of them become durable, or none. Returns at once, unless
    /// too much is queued; [`Ticket::wait`] says when it is durable.
    pub fn append(&self, commands: &[&[u8]]) -> Result<Ticket, GroupLogError> {
        let body = commands_body(commands.iter().copied(), 0)?;
        self.append_body(body)
    }

    /// Queues a body made by [`commands_body`].
    pub fn append_body(&self, body: Body) -> Result<Ticket, GroupLogError> {
        let (len, max) = (body.bytes.len() as u64, self.max_batch_bytes.into());
        if len > max {
            return Err(BodyError::TooLong { len, max }.into());
        }
        let cost = DESCRIPTOR_BYTES + (body.bytes.len() as u64).next_multiple_of(8);
        let state = Arc::new(TicketState::default());
        let waiting = Waiting {
            body,
            cost,
            ticket: Arc::clone(&state),
        };
        self.core.push(waiting)?;
        Ok(Ticket {
            core: Arc::clone(&self.core),
            state,
        })
    }

    /// Index of the first command of the log, if it holds any.
    pub fn first(&self) -> Index {
        self.bounds().0.index().next()
    }

    /// The boundaries before the first and after the last durable batch.
    pub fn bounds(&self) -> (Position, Position) {
        self.reader
            .bounds(GROUP)
            .expect("the log has its one group")
    }

    /// Durable commands from the batch that holds `first` on, up to `bytes_max` bytes, but at least
    /// one batch. Empty at the end of the log.
    pub fn read(&self, first: Index, bytes_max: u64) -> Result<Vec<(Index, Bytes)>, GroupLogError> {
        let Some(begin) = self.reader.batch_holding(GROUP, first) else {
            return Ok(Vec::new());
        };
        let batches = self.reader.read(GROUP, begin, Index(u64::MAX), bytes_max)?;
        let mut commands = Vec::new();
        for batch in batches {
            let Batch { header, body } = batch;
            if header.kind != BatchKind::Commands {
                continue;
            }
            let parsed = Commands::parse(body, header.count)?;
            let indices = (header.first.0..).map(Index);
            commands.extend(
                indices
                    .zip(parsed.iter())
                    .filter(|(index, _)| *index >= first),
            );
        }
        Ok(commands)
    }

    /// Forgets whole batches that end at or before `upto`. Durable when it returns.
    pub fn compact(&self, upto: Index) -> Result<(), GroupLogError> {
        let mut engine = self.core.engine.lock();
        if let Some(boundary) = self.reader.boundary_upto(GROUP, upto) {
            engine.compact(boundary)?;
        }
        self.core.let_go(engine);
        Ok(())
    }

    /// Reads what is durable.
    pub fn reader(&self) -> WalReader {
        self.reader.clone()
    }

    /// What the log did in this life.
    pub fn stats(&self) -> WalStats {
        let engine = self.core.engine.lock();
        let stats = engine.wal.as_ref().map(Wal::stats).unwrap_or_default();
        self.core.let_go(engine);
        stats
    }

    /// Makes everything queued durable, proves it, and ends.
    pub fn close(mut self) -> Result<(), GroupLogError> {
        self.core.inbox.lock().closed = true;
        let mut engine = self.core.engine.lock();
        while engine.turn(&self.core) {}
        let wal = engine.wal.take();
        drop(engine);
        self.end();
        match wal {
            Some(wal) => Ok(wal.close()?),
            None => Ok(()),
        }
    }

    fn end(&mut self) {
        self.core.inbox.lock().closed = true;
        self.core.keeper.lock().ended = true;
        self.core.called.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread; the log is ending anyway.
            let _ = thread.join();
        }
    }
}

impl Drop for GroupLog {
    fn drop(&mut self) {
        self.end();
        let mut engine = self.core.engine.lock();
        engine.wal = None;
        engine.turn(&self.core);
    }
}

impl std::fmt::Debug for GroupLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupLog")
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// Waits until the append is durable. Returns the boundary after its batch.
    pub fn wait(self) -> Result<Position, GroupLogError> {
        loop {
            if let Some(outcome) = self.state.outcome.lock().take() {
                return Ok(outcome?);
            }
            if let Some(mut engine) = self.core.engine.try_lock() {
                // It may have been made while the lock was on its way.
                while self.state.outcome.lock().is_none() && engine.turn(&self.core) {}
                self.core.let_go(engine);
                if self.state.outcome.lock().is_none() {
                    return Err(GroupLogError::Closed);
                }
                continue;
            }
            let mut outcome = self.state.outcome.lock();
            while outcome.is_none() {
                self.state.told.wait(&mut outcome);
            }
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Core {
    fn push(&self, waiting: Waiting) -> Result<(), GroupLogError> {
        loop {
            let mut inbox = self.inbox.lock();
            if inbox.closed {
                return Err(GroupLogError::Closed);
            }
            let over = inbox.bytes.saturating_add(waiting.cost) > self.bytes_max;
            if !over || inbox.waiting.is_empty() {
                inbox.bytes += waiting.cost;
                inbox.waiting.push_back(waiting);
                break;
            }
            drop(inbox);
            // Full: lend a hand.
            let mut engine = self.engine.lock();
            engine.turn(self);
            self.let_go(engine);
        }
        let mut keeper = self.keeper.lock();
        if keeper.asleep {
            keeper.asleep = false;
            drop(keeper);
            self.called.notify_all();
        }
        Ok(())
    }

    /// Frees the engine, and sees to it that what was queued meanwhile is not forgotten.
    fn let_go(&self, engine: MutexGuard<'_, Engine>) {
        drop(engine);
        if self.inbox.lock().waiting.is_empty() {
            return;
        }
        self.keeper.lock().called = true;
        self.called.notify_all();
    }

    /// The keeper: commits back to back while there is something, else waits for a call, a tick, or,
    /// where nothing is left to prove, the next append.
    fn keep(&self, idle_ticks: u64) {
        let mut idle = 0;
        loop {
            {
                let mut keeper = self.keeper.lock();
                if !keeper.called && !keeper.ended {
                    if keeper.asleep {
                        self.called.wait(&mut keeper);
                    } else {
                        let _ = self.called.wait_for(&mut keeper, self.tick);
                    }
                }
                keeper.called = false;
                if keeper.ended {
                    return;
                }
            }
            if !self.inbox.lock().waiting.is_empty() {
                let mut engine = self.engine.lock();
                while engine.turn(self) {}
                self.let_go(engine);
                idle = 0;
                continue;
            }
            idle += 1;
            if idle >= idle_ticks && self.prove() {
                idle = 0;
            }
        }
    }

    /// Proves the last commit. Returns whether there is nothing left to do before the next append.
    fn prove(&self) -> bool {
        let Some(mut engine) = self.engine.try_lock() else {
            return false;
        };
        // A failure has poisoned the log, and the next append says so.
        let _ = engine.wal.as_mut().map(Wal::receipt);
        drop(engine);
        let mut keeper = self.keeper.lock();
        let quiet = self.inbox.lock().waiting.is_empty();
        keeper.asleep = quiet;
        keeper.called |= !quiet;
        quiet
    }

    fn prepare(&self, mut preparer: Preparer) {
        loop {
            let worked = matches!(preparer.turn(), Ok(true));
            let mut keeper = self.keeper.lock();
            if !worked && !keeper.ended {
                let _ = self.called.wait_for(&mut keeper, self.tick * 10);
            }
            if keeper.ended {
                return;
            }
        }
    }
}

impl Engine {
    /// One commit of what is queued, as much as fits. Returns whether there was anything.
    fn turn(&mut self, core: &Core) -> bool {
        self.take(core);
        if self.taken.is_empty() {
            return false;
        }
        let (before, mut end) = ((self.end, self.seq), self.end);
        let mut ends = Vec::with_capacity(self.taken.len());
        let mut append = Vec::with_capacity(self.taken.len());
        for waiting in &self.taken {
            let body = waiting.body.clone();
            match body.seal(GROUP, &end, TERM) {
                Ok(batch) => {
                    end = batch.header.position();
                    append.push(batch);
                    ends.push(Ok(end));
                }
                Err(error) => ends.push(Err(Failed::Batch(error))),
            }
        }
        let outcome = self.commit(|write| Write { append, ..write });
        if outcome.is_ok() {
            self.end = end;
        } else {
            (self.end, self.seq) = before;
        }
        for (waiting, end) in self.taken.drain(..).zip(ends) {
            let told = match &outcome {
                Ok(()) => end,
                Err(failed) => Err(failed.clone()),
            };
            *waiting.ticket.outcome.lock() = Some(told);
            waiting.ticket.told.notify_all();
        }
        true
    }

    fn take(&mut self, core: &Core) {
        let mut inbox = core.inbox.lock();
        let mut bytes = 0u64;
        while let Some(next) = inbox.waiting.front() {
            bytes = bytes.saturating_add(next.cost);
            let over = bytes > self.commit_bytes_max || self.taken.len() >= RECORDS_MAX;
            if over && !self.taken.is_empty() {
                return;
            }
            if let Some(next) = inbox.waiting.pop_front() {
                inbox.bytes -= next.cost;
                self.taken.push(next);
            }
        }
    }

    fn commit(&mut self, fill: impl FnOnce(Write) -> Write) -> Result<(), Failed> {
        let Some(wal) = &mut self.wal else {
            return Err(Failed::Closed);
        };
        let write = fill(Write {
            seq: self.seq.next(),
            hard_state: None,
            snapshot: None,
            truncate: None,
            append: Vec::new(),
            compact: None,
            healed: None,
        });
        wal.commit(&[Submission {
            group: GROUP,
            write,
        }])
        .map_err(Failed::Wal)?;
        self.seq = self.seq.next();
        Ok(())
    }

    /// The log is all there is: whoever compacts it needs nothing before. No file holds what goes, so
    /// the snapshot that a compaction must have names none.
    fn compact(&mut self, upto: Position) -> Result<(), Failed> {
        self.commit(|write| Write {
            snapshot: Some(covering(upto, false)),
            compact: Some(upto),
            ..write
        })
    }
}

/// Most batches in one commit of this log.
const RECORDS_MAX: usize = 16 << 10;
