//! What was seen, the bound, the verdict.

use super::words::Part;
use crate::bench::args::{LoadArgs, StuckArgs, Whose};
use crate::bench::error::BenchError;
use crate::bench::facts::Facts;
use crate::bench::memory::mib;
use crate::output::{say, write_json};
use serde::Serialize;
use std::collections::BTreeMap;

const SCHEMA: u32 = 1;

/// One node over the whole run.
#[derive(Clone, Serialize)]
pub(super) struct NodeReport {
    pub(super) stuck: bool,
    /// Resident memory when the part began to stick, and the peak of the whole life.
    pub(super) before_bytes: u64,
    pub(super) peak_bytes: u64,
    pub(super) most_commands_waiting: usize,
    pub(super) most_command_bytes_waiting: usize,
    pub(super) furthest_apart: u64,
    pub(super) answers: BTreeMap<String, u64>,
    pub(super) stopped: Option<String>,
}

/// What became of the cluster.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Outcome {
    /// Commands acknowledged before the part stuck, while it did, and after it was released.
    pub(super) before: u64,
    pub(super) during: u64,
    pub(super) after: u64,
    /// Commands that a limit refused until then.
    pub(super) refused: u64,
    /// All nodes came to the same state in the end.
    pub(super) agreed: bool,
}

/// The whole run.
#[derive(Serialize)]
pub(super) struct Report {
    schema: u32,
    title: String,
    facts: Facts,
    value_bytes: u32,
    seconds: u64,
    bound_bytes: u64,
    /// The state machine of the leader stuck: nothing can be answered, so something must be refused.
    must_refuse: bool,
    nodes: Vec<NodeReport>,
    outcome: Outcome,
}

impl Report {
    pub(super) fn new(
        facts: Facts,
        load: &LoadArgs,
        args: &StuckArgs,
        bound_bytes: u64,
        nodes: Vec<NodeReport>,
        outcome: Outcome,
    ) -> Report {
        let whose = match (args.part, args.on) {
            (Part::Follower, _) => "a follower's process",
            (Part::Disk, Whose::Leader) => "the leader's disk",
            (Part::Disk, Whose::Follower) => "a follower's disk",
            (Part::StateMachine, Whose::Leader) => "the leader's state machine",
            (Part::StateMachine, Whose::Follower) => "a follower's state machine",
        };
        Report {
            schema: SCHEMA,
            title: format!("duraft bench stuck: {whose}"),
            facts,
            value_bytes: load.value_bytes,
            seconds: load.seconds,
            bound_bytes,
            must_refuse: args.part == Part::StateMachine && args.on == Whose::Leader,
            nodes,
            outcome,
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (place, node) in self.nodes.iter().enumerate() {
            if node.peak_bytes > self.bound_bytes {
                problems.push(format!("node {} passed the bound", place + 1));
            }
            if let Some(reason) = &node.stopped {
                problems.push(format!("node {} stopped: {reason}", place + 1));
            }
        }
        if self.must_refuse && self.outcome.refused == 0 {
            problems.push("nothing was refused: the load was too small".into());
        }
        // A leader whose state machine sticks answers nobody; everything else leaves a majority.
        if !self.must_refuse && self.outcome.during == 0 {
            problems.push("the others did not go on meanwhile".into());
        }
        if self.outcome.after == 0 {
            problems.push("the cluster did not go on after the release".into());
        }
        if !self.outcome.agreed {
            problems.push("the nodes did not come to the same state".into());
        }
        problems
    }

    pub(super) fn passed(&self) -> bool {
        self.problems().is_empty()
    }

    /// Says it all and, where asked for, writes the JSON file.
    pub(super) fn publish(&self, load: &LoadArgs) -> Result<(), BenchError> {
        say(&format!(
            "{}\n  machine    {}\n  load       {} byte values, {} s stuck\n  bound      {} of memory per \
             node",
            self.title,
            self.facts,
            self.value_bytes,
            self.seconds,
            mib(self.bound_bytes)
        ));
        for (place, node) in self.nodes.iter().enumerate() {
            say(&format!(
                "  node {}{}   memory {} before, {} at its peak; at most {} commands of {} waited; at \
                 most {} entries not applied",
                place + 1,
                if node.stuck { " (stuck)" } else { "        " },
                mib(node.before_bytes),
                mib(node.peak_bytes),
                node.most_commands_waiting,
                mib(node.most_command_bytes_waiting as u64),
                node.furthest_apart,
            ));
            for (name, count) in &node.answers {
                say(&format!("      {count:>9}  {name}"));
            }
        }
        let done = self.outcome;
        say(&format!(
            "  acknowledged {} before, {} meanwhile, {} after; all nodes agree: {}",
            done.before, done.during, done.after, done.agreed
        ));
        let problems = self.problems();
        let verdict = if problems.is_empty() {
            "within the bound, and the cluster goes on".into()
        } else {
            format!("FAILED: {}", problems.join("; "))
        };
        say(&format!("  verdict    {verdict}"));
        let Some(path) = &load.json else {
            return Ok(());
        };
        write_json(path, self).map_err(|source| BenchError::Json {
            path: path.clone(),
            source,
        })
    }
}
