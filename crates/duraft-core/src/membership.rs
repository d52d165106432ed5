//! Who belongs to the cluster, and which sets of nodes decide.
//!
//! A membership is what one membership batch holds. It is in use from the moment the batch stands in
//! the log, committed or not, and out of use when the batch is cut off (thesis 4.1, 4.3).
//!
//! A change of voters goes through a **joint** membership: the voters as they shall be, and the
//! *outgoing* voters as they were. While it is in use, every decision needs a majority of both. When
//! it is committed, a second batch without the outgoing voters ends it.
//!
//! | | votes | receives |
//! |---|---|---|
//! | voter | in the new majority | yes |
//! | outgoing voter | in the old majority | yes |
//! | learner | no | yes |
//!
//! A node can be a voter on both sides. A demoted voter is a learner already and an outgoing voter
//! still.

use crate::types::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

/// Largest number of members.
pub const MEMBERS_MAX: usize = 32;
/// Largest encoded membership, in bytes: every member a voter on one side and something on the other. One
/// that is larger, with many outgoing voters that are to be promoted again, is refused.
pub const MEMBERSHIP_BYTES_MAX: usize = HEAD_BYTES + (2 * 8 + 8) * MEMBERS_MAX;

const HEAD_BYTES: usize = 10;
const VERSION: u8 = 1;

/// The members of a cluster: voters decide, learners only receive.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    /// The voters as they shall be.
    voters: BTreeSet<NodeId>,
    /// The voters as they were, while this membership is joint.
    outgoing: Option<Outgoing>,
    /// Apart from `voters`; may be outgoing voters.
    learners: BTreeSet<NodeId>,
    /// Learners that become voters when they have caught up, with the voter each replaces.
    promotions: BTreeMap<NodeId, Option<NodeId>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Outgoing {
    voters: BTreeSet<NodeId>,
    leave: Leave,
}

/// How a joint membership ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Leave {
    /// Whoever leads when it is committed ends it.
    Automatic,
    /// Somebody asks for it with [`Input::LeaveJoint`](crate::Input::LeaveJoint).
    Explicit,
}

/// What becomes of a learner that has caught up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Promotion {
    /// It stays a learner.
    Never,
    /// The leader makes it a voter, in the place of another where one is named.
    WhenCaughtUp {
        /// The voter to remove in the same change.
        replacing: Option<NodeId>,
    },
}

/// One part of a membership change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemberChange {
    /// Adds a voter, or promotes a learner.
    AddVoter(NodeId),
    /// Adds a learner, demotes a voter, or changes what becomes of a learner.
    AddLearner {
        /// The learner.
        id: NodeId,
        /// What becomes of it.
        promotion: Promotion,
    },
    /// Removes a voter or learner.
    Remove(NodeId),
}

impl MemberChange {
    /// The member it is about.
    pub fn id(&self) -> NodeId {
        match self {
            MemberChange::AddVoter(id)
            | MemberChange::AddLearner { id, .. }
            | MemberChange::Remove(id) => *id,
        }
    }
}

/// Why a membership cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipProblem {
    /// A cluster needs at least one voter.
    NoVoters,
    /// A node is named as voter and as learner.
    VoterAndLearner(NodeId),
    /// More members than [`MEMBERS_MAX`].
    TooMany(usize),
    /// Bytes that are no encoded membership.
    Encoding {
        /// Number of bytes.
        len: usize,
    },
}

impl fmt::Display for MembershipProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MembershipProblem::NoVoters => write!(f, "a cluster needs at least one voter"),
            MembershipProblem::VoterAndLearner(id) => {
                write!(f, "node {id} is named as voter and as learner; choose one")
            }
            MembershipProblem::TooMany(n) => {
                write!(f, "{n} members are over the limit of {MEMBERS_MAX}")
            }
            MembershipProblem::Encoding { len } => {
                write!(f, "these {len} bytes are no encoded membership")
            }
        }
    }
}

impl core::error::Error for MembershipProblem {}

