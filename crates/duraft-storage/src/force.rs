//! Recovery of a cluster that has lost its quorum for good, by hand.
//!
//! A majority of the voters is gone and will not come back, so nobody can be elected and nothing
//! committed. One survivor is made the beginning of a new cluster: its log, as far as it goes, and
//! a membership that names only nodes that live. Nobody votes on that; a person decides it.
//!
//! What it can cost:
//! - entries that the lost voters had acknowledged and this node does not hold are lost, although
//!   clients were told of them. So the survivor with the last log of all is to be chosen;
//! - entries that this node holds and that were never committed will be;
//! - **if one of the old nodes that are not in the new membership ever comes back, there are two
//!   clusters.** Their disks must be destroyed, or bootstrapped anew to join the new one.

use crate::errors::{OpenError, WalError};
use crate::format::checksum::body_checksum;
use crate::options::{Entropy, OnDamage, StoreIdentity, WalOptions};
use crate::recovery::{RecoveredGroup, open};
use crate::repair::{Repair, RepairKind};
use crate::wal::{Submission, Wal};
use duraft_core::{
    Batch, BatchKind, Body, GroupId, HardState, Index, LogId, Membership, MembershipProblem,
    NodeId, Term, Write, WriteSeq,
};
use duraft_disk::Disk;
use std::fmt;
use std::sync::Arc;

/// The membership to be forced on a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForcedVoters {
    /// The group.
    pub group: GroupId,
    /// The voters from now on, this node among them. No learners.
    pub voters: Vec<NodeId>,
}

/// Why no membership was forced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForceError {
    /// The store cannot be opened; where it is damaged, not unless the loss is accepted.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The voters cannot be a membership.
    #[error(transparent)]
    Membership(#[from] MembershipProblem),
    /// This node is not among the voters: the others would begin with nothing.
    #[error("node {0} holds this log and must be one of the voters")]
    NotAmongVoters(NodeId),
    /// The store has no such group.
    #[error("the store has no group {0}")]
    UnknownGroup(GroupId),
    /// The node has joined and never heard of a membership: there is nothing to go on from.
    #[error("this node was never told of any members of group {0}")]
    NeverMember(GroupId),
    /// The log has no index or term left.
    #[error("the log has no index or term left")]
    Exhausted,
    /// The change was not written.
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// What was done, and what it may cost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForcedReport {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// The membership that was in force.
    pub before: Membership,
    /// The voters now.
    pub voters: Vec<NodeId>,
    /// The last entry before: what lost voters acknowledged after it is lost.
    pub last: LogId,
    /// The latest snapshot: what it covers was committed, what follows may have been.
    pub snapshot: Option<LogId>,
    /// The entry that holds the new membership.
    pub forced: LogId,
    /// The part of this node's own log that was given up in the same go.
    pub accepted: Option<(Index, Index)>,
}

impl ForcedReport {
    /// Nodes that were members and are none any more. They must never come back as they are.
    pub fn banned(&self) -> impl Iterator<Item = NodeId> + '_ {
        let members = self.before.members();
        members.filter(|id| !self.voters.contains(id))
    }
}

impl fmt::Display for ForcedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ids: &mut dyn Iterator<Item = NodeId>| {
            let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
            if ids.is_empty() {
                "none".to_owned()
            } else {
                ids.join(", ")
            }
        };
        let voters = names(&mut self.voters.iter().copied());
        writeln!(
            f,
            "Group {}: voters are now {voters}, as of entry {}.",
            self.group, self.forced
        )?;
        let before = names(&mut self.before.voters());
        writeln!(f, "Before: voters {before}; last entry {}.", self.last)?;
        let certain = self.snapshot.unwrap_or_default();
        writeln!(
            f,
            "May be lost: every entry after {} that the other voters had acknowledged.",
            self.last
        )?;
        writeln!(
            f,
            "May be committed though it never was: entries after {certain} up to {}.",
            self.last
        )?;
        if let Some((first, last)) = self.accepted {
            writeln!(f, "Given up here: entries {first} to {last}.")?;
        }
        write!(
            f,
            "Must never come back with the disks they have: {}.",
            names(&mut self.banned())
        )
    }
}

