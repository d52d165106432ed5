//! Snapshot files: writing, reading, receiving, resuming, retention, and errors of the disk.

use duraft_core::{Digest, GroupId, Index, LogId, Membership, NodeId, Position, Snapshot, Term};
use duraft_disk::{CacheAfter, Disk, DiskOp, Effect, Fault, FaultDisk, FaultOptions, Survival};
use duraft_storage::{
    ClusterId, SNAPSHOT_CHUNK_HEAD_BYTES, SNAPSHOT_FOOTER_BYTES, SNAPSHOT_HEADER_BYTES,
    SnapshotError, SnapshotFileKind, SnapshotName, SnapshotOptions, SnapshotPart, SnapshotReceiver,
    SnapshotStore,
};
use std::io::{self, Read, Write};
use std::sync::Arc;

pub(crate) const CHUNK: usize = 512;
const CLUSTER: ClusterId = ClusterId(*b"a test's cluster");
const GROUP: GroupId = GroupId(5);

pub(crate) fn options() -> SnapshotOptions {
    SnapshotOptions {
        chunk_bytes: CHUNK as u32,
        ..SnapshotOptions::default()
    }
}

pub(crate) fn disk() -> FaultDisk {
    FaultDisk::new(FaultOptions::default())
}

pub(crate) fn store(disk: &FaultDisk) -> SnapshotStore {
    store_with(disk, options()).expect("the disk works")
}

pub(crate) fn store_with(
    disk: &FaultDisk,
    options: SnapshotOptions,
) -> Result<SnapshotStore, SnapshotError> {
    SnapshotStore::open_with(Arc::new(disk.clone()), CLUSTER, GROUP, options)
}

pub(crate) fn position(index: u64) -> Position {
    let id = LogId {
        index: Index(index),
        term: Term(3),
    };
    Position {
        id,
        digest: Digest(index ^ 0x5555),
    }
}

pub(crate) fn membership() -> Membership {
    Membership::new([1, 2, 3].map(NodeId), [NodeId(9)]).expect("a valid membership")
}

/// Content without repetition, so that no part can stand for another.
pub(crate) fn content(len: usize, seed: u8) -> Vec<u8> {
    let word = |n: u64| duraft_core::mix64(n ^ u64::from(seed) << 56).to_le_bytes();
    let bytes = (0..).flat_map(word);
    bytes.take(len).collect()
}

pub(crate) fn take_at(
    store: &SnapshotStore,
    index: u64,
    content: &[u8],
) -> Result<Snapshot, SnapshotError> {
    let mut writer = store.create(position(index), &membership(), 0xAB00 + index)?;
    // The error comes again, typed, when the snapshot is finished.
    let _ = writer.write_all(content);
    writer.finish()
}

pub(crate) fn read_all(store: &SnapshotStore, snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.read(snapshot)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The snapshot's file as it lies on the disk.
pub(crate) fn raw(store: &SnapshotStore, snapshot: &Snapshot) -> Vec<u8> {
    let source = store.source(snapshot).expect("a whole file");
    source.read(0, u32::MAX).expect("a readable file").to_vec()
}

pub(crate) fn path(snapshot: &Snapshot) -> String {
    format!("snap/{:016x}/{}", GROUP.0, SnapshotName::of(snapshot))
}

fn names(store: &SnapshotStore) -> Vec<(u64, SnapshotFileKind)> {
    let names = store.list().expect("the disk works");
    names.iter().map(|name| (name.index.0, name.kind)).collect()
}

/// Gives the receiver what it wants until it has all, in steps of this size.
fn feed(receiver: &mut SnapshotReceiver, bytes: &[u8], step: usize) -> Result<(), SnapshotError> {
    while !receiver.is_complete() {
        let at = usize::try_from(receiver.received()).expect("small");
        receiver.write(at as u64, &bytes[at..bytes.len().min(at + step)])?;
    }
    Ok(())
}

#[test]
fn what_is_written_is_read() {
    // Lengths around the ends of chunks, where a last chunk is empty, full, or a single byte.
    let lengths = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 10 * CHUNK + 7];
    for len in lengths {
        for step in [1, 7, CHUNK, 5000] {
            let disk = disk();
            let store = store(&disk);
            let content = content(len, 1);
            let mut writer = store.create(position(9), &membership(), 7).expect("begun");
            for piece in content.chunks(step) {
                writer.write_all(piece).expect("the disk works");
            }
            let snapshot = writer.finish().expect("the disk works");
            assert_eq!(read_all(&store, &snapshot).expect("whole"), content);
            assert_eq!(
                store.read(&snapshot).expect("whole").content_bytes(),
                len as u64
            );
            let chunks = len.div_ceil(CHUNK);
            let fixed = SNAPSHOT_HEADER_BYTES + SNAPSHOT_FOOTER_BYTES;
            let bytes = fixed + chunks * SNAPSHOT_CHUNK_HEAD_BYTES + len;
            assert_eq!(snapshot.file.bytes, bytes as u64);
            let name = SnapshotName::of(&snapshot).to_string();
            let info = store.inspect(&name).expect("whole");
            assert_eq!(info.snapshot, snapshot);
            assert_eq!(
                (info.content_bytes, info.chunks as usize),
                (len as u64, chunks)
            );
            // Durable: the worst power loss leaves all of it.
            let after = store_with(&disk.durable_view(), options()).expect("the disk works");
            assert_eq!(read_all(&after, &snapshot).expect("whole"), content);
        }
    }
}

