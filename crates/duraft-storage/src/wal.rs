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

mod blocks;
mod segments;

use crate::encode::{Buffer, Measure, Place};
use crate::errors::{Poison, WalError};
use crate::format::block::Flags;
use crate::format::checksum::Seed;
use crate::format::header::SegmentEnd;
use crate::format::payload::encode_snapshot;
use crate::format::record::Frame;
use crate::index::{GroupIndex, StoreIndex, membership_in};
use crate::options::{Ablation, Entropy, WalOptions, records_bytes_max};
use crate::pipeline::Pipeline;
use crate::plan;
use crate::pool::{Need, Pool, PoolStats};
use crate::preparer::Preparer;
use crate::reader::{Shared, WalReader};
use crate::repair::Repair;
use crate::segment::{Entry, Segment};
use duraft_core::{GroupId, Index, SnapshotWrite, Write, WriteSeq};
use duraft_disk::{DiskError, DiskLock};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use segments::checkpoint_of;

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
        plan::measure_max(&self.write).bytes()
    }

    fn records(&self) -> usize {
        plan::measure_max(&self.write).records
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

/// How long the parts of one group commit took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommitTimes {
    /// Laying the block out in memory, checksums included.
    pub encode: Duration,
    /// Handing it to the system.
    pub write: Duration,
    /// Making it durable.
    pub sync: Duration,
}

/// Who is told how long commits took, and by which clock: the log has none of its own.
pub(crate) struct Watch {
    pub(crate) clock: fn() -> Duration,
    pub(crate) tell: Box<dyn FnMut(CommitTimes) + Send + Sync>,
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
    /// Its checkpoint can be read. Without one, its batches are of groups that nobody knows.
    pub(crate) begins: bool,
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
    /// Groups written since `table_since`, the last commit that a table in the chain or a checkpoint
    /// covers, and the last commit that wrote each.
    pub(crate) touched: BTreeMap<GroupId, u64>,
    pub(crate) table_since: u64,
    /// The last block proves all commits with user records.
    pub(crate) proven: bool,
    pub(crate) since_mark: u64,
    pub(crate) buffer: Buffer,
    pub(crate) mark: Buffer,
    pub(crate) places: Vec<Place>,
    pub(crate) poison: Option<Poison>,
    pub(crate) stats: WalStats,
    pub(crate) watch: Option<Watch>,
    pub(crate) _lock: Box<dyn DiskLock>,
}

/// What a block holds beside the checkpoint that a first block begins with.
pub(crate) struct Content<'a> {
    pub(crate) flags: Flags,
    pub(crate) measure: Measure,
    pub(crate) need: Need,
    /// Batches per segment that the records make unneeded.
    pub(crate) dead: &'a BTreeMap<u64, u64>,
    /// Calls its argument once for each record, in order.
    #[allow(clippy::type_complexity)]
    pub(crate) each: &'a dyn Fn(&mut dyn FnMut(Frame, &[u8])),
}

