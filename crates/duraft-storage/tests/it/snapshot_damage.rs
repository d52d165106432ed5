//! Damage at rest: no damaged snapshot file is ever read as good, and what is given out before the
//! damage is met is what was written.

use super::snapshot::{CHUNK, content, disk, path, raw, store, take_at};
use duraft_core::Snapshot;
use duraft_disk::{Damage, Disk, FaultDisk};
use duraft_storage::{SnapshotError, SnapshotName, SnapshotStore};
use std::io::Read;

/// Reads until the end or the first error; what was given out must be a beginning of the content.
fn read_some(
    store: &SnapshotStore,
    snapshot: &Snapshot,
    content: &[u8],
) -> Result<(), SnapshotError> {
    let mut reader = store.read(snapshot)?;
    let mut read = Vec::new();
    let result = reader.read_to_end(&mut read);
    assert!(
        content.starts_with(&read),
        "bytes were given out that were never written"
    );
    match result {
        Ok(_) => {
            assert_eq!(read, content, "an end was reported that is none");
            Ok(())
        }
        Err(error) => {
            reader
                .read_to_end(&mut read)
                .expect_err("an error is no end of the stream");
            let error = error.into_inner().expect("a typed error");
            Err(*error.downcast::<SnapshotError>().expect("a typed error"))
        }
    }
}

/// A disk with a snapshot and, before and after it, one more each.
fn start(content: &[u8]) -> (FaultDisk, Snapshot, Snapshot) {
    let disk = disk();
    let store = store(&disk);
    let other = take_at(&store, 4, &self::content(content.len(), 77)).expect("taken");
    let snapshot = take_at(&store, 5, content).expect("taken");
    (disk.durable_view(), snapshot, other)
}

#[test]
fn every_flipped_bit_is_found() {
    let content = content(3 * CHUNK + 77, 1);
    let (disk, snapshot, _) = start(&content);
    let store = store(&disk);
    let file = disk.open(&path(&snapshot)).expect("there");
    let bytes = raw(&store, &snapshot);
    for (at, byte) in bytes.iter().enumerate() {
        for bit in 0..8 {
            file.write_at(&[byte ^ 1 << bit], at as u64)
                .expect("written");
            let error = read_some(&store, &snapshot, &content).expect_err("a flipped bit");
            assert!(
                matches!(error, SnapshotError::Corrupt { .. }),
                "{at}.{bit}: {error}"
            );
            assert!(error.is_damage());
        }
        // Tools must not be taken in either: header and footer are checked where they are shown.
        let shown = store.inspect(&SnapshotName::of(&snapshot).to_string());
        let in_the_middle = (4096..bytes.len() - 40).contains(&at);
        assert_eq!(shown.is_ok(), in_the_middle, "byte {at}");
        file.write_at(&[*byte], at as u64).expect("written");
    }
    read_some(&store, &snapshot, &content).expect("as it was");
}

#[test]
fn every_bad_sector_is_found() {
    let content = content(6 * CHUNK, 1);
    let (start, snapshot, other) = start(&content);
    let name = path(&snapshot);
    let sectors = start.sectors(&name).expect("there");
    let mut damages = Vec::new();
    for sector in 0..sectors {
        damages.push(Damage::ZeroSector { sector });
        damages.push(Damage::StaleSector { sector });
        damages.push(Damage::GarbageSector {
            sector,
            seed: sector,
        });
        for other_file in [&name, &path(&other)] {
            for place in 0..sectors {
                let other_file = other_file.clone();
                damages.push(Damage::SwapSectors {
                    sector,
                    other_file,
                    other: place,
                });
            }
        }
        let other_file = name.clone();
        let other = (sector + 3) % sectors;
        damages.push(Damage::Misdirect {
            sector,
            other_file,
            other,
        });
    }
    let mut changed = 0;
    for damage in damages {
        let disk = start.fork();
        let effective = disk.damage(&name, &damage).expect("a sector of the file");
        let store = store(&disk);
        let own = raw(&store, &snapshot) != raw(&self::store(&start), &snapshot);
        assert!(effective || !own);
        let result = read_some(&store, &snapshot, &content);
        assert_eq!(result.is_err(), own, "{damage:?}");
        changed += u64::from(own);
    }
    assert!(changed > 300, "{changed}");
}

