//! The yardstick: one thread that writes and syncs a zero-filled, preallocated file, and nothing else.
//!
//! `raw(b)` is one pwrite of b bytes and one fdatasync, on the same folder as the thing measured and
//! in turns with it, so that both see the same disk in the same mood.

use super::error::BenchError;
use super::summary::{Latencies, Percentiles};
use duraft_disk::{Disk, DiskFile};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FILE_BYTES_MIN: u64 = 16 << 20;
/// Writes start at sector boundaries, as the log's do.
const ALIGN: u64 = 4096;
const SYNCS_MIN: u64 = 32;

/// A file to measure the disk with.
pub(crate) struct RawDisk {
    file: Arc<dyn DiskFile>,
    len: u64,
    offset: u64,
    /// Of all slices.
    pub(crate) all: Latencies,
}

/// What the disk did in one slice.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct RawSlice {
    pub(crate) bytes: u64,
    pub(crate) syncs_per_second: f64,
    pub(crate) latency: Percentiles,
}

impl RawDisk {
    /// Makes and fills the file in the root of `disk`, for writes of up to `bytes_max`.
    pub(crate) fn create(disk: &dyn Disk, bytes_max: u64) -> Result<RawDisk, BenchError> {
        let len = bytes_max.max(FILE_BYTES_MIN);
        let file = disk.create("raw.probe")?;
        file.fill_zero(len)?;
        file.sync_all()?;
        disk.sync_dir("")?;
        Ok(RawDisk {
            file,
            len,
            offset: 0,
            all: Latencies::new(),
        })
    }

    /// Writes and syncs `bytes` at a time for about `slice`, at least [`SYNCS_MIN`] times.
    pub(crate) fn measure(&mut self, bytes: u64, slice: Duration) -> Result<RawSlice, BenchError> {
        let bytes = bytes.clamp(1, self.len);
        let stride = bytes.div_ceil(ALIGN) * ALIGN;
        // Not zeros: a layer below may treat blocks of zeros specially.
        let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8 + 1).collect();
        let mut latencies = Latencies::new();
        let start = Instant::now();
        while start.elapsed() < slice || latencies.count() < SYNCS_MIN {
            if self.offset + bytes > self.len {
                self.offset = 0;
            }
            let begun = Instant::now();
            self.file.write_at(&data, self.offset)?;
            self.file.sync_data()?;
            latencies.record(begun.elapsed());
            self.offset += stride;
        }
        self.all.merge(&latencies);
        let syncs_per_second = latencies.count() as f64 / start.elapsed().as_secs_f64();
        Ok(RawSlice {
            bytes,
            syncs_per_second,
            latency: latencies.percentiles(),
        })
    }
}
