//! Everything that was ever said, and what it allows.

use super::logs::{Log, Logs};
use super::node::{Action, Node, Part};
use duraft_core::{Membership, NodeId};
use std::collections::BTreeSet;

/// A promise. Fields are in the order in which they are looked up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Message {
    /// `from` votes for `to`.
    Vote {
        /// In this term.
        term: u64,
        /// The candidate.
        to: u64,
        /// The voter, which may be the candidate.
        from: u64,
    },
    /// `from` asks for votes.
    Request {
        /// In this term.
        term: u64,
        /// The candidate.
        from: u64,
        /// Term and index of its last entry.
        last: (u64, u64),
    },
    /// The leader's log.
    Entries {
        /// Its term.
        term: u64,
        /// The leader.
        from: u64,
        /// The log.
        log: Log,
    },
    /// `from` holds the leader's log durably.
    Ack {
        /// The leader's term.
        term: u64,
        /// The follower.
        from: u64,
        /// Up to this index.
        upto: u64,
    },
}

/// See the module documentation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Said {
    /// Promises.
    pub messages: BTreeSet<Message>,
    /// Log prefixes that some node called committed, by the term it did so in.
    pub committed: BTreeSet<(u64, Log)>,
    /// The greatest term that is durable anywhere.
    pub highest: u64,
}

impl Said {
    /// A node's state has become `new`: it has said what it may say, and called committed what it does.
    pub fn note(&mut self, me: u64, old: &Node, new: &Node, logs: &Logs) {
        self.messages.extend(new.promises(me, logs));
        self.highest = self.highest.max(new.durable.term);
        let leads = new.part == Part::Leader && old.part != Part::Leader && new.commit > 0;
        if new.commit > old.commit || leads {
            let prefix = logs.prefix(new.record.log, new.commit);
            self.committed.insert((new.record.term, prefix));
        }
    }

    /// Has `to` the votes of a quorum? `own`: its own is durable.
    pub fn elects(&self, term: u64, (to, own): (u64, bool), voters: &Membership) -> bool {
        let of = |from| Message::Vote { term, to, from };
        let votes = self.messages.range(of(0)..=of(u64::MAX));
        let votes = votes.filter_map(|vote| match vote {
            Message::Vote { from, .. } => Some(NodeId(*from)),
            Message::Request { .. } | Message::Entries { .. } | Message::Ack { .. } => None,
        });
        voters.is_quorum(votes.chain(own.then_some(NodeId(to))))
    }

    /// Does a quorum hold the log of `term`'s leader up to `upto`? `own`: the leader itself does.
    pub fn covers(
        &self,
        term: u64,
        upto: u64,
        (leader, own): (u64, bool),
        voters: &Membership,
    ) -> bool {
        let holds = |id: &NodeId| {
            let of = |upto| Message::Ack {
                term,
                from: id.0,
                upto,
            };
            let acks = || self.messages.range(of(upto)..=of(u64::MAX)).next();
            (own && id.0 == leader) || acks().is_some()
        };
        voters.is_quorum(voters.members().filter(holds))
    }

    /// Has a leader of `term` other than `me` had this log, or a longer one?
    pub fn led(&self, me: u64, term: u64, log: Log, logs: &Logs) -> bool {
        let of = |term| Message::Entries {
            term,
            from: 0,
            log: Log::EMPTY,
        };
        // The newest first: that is what is asked for most.
        let mut heard = self.messages.range(of(term)..of(term + 1)).rev();
        let matches = |message: &Message| match message {
            Message::Entries { from, log: led, .. } => *from != me && logs.is_prefix(log, *led),
            Message::Vote { .. } | Message::Request { .. } | Message::Ack { .. } => false,
        };
        heard.any(matches)
    }

    /// Has a candidate asked in this term with a log that is as good as `log`?
    pub fn asked(&self, term: u64, to: u64, log: Log, logs: &Logs) -> bool {
        let of = |last| Message::Request {
            term,
            from: to,
            last,
        };
        let own = (logs.last(log).term, logs.len(log));
        let better = of(own)..=of((u64::MAX, u64::MAX));
        self.messages.range(better).next().is_some()
    }

    /// Could `commit` have been told in this term? 0 always.
    pub fn told(&self, term: u64, commit: u64, logs: &Logs) -> bool {
        let of_term = (term, Log::EMPTY)..(term + 1, Log::EMPTY);
        let mut of_term = self.committed.range(of_term).rev();
        commit == 0 || of_term.any(|(_, log)| logs.len(*log) >= commit)
    }

    /// Has been said what this action of `me` needs, with everybody in `voters`?
    pub fn permits(
        &self,
        me: u64,
        node: &Node,
        action: Action,
        logs: &Logs,
        voters: &Membership,
    ) -> bool {
        let record = node.record;
        let covered = |node: &Node, upto: u64| {
            let own = node.held(logs) >= upto;
            let last = logs.last(logs.prefix(record.log, upto));
            last.last == upto
                && last.term == record.term
                && self.covers(record.term, upto, (me, own), voters)
        };
        match action {
            Action::Timeout | Action::Resign | Action::Crash { .. } => true,
            Action::Learn { term } => term <= self.highest,
            Action::Grant { term, to } => self.asked(term, to, record.log, logs),
            // A leader without room for its first entry commits nothing: only small scopes have such.
            Action::Lead { log } => {
                let begun = logs.parent(log) == record.log && logs.last(log).term == record.term;
                let durable = node.durable;
                let own = (durable.term, durable.vote) == (record.term, Some(me));
                (begun || log == record.log) && self.elects(record.term, (me, own), voters)
            }
            Action::Client { log } => {
                log != Log::EMPTY
                    && logs.parent(log) == record.log
                    && logs.last(log).term == record.term
            }
            Action::RecvAE { term, log, commit } => {
                self.led(me, term, log, logs) && self.told(term, commit, logs)
            }
            Action::Commit { upto } => covered(node, upto),
            Action::Done { commit, .. } if commit == node.commit => true,
            Action::Done { commit, .. } => {
                let done = node.act(me, action, logs);
                node.part == Part::Leader && done.is_some_and(|done| covered(&done, commit))
            }
        }
    }
}
