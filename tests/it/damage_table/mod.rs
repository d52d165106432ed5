//! The damage table (CTRL): three nodes have acknowledged four entries; every subset of the twelve copies
//! is damaged in its header, its command or its length; all nodes come back, or one has missed the last
//! two entries, or one comes back late, or both; the old leader comes back first or last. Recovery is the real one,
//! from a real write-ahead log on a simulated disk, and the cores that follow are real.
//!
//! **The claim**: an acknowledged entry is lost only where no intact copy of it is left, and never in
//! silence. A cluster that does not serve says so by not serving; one that serves without an entry, or
//! with another in its place, breaks the claim. A node reports damage exactly where there is some.
//!
//! **Availability** is compared with what any protocol could do ([`Images::could_serve`]): with a quorum of
//! nodes up which together hold an intact copy of each entry, everything can be put together again.
//!
//! The last commit of a log is proven by the next block, be it only a receipt that a moment of idleness
//! brings. Without one, a damaged last block cannot be told from a torn one (format: torn or corrupt),
//! and three nodes that all lose power in that moment and then lose the same last block on two of them
//! may lose that entry: [`damage_table_without_receipts_only_the_last_entry_is_at_stake`] shows
//! that nothing else is.

#![allow(
    clippy::print_stdout,
    reason = "a table says what came of it, and which cells were not as they should be"
)]

mod flips;
mod host;
mod storage_rules;

mod tally;
mod world;

use duraft_core::NodeId;
use duraft_disk::FaultDisk;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tally::Tally;
use world::{
    ENTRIES, NODES, Order, Part, Situation, Verdict, World, base, damaged, live, place_of, run,
    text,
};

const SITUATIONS: [Situation; 4] = [
    Situation::AllUp,
    Situation::Lagging,
    Situation::Crashed,
    Situation::LaggingAndCrashed,
];
const PARTS: [Part; 3] = [Part::Header, Part::Payload, Part::Length];

/// Disks with every subset of a node's copies damaged: `[node][part][mask]`.
struct Images {
    situation: Situation,
    /// Which entries each node holds.
    held: BTreeMap<NodeId, u32>,
    disks: BTreeMap<(NodeId, Part), Vec<FaultDisk>>,
}

impl Images {
    fn new(situation: Situation, proven: bool) -> Images {
        let intact = base(situation, proven);
        let mut images = Images {
            situation,
            held: BTreeMap::new(),
            disks: BTreeMap::new(),
        };
        for (id, disk) in &intact {
            let held = (0..ENTRIES).filter(|entry| place_of(disk, *entry).is_some());
            images
                .held
                .insert(*id, held.fold(0, |mask, entry| mask | 1 << entry));
            for part in PARTS {
                let mut masks: Vec<FaultDisk> = Vec::new();
                for mask in 0..1_u32 << ENTRIES {
                    let low = mask.trailing_zeros() as usize;
                    let disk = match mask {
                        0 => disk.clone(),
                        _ => {
                            let rest = &masks[(mask & (mask - 1)) as usize];
                            damaged(rest, low, part).unwrap_or_else(|| rest.clone())
                        }
                    };
                    masks.push(disk);
                }
                images.disks.insert((*id, part), masks);
            }
        }
        images
    }

    /// The entries of which this node has an intact copy, as bits.
    fn copies(&self, id: NodeId, pattern: u32) -> u32 {
        self.held[&id] & !of_node(pattern, id)
    }

    /// Could any protocol serve with these nodes up? By brute force: is there a quorum among them which
    /// together holds an intact copy of everything that was acknowledged?
    fn could_serve(&self, up: &[NodeId], pattern: u32) -> bool {
        (0..1_u32 << NODES.len()).any(|set| {
            let members = NODES.iter().filter(|id| set >> (id.0 - 1) & 1 == 1);
            let members: Vec<NodeId> = members.copied().collect();
            let there = members.iter().all(|id| up.contains(id));
            let copies = members.iter().map(|id| self.copies(*id, pattern));
            there && 2 * members.len() > NODES.len() && copies.fold(0, |a, b| a | b) == ALL
        })
    }

