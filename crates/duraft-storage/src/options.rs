//! Who a store is, how it behaves, and what its limits must satisfy together.

use crate::format::checksum::Seed;
use crate::format::payload::{CHECKPOINT_LEN_MAX, LOST_LEN_MAX, SNAPSHOT_LEN_MAX};
use crate::format::record::DESCRIPTOR_LEN;
use crate::format::{BLOCK_BYTES, FIXED_BLOCKS, align8, block, block_offset};
use crate::repair::REPAIRS_MAX;
use duraft_core::{GroupId, Index, MEMBERSHIP_BYTES_MAX, NodeId, mix64};
use std::fmt;

/// Identity of a cluster: blocks and messages of another one are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Who a store belongs to. Written at bootstrap, compared at every open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node of the cluster.
    pub node: NodeId,
    /// Largest batch body of the cluster, in bytes.
    pub max_batch_bytes: u32,
}

/// What the store may know of the outside world: no clock and no randomness inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entropy {
    /// A number that no earlier open of this store was given, drawn at random.
    pub seed: u64,
    /// Wall clock in nanoseconds, written to headers for people to read.
    pub wallclock_ns: u64,
}

impl Entropy {
    /// A number derived from the seed and these words.
    pub(crate) fn derive(&self, words: &[u64]) -> u64 {
        words
            .iter()
            .fold(mix64(self.seed), |state, word| mix64(state ^ word))
    }
}

/// What to do when proven data cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnDamage {
    /// Open nothing for writing, report what is lost.
    #[default]
    Refuse,
    /// Write the damage down as durable state and open, so that peers can fill the gaps.
    RepairFromPeers,
    /// Give up what a group has lost: for a single node, or where no peer has it. The group's log ends
    /// before the first missing index, whatever survives behind it; later entries that may have been
    /// lost, and a later term or vote, are taken for never written. **Commands that were acknowledged
    /// are gone for good, and a node of a larger cluster that does this can lose them for all.**
    ///
    /// `range` must be what the damage report says of the group, see [`GroupDamage::loss`]: whoever
    /// accepts a loss has read what it is. Other damaged groups are opened as for
    /// [`OnDamage::RepairFromPeers`]. The log keeps a note of it ([`Repair`](crate::Repair)).
    ///
    /// [`GroupDamage::loss`]: crate::GroupDamage::loss
    AcceptLoss {
        /// The group.
        group: GroupId,
        /// First missing index and last index known of.
        range: (Index, Index),
    },
}

/// Leaves out one part of the format's defences, to show that the tests notice. Not for use.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ablation {
    /// Payload and body checksums are not compared.
    NoBodyChecksum,
    /// Blocks are taken for what their place says, whichever life of the slot wrote them: nonce,
    /// segment number, commit number and chain digest of a block are not compared.
    NoLifeNonce,
    /// Watermarks are not read: what is contiguous is the log.
    NoWatermark,
    /// The search for proof ends at the first block that is not valid.
    StopAtHole,
    /// Compaction may go past the newest snapshot.
    CompactUncovered,
    /// A block's header is believed unseen: only what it says it spans is summed.
    NoHeaderChecksum,
    /// Checksums are not seeded with the store's identity.
    NoStoreSeed,
    /// A sync that failed is tried again, and the second answer believed.
    RetrySync,
    /// The last block of a segment is left to the sync of the next one, which is of another file.
    NoSyncAtRoll,
    /// Commits without entries are written and not synced.
    ControlUnsynced,
    /// What is cut off is wiped where it stands before the cut is written down.
    WipeTruncated,
    /// A block may reach one too far, into the place of a mark.
    OneTooFar,
    /// Slots are used again before what freed them is proven.
    ReuseAtOnce,
    /// An open leaves blocks that nothing proves where they are, and counts on them.
    NoCopy,
    /// An open goes on in the segment that it finds, behind whatever is torn there.
    AppendInPlace,
    /// The first live segment may be the one about to begin.
    OneCheckpoint,
    /// The segment that an open begins does not say what is lost.
    ForgetDamage,
    /// Receipts and marks name no groups.
    NoTables,
    /// Every slot file of full length is taken for one that was filled.
    TrustSlots,
    /// The pipeline reports what it is about to write.
    ReportEarly,
    /// The pipeline reports what waits for the next commit with what was committed.
    ReportQueued,
    /// The pipeline reports a commit whose sync has failed.
    ReportFailed,
    /// Every commit proves itself at once, by a receipt of its own.
    ReceiptAlways,
}

