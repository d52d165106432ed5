//! The write-ahead log of duraft as the storage of [raft-rs] 0.7, the Raft of TiKV.
//!
//! [`LogStorage`] implements [`raft::Storage`]: entries, hard state and configuration, in one folder, with
//! one group commit for what a [`Ready`] brings. Writes become durable in the order in which they are
//! given; what is given as `when` is called once a write, and everything before it, is durable. **Messages
//! that a `Ready` calls persisted leave only then.** After a failed write or sync nothing is durable any
//! more and every call says so: open the storage again.
//!
//! A crash may fall between the parts of a `Ready`. They are written in an order that leaves nothing wrong:
//! a snapshot is noted before the log is dropped for it, and dropped on opening where that was not done;
//! entries come before the hard state that counts on them, and on opening the term is raised to that of
//! the last entry, so that no term is used twice.
//!
//! The data of snapshots stays the user's. What raft-rs is to send comes from [`LogStorage::offer`].
//!
//! ```no_run
//! use duraft_raft_rs::LogStorage;
//! use raft::{Config, RawNode};
//! # fn f(logger: &slog::Logger) -> Result<(), Box<dyn std::error::Error>> {
//! let storage = LogStorage::open("data/node-1")?;
//! if !storage.is_initialized() {
//!     storage.initialize(&(vec![1, 2, 3], vec![]).into())?;
//! }
//! let mut node = RawNode::new(&Config::new(1), storage.clone(), logger)?;
//! let mut ready = node.ready();
//! // send(ready.take_messages()), apply(ready.take_committed_entries())
//! let (told, durable) = std::sync::mpsc::channel();
//! storage.write(&ready, Some(Box::new(move |made| drop(told.send(made)))))?;
//! durable.recv()??;
//! // send(ready.take_persisted_messages())
//! let light = node.advance(ready);
//! # let _ = light; Ok(()) }
//! ```
//!
//! [raft-rs]: https://docs.rs/raft/0.7

use bytes::Bytes;
use duraft_core::{Index, LogId, Term};
use duraft_disk::Disk;
use duraft_storage::{EntryLog, EntryLogError, EntryLogOptions, WhenDurable};
use parking_lot::Mutex;
use protobuf::{CodedInputStream, Message, ProtobufError};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Ready, Storage, StorageError};
use std::path::Path;
use std::sync::Arc;

