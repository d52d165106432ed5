//! Giving the leadership up: to a node that was named, to one that shall rather lead, or because the own
//! disk stalls.
//!
//! A transfer (thesis 3.10) has three steps. The leader takes no proposals any more, so that the target
//! can catch up; when the target holds **everything durably**, the leader asks it to campaign at once;
//! the target's election is *forced*: voters answer it although they hear from a leader. If nothing has
//! come of it after one election timeout, the leader serves again.
//!
//! Before the leader asks for that election it gives its lease up for the rest of its term
//! (`lease.rs`): whenever the target acts on it, now or much later, no read rests on this term's lease.
//!
//! Three things begin a transfer:
//! - a client, who is told what became of it;
//! - **priority**: a voter that is healthy, keeps up and wants to lead more than this node does, once
//!   this node has led undisturbed for an election timeout. A node to which the leadership was given and
//!   who did not keep it is left alone for longer and longer;
//! - a **stalled disk**: the oldest write of this leader is under way for longer than `stall_ticks`. The
//!   healthiest voter is asked; if it does not take over, and a quorum of the others is healthy, this
//!   node steps down all the same, and does not campaign while its disk stalls.

use crate::io::{Output, Reject, Response};
use crate::message::{Health, Message};
use crate::plant::Plant;
use crate::progress::Progress;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{NodeId, ProposalId, Term};
use alloc::vec::Vec;

/// The pause between two attempts to hand over by priority, in election timeouts, never grows beyond.
const PAUSE_MAX: u64 = 64;

/// A transfer under way. It belongs to the leadership of `term`, but its client must be answered when
/// that ends: so it stands beside the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    /// The node that shall lead.
    pub(crate) to: NodeId,
    /// The term that is given up.
    pub(crate) term: Term,
    /// Tick at which it began.
    began: u64,
    /// Tick at which the target was last asked to campaign.
    pub(crate) asked: Option<u64>,
    why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// A client wants it.
    Asked(ProposalId),
    /// The target wants to lead more than this node.
    Priority,
    /// This node's disk stalls.
    Stall,
}

/// When this node may next hand over by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reluctance {
    /// Not before this tick.
    not_before: u64,
    /// Election timeouts to wait next time; 0 if the last time was long ago.
    pause: u64,
}

impl Raft {
    /// A client wants another node to lead.
    pub(crate) fn on_transfer(&mut self, id: ProposalId, to: NodeId, out: &mut Vec<Output>) {
        let reason = if self.role.leader().is_none() {
            Some(Reject::NotLeader)
        } else if self.transfer.is_some() {
            Some(Reject::TransferInProgress)
        } else if to == self.me.id || !self.memberships.active().is_voter(to) {
            Some(Reject::TransferTarget)
        } else {
            None
        };
        match reason {
            Some(reason) => self.reject(id, reason, out),
            None => self.begin_transfer(to, Why::Asked(id), out),
        }
    }

    fn begin_transfer(&mut self, to: NodeId, why: Why, out: &mut Vec<Output>) {
        assert!(self.transfer.is_none(), "one transfer at a time");
        self.transfer = Some(Transfer {
            to,
            term: self.hard.term,
            began: self.now,
            asked: None,
            why,
        });
        self.ask_target(out);
    }

    /// Asks the target to campaign, once it holds everything durably, and again with the heartbeats.
    pub(crate) fn ask_target(&mut self, out: &mut Vec<Output>) {
        let end = self.log.end();
        let (Some(transfer), Role::Leader(leader)) = (&mut self.transfer, &mut self.role) else {
            return;
        };
        let pause = u64::from(self.config.heartbeat_ticks);
        if transfer.asked.is_some_and(|asked| self.now - asked < pause) {
            return;
        }
        let Some(target) = leader.progress.get(&transfer.to) else {
            return;
        };
        if target.matched < end && !self.plants.has(Plant::TransferEarly) {
            return;
        }
        transfer.asked = Some(self.now);
        // From here on the target may be elected at any time, by voters that hear from this leader.
        leader.lease.given_up = true;
        let (to, term) = (transfer.to, self.hard.term);
        out.push(self.me.send(to, term, Message::TimeoutNow));
    }

    /// The leader asks this node to campaign at once.
    pub(crate) fn on_timeout_now(&self, from: NodeId, term: Term) -> Option<Transition> {
        let asked = term == self.hard.term && self.follows(from);
        (asked && self.may_campaign(true)).then_some(Transition::Campaign { forced: true })
    }

    /// A client wants this node to stop leading, whoever comes next. If somebody can lead at once, he
    /// is asked to.
    pub(crate) fn on_step_down(
        &mut self,
        id: ProposalId,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        if self.role.leader().is_none() {
            self.reject(id, Reject::NotLeader, out);
            return None;
        }
        out.push(Output::Respond(Response::Done { id }));
        Some(self.resign(out))
    }

    /// Stops leading; asks the best successor to campaign, if one holds everything.
    pub(crate) fn resign(&mut self, out: &mut Vec<Output>) -> Transition {
        let end = self.log.end();
        let ready = |progress: &Progress| progress.matched == end;
        if let Some(to) = self.best_voter(ready) {
            out.push(self.me.send(to, self.hard.term, Message::TimeoutNow));
        }
        Transition::Follow {
            term: self.hard.term,
            leader: None,
        }
    }

