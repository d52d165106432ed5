//! A cluster of real cores in which nothing moves unless the test says so.

use crate::history::History;
use crate::net::{Kind, Net};
use crate::{Broken, Disk, Options, Store, check, release, show};
use duraft_core::{
    Batch, Completion, Config, Envelope, Event, Fault, HardState, Incarnation, Index, Input, Load,
    LoadError, LogId, Membership, NodeId, Output, Position, ProposalId, Raft, Reject, Response,
    RoleKind, Term, Write, WriteSeq, mix64,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What became of a proposal, as its client knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has a place in the leader's log.
    Appended(LogId),
    /// Acknowledged: committed, durable and applied by the node that was asked.
    Applied(LogId),
    /// Certainly lost: something else was applied in its place.
    Overwritten(LogId),
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
    pub(crate) halted: Option<Fault>,
    /// Batches given to the state machine in this life.
    pub(crate) applied: Vec<Batch>,
    pub(crate) applied_to: Position,
    pub(crate) hold_apply: bool,
    pub(crate) apply_waiting: VecDeque<Index>,
    pub(crate) hold_loads: bool,
    pub(crate) loads: VecDeque<Load>,
    /// Durable and not yet reported to the core.
    pub(crate) unreported: Option<WriteSeq>,
    /// Commit index after the last step of this life.
    pub(crate) commit: Index,
    pub(crate) campaigns: u64,
    /// Proposals with a place in the log, by first index.
    pub(crate) waiting: BTreeSet<(Index, ProposalId)>,
    /// All writes of all lives, where the cluster records.
    pub(crate) writes: Vec<Write>,
}

/// A cluster under the test's control.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(crate) options: Options,
    pub(crate) membership: Membership,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Messages under way.
    pub net: Net,
    /// What was seen, and what must hold of it.
    pub history: History,
    pub(crate) outcomes: BTreeMap<ProposalId, Outcome>,
    pub(crate) next_proposal: u64,
    pub(crate) steps: u32,
    pub(crate) sent: Vec<Envelope>,
    pub(crate) mail: Vec<Envelope>,
    pub(crate) trace: Vec<String>,
    pub(crate) broken: Vec<Broken>,
}

impl Cluster {
    /// `voters` nodes numbered from 1 with empty logs, all checks on.
    pub fn new(voters: u64) -> Cluster {
        Cluster::build(Options::new(voters))
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
            outcomes: BTreeMap::new(),
            next_proposal: 1,
            steps: 0,
            sent: Vec::new(),
            mail: Vec::new(),
            trace: Vec::new(),
            broken: Vec::new(),
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
        let store = Store::new(start, HardState { term, vote }, batches);
        let config = Config {
            id,
            seed: mix64(self.options.seed ^ mix64(id.0)),
            ..self.options.config.clone()
        };
        let node = Node {
            config,
            raft: None,
            disk: Disk::new(store),
            incarnation: Incarnation(0),
            role: RoleKind::Follower,
            told_term: term,
            leader: None,
            halted: None,
            applied: Vec::new(),
            applied_to: start,
            hold_apply: false,
            apply_waiting: VecDeque::new(),
            hold_loads: false,
            loads: VecDeque::new(),
            unreported: None,
            commit: start.index(),
            campaigns: 0,
            waiting: BTreeSet::new(),
            writes: Vec::new(),
        };
        self.nodes.insert(id, node);
        self.restart(id);
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
        if !node.hold_loads {
            let load = node.loads.pop_front()?;
            let result = read_back(&node.disk.issued, &load);
            let load = load.id;
            return Some(Input::Completed(Completion::Loaded { load, result }));
        }
        None
    }

