//! Torn or corrupt: which segment is the tail, and what must have been durable.
//!
//! Of a segment that is newer than every other, `c` is the last commit of its unbroken run of blocks
//! and `W` the greatest watermark of any header or mark in its slot. `W <= c`: what is missing was
//! never acknowledged or cannot be proven so, and is dropped without a word. `W > c`: the commits
//! between were durable; they are damage, never dropped. [`TABLE`] says so for every case.

use super::scan::{Item, Lens, Seen, TailScan};
use super::survey::{SlotImage, unreadable_from};
use crate::errors::{Hole, OpenError};
use crate::format::header::{SegmentEnd, SegmentHeader};
use crate::format::{FIRST_COMMIT_BLOCK, MARK_A};
use crate::options::Ablation;

/// What the newest blocks prove, against what can be read of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// No commit of the segment is proven.
    Nothing,
    /// What is proven can be read.
    Within,
    /// More is proven than can be read.
    Beyond,
}

/// What is seen of a segment that may be the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// Its header can be read.
    pub(crate) header: bool,
    /// Its first block can be read.
    pub(crate) first_block: bool,
    pub(crate) proof: Proof,
}

/// What the segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Its beginning was never durable. Its numbers are burned, its slot is free.
    Abandoned,
    /// The tail; nothing is missing.
    Tail,
    /// The tail; proven commits are missing.
    DamagedTail,
    /// A segment with proven commits whose header is lost.
    LostSegment,
}

/// A row of the decision table: the facts it applies to, and what follows.
pub(crate) struct Row {
    header: &'static [bool],
    first_block: &'static [bool],
    proof: &'static [Proof],
    verdict: Verdict,
}

const ANY: &[bool] = &[false, true];

/// Exactly one row applies to any facts; a test goes through all of them.
pub(crate) const TABLE: &[Row] = &[
    // Header and first block are one write: without the block and without proof it was cut short.
    Row {
        header: &[true],
        first_block: &[false],
        proof: &[Proof::Nothing],
        verdict: Verdict::Abandoned,
    },
    // The first block was durable and is gone.
    Row {
        header: &[true],
        first_block: &[false],
        proof: &[Proof::Within, Proof::Beyond],
        verdict: Verdict::DamagedTail,
    },
    // Everything proven is there; what follows the unbroken run is torn.
    Row {
        header: &[true],
        first_block: &[true],
        proof: &[Proof::Nothing, Proof::Within],
        verdict: Verdict::Tail,
    },
    // Something proven is not there.
    Row {
        header: &[true],
        first_block: &[true],
        proof: &[Proof::Beyond],
        verdict: Verdict::DamagedTail,
    },
    // Blocks of a newer life under no header of it: its first write was cut short.
    Row {
        header: &[false],
        first_block: ANY,
        proof: &[Proof::Nothing, Proof::Within],
        verdict: Verdict::Abandoned,
    },
    // The same, but they prove that it had been durable: its header is lost.
    Row {
        header: &[false],
        first_block: ANY,
        proof: &[Proof::Beyond],
        verdict: Verdict::LostSegment,
    },
];

pub(crate) fn verdict(facts: Facts) -> Verdict {
    TABLE
        .iter()
        .find(|row| row.applies(facts))
        .expect("a row of the table applies to any facts")
        .verdict
}

impl Row {
    fn applies(&self, facts: Facts) -> bool {
        self.header.contains(&facts.header)
            && self.first_block.contains(&facts.first_block)
            && self.proof.contains(&facts.proof)
    }
}

/// A segment of the chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Place in the survey.
    pub(crate) image: usize,
    pub(crate) header: SegmentHeader,
    /// The end that its successor declares. `None` for the tail, and where the successor is lost.
    pub(crate) declared: Option<SegmentEnd>,
    /// Between this segment and the next older one of the chain, segments are wholly lost; the
    /// newest of them is this one.
    pub(crate) lost_before: Option<LostSegment>,
}

/// A segment of which only the name is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LostSegment {
    pub(crate) seq: u64,
    pub(crate) last_commit: Option<u64>,
}

/// What recovery goes by.
pub(crate) struct Layout {
    /// Oldest first; the last one is the tail.
    pub(crate) parts: Vec<Part>,
    pub(crate) tail: TailScan,
    /// A segment newer than the tail that is lost.
    pub(crate) lost_after: Option<Hole>,
    pub(crate) seen: Seen,
    /// Images that show blocks of this store, or a believable header: filled once.
    pub(crate) filled: Vec<bool>,
    /// Segments that never came to be.
    pub(crate) abandoned: u64,
    /// Images that the log would be found in, were the tail not there: nothing proves the tail yet.
    pub(crate) fallback: Vec<usize>,
    /// Images with anything newer than the tail. Where something is lost, they may be all that proves
    /// it.
    pub(crate) evidence: Vec<usize>,
}

