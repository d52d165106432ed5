//! Disks that were rolled back (RULES.md 18): replaced by an older copy of themselves, or by an empty
//! one, without anybody being told. Such a node has forgotten what it acknowledged and does not know it.
//!
//! A leader that has seen an acknowledgement knows better. It says so whenever an answer suggests it: a
//! rejection below what was acknowledged, or a word of an earlier life than one it has heard. The
//! suspicion may be wrong, as answers are delayed and repeated; so it is the accused who decides. A node
//! that holds the entry knows that the word was late. A node that knows of its damage has told so
//! already. Any other one has lost the entry without knowing: it stops.
//!
//! This finds what can be found. A disk rolled back while no leader of its term has seen more of it
//! looks like one that is merely behind.

use crate::io::{Fault, Output};
use crate::message::Message;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::Transition;
use crate::types::{Incarnation, LogId, NodeId, Term};
use alloc::vec::Vec;

impl Raft {
    /// A peer has rejected `prev` and can share at most `hint` with this leader.
    pub(crate) fn suspect_rejection(
        &self,
        from: NodeId,
        (prev, hint): (LogId, LogId),
        out: &mut Vec<Output>,
    ) {
        let progress = (self.role.leader()).and_then(|leader| leader.progress.get(&from));
        let seen = progress.map_or(LogId::default(), |progress| progress.matched_id);
        if hint.index < seen.index && prev.index >= seen.index {
            self.accuse(from, seen, out);
        }
    }

    /// A word of the life `incarnation` of a peer has come. Has a later one been heard?
    pub(crate) fn suspect_life(
        &self,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        out: &mut Vec<Output>,
    ) {
        let progress = (self.role.leader()).and_then(|leader| leader.progress.get(&from));
        if let Some(progress) = progress
            && term == self.hard.term
            && progress.incarnation > Some(incarnation)
            && progress.matched_id.index.0 > 0
        {
            self.accuse(from, progress.matched_id, out);
        }
    }

    fn accuse(&self, peer: NodeId, seen: LogId, out: &mut Vec<Output>) {
        if !self.plants.has(Plant::IgnoresRollback) {
            let message = Message::RolledBack { seen };
            out.push(self.me.send(peer, self.hard.term, message));
        }
    }

    /// The leader has seen this node acknowledge an entry and suspects that it is gone.
    pub(crate) fn on_rolled_back(
        &mut self,
        from: NodeId,
        term: Term,
        seen: LogId,
    ) -> Option<Transition> {
        if term != self.hard.term || !self.follows(from) || self.damage.is_some() {
            return None;
        }
        let held = seen.index <= self.log.solid().index()
            || (self.log.boundary_after(seen.index))
                .is_some_and(|at| self.log.position(at).id == seen);
        (!held).then_some(Transition::Halt(Fault::RolledBack { seen }))
    }
}
