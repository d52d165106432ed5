//! Sessions, in which commands take effect exactly once.

use super::Node;
use crate::driver::Proposal;
use crate::outcome::{Outcome, RequestError};
use crate::responder::{Pending, ProposeFuture, Responder};
use crate::session::Session;
use crate::sessions::{SessionCommand, SessionId, SessionLimits};
use std::time::Duration;

impl Node {
    /// Opens a session, in which commands take effect exactly once. Open one per client that has one
    /// command after another to send, not one per command.
    ///
    /// Cancel safety: dropping the future leaves a session that nobody uses; it expires.
    pub fn open_session(&self, limits: SessionLimits) -> Pending<Session> {
        let (responder, future) = Responder::<Session>::future();
        self.open(limits, self.deadline(), responder);
        future
    }

    /// As [`Node::open_session`]; blocks as [`Node::propose_wait`].
    pub fn open_session_wait(
        &self,
        limits: SessionLimits,
        timeout: Duration,
    ) -> Result<Session, RequestError> {
        self.wait(timeout, |deadline, responder| {
            self.open(limits, deadline, responder);
        })
    }

    fn open(&self, limits: SessionLimits, deadline: Option<u64>, responder: Responder<Session>) {
        let opened = Responder::call(move |outcome: Outcome| {
            let id = outcome.map(|opened| SessionId(opened.log_id.index.0));
            responder.answer(id.map(Session::new));
        });
        self.enter(0, opened, |responder| {
            Proposal::open_session(limits, deadline, responder)
        });
    }

    /// Ends a session: answered when the cluster has forgotten it.
    ///
    /// Cancel safety: dropping the future changes nothing; the session ends.
    pub fn close_session(&self, session: &Session) -> ProposeFuture {
        let (responder, future) = Responder::future();
        self.close(session.id(), self.deadline(), responder);
        future
    }

    /// As [`Node::close_session`]; blocks as [`Node::propose_wait`].
    pub fn close_session_wait(&self, session: &Session, timeout: Duration) -> Outcome {
        self.wait(timeout, |deadline, responder| {
            self.close(session.id(), deadline, responder);
        })
    }

    fn close(&self, session: SessionId, deadline: Option<u64>, responder: Responder) {
        self.enter(0, responder, |responder| {
            Proposal::close_session(session, deadline, responder)
        });
    }

    /// Submits a numbered command of a session, once. To be sent again after an unknown outcome,
    /// here or at another node; [`Session::propose`] does all of that.
    ///
    /// Cancel safety: dropping the future changes nothing for the command.
    pub fn propose_numbered(&self, command: SessionCommand) -> ProposeFuture {
        let (responder, future) = Responder::future();
        let deadline = self.deadline();
        self.enter(command.command.len(), responder, |responder| {
            Proposal::numbered(command, deadline, responder)
        });
        future
    }

    /// As [`Node::propose_numbered`]; blocks as [`Node::propose_wait`].
    pub fn propose_numbered_wait(&self, command: SessionCommand, timeout: Duration) -> Outcome {
        self.wait(timeout, |deadline, responder| {
            self.enter(command.command.len(), responder, |responder| {
                Proposal::numbered(command, deadline, responder)
            });
        })
    }
}
