//! Operations that fail on purpose.

use duraft_disk::{
    CacheAfter, Disk, DiskError, DiskFile, DiskOp, Effect, Fault, FaultDisk, FaultOptions, Survival,
};
use std::io::ErrorKind;
use std::sync::Arc;

fn with_file() -> (FaultDisk, Arc<dyn DiskFile>) {
    let disk = FaultDisk::new(FaultOptions::default());
    let file = disk.create("f").unwrap();
    file.write_at(&[b'o'; 2048], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

fn bytes(disk: &FaultDisk) -> Vec<u8> {
    disk.open("f")
        .unwrap()
        .map()
        .unwrap()
        .expect("views are offered")
        .to_vec()
}

fn count(disk: &FaultDisk, wanted: u8) -> usize {
    bytes(disk).iter().filter(|byte| **byte == wanted).count()
}

fn raw(result: Result<(), DiskError>) -> i32 {
    result.unwrap_err().source.raw_os_error().unwrap_or(0)
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

#[test]
fn nth_operation_of_a_kind_fails_once() {
    let (disk, file) = with_file();
    disk.inject(Fault::new(Effect::Io).on(DiskOp::Write).nth(2));
    let other = disk.create("g").unwrap();
    assert!(file.write_at(b"1", 0).is_ok());
    assert!(file.sync_data().is_ok());
    assert_eq!(raw(other.write_at(b"2", 0)), EIO);
    assert_eq!(other.len().unwrap(), 0);
    assert!(other.write_at(b"3", 0).is_ok());
}

#[test]
fn fault_without_kind_counts_changes_only() {
    let (disk, file) = with_file();
    disk.inject(Fault::new(Effect::NoSpace).nth(2));
    file.read_at(&mut [0], 0).unwrap();
    disk.list("").unwrap();
    file.write_at(b"1", 0).unwrap();
    file.read_at(&mut [0], 0).unwrap();
    assert_eq!(raw(file.sync_data()), ENOSPC);
}

#[test]
fn lasting_fault_of_one_file_spares_the_others() {
    let (disk, file) = with_file();
    let other = disk.create("g").unwrap();
    disk.inject(
        Fault::new(Effect::Quota)
            .on(DiskOp::Write)
            .of("f")
            .forever(),
    );
    for _ in 0..3 {
        assert_eq!(raw(file.write_at(b"x", 0)), EDQUOT);
        other.write_at(b"x", 0).unwrap();
    }
    disk.heal();
    file.write_at(b"x", 0).unwrap();
}

#[test]
fn every_kind_can_fail() {
    // A kind that the fault rules forget would leave an error path untested for ever.
    for op in DiskOp::ALL {
        let (disk, file) = with_file();
        disk.inject(Fault::new(Effect::Io).on(op).forever());
        let result = match op {
            DiskOp::List => disk.list("").map(drop),
            DiskOp::CreateDir => disk.create_dir("d"),
            DiskOp::Create => disk.create("g").map(drop),
            DiskOp::Open => disk.open("f").map(drop),
            DiskOp::Rename => disk.rename("f", "g"),
            DiskOp::Remove => disk.remove("f"),
            DiskOp::SyncDir => disk.sync_dir(""),
            DiskOp::Lock => disk.lock("L").map(drop),
            DiskOp::FreeBytes => disk.free_bytes().map(drop),
            DiskOp::Len => file.len().map(drop),
            DiskOp::Read => file.read_at(&mut [0], 0).map(drop),
            DiskOp::Write => file.write_at(b"x", 0),
            DiskOp::SyncData => file.sync_data(),
            DiskOp::SyncAll => file.sync_all(),
            DiskOp::FillZero => file.fill_zero(10),
            DiskOp::Map => file.map().map(drop),
        };
        let error = result.expect_err("the fault hits");
        assert_eq!((error.op, error.source.raw_os_error()), (op, Some(EIO)));
        disk.heal();
        assert_eq!(disk.list("").unwrap(), ["f"], "{op:?} changed something");
        assert_eq!(count(&disk, b'o'), 2048, "{op:?} changed something");
        assert_eq!(
            disk.ops(op),
            1 + u64::from(op == DiskOp::List)
                + match op {
                    // The setup and the checks above use these as well.
                    DiskOp::Create | DiskOp::SyncDir | DiskOp::SyncData | DiskOp::Write => 1,
                    DiskOp::Open | DiskOp::Map => 1,
                    DiskOp::List
                    | DiskOp::CreateDir
                    | DiskOp::Rename
                    | DiskOp::Remove
                    | DiskOp::Lock
                    | DiskOp::FreeBytes
                    | DiskOp::Len
                    | DiskOp::Read
                    | DiskOp::SyncAll
                    | DiskOp::FillZero => 0,
                }
        );
    }
}

#[test]
fn short_write_leaves_its_front() {
    let (disk, file) = with_file();
    disk.inject(Fault::new(Effect::ShortWrite { bytes: 700 }).on(DiskOp::Write));
    assert_eq!(raw(file.write_at(&[b'n'; 1024], 0)), EIO);
    assert_eq!(count(&disk, b'n'), 700);
    assert_eq!(disk.crash_point().items().len(), 2);
}

#[test]
fn failed_sync_that_drops_pages_shows_the_old_content() {
    let (disk, file) = with_file();
    file.write_at(&[b'n'; 1024], 0).unwrap();
    let cache = CacheAfter::OldContent;
    disk.inject(
        Fault::new(Effect::SyncFails {
            cache,
            landed: None,
        })
        .on(DiskOp::SyncData),
    );
    assert_eq!(raw(file.sync_data()), EIO);
    assert_eq!(count(&disk, b'n'), 0);
    assert!(file.sync_data().is_ok());
    assert_eq!(count(&disk.power_loss(Survival::Everything), b'n'), 0);
}

#[test]
fn failed_sync_that_keeps_pages_shows_content_that_no_sync_will_write() {
    // The trap of retrying: everything looks right until the machine restarts.
    let (disk, file) = with_file();
    file.write_at(&[b'n'; 1024], 0).unwrap();
    let cache = CacheAfter::NewContent;
    disk.inject(
        Fault::new(Effect::SyncFails {
            cache,
            landed: None,
        })
        .on(DiskOp::SyncData),
    );
    assert_eq!(raw(file.sync_data()), EIO);
    assert_eq!(count(&disk, b'n'), 1024);
    assert!(file.sync_data().is_ok());
    let disk = disk.process_crash();
    assert_eq!(count(&disk, b'n'), 1024);
    disk.open("f").unwrap().sync_all().unwrap();
    let evicted = disk.fork();
    evicted.evict_clean();
    assert_eq!(count(&evicted, b'n'), 0);
    // Writing the content again and syncing it does help.
    let rewritten = disk.fork();
    let file = rewritten.open("f").unwrap();
    file.write_at(&[b'n'; 1024], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(count(&rewritten.power_loss(Survival::Nothing), b'n'), 1024);
    assert_eq!(count(&disk.power_loss(Survival::Everything), b'n'), 0);
}

#[test]
fn failed_sync_may_have_written_some() {
    let (disk, file) = with_file();
    file.write_at(&[b'n'; 2048], 0).unwrap();
    let effect = Effect::SyncFails {
        cache: CacheAfter::NewContent,
        landed: Some(4),
    };
    disk.inject(Fault::new(effect).on(DiskOp::SyncData));
    assert!(file.sync_data().is_err());
    let landed = count(&disk.durable_view(), b'n');
    assert!(
        landed > 0 && landed < 2048 && landed.is_multiple_of(512),
        "{landed}"
    );
}

#[test]
fn lying_sync_leaves_everything_pending() {
    let (disk, file) = with_file();
    disk.inject(Fault::new(Effect::SyncLies).on(DiskOp::SyncData));
    disk.inject(Fault::new(Effect::SyncLies).on(DiskOp::SyncDir));
    file.write_at(&[b'n'; 1024], 0).unwrap();
    disk.create("g").unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(disk.crash_point().items().len(), 3);
    assert_eq!(disk.durable_view().list("").unwrap(), ["f"]);
}

#[test]
fn full_disk_refuses_growth_and_nothing_else() {
    let disk = FaultDisk::new(FaultOptions {
        capacity_bytes: 4096,
        ..FaultOptions::default()
    });
    let file = disk.create("f").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 4096);
    file.fill_zero(4000).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 96);
    assert_eq!(
        file.write_at(&[1; 97], 4000).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(
        file.fill_zero(5000).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    assert_eq!(file.len().unwrap(), 4000);
    file.write_at(&[1; 4000], 0).unwrap();
    file.write_at(&[1; 96], 4000).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 0);
    disk.remove("f").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 4096);
}

#[test]
fn unreadable_range_fails_reads_that_touch_it() {
    let (disk, file) = with_file();
    disk.make_unreadable("f", 600..700);
    let mut buf = [0; 100];
    assert!(file.read_at(&mut buf, 500).is_ok());
    assert!(file.read_at(&mut buf, 501).is_err());
    assert!(file.read_at(&mut buf, 699).is_err());
    assert!(file.read_at(&mut buf, 700).is_ok());
    assert!(file.map().is_err());
    disk.heal();
    assert!(file.read_at(&mut buf, 600).is_ok());
}

#[test]
fn operations_are_counted_and_traced() {
    let (disk, file) = with_file();
    assert_eq!(disk.mutations(), 4);
    disk.start_trace();
    file.write_at(b"abc", 7).unwrap();
    file.read_at(&mut [0], 0).unwrap();
    file.sync_data().unwrap();
    disk.rename("f", "g").unwrap();
    let trace: Vec<String> = disk.trace().iter().map(ToString::to_string).collect();
    assert_eq!(
        trace,
        ["#5 Write 'f' 7+3", "#6 SyncData 'f'", "#7 Rename 'f'"]
    );
}
