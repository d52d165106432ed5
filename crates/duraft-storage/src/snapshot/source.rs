//! A snapshot file as raw bytes, for sending.

use super::error::SnapshotError;
use super::name::SnapshotName;
use super::reader::read_exact;
use super::store::SnapshotStore;
use bytes::Bytes;
use duraft_core::Snapshot;
use duraft_disk::DiskFile;
use std::sync::Arc;

/// An open snapshot file. It stays readable when the file's name is removed.
///
/// The bytes are not checked here: whoever receives them checks them against the file's own
/// checksums. A sender that is told again and again that a part is bad should
/// [verify](SnapshotSource::verify) its file.
#[derive(Clone)]
pub struct SnapshotSource {
    store: SnapshotStore,
    file: Arc<dyn DiskFile>,
    name: String,
    snapshot: Snapshot,
}

impl SnapshotStore {
    /// Opens a snapshot for sending.
    pub fn source(&self, snapshot: &Snapshot) -> Result<SnapshotSource, SnapshotError> {
        Ok(SnapshotSource {
            store: self.clone(),
            file: self.open_whole(snapshot)?,
            name: self.path(SnapshotName::of(snapshot)),
            snapshot: snapshot.clone(),
        })
    }
}

impl SnapshotSource {
    /// What is sent.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Bytes of the file from `offset` on, at most `len`, fewer at the end of the file.
    pub fn read(&self, offset: u64, len: u32) -> Result<Bytes, SnapshotError> {
        let left = self.snapshot.file.bytes.saturating_sub(offset);
        let len = u32::try_from(left).map_or(len, |left| left.min(len));
        let mut bytes = vec![0; len as usize];
        read_exact(&*self.file, &self.name, &mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    }

    /// Reads the whole file and compares everything there is to compare.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        let name = SnapshotName::of(&self.snapshot);
        let reader = self
            .store
            .reader_of(self.file.clone(), name, &self.snapshot);
        reader?.check_rest()
    }
}
