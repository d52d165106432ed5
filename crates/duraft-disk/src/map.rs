//! The one place with `unsafe`: mapping a file for reading.
//!
//! Duty of every caller, stated in [`DiskFile::map`](crate::DiskFile::map): nobody writes to, or
//! shortens, the file as long as a view of it lives. The storage engine maps sealed segments only
//! and reuses their slots after the last view is gone; the directory lock keeps other processes of
//! ours out.
#![allow(unsafe_code)]

use crate::disk::Map;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A read-only view of the whole file as it is now.
#[cfg(not(miri))]
pub(crate) fn map_file(file: &File) -> io::Result<Map> {
    if file.metadata()?.len() == 0 {
        // The system refuses to map nothing.
        return Ok(Map::new(Arc::new([0_u8; 0])));
    }
    // SAFETY: the view is read-only and private to this process's address space, so nothing is
    // written through it. A shared slice of it is sound as long as the bytes below it do not change
    // and the file is not shortened, which is the documented duty of the caller (see above). The
    // mapping holds its own reference to the open file, so closing or unlinking it is harmless. An
    // I/O error while a page is brought in ends the process by a signal: that is fail-stop, not
    // undefined behaviour.
    let map = unsafe { memmap2::MmapOptions::new().map(file)? };
    Ok(Map::new(Arc::new(map)))
}

/// Miri has no mappings: the bytes are read instead.
#[cfg(miri)]
pub(crate) fn map_file(file: &File) -> io::Result<Map> {
    use std::os::unix::fs::FileExt;
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Map::new(Arc::new(bytes)))
}
