//! What a test can make happen in a [`Cluster`]: verbs that read aloud.

use crate::cluster::{Cluster, Outcome};
use crate::net::{Kind, Pick, any};
use crate::{Broken, Machine, Sabotage, body};
use duraft_core::{
    Boot, Completion, Envelope, Incarnation, Input, Leave, LoadError, NodeId, ProposalId, Raft,
    RoleKind, WriteSeq,
};

/// Deliveries after which a pool that never empties is called a storm.
const DELIVERIES_MAX: usize = 200_000;

impl Cluster {
    // Time and elections.

    /// `count` ticks pass for `id` alone.
    pub fn tick(&mut self, id: NodeId, count: u32) {
        for _ in 0..count {
            self.step(id, Input::Tick);
        }
    }

    /// `count` ticks pass for every living node, in step.
    pub fn tick_all(&mut self, count: u32) {
        for _ in 0..count {
            for id in self.living() {
                self.step(id, Input::Tick);
            }
        }
    }

    /// One heartbeat interval passes for `id`.
    pub fn heartbeat(&mut self, id: NodeId) {
        self.tick(id, self.options.config.heartbeat_ticks);
    }

    /// Time passes for `id` alone until it starts a campaign.
    pub fn campaign(&mut self, id: NodeId) {
        assert!(
            self.try_campaign(id),
            "node {id} campaigns within two timeouts\n{}",
            self.story()
        );
    }

    /// Time passes for `id` alone, up to two longest timeouts; did it start a campaign?
    pub fn try_campaign(&mut self, id: NodeId) -> bool {
        let before = self.node(id).campaigns;
        for _ in 0..4 * self.options.config.election_ticks {
            if self.node(id).campaigns > before {
                break;
            }
            self.step(id, Input::Tick);
        }
        self.node(id).campaigns > before
    }

    /// `id` campaigns, everything is delivered, and it leads.
    pub fn elect(&mut self, id: NodeId) {
        self.campaign(id);
        self.deliver_all();
        assert_eq!(
            self.role(id),
            RoleKind::Leader,
            "node {id} wins its election\n{}",
            self.story()
        );
    }

    /// `id` campaigns and wins; appends and heartbeats stay under way.
    pub fn win(&mut self, id: NodeId) {
        self.campaign(id);
        for kind in [
            Kind::PreVote,
            Kind::PreVoteReply,
            Kind::Vote,
            Kind::VoteReply,
        ] {
            self.deliver_only(any().kind(kind));
        }
        assert_eq!(
            self.role(id),
            RoleKind::Leader,
            "node {id} wins its election\n{}",
            self.story()
        );
    }

    /// One least election timeout passes for `id`: it no longer defends the leader it heard from.
    pub fn lose_patience(&mut self, id: NodeId) {
        let before = self.term(id);
        self.tick(id, self.options.config.election_ticks);
        // It may have asked whether it could win; nobody hears that.
        self.lose(any().from(id).kind(Kind::PreVote));
        assert_eq!(
            self.term(id),
            before,
            "choose another seed: n{id} campaigned"
        );
    }

    // Clients.

    /// A client asks `id` to put one command into the log.
    pub fn propose(&mut self, id: NodeId, command: &str) -> ProposalId {
        self.propose_body(id, body::command_body(command))
    }

    /// A client asks `id` to put one batch into the log.
    pub fn propose_body(&mut self, id: NodeId, body: duraft_core::Body) -> ProposalId {
        let proposal = self.new_proposal();
        self.step(id, Input::Propose { id: proposal, body });
        assert!(
            self.outcomes.contains_key(&proposal) || self.node(id).raft.is_none(),
            "a proposal is answered in the step that takes it\n{}",
            self.story()
        );
        proposal
    }

    /// A fresh name for a client's input.
    pub fn new_proposal(&mut self) -> ProposalId {
        let proposal = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        proposal
    }

    /// What became of the proposal; `None` while unanswered.
    pub fn outcome(&self, proposal: ProposalId) -> Option<Outcome> {
        self.outcomes.get(&proposal).copied()
    }

