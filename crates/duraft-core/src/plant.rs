//! Faults that tests plant to prove that they would be found. Without the feature `plant` (or a test
//! build) there is nothing to switch on and every question below is the constant `false`.

use crate::io::{Output, Write};
use crate::log::Boundary;
use crate::message::{AppendReply, Message};
use crate::types::{HardState, NodeId, Position, WriteSeq};
use alloc::vec::Vec;

/// A way to break the rules. For tests of tests only.
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
    /// A batch beyond what a quorum holds is committed.
    CommitsOneMore,
    /// A follower commits what its leader has, compared or not.
    CommitsUnverified,
    /// Half of the voters elect and commit.
    HalfIsQuorum,
    /// A voter that answers twice counts for another one.
    CountsVotesTwice,
    /// A candidate does not follow the leader of its term.
    CandidateIgnoresLeader,
    /// Whoever is asked for a vote in its own term follows.
    SameTermVoteDeposes,
    /// A leader's later term is not adopted.
    KeepsOwnTerm,
    /// Nothing is committed but on the word of a peer.
    SoloNeverCommits,
    /// A new leader says nothing before its first heartbeat.
    SilentWin,
    /// What is lost is not sent again.
    NeverResends,
    /// A snapshot brings the term it was taken in.
    InstallLowersTerm,
    /// A vote is given to a log that is as long and of as late a term.
    VoteNeedsBoth,
    /// A leader that is told no begins with the beginning of its log.
    ResendsFromStart,
    /// A vote that comes late stops the node.
    PanicsOnLate,
    /// An acknowledgement counts for everything that was sent.
    CreditsLatest,
    /// What a peer may at most share counts as what it holds.
    CommitsOnRejection,
    /// A leader that gives up commits whatever its own log holds.
    CommitsOnStepDown,
    /// A follower acknowledges a batch when a part of it may be durable, and a leader counts that.
    AcksPartOfBatch,
    /// A follower acknowledges its own tail, compared or not.
    AcksOwnTail,
    /// A follower acknowledges its own tail to whoever sends a heartbeat.
    AcksHeartbeats,
    /// A repeated append is acknowledged at once, though the first is still being written.
    AcksDuplicatesEarly,
    /// What was owed in a term is sent in the next one.
    OwesAcrossTerms,
    /// Acknowledgements of earlier terms count.
    CountsEarlierTerms,
    /// Acknowledgements of a peer's earlier lives count.
    CountsEarlierLives,
    /// Votes of an earlier term elect.
    GrantsOfEarlierTerms,
    /// A completion counts for the place in the log that was written, whatever stands there now.
    CountsCutWrites,
    /// A load's answer is taken, whatever is in it.
    TakesAnyLoad,
    /// Messages carry terms that are not durable.
    EarlyTerm,
    /// The vote is written first, the term after it.
    VoteBeforeTerm,
    /// A voter votes for everybody who asks.
    VotesTwice,
    /// A voter forgets its vote when it becomes a follower in its term.
    ForgetsVote,
    /// A vote is given to any log.
    VotesForStaleLogs,
    /// Logs are compared by their length first.
    LongerLogWins,
    /// An append cuts whatever follows it off.
    TruncatesOnAppend,
    /// A follower looks at the index of a leader's boundary only.
    IgnoresPrevTerm,
    /// Digests of boundaries are not compared.
    IgnoresPrevDigest,
    /// Digests of batches are not compared.
    OverlooksDivergence,
    /// Batches are given to the state machine when they are committed.
    AppliesUndurable,
    /// A snapshot that is older than what is committed is installed.
    InstallsBackwards,
    /// A snapshot replaces the log even where the log holds more.
    InstallDropsSuffix,
    /// The state machine is restored before the snapshot's record is durable.
    RestoresEarly,
    /// A node that has lost its disk begins like one that never had one.
    WipedVotesAsNew,
    /// A node whose log is damaged campaigns.
    DamagedCampaigns,
    /// A leader goes on counting what a damaged node has acknowledged.
    KeepsLostMatch,
    /// What one leader has said of a damaged log counts under the next one.
    HealsUnderAnyLeader,
    /// What was told an earlier life of a damaged node counts for this one.
    TakesOldHeal,
    /// An answer to an earlier life's question answers this life's reads.
    ReadsOfEarlierLives,
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
    /// No header ever leaves memory.
    KeepsShape,
    /// No limit of bytes refuses anything.
    TakesEverything,
    /// Any number of reads may wait.
    ReadsUnbounded,
    /// A node campaigns again while its last campaign is still being written.
    CampaignsPileUp,
    /// A peer that answers heartbeats counts, whatever becomes of the appends it is sent.
    HeartbeatsHideStall,
    /// A peer that answers questions counts, though all that is sent ahead to it is lost.
    AnswersHideLoss,
    /// Election timeouts do not grow with what writes take.
    TimeoutIgnoresDisk,
    /// A leader whose disk stalls keeps its office.
    KeepsStalledOffice,
    /// A node whose write failed goes on as if it had been done.
    SurvivesWriteFailed,
    /// A leader sends heartbeats with every tick.
    HeartbeatsEveryTick,
    /// A leader asks a peer again at once, though it was refused at what the peer had acknowledged.
    AsksAgainAtOnce,
    /// Of the batches that a commit passes, only the last is handed to the state machine.
    AppliesLastOnly,
    /// A life that begins with a compacted log stops.
    PanicsOnCompacted,
    /// An append that begins before a compacted log stops the node.
    PanicsBelowStart,
    /// A candidate leads when it has asked, whoever has answered.
    LeadsUnelected,
    /// Only as many ids as there are voters, from 1 on, name nodes.
    DenseIds,
}

