//! The disk of the operating system: `pwrite`, `fdatasync`, written preallocation, directory sync,
//! advisory lock.
//!
//! It knows nothing of formats. Every call is one system call, or a loop of the same one where the
//! system may do less than it was asked; interrupted calls are repeated.

use crate::disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
use crate::fault::{checked_file, checked_folder};
use crate::map::map_file;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Zeros written per call while a file is being filled.
const FILL_BYTES: usize = 1 << 20;

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The disk rooted at this folder, which must exist.
    pub fn open(root: impl Into<PathBuf>) -> Result<RealDisk, DiskError> {
        let root = root.into();
        let fail = |source| DiskError::new(DiskOp::Open, root.display().to_string(), source);
        let meta = std::fs::metadata(&root).map_err(fail)?;
        if !meta.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        Ok(RealDisk { root })
    }

    /// The disk rooted at this folder. Where it is missing it is made, with its parents, and their
    /// entries are made durable.
    pub fn create(root: impl Into<PathBuf>) -> Result<RealDisk, DiskError> {
        let root = root.into();
        let fail = |source| DiskError::new(DiskOp::CreateDir, root.display().to_string(), source);
        let absolute = std::path::absolute(&root).map_err(fail)?;
        let missing: Vec<&Path> = absolute.ancestors().take_while(|p| !p.exists()).collect();
        for folder in missing.iter().rev() {
            match std::fs::create_dir(folder) {
                Ok(()) => {}
                // Somebody else was quicker.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fail(e)),
            }
            if let Some(parent) = folder.parent() {
                sync_folder(parent).map_err(fail)?;
            }
        }
        RealDisk::open(root)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.root.clone()
        } else {
            self.root.join(name)
        }
    }

    /// Names the operation and the whole path in an error.
    fn fail(&self, op: DiskOp, name: &str) -> impl Fn(io::Error) -> DiskError {
        let path = self.path(name);
        move |source| DiskError::new(op, path.display().to_string(), source)
    }

    fn handle(&self, name: &str, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile {
            name: self.path(name).display().to_string(),
            file,
        })
    }
}

impl Disk for RealDisk {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        checked_folder(DiskOp::List, dir)?;
        let fail = self.fail(DiskOp::List, dir);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path(dir)).map_err(&fail)? {
            let name = entry.map_err(&fail)?.file_name();
            // A name that is not text is none of ours; it is shown so that it can be refused.
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        checked_file(DiskOp::CreateDir, dir)?;
        let path = self.path(dir);
        match std::fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other.map_err(self.fail(DiskOp::CreateDir, dir)),
        }
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        checked_file(DiskOp::Create, name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(name))
            .map_err(self.fail(DiskOp::Create, name))?;
        Ok(self.handle(name, file))
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        checked_file(DiskOp::Open, name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(name))
            .map_err(self.fail(DiskOp::Open, name))?;
        Ok(self.handle(name, file))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        checked_file(DiskOp::Rename, from)?;
        checked_file(DiskOp::Rename, to)?;
        std::fs::rename(self.path(from), self.path(to)).map_err(self.fail(DiskOp::Rename, from))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        checked_file(DiskOp::Remove, name)?;
        std::fs::remove_file(self.path(name)).map_err(self.fail(DiskOp::Remove, name))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        checked_folder(DiskOp::SyncDir, dir)?;
        sync_folder(&self.path(dir)).map_err(self.fail(DiskOp::SyncDir, dir))
    }

    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        checked_file(DiskOp::Lock, name)?;
        let fail = self.fail(DiskOp::Lock, name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path(name))
            .map_err(&fail)?;
        // The lock belongs to this opening of the file, so it also keeps out other openings in this
        // process. The file is never removed: a lock on an unlinked file excludes nobody.
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(file))),
            Err(TryLockError::WouldBlock) => Err(fail(io::ErrorKind::WouldBlock.into())),
            Err(TryLockError::Error(e)) => Err(fail(e)),
        }
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|errno| self.fail(DiskOp::FreeBytes, "")(errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

struct RealFile {
    name: String,
    file: File,
}

impl RealFile {
    fn fail(&self, op: DiskOp) -> impl Fn(io::Error) -> DiskError + '_ {
        move |source| DiskError::new(op, self.name.clone(), source)
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> Result<u64, DiskError> {
        let meta = self.file.metadata().map_err(self.fail(DiskOp::Len))?;
        Ok(meta.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut done = 0;
        while done < buf.len() {
            let place = offset.saturating_add(done as u64);
            match self.file.read_at(&mut buf[done..], place) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fail(DiskOp::Read)(e)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        // Repeats short and interrupted writes; a write of nothing is an error.
        self.file
            .write_all_at(bytes, offset)
            .map_err(self.fail(DiskOp::Write))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(self.fail(DiskOp::SyncData))
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.file.sync_all().map_err(self.fail(DiskOp::SyncAll))
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        let fail = self.fail(DiskOp::FillZero);
        let zeros = vec![0; FILL_BYTES];
        let mut done = 0;
        while done < len {
            let step = FILL_BYTES.min(usize::try_from(len - done).unwrap_or(FILL_BYTES));
            self.file
                .write_all_at(&zeros[..step], done)
                .map_err(&fail)?;
            done += step as u64;
        }
        if self.file.metadata().map_err(&fail)?.len() != len {
            self.file.set_len(len).map_err(&fail)?;
        }
        Ok(())
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        map_file(&self.file)
            .map(Some)
            .map_err(self.fail(DiskOp::Map))
    }
}

struct RealLock(File);

impl DiskLock for RealLock {}

impl Drop for RealLock {
    /// Closing the file is not enough: a process that another thread is starting has it open too, until
    /// the program runs in it.
    fn drop(&mut self) {
        // Where this fails, closing is what is left to do.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_given_up_though_a_starting_process_has_its_file_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = RealDisk::open(dir.path()).expect("it is there");
        let file = File::create(disk.path("LOCK")).expect("a file");
        file.try_lock().expect("nobody has it");
        // What a fork does to it.
        let inherited = file.try_clone().expect("a descriptor");
        drop(RealLock(file));
        assert!(disk.lock("LOCK").is_ok());
        drop(inherited);
    }
}
