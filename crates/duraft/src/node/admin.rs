//! Snapshots, membership and leadership.

use super::Node;
use crate::driver::Admin;
use crate::outcome::{Outcome, RequestError, UnknownReason};
use crate::responder::{Pending, ProposeFuture, Responder};
use crate::status::SnapshotStatus;
use duraft_core::{Leave, MemberChange, NodeId, Promotion};
use std::time::{Duration, Instant};

impl Node {
    /// Takes a snapshot of what this node has applied, besides those that the options ask for.
    /// Answered when its file is durable; the log counts on it soon after.
    ///
    /// Cancel safety: dropping the future changes nothing; the snapshot is taken.
    pub fn snapshot(&self) -> Pending<SnapshotStatus> {
        let (responder, future) = Responder::future();
        if let Some(responder) = self.admit(responder) {
            self.shared().take_snapshot(responder);
        }
        future
    }

    /// As [`Node::snapshot`]; blocks until it is answered or `timeout` has passed.
    pub fn snapshot_wait(&self, timeout: Duration) -> Result<SnapshotStatus, RequestError> {
        self.snapshot().wait(timeout)
    }

    /// Changes the membership, all of `changes` at once, at the leader. Answered when the change is
    /// committed: where voters change, the joint membership is in force then, and is left by itself
    /// soon after. New members need [`Node::set_peer_address`] on every member, and a store made
    /// by [`Node::bootstrap_joining`].
    ///
    /// Cancel safety: dropping the future changes nothing; the change goes on.
    pub fn change_membership(&self, changes: Vec<MemberChange>) -> ProposeFuture {
        self.change_membership_leaving(changes, Leave::Automatic)
    }

    /// As [`Node::change_membership`]; blocks as [`Node::propose_wait`].
    pub fn change_membership_wait(&self, changes: Vec<MemberChange>, timeout: Duration) -> Outcome {
        self.change_membership_leaving_wait(changes, Leave::Automatic, timeout)
    }

    /// As [`Node::change_membership`], with a choice of how a joint membership is left.
    ///
    /// Cancel safety: dropping the future changes nothing; the change goes on.
    pub fn change_membership_leaving(
        &self,
        changes: Vec<MemberChange>,
        leave: Leave,
    ) -> ProposeFuture {
        let (responder, future) = Responder::future();
        self.change(changes, leave, self.deadline(), responder);
        future
    }

    /// As [`Node::change_membership_leaving`]; blocks as [`Node::propose_wait`].
    pub fn change_membership_leaving_wait(
        &self,
        changes: Vec<MemberChange>,
        leave: Leave,
        timeout: Duration,
    ) -> Outcome {
        self.wait(timeout, |deadline, responder| {
            self.change(changes, leave, deadline, responder);
        })
    }

    fn change(
        &self,
        changes: Vec<MemberChange>,
        leave: Leave,
        deadline: Option<u64>,
        responder: Responder,
    ) {
        self.administer(responder, |responder| Admin::Change {
            changes,
            leave,
            deadline,
            responder,
        });
    }

    /// Leaves a joint membership whose change asked for [`Leave::Explicit`].
    ///
    /// Cancel safety: dropping the future changes nothing; the membership is left.
    pub fn leave_joint(&self) -> ProposeFuture {
        let (responder, future) = Responder::future();
        self.leave(self.deadline(), responder);
        future
    }

    /// As [`Node::leave_joint`]; blocks as [`Node::propose_wait`].
    pub fn leave_joint_wait(&self, timeout: Duration) -> Outcome {
        self.wait(timeout, |deadline, responder| {
            self.leave(deadline, responder);
        })
    }

    fn leave(&self, deadline: Option<u64>, responder: Responder) {
        self.administer(responder, |responder| Admin::LeaveJoint {
            deadline,
            responder,
        });
    }

    /// Replaces a voter by another node, as one operation that survives changes of the leader: the
    /// new node learns, and when it has caught up whoever leads makes it a voter in the place of the
    /// old one. Answered when that plan is committed; [`Node::replace_wait`] waits for the end.
    ///
    /// Cancel safety: dropping the future changes nothing; the replacement goes on.
    pub fn replace(&self, old: NodeId, new: NodeId) -> ProposeFuture {
        self.change_membership(vec![MemberChange::AddLearner {
            id: new,
            promotion: Promotion::WhenCaughtUp {
                replacing: Some(old),
            },
        }])
    }

    /// As [`Node::replace`]; blocks until the new node votes and the old one does not, as this node
    /// knows it. An unknown outcome means that it goes on.
    pub fn replace_wait(
        &self,
        old: NodeId,
        new: NodeId,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        let until = Instant::now() + timeout;
        self.replace(old, new).wait_until(until)?;
        let left = until.saturating_duration_since(Instant::now());
        let done = self.wait_for(left, |status| {
            let membership = &status.membership;
            membership.is_voter(new) && !membership.contains(old) && !membership.is_joint()
        });
        done.map(drop).ok_or(RequestError::OutcomeUnknown {
            why: UnknownReason::Deadline,
        })
    }

    /// Hands leadership to another voter: this node takes no commands until the other has caught up
    /// and campaigns. Answered when this node does not lead any more.
    ///
    /// Cancel safety: dropping the future changes nothing; the transfer goes on.
    pub fn transfer_leadership(&self, to: NodeId) -> Pending<()> {
        let (responder, future) = Responder::future();
        self.administer(responder, |responder| Admin::Transfer { to, responder });
        future
    }

    /// As [`Node::transfer_leadership`]; blocks until it is answered or `timeout` has passed.
    pub fn transfer_leadership_wait(
        &self,
        to: NodeId,
        timeout: Duration,
    ) -> Result<(), RequestError> {
        self.transfer_leadership(to).wait(timeout)
    }

    /// Gives leadership up, whoever comes next.
    ///
    /// Cancel safety: dropping the future changes nothing; leadership is given up.
    pub fn step_down(&self) -> Pending<()> {
        let (responder, future) = Responder::future();
        self.administer(responder, |responder| Admin::StepDown { responder });
        future
    }

    /// As [`Node::step_down`]; blocks until it is answered or `timeout` has passed.
    pub fn step_down_wait(&self, timeout: Duration) -> Result<(), RequestError> {
        self.step_down().wait(timeout)
    }

    /// Tells the transport where a peer can be reached from now on; `None`: nowhere any more.
    pub fn set_peer_address(
        &self,
        peer: NodeId,
        address: Option<String>,
    ) -> Result<(), RequestError> {
        self.runtime.set_peer_address(peer, address)
    }
}
