//! The parts a node plays. What means something only in one part lives in that part's variant, so
//! that it is gone, not stale, when the part ends.

use crate::divergence::Told;
use crate::io::{Fault, RoleKind};
use crate::lease::Lease;
use crate::log::Boundary;
use crate::membership::Membership;
use crate::progress::Progress;
use crate::types::{LogId, NodeId, Term};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

/// The part a node plays now.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Follows a leader, or waits for one.
    Follower(Follower),
    /// Asks whether a campaign could win; the ballot counts what others would do.
    PreCandidate(Ballot),
    /// Campaigns, or waits for the disk to be allowed to.
    Candidate(Candidate),
    /// Leads the current term.
    Leader(Leader),
}

impl Role {
    /// The part by name.
    pub(crate) fn kind(&self) -> RoleKind {
        match self {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// What only a leader has.
    pub(crate) fn leader(&self) -> Option<&Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// What only a leader has.
    pub(crate) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match self {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// What only a follower has.
    pub(crate) fn follower_mut(&mut self) -> Option<&mut Follower> {
        match self {
            Role::Follower(follower) => Some(follower),
            Role::Leader(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }
}

/// What a handler wants to become of this node. Only `Raft::step` carries it out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transition {
    /// Follow in `term`, which is this node's or a later one.
    Follow { term: Term, leader: Option<NodeId> },
    /// Follow whoever wins the present term; the vote went to `to` and the grant is owed.
    Grant { to: NodeId },
    /// Ask whether a campaign could win.
    PreCampaign,
    /// Campaign in the next term; `forced` because its leader has asked for it.
    Campaign { forced: bool },
    /// Lead the present term.
    Lead,
    /// Stop for good in this life.
    Halt(Fault),
}

/// Follows a leader or waits for one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Follower {
    /// The leader of the current term, once it has spoken.
    pub(crate) leader: Option<NodeId>,
    /// Answers that wait for the disk. They are gone with the term they were promised in.
    pub(crate) owed: Owed,
    /// The leader was told that everything up to here is durable.
    pub(crate) acked: Boundary,
    /// The leader was told that its log contradicts this one.
    pub(crate) diverged: Option<Told>,
}

/// Answers that wait for the disk: derived from the state when a completion comes in, never a queue
/// of messages, so at most one per kind and peer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Owed {
    /// The candidate this node voted for asked for the vote: answer when the vote is durable.
    pub(crate) grant: Option<NodeId>,
    /// These candidates were refused: answer when the term is durable.
    pub(crate) refusals: BTreeSet<NodeId>,
    /// The leader's last heartbeat round: answer when the term is durable.
    pub(crate) heartbeat: Option<u64>,
    /// The leader's append was verified up to here: acknowledge when that is durable.
    pub(crate) accepted: Option<Boundary>,
    /// The leader asked for this boundary, which is not here; the hint: answer when the term is durable.
    pub(crate) rejected: Option<(LogId, LogId)>,
}

impl Owed {
    /// Is nothing owed?
    pub(crate) fn is_empty(&self) -> bool {
        let Owed {
            grant,
            refusals,
            heartbeat,
            accepted,
            rejected,
        } = self;
        grant.is_none()
            && refusals.is_empty()
            && heartbeat.is_none()
            && accepted.is_none()
            && rejected.is_none()
    }
}

/// Answers to a (pre-)campaign. Sets, so that a repeated answer counts once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ballot {
    /// Said yes.
    pub(crate) granted: BTreeSet<NodeId>,
    /// Said no.
    pub(crate) refused: BTreeSet<NodeId>,
}

impl Ballot {
    /// Have enough voters agreed?
    pub(crate) fn is_won(&self, membership: &Membership) -> bool {
        membership.is_quorum(self.granted.iter().copied())
    }

    /// Can the voters that have not refused still decide?
    pub(crate) fn is_lost(&self, membership: &Membership) -> bool {
        let open = membership.voters().filter(|id| !self.refused.contains(id));
        !membership.is_quorum(open)
    }

    /// Counts an answer. The first word of a peer stands.
    pub(crate) fn count(&mut self, from: NodeId, granted: bool) {
        if granted && !self.refused.contains(&from) {
            self.granted.insert(from);
        } else if !granted && !self.granted.contains(&from) {
            self.refused.insert(from);
        }
    }
}

/// Campaigns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Candidate {
    /// What has been answered so far; the own vote enters when it is durable.
    pub(crate) ballot: Ballot,
    /// Term and own vote are durable: RequestVote has gone out, the own vote counts and the
    /// campaign's timer runs.
    pub(crate) asked: bool,
    /// The leader of the term before has asked for this campaign.
    pub(crate) forced: bool,
}

/// Leads.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// Every member but this node.
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    /// A batch says who votes, for those that have lost everything.
    pub(crate) published: bool,
    /// Where the log of this term begins: with the no-op.
    pub(crate) term_begin: Boundary,
    /// Cost of the batches that are not committed.
    pub(crate) uncommitted_bytes: u64,
    /// The last heartbeat round.
    pub(crate) round: u64,
    /// Ticks since the timer last began one.
    pub(crate) heartbeat_elapsed: u32,
    /// The last few rounds that the timer began, oldest first.
    pub(crate) beats: VecDeque<u64>,
    /// Tick at which this leadership began.
    pub(crate) since: u64,
    /// The rounds a lease may count from.
    pub(crate) lease: Lease,
    /// Tick at which a quorum last answered a round.
    pub(crate) confirmed_at: u64,
}
