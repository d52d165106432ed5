//! What happened on all nodes in all their lives, and what must be true of it.

use crate::recorder::{Entry, taken_apart};
use crate::workload::{Call, Request};
use bytes::Bytes;
use duraft::{Applied, Outcome, RequestError};
use duraft_core::{
    BatchHeader, Digest, Incarnation, Index, LogId, Membership, NodeId, Position, Term,
};
use std::collections::{BTreeMap, BTreeSet};

/// See the module documentation. Every method records something and says what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The one content of each (term, last index) ever seen.
    contents: BTreeMap<(Term, Index), (Index, Digest)>,
    /// Who leads each term.
    leaders: BTreeMap<Term, (NodeId, Incarnation)>,
    /// The log of each term's leader, by batch ends, as far as it ever was.
    leader_logs: BTreeMap<Term, BTreeMap<Index, Digest>>,
    /// What leaders sent of their logs, by term and batch end; some is sent by a leader that is none
    /// any more when its turn ends.
    sent_logs: BTreeMap<(Term, Index), Digest>,
    /// Lives that a leader has told up to where they must be durable to be whole.
    heals: BTreeSet<(NodeId, Incarnation)>,
    /// Votes granted, by voter and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Everything committed, by batch end, and the term in which that became known.
    committed: BTreeMap<Index, (BatchHeader, Term)>,
    /// Commands in the order in which state machines apply them.
    applied: Vec<Entry>,
    /// When the first of them did.
    applied_at: Vec<u64>,
    /// What clients asked for, by the number of their command.
    asked: BTreeMap<u64, Asked>,
    /// Answered reads, and from [`History::calls`] on everything.
    reads: Vec<Call>,
    /// What clients were told of each command, once per time it was sent.
    pub(crate) outcomes: BTreeMap<u64, Vec<Outcome>>,
    /// How often each command was sent.
    sent: BTreeMap<u64, u64>,
    pub(crate) submitted: u64,
    /// Committed memberships, by the index of their batch; the initial one at 0.
    memberships: BTreeMap<Index, Membership>,
    /// The membership under which the end of everything committed was counted.
    counted_in: Option<Membership>,
}

/// What a client asked for.
#[derive(Clone, Debug)]
struct Asked {
    client: u64,
    called: u64,
    request: Request,
    /// When it was told, and what.
    told: Option<(u64, Option<Bytes>)>,
}

pub(crate) type Verdict = Result<(), String>;

impl History {
    /// A3: a batch was seen in a message, a log or an apply.
    pub(crate) fn batch_seen(&mut self, header: &BatchHeader) -> Verdict {
        let content = (header.first, header.digest);
        let known = *self
            .contents
            .entry((header.term, header.last()))
            .or_insert(content);
        if known == content {
            Ok(())
        } else {
            Err(format!(
                "A3: two contents of ({}, {}): {known:?} and {content:?}",
                header.term,
                header.last()
            ))
        }
    }

    /// C7: a batch was read from a disk.
    pub(crate) fn batch_is_known(&self, header: &BatchHeader) -> Verdict {
        match self.contents.get(&(header.term, header.last())) {
            Some(content) if *content == (header.first, header.digest) => Ok(()),
            known => Err(format!("C7: {header:?} was read, written was {known:?}")),
        }
    }

    /// A leader tells this life how it becomes whole.
    pub(crate) fn heals(&mut self, node: NodeId, life: Incarnation) {
        self.heals.insert((node, life));
    }

    /// Has any leader told it?
    pub(crate) fn was_told_to_heal(&self, node: NodeId, life: Incarnation) -> bool {
        self.heals.contains(&(node, life))
    }

    /// The latest term behind `term` that has had a leader, and who that was.
    pub(crate) fn led_after(&self, term: Term) -> Option<(Term, NodeId)> {
        let (latest, (leader, _)) = self.leaders.last_key_value()?;
        (*latest > term).then_some((*latest, *leader))
    }

    /// A1, B11: a node speaks as the leader of a term.
    pub(crate) fn leads(&mut self, term: Term, node: NodeId, life: Incarnation) -> Verdict {
        let known = *self.leaders.entry(term).or_insert((node, life));
        if known == (node, life) {
            Ok(())
        } else {
            Err(format!(
                "A1: term {term} is led by node {} in life {} and by node {node} in life {life}",
                known.0, known.1
            ))
        }
    }

