//! Changing the membership (thesis, chapter 4).
//!
//! Who is a member stands in the log, in batches of their own kind, and the last one **in the log** is
//! in use on each node, committed or not. A change of voters goes through a joint membership, so that
//! any quorum before, during and after shares a voter with every other one:
//!
//! ```text
//!  .. C_old ..  | C_old,new appended | .. committed: whoever leads appends | C_new committed: who is
//!               | both must agree    |    C_new; it alone must agree       | left out stops leading
//! ```
//!
//! What keeps two quorums from missing each other:
//! - one change at a time: refused while joint, and while the membership in use is not committed;
//! - not before this leader has committed an entry of its own term: the batch of an earlier leader's
//!   change could come back (Ongaro 2015, the single-server change bug);
//! - a cut brings the membership before it back at once, in memory as on disk.
//!
//! The joint membership is left exactly once, because leaving it appends the next one, which is then in
//! use and not joint.
//!
//! A node that is no voter does not campaign, once it knows that to be committed. Until then a leader
//! may lead without being a voter, and a voter that is to be none may still be elected: it does not count
//! itself, as no quorum asks for it, and stops when the batch that leaves it out is committed.

use crate::batch::{Batch, BatchKind, Body, BodyError};
use crate::crc::crc32;
use crate::io::{Output, Reject, Response};
use crate::membership::{Leave, MemberChange, Membership};
use crate::plant::Plant;
use crate::progress::Progress;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Index, LogId, NodeId, ProposalId};
use alloc::vec::Vec;
use bytes::Bytes;

/// Whoever has left is told so for this many election timeouts at most.
const FAREWELL_TIMEOUTS: u64 = 4;

/// Can this batch be followed? A membership batch must hold a membership: skipping one that does not
/// would let this node decide with other quorums than its leader.
pub(crate) fn is_usable(batch: &Batch) -> bool {
    match batch.header.kind {
        BatchKind::Commands | BatchKind::Noop => true,
        BatchKind::Membership => {
            Membership::decode(&batch.body).is_ok_and(|membership| !membership.is_unknown())
        }
    }
}

impl Raft {
    /// A batch now stands at the end of the log. If it holds a membership, that is in use from here on.
    pub(crate) fn adopt_membership(&mut self, batch: &Batch) {
        if batch.header.kind == BatchKind::Membership {
            let membership = Membership::decode(&batch.body).expect("is_usable has decoded it");
            self.adopt(batch.header.first, membership);
        }
    }

    fn adopt(&mut self, at: Index, membership: Membership) {
        let direct = (membership.left()).filter(|_| self.plants.has(Plant::NoJoint));
        self.memberships.adopt(at, direct.unwrap_or(membership));
    }

    /// The log was cut: what is in use is the last membership that is left in it.
    pub(crate) fn roll_back_memberships(&mut self) {
        if !self.plants.has(Plant::NoRollback) {
            self.memberships.truncate(self.log.last().index());
        }
    }

    /// The membership in use: since when, and whether it can still be rolled back.
    pub(crate) fn membership_summary(&self) -> (Index, bool) {
        let since = self.memberships.since();
        (since, since <= self.commit())
    }

    /// A client wants another membership.
    pub(crate) fn on_change_membership(
        &mut self,
        id: ProposalId,
        changes: &[MemberChange],
        leave: Leave,
        out: &mut Vec<Output>,
    ) {
        let next = match self.refuses_change() {
            Some(reason) => Err(reason),
            None if self.memberships.active().is_joint() => Err(Reject::MembershipInFlight),
            None => (self.memberships.active().change(changes, leave)).map_err(Reject::Change),
        };
        self.answer_change(id, next, out);
    }

    /// A client wants a joint membership to end.
    pub(crate) fn on_leave_joint(&mut self, id: ProposalId, out: &mut Vec<Output>) {
        let active = self.memberships.active();
        let next = match (self.refuses_change(), active.leave()) {
            (Some(reason), _) => Err(reason),
            (None, None) => Err(Reject::NotJoint),
            // Whoever leads ends it already.
            (None, Some(Leave::Automatic)) => Err(Reject::MembershipInFlight),
            (None, Some(Leave::Explicit)) => active.left().ok_or(Reject::NotJoint),
        };
        self.answer_change(id, next, out);
    }

    fn answer_change(
        &mut self,
        id: ProposalId,
        next: Result<Membership, Reject>,
        out: &mut Vec<Output>,
    ) {
        match next.and_then(|next| self.append_membership(next)) {
            Ok(first) => {
                out.push(Output::Respond(Response::Appended {
                    id,
                    first,
                    count: 1,
                }));
                self.replicate_to_all(out);
            }
            Err(reason) => self.reject(id, reason, out),
        }
    }

    /// Why no membership batch may be appended now, if none may.
    pub(crate) fn refuses_change(&self) -> Option<Reject> {
        let Role::Leader(leader) = &self.role else {
            return Some(Reject::NotLeader);
        };
        if self.transfer.is_some() {
            return Some(Reject::TransferInProgress);
        }
        let early = self.plants.has(Plant::ChangeBeforeTerm);
        if self.commit <= leader.term_begin && !early {
            return Some(Reject::NotYetCommittedInTerm);
        }
        let overlap = self.plants.has(Plant::ChangesOverlap);
        if self.memberships.since() > self.commit() && !overlap {
            return Some(Reject::MembershipInFlight);
        }
        None
    }

