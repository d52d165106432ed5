//! A disk in memory that loses, tears, refuses and damages, on request and repeatably.
//!
//! # The fault model
//!
//! A file has two images. The *live* image is what reads return: everything written so far. The
//! *durable* image is what the last successful sync left. Between them lies what is *pending*:
//!
//! - **Sectors.** Each write makes the sectors it touches pending. A power loss keeps any subset of
//!   them, not a prefix: the kernel and the drive write back in any order. A sector written more
//!   than once may survive in any of its versions. A sector is atomic unless the test tears it; its
//!   size is a parameter (512 to 4096 bytes), and a small one is how tears inside a block are
//!   modelled.
//! - **Lengths.** The length of a file survives or not independently of its sectors. Where the
//!   length survives and the content does not, the new part reads as zeros, or as garbage where the
//!   options say so.
//! - **Names.** Each creation, renaming and removal may be lost on its own until the folder is
//!   synced. Syncing a file does not make its name durable, and a folder is a name in its parent.
//!   A renaming is atomic inside one folder; across folders each end waits for its own sync.
//!
//! A *process crash* keeps the live image and everything pending stays pending: what the next
//! process reads proves nothing about what a later power loss will leave.
//!
//! A *failed sync* may leave the new content in the cache, marked clean, or throw it away; either
//! way later syncs succeed without writing it. Any subset may have reached the disk. The error may
//! come *late*: a write is lost in write-back, and the next sync reports it once, or nobody does. A
//! *lying sync* returns `Ok` and makes nothing durable.
//!
//! *Damage at rest* changes durable bytes behind the program's back: flipped bits, zeroed, stale,
//! misdirected or garbled sectors. Reads may fail in given ranges.
//!
//! Not modelled: reads that return different bytes each time, and renaming of folders.
//!
//! Nothing here has a clock or a source of randomness; where a choice must be drawn, the seed is an
//! argument, and the same calls give the same disk.
//!
//! A [`FaultDisk`] is one *life*: a power loss or process crash ends it, every file and lock of it
//! is dead, and the next life is a new `FaultDisk`. Copies made by [`FaultDisk::fork`] share their
//! pages until one of them writes.

use crate::disk::{Disk, DiskError, DiskFile, DiskLock, DiskOp, Map};
use crate::image::at;
use crate::inject::{DrawnFaults, Effect, Fault, FaultRates};
use crate::rng::SplitMix64;
use crate::state::{Node, State, parent};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Settings of a simulated disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultOptions {
    /// What a power loss keeps or loses as a whole: a power of two from 512 to 4096.
    pub sector_bytes: usize,
    /// Bytes that all files together may have. More is refused with 'no space'.
    pub capacity_bytes: u64,
    /// What a file's new part holds where its length survived and its content did not: zeros, or
    /// with a seed arbitrary bytes.
    pub garbage: Option<u64>,
}

impl Default for FaultOptions {
    fn default() -> FaultOptions {
        FaultOptions {
            sector_bytes: 512,
            capacity_bytes: 4 << 30,
            garbage: None,
        }
    }
}

/// One operation that changed something, as traced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceEntry {
    /// Its number in this life, from 1.
    pub mutation: u64,
    /// Its kind.
    pub op: DiskOp,
    /// The file or folder.
    pub name: Arc<str>,
    /// Where a write begins, else 0.
    pub offset: u64,
    /// Length of a write or of a fill with zeros, else 0.
    pub len: u64,
}

impl std::fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{} {:?} '{}'", self.mutation, self.op, self.name)?;
        if self.len > 0 {
            write!(f, " {}+{}", self.offset, self.len)?;
        }
        Ok(())
    }
}

/// A simulated disk in one of its lives; see the module documentation. Clones are the same disk.
#[derive(Clone)]
pub struct FaultDisk {
    life: Arc<Mutex<Life>>,
}

pub(crate) struct Life {
    pub(crate) state: State,
    pub(crate) options: FaultOptions,
    mutations: u64,
    ops: [u64; DiskOp::ALL.len()],
    crash_at: Option<u64>,
    dead: bool,
    faults: Vec<Fault>,
    drawn: Option<DrawnFaults>,
    unreadable: Vec<(Box<str>, Range<u64>)>,
    locks: BTreeSet<Box<str>>,
    trace: Option<Vec<TraceEntry>>,
}

