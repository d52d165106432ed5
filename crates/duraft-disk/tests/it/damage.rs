//! Damage at rest does what its name says, and nothing else.

use duraft_disk::{Damage, Disk, FaultDisk, FaultOptions, Survival};
use std::io::ErrorKind;

/// Files `f` and `g` of three sectors; each sector was 'o' and then 'n', both durable. The last
/// sector is half a sector long.
fn disk() -> FaultDisk {
    let disk = FaultDisk::new(FaultOptions::default());
    for name in ["f", "g"] {
        let file = disk.create(name).unwrap();
        let (old, new) = if name == "f" {
            (b'o', b'n')
        } else {
            (b'O', b'N')
        };
        for byte in [old, new] {
            file.write_at(&[byte; 1280], 0).unwrap();
            file.sync_data().unwrap();
        }
    }
    disk.sync_dir("").unwrap();
    disk
}

fn shown(disk: &FaultDisk) -> String {
    let mut text = String::new();
    for name in ["f", "g"] {
        let map = disk
            .open(name)
            .unwrap()
            .map()
            .unwrap()
            .expect("views are offered");
        assert_eq!(map.len(), 1280);
        for sector in map.chunks(512) {
            let same = sector.iter().all(|byte| *byte == sector[0]);
            let first = if sector[0] == 0 {
                '0'
            } else {
                char::from(sector[0])
            };
            text.push(if same { first } else { '?' });
        }
    }
    text
}

fn after(damage: Damage) -> (String, bool) {
    let disk = disk();
    let changed = disk.damage("f", &damage).unwrap();
    let live = shown(&disk);
    assert_eq!(
        shown(&disk.power_loss(Survival::Nothing)),
        live,
        "damage is durable"
    );
    (live, changed)
}

#[test]
fn each_kind_changes_its_sectors_only() {
    let other_file = || "g".to_owned();
    let (sector, other) = (1, 2);
    let cases = [
        (Damage::FlipBit { offset: 0, bit: 3 }, "?nnNNN"),
        (
            Damage::FlipBit {
                offset: 1279,
                bit: 9,
            },
            "nn?NNN",
        ),
        (Damage::ZeroSector { sector }, "n0nNNN"),
        (Damage::ZeroSector { sector: 2 }, "nn0NNN"),
        (Damage::StaleSector { sector }, "nonNNN"),
        (Damage::GarbageSector { sector, seed: 1 }, "n?nNNN"),
        (
            Damage::SwapSectors {
                sector,
                other_file: other_file(),
                other: 0,
            },
            "nNnnNN",
        ),
        (
            Damage::SwapSectors {
                sector,
                other_file: other_file(),
                other,
            },
            "n?nNNn",
        ),
        (
            Damage::Misdirect {
                sector,
                other_file: other_file(),
                other: 0,
            },
            "nonnNN",
        ),
    ];
    for (damage, expected) in cases {
        let (shown, changed) = after(damage.clone());
        assert!(changed, "{damage:?}");
        assert_eq!(shown, expected, "{damage:?}");
    }
}

#[test]
fn damage_that_changes_nothing_says_so() {
    let disk = disk();
    let same = Damage::SwapSectors {
        sector: 0,
        other_file: "f".into(),
        other: 1,
    };
    assert!(!disk.damage("f", &same).unwrap());
    disk.damage("f", &Damage::ZeroSector { sector: 0 }).unwrap();
    assert!(!disk.damage("f", &Damage::ZeroSector { sector: 0 }).unwrap());
}

#[test]
fn stale_means_the_content_before_the_last_durable_one() {
    // Also where the last one survived a power loss without a sync.
    let disk = disk();
    disk.open("f").unwrap().write_at(&[b'x'; 512], 0).unwrap();
    let disk = disk.power_loss(Survival::Everything);
    assert_eq!(shown(&disk), "xnnNNN");
    disk.damage("f", &Damage::StaleSector { sector: 0 })
        .unwrap();
    assert_eq!(shown(&disk), "nnnNNN");
}

#[test]
fn pending_content_hides_damage_until_it_is_lost() {
    let disk = disk();
    disk.open("f").unwrap().write_at(&[b'x'; 512], 0).unwrap();
    disk.damage("f", &Damage::ZeroSector { sector: 0 }).unwrap();
    assert_eq!(shown(&disk), "xnnNNN");
    assert_eq!(shown(&disk.durable_view()), "0nnNNN");
}

#[test]
fn places_that_are_not_there_are_refused() {
    let disk = disk();
    assert_eq!(disk.sectors("f").unwrap(), 3);
    let kind = |file, damage: &Damage| disk.damage(file, damage).unwrap_err().kind();
    assert_eq!(
        kind("f", &Damage::ZeroSector { sector: 3 }),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        kind(
            "f",
            &Damage::FlipBit {
                offset: 1536,
                bit: 0
            }
        ),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        kind("x", &Damage::ZeroSector { sector: 0 }),
        ErrorKind::NotFound
    );
    let far = Damage::SwapSectors {
        sector: 0,
        other_file: "g".into(),
        other: u64::MAX,
    };
    assert_eq!(kind("f", &far), ErrorKind::InvalidInput);
    assert_eq!(shown(&disk), "nnnNNN");
}