/// Decides. `None`: there is no tail, so no checkpoint.
pub(crate) fn decide(
    lens: &Lens,
    images: &mut [SlotImage],
    tolerate: bool,
) -> Result<Option<Layout>, OpenError> {
    let mut seen = Seen::default();
    images
        .iter()
        .filter_map(SlotImage::segment)
        .for_each(|header| seen.segment_header(header));
    let mut candidates: Vec<usize> = (0..images.len())
        .filter(|i| images[*i].segment().is_some())
        .collect();
    candidates.sort_by_key(|i| images[*i].segment().map(SegmentHeader::age));
    let mut abandoned = 0;
    let mut found = None;
    // What newer segments prove of older ones, though they came to nothing themselves.
    let mut proven = 0;
    for image in candidates.into_iter().rev() {
        let (header, scan) = examine(lens, &mut images[image], proven, tolerate, &mut seen)?;
        let facts = Facts {
            header: true,
            first_block: scan.has_blocks(&header),
            proof: proof(&scan, &header),
        };
        match verdict(facts) {
            Verdict::Abandoned => {
                abandoned += 1;
                proven = proven.max(scan.watermark);
                images[image].unload();
            }
            Verdict::Tail | Verdict::DamagedTail => {
                found = Some((image, header, scan));
                break;
            }
            Verdict::LostSegment => unreachable!("only segments without a header are lost"),
        }
    }
    let Some((image, header, tail)) = found else {
        return Ok(None);
    };
    let Orphans {
        filled,
        lost: lost_after,
        newer: evidence,
    } = orphans(lens, images, &header, &tail, tolerate, &mut seen)?;
    let parts = chain(images, image, header);
    let fallback = if tail.watermark < header.base_commit {
        fallback(lens, images, &header, tolerate)?
    } else {
        Vec::new()
    };
    Ok(Some(Layout {
        parts,
        tail,
        lost_after,
        seen,
        filled,
        abandoned,
        fallback,
        evidence,
    }))
}

/// The chains that an open would find if the tail, and other segments that nothing proves, were not
/// there: after a kill they may be in the cache alone, and what they freed is needed without them.
fn fallback(
    lens: &Lens,
    images: &mut [SlotImage],
    tail: &SegmentHeader,
    tolerate: bool,
) -> Result<Vec<usize>, OpenError> {
    let mut older: Vec<usize> = (0..images.len())
        .filter(|i| {
            images[*i]
                .segment()
                .is_some_and(|header| header.age() < tail.age())
        })
        .collect();
    older.sort_by_key(|i| images[*i].segment().map(SegmentHeader::age));
    let mut needed = Vec::new();
    for image in older.into_iter().rev() {
        let unseen = &mut Seen::default();
        let (header, scan) = examine(lens, &mut images[image], 0, tolerate, unseen)?;
        let proven = scan.watermark >= header.base_commit;
        if proven || scan.has_blocks(&header) {
            needed.extend(chain(images, image, header).iter().map(|part| part.image));
        }
        if proven {
            break;
        }
    }
    Ok(needed)
}

fn examine(
    lens: &Lens,
    image: &mut SlotImage,
    proven: u64,
    tolerate: bool,
    seen: &mut Seen,
) -> Result<(SegmentHeader, TailScan), OpenError> {
    image.load(tolerate)?;
    let header = *image.segment().expect("candidates have a segment header");
    let mut scan = lens.scan_tail(&image.bytes, &header, proven, seen);
    let end = scan.items.iter().rev().find_map(|item| match item {
        Item::Block(header) => Some(header.block + header.blocks()),
        Item::Hole { .. } => None,
    });
    if unreadable_from(image, end.unwrap_or(FIRST_COMMIT_BLOCK))
        && scan.watermark <= scan.contiguous
    {
        // What the disk refuses to read is not torn: take it for a proven commit.
        let first = scan.contiguous.saturating_add(1);
        scan.items.push(Item::Hole { first, last: None });
        scan.watermark = first;
    }
    Ok((header, scan))
}

fn proof(scan: &TailScan, header: &SegmentHeader) -> Proof {
    if scan.watermark > scan.contiguous && scan.watermark >= header.base_commit {
        Proof::Beyond
    } else if scan.watermark >= header.base_commit {
        Proof::Within
    } else {
        Proof::Nothing
    }
}

/// What slots hold that are no part of the log.
struct Orphans {
    filled: Vec<bool>,
    lost: Option<Hole>,
    newer: Vec<usize>,
}

