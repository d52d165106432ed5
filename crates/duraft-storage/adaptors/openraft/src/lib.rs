//! The write-ahead log of duraft as the log of [openraft] 0.9 (feature `storage-v2`).
//!
//! [`LogStore`] implements `RaftLogStorage` and `RaftLogReader`: entries, the vote, the committed and the
//! purged log id, in one folder. Appends share group commits and return before they are durable;
//! openraft's callback is called when `fdatasync` has returned. The vote, a cut and a purge are durable
//! when their calls return. After a failed write or sync nothing is acknowledged any more.
//! Entries are stored as MessagePack with names, which every type that serde can describe survives.
//!
//! The state machine and its snapshots stay the user's.
//!
//! ```no_run
//! # use duraft_openraft::LogStore;
//! # fn f<C>() -> Result<(), Box<dyn std::error::Error>>
//! # where C: openraft::RaftTypeConfig, C::Entry: serde::Serialize + serde::de::DeserializeOwned {
//! let log: LogStore<C> = LogStore::open("data/node-1")?;
//! // Raft::new(id, config, network, log, state_machine)
//! # Ok(()) }
//! ```

use bytes::Bytes;
use duraft_core::{Index, LogId as DuraftLogId, Term};
use duraft_disk::Disk;
use duraft_storage::{EntryLog, EntryLogError, EntryLogOptions, WhenDurable};
use futures_channel::oneshot;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    AnyError, LogId, OptionalSend, RaftLogId, RaftLogReader, RaftTypeConfig, StorageError,
    StorageIOError, Vote,
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Debug};
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

