//! Receiving a snapshot: bytes in any portions, in order; only checked parts reach the disk.

use super::error::{SnapshotError, SnapshotPart};
use super::format::{Checker, FILE_BYTES_MIN, PartProblem};
use super::name::{SnapshotFileKind, SnapshotName};
use super::reader::read_exact;
use super::store::{SnapshotAblation, SnapshotStore};
use duraft_core::Snapshot;
use duraft_disk::DiskFile;
use std::sync::Arc;

/// A snapshot that is being received. Memory: one chunk.
///
/// Bytes are collected until a part (header, chunk, footer) is complete; the part is checked and then
/// written. Dropping the receiver keeps what has come, so that a later one can resume; an error of
/// the disk removes it, because nothing is known of it any more.
pub struct SnapshotReceiver {
    store: SnapshotStore,
    announced: Snapshot,
    /// The name of the whole file.
    name: SnapshotName,
    state: State,
}

enum State {
    /// The whole file stood here before the first byte came.
    Present(Arc<dyn DiskFile>),
    Coming(Box<Coming>),
    /// The disk failed, or the parts do not add up. What was received is removed.
    Failed(SnapshotError),
}

struct Coming {
    file: Arc<dyn DiskFile>,
    checker: Checker,
    /// Bytes of checked parts, all of them written.
    written: u64,
    /// The beginning of the next part.
    part: Vec<u8>,
    unsynced: u64,
}

impl SnapshotStore {
    /// Begins or resumes the receipt of the snapshot that a peer announced. What an earlier receiver
    /// of the same snapshot has left is checked part by part and counts up to the first bad one.
    ///
    /// A whole file that stands here already is verified and counts as received; a damaged one is
    /// replaced when all has come. Where the disk has no room for the rest, what has come stays. At most one receiver of a snapshot may live at a time.
    pub fn receive(&self, announced: &Snapshot) -> Result<SnapshotReceiver, SnapshotError> {
        let name = SnapshotName::of(announced);
        if announced.file.bytes < FILE_BYTES_MIN {
            let (name, field) = (self.path(name), "length");
            return Err(SnapshotError::Foreign { name, field });
        }
        match self.verify(announced) {
            Ok(()) => {
                let state = State::Present(self.open_whole(announced)?);
                return Ok(self.receiver(announced, name, state));
            }
            // A file that the disk cannot read is replaced like a damaged one.
            Err(error) if error.is_damage() || matches!(error, SnapshotError::Disk(_)) => {}
            Err(error) => return Err(error),
        }
        self.drop_old_partials(name)?;
        let part_name = name.as_kind(SnapshotFileKind::Partial);
        let resumed = self.resume(part_name, announced)?;
        let written = resumed.as_ref().map_or(0, |coming| coming.written);
        self.check_room(announced.file.bytes - written)?;
        let coming = match resumed {
            Some(coming) => coming,
            None => Coming {
                file: self.create_file(part_name)?,
                checker: self.checker(announced),
                written: 0,
                part: Vec::new(),
                unsynced: 0,
            },
        };
        Ok(self.receiver(announced, name, State::Coming(Box::new(coming))))
    }

    fn receiver(&self, announced: &Snapshot, name: SnapshotName, state: State) -> SnapshotReceiver {
        SnapshotReceiver {
            store: self.clone(),
            announced: announced.clone(),
            name,
            state,
        }
    }

    /// What is left of an earlier receipt, as far as it is good; `None` where nothing is.
    ///
    /// Each good part is written again where it stands. After a crash of the process the cache may
    /// show bytes that a failed sync has left marked clean: they pass every check and no later sync
    /// would write them.
    fn resume(
        &self,
        name: SnapshotName,
        announced: &Snapshot,
    ) -> Result<Option<Coming>, SnapshotError> {
        let path = self.path(name);
        if !self.exists(name)? {
            return Ok(None);
        }
        let opened = self.disk().open(&path);
        let file = opened.map_err(|error| SnapshotError::opening(&path, error))?;
        let len = file.len().map_err(SnapshotError::disk)?;
        if len > announced.file.bytes {
            // Bytes past the end of the announced file could never be overwritten.
            self.remove_name(name)?;
            return Ok(None);
        }
        let mut checker = self.checker(announced);
        checker.no_chunk_sums |= self.without(SnapshotAblation::ResumeUnchecked);
        let mut coming = Coming {
            file,
            checker,
            written: 0,
            part: Vec::new(),
            unsynced: 0,
        };
        while let Some((_, bytes)) = coming.checker.expects() {
            if coming.written + bytes as u64 > len {
                break;
            }
            let mut part = std::mem::take(&mut coming.part);
            part.resize(bytes, 0);
            let read = read_exact(&*coming.file, &path, &mut part, coming.written);
            // A part that the disk cannot read is as good as one that never came.
            let good = read.is_ok() && coming.checker.accept(&part).is_ok();
            coming.part = part;
            if !good {
                break;
            }
            self.put(&mut coming, name)?;
        }
        coming.part.clear();
        coming.checker.no_chunk_sums = self.without(SnapshotAblation::NoChunkChecksum);
        Ok(Some(coming))
    }

    /// Writes the checked part, and syncs now and then. A failure removes the file.
    fn put(&self, coming: &mut Coming, name: SnapshotName) -> Result<(), SnapshotError> {
        let put = |coming: &mut Coming| {
            coming.file.write_at(&coming.part, coming.written)?;
            coming.written += coming.part.len() as u64;
            coming.unsynced += coming.part.len() as u64;
            if coming.unsynced >= self.options().sync_bytes {
                if !self.without(SnapshotAblation::NoSyncBeforeRename) {
                    coming.file.sync_data()?;
                }
                coming.unsynced = 0;
            }
            Ok(())
        };
        put(coming).map_err(|error| {
            self.remove_quietly(name);
            SnapshotError::disk(error)
        })
    }
}

