//! The write-ahead log: one group commit is one block, one pwrite, one fdatasync.
//!
//! Owns the tail segment, the numbers of commits and writes, and the poison latch. Knows nothing of
//! queues, ticks or threads ([`Pipeline`](crate::Pipeline)) and nothing of how slots are made
//! ([`Preparer`]).
//!
//! Invariants:
//! - a block is written only when everything before it is durable, so its watermark is its own number
//!   minus one;
//! - a sector that holds acknowledged bytes is never written again (marks hold nothing else);
//! - after the first failed write or sync nothing is written in this life;
//! - the index changes only after the sync: readers see what is durable.
//!
//! A new segment's header, first mark and first block are one pwrite. The first block holds a
//! checkpoint of every group and the commit that did not fit the segment before, so a rotation costs
//! no flush of its own, and a segment without live batches can be forgotten as a whole.

use crate::encode::{BlockBuilder, Buffer, Measure, Place};
use crate::errors::{Poison, WalError, WriteProblem};
use crate::format::block::{BlockHeader, Flags, HEADER_LEN};
use crate::format::checksum::Seed;
use crate::format::header::{SegmentEnd, SegmentHeader};
use crate::format::payload::{FACT_LEN, GroupFact, encode_checkpoint, encode_fact, encode_lost};
use crate::format::record::{DESCRIPTOR_LEN, Frame};
use crate::format::{BLOCK_BYTES, FIRST_COMMIT_BLOCK, MARK_A, block_offset, memory_index};
use crate::index::{GroupIndex, StoreIndex, membership_in};
use crate::options::{Ablation, Entropy, WalOptions, records_bytes_max};
use crate::pipeline::Pipeline;
use crate::plan;
use crate::pool::{Need, Pool, PoolStats, Slot};
use crate::preparer::Preparer;
use crate::reader::{Shared, WalReader};
use crate::segment::{Entry, Segment};
use duraft_core::{GroupId, Index, Position, Write, WriteSeq};
use duraft_disk::{DiskError, DiskLock};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A write of one group on its way to the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submission {
    /// The group.
    pub group: GroupId,
    /// The write.
    pub write: Write,
}

impl Submission {
    /// Bytes of records the write takes in a commit: what `commit_bytes_max` and `queue_bytes_max`
    /// count.
    pub fn cost(&self) -> u64 {
        plan::measure(&self.write).bytes()
    }

    fn records(&self) -> usize {
        plan::measure(&self.write).records
    }
}

/// What the log did in this life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalStats {
    /// Group commits.
    pub commits: u64,
    /// Writes in them.
    pub writes: u64,
    /// Receipts.
    pub receipts: u64,
    /// Far marks, those of receipts included.
    pub marks: u64,
    /// Segments begun after the one of the open.
    pub rotations: u64,
    /// Bytes written: headers, blocks and marks, padding included.
    pub bytes_written: u64,
    /// Bytes of records in them.
    pub record_bytes: u64,
    /// Calls of `sync_data`.
    pub fsyncs: u64,
    /// Slots that had to be made while a commit waited.
    pub slots_made_late: u64,
}

/// Most records in one block.
pub(crate) const RECORDS_MAX: usize = u16::MAX as usize;

/// Identity and geometry of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    pub(crate) id: [u8; 16],
    pub(crate) seed: Seed,
    pub(crate) slot_bytes: u64,
    pub(crate) slot_blocks: u32,
}

/// The segment being written.
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) nonce: u32,
    /// Where the next block goes.
    pub(crate) next_block: u32,
    /// Digest of the last block.
    pub(crate) digest: u32,
}

/// A segment of the chain.
pub(crate) struct Link {
    pub(crate) segment: Arc<Segment>,
    /// Live batches in it.
    pub(crate) live: u64,
}

/// See the module documentation.
pub struct Wal {
    pub(crate) store: Store,
    pub(crate) options: WalOptions,
    pub(crate) entropy: Entropy,
    pub(crate) generation: u32,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<Pool>,
    /// `None` only while the first segment of a life is written.
    pub(crate) tail: Option<Tail>,
    /// Segments by number, from the first live one to the tail.
    pub(crate) chain: BTreeMap<u64, Link>,
    /// The end that the next segment's header declares for the segment before it.
    pub(crate) previous: Option<SegmentEnd>,
    pub(crate) next_segment: u64,
    /// Number of the last commit. It is durable.
    pub(crate) last_commit: u64,
    pub(crate) written: BTreeMap<GroupId, WriteSeq>,
    /// Groups whose hard state changed in the last block.
    pub(crate) echo: BTreeSet<GroupId>,
    /// Groups written since `table_since`, the last commit that a table or checkpoint covers.
    pub(crate) touched: BTreeSet<GroupId>,
    pub(crate) table_since: u64,
    /// The last block proves all commits with user records.
    pub(crate) proven: bool,
    pub(crate) since_mark: u64,
    pub(crate) buffer: Buffer,
    pub(crate) mark: Buffer,
    pub(crate) places: Vec<Place>,
    pub(crate) poison: Option<Poison>,
    pub(crate) stats: WalStats,
    pub(crate) _lock: Box<dyn DiskLock>,
}

