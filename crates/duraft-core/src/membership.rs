//! Who belongs to the cluster, and which sets of nodes decide.

use crate::types::NodeId;
use alloc::collections::BTreeSet;

/// The members of a cluster: voters decide, learners only receive.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
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
}

/// Largest number of members, voters and learners together.
pub const MEMBERS_MAX: usize = 64;

impl core::fmt::Display for MembershipProblem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            MembershipProblem::NoVoters => write!(f, "a cluster needs at least one voter"),
            MembershipProblem::VoterAndLearner(id) => {
                write!(f, "node {id} is named as voter and as learner; choose one")
            }
            MembershipProblem::TooMany(n) => {
                write!(f, "{n} members are over the limit of {MEMBERS_MAX}")
            }
        }
    }
}

impl core::error::Error for MembershipProblem {}

impl Membership {
    /// A membership of these voters and learners.
    pub fn new(
        voters: impl IntoIterator<Item = NodeId>,
        learners: impl IntoIterator<Item = NodeId>,
    ) -> Result<Membership, MembershipProblem> {
        let membership = Membership {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
        };
        if membership.voters.is_empty() {
            return Err(MembershipProblem::NoVoters);
        }
        if let Some(id) = membership.voters.intersection(&membership.learners).next() {
            return Err(MembershipProblem::VoterAndLearner(*id));
        }
        let members = membership.voters.len() + membership.learners.len();
        if members > MEMBERS_MAX {
            return Err(MembershipProblem::TooMany(members));
        }
        Ok(membership)
    }

    /// The voters in order.
    pub fn voters(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.voters.iter().copied()
    }

    /// The learners in order.
    pub fn learners(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.learners.iter().copied()
    }

    /// All members, voters first.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.voters().chain(self.learners())
    }

    /// Is this node a voter?
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id)
    }

    /// Is this node a voter or a learner?
    pub fn contains(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Number of voters that decide: more than half of them.
    pub fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Do the voters among `yes` decide? Nodes named twice count once, strangers not at all.
    pub fn is_quorum(&self, yes: impl IntoIterator<Item = NodeId>) -> bool {
        let distinct: BTreeSet<NodeId> = yes.into_iter().filter(|id| self.is_voter(*id)).collect();
        distinct.len() >= self.quorum()
    }

    /// The largest value that a quorum of voters has reached. Asked at every acknowledgement, so it
    /// sorts on the stack, and on few words for the usual few voters.
    pub fn quorum_value<T: Ord + Copy>(&self, value_of: impl Fn(NodeId) -> T) -> T {
        if self.voters.len() <= 7 {
            self.quorum_value_of::<T, 7>(value_of)
        } else {
            self.quorum_value_of::<T, MEMBERS_MAX>(value_of)
        }
    }

    fn quorum_value_of<T: Ord + Copy, const N: usize>(&self, value_of: impl Fn(NodeId) -> T) -> T {
        let mut voters = self.voters();
        let first = value_of(voters.next().expect("a membership has a voter"));
        let mut values = [first; N];
        let mut count = 1;
        for voter in voters {
            let value = value_of(voter);
            let mut place = count;
            while place > 0 && values[place - 1] > value {
                values[place] = values[place - 1];
                place -= 1;
            }
            values[place] = value;
            count += 1;
        }
        // Ascending: the voters from this place to the end are exactly a quorum.
        values[count - self.quorum()]
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
                    Some(membership.quorum_value(value_of)),
                    expected,
                    "{n}, {table}"
                );
            }
        }
        let many = of(63);
        assert_eq!(many.quorum_value(|id| id.0), 32);
    }

    #[test]
    fn memberships_that_cannot_decide_are_refused() {
        let one = NodeId(1);
        assert_eq!(Membership::new([], [one]), Err(MembershipProblem::NoVoters));
        assert_eq!(
            Membership::new([one], [one]),
            Err(MembershipProblem::VoterAndLearner(one))
        );
        let crowd = (0..65).map(NodeId);
        assert_eq!(
            Membership::new(crowd, []),
            Err(MembershipProblem::TooMany(65))
        );
        assert!(Membership::new([NodeId(0), NodeId(u64::MAX)], []).is_ok());
    }
}
