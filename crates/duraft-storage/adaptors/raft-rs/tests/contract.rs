//! What raft-rs expects of a storage, clause by clause, in this life and in the next.

use duraft_disk::{DiskOp, Effect, Fault, FaultDisk, FaultOptions, Survival};
use duraft_raft_rs::{LogStorage, LogStorageError};
use duraft_storage::{EntryLog, EntryLogOptions, WalOptions, WhenDurable};
use protobuf::Message;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, Storage, StorageError};
use std::sync::Arc;
use std::sync::mpsc::channel;

fn options() -> EntryLogOptions {
    EntryLogOptions {
        wal: WalOptions {
            slot_bytes: 64 << 10,
            ..WalOptions::default()
        },
        entry_bytes_max: 4_096,
        ..EntryLogOptions::default()
    }
}

fn open(disk: &FaultDisk) -> LogStorage {
    LogStorage::open_on(Arc::new(disk.clone()), options()).expect("a sound store")
}

/// The log below a storage.
fn log(disk: &FaultDisk) -> EntryLog {
    EntryLog::open_on(Arc::new(disk.clone()), options()).expect("a sound store")
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: format!("entry {index} of term {term}").into(),
        ..Entry::default()
    }
}

fn hard(term: u64, vote: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote,
        commit,
        ..HardState::default()
    }
}

fn snapshot(index: u64, term: u64, voters: Vec<u64>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    *snapshot.mut_metadata().mut_conf_state() = ConfState::from((voters, vec![]));
    snapshot
}

/// Saves, and waits until it is durable.
fn save(storage: &LogStorage, entries: &[Entry], hard: Option<&HardState>) {
    assert!(durable(|when| storage.save(entries, hard, Some(when))));
}

/// Makes a write and waits for it: is it durable?
fn durable<E>(write: impl FnOnce(WhenDurable) -> Result<(), E>) -> bool {
    let (told, heard) = channel();
    let when = Box::new(move |made: Result<(), _>| {
        // Where the write was refused, nobody listens.
        let _ = told.send(made.is_ok());
    });
    write(when).is_ok() && heard.recv() == Ok(true)
}

fn all(storage: &LogStorage, low: u64, high: u64, max: Option<u64>) -> raft::Result<Vec<Entry>> {
    storage.entries(low, high, max, GetEntriesContext::empty(false))
}

/// A storage with entries 3 to 6 of the terms 3, 4, 5, 5, compacted up to 3.
fn sample(disk: &FaultDisk) -> LogStorage {
    let storage = open(disk);
    storage
        .initialize(&ConfState::from((vec![1, 2, 3], vec![])))
        .expect("new");
    let entries: Vec<Entry> = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 5)]
        .map(|(index, term)| entry(index, term))
        .into();
    save(&storage, &entries, Some(&hard(5, 2, 4)));
    storage.compact(3, None).expect("compacted");
    storage
}

#[test]
fn terms_are_known_from_the_last_compacted_entry_to_the_last_one() {
    let storage = sample(&FaultDisk::new(FaultOptions::default()));
    let compacted = Err(Error::Store(StorageError::Compacted));
    assert_eq!(storage.term(2), compacted);
    let known: Vec<u64> = (3..=6)
        .map(|i| storage.term(i).expect("in the log"))
        .collect();
    assert_eq!(known, [3, 4, 5, 5]);
    assert_eq!(
        storage.term(7),
        Err(Error::Store(StorageError::Unavailable))
    );
    assert_eq!(storage.first_index(), Ok(4));
    assert_eq!(storage.last_index(), Ok(6));
}

#[test]
fn entries_come_up_to_a_limit_of_bytes_but_at_least_one() {
    let storage = sample(&FaultDisk::new(FaultOptions::default()));
    let sizes: Vec<u64> = [entry(4, 4), entry(5, 5), entry(6, 5)]
        .iter()
        .map(|e| e.compute_size().into())
        .collect();
    let count = |low, high, max| all(&storage, low, high, max).expect("in the log").len();
    assert_eq!(count(4, 7, None), 3);
    assert_eq!(count(4, 7, Some(u64::MAX)), 3);
    assert_eq!(count(4, 7, Some(0)), 1, "one at least");
    assert_eq!(count(4, 7, Some(sizes[0] + sizes[1])), 2);
    assert_eq!(count(4, 7, Some(sizes[0] + sizes[1] + sizes[2] - 1)), 2);
    assert_eq!(count(4, 7, Some(sizes.iter().sum())), 3);
    assert_eq!(count(5, 6, None), 1, "the upper end does not belong to it");
    assert_eq!(count(5, 5, None), 0);
    assert_eq!(
        all(&storage, 4, 6, None),
        Ok(vec![entry(4, 4), entry(5, 5)])
    );
    let at = |low, high| all(&storage, low, high, None);
    assert_eq!(at(3, 5), Err(Error::Store(StorageError::Compacted)));
    assert_eq!(at(4, 8), Err(Error::Store(StorageError::Unavailable)));
}

