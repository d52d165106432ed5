//! The damage table (VERIFICATION.md, CTRL): three nodes have acknowledged four entries; every subset of
//! the twelve copies is damaged in its header, its command or its length; all nodes come back, or one has
//! missed the last two entries, or one stays away; the old leader comes back first or last. Recovery is
//! the real one, from a real write-ahead log on a simulated disk, and the cores that follow are real.
//!
//! **The claim**: an acknowledged entry is lost only where no intact copy of it is left among the nodes
//! that are up, and never in silence. A cluster that does not serve says so by not serving; one that
//! serves without an entry, or with another in its place, breaks the claim.
//!
//! **Availability** is compared with what any protocol could do: with a quorum of nodes up and an intact
//! copy of each entry on one of them, everything can be put together again.
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

mod host;
mod world;

use duraft_core::NodeId;
use duraft_disk::FaultDisk;
use std::collections::BTreeMap;
use world::{ENTRIES, NODES, Part, Situation, Verdict, base, damaged, place_of, run, text};

const SITUATIONS: [Situation; 3] = [Situation::AllUp, Situation::Lagging, Situation::Crashed];
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

    fn up(&self) -> &'static [NodeId] {
        match self.situation {
            Situation::AllUp | Situation::Lagging => &NODES,
            Situation::Crashed => &NODES[..2],
        }
    }

    /// Copies that are left of each entry among the nodes that are up.
    fn intact(&self, pattern: u32) -> Vec<usize> {
        let left = |entry: usize| {
            let has = |id: &&NodeId| {
                let lost = pattern >> ((id.0 - 1) * ENTRIES as u64) & 15;
                (self.held[*id] & !lost) >> entry & 1 == 1
            };
            self.up().iter().filter(has).count()
        };
        (0..ENTRIES).map(left).collect()
    }

    fn disks(&self, pattern: u32, part: Part) -> BTreeMap<NodeId, FaultDisk> {
        let of = |id: &NodeId| {
            let mask = pattern >> ((id.0 - 1) * ENTRIES as u64) & 15;
            (*id, self.disks[&(*id, part)][mask as usize].fork())
        };
        self.up().iter().map(of).collect()
    }

    /// Does this pattern name copies that do not exist, and so repeat another?
    fn is_repetition(&self, pattern: u32) -> bool {
        NODES.iter().any(|id| {
            let mask = pattern >> ((id.0 - 1) * ENTRIES as u64) & 15;
            let there = if self.up().contains(id) {
                self.held[id]
            } else {
                0
            };
            mask & !there != 0
        })
    }
}

/// What came of the patterns.
#[derive(Clone, Default, Debug)]
struct Tally {
    runs: u64,
    serves: u64,
    possible: u64,
    lost_for_good: u64,
    /// Possible and not served.
    missed: Vec<String>,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.runs += other.runs;
        self.serves += other.serves;
        self.possible += other.possible;
        self.lost_for_good += other.lost_for_good;
        self.missed.extend(other.missed);
        self.wrong.extend(other.wrong);
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: {} runs, {} served; any protocol could in {} ({:.2} %), in {} an entry has no copy left; {} wrong",
            self.runs,
            self.serves,
            self.possible,
            100.0 * self.serves as f64 / self.possible.max(1) as f64,
            self.lost_for_good,
            self.wrong.len()
        );
        for line in self.missed.iter().take(10) {
            println!("  did not serve: {line}");
        }
        for line in self.wrong.iter().take(10) {
            println!("  WRONG: {line}");
        }
    }
}

fn expected() -> Vec<String> {
    (0..ENTRIES).map(text).collect()
}

