//! What the simulated disk knows: per file, what programs read (live), what a power loss is sure to
//! leave (durable), and what lies between; the same for names. No locks, no fault rules.

use crate::image::Image;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    Folder,
    File(usize),
}

pub(crate) type Names = BTreeMap<Box<str>, Node>;

/// One content that a sector had since the file was last synced.
#[derive(Clone)]
pub(crate) struct Version {
    /// The mutation that wrote it.
    pub(crate) mutation: u64,
    pub(crate) bytes: Arc<[u8]>,
}

/// A file, apart from its names.
#[derive(Clone, Default)]
pub(crate) struct Inode {
    /// What reads return.
    pub(crate) live: Arc<Image>,
    /// What survives a power loss that drops everything pending.
    pub(crate) durable: Arc<Image>,
    /// For each sector the durable content before the present one: what a lost write leaves.
    pub(crate) prior: Arc<Image>,
    /// Contents written and not yet synced, oldest first, never empty.
    pub(crate) sectors: BTreeMap<u64, Vec<Version>>,
    /// Lengths since the last sync, oldest first, each with its mutation.
    pub(crate) lengths: Vec<(u64, u64)>,
    /// Something was lost in write-back, and the next sync is to say so.
    pub(crate) error: bool,
}

/// What a failed sync leaves in the cache. Both happen on real file systems, and both mark the
/// pages clean, so that a second sync returns `Ok` and writes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheAfter {
    /// Reads return the old, durable content again.
    OldContent,
    /// Reads go on returning the new content, which no later sync will write.
    NewContent,
}

/// A change of names, pending until the folder is synced. A rename is one change of two names.
#[derive(Clone)]
pub(crate) struct NameChange {
    pub(crate) mutation: u64,
    pub(crate) sets: Vec<(Box<str>, Option<Node>)>,
}

/// All files and names.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) sector_bytes: usize,
    /// Sectors that became part of a file by a length that survived, while their content did not:
    /// zeros, or with a seed what happened to lie there.
    pub(crate) garbage: Option<u64>,
    /// Indexed by [`Node::File`]; `None` for files that no name and no handle can reach.
    pub(crate) inodes: Vec<Option<Arc<Inode>>>,
    pub(crate) live: Arc<Names>,
    pub(crate) durable: Arc<Names>,
    pub(crate) changes: Vec<NameChange>,
}

impl State {
    pub(crate) fn new(sector_bytes: usize, garbage: Option<u64>) -> State {
        State {
            sector_bytes,
            garbage,
            inodes: Vec::new(),
            live: Arc::default(),
            durable: Arc::default(),
            changes: Vec::new(),
        }
    }

    pub(crate) fn inode(&self, id: usize) -> &Inode {
        self.inodes[id]
            .as_ref()
            .expect("a file lives as long as a name or a handle of its life")
    }

    pub(crate) fn inode_mut(&mut self, id: usize) -> &mut Inode {
        let inode = self.inodes[id]
            .as_mut()
            .expect("a file lives as long as a name or a handle of its life");
        Arc::make_mut(inode)
    }

    /// Bytes that named files occupy.
    pub(crate) fn used(&self) -> u64 {
        self.live
            .values()
            .map(|node| match node {
                Node::Folder => 0,
                Node::File(id) => self.inode(*id).live.len(),
            })
            .sum()
    }

    /// A new empty file under this name; nothing of it is durable.
    pub(crate) fn add_file(&mut self, mutation: u64, name: &str) -> usize {
        self.inodes.push(Some(Arc::default()));
        let id = self.inodes.len() - 1;
        self.change_names(mutation, vec![(name.into(), Some(Node::File(id)))]);
        id
    }

    pub(crate) fn change_names(&mut self, mutation: u64, sets: Vec<(Box<str>, Option<Node>)>) {
        let names = Arc::make_mut(&mut self.live);
        apply_sets(names, &sets);
        self.changes.push(NameChange { mutation, sets });
    }

    /// Makes the entries of this folder durable, and of no other.
    pub(crate) fn sync_folder(&mut self, folder: &str) {
        let durable = Arc::make_mut(&mut self.durable);
        for change in &mut self.changes {
            let (here, elsewhere): (Vec<_>, Vec<_>) = change
                .sets
                .drain(..)
                .partition(|(name, _)| parent(name) == folder);
            apply_sets(durable, &here);
            change.sets = elsewhere;
        }
        self.changes.retain(|change| !change.sets.is_empty());
    }

