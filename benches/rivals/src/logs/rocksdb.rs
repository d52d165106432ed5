//! RocksDB: keys are indices, one write batch per batch with `sync`, which is fdatasync of its log.

use super::Log;
use crate::Result;
use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

struct Rocks {
    database: DB,
    next: AtomicU64,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Log>> {
    let mut options = Options::default();
    options.create_if_missing(true);
    let database = DB::open(&options, dir)?;
    let last = database.iterator(IteratorMode::End).next().transpose()?;
    let next = AtomicU64::new(last.map_or(Ok(0), |(key, _)| index_of(&key))? + 1);
    Ok(Box::new(Rocks { database, next }))
}

fn index_of(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(key.try_into()?))
}

impl Rocks {
    fn write(&self, write: WriteBatch) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        Ok(self.database.write_opt(write, &options)?)
    }

    fn remove(&self, first: u64, end: u64) -> Result<()> {
        let mut write = WriteBatch::default();
        write.delete_range(first.to_be_bytes(), end.to_be_bytes());
        self.write(write)
    }
}

impl Log for Rocks {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        let next = self.next.fetch_add(batch.len() as u64, Ordering::Relaxed);
        let mut write = WriteBatch::default();
        for (index, entry) in (next..).zip(batch) {
            write.put(index.to_be_bytes(), entry);
        }
        self.write(write)
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        let end = |mode| self.database.iterator(mode).next().ok_or("an empty log");
        let (first, last) = (end(IteratorMode::Start)??.0, end(IteratorMode::End)??.0);
        Ok((index_of(&first)?, index_of(&last)?))
    }

    fn read(&self, first: u64, last: u64) -> Result<u64> {
        let key = first.to_be_bytes();
        let from = IteratorMode::From(&key, rocksdb::Direction::Forward);
        let mut bytes = 0;
        for entry in self
            .database
            .iterator(from)
            .take((last - first + 1) as usize)
        {
            bytes += entry?.1.len() as u64;
        }
        Ok(bytes)
    }

    fn truncate(&self, from: u64) -> Result<()> {
        let end = self.next.swap(from, Ordering::Relaxed);
        self.remove(from, end)
    }

    fn purge(&self, upto: u64) -> Result<()> {
        self.remove(0, upto + 1)
    }
}
