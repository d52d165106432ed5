//! The disk trait: what a storage engine may ask of files, and what it may believe afterwards.
//!
//! Names are relative to the disk's root, with `/` between parts, such as `wal/00000003.slot`.
//! The trait has no clock and no randomness: whoever needs them gets them as arguments.
//!
//! What may be believed:
//! - bytes written are durable only after a later [`DiskFile::sync_data`] on the file returned
//!   `Ok`; until then any subset of the written sectors may survive a power loss;
//! - a created, renamed or removed name is durable only after [`Disk::sync_dir`] on its folder;
//! - after an error of a write or sync, the content of everything unsynced is unknown, and a later
//!   `Ok` proves nothing about it: stop writing and open again.

use std::io;
use std::ops::Deref;
use std::sync::Arc;

/// A folder of files, real or simulated.
pub trait Disk: Send + Sync {
    /// Names of the entries of a folder, without the folder's own name, in ascending order. The
    /// empty name is the root.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;
    /// Makes a folder; one that is there already is fine. The parent must exist.
    fn create_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Makes a new empty file; fails with `AlreadyExists` where the name is taken.
    fn create(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// Opens a file for reading and writing; fails with `NotFound` where there is none.
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError>;
    /// Gives a file a new name, replacing what stood there, atomically as seen by running
    /// processes.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), DiskError>;
    /// Makes the folder's entries durable.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
    /// Takes the exclusive lock that `name` stands for, without waiting; fails with `WouldBlock`
    /// where another process, or another holder in this one, has it. Dropping the lock frees it.
    fn lock(&self, name: &str) -> Result<Box<dyn DiskLock>, DiskError>;
    /// Bytes a user may still write.
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// An open file. Shared by reference; every call names its own offset.
#[allow(clippy::len_without_is_empty)]
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> Result<u64, DiskError>;
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file. Returns how many.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError>;
    /// Writes all of `bytes`, extending the file where needed. On an error the content of the range
    /// is undefined.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError>;
    /// Makes the content durable, and the length where reading the content back needs it.
    fn sync_data(&self) -> Result<(), DiskError>;
    /// Makes content and all metadata durable.
    fn sync_all(&self) -> Result<(), DiskError>;
    /// Writes zeros over `0..len` and makes the length `len`: afterwards, writes inside it change
    /// no metadata. Not durable by itself.
    fn fill_zero(&self, len: u64) -> Result<(), DiskError>;
    /// A read-only view of the whole file, or `None` where this disk offers none. Only for files
    /// that nobody writes as long as the view lives.
    fn map(&self) -> Result<Option<Map>, DiskError>;
}

/// Proof of holding a lock, which is given up when this is dropped.
pub trait DiskLock: Send + Sync {}

/// A read-only view of a file's bytes. Clones share it.
#[derive(Clone)]
pub struct Map(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Map {
    /// A view of these bytes.
    pub fn new(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Map {
        Map(bytes)
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Map").field("len", &self.len()).finish()
    }
}

/// The operation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DiskOp {
    /// [`Disk::list`].
    List,
    /// [`Disk::create_dir`].
    CreateDir,
    /// [`Disk::create`].
    Create,
    /// [`Disk::open`].
    Open,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::lock`].
    Lock,
    /// [`Disk::free_bytes`].
    FreeBytes,
    /// [`DiskFile::len`].
    Len,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::sync_data`].
    SyncData,
    /// [`DiskFile::sync_all`].
    SyncAll,
    /// [`DiskFile::fill_zero`].
    FillZero,
    /// [`DiskFile::map`].
    Map,
}

impl DiskOp {
    /// All kinds, in the order of their declaration.
    pub const ALL: [DiskOp; 16] = [
        DiskOp::List,
        DiskOp::CreateDir,
        DiskOp::Create,
        DiskOp::Open,
        DiskOp::Rename,
        DiskOp::Remove,
        DiskOp::SyncDir,
        DiskOp::Lock,
        DiskOp::FreeBytes,
        DiskOp::Len,
        DiskOp::Read,
        DiskOp::Write,
        DiskOp::SyncData,
        DiskOp::SyncAll,
        DiskOp::FillZero,
        DiskOp::Map,
    ];

    /// Can an operation of this kind change what is on the disk or what of it is durable? Those are
    /// the operations before, in and after which a crash makes a difference.
    pub fn changes(self) -> bool {
        match self {
            DiskOp::CreateDir
            | DiskOp::Create
            | DiskOp::Rename
            | DiskOp::Remove
            | DiskOp::SyncDir
            | DiskOp::Lock
            | DiskOp::Write
            | DiskOp::SyncData
            | DiskOp::SyncAll
            | DiskOp::FillZero => true,
            DiskOp::List
            | DiskOp::Open
            | DiskOp::FreeBytes
            | DiskOp::Len
            | DiskOp::Read
            | DiskOp::Map => false,
        }
    }
}

/// A failed disk operation: what, where, why.
#[derive(Debug, thiserror::Error)]
#[error("disk operation {op:?} on '{name}' failed: {source}")]
pub struct DiskError {
    /// What was tried.
    pub op: DiskOp,
    /// The file or folder, as the caller named it; on the real disk with its root in front.
    pub name: String,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// An error of this operation on this name.
    pub fn new(op: DiskOp, name: impl Into<String>, source: io::Error) -> DiskError {
        DiskError {
            op,
            name: name.into(),
            source,
        }
    }

    /// The kind of the system's reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}