/// What a block holds beside the checkpoint that a first block begins with.
pub(crate) struct Content<'a> {
    pub(crate) flags: Flags,
    pub(crate) measure: Measure,
    pub(crate) need: Need,
    /// Calls its argument once for each record, in order.
    #[allow(clippy::type_complexity)]
    pub(crate) each: &'a dyn Fn(&mut dyn FnMut(Frame, &[u8])),
}

/// A checkpoint ready to be written.
type Checkpoint = Vec<(Frame, Vec<u8>)>;

impl Wal {
    /// A log without a segment, in generation 0.
    pub(crate) fn unopened(
        store: Store,
        options: WalOptions,
        entropy: Entropy,
        index: StoreIndex,
        pool: Pool,
        lock: Box<dyn DiskLock>,
    ) -> Wal {
        let shared = Shared {
            index: RwLock::new(index),
            map_sealed: options.map_sealed,
        };
        Wal {
            store,
            options,
            entropy,
            generation: 0,
            shared: Arc::new(shared),
            pool: Arc::new(pool),
            tail: None,
            chain: BTreeMap::new(),
            previous: None,
            next_segment: 0,
            last_commit: 0,
            written: BTreeMap::new(),
            echo: BTreeSet::new(),
            touched: BTreeSet::new(),
            table_since: 0,
            proven: false,
            since_mark: 0,
            buffer: Buffer::default(),
            mark: Buffer::default(),
            places: Vec::new(),
            poison: None,
            stats: WalStats::default(),
            _lock: lock,
        }
    }

    /// Makes these writes durable, in order, as one group commit: when this returns `Ok`, they
    /// survive power loss. An error other than [`WalError::Poisoned`] leaves the log as it was.
    pub fn commit(&mut self, submissions: &[Submission]) -> Result<(), WalError> {
        self.check_alive()?;
        if submissions.is_empty() {
            return Ok(());
        }
        let planned = {
            let index = self.shared.index.read();
            plan::check(&index, &self.written, submissions)?
        };
        let max = self.commit_bytes_fit();
        let records_fit = planned.measure.records + self.group_count() * 3 < RECORDS_MAX;
        if planned.measure.bytes() > max || !records_fit {
            return Err(WalError::TooLarge {
                bytes: planned.measure.bytes(),
                max,
            });
        }
        let shared = Arc::clone(&self.shared);
        let content = Content {
            flags: Flags::NONE,
            measure: planned.measure,
            need: if planned.appends {
                Need::Append
            } else {
                Need::Control
            },
            each: &|push| {
                let index = shared.index.read();
                submissions.iter().for_each(|s| records_of(s, &index, push));
            },
        };
        self.write_block(content)?;
        self.apply(submissions);
        self.stats.commits += 1;
        self.stats.writes += submissions.len() as u64;
        self.stats.record_bytes += planned.measure.bytes();
        Ok(())
    }

    /// Proves the last commit: writes an empty block whose watermark covers it, and a far mark, in one
    /// sync of their own. Does nothing where there is nothing to prove.
    pub fn receipt(&mut self) -> Result<(), WalError> {
        self.write_receipt(Flags::RECEIPT)
    }

    /// Ends this life in order: a receipt, marked as written by a close.
    pub fn close(mut self) -> Result<(), WalError> {
        self.write_receipt(Flags::RECEIPT.with(Flags::CLEAN))
    }

    /// A handle that reads what is durable.
    pub fn reader(&self) -> WalReader {
        WalReader::new(Arc::clone(&self.shared))
    }

    /// The deterministic part of the preparer for this log's slots.
    pub fn preparer(&self) -> Preparer {
        Preparer::new(Arc::clone(&self.pool), self.options.slots_ready_min)
    }

    /// A pipeline into this log, with the options it was opened with.
    pub fn into_pipeline(self) -> Pipeline {
        let options = self.options.clone();
        Pipeline::new(self, options)
    }

    /// The failure that stopped this log, if one did.
    pub fn poisoned(&self) -> Option<&Poison> {
        self.poison.as_ref()
    }

    /// What the log did in this life.
    pub fn stats(&self) -> WalStats {
        self.stats
    }

    /// What the slot pool holds.
    pub fn pool_stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// The options the log was opened with; `slot_bytes` is that of the store.
    pub fn options(&self) -> &WalOptions {
        &self.options
    }

    /// The open generation: greater at every open of this store.
    pub fn generation(&self) -> u64 {
        self.generation.into()
    }

