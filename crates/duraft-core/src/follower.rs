//! What a follower does with a leader's words: compare logs, take over batches, acknowledge.
//!
//! Comparing (RULES.md 1, 2, 8). A leader names the boundary its batches follow. If this log has the
//! very boundary, by term, index and digest, the logs are equal up to it, and the batches are
//! compared one by one:
//!
//! | here stands | then |
//! |---|---|
//! | the same batch | it is skipped, never rewritten: an old duplicate changes nothing |
//! | nothing | it and all after it are appended |
//! | a batch of another term | the log is cut there, above everything committed, and appended to |
//! | another batch of the same term | divergence: nothing is changed, the leader is told (`divergence.rs`) |
//!
//! What the message proved is remembered as `verified`. Commit never runs ahead of it, and an
//! acknowledgement names at most the smaller of `verified` and what is durable: not the end of this
//! log, whose tail may be of a dead leader.

use crate::batch::Batch;
use crate::damage::Fit;
use crate::io::{Fault, Output};
use crate::log::Boundary;
use crate::message::{AppendReply, Message};
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{Index, LogId, NodeId, Position, Term};
use alloc::vec::Vec;

/// What a comparison of the leader's batches with this log came to.
enum Comparison {
    /// The logs agree up to `at`; of the batches, the first `skip` are here already.
    Agree { at: Boundary, skip: usize },
    /// The boundary asked for is not here.
    Missing { hint: LogId },
    /// One (term, index), two contents.
    Diverge { theirs: Position, ours: Position },
}

/// Why batches were not taken over.
enum Refusal {
    /// The leader is not told.
    Untold(Option<Transition>),
    /// One (term, index), two contents.
    Diverges { theirs: Position, ours: Position },
}

impl Raft {
    /// AppendEntries, or a probe if it has no batches. Its chain was checked on receipt.
    pub(crate) fn on_append(
        &mut self,
        from: NodeId,
        term: Term,
        prev: Position,
        mut batches: Vec<Batch>,
        commit: Index,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        if term < self.hard.term {
            // A leader that was deposed and does not know it. Its log proves nothing; this node's
            // term tells it.
            let hint = self.log.position(self.log.floor_id(prev.id)).id;
            let reply = AppendReply::Rejected {
                prev: prev.id,
                hint,
            };
            self.tell_term(from, Message::AppendReply(reply), out);
            return None;
        }
        if !self.follows(from) {
            return None;
        }
        if prev.index() < self.log.start().index() && self.plants.has(Plant::PanicsBelowStart) {
            return Some(Transition::Halt(Fault::UnknownCompletion));
        }
        // The leader is alive, whatever its message turns out to be worth.
        self.elapsed = 0;
        let asked = batches.is_empty();
        let (at, skip) = match self.compare(&prev, &batches) {
            Comparison::Agree { at, skip } if skip > 0 && self.plant_cuts(&prev) => {
                let before = self.log.boundary_after(prev.index()).unwrap_or(at);
                (before, 0)
            }
            Comparison::Agree { at, skip } => (at, skip),
            // The leader looks further back. That answer proves no log content, but it carries the
            // term, so it waits for that.
            Comparison::Missing { .. } if !self.has_room() => return None,
            Comparison::Missing { hint } => {
                let follower = self.role.follower_mut().expect("checked above");
                follower.owed.rejected = Some((prev.id, hint));
                return None;
            }
            Comparison::Diverge { theirs, ours } => {
                return self.on_divergence(from, (theirs, ours), asked, out);
            }
        };
        // What is here already stays as it was written; only the rest is taken over.
        batches.drain(..skip);
        // And of that, what there is room for: the leader asks again.
        batches.truncate(self.room_for(&batches));
        if skip > 0 && batches.is_empty() {
            self.plant_repeated(from, at, out);
        }
        let end = if batches.is_empty() {
            at
        } else {
            match self.take_over(at, batches) {
                Ok(end) => end,
                Err(Refusal::Untold(transition)) => return transition,
                Err(Refusal::Diverges { theirs, ours }) => {
                    return self.on_divergence(from, (theirs, ours), asked, out);
                }
            }
        };
        // The log up to `end` is this leader's, and this leader has the commit index.
        self.verified = self.verified.max(end);
        self.learn_commit(commit);
        // Every append is answered, also one that brings nothing new: its sender may have missed the
        // first answer. When, is up to the disk. One number holds all answers owed: the furthest.
        let follower = self.role.follower_mut().expect("checked above");
        follower.owed.accepted = follower.owed.accepted.max(Some(end));
        None
    }

