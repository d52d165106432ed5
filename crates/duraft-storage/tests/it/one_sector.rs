//! One bad sector, wherever it is: a store whose peers are whole opens all the same, to be filled by
//! them. Every sector of every file of a store is damaged in turn, after each kind of life.

use crate::support::*;
use duraft_core::{GroupId, HardState, NodeId, Position, Term, Write};
use duraft_disk::{
    CacheAfter, Damage as Rot, Disk, DiskOp, Effect, Fault, FaultDisk, SplitMix64, Survival,
};
use duraft_storage::{JoinAs, OnDamage, Wal, WalOptions, bootstrap_joining};
use std::collections::BTreeMap;

const OTHER: GroupId = GroupId(8);

fn small() -> WalOptions {
    WalOptions {
        slot_bytes: 32 << 10,
        slots_max: 12,
        ..options()
    }
}

/// What one bad sector may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Bad {
    FlippedBit,
    Zeros,
    Stale,
    Unreadable,
}

impl Bad {
    const ALL: [Bad; 4] = [Bad::FlippedBit, Bad::Zeros, Bad::Stale, Bad::Unreadable];

    /// Does it. Returns whether anything is different now.
    fn strike(self, disk: &FaultDisk, file: &str, sector: u64, drawn: u64) -> bool {
        let rot = match self {
            Bad::FlippedBit => Rot::FlipBit {
                offset: sector * 512 + drawn % 512,
                bit: (drawn >> 32) as u8,
            },
            Bad::Zeros => Rot::ZeroSector { sector },
            Bad::Stale => Rot::StaleSector { sector },
            Bad::Unreadable => {
                disk.make_unreadable(file, sector * 512..sector * 512 + 512);
                return true;
            }
        };
        disk.damage(file, &rot).expect("a sector of the file")
    }
}

/// What came of it.
#[derive(Default, Debug)]
struct Outcome {
    struck: u64,
    healthy: u64,
    damaged: u64,
    /// Sectors that no policy opens: the moment, the file and the block, with the reason.
    closed: BTreeMap<(String, String, u64), String>,
}

/// A store that goes through lives, struck at every quiet moment.
struct Store {
    disk: FaultDisk,
    options: WalOptions,
    wal: Option<Wal>,
    writers: BTreeMap<GroupId, Writer>,
    ends: BTreeMap<GroupId, Position>,
    terms: u64,
    opens: u64,
    outcome: Outcome,
}

impl Store {
    /// A fresh store of two groups that nobody has opened.
    fn new() -> Store {
        let disk = disk();
        make(&disk, &small(), &[GROUP, OTHER]);
        Store::on(disk)
    }

    fn joining(join: JoinAs) -> Store {
        let disk = disk();
        let groups = [GROUP, OTHER];
        let made = bootstrap_joining(
            &shared(&disk),
            &identity(),
            &small(),
            entropy(1),
            &groups,
            join,
        );
        made.expect("a fresh disk");
        Store::on(disk)
    }

    fn on(disk: FaultDisk) -> Store {
        let mut store = Store {
            disk,
            options: small(),
            wal: None,
            writers: BTreeMap::new(),
            ends: [GROUP, OTHER].map(|group| (group, Position::START)).into(),
            terms: 0,
            opens: 0,
            outcome: Outcome::default(),
        };
        store.strike_everywhere("made");
        store
    }

    fn open(&mut self, moment: &str) {
        self.opens += 1;
        let (wal, _) = reopen(&self.disk, &self.options, self.opens).expect("it was whole");
        self.wal = Some(wal);
        self.writers = [GROUP, OTHER]
            .map(|group| (group, Writer::new(group)))
            .into();
        self.strike_everywhere(moment);
    }

    /// The power fails; only what is durable is left.
    fn fall(&mut self) {
        self.wal = None;
        self.disk = self.disk.power_loss(Survival::Nothing);
    }

    fn close(&mut self, moment: &str) {
        let wal = self.wal.take().expect("open");
        wal.close().expect("a working disk");
        self.strike_everywhere(moment);
        self.fall();
    }

    fn receipt(&mut self, moment: &str) {
        let wal = self.wal.as_mut().expect("open");
        wal.receipt().expect("a working disk");
        self.strike_everywhere(moment);
    }

    fn commit(&mut self, group: GroupId, moment: &str, fill: impl FnOnce(Write) -> Write) {
        let writer = self.writers.get_mut(&group).expect("a known group");
        let write = fill(writer.write());
        let submission = writer.submit(write);
        let wal = self.wal.as_mut().expect("open");
        wal.commit(&[submission]).expect("there is room");
        let mut preparer = wal.preparer();
        while preparer.turn().expect("there is room") {}
        self.strike_everywhere(moment);
    }

