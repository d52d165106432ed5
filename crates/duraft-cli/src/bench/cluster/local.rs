//! Three nodes in this process, over real files and loopback TCP.

use super::command::{CommandId, encode};
use super::load::{Answer, Cluster, Counters, Outcome};
use super::setup::{NODES, Setup, node_place};
use crate::bench::error::BenchError;
use crate::bench::stages::StageCounts;
use crate::bench::timed::{LogIo, Watch};
use duraft::{Node, RequestError, Responder};
use duraft_core::RoleKind;
use std::sync::mpsc::Sender;

/// See the module documentation.
pub(crate) struct Local {
    setup: Setup,
    nodes: Vec<Option<Node>>,
    answers: Sender<Answer>,
}

impl Local {
    /// Makes and starts the nodes.
    pub(crate) fn start(mut setup: Setup, answers: Sender<Answer>) -> Result<Local, BenchError> {
        setup.watches = (0..NODES).map(|_| Watch::new()).collect();
        let mut nodes = Vec::new();
        for node in 0..NODES {
            setup.bootstrap(node)?;
        }
        for node in 0..NODES {
            nodes.push(Some(setup.start(node)?.0));
        }
        Ok(Local {
            setup,
            nodes,
            answers,
        })
    }
}

impl Cluster for Local {
    fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn submit(&mut self, node: usize, id: CommandId) {
        submit_to(
            self.nodes[node].as_ref(),
            node,
            id,
            &self.setup,
            &self.answers,
        );
    }

    fn flush(&mut self) {}

    fn counters(&mut self, node: usize) -> Option<Counters> {
        self.nodes[node].as_ref().map(counters_of)
    }

    fn log_io(&mut self, node: usize) -> Option<LogIo> {
        self.setup.watches.get(node).map(Watch::take)
    }

    fn stages(&mut self, node: usize) -> Option<StageCounts> {
        self.nodes[node].as_ref().map(StageCounts::of)
    }

    fn kill(&mut self, node: usize) -> Result<(), BenchError> {
        // Dropping the last handle is a crash: nothing is flushed, waiting commands are unknown.
        self.nodes[node] = None;
        Ok(())
    }

    fn restart(&mut self, node: usize) -> Result<(), BenchError> {
        self.nodes[node] = Some(self.setup.start(node)?.0);
        Ok(())
    }
}

/// Proposes a command on a node that may be down; the answer goes to `answers`.
pub(crate) fn submit_to(
    node: Option<&Node>,
    place: usize,
    id: CommandId,
    setup: &Setup,
    answers: &Sender<Answer>,
) {
    let answers = answers.clone();
    let Some(node) = node else {
        // The receiver outlives the cluster but for a failed run, in which nobody listens.
        let _ = answers.send(Answer {
            id,
            outcome: Outcome::Refused { leader: None },
        });
        return;
    };
    let command = encode(id, setup.command_seed(), setup.value_bytes);
    let responder = Responder::call(move |outcome| {
        let outcome = match outcome {
            Ok(_) => Outcome::Applied,
            Err(error) => outcome_of(&error, place),
        };
        let _ = answers.send(Answer { id, outcome });
    });
    node.submit(command.into(), responder);
}

/// A busy node is named as the one to ask again.
fn outcome_of(error: &RequestError, place: usize) -> Outcome {
    match error {
        RequestError::Busy { .. } => Outcome::Refused {
            leader: Some(place),
        },
        RequestError::Rejected { leader, .. } => Outcome::Refused {
            leader: leader.and_then(node_place),
        },
        // Unknown, or a kind that a later version adds: nothing may be concluded.
        RequestError::OutcomeUnknown { .. } | _ => Outcome::Unknown,
    }
}

/// A node's counters as the load generator wants them.
pub(crate) fn counters_of(node: &Node) -> Counters {
    let status = node.status();
    Counters {
        leads: status.role == RoleKind::Leader,
        group_commits: status.counters.commits,
        commit_bytes: status.counters.bytes_written,
    }
}
