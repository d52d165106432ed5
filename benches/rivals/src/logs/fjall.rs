//! fjall: a keyspace from index to entry, one write batch per batch with `PersistMode::SyncData`, which is
//! fdatasync, as the others use it. Its `SyncAll` is fsync.

use super::Log;
use crate::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

struct Fjall {
    database: Database,
    log: Keyspace,
    next: AtomicU64,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Log>> {
    let database = Database::builder(dir).open()?;
    let log = database.keyspace("log", KeyspaceCreateOptions::default)?;
    let last = log.last_key_value().map(|last| last.key()).transpose()?;
    let next = AtomicU64::new(last.map_or(Ok(0), |key| index_of(&key))? + 1);
    Ok(Box::new(Fjall {
        database,
        log,
        next,
    }))
}

fn index_of(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(key.try_into()?))
}

impl Fjall {
    fn remove(&self, first: u64, last: u64) -> Result<()> {
        let mut write = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        (first..=last).for_each(|index| write.remove(&self.log, index.to_be_bytes()));
        Ok(write.commit()?)
    }
}

impl Log for Fjall {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        let next = self.next.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let mut write = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (index, entry) in (next..).zip(batch) {
            write.insert(&self.log, index.to_be_bytes(), *entry);
        }
        Ok(write.commit()?)
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let first = self.log.first_key_value().ok_or("an empty log")?.key()?;
        let last = self.log.last_key_value().ok_or("an empty log")?.key()?;
        Ok((index_of(&first)?, index_of(&last)?))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let mut bytes = 0;
        for entry in self.log.range(first.to_be_bytes()..=last.to_be_bytes()) {
            bytes += entry.value()?.len() as u64;
        }
        Ok(bytes)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        let end = self.next.swap(from, Ordering::Relaxed);
        self.remove(from, end - 1)
    }

    fn purge(&self, upto: u64) -> Result<()> {
        self.remove(self.bounds()?.0, upto)
    }
}