    /// Was the proposal acknowledged?
    pub fn acknowledged(&self, proposal: ProposalId) -> bool {
        matches!(self.outcome(proposal), Some(Outcome::Applied(_)))
    }

    // Network.

    /// Delivers what is under way and meant by `pick`, not what follows from it. Returns how many.
    pub fn deliver(&mut self, pick: Pick) -> usize {
        let taken = self.net.take(pick);
        let count = taken.len();
        for envelope in taken {
            self.deliver_one(envelope);
        }
        count
    }

    /// Delivers everything, snapshots too, and what follows, until nothing is under way.
    pub fn deliver_all(&mut self) {
        self.deliver_only(any());
    }

    /// Delivers what `pick` means, also what follows, until none of it is under way.
    pub fn deliver_only(&mut self, pick: Pick) {
        for _ in 0..DELIVERIES_MAX {
            match self.net.take_first(pick) {
                Some(envelope) => self.deliver_one(envelope),
                None if pick == any() && self.carry_snapshots() => {}
                None => return,
            }
        }
        panic!("message storm\n{}", self.story());
    }

    /// Delivers everything but what `pick` means, which stays under way.
    pub fn deliver_except(&mut self, pick: Pick) {
        let mut held = Vec::new();
        for _ in 0..DELIVERIES_MAX {
            held.extend(self.net.take(pick));
            match self.net.take_first(any()) {
                Some(envelope) => self.deliver_one(envelope),
                None if self.carry_snapshots() => {}
                None => {
                    self.net.pool = held;
                    return;
                }
            }
        }
        panic!("message storm\n{}", self.story());
    }

    /// Delivers one message, whoever sent it.
    pub fn deliver_one(&mut self, envelope: Envelope) {
        let to = envelope.to;
        if self.options.puppets.contains(&to) {
            self.mail.push(envelope);
        } else if self.nodes.contains_key(&to) && self.alive(to) {
            self.step(to, Input::Received(envelope));
        }
    }

    /// A peer without a core, or a stray, says this to its receiver now.
    pub fn inject(&mut self, envelope: Envelope) {
        let seen = self.history.sent(&envelope);
        self.claim(seen);
        self.deliver_one(envelope);
    }

    /// Loses what is under way and meant by `pick`. Returns how many.
    pub fn lose(&mut self, pick: Pick) -> usize {
        self.net.take(pick).len()
    }

    /// Copies what is under way and meant by `pick`. Returns how many.
    pub fn duplicate(&mut self, pick: Pick) -> usize {
        let copies: Vec<Envelope> = self.net.waiting(pick).into_iter().cloned().collect();
        let count = copies.len();
        self.net.pool.extend(copies);
        count
    }

    /// Nothing gets to or from `id` until [`Cluster::heal`]; what is under way is lost.
    pub fn isolate(&mut self, id: NodeId) {
        for other in self.everybody() {
            self.net.cut(id, other);
            self.net.cut(other, id);
        }
        self.lose(any().about(id));
        self.carried
            .retain(|(from, to), _| *from != id && *to != id);
    }

    /// As [`Cluster::isolate`], but what is under way still arrives.
    pub fn isolate_from_now(&mut self, id: NodeId) {
        for other in self.everybody() {
            self.net.cut(id, other);
            self.net.cut(other, id);
        }
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.net.heal();
    }

    /// Messages sent so far that `pick` means.
    pub fn sent(&self, pick: Pick) -> Vec<&Envelope> {
        assert!(self.options.record, "this cluster keeps no record");
        self.sent.iter().filter(|e| pick.takes(e)).collect()
    }

    /// Messages delivered to peers without a core, and forgets them.
    pub fn take_mail(&mut self) -> Vec<Envelope> {
        std::mem::take(&mut self.mail)
    }

    // Disks.

    /// Writes of `id` wait until the test completes them.
    pub fn hold_disk(&mut self, id: NodeId) {
        self.node_mut(id).disk.hold = true;
    }

    /// Completes what waits and stops holding.
    pub fn free_disk(&mut self, id: NodeId) {
        self.node_mut(id).disk.hold = false;
        self.settle(id);
    }

