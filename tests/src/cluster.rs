//! A cluster of real cores in which nothing moves unless the test says so.

use crate::history::History;
use crate::net::Net;
use crate::{Broken, Disk, Machine, Options, Store, check};
use duraft_core::{
    Batch, Completion, Config, Envelope, Fault, HardState, Incarnation, Index, Input, Load,
    LoadError, LogId, Membership, NodeId, Output, Position, ProposalId, Raft, Reject, RoleKind,
    Snapshot, SnapshotFile, Term, Write, WriteSeq, mix64,
};
use duraft_sim::spec::Judge;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What became of a proposal, as its client knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has a place in the leader's log.
    Appended(LogId),
    /// Acknowledged: committed, durable and applied by the node that was asked.
    Applied(LogId),
    /// Certainly lost: something else was applied in its place.
    Overwritten(LogId),
    /// A read was answered from the state at this index.
    Read(Index),
    /// A transfer or step-down is done.
    Done,
    /// Certainly not done.
    Rejected(Reject, Option<NodeId>),
    /// The node that was asked died first.
    Unknown,
}

/// One node: core, disk, and what its host saw of it in this life.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    pub(crate) incarnation: Incarnation,
    pub(crate) role: RoleKind,
    /// The term named with the role.
    pub(crate) told_term: Term,
    pub(crate) leader: Option<NodeId>,
    /// The term it led before the present step: a leader may stop in the step in which it commits.
    pub(crate) led: Option<Term>,
    pub(crate) halted: Option<Fault>,
    /// The state machine. It lives in memory unless the options say that it has a disk of its own.
    pub(crate) machine: Machine,
    /// Snapshot files that are durable here.
    pub(crate) files: BTreeSet<SnapshotFile>,
    /// Reads that wait for the state machine.
    pub(crate) reads: Vec<Reading>,
    /// When each heartbeat round of this life was sent, on this node's clock.
    pub(crate) rounds: BTreeMap<(Term, u64), u64>,
    /// Ticks of all lives, and of the time this node was suspended.
    pub(crate) clock: u64,
    pub(crate) hold_apply: bool,
    /// The core has asked for a snapshot.
    pub(crate) snapshot_wanted: bool,
    pub(crate) apply_waiting: VecDeque<Index>,
    pub(crate) hold_loads: bool,
    pub(crate) loads: VecDeque<Load>,
    /// Durable and not yet reported to the core.
    pub(crate) unreported: Option<WriteSeq>,
    /// Commit index after the last step of this life.
    pub(crate) commit: Index,
    pub(crate) campaigns: u64,
    /// How often it said that it is healed, in all lives.
    pub(crate) healed: u64,
    /// How often its state machine was replaced by a snapshot.
    pub(crate) installed: u64,
    /// Proposals with a place in the log, by first index.
    pub(crate) waiting: BTreeSet<(Index, ProposalId)>,
    /// What was asked of this life and may be unanswered.
    pub(crate) asked: BTreeSet<ProposalId>,
    /// All writes of all lives, where the cluster records.
    pub(crate) writes: Vec<Write>,
}

/// A read that may be answered once the state machine has come to `index`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reading {
    pub(crate) id: ProposalId,
    pub(crate) index: Index,
    pub(crate) lease: Option<u64>,
}

/// A cluster under the test's control.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) options: Options,
    /// The membership that the cluster began with.
    pub(crate) membership: Membership,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Messages under way.
    pub net: Net,
    /// What was seen, and what must hold of it.
    pub history: History,
    /// Snapshots under way, by sender and receiver.
    pub(crate) carried: BTreeMap<(NodeId, NodeId), (Term, Snapshot)>,
    /// Snapshots wait for the test.
    pub(crate) hold_snapshots: bool,
    /// What is in the files.
    pub(crate) contents: BTreeMap<SnapshotFile, Arc<Machine>>,
    /// The last index acknowledged to any client, and at the time of each read.
    pub(crate) acknowledged: Index,
    pub(crate) read_floors: BTreeMap<ProposalId, Index>,
    pub(crate) outcomes: BTreeMap<ProposalId, Outcome>,
    pub(crate) next_proposal: u64,
    pub(crate) steps: u64,
    pub(crate) sent: Vec<Envelope>,
    pub(crate) mail: Vec<Envelope>,
    pub(crate) trace: Vec<String>,
    pub(crate) broken: Vec<Broken>,
    /// Follows every step as the specification sees it, where asked to.
    pub(crate) judge: Option<Judge>,
}

