//! The write-ahead log against every crash the fault disk can make.
//!
//! Workloads of appends, truncations, compactions, votes and rotations run on small slots that have
//! lived several times before. At every disk operation the power fails; every disk that may be left
//! (all subsets of the pending sectors where at most 12 are pending, else all prefixes, all single
//! missing, all single present and at least 2,000 drawn ones) is recovered by the shipped code, and
//! from some of them the next life begins and crashes again, three deep, with at least 16 drawn
//! subsets per operation there. Beside these, some are drawn in which sectors are torn: the log promises
//! nothing less on a disk that breaks the promise of whole sectors. In busy plans every second write takes
//! or installs a snapshot or changes the members, and what is installed comes in pieces; a transfer that
//! was cut off must go on in the next life.
//!
//! What is asked of each recovery, written from the design and checked against a model that shares
//! no code with the log:
//! - nothing acknowledged is lost, and nothing that an earlier recovery showed;
//! - what is found is the state after some prefix of the submitted writes: all groups, hard states,
//!   boundaries, digests and bodies;
//! - so no hard state goes back and nothing that was discarded comes back, in this or a later life;
//! - no crash is called damage;
//! - recovering twice, also when the first time is cut off anywhere, gives the same state;
//! - a store in one piece goes on: opening, writing and closing never fail on a healthy disk.
//!
//! Damage at rest ([`damage`]) and failing operations ([`faults`]) have oracles of their own. The
//! ablations at the end leave out one defence of the format each, and the search must notice.
//!
//! # The long run
//!
//! ```text
//! DURAFT_CRASH_STATES=10000000 DURAFT_CRASH_SHARD=1/2 \
//!     cargo test --release -p duraft-tests --test it -- wal_crash::long --nocapture
//! ```
//! visits seeds 1, 3, 5, ... of shard 1 of 2 until so many crash states are checked (and damages
//! done, beside them), prints a line per seed and the sums at the end. `DURAFT_CRASH_SEED=n` begins
//! at seed n: to resume, or to replay one. `DURAFT_CRASH_KIND=crash`, `damage`, `fault` or `repair` does
//! only that part, and `DURAFT_CRASH_VIOLATIONS=n` goes on after a violation, up to n of each seed.

// The long run tells what it does.
#![allow(clippy::print_stdout)]

pub(crate) mod bank;
mod damage;
mod drive;
mod engine;
mod faults;
mod from_text;
mod model;
mod promise;
mod repair;

use damage::{DamageCounts, DamageSearch};
use drive::{Counts, Level, Plan, Search, Story, blank, mix};
use duraft_disk::{SplitMix64, Subsets, for_each_crash_state};
use duraft_storage::{Ablation, JoinAs, SnapshotAblation};
use engine::{Plant, Refusal, Setup};
use faults::FaultSearch;
use model::{Expected, Shape, State};
use repair::{RepairCounts, RepairSearch};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A plan of these sizes; everything else is drawn from the seed.
fn plan(seed: u64, sector_bytes: usize, slot_kib: u64) -> Plan {
    let mut rng = SplitMix64::new(mix(seed, 0x706c_616e));
    // Slots of 16 KiB hold one block each: every commit begins a segment.
    let (groups, command_max) = match slot_kib {
        16 => (1, 100),
        20 => (1 + rng.below(2), 200 + rng.below(40)),
        24 => (1 + rng.below(3), 300 + rng.below(80)),
        _ => (1 + rng.below(3), 300 + rng.below(750)),
    };
    // Enough to use every slot several times before the search begins.
    let history = usize::try_from(slot_kib - 12).expect("a few KiB") * 8;
    // A block of few sectors has few outcomes, so that more of them can be lived in.
    let (writes, first, second) = match sector_bytes {
        4096 => (12, 90, 60),
        2048 => (12, 140, 80),
        1024 => (16, 5000, 200),
        _ => (12, 12000, 300),
    };
    Plan {
        seed,
        sector_bytes,
        setup: Setup {
            slot_bytes: slot_kib << 10,
            groups,
            slots_ready_min: 1 + usize::try_from(rng.below(3)).expect("below 3"),
            mark_every_commits: 1 + rng.below(4),
            ablation: None,
            files: None,
            plant: None,
        },
        shape: Shape {
            groups,
            command_max,
            heavy: sector_bytes <= 1024,
            batches_max: 3,
            busy: false,
        },
        history: vec![history, history, 10],
        levels: [
            Level {
                writes,
                drawn: 2000,
                exhaustive_max: 12,
                torn: 40,
                descend_every: first,
                process_every: 10,
            },
            Level {
                writes: 4,
                drawn: 16,
                exhaustive_max: 4,
                torn: 2,
                descend_every: second,
                process_every: 600,
            },
            Level {
                writes: 2,
                drawn: 16,
                exhaustive_max: 4,
                torn: 2,
                descend_every: 0,
                process_every: 0,
            },
        ],
        syncs_lie: false,
        full_every: 4,
        violations_max: 1,
    }
}