    fn disks(&self, pattern: u32, part: Part) -> BTreeMap<NodeId, FaultDisk> {
        let of = |id: &NodeId| {
            let mask = of_node(pattern, *id) as usize;
            (*id, self.disks[&(*id, part)][mask].fork())
        };
        NODES.iter().map(of).collect()
    }

    /// Does this pattern name copies that do not exist, and so repeat another?
    fn is_repetition(&self, pattern: u32) -> bool {
        NODES
            .iter()
            .any(|id| of_node(pattern, *id) & !self.held[id] != 0)
    }
}

/// Every entry, as bits.
const ALL: u32 = (1 << ENTRIES) - 1;

/// The copies of a node that a pattern damages, as bits.
fn of_node(pattern: u32, id: NodeId) -> u32 {
    pattern >> ((id.0 - 1) * ENTRIES as u64) & ALL
}

fn expected() -> Vec<String> {
    (0..ENTRIES).map(text).collect()
}

/// One cell of the table.
fn cell(images: &Images, part: Part, pattern: u32, leader_first: bool) -> Tally {
    let late = images.situation.late();
    let others = NODES[1..].iter().filter(|id| Some(**id) != late);
    let other = *others.min().expect("three nodes, one of them late");
    let order = Order {
        first: if leader_first { NODES[0] } else { other },
        late,
        seed: u64::from(pattern) * 2 + u64::from(leader_first),
    };
    let disks = images.disks(pattern, part);
    let outcome = run(&disks, order, &expected());
    let who = if leader_first { "first" } else { "last" };
    let name = format!(
        "{:?} {part:?} pattern {pattern:012b} leader {who}",
        images.situation
    );
    let mut tally = Tally::default();
    tally.wrong.clone_from(&outcome.world.refused);
    for (id, host) in &outcome.world.hosts {
        let lost = of_node(pattern, *id) & images.held[id] != 0;
        if lost != host.reported {
            let report = format!("{name}: n{id} reports damage: {}", host.reported);
            tally.wrong.push(report);
        }
    }
    if let (Some(without), Some(late)) = (&outcome.without, late) {
        let up: Vec<NodeId> = NODES.into_iter().filter(|id| *id != late).collect();
        let possible = images.could_serve(&up, pattern);
        let name = format!("{name}, without n{late}");
        tally.count(&name, possible, without, String::new);
    }
    let possible = images.could_serve(&NODES, pattern);
    let story = || outcome.world.story();
    tally.count(&name, possible, &outcome.with_all, story);
    tally
}

/// Every cell whose number is `shard` modulo `shards`, until one says stop.
fn each_cell(
    (shard, shards): (u64, u64),
    mut visit: impl FnMut(Situation, Part, Tally) -> ControlFlow<()>,
) {
    let mut number = 0;
    for situation in SITUATIONS {
        let images = Images::new(situation, true);
        for part in PARTS {
            for pattern in 0..1 << (NODES.len() * ENTRIES) {
                if images.is_repetition(pattern) {
                    continue;
                }
                for leader_first in [true, false] {
                    number += 1;
                    let chosen = number % shards == shard;
                    if chosen
                        && visit(situation, part, cell(&images, part, pattern, leader_first))
                            .is_break()
                    {
                        return;
                    }
                }
            }
        }
    }
}

fn table(shard: u64, shards: u64) -> BTreeMap<(Situation, Part), Tally> {
    let mut tallies: BTreeMap<(Situation, Part), Tally> = BTreeMap::new();
    each_cell((shard, shards), |situation, part, tally| {
        tallies.entry((situation, part)).or_default().add(tally);
        ControlFlow::Continue(())
    });
    tallies
}

/// The first cell that breaks the claim, of every n-th: for tests of the tests.
pub(crate) fn first_wrong(every: u64) -> Option<String> {
    let mut found = None;
    each_cell((0, every), |_, _, tally| {
        found = tally.wrong.into_iter().next();
        match found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    });
    found
}

fn verdict(tallies: &BTreeMap<(Situation, Part), Tally>) {
    let mut all = Tally::default();
    for ((situation, part), tally) in tallies {
        tally.print(&format!("{situation:?}, {part:?}"));
        all.add(tally.clone());
    }
    all.print("all");
    assert!(all.wrong.is_empty(), "{}", all.wrong.join("\n"));
    assert_eq!(all.missed.len(), 0, "served wherever any protocol could");
}