/// A checkpoint ready to be written.
pub(crate) type Checkpoint = Vec<(Frame, Vec<u8>)>;

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
            touched: BTreeMap::new(),
            table_since: 0,
            proven: false,
            since_mark: 0,
            buffer: Buffer::default(),
            mark: Buffer::default(),
            places: Vec::new(),
            poison: None,
            stats: WalStats::default(),
            watch: None,
            _lock: lock,
        }
    }

    /// Makes these writes durable, in order, as one group commit: when this returns `Ok`, they
    /// survive power loss. An error other than [`WalError::Poisoned`] leaves the log as it was.
    pub fn commit(&mut self, submissions: &[Submission]) -> Result<(), WalError> {
        self.commit_noting(submissions, &[])
    }

    /// A commit with notes of what people decided, in the same block.
    pub(crate) fn commit_noting(
        &mut self,
        submissions: &[Submission],
        notes: &[(GroupId, Repair)],
    ) -> Result<(), WalError> {
        self.check_alive()?;
        if submissions.is_empty() {
            return Ok(());
        }
        let mut planned = {
            let index = self.shared.index.read();
            plan::check(&index, &self.written, submissions, self.options.ablation)?
        };
        notes.iter().for_each(|_| planned.measure.add(0));
        let max = self.commit_bytes_fit();
        let records_fit = planned.measure.records + self.group_count() * 3 < RECORDS_MAX;
        if planned.measure.bytes() > max || !records_fit {
            return Err(WalError::TooLarge {
                bytes: planned.measure.bytes(),
                max,
            });
        }
        if self.options.without(Ablation::WipeTruncated) {
            self.wipe_truncated(submissions)?;
        }
        let shared = Arc::clone(&self.shared);
        let dead = self.compacted_by(submissions);
        let content = Content {
            flags: Flags::NONE,
            measure: planned.measure,
            need: if planned.appends {
                Need::Append
            } else {
                Need::Control
            },
            dead: &dead,
            each: &|push| {
                let index = shared.index.read();
                let mut memberships = planned.memberships.iter();
                submissions
                    .iter()
                    .for_each(|s| records_of(s, &index, &mut memberships, push));
                for (group, note) in notes {
                    push(Frame::of_repair(*group, note), &[]);
                }
            },
        };
        self.write_block(content)?;
        self.apply(submissions);
        self.note(notes);
        self.stats.commits += 1;
        self.stats.writes += submissions.len() as u64;
        self.stats.record_bytes += planned.measure.bytes();
        if self.options.without(Ablation::ReceiptAlways) {
            self.receipt()?;
        }
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

    /// Calls `tell` after every group commit with how long its parts took by `clock`, which counts
    /// from any moment. It is called on the committing thread and must be quick.
    pub fn watch_commits(
        &mut self,
        clock: fn() -> Duration,
        tell: impl FnMut(CommitTimes) + Send + Sync + 'static,
    ) {
        let tell = Box::new(tell);
        self.watch = Some(Watch { clock, tell });
    }

    /// The time, where somebody wants to know.
    fn lap(&self) -> Option<Duration> {
        self.watch.as_ref().map(|watch| (watch.clock)())
    }

    /// Tells how long a commit took that began, was encoded and was written at these times.
    fn tell_times(&mut self, laps: [Option<Duration>; 3]) {
        let [Some(begun), Some(encoded), Some(written)] = laps else {
            return;
        };
        if let Some(watch) = &mut self.watch {
            let synced = (watch.clock)();
            (watch.tell)(CommitTimes {
                encode: encoded.saturating_sub(begun),
                write: written.saturating_sub(encoded),
                sync: synced.saturating_sub(written),
            });
        }
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
    /// `commit_bytes_max`, with at most one snapshot of each group, but at least one.
    pub(crate) fn admit<'a>(&self, queue: impl Iterator<Item = &'a Submission>) -> usize {
        let max = self.options.commit_bytes_max.min(self.commit_bytes_fit());
        let records_max = RECORDS_MAX - 1 - self.group_count() * 3;
        let (mut bytes, mut records, mut admitted) = (0u64, 0usize, 0);
        let mut naming = BTreeSet::new();
        for submission in queue {
            bytes = bytes.saturating_add(submission.cost());
            records += submission.records();
            let names = submission.write.snapshot.is_some();
            let twice = names && !naming.insert(submission.group);
            if admitted > 0 && (bytes > max || records > records_max || twice) {
                break;
            }
            admitted += 1;
        }
        admitted
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

    fn note(&self, notes: &[(GroupId, Repair)]) {
        if notes.is_empty() {
            return;
        }
        let mut index = self.shared.index.write();
        for (group, note) in notes {
            if let Some(state) = index.groups.get_mut(group) {
                state.repaired(*note);
            }
        }
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
            if let Some(snapshot) = &write.snapshot {
                places.next();
                let dropped = state
                    .snapshot(snapshot)
                    .expect("the plan checked the snapshot");
                forget(&mut self.chain, &dropped);
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
            if let Some(healed) = write.healed {
                places.next();
                state.healed(healed);
            }
            for batch in &write.append {
                index.cached(*group, batch.header.first, self.last_commit, batch.cost());
            }
            self.written.insert(*group, write.seq);
            self.touched.insert(*group, self.last_commit);
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

/// Takes dropped batches out of the count of live ones.
fn forget<'a>(chain: &mut BTreeMap<u64, Link>, dropped: impl IntoIterator<Item = &'a Entry>) {
    for entry in dropped {
        if let Some(link) = chain.get_mut(&entry.segment.seq) {
            link.live -= 1;
        }
    }
}

/// The records of one write, in the order in which they take effect.
fn records_of(
    submission: &Submission,
    index: &StoreIndex,
    memberships: &mut std::slice::Iter<'_, Vec<u8>>,
    push: &mut dyn FnMut(Frame, &[u8]),
) {
    let Submission { group, write } = submission;
    if let Some(state) = write.hard_state {
        let membership = index
            .groups
            .get(group)
            .map_or(Index(0), GroupIndex::last_membership);
        push(Frame::of_hard_state(*group, state, membership), &[]);
    }
    if let Some(SnapshotWrite { snapshot, reset }) = &write.snapshot {
        let payload = encode_snapshot(snapshot);
        push(
            Frame::of_snapshot(*group, &snapshot.position, *reset, &payload),
            &payload,
        );
    }
    if let Some(keep) = &write.truncate {
        push(Frame::of_truncate(*group, keep), &[]);
    }
    for batch in &write.append {
        push(Frame::of_batch(&batch.header), &batch.body);
    }
    if let Some(upto) = &write.compact {
        let membership = memberships
            .next()
            .expect("the plan found one per compaction");
        push(Frame::of_compact(*group, upto, membership), membership);
    }
    if let Some(healed) = write.healed {
        push(Frame::of_healed(*group, healed), &[]);
    }
}
