//! Looking at a store without changing it and without asking who has it open.
//!
//! A look goes the way an open goes - survey, decide, replay - and stops before the fence. It takes no
//! lock and writes nothing, so a node may be writing at the same time. Then one look may show what
//! never was: a slot that was read before a commit and a mark that was read after it, or a segment whose
//! slot has been given to another one between its header and its blocks. Both look like damage.
//!
//! [`View::settled`] tells them apart. What a look misses in this way was written before the look
//! ended, and a slot that is used anew never gets its old segment back; so the next look, begun when
//! this one is over, cannot miss the same commit of the same segment for the same reason. **Damage
//! is what two looks in a row find in the same places.** Where looks go on to differ, nobody can tell.

mod sight;

pub use sight::{
    BlockFacts, GroupFacts, LogRecord, SegmentFacts, Sight, SlotFacts, SlotUse, StoreFacts,
    StoredBatch, TailFacts,
};

use super::decide::{self, Layout, Part};
use super::replay::damage_of;
use super::scan::{Item, Lens};
use super::survey::{self, SlotImage};
use super::{read_store, scan_part, slot_bytes_problem, tell};
use crate::errors::{Damage, Hole, OpenError, ReadError};
use crate::format::block::{BlockHeader, HEADER_LEN};
use crate::format::checksum::{Seed, check_body};
use crate::format::header::{SegmentEnd, SegmentHeader, SlotHeader};
use crate::format::record::{DESCRIPTOR_LEN, Record};
use crate::format::{BLOCK_BYTES, FIRST_COMMIT_BLOCK, block_offset, memory_index};
use crate::index::GroupIndex;
use duraft_core::{GroupId, Index};
use duraft_disk::{Disk, DiskError};
use std::collections::BTreeMap;

/// A store as one look at it shows it; see the module documentation.
pub struct View {
    /// Whose store it is.
    pub store: StoreFacts,
    /// All slots.
    pub slots: Vec<SlotFacts>,
    /// The segments of the log, oldest first.
    pub segments: Vec<SegmentFacts>,
    /// The groups.
    pub groups: BTreeMap<GroupId, GroupFacts>,
    /// The end of the log; `None` where no segment can be read.
    pub tail: Option<TailFacts>,
    /// What is lost, if anything.
    pub damage: Option<Damage>,
    /// Durable commits that cannot be read, whether or not anything is lost by it.
    pub holes: Vec<Hole>,
    /// Blocks that the disk refused to read: the slot, and the first byte in it.
    pub unreadable: Vec<(u32, u64)>,
    lens: Lens,
    images: Vec<SlotImage>,
    parts: Vec<Found>,
}

/// How sure a look is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// Nothing is wrong.
    Sound,
    /// Two looks in a row found the same.
    Confirmed,
    /// Looks went on to differ: the store changes while it is read.
    Restless,
}

/// A segment as the look found it: its blocks, and where it ends.
struct Found {
    part: Part,
    items: Vec<Item>,
    facts: SegmentFacts,
}