/// Why a change leads to no usable membership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeError {
    /// The membership is joint: the change before this one is not over.
    Joint,
    /// Nothing would change.
    Nothing,
    /// A node is named twice.
    NamedTwice(NodeId),
    /// A node that is to be removed is no member.
    NotMember(NodeId),
    /// A node that is to be replaced is no voter.
    NotVoter(NodeId),
    /// No voter would be left.
    NoVoters,
    /// More members than [`MEMBERS_MAX`] would be left.
    TooMany(usize),
    /// The membership would take so many bytes, more than [`MEMBERSHIP_BYTES_MAX`].
    TooLarge(usize),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Joint => write!(f, "the membership is joint: leave it first"),
            ChangeError::Nothing => write!(f, "nothing would change"),
            ChangeError::NamedTwice(id) => write!(f, "node {id} is named twice"),
            ChangeError::NotMember(id) => write!(f, "node {id} is no member"),
            ChangeError::NotVoter(id) => write!(f, "node {id} is no voter, nobody can replace it"),
            ChangeError::NoVoters => write!(f, "no voter would be left"),
            ChangeError::TooMany(n) => {
                write!(f, "{n} members would be over the limit of {MEMBERS_MAX}")
            }
            ChangeError::TooLarge(bytes) => write!(
                f,
                "the membership would take {bytes} bytes, over the limit of {MEMBERSHIP_BYTES_MAX}: \
                 demote fewer voters that are to be promoted again in one change"
            ),
        }
    }
}

impl core::error::Error for ChangeError {}

impl Membership {
    /// A membership of these voters and learners.
    pub fn new(
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Result<Membership, MembershipProblem> {
        let membership = Membership {
            voters: voters.into_iter().collect(),
            outgoing: None,
            learners: learners.into_iter().collect(),
            promotions: BTreeMap::new(),
        };
        membership.checked()
    }

    /// The membership as a node knows it that has joined and heard of nobody yet: no members. Nothing
    /// can be decided in it.
    pub fn unknown() -> Membership {
        Membership {
            voters: BTreeSet::new(),
            outgoing: None,
            learners: BTreeSet::new(),
            promotions: BTreeMap::new(),
        }
    }

    fn checked(self) -> Result<Membership, MembershipProblem> {
        if self.voters.is_empty() {
            return Err(MembershipProblem::NoVoters);
        }
        if let Some(id) = self.voters.intersection(&self.learners).next() {
            return Err(MembershipProblem::VoterAndLearner(*id));
        }
        let members = self.members().count();
        if members > MEMBERS_MAX {
            return Err(MembershipProblem::TooMany(members));
        }
        let len = self.encoded_len();
        if len > MEMBERSHIP_BYTES_MAX {
            return Err(MembershipProblem::Encoding { len });
        }
        Ok(self)
    }

    /// Are no members known?
    pub fn is_unknown(&self) -> bool {
        self.voters.is_empty()
    }

    /// Is a change of voters under way?
    pub fn is_joint(&self) -> bool {
        self.outgoing.is_some()
    }

    /// How the joint membership ends, if it is one.
    pub fn leave(&self) -> Option<Leave> {
        self.outgoing.as_ref().map(|outgoing| outgoing.leave)
    }

    /// The voters as they shall be, in order.
    pub fn incoming(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters.iter().copied()
    }

    /// The voters as they were, in order; none if the membership is not joint.
    pub fn outgoing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.outgoing.iter().flat_map(|o| o.voters.iter().copied())
    }