impl Cluster {
    /// `voters` nodes numbered from 1 with empty logs, all checks on.
    pub fn new(voters: u64) -> Cluster {
        Cluster::build(Options::new(voters))
    }

    /// From now on every step of every core must be an action of the specification, or none. To be asked
    /// before any core has taken a step. Not in the specification are peers whose words the test makes
    /// up, logs whose beginning nobody has, and damaged disks: the first one ends this.
    pub fn follow_specification(&mut self) {
        let mut judge = Judge::default();
        if !self.options.puppets.is_empty() || self.options.start != Position::START {
            judge.retire();
        }
        let mut cores = self.nodes.values().filter_map(|node| node.raft.as_ref());
        let begun: Result<(), String> = cores.try_for_each(|raft| judge.boots(raft));
        self.judge = Some(judge);
        self.claim(begun.map_err(Broken::no_action));
    }

    /// Steps and actions of the specification so far.
    pub fn judged(&self) -> (u64, u64) {
        self.judge.as_ref().map_or((0, 0), Judge::counts)
    }

    /// A cluster as the options say.
    pub fn build(options: Options) -> Cluster {
        let membership = Membership::new(options.voters.clone(), options.learners.clone())
            .expect("a usable membership");
        let mut history = History::new(membership.clone(), options.start);
        if !options.puppets.is_empty() {
            history.with_puppets();
        }
        let mut cluster = Cluster {
            history,
            nodes: BTreeMap::new(),
            net: Net::default(),
            carried: BTreeMap::new(),
            hold_snapshots: false,
            contents: BTreeMap::new(),
            acknowledged: Index(0),
            read_floors: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            next_proposal: 1,
            steps: 0,
            sent: Vec::new(),
            mail: Vec::new(),
            trace: Vec::new(),
            broken: Vec::new(),
            judge: None,
            membership: membership.clone(),
            options,
        };
        for id in membership.members() {
            if !cluster.options.puppets.contains(&id) {
                cluster.add(id);
            }
        }
        cluster
    }

    fn add(&mut self, id: NodeId) {
        let chain = self.options.logs.get(&id).cloned();
        let start = chain.as_ref().map_or(self.options.start, |log| log.start);
        let batches = chain.map_or(Vec::new(), |log| log.batches);
        let last_term = batches
            .last()
            .map_or(start.term(), |batch| batch.header.term);
        let term = self.options.terms.get(&id).copied().unwrap_or(last_term);
        let vote = None;
        for batch in &batches {
            let seen = self.history.saw_batch(batch);
            self.claim(seen);
        }
        let mut store = Store::new(
            start,
            self.membership.clone(),
            HardState { term, vote },
            batches,
        );
        let machine = Machine::new(start, self.membership.clone());
        if start != Position::START {
            // A log that does not begin at the beginning begins with a snapshot.
            let file = SnapshotFile {
                nonce: start.digest.0,
                ..SnapshotFile::default()
            };
            self.contents.insert(file, Arc::new(machine.clone()));
            store.snapshot = Some(Snapshot {
                position: start,
                membership: self.membership.clone(),
                file,
            });
        }
        self.enrol(id, store, machine);
        self.restart(id);
    }

