//! What power losses and process crashes leave, and that all of it is reached.

use duraft_disk::{
    Disk, DiskFile, FaultDisk, FaultOptions, PendingKind, Subsets, Survival, for_each_crash_state,
};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;

fn disk() -> FaultDisk {
    FaultDisk::new(FaultOptions::default())
}

/// A disk with one durable file of so many sectors, each full of 'o'.
fn with_file(sectors: usize) -> (FaultDisk, Arc<dyn DiskFile>) {
    let disk = disk();
    let file = disk.create("f").unwrap();
    file.write_at(&vec![b'o'; 512 * sectors], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

/// The first byte of each sector; '.' for a file that is not there.
fn sectors(disk: &FaultDisk, name: &str) -> String {
    let Ok(file) = disk.open(name) else {
        return ".".into();
    };
    let map = file.map().unwrap().expect("the fault disk offers views");
    let show = |sector: &[u8]| {
        assert!(
            sector.iter().all(|byte| *byte == sector[0]),
            "a sector is atomic"
        );
        if sector[0] == 0 {
            '0'
        } else {
            char::from(sector[0])
        }
    };
    map.chunks(512).map(show).collect()
}

/// All outcomes of a power loss now, as seen through `show`.
fn outcomes(disk: &FaultDisk, show: impl Fn(&FaultDisk) -> String) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let subsets = Subsets {
        dedupe: false,
        ..Subsets::default()
    };
    let (tally, _) = for_each_crash_state(disk, &subsets, |state| {
        all.insert(show(&state.disk));
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(tally.exhaustive, 1);
    all
}

fn set<const N: usize>(all: [&str; N]) -> BTreeSet<String> {
    all.into_iter().map(str::to_owned).collect()
}

#[test]
fn any_subset_of_unsynced_sectors_survives() {
    // A model that keeps prefixes only misses reordering inside the cache.
    let (disk, file) = with_file(3);
    file.write_at(&[b'n'; 512 * 3], 0).unwrap();
    let found = outcomes(&disk, |disk| sectors(disk, "f"));
    assert_eq!(
        found,
        set(["ooo", "noo", "ono", "oon", "nno", "non", "onn", "nnn"])
    );
}

#[test]
fn sector_written_twice_may_survive_in_either_version() {
    let (disk, file) = with_file(2);
    file.write_at(&[b'1'; 512], 0).unwrap();
    file.write_at(&[b'2'; 512], 512).unwrap();
    file.write_at(&[b'3'; 512], 0).unwrap();
    let found = outcomes(&disk, |disk| sectors(disk, "f"));
    assert_eq!(found, set(["oo", "1o", "3o", "o2", "12", "32"]));
}

#[test]
fn synced_bytes_survive_everything() {
    let (disk, file) = with_file(2);
    file.write_at(&[b'n'; 1024], 0).unwrap();
    file.sync_data().unwrap();
    assert!(disk.crash_point().items().is_empty());
    assert_eq!(sectors(&disk.durable_view(), "f"), "nn");
}

#[test]
fn sync_of_one_file_does_nothing_for_another() {
    let (disk, file) = with_file(1);
    let other = disk.create("g").unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(&[b'n'; 512], 0).unwrap();
    other.write_at(&[b'n'; 512], 0).unwrap();
    other.sync_data().unwrap();
    assert_eq!(sectors(&disk.power_loss(Survival::Nothing), "f"), "o");
    assert_eq!(sectors(&disk.power_loss(Survival::Nothing), "g"), "n");
}

#[test]
fn length_survives_apart_from_content() {
    let (disk, file) = with_file(1);
    file.write_at(&[b'n'; 1024], 512).unwrap();
    // With the old length nothing of the new sectors is seen.
    let found = outcomes(&disk, |disk| sectors(disk, "f"));
    assert_eq!(found, set(["o", "o00", "on0", "o0n", "onn"]));
}

#[test]
fn new_part_without_content_may_hold_garbage() {
    let disk = FaultDisk::new(FaultOptions {
        garbage: Some(1),
        ..FaultOptions::default()
    });
    let file = disk.create("f").unwrap();
    disk.sync_dir("").unwrap();
    // Zeros are content as well: without them the garbage shows.
    file.fill_zero(512).unwrap();
    let mut garbage = 0;
    let (tally, _) = for_each_crash_state(&disk, &Subsets::default(), |state| {
        let map = state.disk.open("f").unwrap().map().unwrap().unwrap();
        garbage += usize::from(map.iter().any(|byte| *byte != 0));
        ControlFlow::<()>::Continue(())
    });
    // Old length; new length with zeros; new length with garbage.
    assert_eq!((tally.visited, garbage), (3, 1));
}

#[test]
fn zeros_over_zeros_are_not_worth_a_state() {
    // Recycling a slot would else drown the enumeration in equal states.
    let disk = disk();
    let file = disk.create("f").unwrap();
    file.fill_zero(512 * 32).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(&[b'a'; 512], 512 * 7).unwrap();
    file.sync_data().unwrap();
    file.fill_zero(512 * 32).unwrap();
    let point = disk.crash_point();
    assert_eq!(point.items().len(), 1);
    let sector = PendingKind::Sector {
        file: "f".into(),
        sector: 7,
    };
    assert_eq!(point.items()[0].kind, sector);
}

#[test]
fn name_needs_its_folder_synced_and_the_folder_its_parent() {
    let disk = disk();
    disk.create_dir("d").unwrap();
    let file = disk.create("d/f").unwrap();
    file.write_at(&[b'n'; 512], 0).unwrap();
    file.sync_all().unwrap();
    let show = |disk: &FaultDisk| sectors(disk, "d/f");
    assert_eq!(outcomes(&disk, show), set([".", "n"]));
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&disk, show), set([".", "n"]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, show), set(["n"]));
}

#[test]
fn lost_folder_takes_its_entries_along_for_good() {
    // A new folder under the old name must not show files of the lost one.
    let disk = disk();
    disk.create_dir("d").unwrap();
    disk.create("d/f").unwrap();
    disk.sync_dir("d").unwrap();
    let next = disk.power_loss(Survival::Nothing);
    next.create_dir("d").unwrap();
    assert!(next.list("d").unwrap().is_empty());
}

#[test]
fn writing_the_durable_content_again_replaces_what_was_pending() {
    let (disk, file) = with_file(1);
    file.write_at(&[b'n'; 512], 0).unwrap();
    file.write_at(&[b'o'; 512], 0).unwrap();
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")), set(["n", "o"]));
    file.sync_data().unwrap();
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")), set(["o"]));
}

#[test]
fn rename_is_lost_or_kept_as_a_whole_and_content_apart_from_it() {
    // The classic: a new file renamed over the old one without a sync between.
    let (disk, _) = with_file(1);
    let new = disk.create("t").unwrap();
    new.write_at(&[b'n'; 512], 0).unwrap();
    disk.rename("t", "f").unwrap();
    let found = outcomes(&disk, |disk| sectors(disk, "f") + &sectors(disk, "t"));
    // Old file; old file and temporary one with or without content; new file empty, zero or whole.
    assert_eq!(found, set(["o.", "o", "o0", "on", ".", "0.", "n."]));
}

#[test]
fn removed_file_may_come_back_until_the_folder_is_synced() {
    let (disk, _) = with_file(1);
    disk.remove("f").unwrap();
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")), set([".", "o"]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")), set(["."]));
}

