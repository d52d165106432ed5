//! Faults that tests plant to prove that they would be found. Without the feature `plant` (or a test
//! build) there is nothing to switch on and every question below is the constant `false`.

/// A way to break the release rules. For tests of tests only.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// A vote is granted before it is durable.
    EarlyVote,
    /// An append is acknowledged before it is durable.
    EarlyAck,
    /// The leader counts its own copy before it is durable.
    LeaderEarly,
    /// RequestVote leaves, and the own vote counts, before term and vote are durable.
    EarlyRequestVote,
    /// A restarted leader goes on leading the same term.
    LeaderRestore,
    /// An entry of an earlier term is committed by counting its copies.
    CommitOldTerm,
    /// A change of voters takes effect at once, without a joint membership.
    NoJoint,
    /// A damaged node votes as if what it knows of its log were all it has acknowledged.
    ForgetsFloor,
    /// A node that may have lost the end of its log votes.
    VotesWithLostSuffix,
    /// A node that may have lost a vote takes part as if it had not.
    TrustsLostVote,
    /// A node that may have lost a vote is content with the terms of a majority.
    AsksMajority,
    /// Whatever comes for a gap is written into it.
    FillsUnproven,
    /// A follower that its leader contradicts stops before the leader has looked.
    HaltsUnasked,
    /// A leader that is contradicted believes its own copy, whatever the disk says.
    TrustsOwnCopy,
    /// A leader that looks for the last common boundary goes back batch by batch.
    SearchesEntryByEntry,
    /// A leader says nothing when a peer lacks what it has acknowledged.
    IgnoresRollback,
    /// A membership that is cut off stays in use.
    NoRollback,
    /// A leader changes the membership before it has committed an entry of its own term.
    ChangeBeforeTerm,
    /// Whoever is no voter in the membership in use does not campaign, committed or not.
    OnlyVotersStand,
    /// A second change begins while the first is not committed.
    ChangesOverlap,
    /// A read counts answers to a round that began before it came in.
    ReadOldRound,
    /// A leader answers reads before it has committed an entry of its own term.
    ReadBeforeTerm,
    /// A lease runs from when a quorum had answered, not from when it was asked.
    LeaseFromReceipt,
    /// A voter that has restarted votes at once.
    RestartedVoterGrants,
    /// A leader keeps its lease after it has asked another node to campaign.
    TransferKeepsLease,
    /// A voter's promise ends with the term it was given in.
    PromiseEndsWithTerm,
    /// The target of a transfer is asked before it holds everything.
    TransferEarly,
    /// Any number of reads may wait.
    ReadsUnbounded,
    /// A node campaigns again while its last campaign is still being written.
    CampaignsPileUp,
    /// A peer that answers heartbeats counts, whatever becomes of the appends it is sent.
    HeartbeatsHideStall,
    /// Election timeouts do not grow with what writes take.
    TimeoutIgnoresDisk,
}

/// The fault that is planted, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plants {
    #[cfg(any(test, feature = "plant"))]
    pub(crate) active: Option<Plant>,
}

impl Plants {
    /// Is this fault planted?
    #[inline]
    pub(crate) fn has(self, plant: Plant) -> bool {
        #[cfg(any(test, feature = "plant"))]
        {
            self.active == Some(plant)
        }
        #[cfg(not(any(test, feature = "plant")))]
        {
            let _ = plant;
            false
        }
    }
}

#[cfg(any(test, feature = "plant"))]
impl crate::Raft {
    /// Plants a fault. [`Plant::LeaderRestore`] is to be planted right after `Raft::new`: it takes
    /// effect at once if the node's durable vote is its own and its log has a batch of that term.
    #[doc(hidden)]
    pub fn plant(&mut self, plant: Plant) {
        self.plants.active = Some(plant);
        let led = self.hard.vote == Some(self.me.id) && self.log.last().term() == self.hard.term;
        if plant == Plant::LeaderRestore && led {
            let mut leader = self.new_leader();
            let older = crate::types::LogId {
                term: crate::types::Term(self.hard.term.0 - 1),
                index: self.log.last().index(),
            };
            leader.term_begin = self.log.floor_id(older);
            self.role = crate::role::Role::Leader(leader);
        }
    }
}
