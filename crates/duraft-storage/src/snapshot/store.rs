//! The folder of one group's snapshots.

use super::error::SnapshotError;
use super::format::{Checker, SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MIN};
use super::name::{SnapshotFileKind, SnapshotName};
use crate::options::{ClusterId, OptionProblem};
use duraft_core::{GroupId, Snapshot};
use duraft_disk::{Disk, DiskError, DiskFile, DiskOp};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// The folder of all groups' snapshots.
const ROOT: &str = "snap";
/// Most interrupted receipts that are kept for resumption.
pub const SNAPSHOT_PARTIALS_MAX: usize = 2;

/// How snapshots are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotOptions {
    /// Bytes of a chunk: the unit of checking and the memory that writing, reading and receiving
    /// take.
    pub chunk_bytes: u32,
    /// Sync after so many bytes while writing, so that little is left for the sync at the end.
    pub sync_bytes: u64,
    /// For tests only.
    #[doc(hidden)]
    pub ablation: Option<SnapshotAblation>,
}

impl Default for SnapshotOptions {
    /// Chunks of 256 KiB, a sync every 8 MiB.
    fn default() -> SnapshotOptions {
        SnapshotOptions {
            chunk_bytes: 256 << 10,
            sync_bytes: 8 << 20,
            ablation: None,
        }
    }
}

impl SnapshotOptions {
    /// Every problem at once, none if the options can be used.
    pub fn validate(&self) -> Vec<OptionProblem> {
        let mut problems = Vec::new();
        if !(SNAPSHOT_CHUNK_BYTES_MIN..=SNAPSHOT_CHUNK_BYTES_MAX).contains(&self.chunk_bytes) {
            problems.push(OptionProblem {
                field: "chunk_bytes",
                rule: "from 512 bytes to 1 MiB",
            });
        }
        if self.sync_bytes == 0 {
            problems.push(OptionProblem {
                field: "sync_bytes",
                rule: "at least 1",
            });
        }
        problems
    }
}

/// Leaves out one step, to show that the tests notice. Not for use.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotAblation {
    /// The file is not synced before it is renamed.
    NoSyncBeforeRename,
    /// The folder is not synced after the renaming.
    NoDirSync,
    /// Checksums of chunks are not compared.
    NoChunkChecksum,
    /// The digest in the footer is not compared.
    NoDigest,
    /// What an interrupted receipt left is taken as it is.
    ResumeUnchecked,
}

/// The snapshot files of one group on one disk. Clones are the same store. It keeps nothing in memory
/// but who it belongs to and which files were seen whole; all its methods may be called from any
/// thread.
#[derive(Clone)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    cluster: ClusterId,
    group: GroupId,
    options: SnapshotOptions,
    sound: Sound,
}

/// Whole files that were written, received or read to their end since the store was opened. A file
/// that was found bad later is not one of them.
#[derive(Clone, Default)]
pub(super) struct Sound(Arc<Mutex<BTreeSet<SnapshotName>>>);

impl Sound {
    pub(super) fn add(&self, name: SnapshotName) {
        self.0.lock().insert(name);
    }

    pub(super) fn remove(&self, name: SnapshotName) {
        self.0.lock().remove(&name);
    }

    fn has(&self, name: SnapshotName) -> bool {
        self.0.lock().contains(&name)
    }
}

/// What [`SnapshotStore::reconcile`] found and did. Names are relative to the group's folder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reconciled {
    /// Files that were removed.
    pub removed: Vec<String>,
    /// Interrupted receipts that can be resumed.
    pub partial: Vec<String>,
    /// Names that this store did not give, left alone.
    pub strange: Vec<String>,
    /// Snapshots that were to be kept and have no file.
    pub missing: Vec<Snapshot>,
}

