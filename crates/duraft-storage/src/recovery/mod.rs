//! Opening a store: survey the slots, decide what is the log, replay it, begin a new segment.
//!
//! | step | module | does |
//! |---|---|---|
//! | survey | [`survey`] | reads every slot's header and first blocks |
//! | scan | [`scan`] | finds a segment's blocks, the proof of its length, its holes |
//! | decide | [`decide`] | torn or corrupt, by a table; the chain of segments |
//! | replay | [`replay`] | records to group states; what holes took |
//! | accept | [`accept`] | gives up what was lost, where somebody says so |
//! | fence | [`fence`] | the new segment, with the records that must move into it |
//!
//! [`inspect`] goes the same way for tools that only look, and stops before the fence.
//!
//! Nothing on the disk changes before the fence, and the fence overwrites only a slot that nothing
//! depends on. So a crash at any point leaves what the next open needs, and repeats it.

mod accept;
pub(crate) mod decide;
mod fence;
pub mod inspect;
pub(crate) mod replay;
pub(crate) mod scan;
pub(crate) mod survey;
#[cfg(test)]
mod tests;

use crate::bootstrap::{LOCK_NAME, STORE_NAME};
use crate::errors::{Damage, GroupDamage, Hole, OpenError};
use crate::format::header::{STORE_COPIES, SegmentEnd, StoreFile};
use crate::format::{BLOCK_BYTES, FIRST_COMMIT_BLOCK, FormatError};
use crate::index::GroupIndex;
use crate::options::{Ablation, ClusterId, Entropy, OnDamage, StoreIdentity, WalOptions};
use crate::repair::{Repair, RepairKind};
use crate::segment::Segment;
use crate::wal::Wal;
use decide::{Layout, Part};
use duraft_core::{BatchHeader, GroupId, HardState, Index, Membership, NodeId, Position, Snapshot};
use duraft_disk::{Disk, DiskLock};
use replay::Replay;
use scan::{Item, Lens, Seen};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use survey::SlotImage;

/// What an open found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The open generation: greater at every open of this store. Names this life.
    pub generation: u64,
    /// The wall clock when the store was made, as bootstrap was told.
    pub created_ns: u64,
    /// The groups.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// What is lost, if anything. Stays until every group is healed.
    pub damage: Option<Damage>,
    /// What recovery did, for people.
    pub report: RecoveryReport,
}

/// One group as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredGroup {
    /// Term and vote.
    pub hard_state: HardState,
    /// The boundary before the first stored batch.
    pub start: Position,
    /// Stored batches in order, following `start`, up to the first missing one.
    pub batches: Vec<BatchHeader>,
    /// The membership at `start`.
    pub membership: Membership,
    /// The memberships of the membership batches in the log, by the index of their batch: those in
    /// `batches`, and those among the damage's survivors.
    pub memberships: Vec<(Index, Membership)>,
    /// The latest snapshot. Its file was durable before the log named it; whether it still stands and
    /// is whole, the one who keeps the files finds out.
    pub snapshot: Option<Snapshot>,
    /// What this group lost, if anything.
    pub damage: Option<GroupDamage>,
    /// What people decided about this group, the latest last; of many, the latest few.
    pub repairs: Vec<Repair>,
}

impl RecoveredGroup {
    /// What is lost, in the words of the core.
    pub fn boot_damage(&self) -> Option<duraft_core::Damage> {
        let damage = self.damage.as_ref()?;
        Some(duraft_core::Damage {
            missing: damage.missing.clone(),
            survivors: damage.survivors.clone(),
            end: damage.end,
            lost_suffix: damage.lost_suffix,
            vote_uncertain: damage.vote_uncertain,
            floor: damage.floor,
            last_membership: damage.last_membership,
            snapshot_lost: damage.snapshot_lost,
        })
    }
}

/// What recovery did and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// Slots found.
    pub slots: usize,
    /// Segments that hold the log.
    pub segments: usize,
    /// Blocks replayed.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// The last commit of the unbroken run in the tail segment.
    pub contiguous_commit: u64,
    /// The last commit that was proven durable.
    pub proven_commit: u64,
    /// Segments whose first write was cut short; they were never acknowledged.
    pub abandoned_segments: u64,
    /// Batches copied into the new segment because nothing proved them durable, or to free a slot.
    pub copied_batches: usize,
    /// Segments the new segment made unneeded.
    pub absorbed_segments: usize,
    /// Durable blocks that cannot be read, whether or not anything is lost by it.
    pub holes: Vec<Hole>,
}