/// What becomes of an operation that is about to be done.
enum Verdict {
    /// It is done; the number is its place among the mutations.
    Do(u64),
    /// The power fails while it is under way.
    Die(u64),
    /// It fails.
    Fail(Effect, u64),
}

impl FaultDisk {
    /// An empty disk.
    ///
    /// # Panics
    /// Where the sector size is no power of two from 512 to 4096.
    pub fn new(options: FaultOptions) -> FaultDisk {
        let size = options.sector_bytes;
        assert!(
            size.is_power_of_two() && (512..=4096).contains(&size),
            "a sector is a power of two from 512 to 4096 bytes"
        );
        FaultDisk::from_state(State::new(size, options.garbage), options)
    }

    pub(crate) fn from_state(state: State, options: FaultOptions) -> FaultDisk {
        FaultDisk {
            life: Arc::new(Mutex::new(Life {
                state,
                options,
                mutations: 0,
                ops: [0; DiskOp::ALL.len()],
                crash_at: None,
                dead: false,
                faults: Vec::new(),
                drawn: None,
                unreadable: Vec::new(),
                locks: BTreeSet::new(),
                trace: None,
            })),
        }
    }

    pub(crate) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock()
    }

    /// An independent copy of this disk as it is, pending content included, as a new life: no
    /// locks, no planned faults, operations counted from 0. Works on a crashed disk too.
    pub fn fork(&self) -> FaultDisk {
        let life = self.life();
        FaultDisk::from_state(life.state.clone(), life.options)
    }

    /// Ends this life as a killed process does and begins the next: what was in the cache is still
    /// read, and still not durable.
    pub fn process_crash(&self) -> FaultDisk {
        self.life().dead = true;
        self.fork()
    }

    /// The settings.
    pub fn options(&self) -> FaultOptions {
        self.life().options
    }

    /// Operations so far in this life that could change something.
    pub fn mutations(&self) -> u64 {
        self.life().mutations
    }

    /// Operations of this kind so far in this life.
    pub fn ops(&self, op: DiskOp) -> u64 {
        self.life().ops[op as usize]
    }

    /// Ends this life in the midst of this mutation, counted from 1: its effect is pending like any
    /// other, it returns an error, and so does everything after it.
    pub fn crash_at(&self, mutation: u64) {
        self.life().crash_at = Some(mutation);
    }

    /// Has this life ended?
    pub fn crashed(&self) -> bool {
        self.life().dead
    }

    /// Ends this life: all its files and locks answer with errors from now on.
    pub fn kill(&self) {
        self.life().dead = true;
    }

    /// Plans a failure. Where several hit one operation, the one planned first decides.
    pub fn inject(&self, fault: Fault) {
        self.life().faults.push(fault);
    }

    /// From now on operations fail at these rates, as drawn from the seed. A planned failure goes
    /// first.
    pub fn inject_drawn(&self, seed: u64, rates: FaultRates) {
        self.life().drawn = Some(DrawnFaults::new(seed, rates));
    }

    /// Forgets all planned and drawn failures and unreadable ranges. What has failed already, such
    /// as a write lost in write-back, stays as it is.
    pub fn heal(&self) {
        let mut life = self.life();
        life.faults.clear();
        life.drawn = None;
        life.unreadable.clear();
    }

    /// Reads that touch these bytes of the file fail with an I/O error, until [`FaultDisk::heal`].
    pub fn make_unreadable(&self, name: &str, bytes: Range<u64>) {
        self.life().unreadable.push((name.into(), bytes));
    }

    /// Reads return what the disk holds where the cache counts as clean, as after memory pressure.
    /// It matters only after a failed sync that left new content in the cache.
    pub fn evict_clean(&self) {
        self.life().state.evict_clean();
    }

    /// Begins to record mutations.
    pub fn start_trace(&self) {
        self.life().trace = Some(Vec::new());
    }

    /// The mutations recorded since [`FaultDisk::start_trace`].
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.life().trace.clone().unwrap_or_default()
    }
}

