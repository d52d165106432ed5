//! Did a swarm meet what it is for? A run that never crashed in a commit says nothing about crashes in
//! commits, so a swarm that met some hazard too rarely is void.

use std::fmt;

/// Hazards, and how often each is to be met in a thousand seeds of [`TICKS`](crate::TICKS) ticks.
const LEAST_IN_THOUSAND: &[(&str, u64)] = &[
    ("votes_split", 500),
    ("cuts_of_durable", 200),
    ("crashes_in_rotations", 200),
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

/// Hazards that only runs with [`Recover::AtPromises`](crate::Recover) meet in these numbers.
const OF_RECOVERY: &[&str] = &["promises", "recoveries"];

/// What `seeds` seeds met too rarely to say anything about it, where `recovering` of them ran recovery
/// at every promise and `count` tells how often something happened in all. Fewer than 100 seeds are no
/// swarm.
pub fn shortfalls(
    seeds: u64,
    recovering: u64,
    count: impl Fn(&str) -> Option<u64>,
) -> Vec<Shortfall> {
    if seeds < 100 {
        return Vec::new();
    }
    let all = LEAST_IN_THOUSAND.iter().map(|(hazard, in_thousand)| {
        let of = if OF_RECOVERY.contains(hazard) {
            recovering
        } else {
            seeds
        };
        Shortfall {
            hazard,
            met: count(hazard).unwrap_or(0),
            least: (in_thousand * of).div_ceil(1_000),
        }
    });
    all.filter(|found| found.met < found.least).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Report;

    #[test]
    fn hazards_are_counters_and_must_be_met() {
        let none = Report::default();
        for (hazard, _) in LEAST_IN_THOUSAND {
            assert!(none.count(hazard).is_some(), "{hazard}");
        }
        let rare = shortfalls(1_000, 125, |name| none.count(name));
        assert_eq!(rare.len(), LEAST_IN_THOUSAND.len());
        let promises = rare.iter().find(|found| found.hazard == "promises");
        assert_eq!(promises.map(|found| found.least), Some(62_500));
        assert_eq!(shortfalls(99, 99, |name| none.count(name)), []);
    }
}
