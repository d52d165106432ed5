//! duraft twice: `GroupLog`, where a batch is one record as in duraft's own Raft, and `EntryLog`, the log
//! for another Raft, where each entry is a record with a term and the tail can be cut. Default options.

use super::{Log, not_done};
use crate::Result;
use bytes::Bytes;
use duraft_core::{Index, Term};
use duraft_storage::{EntryLog, GroupLog, WhenDurable};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc;

pub(super) fn open_group_log(dir: &Path) -> Result<Box<dyn Log>> {
    Ok(Box::new(GroupLog::open(dir)?))
}

impl Log for GroupLog {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        GroupLog::append(self, batch)?.wait()?;
        Ok(())
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let (start, end) = GroupLog::bounds(self);
        Ok((start.index().0 + 1, end.index().0))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let (mut next, mut bytes) = (first, 0);
        while next <= last {
            let entries = GroupLog::read(self, Index(next), 1 << 20)?;
            next = entries.last().ok_or("the log ends early")?.0.0 + 1;
            bytes += entries
                .iter()
                .map(|(_, entry)| entry.len() as u64)
                .sum::<u64>();
        }
        Ok(bytes)
    }

    fn truncate(&self, _from: u64) -> Result<()> {
        Err(not_done())
    }

    fn purge(&self, upto: u64) -> Result<()> {
        Ok(self.compact(Index(upto))?)
    }
}

struct Entries {
    log: EntryLog,
    /// Held from choosing an index until the entries are queued.
    next: Mutex<Index>,
}

pub(super) fn open_entry_log(dir: &Path) -> Result<Box<dyn Log>> {
    let log = EntryLog::open(dir)?;
    let next = Mutex::new(log.bounds().1.index.next());
    Ok(Box::new(Entries { log, next }))
}

/// Waits until a write is durable.
fn durably<E>(write: impl FnOnce(Option<WhenDurable>) -> std::result::Result<(), E>) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let (told, heard) = mpsc::sync_channel(1);
    write(Some(Box::new(move |made| drop(told.send(made)))))?;
    Ok(heard.recv()??)
}

impl Log for Entries {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        let entries: Vec<_> = batch
            .iter()
            .map(|entry| (Term(1), Bytes::copy_from_slice(entry)))
            .collect();
        let count = entries.len() as u64;
        durably(|when| {
            let mut next = self.next.lock().expect("no panic");
            self.log.append(*next, entries, when)?;
            *next = Index(next.0 + count);
            Ok::<_, duraft_storage::EntryLogError>(())
        })
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let (start, end) = self.log.bounds();
        Ok((start.index.0 + 1, end.index.0))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let (mut next, mut bytes) = (first, 0);
        while next <= last {
            let entries = self.log.read(Index(next), Index(last), 1 << 20)?;
            next = entries.last().ok_or("the log ends early")?.index.0 + 1;
            bytes += entries
                .iter()
                .map(|entry| entry.bytes.len() as u64)
                .sum::<u64>();
        }
        Ok(bytes)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        durably(|when| self.log.truncate(Index(from), when))?;
        *self.next.lock().expect("no panic") = Index(from);
        Ok(())
    }

    fn purge(&self, upto: u64) -> Result<()> {
        durably(|when| self.log.compact(Index(upto), when))
    }
}