    fn vote(&mut self, group: GroupId) {
        self.terms += 1;
        let hard_state = HardState {
            term: Term(self.terms),
            vote: Some(NodeId(1)),
        };
        self.commit(group, "vote", |write| Write {
            hard_state: Some(hard_state),
            ..write
        });
    }

    fn append(&mut self, group: GroupId, len: usize) {
        let next = batch(group, &self.ends[&group], self.terms, 1, len, 3);
        self.ends.insert(group, next.header.position());
        let hard_state = HardState {
            term: Term(self.terms),
            vote: Some(NodeId(1)),
        };
        self.commit(group, "append", |write| Write {
            hard_state: Some(hard_state),
            append: vec![next],
            ..write
        });
    }

    /// A snapshot of all of the log, which goes.
    fn take(&mut self, group: GroupId) {
        let at = self.ends[&group];
        self.commit(group, "take", |write| Write {
            snapshot: Some(taken(at)),
            compact: Some(at),
            ..write
        });
    }

    /// A snapshot in the place of the log.
    fn install(&mut self, group: GroupId) {
        let mut at = self.ends[&group];
        at.id.index = at.id.index.next();
        self.ends.insert(group, at);
        let mut snapshot = taken(at);
        snapshot.reset = true;
        self.commit(group, "install", |write| Write {
            snapshot: Some(snapshot),
            ..write
        });
    }

    fn strike_everywhere(&mut self, moment: &str) {
        let image = self.disk.durable_view();
        let mut rng = SplitMix64::new(self.disk.mutations());
        for file in files(&image) {
            for sector in 0..image.sectors(&file).expect("a file") {
                for bad in Bad::ALL {
                    self.strike(&image, moment, (&file, sector), bad, rng.next());
                }
            }
        }
    }

    fn strike(
        &mut self,
        image: &FaultDisk,
        moment: &str,
        (file, sector): (&str, u64),
        bad: Bad,
        drawn: u64,
    ) {
        let disk = image.fork();
        if !bad.strike(&disk, file, sector, drawn) {
            return;
        }
        self.outcome.struck += 1;
        let options = WalOptions {
            policy: OnDamage::RepairFromPeers,
            ..self.options.clone()
        };
        let place = (moment.to_owned(), file.to_owned(), sector / 8);
        let damaged = match reopen(&disk, &options, drawn) {
            Ok((_, recovered)) => recovered.damage.is_some(),
            Err(error) => {
                let closed = &mut self.outcome.closed;
                closed.insert(place, format!("{bad:?}: {error}"));
                return;
            }
        };
        // The sector stays bad; what the open has written says what is lost.
        let disk = disk.power_loss(Survival::Nothing);
        match reopen(&disk, &options, drawn + 1) {
            Ok((_, again)) => assert_eq!(again.damage.is_some(), damaged, "{place:?}: {bad:?}"),
            Err(error) => panic!("{place:?}: {bad:?}, the second time: {error}"),
        }
        if damaged {
            self.outcome.damaged += 1;
        } else {
            self.outcome.healthy += 1;
        }
    }
}

fn files(disk: &FaultDisk) -> Vec<String> {
    let slots = disk.list("wal").expect("the slots");
    let slots = slots.iter().map(|name| format!("wal/{name}"));
    std::iter::once("STORE".to_owned()).chain(slots).collect()
}

fn assert_opened(what: &str, outcome: &Outcome) {
    let Outcome {
        struck,
        healthy,
        damaged,
        closed,
    } = outcome;
    let told =
        format!("{what}: {struck} bad sectors, {healthy} harmless, {damaged} to be repaired");
    assert!(
        closed.is_empty(),
        "{told}; {} closed: {closed:#?}",
        closed.len()
    );
    assert!(*struck > 1000 && *damaged > 0, "{told}");
}

#[test]
pub(crate) fn one_bad_sector_of_a_young_store_closes_nothing() {
    // All there is of a young store stands in one place, unless it is written twice.
    let mut store = Store::new();
    store.open("first open");
    store.fall();
    store.open("second open");
    store.vote(GROUP);
    store.fall();
    store.open("after a vote");
    store.append(OTHER, 60);
    store.append(GROUP, 60);
    store.close("closed");
    store.open("after a close");
    assert_opened("young", &store.outcome);
}

#[test]
fn one_bad_sector_of_a_joining_store_closes_nothing() {
    for join in [JoinAs::New, JoinAs::Wiped] {
        let mut store = Store::joining(join);
        store.options.policy = OnDamage::RepairFromPeers;
        store.open("first open");
        store.fall();
        store.open("second open");
        store.install(GROUP);
        store.fall();
        store.open("after an installed snapshot");
        assert_opened("joining", &store.outcome);
    }
}