/// How a store behaves. Sizes are bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalOptions {
    /// Size of a slot file: a multiple of 4 KiB from 16 KiB to 1 GiB. Fixed at bootstrap; an open
    /// goes on with what the store has.
    pub slot_bytes: u64,
    /// Slots the preparer keeps ready. Two of them are left for opens after crashes.
    pub slots_ready_min: usize,
    /// Most slot files.
    pub slots_max: usize,
    /// Most bytes of records in one group commit. One whole write always fits, see
    /// [`WalOptions::write_bytes_max`].
    pub commit_bytes_max: u64,
    /// Bytes of recent batches kept in memory for readers.
    pub cache_bytes_max: u64,
    /// A receipt is written when nothing was committed for this many ticks.
    pub receipt_idle_ticks: u64,
    /// A far mark rides along every so many commits.
    pub mark_every_commits: u64,
    /// Submissions that wait for the WAL thread: most bytes. One always fits.
    pub queue_bytes_max: u64,
    /// Submissions that wait for the WAL thread: most of them.
    pub queue_records_max: usize,
    /// Read sealed segments through a read-only map. Saves copies and calls; an unreadable page then
    /// ends the process instead of one read.
    pub map_sealed: bool,
    /// What to do when proven data cannot be read.
    pub policy: OnDamage,
    /// Weakens the store for tests of the tests.
    #[doc(hidden)]
    pub ablation: Option<Ablation>,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions {
            slot_bytes: 16 << 20,
            slots_ready_min: 3,
            slots_max: 4096,
            commit_bytes_max: 4 << 20,
            cache_bytes_max: 64 << 20,
            receipt_idle_ticks: 2,
            mark_every_commits: 64,
            queue_bytes_max: 32 << 20,
            queue_records_max: 1 << 16,
            map_sealed: false,
            policy: OnDamage::Refuse,
            ablation: None,
        }
    }
}

/// A field and the rule it breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionProblem {
    /// The field.
    pub field: &'static str,
    /// What must hold.
    pub rule: &'static str,
}

impl fmt::Display for OptionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.field, self.rule)
    }
}

const SLOT_BYTES_MIN: u64 = 16 << 10;
const SLOT_BYTES_MAX: u64 = 1 << 30;
const SLOTS_MIN: usize = 4;

/// Room in a segment's first block that each group may need: checkpoint, damage, and repairs.
const GROUP_RESERVE: u64 = ((2 + REPAIRS_MAX) * DESCRIPTOR_LEN
    + align8_const(CHECKPOINT_LEN_MAX)
    + align8_const(LOST_LEN_MAX)) as u64;

const fn align8_const(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// Bytes of records that one commit may hold in a store of this slot size and this many groups, such
/// that a new segment can hold them next to the checkpoint of every group.
pub(crate) fn records_bytes_max(slot_bytes: u64, groups: usize) -> u64 {
    let usable = slot_bytes.saturating_sub(block_offset(FIXED_BLOCKS));
    let fixed = (block::HEADER_LEN + DESCRIPTOR_LEN) as u64;
    usable.saturating_sub(fixed + groups as u64 * GROUP_RESERVE)
}

/// Bytes of records that a write may need at least: hard state, truncation, one batch of this size
/// and compaction; or hard state, snapshot and compaction. (A write with all of that in a store whose
/// slots are the smallest possible, of a membership that is the largest possible, is not provided for.)
fn one_write_bytes(max_batch_bytes: u32) -> u64 {
    let membership = align8(MEMBERSHIP_BYTES_MAX);
    let batch = 4 * DESCRIPTOR_LEN + align8(max_batch_bytes as usize) + membership;
    let snapshot = 3 * DESCRIPTOR_LEN + align8(SNAPSHOT_LEN_MAX) + membership;
    batch.max(snapshot) as u64
}

impl WalOptions {
    /// Every problem at once, none if the options can be used.
    pub fn validate(&self) -> Vec<OptionProblem> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, field: &'static str, rule: &'static str| {
            if !ok {
                problems.push(OptionProblem { field, rule });
            }
        };
        check(
            self.slot_bytes.is_multiple_of(BLOCK_BYTES as u64)
                && (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&self.slot_bytes),
            "slot_bytes",
            "a multiple of 4 KiB from 16 KiB to 1 GiB",
        );
        check(self.slots_max >= SLOTS_MIN, "slots_max", "at least 4");
        check(
            self.slots_ready_min >= 1 && self.slots_ready_min < self.slots_max,
            "slots_ready_min",
            "at least 1 and below slots_max",
        );
        check(self.commit_bytes_max >= 1, "commit_bytes_max", "at least 1");
        check(
            self.mark_every_commits >= 1,
            "mark_every_commits",
            "at least 1",
        );
        check(
            self.receipt_idle_ticks >= 1,
            "receipt_idle_ticks",
            "at least 1",
        );
        check(
            self.queue_records_max >= 1,
            "queue_records_max",
            "at least 1",
        );
        problems
    }

    /// Every problem of these options in a store of this identity and this many groups.
    pub fn validate_for(&self, identity: &StoreIdentity, groups: usize) -> Vec<OptionProblem> {
        let mut problems = self.validate();
        if one_write_bytes(identity.max_batch_bytes) > self.write_bytes_max(groups) {
            problems.push(OptionProblem {
                field: "slot_bytes",
                rule: "large enough for one batch of max_batch_bytes next to the checkpoint of \
                       every group",
            });
        }
        problems
    }

    /// Most bytes of records in one write or commit of a store with this many groups. A record costs
    /// 64 bytes and, for a batch, its body rounded up to 8 bytes; a compaction also the membership.
    pub fn write_bytes_max(&self, groups: usize) -> u64 {
        records_bytes_max(self.slot_bytes, groups)
    }

    /// The checksum family of a store with this identity.
    pub(crate) fn seed(&self, store: &[u8; 16]) -> Seed {
        if self.without(Ablation::NoStoreSeed) {
            Seed::of_any()
        } else {
            Seed::of(store)
        }
    }

    pub(crate) fn without(&self, ablation: Ablation) -> bool {
        self.ablation == Some(ablation)
    }
}
