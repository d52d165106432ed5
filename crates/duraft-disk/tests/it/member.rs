//! Every disk that a crash point leaves is one that it allows, and others are not.

use duraft_disk::{
    Damage, Disk, FaultDisk, FaultOptions, NotAllowed, SplitMix64, Subsets, for_each_crash_state,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// All files of a disk with folders one deep.
fn files(disk: &FaultDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut add = |name: String| {
        let Ok(file) = disk.open(&name) else { return };
        let bytes = file.map().unwrap().expect("views are offered").to_vec();
        files.insert(name, bytes);
    };
    for name in disk.list("").unwrap() {
        add(name);
    }
    for name in disk.list("d").unwrap_or_default() {
        add(format!("d/{name}"));
    }
    files
}

/// A disk with all kinds of pending content.
fn busy(seed: u64) -> FaultDisk {
    let mut rng = SplitMix64::new(seed);
    let disk = FaultDisk::new(FaultOptions::default());
    disk.create_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    for step in 0..30_u8 {
        let name = ["a", "b", "d/c", "d/e"][usize::try_from(rng.below(4)).unwrap()];
        let file = disk.open(name).or_else(|_| disk.create(name)).unwrap();
        match rng.below(8) {
            0..4 => file
                .write_at(&vec![step + 1; 700], rng.below(3000))
                .unwrap(),
            4 => file.sync_data().unwrap(),
            5 => disk
                .sync_dir(["", "d"][usize::try_from(rng.below(2)).unwrap()])
                .unwrap(),
            6 => drop(disk.rename(name, ["a", "d/e"][usize::try_from(rng.below(2)).unwrap()])),
            _ => file.fill_zero(rng.below(2000)).unwrap(),
        }
    }
    disk
}

#[test]
fn what_a_crash_leaves_is_allowed() {
    let subsets = Subsets {
        drawn: 100,
        exhaustive_max: 8,
        ..Subsets::default()
    };
    let mut visited = 0;
    for seed in 0..40 {
        let disk = busy(seed);
        let point = disk.crash_point();
        let (tally, flow) = for_each_crash_state(&disk, &subsets, |state| {
            match point.allows(&files(&state.disk)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(wrong) => ControlFlow::Break(format!("seed {seed}: {wrong}: {state}")),
            }
        });
        assert_eq!(flow, ControlFlow::Continue(()));
        visited += tally.visited;
    }
    assert!(visited > 3000, "{visited} states");
}

#[test]
fn what_no_crash_leaves_is_refused_with_the_place() {
    let disk = FaultDisk::new(FaultOptions::default());
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(&[2; 512], 512).unwrap();
    let point = disk.crash_point();
    assert_eq!(point.allows(&files(&disk)), Ok(()));

    let other = disk.durable_view();
    other
        .damage("a", &Damage::FlipBit { offset: 3, bit: 0 })
        .unwrap();
    let wrong = point.allows(&files(&other)).unwrap_err();
    assert!(
        matches!(
            wrong,
            NotAllowed::Sector {
                sector: 0,
                allowed: 1,
                ..
            }
        ),
        "{wrong}"
    );

    let mut found = files(&disk);
    found.get_mut("a").unwrap().push(0);
    let wrong = point.allows(&found).unwrap_err();
    assert!(
        matches!(wrong, NotAllowed::Length { found: 1025, .. }),
        "{wrong}"
    );

    found.clear();
    let wrong = point.allows(&found).unwrap_err();
    assert!(matches!(wrong, NotAllowed::Names { .. }), "{wrong}");
}
