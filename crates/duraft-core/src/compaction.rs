//! Dropping the front of the log, which a snapshot covers.
//!
//! The host takes snapshots when it sees fit. Each durable one leads to one write that records it and
//! drops what is not needed any more. Kept are:
//! - `trailing_bytes_max` bytes of batches behind the snapshot, for peers that are a little late;
//! - what a peer that is moving still needs (`sending.rs`): what follows the snapshot on its way there,
//!   or what follows its match. Otherwise a slow transfer would end with a peer that needs the next
//!   one, for ever (hashicorp/raft 697). A peer so slow that more than twice the snapshot's own size
//!   would have to be kept for it is given up: it cannot catch up, and the disk is finite.
//!
//! Nothing is dropped that this node has not applied, as the snapshot is of its own state machine.

use crate::io::{Fault, Output, SnapshotWrite};
use crate::log::Boundary;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::sending::needs_from;
use crate::snapshot::Snapshot;
use alloc::vec::Vec;

impl Raft {
    /// The host has a durable snapshot of this node's state machine.
    pub(crate) fn on_snapshot_taken(
        &mut self,
        snapshot: Snapshot,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        let index = snapshot.position.index();
        // Another one has replaced the log or come first meanwhile: this one is of no use any more.
        let known = self.snapshot.as_ref().map(|known| known.position.index());
        if index <= self.log.start().index() || known.is_some_and(|known| index <= known) {
            return None;
        }
        // A node that has joined does not know who the members were before the batch that first told
        // it. With such a snapshot nobody could go on.
        if snapshot.membership.is_unknown() {
            return None;
        }
        // It was long in the making: where it stands must be read back first.
        if self.needs_page_at(index, out) {
            self.paging.snapshot = Some(snapshot);
            return None;
        }
        let at = self.log.boundary_after(index);
        let own = at.filter(|at| {
            *at <= self.applied
                && self.log.position(*at) == snapshot.position
                && self.install.is_none()
        });
        if !self.staged.is_empty() {
            // The first step of a life that has to write something else; the next snapshot comes.
            return None;
        }
        let Some(at) = own else {
            // A state that this node has not reported applied cannot have been taken here, but before
            // the log was replaced, or by a state machine that holds more than what is left of the log.
            let known = self.install.is_some() || index <= self.machine;
            return (!known).then_some(Transition::Halt(Fault::UnknownCompletion));
        };
        let cut = self.keeps_from(at, snapshot.file.bytes);
        if cut > self.log.begin() {
            self.drop_front(cut);
            self.staged.compact = Some(self.log.start());
        }
        self.snapshot_at = at;
        self.staged.snapshot = Some(SnapshotWrite {
            snapshot,
            reset: false,
        });
        None
    }

    /// The log begins at `cut` from now on, in memory as in what is written next.
    pub(crate) fn drop_front(&mut self, cut: Boundary) {
        self.log.compact(cut);
        let start = self.log.start().index();
        self.memberships.compact(start);
        // What is before the start is committed, so every leader's log holds it.
        self.verified = self.verified.max(cut);
    }

    /// The boundary from which on the log is kept when a snapshot of `bytes` covers it up to `at`.
    fn keeps_from(&self, at: Boundary, bytes: u64) -> Boundary {
        let trailing = self.config.trailing_bytes_max;
        let ticks = self.config.election_ticks;
        let needed = match &self.role {
            Role::Leader(leader) => (leader.progress.values())
                .filter_map(|progress| needs_from(progress, self.now, ticks))
                .filter(|from| *from >= self.log.begin())
                .min(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        let usual = self.log.back_from(at, trailing);
        let most = trailing.saturating_add(bytes.saturating_mul(2));
        let limit = self.log.back_from(at, most);
        match needed {
            // The log can begin only where it is known what came before.
            Some(needed) if needed >= limit => usual.min(self.log.known(needed)),
            Some(_) | None => usual,
        }
    }
}
