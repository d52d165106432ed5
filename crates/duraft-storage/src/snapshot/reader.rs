//! Reading a snapshot: no byte is given out that has not passed its checks.

use super::alone;
use super::error::{SnapshotError, SnapshotPart};
use super::format::{Checker, PartProblem, SNAPSHOT_CHUNK_HEAD_BYTES};
use super::name::{SnapshotFileKind, SnapshotName};
use super::store::{SnapshotStore, Sound};
use duraft_core::Snapshot;
use duraft_disk::DiskFile;
use std::io;
use std::sync::Arc;

/// The content of a snapshot as a stream. Memory: one chunk.
///
/// A chunk's checksum is compared before its first byte is given out, and the last chunk is held back
/// until the footer and the digest over the whole file have been compared too: whoever has read
/// `content_bytes` bytes has read exactly what was written.
pub struct SnapshotReader {
    file: Arc<dyn DiskFile>,
    name: String,
    /// Where to write down what became of reading it.
    noted: (Sound, SnapshotName),
    checker: Checker,
    /// Where the next part stands.
    offset: u64,
    /// The present chunk with its head, and how much of it was given out.
    chunk: Vec<u8>,
    given: usize,
    content_bytes: u64,
    /// The first error; all later reads answer with it.
    failed: Option<SnapshotError>,
}

/// What a file says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// The snapshot, with the identity that its footer holds. Whether the chunks fit it,
    /// [`SnapshotStore::verify`] finds out.
    pub snapshot: Snapshot,
    /// Bytes of the state machine's state.
    pub content_bytes: u64,
    /// Number of chunks.
    pub chunks: u32,
    /// Bytes of each chunk but the last.
    pub chunk_bytes: u32,
}

impl SnapshotStore {
    /// Opens a snapshot for reading.
    pub fn read(&self, snapshot: &Snapshot) -> Result<SnapshotReader, SnapshotError> {
        let name = SnapshotName::of(snapshot);
        let file = self.open_whole(snapshot)?;
        self.reader_of(file, name, snapshot)
    }

    pub(super) fn reader_of(
        &self,
        file: Arc<dyn DiskFile>,
        name: SnapshotName,
        snapshot: &Snapshot,
    ) -> Result<SnapshotReader, SnapshotError> {
        let noted = (self.sound().clone(), name);
        SnapshotReader::over(file, self.path(name), noted, self.checker(snapshot))
    }

    /// Reads the whole file and compares everything there is to compare.
    pub fn verify(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.read(snapshot)?.check_rest()
    }

    /// What the whole file of this name in the store's folder says of itself, by header and footer.
    pub fn inspect(&self, name: &str) -> Result<SnapshotInfo, SnapshotError> {
        let parsed = SnapshotName::parse(name)
            .filter(|parsed| parsed.kind == SnapshotFileKind::Whole)
            .ok_or_else(|| SnapshotError::Name { name: name.into() })?;
        let path = self.path(parsed);
        let (_, facts) = alone::inspect(self.disk(), &path)?;
        let snapshot = &facts.info.snapshot;
        let position = snapshot.position.id;
        let named = (position.index, position.term, snapshot.file.nonce);
        for (differs, field) in [
            (named != (parsed.index, parsed.term, parsed.nonce), "name"),
            (facts.cluster != self.cluster(), "cluster"),
            (facts.group != self.group(), "group"),
        ] {
            if differs {
                return Err(SnapshotError::Foreign { name: path, field });
            }
        }
        Ok(facts.info)
    }

