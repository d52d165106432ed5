//! What happened on all nodes in all their lives, and what must be true of it.

use duraft::{Outcome, RequestError};
use duraft_core::{BatchHeader, Digest, Incarnation, Index, LogId, NodeId, Position, Term};
use std::collections::BTreeMap;

/// See the module documentation. Every method records something and says what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The one content of each (term, last index) ever seen.
    contents: BTreeMap<(Term, Index), (Index, Digest)>,
    /// Who leads each term.
    leaders: BTreeMap<Term, (NodeId, Incarnation)>,
    /// The log of each term's leader, by batch ends, as far as it ever was.
    leader_logs: BTreeMap<Term, BTreeMap<Index, Digest>>,
    /// Votes granted, by voter and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// Everything committed, by batch end, and the term in which that became known.
    committed: BTreeMap<Index, (BatchHeader, Term)>,
    /// Commands in the order in which state machines apply them.
    applied: Vec<(LogId, u64)>,
    /// What clients were told.
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
    pub(crate) submitted: u64,
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
        self.leader_logs.get(&term)?.get(&at).copied()
    }

    /// B2: a vote left a node.
    pub(crate) fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) -> Verdict {
        let known = *self.votes.entry((voter, term)).or_insert(candidate);
        if known == candidate {
            Ok(())
        } else {
            Err(format!(
                "B2: node {voter} voted for {known} and for {candidate} in term {term}"
            ))
        }
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

    /// The first committed batch after an index.
    pub(crate) fn next_committed(&self, after: Index) -> Option<&BatchHeader> {
        self.committed
            .range(after.next()..)
            .next()
            .map(|(_, (header, _))| header)
    }

    /// A5: a state machine applied its `nth` command, counted from 0.
    pub(crate) fn applied(&mut self, nth: usize, log_id: LogId, command: u64) -> Verdict {
        match self.applied.get(nth) {
            Some(known) if *known == (log_id, command) => Ok(()),
            Some(known) => Err(format!(
                "A5: state machines differ at {nth}: {known:?} and {:?}",
                (log_id, command)
            )),
            None if nth == self.applied.len() => {
                self.applied.push((log_id, command));
                Ok(())
            }
            None => Err(format!("A5: a state machine skipped to its command {nth}")),
        }
    }

    /// Commands applied by the node that is furthest.
    pub(crate) fn applied_len(&self) -> usize {
        self.applied.len()
    }

    /// A client was told how its command ended.
    pub(crate) fn answered(&mut self, command: u64, outcome: Outcome) -> Verdict {
        match self.outcomes.insert(command, outcome) {
            None => Ok(()),
            Some(before) => Err(format!(
                "D3: command {command} ended twice, first {before:?}"
            )),
        }
    }

    /// Every client's view against what the state machines did: each acknowledged command exactly
    /// once and in its place, each rejected one never, none twice, every one answered.
    pub(crate) fn judge(&self) -> Verdict {
        let mut places: BTreeMap<u64, LogId> = BTreeMap::new();
        for (log_id, command) in &self.applied {
            if let Some(first) = places.insert(*command, *log_id) {
                return Err(format!(
                    "D2: command {command} was applied at {first} and {log_id}"
                ));
            }
        }
        for command in 0..self.submitted {
            let place = places.get(&command);
            match (self.outcomes.get(&command), place) {
                (None, _) => return Err(format!("D3: command {command} was never answered")),
                (Some(Ok(applied)), Some(at)) if applied.log_id == *at => {}
                (Some(Ok(applied)), at) => {
                    return Err(format!(
                        "D1: command {command} was acknowledged at {}, but is at {at:?}",
                        applied.log_id
                    ));
                }
                (Some(Err(RequestError::OutcomeUnknown { .. })), _) | (Some(Err(_)), None) => {}
                (Some(Err(error)), Some(at)) => {
                    return Err(format!(
                        "D3: command {command} at {at} was answered '{error}'"
                    ));
                }
            }
        }
        Ok(())
    }
}