    /// A node with this disk, not started.
    pub(crate) fn enrol(&mut self, id: NodeId, store: Store, machine: Machine) {
        let config = Config {
            id,
            seed: mix64(self.options.seed ^ mix64(id.0)),
            priority: self
                .options
                .priorities
                .get(&id)
                .copied()
                .unwrap_or(self.options.config.priority),
            ..self.options.config.clone()
        };
        let node = Node {
            config,
            files: store.snapshot.iter().map(|taken| taken.file).collect(),
            commit: store.start.index(),
            told_term: store.hard_state.term,
            raft: None,
            disk: Disk::new(store),
            incarnation: Incarnation(0),
            role: RoleKind::Follower,
            leader: None,
            led: None,
            halted: None,
            machine,
            reads: Vec::new(),
            rounds: BTreeMap::new(),
            clock: 0,
            hold_apply: false,
            snapshot_wanted: false,
            apply_waiting: VecDeque::new(),
            hold_loads: false,
            loads: VecDeque::new(),
            unreported: None,
            campaigns: 0,
            healed: 0,
            installed: 0,
            waiting: BTreeSet::new(),
            asked: BTreeSet::new(),
            writes: Vec::new(),
        };
        let before = self.nodes.insert(id, node);
        assert!(before.is_none(), "a node is made once");
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("a node of this cluster")
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of this cluster")
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.record {
            self.trace.push(line());
        }
    }

    pub(crate) fn claim(&mut self, result: Result<(), Broken>) {
        if let Err(broken) = result {
            assert!(self.options.tolerate, "{broken}\n{}", self.story());
            self.broken.push(broken);
        }
    }

    pub(crate) fn check_durable(&mut self) {
        let disks = self
            .nodes
            .iter()
            .map(|(id, node)| (*id, &node.disk.durable));
        let held = self.history.check_durable(disks);
        self.claim(held);
    }

    /// Everybody, also peers without a core.
    pub(crate) fn everybody(&self) -> BTreeSet<NodeId> {
        let puppets = self.options.puppets.iter().copied();
        puppets.chain(self.nodes.keys().copied()).collect()
    }

    /// One input, and the completions that the rig is not told to hold.
    pub fn step(&mut self, id: NodeId, input: Input) {
        self.step_once(id, input);
        self.settle(id);
    }

    pub(crate) fn settle(&mut self, id: NodeId) {
        while let Some(input) = self.next_completion(id) {
            self.step_once(id, input);
        }
    }

    fn next_completion(&mut self, id: NodeId) -> Option<Input> {
        let node = self.node_mut(id);
        node.raft.as_ref()?;
        let waiting = node.disk.pending.len();
        if !node.disk.hold && waiting > 0 {
            self.land(id, waiting);
            let upto = self.node_mut(id).unreported.take()?;
            return Some(Input::Completed(Completion::Persisted { upto }));
        }
        if !node.hold_apply && !node.apply_waiting.is_empty() {
            let upto = node.apply_waiting.drain(..).next_back()?;
            return Some(Input::Completed(Completion::Applied { upto }));
        }
        if !node.hold_loads
            && let Some(load) = node.loads.pop_front()
        {
            let result = read_back(&node.disk.issued, &load);
            let load = load.id;
            return Some(Input::Completed(Completion::Loaded { load, result }));
        }
        if let Some(input) = self.next_read(id) {
            return Some(input);
        }
        self.next_snapshot(id)
    }

    fn step_once(&mut self, id: NodeId, input: Input) {
        let check_replay = self.options.check_replay;
        self.steps = self.steps.wrapping_add(1);
        let every = self.options.check_core_every;
        let check_core = every > 0 && self.steps.is_multiple_of(u64::from(every));
        let node = self.node_mut(id);
        let (role, term) = (node.role, node.disk.issued.hard_state.term);
        node.led = (role == RoleKind::Leader).then_some(term);
        if input == Input::Tick {
            node.clock += 1;
        }
        let Some(raft) = node.raft.as_mut() else {
            return;
        };
        let in_use = raft.membership().clone();
        let before = (check_replay || check_core).then(|| raft.clone());
        let mut out = Vec::new();
        if check_replay {
            let mut twin = raft.clone();
            raft.step(input.clone(), &mut out);
            let mut again = Vec::new();
            twin.step(input, &mut again);
            assert_eq!(out, again, "I9: same state, same input, same outputs");
        } else {
            raft.step(input, &mut out);
        }
        let checked = match (check_core, &before) {
            (true, Some(before)) => check::core(before, raft, &out),
            (true, None) | (false, _) => Ok(()),
        };
        let stepped = self.nodes.get(&id).and_then(|node| node.raft.as_ref());
        let action = match (&mut self.judge, stepped) {
            (Some(judge), Some(raft)) => judge.stepped(raft, &out),
            (Some(_) | None, _) => Ok(()),
        };
        self.claim(checked);
        self.claim(action.map_err(Broken::no_action));
        let truncates = out
            .iter()
            .any(|output| matches!(output, Output::Persist(write) if write.truncate.is_some()));
        let writes = out.iter().any(|o| matches!(o, Output::Persist(_)));
        for output in out {
            self.route(id, output, &in_use);
        }
        let node = self.node(id);
        let still = (node.role, node.disk.issued.hard_state.term) == (role, term);
        let held = Broken::unless(
            !(truncates && still && role == RoleKind::Leader),
            "A2 leader append-only",
            || format!("node {id} truncates while it leads term {term}"),
        );
        self.claim(held);
        self.look_inside(id, &in_use, writes);
    }

