//! What a leader does: give batches their place, replicate them, count durable copies, keep contact.
//!
//! The leader's own disk is one more peer. Batches go out to the others while its own write is under
//! way, and an entry may be committed on the others' word before its own copy is durable; its own
//! copy counts when it is.
//!
//! Finding the last common boundary takes one round trip per conflicting term: a rejection names the
//! last boundary of the peer's log that is at or before the one asked for by index **and** by term,
//! and the leader asks next for the last boundary of its own that is at or before that one by both.
//! Each exchange leaves out at least one whole term of one of the logs.

use crate::batch::{Batch, BatchKind, Body, BodyError};
use crate::config::Config;
use crate::io::{Load, Output, Reject, Response};
use crate::lease::Lease;
use crate::log::{Boundary, Log};
use crate::message::{AppendReply, Health, Message};
use crate::plant::Plant;
use crate::progress::{Progress, Sending, Sent, Stage};
use crate::raft::{Raft, Sender};
use crate::role::{Leader, Role, Transition};
use crate::shape::page_load;
use crate::snapshot::Snapshot;
use crate::types::{Incarnation, LoadId, LogId, NodeId, Position, ProposalId, Term};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Heartbeats of the timer that are remembered: answers that come later say nothing of what was lost.
const BEATS: usize = 8;

impl Raft {
    /// A leader at the beginning of its term: it knows nothing of the others.
    pub(crate) fn new_leader(&self) -> Leader {
        assert_eq!(
            self.hard.vote,
            Some(self.me.id),
            "a leader voted for itself"
        );
        let end = self.log.end();
        let progress = (self.memberships.active())
            .members()
            .filter(|id| *id != self.me.id)
            .map(|id| (id, Progress::new(end, self.now)))
            .collect();
        let uncommitted = (self.log.headers().iter().rev())
            .take_while(|header| header.first > self.log.index(self.commit))
            .map(|header| header.cost())
            .sum();
        Leader {
            progress,
            published: false,
            term_begin: end,
            uncommitted_bytes: uncommitted,
            round: 0,
            heartbeat_elapsed: 0,
            beats: VecDeque::new(),
            since: self.now,
            lease: Lease::default(),
            confirmed_at: self.now,
        }
    }

    /// The first batch of a term is empty: only an entry of the own term can be committed by
    /// counting, and everything before it with it (paper, 5.4.2).
    pub(crate) fn begin_term(&mut self, out: &mut Vec<Output>) {
        let noop = Body::noop()
            .seal(self.me.group, &self.log.last(), self.hard.term)
            .expect("campaigning asked for room for one more entry");
        self.append_own(noop);
        self.advance_commit(out);
        if !self.plants.has(Plant::SilentWin) {
            self.replicate_to_all(out);
        }
    }

    /// Gives a batch its place in the own log. It goes to the disk and to the peers from there, in
    /// parallel; nothing counts yet.
    pub(crate) fn append_own(&mut self, batch: Batch) {
        let leader = self.role.leader_mut().expect("only leaders append");
        assert_eq!(
            batch.header.term, self.hard.term,
            "a leader appends in its own term"
        );
        leader.uncommitted_bytes += batch.cost();
        self.log.push(&batch);
        self.staged.append.push(batch);
    }

    /// A client wants a body in the log. The answer says where it stands, not that it is committed.
    pub(crate) fn on_propose(&mut self, id: ProposalId, body: Body, out: &mut Vec<Output>) {
        if let Some(reason) = self.refuses(&body) {
            self.reject(id, reason, out);
            return;
        }
        let count = body.count;
        let batch = match body.seal(self.me.group, &self.log.last(), self.hard.term) {
            Ok(batch) => batch,
            Err(error) => {
                let reason = match error {
                    BodyError::IndexExhausted => Reject::IndexExhausted,
                    BodyError::TooLong { .. } => Reject::TooLarge,
                    BodyError::Count { .. } | BodyError::Offsets => Reject::Malformed,
                };
                self.reject(id, reason, out);
                return;
            }
        };
        let first = LogId {
            term: batch.header.term,
            index: batch.header.first,
        };
        self.append_own(batch);
        out.push(Output::Respond(Response::Appended { id, first, count }));
        self.replicate_to_all(out);
    }

