//! One flipped bit in any sector of one node's log.

use super::world::{NODES, Order, Verdict, base, bytes_of, flipped, run};
use super::{SITUATIONS, expected};
use duraft_core::NodeId;
use duraft_disk::{Disk, FaultDisk};
use duraft_tests::Rng;
use std::collections::BTreeMap;

/// Where one bit is to be flipped: file and byte. Every sector that is not empty, several bits of it, and
/// some of the empty ones.
fn places(disk: &FaultDisk, seed: u64) -> Vec<(String, u64, u8)> {
    const SECTOR: usize = 512;
    let mut rng = Rng::new(seed);
    let mut places = Vec::new();
    for name in disk.list("wal").expect("the folder of slots") {
        let name = format!("wal/{name}");
        let bytes = bytes_of(disk, &name);
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            let empty = sector.iter().all(|byte| *byte == 0);
            let bits = if !empty {
                4
            } else {
                u64::from(number % 16 == 0)
            };
            for _ in 0..bits {
                let at = number * SECTOR + *rng.pick(&(0..sector.len()).collect::<Vec<_>>());
                places.push((name.clone(), at as u64, 1 << rng.below(8)));
            }
        }
    }
    places
}

#[test]
fn damage_one_flipped_bit_on_a_minority_loses_nothing_and_elects_nobody_who_would() {
    // Could go wrong: the bit makes a log look shorter, and its node votes or leads without what it had
    // acknowledged. Any sector of any one node's log; all up, or a node away whose copy would be needed.
    // One bad sector closes no store.
    let mut tried = 0;
    let mut refused = 0;
    let mut bad = Vec::new();
    for situation in SITUATIONS {
        let disks = base(situation, true);
        for id in NODES {
            for (name, at, bit) in places(&disks[&id], id.0) {
                for first in [NODES[0], NODES[2]] {
                    let late = situation.late().filter(|late| *late != first);
                    let order = Order {
                        first,
                        late,
                        seed: at,
                    };
                    let fork = |(other, disk): (&NodeId, &FaultDisk)| match *other == id {
                        true => (id, flipped(disk, &name, at, bit)),
                        false => (*other, disk.fork()),
                    };
                    let disks: BTreeMap<NodeId, FaultDisk> = disks.iter().map(fork).collect();
                    let outcome = run(&disks, order, &expected());
                    let told = format!("{situation:?}: n{id} {name} {at} {bit:#x}");
                    if outcome.with_all != Verdict::Serves {
                        let story = outcome.world.story();
                        bad.push(format!("{told}: {:?}: {story}", outcome.with_all));
                    }
                    refused += outcome.world.refused.len();
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} flipped bits");
    assert_eq!(refused, 0, "stores did not open");
    assert!(tried > 1_000);
    assert!(
        bad.is_empty(),
        "{} of {tried}:\n{}",
        bad.len(),
        bad.join("\n")
    );
}