/// **Replaces a group's membership without asking anybody.** For a cluster whose quorum is lost for
/// good, on the disk of one survivor, while nothing else has it open. Read the module's
/// documentation; the old nodes that are left out must never come back.
///
/// It writes one commit: the next term without a vote, a membership batch of these voters, and a note
/// that it was forced ([`RepairKind::ConfigurationForced`]). A crash leaves all of it or nothing.
/// A damaged store is refused, unless `options.policy` accepts the loss.
pub fn force_configuration(
    disk: Arc<dyn Disk>,
    identity: &StoreIdentity,
    options: WalOptions,
    entropy: Entropy,
    wanted: &ForcedVoters,
) -> Result<ForcedReport, ForceError> {
    let membership = Membership::new(wanted.voters.iter().copied(), [])?;
    if !membership.is_voter(identity.node) {
        return Err(ForceError::NotAmongVoters(identity.node));
    }
    let policy = match options.policy {
        OnDamage::Refuse | OnDamage::RepairFromPeers => OnDamage::Refuse,
        accept @ OnDamage::AcceptLoss { .. } => accept,
    };
    let options = WalOptions { policy, ..options };
    let (mut wal, recovered) = open(disk, identity, options, entropy)?;
    if let Some(damage) = recovered.damage {
        // Of another group: this store is not one to build on.
        return Err(OpenError::Damaged(Box::new(damage)).into());
    }
    let group = wanted.group;
    let state = recovered.groups.get(&group);
    let state = state.ok_or(ForceError::UnknownGroup(group))?;
    let (write, report) = plan(identity.node, group, state, &membership)?;
    let note = Repair {
        kind: RepairKind::ConfigurationForced,
        first: report.forced.index,
        last: report.forced.index,
        generation: generation(&wal),
        wallclock_ns: entropy.wallclock_ns,
    };
    wal.commit_noting(&[Submission { group, write }], &[(group, note)])?;
    let accepted = state
        .repairs
        .last()
        .filter(|note| note.generation == generation(&wal))
        .map(|note| (note.first, note.last));
    wal.close()?;
    Ok(ForcedReport { accepted, ..report })
}

fn generation(wal: &Wal) -> u32 {
    u32::try_from(wal.generation()).expect("opens are counted in 32 bits")
}

fn plan(
    node: NodeId,
    group: GroupId,
    state: &RecoveredGroup,
    membership: &Membership,
) -> Result<(Write, ForcedReport), ForceError> {
    let before = match state.memberships.last() {
        Some((_, membership)) => membership,
        None => &state.membership,
    };
    if before.is_unknown() {
        return Err(ForceError::NeverMember(group));
    }
    let batches = state.batches.last();
    let end = batches.map_or(state.start, |header| header.position());
    let term: Term = state.hard_state.term.next().ok_or(ForceError::Exhausted)?;
    let bytes = membership.encode();
    let body = Body {
        kind: BatchKind::Membership,
        codec: 0,
        count: 1,
        checksum: body_checksum(&bytes),
        bytes: bytes.into(),
    };
    let batch: Batch = body
        .seal(group, &end, term)
        .map_err(|_| ForceError::Exhausted)?;
    let report = ForcedReport {
        group,
        node,
        before: before.clone(),
        voters: membership.voters().collect(),
        last: end.id,
        snapshot: state.snapshot.as_ref().map(|snapshot| snapshot.position.id),
        forced: batch.header.position().id,
        accepted: None,
    };
    let write = Write {
        seq: WriteSeq(1),
        hard_state: Some(HardState { term, vote: None }),
        snapshot: None,
        truncate: None,
        append: vec![batch],
        compact: None,
        healed: None,
    };
    Ok((write, report))
}