    /// The oldest `count` waiting writes become durable and are reported.
    pub fn complete(&mut self, id: NodeId, count: usize) {
        self.land(id, count);
        self.report(id);
    }

    /// All waiting writes, and what follows from them, become durable and are reported, one by one.
    pub fn complete_all(&mut self, id: NodeId) {
        while !self.node(id).disk.pending.is_empty() {
            self.complete(id, 1);
        }
    }

    /// The oldest `count` waiting writes become durable; the core does not hear of it yet.
    pub fn land(&mut self, id: NodeId, count: usize) {
        let node = self.node_mut(id);
        let landed = node.disk.land(count);
        match landed {
            Ok(upto) => node.unreported = node.unreported.max(upto),
            Err(broken) => self.claim(Err(broken)),
        }
        self.check_durable();
    }

    /// The core hears of what became durable.
    pub fn report(&mut self, id: NodeId) {
        if let Some(upto) = self.node_mut(id).unreported.take() {
            self.step(id, Input::Completed(Completion::Persisted { upto }));
        }
    }

    /// The core hears this, whatever is durable: late, repeated or false reports.
    pub fn report_upto(&mut self, id: NodeId, upto: WriteSeq) {
        self.step(id, Input::Completed(Completion::Persisted { upto }));
    }

    /// A write of `id` fails; what was waiting will never be durable in this life.
    pub fn fail_disk(&mut self, id: NodeId) {
        self.node_mut(id).disk.hold = true;
        self.step(id, Input::Completed(Completion::WriteFailed));
    }

    /// Plants a fault in the disk of `id`.
    pub fn sabotage(&mut self, id: NodeId, sabotage: Sabotage) {
        self.node_mut(id).disk.sabotage = Some(sabotage);
    }

    /// The state machine of `id` reports nothing as applied until freed.
    pub fn hold_apply(&mut self, id: NodeId) {
        self.node_mut(id).hold_apply = true;
    }

    /// The state machine of `id` reports what it has applied.
    pub fn free_apply(&mut self, id: NodeId) {
        self.node_mut(id).hold_apply = false;
        self.settle(id);
    }

    /// Reads of `id` wait until the test answers them.
    pub fn hold_loads(&mut self, id: NodeId) {
        self.node_mut(id).hold_loads = true;
    }

    /// Answers the reads that wait and stops holding.
    pub fn free_loads(&mut self, id: NodeId) {
        self.node_mut(id).hold_loads = false;
        self.settle(id);
    }

    /// The oldest read that waits fails. Was there one?
    pub fn fail_load(&mut self, id: NodeId, error: LoadError) -> bool {
        let Some(load) = self.node_mut(id).loads.pop_front() else {
            return false;
        };
        let result = Err(error);
        let load = load.id;
        self.step(id, Input::Completed(Completion::Loaded { load, result }));
        true
    }

    /// The oldest read that waits is taken off the rig's hands: the test answers it itself.
    pub fn take_load(&mut self, id: NodeId) {
        self.node_mut(id).loads.pop_front();
    }

    // Lives.

    /// `id` loses power: nothing that was not durable survives.
    pub fn crash(&mut self, id: NodeId) {
        self.crash_keeping(id, 0);
    }

    /// `id` loses power; the first `kept` of its waiting writes survive all the same.
    pub fn crash_keeping(&mut self, id: NodeId, kept: usize) {
        self.note(|| format!("n{id} crashes, {kept} waiting writes survive"));
        let node = self.node_mut(id);
        node.raft = None;
        node.role = RoleKind::Follower;
        node.leader = None;
        node.unreported = None;
        node.apply_waiting.clear();
        node.loads.clear();
        node.reads.clear();
        node.rounds.clear();
        let lost = std::mem::take(&mut node.waiting);
        let asked = std::mem::take(&mut node.asked);
        let crashed = node.disk.crash(kept);
        self.carried.retain(|(from, _), _| *from != id);
        for name in asked {
            self.outcomes.entry(name).or_insert(Outcome::Unknown);
        }
        for (_, proposal) in lost {
            self.outcomes.insert(proposal, Outcome::Unknown);
        }
        self.claim(crashed);
        self.check_durable();
    }

