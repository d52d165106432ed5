//! A crash at every operation of taking, receiving, resuming, retiring and reconciling snapshots, and
//! every outcome of it (RULES.md 28); and the same with one step of the order left out, to show that
//! each step is needed.

use super::snapshot::{CHUNK, content, membership, options, path, position, raw, read_all};
use super::snapshot::{disk, store, store_with, take_at};
use duraft_core::Snapshot;
use duraft_disk::{
    CrashState, Disk, FaultDisk, FaultOptions, Subsets, Survival, Tally, Violation, explore,
};
use duraft_storage::{
    SnapshotAblation, SnapshotError, SnapshotFileKind, SnapshotName, SnapshotOptions, SnapshotStore,
};

const SECTORS: [usize; 2] = [512, 4096];

/// Snapshots that were called durable, and what must be read of each.
type Promises = Vec<(Snapshot, Vec<u8>)>;

fn disk_of(sector_bytes: usize) -> FaultDisk {
    FaultDisk::new(FaultOptions {
        sector_bytes,
        // What a length brings in without content reads as anything.
        garbage: Some(11),
        ..FaultOptions::default()
    })
}

fn with(ablation: Option<SnapshotAblation>) -> SnapshotOptions {
    SnapshotOptions {
        // A sync in the middle of a file too.
        sync_bytes: 2 * CHUNK as u64,
        ablation,
        ..options()
    }
}

fn subsets(drawn: usize) -> Subsets {
    Subsets {
        drawn,
        ..Subsets::default()
    }
}

/// The snapshot that peers send, and its file.
fn sent() -> (Snapshot, Vec<u8>, Vec<u8>) {
    let disk = disk();
    let store = store(&disk);
    let content = content(3 * CHUNK + 100, 6);
    let snapshot = take_at(&store, 80, &content).expect("taken");
    let bytes = raw(&store, &snapshot);
    (snapshot, bytes, content)
}

/// A name of a whole file always stands for a whole file, and what was promised is there.
fn check(disk: &FaultDisk, promises: &Promises) -> Result<(), String> {
    let tell = |error: SnapshotError| error.to_string();
    let store = store_with(disk, with(None)).map_err(tell)?;
    for name in store.list().map_err(tell)? {
        if name.kind == SnapshotFileKind::Whole {
            let info = store.inspect(&name.to_string()).map_err(tell)?;
            store.verify(&info.snapshot).map_err(tell)?;
        }
    }
    for (snapshot, content) in promises {
        let read = read_all(&store, snapshot).map_err(|error| format!("promised: {error}"))?;
        if read != *content {
            return Err("promised and read differ".into());
        }
    }
    Ok(())
}

fn receive_all(
    store: &SnapshotStore,
    snapshot: &Snapshot,
    bytes: &[u8],
    upto: usize,
) -> Result<Option<Snapshot>, SnapshotError> {
    let mut receiver = store.receive(snapshot)?;
    loop {
        let at = usize::try_from(receiver.received()).expect("small");
        if at >= upto {
            break;
        }
        receiver.write(at as u64, &bytes[at..upto.min(at + 700)])?;
    }
    if upto < bytes.len() {
        return Ok(None);
    }
    receiver.finish().map(Some)
}

/// Takes a snapshot, then another.
fn taking(disk: &FaultDisk, ablation: Option<SnapshotAblation>) -> Promises {
    let mut promises = Vec::new();
    let mut run = || -> Result<(), SnapshotError> {
        let store = store_with(disk, with(ablation))?;
        for (index, len) in [(10, 2 * CHUNK + 9), (20, 0)] {
            let content = content(len, 1);
            let snapshot = take_at(&store, index, &content)?;
            promises.push((snapshot, content));
        }
        Ok(())
    };
    // What was promised before the disk died is what counts.
    let _ = run();
    promises
}

/// Receives half of a snapshot, then resumes.
fn receiving(disk: &FaultDisk, ablation: Option<SnapshotAblation>) -> Promises {
    let (snapshot, bytes, content) = sent();
    let mut promises = Vec::new();
    let mut run = || -> Result<(), SnapshotError> {
        let store = store_with(disk, with(ablation))?;
        receive_all(&store, &snapshot, &bytes, 5000)?;
        if let Some(received) = receive_all(&store, &snapshot, &bytes, bytes.len())? {
            promises.push((received, content.clone()));
        }
        Ok(())
    };
    let _ = run();
    promises
}