#[test]
fn renaming_across_folders_needs_both_synced() {
    let (disk, _) = with_file(1);
    disk.create_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    disk.rename("f", "d/f").unwrap();
    let show = |disk: &FaultDisk| sectors(disk, "f") + &sectors(disk, "d/f");
    assert_eq!(outcomes(&disk, show), set(["o.", ".o"]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&disk, show), set(["..", ".o"]));
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&disk, show), set([".o"]));
}

#[test]
fn later_use_of_a_name_outlives_the_earlier_one() {
    // A half synced renaming must not take the new holder of its old name along.
    let (disk, _) = with_file(1);
    disk.create_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    disk.rename("f", "d/f").unwrap();
    let again = disk.create("f").unwrap();
    again.write_at(&[b'a'; 512], 0).unwrap();
    again.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    let show = |disk: &FaultDisk| sectors(disk, "f") + &sectors(disk, "d/f");
    assert_eq!(outcomes(&disk, show), set(["a.", "ao"]));
}

#[test]
fn process_crash_keeps_the_cache_and_proves_nothing() {
    let (disk, file) = with_file(1);
    file.write_at(&[b'n'; 512], 0).unwrap();
    let held = disk.lock("LOCK").unwrap();
    let next = disk.process_crash();
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.list("").is_err());
    assert_eq!(sectors(&next, "f"), "n");
    assert_eq!(outcomes(&next, |disk| sectors(disk, "f")), set(["n", "o"]));
    // The dead process's lock is free, and its release touches nothing any more.
    let lock = next.lock("LOCK").unwrap();
    drop(held);
    assert_eq!(
        next.lock("LOCK").map(drop).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(lock);
    next.open("f").unwrap().sync_data().unwrap();
    assert_eq!(outcomes(&next, |disk| sectors(disk, "f")), set(["n"]));
}

