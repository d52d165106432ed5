//! Stores that cannot be made or opened: each with its typed error, and nothing touched.

use crate::damage::{filled, tail_file};
use crate::support::*;
use duraft_core::NodeId;
use duraft_disk::{
    Damage as Rot, Disk, DiskOp, Effect, Fault, FaultDisk, Subsets, Survival, for_each_crash_state,
};
use duraft_storage::{
    ClusterId, FormatError, OpenError, StoreIdentity, WalOptions, bootstrap, fuzzing, open,
};
use std::ops::{ControlFlow, Range};

fn open_as(disk: &duraft_disk::FaultDisk, identity: StoreIdentity) -> Result<(), OpenError> {
    open(shared(disk), &identity, options(), entropy(5)).map(|_| ())
}

#[test]
fn a_folder_without_a_store_is_no_store() {
    assert!(matches!(
        open_as(&disk(), identity()),
        Err(OpenError::NoStore)
    ));
}

#[test]
fn a_store_is_made_once() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let groups = [(GROUP, membership())];
    let again = bootstrap(&shared(&disk), &identity(), &options(), entropy(9), &groups);
    assert!(matches!(again, Err(OpenError::StoreExists)), "{again:?}");
}

#[test]
fn a_store_that_lost_its_store_file_is_not_made_anew() {
    // Bootstrapping over it would wipe votes and entries that were acknowledged.
    let (disk, wal) = fresh(&options());
    drop(wal);
    disk.remove("STORE").expect("it is there");
    let groups = [(GROUP, membership())];
    let again = bootstrap(&shared(&disk), &identity(), &options(), entropy(9), &groups);
    assert!(
        matches!(again, Err(OpenError::StoreFileMissing)),
        "{again:?}"
    );
}

#[test]
fn a_bootstrap_cut_short_anywhere_can_be_begun_again() {
    let mut cuts = 0;
    for mutation in 1.. {
        let disk = disk();
        disk.crash_at(mutation);
        let groups = [(GROUP, membership())];
        let made = bootstrap(&shared(&disk), &identity(), &options(), entropy(9), &groups);
        if made.is_ok() {
            break;
        }
        cuts += 1;
        for seed in 0..8 {
            let left = disk.power_loss(duraft_disk::Survival::Drawn(seed));
            let again = bootstrap(
                &shared(&left),
                &identity(),
                &options(),
                entropy(10),
                &groups,
            );
            assert!(
                matches!(again, Ok(()) | Err(OpenError::StoreExists)),
                "mutation {mutation}, seed {seed}: {again:?}"
            );
            let (_, recovered) = reopen(&left, &options(), 3).expect("a fresh store");
            assert!(recovered.groups[&GROUP].batches.is_empty());
        }
    }
    assert!(cuts > 10, "{cuts}");
}

#[test]
fn foreign_stores_are_refused() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let own = identity();
    let other = StoreIdentity {
        cluster: ClusterId([4; 16]),
        ..own
    };
    assert!(matches!(
        open_as(&disk, other),
        Err(OpenError::ForeignCluster { .. })
    ));
    let other = StoreIdentity {
        node: NodeId(2),
        ..own
    };
    assert!(matches!(
        open_as(&disk, other),
        Err(OpenError::ForeignNode { .. })
    ));
    let other = StoreIdentity {
        max_batch_bytes: 99,
        ..own
    };
    assert!(matches!(
        open_as(&disk, other),
        Err(OpenError::MaxBatch { .. })
    ));
    open_as(&disk, own).expect("our own");
}

fn flip_store(disk: &FaultDisk, offset: u64) {
    disk.damage("STORE", &Rot::FlipBit { offset, bit: 3 })
        .expect("in the file");
}

fn store_bytes(disk: &FaultDisk) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    let file = disk.open("STORE").expect("it is there");
    let read = file.read_at(&mut bytes, 0).expect("a working disk");
    assert_eq!(read, bytes.len());
    bytes
}

