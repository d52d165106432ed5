//! A few runs of every kind of random run: seconds without optimisation, where the whole sets take
//! minutes. For the first stage of the mutation tests, and for whoever wants a quick answer.

use super::garbage::lies;
use super::random::{Checks, changing, damaged_runs, far_behind, run};
use super::reads::f5;

#[test]
fn a_few_runs_of_every_kind() {
    for (seed, nodes) in [(100, 3), (101, 3), (102, 5), (103, 2), (104, 1)] {
        run(seed, nodes, 660, None, Checks::All).unwrap_or_else(|why| panic!("{why}"));
    }
    far_behind(30_000).unwrap_or_else(|why| panic!("{why}"));
    for seed in 40_000..40_003 {
        changing(seed, None, Checks::All).unwrap_or_else(|why| panic!("{why}"));
    }
    let (damaged, healed, _) =
        damaged_runs(40_000..40_003, false, None).unwrap_or_else(|(_, why)| panic!("{why}"));
    assert!(damaged > 2 && healed > 1, "{damaged} {healed}");
    damaged_runs(50_000..50_001, true, None).unwrap_or_else(|(_, why)| panic!("{why}"));
    let reads: usize = (0..4)
        .map(|seed| f5(seed, 100_000, false, None).unwrap_or_else(|why| panic!("{why}")))
        .map(|(reads, _)| reads)
        .sum();
    assert!(reads > 100, "{reads} reads by lease");
    f5(50_000, 0, true, None).unwrap_or_else(|why| panic!("{why}"));
    let (led, _, _) = lies(0..20);
    assert!(led > 10, "{led} steps as a leader");
}