    /// `id` starts again from its disk, in a new life.
    pub fn restart(&mut self, id: NodeId) {
        let (plant, keeps) = (self.options.plant, self.options.durable_machine);
        let content = self.content_of(id);
        let node = self.node_mut(id);
        assert!(node.raft.is_none(), "only the dead are started");
        node.incarnation = Incarnation(node.incarnation.0 + 1);
        let store = &node.disk.durable;
        let boot = Boot {
            incarnation: node.incarnation,
            hard_state: store.hard_state,
            start: store.start,
            batches: store.batches.iter().map(|batch| batch.header).collect(),
            membership: store.membership.clone(),
            memberships: store.memberships_left(),
            snapshot: store.snapshot.clone(),
            applied: keeps.then_some(node.machine.to.index().max(content.to.index())),
            damage: store.damage(),
        };
        let hard_state = store.hard_state;
        let damaged = boot.damage.is_some();
        if !keeps || node.machine.to.index() < content.to.index() {
            node.machine = content;
        }
        node.halted = None;
        node.told_term = hard_state.term;
        let raft =
            Raft::new(node.config.clone(), boot).expect("what recovery found can be started");
        node.commit = raft.commit();
        let begun = match &mut self.judge {
            Some(judge) if damaged => {
                judge.retire();
                Ok(())
            }
            Some(judge) => judge.boots(&raft),
            None => Ok(()),
        };
        self.claim(begun.map_err(Broken::no_action));
        let node = self.node_mut(id);
        node.raft = Some(raft);
        if let (Some(plant), Some(raft)) = (plant, &mut node.raft) {
            raft.plant(plant);
            node.role = raft.role();
        }
        let uncertain = self.node(id).disk.durable.wounds.as_ref();
        if uncertain.is_some_and(|wounds| wounds.vote_uncertain) {
            self.history.forgets_vote(id);
        } else {
            let recovered = self.history.recovered(id, &hard_state);
            self.claim(recovered);
        }
        self.note(|| format!("n{id} starts"));
    }

    /// The state that the state machine of `id` begins with: its snapshot's, or the first.
    fn content_of(&self, id: NodeId) -> Machine {
        match &self.node(id).disk.durable.snapshot {
            Some(taken) => {
                let content = self.contents.get(&taken.file);
                Machine::clone(content.expect("a snapshot has a file"))
            }
            None => {
                let store = &self.node(id).disk.durable;
                Machine::new(self.options.start, store.membership.clone())
            }
        }
    }

    /// All faults end: the dead start, links and disks work, and time passes until one leader has
    /// brought every log to its own and every node has applied it.
    pub fn converge(&mut self) {
        self.heal();
        self.hold_snapshots = false;
        for id in self.ids() {
            if !self.alive(id) || self.halted(id).is_some() {
                if self.alive(id) {
                    self.crash(id);
                }
                self.restart(id);
            }
            self.free_disk(id);
            self.free_apply(id);
            self.free_loads(id);
        }
        for _ in 0..60 * self.options.config.election_ticks {
            self.tick_all(1);
            self.deliver_all();
            if self.converged() {
                return;
            }
        }
        panic!("the cluster converges\n{}", self.story());
    }

    /// One leader, equal logs, everything applied by all members, no change under way that ends by
    /// itself. Who is no member any more may lag behind.
    pub fn converged(&self) -> bool {
        let [leader] = self.leaders()[..] else {
            return false;
        };
        let end = self.issued(leader).last();
        let current = end.term().0 == self.term(leader);
        let same = |id: NodeId| {
            let node = self.nodes.get(&id);
            node.is_some_and(|node| {
                node.raft.is_some() && node.disk.issued.last() == end && node.machine.to == end
            })
        };
        let members = self.issued(leader).in_use();
        let over = members.leave() != Some(Leave::Automatic);
        current && over && members.members().all(same)
    }
}
