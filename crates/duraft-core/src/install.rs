//! Installing a snapshot that a leader has sent.
//!
//! The file is whole, verified and durable before the core hears of it; the transfer speaks for its
//! leader as an append does. What becomes of it is decided when the write is made (RULES.md 21):
//!
//! | the snapshot ends | then |
//! |---|---|
//! | at or below this node's commit | it is ignored; the leader is told how far this node is |
//! | at a boundary of this log, equal in term and digest | it is committed up to there; the front is dropped, what follows stays |
//! | at the same (term, index) with another digest | divergence |
//! | anywhere else | the log is replaced: it begins and ends at the snapshot |
//!
//! In memory that holds at once. The acknowledgement waits until it is durable, and so does the word
//! to the state machine: one that keeps its own disk must not run ahead of the log. Everything handed
//! over before is void from then on, and so are loads: their ids are forgotten.

use crate::io::{Output, SnapshotWrite};
use crate::log::Boundary;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::snapshot::Snapshot;
use crate::types::{Index, NodeId, Term, WriteSeq};
use alloc::vec::Vec;

/// A snapshot that the log begins with and that is not in the state machine yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Install {
    /// The snapshot; the log begins at its position.
    pub(crate) snapshot: Snapshot,
    /// The boundary there.
    pub(crate) at: Boundary,
    /// The write that records it, once it is issued.
    pub(crate) seq: Option<WriteSeq>,
    /// The host was told to restore it.
    pub(crate) told: bool,
    /// What the state machine holds until then.
    pub(crate) applied: Index,
    /// What it was given until then.
    pub(crate) handed: Index,
}

impl Raft {
    /// A snapshot sent by `from`, which led `term`, is durable here as a file.
    pub(crate) fn on_snapshot_received(
        &mut self,
        from: NodeId,
        term: Term,
        snapshot: Snapshot,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        let position = snapshot.position;
        let sound = position.term() <= term
            && position.index() > Index(0)
            && position.index().0.checked_add(2).is_some()
            && !snapshot.membership.is_unknown()
            && from != self.me.id;
        if !sound {
            return None;
        }
        if !self.disk_has_room() || term > self.hard.term && self.is_flooded() {
            return None;
        }
        // Only a leader sends one: in a later term it is news, in this term it ends any campaign.
        let news = match &self.role {
            Role::Follower(follower) => follower.leader.is_none(),
            Role::PreCandidate(_) | Role::Candidate(_) => true,
            Role::Leader(_) => false,
        };
        if term > self.hard.term || (term == self.hard.term && news) {
            let leader = Some(from);
            let next = self.enter(Transition::Follow { term, leader }, out);
            assert!(next.is_none(), "following leads nowhere else");
        }
        // Not of the leader this node follows: sent in a term that is over, or to a node that leads
        // itself by now. Nothing is lost: this term's leader asks what this node holds.
        if term != self.hard.term || !self.follows(from) {
            return None;
        }
        self.elapsed = 0;
        if self.plants.has(Plant::InstallLowersTerm) && position.term() < self.hard.term {
            (self.hard.term, self.staged.hard_state) = (position.term(), true);
        }
        let lost = self.lacks_snapshot() && position.index() >= self.log.start().index();
        let backwards = self.plants.has(Plant::InstallsBackwards);
        if position.index() <= self.commit() && !lost && !backwards {
            // Committed here means: in the log of every later leader, this one's too.
            self.owe_accepted(self.commit);
            return None;
        }
        let replaces = backwards || self.plants.has(Plant::InstallDropsSuffix);
        match self.log.boundary_after(position.index()) {
            Some(_) if replaces => self.replace_log(snapshot),
            Some(at) if self.log.position(at) == position => self.keep_suffix(at, snapshot),
            Some(at) if self.log.position(at).id == position.id => {
                let ours = self.log.position(at);
                return self.on_divergence(from, (position, ours), false, out);
            }
            // Committed and different: what is lost is covered, but this log is not the leader's.
            Some(_) | None if position.index() <= self.commit() => {}
            Some(_) | None => self.replace_log(snapshot),
        }
        None
    }

    /// The leader is to be told that the log up to `at` is its own, once that is durable.
    fn owe_accepted(&mut self, at: Boundary) {
        self.verified = self.verified.max(at);
        let follower = self.role.follower_mut().expect("only followers install");
        follower.owed.accepted = follower.owed.accepted.max(Some(at));
    }

    /// The log holds what the snapshot covers: it begins there from now on.
    fn keep_suffix(&mut self, at: Boundary, snapshot: Snapshot) {
        self.begin_install(snapshot, at);
        if at > self.log.begin() {
            self.drop_front(at);
            self.staged.compact = Some(self.log.start());
        }
    }

    /// The log is another one, or shorter: it begins and ends at the snapshot from now on.
    fn replace_log(&mut self, snapshot: Snapshot) {
        let at = self.log.end().next();
        let membership = snapshot.membership.clone();
        let position = snapshot.position;
        self.begin_install(snapshot, at);
        self.log.reset(position);
        if let Some(damaged) = &mut self.damage {
            damaged.cut();
        }
        self.memberships.reset(position.index(), membership);
        assert_eq!(at, self.log.begin(), "the snapshot counts as one batch");
        let staged = self.staged.snapshot.as_mut().expect("staged just above");
        staged.reset = true;
        let follower = self.role.follower_mut().expect("only followers install");
        // What was asked of the old log is answered by the new one.
        follower.owed.rejected = None;
    }

    /// What holds however the log is changed. Called before it is.
    fn begin_install(&mut self, snapshot: Snapshot, at: Boundary) {
        let (applied, handed) = (self.applied(), self.handed());
        self.staged.snapshot = Some(SnapshotWrite {
            snapshot: snapshot.clone(),
            reset: false,
        });
        self.install = Some(Install {
            snapshot,
            at,
            seq: None,
            told: false,
            applied,
            handed,
        });
        self.snapshot_at = at;
        self.paging.snapshot = None;
        self.apply_load = None;
        self.fetches.forget_apply();
        self.unapplied_bytes = 0;
        self.commit = self.commit.max(at);
        self.unhanded_bytes = self.log.cost(at, self.commit);
        self.owe_accepted(at);
    }

    /// Tells the host to restore the snapshot, when its record is durable. Says whether batches may be
    /// handed over: not before.
    pub(crate) fn release_install(&mut self, out: &mut Vec<Output>) -> bool {
        let completed = self.disk.completed();
        let Some(install) = &mut self.install else {
            return true;
        };
        if install.told {
            return true;
        }
        let early = self.plants.has(Plant::RestoresEarly);
        if install.seq.is_none_or(|seq| seq > completed && !early) {
            return false;
        }
        install.told = true;
        if let Some(damaged) = &mut self.damage {
            damaged.snapshot_lost = false;
        }
        self.handed = install.at;
        if install.snapshot.position.index() <= self.machine {
            // A state machine that holds all that by itself has lost only its log.
            self.applied = install.at;
            self.install = None;
            return true;
        }
        out.push(Output::InstallSnapshot(install.snapshot.clone()));
        true
    }

    /// The state machine has applied up to `upto` while a snapshot is on its way into it. Says whether
    /// the report is about what came before, and so void.
    pub(crate) fn settles_install(&mut self, upto: Index) -> bool {
        let Some(install) = &self.install else {
            return false;
        };
        if upto < install.snapshot.position.index() || !install.told {
            return true;
        }
        self.applied = install.at;
        self.install = None;
        false
    }
}
