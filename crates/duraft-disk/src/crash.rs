//! Power losses: from what is pending, what may be left.

use crate::fault::{FaultDisk, FaultOptions};
use crate::image::{Image, at, hash_bytes, mix};
use crate::rng::SplitMix64;
use crate::state::{Inode, Names, Node, State, Version, apply_sets, drop_orphans};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What a power loss leaves of the pending content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival<'a> {
    /// Only what was synced: the worst case for what was promised.
    Nothing,
    /// All of it.
    Everything,
    /// Each pending item survives or not as drawn from the seed.
    Drawn(u64),
    /// The same, and some of the surviving sectors are torn.
    Torn(u64),
    /// The fate of each item of [`CrashPoint::items`]: 0 is lost, `n` is its n-th version. Missing
    /// fates count as lost, too large ones as the newest version.
    Fates(&'a [u8]),
}

/// A sector of which a power loss keeps a part: disks promise whole sectors, drives that lose power
/// have broken that promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tear {
    /// Number of the sector among [`CrashPoint::items`]. Items that are no sectors, and lost ones,
    /// cannot be torn; for them this says nothing.
    pub item: usize,
    /// The bytes of the sector that hold what its fate says. The others hold what was durable.
    pub kept: Range<usize>,
}

/// What one pending item is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PendingKind {
    /// The content of a sector.
    Sector {
        /// The file.
        file: Box<str>,
        /// The sector's number in the file.
        sector: u64,
    },
    /// The length of a file.
    Length {
        /// The file.
        file: Box<str>,
    },
    /// Creation, renaming or removal: the names that change together.
    Names {
        /// The names.
        names: Vec<Box<str>>,
    },
}

/// Something that a power loss may keep or lose on its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingItem {
    /// What it is.
    pub kind: PendingKind,
    /// The mutation behind each version, oldest first; a fate of `n` keeps the n-th.
    pub versions: Vec<u64>,
}

impl fmt::Display for PendingItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PendingKind::Sector { file, sector } => write!(f, "{file} sector {sector}"),
            PendingKind::Length { file } => write!(f, "{file} length"),
            PendingKind::Names { names } => write!(f, "names {}", names.join(", ")),
        }
    }
}

/// A moment at which the power may fail, prepared so that each possible outcome is cheap to build.
#[derive(Clone)]
pub struct CrashPoint {
    /// The disk if everything pending is lost.
    base: State,
    options: FaultOptions,
    items: Vec<PendingItem>,
    files: Vec<PendingFile>,
    changes: Vec<PendingChange>,
}

#[derive(Clone)]
struct PendingFile {
    inode: usize,
    sectors: Vec<(usize, u64, Vec<Version>)>,
    length: Option<(usize, Vec<u64>)>,
}

#[derive(Clone)]
struct PendingChange {
    item: usize,
    sets: Vec<(Box<str>, Option<Node>)>,
}

impl FaultDisk {
    /// Ends this life by a power loss and begins the next.
    pub fn power_loss(&self, survival: Survival<'_>) -> FaultDisk {
        self.kill();
        let point = self.crash_point();
        match survival {
            Survival::Nothing => point.image(&[]),
            Survival::Everything => point.image(&vec![u8::MAX; point.items.len()]),
            Survival::Drawn(seed) => point.image(&point.drawn(&mut SplitMix64::new(seed))),
            Survival::Torn(seed) => {
                let mut rng = SplitMix64::new(seed);
                let fates = point.drawn(&mut rng);
                let tears = point.drawn_tears(&fates, &mut rng);
                point.torn_image(&fates, &tears)
            }
            Survival::Fates(fates) => point.image(fates),
        }
    }

    /// A copy that holds only what was synced, for recovery beside the running life.
    pub fn durable_view(&self) -> FaultDisk {
        self.crash_point().image(&[])
    }

    /// What may be left if the power fails now. Works on a crashed disk; changes nothing.
    pub fn crash_point(&self) -> CrashPoint {
        let life = self.life();
        CrashPoint::new(&life.state, life.options)
    }