fn assert_clean(stories: &[Story]) {
    let told: Vec<&str> = stories.iter().map(|story| story.0.as_str()).collect();
    assert!(told.is_empty(), "{}", told.join("\n\n"));
}

/// Runs these plans and prints what was done.
fn search(title: &str, plans: impl IntoIterator<Item = Plan>) -> Counts {
    let mut counts = Counts::default();
    for plan in plans {
        let search = Search::run(&plan);
        assert_clean(&search.stories);
        counts.add(&search.counts);
    }
    println!("{title}: {} crash states, {counts:?}", counts.total());
    counts
}

/// Plans of these seeds with slots of these sizes in turn.
fn plans(seeds: u64, sector_bytes: usize, slots_kib: &[u64]) -> Vec<Plan> {
    (0..seeds)
        .zip(slots_kib.iter().cycle())
        .map(|(n, slot)| plan(n, sector_bytes, *slot))
        .collect()
}

fn assert_states(counts: &Counts, least: [u64; drive::DEPTH]) {
    let enough = counts
        .states
        .iter()
        .zip(least)
        .all(|(states, least)| *states >= least);
    assert!(enough, "{counts:?}");
}

// The least numbers below add up to more than 270,000 states.

#[test]
fn every_outcome_of_whole_blocks() {
    // Few sectors per block: nearly every crash point is searched to the end.
    let counts = search("4 KiB sectors", plans(5, 4096, &[16, 24, 32]));
    assert_states(&counts, [800, 15_000, 35_000]);
}

#[test]
fn every_outcome_of_halved_blocks() {
    let counts = search("2 KiB sectors", plans(5, 2048, &[16, 20, 32]));
    assert_states(&counts, [1_300, 20_000, 38_000]);
}

#[test]
fn torn_blocks() {
    let counts = search("1 KiB sectors", plans(5, 1024, &[16, 24, 32]));
    assert_states(&counts, [15_000, 20_000, 25_000]);
}

#[test]
fn finely_torn_blocks() {
    let counts = search("512 byte sectors", plans(4, 512, &[32, 16, 24]));
    assert_states(&counts, [28_000, 17_000, 10_000]);
}

/// An open was cut off after the first sectors of its segment, the next open of the same slot after
/// the last ones: what both had in common made the first one whole, and brought back a commit that the
/// second no longer had. Found by the long run.
#[test]
fn two_opens_cut_off_in_one_slot_do_not_make_the_first_whole() {
    let counts = search("opens cut off in one slot", [plan(160, 4096, 32)]);
    assert!(counts.total() >= 4_000, "{counts:?}");
}

/// An open that is killed leaves its segment in the cache. The next one finds no room but in the slots
/// that this segment has freed. Found by the simulator.
#[test]
fn opens_that_are_killed_and_find_no_room_lose_nothing() {
    let mut plan = plan(0, 4096, 16);
    plan.setup.slots_ready_min = 1;
    plan.full_every = 1;
    for (level, every) in plan.levels.iter_mut().zip([1, 1, 0]) {
        (level.writes, level.drawn, level.process_every) = (1, 8, every);
    }
    let counts = search("killed opens and full disks", [plan]);
    assert!(
        counts.total() > 50_000 && counts.process_crashes > 100,
        "{counts:?}"
    );
}