#[test]
fn one_bad_sector_of_a_store_that_opens_again_and_again_closes_nothing() {
    // Every open takes over what the one before it took over: all of it in one block.
    let mut store = Store::new();
    store.open("first open");
    store.vote(GROUP);
    for life in 0..4 {
        store.append(GROUP, 100 + life);
        if life % 2 == 0 {
            store.append(OTHER, 100);
            store.receipt("receipt");
        }
        store.fall();
        store.open("open again");
    }
    assert_opened("opened often", &store.outcome);
}

#[test]
fn one_bad_sector_of_a_store_that_rotates_and_compacts_closes_nothing() {
    let mut store = Store::new();
    store.open("first open");
    store.vote(GROUP);
    for round in 0..3 {
        for _ in 0..4 {
            store.append(GROUP, 300);
        }
        store.append(OTHER, 200);
        store.take(GROUP);
        if round == 1 {
            store.receipt("receipt");
            store.take(OTHER);
        }
    }
    store.fall();
    store.open("after compactions");
    store.install(GROUP);
    store.install(OTHER);
    store.fall();
    store.open("after installed snapshots");
    for _ in 0..6 {
        store.vote(GROUP);
    }
    store.close("closed");
    store.open("after a close");
    assert_opened("rotated and compacted", &store.outcome);
}

/// Batches that a failed sync left in the system's cache, as readable as if they were on disk, and as many
/// opens after the process was killed. Each open copies them into its fence or counts on an earlier copy.
fn killed_with_a_full_cache(cache: CacheAfter, opens: u64) -> FaultDisk {
    // So many slots are ready that the one with the copied batches is not written again.
    let small = WalOptions {
        slots_ready_min: 8,
        ..options()
    };
    let (disk, mut wal) = fresh(&small);
    let mut writer = Writer::new(GROUP);
    wal.commit(&[writer.vote(1, Some(1))])
        .expect("a whole disk");
    let mut pool = wal.preparer();
    while pool.turn().expect("a whole disk") {}
    let mut end = Position::START;
    let mut append = |count| {
        let batches = (0..count).map(|_| {
            let next = batch(GROUP, &end, 1, 1, 400, 7);
            end = next.header.position();
            next
        });
        writer.append(batches.collect())
    };
    wal.commit(&[append(1)]).expect("a whole disk");
    disk.inject(
        Fault::new(Effect::SyncFails {
            cache,
            landed: None,
        })
        .on(DiskOp::SyncData),
    );
    wal.commit(&[append(3)]).expect_err("the sync fails");
    drop(wal);
    let mut disk = disk.process_crash();
    for open in 0..opens {
        let (wal, _) = reopen(&disk, &small, 3 + open).expect("a whole disk");
        drop(wal);
        disk = disk.process_crash();
    }
    disk
}

#[test]
fn what_only_the_cache_of_the_system_holds_is_not_counted_on() {
    // A bad sector can take the copy, and leave what it was a copy of: readable, and never durable.
    let small = WalOptions {
        policy: OnDamage::RepairFromPeers,
        ..options()
    };
    let view = |disk: &FaultDisk, seed| {
        let (_wal, mut recovered) = reopen(disk, &small, seed).ok()?;
        let found = recovered.groups.remove(&GROUP).expect("the one group");
        Some((found.hard_state, found.batches, found.damage))
    };
    let mut looked = (0, 0);
    for (cache, opens) in [CacheAfter::OldContent, CacheAfter::NewContent]
        .into_iter()
        .flat_map(|cache| (1..=3).map(move |opens| (cache, opens)))
    {
        let disk = killed_with_a_full_cache(cache, opens);
        for name in disk.list("wal").expect("a folder of slots") {
            let file = format!("wal/{name}");
            for sector in 0..disk.sectors(&file).expect("a slot") {
                let struck = disk.fork();
                if !Bad::Zeros.strike(&struck, &file, sector, 0) {
                    continue;
                }
                let Some(shown) = view(&struck, 20) else {
                    continue;
                };
                looked.0 += 1;
                looked.1 += u64::from(shown.1.len() == 4 && shown.2.is_none());
                let after = view(&struck.power_loss(Survival::Nothing), 21);
                assert_eq!(
                    Some(shown),
                    after,
                    "{cache:?}, {opens} opens, {file} sector {sector}"
                );
            }
        }
    }
    assert!(looked.0 > 100 && looked.1 > 40, "{looked:?}");
}