    /// The open file of a snapshot, of the length it should have.
    pub(super) fn open_whole(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Arc<dyn DiskFile>, SnapshotError> {
        let name = self.path(SnapshotName::of(snapshot));
        let opened = self.disk().open(&name);
        let file = opened.map_err(|error| SnapshotError::opening(&name, error))?;
        let found = file.len().map_err(SnapshotError::disk)?;
        if found != snapshot.file.bytes {
            return Err(torn(&name, snapshot.file.bytes, found));
        }
        Ok(file)
    }
}

impl SnapshotReader {
    pub(super) fn over(
        file: Arc<dyn DiskFile>,
        name: String,
        noted: (Sound, SnapshotName),
        checker: Checker,
    ) -> Result<SnapshotReader, SnapshotError> {
        let mut reader = SnapshotReader {
            file,
            name,
            noted,
            checker,
            offset: 0,
            chunk: Vec::new(),
            given: 0,
            content_bytes: 0,
            failed: None,
        };
        reader.next_part()?;
        reader.content_bytes = reader.checker.content_bytes().unwrap_or(0);
        if reader.content_bytes == 0 {
            // No chunk will come that could be held back for the footer.
            reader.next_part()?;
        }
        reader.chunk.clear();
        Ok(reader)
    }

    /// Reads to the end and gives nothing out.
    pub(super) fn check_rest(&mut self) -> Result<(), SnapshotError> {
        while self.next_chunk()? {}
        Ok(())
    }

    /// Bytes of the whole content.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// Reads and checks the next chunk, and with the last one the footer. False at the end. After an
    /// error there is no end: what comes after it was never checked.
    fn next_chunk(&mut self) -> Result<bool, SnapshotError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.given = 0;
        self.chunk.clear();
        if self.checker.expects().is_none() {
            return Ok(false);
        }
        match self.next_chunk_and_footer() {
            Ok(()) => {
                self.given = SNAPSHOT_CHUNK_HEAD_BYTES;
                Ok(true)
            }
            Err(error) => {
                self.chunk.clear();
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn next_chunk_and_footer(&mut self) -> Result<(), SnapshotError> {
        self.next_part()?;
        if let Some((SnapshotPart::Footer, _)) = self.checker.expects() {
            let chunk = std::mem::take(&mut self.chunk);
            self.next_part()?;
            self.chunk = chunk;
        }
        Ok(())
    }

    /// Reads the next part into `chunk` and checks it.
    fn next_part(&mut self) -> Result<(), SnapshotError> {
        let Some((part, len)) = self.checker.expects() else {
            return Ok(());
        };
        let mut bytes = std::mem::take(&mut self.chunk);
        bytes.resize(len, 0);
        let accepted =
            read_exact(&*self.file, &self.name, &mut bytes, self.offset).and_then(|()| {
                let accepted = self.checker.accept(&bytes);
                accepted.map_err(|problem| at_rest(&self.name, part, problem))
            });
        let (sound, name) = &self.noted;
        accepted.inspect_err(|_| sound.remove(*name))?;
        if self.checker.expects().is_none() {
            sound.add(*name);
        }
        self.offset += len as u64;
        self.chunk = bytes;
        Ok(())
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.given == self.chunk.len() && !self.next_chunk()? {
            return Ok(0);
        }
        let left = &self.chunk[self.given..];
        let step = left.len().min(out.len());
        out[..step].copy_from_slice(&left[..step]);
        self.given += step;
        Ok(step)
    }
}

/// Fills `buf` from the file; a file that ends before that is torn.
pub(super) fn read_exact(
    file: &dyn DiskFile,
    name: &str,
    buf: &mut [u8],
    offset: u64,
) -> Result<(), SnapshotError> {
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        match file
            .read_at(&mut buf[done..], at)
            .map_err(SnapshotError::disk)?
        {
            0 => return Err(torn(name, offset + buf.len() as u64, at)),
            step => done += step,
        }
    }
    Ok(())
}

pub(super) fn torn(name: &str, expected: u64, found: u64) -> SnapshotError {
    SnapshotError::Torn {
        name: name.into(),
        expected,
        found,
    }
}

/// What a bad part of a stored file means.
pub(super) fn at_rest(name: &str, part: SnapshotPart, problem: PartProblem) -> SnapshotError {
    let name = name.into();
    match problem {
        PartProblem::Damaged(problem) | PartProblem::Content(problem) => SnapshotError::Corrupt {
            name,
            part,
            problem,
        },
        PartProblem::Foreign(field) => SnapshotError::Foreign { name, field },
        PartProblem::Newer(problem) => SnapshotError::Newer { name, problem },
    }
}