impl SnapshotReceiver {
    /// What is received.
    pub fn snapshot(&self) -> &Snapshot {
        &self.announced
    }

    /// The next byte wanted: everything before it has come, and is checked but for an incomplete part
    /// at the end.
    pub fn received(&self) -> u64 {
        match &self.state {
            State::Present(_) => self.announced.file.bytes,
            State::Coming(coming) => coming.written + coming.part.len() as u64,
            State::Failed(_) => 0,
        }
    }

    /// Has everything come?
    pub fn is_complete(&self) -> bool {
        self.received() == self.announced.file.bytes
    }

    /// Takes the bytes at `offset`, which must be [`SnapshotReceiver::received`].
    ///
    /// - `Received`: the part that these bytes complete is bad. Nothing of that part was kept: ask
    ///   for it again, from `received`.
    /// - `Offset`: bytes for another place, or beyond the end. Nothing was kept.
    /// - `Foreign`, `Newer`: not the announced snapshot; asking again does not help.
    /// - `Corrupt`: all checked parts together are not the announced snapshot. All is removed.
    /// - `NoSpace`, `Disk`: all is removed.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let expected = self.received();
        let left = self.announced.file.bytes.saturating_sub(expected);
        let coming = match &mut self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Present(_) => {
                return Err(SnapshotError::Offset {
                    expected,
                    found: offset,
                });
            }
            State::Coming(coming) => coming,
        };
        if offset != expected || bytes.len() as u64 > left {
            let found = offset;
            return Err(SnapshotError::Offset { expected, found });
        }
        let part_name = self.name.as_kind(SnapshotFileKind::Partial);
        match take(&self.store, coming, part_name, bytes) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.note(&error);
                Err(error)
            }
        }
    }

    /// After an error that leaves nothing to go on with, all later calls answer with it.
    fn note(&mut self, error: &SnapshotError) {
        let over = match error {
            SnapshotError::Corrupt { .. }
            | SnapshotError::Foreign { .. }
            | SnapshotError::Newer { .. }
            | SnapshotError::NoSpace(_)
            | SnapshotError::Disk(_)
            | SnapshotError::Missing { .. }
            | SnapshotError::Torn { .. } => true,
            SnapshotError::Exists { .. }
            | SnapshotError::Name { .. }
            | SnapshotError::Received { .. }
            | SnapshotError::Offset { .. }
            | SnapshotError::Unfinished { .. }
            | SnapshotError::TooLarge => false,
        };
        if over {
            let part_name = self.name.as_kind(SnapshotFileKind::Partial);
            self.store.remove_quietly(part_name);
            self.state = State::Failed(error.clone());
        }
    }

    /// Makes the whole snapshot durable under its name. When this returns `Ok`, and not before, a
    /// record in the log may name it.
    pub fn finish(mut self) -> Result<Snapshot, SnapshotError> {
        let received = self.received();
        let bytes = self.announced.file.bytes;
        let finished = match &self.state {
            State::Failed(error) => return Err(error.clone()),
            // Its first writer may have died before it could say so.
            State::Present(file) => self.store.make_durable(&**file),
            State::Coming(coming) if coming.checker.expects().is_none() => {
                let part_name = self.name.as_kind(SnapshotFileKind::Partial);
                self.store.publish(&*coming.file, part_name)
            }
            State::Coming(_) => Err(SnapshotError::Unfinished { received, bytes }),
        };
        match finished {
            Ok(()) => Ok(self.announced.clone()),
            Err(error) => {
                self.note(&error);
                Err(error)
            }
        }
    }

    /// Gives the receipt up and removes what has come.
    pub fn discard(self) {
        if let State::Coming(_) = self.state {
            let part_name = self.name.as_kind(SnapshotFileKind::Partial);
            self.store.remove_quietly(part_name);
        }
    }
}

/// Collects bytes into parts; checks and writes each part that is complete.
fn take(
    store: &SnapshotStore,
    coming: &mut Coming,
    name: SnapshotName,
    mut bytes: &[u8],
) -> Result<(), SnapshotError> {
    while let Some((part, len)) = coming.checker.expects() {
        let step = bytes.len().min(len - coming.part.len());
        let (now, later) = bytes.split_at(step);
        coming.part.extend_from_slice(now);
        bytes = later;
        if coming.part.len() < len {
            break;
        }
        if let Err(problem) = coming.checker.accept(&coming.part) {
            coming.part.clear();
            return Err(on_arrival(store, name, part, coming.written, problem));
        }
        store.put(coming, name)?;
        coming.part.clear();
    }
    Ok(())
}

/// What a bad part means that has just come.
fn on_arrival(
    store: &SnapshotStore,
    name: SnapshotName,
    part: SnapshotPart,
    resume_at: u64,
    problem: PartProblem,
) -> SnapshotError {
    let name = store.path(name);
    match problem {
        PartProblem::Damaged(problem) => SnapshotError::Received {
            part,
            problem,
            resume_at,
        },
        PartProblem::Foreign(field) => SnapshotError::Foreign { name, field },
        PartProblem::Newer(problem) => SnapshotError::Newer { name, problem },
        PartProblem::Content(problem) => SnapshotError::Corrupt {
            name,
            part,
            problem,
        },
    }
}