/// Looks for blocks newer than the tail in slots whose header does not know them.
fn orphans(
    lens: &Lens,
    images: &mut [SlotImage],
    tail: &SegmentHeader,
    scan: &TailScan,
    tolerate: bool,
    seen: &mut Seen,
) -> Result<Orphans, OpenError> {
    let mut filled = Vec::with_capacity(images.len());
    let mut lost = None;
    let mut newer = Vec::new();
    for (place, image) in images.iter_mut().enumerate() {
        if image.segment().is_some_and(|own| own.age() > tail.age()) {
            newer.push(place);
        }
        let headed = image.header.is_ok();
        let first = lens.header_at(&image.bytes, FIRST_COMMIT_BLOCK);
        // A segment begins with header, mark and first block in one write, of which any part may be
        // there alone.
        let newer_than_header = (MARK_A..=FIRST_COMMIT_BLOCK).any(|block| {
            lens.header_at(&image.bytes, block).is_some_and(|found| {
                let own = image.segment().is_some_and(|own| own.age() >= found.age());
                found.age() > tail.age() && !own
            })
        });
        if headed && !newer_than_header {
            filled.push(image.full_length);
            continue;
        }
        image.load(tolerate)?;
        let (any, watermark) = lens.orphan_watermark(&image.bytes, tail.age(), seen);
        let trusted = lens.ablation == Some(Ablation::TrustSlots);
        filled.push(image.full_length && (headed || any || trusted));
        if watermark > 0 && !newer.contains(&place) {
            newer.push(place);
        }
        image.unload();
        let facts = Facts {
            header: false,
            first_block: first.is_some(),
            proof: if watermark > scan.contiguous.max(scan.watermark) {
                Proof::Beyond
            } else {
                Proof::Nothing
            },
        };
        if verdict(facts) == Verdict::LostSegment {
            lost = Some(Hole {
                segment: seen.segment,
                slot: Some(image.slot),
                first: scan.contiguous.max(scan.watermark).saturating_add(1),
                last: None,
            });
        }
    }
    Ok(Orphans {
        filled,
        lost,
        newer,
    })
}

/// Follows the headers back from the tail to the first live segment.
fn chain(images: &[SlotImage], tail_image: usize, tail: SegmentHeader) -> Vec<Part> {
    let first_live = tail.first_live;
    let part = |image, header, declared| Part {
        image,
        header,
        declared,
        lost_before: None,
    };
    let mut parts = vec![part(tail_image, tail, None)];
    let mut header = tail;
    while header.seq > first_live {
        let named = header
            .previous
            // A forged name must not lead in a circle.
            .filter(|previous| previous.seq >= first_live && previous.seq < header.seq);
        let image =
            named.and_then(|end| find(images, |h| h.seq == end.seq && h.nonce == end.nonce));
        let (image, declared) = match image {
            Some(image) => (Some(image), named),
            None => {
                let seq = named.map_or(first_live, |end| end.seq);
                let lost = LostSegment {
                    seq,
                    last_commit: named.map(|end| end.commit),
                };
                parts.last_mut().expect("the tail is there").lost_before = Some(lost);
                // Go on with the next older one there is, as far as it proves itself.
                (newest_below(images, first_live, seq), None)
            }
        };
        let Some(image) = image else { break };
        header = *images[image].segment().expect("found by its header");
        parts.push(part(image, header, declared));
    }
    parts.reverse();
    parts
}

fn find(images: &[SlotImage], wanted: impl Fn(&SegmentHeader) -> bool) -> Option<usize> {
    images
        .iter()
        .position(|image| image.segment().is_some_and(&wanted))
}

fn newest_below(images: &[SlotImage], first_live: u64, seq: u64) -> Option<usize> {
    (0..images.len())
        .filter(|i| {
            images[*i]
                .segment()
                .is_some_and(|h| h.seq >= first_live && h.seq < seq)
        })
        .max_by_key(|i| images[*i].segment().map(SegmentHeader::age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_row_of_the_table_applies_to_any_facts() {
        // Two rows would make the order of the table decide, none would be a panic at recovery.
        for header in [false, true] {
            for first_block in [false, true] {
                for proof in [Proof::Nothing, Proof::Within, Proof::Beyond] {
                    let facts = Facts {
                        header,
                        first_block,
                        proof,
                    };
                    let rows = TABLE.iter().filter(|row| row.applies(facts)).count();
                    assert_eq!(rows, 1, "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn more_proven_than_readable_is_never_dropped_without_a_word() {
        for row in TABLE {
            if row.proof.contains(&Proof::Beyond) {
                assert!(matches!(
                    row.verdict,
                    Verdict::DamagedTail | Verdict::LostSegment
                ));
            }
        }
    }
}