    pub(crate) fn write(&mut self, mutation: u64, id: usize, bytes: &[u8], offset: u64) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        let size = self.sector_bytes as u64;
        let old_len = self.inode(id).live.len();
        let inode = self.inode_mut(id);
        Arc::make_mut(&mut inode.live).write(bytes, offset);
        if end > old_len {
            inode.lengths.push((mutation, end));
        }
        self.note_sectors(mutation, id, offset / size..end.div_ceil(size));
    }

    /// Writes zeros over the first `len` bytes and makes that the length.
    pub(crate) fn fill_zero(&mut self, mutation: u64, id: usize, len: u64) {
        let size = self.sector_bytes as u64;
        let inode = self.inode_mut(id);
        let old_len = inode.live.len();
        let mut zeros = Image::default();
        zeros.set_len(len);
        inode.live = Arc::new(zeros);
        if len != old_len {
            inode.lengths.push((mutation, len));
        }
        // What a shorter length cuts off reads as zeros if the file grows again, so the cut is a
        // write of zeros too.
        self.note_sectors(mutation, id, 0..len.max(old_len).div_ceil(size));
    }

    /// Adds the live content of these sectors to what may or may not survive.
    fn note_sectors(&mut self, mutation: u64, id: usize, sectors: std::ops::Range<u64>) {
        let size = self.sector_bytes;
        let exact = self.garbage.is_some();
        let inode = self.inode_mut(id);
        for number in sectors {
            let bytes = inode.live.sector(size, number);
            let known = !exact || (number + 1) * size as u64 <= inode.durable.len();
            // The same bytes as those it would fall back to: lost or kept makes no difference.
            let same = known && bytes == inode.durable.sector(size, number);
            let pending = inode.sectors.get_mut(&number);
            let version = || Version {
                mutation,
                bytes: bytes.into(),
            };
            match pending {
                Some(versions) => versions.push(version()),
                None if same => {}
                None => {
                    let first = vec![version()];
                    inode.sectors.insert(number, first);
                }
            }
        }
    }

    /// Everything written to this file survives from now on.
    pub(crate) fn sync(&mut self, id: usize) {
        let size = self.sector_bytes;
        let inode = self.inode(id);
        if inode.sectors.is_empty() && inode.lengths.is_empty() {
            return;
        }
        let inode = self.inode_mut(id);
        let sectors = std::mem::take(&mut inode.sectors);
        let last = |versions: &Vec<Version>| versions.last().map(|last| last.bytes.clone());
        let kept = sectors
            .iter()
            .filter_map(|(number, versions)| Some((*number, last(versions)?)));
        let len = inode.lengths.last().map(|(_, len)| *len);
        inode.settle(size, len, kept, None);
        inode.lengths.clear();
    }

    /// A sync that failed: `landed` says which pending sectors reached the disk all the same; the
    /// rest is forgotten by the kernel.
    pub(crate) fn drop_pending(
        &mut self,
        id: usize,
        cache: CacheAfter,
        mut landed: impl FnMut() -> bool,
    ) {
        let size = self.sector_bytes;
        let inode = self.inode_mut(id);
        let sectors = std::mem::take(&mut inode.sectors);
        let len = inode.lengths.last().map(|(_, len)| *len);
        inode.lengths.clear();
        let mut kept = Vec::new();
        for (number, versions) in &sectors {
            if let Some(last) = versions.last()
                && landed()
            {
                kept.push((*number, last.bytes.clone()));
            }
        }
        // The length belongs to metadata with a journal of its own: it is not lost.
        inode.settle(size, len, kept.into_iter(), None);
        if cache == CacheAfter::OldContent {
            inode.live = inode.durable.clone();
        }
    }

    /// The sectors of these bytes are written back and fail: their durable content stays, what was
    /// pending of them is forgotten.
    pub(crate) fn fail_writeback(
        &mut self,
        id: usize,
        bytes: std::ops::Range<u64>,
        cache: CacheAfter,
        reported: bool,
    ) {
        let size = self.sector_bytes;
        let inode = self.inode_mut(id);
        inode.error |= reported;
        for number in bytes.start / size as u64..bytes.end.div_ceil(size as u64) {
            inode.sectors.remove(&number);
            if cache == CacheAfter::OldContent {
                let old = inode.durable.sector(size, number);
                Arc::make_mut(&mut inode.live).put_sector(size, number, old);
            }
        }
    }

    /// Is there an error that a sync of this file must report? It is reported once.
    pub(crate) fn take_error(&mut self, id: usize) -> bool {
        self.inode(id).error && std::mem::take(&mut self.inode_mut(id).error)
    }

    /// Forgets cached content that counts as clean: reads return what the disk holds, except where
    /// a write is pending.
    pub(crate) fn evict_clean(&mut self) {
        let size = self.sector_bytes;
        for inode in self.inodes.iter_mut().flatten() {
            let inode = Arc::make_mut(inode);
            let mut live = Image::clone(&inode.durable);
            live.set_len(inode.live.len());
            for (number, versions) in &inode.sectors {
                if let Some(last) = versions.last() {
                    live.put_sector(size, *number, &last.bytes);
                }
            }
            inode.live = Arc::new(live);
        }
    }
}

impl Inode {
    /// Puts these sector contents and this length into the durable image. With a garbage seed, the
    /// sectors that the length brought in without content are filled from it.
    pub(crate) fn settle(
        &mut self,
        size: usize,
        len: Option<u64>,
        kept: impl Iterator<Item = (u64, Arc<[u8]>)>,
        garbage: Option<u64>,
    ) {
        let durable = Arc::make_mut(&mut self.durable);
        let prior = Arc::make_mut(&mut self.prior);
        let old_len = durable.len();
        if let Some(len) = len {
            durable.set_len(len);
            prior.set_len(len);
        }
        if let Some(seed) = garbage {
            for number in old_len.div_ceil(size as u64)..durable.len().div_ceil(size as u64) {
                durable.put_sector(size, number, &noise(seed ^ number, size));
            }
        }
        for (number, bytes) in kept {
            prior.put_sector(size, number, durable.sector(size, number));
            durable.put_sector(size, number, &bytes);
        }
    }
}

/// Bytes that look like nothing, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut word = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        word = crate::image::mix(word);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The folder a name stands in; the root is the empty name.
pub(crate) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

pub(crate) fn apply_sets(names: &mut Names, sets: &[(Box<str>, Option<Node>)]) {
    for (name, node) in sets {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

/// Drops names whose folder is not there.
pub(crate) fn drop_orphans(names: &mut Names) {
    loop {
        let orphans: Vec<Box<str>> = names
            .keys()
            .filter(|name| {
                let folder = parent(name);
                !folder.is_empty() && names.get(folder) != Some(&Node::Folder)
            })
            .cloned()
            .collect();
        if orphans.is_empty() {
            return;
        }
        for name in orphans {
            names.remove(&name);
        }
    }
}
