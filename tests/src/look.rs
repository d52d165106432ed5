//! What a test may look at in a [`Cluster`].

use crate::cluster::{Cluster, Node};
use crate::{Broken, Options, Store, show};
use duraft_core::{
    Fault, Incarnation, Load, Membership, NodeId, ProgressView, Raft, RoleKind, Write, WriteSeq,
};

/// Lines of the trace shown with a failure.
const TRACE_SHOWN: usize = 60;

impl Cluster {
    /// Is `id` running?
    pub fn alive(&self, id: NodeId) -> bool {
        self.node(id).raft.is_some()
    }

    /// Running nodes.
    pub fn living(&self) -> Vec<NodeId> {
        let alive = |(id, node): (&NodeId, &Node)| node.raft.is_some().then_some(*id);
        self.nodes.iter().filter_map(alive).collect()
    }

    /// All nodes that have a core.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// The role that `id` last told of.
    pub fn role(&self, id: NodeId) -> RoleKind {
        self.node(id).role
    }

    /// The leader that `id` last told of.
    pub fn leader_hint(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).leader
    }

    /// Nodes that say they lead.
    pub fn leaders(&self) -> Vec<NodeId> {
        let leads = |id: &NodeId| self.alive(*id) && self.role(*id) == RoleKind::Leader;
        self.ids().into_iter().filter(leads).collect()
    }

    /// The term of `id`, durable or not.
    pub fn term(&self, id: NodeId) -> u64 {
        self.node(id).disk.issued.hard_state.term.0
    }

    /// The vote of `id` in its term, durable or not.
    pub fn vote(&self, id: NodeId) -> Option<NodeId> {
        self.node(id).disk.issued.hard_state.vote
    }

    /// Why `id` stopped, if it did in this life.
    pub fn halted(&self, id: NodeId) -> Option<Fault> {
        self.node(id).halted
    }

    /// What is durable at `id`.
    pub fn durable(&self, id: NodeId) -> &Store {
        &self.node(id).disk.durable
    }

    /// The log of `id`, durable or not.
    pub fn issued(&self, id: NodeId) -> &Store {
        &self.node(id).disk.issued
    }

    /// How many writes of `id` wait.
    pub fn pending(&self, id: NodeId) -> usize {
        self.node(id).disk.pending.len()
    }

    /// The waiting writes of `id`.
    pub fn pending_writes(&self, id: NodeId) -> Vec<Write> {
        self.node(id).disk.pending.iter().cloned().collect()
    }

    /// How many waiting writes of `id` truncate its log.
    pub fn pending_truncations(&self, id: NodeId) -> usize {
        let pending = self.node(id).disk.pending.iter();
        pending.filter(|write| write.truncate.is_some()).count()
    }

    /// All writes of `id` in all its lives.
    pub fn writes(&self, id: NodeId) -> &[Write] {
        assert!(self.options.record, "this cluster keeps no record");
        &self.node(id).writes
    }

    /// Number of the newest write of `id` in this life.
    pub fn last_seq(&self, id: NodeId) -> Option<WriteSeq> {
        self.node(id).disk.last_seq()
    }

    /// The log of `id` as text, one string per batch.
    pub fn log(&self, id: NodeId) -> Vec<String> {
        self.issued(id).batches.iter().map(show::batch).collect()
    }

    /// Terms of the log of `id`, entry by entry.
    pub fn log_terms(&self, id: NodeId) -> Vec<u64> {
        let batches = self.issued(id).batches.iter();
        batches
            .flat_map(|batch| (0..batch.header.count).map(|_| batch.header.term.0))
            .collect()
    }

    /// User commands in the state machine of `id`.
    pub fn commands(&self, id: NodeId) -> Vec<String> {
        self.node(id).machine.commands()
    }

    /// The last index applied by the state machine of `id`.
    pub fn applied(&self, id: NodeId) -> u64 {
        self.node(id).machine.to.index().0
    }

    /// The commit index of `id`.
    pub fn commit(&self, id: NodeId) -> u64 {
        self.node(id).commit.0
    }

    /// What the leader `id` knows of `peer`.
    pub fn progress(&self, id: NodeId, peer: NodeId) -> ProgressView {
        self.raft(id)
            .and_then(|raft| raft.progress(peer))
            .expect("a leader knows its peers")
    }

    /// Reads of `id` that wait.
    pub fn waiting_loads(&self, id: NodeId) -> Vec<Load> {
        self.node(id).loads.iter().copied().collect()
    }

    /// This life of `id`.
    pub fn incarnation(&self, id: NodeId) -> Incarnation {
        self.node(id).incarnation
    }

    /// The core of `id`, if it runs.
    pub fn raft(&self, id: NodeId) -> Option<&Raft> {
        self.node(id).raft.as_ref()
    }

    /// The options this cluster was built with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The membership that the cluster began with.
    pub fn first_membership(&self) -> &Membership {
        &self.membership
    }

    /// Steps of all cores so far.
    pub fn steps_taken(&self) -> u64 {
        self.steps
    }

    /// How often the state machine of `id` was replaced by a snapshot.
    pub fn times_installed(&self, id: NodeId) -> u64 {
        self.node(id).installed
    }

    /// Rules found broken, where the options collect them.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// The trace so far.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// The end of the trace, for messages of failures.
    pub fn story(&self) -> String {
        let from = self.trace.len().saturating_sub(TRACE_SHOWN);
        format!(
            "seed {}, the last steps were:\n  {}",
            self.options.seed,
            if self.options.record {
                self.trace[from..].join("\n  ")
            } else {
                "not recorded; run this test alone with the seed in the variable SEED".into()
            }
        )
    }
}
