//! The bug bank: faults that others have made, planted at run time, and what finds them after how much
//! work. A laboratory that finds no planted fault proves nothing.
//!
//! Each fault has the labs that may look for it; they try one seed each in turn, from seed 0, until one
//! of them notices. The time is the processor's, of this thread. `docs/bug-bank.md` holds the table.
//!
//! `DURAFT_BUG_BANK=k/n` chooses the k-th of n parts, 1/1 all of it.

#![allow(clippy::print_stdout, reason = "the bank prints its table")]

mod faults;
mod labs;
mod situations;

use duraft_core::Plant;
use duraft_storage::SnapshotAblation;
use duraft_tests::Sabotage;
use faults::all;
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
const BUDGET: Duration = Duration::from_secs(300);
/// Most for the median.
const MEDIAN_MAX: Duration = Duration::from_secs(60);

/// Looks for the faults whose number is `shard` modulo `shards`, and prints the table.
fn bank(shard: usize, shards: usize) {
    let seconds = std::env::var("DURAFT_BUG_BANK_SECONDS");
    let budget = seconds.map_or(BUDGET, |text| {
        Duration::from_secs(text.parse().expect("seconds"))
    });
    let mut times = Vec::new();
    let mut missed = Vec::new();
    println!("| fault | known by | finder | seed | CPU s | what it said |");
    println!("|---|---|---|---|---|---|");
    for (_, fault) in all()
        .iter()
        .enumerate()
        .filter(|(n, _)| n % shards == shard)
    {
        let (found, spent) = find(fault.wrong, fault.labs, budget);
        let Some(found) = found else {
            println!(
                "| {} | {} | **missed** | | {:.1} | |",
                fault.name,
                fault.ids,
                spent.as_secs_f64()
            );
            missed.push(fault.name);
            continue;
        };
        println!(
            "| {} | {} | {} | {} | {:.2} | {} |",
            fault.name,
            fault.ids,
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
        "{} found, {} missed, median {median:.2?}",
        times.len(),
        missed.len()
    );
    assert!(missed.is_empty(), "missed: {missed:?}");
    assert!(median <= MEDIAN_MAX, "{median:?}");
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