    /// Is `from` the leader this node follows? A second leader in one term cannot be; whoever claims
    /// it is not believed.
    pub(crate) fn follows(&self, from: NodeId) -> bool {
        match &self.role {
            Role::Follower(follower) => follower.leader == Some(from),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => false,
        }
    }

    /// Finds out how far the leader's batches agree with this log. Changes nothing.
    fn compare(&self, prev: &Position, batches: &[Batch]) -> Comparison {
        // What is not in memory counts like what is not in the log any more: it was applied.
        let (mut at, mut skip) = if prev.index() < self.log.solid().index() {
            // The message begins before this log does. The part before the start is committed and
            // not stored one by one any more; it agrees if one of the batches ends in the start.
            let start = self.log.solid();
            let ends = batches.iter().map(|batch| batch.header.position());
            match ends.clone().position(|end| end.id == start.id) {
                Some(i) => {
                    let theirs = batches[i].header.position();
                    if theirs != start {
                        return Comparison::Diverge {
                            theirs,
                            ours: start,
                        };
                    }
                    (self.log.held(), i + 1)
                }
                None => return Comparison::Missing { hint: start.id },
            }
        } else {
            match self.log.boundary_after(prev.index()) {
                // Equal by index and term. By Raft's rules the logs are equal then; the digest checks
                // that they are.
                Some(at)
                    if self.log.position(at).id == prev.id
                        || self.plants.has(Plant::IgnoresPrevTerm) =>
                {
                    let ours = self.log.position(at);
                    let blind = self.plants.has(Plant::IgnoresPrevDigest)
                        || self.plants.has(Plant::IgnoresPrevTerm);
                    if ours != *prev && !blind {
                        return Comparison::Diverge {
                            theirs: *prev,
                            ours,
                        };
                    }
                    (at, 0)
                }
                Some(_) | None => {
                    // What a log that holds `prev` may share with this one ends at the last boundary
                    // here that is at or before `prev` by index and by term.
                    let hint = self.log.position(self.log.floor_id(prev.id)).id;
                    return Comparison::Missing { hint };
                }
            }
        };
        for batch in &batches[skip..] {
            let Some(here) = self.log.header(at) else {
                break;
            };
            // Another leader's batch: from here on this log is not the leader's.
            if here.term != batch.header.term {
                break;
            }
            // Same first index and term. The digest names kind, count and content.
            if here.digest != batch.header.digest && !self.plants.has(Plant::OverlooksDivergence) {
                return Comparison::Diverge {
                    theirs: batch.header.position(),
                    ours: here.position(),
                };
            }
            at = at.next();
            skip += 1;
        }
        Comparison::Agree { at, skip }
    }