#[test]
fn power_loss_ends_the_life() {
    let (disk, file) = with_file(1);
    file.write_at(&[b'n'; 512], 0).unwrap();
    let next = disk.power_loss(Survival::Everything);
    assert!(disk.crashed() && file.sync_data().is_err());
    assert_eq!(sectors(&next, "f"), "n");
    assert!(next.crash_point().items().is_empty());
}

#[test]
fn crash_inside_an_operation_leaves_it_pending() {
    let (start, _) = with_file(2);
    let run = |crash_at| {
        let disk = start.fork();
        disk.crash_at(crash_at);
        let file = disk.open("f").unwrap();
        let result = file
            .write_at(&[b'n'; 1024], 0)
            .and_then(|()| file.sync_data());
        (disk, result.is_ok())
    };
    let (disk, ok) = run(1);
    assert!(!ok);
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")).len(), 4);
    let (disk, ok) = run(2);
    assert!(!ok);
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")).len(), 4);
    let (disk, ok) = run(3);
    assert!(ok);
    assert_eq!(outcomes(&disk, |disk| sectors(disk, "f")), set(["nn"]));
}

#[test]
fn forks_do_not_see_each_other() {
    let (disk, file) = with_file(1);
    file.write_at(&[b'n'; 512], 0).unwrap();
    let fork = disk.fork();
    fork.open("f").unwrap().sync_data().unwrap();
    fork.open("f").unwrap().write_at(&[b'x'; 512], 0).unwrap();
    fork.remove("f").unwrap();
    assert_eq!(sectors(&disk, "f"), "n");
    assert_eq!(sectors(&disk.durable_view(), "f"), "o");
    assert_eq!(sectors(&disk, "f"), "n");
}

#[test]
fn many_pending_items_get_prefixes_single_ones_and_draws() {
    let (disk, file) = with_file(20);
    for sector in 0..20 {
        // Written in descending order: prefixes follow the writing, not the place.
        file.write_at(&[b'n'; 512], (19 - sector) * 512).unwrap();
    }
    let mut found = BTreeSet::new();
    let subsets = Subsets {
        drawn: 500,
        ..Subsets::default()
    };
    let (tally, _) = for_each_crash_state(&disk, &subsets, |state| {
        assert!(
            found.insert(sectors(&state.disk, "f")),
            "equal disks are visited once"
        );
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(tally.exhaustive, 0);
    assert_eq!(tally.built, 21 + 20 + 20 + 500);
    assert_eq!(tally.visited, found.len() as u64);
    for n in 0..20 {
        let new = "n".repeat(n);
        assert!(
            found.contains(&("o".repeat(20 - n) + &new)),
            "prefix of {n}"
        );
        assert!(
            found.contains(&("o".repeat(n) + "n" + &"o".repeat(19 - n))),
            "only {n}"
        );
        assert!(
            found.contains(&(new + "o" + &"n".repeat(19 - n))),
            "all but {n}"
        );
    }
    assert!(found.len() > 450, "{}", found.len());
}

#[test]
fn same_seed_same_disk() {
    let run = |seed| {
        let (disk, file) = with_file(40);
        file.write_at(&[b'n'; 40 * 512], 0).unwrap();
        disk.power_loss(Survival::Drawn(seed)).fingerprint()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn visitor_can_stop() {
    let (disk, file) = with_file(3);
    file.write_at(&[b'n'; 3 * 512], 0).unwrap();
    let (tally, flow) = for_each_crash_state(&disk, &Subsets::default(), |state| {
        if sectors(&state.disk, "f") == "ono" {
            return ControlFlow::Break(state.to_string());
        }
        ControlFlow::Continue(())
    });
    let story = match flow {
        ControlFlow::Break(story) => story,
        ControlFlow::Continue(()) => panic!("the state exists"),
    };
    assert!(story.contains("lost: [f sector 0; f sector 2]"), "{story}");
    assert!(tally.visited < 8);
}
