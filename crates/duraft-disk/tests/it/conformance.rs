//! What both disks promise a storage engine, asked of both with the same calls.

use duraft_disk::{Disk, FaultDisk, FaultOptions, RealDisk};
use std::io::ErrorKind;

/// Runs the test on the real file system and on the simulated disk.
fn on_both(test: impl Fn(&dyn Disk)) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder");
    test(&RealDisk::open(folder.path()).expect("it exists"));
    for sector_bytes in [512, 4096] {
        test(&FaultDisk::new(FaultOptions {
            sector_bytes,
            ..FaultOptions::default()
        }));
    }
}

fn text(disk: &dyn Disk, name: &str) -> String {
    let file = disk.open(name).unwrap();
    let len = usize::try_from(file.len().unwrap()).unwrap();
    let mut bytes = vec![0; len];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), len);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn written_bytes_are_read_back_at_every_offset() {
    // A write across page and sector borders could land beside its place.
    on_both(|disk| {
        let file = disk.create("f").unwrap();
        let mut expected = Vec::new();
        for (round, offset) in [0, 511, 513, 4090, 4096, 8191, 12_000, 3]
            .into_iter()
            .enumerate()
        {
            let bytes: Vec<u8> = (0..5000_u32)
                .map(|i| (i % 251) as u8 ^ round as u8)
                .collect();
            file.write_at(&bytes, offset as u64).unwrap();
            if expected.len() < offset + bytes.len() {
                expected.resize(offset + bytes.len(), 0);
            }
            expected[offset..offset + bytes.len()].copy_from_slice(&bytes);
            assert_eq!(file.len().unwrap(), expected.len() as u64);
            let mut found = vec![0; expected.len()];
            assert_eq!(file.read_at(&mut found, 0).unwrap(), found.len());
            assert_eq!(found, expected);
            let map = file.map().unwrap().expect("both disks offer views");
            assert_eq!(&*map, expected.as_slice());
        }
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        disk.sync_dir("").unwrap();
    });
}

#[test]
fn reads_are_short_only_at_the_end() {
    // A reader that loops on a short read inside the file would see the same bytes twice.
    on_both(|disk| {
        let file = disk.create("f").unwrap();
        file.write_at(&[1; 10_000], 0).unwrap();
        let mut buf = vec![0; 9000];
        assert_eq!(file.read_at(&mut buf, 500).unwrap(), 9000);
        assert_eq!(file.read_at(&mut buf, 5000).unwrap(), 5000);
        assert_eq!(file.read_at(&mut buf, 10_000).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, 20_000).unwrap(), 0);
        assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
    });
}

#[test]
fn gap_before_a_far_write_reads_as_zeros() {
    on_both(|disk| {
        let file = disk.create("f").unwrap();
        file.write_at(b"end", 9000).unwrap();
        let map = file.map().unwrap().expect("both disks offer views");
        assert!(map[..9000].iter().all(|byte| *byte == 0));
        assert_eq!(&map[9000..], b"end");
    });
}

#[test]
fn filling_with_zeros_wipes_and_sets_the_length() {
    // Bytes of a slot's former life must not show through, nor a tail stay behind it.
    on_both(|disk| {
        let file = disk.create("f").unwrap();
        for (before, len) in [
            (5000, 3 << 20),
            (5000, 5000),
            (9000, 4096),
            (10, 0),
            (0, 100),
        ] {
            file.write_at(&vec![9; before], 0).unwrap();
            file.fill_zero(len).unwrap();
            assert_eq!(file.len().unwrap(), len);
            let map = file.map().unwrap().expect("both disks offer views");
            assert!(map.iter().all(|byte| *byte == 0));
        }
    });
}

#[test]
fn empty_file_has_an_empty_view() {
    on_both(|disk| {
        let map = disk.create("f").unwrap().map().unwrap();
        assert!(map.expect("both disks offer views").is_empty());
    });
}

#[test]
fn names_are_listed_per_folder_in_order() {
    on_both(|disk| {
        disk.create_dir("wal").unwrap();
        disk.create_dir("wal").unwrap();
        disk.create_dir("wal/old").unwrap();
        for name in ["wal/b", "wal/a", "walrus", "wal/old/c"] {
            disk.create(name).unwrap();
        }
        assert_eq!(disk.list("").unwrap(), ["wal", "walrus"]);
        assert_eq!(disk.list("wal").unwrap(), ["a", "b", "old"]);
        assert_eq!(disk.list("wal/old").unwrap(), ["c"]);
        assert_eq!(disk.list("no").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            disk.list("walrus").unwrap_err().kind(),
            ErrorKind::NotADirectory
        );
    });
}

