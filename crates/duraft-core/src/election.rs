//! Elections: timers, pre-votes, votes and check-quorum.
//!
//! The rules, and where each is kept:
//! - one vote per term, for ever: `Raft::set_hard_state` refuses anything else, and a grant leaves
//!   only when the vote is durable;
//! - a vote only for a log at least as up to date as the own one (paper, 5.4.1), compared as
//!   [`LogId`]s, term first;
//! - whoever hears from a leader refuses (pre-)votes (thesis 4.2.3, 9.6), so that a node that lost
//!   touch cannot depose a leader that works;
//! - a campaign whose term and vote are still on their way to the disk asks nobody, its timer does
//!   not run, and no other campaign begins (RULES.md 11): a slow disk makes elections slow, not many.

use crate::io::{Fault, Output};
use crate::message::Message;
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{HardState, LogId, NodeId, Term};
use alloc::vec::Vec;

/// A node whose disk is slow waits for at most this many configured election timeouts.
const SPAN_TIMEOUTS_MAX: u64 = 16;

impl Raft {
    /// Time moves on by one tick.
    pub(crate) fn on_tick(&mut self, out: &mut Vec<Output>) -> Option<Transition> {
        self.now += 1;
        match &self.role {
            Role::Leader(_) => self.on_leader_tick(out),
            // The campaign's own write is not durable yet: its timer starts with RequestVote.
            Role::Candidate(candidate)
                if !candidate.asked && !self.plants.has(Plant::CampaignsPileUp) =>
            {
                None
            }
            // No leader has spoken, or the campaign has brought no decision: try again when the span is
            // over. A campaign that was split ends here too, and the new span is another random one.
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.elapsed = self.elapsed.saturating_add(1);
                self.shorten_timeout();
                if self.elapsed < self.timeout {
                    self.ask_again(out);
                    return None;
                }
                if !self.may_campaign(false) {
                    return self.gives_leader_up();
                }
                if self.config.pre_vote {
                    Some(Transition::PreCampaign)
                } else {
                    Some(Transition::Campaign { forced: false })
                }
            }
        }
    }

    /// Whoever was silent for a whole timeout leads nobody here any more, also where this node cannot
    /// take over: clients must not wait for him.
    fn gives_leader_up(&self) -> Option<Transition> {
        match &self.role {
            Role::Follower(follower) if follower.leader.is_some() => Some(Transition::Follow {
                term: self.hard.term,
                leader: None,
            }),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                None
            }
        }
    }

    /// May this node campaign at all? Only whoever may stand; not while an earlier term or vote of this node is
    /// on its way to the disk (RULES.md 11), nor while its disk stalls; not while it has promised itself
    /// to a leader, unless that one has asked for it; and only if a term and an index are left.
    pub(crate) fn may_campaign(&self, forced: bool) -> bool {
        !self.is_bound(forced)
            && !self.is_stalled()
            && self.may_stand()
            && (self.damage.is_none() || self.plants.has(Plant::DamagedCampaigns))
            && (self.is_hard_state_durable() || self.plants.has(Plant::CampaignsPileUp))
            && self.hard.term.next().is_some()
            && self.log.last().index().0.checked_add(2).is_some()
    }

    /// Restarts the election timer with a new random span from `[e, 2e)`. The lower end is what voters
    /// count on when they refuse to depose a leader they have heard; the spread is what ends splits.
    pub(crate) fn draw_timeout(&mut self) {
        self.elapsed = 0;
        let span = self.election_span();
        self.timeout = span + self.rng.below(span);
    }

    /// A wait that was drawn while the own disk was slow ends sooner if it is fast again while a leader
    /// is heard, which may be days later. Without one the wait stays: elections take writes.
    fn shorten_timeout(&mut self) {
        let follows = matches!(&self.role, Role::Follower(follower) if follower.leader.is_some());
        if !follows || self.timeout / 2 < self.config.election_ticks {
            return;
        }
        let span = self.election_span();
        if self.timeout >= span.saturating_mul(2) {
            self.timeout = span + self.rng.below(span);
        }
    }

    /// The least election timeout of this node: the configured one, which voters count on, or more where
    /// its own disk is slow. An election takes writes, one after the other; a timeout below a few of them
    /// would end it before it is decided (RULES.md 11). Bounded, and so is the memory of slow writes: a disk
    /// that was slow is one that may lead again soon.
    pub(crate) fn election_span(&self) -> u32 {
        let ticks = self.config.election_ticks;
        let most = u64::from(ticks) * SPAN_TIMEOUTS_MAX;
        let slow = 4 * self.pace.p99(self.now, most);
        if self.plants.has(Plant::TimeoutIgnoresDisk) {
            return ticks;
        }
        u32::try_from(slow.min(most)).map_or(ticks, |slow| slow.max(ticks))
    }

    /// Has a leader spoken to this node within the least election timeout? A leader that has lost its
    /// followers finds out by check-quorum, not by others' votes.
    pub(crate) fn hears_leader(&self) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(follower) => {
                follower.leader.is_some() && self.elapsed < self.config.election_ticks
            }
            // Campaigning means having given the leader up.
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Asks everyone whether a campaign could win. This changes nothing anywhere, so it needs no
    /// durable write and carries the present, durable term.
    pub(crate) fn begin_pre_campaign(&mut self, out: &mut Vec<Output>) -> Option<Transition> {
        assert!(
            self.is_hard_state_durable() || self.plants.has(Plant::CampaignsPileUp),
            "RULES.md 11"
        );
        self.draw_timeout();
        let wanted = self.hard.term.next().expect("checked in may_campaign");
        let last = self.log.last().id;
        for peer in self.memberships.active().voters() {
            if peer != self.me.id {
                let message = Message::PreVote { wanted, last };
                out.push(self.me.send(peer, self.hard.term, message));
            }
        }
        self.on_pre_vote_reply(self.me.id, wanted, true)
    }

    /// "Would you vote for me?" The answer promises nothing. Yes, if the asker's log would get the
    /// vote, its term is a later one, and no leader is heard from.
    pub(crate) fn on_pre_vote(
        &mut self,
        from: NodeId,
        wanted: Term,
        last: LogId,
        out: &mut Vec<Output>,
    ) {
        let granted = wanted > self.hard.term
            && self.is_fresh(last)
            && !self.abstains()
            && !self.hears_leader()
            && !self.is_bound(false);
        // The durable term travels along: an asker whose term is behind learns it from a refusal.
        let message = Message::PreVoteReply { wanted, granted };
        out.push(self.me.send(from, self.disk.hard_state().term, message));
    }

    /// A voter has said what it would do. A quorum of yes begins the campaign; once no quorum can say
    /// yes any more, this node waits for its timer again. Answers about another term are of an
    /// earlier pre-campaign and say nothing about this one.
    pub(crate) fn on_pre_vote_reply(
        &mut self,
        from: NodeId,
        wanted: Term,
        granted: bool,
    ) -> Option<Transition> {
        let term = self.hard.term;
        let counts = self.memberships.active().contains(from) || from == self.me.id;
        let Role::PreCandidate(ballot) = &mut self.role else {
            // The question is settled: this node campaigns, follows or leads.
            return None;
        };
        if Some(wanted) != term.next() || !counts {
            return None;
        }
        ballot.count(from, granted);
        if ballot.is_won(self.memberships.active()) {
            Some(Transition::Campaign { forced: false })
        } else if ballot.is_lost(self.memberships.active()) {
            Some(Transition::Follow { term, leader: None })
        } else {
            None
        }
    }

    /// RequestVote. A learner, or a node that does not know the asker, answers too: its own
    /// membership may be behind the asker's.
    pub(crate) fn on_vote(
        &mut self,
        from: NodeId,
        term: Term,
        (last, forced): (LogId, bool),
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        let free = match self.hard.vote {
            None => true,
            Some(candidate) => candidate == from || self.plants.has(Plant::VotesTwice),
        };
        // A term whose leader is known needs no votes any more.
        let known_leader = self.leader().is_some();
        // The log is compared on a repeated request too: the vote record alone proves nothing about
        // the asker (F6).
        let fresh = self.is_fresh(last) && !self.abstains();
        // What leases rest on: whoever this node follows now, it may have promised itself (RULES.md 26).
        let bound = self.is_bound(forced) && !self.plants.has(Plant::PromiseEndsWithTerm);
        let grant = term == self.hard.term && free && !known_leader && fresh && !bound;
        if !grant {
            self.refuse_vote(from, out);
            return None;
        }
        // The vote is given now, in memory: nobody else gets it in this term, whatever the disk does.
        // The asker hears of it when it is durable.
        if self.hard.vote.is_none() {
            self.set_hard_state(HardState {
                term,
                vote: Some(from),
            });
        }
        Some(Transition::Grant { to: from })
    }

    /// Is a log that ends with `last` at least as up to date as this node's (paper, 5.4.1)?
    fn is_fresh(&self, last: LogId) -> bool {
        let own = self.freshest();
        if self.plants.has(Plant::LongerLogWins) {
            return last.index >= own.index;
        }
        if self.plants.has(Plant::VoteNeedsBoth) {
            return last.index >= own.index && last.term >= own.term;
        }
        last >= own || self.plants.has(Plant::VotesForStaleLogs)
    }

    /// A refusal carries this node's term and so waits until that is durable.
    fn refuse_vote(&mut self, from: NodeId, out: &mut Vec<Output>) {
        if self.is_term_durable() {
            let message = Message::VoteReply { granted: false };
            out.push(self.me.send(from, self.hard.term, message));
        } else if let Some(follower) = self.role.follower_mut()
            && self.memberships.active().contains(from)
        {
            follower.owed.refusals.insert(from);
        }
    }

    /// A voter's answer to RequestVote. It counts only in the campaign it was asked in: this term,
    /// and after this life's own request, which cannot leave before the own vote is durable.
    pub(crate) fn on_vote_reply(
        &mut self,
        from: NodeId,
        term: Term,
        granted: bool,
    ) -> Option<Transition> {
        if term < self.hard.term && self.plants.has(Plant::PanicsOnLate) {
            return Some(Transition::Halt(Fault::UnknownCompletion));
        }
        if term != self.hard.term && !self.plants.has(Plant::GrantsOfEarlierTerms) {
            return None;
        }
        let Role::Candidate(candidate) = &mut self.role else {
            return None;
        };
        if !candidate.asked || !self.memberships.active().contains(from) {
            return None;
        }
        let again = candidate.ballot.granted.contains(&from);
        candidate.ballot.count(from, granted);
        if again && self.plants.has(Plant::CountsVotesTwice) {
            let ballot = &mut candidate.ballot;
            let other = self.memberships.active().voters();
            let other = other.into_iter().find(|id| !ballot.granted.contains(id));
            ballot.granted.extend(other);
        }
        self.tally()
    }

    /// Is the campaign decided?
    fn tally(&self) -> Option<Transition> {
        let Role::Candidate(candidate) = &self.role else {
            return None;
        };
        let half = self.plant_half(candidate.ballot.granted.len());
        let unelected = self.plants.has(Plant::LeadsUnelected);
        if candidate.ballot.is_won(self.memberships.active()) || half || unelected {
            Some(Transition::Lead)
        } else if candidate.ballot.is_lost(self.memberships.active()) {
            Some(Transition::Follow {
                term: self.hard.term,
                leader: None,
            })
        } else {
            None
        }
    }

    /// Term and own vote are durable: now, and not before, the campaign begins. One candidate asking
    /// earlier could crash, forget, and ask in the same term again with another log (F2, F3).
    pub(crate) fn release_campaign(&mut self, out: &mut Vec<Output>) -> Option<Transition> {
        let early = self.plants.has(Plant::EarlyRequestVote);
        if !self.is_hard_state_durable() && !early {
            return None;
        }
        assert!(
            self.disk.log() == self.log.end() || early,
            "one FIFO: what was appended before the vote is durable with it"
        );
        let me = self.me;
        let Role::Candidate(candidate) = &mut self.role else {
            return None;
        };
        candidate.asked = true;
        let forced = candidate.forced;
        candidate.ballot.count(me.id, true);
        // The voters get their time from now on, not from when the disk was asked (RULES.md 11).
        self.draw_timeout();
        let last = self.log.last().id;
        for peer in self.memberships.active().voters() {
            if peer != me.id {
                out.push(me.send(peer, self.hard.term, Message::Vote { last, forced }));
            }
        }
        self.tally()
    }
}
