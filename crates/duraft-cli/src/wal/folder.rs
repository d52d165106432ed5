//! A store's folder opened for reading only: whoever has it in use is not disturbed, and nothing here
//! can change it, as the files' handles cannot write.

use duraft_disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module documentation.
pub(crate) struct ReadFolder {
    root: PathBuf,
}

struct ReadFile {
    name: String,
    file: File,
}

struct SharedLock {
    _file: Option<File>,
}

impl DiskLock for SharedLock {}

impl ReadFolder {
    /// The folder, which must be one.
    pub(crate) fn open(root: &Path) -> Result<ReadFolder, DiskError> {
        let fail = |source| DiskError::new(DiskOp::Open, root.display().to_string(), source);
        if !std::fs::metadata(root).map_err(fail)?.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        Ok(ReadFolder {
            root: root.to_path_buf(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn refuse<T>(&self, op: DiskOp, name: &str) -> Result<T, DiskError> {
        let name = self.path(name).display().to_string();
        Err(DiskError::new(
            op,
            name,
            io::ErrorKind::ReadOnlyFilesystem.into(),
        ))
    }
}

impl Disk for ReadFolder {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let path = self.path(dir);
        let fail = |source| DiskError::new(DiskOp::List, path.display().to_string(), source);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Fine where it is there already, as whoever only reads asks for it too.
    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        if self.path(dir).is_dir() {
            return Ok(());
        }
        self.refuse(DiskOp::CreateDir, dir)
    }

    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        self.refuse(DiskOp::Create, name)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let path = self.path(name);
        let name = path.display().to_string();
        match File::open(&path) {
            Ok(file) => Ok(Arc::new(ReadFile { name, file })),
            Err(source) => Err(DiskError::new(DiskOp::Open, name, source)),
        }
    }

    fn rename(&self, from: &str, _to: &str) -> Result<(), DiskError> {
        self.refuse(DiskOp::Rename, from)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.refuse(DiskOp::Remove, name)
    }

    /// Nothing was changed, so everything is as durable as it was.
    fn sync_dir(&self, _dir: &str) -> Result<(), DiskError> {
        Ok(())
    }

    /// A shared lock: it keeps nodes out, and other readers not. Where there is no file, no node has
    /// ever had the store open.
    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        let path = self.path(name);
        let fail = |source| DiskError::new(DiskOp::Lock, path.display().to_string(), source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Box::new(SharedLock { _file: None }));
            }
            Err(error) => return Err(fail(error)),
        };
        file.try_lock_shared().map_err(|error| match error {
            std::fs::TryLockError::Error(error) => fail(error),
            std::fs::TryLockError::WouldBlock => fail(io::ErrorKind::WouldBlock.into()),
        })?;
        Ok(Box::new(SharedLock { _file: Some(file) }))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(0)
    }
}

impl ReadFile {
    fn fail(&self, op: DiskOp, source: io::Error) -> DiskError {
        DiskError::new(op, self.name.clone(), source)
    }

    fn refuse(&self, op: DiskOp) -> Result<(), DiskError> {
        Err(self.fail(op, io::ErrorKind::ReadOnlyFilesystem.into()))
    }
}

impl DiskFile for ReadFile {
    fn len(&self) -> Result<u64, DiskError> {
        let meta = self.file.metadata();
        meta.map(|meta| meta.len())
            .map_err(|error| self.fail(DiskOp::Len, error))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(step) => done += step,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fail(DiskOp::Read, error)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> Result<(), DiskError> {
        self.refuse(DiskOp::Write)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.refuse(DiskOp::SyncData)
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.refuse(DiskOp::SyncAll)
    }

    fn fill_zero(&self, _len: u64) -> Result<(), DiskError> {
        self.refuse(DiskOp::FillZero)
    }

    fn map(&self) -> Result<Option<Map>, DiskError> {
        Ok(None)
    }
}