#[test]
fn renaming_replaces_and_removing_frees_the_name() {
    on_both(|disk| {
        disk.create("a").unwrap().write_at(b"new", 0).unwrap();
        disk.create("b").unwrap().write_at(b"old", 0).unwrap();
        let old = disk.open("b").unwrap();
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.list("").unwrap(), ["b"]);
        assert_eq!(text(disk, "b"), "new");
        // An open file outlives its name.
        assert_eq!(old.len().unwrap(), 3);
        old.write_at(b"x", 3).unwrap();
        assert_eq!(text(disk, "b"), "new");
        disk.rename("b", "b").unwrap();
        disk.remove("b").unwrap();
        assert!(disk.list("").unwrap().is_empty());
        disk.create("b").unwrap();
        assert_eq!(text(disk, "b"), "");
    });
}

#[test]
fn refusals_have_the_same_kind_on_both() {
    // An engine tested against one kind of refusal must meet the same on the other disk.
    on_both(|disk| {
        disk.create_dir("d").unwrap();
        disk.create("f").unwrap();
        let kind = |result: Result<(), duraft_disk::DiskError>| result.unwrap_err().kind();
        assert_eq!(kind(disk.create("f").map(drop)), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create("d").map(drop)), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.create("no/f").map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(disk.create("f/f").map(drop)), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.open("no").map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(disk.open("d").map(drop)), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.open("f/f").map(drop)), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.create_dir("no/d")), ErrorKind::NotFound);
        assert_eq!(kind(disk.create_dir("f")), ErrorKind::AlreadyExists);
        assert_eq!(kind(disk.rename("no", "x")), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename("f", "no/x")), ErrorKind::NotFound);
        assert_eq!(kind(disk.rename("f", "d")), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.remove("no")), ErrorKind::NotFound);
        assert_eq!(kind(disk.remove("d")), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.sync_dir("no")), ErrorKind::NotFound);
        for bad in ["", "/f", "f/", "a//b", ".", "..", "a/../b", "a\0b"] {
            assert_eq!(
                kind(disk.create(bad).map(drop)),
                ErrorKind::InvalidInput,
                "{bad:?}"
            );
            assert_eq!(
                kind(disk.open(bad).map(drop)),
                ErrorKind::InvalidInput,
                "{bad:?}"
            );
            assert_eq!(
                kind(disk.rename("f", bad)),
                ErrorKind::InvalidInput,
                "{bad:?}"
            );
            assert_eq!(
                kind(disk.lock(bad).map(drop)),
                ErrorKind::InvalidInput,
                "{bad:?}"
            );
        }
        assert_eq!(kind(disk.list("../x").map(drop)), ErrorKind::InvalidInput);
        // Nothing of all that changed anything.
        assert_eq!(disk.list("").unwrap(), ["d", "f"]);
    });
}

#[test]
fn lock_keeps_a_second_holder_out_until_it_is_dropped() {
    on_both(|disk| {
        let held = disk.lock("LOCK").unwrap();
        let second = disk.lock("LOCK").map(drop).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::WouldBlock);
        assert!(disk.lock("OTHER").is_ok());
        drop(held);
        drop(disk.lock("LOCK").unwrap());
        // The lock is a file, and stays.
        assert_eq!(disk.list("").unwrap(), ["LOCK", "OTHER"]);
    });
}

#[test]
fn writes_past_the_largest_file_are_refused() {
    // Offsets computed from damaged headers must come back as errors.
    on_both(|disk| {
        let file = disk.create("f").unwrap();
        for offset in [u64::MAX, u64::MAX - 1, 1 << 62] {
            assert!(file.write_at(b"abc", offset).is_err());
            // A place that no file reaches: past the end, or refused as invalid.
            assert!(matches!(file.read_at(&mut [0; 4], offset), Ok(0) | Err(_)));
        }
        assert_eq!(file.len().unwrap(), 0);
    });
}

#[test]
fn free_space_is_told() {
    on_both(|disk| assert!(disk.free_bytes().unwrap() > 0));
}
