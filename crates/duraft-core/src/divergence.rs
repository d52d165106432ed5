//! One (term, index), two contents (RULES.md 8): some disk or some node is broken.
//!
//! Nothing is ever cut or acknowledged across it. Who is wrong is found out in this order:
//!
//! 1. the follower says what both hold and changes nothing;
//! 2. the leader reads its own chain back from disk, from what the follower has acknowledged up to
//!    what it contradicts. If the disk says otherwise than the memory, or cannot say, the leader steps
//!    down: its log is not to be trusted. It does too if a quorum contradicts it;
//! 3. if a quorum holds what the follower contradicts, the leader asks for that very boundary, with an
//!    append that holds nothing. The follower that contradicts again has the odd copy and stops.
//!
//! As long as no quorum says the one or the other, nobody can tell, and both wait: a leader with the odd
//! copy would stop one good follower after the other.
//!
//! While the leader looks and waits it sends that follower no appends. Those that are on their way may contradict
//! too; so a follower counts only a question that comes without batches, and after a heartbeat that
//! came after its first answer. A repeated message can still make it stop too early: that costs its
//! help, not anybody's entries.

use crate::batch::Batch;
use crate::io::{Fault, Load, LoadError, Output};
use crate::log::Boundary;
use crate::message::{AppendReply, Message};
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{LoadId, NodeId, Position};
use alloc::vec::Vec;

/// What a follower has told its leader of a contradiction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// The leader has sent a heartbeat since.
    pub(crate) heard: bool,
}

/// A leader reads its own chain back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Audit {
    /// The piece that is being read; `None`: all of it is as it should be.
    load: Option<LoadId>,
    /// The piece begins here.
    next: Boundary,
    /// What the peer contradicts.
    pub(crate) end: Boundary,
    /// The last heartbeat round when it did.
    round: u64,
}

impl Raft {
    /// The leader's words contradict this log. `asked`: it wanted to know nothing else.
    pub(crate) fn on_divergence(
        &mut self,
        from: NodeId,
        (theirs, ours): (Position, Position),
        asked: bool,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        if !self.is_term_durable() || self.is_uncertain() {
            // Nothing may leave in this term yet. The leader will ask again.
            return None;
        }
        let reply = AppendReply::Divergence { theirs, ours };
        out.push(
            self.me
                .send(from, self.hard.term, Message::AppendReply(reply)),
        );
        let at_once = self.plants.has(Plant::HaltsUnasked);
        let follower = self.role.follower_mut()?;
        let again = asked && follower.diverged.is_some_and(|told| told.heard);
        if again || at_once {
            return Some(Transition::Halt(Fault::Divergence { theirs, ours }));
        }
        (follower.diverged).get_or_insert(Told { heard: false });
        None
    }

    /// A peer holds another content under a (term, index) of this log.
    pub(crate) fn on_diverged(
        &mut self,
        from: NodeId,
        theirs: Position,
        ours: Position,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        let at = self.log.boundary_after(theirs.index())?;
        if self.log.position(at) != theirs || ours == theirs {
            return None;
        }
        let term = self.hard.term;
        let leader = self.role.leader_mut()?;
        let round = leader.round;
        let progress = leader.progress.get_mut(&from)?;
        progress.diverged = true;
        let first = progress.auditing.is_none();
        let told = (leader.progress.iter())
            .filter(|(_, progress)| progress.diverged)
            .map(|(id, _)| *id);
        if self.memberships.active().is_quorum(told) {
            return Some(Transition::Follow { term, leader: None });
        }
        if first {
            let audit = Audit {
                load: None,
                next: Boundary::default(),
                end: at,
                round,
            };
            self.audit(from, audit, out);
        }
        None
    }

    /// Reads the next piece of the chain, if there is one. What has left memory was applied, and what is not
    /// durable no disk can contradict.
    fn audit(&mut self, peer: NodeId, audit: Audit, out: &mut Vec<Output>) {
        let last = audit.end.min(self.disk.log());
        let begin = self.log.held();
        let Some(leader) = self.role.leader_mut() else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&peer) else {
            return;
        };
        let next = audit.next.max(progress.matched).max(begin);
        let load = (next < last).then_some(self.next_load);
        progress.auditing = Some(Audit {
            load,
            next,
            ..audit
        });
        if let Some(id) = load {
            self.next_load.0 += 1;
            out.push(Output::Load(Load {
                id,
                first: self.log.first_after(next),
                last: self.log.index(last),
                bytes_max: self.config.append_bytes_max,
            }));
        }
    }

    /// A heartbeat came back. Asks the peer for what it has contradicted, if this node has looked and a
    /// quorum agrees with it; and if the peer has heard that heartbeat after it contradicted.
    pub(crate) fn ask_diverged(&mut self, peer: NodeId, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let progress = leader.progress.get(&peer);
        let Some((audit, answered)) = progress.and_then(|p| Some((p.auditing?, p.answered))) else {
            return;
        };
        let held = self.quorum_holds(leader) >= audit.end;
        if audit.load.is_some() || !held || answered <= audit.round {
            return;
        }
        let end = audit.end.max(self.log.held());
        let (term, prev) = (self.hard.term, self.log.position(end));
        let commit = self.log.index(self.commit);
        let Some(leader) = self.role.leader_mut() else {
            return;
        };
        let round = leader.round;
        if let Some(progress) = leader.progress.get_mut(&peer) {
            progress.auditing = None;
            progress.ask(end, prev.id, round);
            let message = Message::Append {
                prev,
                batches: Vec::new(),
                commit,
            };
            out.push(self.me.send(peer, term, message));
        }
    }

    /// The leader has read back a piece of its chain. Says whether the load was for that.
    pub(crate) fn on_audited(
        &mut self,
        load: LoadId,
        result: &Result<Vec<Batch>, LoadError>,
        out: &mut Vec<Output>,
    ) -> Option<Option<Transition>> {
        let (term, begin) = (self.hard.term, self.log.held());
        let leader = self.role.leader()?;
        let (peer, audit) = (leader.progress.iter())
            .filter_map(|(peer, progress)| Some((*peer, progress.auditing?)))
            .find(|(_, audit)| audit.load == Some(load))?;
        // Applied while it was being read, and out of memory: what is left of the chain begins later.
        if audit.next < begin {
            self.audit(peer, audit, out);
            return Some(None);
        }
        let mut next = audit.next;
        let batches = result.as_deref().unwrap_or_default();
        while let Some(batch) = batches.get(next.since(audit.next))
            && next < audit.end
            && self.log.header(next) == Some(&batch.header)
        {
            next = next.next();
        }
        let read = next.since(audit.next);
        let same = read > 0 && (read == batches.len() || next == audit.end);
        if !same && !self.plants.has(Plant::TrustsOwnCopy) {
            return Some(Some(Transition::Follow { term, leader: None }));
        }
        let next = if same { next } else { audit.end };
        self.audit(peer, Audit { next, ..audit }, out);
        Some(None)
    }
}
