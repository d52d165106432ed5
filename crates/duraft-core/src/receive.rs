//! Messages as they come in: what may be acted on, what changes whom this node follows, and who deals
//! with the rest.

use crate::batch::{Batch, check_count};
use crate::change::is_usable;
use crate::io::Output;
use crate::message::{Envelope, Message};
use crate::plant::Plant;
use crate::raft::Raft;
use crate::role::{Role, Transition};
use crate::types::{Position, Term};
use alloc::vec::Vec;

impl Raft {
    /// A message: is it sound, does it change whom this node follows, and what does it say?
    ///
    /// After the first two questions each handler can rely on this: the envelope's term is at most this
    /// node's, and if it is equal and the sender leads it, this node follows the sender.
    pub(crate) fn on_received(
        &mut self,
        envelope: Envelope,
        out: &mut Vec<Output>,
    ) -> Option<Transition> {
        if !self.is_sound(&envelope) || self.plant_dense(envelope.from) {
            return None;
        }
        self.note_sender(envelope.from);
        if let Message::Vote { forced: false, .. } = envelope.message
            && self.config.check_quorum
            && envelope.term > self.hard.term
            && self.hears_leader()
        {
            // A leader is alive as far as this node can tell. Whoever campaigns now has lost touch or
            // was removed; taking its term would depose a working leader (thesis 4.2.3).
            return None;
        }
        if envelope.term > self.hard.term && self.is_flooded() {
            return None;
        }
        if let Some(follow) = self.adopts(&envelope) {
            let next = self.enter(follow, out);
            assert!(next.is_none(), "following leads nowhere else");
        }
        let Envelope {
            from,
            incarnation,
            term,
            message,
            ..
        } = envelope;
        match message {
            Message::PreVote { wanted, last } => {
                self.on_pre_vote(from, wanted, last, out);
                None
            }
            Message::PreVoteReply { wanted, granted } => {
                self.on_pre_vote_reply(from, wanted, granted)
            }
            Message::Vote { last, forced } => self.on_vote(from, term, (last, forced), out),
            Message::VoteReply { granted } => self.on_vote_reply(from, term, granted),
            Message::Append {
                prev,
                batches,
                commit,
            } => self.on_append(from, term, prev, batches, commit, out),
            Message::AppendReply(reply) => {
                self.on_append_reply(from, incarnation, term, reply, out)
            }
            Message::Heartbeat { commit, round } => {
                self.on_heartbeat(from, term, commit, round, out);
                None
            }
            Message::HeartbeatReply { round, health } => {
                self.on_heartbeat_reply(from, incarnation, term, (round, health), out);
                None
            }
            Message::TimeoutNow => self.on_timeout_now(from, term),
            Message::ReadIndex { id } => {
                self.on_read_index(from, incarnation, term, id, out);
                None
            }
            Message::ReadIndexReply { id, asker, index } => {
                self.on_read_index_reply(from, term, asker, (id, index), out);
                None
            }
            Message::Fetch { after } => {
                self.on_fetch(from, after, out);
                None
            }
            Message::Fetched { after, batches } => self.on_fetched(from, after, batches, out),
            Message::DamageReport { needs_snapshot, .. } => {
                self.on_damage_report(from, incarnation, needs_snapshot, out);
                None
            }
            Message::Heal { asker, to } => {
                self.on_heal(from, term, asker, to);
                None
            }
            Message::TermQuery => {
                self.on_term_query(from, incarnation, out);
                None
            }
            Message::TermReply { asker, voters } => {
                self.on_term_reply(from, asker, &voters);
                None
            }
            Message::RolledBack { seen } => self.on_rolled_back(from, term, seen),
        }
    }

