//! Power failures within commits, receipts and opens: what is left is the state before or after.
//!
//! The exhaustive enumeration is a test of its own in the workspace's `tests`; this one walks long
//! random histories, so that slots are recycled many times between crashes.

use crate::model::{Model, draw_commit, fresh_model};
use crate::support::*;
use duraft_core::GroupId;
use duraft_disk::{FaultDisk, FaultOptions, SplitMix64, Survival};
use duraft_storage::{OpenError, Recovered, Wal, WalOptions};

/// Opens until an open gets through, with power failures within the first ones.
fn survive(disk: &mut FaultDisk, options: &WalOptions, rng: &mut SplitMix64) -> (Wal, Recovered) {
    for _ in 0..rng.below(3) {
        disk.crash_at(disk.mutations() + 1 + rng.below(6));
        match reopen(disk, options, rng.next()) {
            Ok(opened) => return opened,
            Err(OpenError::Disk(_) | OpenError::DiskFull { .. }) => {
                *disk = disk.power_loss(Survival::Drawn(rng.next()));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let opened = reopen(disk, options, rng.next());
    opened.unwrap_or_else(|error| panic!("{error}"))
}

fn matches(recovered: &Recovered, model: &Model) -> bool {
    model
        .iter()
        .all(|(id, group)| group.is(&recovered.groups[id]))
}

pub(crate) fn run(
    seed: u64,
    sector_bytes: usize,
    options: &WalOptions,
    groups: &[GroupId],
    lives: usize,
) {
    let mut rng = SplitMix64::new(seed);
    let mut disk = FaultDisk::new(FaultOptions {
        sector_bytes,
        ..FaultOptions::default()
    });
    make(&disk, options, groups);
    let mut model = fresh_model(groups);
    for life in 0..lives {
        let context = format!("seed {seed}, life {life}");
        let (mut wal, recovered) = survive(&mut disk, options, &mut rng);
        assert_eq!(recovered.damage, None, "{context}");
        assert!(
            matches(&recovered, &model),
            "{context}: {recovered:#?}\n{model:#?}"
        );
        let mut writers: Vec<Writer> = groups.iter().map(|group| Writer::new(*group)).collect();
        disk.crash_at(disk.mutations() + 1 + rng.below(40));
        let mut next = model.clone();
        while !disk.crashed() {
            model = next.clone();
            if rng.below(8) == 0 {
                let _ = wal.receipt();
                continue;
            }
            let (submissions, after) = draw_commit(&mut rng, &wal, &mut writers, &next);
            next = after;
            if wal.commit(&submissions).is_ok() {
                model = next.clone();
            }
        }
        drop(wal);
        // The cut commit is there as a whole or not at all; from the next open on it stays so.
        disk = match rng.below(3) {
            0 => disk.process_crash(),
            _ => disk.power_loss(Survival::Drawn(rng.next())),
        };
        let (wal, recovered) = survive(&mut disk, options, &mut rng);
        if matches(&recovered, &next) {
            model = next;
        }
        assert!(
            matches(&recovered, &model),
            "{context}: {recovered:#?}\n{model:#?}"
        );
        drop(wal);
        disk = disk.power_loss(Survival::Drawn(rng.next()));
    }
}

#[test]
fn acknowledged_commits_survive_power_failures_in_slots_of_one_block() {
    for seed in 0..200 {
        run(seed, 512, &options(), &[GROUP], 12);
    }
}

#[test]
fn acknowledged_commits_survive_power_failures_in_larger_slots() {
    let options = WalOptions {
        slot_bytes: 64 << 10,
        ..options()
    };
    for seed in 0..200 {
        run(seed, 4096, &options, &[GroupId(1), GroupId(2)], 12);
    }
}
