//! Writes commit blocks, receipts and marks.

use super::{Content, Submission, Wal};
use crate::encode::{BlockBuilder, Measure};
use crate::errors::WalError;
use crate::format::block::{BlockHeader, Flags, HEADER_LEN};
use crate::format::payload::{FACT_LEN, GroupFact, encode_fact};
use crate::format::record::{DESCRIPTOR_LEN, Frame};
use crate::format::{BLOCK_BYTES, MARK_A, block_offset, memory_index};
use crate::options::Ablation;
use crate::pool::Need;
use crate::segment::Segment;
use duraft_core::GroupId;
use duraft_disk::DiskError;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Wal {
    /// Writes one block, into the tail or as the first of a new segment, and syncs it.
    pub(crate) fn write_block(&mut self, content: Content<'_>) -> Result<(), WalError> {
        let echo = self.echo_frames();
        let mut measure = content.measure;
        echo.iter().for_each(|_| measure.add(0));
        if self.fits_tail(measure) {
            self.write_in_tail(&content, measure, &echo)?;
        } else {
            self.write_in_new_segment(&content)?;
        }
        self.last_commit += 1;
        self.echo.clear();
        self.proven = false;
        // Its watermark proves the commit before it.
        self.pool.settle(self.last_commit - 1);
        Ok(())
    }

    pub(super) fn fits_tail(&self, measure: Measure) -> bool {
        let too_far = u64::from(self.options.without(Ablation::OneTooFar));
        let last = u64::from(self.store.slot_blocks) - 1 + too_far;
        self.tail
            .as_ref()
            .is_some_and(|tail| u64::from(tail.next_block) + measure.blocks() <= last)
    }

    pub(super) fn header(
        &self,
        segment: u64,
        nonce: u32,
        block: u32,
        digest: u32,
        flags: Flags,
    ) -> BlockHeader {
        BlockHeader {
            nonce,
            segment,
            commit: self.last_commit + 1,
            durable: self.last_commit,
            block,
            payload_len: 0,
            records: 0,
            flags,
            generation: self.generation,
            previous_digest: digest,
            directory_sum: 0,
            payload_sum: 0,
            sum: 0,
        }
    }

    pub(super) fn write_in_tail(
        &mut self,
        content: &Content<'_>,
        measure: Measure,
        echo: &[Frame],
    ) -> Result<(), WalError> {
        let tail = self
            .tail
            .as_ref()
            .expect("a block fits the tail only where there is one");
        let (block, nonce, digest) = (tail.next_block, tail.nonce, tail.digest);
        let segment = Arc::clone(&tail.segment);
        let begun = self.lap();
        let mut header = self.header(segment.seq, nonce, block, digest, content.flags);
        let at = block_offset(block);
        let len = memory_index(block_offset(blocks32(measure)));
        let bytes = self.buffer.reserve(len);
        let mut builder = BlockBuilder::new(bytes, memory_index(at), measure.records);
        self.places.clear();
        for frame in echo {
            builder.push(*frame, &[]);
        }
        let places = &mut self.places;
        (content.each)(&mut |frame, payload| places.push(builder.push(frame, payload)));
        let written = builder.finish(&mut header, self.store.seed);
        assert_eq!(written, len, "a block is as long as it was measured");

        let receipt = content.flags.has(Flags::RECEIPT);
        self.since_mark += 1;
        let marks = receipt || self.since_mark >= self.options.mark_every_commits;
        let encoded = self.lap();
        let mut written = None;
        let done = segment
            .file
            .write_at(self.buffer.bytes(len), at)
            .and_then(|()| {
                if marks {
                    self.write_mark(&segment, nonce, block)?;
                }
                written = self.lap();
                self.sync_block(&segment, content.need, block + header.blocks())
            });
        done.map_err(|error| self.poisoned_by(&error))?;
        if !receipt {
            self.tell_times([begun, encoded, written]);
        }
        self.stats.fsyncs += 1;
        self.stats.bytes_written += len as u64;
        let tail = self.tail.as_mut().expect("the tail is still there");
        tail.next_block += header.blocks();
        tail.digest = header.sum;
        if marks {
            self.since_mark = 0;
        }
        if receipt {
            self.tables_written();
        }
        Ok(())
    }

    fn sync_block(&self, segment: &Segment, need: Need, next_block: u32) -> Result<(), DiskError> {
        let last = self.store.slot_blocks - 1;
        let left_out = self.options.without(Ablation::ControlUnsynced) && need == Need::Control
            || self.options.without(Ablation::NoSyncAtRoll) && next_block >= last;
        if left_out {
            return Ok(());
        }
        match segment.file.sync_data() {
            Err(_) if self.options.without(Ablation::RetrySync) => segment.file.sync_data(),
            done => done,
        }
    }

    /// For tests of the tests: wipes the batches that these writes cut off, in place.
    pub(super) fn wipe_truncated(&mut self, submissions: &[Submission]) -> Result<(), WalError> {
        let mut places = Vec::new();
        for Submission { group, write } in submissions {
            let (Some(keep), Some(tail)) = (&write.truncate, &self.tail) else {
                continue;
            };
            let index = self.shared.index.read();
            let entries = index.groups[group].log.entries().iter();
            let cut = entries.filter(|entry| {
                entry.header.first > keep.index() && entry.segment.seq == tail.segment.seq
            });
            places.extend(cut.map(|entry| u64::from(entry.descriptor_at)));
        }
        let Some(tail) = &self.tail else {
            return Ok(());
        };
        let file = Arc::clone(&tail.segment.file);
        for at in places {
            let block = at - at % BLOCK_BYTES as u64;
            let wiped = file.write_at(&[0; BLOCK_BYTES], block);
            wiped.map_err(|error| self.poisoned_by(&error))?;
        }
        Ok(())
    }

    /// A table in the chain, or a checkpoint, covers everything up to the last commit now. A mark does
    /// not: the next one takes its place.
    pub(super) fn tables_written(&mut self) {
        self.touched.clear();
        self.table_since = self.last_commit;
    }

    /// Overwrites the mark farther from `near`: it states what is durable already.
    pub(super) fn write_mark(
        &mut self,
        segment: &Segment,
        nonce: u32,
        near: u32,
    ) -> Result<(), DiskError> {
        let mark_b = self.store.slot_blocks - 1;
        let block = if near - MARK_A > mark_b - near {
            MARK_A
        } else {
            mark_b
        };
        let (frame, payload) = self.table();
        let mut header = self.header(segment.seq, nonce, block, 0, Flags::MARK);
        header.commit = self.last_commit;
        let bytes = self.mark.reserve(BLOCK_BYTES);
        let mut builder = BlockBuilder::new(bytes, memory_index(block_offset(block)), 1);
        builder.push(frame, &payload);
        let len = builder.finish(&mut header, self.store.seed);
        assert_eq!(len, BLOCK_BYTES, "a mark is one block");
        segment
            .file
            .write_at(self.mark.bytes(BLOCK_BYTES), block_offset(block))?;
        self.stats.marks += 1;
        self.stats.bytes_written += BLOCK_BYTES as u64;
        Ok(())
    }

    /// The state of the groups written since the last table in the chain. Where a block does not hold
    /// all of them, those written last: a loss near the end hits these.
    pub(super) fn table(&self) -> (Frame, Vec<u8>) {
        let fit = match self.options.without(Ablation::NoTables) {
            true => 0,
            false => (BLOCK_BYTES - HEADER_LEN - DESCRIPTOR_LEN) / FACT_LEN,
        };
        let mut told: Vec<(&GroupId, &u64)> = self.touched.iter().collect();
        if told.len() > fit {
            told.select_nth_unstable_by_key(fit, |(_, commit)| Reverse(**commit));
            told.truncate(fit);
        }
        let index = self.shared.index.read();
        let facts: Vec<GroupFact> = told
            .into_iter()
            .filter_map(|(group, _)| index.groups.get(group).map(|state| (group, state)))
            .map(|(group, state)| GroupFact {
                group: *group,
                end: state.log.end(),
                hard_state: state.hard_state,
            })
            .collect();
        let mut payload = vec![0; facts.len() * FACT_LEN];
        for (fact, bytes) in facts.iter().zip(payload.chunks_exact_mut(FACT_LEN)) {
            encode_fact(fact, bytes);
        }
        let partial = facts.len() < self.touched.len();
        let count = crate::format::disk_length(facts.len());
        (
            Frame::of_table(self.table_since, partial, count, &payload),
            payload,
        )
    }

    pub(super) fn write_receipt(&mut self, flags: Flags) -> Result<(), WalError> {
        self.check_alive()?;
        if self.proven {
            return Ok(());
        }
        let (frame, payload) = self.table();
        let mut measure = Measure::default();
        measure.add(payload.len());
        let echo = self.echo_frames();
        let mut whole = measure;
        echo.iter().for_each(|_| whole.add(0));
        if self.fits_tail(whole) {
            let content = Content {
                flags,
                measure,
                need: Need::Control,
                dead: &BTreeMap::new(),
                each: &|push| push(frame, &payload),
            };
            self.write_block(content)?;
        } else {
            // No room for a block, and a new segment is too much for a proof: the mark is one.
            self.prove_with_mark()?;
        }
        self.stats.receipts += 1;
        self.proven = true;
        Ok(())
    }

    /// Writes the far mark and syncs it: proof of the last commit without a block.
    pub(crate) fn prove_with_mark(&mut self) -> Result<(), WalError> {
        let Some(tail) = &self.tail else {
            return Ok(());
        };
        let (segment, nonce) = (Arc::clone(&tail.segment), tail.nonce);
        let near = tail.next_block - 1;
        let done = self
            .write_mark(&segment, nonce, near)
            .and_then(|()| segment.file.sync_data());
        done.map_err(|error| self.poisoned_by(&error))?;
        self.stats.fsyncs += 1;
        self.since_mark = 0;
        self.proven = true;
        self.pool.settle(self.last_commit);
        Ok(())
    }

    pub(super) fn echo_frames(&self) -> Vec<Frame> {
        if self.echo.is_empty() {
            return Vec::new();
        }
        let index = self.shared.index.read();
        self.echo
            .iter()
            .filter_map(|group| {
                let state = index.groups.get(group)?;
                Some(Frame::of_echo(
                    *group,
                    state.hard_state,
                    state.last_membership(),
                ))
            })
            .collect()
    }
}

/// Blocks of a measured block. Limits keep it within a slot.
pub(super) fn blocks32(measure: Measure) -> u32 {
    u32::try_from(measure.blocks()).expect("a block is shorter than its slot")
}
