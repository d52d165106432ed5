//! What happened in a run, for people and for the programs that draw it.

use std::fmt;

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TraceKind {
    /// A message left its sender.
    Sent,
    /// The network lost a message, or did not let it through.
    Lost,
    /// A message came in.
    Arrived,
    /// A write was given to the disk.
    Written,
    /// Writes became durable.
    Synced,
    /// A write or sync failed.
    Failed,
    /// A life ended.
    Crashed,
    /// A life began.
    Started,
    /// The role changed; the value is 0 for a follower, 1 for a candidate of either kind, 2 for a leader.
    Role,
    /// The term changed; the value is the new one.
    Term,
    /// The commit index changed; the value is the new one.
    Commit,
    /// Trouble: the value is its number.
    Fault,
    /// A client was told something.
    Client,
    /// Anything else, in words.
    Detail,
}

impl TraceKind {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            TraceKind::Sent => "sent",
            TraceKind::Lost => "lost",
            TraceKind::Arrived => "arrived",
            TraceKind::Written => "written",
            TraceKind::Synced => "synced",
            TraceKind::Failed => "failed",
            TraceKind::Crashed => "crashed",
            TraceKind::Started => "started",
            TraceKind::Role => "role",
            TraceKind::Term => "term",
            TraceKind::Commit => "commit",
            TraceKind::Fault => "fault",
            TraceKind::Client => "client",
            TraceKind::Detail => "detail",
        }
    }
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceEvent {
    /// When, in steps of virtual time ([`SimConfig::TICK`](crate::SimConfig::TICK) to a tick).
    pub at: u64,
    /// To which node, if to one.
    pub node: Option<u64>,
    /// What.
    pub kind: TraceKind,
    /// The message that this is about.
    pub message: Option<u64>,
    /// The node at its other end.
    pub peer: Option<u64>,
    /// See [`TraceKind`].
    pub value: u64,
    /// In words.
    pub text: String,
}

impl TraceEvent {
    pub(crate) fn new(kind: TraceKind, text: impl Into<String>) -> TraceEvent {
        TraceEvent {
            at: 0,
            node: None,
            kind,
            message: None,
            peer: None,
            value: 0,
            text: text.into(),
        }
    }

    /// At the node of this place among the hosts.
    pub(crate) fn host(mut self, host: usize) -> TraceEvent {
        self.node = Some(host as u64 + 1);
        self
    }

    pub(crate) fn message(mut self, message: u64, peer: usize) -> TraceEvent {
        self.message = Some(message);
        self.peer = Some(peer as u64 + 1);
        self
    }

    pub(crate) fn value(mut self, value: u64) -> TraceEvent {
        self.value = value;
        self
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} ", self.at)?;
        match self.node {
            Some(node) => write!(f, "node {node} ")?,
            None => write!(f, "       ")?,
        }
        write!(f, "{:<8}", self.kind.name())?;
        if let Some(message) = self.message {
            write!(f, " m{message}")?;
        }
        write!(f, " {}", self.text)
    }
}
