//! What becomes of a core's outputs: each goes to the disk, the network, the state machine, a client
//! or the history, and is checked on its way.

use crate::cluster::Reading;
use crate::cluster::{Cluster, Outcome};
use crate::net::Kind;
use crate::{Broken, Machine, release, show};
use duraft_core::{
    Batch, BatchKind, Envelope, Event, Index, Membership, Message, NodeId, Output, ProposalId,
    Response, RoleKind, Snapshot, Term, Write,
};
use std::sync::Arc;

const ONE_CHANGE: &str = "D6 one membership change at a time, after an entry of the own term";
const TRANSFER: &str = "a transfer's target holds the whole log durably";
const INSTALL: &str = "a state machine restores what is durable here and newer";

impl Cluster {
    /// Carries an output out. `in_use` is the membership before the step.
    pub(crate) fn route(&mut self, id: NodeId, output: Output, in_use: &Membership) {
        self.note(|| show::output(id, &output));
        match output {
            Output::Persist(write) => self.persist(id, write),
            Output::Send(envelope) => self.send(id, envelope),
            Output::Apply(batches) => self.apply(id, batches, in_use),
            Output::Load(load) => self.node_mut(id).loads.push_back(load),
            Output::ReadReady {
                id: read,
                index,
                lease,
            } => {
                let read = Reading {
                    id: read,
                    index,
                    lease,
                };
                self.node_mut(id).reads.push(read);
            }
            Output::SendSnapshot { to, term, snapshot } => {
                self.send_snapshot(id, to, term, snapshot);
            }
            Output::InstallSnapshot(snapshot) => self.install(id, &snapshot, in_use),
            Output::TakeSnapshot => self.node_mut(id).snapshot_wanted = true,
            Output::Respond(Response::Done { id: done }) => self.answer(done, Outcome::Done),
            Output::Changed(Event::Membership { at, committed }) => {
                self.take_commit(id, in_use);
                let known = !committed || self.history.commit().index() >= at;
                let told = Broken::unless(known, "a committed membership is committed", || {
                    format!("node {id} tells of {at}")
                });
                self.claim(told);
            }
            Output::Changed(Event::Healed) => self.node_mut(id).healed += 1,
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
        let commit = node.commit;
        let (role, issued) = (node.role, node.disk.issue(write.clone()));
        self.claim(issued);
        if let Some(taken) = &write.snapshot {
            let node = self.node(id);
            let filed = node.files.contains(&taken.snapshot.file);
            let forward = !taken.reset || taken.snapshot.position.index() > commit;
            let committed = self.history.is_committed(&taken.snapshot.position);
            let sound = Broken::unless(
                filed && forward && committed,
                "B8 a snapshot is durable, committed and, if installed, news",
                || format!("node {id} at commit {commit} writes {taken:?}"),
            );
            self.claim(sound);
        }
        self.check_memberships(id, &write);
        let term = self.node(id).disk.issued.hard_state.term;
        for batch in &write.append {
            let seen = self.history.saw_batch(batch);
            self.claim(seen);
            if role == RoleKind::Leader && batch.header.term == term {
                self.history.leader_appended(term, batch);
            }
        }
    }

    /// Consecutive memberships share their quorums, and a leader begins a change only when the one
    /// before is over and it has committed in its own term (H10, D6).
    fn check_memberships(&mut self, id: NodeId, write: &Write) {
        let sets = |batch: &&Batch| batch.header.kind == BatchKind::Membership;
        for batch in write.append.iter().filter(sets) {
            let node = self.nodes.get(&id).expect("a node of this cluster");
            let (log, at) = (&node.disk.issued, batch.header.last());
            let before = log.membership_at(at.previous());
            let after = log.membership_at(at);
            let joined = self.history.follows(&before, &after);
            let raft = node.raft.as_ref().expect("it writes");
            let own = raft.role() == RoleKind::Leader && batch.header.term == raft.term();
            let commit = raft.commit();
            let proved = log.boundary(commit).map(|position| position.term());
            let latest = log.memberships().rfind(|(index, _)| *index < at);
            let over = latest.is_none_or(|(index, _)| index <= commit);
            let sound = !own || (proved == Some(raft.term()) && over);
            let alone = Broken::unless(sound, ONE_CHANGE, || {
                format!("node {id} at commit {commit} appends {:?}", batch.header)
            });
            self.claim(joined);
            self.claim(alone);
        }
    }

    fn send_snapshot(&mut self, id: NodeId, to: NodeId, term: Term, snapshot: Snapshot) {
        let node = self.node(id);
        let raft = node.raft.as_ref().expect("it sends");
        let leads = raft.role() == RoleKind::Leader
            && raft.term() == term
            && node.disk.durable.hard_state.term == term;
        let held = leads
            && node.files.contains(&snapshot.file)
            && node.disk.durable.snapshot.as_ref() == Some(&snapshot);
        let sound = Broken::unless(
            held || !self.options.check_release,
            "B8 a leader sends a snapshot that is durable here",
            || format!("node {id} sends {to} {snapshot:?} in {term}"),
        );
        self.claim(sound);
        self.carried.insert((id, to), (term, snapshot));
    }

    /// The state machine's state is replaced. What it was given before is void.
    fn install(&mut self, id: NodeId, snapshot: &Snapshot, in_use: &Membership) {
        self.take_commit(id, in_use);
        let node = self.nodes.get(&id).expect("a node of this cluster");
        let held = node.disk.durable.snapshot.as_ref() == Some(snapshot)
            && node.machine.to.index() < snapshot.position.index();
        let sound = Broken::unless(held, INSTALL, || {
            format!(
                "node {id} at {} installs {snapshot:?}, durable is {:?}",
                node.machine.to, node.disk.durable.snapshot
            )
        });
        let content = self.contents.get(&snapshot.file).map(Arc::clone);
        let content = content.expect("a snapshot has a file");
        let honest = Broken::unless(
            content.to == snapshot.position && content.membership == snapshot.membership,
            "a snapshot says what it holds",
            || format!("node {id} installs {snapshot:?}, holds {}", content.to),
        );
        let known = self.history.installed(id, &content);
        for claim in [sound, honest, known] {
            self.claim(claim);
        }
        let upto = snapshot.position.index();
        let node = self.node_mut(id);
        node.machine = Machine::clone(&content);
        node.installed += 1;
        node.apply_waiting.clear();
        node.apply_waiting.push_back(upto);
        // What was proposed here and lies below may have been done or not.
        let later = node.waiting.split_off(&(upto.next(), ProposalId(0)));
        let passed = std::mem::replace(&mut node.waiting, later);
        for (_, proposal) in passed {
            self.outcomes.insert(proposal, Outcome::Unknown);
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
        if let Message::Heartbeat { round, .. } = envelope.message {
            let clock = node.clock;
            node.rounds.entry((envelope.term, round)).or_insert(clock);
        }
        let seen = self.history.sent(&envelope);
        self.claim(seen);
        if envelope.message == Message::TimeoutNow {
            self.check_transfer(id, envelope.to);
        }
        if self.options.check_release {
            let released = release::check_send(&self.node(id).disk, &self.history, &envelope);
            self.claim(released);
        }
        if self.options.record {
            self.sent.push(envelope.clone());
        }
        self.net.send(envelope);
    }

    /// Whoever is told to campaign at once holds everything this leader holds (thesis 3.10).
    fn check_transfer(&mut self, id: NodeId, to: NodeId) {
        let end = self.node(id).disk.issued.last();
        let whole = match self.nodes.get(&to) {
            // What the test has destroyed since it was acknowledged is not the leader's to know.
            Some(node) => node.disk.durable.holds(&end) || node.disk.durable.wounds.is_some(),
            None => self.history.has_puppets(),
        };
        let sound = Broken::unless(whole, TRANSFER, || format!("n{id} to n{to}, last {end}"));
        self.claim(sound);
    }

    fn apply(&mut self, id: NodeId, batches: Vec<Batch>, in_use: &Membership) {
        let Some(last) = batches.last().map(|batch| batch.header.last()) else {
            return self.claim(Broken::unless(false, "apply brings batches", || {
                format!("node {id} applies nothing")
            }));
        };
        self.take_commit(id, in_use);
        for batch in batches {
            let node = self.node(id);
            let before = node.machine.to;
            if self.options.check_release {
                let released = release::check_apply(&node.disk, id, &batch);
                self.claim(released);
            }
            let applied = self.history.applied(id, &before, &batch);
            self.claim(applied);
            self.resolve(id, &batch);
            let applied = self.node_mut(id).machine.apply(batch);
            self.claim(applied);
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
                self.acknowledged = self.acknowledged.max(last);
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