#[test]
fn first_lives_of_young_stores() {
    // Slots are still being made: files without names, names without content.
    let mut young = plans(2, 4096, &[16, 32]);
    young.extend(plans(3, 1024, &[24, 32]));
    young.iter_mut().for_each(|plan| plan.history.clear());
    let counts = search("young stores", young);
    assert_states(&counts, [1_700, 19_000, 32_000]);
}

#[test]
fn snapshots_members_and_transfers_are_cut_off_everywhere() {
    let mut plans = plans(2, 2048, &[24, 32]);
    plans.extend(self::plans(2, 4096, &[32, 20]));
    plans.iter_mut().for_each(|plan| plan.shape.busy = true);
    let counts = search("snapshots, members, transfers", plans);
    let [_, take, install, compact, change, transfer] = counts.paths;
    let least = [take, install, compact, change, transfer];
    assert!(least.iter().all(|states| *states > 100), "{counts:?}");
    assert!(counts.taken_up > 100 && counts.torn > 1_000, "{counts:?}");
}

/// Blocks of one sector each: only a torn one can have a good header and a bad body.
#[test]
fn torn_sectors_find_what_whole_ones_cannot() {
    let torn = |seed, torn| {
        let mut plan = plan(seed, 4096, 16);
        plan.setup.ablation = Some(Ablation::NoBodyChecksum);
        plan.levels.iter_mut().for_each(|level| level.torn *= torn);
        Search::run(&plan).stories.len()
    };
    let found = (0..12).find(|seed| torn(*seed, 5) > 0);
    let seed = found.expect("a torn body is not noticed without its checksum");
    assert_eq!(torn(seed, 0), 0, "seed {seed}: no sector is torn");
}

#[test]
fn lying_disk_is_noticed() {
    // The oracle's own test: a disk whose syncs do nothing loses what was acknowledged, and no log
    // can help it.
    let mut plan = plan(1, 4096, 32);
    (plan.syncs_lie, plan.full_every) = (true, 0);
    let search = Search::run(&plan);
    assert_eq!(search.stories.len(), 1);
}

#[test]
fn slots_have_lived_at_least_three_times_before_the_search_begins() {
    // On slots that were never used before, stale blocks could not be taken for live ones.
    for (seed, plan) in plans(24, 4096, &[16, 24, 32]).iter().enumerate() {
        let base = drive::base(plan).map_err(|story| story.0).expect("healthy");
        let lives: Vec<u32> = base.slot_lives.values().copied().collect();
        let often = lives.iter().filter(|lives| **lives >= 3).count();
        assert!(often >= 3, "seed {seed}: {lives:?}");
    }
}

#[test]
fn bootstrap_that_is_cut_off_can_be_done_again() {
    // A half made store must neither open as something else nor stand in the way.
    let plan = plan(1, 512, 16);
    let empty = Expected::exactly(Arc::new(State::empty(plan.setup.groups)));
    let mut states = 0;
    for mutation in 1.. {
        let disk = blank(&plan);
        disk.crash_at(mutation);
        let done = engine::bootstrap(&disk, &plan.setup, 1).is_ok();
        assert_eq!(done, !disk.crashed());
        let subsets = Subsets {
            drawn: 200,
            ..Subsets::default()
        };
        let (tally, _) = for_each_crash_state(&disk, &subsets, |state| {
            let result = drive::open(&state.disk.fork(), &plan, 2, &empty).map(drop);
            if let (Err(_), false) = (&result, done) {
                let again = state.disk.fork();
                match engine::open(&again, &plan.setup, 2).map(drop) {
                    Err(Refusal::NoStore) => {}
                    other => panic!("{other:?} after {state}"),
                }
                let made = engine::bootstrap(&again, &plan.setup, 3);
                made.unwrap_or_else(|e| panic!("{e:?} after {state}"));
                let opened = drive::open(&again, &plan, 4, &empty).map(drop);
                opened.unwrap_or_else(|story| panic!("{} after {state}", story.0));
            } else if let Err(story) = result {
                panic!("{} after {state}", story.0);
            }
            ControlFlow::<()>::Continue(())
        });
        states += tally.visited;
        if done {
            break;
        }
    }
    println!("bootstrap: {states} crash states");
    assert!(states > 80);
}

