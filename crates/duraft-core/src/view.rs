//! What may be read of a [`Raft`] from outside.

use crate::batch::BatchHeader;
use crate::config::Config;
use crate::digest::mix64;
use crate::io::{Fault, RoleKind};
use crate::log::Boundary;
use crate::membership::Membership;
use crate::message::Health;
use crate::progress::Stage;
use crate::raft::Raft;
use crate::role::Role;
use crate::snapshot::Snapshot;
use crate::types::{HardState, Incarnation, Index, LogId, NodeId, Position, Term, WriteSeq};

/// How a leader replicates to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Looking for the last common boundary, one question at a time.
    Probe,
    /// Sending ahead within the in-flight window.
    Replicate,
    /// A snapshot is on its way.
    Snapshot,
}

/// What a leader knows of one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgressView {
    /// How the leader replicates to the peer.
    pub phase: Phase,
    /// Everything up to this batch end is durable on the peer.
    pub matched: Index,
    /// First index of the next batch to send.
    pub next: Index,
    /// Appends sent and not answered.
    pub inflight_messages: usize,
    /// Bytes of batches in them.
    pub inflight_bytes: u64,
    /// Entries of this leader's log that the peer is not known to hold.
    pub lag: u64,
    /// What it last said of itself.
    pub health: Health,
    /// It would keep up as a voter; a learner that is to be promoted is promoted then.
    pub caught_up: bool,
}

/// The state of a node at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The part this node plays now.
    pub role: RoleKind,
    /// The current term, durable or not.
    pub term: Term,
    /// The leader of the term, where known.
    pub leader: Option<NodeId>,
    /// Everything up to this batch end is committed.
    pub commit: Index,
    /// Everything up to this batch end has been reported applied.
    pub applied: Index,
    /// Everything of the current log up to this batch end survives a crash.
    pub durable: Index,
    /// The last entry of the log.
    pub last: LogId,
    /// What is lost of this node's log, and what it waits for to be whole again.
    pub damage: Option<DamageStatus>,
    /// Why this node has stopped for good, if it has.
    pub halted: Option<Fault>,
}

/// What a damaged node has lost, and why it is not whole yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamageStatus {
    /// The first missing range of indices.
    pub missing: Option<(Index, Index)>,
    /// Entries after the last known one may be lost, acknowledged ones among them.
    pub lost_suffix: bool,
    /// A later term or vote may be lost.
    pub vote_uncertain: bool,
    /// The snapshot that the log begins with is lost.
    pub snapshot_lost: bool,
    /// What is waited for first.
    pub waits_for: Awaited,
}

/// What a damaged node waits for. If it does not come, because too many nodes are down or damaged
/// themselves, only the operator can decide what is lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Awaited {
    /// There is nobody to ask: no other voter is known.
    Operator,
    /// The terms of so many other voters.
    Terms {
        /// Voters that have not answered in this life.
        missing: usize,
    },
    /// Somebody who holds what the gap has lost.
    Batches,
    /// A leader, and everything it holds.
    Leader,
    /// A leader's snapshot.
    Snapshot,
    /// This node's own disk, which writes down that it is whole.
    Disk,
}

/// What drivers, tests and metrics read. Nothing here changes anything.
impl Raft {
    /// This node.
    pub fn id(&self) -> NodeId {
        self.me.id
    }

    /// The configuration this core was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This life's number.
    pub fn incarnation(&self) -> Incarnation {
        self.me.incarnation
    }

