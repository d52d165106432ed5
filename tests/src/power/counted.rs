//! A disk whose changing operations are numbered from 1 and announced before and after.

use duraft_disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Whoever wants to know.
pub trait Observer: Send {
    /// This operation is about to begin; with an error it does not.
    fn before(&mut self, op: DiskOp, number: u64) -> io::Result<()>;
    /// Is this sync of a file left out, though it says that it was done? A planted fault.
    fn skips(&mut self, _op: DiskOp, _number: u64) -> bool {
        false
    }
    /// This operation has returned `Ok`.
    fn after(&mut self, op: DiskOp, number: u64) -> io::Result<()>;
    /// This operation has failed.
    fn failed(&mut self, _op: DiskOp, _number: u64) {}
}

/// Another disk, observed.
#[derive(Clone)]
pub struct Counted {
    disk: Arc<dyn Disk>,
    watch: Arc<Mutex<Watch>>,
}

struct Watch {
    number: u64,
    observer: Box<dyn Observer>,
}

impl Counted {
    /// This disk, observed.
    pub fn new(disk: Arc<dyn Disk>, observer: Box<dyn Observer>) -> Counted {
        let watch = Watch {
            number: 0,
            observer,
        };
        Counted {
            disk,
            watch: Arc::new(Mutex::new(watch)),
        }
    }

    fn observed<T>(
        &self,
        op: DiskOp,
        name: &str,
        run: impl FnOnce() -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.observed_sync(op, name, |_| run())
    }

    fn observed_sync<T>(
        &self,
        op: DiskOp,
        name: &str,
        run: impl FnOnce(bool) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let failed = |error| DiskError::new(op, name, error);
        let mut watch = self.watch.lock();
        watch.number += 1;
        let number = watch.number;
        watch.observer.before(op, number).map_err(failed)?;
        let skipped = watch.observer.skips(op, number);
        let value = match run(skipped) {
            Ok(value) => value,
            Err(error) => {
                watch.observer.failed(op, number);
                return Err(error);
            }
        };
        watch.observer.after(op, number).map_err(failed)?;
        Ok(value)
    }

    fn file(&self, name: &str, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(CountedFile {
            disk: self.clone(),
            name: name.to_owned(),
            file,
        })
    }
}

impl Disk for Counted {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.observed(DiskOp::CreateDir, dir, || self.disk.create_dir(dir))
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = self.observed(DiskOp::Create, name, || self.disk.create(name))?;
        Ok(self.file(name, file))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.observed(DiskOp::Rename, from, || self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.observed(DiskOp::Remove, name, || self.disk.remove(name))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.observed(DiskOp::SyncDir, dir, || self.disk.sync_dir(dir))
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        self.observed(DiskOp::Lock, name, || self.disk.lock(name))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

struct CountedFile {
    disk: Counted,
    name: String,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for CountedFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let run = || self.file.write_at(bytes, offset);
        self.disk.observed(DiskOp::Write, &self.name, run)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let run = |skipped| {
            if skipped {
                return Ok(());
            }
            self.file.sync_data()
        };
        self.disk.observed_sync(DiskOp::SyncData, &self.name, run)
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        let run = || self.file.sync_all();
        self.disk.observed(DiskOp::SyncAll, &self.name, run)
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        let run = || self.file.fill_zero(len);
        self.disk.observed(DiskOp::FillZero, &self.name, run)
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        self.file.map()
    }
}
