//! The log: `docs/wal-format.md`, from "Files" to "Opening".

use super::effects::Record;
use super::places::Tables;
use super::records::{Group, Place};
use super::sums::crc32;
use std::collections::BTreeMap;

const BLOCK: usize = 4096;
const EMPTY: u64 = 0x6475_7261_6674_3031;

const RECEIPT: u64 = 1;
const FENCE: u64 = 4;
const MARK: u64 = 8;

/// Why a store is not read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// There is none.
    NoStore,
    /// Durable records cannot be read.
    Damaged(String),
}

fn damaged<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Damaged(what.into()))
}

/// A store as its files tell it.
#[derive(Clone, Debug)]
pub struct Store {
    /// Cluster identity.
    pub cluster: Vec<u8>,
    /// Store identity.
    pub identity: Vec<u8>,
    /// The node.
    pub node: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Largest batch body.
    pub max_batch_bytes: u64,
    /// Wall clock of the bootstrap.
    pub made_at: u64,
    /// Every record of the chain, block by block, as a line.
    pub lines: Vec<String>,
    /// The groups.
    pub groups: BTreeMap<u64, Group>,
}

/// A segment header that counts.
#[derive(Clone, Debug)]
struct Segment {
    nonce: u64,
    number: u64,
    generation: u64,
    first_live: u64,
    first_commit: u64,
    previous: Option<End>,
    slot: u64,
    clock: u64,
}

/// The declared end of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    number: u64,
    nonce: u64,
    block: u64,
    commit: u64,
    sum: u64,
}

/// A block header that counts.
#[derive(Clone, Debug)]
struct Head {
    nonce: u64,
    segment: u64,
    generation: u64,
    commit: u64,
    watermark: u64,
    flags: u64,
    before: u64,
    sum: u64,
    payload: usize,
    records: usize,
    at: usize,
}

impl Head {
    /// Bytes, rounded up to whole blocks.
    fn bytes(&self) -> usize {
        (64 + 64 * self.records + self.payload).next_multiple_of(BLOCK)
    }
}

struct Slot {
    bytes: Vec<u8>,
    segment: Option<Segment>,
    free: bool,
}

struct Reader<'a> {
    tables: &'a Tables,
    identity: Vec<u8>,
    slots: Vec<Slot>,
}

impl Store {
    /// Reads the file `STORE` and the slots, which are given by name and content.
    pub fn read(
        tables: &Tables,
        store: Option<&[u8]>,
        slots: &[(String, Vec<u8>)],
    ) -> Result<Store, Trouble> {
        let Some(bytes) = store else {
            return Err(Trouble::NoStore);
        };
        let layout = &tables.store;
        let good = |copy: &&[u8]| {
            copy.len() == BLOCK
                && copy.starts_with(&layout.magic)
                && layout.get(copy, "sum") == u64::from(crc32(&[&copy[..BLOCK - 4]]))
        };
        let Some(copy) = bytes.chunks(BLOCK).take(2).find(good) else {
            return damaged("both copies of STORE");
        };
        if layout.get(copy, "major") != 1 || layout.get(copy, "features") != 0 {
            return damaged("a newer format");
        }
        if layout.get(copy, "shift") != 12 || layout.get(copy, "sums") != 1 {
            return damaged("another block size or checksum");
        }
        let mut found = Store {
            cluster: layout.raw(copy, "cluster").to_vec(),
            identity: layout.raw(copy, "store").to_vec(),
            node: layout.get(copy, "node"),
            slot_bytes: layout.get(copy, "slot bytes"),
            max_batch_bytes: layout.get(copy, "batch"),
            made_at: layout.get(copy, "clock"),
            lines: Vec::new(),
            groups: BTreeMap::new(),
        };
        let mut reader = Reader {
            tables,
            identity: found.identity.clone(),
            slots: Vec::new(),
        };
        for (name, bytes) in slots {
            let number = u64::from_str_radix(name.trim_end_matches(".slot"), 16);
            let Ok(number) = number else { continue };
            if bytes.len() as u64 == found.slot_bytes {
                let slot = reader.slot(number, bytes.clone());
                reader.slots.push(slot);
            }
        }
        reader.replay(&mut found)?;
        Ok(found)
    }
}

