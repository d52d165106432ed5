//! Rules of the log, seen from whole nodes: they fail when the log is weakened.

use super::host::{Host, ablated};
use super::world::{ENTRIES, NODES, Part, Situation, World, base, damaged};
use duraft_disk::DiskOp;
use duraft_storage::{Ablation, OnDamage};

/// Syncs of the three disks for eight commands.
fn syncs() -> u64 {
    let disks = base(Situation::AllUp, true);
    let mut world = World::default();
    NODES.iter().for_each(|id| world.start(&disks, *id, 1));
    while world.leader().is_none() {
        world.tick();
    }
    let count = || {
        disks
            .values()
            .map(|disk| disk.ops(DiskOp::SyncData))
            .sum::<u64>()
    };
    let before = count();
    for command in 0..8 {
        assert!(world.write(&format!("new {command}")));
    }
    count() - before
}

#[test]
fn rule_22_a_commit_is_one_sync_and_a_receipt_for_each_is_noticed() {
    // A leader and two followers append; nothing else is synced.
    let usual = syncs();
    assert_eq!(usual, 8 * 3);
    assert_eq!(ablated(Ablation::ReceiptAlways, syncs), 2 * usual);
}

/// Does a node that has lost its last entry, but not the receipt behind it, know where its log ended?
fn knows_its_end() -> bool {
    let disks = base(Situation::AllUp, true);
    let disk = damaged(&disks[&NODES[0]], ENTRIES - 1, Part::Payload).expect("a copy");
    let host = Host::open(&disk, NODES[0], 1, OnDamage::RepairFromPeers).expect("it opens");
    let status = host.raft.damage_status().expect("it is damaged");
    !status.lost_suffix && status.missing.is_some()
}

#[test]
fn rule_17_a_receipt_tells_where_the_log_ended_and_one_without_groups_does_not() {
    assert!(knows_its_end());
    assert!(!ablated(Ablation::NoTables, knows_its_end));
}