#[test]
fn single_damages_are_harmless_or_reported() {
    let mut counts = DamageCounts::default();
    for (seed, sector, slot) in [(1, 512, 16), (2, 512, 32), (3, 1024, 24), (4, 4096, 32)] {
        let plan = plan(seed, sector, slot);
        let search = DamageSearch::run(&plan);
        assert_clean(&search.stories);
        counts.add(&search.counts);
    }
    println!("damages at rest: {counts:?}");
    assert!(counts.done > 20_000 && counts.reported > 1_000 && counts.repaired > 1_000);
    assert!(counts.harmless > 1_000 && counts.unproven > 0 && counts.exact > 300);
}

#[test]
fn damage_after_power_losses_is_harmless_or_reported() {
    let mut counts = DamageCounts::default();
    for (seed, sector, slot) in [(1, 512, 16), (2, 512, 32), (3, 2048, 24), (4, 4096, 32)] {
        let plan = plan(seed, sector, slot);
        let search = DamageSearch::run_torn(&plan);
        assert_clean(&search.stories);
        counts.add(&search.counts);
    }
    println!("damages after power losses: {counts:?}");
    assert!(counts.done > 5_000 && counts.reported > 500 && counts.repaired > 500);
}

#[test]
fn failed_writes_and_syncs_poison_and_reopening_recovers() {
    let mut hits = 0;
    let mut counts = Counts::default();
    for (seed, sector, slot) in [(1, 512, 16), (2, 4096, 32), (3, 2048, 24)] {
        let plan = plan(seed, sector, slot);
        let search = FaultSearch::run(&plan);
        assert_clean(&search.stories);
        counts.add(&search.counts);
        hits += search.hits;
    }
    println!("failed operations: {hits}, {counts:?}");
    assert!(hits > 300);
}