impl Life {
    fn begin(
        &mut self,
        op: DiskOp,
        name: &Arc<str>,
        offset: u64,
        len: u64,
    ) -> Result<Verdict, DiskError> {
        if self.dead {
            return Err(dead(op, name));
        }
        self.ops[op as usize] += 1;
        if op.changes() {
            self.mutations += 1;
            let mutation = self.mutations;
            if let Some(trace) = &mut self.trace {
                trace.push(TraceEntry {
                    mutation,
                    op,
                    name: name.clone(),
                    offset,
                    len,
                });
            }
            if self.crash_at == Some(mutation) {
                self.dead = true;
                return Ok(Verdict::Die(mutation));
            }
        }
        let mut effect = None;
        for fault in &mut self.faults {
            // All of them count the operation; the first that hits decides.
            if fault.hits(op, name) {
                effect = effect.or(Some(fault.effect));
            }
        }
        let drawn = self.drawn.as_mut().and_then(|drawn| drawn.draw(op, len));
        Ok(match effect.or(drawn) {
            Some(effect) => Verdict::Fail(effect, self.mutations),
            None => Verdict::Do(self.mutations),
        })
    }

    /// The verdict for an operation that has no effect of its own to suffer.
    fn begin_simple(&mut self, op: DiskOp, name: &Arc<str>) -> Result<Permit, DiskError> {
        match self.begin(op, name, 0, 0)? {
            Verdict::Do(mutation) => Ok(Permit {
                mutation,
                dying: false,
            }),
            Verdict::Die(mutation) => Ok(Permit {
                mutation,
                dying: true,
            }),
            Verdict::Fail(effect, _) => Err(effect.error(op, name)),
        }
    }