    fn step_once(&mut self, id: NodeId, input: Input) {
        let check_replay = self.options.check_replay;
        self.steps = self.steps.wrapping_add(1);
        let every = self.options.check_core_every;
        let check_core = every > 0 && self.steps.is_multiple_of(every);
        let node = self.node_mut(id);
        let (role, term) = (node.role, node.disk.issued.hard_state.term);
        let Some(raft) = node.raft.as_mut() else {
            return;
        };
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
        self.claim(checked);
        let truncates = out
            .iter()
            .any(|output| matches!(output, Output::Persist(write) if write.truncate.is_some()));
        for output in out {
            self.route(id, output);
        }
        let node = self.node(id);
        let still = (node.role, node.disk.issued.hard_state.term) == (role, term);
        let held = Broken::unless(
            !(truncates && still && role == RoleKind::Leader),
            "A2 leader append-only",
            || format!("node {id} truncates while it leads term {term}"),
        );
        self.claim(held);
        self.look_inside(id);
    }

    /// Compares the core with what its outputs said.
    fn look_inside(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        let Some(raft) = node.raft.as_ref() else {
            return;
        };
        // A node that stops in the middle of a step need not write what it then knew.
        let agrees = match node.halted {
            None => check::agrees(raft, (node.role, node.told_term), &node.disk),
            Some(_) => Ok(()),
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
        for claim in [agrees, honest, forward] {
            self.claim(claim);
        }
        self.take_commit(id);
    }

    /// Takes in the commit index of a node: a leader's may be news, and then a quorum of disks must
    /// hold it; a follower's must be known already. To be asked before anything is applied.
    fn take_commit(&mut self, id: NodeId) {
        let node = self.nodes.get(&id).expect("a node of this cluster");
        let Some(raft) = node.raft.as_ref() else {
            return;
        };
        let (commit, log) = (raft.commit(), &node.disk.issued);
        let known = self.history.commit();
        if commit > known.index() && raft.role() == RoleKind::Leader {
            let committed = self.history.leader_committed(id, raft.term(), log, commit);
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

    fn route(&mut self, id: NodeId, output: Output) {
        self.note(|| show::output(id, &output));
        match output {
            Output::Persist(write) => self.persist(id, write),
            Output::Send(envelope) => self.send(id, envelope),
            Output::Apply(batches) => self.apply(id, batches),
            Output::Load(load) => self.node_mut(id).loads.push_back(load),
            Output::ReadReady { .. }
            | Output::SendSnapshot { .. }
            | Output::InstallSnapshot(_)
            | Output::Respond(Response::Done { .. })
            | Output::Changed(Event::Membership { .. } | Event::Healed) => {}
            Output::Respond(Response::Appended {
                id: proposal,
                first,
                ..
            }) => {
                self.node_mut(id).waiting.insert((first.index, proposal));
                self.answer(proposal, Outcome::Appended(first));
            }
            Output::Respond(Response::Rejected {
                id: proposal,
                reason,
                leader,
            }) => self.answer(proposal, Outcome::Rejected(reason, leader)),
            Output::Changed(Event::Role { role, term, leader }) => {
                self.changed(id, role, term, leader);
            }
            Output::Changed(Event::Halted(fault)) => self.node_mut(id).halted = Some(fault),
        }
    }

    pub(crate) fn answer(&mut self, proposal: ProposalId, outcome: Outcome) {
        let before = self.outcomes.insert(proposal, outcome);
        let once = Broken::unless(before.is_none(), "a proposal is answered once", || {
            format!("{proposal:?}: {before:?}, then {outcome:?}")
        });
        self.claim(once);
    }

    fn persist(&mut self, id: NodeId, write: Write) {
        let record = self.options.record;
        let node = self.node_mut(id);
        if record {
            node.writes.push(write.clone());
        }
        let known = node.disk.issued.hard_state;
        let own = write
            .hard_state
            .is_some_and(|new| new.vote == Some(id) && new.term > known.term);
        if own {
            node.campaigns += 1;
        }
        let (role, issued) = (node.role, node.disk.issue(write.clone()));
        self.claim(issued);
        let term = self.node(id).disk.issued.hard_state.term;
        for batch in &write.append {
            let seen = self.history.saw_batch(batch);
            self.claim(seen);
            if role == RoleKind::Leader && batch.header.term == term {
                self.history.leader_appended(term, batch);
            }
        }
    }

    fn send(&mut self, id: NodeId, envelope: Envelope) {
        let node = self.node_mut(id);
        assert_eq!(envelope.from, id, "a node speaks for itself");
        assert_ne!(envelope.to, id, "a node does not talk to itself");
        assert_eq!(envelope.incarnation, node.incarnation, "and for this life");
        assert_eq!(envelope.group, node.config.group, "in its own group");
        let kind = Kind::of(&envelope.message);
        if kind == Kind::PreVote {
            node.campaigns += 1;
        }
        let seen = self.history.sent(&envelope);
        self.claim(seen);
        if self.options.check_release {
            let released = release::check_send(&self.node(id).disk, &self.history, &envelope);
            self.claim(released);
        }
        if self.options.record {
            self.sent.push(envelope.clone());
        }
        self.net.send(envelope);
    }

    fn apply(&mut self, id: NodeId, batches: Vec<Batch>) {
        let Some(last) = batches.last().map(|batch| batch.header.last()) else {
            return self.claim(Broken::unless(false, "apply brings batches", || {
                format!("node {id} applies nothing")
            }));
        };
        self.take_commit(id);
        for batch in batches {
            let node = self.node(id);
            let before = node.applied_to;
            if self.options.check_release {
                let released = release::check_apply(&node.disk, id, &batch);
                self.claim(released);
            }
            let applied = self.history.applied(id, &before, &batch);
            self.claim(applied);
            self.resolve(id, &batch);
            let node = self.node_mut(id);
            node.applied_to = batch.header.position();
            node.applied.push(batch);
        }
        self.node_mut(id).apply_waiting.push_back(last);
    }

    fn resolve(&mut self, id: NodeId, batch: &Batch) {
        let (first, last) = (batch.header.first, batch.header.last());
        let node = self.nodes.get(&id).expect("a node of this cluster");
        // Terms never fall along a log: what was appended in an earlier term at a later place than an
        // applied entry of this term can never be applied.
        let term = batch.header.term;
        let mut due: Vec<(Index, ProposalId)> = Vec::new();
        for (index, proposal) in node.waiting.range((first, ProposalId(0))..) {
            let appended = self.outcomes.get(proposal);
            let earlier = matches!(appended, Some(Outcome::Appended(at)) if at.term < term);
            if *index <= last || earlier {
                due.push((*index, *proposal));
            }
        }
        for (index, proposal) in due {
            self.node_mut(id).waiting.remove(&(index, proposal));
            let Some(Outcome::Appended(at)) = self.outcome(proposal) else {
                continue;
            };
            let same = at.term == term && at.index == first;
            let outcome = if same {
                Outcome::Applied(at)
            } else {
                Outcome::Overwritten(at)
            };
            self.outcomes.insert(proposal, outcome);
        }
    }

    fn changed(&mut self, id: NodeId, role: RoleKind, term: Term, leader: Option<NodeId>) {
        let node = self.node_mut(id);
        let begins = role == RoleKind::Leader && node.role != RoleKind::Leader;
        node.role = role;
        node.told_term = term;
        node.leader = leader;
        if begins {
            let node = self.nodes.get(&id).expect("a node of this cluster");
            let life = (id, node.incarnation);
            let led = self.history.leads(term, life, &node.disk.issued);
            self.claim(led);
        }
    }
}

/// Stored batches of a read: whole, consecutive, at least one.
fn read_back(store: &Store, load: &Load) -> Result<Vec<Batch>, LoadError> {
    let mut found: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    let wanted = store
        .batches
        .iter()
        .filter(|batch| batch.header.first >= load.first && batch.header.last() <= load.last);
    for batch in wanted {
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