#[test]
fn every_other_length_is_found() {
    let content = content(2 * CHUNK, 1);
    let (start, snapshot, _) = start(&content);
    let bytes = raw(&store(&start), &snapshot);
    let name = path(&snapshot);
    let lengths = (0..bytes.len() + 50).filter(|len| *len != bytes.len());
    for len in lengths {
        let disk = start.fork();
        disk.remove(&name).expect("there");
        let file = disk.create(&name).expect("made");
        let mut cut = bytes.clone();
        cut.resize(len, 7);
        file.write_at(&cut, 0).expect("written");
        let store = store(&disk);
        let error = read_some(&store, &snapshot, &content).expect_err("another length");
        let SnapshotError::Torn {
            expected, found, ..
        } = error
        else {
            panic!("{len}: {error}");
        };
        assert_eq!((expected, found), (bytes.len() as u64, len as u64));
        assert!(
            store
                .inspect(&SnapshotName::of(&snapshot).to_string())
                .is_err()
        );
    }
}

#[test]
fn an_unreadable_sector_is_an_error_of_the_disk() {
    // The file may be good: another attempt or another path to the disk may read it.
    let content = content(2 * CHUNK, 1);
    let (disk, snapshot, _) = start(&content);
    disk.make_unreadable(&path(&snapshot), 4700..4701);
    let store = store(&disk);
    let error = read_some(&store, &snapshot, &content).expect_err("unreadable");
    assert!(matches!(error, SnapshotError::Disk(_)), "{error}");
    assert!(!error.is_damage());
    // It can be replaced by a copy from elsewhere all the same.
    let healthy = disk.fork();
    let bytes = raw(&self::store(&healthy), &snapshot);
    let mut receiver = store.receive(&snapshot).expect("begun");
    assert_eq!(receiver.received(), 0);
    receiver.write(0, &bytes).expect("good bytes");
    assert_eq!(store.list().expect("works").len(), 3);
    disk.heal();
    receiver.finish().expect("replaced");
    read_some(&store, &snapshot, &content).expect("readable again");
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let content = content(100, 1);
    let (disk, snapshot, _) = start(&content);
    let file = disk.open(&path(&snapshot)).expect("there");
    let mut header = raw(&store(&disk), &snapshot);
    header.truncate(4096);
    header[4] = 9;
    let sum = crc32fast::hash(&header[..4092]).to_le_bytes();
    header[4092..].copy_from_slice(&sum);
    file.write_at(&header, 0).expect("written");
    let error = read_some(&store(&disk), &snapshot, &content).expect_err("newer");
    assert!(matches!(error, SnapshotError::Newer { .. }), "{error}");
    assert!(!error.is_damage());
}

#[test]
fn after_an_error_nothing_more_is_read() {
    // The footer cannot be read at first: what is read when it can is not content.
    let content = content(2 * CHUNK, 1);
    let (disk, snapshot, _) = start(&content);
    let end = snapshot.file.bytes;
    let store = store(&disk);
    let mut reader = store.read(&snapshot).expect("the header is whole");
    disk.make_unreadable(&path(&snapshot), end - 1..end);
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect_err("unreadable");
    disk.heal();
    reader.read_to_end(&mut read).expect_err("still");
    assert_eq!(read, content[..CHUNK], "the last chunk was held back");
}

#[test]
fn a_chunk_of_another_snapshot_is_found_where_it_stands() {
    // It is good in itself, and of the same number and length: the nonce in its checksum tells. Found
    // by the digest at the end only, all that was received would be void.
    let content = content(3 * CHUNK, 1);
    let (disk, snapshot, other) = start(&content);
    let store = store(&disk);
    let stride = CHUNK + 12;
    let chunk = 4096 + stride..4096 + 2 * stride;
    let mut mixed = raw(&store, &snapshot);
    mixed[chunk.clone()].copy_from_slice(&raw(&store, &other)[chunk.clone()]);
    let elsewhere = self::disk();
    let mut receiver = self::store(&elsewhere).receive(&snapshot).expect("begun");
    let error = receiver.write(0, &mixed).expect_err("another's chunk");
    let SnapshotError::Received { resume_at, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(resume_at, chunk.start as u64);
    let file = disk.open(&path(&snapshot)).expect("there");
    file.write_at(&mixed, 0).expect("written");
    let error = read_some(&store, &snapshot, &content).expect_err("another's chunk");
    let SnapshotError::Corrupt { part, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(part, duraft_storage::SnapshotPart::Chunk(1));
}
