//! How long a write and its sync take here: one thread, one file, filled beforehand.

use crate::bench::{Latencies, Percentiles};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of one write: the log's block.
const WRITE_BYTES: usize = 4096;
const FILE_BYTES: u64 = 16 << 20;
/// Fewer syncs say little of the 99th percentile.
const SYNCS_MIN: u64 = 200;

/// The file that is written to; removed when dropped.
pub(super) struct Probe {
    path: PathBuf,
    file: File,
}

/// What was measured.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Measured {
    pub(super) syncs: u64,
    pub(super) seconds: f64,
    pub(super) write_only: Percentiles,
    pub(super) write_and_sync: Percentiles,
}

impl Probe {
    /// A new file in this folder, filled and synced.
    pub(super) fn create(folder: &Path) -> io::Result<Probe> {
        let path = folder.join(format!("duraft-doctor-{}.probe", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let probe = Probe { path, file };
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            probe.file.write_all_at(&zeros, at)?;
        }
        probe.file.sync_all()?;
        Ok(probe)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes and syncs for this long, at least [`SYNCS_MIN`] times, at most ten times as long.
    pub(super) fn measure(&self, time: Duration) -> io::Result<Measured> {
        // Not zeros: a layer below may treat blocks of zeros specially.
        let data: Vec<u8> = (0..WRITE_BYTES)
            .map(|i| u8::try_from(i % 251).unwrap_or(0) + 1)
            .collect();
        let (mut writes, mut both) = (Latencies::new(), Latencies::new());
        let begun = Instant::now();
        let mut at = 0;
        loop {
            let passed = begun.elapsed();
            if passed >= time && both.count() >= SYNCS_MIN || passed >= time * 10 {
                break;
            }
            let before = Instant::now();
            self.file.write_all_at(&data, at)?;
            writes.record(before.elapsed());
            self.file.sync_data()?;
            both.record(before.elapsed());
            at = (at + WRITE_BYTES as u64) % FILE_BYTES;
        }
        Ok(Measured {
            syncs: both.count(),
            seconds: begun.elapsed().as_secs_f64(),
            write_only: writes.percentiles(),
            write_and_sync: both.percentiles(),
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may have been removed by hand.
        let _ = std::fs::remove_file(&self.path);
    }
}
