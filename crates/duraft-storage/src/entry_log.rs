//! A log for a Raft that is not ours: entries with a term, appended at the end, cut there, compacted at
//! the front; and one small *note* beside it, for the vote and whatever else that Raft must not forget.
//!
//! Every entry is a batch of its own, so that the log can be cut at any of them. Entries and notes are two
//! groups of one store: they share group commits. Writes are made in the order in which they are given,
//! and become durable in that order; each may bring a function that is called once it is durable.
//!
//! An entry can be read as soon as it is given. What is not durable yet, the *tail*, is held in memory;
//! the queue of the log bounds it.
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use duraft_core::{Index, Term};
//! use duraft_storage::EntryLog;
//! use std::sync::mpsc;
//!
//! let dir = tempfile::tempdir()?;
//! let log = EntryLog::open(dir.path())?;
//! let (told, durable) = mpsc::channel();
//! log.append(Index(1), vec![(Term(1), Bytes::from("one")), (Term(1), Bytes::from("two"))], None)?;
//! log.truncate(Index(2), None)?;
//! log.set_note(Bytes::from("term 2, vote for 3"), Some(Box::new(move |made| {
//!     told.send(made).expect("somebody waits");
//! })))?;
//! durable.recv()??; // and with it everything before it
//! log.close();
//!
//! let log = EntryLog::open(dir.path())?;
//! assert_eq!(log.note(), "term 2, vote for 3");
//! let entries = log.read(Index(1), Index(u64::MAX), u64::MAX)?;
//! assert_eq!(entries.len(), 1);
//! assert_eq!(entries[0].bytes, "one");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::errors::{OpenError, ReadError, WalError};
use crate::format::checksum::commands_body;
use crate::options::{ClusterId, StoreIdentity, WalOptions};
use crate::pipeline::{Pipeline, PipelineEvent};
use crate::reader::WalReader;
use crate::standalone::{NODE, covering, end_of, open_or_make};
use crate::thread::{PipelineThread, SubmitError};
use crate::wal::{Submission, WalStats};
use bytes::Bytes;
use duraft_core::{
    Batch, BodyError, Commands, Digest, GroupId, HardState, Index, LogId, Position, Term, Write,
    WriteSeq,
};
use duraft_disk::{Disk, DiskError, RealDisk};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ENTRIES: GroupId = GroupId(0);
const NOTES: GroupId = GroupId(1);
const CLUSTER: ClusterId = ClusterId(*b"duraft entry log");

/// How such a log behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EntryLogOptions {
    /// The log's own options. `queue_bytes_max` bounds what is not durable yet.
    pub wal: WalOptions,
    /// Largest entry and note, in bytes. Fixed when the log is made.
    pub entry_bytes_max: u32,
    /// The unit of `receipt_idle_ticks`.
    pub tick: Duration,
}

impl Default for EntryLogOptions {
    fn default() -> EntryLogOptions {
        EntryLogOptions {
            wal: WalOptions::default(),
            entry_bytes_max: 4 << 20,
            tick: Duration::from_millis(10),
        }
    }
}

/// Why the log did not do what was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryLogError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The folder cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// An entry or a note cannot be stored.
    #[error(transparent)]
    Entry(#[from] BodyError),
    /// Entries must follow the last one.
    #[error("the log ends at {last}, the next entry cannot be {first}")]
    NotNext {
        /// The last index of the log.
        last: Index,
        /// The index of the first entry given.
        first: Index,
    },
    /// Terms never fall along a log.
    #[error("entry {at} of {term} follows one of {before}")]
    TermFalls {
        /// The entry.
        at: Index,
        /// Its term.
        term: Term,
        /// The term of the one before.
        before: Term,
    },
    /// There is nothing to cut, compact or begin at there.
    #[error("index {at} is not in the log, which holds what follows {start} up to {last}")]
    Outside {
        /// The index given.
        at: Index,
        /// The last index that is compacted.
        start: Index,
        /// The last index.
        last: Index,
    },
    /// An entry cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log has failed: open it again.
    #[error(transparent)]
    Failed(WalError),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Called once, on the log's thread, when a write is durable, or will not be in this life.
pub type WhenDurable = Box<dyn FnOnce(Result<(), EntryLogError>) + Send>;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its bytes.
    pub bytes: Bytes,
}