    /// A name for the content of all files and folders as read: equal disks have equal names. The
    /// durable content does not count; on the first moment of a life after a power loss they are
    /// the same.
    pub fn fingerprint(&self) -> u64 {
        let life = self.life();
        life.state.live.iter().fold(0, |sum, (name, node)| {
            let content = match node {
                Node::Folder => 1,
                Node::File(id) => life.state.inode(*id).live.hash(),
            };
            mix(mix(sum ^ hash_bytes(name.as_bytes())) ^ content)
        })
    }
}

impl CrashPoint {
    fn new(state: &State, options: FaultOptions) -> CrashPoint {
        let reachable = reachable(state);
        let mut found = Vec::new();
        for (id, names) in &reachable {
            let inode = state.inode(*id);
            let file: &str = names.first().map_or("", |name| name);
            for (sector, versions) in &inode.sectors {
                found.push((
                    Source::Sector(*id, *sector),
                    PendingItem {
                        kind: PendingKind::Sector {
                            file: file.into(),
                            sector: *sector,
                        },
                        versions: versions.iter().map(|version| version.mutation).collect(),
                    },
                ));
            }
            if !inode.lengths.is_empty() {
                found.push((
                    Source::Length(*id),
                    PendingItem {
                        kind: PendingKind::Length { file: file.into() },
                        versions: inode
                            .lengths
                            .iter()
                            .map(|(mutation, _)| *mutation)
                            .collect(),
                    },
                ));
            }
        }
        for (number, change) in state.changes.iter().enumerate() {
            let names = change.sets.iter().map(|(name, _)| name.clone()).collect();
            found.push((
                Source::Change(number),
                PendingItem {
                    kind: PendingKind::Names { names },
                    versions: vec![change.mutation],
                },
            ));
        }
        // In the order in which they were first written; the sort is stable.
        found.sort_by_key(|(_, item)| item.versions.first().copied());
        let mut point = CrashPoint {
            base: base(state, &reachable),
            options,
            items: Vec::with_capacity(found.len()),
            files: Vec::new(),
            changes: Vec::new(),
        };
        for (source, item) in found {
            point.add(state, source, item);
        }
        for file in &mut point.files {
            file.sectors.sort_unstable_by_key(|(_, sector, _)| *sector);
        }
        point
    }

    fn add(&mut self, state: &State, source: Source, item: PendingItem) {
        let number = self.items.len();
        self.items.push(item);
        match source {
            Source::Sector(id, sector) => {
                let versions = state.inode(id).sectors[&sector].clone();
                self.file(id).sectors.push((number, sector, versions));
            }
            Source::Length(id) => {
                let lengths = state
                    .inode(id)
                    .lengths
                    .iter()
                    .map(|(_, len)| *len)
                    .collect();
                self.file(id).length = Some((number, lengths));
            }
            Source::Change(change) => self.changes.push(PendingChange {
                item: number,
                sets: state.changes[change].sets.clone(),
            }),
        }
    }

    fn file(&mut self, inode: usize) -> &mut PendingFile {
        let place = match self.files.iter().position(|file| file.inode == inode) {
            Some(place) => place,
            None => {
                self.files.push(PendingFile {
                    inode,
                    sectors: Vec::new(),
                    length: None,
                });
                self.files.len() - 1
            }
        };
        &mut self.files[place]
    }

    /// What may survive or be lost, in the order in which it was first written.
    pub fn items(&self) -> &[PendingItem] {
        &self.items
    }

    /// Fates drawn for all items: each is lost, kept in its newest version, or rarely in an older
    /// one. How many survive is drawn first, so that nearly none and nearly all are common.
    pub fn drawn(&self, rng: &mut SplitMix64) -> Vec<u8> {
        let keep = rng.below(257);
        self.items
            .iter()
            .map(|item| {
                let newest = newest(item);
                if rng.below(256) >= keep {
                    0
                } else if newest > 1 && rng.below(2) == 0 {
                    let older = rng.below(u64::from(newest));
                    u8::try_from(older).unwrap_or(newest)
                } else {
                    newest
                }
            })
            .collect()
    }

