//! From a run that fails to a shorter one that fails in the same way: fewer ticks, fewer nodes, whole
//! kinds of trouble switched off, then single occurrences of trouble left out.

use crate::fault::FaultKind;
use crate::scenario::Scenario;
use crate::sim::Violation;
use std::collections::BTreeSet;

/// What came out.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The shortest run found.
    pub scenario: Scenario,
    /// What it shows.
    pub violation: Violation,
    /// Runs that it took.
    pub runs: u64,
}

/// Makes a failing run shorter, with at most `runs_max` runs. `run` says what a run shows; `None`
/// from the very first means that there is nothing to shrink.
pub fn shrink(
    scenario: &Scenario,
    runs_max: u64,
    run: impl FnMut(&Scenario) -> Option<Violation>,
) -> Option<Shrunk> {
    let mut search = Search {
        run,
        left: runs_max,
        runs: 0,
    };
    let violation = search.run(scenario)?;
    let mut best = Shrunk {
        scenario: scenario.clone(),
        violation,
        runs: 0,
    };
    search.fewer_ticks(&mut best);
    loop {
        let before = best.scenario.clone();
        search.fewer_nodes(&mut best);
        search.fewer_kinds(&mut best);
        search.fewer_occurrences(&mut best);
        search.fewer_ticks(&mut best);
        if best.scenario == before || search.left == 0 {
            break;
        }
    }
    best.runs = search.runs;
    Some(best)
}

/// What kind of violation this is: the check that found it, or the words it begins with, without
/// numbers.
pub fn class_of(what: &str) -> String {
    let check = what.split(':').next().unwrap_or(what);
    let word = |c: &char| !c.is_ascii_digit();
    if check.len() <= 4 {
        return check.to_string();
    }
    check.chars().filter(word).take(24).collect()
}

struct Search<F> {
    run: F,
    left: u64,
    runs: u64,
}

impl<F: FnMut(&Scenario) -> Option<Violation>> Search<F> {
    fn run(&mut self, scenario: &Scenario) -> Option<Violation> {
        self.left = self.left.checked_sub(1)?;
        self.runs += 1;
        (self.run)(scenario)
    }

    /// Takes another scenario instead of the best one if it fails in the same way.
    fn try_instead(&mut self, best: &mut Shrunk, scenario: Scenario) -> bool {
        let wanted = class_of(&best.violation.what);
        match self.run(&scenario) {
            Some(violation) if class_of(&violation.what) == wanted => {
                best.scenario = scenario;
                best.violation = violation;
                true
            }
            Some(_) | None => false,
        }
    }

    /// What came before the violation stays the same when the run ends right behind it. One that only
    /// healing shows is tried with less before.
    fn fewer_ticks(&mut self, best: &mut Shrunk) {
        loop {
            let ticks = best.scenario.ticks;
            let shown_at = best.violation.tick + 1;
            let fewer = if shown_at < ticks {
                shown_at
            } else if best.violation.tick > ticks {
                ticks / 2
            } else {
                return;
            };
            let scenario = Scenario {
                ticks: fewer.max(1),
                ..best.scenario.clone()
            };
            if fewer == 0 || !self.try_instead(best, scenario) {
                return;
            }
        }
    }

    fn fewer_nodes(&mut self, best: &mut Shrunk) {
        let nodes = best.scenario.config().nodes;
        for fewer in 1..nodes {
            let scenario = Scenario {
                nodes: Some(fewer),
                ..best.scenario.clone()
            };
            if self.try_instead(best, scenario) {
                return;
            }
        }
    }

    fn fewer_kinds(&mut self, best: &mut Shrunk) {
        for kind in FaultKind::ALL {
            if best.scenario.without.contains(kind) {
                continue;
            }
            let mut scenario = best.scenario.clone();
            scenario.without.insert(*kind);
            self.try_instead(best, scenario);
        }
    }

    /// Leaves out ever smaller parts of the occurrences, the latest first: what came before them stays
    /// the same.
    fn fewer_occurrences(&mut self, best: &mut Shrunk) {
        let all = best.violation.troubles;
        let begin: BTreeSet<u64> = match &best.scenario.only {
            Some(only) => only.iter().copied().filter(|n| *n <= all).collect(),
            None => (1..=all).collect(),
        };
        let mut part = begin.len().div_ceil(2);
        let mut kept = begin;
        while part > 0 && self.left > 0 {
            let numbers: Vec<u64> = kept.iter().copied().collect();
            for chunk in numbers.rchunks(part) {
                let only: BTreeSet<u64> = kept
                    .iter()
                    .copied()
                    .filter(|n| !chunk.contains(n))
                    .collect();
                let scenario = Scenario {
                    only: Some(only.clone()),
                    ..best.scenario.clone()
                };
                if self.try_instead(best, scenario) {
                    kept = only;
                }
            }
            part = if part == 1 { 0 } else { part.div_ceil(2) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(tick: u64, what: &str) -> Violation {
        Violation {
            seed: 1,
            tick,
            event: 0,
            troubles: 100,
            what: what.into(),
            trace: Vec::new(),
        }
    }

    #[test]
    fn only_what_matters_is_left() {
        // Fails at tick 70 if occurrences 13 and 77 happen, with crashes, on three nodes or more.
        let run = |scenario: &Scenario| {
            let happens = |n| scenario.only.as_ref().is_none_or(|only| only.contains(&n));
            let fails = scenario.ticks > 70
                && scenario.nodes.is_none_or(|nodes| nodes >= 3)
                && !scenario.without.contains(&FaultKind::Crash)
                && happens(13)
                && happens(77);
            fails.then(|| violation(70, "A5: so and so"))
        };
        let shrunk = shrink(&Scenario::new(20_000), 1_000, run).expect("it fails");
        assert_eq!(shrunk.scenario.ticks, 71);
        assert_eq!(shrunk.scenario.only, Some(BTreeSet::from([13, 77])));
        assert_eq!(shrunk.scenario.without.len(), FaultKind::ALL.len() - 1);
        assert!(shrunk.runs < 200, "{}", shrunk.runs);
    }

    #[test]
    fn another_violation_is_not_the_same() {
        let run = |scenario: &Scenario| {
            let what = if scenario.without.is_empty() {
                "A5: x"
            } else {
                "B7: x"
            };
            Some(violation(10, what))
        };
        let shrunk = shrink(&Scenario::new(1), 1_000, run).expect("it fails");
        assert!(shrunk.scenario.without.is_empty());
        assert_eq!(shrunk.violation.what, "A5: x");
    }

    #[test]
    fn classes_ignore_numbers() {
        assert_eq!(class_of("B7: at commit, 3 of 5"), "B7");
        let log = |n| format!("the log of node {n} failed: reason");
        assert_eq!(class_of(&log(3)), class_of(&log(12)));
    }
}