fn repairs(
    title: &str,
    seeds: impl Iterator<Item = u64>,
    act: impl Fn(&mut RepairSearch<'_>) -> Result<(), Story>,
) -> RepairCounts {
    let mut sum = RepairCounts::default();
    let sizes = [(4096, 16), (512, 32), (2048, 24), (1024, 20)];
    for seed in seeds {
        let (sector, slot) = sizes[usize::try_from(seed).expect("a few seeds") % sizes.len()];
        let plan = plan(seed, sector, slot);
        let mut search = RepairSearch::new(&plan);
        if let Err(story) = act(&mut search) {
            panic!("seed {seed}: {}", story.0);
        }
        sum.add(&search.counts);
    }
    println!("{title}: {sum:?}");
    sum
}

#[test]
fn healing_that_is_cut_off_is_taken_up_again() {
    // The seeds at the end found something once: stale batches under copies and next to them, and
    // what a snapshot covers.
    let seeds = (0..12).chain([14, 173, 226]);
    let counts = repairs("healing", seeds, |search| search.heal_all(6));
    let RepairCounts {
        victims,
        gaps,
        ends,
        suffixes,
        votes,
        installs,
        cuts: _,
        states,
        healed,
    } = counts;
    assert!(victims > 20 && states > 5_000 && healed > 200, "{counts:?}");
    let kinds = [gaps, ends, suffixes, votes, installs];
    assert!(kinds.iter().all(|kind| *kind > 2), "{counts:?}");
}

#[test]
fn an_accepted_loss_that_is_cut_off_is_as_before_or_as_after() {
    // With the last seed, a segment without its checkpoint outlived the one before it.
    let seeds = (0..12).chain([25]);
    let counts = repairs("accepted losses", seeds, |search| search.accept_all(6));
    assert!(
        counts.victims > 20 && counts.states > 1_000 && counts.healed > 100,
        "{counts:?}"
    );
}

#[test]
fn a_membership_by_force_that_is_cut_off_is_as_before_or_as_after() {
    let counts = repairs("forced memberships", 0..12, |search| search.force());
    assert!(counts.states > 500 && counts.healed > 20, "{counts:?}");
}

#[test]
fn a_joining_store_that_is_cut_off_can_be_made_again_and_never_looks_like_the_other_kind() {
    for join in [JoinAs::New, JoinAs::Wiped] {
        let counts = repairs("joining stores", 0..4, |search| search.join(join));
        assert!(counts.states > 100 && counts.healed > 100, "{counts:?}");
    }
}

/// Searches with and without the ablation, over a few seeds, until only the full design is clean.
fn assert_needed(ablation: Ablation) {
    let mut states = 0;
    let sizes = [(4096, 16), (2048, 32), (512, 24)];
    for (seed, (sector, slot)) in (0..40).zip(sizes.into_iter().cycle()) {
        let full = plan(seed, sector, slot);
        let mut ablated = full.clone();
        ablated.setup.ablation = Some(ablation);
        let search = Search::run(&ablated);
        states += search.counts.total();
        let mut stories = search.stories;
        if !stories.is_empty() {
            assert_clean(&Search::run(&full).stories);
        } else {
            let search = DamageSearch::run(&ablated);
            states += search.counts.done;
            stories = search.stories;
            if !stories.is_empty() {
                assert_clean(&DamageSearch::run(&full).stories);
            }
        }
        if let Some(Story(story)) = stories.first() {
            println!("{ablation:?}: broken within {states} states and damages: {story}");
            return;
        }
    }
    panic!("{ablation:?}: {states} states and damages, all clean");
}

#[test]
fn ablation_without_body_checksums_is_noticed() {
    assert_needed(Ablation::NoBodyChecksum);
}

#[test]
fn ablation_without_life_nonces_is_noticed() {
    assert_needed(Ablation::NoLifeNonce);
}

#[test]
fn ablation_without_watermarks_is_noticed() {
    assert_needed(Ablation::NoWatermark);
}

#[test]
fn ablation_that_stops_at_the_first_hole_is_noticed() {
    assert_needed(Ablation::StopAtHole);
}

/// Searches with something done wrong, over a few seeds, until a rule is found broken.
fn assert_noticed(what: &str, spoil: impl Fn(&mut Setup)) {
    let mut states = 0;
    let sizes = [(4096, 32), (2048, 24), (4096, 16)];
    for (seed, (sector, slot)) in (0..20).zip(sizes.into_iter().cycle()) {
        let mut spoilt = plan(seed, sector, slot);
        spoil(&mut spoilt.setup);
        let search = Search::run(&spoilt);
        states += search.counts.total();
        if let Some(Story(story)) = search.stories.first() {
            println!("{what}: broken within {states} states: {story}");
            return;
        }
    }
    panic!("{what}: {states} states, all clean");
}

#[test]
fn snapshot_named_before_its_file_is_there_is_noticed() {
    assert_noticed("record before file", |setup| {
        setup.plant = Some(Plant::RecordFirst)
    });
    assert_noticed("folder not synced", |setup| {
        setup.files = Some(SnapshotAblation::NoDirSync);
    });
    assert_noticed("file not synced", |setup| {
        setup.files = Some(SnapshotAblation::NoSyncBeforeRename);
    });
}

#[test]
fn reset_apart_from_what_belongs_to_it_is_noticed() {
    assert_noticed("split reset", |setup| setup.plant = Some(Plant::SplitReset));
}

#[test]
fn compaction_before_its_snapshot_is_refused_and_would_be_noticed() {
    assert_noticed("refused", |setup| setup.plant = Some(Plant::CompactFirst));
    assert_noticed("unchecked", |setup| {
        setup.plant = Some(Plant::CompactFirst);
        setup.ablation = Some(Ablation::CompactUncovered);
    });
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
    )
}

/// `DURAFT_CRASH_SHARD=k/n`: the k-th of n, counted from 1.
fn shard() -> (u64, u64) {
    let Ok(text) = std::env::var("DURAFT_CRASH_SHARD") else {
        return (1, 1);
    };
    let parts = text
        .split_once('/')
        .and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((k, n)) if (1..=n).contains(&k) => (k, n),
        _ => panic!("DURAFT_CRASH_SHARD must be k/n with 1 <= k <= n, not '{text}'"),
    }
}

/// How many stories there are by what they begin with, numbers apart. The first of each is printed
/// when it comes.
#[derive(Default)]
struct Kinds(BTreeMap<String, u64>);

