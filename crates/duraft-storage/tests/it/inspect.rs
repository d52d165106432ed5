//! Looking at a store: nothing changes, damage is what an open finds, and a node that writes meanwhile
//! is not taken for damage.

use crate::support::*;
use duraft_core::Position;
use duraft_disk::{Damage as Rot, Disk, DiskError, DiskFile, DiskLock, FaultDisk, Map, SplitMix64};
use duraft_storage::inspect::{BodyError, LogRecord, Settled, Sight, SlotUse, View};
use duraft_storage::{OnDamage, OpenError, Wal, WalOptions};
use parking_lot::Mutex;
use std::sync::Arc;

const LOOKS: usize = 8;

/// A log that goes on.
struct Life {
    wal: Wal,
    writer: Writer,
    end: Position,
    rng: SplitMix64,
    commits: u64,
}

impl Life {
    fn of(wal: Wal, seed: u64) -> Life {
        Life {
            wal,
            writer: Writer::new(GROUP),
            end: Position::START,
            rng: SplitMix64::new(seed),
            commits: 0,
        }
    }

    /// One commit; now and then everything before it is compacted, so that slots are used again.
    fn commit(&mut self) {
        self.commits += 1;
        let len = 1 + (self.rng.next() % 100) as usize;
        let batch = batch(GROUP, &self.end, 1, 2, len, self.commits as u8);
        self.end = batch.header.position();
        let mut submissions = Vec::new();
        if self.commits == 1 {
            submissions.push(self.writer.vote(1, None));
        }
        submissions.push(self.writer.append(vec![batch]));
        self.wal.commit(&submissions).expect("committed");
        if self.commits.is_multiple_of(5) {
            let compact = self.writer.compact(self.end);
            self.wal.commit(&[compact]).expect("committed");
        }
        self.wal.preparer().turn().expect("a slot");
    }
}

fn small() -> WalOptions {
    WalOptions {
        slot_bytes: 32 << 10,
        slots_max: 12,
        ..options()
    }
}

fn lived(commits: u64) -> (FaultDisk, Life) {
    let (disk, wal) = fresh(&small());
    let mut life = Life::of(wal, 9);
    (0..commits).for_each(|_| life.commit());
    (disk, life)
}

#[test]
fn a_look_at_a_store_in_use_sees_the_log_and_changes_nothing() {
    let (disk, life) = lived(33);
    let mutations = disk.mutations();
    let (mut view, settled) = View::settled(&disk, LOOKS).expect("a look");
    assert_eq!(settled, Settled::Sound);
    let group = &view.groups[&GROUP];
    assert_eq!(group.end, life.end);
    assert_eq!(group.start.index().0, 60, "compacted after commit 30");
    let stored: Vec<_> = read_all(&life.wal, GROUP);
    assert_eq!(group.batches.len(), stored.len());
    for (seen, stored) in group.batches.iter().zip(&stored) {
        assert_eq!(seen.header, stored.header);
        assert_eq!(view.body(seen).expect("its body"), stored.body);
    }
    assert!(
        view.slots
            .iter()
            .any(|slot| matches!(slot.state, SlotUse::Live(_)))
    );
    assert!(
        view.slots
            .iter()
            .any(|slot| matches!(slot.state, SlotUse::Spent(_)))
    );
    let (mut blocks, mut ends, mut batches) = (0, 0, 0);
    let tail = view.tail.expect("a tail");
    view.walk(|sight| match sight {
        Sight::Block(block) => {
            blocks += 1;
            assert_eq!(block.proven, block.commit <= tail.proven);
        }
        Sight::Record(_, LogRecord::Batch { header, .. }, body) => {
            batches += 1;
            assert_eq!(body.len(), header.body_len as usize);
        }
        Sight::Record(_, LogRecord::CheckpointEnd { .. }, _) => ends += 1,
        Sight::Record(..) | Sight::Segment(_) => {}
        Sight::Hole(..) | Sight::Reused(_) => panic!("{sight:?}"),
    })
    .expect("a walk");
    assert!(blocks > batches && batches >= 6, "{blocks} {batches}");
    assert_eq!(ends, view.segments.len(), "each segment begins with one");
    assert_eq!(disk.mutations(), mutations, "nothing was changed");
}

