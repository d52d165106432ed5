//! What the records of a log make of a group, as the text says.

use super::sums::mix64;

/// A position: index, term, digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Index.
    pub index: u64,
    /// Term.
    pub term: u64,
    /// Chain digest.
    pub digest: u64,
}

/// A batch of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The group.
    pub group: u64,
    /// 1 commands, 2 membership, 3 no-op.
    pub kind: u8,
    /// How the commands are encoded.
    pub codec: u16,
    /// Entries.
    pub count: u32,
    /// First index.
    pub first: u64,
    /// Term.
    pub term: u64,
    /// Chain digest up to and including it.
    pub digest: u64,
    /// Checksum of the body.
    pub body_sum: u32,
    /// The body.
    pub body: Vec<u8>,
}

impl Batch {
    /// Where it ends.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            index: self.first + u64::from(self.count) - 1,
            term: self.term,
            digest: self.digest,
        }
    }

    /// Does it continue a log that ends there?
    #[must_use]
    pub fn follows(&self, end: &Place) -> bool {
        let words = [
            self.group,
            self.first,
            self.term,
            u64::from(self.kind) << 32 | u64::from(self.count),
            (self.body.len() as u64) << 32 | u64::from(self.body_sum),
        ];
        let digest = words
            .into_iter()
            .fold(end.digest, |state, word| mix64(state ^ word));
        self.first == end.index + 1 && self.term >= end.term && self.digest == digest
    }

    /// The commands of a commands body; `None` where its offsets do not describe it.
    #[must_use]
    pub fn commands(&self) -> Option<Vec<&[u8]>> {
        let table = 4 * self.count as usize;
        let (offsets, bytes) = self.body.split_at_checked(table)?;
        let mut from = 0;
        let mut commands = Vec::new();
        for offset in offsets.as_chunks::<4>().0 {
            let to = u32::from_le_bytes(*offset) as usize;
            commands.push(bytes.get(from..to)?);
            from = to;
        }
        (from == bytes.len()).then_some(commands)
    }
}

/// A snapshot that the log names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// What it covers.
    pub place: Place,
    /// Nonce of its file.
    pub nonce: u64,
    /// Length of its file.
    pub length: u64,
    /// Digest of its file.
    pub digest: u64,
    /// The membership there, encoded.
    pub membership: Vec<u8>,
}

/// A group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Term.
    pub term: u64,
    /// Vote in it.
    pub vote: Option<u64>,
    /// Everything up to here is compacted.
    pub start: Place,
    /// The end of the log.
    pub end: Place,
    /// The membership at the start, encoded.
    pub membership: Vec<u8>,
    /// The batches, in order.
    pub batches: Vec<Batch>,
    /// The latest snapshot.
    pub snapshot: Option<Snapshot>,
    /// A DAMAGE record stands.
    pub damaged: bool,
}

impl Group {
    /// What a checkpoint says of the log's ends: batches outside go, and all of them where the first
    /// or last one does not join.
    pub fn settle(&mut self, start: Place, end: Place) {
        self.batches
            .retain(|batch| batch.first > start.index && batch.place().index <= end.index);
        let strays = |batch: &Batch| {
            batch.place().index == end.index && batch.place() != end
                || batch.first == start.index + 1 && !batch.follows(&start)
        };
        if self.batches.iter().any(strays) {
            self.batches.clear();
        }
        (self.start, self.end) = (start, end);
    }

    /// Adds a batch at the end.
    pub fn append(&mut self, batch: Batch) -> Result<(), String> {
        if !batch.follows(&self.end) {
            return Err(format!(
                "batch {} does not follow {:?}",
                batch.first, self.end
            ));
        }
        self.end = batch.place();
        self.batches.push(batch);
        Ok(())
    }

    /// Drops what is behind this place.
    pub fn truncate(&mut self, keep: Place) {
        self.batches
            .retain(|batch| batch.place().index <= keep.index);
        self.end = keep;
    }

    /// Drops what is before this place.
    pub fn compact(&mut self, upto: Place, membership: Vec<u8>) {
        self.batches.retain(|batch| batch.first > upto.index);
        self.start = upto;
        self.membership = membership;
    }

    /// Does the log hold every index between its ends?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let mut at = self.start;
        for batch in &self.batches {
            if !batch.follows(&at) {
                return false;
            }
            at = batch.place();
        }
        at == self.end
    }
}
