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
    covered(&met, &["damaged disks", "wiped disks", "healed"]);
}
