//! A node and what it can do.

use super::logs::{Log, Logs};
use super::said::Message;

/// The part a node plays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// Follows, or waits. Whoever only asks whether a campaign could win has promised nothing.
    Follower,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// What a disk holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record {
    /// The term.
    pub term: u64,
    /// Who has the vote in it.
    pub vote: Option<u64>,
    /// The log.
    pub log: Log,
}

/// The state of a node: what it knows, what is durable of it, and what is on its way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Node {
    /// Term, vote and log as the node sees them.
    pub record: Record,
    /// Its part.
    pub part: Part,
    /// The log was compared with this term's leader up to here.
    pub verified: u64,
    /// Committed up to here, as far as the node knows.
    pub commit: u64,
    /// What is durable.
    pub durable: Record,
    /// What will be after each write under way.
    pub writes: Vec<Record>,
}

/// What a node can do. The parameters are what TLA+ quantifies over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It campaigns in the next term.
    Timeout,
    /// It hears of a later term.
    Learn {
        /// That term.
        term: u64,
    },
    /// It gives up a campaign or a leadership.
    Resign,
    /// It votes.
    Grant {
        /// The candidate's term.
        term: u64,
        /// The candidate.
        to: u64,
    },
    /// It has won; its log with the first entry of the term.
    Lead {
        /// The log then.
        log: Log,
    },
    /// It appends an entry of its own.
    Client {
        /// The log then.
        log: Log,
    },
    /// It takes over a leader's log so far, or nothing of it, and believes a commit index.
    RecvAE {
        /// The leader's term.
        term: u64,
        /// What of the leader's log has come.
        log: Log,
        /// The commit index that came with it.
        commit: u64,
    },
    /// It commits what a quorum holds.
    Commit {
        /// Up to here.
        upto: u64,
    },
    /// Writes are reported durable, and a leader may commit on that.
    Done {
        /// How many.
        writes: usize,
        /// The commit index then.
        commit: u64,
    },
    /// Power is lost and comes back.
    Crash {
        /// How many of the writes under way have reached the disk.
        kept: usize,
        /// What is known to be committed: it was applied, or stands in a snapshot.
        commit: u64,
    },
}

impl Action {
    /// The formula's name.
    pub fn name(&self) -> &'static str {
        match self {
            Action::Timeout => "Timeout",
            Action::Learn { .. } => "Learn",
            Action::Resign => "Resign",
            Action::Grant { .. } => "Grant",
            Action::Lead { .. } => "Lead",
            Action::Client { .. } => "Client",
            Action::RecvAE { .. } => "RecvAE",
            Action::Commit { .. } => "Commit",
            Action::Done { .. } => "Done",
            Action::Crash { .. } => "Crash",
        }
    }
}

impl Node {
    /// A node that has just begun from what its disk holds.
    pub fn booted(durable: Record) -> Node {
        Node {
            record: durable,
            part: Part::Follower,
            verified: 0,
            commit: 0,
            durable,
            writes: Vec::new(),
        }
    }

    /// How much of this node's log survives any crash from now on, whatever of the writes gets done.
    pub fn held(&self, logs: &Logs) -> u64 {
        let least = |held: Log, record: &Record| logs.common(held, record.log);
        let held = least(self.record.log, &self.durable);
        logs.len(self.writes.iter().fold(held, least))
    }

