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
    /// sorts on the stack: a membership has at most [`MEMBERS_MAX`] voters.
    pub fn quorum_value<T: Ord + Copy>(&self, value_of: impl Fn(NodeId) -> T) -> T {
        let mut voters = self.voters();
        let first = value_of(voters.next().expect("a membership has a voter"));
        let mut values = [first; MEMBERS_MAX];
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