/// Why the storage cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStorageError {
    /// The log below.
    #[error(transparent)]
    Log(#[from] EntryLogError),
    /// What is stored, or is to be, is not what raft-rs writes.
    #[error("not a message of raft-rs: {0}")]
    Message(#[from] ProtobufError),
    /// Only an empty storage can be initialized.
    #[error("the storage has a configuration already")]
    Initialized,
    /// The hard state counts on entries that are not there: damage that the log did not see.
    #[error("committed up to {commit}, but the log ends at {last}")]
    CommitBeyondEnd {
        /// What the hard state says.
        commit: u64,
        /// The last entry.
        last: u64,
    },
}

/// What is remembered beside the entries.
#[derive(Clone, Default)]
struct Note {
    hard: HardState,
    /// The configuration, and the index that made it so.
    conf: SnapshotMetadata,
    /// The last snapshot that took the place of the log: index and term.
    installed: SnapshotMetadata,
}

impl Note {
    fn read(bytes: &[u8]) -> Result<Note, ProtobufError> {
        let mut note = Note::default();
        if bytes.is_empty() {
            return Ok(note);
        }
        let mut stream = CodedInputStream::from_bytes(bytes);
        stream.merge_message(&mut note.hard)?;
        stream.merge_message(&mut note.conf)?;
        stream.merge_message(&mut note.installed)?;
        Ok(note)
    }

    fn bytes(&self) -> Result<Bytes, ProtobufError> {
        let mut bytes = Vec::new();
        self.hard.write_length_delimited_to_vec(&mut bytes)?;
        self.conf.write_length_delimited_to_vec(&mut bytes)?;
        self.installed.write_length_delimited_to_vec(&mut bytes)?;
        Ok(bytes.into())
    }
}

/// See the module documentation. Clones are the same storage.
#[derive(Clone)]
pub struct LogStorage(Arc<Inner>);

struct Inner {
    log: EntryLog,
    note: Mutex<Note>,
    offered: Mutex<Offered>,
}

#[derive(Default)]
struct Offered {
    snapshot: Option<Snapshot>,
    wanted: Option<u64>,
}

impl LogStorage {
    /// Opens the storage in a folder; makes one where there is none.
    pub fn open(dir: impl AsRef<Path>) -> Result<LogStorage, LogStorageError> {
        LogStorage::with(EntryLog::open(dir)?)
    }

    /// Opens the storage on a disk, such as one that injects faults.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: EntryLogOptions,
    ) -> Result<LogStorage, LogStorageError> {
        LogStorage::with(EntryLog::open_on(disk, options)?)
    }

    fn with(log: EntryLog) -> Result<LogStorage, LogStorageError> {
        let mut note = Note::read(&log.note())?;
        let snapshot = place(&note.installed);
        if snapshot.index > log.bounds().0.index {
            // It was noted, and the log was not dropped before the crash.
            log.reset(snapshot, None)?;
        }
        let (start, end) = log.bounds();
        if end.term.0 > note.hard.term {
            // The entries were durable and the hard state was not: nobody was voted for in that term.
            note.hard.term = end.term.0;
            note.hard.vote = 0;
        }
        note.hard.commit = note.hard.commit.max(start.index.0);
        if note.hard.commit > end.index.0 {
            let (commit, last) = (note.hard.commit, end.index.0);
            return Err(LogStorageError::CommitBeyondEnd { commit, last });
        }
        Ok(LogStorage(Arc::new(Inner {
            log,
            note: Mutex::new(note),
            offered: Mutex::default(),
        })))
    }

    /// Has it a configuration? Without one it must be initialized, or get a snapshot from a leader.
    pub fn is_initialized(&self) -> bool {
        *self.0.note.lock().conf.get_conf_state() != ConfState::default()
    }

    /// Gives a new storage its first configuration, the same on all nodes. Durable before anything that
    /// is written later.
    pub fn initialize(&self, conf: &ConfState) -> Result<(), LogStorageError> {
        if self.is_initialized() || self.0.log.bounds() != Default::default() {
            return Err(LogStorageError::Initialized);
        }
        self.set_conf_state(0, conf, None)
    }

    /// Writes what a `Ready` brings: its snapshot, its entries, its hard state. Where it brings nothing,
    /// `when` is called once what was written before is durable.
    ///
    /// The data of the snapshot must be durable with the caller before.
    pub fn write(&self, ready: &Ready, when: Option<WhenDurable>) -> Result<(), LogStorageError> {
        if !ready.snapshot().is_empty() {
            self.install(ready.snapshot(), None)?;
        }
        self.save(ready.entries(), ready.hs(), when)
    }

    /// Writes entries, which replace what stands from the first of them on, and then the hard state.
    pub fn save(
        &self,
        entries: &[Entry],
        hard: Option<&HardState>,
        when: Option<WhenDurable>,
    ) -> Result<(), LogStorageError> {
        let (for_entries, for_note) = match hard {
            None => (when, None),
            Some(_) => (None, when),
        };
        if !entries.is_empty() || hard.is_none() {
            self.append(entries, for_entries)?;
        }
        match hard {
            Some(hard) => self.remember(|note| note.hard = hard.clone(), for_note),
            None => Ok(()),
        }
    }

    fn append(&self, entries: &[Entry], when: Option<WhenDurable>) -> Result<(), LogStorageError> {
        let log = &self.0.log;
        let next = log.bounds().1.index.next();
        let first = entries.first().map_or(next, |first| Index(first.index));
        let mut encoded = Vec::with_capacity(entries.len());
        for entry in entries {
            encoded.push((Term(entry.term), Bytes::from(entry.write_to_bytes()?)));
        }
        if first < next {
            log.truncate(first, None)?;
        }
        Ok(log.append(first, encoded, when)?)
    }

    /// A snapshot from a leader takes the place of the log. Its data must be durable with the caller.
    pub fn install(
        &self,
        snapshot: &Snapshot,
        when: Option<WhenDurable>,
    ) -> Result<(), LogStorageError> {
        let metadata = snapshot.get_metadata();
        let at = place(metadata);
        self.remember(
            |note| {
                note.conf = metadata.clone();
                note.installed.index = metadata.index;
                note.installed.term = metadata.term;
                note.hard.term = note.hard.term.max(metadata.term);
                note.hard.commit = note.hard.commit.max(metadata.index);
            },
            None,
        )?;
        Ok(self.0.log.reset(at, when)?)
    }

    /// Remembers the configuration that the entry at `index` made. After a restart changes of the
    /// configuration up to [`LogStorage::conf_index`] are made already, and must not be made again.
    pub fn set_conf_state(
        &self,
        index: u64,
        conf: &ConfState,
        when: Option<WhenDurable>,
    ) -> Result<(), LogStorageError> {
        self.remember(
            |note| {
                note.conf.index = index;
                note.conf.set_conf_state(conf.clone());
            },
            when,
        )
    }

    /// The entry that made the configuration.
    pub fn conf_index(&self) -> u64 {
        self.0.note.lock().conf.index
    }

    /// What is applied was committed, even if the hard state that said so is lost: to be called before
    /// `RawNode::new` by a state machine that keeps its own state, with the index it gives as
    /// `Config::applied`.
    pub fn raise_commit(&self, applied: u64) {
        let mut note = self.0.note.lock();
        note.hard.commit = note.hard.commit.max(applied);
    }

    /// Forgets the entries up to `upto`, which must be applied and in a snapshot.
    pub fn compact(&self, upto: u64, when: Option<WhenDurable>) -> Result<(), LogStorageError> {
        let start = self.0.log.bounds().0.index;
        Ok(self.0.log.compact(Index(upto).max(start), when)?)
    }

    /// From now on this is the snapshot that is sent to followers.
    pub fn offer(&self, snapshot: Snapshot) {
        *self.0.offered.lock() = Offered {
            snapshot: Some(snapshot),
            wanted: None,
        };
    }

    /// The least index of a snapshot that raft-rs asked for in vain since the last one was offered.
    pub fn wanted(&self) -> Option<u64> {
        self.0.offered.lock().wanted
    }

    /// Writes the note with a change. The lock is held until it is queued, so that the last one wins.
    fn remember(
        &self,
        change: impl FnOnce(&mut Note),
        when: Option<WhenDurable>,
    ) -> Result<(), LogStorageError> {
        let mut note = self.0.note.lock();
        change(&mut note);
        Ok(self.0.log.set_note(note.bytes()?, when)?)
    }
}

