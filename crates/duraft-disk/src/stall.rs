//! A disk whose operations stand still as long as a gate is closed: the stuck device of a running
//! program. The fault disk has no time, so in virtual time the scheduler delays operations itself;
//! this is for threads.

use crate::disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// Closes and opens a [`StallDisk`]. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: Vec<DiskOp>,
    waiting: usize,
}

impl Gate {
    /// From now on operations of these kinds wait; others are let through.
    pub fn close(&self, ops: &[DiskOp]) {
        self.0.state.lock().closed = ops.to_vec();
        self.0.changed.notify_all();
    }

    /// Lets all operations go on.
    pub fn open(&self) {
        self.close(&[]);
    }

    /// Operations that wait at this moment.
    pub fn waiting(&self) -> usize {
        self.0.state.lock().waiting
    }

    /// Blocks until at least so many operations wait.
    pub fn wait_until_waiting(&self, operations: usize) {
        let mut state = self.0.state.lock();
        while state.waiting < operations {
            self.0.changed.wait(&mut state);
        }
    }

    fn pass(&self, op: DiskOp) {
        let mut state = self.0.state.lock();
        if !state.closed.contains(&op) {
            return;
        }
        state.waiting += 1;
        self.0.changed.notify_all();
        while state.closed.contains(&op) {
            self.0.changed.wait(&mut state);
        }
        state.waiting -= 1;
        self.0.changed.notify_all();
    }
}

/// Another disk behind a [`Gate`].
pub struct StallDisk {
    disk: Arc<dyn Disk>,
    gate: Gate,
}

impl StallDisk {
    /// This disk behind this gate.
    pub fn new(disk: Arc<dyn Disk>, gate: Gate) -> StallDisk {
        StallDisk { disk, gate }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(StallFile {
            file,
            gate: self.gate.clone(),
        })
    }
}

impl Disk for StallDisk {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.gate.pass(DiskOp::List);
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::CreateDir);
        self.disk.create_dir(dir)
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.gate.pass(DiskOp::Create);
        Ok(self.file(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.gate.pass(DiskOp::Open);
        Ok(self.file(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::Rename);
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::Remove);
        self.disk.remove(name)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::SyncDir);
        self.disk.sync_dir(dir)
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        self.gate.pass(DiskOp::Lock);
        self.disk.lock(name)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.gate.pass(DiskOp::FreeBytes);
        self.disk.free_bytes()
    }
}

struct StallFile {
    file: Arc<dyn DiskFile>,
    gate: Gate,
}

impl DiskFile for StallFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.gate.pass(DiskOp::Len);
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.gate.pass(DiskOp::Read);
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::Write);
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::SyncData);
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::SyncAll);
        self.file.sync_all()
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        self.gate.pass(DiskOp::FillZero);
        self.file.fill_zero(len)
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        self.gate.pass(DiskOp::Map);
        self.file.map()
    }
}