    /// A2: the log of a term's leader only grows. `headers` are its batches, newest first; they are
    /// compared back to the first known one, whose digest covers all before it.
    pub(crate) fn leader_log<'a>(
        &mut self,
        term: Term,
        headers: impl Iterator<Item = &'a BatchHeader>,
    ) -> Verdict {
        let log = self.leader_logs.entry(term).or_default();
        for header in headers {
            match log.insert(header.last(), header.digest) {
                None => {}
                Some(known) if known == header.digest => break,
                Some(_) => {
                    return Err(format!(
                        "A2: the leader of term {term} changed {}",
                        header.last()
                    ));
                }
            }
        }
        Ok(())
    }

    /// The digest of the log of a term's leader at a batch end.
    pub(crate) fn leader_digest(&self, term: Term, at: Index) -> Option<Digest> {
        if at == Index(0) {
            return Some(Digest::EMPTY);
        }
        let whole = self.leader_logs.get(&term).and_then(|log| log.get(&at));
        whole.or_else(|| self.sent_logs.get(&(term, at))).copied()
    }

    /// A2, A3: a leader sent a batch of its log.
    pub(crate) fn leader_sent(&mut self, term: Term, header: &BatchHeader) -> Verdict {
        self.batch_seen(header)?;
        self.leader_holds(term, &header.position())
    }

    /// A2: a leader has said that its log holds this.
    pub(crate) fn leader_holds(&mut self, term: Term, position: &Position) -> Verdict {
        let at = position.index();
        let known = self.leader_digest(term, at);
        self.sent_logs.insert((term, at), position.digest);
        match known {
            Some(known) if known != position.digest => {
                Err(format!("A2: the leader of term {term} changed {at}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// B2: a vote left a node. It is a promise, too.
    pub(crate) fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) -> Verdict {
        self.promises(voter, term)?;
        let known = *self.votes.entry((voter, term)).or_insert(candidate);
        if known == candidate {
            Ok(())
        } else {
            Err(format!(
                "B2: node {voter} voted for {known} and for {candidate} in term {term}"
            ))
        }
    }

    /// R14: in a term earlier than one it has voted in, in whatever life, a node promises nothing.
    pub(crate) fn promises(&self, node: NodeId, term: Term) -> Verdict {
        let mut votes = self.votes.range((node, term)..=(node, Term(u64::MAX)));
        let broken = votes.find(|((_, voted), _)| *voted > term);
        broken.map_or(Ok(()), |((_, voted), to)| {
            Err(format!(
                "R14: node {node} promises something in term {term} and has voted for {to} in {voted}"
            ))
        })
    }

    /// The disk of a node has lost terms and votes. Those for itself died with the life that stood: who has
    /// heard of them has their term, and who has not will answer a dead life.
    pub(crate) fn loses_own_votes(&mut self, node: NodeId) {
        self.votes
            .retain(|(voter, _), to| *voter != node || *to != node);
    }

    /// Terms in which two candidates or more got a vote, their own at least, and nobody led.
    pub(crate) fn votes_split(&self) -> u64 {
        let mut candidates: BTreeMap<Term, BTreeSet<NodeId>> = BTreeMap::new();
        for ((_, term), candidate) in &self.votes {
            candidates.entry(*term).or_default().insert(*candidate);
        }
        let split =
            |term: &Term, of: &BTreeSet<NodeId>| of.len() > 1 && !self.leaders.contains_key(term);
        candidates
            .iter()
            .filter(|(term, of)| split(term, of))
            .count() as u64
    }

    /// A5, A6: a node in `term` considers a batch committed. True if it is news.
    pub(crate) fn committed(&mut self, header: &BatchHeader, term: Term) -> Result<bool, String> {
        let end = self.committed_end();
        if header.last() <= end.index() {
            return match self.committed.get(&header.last()) {
                Some((known, _)) if known == header => Ok(false),
                known => Err(format!(
                    "A5: {header:?} is committed in the place of {known:?}"
                )),
            };
        }
        if !header.follows(&end) {
            return Err(format!("A5: {header:?} is committed after {end}"));
        }
        self.committed.insert(header.last(), (*header, term));
        Ok(true)
    }

    /// A5: a log begins at `start`, so everything before it must be committed.
    pub(crate) fn begins(&self, node: NodeId, start: &Position) -> Verdict {
        match self.committed_digest(start.index()) {
            Some(digest) if digest == start.digest => Ok(()),
            known => Err(format!(
                "A5: the log of node {node} begins at {start}, committed is {known:?}"
            )),
        }
    }

    /// The digest of the committed log at a batch end.
    pub(crate) fn committed_digest(&self, at: Index) -> Option<Digest> {
        if at == Index(0) {
            return Some(Digest::EMPTY);
        }
        Some(self.committed.get(&at)?.0.digest)
    }

    /// The membership that the cluster begins with.
    pub(crate) fn begin_with(&mut self, membership: Membership) {
        self.memberships.insert(Index(0), membership);
    }

    /// H10: a membership was committed; a leader counted it, or whatever came after, in `counted_in`.
    pub(crate) fn membership_committed(&mut self, at: Index, membership: &Membership) -> Verdict {
        if let Some(known) = self.memberships.get(&at) {
            return if known == membership {
                Ok(())
            } else {
                Err(format!(
                    "H10: two memberships at {at}: {known:?} and {membership:?}"
                ))
            };
        }
        let before = self.latest_membership();
        if !share_quorums(before, membership) {
            return Err(format!(
                "H10: {before:?} and {membership:?} at {at} can decide without each other"
            ));
        }
        self.memberships.insert(at, membership.clone());
        Ok(())
    }

    pub(crate) fn counted_in(&mut self, membership: Membership) {
        self.counted_in = Some(membership);
    }

    /// The latest committed membership.
    pub(crate) fn latest_membership(&self) -> &Membership {
        let latest = self.memberships.last_key_value();
        latest.expect("there is an initial one").1
    }

    /// Do the holders of everything committed decide, in the membership in force there or in the one
    /// it was counted in?
    pub(crate) fn is_quorum(&self, holders: &BTreeSet<NodeId>) -> bool {
        let mut in_force = std::iter::once(self.latest_membership()).chain(&self.counted_in);
        in_force.any(|membership| membership.is_quorum(holders.iter().copied()))
    }

    /// Membership changes committed.
    pub(crate) fn changes(&self) -> u64 {
        self.memberships.len() as u64 - 1
    }

    /// The end of everything committed.
    pub(crate) fn committed_end(&self) -> Position {
        self.committed
            .last_key_value()
            .map_or(Position::START, |(_, (header, _))| header.position())
    }

    /// The end of what was known to be committed before `term`.
    pub(crate) fn committed_before(&self, term: Term) -> Position {
        let mut newest_first = self.committed.values().rev();
        newest_first
            .find(|(_, known_in)| *known_in < term)
            .map_or(Position::START, |(header, _)| header.position())
    }

    /// Is this boundary committed?
    pub(crate) fn is_committed(&self, at: &Position) -> bool {
        let known = self.committed.get(&at.index());
        known.is_some_and(|(header, _)| header.position() == *at)
    }

    /// The first committed batch after an index.
    pub(crate) fn next_committed(&self, after: Index) -> Option<&BatchHeader> {
        self.committed
            .range(after.next()..)
            .next()
            .map(|(_, (header, _))| header)
    }

    /// A5: a state machine applied its `nth` command, counted from 0.
    pub(crate) fn applied(&mut self, nth: usize, entry: Entry, now: u64) -> Verdict {
        match self.applied.get(nth) {
            Some(known) if *known == entry => Ok(()),
            Some(known) => Err(format!(
                "A5: state machines differ at {nth}: {known:?} and {entry:?}"
            )),
            None if nth == self.applied.len() => {
                self.applied.push(entry);
                self.applied_at.push(now);
                Ok(())
            }
            None => Err(format!("A5: a state machine skipped to its command {nth}")),
        }
    }

    /// A5: a state machine was restored: it holds what all others applied up to `upto`, and nothing
    /// else.
    pub(crate) fn restored(&self, node: NodeId, upto: Index, entries: &[Entry]) -> Verdict {
        let count = self
            .applied
            .partition_point(|entry| entry.log_id.index <= upto);
        if self.applied[..count] == *entries {
            return Ok(());
        }
        let differ = std::iter::zip(&self.applied[..count], entries).position(|(a, b)| a != b);
        Err(format!(
            "A5: node {node} restored {} commands as the state at {upto}, {count} were applied \
             there; first difference at {differ:?}",
            entries.len()
        ))
    }

    /// Commands applied by the node that is furthest.
    pub(crate) fn applied_len(&self) -> usize {
        self.applied.len()
    }

    /// A client asks for a command for the first time.
    pub(crate) fn asked(&mut self, command: u64, client: u64, request: Request, now: u64) {
        let asked = Asked {
            client,
            called: now,
            request,
            told: None,
        };
        self.asked.insert(command, asked);
    }

    /// A read was answered.
    pub(crate) fn has_read(&mut self, call: Call) {
        self.reads.push(call);
    }

    /// All that clients asked and that had an effect or an answer.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let applied = std::iter::zip(&self.applied, &self.applied_at);
        let applied: BTreeMap<u64, (u64, u64)> = (applied.zip(0..))
            .map(|((entry, at), place)| (entry.number, (*at, place)))
            .collect();
        let mut calls = self.reads.clone();
        for (number, asked) in &self.asked {
            let told = asked.told.clone();
            let effect = applied.get(number);
            let end = told.or_else(|| Some((effect?.0, None)));
            if let Some((ended, response)) = end {
                calls.push(Call {
                    client: asked.client,
                    called: asked.called,
                    ended,
                    request: asked.request.clone(),
                    response,
                    place: effect.map(|(_, place)| *place),
                });
            }
        }
        calls
    }

    /// A client sends a command, perhaps once more.
    pub(crate) fn sent(&mut self, command: u64) {
        *self.sent.entry(command).or_default() += 1;
    }

    /// A client was told how its command ended.
    pub(crate) fn answered(&mut self, command: u64, outcome: Outcome, now: u64) -> Verdict {
        if let (Some(asked), Ok(applied)) = (self.asked.get_mut(&command), &outcome) {
            let response = taken_apart(&applied.response).map(|(_, response)| response);
            asked.told.get_or_insert((now, response));
        }
        let outcomes = self.outcomes.entry(command).or_default();
        let known = outcomes.iter().flatten().next();
        if let (Some(known), Ok(applied)) = (known, &outcome)
            && known != applied
        {
            return Err(format!(
                "D2: command {command} was answered {known:?} and {applied:?}"
            ));
        }
        outcomes.push(outcome);
        if outcomes.len() as u64 > self.sent.get(&command).copied().unwrap_or(0) {
            return Err(format!("D3: command {command} ended twice: {outcomes:?}"));
        }
        Ok(())
    }

    /// Is no client waiting for a command?
    pub(crate) fn is_quiet(&self) -> bool {
        self.unanswered().is_empty()
    }

    /// Commands whose clients wait.
    pub(crate) fn unanswered(&self) -> Vec<u64> {
        let told = |command| self.outcomes.get(command).map_or(0, Vec::len) as u64;
        let waiting = self.sent.iter().filter(|(id, sent)| told(id) < **sent);
        waiting.map(|(id, _)| *id).collect()
    }

    /// How a command was acknowledged, if it was.
    pub(crate) fn acknowledged(&self, command: u64) -> Option<&Applied> {
        self.outcomes.get(&command)?.iter().flatten().next()
    }

    /// Every client's view against what the state machines did: each acknowledged command exactly
    /// once and in its place, each rejected one never, none twice, every one answered.
    pub(crate) fn judge(&self) -> Verdict {
        let mut places: BTreeMap<u64, LogId> = BTreeMap::new();
        for entry in &self.applied {
            let Entry {
                log_id,
                number: command,
                ..
            } = entry;
            if let Some(first) = places.insert(*command, *log_id) {
                return Err(format!(
                    "D2: command {command} was applied at {first} and {log_id}"
                ));
            }
        }
        for (command, sent) in &self.sent {
            let told: &[Outcome] = self.outcomes.get(command).map_or(&[], |told| told);
            if (told.len() as u64) < *sent {
                return Err(format!("D3: command {command} was never answered"));
            }
            self.judge_command(*command, told, places.get(command))?;
        }
        Ok(())
    }

    fn judge_command(&self, command: u64, told: &[Outcome], place: Option<&LogId>) -> Verdict {
        let unknown =
            |outcome: &Outcome| matches!(outcome, Err(RequestError::OutcomeUnknown { .. }));
        match (self.acknowledged(command), place) {
            (Some(applied), Some(at)) if applied.log_id == *at => Ok(()),
            (Some(applied), at) => Err(format!(
                "D1: command {command} was acknowledged at {}, but is at {at:?}",
                applied.log_id
            )),
            (None, None) => Ok(()),
            (None, Some(_)) if told.iter().any(unknown) => Ok(()),
            (None, Some(at)) => Err(format!(
                "D3: command {command} at {at} was answered {told:?}"
            )),
        }
    }
}

/// Does every set of nodes that can decide in one of two memberships meet every such set of the
/// other? Tried over all sets.
fn share_quorums(a: &Membership, b: &Membership) -> bool {
    let nodes: Vec<NodeId> = a.voters().chain(b.voters()).collect();
    let nodes: Vec<NodeId> = BTreeSet::from_iter(nodes).into_iter().collect();
    (0..1u64 << nodes.len()).all(|set| {
        let part = |wanted: u64| {
            let chosen = nodes.iter().enumerate();
            chosen.filter_map(move |(bit, id)| (set >> bit & 1 == wanted).then_some(*id))
        };
        !(a.is_quorum(part(1)) && b.is_quorum(part(0)))
    })
}