    /// Puts a membership into the log. It is in use at once, here first.
    pub(crate) fn append_membership(&mut self, next: Membership) -> Result<LogId, Reject> {
        let bytes = Bytes::from(next.encode());
        if bytes.len() as u64 > u64::from(self.config.max_batch_bytes) {
            return Err(Reject::TooLarge);
        }
        let body = Body {
            kind: BatchKind::Membership,
            codec: 0,
            count: 1,
            checksum: crc32(&bytes),
            bytes,
        };
        let batch = body
            .seal(self.me.group, &self.log.last(), self.hard.term)
            .map_err(|error| match error {
                BodyError::IndexExhausted => Reject::IndexExhausted,
                BodyError::TooLong { .. } => Reject::TooLarge,
                BodyError::Count { .. } | BodyError::Offsets => Reject::Malformed,
            })?;
        let at = batch.header.last_id();
        self.append_own(batch);
        self.adopt(at.index, next);
        self.track_members();
        Ok(at)
    }

    /// A leader tracks every member but itself, and for a while those who are none any more: until they
    /// have heard of it, or time is up. They count for nothing, as no quorum asks for them; but a node
    /// that knows that it was removed does not campaign.
    fn track_members(&mut self) {
        let (end, now) = (self.log.end(), self.now);
        let until = now + FAREWELL_TIMEOUTS * u64::from(self.config.election_ticks);
        let active = self.memberships.active();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        for (peer, progress) in &mut leader.progress {
            if active.contains(*peer) {
                progress.departs = None;
            } else {
                progress.departs = progress.departs.or(Some(until));
            }
        }
        for peer in active.members().filter(|peer| *peer != self.me.id) {
            (leader.progress.entry(peer)).or_insert_with(|| Progress::new(end, now));
        }
    }

    /// A tick of a leader, as far as members are concerned.
    pub(crate) fn tend_members(&mut self, out: &mut Vec<Output>) {
        let (now, end) = (self.now, self.log.end());
        let election_ticks = self.config.election_ticks;
        let since = self.memberships.since();
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.progress.retain(|_, progress| {
            let told = (self.log).position_in(progress.matched.min(progress.commit_told));
            let knows = told.is_some_and(|told| told.index() >= since);
            (progress.departs).is_none_or(|until| now < until && !knows)
        });
        for progress in leader.progress.values_mut() {
            (progress.catch_up).advance(progress.matched, end, now, election_ticks);
        }
        self.leave_joint(out);
        self.promote(out);
    }

    /// Ends a joint membership that is committed and wants no asking for.
    pub(crate) fn leave_joint(&mut self, out: &mut Vec<Output>) {
        let active = self.memberships.active();
        if active.leave() != Some(Leave::Automatic) || self.refuses_change().is_some() {
            return;
        }
        if let Some(next) = active.left()
            && self.append_membership(next).is_ok()
        {
            self.replicate_to_all(out);
        }
    }

    /// Makes a voter of the first learner that has caught up and is to become one, in the place of the
    /// voter it replaces, if any. One at a time: each is a change of its own.
    fn promote(&mut self, out: &mut Vec<Output>) {
        let active = self.memberships.active();
        if active.is_joint() || self.refuses_change().is_some() {
            return;
        }
        let Some((learner, replaced)) =
            (active.promotions()).find(|(learner, _)| self.is_caught_up(*learner))
        else {
            return;
        };
        let mut changes = Vec::with_capacity(2);
        changes.push(MemberChange::AddVoter(learner));
        changes.extend(replaced.map(MemberChange::Remove));
        let next = active.change(&changes, Leave::Automatic);
        if let Ok(next) = next
            && self.append_membership(next).is_ok()
        {
            self.replicate_to_all(out);
        }
    }

    /// Does this leader think that the peer keeps up?
    pub(crate) fn is_caught_up(&self, peer: NodeId) -> bool {
        let progress = (self.role.leader()).and_then(|leader| leader.progress.get(&peer));
        progress.is_some_and(|progress| progress.is_caught_up(self.now, self.config.election_ticks))
    }

    /// May this node stand for election? A voter may; and, as long as it does not know that the
    /// membership without it is committed, whoever was one before: it may be the only one with a log
    /// that can win (thesis 4.2.2). Its own vote counts for nothing then, as no quorum asks for it.
    pub(crate) fn may_stand(&self) -> bool {
        let (since, committed) = self.membership_summary();
        let votes = |membership: &Membership| membership.is_voter(self.me.id);
        votes(self.memberships.active())
            || (!committed
                && !self.plants.has(Plant::OnlyVotersStand)
                && votes(self.memberships.at(since.previous())))
    }

    /// Is a membership committed in which this node does not vote? A joint one that has it among the
    /// outgoing voters is not: this node must still see it through.
    pub(crate) fn is_removed(&self) -> bool {
        let (_, committed) = self.membership_summary();
        committed && !self.memberships.active().is_voter(self.me.id)
    }
}