/// Opens a store: recovers what it holds and begins a new segment. Exclusive: the lock lasts as long
/// as the [`Wal`].
pub fn open(
    disk: Arc<dyn Disk>,
    expect: &StoreIdentity,
    options: WalOptions,
    entropy: Entropy,
) -> Result<(Wal, Recovered), OpenError> {
    let problems = options.validate();
    if !problems.is_empty() {
        return Err(OpenError::Options(problems));
    }
    let lock = take_lock(&*disk)?;
    let (file, file_is_whole) = read_store(&*disk)?;
    check_identity(&file, expect)?;
    let options = WalOptions {
        slot_bytes: file.slot_bytes,
        ..options
    };
    let seed = options.seed(&file.store);
    let tolerate = options.policy != OnDamage::Refuse;
    let mut images = survey::survey(&*disk, seed, file.slot_bytes, tolerate)?;
    let slot_blocks = u32::try_from(file.slot_bytes / BLOCK_BYTES as u64)
        .map_err(|_| OpenError::StoreFile(slot_bytes_problem(&file)))?;
    let lens = Lens {
        seed,
        slot_blocks,
        ablation: options.ablation,
    };
    let Some(mut layout) = decide::decide(&lens, &mut images, tolerate)? else {
        return Err(OpenError::Damaged(Box::new(Damage {
            no_checkpoint: true,
            ..Damage::default()
        })));
    };
    let mut story = tell(&lens, &mut images, &mut layout, tolerate)?;
    let hopeless = story.damage.no_checkpoint || !story.damage.contradictions.is_empty();
    let refuse = options.policy == OnDamage::Refuse && !story.damage.is_none();
    if hopeless || refuse {
        return Err(OpenError::Damaged(Box::new(story.damage)));
    }
    if let OnDamage::AcceptLoss { group, range } = options.policy {
        let note = Repair {
            kind: RepairKind::LossAccepted,
            first: range.0,
            last: range.1,
            generation: fence::next_generation(&layout)?,
            wallclock_ns: entropy.wallclock_ns,
        };
        accept::accept(&mut story, group, note)?;
    }
    let problems = options.validate_for(expect, story.groups.len());
    if !problems.is_empty() {
        return Err(OpenError::Options(problems));
    }
    story.report.slots = images.len();
    story.report.abandoned_segments = layout.abandoned;
    fence::begin(
        fence::Found {
            disk,
            lock,
            file,
            file_is_whole,
            images,
            layout,
            story,
        },
        options,
        entropy,
    )
}

/// What the records tell.
struct Story {
    groups: BTreeMap<GroupId, GroupIndex>,
    damage: Damage,
    /// The segments of the chain, oldest first.
    segments: Vec<Told>,
    report: RecoveryReport,
}

/// A segment of the chain.
struct Told {
    segment: Arc<Segment>,
    /// Where it ends for its successor.
    end: Option<SegmentEnd>,
    /// Its first block, and so its checkpoint, can be read.
    begins: bool,
    /// Runs of blocks that are believed, as first and end, but may stand in the system's cache alone:
    /// the segment is the last one, or the successor is lost. Had an open begun that, then with copies
    /// of what was not proven here.
    loose: Vec<(u32, u32)>,
}

/// Scans and replays the chain, segment by segment.
fn tell(
    lens: &Lens,
    images: &mut [SlotImage],
    layout: &mut Layout,
    tolerate: bool,
) -> Result<Story, OpenError> {
    let mut replay = Replay::new(lens.ablation != Some(Ablation::NoBodyChecksum));
    let mut segments = Vec::with_capacity(layout.parts.len());
    let tail = layout.parts.len() - 1;
    for (place, part) in layout.parts.iter().enumerate() {
        if let Some(lost) = part.lost_before {
            replay.hole(Hole {
                segment: lost.seq,
                slot: None,
                first: replay.last_commit.saturating_add(1),
                last: lost.last_commit,
            });
        }
        let image = &mut images[part.image];
        image.load(tolerate)?;
        let segment = Segment::new(part.header.seq, image.slot, Arc::clone(&image.file));
        let (items, end) = if place == tail {
            (
                std::mem::take(&mut layout.tail.items),
                layout.tail.proven_end,
            )
        } else {
            scan_part(lens, &image.bytes, part)
        };
        let marks = if place == tail {
            &layout.tail.marks[..]
        } else {
            &[]
        };
        replay.items(&segment, &image.bytes, &items, marks)?;
        image.unload();
        if place < tail {
            segment.seal();
        }
        let begins = matches!(
            items.first(),
            Some(Item::Block(header)) if header.block == FIRST_COMMIT_BLOCK
        );
        let loose = match part.declared {
            None => runs(&items),
            Some(_) => Vec::new(),
        };
        segments.push(Told {
            segment,
            end,
            begins,
            loose,
        });
    }
    if let Some(hole) = layout.lost_after {
        replay.hole(hole);
    }
    let report = RecoveryReport {
        segments: segments.len(),
        blocks: replay.blocks,
        records: replay.records,
        contiguous_commit: layout.tail.contiguous,
        proven_commit: layout.tail.watermark,
        holes: replay.holes.clone(),
        ..RecoveryReport::default()
    };
    assert!(
        replay.has_groups() || !replay.holes.is_empty(),
        "a first block without a hole holds a checkpoint"
    );
    let (groups, damage) = replay.finish();
    Ok(Story {
        groups,
        damage,
        segments,
        report,
    })
}