    /// What `act` would make of this node in its own right; `None` where the node's own state forbids it.
    /// Whether others have said what the action needs is `Said::permits`'s question.
    pub fn act(&self, me: u64, action: Action, logs: &Logs) -> Option<Node> {
        let mut new = self.clone();
        let old = self.record;
        match action {
            Action::Timeout => {
                let settled = (self.durable.term, self.durable.vote) == (old.term, old.vote);
                if self.part == Part::Leader || !settled {
                    return None;
                }
                new.enter(old.term + 1, Some(me), Part::Candidate);
            }
            Action::Learn { term } if term > old.term => new.enter(term, None, Part::Follower),
            Action::Resign if self.part != Part::Follower => {
                new.part = Part::Follower;
                new.verified = 0;
            }
            Action::Grant { term, to } if to != me && term > old.term => {
                new.enter(term, Some(to), Part::Follower);
            }
            Action::Grant { term, to } if to != me && term == old.term => {
                if self.part != Part::Follower || old.vote.is_some() {
                    return None;
                }
                new.record.vote = Some(to);
            }
            Action::Lead { log } if self.part == Part::Candidate => {
                new.part = Part::Leader;
                new.record.log = log;
            }
            Action::Client { log } if self.part == Part::Leader => new.record.log = log,
            Action::RecvAE { term, log, commit } if term >= old.term => {
                if term > old.term {
                    new.enter(term, None, Part::Follower);
                } else if self.part == Part::Leader {
                    return None;
                }
                new.part = Part::Follower;
                new.record.log = logs.merge(log, old.log);
                new.verified = new.verified.max(logs.len(log));
                let believed = logs.prefix(new.record.log, commit.min(new.verified));
                new.commit = new.commit.max(logs.len(believed));
            }
            Action::Commit { upto } if self.part == Part::Leader && upto > self.commit => {
                new.commit = upto;
            }
            Action::Done { writes, commit } if (1..=self.writes.len()).contains(&writes) => {
                let leads = self.part == Part::Leader && commit > self.commit;
                if commit != self.commit && !leads {
                    return None;
                }
                new.durable = self.writes[writes - 1];
                new.writes.drain(..writes);
                new.commit = commit;
                return Some(new);
            }
            Action::Crash { kept, commit } if kept <= self.writes.len() => {
                let survives = kept.checked_sub(1).map(|last| self.writes[last]);
                let mut booted = Node::booted(survives.unwrap_or(self.durable));
                let common = logs.common(booted.record.log, old.log);
                booted.commit = commit;
                return (commit <= self.commit.min(logs.len(common))).then_some(booted);
            }
            Action::Learn { .. }
            | Action::Resign
            | Action::Grant { .. }
            | Action::Lead { .. }
            | Action::Client { .. }
            | Action::RecvAE { .. }
            | Action::Commit { .. }
            | Action::Done { .. }
            | Action::Crash { .. } => return None,
        }
        if new.record != old {
            new.writes.push(new.record);
        }
        Some(new)
    }

    fn enter(&mut self, term: u64, vote: Option<u64>, part: Part) {
        self.record.term = term;
        self.record.vote = vote;
        self.part = part;
        self.verified = 0;
    }

    /// Everything this node may say now.
    pub fn promises(&self, me: u64, logs: &Logs) -> Vec<Message> {
        let Record { term, log, .. } = self.record;
        let mut said = Vec::new();
        if let Some(to) = self.durable.vote {
            let term = self.durable.term;
            let from = me;
            said.push(Message::Vote { term, to, from });
        }
        match self.part {
            Part::Candidate => {
                if (self.durable.term, self.durable.vote) == (term, Some(me)) {
                    said.push(Message::Request {
                        term,
                        from: me,
                        last: (logs.last(log).term, logs.len(log)),
                    });
                }
            }
            Part::Leader => said.push(Message::Entries {
                term,
                from: me,
                log,
            }),
            Part::Follower => {
                let upto = self.verified.min(self.held(logs));
                if upto > 0 && self.durable.term == term {
                    said.push(Message::Ack {
                        term,
                        from: me,
                        upto,
                    });
                }
            }
        }
        said
    }

    /// The action that leads from this state to `new`, if there is one that is allowed.
    pub fn explain(
        &self,
        me: u64,
        new: &Node,
        logs: &Logs,
        allowed: &dyn Fn(&Node, Action) -> bool,
    ) -> Option<Action> {
        let leads = |action: &Action| {
            self.act(me, *action, logs).as_ref() == Some(new) && allowed(self, *action)
        };
        self.towards(new, logs).into_iter().find(leads)
    }

    /// Actions that could lead to `new`, or part of the way: their parameters are read off it.
    pub(crate) fn towards(&self, new: &Node, logs: &Logs) -> Vec<Action> {
        let Record { term, vote, log } = new.record;
        let commit = new.commit;
        let taken = logs.prefix(log, new.verified);
        let mut actions = vec![Action::Timeout, Action::Resign, Action::Learn { term }];
        actions.extend(vote.map(|to| Action::Grant { term, to }));
        if let Some(log) = logs.next(self.record.log, log) {
            actions.extend([Action::Lead { log }, Action::Client { log }]);
        }
        // A commit index that was known before need not have been told again.
        let told = if commit == self.commit { 0 } else { commit };
        let received = |log| Action::RecvAE {
            term,
            log,
            commit: told,
        };
        actions.extend([taken, Log::EMPTY].map(received));
        actions.push(Action::Commit { upto: commit });
        for writes in 1..=self.writes.len() {
            let commits = [self.commit, commit];
            actions.extend(commits.map(|commit| Action::Done { writes, commit }));
        }
        actions
    }
}
