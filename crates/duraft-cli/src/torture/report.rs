//! What was done, what clients heard, and the verdict.

use super::TortureArgs;
use super::cluster::Snapshots;
use super::faults::Counts;
use super::history::{Event, Verdict};
use super::logs::Found;
use super::words::Op;
use crate::bench::{BenchError, Facts};
use crate::output::{say, write_json};
use serde::Serialize;

const SCHEMA: u32 = 1;
/// A run with fewer acknowledged operations proves nothing.
const OPERATIONS_MIN: u64 = 500;

/// The whole run.
#[derive(Serialize)]
pub(super) struct Report {
    schema: u32,
    title: &'static str,
    facts: Facts,
    nodes: u8,
    seconds: u64,
    seed: u64,
    clients: u32,
    keys: u32,
    faults: Counts,
    /// Operations with an answer, and how many of them write.
    acknowledged: u64,
    acknowledged_writes: u64,
    /// Writes whose outcome nobody knows.
    open: u64,
    refused: u64,
    pub(super) agreed: bool,
    logs_complete: u64,
    /// Where the run has any.
    pub(super) snapshots: Option<Snapshots>,
    violations: Vec<String>,
    /// Why the run proves nothing, if so.
    void: Option<String>,
}

impl Report {
    pub(super) fn new(
        facts: Facts,
        args: &TortureArgs,
        events: &[Event],
        refused: u64,
        faults: Counts,
    ) -> Report {
        let count = |wanted: &dyn Fn(&Event) -> bool| {
            events.iter().filter(|event| wanted(event)).count() as u64
        };
        Report {
            schema: SCHEMA,
            title: "duraft torture",
            facts,
            nodes: args.nodes,
            seconds: args.seconds,
            seed: args.seed,
            clients: args.clients,
            keys: args.keys,
            faults,
            acknowledged: count(&|event| event.heard.is_some()),
            acknowledged_writes: count(&|event| event.heard.is_some() && event.op != Op::Get),
            open: count(&|event| event.heard.is_none() && event.op != Op::Get),
            refused,
            agreed: false,
            logs_complete: 0,
            snapshots: None,
            violations: Vec::new(),
            void: None,
        }
    }

    pub(super) fn judge(&mut self, found: &Found, verdict: Verdict) {
        let mut say = |broken: bool, text: String| {
            if broken {
                self.violations.push(text);
            }
        };
        say(
            !self.agreed,
            "the nodes did not agree after the faults".into(),
        );
        let missing = found.missing.len();
        let first = found.missing.first();
        say(
            missing > 0,
            format!("{missing} acknowledged writes are not in a quorum of logs: {first:?}, ..."),
        );
        say(
            found.repeated > 0,
            format!("{} attempts stand in a log twice", found.repeated),
        );
        say(
            found.diverged,
            "committed logs contradict each other".into(),
        );
        if let Verdict::Violated(keys) = &verdict {
            say(true, format!("not linearizable: registers {keys:?}"));
        }
        self.logs_complete = found.complete;
        self.void = if let Verdict::Undecided(keys) = verdict {
            Some(format!("no decision on registers {keys:?} in time"))
        } else if self.acknowledged < OPERATIONS_MIN {
            Some(format!("fewer than {OPERATIONS_MIN} operations"))
        } else if self
            .snapshots
            .is_some_and(|snapshots| snapshots.installed == 0)
        {
            Some(String::from("no node was sent a snapshot"))
        } else {
            None
        };
    }

    /// As the help says.
    pub(super) fn exit_code(&self) -> u8 {
        if !self.violations.is_empty() {
            1
        } else if self.void.is_some() {
            3
        } else {
            0
        }
    }

    /// Says it all and, where asked for, writes the JSON file.
    pub(super) fn publish(&self, args: &TortureArgs) -> Result<(), BenchError> {
        say(&format!(
            "{}\n  machine        {}\n  nodes          {} processes; {} clients on {} registers, seed {}",
            self.title, self.facts, self.nodes, self.clients, self.keys, self.seed
        ));
        let faults = self.faults.0.iter();
        let faults: Vec<String> = faults.map(|(kind, n)| format!("{kind} {n}")).collect();
        say(&format!(
            "  faults         in {} s: {}",
            self.seconds,
            faults.join(", ")
        ));
        say(&format!(
            "  operations     {} acknowledged ({} writes), {} writes open, {} refused",
            self.acknowledged, self.acknowledged_writes, self.open, self.refused
        ));
        say(&format!(
            "  afterwards     all nodes agree: {}; {} logs decoded up to the commit index",
            self.agreed, self.logs_complete
        ));
        if let Some(Snapshots { durable, installed }) = self.snapshots {
            say(&format!(
                "  snapshots      {durable} durable, {installed} sent to nodes that had missed too much"
            ));
        }
        for violation in &self.violations {
            say(&format!("  VIOLATION      {violation}"));
        }
        let verdict = match (self.violations.is_empty(), &self.void) {
            (false, _) => String::from("FAILED"),
            (true, Some(why)) => format!("VOID: {why}"),
            (true, None) => String::from(
                "linearizable, and every acknowledged write is in a quorum of committed logs",
            ),
        };
        say(&format!("  verdict        {verdict}"));
        let Some(path) = &args.json else {
            return Ok(());
        };
        write_json(path, self).map_err(|source| BenchError::Json {
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::words::{OpId, Seen};

    fn judged(operations: u64, installed: Option<u64>, verdict: Verdict, found: &Found) -> u8 {
        let events: Vec<Event> = (0..operations)
            .map(|number| Event {
                id: OpId { client: 0, number },
                key: 0,
                op: Op::Get,
                called: 0,
                heard: Some((1, Seen::Value(None))),
            })
            .collect();
        let args = TortureArgs {
            nodes: 3,
            seconds: 1,
            seed: 1,
            clients: 1,
            keys: 1,
            snapshots: false,
            plant: None,
            dir: None,
            json: None,
        };
        let facts = Facts::read(std::path::Path::new(".")).expect("a folder");
        let mut report = Report::new(facts, &args, &events, 0, Counts::default());
        report.agreed = true;
        report.snapshots = installed.map(|installed| Snapshots {
            installed,
            ..Snapshots::default()
        });
        report.judge(found, verdict);
        report.exit_code()
    }

    #[test]
    fn a_run_that_met_too_little_is_void_and_a_violation_is_one_all_the_same() {
        let fine = || Verdict::Linearizable;
        let nothing = Found::default();
        assert_eq!(judged(500, None, fine(), &nothing), 0);
        assert_eq!(judged(499, None, fine(), &nothing), 3);
        assert_eq!(judged(500, None, Verdict::Undecided(vec![0]), &nothing), 3);
        assert_eq!(judged(3, None, Verdict::Violated(vec![0]), &nothing), 1);
        for (installed, code) in [(0, 3), (1, 0)] {
            assert_eq!(judged(500, Some(installed), fine(), &nothing), code);
        }
        for wrong in [
            Found {
                missing: vec![OpId {
                    client: 1,
                    number: 1,
                }],
                ..Found::default()
            },
            Found {
                repeated: 1,
                ..Found::default()
            },
            Found {
                diverged: true,
                ..Found::default()
            },
        ] {
            assert_eq!(judged(500, None, fine(), &wrong), 1);
        }
    }
}
