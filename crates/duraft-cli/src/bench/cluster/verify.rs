//! The recovery check: after a crash of all nodes, open their folders again, let them agree, and
//! compare what each applied from its log with what clients were told.

use super::command::CommandSet;
use super::setup::{NODES, Setup};
use crate::bench::error::BenchError;
use crate::bench::report::Verification;
use duraft::{Node, Status};
use duraft_core::RoleKind;
use std::time::{Duration, Instant};

/// Longest wait for the nodes to agree.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reopens all nodes and checks them against the acknowledged commands.
pub(crate) fn verify(setup: &Setup, acknowledged: &CommandSet) -> Result<Verification, BenchError> {
    let begun = Instant::now();
    let mut nodes = Vec::new();
    let mut ledgers = Vec::new();
    for node in 0..NODES {
        let (node, ledger) = setup.start(node)?;
        nodes.push(node);
        ledgers.push(ledger);
    }
    wait_for_agreement(&nodes, begun + PATIENCE)?;
    let recovery_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut verification = Verification {
        acknowledged: acknowledged.len(),
        recovery_ms,
        ..Verification::default()
    };
    for ledger in &ledgers {
        let ledger = ledger.lock();
        verification.nodes_checked += 1;
        verification.lost = verification
            .lost
            .max(acknowledged.missing_from(&ledger.applied));
        verification.wrong += ledger.wrong;
    }
    for node in &nodes {
        node.shutdown();
    }
    Ok(verification)
}

/// Waits until a leader has committed its whole log and every node has applied all of it.
fn wait_for_agreement(nodes: &[Node], until: Instant) -> Result<(), BenchError> {
    while Instant::now() < until {
        let statuses: Vec<Status> = nodes.iter().map(Node::status).collect();
        let leader = statuses
            .iter()
            .find(|status| status.role == RoleKind::Leader);
        let agreed = leader.is_some_and(|leader| {
            leader.commit == leader.last.index
                && leader.last.term == leader.term
                && statuses
                    .iter()
                    .all(|status| status.applied == leader.commit)
        });
        if agreed {
            return Ok(());
        }
        // Woken by the first node's next change, or after a while by the others'.
        let before = statuses[0].clone();
        nodes[0].wait_for(Duration::from_millis(20), |status| *status != before);
    }
    Err(BenchError::Deadline {
        what: "agreement of the reopened nodes",
        seconds: PATIENCE.as_secs(),
    })
}
