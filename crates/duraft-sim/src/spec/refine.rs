//! The real core as the specification sees it: which state of the specification's node a core is in,
//! which actions its last step was, and whether what it sent may be said.
//!
//! The map:
//!
//! | specification | core |
//! |---|---|
//! | term, vote, part, `ci` | `term`, `vote`, `role`, `commit`; whoever only asks whether a campaign could win follows |
//! | log | the chain of batches: an entry is a batch, its payload the digest of the log up to it |
//! | `ver` | `verified` of a follower |
//! | durable part, writes under way | the writes that were issued, applied in order; one that changes neither term, vote nor log is none |
//!
//! A log that was compacted, or replaced by a snapshot of it, is the same log. One step is one action or
//! none; what one action enables at once may follow in the same step (a completion that elects the
//! only voter, a commit that leads out of a joint membership), up to a bound that the caller sets.

use super::logs::{Entry, Log, Logs};
use super::node::{Action, Node, Part, Record};
use duraft_core::{
    AppendReply, Batch, BatchHeader, Envelope, HardState, Message, Position, Raft, RoleKind, Write,
};
use std::collections::HashMap;

/// The logs of cores by name.
#[derive(Clone, Debug)]
pub struct Names {
    /// The logs.
    pub logs: Logs,
    /// A digest names the whole log up to it.
    by_digest: HashMap<u64, Log>,
}

impl Default for Names {
    fn default() -> Self {
        let empty = (Position::START.digest.0, Log::EMPTY);
        Names {
            logs: Logs::default(),
            by_digest: HashMap::from([empty]),
        }
    }
}

impl Names {
    /// The log that ends at this boundary, if it has been seen.
    pub fn at(&self, position: &Position) -> Option<Log> {
        self.by_digest.get(&position.digest.0).copied()
    }

    /// The log that begins at `start`, which is known, and goes on with these batches.
    pub fn name<'a>(
        &mut self,
        start: &Position,
        headers: impl DoubleEndedIterator<Item = &'a BatchHeader>,
    ) -> Option<Log> {
        let mut unknown = Vec::new();
        let mut log = None;
        for header in headers.rev() {
            log = self.at(&header.position());
            if log.is_some() {
                break;
            }
            unknown.push(header);
        }
        let mut log = log.or_else(|| self.at(start))?;
        for header in unknown.into_iter().rev() {
            let entry = Entry {
                last: header.last().0,
                term: header.term.0,
                payload: header.digest.0,
            };
            log = self.logs.extend(log, entry);
            self.by_digest.insert(header.digest.0, log);
        }
        Some(log)
    }

    /// The log that a write leaves behind on top of `record`.
    pub fn written(&mut self, record: Record, write: &Write) -> Option<Record> {
        let mut after = record;
        if let Some(HardState { term, vote }) = write.hard_state {
            after.term = term.0;
            after.vote = vote.map(|id| id.0);
        }
        if let Some(snapshot) = write.snapshot.as_ref().filter(|snapshot| snapshot.reset) {
            after.log = self.at(&snapshot.snapshot.position)?;
        }
        if let Some(at) = &write.truncate {
            after.log = self.at(at)?;
        }
        after.log = self.append(after.log, &write.append);
        Some(after)
    }

    fn append(&mut self, log: Log, batches: &[Batch]) -> Log {
        batches.iter().fold(log, |log, batch| {
            let entry = Entry {
                last: batch.header.last().0,
                term: batch.header.term.0,
                payload: batch.header.digest.0,
            };
            let log = self.logs.extend(log, entry);
            self.by_digest.insert(batch.header.digest.0, log);
            log
        })
    }

    /// The core's state now, with what is durable and under way as the disk has it. `None` if its log
    /// begins where no log is known.
    pub fn observe(&mut self, raft: &Raft, durable: Record, writes: Vec<Record>) -> Option<Node> {
        // What has left the core's memory keeps its name: its digest is that of where the rest begins.
        let log = self.name(&raft.shape_start(), raft.headers())?;
        let part = match raft.role() {
            RoleKind::Follower | RoleKind::PreCandidate => Part::Follower,
            RoleKind::Candidate => Part::Candidate,
            RoleKind::Leader => Part::Leader,
        };
        Some(Node {
            record: Record {
                term: raft.term().0,
                vote: raft.vote().map(|id| id.0),
                log,
            },
            part,
            verified: if part == Part::Follower {
                raft.verified().0
            } else {
                0
            },
            commit: raft.commit().0,
            durable,
            writes,
        })
    }
}