    /// Everybody who votes, in order within each side and without repetition.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        let only_outgoing = self.outgoing().filter(|id| !self.voters.contains(id));
        self.incoming().chain(only_outgoing)
    }

    /// The learners that do not vote any more, in order.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> + '_ {
        let learners = self.learners.iter().copied();
        learners.filter(|id| !self.is_voter(*id))
    }

    /// All members, voters first.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters().chain(self.learners())
    }

    /// Learners that become voters when they have caught up, with the voter each replaces.
    pub fn promotions(&self) -> impl Iterator<Item = (NodeId, Option<NodeId>)> + '_ {
        self.promotions.iter().map(|(id, old)| (*id, *old))
    }

    /// Does this node vote?
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing().any(|voter| voter == id)
    }

    /// Is this node a member in any part?
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Do the voters among `yes` decide? Nodes named twice count once, strangers not at all. While the
    /// membership is joint, both sides must agree.
    pub fn is_quorum(&self, yes: impl IntoIterator<Item = NodeId>) -> bool {
        let yes: BTreeSet<NodeId> = yes.into_iter().collect();
        let agrees = |side: &BTreeSet<NodeId>| {
            let count = side.intersection(&yes).count();
            count > side.len() / 2
        };
        agrees(&self.voters) && self.outgoing.as_ref().is_none_or(|o| agrees(&o.voters))
    }

    /// The largest value that a quorum of voters has reached; `least` if there are no voters. Asked at
    /// every acknowledgement, so it sorts on the stack, and on few words for the usual few voters.
    pub fn quorum_value<T: Ord + Copy>(&self, least: T, value_of: impl Fn(NodeId) -> T) -> T {
        let incoming = side_value(&self.voters, least, &value_of);
        match &self.outgoing {
            None => incoming,
            Some(outgoing) => incoming.min(side_value(&outgoing.voters, least, &value_of)),
        }
    }

    /// The membership after this change: joint if the voters change.
    pub fn change(
        &self,
        changes: &[MemberChange],
        leave: Leave,
    ) -> Result<Membership, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        let mut next = self.clone();
        let mut named = BTreeSet::new();
        for change in changes {
            if !named.insert(change.id()) {
                return Err(ChangeError::NamedTwice(change.id()));
            }
            next.apply(*change)?;
        }
        // Whoever was to be replaced and is gone needs no replacing any more.
        let voters = &next.voters;
        for replaced in next.promotions.values_mut() {
            *replaced = replaced.filter(|id| voters.contains(id));
        }
        if next == *self {
            return Err(ChangeError::Nothing);
        }
        if next.voters.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        if next.voters != self.voters {
            next.outgoing = Some(Outgoing {
                voters: self.voters.clone(),
                leave,
            });
        }
        match (next.members().count(), next.encoded_len()) {
            (n, _) if n > MEMBERS_MAX => Err(ChangeError::TooMany(n)),
            (_, bytes) if bytes > MEMBERSHIP_BYTES_MAX => Err(ChangeError::TooLarge(bytes)),
            (_, _) => Ok(next),
        }
    }

    fn apply(&mut self, change: MemberChange) -> Result<(), ChangeError> {
        match change {
            MemberChange::AddVoter(id) => {
                self.learners.remove(&id);
                self.promotions.remove(&id);
                self.voters.insert(id);
            }
            MemberChange::AddLearner { id, promotion } => {
                self.voters.remove(&id);
                self.learners.insert(id);
                match promotion {
                    Promotion::Never => {
                        self.promotions.remove(&id);
                    }
                    Promotion::WhenCaughtUp { replacing } => {
                        if let Some(old) = replacing
                            && !self.voters.contains(&old)
                        {
                            return Err(ChangeError::NotVoter(old));
                        }
                        self.promotions.insert(id, replacing);
                    }
                }
            }
            MemberChange::Remove(id) => {
                let known = self.voters.remove(&id) | self.learners.remove(&id);
                self.promotions.remove(&id);
                if !known {
                    return Err(ChangeError::NotMember(id));
                }
            }
        }
        Ok(())
    }

    /// The membership after the joint one, if this is joint.
    pub fn left(&self) -> Option<Membership> {
        self.outgoing.as_ref()?;
        Some(Membership {
            outgoing: None,
            ..self.clone()
        })
    }

    /// The body of a membership batch, little-endian:
    ///
    /// ```text
    /// 0 u8 version 1 | 1 u8 joint: 0 no, 1 leave automatically, 2 explicitly
    /// 2 u16 voters | 4 u16 outgoing voters | 6 u16 learners | 8 u16 promotions
    /// then the ids, u64 each, ascending in each of the four lists; a promotion is the learner's id and
    /// the id it replaces, its own where it replaces nobody
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.push(VERSION);
        bytes.push(match self.leave() {
            None => 0,
            Some(Leave::Automatic) => 1,
            Some(Leave::Explicit) => 2,
        });
        let counts = [
            self.voters.len(),
            self.outgoing().count(),
            self.learners.len(),
            self.promotions.len(),
        ];
        for count in counts {
            let count = u16::try_from(count).expect("at most MEMBERS_MAX");
            bytes.extend(count.to_le_bytes());
        }
        let learners = self.learners.iter().copied();
        for id in self.incoming().chain(self.outgoing()).chain(learners) {
            bytes.extend(id.0.to_le_bytes());
        }
        for (id, replaced) in &self.promotions {
            bytes.extend(id.0.to_le_bytes());
            bytes.extend(replaced.unwrap_or(*id).0.to_le_bytes());
        }
        bytes
    }

    /// How long [`Membership::encode`] makes it.
    fn encoded_len(&self) -> usize {
        let ids = self.voters.len() + self.outgoing().count() + self.learners.len();
        HEAD_BYTES + 8 * ids + 2 * 8 * self.promotions.len()
    }

    /// Reads what [`Membership::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Membership, MembershipProblem> {
        let problem = MembershipProblem::Encoding { len: bytes.len() };
        let membership = parse(bytes).ok_or(problem.clone())?;
        if membership.is_unknown() {
            // A node that has joined writes it down as it knows it: nothing at all.
            return if membership == Membership::unknown() {
                Ok(membership)
            } else {
                Err(problem)
            };
        }
        let membership = membership.checked()?;
        let promoted = membership.promotions.keys();
        let learning = promoted.clone().all(|id| membership.learners.contains(id));
        // One encoding per membership: ids out of order or named twice are refused here.
        if !learning
            || membership
                .outgoing
                .as_ref()
                .is_some_and(|o| o.voters.is_empty())
        {
            return Err(problem);
        }
        if membership.encode() == bytes {
            Ok(membership)
        } else {
            Err(problem)
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Membership> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    if head[0] != VERSION {
        return None;
    }
    let leave = match head[1] {
        0 => None,
        1 => Some(Leave::Automatic),
        2 => Some(Leave::Explicit),
        _ => return None,
    };
    let count = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let [voters, outgoing, learners, promotions] = [2, 4, 6, 8].map(count);
    if rest.len() != 8 * (voters + outgoing + learners + 2 * promotions) {
        return None;
    }
    let mut ids = rest.chunks_exact(8).map(|id| {
        let id: [u8; 8] = id.try_into().expect("chunks of 8 bytes");
        NodeId(u64::from_le_bytes(id))
    });
    let mut side = |count: usize| ids.by_ref().take(count).collect::<BTreeSet<NodeId>>();
    let (voters, outgoing, learners) = (side(voters), side(outgoing), side(learners));
    let mut promoted = BTreeMap::new();
    while let (Some(id), Some(replaced)) = (ids.next(), ids.next()) {
        promoted.insert(id, (replaced != id).then_some(replaced));
    }
    if leave.is_none() && !outgoing.is_empty() {
        return None;
    }
    Some(Membership {
        voters,
        outgoing: leave.map(|leave| Outgoing {
            voters: outgoing,
            leave,
        }),
        learners,
        promotions: promoted,
    })
}

