//! The bug bank: faults that others have made, planted at run time, and what finds them after how much
//! work. A laboratory that finds no planted fault proves nothing.
//!
//! Each fault has the labs that may look for it; they try one seed each in turn, from seed 0, until one
//! of them notices. The time is the processor's, of this thread. What was found by the rig of these tests
//! is looked for a second time, by the simulator alone: it is what users have. `docs/bug-bank.md` holds
//! the table, and `map.rs` which id has which faults.
//!
//! `DURAFT_BUG_BANK=k/n` chooses the k-th of n parts, 1/1 all of it; `DURAFT_BUG_BANK_ONLY=TEXT` the
//! faults whose name or plant has it. `DURAFT_BUG_BANK_SECONDS` and `DURAFT_BUG_BANK_SHIPPED_SECONDS` are
//! the most that is spent on one fault.

#![allow(clippy::print_stdout, reason = "the bank prints its table")]

mod faults;
mod labs;
mod map;
mod situations;

use duraft_core::Plant;
use duraft_storage::SnapshotAblation;
use duraft_tests::Sabotage;
use faults::{Fault, SHIPPED, all};
use labs::Lab;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wrong {
    /// In the core.
    Core(Plant),
    /// In the files of snapshots.
    Files(SnapshotAblation),
    /// By the disk of one node of the rig.
    Disk(Sabotage),
    /// By the disks of the simulator, whose syncs do nothing.
    Lies,
    /// The n-th fault of the log's own bank.
    Store(usize),
    /// Nothing, and it is looked for where the n-th fault of the log would be.
    Sound(usize),
    /// Nothing: the labs must be silent.
    Nothing,
}

impl Wrong {
    /// The same without the fault.
    fn control(self) -> Wrong {
        match self {
            Wrong::Store(fault) | Wrong::Sound(fault) => Wrong::Sound(fault),
            Wrong::Core(_) | Wrong::Files(_) | Wrong::Disk(_) | Wrong::Lies | Wrong::Nothing => {
                Wrong::Nothing
            }
        }
    }
}

/// Processor time of this thread.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("since the thread began"),
        u32::try_from(time.tv_nsec).expect("below a second"),
    )
}

/// A find.
#[derive(Debug)]
struct Found {
    lab: Lab,
    seed: u64,
    why: String,
}

/// Tries seed after seed until the fault is found or the time is over. What the same seed says without
/// the fault is no find; to ask costs no time here.
fn find(wrong: Wrong, labs: &[Lab], budget: Duration) -> (Option<Found>, Duration) {
    let mut spent = Duration::ZERO;
    for seed in 0.. {
        for lab in labs {
            let began = busy();
            let why = lab.tries(seed, wrong);
            spent += busy() - began;
            let sound = |why: &String| {
                let control = lab.tries(seed, wrong.control());
                if let Some(control) = &control {
                    println!(
                        "{}: seed {seed} without a fault: {control}; {why}",
                        lab.name()
                    );
                }
                control.is_none()
            };
            if let Some(why) = why.filter(sound) {
                let found = Found {
                    lab: *lab,
                    seed,
                    why,
                };
                return (Some(found), spent);
            }
            if spent > budget {
                return (None, spent);
            }
        }
    }
    unreachable!("the seeds do not end")
}

/// Most processor time for one fault, if `DURAFT_BUG_BANK_SECONDS` does not say otherwise.
const BUDGET: u64 = 300;
/// And for its second search, if `DURAFT_BUG_BANK_SHIPPED_SECONDS` does not.
const BUDGET_SHIPPED: u64 = 60;
/// Most for the median.
const MEDIAN_MAX: Duration = Duration::from_secs(60);

fn seconds(name: &str, default: u64) -> Duration {
    let text = std::env::var(name);
    Duration::from_secs(text.map_or(default, |text| text.parse().expect("seconds")))
}

/// Looks for the faults whose number is `shard` modulo `shards`, and prints the table.
fn bank(shard: usize, shards: usize) {
    let budget = seconds("DURAFT_BUG_BANK_SECONDS", BUDGET);
    let only = std::env::var("DURAFT_BUG_BANK_ONLY").unwrap_or_default();
    let mut times = Vec::new();
    let mut missed = Vec::new();
    let mut shipped = 0;
    println!(
        "| fault | plant | known by | finder | seed | CPU s | shipped laboratory | what it said |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let all = all();
    let wanted = |fault: &Fault| fault.name.contains(&only) || fault.plant().contains(&only);
    for (_, fault) in
        (all.iter().enumerate()).filter(|(n, fault)| n % shards == shard && wanted(fault))
    {
        let (name, plant, ids) = (fault.name, fault.plant(), fault.ids);
        let (found, spent) = find(fault.wrong, fault.labs, budget);
        let Some(found) = found else {
            let spent = spent.as_secs_f64();
            println!("| {name} | `{plant}` | {ids} | **missed** | | {spent:.1} | | |");
            missed.push(name);
            continue;
        };
        let by_shipped = shipped_finder(fault, &found, &all);
        shipped += usize::from(!by_shipped.starts_with("not "));
        println!(
            "| {name} | `{plant}` | {ids} | {} | {} | {:.2} | {by_shipped} | {} |",
            found.lab.name(),
            found.seed,
            spent.as_secs_f64(),
            short(&found.why)
        );
        times.push(spent);
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    println!(
        "{} found, {} missed, median {median:.2?}; {shipped} by the shipped laboratory",
        times.len(),
        missed.len()
    );
    assert!(missed.is_empty(), "missed: {missed:?}");
    assert!(median <= MEDIAN_MAX, "{median:?}");
}

/// What finds the fault of all that ships with the product: simulator, model and enumeration.
fn shipped_finder(fault: &Fault, found: &Found, all: &[Fault]) -> String {
    if found.lab.is_shipped() {
        return "the same".into();
    }
    if self::shard().is_none() {
        return "not searched".into();
    }
    let in_model = |other: &Fault| other.wrong == fault.wrong && other.labs == [Lab::Model];
    if all.iter().any(in_model) {
        return "model".into();
    }
    let budget = seconds("DURAFT_BUG_BANK_SHIPPED_SECONDS", BUDGET_SHIPPED);
    match find(fault.wrong, SHIPPED, budget) {
        (Some(found), spent) => format!(
            "{}, seed {}, {:.1} s",
            found.lab.name(),
            found.seed,
            spent.as_secs_f64()
        ),
        (None, _) => "not found".into(),
    }
}

/// The beginning of a line, fit for a table.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| *c != '|').take(90).collect()
}

/// Part and number of parts.
fn shard() -> Option<(usize, usize)> {
    let text = std::env::var("DURAFT_BUG_BANK").ok()?;
    let (k, n) = text.split_once('/').expect("DURAFT_BUG_BANK=k/n");
    let (k, n): (usize, usize) = (k.parse().expect("k"), n.parse().expect("n"));
    assert!(1 <= k && k <= n, "1 <= k <= n");
    Some((k - 1, n))
}

#[test]
fn checks_bug_bank() {
    let (shard, shards) = shard().unwrap_or((6, 12));
    bank(shard, shards);
}

#[test]
fn checks_labs_find_nothing_where_nothing_is_wrong() {
    for fault in all().iter().step_by(20) {
        for lab in fault.labs {
            assert_eq!(lab.tries(0, Wrong::Nothing), None, "{}", lab.name());
        }
    }
}
