//! A disk that notes how long the log's writes and syncs take, and how much each sync made durable.
//!
//! Below it is the disk that is measured; it adds two readings of the clock to each call. Only files of
//! the log count: snapshots and new slots are not what a client waits for.

use super::summary::Latencies;
use duraft_disk::{Disk, DiskError, DiskFile, DiskLock, Map};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What the log did to its disk.
pub(crate) struct LogIo {
    pub(crate) writes: Latencies,
    pub(crate) syncs: Latencies,
    /// Bytes that each sync made durable.
    pub(crate) commit_bytes: Latencies,
}

impl LogIo {
    pub(crate) fn new() -> LogIo {
        LogIo {
            writes: Latencies::new(),
            syncs: Latencies::new(),
            commit_bytes: Latencies::new(),
        }
    }

    pub(crate) fn merge(&mut self, other: &LogIo) {
        self.writes.merge(&other.writes);
        self.syncs.merge(&other.syncs);
        self.commit_bytes.merge(&other.commit_bytes);
    }
}

/// Where a disk notes what it did; clones note in the same place.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Watched>);

struct Watched {
    noted: Mutex<LogIo>,
    /// Bytes written since the last sync.
    unsynced: AtomicU64,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch(Arc::new(Watched {
            noted: Mutex::new(LogIo::new()),
            unsynced: AtomicU64::new(0),
        }))
    }

    /// What was noted since the last call.
    pub(crate) fn take(&self) -> LogIo {
        std::mem::replace(&mut self.0.noted.lock(), LogIo::new())
    }
}

/// See the module documentation.
pub(crate) struct TimedDisk {
    below: Arc<dyn Disk>,
    watch: Watch,
}

impl TimedDisk {
    pub(crate) fn new(below: Arc<dyn Disk>, watch: Watch) -> TimedDisk {
        TimedDisk { below, watch }
    }

    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if !name.starts_with("wal/") {
            return file;
        }
        Arc::new(TimedFile {
            below: file,
            watch: self.watch.clone(),
        })
    }
}

impl Disk for TimedDisk {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.below.list(dir)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.below.create_dir(dir)
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.file(name, self.below.create(name)?))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.file(name, self.below.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.below.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.below.remove(name)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.below.sync_dir(dir)
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        self.below.lock(name)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.below.free_bytes()
    }
}

struct TimedFile {
    below: Arc<dyn DiskFile>,
    watch: Watch,
}

impl DiskFile for TimedFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.below.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let begun = Instant::now();
        let written = self.below.write_at(bytes, offset);
        let watched = &self.watch.0;
        watched
            .unsynced
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        watched.noted.lock().writes.record(begun.elapsed());
        written
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let begun = Instant::now();
        let synced = self.below.sync_data();
        let took = begun.elapsed();
        let watched = &self.watch.0;
        let bytes = watched.unsynced.swap(0, Ordering::Relaxed);
        let mut noted = watched.noted.lock();
        noted.syncs.record(took);
        noted.commit_bytes.record_number(bytes);
        synced
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.below.sync_all()
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        self.below.fill_zero(len)
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        self.below.map()
    }
}