    /// Replaces what follows `at` by these batches, or says why not.
    fn take_over(&mut self, at: Boundary, batches: Vec<Batch>) -> Result<Boundary, Refusal> {
        if at == self.log.end() && self.edge().is_some() {
            return self.take_into_gap(batches);
        }
        if at < self.log.end() {
            // What is committed was promised to clients. No leader elected by the rules can lack it.
            let plant = self.plants.has(Plant::TruncatesOnAppend);
            if at < self.commit && !plant {
                let fault = Fault::CommittedTruncation {
                    commit: self.commit(),
                    cut: self.log.index(at).next(),
                };
                return Err(Refusal::Untold(Some(Transition::Halt(fault))));
            }
            if at < self.verified && !plant {
                // A leader's log only grows within its term: this contradicts its own words.
                return Err(Refusal::Untold(None));
            }
            assert!(at >= self.handed, "what was applied is never cut");
            // In memory the cut holds at once, and with it what counts as durable: the old batches are
            // still on disk, but they are no part of this log any more, so no acknowledgement and no
            // completion may stand on them.
            self.log.truncate(at);
            self.disk.truncate(at);
            if let Some(damaged) = &mut self.damage {
                damaged.cut();
                damaged.spliced = damaged.spliced.min(at);
            }
            self.roll_back_memberships();
            self.staged.truncate = Some(self.log.last());
            if let Some(follower) = self.role.follower_mut() {
                follower.acked = follower.acked.min(at);
            }
        }
        for batch in &batches {
            self.log.push(batch);
            self.adopt_membership(batch);
        }
        assert!(
            self.staged.append.is_empty(),
            "a step takes over one message"
        );
        self.staged.append = batches;
        Ok(self.log.end())
    }

    /// The log ends at a gap, behind which batches survive, and the leader's batches go into it. Where
    /// they join what survives, that is the leader's too, as digests show. Where they show that it is of
    /// a dead leader's log, it is cut away, as any tail would be.
    fn take_into_gap(&mut self, batches: Vec<Batch>) -> Result<Boundary, Refusal> {
        let cut = self.log.last();
        let mut taken = Vec::with_capacity(batches.len());
        let mut rest = batches.into_iter();
        for batch in rest.by_ref() {
            let mut joins = false;
            if let Some(edge) = self.edge() {
                match edge.fit(&batch.header) {
                    Fit::Inside => {}
                    Fit::Joins => joins = true,
                    Fit::Contradicts => {
                        let damaged = self.damage.as_mut().expect("an edge is of a damage");
                        damaged.cut();
                        self.staged.truncate = Some(cut);
                    }
                    // What came before in this message is taken; the next one begins here.
                    Fit::Diverges { .. } if !taken.is_empty() => break,
                    Fit::Diverges { ours } => {
                        let theirs = batch.header.position();
                        return Err(Refusal::Diverges { theirs, ours });
                    }
                }
            }
            self.log.push(&batch);
            self.adopt_membership(&batch);
            taken.push(batch);
            if joins {
                break;
            }
        }
        // Behind the join the log goes on. What of it is in this message is compared with it; what is not
        // equal is left for the next one, as a step makes one write.
        let mut end = self.log.end();
        self.splice();
        for batch in rest {
            if self.log.header(end) != Some(&batch.header) {
                break;
            }
            end = end.next();
        }
        assert!(
            self.staged.append.is_empty(),
            "a step takes over one message"
        );
        self.staged.append = taken;
        Ok(end)
    }

    /// "I lead." Proof of contact, and a commit index that this node may believe as far as it has
    /// compared logs with this leader: its tail beyond may be of a dead one.
    pub(crate) fn on_heartbeat(
        &mut self,
        from: NodeId,
        term: Term,
        commit: Index,
        round: u64,
        out: &mut Vec<Output>,
    ) {
        if term < self.hard.term {
            self.tell_term(
                from,
                Message::HeartbeatReply {
                    round,
                    health: self.health(),
                },
                out,
            );
            return;
        }
        if !self.follows(from) {
            return;
        }
        self.elapsed = 0;
        self.promise();
        self.learn_commit(commit);
        let follower = self.role.follower_mut().expect("checked above");
        if let Some(told) = &mut follower.diverged {
            told.heard = true;
        }
        follower.owed.heartbeat = follower.owed.heartbeat.max(Some(round));
        if self.plants.has(Plant::AcksHeartbeats) {
            follower.owed.accepted = Some(self.log.begin());
        }
    }

    /// Answers a leader of an earlier term with this node's term, if that is durable. If it is not,
    /// silence: the leader repeats itself.
    fn tell_term(&self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        if self.is_term_durable() && !self.is_uncertain() {
            out.push(self.me.send(to, self.hard.term, message));
        }
    }