/// What a next life does with what it finds: resumes, and takes one of its own.
fn next_life(
    disk: &FaultDisk,
    ablation: Option<SnapshotAblation>,
    promises: &Promises,
) -> Promises {
    let (snapshot, bytes, content) = sent();
    let mut promises = promises.clone();
    let mut run = || -> Result<(), SnapshotError> {
        let store = store_with(disk, with(ablation))?;
        let keep: Vec<&Snapshot> = promises.iter().map(|(snapshot, _)| snapshot).collect();
        store.reconcile(&keep)?;
        if let Some(received) = receive_all(&store, &snapshot, &bytes, bytes.len())? {
            promises.push((received, content.clone()));
        }
        Ok(())
    };
    let _ = run();
    promises
}

/// Crash, look, live on, lose the power again at the worst moment, look again.
fn check_and_go_on(
    promises: &Promises,
    state: &CrashState<'_>,
    ablation: Option<SnapshotAblation>,
) -> Result<(), String> {
    check(&state.disk, promises)?;
    let (snapshot, ..) = sent();
    let after = next_life(&state.disk, ablation, promises);
    if !after.iter().any(|(received, _)| *received == snapshot) {
        return Err("the next life cannot receive the snapshot".into());
    }
    check(&state.disk, &after)?;
    check(&state.disk.power_loss(Survival::Nothing), &after)
}

fn run(
    start: &FaultDisk,
    workload: impl Fn(&FaultDisk, Option<SnapshotAblation>) -> Promises,
    ablation: Option<SnapshotAblation>,
    drawn: usize,
) -> Result<Tally, Box<Violation>> {
    let workload = |disk: &FaultDisk| workload(disk, ablation);
    explore(start, &subsets(drawn), workload, |promises, state| {
        check_and_go_on(promises, state, ablation)
    })
}

#[test]
fn every_crash_of_taking_leaves_it_whole_or_absent() {
    let mut tally = Tally::default();
    for sector_bytes in SECTORS {
        let start = disk_of(sector_bytes);
        tally += run(&start, taking, None, 300).unwrap_or_else(|found| panic!("{found}"));
    }
    assert_eq!(
        tally.points, tally.exhaustive,
        "every outcome of every moment"
    );
    assert!(tally.visited > 1000, "{tally:?}");
}

#[test]
fn every_crash_of_receiving_leaves_it_whole_or_absent_and_resumable() {
    let mut tally = Tally::default();
    for sector_bytes in SECTORS {
        let start = disk_of(sector_bytes);
        tally += run(&start, receiving, None, 300).unwrap_or_else(|found| panic!("{found}"));
    }
    assert_eq!(
        tally.points, tally.exhaustive,
        "every outcome of every moment"
    );
    assert!(tally.visited > 600, "{tally:?}");
}

#[test]
fn every_crash_of_a_resumption_after_a_crash_is_survived() {
    // The second crash meets what the first has left: drawn outcomes of the first at every moment of
    // it, then every moment of the resumption.
    let mut tally = Tally::default();
    for mutation in 1.. {
        let disk = disk_of(512);
        disk.crash_at(mutation);
        let promises = receiving(&disk, None);
        if !disk.crashed() {
            break;
        }
        for seed in 0..2 {
            let start = disk.power_loss(Survival::Drawn(seed));
            let workload = |disk: &FaultDisk| next_life(disk, None, &promises);
            let found = explore(&start, &subsets(10), workload, |promises, state| {
                check_and_go_on(promises, state, None)
            });
            tally += found.unwrap_or_else(|found| panic!("after a crash in {mutation}: {found}"));
        }
    }
    assert!(tally.visited > 5_000, "{tally:?}");
}

#[test]
fn every_crash_of_removing_leaves_what_the_log_names() {
    // A removal that is lost must not bring back anything that counts, nor take away what does.
    let start = disk_of(512);
    let store = store_with(&start, with(None)).expect("the disk works");
    let taken: Promises = (1..=4)
        .map(|index| {
            let content = content(700, index as u8);
            (take_at(&store, index, &content).expect("taken"), content)
        })
        .collect();
    let (snapshot, bytes, _) = sent();
    receive_all(&store, &snapshot, &bytes, 5000).expect("begun");
    std::mem::forget(store.create(position(90), &membership(), 1).expect("begun"));
    let promises: Promises = taken[2..].to_vec();
    let workload = |disk: &FaultDisk| {
        let run = || -> Result<(), SnapshotError> {
            let store = store_with(disk, with(None))?;
            store.retire(&taken[2].0)?;
            store.reconcile(&[&taken[2].0, &taken[3].0])?;
            store.retire(&taken[3].0)?;
            Ok(())
        };
        let _ = run();
        promises.clone()
    };
    let tally = explore(&start, &Subsets::default(), workload, |promises, state| {
        let disk = state.disk.fork();
        check_and_go_on(promises, state, None)?;
        let store = store_with(&disk, with(None)).map_err(|error| error.to_string())?;
        let keep = [&taken[2].0, &taken[3].0];
        store.reconcile(&keep).map_err(|error| error.to_string())?;
        let left = store.list().map_err(|error| error.to_string())?;
        // 2 is the fallback and 80 can be resumed, if their names have survived.
        let known = |name: &&SnapshotName| [2, 3, 4, 80].contains(&name.index.0);
        if left.iter().filter(known).count() != left.len() || !(2..=4).contains(&left.len()) {
            return Err(format!("left: {left:?}"));
        }
        Ok(())
    });
    let tally = tally.unwrap_or_else(|found| panic!("{found}"));
    assert!(tally.visited > 20, "{tally:?}");
}