    /// The state at a glance.
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            term: self.term(),
            leader: self.leader(),
            commit: self.commit(),
            applied: self.applied(),
            durable: self.durable(),
            last: self.last().id,
            damage: self.damage_status(),
            halted: self.halted(),
        }
    }

    /// What is lost of this node's log, if anything is.
    pub fn damage_status(&self) -> Option<DamageStatus> {
        self.damage
            .as_ref()
            .map(|damaged| self.describe_damage(damaged))
    }

    /// The part this node plays now.
    pub fn role(&self) -> RoleKind {
        self.role.kind()
    }

    /// The current term, durable or not.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The vote in the current term, durable or not.
    pub fn vote(&self) -> Option<NodeId> {
        self.hard.vote
    }

    /// The term and vote that survive a crash now.
    pub fn durable_hard_state(&self) -> HardState {
        self.disk.hard_state()
    }

    /// Everything up to this batch end is committed. A follower may know so before its own copy is
    /// durable; it applies later then.
    pub fn commit(&self) -> Index {
        self.log.index(self.commit)
    }

    /// Everything up to this batch end has been reported applied.
    pub fn applied(&self) -> Index {
        match &self.install {
            Some(install) => install.applied,
            None => self.log.index(self.applied),
        }
    }

    /// Everything up to this batch end was given to the state machine.
    pub fn handed(&self) -> Index {
        match &self.install {
            Some(install) if !install.told => install.handed,
            Some(_) | None => self.log.index(self.handed),
        }
    }

    /// Everything of the current log up to this batch end survives a crash. Nothing of it does while
    /// the snapshot that has replaced the log is on its way to the disk: then this is 0.
    pub fn durable(&self) -> Index {
        let durable = self.log.position_in(self.disk.log());
        durable.map_or(Index(0), |position| position.index())
    }

    /// Everything up to this batch end was compared with the log of this term's leader.
    pub fn verified(&self) -> Index {
        let verified = self.log.position_in(self.verified);
        verified.map_or(Index(0), |position| position.index())
    }

    /// The latest snapshot of this node. Its record may still be on its way to the disk.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The end of the log.
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The boundary before the first batch of the log.
    pub fn start(&self) -> Position {
        self.log.start()
    }

    /// The leader of the current term, where known; this node if it leads.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.me.id),
        }
    }

    /// The membership in use at an index of this log: for a snapshot that ends there.
    pub fn membership_at(&self, index: Index) -> &Membership {
        self.memberships.at(index)
    }

    /// The least ticks without a leader after which this node campaigns: the configured timeout, or more
    /// where its own disk has been slow (RULES.md 11). Each wait is drawn from here to twice as much.
    pub fn election_timeout_ticks(&self) -> u32 {
        self.election_span()
    }

    /// Ticks until this node campaigns, if it may and no leader speaks. A wait that was drawn while its
    /// disk was slow may be longer than one that is drawn now. Without meaning for a leader.
    pub fn campaigns_in_ticks(&self) -> u32 {
        self.timeout.saturating_sub(self.elapsed)
    }

    /// Index of the batch that set the membership in use, or where the log starts.
    pub fn membership_since(&self) -> Index {
        self.memberships.since()
    }

    /// Is a membership change under way: joint, or not committed?
    pub fn is_membership_in_flight(&self) -> bool {
        self.memberships.active().is_joint() || self.membership_since() > self.commit()
    }

    /// The membership in use: the last one in the log.
    pub fn membership(&self) -> &Membership {
        self.memberships.active()
    }

    /// The boundary from which on the headers of the log are in memory. Everything before it was applied.
    pub fn shape_start(&self) -> Position {
        self.log.solid()
    }

    /// Bytes that the shape of the log takes in memory (RULES.md 25).
    pub fn shape_bytes(&self) -> u64 {
        self.log.shape_bytes()
    }

    /// Headers of the batches of the log that are in memory, in order.
    pub fn headers(
        &self,
    ) -> impl ExactSizeIterator<Item = &BatchHeader> + DoubleEndedIterator + '_ {
        self.log.headers().iter()
    }

    /// The batch that ends at `index`, if one does.
    pub fn header_ending_at(&self, index: Index) -> Option<&BatchHeader> {
        self.log.header(self.log.boundary_after(index)?.previous()?)
    }

    /// Peers that answer heartbeats and from whose log an answer is outstanding for a long time: their
    /// connection for bulk data may be dead (RULES.md 12). Empty unless this node leads.
    pub fn stalled_peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let (now, election_ticks) = (self.now, self.config.election_ticks);
        let progress = self.role.leader().into_iter().flat_map(|l| &l.progress);
        progress
            .filter(move |(_, peer)| {
                let heard = now - peer.heard < u64::from(election_ticks);
                heard && peer.is_waiting() && peer.is_stalled(now, election_ticks)
            })
            .map(|(id, _)| *id)
    }

    /// What this leader knows of a peer; `None` on other roles and for strangers.
    pub fn progress(&self, peer: NodeId) -> Option<ProgressView> {
        let progress = self.role.leader()?.progress.get(&peer)?;
        let (inflight_messages, inflight_bytes) = progress.inflight();
        Some(ProgressView {
            phase: match progress.stage {
                Stage::Probe { .. } => Phase::Probe,
                Stage::Replicate { .. } => Phase::Replicate,
                Stage::Snapshot { .. } => Phase::Snapshot,
            },
            matched: progress.matched_id.index,
            next: (self.log.position_in(progress.next))
                .unwrap_or(self.log.start())
                .index()
                .next(),
            inflight_messages,
            inflight_bytes,
            lag: (self.last().index().0).saturating_sub(progress.matched_id.index.0),
            health: progress.health,
            caught_up: self.is_caught_up(peer),
        })
    }

    /// The node this leader is handing over to, if it is.
    pub fn transfer_target(&self) -> Option<NodeId> {
        self.transfer.map(|transfer| transfer.to)
    }

    /// Reads that wait here: for a quorum on a leader, for the leader's answer on a follower.
    pub fn reads_waiting(&self) -> usize {
        let (led, forwarded) = self.reads.waiting();
        led + forwarded
    }

    /// Bytes proposed to this leader and not committed; `None` on other roles.
    pub fn uncommitted_bytes(&self) -> Option<u64> {
        Some(self.role.leader()?.uncommitted_bytes)
    }

    /// Why this node has stopped for good, if it has.
    pub fn halted(&self) -> Option<Fault> {
        self.halted
    }

    /// The last write that was issued; 0 if none was.
    pub fn last_issued(&self) -> WriteSeq {
        self.disk.issued()
    }

    /// The last write that is known to be durable; 0 if none is. Completions are cumulative, so all
    /// writes up to it are.
    pub fn last_durable(&self) -> WriteSeq {
        self.disk.completed()
    }

    /// Has this node nothing under way but the exchange with its peers?
    ///
    /// Is every issued write durable, every committed batch applied and no load outstanding?
    pub fn is_quiet(&self) -> bool {
        let loading = (self.role.leader())
            .is_some_and(|leader| leader.progress.values().any(|p| p.loading().is_some()));
        self.disk.completed() == self.disk.issued()
            && self.applied == self.commit
            && self.apply_load.is_none()
            && self.install.is_none()
            && self.paging.reading.is_none()
            && !loading
    }

    /// A number that changes with the state: equal states have equal fingerprints. Two runs from one
    /// seed are the same run if the fingerprints after each step are (I9). Different states may share
    /// one, as with any hash; the log enters by its digest.
    pub fn fingerprint(&self) -> u64 {
        let index = |at: Boundary| (self.log.position_in(at)).map_or(u64::MAX, |p| p.index().0);
        let mut sum = [
            self.me.id.0,
            self.me.incarnation.0,
            self.role() as u64,
            self.hard.term.0,
            self.hard.vote.map_or(0, |id| mix64(id.0)),
            self.log.start().digest.0,
            self.log.last().digest.0,
            index(self.disk.log()),
            self.disk.issued().0,
            self.disk.completed().0,
            index(self.commit),
            self.handed().0,
            self.applied().0,
            self.snapshot
                .as_ref()
                .map_or(0, |s| s.file.nonce ^ s.position.digest.0),
            index(self.verified),
            self.leader().map_or(0, |id| mix64(id.0)),
            u64::from(self.elapsed) << 32 | u64::from(self.timeout),
            self.now,
            self.next_load.0,
            u64::from(self.halted.is_some()),
            self.memberships.since().0,
            self.promised,
            self.reads.question(),
            self.reads.waiting().0 as u64,
            self.reads.waiting().1 as u64,
            self.transfer.map_or(0, |transfer| mix64(transfer.to.0)),
            self.pace.oldest(self.now),
        ]
        .into_iter()
        .fold(0, |sum, word| mix64(sum ^ word));
        if let Some(leader) = self.role.leader() {
            sum = mix64(sum ^ leader.round);
            for (id, progress) in &leader.progress {
                let (messages, bytes) = progress.inflight();
                for word in [
                    id.0,
                    index(progress.matched),
                    index(progress.next),
                    messages as u64,
                    bytes,
                    progress.heard,
                    progress.answered,
                    progress.moved,
                ] {
                    sum = mix64(sum ^ word);
                }
            }
        }
        sum
    }
}
