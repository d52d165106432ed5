//! Begins segments: which slot, which part of the chain stays, what the first block says.

use super::blocks::blocks32;
use super::{Checkpoint, Content, Link, Submission, Tail, Wal};
use crate::encode::BlockBuilder;
use crate::errors::WalError;
use crate::format::block::{BlockHeader, Flags};
use crate::format::header::{SegmentEnd, SegmentHeader};
use crate::format::payload::{encode_checkpoint, encode_lost};
use crate::format::record::Frame;
use crate::format::{BLOCK_BYTES, FIRST_COMMIT_BLOCK, MARK_A, block_offset, memory_index};
use crate::index::StoreIndex;
use crate::options::Ablation;
use crate::pool::{Need, Slot};
use crate::segment::Segment;
use duraft_core::{GroupId, Index, Position};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Wal {
    pub(super) fn write_in_new_segment(&mut self, content: &Content<'_>) -> Result<(), WalError> {
        let first_live = self.first_live_without(content.dead);
        let frees = self
            .chain
            .keys()
            .next()
            .is_some_and(|first| *first < first_live);
        let need = if frees { Need::Open } else { content.need };
        let slot = self.take_slot(need)?;
        let checkpoint = {
            let index = self.shared.index.read();
            checkpoint_of(&index, |group| index.groups[&group].log.end())
        };
        self.begin_segment(slot, first_live, &checkpoint, content)?;
        self.stats.rotations += 1;
        Ok(())
    }

    /// The newest segment with a checkpoint among those up to the first one with live batches. `dead`
    /// counts the batches per segment that the commit itself compacts away: it may be the one that
    /// makes room.
    ///
    /// Without its checkpoint, a segment's batches are of groups that nobody knows. And the checkpoint of
    /// the segment about to begin does not count: it is not durable yet, and were it damaged later, one
    /// older one must say which groups there are.
    pub(crate) fn first_live_without(&self, dead: &BTreeMap<u64, u64>) -> u64 {
        let live = self
            .chain
            .iter()
            .find(|(seq, link)| link.live > dead.get(seq).copied().unwrap_or(0));
        let live = live.map_or(self.next_segment, |(seq, _)| *seq);
        if self.options.without(Ablation::OneCheckpoint) && live == self.next_segment {
            return live;
        }
        let begins = self.chain.range(..=live).rfind(|(_, link)| link.begins);
        begins.map_or(live, |(seq, _)| *seq)
    }

    /// Batches per segment that these writes compact away.
    pub(super) fn compacted_by(&self, submissions: &[Submission]) -> BTreeMap<u64, u64> {
        let mut dead = BTreeMap::new();
        let index = self.shared.index.read();
        let mut last: BTreeMap<GroupId, Index> = BTreeMap::new();
        for Submission { group, write } in submissions {
            // A reset drops all of the log as it was.
            if write.snapshot.as_ref().is_some_and(|write| write.reset) {
                last.insert(*group, Index(u64::MAX));
            }
            if let Some(upto) = &write.compact {
                let last = last.entry(*group).or_default();
                *last = (*last).max(upto.index());
            }
        }
        for (group, upto) in last {
            let Some(state) = index.groups.get(&group) else {
                continue;
            };
            let entries = state.log.entries().iter();
            for entry in entries.take_while(|entry| entry.header.last() <= upto) {
                *dead.entry(entry.segment.seq).or_default() += 1;
            }
        }
        dead
    }

    /// A ready slot, made here and now if the preparer has not kept up.
    pub(super) fn take_slot(&mut self, need: Need) -> Result<Slot, WalError> {
        loop {
            // A reader may have let go of a slot since.
            let unproven = u64::from(!self.proven);
            let proven = match self.options.without(Ablation::ReuseAtOnce) {
                true => u64::MAX,
                false => self.last_commit.saturating_sub(unproven),
            };
            self.pool.settle(proven);
            let refused = match self.pool.take(need) {
                Ok(Some(slot)) => return Ok(slot),
                Ok(None) => false,
                Err(_) => true,
            };
            let pool = self.pool.stats();
            // Where slots are left for others, only a disk that has room again brings more.
            if (!refused || pool.full) && self.pool.prepare().is_ok_and(|made| made) {
                self.stats.slots_made_late += 1;
                continue;
            }
            // Slots may rest only because nothing proves the last commit yet.
            if refused || pool.resting == 0 || self.proven {
                return Err(WalError::StorageFull);
            }
            self.prove_with_mark()?;
        }
    }

    /// Writes header, mark A and first block of a new segment in one go, and syncs them.
    pub(crate) fn begin_segment(
        &mut self,
        slot: Slot,
        first_live: u64,
        checkpoint: &Checkpoint,
        content: &Content<'_>,
    ) -> Result<(), WalError> {
        let seq = self.next_segment;
        let nonce = self.nonce(seq, slot.number);
        let mut measure = content.measure;
        checkpoint
            .iter()
            .for_each(|(_, payload)| measure.add(payload.len()));
        measure.add(0);
        let blocks = blocks32(measure);
        let last = u64::from(self.store.slot_blocks) - 1;
        assert!(
            u64::from(FIRST_COMMIT_BLOCK + blocks) <= last,
            "limits keep every commit within a segment, checkpoint included"
        );
        let len = memory_index(block_offset(FIRST_COMMIT_BLOCK + blocks));
        let previous_digest = self.previous_end().map_or(0, |end| end.digest);
        let mut header = self.header(
            seq,
            nonce,
            FIRST_COMMIT_BLOCK,
            previous_digest,
            content.flags,
        );
        header.durable = self.previous_end().map_or(0, |end| end.commit);
        let segment_header = SegmentHeader {
            nonce,
            seq,
            slot: slot.number,
            slot_blocks: self.store.slot_blocks,
            previous: self.previous_end(),
            generation: self.generation,
            first_live,
            base_commit: self.last_commit + 1,
            wallclock_ns: self.entropy.wallclock_ns,
        };
        let mut mark = BlockHeader {
            block: MARK_A,
            commit: header.durable,
            flags: Flags::MARK,
            previous_digest: 0,
            ..header
        };
        let begun = self.lap();
        let bytes = self.buffer.reserve(len);
        segment_header.encode(&self.store.id, self.store.seed, bytes);
        let (front, body) = bytes.split_at_mut(2 * BLOCK_BYTES);
        BlockBuilder::new(&mut front[BLOCK_BYTES..], BLOCK_BYTES, 0)
            .finish(&mut mark, self.store.seed);
        let mut builder = BlockBuilder::new(body, 2 * BLOCK_BYTES, measure.records);
        for (frame, payload) in checkpoint {
            builder.push(*frame, payload);
        }
        builder.push(
            Frame::of_checkpoint_end(crate::format::disk_length(checkpoint.len())),
            &[],
        );
        self.places.clear();
        let places = &mut self.places;
        (content.each)(&mut |frame, payload| places.push(builder.push(frame, payload)));
        builder.finish(&mut header, self.store.seed);

        let encoded = self.lap();
        let mut written = None;
        let done = slot
            .file
            .write_at(self.buffer.bytes(len), 0)
            .and_then(|()| {
                written = self.lap();
                slot.file.sync_data()
            });
        done.map_err(|error| self.poisoned_by(&error))?;
        self.tell_times([begun, encoded, written]);
        self.stats.fsyncs += 1;
        self.stats.bytes_written += len as u64;
        self.enter_segment(
            Segment::new(seq, slot.number, slot.file),
            nonce,
            &header,
            first_live,
        );
        Ok(())
    }

    /// The new segment is durable: it is the tail, and what lies before its first live segment rests.
    pub(super) fn enter_segment(
        &mut self,
        segment: Arc<Segment>,
        nonce: u32,
        header: &BlockHeader,
        first_live: u64,
    ) {
        if let Some(old) = &self.tail {
            old.segment.seal();
        }
        let live = self.chain.split_off(&first_live);
        for (_, link) in std::mem::replace(&mut self.chain, live) {
            self.pool.release(link.segment, header.commit);
        }
        self.chain.insert(
            segment.seq,
            Link {
                segment: Arc::clone(&segment),
                live: 0,
                begins: true,
            },
        );
        self.next_segment = segment.seq + 1;
        self.tail = Some(Tail {
            segment,
            nonce,
            next_block: FIRST_COMMIT_BLOCK + header.blocks(),
            digest: header.sum,
        });
        self.since_mark = 0;
        // The checkpoint says everything about all groups.
        self.tables_written();
    }

    /// Where the segment before the next one ends.
    pub(super) fn previous_end(&self) -> Option<SegmentEnd> {
        match &self.tail {
            Some(tail) => Some(SegmentEnd {
                seq: tail.segment.seq,
                nonce: tail.nonce,
                block: tail.next_block,
                commit: self.last_commit,
                digest: tail.digest,
            }),
            None => self.previous,
        }
    }

    /// A number for this life of a slot that no other life of it has.
    pub(super) fn nonce(&self, seq: u64, slot: u32) -> u32 {
        if self.options.without(Ablation::NoLifeNonce) {
            return 1;
        }
        let words = [
            u64::from(self.generation),
            seq,
            slot.into(),
            self.entropy.wallclock_ns,
        ];
        let [a, b, c, d, ..] = self.entropy.derive(&words).to_le_bytes();
        u32::from_le_bytes([a, b, c, d]).max(1)
    }
}

/// The checkpoint of all groups, where `end` is what earlier segments hold of each.
pub(crate) fn checkpoint_of(index: &StoreIndex, end: impl Fn(GroupId) -> Position) -> Checkpoint {
    let mut records = Vec::new();
    for (group, state) in &index.groups {
        let payload = encode_checkpoint(&state.checkpoint(end(*group)));
        records.push((Frame::of_group_state(*group, &payload), payload));
        if let Some(lost) = state.lost_log() {
            let payload = encode_lost(&lost);
            records.push((Frame::of_damage(*group, &payload), payload));
        }
        for note in &state.repairs {
            records.push((Frame::of_repair(*group, note), Vec::new()));
        }
    }
    records
}