#[test]
fn damage_table_a_sample_of_all_patterns() {
    // Could go wrong: a damaged copy taken for the end of a log, an election won without an
    // acknowledged entry, a hole filled with something else, a state machine that skips one.
    verdict(&table(17, 61));
}

#[test]
fn damage_table_long() {
    // DURAFT_TABLE_SHARD=k/n runs the k-th of n parts, 1/1 all of it. Without it: a small part.
    let shard = std::env::var("DURAFT_TABLE_SHARD").ok();
    let (k, n) = match shard.as_deref().map(|text| text.split_once('/')) {
        None => (5, 1009),
        Some(Some((k, n))) => (
            k.parse::<u64>().expect("k of k/n") - 1,
            n.parse::<u64>().expect("n of k/n"),
        ),
        Some(None) => panic!("DURAFT_TABLE_SHARD=k/n"),
    };
    assert!(k < n, "1 <= k <= n");
    verdict(&table(k, n));
}

#[test]
fn damage_table_single_damages_heal_and_stay_healed() {
    // One damaged copy anywhere: the cluster serves, and when everybody restarts, nobody is damaged.
    for part in PARTS {
        let images = Images::new(Situation::AllUp, true);
        for bit in 0..NODES.len() * ENTRIES {
            let disks = images.disks(1 << bit, part);
            let order = |first, seed| Order {
                first,
                late: None,
                seed,
            };
            let mut outcome = run(&disks, order(NODES[1], bit as u64), &expected());
            assert_eq!(outcome.with_all, Verdict::Serves, "{part:?} {bit}");
            for _ in 0..60 {
                outcome.world.tick();
            }
            drop(outcome);
            let disks = disks.iter().map(|(id, disk)| (*id, disk.fork())).collect();
            let mut expected = expected();
            expected.push("new".to_string());
            let mut world = World::default();
            NODES.iter().for_each(|id| world.start(&disks, *id, 99));
            assert_eq!(world.refused, [""; 0], "{part:?} {bit}");
            assert_eq!(live(&mut world, &expected, "newer"), Verdict::Serves);
            for host in world.hosts.values() {
                let id = host.id;
                assert!(!host.reported, "{part:?} {bit}: n{id} is damaged again");
            }
        }
    }
}

#[test]
fn damage_table_without_receipts_only_the_last_entry_is_at_stake() {
    // Power went before a receipt: the last block of each log is not proven. Where a quorum lacks it,
    // damaged or never there, the last entry may be gone; nothing else may.
    let mut gone = BTreeMap::new();
    for situation in [Situation::AllUp, Situation::LaggingAndCrashed] {
        let images = Images::new(situation, false);
        for pattern in (0..1 << (NODES.len() * ENTRIES)).step_by(7) {
            let order = Order {
                first: NODES[0],
                late: situation.late(),
                seed: u64::from(pattern),
            };
            let disks = images.disks(pattern, Part::Payload);
            let world = run(&disks, order, &expected()).world;
            for id in world.hosts.keys() {
                let commands = world.commands(*id);
                let old: Vec<&String> = commands.iter().filter(|c| !c.starts_with("new")).collect();
                let told = || format!("{situation:?} {pattern:012b}: n{id} has {commands:?}");
                assert!(
                    expected().iter().take(old.len()).eq(old.iter().copied()),
                    "{}",
                    told()
                );
                if old.len() < commands.len() && old.len() < ENTRIES {
                    let lacks =
                        |id: &&NodeId| images.copies(**id, pattern) >> (ENTRIES - 1) & 1 == 0;
                    assert_eq!(old.len(), ENTRIES - 1, "{}", told());
                    assert!(NODES.iter().filter(lacks).count() >= 2, "{}", told());
                    *gone.entry(situation).or_insert(0) += 1;
                }
            }
        }
    }
    println!("without receipts the last entry was missing in so many logs: {gone:?}");
    assert_eq!(
        gone.len(),
        2,
        "this is a limit, or the page on damage is wrong"
    );
}