impl Kinds {
    fn add(&mut self, seed: u64, stories: Vec<Story>) {
        for Story(text) in stories {
            let first = text.lines().next().unwrap_or_default();
            let kind = first
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .take(60)
                .collect();
            let count = self.0.entry(kind).or_insert(0);
            *count += 1;
            if *count == 1 {
                println!("### seed {seed}: {text}\n");
            }
        }
    }

    fn assert_none(&self) {
        for (kind, count) in &self.0 {
            println!("### {count} times '{kind}'");
        }
        assert!(self.0.is_empty(), "{} kinds of violations", self.0.len());
    }
}

#[test]
fn long() {
    let wanted = number("DURAFT_CRASH_STATES").unwrap_or(5_000);
    let kind = std::env::var("DURAFT_CRASH_KIND").unwrap_or_else(|_| "all".into());
    let does = |name| kind == "all" || kind == name;
    let (shard, shards) = shard();
    let first = number("DURAFT_CRASH_SEED").unwrap_or(shard);
    let (mut counts, mut damages) = (Counts::default(), DamageCounts::default());
    let violations = number("DURAFT_CRASH_VIOLATIONS");
    let violations = violations.map(|n| usize::try_from(n).expect("a number of violations"));
    let (mut failures, mut kinds) = (0, Kinds::default());
    let mut people = [("heal", 0), ("accept", 0), ("force", 0), ("join", 0)];
    let mut seed = first;
    loop {
        // Only where no crashes are searched do damages count. A seed whose history is broken adds
        // a violation and no state.
        let decided: u64 = people.iter().map(|(_, states)| states).sum();
        let states = counts.total() + counts.violations + decided;
        let beside = if does("crash") {
            0
        } else {
            damages.done + damages.violations
        };
        if states + beside >= wanted || violations.is_none() && !kinds.0.is_empty() {
            break;
        }
        let mut rng = SplitMix64::new(mix(seed, 0x6c6f_6e67));
        let sector = 512 << rng.below(4);
        let slot = [16, 20, 24, 32, 48][usize::try_from(rng.below(5)).expect("below 5")];
        let mut plan = plan(seed, sector, slot);
        plan.violations_max = violations.unwrap_or(1);
        plan.shape.busy = rng.below(2) == 0;
        if does("crash") {
            let search = Search::run(&plan);
            counts.add(&search.counts);
            kinds.add(seed, search.stories);
        }
        if does("damage") {
            for search in [DamageSearch::run(&plan), DamageSearch::run_torn(&plan)] {
                damages.add(&search.counts);
                kinds.add(seed, search.stories);
            }
        }
        if does("fault") {
            let search = FaultSearch::run(&plan);
            failures += search.hits;
            counts.add(&search.counts);
            kinds.add(seed, search.stories);
        }
        if does("repair") {
            for (path, states) in &mut people {
                let (more, stories) = repair_path(path, &plan);
                *states += more;
                kinds.add(seed, stories);
            }
        }
        let decided: u64 = people.iter().map(|(_, states)| states).sum();
        println!(
            "seed {seed}: {sector} byte sectors, {slot} KiB slots, busy {}; \
             so far {} crash states {:?}, {} damages",
            plan.shape.busy,
            counts.total() + decided,
            counts.paths,
            damages.done
        );
        seed += shards;
    }
    println!(
        "shard {shard}/{shards}, seeds {first} to {}: \
         {} crash states, {failures} failed operations\n\
         {counts:?}\n{damages:?}",
        seed - shards,
        counts.total()
    );
    let [plain, take, install, compact, change, transfer] = counts.paths;
    println!(
        "crash states by path: take {take}, install {install}, compact {compact}, change {change}, \
         transfer {transfer}, others {plain}; {people:?}"
    );
    kinds.assert_none();
}

/// The crash states of healing, or of what people decide, on one plan.
fn repair_path(path: &str, plan: &Plan) -> (u64, Vec<Story>) {
    let mut search = RepairSearch::new(plan);
    let done = match path {
        "heal" => search.heal_all(6),
        "accept" => search.accept_all(6),
        "force" => search.force(),
        _ => search.join(JoinAs::Wiped),
    };
    (search.counts.states, done.err().into_iter().collect())
}