/// The runs of blocks among these items, the segment's header before them.
fn runs(items: &[Item]) -> Vec<(u32, u32)> {
    let blocks = items.iter().filter_map(|item| match item {
        Item::Block(header) => Some((header.block, header.block + header.blocks())),
        Item::Hole { .. } => None,
    });
    let mut runs = vec![(0, 1)];
    for (first, end) in blocks {
        match runs.last_mut() {
            Some((_, before)) if *before == first => *before = end,
            Some(_) | None => runs.push((first, end)),
        }
    }
    runs
}

fn scan_part(lens: &Lens, bytes: &[u8], part: &Part) -> (Vec<Item>, Option<SegmentEnd>) {
    if let Some(end) = &part.declared {
        return (lens.scan_sealed(bytes, &part.header, end), Some(*end));
    }
    // Its successor is lost, but began only when all of this one was durable; and what an open between
    // them found unproven here, it copied.
    let scan = lens.scan_tail(bytes, &part.header, 0, &mut Seen::default());
    let end = scan::end_of(&part.header, &scan.items, u64::MAX);
    (scan.items, end)
}

pub(crate) fn take_lock(disk: &dyn Disk) -> Result<Box<dyn DiskLock>, OpenError> {
    disk.lock(LOCK_NAME).map_err(|source| {
        if source.kind() == io::ErrorKind::WouldBlock {
            OpenError::Locked { source }
        } else {
            OpenError::from(source)
        }
    })
}

/// The STORE file, checked, and whether all of it can be read.
fn read_store(disk: &dyn Disk) -> Result<(StoreFile, bool), OpenError> {
    let file = disk.open(STORE_NAME).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            OpenError::NoStore
        } else {
            OpenError::from(source)
        }
    })?;
    let mut bytes = Vec::with_capacity(STORE_COPIES * BLOCK_BYTES);
    let mut refused = None;
    for copy in 0..STORE_COPIES {
        let mut block = vec![0; BLOCK_BYTES];
        match file.read_at(&mut block, (copy * BLOCK_BYTES) as u64) {
            Ok(read) => block.truncate(read),
            Err(error) => refused = Some(error),
        }
        bytes.extend(block);
    }
    let decoded = StoreFile::decode(&bytes);
    if decoded.is_err()
        && let Some(error) = refused
    {
        return Err(error.into());
    }
    let (store, whole) = decoded.map_err(|problem| match problem {
        FormatError::Newer { .. } => OpenError::Newer {
            name: STORE_NAME.to_owned(),
            problem,
        },
        FormatError::Short { .. }
        | FormatError::Magic { .. }
        | FormatError::Checksum { .. }
        | FormatError::Field { .. } => OpenError::StoreFile(problem),
    })?;
    let geometry = WalOptions {
        slot_bytes: store.slot_bytes,
        ..WalOptions::default()
    };
    if geometry.validate().is_empty() {
        Ok((store, whole))
    } else {
        Err(OpenError::StoreFile(slot_bytes_problem(&store)))
    }
}

fn slot_bytes_problem(file: &StoreFile) -> FormatError {
    FormatError::Field {
        field: "slot_bytes",
        value: file.slot_bytes,
    }
}

fn check_identity(file: &StoreFile, expect: &StoreIdentity) -> Result<(), OpenError> {
    let found = ClusterId(file.cluster);
    if found != expect.cluster {
        return Err(OpenError::ForeignCluster {
            expected: expect.cluster,
            found,
        });
    }
    if file.node != expect.node.0 {
        return Err(OpenError::ForeignNode {
            expected: expect.node,
            found: NodeId(file.node),
        });
    }
    if file.max_batch_bytes != expect.max_batch_bytes {
        return Err(OpenError::MaxBatch {
            expected: expect.max_batch_bytes,
            found: file.max_batch_bytes,
        });
    }
    Ok(())
}
