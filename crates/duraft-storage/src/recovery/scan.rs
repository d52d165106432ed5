//! Finds the blocks of a segment, the proof of how far it must reach, and the holes.

use crate::format::block::{self, BlockHeader, Flags};
use crate::format::checksum::Seed;
use crate::format::header::{SegmentEnd, SegmentHeader};
use crate::format::{FIRST_COMMIT_BLOCK, MARK_A, block_offset, memory_index};
use crate::options::Ablation;

/// How to look at slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lens {
    pub(crate) seed: Seed,
    pub(crate) slot_blocks: u32,
    pub(crate) ablation: Option<Ablation>,
}

/// The greatest numbers seen anywhere: nothing new may use them again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) generation: u32,
    pub(crate) segment: u64,
    pub(crate) commit: u64,
}

impl Seen {
    pub(crate) fn segment_header(&mut self, header: &SegmentHeader) {
        self.generation = self.generation.max(header.generation);
        self.segment = self.segment.max(header.seq);
        self.commit = self.commit.max(header.base_commit.saturating_sub(1));
    }

    pub(crate) fn block_header(&mut self, header: &BlockHeader) {
        self.generation = self.generation.max(header.generation);
        self.segment = self.segment.max(header.segment);
        self.commit = self.commit.max(header.commit).max(header.durable);
    }
}

/// What a segment consists of, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// A block that is believed.
    Block(BlockHeader),
    /// Commits that were durable and cannot be read; `last` is `None` where nobody knows.
    Hole { first: u64, last: Option<u64> },
}

/// What was found of a segment whose end no successor declares.
#[derive(Clone, Debug)]
pub(crate) struct TailScan {
    pub(crate) items: Vec<Item>,
    /// Last commit of the unbroken run from the segment's beginning: `c`.
    pub(crate) contiguous: u64,
    /// Last commit that anything in the slot proves to have been durable: `W`.
    pub(crate) watermark: u64,
    /// Marks whose table can be read.
    pub(crate) marks: Vec<BlockHeader>,
    /// The end after the last block that is proven, `None` where none is.
    pub(crate) proven_end: Option<SegmentEnd>,
}

impl TailScan {
    pub(crate) fn has_blocks(&self, header: &SegmentHeader) -> bool {
        self.contiguous >= header.base_commit
    }
}

impl Lens {
    fn without(&self, ablation: Ablation) -> bool {
        self.ablation == Some(ablation)
    }

    /// The header of a block of this store that stands at its own place.
    pub(crate) fn header_at(&self, bytes: &[u8], block: u32) -> Option<BlockHeader> {
        let at = memory_index(block_offset(block));
        let summed = !self.without(Ablation::NoHeaderChecksum);
        let header = BlockHeader::decode_with(bytes.get(at..)?, self.seed, summed).ok()?;
        (header.block == block).then_some(header)
    }

    /// A commit block whose header, directory and payloads are whole.
    fn block_at(&self, bytes: &[u8], block: u32) -> Option<BlockHeader> {
        let header = self.header_at(bytes, block)?;
        let last = u64::from(self.slot_blocks) - 1;
        if header.flags.has(Flags::MARK) || u64::from(block) + u64::from(header.blocks()) > last {
            return None;
        }
        self.is_whole(&header, bytes).then_some(header)
    }

    fn is_whole(&self, header: &BlockHeader, bytes: &[u8]) -> bool {
        let at = memory_index(block_offset(header.block));
        let payloads = !self.without(Ablation::NoBodyChecksum);
        block::check_content(header, self.seed, &bytes[at..], payloads).is_ok()
    }

    pub(super) fn belongs(&self, header: &BlockHeader, segment: &SegmentHeader) -> bool {
        self.without(Ablation::NoLifeNonce)
            || header.segment == segment.seq && header.nonce == segment.nonce
    }

    /// The unbroken run of blocks from the segment's beginning.
    fn prefix(&self, bytes: &[u8], segment: &SegmentHeader, until: u32) -> (Vec<Item>, u32, u64) {
        let mut items = Vec::new();
        let mut block = FIRST_COMMIT_BLOCK;
        let mut last = segment.base_commit.saturating_sub(1);
        let mut digest = segment.previous.map_or(0, |previous| previous.digest);
        while block < until {
            let Some(header) = self.block_at(bytes, block) else {
                break;
            };
            let continues =
                last.checked_add(1) == Some(header.commit) && header.previous_digest == digest;
            if !(self.belongs(&header, segment)
                && (continues || self.without(Ablation::NoLifeNonce)))
            {
                break;
            }
            block += header.blocks();
            last = header.commit;
            digest = header.sum;
            items.push(Item::Block(header));
        }
        (items, block, last)
    }