    /// Tears drawn for some of the sectors that survive: a front, an end or a middle part is kept of
    /// the bytes that changed.
    pub fn drawn_tears(&self, fates: &[u8], rng: &mut SplitMix64) -> Vec<Tear> {
        let size = self.options.sector_bytes;
        let one_in = [1, 2, 8][at(rng.below(3))];
        let mut tears = Vec::new();
        for file in &self.files {
            for (item, sector, versions) in &file.sectors {
                let Some(version) = pick(versions, fate(fates, *item)) else {
                    continue;
                };
                let before = self.base.inode(file.inode).durable.sector(size, *sector);
                let differs = |place: &usize| before[*place] != version.bytes[*place];
                let (Some(first), Some(last)) =
                    ((0..size).find(differs), (0..size).rev().find(differs))
                else {
                    continue;
                };
                if rng.below(one_in) > 0 {
                    continue;
                }
                let mut edge = || first + at(rng.below((last - first + 1) as u64));
                let (one, two) = (edge(), edge());
                let kept = match rng.below(3) {
                    0 => 0..one,
                    1 => one..size,
                    _ => one.min(two)..one.max(two),
                };
                tears.push(Tear { item: *item, kept });
            }
        }
        tears
    }

    /// The disk after a power loss at this point with these fates, as a new life. See
    /// [`Survival::Fates`].
    pub fn image(&self, fates: &[u8]) -> FaultDisk {
        self.torn_image(fates, &[])
    }

    /// The same where some of the sectors that survive do so in part.
    pub fn torn_image(&self, fates: &[u8], tears: &[Tear]) -> FaultDisk {
        let mut state = self.base.clone();
        for file in &self.files {
            if let Some(inode) = file.outcome(&state, fates, tears) {
                state.inodes[file.inode] = Some(Arc::new(inode));
            }
        }
        if !self.changes.is_empty() {
            let mut names = Names::clone(&state.durable);
            for change in &self.changes {
                if fate(fates, change.item) > 0 {
                    apply_sets(&mut names, &change.sets);
                }
            }
            drop_orphans(&mut names);
            state.live = Arc::new(names);
            state.durable = state.live.clone();
        }
        FaultDisk::from_state(state, self.options)
    }

    pub(crate) fn sector_bytes(&self) -> usize {
        self.options.sector_bytes
    }

    pub(crate) fn name_changes(&self) -> usize {
        self.changes.len()
    }

    /// The files by name where these pending changes survive and the others are lost.
    pub(crate) fn names_after(&self, kept: impl Fn(usize) -> bool) -> BTreeMap<Box<str>, usize> {
        let mut names = Names::clone(&self.base.durable);
        for (number, change) in self.changes.iter().enumerate() {
            if kept(number) {
                apply_sets(&mut names, &change.sets);
            }
        }
        drop_orphans(&mut names);
        let files = names.into_iter().filter_map(|(name, node)| match node {
            Node::File(id) => Some((name, id)),
            Node::Folder => None,
        });
        files.collect()
    }

    /// The lengths that a file may have.
    pub(crate) fn lengths_of(&self, inode: usize) -> Vec<u64> {
        let pending = self.files.iter().find(|file| file.inode == inode);
        let pending = pending.and_then(|file| file.length.as_ref());
        let mut lengths = vec![self.base.inode(inode).durable.len()];
        lengths.extend(pending.into_iter().flat_map(|(_, lengths)| lengths));
        lengths
    }

    /// The contents that a sector of a file may have.
    pub(crate) fn contents_of(&self, inode: usize, sector: u64) -> Vec<&[u8]> {
        let size = self.sector_bytes();
        let mut contents = vec![self.base.inode(inode).durable.sector(size, sector)];
        if let Some(file) = self.files.iter().find(|file| file.inode == inode) {
            let place = file
                .sectors
                .binary_search_by_key(&sector, |(_, number, _)| *number);
            if let Ok(place) = place {
                contents.extend(file.sectors[place].2.iter().map(|version| &*version.bytes));
            }
        }
        contents
    }