impl Reader<'_> {
    fn seeded(&self, pieces: &[&[u8]]) -> u64 {
        let mut all = vec![&self.identity[..]];
        all.extend(pieces);
        crc32(&all).into()
    }

    fn slot(&self, number: u64, bytes: Vec<u8>) -> Slot {
        let layout = &self.tables.segment;
        let first = &bytes[..BLOCK];
        let summed = layout.get(first, "sum") == self.seeded(&[&first[..BLOCK - 4]]);
        let at_home = layout.get(first, "slot") == number;
        let free = summed && at_home && first.starts_with(b"DSF1");
        let counts = summed
            && at_home
            && first.starts_with(&layout.magic)
            && layout.raw(first, "store") == self.identity
            && layout.get(first, "blocks") == (bytes.len() / BLOCK) as u64
            && layout.get(first, "nonce") != 0
            && layout.get(first, "major") == 1
            && layout.get(first, "shift") == 12
            && layout.get(first, "sums") == 1
            && layout.get(first, "features") == 0;
        let get = |name| layout.get(first, name);
        let segment = counts.then(|| Segment {
            nonce: get("nonce"),
            number: get("segment"),
            generation: get("generation"),
            first_live: get("first live"),
            first_commit: get("first commit"),
            slot: number,
            clock: get("clock"),
            previous: (get("previous nonce") != 0).then(|| End {
                number: get("previous"),
                nonce: get("previous nonce"),
                block: get("previous block"),
                commit: get("previous commit"),
                sum: get("previous sum"),
            }),
        });
        Slot {
            bytes,
            segment,
            free,
        }
    }

    /// A block header that is whole and names its own place.
    fn head(&self, slot: &[u8], block: usize) -> Option<Head> {
        let layout = &self.tables.block;
        let bytes = slot.get(block * BLOCK..(block + 1) * BLOCK)?;
        let good = bytes.starts_with(&layout.magic)
            && layout.get(bytes, "sum") == self.seeded(&[&bytes[..60]])
            && layout.get(bytes, "block") == block as u64;
        let size = |name| usize::try_from(layout.get(bytes, name)).ok();
        good.then_some(Head {
            nonce: layout.get(bytes, "nonce"),
            segment: layout.get(bytes, "segment"),
            generation: layout.get(bytes, "generation"),
            commit: layout.get(bytes, "commit"),
            watermark: layout.get(bytes, "watermark"),
            flags: layout.get(bytes, "flags"),
            before: layout.get(bytes, "before"),
            sum: layout.get(bytes, "sum"),
            payload: size("payload")?,
            records: size("records")?,
            at: block * BLOCK,
        })
    }

    /// Directory, payloads and each descriptor.
    fn is_whole(&self, slot: &[u8], head: &Head) -> bool {
        let layout = &self.tables.block;
        let Some(block) = slot.get(head.at..head.at + head.bytes()) else {
            return false;
        };
        let (directory, rest) = block[64..].split_at(64 * head.records);
        let parts: Vec<&[u8]> = directory.chunks(64).map(|d| &d[..60]).collect();
        let own = &self.tables.descriptor;
        let described = directory
            .chunks(64)
            .all(|d| own.get(d, "sum") == u64::from(crc32(&[&d[..56]])));
        described
            && layout.get(block, "directory sum") == self.seeded(&parts)
            && layout.get(block, "payload sum") == self.seeded(&[&rest[..head.payload]])
    }

    /// The unbroken run of a segment's blocks, up to this block.
    fn run(&self, slot: &Slot, segment: &Segment, until: u64) -> Vec<Head> {
        let mut run = Vec::new();
        let mut block = 2;
        let mut commit = segment.first_commit;
        let mut before = segment.previous.map_or(0, |end| end.sum);
        while (block as u64) < until {
            let Some(head) = self.head(&slot.bytes, block) else {
                break;
            };
            let next = block + head.bytes() / BLOCK;
            let fits = head.nonce == segment.nonce
                && head.segment == segment.number
                && head.flags & MARK == 0
                && head.commit == commit
                && head.before == before
                && next < slot.bytes.len() / BLOCK;
            if !fits || !self.is_whole(&slot.bytes, &head) {
                break;
            }
            (block, commit, before) = (next, commit + 1, head.sum);
            run.push(head);
        }
        run
    }

    /// The greatest watermark of this life in the slot.
    fn watermark(&self, slot: &Slot, segment: &Segment) -> u64 {
        let blocks = 1..slot.bytes.len() / BLOCK;
        let heads = blocks.filter_map(|block| self.head(&slot.bytes, block));
        let own = heads.filter(|h| h.nonce == segment.nonce && h.segment == segment.number);
        let proven = segment.previous.map_or(0, |end| end.commit);
        own.map(|head| head.watermark).fold(proven, u64::max)
    }

    /// The tail: its slot, its run, and the last commit that is known to have been durable.
    fn tail(&self) -> Result<(usize, Vec<Head>, u64), Trouble> {
        let mut newest: Vec<(u64, u64, usize)> = Vec::new();
        for (place, slot) in self.slots.iter().enumerate() {
            let age = slot.segment.as_ref().map(|s| (s.generation, s.number));
            newest.extend(age.map(|(generation, number)| (generation, number, place)));
        }
        newest.sort_unstable();
        let mut carried = 0;
        for (_, _, place) in newest.into_iter().rev() {
            let slot = &self.slots[place];
            let Some(segment) = &slot.segment else {
                continue;
            };
            let last_block = (slot.bytes.len() / BLOCK - 1) as u64;
            let run = self.run(slot, segment, last_block);
            let c = run
                .last()
                .map_or(segment.first_commit.saturating_sub(1), |head| head.commit);
            let w = self.watermark(slot, segment).max(carried);
            if run.is_empty() && w < segment.first_commit {
                carried = w;
            } else if w > c || run.is_empty() {
                return damaged(format!("segment {}: W {w}, c {c}", segment.number));
            } else {
                return Ok((place, run, c.max(w)));
            }
        }
        damaged("no segment")
    }

    /// Slots whose header does not know of newer blocks in them: do these prove more than is there?
    fn look_for_lost(&self, tail: &Segment, reached: u64) -> Result<(), Trouble> {
        let age = (tail.generation, tail.number);
        for slot in &self.slots {
            let own = slot.segment.as_ref().map(|s| (s.generation, s.number));
            let newer = |head: &Head| {
                let found = (head.generation, head.segment);
                found > age && own.is_none_or(|own| own < found)
            };
            let begins = (1..=2).filter_map(|block| self.head(&slot.bytes, block));
            if (own.is_some() || slot.free) && !begins.into_iter().any(|head| newer(&head)) {
                continue;
            }
            let blocks = 1..slot.bytes.len() / BLOCK;
            let heads = blocks.filter_map(|block| self.head(&slot.bytes, block));
            let later = heads.filter(|head| (head.generation, head.segment) > age);
            if later.map(|head| head.watermark).max().unwrap_or(0) > reached {
                return damaged("a newer segment is lost");
            }
        }
        Ok(())
    }

    fn replay(&self, found: &mut Store) -> Result<(), Trouble> {
        let (place, run, reached) = self.tail()?;
        let Some(tail) = self.slots[place].segment.clone() else {
            return damaged("no segment");
        };
        self.look_for_lost(&tail, reached)?;
        let mut chain = vec![(place, run)];
        let mut segment = tail.clone();
        while segment.number > tail.first_live {
            let Some(end) = segment.previous else {
                return damaged("the chain ends early");
            };
            let named = |slot: &Slot| {
                let own = slot.segment.as_ref();
                own.is_some_and(|s| s.number == end.number && s.nonce == end.nonce)
            };
            let Some(place) = self.slots.iter().position(named) else {
                return damaged(format!("segment {} is gone", end.number));
            };
            let slot = &self.slots[place];
            let Some(before) = slot.segment.clone() else {
                return damaged("no segment");
            };
            let run = self.run(slot, &before, end.block);
            let reaches = run.last().is_some_and(|head| {
                let block = ((head.at + head.bytes()) / BLOCK) as u64;
                (block, head.commit, head.sum) == (end.block, end.commit, end.sum)
            });
            if !reaches {
                return damaged(format!("segment {} does not reach its end", end.number));
            }
            chain.push((place, run));
            segment = before;
        }
        for (place, run) in chain.into_iter().rev() {
            let slot = &self.slots[place];
            if let Some(segment) = &slot.segment {
                found.lines.push(format!(
                    "segment {} in slot {} of open {} at {} needs {} begins with {}",
                    segment.number,
                    segment.slot,
                    segment.generation,
                    segment.clock,
                    segment.first_live,
                    segment.first_commit
                ));
            }
            for head in run {
                self.block(&slot.bytes, &head, found)?;
            }
        }
        for (group, state) in &found.groups {
            if state.damaged || !state.is_whole() {
                return damaged(format!("group {group} is not whole"));
            }
        }
        Ok(())
    }

    fn block(&self, slot: &[u8], head: &Head, found: &mut Store) -> Result<(), Trouble> {
        let receipt = head.flags & RECEIPT != 0;
        let fence = head.flags & FENCE != 0;
        found.lines.push(format!(
            "commit {} at {} watermark {} of open {} receipt {receipt} fence {fence}",
            head.commit, head.at, head.watermark, head.generation
        ));
        let layout = &self.tables.descriptor;
        let mut payload_at = head.at + 64 + 64 * head.records;
        for record in 0..head.records {
            let at = head.at + 64 + 64 * record;
            let descriptor = &slot[at..at + 64];
            let length = usize::try_from(layout.get(descriptor, "length")).unwrap_or(usize::MAX);
            if layout.get(descriptor, "position") != (payload_at / 8) as u64 {
                return damaged(format!("position of a record in commit {}", head.commit));
            }
            let payload = slot.get(payload_at..payload_at.saturating_add(length));
            let Some(payload) = payload else {
                return damaged("a payload that is too long");
            };
            if layout.get(descriptor, "body sum") != u64::from(crc32(&[payload])) {
                return damaged("a payload's checksum");
            }
            let record = Record {
                tables: self.tables,
                descriptor,
                payload,
            };
            record.take_in(found).or_else(damaged)?;
            payload_at += length.next_multiple_of(8);
        }
        Ok(())
    }
}

/// The position of the empty log.
#[must_use]
pub fn empty() -> Place {
    Place {
        index: 0,
        term: 0,
        digest: EMPTY,
    }
}