#[test]
fn without_the_sync_before_the_renaming_a_torn_file_gets_its_name() {
    for workload in [taking, receiving] {
        let ablation = Some(SnapshotAblation::NoSyncBeforeRename);
        run(&disk_of(512), workload, ablation, 300).expect_err("a torn file");
    }
}

#[test]
fn without_the_sync_of_the_folder_a_promised_snapshot_is_gone() {
    for workload in [taking, receiving] {
        let ablation = Some(SnapshotAblation::NoDirSync);
        let found = run(&disk_of(512), workload, ablation, 300).expect_err("no name");
        assert!(found.message.contains("missing"), "{found}");
    }
}

#[test]
fn a_name_that_a_dead_process_gave_is_durable_once_the_store_is_open() {
    let disk = disk_of(512);
    let ablation = Some(SnapshotAblation::NoDirSync);
    let snapshot = take_at(
        &store_with(&disk, with(ablation)).expect("works"),
        5,
        &content(2000, 1),
    )
    .expect("taken");
    let found = disk.process_crash();
    // Nobody has opened it yet: it is gone with the power.
    let lost = store_with(&found.durable_view(), with(None)).expect("works");
    lost.verify(&snapshot).expect_err("no name");
    // Who opens it may count on what it shows.
    let shown = store_with(&found, with(None)).expect("works");
    shown.verify(&snapshot).expect("in the cache");
    let kept = store_with(&found.durable_view(), with(None)).expect("works");
    kept.verify(&snapshot).expect("on the disk");
}

#[test]
fn without_checking_what_was_left_a_resumption_ends_in_a_bad_file() {
    let ablation = Some(SnapshotAblation::ResumeUnchecked);
    let found = run(&disk_of(512), receiving, ablation, 300).expect_err("a bad file");
    assert!(found.message.contains("corrupt"), "{found}");
}

#[test]
fn without_checksums_of_chunks_damage_is_read_as_content() {
    let disk = disk();
    let store = store_with(&disk, with(Some(SnapshotAblation::NoChunkChecksum))).expect("works");
    let before = content(2000, 1);
    let snapshot = take_at(&store, 5, &before).expect("taken");
    let file = disk.open(&path(&snapshot)).expect("there");
    file.write_at(b"other bytes", 5000).expect("written");
    assert_ne!(read_all(&store, &snapshot).expect("believed"), before);
    let store = store_with(&disk, with(None)).expect("works");
    read_all(&store, &snapshot).expect_err("a bad chunk");
}

#[test]
fn without_the_digest_a_chunk_of_another_file_is_read_as_content() {
    // Two files of one name, as after a nonce drawn twice: each chunk is good in itself.
    let (one, two) = (disk(), disk());
    let twin = take_at(&store(&one), 5, &content(2000, 1)).expect("taken");
    let bytes = raw(&store(&one), &twin);
    let ablated = store_with(&two, with(Some(SnapshotAblation::NoDigest))).expect("works");
    let before = content(2000, 2);
    let snapshot = take_at(&ablated, 5, &before).expect("taken");
    assert_eq!(SnapshotName::of(&snapshot), SnapshotName::of(&twin));
    assert_ne!(snapshot.file.digest, twin.file.digest);
    let file = two.open(&path(&snapshot)).expect("there");
    let stride = CHUNK + 12;
    let chunk = 4096 + stride..4096 + 2 * stride;
    file.write_at(&bytes[chunk.clone()], chunk.start as u64)
        .expect("written");
    assert_ne!(read_all(&ablated, &snapshot).expect("believed"), before);
    let store = store_with(&two, with(None)).expect("works");
    let error = store
        .verify(&snapshot)
        .expect_err("a chunk of another file");
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
    // The same over the wire: all that came is void, for nobody can say which part is wrong.
    let (three, mut mixed) = (disk(), raw(&ablated, &snapshot));
    mixed[chunk.clone()].copy_from_slice(&bytes[chunk]);
    let to = super::snapshot::store(&three);
    let mut receiver = to.receive(&snapshot).expect("begun");
    let error = receiver
        .write(0, &mixed)
        .expect_err("a chunk of another file");
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
    drop(receiver);
    assert!(to.list().expect("works").is_empty());
}
