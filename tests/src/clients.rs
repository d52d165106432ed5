//! What clients and operators ask for: reads, membership changes, transfers; and what becomes of reads.

use crate::broken::Broken;
use crate::cluster::{Cluster, Outcome};
use crate::{Machine, Store};
use duraft_core::{
    HardState, Index, Input, Leave, MemberChange, Membership, NodeId, Position, Promotion,
    ProposalId, ReadBasis,
};

const D4: &str = "D4 a read shows what was acknowledged before it was asked";

impl Cluster {
    /// A client asks `id` for a linearizable read.
    pub fn read(&mut self, id: NodeId) -> ProposalId {
        self.read_by(id, ReadBasis::Quorum)
    }

    /// A client asks `id` for a read, on its lease if it may.
    pub fn read_by_lease(&mut self, id: NodeId) -> ProposalId {
        self.read_by(id, ReadBasis::Lease)
    }

    fn read_by(&mut self, id: NodeId, basis: ReadBasis) -> ProposalId {
        let read = self.new_proposal();
        // Everything acknowledged by anybody until now must be in what the read shows (H7).
        self.read_floors.insert(read, self.acknowledged);
        self.ask(id, read, Input::Read { id: read, basis });
        read
    }

    fn ask(&mut self, id: NodeId, name: ProposalId, input: Input) {
        self.node_mut(id).asked.insert(name);
        self.step(id, input);
    }

    /// The next read of `id` whose state has been reached, answered; or asked again of a quorum where
    /// the lease that vouched for it has run out by the time the state machine answers (RULES.md 26).
    pub(crate) fn next_read(&mut self, id: NodeId) -> Option<Input> {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        if node.hold_apply {
            return None;
        }
        let to = node.machine.to.index();
        let at = node.reads.iter().position(|read| read.index <= to)?;
        let read = node.reads.remove(at);
        if let Some(round) = read.lease {
            let term = node.disk.issued.hard_state.term;
            let sent = node.rounds.get(&(term, round)).copied();
            let lasts = node.config.lease_ticks().map(u64::from);
            let fresh = sent.is_some_and(|sent| Some(node.clock - sent) <= lasts);
            if !fresh {
                let basis = ReadBasis::Quorum;
                return Some(Input::Read { id: read.id, basis });
            }
        }
        let floor = self.read_floors.get(&read.id).copied();
        let fresh = Broken::unless(floor.is_some_and(|floor| floor <= read.index), D4, || {
            format!("node {id} answers {read:?}, acknowledged was {floor:?}")
        });
        let known = Broken::unless(
            read.index <= self.history.commit().index(),
            "a read shows what is committed",
            || format!("node {id} answers {read:?}"),
        );
        self.claim(fresh);
        self.claim(known);
        self.answer(read.id, Outcome::Read(read.index));
        self.next_read(id)
    }

    /// The clock of `id` goes on by this much while the node stands still.
    pub fn suspend(&mut self, id: NodeId, ticks: u64) {
        self.node_mut(id).clock += ticks;
    }

    /// An operator asks `id` to change the membership; a joint one is left as soon as it can be.
    pub fn change(&mut self, id: NodeId, changes: &[MemberChange]) -> ProposalId {
        self.change_by(id, changes, Leave::Automatic)
    }

    /// An operator asks `id` to change the membership.
    pub fn change_by(&mut self, id: NodeId, changes: &[MemberChange], leave: Leave) -> ProposalId {
        let name = self.new_proposal();
        let input = Input::ChangeMembership {
            id: name,
            changes: changes.to_vec(),
            leave,
        };
        self.ask(id, name, input);
        name
    }

    /// An operator asks `id` to leave the joint membership.
    pub fn leave_joint(&mut self, id: NodeId) -> ProposalId {
        let name = self.new_proposal();
        self.ask(id, name, Input::LeaveJoint { id: name });
        name
    }

    /// An operator asks `id` to hand its leadership to `to`.
    pub fn transfer(&mut self, id: NodeId, to: NodeId) -> ProposalId {
        let name = self.new_proposal();
        self.ask(id, name, Input::TransferLeadership { id: name, to });
        name
    }

    /// An operator asks `id` to give its leadership up.
    pub fn step_down(&mut self, id: NodeId) -> ProposalId {
        let name = self.new_proposal();
        self.ask(id, name, Input::StepDown { id: name });
        name
    }

    /// An operator asks `id` to forget who leads.
    pub fn forget_leader(&mut self, id: NodeId) {
        self.step(id, Input::ForgetLeader);
    }

    /// The host of `id` has lost its connection to `peer`.
    pub fn unreachable(&mut self, id: NodeId, peer: NodeId) {
        self.step(id, Input::Unreachable { peer });
    }

    /// A node that never was a member starts, empty, and waits to hear from a leader.
    pub fn join(&mut self, id: NodeId) {
        let unknown = Membership::unknown();
        let start = Position::START;
        let store = Store::new(start, unknown.clone(), HardState::default(), Vec::new());
        self.enrol(id, store, Machine::new(start, unknown));
        self.restart(id);
    }

    /// The membership in use at `id`.
    pub fn in_use(&self, id: NodeId) -> Membership {
        self.node(id).disk.issued.in_use()
    }

    /// Voters as they shall be at `id`.
    pub fn voters(&self, id: NodeId) -> Vec<NodeId> {
        self.in_use(id).incoming().collect()
    }

    /// The last index acknowledged to any client.
    pub fn last_acknowledged(&self) -> Index {
        self.acknowledged
    }
}

/// Adds a voter.
pub fn add(id: NodeId) -> MemberChange {
    MemberChange::AddVoter(id)
}

/// Adds a learner that stays one, or demotes a voter.
pub fn learner(id: NodeId) -> MemberChange {
    let promotion = Promotion::Never;
    MemberChange::AddLearner { id, promotion }
}

/// Adds a learner that becomes a voter when it has caught up, in the place of `replacing`.
pub fn promoted(id: NodeId, replacing: Option<NodeId>) -> MemberChange {
    let promotion = Promotion::WhenCaughtUp { replacing };
    MemberChange::AddLearner { id, promotion }
}

/// Removes a member.
pub fn remove(id: NodeId) -> MemberChange {
    MemberChange::Remove(id)
}