/// Why the body of a batch cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The node has begun to use the slot anew since the look: the log does not need the batch any
    /// more.
    #[error("segment {segment} is gone: the node uses slot {slot} anew")]
    Reused {
        /// The segment.
        segment: u64,
        /// Its slot.
        slot: u32,
    },
    /// The disk refuses, or the bytes are not what was written.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl View {
    /// One look.
    pub fn take(disk: &dyn Disk) -> Result<View, OpenError> {
        let (file, whole) = read_store(disk)?;
        let seed = Seed::of(&file.store);
        let slot_blocks = u32::try_from(file.slot_bytes / BLOCK_BYTES as u64)
            .map_err(|_| OpenError::StoreFile(slot_bytes_problem(&file)))?;
        let lens = Lens {
            seed,
            slot_blocks,
            ablation: None,
        };
        let mut images = survey::survey(disk, seed, file.slot_bytes, true)?;
        let store = StoreFacts::of(&file, whole);
        let Some(mut layout) = decide::decide(&lens, &mut images, true)? else {
            return Ok(View::of_nothing(store, lens, images));
        };
        let tail = tail_of(&lens, &mut images, &layout)?;
        let parts = found_parts(&lens, &mut images, &layout)?;
        let story = tell(&lens, &mut images, &mut layout, true)?;
        let slots = slots_of(&images, &parts);
        let unreadable = images.iter().flat_map(|image| {
            let slot = image.slot;
            image.unreadable.iter().map(move |at| (slot, *at))
        });
        Ok(View {
            store,
            slots,
            segments: parts.iter().map(|found| found.facts).collect(),
            groups: story
                .groups
                .iter()
                .map(|(id, group)| (*id, group_facts(group)))
                .collect(),
            tail: Some(tail),
            damage: (!story.damage.is_none()).then_some(story.damage),
            holes: story.report.holes,
            unreadable: unreadable.collect(),
            lens,
            images,
            parts,
        })
    }

    /// Looks until nothing is wrong, until two looks in a row find the same, or `looks` times. The last
    /// look is returned.
    pub fn settled(disk: &dyn Disk, looks: usize) -> Result<(View, Settled), OpenError> {
        let mut last = View::take(disk);
        for _ in 1..looks {
            if let Ok(view) = &last
                && view.is_sound()
            {
                break;
            }
            let next = View::take(disk);
            let same = match (&last, &next) {
                (Ok(last), Ok(next)) => last.faults() == next.faults(),
                (Err(last), Err(next)) => last.to_string() == next.to_string(),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            };
            last = next;
            if same {
                return last.map(|view| (view, Settled::Confirmed));
            }
        }
        let view = last?;
        let settled = if view.is_sound() {
            Settled::Sound
        } else {
            Settled::Restless
        };
        Ok((view, settled))
    }

    /// Is everything that was durable there?
    pub fn is_sound(&self) -> bool {
        self.damage.is_none()
            && self.holes.is_empty()
            && self.unreadable.is_empty()
            && self.store.whole
            && self.tail.is_some()
    }

    /// What is wrong, without what an append changes.
    fn faults(&self) -> impl PartialEq + use<> {
        let holes: Vec<_> = self.holes.iter().map(|h| (h.segment, h.first)).collect();
        let damage = self.damage.as_ref();
        let groups: Vec<GroupId> =
            damage.map_or_else(Vec::new, |damage| damage.groups.keys().copied().collect());
        let contradictions = damage.map(|damage| damage.contradictions.clone());
        let unreadable = self.unreadable.clone();
        let store = (self.store.whole, self.tail.is_some());
        (holes, groups, contradictions, unreadable, store)
    }

    /// Walks along the log and shows everything that stands in it, superseded or not, segment by
    /// segment, oldest first. Reads each segment again.
    pub fn walk(&mut self, mut see: impl FnMut(Sight<'_>)) -> Result<(), OpenError> {
        let proven = self.tail.map_or(0, |tail| tail.proven);
        for found in &self.parts {
            let image = &mut self.images[found.part.image];
            image.unload();
            image.load(true)?;
            // A slot is used anew from its first block on: where that is the same afterwards, all that
            // was read before is of the same life, and blocks of one life never change.
            if header_now(image, self.lens.seed)? != Some(found.part.header) {
                see(Sight::Reused(&found.facts));
                image.unload();
                continue;
            }
            see(Sight::Segment(&found.facts));
            let proven = if found.part.declared.is_some() {
                u64::MAX
            } else {
                proven
            };
            let shown = show(image, found, proven, &mut see);
            image.unload();
            shown?;
        }
        Ok(())
    }

    /// The body of a batch of the log, checked.
    pub fn body(&self, batch: &StoredBatch) -> Result<Vec<u8>, BodyError> {
        let image = self.images.iter().find(|image| image.slot == batch.slot);
        let image = image.ok_or(ReadError::UnknownGroup(batch.header.group))?;
        let mut body = vec![0; batch.header.body_len as usize];
        let read = image.file.read_at(&mut body, batch.body_at);
        let read = read.map_err(ReadError::Disk)?;
        body.truncate(read);
        let Err(reason) = check_body(&batch.header, &body) else {
            return Ok(body);
        };
        if self.is_reused(image, batch.segment)? {
            return Err(BodyError::Reused {
                segment: batch.segment,
                slot: batch.slot,
            });
        }
        Err(BodyError::Read(ReadError::Corrupt {
            group: batch.header.group,
            first: batch.header.first,
            reason: reason.to_string(),
        }))
    }

    fn is_reused(&self, image: &SlotImage, segment: u64) -> Result<bool, BodyError> {
        let header = header_now(image, self.lens.seed).map_err(ReadError::Disk)?;
        Ok(header.is_none_or(|header| header.seq != segment))
    }

    /// No segment can be read, so nobody knows which groups there were.
    fn of_nothing(store: StoreFacts, lens: Lens, images: Vec<SlotImage>) -> View {
        View {
            store,
            slots: slots_of(&images, &[]),
            segments: Vec::new(),
            groups: BTreeMap::new(),
            tail: None,
            damage: Some(Damage {
                no_checkpoint: true,
                ..Damage::default()
            }),
            holes: Vec::new(),
            unreadable: Vec::new(),
            lens,
            images,
            parts: Vec::new(),
        }
    }
}

