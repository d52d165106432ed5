//! Rules of the storage taken out one by one: a test that passes must fail then. docs/rules.md says which
//! rule is which.

use crate::support::*;
use crate::{damage, errors, life, one_sector};
use duraft_disk::{Disk, DiskOp, FaultDisk, Survival};
use duraft_storage::{Ablation, WalOptions};

/// A defence, and the test that must fail without it.
const TABLE: &[(Ablation, fn())] = &[
    // 4
    (
        Ablation::NoStoreSeed,
        errors::blocks_of_another_store_in_a_slot_are_nobodys,
    ),
    // 9
    (
        Ablation::ReportFailed,
        life::a_pipeline_reports_once_per_group_and_falls_silent_after_a_failure,
    ),
    // 13
    (
        Ablation::ForgetDamage,
        damage::damage_is_durable_until_it_is_healed,
    ),
    // 17
    (
        Ablation::NoTables,
        damage::a_receipt_takes_the_ambiguity_away,
    ),
    (
        Ablation::NoWatermark,
        damage::a_lost_commit_in_the_middle_leaves_survivors_behind_the_hole,
    ),
    // 19
    (
        Ablation::NoCopy,
        life::a_commit_that_only_the_cache_shows_is_copied_before_anyone_is_told,
    ),
    (
        Ablation::AppendInPlace,
        life::what_a_zombie_writes_after_the_next_open_is_invisible,
    ),
    // 20
    (
        Ablation::OneCheckpoint,
        one_sector::one_bad_sector_of_a_young_store_closes_nothing,
    ),
    // 22
    (
        Ablation::ReceiptAlways,
        life::a_group_commit_is_one_write_and_one_sync_and_marks_ride_along,
    ),
    (
        Ablation::RetrySync,
        life::a_failed_sync_poisons_the_log_for_good_and_reopening_recovers_every_acknowledged_write,
    ),
    // 23
    (
        Ablation::TrustSlots,
        a_slot_that_was_not_filled_is_filled_before_it_is_used,
    ),
];

#[test]
fn no_rule_can_be_taken_out_unseen() {
    let mut unseen = Vec::new();
    for (ablation, test) in TABLE {
        test();
        if !fails_without(*ablation, *test) {
            unseen.push(ablation);
        }
    }
    assert!(unseen.is_empty(), "{unseen:?}");
}

/// The disk of a store whose next slot was given its length when the power failed, and nothing else.
fn unfilled(options: &WalOptions) -> FaultDisk {
    let (disk, wal) = fresh(options);
    drop(wal);
    let slots = disk.list("wal").expect("the slots").len();
    let file = disk
        .create(&format!("wal/{slots:08x}.slot"))
        .expect("a free name");
    file.fill_zero(options.slot_bytes).expect("there is room");
    file.sync_all().expect("a working disk");
    disk.sync_dir("wal").expect("a working disk");
    disk.power_loss(Survival::Nothing)
}

#[test]
fn a_slot_that_was_not_filled_is_filled_before_it_is_used() {
    // RULES.md 23: a length says nothing about extents; a commit into one that is not written waits for
    // the file system's journal.
    let options = options();
    let disk = unfilled(&options);
    let (mut wal, _) = reopen(&disk, &options, 3).expect("healthy");
    let mut writer = Writer::new(GROUP);
    let total = wal.pool_stats().total;
    let mut filled = 0;
    for term in 1..40 {
        wal.commit(&[writer.vote(term, None)])
            .expect("there is room");
        if wal.pool_stats().total > total {
            break;
        }
        filled = disk.ops(DiskOp::FillZero);
    }
    assert_eq!(filled, 1, "the slot that was left");
}

#[test]
fn a_disk_is_an_object() {
    // RULES.md 24: who writes a disk of their own needs no type parameter.
    let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(disk());
    disk.create_dir("wal").expect("a working disk");
    let file: std::sync::Arc<dyn duraft_disk::DiskFile> =
        disk.create("wal/file").expect("a working disk");
    file.write_at(b"bytes", 0).expect("a working disk");
    assert_eq!(file.len().expect("a working disk"), 5);
}