    /// Why this body is not taken, if it is not. Refusing is certain: nothing of it enters the log.
    fn refuses(&self, body: &Body) -> Option<Reject> {
        let Role::Leader(leader) = &self.role else {
            return Some(Reject::NotLeader);
        };
        if self.transfer.is_some() {
            return Some(Reject::TransferInProgress);
        }
        let len = body.bytes.len() as u64;
        // The offset table stays unread here; who applies the batch checks it. That it fits is plain.
        let counted = body.count >= 1 && 4 * u64::from(body.count) <= len;
        if body.kind != BatchKind::Commands || !counted {
            return Some(Reject::Malformed);
        }
        if len > u64::from(self.config.max_batch_bytes) {
            return Some(Reject::TooLarge);
        }
        self.refuses_bytes(
            leader.uncommitted_bytes,
            crate::batch::DESCRIPTOR_BYTES + len,
        )
    }

    /// A tick of a leader: heartbeats, and the question whether a quorum is still there.
    pub(crate) fn on_leader_tick(&mut self, out: &mut Vec<Output>) -> Option<Transition> {
        let (me, term, now) = (self.me, self.hard.term, self.now);
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let election_ticks = self.config.election_ticks;
        if self.config.check_quorum {
            let blind = self.plants.has(Plant::HeartbeatsHideStall);
            let live = self.memberships.active().voters().filter(|id| {
                let peer = leader.progress.get(id);
                *id == me.id
                    || peer.is_some_and(|p| p.is_live(now, election_ticks))
                    || (blind && peer.is_some_and(|p| now - p.heard < u64::from(election_ticks)))
            });
            if !self.memberships.active().is_quorum(live) {
                // Others may have elected a leader by now; clients must not wait here.
                return Some(Transition::Follow { term, leader: None });
            }
        }
        let resigned = self.tend_leadership(out);
        if resigned.is_some() {
            return resigned;
        }
        self.tend_members(out);
        let leader = self.role.leader_mut()?;
        // Heartbeats are apart from appends: bulk data and disks must not delay the proof of contact.
        leader.heartbeat_elapsed += 1;
        if leader.heartbeat_elapsed < self.config.heartbeat_ticks
            && !self.plants.has(Plant::HeartbeatsEveryTick)
        {
            return None;
        }
        leader.heartbeat_elapsed = 0;
        if leader.beats.len() == BEATS {
            leader.beats.pop_front();
        }
        leader.beats.push_back(leader.round + 1);
        self.begin_round(out);
        None
    }

    /// A heartbeat to every peer: by the timer, or because reads wait for one.
    pub(crate) fn begin_round(&mut self, out: &mut Vec<Output>) {
        let (me, term, now) = (self.me, self.hard.term, self.now);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        leader.round += 1;
        if self.config.lease.is_some() {
            leader
                .lease
                .sent(leader.round, now, self.config.election_ticks);
        }
        let all = self.plants.has(Plant::CommitsUnverified);
        for (peer, progress) in &mut leader.progress {
            // Not above what the peer is known to hold: its log beyond may be another.
            let commit = self.commit.min(progress.matched);
            progress.commit_told = progress.commit_told.max(commit);
            let message = Message::Heartbeat {
                // What is committed is in the log; what the peer holds may lie before it.
                commit: if commit == self.commit || all {
                    self.log.index(self.commit)
                } else {
                    progress.matched_id.index
                },
                round: leader.round,
            };
            out.push(me.send(*peer, term, message));
        }
    }

    /// The peer's progress, if this node leads `term` and the message is of the peer's living
    /// incarnation. A peer that has restarted has lost what was not durable there, and what it knew
    /// of this leader: it is probed again. What it had acknowledged it still has.
    pub(crate) fn heard_from(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
    ) -> Option<&mut Progress> {
        if term != self.hard.term && !self.plants.has(Plant::CountsEarlierTerms) {
            return None;
        }
        let earlier_lives = self.plants.has(Plant::CountsEarlierLives);
        let forgetful = self.plants.has(Plant::AnswersHideLoss);
        let (now, begin) = (self.now, self.log.begin());
        let leader = self.role.leader_mut()?;
        let progress = leader.progress.get_mut(&from)?;
        match progress.incarnation {
            // The word of a dead life. It was true; what it would bring, the living one knows too.
            Some(known) if incarnation < known && earlier_lives => return Some(progress),
            Some(known) if incarnation < known => return None,
            Some(known) if incarnation > known => {
                progress.begun_again(begin, now);
            }
            Some(_) | None => {}
        }
        progress.incarnation = Some(incarnation);
        progress.heard = now;
        progress.repeats &= !forgetful;
        Some(progress)
    }