/// The segment header that stands in the slot at this moment.
fn header_now(image: &SlotImage, seed: Seed) -> Result<Option<SegmentHeader>, DiskError> {
    let mut block = vec![0; BLOCK_BYTES];
    let read = image.file.read_at(&mut block, 0)?;
    block.truncate(read);
    match SlotHeader::decode(&block, image.slot, seed) {
        Ok(SlotHeader::Segment(header)) => Ok(Some(header)),
        Ok(SlotHeader::Free) | Err(_) => Ok(None),
    }
}

fn slots_of(images: &[SlotImage], parts: &[Found]) -> Vec<SlotFacts> {
    let live = |place: usize| parts.iter().find(|found| found.part.image == place);
    let facts = |(place, image): (usize, &SlotImage)| SlotFacts {
        slot: image.slot,
        state: match (&image.header, live(place)) {
            (_, Some(found)) => SlotUse::Live(found.facts.segment),
            (Ok(SlotHeader::Free), None) if image.full_length => SlotUse::Free,
            (Ok(SlotHeader::Segment(header)), None) => SlotUse::Spent(header.seq),
            (Ok(SlotHeader::Free) | Err(_), None) => SlotUse::Unknown,
        },
    };
    images.iter().enumerate().map(facts).collect()
}

/// What the scan of the tail found, and whether a write behind it did not get to its end.
fn tail_of(lens: &Lens, images: &mut [SlotImage], layout: &Layout) -> Result<TailFacts, OpenError> {
    let part = layout.parts.last().expect("the tail is there");
    let image = &mut images[part.image];
    image.load(true)?;
    let end = match layout.tail.items.last() {
        Some(Item::Block(header)) => header.block + header.blocks(),
        Some(Item::Hole { .. }) | None => FIRST_COMMIT_BLOCK,
    };
    let torn = lens
        .header_at(&image.bytes, end)
        .filter(|header| lens.belongs(header, &part.header))
        .filter(|header| header.commit > layout.tail.contiguous && header.block == end);
    Ok(TailFacts {
        segment: part.header.seq,
        slot: image.slot,
        last: layout.tail.contiguous,
        proven: layout.tail.watermark,
        torn: torn.map(|header| (header.commit, block_offset(header.block))),
        abandoned: layout.abandoned,
    })
}

/// The blocks of each segment, before they are replayed.
fn found_parts(
    lens: &Lens,
    images: &mut [SlotImage],
    layout: &Layout,
) -> Result<Vec<Found>, DiskError> {
    let tail = layout.parts.len() - 1;
    let mut parts = Vec::with_capacity(layout.parts.len());
    for (place, part) in layout.parts.iter().enumerate() {
        let image = &mut images[part.image];
        image.load(true)?;
        let (items, end): (Vec<Item>, Option<SegmentEnd>) = if place == tail {
            (layout.tail.items.clone(), None)
        } else {
            scan_part(lens, &image.bytes, part)
        };
        image.unload();
        parts.push(Found {
            part: *part,
            items,
            facts: SegmentFacts::of(&part.header, end),
        });
    }
    Ok(parts)
}