    /// The leader has committed up to `leader_commit`, an index of the leader's log.
    pub(crate) fn learn_commit(&mut self, leader_commit: Index) {
        if leader_commit <= self.commit() {
            return;
        }
        // The leader's commit may be ahead of what was compared. Cap it there, or a divergent tail of
        // ours would be committed.
        let commit = match self.log.boundary_near(leader_commit, self.commit.next()) {
            Some(commit) => commit,
            None => self.log.floor(leader_commit),
        };
        let commit = if self.plants.has(Plant::CommitsUnverified) {
            commit
        } else {
            commit.min(self.verified)
        };
        while self.commit < commit {
            let header = self.log.header(self.commit).expect("commit is in the log");
            self.unhanded_bytes += header.cost();
            self.commit = self.commit.next();
        }
    }

    /// The boundary up to which an acknowledgement may go now, and the durable end of the log.
    fn acknowledgeable(&self) -> (Boundary, Boundary) {
        let durable = if self.plants.has(Plant::EarlyAck) {
            self.log.end()
        } else {
            self.disk.log()
        };
        let tail = self.plants.has(Plant::AcksOwnTail) || self.plants.has(Plant::AcksHeartbeats);
        let matched = if tail {
            durable
        } else {
            self.verified.min(durable)
        };
        (matched, durable)
    }

    /// Sends the answers that the disk now covers. Called at the end of every step: answers to what has
    /// just arrived and answers that have waited go the same way.
    ///
    /// All of them are in the current term: `Owed` ends with its term, so a grant or an acknowledgement
    /// of an earlier one cannot leave here.
    pub(crate) fn release_owed(&mut self, durable_before: Boundary, out: &mut Vec<Output>) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        if follower.owed.is_empty() {
            return;
        }
        // Whose term is uncertain may have promised itself in a later one: it says nothing that counts.
        // Heartbeats are not answered later either; the others wait.
        if self.is_uncertain() {
            let follower = self.role.follower_mut().expect("looked at above");
            follower.owed.heartbeat = None;
            follower.owed.refusals.clear();
            return;
        }
        let (me, term, health) = (self.me, self.hard.term, self.health());
        let vote_durable = self.is_hard_state_durable() || self.plants.has(Plant::EarlyVote);
        let term_durable = self.is_term_durable();
        let (matched, durable) = self.acknowledgeable();
        let part = self.plants.has(Plant::AcksPartOfBatch);
        // Below the log's beginning nothing can be said: a snapshot takes its place and is not durable.
        let known = self.log.position_in(matched);
        let grew = durable > durable_before;
        let follower = self.role.follower_mut().expect("looked at above");
        let leader = follower.leader;
        let owed = &mut follower.owed;

        if vote_durable && let Some(to) = owed.grant.take() {
            out.push(me.send(to, term, Message::VoteReply { granted: true }));
            // The candidate gets its time from now on (RULES.md 11).
            self.elapsed = 0;
        }
        // Everything below carries the term and promises no vote.
        if !term_durable {
            return;
        }
        while let Some(to) = owed.refusals.pop_first() {
            out.push(me.send(to, term, Message::VoteReply { granted: false }));
        }
        // The rest answers the leader.
        let Some(leader) = leader else {
            return;
        };
        if let Some(round) = owed.heartbeat.take() {
            out.push(me.send(leader, term, Message::HeartbeatReply { round, health }));
        }
        if let Some((prev, hint)) = owed.rejected.take() {
            let reply = AppendReply::Rejected { prev, hint };
            out.push(me.send(leader, term, Message::AppendReply(reply)));
        }
        if let Some(wanted) = owed.accepted
            && let Some(position) = known
        {
            let done = matched >= wanted;
            // A part of what is wanted is told when it has just become durable, not at every message.
            if done || (grew && matched > follower.acked) || part {
                let within = u64::from(part && !done);
                let reply = AppendReply::Accepted {
                    matched: Index(position.index().0 + within),
                };
                out.push(me.send(leader, term, Message::AppendReply(reply)));
                follower.acked = follower.acked.max(matched);
            }
            if done {
                follower.owed.accepted = None;
            }
        }
    }
}
