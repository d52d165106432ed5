//! The yardstick: one pwrite and one fdatasync per batch on a file that is filled before.

use super::{Log, not_done};
use crate::Result;
use duraft_disk::{Disk, DiskFile, RealDisk};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const FILE_BYTES: u64 = 64 << 20;
const SECTOR: u64 = 4096;

struct Raw {
    file: Arc<dyn DiskFile>,
    offset: AtomicU64,
    buffer: Mutex<Vec<u8>>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Log>> {
    let disk = RealDisk::create(dir)?;
    let file = disk.create("raw")?;
    file.fill_zero(FILE_BYTES)?;
    file.sync_all()?;
    let (offset, buffer) = (AtomicU64::new(0), Mutex::default());
    Ok(Box::new(Raw {
        file,
        offset,
        buffer,
    }))
}

impl Log for Raw {
    fn append(&self, _appender: u64, batch: &[&[u8]]) -> Result<()> {
        let mut buffer = self.buffer.lock().expect("no panic");
        buffer.clear();
        batch
            .iter()
            .for_each(|entry| buffer.extend_from_slice(entry));
        let stride = (buffer.len() as u64).next_multiple_of(SECTOR);
        let offset = self.offset.fetch_add(stride, Ordering::Relaxed) % (FILE_BYTES - stride);
        self.file.write_at(&buffer, offset / SECTOR * SECTOR)?;
        Ok(self.file.sync_data()?)
    }

    fn bounds(&self) -> Result<(u64, u64)> {
        Err(not_done())
    }

    fn read(&self, _first: u64, _last: u64) -> Result<u64> {
        Err(not_done())
    }

    fn truncate(&self, _from: u64) -> Result<()> {
        Err(not_done())
    }

    fn purge(&self, _upto: u64) -> Result<()> {
        Err(not_done())
    }
}