#[test]
fn a_copy_is_the_same_bytes_under_the_same_identity() {
    // If anything in the file named its node, a resumed copy from another leader would not fit.
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    let snapshot = take_at(&from, 4, &content(3000, 2)).expect("taken");
    let bytes = raw(&from, &snapshot);
    for step in [1, 100, 4096, 1 << 20] {
        let mut receiver = to.receive(&snapshot).expect("begun");
        feed(&mut receiver, &bytes, step).expect("good bytes");
        assert_eq!(receiver.finish().expect("whole"), snapshot);
        assert_eq!(raw(&to, &snapshot), bytes);
        two.remove(&path(&snapshot))
            .expect("removed for the next round");
    }
}

#[test]
fn an_interrupted_receipt_resumes_where_it_was() {
    // A transfer that begins again from the start never ends over a bad connection.
    let (one, two) = (disk(), disk());
    let from = store(&one);
    let snapshot = take_at(&from, 4, &content(4000, 3)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let stride = CHUNK + SNAPSHOT_CHUNK_HEAD_BYTES;
    for cut in [
        0,
        100,
        4096,
        4096 + stride - 1,
        4096 + 3 * stride,
        bytes.len(),
    ] {
        let to = store(&two.fork());
        let mut receiver = to.receive(&snapshot).expect("begun");
        receiver.write(0, &bytes[..cut]).expect("good bytes");
        assert_eq!(receiver.received(), cut as u64);
        drop(receiver);
        // Whole parts stay, the beginning of the next one was in memory only.
        let whole = match cut {
            cut if cut == bytes.len() => cut,
            cut if cut < 4096 => 0,
            cut => 4096 + (cut - 4096) / stride * stride,
        };
        let mut receiver = to.receive(&snapshot).expect("resumed");
        assert_eq!(receiver.received(), whole as u64, "cut at {cut}");
        feed(&mut receiver, &bytes, 999).expect("good bytes");
        assert_eq!(receiver.finish().expect("whole"), snapshot);
    }
}

#[test]
fn a_bad_part_is_asked_for_again_and_no_other() {
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    let snapshot = take_at(&from, 4, &content(2000, 4)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let stride = CHUNK + SNAPSHOT_CHUNK_HEAD_BYTES;
    let last = bytes.len() - SNAPSHOT_FOOTER_BYTES;
    let mut receiver = to.receive(&snapshot).expect("begun");
    for (begin, end, part) in [
        (0, 4096, SnapshotPart::Header),
        (4096, 4096 + stride, SnapshotPart::Chunk(0)),
        (4096 + stride, 4096 + 2 * stride, SnapshotPart::Chunk(1)),
        (last, bytes.len(), SnapshotPart::Footer),
    ] {
        let at = usize::try_from(receiver.received()).expect("small");
        receiver
            .write(at as u64, &bytes[at..begin])
            .expect("good bytes");
        for flip in [begin, (begin + end) / 2, end - 1] {
            let mut bad = bytes[begin..end].to_vec();
            bad[flip - begin] ^= 4;
            let error = receiver
                .write(begin as u64, &bad)
                .expect_err("a flipped bit");
            let SnapshotError::Received {
                part: found,
                resume_at,
                ..
            } = error
            else {
                panic!("{error}");
            };
            assert_eq!((found, resume_at), (part, begin as u64));
            assert_eq!(receiver.received(), begin as u64);
        }
    }
    receiver
        .write(last as u64, &bytes[last..])
        .expect("good bytes");
    assert_eq!(receiver.finish().expect("whole"), snapshot);
    assert_eq!(raw(&to, &snapshot), bytes);
}

#[test]
fn bytes_for_another_place_change_nothing() {
    // A duplicated or reordered message must not be written where it does not belong.
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    let snapshot = take_at(&from, 4, &content(900, 4)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let mut receiver = to.receive(&snapshot).expect("begun");
    receiver.write(0, &bytes[..4200]).expect("good bytes");
    let mut refused = |offset: u64, piece: &[u8]| {
        let error = receiver.write(offset, piece).expect_err("another place");
        let SnapshotError::Offset { expected, found } = error else {
            panic!("{error}");
        };
        assert_eq!((expected, found), (4200, offset));
    };
    refused(0, &bytes[..10]);
    refused(4199, &bytes[4199..]);
    refused(4201, &bytes[4201..]);
    refused(u64::MAX, &bytes[..1]);
    let mut too_much = bytes[4200..].to_vec();
    too_much.push(0);
    refused(4200, &too_much);
    let error = to.receive(&snapshot).expect("resumed").finish();
    let error = error.expect_err("most of it has not come");
    assert!(matches!(error, SnapshotError::Unfinished { .. }), "{error}");
}

#[test]
fn another_snapshot_than_announced_is_refused_for_good() {
    // Bytes that are whole but not what was announced: asking again would go on for ever.
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    let snapshot = take_at(&from, 4, &content(900, 4)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let other_members = Membership::new([NodeId(8)], []).expect("one voter");
    let announcements = [
        (
            "position",
            Snapshot {
                position: position(5),
                ..snapshot.clone()
            },
        ),
        (
            "membership",
            Snapshot {
                membership: other_members,
                ..snapshot.clone()
            },
        ),
        ("nonce", with_file(&snapshot, |file| file.nonce ^= 1)),
        ("digest", with_file(&snapshot, |file| file.digest ^= 1)),
        (
            "length",
            with_file(&snapshot, |file| file.bytes = 4096 + 40 + 3),
        ),
    ];
    for (field, announced) in announcements {
        let mut receiver = to.receive(&announced).expect("begun");
        let len = bytes
            .len()
            .min(usize::try_from(announced.file.bytes).expect("small"));
        let error = receiver
            .write(0, &bytes[..len])
            .expect_err("not what was announced");
        let SnapshotError::Foreign { field: found, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*found, field);
        assert!(receiver.write(0, &bytes).is_err(), "it stays refused");
        assert!(receiver.finish().is_err());
    }
    assert_eq!(names(&to), [], "nothing is left of them");
    for bytes in [0, 4095, 4135] {
        let announced = with_file(&snapshot, |file| file.bytes = bytes);
        let error = to.receive(&announced).err().expect("no file is so short");
        assert!(matches!(error, SnapshotError::Foreign { .. }), "{error}");
    }
}

fn with_file(snapshot: &Snapshot, change: impl FnOnce(&mut duraft_core::SnapshotFile)) -> Snapshot {
    let mut snapshot = snapshot.clone();
    change(&mut snapshot.file);
    snapshot
}

#[test]
fn snapshots_of_another_cluster_or_group_are_refused() {
    let disk = disk();
    let store = store(&disk);
    let snapshot = take_at(&store, 4, b"content").expect("taken");
    let door: Arc<dyn Disk> = Arc::new(disk.clone());
    let cluster = SnapshotStore::open(door.clone(), ClusterId([1; 16]), GROUP).expect("opened");
    let error = cluster.read(&snapshot).err().expect("another cluster's");
    assert!(
        matches!(
            error,
            SnapshotError::Foreign {
                field: "cluster",
                ..
            }
        ),
        "{error}"
    );
    let error = cluster.inspect(&SnapshotName::of(&snapshot).to_string());
    let error = error.expect_err("another cluster's");
    assert!(
        matches!(
            error,
            SnapshotError::Foreign {
                field: "cluster",
                ..
            }
        ),
        "{error}"
    );
    // A file that was moved into another group's folder.
    let other = SnapshotStore::open(door, CLUSTER, GroupId(6)).expect("opened");
    assert!(matches!(
        other.read(&snapshot),
        Err(SnapshotError::Missing { .. })
    ));
    let moved = path(&snapshot).replace("0000000000000005/", "0000000000000006/");
    disk.rename(&path(&snapshot), &moved).expect("moved");
    let error = other.read(&snapshot).err().expect("another group's");
    assert!(
        matches!(error, SnapshotError::Foreign { field: "group", .. }),
        "{error}"
    );
}

#[test]
fn a_snapshot_that_stands_here_already_needs_no_bytes() {
    // After a crash between the renaming and the record the same snapshot is offered again.
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    let snapshot = take_at(&from, 4, &content(900, 4)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let mut receiver = to.receive(&snapshot).expect("begun");
    receiver.write(0, &bytes).expect("good bytes");
    assert!(!names(&to).is_empty());
    receiver.finish().expect("whole");
    let again = to.receive(&snapshot).expect("present");
    assert!(again.is_complete());
    drop(again);
    let again = to.receive(&snapshot).expect("present");
    assert_eq!(again.finish().expect("whole"), snapshot);
    to.receive(&snapshot).expect("present").discard();
    assert_eq!(
        raw(&to, &snapshot),
        bytes,
        "what was whole before is not discarded"
    );

    // A damaged one is replaced, and only when the new one has come as a whole.
    let damage = duraft_disk::Damage::FlipBit {
        offset: 5000,
        bit: 1,
    };
    two.sync_dir("").expect("works");
    two.damage(&path(&snapshot), &damage).expect("damaged");
    let error = to.verify(&snapshot).expect_err("a flipped bit");
    let SnapshotError::Corrupt { part, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*part, SnapshotPart::Chunk(1));
    assert!(error.is_damage());
    let mut receiver = to.receive(&snapshot).expect("begun");
    assert_eq!(receiver.received(), 0);
    receiver.write(0, &bytes[..5000]).expect("good bytes");
    assert_eq!(to.list().expect("works").len(), 2);
    receiver.write(5000, &bytes[5000..]).expect("good bytes");
    receiver.finish().expect("whole");
    to.verify(&snapshot).expect("whole again");
    assert_eq!(to.list().expect("works").len(), 1);
}

#[test]
fn reconcile_keeps_what_the_log_names_and_what_can_be_used() {
    let disk = disk();
    let store = store(&disk);
    let all: Vec<Snapshot> = (1..=5)
        .map(|index| take_at(&store, index * 10, &content(700, 1)).expect("taken"))
        .collect();
    // Interrupted receipts below, at and above what is kept, and a writer that died.
    let other = self::disk();
    let from = self::store(&other);
    for index in [20, 31, 42, 43, 44] {
        let snapshot = take_at(&from, index, &content(800, 9)).expect("taken");
        // Each receiver of another snapshot makes room by dropping the oldest: begin them elsewhere.
        let elsewhere = self::disk();
        let receiver = self::store(&elsewhere);
        let bytes = raw(&from, &snapshot);
        let mut receiver = receiver.receive(&snapshot).expect("begun");
        receiver.write(0, &bytes[..4200]).expect("good bytes");
        let name = format!("{}.part", path(&snapshot));
        let part = elsewhere.open(&name).expect("it is there");
        let mut copy = vec![0; 4096];
        part.read_at(&mut copy, 0).expect("read");
        disk.create(&name)
            .and_then(|file| file.write_at(&copy, 0))
            .expect("copied");
    }
    let writer = store.create(position(60), &membership(), 1).expect("begun");
    std::mem::forget(writer);
    let stranger = format!("snap/{:016x}/notes", GROUP.0);
    disk.create(&stranger).expect("made");

    let found = store
        .reconcile(&[&all[2], &all[3]])
        .expect("the disk works");
    use SnapshotFileKind::{Partial, Whole};
    let left = [
        (20, Whole),
        (30, Whole),
        (40, Whole),
        (43, Partial),
        (44, Partial),
    ];
    assert_eq!(names(&store), left);
    assert_eq!(found.removed.len(), 2 + 1 + 3);
    assert_eq!(found.strange, ["notes"]);
    assert_eq!(found.partial.len(), 2);
    assert_eq!(found.missing, []);
    for snapshot in &all[1..4] {
        store.verify(snapshot).expect("kept whole");
    }

    // Nothing more to do, and a reference without a file is told.
    let mut lost = all[3].clone();
    lost.file.nonce ^= 1;
    let found = store
        .reconcile(&[&all[2], &all[3], &lost])
        .expect("the disk works");
    assert_eq!(found.missing, [lost]);
    assert_eq!(found.removed, [] as [String; 0]);

    // A log that names no snapshot: all are orphans.
    store.reconcile(&[]).expect("the disk works");
    assert_eq!(names(&store), [(43, Partial), (44, Partial)]);
}

#[test]
fn retention_keeps_the_latest_and_the_one_before() {
    let disk = disk();
    let store = store(&disk);
    let all: Vec<Snapshot> = (1..=5)
        .map(|index| take_at(&store, index, b"state").expect("taken"))
        .collect();
    // 5 may be on its way into the log: it stays though no record names it yet.
    let removed = store.retire(&all[3]).expect("the disk works");
    assert_eq!(removed.len(), 2);
    use SnapshotFileKind::Whole;
    assert_eq!(names(&store), [(3, Whole), (4, Whole), (5, Whole)]);
    assert!(store.retire(&all[3]).expect("the disk works").is_empty());
    store.retire(&all[4]).expect("the disk works");
    assert_eq!(names(&store), [(4, Whole), (5, Whole)]);

    // Nor does a receipt that was interrupted stay when a later snapshot stands.
    let other = self::disk();
    let from = self::store(&other);
    let stale = take_at(&from, 2, b"state").expect("taken");
    store.receive(&stale).expect("begun");
    assert_eq!(names(&store).len(), 3);
    store.retire(&all[4]).expect("the disk works");
    assert_eq!(names(&store), [(4, Whole), (5, Whole)]);

    // A source that is being sent stays readable when its name is gone.
    let source = store.source(&all[3]).expect("whole");
    let before = source.read(0, u32::MAX).expect("readable");
    store.reconcile(&[]).expect("the disk works");
    assert_eq!(names(&store), []);
    assert_eq!(source.read(0, u32::MAX).expect("readable"), before);
    assert_eq!(
        source.read(100, 50).expect("readable"),
        before.slice(100..150)
    );
    assert_eq!(
        source
            .read(before.len() as u64 + 9, 50)
            .expect("readable")
            .len(),
        0
    );
}

/// Files of snapshots at 1, 2 and 3 in a folder that nobody has read in this life, of which that at 2
/// is damaged, and the store that a start opens.
fn middle_damaged() -> (FaultDisk, SnapshotStore, Vec<Snapshot>) {
    let disk = disk();
    let before = store(&disk);
    let all: Vec<Snapshot> = (1..=3)
        .map(|index| take_at(&before, index, &content(900, 1)).expect("taken"))
        .collect();
    let rot = duraft_disk::Damage::FlipBit {
        offset: 4200,
        bit: 3,
    };
    disk.damage(&path(&all[1]), &rot).expect("in the file");
    let disk = disk.power_loss(Survival::Nothing);
    let opened = store(&disk);
    (disk, opened, all)
}

#[test]
fn a_damaged_file_is_not_the_one_before() {
    // A start that fell back to 1 goes on and takes 3. Were 2 kept and 1 removed, the next damage would
    // find nothing to fall back to.
    use SnapshotFileKind::Whole;
    let good = [(1, Whole), (2, Whole), (3, Whole)];
    for reads in [true, false] {
        let (_disk, store, all) = middle_damaged();
        if reads {
            store.verify(&all[1]).expect_err("it is damaged");
        }
        store.retire(&all[2]).expect("the disk works");
        assert_eq!(names(&store), good);
        store.verify(&all[0]).expect("still there");
        take_at(&store, 4, b"state").expect("taken");
        let latest = take_at(&store, 5, b"state").expect("taken");
        store.retire(&latest).expect("the disk works");
        assert_eq!(names(&store), [(4, Whole), (5, Whole)]);
    }
    let (_disk, store, all) = middle_damaged();
    store.reconcile(&[&all[2]]).expect("the disk works");
    assert_eq!(names(&store), [(1, Whole), (3, Whole)]);
    store.verify(&all[0]).expect("still there");
}

#[test]
fn the_one_before_is_read_once_at_most() {
    // A snapshot can be large: what was written, received or read in this life is not read again.
    let disk = disk();
    let store = store(&disk);
    for index in 1..=20 {
        let taken = take_at(&store, index, &content(900, 1)).expect("taken");
        let reads = disk.ops(DiskOp::Read);
        store.retire(&taken).expect("the disk works");
        assert_eq!(disk.ops(DiskOp::Read), reads, "snapshot {index}");
    }
    let again = self::store(&disk);
    let taken = take_at(&again, 21, b"state").expect("taken");
    again.retire(&taken).expect("the disk works");
    let reads = disk.ops(DiskOp::Read);
    again.retire(&taken).expect("the disk works");
    assert_eq!(disk.ops(DiskOp::Read), reads);
}

#[test]
fn interrupted_receipts_are_bounded() {
    // Each one can be as large as a snapshot.
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    for index in 1..=6 {
        let snapshot = take_at(&from, index, &content(800, 9)).expect("taken");
        let bytes = raw(&from, &snapshot);
        let mut receiver = to.receive(&snapshot).expect("begun");
        receiver.write(0, &bytes[..4700]).expect("good bytes");
    }
    use SnapshotFileKind::Partial;
    assert_eq!(names(&to), [(5, Partial), (6, Partial)]);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let disk = disk();
    let store = store(&disk);
    let mut writer = store.create(position(1), &membership(), 1).expect("begun");
    writer.write_all(&content(5000, 1)).expect("the disk works");
    assert_eq!(writer.content_bytes(), 5000);
    assert_eq!(names(&store).len(), 1);
    writer.abort();
    assert_eq!(names(&store), []);
    // Nor is a name taken twice.
    let snapshot = take_at(&store, 1, b"state").expect("taken");
    let error = store.create(position(1), &membership(), snapshot.file.nonce);
    let error = error.err().expect("the name is taken");
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error}");
}

/// What a full run of both sides does: take, send, receive in two sittings, reconcile.
fn both_sides(disk: &FaultDisk, bytes: &[u8], announced: &Snapshot) -> Result<(), SnapshotError> {
    let store = store_with(disk, options())?;
    store.reconcile(&[])?;
    let taken = take_at(&store, 70, &content(1500, 7))?;
    let mut receiver = store.receive(announced)?;
    let at = usize::try_from(receiver.received()).expect("small");
    receiver.write(at as u64, &bytes[at..at.max(5000)])?;
    drop(receiver);
    let mut receiver = store.receive(announced)?;
    feed(&mut receiver, bytes, 700)?;
    let received = receiver.finish()?;
    store.retire(&received)?;
    store.reconcile(&[&taken, &received])?;
    store.verify(&taken)?;
    store.verify(&received)
}

#[test]
fn every_error_of_the_disk_is_typed_and_leaves_the_store_usable() {
    // A failed write or sync must end in an error and never in a snapshot that is called durable.
    let other = disk();
    let from = store(&other);
    let announced = take_at(&from, 80, &content(1800, 8)).expect("taken");
    let bytes = raw(&from, &announced);
    let effects = [
        Effect::Io,
        Effect::NoSpace,
        Effect::Quota,
        Effect::ShortWrite { bytes: 100 },
        Effect::SyncFails {
            cache: CacheAfter::NewContent,
            landed: None,
        },
        Effect::SyncFails {
            cache: CacheAfter::OldContent,
            landed: Some(3),
        },
    ];
    let mut failures = 0;
    for op in DiskOp::ALL {
        for effect in effects {
            for nth in 1.. {
                let disk = disk();
                disk.inject(Fault::new(effect).on(op).nth(nth));
                let before = disk.ops(op);
                let result = both_sides(&disk, &bytes, &announced);
                if disk.ops(op) - before < nth {
                    result.expect("nothing failed");
                    break;
                }
                if let Err(error) = result {
                    failures += 1;
                    let full = matches!(effect, Effect::NoSpace | Effect::Quota);
                    let typed = if full {
                        matches!(error, SnapshotError::NoSpace(_))
                    } else {
                        matches!(error, SnapshotError::Disk(_))
                    };
                    assert!(typed, "{op:?} {effect:?} {nth}: {error}");
                }
                // In the same process, and after a power loss at the worst moment, the same work
                // goes through, and what it calls durable is.
                disk.heal();
                both_sides(&disk, &bytes, &announced)
                    .unwrap_or_else(|error| panic!("{op:?} {effect:?} {nth}: {error}"));
                let after = store(&disk.durable_view());
                after
                    .verify(&announced)
                    .unwrap_or_else(|error| panic!("{op:?} {effect:?} {nth}: {error}"));
            }
        }
    }
    assert!(failures > 300, "{failures}");
}

#[test]
fn a_full_disk_is_told_before_the_transfer_begins() {
    let other = disk();
    let from = store(&other);
    let announced = take_at(&from, 80, &content(60_000, 8)).expect("taken");
    let small = FaultDisk::new(FaultOptions {
        capacity_bytes: 30_000,
        ..FaultOptions::default()
    });
    let to = store(&small);
    let error = to.receive(&announced).err().expect("no room");
    assert!(matches!(error, SnapshotError::NoSpace(_)), "{error}");
    let error = take_at(&to, 1, &content(60_000, 1)).expect_err("no room");
    assert!(matches!(error, SnapshotError::NoSpace(_)), "{error}");
    assert_eq!(names(&to), []);
    take_at(&to, 2, &content(1000, 1)).expect("a small one still fits");
}

#[test]
fn bytes_that_a_failed_sync_left_in_the_cache_are_written_again() {
    // The process dies after a failed sync and before it can remove the file. The next one reads
    // good bytes that the kernel will never write: they must not be called durable.
    let (one, two) = (disk(), disk());
    let from = store(&one);
    let snapshot = take_at(&from, 4, &content(3000, 3)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let to = store(&two);
    let mut receiver = to.receive(&snapshot).expect("begun");
    receiver.write(0, &bytes).expect("good bytes");
    let effect = Effect::SyncFails {
        cache: CacheAfter::NewContent,
        landed: Some(1),
    };
    two.inject(Fault::new(effect).on(DiskOp::SyncAll));
    two.inject(Fault::new(Effect::Io).on(DiskOp::Remove));
    receiver.finish().expect_err("the sync failed");
    let next = two.process_crash();
    let to = store(&next);
    let receiver = to.receive(&snapshot).expect("resumed");
    assert!(receiver.is_complete(), "the cache shows all of it");
    receiver.finish().expect("synced now");
    store(&next.durable_view())
        .verify(&snapshot)
        .expect("durable");
}

#[test]
fn a_failed_writer_says_why_at_the_end() {
    let disk = disk();
    let store = store(&disk);
    let mut writer = store.create(position(1), &membership(), 1).expect("begun");
    disk.inject(Fault::new(Effect::NoSpace).on(DiskOp::Write));
    let error = writer.write_all(&content(5000, 1)).expect_err("no room");
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    writer.write_all(b"more").expect_err("still failed");
    let error = writer.finish().expect_err("still failed");
    assert!(matches!(error, SnapshotError::NoSpace(_)), "{error}");
    assert_eq!(names(&store), []);
}

#[test]
fn options_have_limits() {
    assert!(SnapshotOptions::default().validate().is_empty());
    let wrong = SnapshotOptions {
        chunk_bytes: 1 << 21,
        sync_bytes: 0,
        ..SnapshotOptions::default()
    };
    assert_eq!(wrong.validate().len(), 2);
    let store = store_with(&disk(), wrong).expect("opened");
    assert!(
        store.options().validate().is_empty(),
        "brought within the limits"
    );
}

#[test]
fn a_longer_leftover_does_not_become_part_of_the_file() {
    // Nothing written later could shorten it.
    let (one, two) = (disk(), disk());
    let (from, to) = (store(&one), store(&two));
    let snapshot = take_at(&from, 4, &content(900, 4)).expect("taken");
    let bytes = raw(&from, &snapshot);
    let mut longer = bytes[..4700].to_vec();
    longer.resize(bytes.len() + 1, 0);
    let left = two
        .create(&format!("{}.part", path(&snapshot)))
        .expect("made");
    left.write_at(&longer, 0).expect("written");
    let mut receiver = to.receive(&snapshot).expect("begun");
    feed(&mut receiver, &bytes, 1000).expect("good bytes");
    receiver.finish().expect("whole");
    to.verify(&snapshot).expect("whole");
}

#[test]
fn a_name_that_could_not_be_made_durable_is_taken_back() {
    // The file would be found whole in this life and might be gone in the next.
    let disk = disk();
    let store = store(&disk);
    disk.inject(Fault::new(Effect::Io).on(DiskOp::SyncDir));
    let error = take_at(&store, 4, b"state").expect_err("the folder was not synced");
    assert!(matches!(error, SnapshotError::Disk(_)), "{error}");
    assert_eq!(names(&store), []);
    let snapshot = take_at(&store, 4, b"state").expect("the disk works again");
    self::store(&disk.durable_view())
        .verify(&snapshot)
        .expect("durable");
}