#[test]
fn a_store_file_with_one_bad_copy_opens_and_is_made_whole_whenever_the_power_fails() {
    // Left as it is, the next bad sector, years later, would take the store.
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    let whole = store_bytes(&disk);
    let mut states = 0;
    for offset in [0, 30, 4095, 4096, 4200, 8191] {
        let rotten = disk.fork();
        flip_store(&rotten, offset);
        for mutation in 1.. {
            let cut = rotten.fork();
            cut.crash_at(mutation);
            let done = open_as(&cut, identity()).is_ok();
            let (_, _) = for_each_crash_state(&cut, &Subsets::default(), |state| {
                states += 1;
                let left = state.disk.fork();
                let (first, second) = (store_bytes(&left), left.fork());
                assert!(!done || first == whole, "{offset}: {state}");
                open_as(&left, identity()).unwrap_or_else(|error| panic!("{error}: {state}"));
                assert_eq!(
                    store_bytes(&left.durable_view()),
                    whole,
                    "{offset}: {state}"
                );
                // The other copy is what it was read from.
                flip_store(&second, (offset + 4096) % 8192);
                let closed = open_as(&second, identity()).is_err();
                assert_eq!(closed, first != whole, "{offset}: {state}");
                ControlFlow::<()>::Continue(())
            });
            if done {
                break;
            }
        }
    }
    assert!(states > 200, "{states}");
}

#[test]
fn a_store_file_without_a_whole_copy_is_refused_wherever_the_bits_are() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    for offset in (0..100).chain(4000..4096) {
        let rotten = disk.fork();
        flip_store(&rotten, offset);
        flip_store(&rotten, 8191 - offset);
        let refused = open_as(&rotten, identity());
        assert!(
            matches!(refused, Err(OpenError::StoreFile(_))),
            "offset {offset}: {refused:?}"
        );
    }
    let short = disk.fork();
    short.remove("STORE").expect("it is there");
    let file = short.create("STORE").expect("the name is free");
    file.write_at(b"DRS1", 0).expect("a working disk");
    let refused = open_as(&short, identity());
    let expected = matches!(
        refused,
        Err(OpenError::StoreFile(FormatError::Short { .. }))
    );
    assert!(expected, "{refused:?}");
}

#[test]
fn newer_formats_are_refused_before_anything_is_touched() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    // Minor versions are information; majors and incompatible features are not.
    for (offset, value) in [(4, 2), (8, 1)] {
        let newer = disk.fork();
        patch_store(&newer, offset, value);
        let before = newer.fingerprint();
        let refused = open_as(&newer, identity());
        let expected = matches!(
            refused,
            Err(OpenError::Newer {
                problem: FormatError::Newer { .. },
                ..
            })
        );
        assert!(expected, "{refused:?}");
        assert_eq!(newer.fingerprint(), before);
    }
    let newer = disk.fork();
    patch_store(&newer, 6, 9);
    open_as(&newer, identity()).expect("a minor version is compatible");
}

/// Changes a byte of the STORE file and makes its checksum right again.
fn patch_store(disk: &duraft_disk::FaultDisk, offset: usize, value: u8) {
    let file = disk.open("STORE").expect("it is there");
    let mut bytes = vec![0; 4096];
    file.read_at(&mut bytes, 0).expect("a working disk");
    bytes[offset] = value;
    let sum = duraft_storage::body_checksum(&bytes[..4092]);
    bytes[4092..].copy_from_slice(&sum.to_le_bytes());
    file.write_at(&bytes, 0).expect("a working disk");
    file.sync_all().expect("a working disk");
}

#[test]
fn a_store_of_slots_that_cannot_be_is_refused() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    let disk = disk.power_loss(Survival::Nothing);
    // One byte more than a multiple of 4 KiB.
    patch_store(&disk, 56, 1);
    let refused = open_as(&disk, identity());
    assert!(
        matches!(refused, Err(OpenError::StoreFile(_))),
        "{refused:?}"
    );
}

#[test]
fn options_that_do_not_fit_are_all_named() {
    let bad = WalOptions {
        slot_bytes: 5000,
        slots_max: 1,
        mark_every_commits: 0,
        ..options()
    };
    let fields: Vec<_> = bad.validate().iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        [
            "slot_bytes",
            "slots_max",
            "slots_ready_min",
            "mark_every_commits"
        ]
    );
    let groups = [(GROUP, membership())];
    let large = StoreIdentity {
        max_batch_bytes: 1 << 20,
        ..identity()
    };
    let refused = bootstrap(&shared(&disk()), &large, &options(), entropy(1), &groups);
    assert!(matches!(refused, Err(OpenError::Options(_))), "{refused:?}");
    let twice = [(GROUP, membership()), (GROUP, membership())];
    let roomy = WalOptions {
        slot_bytes: 64 << 10,
        ..options()
    };
    let refused = bootstrap(&shared(&disk()), &identity(), &roomy, entropy(1), &twice);
    assert!(
        matches!(refused, Err(OpenError::Group(GROUP))),
        "{refused:?}"
    );
}