    /// Goes on behind a hole: blocks with numbers after `last` and up to `upto`, with the holes
    /// between them.
    fn survivors(
        &self,
        bytes: &[u8],
        segment: &SegmentHeader,
        blocks: std::ops::Range<u32>,
        mut last: u64,
        upto: u64,
        items: &mut Vec<Item>,
    ) -> u64 {
        let mut block = blocks.start;
        while block < blocks.end {
            let found = self.block_at(bytes, block).filter(|header| {
                self.belongs(header, segment) && header.commit > last && header.commit <= upto
            });
            let Some(header) = found else {
                block += 1;
                continue;
            };
            if header.commit > last + 1 {
                items.push(Item::Hole {
                    first: last + 1,
                    last: Some(header.commit - 1),
                });
            }
            block += header.blocks();
            last = header.commit;
            items.push(Item::Block(header));
        }
        last
    }

    /// The blocks of a segment whose successor declares its end.
    pub(crate) fn scan_sealed(
        &self,
        bytes: &[u8],
        segment: &SegmentHeader,
        end: &SegmentEnd,
    ) -> Vec<Item> {
        let until = end.block.min(self.slot_blocks - 1);
        let (mut items, block, mut last) = self.prefix(bytes, segment, until);
        if last < end.commit {
            last = self.survivors(bytes, segment, block..until, last, end.commit, &mut items);
        }
        if let Some(Item::Block(header)) = items.last()
            && header.commit == end.commit
            && header.sum != end.digest
        {
            // Its number alone does not make it the block that the successor knew.
            last = end.commit.saturating_sub(1);
            items.pop();
        }
        if last < end.commit {
            items.push(Item::Hole {
                first: last + 1,
                last: Some(end.commit),
            });
        }
        items
    }

    /// The blocks of a segment whose end nobody declares: the torn-or-corrupt question. `proven` is
    /// what newer segments prove.
    pub(crate) fn scan_tail(
        &self,
        bytes: &[u8],
        segment: &SegmentHeader,
        proven: u64,
        seen: &mut Seen,
    ) -> TailScan {
        let last_block = self.slot_blocks - 1;
        let (mut items, block, contiguous) = self.prefix(bytes, segment, last_block);
        // The header was written when what it says of the segment before was durable.
        let mut watermark = proven.max(segment.previous.map_or(0, |previous| previous.commit));
        for item in &items {
            if let Item::Block(header) = item {
                seen.block_header(header);
                watermark = watermark.max(header.durable);
            }
        }
        let mut marks = Vec::new();
        if !self.without(Ablation::StopAtHole) {
            for beyond in (block..last_block).chain([MARK_A, last_block]) {
                let Some(header) = self.header_at(bytes, beyond) else {
                    continue;
                };
                if !self.belongs(&header, segment) {
                    continue;
                }
                seen.block_header(&header);
                watermark = watermark.max(header.durable);
                if header.flags.has(Flags::MARK) && self.is_whole(&header, bytes) {
                    marks.push(header);
                }
            }
        }
        if self.without(Ablation::NoWatermark) {
            watermark = contiguous;
        }
        if watermark > contiguous {
            let upto = watermark.saturating_add(1);
            let blocks = block..last_block;
            let last = self.survivors(bytes, segment, blocks, contiguous, upto, &mut items);
            if last < watermark {
                items.push(Item::Hole {
                    first: last + 1,
                    last: Some(watermark),
                });
            }
        }
        let counted_on = [Ablation::NoCopy, Ablation::AppendInPlace];
        let proven_end = if counted_on.iter().any(|ablation| self.without(*ablation)) {
            end_of(segment, &items, u64::MAX)
        } else {
            end_of(segment, &items, watermark)
        };
        TailScan {
            items,
            contiguous,
            watermark,
            marks,
            proven_end,
        }
    }

    /// The last commit that blocks or marks of lives after `age` prove, in a slot whose header does
    /// not know them.
    pub(crate) fn orphan_watermark(
        &self,
        bytes: &[u8],
        age: (u32, u64),
        seen: &mut Seen,
    ) -> (bool, u64) {
        let mut any = false;
        let mut watermark = 0;
        for block in MARK_A..self.slot_blocks {
            let Some(header) = self.header_at(bytes, block) else {
                continue;
            };
            any = true;
            if header.age() > age {
                seen.block_header(&header);
                watermark = watermark.max(header.durable);
            }
        }
        if self.without(Ablation::NoWatermark) || self.without(Ablation::StopAtHole) {
            watermark = 0;
        }
        (any, watermark)
    }
}

/// The end after the last block with a number up to `watermark`.
pub(crate) fn end_of(
    segment: &SegmentHeader,
    items: &[Item],
    watermark: u64,
) -> Option<SegmentEnd> {
    let last = items.iter().rev().find_map(|item| match item {
        Item::Block(header) if header.commit <= watermark => Some(header),
        Item::Block(_) | Item::Hole { .. } => None,
    })?;
    Some(SegmentEnd {
        seq: segment.seq,
        nonce: segment.nonce,
        block: last.block + last.blocks(),
        commit: last.commit,
        digest: last.sum,
    })
}