/// The largest value that a majority of one side has reached.
fn side_value<T: Ord + Copy>(
    side: &BTreeSet<NodeId>,
    least: T,
    value_of: &impl Fn(NodeId) -> T,
) -> T {
    if side.len() <= 7 {
        majority_value::<T, 7>(side, least, value_of)
    } else {
        majority_value::<T, MEMBERS_MAX>(side, least, value_of)
    }
}

fn majority_value<T: Ord + Copy, const N: usize>(
    side: &BTreeSet<NodeId>,
    least: T,
    value_of: &impl Fn(NodeId) -> T,
) -> T {
    let mut values = [least; N];
    let mut count = 0;
    for voter in side {
        let value = value_of(*voter);
        let mut place = count;
        while place > 0 && values[place - 1] > value {
            values[place] = values[place - 1];
            place -= 1;
        }
        values[place] = value;
        count += 1;
    }
    // Ascending: the voters from this place to the end are exactly a majority.
    match count {
        0 => least,
        count => values[count - (count / 2 + 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn of(voters: u64) -> Membership {
        Membership::new((1..=voters).map(NodeId), [NodeId(100)]).expect("a valid membership")
    }

    #[test]
    fn quorums_equal_their_definition() {
        // Defects r5, l2, m1: with an even number of voters, half of them decided.
        for n in 1..=9 {
            let membership = of(n);
            for set in 0..1u32 << n {
                let yes: Vec<NodeId> = (0..n)
                    .filter(|i| set >> i & 1 == 1)
                    .map(|i| NodeId(i + 1))
                    .collect();
                let majority = 2 * yes.len() as u64 > n;
                let twice = yes.iter().chain(&yes).copied().chain([NodeId(100)]);
                assert_eq!(membership.is_quorum(twice), majority, "{n} voters, {yes:?}");
            }
        }
    }

    #[test]
    fn any_two_quorums_share_a_voter() {
        for n in 1..=8u32 {
            let membership = of(u64::from(n));
            let quorum = |set: u32| {
                let yes = (0..n).filter(|i| set >> i & 1 == 1);
                membership.is_quorum(yes.map(|i| NodeId(u64::from(i) + 1)))
            };
            for a in (0..1 << n).filter(|set| quorum(*set)) {
                for b in (0..1 << n).filter(|set| quorum(*set)) {
                    assert_ne!(a & b, 0);
                }
            }
        }
    }

    #[test]
    fn the_quorum_value_equals_its_definition() {
        // The largest value that more than half of the voters have reached, over all small tables.
        for n in 1..=9u64 {
            let membership = of(n);
            for table in 0..3u64.pow(u32::try_from(n).expect("small")).min(4000) {
                let value_of =
                    |id: NodeId| table / 3u64.pow(u32::try_from(id.0 - 1).expect("small")) % 3;
                let expected = (0..3)
                    .filter(|v| {
                        membership.is_quorum(membership.voters().filter(|id| value_of(*id) >= *v))
                    })
                    .max();
                assert_eq!(
                    Some(membership.quorum_value(0, value_of)),
                    expected,
                    "{n}, {table}"
                );
            }
        }
        let many = of(31);
        assert_eq!(many.quorum_value(0, |id| id.0), 16);
    }

    #[test]
    fn memberships_that_cannot_decide_are_refused() {
        let one = NodeId(1);
        assert_eq!(Membership::new([], [one]), Err(MembershipProblem::NoVoters));
        assert_eq!(
            Membership::new([one], [one]),
            Err(MembershipProblem::VoterAndLearner(one))
        );
        let crowd = (0..33).map(NodeId);
        assert_eq!(
            Membership::new(crowd, []),
            Err(MembershipProblem::TooMany(33))
        );
        assert!(Membership::new([NodeId(0), NodeId(u64::MAX)], []).is_ok());
    }

    #[test]
    fn no_membership_is_longer_than_the_limit_that_everybody_reserves() {
        let voters = Membership::new((0..32).map(NodeId), []).expect("32 voters");
        let demote = |count| {
            let changes: Vec<MemberChange> = (1..=count)
                .map(|id| MemberChange::AddLearner {
                    id: NodeId(id),
                    promotion: Promotion::WhenCaughtUp { replacing: None },
                })
                .collect();
            voters.change(&changes, Leave::Explicit)
        };
        let mut refused = 0;
        for count in 1..32 {
            match demote(count) {
                Ok(joint) => {
                    let bytes = joint.encode();
                    assert!(bytes.len() <= MEMBERSHIP_BYTES_MAX);
                    assert_eq!(bytes.len(), joint.encoded_len());
                    assert_eq!(Membership::decode(&bytes), Ok(joint));
                }
                Err(ChangeError::TooLarge(bytes)) => {
                    assert!(bytes > MEMBERSHIP_BYTES_MAX);
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert!((1..16).contains(&refused), "{refused} of 31");
    }
}