#[test]
fn entries_replace_what_stands_from_their_first_one_on() {
    let disk = FaultDisk::new(FaultOptions::default());
    let storage = sample(&disk);
    save(&storage, &[entry(5, 6)], None);
    assert_eq!(storage.last_index(), Ok(5), "the one behind it is gone");
    save(&storage, &[entry(6, 6), entry(7, 7)], Some(&hard(7, 3, 5)));
    let expected = vec![entry(4, 4), entry(5, 6), entry(6, 6), entry(7, 7)];
    assert_eq!(all(&storage, 4, 8, None), Ok(expected.clone()));
    let gap = storage.save(&[entry(9, 7)], None, None);
    assert!(
        matches!(gap, Err(LogStorageError::Log(_))),
        "a hole is refused: {gap:?}"
    );
    drop(storage);
    let storage = open(&disk.power_loss(Survival::Nothing));
    assert_eq!(all(&storage, 4, 8, None), Ok(expected));
    let state = storage.initial_state().expect("a state");
    assert_eq!(state.hard_state, hard(7, 3, 5));
    assert_eq!(state.conf_state.voters, [1, 2, 3]);
}

#[test]
fn compaction_is_quiet_about_the_past_and_refuses_the_future() {
    let storage = sample(&FaultDisk::new(FaultOptions::default()));
    storage.compact(2, None).expect("nothing to do");
    assert_eq!(storage.first_index(), Ok(4));
    storage.compact(5, None).expect("compacted");
    assert_eq!(storage.first_index(), Ok(6));
    assert!(storage.compact(7, None).is_err(), "what was never there");
    storage.compact(6, None).expect("all of it");
    assert_eq!(
        (storage.first_index(), storage.last_index()),
        (Ok(7), Ok(6))
    );
    assert_eq!(storage.term(6), Ok(5), "kept to match what follows");
}

#[test]
fn a_snapshot_is_unavailable_until_one_is_offered_that_is_new_enough() {
    let storage = sample(&FaultDisk::new(FaultOptions::default()));
    let unavailable = Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
    assert_eq!(storage.snapshot(0, 2), unavailable);
    assert_eq!(
        storage.wanted(),
        Some(3),
        "it must reach the beginning of the log"
    );
    storage.offer(snapshot(4, 4, vec![1, 2, 3]));
    assert_eq!(storage.wanted(), None);
    assert_eq!(
        storage
            .snapshot(4, 2)
            .expect("offered")
            .get_metadata()
            .index,
        4
    );
    assert_eq!(storage.snapshot(5, 2), unavailable);
    assert_eq!(storage.wanted(), Some(5));
}

#[test]
fn a_snapshot_of_a_leader_takes_the_place_of_the_log() {
    let disk = FaultDisk::new(FaultOptions::default());
    let storage = sample(&disk);
    storage
        .install(&snapshot(9, 7, vec![1, 2, 4]), None)
        .expect("installed");
    save(&storage, &[entry(10, 7)], None);
    for storage in [storage, open(&disk.power_loss(Survival::Nothing))] {
        assert_eq!(
            (storage.first_index(), storage.last_index()),
            (Ok(10), Ok(10))
        );
        assert_eq!(storage.term(9), Ok(7));
        let state = storage.initial_state().expect("a state");
        assert_eq!(state.hard_state.term, 7);
        assert_eq!(state.hard_state.commit, 9);
        assert_eq!(state.conf_state.voters, [1, 2, 4]);
        assert_eq!(storage.conf_index(), 9);
    }
}

