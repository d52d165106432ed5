//! Whole lives of clusters, drawn from seeds: elections, crashes, loss, slow disks, snapshots, membership
//! changes, transfers, reads, cut links. `DURAFT_SWARM_SEEDS=n` and `DURAFT_SWARM_FIRST=n` choose the
//! seeds; a failure names its seed, and `SEED=n` replays it alone with a full trace.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed life must say its seed, a finished one what it met"
)]

use duraft_tests::sim::options;
use duraft_tests::swarm::{Met, Rot, Swarm};

/// Seeds of an ordinary run.
const SEEDS: u64 = 120;
/// Troubles of a life.
const ROUNDS: u64 = 250;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds that this run lives through.
fn chosen() -> std::ops::Range<u64> {
    if let Some(seed) = number("SEED") {
        return seed..seed + 1;
    }
    let first = number("DURAFT_SWARM_FIRST").unwrap_or(0);
    first..first + number("DURAFT_SWARM_SEEDS").unwrap_or(SEEDS)
}

fn live(rot: Rot) -> Met {
    let mut met = Met::default();
    for seed in chosen() {
        // Whatever panics names the seed by this.
        let told = Told(seed);
        met.add(&Swarm::new(seed, rot, options).run(ROUNDS));
        std::mem::forget(told);
    }
    println!("{rot:?}: {met}");
    met
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the swarm of seed {} failed: SEED={}", self.0, self.0);
    }
}

/// Everything that was to be met was met.
fn covered(met: &Met, besides: &[&str]) {
    if met.seeds < SEEDS {
        return;
    }
    for (name, count) in met.fields() {
        assert!(count > 0 || besides.contains(&name), "no {name}: {met}");
    }
}

#[test]
fn swarm_of_everything_but_rot() {
    let met = live(Rot::Never);
    covered(
        &met,
        &[
            "damaged disks",
            "wiped disks",
            "healed",
            "left to an operator",
        ],
    );
}

#[test]
fn swarm_with_one_damaged_node_at_a_time_recovers() {
    // Blocks lost in the middle, at the end, with or without knowledge of it, terms lost, disks wiped: as
    // long as one node at a time is affected, the cluster comes back whole.
    let met = live(Rot::OneAtATime);
    covered(&met, &["wiped disks", "left to an operator"]);
}

#[test]
fn swarm_with_any_number_of_damaged_nodes_loses_nothing_in_silence() {
    // Nothing is asked but that no rule is broken: who has lost too much does not serve.
    let met = live(Rot::Any);
    covered(&met, &["wiped disks", "left to an operator"]);
}
