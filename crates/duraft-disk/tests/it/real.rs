//! What only the real disk does.

use duraft_disk::{Disk, RealDisk};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch folder")
}

#[test]
fn filled_file_has_no_holes() {
    // Preallocation that leaves holes or unwritten extents makes each commit change metadata.
    let folder = scratch();
    let disk = RealDisk::open(folder.path()).unwrap();
    let file = disk.create("slot").unwrap();
    file.fill_zero(1 << 20).unwrap();
    file.sync_all().unwrap();
    let meta = std::fs::metadata(folder.path().join("slot")).unwrap();
    assert!(meta.blocks() * 512 >= 1 << 20, "{} blocks", meta.blocks());
}

#[test]
fn root_is_made_with_its_parents_or_refused() {
    let folder = scratch();
    let root = folder.path().join("a/b/c");
    assert_eq!(
        RealDisk::open(&root).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    RealDisk::create(&root).unwrap();
    let disk = RealDisk::create(&root).unwrap();
    assert_eq!(disk.root(), root);
    disk.create("f").unwrap();
    let below_file = RealDisk::create(root.join("f/x")).unwrap_err();
    assert_eq!(below_file.kind(), ErrorKind::NotADirectory);
    assert_eq!(
        RealDisk::open(root.join("f")).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
}

#[test]
fn error_names_operation_and_whole_path() {
    let folder = scratch();
    let disk = RealDisk::open(folder.path()).unwrap();
    let text = disk.open("wal/7").map(drop).unwrap_err().to_string();
    assert!(
        text.contains("Open") && text.contains(&*folder.path().to_string_lossy()),
        "{text}"
    );
    assert!(text.contains("wal/7"), "{text}");
}

#[test]
fn view_outlives_file_and_name() {
    let folder = scratch();
    let disk = RealDisk::open(folder.path()).unwrap();
    let file = disk.create("f").unwrap();
    file.write_at(b"sealed", 0).unwrap();
    let map = file.map().unwrap().expect("the real disk offers views");
    drop(file);
    disk.remove("f").unwrap();
    let copy = map.clone();
    drop(map);
    assert_eq!(&*copy, b"sealed");
}