#[test]
fn what_a_look_calls_damage_is_what_an_open_calls_damage() {
    // One flipped bit in each 512 bytes of each file: never missed, never invented.
    let (disk, life) = lived(23);
    drop(life);
    let mut names: Vec<String> = vec![String::from("STORE")];
    names.extend(
        disk.list("wal")
            .unwrap()
            .iter()
            .map(|name| format!("wal/{name}")),
    );
    let mut rng = SplitMix64::new(4);
    let (mut bad, mut fine) = (0, 0);
    for name in names {
        for sector in 0..disk.sectors(&name).unwrap() {
            let struck = disk.fork();
            let drawn = rng.next();
            let flip = Rot::FlipBit {
                offset: sector * 512 + drawn % 512,
                bit: (drawn >> 32) as u8 % 8,
            };
            struck.damage(&name, &flip).unwrap();
            let (view, settled) = View::settled(&struck, LOOKS).expect("a look");
            let policy = OnDamage::RepairFromPeers;
            let opened = reopen(&struck, &WalOptions { policy, ..small() }, 3);
            let (_, recovered) = opened.expect("one bad sector");
            let at = format!("{name}, sector {sector}");
            assert_eq!(view.damage, recovered.damage, "{at}");
            assert_eq!(view.holes, recovered.report.holes, "{at}");
            let sound = recovered.report.holes.is_empty() && view.store.whole;
            assert_eq!(view.store.whole, name != "STORE", "{at}");
            let expected = if sound {
                Settled::Sound
            } else {
                Settled::Confirmed
            };
            assert_eq!(settled, expected, "{at}");
            if sound { fine += 1 } else { bad += 1 }
        }
    }
    assert!(bad > 30 && fine > 100, "{bad} bad, {fine} fine");
}

#[test]
fn a_write_that_was_cut_short_is_no_damage() {
    let (disk, mut life) = lived(7);
    let (before, _) = View::settled(&disk, LOOKS).expect("a look");
    let tail = before.tail.expect("a tail");
    assert_eq!(tail.torn, None);
    // The last block of the log: its header stays, its payload goes.
    life.commit();
    let (after, _) = View::settled(&disk, LOOKS).expect("a look");
    let last = after.groups[&GROUP]
        .batches
        .last()
        .copied()
        .expect("a batch");
    drop(life);
    let flip = Rot::FlipBit {
        offset: last.body_at,
        bit: 3,
    };
    disk.damage(&format!("wal/{:08x}.slot", last.slot), &flip)
        .unwrap();
    let (torn, settled) = View::settled(&disk, LOOKS).expect("a look");
    assert_eq!(settled, Settled::Sound);
    let found = torn.tail.expect("a tail");
    assert_eq!(found.torn.map(|(commit, _)| commit), Some(last.commit));
    assert_eq!(torn.groups[&GROUP].end, before.groups[&GROUP].end);
}

/// A disk on which somebody else is at work between any two blocks that are read.
struct Busy {
    below: FaultDisk,
    work: Arc<Mutex<dyn FnMut() + Send>>,
}

struct BusyFile {
    below: Arc<dyn DiskFile>,
    work: Arc<Mutex<dyn FnMut() + Send>>,
}

impl Disk for Busy {
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        (self.work.lock())();
        self.below.list(dir)
    }
    fn open(&self, name: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        Ok(Arc::new(BusyFile {
            below: self.below.open(name)?,
            work: Arc::clone(&self.work),
        }))
    }
    fn create_dir(&self, _: &str) -> Result<(), DiskError> {
        unreachable!("a look makes nothing")
    }
    fn create(&self, _: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        unreachable!("a look makes nothing")
    }
    fn rename(&self, _: &str, _: &str) -> Result<(), DiskError> {
        unreachable!("a look renames nothing")
    }
    fn remove(&self, _: &str) -> Result<(), DiskError> {
        unreachable!("a look removes nothing")
    }
    fn sync_dir(&self, _: &str) -> Result<(), DiskError> {
        unreachable!("a look syncs nothing")
    }
    fn lock(&self, _: &str) -> Result<Box<dyn DiskLock>, DiskError> {
        unreachable!("a look locks nothing")
    }
    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.below.free_bytes()
    }
}