/// Why the log cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The log itself.
    Log(EntryLogError),
    /// What it holds is not of this type of Raft.
    Note(rmp_serde::decode::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Log(error) => write!(f, "{error}"),
            OpenError::Note(error) => {
                write!(f, "the stored vote is not of this type of Raft: {error}")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<EntryLogError> for OpenError {
    fn from(error: EntryLogError) -> OpenError {
        OpenError::Log(error)
    }
}

/// What is remembered beside the entries.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
struct Note<N: openraft::NodeId> {
    vote: Option<Vote<N>>,
    committed: Option<LogId<N>>,
    purged: Option<LogId<N>>,
}

impl<N: openraft::NodeId> Default for Note<N> {
    fn default() -> Note<N> {
        Note {
            vote: None,
            committed: None,
            purged: None,
        }
    }
}

/// Longest hole between the log and an entry. openraft never leaves one, but its suite of tests does. An
/// entry that is absent is stored as no bytes at all, and not found.
const ABSENT_MAX: u64 = 1024;

/// The log of one node. Clones are the same log.
pub struct LogStore<C: RaftTypeConfig>(Arc<Inner<C>>);

struct Inner<C: RaftTypeConfig> {
    log: EntryLog,
    note: Mutex<Note<C::NodeId>>,
}

impl<C: RaftTypeConfig> Clone for LogStore<C> {
    fn clone(&self) -> LogStore<C> {
        LogStore(Arc::clone(&self.0))
    }
}

/// The log of duraft counts from 1, that of openraft from 0.
fn ours(index: u64) -> Index {
    Index(index.saturating_add(1))
}

fn position<N: openraft::NodeId>(id: &LogId<N>) -> DuraftLogId {
    DuraftLogId {
        term: Term(id.leader_id.term),
        index: ours(id.index),
    }
}

impl<C> LogStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Serialize + DeserializeOwned,
{
    /// Opens the log in a folder; makes one where there is none.
    pub fn open(dir: impl AsRef<Path>) -> Result<LogStore<C>, OpenError> {
        LogStore::with(EntryLog::open(dir)?)
    }

    /// Opens the log on a disk, such as one that injects faults.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: EntryLogOptions,
    ) -> Result<LogStore<C>, OpenError> {
        LogStore::with(EntryLog::open_on(disk, options)?)
    }

    fn with(log: EntryLog) -> Result<LogStore<C>, OpenError> {
        let note = log.note();
        let note: Note<C::NodeId> = if note.is_empty() {
            Note::default()
        } else {
            rmp_serde::from_slice(&note).map_err(OpenError::Note)?
        };
        // A purge is noted before it is made.
        if let Some(purged) = &note.purged {
            purge(&log, purged, None)?;
        }
        let note = Mutex::new(note);
        Ok(LogStore(Arc::new(Inner { log, note })))
    }

    fn remember(
        &self,
        change: impl FnOnce(&mut Note<C::NodeId>),
        when: Option<WhenDurable>,
    ) -> Result<(), AnyError> {
        let mut note = self.0.note.lock();
        change(&mut note);
        let bytes = rmp_serde::to_vec_named(&*note).map_err(|error| AnyError::new(&error))?;
        let noted = self.0.log.set_note(Bytes::from(bytes), when);
        noted.map_err(|error| AnyError::new(&error))
    }

    fn read(&self, first: Index, last: Index, bytes_max: u64) -> Result<Vec<C::Entry>, AnyError> {
        let entries = self.0.log.read(first, last, bytes_max);
        let entries = entries.map_err(|error| AnyError::new(&error))?;
        let present = entries.iter().filter(|entry| !entry.bytes.is_empty());
        let decoded = present.map(|entry| rmp_serde::from_slice(&entry.bytes));
        decoded
            .collect::<Result<_, _>>()
            .map_err(|error| AnyError::new(&error))
    }
}

fn purge<N: openraft::NodeId>(
    log: &EntryLog,
    upto: &LogId<N>,
    when: Option<WhenDurable>,
) -> Result<(), EntryLogError> {
    let (start, end) = log.bounds();
    let at = position(upto);
    if at.index > end.index {
        // A snapshot has taken the place of the log.
        log.reset(at, when)
    } else {
        log.compact(at.index.max(start.index), when)
    }
}

/// Hands the outcome of a write to whoever waits for it.
fn handed_over() -> (WhenDurable, oneshot::Receiver<Result<(), EntryLogError>>) {
    let (told, heard) = oneshot::channel();
    // Whoever has gone away does not need to know.
    let when = Box::new(move |made| drop(told.send(made)));
    (when, heard)
}

async fn durable(heard: oneshot::Receiver<Result<(), EntryLogError>>) -> Result<(), AnyError> {
    match heard.await {
        Ok(made) => made.map_err(|error| AnyError::new(&error)),
        Err(_) => Err(AnyError::new(&EntryLogError::Closed)),
    }
}

impl<C> RaftLogReader<C> for LogStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Serialize + DeserializeOwned,
{
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<C::Entry>, StorageError<C::NodeId>> {
        let first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let last = match range.end_bound() {
            Bound::Included(last) => ours(*last),
            Bound::Excluded(after) => Index(*after),
            Bound::Unbounded => Index(u64::MAX),
        };
        // What is purged is not found, which openraft allows.
        let first = ours(first).max(self.0.log.bounds().0.index.next());
        let read = self.read(first, last, u64::MAX);
        Ok(read.map_err(StorageIOError::read_logs)?)
    }
}

impl<C> RaftLogStorage<C> for LogStore<C>
where
    C: RaftTypeConfig,
    C::Entry: Serialize + DeserializeOwned,
{
    type LogReader = LogStore<C>;

    async fn get_log_state(&mut self) -> Result<LogState<C>, StorageError<C::NodeId>> {
        let purged = self.0.note.lock().purged.clone();
        let (start, end) = self.0.log.bounds();
        let last = if end.index > start.index {
            let last = self.read(end.index, end.index, u64::MAX);
            let last = last.map_err(StorageIOError::read_logs)?;
            last.last().map(|entry| entry.get_log_id().clone())
        } else {
            None
        };
        Ok(LogState {
            last_log_id: last.or_else(|| purged.clone()),
            last_purged_log_id: purged,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore<C> {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let (when, heard) = handed_over();
        let vote = vote.clone();
        self.remember(|note| note.vote = Some(vote), Some(when))
            .map_err(StorageIOError::write_vote)?;
        Ok(durable(heard).await.map_err(StorageIOError::write_vote)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<C::NodeId>>, StorageError<C::NodeId>> {
        Ok(self.0.note.lock().vote.clone())
    }

    async fn save_committed(
        &mut self,
        committed: Option<LogId<C::NodeId>>,
    ) -> Result<(), StorageError<C::NodeId>> {
        // An older one does no harm: nobody waits for the disk.
        let noted = self.remember(|note| note.committed = committed, None);
        Ok(noted.map_err(StorageIOError::write)?)
    }

    async fn read_committed(
        &mut self,
    ) -> Result<Option<LogId<C::NodeId>>, StorageError<C::NodeId>> {
        Ok(self.0.note.lock().committed.clone())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<C>,
    ) -> Result<(), StorageError<C::NodeId>>
    where
        I: IntoIterator<Item = C::Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut first = None;
        let mut encoded = Vec::new();
        let (start, end) = self.0.log.bounds();
        for entry in entries {
            let id = position(entry.get_log_id());
            if id.index <= start.index {
                // Purged already: a snapshot holds it.
                continue;
            }
            first = first.or(Some(id));
            let bytes = rmp_serde::to_vec_named(&entry);
            let bytes = bytes.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
            encoded.push((id.term, Bytes::from(bytes)));
        }
        let Some(first) = first else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let failed = |error| StorageIOError::write_logs(AnyError::new(&error));
        let next = end.index.next();
        if first.index < next {
            // Given again: what was there and behind it is replaced.
            self.0.log.truncate(first.index, None).map_err(failed)?;
        }
        let absent = first.index.0.saturating_sub(next.0);
        if (1..=ABSENT_MAX).contains(&absent) {
            let absent = (0..absent).map(|_| (end.term, Bytes::new()));
            self.0
                .log
                .append(next, absent.collect(), None)
                .map_err(failed)?;
        }
        let when: WhenDurable = Box::new(move |made| {
            callback.log_io_completed(made.map_err(io::Error::other));
        });
        let appended = self.0.log.append(first.index, encoded, Some(when));
        Ok(appended.map_err(failed)?)
    }

    async fn truncate(&mut self, from: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let (when, heard) = handed_over();
        let cut = self.0.log.truncate(ours(from.index), Some(when));
        cut.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
        Ok(durable(heard).await.map_err(StorageIOError::write_logs)?)
    }

    async fn purge(&mut self, upto: LogId<C::NodeId>) -> Result<(), StorageError<C::NodeId>> {
        let noted = self.remember(|note| note.purged = Some(upto.clone()), None);
        noted.map_err(StorageIOError::write_logs)?;
        let (when, heard) = handed_over();
        let purged = purge(&self.0.log, &upto, Some(when));
        purged.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
        Ok(durable(heard).await.map_err(StorageIOError::write_logs)?)
    }
}