/// The actions that lead from one state of a node to another, in at most `most` steps; none if the
/// states are the same. The states in between are returned too: each of them may have said something.
pub fn path(
    me: u64,
    (from, to): (&Node, &Node),
    most: usize,
    logs: &Logs,
    allowed: &dyn Fn(&Node, Action) -> bool,
) -> Option<Vec<(Action, Node)>> {
    if from == to {
        return Some(Vec::new());
    }
    if most == 0 {
        return None;
    }
    if let Some(action) = from.explain(me, to, logs, allowed) {
        return Some(vec![(action, to.clone())]);
    }
    for action in from.towards(to, logs) {
        let Some(middle) = from.act(me, action, logs) else {
            continue;
        };
        if middle == *from || most == 1 || !allowed(from, action) {
            continue;
        }
        if let Some(mut rest) = path(me, (&middle, to), most - 1, logs, allowed) {
            rest.insert(0, (action, middle));
            return Some(rest);
        }
    }
    None
}

/// May a node in this state send this? The reason if not.
pub fn may_say(me: u64, node: &Node, envelope: &Envelope, names: &Names) -> Result<(), String> {
    let logs = &names.logs;
    let Record { term, log, .. } = node.record;
    let current = envelope.term.0 == term;
    let demand = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
    let durable = envelope.term.0 <= node.durable.term;
    demand(durable, "a message of a term that is not durable")?;
    match &envelope.message {
        Message::Vote { last, .. } => {
            let own = (node.durable.term, node.durable.vote) == (term, Some(me));
            let end = logs.last(log);
            let mine = (last.term.0, last.index.0) == (end.term, end.last);
            let asks = node.part == Part::Candidate && current && own && mine;
            demand(asks, "a request for votes that is no promise of this state")
        }
        Message::VoteReply { granted: true } => demand(
            (node.durable.term, node.durable.vote) == (envelope.term.0, Some(envelope.to.0)),
            "a vote that is not durable",
        ),
        Message::Append {
            prev,
            batches,
            commit,
        } => {
            let end = batches
                .last()
                .map_or(*prev, |batch| batch.header.position());
            let led = names.at(&end).is_some_and(|sent| logs.is_prefix(sent, log));
            let leads = node.part == Part::Leader && current && led && commit.0 <= node.commit;
            demand(
                leads,
                "entries or a commit index that are not this leader's",
            )
        }
        Message::Heartbeat { commit, .. } => demand(
            node.part == Part::Leader && current && commit.0 <= node.commit,
            "a commit index that is not this leader's",
        ),
        Message::AppendReply(AppendReply::Accepted { matched }) => demand(
            node.part == Part::Follower
                && current
                && matched.0 <= node.verified.min(node.held(logs)),
            "an acknowledgement of what is not verified and durable",
        ),
        Message::VoteReply { granted: false }
        | Message::AppendReply(AppendReply::Rejected { .. } | AppendReply::Divergence { .. })
        | Message::HeartbeatReply { .. }
        | Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::TimeoutNow
        | Message::ReadIndex { .. }
        | Message::ReadIndexReply { .. }
        | Message::Fetch { .. }
        | Message::Fetched { .. }
        | Message::DamageReport { .. }
        | Message::Heal { .. }
        | Message::TermQuery
        | Message::TermReply { .. }
        | Message::RolledBack { .. } => Ok(()),
    }
}

/// Is an action that a message caused just what that message says? Actions that rest on many messages,
/// or on none, are not judged here.
pub fn is_told(node: &Node, action: Action, envelope: Option<&Envelope>, names: &Names) -> bool {
    let logs = &names.logs;
    match action {
        Action::Timeout
        | Action::Resign
        | Action::Lead { .. }
        | Action::Client { .. }
        | Action::Commit { .. }
        | Action::Done { .. }
        | Action::Crash { .. } => true,
        Action::Learn { term } => envelope.is_some_and(|e| e.term.0 == term),
        Action::Grant { term, to } => {
            let own = logs.last(node.record.log);
            let asks = |e: &Envelope| {
                let Message::Vote { last, .. } = &e.message else {
                    return false;
                };
                let fresh = (last.term.0, last.index.0) >= (own.term, own.last);
                e.term.0 == term && e.from.0 == to && fresh
            };
            envelope.is_some_and(asks)
        }
        Action::RecvAE { term, log, commit } => envelope.is_some_and(|e| {
            let (end, told) = if let Message::Append {
                prev,
                batches,
                commit,
            } = &e.message
            {
                let end = batches
                    .last()
                    .map_or(*prev, |batch| batch.header.position());
                (names.at(&end), *commit)
            } else if let Message::Heartbeat { commit, .. } = &e.message {
                (Some(Log::EMPTY), *commit)
            } else {
                return false;
            };
            let came = end.is_some_and(|sent| logs.is_prefix(log, sent));
            e.term.0 == term && came && commit <= node.commit.max(told.0)
        }),
    }
}
