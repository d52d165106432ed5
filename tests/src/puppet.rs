//! Logs made by hand, and peers without a core that send what the test wants.

use crate::body::{command_body, crc32};
use bytes::Bytes;
use duraft_core::{
    Batch, BatchKind, Body, Envelope, GroupId, Incarnation, Index, Membership, Message, NodeId,
    Position, Term,
};

/// A log made by hand: batches in order after a start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Where it starts.
    pub start: Position,
    /// The batches.
    pub batches: Vec<Batch>,
}

impl Chain {
    /// The empty log.
    pub fn empty() -> Chain {
        Chain {
            start: Position::START,
            batches: Vec::new(),
        }
    }

    /// One entry per term named, in order, as figures 6 to 8 of the paper draw logs. The same index
    /// and term always get the same command.
    pub fn of_terms(terms: &[u64]) -> Chain {
        terms.iter().fold(Chain::empty(), |chain, term| {
            let command = format!("{}@{term}", chain.last().index().next());
            chain.and(*term, &command)
        })
    }

    /// This log and one more command of `term`.
    pub fn and(self, term: u64, command: &str) -> Chain {
        self.and_body(term, command_body(command))
    }

    /// This log and a no-op of `term`.
    pub fn and_noop(self, term: u64) -> Chain {
        self.and_body(term, Body::noop())
    }

    /// This log and one more membership of `term`.
    pub fn and_membership(self, term: u64, membership: &Membership) -> Chain {
        let bytes = Bytes::from(membership.encode());
        let body = Body {
            kind: BatchKind::Membership,
            codec: 0,
            count: 1,
            checksum: crc32(&bytes),
            bytes,
        };
        self.and_body(term, body)
    }

    /// The memberships that its batches set, by index.
    pub fn memberships(&self) -> Vec<(Index, Membership)> {
        let sets = |batch: &&Batch| batch.header.kind == BatchKind::Membership;
        let sets = self.batches.iter().filter(sets);
        sets.map(|batch| {
            let decoded = Membership::decode(&batch.body).expect("made by `and_membership`");
            (batch.header.last(), decoded)
        })
        .collect()
    }

    /// This log and one more batch of `term`.
    pub fn and_body(mut self, term: u64, body: Body) -> Chain {
        let batch = body
            .seal(GROUP, &self.last(), Term(term))
            .expect("hand-made logs are short");
        self.batches.push(batch);
        self
    }

    /// The boundary after the last batch.
    pub fn last(&self) -> Position {
        self.batches
            .last()
            .map_or(self.start, |batch| batch.header.position())
    }

    /// The boundary at `index`; every index of a log of single entries is one.
    pub fn at(&self, index: u64) -> Position {
        if Index(index) == self.start.index() {
            return self.start;
        }
        self.batches
            .iter()
            .map(|batch| batch.header.position())
            .find(|position| position.index() == Index(index))
            .expect("a boundary of the hand-made log")
    }

    /// The batches after `index`, up to and including `last`.
    pub fn between(&self, index: u64, last: u64) -> Vec<Batch> {
        self.batches
            .iter()
            .filter(|batch| batch.header.first.0 > index && batch.header.last().0 <= last)
            .cloned()
            .collect()
    }

    /// The same log with everything up to `index` compacted away.
    pub fn compacted_to(&self, index: u64) -> Chain {
        Chain {
            start: self.at(index),
            batches: self.between(index, u64::MAX),
        }
    }

    /// An append of this log's batches after `prev` up to `last`.
    pub fn append(&self, prev: u64, last: u64, commit: u64) -> Message {
        Message::Append {
            prev: self.at(prev),
            batches: self.between(prev, last),
            commit: Index(commit),
        }
    }
}

/// The group all rigs serve.
pub const GROUP: GroupId = GroupId(7);

/// A message from a peer without a core, in its first life.
pub fn says(from: NodeId, to: NodeId, term: u64, message: Message) -> Envelope {
    Envelope {
        group: GROUP,
        from,
        incarnation: Incarnation(1),
        to,
        term: Term(term),
        message,
    }
}
