//! Errors that come late or at drawn moments, sectors that survive in part, and gates.

use duraft_disk::{
    CacheAfter, Disk, DiskOp, Effect, Fault, FaultDisk, FaultOptions, FaultRates, Gate, StallDisk,
    Subsets, Survival, Tear, explore,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A disk with a durable file of two sectors of `o`.
fn disk() -> FaultDisk {
    let disk = FaultDisk::new(FaultOptions::default());
    let file = disk.create("f").unwrap();
    file.write_at(&[b'o'; 1024], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    disk
}

fn content(disk: &FaultDisk) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let file = disk.open("f").unwrap();
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 1024);
    bytes
}

fn lost_in_writeback(cache: CacheAfter, reported: bool) -> FaultDisk {
    let disk = disk();
    let file = disk.open("f").unwrap();
    disk.inject(Fault::new(Effect::WritebackFails { cache, reported }).on(DiskOp::Write));
    file.write_at(&[b'n'; 512], 0).unwrap();
    file.write_at(&[b'm'; 512], 512).unwrap();
    disk
}

#[test]
fn late_error_is_reported_once_and_the_write_stays_lost() {
    for cache in [CacheAfter::OldContent, CacheAfter::NewContent] {
        let disk = lost_in_writeback(cache, true);
        let read = content(&disk)[0];
        let kept = match cache {
            CacheAfter::OldContent => b'o',
            CacheAfter::NewContent => b'n',
        };
        assert_eq!(read, kept);
        let file = disk.open("f").unwrap();
        assert!(file.sync_data().is_err());
        // The second sync succeeds and proves nothing: the trap that this fault is for.
        assert!(file.sync_data().is_ok());
        let after = content(&disk.power_loss(Survival::Nothing));
        assert_eq!(&after[..512], &[b'o'; 512]);
        // What the failed sync did not lose it wrote.
        assert_eq!(&after[512..], &[b'm'; 512]);
    }
}

#[test]
fn error_that_somebody_else_took_is_never_reported() {
    let disk = lost_in_writeback(CacheAfter::NewContent, false);
    assert!(disk.open("f").unwrap().sync_data().is_ok());
    assert_eq!(content(&disk.power_loss(Survival::Everything))[0], b'o');
}

#[test]
fn late_error_survives_the_process_and_not_the_power() {
    let disk = lost_in_writeback(CacheAfter::NewContent, true);
    let again = disk.process_crash();
    assert!(again.fork().open("f").unwrap().sync_data().is_err());
    let next = again.power_loss(Survival::Nothing);
    assert!(next.open("f").unwrap().sync_data().is_ok());
}

#[test]
fn write_over_what_was_lost_is_durable_again() {
    let disk = lost_in_writeback(CacheAfter::OldContent, false);
    let file = disk.open("f").unwrap();
    file.write_at(&[b'n'; 512], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(content(&disk.power_loss(Survival::Nothing))[0], b'n');
}

/// What a fixed series of operations meets on a disk with these rates.
fn outcomes(seed: u64, rates: FaultRates) -> Vec<Option<i32>> {
    let disk = disk();
    let file = disk.open("f").unwrap();
    disk.inject_drawn(seed, rates);
    let mut met = Vec::new();
    let mut note = |result: Result<(), duraft_disk::DiskError>| {
        met.push(result.err().map(|e| e.source.raw_os_error().unwrap_or(0)));
    };
    for round in 0..200_u64 {
        note(file.write_at(&[1; 700], round % 300));
        note(file.sync_data());
        note(file.read_at(&mut [0; 8], 0).map(drop));
        note(disk.sync_dir(""));
    }
    disk.heal();
    file.write_at(b"x", 0).unwrap();
    met
}

#[test]
fn drawn_faults_follow_the_seed_and_the_rates() {
    let rates = FaultRates {
        read: 500,
        write: 1000,
        writeback: 500,
        sync: 1000,
        no_space: 500,
        names: 500,
    };
    let met = outcomes(7, rates);
    assert_eq!(met, outcomes(7, rates));
    assert_ne!(met, outcomes(8, rates));
    let kinds: BTreeSet<Option<i32>> = met.iter().copied().collect();
    // Success, EIO, ENOSPC and EDQUOT all occur.
    assert!(
        [None, Some(5), Some(28), Some(122)]
            .iter()
            .all(|kind| kinds.contains(kind))
    );
    let failed = met.iter().filter(|outcome| outcome.is_some()).count();
    assert!((40..160).contains(&failed), "{failed} of 800 failed");
    assert!(
        outcomes(7, FaultRates::default())
            .iter()
            .all(Option::is_none)
    );
}

#[test]
fn torn_sector_keeps_the_bytes_that_were_asked_for() {
    let disk = disk();
    disk.open("f").unwrap().write_at(&[b'n'; 1024], 0).unwrap();
    let point = disk.crash_point();
    let tears = [Tear {
        item: 1,
        kept: 10..20,
    }];
    let mut expected = vec![b'n'; 512];
    expected.extend([b'o'; 512]);
    expected[522..532].fill(b'n');
    assert_eq!(content(&point.torn_image(&[1, 1], &tears)), expected);
    // A lost sector has nothing to tear.
    assert_eq!(
        content(&point.torn_image(&[0, 0], &tears)),
        vec![b'o'; 1024]
    );
    let torn = (0..20).filter(|seed| {
        let bytes = content(&disk.fork().power_loss(Survival::Torn(*seed)));
        let mixed = |sector: &[u8]| sector.contains(&b'n') && sector.contains(&b'o');
        mixed(&bytes[..512]) || mixed(&bytes[512..])
    });
    assert!(torn.count() > 5);
}

#[test]
fn enumeration_finds_a_bug_that_needs_a_torn_sector() {
    // Two numbers in one sector that must be equal, written at once: whole sectors keep them so.
    let workload = |disk: &FaultDisk| {
        disk.open("f")
            .is_ok_and(|f| f.write_at(&[9; 512], 0).is_ok())
    };
    let equal = |_: &bool, state: &duraft_disk::CrashState<'_>| {
        let bytes = content(&state.disk);
        if bytes[0] == bytes[511] {
            return Ok(());
        }
        Err(format!("{} and {}", bytes[0], bytes[511]))
    };
    let whole = explore(&disk(), &Subsets::default(), workload, equal);
    assert!(whole.is_ok_and(|tally| tally.visited >= 2));
    let torn = Subsets {
        torn: 16,
        ..Subsets::default()
    };
    let violation = explore(&disk(), &torn, workload, equal).expect_err("a tear parts them");
    assert_eq!(violation.tears.len(), 1);
    assert!(violation.to_string().contains("torn: f sector 0"));
}

#[test]
fn gate_holds_the_chosen_operations_and_lets_them_go() {
    let gate = Gate::default();
    let disk = StallDisk::new(Arc::new(disk()), gate.clone());
    let file = disk.open("f").unwrap();
    gate.close(&[DiskOp::SyncData]);
    file.write_at(b"passes", 0).unwrap();
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| file.sync_data());
        gate.wait_until_waiting(1);
        assert!(!sync.is_finished());
        // Another kind of operation is closed instead: the waiting one goes on.
        gate.close(&[DiskOp::Write]);
        sync.join().unwrap().unwrap();
        let write = scope.spawn(|| file.write_at(b"waits", 0));
        gate.wait_until_waiting(1);
        gate.open();
        write.join().unwrap().unwrap();
    });
    assert_eq!(gate.waiting(), 0);
}
