//! RULES.md 11: elections on disks that take longer for a write than an election timeout.
//!
//! Up to four timeouts: a disk that takes longer stalls as far as leading is concerned, since a leader
//! whose followers have not moved for that long steps down (RULES.md 12).

use super::rig::*;
use crate::*;
use alloc::collections::BTreeMap;

/// Three nodes whose writes take `took` ticks each; the network is instant. Returns the tick in which a
/// leader had committed its first entry, and the highest term by then.
fn first_commit(took: u64, seed: u64, planted: Option<Plant>) -> (Option<u64>, u64) {
    let mut rig = Rig::with(3, &[], |id| Config {
        stall_ticks: None,
        ..Config::new(id, GROUP, seed)
    });
    (rig.local_checks, rig.disk_checks) = (false, planted.is_none());
    if let Some(planted) = planted {
        rig.plant = Some(planted);
        (1..=3).for_each(|id| rig.node_mut(id).raft.plant(planted));
    }
    let mut written: BTreeMap<(u64, WriteSeq), u64> = BTreeMap::new();
    for now in 0..3_000 {
        for id in 1..=3 {
            rig.tick(id).unwrap();
        }
        for _ in 0..4 {
            for envelope in core::mem::take(&mut rig.network) {
                rig.deliver(envelope).unwrap();
            }
            for id in 1..=3 {
                let pending = rig.node(id).pending.iter();
                let due = pending.take_while(|write| {
                    let since = *written.entry((id, write.seq)).or_insert(now);
                    now - since >= took
                });
                let count = due.count();
                if count > 0 {
                    rig.sync(id, count);
                    rig.report(id).unwrap();
                }
            }
        }
        let terms = (1..=3).map(|id| rig.raft(id).term().0).max().unwrap();
        if (1..=3).any(|id| rig.raft(id).commit() > Index(0)) {
            return (Some(now), terms);
        }
        if now == 2_999 {
            return (None, terms);
        }
    }
    unreachable!("the last round returns")
}

#[test]
fn rule_11_elections_are_decided_though_writes_take_longer_than_a_timeout() {
    // Timeouts are 10 to 19 ticks. One campaign at a time, timers that start when the disk is done, and
    // timeouts that grow with what writes take: so few terms pass.
    for seed in 0..50 {
        for took in [5, 12, 25, 35] {
            let (elected, terms) = first_commit(took, seed, None);
            let ticks = elected.unwrap_or_else(|| panic!("{took} ticks a write, seed {seed}"));
            assert!(
                ticks <= 40 * took + 200 && terms <= 12,
                "{took}, {seed}: {ticks}, {terms}"
            );
        }
    }
}

#[test]
fn rule_11_each_part_is_needed() {
    let took = 35;
    let terms = |planted| {
        (0..20)
            .map(|seed| first_commit(took, seed, planted).1)
            .sum::<u64>()
    };
    let (usual, piled) = (terms(None), terms(Some(Plant::CampaignsPileUp)));
    assert!(piled > 2 * usual, "{piled} terms instead of {usual}");
    for seed in 0..20 {
        let (elected, terms) = first_commit(took, seed, Some(Plant::TimeoutIgnoresDisk));
        assert!(
            elected.is_none() && terms > 50,
            "{elected:?}, {terms} terms"
        );
    }
}
