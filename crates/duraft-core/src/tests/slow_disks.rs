//! RULES.md 11: elections on disks that take longer for a write than an election timeout.
//!
//! Up to four timeouts: a disk that takes longer stalls as far as leading is concerned, since a leader
//! whose followers have not moved for that long steps down (RULES.md 12).

use super::rig::*;
use crate::*;
use alloc::collections::BTreeMap;

/// When each write of each node was issued.
type Written = BTreeMap<(u64, WriteSeq), u64>;

/// A tick of three nodes whose writes take `took` ticks each; the network is instant.
fn turn(rig: &mut Rig, written: &mut Written, now: u64, took: u64) {
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
}

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
    let mut written = Written::new();
    for now in 0..3_000 {
        turn(&mut rig, &mut written, now, took);
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

#[test]
fn a_wait_that_was_drawn_while_the_disk_was_slow_ends_sooner_once_it_is_fast() {
    let mut longest = 0;
    for seed in 0..20 {
        let mut rig = Rig::with(3, &[], |id| Config {
            stall_ticks: None,
            ..Config::new(id, GROUP, seed)
        });
        (rig.local_checks, rig.disk_checks) = (false, true);
        let mut written = Written::new();
        let follows = |rig: &Rig, id| {
            let raft = rig.raft(id);
            raft.role() == RoleKind::Follower && raft.leader().is_some()
        };
        for now in 0..1_000 {
            // An election is all that is written, so the slow writes are soon long ago.
            turn(&mut rig, &mut written, now, 20);
            let followers = (1..=3).filter(|id| follows(&rig, *id));
            let waits = followers.map(|id| rig.raft(id).campaigns_in_ticks());
            longest = waits.fold(longest, u32::max);
        }
        for id in (1..=3).filter(|id| follows(&rig, *id)) {
            let raft = rig.raft(id);
            let (span, waits) = (raft.election_timeout_ticks(), raft.campaigns_in_ticks());
            let config = raft.config();
            assert_eq!(span, config.election_ticks);
            let least = span - config.heartbeat_ticks;
            assert!((least..2 * span).contains(&waits), "seed {seed}: {waits}");
        }
    }
    assert!(longest > 40, "{longest}");
}