    /// Most bytes of records one commit can hold.
    pub fn commit_bytes_fit(&self) -> u64 {
        records_bytes_max(self.store.slot_bytes, self.group_count())
    }

    /// Is there a commit that nothing proves yet, and a log that could?
    pub(crate) fn wants_receipt(&self) -> bool {
        !self.proven && self.poison.is_none()
    }

    /// How many submissions from the front of a queue make the next commit: as many as fit
    /// `commit_bytes_max`, but at least one.
    pub(crate) fn admit<'a>(&self, queue: impl Iterator<Item = &'a Submission>) -> usize {
        let max = self.options.commit_bytes_max.min(self.commit_bytes_fit());
        let records_max = RECORDS_MAX - 1 - self.group_count() * 3;
        let (mut bytes, mut records, mut admitted) = (0u64, 0usize, 0);
        for submission in queue {
            bytes = bytes.saturating_add(submission.cost());
            records += submission.records();
            if admitted > 0 && (bytes > max || records > records_max) {
                break;
            }
            admitted += 1;
        }
        admitted
    }

    /// Declares a damaged group whole again: allowed when no index is missing. Durable when this
    /// returns; the caller has satisfied itself that nothing else is lost.
    pub fn heal(&mut self, group: GroupId) -> Result<(), WalError> {
        self.check_alive()?;
        let ready = {
            let index = self.shared.index.read();
            let state = index
                .groups
                .get(&group)
                .ok_or(WalError::UnknownGroup(group))?;
            state.lost.is_some() && state.log.is_whole()
        };
        if !ready {
            return Err(WalError::Invalid {
                group,
                problem: WriteProblem::NotHealed,
            });
        }
        let mut measure = Measure::default();
        measure.add(0);
        self.write_block(Content {
            flags: Flags::NONE,
            measure,
            need: Need::Control,
            each: &|push| push(Frame::of_repair(group), &[]),
        })?;
        let mut index = self.shared.index.write();
        if let Some(state) = index.groups.get_mut(&group) {
            state.lost = None;
        }
        drop(index);
        self.touched.insert(group);
        Ok(())
    }

    fn check_alive(&self) -> Result<(), WalError> {
        match &self.poison {
            Some(poison) => Err(WalError::Poisoned(poison.clone())),
            None => Ok(()),
        }
    }

    fn group_count(&self) -> usize {
        self.shared.index.read().groups.len()
    }

    fn poisoned_by(&mut self, error: &DiskError) -> WalError {
        let poison = self
            .poison
            .get_or_insert_with(|| Poison::from_disk(error))
            .clone();
        WalError::Poisoned(poison)
    }

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
        self.pool.settle(self.last_commit);
        Ok(())
    }

    fn fits_tail(&self, measure: Measure) -> bool {
        let last = u64::from(self.store.slot_blocks) - 1;
        self.tail
            .as_ref()
            .is_some_and(|tail| u64::from(tail.next_block) + measure.blocks() <= last)
    }

    fn header(
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

    fn write_in_tail(
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
        let done = segment
            .file
            .write_at(self.buffer.bytes(len), at)
            .and_then(|()| {
                if marks {
                    self.write_mark(&segment, nonce, block)?;
                }
                segment.file.sync_data()
            });
        done.map_err(|error| self.poisoned_by(&error))?;
        self.stats.fsyncs += 1;
        self.stats.bytes_written += len as u64;
        let tail = self.tail.as_mut().expect("the tail is still there");
        tail.next_block += header.blocks();
        tail.digest = header.sum;
        if marks {
            self.since_mark = 0;
            self.tables_written();
        }
        Ok(())
    }

    /// A table covers everything up to the last commit now.
    fn tables_written(&mut self) {
        self.touched.clear();
        self.table_since = self.last_commit;
    }

    /// Overwrites the mark farther from `near`: it states what is durable already.
    fn write_mark(&mut self, segment: &Segment, nonce: u32, near: u32) -> Result<(), DiskError> {
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

    /// The state of the groups written since the last table, as many as fit a block.
    fn table(&self) -> (Frame, Vec<u8>) {
        let fit = (BLOCK_BYTES - HEADER_LEN - DESCRIPTOR_LEN) / FACT_LEN;
        let index = self.shared.index.read();
        let facts: Vec<GroupFact> = self
            .touched
            .iter()
            .filter_map(|group| index.groups.get(group).map(|state| (group, state)))
            .take(fit)
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

    fn write_receipt(&mut self, flags: Flags) -> Result<(), WalError> {
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
                each: &|push| push(frame, &payload),
            };
            self.write_block(content)?;
        } else {
            // No room for a block, and a new segment is too much for a proof: the mark is one.
            self.write_lone_mark()?;
        }
        self.stats.receipts += 1;
        self.proven = true;
        Ok(())
    }

    fn write_lone_mark(&mut self) -> Result<(), WalError> {
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
        self.tables_written();
        Ok(())
    }

    fn echo_frames(&self) -> Vec<Frame> {
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

    fn write_in_new_segment(&mut self, content: &Content<'_>) -> Result<(), WalError> {
        let first_live = self.first_live();
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

    /// The first segment with live batches, or the one about to begin.
    fn first_live(&self) -> u64 {
        self.chain
            .iter()
            .find(|(_, link)| link.live > 0)
            .map_or(self.next_segment, |(seq, _)| *seq)
    }

    /// A ready slot, made here and now if the preparer has not kept up.
    fn take_slot(&mut self, need: Need) -> Result<Slot, WalError> {
        loop {
            match self.pool.take(need) {
                Ok(Some(slot)) => return Ok(slot),
                Ok(None) => match self.pool.prepare() {
                    Ok(true) => self.stats.slots_made_late += 1,
                    Ok(false) | Err(_) => return Err(WalError::StorageFull),
                },
                Err(_) => return Err(WalError::StorageFull),
            }
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

        let written = slot
            .file
            .write_at(self.buffer.bytes(len), 0)
            .and_then(|()| slot.file.sync_data());
        written.map_err(|error| self.poisoned_by(&error))?;
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
    fn enter_segment(
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
            self.pool.release(link.segment, header.commit + 1);
        }
        self.chain.insert(
            segment.seq,
            Link {
                segment: Arc::clone(&segment),
                live: 0,
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
    fn previous_end(&self) -> Option<SegmentEnd> {
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
    fn nonce(&self, seq: u64, slot: u32) -> u32 {
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

    /// Brings the index up to what was just made durable.
    fn apply(&mut self, submissions: &[Submission]) {
        let tail = self
            .tail
            .as_ref()
            .expect("a commit was written to the tail");
        let segment = Arc::clone(&tail.segment);
        let mut index = self.shared.index.write();
        let mut places = self.places.iter();
        for Submission { group, write } in submissions {
            let state = index
                .groups
                .get_mut(group)
                .expect("the plan found the group");
            if let Some(hard_state) = write.hard_state {
                places.next();
                state.hard_state = hard_state;
                self.echo.insert(*group);
            }
            if let Some(keep) = &write.truncate {
                places.next();
                let dropped = state
                    .truncate(keep)
                    .expect("the plan checked the truncation");
                forget(&mut self.chain, &dropped);
            }
            for batch in &write.append {
                let place = places.next().expect("every record has a place");
                let entry = Entry {
                    header: batch.header,
                    segment: Arc::clone(&segment),
                    commit: self.last_commit,
                    descriptor_at: place.descriptor_at,
                    body_at: place.body_at,
                    body: Some(batch.body.clone()),
                };
                let membership = membership_in(&batch.header, &batch.body)
                    .expect("the plan read the membership");
                state
                    .append(entry, membership, true)
                    .expect("the plan checked the batch");
                let link = self
                    .chain
                    .get_mut(&segment.seq)
                    .expect("the tail is in the chain");
                link.live += 1;
            }
            if let Some(upto) = &write.compact {
                places.next();
                let dropped = state
                    .compact(upto)
                    .expect("the plan checked the compaction");
                forget(&mut self.chain, &dropped);
            }
            for batch in &write.append {
                index.cached(*group, batch.header.first, self.last_commit, batch.cost());
            }
            self.written.insert(*group, write.seq);
            self.touched.insert(*group);
        }
    }
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("generation", &self.generation)
            .field("last_commit", &self.last_commit)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

/// Blocks of a measured block. Limits keep it within a slot.
fn blocks32(measure: Measure) -> u32 {
    u32::try_from(measure.blocks()).expect("a block is shorter than its slot")
}

/// Takes dropped batches out of the count of live ones.
fn forget<'a>(chain: &mut BTreeMap<u64, Link>, dropped: impl IntoIterator<Item = &'a Entry>) {
    for entry in dropped {
        if let Some(link) = chain.get_mut(&entry.segment.seq) {
            link.live -= 1;
        }
    }
}

/// The records of one write, in the order in which they take effect.
fn records_of(submission: &Submission, index: &StoreIndex, push: &mut dyn FnMut(Frame, &[u8])) {
    let Submission { group, write } = submission;
    if let Some(state) = write.hard_state {
        let membership = index
            .groups
            .get(group)
            .map_or(Index(0), GroupIndex::last_membership);
        push(Frame::of_hard_state(*group, state, membership), &[]);
    }
    if let Some(keep) = &write.truncate {
        push(Frame::of_truncate(*group, keep), &[]);
    }
    for batch in &write.append {
        push(Frame::of_batch(&batch.header), &batch.body);
    }
    if let Some(upto) = &write.compact {
        push(Frame::of_compact(*group, upto), &[]);
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
    }
    records
}
