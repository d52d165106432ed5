//! Writing a snapshot: a stream in, a durable file out.

use super::error::SnapshotError;
use super::format::{
    ChunkHead, FileDigest, Footer, Geometry, Header, SNAPSHOT_CHUNK_HEAD_BYTES,
    SNAPSHOT_HEADER_BYTES,
};
use super::name::{SnapshotFileKind, SnapshotName};
use super::store::{SnapshotAblation, SnapshotStore};
use duraft_core::{Membership, Position, Snapshot, SnapshotFile};
use duraft_disk::DiskFile;
use std::io;
use std::sync::Arc;

/// A snapshot that is being written. Memory: one chunk. What is written is worth nothing until
/// [`SnapshotWriter::finish`] returns; dropping the writer removes it.
///
/// After an error nothing more is written, and `finish` returns the same error.
pub struct SnapshotWriter {
    store: SnapshotStore,
    name: SnapshotName,
    position: Position,
    membership: Membership,
    file: Arc<dyn DiskFile>,
    /// Room for the head of the present chunk, then its data so far.
    chunk: Vec<u8>,
    seq: u32,
    content_bytes: u64,
    /// Where the present chunk goes.
    offset: u64,
    unsynced: u64,
    digest: FileDigest,
    failed: Option<SnapshotError>,
    done: bool,
}

impl SnapshotStore {
    /// Begins a snapshot of the state at `position`. The nonce tells it from every other snapshot at
    /// this position: draw it at random.
    pub fn create(
        &self,
        position: Position,
        membership: &Membership,
        nonce: u64,
    ) -> Result<SnapshotWriter, SnapshotError> {
        let whole = SnapshotName::new(position.id, nonce);
        if self.exists(whole)? {
            let name = self.path(whole);
            return Err(SnapshotError::Exists { name });
        }
        let name = whole.as_kind(SnapshotFileKind::Temporary);
        let header = Header {
            cluster: self.cluster(),
            group: self.group(),
            position,
            nonce,
            chunk_bytes: self.options().chunk_bytes,
            membership: membership.clone(),
        };
        let bytes = header.encode();
        let file = self.create_file(name)?;
        let mut writer = SnapshotWriter {
            store: self.clone(),
            name,
            position,
            membership: membership.clone(),
            file,
            chunk: vec![0; SNAPSHOT_CHUNK_HEAD_BYTES],
            seq: 0,
            content_bytes: 0,
            offset: 0,
            unsynced: 0,
            digest: FileDigest::begin(&bytes),
            failed: None,
            done: false,
        };
        writer.put(&bytes)?;
        debug_assert_eq!(writer.offset, SNAPSHOT_HEADER_BYTES as u64);
        Ok(writer)
    }
}

impl SnapshotWriter {
    /// Bytes of content so far.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Completes the file. When this returns `Ok` the snapshot is durable under its name, and not
    /// before: a record in the log may name it now.
    pub fn finish(mut self) -> Result<Snapshot, SnapshotError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.end_chunk()?;
        let footer = Footer {
            chunks: self.seq,
            content_bytes: self.content_bytes,
            digest: self.digest.end(self.content_bytes),
        };
        self.put(&footer.encode())?;
        assert_eq!(
            Geometry::file_bytes(self.seq, self.content_bytes),
            Some(self.offset),
            "the footer ends where the format says"
        );
        self.store.publish(&*self.file, self.name)?;
        self.done = true;
        Ok(Snapshot {
            position: self.position,
            membership: self.membership.clone(),
            file: SnapshotFile {
                nonce: self.name.nonce,
                bytes: self.offset,
                digest: footer.digest,
            },
        })
    }

    /// Gives the snapshot up and removes what was written, as dropping does.
    pub fn abort(self) {}

    fn add(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        let full = SNAPSHOT_CHUNK_HEAD_BYTES + self.store.options().chunk_bytes as usize;
        while !bytes.is_empty() {
            // A full chunk is written when more comes: the last one may be full too.
            if self.chunk.len() == full {
                self.end_chunk()?;
            }
            let step = bytes.len().min(full - self.chunk.len());
            let (now, later) = bytes.split_at(step);
            self.chunk.extend_from_slice(now);
            self.content_bytes += step as u64;
            bytes = later;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), SnapshotError> {
        if self.chunk.len() == SNAPSHOT_CHUNK_HEAD_BYTES {
            return Ok(());
        }
        let next = self.seq.checked_add(1).ok_or(SnapshotError::TooLarge)?;
        let mut chunk = std::mem::take(&mut self.chunk);
        let data = &chunk[SNAPSHOT_CHUNK_HEAD_BYTES..];
        let head = ChunkHead::of(self.name.nonce, self.seq, data);
        head.encode(&mut chunk);
        self.put(&chunk)?;
        self.digest.add(&head);
        self.seq = next;
        chunk.truncate(SNAPSHOT_CHUNK_HEAD_BYTES);
        self.chunk = chunk;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let written = self.file.write_at(bytes, self.offset);
        written.map_err(SnapshotError::disk)?;
        self.offset += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        // Now and then, so that the sync at the end has little left to do and others can sync too.
        if self.unsynced >= self.store.options().sync_bytes {
            if !self.store.without(SnapshotAblation::NoSyncBeforeRename) {
                self.file.sync_data().map_err(SnapshotError::disk)?;
            }
            self.unsynced = 0;
        }
        Ok(())
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        match self.add(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error.into())
            }
        }
    }

    /// Does nothing: only a whole snapshot is made durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.done {
            self.store.remove_quietly(self.name);
        }
    }
}