    /// A heartbeat came back: the peer lives. It says nothing about its log. But an append or probe
    /// that was sent before that heartbeat and has no answer yet may be lost, so ask once more.
    pub(crate) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        (round, health): (u64, Health),
        out: &mut Vec<Output>,
    ) {
        let confirmed = self.confirmed_round();
        let Some(leader) = self.role.leader() else {
            return;
        };
        // A round that has not begun cannot be answered. And rounds that reads began follow one another
        // much faster than answers from a disk: only those of the timer say that something was lost.
        let begun = leader.round;
        let beats = leader.beats.iter().rev();
        let beat = beats.copied().find(|beat| *beat <= round).unwrap_or(0);
        let beat = if self.plants.has(Plant::NeverResends) {
            0
        } else {
            beat
        };
        self.suspect_life(from, incarnation, term, out);
        let Some(progress) = self.heard_from(from, incarnation, term) else {
            return;
        };
        if round > begun {
            return;
        }
        progress.answered = progress.answered.max(round);
        progress.health = health;
        let mut sent_upto = None;
        match &mut progress.stage {
            // The question is older than the round that came back: ask it again below.
            Stage::Probe { asked } => {
                if asked.is_some_and(|(_, asked_in)| asked_in < beat) {
                    *asked = None;
                }
            }
            Stage::Replicate { window, .. } => {
                if window.front().is_some_and(|sent| sent.round < beat) {
                    sent_upto = Some(progress.next);
                }
            }
            // The file is there: does the log begin with it by now?
            Stage::Snapshot { state, .. } => match state {
                Sending::Delivered(_) => sent_upto = Some(progress.next),
                Sending::UnderWay | Sending::Pausing(_) => {}
            },
        }
        let sent_upto = sent_upto.filter(|_| progress.auditing.is_none());
        if let Some(at) = sent_upto {
            self.needs_page(at, out);
        }
        if let Some(prev) = sent_upto.and_then(|at| self.log.position_in(at)) {
            // An empty append at the end of what was sent: an acceptance acknowledges all of it, a
            // rejection says from where to repeat.
            let message = Message::Append {
                prev,
                batches: Vec::new(),
                commit: self.commit(),
            };
            out.push(self.me.send(from, term, message));
        }
        if self.confirmed_round() > confirmed
            && let Some(leader) = self.role.leader_mut()
        {
            leader.confirmed_at = self.now;
        }
        self.review_snapshot(from);
        self.ask_diverged(from, out);
        self.replicate_to(from, out);
        self.confirm_reads(out);
    }

    /// The host has lost the connection to a peer.
    pub(crate) fn on_unreachable(&mut self, peer: NodeId) {
        let begin = self.log.begin();
        if let Some(leader) = self.role.leader_mut()
            && let Some(progress) = leader.progress.get_mut(&peer)
        {
            progress.disconnected(begin);
        }
    }

    /// A peer has answered an append. Peers can be wrong: what does not fit this log is ignored.
    pub(crate) fn on_append_reply(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        term: Term,
        reply: AppendReply,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        self.suspect_life(from, incarnation, term, out);
        let expected = self.heard_from(from, incarnation, term)?.expected();
        match reply {
            // Everything up to `matched` is this leader's log and durable there. Only a boundary of
            // this log can be meant.
            AppendReply::Accepted { matched } => {
                if self.needs_page_at(matched, out) {
                    return None;
                }
                let matched = match self.log.boundary_near(matched, expected) {
                    Some(matched) => matched,
                    None if self.plants.has(Plant::AcksPartOfBatch) => {
                        self.log.floor(matched).next().min(self.log.end())
                    }
                    None => return None,
                };
                let matched = if self.plants.has(Plant::CreditsLatest) {
                    (self.role.leader()?.progress.get(&from)?.next).max(matched)
                } else {
                    matched
                };
                let id = self.log.position(matched).id;
                let (now, end) = (self.now, self.log.end());
                let election_ticks = self.config.election_ticks;
                let progress = self.role.leader_mut()?.progress.get_mut(&from)?;
                let news = progress.acknowledged(matched, id, now);
                progress.catch_up.advance(matched, end, now, election_ticks);
                if news {
                    self.advance_commit(out);
                }
            }
            // The search for the common boundary goes on, or begins again.
            AppendReply::Rejected { prev, hint } => {
                // Backwards any known boundary will do. Forwards only the very one.
                let begins = hint.index > prev.index;
                if self.needs_page_at(prev.index, out)
                    || begins && self.needs_page_at(hint.index, out)
                {
                    return None;
                }
                self.suspect_rejection(from, (prev, hint), out);
                self.on_rejected(from, prev, hint);
                if self.plants.has(Plant::CommitsOnRejection) {
                    let matched = hint.index;
                    let reply = AppendReply::Accepted { matched };
                    return self.on_append_reply(from, incarnation, term, reply, out);
                }
            }
            // Two contents for one id: no search can repair that.
            AppendReply::Divergence { theirs, ours } => {
                return self.on_diverged(from, theirs, ours, out);
            }
        }
        self.replicate_to(from, out);
        self.ask_target(out);
        None
    }

    /// The peer does not have the boundary `prev`. The next question is the last boundary here that
    /// its hint leaves possible, and always before `prev`.
    fn on_rejected(&mut self, from: NodeId, prev: LogId, hint: LogId) {
        let Some(asked) = self.log.boundary_after(prev.index) else {
            return;
        };
        if self.log.position(asked).id != prev {
            return;
        }
        // The peer's log begins later than `prev`, with something that this log holds too: it is asked
        // for that.
        let begins = (hint.index > prev.index)
            .then(|| self.log.boundary_after(hint.index))
            .flatten()
            .filter(|at| self.log.position(*at).id == hint);
        // Otherwise the hint can only lower the question, as peers can be wrong.
        let mut limit = LogId {
            term: hint.term.min(prev.term),
            index: hint.index.min(prev.index.previous()),
        };
        if self.plants.has(Plant::SearchesEntryByEntry) {
            (limit.term, limit.index) = (prev.term, prev.index.previous());
        }
        let start = self.log.start().id;
        let next = match begins {
            Some(at) => at,
            // Not even the beginning of this log: the peer needs what is not in it any more.
            None if limit.index < start.index || limit.term < start.term => Boundary::default(),
            None if self.plants.has(Plant::ResendsFromStart) => self.log.begin(),
            None => self.log.floor_id(limit),
        };
        let now = self.now;
        let Some(leader) = self.role.leader_mut() else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&from) else {
            return;
        };
        let answers = match &progress.stage {
            // An answer to an earlier question says nothing about this one.
            Stage::Probe { asked } => asked.is_some_and(|(id, _)| id == prev),
            // What was sent ahead did not arrive. Below `matched` only a delayed duplicate can say
            // no, to a question that has long been answered.
            Stage::Replicate { .. } => asked <= progress.next,
            // The peer has not got there yet, or the question was of before.
            Stage::Snapshot { .. } => false,
        };
        // At `matched` there is nothing further back to ask for: the peer has lost what it had
        // acknowledged. The question stays open and is repeated with the heartbeats, not at once, and
        // the log does not count as moving.
        let at_once = self.plants.has(Plant::AsksAgainAtOnce);
        if answers && (asked > progress.matched || begins.is_some() || at_once) {
            progress.rejected(next, now);
        }
    }

    /// The log up to here is durable on a quorum. One rule for everybody, this node included: what counts
    /// is what is durable. So the others may form the quorum before the own disk is done.
    pub(crate) fn quorum_holds(&self, leader: &Leader) -> Boundary {
        let own = if self.plants.has(Plant::LeaderEarly) {
            self.log.end()
        } else {
            self.disk.log()
        };
        let holds = |id: NodeId| {
            let peer = leader.progress.get(&id);
            if id == self.me.id {
                own
            } else {
                peer.map_or(Boundary::default(), |peer| peer.matched)
            }
        };
        if self.plants.has(Plant::HalfIsQuorum) {
            let mut held: Vec<Boundary> = self.memberships.active().voters().map(holds).collect();
            held.sort_unstable();
            let half = held.len() / 2;
            return held.get(half).copied().unwrap_or_default();
        }
        (self.memberships.active()).quorum_value(Boundary::default(), holds)
    }

    /// Commits what a quorum of voters holds durably, from the first batch of this term on.
    pub(crate) fn advance_commit(&mut self, out: &mut Vec<Output>) {
        let any_term = self.plants.has(Plant::CommitOldTerm);
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let mut quorum = self.quorum_holds(leader);
        if self.plants.has(Plant::CommitsOneMore) {
            quorum = quorum.next().min(self.log.end());
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        // Copies of an entry of an earlier term prove nothing: a later leader may still lack it
        // (paper, 5.4.2 and figure 8).
        if quorum <= self.commit || (quorum <= leader.term_begin && !any_term) {
            return;
        }
        // Batch by batch: commit is always a batch end, and each batch leaves the account once.
        while self.commit < quorum {
            let header = self.log.header(self.commit).expect("commit is in the log");
            leader.uncommitted_bytes -= header.cost();
            self.unhanded_bytes += header.cost();
            self.commit = self.commit.next();
        }
        self.announce_commit(out);
        self.leave_joint(out);
        self.confirm_reads(out);
    }

    /// Tells the peers that wait for nothing else about the new commit index; the others learn it
    /// with the next append.
    fn announce_commit(&mut self, out: &mut Vec<Output>) {
        if let Some((leader, line)) = self.line() {
            for (peer, progress) in &mut leader.progress {
                line.tell_commit(*peer, progress, out);
            }
        }
    }

    /// Sends every peer whatever it may be sent now.
    pub(crate) fn replicate_to_all(&mut self, out: &mut Vec<Output>) {
        if let Some((leader, mut line)) = self.line() {
            for (peer, progress) in &mut leader.progress {
                line.replicate(*peer, progress, out);
            }
        }
    }

    /// Sends one peer whatever it may be sent now.
    pub(crate) fn replicate_to(&mut self, peer: NodeId, out: &mut Vec<Output>) {
        if let Some((leader, mut line)) = self.line()
            && let Some(progress) = leader.progress.get_mut(&peer)
        {
            line.replicate(peer, progress, out);
        }
    }

    /// Takes the leader's part from everything else that replication reads.
    pub(crate) fn line(&mut self) -> Option<(&mut Leader, Line<'_>)> {
        let leader = self.role.leader_mut()?;
        let line = Line {
            me: self.me,
            term: self.hard.term,
            config: &self.config,
            log: &self.log,
            commit: self.commit,
            now: self.now,
            round: leader.round,
            noop: leader.term_begin,
            // One that is not durable is not sent: a transfer must not outlive a crash of its source.
            snapshot: (self.snapshot.as_ref())
                .filter(|_| self.snapshot_seq <= self.disk.completed()),
            snapshot_at: self.snapshot_at,
            reading: &mut self.paging.reading,
            next_load: &mut self.next_load,
        };
        Some((leader, line))
    }

    /// Batches for a peer were read from disk. They go out as they are; the cache stays that of the
    /// recent batches.
    pub(crate) fn send_loaded(&mut self, peer: NodeId, batches: Vec<Batch>, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&peer) else {
            return;
        };
        if let Stage::Replicate { loading, .. } = &mut progress.stage {
            *loading = None;
        }
        let mut sent = Sent {
            end: progress.next,
            bytes: 0,
            round,
        };
        for batch in &batches {
            sent.end = sent.end.next();
            sent.bytes += batch.cost();
        }
        let prev = self.log.position(progress.next);
        progress.sent(sent, self.now);
        progress.commit_told = progress.commit_told.max(self.commit);
        let message = Message::Append {
            prev,
            batches,
            commit: self.log.index(self.commit),
        };
        out.push(self.me.send(peer, self.hard.term, message));
        self.replicate_to(peer, out);
    }
}