/// See the module documentation. Dropping it without [`EntryLog::close`] is a crash, and safe.
pub struct EntryLog {
    shared: Arc<Shared>,
    pipeline: PipelineThread,
    reader: WalReader,
    entry_bytes_max: u32,
}

struct Shared {
    /// Held by whoever makes a write, from looking at the log until the write is queued.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// Something became durable, or the log ended.
    changed: Condvar,
}

struct State {
    /// The last write of the entries and of the notes that was queued, and that is durable.
    queued: [WriteSeq; 2],
    durable: [WriteSeq; 2],
    /// Entries up to here are compacted.
    start: Position,
    end: Position,
    /// Entries whose writes are under way. What comes before the first of them is read from the log.
    tail: VecDeque<Pending>,
    term: Term,
    note: Bytes,
    note_end: Position,
    /// What is to be called, in the order of the queue.
    waiting: VecDeque<(GroupId, WriteSeq, Option<WhenDurable>)>,
    failed: Option<WalError>,
    closed: bool,
}

struct Pending {
    seq: WriteSeq,
    at: Position,
    bytes: Bytes,
}

impl EntryLog {
    /// Opens the log in a folder of the file system, with the default options; makes one where there
    /// is none.
    pub fn open(dir: impl AsRef<Path>) -> Result<EntryLog, EntryLogError> {
        let disk = RealDisk::create(dir.as_ref())?;
        EntryLog::open_on(Arc::new(disk), EntryLogOptions::default())
    }

