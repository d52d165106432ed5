//! Did a swarm meet what it is for? A run that never crashed in a commit says nothing about crashes in
//! commits, so a swarm that met some hazard too rarely is void.

use crate::sim::Report;
use std::fmt;

/// Hazards, and how often each is to be met in a thousand seeds of [`TICKS`](crate::TICKS) ticks.
const LEAST_IN_THOUSAND: &[(&str, u64)] = &[
    ("elections", 2_000),
    ("acknowledged", 50_000),
    ("crashes", 5_000),
    ("power_losses", 2_000),
    ("crashes_in_commits", 500),
    ("crashes_in_recovery", 100),
    ("crashes_at_messages", 100),
    ("crashes_together", 100),
    ("blackouts", 50),
    ("poisoned", 300),
    ("partitions", 1_000),
    ("one_way_partitions", 100),
    ("pauses", 500),
    ("clock_jumps", 100),
    ("disks_full", 100),
    ("stalls", 500),
    ("loads", 5_000),
    ("unknown", 1_000),
    ("promises", 500_000),
    ("recoveries", 50_000),
    ("snapshots", 2_000),
    ("received", 100),
    ("installs", 100),
    ("crashes_in_snapshots", 50),
    ("crashes_in_transfers", 20),
    ("sessions", 500),
    ("retries", 500),
    ("sessions_expired", 50),
    ("reads", 5_000),
    ("lease_reads", 3_000),
    ("handovers", 50),
    ("joined", 100),
    ("memberships", 500),
    ("changes", 200),
    ("damages", 200),
    ("damages_reported", 80),
    ("wipes", 20),
    ("healed", 80),
];

/// A hazard that was met too rarely.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shortfall {
    /// The counter's name.
    pub hazard: &'static str,
    /// How often it was met.
    pub met: u64,
    /// How often it had to be.
    pub least: u64,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortfall { hazard, met, least } = self;
        write!(
            f,
            "{hazard}: met {met} times, to be met at least {least} times"
        )
    }
}

/// What these seeds met too rarely to say anything about it. Fewer than 100 seeds are no swarm.
pub fn shortfalls(sum: &Report, seeds: u64) -> Vec<Shortfall> {
    if seeds < 100 {
        return Vec::new();
    }
    let counts = sum.counts();
    let met = |name: &str| {
        let count = counts.iter().find(|(known, _)| *known == name);
        count.expect("hazards are counters").1
    };
    let all = LEAST_IN_THOUSAND
        .iter()
        .map(|(hazard, in_thousand)| Shortfall {
            hazard,
            met: met(hazard),
            least: (in_thousand * seeds).div_ceil(1_000),
        });
    all.filter(|found| found.met < found.least).collect()
}