/// Everything but the peer that replication needs.
///
/// A borrow of the rest of the node, so that a peer's progress can change while the log is read.
pub(crate) struct Line<'a> {
    me: Sender,
    pub(crate) term: Term,
    config: &'a Config,
    pub(crate) log: &'a Log,
    commit: Boundary,
    pub(crate) now: u64,
    round: u64,
    noop: Boundary,
    pub(crate) snapshot: Option<&'a Snapshot>,
    pub(crate) snapshot_at: Boundary,
    reading: &'a mut Option<(LoadId, Boundary)>,
    next_load: &'a mut LoadId,
}

impl Line<'_> {
    /// Sends a peer whatever it may be sent now.
    fn replicate(&mut self, peer: NodeId, progress: &mut Progress, out: &mut Vec<Output>) {
        // The peer contradicts this log, and this node is looking who is right.
        if progress.auditing.is_some() {
            return;
        }
        // What the peer needs next is not in the log any more.
        if progress.next < self.log.begin() {
            match &progress.stage {
                Stage::Probe { .. } | Stage::Replicate { .. } => {
                    self.send_snapshot(peer, progress, out);
                }
                Stage::Snapshot { .. } => {}
            }
            return;
        }
        // What it needs next has left memory: the page comes first.
        if let Some(wanted) = self.log.wanted(progress.next) {
            if self.reading.is_none() && !progress.is_receiving() {
                let load = page_load(*self.next_load, &wanted);
                self.next_load.0 += 1;
                *self.reading = Some((load.id, wanted.begin));
                out.push(Output::Load(load));
            }
            return;
        }
        // One question at a time. Flooding a peer whose log is unknown would be wasted in both ways: if
        // it answers no, and if it does not answer.
        if let Stage::Probe { asked } = &mut progress.stage {
            if asked.is_none() {
                let prev = self.log.position(progress.next);
                *asked = Some((prev.id, self.round));
                let batches = self.probe_batches(progress.next);
                self.append(peer, prev, batches, out);
            }
            return;
        }
        let Config {
            inflight_messages_max,
            inflight_bytes_max,
            ..
        } = *self.config;
        // Ahead of the answers, as far as the window goes.
        while progress.next < self.log.end() {
            let Some(room) = progress.room(inflight_messages_max, inflight_bytes_max) else {
                return;
            };
            let (end, bytes) = self.fill(progress.next, room.bytes, room.one_whole);
            if end == progress.next {
                return;
            }
            // Too old for the cache: from the disk, while newer batches wait their turn.
            if progress.next < self.log.cached_from() {
                self.load(progress, end, room.bytes, out);
                return;
            }
            let prev = self.log.position(progress.next);
            let mut batches = Vec::with_capacity(1);
            let mut at = progress.next;
            while at < end {
                batches.push(self.log.cached(at).expect("checked by cached_from"));
                at = at.next();
            }
            let round = self.round;
            progress.sent(Sent { end, bytes, round }, self.now);
            progress.commit_told = progress.commit_told.max(self.commit);
            self.append(peer, prev, batches, out);
        }
        self.tell_commit(peer, progress, out);
    }

    /// A probe is empty, so that a rejection wastes nothing. The no-op that begins the term weighs
    /// nothing either and saves a peer that is up to date one round trip.
    fn probe_batches(&self, at: Boundary) -> Vec<Batch> {
        if at == self.noop {
            self.log.cached(at).into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// How far the batches from `at` on go that fit an append and `room`.
    fn fill(&self, at: Boundary, room: u64, one_whole: bool) -> (Boundary, u64) {
        let mut end = at;
        let mut bytes = 0;
        while let Some(header) = self.log.header(end) {
            let cost = header.cost();
            let fits = if end == at {
                one_whole || cost <= room
            } else {
                bytes + cost <= room.min(self.config.append_bytes_max)
            };
            if !fits {
                break;
            }
            bytes += cost;
            end = end.next();
        }
        (end, bytes)
    }

    /// Asks for batches that have left the cache; one request per peer.
    fn load(&mut self, progress: &mut Progress, end: Boundary, room: u64, out: &mut Vec<Output>) {
        let Stage::Replicate { loading, .. } = &mut progress.stage else {
            return;
        };
        let id = *self.next_load;
        self.next_load.0 += 1;
        *loading = Some(id);
        out.push(Output::Load(Load {
            id,
            first: self.log.first_after(progress.next),
            last: self.log.index(end.min(self.log.cached_from())),
            bytes_max: room.min(self.config.append_bytes_max),
        }));
    }

    /// An append with the present commit index.
    fn append(&self, to: NodeId, prev: Position, batches: Vec<Batch>, out: &mut Vec<Output>) {
        let message = Message::Append {
            prev,
            batches,
            commit: self.log.index(self.commit),
        };
        out.push(self.me.send(to, self.term, message));
    }

    /// An empty append that carries the commit index to a peer that has everything and would
    /// otherwise learn it with the next heartbeat.
    fn tell_commit(&self, peer: NodeId, progress: &mut Progress, out: &mut Vec<Output>) {
        let commit = self.commit.min(progress.matched);
        let idle = progress.is_idle() && progress.next == self.log.end();
        if idle && progress.commit_told < commit {
            progress.commit_told = commit;
            let prev = self.log.position(progress.matched);
            self.append(peer, prev, Vec::new(), out);
        }
    }
}
