//! The network: a pool of messages that move only when the test says so.

use duraft_core::{Envelope, Message, NodeId, Term};
use std::collections::BTreeSet;

/// Kind of a message, without its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Pre-vote.
    PreVote,
    /// Answer to a pre-vote.
    PreVoteReply,
    /// RequestVote.
    Vote,
    /// Answer to RequestVote.
    VoteReply,
    /// AppendEntries, probes included.
    Append,
    /// Answer to an append.
    AppendReply,
    /// Heartbeat.
    Heartbeat,
    /// Answer to a heartbeat.
    HeartbeatReply,
    /// From a leader: campaign now.
    TimeoutNow,
    /// A follower's question for a read index.
    ReadIndex,
    /// Answer to it.
    ReadIndexReply,
    /// A damaged node asks for batches.
    Fetch,
    /// Answer to it.
    Fetched,
    /// A damaged node tells its leader.
    DamageReport,
    /// Answer to it.
    Heal,
    /// A node that does not know its term asks.
    TermQuery,
    /// Answer to it.
    TermReply,
    /// A leader tells a node that its disk was rolled back.
    RolledBack,
}

impl Kind {
    /// The kind of this message.
    pub fn of(message: &Message) -> Kind {
        match message {
            Message::PreVote { .. } => Kind::PreVote,
            Message::PreVoteReply { .. } => Kind::PreVoteReply,
            Message::Vote { .. } => Kind::Vote,
            Message::VoteReply { .. } => Kind::VoteReply,
            Message::Append { .. } => Kind::Append,
            Message::AppendReply(_) => Kind::AppendReply,
            Message::Heartbeat { .. } => Kind::Heartbeat,
            Message::HeartbeatReply { .. } => Kind::HeartbeatReply,
            Message::TimeoutNow => Kind::TimeoutNow,
            Message::ReadIndex { .. } => Kind::ReadIndex,
            Message::ReadIndexReply { .. } => Kind::ReadIndexReply,
            Message::Fetch { .. } => Kind::Fetch,
            Message::Fetched { .. } => Kind::Fetched,
            Message::DamageReport { .. } => Kind::DamageReport,
            Message::Heal { .. } => Kind::Heal,
            Message::TermQuery => Kind::TermQuery,
            Message::TermReply { .. } => Kind::TermReply,
            Message::RolledBack { .. } => Kind::RolledBack,
        }
    }

    /// Only the leader of a term sends these.
    pub fn is_leaders(self) -> bool {
        matches!(self, Kind::Append | Kind::Heartbeat)
    }
}

/// Which messages: every condition given must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pick {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: Option<Kind>,
    term: Option<Term>,
    about: Option<NodeId>,
}

/// Every message; narrow it with the methods of [`Pick`].
pub fn any() -> Pick {
    Pick::default()
}

impl Pick {
    /// Sent by this node.
    pub fn from(self, from: NodeId) -> Pick {
        Pick {
            from: Some(from),
            ..self
        }
    }

    /// Sent to this node.
    pub fn to(self, to: NodeId) -> Pick {
        Pick {
            to: Some(to),
            ..self
        }
    }

    /// Sent by or to this node.
    pub fn about(self, node: NodeId) -> Pick {
        Pick {
            about: Some(node),
            ..self
        }
    }

    /// Of this kind.
    pub fn kind(self, kind: Kind) -> Pick {
        Pick {
            kind: Some(kind),
            ..self
        }
    }

    /// With this envelope term.
    pub fn term(self, term: u64) -> Pick {
        Pick {
            term: Some(Term(term)),
            ..self
        }
    }

    /// Is this message meant?
    pub fn takes(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|from| envelope.from == from)
            && self.to.is_none_or(|to| envelope.to == to)
            && self
                .about
                .is_none_or(|node| envelope.from == node || envelope.to == node)
            && self
                .kind
                .is_none_or(|kind| Kind::of(&envelope.message) == kind)
            && self.term.is_none_or(|term| envelope.term == term)
    }
}

/// Messages under way and links that are cut.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// Under way, oldest first.
    pub pool: Vec<Envelope>,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

impl Net {
    /// A node sends this: it joins the pool, or is lost where the link is cut.
    pub fn send(&mut self, envelope: Envelope) {
        if !self.cuts.contains(&(envelope.from, envelope.to)) {
            self.pool.push(envelope);
        }
    }

    /// Takes the oldest message that `pick` means.
    pub fn take_first(&mut self, pick: Pick) -> Option<Envelope> {
        let at = self.pool.iter().position(|envelope| pick.takes(envelope))?;
        Some(self.pool.remove(at))
    }

    /// Takes all messages that `pick` means, oldest first.
    pub fn take(&mut self, pick: Pick) -> Vec<Envelope> {
        let (taken, left) = std::mem::take(&mut self.pool)
            .into_iter()
            .partition(|envelope| pick.takes(envelope));
        self.pool = left;
        taken
    }

    /// Messages under way that `pick` means.
    pub fn waiting(&self, pick: Pick) -> Vec<&Envelope> {
        self.pool
            .iter()
            .filter(|envelope| pick.takes(envelope))
            .collect()
    }

    /// Cuts one direction of a link: what is sent from now on is lost.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Is this direction of a link cut?
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Repairs one direction of a link.
    pub fn join(&mut self, from: NodeId, to: NodeId) {
        self.cuts.remove(&(from, to));
    }

    /// Repairs every link.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }
}