    /// Is this a message this node may act on? Everything a peer can get wrong by itself is refused
    /// here, before any state changes.
    fn is_sound(&self, envelope: &Envelope) -> bool {
        let addressed = envelope.group == self.me.group
            && envelope.to == self.me.id
            && envelope.from != self.me.id;
        addressed
            && match &envelope.message {
                // A log never holds a term its owner has not reached, and nobody asks for less.
                Message::PreVote { wanted, last } => last.term < *wanted,
                Message::Vote { last, .. } => last.term < envelope.term,
                Message::Append { prev, batches, .. } => {
                    self.is_chain(envelope.term, prev, batches)
                }
                Message::PreVoteReply { .. }
                | Message::VoteReply { .. }
                | Message::AppendReply(_)
                | Message::Heartbeat { .. }
                | Message::HeartbeatReply { .. }
                | Message::TimeoutNow
                | Message::ReadIndex { .. }
                | Message::ReadIndexReply { .. }
                | Message::Fetch { .. }
                | Message::DamageReport { .. }
                | Message::Heal { .. }
                | Message::TermQuery
                | Message::TermReply { .. }
                | Message::RolledBack { .. } => true,
                Message::Fetched { after, batches } => self.is_chain(envelope.term, after, batches),
            }
    }

    /// Do these batches follow `prev` and one another by index, term and digest, within the cluster's
    /// limits? Then trusting the first boundary means trusting them all.
    fn is_chain(&self, term: Term, prev: &Position, batches: &[Batch]) -> bool {
        if prev.term() > term {
            return false;
        }
        let mut end = *prev;
        for batch in batches {
            let header = &batch.header;
            let fits = end
                .index()
                .0
                .checked_add(u64::from(header.count) + 1)
                .is_some();
            let sound = fits
                && header.group == self.me.group
                && check_count(header.kind, header.count).is_ok()
                && header.term <= term
                && header.body_len <= self.config.max_batch_bytes
                && usize::try_from(header.body_len) == Ok(batch.body.len())
                && header.follows(&end)
                && is_usable(batch);
            if !sound {
                return false;
            }
            end = header.position();
        }
        true
    }

    /// Does this message make its receiver a follower, or name it its leader?
    fn adopts(&self, envelope: &Envelope) -> Option<Transition> {
        let follow = |leader| {
            Some(Transition::Follow {
                term: envelope.term,
                leader,
            })
        };
        match &envelope.message {
            // A pre-vote is a question about the future and changes no term: the asker may be the one
            // that has lost touch.
            Message::PreVote { .. } => None,
            // Only a leader sends these: in a later term it is news, in this term it ends any
            // campaign of ours (paper, 5.2). A known leader is never exchanged within a term.
            Message::Append { .. } | Message::Heartbeat { .. } => {
                let news = match &self.role {
                    Role::Follower(follower) => follower.leader.is_none(),
                    Role::PreCandidate(_) | Role::Candidate(_) => {
                        !self.plants.has(Plant::CandidateIgnoresLeader)
                    }
                    Role::Leader(_) => false,
                };
                if self.plants.has(Plant::KeepsOwnTerm) && envelope.term > self.hard.term {
                    return None;
                }
                if envelope.term > self.hard.term || (envelope.term == self.hard.term && news) {
                    return follow(Some(envelope.from));
                }
                None
            }
            // A later term is adopted from anybody: its sender has made it durable (paper, 5.1).
            Message::Vote { .. }
            | Message::VoteReply { .. }
            | Message::PreVoteReply { .. }
            | Message::AppendReply(_)
            | Message::HeartbeatReply { .. }
            | Message::TimeoutNow
            | Message::ReadIndex { .. }
            | Message::ReadIndexReply { .. }
            | Message::Fetch { .. }
            | Message::Fetched { .. }
            | Message::DamageReport { .. }
            | Message::Heal { .. }
            | Message::TermQuery
            | Message::TermReply { .. }
            | Message::RolledBack { .. } => {
                let vote = matches!(envelope.message, Message::Vote { .. });
                let deposes = self.plants.has(Plant::SameTermVoteDeposes)
                    && vote
                    && envelope.term == self.hard.term;
                if envelope.term > self.hard.term || deposes {
                    return follow(None);
                }
                None
            }
        }
    }
}