/// One cell of the table.
fn cell(images: &Images, part: Part, pattern: u32, leader_first: bool) -> Tally {
    let mut tally = Tally {
        runs: 1,
        ..Tally::default()
    };
    let disks = images.disks(pattern, part);
    let first = if leader_first { NODES[0] } else { NODES[1] };
    let seed = u64::from(pattern) * 2 + u64::from(leader_first);
    let (verdict, world) = run(&disks, first, seed, &expected());
    let name = format!(
        "{:?} {part:?} pattern {pattern:012b} {}",
        images.situation,
        if leader_first {
            "leader first"
        } else {
            "leader last"
        }
    );
    for (id, host) in &world.hosts {
        let mask = pattern >> ((id.0 - 1) * ENTRIES as u64) & 15 & images.held[id];
        if (mask != 0) != host.reported {
            tally
                .wrong
                .push(format!("{name}: n{id} reports damage: {}", host.reported));
        }
    }
    let possible = images.intact(pattern).iter().all(|copies| *copies > 0);
    tally.possible += u64::from(possible);
    tally.lost_for_good += u64::from(!possible);
    match verdict {
        Verdict::Serves => {
            tally.serves += 1;
            if !possible {
                tally.wrong.push(format!("{name}: served what nobody has"));
            }
        }
        Verdict::Unavailable if possible => {
            let state: Vec<String> = world
                .hosts
                .values()
                .map(|host| {
                    format!(
                        "n{} {:?} t{} commit {} of {} applied {} {:?}",
                        host.id,
                        host.raft.role(),
                        host.raft.term(),
                        host.raft.commit(),
                        host.raft.last(),
                        host.applied_to(),
                        host.halted
                    )
                })
                .collect();
            tally.missed.push(format!("{name}: {}", state.join("; ")));
        }
        Verdict::Unavailable => {}
        Verdict::Wrong(why) => tally.wrong.push(format!("{name}: {why}")),
    }
    tally
}

/// The cells whose number is `shard` modulo `shards`.
fn table(shard: u64, shards: u64) -> BTreeMap<(Situation, Part), Tally> {
    let mut tallies = BTreeMap::new();
    let mut number = 0;
    for situation in SITUATIONS {
        let images = Images::new(situation, true);
        for part in PARTS {
            let tally: &mut Tally = tallies.entry((situation, part)).or_default();
            for pattern in 0..1 << (NODES.len() * ENTRIES) {
                if images.is_repetition(pattern) {
                    continue;
                }
                for leader_first in [true, false] {
                    number += 1;
                    if number % shards == shard {
                        tally.add(cell(&images, part, pattern, leader_first));
                    }
                }
            }
        }
    }
    tallies
}

fn verdict(tallies: &BTreeMap<(Situation, Part), Tally>) {
    let mut all = Tally::default();
    for ((situation, part), tally) in tallies {
        tally.print(&format!("{situation:?}, {part:?}"));
        all.add(tally.clone());
    }
    all.print("all");
    assert!(all.wrong.is_empty(), "{} wrong", all.wrong.len());
    assert_eq!(all.missed.len(), 0, "served wherever any protocol could");
}

#[test]
fn damage_table_a_sample_of_all_patterns() {
    // Could go wrong: a damaged copy taken for the end of a log, an election won without an
    // acknowledged entry, a hole filled with something else, a state machine that skips one.
    verdict(&table(17, 41));
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
            let (verdict, mut world) = run(&disks, NODES[1], bit as u64, &expected());
            assert_eq!(verdict, Verdict::Serves, "{part:?} {bit}");
            for _ in 0..60 {
                world.tick();
            }
            drop(world);
            let disks = disks.iter().map(|(id, disk)| (*id, disk.fork())).collect();
            let (verdict, world) = run(&disks, NODES[0], 99, &expected());
            assert!(
                matches!(verdict, Verdict::Serves),
                "{part:?} {bit}: {verdict:?}"
            );
            for host in world.hosts.values() {
                assert!(
                    !host.reported,
                    "{part:?} {bit}: n{} is damaged again",
                    host.id
                );
            }
        }
    }
}

#[test]
fn damage_table_without_receipts_only_the_last_entry_is_at_stake() {
    let images = Images::new(Situation::AllUp, false);
    let last = ENTRIES - 1;
    for pattern in (0..1 << (NODES.len() * ENTRIES)).step_by(7) {
        let disks = images.disks(pattern, Part::Payload);
        let (verdict, world) = run(&disks, NODES[0], u64::from(pattern), &expected()[..last]);
        // Judged by the first three entries: whoever serves has those.
        if let Verdict::Wrong(why) = verdict {
            let with_last =
                (world.hosts.keys()).any(|id| world.commands(*id).contains(&text(last)));
            assert!(with_last, "pattern {pattern:012b}: {why}");
        }
    }
}