/// The fault that is planted, if any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plants {
    #[cfg(any(test, feature = "plant"))]
    pub(crate) active: Option<Plant>,
    /// For [`Plant::CountsCutWrites`]: where each write of this life ended.
    #[cfg(any(test, feature = "plant"))]
    ends: Vec<(WriteSeq, Boundary)>,
}

impl Plants {
    /// Is this fault planted?
    #[inline]
    pub(crate) fn has(&self, plant: Plant) -> bool {
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
    /// Plants a fault, right after `Raft::new`: some take effect at once.
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
        assert!(
            plant != Plant::PanicsOnCompacted || self.log.start() == crate::Position::START,
            "planted: a life begins with a compacted log"
        );
        let empty = self.log.last() == crate::Position::START;
        if plant == Plant::WipedVotesAsNew && empty && self.is_uncertain() {
            self.damage = None;
        }
    }
}

/// Faults that take more than a condition.
impl crate::Raft {
    /// [`Plant::VoteBeforeTerm`]: a write of its own, in which the new vote stands beside the old term.
    #[inline]
    pub(crate) fn plant_vote_before_term(&mut self, out: &mut Vec<Output>) {
        let old = self.disk.last_hard_state();
        if self.plants.has(Plant::VoteBeforeTerm)
            && self.staged.hard_state
            && old.term < self.hard.term
            && self.hard.vote.is_some()
        {
            let seq = self.disk.issue(0);
            let half = HardState {
                vote: self.hard.vote,
                ..old
            };
            out.push(Output::Persist(Write {
                seq,
                hard_state: Some(half),
                snapshot: None,
                truncate: None,
                append: Vec::new(),
                compact: None,
                healed: None,
            }));
        }
    }

    /// [`Plant::CountsCutWrites`]: a write is remembered by where it ended.
    #[inline]
    pub(crate) fn plant_written(&mut self, seq: WriteSeq) {
        #[cfg(any(test, feature = "plant"))]
        if self.plants.has(Plant::CountsCutWrites) {
            self.plants.ends.push((seq, self.log.end()));
        }
        #[cfg(not(any(test, feature = "plant")))]
        let _ = seq;
    }

    /// [`Plant::CountsCutWrites`]: and counts for whatever stands there.
    #[inline]
    pub(crate) fn plant_completed(&mut self, upto: WriteSeq) {
        #[cfg(any(test, feature = "plant"))]
        {
            let ends = self.plants.ends.iter().filter(|(seq, _)| *seq <= upto);
            if let Some(end) = ends.map(|(_, end)| *end).max() {
                self.disk.claim(end.min(self.log.end()));
            }
        }
        #[cfg(not(any(test, feature = "plant")))]
        let _ = upto;
    }

    /// [`Plant::HalfIsQuorum`]: is this node content with so many of its voters?
    pub(crate) fn plant_half(&self, yes: usize) -> bool {
        let voters = self.memberships.active().voters().count();
        self.plants.has(Plant::HalfIsQuorum) && 2 * yes >= voters && voters > 1
    }

    /// [`Plant::DenseIds`]: is this id beyond the number of voters?
    #[inline]
    pub(crate) fn plant_dense(&self, from: NodeId) -> bool {
        self.plants.has(Plant::DenseIds)
            && from.0 > self.memberships.active().voters().count() as u64
    }

    /// [`Plant::AcksDuplicatesEarly`]: everything in an append, up to `at`, is here already.
    pub(crate) fn plant_repeated(&self, from: NodeId, at: Boundary, out: &mut Vec<Output>) {
        if self.plants.has(Plant::AcksDuplicatesEarly) {
            let matched = self.log.index(at);
            let reply = Message::AppendReply(AppendReply::Accepted { matched });
            out.push(self.me.send(from, self.hard.term, reply));
        }
    }

    /// [`Plant::TruncatesOnAppend`]: is what follows `prev` cut off, equal or not?
    pub(crate) fn plant_cuts(&self, prev: &Position) -> bool {
        let at = self.log.boundary_after(prev.index());
        self.plants.has(Plant::TruncatesOnAppend)
            && self.edge().is_none()
            && at.is_some_and(|at| at >= self.handed)
    }

    /// [`Plant::CommitsOnStepDown`].
    #[inline]
    pub(crate) fn plant_step_down(&mut self) {
        if self.plants.has(Plant::CommitsOnStepDown) && self.role.leader().is_some() {
            self.verified = self.log.end();
            self.learn_commit(self.log.last().index());
        }
    }
}