impl DiskFile for BusyFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.below.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        let mut done = 0;
        for block in buf.chunks_mut(4096) {
            (self.work.lock())();
            done += self.below.read_at(block, offset + done as u64)?;
        }
        Ok(done)
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<(), DiskError> {
        unreachable!("a look writes nothing")
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        unreachable!("a look syncs nothing")
    }
    fn sync_all(&self) -> Result<(), DiskError> {
        unreachable!("a look syncs nothing")
    }
    fn fill_zero(&self, _: u64) -> Result<(), DiskError> {
        unreachable!("a look writes nothing")
    }
    fn map(&self) -> Result<Option<Map>, DiskError> {
        Ok(None)
    }
}

/// A disk whose log goes on by a commit now and then while it is read, `budget` in all.
fn busy(disk: &FaultDisk, life: Life, every: u64, budget: u64) -> Busy {
    let mut life = life;
    let mut rng = SplitMix64::new(every);
    let mut left = budget;
    let work = move || {
        if left > 0 && rng.next().is_multiple_of(every) {
            left -= 1;
            life.commit();
        }
    };
    Busy {
        below: disk.clone(),
        work: Arc::new(Mutex::new(work)),
    }
}

#[test]
fn a_store_that_is_written_while_it_is_read_is_not_called_damaged() {
    // Slots of eight blocks and a commit for every few blocks read: far worse than any real store.
    let (mut alone_wrong, mut restless) = (0, 0);
    for every in 2..40 {
        let (disk, life) = lived(13);
        let busy = busy(&disk, life, every, 100);
        if let Ok(alone) = View::take(&busy)
            && !alone.is_sound()
        {
            alone_wrong += 1;
        }
        let (_, settled) = match View::settled(&busy, 60) {
            Ok(found) => found,
            Err(error) => panic!("one commit for {every} blocks: {error}"),
        };
        assert_ne!(settled, Settled::Confirmed, "one commit for {every} blocks");
        restless += u32::from(settled == Settled::Restless);
    }
    // What this test would not show if the disturbance were too mild: a single look does go wrong.
    assert!(alone_wrong > 5, "{alone_wrong} single looks were wrong");
    assert_eq!(restless, 0, "the writer stops after 100 commits");
}

#[test]
fn a_segment_whose_slot_is_used_anew_after_the_look_is_called_reused() {
    let (disk, mut life) = lived(13);
    let (mut view, _) = View::settled(&disk, LOOKS).expect("a look");
    let batches = view.groups[&GROUP].batches.clone();
    (0..60).for_each(|_| life.commit());
    let (mut reused, mut seen) = (0, 0);
    view.walk(|sight| match sight {
        Sight::Reused(_) => reused += 1,
        Sight::Segment(_) => seen += 1,
        Sight::Block(_) | Sight::Record(..) | Sight::Hole(..) => {}
    })
    .expect("a walk along what is left");
    assert_eq!((reused, seen), (view.segments.len(), 0));
    let mut gone = 0;
    for batch in &batches {
        match view.body(batch) {
            // Where its bytes happen to stand still.
            Ok(_) => {}
            Err(BodyError::Reused { segment, .. }) => {
                assert_eq!(segment, batch.segment);
                gone += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(gone > 0);
}

#[test]
fn damage_is_found_while_the_store_is_written() {
    let (disk, life) = lived(11);
    let found = View::take(&disk).expect("a look");
    let batch = found.groups[&GROUP].batches[0];
    let slot = format!("wal/{:08x}.slot", batch.slot);
    let flip = Rot::FlipBit {
        offset: batch.body_at + 9,
        bit: 1,
    };
    disk.damage(&slot, &flip).unwrap();
    // Too few commits for the bad segment to be dropped by compaction.
    let busy = busy(&disk, life, 7, 3);
    let (view, settled) = View::settled(&busy, 60).expect("a look");
    assert_eq!(settled, Settled::Confirmed);
    assert_eq!(
        view.holes.first().map(|hole| hole.first),
        Some(batch.commit)
    );
}

#[test]
fn a_folder_without_a_store_is_told_from_a_store_that_cannot_be_read() {
    let looked = View::settled(&disk(), LOOKS);
    assert!(matches!(looked.err(), Some(OpenError::NoStore)));
    let (disk, _life) = lived(3);
    for sector in 0..disk.sectors("STORE").unwrap() {
        disk.damage("STORE", &Rot::ZeroSector { sector }).unwrap();
    }
    let looked = View::settled(&disk, LOOKS);
    assert!(matches!(looked.err(), Some(OpenError::StoreFile(_))));
}