#[test]
fn a_full_disk_is_named_at_bootstrap_and_at_open() {
    let full = disk();
    full.inject(Fault::new(Effect::NoSpace).on(DiskOp::FillZero).forever());
    let groups = [(GROUP, membership())];
    let refused = bootstrap(&shared(&full), &identity(), &options(), entropy(1), &groups);
    assert!(
        matches!(refused, Err(OpenError::DiskFull { .. })),
        "{refused:?}"
    );
    let (disk, wal) = fresh(&options());
    drop(wal);
    disk.inject(Fault::new(Effect::NoSpace).on(DiskOp::Write).forever());
    let refused = open_as(&disk, identity());
    assert!(
        matches!(refused, Err(OpenError::DiskFull { .. })),
        "{refused:?}"
    );
    disk.heal();
    open_as(&disk, identity()).expect("room again");
}

#[test]
fn any_operation_of_an_open_may_fail_and_the_next_open_gets_through() {
    let (disk, wal) = fresh(&options());
    drop(wal);
    for nth in 1.. {
        let tried = disk.fork();
        tried.inject(Fault::new(Effect::Io).nth(nth));
        match open_as(&tried, identity()) {
            Ok(()) => break,
            Err(OpenError::Disk(_)) => {}
            Err(other) => panic!("operation {nth}: {other}"),
        }
        tried.heal();
        reopen(&tried, &options(), 8).expect("healed");
    }
}

#[test]
pub(crate) fn blocks_of_another_store_in_a_slot_are_nobodys() {
    // Two stores, one of which gets a slot file of the other: copied by hand, or misdirected.
    let (mine, wal) = fresh(&options());
    drop(wal);
    let theirs = disk();
    let groups = [(GROUP, membership())];
    bootstrap(
        &shared(&theirs),
        &identity(),
        &options(),
        entropy(77),
        &groups,
    )
    .expect("fresh");
    for seed in 0..4 {
        reopen(&theirs, &options(), seed).expect("a healthy store");
    }
    let (mut wal, _) = reopen(&theirs, &options(), 9).expect("a healthy store");
    let mut writer = Writer::new(GROUP);
    let mut end = duraft_core::Position::START;
    wal.commit(&[writer.vote(1, None)]).expect("there is room");
    for _ in 0..4 {
        let next = batch(GROUP, &end, 1, 1, 20, 1);
        end = next.header.position();
        wal.commit(&[writer.append(vec![next])])
            .expect("there is room");
    }
    drop(wal);
    let (_, before) = reopen(&mine, &options(), 20).expect("a healthy store");
    let mut copied = 0;
    for name in theirs.list("wal").expect("slots") {
        let path = format!("wal/{name}");
        let mut bytes = vec![0; 16 << 10];
        theirs
            .open(&path)
            .expect("listed")
            .read_at(&mut bytes, 0)
            .expect("a working disk");
        if mine.open(&path).is_err() {
            copied += 1;
            let file = mine.create(&path).expect("the name is free");
            file.write_at(&bytes, 0).expect("a working disk");
        }
    }
    assert!(copied > 0, "{copied} slots of theirs");
    let (_, after) = reopen(&mine, &options(), 21).expect("foreign slots are made anew");
    assert_eq!(after.groups, before.groups);
}

#[test]
fn a_store_whose_opens_cannot_be_counted_further_is_left_as_it_is() {
    // No test can open a store 2^32 times: a number next to the last is written into its proof.
    const GENERATION: Range<usize> = 44..48;
    let (disk, wal, ..) = filled(2, &options());
    drop(wal);
    let read = |name: &str, len: usize| {
        let mut bytes = vec![0; len];
        let file = disk.open(name).expect("it is there");
        file.read_at(&mut bytes, 0).expect("a working disk");
        bytes
    };
    let id = fuzzing::store_id(&read("STORE", 4096)).expect("a STORE file");
    let slot = tail_file(&disk);
    let mut mark = read(&slot, 2 * 4096).split_off(4096);
    mark[GENERATION].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
    fuzzing::reseal(&id, &mut mark);
    let file = disk.open(&slot).expect("it is there");
    file.write_at(&mark, 4096).expect("a working disk");
    let (_, last) = reopen(&disk, &options(), 6).expect("one more open can be counted");
    assert_eq!(last.groups[&GROUP].batches.len(), 2);
    for seed in 7..9 {
        disk.start_trace();
        let refused = reopen(&disk, &options(), seed).map(|_| ());
        assert!(
            matches!(refused, Err(OpenError::CountersExhausted)),
            "{refused:?}"
        );
        let trace = disk.trace();
        assert!(trace.iter().all(|op| op.op != DiskOp::Write), "{trace:?}");
    }
}