fn group_facts(group: &GroupIndex) -> GroupFacts {
    let stored = |entry: &crate::segment::Entry| StoredBatch {
        header: entry.header,
        segment: entry.segment.seq,
        slot: entry.segment.slot,
        commit: entry.commit,
        body_at: entry.body_at.into(),
    };
    GroupFacts {
        hard_state: group.hard_state,
        start: group.log.start(),
        end: group.log.end(),
        batches: group.log.entries().iter().map(stored).collect(),
        membership: group.membership.clone(),
        memberships: group.memberships.iter().cloned().collect(),
        snapshot: group.snapshot.clone(),
        damage: group.lost.map(|lost| damage_of(group, lost)),
        repairs: group.repairs.clone(),
    }
}

/// Shows the blocks and holes of one segment.
fn show(
    image: &SlotImage,
    found: &Found,
    proven: u64,
    see: &mut impl FnMut(Sight<'_>),
) -> Result<(), OpenError> {
    let slot_end = image.bytes.len() as u64 - BLOCK_BYTES as u64;
    let end = found
        .facts
        .sealed_at
        .map_or(slot_end, |(_, block)| block_offset(block));
    let mut from = block_offset(FIRST_COMMIT_BLOCK);
    for (place, item) in found.items.iter().enumerate() {
        match item {
            Item::Block(header) => {
                let facts = BlockFacts::of(header, image.slot, proven);
                from = facts.at + facts.bytes;
                see(Sight::Block(&facts));
                show_records(image, header, &facts, see)?;
            }
            Item::Hole { first, last } => {
                let hole = Hole {
                    segment: found.facts.segment,
                    slot: Some(image.slot),
                    first: *first,
                    last: *last,
                };
                let next = found.items[place + 1..].iter().find_map(|item| match item {
                    Item::Block(header) => Some(block_offset(header.block)),
                    Item::Hole { .. } => None,
                });
                see(Sight::Hole(
                    hole,
                    Some((from, next.unwrap_or(end).max(from))),
                ));
            }
        }
    }
    Ok(())
}

fn show_records(
    image: &SlotImage,
    header: &BlockHeader,
    facts: &BlockFacts,
    see: &mut impl FnMut(Sight<'_>),
) -> Result<(), OpenError> {
    let block = &image.bytes[memory_index(facts.at)..];
    let payload_at = header.payload_at();
    let failed = |problem| OpenError::Record {
        segment: facts.segment,
        block: header.block,
        problem,
    };
    // Since the look the slot may have been written anew: nothing read now is believed unchecked.
    let Some(payloads) = block.get(payload_at..payload_at + header.payload_len as usize) else {
        return Ok(());
    };
    for descriptor in block[HEADER_LEN..payload_at].chunks_exact(DESCRIPTOR_LEN) {
        let position = facts.at + payload_at as u64;
        let record = Record::decode(descriptor, payloads, position, true).map_err(failed)?;
        let body = match &record {
            Record::Batch { header, body_at } => {
                let at = memory_index(*body_at);
                image.bytes.get(at..at + header.body_len as usize)
            }
            Record::HardState { .. }
            | Record::Echo { .. }
            | Record::Truncate { .. }
            | Record::Compact { .. }
            | Record::Snapshot { .. }
            | Record::GroupState { .. }
            | Record::CheckpointEnd { .. }
            | Record::Damage { .. }
            | Record::Healed { .. }
            | Record::Repair { .. }
            | Record::Table { .. } => None,
        };
        let record = LogRecord::of(record);
        see(Sight::Record(facts, &record, body.unwrap_or_default()));
    }
    Ok(())
}

impl GroupFacts {
    /// First and last missing index of each range inside the log.
    pub fn missing(&self) -> Vec<(Index, Index)> {
        self.damage
            .as_ref()
            .map_or_else(Vec::new, |damage| damage.missing.clone())
    }
}