impl SnapshotStore {
    /// The snapshots of this group, with the default options. Makes the folders where they are
    /// missing, and durable the names that are in them.
    pub fn open(
        disk: Arc<dyn Disk>,
        cluster: ClusterId,
        group: GroupId,
    ) -> Result<SnapshotStore, SnapshotError> {
        SnapshotStore::open_with(disk, cluster, group, SnapshotOptions::default())
    }

    /// The snapshots of this group. Options that break their rules are brought within them.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        cluster: ClusterId,
        group: GroupId,
        options: SnapshotOptions,
    ) -> Result<SnapshotStore, SnapshotError> {
        let range = SNAPSHOT_CHUNK_BYTES_MIN..=SNAPSHOT_CHUNK_BYTES_MAX;
        let options = SnapshotOptions {
            chunk_bytes: options.chunk_bytes.clamp(*range.start(), *range.end()),
            sync_bytes: options.sync_bytes.max(1),
            ..options
        };
        let store = SnapshotStore {
            disk,
            cluster,
            group,
            options,
            sound: Sound::default(),
        };
        // Each folder is a name in its parent: all of them must be durable before a file in them is. And
        // so must the names in it be before anyone counts on what they show: a process that died
        // between a renaming and its sync leaves it in the cache alone.
        let made = store.disk.create_dir(ROOT);
        made.and_then(|()| store.disk.sync_dir(""))
            .and_then(|()| store.disk.create_dir(&store.folder()))
            .and_then(|()| store.disk.sync_dir(ROOT))
            .and_then(|()| store.disk.sync_dir(&store.folder()))
            .map_err(SnapshotError::disk)?;
        Ok(store)
    }

    /// The cluster whose snapshots these are.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The group whose snapshots these are.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The options in use.
    pub fn options(&self) -> &SnapshotOptions {
        &self.options
    }

    /// All files of the folder that bear a name of this store, oldest snapshot first.
    pub fn list(&self) -> Result<Vec<SnapshotName>, SnapshotError> {
        Ok(self.names()?.0)
    }

    /// Brings the folder in line with what the log counts on. To be called at start, before anything
    /// is written or received: everything that no record names and nobody can use is removed.
    ///
    /// Kept are: the files of `keep`; the newest good file that is older than all of `keep`, as a
    /// fallback; interrupted receipts of something not older than `keep`, at most
    /// [`SNAPSHOT_PARTIALS_MAX`]; strangers' files. Where several files may be the fallback, they are
    /// read, the newest first, until one is found whole.
    pub fn reconcile(&self, keep: &[&Snapshot]) -> Result<Reconciled, SnapshotError> {
        let (names, strange) = self.names()?;
        let kept: BTreeSet<SnapshotName> = keep.iter().map(|s| SnapshotName::of(s)).collect();
        let oldest = kept.first().copied();
        let fallback = oldest.and_then(|oldest| self.the_one_before(&names, oldest));
        let remove = obsolete_at_start(&names, &kept, fallback);
        for name in &remove {
            self.remove_name(*name)?;
        }
        if !remove.is_empty() {
            self.sync_folder()?;
        }
        let is_missing = |snapshot: &&&Snapshot| !names.contains(&SnapshotName::of(snapshot));
        let partial = |name: &&SnapshotName| {
            name.kind == SnapshotFileKind::Partial && !remove.contains(*name)
        };
        Ok(Reconciled {
            partial: names
                .iter()
                .filter(partial)
                .map(ToString::to_string)
                .collect(),
            missing: keep
                .iter()
                .filter(is_missing)
                .map(|s| (*s).clone())
                .collect(),
            removed: remove.iter().map(ToString::to_string).collect(),
            strange,
        })
    }

    /// Removes what the snapshot `latest` has made superfluous, once a durable record names it: every
    /// whole file older than the good one before it, and every interrupted receipt of an older one.
    /// Returns the names removed.
    ///
    /// Where several files may be the one before, and the newest was neither written, received nor
    /// read since the store was opened, it is read now.
    pub fn retire(&self, latest: &Snapshot) -> Result<Vec<String>, SnapshotError> {
        let (names, _) = self.names()?;
        let latest = SnapshotName::of(latest);
        let fallback = self.the_one_before(&names, latest);
        let remove = superseded(&names, latest, fallback);
        for name in &remove {
            self.remove_name(*name)?;
        }
        if !remove.is_empty() {
            self.sync_folder()?;
        }
        Ok(remove.iter().map(ToString::to_string).collect())
    }

    /// The newest good file older than `latest`: the state it holds was committed, and the log may still
    /// reach from there on. Where none is good, or there is no choice, the newest.
    fn the_one_before(&self, names: &[SnapshotName], latest: SnapshotName) -> Option<SnapshotName> {
        let whole = names
            .iter()
            .filter(|name| name.kind == SnapshotFileKind::Whole);
        let older: Vec<SnapshotName> = whole
            .filter(|name| name.index < latest.index)
            .copied()
            .collect();
        let newest = older.last().copied();
        if older.len() < 2 {
            return newest;
        }
        let good = older.into_iter().rfind(|name| self.is_sound(*name));
        good.or(newest)
    }

    /// Was this file seen whole, or is it?
    fn is_sound(&self, name: SnapshotName) -> bool {
        let verify = || {
            let info = self.inspect(&name.to_string())?;
            self.verify(&info.snapshot)
        };
        self.sound.has(name) || verify().is_ok()
    }

    pub(super) fn sound(&self) -> &Sound {
        &self.sound
    }

    fn names(&self) -> Result<(Vec<SnapshotName>, Vec<String>), SnapshotError> {
        let mut names = Vec::new();
        let mut strange = Vec::new();
        for name in self
            .disk
            .list(&self.folder())
            .map_err(SnapshotError::disk)?
        {
            match SnapshotName::parse(&name) {
                Some(name) => names.push(name),
                None => strange.push(name),
            }
        }
        names.sort_unstable();
        Ok((names, strange))
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn checker(&self, snapshot: &Snapshot) -> Checker {
        let mut checker = Checker::new(self.cluster, self.group, snapshot);
        checker.no_chunk_sums = self.without(SnapshotAblation::NoChunkChecksum);
        checker.no_digest = self.without(SnapshotAblation::NoDigest);
        checker
    }

    pub(super) fn without(&self, ablation: SnapshotAblation) -> bool {
        self.options.ablation == Some(ablation)
    }

    fn folder(&self) -> String {
        format!("{ROOT}/{:016x}", self.group.0)
    }

    /// A file's name on the disk.
    pub(super) fn path(&self, name: SnapshotName) -> String {
        format!("{}/{name}", self.folder())
    }

    pub(super) fn exists(&self, name: SnapshotName) -> Result<bool, SnapshotError> {
        match self.disk.open(&self.path(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(SnapshotError::disk(error)),
        }
    }

    /// A new empty file in the place of one that an attempt before this one may have left.
    pub(super) fn create_file(
        &self,
        name: SnapshotName,
    ) -> Result<Arc<dyn DiskFile>, SnapshotError> {
        if self.exists(name)? {
            self.remove_name(name)?;
        }
        let path = self.path(name);
        self.disk.create(&path).map_err(SnapshotError::disk)
    }

    /// The order that makes a file whole or absent under its name whatever the power does: content,
    /// name, folder. Where this fails the file is removed under both names.
    pub(super) fn publish(
        &self,
        file: &dyn DiskFile,
        from: SnapshotName,
    ) -> Result<(), SnapshotError> {
        let to = from.as_kind(SnapshotFileKind::Whole);
        let publish = || -> Result<(), DiskError> {
            if !self.without(SnapshotAblation::NoSyncBeforeRename) {
                file.sync_all()?;
            }
            self.disk.rename(&self.path(from), &self.path(to))?;
            if !self.without(SnapshotAblation::NoDirSync) {
                self.disk.sync_dir(&self.folder())?;
            }
            self.sound.add(to);
            Ok(())
        };
        publish().map_err(|error| {
            if error.op == DiskOp::SyncDir {
                self.remove_quietly(to);
            }
            SnapshotError::disk(error)
        })
    }

    /// For a file that bears its name already.
    pub(super) fn make_durable(&self, file: &dyn DiskFile) -> Result<(), SnapshotError> {
        file.sync_all().map_err(SnapshotError::disk)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<(), SnapshotError> {
        let synced = self.disk.sync_dir(&self.folder());
        synced.map_err(SnapshotError::disk)
    }

    /// Refuses early what the disk has no room for.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), SnapshotError> {
        let free = self.disk.free_bytes().map_err(SnapshotError::disk)?;
        if bytes <= free {
            return Ok(());
        }
        let full = io::ErrorKind::StorageFull.into();
        let error = DiskError::new(DiskOp::FreeBytes, self.folder(), full);
        Err(SnapshotError::disk(error))
    }

    /// Before a receipt begins: of the interrupted ones of other snapshots, the newest may stay.
    pub(super) fn drop_old_partials(&self, wanted: SnapshotName) -> Result<(), SnapshotError> {
        let wanted = wanted.as_kind(SnapshotFileKind::Partial);
        let (names, _) = self.names()?;
        let partial = |name: &&SnapshotName| name.kind == SnapshotFileKind::Partial;
        let others = names.iter().filter(partial).filter(|name| **name != wanted);
        for name in others.rev().skip(SNAPSHOT_PARTIALS_MAX - 1) {
            self.remove_name(*name)?;
        }
        Ok(())
    }

    /// Removes a file. The removal need not be durable: a file that comes back is removed again.
    pub(super) fn remove_name(&self, name: SnapshotName) -> Result<(), SnapshotError> {
        self.sound.remove(name);
        match self.disk.remove(&self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::disk(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes a file that nothing names, where the caller has a worse error to report or none: what
    /// stays is removed at the next start.
    pub(super) fn remove_quietly(&self, name: SnapshotName) {
        let _ = self.disk.remove(&self.path(name));
    }
}

/// What may go at start: `names` ascending, `kept` the durable references, `fallback` the good one
/// before them.
fn obsolete_at_start(
    names: &[SnapshotName],
    kept: &BTreeSet<SnapshotName>,
    fallback: Option<SnapshotName>,
) -> Vec<SnapshotName> {
    let newest = kept.last().copied();
    let partial = |name: &&SnapshotName| {
        let wanted = newest.is_none_or(|newest| newest.index <= name.index);
        name.kind == SnapshotFileKind::Partial && wanted
    };
    let resumable: Vec<SnapshotName> = names
        .iter()
        .rev()
        .filter(partial)
        .take(SNAPSHOT_PARTIALS_MAX)
        .copied()
        .collect();
    let stays = |name: &SnapshotName| match name.kind {
        SnapshotFileKind::Whole => kept.contains(name) || Some(*name) == fallback,
        SnapshotFileKind::Temporary => false,
        SnapshotFileKind::Partial => resumable.contains(name),
    };
    names.iter().filter(|name| !stays(name)).copied().collect()
}

/// What a durable `latest` makes superfluous: whole files older than `fallback`, the good one before it,
/// and interrupted receipts of older ones. Newer files may be on their way into the log.
fn superseded(
    names: &[SnapshotName],
    latest: SnapshotName,
    fallback: Option<SnapshotName>,
) -> Vec<SnapshotName> {
    let goes = |name: &&SnapshotName| match name.kind {
        SnapshotFileKind::Whole => fallback.is_some_and(|fallback| **name < fallback),
        SnapshotFileKind::Temporary => false,
        SnapshotFileKind::Partial => name.index < latest.index,
    };
    names.iter().filter(goes).copied().collect()
}
