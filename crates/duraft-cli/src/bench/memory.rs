//! Memory and disk that a process and its folders take, as the system tells it.

use super::error::BenchError;
use std::path::Path;

/// Resident memory of a process now and at its peak, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Memory {
    /// Of this process (`self`) or another one, by its number.
    pub(crate) fn of(process: &str) -> Result<Memory, BenchError> {
        let path = format!("/proc/{process}/status");
        let failed = |source| BenchError::Folder {
            path: path.clone().into(),
            source,
        };
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            let kib: Option<u64> = number.and_then(|number| number.parse().ok());
            let missing = || std::io::Error::other(format!("no field {name}"));
            kib.map(|kib| kib << 10).ok_or_else(|| failed(missing()))
        };
        Ok(Memory {
            now: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// Lets the peak of a process begin anew at what it holds now.
    pub(crate) fn forget_peak(process: &str) -> Result<(), BenchError> {
        let path = format!("/proc/{process}/clear_refs");
        std::fs::write(&path, "5").map_err(|source| BenchError::Folder {
            path: path.into(),
            source,
        })
    }
}

/// Number and bytes of the files below a folder. What comes and goes meanwhile may be missed.
pub(crate) fn files_below(folder: &Path) -> (u64, u64) {
    let mut found = (0, 0);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (files, bytes) = match entry.metadata() {
            Ok(meta) if meta.is_dir() => files_below(&entry.path()),
            Ok(meta) => (1, meta.len()),
            Err(_) => (0, 0),
        };
        found = (found.0 + files, found.1 + bytes);
    }
    found
}

/// Bytes as MiB with one digit.
pub(crate) fn mib(bytes: u64) -> String {
    mib_of(bytes as f64)
}

/// As [`mib`], of a mean.
pub(crate) fn mib_of(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}