    /// The end of a step: a transfer whose leadership is over has come to something.
    pub(crate) fn end_transfer(&mut self, out: &mut Vec<Output>) {
        let Some(transfer) = self.transfer else {
            return;
        };
        if transfer.term == self.hard.term && self.role.leader().is_some() {
            return;
        }
        self.transfer = None;
        // The vote for the target, or its first word as leader, ended this leadership.
        let done = self.leader() == Some(transfer.to) || self.hard.vote == Some(transfer.to);
        match transfer.why {
            Why::Asked(id) if done => out.push(Output::Respond(Response::Done { id })),
            Why::Asked(id) => self.reject(id, Reject::LostLeadership, out),
            Why::Priority | Why::Stall => {}
        }
    }

    /// A tick of a leader, as far as giving the leadership up is concerned.
    pub(crate) fn tend_leadership(&mut self, out: &mut Vec<Output>) -> Option<Transition> {
        let timeout = u64::from(self.config.election_ticks);
        if let Some(transfer) = self.transfer {
            if self.now - transfer.began < timeout {
                self.ask_target(out);
                return None;
            }
            self.transfer = None;
            match transfer.why {
                Why::Asked(id) => self.reject(id, Reject::TransferTimedOut, out),
                Why::Priority => {}
                // Whoever was asked did not come. If enough others could lead, one of them will.
                Why::Stall if self.is_stalled() && self.others_can_lead() => {
                    return Some(self.resign(out));
                }
                Why::Stall => {}
            }
        }
        if self.is_stalled() && !self.plants.has(Plant::KeepsStalledOffice) {
            if let Some(to) = self.best_voter(|_| true) {
                self.begin_transfer(to, Why::Stall, out);
            }
            return None;
        }
        self.prefer(out);
        None
    }

    /// Hands over to a voter that wants to lead more than this node.
    fn prefer(&mut self, out: &mut Vec<Output>) {
        let timeout = u64::from(self.config.election_ticks);
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let (_, settled) = self.membership_summary();
        let undisturbed = self.now - leader.since >= timeout
            && self.has_committed_own_term()
            && settled
            && !self.memberships.active().is_joint();
        if !undisturbed || self.now < self.reluctance.not_before {
            return;
        }
        let (now, ticks, own) = (self.now, self.config.election_ticks, self.config.priority);
        let wants = |p: &Progress| p.health.priority > own && p.is_caught_up(now, ticks);
        let Some(to) = self.best_voter(wants) else {
            return;
        };
        // This node leads and has handed over before, not long ago: whoever was asked did not keep it.
        let lately = now < self.reluctance.not_before + self.reluctance.pause * timeout;
        let pause = if lately { self.reluctance.pause } else { 0 };
        let pause = (2 * pause).clamp(2, PAUSE_MAX);
        self.reluctance = Reluctance {
            not_before: now + pause * timeout,
            pause,
        };
        self.begin_transfer(to, Why::Priority, out);
    }

    /// The voter that should lead next: one that shall stay a voter, is in touch and healthy and
    /// `suits`; the one that wants to most, then the one that holds most.
    fn best_voter(&self, suits: impl Fn(&Progress) -> bool) -> Option<NodeId> {
        let (now, ticks) = (self.now, self.config.election_ticks);
        let leader = self.role.leader()?;
        (self.memberships.active().incoming())
            .filter_map(|id| Some((id, leader.progress.get(&id)?)))
            .filter(|(_, peer)| peer.is_live(now, ticks) && !peer.health.impaired && suits(peer))
            .max_by_key(|(id, peer)| (peer.health.priority, peer.matched, core::cmp::Reverse(*id)))
            .map(|(id, _)| id)
    }

    /// Could the other voters elect one of them?
    fn others_can_lead(&self) -> bool {
        let (now, ticks) = (self.now, self.config.election_ticks);
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let able = (leader.progress.iter())
            .filter(|(_, peer)| peer.is_live(now, ticks) && !peer.health.impaired)
            .map(|(id, _)| *id);
        self.memberships.active().is_quorum(able)
    }

    /// Is a write of this node under way for too long?
    pub(crate) fn is_stalled(&self) -> bool {
        let bound = self.config.stall_ticks.map(u64::from);
        bound.is_some_and(|bound| self.pace.oldest(self.now) > bound)
    }

    /// What this node tells its leader of itself.
    pub(crate) fn health(&self) -> Health {
        Health {
            priority: self.config.priority,
            impaired: self.is_stalled() || self.damage.is_some(),
        }
    }

    /// A follower forgets its leader. Where leases are on it must not: it may have promised itself.
    pub(crate) fn on_forget_leader(&mut self) -> Option<Transition> {
        let term = self.hard.term;
        let follows = matches!(&self.role, Role::Follower(follower) if follower.leader.is_some());
        (follows && self.config.lease.is_none())
            .then_some(Transition::Follow { term, leader: None })
    }
}