    /// Opens the log on a disk; makes one where there is none.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: EntryLogOptions,
    ) -> Result<EntryLog, EntryLogError> {
        let identity = StoreIdentity {
            cluster: CLUSTER,
            node: NODE,
            // An entry is a batch of one command, with its length before it.
            max_batch_bytes: options.entry_bytes_max.saturating_add(4),
        };
        let groups = [ENTRIES, NOTES];
        let (wal, recovered) = open_or_make(disk, &identity, &options.wal, &groups)?;
        let reader = wal.reader();
        let (entries, notes) = (&recovered.groups[&ENTRIES], &recovered.groups[&NOTES]);
        let note = match notes.batches.last() {
            None => Bytes::new(),
            Some(last) => one(reader.read(NOTES, last.first, last.first, u64::MAX)?)?,
        };
        let shared = Arc::new(Shared {
            writing: Mutex::default(),
            state: Mutex::new(State {
                queued: [WriteSeq(0); 2],
                durable: [WriteSeq(0); 2],
                start: entries.start,
                end: end_of(entries),
                tail: VecDeque::new(),
                term: entries.hard_state.term,
                note,
                note_end: end_of(notes),
                waiting: VecDeque::new(),
                failed: None,
                closed: false,
            }),
            changed: Condvar::new(),
        });
        let told = Arc::clone(&shared);
        let sink = Box::new(move |event| told.hear(event));
        let pipeline = Pipeline::new(wal, options.wal.clone());
        let pipeline = PipelineThread::spawn(pipeline, options.tick, sink);
        Ok(EntryLog {
            shared,
            pipeline: pipeline.map_err(EntryLogError::Thread)?,
            reader,
            entry_bytes_max: options.entry_bytes_max,
        })
    }

    /// Where the log begins and ends: the entry before its first and its last one, with their terms.
    pub fn bounds(&self) -> (LogId, LogId) {
        let state = self.shared.state.lock();
        (state.start.id, state.end.id)
    }

    /// Adds entries, the first of them at `first`. Returns at once unless too much is on its way to
    /// the disk.
    pub fn append(
        &self,
        first: Index,
        entries: Vec<(Term, Bytes)>,
        when: Option<WhenDurable>,
    ) -> Result<(), EntryLogError> {
        let _writing = self.shared.writing.lock();
        let state = self.shared.state.lock();
        if first != state.end.index().next() {
            let last = state.end.index();
            return Err(EntryLogError::NotNext { last, first });
        }
        let (mut end, mut append, mut bytes_of) = (state.end, Vec::new(), Vec::new());
        for (term, bytes) in entries {
            let (at, before) = (end.index().next(), end.term());
            if term < before {
                return Err(EntryLogError::TermFalls { at, term, before });
            }
            let batch = self.batch(ENTRIES, &end, term, &bytes)?;
            end = batch.header.position();
            append.push(batch);
            bytes_of.push(bytes);
        }
        let positions: Vec<Position> = append.iter().map(|batch| batch.header.position()).collect();
        let write = Write {
            append,
            ..Write::default()
        };
        let (mut state, seq) = self.submit(state, ENTRIES, end.term(), write, when)?;
        state.end = end;
        let pending = positions.into_iter().zip(bytes_of);
        let pending = pending.map(|(at, bytes)| Pending { seq, at, bytes });
        state.tail.extend(pending);
        Ok(())
    }

    /// Cuts off `from` and everything after it.
    pub fn truncate(&self, from: Index, when: Option<WhenDurable>) -> Result<(), EntryLogError> {
        let _writing = self.shared.writing.lock();
        let state = self.shared.state.lock();
        let keep = self.position(&state, from.previous())?;
        let write = Write {
            truncate: Some(keep),
            ..Write::default()
        };
        let term = state.term;
        let (mut state, _) = self.submit(state, ENTRIES, term, write, when)?;
        state.end = keep;
        while state
            .tail
            .back()
            .is_some_and(|last| last.at.index() > keep.index())
        {
            state.tail.pop_back();
        }
        Ok(())
    }

    /// Forgets everything up to `upto`, which a snapshot of the caller's covers.
    pub fn compact(&self, upto: Index, when: Option<WhenDurable>) -> Result<(), EntryLogError> {
        let _writing = self.shared.writing.lock();
        let state = self.shared.state.lock();
        let at = self.position(&state, upto)?;
        let write = forgetting(at, &state.start);
        let term = state.term;
        let (mut state, _) = self.submit(state, ENTRIES, term, write, when)?;
        state.start = at;
        while state
            .tail
            .front()
            .is_some_and(|first| first.at.index() <= upto)
        {
            state.tail.pop_front();
        }
        Ok(())
    }

    /// Drops the whole log: it begins and ends at `at`, where a snapshot of the caller's ends.
    pub fn reset(&self, at: LogId, when: Option<WhenDurable>) -> Result<(), EntryLogError> {
        let _writing = self.shared.writing.lock();
        let state = self.shared.state.lock();
        let beginning = state.start.id == at;
        if at.index <= state.start.index() && !beginning {
            return Err(outside(&state, at.index));
        }
        // Where nothing before it is known, the chain of digests begins anew.
        let digest = if beginning {
            state.start.digest
        } else {
            Digest(0)
        };
        let at = Position { id: at, digest };
        let write = Write {
            snapshot: Some(covering(at, true)),
            ..Write::default()
        };
        let term = state.term.max(at.term());
        let (mut state, _) = self.submit(state, ENTRIES, term, write, when)?;
        (state.start, state.end) = (at, at);
        state.tail.clear();
        Ok(())
    }

    /// The note that was set last, empty before there is one.
    pub fn note(&self) -> Bytes {
        self.shared.state.lock().note.clone()
    }

    /// Replaces the note.
    pub fn set_note(&self, note: Bytes, when: Option<WhenDurable>) -> Result<(), EntryLogError> {
        let _writing = self.shared.writing.lock();
        let state = self.shared.state.lock();
        let before = state.note_end;
        let batch = self.batch(NOTES, &before, Term(0), &note)?;
        let end = batch.header.position();
        let write = Write {
            append: vec![batch],
            ..forgetting(before, &Position::START)
        };
        let (mut state, _) = self.submit(state, NOTES, Term(0), write, when)?;
        (state.note, state.note_end) = (note, end);
        Ok(())
    }

    /// The term of an entry, or of the last one that is compacted.
    pub fn term(&self, index: Index) -> Result<Term, EntryLogError> {
        let state = self.shared.state.lock();
        Ok(self.position(&state, index)?.term())
    }

    /// Entries from `first` up to `last`, in order, up to `bytes_max` bytes, but at least one where
    /// there is one. Reads the disk where they are not in memory any more.
    pub fn read(
        &self,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Vec<LogEntry>, EntryLogError> {
        let state = self.shared.state.lock();
        if first <= state.start.index() {
            return Err(outside(&state, first));
        }
        let last = last.min(state.end.index());
        let tail_first = (state.tail.front()).map_or(state.end.index().next(), |p| p.at.index());
        let held = state
            .tail
            .iter()
            .filter(|p| (first..=last).contains(&p.at.index()));
        let held: Vec<LogEntry> = held
            .map(|pending| LogEntry {
                index: pending.at.index(),
                term: pending.at.term(),
                bytes: pending.bytes.clone(),
            })
            .collect();
        drop(state);
        let (mut found, mut bytes, mut next) = (Vec::new(), 0u64, first);
        let stored_last = last.min(tail_first.previous());
        while next <= stored_last && (found.is_empty() || bytes < bytes_max) {
            for batch in
                self.reader
                    .read(ENTRIES, next, stored_last, bytes_max.saturating_sub(bytes))?
            {
                bytes += u64::from(batch.header.body_len);
                let (index, term) = (batch.header.first, batch.header.term);
                next = index.next();
                let bytes = one(vec![batch])?;
                found.push(LogEntry { index, term, bytes });
            }
        }
        if next > stored_last {
            found.extend(held);
        }
        let mut sum = 0u64;
        let fit = found.iter().take_while(|entry| {
            let before = sum;
            sum = sum.saturating_add(entry.bytes.len() as u64);
            before == 0 || sum <= bytes_max
        });
        let fit = fit.count();
        found.truncate(fit);
        Ok(found)
    }

    /// What the log did in this life.
    pub fn stats(&self) -> WalStats {
        self.pipeline.stats()
    }

    /// Makes everything that was given durable and ends.
    pub fn close(self) {
        let _writing = self.shared.writing.lock();
        self.shared.state.lock().closed = true;
        self.pipeline.shutdown();
    }

    fn batch(
        &self,
        group: GroupId,
        after: &Position,
        term: Term,
        bytes: &Bytes,
    ) -> Result<Batch, EntryLogError> {
        let (len, max) = (bytes.len() as u64, u64::from(self.entry_bytes_max));
        if len > max {
            return Err(BodyError::TooLong { len, max }.into());
        }
        Ok(commands_body([&bytes[..]].into_iter(), 0)?.seal(group, after, term)?)
    }

    /// The boundary at an index of the log, or at its beginning.
    fn position(&self, state: &State, index: Index) -> Result<Position, EntryLogError> {
        if index < state.start.index() || index > state.end.index() {
            return Err(outside(state, index));
        }
        if index == state.start.index() {
            return Ok(state.start);
        }
        if index == state.end.index() {
            return Ok(state.end);
        }
        if let Some(first) = state.tail.front()
            && index >= first.at.index()
        {
            let place = usize::try_from(index.0 - first.at.index().0).unwrap_or(usize::MAX);
            let pending = state.tail.get(place);
            return pending.map(|p| p.at).ok_or_else(|| outside(state, index));
        }
        let stored = self.reader.boundary_upto(ENTRIES, index);
        let stored = stored.filter(|at| at.index() == index);
        stored.ok_or_else(|| outside(state, index))
    }

    /// Queues a write, waiting for room, and notes who wants to hear of it. The caller holds `writing`.
    fn submit<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        group: GroupId,
        term: Term,
        mut write: Write,
        when: Option<WhenDurable>,
    ) -> Result<(MutexGuard<'a, State>, WriteSeq), EntryLogError> {
        let place = usize::from(group == NOTES);
        let seq = WriteSeq(state.queued[place].0 + 1);
        write.seq = seq;
        if term > state.term && group == ENTRIES {
            write.hard_state = Some(HardState { term, vote: None });
        }
        let mut submission = Submission { group, write };
        loop {
            if let Some(error) = &state.failed {
                return Err(EntryLogError::Failed(error.clone()));
            }
            if state.closed {
                return Err(EntryLogError::Closed);
            }
            match self.pipeline.submit(submission) {
                Ok(()) => break,
                Err(SubmitError::Closed(_)) => return Err(EntryLogError::Closed),
                Err(SubmitError::Full(back)) => submission = back,
            }
            self.shared.changed.wait(&mut state);
        }
        state.queued[place] = seq;
        if group == ENTRIES {
            state.term = state.term.max(term);
        }
        state.waiting.push_back((group, seq, when));
        Ok((state, seq))
    }
}