#[test]
fn a_new_storage_is_initialized_once() {
    let disk = FaultDisk::new(FaultOptions::default());
    let storage = open(&disk);
    assert!(!storage.is_initialized());
    assert_eq!(
        (storage.first_index(), storage.last_index()),
        (Ok(1), Ok(0))
    );
    assert_eq!(storage.term(0), Ok(0));
    let conf = ConfState::from((vec![1], vec![]));
    storage.initialize(&conf).expect("new");
    let again = storage.initialize(&conf);
    assert!(matches!(again, Err(LogStorageError::Initialized)));
}

#[test]
fn the_term_is_that_of_the_last_entry_where_the_hard_state_was_lost() {
    // A crash between the entries and the hard state of one Ready: the term must not be used again.
    let disk = FaultDisk::new(FaultOptions::default());
    let storage = sample(&disk);
    save(&storage, &[entry(7, 8)], None);
    storage.raise_commit(6);
    assert_eq!(
        storage.initial_state().expect("a state").hard_state.commit,
        6
    );
    drop(storage);
    let storage = open(&disk.power_loss(Survival::Nothing));
    let state = storage.initial_state().expect("a state");
    assert_eq!(state.hard_state, hard(8, 0, 4), "no vote in the new term");
}

#[test]
fn every_crash_within_a_snapshot_leaves_it_installed_or_not_there() {
    // The note and the log change one after the other: opening must finish what was begun.
    let mut seen = [false; 2];
    for after in 0.. {
        let disk = FaultDisk::new(FaultOptions::default());
        let storage = sample(&disk);
        save(&storage, &[], None);
        disk.crash_at(disk.mutations() + 1 + after);
        let snapshot = snapshot(9, 7, vec![1, 2, 4]);
        let done = durable(|when| storage.install(&snapshot, Some(when)));
        drop(storage);
        for fate in 0..8 {
            let storage = open(&disk.power_loss(Survival::Drawn(fate)));
            let state = storage.initial_state().expect("a state");
            let bounds = (storage.first_index(), storage.last_index());
            let installed = state.conf_state.voters == [1, 2, 4];
            seen[usize::from(installed)] = true;
            if installed {
                assert_eq!(bounds, (Ok(10), Ok(9)));
                assert_eq!(state.hard_state.commit, 9);
            } else {
                assert!(!done, "it was durable");
                assert_eq!(bounds, (Ok(4), Ok(6)));
                assert_eq!(state.hard_state, hard(5, 2, 4));
            }
        }
        if done {
            break;
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn a_snapshot_that_was_noted_before_a_crash_is_installed_on_opening() {
    // The two writes of a snapshot share a commit mostly, but need not: here the second one is lost.
    let (disk, donor) = (
        FaultDisk::new(FaultOptions::default()),
        FaultDisk::new(FaultOptions::default()),
    );
    drop(sample(&disk));
    let storage = open(&donor);
    assert!(durable(
        |when| storage.install(&snapshot(9, 7, vec![1, 2, 4]), Some(when))
    ));
    drop(storage);
    let note = log(&donor.process_crash()).note();
    let disk = disk.process_crash();
    let unfinished = log(&disk);
    assert!(durable(|when| unfinished.set_note(note, Some(when))));
    drop(unfinished);
    let storage = open(&disk.process_crash());
    assert_eq!(
        (storage.first_index(), storage.last_index()),
        (Ok(10), Ok(9))
    );
    assert_eq!(storage.term(9), Ok(7));
}

#[test]
fn what_is_compacted_was_committed_although_no_hard_state_says_so() {
    let disk = FaultDisk::new(FaultOptions::default());
    let storage = sample(&disk);
    assert!(durable(|when| storage.compact(5, Some(when))));
    drop(storage);
    let state = open(&disk.power_loss(Survival::Nothing)).initial_state();
    assert_eq!(state.expect("a state").hard_state, hard(5, 2, 5));
}

#[test]
fn a_failed_sync_is_told_and_nothing_is_durable_after_it() {
    let disk = FaultDisk::new(FaultOptions::default());
    let storage = sample(&disk);
    save(&storage, &[], None);
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncData));
    let mut answers = Vec::new();
    for index in 7..9 {
        answers.push(durable(|when| {
            storage.save(&[entry(index, 5)], None, Some(when))
        }));
    }
    assert_eq!(answers, [false, false]);
}
