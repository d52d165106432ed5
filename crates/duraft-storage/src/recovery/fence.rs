//! The segment that every open begins.
//!
//! Its header declares where the segment before it ends: after the last proven block. Everything
//! behind that is out of the log for good, whatever a disk or a dead process still brings up there.
//! So a block that was acknowledged but that nothing proves is copied: its live batches go into the
//! fence. The same way, segments at the end of the chain that hold little are absorbed: their live
//! batches are copied and the header links past them. So crash loops do not eat slots.
//!
//! One bad sector in the fence's first block takes its checkpoint, so the chain never hangs on that one
//! alone: where nothing that stays has a checkpoint, the newest absorbed segment that has one stays
//! too, until the next rotation. It says less than the fence, but which groups there are.
//!
//! What stays must be durable. Of a segment whose successor declares its end, it is. Where the successor
//! is lost, blocks may stand in the cache of the system alone, with the copy that was made of them lost
//! too. They are written again where they are.
//!
//! A slot that the newest, unproven segment had freed is not written again at once: were that segment
//! damaged, the freed slot would hold the only copy. Where no other is left, as on a full disk, that
//! segment is written again where it is before the slot is touched.

use super::decide::Layout;
use super::survey::SlotImage;
use super::{Recovered, RecoveredGroup, Story, Told};
use crate::bootstrap::{open_error, write_store};
use crate::encode::Measure;
use crate::errors::{OpenError, ReadError};
use crate::format::block::Flags;
use crate::format::header::{SegmentEnd, SegmentHeader, StoreFile};
use crate::format::record::Frame;
use crate::format::{BLOCK_BYTES, FIRST_COMMIT_BLOCK, block_offset, memory_index};
use crate::index::{GroupIndex, StoreIndex};
use crate::options::{Ablation, Entropy, WalOptions, records_bytes_max};
use crate::pool::{Need, Pool, Slot};
use crate::reader;
use crate::recovery::replay::damage_of;
use crate::segment::{Entry, Segment};
use crate::wal::{Content, Link, RECORDS_MAX, Store, Tail, Wal, checkpoint_of};
use duraft_core::{Batch, GroupId, Index, Position};
use duraft_disk::{Disk, DiskError, DiskLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// What recovery hands over.
pub(super) struct Found {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lock: Box<dyn DiskLock>,
    pub(super) file: StoreFile,
    /// Every copy in the STORE file can be read.
    pub(super) file_is_whole: bool,
    pub(super) images: Vec<SlotImage>,
    pub(super) layout: Layout,
    pub(super) story: Story,
}

/// Which segments stay, and what moves.
struct Moves {
    /// Number of segments of the chain that stay, oldest first, for their batches or for their
    /// checkpoint.
    kept: usize,
    /// Where the last of them ends.
    previous: Option<SegmentEnd>,
    /// Batches to copy, by group and place in the log.
    copied: Vec<(GroupId, Index)>,
    /// Per group, the end of what the kept segments hold.
    ends: BTreeMap<GroupId, Position>,
}

pub(super) fn begin(
    found: Found,
    options: WalOptions,
    entropy: Entropy,
) -> Result<(Wal, Recovered), OpenError> {
    let Found {
        disk,
        lock,
        file,
        file_is_whole,
        images,
        layout,
        story,
    } = found;
    let generation = next_generation(&layout)?;
    let seed = options.seed(&file.store);
    let pool = Pool::new(Arc::clone(&disk), seed, file.slot_bytes, options.slots_max);
    let evidence = match story.report.holes.is_empty() {
        true => &[][..],
        false => &layout.evidence[..],
    };
    let at_once = options.without(Ablation::ReuseAtOnce);
    let spare = sort_slots(&pool, &images, &layout, evidence, at_once);
    let moves = moves(&story, &pool, &options);
    let batches = copied_batches(&story, &moves)?;
    // Names that a killed process made may not be durable yet.
    disk.sync_dir("")?;
    disk.sync_dir(crate::pool::SLOT_DIR)?;
    let Story {
        groups,
        damage,
        segments,
        mut report,
    } = story;
    report.copied_batches = batches.len();
    report.absorbed_segments = segments.len() - moves.kept;
    let index = StoreIndex::new(groups, options.cache_bytes_max);
    let store = Store {
        id: file.store,
        seed,
        slot_bytes: file.slot_bytes,
        slot_blocks: pool.slot_blocks(),
    };
    let mut wal = Wal::unopened(store, options, entropy, index, pool, lock);
    wal.generation = generation;
    wal.previous = moves.previous;
    wal.next_segment = layout.seen.segment + 1;
    wal.last_commit = layout.seen.commit;
    if wal.options.without(Ablation::AppendInPlace) && go_on(&mut wal, &segments) {
        return Ok(handed_over(wal, damage, report, &file));
    }
    let (tail, before) = segments.split_last().expect("the chain has a tail");
    let slot = slot_for_fence(&wal, spare, &images, tail)?;
    bury(&slot, &images, &layout)?;
    for place in evidence {
        // The fence says what is lost. Once it is proven, nothing else has to.
        let image = &images[*place];
        let seq = image.segment().map_or(0, |header| header.seq);
        let segment = Segment::new(seq, image.slot, Arc::clone(&image.file));
        wal.pool.release(segment, wal.last_commit + 1);
    }
    // Of the tail, only what is proven stays.
    for told in &before[..moves.kept.min(before.len())] {
        fasten(told)?;
    }
    write_fence(&mut wal, slot, &segments, &moves, &batches)?;
    if !file_is_whole {
        write_store(&*disk, &file)?;
    }
    Ok(handed_over(wal, damage, report, &file))
}

fn handed_over(
    wal: Wal,
    damage: crate::errors::Damage,
    report: super::RecoveryReport,
    file: &StoreFile,
) -> (Wal, Recovered) {
    let mut recovered = recovered(&wal, damage, report);
    recovered.created_ns = file.wallclock_ns;
    (wal, recovered)
}

/// For tests of the tests: no new segment, the log goes on behind its last whole block.
fn go_on(wal: &mut Wal, segments: &[Told]) -> bool {
    let Some(told) = segments.last() else {
        return false;
    };
    let Some(end) = told.end else {
        return false;
    };
    link_kept(wal, segments);
    wal.last_commit = end.commit;
    wal.tail = Some(Tail {
        segment: Arc::clone(&told.segment),
        nonce: end.nonce,
        next_block: end.block,
        digest: end.digest,
    });
    true
}

/// Puts the segments that stay into the chain, with the batches that live in them.
fn link_kept(wal: &mut Wal, kept: &[Told]) {
    for told in kept {
        let link = Link {
            segment: Arc::clone(&told.segment),
            live: 0,
            begins: told.begins,
        };
        wal.chain.insert(told.segment.seq, link);
    }
    let index = wal.shared.index.read();
    let entries = index.groups.values().flat_map(|group| group.log.entries());
    for entry in entries {
        if let Some(link) = wal.chain.get_mut(&entry.segment.seq) {
            link.live += 1;
        }
    }
}

/// The number of this open. The other counters have room for another life, or nothing is opened.
pub(super) fn next_generation(layout: &Layout) -> Result<u32, OpenError> {
    let seen = &layout.seen;
    if seen.segment > COUNTERS_MAX || seen.commit > COUNTERS_MAX {
        return Err(OpenError::CountersExhausted);
    }
    seen.generation
        .checked_add(1)
        .ok_or(OpenError::CountersExhausted)
}

/// Segments and commits are counted up to here when a store is opened.
const COUNTERS_MAX: u64 = u64::MAX / 2;

/// Gives the pool the slots that nothing depends on. Returns those that only an unproven tail made
/// unneeded: to be used only where nothing else is left. Those with `evidence` of a loss are not to be
/// used at all: were the fence cut short over one, the next open would take the loss for a torn end.
fn sort_slots(
    pool: &Pool,
    images: &[SlotImage],
    layout: &Layout,
    evidence: &[usize],
    at_once: bool,
) -> Vec<usize> {
    let (mut ready, mut unfilled, mut spare) = (Vec::new(), Vec::new(), Vec::new());
    for (i, image) in images.iter().enumerate() {
        if layout.parts.iter().any(|part| part.image == i) || evidence.contains(&i) {
            continue;
        }
        if !layout.filled[i] {
            unfilled.push(image.slot);
        } else if layout.fallback.contains(&i) && !at_once {
            spare.push(i);
        } else {
            ready.push(Slot {
                number: image.slot,
                file: Arc::clone(&image.file),
            });
        }
    }
    let next = images
        .last()
        .map_or(0, |image| image.slot.saturating_add(1));
    pool.adopt(ready, unfilled, next, images.len());
    spare
}

/// Decides what moves into the new segment.
fn moves(story: &Story, pool: &Pool, options: &WalOptions) -> Moves {
    let fits = records_bytes_max(options.slot_bytes, story.groups.len());
    let budget = if pool.is_low() { fits } else { fits / 4 };
    let tail = story.segments.last().expect("the chain has a tail");
    let unproven = |entry: &Entry| {
        entry.segment.seq == tail.segment.seq
            && tail.end.is_none_or(|end| entry.commit > end.commit)
    };
    let mut live: BTreeMap<u64, u64> = BTreeMap::new();
    let mut bytes = 0;
    let mut records = 0;
    for entry in story.groups.values().flat_map(|group| group.log.entries()) {
        if unproven(entry) {
            bytes += entry.stored_bytes();
            records += 1;
        } else {
            *live.entry(entry.segment.seq).or_default() += entry.stored_bytes();
        }
    }
    let mut kept = story.segments.len();
    while let Some(Told { segment, end, .. }) =
        kept.checked_sub(1).map(|last| &story.segments[last])
    {
        let more = live.get(&segment.seq).copied().unwrap_or(0);
        let few = records + more / duraft_core::DESCRIPTOR_BYTES < RECORDS_MAX as u64 / 2;
        if end.is_some() && (bytes + more > budget || !few) && more > 0 {
            break;
        }
        bytes += more;
        records += more / duraft_core::DESCRIPTOR_BYTES;
        kept -= 1;
    }
    let kept_upto = kept
        .checked_sub(1)
        .map_or(0, |last| story.segments[last].segment.seq);
    let moved = |entry: &Entry| unproven(entry) || entry.segment.seq > kept_upto;
    let mut copied = Vec::new();
    let mut ends = BTreeMap::new();
    for (id, group) in &story.groups {
        ends.insert(*id, end_of_kept(group, moved));
        let entries = group.log.entries().iter().filter(|entry| moved(entry));
        copied.extend(entries.map(|entry| (*id, entry.header.first)));
    }
    let says_groups = |told: &Told| told.begins && told.end.is_some();
    let (stay, absorbed) = story.segments.split_at(kept);
    if !stay.iter().any(says_groups)
        && !options.without(Ablation::OneCheckpoint)
        && let Some(newest) = absorbed.iter().rposition(says_groups)
    {
        kept += newest + 1;
    }
    let previous = kept
        .checked_sub(1)
        .and_then(|last| story.segments[last].end);
    Moves {
        kept,
        previous,
        copied,
        ends,
    }
}

/// The end of what stays of a log where it is: what the fence's batches go on from.
fn end_of_kept(group: &GroupIndex, moved: impl Fn(&Entry) -> bool) -> Position {
    let log = &group.log;
    if !log.is_whole() {
        return end_of_kept_around_gaps(group, moved);
    }
    let kept = log.entries().iter().rev().find(|entry| !moved(entry));
    kept.map_or(log.start(), |entry| entry.header.position())
}

/// A damaged log keeps its end; what moves fills gaps again. But batches at its end that move and join
/// what stays go on from there, as those of a whole log do: the segments that stay may hold others in
/// their places, which were cut off in what the fence replaces, and an end that contradicts these would
/// leave nothing of the log that is sure.
fn end_of_kept_around_gaps(group: &GroupIndex, moved: impl Fn(&Entry) -> bool) -> Position {
    let log = &group.log;
    let mut end = log.end();
    for entry in log.entries().iter().rev() {
        if entry.header.position() != end {
            return log.end();
        }
        if !moved(entry) {
            return end;
        }
        let before = entry.header.first.previous();
        let place = log
            .entries()
            .partition_point(|entry| entry.header.last() < before);
        end = match log.entries().get(place) {
            Some(held) if held.header.last() == before => held.header.position(),
            Some(_) | None if log.start().index() == before => log.start(),
            Some(_) | None => return log.end(),
        };
    }
    end
}

/// Reads the batches that move.
fn copied_batches(story: &Story, moves: &Moves) -> Result<Vec<Batch>, OpenError> {
    let mut batches = Vec::with_capacity(moves.copied.len());
    for (group, first) in &moves.copied {
        let log = &story.groups[group].log;
        let entry = &log.entries()[log.place_of(*first)];
        let batch = reader::load(entry, false).map_err(|error| match error {
            ReadError::Disk(source) => OpenError::from(source),
            // It was read and checked a moment ago.
            other @ (ReadError::UnknownGroup(_)
            | ReadError::Compacted { .. }
            | ReadError::PastEnd { .. }
            | ReadError::NotABoundary(_)
            | ReadError::Missing(_)
            | ReadError::Corrupt { .. }) => OpenError::Disk(DiskError::new(
                duraft_disk::DiskOp::Read,
                crate::pool::slot_name(entry.segment.slot),
                io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
            )),
        })?;
        batches.push(batch);
    }
    Ok(batches)
}

/// A slot for the fence: a ready one, a new one, or one that would better rest. Without the tail, the log
/// is what that one holds; so the tail is made durable first.
fn slot_for_fence(
    wal: &Wal,
    spare: Vec<usize>,
    images: &[SlotImage],
    tail: &Told,
) -> Result<Slot, OpenError> {
    let mut spare = spare.into_iter().map(|i| &images[i]).collect::<Vec<_>>();
    spare.sort_by_key(|image| image.segment().map(|header| header.seq));
    let mut refused = None;
    let mut found = wal.pool.take(Need::Open).ok().flatten();
    if found.is_none() {
        match wal.pool.prepare() {
            Ok(true) => found = wal.pool.take(Need::Open).ok().flatten(),
            Ok(false) => {}
            Err(error) => refused = Some(error),
        }
    }
    if found.is_none() && !spare.is_empty() {
        fasten(tail)?;
        let image = spare.remove(0);
        found = Some(Slot {
            number: image.slot,
            file: Arc::clone(&image.file),
        });
    }
    let Some(slot) = found else {
        return Err(match refused {
            Some(error) => OpenError::from(error),
            None => OpenError::NoSlot {
                slots: wal.pool.slots_max(),
            },
        });
    };
    let until = wal.last_commit + 1;
    for image in spare {
        let seq = image.segment().map_or(0, |header| header.seq);
        wal.pool.release(
            Segment::new(seq, image.slot, Arc::clone(&image.file)),
            until,
        );
    }
    Ok(slot)
}

/// The slot may hold a segment whose first write was cut short. Were the fence cut short over it, bytes
/// that both writes share could make that segment whole after all, and with it what this open does
/// not show. So its first block goes first. Its header and mark stay: they still prove what came
/// before it.
fn bury(slot: &Slot, images: &[SlotImage], layout: &Layout) -> Result<(), OpenError> {
    let tail = layout.parts.last().expect("the chain has a tail");
    let abandoned = images.iter().any(|image| {
        let newer = |own: &SegmentHeader| own.age() > tail.header.age();
        image.slot == slot.number && image.segment().is_some_and(newer)
    });
    if abandoned {
        let first_block = block_offset(FIRST_COMMIT_BLOCK);
        slot.file.write_at(&[0; BLOCK_BYTES], first_block)?;
        slot.file.sync_data()?;
    }
    Ok(())
}

/// Makes durable what may not be. The same bytes are written in their place: after an error of an earlier
/// sync, the system may take what only its cache holds for what the disk holds, and sync nothing.
fn fasten(told: &Told) -> Result<(), OpenError> {
    for (first, end) in &told.loose {
        let at = block_offset(*first);
        let mut bytes = vec![0; memory_index(block_offset(*end) - at)];
        let read = told.segment.file.read_at(&mut bytes, at)?;
        told.segment.file.write_at(&bytes[..read], at)?;
    }
    if !told.loose.is_empty() {
        told.segment.file.sync_data()?;
    }
    Ok(())
}

fn write_fence(
    wal: &mut Wal,
    slot: Slot,
    segments: &[Told],
    moves: &Moves,
    batches: &[Batch],
) -> Result<(), OpenError> {
    let mut measure = Measure::default();
    batches
        .iter()
        .for_each(|batch| measure.add(batch.body.len()));
    link_kept(wal, &segments[..moves.kept]);
    // What moves does not keep its old segment alive.
    let moved: Vec<(GroupId, Index)> = moves.copied.clone();
    for (group, first) in &moved {
        let index = wal.shared.index.read();
        let log = &index.groups[group].log;
        let seq = log.entries()[log.place_of(*first)].segment.seq;
        drop(index);
        if let Some(link) = wal.chain.get_mut(&seq) {
            link.live -= 1;
        }
    }
    let first_live = wal.first_live_without(&BTreeMap::new());
    let mut checkpoint = {
        let index = wal.shared.index.read();
        checkpoint_of(&index, |group| moves.ends[&group])
    };
    if wal.options.without(Ablation::ForgetDamage) {
        checkpoint.retain(|(frame, _)| !frame.is_damage());
    }
    let content = Content {
        flags: Flags::FENCE,
        measure,
        need: Need::Open,
        dead: &BTreeMap::new(),
        each: &|push| {
            batches
                .iter()
                .for_each(|batch| push(Frame::of_batch(&batch.header), &batch.body));
        },
    };
    wal.begin_segment(slot, first_live, &checkpoint, &content)
        .map_err(open_error)?;
    wal.last_commit += 1;
    adopt_moved(wal, &moved);
    // Unlike another segment's first block, the fence says what no kept segment says: hard states and
    // cuts of blocks it replaced. So the next block echoes, and the next tables list, every group.
    let groups = wal.reader().groups();
    wal.echo.extend(&groups);
    let fence = wal.last_commit;
    wal.touched
        .extend(groups.iter().map(|group| (*group, fence)));
    for told in &segments[moves.kept..] {
        wal.pool.release(Arc::clone(&told.segment), wal.last_commit);
    }
    // What the fence copied is proven nowhere else: prove the fence before anybody relies on it.
    wal.prove_with_mark().map_err(open_error)
}

/// The moved batches stand in the new segment now.
fn adopt_moved(wal: &mut Wal, moved: &[(GroupId, Index)]) {
    let tail = wal.tail.as_ref().expect("the fence is the tail");
    let segment = Arc::clone(&tail.segment);
    let mut index = wal.shared.index.write();
    for ((group, first), place) in moved.iter().zip(&wal.places) {
        let log = &mut index.groups.get_mut(group).expect("a known group").log;
        let at = log.place_of(*first);
        let entry = log.entry_mut(at).expect("a batch of the log");
        entry.segment = Arc::clone(&segment);
        entry.commit = wal.last_commit;
        entry.descriptor_at = place.descriptor_at;
        entry.body_at = place.body_at;
    }
    let link = wal
        .chain
        .get_mut(&segment.seq)
        .expect("the tail is in the chain");
    link.live += moved.len() as u64;
}

fn recovered(wal: &Wal, damage: crate::errors::Damage, report: super::RecoveryReport) -> Recovered {
    let index = wal.shared.index.read();
    let groups = index.groups.iter().map(|(id, group)| {
        let gap = group.log.gaps().first().map(|(first, _)| *first);
        let headers = group.log.entries().iter().map(|entry| entry.header);
        let recovered = RecoveredGroup {
            hard_state: group.hard_state,
            start: group.log.start(),
            batches: headers
                .take_while(|header| gap.is_none_or(|gap| header.first < gap))
                .collect(),
            membership: group.membership.clone(),
            memberships: group.memberships.iter().cloned().collect(),
            snapshot: group.snapshot.clone(),
            repairs: group.repairs.clone(),
            damage: group.lost.map(|lost| damage_of(group, lost)),
        };
        (*id, recovered)
    });
    Recovered {
        created_ns: 0,
        generation: wal.generation.into(),
        groups: groups.collect(),
        damage: (!damage.is_none()).then_some(damage),
        report,
    }
}

#[cfg(test)]
mod tests;