    fn folder(&self, op: DiskOp, name: &str) -> Result<(), DiskError> {
        if name.is_empty() {
            return Ok(());
        }
        match self.state.live.get(name) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(error(op, name, io::ErrorKind::NotADirectory)),
            None => Err(error(op, name, io::ErrorKind::NotFound)),
        }
    }

    pub(crate) fn file(&self, op: DiskOp, name: &str) -> Result<usize, DiskError> {
        self.folder(op, parent(name))?;
        match self.state.live.get(name) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Folder) => Err(error(op, name, io::ErrorKind::IsADirectory)),
            None => Err(error(op, name, io::ErrorKind::NotFound)),
        }
    }

    /// Refuses a length that the capacity does not allow.
    fn room_for(&self, op: DiskOp, name: &str, id: usize, len: u64) -> Result<(), DiskError> {
        let present = self.state.inode(id).live.len();
        if len <= present {
            return Ok(());
        }
        let free = self
            .options
            .capacity_bytes
            .saturating_sub(self.state.used());
        // An address that no memory could hold is refused before it is computed with.
        if len - present > free || usize::try_from(len).is_err() {
            return Err(error(op, name, io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn readable(&self, op: DiskOp, name: &str, bytes: Range<u64>) -> Result<(), DiskError> {
        let bad = self.unreadable.iter().any(|(file, range)| {
            &**file == name && range.start < bytes.end && bytes.start < range.end
        });
        if bad {
            return Err(Effect::Io.error(op, name));
        }
        Ok(())
    }
}

/// Leave to change names, and whether the power fails while that is done.
struct Permit {
    mutation: u64,
    dying: bool,
}

impl Permit {
    fn finish<T>(&self, op: DiskOp, name: &str, value: T) -> Result<T, DiskError> {
        if self.dying {
            return Err(dead(op, name));
        }
        Ok(value)
    }
}

fn error(op: DiskOp, name: &str, kind: io::ErrorKind) -> DiskError {
    DiskError::new(op, name, kind.into())
}

fn dead(op: DiskOp, name: &str) -> DiskError {
    DiskError::new(
        op,
        name,
        io::Error::other("this life of the disk has ended"),
    )
}

impl Disk for FaultDisk {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let name = checked_folder(DiskOp::List, dir)?;
        let mut life = self.life();
        life.begin_simple(DiskOp::List, &name)?;
        life.folder(DiskOp::List, dir)?;
        let skip = if dir.is_empty() { 0 } else { dir.len() + 1 };
        Ok(life
            .state
            .live
            .keys()
            .filter(|name| parent(name) == dir)
            .map(|name| name[skip..].to_owned())
            .collect())
    }

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        let op = DiskOp::CreateDir;
        let name = checked_file(op, dir)?;
        let mut life = self.life();
        let permit = life.begin_simple(op, &name)?;
        life.folder(op, parent(dir))?;
        match life.state.live.get(dir) {
            Some(Node::Folder) => {}
            Some(Node::File(_)) => return Err(error(op, dir, io::ErrorKind::AlreadyExists)),
            None => {
                let set = (dir.into(), Some(Node::Folder));
                life.state.change_names(permit.mutation, vec![set]);
            }
        }
        permit.finish(op, dir, ())
    }

    fn create(&self, file: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let op = DiskOp::Create;
        let name = checked_file(op, file)?;
        let mut life = self.life();
        let permit = life.begin_simple(op, &name)?;
        life.folder(op, parent(file))?;
        if life.state.live.contains_key(file) {
            return Err(error(op, file, io::ErrorKind::AlreadyExists));
        }
        let inode = life.state.add_file(permit.mutation, file);
        permit.finish(op, file, self.handle(name, inode))
    }

    fn open(&self, file: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let name = checked_file(DiskOp::Open, file)?;
        let mut life = self.life();
        life.begin_simple(DiskOp::Open, &name)?;
        let inode = life.file(DiskOp::Open, file)?;
        Ok(self.handle(name, inode))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let op = DiskOp::Rename;
        let name = checked_file(op, from)?;
        checked_file(op, to)?;
        let mut life = self.life();
        let permit = life.begin_simple(op, &name)?;
        let inode = life.file(op, from)?;
        life.folder(op, parent(to))?;
        if life.state.live.get(to) == Some(&Node::Folder) {
            return Err(error(op, to, io::ErrorKind::IsADirectory));
        }
        if from != to {
            let sets = vec![(from.into(), None), (to.into(), Some(Node::File(inode)))];
            life.state.change_names(permit.mutation, sets);
        }
        permit.finish(op, from, ())
    }

    fn remove(&self, file: &str) -> Result<(), DiskError> {
        let op = DiskOp::Remove;
        let name = checked_file(op, file)?;
        let mut life = self.life();
        let permit = life.begin_simple(op, &name)?;
        life.file(op, file)?;
        life.state
            .change_names(permit.mutation, vec![(file.into(), None)]);
        permit.finish(op, file, ())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let op = DiskOp::SyncDir;
        let name = checked_folder(op, dir)?;
        let mut life = self.life();
        let verdict = life.begin(op, &name, 0, 0)?;
        life.folder(op, dir)?;
        match verdict {
            Verdict::Do(_) => life.state.sync_folder(dir),
            Verdict::Die(_) => return Err(dead(op, dir)),
            Verdict::Fail(Effect::SyncLies, _) => {}
            Verdict::Fail(effect, _) => return Err(effect.error(op, dir)),
        }
        Ok(())
    }

    fn lock(&self, file: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        let op = DiskOp::Lock;
        let name = checked_file(op, file)?;
        let mut life = self.life();
        let permit = life.begin_simple(op, &name)?;
        life.folder(op, parent(file))?;
        match life.state.live.get(file) {
            Some(Node::File(_)) => {}
            Some(Node::Folder) => return Err(error(op, file, io::ErrorKind::IsADirectory)),
            None => {
                life.state.add_file(permit.mutation, file);
            }
        }
        if permit.dying {
            return Err(dead(op, file));
        }
        if !life.locks.insert(file.into()) {
            return Err(error(op, file, io::ErrorKind::WouldBlock));
        }
        Ok(Box::new(FaultLock {
            disk: self.clone(),
            name: file.into(),
        }))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let mut life = self.life();
        life.begin_simple(DiskOp::FreeBytes, &Arc::from(""))?;
        Ok(life
            .options
            .capacity_bytes
            .saturating_sub(life.state.used()))
    }
}

impl FaultDisk {
    fn handle(&self, name: Arc<str>, inode: usize) -> Arc<dyn DiskFile> {
        Arc::new(FaultFile {
            disk: self.clone(),
            name,
            inode,
        })
    }
}

/// An open file of one life. It outlives its name, as on Unix.
struct FaultFile {
    disk: FaultDisk,
    name: Arc<str>,
    inode: usize,
}

impl FaultFile {
    fn sync(&self, op: DiskOp) -> Result<(), DiskError> {
        let mut life = self.disk.life();
        match life.begin(op, &self.name, 0, 0)? {
            Verdict::Do(_) => {
                life.state.sync(self.inode);
                if life.state.take_error(self.inode) {
                    return Err(Effect::Io.error(op, &self.name));
                }
            }
            Verdict::Die(_) => return Err(dead(op, &self.name)),
            Verdict::Fail(Effect::SyncLies, _) => {}
            Verdict::Fail(Effect::SyncFails { cache, landed }, _) => {
                let mut rng = landed.map(SplitMix64::new);
                let landed = || rng.as_mut().is_some_and(|rng| rng.next() & 1 == 1);
                life.state.drop_pending(self.inode, cache, landed);
                return Err(Effect::Io.error(op, &self.name));
            }
            Verdict::Fail(effect, _) => return Err(effect.error(op, &self.name)),
        }
        Ok(())
    }
}

impl DiskFile for FaultFile {
    fn len(&self) -> Result<u64, DiskError> {
        let mut life = self.disk.life();
        life.begin_simple(DiskOp::Len, &self.name)?;
        Ok(life.state.inode(self.inode).live.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut life = self.disk.life();
        life.begin_simple(DiskOp::Read, &self.name)?;
        let end = offset.saturating_add(buf.len() as u64);
        life.readable(DiskOp::Read, &self.name, offset..end)?;
        Ok(life.state.inode(self.inode).live.read(buf, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        let op = DiskOp::Write;
        let len = bytes.len() as u64;
        let mut life = self.disk.life();
        let verdict = life.begin(op, &self.name, offset, len)?;
        let end = offset
            .checked_add(len)
            .ok_or_else(|| error(op, &self.name, io::ErrorKind::InvalidInput))?;
        if len > 0 {
            life.room_for(op, &self.name, self.inode, end)?;
        }
        match verdict {
            Verdict::Do(mutation) => life.state.write(mutation, self.inode, bytes, offset),
            Verdict::Die(mutation) => {
                life.state.write(mutation, self.inode, bytes, offset);
                return Err(dead(op, &self.name));
            }
            Verdict::Fail(effect, mutation) => {
                if let Effect::WritebackFails { cache, reported } = effect {
                    let inode = self.inode;
                    life.state.write(mutation, inode, bytes, offset);
                    let lost = offset..end;
                    life.state.fail_writeback(inode, lost, cache, reported);
                    return Ok(());
                }
                if let Effect::ShortWrite { bytes: done } = effect {
                    let done = done.min(bytes.len());
                    life.state
                        .write(mutation, self.inode, &bytes[..done], offset);
                }
                return Err(effect.error(op, &self.name));
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.sync(DiskOp::SyncData)
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.sync(DiskOp::SyncAll)
    }

    fn fill_zero(&self, len: u64) -> Result<(), DiskError> {
        let op = DiskOp::FillZero;
        let mut life = self.disk.life();
        let verdict = life.begin(op, &self.name, 0, len)?;
        life.room_for(op, &self.name, self.inode, len)?;
        match verdict {
            Verdict::Do(mutation) => life.state.fill_zero(mutation, self.inode, len),
            Verdict::Die(mutation) => {
                life.state.fill_zero(mutation, self.inode, len);
                return Err(dead(op, &self.name));
            }
            Verdict::Fail(effect, mutation) => {
                if let Effect::ShortWrite { bytes } = effect {
                    let zeros = vec![0; bytes.min(at(len))];
                    life.state.write(mutation, self.inode, &zeros, 0);
                }
                return Err(effect.error(op, &self.name));
            }
        }
        Ok(())
    }

    /// A copy of the content as it is: later writes do not show.
    fn map(&self) -> Result<Option<Map>, DiskError> {
        let mut life = self.disk.life();
        life.begin_simple(DiskOp::Map, &self.name)?;
        life.readable(DiskOp::Map, &self.name, 0..u64::MAX)?;
        let bytes = life.state.inode(self.inode).live.to_vec();
        Ok(Some(Map::new(Arc::new(bytes))))
    }
}

struct FaultLock {
    disk: FaultDisk,
    name: Box<str>,
}

impl DiskLock for FaultLock {}

impl Drop for FaultLock {
    fn drop(&mut self) {
        self.disk.life().locks.remove(&self.name);
    }
}

/// A name of a file or folder other than the root.
pub(crate) fn checked_file(op: DiskOp, name: &str) -> Result<Arc<str>, DiskError> {
    let proper = |part: &str| !part.is_empty() && part != "." && part != "..";
    if name.split('/').all(proper) && !name.contains('\0') {
        return Ok(name.into());
    }
    Err(error(op, name, io::ErrorKind::InvalidInput))
}

/// A name of a folder; the empty one is the root.
pub(crate) fn checked_folder(op: DiskOp, name: &str) -> Result<Arc<str>, DiskError> {
    if name.is_empty() {
        return Ok(name.into());
    }
    checked_file(op, name)
}
