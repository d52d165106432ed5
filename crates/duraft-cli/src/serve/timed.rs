//! A disk that takes the time of every sync of a file: what a durable write waits for.

use duraft::Disk;
use duraft_disk::{DiskError, DiskFile, DiskLock, Map};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer syncs count as this long.
const MICROS_MAX: u64 = 600_000_000;

/// How long syncs took, in microseconds.
#[derive(Debug)]
pub(crate) struct SyncTimes {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    all: Histogram<u64>,
    /// Since it was last taken.
    recent: Histogram<u64>,
    micros: u64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("the bounds are in order")
}

impl SyncTimes {
    pub(crate) fn new() -> Arc<SyncTimes> {
        Arc::new(SyncTimes {
            state: Mutex::new(State {
                all: histogram(),
                recent: histogram(),
                micros: 0,
            }),
        })
    }

    fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(MICROS_MAX);
        let mut state = self.state.lock();
        state.all.saturating_record(micros);
        state.recent.saturating_record(micros);
        state.micros += micros;
    }

    /// All syncs of this life, and their sum in microseconds.
    pub(crate) fn all(&self) -> (Histogram<u64>, u64) {
        let state = self.state.lock();
        (state.all.clone(), state.micros)
    }

    /// Syncs since the last call of this.
    pub(crate) fn take_recent(&self) -> Histogram<u64> {
        let mut state = self.state.lock();
        std::mem::replace(&mut state.recent, histogram())
    }
}

/// See the module documentation.
pub(crate) struct TimedDisk {
    disk: Arc<dyn Disk>,
    times: Arc<SyncTimes>,
}

impl TimedDisk {
    pub(crate) fn over(disk: Arc<dyn Disk>, times: Arc<SyncTimes>) -> TimedDisk {
        TimedDisk { disk, times }
    }

    fn timed(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TimedFile {
            file,
            times: Arc::clone(&self.times),
        })
    }
}

impl Disk for TimedDisk {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.create_dir(dir)
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.disk.create(name).map(|file| self.timed(file))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.disk.open(name).map(|file| self.timed(file))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        self.disk.lock(name)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

struct TimedFile {
    file: Arc<dyn DiskFile>,
    times: Arc<SyncTimes>,
}

impl DiskFile for TimedFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let begun = Instant::now();
        let synced = self.file.sync_data();
        self.times.record(begun.elapsed());
        synced
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        // Of files that are made ready: nobody's command waits for it.
        self.file.sync_all()
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        self.file.fill_zero(len)
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        self.file.map()
    }
}