    /// The fates in words: what was lost, or kept in an older version.
    pub fn describe(&self, fates: &[u8]) -> String {
        let mut lost = Vec::new();
        let mut older = Vec::new();
        for (number, item) in self.items.iter().enumerate() {
            match fate(fates, number) {
                0 => lost.push(item.to_string()),
                n if n < newest(item) => older.push(format!("{item} version {n}")),
                _ => {}
            }
        }
        format!(
            "{} items pending; lost: [{}]; kept in an older version: [{}]",
            self.items.len(),
            lost.join("; "),
            older.join("; ")
        )
    }
}

enum Source {
    Sector(usize, u64),
    Length(usize),
    Change(usize),
}

impl PendingFile {
    /// The file after the power loss; `None` where all of it was lost.
    fn outcome(&self, base: &State, fates: &[u8], tears: &[Tear]) -> Option<Inode> {
        let length = self
            .length
            .as_ref()
            .and_then(|(item, lengths)| pick(lengths, fate(fates, *item)).copied());
        let mut kept = self.sectors.iter().filter_map(|(item, sector, versions)| {
            let version = pick(versions, fate(fates, *item))?;
            let Some(tear) = tears.iter().find(|tear| tear.item == *item) else {
                return Some((*sector, version.bytes.clone()));
            };
            let before = base
                .inode(self.inode)
                .durable
                .sector(base.sector_bytes, *sector);
            let bytes = (0..before.len()).map(|place| {
                [before[place], version.bytes[place]][usize::from(tear.kept.contains(&place))]
            });
            Some((*sector, bytes.collect()))
        });
        let first = kept.next();
        if length.is_none() && first.is_none() {
            return None;
        }
        let mut inode = base.inode(self.inode).clone();
        let kept = first.into_iter().chain(kept);
        inode.settle(base.sector_bytes, length, kept, base.garbage);
        inode.live = inode.durable.clone();
        Some(inode)
    }
}

fn fate(fates: &[u8], item: usize) -> u8 {
    fates.get(item).copied().unwrap_or(0)
}

fn pick<T>(versions: &[T], fate: u8) -> Option<&T> {
    let place = usize::from(fate).min(versions.len()).checked_sub(1)?;
    versions.get(place)
}

/// The fate that keeps an item's newest version.
pub(crate) fn newest(item: &PendingItem) -> u8 {
    u8::try_from(item.versions.len()).unwrap_or(u8::MAX)
}

/// Files that some outcome can reach, each with its names.
fn reachable(state: &State) -> Vec<(usize, BTreeSet<Box<str>>)> {
    let mut files: Vec<(usize, BTreeSet<Box<str>>)> = Vec::new();
    let durable = state.durable.iter().map(|(name, node)| (name, Some(*node)));
    let pending = state.changes.iter().flat_map(|change| &change.sets);
    let all = durable.chain(pending.map(|(name, node)| (name, *node)));
    for (name, node) in all {
        let Some(Node::File(id)) = node else { continue };
        match files.iter_mut().find(|(known, _)| *known == id) {
            Some((_, names)) => {
                names.insert(name.clone());
            }
            None => files.push((id, BTreeSet::from([name.clone()]))),
        }
    }
    files.sort_by_key(|(id, _)| *id);
    files
}

/// The disk if all that is pending is lost, with the files that pending names may bring back.
fn base(state: &State, reachable: &[(usize, BTreeSet<Box<str>>)]) -> State {
    let mut inodes = vec![None; state.inodes.len()];
    for (id, _) in reachable {
        let inode = state.inode(*id);
        let clean = inode.sectors.is_empty()
            && inode.lengths.is_empty()
            && !inode.error
            && Arc::ptr_eq(&inode.live, &inode.durable);
        inodes[*id] = if clean {
            state.inodes[*id].clone()
        } else {
            Some(Arc::new(lost(inode)))
        };
    }
    State {
        inodes,
        live: state.durable.clone(),
        changes: Vec::new(),
        ..state.clone()
    }
}

fn lost(inode: &Inode) -> Inode {
    let durable: &Arc<Image> = &inode.durable;
    Inode {
        live: durable.clone(),
        durable: durable.clone(),
        prior: inode.prior.clone(),
        ..Inode::default()
    }
}