    /// Compares the core with what its outputs said. `in_use` is the membership before the step. It is
    /// held against the disk until a life has written, and from then on where it can have changed.
    fn look_inside(&mut self, id: NodeId, in_use: &Membership, writes: bool) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        let Some(raft) = node.raft.as_ref() else {
            return;
        };
        // A node that stops in the middle of a step need not write what it then knew.
        let agrees = match node.halted {
            None => check::agrees(raft, (node.role, node.told_term), &node.disk),
            Some(_) => Ok(()),
        };
        let unwritten = node.disk.last_seq().is_none();
        let changes = unwritten || writes || raft.membership() != in_use;
        let uses = match node.halted {
            None if changes => check::uses(raft, &node.disk),
            None | Some(_) => Ok(()),
        };
        let trusted = node.disk.sabotage.is_none() && self.options.check_release;
        let honest = if trusted {
            check::honest(raft, &node.disk)
        } else {
            Ok(())
        };
        let commit = raft.commit();
        let forward = Broken::unless(commit >= node.commit, "A6 commit never moves back", || {
            format!("node {id} commits {commit} after {}", node.commit)
        });
        node.commit = commit;
        for claim in [agrees, uses, honest, forward] {
            self.claim(claim);
        }
        self.take_commit(id, in_use);
    }

    /// Takes in the commit index of a node: a leader's may be news, and then a quorum of disks must
    /// hold it; a follower's must be known already. To be asked before anything is applied.
    pub(crate) fn take_commit(&mut self, id: NodeId, in_use: &Membership) {
        let node = self.nodes.get(&id).expect("a node of this cluster");
        let Some(raft) = node.raft.as_ref() else {
            return;
        };
        let (commit, log) = (raft.commit(), &node.disk.issued);
        let known = self.history.commit();
        let leads = raft.role() == RoleKind::Leader || node.led == Some(raft.term());
        if commit > known.index() && leads {
            let committed = self.history.leader_committed(id, raft.term(), log, commit);
            let now = log.in_use();
            let disks = self.nodes.iter();
            self.history
                .look_at(disks.map(|(id, node)| (*id, &node.disk.durable)));
            self.history.decided(in_use, &now);
            self.claim(committed);
            self.check_durable();
            return;
        }
        let shared = self.history.has_puppets()
            || log
                .boundary(commit)
                .is_some_and(|position| self.history.is_committed(&position));
        let held = Broken::unless(
            shared,
            "A6 a follower commits what a leader committed",
            || format!("node {id} commits {commit}, known is {known}"),
        );
        self.claim(held);
    }
}

/// Stored batches of a read: whole, consecutive, at least one.
fn read_back(store: &Store, load: &Load) -> Result<Vec<Batch>, LoadError> {
    let mut found: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    let wanted = store
        .readable()
        .filter(|batch| batch.header.first >= load.first && batch.header.last() <= load.last);
    for batch in wanted {
        let next = found
            .last()
            .is_none_or(|last: &Batch| batch.header.first == last.header.last().next());
        if !next {
            break;
        }
        bytes += batch.cost();
        if !found.is_empty() && bytes > load.bytes_max {
            break;
        }
        found.push(batch.clone());
    }
    if found.first().map(|batch| batch.header.first) == Some(load.first) {
        Ok(found)
    } else {
        Err(LoadError::Compacted)
    }
}