impl Shared {
    /// What the log's thread has to tell.
    fn hear(&self, event: PipelineEvent) {
        let mut state = self.state.lock();
        match event {
            PipelineEvent::Durable(durable) => {
                let place = usize::from(durable.group == NOTES);
                state.durable[place] = durable.upto;
            }
            PipelineEvent::Failed { error, .. } => state.failed = Some(error),
            // What is queued waits for a slot.
            PipelineEvent::StorageLow => {}
        }
        let due = state.take_due();
        let failed = state.failed.clone();
        drop(state);
        self.changed.notify_all();
        for (when, durable) in due {
            when(match &failed {
                Some(error) if !durable => Err(EntryLogError::Failed(error.clone())),
                Some(_) | None => Ok(()),
            });
        }
    }
}

impl State {
    /// Whom to call now, and whether what they wait for is durable.
    fn take_due(&mut self) -> Vec<(WhenDurable, bool)> {
        let [entries, notes] = self.durable;
        let is_durable = |group, seq| seq <= if group == NOTES { notes } else { entries };
        while self.tail.front().is_some_and(|first| first.seq <= entries) {
            self.tail.pop_front();
        }
        let mut due = Vec::new();
        while let Some((group, seq, _)) = self.waiting.front() {
            let durable = is_durable(*group, *seq);
            if !durable && self.failed.is_none() {
                break;
            }
            let when = self.waiting.pop_front().and_then(|(_, _, when)| when);
            due.extend(when.map(|when| (when, durable)));
        }
        due
    }
}

impl Drop for EntryLog {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        // Nothing happens where it was shut down before.
        self.pipeline.abandon();
        let left = std::mem::take(&mut self.shared.state.lock().waiting);
        for when in left.into_iter().filter_map(|(_, _, when)| when) {
            when(Err(EntryLogError::Closed));
        }
    }
}

impl std::fmt::Debug for EntryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryLog")
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

fn outside(state: &State, at: Index) -> EntryLogError {
    EntryLogError::Outside {
        at,
        start: state.start.index(),
        last: state.end.index(),
    }
}

/// The command of a batch of one.
fn one(batches: Vec<Batch>) -> Result<Bytes, EntryLogError> {
    let mut found = Bytes::new();
    for Batch { header, body } in batches {
        let commands = Commands::parse(body, header.count)?;
        found = commands.iter().last().unwrap_or_default();
    }
    Ok(found)
}

/// A write that forgets everything up to `upto`, unless the log begins there.
fn forgetting(upto: Position, start: &Position) -> Write {
    if upto == *start {
        return Write::default();
    }
    Write {
        snapshot: Some(covering(upto, false)),
        compact: Some(upto),
        ..Write::default()
    }
}
