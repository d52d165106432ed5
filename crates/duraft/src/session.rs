//! The client's side of a session: numbers its commands and sends them until they are answered.

use crate::node::Node;
use crate::outcome::{Outcome, RejectReason, RequestError, RequestErrorKind, UnknownReason};
use crate::sessions::{SessionCommand, SessionId, SessionLimits};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Pause before a command is sent again where nobody could take it: the cluster may be electing.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for one node's answer: it may be cut off from the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client's session with the cluster; see [`Node::open_session`].
///
/// Every command gets a number once and keeps it, however often and wherever it is sent. Dropping a
/// session tells the cluster nothing: it expires there by itself, see
/// [`SessionLimits`](crate::SessionLimits).
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    /// Numbers that were given out and whose answers are not known.
    open: BTreeSet<u64>,
}

impl Session {
    /// The client's side of a session that was opened in the cluster and has sent nothing yet.
    pub fn new(id: SessionId) -> Session {
        Session {
            id,
            numbers: Mutex::default(),
        }
    }

    /// Opens a session at whichever of `nodes` leads. Blocks the calling thread. Where an attempt has
    /// no answer another session is opened, and the first expires unused.
    ///
    /// # Panics
    /// Where `nodes` is empty.
    pub fn open(
        nodes: &[Node],
        limits: SessionLimits,
        timeout: Duration,
    ) -> Result<Session, RequestError> {
        let until = Instant::now() + timeout;
        let open = |node: &Node, patience| node.open_session_wait(limits, patience);
        send(nodes, until, open)
    }

    /// The session's name in the cluster.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Gives a command its number. Send it with [`Node::propose_numbered`], to any node and as often
    /// as needed, and report the answer with [`Session::answered`].
    pub fn number(&self, command: Bytes) -> SessionCommand {
        let mut numbers = self.numbers.lock();
        numbers.last += 1;
        let number = numbers.last;
        numbers.open.insert(number);
        let oldest = numbers.open.first().copied().unwrap_or(number);
        SessionCommand {
            session: self.id,
            number,
            acknowledged: oldest - 1,
            command,
        }
    }

    /// The answer to this number is known, or nobody waits for it any more: the cluster need not
    /// keep it. The number is not to be sent again.
    pub fn answered(&self, number: u64) {
        self.numbers.lock().open.remove(&number);
    }

    /// Sends a command to `nodes`, following the leader, until its one outcome is known or `timeout`
    /// has passed: then it is unknown, as it is where the session expired after a first attempt
    /// without an answer. Blocks the calling thread.
    ///
    /// # Panics
    /// Where `nodes` is empty.
    pub fn propose(&self, nodes: &[Node], command: Bytes, timeout: Duration) -> Outcome {
        let until = Instant::now() + timeout;
        let command = self.number(command);
        let outcome = send(nodes, until, |node, patience| {
            node.propose_numbered_wait(command.clone(), patience)
        });
        self.answered(command.number);
        outcome
    }
}

/// Tries one node after another, following the leader, until an answer is final or time is over.
fn send<T>(
    nodes: &[Node],
    until: Instant,
    attempt: impl Fn(&Node, Duration) -> Result<T, RequestError>,
) -> Result<T, RequestError> {
    assert!(!nodes.is_empty(), "a command needs a node to go to");
    let mut at = 0;
    let mut in_doubt = false;
    loop {
        let now = Instant::now();
        if now >= until {
            return Err(if in_doubt {
                RequestError::OutcomeUnknown {
                    why: UnknownReason::Deadline,
                }
            } else {
                RequestError::Rejected {
                    reason: RejectReason::Expired,
                    leader: None,
                }
            });
        }
        let patience = PATIENCE.min(until - now);
        let error = match attempt(&nodes[at], patience) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match next_step(&error, in_doubt) {
            Next::Return(error) => return Err(error),
            Next::Again { in_doubt: doubt } => in_doubt = doubt,
        }
        let leader = nodes.iter().position(|n| Some(n.id()) == error.leader());
        at = leader.unwrap_or(at + 1) % nodes.len();
        if leader.is_none() && error.kind() != RequestErrorKind::OutcomeUnknown {
            // Nobody to go to: wait until this node knows a leader, or try the next one.
            let pause = PAUSE.min(until.saturating_duration_since(Instant::now()));
            nodes[at].wait_for(pause, |_| false);
        }
    }
}

/// What an unsuccessful attempt means for a command that may have been sent before.
enum Next {
    Return(RequestError),
    Again { in_doubt: bool },
}

fn next_step(error: &RequestError, in_doubt: bool) -> Next {
    match error {
        RequestError::OutcomeUnknown { why } => match why {
            // It did take effect; no other attempt will say more.
            UnknownReason::AnswerLost => Next::Return(error.clone()),
            UnknownReason::Deadline
            | UnknownReason::Stopped
            | UnknownReason::PassedBySnapshot
            | UnknownReason::SessionExpired => Next::Again { in_doubt: true },
        },
        RequestError::Rejected {
            reason: RejectReason::SessionExpired,
            ..
        } if in_doubt => Next::Return(RequestError::OutcomeUnknown {
            why: UnknownReason::SessionExpired,
        }),
        RequestError::Busy { .. } => Next::Again { in_doubt },
        RequestError::Rejected { .. } if error.is_retryable() => Next::Again { in_doubt },
        // A refusal for good; an earlier attempt would have met the same.
        RequestError::Rejected { .. } => Next::Return(error.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_and_acknowledge_what_has_no_gap() {
        // Acknowledging past an open number would make the cluster forget an answer that is wanted.
        let session = Session::new(SessionId(9));
        let numbers: Vec<_> = (0..3).map(|_| session.number(Bytes::new())).collect();
        assert_eq!(
            numbers.iter().map(|c| c.number).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        session.answered(2);
        assert_eq!(session.number(Bytes::new()).acknowledged, 0);
        session.answered(1);
        assert_eq!(session.number(Bytes::new()).acknowledged, 2);
        session.answered(3);
        session.answered(4);
        session.answered(5);
        assert_eq!(session.number(Bytes::new()).acknowledged, 5);
    }

    #[test]
    fn expiry_after_an_unanswered_attempt_is_no_refusal() {
        // The attempt before may have taken effect in the session's life.
        let expired = RequestError::Rejected {
            reason: RejectReason::SessionExpired,
            leader: None,
        };
        let unknown = RequestError::OutcomeUnknown {
            why: UnknownReason::SessionExpired,
        };
        assert!(matches!(next_step(&expired, true), Next::Return(e) if e == unknown));
        assert!(matches!(next_step(&expired, false), Next::Return(e) if e == expired));
    }
}