fn place(metadata: &SnapshotMetadata) -> LogId {
    LogId {
        term: Term(metadata.term),
        index: Index(metadata.index),
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let note = self.0.note.lock();
        let conf = note.conf.get_conf_state().clone();
        Ok(RaftState::new(note.hard.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let (start, end) = self.0.log.bounds();
        if low <= start.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > end.index.0 + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        if low >= high {
            return Ok(Vec::new());
        }
        // At least one comes, even where none fits.
        let max = max_size.into().unwrap_or(u64::MAX).max(1);
        let found = self.0.log.read(Index(low), Index(high - 1), max);
        let found = found.map_err(other)?;
        let entries = found.iter().map(|entry| {
            let mut parsed = Entry::default();
            parsed.merge_from_bytes(&entry.bytes)?;
            Ok(parsed)
        });
        entries
            .collect::<Result<_, ProtobufError>>()
            .map_err(Error::CodecError)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let (start, end) = self.0.log.bounds();
        if index < start.index.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index > end.index.0 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        Ok(self.0.log.term(Index(index)).map_err(other)?.0)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.log.bounds().0.index.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.0.log.bounds().1.index.0)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut offered = self.0.offered.lock();
        let least = request_index.max(self.0.log.bounds().0.index.0);
        let fresh = offered.snapshot.as_ref();
        match fresh.filter(|snapshot| snapshot.get_metadata().index >= least) {
            Some(snapshot) => Ok(snapshot.clone()),
            None => {
                offered.wanted = Some(least);
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}
